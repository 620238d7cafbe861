//! The window's surface and device, the textures of the two views, and egui's painter.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use egui::epaint::{ImageDelta, TextureAtlas, textures::TexturesDelta};
use egui::{ClippedPrimitive, TextureId};
use winit::dpi::PhysicalSize;
use winit::event_loop::ActiveEventLoop;
use winit::window::Window;

use super::painter::Painter;
use crate::render::{DrawOptions, Gpu, OffscreenRenderer, OrbitCamera, SceneRenderer};
use crate::result::FrameResult;
use crate::ui;

/// Format of the two views' textures: gamma-encoded, as egui blends.
const VIEW_FORMAT: wgpu::TextureFormat = wgpu::TextureFormat::Rgba8Unorm;

/// What became of a picture.
pub(super) enum Painted {
    /// It is on the screen.
    Done,
    /// Not now; try again after this time.
    Again(Duration),
}

/// Everything that lives and dies with a graphics device.
pub(super) struct Graphics {
    gpu: Gpu,
    surface: wgpu::Surface<'static>,
    config: wgpu::SurfaceConfiguration,
    painter: Painter,
    scene: SceneRenderer,
    /// The result that the scene holds.
    result: Option<Arc<FrameResult>>,
    frame: Target,
    orbit: Target,
    orbit_drawn: Option<OrbitCamera>,
    options_drawn: Option<DrawOptions>,
    lost: Arc<AtomicBool>,
}

/// A texture that a view is drawn into, known to egui by an id that stays.
struct Target {
    id: TextureId,
    view: wgpu::TextureView,
    size: [u32; 2],
}

impl Target {
    fn new(device: &wgpu::Device, painter: &mut Painter) -> Self {
        let size = [1, 1];
        let view = Self::texture(device, size);
        let id = painter.register(device, &view);
        Self { id, view, size }
    }

    fn texture(device: &wgpu::Device, [width, height]: [u32; 2]) -> wgpu::TextureView {
        let texture = device.create_texture(&wgpu::TextureDescriptor {
            label: Some("view"),
            size: wgpu::Extent3d { width, height, depth_or_array_layers: 1 },
            mip_level_count: 1,
            sample_count: 1,
            dimension: wgpu::TextureDimension::D2,
            format: VIEW_FORMAT,
            usage: wgpu::TextureUsages::RENDER_ATTACHMENT | wgpu::TextureUsages::TEXTURE_BINDING,
            view_formats: &[],
        });
        texture.create_view(&wgpu::TextureViewDescriptor::default())
    }

    /// Takes another size. True when it is one.
    fn resize(&mut self, device: &wgpu::Device, painter: &mut Painter, size: [u32; 2]) -> bool {
        if self.size == size {
            return false;
        }
        self.size = size;
        self.view = Self::texture(device, size);
        painter.replace(device, self.id, &self.view);
        true
    }
}

impl Graphics {
    /// Opens the best device that can show pictures in this window.
    pub(super) fn new(event_loop: &ActiveEventLoop, window: &Arc<Window>, ctx: &egui::Context) -> Result<Self> {
        let display = Box::new(event_loop.owned_display_handle());
        let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_with_display_handle_from_env(display));
        let surface = instance.create_surface(Arc::clone(window)).context("making the window drawable")?;
        let gpu = open_gpu(instance, &surface)?;
        log::info!("drawing with {}", gpu.describe());
        let device = &gpu.device;
        let lost = Arc::new(AtomicBool::new(false));
        device.set_device_lost_callback({
            let lost = Arc::clone(&lost);
            move |reason, message| {
                log::warn!("graphics device lost ({reason:?}): {message}");
                lost.store(true, Ordering::Release);
            }
        });

        let capabilities = surface.get_capabilities(&gpu.adapter);
        // egui blends gamma-encoded colours.
        let format = capabilities.formats.iter().copied().find(|format| !format.is_srgb());
        let format = format.or_else(|| capabilities.formats.first().copied());
        let size = window.inner_size();
        let config = wgpu::SurfaceConfiguration {
            present_mode: wgpu::PresentMode::AutoVsync,
            desired_maximum_frame_latency: 1,
            ..surface
                .get_default_config(&gpu.adapter, size.width.max(1), size.height.max(1))
                .context("the graphics adapter cannot draw in this window")?
        };
        let config = wgpu::SurfaceConfiguration { format: format.unwrap_or(config.format), ..config };
        surface.configure(device, &config);

