//! Where the pictures are taken from: the fit of the frame into the overlay's target, and the orbiting camera.

use glam::camera::rh::view::look_at_mat4;
use glam::{Mat4, Vec2, Vec3, Vec4};

use crate::result::FrameResult;
use crate::space::Intrinsics;

/// Nothing nearer than this to an eye is drawn, metres.
pub(super) const NEAR_M: f32 = 0.02;

/// Points further out than this along any axis are taken for mistakes, metres.
const MAX_COORDINATE_M: f32 = 1e4;

/// Fit to be drawn: finite, and of a size that projects without overflow.
pub(super) fn is_drawable(p_camera_m: Vec3) -> bool {
    // A comparison with a NaN is false.
    p_camera_m.abs().max_element() < MAX_COORDINATE_M && !p_camera_m.is_nan()
}

/// Where the frame lies in the overlay's target: as large as it fits, in its aspect, centred.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OverlayFit {
    /// The frame's top-left corner, in target pixels (from the target's top-left corner). Whole numbers.
    pub origin: Vec2,
    /// Target pixels per frame pixel.
    pub scale: f32,
}

impl OverlayFit {
    /// The fit of a frame into a target, both (width, height). Empty ones give a scale of 1.
    pub fn new(frame: [u32; 2], target: [u32; 2]) -> Self {
        if frame.contains(&0) || target.contains(&0) {
            return Self { origin: Vec2::ZERO, scale: 1.0 };
        }
        let frame = Vec2::new(frame[0] as f32, frame[1] as f32);
        let target = Vec2::new(target[0] as f32, target[1] as f32);
        let scale = (target / frame).min_element();
        Self { origin: ((target - frame * scale) * 0.5).floor().max(Vec2::ZERO), scale }
    }

    /// Frame pixels (integers at centres) to target pixels (from the corner).
    pub fn target_from_frame(&self, p_px: Vec2) -> Vec2 {
        (p_px + 0.5) * self.scale + self.origin
    }

    /// Target pixels (from the corner) to frame pixels (integers at centres).
    pub fn frame_from_target(&self, p: Vec2) -> Vec2 {
        (p - self.origin) / self.scale - 0.5
    }

    /// Camera metres to clip space.
    pub(super) fn clip_from_camera(&self, k: &Intrinsics, target: [u32; 2]) -> Mat4 {
        // Along x: (fx X / Z + cx + 0.5) * scale + origin target pixels, of which 0..width are clip -1..1.
        let s = f64::from(self.scale);
        let row = |f: f32, c: f32, origin: f32, size: u32| {
            let per_px = 2.0 / f64::from(size.max(1));
            let slope = f64::from(f) * s * per_px;
            let offset = ((f64::from(c) + 0.5) * s + f64::from(origin)) * per_px - 1.0;
            (slope as f32, offset as f32)
        };
        let (ax, bx) = row(k.fx, k.cx, self.origin.x, target[0]);
        let (ay, by) = row(k.fy, k.cy, self.origin.y, target[1]);
        Mat4::from_cols(
            Vec4::new(ax, 0.0, 0.0, 0.0),
            Vec4::new(0.0, -ay, 0.0, 0.0),
            Vec4::new(bx, -by, 0.0, 1.0),
            Vec4::new(0.0, 0.0, NEAR_M, 0.0),
        )
    }
}

/// A camera that circles a point of camera space and looks at it; up is -y. At yaw 0 and pitch 0 it looks along +z,
/// as the real camera does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OrbitCamera {
    /// The point it looks at, camera metres.
    pub target_m: Vec3,
    /// Turn around the vertical; positive moves the eye to the right of the scene.
    pub yaw_rad: f32,
    /// Height above the horizon; positive looks down.
    pub pitch_rad: f32,
    /// From the eye to the target.
    pub distance_m: f32,
}

impl Default for OrbitCamera {
    /// From behind and above the real camera, to its right.
    fn default() -> Self {
        Self { target_m: Vec3::new(0.0, 0.0, 1.5), yaw_rad: 0.6, pitch_rad: 0.35, distance_m: 5.0 }
    }
}

impl OrbitCamera {
    /// Vertical field of view.
    const FOV_Y_RAD: f32 = 0.75;
    const PITCH_LIMIT_RAD: f32 = 1.55;
    const DISTANCE_M: std::ops::RangeInclusive<f32> = 0.05..=500.0;

    /// Where the eye is, camera metres.
    pub fn eye_m(&self) -> Vec3 {
        let (sy, cy) = self.yaw_rad.sin_cos();
        let (sp, cp) = self.pitch_rad.sin_cos();
        self.target_m + self.distance_m * Vec3::new(sy * cp, -sp, -cy * cp)
    }

