//! The thread "infer": carries out messages, runs the stages, publishes results.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::inbox::{Incoming, Message, Shared, guarded, lock, spawn};
use super::infer::{self, Part};
use super::live::{Command, LoadNetworks, OpenSource, Phase, Status};
use super::reader::read_source;
use super::stages::{Pass, Stages};
use crate::capture::{Frame, SourceKind};
use crate::result::Stage;
use crate::settings::{BoxSource, Settings, SourceSpec};

enum SourceState {
    None,
    Opening,
    Open,
    Ended(String),
    Failed(String),
}

/// Everything that the thread keeps.
pub(super) struct Worker {
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
    kind: SourceKind,
    /// A frame of this source was shown.
    shown: bool,
    step_credit: u32,
    /// When the latest results were done.
    finished: VecDeque<Instant>,
    /// Since when it waits for the first people, until they are there.
    waits_since: Option<Instant>,
}

impl Worker {
    /// A worker that knows no source yet.
    pub(super) fn new(shared: Arc<Shared>, settings: Settings, open: Arc<OpenSource>, load: Arc<LoadNetworks>) -> Self {
        Self {
            shared,
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
            kind: SourceKind::Motion,
            shown: false,
            step_credit: 0,
            finished: VecDeque::new(),
            waits_since: Some(Instant::now()),
        }
    }

    /// Works until the pipeline is dropped.
    pub(super) fn run(mut self, source: Option<SourceSpec>) {
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
            // Pictures stay until the networks are there to look at them; one is shown meanwhile.
            let unseen = self.kind != SourceKind::Motion && self.loads_running > 0 && self.shown;
            let flows = (!inbox.paused || self.step_credit > 0) && !unseen;
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

    /// No frame will come by itself, or not soon: a command shows its effect on the frame that is there.
    fn is_still(&self) -> bool {
        lock(&self.shared.inbox).paused
            || self.kind != SourceKind::Motion
            || !matches!(self.source_state, SourceState::Open)
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
            Message::SourceOpened { generation, description, kind } => {
                if generation == self.generation() {
                    self.source_state = SourceState::Open;
                    self.source_name = description;
                    self.kind = kind;
                    self.stages.begin(kind);
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
                // A source that was only just opened shows its first frame.
                self.step_credit = u32::from(!self.shown);
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
                let same_family = kind.family() == settings.estimator.family();
                settings.estimator = kind;
                self.stages.estimator = None;
                self.stages.root = None;
                self.stages.body = None;
                self.stages.landmarks.clear();
                self.stages.set_settings(settings);
                if same_family {
                    self.start_loading(infer::Wanted::Estimator);
                } else {
                    // People are no hands.
                    self.stages.detector = None;
                    self.stages.forget_people();
                    self.part_notes.clear();
                    self.start_loading(infer::Wanted::All);
                }
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
            Command::Detector(kind) => {
                if kind == settings.detector {
                    return false;
                }
                settings.detector = kind;
                if settings.boxes == BoxSource::Detector {
                    // The one that runs goes on until the new one is there.
                    self.stages.set_settings(settings);
                    self.part_notes.retain(|(role, _)| *role != infer::Role::Detector);
                    self.start_loading(infer::Wanted::Detector);
                    return false;
                }
                // It is loaded when it is wanted.
                self.stages.detector = None;
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
            // A part that was asked for before the setting changed again is dropped.
            Ok(Part::Detector(kind, family, detector))
                if kind == self.stages.settings().detector && family == self.stages.settings().estimator.family() =>
            {
                self.stages.detector = Some(detector);
                self.stages.forget_people();
                self.part_notes.retain(|(role, _)| *role != infer::Role::Detector);
                return true;
            }
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
            Ok(Part::Detector(..) | Part::Root(..) | Part::Estimator { .. }) => {}
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
        self.source_state = SourceState::Opening;
        self.source_name = source.to_string();
        self.source = Some(source.clone());
        self.shown = false;
        // What was shown belongs to another source; this one's first frame is shown even while paused.
        *lock(&self.shared.newest) = None;
        self.last_frame = None;
        self.step_credit = u32::from(lock(&self.shared.inbox).paused);

        let cancel = Arc::new(AtomicBool::new(false));
        let thread = {
            let (shared, open, cancel) = (Arc::clone(&self.shared), Arc::clone(&self.open), Arc::clone(&cancel));
            spawn("capture", move || {
                // A camera can be open only once: the previous reader lets go of it first.
                if let Some((_, previous)) = previous {
                    let _ = previous.join();
                }
                let why = guarded("the source", || read_source(&shared, &*open, &source, generation, &cancel));
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
        self.shown = true;
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
        if let Some(since) = self.waits_since.take_if(|_| !result.people.is_empty()) {
            log::debug!("the first people after {:.2} s", since.elapsed().as_secs_f64());
        }
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
            (SourceState::Opening, _) => Phase::Loading { what: "opening the source".into(), done: 0.0 },
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
            weights: self.stages.weights(),
            fps,
            frames_dropped,
            notes,
            settings: self.stages.settings().clone(),
        };
        (self.shared.wake)();
    }
}
