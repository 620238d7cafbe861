//! Paints the panels: egui's triangles on a wgpu target.
//!
//! egui's own painter has one shader for everything, which also filters textures by hand, behind a switch. A processor
//! that draws computes both sides of a switch: with Mesa's software Vulkan a layer of pixels costs six times as much as
//! a sample of a texture, and a window of 1280x800 more than all networks. Here a pixel costs one sample, and where
//! triangles have no texture, none.

use std::collections::HashMap;
use std::ops::Range;

use anyhow::Result;
use egui::epaint::textures::{TextureFilter, TexturesDelta};
use egui::epaint::{ImageData, ImageDelta, Mesh, Primitive, Vertex, WHITE_UV};
use egui::{ClippedPrimitive, TextureId};

use crate::render::{GrowingBuffer, PANELS_WGSL};

/// See the module.
pub(super) struct Painter {
    plain: wgpu::RenderPipeline,
    textured: wgpu::RenderPipeline,
    window: wgpu::Buffer,
    window_binding: wgpu::BindGroup,
    texture_layout: wgpu::BindGroupLayout,
    linear: wgpu::Sampler,
    nearest: wgpu::Sampler,
    textures: HashMap<TextureId, Texture>,
    next_id: u64,
    vertices: GrowingBuffer,
    indices: GrowingBuffer,
    draws: Vec<Draw>,
}

struct Texture {
    /// `None` where it is someone else's.
    texture: Option<wgpu::Texture>,
    binding: wgpu::BindGroup,
}

/// Triangles that are drawn at once.
struct Draw {
    /// x, y, width, height in pixels.
    scissor_px: [u32; 4],
    texture: Option<TextureId>,
    indices: Range<u32>,
    base_vertex: i32,
}

