//! People and hands that do not exist: scenes of the stand-ins from a seed, with everything that is true of them.
//!
//! ```text
//! seed -> camera, who is there (people, hands), light, place (scene) -> postures at a time (actor, hands)
//!      -> pixels (raster) -> picture (lens)
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
mod gesture;
mod hands;
mod lens;
mod light;
mod looks;
mod motion;
mod people;
mod posture;
mod props;
pub(crate) mod random;
mod raster;
mod scene;
mod skin;
pub mod source;
mod texture;

use std::sync::Arc;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::body::{BodyModel, Family, standin};

pub use actor::Standing;
pub use hands::DEPTHS_M as HAND_DEPTHS_M;
pub use people::DISTANCES_M;
pub use scene::{Photo, SIDES_PX, Scene};
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
    /// Right hands that turn and make gestures before a camera.
    Hands,
    /// The people of `poses` in the places of `scenes`: any pose, but no clutter and a good camera. What is to be learnt
    /// between the two.
    Postures,
}

impl Kind {
    /// Whose body is shown.
    pub fn family(self) -> Family {
        match self {
            Self::Scenes | Self::Postures | Self::Poses => Family::Smpl,
            Self::Hands => Family::Mano,
        }
    }

    /// As the user writes it.
    pub fn name(self) -> String {
        format!("{self:?}").to_lowercase()
    }

    /// Those whom it shows, in a word.
    pub fn shows(self) -> &'static str {
        self.family().shows()
    }
}

/// What all scenes of a body share: the body, noise, a sensor. Made once; that takes up to a second.
pub struct Studio {
    body: Arc<BodyModel>,
    noise: texture::Noise,
    sensor: lens::Sensor,
    marks: Marks,
}

/// Where on the body is what, to paint and to pose it.
enum Marks {
    Person(looks::Marks),
    Hand(Arc<gesture::Anatomy>),
}

impl Studio {
    /// The studio with the stand-in body.
    pub fn new() -> Result<Arc<Self>> {
        Self::of(Family::Smpl)
    }

    /// The studio with the stand-in body, or with the stand-in hand.
    pub fn of(family: Family) -> Result<Arc<Self>> {
        let body = standin::model(family)?;
        let (topology, rest) = (body.topology(), body.template_m());
        let marks = match family {
            Family::Smpl => looks::Marks::new(topology, rest).map(Marks::Person).context("the stand-in body"),
            Family::Mano => {
                gesture::Anatomy::new(topology, rest).map(|hand| Marks::Hand(hand.into())).context("the stand-in hand")
            }
        };
        Ok(Arc::new(Self { body, noise: texture::Noise::new(), sensor: lens::Sensor::new(), marks: marks? }))
    }

    /// The body of all people, or the hand.
    pub fn body(&self) -> &BodyModel {
        &self.body
    }

    /// One photograph of a scene, at a time that its seed chooses.
    pub fn sample(self: &Arc<Self>, kind: Kind, seed: u64, size: [u32; 2]) -> Result<Photo> {
        let time_secs = random::Random::fork(seed, 0).between(0.0, 60.0);
        Scene::new(self, kind, seed, size)?.photograph(time_secs)
    }
}
