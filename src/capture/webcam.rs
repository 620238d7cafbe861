//! A webcam as a source: a thread that reads the camera, and a watchdog in front of it.
//!
//! Reading a frame may block without limit, so the camera lives on a thread of its own, which keeps the newest frame
//! only; frames that nobody took in time are dropped and counted in [`Frame::index`]. `next` waits for about a second
//! and then says what is known. A camera that is unplugged, or that another program holds, is a condition: it is opened
//! again as soon as it is there. Frames are converted to RGB by the reader, so that a dropped one costs nothing.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

use super::camera::NokhwaDriver;
use super::pixels::{PixelFormat, decode};
use super::{Frame, FrameSource, Next};
use crate::settings::WebcamWish;

/// `next` says so when nothing came for this long.
const PATIENCE: Duration = Duration::from_secs(1);
/// A camera that answers neither way within this time is opened as a stalled source.
const OPENING: Duration = Duration::from_secs(8);
/// Between two attempts to open a camera that is away.
const RETRY: Duration = Duration::from_millis(500);
/// How long a dropped source waits for its thread before it leaves it behind.
const FAREWELL: Duration = Duration::from_secs(1);

/// What kind of trouble a camera is in; decides what is done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// It is not there (any more).
    Gone,
    /// Another program has it.
    Busy,
    /// The system does not let us.
    Denied,
    /// Anything else.
    Other,
}

/// Why a camera gave no frame.
#[derive(Clone, Debug)]
pub(super) struct Trouble {
    pub kind: Kind,
    pub words: String,
}

impl Trouble {
    pub fn new(kind: Kind, words: impl Into<String>) -> Self {
        Self { kind, words: words.into() }
    }
}

/// Opens a camera, as often as needed. Lives on the camera's thread, as does what it opens.
pub(super) trait Driver: Send + 'static {
    type Stream: CameraStream;
    fn open(&mut self) -> Result<Self::Stream, Trouble>;
}

/// An open camera.
pub(super) trait CameraStream {
    fn describe(&self) -> String;
    /// Blocks until there is a frame.
    fn frame(&mut self) -> Result<RawFrame, Trouble>;
}

/// A frame as the camera sent it.
pub(super) struct RawFrame {
    pub pixels: PixelFormat,
    pub width: u32,
    pub height: u32,
    pub data: Vec<u8>,
}

/// A live camera. Dropping it ends its thread; where the camera's driver blocks, the thread is left behind and ends (and
/// lets go of the camera) when the driver returns.
pub struct WebcamSource {
    index: u32,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    description: String,
    /// Since when nothing has come.
    silent_since: Instant,
    told: String,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    condition: Condition,
    newest: Option<Arrived>,
    /// Nobody wants more frames.
    stopped: bool,
    /// The thread has let go of the camera.
    finished: bool,
}

struct Arrived {
    raw: RawFrame,
    index: u64,
    at: Duration,
}

#[derive(Clone, Default)]
enum Condition {
    #[default]
    Opening,
    /// Frames flow; the stream's description.
    Streaming(String),
    /// No camera for now, and why.
    Waiting(String),
    /// There never was one.
    Failed(String),
}

impl WebcamSource {
    /// Opens a webcam by its index. An error where it is not there, is not permitted, or gives no readable format; a
    /// source that stalls where another program has it.
    pub fn open(index: u32, wish: &WebcamWish) -> Result<Self> {
        Self::start(index, NokhwaDriver::new(index, *wish))
    }

    fn start(index: u32, driver: impl Driver) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let thread = std::thread::Builder::new()
            .name(format!("webcam-{index}"))
            .spawn({
                let shared = Arc::clone(&shared);
                move || shared.run(index, driver)
            })
            .context("cannot start the webcam's thread")?;
        let mut source = Self {
            index,
            shared,
            thread: Some(thread),
            description: format!("webcam {index}"),
            silent_since: Instant::now(),
            told: String::new(),
        };
        let deadline = Instant::now() + OPENING;
        let mut state = source.shared.lock();
        while matches!(state.condition, Condition::Opening) && Instant::now() < deadline {
            state = source.shared.wait(state, deadline);
        }
        let condition = state.condition.clone();
        drop(state);
        match condition {
            Condition::Failed(words) => return Err(anyhow!(words)),
            Condition::Streaming(description) => source.description = description,
            Condition::Opening | Condition::Waiting(_) => {}
        }
        Ok(source)
    }

    /// States a condition; at once where it is new, else about once a second.
    fn stalled(&mut self, words: String) -> Next {
        self.told.clone_from(&words);
        Next::Stalled(words)
    }
}

