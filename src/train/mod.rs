//! Training.

pub mod losses;
