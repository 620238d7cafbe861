//! Patches, and the normalisations that checkpoints were trained with. On the processor these are passes of their own,
//! not folded into the first convolution: they take 0.1 % of a network's time (0.06 of 60 ms), and what pads a patch is
//! 0 after the normalisation, not before it.

use anyhow::{Result, bail};
use candle_core::{DType, Device, Result as CandleResult, Tensor};
use image::RgbImage;

use super::kernels::for_each_part;
use super::layers::Values;
use crate::memory::Buffer;

/// Mean of ImageNet's red, green and blue, in `[0, 1]`.
pub const IMAGENET_MEAN: [f32; 3] = [0.485, 0.456, 0.406];
/// Standard deviation of ImageNet's red, green and blue, in `[0, 1]`.
pub const IMAGENET_STD: [f32; 3] = [0.229, 0.224, 0.225];

/// Patches of one size, however they are at hand: pictures, or a tensor `[B, 3, H, W]`, RGB in `0..=255`.
#[derive(Clone, Copy)]
pub enum PatchBatch<'a> {
    /// As they were cut out.
    Pictures(&'a [RgbImage]),
    /// On the network's device.
    Tensor(&'a Tensor),
}

impl<'a> From<&'a [RgbImage]> for PatchBatch<'a> {
    fn from(pictures: &'a [RgbImage]) -> Self {
        Self::Pictures(pictures)
    }
}

impl<'a> From<&'a Tensor> for PatchBatch<'a> {
    fn from(tensor: &'a Tensor) -> Self {
        Self::Tensor(tensor)
    }
}

impl PatchBatch<'_> {
    /// `[B, 3, H, W]`
    pub fn dims(&self) -> Result<[usize; 4]> {
        match self {
            Self::Pictures(pictures) => {
                let [width, height] = common_size(pictures)?;
                Ok([pictures.len(), 3, height, width])
            }
            Self::Tensor(tensor) => Ok(tensor.dims4()?.into()),
        }
    }

    /// As they are, `[B, 3, H, W]`.
    pub fn to_tensor(&self, device: &Device) -> Result<Tensor> {
        match self {
            Self::Pictures(pictures) => patches_tensor(pictures, device),
            Self::Tensor(tensor) => Ok((*tensor).clone()),
        }
    }

    /// As the network reads them, `[B, 3, H, W]`.
    pub fn normalised(&self, by: &Normalisation, device: &Device) -> Result<Values> {
        match self {
            Self::Pictures(pictures) if device.is_cpu() => {
                let [width, height] = common_size(pictures)?;
                let mut planes = Buffer::take(pictures.len() * 3 * width * height);
                for (planes, picture) in planes.chunks_exact_mut(3 * width * height).zip(*pictures) {
                    by.of_bytes(picture, planes);
                }
                Ok(Values::new(planes, (pictures.len(), 3, height, width)))
            }
            Self::Pictures(pictures) => Ok(by.of_tensor(&patches_tensor(pictures, device)?)?.into()),
            Self::Tensor(tensor) => {
                let values = Values::from(*tensor);
                if !values.is_fast() {
                    return Ok(by.of_tensor(tensor)?.into());
                }
                let (batch, channels, height, width) = tensor.dims4()?;
                Ok(values.with_floats(|x| {
                    let mut planes: Buffer = Buffer::take(x.len());
                    for_each_part(&mut planes, (height * width).max(1), |plane, out| {
                        let (mean, deviation) = by.of_channel(plane % channels);
                        let x = &x[plane * height * width..];
                        out.iter_mut().zip(x).for_each(|(out, x)| *out = (x - mean) / deviation);
                    });
                    Ok(Values::new(planes, (batch, channels, height, width)))
                })?)
            }
        }
    }
}

/// Width and height of pictures of one size.
fn common_size(pictures: &[RgbImage]) -> Result<[usize; 2]> {
    let Some(first) = pictures.first() else { bail!("there is no patch to look at") };
    let (width, height) = first.dimensions();
    if let Some(other) = pictures.iter().find(|p| p.dimensions() != first.dimensions()) {
        bail!("patches of one batch have one size, not {width}x{height} and {}x{}", other.width(), other.height());
    }
    Ok([width as usize, height as usize])
}