impl FrameSource for WebcamSource {
    fn describe(&self) -> String {
        self.description.clone()
    }

    fn is_live(&self) -> bool {
        true
    }

    fn next(&mut self) -> Result<Next> {
        let deadline = Instant::now() + PATIENCE;
        let mut undecodable = None;
        loop {
            let mut state = self.shared.lock();
            let words = loop {
                if state.newest.is_some() {
                    break None;
                }
                let late = Instant::now() >= deadline;
                match &state.condition {
                    Condition::Failed(words) => return Err(anyhow!(words.clone())),
                    Condition::Waiting(words) if late || *words != self.told => break Some(words.clone()),
                    Condition::Opening if late => {
                        break Some(format!("webcam {} does not answer; try to unplug it", self.index));
                    }
                    Condition::Streaming(_) if late => {
                        let secs = self.silent_since.elapsed().as_secs_f32();
                        break Some(format!("no frame for {secs:.1} s from webcam {}", self.index));
                    }
                    _ => state = self.shared.wait(state, deadline),
                }
            };
            if let Condition::Streaming(description) = &state.condition {
                self.description.clone_from(description);
            }
            let arrived = state.newest.take();
            drop(state);
            let Some(Arrived { raw, index, at }) = arrived else {
                let words = undecodable.or(words).unwrap_or_default();
                return Ok(self.stalled(words));
            };
            match decode(raw.pixels, raw.width, raw.height, &raw.data) {
                Ok(rgb) => {
                    self.silent_since = Instant::now();
                    self.told.clear();
                    return Ok(Next::Frame(Frame { rgb, index, captured_at: at, name: None, truth: None }));
                }
                // A frame torn on the cable; the next one is usually whole.
                Err(error) => {
                    log::debug!("webcam {}: frame {index} cannot be read: {error:#}", self.index);
                    let words = format!("webcam {} sends frames that cannot be read: {error:#}", self.index);
                    if Instant::now() >= deadline {
                        return Ok(self.stalled(words));
                    }
                    undecodable = Some(words);
                }
            }
        }
    }
}

impl Drop for WebcamSource {
    fn drop(&mut self) {
        let deadline = Instant::now() + FAREWELL;
        let mut state = self.shared.lock();
        state.stopped = true;
        self.shared.changed.notify_all();
        while !state.finished && Instant::now() < deadline {
            state = self.shared.wait(state, deadline);
        }
        let finished = state.finished;
        drop(state);
        if let (true, Some(thread)) = (finished, self.thread.take()) {
            let _ = thread.join();
        } else {
            log::warn!(
                "webcam {} blocks; its thread is left behind and keeps the camera until the driver returns",
                self.index
            );
        }
    }
}

