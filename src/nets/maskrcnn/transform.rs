//! Pictures to the network's input: resized, normalised, padded.

use anyhow::{Result, ensure};
use candle_core::Device;
use image::RgbImage;
use rayon::prelude::*;

use crate::memory::Buffer;
use crate::nets::layers::Values;

/// Mean of ImageNet's channels, of values in `[0, 1]`.
const MEAN: [f32; 3] = [0.485, 0.456, 0.406];
/// Standard deviation of ImageNet's channels.
const STD: [f32; 3] = [0.229, 0.224, 0.225];
/// Sides of the input are multiples of this, the stride of the coarsest residual stage.
const MULTIPLE: usize = 32;

/// Pictures as the network reads them.
pub struct Batch {
    /// `[B, 3, H, W]`, normalised; below and right of each picture zeros.
    pub pixels: Values,
    /// Sizes of each picture.
    pub sizes: Vec<ImageSize>,
}

/// Sizes of one picture, each as `[height, width]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageSize {
    /// As it came.
    pub original: [usize; 2],
    /// After resizing, before padding: the pixels that the network's boxes are in.
    pub resized: [usize; 2],
}

impl ImageSize {
    /// A box in resized pixels to one in the picture's own.
    pub fn original_from_resized(&self, [x0, y0, x1, y1]: [f32; 4]) -> [f32; 4] {
        let ratio = |axis: usize| self.original[axis] as f32 / self.resized[axis] as f32;
        [x0 * ratio(1), y0 * ratio(0), x1 * ratio(1), y1 * ratio(0)]
    }
}

/// `[height, width]` after resizing: the shorter side becomes `shorter` unless the longer one would exceed
/// `longest`; sides are floored.
pub fn resized_size([height, width]: [usize; 2], shorter: usize, longest: usize) -> [usize; 2] {
    let scale = (shorter as f64 / height.min(width) as f64).min(longest as f64 / height.max(width) as f64);
    [height, width].map(|side| ((side as f64 * scale).floor() as usize).max(1))
}

/// A side of the network's input for a resized side.
pub fn padded_size(resized: usize) -> usize {
    resized.next_multiple_of(MULTIPLE)
}

impl Batch {
    /// Resizes (bilinear, corners not aligned), normalises and pads.
    pub fn new(images: &[&RgbImage], shorter: usize, longest: usize, device: &Device) -> Result<Self> {
        let mut sizes = Vec::with_capacity(images.len());
        for image in images {
            let original = [image.height() as usize, image.width() as usize];
            ensure!(original[0] > 0 && original[1] > 0, "a picture has no pixels ({}x{})", original[1], original[0]);
            sizes.push(ImageSize { original, resized: resized_size(original, shorter, longest) });
        }
        ensure!(!images.is_empty(), "the detector was given no picture");
        let padded = |axis: usize| sizes.iter().map(|s| padded_size(s.resized[axis])).max().unwrap_or(0);
        let (height, width) = (padded(0), padded(1));
        let mut pixels = Buffer::zeroed(images.len() * 3 * height * width);
        for ((image, size), planes) in images.iter().zip(&sizes).zip(pixels.chunks_mut(3 * height * width)) {
            write_planes(image, size.resized, planes, height, width);
        }
        let pixels = Values::new(pixels, (images.len(), 3, height, width));
        Ok(Self { pixels: pixels.to_device(device)?, sizes })
    }

    /// The normalisation, for whoever does it elsewhere.
    #[cfg(any(test, feature = "cuda"))]
    pub fn scaling() -> crate::nets::cuda::kernels::Scaling {
        let [r, g, b] = [0, 1, 2].map(normalisation);
        crate::nets::cuda::kernels::Scaling { gain: [r.0, g.0, b.0], offset: [r.1, g.1, b.1] }
    }

    /// `[height, width]` of the padded input.
    pub fn padded(&self) -> [usize; 2] {
        let dims = self.pixels.dims();
        [dims[2], dims[3]]
    }
}

/// What a grey level of a channel is multiplied with, and what is added then.
fn normalisation(channel: usize) -> (f32, f32) {
    (1.0 / (255.0 * STD[channel]), -MEAN[channel] / STD[channel])
}

