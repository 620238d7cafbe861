//! Convolutions for the CPU, f32: weights packed once, bias, residual and ReLU fused, activations in blocks of 16
//! channels, vector instructions chosen when the program runs, all threads. Knows no tensors: slices in, maps out.
//! The plain candle operations remain the reference that the tests compare with.

// Functions are compiled for an instruction set by being inlined into one that asks for it.
#![allow(clippy::inline_always)]

mod conv;
mod gather;
mod gaussians;
mod gradient;
mod linear;
mod map;
mod minimal;
pub mod norm;
mod peak;
mod pointwise;
mod pool;
mod pool_gradient;
mod reduce;
mod simd;
mod softmax;
#[cfg(test)]
mod tests;
mod tile;
mod volume_gradient;
mod winograd;

pub use conv::{Finish, PackedConv, PackedDeconv};
pub use gather::{PixelGroups, WeightedPixel, gather};
pub use gaussians::PackedGaussians;
pub use gradient::{ConvDims, bias_gradient, conv, conv_input_gradient, conv_weight_gradient};
pub use linear::PackedLinear;
pub use map::{Map, for_each_part};
pub use peak::peak_gflops;
pub use pointwise::pointwise;
pub use pool::max_pool;
pub use pool_gradient::max_pool_gradient;
pub use reduce::{channel_means, line_means, volume_marginals};
pub use simd::{Isa, LANES};
pub use softmax::{Heatmaps, heatmaps, line_probabilities};
pub use tile::{count_multiply_adds, multiply_adds};
pub use volume_gradient::volume_gradient;
pub use winograd::{Winograd, WinogradDeconv};
