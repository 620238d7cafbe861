//! A training from its first step to its last: samples, steps on several threads or on a GPU, checkpoints, curves.
//!
//! The result depends on the number of threads, and on nothing else of the machine but its arithmetic. Every file is
//! whole at any moment, so whoever ends the program loses what came after the last checkpoint, and nothing more.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rayon::prelude::*;

use super::checkpoint::{self, Terms};
use super::curves::Curves;
use super::feed::{Feed, VALIDATION};
use super::learner::Learner;
pub use super::learner::Place;
use super::optimizer::{Adam, StepSchedule};
use super::params::Params;
use super::task::Task;
use super::workers::{Named, add};
use crate::pipeline::guarded;

/// How to train.
#[derive(Clone)]
pub struct Options {
    /// Folder of the checkpoint, the weights and the curves; what is there goes on.
    pub out: PathBuf,
    /// Samples from the first step to the last, those before an interruption included.
    pub samples: u64,
    /// Samples of a step.
    pub batch: usize,
    /// Where the network learns.
    pub place: Place,
    /// Threads that make samples.
    pub makers: usize,
    /// Learning rate at first; it falls as the release's does.
    pub learning_rate: f64,
    /// What the order of the samples follows from.
    pub seed: u64,
    /// Between checkpoints.
    pub checkpoint_every: Duration,
}

/// Steps over which the learning rate rises from 0, or a tenth of all.
const WARM_UP: u64 = 300;
/// Steps between two points of the curves.
const CURVE_STEPS: u64 = 50;
/// Validation blocks.
pub const VALIDATION_BLOCKS: u64 = 16;

/// Where training is.
#[derive(Clone, Debug)]
pub struct Progress {
    /// Samples seen.
    pub samples: u64,
    /// Samples a second, of late.
    pub per_sec: f64,
    /// Means of the loss and its parts, of late; none before the first step.
    pub loss: Named,
    /// Errors on samples that are never learnt from, when they have just been measured.
    pub errors: Named,
}

/// Files of a training.
pub struct Files {
    /// Everything that is needed to go on.
    pub checkpoint: PathBuf,
    /// The weights alone, as the inference networks read them.
    pub weights: PathBuf,
    /// Loss and errors by samples.
    pub curves: PathBuf,
    /// The same to look at.
    pub picture: PathBuf,
}

impl Files {
    /// In a folder.
    pub fn of(out: &Path) -> Self {
        let file = |name| out.join(name);
        Self {
            checkpoint: file("checkpoint.safetensors"),
            weights: file("weights.safetensors"),
            curves: file("curves.csv"),
            picture: file("curves.png"),
        }
    }
}