/// Writes the resized and normalised picture into the top-left corner of three planes of `height` x `width`.
fn write_planes(image: &RgbImage, resized: [usize; 2], planes: &mut [f32], height: usize, width: usize) {
    let source_width = image.width() as usize;
    let rgb = image.as_raw();
    let rows = axis_taps(image.height() as usize, resized[0]);
    let columns = axis_taps(source_width, resized[1]);
    let (rows, columns) = (&rows[..], &columns[..]);
    planes.par_chunks_mut(width).enumerate().for_each(|(row, out)| {
        let (channel, y) = (row / height, row % height);
        let Some(v) = rows.get(y) else { return };
        let (gain, offset) = normalisation(channel);
        let line = |y: usize| &rgb[3 * source_width * y + channel..];
        let (above, below) = (line(v.low as usize), line(v.high as usize));
        for (out, u) in out.iter_mut().zip(columns) {
            let at = |line: &[u8], pixel: u32| f32::from(line[3 * pixel as usize]);
            let mix = |line: &[u8]| u.mix(at(line, u.low), at(line, u.high));
            *out = v.mix(mix(above), mix(below)) * gain + offset;
        }
    });
}

/// The two source pixels between which a resized pixel lies, along one axis.
#[derive(Clone, Copy, Debug, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Tap {
    /// The pixel before.
    pub low: u32,
    /// The pixel after; the same at the far edge.
    pub high: u32,
    /// Weight of `high`.
    pub part: f32,
}

impl Tap {
    /// The value between the values of the two pixels.
    pub fn mix(&self, low: f32, high: f32) -> f32 {
        low * (1.0 - self.part) + high * self.part
    }
}

/// Where each of `output` pixels lies among `input` pixels: pixels are areas (corners are not aligned), and beyond
/// the edges the outermost pixel goes on.
pub fn axis_taps(input: usize, output: usize) -> Buffer<Tap> {
    let scale = input as f32 / output as f32;
    (0..output)
        .map(|i| {
            let at = (scale * (i as f32 + 0.5) - 0.5).max(0.0);
            let low = (at as usize).min(input - 1);
            Tap { low: low as u32, high: (low + 1).min(input - 1) as u32, part: (at - low as f32).min(1.0) }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_floored_and_the_longer_side_is_bounded() {
        assert_eq!(resized_size([480, 640], 800, 1333), [800, 1066]);
        assert_eq!(resized_size([240, 320], 256, 512), [256, 341]);
        assert_eq!(resized_size([1080, 1920], 800, 1333), [749, 1333]);
        assert_eq!(resized_size([2000, 1], 800, 1333), [1333, 1]);
    }

    #[test]
    fn a_picture_is_normalised_and_padded_with_zeros() -> Result<()> {
        let image = RgbImage::from_pixel(20, 10, image::Rgb([255, 0, 51]));
        let batch = Batch::new(&[&image], 10, 20, &Device::Cpu)?;
        assert_eq!(batch.padded(), [32, 32]);
        assert_eq!(batch.sizes, [ImageSize { original: [10, 20], resized: [10, 20] }]);
        let planes = batch.pixels.to_tensor()?.squeeze(0)?.to_vec3::<f32>()?;
        for (c, value) in [1.0, 0.0, 0.2].into_iter().enumerate() {
            let expected = (value - MEAN[c]) / STD[c];
            assert!((planes[c][9][19] - expected).abs() < 1e-5);
            assert_eq!((planes[c][10][0], planes[c][0][20]), (0.0, 0.0));
        }
        Ok(())
    }

    #[test]
    fn doubling_puts_new_pixels_at_quarters() {
        let taps = axis_taps(2, 4);
        let values: Vec<f32> =
            taps.iter().map(|t| t.mix([0.0, 4.0][t.low as usize], [0.0, 4.0][t.high as usize])).collect();
        assert_eq!(values, [0.0, 1.0, 3.0, 4.0]);
    }

    #[test]
    fn an_empty_picture_is_an_error() {
        assert!(Batch::new(&[&RgbImage::new(0, 5)], 800, 1333, &Device::Cpu).is_err());
        assert!(Batch::new(&[], 800, 1333, &Device::Cpu).is_err());
    }
}
