//! Patches as tensors, and the normalisations that checkpoints were trained with. On the processor these are passes of
//! their own, not folded into the first convolution: they take 0.1 % of a network's time (0.06 of 60 ms), and what pads
//! a patch is 0 after the normalisation, not before it.

use anyhow::{Result, bail};
use candle_core::{DType, Device, Result as CandleResult, Tensor};
use image::RgbImage;

/// Mean of ImageNet's red, green and blue, in `[0, 1]`.
pub const IMAGENET_MEAN: [f32; 3] = [0.485, 0.456, 0.406];
/// Standard deviation of ImageNet's red, green and blue, in `[0, 1]`.
pub const IMAGENET_STD: [f32; 3] = [0.229, 0.224, 0.225];

/// Patches of one size as the tensor that every network reads: `[B, 3, H, W]`, RGB, `0..=255`. They cross to the
/// device as bytes.
pub fn patches_tensor(patches: &[RgbImage], device: &Device) -> Result<Tensor> {
    let Some(first) = patches.first() else { bail!("there is no patch to make a tensor of") };
    let (width, height) = first.dimensions();
    if let Some(other) = patches.iter().find(|p| p.dimensions() != first.dimensions()) {
        bail!("patches of one batch have one size, not {width}x{height} and {}x{}", other.width(), other.height());
    }
    let mut bytes = Vec::with_capacity(first.as_raw().len() * patches.len());
    for patch in patches {
        bytes.extend_from_slice(patch.as_raw());
    }
    let interleaved = Tensor::from_vec(bytes, (patches.len(), height as usize, width as usize, 3), device)?;
    // [B, H, W, 3] -> [B, 3, H, W]
    Ok(interleaved.permute((0, 3, 1, 2))?.contiguous()?.to_dtype(DType::F32)?)
}

/// I2L-MeshNet's normalisation: `0..=255` to `[0, 1]`.
pub fn to_unit_range(patches: &Tensor) -> CandleResult<Tensor> {
    patches / 255.0
}

/// RootNet's and 3D PoseNet's normalisation: ImageNet's mean and deviation on `0..=255`, *without* the division by
/// 255 that they belong to. The release does so and its checkpoints expect it.
pub fn imagenet_undivided(patches: &Tensor) -> CandleResult<Tensor> {
    let channel = |values: [f32; 3]| Tensor::from_slice(&values, (1, 3, 1, 1), patches.device());
    patches.broadcast_sub(&channel(IMAGENET_MEAN)?)?.broadcast_div(&channel(IMAGENET_STD)?)
}

/// [`to_unit_range`] for the GPU's kernels.
#[cfg(feature = "cudnn")]
pub const UNIT_RANGE: super::cuda::kernels::Scaling =
    super::cuda::kernels::Scaling { gain: [1.0 / 255.0; 3], offset: [0.0; 3] };

/// [`imagenet_undivided`] for the GPU's kernels.
#[cfg(feature = "cudnn")]
pub const IMAGENET_UNDIVIDED: super::cuda::kernels::Scaling = super::cuda::kernels::Scaling {
    gain: [1.0 / IMAGENET_STD[0], 1.0 / IMAGENET_STD[1], 1.0 / IMAGENET_STD[2]],
    offset: [
        -IMAGENET_MEAN[0] / IMAGENET_STD[0],
        -IMAGENET_MEAN[1] / IMAGENET_STD[1],
        -IMAGENET_MEAN[2] / IMAGENET_STD[2],
    ],
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patches_become_planes_of_their_channels() {
        let red = RgbImage::from_pixel(2, 2, image::Rgb([255, 0, 0]));
        let mut blue = RgbImage::from_pixel(2, 2, image::Rgb([0, 0, 7]));
        blue.put_pixel(1, 0, image::Rgb([1, 2, 3]));
        let tensor = patches_tensor(&[red, blue], &Device::Cpu).unwrap();
        assert_eq!(tensor.dims(), [2, 3, 2, 2]);
        let values: Vec<f32> = tensor.flatten_all().unwrap().to_vec1().unwrap();
        assert_eq!(values[..4], [255.0; 4]);
        assert_eq!(values[20..], [7.0, 3.0, 7.0, 7.0]);
        assert!(patches_tensor(&[], &Device::Cpu).is_err());
        assert!(patches_tensor(&[RgbImage::new(2, 2), RgbImage::new(3, 2)], &Device::Cpu).is_err());
    }
}