impl Shared {
    /// A panic elsewhere leaves a plain value behind: the lock is taken all the same.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>, deadline: Instant) -> MutexGuard<'a, State> {
        let rest = deadline.saturating_duration_since(Instant::now());
        self.changed.wait_timeout(state, rest).unwrap_or_else(PoisonError::into_inner).0
    }

    fn set(&self, condition: Condition) {
        self.lock().condition = condition;
        self.changed.notify_all();
    }

    fn stopped(&self) -> bool {
        self.lock().stopped
    }

    /// The camera's thread: opens, reads until there is trouble, and opens again, until it is stopped.
    fn run(&self, index: u32, mut driver: impl Driver) {
        let opened_at = Instant::now();
        let mut frames = 0;
        let mut was_open = false;
        while !self.stopped() {
            // nokhwa panics where a driver refuses to stop streaming.
            let session =
                catch_unwind(AssertUnwindSafe(|| self.session(&mut driver, opened_at, &mut frames, &mut was_open)));
            let trouble = match session {
                Ok(Ok(())) => break,
                Ok(Err(trouble)) => trouble,
                Err(_) => Trouble::new(Kind::Other, "the camera's driver failed"),
            };
            log::debug!("webcam {index}: {trouble:?}");
            let words = match trouble.kind {
                Kind::Busy => format!("webcam {index} is in use by another program; waiting for it"),
                _ if !was_open => {
                    self.set(Condition::Failed(trouble.words));
                    break;
                }
                Kind::Gone => "the camera was unplugged; waiting for it".to_owned(),
                Kind::Denied | Kind::Other => format!("webcam {index} failed, trying again: {}", trouble.words),
            };
            self.set(Condition::Waiting(words));
            let deadline = Instant::now() + RETRY;
            let mut state = self.lock();
            while !state.stopped && Instant::now() < deadline {
                state = self.wait(state, deadline);
            }
        }
        self.lock().finished = true;
        self.changed.notify_all();
    }

    /// Reads one opening of the camera to its end; `Ok` when stopped.
    fn session(
        &self,
        driver: &mut impl Driver,
        opened_at: Instant,
        frames: &mut u64,
        was_open: &mut bool,
    ) -> Result<(), Trouble> {
        let mut stream = driver.open()?;
        let mut streaming = false;
        loop {
            let raw = stream.frame()?;
            let arrived = Arrived { raw, index: *frames, at: opened_at.elapsed() };
            *frames += 1;
            let mut state = self.lock();
            if state.stopped {
                return Ok(());
            }
            if !streaming {
                state.condition = Condition::Streaming(stream.describe());
                (streaming, *was_open) = (true, true);
            }
            state.newest = Some(arrived);
            drop(state);
            self.changed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// A camera that does what a test tells it; it blocks while it is told nothing.
    struct Scripted {
        script: Arc<Mutex<Receiver<Step>>>,
    }

    enum Step {
        Opens,
        Refuses(Kind),
        /// A grey frame of this value.
        Frame(u8),
        /// Bytes that are no picture.
        Rubbish,
        Breaks(Kind),
        Panics,
    }

    impl Scripted {
        fn new() -> (Self, Sender<Step>) {
            let (tell, script) = channel();
            (Self { script: Arc::new(Mutex::new(script)) }, tell)
        }

        fn step(&self) -> Step {
            // The test is over: nothing more comes.
            self.script.lock().unwrap().recv().unwrap_or(Step::Breaks(Kind::Gone))
        }
    }

    impl Driver for Scripted {
        type Stream = Self;
        fn open(&mut self) -> Result<Self, Trouble> {
            match self.step() {
                Step::Opens => Ok(Self { script: Arc::clone(&self.script) }),
                Step::Refuses(kind) | Step::Breaks(kind) => Err(Trouble::new(kind, "refused")),
                _ => panic!("the script has a frame where the camera is opened"),
            }
        }
    }

    impl CameraStream for Scripted {
        fn describe(&self) -> String {
            "scripted".to_owned()
        }
        fn frame(&mut self) -> Result<RawFrame, Trouble> {
            let raw = |data| Ok(RawFrame { pixels: PixelFormat::Gray, width: 2, height: 1, data });
            match self.step() {
                Step::Frame(value) => raw(vec![value; 2]),
                Step::Rubbish => raw(vec![0]),
                Step::Panics => panic!("as nokhwa does (this message is part of a test)"),
                Step::Breaks(kind) | Step::Refuses(kind) => Err(Trouble::new(kind, "broke")),
                Step::Opens => panic!("the script opens an open camera"),
            }
        }
    }

    fn start(steps: impl IntoIterator<Item = Step>) -> (Result<WebcamSource>, Sender<Step>) {
        let (driver, tell) = Scripted::new();
        steps.into_iter().for_each(|step| tell.send(step).unwrap());
        (WebcamSource::start(7, driver), tell)
    }

    fn frame(source: &mut WebcamSource) -> Frame {
        match source.next().unwrap() {
            Next::Frame(frame) => frame,
            other => panic!("{other:?} instead of a frame"),
        }
    }

    fn stalled(source: &mut WebcamSource) -> String {
        match source.next().unwrap() {
            Next::Stalled(words) => words,
            other => panic!("{other:?} instead of a stall"),
        }
    }

    #[test]
    fn the_newest_frame_wins_and_dropped_ones_are_counted() {
        let (source, tell) = start([Step::Opens, Step::Frame(10)]);
        let mut source = source.unwrap();
        assert_eq!(source.describe(), "scripted");
        let first = frame(&mut source);
        assert_eq!((first.index, first.rgb.get_pixel(0, 0).0), (0, [10; 3]));
        for value in [20, 30, 40] {
            tell.send(Step::Frame(value)).unwrap();
        }
        // Until the thread has read all three.
        while source.shared.lock().newest.as_ref().is_none_or(|newest| newest.index < 3) {
            std::thread::sleep(Duration::from_millis(1));
        }
        let newest = frame(&mut source);
        assert_eq!((newest.index, newest.rgb.get_pixel(1, 0).0), (3, [40; 3]));
        assert!(newest.captured_at >= first.captured_at);
    }

    #[test]
    fn a_silent_camera_stalls_once_a_second_and_recovers() {
        let (source, tell) = start([Step::Opens, Step::Frame(1)]);
        let mut source = source.unwrap();
        frame(&mut source);
        let asked = Instant::now();
        let silence = |words: String| words["no frame for ".len()..].split(' ').next().unwrap().parse::<f32>().unwrap();
        let first = silence(stalled(&mut source));
        // Not for ever; the upper bound leaves room for a busy machine.
        assert!((PATIENCE..PATIENCE * 5).contains(&asked.elapsed()), "{:?}", asked.elapsed());
        assert!(first >= 1.0 && silence(stalled(&mut source)) >= first + 0.9);
        tell.send(Step::Frame(2)).unwrap();
        assert_eq!(frame(&mut source).index, 1);
    }

    #[test]
    fn an_unplugged_camera_is_said_at_once_and_comes_back() {
        let (source, tell) = start([Step::Opens, Step::Frame(1)]);
        let mut source = source.unwrap();
        frame(&mut source);
        let asked = Instant::now();
        tell.send(Step::Breaks(Kind::Gone)).unwrap();
        assert_eq!(stalled(&mut source), "the camera was unplugged; waiting for it");
        assert!(asked.elapsed() < PATIENCE);
        tell.send(Step::Refuses(Kind::Gone)).unwrap();
        tell.send(Step::Refuses(Kind::Busy)).unwrap();
        let busy = loop {
            let words = stalled(&mut source);
            if !words.contains("unplugged") {
                break words;
            }
        };
        assert_eq!(busy, "webcam 7 is in use by another program; waiting for it");
        tell.send(Step::Opens).unwrap();
        tell.send(Step::Frame(2)).unwrap();
        let again = loop {
            if let Next::Frame(frame) = source.next().unwrap() {
                break frame;
            }
        };
        assert_eq!(again.index, 1);
    }

    #[test]
    fn a_busy_camera_is_waited_for_but_a_missing_one_is_an_error() {
        let (source, tell) = start([Step::Refuses(Kind::Busy)]);
        let mut source = source.unwrap();
        assert!(stalled(&mut source).contains("in use by another program"));
        tell.send(Step::Opens).unwrap();
        tell.send(Step::Frame(1)).unwrap();
        while !matches!(source.next().unwrap(), Next::Frame(_)) {}
        assert_eq!(source.describe(), "scripted");
        for kind in [Kind::Gone, Kind::Denied, Kind::Other] {
            let (source, _tell) = start([Step::Refuses(kind)]);
            assert_eq!(source.err().map(|error| error.to_string()), Some("refused".to_owned()));
        }
    }

    #[test]
    fn broken_frames_and_a_panicking_driver_are_survived() {
        let (source, tell) = start([Step::Opens, Step::Rubbish]);
        let mut source = source.unwrap();
        assert!(stalled(&mut source).contains("cannot be read: the camera sent 1 bytes"));
        tell.send(Step::Frame(1)).unwrap();
        assert_eq!(frame(&mut source).index, 1);
        tell.send(Step::Panics).unwrap();
        assert!(stalled(&mut source).contains("driver failed"));
        tell.send(Step::Opens).unwrap();
        tell.send(Step::Frame(2)).unwrap();
        while !matches!(source.next().unwrap(), Next::Frame(frame) if frame.index == 2) {}
    }

    #[test]
    fn dropping_ends_the_thread_and_does_not_wait_for_one_that_blocks() {
        let (source, tell) = start([Step::Opens, Step::Frame(1)]);
        let shared = Arc::clone(&source.as_ref().unwrap().shared);
        let dropped = Instant::now();
        drop(source);
        assert!((FAREWELL..FAREWELL * 3).contains(&dropped.elapsed()), "it is blocked in `frame`");
        assert!(!shared.lock().finished);
        // The driver returns: the thread that was left behind ends.
        tell.send(Step::Frame(2)).unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        while !shared.lock().finished {
            assert!(Instant::now() < deadline, "the thread goes on");
            std::thread::sleep(Duration::from_millis(1));
        }
        // One that waits for its camera ends at once.
        let (source, _tell) = start([Step::Refuses(Kind::Busy)]);
        let dropped = Instant::now();
        drop(source);
        assert!(dropped.elapsed() < FAREWELL);
    }
}
