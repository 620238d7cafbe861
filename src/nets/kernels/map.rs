//! Activations in the layout that the kernels like.

use rayon::prelude::*;

use super::simd::LANES;
use crate::memory::Buffer;

/// `[batch, channels / 16, height, width, 16]`: sixteen channels of a pixel side by side. Channels past the last
/// are zero.
pub struct Map {
    /// The floats.
    pub data: Buffer,
    /// Images.
    pub batch: usize,
    /// Channels, without those that fill the last block.
    pub channels: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

impl Map {
    /// Memory for a map; what it holds is arbitrary.
    pub fn new([batch, channels, height, width]: [usize; 4]) -> Self {
        let data = Buffer::take(batch * channels.div_ceil(LANES) * height * width * LANES);
        Self { data, batch, channels, height, width }
    }

    /// `[batch, channels, height, width]`
    pub fn shape(&self) -> [usize; 4] {
        [self.batch, self.channels, self.height, self.width]
    }

    /// Blocks of 16 channels.
    pub fn blocks(&self) -> usize {
        self.channels.div_ceil(LANES)
    }

    /// Floats of one block of channels of one image.
    pub fn plane(&self) -> usize {
        self.height * self.width * LANES
    }

    /// From `[batch, channels, height, width]`, row-major.
    pub fn from_planar(shape: [usize; 4], planar: &[f32]) -> Self {
        let mut map = Self::new(shape);
        let (pixels, channels, blocks) = (map.height * map.width, map.channels, map.blocks());
        for_each_part(&mut map.data, pixels * LANES, |plane, out| {
            let (image, block) = (plane / blocks, plane % blocks);
            let first = block * LANES;
            let present = LANES.min(channels - first);
            let x = &planar[(image * channels + first) * pixels..][..present * pixels];
            if present < LANES {
                out.fill(0.0);
            }
            // In runs that stay in the nearest cache.
            for start in (0..pixels).step_by(LANES) {
                let run = LANES.min(pixels - start);
                for (lane, x) in x.chunks_exact(pixels).enumerate() {
                    for (pixel, &x) in x[start..start + run].iter().enumerate() {
                        out[(start + pixel) * LANES + lane] = x;
                    }
                }
            }
        });
        map
    }

    /// To `[batch, channels, height, width]`, row-major.
    pub fn to_planar(&self) -> Buffer {
        let (pixels, channels, blocks) = (self.height * self.width, self.channels, self.blocks());
        let mut planar = Buffer::take(self.batch * channels * pixels);
        // An image's last block may have fewer channels, so images are cut first.
        for (image, planar) in planar.chunks_exact_mut(channels * pixels).enumerate() {
            for_each_part(planar, LANES * pixels, |block, out| {
                let x = &self.data[(image * blocks + block) * pixels * LANES..][..pixels * LANES];
                for start in (0..pixels).step_by(LANES) {
                    let run = LANES.min(pixels - start);
                    for (lane, out) in out.chunks_exact_mut(pixels).enumerate() {
                        for (pixel, out) in out[start..start + run].iter_mut().enumerate() {
                            *out = x[(start + pixel) * LANES + lane];
                        }
                    }
                }
            });
        }
        planar
    }

    /// The same with `padding` zeros around each image, in memory of its own.
    #[must_use]
    pub fn padded(&self, padding: usize) -> Self {
        let (height, width) = (self.height + 2 * padding, self.width + 2 * padding);
        let mut out = Self::new([self.batch, self.channels, height, width]);
        let (row, out_plane) = (self.width * LANES, out.plane());
        for_each_part(&mut out.data, out_plane, |plane, out| {
            pad(&self.data[plane * self.plane()..][..self.plane()], row, padding, padding * LANES, out);
        });
        out
    }
}

/// Copies rows of `row` floats into the middle of `out`, with zeros around: `rows` of them above and below,
/// `cols` floats left and right.
pub fn pad(x: &[f32], row: usize, rows: usize, cols: usize, out: &mut [f32]) {
    let out_row = row + 2 * cols;
    let (above, rest) = out.split_at_mut(rows * out_row);
    let (middle, below) = rest.split_at_mut(x.len() / row * out_row);
    above.fill(0.0);
    below.fill(0.0);
    for (x, out) in x.chunks_exact(row).zip(middle.chunks_exact_mut(out_row)) {
        out[..cols].fill(0.0);
        out[cols..cols + row].copy_from_slice(x);
        out[cols + row..].fill(0.0);
    }
}

/// Calls `work` with each run of `part` floats, on all threads where there is enough to do.
pub fn for_each_part(data: &mut [f32], part: usize, work: impl Fn(usize, &mut [f32]) + Sync + Send) {
    // Copying 64 KiB takes about as long as waking a thread.
    if data.len() < 16_384 || data.len() <= part {
        data.chunks_mut(part).enumerate().for_each(|(i, data)| work(i, data));
    } else {
        data.par_chunks_mut(part).enumerate().for_each(|(i, data)| work(i, data));
    }
}
