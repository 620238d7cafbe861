//! Weighted sums of pixels of blocked activations: what reading a region (RoIAlign) is made of.

use super::Isa;
use super::map::Map;
use super::simd::{Kernel, LANES, Lanes};

/// Groups of pixels; each group is one sum.
#[derive(Default)]
pub struct PixelGroups {
    /// Index of a pixel in its image, and what it contributes.
    pixels: Vec<(usize, f32)>,
    /// For each group the number of pixels up to and with its own.
    ends: Vec<usize>,
}

impl PixelGroups {
    /// No groups.
    pub fn clear(&mut self) {
        self.pixels.clear();
        self.ends.clear();
    }

    /// Adds pixels to the group that is being made.
    pub fn extend(&mut self, pixels: impl Iterator<Item = (usize, f32)>) {
        self.pixels.extend(pixels);
    }

    /// The group is complete; it may be empty.
    pub fn end_group(&mut self) {
        self.ends.push(self.pixels.len());
    }
}

/// The sums of each channel of one image, `[channels, groups]`.
pub fn gather(isa: Isa, x: &Map, image: usize, groups: &PixelGroups, out: &mut [f32]) {
    assert_eq!(out.len(), x.channels * groups.ends.len(), "a sum for each channel and group");
    isa.run(Gather { x, image, groups, out });
}

struct Gather<'a> {
    x: &'a Map,
    image: usize,
    groups: &'a PixelGroups,
    out: &'a mut [f32],
}

impl Kernel for Gather<'_> {
    #[inline(always)]
    fn run<V: Lanes>(self) {
        let Self { x, image, groups: PixelGroups { pixels, ends }, out } = self;
        if out.is_empty() {
            return;
        }
        let plane = x.plane();
        let image = &x.data[image * x.blocks() * plane..][..x.blocks() * plane];
        let mut sums = vec![[0.0f32; LANES]; ends.len()];
        for (block, out) in image.chunks_exact(plane).zip(out.chunks_mut(LANES * ends.len())) {
            let block = block.as_chunks::<LANES>().0;
            let mut start = 0;
            for (sum, &end) in sums.iter_mut().zip(ends) {
                // Two chains, because a sum waits for the one before it.
                let (mut even, mut odd) = (V::splat(0.0), V::splat(0.0));
                let pairs = pixels[start..end].chunks_exact(2);
                if let [(pixel, weight)] = *pairs.remainder() {
                    even = even.add_product(V::load(&block[pixel]), V::splat(weight));
                }
                for pair in pairs {
                    let [(p, wp), (q, wq)] = [pair[0], pair[1]];
                    even = even.add_product(V::load(&block[p]), V::splat(wp));
                    odd = odd.add_product(V::load(&block[q]), V::splat(wq));
                }
                even.add(odd).store(sum);
                start = end;
            }
            // The last block may hold fewer channels.
            for (lane, out) in out.chunks_exact_mut(ends.len()).enumerate() {
                for (out, sum) in out.iter_mut().zip(&sums) {
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
        let groups: [&[(usize, f32)]; 4] =
            [&[(0, 1.0)], &[], &[(3, 0.5), (11, -2.0), (7, 0.25)], &[(1, 0.1), (2, 0.2), (3, 0.3), (4, 0.4)]];
        let mut pixel_groups = PixelGroups::default();
        for group in groups {
            pixel_groups.extend(group.iter().copied());
            pixel_groups.end_group();
        }
        for isa in Isa::available() {
            for image in 0..2 {
                let mut out = vec![f32::NAN; 21 * 4];
                gather(isa, &map, image, &pixel_groups, &mut out);
                for (i, value) in out.iter().enumerate() {
                    let plane = &planar[(image * 21 + i / 4) * 12..][..12];
                    let expected: f32 = groups[i % 4].iter().map(|&(p, w)| plane[p] * w).sum();
                    assert!((value - expected).abs() < 1e-5, "{isa:?}, channel {}, group {}", i / 4, i % 4);
                }
            }
        }
    }
}
