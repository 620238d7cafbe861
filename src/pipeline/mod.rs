//! The stages in their order, and the threads that run them. The only module that orders stages.
//!
//! - [`infer`]: the networks behind the traits of [`stages`]; the one place here that knows tensors.
//! - [`stages`]: one frame in, one [`FrameResult`](crate::result::FrameResult) out, on the caller's thread.
//! - [`live`]: worker threads around it; the newest frame wins.

pub mod infer;
pub mod live;
pub mod stages;

pub use live::{Command, Live, Phase, Status};
pub use stages::Stages;
