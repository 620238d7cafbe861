//! Thick lines, balls and rings: skeletons, boxes, the frustum and axes, the marker. All are segments in camera
//! space, so that one pipeline draws them in either view; a box of the frame is its back-projection.

use glam::{Mat4, Vec2, Vec3};

use super::camera::is_drawable;
use super::colour::{bytes, person_colour, spread_colour};
use super::gpu_types::{STYLE_FLAT, STYLE_RING, STYLE_ROUND, Stroke};
use super::resources::{Depth, Pass, PipelineFactory};
use super::{DrawOptions, MeshColour};
use crate::result::{FrameResult, Landmark, Person, Skeleton};
use crate::space::Intrinsics;

pub(super) const WGSL: &str =
    concat!(include_str!("../../shaders/view.wgsl"), include_str!("../../shaders/strokes.wgsl"));

/// The pipelines that draw strokes.
pub(super) struct StrokePasses {
    /// Behind what is nearer.
    pub in_scene: wgpu::RenderPipeline,
    /// On everything.
    pub on_top: wgpu::RenderPipeline,
}

impl StrokePasses {
    pub fn new(factory: &PipelineFactory) -> Self {
        let module = factory.shader("strokes", WGSL);
        let buffers = [Some(wgpu::VertexBufferLayout {
            array_stride: size_of::<Stroke>() as u64,
            step_mode: wgpu::VertexStepMode::Instance,
            attributes: &Stroke::ATTRIBUTES,
        })];
        let pass = |label, depth| {
            let topology = wgpu::PrimitiveTopology::TriangleStrip;
            let (vertex, fragment) = ("vs_stroke", "fs_stroke");
            let (blend, colour) = (true, true);
            factory
                .pipeline(&module, &Pass { label, vertex, fragment, buffers: &buffers, topology, depth, blend, colour })
        };
        Self { in_scene: pass("strokes in the scene", Depth::Test), on_top: pass("strokes on top", Depth::Ignore) }
    }
}

/// One line of the interface in target pixels: strokes stay visible on large targets and dense displays.
pub(super) fn line_px(size: [u32; 2]) -> f32 {
    (size[0].min(size[1]) as f32 / 600.0).clamp(1.0, 6.0)
}

/// Smallest radius of a joint on the target.
pub(super) fn joint_radius_px(size: [u32; 2]) -> f32 {
    2.5 * line_px(size)
}

/// Radius of a person's joints in the scene: a tenth of the mean bone, whatever the body.
pub(super) fn joint_radius_m(person: &Person, skeleton: &Skeleton) -> f32 {
    let (sum, count) = bones(person, skeleton).fold((0.0, 0), |(sum, n), (a, b)| (sum + a.distance(b), n + 1));
    if count == 0 { 0.015 } else { (0.1 * sum / count as f32).clamp(0.001, 0.04) }
}

/// Both ends of every bone that can be drawn: the joint, then its parent.
fn bones(person: &Person, skeleton: &Skeleton) -> impl Iterator<Item = (Vec3, Vec3)> {
    let joint = |i: usize| person.joints_camera_m.get(i).copied().filter(|p| is_drawable(*p));
    let pairs = skeleton.parents.iter().enumerate();
    pairs.filter_map(move |(i, parent)| Some((joint(i)?, joint((*parent)?)?)))
}

/// The skeletons of the people who are drawn. `opacity` is for those whose body is their skeleton.
pub(super) fn skeletons(
    result: &FrameResult,
    options: &DrawOptions,
    size: [u32; 2],
    opacity: f32,
    out: &mut Vec<Stroke>,
) {
    for person in options.visible(result).filter(|person| options.shows_skeleton(person)) {
        let opacity = if options.joints { 1.0 } else { opacity };
        let radius_m = joint_radius_m(person, &result.skeleton);
        let radius_px = joint_radius_px(size);
        let base = person_colour(person.id);
        let colour = bytes(base, opacity);
        for (a, b) in bones(person, &result.skeleton) {
            let mut bone = segment(a, b, colour, 0.6 * radius_px);
            bone.radius_m = 0.5 * radius_m;
            bone.style = STYLE_ROUND;
            out.push(bone);
        }
        for (i, &joint_m) in person.joints_camera_m.iter().enumerate().filter(|(_, p)| is_drawable(**p)) {
            let rgb = match options.colour {
                MeshColour::Person => base.map(|c| 0.45 * c + 0.55),
                MeshColour::Spread => {
                    let spread = person.joint_spread_lixel.get(i).map_or(f32::NAN, |s| s.length());
                    spread_colour(spread, result.bins)
                }
            };
            let mut ball = segment(joint_m, joint_m, bytes(rgb, opacity), radius_px);
            ball.radius_m = radius_m;
            ball.style = STYLE_ROUND;
            out.push(ball);
        }
    }
}

