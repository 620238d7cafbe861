//! Minimal filtering in one dimension (Winograd, 1980): four neighbouring outputs of a filter with r taps from
//! r + 3 products, `y = A^T ((G g) * (B^T d))`. The matrices follow Toom and Cook: A evaluates at chosen points, the
//! last of which is infinity; for points p, with M(x) the product of all (x - p), G has the rows `[1, p, p^2] / M'(p)`
//! and B^T the coefficients of `M(x) / (x - p)`.

use super::simd::Lanes;

/// Outputs of a tile.
pub const OUT: usize = 4;

/// F(4, r) with `IN = r + 3` inputs and products.
pub trait Filter<const IN: usize>: Send + Sync {
    /// r
    const TAPS: usize;
    /// `G g`; the taps past the `r`th are ignored.
    fn weights(g: [f64; 3]) -> [f64; IN];
    /// `B^T d`
    fn input<V: Lanes>(d: [V; IN]) -> [V; IN];
    /// `A^T m`
    fn output<V: Lanes>(m: [V; IN]) -> [V; OUT];
}

/// F(4, 3) with the points 0, +-sqrt(1/2), +-sqrt(2), infinity, rather than the usual 0, +-1, +-2: these keep all
/// entries near 1 and so cost about a decimal digit less.
pub struct Three;

const A: f32 = std::f32::consts::FRAC_1_SQRT_2;
const B: f32 = std::f32::consts::SQRT_2;
const A2: f32 = 0.5;
const B2: f32 = 2.0;

impl Filter<6> for Three {
    const TAPS: usize = 3;

    fn weights(g: [f64; 3]) -> [f64; 6] {
        let (even_a, odd_a) = (g[0] + 0.5 * g[2], f64::sqrt(0.5) * g[1]);
        let (even_b, odd_b) = (g[0] + 2.0 * g[2], f64::sqrt(2.0) * g[1]);
        [g[0], (even_a + odd_a) / -1.5, (even_a - odd_a) / -1.5, (even_b + odd_b) / 6.0, (even_b - odd_b) / 6.0, g[2]]
    }

    #[inline(always)]
    fn input<V: Lanes>(d: [V; 6]) -> [V; 6] {
        let k = |x: f32| V::splat(x);
        let even_a = d[4].add_product(d[2], k(-B2));
        let even_b = d[4].add_product(d[2], k(-A2));
        let odd_a = d[3].add_product(d[1], k(-B2));
        let odd_b = d[3].add_product(d[1], k(-A2));
        [
            d[0].add(d[4]).add_product(d[2], k(-A2 - B2)),
            even_a.add_product(odd_a, k(A)),
            even_a.add_product(odd_a, k(-A)),
            even_b.add_product(odd_b, k(B)),
            even_b.add_product(odd_b, k(-B)),
            d[1].add(d[5]).add_product(d[3], k(-A2 - B2)),
        ]
    }

    #[inline(always)]
    fn output<V: Lanes>(m: [V; 6]) -> [V; OUT] {
        let k = |x: f32| V::splat(x);
        let (sum_a, diff_a) = (m[1].add(m[2]), m[1].sub(m[2]));
        let (sum_b, diff_b) = (m[3].add(m[4]), m[3].sub(m[4]));
        let zero = k(0.0);
        [
            m[0].add(sum_a).add(sum_b),
            zero.add_product(diff_a, k(A)).add_product(diff_b, k(B)),
            zero.add_product(sum_a, k(A2)).add_product(sum_b, k(B2)),
            m[5].add_product(diff_a, k(A * A2)).add_product(diff_b, k(B * B2)),
        ]
    }
}

/// F(4, 2) with the points 0, +-1, 1/2, infinity.
pub struct Two;

const P: f32 = 0.5;

impl Filter<5> for Two {
    const TAPS: usize = 2;

    fn weights(g: [f64; 3]) -> [f64; 5] {
        let p = f64::from(P);
        [
            g[0] / p,
            (g[0] + g[1]) / (2.0 * (1.0 - p)),
            (g[0] - g[1]) / (-2.0 * (1.0 + p)),
            (g[0] + p * g[1]) / (p * (p * p - 1.0)),
            g[1],
        ]
    }

    #[inline(always)]
    fn input<V: Lanes>(d: [V; 5]) -> [V; 5] {
        let k = |x: f32| V::splat(x);
        let (a, b, c) = (d[0].sub(d[2]), d[3].sub(d[1]), d[4].sub(d[2]));
        [
            b.add_product(a, k(P)),
            d[3].add_product(d[2], k(1.0 - P)).add_product(d[1], k(-P)),
            d[3].add_product(d[2], k(-1.0 - P)).add_product(d[1], k(P)),
            b,
            c.add_product(b, k(-P)),
        ]
    }

    #[inline(always)]
    fn output<V: Lanes>(m: [V; 5]) -> [V; OUT] {
        let k = |x: f32| V::splat(x);
        let (sum, diff) = (m[1].add(m[2]), m[1].sub(m[2]));
        [
            m[0].add(sum).add(m[3]),
            diff.add_product(m[3], k(P)),
            sum.add_product(m[3], k(P * P)),
            m[4].add(diff).add_product(m[3], k(P * P * P)),
        ]
    }
}