impl Painter {
    pub(super) fn new(device: &wgpu::Device, format: wgpu::TextureFormat) -> Self {
        let entry = |binding, visibility, ty| wgpu::BindGroupLayoutEntry { binding, visibility, ty, count: None };
        let layout = |label, entries: &[_]| {
            device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: Some(label), entries })
        };
        let uniform = wgpu::BindingType::Buffer {
            ty: wgpu::BufferBindingType::Uniform,
            has_dynamic_offset: false,
            min_binding_size: None,
        };
        let image = wgpu::BindingType::Texture {
            sample_type: wgpu::TextureSampleType::Float { filterable: true },
            view_dimension: wgpu::TextureViewDimension::D2,
            multisampled: false,
        };
        let sampler = wgpu::BindingType::Sampler(wgpu::SamplerBindingType::Filtering);
        let window_layout = layout("window", &[entry(0, wgpu::ShaderStages::VERTEX, uniform)]);
        let fragment = wgpu::ShaderStages::FRAGMENT;
        let texture_layout = layout("panel texture", &[entry(0, fragment, image), entry(1, fragment, sampler)]);

        let window = device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("window"),
            size: size_of::<[f32; 2]>() as u64,
            usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        let window_binding = device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some("window"),
            layout: &window_layout,
            entries: &[wgpu::BindGroupEntry { binding: 0, resource: window.as_entire_binding() }],
        });
        let sampler = |filter| {
            device.create_sampler(&wgpu::SamplerDescriptor {
                label: Some("panels"),
                mag_filter: filter,
                min_filter: filter,
                ..Default::default()
            })
        };
        let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
            label: Some("panels"),
            source: wgpu::ShaderSource::Wgsl(PANELS_WGSL.into()),
        });
        let plain = pipeline(device, &module, "fs_plain", format, &[Some(&window_layout)]);
        let both = [Some(&window_layout), Some(&texture_layout)];
        Self {
            plain,
            textured: pipeline(device, &module, "fs_textured", format, &both),
            window,
            window_binding,
            texture_layout,
            linear: sampler(wgpu::FilterMode::Linear),
            nearest: sampler(wgpu::FilterMode::Nearest),
            textures: HashMap::new(),
            next_id: 0,
            vertices: GrowingBuffer::new("panel vertices", wgpu::BufferUsages::VERTEX),
            indices: GrowingBuffer::new("panel indices", wgpu::BufferUsages::INDEX),
            draws: Vec::new(),
        }
    }

    /// Makes a texture known to egui that is shown pixel for pixel.
    pub(super) fn register(&mut self, device: &wgpu::Device, view: &wgpu::TextureView) -> TextureId {
        let id = TextureId::User(self.next_id);
        self.next_id += 1;
        self.replace(device, id, view);
        id
    }

    /// Puts another texture under an id of [`Self::register`].
    pub(super) fn replace(&mut self, device: &wgpu::Device, id: TextureId, view: &wgpu::TextureView) {
        let binding = self.binding(device, view, &self.nearest);
        self.textures.insert(id, Texture { texture: None, binding });
    }

    fn binding(&self, device: &wgpu::Device, view: &wgpu::TextureView, sampler: &wgpu::Sampler) -> wgpu::BindGroup {
        device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some("panel texture"),
            layout: &self.texture_layout,
            entries: &[
                wgpu::BindGroupEntry { binding: 0, resource: wgpu::BindingResource::TextureView(view) },
                wgpu::BindGroupEntry { binding: 1, resource: wgpu::BindingResource::Sampler(sampler) },
            ],
        })
    }

    /// Brings egui's textures up to date. Before painting, and also when nothing will be painted.
    pub(super) fn update_textures(&mut self, device: &wgpu::Device, queue: &wgpu::Queue, delta: &mut TexturesDelta) {
        for (id, changes) in delta.set.drain() {
            for change in changes {
                self.update_texture(device, queue, id, &change);
            }
        }
    }

    /// One change of a texture.
    pub(super) fn update_texture(
        &mut self,
        device: &wgpu::Device,
        queue: &wgpu::Queue,
        id: TextureId,
        change: &ImageDelta,
    ) {
        let ImageData::Color(image) = &change.image;
        let [width, height] = image.size.map(|side| side as u32);
        let size = wgpu::Extent3d { width, height, depth_or_array_layers: 1 };
        if change.is_whole() {
            let texture = device.create_texture(&wgpu::TextureDescriptor {
                label: Some("panels"),
                size,
                mip_level_count: 1,
                sample_count: 1,
                dimension: wgpu::TextureDimension::D2,
                format: wgpu::TextureFormat::Rgba8Unorm,
                usage: wgpu::TextureUsages::TEXTURE_BINDING | wgpu::TextureUsages::COPY_DST,
                view_formats: &[],
            });
            let is_nearest = change.options.magnification == TextureFilter::Nearest;
            let sampler = if is_nearest { &self.nearest } else { &self.linear };
            let binding = self.binding(device, &texture.create_view(&wgpu::TextureViewDescriptor::default()), sampler);
            self.textures.insert(id, Texture { texture: Some(texture), binding });
        }
        let Some(texture) = self.textures.get(&id).and_then(|texture| texture.texture.as_ref()) else {
            return log::warn!("a part of a texture that is not there: {id:?}");
        };
        let [x, y] = change.pos.unwrap_or_default().map(|side| side as u32);
        let (origin, aspect) = (wgpu::Origin3d { x, y, z: 0 }, wgpu::TextureAspect::All);
        queue.write_texture(
            wgpu::TexelCopyTextureInfo { texture, mip_level: 0, origin, aspect },
            bytemuck::cast_slice(&image.pixels),
            wgpu::TexelCopyBufferLayout { offset: 0, bytes_per_row: Some(4 * width), rows_per_image: Some(height) },
            size,
        );
    }

    /// Frees egui's textures that were used for the last time. After painting.
    pub(super) fn free_textures(&mut self, delta: &mut TexturesDelta) {
        for id in delta.free.drain() {
            self.textures.remove(&id);
        }
    }

    /// Uploads what [`Self::draw`] will draw on a target of this size in pixels.
    pub(super) fn prepare(
        &mut self,
        device: &wgpu::Device,
        queue: &wgpu::Queue,
        primitives: &[ClippedPrimitive],
        size_px: [u32; 2],
        per_pt: f32,
    ) -> Result<()> {
        let (mut vertices, mut indices) = (Vec::<Vertex>::new(), Vec::<u32>::new());
        self.draws.clear();
        for ClippedPrimitive { clip_rect, primitive } in primitives {
            // No panel paints by itself.
            let Primitive::Mesh(mesh) = primitive else { continue };
            let [x0, y0] = pixel(clip_rect.min, per_pt, size_px);
            let [x1, y1] = pixel(clip_rect.max, per_pt, size_px);
            if x1 <= x0 || y1 <= y0 {
                continue;
            }
            for (texture, run) in runs(mesh) {
                self.draws.push(Draw {
                    scissor_px: [x0, y0, x1 - x0, y1 - y0],
                    texture,
                    indices: (indices.len() + run.start) as u32..(indices.len() + run.end) as u32,
                    base_vertex: vertices.len() as i32,
                });
            }
            vertices.extend_from_slice(&mesh.vertices);
            indices.extend_from_slice(&mesh.indices);
        }
        queue.write_buffer(&self.window, 0, bytemuck::bytes_of(&size_px.map(|side| side as f32 / per_pt)));
        self.vertices.write(device, queue, bytemuck::cast_slice(&vertices))?;
        self.indices.write(device, queue, bytemuck::cast_slice(&indices))
    }

    /// Draws what was prepared.
    pub(super) fn draw(&self, pass: &mut wgpu::RenderPass) {
        let (Some(vertices), Some(indices)) = (self.vertices.get(), self.indices.get()) else { return };
        pass.set_bind_group(0, &self.window_binding, &[]);
        pass.set_vertex_buffer(0, vertices.slice(..));
        pass.set_index_buffer(indices.slice(..), wgpu::IndexFormat::Uint32);
        for Draw { scissor_px: [x, y, width, height], texture, indices, base_vertex } in &self.draws {
            match texture.map(|id| self.textures.get(&id)) {
                None => pass.set_pipeline(&self.plain),
                Some(Some(texture)) => {
                    pass.set_pipeline(&self.textured);
                    pass.set_bind_group(1, &texture.binding, &[]);
                }
                Some(None) => continue,
            }
            pass.set_scissor_rect(*x, *y, *width, *height);
            pass.draw_indexed(indices.clone(), *base_vertex, 0..1);
        }
    }
}

