//! Convolutions and transposed convolutions.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, bail};

use super::{blocked_dims, floats, with_floats};
use crate::nets::kernels::{ConvDims, Isa, LANES, Map, bias_gradient, conv, conv_input_gradient, conv_weight_gradient};
use crate::train::params::{ParamId, Params};

/// Which way through a convolution is forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// A convolution, weights `[output, input, K, K]`.
    Conv,
    /// A transposed convolution, weights `[input, output, K, K]`: forward is a convolution's backward way, so it
    /// gives `stride` times the sides (kernel = stride + 2 padding).
    Transposed,
}

/// `[B, I / 16, H, W, 16] -> [B, O / 16, H', W', 16]`. With kernel 1 and one row it is a linear layer. An image of at most 8 channels is read as it
/// is, `[B, I, H, W]`, and gets no gradient.
#[derive(Clone)]
pub struct ConvOp {
    /// Where the weights are.
    pub params: Arc<Params>,
    /// `[output, input or more, K, K]`; [`Self::input`] of the input channels are used. For a transposed convolution
    /// `[input, output, K, K]`.
    pub weight: ParamId,
    /// `[output]`; a transposed convolution has none.
    pub bias: Option<ParamId>,
    /// Channels that come in.
    pub input: usize,
    /// Channels that go out.
    pub output: usize,
    /// Step between outputs (inputs, for a transposed convolution).
    pub stride: usize,
    /// Zeros added at each side.
    pub padding: usize,
    /// Which way.
    pub direction: Direction,
}

impl ConvOp {
    /// The convolution that this is, or is the backward way of.
    fn dims(&self, x: &[usize]) -> Result<ConvDims> {
        let [batch, height, width] = match *x {
            [batch, channels, height, width] if channels == self.input => [batch, height, width],
            _ => {
                let [batch, blocks, height, width] = blocked_dims(x)?;
                if blocks != self.input.div_ceil(LANES) {
                    bail!("expected {} channels, got {blocks} blocks of {LANES}", self.input);
                }
                [batch, height, width]
            }
        };
        let dims = self.dims_of([batch, height, width])?;
        if dims.reads_planes() == (x.len() == 5) {
            bail!("activations {x:?} are in the wrong layout for {} channels", self.input);
        }
        Ok(dims)
    }

    /// The same for images, rows and columns.
    pub(in crate::train) fn dims_of(&self, [batch, height, width]: [usize; 3]) -> Result<ConvDims> {
        // A linear layer's weights have two dimensions.
        let kernel = self.params.shape(self.weight).get(2).copied().unwrap_or(1);
        let (stride, padding) = (self.stride, self.padding);
        let dims = match self.direction {
            Direction::Conv => {
                ConvDims { batch, input: self.input, output: self.output, height, width, kernel, stride, padding }
            }
            Direction::Transposed => {
                let (height, width) = (height * stride, width * stride);
                ConvDims { batch, input: self.output, output: self.input, height, width, kernel, stride, padding }
            }
        };
        if dims.output_sides().contains(&0) {
            bail!("a kernel of side {kernel} does not fit into {height}x{width} pixels");
        }
        Ok(dims)
    }

    /// Calls `work` with the weights that are used, `[output, input, K, K]` of the convolution of [`Self::dims`].
    fn with_weight<T>(&self, d: &ConvDims, work: impl FnOnce(&[f32]) -> T) -> T {
        let values = self.params.values();
        let weight = &values[self.params.range(self.weight)];
        if weight.len() == d.weights() {
            return work(weight);
        }
        let used: Vec<f32> = rows(weight.len(), d).flat_map(|row| &weight[row]).copied().collect();
        drop(values);
        work(&used)
    }

    fn add_gradients(&self, d: &ConvDims, x: &[f32], grad: &[f32]) {
        let mut gradients = self.params.gradients_mut();
        if let Some(bias) = self.bias {
            bias_gradient(d, grad, &mut gradients[self.params.range(bias)]);
        }
        let into = &mut gradients[self.params.range(self.weight)];
        if into.len() == d.weights() {
            return conv_weight_gradient(Isa::detect(), d, x, grad, into);
        }
        let mut used = vec![0.0; d.weights()];
        conv_weight_gradient(Isa::detect(), d, x, grad, &mut used);
        for (row, from) in rows(into.len(), d).zip(used.chunks_exact(d.weights() / d.output)) {
            into[row].iter_mut().zip(from).for_each(|(into, from)| *into += from);
        }
    }
}

/// The part of each output channel's weights that is used, where they are for more input channels.
fn rows(weights: usize, d: &ConvDims) -> impl Iterator<Item = std::ops::Range<usize>> {
    let (all, used) = (weights / d.output, d.weights() / d.output);
    (0..d.output).map(move |o| o * all..o * all + used)
}

fn storage_of(map: &Map) -> (CpuStorage, Shape) {
    let shape = Shape::from(vec![map.batch, map.blocks(), map.height, map.width, LANES]);
    (CpuStorage::F32(map.data.to_vec()), shape)
}

impl CustomOp1 for ConvOp {
    fn name(&self) -> &'static str {
        "trained convolution"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let d = self.dims(layout.dims())?;
        let x = floats(x, layout)?;
        Ok(storage_of(&self.with_weight(&d, |weight| match self.direction {
            Direction::Conv => {
                let bias = self.bias.map(|bias| self.params.values()[self.params.range(bias)].to_vec());
                conv(Isa::detect(), &d, x, weight, bias.as_deref())
            }
            Direction::Transposed => conv_input_gradient(Isa::detect(), &d, x, weight),
        })))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let d = self.dims(x.dims())?;
        with_floats([x, grad], |[x_floats, grad]| match self.direction {
            Direction::Conv => {
                self.add_gradients(&d, x_floats, grad);
                if d.reads_planes() {
                    return Ok(None);
                }
                let map = self.with_weight(&d, |weight| conv_input_gradient(Isa::detect(), &d, grad, weight));
                Tensor::from_slice(&map.data, x.shape(), x.device()).map(Some)
            }
            Direction::Transposed => {
                self.add_gradients(&d, grad, x_floats);
                let map = self.with_weight(&d, |weight| conv(Isa::detect(), &d, grad, weight, None));
                Tensor::from_slice(&map.data, x.shape(), x.device()).map(Some)
            }
        })
    }
}
