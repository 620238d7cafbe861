//! The renderer, by properties that can be counted: which pixels a known mesh covers, what covers what, what stays
//! untouched. Runs on any adapter, Mesa's software Vulkan included.
//!
//! `cargo test --release --test render -- --ignored --nocapture` also writes pictures to look at and takes times.

use std::collections::BTreeSet;

use glam::Vec2;
use image::{Rgb, RgbImage};
use lixelscope::render::{DrawOptions, Gpu, OffscreenRenderer, OrbitCamera, OverlayFit, SHADERS, SceneRenderer};

mod look;
mod meshes;
mod scenes;
mod views;

use scenes::*;

#[test]
fn every_shader_is_valid() {
    use wgpu::naga::valid::{Capabilities, ValidationFlags, Validator};
    for (name, wgsl) in SHADERS {
        let module = wgpu::naga::front::wgsl::parse_str(wgsl)
            .unwrap_or_else(|error| panic!("{name}.wgsl: {}", error.emit_to_string(wgsl)));
        Validator::new(ValidationFlags::all(), Capabilities::empty())
            .validate(&module)
            .unwrap_or_else(|error| panic!("{name}.wgsl: {}", error.emit_to_string(wgsl)));
    }
    // None is left out.
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/shaders");
    let stems: BTreeSet<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    let tested: BTreeSet<_> = SHADERS.iter().map(|(name, _)| *name).chain(["view"]).map(String::from).collect();
    assert_eq!(stems, tested);
}

#[test]
fn an_srgb_target_is_refused_with_advice() {
    let error = SceneRenderer::new(&GPU.device, &GPU.queue, wgpu::TextureFormat::Rgba8UnormSrgb).err().unwrap();
    assert!(error.to_string().contains("Srgb"), "{error}");
}

#[test]
fn a_frame_without_people_comes_through_byte_for_byte() {
    for samples in [1, 4] {
        let mut renderer = OffscreenRenderer::with_samples(GPU.clone(), samples).unwrap();
        for (w, h) in [(640, 480), (641, 479), (1, 1), (3, 700)] {
            let result = result_on(noise(w, h), camera(), Vec::new(), Vec::new());
            let picture = renderer.overlay(&result, &solid()).unwrap();
            assert!(picture == result.frame.rgb, "{w} x {h}, {samples} samples");
        }
    }
}

#[test]
fn alpha_0_and_hiding_leave_the_frame_byte_for_byte() {
    let result = result(QUAD.to_vec(), vec![quad_person(7, [100.0, 100.0], [300.0, 300.0], 2.0)]);
    let mut renderer = renderer();
    let shown = renderer.overlay(&result, &solid()).unwrap();
    assert!(changed(&shown, &result.frame.rgb).len() > 30_000, "it is drawn otherwise");
    for options in [
        DrawOptions { alpha: 0.0, wireframe: true, ..DrawOptions::default() },
        DrawOptions { hidden: BTreeSet::from([7]), boxes: true, joints: true, ..solid() },
        DrawOptions { mesh: false, ..solid() },
    ] {
        let picture = renderer.overlay(&result, &options).unwrap();
        assert!(picture == result.frame.rgb, "{options:?}");
    }
}

#[test]
fn a_frame_larger_than_any_texture_is_drawn_smaller() {
    let max = GPU.device.limits().max_texture_dimension_2d;
    let result = result_on(RgbImage::from_pixel(max + 400, 8, Rgb([9, 99, 199])), camera(), Vec::new(), Vec::new());
    let picture = renderer().overlay(&result, &solid()).unwrap();
    assert_eq!(picture.width(), max);
    assert!(picture.pixels().all(|p| *p == Rgb([9, 99, 199])));
}

#[test]
fn sizes_without_pixels_are_errors() {
    let empty = result_on(RgbImage::new(0, 0), camera(), Vec::new(), Vec::new());
    let mut renderer = renderer();
    assert!(renderer.overlay(&empty, &solid()).is_err());
    assert!(renderer.orbit(&empty, &solid(), [0, 480], &OrbitCamera::default()).is_err());
    assert!(renderer.orbit(&empty, &solid(), [u32::MAX, 2], &OrbitCamera::default()).is_err());
    // The orbit view of an empty frame has a ground all the same.
    assert!(renderer.orbit(&empty, &solid(), [64, 48], &OrbitCamera::default()).is_ok());
}

