//! RoIAlign over the pyramid: what a region looks like, as a small square map (He et al. 2017, section 3), in
//! torchvision's variant: not aligned, two samples along each side of a bin.
//!
//! Runs on the processor, over maps in blocks of 16 channels: the layout that the fast convolutions leave them in, so
//! there a sample adds one cache line and nothing is copied. Maps that live on a device are fetched first.

use anyhow::{Result, ensure};
use rayon::prelude::*;

use super::transform::ImageSize;
use super::{Corners, host};
use crate::memory::Buffer;
use crate::nets::kernels::{Isa, Map, PixelGroups, WeightedPixel, gather};
use crate::nets::layers::Features;

/// Side of a region, in input pixels, that belongs to the canonical level.
const CANONICAL_SIDE: f32 = 224.0;
/// Level of a region of the canonical side; P2 is level 2.
const CANONICAL_LEVEL: f32 = 4.0;
/// Levels that regions are read from, P2 to P5; the pool level serves the proposals only.
const LEVELS: usize = 4;
/// Samples along each side of a bin.
const SAMPLES: usize = 2;

/// The maps that the regions of a batch are read from.
pub struct RoiMaps {
    levels: Vec<LevelMap>,
    channels: usize,
}

/// One level.
struct LevelMap {
    map: Map,
    /// Map pixels for each resized pixel.
    scale: f32,
}

impl RoiMaps {
    /// Takes the pyramid, finest map first.
    pub fn new(pyramid: Vec<Features>, sizes: &[ImageSize]) -> Result<Self> {
        let height = sizes.iter().map(|size| size.resized[0]).max().unwrap_or(0);
        let mut levels = Vec::with_capacity(LEVELS);
        for features in pyramid.into_iter().take(LEVELS) {
            let map = match features {
                Features::Blocked(map) => map,
                Features::Plain(x) => {
                    let (b, c, h, w) = x.dims4()?;
                    Map::from_planar([b, c, h, w], &host(&x)?)
                }
                #[cfg(feature = "cudnn")]
                Features::Device(x) => {
                    let dims = x.dims;
                    let shape = [dims.batch, dims.channels, dims.height, dims.width];
                    Map::from_planar(shape, &host(&x.to_tensor()?)?)
                }
            };
            // A power of two, as torchvision guesses it from the sizes before padding.
            let scale = (map.height as f32 / height as f32).log2().round().exp2();
            levels.push(LevelMap { map, scale });
        }
        let channels = levels.first().map_or(0, |level| level.map.channels);
        ensure!(
            levels.len() == LEVELS && levels.iter().all(|l| l.map.channels == channels && l.map.batch == sizes.len()),
            "a pyramid has {LEVELS} levels of equal channels and pictures"
        );
        Ok(Self { levels, channels })
    }

    /// The level that a region is read from (Lin et al. 2017, equation 1).
    fn level_of(&self, [x0, y0, x1, y1]: Corners) -> &LevelMap {
        let first = -self.levels[0].scale.log2();
        let side = ((x1 - x0) * (y1 - y0)).sqrt();
        let level = (CANONICAL_LEVEL + (side / CANONICAL_SIDE).log2() + 1e-6).floor();
        // A region without area has the level minus infinity; the cast makes NaN a 0.
        let index = (level - first).clamp(0.0, (LEVELS - 1) as f32) as usize;
        &self.levels[index]
    }

    /// Regions of one picture of the batch (resized pixels) as `[N, C, side, side]`, row by row.
    pub fn align(&self, image: usize, regions: &[Corners], side: usize) -> Buffer {
        let size = self.channels * side * side;
        let mut out: Buffer = Buffer::take(regions.len() * size);
        let room = || PixelGroups::new(side * side, (2 * SAMPLES).pow(2));
        out.par_chunks_mut(size).zip(regions).for_each_init(room, |bins, (out, &region)| {
            let level = self.level_of(region);
            level.bins(region, side, bins);
            gather(Isa::detect(), &level.map, image, bins, out);
        });
        out
    }
}