/// Patches of one size as a tensor `[B, 3, H, W]`, RGB, `0..=255`. They cross to the device as bytes.
pub fn patches_tensor(patches: &[RgbImage], device: &Device) -> Result<Tensor> {
    let [width, height] = common_size(patches)?;
    let mut bytes = Vec::with_capacity(3 * width * height * patches.len());
    for patch in patches {
        bytes.extend_from_slice(patch.as_raw());
    }
    let interleaved = Tensor::from_vec(bytes, (patches.len(), height, width, 3), device)?;
    // [B, H, W, 3] -> [B, 3, H, W]
    Ok(interleaved.permute((0, 3, 1, 2))?.contiguous()?.to_dtype(DType::F32)?)
}

/// What is done to the grey levels `0..=255` of each channel: `(x - mean) / deviation`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Normalisation {
    /// Of red, green and blue.
    pub mean: [f32; 3],
    /// Of red, green and blue.
    pub deviation: [f32; 3],
}

impl Normalisation {
    /// I2L-MeshNet's: `0..=255` to `[0, 1]`.
    pub const UNIT_RANGE: Self = Self { mean: [0.0; 3], deviation: [255.0; 3] };

    /// RootNet's and 3D PoseNet's: ImageNet's mean and deviation on `0..=255`, *without* the division by 255 that they
    /// belong to. The release does so and its checkpoints expect it.
    pub const IMAGENET_UNDIVIDED: Self = Self { mean: IMAGENET_MEAN, deviation: IMAGENET_STD };

    fn of_channel(&self, channel: usize) -> (f32, f32) {
        (self.mean[channel], self.deviation[channel])
    }

    /// Of `[B, 3, H, W]`.
    pub fn of_tensor(&self, x: &Tensor) -> CandleResult<Tensor> {
        let channel = |values: [f32; 3]| Tensor::from_slice(&values, (1, 3, 1, 1), x.device())?.to_dtype(x.dtype());
        x.broadcast_sub(&channel(self.mean)?)?.broadcast_div(&channel(self.deviation)?)
    }

    /// Of pixels, red, green, blue side by side, to three planes.
    pub fn of_bytes(&self, pixels: &[u8], planes: &mut [f32]) {
        let pixels = pixels.as_chunks::<3>().0;
        assert_eq!(planes.len(), 3 * pixels.len(), "a number for each byte");
        for_each_part(planes, pixels.len().max(1), |channel, plane| {
            let (mean, deviation) = self.of_channel(channel);
            // There are few grey levels.
            let levels: [f32; 256] = std::array::from_fn(|level| (level as f32 - mean) / deviation);
            plane.iter_mut().zip(pixels).for_each(|(out, pixel)| *out = levels[usize::from(pixel[channel])]);
        });
    }
}

/// [`Normalisation::UNIT_RANGE`] of a tensor.
pub fn to_unit_range(patches: &Tensor) -> CandleResult<Tensor> {
    patches / 255.0
}

/// [`Normalisation::IMAGENET_UNDIVIDED`] of a tensor.
pub fn imagenet_undivided(patches: &Tensor) -> CandleResult<Tensor> {
    Normalisation::IMAGENET_UNDIVIDED.of_tensor(patches)
}

/// [`Normalisation::UNIT_RANGE`] for the GPU's kernels.
#[cfg(feature = "cudnn")]
pub const UNIT_RANGE: super::cuda::kernels::Scaling =
    super::cuda::kernels::Scaling { gain: [1.0 / 255.0; 3], offset: [0.0; 3] };

/// [`Normalisation::IMAGENET_UNDIVIDED`] for the GPU's kernels.
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

    #[test]
    fn pictures_and_tensors_are_normalised_alike() -> Result<()> {
        let picture =
            |seed: u32| RgbImage::from_fn(20, 10, |x, y| image::Rgb([x * 9, y * 17, x * y + seed].map(|v| v as u8)));
        let pictures = [picture(1), picture(77)];
        let tensor = patches_tensor(&pictures, &Device::Cpu)?;
        for by in [Normalisation::UNIT_RANGE, Normalisation::IMAGENET_UNDIVIDED] {
            let plain = by.of_tensor(&tensor)?.flatten_all()?.to_vec1::<f32>()?;
            for batch in [PatchBatch::from(&pictures[..]), PatchBatch::from(&tensor)] {
                assert_eq!(batch.dims()?, [2, 3, 10, 20]);
                let ours = batch.normalised(&by, &Device::Cpu)?;
                assert!(matches!(ours, Values::Reused(..)));
                assert!(*ours.fetch()? == plain[..]);
            }
        }
        // candle multiplies with the reciprocal.
        let unit = (to_unit_range(&tensor)? - Normalisation::UNIT_RANGE.of_tensor(&tensor)?)?;
        assert!(unit.abs()?.max_all()?.to_scalar::<f32>()? < 1e-6);
        Ok(())
    }
}
