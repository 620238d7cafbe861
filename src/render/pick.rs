//! What lies under a pixel: the front-most face and its nearest vertex, or a joint. On the processor, by the same
//! projections that the pictures are drawn with.

use glam::{Mat4, Vec2, Vec3};

use super::DrawOptions;
use super::camera::{OrbitCamera, OverlayFit, project};
use super::strokes::{joint_radius_m, joint_radius_px};
use crate::result::{FrameResult, Landmark, Person};

/// What was hit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pick {
    /// Id of the person.
    pub person: u32,
    /// The vertex or joint.
    pub landmark: Landmark,
    /// Where it is, camera metres.
    pub position_camera_m: Vec3,
}

/// What lies under a frame pixel (integers at centres) of the overlay.
pub fn pick_overlay(result: &FrameResult, options: &DrawOptions, p_px: Vec2) -> Option<Pick> {
    // As if drawn at one target pixel per frame pixel.
    let size = [result.frame.rgb.width(), result.frame.rgb.height()];
    let fit = OverlayFit::new(size, size);
    let view = View {
        clip_from_camera: fit.clip_from_camera(&result.intrinsics, size),
        size,
        focal_px: result.intrinsics.fx.abs(),
        with_meshes: options.shows_mesh() && options.alpha > 0.0,
    };
    view.pick(result, options, fit.target_from_frame(p_px))
}

/// What lies under a pixel (from the view's top-left corner) of an orbit view of this size.
pub fn pick_orbit(
    result: &FrameResult,
    options: &DrawOptions,
    camera: &OrbitCamera,
    size: [u32; 2],
    p: Vec2,
) -> Option<Pick> {
    let view = View {
        clip_from_camera: camera.clip_from_camera(size),
        size,
        focal_px: OrbitCamera::focal_px(size),
        with_meshes: options.shows_mesh(),
    };
    view.pick(result, options, p)
}

struct View {
    clip_from_camera: Mat4,
    size: [u32; 2],
    focal_px: f32,
    with_meshes: bool,
}

impl View {
    fn pick(&self, result: &FrameResult, options: &DrawOptions, p: Vec2) -> Option<Pick> {
        if !p.is_finite() || self.size.contains(&0) {
            return None;
        }
        // Skeletons are drawn on top of meshes, so they are picked first; of several, the nearest.
        let joint = options
            .visible(result)
            .filter(|person| options.shows_skeleton(person))
            .filter_map(|person| self.joint_under(person, joint_radius_m(person, &result.skeleton), p))
            .min_by(|a, b| a.0.total_cmp(&b.0));
        let hit = joint.or_else(|| {
            let faces = &result.topology.as_ref().filter(|_| self.with_meshes)?.faces;
            options
                .visible(result)
                .filter_map(|person| self.vertex_under(person, faces, p))
                .min_by(|a, b| a.0.total_cmp(&b.0))
        });
        hit.map(|(_, pick)| pick)
    }

    /// The nearest joint whose disc covers the pixel, and its distance.
    fn joint_under(&self, person: &Person, radius_m: f32, p: Vec2) -> Option<(f32, Pick)> {
        // A finger's width more than what is drawn: joints are small.
        const SLACK_PX: f32 = 4.0;
        let hits = person.joints_camera_m.iter().enumerate().filter_map(|(index, &joint_m)| {
            let (at, w) = project(&self.clip_from_camera, joint_m, self.size)?;
            let radius_px = (radius_m * self.focal_px / w).max(joint_radius_px(self.size)) + SLACK_PX;
            let landmark = Landmark::Joint(index as u32);
            (at.distance(p) <= radius_px)
                .then_some((w, Pick { person: person.id, landmark, position_camera_m: joint_m }))
        });
        hits.min_by(|a, b| a.0.total_cmp(&b.0))
    }

    /// The front-most face over the pixel: its distance there, and its vertex nearest to the pixel.
    fn vertex_under(&self, person: &Person, faces: &[[u32; 3]], p: Vec2) -> Option<(f32, Pick)> {
        let vertices_m = &person.mesh.as_ref()?.vertices_camera_m;
        let projected: Vec<_> = vertices_m.iter().map(|&v| project(&self.clip_from_camera, v, self.size)).collect();
        let mut best: Option<(f32, [u32; 3])> = None;
        for face in faces {
            let corner = |i: usize| projected.get(face[i] as usize).copied().flatten();
            let (Some((a, wa)), Some((b, wb)), Some((c, wc))) = (corner(0), corner(1), corner(2)) else { continue };
            let Some([ka, kb, kc]) = barycentric(p, a, b, c) else { continue };
            // 1 / w is what runs linearly over the screen.
            let w = 1.0 / (ka / wa + kb / wb + kc / wc);
            if best.is_none_or(|(best_w, _)| w < best_w) {
                best = Some((w, *face));
            }
        }
        let (w, face) = best?;
        let distance_px = |&vertex: &u32| projected[vertex as usize].map_or(f32::INFINITY, |(at, _)| at.distance(p));
        let vertex = face.into_iter().min_by(|a, b| distance_px(a).total_cmp(&distance_px(b)))?;
        let position_camera_m = vertices_m[vertex as usize];
        Some((w, Pick { person: person.id, landmark: Landmark::Vertex(vertex), position_camera_m }))
    }
}

/// Weights of a triangle's corners at a point inside it, whichever way it winds; `None` outside.
fn barycentric(p: Vec2, a: Vec2, b: Vec2, c: Vec2) -> Option<[f32; 3]> {
    let area = (b - a).perp_dot(c - a);
    let weights = [(c - b).perp_dot(p - b) / area, (a - c).perp_dot(p - c) / area, (b - a).perp_dot(p - a) / area];
    // A hair's breadth of overlap, so that rounding opens no gap between neighbours. Refuses the NaN of an empty
    // triangle.
    weights.iter().all(|&w| w >= -1e-4).then_some(weights)
}
