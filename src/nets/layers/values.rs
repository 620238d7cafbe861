//! What small layers and whole networks say.

use std::borrow::Cow;
use std::sync::Arc;

use candle_core::{DType, Device, Result, Shape, Tensor, bail};

use super::{is_fast, with_floats};
use crate::memory::Buffer;

/// An array of floats, row-major. On the processor it lies in memory that serves the next frame once nobody holds it any
/// more, which a tensor's cannot.
#[derive(Clone, Debug)]
pub enum Values {
    /// Any device, any type, gradients.
    Tensor(Tensor),
    /// On the processor.
    Reused(Arc<Buffer>, Shape),
}

impl From<Tensor> for Values {
    fn from(tensor: Tensor) -> Self {
        Self::Tensor(tensor)
    }
}

impl From<&Tensor> for Values {
    fn from(tensor: &Tensor) -> Self {
        Self::Tensor(tensor.clone())
    }
}

impl From<&Values> for Values {
    fn from(values: &Values) -> Self {
        values.clone()
    }
}

impl Values {
    /// Of floats in this shape.
    pub fn new(floats: Buffer, shape: impl Into<Shape>) -> Self {
        let shape = shape.into();
        assert_eq!(floats.len(), shape.elem_count(), "floats of another number than {shape:?}");
        Self::Reused(Arc::new(floats), shape)
    }

    /// Sizes along the axes.
    pub fn dims(&self) -> &[usize] {
        match self {
            Self::Tensor(tensor) => tensor.dims(),
            Self::Reused(_, shape) => shape.dims(),
        }
    }

    /// The same floats in another shape.
    pub fn reshape(self, shape: impl Into<Shape>) -> Result<Self> {
        let shape = shape.into();
        match self {
            Self::Tensor(tensor) => Ok(Self::Tensor(tensor.reshape(shape)?)),
            Self::Reused(floats, old) if old.elem_count() == shape.elem_count() => Ok(Self::Reused(floats, shape)),
            Self::Reused(_, old) => bail!("{old:?} cannot be seen as {shape:?}"),
        }
    }

    /// On a device; where it is the processor, as they are.
    pub fn to_device(self, device: &Device) -> Result<Self> {
        if device.is_cpu() && matches!(self, Self::Reused(..)) {
            return Ok(self);
        }
        Ok(Self::Tensor(self.to_tensor()?.to_device(device)?))
    }

    /// A tensor; a copy of what lies in reused memory.
    pub fn to_tensor(&self) -> Result<Tensor> {
        match self {
            Self::Tensor(tensor) => Ok(tensor.clone()),
            Self::Reused(floats, shape) => Tensor::from_slice(floats, shape.clone(), &Device::Cpu),
        }
    }

    /// The floats, fetched from the device where they are on one.
    pub fn fetch(&self) -> Result<Cow<'_, [f32]>> {
        match self {
            Self::Tensor(x) => {
                Ok(Cow::Owned(x.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?))
            }
            Self::Reused(floats, _) => Ok(Cow::Borrowed(floats)),
        }
    }

    /// Whether the kernels of the processor may read them.
    pub(crate) fn is_fast(&self) -> bool {
        match self {
            Self::Tensor(tensor) => is_fast(&[tensor]),
            Self::Reused(..) => true,
        }
    }

    /// Runs `work` on the floats, which are on the processor.
    pub(crate) fn with_floats<T>(&self, work: impl FnOnce(&[f32]) -> Result<T>) -> Result<T> {
        match self {
            Self::Tensor(tensor) => with_floats(tensor, work),
            Self::Reused(floats, _) => work(floats),
        }
    }
}
