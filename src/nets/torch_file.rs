//! Where the tensors lie in a `torch.save` file, in both of its containers: the zip archive of torch 1.6 and later,
//! and the run of pickles and raw storages before it (the *legacy* container of the published 2019-2020 snapshots).
//! Only the pickles are read here; storages stay where they are until a tensor is asked for.

use std::collections::{BTreeMap, HashMap};
use std::io::Cursor;
use std::ops::Range;

use anyhow::{Context, Result, bail, ensure};
use safetensors::Dtype;
use zip::{CompressionMethod, ZipArchive};

use super::weights::StoredTensor;
use crate::pickle::{Pickle, Value};

/// The first pickle of a legacy file: protocol 2, the magic number, stop.
pub(super) const LEGACY_MAGIC: &[u8] = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.";

/// All that checkpoints have a reason to name: tensors, their storages, and the plain values of an optimizer's state.
const ALLOWED: &[&str] = &[
    "collections.OrderedDict",
    "collections.defaultdict",
    "builtins.dict",
    "builtins.list",
    "builtins.set",
    "builtins.tuple",
    "builtins.slice",
    "builtins.int",
    "builtins.float",
    "builtins.bool",
    "_codecs.encode",
    "numpy.dtype",
    "numpy.ndarray",
    "numpy.core.multiarray.scalar",
    "numpy.core.multiarray._reconstruct",
    "numpy._core.multiarray.scalar",
    "numpy._core.multiarray._reconstruct",
    "torch.Size",
    "torch.device",
    "torch._utils._rebuild_tensor",
    "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_parameter",
    "torch.DoubleStorage",
    "torch.FloatStorage",
    "torch.HalfStorage",
    "torch.BFloat16Storage",
    "torch.LongStorage",
    "torch.IntStorage",
    "torch.ShortStorage",
    "torch.CharStorage",
    "torch.ByteStorage",
    "torch.BoolStorage",
];

fn storage_dtype(class: &str) -> Result<Dtype> {
    Ok(match class {
        "torch.DoubleStorage" => Dtype::F64,
        "torch.FloatStorage" => Dtype::F32,
        "torch.HalfStorage" => Dtype::F16,
        "torch.BFloat16Storage" => Dtype::BF16,
        "torch.LongStorage" => Dtype::I64,
        "torch.IntStorage" => Dtype::I32,
        "torch.ShortStorage" => Dtype::I16,
        "torch.CharStorage" => Dtype::I8,
        "torch.ByteStorage" => Dtype::U8,
        "torch.BoolStorage" => Dtype::BOOL,
        _ => bail!("{class} is not a storage"),
    })
}

/// Names under which a training program wraps the state dict of its network.
const WRAPPERS: [&str; 5] = ["network", "state_dict", "model_state_dict", "model", "net"];

/// The tensors of a zip container.
pub(super) fn read_zip(file: &[u8]) -> Result<BTreeMap<String, StoredTensor>> {
    let mut archive = ZipArchive::new(Cursor::new(file)).context("not a whole zip archive")?;
    let pickle_name = archive
        .file_names_raw()
        .filter_map(|name| std::str::from_utf8(name).ok())
        .find(|name| *name == "data.pkl" || (name.ends_with("/data.pkl") && name.matches('/').count() == 1))
        .map(str::to_owned)
        .context("a zip archive without data.pkl: not made by torch.save")?;
    let folder = pickle_name.trim_end_matches("data.pkl").to_owned();
    if archive.index_for_name(&format!("{folder}byteorder")).is_some() {
        let order = &file[entry(&mut archive, file, &format!("{folder}byteorder"))?];
        ensure!(order == b"little", "the checkpoint was written on a big-endian machine");
    }
    let pickle = &file[entry(&mut archive, file, &pickle_name)?];
    let pickle = Pickle::parse(pickle, ALLOWED).with_context(|| pickle_name.clone())?;
    let mut storages = HashMap::new();
    tensors(&pickle, |key| {
        if let Some(range) = storages.get(key) {
            return Ok(Range::clone(range));
        }
        let range = entry(&mut archive, file, &format!("{folder}data/{key}"))?;
        storages.insert(key.to_owned(), range.clone());
        Ok(range)
    })
}

