//! RoIAlign over the pyramid: what a region looks like, as a small square map (He et al. 2017, section 3), in
//! torchvision's variant: not aligned, two samples along each side of a bin.
//!
//! Runs on the processor over maps whose channels lie last, so that a sample adds one run of memory. Maps that live
//! on a device are fetched first.

use anyhow::{Result, ensure};
use candle_core::Tensor;
use rayon::prelude::*;

use super::transform::ImageSize;
use super::{Corners, with_host};

/// Side of a region, in input pixels, that belongs to the canonical level.
const CANONICAL_SIDE: f32 = 224.0;
/// Level of a region of the canonical side; P2 is level 2.
const CANONICAL_LEVEL: f32 = 4.0;
/// Samples along each side of a bin.
const SAMPLES: usize = 2;
/// Channels that are turned around together: one cache line of them.
const TILE: usize = 16;

/// The maps of one picture that regions are read from, P2 to P5.
pub struct RoiMaps {
    levels: Vec<LevelMap>,
    channels: usize,
}

/// One map, channels last.
struct LevelMap {
    values: Vec<f32>, // [height, width, channels]
    height: usize,
    width: usize,
    /// Map pixels for each resized pixel.
    scale: f32,
}

impl RoiMaps {
    /// Takes the maps of one picture, each `[C, H, W]`, finest first.
    pub fn new(maps: &[Tensor], size: &ImageSize) -> Result<Self> {
        ensure!(!maps.is_empty(), "there are no maps to read regions from");
        let (channels, _, _) = maps[0].dims3()?;
        let levels = maps
            .iter()
            .map(|map| {
                let (c, height, width) = map.dims3()?;
                ensure!(c == channels, "the maps of a pyramid have {channels} channels, not {c}");
                let values = with_host(map, |values| channels_last(values, [channels, height, width]))?;
                // A power of two, as torchvision guesses it from the sizes before padding.
                let scale = (height as f32 / size.resized[0] as f32).log2().round().exp2();
                Ok(LevelMap { values, height, width, scale })
            })
            .collect::<Result<_>>()?;
        Ok(Self { levels, channels })
    }

    /// The level that a region is read from (Lin et al. 2017, equation 1).
    fn level_of(&self, [x0, y0, x1, y1]: Corners) -> &LevelMap {
        let first = -self.levels[0].scale.log2();
        let side = ((x1 - x0) * (y1 - y0)).sqrt();
        let level = (CANONICAL_LEVEL + (side / CANONICAL_SIDE).log2() + 1e-6).floor();
        // A region without area has the level minus infinity; the cast makes NaN a 0.
        let index = (level - first).clamp(0.0, (self.levels.len() - 1) as f32) as usize;
        &self.levels[index]
    }

    /// Regions (resized pixels) as `[N, C, side, side]`, row by row.
    pub fn align(&self, regions: &[Corners], side: usize) -> Vec<f32> {
        let bins = side * side;
        let mut out = vec![0.0f32; regions.len() * self.channels * bins];
        out.par_chunks_mut(self.channels * bins).zip(regions).for_each_init(
            || vec![0.0f32; bins * self.channels],
            |binned, (out, &region)| {
                self.level_of(region).read(region, side, self.channels, binned);
                transpose(binned, out, self.channels, bins);
            },
        );
        out
    }
}

impl LevelMap {
    /// Writes `[side, side, channels]`.
    fn read(&self, [x0, y0, x1, y1]: Corners, side: usize, channels: usize, binned: &mut [f32]) {
        let columns = bin_taps(x0 * self.scale, x1 * self.scale, side, self.width);
        let rows = bin_taps(y0 * self.scale, y1 * self.scale, side, self.height);
        for (bin, out) in binned.chunks_exact_mut(channels).enumerate() {
            out.fill(0.0);
            let columns = columns[bin % side].as_slice();
            for row in rows[bin / side].as_slice() {
                let line = &self.values[row.index * self.width * channels..];
                let pixel = |x: usize| &line[x * channels..][..channels];
                // Two pixels at once, which halves the traffic to `out`.
                for pair in columns.chunks(2) {
                    match *pair {
                        [a, b] => {
                            let (wa, wb) = (row.weight * a.weight, row.weight * b.weight);
                            let (a, b) = (pixel(a.index), pixel(b.index));
                            for ((out, a), b) in out.iter_mut().zip(a).zip(b) {
                                *out += wa * a + wb * b;
                            }
                        }
                        [a] => {
                            let wa = row.weight * a.weight;
                            for (out, a) in out.iter_mut().zip(pixel(a.index)) {
                                *out += wa * a;
                            }
                        }
                        _ => {}
                    }
                }
            }
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

/// `[C, H, W]` to `[H, W, C]`.
fn channels_last(values: &[f32], [channels, height, width]: [usize; 3]) -> Vec<f32> {
    let mut out = vec![0.0f32; values.len()];
    out.par_chunks_mut((width * channels).max(1)).enumerate().for_each(|(y, out)| {
        for first in (0..channels).step_by(TILE) {
            let last = (first + TILE).min(channels);
            for x in 0..width {
                for (c, out) in (first..last).zip(&mut out[x * channels + first..]) {
                    *out = values[(c * height + y) * width + x];
                }
            }
        }
    });
    out
}

/// `[bins, channels]` to `[channels, bins]`.
fn transpose(from: &[f32], to: &mut [f32], channels: usize, bins: usize) {
    for first in (0..channels).step_by(TILE) {
        let last = (first + TILE).min(channels);
        for bin in 0..bins {
            for (c, value) in (first..last).zip(&from[bin * channels + first..]) {
                to[c * bins + bin] = *value;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    const SIZE: ImageSize = ImageSize { original: [64, 96], resized: [64, 96] };

    fn pyramid(channels: usize) -> Result<Vec<Tensor>> {
        [(16, 24), (8, 12), (4, 6), (2, 3)]
            .iter()
            .map(|&(h, w)| {
                let count = channels * h * w;
                let values: Vec<f32> = (0..count).map(|i| ((i * 7919 + h) % 251) as f32 / 251.0 - 0.5).collect();
                Ok(Tensor::from_vec(values, (channels, h, w), &Device::Cpu)?)
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
        // Not a multiple of the tile, so that the remainder is tried too.
        let channels = 21;
        let maps = pyramid(channels)?;
        let roi_maps = RoiMaps::new(&maps, &SIZE)?;
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
            let values = roi_maps.align(&rois, side);
            for (n, &(roi, level)) in regions.iter().enumerate() {
                let scale = 1.0 / f32::from(4u8 << level);
                let level = maps[level].to_vec3::<f32>()?;
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
        let roi_maps = RoiMaps::new(&pyramid(1)?, &SIZE)?;
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
        assert!(RoiMaps::new(&pyramid(2)?, &SIZE)?.align(&[], 7).is_empty());
        Ok(())
    }
}