/// Parts of a mesh's indices in their order, each with its texture, if it shows any.
fn runs(mesh: &Mesh) -> Vec<(Option<TextureId>, Range<usize>)> {
    // Whatever has no texture is given the white pixel of the letters' one.
    let is_white = |index: &u32| mesh.vertices.get(*index as usize).is_some_and(|vertex| vertex.uv == WHITE_UV);
    let mut runs: Vec<(Option<TextureId>, Range<usize>)> = Vec::new();
    for (at, triangle) in mesh.indices.as_chunks::<3>().0.iter().enumerate() {
        let is_plain = mesh.texture_id == TextureId::default() && triangle.iter().all(is_white);
        let texture = (!is_plain).then_some(mesh.texture_id);
        let (start, end) = (3 * at, 3 * at + 3);
        match runs.last_mut() {
            Some((same, run)) if *same == texture => run.end = end,
            _ => runs.push((texture, start..end)),
        }
    }
    runs
}

/// The pixel at a point, in the target or at its edge.
fn pixel(at: egui::Pos2, per_pt: f32, size_px: [u32; 2]) -> [u32; 2] {
    // As a cast saturates, what is far outside ends at the edge.
    [((at.x * per_pt).round() as u32).min(size_px[0]), ((at.y * per_pt).round() as u32).min(size_px[1])]
}

fn pipeline(
    device: &wgpu::Device,
    module: &wgpu::ShaderModule,
    fragment: &str,
    format: wgpu::TextureFormat,
    bind_group_layouts: &[Option<&wgpu::BindGroupLayout>],
) -> wgpu::RenderPipeline {
    let layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
        label: Some("panels"),
        bind_group_layouts,
        ..Default::default()
    });
    let blend = |src_factor, dst_factor| {
        let operation = wgpu::BlendOperation::Add;
        wgpu::BlendComponent { src_factor, dst_factor, operation }
    };
    device.create_render_pipeline(&wgpu::RenderPipelineDescriptor {
        label: Some("panels"),
        layout: Some(&layout),
        vertex: wgpu::VertexState {
            module,
            entry_point: Some("vs_panel"),
            compilation_options: wgpu::PipelineCompilationOptions::default(),
            buffers: &[Some(wgpu::VertexBufferLayout {
                array_stride: size_of::<Vertex>() as u64,
                step_mode: wgpu::VertexStepMode::Vertex,
                attributes: &wgpu::vertex_attr_array![0 => Float32x2, 1 => Float32x2, 2 => Unorm8x4],
            })],
        },
        primitive: wgpu::PrimitiveState::default(),
        depth_stencil: None,
        multisample: wgpu::MultisampleState::default(),
        fragment: Some(wgpu::FragmentState {
            module,
            entry_point: Some(fragment),
            compilation_options: wgpu::PipelineCompilationOptions {
                constants: &[("target_encodes", f64::from(u8::from(format.is_srgb())))],
                ..Default::default()
            },
            targets: &[Some(wgpu::ColorTargetState {
                format,
                blend: Some(wgpu::BlendState {
                    color: blend(wgpu::BlendFactor::One, wgpu::BlendFactor::OneMinusSrcAlpha),
                    alpha: blend(wgpu::BlendFactor::OneMinusDstAlpha, wgpu::BlendFactor::One),
                }),
                write_mask: wgpu::ColorWrites::ALL,
            })],
        }),
        multiview_mask: None,
        cache: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use egui::{Color32, Rect, pos2};

    #[test]
    fn triangles_without_texture_are_told_from_letters_and_keep_their_order() {
        let mut mesh = Mesh::default();
        let rect = Rect::from_min_max(pos2(0.0, 0.0), pos2(9.0, 9.0));
        let letter = Rect::from_min_max(pos2(0.1, 0.1), pos2(0.2, 0.2));
        mesh.add_colored_rect(rect, Color32::RED);
        mesh.add_colored_rect(rect, Color32::BLUE);
        mesh.add_rect_with_uv(rect, letter, Color32::WHITE);
        mesh.add_colored_rect(rect, Color32::GREEN);
        let letters = Some(TextureId::default());
        assert_eq!(runs(&mesh), [(None, 0..12), (letters, 12..18), (None, 18..24)]);
        // A corner of a picture is no white pixel.
        mesh.texture_id = TextureId::User(3);
        assert_eq!(runs(&mesh), [(Some(TextureId::User(3)), 0..24)]);
        assert!(runs(&Mesh::default()).is_empty());
    }

    #[test]
    fn clipping_ends_at_the_edge() {
        assert_eq!(pixel(pos2(-5.0, 1e9), 2.0, [640, 400]), [0, 400]);
        assert_eq!(pixel(pos2(10.3, f32::INFINITY), 1.0, [640, 400]), [10, 400]);
    }
}
