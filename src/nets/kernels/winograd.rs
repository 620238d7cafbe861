//! Winograd's minimal filtering F(4x4, 3x3) (Lavin and Gray, 2015): a 3x3 convolution with stride 1 in a quarter of
//! the products. Sixteen outputs of a 4x4 tile come from 36 products of transformed inputs and transformed weights,
//! instead of 144.
//!
//! One dimension: `y = A^T ((G g) * (B^T d))` with the Toom-Cook points 0, +-sqrt(1/2), +-sqrt(2), infinity. These
//! points, rather than the usual 0, +-1, +-2, keep all entries near 1 and so cost about a decimal digit less.

use rayon::prelude::*;

use super::Isa;
use super::conv::{Finish, pack_bias, residual_of};
use super::map::{Buffer, Map, for_each_part};
use super::simd::{Kernel, LANES, Lanes};
use super::tile::{Product, Steps, pack_weights};

/// Outputs of a tile in one dimension.
const OUT: usize = 4;
/// Inputs of a tile in one dimension.
const IN: usize = 6;
/// Products of a tile.
const POINTS: usize = IN * IN;
/// sqrt(1/2) and sqrt(2); `A2 * B2 = 1`.
const A: f32 = std::f32::consts::FRAC_1_SQRT_2;
const B: f32 = std::f32::consts::SQRT_2;
const A2: f32 = 0.5;
const B2: f32 = 2.0;
/// Floats of transformed inputs and outputs that are in flight: a part of the last cache.
const SCRATCH: usize = 2 << 20;

/// A 3x3 convolution with stride 1.
pub struct Winograd {
    isa: Isa,
    input: usize,
    output: usize,
    padding: usize,
    weights: Buffer, // one packed [input, output] matrix for each of the 36 points
    bias: Option<Buffer>,
}

impl Winograd {
    /// `weight` is `[output, input, 3, 3]`, `bias` `[output]`.
    pub fn new(isa: Isa, [output, input]: [usize; 2], padding: usize, weight: &[f32], bias: Option<&[f32]>) -> Self {
        assert_eq!(weight.len(), output * input * 9, "weights of another shape");
        let (blocks, products) = (output.div_ceil(LANES), input.next_multiple_of(LANES));
        let step = blocks * LANES * products;
        // [point][channel of the input][channel of the output]
        let transformed: Vec<[f32; POINTS]> =
            weight.par_chunks_exact(9).map(|g| transform_weights(g.try_into().expect("nine weights"))).collect();
        let mut weights = Buffer::take(POINTS * step);
        weights.par_chunks_exact_mut(step).enumerate().for_each(|(point, packed)| {
            pack_weights(isa, blocks, products, packed, |k, o| {
                if o < output && k < input { transformed[o * input + k][point] } else { 0.0 }
            });
        });
        Self { isa, input, output, padding, weights, bias: bias.map(pack_bias) }
    }

    /// Blocked in, blocked out.
    pub fn run(&self, x: &Map, finish: Finish) -> Map {
        assert!(x.channels == self.input, "{} channels for {}", x.channels, self.input);
        let side = |s: usize| (s + 2 * self.padding).saturating_sub(2);
        let mut out = Map::new([x.batch, self.output, side(x.height), side(x.width)]);
        if out.data.is_empty() {
            return out;
        }
        let residual = residual_of(&finish, &out);
        let (tile_rows, tile_cols) = (out.height.div_ceil(OUT), out.width.div_ceil(OUT));
        let per_row = tile_cols * POINTS * LANES * (x.blocks() + out.blocks());
        let rows_at_once = (SCRATCH / per_row).clamp(1, x.batch * tile_rows);
        for first in (0..x.batch * tile_rows).step_by(rows_at_once) {
            let rows = rows_at_once.min(x.batch * tile_rows - first);
            let grid = Grid { first, rows, tile_rows, tile_cols };
            self.run_rows(grid, x, residual, finish.relu, &mut out);
        }
        out
    }

