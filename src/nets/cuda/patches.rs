//! Frames on the device, and the patches that are cut out of them there.

use std::sync::Arc;

use candle_core::{Result, bail};
use image::RgbImage;

use super::gpu::Gpu;
use super::kernels::{self, Launch, MapDims, Scaling};
use super::map::DeviceMap;
use super::pictures;
use crate::crop::Crop;

/// Patches that are still parts of their frame.
#[derive(Clone, Copy)]
pub struct PatchSource<'a> {
    /// The frame.
    pub frame: &'a RgbImage,
    /// Which frame it is: with the same number it is not copied to the device again.
    pub frame_id: u64,
    /// One for each person; of one size.
    pub crops: &'a [Crop],
}

impl PatchSource<'_> {
    /// How many.
    pub fn people(&self) -> usize {
        self.crops.len()
    }

    /// Cuts them into a map, normalised.
    pub fn cut(&self, gpu: &Arc<Gpu>, patches: &DeviceMap, scaling: Scaling) -> Result<()> {
        let MapDims { batch, height, width, channels } = patches.dims;
        let fits = |crop: &Crop| (crop.size as usize, crop.size as usize) == (width, height);
        if batch != self.crops.len() || channels != 3 || !self.crops.iter().all(fits) {
            bail!("{} crops do not fit {:?}", self.crops.len(), patches.dims);
        }
        let (frame_width, frame_height) = (self.frame.width() as usize, self.frame.height() as usize);
        let affines: Vec<f32> = self.crops.iter().flat_map(|crop| crop.frame_from_crop.to_cols_array()).collect();
        let memory = gpu.take(size_of_val(&affines[..]))?;
        gpu.write(memory.at(), bytemuck::cast_slice(&affines))?;
        gpu.with_frame(self.frame, Some(self.frame_id), |frame| {
            let size = [frame_width, frame_height];
            pictures::crop(&**gpu, frame, size, memory.at(), patches.at(), patches.dims, scaling)
        })
    }
}

/// A frame's copy on the device.
pub(super) struct HeldFrame {
    buffer: super::gpu::Buffer,
    size: (u32, u32),
    id: Option<u64>,
}

impl Gpu {
    /// Lets `work` read a frame's copy on the device, which is made unless the last one has the same number.
    pub fn with_frame<T>(
        self: &Arc<Self>,
        frame: &RgbImage,
        id: Option<u64>,
        work: impl FnOnce(kernels::Ptr) -> Result<T>,
    ) -> Result<T> {
        let mut held = self.held_frame();
        let size = frame.dimensions();
        let known = |held: &HeldFrame| held.size == size && id.is_some() && held.id == id;
        if !held.as_ref().is_some_and(known) {
            // The memory of a frame of the same size serves again; it is not from a graph's pool, which may go.
            if held.as_ref().is_none_or(|held| held.size != size) {
                *held = None;
                *held = Some(HeldFrame { buffer: self.take_shared(frame.as_raw().len())?, size, id: None });
            }
            if let Some(held) = &mut *held {
                held.id = None;
                self.write(held.buffer.at(), frame.as_raw())?;
                held.id = id;
            }
        }
        match &*held {
            Some(held) => work(held.buffer.at()),
            None => bail!("the frame is not on the device ({:?})", self.precision()),
        }
    }
}
