//! Batch norm with the statistics of the batch, a residual and ReLU: forward and backward, blocked as in
//! [`super::Map`]. A blocked array is `[batch, blocks, pixels, 16]`; numbers for each channel have whole blocks.

use rayon::prelude::*;

use super::Isa;
use super::simd::{Kernel, LANES, Lanes};

/// Sixteen channels of a pixel.
type Pixel = [f32; LANES];

/// Shape of a blocked array.
#[derive(Clone, Copy, Debug)]
pub struct Blocks {
    /// Blocks of 16 channels.
    pub blocks: usize,
    /// Pixels of a block of an image.
    pub pixels: usize,
}

impl Blocks {
    fn plane(&self) -> usize {
        self.pixels * LANES
    }
}

/// Mean and variance (divided by the number of values, not by one less) of each channel.
pub fn statistics(isa: Isa, shape: Blocks, x: &[f32]) -> [Vec<f32>; 2] {
    let planes: Vec<[Pixel; 2]> = x
        .par_chunks_exact(shape.plane())
        .map(|x| {
            let mut moments = [[0.0; LANES]; 2];
            isa.run(Moments { x: x.as_chunks().0, moments: &mut moments });
            moments
        })
        .collect();
    // Parts of equal size: the mean is that of the means, and the variance that within the parts plus that of their
    // means.
    let images = (planes.len() / shape.blocks) as f64;
    let (mut means, mut variances) = (Vec::new(), Vec::new());
    for block in 0..shape.blocks {
        for lane in 0..LANES {
            let of_images = || planes.iter().skip(block).step_by(shape.blocks).map(|p| p.map(|p| f64::from(p[lane])));
            let mean = of_images().map(|[mean, _]| mean).sum::<f64>() / images;
            let variance = of_images().map(|[m, v]| v + (m - mean) * (m - mean)).sum::<f64>() / images;
            means.push(mean as f32);
            variances.push(variance as f32);
        }
    }
    [means, variances]
}

/// Mean and variance of one plane.
struct Moments<'a> {
    x: &'a [Pixel],
    moments: &'a mut [Pixel; 2],
}

impl Kernel for Moments<'_> {
    #[inline(always)]
    fn run<V: Lanes>(self) {
        let Self { x, moments: [mean, variance] } = self;
        let count = x.len() as f32;
        for x in x {
            (0..LANES).for_each(|l| mean[l] += x[l]);
        }
        (0..LANES).for_each(|l| mean[l] /= count);
        for x in x {
            (0..LANES).for_each(|l| variance[l] += (x[l] - mean[l]) * (x[l] - mean[l]));
        }
        (0..LANES).for_each(|l| variance[l] /= count);
    }
}

/// `activation(x * scale + shift + residual)`
pub fn affine(
    isa: Isa,
    shape: Blocks,
    x: &[f32],
    [scale, shift]: [&[f32]; 2],
    residual: Option<&[f32]>,
    relu: bool,
) -> Vec<f32> {
    let mut out = vec![0.0; x.len()];
    let plane = shape.plane();
    out.par_chunks_exact_mut(plane).enumerate().for_each(|(index, out)| {
        let x = x[index * plane..][..plane].as_chunks().0;
        let residual = residual.map(|r| r[index * plane..][..plane].as_chunks().0);
        let block = index % shape.blocks;
        let [scale, shift] = [scale, shift].map(|of| &of.as_chunks().0[block]);
        isa.run(Affine { x, scale, shift, residual, relu, out: out.as_chunks_mut().0 });
    });
    out
}

struct Affine<'a> {
    x: &'a [Pixel],
    scale: &'a Pixel,
    shift: &'a Pixel,
    residual: Option<&'a [Pixel]>,
    relu: bool,
    out: &'a mut [Pixel],
}

impl Kernel for Affine<'_> {
    #[inline(always)]
    fn run<V: Lanes>(self) {
        let Self { x, scale, shift, residual, relu, out } = self;
        let (scale, shift) = (V::load(scale), V::load(shift));
        let least = V::splat(if relu { 0.0 } else { f32::NEG_INFINITY });
        match residual {
            None => {
                for (x, out) in x.iter().zip(out) {
                    shift.add_product(V::load(x), scale).max(least).store(out);
                }
            }
            Some(residual) => {
                for ((x, r), out) in x.iter().zip(residual).zip(out) {
                    shift.add_product(V::load(x), scale).add(V::load(r)).max(least).store(out);
                }
            }
        }
    }
}

/// What the backward way of a batch norm yields.
pub struct NormGradients {
    /// Of the input.
    pub x: Vec<f32>,
    /// Of what comes before the activation, which is that of the residual; empty unless it was asked for.
    pub residual: Vec<f32>,
    /// Of the scale gamma of each channel.
    pub scale: Vec<f32>,
    /// Of the shift beta of each channel.
    pub shift: Vec<f32>,
}

/// What the forward way knew.
#[derive(Clone, Copy)]
pub struct NormForward<'a> {
    /// Its input.
    pub x: &'a [f32],
    /// Its output where a ReLU was part of it.
    pub relu_output: Option<&'a [f32]>,
    /// Mean of each channel.
    pub mean: &'a [f32],
    /// One by the standard deviation (with epsilon) of each channel.
    pub inverse_std: &'a [f32],
    /// gamma of each channel.
    pub scale: &'a [f32],
}