/// Where the bytes of a stored (not compressed) entry lie.
fn entry(archive: &mut ZipArchive<Cursor<&[u8]>>, file: &[u8], name: &str) -> Result<Range<usize>> {
    let index = archive.index_for_name(name).with_context(|| format!("the archive has no entry {name}"))?;
    let entry = archive.by_index_raw(index).with_context(|| format!("entry {name}"))?;
    ensure!(
        entry.compression() == CompressionMethod::Stored && !entry.encrypted(),
        "entry {name} is compressed, which torch.save never does; pack the archive again without compression"
    );
    let start = entry.data_start().with_context(|| format!("entry {name} has no data"))?;
    let end = start.checked_add(entry.compressed_size()).filter(|&end| end <= file.len() as u64);
    let end = end.with_context(|| format!("entry {name} reaches past the end of the file"))?;
    ensure!(entry.size() == entry.compressed_size(), "entry {name} has two sizes");
    Ok(start as usize..end as usize)
}

/// The tensors of a legacy container: magic number, protocol version, system information, the object, the storages'
/// keys, then for each key the number of elements (i64) and the elements.
pub(super) fn read_legacy(file: &[u8]) -> Result<BTreeMap<String, StoredTensor>> {
    let mut at = LEGACY_MAGIC.len();
    let mut next = |what: &str| -> Result<Pickle<'_>> {
        let pickle = Pickle::parse(&file[at..], ALLOWED).with_context(|| format!("{what}, from byte {at}"))?;
        at += pickle.consumed();
        Ok(pickle)
    };
    let version = next("the protocol version")?;
    ensure!(version.root() == Value::Int(1001), "a legacy container of a version other than 1001");
    let system = next("the system information")?;
    ensure!(
        system.get(system.root(), "little_endian") != Some(Value::Bool(false)),
        "the checkpoint was written on a big-endian machine"
    );
    let object = next("the object")?;
    let keys = next("the list of storages")?;

    let mut dtypes = HashMap::new();
    for id in object.persistents() {
        let storage = Storage::parse(&object, id)?;
        if let Some(before) = dtypes.insert(storage.key, storage.dtype) {
            ensure!(before == storage.dtype, "storage {} has two types", storage.key);
        }
    }
    let mut storages = HashMap::new();
    for &key in keys.sequence(keys.root()).context("the storages' keys are not a list")? {
        let key = keys.text(key).context("a storage's key is not text")?;
        let dtype = dtypes.get(key).with_context(|| format!("nothing refers to storage {key}"))?;
        let (count, rest) = file[at..].split_first_chunk().with_context(|| format!("storage {key} is cut off"))?;
        let count = i64::from_le_bytes(*count);
        let bytes = usize::try_from(count).ok().and_then(|count| count.checked_mul(dtype.bitsize() / 8));
        let bytes = bytes
            .filter(|&bytes| bytes <= rest.len())
            .with_context(|| format!("storage {key} announces {count} elements, but {} bytes are left", rest.len()))?;
        let start = file.len() - rest.len();
        storages.insert(key, start..start + bytes);
        at = start + bytes;
    }
    tensors(&object, |key| storages.get(key).cloned().with_context(|| format!("storage {key} is not in the file")))
}

/// The persistent id of a storage: `('storage', type, key, location, elements[, view])`.
struct Storage<'s> {
    dtype: Dtype,
    key: &'s str,
    /// Elements, counted in the storage or in the view of it.
    count: usize,
    /// First element of the view.
    offset: usize,
}

impl<'s> Storage<'s> {
    fn parse<'a: 's>(pickle: &'s Pickle<'a>, id: Value<'a>) -> Result<Self> {
        let id = pickle.sequence(id).filter(|id| id.len() >= 5).context("a persistent id that is not a storage's")?;
        ensure!(pickle.text(id[0]) == Some("storage"), "a persistent id that is not a storage's");
        let dtype = storage_dtype(pickle.class(id[1]).context("a storage without a type")?)?;
        let key = pickle.text(id[2]).context("a storage without a key")?;
        let mut storage =
            Self { dtype, key, count: pickle.count(id[4]).context("a storage without a size")?, offset: 0 };
        // Legacy only: the storage is part of another one, `(its key, offset, elements)`.
        if let Some(view) = id.get(5).and_then(|&view| pickle.sequence(view)) {
            let numbers = view.get(1..3).map(|v| [v[0], v[1]].map(|v| pickle.count(v)));
            let Some([Some(offset), Some(count)]) = numbers else { bail!("storage {key}: a bad view") };
            (storage.offset, storage.count) = (offset, count);
        }
        Ok(storage)
    }
}

