//! Operations of kernels in candle's graph.

use std::sync::Arc;

#[cfg(feature = "cudnn")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Storage, Tensor, bail};

use super::machine::{Machine, Memory, Numbers, machine_of, tensor, with_lent};
use crate::nets::cuda::kernels::Ptr;

/// A tensor as kernels see it.
#[derive(Clone, Copy, Debug)]
pub struct Operand<'a> {
    /// Its numbers, contiguous.
    pub at: Ptr,
    /// Its shape.
    pub dims: &'a [usize],
}

/// A differentiable operation on one or two tensors.
pub trait Operation: Send + Sync + 'static {
    /// For errors.
    const NAME: &'static str;

    /// The result and its shape.
    fn forward(&self, on: &dyn Machine, inputs: &[Operand]) -> Result<(Memory, Shape)>;

    /// Gradients of the inputs, of those that get one, from that of the output.
    fn backward(&self, on: &dyn Machine, inputs: &[Operand], output: Operand, grad: Ptr)
    -> Result<Vec<Option<Memory>>>;
}

/// An [`Operation`] that candle traces.
pub struct Traced<O>(pub O);

impl<O: Operation> Traced<O> {
    /// Of one tensor.
    pub fn apply(self, x: &Tensor) -> Result<Tensor> {
        x.contiguous()?.apply_op1(self)
    }

    /// Of two.
    pub fn apply2(self, x: &Tensor, other: &Tensor) -> Result<Tensor> {
        x.contiguous()?.apply_op2(&other.contiguous()?, self)
    }

    fn forward(&self, machine: &Arc<dyn Machine>, inputs: &[(Numbers, &Layout)]) -> Result<(Storage, Shape)> {
        let lent = inputs.iter().map(|(numbers, layout)| machine.lend(*numbers, layout)).collect::<Result<Vec<_>>>()?;
        let operands: Vec<_> =
            lent.iter().zip(inputs).map(|(lent, (_, layout))| Operand { at: lent.at, dims: layout.dims() }).collect();
        let (memory, shape) = self.0.forward(&**machine, &operands)?;
        debug_assert_eq!(memory.len, shape.elem_count(), "{}", O::NAME);
        Ok((machine.storage(memory)?, shape))
    }

    fn on_cpu(&self, inputs: &[(Numbers, &Layout)]) -> Result<(CpuStorage, Shape)> {
        match self.forward(&machine_of(&candle_core::Device::Cpu)?, inputs)? {
            (Storage::Cpu(storage), shape) => Ok((storage, shape)),
            _ => bail!("{} gave what is not on the processor", O::NAME),
        }
    }

    #[cfg(feature = "cudnn")]
    fn on_cuda(&self, inputs: &[(&CudaStorage, &Layout)]) -> Result<(CudaStorage, Shape)> {
        use candle_core::backend::BackendStorage;
        let machine = machine_of(&candle_core::Device::Cuda(inputs[0].0.device().clone()))?;
        let inputs: Vec<_> = inputs.iter().map(|(storage, layout)| (Numbers::Cuda(storage), *layout)).collect();
        match self.forward(&machine, &inputs)? {
            (Storage::Cuda(storage), shape) => Ok((storage, shape)),
            _ => bail!("{} gave what is not on the GPU", O::NAME),
        }
    }

    fn backward(&self, inputs: &[&Tensor], output: &Tensor, grad: &Tensor) -> Result<Vec<Option<Tensor>>> {
        let machine = machine_of(output.device())?;
        let all = [inputs, &[output, grad]].concat();
        let gradients = with_lent(&*machine, &all, |at| {
            let operand = |i: usize| Operand { at: at[i], dims: all[i].dims() };
            let count = inputs.len();
            let operands: Vec<_> = (0..count).map(operand).collect();
            self.0.backward(&*machine, &operands, operand(count), at[count + 1])
        })?;
        let gradients = gradients.into_iter().zip(inputs);
        gradients.map(|(memory, x)| memory.map(|memory| tensor(&*machine, memory, x.shape())).transpose()).collect()
    }
}

impl<O: Operation> CustomOp1 for Traced<O> {
    fn name(&self) -> &'static str {
        O::NAME
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        self.on_cpu(&[(Numbers::Cpu(x), layout)])
    }

    #[cfg(feature = "cudnn")]
    fn cuda_fwd(&self, x: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        self.on_cuda(&[(x, layout)])
    }

    fn bwd(&self, x: &Tensor, y: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        Ok(self.backward(&[x], y, grad)?.swap_remove(0))
    }
}

impl<O: Operation> CustomOp2 for Traced<O> {
    fn name(&self) -> &'static str {
        O::NAME
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        layout: &Layout,
        other: &CpuStorage,
        other_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.on_cpu(&[(Numbers::Cpu(x), layout), (Numbers::Cpu(other), other_layout)])
    }

    #[cfg(feature = "cudnn")]
    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        layout: &Layout,
        other: &CudaStorage,
        other_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        self.on_cuda(&[(x, layout), (other, other_layout)])
    }

    fn bwd(&self, x: &Tensor, other: &Tensor, y: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let mut gradients = self.backward(&[x, other], y, grad)?.into_iter();
        Ok((gradients.next().flatten(), gradients.next().flatten()))
    }
}
