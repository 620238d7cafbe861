//! The thread "capture": reads a source at its own pace into the newest-wins slot.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use anyhow::Result;

use super::inbox::{Incoming, Message, Shared, lock};
use super::live::OpenSource;
use crate::capture::{Next, SourceKind};
use crate::settings::SourceSpec;

/// Reads a source until it ends, fails or is cancelled. Says why it ended.
pub(super) fn read_source(
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
    let kind = source.kind();
    shared.post(Message::SourceOpened { generation, description: source.describe(), kind });
    let live = source.is_live();
    let interval = source.frame_interval();
    let can_skip = source.can_skip();
    let droppable = kind == SourceKind::Motion && interval.is_some() && !can_skip;
    let mut due = Instant::now();
    let mut asked = Instant::now();
    let mut stalled = false;
    loop {
        if !live {
            // Pictures wait until the last one was taken, and so do frames that are made; a video does so while it is
            // held.
            let mut inbox = lock(&shared.inbox);
            while !inbox.stop && inbox.generation == generation && inbox.frame.is_some() && (!droppable || inbox.paused)
            {
                inbox = shared.taken.wait(inbox).unwrap_or_else(PoisonError::into_inner);
            }
            if inbox.stop || inbox.generation != generation {
                return Ok(String::new());
            }
            if inbox.paused {
                due = Instant::now();
            }
            if let Some(interval) = interval.filter(|interval| can_skip && !interval.is_zero()) {
                // What is shown goes on at its own speed.
                let late = Instant::now().saturating_duration_since(due).as_nanos() / interval.as_nanos();
                let late = u32::try_from(late).unwrap_or(u32::MAX);
                due += interval * late;
                source.skip(u64::from(late));
                inbox.frames_dropped += u64::from(late);
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
