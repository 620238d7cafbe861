//! `lixelscope convert`: any checkpoint as a safetensors file, which starts faster since it is mapped, not parsed; in
//! half the bytes where that is wanted.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use half::f16;
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};

use super::weights::{BODY_MODEL, CONFIG, WeightFile};

/// What [`convert`] wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Converted {
    /// Tensors.
    pub tensors: usize,
    /// Of these, those that became 16-bit floats.
    pub halved: usize,
    /// Size of the new file.
    pub bytes: u64,
}

/// Share of a tensor's length (as a vector) that may be lost when it becomes 16-bit floats. Rounding loses about
/// 2e-4; more means that values are too large or too small for them.
const MOST_LOST: f64 = 1e-3;

/// Writes the tensors of the checkpoint at `input` to `output`: the network without its wrapper and `module.`
/// prefixes, with the body model's buffers and its configuration, without the optimizer. The file appears under its
/// name only once it is whole. `progress` is told how many bytes of how many have been written.
///
/// With `half`, filters and matrices become 16-bit floats where these hold them. Vectors (biases, the statistics of
/// norms) stay as they are: they are few, and a variance can be smaller than any 16-bit float.
pub fn convert(input: &Path, output: &Path, half: bool, mut progress: impl FnMut(u64, u64)) -> Result<Converted> {
    let file = WeightFile::open(input)?;
    let same = fs::canonicalize(output).is_ok_and(|output| fs::canonicalize(input).is_ok_and(|input| input == output));
    ensure!(!same, "the output is the input itself ({}); name another file", output.display());
    let extension = output.extension().and_then(|e| e.to_str());
    ensure!(extension == Some("safetensors"), "the output {} must end in .safetensors", output.display());
    write(&file, output, half, &mut progress).with_context(|| format!("cannot write {}", output.display()))
}

/// A tensor on its way: its name, and the type that it will have.
struct Planned<'a> {
    name: &'a str,
    shape: &'a [usize],
    dtype: Dtype,
    halved: bool,
}

impl Planned<'_> {
    fn byte_len(&self) -> usize {
        // No overflow: the elements of each tensor fit into the file that it comes from.
        self.shape.iter().product::<usize>() * self.dtype.bitsize() / 8
    }
}

fn write(file: &WeightFile, output: &Path, half: bool, progress: &mut impl FnMut(u64, u64)) -> Result<Converted> {
    let mut tensors = Vec::new();
    for name in file.names() {
        let (Some(shape), Some(dtype)) = (file.shape(name), file.dtype(name)) else { continue };
        let halved = half && shape.len() > 1 && !name.starts_with(BODY_MODEL) && halved(file, name, dtype)?.is_some();
        tensors.push(Planned { name, shape, dtype: if halved { Dtype::F16 } else { dtype }, halved });
    }
    // Large elements first, as the format wants it: all data is then aligned.
    tensors.sort_by_key(|tensor| std::cmp::Reverse(tensor.dtype.bitsize()));
    let mut infos = Vec::with_capacity(tensors.len());
    let mut end = 0usize;
    for tensor in &tensors {
        let start = end;
        end = end.saturating_add(tensor.byte_len());
        let info = TensorInfo { dtype: tensor.dtype, shape: tensor.shape.to_vec(), data_offsets: (start, end) };
        infos.push((tensor.name.to_owned(), info));
    }
    // Shared storages are written once for every tensor; no real checkpoint shares much.
    ensure!(end <= file.byte_len().saturating_mul(4), "the tensors would unfold to {end} bytes");

    let config = file.config().map(|json| (CONFIG.to_owned(), json.to_owned()));
    let metadata: HashMap<_, _> = config.into_iter().chain([("format".to_owned(), "pt".to_owned())]).collect();
    let mut header = serde_json::to_vec(&Metadata::new(Some(metadata), infos)?)?;
    header.resize(header.len().next_multiple_of(8), b' ');

    let partial = Partial::beside(output)?;
    let mut out = BufWriter::with_capacity(1 << 20, File::create(partial.path())?);
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(&header)?;
    let mut done = 0;
    for tensor in &tensors {
        let data = match file.dtype(tensor.name) {
            Some(dtype) if tensor.halved => halved(file, tensor.name, dtype)?.map(Cow::Owned),
            _ => Some(file.data(tensor.name)?),
        };
        let data = data.with_context(|| format!("tensor {} changed while it was read", tensor.name))?;
        out.write_all(&data)?;
        done += data.len() as u64;
        progress(done, end as u64);
    }
    out.into_inner()?.sync_all()?;
    partial.finish(output)?;
    let halved = tensors.iter().filter(|tensor| tensor.halved).count();
    Ok(Converted { tensors: tensors.len(), halved, bytes: 8 + header.len() as u64 + end as u64 })
}

