//! What a device has done, what it could do at best, and which kernels took how long.

use candle_core::{Device, Result};
use serde::Serialize;

use super::kernels::{self, Isa};

/// Work that was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Products that were summed in convolutions and matrix products.
    pub multiply_adds: u64,
    /// Weights and activations that these read and wrote; 0 on the processor, where nobody counts them.
    pub bytes: u64,
}

impl Work {
    /// What was done since.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self { multiply_adds: self.multiply_adds - before.multiply_adds, bytes: self.bytes - before.bytes }
    }
}

/// What a device reaches at best, measured.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Peak {
    /// Billions of operations a second; a multiply-add counts as two.
    pub gflops: f64,
    /// Billions of bytes a second to and from its memory; `None` on the processor.
    pub gigabytes_per_sec: Option<f64>,
}

/// The least time that work can take: operations at the best rate, bytes at the best rate.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Floor {
    /// By operations.
    pub operations_ms: f64,
    /// By bytes.
    pub bytes_ms: f64,
}

impl Peak {
    /// For work on this device; `None` where its bytes are not counted.
    pub fn floor(&self, work: Work) -> Option<Floor> {
        let bandwidth = self.gigabytes_per_sec.filter(|_| work.multiply_adds > 0)?;
        Some(Floor {
            operations_ms: 2.0 * work.multiply_adds as f64 / self.gflops / 1e6,
            bytes_ms: work.bytes as f64 / bandwidth / 1e6,
        })
    }
}

/// Time of one kind of work on a GPU.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct KernelTime {
    /// What, and for convolutions and products which way they go.
    pub name: String,
    /// How often.
    pub count: usize,
    /// Together.
    pub ms: f64,
}

/// How networks on a GPU ran.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GraphUse {
    /// Graphs that were recorded.
    pub recorded: usize,
    /// Those that could not be.
    pub failed: usize,
    /// Runs as a whole.
    pub replayed: usize,
    /// Runs kernel by kernel: the first of each shape, and all where there is no graph.
    pub eager: usize,
}

impl GraphUse {
    /// What was done since.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self {
            recorded: self.recorded - before.recorded,
            failed: self.failed - before.failed,
            replayed: self.replayed - before.replayed,
            eager: self.eager - before.eager,
        }
    }
}

/// A way that a convolution or a product goes on a GPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Chosen {
    /// The shape and the way.
    pub name: String,
    /// No library does it, or none with what follows in the same kernel.
    pub slow: bool,
}

/// All work of this program on a device so far.
pub fn work(device: &Device) -> Work {
    #[cfg(feature = "cudnn")]
    if let Some(gpu) = super::cuda::Gpu::of(device) {
        return gpu.work();
    }
    if device.is_cpu() { Work { multiply_adds: kernels::multiply_adds(), bytes: 0 } } else { Work::default() }
}

/// Measures the best; `None` for devices that are not measured.
pub fn peak(device: &Device) -> Result<Option<Peak>> {
    #[cfg(feature = "cudnn")]
    if let Some(gpu) = super::cuda::Gpu::of(device) {
        return gpu.peak().map(Some);
    }
    let cpu = || Peak { gflops: kernels::peak_gflops(Isa::detect()), gigabytes_per_sec: None };
    Ok(device.is_cpu().then(cpu))
}

/// Gives back a GPU's memory that nobody uses, and forgets what was held of it.
pub fn reset_memory_peak(device: &Device) -> Result<()> {
    #[cfg(feature = "cudnn")]
    if let Some(gpu) = super::cuda::Gpu::of(device) {
        return gpu.reset_memory_peak();
    }
    let _ = device;
    Ok(())
}

/// The most bytes of a GPU's memory that were held at once since then; `None` on other devices, and where the driver
/// does not tell.
pub fn memory_peak(device: &Device) -> Result<Option<u64>> {
    #[cfg(feature = "cudnn")]
    if let Some(gpu) = super::cuda::Gpu::of(device) {
        return gpu.memory_peak();
    }
    let _ = device;
    Ok(None)
}

/// Whether networks on a GPU run as graphs; elsewhere there are none.
pub fn set_graphs(device: &Device, graphs: bool) {
    #[cfg(feature = "cudnn")]
    if let Some(gpu) = super::cuda::Gpu::of(device) {
        gpu.set_graphs(graphs);
    }
    let _ = (device, graphs);
}

/// How networks on a GPU ran so far.
pub fn graphs(device: &Device) -> GraphUse {
    #[cfg(feature = "cudnn")]
    if let Some(gpu) = super::cuda::Gpu::of(device) {
        return gpu.graph_use();
    }
    let _ = device;
    GraphUse::default()
}

/// Bytes that a GPU's driver holds for this process; `None` elsewhere.
pub fn held_bytes(device: &Device) -> Option<u64> {
    #[cfg(feature = "cudnn")]
    if let Some(gpu) = super::cuda::Gpu::of(device) {
        return gpu.held_bytes();
    }
    let _ = device;
    None
}

/// The time of each kernel of `work`, the dearest first; empty on devices that are not profiled.
pub fn profile<E: From<candle_core::Error>>(
    device: &Device,
    work: impl FnOnce() -> std::result::Result<(), E>,
) -> std::result::Result<Vec<KernelTime>, E> {
    #[cfg(feature = "cudnn")]
    if let Some(gpu) = super::cuda::Gpu::of(device) {
        gpu.begin_profile();
        let done = work();
        let times = gpu.end_profile()?;
        return done.map(|()| times);
    }
    let _ = (device, work);
    Ok(Vec::new())
}

/// Which way every shape goes that was met on a GPU.
pub fn ways(device: &Device) -> Vec<Chosen> {
    #[cfg(feature = "cudnn")]
    if let Some(gpu) = super::cuda::Gpu::of(device) {
        return gpu.ways().into_iter().map(|(name, slow)| Chosen { name, slow }).collect();
    }
    let _ = device;
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_floor_is_work_over_the_best_rates() {
        let peak = Peak { gflops: 1000.0, gigabytes_per_sec: Some(100.0) };
        let work = Work { multiply_adds: 3_000_000_000, bytes: 50_000_000 };
        assert_eq!(peak.floor(work), Some(Floor { operations_ms: 6.0, bytes_ms: 0.5 }));
        assert_eq!(peak.floor(Work::default()), None);
        assert_eq!(Peak { gigabytes_per_sec: None, ..peak }.floor(work), None);
    }

    #[test]
    fn the_processor_has_a_best_and_no_profile() {
        assert!(peak(&Device::Cpu).unwrap().is_some_and(|peak| peak.gflops > 0.0));
        let ran = std::cell::Cell::new(false);
        let times = profile(&Device::Cpu, || {
            ran.set(true);
            Ok::<_, candle_core::Error>(())
        });
        assert!(times.unwrap().is_empty() && !ran.get() && ways(&Device::Cpu).is_empty());
        assert!(reset_memory_peak(&Device::Cpu).is_ok() && memory_peak(&Device::Cpu).unwrap().is_none());
    }
}
