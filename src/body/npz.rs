//! The arrays in an `.npz` file: a zip archive of `.npy` entries.

use std::io::{Cursor, Read};

use anyhow::{Context, Result, bail, ensure};
use zip::ZipArchive;

use super::arrays::{Array, Arrays, DType, element_count};
use super::pickled;

/// An entry's header, and a pickled sparse regressor, are far smaller than this.
const MAX_HEADER: u64 = 1 << 16;
const MAX_PICKLE: u64 = 1 << 24;

/// Elements of all arrays together; SMPL with 300 shape components has two thirds of it. Compressed files can
/// announce anything.
const MAX_TOTAL: usize = 1 << 24;

/// The arrays of those names; names that are absent are left out.
pub fn read(file: &[u8], names: &[&str]) -> Result<Arrays> {
    let mut archive = ZipArchive::new(Cursor::new(file)).context("not a whole zip archive")?;
    let mut arrays = Arrays::new();
    for &name in names {
        let Some(index) = archive.index_for_name(&format!("{name}.npy")) else { continue };
        let entry = archive.by_index(index).with_context(|| format!("entry {name}.npy"))?;
        arrays.insert(name.to_owned(), read_npy(entry).with_context(|| format!("entry {name}.npy"))?);
        let total: usize = arrays.values().map(|array| array.data.len()).sum();
        ensure!(total <= MAX_TOTAL, "{total} numbers are too many for a body model");
    }
    Ok(arrays)
}

fn read_npy(mut entry: impl Read) -> Result<Array> {
    let mut magic = [0; 8];
    entry.read_exact(&mut magic).context("cut off")?;
    ensure!(magic.starts_with(b"\x93NUMPY"), "not a numpy array");
    let length = if magic[6] == 1 {
        let mut length = [0; 2];
        entry.read_exact(&mut length).context("cut off")?;
        u16::from_le_bytes(length).into()
    } else {
        let mut length = [0; 4];
        entry.read_exact(&mut length).context("cut off")?;
        u32::from_le_bytes(length).into()
    };
    ensure!(length <= MAX_HEADER, "a header of {length} bytes");
    let header = String::from_utf8(read_up_to(&mut entry, length)?).context("a header that is not text")?;
    let header = Header::parse(&header)?;
    if header.dtype.contains('O') {
        return pickled::read_object_array(&read_up_to(&mut entry, MAX_PICKLE)?);
    }
    let dtype = DType::parse(&header.dtype)?;
    let length = element_count(&header.shape)? * dtype.size();
    let data = read_up_to(&mut entry, length as u64)?;
    Array::decode(dtype, header.shape, header.fortran, &data)
}

/// Memory is taken as data comes, so an entry that announces more than it has takes no more than it has.
fn read_up_to(entry: &mut impl Read, length: u64) -> Result<Vec<u8>> {
    let mut data = Vec::new();
    entry.take(length).read_to_end(&mut data).context("cannot be unpacked")?;
    Ok(data)
}

/// The Python dict literal at the start of an entry.
struct Header {
    dtype: String,
    fortran: bool,
    shape: Vec<usize>,
}

impl Header {
    fn parse(header: &str) -> Result<Self> {
        let field = |name: &str| {
            let at = header.find(&format!("'{name}':")).with_context(|| format!("a header without {name}"))?;
            anyhow::Ok(header[at + name.len() + 3..].trim_start())
        };
        let dtype = field("descr")?.strip_prefix('\'').and_then(|rest| rest.split_once('\''));
        let (dtype, _) = dtype.context("an array of structures")?;
        let shape = field("shape")?.strip_prefix('(').and_then(|rest| rest.split_once(')'));
        let (shape, _) = shape.context("a header with a bad shape")?;
        let dims = shape.split(',').map(str::trim).filter(|dim| !dim.is_empty());
        let dims: Vec<usize> =
            dims.map(|dim| dim.parse().with_context(|| format!("bad dimension {dim:?}"))).collect::<Result<_>>()?;
        ensure!(dims.len() <= 8, "an array of {} dimensions", dims.len());
        let fortran = match field("fortran_order")? {
            yes if yes.starts_with("True") => true,
            no if no.starts_with("False") => false,
            _ => bail!("a header with a bad order"),
        };
        Ok(Self { dtype: dtype.to_owned(), fortran, shape: dims })
    }
}