/// Finds the state dict in the object and lays out its tensors. `locate` says where the bytes of a storage are.
fn tensors(
    pickle: &Pickle<'_>,
    mut locate: impl FnMut(&str) -> Result<Range<usize>>,
) -> Result<BTreeMap<String, StoredTensor>> {
    let mut dict = pickle.root();
    // Two wrappers inside each other occur; a limit, since a pickle can contain itself.
    for _ in 0..4 {
        let inner = WRAPPERS.iter().filter_map(|name| pickle.get(dict, name)).find(|&v| pickle.pairs(v).is_some());
        let Some(inner) = inner else { break };
        dict = inner;
    }
    let Some(pairs) = pickle.pairs(dict) else {
        bail!("a state dict is expected, but the file holds {}", pickle.kind(pickle.root()))
    };
    let mut tensors = BTreeMap::new();
    for &(key, value) in pairs {
        // Beside the tensors there can be counters and settings.
        if !pickle.object(value).is_some_and(|(class, _)| class.starts_with("torch._utils._rebuild_")) {
            continue;
        }
        let name = pickle.text(key).context("a tensor without a name")?;
        let tensor = tensor(pickle, value, &mut locate).with_context(|| format!("tensor {name}"))?;
        let name = name.trim_start_matches("module.");
        ensure!(tensors.insert(name.to_owned(), tensor).is_none(), "two tensors are named {name}");
    }
    if tensors.is_empty() {
        let keys: Vec<_> = pairs.iter().take(8).filter_map(|&(key, _)| pickle.text(key)).collect();
        bail!("no tensors in it; it holds {}", if keys.is_empty() { "nothing".into() } else { keys.join(", ") });
    }
    Ok(tensors)
}

fn tensor<'a>(
    pickle: &Pickle<'a>,
    mut value: Value<'a>,
    locate: &mut impl FnMut(&str) -> Result<Range<usize>>,
) -> Result<StoredTensor> {
    let arguments = |value| {
        let (class, object) = pickle.object(value).context("not a tensor")?;
        anyhow::Ok((class, pickle.sequence(object.args()).context("not a tensor")?))
    };
    let (mut class, mut args) = arguments(value)?;
    if class == "torch._utils._rebuild_parameter" {
        value = *args.first().context("an empty parameter")?;
        (class, args) = arguments(value)?;
    }
    ensure!(class.starts_with("torch._utils._rebuild_tensor"), "{} is not a tensor", pickle.kind(value));
    let &[storage, offset, shape, strides, ..] = args else { bail!("a tensor of {} arguments", args.len()) };
    let numbers = |value: Value<'a>| -> Option<Vec<usize>> {
        let value = match pickle.object(value) {
            Some(("torch.Size", size)) => *pickle.sequence(size.args())?.first()?,
            _ => value,
        };
        pickle.sequence(value)?.iter().map(|&n| pickle.count(n)).collect()
    };
    let storage = Storage::parse(pickle, pickle.persistent(storage).context("a tensor without a storage")?)?;
    let (Some(offset), Some(shape), Some(strides)) = (pickle.count(offset), numbers(shape), numbers(strides)) else {
        bail!("a tensor with a bad offset, shape or stride")
    };
    let range = locate(storage.key)?;
    let size = storage.dtype.bitsize() / 8;
    let within = |n: usize| n.checked_mul(size).filter(|&bytes| bytes <= range.len());
    let view = storage.offset.checked_add(storage.count).and_then(within);
    let (Some(end), Some(start)) = (view, within(storage.offset)) else {
        bail!("storage {} of {} elements is larger than its {} bytes", storage.key, storage.count, range.len())
    };
    StoredTensor::new(storage.dtype, shape, strides, offset, range.start + start..range.start + end)
}
