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

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

use super::infer::{self, Part};
use super::stages::{Pass, Stages};
use crate::capture::{self, Frame, FrameSource, Next};
use crate::result::{EstimatorKind, FrameResult, Landmark, MeshSource, Stage};
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

/// What reaches the thread "infer".
enum Message {
    Command(Command),
    Loading { what: String, done: f32 },
    Loaded(Result<Part>),
    LoaderDone,
    SourceOpened { generation: u64, description: String },
    SourceStalled { generation: u64, note: Option<String> },
    SourceClosed { generation: u64, why: Result<String> },
}

/// A frame, and the time that it took to come.
struct Incoming {
    frame: Arc<Frame>,
    waited: Duration,
}

#[derive(Default)]
struct Inbox {
    messages: VecDeque<Message>,
    /// The newest frame that the stages have not taken.
    frame: Option<Incoming>,
    generation: u64,
    frames_dropped: u64,
    paused: bool,
    stop: bool,
}

struct Shared {
    inbox: Mutex<Inbox>,
    /// Something is in the inbox.
    arrived: Condvar,
    /// The frame was taken, or the generation or the pause changed.
    taken: Condvar,
    newest: Mutex<Option<Arc<FrameResult>>>,
    status: Mutex<Status>,
    wake: Box<dyn Fn() + Send + Sync>,
}

/// A poisoned lock means that a worker panicked while it held plain data; that data is still whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn post(&self, message: Message) {
        lock(&self.inbox).messages.push_back(message);
        self.arrived.notify_all();
    }
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
        let wish = settings.webcam;
        let open = Arc::new(move |spec: &SourceSpec| capture::open_with(spec, &wish));
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
        let worker = Worker {
            shared: Arc::clone(&shared),
            stages: Stages::new(settings),
            open,
            load,
            source: None,
            capture: None,
            source_state: SourceState::None,
            source_name: String::new(),
            stalled: None,
            loading: None,
            loads_running: 0,
            backend: String::new(),
            part_notes: Vec::new(),
            failure: None,
            last_frame: None,
            step_credit: 0,
            finished: VecDeque::new(),
        };
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

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .with_context(|| format!("the system gave no thread for \"{name}\""))
}

/// Runs `work`; a panic becomes an error, so that it is shown and the window stays alive.
fn guarded<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        Err(anyhow!("{what} broke down: {} (a defect of this program, please report it)", text.unwrap_or("no message")))
    })
}

enum SourceState {
    None,
    Open,
    Ended(String),
    Failed(String),
}

/// The thread "infer".
struct Worker {
    shared: Arc<Shared>,
    stages: Stages,
    open: Arc<OpenSource>,
    load: Arc<LoadNetworks>,
    source: Option<SourceSpec>,
    capture: Option<(Arc<AtomicBool>, JoinHandle<()>)>,
    source_state: SourceState,
    source_name: String,
    stalled: Option<String>,
    loading: Option<(String, f32)>,
    loads_running: u32,
    backend: String,
    /// What the loader said of each part that is missing.
    part_notes: Vec<(infer::Role, String)>,
    /// What went wrong with the last frame.
    failure: Option<String>,
    last_frame: Option<Arc<Frame>>,
    step_credit: u32,
    /// When the latest results were done.
    finished: VecDeque<Instant>,
}

impl Worker {
    fn run(mut self, source: Option<SourceSpec>) {
        self.start_loading(infer::Wanted::All);
        if let Some(source) = source {
            self.open_source(source);
        }
        self.publish_status();
        while let Some((messages, frame)) = self.wait() {
            let mut again = false;
            for message in messages {
                again |= self.take_message(message);
            }
            let held = self.last_frame.clone().filter(|_| again && self.is_still());
            if let Some(Incoming { frame, waited }) = frame {
                self.process(frame, Pass::Next, waited);
            } else if let Some(frame) = held {
                self.process(frame, Pass::Again, Duration::ZERO);
            }
            self.publish_status();
        }
        if let Some((cancel, _)) = self.capture.take() {
            cancel.store(true, Ordering::Relaxed);
        }
        self.shared.taken.notify_all();
    }

