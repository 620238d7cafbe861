//! Convolutions whose weights are packed when they are loaded.

use super::Isa;
use super::map::{Map, for_each_part, pad};
use super::simd::LANES;
use super::tile::{Product, Steps, pack_weights};
use crate::memory::Buffer;

/// What happens to the sums of a convolution on their way to memory.
#[derive(Clone, Copy, Default)]
pub struct Finish<'a> {
    /// Added before the activation; of the shape of the output.
    pub residual: Option<&'a Map>,
    /// End with max(x, 0).
    pub relu: bool,
}

/// A square convolution.
pub struct PackedConv {
    isa: Isa,
    input: usize,
    output: usize,
    kernel: usize,
    stride: usize,
    padding: usize,
    weights: Buffer,
    bias: Option<Buffer>,
}

/// `bias` with zeros up to a whole block.
pub(super) fn pack_bias(bias: &[f32]) -> Buffer {
    let mut packed = Buffer::owned(bias.len().next_multiple_of(LANES));
    packed[..bias.len()].copy_from_slice(bias);
    packed
}

/// Side of a convolution's output; 0 where the kernel does not fit.
pub(super) fn output_side(input: usize, kernel: usize, stride: usize, padding: usize) -> usize {
    (input + 2 * padding).checked_sub(kernel).map_or(0, |room| room / stride + 1)
}

impl PackedConv {
    /// Up to this many input channels are read as row-major planes, not as blocks of 16.
    pub const FEW_CHANNELS: usize = 8;

    /// `weight` is `[output, input, kernel, kernel]`, `bias` `[output]`.
    pub fn new(
        isa: Isa,
        [output, input, kernel]: [usize; 3],
        [stride, padding]: [usize; 2],
        weight: &[f32],
        bias: Option<&[f32]>,
    ) -> Self {
        assert_eq!(weight.len(), output * input * kernel * kernel, "weights of another shape");
        let area = kernel * kernel;
        let blocks = output.div_ceil(LANES);
        let planar = input <= Self::FEW_CHANNELS;
        let products = if planar { input } else { input.next_multiple_of(LANES) } * area;
        let mut weights = Buffer::owned(blocks * LANES * products);
        // The order of the sum: blocks of channels (or channels), then taps, then channels of the block.
        let depth = if planar { 1 } else { LANES };
        pack_weights(isa, blocks, [products / area / depth, area, depth], &mut weights, |[plane, tap, d], o| {
            let channel = plane * depth + d;
            if o < output && channel < input { weight[(o * input + channel) * area + tap] } else { 0.0 }
        });
        Self { isa, input, output, kernel, stride, padding, weights, bias: bias.map(pack_bias) }
    }

    /// Whether the input is wanted as row-major planes: a handful of channels, as of an image.
    pub fn reads_planes(&self) -> bool {
        self.input <= Self::FEW_CHANNELS
    }

    /// Shape of what comes out.
    pub fn output_shape(&self, [batch, _, height, width]: [usize; 4]) -> [usize; 4] {
        let side = |input| output_side(input, self.kernel, self.stride, self.padding);
        [batch, self.output, side(height), side(width)]
    }

    /// Blocked in, blocked out.
    pub fn run(&self, x: &Map, finish: Finish) -> Map {
        assert!(!self.reads_planes() && x.channels == self.input, "{} channels for {}", x.channels, self.input);
        let padded = (self.padding > 0).then(|| x.padded(self.padding));
        let mut out = Map::new(self.output_shape(x.shape()));
        let x = padded.as_ref().unwrap_or(x);
        let mut taps = [0; MAX_AREA];
        let taps = fill_taps(&mut taps, self.kernel, self.kernel, x.width * LANES, LANES);
        let (mut rows, mut cols) = (out.height, out.width);
        if self.kernel == 1 && self.stride == 1 {
            (rows, cols) = (1, rows * cols);
        }
        let product = Product {
            batch: x.batch,
            rows,
            cols,
            blocks: out.blocks(),
            x_steps: Steps {
                batch: x.blocks() * x.plane(),
                row: self.stride * x.width * LANES,
                col: self.stride * LANES,
                block: x.plane(),
            },
            planes: x.blocks(),
            taps,
            depth: LANES,
            out_steps: blocked_steps(&out),
            own_weights: false,
            accumulate: false,
            relu: finish.relu,
        };
        let residual = residual_of(&finish, &out);
        product.run(self.isa, &x.data, &self.weights, self.bias.as_deref(), residual, &mut out.data);
        out
    }