/// Trains until all samples have been seen; goes on where an earlier run in the same folder stopped, wherever that
/// learnt. Tells where it is before the first step and then from time to time.
pub fn run<T: Task>(task: T, params: Params, options: &Options, tell: &mut dyn FnMut(&Progress)) -> Result<()> {
    options.place.check(options.batch)?;
    fs::create_dir_all(&options.out).with_context(|| format!("cannot make the folder {}", options.out.display()))?;
    let files = Files::of(&options.out);
    let terms = Terms { network: task.config_json(), learns: task.learns(), batch: options.batch, seed: options.seed };
    let (mut adam, mut samples) = if files.checkpoint.is_file() {
        checkpoint::resume(&params, &terms, &files.checkpoint)?
    } else {
        (Adam::new(&params), 0)
    };
    if samples >= options.samples {
        log::info!("{} has seen {samples} samples: done. Ask for more to go on.", options.out.display());
        return Ok(());
    }
    tell(&Progress { samples, per_sec: 0.0, loss: Vec::new(), errors: Vec::new() });
    let task = Arc::new(task);
    let mut learner = Learner::new(&options.place, &params, &adam)?;
    let schedule = {
        let release = StepSchedule::release(options.samples / options.batch as u64);
        StepSchedule { learning_rate: options.learning_rate, ..release }
    };
    let warm_up = WARM_UP.min(options.samples / options.batch as u64 / 10).max(1) as f64;
    let validation: Vec<T::Sample> = {
        let block = |number| guarded("making samples", || task.block(number));
        let blocks = (VALIDATION..VALIDATION + VALIDATION_BLOCKS).into_par_iter().map(block);
        blocks.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect()
    };
    let mut feed = Feed::start(&task, options.seed, samples, options.makers)?;
    let mut curves = Curves::open(&files.curves, samples)?;
    let (mut saved, mut since, mut since_samples) = (Instant::now(), Instant::now(), samples);
    let mut sums = Named::new();
    while samples < options.samples {
        let batch = feed.take(options.batch)?;
        let step = adam.steps();
        let rate = schedule.at(step) * ((step + 1) as f64 / warm_up).min(1.0);
        learner.step(&*task, &params, &mut adam, &batch, rate)?;
        let done = samples + batch.len() as u64 >= options.samples;
        let is_point = adam.steps().is_multiple_of(CURVE_STEPS) || done;
        if learner.tells_at_once() || is_point {
            let (loss, is_sound) = learner.take_losses()?;
            ensure!(
                is_sound,
                "the loss is no number any more after {samples} samples ({}): a smaller --rate may help. What was \
                 learnt up to the last checkpoint is in {}",
                loss.iter().map(|(name, value)| format!("{name} {value}")).collect::<Vec<_>>().join(", "),
                options.out.display()
            );
            add(&mut sums, &loss);
        }
        samples += batch.len() as u64;
        if is_point {
            let steps = ((samples - since_samples) / options.batch as u64).max(1) as f64;
            let mut progress = Progress {
                samples,
                per_sec: (samples - since_samples) as f64 / since.elapsed().as_secs_f64(),
                loss: sums.drain(..).map(|(name, sum)| (name, sum / steps)).collect(),
                errors: Vec::new(),
            };
            let is_time = saved.elapsed() >= options.checkpoint_every || done;
            if is_time {
                progress.errors = learner.errors(&*task, &params, &validation)?;
            }
            curves.add(samples, values(&progress))?;
            if is_time {
                learner.fetch(&params, &mut adam)?;
                task.save_weights(&params, &files.weights)?;
                checkpoint::save(&params, &adam, samples, &terms, &files.checkpoint)?;
                saved = Instant::now();
                if let Err(error) = curves.draw(&files.picture) {
                    log::warn!("{error:#}");
                }
            }
            tell(&progress);
            (since, since_samples) = (Instant::now(), samples);
        }
    }
    Ok(())
}

