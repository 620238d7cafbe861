//! The two pictures of a result, pass by pass.
//!
//! Overlay: the frame; the meshes, as one blended layer; on top boxes, skeletons, the marker.
//! Orbit view: the backdrop, the meshes, the grid, the frustum with its image plane, the axes; on top boxes, skeletons,
//! the marker. Each picture is one render pass.

use std::sync::Arc;

use anyhow::{Result, bail, ensure};
use glam::{Mat4, Vec2};

use super::camera::{NEAR_M, OrbitCamera, OverlayFit, is_drawable};
use super::frame::{FramePasses, FrameTexture};
use super::gpu_types::{Stroke, View};
use super::ground::{GroundPasses, ground_y_m};
use super::mesh::{MeshPasses, Meshes};
use super::picture::{Picture, Shared, target_size};
use super::resources::PipelineFactory;
use super::strokes::{self, StrokePasses};
use super::{DrawOptions, MeshColour, is_software};
use crate::capture::Frame;
use crate::result::FrameResult;
use crate::space::Intrinsics;

/// Draws results to textures. What has not changed is not uploaded again, and buffers are reused.
pub struct SceneRenderer {
    shared: Shared,
    frame_passes: FramePasses,
    ground_passes: GroundPasses,
    mesh_passes: MeshPasses,
    stroke_passes: StrokePasses,
    frame: FrameTexture,
    meshes: Meshes,
    shown: Shown,
    options: DrawOptions,
    ground_y_m: Option<f32>,
    overlay: Picture,
    orbit: Picture,
}

/// What the pictures show.
enum Shown {
    Nothing,
    Frame(Intrinsics),
    Result(Arc<FrameResult>),
}

impl SceneRenderer {
    /// For targets of this format, which must not be sRGB. Four samples a pixel; one where the device is software.
    pub fn new(device: &wgpu::Device, queue: &wgpu::Queue, target_format: wgpu::TextureFormat) -> Result<Self> {
        Self::with_samples(device, queue, target_format, if is_software(device) { 1 } else { 4 })
    }

    /// With 1 or 4 samples a pixel.
    pub fn with_samples(
        device: &wgpu::Device,
        queue: &wgpu::Queue,
        target_format: wgpu::TextureFormat,
        samples: u32,
    ) -> Result<Self> {
        ensure!(
            !target_format.is_srgb(),
            "the scene is drawn to textures that are not sRGB, and {target_format:?} is; take its twin without `Srgb`"
        );
        ensure!(samples == 1 || samples == 4, "1 or 4 samples a pixel, not {samples}");
        let scope = device.push_error_scope(wgpu::ErrorFilter::Validation);
        let factory = PipelineFactory::new(device, target_format, samples);
        let sampler = device.create_sampler(&wgpu::SamplerDescriptor {
            label: Some("frame"),
            mag_filter: wgpu::FilterMode::Linear,
            min_filter: wgpu::FilterMode::Linear,
            ..Default::default()
        });
        let renderer = Self {
            frame_passes: FramePasses::new(&factory),
            ground_passes: GroundPasses::new(&factory),
            mesh_passes: MeshPasses::new(&factory),
            stroke_passes: StrokePasses::new(&factory),
            frame: FrameTexture::new(device),
            meshes: Meshes::new(),
            shown: Shown::Nothing,
            options: DrawOptions::default(),
            ground_y_m: None,
            overlay: Picture::new(device, "overlay"),
            orbit: Picture::new(device, "orbit view"),
            shared: Shared {
                device: device.clone(),
                queue: queue.clone(),
                format: target_format,
                samples,
                bindings: factory.bindings,
                sampler,
            },
        };
        match pollster::block_on(scope.pop()) {
            None => Ok(renderer),
            Some(error) => bail!("the graphics device refuses the scene's pipelines: {error}"),
        }
    }

