//! Cross-entropy of 1D heatmaps with the place of their point, a loss beside the L1 of the soft-argmax: it tells each
//! bin, not their mean alone, what it should be.

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::{blocked_dims, floats, with_floats};
use crate::nets::kernels::{Isa, LANES, line_probabilities};
#[cfg(any(feature = "cudnn", test))]
use crate::train::gpu;

/// Logits `[B, N / 16, 1, D, 16]` and where each point is, `[B, N]` in lixels, to the mean over all points that are
/// between the first and the last bin. The target is the two bins beside the point, in the shares that make it their
/// mean. Scalar.
pub fn heatmap_cross_entropy(logits: &Tensor, targets: &Tensor) -> Result<Tensor> {
    #[cfg(any(feature = "cudnn", test))]
    if gpu::is_planar(logits) {
        return gpu::heatmap_cross_entropy(logits, targets);
    }
    logits.contiguous()?.apply_op2(&targets.contiguous()?, CrossEntropy)
}

struct CrossEntropy;

/// The targets of 16 points, and whether each counts.
fn targets_of(targets: &[f32], points: usize, bins: usize, image: usize, block: usize) -> [Option<f32>; LANES] {
    std::array::from_fn(|lane| {
        let point = block * LANES + lane;
        let target = (point < points).then(|| targets[image * points + point])?;
        (target >= 0.0 && target <= (bins - 1) as f32).then_some(target)
    })
}

/// Bins beside a target and their shares.
fn shares(target: f32, bins: usize) -> [(usize, f32); 2] {
    let low = (target as usize).min(bins - 2);
    let high = target - low as f32;
    [(low, 1.0 - high), (low + 1, high)]
}

fn counted(targets: &[f32], bins: usize) -> f32 {
    targets.iter().filter(|&&t| t >= 0.0 && t <= (bins - 1) as f32).count().max(1) as f32
}

impl CustomOp2 for CrossEntropy {
    fn name(&self) -> &'static str {
        "cross-entropy of heatmaps"
    }

    fn cpu_fwd(
        &self,
        logits: &CpuStorage,
        layout: &Layout,
        targets: &CpuStorage,
        targets_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let [_, blocks, _, bins] = blocked_dims(layout.dims())?;
        let points = targets_layout.dims()[1];
        if points.div_ceil(LANES) != blocks || bins < 2 {
            bail!("{points} targets for {blocks} blocks of points, {bins} bins");
        }
        let (logits, targets) = (floats(logits, layout)?, floats(targets, targets_layout)?);
        let lines = logits.par_chunks_exact(bins * LANES).enumerate().with_min_len(8);
        let sum = lines.map(|(line, logits)| {
            let wanted = targets_of(targets, points, bins, line / blocks, line % blocks);
            let logits = logits.as_chunks::<LANES>().0;
            let mut probabilities = vec![[0.0; LANES]; bins];
            line_probabilities(Isa::detect(), logits, &mut probabilities);
            let mut sum = 0.0_f64;
            for (lane, target) in wanted.iter().enumerate() {
                let Some(target) = target else { continue };
                for (bin, share) in shares(*target, bins) {
                    sum -= f64::from(share * probabilities[bin][lane].max(1e-30).ln());
                }
            }
            sum
        });
        let sums: Vec<f64> = lines_in_order(sum);
        let mean = sums.iter().sum::<f64>() / f64::from(counted(targets, bins));
        Ok((CpuStorage::F32(vec![mean as f32]), Shape::from(())))
    }

    fn bwd(
        &self,
        logits: &Tensor,
        targets: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let [_, blocks, _, bins] = blocked_dims(logits.dims())?;
        let points = targets.dim(1)?;
        let grad = grad.to_scalar::<f32>()?;
        let gradient = with_floats([logits, targets], |[floats, targets]| {
            let share = grad / counted(targets, bins);
            let mut out = vec![0.0; floats.len()];
            let parts = out.par_chunks_exact_mut(bins * LANES).zip(floats.par_chunks_exact(bins * LANES));
            parts.enumerate().with_min_len(8).for_each(|(line, (out, logits))| {
                let wanted = targets_of(targets, points, bins, line / blocks, line % blocks);
                let out = out.as_chunks_mut::<LANES>().0;
                line_probabilities(Isa::detect(), logits.as_chunks().0, out);
                let factors: [f32; LANES] = wanted.map(|target| if target.is_some() { share } else { 0.0 });
                for out in out.iter_mut() {
                    (0..LANES).for_each(|l| out[l] *= factors[l]);
                }
                for (lane, target) in wanted.iter().enumerate() {
                    let Some(target) = target else { continue };
                    for (bin, part) in shares(*target, bins) {
                        out[bin][lane] -= part * share;
                    }
                }
            });
            Tensor::from_vec(out, logits.shape(), logits.device())
        })?;
        Ok((Some(gradient), None))
    }
}

/// A parallel sum whose order does not depend on the threads.
fn lines_in_order(sums: impl IndexedParallelIterator<Item = f64>) -> Vec<f64> {
    let mut all = Vec::new();
    sums.collect_into_vec(&mut all);
    all
}
