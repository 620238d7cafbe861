//! Body models: SMPL, MANO, and stand-ins of our own. Topology, joint regressors, skinning. Knows no images.
//!
//! Axes and units are the model's own: metres; SMPL stands upright along y and looks along z. Posing is linear: any
//! frame will do, as long as the global orientation and the translation belong to it.

mod arrays;
pub mod export;
mod model;
mod npz;
mod pickled;
pub mod standin;
mod topology;

pub(crate) use arrays::{Array, Arrays};
pub use model::{BodyModel, PosedBody, SnapshotBody};
pub use topology::{Family, Topology};
