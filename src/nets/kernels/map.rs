//! Activations in the layout that the kernels like, and the memory that they live in.

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rayon::prelude::*;

use super::simd::LANES;

/// Buffers that have been used and will be used again.
static FREE: Mutex<Free> = Mutex::new(Free(Vec::new()));

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

    /// `len` arbitrary floats in memory that has been used before and will be used again.
    pub fn take(len: usize) -> Self {
        // Not in one expression, so that the lock is not held while memory is cleared.
        let free = Free::lock().take(len.div_ceil(LANES));
        let lines = free.unwrap_or_else(|| vec![Line::default(); len.div_ceil(LANES)]);
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
        if self.reused {
            Free::lock().0.push(std::mem::take(&mut self.lines));
        }
    }
}

/// Gives back the memory that no work uses at the moment; the next work takes it anew. For when a network has gone.
pub fn release_memory() {
    let pieces = std::mem::take(&mut Free::lock().0);
    drop(pieces);
}

/// Pieces of memory that nobody uses at the moment.
struct Free(Vec<Vec<Line>>);

impl Free {
    fn lock() -> MutexGuard<'static, Self> {
        // A list of free memory is whole at any time.
        FREE.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The smallest piece of at least `count` lines. Where there is none, the largest is given up for the new one
    /// that the caller will make, so there are never more pieces than were in use at the same time, and none is
    /// allocated any more when the sizes repeat.
    fn take(&mut self, count: usize) -> Option<Vec<Line>> {
        let Self(free) = self;
        let fits = (0..free.len()).filter(|&i| free[i].len() >= count).min_by_key(|&i| free[i].len());
        let largest = || (0..free.len()).max_by_key(|&i| free[i].len());
        let lines = fits.or_else(largest).map(|i| free.swap_remove(i));
        lines.filter(|lines| lines.len() >= count)
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

    /// Takes pieces of these sizes one after the other, then gives all back.
    fn frame(free: &mut Free, sizes: &[usize]) {
        let taken: Vec<_> =
            sizes.iter().map(|&count| free.take(count).unwrap_or_else(|| vec![Line::default(); count])).collect();
        assert!(taken.iter().zip(sizes).all(|(lines, &count)| lines.len() >= count));
        free.0.extend(taken);
    }

    /// Where the free memory lies, and how much it is.
    fn pieces(free: &Free) -> Vec<(usize, usize)> {
        let mut all: Vec<_> = free.0.iter().map(|lines| (lines.as_ptr() as usize, lines.len())).collect();
        all.sort_unstable();
        all
    }

    #[test]
    fn repeated_work_takes_no_new_memory() {
        let mut free = Free(Vec::new());
        let both = |free: &mut Free| {
            frame(free, &[40, 900, 300]);
            frame(free, &[900, 7, 41]);
        };
        // Few frames settle which piece serves what.
        (0..5).for_each(|_| both(&mut free));
        let settled = pieces(&free);
        (0..20).for_each(|_| both(&mut free));
        assert_eq!(pieces(&free), settled);
        assert_eq!(settled.len(), 3, "no more pieces than are in use at once: {settled:?}");
    }

    #[test]
    fn growing_demands_replace_memory_instead_of_piling_it_up() {
        let mut free = Free(Vec::new());
        (1..100).for_each(|i| frame(&mut free, &[i]));
        assert_eq!(pieces(&free).iter().map(|f| f.1).collect::<Vec<_>>(), [99]);
    }
}
