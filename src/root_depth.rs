//! Gamma becomes the root joint's distance in metres.
//!
//! RootNet (ICCV 2019, eq. 1 and 2): a person who fills a box of `w x h` pixels and who measures about 2 m x 2 m is
//! about `k = sqrt(2 m * 2 m * fx * fy / (w * h))` away; gamma corrects it, `depth = gamma * k`. Checkpoints trained
//! in millimetres use a real box of 2000 mm, those trained in metres one of 2 m. Gamma itself has no unit: with k in
//! metres both give metres. Millimetres end here.

use glam::{Vec2, Vec3};

use crate::crop::Crop;
use crate::space::{Intrinsics, RectPx};

/// Width and height of the box that a person is taken to fill, metres; the published checkpoints' one.
pub const REAL_BOX_M: [f32; 2] = [2.0, 2.0];

/// k: the distance at which a real box of `real_box_m` has the area of the processed box `rect`. Metres.
pub fn k_m(camera: &Intrinsics, rect: &RectPx, real_box_m: [f32; 2]) -> f32 {
    let product = |a: f32, b: f32| f64::from(a) * f64::from(b);
    let [real_w, real_h] = real_box_m;
    (product(real_w, real_h) * product(camera.fx, camera.fy) / product(rect.w, rect.h)).sqrt() as f32
}

/// The root joint from RootNet's place (x and y in lixels of a heatmap of `bins`) and its depth. Camera metres.
pub fn root_camera_m(lixel: Vec2, bins: usize, depth_m: f32, crop: &Crop, camera: &Intrinsics) -> Vec3 {
    let crop_px = lixel * (crop.size as f32 / bins as f32);
    camera.camera_from_frame(crop.frame_from_crop.transform_point2(crop_px), depth_m)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_of_two_metres_who_fills_the_box_is_at_k() {
        let camera = Intrinsics { fx: 1500.0, fy: 1500.0, cx: 160.0, cy: 120.0 };
        let rect = RectPx::from([60.0, 20.0, 200.0, 200.0]);
        let depth = k_m(&camera, &rect, REAL_BOX_M);
        assert_eq!(depth, 15.0);
        let top = camera.frame_from_camera(Vec3::new(0.0, -1.0, depth));
        let bottom = camera.frame_from_camera(Vec3::new(0.0, 1.0, depth));
        assert!((bottom.y - top.y - rect.h).abs() < 1e-3);
        // The middle of the heatmap is the middle of the box, here on the optical axis.
        let root = root_camera_m(Vec2::splat(32.0), 64, 0.5 * depth, &Crop::new(rect, 256), &camera);
        assert!((root - Vec3::new(0.0, 0.0, 7.5)).length() < 1e-4, "{root}");
    }
}
