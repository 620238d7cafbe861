//! The arrays in a body model's pickle: numpy arrays, plain or wrapped in chumpy objects, and scipy's sparse matrices.

use anyhow::{Context, Result, bail, ensure};

use super::arrays::{Array, Arrays, DType, element_count};
use crate::pickle::{Object, Pickle, Value, latin1_bytes};

/// All that body models have a reason to name.
const ALLOWED: &[&str] = &[
    "_codecs.encode",
    "builtins.bytearray",
    "builtins.set",
    // Entries that are not read here are of other classes of it in some of the distributed files.
    "chumpy.*",
    "collections.OrderedDict",
    "numpy.dtype",
    "numpy.ndarray",
    "numpy.core.multiarray._reconstruct",
    "numpy.core.multiarray.scalar",
    "numpy.core.numeric._frombuffer",
    "numpy._core.multiarray._reconstruct",
    "numpy._core.multiarray.scalar",
    "numpy._core.numeric._frombuffer",
    "scipy.sparse.csc.csc_matrix",
    "scipy.sparse._csc.csc_matrix",
    "scipy.sparse.csr.csr_matrix",
    "scipy.sparse._csr.csr_matrix",
];

/// The arrays of those names in a pickled dict; names that are absent are left out.
pub fn read(file: &[u8], names: &[&str]) -> Result<Arrays> {
    let pickle = Pickle::parse(file, ALLOWED)?;
    let root = pickle.root();
    ensure!(pickle.pairs(root).is_some(), "a dict of arrays is expected, but the file holds {}", pickle.kind(root));
    let mut arrays = Arrays::new();
    for &name in names {
        if let Some(value) = pickle.get(root, name) {
            arrays.insert(name.to_owned(), array(&pickle, value, 0).with_context(|| format!("entry {name}"))?);
        }
    }
    Ok(arrays)
}

/// The one object in the pickle of a zero-dimensional object array, as `numpy.savez` writes a sparse matrix.
pub fn read_object_array(file: &[u8]) -> Result<Array> {
    let pickle = Pickle::parse(file, ALLOWED)?;
    let state = pickle.object(pickle.root()).and_then(|(_, object)| state_tuple(&pickle, object));
    let items = state.and_then(|state| pickle.sequence(*state.last()?));
    let Some(&[value]) = items else { bail!("an array of objects that are not numbers") };
    array(&pickle, value, 0)
}

fn array<'a>(pickle: &Pickle<'a>, value: Value<'a>, depth: usize) -> Result<Array> {
    ensure!(depth < 8, "arrays wrapped too often");
    let Some((class, object)) = pickle.object(value) else {
        bail!("an array is expected, but there is {}", pickle.kind(value))
    };
    let attribute = |name: &str| {
        let state = object.state().with_context(|| format!("{class} without attributes"))?;
        pickle.get(state, name).with_context(|| format!("{class} without {name}"))
    };
    let inner = |name: &str| array(pickle, attribute(name)?, depth + 1).with_context(|| format!("{class}'s {name}"));
    match class {
        "numpy.core.multiarray._reconstruct" | "numpy._core.multiarray._reconstruct" => ndarray(pickle, object),
        "numpy.core.numeric._frombuffer" | "numpy._core.numeric._frombuffer" => from_buffer(pickle, object),
        "chumpy.ch.Ch" => inner("x"),
        // A flat gather of `a`.
        "chumpy.reordering.Select" => {
            let (source, indices) = (inner("a")?, inner("idxs")?);
            let shape = shape(pickle, attribute("preferred_shape")?)?;
            let indices = indices.indices(source.data.len())?;
            Array { shape: vec![indices.len()], data: indices.into_iter().map(|i| source.data[i]).collect() }
                .reshaped(shape)
        }
        sparse if sparse.starts_with("scipy.sparse") => {
            let shape = shape(pickle, attribute("_shape").or_else(|_| attribute("shape"))?)?;
            let &[rows, columns] = shape.as_slice() else { bail!("a sparse matrix of shape {shape:?}") };
            let by_column = sparse.ends_with("csc_matrix");
            Array::from_compressed([rows, columns], by_column, &inner("data")?, &inner("indices")?, &inner("indptr")?)
        }
        _ => bail!("an array is expected, but there is {}", pickle.kind(value)),
    }
}

fn state_tuple<'s, 'a>(pickle: &'s Pickle<'a>, object: &Object<'a>) -> Option<&'s [Value<'a>]> {
    pickle.sequence(object.state()?)
}

/// The state of an `ndarray`: `(version, shape, dtype, fortran order, bytes)`.
fn ndarray<'a>(pickle: &Pickle<'a>, object: &Object<'a>) -> Result<Array> {
    let state = state_tuple(pickle, object).context("an array without a state")?;
    let &[.., dims, dtype, fortran, data] = state else { bail!("an array of {} parts", state.len()) };
    let dtype = element_type(pickle, dtype)?;
    let dims = shape(pickle, dims)?;
    element_count(&dims)?;
    let fortran = matches!(fortran, Value::Bool(true) | Value::Int(1));
    Array::decode(dtype, dims, fortran, &latin1_bytes(pickle, data).context("an array without bytes")?)
}

/// Protocol 5: `_frombuffer(bytes, dtype, shape, order)`.
fn from_buffer<'a>(pickle: &Pickle<'a>, object: &Object<'a>) -> Result<Array> {
    let Some(&[data, dtype, dims, order]) = pickle.sequence(object.args()) else { bail!("an array of no buffer") };
    let dtype = element_type(pickle, dtype)?;
    let data = latin1_bytes(pickle, data).context("an array without bytes")?;
    Array::decode(dtype, shape(pickle, dims)?, pickle.text(order) == Some("F"), &data)
}

/// `dtype(name, ...)` with a state `(version, byte order, ...)`.
fn element_type<'a>(pickle: &Pickle<'a>, value: Value<'a>) -> Result<DType> {
    let Some(("numpy.dtype", object)) = pickle.object(value) else { bail!("an array without a type") };
    let name = pickle.sequence(object.args()).and_then(|args| pickle.text(*args.first()?));
    let dtype = DType::parse(name.context("an array without a type")?)?;
    let order = state_tuple(pickle, object).and_then(|state| pickle.text(*state.get(1)?));
    Ok(order.map_or(dtype, |order| dtype.ordered(order)))
}

fn shape<'a>(pickle: &Pickle<'a>, value: Value<'a>) -> Result<Vec<usize>> {
    let dims = pickle.sequence(value).context("a shape that is not a tuple")?;
    ensure!(dims.len() <= 8, "an array of {} dimensions", dims.len());
    dims.iter().map(|&d| pickle.count(d).context("a shape that is not of whole numbers")).collect()
}