    /// A drag by view pixels of a view this high: the scene turns with the mouse, half a turn over the height.
    pub fn orbit(&mut self, drag: Vec2, view_height: f32) {
        let rad_per_px = std::f32::consts::PI / view_height.max(1.0);
        self.yaw_rad = (self.yaw_rad - drag.x * rad_per_px) % std::f32::consts::TAU;
        let pitch_rad = self.pitch_rad + drag.y * rad_per_px;
        self.pitch_rad = pitch_rad.clamp(-Self::PITCH_LIMIT_RAD, Self::PITCH_LIMIT_RAD);
        self.mend();
    }

    /// A drag by view pixels of a view this high: what is at the target's distance follows the mouse.
    pub fn pan(&mut self, drag: Vec2, view_height: f32) {
        let m_per_px = 2.0 * self.distance_m * (Self::FOV_Y_RAD * 0.5).tan() / view_height.max(1.0);
        let view_from_camera = self.view_from_camera();
        // The rows of the rotation are the view's axes: right and up.
        let (right, up) = (view_from_camera.row(0).truncate(), view_from_camera.row(1).truncate());
        self.target_m += (up * drag.y - right * drag.x) * m_per_px;
        self.mend();
    }

    /// Nearer (a factor below 1) or further.
    pub fn zoom(&mut self, factor: f32) {
        self.distance_m *= factor;
        self.mend();
    }

    /// Frames all people and the camera as large as they fit into a view of this aspect (width / height), from the
    /// direction it has.
    pub fn fit(&mut self, result: &FrameResult, aspect: f32) {
        /// Part of the view that they may fill.
        const FILLED: f32 = 0.85;
        self.mend();
        let aspect = if aspect.is_finite() { aspect.clamp(0.1, 10.0) } else { 1.0 };
        let slope_y = (Self::FOV_Y_RAD * 0.5).tan() * FILLED;
        let slope_x = slope_y * aspect;
        let view = self.view_from_camera();
        let (right, up, forward) = (view.row(0).truncate(), view.row(1).truncate(), -view.row(2).truncate());

        // A point at (r, u, f) along the view's axes is inside when |r - eye_r| <= slope_x (f - eye_f), and likewise
        // for u: four planes through the eye, pushed back until all points are inside.
        let people = result.people.iter().flat_map(|person| {
            let vertices = person.mesh.iter().flat_map(|mesh| &mesh.vertices_camera_m);
            vertices.chain(&person.joints_camera_m).copied().filter(|p| is_drawable(*p))
        });
        let (mut planes, mut depth) = ([f32::NEG_INFINITY; 4], (f32::INFINITY, f32::NEG_INFINITY));
        for p in people.chain([Vec3::ZERO, Vec3::Z]) {
            let (r, u, f) = (right.dot(p), up.dot(p), forward.dot(p));
            let sides = [r - slope_x * f, -r - slope_x * f, u - slope_y * f, -u - slope_y * f];
            planes = std::array::from_fn(|i| planes[i].max(sides[i]));
            depth = (depth.0.min(f), depth.1.max(f));
        }
        let back_x = -(planes[0] + planes[1]) / (2.0 * slope_x);
        let back_y = -(planes[2] + planes[3]) / (2.0 * slope_y);
        // The planes alone allow a point at the eye.
        let eye_f = back_x.min(back_y).min(depth.0 - 0.5);
        let eye = right * (planes[0] - planes[1]) * 0.5 + up * (planes[2] - planes[3]) * 0.5 + forward * eye_f;
        self.distance_m = (depth.0 + depth.1) * 0.5 - eye_f;
        self.target_m = eye + forward * self.distance_m;
        self.mend();
    }

    /// Back to where it started.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// Camera metres to view pixels (from the view's top-left corner); `None` behind the eye. For labels.
    pub fn view_from_camera_px(&self, p_camera_m: Vec3, size: [u32; 2]) -> Option<Vec2> {
        project(&self.clip_from_camera(size), p_camera_m, size).map(|(p, _)| p)
    }

    /// Camera metres to clip space.
    pub(super) fn clip_from_camera(&self, size: [u32; 2]) -> Mat4 {
        let aspect = size[0].max(1) as f32 / size[1].max(1) as f32;
        let focal = Self::focal();
        let clip_from_view = Mat4::from_cols(
            Vec4::new(focal / aspect, 0.0, 0.0, 0.0),
            Vec4::new(0.0, focal, 0.0, 0.0),
            Vec4::new(0.0, 0.0, 0.0, -1.0),
            Vec4::new(0.0, 0.0, NEAR_M, 0.0),
        );
        clip_from_view * self.view_from_camera()
    }

    /// Height of the view, in view pixels, over that of what it shows at 1 m.
    pub(super) fn focal_px(size: [u32; 2]) -> f32 {
        Self::focal() * size[1] as f32 * 0.5
    }