        let mut painter = Painter::new(device, config.format);
        if ctx.cumulative_pass_nr() > 0 {
            // egui sends changes of its font texture only; a new device wants all of it.
            #[expect(
                clippy::redundant_closure_for_method_calls,
                reason = "the method is not general enough over lifetimes"
            )]
            let image = ctx.fonts(|fonts| fonts.image());
            let fonts = ImageDelta::full(image, TextureAtlas::texture_options());
            painter.update_texture(device, &gpu.queue, TextureId::default(), &fonts);
        }
        let scene = SceneRenderer::new(device, &gpu.queue, VIEW_FORMAT)?;
        let (frame, orbit) = (Target::new(device, &mut painter), Target::new(device, &mut painter));
        Ok(Self {
            gpu,
            surface,
            config,
            painter,
            scene,
            result: None,
            frame,
            orbit,
            orbit_drawn: None,
            options_drawn: None,
            lost,
        })
    }

    pub(super) fn frame_texture(&self) -> TextureId {
        self.frame.id
    }

    pub(super) fn orbit_texture(&self) -> TextureId {
        self.orbit.id
    }

    pub(super) fn max_texture_side(&self) -> usize {
        self.gpu.device.limits().max_texture_dimension_2d as usize
    }

    /// The device is gone; make another.
    pub(super) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    /// Loses the device on purpose.
    pub(super) fn give_up(&self) {
        self.gpu.device.destroy();
        self.lost.store(true, Ordering::Release);
    }

    /// Brings egui's textures up to date. Before painting, and also when nothing will be painted.
    pub(super) fn update_textures(&mut self, delta: &mut TexturesDelta) {
        self.painter.update_textures(&self.gpu.device, &self.gpu.queue, delta);
    }

    /// Frees egui's textures that were used for the last time. After painting.
    pub(super) fn free_textures(&mut self, delta: &mut TexturesDelta) {
        self.painter.free_textures(delta);
    }

    /// Draws the two views, each only if something of it changed.
    pub(super) fn draw_views(
        &mut self,
        result: Option<&Arc<FrameResult>>,
        options: &DrawOptions,
        camera: &OrbitCamera,
        shown: &ui::Output,
    ) {
        let Some(result) = result else { return };
        let Gpu { device, queue, .. } = &self.gpu;
        let other_result = self.result.as_ref().is_none_or(|held| !Arc::ptr_eq(held, result));
        let other = other_result || self.options_drawn.as_ref() != Some(options);
        if other {
            self.scene.set_result(result, options);
            self.result = Some(Arc::clone(result));
            self.options_drawn = Some(options.clone());
        }
        let limit = device.limits().max_texture_dimension_2d;
        let visible = |size: [u32; 2]| size.iter().all(|side| (1..=limit).contains(side));
        let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some("views") });
        if visible(shown.frame_size_px) && (self.frame.resize(device, &mut self.painter, shown.frame_size_px) || other)
        {
            self.scene.draw_overlay(&mut encoder, &self.frame.view);
        }
        let turned = other || self.orbit_drawn != Some(*camera);
        if visible(shown.orbit_size_px) && (self.orbit.resize(device, &mut self.painter, shown.orbit_size_px) || turned)
        {
            self.scene.draw_orbit(&mut encoder, &self.orbit.view, camera);
            self.orbit_drawn = Some(*camera);
        }
        queue.submit([encoder.finish()]);
    }

    /// Paints the panels and shows the picture.
    pub(super) fn paint(&mut self, window: &Arc<Window>, primitives: &[ClippedPrimitive], per_pt: f32) -> Painted {
        use wgpu::CurrentSurfaceTexture as Current;
        const SOON: Duration = Duration::from_millis(50);
        const LATER: Duration = Duration::from_millis(500);
        let PhysicalSize { width, height } = window.inner_size();
        if width == 0 || height == 0 {
            return Painted::Done;
        }
        if [self.config.width, self.config.height] != [width, height] {
            self.config.width = width;
            self.config.height = height;
            self.surface.configure(&self.gpu.device, &self.config);
        }
        let (picture, good) = match self.surface.get_current_texture() {
            Current::Success(picture) => (picture, true),
            Current::Suboptimal(picture) => (picture, false),
            Current::Timeout => return Painted::Again(SOON),
            Current::Occluded | Current::Validation => return Painted::Again(LATER),
            Current::Outdated => {
                self.surface.configure(&self.gpu.device, &self.config);
                return Painted::Again(Duration::ZERO);
            }
            Current::Lost => {
                match self.gpu.instance.create_surface(Arc::clone(window)) {
                    Ok(surface) => {
                        surface.configure(&self.gpu.device, &self.config);
                        self.surface = surface;
                    }
                    Err(error) => {
                        log::error!("the window is no longer drawable: {error}");
                        self.lost.store(true, Ordering::Release);
                    }
                }
                return Painted::Again(SOON);
            }
        };

        let Gpu { device, queue, .. } = &self.gpu;
        if let Err(error) = self.painter.prepare(device, queue, primitives, [width, height], per_pt) {
            log::error!("the panels are not drawn: {error:#}");
        }
        let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some("window") });
        let view = picture.texture.create_view(&wgpu::TextureViewDescriptor::default());
        {
            let mut pass = encoder.begin_render_pass(&wgpu::RenderPassDescriptor {
                label: Some("panels"),
                color_attachments: &[Some(wgpu::RenderPassColorAttachment {
                    view: &view,
                    resolve_target: None,
                    ops: wgpu::Operations {
                        load: wgpu::LoadOp::Clear(wgpu::Color::BLACK),
                        store: wgpu::StoreOp::Store,
                    },
                    depth_slice: None,
                })],
                depth_stencil_attachment: None,
                timestamp_writes: None,
                occlusion_query_set: None,
                multiview_mask: None,
            });
            self.painter.draw(&mut pass);
        }
        queue.submit([encoder.finish()]);
        window.pre_present_notify();
        queue.present(picture);
        if !good {
            self.surface.configure(device, &self.config);
        }
        Painted::Done
    }

    /// What writes a frame, as it is drawn, at its own size, to a PNG in a folder. To be run on another thread.
    pub(super) fn save_frame(
        &self,
        result: Arc<FrameResult>,
        options: DrawOptions,
        folder: &Path,
    ) -> impl FnOnce() -> Result<PathBuf> + Send + 'static {
        let gpu = self.gpu.clone();
        let folder = folder.to_owned();
        move || {
            let image = OffscreenRenderer::with_samples(gpu, 4)?.overlay(&result, &options)?;
            std::fs::create_dir_all(&folder).with_context(|| format!("making the folder {}", folder.display()))?;
            let secs = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            let path = folder.join(format!("lixelscope-{secs}-{:06}.png", result.frame.index));
            image.save(&path).with_context(|| format!("writing {}", path.display()))?;
            Ok(path)
        }
    }
}

/// Opens the best device whose pictures can be shown on this surface.
fn open_gpu(instance: wgpu::Instance, surface: &wgpu::Surface<'static>) -> Result<Gpu> {
    let adapter = pollster::block_on(instance.request_adapter(&wgpu::RequestAdapterOptions {
        power_preference: wgpu::PowerPreference::HighPerformance,
        compatible_surface: Some(surface),
        ..Default::default()
    }))
    .context(
        "no graphics adapter can draw in a window here; on Debian or Ubuntu `apt install libvulkan1 \
         mesa-vulkan-drivers` installs one that needs no graphics card",
    )?;
    let (device, queue) = pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor {
        label: Some("lixelscope window"),
        required_limits: adapter.limits(),
        ..Default::default()
    }))
    .context("opening the graphics adapter")?;
    // wgpu's own handler panics.
    device.on_uncaptured_error(Arc::new(|error| log::error!("graphics: {error}")));
    Ok(Gpu { instance, adapter, device, queue })
}
