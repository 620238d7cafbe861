//! Lixelscope: an instrument for seeing what a lixel network sees. A camera frame goes in; people come out as 3D
//! meshes in camera space, with the evidence (the x, y and z 1D heatmaps of every vertex) and the distance of every
//! person.
//!
//! ```text
//! capture -> detect -> crop -> root_depth -> lixel -> camera_mesh -> render / ui
//! ```
//!
//! Read the modules in this order and you have read the program.

pub mod settings;
pub mod space;

pub mod body;
pub mod capture;
pub mod crop;
pub mod detect;
pub mod models;
pub mod nets;
pub mod pickle;
pub mod pipeline;
pub mod result;
