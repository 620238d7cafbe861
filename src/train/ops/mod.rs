//! Differentiable operations, f32, as custom operations of candle, whose autograd is the tape: networks, heads and
//! losses are put together freely, and the fast kernels do the work. What is here runs on the CPU; what lies on a GPU is
//! handed to its twin in `train::gpu`.
//!
//! Activations are tensors `[B, C / 16, H, W, 16]`, blocks of 16 channels as the kernels like them, so nothing is
//! rearranged between layers; channels past the last are 0. (On a GPU a block is one channel.) Parameters are no tensors of the graph: an operation
//! reads them from its [`Params`](super::params::Params) and adds to their gradients there when candle walks back,
//! which spares the graph three passes over all weights.

mod conv;
mod cross_entropy;
mod lines;
mod norm;
mod pool;
mod soft_argmax;
mod surface;
#[cfg(test)]
mod tests;
mod volume;

pub use conv::{ConvOp, Direction};
pub use cross_entropy::heatmap_cross_entropy;
pub use lines::axis_means;
pub use norm::{MOMENTUM, NormOp, batch_norm, running_norm};
#[cfg(any(feature = "cudnn", test))]
pub(super) use pool::POOL_WINDOW;
pub use pool::max_pool;
pub use soft_argmax::soft_argmax;
pub use surface::{Faces, surface_losses};
pub use volume::volume_soft_argmax;

use candle_core::{CpuStorage, Layout, Result, Storage, Tensor, bail};

use crate::nets::kernels::LANES;

/// The floats of an operation's argument.
fn floats<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(data), Some((start, end))) => Ok(&data[start..end]),
        _ => bail!("expected contiguous f32, got {:?} in {layout:?}", storage_type(storage)),
    }
}

fn storage_type(storage: &CpuStorage) -> candle_core::DType {
    use candle_core::backend::BackendStorage;
    storage.dtype()
}

/// Runs `work` on the floats of tensors on the CPU.
fn with_floats<T, const N: usize>(tensors: [&Tensor; N], work: impl FnOnce([&[f32]; N]) -> Result<T>) -> Result<T> {
    let mut contiguous = Vec::with_capacity(N);
    for tensor in tensors {
        contiguous.push(tensor.contiguous()?);
    }
    let guards: Vec<_> = contiguous.iter().map(Tensor::storage_and_layout).collect();
    let mut slices = [&[][..]; N];
    for (slice, (storage, layout)) in slices.iter_mut().zip(&guards) {
        *slice = match &**storage {
            Storage::Cpu(storage) => floats(storage, layout)?,
            _ => bail!("training's fast operations run on the CPU"),
        };
    }
    work(slices)
}

/// `[B, C / 16, H, W, 16]`
fn blocked_dims(dims: &[usize]) -> Result<[usize; 4]> {
    match *dims {
        [batch, blocks, height, width, LANES] if batch * blocks * height * width > 0 => {
            Ok([batch, blocks, height, width])
        }
        _ => bail!("expected activations in blocks of 16 channels, got {dims:?}"),
    }
}

/// `[B, C, H, W] -> [B, C / 16, H, W, 16]` by candle's operations, so that gradients flow; C is a multiple of 16.
pub fn to_blocked(x: &Tensor) -> Result<Tensor> {
    to_blocks_of(x, LANES)
}

/// The same with blocks of so many channels.
pub(super) fn to_blocks_of(x: &Tensor, lanes: usize) -> Result<Tensor> {
    let (b, c, h, w) = x.dims4()?;
    if c % lanes != 0 {
        bail!("{c} channels are not blocks of {lanes}");
    }
    x.reshape((b, c / lanes, lanes, h, w))?.permute((0, 1, 3, 4, 2))?.contiguous()
}

/// Activations, in blocks of 16 channels or of one, to `[B, C, H, W]` by candle's operations, so that gradients flow.
pub fn to_planar(x: &Tensor, channels: usize) -> Result<Tensor> {
    let (b, blocks, h, w, lanes) = x.dims5()?;
    x.permute((0, 1, 4, 2, 3))?.contiguous()?.reshape((b, blocks * lanes, h, w))?.narrow(1, 0, channels)
}
