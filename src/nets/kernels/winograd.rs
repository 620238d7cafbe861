//! Winograd's minimal filtering in two dimensions (Lavin and Gray, 2015): a 4x4 tile of outputs from one product for
//! each of its points, of transformed inputs and transformed weights: 36 instead of 144 for a 3x3 convolution, 25
//! instead of 64 for the 2x2 convolutions that a transposed convolution is made of.

use std::marker::PhantomData;

use super::Isa;
use super::conv::{Finish, pack_bias, residual_of, tap_of_parity};
use super::map::{Map, for_each_part};
use super::minimal::{Filter, OUT, Three, Two};
use super::simd::{Kernel, LANES, Lanes};
use super::tile::{Product, Steps, pack_groups};
use crate::memory::Buffer;

/// Floats of transformed inputs and outputs that are in flight: a part of the last cache.
const SCRATCH: usize = 2 << 20;

/// A 3x3 convolution with stride 1.
pub struct Winograd {
    filter: Transformed<Three, 6>,
    padding: usize,
    bias: Option<Buffer>,
}

impl Winograd {
    /// `weight` is `[output, input, 3, 3]`, `bias` `[output]`.
    pub fn new(isa: Isa, [output, input]: [usize; 2], padding: usize, weight: &[f32], bias: Option<&[f32]>) -> Self {
        assert_eq!(weight.len(), output * input * 9, "weights of another shape");
        let filter =
            Transformed::new(isa, [output, input], |o, i, row, col| weight[(o * input + i) * 9 + row * 3 + col]);
        Self { filter, padding, bias: bias.map(pack_bias) }
    }

    /// The way back through a convolution with `weight` `[output, input, 3, 3]` and padding 1: a convolution with the
    /// kernel turned by 180 degrees, channels exchanged.
    pub fn turned(isa: Isa, [output, input]: [usize; 2], weight: &[f32]) -> Self {
        assert_eq!(weight.len(), output * input * 9, "weights of another shape");
        let filter =
            Transformed::new(isa, [input, output], |i, o, row, col| weight[(o * input + i) * 9 + 8 - row * 3 - col]);
        Self { filter, padding: 1, bias: None }
    }

    /// Blocked in, blocked out.
    pub fn run(&self, x: &Map, finish: Finish) -> Map {
        let side = |s: usize| (s + 2 * self.padding).saturating_sub(2);
        let mut out = Map::new([x.batch, self.filter.output, side(x.height), side(x.width)]);
        let target = Target { rows: out.height, cols: out.width, step: 1, first: [0; 2], padding: [self.padding; 2] };
        self.filter.run(target, x, self.bias.as_deref(), finish, &mut out);
        out
    }
}

/// Transposed convolution, kernel 4, stride 2, padding 1: four 2x2 convolutions, see [`super::PackedDeconv`].
pub struct WinogradDeconv {
    filters: [Transformed<Two, 5>; 4],
    bias: Buffer,
}

impl WinogradDeconv {
    /// `weight` is `[input, output, 4, 4]`, `bias` `[output]`.
    pub fn new(isa: Isa, [input, output]: [usize; 2], weight: &[f32], bias: &[f32]) -> Self {
        assert_eq!(weight.len(), output * input * 16, "weights of another shape");
        let filters = [0, 1, 2, 3].map(|parity| {
            Transformed::new(isa, [output, input], |o, i, row, col| {
                let (row, col) = (tap_of_parity(parity / 2, row), tap_of_parity(parity % 2, col));
                weight[(i * output + o) * 16 + row * 4 + col]
            })
        });
        Self { filters, bias: pack_bias(bias) }
    }

    /// `[B, I, H, W] -> [B, O, 2H, 2W]`
    pub fn run(&self, x: &Map, relu: bool) -> Map {
        let mut out = Map::new([x.batch, self.filters[0].output, 2 * x.height, 2 * x.width]);
        for (parity, filter) in self.filters.iter().enumerate() {
            let first = [parity / 2, parity % 2];
            let target = Target { rows: x.height, cols: x.width, step: 2, first, padding: first.map(|odd| 1 - odd) };
            filter.run(target, x, Some(&self.bias), Finish { residual: None, relu }, &mut out);
        }
        out
    }
}

/// Which pixels of the output a filter writes: `rows` x `cols` of them from `first`, with `step` between neighbours.
/// Output (0, 0) reads the input from `padding` pixels before its first.
#[derive(Clone, Copy)]
struct Target {
    rows: usize,
    cols: usize,
    step: usize,
    first: [usize; 2],
    padding: [usize; 2],
}

/// The transformed weights of one filter.
struct Transformed<F, const IN: usize> {
    isa: Isa,
    input: usize,
    output: usize,
    weights: Buffer, // one packed [input, output] matrix for each point
    filter: PhantomData<F>,
}