    /// Row-major planes `[batch, input, height, width]` in, blocked out.
    pub fn run_planes(&self, shape: [usize; 4], x: &[f32], finish: Finish) -> Map {
        let [batch, channels, height, width] = shape;
        assert!(self.reads_planes() && channels == self.input, "{channels} channels for {}", self.input);
        let (rows, cols) = (height + 2 * self.padding, width + 2 * self.padding);
        let mut padded = Buffer::take(batch * channels * rows * cols);
        for_each_part(&mut padded, rows * cols, |plane, out| {
            pad(&x[plane * height * width..][..height * width], width, self.padding, self.padding, out);
        });
        let mut out = Map::new(self.output_shape(shape));
        // A row of the kernel is a run of neighbours.
        let mut taps = [0; MAX_AREA];
        let taps = fill_taps(&mut taps, self.kernel, 1, cols, 1);
        let product = Product {
            batch,
            rows: out.height,
            cols: out.width,
            blocks: out.blocks(),
            x_steps: Steps {
                batch: channels * rows * cols,
                row: self.stride * cols,
                col: self.stride,
                block: rows * cols,
            },
            planes: channels,
            taps,
            depth: self.kernel,
            out_steps: blocked_steps(&out),
            own_weights: false,
            accumulate: false,
            relu: finish.relu,
        };
        let residual = residual_of(&finish, &out);
        product.run(self.isa, &padded, &self.weights, self.bias.as_deref(), residual, &mut out.data);
        out
    }
}

/// Taps of the largest kernel, 11 x 11.
pub(super) const MAX_AREA: usize = 121;

/// Offsets of `rows` x `cols` taps.
pub(super) fn fill_taps(
    taps: &mut [usize; MAX_AREA],
    rows: usize,
    cols: usize,
    row_step: usize,
    col_step: usize,
) -> &[usize] {
    let taps = &mut taps[..rows * cols];
    for (i, tap) in taps.iter_mut().enumerate() {
        *tap = i / cols * row_step + i % cols * col_step;
    }
    taps
}

/// Steps of the pixels of a map.
pub(super) fn blocked_steps(map: &Map) -> Steps {
    Steps { batch: map.blocks() * map.plane(), row: map.width * LANES, col: LANES, block: map.plane() }
}

pub(super) fn residual_of<'a>(finish: &Finish<'a>, out: &Map) -> Option<&'a [f32]> {
    finish.residual.map(|residual| {
        assert_eq!(residual.shape(), out.shape(), "the residual has another shape");
        &*residual.data
    })
}

/// Transposed convolution, kernel 4, stride 2, padding 1: doubles the sides. Each of the four parities of the output
/// is a 2x2 convolution of its own, so no product with an inserted zero is ever formed.
pub struct PackedDeconv {
    isa: Isa,
    input: usize,
    output: usize,
    weights: [Buffer; 4],
    bias: Buffer,
}

/// The row (or column) of the 4-wide kernel that the 2-wide convolution of even (0) or odd (1) outputs uses first or
/// second: output 2y reads y-1 with row 3 and y with row 1; output 2y+1 reads y with row 2 and y+1 with row 0.
pub(super) fn tap_of_parity(parity: usize, tap: usize) -> usize {
    3 - parity - 2 * tap
}

impl PackedDeconv {
    /// `weight` is `[input, output, 4, 4]`, `bias` `[output]`.
    pub fn new(isa: Isa, [input, output]: [usize; 2], weight: &[f32], bias: &[f32]) -> Self {
        assert_eq!(weight.len(), output * input * 16, "weights of another shape");
        let blocks = output.div_ceil(LANES);
        let products = input.next_multiple_of(LANES) * 4;
        let weights = [0, 1, 2, 3].map(|parity| {
            let mut packed = Buffer::owned(blocks * LANES * products);
            pack_weights(isa, blocks, [products / 4 / LANES, 4, LANES], &mut packed, |[plane, tap, d], o| {
                let channel = plane * LANES + d;
                let (row, col) = (tap_of_parity(parity / 2, tap / 2), tap_of_parity(parity % 2, tap % 2));
                if o < output && channel < input { weight[(channel * output + o) * 16 + row * 4 + col] } else { 0.0 }
            });
            packed
        });
        Self { isa, input, output, weights, bias: pack_bias(bias) }
    }

    /// `[B, I, H, W] -> [B, O, 2H, 2W]`
    pub fn run(&self, x: &Map, relu: bool) -> Map {
        assert!(x.channels == self.input, "{} channels for {}", x.channels, self.input);
        let mut out = Map::new([x.batch, self.output, 2 * x.height, 2 * x.width]);
        let (rows, cols) = (x.height, x.width);
        let x = x.padded(1);
        let mut taps = [0; MAX_AREA];
        let taps = fill_taps(&mut taps, 2, 2, x.width * LANES, LANES);
        let steps = blocked_steps(&out);
        let out_steps = Steps { row: 2 * steps.row, col: 2 * steps.col, ..steps };
        let product = Product {
            batch: x.batch,
            rows,
            cols,
            blocks: out.blocks(),
            x_steps: blocked_steps(&x),
            planes: x.blocks(),
            taps,
            depth: LANES,
            out_steps,
            own_weights: false,
            accumulate: false,
            relu,
        };
        for (parity, weights) in self.weights.iter().enumerate() {
            let (odd_row, odd_col) = (parity / 2, parity % 2);
            let x = &x.data[odd_row * x.width * LANES + odd_col * LANES..];
            let out = &mut out.data[odd_row * steps.row + odd_col * steps.col..];
            product.run(self.isa, x, weights, Some(&self.bias), None, out);
        }
        out
    }
}
