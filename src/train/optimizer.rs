//! Adam (Kingma and Ba 2015) as one pass over the flat parameters, and the step schedule of the papers.

use rayon::prelude::*;

use super::params::Params;

/// Decay of the mean of the gradients.
pub(super) const BETA_1: f32 = 0.9;
/// Decay of the mean of their squares.
pub(super) const BETA_2: f32 = 0.999;
/// Added to the root of the latter.
pub(super) const EPSILON: f32 = 1e-8;
/// Parameters that a thread takes at a time.
const PART: usize = 1 << 16;

/// Its state.
#[derive(Clone, Debug, PartialEq)]
pub struct Adam {
    /// Mean of the gradients.
    pub(super) mean: Vec<f32>,
    /// Mean of their squares.
    pub(super) square: Vec<f32>,
    /// Steps taken.
    pub(super) steps: u64,
}

impl Adam {
    /// Before the first step.
    pub fn new(params: &Params) -> Self {
        let zeros = vec![0.0; params.values().len()];
        Self { mean: zeros.clone(), square: zeros, steps: 0 }
    }

    /// Steps taken.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Moves the parameters against their gradients, and sets those to 0. What has no gradient, as running
    /// statistics, stays. The result does not depend on the number of threads.
    pub fn step(&mut self, params: &Params, learning_rate: f64) {
        self.steps += 1;
        let [rate, square_factor] = step_rates(self.steps, learning_rate);
        let (mut values, mut gradients) = (params.values_mut(), params.gradients_mut());
        let state = self.mean.par_chunks_mut(PART).zip(self.square.par_chunks_mut(PART));
        let all = values.par_chunks_mut(PART).zip(gradients.par_chunks_mut(PART)).zip(state);
        all.for_each(|((values, gradients), (mean, square))| {
            for (((value, gradient), m), v) in values.iter_mut().zip(gradients).zip(mean).zip(square) {
                let g = std::mem::take(gradient);
                *m += (1.0 - BETA_1) * (g - *m);
                *v += (1.0 - BETA_2) * (g * g - *v);
                *value -= rate * *m / ((*v * square_factor).sqrt() + EPSILON);
            }
        });
    }
}

/// What the mean is multiplied with in a step, counted from 1, and what the mean of squares:
/// `rate * (m / c1) / (sqrt(v / c2) + eps)` with the corrections of their beginning at 0.
pub(super) fn step_rates(step: u64, learning_rate: f64) -> [f32; 2] {
    let correction = |beta: f32| 1.0 - f64::from(beta).powf(step as f64);
    [(learning_rate / correction(BETA_1)) as f32, (1.0 / correction(BETA_2)) as f32]
}

/// A learning rate that falls at certain steps.
#[derive(Clone, Debug, PartialEq)]
pub struct StepSchedule {
    /// At first.
    pub learning_rate: f64,
    /// From each of these steps on, the rate is divided by [`Self::divisor`] once more.
    pub drops: Vec<u64>,
    /// 10 in the release.
    pub divisor: f64,
}

impl StepSchedule {
    /// The release's: 1e-4, divided by 10 after 10/13 and after 12/13 of all steps.
    pub fn release(steps: u64) -> Self {
        Self { learning_rate: 1e-4, drops: vec![steps * 10 / 13, steps * 12 / 13], divisor: 10.0 }
    }

    /// The rate for a step, counted from 0.
    pub fn at(&self, step: u64) -> f64 {
        let drops = self.drops.iter().filter(|drop| step >= **drop).count();
        self.learning_rate / self.divisor.powf(drops as f64)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Result, Var};

    use super::*;
    use crate::train::params::Start;

    #[test]
    fn steps_are_those_of_candles_adam() -> Result<()> {
        use candle_nn::{AdamW, Optimizer, ParamsAdamW};
        let (params, id) = Params::build(1, |b| b.add("p", &[1000], Start::Normal(1.0)));
        let plain = Var::from_tensor(&params.tensor(id)?)?;
        let config = ParamsAdamW { lr: 1e-2, weight_decay: 0.0, ..ParamsAdamW::default() };
        let (mut adam, mut candles) = (Adam::new(&params), AdamW::new(vec![plain.clone()], config)?);
        for _ in 0..20 {
            let loss = |x: &candle_core::Tensor| (x - 0.3)?.sqr()?.sum_all();
            params.backward(&loss(&params.var(id)?)?)?;
            adam.step(&params, 1e-2);
            candles.backward_step(&loss(&plain)?)?;
        }
        let deviation = (params.tensor(id)? - plain.as_tensor())?.abs()?.max_all()?.to_scalar::<f32>()?;
        // Twenty steps of 0.01 with a rounding error of some 1e-7 each.
        assert!(deviation < 1e-5, "{deviation}");
        assert!(params.gradients().iter().all(|g| *g == 0.0), "the next step begins without gradients");
        Ok(())
    }

    #[test]
    fn the_releases_schedule_falls_twice() {
        let schedule = StepSchedule::release(13);
        let rates = [0, 9, 10, 11, 12].map(|step| schedule.at(step));
        for (rate, expected) in rates.iter().zip([1e-4, 1e-4, 1e-5, 1e-5, 1e-6]) {
            assert!((rate / expected - 1.0).abs() < 1e-12, "{rates:?}");
        }
    }
}
