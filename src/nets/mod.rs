//! The networks: patches or frames in, what they say out, as [`layers::Values`]. One file each; names follow the
//! checkpoints. Batch norm is folded into the convolutions when the weights are loaded; every network takes any batch
//! size.
//!
//! Mask R-CNN and the light detector read whole frames; the others all read the same patches (see [`input`]), and each
//! normalises them as its checkpoints expect.

pub mod convert;
#[cfg(any(test, feature = "cuda"))]
pub mod cuda;
pub mod i2l;
pub mod input;
pub mod kernels;
pub mod layers;
pub mod maskrcnn;
pub mod meter;
pub mod param;
pub mod person_detector;
pub mod pose2feat;
pub mod posenet3d;
mod precision;
pub mod resnet;
pub mod rootnet;
mod torch_file;
pub mod weights;

use anyhow::{Result, bail};
use candle_core::{Device, Result as CandleResult};

use input::PatchBatch;
pub use precision::Precision;
use resnet::Depth;

/// Told the name of a stage when it is done: a stop watch, for instance.
pub type Lap<'a> = dyn FnMut(&'static str) -> CandleResult<()> + Send + 'a;

/// Runs a network's work on the CPU within the pool of threads that its kernels are shared out to. From elsewhere each
/// of its hundreds of loops would put the caller to sleep and wake it again.
pub fn on_pool<T: Send>(device: &Device, work: impl FnOnce() -> T + Send) -> T {
    if device.is_cpu() { rayon::scope(|_| work()) } else { work() }
}

/// An NVIDIA GPU, and its name in words. Without cuDNN all layers are candle's, and compute in f32.
pub fn open_cuda(ordinal: usize, precision: Precision) -> CandleResult<(Device, String)> {
    #[cfg(feature = "cudnn")]
    {
        let device = cuda::Gpu::open(ordinal, precision)?;
        let name = cuda::Gpu::of(&device).map_or_else(String::new, |gpu| gpu.name());
        Ok((device, format!("cuda {ordinal} ({name})")))
    }
    #[cfg(not(feature = "cudnn"))]
    {
        let _ = precision;
        // One stream for all threads: who loads a network is not who runs it.
        Ok((Device::new_cuda_with_stream(ordinal)?, format!("cuda {ordinal}")))
    }
}

/// Waits until a device has done all that it was asked for.
pub fn synchronize(device: &Device) -> CandleResult<()> {
    #[cfg(feature = "cudnn")]
    if let Some(gpu) = cuda::Gpu::of(device) {
        return gpu.synchronize();
    }
    device.synchronize()
}

/// The sizes of a network that its weights do not tell: they stand in the small file beside the weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetSizes {
    depth: Depth,
    channels: usize,
    input: usize,
    heatmap: usize,
}

impl Default for NetSizes {
    /// The published checkpoints: ResNet-50, heads of 256 channels, 256 x 256 pixels, 64 bins.
    fn default() -> Self {
        Self { depth: Depth::RESNET50, channels: 256, input: 256, heatmap: 64 }
    }
}

impl NetSizes {
    /// Largest side of a patch: beyond it a frame's worth of heatmaps would not fit in memory.
    const MAX_INPUT: usize = 1024;

    /// Layers of the ResNet, side of the patch in pixels, bins of a heatmap. The ResNet divides the side by 32 and
    /// the three transposed convolutions multiply it by 8, so a heatmap has a quarter of the patch's side.
    pub fn new(resnet: usize, input: usize, heatmap: usize) -> Result<Self> {
        let depth = Depth::new(resnet)?;
        if input == 0 || !input.is_multiple_of(32) || input > Self::MAX_INPUT {
            bail!("the input size is {input}: it must be a multiple of 32, at most {}", Self::MAX_INPUT);
        }
        if heatmap != input / 4 {
            bail!("the heatmap size is {heatmap}: it must be a quarter of the input size {input}, {}", input / 4);
        }
        Ok(Self { depth, input, heatmap, ..Self::default() })
    }

    /// The same with other widths: channels after the ResNet's stem, and of the heads' transposed convolutions.
    pub fn with_widths(self, width: usize, channels: usize) -> Self {
        Self { depth: self.depth.with_width(width), channels, ..self }
    }

    /// The same with the widths of a checkpoint, read off the ResNet at `backbone` and the transposed convolutions at
    /// `deconv`. What the checkpoint has not keeps its width, so that whoever reads it says what is missing.
    pub fn with_widths_of(self, shape_of: impl Fn(&str) -> Option<Vec<usize>>, [backbone, deconv]: [&str; 2]) -> Self {
        let dim = |name: String, at: usize| shape_of(&name).and_then(|shape| shape.get(at).copied());
        let width = dim(format!("{backbone}.conv1.weight"), 0).unwrap_or(self.depth.width());
        let channels = dim(format!("{deconv}.0.weight"), 1).unwrap_or(self.channels);
        self.with_widths(width, channels)
    }

    /// Depth of the backbone.
    pub fn depth(&self) -> Depth {
        self.depth
    }

    /// Channels of the heads' transposed convolutions.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Side of the patch, pixels.
    pub fn input(&self) -> usize {
        self.input
    }

    /// Bins of a heatmap.
    pub fn heatmap(&self) -> usize {
        self.heatmap
    }

    /// Channels that come out of the backbone.
    pub fn features(&self) -> usize {
        self.depth.channels()[3]
    }

    /// Refuses patches of another size with a sentence instead of a shape error deep inside; says how many there are.
    fn check_patches(&self, patches: &PatchBatch<'_>) -> Result<usize> {
        match patches.dims()? {
            [people, 3, h, w] if people > 0 && h == self.input && w == self.input => Ok(people),
            dims => bail!("the network reads patches of shape [B, 3, {0}, {0}], not {dims:?}", self.input),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_that_cannot_be_are_refused() {
        assert_eq!(NetSizes::new(50, 256, 64).unwrap(), NetSizes::default());
        assert!(NetSizes::new(18, 64, 16).is_ok());
        for (resnet, input, heatmap) in
            [(51, 256, 64), (50, 256, 32), (50, 100, 25), (50, 0, 0), (50, 4096, 1024), (50, 64, usize::MAX / 4 + 17)]
        {
            assert!(NetSizes::new(resnet, input, heatmap).is_err(), "{resnet} {input} {heatmap}");
        }
    }
}
