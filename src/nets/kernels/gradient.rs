//! Convolutions whose weights change at every step, and their gradients. All are the same products as those of the
//! forward way:
//!
//! - the gradient of the input is a transposed convolution of the output's gradient, and the other way round, so a
//!   transposed convolution's forward way is [`conv_input_gradient`] and its gradient is [`conv`];
//! - the gradient of the weights is a product that sums over pixels, with the output's gradient in the place of the
//!   packed weights.
//!
//! Activations are blocked as in [`Map`]; images of a few channels are row-major planes ([`PackedConv::FEW_CHANNELS`]).

use rayon::prelude::*;

use super::conv::output_side;
use super::map::{Map, for_each_part, pad};
use super::simd::LANES;
use super::tile::{Product, Steps, pack_groups, pack_weights};
use super::{Finish, Isa, PackedConv, PackedDeconv, Winograd, WinogradDeconv};
use crate::memory::Buffer;

/// Outputs from which Winograd's transform of the weights, done anew at every step, pays.
const WORTH_TRANSFORMING: usize = 1024;
/// Pixels of an image whose products are summed before the next ones are packed.
const PIXELS_PER_CHUNK: usize = 256;

/// A square convolution of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConvDims {
    /// Images.
    pub batch: usize,
    /// Channels of the input.
    pub input: usize,
    /// Channels of the output.
    pub output: usize,
    /// Rows of the input.
    pub height: usize,
    /// Columns of the input.
    pub width: usize,
    /// Side of the kernel.
    pub kernel: usize,
    /// Step between outputs.
    pub stride: usize,
    /// Zeros added at each side.
    pub padding: usize,
}

impl ConvDims {
    /// Rows and columns of the output.
    pub fn output_sides(&self) -> [usize; 2] {
        [self.height, self.width].map(|side| output_side(side, self.kernel, self.stride, self.padding))
    }

    /// Numbers of the weights, `[output, input, kernel, kernel]`.
    pub fn weights(&self) -> usize {
        self.output * self.input * self.kernel * self.kernel
    }

    /// Whether the input is an image, as row-major planes.
    pub fn reads_planes(&self) -> bool {
        self.input <= PackedConv::FEW_CHANNELS
    }

    fn is_same_3x3(&self) -> bool {
        (self.kernel, self.stride, self.padding) == (3, 1, 1)
    }

    fn is_worth_transforming(&self) -> bool {
        self.batch * self.height * self.width >= WORTH_TRANSFORMING
    }

    fn output_map(&self, data: &[f32]) -> Map {
        let [height, width] = self.output_sides();
        blocked([self.batch, self.output, height, width], data)
    }

    fn input_map(&self, data: &[f32]) -> Map {
        blocked([self.batch, self.input, self.height, self.width], data)
    }
}

/// A map that holds these blocks.
fn blocked(shape: [usize; 4], data: &[f32]) -> Map {
    let mut map = Map::new(shape);
    map.data.copy_from_slice(data);
    map
}

/// The convolution: the output's blocks. `weight` is `[output, input, kernel, kernel]`, `bias` `[output]`.
pub fn conv(isa: Isa, d: &ConvDims, x: &[f32], weight: &[f32], bias: Option<&[f32]>) -> Map {
    let pack = || PackedConv::new(isa, [d.output, d.input, d.kernel], [d.stride, d.padding], weight, bias);
    if d.reads_planes() {
        pack().run_planes([d.batch, d.input, d.height, d.width], x, Finish::default())
    } else if d.is_same_3x3() && d.is_worth_transforming() {
        Winograd::new(isa, [d.output, d.input], 1, weight, bias).run(&d.input_map(x), Finish::default())
    } else {
        pack().run(&d.input_map(x), Finish::default())
    }
}

/// The gradient of the convolution's input, blocked, from that of its output, `grad`.
pub fn conv_input_gradient(isa: Isa, d: &ConvDims, grad: &[f32], weight: &[f32]) -> Map {
    assert_eq!(weight.len(), d.weights(), "weights of another shape");
    let grad = d.output_map(grad);
    if d.is_same_3x3() && d.is_worth_transforming() {
        return Winograd::turned(isa, [d.output, d.input], weight).run(&grad, Finish::default());
    }
    if (d.kernel, d.stride, d.padding) == (4, 2, 1) && (d.height, d.width) == (2 * grad.height, 2 * grad.width) {
        let bias = vec![0.0; d.input];
        let shape = [d.output, d.input];
        return if grad.batch * grad.height * grad.width >= WORTH_TRANSFORMING {
            WinogradDeconv::new(isa, shape, weight, &bias).run(&grad, false)
        } else {
            PackedDeconv::new(isa, shape, weight, &bias).run(&grad, false)
        };
    }
    let mut out = Map::new([d.batch, d.input, d.height, d.width]);
    if d.kernel < d.stride {
        out.data.fill(0.0); // Some inputs are never read.
    }
    // Far enough for the first and the last tap of any input.
    let before = (d.kernel - 1).saturating_sub(d.padding).div_ceil(d.stride);
    let after = |input: usize, output: usize| ((input - 1 + d.padding) / d.stride).saturating_sub(output - 1);
    let margin = before.max(after(d.height, grad.height)).max(after(d.width, grad.width));
    let grad = if margin > 0 { grad.padded(margin) } else { grad };
    // Inputs whose place has the same remainder meet the same taps of the kernel.
    for row in 0..d.stride.min(d.height) {
        for col in 0..d.stride.min(d.width) {
            input_gradient_of_remainder(isa, d, [row, col], margin, &grad, weight, &mut out);
        }
    }
    out
}

