//! People that do not exist: scenes of the stand-in body from a seed, with everything that is true of them.
//!
//! ```text
//! seed -> camera, light, place, people (scene) -> postures at a time (actor) -> pixels (raster) -> picture (lens)
//! ```
//!
//! The world is in metres: y up, the ground at 0, the camera over its origin looking along -z. Colours are linear light
//! until the lens. The drawing is done here on the processor, and not with wgpu, because training needs millions of
//! pictures on machines without a GPU: see the figures of `tests/bench/synth.rs`.
//!
//! One seed makes the same bits on one machine, however many threads there are. Another machine may round sines
//! otherwise, which shows in single pixels.

mod actor;
mod backdrop;
pub mod dataset;
mod lens;
mod light;
mod looks;
mod motion;
mod posture;
mod props;
pub(crate) mod random;
mod raster;
mod scene;
pub mod source;
mod texture;

use std::sync::Arc;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::body::{BodyModel, standin};

pub use actor::Standing;
pub use scene::{DISTANCES_M, Photo, SIDES_PX, Scene};
pub use source::SyntheticSource;

/// What is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// People who move about in rooms and streets: walk, wave, squat, reach, sit, turn.
    #[default]
    Scenes,
    /// People in any pose that joints allow, turned anyhow, in heavy clutter; nobody moves.
    Poses,
}

/// What all scenes share: the body, noise, a sensor. Made once; that takes up to a second.
pub struct Studio {
    body: Arc<BodyModel>,
    noise: texture::Noise,
    sensor: lens::Sensor,
    marks: looks::Marks,
}

impl Studio {
    /// The studio with the stand-in body.
    pub fn new() -> Result<Arc<Self>> {
        let body = standin::body_model()?;
        let marks = looks::Marks::new(body.topology(), body.template_m()).context("the stand-in body")?;
        Ok(Arc::new(Self { body, noise: texture::Noise::new(), sensor: lens::Sensor::new(), marks }))
    }

    /// The body of all people.
    pub fn body(&self) -> &BodyModel {
        &self.body
    }

    /// One photograph of a scene, at a time that its seed chooses.
    pub fn sample(self: &Arc<Self>, kind: Kind, seed: u64, size: [u32; 2]) -> Result<Photo> {
        let time_secs = random::Random::fork(seed, 0).between(0.0, 60.0);
        Scene::new(self, kind, seed, size)?.photograph(time_secs)
    }
}
