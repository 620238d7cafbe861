//! What one picture (the overlay, the orbit view) keeps on the device, and its render pass.

use std::ops::Range;

use super::frame::FrameTexture;
use super::gpu_types::{Stroke, View};
use super::resources::{DEPTH_FORMAT, GrowingBuffer};

/// What the pictures share.
pub(super) struct Shared {
    pub device: wgpu::Device,
    pub queue: wgpu::Queue,
    pub format: wgpu::TextureFormat,
    pub samples: u32,
    pub bindings: wgpu::BindGroupLayout,
    pub sampler: wgpu::Sampler,
}

/// The device's part of one picture.
pub(super) struct Picture {
    uniform: wgpu::Buffer,
    /// Names the frame's texture; made anew when that is.
    bind_group: Option<wgpu::BindGroup>,
    strokes: GrowingBuffer,
    attachments: Option<Attachments>,
}

/// Depth, and the colours before they are resolved, for targets of this size.
struct Attachments {
    size: [u32; 2],
    depth: wgpu::TextureView,
    multisampled: Option<wgpu::TextureView>,
}

impl Picture {
    pub fn new(device: &wgpu::Device, label: &str) -> Self {
        Self {
            uniform: device.create_buffer(&wgpu::BufferDescriptor {
                label: Some(label),
                size: size_of::<View>() as u64,
                usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            }),
            bind_group: None,
            strokes: GrowingBuffer::new("strokes", wgpu::BufferUsages::VERTEX),
            attachments: None,
        }
    }

    /// The frame's texture is another one.
    pub fn forget_frame(&mut self) {
        self.bind_group = None;
    }

    /// Uploads what the passes read, and begins the render pass on the target, with everything bound but pipelines.
    pub fn begin<'a>(
        &mut self,
        shared: &Shared,
        frame: &FrameTexture,
        view: &View,
        strokes: &[Stroke],
        encoder: &'a mut wgpu::CommandEncoder,
        target: &wgpu::TextureView,
    ) -> wgpu::RenderPass<'a> {
        let Shared { device, queue, bindings, sampler, .. } = shared;
        queue.write_buffer(&self.uniform, 0, bytemuck::bytes_of(view));
        if let Err(error) = self.strokes.write(device, queue, bytemuck::cast_slice(strokes)) {
            log::warn!("lines are not drawn: {error:#}");
        }
        let bind_group = self.bind_group.get_or_insert_with(|| {
            let resources = [
                self.uniform.as_entire_binding(),
                wgpu::BindingResource::TextureView(&frame.view),
                wgpu::BindingResource::Sampler(sampler),
            ];
            let mut entries = Vec::new();
            for (binding, resource) in (0..).zip(resources) {
                entries.push(wgpu::BindGroupEntry { binding, resource });
            }
            device.create_bind_group(&wgpu::BindGroupDescriptor {
                label: Some("view and frame"),
                layout: bindings,
                entries: &entries,
            })
        });
        let size = target_size(target);
        if self.attachments.as_ref().is_none_or(|held| held.size != size) {
            self.attachments = None;
        }
        let attachments = self.attachments.get_or_insert_with(|| Attachments::new(shared, size));

        let (colour, resolve_target, store) = match &attachments.multisampled {
            Some(multisampled) => (multisampled, Some(target), wgpu::StoreOp::Discard),
            None => (target, None, wgpu::StoreOp::Store),
        };
        let mut pass = encoder.begin_render_pass(&wgpu::RenderPassDescriptor {
            label: Some("scene"),
            color_attachments: &[Some(wgpu::RenderPassColorAttachment {
                view: colour,
                depth_slice: None,
                resolve_target,
                ops: wgpu::Operations { load: wgpu::LoadOp::Clear(SURROUND), store },
            })],
            depth_stencil_attachment: Some(wgpu::RenderPassDepthStencilAttachment {
                view: &attachments.depth,
                depth_ops: Some(wgpu::Operations { load: wgpu::LoadOp::Clear(0.0), store: wgpu::StoreOp::Discard }),
                stencil_ops: None,
            }),
            ..Default::default()
        });
        pass.set_bind_group(0, &*bind_group, &[]);
        pass
    }

    /// Draws some of the strokes that `begin` was given.
    pub fn draw_strokes(&self, pass: &mut wgpu::RenderPass<'_>, pipeline: &wgpu::RenderPipeline, range: Range<usize>) {
        let Some(strokes) = self.strokes.get().filter(|_| !range.is_empty()) else { return };
        // Fewer than asked for if they were refused.
        let held = (strokes.size() / size_of::<Stroke>() as u64) as usize;
        pass.set_pipeline(pipeline);
        pass.set_vertex_buffer(0, strokes.slice(..));
        pass.draw(0..4, range.start.min(held) as u32..range.end.min(held) as u32);
    }
}

/// The `SURROUND` of `shaders/frame.wgsl`.
const SURROUND: wgpu::Color = wgpu::Color { r: 0.055, g: 0.06, b: 0.07, a: 1.0 };

/// Width and height of the texture.
pub(super) fn target_size(target: &wgpu::TextureView) -> [u32; 2] {
    [target.texture().width(), target.texture().height()]
}

impl Attachments {
    fn new(shared: &Shared, size: [u32; 2]) -> Self {
        let create = |label, format| {
            let texture = shared.device.create_texture(&wgpu::TextureDescriptor {
                label: Some(label),
                size: wgpu::Extent3d { width: size[0], height: size[1], depth_or_array_layers: 1 },
                mip_level_count: 1,
                sample_count: shared.samples,
                dimension: wgpu::TextureDimension::D2,
                format,
                usage: wgpu::TextureUsages::RENDER_ATTACHMENT,
                view_formats: &[],
            });
            texture.create_view(&wgpu::TextureViewDescriptor::default())
        };
        let multisampled = (shared.samples > 1).then(|| create("multisampled", shared.format));
        Self { size, depth: create("depth", DEPTH_FORMAT), multisampled }
    }
}
