//! Weights and pictures that need no file: drawn from seeds, the same for everyone.

use std::hash::{DefaultHasher, Hash, Hasher};
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

/// The weight of this name: convolutions keep the variance, batch norms do nothing.
pub(super) fn weight(name: &str, shape: &[usize]) -> Vec<f32> {
    let started = Instant::now();
    let is_scale = shape.len() == 1 && !name.ends_with("bias") && !name.ends_with("mean");
    let (offset, scale) = if is_scale {
        (1.0, 0.0)
    } else {
        let fan_in: usize = shape.iter().skip(1).product();
        (0.0, (3.0 / fan_in.max(1) as f32).sqrt())
    };
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    let count = shape.iter().product();
    let values = Noise(hasher.finish()).take(count).map(|v| offset + scale * v).collect();
    DRAWING_NANOS.fetch_add(started.elapsed().as_nanos() as u64, Ordering::Relaxed);
    values
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
