//! The layers of a network that is trained: which parameters they have, under the names of the checkpoints, with
//! batch norms unfolded, so that what is trained can be saved for the inference networks.
//!
//! A layer only knows where its parameters are; they come along with the [`Pass`]. Activations are blocked, see
//! [`ops`](super::ops).

use std::sync::Arc;

use candle_core::{Device, Result, Tensor, Var};

#[cfg(any(feature = "cudnn", test))]
use super::gpu;
use super::ops::{ConvOp, Direction, NormOp, batch_norm, running_norm, to_blocks_of};
use super::params::{ParamId, Params, ParamsBuilder, Start};
use crate::nets::kernels::LANES;
use crate::nets::layers::{Activation, ConvShape};

/// One way through a network.
#[derive(Clone)]
pub struct Pass {
    /// The parameters.
    pub params: Arc<Params>,
    /// Batch norms use, and learn, the statistics of the batch, and gradients are kept; else the running statistics.
    pub is_training: bool,
}

impl Pass {
    /// An image `[B, C, H, W]` as the first layer reads it.
    pub fn image(&self, image: &Tensor) -> Result<Tensor> {
        // Candle records operations on variables only.
        if self.is_training {
            Ok(Var::from_tensor(&image.contiguous()?)?.as_tensor().clone())
        } else {
            Ok(image.clone())
        }
    }

    /// Where tensors are that meet the parameters.
    pub fn device(&self) -> Device {
        self.params.device()
    }

    /// Channels of a block of activations, see [`ops`](super::ops).
    pub fn lanes(&self) -> usize {
        if self.params.are_resident() { 1 } else { LANES }
    }

    /// `[B, C, H, W]` as activations, with gradients; C is whole blocks.
    pub fn blocks(&self, x: &Tensor) -> Result<Tensor> {
        to_blocks_of(x, self.lanes())
    }

    /// A parameter for candle's own operations.
    pub fn var(&self, id: ParamId) -> Result<Tensor> {
        if self.is_training { self.params.var(id) } else { self.params.tensor(id) }
    }
}

/// A convolution, or a linear layer where its kernel is 1.
pub struct Conv {
    pub(super) weight: ParamId,
    bias: Option<ParamId>,
    shape: ConvShape,
    direction: Direction,
}

impl Conv {
    /// `weight [O, I, K, K]`, for a layer that a norm follows.
    pub fn new(shape: ConvShape, b: &mut ParamsBuilder) -> Self {
        let ConvShape { input, output, kernel, .. } = shape;
        let weight = b.add("weight", &[output, input, kernel, kernel], Start::he(input * kernel * kernel));
        Self { weight, bias: None, shape, direction: Direction::Conv }
    }

    /// `weight [O, I + more, K, K]`, of which the first I are read here, and `bias`.
    pub fn with_more_inputs(shape: ConvShape, more: usize, b: &mut ParamsBuilder) -> Self {
        let ConvShape { input, output, kernel, .. } = shape;
        let all = input + more;
        let weight = b.add("weight", &[output, all, kernel, kernel], Start::he(all * kernel * kernel));
        let bias = Some(b.add("bias", &[output], Start::Constant(0.0)));
        Self { weight, bias, shape, direction: Direction::Conv }
    }

    /// Kernel 1 with bias, `weight` of `rank` dimensions: the last layer of a head, small at first as in the release.
    pub fn head(input: usize, output: usize, rank: usize, b: &mut ParamsBuilder) -> Self {
        Self::pointwise(input, output, rank, Start::Normal(0.001), b)
    }

    /// Kernel 1 with bias, `weight` of `rank` dimensions.
    pub fn pointwise(input: usize, output: usize, rank: usize, start: Start, b: &mut ParamsBuilder) -> Self {
        Self::biased(input, output, rank, [start, Start::Constant(0.0)], b)
    }

    /// As [`Self::pointwise`]; how weights and biases begin.
    pub fn biased(input: usize, output: usize, rank: usize, [start, bias]: [Start; 2], b: &mut ParamsBuilder) -> Self {
        let mut dims = vec![1; rank];
        dims[..2].copy_from_slice(&[output, input]);
        let weight = b.add("weight", &dims, start);
        let bias = Some(b.add("bias", &[output], bias));
        Self { weight, bias, shape: ConvShape::same(input, output, 1), direction: Direction::Conv }
    }

