//! The live view's threads.
//!
//! ```text
//! thread "capture"  source.next() ---> newest frame ---+
//! thread "loader"   networks ------> messages ---------+--> thread "infer": stages --> newest result --> wake()
//! window            commands ------> messages ---------+
//! ```
//!
//! A live source overwrites a frame that nobody has taken yet, and so does a video that is played at its own speed;
//! both are counted. Pictures wait. A worker that fails says so in [`Status`]; the others go on.

use std::sync::{Arc, Condvar, Mutex};

use anyhow::Result;

use super::inbox::{Message, Shared, lock, spawn};
use super::infer;
use super::worker::Worker;
use crate::capture::{self, FrameSource};
use crate::models::Weights;
use crate::result::{EstimatorKind, FrameResult, Landmark, MeshSource};
use crate::settings::{BoxSource, CameraSetting, DetectorKind, Settings, SourceSpec};

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
    /// Another network that finds people; it is loaded beside the running ones.
    Detector(DetectorKind),
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
    /// Weights are read: what, and how much of it (0..1). Frames are shown meanwhile.
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
    /// The source failed; another one can be opened.
    Failed(String),
}

/// A snapshot of the pipeline's state, for the status line.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    /// What it is doing.
    pub phase: Phase,
    /// Frames are held, whatever else it is doing.
    pub paused: bool,
    /// The source's description; empty without one.
    pub source: String,
    /// "cpu (2 threads)", "cuda: NVIDIA H200".
    pub backend: String,
    /// Whose weights the networks run with, in the order of the stages.
    pub weights: Vec<Weights>,
    /// Results a second, over the last two seconds.
    pub fps: f32,
    /// Frames skipped since the source was opened.
    pub frames_dropped: u64,
    /// Passing conditions: a stalled camera, a model that is missing and where to get it, a stage that failed.
    /// Frames are shown all the same.
    pub notes: Vec<String>,
    /// The settings in force.
    pub settings: Settings,
}

/// Opens sources; replaced in tests.
pub type OpenSource = dyn Fn(&SourceSpec) -> Result<Box<dyn FrameSource>> + Send + Sync;
/// Loads networks, handing over each part as soon as it is there; replaced in tests.
pub type LoadNetworks = dyn Fn(&Settings, infer::Wanted, &mut (dyn FnMut(infer::Progress) + Send)) + Send + Sync;

/// The running pipeline: owns its worker threads and stops them when dropped.
pub struct Live {
    shared: Arc<Shared>,
}

impl Live {
    /// Starts the threads. Never blocks: sources and weights are opened on the workers. `wake` is called, from a
    /// worker, whenever there is something new to show.
    pub fn start(settings: Settings, source: Option<SourceSpec>, wake: impl Fn() + Send + Sync + 'static) -> Self {
        let (wish, models) = (settings.webcam, settings.models.clone());
        let open = Arc::new(move |spec: &SourceSpec| capture::open_with(spec, &wish, Some(&models)));
        Self::start_with(settings, source, wake, open, Arc::new(infer::load))
    }

    /// As [`Self::start`], with other ways to open sources and to load networks.
    pub fn start_with(
        settings: Settings,
        source: Option<SourceSpec>,
        wake: impl Fn() + Send + Sync + 'static,
        open: Arc<OpenSource>,
        load: Arc<LoadNetworks>,
    ) -> Self {
        let status = Status {
            phase: Phase::Loading { what: "starting".into(), done: 0.0 },
            paused: false,
            source: String::new(),
            backend: String::new(),
            weights: Vec::new(),
            fps: 0.0,
            frames_dropped: 0,
            notes: Vec::new(),
            settings: settings.clone(),
        };
        let shared = Arc::new(Shared {
            inbox: Mutex::default(),
            arrived: Condvar::new(),
            taken: Condvar::new(),
            newest: Mutex::default(),
            status: Mutex::new(status),
            wake: Box::new(wake),
        });
        let worker = Worker::new(Arc::clone(&shared), settings, open, load);
        let spawned = spawn("infer", move || worker.run(source));
        if let Err(error) = spawned {
            lock(&shared.status).phase = Phase::Failed(format!("{error:#}"));
        }
        Self { shared }
    }

    /// The newest result, if any.
    pub fn newest(&self) -> Option<Arc<FrameResult>> {
        lock(&self.shared.newest).clone()
    }

    /// The state now.
    pub fn status(&self) -> Status {
        lock(&self.shared.status).clone()
    }

    /// Asks for something; carried out in order, as soon as the frame in work is done.
    pub fn send(&self, command: Command) {
        self.shared.post(Message::Command(command));
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        lock(&self.shared.inbox).stop = true;
        self.shared.arrived.notify_all();
        self.shared.taken.notify_all();
        // The workers are not joined: one of them may be in the middle of a frame, and a window closes at once.
    }
}
