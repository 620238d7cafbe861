//! Where a network learns: on the processor's threads or on a GPU. Files, samples and their order are the same.

use std::fmt;
#[cfg(any(feature = "cudnn", test))]
use std::sync::Arc;

use anyhow::{Result, bail, ensure};

#[cfg(any(feature = "cudnn", test))]
use super::gpu::{GpuLearner, Machine};
use super::optimizer::Adam;
use super::params::Params;
use super::task::Task;
use super::workers::{Named, Workers, add};
use crate::nets::Precision;
use crate::settings::Backend;

/// Largest length of the gradient, as a vector of all parameters: a single strange batch must not ruin the weights.
const LONGEST_GRADIENT: f64 = 10.0;

/// Where to learn.
#[derive(Clone)]
pub enum Place {
    /// On so many threads, each of which has a part of the batch.
    Threads(usize),
    /// On a device.
    #[cfg(any(feature = "cudnn", test))]
    Gpu(Arc<dyn Machine>),
}

impl Place {
    /// What the user asked for; `threads` are those of the processor.
    pub fn new(backend: Backend, precision: Precision, threads: usize) -> Result<Self> {
        match backend {
            Backend::Cuda => gpu(precision),
            Backend::Metal => bail!("training runs on the processor and on NVIDIA GPUs, not on Metal: --backend cpu"),
            Backend::Auto if cfg!(feature = "cudnn") => Ok(gpu(precision).unwrap_or_else(|error| {
                log::warn!("{error:#}; the network learns on the processor");
                Self::Threads(threads)
            })),
            Backend::Auto | Backend::Cpu => Ok(Self::Threads(threads)),
        }
    }

    /// Refuses batches that are too small.
    pub(super) fn check(&self, batch: usize) -> Result<()> {
        match *self {
            Self::Threads(threads) => {
                ensure!(threads > 0 && batch >= 2 * threads, "each thread needs two samples of a batch");
            }
            #[cfg(any(feature = "cudnn", test))]
            Self::Gpu(_) => ensure!(batch >= 2, "a batch has at least two samples"),
        }
        Ok(())
    }
}

#[cfg(feature = "cudnn")]
fn gpu(precision: Precision) -> Result<Place> {
    use anyhow::Context;
    Ok(Place::Gpu(super::gpu::Cuda::open(0, precision).context("no CUDA device can be used")?))
}

#[cfg(not(feature = "cudnn"))]
fn gpu(_: Precision) -> Result<Place> {
    bail!("this build cannot train on a GPU: build it with `--features cudnn`")
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Threads(threads) => write!(f, "{threads} threads"),
            #[cfg(any(feature = "cudnn", test))]
            Self::Gpu(machine) => f.write_str(&machine.name()),
        }
    }
}

/// A network that learns.
pub(super) enum Learner {
    Threads {
        workers: Workers,
        losses: Named,
        is_sound: bool,
    },
    #[cfg(any(feature = "cudnn", test))]
    Gpu(GpuLearner),
}

impl Learner {
    /// With parameters and an optimiser as they are now.
    pub fn new(place: &Place, params: &Params, adam: &Adam) -> Result<Self> {
        match place {
            Place::Threads(threads) => {
                let _ = adam; // It stays where it is.
                let workers = Workers::new(params, *threads)?;
                Ok(Self::Threads { workers, losses: Named::new(), is_sound: true })
            }
            #[cfg(any(feature = "cudnn", test))]
            Place::Gpu(machine) => Ok(Self::Gpu(GpuLearner::new(Arc::clone(machine), params, adam)?)),
        }
    }

    /// Whether [`Self::take_losses`] costs nothing. A GPU would have to be waited for.
    pub fn tells_at_once(&self) -> bool {
        matches!(self, Self::Threads { .. })
    }

    /// Learns from a batch. Where a gradient is no number, nothing is learnt from then on.
    pub fn step<T: Task>(
        &mut self,
        task: &T,
        params: &Params,
        adam: &mut Adam,
        batch: &[T::Sample],
        learning_rate: f64,
    ) -> Result<()> {
        match self {
            Self::Threads { workers, losses, is_sound } => {
                let loss = workers.step(task, params, batch)?;
                *is_sound &= clip(params).is_finite() && loss.iter().all(|(_, value)| value.is_finite());
                add(losses, &loss);
                if *is_sound {
                    adam.step(params, learning_rate);
                }
                Ok(())
            }
            #[cfg(any(feature = "cudnn", test))]
            Self::Gpu(learner) => learner.step(task, adam, batch, learning_rate, LONGEST_GRADIENT),
        }
    }

    /// Sums of the loss and its parts over the steps since this was last asked, and whether all were numbers.
    #[allow(clippy::unnecessary_wraps)] // On a GPU it can fail.
    pub fn take_losses(&mut self) -> Result<(Named, bool)> {
        match self {
            Self::Threads { losses, is_sound, .. } => Ok((std::mem::take(losses), *is_sound)),
            #[cfg(any(feature = "cudnn", test))]
            Self::Gpu(learner) => {
                let (losses, is_sound) = learner.take_losses()?;
                let is_sound = is_sound && losses.iter().all(|(_, value)| value.is_finite());
                Ok((losses, is_sound))
            }
        }
    }

    /// Mean errors on samples.
    pub fn errors<T: Task>(&self, task: &T, params: &Params, samples: &[T::Sample]) -> Result<Named> {
        match self {
            Self::Threads { workers, .. } => workers.errors(task, params, samples),
            #[cfg(any(feature = "cudnn", test))]
            Self::Gpu(learner) => learner.errors(task, samples),
        }
    }

    /// Brings what was learnt into `params` and `adam`, to be saved.
    #[allow(clippy::unnecessary_wraps)] // On a GPU it can fail.
    pub fn fetch(&self, params: &Params, adam: &mut Adam) -> Result<()> {
        match self {
            Self::Threads { .. } => {
                let _ = (params, adam); // It is there.
                Ok(())
            }
            #[cfg(any(feature = "cudnn", test))]
            Self::Gpu(learner) => learner.fetch(params, adam),
        }
    }
}

/// Shortens a gradient that is too long; gives its length.
fn clip(params: &Params) -> f64 {
    let mut gradients = params.gradients_mut();
    let length = gradients.iter().map(|g| f64::from(*g) * f64::from(*g)).sum::<f64>().sqrt();
    if length > LONGEST_GRADIENT {
        let scale = (LONGEST_GRADIENT / length) as f32;
        gradients.iter_mut().for_each(|g| *g *= scale);
    }
    length
}
