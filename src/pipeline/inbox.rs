//! What the pipeline's threads share: messages, the newest frame, the newest result, the state.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};

use super::infer::Part;
use super::live::{Command, Status};
use crate::capture::{Frame, SourceKind};
use crate::result::FrameResult;

/// What reaches the thread "infer".
pub(super) enum Message {
    Command(Command),
    Loading { what: String, done: f32 },
    Loaded(Result<Part>),
    LoaderDone,
    SourceOpened { generation: u64, description: String, kind: SourceKind },
    SourceStalled { generation: u64, note: Option<String> },
    SourceClosed { generation: u64, why: Result<String> },
}

/// A frame, and the time that it took to come.
pub(super) struct Incoming {
    pub(super) frame: Arc<Frame>,
    pub(super) waited: Duration,
}

#[derive(Default)]
pub(super) struct Inbox {
    pub(super) messages: VecDeque<Message>,
    /// The newest frame that the stages have not taken.
    pub(super) frame: Option<Incoming>,
    pub(super) generation: u64,
    pub(super) frames_dropped: u64,
    pub(super) paused: bool,
    pub(super) stop: bool,
}

pub(super) struct Shared {
    pub(super) inbox: Mutex<Inbox>,
    /// Something is in the inbox.
    pub(super) arrived: Condvar,
    /// The frame was taken, or the generation or the pause changed.
    pub(super) taken: Condvar,
    pub(super) newest: Mutex<Option<Arc<FrameResult>>>,
    pub(super) status: Mutex<Status>,
    pub(super) wake: Box<dyn Fn() + Send + Sync>,
}

/// A poisoned lock means that a worker panicked while it held plain data; that data is still whole.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(super) fn post(&self, message: Message) {
        lock(&self.inbox).messages.push_back(message);
        self.arrived.notify_all();
    }
}

pub(super) fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .with_context(|| format!("the system gave no thread for \"{name}\""))
}

/// Runs `work`; a panic becomes an error, so that it is shown and the window stays alive.
pub(crate) fn guarded<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        Err(anyhow!("{what} broke down: {} (a defect of this program, please report it)", text.unwrap_or("no message")))
    })
}
