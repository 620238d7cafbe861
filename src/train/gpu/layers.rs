//! Convolutions, batch norm, max-pooling: the twins of [`ops`](crate::train::ops) on planes.

use std::sync::OnceLock;

use candle_core::{Result, Shape, Tensor, bail};

use super::kernels::{self, NormBackward, NormParams, Planes, Pooling, Rows};
use super::machine::{Machine, Memory, Way, machine_of, tensor, with_lent};
use super::operation::{Operand, Operation, Traced};
use super::planar_dims;
use crate::nets::cuda::kernels::Ptr;
use crate::nets::kernels::ConvDims;
use crate::train::ops::{ConvOp, Direction, NormOp, POOL_WINDOW};
use crate::train::params::ParamId;

/// The shape of a map.
fn map_shape(batch: usize, channels: usize, [height, width]: [usize; 2]) -> Shape {
    Shape::from((batch, channels, height, width, super::LANES))
}

/// A convolution or a transposed one.
pub struct PlanarConv(pub ConvOp);

impl PlanarConv {
    /// The convolution that this is, or is the backward way of.
    fn dims(&self, x: &[usize]) -> Result<ConvDims> {
        let [batch, channels, height, width] = planar_dims(x)?;
        if channels != self.0.input {
            bail!("expected {} channels, got {channels}", self.0.input);
        }
        self.0.dims_of([batch, height, width])
    }

    /// The part of the weights that is used: less than all where they are for more input channels.
    fn rows(&self, d: &ConvDims) -> Rows {
        let all = self.0.params.range(self.0.weight).len();
        Rows { count: d.output, all: all / d.output, used: d.weights() / d.output }
    }

    /// Lets `work` have the weights that are used.
    fn with_weight<T>(&self, on: &dyn Machine, d: &ConvDims, work: impl FnOnce(Ptr) -> Result<T>) -> Result<T> {
        let [weight, _] = self.0.params.resident()?.places(self.0.weight);
        let rows = self.rows(d);
        if rows.used == rows.all {
            return work(weight);
        }
        let used = on.take(rows.len())?;
        kernels::take_rows(on, weight, used.at, rows)?;
        work(used.at)
    }

    /// Adds the gradients of weights and bias, from the input and the output's gradient of the convolution of `d`.
    fn add_gradients(&self, on: &dyn Machine, d: &ConvDims, [x, grad]: [Ptr; 2]) -> Result<()> {
        let resident = self.0.params.resident()?;
        if let Some(bias) = self.0.bias {
            let planes = output_planes(d);
            let sums = on.take(planes.planes())?;
            kernels::bias_gradient(on, grad, sums.at, resident.places(bias)[1], planes)?;
        }
        let found = on.take(d.weights())?;
        on.convolve(Way::Weights, d, [x, grad], found.at)?;
        kernels::add_rows(on, found.at, resident.places(self.0.weight)[1], self.rows(d))
    }
}

fn output_planes(d: &ConvDims) -> Planes {
    Planes { images: d.batch, channels: d.output, pixels: d.output_sides().iter().product() }
}

impl Operation for PlanarConv {
    const NAME: &'static str = "trained convolution";

    fn forward(&self, on: &dyn Machine, inputs: &[Operand]) -> Result<(Memory, Shape)> {
        let (x, d) = (inputs[0].at, self.dims(inputs[0].dims)?);
        match self.0.direction {
            Direction::Conv => {
                let planes = output_planes(&d);
                let y = on.take(planes.len())?;
                self.with_weight(on, &d, |weight| on.convolve(Way::Forward, &d, [x, weight], y.at))?;
                if let Some(bias) = self.0.bias {
                    kernels::add_bias(on, y.at, self.0.params.resident()?.places(bias)[0], planes)?;
                }
                Ok((y, map_shape(d.batch, d.output, d.output_sides())))
            }
            Direction::Transposed => {
                let y = on.take(d.batch * d.input * d.height * d.width)?;
                self.with_weight(on, &d, |weight| on.convolve(Way::Input, &d, [x, weight], y.at))?;
                Ok((y, map_shape(d.batch, d.input, [d.height, d.width])))
            }
        }
    }

    fn backward(&self, on: &dyn Machine, inputs: &[Operand], _: Operand, grad: Ptr) -> Result<Vec<Option<Memory>>> {
        let Operand { at: x, dims } = inputs[0];
        let d = self.dims(dims)?;
        let len = dims.iter().product();
        match self.0.direction {
            Direction::Conv => {
                self.add_gradients(on, &d, [x, grad])?;
                if dims.len() == 4 {
                    return Ok(vec![None]); // An image.
                }
                let dx = on.take(len)?;
                self.with_weight(on, &d, |weight| on.convolve(Way::Input, &d, [grad, weight], dx.at))?;
                Ok(vec![Some(dx)])
            }
            Direction::Transposed => {
                self.add_gradients(on, &d, [grad, x])?;
                let dx = on.take(len)?;
                self.with_weight(on, &d, |weight| on.convolve(Way::Forward, &d, [grad, weight], dx.at))?;
                Ok(vec![Some(dx)])
            }
        }
    }
}

/// Batch norm with the statistics of the batch; of an input, or of an input and a residual.
pub struct PlanarNorm {
    op: NormOp,
    /// What the batch that went forward was like.
    known: OnceLock<Memory>,
}

