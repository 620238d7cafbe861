//! Training: losses, differentiable layers on the CPU's fast kernels, networks made of them, and the optimiser.

pub mod checkpoint;
pub mod i2l;
pub mod layers;
pub mod losses;
pub mod ops;
pub mod optimizer;
pub mod params;
pub mod person_detector;
pub mod resnet;
pub mod rootnet;
