//! Weighted sums of pixels of blocked activations: what reading a region (RoIAlign) is made of.

use super::Isa;
use super::map::Map;
use super::simd::{Kernel, LANES, Lanes};
use crate::memory::Buffer;

/// A pixel of an image and what it contributes.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct WeightedPixel {
    /// Its index.
    pub index: u32,
    /// What it is multiplied with.
    pub weight: f32,
}

/// Groups of pixels; each group is one sum.
pub struct PixelGroups {
    pixels: Buffer<WeightedPixel>,
    count: usize,
    /// For each group the number of pixels up to and with its own.
    ends: Buffer<u32>,
    groups: usize,
    /// Room for a sum of each group.
    sums: Buffer,
}

impl PixelGroups {
    /// No groups yet, and room for so many, with at most so many pixels each.
    pub fn new(groups: usize, pixels: usize) -> Self {
        let sums = Buffer::take(groups * LANES);
        Self { pixels: Buffer::take(groups * pixels), count: 0, ends: Buffer::take(groups), groups: 0, sums }
    }

    /// No groups.
    pub fn clear(&mut self) {
        (self.count, self.groups) = (0, 0);
    }

    /// Adds a group; it may be empty.
    pub fn add(&mut self, pixels: impl Iterator<Item = WeightedPixel>) {
        for (to, pixel) in self.pixels[self.count..].iter_mut().zip(pixels) {
            *to = pixel;
            self.count += 1;
        }
        self.ends[self.groups] = self.count as u32;
        self.groups += 1;
    }
}

/// The sums of each channel of one image, `[channels, groups]`.
pub fn gather(isa: Isa, x: &Map, image: usize, groups: &mut PixelGroups, out: &mut [f32]) {
    assert_eq!(out.len(), x.channels * groups.groups, "a sum for each channel and group");
    isa.run(Gather { x, image, groups, out });
}

struct Gather<'a> {
    x: &'a Map,
    image: usize,
    groups: &'a mut PixelGroups,
    out: &'a mut [f32],
}

impl Kernel for Gather<'_> {
    #[inline(always)]
    fn run<V: Lanes>(self) {
        let Self { x, image, groups: PixelGroups { pixels, count, ends, groups, sums }, out } = self;
        let (pixels, ends) = (&pixels[..*count], &ends[..*groups]);
        let sums = &mut sums.as_chunks_mut::<LANES>().0[..ends.len()];
        if out.is_empty() {
            return;
        }
        let plane = x.plane();
        let image = &x.data[image * x.blocks() * plane..][..x.blocks() * plane];
        for (block, out) in image.chunks_exact(plane).zip(out.chunks_mut(LANES * ends.len())) {
            let block = block.as_chunks::<LANES>().0;
            let mut start = 0;
            for (sum, &end) in sums.iter_mut().zip(ends) {
                let end = end as usize;
                // Two chains, because a sum waits for the one before it.
                let (mut even, mut odd) = (V::splat(0.0), V::splat(0.0));
                let pairs = pixels[start..end].chunks_exact(2);
                if let [WeightedPixel { index, weight }] = *pairs.remainder() {
                    even = even.add_product(V::load(&block[index as usize]), V::splat(weight));
                }
                for pair in pairs {
                    let [p, q] = [pair[0], pair[1]];
                    even = even.add_product(V::load(&block[p.index as usize]), V::splat(p.weight));
                    odd = odd.add_product(V::load(&block[q.index as usize]), V::splat(q.weight));
                }
                even.add(odd).store(sum);
                start = end;
            }
            // The last block may hold fewer channels.
            for (lane, out) in out.chunks_exact_mut(ends.len()).enumerate() {
                for (out, sum) in out.iter_mut().zip(sums.iter()) {
                    *out = sum[lane];
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_agree_with_their_definition_on_all_instruction_sets() {
        let shape = [2, 21, 3, 4];
        let planar: Vec<f32> = (0..2 * 21 * 12).map(|i| ((i * 37) % 101) as f32 / 50.0 - 1.0).collect();
        let map = Map::from_planar(shape, &planar);
        let groups: [&[(u32, f32)]; 4] =
            [&[(0, 1.0)], &[], &[(3, 0.5), (11, -2.0), (7, 0.25)], &[(1, 0.1), (2, 0.2), (3, 0.3), (4, 0.4)]];
        let mut pixel_groups = PixelGroups::new(4, 4);
        for group in groups {
            pixel_groups.add(group.iter().map(|&(index, weight)| WeightedPixel { index, weight }));
        }
        for isa in Isa::available() {
            for image in 0..2 {
                let mut out = vec![f32::NAN; 21 * 4];
                gather(isa, &map, image, &mut pixel_groups, &mut out);
                for (i, value) in out.iter().enumerate() {
                    let plane = &planar[(image * 21 + i / 4) * 12..][..12];
                    let expected: f32 = groups[i % 4].iter().map(|&(p, w)| plane[p as usize] * w).sum();
                    assert!((value - expected).abs() < 1e-5, "{isa:?}, channel {}, group {}", i / 4, i % 4);
                }
            }
        }
    }
}
