//! A training from its first step to its last: samples, steps on several threads, checkpoints, curves.
//!
//! Each thread has a replica of the parameters and a part of the batch, and does everything alone: they meet once a
//! step. So the result depends on the number of threads, and on nothing else of the machine but its arithmetic.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::checkpoint;
use super::feed::{Feed, VALIDATION};
use super::layers::Pass;
use super::optimizer::{Adam, StepSchedule};
use super::params::Params;
use super::task::Task;

/// How to train.
#[derive(Clone, Debug)]
pub struct Options {
    /// Folder of the checkpoint, the weights and the curves; what is there goes on.
    pub out: PathBuf,
    /// Samples from the first step to the last, those before an interruption included.
    pub samples: u64,
    /// Samples of a step.
    pub batch: usize,
    /// Threads that learn.
    pub threads: usize,
    /// Threads that make samples.
    pub makers: usize,
    /// Learning rate at first; it falls as the release's does.
    pub learning_rate: f64,
    /// What the order of the samples follows from.
    pub seed: u64,
    /// Between checkpoints.
    pub checkpoint_every: Duration,
}

/// Steps over which the learning rate rises from 0.
const WARM_UP: u64 = 300;
/// Steps between two points of the curves.
const CURVE_STEPS: u64 = 50;
/// Validation blocks.
const VALIDATION_BLOCKS: u64 = 16;
/// Largest length of the gradient, as a vector of all parameters: a single strange batch must not ruin the weights.
const LONGEST_GRADIENT: f64 = 10.0;

