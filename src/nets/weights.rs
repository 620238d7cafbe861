//! Checkpoints: safetensors and both containers of `torch.save`, mapped into memory and read tensor by tensor; or in
//! memory from the start, where the program brings them.
//!
//! Names are the network's own: wrappers (`network`, `state_dict`, ...) and `module.` prefixes are taken off.
//! [`load`] feeds a network's `VarBuilder` and reports all that is missing, misshapen or unused at once.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::ops::{Deref, Range};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, anyhow, bail, ensure};
use candle_core::{DType, Device, Shape, Tensor};
use candle_nn::{Init, VarBuilder, var_builder::SimpleBackend};
use memmap2::Mmap;
use safetensors::{Dtype, SafeTensors};

use super::torch_file;

/// A tensor in the file: a strided view of a storage. All its numbers have been checked against the file's size.
#[derive(Clone, Debug)]
pub(super) struct StoredTensor {
    dtype: Dtype,
    shape: Vec<usize>,
    strides: Vec<usize>,
    elements: usize,
    /// Bytes of the file from the first element to the end of the storage.
    bytes: Range<usize>,
}

impl StoredTensor {
    /// `offset` and `strides` count elements of the storage, which lies at `storage` in the file.
    pub(super) fn new(
        dtype: Dtype,
        shape: Vec<usize>,
        strides: Vec<usize>,
        offset: usize,
        storage: Range<usize>,
    ) -> Result<Self> {
        ensure!(dtype.bitsize().is_multiple_of(8), "elements of type {dtype:?} are not supported");
        let size = dtype.bitsize() / 8;
        let capacity = storage.len() / size;
        ensure!(shape.len() == strides.len(), "{} dimensions, but {} strides", shape.len(), strides.len());
        let elements = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d)).filter(|&n| n <= capacity);
        let elements = elements.with_context(|| format!("shape {shape:?} is larger than its storage of {capacity}"))?;
        ensure!(offset <= capacity, "offset {offset} is outside of its storage of {capacity}");
        if elements > 0 {
            let mut dims = shape.iter().zip(&strides);
            let last = dims.try_fold(offset, |at, (&d, &stride)| at.checked_add((d - 1).checked_mul(stride)?));
            ensure!(
                last.is_some_and(|last| last < capacity),
                "shape {shape:?} with strides {strides:?} from {offset} leaves its storage of {capacity}"
            );
        }
        Ok(Self { dtype, shape, strides, elements, bytes: storage.start + offset * size..storage.end })
    }

    fn contiguous(&self) -> bool {
        let mut expected = 1;
        self.shape.iter().zip(&self.strides).rev().all(|(&d, &stride)| {
            let fits = d == 1 || stride == expected;
            expected *= d;
            fits
        })
    }

    fn byte_len(&self) -> usize {
        self.elements * self.dtype.bitsize() / 8
    }

    /// The elements in row-major order, little-endian.
    fn data<'f>(&self, file: &'f [u8]) -> Cow<'f, [u8]> {
        let source = &file[self.bytes.clone()];
        if self.elements == 0 || self.contiguous() {
            return Cow::Borrowed(&source[..self.byte_len()]);
        }
        let size = self.dtype.bitsize() / 8;
        let mut data = Vec::with_capacity(self.byte_len());
        let mut index = vec![0; self.shape.len()];
        let mut at = 0; // in elements
        for _ in 0..self.elements {
            data.extend_from_slice(&source[at * size..][..size]);
            for dim in (0..index.len()).rev() {
                index[dim] += 1;
                at += self.strides[dim];
                if index[dim] < self.shape[dim] {
                    break;
                }
                at -= self.strides[dim] * self.shape[dim];
                index[dim] = 0;
            }
        }
        Cow::Owned(data)
    }
}

/// How a checkpoint is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Container {
    /// safetensors.
    Safetensors,
    /// `torch.save` since torch 1.6.
    TorchZip,
    /// `torch.save` before.
    TorchLegacy,
}

/// Key of a safetensors file's metadata under which stands what the tensors do not say: the JSON that can also lie in a
/// file beside a checkpoint (see `models::NetConfig`).
pub const CONFIG: &str = "lixelscope";

/// Where a checkpoint's bytes are.
#[derive(Debug)]
enum Bytes {
    Mapped(Mmap),
    BuiltIn(&'static [u8]),
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::BuiltIn(bytes) => bytes,
        }
    }
}

/// An opened checkpoint. Opening reads the list of tensors; their data is read when it is asked for.
#[derive(Debug)]
pub struct WeightFile {
    /// What messages call it.
    path: PathBuf,
    bytes: Bytes,
    container: Container,
    tensors: BTreeMap<String, StoredTensor>,
    config: Option<String>,
}

