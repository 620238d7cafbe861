//! Results on disk.
//!
//! - [`jsonl`]: one line of JSON a frame.
//! - [`obj`]: a mesh a file.
//! - [`manifest`]: what made them.

pub mod jsonl;
pub mod manifest;
pub mod obj;
