//! `lixelscope convert`: any checkpoint as a safetensors file, which starts faster since it is mapped, not parsed.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use safetensors::tensor::{Metadata, TensorInfo};

use super::weights::WeightFile;

/// What [`convert`] wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Converted {
    /// Tensors, each in its own type.
    pub tensors: usize,
    /// Size of the new file.
    pub bytes: u64,
}

/// Writes the tensors of the checkpoint at `input` to `output`: the network without its wrapper and `module.`
/// prefixes, with the body model's buffers, without the optimizer. The file appears under its name only once it is
/// whole. `progress` is told how many bytes of how many have been written.
pub fn convert(input: &Path, output: &Path, mut progress: impl FnMut(u64, u64)) -> Result<Converted> {
    let file = WeightFile::open(input)?;
    let same = fs::canonicalize(output).is_ok_and(|output| fs::canonicalize(input).is_ok_and(|input| input == output));
    ensure!(!same, "the output is the input itself ({}); name another file", output.display());
    let extension = output.extension().and_then(|e| e.to_str());
    ensure!(extension == Some("safetensors"), "the output {} must end in .safetensors", output.display());
    write(&file, output, &mut progress).with_context(|| format!("cannot write {}", output.display()))
}

fn write(file: &WeightFile, output: &Path, progress: &mut impl FnMut(u64, u64)) -> Result<Converted> {
    // Large elements first, as the format wants it: all data is then aligned.
    let mut names: Vec<_> = file.names().collect();
    names.sort_by_key(|name| file.dtype(name).map(|dtype| std::cmp::Reverse(dtype.bitsize())));
    let mut infos = Vec::with_capacity(names.len());
    let mut end = 0usize;
    for &name in &names {
        let (Some(shape), Some(dtype)) = (file.shape(name), file.dtype(name)) else { continue };
        let start = end;
        // No overflow: the elements of each tensor fit into the file.
        end = end.saturating_add(shape.iter().product::<usize>() * dtype.bitsize() / 8);
        infos.push((name.to_owned(), TensorInfo { dtype, shape: shape.to_vec(), data_offsets: (start, end) }));
    }
    // Shared storages are written once for every tensor; no real checkpoint shares much.
    let input_bytes = fs::metadata(file.path())?.len();
    ensure!(end as u64 <= input_bytes.saturating_mul(4), "the tensors would unfold to {end} bytes");

    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let mut header = serde_json::to_vec(&Metadata::new(Some(metadata), infos)?)?;
    header.resize(header.len().next_multiple_of(8), b' ');

    let partial = Partial::beside(output)?;
    let mut out = BufWriter::with_capacity(1 << 20, File::create(partial.path())?);
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(&header)?;
    let mut done = 0;
    for &name in &names {
        let data = file.data(name)?;
        out.write_all(&data)?;
        done += data.len() as u64;
        progress(done, end as u64);
    }
    out.into_inner()?.sync_all()?;
    partial.finish(output)?;
    Ok(Converted { tensors: names.len(), bytes: 8 + header.len() as u64 + end as u64 })
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
