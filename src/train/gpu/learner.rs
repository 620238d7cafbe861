//! A network that learns on a device.

use std::sync::Arc;

use anyhow::{Context, Result};
use candle_core::Tensor;

use super::machine::Machine;
use super::resident::ResidentAdam;
use crate::pipeline::guarded;
use crate::train::layers::Pass;
use crate::train::optimizer::Adam;
use crate::train::params::Params;
use crate::train::task::Task;
use crate::train::workers::{ErrorSums, Named};

/// Samples whose errors are told at a time.
const ERRORS_AT_A_TIME: usize = 64;

/// See the module.
pub struct GpuLearner {
    params: Arc<Params>,
    adam: ResidentAdam,
    /// Names of the loss and its parts, and their sums since they were last taken.
    losses: Option<(Vec<&'static str>, Tensor)>,
}

impl GpuLearner {
    /// Takes a training to a device.
    pub fn new(machine: Arc<dyn Machine>, params: &Params, adam: &Adam) -> Result<Self> {
        let params = params.replica_on(machine)?;
        let adam = ResidentAdam::new(params.resident()?, adam)?;
        Ok(Self { params: Arc::new(params), adam, losses: None })
    }

    fn pass(&self, is_training: bool) -> Pass {
        Pass { params: Arc::clone(&self.params), is_training }
    }

    /// Asks the device for one step; `adam` counts it.
    pub fn step<T: Task>(
        &mut self,
        task: &T,
        adam: &mut Adam,
        batch: &[T::Sample],
        learning_rate: f64,
        longest: f64,
    ) -> Result<()> {
        let pass = self.pass(true);
        let loss = guarded("learning", || {
            let loss = task.loss(&pass, &batch.iter().collect::<Vec<_>>())?;
            self.params.backward(&loss.total)?;
            Ok(loss)
        })?;
        self.adam.step(self.params.resident()?, adam.steps, learning_rate, longest)?;
        adam.steps += 1;
        let (names, values): (Vec<_>, Vec<_>) =
            std::iter::once(("loss", loss.total)).chain(loss.parts).map(|(name, value)| (name, value.detach())).unzip();
        let values = Tensor::stack(&values, 0)?;
        self.losses = Some(match self.losses.take() {
            Some((names, sums)) => (names, (sums + values)?),
            None => (names, values),
        });
        Ok(())
    }

    /// Sums of the loss and its parts since this was last asked, and whether all gradients were numbers. Waits for the
    /// device.
    pub fn take_losses(&mut self) -> Result<(Named, bool)> {
        let (names, sums) = self.losses.take().context("no step was done")?;
        let sums = sums.to_vec1::<f32>()?.into_iter().map(f64::from);
        Ok((names.into_iter().zip(sums).collect(), self.adam.is_sound(self.params.resident()?)?))
    }

    /// Mean errors on samples.
    pub fn errors<T: Task>(&self, task: &T, samples: &[T::Sample]) -> Result<Named> {
        let (pass, mut sums) = (self.pass(false), ErrorSums::default());
        for batch in samples.chunks(ERRORS_AT_A_TIME) {
            sums.add(guarded("measuring", || task.errors(&pass, &batch.iter().collect::<Vec<_>>()))?);
        }
        Ok(sums.means())
    }

    /// Writes what was learnt to the processor's parameters and optimiser.
    pub fn fetch(&self, params: &Params, adam: &mut Adam) -> Result<()> {
        let resident = self.params.resident()?;
        *params.values_mut() = resident.values()?;
        Ok(self.adam.fetch(resident, adam)?)
    }
}