impl WeightFile {
    /// Opens a checkpoint; which container it is, is told by its content.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        Self::open_inner(&path).with_context(|| format!("cannot read the checkpoint {}", path.display()))
    }

    /// A checkpoint that is in memory, with the same checks; `name` is what messages call it.
    pub fn built_in(name: &str, bytes: &'static [u8]) -> Result<Self> {
        let file = Self::read(Path::new(name), Bytes::BuiltIn(bytes));
        file.with_context(|| format!("cannot read the checkpoint {name}"))
    }

    fn open_inner(path: &Path) -> Result<Self> {
        Self::read(path, Bytes::Mapped(map_file(path)?))
    }

    fn read(path: &Path, bytes: Bytes) -> Result<Self> {
        let mut config = None;
        let (container, tensors) = if bytes.starts_with(b"PK\x03\x04") {
            (Container::TorchZip, torch_file::read_zip(&bytes)?)
        } else if bytes.starts_with(torch_file::LEGACY_MAGIC) {
            (Container::TorchLegacy, torch_file::read_legacy(&bytes)?)
        } else if bytes.get(8) == Some(&b'{') {
            let (tensors, metadata) = read_safetensors(&bytes)?;
            config = metadata.and_then(|mut metadata| metadata.remove(CONFIG));
            (Container::Safetensors, tensors)
        } else {
            let start: String = bytes.iter().take(16).map(|&b| char::from(b).escape_default().to_string()).collect();
            bail!(
                "neither safetensors nor made by torch.save (it starts with \"{start}\"); if it was downloaded, the \
                 download may have given a web page or stopped early"
            );
        };
        Ok(Self { path: path.to_owned(), bytes, container, tensors, config })
    }

    /// Where it is, or what it is called where it is in no file of its own.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes of the whole of it.
    pub fn byte_len(&self) -> usize {
        self.bytes.len()
    }

    /// What stands in it under [`CONFIG`].
    pub fn config(&self) -> Option<&str> {
        self.config.as_deref()
    }

    /// How it is packed.
    pub fn container(&self) -> Container {
        self.container
    }

    /// Names of all tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Shape of a tensor; `None` where there is none of that name.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(|t| t.shape.as_slice())
    }

    /// Type of a tensor's elements, as stored.
    pub fn dtype(&self, name: &str) -> Option<Dtype> {
        self.tensors.get(name).map(|t| t.dtype)
    }

    /// A tensor's elements in row-major order, little-endian, as stored.
    pub fn data(&self, name: &str) -> Result<Cow<'_, [u8]>> {
        Ok(self.stored(name)?.data(&self.bytes))
    }

    /// A tensor in its own type (`bool` as `u8`, 8- and 16-bit integers widened where candle lacks them).
    pub fn tensor(&self, name: &str, device: &Device) -> Result<Tensor> {
        let stored = self.stored(name)?;
        let data = stored.data(&self.bytes);
        let raw = |dtype| Tensor::from_raw_buffer(&data, dtype, &stored.shape, device);
        let tensor = match stored.dtype {
            Dtype::BOOL => raw(DType::U8),
            Dtype::I8 => {
                let wide = data.iter().map(|&b| i16::from(b.cast_signed())).collect();
                Tensor::from_vec::<_, i16>(wide, stored.shape.as_slice(), device)
            }
            Dtype::U16 => {
                let wide = data.as_chunks().0.iter().map(|&b| u32::from(u16::from_le_bytes(b))).collect();
                Tensor::from_vec::<_, u32>(wide, stored.shape.as_slice(), device)
            }
            other => DType::try_from(other).and_then(raw),
        };
        tensor.with_context(|| format!("tensor {name} of {}", self.path.display()))
    }

    /// A tensor's shape and its elements as `f64`, row-major.
    pub fn values(&self, name: &str) -> Result<(Vec<usize>, Vec<f64>)> {
        let tensor = self.tensor(name, &Device::Cpu)?;
        Ok((tensor.dims().to_vec(), tensor.to_dtype(DType::F64)?.flatten_all()?.to_vec1()?))
    }

    /// Elements of all floating-point tensors of the network, without the body model's buffers.
    pub fn parameter_count(&self) -> usize {
        let floats = [Dtype::F64, Dtype::F32, Dtype::F16, Dtype::BF16];
        let counted = |(name, t): &(&String, &StoredTensor)| floats.contains(&t.dtype) && !name.starts_with(BODY_MODEL);
        self.tensors.iter().filter(counted).map(|(_, t)| t.elements).sum()
    }

    fn stored(&self, name: &str) -> Result<&StoredTensor> {
        self.tensors.get(name).with_context(|| format!("{} has no tensor {name}", self.path.display()))
    }
}

