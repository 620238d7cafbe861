//! Parameters, their gradients and Adam's state in a device's memory: one array each. Every parameter begins where
//! libraries like to read, so the arrays have gaps, of zeros; what crosses to the processor has none.

use std::ops::Range;
use std::sync::Arc;

use candle_core::{Result, Tensor};

use super::kernels::{self, AdamAt};
use super::machine::{Machine, Memory, tensor, with_lent};
use crate::nets::cuda::kernels::Ptr;
use crate::train::optimizer::{Adam, step_rates};
use crate::train::params::ParamId;

/// Parameters begin at multiples of so many numbers (256 bytes).
const ALIGNMENT: usize = 64;

/// Parameters on a device.
pub struct Resident {
    machine: Arc<dyn Machine>,
    /// Where each parameter is on the processor, and where it begins here.
    places: Vec<(Range<usize>, usize)>,
    values: Memory,
    gradients: Memory,
}

impl Resident {
    /// Takes values there that lie in `ranges` on the processor. Gradients are 0.
    pub fn new(machine: Arc<dyn Machine>, ranges: impl Iterator<Item = Range<usize>>, values: &[f32]) -> Result<Self> {
        let mut len = 0;
        let places = ranges.map(|range| {
            let start = len;
            len += range.len().next_multiple_of(ALIGNMENT);
            (range, start)
        });
        let places: Vec<_> = places.collect();
        let gradients = machine.upload(&vec![0.0; len])?;
        let values = machine.upload(&spread(&places, len, values))?;
        Ok(Self { machine, places, values, gradients })
    }

    /// Where they are.
    pub fn machine(&self) -> &Arc<dyn Machine> {
        &self.machine
    }

    /// Where a parameter's values and gradients begin.
    pub fn places(&self, id: ParamId) -> [Ptr; 2] {
        let start = self.places[id.index()].1 * size_of::<f32>();
        [&self.values, &self.gradients].map(|memory| memory.at.offset(start))
    }

    /// A copy of a parameter as a tensor of this shape.
    pub fn tensor(&self, id: ParamId, shape: &[usize]) -> Result<Tensor> {
        let (range, start) = &self.places[id.index()];
        let copy = self.machine.copy(&self.values, *start..start + range.len())?;
        tensor(&*self.machine, copy, shape)
    }

    /// Adds to a parameter's gradient.
    pub fn add_gradient(&self, id: ParamId, gradient: &Tensor) -> Result<()> {
        let [_, into] = self.places(id);
        with_lent(&*self.machine, &[gradient], |at| kernels::add(&*self.machine, at[0], into, gradient.elem_count()))
    }

    /// The values as they lie on the processor.
    pub fn values(&self) -> Result<Vec<f32>> {
        self.gathered(&self.values)
    }

    /// The gradients as they lie on the processor.
    pub fn gradients(&self) -> Result<Vec<f32>> {
        self.gathered(&self.gradients)
    }

    fn gathered(&self, memory: &Memory) -> Result<Vec<f32>> {
        let there = self.machine.download(memory)?;
        Ok(self.places.iter().flat_map(|(range, start)| &there[*start..start + range.len()]).copied().collect())
    }
}

/// With gaps.
fn spread(places: &[(Range<usize>, usize)], len: usize, values: &[f32]) -> Vec<f32> {
    let mut there = vec![0.0; len];
    for (range, start) in places {
        there[*start..start + range.len()].copy_from_slice(&values[range.clone()]);
    }
    there
}

/// Adam's state beside [`Resident`] parameters.
pub struct ResidentAdam {
    mean: Memory,
    square: Memory,
    /// Scratch memory for the squares of the gradient.
    parts: Memory,
    /// Factor of the gradient; whether one was no number.
    state: Memory,
}

impl ResidentAdam {
    /// As it is on the processor.
    pub fn new(params: &Resident, adam: &Adam) -> Result<Self> {
        let (machine, len) = (&*params.machine, params.values.len);
        let upload = |state: &[f32]| machine.upload(&spread(&params.places, len, state));
        Ok(Self {
            mean: upload(&adam.mean)?,
            square: upload(&adam.square)?,
            parts: machine.take(kernels::square_parts(len))?,
            state: machine.upload(&[1.0, 0.0])?,
        })
    }

    /// The step after `steps` others: moves the parameters against their gradients, of which no more than `longest` is
    /// followed, and sets these to 0. Does nothing any more after a gradient that was no number.
    pub fn step(&self, params: &Resident, steps: u64, learning_rate: f64, longest: f64) -> Result<()> {
        let (on, len) = (&*params.machine, params.values.len);
        let (values, gradients) = (params.values.at, params.gradients.at);
        kernels::shorten_gradient(on, gradients, self.parts.at, self.state.at, len, longest as f32)?;
        let at = AdamAt { values, gradients, mean: self.mean.at, square: self.square.at, state: self.state.at };
        kernels::adam(on, at, step_rates(steps + 1, learning_rate), len)
    }

    /// Whether all gradients so far were numbers.
    pub fn is_sound(&self, params: &Resident) -> Result<bool> {
        Ok(params.machine.download(&self.state)?[1] == 0.0)
    }

    /// Writes the state to the processor's.
    pub fn fetch(&self, params: &Resident, adam: &mut Adam) -> Result<()> {
        adam.mean = params.gathered(&self.mean)?;
        adam.square = params.gathered(&self.square)?;
        Ok(())
    }
}
