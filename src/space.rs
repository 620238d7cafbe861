//! The frames of reference, their units, and the transforms between them.
//!
//! | frame | axes and origin | unit |
//! | --- | --- | --- |
//! | frame pixels (`_px`) | x right, y down, origin at the centre of the top-left pixel | pixel |
//! | crop pixels | as above, in the square patch that a network reads | pixel |
//! | lixels | x right, y down, z away from the camera; bin *indices* `0..bins` | bin |
//! | camera (`_camera_m`) | x right, y down, z forward, origin at the optical centre | metre |
//!
//! A transform is named `target_from_source`: `crop_from_frame` takes frame pixels to crop pixels.

use glam::{Vec2, Vec3};
use serde::{Deserialize, Serialize};

/// An axis-aligned rectangle in frame pixels: `x`, `y` is its top-left corner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "[f32; 4]", into = "[f32; 4]")]
pub struct RectPx {
    /// Left edge.
    pub x: f32,
    /// Top edge.
    pub y: f32,
    /// Width.
    pub w: f32,
    /// Height.
    pub h: f32,
}

impl From<[f32; 4]> for RectPx {
    fn from([x, y, w, h]: [f32; 4]) -> Self {
        Self { x, y, w, h }
    }
}

impl From<RectPx> for [f32; 4] {
    fn from(r: RectPx) -> Self {
        [r.x, r.y, r.w, r.h]
    }
}

impl RectPx {
    /// The rectangle between two corners, in whichever order they come.
    pub fn from_corners(a: Vec2, b: Vec2) -> Self {
        let (min, max) = (a.min(b), a.max(b));
        Self { x: min.x, y: min.y, w: max.x - min.x, h: max.y - min.y }
    }

    /// The smallest rectangle around finite points; `None` when there is none.
    pub fn around(points: impl IntoIterator<Item = Vec2>) -> Option<Self> {
        let (min, max) = points
            .into_iter()
            .filter(|p| p.is_finite())
            .fold((Vec2::INFINITY, Vec2::NEG_INFINITY), |(lo, hi), p| (lo.min(p), hi.max(p)));
        min.is_finite().then(|| Self::from_corners(min, max))
    }

    /// The top-left corner.
    pub fn min(&self) -> Vec2 {
        Vec2::new(self.x, self.y)
    }

    /// The bottom-right corner.
    pub fn max(&self) -> Vec2 {
        Vec2::new(self.x + self.w, self.y + self.h)
    }

    /// The centre.
    pub fn centre(&self) -> Vec2 {
        Vec2::new(self.x + self.w * 0.5, self.y + self.h * 0.5)
    }

    /// Width times height, 0 for an inverted rectangle.
    pub fn area(&self) -> f32 {
        self.w.max(0.0) * self.h.max(0.0)
    }

    /// The part inside an image of `width` x `height`; `None` when nothing is left.
    pub fn clipped(&self, width: u32, height: u32) -> Option<Self> {
        let min = self.min().max(Vec2::ZERO);
        let max = self.max().min(Vec2::new(width as f32, height as f32));
        (max.x > min.x && max.y > min.y).then(|| Self::from_corners(min, max))
    }

    /// Intersection over union, in `[0, 1]`.
    pub fn iou(&self, other: &Self) -> f32 {
        let min = self.min().max(other.min());
        let max = self.max().min(other.max());
        let inter = (max.x - min.x).max(0.0) * (max.y - min.y).max(0.0);
        let union = self.area() + other.area() - inter;
        if union > 0.0 { inter / union } else { 0.0 }
    }

    /// All four numbers are finite and both sides are positive.
    pub fn is_valid(&self) -> bool {
        [self.x, self.y, self.w, self.h].iter().all(|v| v.is_finite()) && self.w > 0.0 && self.h > 0.0
    }
}

/// A pinhole camera: focal lengths and principal point in frame pixels.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Intrinsics {
    /// Focal length along x.
    pub fx: f32,
    /// Focal length along y.
    pub fy: f32,
    /// Principal point, x.
    pub cx: f32,
    /// Principal point, y.
    pub cy: f32,
}

impl Intrinsics {
    /// Focal length of the papers' "normalised" camera, for frames whose camera is unknown. Depths then belong to
    /// that camera.
    pub const NORMALISED_FOCAL_PX: f32 = 1500.0;

    /// The "normalised" camera for a frame of this size: 1500 px, principal point at the centre.
    pub fn normalised(width: u32, height: u32) -> Self {
        Self::with_focal(Self::NORMALISED_FOCAL_PX, width, height)
    }

    /// A camera with square pixels and its principal point at the centre of the frame.
    pub fn with_focal(focal_px: f32, width: u32, height: u32) -> Self {
        Self { fx: focal_px, fy: focal_px, cx: width as f32 * 0.5, cy: height as f32 * 0.5 }
    }

    /// A camera known by its horizontal field of view, in radians.
    pub fn with_horizontal_fov(fov_rad: f32, width: u32, height: u32) -> Self {
        Self::with_focal(width as f32 * 0.5 / (fov_rad * 0.5).tan(), width, height)
    }

    /// Camera metres to frame pixels. Points at or behind the camera give non-finite pixels.
    pub fn frame_from_camera(&self, p_camera_m: Vec3) -> Vec2 {
        if p_camera_m.z <= 0.0 {
            return Vec2::NAN;
        }
        Vec2::new(self.fx * p_camera_m.x / p_camera_m.z + self.cx, self.fy * p_camera_m.y / p_camera_m.z + self.cy)
    }

    /// Back-projection: a frame pixel at a depth to camera metres.
    pub fn camera_from_frame(&self, p_px: Vec2, depth_m: f32) -> Vec3 {
        Vec3::new((p_px.x - self.cx) / self.fx * depth_m, (p_px.y - self.cy) / self.fy * depth_m, depth_m)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn back_projection_undoes_projection() {
        let camera = Intrinsics { fx: 900.0, fy: 950.0, cx: 310.0, cy: 255.0 };
        let p = Vec3::new(0.4, -0.7, 3.1);
        let px = camera.frame_from_camera(p);
        assert!((camera.camera_from_frame(px, p.z) - p).length() < 1e-5);
        assert!(camera.frame_from_camera(Vec3::new(0.0, 0.0, -1.0)).is_nan());
    }

    #[test]
    fn iou_of_half_overlap_is_a_third() {
        let a = RectPx::from([0.0, 0.0, 2.0, 1.0]);
        let b = RectPx::from([1.0, 0.0, 2.0, 1.0]);
        assert!((a.iou(&b) - 1.0 / 3.0).abs() < 1e-6);
        assert_eq!(a.iou(&RectPx::default()), 0.0);
    }
}
