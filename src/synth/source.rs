//! An endless moving scene as a source of frames: the default of the window.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;

use super::random::Random;
use super::{Kind, Scene, Studio};
use crate::capture::{Frame, FrameSource, Next};

/// Width and height of the frames.
pub const SIZE_PX: [u32; 2] = [640, 480];
/// Frames a second.
pub const FPS: u64 = 25;
/// After so many seconds there are other people, or hands, in another place.
pub const SCENE_SECS: u64 = 20;

/// Scenes one after another, without an end. Every frame carries its truth.
pub struct SyntheticSource {
    studio: Arc<Studio>,
    kind: Kind,
    seed: u64,
    /// The scene that is on, with its number.
    scene: Option<(u64, Scene)>,
    index: u64,
}

impl SyntheticSource {
    /// The film of a seed. Takes about a second, for the body.
    pub fn open(kind: Kind, seed: u64) -> Result<Self> {
        Ok(Self { studio: Studio::of(kind.family())?, kind, seed, scene: None, index: 0 })
    }
}

impl FrameSource for SyntheticSource {
    fn describe(&self) -> String {
        let (shown, [width, height]) = (self.kind.shows(), SIZE_PX);
        format!("synthetic {shown}, seed {}, {width}x{height} at {FPS} fps", self.seed)
    }

    fn is_live(&self) -> bool {
        false
    }

    fn frame_interval(&self) -> Option<Duration> {
        Some(Duration::from_millis(1000 / FPS))
    }

    fn can_skip(&self) -> bool {
        true
    }

    fn skip(&mut self, frames: u64) {
        self.index = self.index.saturating_add(frames);
    }

    fn next(&mut self) -> Result<Next> {
        let index = self.index;
        self.index += 1;
        let per_scene = SCENE_SECS * FPS;
        let number = index / per_scene;
        if self.scene.as_ref().is_none_or(|(current, _)| *current != number) {
            // The first scene is the one of the seed itself.
            let seed = if number == 0 { self.seed } else { Random::fork(self.seed, number).bits() };
            self.scene = Some((number, Scene::new(&self.studio, self.kind, seed, SIZE_PX)?));
        }
        let Some((_, scene)) = &self.scene else { return Ok(Next::Ended("no scene".into())) };
        let photo = scene.photograph((index % per_scene) as f32 / FPS as f32)?;
        Ok(Next::Frame(Frame {
            rgb: photo.rgb,
            index,
            captured_at: self.frame_interval().unwrap_or_default() * index as u32,
            name: None,
            truth: Some(Arc::new(photo.truth)),
        }))
    }
}
