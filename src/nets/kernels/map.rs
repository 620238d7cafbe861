//! Activations in the layout that the kernels like, and the memory that they live in.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};

use rayon::prelude::*;

use super::simd::LANES;

thread_local! {
    /// Buffers that this thread has used and will use again.
    static FREE: RefCell<Vec<Vec<Line>>> = const { RefCell::new(Vec::new()) };
}

/// One cache line, so that buffers begin at one.
#[derive(Clone, Copy, Default, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
struct Line([f32; LANES]);

/// Floats on a cache-line boundary.
pub struct Buffer {
    lines: Vec<Line>,
    len: usize,
    reused: bool,
}

impl Buffer {
    /// `len` zeros in memory of their own, for what stays.
    pub fn owned(len: usize) -> Self {
        Self { lines: vec![Line::default(); len.div_ceil(LANES)], len, reused: false }
    }

    /// `len` arbitrary floats in memory that this thread has used before and will use again: the smallest free piece
    /// that is large enough. Where there is none, a new piece takes the place of the largest, so there are never
    /// more pieces than were in use at the same time, and none is allocated any more when the sizes repeat.
    pub fn take(len: usize) -> Self {
        let count = len.div_ceil(LANES);
        let free = FREE.with_borrow_mut(|free| {
            let fits = (0..free.len()).filter(|&i| free[i].len() >= count).min_by_key(|&i| free[i].len());
            let largest = || (0..free.len()).max_by_key(|&i| free[i].len());
            fits.or_else(largest).map(|i| free.swap_remove(i))
        });
        let lines = free.filter(|lines| lines.len() >= count).unwrap_or_else(|| vec![Line::default(); count]);
        Self { lines, len, reused: true }
    }

    /// `len` zeros.
    pub fn zeroed(len: usize) -> Self {
        let mut buffer = Self::take(len);
        buffer.fill(0.0);
        buffer
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if !self.reused {
            return;
        }
        let lines = std::mem::take(&mut self.lines);
        // A thread that ends has no use for it any more.
        let _ = FREE.try_with(|free| free.borrow_mut().push(lines));
    }
}

impl Deref for Buffer {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        &bytemuck::cast_slice(&self.lines)[..self.len]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut bytemuck::cast_slice_mut(&mut self.lines)[..self.len]
    }
}

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
    pub fn to_planar(&self) -> Vec<f32> {
        let (pixels, channels, blocks) = (self.height * self.width, self.channels, self.blocks());
        let mut planar = vec![0.0; self.batch * channels * pixels];
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Where the free memory of this thread lies, and how much it is.
    fn free() -> Vec<(usize, usize)> {
        let mut all = FREE.with_borrow(|free| free.iter().map(|f| (f.as_ptr() as usize, f.len())).collect::<Vec<_>>());
        all.sort_unstable();
        all
    }

    #[test]
    fn repeated_work_takes_no_new_memory() {
        let frame = || {
            let a = Map::new([1, 40, 9, 9]);
            let b = a.padded(3);
            drop(a);
            let c = b.padded(1);
            let _small = Buffer::take(100);
            drop((b, Map::new([2, 16, 8, 8])));
            drop(c);
        };
        // Few frames settle which piece serves what.
        (0..5).for_each(|_| frame());
        let settled = free();
        (0..20).for_each(|_| frame());
        assert_eq!(free(), settled);
        assert!(settled.len() <= 4, "no more pieces than are in use at once: {settled:?}");
    }

    #[test]
    fn growing_demands_replace_memory_instead_of_piling_it_up() {
        (1..100).for_each(|i| drop(Buffer::take(i * 1000)));
        assert_eq!(free().iter().map(|f| f.1).collect::<Vec<_>>(), [99_000_usize.div_ceil(LANES)]);
    }

    #[test]
    fn weights_leave_with_their_network() {
        drop(Buffer::owned(1000));
        assert_eq!(free(), []);
    }
}