/// Prefix of the body model's buffers in I2L-MeshNet's snapshots.
pub const BODY_MODEL: &str = "human_model_layer.";

/// Maps a file. The one place with `unsafe`.
#[allow(unsafe_code)]
fn map_file(path: &Path) -> Result<Mmap> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    ensure!(file.metadata()?.is_file(), "it is not a file");
    ensure!(length > 0, "it is empty");
    // SAFETY: the map is only read, as bytes, and every access is checked against its length. What no program can
    // rule out is that another one cuts the file short while it is mapped; this program itself never writes to a
    // checkpoint in place (`convert` renames a finished file).
    Ok(unsafe { Mmap::map(&file) }?)
}

/// Tensors by name, and the file's metadata.
type Safetensors = (BTreeMap<String, StoredTensor>, Option<HashMap<String, String>>);

fn read_safetensors(file: &[u8]) -> Result<Safetensors> {
    let (header, metadata) =
        SafeTensors::read_metadata(file).map_err(|e| anyhow!("not a whole safetensors file: {e}"))?;
    let data = 8 + header;
    let mut tensors = BTreeMap::new();
    for (name, info) in metadata.tensors() {
        let mut strides = vec![1usize; info.shape.len()];
        for dim in (1..strides.len()).rev() {
            strides[dim - 1] = strides[dim].saturating_mul(info.shape[dim]);
        }
        let (start, end) = info.data_offsets;
        ensure!(start <= end && end <= file.len() - data, "tensor {name} reaches past the end of the file");
        let tensor = StoredTensor::new(info.dtype, info.shape.clone(), strides, 0, data + start..data + end)
            .with_context(|| format!("tensor {name}"))?;
        let name = name.trim_start_matches("module.");
        ensure!(tensors.insert(name.to_owned(), tensor).is_none(), "two tensors are named {name}");
    }
    Ok((tensors, metadata.metadata().clone()))
}

/// How [`load`] goes about it.
pub struct LoadOptions<'a> {
    /// Where the tensors go.
    pub device: &'a Device,
    /// What they are converted to.
    pub dtype: DType,
    /// The name to try where the file has none of the network's own (see [`old_fpn_name`]).
    pub fallback_name: fn(&str) -> Option<String>,
    /// Told how many bytes of how many have been read, after every tensor.
    pub progress: Box<dyn FnMut(u64, u64) + Send + 'a>,
}

impl<'a> LoadOptions<'a> {
    /// `f32` on this device, names as they are, nobody told of the progress.
    pub fn new(device: &'a Device) -> Self {
        Self { device, dtype: DType::F32, fallback_name: |_| None, progress: Box::new(|_, _| {}) }
    }
}

/// What was loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadReport {
    /// Tensors that the network took.
    pub used: usize,
    /// Tensors that nothing asked for, by name; without those that are known to have no use.
    pub unused: Vec<String>,
}

/// Builds a network from a checkpoint. `build` asks the `VarBuilder` for tensors by name and shape; those that are
/// missing or have another shape are all collected and named in one error.
pub fn load<T, E: Into<anyhow::Error>>(
    file: &WeightFile,
    options: LoadOptions<'_>,
    build: impl FnOnce(VarBuilder<'_>) -> Result<T, E>,
) -> Result<(T, LoadReport)> {
    let LoadOptions { device, dtype, fallback_name, progress } = options;
    let useful = file.tensors.iter().filter(|(name, _)| !has_no_use(name));
    let total = useful.map(|(_, t)| t.byte_len() as u64).sum();
    let log = LoadLog { used: BTreeSet::new(), problems: BTreeMap::new(), done: 0, total, progress };
    let log = Mutex::new(log);
    let backend = FileBackend { file, fallback_name, log: &log };
    let built = build(VarBuilder::from_backend(Box::new(backend), dtype, device.clone())).map_err(Into::into);
    let mut log = log.into_inner().unwrap_or_else(PoisonError::into_inner);

    let path = file.path.display();
    if !log.problems.is_empty() {
        let problems: Vec<_> = log.problems.iter().map(|(name, problem)| format!("\n  {name}: {problem}")).collect();
        let unused = unused(file, &log.used);
        let unused = if unused.is_empty() { String::new() } else { format!("\nunused: {}", unused.join(", ")) };
        bail!("{path} does not fit the network; {} tensors:{}{unused}", problems.len(), problems.concat());
    }
    let built = built.with_context(|| format!("cannot build the network from {path}"))?;
    (log.progress)(total, total);
    Ok((built, LoadReport { used: log.used.len(), unused: unused(file, &log.used) }))
}

fn unused(file: &WeightFile, used: &BTreeSet<String>) -> Vec<String> {
    file.names().filter(|name| !used.contains(*name) && !has_no_use(name)).map(str::to_owned).collect()
}

/// Counters of the training, the body model's buffers, and the classifier of an ImageNet backbone.
fn has_no_use(name: &str) -> bool {
    let classifier = |rest: &str| matches!(rest, "fc.weight" | "fc.bias");
    name.ends_with("num_batches_tracked")
        || name.starts_with(BODY_MODEL)
        || classifier(name)
        || name.split_once("backbone.").is_some_and(|(_, rest)| classifier(rest))
}

struct LoadLog<'a> {
    used: BTreeSet<String>,
    problems: BTreeMap<String, String>,
    done: u64,
    total: u64,
    progress: Box<dyn FnMut(u64, u64) + Send + 'a>,
}

