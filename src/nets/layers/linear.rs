//! Linear maps: at every position of a line, or of single vectors.

use candle_core::{Device, Result, Tensor};
use candle_nn::VarBuilder;

use super::{Activation, FoldedNorm, check_channels, count_plain_run, is_fast, with_floats, with_weights};
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
    /// Reads `weight` (`[O, I]`) and `bias`.
    pub fn load(input: usize, output: usize, activation: Activation, vb: &VarBuilder) -> Result<Self> {
        let (weight, bias) = (vb.get((output, input), "weight")?, vb.get(output, "bias")?);
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
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (_, input) = x.dims2()?;
        check_channels(self.input, input)?;
        match &self.weights {
            Weights::Plain { weight, bias } => {
                count_plain_run();
                self.activation.apply(x.matmul(&weight.t()?)?.broadcast_add(bias)?)
            }
            Weights::Packed(linear) => with_floats(x, |x| self.packed(linear, x)),
            #[cfg(feature = "cudnn")]
            Weights::Device(conv, gpu) => {
                let x = DeviceMap::from_tensor(gpu, &x.unsqueeze(2)?.unsqueeze(3)?)?;
                conv.run(&x, None)?.to_tensor()?.flatten_from(1)
            }
        }
    }

    /// The same of rows that are in no tensor; `None` where the weights are not packed for the processor.
    pub fn forward_rows(&self, x: &[f32]) -> Option<Result<Tensor>> {
        let Weights::Packed(linear) = &self.weights else { return None };
        Some(self.packed(linear, x))
    }

    fn packed(&self, linear: &PackedLinear, x: &[f32]) -> Result<Tensor> {
        let count = x.len() / self.input;
        let y = linear.run(count, x, self.activation == Activation::Relu);
        Tensor::from_vec(y, (count, linear.output()), &Device::Cpu)
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
        let mut weight = vb.get((output, input, 1), "weight")?.squeeze(2)?;
        let mut bias = vb.get(output, "bias")?;
        if let Some(FoldedNorm { scale, shift }) = norm {
            weight = weight.broadcast_mul(&scale.reshape((output, 1))?)?;
            bias = ((bias * scale)? + shift)?;
        }
        Ok(Self { weight: weight.contiguous()?, bias: bias.reshape((1, output, 1))?, activation })
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
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        if is_fast(&[x, &self.weight]) {
            return self.fast(x);
        }
        count_plain_run();
        let y = self.weight.broadcast_matmul(&x.contiguous()?)?.broadcast_add(&self.bias)?;
        self.activation.apply(y)
    }

    fn fast(&self, x: &Tensor) -> Result<Tensor> {
        let (b, i, l) = x.dims3()?;
        let (output, input) = self.weight.dims2()?;
        check_channels(input, i)?;
        let relu = self.activation == Activation::Relu;
        let y = with_floats(x, |x| {
            with_floats(&self.weight, |weight| {
                with_floats(&self.bias, |bias| Ok(kernels::pointwise(Isa::detect(), [b, i, l], x, weight, bias, relu)))
            })
        })?;
        Tensor::from_vec(y, (b, output, l), x.device())
    }
}