/// Where training is.
#[derive(Clone, Debug)]
pub struct Progress {
    /// Samples seen.
    pub samples: u64,
    /// Samples a second, of late.
    pub per_sec: f64,
    /// Means of the loss and its parts, of late.
    pub loss: Vec<(&'static str, f64)>,
    /// Errors on samples that are never learnt from, when they have just been measured.
    pub errors: Vec<(&'static str, f64)>,
}

/// Files of a training.
pub struct Files {
    /// Everything that is needed to go on.
    pub checkpoint: PathBuf,
    /// The same before the learning rate first fell: where a longer training goes on from.
    pub plateau: PathBuf,
    /// The weights alone, as the inference networks read them.
    pub weights: PathBuf,
    /// Loss and errors by samples.
    pub curves: PathBuf,
}

impl Files {
    /// In a folder.
    pub fn of(out: &Path) -> Self {
        let file = |name| out.join(name);
        Self {
            checkpoint: file("checkpoint.safetensors"),
            plateau: file("plateau.safetensors"),
            weights: file("weights.safetensors"),
            curves: file("curves.csv"),
        }
    }
}

/// Trains until all samples have been seen; goes on where an earlier run in the same folder stopped.
pub fn run<T: Task>(
    task: T,
    params: Params,
    options: &Options,
    tell: &mut dyn FnMut(&Progress),
) -> Result<()> {
    ensure!(options.threads > 0 && options.batch >= 2 * options.threads, "each thread needs two samples of a batch");
    fs::create_dir_all(&options.out).with_context(|| format!("cannot make the folder {}", options.out.display()))?;
    let files = Files::of(&options.out);
    let (mut adam, mut samples) = if files.checkpoint.is_file() {
        checkpoint::resume(&params, &files.checkpoint)?
    } else {
        (Adam::new(&params), 0)
    };
    let task = Arc::new(task);
    let params = Arc::new(params);
    let workers = Workers::new(&params, options.threads)?;
    let schedule = {
        let release = StepSchedule::release(options.samples / options.batch as u64);
        StepSchedule { learning_rate: options.learning_rate, ..release }
    };
    let validation: Vec<T::Sample> = {
        let blocks = (0..VALIDATION_BLOCKS).map(|i| task.block(VALIDATION + i));
        blocks.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect()
    };
    let mut feed = Feed::start(&task, options.seed, samples, options.makers)?;
    let mut curves = Curves::open(&files.curves)?;
    let (mut saved, mut since, mut since_samples) = (Instant::now(), Instant::now(), samples);
    let mut sums: Vec<(&'static str, f64)> = Vec::new();
    let mut on_plateau = schedule.at(adam.steps()) == schedule.learning_rate;
    while samples < options.samples {
        let batch = feed.take(options.batch)?;
        let loss = workers.step(&*task, &params, &batch)?;
        clip(&params);
        let step = adam.steps();
        adam.step(&params, schedule.at(step) * ((step + 1) as f64 / WARM_UP as f64).min(1.0));
        samples += batch.len() as u64;
        add(&mut sums, &loss);

        let done = samples >= options.samples;
        if adam.steps().is_multiple_of(CURVE_STEPS) || done {
            let steps = sums.first().map_or(1.0, |_| ((samples - since_samples) / options.batch as u64).max(1) as f64);
            let mut progress = Progress {
                samples,
                per_sec: (samples - since_samples) as f64 / since.elapsed().as_secs_f64(),
                loss: sums.drain(..).map(|(name, sum)| (name, sum / steps)).collect(),
                errors: Vec::new(),
            };
            if saved.elapsed() >= options.checkpoint_every || done {
                checkpoint::save(&params, &adam, samples, &files.checkpoint)?;
                checkpoint::save_weights(&params, &task.config_json(), &files.weights)?;
                progress.errors = workers.errors(&*task, &params, &validation)?;
                saved = Instant::now();
            }
            if on_plateau && schedule.at(adam.steps()) < schedule.learning_rate {
                on_plateau = false;
                checkpoint::save(&params, &adam, samples, &files.plateau)?;
            }
            curves.add(&progress)?;
            tell(&progress);
            (since, since_samples) = (Instant::now(), samples);
        }
    }
    Ok(())
}

fn add(sums: &mut Vec<(&'static str, f64)>, loss: &[(&'static str, f64)]) {
    if sums.is_empty() {
        sums.extend(loss);
    } else {
        sums.iter_mut().zip(loss).for_each(|(sum, part)| sum.1 += part.1);
    }
}

fn clip(params: &Params) {
    let mut gradients = params.gradients_mut();
    let length = gradients.iter().map(|g| f64::from(*g) * f64::from(*g)).sum::<f64>().sqrt();
    if length > LONGEST_GRADIENT {
        let scale = (LONGEST_GRADIENT / length) as f32;
        gradients.iter_mut().for_each(|g| *g *= scale);
    }
}

/// Threads with a replica of the parameters each.
struct Workers {
    pools: Vec<rayon::ThreadPool>,
    replicas: Vec<Arc<Params>>,
}

impl Workers {
    fn new(params: &Params, threads: usize) -> Result<Self> {
        let pool = |i| rayon::ThreadPoolBuilder::new().num_threads(1).thread_name(move |_| format!("learner {i}")).build();
        let pools = (0..threads).map(pool).collect::<Result<_, _>>().context("no thread to learn on")?;
        Ok(Self { pools, replicas: (0..threads).map(|_| Arc::new(params.replica())).collect() })
    }

    /// Runs `work` for each part of a batch on a thread of its own, with the parameters as they are now.
    fn each<S: Send + Sync, R: Send>(
        &self,
        params: &Params,
        batch: &[S],
        is_training: bool,
        work: impl Fn(&Pass, &[&S]) -> Result<R> + Sync,
    ) -> Result<Vec<R>> {
        let part = batch.len().div_ceil(self.pools.len());
        let mut results: Vec<Option<Result<R>>> = Vec::new();
        results.resize_with(self.pools.len(), || None);
        std::thread::scope(|scope| {
            for (((pool, replica), batch), result) in
                self.pools.iter().zip(&self.replicas).zip(batch.chunks(part)).zip(&mut results)
            {
                let work = &work;
                scope.spawn(move || {
                    *result = Some(pool.install(|| {
                        replica.values_mut().copy_from_slice(&params.values());
                        let pass = Pass { params: Arc::clone(replica), is_training };
                        work(&pass, &batch.iter().collect::<Vec<_>>())
                    }));
                });
            }
        });
        results.into_iter().flatten().collect()
    }

    /// Gradients of a batch; the loss and its parts.
    fn step<T: Task>(&self, task: &T, params: &Params, batch: &[T::Sample]) -> Result<Vec<(&'static str, f64)>> {
        let losses = self.each(params, batch, true, |pass, batch| {
            let loss = task.loss(pass, batch)?;
            pass.params.backward(&loss.total)?;
            let total = ("loss", f64::from(loss.total.to_scalar::<f32>()?));
            let parts = loss.parts.into_iter().map(|(name, value)| (name, f64::from(value)));
            Ok(std::iter::once(total).chain(parts).collect::<Vec<_>>())
        })?;
        params.gather(&self.replicas);
        let mut sums = Vec::new();
        losses.iter().for_each(|loss| add(&mut sums, loss));
        sums.iter_mut().for_each(|sum| sum.1 /= losses.len() as f64);
        Ok(sums)
    }

    /// Mean errors on samples.
    fn errors<T: Task>(&self, task: &T, params: &Params, samples: &[T::Sample]) -> Result<Vec<(&'static str, f64)>> {
        let mut sums: Vec<(&'static str, f64, usize)> = Vec::new();
        for batch in samples.chunks(16 * self.pools.len()) {
            for errors in self.each(params, batch, false, |pass, batch| task.errors(pass, batch))? {
                if sums.is_empty() {
                    sums = errors;
                } else {
                    sums.iter_mut().zip(errors).for_each(|(sum, one)| (sum.1, sum.2) = (sum.1 + one.1, sum.2 + one.2));
                }
            }
        }
        Ok(sums.into_iter().map(|(name, sum, count)| (name, sum / count.max(1) as f64)).collect())
    }
}

/// The curves as a table of comma-separated values: samples, name, value.
struct Curves(fs::File);

impl Curves {
    fn open(path: &Path) -> Result<Self> {
        let is_new = !path.exists();
        let open = || fs::OpenOptions::new().create(true).append(true).open(path);
        let mut file = open().with_context(|| format!("cannot write {}", path.display()))?;
        if is_new {
            writeln!(file, "samples,name,value")?;
        }
        Ok(Self(file))
    }

    fn add(&mut self, progress: &Progress) -> Result<()> {
        let mut text = String::new();
        for (name, value) in progress.loss.iter().chain(&progress.errors).chain([&("samples_per_sec", progress.per_sec)]) {
            text += &format!("{},{name},{value:.6}\n", progress.samples);
        }
        self.0.write_all(text.as_bytes()).context("cannot write the curves")
    }
}