/// What the curves are made of.
fn values(progress: &Progress) -> impl Iterator<Item = (&'static str, f64)> {
    let per_sec = ("samples_per_sec", progress.per_sec);
    progress.loss.iter().chain(&progress.errors).copied().chain([per_sec])
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use anyhow::bail;
    use candle_core::{Device, Tensor};

    use super::*;
    use crate::nets::layers::Activation;
    use crate::synth::random::Random;
    use crate::train::layers::{Conv, Norm, Pass};
    use crate::train::ops::to_planar;
    use crate::train::params::Start;
    use crate::train::task::Loss;

    /// Sums of three numbers out of sixteen, by a network of two layers; and what goes wrong.
    struct Sums {
        first: Conv,
        norm: Norm,
        last: Conv,
        calls: AtomicU64,
        trouble: Trouble,
    }

    #[derive(Clone, Copy)]
    enum Trouble {
        None,
        /// From this call of the loss on.
        Fails(u64),
        Panics(u64),
        NoNumber(u64),
        BlockPanics,
    }

    /// Sixteen numbers and the sum of three.
    type Sum = ([f32; 16], f32);

    impl Sums {
        fn new(trouble: Trouble) -> (Self, Params) {
            let (params, (first, norm, last)) = Params::build(3, |b| {
                let first = Conv::pointwise(16, 16, 4, Start::he(16), &mut b.pp("first"));
                (first, Norm::new(16, &mut b.pp("norm")), Conv::head(16, 1, 4, &mut b.pp("last")))
            });
            (Self { first, norm, last, calls: AtomicU64::new(0), trouble }, params)
        }

        fn off(&self, pass: &Pass, batch: &[&Sum]) -> Result<Tensor> {
            let numbers: Vec<f32> = batch.iter().flat_map(|sum| sum.0).collect();
            let sums: Vec<f32> = batch.iter().map(|sum| sum.1).collect();
            let numbers = Tensor::from_vec(numbers, (batch.len(), 16, 1, 1), &Device::Cpu)?;
            let x = self.first.forward(pass, &pass.blocks(&pass.image(&numbers)?)?)?;
            let x = self.norm.forward(pass, &x, None, Activation::Relu)?;
            let found = to_planar(&self.last.forward(pass, &x)?, 1)?.flatten_all()?;
            Ok((found - Tensor::from_vec(sums, batch.len(), &Device::Cpu)?)?.abs()?.mean_all()?)
        }
    }

    impl Task for Sums {
        type Sample = Sum;

        fn block(&self, number: u64) -> Result<Vec<Sum>> {
            assert!(!matches!(self.trouble, Trouble::BlockPanics if number < VALIDATION), "a strange scene");
            let mut random = Random::fork(number, 1);
            let mut sum = || {
                let numbers: [f32; 16] = std::array::from_fn(|_| random.normal());
                (numbers, numbers[2] + numbers[3] - numbers[11])
            };
            Ok((0..3).map(|_| sum()).collect())
        }

        fn loss(&self, pass: &Pass, batch: &[&Sum]) -> Result<Loss> {
            let call = self.calls.fetch_add(1, Ordering::Relaxed);
            let off = self.off(pass, batch)?;
            let total = match self.trouble {
                Trouble::Fails(at) if call >= at => bail!("enough"),
                Trouble::Panics(at) if call >= at => panic!("a strange picture"),
                Trouble::NoNumber(at) if call >= at => (off * f64::NAN)?,
                _ => off,
            };
            Ok(Loss { parts: vec![("half", (&total / 2.0)?)], total })
        }

        fn errors(&self, pass: &Pass, batch: &[&Sum]) -> Result<Vec<(&'static str, f64, usize)>> {
            let off: f32 = self.off(pass, batch)?.to_scalar()?;
            Ok(vec![("off_mm", f64::from(off) * batch.len() as f64, batch.len())])
        }

        fn learns(&self) -> String {
            "sums".to_owned()
        }

        fn config_json(&self) -> String {
            "{}".to_owned()
        }
    }

    fn options(out: &Path, threads: usize, steps: u64) -> Options {
        Options {
            out: out.to_owned(),
            samples: steps * 4,
            batch: 4,
            place: Place::Threads(threads),
            makers: 2,
            learning_rate: 0.02,
            seed: 5,
            checkpoint_every: Duration::ZERO,
        }
    }

    /// Runs `trouble`; what was told.
    fn train(trouble: Trouble, options: &Options) -> (Result<()>, Vec<Progress>) {
        let mut told = Vec::new();
        let (task, params) = Sums::new(trouble);
        (run(task, params, options, &mut |progress| told.push(progress.clone())), told)
    }

    /// The table without what the machine's speed decides.
    fn curves(files: &Files) -> Result<Vec<String>> {
        let text = fs::read_to_string(&files.curves)?;
        Ok(text.lines().filter(|line| !line.contains("samples_per_sec")).map(str::to_owned).collect())
    }

    #[test]
    fn a_training_that_was_interrupted_twice_ends_with_the_same_bits() -> Result<()> {
        for threads in [1, 2] {
            let [whole, broken] = [tempfile::tempdir()?, tempfile::tempdir()?];
            let (result, told) = train(Trouble::None, &options(whole.path(), threads, 170));
            result?;
            let errors: Vec<f64> = told.iter().flat_map(|p| &p.errors).map(|(_, error)| *error).collect();
            assert_eq!(errors.len(), 4, "at 50, 100, 150 and 170 steps");
            assert!(errors[3] < 0.9 * errors[0], "it learns: {errors:?}");

            let calls = threads as u64;
            for trouble in [Trouble::Fails(30 * calls), Trouble::Fails(70 * calls), Trouble::Panics(60 * calls)] {
                assert!(train(trouble, &options(broken.path(), threads, 170)).0.is_err());
            }
            let (result, told) = train(Trouble::None, &options(broken.path(), threads, 170));
            result?;
            assert_eq!(told[0].samples, 400, "from the last checkpoint on");
            let [whole, broken] = [&whole, &broken].map(|folder| Files::of(folder.path()));
            assert!(fs::read(&whole.checkpoint)? == fs::read(&broken.checkpoint)?, "other weights, {threads} threads");
            assert_eq!(curves(&whole)?, curves(&broken)?);
            assert!(image::open(&broken.picture).is_ok());
        }
        Ok(())
    }

    #[test]
    fn a_training_goes_on_elsewhere() -> Result<()> {
        let [whole, moved] = [tempfile::tempdir()?, tempfile::tempdir()?];
        train(Trouble::None, &options(whole.path(), 1, 60)).0?;
        assert!(train(Trouble::Fails(52), &options(moved.path(), 1, 60)).0.is_err());
        // Kernels on the processor in the place of a GPU.
        let there = Place::Gpu(crate::train::gpu::host_machine());
        let (result, told) = train(Trouble::None, &Options { place: there.clone(), ..options(moved.path(), 1, 60) });
        result?;
        assert_eq!(told[0].samples, 200, "from the last checkpoint on");
        let read = |folder: &Path| {
            let (params, terms) = (
                Sums::new(Trouble::None).1,
                Terms { network: "{}".to_owned(), learns: "sums".to_owned(), batch: 4, seed: 5 },
            );
            let (adam, samples) = checkpoint::resume(&params, &terms, &Files::of(folder).checkpoint)?;
            assert_eq!((adam.steps(), samples), (60, 240));
            let values = params.values().clone();
            Ok::<_, anyhow::Error>([values, adam.mean, adam.square])
        };
        for (ours, expected) in read(moved.path())?.iter().zip(read(whole.path())?) {
            let greatest = expected.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
            let off = ours.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            // Ten steps of a hundredth, whose gradients are rounded otherwise; a number that is 0 but for rounding may
            // go either way.
            assert!(off < 1e-3 * greatest.max(1.0), "{off} of {greatest}");
        }
        let [whole, moved] = [&whole, &moved].map(|folder| Files::of(folder.path()));
        let last = |files| Curves::open(files, u64::MAX - 1)?.last("off_mm").context("an error was measured");
        let (expected, error) = (last(&whole.curves)?, last(&moved.curves)?);
        assert!((error / expected - 1.0).abs() < 0.02, "{error} {expected}");

        // A gradient that is no number changes nothing, and is told when the loss is looked at.
        let trouble = Options { place: there, ..options(moved.checkpoint.parent().context("a folder")?, 1, 70) };
        let before = fs::read(&moved.checkpoint)?;
        let error = format!("{:#}", train(Trouble::NoNumber(3), &trouble).0.unwrap_err());
        assert!(error.contains("the loss is no number any more after 276 samples"), "{error}");
        assert!(before == fs::read(&moved.checkpoint)?);
        // And back.
        let (result, told) = train(Trouble::None, &options(moved.checkpoint.parent().context("a folder")?, 2, 70));
        result?;
        assert_eq!(told[0].samples, 240);
        Ok(())
    }

    #[test]
    fn what_goes_wrong_is_said_and_the_last_checkpoint_stays() -> Result<()> {
        for (trouble, steps, expected) in [
            (Trouble::Panics(60), 50, "a strange picture"),
            (Trouble::NoNumber(110), 100, "the loss is no number any more after 440 samples (loss NaN, half NaN)"),
            (Trouble::BlockPanics, 0, "a strange scene"),
        ] {
            let folder = tempfile::tempdir()?;
            let error = format!("{:#}", train(trouble, &options(folder.path(), 1, 170)).0.unwrap_err());
            assert!(error.contains(expected), "{error}");
            let terms = Terms { network: "{}".to_owned(), learns: "sums".to_owned(), batch: 4, seed: 5 };
            let checkpoint =
                checkpoint::resume(&Sums::new(Trouble::None).1, &terms, &Files::of(folder.path()).checkpoint);
            assert_eq!(checkpoint.map_or(0, |(adam, _)| adam.steps()), steps);
        }
        Ok(())
    }

    #[test]
    fn a_folder_goes_on_with_its_own_training_alone() -> Result<()> {
        let folder = tempfile::tempdir()?;
        train(Trouble::None, &options(folder.path(), 1, 50)).0?;
        let checkpoint = || fs::read(Files::of(folder.path()).checkpoint);
        let before = checkpoint()?;
        for other in [
            Options { batch: 8, ..options(folder.path(), 1, 100) },
            Options { seed: 6, ..options(folder.path(), 1, 100) },
        ] {
            assert!(train(Trouble::None, &other).0.is_err());
        }
        // It has seen all of these, and more.
        let (result, told) = train(Trouble::None, &options(folder.path(), 1, 20));
        assert!(result.is_ok() && told.is_empty());
        assert_eq!(before, checkpoint()?);
        // More samples, and another number of threads, are the same training.
        let (result, told) = train(Trouble::None, &options(folder.path(), 2, 60));
        result?;
        assert_eq!((told[0].samples, told[told.len() - 1].samples), (200, 240));
        Ok(())
    }
}
