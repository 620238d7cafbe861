//! The networks on an NVIDIA GPU.

pub mod detector;
#[cfg(test)]
mod host;
pub mod kernels;
pub mod pack;
pub mod source;
#[cfg(test)]
mod twins;
