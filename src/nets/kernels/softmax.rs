//! Softmax of short rows, with the mean and the deviation of the index: what a 1D heatmap is read by, in one pass.

use super::Isa;
use super::simd::{Kernel, LANES, Lanes};

/// Lowest argument whose exponential is a normal number.
const LOWEST: f32 = -87.0;

/// e^x for x up to 0; what lies below -87 counts as -87. Cody and Waite's reduction, x = n ln 2 + r, and a polynomial
/// for e^r on |r| <= ln 2 / 2: within two units in the last place.
#[inline(always)]
pub fn exp<V: Lanes>(x: V) -> V {
    // ln 2 in two parts, of which the first has few digits, so that n times it is exact.
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    // In this order what is not a number stays so.
    let x = V::splat(LOWEST).max(x);
    let (n, power) = V::split_power_of_two(V::splat(0.0).add_product(x, V::splat(std::f32::consts::LOG2_E)));
    let r = x.add_product(n, V::splat(-LN2_HIGH)).add_product(n, V::splat(-LN2_LOW));
    // 1 + r + r^2 / 2! + .. + r^7 / 7!
    let mut sum = V::splat(1.0 / 5040.0);
    for coefficient in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        sum = V::splat(coefficient).add_product(sum, r);
    }
    V::splat(0.0).add_product(sum, power)
}

/// 1D heatmaps of points along three axes.
pub struct Heatmaps<'a> {
    /// Probabilities, `[points, 3, bins]`.
    pub probabilities: &'a mut [f32],
    /// Mean of the index, `[points, 3]`.
    pub means: &'a mut [f32],
    /// Standard deviation of the index, `[points, 3]`.
    pub deviations: &'a mut [f32],
}

/// Softmax of rows of `bins` and the moments of the index. `logits` are those along x, y and z, `[points, bins]` each.
pub fn heatmaps(isa: Isa, bins: usize, logits: [&[f32]; 3], out: Heatmaps) {
    let values = logits[0].len();
    assert!(bins > 0 && logits.iter().all(|l| l.len() == values), "rows of {bins}");
    assert!(out.probabilities.len() == 3 * values && out.means.len() == 3 * values / bins, "three rows for each point");
    assert_eq!(out.means.len(), out.deviations.len(), "two moments for each row");
    isa.run(Rows { bins, logits, out });
}

struct Rows<'a> {
    bins: usize,
    logits: [&'a [f32]; 3],
    out: Heatmaps<'a>,
}

impl Kernel for Rows<'_> {
    #[inline(always)]
    fn run<V: Lanes>(self) {
        let Self { bins, logits, out: Heatmaps { probabilities, means, deviations } } = self;
        let mut first = [0.0; LANES];
        (0..LANES).for_each(|lane| first[lane] = lane as f32);
        let blocks = bins.div_ceil(LANES);
        // A row in whole blocks; what fills the last one has no probability.
        let mut row = vec![[f32::NEG_INFINITY; LANES]; blocks];
        let moments = means.iter_mut().zip(deviations);
        for ((at, heatmap), (mean_out, deviation_out)) in probabilities.chunks_exact_mut(bins).enumerate().zip(moments)
        {
            let logits = &logits[at % 3][at / 3 * bins..][..bins];
            row.as_flattened_mut()[..bins].copy_from_slice(logits);
            let mut most = V::splat(f32::NEG_INFINITY);
            for block in &row {
                most = most.max(V::load(block));
            }
            let most = V::splat(across(most, f32::max));
            let (mut total, mut weighted) = (V::splat(0.0), V::splat(0.0));
            for (i, block) in row.iter_mut().enumerate() {
                let index = V::load(&first).add(V::splat((i * LANES) as f32));
                exp(V::load(block).sub(most)).store(block);
                // Below the lowest argument is not quite 0.
                let filled = bins.saturating_sub(i * LANES);
                if filled < LANES {
                    block[filled..].fill(0.0);
                }
                let p = V::load(block);
                total = total.add(p);
                weighted = weighted.add_product(p, index);
            }
            let scale = 1.0 / across(total, |a, b| a + b);
            let mean = across(weighted, |a, b| a + b) * scale;
            let mut squares = V::splat(0.0);
            for (i, block) in row.iter_mut().enumerate() {
                let offset = V::load(&first).add(V::splat((i * LANES) as f32 - mean));
                let p = V::splat(0.0).add_product(V::load(block), V::splat(scale));
                squares = squares.add_product(V::splat(0.0).add_product(p, offset), offset);
                p.store(block);
            }
            heatmap.copy_from_slice(&row.as_flattened()[..bins]);
            row.as_flattened_mut()[bins..].fill(f32::NEG_INFINITY);
            (*mean_out, *deviation_out) = (mean, across(squares, |a, b| a + b).sqrt());
        }
    }
}

/// Softmax of sixteen lines at once: `logits` and `out` are `[bins]`, one line a lane.
pub fn line_probabilities(isa: Isa, logits: &[[f32; LANES]], out: &mut [[f32; LANES]]) {
    assert_eq!(logits.len(), out.len(), "a probability for each logit");
    isa.run(Lines { logits, out });
}

struct Lines<'a> {
    logits: &'a [[f32; LANES]],
    out: &'a mut [[f32; LANES]],
}

impl Kernel for Lines<'_> {
    #[inline(always)]
    fn run<V: Lanes>(self) {
        let Self { logits, out } = self;
        let most = logits.iter().fold(V::splat(f32::NEG_INFINITY), |most, x| most.max(V::load(x)));
        let mut total = V::splat(0.0);
        for (x, out) in logits.iter().zip(out.iter_mut()) {
            let e = exp(V::load(x).sub(most));
            total = total.add(e);
            e.store(out);
        }
        let mut scale = [0.0; LANES];
        total.store(&mut scale);
        let scale = V::load(&scale.map(f32::recip));
        for out in out.iter_mut() {
            V::splat(0.0).add_product(V::load(out), scale).store(out);
        }
    }
}

/// All lanes of a vector into one number.
#[inline(always)]
fn across<V: Lanes>(v: V, f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [0.0; LANES];
    v.store(&mut lanes);
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] = f(lanes[i], lanes[i + width]);
        }
        width /= 2;
    }
    lanes[0]
}
