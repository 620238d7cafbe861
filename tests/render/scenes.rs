//! Small scenes whose pixels are known beforehand, and the counting of pixels.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use glam::{Affine2, Vec2, Vec3};
use image::{Rgb, RgbImage};
use lixelscope::body::Topology;
use lixelscope::camera_mesh::DepthAxis;
use lixelscope::capture::Frame;
use lixelscope::crop::Crop;
use lixelscope::render::{DrawOptions, Gpu, OffscreenRenderer};
use lixelscope::result::{EstimatorKind, FrameResult, Person, PersonMesh, Skeleton, StageTimes};
use lixelscope::space::{Intrinsics, RectPx};

/// One device for all tests: opening one takes longer than most of them.
pub static GPU: LazyLock<Gpu> = LazyLock::new(|| Gpu::headless().expect("the tests need a graphics adapter"));

pub fn renderer() -> OffscreenRenderer {
    OffscreenRenderer::with_samples(GPU.clone(), 1).unwrap()
}

/// Every pixel another colour, so that a displaced one shows.
pub fn noise(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        let v = (x.wrapping_mul(0x9E37_79B1) ^ y.wrapping_mul(0x85EB_CA6B)).wrapping_mul(0xC2B2_AE35);
        Rgb([(v >> 24) as u8, (v >> 16) as u8, (v >> 8) as u8])
    })
}

pub fn camera() -> Intrinsics {
    Intrinsics { fx: 500.0, fy: 500.0, cx: 320.0, cy: 240.0 }
}

pub fn person(id: u32, mesh: Option<PersonMesh>, joints_camera_m: Vec<Vec3>) -> Person {
    let rect = RectPx::from([200.0, 100.0, 120.0, 240.0]);
    let crop = Crop { rect, size: 256, crop_from_frame: Affine2::IDENTITY, frame_from_crop: Affine2::IDENTITY };
    let root_camera_m = joints_camera_m.first().copied().unwrap_or(Vec3::Z * 3.0);
    let joint_spread_lixel = vec![Vec3::ONE; joints_camera_m.len()];
    let heatmaps = Vec::new();
    let root_source = lixelscope::result::RootSource::RootNet;
    Person {
        id,
        score: 0.9,
        rect,
        crop,
        root_camera_m,
        root_source,
        joints_camera_m,
        joint_spread_lixel,
        mesh,
        heatmaps,
    }
}

pub fn mesh(vertices_camera_m: Vec<Vec3>) -> PersonMesh {
    let spread_lixel = vec![Vec3::splat(0.5); vertices_camera_m.len()];
    let vertices_lixel = vec![Vec3::ZERO; vertices_camera_m.len()];
    PersonMesh {
        vertices_camera_m: vertices_camera_m.into(),
        vertices_lixel: vertices_lixel.into(),
        spread_lixel: spread_lixel.into(),
        params: None,
    }
}

pub fn result_on(rgb: RgbImage, intrinsics: Intrinsics, faces: Vec<[u32; 3]>, people: Vec<Person>) -> Arc<FrameResult> {
    let vertex_count = people.iter().filter_map(|p| p.mesh.as_ref()).map(|m| m.vertices_camera_m.len()).max();
    let topology = Topology { vertex_count: vertex_count.unwrap_or(0), faces, ..Topology::default() };
    Arc::new(FrameResult {
        frame: Arc::new(Frame { rgb, index: 0, captured_at: Duration::ZERO, name: None, truth: None }),
        intrinsics,
        estimator: EstimatorKind::Body,
        bins: 64,
        depth_axis: DepthAxis::Camera,
        skeleton: Arc::new(Skeleton {
            names: ["a", "b", "c"].map(String::from).to_vec(),
            parents: vec![None, Some(0), Some(1)],
        }),
        topology: Some(Arc::new(topology)),
        people,
        timing: StageTimes::default(),
        detector_ran: true,
        frames_dropped: 0,
    })
}

pub fn result(faces: Vec<[u32; 3]>, people: Vec<Person>) -> Arc<FrameResult> {
    result_on(noise(640, 480), camera(), faces, people)
}

pub const QUAD: [[u32; 3]; 2] = [[0, 2, 1], [0, 3, 2]];

/// A rectangle that faces the camera, between two frame points at a depth. With `QUAD`, its outside is seen.
pub fn quad(low: Vec2, high: Vec2, depth_m: f32) -> Vec<Vec3> {
    let corners = [low, Vec2::new(high.x, low.y), high, Vec2::new(low.x, high.y)];
    corners.map(|p| camera().camera_from_frame(p, depth_m)).to_vec()
}

pub fn quad_person(id: u32, low: [f32; 2], high: [f32; 2], depth_m: f32) -> Person {
    person(id, Some(mesh(quad(low.into(), high.into(), depth_m))), Vec::new())
}

/// A globe: rings of vertices between two poles; faces counter-clockwise seen from outside.
pub fn globe(rings: u32, sectors: u32) -> (Vec<Vec3>, Vec<[u32; 3]>) {
    let mut vertices = vec![Vec3::NEG_Y];
    for ring in 1..rings {
        let (sin, cos) = (std::f32::consts::PI * ring as f32 / rings as f32).sin_cos();
        vertices.extend((0..sectors).map(|sector| {
            let (s, c) = (std::f32::consts::TAU * sector as f32 / sectors as f32).sin_cos();
            Vec3::new(sin * c, -cos, sin * s)
        }));
    }
    let last = vertices.len() as u32;
    vertices.push(Vec3::Y);
    let at = |ring: u32, sector: u32| 1 + (ring - 1) * sectors + sector % sectors;
    let mut faces = Vec::new();
    for sector in 0..sectors {
        faces.push([0, at(1, sector), at(1, sector + 1)]);
        faces.push([last, at(rings - 1, sector + 1), at(rings - 1, sector)]);
        for ring in 1..rings - 1 {
            let [a, b] = [at(ring, sector), at(ring, sector + 1)];
            let [c, d] = [at(ring + 1, sector), at(ring + 1, sector + 1)];
            faces.extend([[a, c, d], [a, d, b]]);
        }
    }
    (vertices, faces)
}

pub fn sphere_person(id: u32, centre: Vec3, radius_m: f32, unit: &[Vec3]) -> Person {
    let vertices = unit.iter().map(|v| centre + radius_m * *v).collect();
    person(id, Some(mesh(vertices)), vec![centre])
}

pub fn changed(a: &RgbImage, b: &RgbImage) -> BTreeSet<(u32, u32)> {
    assert_eq!(a.dimensions(), b.dimensions());
    a.enumerate_pixels().filter(|(x, y, p)| b.get_pixel(*x, *y) != *p).map(|(x, y, _)| (x, y)).collect()
}

pub fn rectangle(x: std::ops::Range<u32>, y: std::ops::Range<u32>) -> BTreeSet<(u32, u32)> {
    y.flat_map(|y| x.clone().map(move |x| (x, y))).collect()
}

/// Equal sets of pixels; says how many differ, and one of them.
#[track_caller]
pub fn assert_pixels(got: &BTreeSet<(u32, u32)>, want: &BTreeSet<(u32, u32)>, what: &str) {
    let extra: Vec<_> = got.difference(want).collect();
    let missing: Vec<_> = want.difference(got).collect();
    assert!(
        extra.is_empty() && missing.is_empty(),
        "{what}: of {} pixels {} are missing ({:?}), and {} are too many ({:?})",
        want.len(),
        missing.len(),
        missing.first(),
        extra.len(),
        extra.first()
    );
}

pub fn solid() -> DrawOptions {
    DrawOptions { alpha: 1.0, ..DrawOptions::default() }
}