    /// Waits for messages or for a frame that may be processed; `None` when the pipeline is to stop.
    fn wait(&mut self) -> Option<(Vec<Message>, Option<Incoming>)> {
        let mut inbox = lock(&self.shared.inbox);
        loop {
            if inbox.stop {
                return None;
            }
            let flows = !inbox.paused || self.step_credit > 0;
            if !inbox.messages.is_empty() || (flows && inbox.frame.is_some()) {
                break;
            }
            inbox = self.shared.arrived.wait(inbox).unwrap_or_else(PoisonError::into_inner);
        }
        let messages: Vec<_> = inbox.messages.drain(..).collect();
        // Commands come first: a frame is taken only once they are carried out.
        let frame = if messages.is_empty() { inbox.frame.take() } else { None };
        if frame.is_some() {
            if inbox.paused {
                self.step_credit -= 1;
            }
            self.shared.taken.notify_all();
        }
        Some((messages, frame))
    }

    /// No frame will come by itself: a command shows its effect on the frame that is there.
    fn is_still(&self) -> bool {
        lock(&self.shared.inbox).paused || !matches!(self.source_state, SourceState::Open)
    }

    /// Carries out a message. Says whether the frame that is shown should be computed again.
    fn take_message(&mut self, message: Message) -> bool {
        match message {
            Message::Command(command) => return self.take_command(command),
            Message::Loading { what, done } => self.loading = Some((what, done)),
            Message::Loaded(part) => return self.take_part(part),
            Message::LoaderDone => {
                self.loads_running = self.loads_running.saturating_sub(1);
                if self.loads_running == 0 {
                    self.loading = None;
                }
            }
            Message::SourceOpened { generation, description } => {
                if generation == self.generation() {
                    self.source_state = SourceState::Open;
                    self.source_name = description;
                }
            }
            Message::SourceStalled { generation, note } => {
                if generation == self.generation() {
                    self.stalled = note;
                }
            }
            Message::SourceClosed { generation, why } => {
                if generation == self.generation() {
                    self.stalled = None;
                    self.source_state = match why {
                        Ok(why) => SourceState::Ended(why),
                        Err(error) => SourceState::Failed(format!("{error:#}")),
                    };
                }
            }
        }
        false
    }

    fn take_command(&mut self, command: Command) -> bool {
        let mut settings = self.stages.settings().clone();
        match command {
            Command::Pause(paused) => {
                lock(&self.shared.inbox).paused = paused;
                self.step_credit = 0;
                self.shared.taken.notify_all();
                return false;
            }
            Command::Step => {
                if lock(&self.shared.inbox).paused {
                    self.step_credit += 1;
                }
                return false;
            }
            Command::Source(source) => {
                self.open_source(source);
                return false;
            }
            Command::Restart => {
                if let Some(source) = self.source.clone() {
                    self.open_source(source);
                }
                return false;
            }
            Command::Landmarks(landmarks) => {
                self.stages.landmarks = landmarks;
                return true;
            }
            Command::Estimator(kind) => {
                if kind == settings.estimator {
                    return false;
                }
                settings.estimator = kind;
                self.stages.estimator = None;
                self.stages.root = None;
                self.stages.body = None;
                self.stages.landmarks.clear();
                self.stages.set_settings(settings);
                self.start_loading(infer::Wanted::Estimator);
                return true;
            }
            Command::MeshSource(source) => settings.mesh_source = source,
            Command::Boxes(boxes) => {
                settings.boxes = boxes;
                let missing = self.stages.detector.is_none() && self.loads_running == 0;
                if settings.boxes == BoxSource::Detector && missing {
                    self.part_notes.retain(|(role, _)| *role != infer::Role::Detector);
                    self.start_loading(infer::Wanted::Detector);
                }
            }
            Command::DetectEvery(n) => settings.detect_every = n.max(1),
            Command::Camera(camera) => settings.camera = camera,
        }
        self.stages.set_settings(settings);
        true
    }