    /// Transposed, kernel 4, stride 2, padding 1: `weight [I, O, 4, 4]`.
    pub fn transposed(input: usize, output: usize, b: &mut ParamsBuilder) -> Self {
        // A quarter of the kernel meets each output.
        let weight = b.add("weight", &[input, output, 4, 4], Start::he(input * 4));
        let shape = ConvShape { input, output, kernel: 4, stride: 2, padding: 1 };
        Self { weight, bias: None, shape, direction: Direction::Transposed }
    }

    /// Of a layer that has both.
    pub(super) fn weight_and_bias(&self) -> [ParamId; 2] {
        [self.weight, self.bias.unwrap_or(self.weight)]
    }

    /// Blocked in, blocked out; an image is read as it is.
    pub fn forward(&self, pass: &Pass, x: &Tensor) -> Result<Tensor> {
        let ConvShape { input, output, stride, padding, .. } = self.shape;
        let (params, weight, bias, direction) = (pass.params.clone(), self.weight, self.bias, self.direction);
        let op = ConvOp { params, weight, bias, input, output, stride, padding, direction };
        #[cfg(any(feature = "cudnn", test))]
        if pass.params.are_resident() {
            return gpu::Traced(gpu::PlanarConv(op)).apply(x);
        }
        x.contiguous()?.apply_op1(op)
    }
}

/// Batch norm.
pub struct Norm {
    channels: usize,
    ids: [ParamId; 4],
}

impl Norm {
    /// `weight`, `bias`, `running_mean`, `running_var`.
    pub fn new(channels: usize, b: &mut ParamsBuilder) -> Self {
        let mut add = |name, value| b.add(name, &[channels], Start::Constant(value));
        let ids = [add("weight", 1.0), add("bias", 0.0), add("running_mean", 0.0), add("running_var", 1.0)];
        Self { channels, ids }
    }

    /// `activation(norm(x) + residual)`
    pub fn forward(&self, pass: &Pass, x: &Tensor, residual: Option<&Tensor>, then: Activation) -> Result<Tensor> {
        let [weight, bias, running_mean, running_var] = self.ids;
        let (params, channels, relu) = (pass.params.clone(), self.channels, then == Activation::Relu);
        let op = NormOp { params, channels, weight, bias, running_mean, running_var, relu };
        #[cfg(any(feature = "cudnn", test))]
        if pass.params.are_resident() {
            let train = gpu::PlanarNorm::apply;
            return if pass.is_training { train(op, x, residual) } else { gpu::running_norm(&op, x, residual) };
        }
        if pass.is_training { batch_norm(op, x, residual) } else { running_norm(&op, x, residual) }
    }
}

/// A convolution and its norm.
pub struct ConvNorm {
    conv: Conv,
    norm: Norm,
}

impl ConvNorm {
    /// The convolution at `conv`, the norm at `norm`.
    pub fn new(shape: ConvShape, [conv, norm]: [&str; 2], b: &mut ParamsBuilder) -> Self {
        Self { conv: Conv::new(shape, &mut b.pp(conv)), norm: Norm::new(shape.output, &mut b.pp(norm)) }
    }

    /// `activation(norm(conv(x)) + residual)`
    pub fn forward(&self, pass: &Pass, x: &Tensor, residual: Option<&Tensor>, then: Activation) -> Result<Tensor> {
        self.norm.forward(pass, &self.conv.forward(pass, x)?, residual, then)
    }
}

/// The transposed convolutions of all heads, see [`DeconvStack`](crate::nets::layers::DeconvStack): with three of them
/// `[B, C / 16, h, w, 16] -> [B, O / 16, 8h, 8w, 16]`.
pub struct DeconvStack(Vec<(Conv, Norm)>);

impl DeconvStack {
    /// Three: layers 0, 1, 3, 4, 6 and 7.
    pub fn new(input: usize, output: usize, b: &mut ParamsBuilder) -> Self {
        Self::of(3, input, output, b)
    }

    /// That many.
    pub fn of(count: usize, input: usize, output: usize, b: &mut ParamsBuilder) -> Self {
        let layer = |i: usize| {
            let (at, input) = (3 * i, if i == 0 { input } else { output });
            (Conv::transposed(input, output, &mut b.pp(at)), Norm::new(output, &mut b.pp(at + 1)))
        };
        Self((0..count).map(layer).collect())
    }

    /// Blocked in, blocked out.
    pub fn forward(&self, pass: &Pass, x: &Tensor) -> Result<Tensor> {
        let mut x = x.clone();
        for (conv, norm) in &self.0 {
            x = norm.forward(pass, &conv.forward(pass, &x)?, None, Activation::Relu)?;
        }
        Ok(x)
    }
}
