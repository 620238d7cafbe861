//! People made by hand, to look at the window without any network: capsules around a skeleton, with heatmaps whose
//! soft-argmax is where the vertex is. Everything follows from a few numbers, so tests know what they should see.

#![allow(dead_code)] // each test binary uses its part

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use glam::{Affine2, Mat3, Vec2, Vec3};
use image::{Rgb, RgbImage};
use lixelscope::app::{Feed, Waker};
use lixelscope::body::Topology;
use lixelscope::camera_mesh::DepthAxis;
use lixelscope::capture::Frame;
use lixelscope::crop::Crop;
use lixelscope::pipeline::{Command, Phase, Status};
use lixelscope::result::{
    EstimatorKind, FrameResult, Heatmaps, Landmark, Person, PersonMesh, RootSource, Skeleton, Stage, StageTimes,
};
use lixelscope::settings::Settings;
use lixelscope::space::{Intrinsics, RectPx};

pub const BINS: usize = 64;
pub const FRAME_SIZE: [u32; 2] = [960, 540];
/// Colour of the upper part of every frame.
pub const WALL: [u8; 3] = [52, 70, 92];

const JOINTS: [(&str, Option<usize>, [f32; 3]); 17] = [
    ("pelvis", None, [0.0, 0.0, 0.0]),
    ("spine", Some(0), [0.0, -0.25, 0.0]),
    ("neck", Some(1), [0.0, -0.50, 0.0]),
    ("head", Some(2), [0.0, -0.68, -0.02]),
    ("L shoulder", Some(2), [0.19, -0.46, 0.0]),
    ("L elbow", Some(4), [0.40, -0.28, -0.04]),
    ("L wrist", Some(5), [0.52, -0.50, -0.16]),
    ("R shoulder", Some(2), [-0.19, -0.46, 0.0]),
    ("R elbow", Some(7), [-0.33, -0.21, 0.02]),
    ("R wrist", Some(8), [-0.37, 0.04, -0.08]),
    ("L hip", Some(0), [0.10, 0.06, 0.0]),
    ("L knee", Some(10), [0.13, 0.45, -0.06]),
    ("L ankle", Some(11), [0.14, 0.84, 0.03]),
    ("R hip", Some(0), [-0.10, 0.06, 0.0]),
    ("R knee", Some(13), [-0.16, 0.44, -0.10]),
    ("R ankle", Some(14), [-0.20, 0.82, 0.06]),
    ("crown", Some(3), [0.0, -0.80, -0.02]),
];

/// Capsules: joints and radii of both ends.
const PARTS: [(usize, usize, f32, f32); 13] = [
    (0, 1, 0.145, 0.135),
    (1, 2, 0.150, 0.075),
    (3, 16, 0.095, 0.075),
    (2, 4, 0.070, 0.070),
    (2, 7, 0.070, 0.070),
    (4, 5, 0.058, 0.046),
    (5, 6, 0.046, 0.034),
    (7, 8, 0.058, 0.046),
    (8, 9, 0.046, 0.034),
    (10, 11, 0.088, 0.062),
    (11, 12, 0.060, 0.042),
    (13, 14, 0.088, 0.062),
    (14, 15, 0.060, 0.042),
];

/// A result with people at these places (root joint, camera metres), each turned by an angle around the vertical.
pub fn result(index: u64, places: &[(Vec3, f32)], landmarks: &[Landmark]) -> FrameResult {
    let [width, height] = FRAME_SIZE;
    let intrinsics = Intrinsics::with_focal(700.0, width, height);
    let mut timing = StageTimes::default();
    for (stage, ms) in Stage::ALL.into_iter().zip([4.1, 61.3, 0.8, 22.4, 118.6, 3.2]) {
        timing.add(stage, Duration::from_secs_f32(ms / 1e3));
    }
    let people = places.iter().enumerate().map(|(i, place)| person(i as u32 + 1, *place, &intrinsics, landmarks));
    FrameResult {
        frame: Arc::new(Frame {
            rgb: room(width, height),
            index,
            captured_at: Duration::from_millis(index * 40),
            name: None,
            truth: None,
        }),
        intrinsics,
        estimator: EstimatorKind::Body,
        bins: BINS,
        depth_axis: DepthAxis::Camera,
        skeleton: Arc::new(skeleton()),
        topology: Some(Arc::new(capsules(&joints(Vec3::ZERO, 0.0)).1)),
        people: people.collect(),
        timing,
        detector_ran: index.is_multiple_of(4),
        frames_dropped: 0,
    }
}

