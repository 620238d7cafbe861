//! Max-pooling, kernel 3, stride 2, padding 1.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};

use super::{blocked_dims, floats, with_floats};
use crate::nets::kernels::{self, Isa, LANES, Map, max_pool_gradient};
#[cfg(any(feature = "cudnn", test))]
use crate::train::gpu;

/// Kernel, stride, padding.
pub(in crate::train) const POOL_WINDOW: [usize; 3] = [KERNEL, STRIDE, PADDING];
const KERNEL: usize = 3;
const STRIDE: usize = 2;
const PADDING: usize = 1;

/// `[B, C / 16, H, W, 16] -> [B, C / 16, H / 2, W / 2, 16]`
pub fn max_pool(x: &Tensor) -> Result<Tensor> {
    #[cfg(any(feature = "cudnn", test))]
    if gpu::is_planar(x) {
        return gpu::max_pool(x);
    }
    x.contiguous()?.apply_op1(Pool)
}

struct Pool;

impl CustomOp1 for Pool {
    fn name(&self) -> &'static str {
        "max-pool 3x3 with stride 2"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let [batch, blocks, height, width] = blocked_dims(layout.dims())?;
        let mut map = Map::new([batch, blocks * LANES, height, width]);
        map.data.copy_from_slice(floats(x, layout)?);
        let out = kernels::max_pool(Isa::detect(), &map, KERNEL, STRIDE, PADDING);
        let shape = Shape::from(vec![batch, blocks, out.height, out.width, LANES]);
        Ok((CpuStorage::F32(out.data.to_vec()), shape))
    }

    fn bwd(&self, x: &Tensor, out: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let ([.., h, w], [.., oh, ow]) = (blocked_dims(x.dims())?, blocked_dims(out.dims())?);
        with_floats([x, out, grad], |[floats, out, grad]| {
            let gradient = max_pool_gradient(floats, out, grad, [h, w, oh, ow], POOL_WINDOW);
            Tensor::from_vec(gradient, x.shape(), x.device()).map(Some)
        })
    }
}
