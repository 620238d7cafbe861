//! Gamma becomes the root joint's distance in metres.
//!
//! RootNet (ICCV 2019, eq. 1 and 2): a person who fills a box of `w x h` pixels and who measures about 2 m x 2 m is
//! about `k = sqrt(2 m * 2 m * fx * fy / (w * h))` away; gamma corrects it, `depth = gamma * k`. Checkpoints trained
//! in millimetres use a real box of 2000 mm, those trained in metres one of 2 m. Gamma itself has no unit: with k in
//! metres both give metres. Millimetres end here.

use glam::{Vec2, Vec3};

use crate::crop::Crop;
use crate::space::{Intrinsics, RectPx};

/// Side of the box that a person is taken to fill, metres.
pub const REAL_BOX_M: f32 = 2.0;

/// k: the distance at which a real box of [`REAL_BOX_M`] fills the processed box `rect`. Metres.
pub fn k_m(camera: &Intrinsics, rect: &RectPx) -> f32 {
    let focal_px = (f64::from(camera.fx) * f64::from(camera.fy)).sqrt();
    let side_px = (f64::from(rect.w) * f64::from(rect.h)).sqrt();
    (f64::from(REAL_BOX_M) * focal_px / side_px) as f32
}

/// The root joint's depth: gamma times k. Metres.
pub fn root_depth_m(gamma: f32, camera: &Intrinsics, rect: &RectPx) -> f32 {
    gamma * k_m(camera, rect)
}

/// The root joint from RootNet's place (x and y in lixels of a heatmap of `bins`) and gamma. Camera metres.
pub fn root_camera_m(lixel: Vec2, gamma: f32, bins: usize, crop: &Crop, camera: &Intrinsics) -> Vec3 {
    let crop_px = lixel * (crop.size as f32 / bins as f32);
    let frame_px = crop.frame_from_crop.transform_point2(crop_px);
    camera.camera_from_frame(frame_px, root_depth_m(gamma, camera, &crop.rect))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_of_two_metres_who_fills_the_box_is_at_k() {
        let camera = Intrinsics { fx: 1500.0, fy: 1500.0, cx: 160.0, cy: 120.0 };
        let rect = RectPx::from([60.0, 20.0, 200.0, 200.0]);
        let depth = root_depth_m(1.0, &camera, &rect);
        assert_eq!(depth, 15.0);
        let top = camera.frame_from_camera(Vec3::new(0.0, -1.0, depth));
        let bottom = camera.frame_from_camera(Vec3::new(0.0, 1.0, depth));
        assert!((bottom.y - top.y - rect.h).abs() < 1e-3);
        // The middle of the heatmap is the middle of the box, here on the optical axis.
        let root = root_camera_m(Vec2::splat(32.0), 0.5, 64, &Crop::new(rect, 256), &camera);
        assert!((root - Vec3::new(0.0, 0.0, 7.5)).length() < 1e-4, "{root}");
    }
}
