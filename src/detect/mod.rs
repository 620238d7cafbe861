//! Frames to people's boxes. A [`Detector`] finds boxes in single frames; a [`Tracker`](track::Tracker) gives them ids
//! that last, and boxes for the frames on which no detector runs.

pub mod assignment;
pub mod coco;
pub mod letterbox;
pub mod nms;
pub mod track;

mod light;
mod maskrcnn;

use anyhow::Result;

use crate::capture::Frame;
use crate::models::Weights;
use crate::space::RectPx;

pub use light::LightDetector;
pub use maskrcnn::MaskRcnnDetector;

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

    /// The weights that it runs with, where it has any.
    fn weights(&self) -> Option<&Weights> {
        None
    }
}

/// An object of any class found in a frame.
#[derive(Clone, Debug, PartialEq)]
pub struct Detection {
    /// Tight box, frame pixels.
    pub rect: RectPx,
    /// Confidence in `[0, 1]`.
    pub score: f32,
    /// Index in [`coco::NAMES`], for a network trained on COCO.
    pub label: u32,
    /// Its pixels, where they were asked for.
    pub mask: Option<Mask>,
}

/// The pixels of an object: a bitmap that covers a part of the frame; outside it nothing is set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mask {
    /// Column of the bitmap's first pixel in the frame.
    pub x: u32,
    /// Row of the bitmap's first pixel in the frame.
    pub y: u32,
    /// Columns of the bitmap.
    pub width: u32,
    /// Rows of the bitmap.
    pub height: u32,
    /// Row by row, `width * height` of them.
    pub bits: Vec<bool>,
}

impl Mask {
    /// Whether a pixel of the frame belongs to the object.
    pub fn contains(&self, x: u32, y: u32) -> bool {
        let (Some(x), Some(y)) = (x.checked_sub(self.x), y.checked_sub(self.y)) else { return false };
        x < self.width && y < self.height && self.bits[y as usize * self.width as usize + x as usize]
    }

    /// Number of pixels that are set.
    pub fn pixel_count(&self) -> usize {
        self.bits.iter().filter(|&&bit| bit).count()
    }
}
