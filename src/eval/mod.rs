//! How good a prediction is: the metrics of the papers.

pub mod live;
pub mod metrics;
mod procrustes;

pub use procrustes::aligned;