    /// Some rows of tiles: inputs transformed, 36 matrix products, outputs transformed back.
    fn run_rows(&self, grid: Grid, x: &Map, residual: Option<&[f32]>, relu: bool, out: &mut Map) {
        let (isa, tiles, padding) = (self.isa, grid.rows * grid.tile_cols, self.padding);
        let (x_blocks, out_blocks) = (x.blocks(), out.blocks());
        let part = POINTS * tiles * LANES;
        let row_part = grid.tile_cols * LANES;

        // [block][point][tile][16]
        let mut inputs = Buffer::take(x_blocks * part);
        for_each_part(&mut inputs, part, |block, to| {
            isa.run(TransformInput { grid, x, block, padding, to });
        });

        let steps = Steps { batch: tiles * LANES, row: 0, col: LANES, block: part };
        let mut sums = Buffer::take(out_blocks * part);
        let product = Product {
            batch: POINTS,
            rows: 1,
            cols: tiles,
            blocks: out_blocks,
            x_steps: steps,
            planes: x_blocks,
            taps: &[0],
            depth: LANES,
            out_steps: steps,
            weight_batch_step: out_blocks * LANES * x_blocks * LANES,
            accumulate: false,
            relu: false,
        };
        product.run(isa, &inputs, &self.weights, None, None, &mut sums);

        let (height, width, plane) = (out.height, out.width, out.plane());
        let bias = self.bias.as_deref();
        for_each_part(&mut out.data, plane, |index, out| {
            let (image, block) = (index / out_blocks, index % out_blocks);
            let bias = bias.map_or([0.0; LANES], |b| b.as_chunks().0[block]);
            let residual = residual.map(|r| &r[index * plane..][..plane]);
            let sums = &sums[block * part..][..part];
            for_each_part(out, OUT * width * LANES, |tile_row, out| {
                let Some(row) = (image * grid.tile_rows + tile_row).checked_sub(grid.first).filter(|r| *r < grid.rows)
                else {
                    return;
                };
                debug_assert!(tile_row * OUT < height);
                let residual = residual.map(|r| &r[tile_row * OUT * width * LANES..][..out.len()]);
                let sums = &sums[row * row_part..];
                isa.run(TransformOutput {
                    sums,
                    step: tiles,
                    tile_cols: grid.tile_cols,
                    width,
                    bias,
                    residual,
                    relu,
                    out,
                });
            });
        });
    }
}

/// `rows` rows of tiles from the `first`th, counted through all images of `tile_rows` x `tile_cols` tiles.
#[derive(Clone, Copy)]
struct Grid {
    first: usize,
    rows: usize,
    tile_rows: usize,
    tile_cols: usize,
}

/// `G g G^T`
fn transform_weights(g: &[f32; 9]) -> [f32; POINTS] {
    // 1, p, p^2 over the product of the differences to all other points.
    let line = |g: [f64; 3]| {
        let (a, b) = (f64::sqrt(0.5), f64::sqrt(2.0));
        let (even_a, odd_a) = (g[0] + 0.5 * g[2], a * g[1]);
        let (even_b, odd_b) = (g[0] + 2.0 * g[2], b * g[1]);
        [g[0], (even_a + odd_a) / -1.5, (even_a - odd_a) / -1.5, (even_b + odd_b) / 6.0, (even_b - odd_b) / 6.0, g[2]]
    };
    let rows = [0, 1, 2].map(|r| line([0, 1, 2].map(|c| f64::from(g[r * 3 + c]))));
    let mut out = [0.0; POINTS];
    for c in 0..IN {
        for (r, x) in line([rows[0][c], rows[1][c], rows[2][c]]).into_iter().enumerate() {
            out[r * IN + c] = x as f32;
        }
    }
    out
}

/// `B^T d B` of one block of channels for all tiles of a grid.
struct TransformInput<'a> {
    grid: Grid,
    x: &'a Map,
    block: usize,
    padding: usize,
    to: &'a mut [f32], // [point][tile][16]
}