/// Three people, the first one in the middle.
pub fn three_people(landmarks: &[Landmark]) -> FrameResult {
    result(
        128,
        &[(Vec3::new(0.05, 0.0, 2.6), 0.3), (Vec3::new(-1.0, 0.1, 3.4), -0.5), (Vec3::new(1.35, -0.05, 4.1), 0.9)],
        landmarks,
    )
}

pub fn status(phase: Phase) -> Status {
    Status {
        paused: phase == Phase::Paused,
        phase,
        source: "office.mp4, 960x540 at 25 fps".into(),
        backend: "cpu (2 threads)".into(),
        weights: Vec::new(),
        fps: 4.7,
        frames_dropped: 12,
        notes: Vec::new(),
        settings: Settings::with_models(PathBuf::from("models")),
    }
}

fn skeleton() -> Skeleton {
    Skeleton {
        names: JOINTS.iter().map(|(name, ..)| (*name).to_owned()).collect(),
        parents: JOINTS.iter().map(|(_, parent, _)| *parent).collect(),
    }
}

fn joints(root: Vec3, yaw: f32) -> Vec<Vec3> {
    let turn = Mat3::from_rotation_y(yaw);
    JOINTS.iter().map(|(.., at)| root + turn * Vec3::from(*at)).collect()
}

/// Vertices and topology of the capsules around these joints.
fn capsules(joints: &[Vec3]) -> (Vec<Vec3>, Topology) {
    const AROUND: usize = 20;
    const RINGS: usize = 14;
    let mut vertices = Vec::new();
    let mut faces = Vec::new();
    for (a, b, ra, rb) in PARTS {
        let (a, b) = (joints[a], joints[b]);
        let axis = (b - a).normalize();
        let side = axis.any_orthonormal_vector();
        let other = axis.cross(side);
        let first = vertices.len() as u32;
        for ring in 0..=RINGS {
            // From one pole over the cylinder to the other.
            let t = ring as f32 / RINGS as f32;
            let polar = t * std::f32::consts::PI;
            let (centre, radius) = if t < 0.5 { (a, ra) } else { (b, rb) };
            for i in 0..AROUND {
                let around = i as f32 / AROUND as f32 * std::f32::consts::TAU;
                let out = side * around.cos() + other * around.sin();
                vertices.push(centre + radius * (out * polar.sin() - axis * polar.cos()));
            }
        }
        for ring in 0..RINGS as u32 {
            for i in 0..AROUND as u32 {
                let at = |ring: u32, i: u32| first + ring * AROUND as u32 + i % AROUND as u32;
                faces.push([at(ring, i), at(ring, i + 1), at(ring + 1, i)]);
                faces.push([at(ring, i + 1), at(ring + 1, i + 1), at(ring + 1, i)]);
            }
        }
    }
    let topology = Topology { vertex_count: vertices.len(), faces, skeleton: skeleton(), joint_regressor: Vec::new() };
    (vertices, topology)
}

