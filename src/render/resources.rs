//! The two things that every pass needs: a pipeline for the scene's targets, and buffers that are reused.

use std::borrow::Cow;

use anyhow::{Result, ensure};

/// Depth of every picture; reversed, so that a clear to 0 is infinitely far.
pub(super) const DEPTH_FORMAT: wgpu::TextureFormat = wgpu::TextureFormat::Depth32Float;

/// How a pass treats the depth of what is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Depth {
    /// Draws over everything.
    Ignore,
    /// Draws what is not behind, and leaves the depth.
    Test,
    /// Draws what is not behind, and becomes what is there.
    TestAndWrite,
    /// Draws only where it is what is there.
    Equal,
}

/// What tells one pipeline from another.
pub(super) struct Pass<'a> {
    pub label: &'a str,
    pub vertex: &'a str,
    pub fragment: &'a str,
    pub buffers: &'a [Option<wgpu::VertexBufferLayout<'a>>],
    pub topology: wgpu::PrimitiveTopology,
    pub depth: Depth,
    /// Blends by alpha.
    pub blend: bool,
    /// Writes depth alone.
    pub colour: bool,
}

/// Makes pipelines that agree on bindings, target format and samples.
pub(super) struct PipelineFactory {
    pub device: wgpu::Device,
    pub bindings: wgpu::BindGroupLayout,
    layout: wgpu::PipelineLayout,
    format: wgpu::TextureFormat,
    samples: u32,
}

impl PipelineFactory {
    pub fn new(device: &wgpu::Device, format: wgpu::TextureFormat, samples: u32) -> Self {
        let entry = |binding, visibility, ty| wgpu::BindGroupLayoutEntry { binding, visibility, ty, count: None };
        let texture = wgpu::BindingType::Texture {
            sample_type: wgpu::TextureSampleType::Float { filterable: true },
            view_dimension: wgpu::TextureViewDimension::D2,
            multisampled: false,
        };
        let uniform = wgpu::BindingType::Buffer {
            ty: wgpu::BufferBindingType::Uniform,
            has_dynamic_offset: false,
            min_binding_size: None,
        };
        let sampler = wgpu::BindingType::Sampler(wgpu::SamplerBindingType::Filtering);
        let bindings = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
            label: Some("view and frame"),
            entries: &[
                entry(0, wgpu::ShaderStages::VERTEX_FRAGMENT, uniform),
                entry(1, wgpu::ShaderStages::FRAGMENT, texture),
                entry(2, wgpu::ShaderStages::FRAGMENT, sampler),
            ],
        });
        let layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: Some("scene"),
            bind_group_layouts: &[Some(&bindings)],
            immediate_size: 0,
        });
        Self { device: device.clone(), bindings, layout, format, samples }
    }

    pub fn shader(&self, label: &str, wgsl: &'static str) -> wgpu::ShaderModule {
        let source = wgpu::ShaderSource::Wgsl(Cow::Borrowed(wgsl));
        self.device.create_shader_module(wgpu::ShaderModuleDescriptor { label: Some(label), source })
    }

    pub fn pipeline(&self, module: &wgpu::ShaderModule, pass: &Pass) -> wgpu::RenderPipeline {
        let compare = match pass.depth {
            Depth::Ignore => wgpu::CompareFunction::Always,
            Depth::Test | Depth::TestAndWrite => wgpu::CompareFunction::GreaterEqual,
            Depth::Equal => wgpu::CompareFunction::Equal,
        };
        self.device.create_render_pipeline(&wgpu::RenderPipelineDescriptor {
            label: Some(pass.label),
            layout: Some(&self.layout),
            vertex: wgpu::VertexState {
                module,
                entry_point: Some(pass.vertex),
                compilation_options: wgpu::PipelineCompilationOptions::default(),
                buffers: pass.buffers,
            },
            primitive: wgpu::PrimitiveState { topology: pass.topology, ..Default::default() },
            depth_stencil: Some(wgpu::DepthStencilState {
                format: DEPTH_FORMAT,
                depth_write_enabled: Some(pass.depth == Depth::TestAndWrite),
                depth_compare: Some(compare),
                stencil: wgpu::StencilState::default(),
                bias: wgpu::DepthBiasState::default(),
            }),
            multisample: wgpu::MultisampleState { count: self.samples, ..Default::default() },
            fragment: Some(wgpu::FragmentState {
                module,
                entry_point: Some(pass.fragment),
                compilation_options: wgpu::PipelineCompilationOptions::default(),
                targets: &[Some(wgpu::ColorTargetState {
                    format: self.format,
                    blend: pass.blend.then_some(wgpu::BlendState::ALPHA_BLENDING),
                    write_mask: if pass.colour { wgpu::ColorWrites::ALL } else { wgpu::ColorWrites::empty() },
                })],
            }),
            multiview_mask: None,
            cache: None,
        })
    }
}

/// A buffer that is written anew each time and grows when it must.
pub(crate) struct GrowingBuffer {
    label: &'static str,
    usage: wgpu::BufferUsages,
    buffer: Option<wgpu::Buffer>,
}

impl GrowingBuffer {
    pub fn new(label: &'static str, usage: wgpu::BufferUsages) -> Self {
        Self { label, usage: usage | wgpu::BufferUsages::COPY_DST, buffer: None }
    }

    /// Replaces what is in it. The length must be a multiple of 4 bytes, as that of all our types is.
    pub fn write(&mut self, device: &wgpu::Device, queue: &wgpu::Queue, bytes: &[u8]) -> Result<()> {
        let (len, max) = (bytes.len() as u64, device.limits().max_buffer_size);
        ensure!(len <= max, "{} take {len} bytes; the graphics device has buffers of {max}", self.label);
        if len == 0 {
            return Ok(());
        }
        let buffer = match self.buffer.take().filter(|buffer| buffer.size() >= len) {
            Some(buffer) => buffer,
            None => device.create_buffer(&wgpu::BufferDescriptor {
                label: Some(self.label),
                size: len.next_power_of_two().clamp(256, max & !3),
                usage: self.usage,
                mapped_at_creation: false,
            }),
        };
        queue.write_buffer(&buffer, 0, bytes);
        self.buffer = Some(buffer);
        Ok(())
    }

    /// The buffer, once something was written.
    pub fn get(&self) -> Option<&wgpu::Buffer> {
        self.buffer.as_ref()
    }
}