struct FileBackend<'l, 'p> {
    file: &'l WeightFile,
    fallback_name: fn(&str) -> Option<String>,
    log: &'l Mutex<LoadLog<'p>>,
}

impl<'p> FileBackend<'_, 'p> {
    /// The name under which the file has it.
    fn name_in_file(&self, name: &str) -> Option<String> {
        let has = |name: &String| self.file.tensors.contains_key(name);
        Some(name.to_owned()).filter(has).or_else(|| (self.fallback_name)(name).filter(has))
    }

    fn read(&self, name: &str, dtype: DType, device: &Device) -> candle_core::Result<Tensor> {
        let to_candle = |e: anyhow::Error| candle_core::Error::Msg(format!("{e:#}"));
        let tensor = self.file.tensor(name, device).map_err(to_candle)?.to_dtype(dtype)?;
        let mut log = self.lock();
        if log.used.insert(name.to_owned()) {
            log.done += self.file.tensors.get(name).map_or(0, |t| t.byte_len() as u64);
            let (done, total) = (log.done, log.total);
            (log.progress)(done.min(total), total);
        }
        Ok(tensor)
    }

    fn problem(&self, name: &str, problem: String) {
        self.lock().problems.insert(name.to_owned(), problem);
    }

    fn lock(&self) -> MutexGuard<'_, LoadLog<'p>> {
        // A poisoned log is only counters and names; each is whole.
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SimpleBackend for FileBackend<'_, '_> {
    fn get(&self, shape: Shape, name: &str, _: Init, dtype: DType, device: &Device) -> candle_core::Result<Tensor> {
        let Some(in_file) = self.name_in_file(name) else {
            self.problem(name, format!("missing, expected {:?}", shape.dims()));
            // Zeros in its place let the network go on and name the next one.
            return Tensor::zeros(shape, dtype, device);
        };
        let found = self.file.shape(&in_file).unwrap_or_default();
        if found != shape.dims() {
            self.problem(name, format!("expected {:?}, found {found:?}", shape.dims()));
            self.lock().used.insert(in_file);
            return Tensor::zeros(shape, dtype, device);
        }
        self.read(&in_file, dtype, device)
    }

    fn get_unchecked(&self, name: &str, dtype: DType, device: &Device) -> candle_core::Result<Tensor> {
        let Some(in_file) = self.name_in_file(name) else {
            self.problem(name, "missing".into());
            candle_core::bail!("{name} is missing");
        };
        self.read(&in_file, dtype, device)
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.name_in_file(name).is_some()
    }
}

/// Torchvision's older name of a convolution of the FPN or the RPN's head. The network asks by the newer one
/// (`backbone.fpn.inner_blocks.0.0.weight`, `rpn.head.conv.0.0.weight`); published files have either.
pub fn old_fpn_name(new: &str) -> Option<String> {
    let (stem, parameter) = new.rsplit_once('.')?;
    let old = if stem == "rpn.head.conv.0.0" {
        "rpn.head.conv"
    } else {
        let level = |rest: &str| rest.len() == 1 && rest.bytes().all(|b| b.is_ascii_digit());
        let (block, _) = stem.strip_suffix(".0").and_then(|old| old.rsplit_once('.')).filter(|(_, n)| level(n))?;
        if !matches!(block, "backbone.fpn.inner_blocks" | "backbone.fpn.layer_blocks") {
            return None;
        }
        stem.strip_suffix(".0")?
    };
    Some(format!("{old}.{parameter}"))
}
