//! Weights and pictures that need no file: drawn from seeds, the same for everyone. `tests/peers/networks.py` draws the
//! same numbers, so that others compute what we do.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use candle_core::{DType, Device, Result, Shape, Tensor};
use candle_nn::var_builder::SimpleBackend;
use candle_nn::{Init, VarBuilder};
use image::RgbImage;

/// The next numbers of a small generator (SplitMix64), in [-1, 1).
pub(super) struct Noise(pub(super) u64);

impl Iterator for Noise {
    type Item = f32;
    fn next(&mut self) -> Option<f32> {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        Some(((z ^ (z >> 31)) >> 40) as f32 / (1 << 23) as f32 - 1.0)
    }
}

/// A picture of noise.
pub(super) fn picture(width: u32, height: u32) -> RgbImage {
    let mut numbers = Noise(7);
    let mut value = || (numbers.next().unwrap_or(0.0) * 127.0 + 128.0) as u8;
    RgbImage::from_fn(width, height, |_, _| image::Rgb([value(), value(), value()]))
}

static DRAWING_NANOS: AtomicU64 = AtomicU64::new(0);

/// Time spent drawing weights since the program started.
pub(super) fn drawing_secs() -> f64 {
    Duration::from_nanos(DRAWING_NANOS.load(Ordering::Relaxed)).as_secs_f64()
}

/// The weight of this name. Activations stay of order 1, as in trained networks, whatever the depth: convolutions keep
/// the variance of what a ReLU has passed (He et al. 2015), stems that read `0..=255` divide by it, residual blocks add
/// little to what they are given (the scale of their last batch norm), other batch norms do next to nothing. The
/// detector's boxes stay near their anchors, so that as many proposals as usual are left, and no score is so near to 1
/// that f32 cannot tell it from the next.
pub(super) fn weight(name: &str, shape: &[usize]) -> Vec<f32> {
    let started = Instant::now();
    let (offset, scale) = match shape {
        [_] if name.ends_with("bias") || name.ends_with("mean") => (0.0, 0.1),
        [_] if name.ends_with("bn3.weight") => (0.2, 0.0),
        [_] => (1.0, 0.0),
        _ => {
            let fan_in: usize = shape.iter().skip(1).product();
            let less = match name {
                "conv1.weight" | "backbone.conv1.weight" => 256.0,
                _ if name.ends_with("bbox_pred.weight") || name.ends_with("cls_logits.weight") => 8.0,
                _ if name.contains(".fpn.") => 2.0,
                _ => 1.0,
            };
            (0.0, (6.0 / fan_in.max(1) as f32).sqrt() / less)
        }
    };
    let count = shape.iter().product();
    let values = Noise(seed(name)).take(count).map(|v| offset + scale * v).collect();
    DRAWING_NANOS.fetch_add(started.elapsed().as_nanos() as u64, Ordering::Relaxed);
    values
}

/// FNV-1a.
fn seed(name: &str) -> u64 {
    name.bytes().fold(0xCBF2_9CE4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01B3))
}

/// Weights of the right size for any name.
pub(super) fn weights(device: &Device) -> VarBuilder<'static> {
    VarBuilder::from_backend(Box::new(Weights), DType::F32, device.clone())
}

struct Weights;

impl SimpleBackend for Weights {
    fn get(&self, shape: Shape, name: &str, _: Init, dtype: DType, device: &Device) -> Result<Tensor> {
        Tensor::from_vec(weight(name, shape.dims()), shape, device)?.to_dtype(dtype)
    }

    fn get_unchecked(&self, name: &str, _: DType, _: &Device) -> Result<Tensor> {
        candle_core::bail!("the shape of {name} is not known")
    }

    fn contains_tensor(&self, _: &str) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whoever changes these numbers changes those of tests/peers/networks.py too, which were computed there.
    #[test]
    fn others_can_draw_the_same_numbers() {
        assert_eq!(weight("conv1.weight", &[1, 3]), [0.000_498_012_4, 0.002_708_679_8, -0.005_271_020_3]);
        assert_eq!(weight("fc.bias", &[2]), [-0.004_469_740_7, -0.003_853_643]);
        assert_eq!(picture(1, 1).as_raw(), &[100, 5, 229]);
    }
}
