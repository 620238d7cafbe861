//! Gamma becomes the root joint's distance in metres.
//!
//! RootNet (ICCV 2019, eq. 1 and 2): a person who fills a box of `w x h` pixels and who measures about 2 m x 2 m is
//! about `k = sqrt(2 m * 2 m * fx * fy / (w * h))` away; gamma corrects it, `depth = gamma * k`. Checkpoints trained
//! in millimetres use a real box of 2000 mm, those trained in metres one of 2 m. Gamma itself has no unit: with k in
//! metres both give metres. Millimetres end here.

use crate::space::{Intrinsics, RectPx};

/// Width and height of the box that a person is taken to fill, metres; the published checkpoints' one.
pub const REAL_BOX_M: [f32; 2] = [2.0, 2.0];
/// The same of a hand.
pub const REAL_HAND_BOX_M: [f32; 2] = [0.3, 0.3];

/// k: the distance at which a real box of `real_box_m` has the area of the processed box `rect`. Metres.
pub fn k_m(camera: &Intrinsics, rect: &RectPx, real_box_m: [f32; 2]) -> f32 {
    let product = |a: f32, b: f32| f64::from(a) * f64::from(b);
    let [real_w, real_h] = real_box_m;
    (product(real_w, real_h) * product(camera.fx, camera.fy) / product(rect.w, rect.h)).sqrt() as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use glam::Vec3;

    #[test]
    fn a_person_of_two_metres_who_fills_the_box_is_at_k() {
        let camera = Intrinsics { fx: 1500.0, fy: 1500.0, cx: 160.0, cy: 120.0 };
        let rect = RectPx::from([60.0, 20.0, 200.0, 200.0]);
        let depth = k_m(&camera, &rect, REAL_BOX_M);
        assert_eq!(depth, 15.0);
        let top = camera.frame_from_camera(Vec3::new(0.0, -1.0, depth));
        let bottom = camera.frame_from_camera(Vec3::new(0.0, 1.0, depth));
        assert!((bottom.y - top.y - rect.h).abs() < 1e-3);
    }
}