/// The inputs at `row`, `row + stride`, .. and `col`, `col + stride`, ..
fn input_gradient_of_remainder(
    isa: Isa,
    d: &ConvDims,
    [row, col]: [usize; 2],
    margin: usize,
    grad: &Map,
    weight: &[f32],
    out: &mut Map,
) {
    // Row y of the input meets output row (y + padding - r) / stride with row r of the kernel, where that is whole.
    let meets = |at: usize| move |&tap: &usize| (at + d.padding + d.stride * d.kernel - tap).is_multiple_of(d.stride);
    // Counted in the padded gradient.
    let place = |at: usize, tap: usize| (margin * d.stride + at + d.padding - tap) / d.stride;
    let taps: Vec<[usize; 2]> =
        (0..d.kernel).filter(meets(row)).flat_map(|r| (0..d.kernel).filter(meets(col)).map(move |c| [r, c])).collect();
    if taps.is_empty() {
        return;
    }
    let offsets: Vec<usize> = taps.iter().map(|&[r, c]| (place(row, r) * grad.width + place(col, c)) * LANES).collect();
    let mut weights = Buffer::take(out.blocks() * LANES * grad.blocks() * taps.len() * LANES);
    let area = d.kernel * d.kernel;
    pack_weights(isa, out.blocks(), [grad.blocks(), taps.len(), LANES], &mut weights, |[plane, tap, lane], i| {
        let (o, [r, c]) = (plane * LANES + lane, taps[tap]);
        if o < d.output && i < d.input { weight[(o * d.input + i) * area + r * d.kernel + c] } else { 0.0 }
    });
    let product = Product {
        batch: d.batch,
        rows: (d.height - row).div_ceil(d.stride),
        cols: (d.width - col).div_ceil(d.stride),
        blocks: out.blocks(),
        x_steps: Steps {
            batch: grad.blocks() * grad.plane(),
            row: grad.width * LANES,
            col: LANES,
            block: grad.plane(),
        },
        planes: grad.blocks(),
        taps: &offsets,
        depth: LANES,
        out_steps: Steps {
            batch: out.blocks() * out.plane(),
            row: d.stride * out.width * LANES,
            col: d.stride * LANES,
            block: out.plane(),
        },
        own_weights: false,
        accumulate: false,
        relu: false,
    };
    let first = (row * out.width + col) * LANES;
    product.run(isa, &grad.data, &weights, None, None, &mut out.data[first..]);
}

