//! Lixels, the crop's affine, the root's depth and the camera become points in metres.
//!
//! x and y go from bins to crop pixels to frame pixels; z is relative to the root, in a box around it. Then every
//! point is back-projected through the camera (I2L-MeshNet, section 6).

use glam::{Quat, Vec2, Vec3};
use serde::{Deserialize, Serialize};

use crate::crop::Crop;
use crate::memory::Buffer;
use crate::space::Intrinsics;

/// Side of the box around the root in which bodies and skeletons live, metres.
pub const BODY_BOX_M: f32 = 2.0;
/// Side of the box around the root in which hands live, metres.
pub const HAND_BOX_M: f32 = 0.3;

/// The direction that z of a lixel network runs along.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DepthAxis {
    /// The camera's optical axis: the papers' weights, and all that say nothing else.
    #[default]
    Camera,
    /// The line of sight through the middle of the patch, as `lixelscope train` has it. A patch hardly shows where in
    /// the frame it was cut out, and so how the camera's axis runs in it. Whoever takes one axis for the other is wrong by
    /// 4 cm (MPJPE) in scenes for that alone.
    LineOfSight,
}

impl DepthAxis {
    /// The turn that brings the camera's axes onto those of a patch, whose z is this axis. `middle_at_1m` is where the
    /// middle of the patch lies at a depth of 1 m.
    pub fn patch_from_camera(self, middle_at_1m: Vec2) -> Quat {
        match self {
            Self::Camera => Quat::IDENTITY,
            Self::LineOfSight => Quat::from_rotation_arc(middle_at_1m.extend(1.0).normalize(), Vec3::Z),
        }
    }
}

/// The volume of lixels around one person.
#[derive(Clone, Copy, Debug)]
pub struct LixelVolume<'a> {
    /// The patch that x and y lie on.
    pub crop: &'a Crop,
    /// Bins along each axis.
    pub bins: usize,
    /// Side of the box around the root that z spans: [`BODY_BOX_M`] or [`HAND_BOX_M`].
    pub box_m: f32,
    /// The direction of z.
    pub depth_axis: DepthAxis,
}

impl LixelVolume<'_> {
    /// Where a lixel lies on the frame.
    pub fn frame_from_lixel(&self, lixel: Vec3) -> Vec2 {
        let crop_px = lixel.truncate() * (self.crop.size as f32 / self.bins as f32);
        self.crop.frame_from_crop.transform_point2(crop_px)
    }

    /// How far behind the root a lixel lies along [`LixelVolume::depth_axis`], metres.
    pub fn depth_from_root_m(&self, lixel: Vec3) -> f32 {
        (lixel.z / self.bins as f32 * 2.0 - 1.0) * (self.box_m / 2.0)
    }

    /// The turn from the camera's axes to those of the patch.
    pub fn patch_from_camera(&self, camera: &Intrinsics) -> Quat {
        let middle_px = self.crop.frame_from_crop.transform_point2(Vec2::splat(self.crop.size as f32 / 2.0));
        self.depth_axis.patch_from_camera(camera.camera_from_frame(middle_px, 1.0).truncate())
    }

    /// Camera metres of lixels around a root that lies here.
    pub fn camera_from_lixels(&self, lixels: &[Vec3], root_camera_m: Vec3, camera: &Intrinsics) -> Buffer<Vec3> {
        let axis = self.patch_from_camera(camera).inverse() * Vec3::Z;
        let root_m = root_camera_m.dot(axis);
        let back_project = |&lixel: &Vec3| {
            let ray = camera.camera_from_frame(self.frame_from_lixel(lixel), 1.0);
            ray * ((root_m + self.depth_from_root_m(lixel)) / ray.dot(axis))
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
        let volume = LixelVolume { crop: &crop, bins: 64, box_m: BODY_BOX_M, depth_axis: DepthAxis::Camera };
        let points = [Vec3::splat(32.0), Vec3::new(64.0, 32.0, 64.0), Vec3::new(0.0, 0.0, 0.0)];
        let metres = volume.camera_from_lixels(&points, Vec3::new(0.0, 0.0, 4.0), &camera);
        let expected = [Vec3::new(0.0, 0.0, 4.0), Vec3::new(0.25, 0.0, 5.0), Vec3::new(-0.15, -0.15, 3.0)];
        for (m, e) in metres.iter().zip(expected) {
            assert!((m - e).length() < 1e-5, "{m} {e}");
        }
        // Seen straight ahead, both axes are one.
        let sight = LixelVolume { depth_axis: DepthAxis::LineOfSight, ..volume };
        assert_eq!(sight.camera_from_lixels(&points, Vec3::new(0.0, 0.0, 4.0), &camera)[..], metres[..]);
    }

    #[test]
    fn depth_runs_along_the_line_of_sight() {
        let camera = Intrinsics { fx: 400.0, fy: 400.0, cx: 320.0, cy: 240.0 };
        // The middle of the patch lies at a slope of 3:4 to the right.
        let crop = Crop::new(RectPx::from([570.0, 190.0, 100.0, 100.0]), 256);
        let volume = LixelVolume { crop: &crop, bins: 64, box_m: BODY_BOX_M, depth_axis: DepthAxis::LineOfSight };
        let root = Vec3::new(3.0, 0.0, 4.0);
        let points = volume.camera_from_lixels(&[Vec3::splat(32.0), Vec3::new(32.0, 32.0, 48.0)], root, &camera);
        assert!(points[0].distance(root) < 1e-4, "{}", points[0]);
        assert!(points[1].distance(root * 1.1) < 1e-4, "half a metre on: {}", points[1]);
        // Whatever lies as far along the line of sight is beside the root, not behind it.
        let beside = volume.camera_from_lixels(&[Vec3::new(0.0, 32.0, 32.0)], root, &camera)[0];
        assert!((beside - root).dot(root).abs() < 1e-3 && beside.z > 4.2, "{beside}");
        assert!((volume.patch_from_camera(&camera) * root).distance(Vec3::new(0.0, 0.0, 5.0)) < 1e-4);
    }
}