    fn take_part(&mut self, part: Result<Part>) -> bool {
        match part {
            Ok(Part::Backend(name)) => self.backend = name,
            Ok(Part::Detector(detector)) => {
                self.stages.detector = Some(detector);
                self.stages.forget_people();
                self.part_notes.retain(|(role, _)| *role != infer::Role::Detector);
                return true;
            }
            // A part that was asked for before the estimator changed again is dropped.
            Ok(Part::Root(kind, root)) if kind == self.stages.settings().estimator => {
                self.stages.root = Some(root);
                self.part_notes.retain(|(role, _)| *role != infer::Role::Root);
                return true;
            }
            Ok(Part::Estimator { kind, estimator, body }) if kind == self.stages.settings().estimator => {
                self.stages.estimator = Some(estimator);
                self.stages.body = body;
                self.part_notes.retain(|(role, _)| *role != infer::Role::Estimator);
                return true;
            }
            Ok(Part::Root(..) | Part::Estimator { .. }) => {}
            Ok(Part::Missing(role, note)) => {
                self.part_notes.retain(|(r, _)| *r != role);
                self.part_notes.push((role, note));
            }
            Err(error) => self.part_notes.push((infer::Role::Loader, format!("{error:#}"))),
        }
        false
    }

    fn start_loading(&mut self, wanted: infer::Wanted) {
        let (shared, load, settings) =
            (Arc::clone(&self.shared), Arc::clone(&self.load), self.stages.settings().clone());
        if wanted == infer::Wanted::Estimator {
            self.part_notes.retain(|(role, _)| *role == infer::Role::Detector);
        }
        let thread = spawn("loader", move || {
            let result = guarded("loading", || {
                load(&settings, wanted, &mut |progress| {
                    shared.post(match progress {
                        infer::Progress::Reading { what, done } => Message::Loading { what, done },
                        infer::Progress::Loaded(part) => Message::Loaded(Ok(part)),
                    });
                });
                Ok(())
            });
            if let Err(error) = result {
                shared.post(Message::Loaded(Err(error)));
            }
            shared.post(Message::LoaderDone);
        });
        match thread {
            Ok(_) => {
                self.loads_running += 1;
                self.loading.get_or_insert_with(|| ("starting".into(), 0.0));
            }
            Err(error) => self.part_notes.push((infer::Role::Loader, format!("{error:#}"))),
        }
    }

    fn generation(&self) -> u64 {
        lock(&self.shared.inbox).generation
    }

    fn open_source(&mut self, source: SourceSpec) {
        let generation = {
            let mut inbox = lock(&self.shared.inbox);
            inbox.generation += 1;
            inbox.frame = None;
            inbox.frames_dropped = 0;
            inbox.generation
        };
        self.shared.taken.notify_all();
        let previous = self.capture.take();
        if let Some((cancel, _)) = &previous {
            cancel.store(true, Ordering::Relaxed);
        }
        self.stages.forget_people();
        self.finished.clear();
        self.stalled = None;
        self.source_state = SourceState::Open;
        self.source_name = String::new();
        self.source = Some(source.clone());

        let cancel = Arc::new(AtomicBool::new(false));
        let thread = {
            let (shared, open, cancel) = (Arc::clone(&self.shared), Arc::clone(&self.open), Arc::clone(&cancel));
            spawn("capture", move || {
                // A camera can be open only once: the previous reader lets go of it first.
                if let Some((_, previous)) = previous {
                    let _ = previous.join();
                }
                let why = guarded("the source", || capture_loop(&shared, &*open, &source, generation, &cancel));
                shared.post(Message::SourceClosed { generation, why });
            })
        };
        match thread {
            Ok(thread) => self.capture = Some((cancel, thread)),
            Err(error) => self.source_state = SourceState::Failed(format!("{error:#}")),
        }
    }

    fn process(&mut self, frame: Arc<Frame>, pass: Pass, waited: Duration) {
        let stages = &mut self.stages;
        self.last_frame = Some(Arc::clone(&frame));
        let result = match guarded("a stage", || stages.process(Arc::clone(&frame), pass)) {
            Ok(mut result) => {
                self.failure = None;
                result.timing.add(Stage::Capture, waited);
                result
            }
            Err(error) => {
                log::error!("frame {}: {error:#}", frame.index);
                self.failure = Some(format!("{error:#}"));
                stages.forget_people();
                stages.without_people(frame)
            }
        };
        let mut result = result;
        result.frames_dropped = lock(&self.shared.inbox).frames_dropped;
        *lock(&self.shared.newest) = Some(Arc::new(result));
        if pass == Pass::Next {
            self.finished.push_back(Instant::now());
        }
    }

