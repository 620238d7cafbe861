//! Soft-argmax and spread together, on the CPU. candle's operations, one after the other, pass over the 1.3 million
//! values of a body's heatmaps five times, in 18 ms of one core; this takes 5. Likewise the softmax before them.

use candle_core::Result;
use rayon::prelude::*;

use crate::memory::Buffer;
use crate::nets::kernels::{self, Heatmaps, Isa};
use crate::nets::layers::Values;

/// Points of a work item.
const POINTS: usize = 64;

/// Expectation and standard deviation of the bin index: `[..., D] -> 2 x [...]`. `None` where this way is not open:
/// on another device, in another type, or where a gradient is wanted.
pub(super) fn on_cpu(heatmaps: &Values) -> Result<Option<[Values; 2]>> {
    let Some((&bins, shape)) = heatmaps.dims().split_last() else { return Ok(None) };
    if !heatmaps.is_fast() || bins == 0 {
        return Ok(None);
    }
    heatmaps.with_floats(|values| {
        let [mut means, mut deviations] = [(); 2].map(|()| Buffer::take(values.len() / bins));
        let moments = means.par_iter_mut().zip(deviations.par_iter_mut()).with_min_len(256);
        moments.zip(values.par_chunks_exact(bins)).for_each(|((mean, deviation), heatmap)| {
            (*mean, *deviation) = mean_and_deviation(heatmap);
        });
        Ok(Some([Values::new(means, shape), Values::new(deviations, shape)]))
    })
}

/// The same from the logits of x, y and z, `[B, N, D]` each, in one pass: softmax `[B, N, 3, D]`, expectation and
/// standard deviation `[B, N, 3]`.
pub(super) fn from_logits(xyz: &[Values; 3]) -> Result<Option<[Values; 3]>> {
    let &[batch, count, bins] = xyz[0].dims() else { return Ok(None) };
    if !xyz.iter().all(Values::is_fast) || bins == 0 || xyz.iter().any(|x| x.dims() != xyz[0].dims()) {
        return Ok(None);
    }
    let points = batch * count;
    let [mut means, mut deviations] = [(); 2].map(|()| Buffer::take(3 * points));
    let mut probabilities: Buffer = Buffer::take(3 * points * bins);
    let [x, y, z] = xyz;
    x.with_floats(|x| {
        y.with_floats(|y| {
            z.with_floats(|z| {
                let moments = means.par_chunks_mut(3 * POINTS).zip(deviations.par_chunks_mut(3 * POINTS));
                let parts = probabilities.par_chunks_mut(3 * POINTS * bins).zip(moments).enumerate();
                parts.for_each(|(part, (probabilities, (means, deviations)))| {
                    let logits = [x, y, z].map(|l| &l[part * POINTS * bins..][..probabilities.len() / 3]);
                    kernels::heatmaps(Isa::detect(), bins, logits, Heatmaps { probabilities, means, deviations });
                });
                Ok(())
            })
        })
    })?;
    Ok(Some([
        Values::new(probabilities, (batch, count, 3, bins)),
        Values::new(means, (batch, count, 3)),
        Values::new(deviations, (batch, count, 3)),
    ]))
}

/// Of the index, under probabilities.
fn mean_and_deviation(heatmap: &[f32]) -> (f32, f32) {
    let mean = weighted_sum(heatmap, |i| i);
    let variance = weighted_sum(heatmap, |i| (i - mean) * (i - mean));
    (mean, variance.sqrt())
}

/// Sum of `p[i] * f(i)`, in eight sums that the processor can run side by side.
#[inline]
fn weighted_sum(heatmap: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    const LANES: usize = 8;
    let (chunks, rest) = heatmap.as_chunks::<LANES>();
    let mut sums = [0.0_f32; LANES];
    for (chunk, values) in chunks.iter().enumerate() {
        let first = (chunk * LANES) as f32;
        for lane in 0..LANES {
            sums[lane] += values[lane] * f(first + lane as f32);
        }
    }
    let first = chunks.len() * LANES;
    let rest: f32 = rest.iter().enumerate().map(|(i, p)| p * f((first + i) as f32)).sum();
    sums.iter().sum::<f32>() + rest
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};

    use super::super::{soft_argmax, softmax, spread};
    use super::*;

    /// Of values of one shape.
    fn greatest_difference(ours: &Values, plain: &Tensor) -> f32 {
        assert_eq!(ours.dims(), plain.dims());
        let apart = (ours.to_tensor().unwrap() - plain).unwrap().abs().unwrap();
        apart.max_all().unwrap().to_scalar().unwrap()
    }

    #[test]
    fn they_are_what_candles_operations_say() {
        for bins in [64, 13, 1] {
            let logits = Tensor::randn(0.0_f32, 4.0, (2, 300, 3, bins), &Device::Cpu).unwrap();
            // Strided, and not from its storage's beginning.
            let logits = logits.transpose(0, 1).unwrap().narrow(0, 5, 290).unwrap();
            let heatmaps = softmax(&logits).unwrap().transpose(0, 1).unwrap();
            let [mean, deviation] = on_cpu(&(&heatmaps).into()).unwrap().expect("f32 on the CPU");
            let plain_mean = soft_argmax(&heatmaps).unwrap();
            let plain_deviation = spread(&heatmaps, &plain_mean).unwrap();
            for (ours, plain) in [(mean, plain_mean), (deviation, plain_deviation)] {
                let apart = greatest_difference(&ours, &plain);
                // Sums of up to 64 terms of up to 64, in another order.
                assert!(apart < 1e-4, "{apart}");
            }
        }
    }

    #[test]
    fn logits_become_what_candles_operations_say() {
        for bins in [64, 16, 13, 1] {
            let logits = |scale: f32| Tensor::randn(0.0_f32, scale, (2, 90, bins), &Device::Cpu).unwrap();
            // The last so steep that most exponentials vanish.
            let xyz = [logits(1.0), logits(6.0), logits(80.0)];
            let ours = from_logits(&xyz.each_ref().map(Values::from)).unwrap().expect("f32 on the CPU");
            let heatmaps = softmax(&Tensor::stack(&xyz, 2).unwrap()).unwrap();
            let mean = soft_argmax(&heatmaps).unwrap();
            let deviation = spread(&heatmaps, &mean).unwrap();
            // Probabilities within some units in the last place; the moments are sums of them times up to 64.
            for (ours, (plain, tolerance)) in ours.iter().zip([(heatmaps, 1e-6), (mean, 1e-4), (deviation, 1e-3)]) {
                let apart = greatest_difference(ours, &plain);
                assert!(apart < tolerance, "{bins} bins: {apart}");
            }
        }
    }

    #[test]
    fn what_is_not_a_number_stays_visible() {
        let mut values = vec![0.5_f32; 20];
        values[3] = f32::NAN;
        let bad = Tensor::from_vec(values, (1, 1, 20), &Device::Cpu).unwrap();
        let good = bad.zeros_like().unwrap();
        let [heatmaps, mean, _] =
            from_logits(&[bad, good.clone(), good].map(Values::from)).unwrap().expect("f32 on the CPU");
        let mean = mean.fetch().unwrap();
        assert!(mean[0].is_nan() && mean[1] == 9.5 && mean[2] == 9.5, "{mean:?}");
        assert!(heatmaps.fetch().unwrap()[0].is_nan());
    }
}