/// Orders strokes from far to near; a bone goes with its far end, so that it is below both its joints.
pub(super) fn sort_far_to_near(strokes: &mut [Stroke], clip_from_camera: &Mat4) {
    let row = clip_from_camera.row(3);
    let distance_m = |p: [f32; 3]| row.dot(Vec3::from_array(p).extend(1.0));
    strokes.sort_by_cached_key(|stroke| {
        let (a, b) = (distance_m(stroke.a_camera_m), distance_m(stroke.b_camera_m));
        let front_m = if stroke.a_camera_m == stroke.b_camera_m { a - stroke.radius_m } else { a.max(b) };
        // Tenths of a millimetre, far first.
        -(front_m * 1e4) as i64
    });
}

/// The boxes of the people who are drawn, on the frame's plane at this depth.
pub(super) fn boxes(result: &FrameResult, options: &DrawOptions, size: [u32; 2], depth_m: f32, out: &mut Vec<Stroke>) {
    if !options.boxes {
        return;
    }
    for person in options.visible(result).filter(|person| person.rect.is_valid()) {
        let (low, high) = (person.rect.min(), person.rect.max());
        let corners = [low, Vec2::new(high.x, low.y), high, Vec2::new(low.x, high.y)];
        let colour = bytes(person_colour(person.id), 1.0);
        outline(&result.intrinsics, corners, depth_m, colour, line_px(size), out);
    }
}

/// The ring around the chosen landmark, when its person is drawn.
pub(super) fn marker(result: &FrameResult, options: &DrawOptions, size: [u32; 2], out: &mut Vec<Stroke>) {
    let Some((id, landmark)) = options.selected else { return };
    let Some(person) = options.visible(result).find(|person| person.id == id) else { return };
    let at = match landmark {
        Landmark::Joint(i) => person.joints_camera_m.get(i as usize),
        Landmark::Vertex(i) => person.mesh.as_ref().and_then(|mesh| mesh.vertices_camera_m.get(i as usize)),
    };
    let Some(&at) = at.filter(|p| is_drawable(**p)) else { return };
    let mut ring = segment(at, at, [255; 4], 8.0 * line_px(size));
    ring.style = STYLE_RING;
    out.push(ring);
    out.push(segment(at, at, bytes(person_colour(id), 1.0), 1.5 * line_px(size)));
}

/// The real camera: its frustum up to the image plane, and its axes (x red, y green, z blue).
pub(super) fn camera(k: &Intrinsics, frame: [u32; 2], plane_m: f32, size: [u32; 2], out: &mut Vec<Stroke>) {
    let width = 0.75 * line_px(size);
    let colour = [214, 220, 230, 255];
    let corners = frame_corners(frame);
    outline(k, corners, plane_m, colour, width, out);
    for corner in corners {
        let end = k.camera_from_frame(corner, plane_m);
        if is_drawable(end) {
            out.push(segment(Vec3::ZERO, end, colour, width));
        }
    }
    let axes = [(Vec3::X, [226, 84, 84, 255]), (Vec3::Y, [110, 190, 90, 255]), (Vec3::Z, [90, 140, 240, 255])];
    out.extend(axes.map(|(axis, colour)| segment(Vec3::ZERO, axis * 0.25, colour, 1.5 * width)));
}

/// The corners of the frame's outermost pixels' outer edges, clockwise from the top left.
pub(super) fn frame_corners([w, h]: [u32; 2]) -> [Vec2; 4] {
    let (right, bottom) = (w as f32 - 0.5, h as f32 - 0.5);
    [Vec2::splat(-0.5), Vec2::new(right, -0.5), Vec2::new(right, bottom), Vec2::new(-0.5, bottom)]
}

/// A closed line through frame pixels, back-projected to a depth.
fn outline(
    k: &Intrinsics,
    corners_px: [Vec2; 4],
    depth_m: f32,
    colour: [u8; 4],
    radius_px: f32,
    out: &mut Vec<Stroke>,
) {
    let corners = corners_px.map(|p| k.camera_from_frame(p, depth_m));
    if corners.iter().all(|p| is_drawable(*p)) {
        out.extend((0..4).map(|i| segment(corners[i], corners[(i + 1) % 4], colour, radius_px)));
    }
}

fn segment(a: Vec3, b: Vec3, colour: [u8; 4], radius_px: f32) -> Stroke {
    Stroke { a_camera_m: a.to_array(), radius_m: 0.0, b_camera_m: b.to_array(), radius_px, colour, style: STYLE_FLAT }
}