/// Adds the gradient of the weights to `into`, `[output, input, kernel, kernel]`: `x` is the convolution's input and
/// `grad` the gradient of its output.
pub fn conv_weight_gradient(isa: Isa, d: &ConvDims, x: &[f32], grad: &[f32], into: &mut [f32]) {
    assert_eq!(into.len(), d.weights(), "weights of another shape");
    let padded = Padded::new(d, x);
    let [rows, cols] = d.output_sides();
    let blocks = d.output.div_ceil(LANES);
    assert_eq!(grad.len(), d.batch * blocks * rows * cols * LANES, "a gradient of another shape");
    let lanes = blocks * LANES;
    // [kernel column, where the input is blocked][input block][kernel row][channel or kernel column][output channel]
    let mut sums = Buffer::take(padded.kernel_cols * padded.planes * d.kernel * padded.neighbours * lanes);
    let rows_at_once = (PIXELS_PER_CHUNK / cols).clamp(1, rows);
    let mut packed = Buffer::take(blocks * LANES * d.batch * rows_at_once * cols);
    for first in (0..rows).step_by(rows_at_once) {
        let count = rows_at_once.min(rows - first);
        let pixels = count * cols;
        let packed = &mut packed[..blocks * LANES * d.batch * pixels];
        pack_groups(isa, blocks, d.batch * pixels, packed, |channel, width, packed| {
            let group = width / LANES;
            for (image, packed) in packed.chunks_exact_mut(pixels * width).enumerate() {
                for block in 0..group {
                    let from = ((image * blocks + channel / LANES + block) * rows + first) * cols * LANES;
                    let from = grad[from..from + pixels * LANES].as_chunks::<LANES>().0;
                    for (from, to) in
                        from.iter().zip(packed.as_chunks_mut::<LANES>().0[block..].iter_mut().step_by(group))
                    {
                        *to = *from;
                    }
                }
            }
        });
        let pixel_step = d.stride * padded.pixel;
        let taps: Vec<usize> =
            (0..pixels).map(|at| at / cols * d.stride * padded.row + at % cols * pixel_step).collect();
        let part = padded.planes * d.kernel * padded.neighbours * lanes;
        for col in 0..padded.kernel_cols {
            let product = Product {
                batch: padded.planes,
                rows: d.kernel,
                cols: padded.neighbours,
                blocks,
                x_steps: Steps { batch: padded.plane, row: padded.row, col: 1, block: padded.planes * padded.plane },
                planes: d.batch,
                taps: &taps,
                depth: 1,
                out_steps: Steps {
                    batch: d.kernel * padded.neighbours * lanes,
                    row: padded.neighbours * lanes,
                    col: lanes,
                    block: LANES,
                },
                own_weights: false,
                accumulate: first > 0,
                relu: false,
            };
            let x = &padded.data[first * d.stride * padded.row + col * padded.pixel..];
            product.run(isa, x, packed, None, None, &mut sums[col * part..][..part]);
        }
    }
    // Back into the order of the weights, in squares: the sixteen rows often lie where the cache keeps few lines.
    let (area, sums) = (d.kernel * d.kernel, &sums);
    let weights = d.input * area;
    into.par_chunks_mut(LANES * weights).enumerate().for_each(|(block, into)| {
        for first in (0..weights).step_by(LANES) {
            let count = LANES.min(weights - first);
            let mut square = [[0.0; LANES]; LANES];
            for (at, line) in (first..first + count).zip(&mut square) {
                let (i, r, c) = (at / area, at % area / d.kernel, at % area % d.kernel);
                let (plane, neighbour, col) = if d.reads_planes() { (i, c, 0) } else { (i / LANES, i % LANES, c) };
                let row = ((col * padded.planes + plane) * d.kernel + r) * padded.neighbours + neighbour;
                line.copy_from_slice(&sums[row * lanes + block * LANES..][..LANES]);
            }
            for (o, into) in into.chunks_exact_mut(weights).enumerate() {
                for (into, line) in into[first..first + count].iter_mut().zip(&square) {
                    *into += line[o];
                }
            }
        }
    });
}

/// A convolution's input with its padding, and how to walk in it: steps in floats.
struct Padded {
    data: Buffer,
    /// Blocks of channels, or planes.
    planes: usize,
    plane: usize,
    row: usize,
    pixel: usize,
    /// Neighbouring floats that meet the same output's gradient: a block's channels, or a row of the kernel.
    neighbours: usize,
    /// Columns of the kernel that are walked one by one.
    kernel_cols: usize,
}

impl Padded {
    fn new(d: &ConvDims, x: &[f32]) -> Self {
        let [height, width] = [d.height, d.width].map(|side| side + 2 * d.padding);
        let (planes, pixel, neighbours, kernel_cols) = if d.reads_planes() {
            (d.input, 1, d.kernel, 1)
        } else {
            (d.input.div_ceil(LANES), LANES, LANES, d.kernel)
        };
        let (row, plane) = (width * pixel, height * width * pixel);
        let mut data = Buffer::take(d.batch * planes * plane);
        let from = d.height * d.width * pixel;
        assert_eq!(x.len(), d.batch * planes * from, "an input of another shape");
        for_each_part(&mut data, plane, |index, out| {
            pad(&x[index * from..][..from], d.width * pixel, d.padding, d.padding * pixel, out);
        });
        Self { data, planes, plane, row, pixel, neighbours, kernel_cols }
    }
}

/// Adds the gradient of a bias to `into`, `[output]`, from that of the output.
pub fn bias_gradient(d: &ConvDims, grad: &[f32], into: &mut [f32]) {
    let [rows, cols] = d.output_sides();
    let blocks = d.output.div_ceil(LANES);
    for (index, plane) in grad.chunks_exact(rows * cols * LANES).enumerate() {
        let into = &mut into[index % blocks * LANES..];
        for pixel in plane.chunks_exact(LANES) {
            into.iter_mut().zip(pixel).for_each(|(into, grad)| *into += grad);
        }
    }
}