fn person(id: u32, (root, yaw): (Vec3, f32), camera: &Intrinsics, landmarks: &[Landmark]) -> Person {
    let joints = joints(root, yaw);
    let (vertices, _) = capsules(&joints);
    let rect = RectPx::around(vertices.iter().map(|v| camera.frame_from_camera(*v))).unwrap_or_default();
    let crop = crop(rect);
    let lixel = |p: Vec3| {
        let px = crop.crop_from_frame.transform_point2(camera.frame_from_camera(p)) / crop.size as f32;
        Vec3::new(px.x, px.y, (p.z - root.z) * 0.5 + 0.5) * BINS as f32
    };
    let spread = |p: Vec3| Vec3::new(1.2, 1.4, 2.2) * (1.0 + 2.5 * (p - root).length());
    let heatmaps = landmarks.iter().filter_map(|&landmark| {
        let p = match landmark {
            Landmark::Vertex(vertex) => *vertices.get(vertex as usize)?,
            Landmark::Joint(joint) => *joints.get(joint as usize)?,
        };
        let (at, spread) = (lixel(p), spread(p));
        let mode = std::array::from_fn(|axis| (at[axis].round().max(0.0) as usize).min(BINS - 1));
        Some(Heatmaps { landmark, xyz: std::array::from_fn(|axis| gaussian(at[axis], spread[axis])), mode })
    });
    Person {
        id,
        score: 0.999 - 0.14 * id as f32,
        rect,
        crop,
        root_camera_m: root,
        root_source: RootSource::RootNet,
        joint_spread_lixel: joints.iter().map(|j| spread(*j)).collect(),
        mesh: Some(PersonMesh {
            vertices_lixel: vertices.iter().map(|v| lixel(*v)).collect(),
            spread_lixel: vertices.iter().map(|v| spread(*v)).collect(),
            vertices_camera_m: vertices[..].into(),
            params: None,
        }),
        heatmaps: heatmaps.collect(),
        joints_camera_m: joints,
    }
}

fn crop(tight: RectPx) -> Crop {
    let side = tight.w.max(tight.h) * 1.25;
    let corner = tight.centre() - Vec2::splat(side * 0.5);
    let frame_from_crop = Affine2::from_scale_angle_translation(Vec2::splat(side / 256.0), 0.0, corner);
    Crop {
        rect: RectPx { x: corner.x, y: corner.y, w: side, h: side },
        size: 256,
        crop_from_frame: frame_from_crop.inverse(),
        frame_from_crop,
    }
}

fn gaussian(at: f32, spread: f32) -> Vec<f32> {
    // A second, smaller mode some bins away makes it look like the real thing; the mean of both is `at`.
    let at = at - 3.2 * spread * 0.108 / 1.108;
    let bump = |i: f32, at: f32, spread: f32| (-0.5 * ((i - at) / spread).powi(2)).exp();
    let values: Vec<f32> = (0..BINS)
        .map(|i| bump(i as f32, at, spread) + 0.18 * bump(i as f32, at + 3.2 * spread, 0.6 * spread))
        .collect();
    let sum: f32 = values.iter().sum();
    values.into_iter().map(|v| v / sum).collect()
}

fn room(width: u32, height: u32) -> RgbImage {
    let floor = height * 7 / 10;
    RgbImage::from_fn(width, height, |x, y| {
        if y < floor {
            Rgb(WALL)
        } else {
            let shade = 60 + (y - floor) as u8 / 4 + if (x / 60 + (y - floor) / 30).is_multiple_of(2) { 8 } else { 0 };
            Rgb([shade + 22, shade + 12, shade])
        }
    })
}

/// A feed that holds one result and answers as the pipeline would.
pub struct HandmadeFeed {
    waker: Waker,
    state: Mutex<FeedState>,
    make: fn(&[Landmark]) -> FrameResult,
}

struct FeedState {
    result: Option<Arc<FrameResult>>,
    status: Status,
}

impl HandmadeFeed {
    pub fn new(waker: Waker, status: Status, make: fn(&[Landmark]) -> FrameResult) -> Self {
        let result = Some(Arc::new(make(&[])));
        Self { waker, state: Mutex::new(FeedState { result, status }), make }
    }

    pub fn without_result(waker: Waker, status: Status) -> Self {
        Self { waker, state: Mutex::new(FeedState { result: None, status }), make: three_people }
    }
}

impl Feed for HandmadeFeed {
    fn newest(&self) -> Option<Arc<FrameResult>> {
        self.state.lock().unwrap().result.clone()
    }

    fn status(&self) -> Status {
        self.state.lock().unwrap().status.clone()
    }

    fn send(&self, command: Command) {
        println!("command {command:?}");
        let mut state = self.state.lock().unwrap();
        match command {
            Command::Landmarks(landmarks) => state.result = Some(Arc::new((self.make)(&landmarks))),
            Command::Pause(paused) => {
                state.status.paused = paused;
                state.status.phase = if paused { Phase::Paused } else { Phase::Running };
            }
            _ => {}
        }
        self.waker.wake();
    }
}
