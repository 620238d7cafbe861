//! A plane becomes lines: what 1D heatmaps are made of (I2L-MeshNet, section 4.1).

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::{blocked_dims, floats, with_floats};
use crate::nets::kernels::LANES;
#[cfg(any(feature = "cudnn", test))]
use crate::train::gpu;

/// Means over the rows and over the columns of square planes: `[B, C / 16, D, D, 16] -> [2, B, C / 16, D, 16]`, first
/// the line along x, then that along y.
pub fn axis_means(x: &Tensor) -> Result<Tensor> {
    #[cfg(any(feature = "cudnn", test))]
    if gpu::is_planar(x) {
        return gpu::axis_means(x);
    }
    x.contiguous()?.apply_op1(AxisMeans)
}

struct AxisMeans;

impl CustomOp1 for AxisMeans {
    fn name(&self) -> &'static str {
        "means of rows and of columns"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let [batch, blocks, side, width] = blocked_dims(layout.dims())?;
        if side != width {
            candle_core::bail!("planes of {side}x{width} pixels are not square");
        }
        let (x, line) = (floats(x, layout)?, side * LANES);
        let mut out = vec![0.0; 2 * batch * blocks * line];
        let (along_x, along_y) = out.split_at_mut(batch * blocks * line);
        let lines = along_x.par_chunks_exact_mut(line).zip(along_y.par_chunks_exact_mut(line));
        lines.zip(x.par_chunks_exact(side * line)).for_each(|((along_x, along_y), plane)| {
            let share = 1.0 / side as f32;
            for (row, along_y) in plane.chunks_exact(line).zip(along_y.chunks_exact_mut(LANES)) {
                along_x.iter_mut().zip(row).for_each(|(to, x)| *to += x * share);
                for x in row.chunks_exact(LANES) {
                    along_y.iter_mut().zip(x).for_each(|(to, x)| *to += x * share);
                }
            }
        });
        Ok((CpuStorage::F32(out), Shape::from(vec![2, batch, blocks, side, LANES])))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let [batch, blocks, side, _] = blocked_dims(x.dims())?;
        let line = side * LANES;
        with_floats([grad], |[grad]| {
            let mut out = vec![0.0; x.elem_count()];
            let (along_x, along_y) = grad.split_at(batch * blocks * line);
            let lines = along_x.par_chunks_exact(line).zip(along_y.par_chunks_exact(line));
            lines.zip(out.par_chunks_exact_mut(side * line)).for_each(|((along_x, along_y), plane)| {
                let share = 1.0 / side as f32;
                for (row, along_y) in plane.chunks_exact_mut(line).zip(along_y.chunks_exact(LANES)) {
                    for (to, along_x) in row.chunks_exact_mut(LANES).zip(along_x.chunks_exact(LANES)) {
                        for ((to, x), y) in to.iter_mut().zip(along_x).zip(along_y) {
                            *to = (x + y) * share;
                        }
                    }
                }
            });
            Tensor::from_vec(out, x.shape(), x.device()).map(Some)
        })
    }
}
