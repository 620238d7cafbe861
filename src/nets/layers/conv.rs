//! Convolution.

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;

use super::{
    Activation, Features, FoldedNorm, Values, check_channels, count_plain_run, is_fast, to_map, with_floats,
    with_weights,
};
#[cfg(feature = "cudnn")]
use crate::nets::cuda::DeviceConv;
use crate::nets::kernels::{Finish, Isa, Map, PackedConv, Winograd};

/// A 2D convolution with everything that follows it folded in.
pub struct Conv2d {
    shape: ConvShape,
    activation: Activation,
    weights: Weights,
}

/// What is kept of the weights.
enum Weights {
    /// For candle's operations.
    Plain {
        weight: Tensor,       // [O, I, K, K]
        bias: Option<Tensor>, // [1, O, 1, 1]
    },
    Direct(PackedConv),
    Winograd(Winograd),
    #[cfg(feature = "cudnn")]
    Device(DeviceConv, std::sync::Arc<crate::nets::cuda::Gpu>),
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
    #[must_use]
    pub fn strided(self, stride: usize) -> Self {
        Self { stride, ..self }
    }

    /// Whether Winograd's transformed weights, four times as large, cost less to read than the products that they
    /// save. Not for the largest ones, which belong to the last stage of a ResNet where few pixels share them.
    fn worth_transforming(self) -> bool {
        self.kernel == 3
            && self.stride == 1
            && self.input > PackedConv::FEW_CHANNELS
            && self.input * self.output < 512 * 512
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
        let ConvShape { input, output, kernel, .. } = shape;
        let weight = vb.get((output, input, kernel, kernel), "weight")?;
        let bias = with_bias.then(|| vb.get(output, "bias")).transpose()?;
        Self::new(shape, weight, bias, norm, activation)
    }

    /// From a weight `[O, I, K, K]` and a bias `[O]`; folds `norm` in.
    pub fn new(
        shape: ConvShape,
        mut weight: Tensor,
        mut bias: Option<Tensor>,
        norm: Option<FoldedNorm>,
        activation: Activation,
    ) -> Result<Self> {
        let ConvShape { input, output, kernel, stride, padding } = shape;
        if let Some(norm) = norm {
            let [folded, shift] = norm.folded_into(&weight, bias)?;
            (weight, bias) = (folded, Some(shift));
        }
        #[cfg(feature = "cudnn")]
        if let Some(gpu) = super::gpu_of(&[&weight]) {
            let conv =
                DeviceConv::new(&gpu, &weight, bias.as_ref(), [stride, padding], activation == Activation::Relu)?;
            return Ok(Self { shape, activation, weights: Weights::Device(conv, gpu) });
        }
        let weights = if !is_fast(&[&weight]) || !bias.as_ref().is_none_or(|bias| is_fast(&[bias])) {
            let bias = bias.map(|b| b.reshape((1, output, 1, 1))).transpose()?;
            Weights::Plain { weight: weight.contiguous()?, bias }
        } else if shape.worth_transforming() {
            let pack = |w: &[f32], b: Option<&[f32]>| Winograd::new(Isa::detect(), [output, input], padding, w, b);
            Weights::Winograd(with_weights(&weight, bias.as_ref(), pack)?)
        } else {
            let (sizes, steps) = ([output, input, kernel], [stride, padding]);
            let pack = |w: &[f32], b: Option<&[f32]>| PackedConv::new(Isa::detect(), sizes, steps, w, b);
            Weights::Direct(with_weights(&weight, bias.as_ref(), pack)?)
        };
        Ok(Self { shape, activation, weights })
    }

    /// What runs it where it is on a GPU.
    #[cfg(feature = "cudnn")]
    pub fn device(&self) -> Option<&DeviceConv> {
        match &self.weights {
            Weights::Device(conv, _) => Some(conv),
            _ => None,
        }
    }

    /// `[B, I, H, W] -> [B, O, H', W']`
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.run(&Features::Plain(x.clone()), None)?.to_tensor()
    }

    /// Within a chain of layers; `residual` is added before the activation.
    pub fn run(&self, x: &Features, residual: Option<&Features>) -> Result<Features> {
        if let Weights::Plain { weight, bias } = &self.weights {
            return Ok(Features::Plain(self.plain(weight, bias.as_ref(), x, residual)?));
        }
        #[cfg(feature = "cudnn")]
        if let Weights::Device(conv, gpu) = &self.weights {
            let residual = residual.map(|residual| residual.to_device(gpu)).transpose()?;
            return Ok(Features::Device(conv.run(&x.to_device(gpu)?, residual.as_ref())?));
        }
        let converted;
        let residual = match residual {
            None => None,
            Some(Features::Blocked(map)) => Some(map),
            Some(Features::Plain(residual)) => {
                converted = to_map(residual)?;
                Some(&converted)
            }
            #[cfg(feature = "cudnn")]
            Some(Features::Device(_)) => candle_core::bail!("the layer is on the processor, its residual on a GPU"),
        };
        let finish = Finish { residual, relu: self.activation == Activation::Relu };
        match x {
            Features::Blocked(map) => self.fast(map, finish),
            Features::Plain(x) => {
                let (b, c, h, w) = x.dims4()?;
                match &self.weights {
                    Weights::Direct(conv) if conv.reads_planes() => {
                        check_channels(self.shape.input, c)?;
                        with_floats(x, |x| Ok(Features::Blocked(conv.run_planes([b, c, h, w], x, finish))))
                    }
                    _ => self.fast(&to_map(x)?, finish),
                }
            }
            #[cfg(feature = "cudnn")]
            Features::Device(_) => candle_core::bail!("the layer is on the processor, its input on a GPU"),
        }
    }

    /// The first layer of a network, `[B, I, H, W]`.
    pub fn run_planes(&self, x: &Values) -> Result<Features> {
        match (x, &self.weights) {
            (Values::Reused(floats, shape), Weights::Direct(conv)) if conv.reads_planes() => {
                let (b, c, h, w) = shape.dims4()?;
                check_channels(self.shape.input, c)?;
                let finish = Finish { residual: None, relu: self.activation == Activation::Relu };
                Ok(Features::Blocked(conv.run_planes([b, c, h, w], floats, finish)))
            }
            _ => self.run(&Features::Plain(x.to_tensor()?), None),
        }
    }

    fn fast(&self, x: &Map, finish: Finish) -> Result<Features> {
        check_channels(self.shape.input, x.channels)?;
        Ok(Features::Blocked(match &self.weights {
            Weights::Winograd(conv) => conv.run(x, finish),
            Weights::Direct(conv) if conv.reads_planes() => conv.run_planes(x.shape(), &x.to_planar(), finish),
            Weights::Direct(conv) => conv.run(x, finish),
            Weights::Plain { .. } => unreachable!("`run` takes the plain way"),
            #[cfg(feature = "cudnn")]
            Weights::Device(..) => unreachable!("`run` takes the GPU's way"),
        }))
    }

    fn plain(
        &self,
        weight: &Tensor,
        bias: Option<&Tensor>,
        x: &Features,
        residual: Option<&Features>,
    ) -> Result<Tensor> {
        count_plain_run();
        let mut y = x.to_tensor()?.conv2d(weight, self.shape.padding, self.shape.stride, 1, 1)?;
        if let Some(bias) = bias {
            y = y.broadcast_add(bias)?;
        }
        if let Some(residual) = residual {
            y = (y + residual.to_tensor()?)?;
        }
        self.activation.apply(y)
    }
}