    fn focal() -> f32 {
        1.0 / (Self::FOV_Y_RAD * 0.5).tan()
    }

    fn view_from_camera(&self) -> Mat4 {
        look_at_mat4(self.eye_m(), self.target_m, Vec3::NEG_Y)
    }

    /// Fields are public and pointers report odd things: whatever came in, go on with numbers.
    fn mend(&mut self) {
        let all = [self.yaw_rad, self.pitch_rad, self.distance_m, self.target_m.x, self.target_m.y, self.target_m.z];
        if all.iter().any(|v| !v.is_finite()) {
            self.reset();
        }
        self.distance_m = self.distance_m.clamp(*Self::DISTANCE_M.start(), *Self::DISTANCE_M.end());
        self.target_m = self.target_m.clamp(Vec3::splat(-1e3), Vec3::splat(1e3));
    }
}

/// Camera metres to pixels of the target (from its corner) and clip w, the distance along the view; `None` for what
/// is behind the near plane or not drawable.
pub(super) fn project(clip_from_camera: &Mat4, p_camera_m: Vec3, size: [u32; 2]) -> Option<(Vec2, f32)> {
    let clip = *clip_from_camera * p_camera_m.extend(1.0);
    if !is_drawable(p_camera_m) || !clip.is_finite() || clip.w < NEAR_M {
        return None;
    }
    let half = Vec2::new(size[0] as f32, size[1] as f32) * 0.5;
    Some((Vec2::new(half.x * (1.0 + clip.x / clip.w), half.y * (1.0 - clip.y / clip.w)), clip.w))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlay_projects_as_the_intrinsics_do() {
        let k = Intrinsics { fx: 912.0, fy: 905.0, cx: 311.0, cy: 255.5 };
        let p = Vec3::new(0.31, -0.22, 2.7);
        for target in [[640, 480], [1280, 960], [700, 480], [333, 711]] {
            let fit = OverlayFit::new([640, 480], target);
            let (got, w) = project(&fit.clip_from_camera(&k, target), p, target).unwrap();
            let want = fit.target_from_frame(k.frame_from_camera(p));
            assert!((got - want).length() < 1e-3, "{target:?}: {got} is not {want}");
            assert!((w - p.z).abs() < 1e-6);
            assert!((fit.frame_from_target(got) - k.frame_from_camera(p)).length() < 1e-3);
        }
    }

    #[test]
    fn orbit_is_upright_and_not_mirrored() {
        let camera = OrbitCamera { yaw_rad: 0.0, pitch_rad: 0.0, ..OrbitCamera::default() };
        let size = [800, 600];
        let at = |p: Vec3| camera.view_from_camera_px(p, size).unwrap();
        let centre = at(camera.target_m);
        assert!((centre - Vec2::new(400.0, 300.0)).length() < 1e-3);
        assert!(at(camera.target_m + Vec3::X).x > centre.x + 50.0, "camera x points right");
        assert!(at(camera.target_m + Vec3::Y).y > centre.y + 50.0, "camera y points down");
        assert!(camera.view_from_camera_px(camera.eye_m() - Vec3::Z, size).is_none(), "behind the eye");
    }

    #[test]
    fn dragging_moves_the_scene_with_the_mouse() {
        let size = [800, 600];
        let mut camera = OrbitCamera { yaw_rad: 0.3, pitch_rad: 0.2, ..OrbitCamera::default() };
        let p = camera.target_m;
        camera.pan(Vec2::new(40.0, -25.0), 600.0);
        let moved = camera.view_from_camera_px(p, size).unwrap() - Vec2::new(400.0, 300.0);
        assert!((moved - Vec2::new(40.0, -25.0)).length() < 0.5, "{moved}");

        let mut camera = OrbitCamera { yaw_rad: 0.3, pitch_rad: 0.2, ..OrbitCamera::default() };
        let front = camera.target_m + 0.3 * (camera.eye_m() - camera.target_m).normalize();
        let before = camera.view_from_camera_px(front, size).unwrap();
        camera.orbit(Vec2::new(20.0, 10.0), 600.0);
        let after = camera.view_from_camera_px(front, size).unwrap();
        assert!(after.x > before.x && after.y > before.y, "{before} -> {after}");
    }

    #[test]
    fn nonsense_is_mended() {
        let mut camera = OrbitCamera::default();
        camera.zoom(f32::NAN);
        camera.orbit(Vec2::new(f32::INFINITY, 0.0), 0.0);
        camera.pan(Vec2::splat(1e30), 1.0);
        camera.zoom(0.0);
        assert!(camera.eye_m().is_finite() && camera.distance_m > 0.0);
    }
}