    /// What the next pictures show. Does nothing when result and options are those of last time, and uploads only what
    /// has changed. Meshes that the device cannot hold are left out, with a line in the log.
    pub fn set_result(&mut self, result: &Arc<FrameResult>, options: &DrawOptions) {
        let same_result = matches!(&self.shown, Shown::Result(held) if Arc::ptr_eq(held, result));
        if same_result && self.options == *options {
            return;
        }
        // Opacity, marker, joints and boxes are not part of the meshes.
        let same_meshes = same_result
            && self.options.hidden == options.hidden
            && self.options.colour == options.colour
            && self.options.shows_mesh() == options.shows_mesh()
            && self.options.wireframe == options.wireframe;
        self.set_frame(&result.frame);
        if !same_meshes && let Err(error) = self.meshes.set(&self.shared.device, &self.shared.queue, result, options) {
            log::warn!("the meshes of frame {} are not drawn: {error:#}", result.frame.index);
        }
        if !same_result {
            self.ground_y_m = Some(self.settled_ground_y_m(ground_y_m(result, options)));
        }
        self.options = options.clone();
        self.shown = Shown::Result(Arc::clone(result));
    }

    /// A frame in which nobody was looked for, and its camera.
    pub fn set_frame_only(&mut self, frame: &Arc<Frame>, intrinsics: &Intrinsics) {
        self.set_frame(frame);
        self.meshes.clear();
        self.shown = Shown::Frame(*intrinsics);
    }

    /// Forgets what it showed, the height of the ground included.
    pub fn clear(&mut self) {
        self.meshes.clear();
        self.shown = Shown::Nothing;
        self.ground_y_m = None;
    }

    /// Height (camera y, pointing down) of the orbit view's ground, for labels on it.
    pub fn ground_y_m(&self) -> f32 {
        self.ground_y_m.unwrap_or(super::ground::CAMERA_HEIGHT_M)
    }

    /// Draws the frame and the people on it into the whole target, in the frame's aspect (see [`OverlayFit`]). At most
    /// one overlay a submission.
    pub fn draw_overlay(&mut self, encoder: &mut wgpu::CommandEncoder, target: &wgpu::TextureView) {
        let size = target_size(target);
        let fit = OverlayFit::new(self.frame.size, size);
        let k = self.intrinsics();
        let clip_from_camera = k.map_or(Mat4::IDENTITY, |k| fit.clip_from_camera(&k, size));
        let exact = fit.scale == 1.0 && self.frame.is_whole();
        let opacity = if self.options.alpha.is_finite() { self.options.alpha.clamp(0.0, 1.0) } else { 1.0 };
        let view = View {
            clip_from_camera: clip_from_camera.to_cols_array_2d(),
            frame_origin_px: fit.origin.to_array(),
            target_px_per_frame_px: fit.scale,
            focal_px: k.map_or(1.0, |k| k.fx.abs() * fit.scale),
            // Each sample is bilinear, two pixels wide.
            frame_taps: if exact { 0 } else { (0.75 / fit.scale).ceil().clamp(1.0, 4.0) as u32 },
            opacity,
            ..self.view(size)
        };
        let on_top = self.strokes_on_top(size, 1.0, opacity, &clip_from_camera);

        let mut pass = self.overlay.begin(&self.shared, &self.frame, &view, &on_top, encoder, target);
        if k.is_some() {
            pass.set_pipeline(&self.frame_passes.overlay);
            pass.draw(0..3, 0..1);
        }
        if opacity > 0.0 {
            self.meshes.draw(&mut pass, &self.mesh_passes, self.options.mesh, opacity >= 1.0);
        }
        self.overlay.draw_strokes(&mut pass, &self.stroke_passes.on_top, 0..on_top.len());
    }

