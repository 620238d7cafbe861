//! Batch norm with a residual and ReLU.

use std::sync::{Arc, OnceLock};

use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor, bail};

use super::{blocked_dims, floats, with_floats};
use crate::nets::kernels::norm::{Blocks, NormForward, affine, norm_gradients, statistics};
use crate::nets::kernels::{Isa, LANES};
use crate::nets::layers::BN_EPS;
use crate::train::params::{ParamId, Params};

/// What a new batch weighs in the running statistics.
pub const MOMENTUM: f32 = 0.1;

/// The parameters of a batch norm and what follows it.
#[derive(Clone)]
pub struct NormOp {
    /// Where the parameters are.
    pub params: Arc<Params>,
    /// Channels.
    pub channels: usize,
    /// gamma, `[C]`
    pub weight: ParamId,
    /// beta, `[C]`
    pub bias: ParamId,
    /// `[C]`
    pub running_mean: ParamId,
    /// `[C]`, of the whole population: divided by the number of values less one.
    pub running_var: ParamId,
    /// End with max(x, 0).
    pub relu: bool,
}

impl NormOp {
    /// A parameter of each channel, 0 for those that fill the last block.
    fn padded(&self, id: ParamId) -> Vec<f32> {
        let mut values = self.params.values()[self.params.range(id)].to_vec();
        values.resize(self.channels.next_multiple_of(LANES), 0.0);
        values
    }

    fn blocks(&self, dims: &[usize]) -> Result<Blocks> {
        let [_, blocks, height, width] = blocked_dims(dims)?;
        if blocks != self.channels.div_ceil(LANES) {
            bail!("expected {} channels, got {blocks} blocks of {LANES}", self.channels);
        }
        Ok(Blocks { blocks, pixels: height * width })
    }

    /// Scale and shift of each channel that normalise by these statistics.
    fn folded(&self, mean: &[f32], inverse_std: &[f32]) -> [Vec<f32>; 2] {
        let scale: Vec<f32> = self.padded(self.weight).iter().zip(inverse_std).map(|(g, s)| g * s).collect();
        let shift = self.padded(self.bias).iter().zip(mean).zip(&scale).map(|((b, m), s)| b - m * s).collect();
        [scale, shift]
    }
}

fn inverse_std(variance: &[f32]) -> Vec<f32> {
    variance.iter().map(|v| (1.0 / (f64::from(*v) + BN_EPS).sqrt()) as f32).collect()
}

/// Training: normalises by the statistics of the batch, and moves the running ones towards them.
/// `activation(norm(x) + residual)`, all `[B, C / 16, H, W, 16]`.
pub fn batch_norm(op: NormOp, x: &Tensor, residual: Option<&Tensor>) -> Result<Tensor> {
    let op = BatchNorm { op, forward: OnceLock::new() };
    match residual {
        Some(residual) => x.contiguous()?.apply_op2(&residual.contiguous()?, op),
        None => x.contiguous()?.apply_op1(op),
    }
}

/// Evaluation: normalises by the running statistics. Without gradients.
pub fn running_norm(op: &NormOp, x: &Tensor, residual: Option<&Tensor>) -> Result<Tensor> {
    let blocks = op.blocks(x.dims())?;
    let [scale, shift] = op.folded(&op.padded(op.running_mean), &inverse_std(&op.padded(op.running_var)));
    let affine = |x: &[f32], residual: Option<&[f32]>| {
        let y = affine(Isa::detect(), blocks, x, [&scale, &shift], residual, op.relu);
        Ok(y)
    };
    let y = match residual {
        Some(residual) if residual.dims() != x.dims() => bail!("a residual of another shape, {:?}", residual.dims()),
        Some(residual) => with_floats([x, residual], |[x, residual]| affine(x, Some(residual)))?,
        None => with_floats([x], |[x]| affine(x, None))?,
    };
    Tensor::from_vec(y, x.shape(), x.device())
}

struct BatchNorm {
    op: NormOp,
    /// Mean and inverse standard deviation of the batch that went forward.
    forward: OnceLock<[Vec<f32>; 2]>,
}

impl BatchNorm {
    fn run(&self, x: &[f32], dims: &[usize], residual: Option<&[f32]>) -> Result<(CpuStorage, Shape)> {
        let blocks = self.op.blocks(dims)?;
        let [mean, variance] = statistics(Isa::detect(), blocks, x);
        let inverse_std = inverse_std(&variance);
        let [scale, shift] = self.op.folded(&mean, &inverse_std);
        let y = affine(Isa::detect(), blocks, x, [&scale, &shift], residual, self.op.relu);

        let count = (dims[0] * blocks.pixels) as f32;
        let mut values = self.op.params.values_mut();
        let mut follow = |id: ParamId, batch: &[f32], factor: f32| {
            for (running, batch) in values[self.op.params.range(id)].iter_mut().zip(batch) {
                *running += MOMENTUM * (batch * factor - *running);
            }
        };
        follow(self.op.running_mean, &mean, 1.0);
        follow(self.op.running_var, &variance, count / (count - 1.0).max(1.0));
        self.forward.get_or_init(|| [mean, inverse_std]);
        Ok((CpuStorage::F32(y), Shape::from(dims)))
    }

    /// Gradients of the input and, where asked for, of the residual.
    fn gradients(&self, x: &Tensor, y: &Tensor, grad: &Tensor, residual: bool) -> Result<[Option<Tensor>; 2]> {
        let Some([mean, inverse_std]) = self.forward.get() else { bail!("backward before forward") };
        let blocks = self.op.blocks(x.dims())?;
        let scale = self.op.padded(self.op.weight);
        let found = with_floats([x, y, grad], |[x, y, grad]| {
            let forward = NormForward { x, relu_output: self.op.relu.then_some(y), mean, inverse_std, scale: &scale };
            Ok(norm_gradients(Isa::detect(), blocks, forward, grad, residual))
        })?;
        let mut gradients = self.op.params.gradients_mut();
        for (id, from) in [(self.op.weight, &found.scale), (self.op.bias, &found.shift)] {
            let into = &mut gradients[self.op.params.range(id)];
            into.iter_mut().zip(from).for_each(|(into, from)| *into += from);
        }
        let tensor = |values| Tensor::from_vec(values, x.shape(), x.device());
        Ok([Some(tensor(found.x)?), residual.then(|| tensor(found.residual)).transpose()?])
    }
}

impl CustomOp1 for BatchNorm {
    fn name(&self) -> &'static str {
        "batch norm"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        self.run(floats(x, layout)?, layout.dims(), None)
    }

    fn bwd(&self, x: &Tensor, y: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let [x, _] = self.gradients(x, y, grad, false)?;
        Ok(x)
    }
}

impl CustomOp2 for BatchNorm {
    fn name(&self) -> &'static str {
        "batch norm with residual"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        layout: &Layout,
        residual: &CpuStorage,
        residual_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        if layout.dims() != residual_layout.dims() {
            bail!("a residual {:?} of another shape than {:?}", residual_layout.dims(), layout.dims());
        }
        self.run(floats(x, layout)?, layout.dims(), Some(floats(residual, residual_layout)?))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, y: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let [x, residual] = self.gradients(x, y, grad, true)?;
        Ok((x, residual))
    }
}