/// Gradients of a batch norm from the gradient of its output.
pub fn norm_gradients(isa: Isa, shape: Blocks, forward: NormForward, grad: &[f32], residual: bool) -> NormGradients {
    let plane = shape.plane();
    let pixels = |index: usize| {
        let at = index * plane..(index + 1) * plane;
        let y = forward.relu_output.map(|y| y[at.clone()].as_chunks().0);
        (forward.x[at.clone()].as_chunks().0, y, grad[at].as_chunks().0)
    };
    // Sums of g and of g * x^, the normalised input.
    let planes: Vec<[Pixel; 2]> = (0..grad.len() / plane)
        .into_par_iter()
        .map(|index| {
            let ((x, y, grad), block) = (pixels(index), index % shape.blocks);
            let [mean, inverse_std] = [forward.mean, forward.inverse_std].map(|of| &of.as_chunks().0[block]);
            let mut sums = [[0.0; LANES]; 2];
            isa.run(Totals { x, y, grad, mean, inverse_std, out: &mut sums });
            sums
        })
        .collect();
    let channels = shape.blocks * LANES;
    let sum = |which: usize| -> Vec<f32> {
        let of_channel =
            |c: usize| planes.iter().skip(c / LANES).step_by(shape.blocks).map(move |p| p[which][c % LANES]);
        (0..channels).map(|c| of_channel(c).map(f64::from).sum::<f64>() as f32).collect()
    };
    let (shift, scale) = (sum(0), sum(1));
    // dx = gamma / std * (g - mean of g - x^ * mean of g x^) = g * a + x * b + c
    let count = (grad.len() / channels) as f32;
    let factors: Vec<[f32; 3]> = (0..channels)
        .map(|c| {
            let a = forward.scale[c] * forward.inverse_std[c];
            let b = -a * forward.inverse_std[c] * scale[c] / count;
            [a, b, -a * shift[c] / count - b * forward.mean[c]]
        })
        .collect();
    let mut out = vec![0.0; grad.len()];
    let mut before = vec![0.0; if residual { grad.len() } else { 0 }];
    let write = |index: usize, out: &mut [f32], before: Option<&mut [f32]>| {
        let ((x, y, grad), block) = (pixels(index), index % shape.blocks);
        let factors: [Pixel; 3] = std::array::from_fn(|i| std::array::from_fn(|l| factors[block * LANES + l][i]));
        let before = before.map(|b| b.as_chunks_mut().0);
        isa.run(Combine { x, y, grad, factors: &factors, before, out: out.as_chunks_mut().0 });
    };
    let parts = out.par_chunks_exact_mut(plane);
    if residual {
        let both = parts.zip(before.par_chunks_exact_mut(plane)).enumerate();
        both.for_each(|(index, (out, before))| write(index, out, Some(before)));
    } else {
        parts.enumerate().for_each(|(index, out)| write(index, out, None));
    }
    NormGradients { x: out, residual: before, scale, shift }
}

/// The gradient before a ReLU whose output was `y`.
#[inline(always)]
fn masked(grad: &Pixel, y: Option<&Pixel>) -> Pixel {
    match y {
        None => *grad,
        Some(y) => std::array::from_fn(|l| if y[l] > 0.0 { grad[l] } else { 0.0 }),
    }
}

struct Totals<'a> {
    x: &'a [Pixel],
    y: Option<&'a [Pixel]>,
    grad: &'a [Pixel],
    mean: &'a Pixel,
    inverse_std: &'a Pixel,
    out: &'a mut [Pixel; 2],
}

impl Kernel for Totals<'_> {
    #[inline(always)]
    fn run<V: Lanes>(self) {
        let Self { x, y, grad, mean, inverse_std, out: [sum, sum_x] } = self;
        for (at, (x, grad)) in x.iter().zip(grad).enumerate() {
            let g = masked(grad, y.map(|y| &y[at]));
            for l in 0..LANES {
                sum[l] += g[l];
                sum_x[l] += g[l] * (x[l] - mean[l]);
            }
        }
        (0..LANES).for_each(|l| sum_x[l] *= inverse_std[l]);
    }
}

struct Combine<'a> {
    x: &'a [Pixel],
    y: Option<&'a [Pixel]>,
    grad: &'a [Pixel],
    factors: &'a [Pixel; 3],
    before: Option<&'a mut [Pixel]>,
    out: &'a mut [Pixel],
}

impl Kernel for Combine<'_> {
    #[inline(always)]
    fn run<V: Lanes>(self) {
        let Self { x, y, grad, factors: [a, b, c], mut before, out } = self;
        for (at, ((x, grad), out)) in x.iter().zip(grad).zip(out).enumerate() {
            let g = masked(grad, y.map(|y| &y[at]));
            for l in 0..LANES {
                out[l] = g[l] * a[l] + x[l] * b[l] + c[l];
            }
            if let Some(before) = &mut before {
                before[at] = g;
            }
        }
    }
}
