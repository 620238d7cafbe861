//! A linear map of row-major vectors, with weights packed once.

use super::Isa;
use super::conv::pack_bias;
use super::simd::LANES;
use super::tile::{Product, Steps, pack_weights};
use crate::memory::Buffer;

/// Products of a pass: so many that the inputs of the pixels of one work item stay in the second cache while all
/// outputs are summed.
const PASS: usize = 512;
/// Products of a step within a pass, so that its weights stay in the nearest cache.
const STEP: usize = 128;

/// `y = weight x + bias`
pub struct PackedLinear {
    isa: Isa,
    input: usize,
    output: usize,
    weights: Buffer, // one packed matrix for each pass
    bias: Buffer,
}

impl PackedLinear {
    /// `weight` is `[output, input]`, `bias` `[output]`.
    pub fn new(isa: Isa, weight: &[f32], bias: &[f32]) -> Self {
        let output = bias.len();
        assert!(output > 0 && weight.len().is_multiple_of(output), "weights of another shape");
        let input = weight.len() / output;
        let blocks = output.div_ceil(LANES);
        let mut weights = Buffer::owned(input * blocks * LANES);
        for (first, count) in passes(input) {
            let packed = &mut weights[first * blocks * LANES..][..count * blocks * LANES];
            pack_weights(isa, blocks, [1, 1, count], packed, |[_, _, d], o| {
                if o < output { weight[o * input + first + d] } else { 0.0 }
            });
        }
        Self { isa, input, output, weights, bias: pack_bias(bias) }
    }

    /// Numbers of each output.
    pub fn output(&self) -> usize {
        self.output
    }

    /// `x` holds `count` rows; so does what comes out.
    pub fn run(&self, count: usize, x: &[f32], relu: bool) -> Buffer {
        assert_eq!(x.len(), count * self.input, "{count} rows of {}", self.input);
        let blocks = self.output.div_ceil(LANES);
        let row = blocks * LANES;
        let mut out = Buffer::take(count * row);
        for (first, products) in passes(self.input) {
            let depth = if products.is_multiple_of(STEP) { STEP } else { 1 };
            let last = first + products == self.input;
            let product = Product {
                batch: 1,
                rows: 1,
                cols: count,
                blocks,
                x_steps: Steps { batch: 0, row: 0, col: self.input, block: depth },
                planes: products / depth,
                taps: &[0],
                depth,
                out_steps: Steps { batch: 0, row: 0, col: row, block: LANES },
                own_weights: false,
                accumulate: first > 0,
                relu: relu && last,
            };
            let weights = &self.weights[first * row..][..products * row];
            product.run(self.isa, &x[first.min(x.len())..], weights, Some(&self.bias), None, &mut out);
        }
        without_padding(out, row, self.output)
    }
}

/// The first `kept` numbers of each row, moved together where they are.
pub(super) fn without_padding(mut rows: Buffer, row: usize, kept: usize) -> Buffer {
    if row != kept {
        let count = rows.len() / row;
        (1..count).for_each(|i| rows.copy_within(i * row..i * row + kept, i * kept));
        rows.truncate(count * kept);
    }
    rows
}

/// The inputs cut into passes: first and count.
fn passes(input: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..input).step_by(PASS).map(move |first| (first, PASS.min(input - first)))
}
