//! Results on disk.
//!
//! - [`jsonl`]: one line of JSON a frame.
//! - [`obj`]: a mesh a file.

pub mod jsonl;
pub mod obj;