impl<F: Filter<IN>, const IN: usize> Transformed<F, IN> {
    /// Products of a tile.
    const POINTS: usize = IN * IN;

    /// `weight(o, i, row, col)`
    fn new(isa: Isa, [output, input]: [usize; 2], weight: impl Fn(usize, usize, usize, usize) -> f32 + Sync) -> Self {
        let (blocks, products) = (output.div_ceil(LANES), input.next_multiple_of(LANES));
        let mut weights = Buffer::owned(Self::POINTS * blocks * LANES * products);
        pack_groups(isa, blocks, Self::POINTS * products, &mut weights, |first, width, packed| {
            // The memory was zero: channels past the last stay so.
            let channels = width.min(output - first);
            for i in 0..input {
                for o in 0..channels {
                    let points = Self::transform(|row, col| weight(first + o, i, row, col));
                    for (point, value) in points.as_flattened().iter().enumerate() {
                        packed[(point * products + i) * width + o] = *value;
                    }
                }
            }
        });
        Self { isa, input, output, weights, filter: PhantomData }
    }

    /// `G g G^T`
    fn transform(weight: impl Fn(usize, usize) -> f32) -> [[f32; IN]; IN] {
        let line = |f: &dyn Fn(usize) -> f64| {
            let mut taps = [0.0; 3];
            taps.iter_mut().enumerate().take(F::TAPS).for_each(|(tap, value)| *value = f(tap));
            F::weights(taps)
        };
        let mut rows = [[0.0; IN]; 3];
        for (row, to) in rows.iter_mut().enumerate().take(F::TAPS) {
            *to = line(&|col| f64::from(weight(row, col)));
        }
        let mut points = [[0.0; IN]; IN];
        for col in 0..IN {
            for (to, value) in points.iter_mut().zip(line(&|row| rows[row][col])) {
                to[col] = value as f32;
            }
        }
        points
    }

    fn run(&self, target: Target, x: &Map, bias: Option<&[f32]>, finish: Finish, out: &mut Map) {
        assert!(x.channels == self.input, "{} channels for {}", x.channels, self.input);
        if out.data.is_empty() {
            return;
        }
        let residual = residual_of(&finish, out);
        let (tile_rows, tile_cols) = (target.rows.div_ceil(OUT), target.cols.div_ceil(OUT));
        let per_row = tile_cols * Self::POINTS * LANES * (x.blocks() + out.blocks());
        let rows_at_once = (SCRATCH / per_row).clamp(1, x.batch * tile_rows);
        for first in (0..x.batch * tile_rows).step_by(rows_at_once) {
            let rows = rows_at_once.min(x.batch * tile_rows - first);
            let grid = Grid { first, rows, tile_rows, tile_cols };
            self.run_rows(grid, target, x, bias, residual, finish.relu, out);
        }
    }

