//! A person's box becomes the square patch that the networks read. Does not know which network reads it.

use glam::Affine2;

use crate::space::RectPx;

/// A square patch of a frame.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Crop {
    /// The processed box: clipped, extended to a square around its centre, times 1.25. Frame pixels.
    pub rect: RectPx,
    /// Side of the patch in crop pixels.
    pub size: u32,
    /// Frame pixels to crop pixels.
    pub crop_from_frame: Affine2,
    /// Crop pixels to frame pixels.
    pub frame_from_crop: Affine2,
}