/// A tensor as 16-bit floats; `None` where these cannot hold it, or where it is none of floats that are longer.
fn halved(file: &WeightFile, name: &str, dtype: Dtype) -> Result<Option<Vec<u8>>> {
    if !matches!(dtype, Dtype::F32 | Dtype::F64) {
        return Ok(None);
    }
    let (_, values) = file.values(name)?;
    let (mut lost, mut length, mut data) = (0.0, 0.0, Vec::with_capacity(values.len() * 2));
    for value in values {
        let half = f16::from_f64(value);
        lost += (half.to_f64() - value).powi(2);
        length += value * value;
        data.extend(half.to_le_bytes());
    }
    // Not a number is lost for sure.
    Ok((lost <= length * MOST_LOST * MOST_LOST).then_some(data))
}

/// A file that is written under another name until it is whole; removed if it is still there under that name at the
/// end.
pub(crate) struct Partial(std::path::PathBuf);

impl Partial {
    /// In the same folder, so that it can be renamed.
    pub(crate) fn beside(output: &Path) -> Result<Self> {
        let folder = output.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let name = output.file_name().context("it has no file name")?.to_string_lossy();
        Ok(Self(folder.join(format!(".{name}.{}.partial", std::process::id()))))
    }

    /// Where to write.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// It is whole: takes the place of what was there under the name.
    pub(crate) fn finish(self, output: &Path) -> Result<()> {
        Ok(fs::rename(&self.0, output)?)
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // Gone already where it was renamed; nothing else to be done where it cannot be removed.
        let _ = fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};

    use super::*;

    #[test]
    fn filters_are_halved_where_16_bits_hold_them_and_the_configuration_stays() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let (from, to) = (folder.path().join("from.safetensors"), folder.path().join("to.safetensors"));
        let ramp = |scale: f32, shape: (usize, usize)| {
            let values = (0..shape.0 * shape.1).map(|i| (i as f32 - 20.0) * scale).collect();
            Tensor::from_vec::<_, f32>(values, shape, &Device::Cpu)
        };
        let tensors = [
            ("conv.weight", ramp(0.013, (6, 8))?),
            ("conv.bias", ramp(0.013, (1, 8))?.squeeze(0)?),
            ("bn.running_var", ramp(1e-9, (1, 8))?.squeeze(0)?),
            ("large.weight", ramp(1e5, (6, 8))?),
            ("small.weight", ramp(1e-9, (6, 8))?),
            ("human_model_layer.th_v_template", ramp(0.01, (6, 3))?),
        ];
        let metadata = HashMap::from([(CONFIG.to_owned(), r#"{"resnet": 18}"#.to_owned())]);
        safetensors::serialize_to_file(tensors.clone(), Some(metadata), &from)?;

        let converted = convert(&from, &to, true, |_, _| {})?;
        assert_eq!((converted.tensors, converted.halved), (6, 1));
        assert_eq!(converted.bytes, fs::metadata(&to)?.len());
        let file = WeightFile::open(&to)?;
        assert_eq!(file.config(), Some(r#"{"resnet": 18}"#));
        for (name, tensor) in &tensors {
            let (shape, values) = file.values(name)?;
            assert_eq!(shape, tensor.dims());
            let expected: Vec<f32> = tensor.flatten_all()?.to_vec1()?;
            for (value, expected) in values.iter().zip(expected) {
                // Eleven significant bits.
                let tolerance = if *name == "conv.weight" { f64::from(expected).abs() / 2048.0 } else { 0.0 };
                assert!((value - f64::from(expected)).abs() <= tolerance, "{name}: {value} for {expected}");
            }
        }
        assert_eq!(convert(&from, &to, false, |_, _| {})?.halved, 0);
        Ok(())
    }
}
