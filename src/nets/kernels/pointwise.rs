//! The same linear map at every position of a row-major `[B, I, L]`, with weights as they lie in a checkpoint.

use super::Isa;
use super::linear::without_padding;
use super::map::for_each_part;
use super::simd::{Kernel, LANES, Lanes};
use super::tile::{Product, Steps, count_multiply_adds, pack_groups};
use crate::memory::Buffer;

/// `y[b, o, l] = activation(bias[o] + sum over i of weight[o, i] * x[b, i, l])`; `weight` is `[O, I]`, `shape` is
/// `[B, I, L]`.
pub fn pointwise(isa: Isa, shape: [usize; 3], x: &[f32], weight: &[f32], bias: &[f32], relu: bool) -> Buffer {
    let [batch, input, length] = shape;
    let output = bias.len();
    assert!(weight.len() == output * input && x.len() == batch * input * length, "shapes do not fit");
    if length < LANES {
        return few_positions(isa, shape, x, weight, bias, relu);
    }
    // Positions take the place of output channels, rows of weights that of pixels, so nothing is rearranged but x.
    let blocks = length.div_ceil(LANES);
    let mut packed = Buffer::take(batch * blocks * LANES * input);
    pack_groups(isa, blocks, batch * input, &mut packed, |first, width, packed| {
        for (at, row) in packed.chunks_exact_mut(width).enumerate() {
            let x = &x[at * length + first..(at + 1) * length];
            let present = width.min(x.len());
            row[..present].copy_from_slice(&x[..present]);
            row[present..].fill(0.0);
        }
    });
    let row = blocks * LANES;
    let mut out = Buffer::take(batch * output * row);
    for_each_part(&mut out, row, |index, out| out.fill(bias[index % output]));
    // Long sums in steps that leave the positions in the nearest cache.
    let depth = (1..=input.min(128)).rev().find(|d| input % d == 0).expect("1 divides everything");
    let product = Product {
        batch,
        rows: 1,
        cols: output,
        blocks,
        x_steps: Steps { batch: 0, row: 0, col: input, block: depth },
        planes: input / depth,
        taps: &[0],
        depth,
        out_steps: Steps { batch: output * row, row: 0, col: row, block: LANES },
        own_weights: true,
        accumulate: true,
        relu,
    };
    product.run(isa, weight, &packed, None, None, &mut out);
    without_padding(out, row, length)
}

/// With few positions the weights are read once and nothing is reused: dot products at the speed of the memory.
fn few_positions(isa: Isa, shape: [usize; 3], x: &[f32], weight: &[f32], bias: &[f32], relu: bool) -> Buffer {
    let [batch, input, length] = shape;
    let output = bias.len();
    let stride = input.next_multiple_of(LANES);
    let mut columns = Buffer::zeroed(batch * length * stride);
    for (column, to) in columns.chunks_exact_mut(stride).enumerate() {
        let x = &x[column / length * input * length + column % length..];
        for (to, x) in to.iter_mut().zip(x.iter().step_by(length)).take(input) {
            *to = *x;
        }
    }
    // [O, B * L]
    let count = batch * length;
    count_multiply_adds(output * count * input);
    let mut sums = Buffer::take(output * count);
    let rows = (32_768 / input).max(1);
    for_each_part(&mut sums, rows * count, |part, sums| {
        let weight = &weight[part * rows * input..];
        isa.run(Dots { weight, columns: &columns, input, stride, count, sums });
    });
    let mut out: Buffer = Buffer::take(batch * output * length);
    for (at, out) in out.iter_mut().enumerate() {
        let (image, o, l) = (at / (output * length), at / length % output, at % length);
        let sum = bias[o] + sums[o * count + image * length + l];
        *out = if relu { sum.max(0.0) } else { sum };
    }
    out
}

/// Dot products of rows of weights with all columns.
struct Dots<'a> {
    weight: &'a [f32],
    columns: &'a [f32],
    input: usize,
    stride: usize,
    count: usize,
    sums: &'a mut [f32],
}

impl Kernel for Dots<'_> {
    #[inline(always)]
    fn run<V: Lanes>(self) {
        let Self { weight, columns, input, stride, count, sums } = self;
        let rows = weight.chunks_exact(input).zip(sums.chunks_exact_mut(count));
        for (weight, sums) in rows {
            let (lines, tail) = weight.as_chunks::<LANES>();
            for (column, sum) in columns.chunks_exact(stride).zip(sums) {
                let column = column.as_chunks::<LANES>().0;
                let mut parts = [V::splat(0.0); 4];
                let (w4, w1) = lines.as_chunks::<4>();
                let (x4, x1) = column[..lines.len()].as_chunks::<4>();
                for (w, x) in w4.iter().zip(x4) {
                    for ((part, w), x) in parts.iter_mut().zip(w).zip(x) {
                        *part = part.add_product(V::load(w), V::load(x));
                    }
                }
                for ((part, w), x) in parts.iter_mut().zip(w1).zip(x1) {
                    *part = part.add_product(V::load(w), V::load(x));
                }
                let mut lanes = [0.0; LANES];
                parts[0].add(parts[1]).add(parts[2].add(parts[3])).store(&mut lanes);
                let rest = column.get(lines.len()).map_or(0.0, |x| tail.iter().zip(x).map(|(w, x)| w * x).sum());
                *sum = lanes.iter().sum::<f32>() + rest;
            }
        }
    }
}