    /// Some rows of tiles: inputs transformed, a matrix product for each point, outputs transformed back.
    #[expect(clippy::too_many_arguments, reason = "the parts of one call that all rows share")]
    fn run_rows(
        &self,
        grid: Grid,
        target: Target,
        x: &Map,
        bias: Option<&[f32]>,
        residual: Option<&[f32]>,
        relu: bool,
        out: &mut Map,
    ) {
        let (isa, tiles) = (self.isa, grid.rows * grid.tile_cols);
        let (x_blocks, out_blocks) = (x.blocks(), out.blocks());
        let part = Self::POINTS * tiles * LANES;

        // [block][point][tile][16]
        let mut inputs = Buffer::take(x_blocks * part);
        for_each_part(&mut inputs, part, |block, to| {
            isa.run(TransformInput::<F, IN> { grid, x, block, padding: target.padding, to, filter: PhantomData });
        });

        let steps = Steps { batch: tiles * LANES, row: 0, col: LANES, block: part };
        let mut sums = Buffer::take(out_blocks * part);
        let product = Product {
            batch: Self::POINTS,
            rows: 1,
            cols: tiles,
            blocks: out_blocks,
            x_steps: steps,
            planes: x_blocks,
            taps: &[0],
            depth: LANES,
            out_steps: steps,
            own_weights: true,
            accumulate: false,
            relu: false,
        };
        product.run(isa, &inputs, &self.weights, None, None, &mut sums);

        let (width, plane) = (out.width, out.plane());
        let rows_part = OUT * target.step * width * LANES;
        for_each_part(&mut out.data, plane, |index, out| {
            let (image, block) = (index / out_blocks, index % out_blocks);
            let bias = bias.map_or([0.0; LANES], |b| b.as_chunks().0[block]);
            let residual = residual.map(|r| &r[index * plane..][..plane]);
            let sums = &sums[block * part..][..part];
            for_each_part(out, rows_part, |tile_row, out| {
                let Some(row) = (image * grid.tile_rows + tile_row).checked_sub(grid.first) else { return };
                if row >= grid.rows {
                    return;
                }
                isa.run(TransformOutput::<F, IN> {
                    sums: &sums[row * grid.tile_cols * LANES..],
                    tiles,
                    tile_cols: grid.tile_cols,
                    target,
                    width,
                    bias,
                    residual: residual.map(|r| &r[tile_row * rows_part..][..out.len()]),
                    relu,
                    out,
                    filter: PhantomData,
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

/// `B^T d B` of one block of channels for all tiles of a grid.
struct TransformInput<'a, F, const IN: usize> {
    grid: Grid,
    x: &'a Map,
    block: usize,
    padding: [usize; 2],
    to: &'a mut [f32], // [point][tile][16]
    filter: PhantomData<F>,
}

impl<F: Filter<IN>, const IN: usize> Kernel for TransformInput<'_, F, IN> {
    #[inline(always)]
    fn run<V: Lanes>(self) {
        let Self { grid, x, block, padding, to, .. } = self;
        let to = to.as_chunks_mut::<LANES>().0;
        let tiles = grid.rows * grid.tile_cols;
        let zero = V::splat(0.0);
        for row in 0..grid.rows {
            let (image, tile_row) = ((grid.first + row) / grid.tile_rows, (grid.first + row) % grid.tile_rows);
            let plane = &x.data[(image * x.blocks() + block) * x.plane()..][..x.plane()];
            let plane = plane.as_chunks::<LANES>().0;
            for tile_col in 0..grid.tile_cols {
                // May begin before the image; wraps and is then past its end.
                let top = (tile_row * OUT).wrapping_sub(padding[0]);
                let left = (tile_col * OUT).wrapping_sub(padding[1]);
                let mut lines = [[zero; IN]; IN];
                for (r, line) in lines.iter_mut().enumerate() {
                    let y = top.wrapping_add(r);
                    if y >= x.height {
                        continue; // A row of zeros.
                    }
                    let pixels = &plane[y * x.width..][..x.width];
                    let mut d = [zero; IN];
                    if let Some(inside) = pixels.get(left..left.wrapping_add(IN)) {
                        for (d, x) in d.iter_mut().zip(inside) {
                            *d = V::load(x);
                        }
                    } else {
                        for (c, d) in d.iter_mut().enumerate() {
                            if let Some(x) = pixels.get(left.wrapping_add(c)) {
                                *d = V::load(x);
                            }
                        }
                    }
                    *line = F::input(d);
                }
                let tile = row * grid.tile_cols + tile_col;
                for c in 0..IN {
                    for (r, v) in F::input(lines.map(|line| line[c])).into_iter().enumerate() {
                        v.store(&mut to[(r * IN + c) * tiles + tile]);
                    }
                }
            }
        }
    }
}

/// `A^T m A` of one block of channels for one row of tiles, then bias, residual and activation.
struct TransformOutput<'a, F, const IN: usize> {
    sums: &'a [f32], // [point][tiles, of which the first `tile_cols`][16]
    tiles: usize,
    tile_cols: usize,
    target: Target,
    width: usize, // of the output
    bias: [f32; LANES],
    residual: Option<&'a [f32]>,
    relu: bool,
    out: &'a mut [f32], // the rows of the output that the tiles lie in
    filter: PhantomData<F>,
}

impl<F: Filter<IN>, const IN: usize> Kernel for TransformOutput<'_, F, IN> {
    #[inline(always)]
    fn run<V: Lanes>(self) {
        let Self { sums, tiles, tile_cols, target, width, bias, residual, relu, out, .. } = self;
        let sums = sums.as_chunks::<LANES>().0;
        let out = out.as_chunks_mut::<LANES>().0;
        let residual = residual.map(|r| r.as_chunks::<LANES>().0);
        let bias = V::load(&bias);
        let zero = V::splat(0.0);
        let rows = out.len() / width / target.step;
        for tile in 0..tile_cols {
            let mut lines = [[zero; OUT]; IN];
            for (r, line) in lines.iter_mut().enumerate() {
                let mut m = [zero; IN];
                for (c, m) in m.iter_mut().enumerate() {
                    *m = V::load(&sums[(r * IN + c) * tiles + tile]);
                }
                *line = F::output(m);
            }
            // The last tile of a row, and the last row of tiles, may reach past the image.
            for c in 0..OUT.min(target.cols - tile * OUT) {
                for (r, y) in F::output(lines.map(|line| line[c])).into_iter().enumerate().take(rows) {
                    let col = target.first[1] + (tile * OUT + c) * target.step;
                    let at = (target.first[0] + r * target.step) * width + col;
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
