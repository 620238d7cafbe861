//! Pictures to be examined, made or read on a thread of their own while the networks look at earlier ones.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use rayon::prelude::*;

use crate::capture::{Frame, FrameSource, Next};
use crate::synth::dataset::{Order, picture_seed};
use crate::synth::{Photo, Studio};

/// Pictures that wait to be examined, at most; and pictures that are made at once.
const WAITING: usize = 8;

/// A stream of pictures with their truth.
pub struct Pictures {
    receiver: Receiver<Result<Frame>>,
    maker: Option<JoinHandle<()>>,
    /// How many will come, where that is known.
    pub count: Option<u64>,
}

impl Pictures {
    /// The very pictures that `lixelscope synth` would write, in the same order.
    pub fn synthetic(order: Order) -> Result<Self> {
        let studio = Studio::of(order.kind.family())?;
        Self::start(Some(order.count), move |send| {
            let at_once = rayon::current_num_threads().clamp(1, WAITING) as u64;
            let mut first = 0;
            while first < order.count {
                let numbers = first..order.count.min(first + at_once);
                first = numbers.end;
                let made: Vec<_> = numbers.into_par_iter().map(|number| made(&studio, &order, number)).collect();
                if !made.into_iter().all(&mut *send) {
                    return;
                }
            }
        })
    }

    /// The pictures of a source that ends, at most so many. Those that cannot be read are told in the log, and skipped.
    pub fn of_source(mut source: Box<dyn FrameSource>, most: Option<u64>) -> Result<Self> {
        let count = source.frame_count().into_iter().chain(most).min();
        Self::start(count, move |send| {
            let mut sent = 0;
            while most.is_none_or(|most| sent < most) {
                let goes_on = match source.next() {
                    Ok(Next::Frame(frame)) => {
                        sent += 1;
                        send(Ok(frame))
                    }
                    // It has said so in the log.
                    Ok(Next::Stalled(_)) => true,
                    Ok(Next::Ended(why)) => {
                        log::info!("{why}");
                        return;
                    }
                    Err(error) => {
                        send(Err(error));
                        return;
                    }
                };
                if !goes_on {
                    return;
                }
            }
        })
    }

    /// `make` hands pictures over until it has no more, or is told that nobody wants them any more.
    fn start(
        count: Option<u64>,
        make: impl FnOnce(&mut dyn FnMut(Result<Frame>) -> bool) + Send + 'static,
    ) -> Result<Self> {
        let (sender, receiver) = sync_channel(WAITING);
        let maker = std::thread::Builder::new()
            .name("pictures".into())
            .spawn(move || make(&mut |frame| sender.send(frame).is_ok()))
            .context("cannot start a thread")?;
        Ok(Self { receiver, maker: Some(maker), count })
    }
}

impl Iterator for Pictures {
    type Item = Result<Frame>;

    fn next(&mut self) -> Option<Result<Frame>> {
        if let Ok(frame) = self.receiver.recv() {
            return Some(frame);
        }
        // The thread is done, well or not; after that there is nothing more to say.
        let died = self.maker.take()?.join().is_err();
        died.then(|| Err(anyhow!("the thread that makes the pictures has died")))
    }
}

fn made(studio: &Arc<Studio>, order: &Order, number: u64) -> Result<Frame> {
    let seed = picture_seed(order.seed, number);
    let Photo { rgb, truth } = studio.sample(order.kind, seed, order.size)?;
    Ok(Frame { rgb, index: number, captured_at: Duration::ZERO, name: None, truth: Some(Arc::new(truth)) })
}