impl LevelMap {
    /// Which pixels each bin of a region reads, row by row.
    fn bins(&self, region: Corners, side: usize, bins: &mut PixelGroups) {
        let Map { height, width, .. } = self.map;
        let [x0, y0, x1, y1] = region.map(|v| v * self.scale);
        let (columns, rows) = (bin_taps(x0, x1, side, width), bin_taps(y0, y1, side, height));
        bins.clear();
        for (row, column) in rows.iter().flat_map(|row| columns.iter().map(move |column| (row, column))) {
            let pixels = row.as_slice().iter().flat_map(|v| {
                let pixel = move |u: &Tap| (v.index * width + u.index, v.weight * u.weight);
                column.as_slice().iter().map(pixel)
            });
            bins.add(pixels.map(|(index, weight)| WeightedPixel { index: index as u32, weight }));
        }
    }
}

/// A pixel along one axis and what it contributes.
#[derive(Clone, Copy, Default)]
struct Tap {
    index: usize,
    weight: f32,
}

/// The pixels that one bin reads along one axis: two for each sample, fewer where samples share them.
#[derive(Clone, Copy, Default)]
struct BinTaps {
    taps: [Tap; 2 * SAMPLES],
    count: usize,
}

impl BinTaps {
    fn add(&mut self, index: usize, weight: f32) {
        if let Some(tap) = self.taps[..self.count].iter_mut().find(|tap| tap.index == index) {
            tap.weight += weight;
        } else {
            self.taps[self.count] = Tap { index, weight };
            self.count += 1;
        }
    }

    fn as_slice(&self) -> &[Tap] {
        &self.taps[..self.count]
    }
}

