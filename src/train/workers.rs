//! Threads that learn. Each has a replica of the parameters and a part of the batch, and does everything alone: they
//! meet once a step.

use std::sync::Arc;
use std::thread;

use anyhow::{Context, Result};

use super::layers::Pass;
use super::params::Params;
use super::task::Task;
use crate::pipeline::guarded;

/// Names and values.
pub type Named = Vec<(&'static str, f64)>;

/// Samples of which a thread tells the errors at a time.
const ERRORS_AT_A_TIME: usize = 16;

/// See the module.
pub struct Workers {
    pools: Vec<rayon::ThreadPool>,
    replicas: Vec<Arc<Params>>,
}

impl Workers {
    /// Threads for a network with these parameters.
    pub fn new(params: &Params, threads: usize) -> Result<Self> {
        let pool =
            |i| rayon::ThreadPoolBuilder::new().num_threads(1).thread_name(move |_| format!("learner {i}")).build();
        let pools = (0..threads).map(pool).collect::<Result<_, _>>().context("no thread to learn on")?;
        Ok(Self { pools, replicas: (0..threads).map(|_| Arc::new(params.replica())).collect() })
    }

    /// Runs `work` for each part of a batch on a thread of its own, with the parameters as they are now. Parts differ
    /// by one sample at most.
    fn each<S: Sync, R: Send>(
        &self,
        params: &Params,
        batch: &[S],
        is_training: bool,
        work: impl Fn(&Pass, &[&S]) -> Result<R> + Sync,
    ) -> Result<Vec<R>> {
        let threads = self.pools.len();
        let part = |i: usize| &batch[batch.len() * i / threads..batch.len() * (i + 1) / threads];
        let run = |i: usize| {
            let replica = &self.replicas[i];
            replica.values_mut().copy_from_slice(&params.values());
            let pass = Pass { params: Arc::clone(replica), is_training };
            work(&pass, &part(i).iter().collect::<Vec<_>>())
        };
        thread::scope(|scope| {
            let started: Vec<_> = (0..threads)
                .filter(|&i| !part(i).is_empty())
                .map(|i| {
                    let run = &run;
                    let learn = move || guarded("learning", || self.pools[i].install(|| run(i)));
                    thread::Builder::new().name(format!("step {i}")).spawn_scoped(scope, learn)
                })
                .collect();
            let done = started.into_iter().map(|thread| {
                let thread = thread.context("no thread to learn on")?;
                // A panic has become an error on the thread itself.
                thread.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a thread that learns has ended")))
            });
            // All of them, so that none is left to the scope.
            done.collect::<Vec<_>>().into_iter().collect()
        })
    }

    /// Gradients of a batch; the loss and its parts.
    pub fn step<T: Task>(&self, task: &T, params: &Params, batch: &[T::Sample]) -> Result<Named> {
        let losses = self.each(params, batch, true, |pass, batch| {
            let loss = task.loss(pass, batch)?;
            pass.params.backward(&loss.total)?;
            let total = ("loss", f64::from(loss.total.to_scalar::<f32>()?));
            let parts = loss.parts.iter().map(|(name, value)| Ok((*name, f64::from(value.to_scalar::<f32>()?))));
            std::iter::once(Ok(total)).chain(parts).collect::<Result<Named>>()
        })?;
        params.gather(&self.replicas);
        let mut means = Vec::new();
        for loss in &losses {
            add(&mut means, loss);
        }
        for mean in &mut means {
            mean.1 /= losses.len() as f64;
        }
        Ok(means)
    }

    /// Mean errors on samples.
    pub fn errors<T: Task>(&self, task: &T, params: &Params, samples: &[T::Sample]) -> Result<Named> {
        let mut sums = ErrorSums::default();
        for batch in samples.chunks(ERRORS_AT_A_TIME * self.pools.len()) {
            let errors = self.each(params, batch, false, |pass, batch| task.errors(pass, batch))?;
            for errors in errors {
                sums.add(errors);
            }
        }
        Ok(sums.means())
    }
}

/// Sums of errors and how many they are of.
#[derive(Default)]
pub struct ErrorSums(Vec<(&'static str, f64, usize)>);

impl ErrorSums {
    /// Those of more samples.
    pub fn add(&mut self, errors: Vec<(&'static str, f64, usize)>) {
        if self.0.is_empty() {
            self.0 = errors;
        } else {
            self.0.iter_mut().zip(errors).for_each(|(sum, one)| (sum.1, sum.2) = (sum.1 + one.1, sum.2 + one.2));
        }
    }

    /// Of all.
    pub fn means(self) -> Named {
        self.0.into_iter().map(|(name, sum, count)| (name, sum / count.max(1) as f64)).collect()
    }
}

/// Adds values to those of the same names.
pub fn add(sums: &mut Named, values: &Named) {
    if sums.is_empty() {
        sums.extend(values);
    } else {
        sums.iter_mut().zip(values).for_each(|(sum, part)| sum.1 += part.1);
    }
}
