//! Numeric arrays as numpy writes them, in pickles and in `.npy` entries, of any type, order and endianness.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};

/// Arrays by name: what a body model's file holds.
pub type Arrays = BTreeMap<String, Array>;

/// Elements that an array may have: twice those of the largest array of a body model (300 shape components).
const MAX_ELEMENTS: usize = 1 << 23;

/// An array in row-major order.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    /// Its dimensions.
    pub shape: Vec<usize>,
    /// Its elements.
    pub data: Vec<f64>,
}

/// Elements of a shape; an error where they are too many for any body model.
pub fn element_count(shape: &[usize]) -> Result<usize> {
    let count = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d)).filter(|&n| n <= MAX_ELEMENTS);
    count.with_context(|| format!("an array of shape {shape:?} is too large for a body model"))
}

/// Type of an array's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DType {
    kind: u8,
    size: usize,
    big_endian: bool,
}

impl DType {
    /// Reads numpy's name of it: `<f8`, `|b1`, `u4`.
    pub fn parse(name: &str) -> Result<Self> {
        let (order, rest) = match name.as_bytes() {
            [order @ (b'<' | b'>' | b'|' | b'='), rest @ ..] => (*order, rest),
            rest => (b'=', rest),
        };
        let (kind, size) = match rest {
            [kind @ (b'f' | b'i' | b'u' | b'b'), size @ (b'1' | b'2' | b'4' | b'8')] => {
                (*kind, usize::from(size - b'0'))
            }
            _ => bail!("arrays of type {name:?} are not numbers"),
        };
        ensure!(kind != b'f' || size > 1, "arrays of type {name:?} are not numbers");
        Ok(Self { kind, size, big_endian: order == b'>' })
    }

    /// The same with another byte order (`<`, `>`, `|`, `=`).
    pub fn ordered(self, order: &str) -> Self {
        Self { big_endian: order == ">", ..self }
    }

    /// Bytes of an element.
    pub fn size(self) -> usize {
        self.size
    }

    fn read(self, bytes: &[u8]) -> f64 {
        let mut le = [0; 8];
        le[..self.size].copy_from_slice(bytes);
        if self.big_endian {
            le[..self.size].reverse();
        }
        let bits = u64::from_le_bytes(le);
        match (self.kind, self.size) {
            (b'f', 8) => f64::from_bits(bits),
            (b'f', 4) => f32::from_bits(bits as u32).into(),
            (b'f', _) => half::f16::from_bits(bits as u16).into(),
            (b'i', size) => (bits.cast_signed() << (64 - 8 * size) >> (64 - 8 * size)) as f64,
            _ => bits as f64,
        }
    }
}

impl Array {
    /// Decodes `bytes`, which must be exactly as many as the shape needs.
    pub fn decode(dtype: DType, shape: Vec<usize>, fortran: bool, bytes: &[u8]) -> Result<Self> {
        let count = element_count(&shape)?;
        let expected = count * dtype.size;
        ensure!(bytes.len() == expected, "an array of shape {shape:?} needs {expected} bytes, not {}", bytes.len());
        let values = bytes.chunks_exact(dtype.size).map(|bytes| dtype.read(bytes));
        if !fortran || shape.len() < 2 {
            return Ok(Self { data: values.collect(), shape });
        }
        // Column-major: the first index runs fastest.
        let mut strides = vec![1; shape.len()];
        for dim in (1..shape.len()).rev() {
            strides[dim - 1] = strides[dim] * shape[dim];
        }
        let mut data = vec![0.0; count];
        let mut index = vec![0; shape.len()];
        let mut at = 0;
        for value in values {
            data[at] = value;
            for dim in 0..shape.len() {
                index[dim] += 1;
                at += strides[dim];
                if index[dim] < shape[dim] {
                    break;
                }
                at -= strides[dim] * shape[dim];
                index[dim] = 0;
            }
        }
        Ok(Self { shape, data })
    }

    /// The same elements in another shape.
    pub fn reshaped(self, shape: Vec<usize>) -> Result<Self> {
        ensure!(element_count(&shape)? == self.data.len(), "{:?} cannot be reshaped to {shape:?}", self.shape);
        Ok(Self { shape, ..self })
    }

    /// Elements as indices below `limit`.
    pub fn indices(&self, limit: usize) -> Result<Vec<usize>> {
        let index = |&v: &f64| (v >= 0.0 && v < limit as f64 && v.fract() == 0.0).then_some(v as usize);
        self.data.iter().map(|v| index(v).with_context(|| format!("{v} is not an index below {limit}"))).collect()
    }

    /// A dense matrix from compressed sparse columns (or rows): for column c, rows `indices[indptr[c]..indptr[c+1]]`
    /// have `data` at the same places.
    pub fn from_compressed(
        shape: [usize; 2],
        by_column: bool,
        data: &Self,
        indices: &Self,
        indptr: &Self,
    ) -> Result<Self> {
        let (major, minor) = if by_column { (shape[1], shape[0]) } else { (shape[0], shape[1]) };
        ensure!(shape[0] <= 64 && shape[1] <= 1 << 16, "a sparse matrix of shape {shape:?} is no joint regressor");
        let starts = indptr.indices(data.data.len() + 1).context("column pointers of the sparse matrix")?;
        let indices = indices.indices(minor).context("row indices of the sparse matrix")?;
        ensure!(
            starts.len() == major + 1 && indices.len() == data.data.len() && starts.is_sorted(),
            "the parts of the sparse matrix do not belong together"
        );
        let mut dense = vec![0.0; element_count(&shape)?];
        for (c, range) in starts.windows(2).enumerate() {
            for (&r, &value) in indices[range[0]..range[1]].iter().zip(&data.data[range[0]..range[1]]) {
                let at = if by_column { r * shape[1] + c } else { c * shape[1] + r };
                dense[at] += value;
            }
        }
        Ok(Self { shape: shape.to_vec(), data: dense })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_order_and_sign() {
        let array =
            Array::decode(DType::parse(">i2").unwrap(), vec![2, 3], true, &[255, 254, 0, 1, 0, 2, 0, 3, 0, 4, 0, 5]);
        assert_eq!(array.unwrap().data, [-2.0, 2.0, 4.0, 1.0, 3.0, 5.0]);
        let half = Array::decode(DType::parse("<f2").unwrap(), vec![1], false, &[0x00, 0x3c]);
        assert_eq!(half.unwrap().data, [1.0]);
        let no_parent = Array::decode(DType::parse("u4").unwrap(), vec![1], false, &[255; 4]);
        assert_eq!(no_parent.unwrap().data, [4_294_967_295.0]);
        for bad in ["O8", "f1", "<U3", "", "<"] {
            assert!(DType::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_that_overflow_are_refused() {
        assert!(element_count(&[usize::MAX, 2]).is_err());
        assert!(Array::decode(DType::parse("<f8").unwrap(), vec![1 << 40], false, &[]).is_err());
    }
}
