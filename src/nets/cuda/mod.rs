//! The networks on an NVIDIA GPU: convolutions channels last through cuDNN and cuBLASLt, own kernels where these have
//! none, one CUDA graph for each network and batch, nothing fetched between the crop and the vertices.
//!
//! ```text
//! *.cu -> source -> compile -> loaded -> gpu <- kernels, pictures, detector (launches)
//!                    convolution, products (libraries) -> map, lixels, patches (layers) -> graph
//! ```
//!
//! A device that [`Gpu::open`] made takes its layers here; candle's own CUDA devices, and weights that are trained, go
//! candle's way, which is the reference twin. All `unsafe` code is in this folder: foreign functions, each argued.
//! Kernels and launches are tested without a GPU (`host.h`, `twins.rs`); where an NVRTC is found, one test compiles the
//! text for every GPU that it knows (`nvrtc.rs`).

#[cfg(feature = "cuda")]
pub mod compile;
#[cfg(feature = "cudnn")]
mod convolution;
pub mod detector;
#[cfg(feature = "cudnn")]
mod gpu;
#[cfg(feature = "cudnn")]
mod graph;
#[cfg(test)]
pub mod host;
pub mod kernels;
#[cfg(feature = "cudnn")]
mod lixels;
#[cfg(feature = "cudnn")]
pub mod loaded;
#[cfg(feature = "cudnn")]
mod map;
#[cfg(feature = "cudnn")]
mod memory;
#[cfg(test)]
pub mod nvrtc;
pub mod pack;
#[cfg(feature = "cudnn")]
mod patches;
#[cfg(feature = "cudnn")]
mod peak;
pub mod pictures;
#[cfg(feature = "cudnn")]
mod products;
pub mod source;
#[cfg(test)]
mod twins;

#[cfg(feature = "cudnn")]
pub use gpu::{Buffer, Gpu, Kept, Replays};
#[cfg(feature = "cudnn")]
pub use graph::Graphs;
#[cfg(feature = "cudnn")]
pub use lixels::{DeviceLines, DeviceLixels};
#[cfg(feature = "cudnn")]
pub use map::{DeviceConv, DeviceDeconv, DeviceDot, DeviceMap, host_floats};
#[cfg(feature = "cudnn")]
pub use patches::PatchSource;