/// `B^T d` in one dimension.
#[inline(always)]
fn input_line<V: Lanes>(d: [V; IN]) -> [V; IN] {
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

impl Kernel for TransformInput<'_> {
    #[inline(always)]
    fn run<V: Lanes>(self) {
        let Self { grid, x, block, padding, to } = self;
        let to = to.as_chunks_mut::<LANES>().0;
        let tiles = grid.rows * grid.tile_cols;
        let zero = V::splat(0.0);
        for row in 0..grid.rows {
            let (image, tile_row) = ((grid.first + row) / grid.tile_rows, (grid.first + row) % grid.tile_rows);
            let plane = &x.data[(image * x.blocks() + block) * x.plane()..][..x.plane()];
            let plane = plane.as_chunks::<LANES>().0;
            for tile_col in 0..grid.tile_cols {
                // May begin before the image; wraps and is then past its end.
                let top = (tile_row * OUT).wrapping_sub(padding);
                let left = (tile_col * OUT).wrapping_sub(padding);
                let mut lines = [[zero; IN]; IN];
                for (r, line) in lines.iter_mut().enumerate() {
                    let y = top.wrapping_add(r);
                    if y >= x.height {
                        continue; // A row of zeros.
                    }
                    let pixels = &plane[y * x.width..][..x.width];
                    let mut d = [zero; IN];
                    if let Some(d_in) = pixels.get(left..left.wrapping_add(IN)) {
                        for (d, x) in d.iter_mut().zip(d_in) {
                            *d = V::load(x);
                        }
                    } else {
                        for (c, d) in d.iter_mut().enumerate() {
                            if let Some(x) = pixels.get(left.wrapping_add(c)) {
                                *d = V::load(x);
                            }
                        }
                    }
                    *line = input_line(d);
                }
                let tile = row * grid.tile_cols + tile_col;
                for c in 0..IN {
                    for (r, v) in input_line(lines.map(|line| line[c])).into_iter().enumerate() {
                        v.store(&mut to[(r * IN + c) * tiles + tile]);
                    }
                }
            }
        }
    }
}

/// `A^T m A` of one block of channels for one row of tiles, then bias, residual and activation.
struct TransformOutput<'a> {
    sums: &'a [f32], // [point][step, of which the first `tile_cols`][16]
    step: usize,
    tile_cols: usize,
    width: usize,
    bias: [f32; LANES],
    residual: Option<&'a [f32]>,
    relu: bool,
    out: &'a mut [f32], // up to four rows
}

/// `A^T m` in one dimension.
#[inline(always)]
fn output_line<V: Lanes>(m: [V; IN]) -> [V; OUT] {
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

impl Kernel for TransformOutput<'_> {
    #[inline(always)]
    fn run<V: Lanes>(self) {
        let Self { sums, step, tile_cols, width, bias, residual, relu, out } = self;
        let sums = sums.as_chunks::<LANES>().0;
        let out = out.as_chunks_mut::<LANES>().0;
        let residual = residual.map(|r| r.as_chunks::<LANES>().0);
        let bias = V::load(&bias);
        let zero = V::splat(0.0);
        let rows = out.len() / width;
        for tile in 0..tile_cols {
            let mut lines = [[zero; OUT]; IN];
            for (r, line) in lines.iter_mut().enumerate() {
                let mut m = [zero; IN];
                for (c, m) in m.iter_mut().enumerate() {
                    *m = V::load(&sums[(r * IN + c) * step + tile]);
                }
                *line = output_line(m);
            }
            // The last tile of a row, and the last row of tiles, may reach past the image.
            for c in 0..OUT.min(width - tile * OUT) {
                for (r, y) in output_line(lines.map(|line| line[c])).into_iter().enumerate().take(rows) {
                    let at = r * width + tile * OUT + c;
                    let mut y = y.add(bias);
                    if let Some(residual) = residual {
                        y = y.add(V::load(&residual[at]));
                    }
                    if relu {
                        y = y.max(zero);
                    }
                    y.store(&mut out[at]);
                }
            }
        }
    }
}
