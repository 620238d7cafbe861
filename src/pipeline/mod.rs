//! The stages in their order, and the threads that run them. Newest frame wins for the live view.

use std::sync::Arc;

use crate::result::{EstimatorKind, FrameResult, Landmark, MeshSource};
use crate::settings::{BoxSource, CameraSetting, Settings, SourceSpec};

/// What the window asks of the pipeline.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Hold at the frame that is shown, or go on.
    Pause(bool),
    /// One more frame, while paused.
    Step,
    /// Whose heatmaps are wanted, for every person. While paused, the held frame is computed again.
    Landmarks(Vec<Landmark>),
    /// Another estimator; its weights are loaded beside the running ones.
    Estimator(EstimatorKind),
    /// Which mesh is shown.
    MeshSource(MeshSource),
    /// Where boxes come from.
    Boxes(BoxSource),
    /// Stride of the detector.
    DetectEvery(u32),
    /// The camera.
    Camera(CameraSetting),
    /// Another source.
    Source(SourceSpec),
    /// Open the same source again (after it ended, or was unplugged).
    Restart,
}

/// What the pipeline is doing.
#[derive(Clone, Debug, PartialEq)]
pub enum Phase {
    /// Weights are read: what, and how much of it (0..1).
    Loading {
        /// "I2L-MeshNet (body)".
        what: String,
        /// Part that is done.
        done: f32,
    },
    /// Frames flow.
    Running,
    /// Held.
    Paused,
    /// The source has no more frames; says why.
    Ended(String),
    /// The source failed; the window stays alive and another one can be opened.
    Failed(String),
}

/// A snapshot of the pipeline's state, for the status line.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    /// What it is doing.
    pub phase: Phase,
    /// The source's description.
    pub source: String,
    /// "cpu (2 threads)", "cuda: NVIDIA H200".
    pub backend: String,
    /// Results a second, over the last second or two.
    pub fps: f32,
    /// Frames skipped since the source was opened.
    pub frames_dropped: u64,
    /// Passing conditions, worst first: a stalled camera, a model that is missing and where to get it, a stage that
    /// failed. Each is one or two sentences. Frames are shown all the same.
    pub notes: Vec<String>,
    /// The settings in force.
    pub settings: Settings,
}

/// The running pipeline: owns its worker threads and stops them when dropped.
pub struct Live {}

impl Live {
    /// Starts the threads. Never blocks: sources and weights are opened on the workers. `wake` is called, from a
    /// worker, whenever there is something new to show.
    pub fn start(settings: Settings, source: Option<SourceSpec>, wake: impl Fn() + Send + Sync + 'static) -> Self {
        let _ = (settings, source, wake);
        Self {}
    }

    /// The newest result, if any.
    pub fn newest(&self) -> Option<Arc<FrameResult>> {
        None
    }

    /// The state now.
    pub fn status(&self) -> Status {
        Status {
            phase: Phase::Paused,
            source: String::new(),
            backend: String::new(),
            fps: 0.0,
            frames_dropped: 0,
            notes: Vec::new(),
            settings: Settings::with_models(std::path::PathBuf::new()),
        }
    }

    /// Asks for something; carried out in order, as soon as the frame in work is done.
    pub fn send(&self, command: Command) {
        let _ = command;
    }
}
