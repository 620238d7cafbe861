//! Soft-argmax (I2L-MeshNet, eq. 3) of 1D heatmaps that are given by their logits.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::{blocked_dims, floats, with_floats};
use crate::nets::kernels::{Isa, LANES, line_probabilities};
#[cfg(any(feature = "cudnn", test))]
use crate::train::gpu;

/// Logits of D bins, `[B, N / 16, 1, D, 16]`, to the expected bin, `[B, N]` (N up to whole blocks), in lixels.
pub fn soft_argmax(logits: &Tensor) -> Result<Tensor> {
    #[cfg(any(feature = "cudnn", test))]
    if gpu::is_planar(logits) {
        return gpu::soft_argmax(logits);
    }
    logits.contiguous()?.apply_op1(SoftArgmax)
}

struct SoftArgmax;

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
            let mut probabilities = vec![[0.0; LANES]; bins];
            line_probabilities(Isa::detect(), logits.as_chunks().0, &mut probabilities);
            for (bin, p) in probabilities.iter().enumerate() {
                (0..LANES).for_each(|l| out[l] += p[l] * bin as f32);
            }
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
                line_probabilities(Isa::detect(), logits.as_chunks().0, out);
                for (bin, out) in out.iter_mut().enumerate() {
                    *out = std::array::from_fn(|l| grad[l] * out[l] * (bin as f32 - coords[l]));
                }
            });
            Tensor::from_vec(out, logits.shape(), logits.device()).map(Some)
        })
    }
}
