//! Pictures to memory, without a window: for files, tests and training.

use std::sync::Arc;

use anyhow::{Context, Result, anyhow, ensure};
use image::RgbImage;

use super::frame::shrunk;
use super::{DrawOptions, Gpu, OrbitCamera, SceneRenderer};
use crate::result::FrameResult;

const FORMAT: wgpu::TextureFormat = wgpu::TextureFormat::Rgba8Unorm;

/// Draws results to images. Reuses its textures while the size stays.
pub struct OffscreenRenderer {
    gpu: Gpu,
    scene: SceneRenderer,
    target: Option<Target>,
}

/// A texture to draw to and a buffer to read it through.
struct Target {
    texture: wgpu::Texture,
    buffer: wgpu::Buffer,
    /// Bytes of a row in the buffer, which copies want to be a multiple of 256.
    bytes_per_row: u32,
}

impl OffscreenRenderer {
    /// On the best adapter there is, software ones included.
    pub fn new() -> Result<Self> {
        let gpu = Gpu::headless()?;
        let scene = SceneRenderer::new(&gpu.device, &gpu.queue, FORMAT)?;
        Ok(Self { gpu, scene, target: None })
    }

    /// With 1 or 4 samples a pixel, on this device.
    pub fn with_samples(gpu: Gpu, samples: u32) -> Result<Self> {
        let scene = SceneRenderer::with_samples(&gpu.device, &gpu.queue, FORMAT, samples)?;
        Ok(Self { gpu, scene, target: None })
    }

    /// The adapter that draws.
    pub fn describe(&self) -> String {
        self.gpu.describe()
    }

    /// The frame with its people, in the frame's size (smaller, in its aspect, where the device cannot draw that).
    pub fn overlay(&mut self, result: &Arc<FrameResult>, options: &DrawOptions) -> Result<RgbImage> {
        let size = [result.frame.rgb.width(), result.frame.rgb.height()];
        let max = self.gpu.device.limits().max_texture_dimension_2d;
        let size = shrunk(size, max).unwrap_or(size);
        self.draw(result, options, size, SceneRenderer::draw_overlay)
    }

    /// The people in space, as `camera` sees them, in an image of this width and height.
    pub fn orbit(
        &mut self,
        result: &Arc<FrameResult>,
        options: &DrawOptions,
        size: [u32; 2],
        camera: &OrbitCamera,
    ) -> Result<RgbImage> {
        // One picture has no past: its ground is where it says.
        self.scene.clear();
        self.draw(result, options, size, |scene, encoder, target| scene.draw_orbit(encoder, target, camera))
    }

    fn draw(
        &mut self,
        result: &Arc<FrameResult>,
        options: &DrawOptions,
        size: [u32; 2],
        draw: impl FnOnce(&mut SceneRenderer, &mut wgpu::CommandEncoder, &wgpu::TextureView),
    ) -> Result<RgbImage> {
        let max = self.gpu.device.limits().max_texture_dimension_2d;
        ensure!(!size.contains(&0), "a picture of {} x {} pixels has nothing to draw on", size[0], size[1]);
        ensure!(
            size[0].max(size[1]) <= max,
            "{} x {} pixels are more than the graphics device draws ({max} a side)",
            size[0],
            size[1]
        );
        let device = &self.gpu.device;
        let memory = device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let validation = device.push_error_scope(wgpu::ErrorFilter::Validation);
        self.scene.set_result(result, options);
        let target = match self.target.take().filter(|held| held.size() == size) {
            Some(target) => target,
            None => Target::new(device, size),
        };
        let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        let view = target.texture.create_view(&wgpu::TextureViewDescriptor::default());
        draw(&mut self.scene, &mut encoder, &view);
        target.copy_to_buffer(&mut encoder);
        self.gpu.queue.submit([encoder.finish()]);
        let errors = [pollster::block_on(validation.pop()), pollster::block_on(memory.pop())];
        if let Some(error) = errors.into_iter().flatten().next() {
            return Err(anyhow!("drawing {} x {} pixels on {}: {error}", size[0], size[1], self.gpu.describe()));
        }
        let image = target.read(device).with_context(|| format!("reading a picture from {}", self.gpu.describe()))?;
        self.target = Some(target);
        Ok(image)
    }
}

impl Target {
    fn new(device: &wgpu::Device, [width, height]: [u32; 2]) -> Self {
        let texture = device.create_texture(&wgpu::TextureDescriptor {
            label: Some("picture"),
            size: wgpu::Extent3d { width, height, depth_or_array_layers: 1 },
            mip_level_count: 1,
            sample_count: 1,
            dimension: wgpu::TextureDimension::D2,
            format: FORMAT,
            usage: wgpu::TextureUsages::RENDER_ATTACHMENT | wgpu::TextureUsages::COPY_SRC,
            view_formats: &[],
        });
        let bytes_per_row = (4 * width).next_multiple_of(wgpu::COPY_BYTES_PER_ROW_ALIGNMENT);
        let buffer = device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("picture"),
            size: u64::from(bytes_per_row) * u64::from(height),
            usage: wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::MAP_READ,
            mapped_at_creation: false,
        });
        Self { texture, buffer, bytes_per_row }
    }

    fn size(&self) -> [u32; 2] {
        [self.texture.width(), self.texture.height()]
    }

    fn copy_to_buffer(&self, encoder: &mut wgpu::CommandEncoder) {
        let layout =
            wgpu::TexelCopyBufferLayout { offset: 0, bytes_per_row: Some(self.bytes_per_row), rows_per_image: None };
        let to = wgpu::TexelCopyBufferInfo { buffer: &self.buffer, layout };
        encoder.copy_texture_to_buffer(self.texture.as_image_copy(), to, self.texture.size());
    }

    /// Waits for the device, and drops the alpha channel.
    fn read(&self, device: &wgpu::Device) -> Result<RgbImage> {
        let slice = self.buffer.slice(..);
        let (sender, receiver) = std::sync::mpsc::channel();
        slice.map_async(wgpu::MapMode::Read, move |mapped| {
            // The receiver waits below.
            let _ = sender.send(mapped);
        });
        device.poll(wgpu::PollType::wait_indefinitely()).context("waiting for the graphics device")?;
        receiver.recv().context("the graphics device is lost")?.context("mapping the picture")?;
        let [width, height] = self.size();
        let mut rgb = Vec::with_capacity(3 * width as usize * height as usize);
        {
            let bytes = slice.get_mapped_range().context("mapping the picture")?;
            for row in bytes.chunks_exact(self.bytes_per_row as usize) {
                for pixel in row[..4 * width as usize].chunks_exact(4) {
                    rgb.extend_from_slice(&pixel[..3]);
                }
            }
        }
        self.buffer.unmap();
        RgbImage::from_raw(width, height, rgb).context("the picture has another size than its texture")
    }
}
