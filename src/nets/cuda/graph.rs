//! A network's work as one CUDA graph for each shape of its input: recorded once, after it has run, and then started as
//! a whole. Where that fails the network goes on kernel by kernel, and the log says so.

// A graph may be used by one thread at a time, whichever; it lives behind a lock.
#![allow(unsafe_code)]

use std::collections::HashMap;
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use candle_core::cuda_backend::cudarc::driver::{CudaGraph, sys};
use candle_core::{Error, Result, bail};

use super::gpu::{Gpu, Pool, Replays, lock};
use crate::nets::Lap;
use crate::nets::meter::Work;

/// Runs until no memory is asked for any more; two are enough where sizes repeat.
const MOST_WARM_UPS: usize = 6;

/// The graphs of one network. `I` is what its work reads, `T` what it makes; both hold memory that a graph knows.
pub struct Graphs<K, I, T> {
    gpu: Arc<Gpu>,
    entries: Mutex<HashMap<K, Entry<I, T>>>,
}

struct Entry<I, T> {
    /// Before `pool`, so that their memory returns to it first.
    state: State<T>,
    input: I,
    pool: Arc<Pool>,
    replays: Replays,
    /// What one run does.
    work: Work,
}

enum State<T> {
    /// Has not run.
    Fresh,
    /// Has run once: shapes are known, kernels are loaded.
    Warm,
    /// Is started as a whole.
    Recorded(Graph, T),
    /// Could not be recorded.
    Eager,
}

struct Graph(CudaGraph);

// SAFETY: the driver lets a graph move between threads as long as one at a time uses it, and the lock sees to that.
unsafe impl Send for Graph {}

impl<K: Eq + Hash + Debug, I, T> Graphs<K, I, T> {
    /// No graph yet.
    pub fn new(gpu: Arc<Gpu>) -> Self {
        Self { gpu, entries: Mutex::default() }
    }

    /// The device.
    pub fn gpu(&self) -> &Arc<Gpu> {
        &self.gpu
    }

    /// Does the work of a shape. `prepare` takes the memory of the input when the shape is new, `fill` writes it, `body`
    /// is the work (the same kernels at every call), `take` fetches what it made and is told which replay that is.
    pub fn run<R>(
        &self,
        key: K,
        prepare: impl FnOnce(&Arc<Gpu>) -> Result<I>,
        fill: impl FnOnce(&Arc<Gpu>, &I) -> Result<()>,
        body: impl Fn(&I, &mut Lap<'_>) -> Result<T>,
        take: impl FnOnce(&T, &Replays) -> Result<R>,
        lap: &mut Lap<'_>,
    ) -> Result<R> {
        let gpu = &self.gpu;
        let _turn = gpu.turn();
        let mut entries = lock(&self.entries);
        let what = format!("{key:?}");
        let entry = match entries.entry(key) {
            std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::hash_map::Entry::Vacant(entry) => entry.insert(Entry {
                state: State::Fresh,
                input: prepare(gpu)?,
                pool: gpu.new_pool(),
                replays: Replays::default(),
                work: Work::default(),
            }),
        };
        fill(gpu, &entry.input)?;
        let taking = gpu.taking_from(&entry.pool);
        if matches!(entry.state, State::Warm) && gpu.graphs() {
            entry.state = match record(gpu, &entry.pool, || body(&entry.input, &mut |_| Ok(()))) {
                Ok((graph, made)) => {
                    gpu.note_graph(|used| used.recorded += 1);
                    State::Recorded(graph, made)
                }
                Err(error) => {
                    gpu.note_graph(|used| used.failed += 1);
                    log::warn!("{what}: no graph ({error}); it runs kernel by kernel");
                    State::Eager
                }
            };
        }
        entry.replays.next();
        match &entry.state {
            State::Recorded(graph, made) if gpu.graphs() => {
                let started = || graph.0.launch().map_err(Error::wrap);
                gpu.marked(|| format!("graph of {what}"), started)?;
                gpu.note_graph(|used| used.replayed += 1);
                gpu.count(entry.work.multiply_adds as usize, entry.work.bytes as usize);
                lap("network, as one graph")?;
                drop(taking);
                take(made, &entry.replays)
            }
            _ => {
                gpu.note_graph(|used| used.eager += 1);
                let before = gpu.work();
                let made = body(&entry.input, lap)?;
                entry.work = gpu.work().since(before);
                drop(taking);
                if matches!(entry.state, State::Fresh) {
                    entry.state = State::Warm;
                }
                take(&made, &entry.replays)
            }
        }
    }
}

/// Records work that has run before. Memory that it takes while it is recorded has to be there already.
fn record<T>(gpu: &Gpu, pool: &Pool, body: impl Fn() -> Result<T>) -> Result<(Graph, T)> {
    for _ in 0..MOST_WARM_UPS {
        let before = pool.allocations.load(Ordering::Relaxed);
        drop(body()?);
        if pool.allocations.load(Ordering::Relaxed) == before {
            break;
        }
    }
    gpu.synchronize()?;
    let stream = gpu.stream();
    // What other threads do meanwhile on other streams (weights on their way) does not matter to the capture.
    stream.begin_capture(sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED).map_err(Error::wrap)?;
    gpu.set_capturing(true);
    let made = body();
    gpu.set_capturing(false);
    // The stream leaves the capture whatever became of the work.
    let graph = stream.end_capture(sys::CUgraphInstantiate_flags(0));
    if made.is_err() || graph.is_err() {
        // An error that the driver kept for the next call would be told in the wrong place.
        let _ = gpu.context().check_err();
    }
    let made = made?;
    let Some(graph) = graph.map_err(Error::wrap)? else { bail!("the driver gave an empty graph") };
    graph.upload().map_err(Error::wrap)?;
    Ok((Graph(graph), made))
}