/// What each bin reads along one axis of a map of `size` pixels, for a region from `start` to `end` (map pixels).
/// Bilinear weights are products of the two axes' weights, so each axis is worked out once.
fn bin_taps(start: f32, end: f32, bins: usize, size: usize) -> Vec<BinTaps> {
    let bin_side = (end - start).max(1.0) / bins as f32;
    (0..bins)
        .map(|bin| {
            let mut taps = BinTaps::default();
            for sample in 0..SAMPLES {
                let at = start + bin as f32 * bin_side + (sample as f32 + 0.5) * bin_side / SAMPLES as f32;
                if !(-1.0..=size as f32).contains(&at) {
                    continue; // beyond the map: zero
                }
                let share = 1.0 / SAMPLES as f32;
                let at = at.max(0.0);
                let low = at as usize;
                if low >= size - 1 {
                    taps.add(size - 1, share);
                } else {
                    let part = at - low as f32;
                    taps.add(low, share * (1.0 - part));
                    taps.add(low + 1, share * part);
                }
            }
            taps
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};

    use super::*;

    const SIZE: ImageSize = ImageSize { original: [64, 96], resized: [64, 96] };

    fn blocked(maps: &[Tensor]) -> Result<RoiMaps> {
        let features = maps.iter().map(Features::new).collect::<candle_core::Result<Vec<_>>>()?;
        RoiMaps::new(features, &[SIZE, SIZE])
    }

    /// Two pictures.
    fn pyramid(channels: usize) -> Result<Vec<Tensor>> {
        [(16, 24), (8, 12), (4, 6), (2, 3)]
            .iter()
            .map(|&(h, w)| {
                let count = channels * h * w;
                let values: Vec<f32> = (0..2 * count).map(|i| ((i * 7919 + h) % 251) as f32 / 251.0 - 0.5).collect();
                Ok(Tensor::from_vec(values, (2, channels, h, w), &Device::Cpu)?)
            })
            .collect()
    }

    /// torchvision's text: the value of one bin, sample by sample.
    fn naive_bin(map: &[Vec<f32>], scale: f32, roi: Corners, side: usize, by: usize, bx: usize) -> f32 {
        let (height, width) = (map.len() as f32, map[0].len() as f32);
        let [x0, y0, x1, y1] = roi.map(|v| v * scale);
        let (w, h) = ((x1 - x0).max(1.0) / side as f32, (y1 - y0).max(1.0) / side as f32);
        let mut sum = 0.0;
        for sy in 0..2 {
            for sx in 0..2 {
                let y = y0 + by as f32 * h + (sy as f32 + 0.5) * h / 2.0;
                let x = x0 + bx as f32 * w + (sx as f32 + 0.5) * w / 2.0;
                if y < -1.0 || y > height || x < -1.0 || x > width {
                    continue;
                }
                let (y, x) = (y.max(0.0).min(height - 1.0), x.max(0.0).min(width - 1.0));
                let (yl, xl) = (y as usize, x as usize);
                let (yh, xh) = ((yl + 1).min(map.len() - 1), (xl + 1).min(map[0].len() - 1));
                let (ly, lx) = (y - yl as f32, x - xl as f32);
                sum += (1.0 - ly) * ((1.0 - lx) * map[yl][xl] + lx * map[yl][xh])
                    + ly * ((1.0 - lx) * map[yh][xl] + lx * map[yh][xh]);
            }
        }
        sum / 4.0
    }

    #[test]
    fn agrees_with_the_definition_bin_by_bin() -> Result<()> {
        // Not a multiple of the block, so that the remainder is tried too.
        let channels = 21;
        let maps = pyramid(channels)?;
        let plain = RoiMaps::new(maps.iter().cloned().map(Features::Plain).collect(), &[SIZE, SIZE])?;
        let roi_maps = blocked(&maps)?;
        let regions: [(Corners, usize); 7] = [
            ([3.0, 5.0, 30.0, 25.0], 0),
            ([-20.0, -30.0, 12.0, 9.0], 0),
            ([80.0, 50.0, 130.0, 120.0], 0),
            ([0.0, 0.0, 0.0, 0.0], 0),
            ([10.5, 11.5, 10.7, 60.0], 0),
            ([-20.0, -20.0, 130.0, 130.0], 1),
            ([-200.0, -200.0, 700.0, 700.0], 3),
        ];
        for side in [7, 14] {
            let rois: Vec<Corners> = regions.iter().map(|r| r.0).collect();
            let values = roi_maps.align(1, &rois, side);
            assert_eq!(*values, *plain.align(1, &rois, side));
            for (n, &(roi, level)) in regions.iter().enumerate() {
                let scale = 1.0 / f32::from(4u8 << level);
                let level = maps[level].get(1)?.to_vec3::<f32>()?;
                for c in 0..channels {
                    for bin in 0..side * side {
                        let value = values[(n * channels + c) * side * side + bin];
                        let expected = naive_bin(&level[c], scale, roi, side, bin / side, bin % side);
                        assert!((value - expected).abs() < 1e-5, "region {n}, channel {c}, bin {bin}");
                    }
                }
            }
        }
        Ok(())
    }

    #[test]
    fn the_level_follows_the_side_of_the_region() -> Result<()> {
        let roi_maps = blocked(&pyramid(1)?)?;
        let strides = |side: f32| 1.0 / roi_maps.level_of([0.0, 0.0, side, side]).scale;
        for (side, stride) in
            [(0.0, 4.0), (111.0, 4.0), (112.0, 8.0), (223.9, 8.0), (224.0, 16.0), (448.0, 32.0), (9e9, 32.0)]
        {
            assert_eq!(strides(side), stride, "side {side}");
        }
        assert_eq!(strides(f32::NAN), 4.0);
        Ok(())
    }

    #[test]
    fn no_region_gives_no_value() -> Result<()> {
        assert!(blocked(&pyramid(2)?)?.align(0, &[], 7).is_empty());
        assert!(RoiMaps::new(Vec::new(), &[SIZE]).is_err());
        Ok(())
    }
}
