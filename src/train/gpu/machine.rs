//! What training needs of a device.

use std::ops::Range;
use std::sync::Arc;

use candle_core::op::BackpropOp;
use candle_core::{CpuStorage, CudaStorage, Device, Layout, Result, Shape, Storage, Tensor};

use crate::nets::cuda::kernels::{Launch, Ptr};
use crate::nets::kernels::ConvDims;

/// A device. What is asked of it is done in that order.
pub trait Machine: Launch + Send + Sync {
    /// What it is called and how it computes.
    fn name(&self) -> String;

    /// Where candle's tensors are.
    fn device(&self) -> Device;

    /// Memory for so many numbers, fewer than 2^31; what it holds is arbitrary.
    fn take(&self, len: usize) -> Result<Memory>;

    /// Memory with these numbers.
    fn upload(&self, values: &[f32]) -> Result<Memory>;

    /// The numbers, once all that was asked for before is done.
    fn download(&self, memory: &Memory) -> Result<Vec<f32>>;

    /// A copy of a part.
    fn copy(&self, memory: &Memory, part: Range<usize>) -> Result<Memory>;

    /// Memory as candle has it.
    fn storage(&self, memory: Memory) -> Result<Storage>;

    /// candle's numbers, contiguous f32, as kernels find them.
    fn lend(&self, numbers: Numbers, layout: &Layout) -> Result<Lent>;

    /// One of a convolution's three ways, for planes.
    fn convolve(&self, way: Way, dims: &ConvDims, from: [Ptr; 2], into: Ptr) -> Result<()>;
}

/// The ways through a convolution with weights `[output, input, K, K]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Way {
    /// From the input and the weights the output.
    Forward,
    /// From the gradient of the output and the weights that of the input.
    Input,
    /// From the input and the gradient of the output that of the weights.
    Weights,
}

/// f32 on a device; given back when it goes.
pub struct Memory {
    /// Where it begins.
    pub at: Ptr,
    /// Numbers.
    pub len: usize,
    #[allow(dead_code)] // In tests it is only dropped.
    pub(super) held: Held,
}

/// Who holds it.
pub(super) enum Held {
    #[cfg(feature = "cudnn")]
    Cuda(candle_core::cuda_backend::cudarc::driver::CudaSlice<f32>),
    #[cfg(test)]
    #[allow(dead_code)]
    Host(super::host::HostMemory),
}

#[cfg(feature = "cudnn")]
impl Held {
    /// Memory of an NVIDIA GPU.
    pub fn cuda(&self) -> Result<&candle_core::cuda_backend::cudarc::driver::CudaSlice<f32>> {
        match self {
            Self::Cuda(slice) => Ok(slice),
            #[cfg(test)]
            Self::Host(_) => candle_core::bail!("this memory is not on the GPU"),
        }
    }

    /// The same, handed over.
    pub fn into_cuda(self) -> Result<candle_core::cuda_backend::cudarc::driver::CudaSlice<f32>> {
        match self {
            Self::Cuda(slice) => Ok(slice),
            #[cfg(test)]
            Self::Host(_) => candle_core::bail!("this memory is not on the GPU"),
        }
    }
}

/// A tensor's numbers.
#[derive(Clone, Copy)]
pub enum Numbers<'a> {
    /// On the processor.
    Cpu(&'a CpuStorage),
    /// On an NVIDIA GPU.
    Cuda(&'a CudaStorage),
}

/// A tensor's numbers for a while.
pub struct Lent {
    /// Where they are.
    pub at: Ptr,
    /// Their copy, if they are one.
    pub(super) _copy: Option<Memory>,
}

/// The machine behind a device.
pub fn machine_of(device: &Device) -> Result<Arc<dyn Machine>> {
    match device {
        #[cfg(feature = "cudnn")]
        Device::Cuda(device) => super::Cuda::of(device),
        #[cfg(test)]
        Device::Cpu => Ok(super::host::machine()),
        other => candle_core::bail!("training's kernels do not run on {other:?}"),
    }
}

/// Memory as a tensor.
pub fn tensor(machine: &dyn Machine, memory: Memory, shape: impl Into<Shape>) -> Result<Tensor> {
    Ok(Tensor::from_storage(machine.storage(memory)?, shape, BackpropOp::none(), false))
}

/// Lets `work` read tensors.
pub fn with_lent<T>(machine: &dyn Machine, tensors: &[&Tensor], work: impl FnOnce(&[Ptr]) -> Result<T>) -> Result<T> {
    let contiguous = tensors.iter().map(|tensor| tensor.contiguous()).collect::<Result<Vec<_>>>()?;
    let guards: Vec<_> = contiguous.iter().map(Tensor::storage_and_layout).collect();
    let mut lent = Vec::with_capacity(tensors.len());
    for (storage, layout) in &guards {
        lent.push(match &**storage {
            Storage::Cpu(storage) => machine.lend(Numbers::Cpu(storage), layout)?,
            Storage::Cuda(storage) => machine.lend(Numbers::Cuda(storage), layout)?,
            Storage::Metal(_) => candle_core::bail!("training's kernels do not run on Metal"),
        });
    }
    work(&lent.iter().map(|lent| lent.at).collect::<Vec<_>>())
}