    /// Draws the people in space into the whole target. At most one orbit view a submission.
    pub fn draw_orbit(&mut self, encoder: &mut wgpu::CommandEncoder, target: &wgpu::TextureView, camera: &OrbitCamera) {
        let size = target_size(target);
        let clip_from_camera = camera.clip_from_camera(size);
        let k = self.intrinsics();
        let image_plane_m = self.image_plane_m();
        let corners = strokes::frame_corners(self.frame.size);
        let slope = |corner: Vec2| k.map_or(Vec2::ZERO, |k| k.camera_from_frame(corner, 1.0).truncate());
        let view = View {
            clip_from_camera: clip_from_camera.to_cols_array_2d(),
            eye_camera_m: camera.eye_m().to_array(),
            ground_y_m: self.ground_y_m(),
            focal_px: OrbitCamera::focal_px(size),
            image_min: slope(corners[0]).to_array(),
            image_max: slope(corners[2]).to_array(),
            image_plane_m,
            grid_centre_m: [camera.target_m.x, camera.target_m.z],
            fog_m: (3.0 * camera.distance_m).max(6.0),
            opacity: 1.0,
            ..self.view(size)
        };
        let mut all = Vec::new();
        if let Some(k) = k {
            strokes::camera(&k, self.frame.size, image_plane_m, size, &mut all);
        }
        let in_scene = all.len();
        all.extend(self.strokes_on_top(size, image_plane_m, 1.0, &clip_from_camera));

        let mut pass = self.orbit.begin(&self.shared, &self.frame, &view, &all, encoder, target);
        pass.set_pipeline(&self.ground_passes.backdrop);
        pass.draw(0..3, 0..1);
        self.meshes.draw(&mut pass, &self.mesh_passes, self.options.mesh, true);
        pass.set_pipeline(&self.ground_passes.grid);
        pass.draw(0..4, 0..1);
        if k.is_some_and(|_| Vec2::from(view.image_min).is_finite() && Vec2::from(view.image_max).is_finite()) {
            pass.set_pipeline(&self.frame_passes.image_plane);
            pass.draw(0..4, 0..1);
        }
        self.orbit.draw_strokes(&mut pass, &self.stroke_passes.in_scene, 0..in_scene);
        self.orbit.draw_strokes(&mut pass, &self.stroke_passes.on_top, in_scene..all.len());
    }

    /// Boxes at this depth, then skeletons from far to near, then the marker.
    fn strokes_on_top(&self, size: [u32; 2], box_depth_m: f32, opacity: f32, clip_from_camera: &Mat4) -> Vec<Stroke> {
        let mut out = Vec::new();
        if let Shown::Result(result) = &self.shown {
            strokes::boxes(result, &self.options, size, box_depth_m, &mut out);
            let boxes = out.len();
            if opacity > 0.0 || self.options.joints {
                strokes::skeletons(result, &self.options, size, opacity, &mut out);
            }
            strokes::sort_far_to_near(&mut out[boxes..], clip_from_camera);
            strokes::marker(result, &self.options, size, &mut out);
        }
        out
    }

    /// What both pictures have in common.
    fn view(&self, size: [u32; 2]) -> View {
        View {
            target_size_px: [size[0] as f32, size[1] as f32],
            frame_size_px: [self.frame.size[0] as f32, self.frame.size[1] as f32],
            // Shades would be read as spread.
            flatness: if self.options.colour == MeshColour::Spread { 0.7 } else { 0.0 },
            near_m: NEAR_M,
            // Dark on the surface, and light enough not to bury it; alone, as bright as it would be.
            edge_shade: if self.options.mesh { 0.3 } else { 1.0 },
            edge_opacity: if self.options.mesh { 0.5 } else { 1.0 },
            ..View::default()
        }
    }

    /// The camera of what is shown; `None` when no pixels are.
    fn intrinsics(&self) -> Option<Intrinsics> {
        let intrinsics = match &self.shown {
            Shown::Nothing => None,
            Shown::Frame(intrinsics) => Some(*intrinsics),
            Shown::Result(result) => Some(result.intrinsics),
        };
        intrinsics.filter(|_| self.frame.is_set())
    }

    /// How far from the camera the frame stands in the orbit view: a quarter of the way to the nearest person or less,
    /// in steps of two so that it stands still.
    fn image_plane_m(&self) -> f32 {
        let Shown::Result(result) = &self.shown else { return 0.5 };
        let roots = self.options.visible(result).map(|person| person.root_camera_m);
        let nearest_m = roots.filter(|p| is_drawable(*p) && p.z > 0.0).map(|p| p.z).reduce(f32::min);
        nearest_m.map_or(0.5, |z| (0.25 * z).log2().floor().exp2().clamp(0.0625, 2.0))
    }

    fn set_frame(&mut self, frame: &Arc<Frame>) {
        if self.frame.set(&self.shared.device, &self.shared.queue, frame) {
            self.overlay.forget_frame();
            self.orbit.forget_frame();
        }
    }

    /// The ground follows slowly from result to result, so that it does not tremble with the soles; a change of more
    /// than a step is another scene.
    fn settled_ground_y_m(&self, now: f32) -> f32 {
        match self.ground_y_m {
            Some(before) if (now - before).abs() < 0.3 => before + (now - before) * 0.15,
            _ => now,
        }
    }
}
