//! Transposed convolution.

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;

use super::{BN_EPS, Features, FoldedNorm, check_channels, count_plain_run, is_fast, to_map, with_weights};
#[cfg(feature = "cudnn")]
use crate::nets::cuda::{DeviceDeconv, Gpu};
use crate::nets::kernels::{Isa, PackedDeconv, WinogradDeconv};

/// Pixels that must share a transposed convolution's weights for Winograd's way to pay: its 100 transformed weights,
/// instead of 16, are read once and save half of the products of each pixel.
const PIXELS_FOR_WINOGRAD: usize = 512;

/// Kernel 4, stride 2, padding 1, without bias, followed by batch norm and ReLU: doubles the sides.
pub struct Deconv2d {
    input: usize,
    weights: Weights,
}

/// What is kept of the weights.
enum Weights {
    /// For candle's operations.
    Plain {
        weight: Tensor, // [I, O, 4, 4]
        bias: Tensor,   // [1, O, 1, 1]
    },
    Direct(PackedDeconv),
    Winograd(WinogradDeconv),
    #[cfg(feature = "cudnn")]
    Device(DeviceDeconv, std::sync::Arc<Gpu>),
}

impl Deconv2d {
    /// Reads the convolution at `vb` and its norm at `norm_vb`; it will read maps of about `side` x `side` pixels.
    pub fn load([input, output]: [usize; 2], side: usize, vb: &VarBuilder, norm_vb: &VarBuilder) -> Result<Self> {
        let FoldedNorm { scale, shift } = FoldedNorm::load(output, BN_EPS, norm_vb)?;
        let weight = vb.get((input, output, 4, 4), "weight")?;
        let weight = weight.broadcast_mul(&scale.reshape((1, output, 1, 1))?)?;
        #[cfg(feature = "cudnn")]
        if let Some(gpu) = super::gpu_of(&[&weight, &shift]) {
            return Ok(Self { input, weights: Weights::Device(DeviceDeconv::new(&gpu, &weight, &shift)?, gpu) });
        }
        let (isa, shape) = (Isa::detect(), [input, output]);
        let weights = if !is_fast(&[&weight, &shift]) {
            Weights::Plain { weight: weight.contiguous()?, bias: shift.reshape((1, output, 1, 1))? }
        } else if side * side >= PIXELS_FOR_WINOGRAD {
            let pack = |w: &[f32], b: Option<&[f32]>| WinogradDeconv::new(isa, shape, w, b.unwrap_or_default());
            Weights::Winograd(with_weights(&weight, Some(&shift), pack)?)
        } else {
            let pack = |w: &[f32], b: Option<&[f32]>| PackedDeconv::new(isa, shape, w, b.unwrap_or_default());
            Weights::Direct(with_weights(&weight, Some(&shift), pack)?)
        };
        Ok(Self { input, weights })
    }

    /// `[B, I, H, W] -> [B, O, 2H, 2W]`
    pub fn run(&self, x: &Features) -> Result<Features> {
        if let Weights::Plain { weight, bias } = &self.weights {
            count_plain_run();
            let y = x.to_tensor()?.conv_transpose2d(weight, 1, 0, 2, 1)?.broadcast_add(bias)?.relu()?;
            return Ok(Features::Plain(y));
        }
        #[cfg(feature = "cudnn")]
        if let Weights::Device(deconv, gpu) = &self.weights {
            return Ok(Features::Device(deconv.run(&x.to_device(gpu)?)?));
        }
        let converted;
        let map = match x {
            Features::Blocked(map) => map,
            Features::Plain(x) => {
                converted = to_map(x)?;
                &converted
            }
            #[cfg(feature = "cudnn")]
            Features::Device(_) => candle_core::bail!("the layer is on the processor, its input on a GPU"),
        };
        check_channels(self.input, map.channels)?;
        Ok(Features::Blocked(match &self.weights {
            Weights::Winograd(deconv) => deconv.run(map, true),
            Weights::Direct(deconv) => deconv.run(map, true),
            Weights::Plain { .. } => unreachable!("the plain way was taken above"),
            #[cfg(feature = "cudnn")]
            Weights::Device(..) => unreachable!("the GPU's way was taken above"),
        }))
    }
}

/// The three transposed convolutions that all heads share (`make_deconv`): `[B, 2048, h, w] -> [B, 256, 8h, 8w]`.
pub struct DeconvStack([Deconv2d; 3]);

impl DeconvStack {
    /// Reads layers 0, 1, 3, 4, 6 and 7 of `vb`, for maps of about `side` x `side` pixels.
    pub fn load([input, output]: [usize; 2], side: usize, vb: &VarBuilder) -> Result<Self> {
        let layer = |input, side, at: usize| Deconv2d::load([input, output], side, &vb.pp(at), &vb.pp(at + 1));
        Ok(Self([layer(input, side, 0)?, layer(output, 2 * side, 3)?, layer(output, 4 * side, 6)?]))
    }

    /// `[B, C, h, w] -> [B, 256, 8h, 8w]`
    pub fn run(&self, x: &Features) -> Result<Features> {
        let [a, b, c] = &self.0;
        c.run(&b.run(&a.run(x)?)?)
    }
}
