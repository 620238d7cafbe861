//! The default path: synthetic people, frame by frame, through all stages, as the window and `run` do it. Only here
//! real weights are needed (nobody is followed whom random ones would have to find): those that the program would use.
//! Making the frames is not timed, drawing is not done.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde::Serialize;

use super::{Row, TOTAL, memory, quantile};
use crate::capture::{Frame, FrameSource, Next, SourceKind};
use crate::models::Weights;
use crate::nets::meter::{self, Work};
use crate::pipeline::stages::Pass;
use crate::pipeline::{Stages, infer};
use crate::result::Stage;
use crate::settings::Settings;
use crate::synth::{Kind, SyntheticSource};

/// Its name among the networks.
pub(super) const NAME: &str = "default_path";

/// Films that are looked through for one of a single person; every third is one.
const FILMS: u64 = 100;
/// Frames before the first that is timed.
const WARM_UP: u32 = 8;

/// Figures of the default path.
#[derive(Clone, Debug, Serialize)]
pub struct DefaultPath {
    /// Timed frames, 640x480, of a scene with one person.
    pub frames: u32,
    /// Frames a second that the networks keep up with; the detector looks at every fourth.
    pub fps: f64,
    /// People who were found, on average of all frames: 1 where the figures are those of the default path.
    pub people: f64,
    /// From nothing to the first mesh: loading and one frame.
    pub first_mesh_ms: f64,
    /// Most memory that the process held; `None` where the system does not tell.
    pub peak_resident_mib: Option<f64>,
    /// Threads of the kernels on the CPU.
    pub threads: usize,
    /// Whose weights.
    pub weights: Vec<Weights>,
}

impl fmt::Display for DefaultPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { frames, fps, people, first_mesh_ms, peak_resident_mib, weights, .. } = self;
        write!(f, "{NAME:15} {fps:.1} frames a second, {people:.2} people in each of {frames}, first mesh after ")?;
        write!(f, "{first_mesh_ms:.0} ms{}", memory::in_words(*peak_resident_mib))?;
        weights.iter().try_for_each(|Weights { role, origin }| write!(f, "; {}: {origin}", role.name()))
    }
}

/// The networks that the program would run with, loaded as it loads them.
pub(super) fn load(settings: &Settings) -> Result<Stages> {
    let mut stages = Stages::new(settings.clone());
    let mut missing = None;
    infer::load(settings, infer::Wanted::All, &mut |progress| {
        let infer::Progress::Loaded(part) = progress else { return };
        match part {
            infer::Part::Detector(_, _, detector) => stages.detector = Some(detector),
            infer::Part::Root(_, root) => stages.root = Some(root),
            infer::Part::Estimator { estimator, body, .. } => {
                stages.estimator = Some(estimator);
                stages.body = body;
            }
            infer::Part::Missing(_, why) => missing = missing.take().or(Some(why)),
            infer::Part::Backend(_) => {}
        }
    });
    if let Some(why) = missing {
        bail!("{why}");
    }
    stages.begin(SourceKind::Motion);
    Ok(stages)
}

/// Times so many frames with the device and the models of these settings. Rows are milliseconds a frame.
pub(super) fn measure(settings: &Settings, frames: u32) -> Result<(DefaultPath, Vec<Row>)> {
    let (mut source, first) = film()?;
    memory::reset_peak();
    let started = Instant::now();
    let mut stages = load(&Settings { max_people: 1, ..settings.clone() })?;
    stages.process(first, Pass::Next)?;
    let first_mesh_ms = started.elapsed().as_secs_f64() * 1e3;

    for _ in 1..WARM_UP {
        stages.process(next(&mut source)?, Pass::Next)?;
    }
    let (device, _) = infer::device(settings.backend, settings.precision)?;
    let counted = meter::work(&device);
    let mut times_ms = vec![Vec::new(); Stage::ALL.len()];
    let mut found = 0;
    for _ in 0..frames {
        let frame = next(&mut source)?;
        let started = Instant::now();
        let result = stages.process(frame, Pass::Next)?;
        // The capture's place is that of the whole frame.
        times_ms[0].push(started.elapsed().as_secs_f64() * 1e3);
        for (times, stage) in times_ms.iter_mut().zip(Stage::ALL).skip(1) {
            times.push(f64::from(result.timing.ms(stage)));
        }
        found += result.people.len();
    }
    let work = meter::work(&device).since(counted);
    let total_ms: f64 = times_ms.first().context("no stage")?.iter().sum();
    let figures = DefaultPath {
        frames,
        fps: f64::from(frames) * 1e3 / total_ms,
        people: found as f64 / f64::from(frames),
        first_mesh_ms,
        peak_resident_mib: memory::peak_mib(),
        threads: rayon::current_num_threads(),
        weights: stages.weights(),
    };
    // The whole comes last.
    times_ms.rotate_left(1);
    let names = Stage::ALL.iter().skip(1).map(|stage| stage.name()).chain([TOTAL]);
    let row = |(stage, mut times_ms): (&'static str, Vec<f64>)| {
        times_ms.sort_by(f64::total_cmp);
        let [best_ms, median_ms, p95_ms] = [0.0, 0.5, 0.95].map(|q| quantile(&times_ms, q));
        Row {
            network: NAME,
            threads: rayon::current_num_threads(),
            batch: 1,
            stage,
            best_ms,
            median_ms,
            p95_ms,
            // Stages are not told apart; the detector works on every fourth frame.
            gflops: (stage == TOTAL && work.multiply_adds > 0)
                .then(|| 2.0 * work.multiply_adds as f64 / total_ms / 1e6),
            peak_share: None,
            floor: None,
            fps: None,
            work: Work::default(),
        }
    };
    Ok((figures, names.zip(times_ms).map(row).collect()))
}

/// The first film that shows one person, and its first frame.
fn film() -> Result<(SyntheticSource, Arc<Frame>)> {
    for seed in 0..FILMS {
        let mut source = SyntheticSource::open(Kind::Scenes, seed)?;
        let frame = next(&mut source)?;
        if frame.truth.as_ref().is_some_and(|truth| truth.people.len() == 1) {
            return Ok((source, frame));
        }
    }
    bail!("no film of a single person among {FILMS}")
}

fn next(source: &mut SyntheticSource) -> Result<Arc<Frame>> {
    match source.next()? {
        Next::Frame(frame) => Ok(Arc::new(frame)),
        Next::Stalled(why) | Next::Ended(why) => bail!("the synthetic source: {why}"),
    }
}
