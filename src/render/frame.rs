//! The frame as a texture: what the overlay is drawn on, and the image plane of the orbit view.

use std::sync::Arc;

use image::RgbImage;

use super::resources::{Depth, Pass, PipelineFactory};
use crate::capture::Frame;

pub(super) const WGSL: &str =
    concat!(include_str!("../../shaders/view.wgsl"), include_str!("../../shaders/frame.wgsl"));

/// The pipelines that draw the frame.
pub(super) struct FramePasses {
    /// Behind everything, at its fit in the target.
    pub overlay: wgpu::RenderPipeline,
    /// In the frustum.
    pub image_plane: wgpu::RenderPipeline,
}

impl FramePasses {
    pub fn new(factory: &PipelineFactory) -> Self {
        let module = factory.shader("frame", WGSL);
        let pass = |label, vertex, fragment, topology, depth, blend| {
            let pass = Pass { label, vertex, fragment, buffers: &[], topology, depth, blend, colour: true };
            factory.pipeline(&module, &pass)
        };
        let (list, strip) = (wgpu::PrimitiveTopology::TriangleList, wgpu::PrimitiveTopology::TriangleStrip);
        Self {
            overlay: pass("frame", "vs_overlay", "fs_overlay", list, Depth::Ignore, false),
            image_plane: pass("image plane", "vs_image_plane", "fs_image_plane", strip, Depth::Test, true),
        }
    }
}

/// The texture that holds the frame; reused while the size stays.
pub(super) struct FrameTexture {
    texture: wgpu::Texture,
    /// For the bindings.
    pub view: wgpu::TextureView,
    /// The frame that is in it.
    frame: Option<Arc<Frame>>,
    /// The frame's own size; the texture's is smaller where the device cannot hold it.
    pub size: [u32; 2],
    rgba: Vec<u8>,
}

impl FrameTexture {
    /// A black pixel, until a frame comes.
    pub fn new(device: &wgpu::Device) -> Self {
        let texture = create(device, 1, 1);
        let view = texture.create_view(&wgpu::TextureViewDescriptor::default());
        Self { texture, view, frame: None, size: [0, 0], rgba: Vec::new() }
    }

    /// Puts a frame into the texture, unless it is there. Says whether the texture is another one.
    pub fn set(&mut self, device: &wgpu::Device, queue: &wgpu::Queue, frame: &Arc<Frame>) -> bool {
        if self.frame.as_ref().is_some_and(|held| Arc::ptr_eq(held, frame)) {
            return false;
        }
        self.frame = Some(Arc::clone(frame));
        self.size = [frame.rgb.width(), frame.rgb.height()];
        if self.size.contains(&0) {
            return false;
        }
        let max = device.limits().max_texture_dimension_2d;
        let smaller;
        let rgb = match shrunk(self.size, max) {
            None => &frame.rgb,
            Some([w, h]) => {
                smaller = image::imageops::thumbnail(&frame.rgb, w, h);
                &smaller
            }
        };
        let (w, h) = rgb.dimensions();
        let is_new = (self.texture.width(), self.texture.height()) != (w, h);
        if is_new {
            self.texture = create(device, w, h);
            self.view = self.texture.create_view(&wgpu::TextureViewDescriptor::default());
        }
        expand(rgb, &mut self.rgba);
        queue.write_texture(
            self.texture.as_image_copy(),
            &self.rgba,
            wgpu::TexelCopyBufferLayout { offset: 0, bytes_per_row: Some(4 * w), rows_per_image: None },
            self.texture.size(),
        );
        is_new
    }

    /// A frame is there, and it has pixels.
    pub fn is_set(&self) -> bool {
        self.frame.is_some() && !self.size.contains(&0)
    }

    /// Every pixel of the frame is a texel.
    pub fn is_whole(&self) -> bool {
        self.size == [self.texture.width(), self.texture.height()]
    }
}

/// The size, in the same aspect but rounded up, that fits into `max`; `None` when it fits already.
pub(super) fn shrunk(size: [u32; 2], max: u32) -> Option<[u32; 2]> {
    let longest = u64::from(size[0].max(size[1]));
    (longest > u64::from(max))
        .then(|| size.map(|side| (u64::from(side) * u64::from(max)).div_ceil(longest).max(1) as u32))
}

/// RGB to RGBA.
fn expand(rgb: &RgbImage, rgba: &mut Vec<u8>) {
    let pixels = rgb.width() as usize * rgb.height() as usize;
    rgba.resize(4 * pixels, 255);
    for (to, from) in rgba.chunks_exact_mut(4).zip(rgb.as_raw().chunks_exact(3)) {
        to.copy_from_slice(&[from[0], from[1], from[2], 255]);
    }
}

fn create(device: &wgpu::Device, width: u32, height: u32) -> wgpu::Texture {
    device.create_texture(&wgpu::TextureDescriptor {
        label: Some("frame"),
        size: wgpu::Extent3d { width, height, depth_or_array_layers: 1 },
        mip_level_count: 1,
        sample_count: 1,
        dimension: wgpu::TextureDimension::D2,
        // Not sRGB: the bytes go through as they are.
        format: wgpu::TextureFormat::Rgba8Unorm,
        usage: wgpu::TextureUsages::TEXTURE_BINDING | wgpu::TextureUsages::COPY_DST,
        view_formats: &[],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_frames_shrink_in_their_aspect() {
        assert_eq!(shrunk([640, 480], 16384), None);
        assert_eq!(shrunk([16384, 100], 16384), None);
        assert_eq!(shrunk([32768, 8192], 16384), Some([16384, 4096]));
        assert_eq!(shrunk([u32::MAX, 1], 2048), Some([2048, 1]));
    }
}
