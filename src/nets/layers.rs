//! The few layers that all networks are made of. Each convolution carries its folded batch norm and its ReLU, so
//! that a faster kernel has one place to go.

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;

/// What follows a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// Nothing.
    None,
    /// max(x, 0).
    Relu,
}

impl Activation {
    fn apply(self, x: Tensor) -> Result<Tensor> {
        match self {
            Self::None => Ok(x),
            Self::Relu => x.relu(),
        }
    }
}

/// Batch norm as a scale and a shift for each channel: `y = x * scale + shift`.
pub struct FoldedNorm {
    /// `[C]`
    pub scale: Tensor,
    /// `[C]`
    pub shift: Tensor,
}

impl FoldedNorm {
    /// Reads `weight`, `bias`, `running_mean`, `running_var` of `channels` channels.
    pub fn load(channels: usize, eps: f64, vb: &VarBuilder) -> Result<Self> {
        let (weight, bias) = (vb.get(channels, "weight")?, vb.get(channels, "bias")?);
        let (mean, var) = (vb.get(channels, "running_mean")?, vb.get(channels, "running_var")?);
        let scale = (weight / (var + eps)?.sqrt()?)?;
        let shift = (bias - (mean * &scale)?)?;
        Ok(Self { scale, shift })
    }
}

/// Batch norm's epsilon where nothing else is said.
pub const BN_EPS: f64 = 1e-5;

/// A 2D convolution with everything that follows it folded in.
pub struct Conv2d {
    weight: Tensor,       // [O, I, K, K]
    bias: Option<Tensor>, // [1, O, 1, 1]
    stride: usize,
    padding: usize,
    activation: Activation,
}

/// Shape of a square convolution.
#[derive(Clone, Copy, Debug)]
pub struct ConvShape {
    /// Input channels.
    pub input: usize,
    /// Output channels.
    pub output: usize,
    /// Side of the kernel.
    pub kernel: usize,
    /// Step between outputs.
    pub stride: usize,
    /// Zeros added at each side.
    pub padding: usize,
}

impl ConvShape {
    /// A convolution that keeps the size (odd kernel, stride 1).
    pub fn same(input: usize, output: usize, kernel: usize) -> Self {
        Self { input, output, kernel, stride: 1, padding: kernel / 2 }
    }

    /// The same with a stride.
    pub fn strided(self, stride: usize) -> Self {
        Self { stride, ..self }
    }
}

impl Conv2d {
    /// Reads `weight` and, where `with_bias`, `bias`; folds `norm` in.
    pub fn load(
        shape: ConvShape,
        with_bias: bool,
        norm: Option<FoldedNorm>,
        activation: Activation,
        vb: &VarBuilder,
    ) -> Result<Self> {
        let ConvShape { input, output, kernel, stride, padding } = shape;
        let mut weight = vb.get((output, input, kernel, kernel), "weight")?;
        let mut bias = with_bias.then(|| vb.get(output, "bias")).transpose()?;
        if let Some(FoldedNorm { scale, shift }) = norm {
            weight = weight.broadcast_mul(&scale.reshape((output, 1, 1, 1))?)?;
            bias = Some(match bias {
                Some(bias) => ((bias * scale)? + shift)?,
                None => shift,
            });
        }
        let bias = bias.map(|b| b.reshape((1, output, 1, 1))).transpose()?;
        Ok(Self { weight: weight.contiguous()?, bias, stride, padding, activation })
    }

    /// `[B, I, H, W] -> [B, O, H', W']`
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.activation.apply(self.linear(x)?)
    }

    /// As [`Self::forward`], with `residual` added before the activation.
    pub fn forward_add(&self, x: &Tensor, residual: &Tensor) -> Result<Tensor> {
        self.activation.apply((self.linear(x)? + residual)?)
    }

    fn linear(&self, x: &Tensor) -> Result<Tensor> {
        let y = x.conv2d(&self.weight, self.padding, self.stride, 1, 1)?;
        match &self.bias {
            Some(bias) => y.broadcast_add(bias),
            None => Ok(y),
        }
    }
}

/// Transposed convolution, kernel 4, stride 2, padding 1, without bias, followed by batch norm and ReLU: doubles
/// the sides.
pub struct Deconv2d {
    weight: Tensor, // [I, O, 4, 4]
    bias: Tensor,   // [1, O, 1, 1]
}

impl Deconv2d {
    /// Reads the convolution at `vb` and its norm at `norm_vb`.
    pub fn load(input: usize, output: usize, vb: &VarBuilder, norm_vb: &VarBuilder) -> Result<Self> {
        let FoldedNorm { scale, shift } = FoldedNorm::load(output, BN_EPS, norm_vb)?;
        let weight = vb.get((input, output, 4, 4), "weight")?;
        let weight = weight.broadcast_mul(&scale.reshape((1, output, 1, 1))?)?.contiguous()?;
        Ok(Self { weight, bias: shift.reshape((1, output, 1, 1))? })
    }

    /// `[B, I, H, W] -> [B, O, 2H, 2W]`
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        x.conv_transpose2d(&self.weight, 1, 0, 2, 1)?.broadcast_add(&self.bias)?.relu()
    }
}

/// The three transposed convolutions that all heads share (`make_deconv`): `[B, 2048, h, w] -> [B, 256, 8h, 8w]`.
pub struct DeconvStack([Deconv2d; 3]);

impl DeconvStack {
    /// Channels that come out.
    pub const CHANNELS: usize = 256;

    /// Reads layers 0, 1, 3, 4, 6 and 7 of `vb`.
    pub fn load(input: usize, vb: &VarBuilder) -> Result<Self> {
        let layer = |input, at: usize| Deconv2d::load(input, Self::CHANNELS, &vb.pp(at), &vb.pp(at + 1));
        Ok(Self([layer(input, 0)?, layer(Self::CHANNELS, 3)?, layer(Self::CHANNELS, 6)?]))
    }

    /// `[B, C, h, w] -> [B, 256, 8h, 8w]`
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let [a, b, c] = &self.0;
        c.forward(&b.forward(&a.forward(x)?)?)
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

    /// `[B, I, L] -> [B, O, L]`
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let y = self.weight.broadcast_matmul(&x.contiguous()?)?.broadcast_add(&self.bias)?;
        self.activation.apply(y)
    }
}