    fn publish_status(&mut self) {
        let now = Instant::now();
        while self.finished.front().is_some_and(|t| now.duration_since(*t) > Duration::from_secs(2)) {
            self.finished.pop_front();
        }
        let fps = match (self.finished.front(), self.finished.len()) {
            (Some(first), n) if n > 1 => (n - 1) as f32 / now.duration_since(*first).as_secs_f32().max(1e-3),
            _ => 0.0,
        };
        let (paused, frames_dropped) = {
            let inbox = lock(&self.shared.inbox);
            (inbox.paused, inbox.frames_dropped)
        };
        let phase = match (&self.source_state, &self.loading) {
            (SourceState::Failed(why), _) => Phase::Failed(why.clone()),
            (_, Some((what, done))) => Phase::Loading { what: what.clone(), done: *done },
            (SourceState::Ended(why), _) => Phase::Ended(why.clone()),
            (SourceState::None, _) => Phase::Ended("no source is open".into()),
            (SourceState::Open, _) if paused => Phase::Paused,
            (SourceState::Open, _) => Phase::Running,
        };
        let notes = self.failure.iter().chain(&self.stalled).cloned();
        let notes = notes.chain(self.part_notes.iter().map(|(_, note)| note.clone())).collect();
        *lock(&self.shared.status) = Status {
            phase,
            paused,
            source: self.source_name.clone(),
            backend: self.backend.clone(),
            fps,
            frames_dropped,
            notes,
            settings: self.stages.settings().clone(),
        };
        (self.shared.wake)();
    }
}

/// Reads a source until it ends, fails or is cancelled. Says why it ended.
fn capture_loop(
    shared: &Shared,
    open: &OpenSource,
    spec: &SourceSpec,
    generation: u64,
    cancel: &AtomicBool,
) -> Result<String> {
    let cancelled = || cancel.load(Ordering::Relaxed);
    if cancelled() {
        return Ok(String::new());
    }
    let mut source = open(spec)?;
    shared.post(Message::SourceOpened { generation, description: source.describe() });
    let live = source.is_live();
    let interval = source.frame_interval();
    let mut due = Instant::now();
    let mut asked = Instant::now();
    let mut stalled = false;
    loop {
        if !live {
            // Pictures wait until the last one was taken; a video does so while it is held.
            let mut inbox = lock(&shared.inbox);
            while !inbox.stop
                && inbox.generation == generation
                && inbox.frame.is_some()
                && (interval.is_none() || inbox.paused)
            {
                inbox = shared.taken.wait(inbox).unwrap_or_else(PoisonError::into_inner);
            }
            if inbox.stop || inbox.generation != generation {
                return Ok(String::new());
            }
            if inbox.paused {
                due = Instant::now();
            }
        }
        if cancelled() || lock(&shared.inbox).stop {
            return Ok(String::new());
        }
        match source.next()? {
            Next::Frame(frame) => {
                if std::mem::take(&mut stalled) {
                    shared.post(Message::SourceStalled { generation, note: None });
                }
                if let Some(interval) = interval {
                    std::thread::sleep(due.saturating_duration_since(Instant::now()));
                    // A reader that fell behind does not hurry after what it missed.
                    due = due.max(Instant::now().checked_sub(interval).unwrap_or(due)) + interval;
                }
                let waited = asked.elapsed();
                let mut inbox = lock(&shared.inbox);
                if inbox.generation != generation {
                    return Ok(String::new());
                }
                if inbox.frame.replace(Incoming { frame: Arc::new(frame), waited }).is_some() {
                    inbox.frames_dropped += 1;
                }
                drop(inbox);
                shared.arrived.notify_all();
                asked = Instant::now();
            }
            Next::Stalled(note) => {
                stalled = true;
                shared.post(Message::SourceStalled { generation, note: Some(note) });
            }
            Next::Ended(why) => {
                // The last frame is not lost: it is taken before the end is told.
                let mut inbox = lock(&shared.inbox);
                while !inbox.stop && inbox.generation == generation && inbox.frame.is_some() {
                    inbox = shared.taken.wait(inbox).unwrap_or_else(PoisonError::into_inner);
                }
                return Ok(why);
            }
        }
    }
}
