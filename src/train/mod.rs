//! Training: losses, differentiable layers on the CPU's fast kernels or on a GPU, networks made of them, and the
//! optimiser.

mod ablation;
mod batch;
pub mod checkpoint;
mod command;
mod curves;
pub mod feed;
#[cfg(any(feature = "cudnn", test))]
pub mod gpu;
pub mod i2l;
mod kinematics;
pub mod layers;
mod learner;
pub mod losses;
pub mod mesh_task;
pub mod ops;
pub mod optimizer;
mod param_task;
pub mod params;
pub mod people;
pub mod person_detector;
mod plot;
mod pose_task;
mod posenet3d;
mod regressor;
mod resize;
pub mod resnet;
pub mod root_task;
pub mod rootnet;
pub mod session;
pub mod task;
mod workers;

pub use ablation::run as ablate;
pub use command::run;
pub use mesh_task::Stage;
