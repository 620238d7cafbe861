//! Soft-argmax of volumes (integral regression; Sun et al. 2018) that are given by their logits.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::{blocked_dims, floats, with_floats};
use crate::nets::kernels::{Isa, LANES, volume_gradient, volume_marginals};
#[cfg(any(feature = "cudnn", test))]
use crate::train::gpu;

/// Logits of volumes of D cells a side, `[B, N D / 16, D (y), D (x), 16]` with the depths of each as its channels, to the
/// expected cell `[B, N, 3]`, x first. D is a multiple of 16.
pub fn volume_soft_argmax(logits: &Tensor) -> Result<Tensor> {
    #[cfg(any(feature = "cudnn", test))]
    if gpu::is_planar(logits) {
        return gpu::volume_soft_argmax(logits);
    }
    logits.contiguous()?.apply_op1(VolumeSoftArgmax)
}

struct VolumeSoftArgmax;

/// People, volumes of each, cells along a side.
fn dims(dims: &[usize]) -> Result<[usize; 3]> {
    let [batch, blocks, height, width] = blocked_dims(dims)?;
    let depth = width;
    if height != width || !depth.is_multiple_of(LANES) || !(blocks * LANES).is_multiple_of(depth) {
        bail!("{height}x{width} planes in {blocks} blocks are no cubes of a multiple of {LANES} cells");
    }
    Ok([batch, blocks * LANES / depth, depth])
}

impl CustomOp1 for VolumeSoftArgmax {
    fn name(&self) -> &'static str {
        "soft-argmax of volumes"
    }

    fn cpu_fwd(&self, logits: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let [batch, volumes, depth] = dims(layout.dims())?;
        let marginals = volume_marginals(Isa::detect(), floats(logits, layout)?, depth);
        let mean = |line: &[f32]| line.iter().enumerate().map(|(bin, p)| bin as f32 * p).sum();
        let coords = marginals.chunks_exact(depth).map(mean).collect();
        Ok((CpuStorage::F32(coords), Shape::from((batch, volumes, 3))))
    }

    fn bwd(&self, logits: &Tensor, coords: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let [.., depth] = dims(logits.dims())?;
        with_floats([logits, coords, grad], |[floats, coords, grad]| {
            let mut out = vec![0.0; floats.len()];
            let volumes = out.par_chunks_exact_mut(depth.pow(3)).zip(floats.par_chunks_exact(depth.pow(3)));
            volumes.enumerate().for_each(|(at, (out, volume))| {
                let [mean, slope] = [coords, grad].map(|of| of.as_chunks::<3>().0[at]);
                volume_gradient(Isa::detect(), volume, depth, slope, mean, out);
            });
            Tensor::from_vec(out, logits.shape(), logits.device()).map(Some)
        })
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{D, Device, Var};

    use super::*;
    use crate::train::ops::to_blocked;
    use crate::train::params::Random;

    /// The plain twin: `[B, N, D, D, D]`, z first.
    fn plain(logits: &Tensor) -> Result<Tensor> {
        let (batch, volumes, depth, ..) = logits.dims5()?;
        let p = candle_nn::ops::softmax(&logits.flatten_from(2)?, D::Minus1)?.reshape(logits.shape())?;
        let bins = Tensor::arange(0.0_f32, depth as f32, &Device::Cpu)?;
        let mean = |others: (usize, usize)| -> Result<Tensor> {
            p.sum(others)?.broadcast_mul(&bins)?.sum(2)?.reshape((batch, volumes))
        };
        Tensor::stack(&[mean((2, 3))?, mean((2, 4))?, mean((3, 4))?], 2)
    }

    #[test]
    fn coordinates_and_gradients_are_those_of_plain_operations() -> Result<()> {
        let random = &mut Random::new(12);
        for (batch, volumes, depth) in [(2, 3, 16), (1, 1, 32)] {
            let values = (0..batch * volumes * depth * depth * depth).map(|_| 3.0 * random.normal()).collect();
            let logits: Var = Var::from_tensor(&Tensor::from_vec::<_, f32>(
                values,
                (batch, volumes, depth, depth, depth),
                &Device::Cpu,
            )?)?;
            let slope: Vec<f32> = (0..batch * volumes * 3).map(|_| random.normal()).collect();
            let slope = Tensor::from_vec(slope, (batch, volumes, 3), &Device::Cpu)?;
            let expected = plain(&logits)?;
            let found = volume_soft_argmax(&to_blocked(&logits.reshape((batch, volumes * depth, depth, depth))?)?)?;
            let gradient = |coords: &Tensor| -> Result<Tensor> {
                let found = (coords * &slope)?.sum_all()?.backward()?;
                Ok(found.get(&logits).expect("a gradient").clone())
            };
            let off = |a: &Tensor, b: &Tensor| (a - b)?.abs()?.max_all()?.to_scalar::<f32>();
            // Sums of up to 32^3 probabilities in another order; probabilities reach 0.1, times 32 cells.
            assert!(off(&found, &expected)? < 1e-3, "{}", off(&found, &expected)?);
            let (found, expected) = (gradient(&found)?, gradient(&expected)?);
            let largest = expected.abs()?.max_all()?.to_scalar::<f32>()?;
            assert!(
                largest > 1e-3 && off(&found, &expected)? < 1e-4 * largest,
                "{} {largest}",
                off(&found, &expected)?
            );
        }
        assert!(
            volume_soft_argmax(&Tensor::zeros((1, 3, 24, 24, 16), candle_core::DType::F32, &Device::Cpu)?).is_err()
        );
        Ok(())
    }
}
