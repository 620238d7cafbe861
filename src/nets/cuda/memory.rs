//! How much of a GPU's memory was held at most: what the driver's allocator tells, which our buffers and candle's tensors
//! come from. What the driver keeps for itself (its context, the kernels' code, the libraries' handles) is not in it.

// Attributes of the driver's pool are read and written through a pointer to a number of their size.
#![allow(unsafe_code)]

use candle_core::cuda_backend::cudarc::driver::{result, sys};
use candle_core::{Error, Result};

use super::gpu::Gpu;

const USED_AT_MOST: sys::CUmemPool_attribute = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_HIGH;

impl Gpu {
    /// Gives back what nobody uses, and forgets what was held until now.
    pub fn reset_memory_peak(&self) -> Result<()> {
        self.release_unused()?;
        let Some(pool) = self.memory_pool()? else { return Ok(()) };
        // The only value that may be written: from here on the most is what is held now.
        let mut zero = 0_u64;
        // SAFETY: the pool is the device's own; the attribute is a number of 64 bits.
        unsafe { result::mem_pool::set_attribute(pool, USED_AT_MOST, (&raw mut zero).cast()) }.map_err(Error::wrap)
    }

    /// The most bytes that were held at once since then; `None` where the driver has no such allocator.
    pub fn memory_peak(&self) -> Result<Option<u64>> {
        let Some(pool) = self.memory_pool()? else { return Ok(None) };
        let mut bytes = 0_u64;
        // SAFETY: as above.
        unsafe { result::mem_pool::get_attribute(pool, USED_AT_MOST, (&raw mut bytes).cast()) }.map_err(Error::wrap)?;
        Ok(Some(bytes))
    }

    /// The pool that memory comes from.
    fn memory_pool(&self) -> Result<Option<sys::CUmemoryPool>> {
        if !self.context().has_async_alloc() {
            return Ok(None);
        }
        self.context().bind_to_thread().map_err(Error::wrap)?;
        // SAFETY: the device is the one of a context that lives.
        unsafe { result::device::get_mem_pool(self.context().cu_device()) }.map(Some).map_err(Error::wrap)
    }
}
