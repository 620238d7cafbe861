//! What the pipeline says about one frame: the one type that flows to the screen, the recorder and the tests.
//!
//! A [`FrameResult`] carries its own frame, so that a mesh is drawn on the frame it was computed from.

use std::sync::Arc;

use glam::Vec3;
use serde::{Deserialize, Serialize};

use crate::body::{Family, Topology};
use crate::camera_mesh::DepthAxis;
use crate::capture::Frame;
use crate::crop::Crop;
use crate::memory::Buffer;
use crate::space::{Intrinsics, RectPx};

/// Which network turns a crop into a body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum EstimatorKind {
    /// I2L-MeshNet with a body: SMPL's of 29 joints and 6,890 vertices, or the stand-in's of 2,843.
    #[default]
    Body,
    /// I2L-MeshNet with a right hand of 21 joints: MANO's of 778 vertices, or the stand-in's of 699.
    Hand,
    /// 3D PoseNet: joints alone.
    Skeleton,
}

impl EstimatorKind {
    /// People or hands: what must be found for it.
    pub fn family(self) -> Family {
        match self {
            Self::Body | Self::Skeleton => Family::Smpl,
            Self::Hand => Family::Mano,
        }
    }
}

/// Which of the two meshes of I2L-MeshNet is shown and written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum MeshSource {
    /// The lixel coordinates, back-projected.
    #[default]
    Lixel,
    /// The body model, posed by the parameter regressor of the second stage and laid onto the lixels' joints.
    Param,
}

/// Where the distance of a root joint comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RootSource {
    /// RootNet: gamma' times k.
    #[default]
    RootNet,
    /// k alone, from the size of the box (gamma = 1), where RootNet's weights are not there. A rough guess.
    BoxSize,
    /// The frame was made, and so it is known.
    Truth,
}

/// A vertex or joint whose heatmaps are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Landmark {
    /// Index of a mesh vertex.
    Vertex(u32),
    /// Index of a joint in [`Skeleton::names`].
    Joint(u32),
}

/// The three 1D heatmaps of one landmark: probabilities over the bins, each summing to 1.
#[derive(Clone, Debug, PartialEq)]
pub struct Heatmaps {
    /// Whose heatmaps these are.
    pub landmark: Landmark,
    /// Along x, y and z; all of the same length, the number of bins.
    pub xyz: [Vec<f32>; 3],
    /// The likeliest bin of each.
    pub mode: [usize; 3],
}

/// Names of the joints and the bones between them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Skeleton {
    /// One name a joint.
    pub names: Vec<String>,
    /// Index of each joint's parent; `None` for the root.
    pub parents: Vec<Option<usize>>,
}

impl Skeleton {
    /// The first joint without a parent.
    pub fn root(&self) -> Option<usize> {
        self.parents.iter().position(Option::is_none)
    }
}

/// The mesh of one person.
#[derive(Clone, Debug, Default)]
pub struct PersonMesh {
    /// The mesh that [`MeshSource`] chose, in camera metres.
    pub vertices_camera_m: Buffer<Vec3>,
    /// Soft-argmax of every vertex, in lixels.
    pub vertices_lixel: Buffer<Vec3>,
    /// Standard deviation of every vertex' x, y and z heatmaps, in lixels.
    pub spread_lixel: Buffer<Vec3>,
    /// What the second stage says, where its weights are there.
    pub params: Option<BodyParams>,
}

/// Pose and shape of a body model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BodyParams {
    /// Axis-angle of every joint, radians; the first is the global orientation, in a person's mesh in camera axes.
    pub pose_rad: Vec<Vec3>,
    /// Shape coefficients.
    pub shape: Vec<f32>,
}

/// One person in one frame.
#[derive(Clone, Debug)]
pub struct Person {
    /// Stable from frame to frame while the person is tracked.
    pub id: u32,
    /// The detector's score in `[0, 1]`; 1 for boxes drawn by the user.
    pub score: f32,
    /// Tight box in frame pixels.
    pub rect: RectPx,
    /// The patch that the networks read.
    pub crop: Crop,
    /// The root joint, in camera metres.
    pub root_camera_m: Vec3,
    /// Where the distance of the root joint comes from.
    pub root_source: RootSource,
    /// The joints, in camera metres.
    pub joints_camera_m: Vec<Vec3>,
    /// Standard deviation of every joint's x, y and z heatmaps, in lixels.
    pub joint_spread_lixel: Vec<Vec3>,
    /// `None` for the skeleton estimator.
    pub mesh: Option<PersonMesh>,
    /// Heatmaps of the chosen landmarks.
    pub heatmaps: Vec<Heatmaps>,
}

/// The stages of a frame, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Waiting for and decoding the frame.
    Capture,
    /// Detector (only every n-th frame) and tracking.
    Detect,
    /// Cutting the patches.
    Crop,
    /// RootNet.
    RootDepth,
    /// I2L-MeshNet or 3D PoseNet.
    Lixel,
    /// Back-projection to metres, and the body model of the second stage.
    CameraMesh,
}

impl Stage {
    /// All stages, in order.
    pub const ALL: [Self; 6] =
        [Self::Capture, Self::Detect, Self::Crop, Self::RootDepth, Self::Lixel, Self::CameraMesh];

    /// The name that is shown and written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Capture => "capture",
            Self::Detect => "detect",
            Self::Crop => "crop",
            Self::RootDepth => "root_depth",
            Self::Lixel => "lixel",
            Self::CameraMesh => "camera_mesh",
        }
    }
}

/// Milliseconds spent in each stage of one frame.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StageTimes {
    ms: [f32; Stage::ALL.len()],
}

impl StageTimes {
    /// Milliseconds of one stage.
    pub fn ms(&self, stage: Stage) -> f32 {
        self.ms[stage as usize]
    }

    /// Adds time to a stage.
    pub fn add(&mut self, stage: Stage, elapsed: std::time::Duration) {
        self.ms[stage as usize] += elapsed.as_secs_f32() * 1e3;
    }

    /// Milliseconds from the frame's arrival to its meshes: all stages but the capture.
    pub fn total_ms(&self) -> f32 {
        self.ms.iter().sum::<f32>() - self.ms(Stage::Capture)
    }
}

/// Everything the pipeline says about one frame.
#[derive(Clone, Debug)]
pub struct FrameResult {
    /// The very frame that the people were found in.
    pub frame: Arc<Frame>,
    /// The camera that the metres belong to.
    pub intrinsics: Intrinsics,
    /// Which network ran.
    pub estimator: EstimatorKind,
    /// Bins of each heatmap.
    pub bins: usize,
    /// The direction of their z.
    pub depth_axis: DepthAxis,
    /// Names and bones of [`Person::joints_camera_m`].
    pub skeleton: Arc<Skeleton>,
    /// Faces of [`PersonMesh::vertices_camera_m`]; `None` for the skeleton estimator.
    pub topology: Option<Arc<Topology>>,
    /// The people, nearest last detection first.
    pub people: Vec<Person>,
    /// Time per stage.
    pub timing: StageTimes,
    /// The detector ran on this frame (else the boxes come from tracking or from the user).
    pub detector_ran: bool,
    /// Frames that the live path has skipped since it started.
    pub frames_dropped: u64,
}
