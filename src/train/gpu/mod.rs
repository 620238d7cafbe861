//! Training on an NVIDIA GPU: the same networks, losses, samples and files as on the processor, so that a training may
//! begin here and go on there.
//!
//! ```text
//! *.cu -> kernels (launches) -> layers, heatmaps, surface -> operation (candle's autograd)
//!                            -> resident (parameters, Adam) -> learner
//! machine: what these need of a device; cuda and cudnn have it, and in tests the processor (host)
//! ```
//!
//! Activations are planes, `[B, C, H, W, 1]`: blocks as in [`ops`](super::ops), of one channel each, so that networks
//! are written once. Parameters, gradients and Adam's state stay on the device; a step waits for nothing there but the
//! numbers of its batch, and what became of the loss is fetched when somebody wants to see it. What is not here
//! (the losses' arithmetic) is candle's, in its CUDA kernels.
//!
//! All but the two files that call CUDA is tested without it: the kernels and whole steps run on the processor.

#[cfg(feature = "cudnn")]
mod cuda;
#[cfg(feature = "cudnn")]
mod cudnn;
mod heatmaps;
#[cfg(test)]
mod host;
mod kernels;
mod layers;
mod learner;
mod machine;
mod operation;
mod resident;
mod surface;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod twins;

#[cfg(feature = "cudnn")]
pub use cuda::Cuda;
pub use heatmaps::{axis_means, heatmap_cross_entropy, soft_argmax, volume_soft_argmax};
#[cfg(test)]
pub use host::machine as host_machine;
pub use layers::{PlanarConv, PlanarNorm, max_pool, running_norm};
pub use learner::GpuLearner;
pub use machine::Machine;
pub use operation::Traced;
pub use resident::Resident;
pub use surface::{FacesThere, surface_losses};

use candle_core::{Result, Tensor, bail};

/// Channels of a block.
pub const LANES: usize = 1;

/// Whether activations are those of a GPU.
pub fn is_planar(x: &Tensor) -> bool {
    x.rank() == 5 && x.dims()[4] == LANES
}

/// `[B, C, H, W, 1]`; an image's `[B, C, H, W]` is the same.
fn planar_dims(dims: &[usize]) -> Result<[usize; 4]> {
    match *dims {
        [batch, channels, height, width] | [batch, channels, height, width, LANES]
            if batch * channels * height * width > 0 =>
        {
            Ok([batch, channels, height, width])
        }
        _ => bail!("expected activations as planes, got {dims:?}"),
    }
}
