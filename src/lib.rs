//! Lixelscope: an instrument for seeing what a lixel network sees. A camera frame goes in; people come out as 3D
//! meshes in camera space, with the evidence (the x, y and z 1D heatmaps of every vertex) and the distance of every
//! person.
//!
//! ```text
//! capture -> detect -> crop -> root_depth -> lixel -> camera_mesh -> render / ui / record
//! ```
//!
//! Read the modules in this order and you have read the program:
//!
//! - what everything is said in: [`space`] (frames of reference and units), [`settings`] (what the user decided),
//!   [`result`] (what the pipeline says about a frame), [`truth`] (what is known of a frame that was made or annotated),
//!   [`memory`] (what serves one frame after another), [`procrustes`] (the transform that
//!   brings points onto others);
//! - the path of a frame: [`capture`] (where frames come from), [`detect`] (people's boxes and ids), [`crop`] (the
//!   patch that networks read), [`root_depth`] (metres to the root joint), [`lixel`] (heatmaps to coordinates),
//!   [`camera_mesh`] (lixels to metres);
//! - what it stands on: [`nets`] (the networks), [`body`] (SMPL, MANO), [`models`] (the folder of the user's files),
//!   [`pickle`] (Python's pickles, as data);
//! - pictures of which something is known: [`annotations`] (the papers' datasets);
//! - who runs it: [`pipeline`] (stages and threads);
//! - who shows it: [`render`] (wgpu), [`ui`] (egui), [`app`] (the window), [`record`] (files), [`headless`] (`run`
//!   and `convert`), [`mod@bench`], [`doctor`], [`cli`] (arguments);
//! - people and hands that do not exist: [`synth`] (scenes with exact ground truth);
//! - how good it is: [`eval`] (the papers' metrics), [`train`] (losses, networks with gradients, the optimiser).

pub mod memory;
pub mod procrustes;
pub mod result;
pub mod settings;
pub mod space;
pub mod truth;

pub mod annotations;
pub mod camera_mesh;
pub mod capture;
pub mod crop;
pub mod detect;
pub mod lixel;
pub mod root_depth;

pub mod body;
pub mod models;
pub mod nets;
pub mod pickle;

pub mod pipeline;

pub mod app;
pub mod bench;
pub mod cli;
pub mod doctor;
pub mod headless;
pub mod record;
pub mod render;
pub mod ui;

pub mod synth;

pub mod eval;
pub mod train;