impl PlanarNorm {
    /// `activation(norm(x) + residual)`
    pub fn apply(op: NormOp, x: &Tensor, residual: Option<&Tensor>) -> Result<Tensor> {
        let norm = Traced(Self { op, known: OnceLock::new() });
        match residual {
            Some(residual) if residual.dims() != x.dims() => {
                bail!("a residual of another shape, {:?}", residual.dims())
            }
            Some(residual) => norm.apply2(x, residual),
            None => norm.apply(x),
        }
    }
}

fn norm_planes(op: &NormOp, dims: &[usize]) -> Result<Planes> {
    let [images, channels, height, width] = planar_dims(dims)?;
    if channels != op.channels {
        bail!("expected {} channels, got {channels}", op.channels);
    }
    Ok(Planes { images, channels, pixels: height * width })
}

fn norm_params(op: &NormOp) -> Result<NormParams> {
    let resident = op.params.resident()?;
    let value = |id: ParamId| resident.places(id)[0];
    Ok(NormParams {
        weight: value(op.weight),
        bias: value(op.bias),
        running_mean: value(op.running_mean),
        running_var: value(op.running_var),
    })
}

impl Operation for PlanarNorm {
    const NAME: &'static str = "batch norm";

    fn forward(&self, on: &dyn Machine, inputs: &[Operand]) -> Result<(Memory, Shape)> {
        let x = inputs[0];
        let planes = norm_planes(&self.op, x.dims)?;
        let (known, moments) = (on.take(kernels::known_len(planes.channels))?, on.take(2 * planes.planes())?);
        kernels::norm_of_batch(on, x.at, norm_params(&self.op)?, moments.at, known.at, planes)?;
        let y = on.take(planes.len())?;
        let residual = inputs.get(1).map(|residual| residual.at);
        kernels::norm_apply(on, x.at, known.at, residual, y.at, self.op.relu, planes)?;
        self.known.get_or_init(|| known);
        Ok((y, Shape::from(x.dims)))
    }

    fn backward(
        &self,
        on: &dyn Machine,
        inputs: &[Operand],
        output: Operand,
        grad: Ptr,
    ) -> Result<Vec<Option<Memory>>> {
        let Some(known) = self.known.get() else { bail!("backward before forward") };
        let resident = self.op.params.resident()?;
        let planes = norm_planes(&self.op, inputs[0].dims)?;
        let ([weight, weight_gradient], [_, bias_gradient]) =
            (resident.places(self.op.weight), resident.places(self.op.bias));
        let (sums, factors) = (on.take(2 * planes.planes())?, on.take(3 * planes.channels)?);
        let dx = on.take(planes.len())?;
        let residual = (inputs.len() > 1).then(|| on.take(planes.len())).transpose()?;
        let (x, y, known, relu) = (inputs[0].at, output.at, known.at, self.op.relu);
        kernels::norm_gradients(
            on,
            NormBackward { x, y, grad, known, weight, relu },
            [weight_gradient, bias_gradient],
            [sums.at, factors.at],
            dx.at,
            residual.as_ref().map(|memory| memory.at),
            planes,
        )?;
        Ok(vec![Some(dx), residual])
    }
}

/// Normalises by the running statistics, without gradients: `activation(norm(x) + residual)`.
pub fn running_norm(op: &NormOp, x: &Tensor, residual: Option<&Tensor>) -> Result<Tensor> {
    let planes = norm_planes(op, x.dims())?;
    let machine = machine_of(x.device())?;
    let known = machine.take(kernels::known_len(planes.channels))?;
    kernels::norm_of_running(&*machine, norm_params(op)?, known.at, planes.channels)?;
    let y = machine.take(planes.len())?;
    let tensors: Vec<&Tensor> = std::iter::once(x).chain(residual).collect();
    if tensors.iter().any(|tensor| tensor.dims() != x.dims()) {
        bail!("a residual of another shape than {:?}", x.dims());
    }
    with_lent(&*machine, &tensors, |at| {
        kernels::norm_apply(&*machine, at[0], known.at, at.get(1).copied(), y.at, op.relu, planes)
    })?;
    tensor(&*machine, y, x.shape())
}

struct Pool;

/// Max-pooling as in [`ops::max_pool`](crate::train::ops::max_pool).
pub fn max_pool(x: &Tensor) -> Result<Tensor> {
    Traced(Pool).apply(x)
}

impl Pool {
    fn pooling([batch, channels, height, width]: [usize; 4]) -> Pooling {
        let [kernel, stride, padding] = POOL_WINDOW;
        let out_sides = [height, width].map(|side| (side + 2 * padding - kernel) / stride + 1);
        Pooling { planes: batch * channels, sides: [height, width], out_sides, window: POOL_WINDOW }
    }
}

impl Operation for Pool {
    const NAME: &'static str = "max-pool 3x3 with stride 2";

    fn forward(&self, on: &dyn Machine, inputs: &[Operand]) -> Result<(Memory, Shape)> {
        let dims = planar_dims(inputs[0].dims)?;
        let pooling = Self::pooling(dims);
        let y = on.take(pooling.planes * pooling.out_sides.iter().product::<usize>())?;
        kernels::plane_pool(on, inputs[0].at, y.at, &pooling)?;
        Ok((y, map_shape(dims[0], dims[1], pooling.out_sides)))
    }

    fn backward(&self, on: &dyn Machine, inputs: &[Operand], y: Operand, grad: Ptr) -> Result<Vec<Option<Memory>>> {
        let pooling = Self::pooling(planar_dims(inputs[0].dims)?);
        let dx = on.take(inputs[0].dims.iter().product())?;
        kernels::plane_pool_gradient(on, [inputs[0].at, y.at, grad], dx.at, &pooling)?;
        Ok(vec![Some(dx)])
    }
}
