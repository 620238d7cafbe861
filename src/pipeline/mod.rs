//! The stages in their order, and the threads that run them. The only module that orders stages.
//!
//! - [`infer`]: the networks behind the traits of [`stages`]; the one place here that knows tensors.
//! - [`stages`]: one frame in, one [`FrameResult`](crate::result::FrameResult) out, on the caller's thread.
//! - [`live`]: the same on threads; the newest frame wins. `reader` and `worker` are what two of them do, `inbox` is
//!   what they share.

mod inbox;
pub mod infer;
pub mod live;
mod reader;
pub mod stages;
mod worker;

pub(crate) use inbox::guarded;
pub use live::{Command, Live, Phase, Status};
pub use stages::Stages;
