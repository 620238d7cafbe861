//! Lixels, the crop's affine, the root's depth and the camera become points in metres.
//!
//! x and y go from bins to crop pixels to frame pixels; z is relative to the root, in a box around it. Then every
//! point is back-projected through the camera (I2L-MeshNet, section 6).

use glam::{Vec2, Vec3};

use crate::crop::Crop;
use crate::memory::Buffer;
use crate::space::Intrinsics;

/// Side of the box around the root in which bodies and skeletons live, metres.
pub const BODY_BOX_M: f32 = 2.0;
/// Side of the box around the root in which hands live, metres.
pub const HAND_BOX_M: f32 = 0.3;

/// The volume of lixels around one person.
#[derive(Clone, Copy, Debug)]
pub struct LixelVolume<'a> {
    /// The patch that x and y lie on.
    pub crop: &'a Crop,
    /// Bins along each axis.
    pub bins: usize,
    /// Side of the box around the root that z spans: [`BODY_BOX_M`] or [`HAND_BOX_M`].
    pub box_m: f32,
}

impl LixelVolume<'_> {
    /// Where a lixel lies on the frame.
    pub fn frame_from_lixel(&self, lixel: Vec3) -> Vec2 {
        let crop_px = lixel.truncate() * (self.crop.size as f32 / self.bins as f32);
        self.crop.frame_from_crop.transform_point2(crop_px)
    }

    /// How far behind the root a lixel lies, metres.
    pub fn depth_from_root_m(&self, lixel: Vec3) -> f32 {
        (lixel.z / self.bins as f32 * 2.0 - 1.0) * (self.box_m / 2.0)
    }

    /// Camera metres of lixels around a root at this depth.
    pub fn camera_from_lixels(&self, lixels: &[Vec3], root_depth_m: f32, camera: &Intrinsics) -> Buffer<Vec3> {
        let back_project = |&lixel: &Vec3| {
            camera.camera_from_frame(self.frame_from_lixel(lixel), root_depth_m + self.depth_from_root_m(lixel))
        };
        lixels.iter().map(back_project).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::space::RectPx;

    #[test]
    fn the_middle_of_the_volume_is_the_root() {
        let camera = Intrinsics { fx: 1000.0, fy: 1000.0, cx: 100.0, cy: 100.0 };
        let crop = Crop::new(RectPx::from([50.0, 50.0, 100.0, 100.0]), 256);
        let volume = LixelVolume { crop: &crop, bins: 64, box_m: BODY_BOX_M };
        let points = [Vec3::splat(32.0), Vec3::new(64.0, 32.0, 64.0), Vec3::new(0.0, 0.0, 0.0)];
        let metres = volume.camera_from_lixels(&points, 4.0, &camera);
        let expected = [Vec3::new(0.0, 0.0, 4.0), Vec3::new(0.25, 0.0, 5.0), Vec3::new(-0.15, -0.15, 3.0)];
        for (m, e) in metres.iter().zip(expected) {
            assert!((m - e).length() < 1e-5, "{m} {e}");
        }
    }
}
