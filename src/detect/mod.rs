//! Frames to people's boxes.

use anyhow::Result;

use crate::capture::Frame;
use crate::space::RectPx;

/// A person found in a frame.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PersonBox {
    /// Tight box, frame pixels.
    pub rect: RectPx,
    /// Confidence in `[0, 1]`.
    pub score: f32,
}

/// Finds people. One for each architecture; all behind this trait.
pub trait Detector: Send {
    /// Boxes of the wanted class, best first.
    fn detect(&mut self, frame: &Frame) -> Result<Vec<PersonBox>>;
}