/// One picture of a scene renderer, at any size.
fn scene_picture(size: [u32; 2], draw: impl FnOnce(&mut SceneRenderer)) -> RgbImage {
    let format = wgpu::TextureFormat::Rgba8Unorm;
    let mut scene = SceneRenderer::with_samples(&GPU.device, &GPU.queue, format, 1).unwrap();
    draw(&mut scene);
    let texture = GPU.device.create_texture(&wgpu::TextureDescriptor {
        label: None,
        size: wgpu::Extent3d { width: size[0], height: size[1], depth_or_array_layers: 1 },
        mip_level_count: 1,
        sample_count: 1,
        dimension: wgpu::TextureDimension::D2,
        format,
        usage: wgpu::TextureUsages::RENDER_ATTACHMENT | wgpu::TextureUsages::COPY_SRC,
        view_formats: &[],
    });
    let bytes_per_row = (4 * size[0]).next_multiple_of(256);
    let buffer = GPU.device.create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: u64::from(bytes_per_row * size[1]),
        usage: wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::MAP_READ,
        mapped_at_creation: false,
    });
    let mut encoder = GPU.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    scene.draw_overlay(&mut encoder, &texture.create_view(&wgpu::TextureViewDescriptor::default()));
    let layout = wgpu::TexelCopyBufferLayout { offset: 0, bytes_per_row: Some(bytes_per_row), rows_per_image: None };
    let to = wgpu::TexelCopyBufferInfo { buffer: &buffer, layout };
    encoder.copy_texture_to_buffer(texture.as_image_copy(), to, texture.size());
    GPU.queue.submit([encoder.finish()]);
    buffer.slice(..).map_async(wgpu::MapMode::Read, |mapped| mapped.unwrap());
    GPU.device.poll(wgpu::PollType::wait_indefinitely()).unwrap();
    let bytes = buffer.slice(..).get_mapped_range().unwrap();
    RgbImage::from_fn(size[0], size[1], |x, y| {
        let at = (y * bytes_per_row + 4 * x) as usize;
        Rgb([bytes[at], bytes[at + 1], bytes[at + 2]])
    })
}

#[test]
fn a_target_of_another_shape_holds_the_frame_in_its_aspect() {
    // Twice the size, and 100 pixels too wide: 50 stay empty on either side.
    let size = [1380, 960];
    let grey = RgbImage::from_pixel(640, 480, Rgb([120, 120, 120]));
    let people = vec![quad_person(0, [99.5, 79.5], [149.5, 129.5], 2.0)];
    let result = result_on(grey, camera(), QUAD.to_vec(), people);
    let picture = scene_picture(size, |scene| scene.set_result(&result, &solid()));
    let bare = scene_picture(size, |scene| scene.set_frame_only(&result.frame, &result.intrinsics));
    assert_eq!(bare.pixels().filter(|p| **p == Rgb([120, 120, 120])).count(), 1280 * 960);
    assert_ne!(bare.get_pixel(49, 500), bare.get_pixel(50, 500));
    assert_ne!(bare.get_pixel(1330, 500), bare.get_pixel(1329, 500));
    assert_pixels(&changed(&picture, &bare), &rectangle(250..350, 160..260), "the quad, at twice its size");
    let fit = OverlayFit::new([640, 480], size);
    assert_eq!(fit.target_from_frame(Vec2::new(99.5, 79.5)), Vec2::new(250.0, 160.0));
}

#[test]
fn a_shrunk_frame_is_averaged() {
    // Black and white columns, each a pixel wide, at a quarter of the size: grey, not one or the other.
    let stripes = RgbImage::from_fn(640, 480, |x, _| Rgb([(x % 2 * 255) as u8; 3]));
    let result = result_on(stripes, camera(), Vec::new(), Vec::new());
    let picture = scene_picture([160, 120], |scene| scene.set_result(&result, &solid()));
    assert!(picture.pixels().all(|p| p.0[0].abs_diff(127) <= 2), "{:?}", picture.get_pixel(80, 60));
}

#[test]
fn a_lost_device_is_an_error() {
    let gpu = Gpu::headless().unwrap();
    let device = gpu.device.clone();
    let mut renderer = OffscreenRenderer::with_samples(gpu, 1).unwrap();
    let result = result(QUAD.to_vec(), vec![quad_person(0, [100.0, 100.0], [300.0, 300.0], 2.0)]);
    renderer.overlay(&result, &solid()).unwrap();
    device.destroy();
    assert!(renderer.overlay(&result, &solid()).is_err());
    assert!(renderer.orbit(&result, &solid(), [64, 64], &OrbitCamera::default()).is_err());
}
