//! A 3x3 convolution over 3D Gaussians whose depth slices are channels, without the volume: the Gaussians are
//! separable, see [`pose2feat`](crate::nets::pose2feat).

use rayon::prelude::*;

use super::Isa;
use super::map::Map;
use super::simd::{Kernel, LANES, Lanes};
use super::tile::count_multiply_adds;
use crate::memory::Buffer;

/// Side of the kernel.
const SIDE: usize = 3;
/// Taps of the kernel.
const TAPS: usize = SIDE * SIDE;
/// Pixels of a row that are summed side by side.
const PIXELS: usize = 8;

/// The convolution's weights.
pub struct PackedGaussians {
    isa: Isa,
    joints: usize,
    bins: usize,
    channels: usize,
    sigma: f32,
    weights: Buffer, // [joints][z][dx][dy][channels, whole blocks]
}

impl PackedGaussians {
    /// `weights` is `[joints, bins (z), channels, 3 (dx), 3 (dy)]`, `sigma` in bins.
    pub fn new(isa: Isa, [joints, bins, channels]: [usize; 3], sigma: f32, weights: &[f32]) -> Self {
        assert_eq!(weights.len(), joints * bins * channels * TAPS, "weights of another shape");
        let lanes = channels.next_multiple_of(LANES);
        let mut packed = Buffer::owned(joints * bins * TAPS * lanes);
        for (packed, weights) in packed.chunks_exact_mut(TAPS * lanes).zip(weights.chunks_exact(TAPS * channels)) {
            for (channel, weights) in weights.chunks_exact(TAPS).enumerate() {
                for (tap, weight) in weights.iter().enumerate() {
                    packed[tap * lanes + channel] = *weight;
                }
            }
        }
        Self { isa, joints, bins, channels, sigma, weights: packed }
    }

    /// Joints of each person.
    pub fn joints(&self) -> usize {
        self.joints
    }

    /// The convolution of the Gaussians around `coords`, `[people, joints, 3]` in bins: `[people, channels, bins,
    /// bins]`.
    pub fn run(&self, coords: &[f32]) -> Map {
        let Self { isa, joints, bins, channels, sigma, ref weights } = *self;
        assert!(coords.len().is_multiple_of(3 * joints), "three coordinates of each joint");
        let people = coords.len() / (3 * joints);
        let mut out = Map::new([people, channels, bins, bins]);
        let (blocks, lanes, width) = (out.blocks(), out.blocks() * LANES, bins.next_multiple_of(PIXELS));
        count_multiply_adds(people * joints * channels * (bins * TAPS + bins * TAPS + bins * bins * SIDE));

        // exp(-((i - coord) / sigma)^2 / 2), with a zero before the first bin and zeros after the last.
        let stride = width + 2;
        let mut factors = Buffer::zeroed(coords.len() * stride);
        for (factors, coord) in factors.chunks_exact_mut(stride).zip(coords) {
            for (i, factor) in factors[1..=bins].iter_mut().enumerate() {
                let offset = (i as f32 - coord) / sigma;
                *factor = (-0.5 * offset * offset).exp();
            }
        }
        let factors = |person: usize, joint: usize, axis: usize| {
            &factors[((person * joints + joint) * 3 + axis) * stride..][..stride]
        };

        // Over z: [person][joint][dx][dy][channels]
        let mut over_z: Buffer = Buffer::take(people * joints * TAPS * lanes);
        over_z.par_chunks_exact_mut(TAPS * lanes).enumerate().for_each(|(at, sums)| {
            let (person, joint) = (at / joints, at % joints);
            let weights = &weights[joint * bins * TAPS * lanes..][..bins * TAPS * lanes];
            isa.run(OverZ { factors: &factors(person, joint, 2)[1..=bins], weights, sums });
        });

        // Over y, then over x and the joints: one row of one block of channels at a time.
        let rows = out.data.par_chunks_exact_mut(bins * LANES).enumerate();
        rows.for_each_init(
            || Buffer::take(joints * SIDE * LANES),
            |over_y: &mut Buffer, (at, row)| {
                let (person, block, y) = (at / (blocks * bins), at / bins % blocks, at % bins);
                let over_z = &over_z[person * joints * TAPS * lanes..][..joints * TAPS * lanes];
                let factors = |joint, axis| factors(person, joint, axis);
                isa.run(Row { factors, over_z, lanes, block, y, over_y: over_y.as_chunks_mut().0, pixels: row });
            },
        );
        out
    }
}

/// Sum over z of one joint.
struct OverZ<'a> {
    factors: &'a [f32],
    weights: &'a [f32],
    sums: &'a mut [f32],
}

impl Kernel for OverZ<'_> {
    #[inline(always)]
    fn run<V: Lanes>(self) {
        let Self { factors, weights, sums } = self;
        let step = sums.len();
        for (at, sum) in sums.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
            let mut total = V::splat(0.0);
            for (factor, weights) in factors.iter().zip(weights.chunks_exact(step)) {
                total = total.add_product(V::load(&weights.as_chunks().0[at]), V::splat(*factor));
            }
            total.store(sum);
        }
    }
}

/// One row of one block of channels of one person.
struct Row<'a, F> {
    /// Of a joint along an axis.
    factors: F,
    over_z: &'a [f32],
    lanes: usize,
    block: usize,
    y: usize,
    /// Room for what the columns of each joint's kernel meet.
    over_y: &'a mut [[f32; LANES]],
    pixels: &'a mut [f32],
}

impl<'a, F: Fn(usize, usize) -> &'a [f32]> Kernel for Row<'_, F> {
    #[inline(always)]
    fn run<V: Lanes>(self) {
        let Self { factors, over_z, lanes, block, y, over_y, pixels } = self;
        for (joint, over_y) in over_y.as_chunks_mut::<SIDE>().0.iter_mut().enumerate() {
            let along_y = &factors(joint, 1)[y..y + SIDE];
            for (dx, out) in over_y.iter_mut().enumerate() {
                let mut sum = V::splat(0.0);
                for (dy, factor) in along_y.iter().enumerate() {
                    let at = ((joint * SIDE + dx) * SIDE + dy) * lanes + block * LANES;
                    sum = sum.add_product(V::load(&over_z[at..].as_chunks().0[0]), V::splat(*factor));
                }
                sum.store(out);
            }
        }
        for (at, pixels) in pixels.chunks_mut(PIXELS * LANES).enumerate() {
            let mut sums = [V::splat(0.0); PIXELS];
            for (joint, over_y) in over_y.as_chunks::<SIDE>().0.iter().enumerate() {
                let along_x = &factors(joint, 0)[at * PIXELS..][..PIXELS + 2];
                for (dx, over_y) in over_y.iter().enumerate() {
                    let value = V::load(over_y);
                    for (sum, factor) in sums.iter_mut().zip(&along_x[dx..dx + PIXELS]) {
                        *sum = sum.add_product(value, V::splat(*factor));
                    }
                }
            }
            for (sum, pixel) in sums.iter().zip(pixels.as_chunks_mut().0) {
                sum.store(pixel);
            }
        }
    }
}
