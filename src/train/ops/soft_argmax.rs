//! Soft-argmax (I2L-MeshNet, eq. 3) of 1D heatmaps that are given by their logits.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::{blocked_dims, floats, with_floats};
use crate::nets::kernels::LANES;

/// Logits of D bins, `[B, N / 16, 1, D, 16]`, to the expected bin, `[B, N]` (N up to whole blocks), in lixels.
pub fn soft_argmax(logits: &Tensor) -> Result<Tensor> {
    logits.contiguous()?.apply_op1(SoftArgmax)
}

struct SoftArgmax;

type Lane = [f32; LANES];

/// Calls `each` with the probability of each bin, of sixteen points at once.
fn with_probabilities(logits: &[Lane], mut each: impl FnMut(usize, Lane)) {
    let mut greatest = [f32::NEG_INFINITY; LANES];
    for logit in logits {
        (0..LANES).for_each(|l| greatest[l] = greatest[l].max(logit[l]));
    }
    let exp = |logit: &Lane| -> Lane { std::array::from_fn(|l| (logit[l] - greatest[l]).exp()) };
    let exps: Vec<Lane> = logits.iter().map(exp).collect();
    let mut sum = [0.0; LANES];
    for exp in &exps {
        (0..LANES).for_each(|l| sum[l] += exp[l]);
    }
    for (bin, exp) in exps.iter().enumerate() {
        each(bin, std::array::from_fn(|l| exp[l] / sum[l]));
    }
}

impl CustomOp1 for SoftArgmax {
    fn name(&self) -> &'static str {
        "soft-argmax"
    }

    fn cpu_fwd(&self, logits: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let [batch, blocks, rows, bins] = blocked_dims(layout.dims())?;
        if rows != 1 {
            bail!("a line has one row, not {rows}");
        }
        let logits = floats(logits, layout)?;
        let mut out = vec![0.0; batch * blocks * LANES];
        let lines = out.as_chunks_mut::<LANES>().0.par_iter_mut().zip(logits.par_chunks_exact(bins * LANES));
        lines.with_min_len(8).for_each(|(out, logits)| {
            with_probabilities(logits.as_chunks().0, |bin, p| (0..LANES).for_each(|l| out[l] += p[l] * bin as f32));
        });
        Ok((CpuStorage::F32(out), Shape::from(vec![batch, blocks * LANES])))
    }

    fn bwd(&self, logits: &Tensor, coords: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let [.., bins] = blocked_dims(logits.dims())?;
        with_floats([logits, coords, grad], |[floats, coords, grad]| {
            let mut out = vec![0.0; floats.len()];
            let parts = out.par_chunks_exact_mut(bins * LANES).zip(floats.par_chunks_exact(bins * LANES));
            parts.with_min_len(8).enumerate().for_each(|(line, (out, logits))| {
                let [coords, grad] = [coords, grad].map(|of| of.as_chunks::<LANES>().0[line]);
                let out = out.as_chunks_mut::<LANES>().0;
                with_probabilities(logits.as_chunks().0, |bin, p| {
                    out[bin] = std::array::from_fn(|l| grad[l] * p[l] * (bin as f32 - coords[l]));
                });
            });
            Tensor::from_vec(out, logits.shape(), logits.device()).map(Some)
        })
    }
}
