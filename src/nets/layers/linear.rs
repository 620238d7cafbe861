//! Linear maps: at every position of a line, or of single vectors.

use candle_core::{Result, Shape, Tensor, bail};
use candle_nn::VarBuilder;

use super::{Activation, FoldedNorm, Values, check_channels, count_plain_run, is_fast, with_weights};
#[cfg(feature = "cudnn")]
use crate::nets::cuda::{DeviceConv, DeviceMap, Gpu};
use crate::nets::kernels::{self, Isa, PackedLinear};

/// A linear map of vectors.
pub struct Linear {
    input: usize,
    activation: Activation,
    weights: Weights,
}

/// What is kept of the weights.
enum Weights {
    /// For candle's operations.
    Plain {
        weight: Tensor, // [O, I]
        bias: Tensor,   // [O]
    },
    Packed(PackedLinear),
    /// A convolution of single pixels.
    #[cfg(feature = "cudnn")]
    Device(DeviceConv, std::sync::Arc<Gpu>),
}

impl Linear {
    /// Reads `weight` (`[O, I]`) and `bias`; folds `norm` in.
    pub fn load(
        input: usize,
        output: usize,
        norm: Option<FoldedNorm>,
        activation: Activation,
        vb: &VarBuilder,
    ) -> Result<Self> {
        let [weight, bias] = weight_and_bias((output, input), norm, vb)?;
        #[cfg(feature = "cudnn")]
        if let Some(gpu) = super::gpu_of(&[&weight, &bias]) {
            let weight = weight.reshape((output, input, 1, 1))?;
            let conv = DeviceConv::new(&gpu, &weight, Some(&bias), [1, 0], activation == Activation::Relu)?;
            return Ok(Self { input, activation, weights: Weights::Device(conv, gpu) });
        }
        let weights = if is_fast(&[&weight, &bias]) {
            let pack = |w: &[f32], b: Option<&[f32]>| PackedLinear::new(Isa::detect(), w, b.unwrap_or_default());
            Weights::Packed(with_weights(&weight, Some(&bias), pack)?)
        } else {
            Weights::Plain { weight, bias }
        };
        Ok(Self { input, activation, weights })
    }

    /// The same as a convolution of single pixels, where it is on a GPU.
    #[cfg(feature = "cudnn")]
    pub fn device(&self) -> Option<&DeviceConv> {
        match &self.weights {
            Weights::Device(conv, _) => Some(conv),
            _ => None,
        }
    }

    /// `[N, I] -> [N, O]`
    pub fn forward(&self, x: impl Into<Values>) -> Result<Values> {
        let x = x.into();
        let &[count, input] = x.dims() else { bail!("expected [N, I], got {:?}", x.dims()) };
        check_channels(self.input, input)?;
        match &self.weights {
            Weights::Plain { weight, bias } => {
                count_plain_run();
                let y = x.to_tensor()?.matmul(&weight.t()?)?.broadcast_add(bias)?;
                Ok(self.activation.apply(y)?.into())
            }
            Weights::Packed(linear) => x.with_floats(|x| {
                let y = linear.run(count, x, self.activation == Activation::Relu);
                Ok(Values::new(y, (count, linear.output())))
            }),
            #[cfg(feature = "cudnn")]
            Weights::Device(conv, gpu) => {
                let x = DeviceMap::from_tensor(gpu, &x.to_tensor()?.unsqueeze(2)?.unsqueeze(3)?)?;
                Ok(conv.run(&x, None)?.to_tensor()?.flatten_from(1)?.into())
            }
        }
    }
}

/// `weight` of a shape `[O, ...]` and `bias`, with `norm` folded in.
fn weight_and_bias(shape: impl Into<Shape>, norm: Option<FoldedNorm>, vb: &VarBuilder) -> Result<[Tensor; 2]> {
    let weight = vb.get(shape.into(), "weight")?;
    let bias = vb.get(weight.dim(0)?, "bias")?;
    match norm {
        Some(norm) => norm.folded_into(&weight, Some(bias)),
        None => Ok([weight, bias]),
    }
}

/// A 1D convolution with kernel 1: the same linear map at every position.
pub struct Pointwise1d {
    weight: Tensor, // [O, I]
    bias: Tensor,   // [1, O, 1]
    activation: Activation,
}

impl Pointwise1d {
    /// Reads `weight` (`[O, I, 1]`) and `bias`; folds `norm` in.
    pub fn load(
        input: usize,
        output: usize,
        norm: Option<FoldedNorm>,
        activation: Activation,
        vb: &VarBuilder,
    ) -> Result<Self> {
        let [weight, bias] = weight_and_bias((output, input, 1), norm, vb)?;
        Ok(Self { weight: weight.squeeze(2)?.contiguous()?, bias: bias.reshape((1, output, 1))?, activation })
    }

    /// Weight `[O, I]`, for whoever multiplies elsewhere.
    #[cfg(feature = "cudnn")]
    pub fn weight(&self) -> &Tensor {
        &self.weight
    }

    /// The same with the bias `[O]`.
    #[cfg(feature = "cudnn")]
    pub fn parts(&self) -> Result<(Tensor, Tensor)> {
        Ok((self.weight.clone(), self.bias.flatten_all()?))
    }

    /// `[B, I, L] -> [B, O, L]`
    pub fn forward(&self, x: impl Into<Values>) -> Result<Values> {
        let x = x.into();
        if !x.is_fast() || !is_fast(&[&self.weight]) {
            count_plain_run();
            let y = self.weight.broadcast_matmul(&x.to_tensor()?.contiguous()?)?.broadcast_add(&self.bias)?;
            return Ok(self.activation.apply(y)?.into());
        }
        let &[b, i, l] = x.dims() else { bail!("expected [B, I, L], got {:?}", x.dims()) };
        let (output, input) = self.weight.dims2()?;
        check_channels(input, i)?;
        let relu = self.activation == Activation::Relu;
        x.with_floats(|x| {
            with_weights(&self.weight, Some(&self.bias), |weight, bias| {
                let y = kernels::pointwise(Isa::detect(), [b, i, l], x, weight, bias.unwrap_or_default(), relu);
                Values::new(y, (b, output, l))
            })
        })
    }
}
