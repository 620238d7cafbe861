//! The best that a device reaches, measured: what networks are held against.

use std::sync::Arc;

use candle_core::Result;

use super::gpu::Gpu;
use super::kernels::{Launch, ProductDims, Ptr};
use super::products::Operands;
use crate::nets::meter::Peak;

/// Rows, columns and depth of the product: large enough for any GPU to be busy.
const SIDE: usize = 8192;
/// Bytes that are copied, well past any cache.
const COPY_BYTES: usize = 512 << 20;

impl Gpu {
    /// The rate of a large matrix product in this precision, and of a large copy.
    pub fn peak(self: &Arc<Self>) -> Result<Peak> {
        // Memory of its own, which goes at the end: after the turn, which giving it back takes again.
        let pool = self.new_pool();
        let _turn = self.turn();
        let taking = self.taking_from(&pool);
        let bytes = SIDE * SIDE * self.precision().bytes();
        let [a, b, d] = [self.take(bytes)?, self.take(bytes)?, self.take(bytes)?];
        // Zeros are drawn less power for than numbers are; a pattern is nearer to what networks do.
        let pattern: Vec<u8> =
            (0..bytes).map(|i| if i % 2 == 0 { (i / 7 % 251) as u8 } else { 0x2c + (i % 3) as u8 }).collect();
        for buffer in [&a, &b] {
            self.write(buffer.at(), &pattern)?;
        }
        let dims =
            ProductDims { batch: 1, m: SIDE, n: SIDE, k: SIDE, shared_b: true, wide: false, bias: false, relu: false };
        let operands =
            Operands { a: a.at(), b: b.at(), bias: Ptr::NULL, bias_f32: Ptr::NULL, residual: None, d: d.at() };
        let product = || self.libraries.products.run(self, dims, operands);
        let product_ms = self.best_ms(product)?;
        drop((a, b, d));

        let [from, to] = [self.take(COPY_BYTES)?, self.take(COPY_BYTES)?];
        let copy_ms = self.best_ms(|| self.copy(from.at(), to.at(), COPY_BYTES))?;
        drop((from, to, taking));
        Ok(Peak {
            gflops: 2.0 * (SIDE as f64).powi(3) / product_ms / 1e6,
            gigabytes_per_sec: Some(2.0 * COPY_BYTES as f64 / copy_ms / 1e6),
        })
    }

    /// The fastest of some runs.
    fn best_ms(&self, work: impl Fn() -> Result<()>) -> Result<f64> {
        work()?;
        let mut best = f64::INFINITY;
        for _ in 0..5 {
            best = best.min(f64::from(self.elapsed_ms(&work)?));
        }
        Ok(best)
    }
}
