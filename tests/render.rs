//! The renderer, by properties that can be counted: which pixels a known mesh covers, what covers what, what stays
//! untouched. Runs on any adapter, Mesa's software Vulkan included.
//!
//! `cargo test --release --test render -- --ignored --nocapture` also writes pictures to look at and takes times.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use glam::{Affine2, Quat, Vec2, Vec3};
use image::{Rgb, RgbImage};
use lixelscope::body::Topology;
use lixelscope::capture::Frame;
use lixelscope::crop::Crop;
use lixelscope::render::{
    DrawOptions, Gpu, MeshColour, OffscreenRenderer, OrbitCamera, OverlayFit, Pick, SHADERS, SceneRenderer,
    person_colour, pick_orbit, pick_overlay,
};
use lixelscope::result::{EstimatorKind, FrameResult, Landmark, Person, PersonMesh, Skeleton, StageTimes};
use lixelscope::space::{Intrinsics, RectPx};

/// One device for all tests: opening one takes longer than most of them.
static GPU: LazyLock<Gpu> = LazyLock::new(|| Gpu::headless().expect("the tests need a graphics adapter"));

fn renderer() -> OffscreenRenderer {
    OffscreenRenderer::with_samples(GPU.clone(), 1).unwrap()
}

// ---------------------------------------------------------------------------------------------------- scenes

/// Every pixel another colour, so that a displaced one shows.
fn noise(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        let v = (x.wrapping_mul(0x9E37_79B1) ^ y.wrapping_mul(0x85EB_CA6B)).wrapping_mul(0xC2B2_AE35);
        Rgb([(v >> 24) as u8, (v >> 16) as u8, (v >> 8) as u8])
    })
}

fn camera() -> Intrinsics {
    Intrinsics { fx: 500.0, fy: 500.0, cx: 320.0, cy: 240.0 }
}

fn person(id: u32, mesh: Option<PersonMesh>, joints_camera_m: Vec<Vec3>) -> Person {
    let rect = RectPx::from([200.0, 100.0, 120.0, 240.0]);
    let crop = Crop { rect, size: 256, crop_from_frame: Affine2::IDENTITY, frame_from_crop: Affine2::IDENTITY };
    let root_camera_m = joints_camera_m.first().copied().unwrap_or(Vec3::Z * 3.0);
    let joint_spread_lixel = vec![Vec3::ONE; joints_camera_m.len()];
    let heatmaps = Vec::new();
    Person { id, score: 0.9, rect, crop, root_camera_m, joints_camera_m, joint_spread_lixel, mesh, heatmaps }
}

fn mesh(vertices_camera_m: Vec<Vec3>) -> PersonMesh {
    let spread_lixel = vec![Vec3::splat(0.5); vertices_camera_m.len()];
    let vertices_lixel = vec![Vec3::ZERO; vertices_camera_m.len()];
    PersonMesh { vertices_camera_m, vertices_lixel, spread_lixel, params: None }
}

fn result_on(rgb: RgbImage, intrinsics: Intrinsics, faces: Vec<[u32; 3]>, people: Vec<Person>) -> Arc<FrameResult> {
    let vertex_count = people.iter().filter_map(|p| p.mesh.as_ref()).map(|m| m.vertices_camera_m.len()).max();
    let topology = Topology { vertex_count: vertex_count.unwrap_or(0), faces, ..Topology::default() };
    Arc::new(FrameResult {
        frame: Arc::new(Frame { rgb, index: 0, captured_at: Duration::ZERO, name: None }),
        intrinsics,
        estimator: EstimatorKind::Body,
        bins: 64,
        skeleton: Arc::new(Skeleton {
            names: ["a", "b", "c"].map(String::from).to_vec(),
            parents: vec![None, Some(0), Some(1)],
        }),
        topology: Some(Arc::new(topology)),
        people,
        timing: StageTimes::default(),
        detector_ran: true,
        frames_dropped: 0,
    })
}

fn result(faces: Vec<[u32; 3]>, people: Vec<Person>) -> Arc<FrameResult> {
    result_on(noise(640, 480), camera(), faces, people)
}

const QUAD: [[u32; 3]; 2] = [[0, 2, 1], [0, 3, 2]];

/// A rectangle that faces the camera, between two frame points at a depth. With `QUAD`, its outside is seen.
fn quad(low: Vec2, high: Vec2, depth_m: f32) -> Vec<Vec3> {
    let corners = [low, Vec2::new(high.x, low.y), high, Vec2::new(low.x, high.y)];
    corners.map(|p| camera().camera_from_frame(p, depth_m)).to_vec()
}

fn quad_person(id: u32, low: [f32; 2], high: [f32; 2], depth_m: f32) -> Person {
    person(id, Some(mesh(quad(low.into(), high.into(), depth_m))), Vec::new())
}

/// A globe: rings of vertices between two poles; faces counter-clockwise seen from outside.
fn globe(rings: u32, sectors: u32) -> (Vec<Vec3>, Vec<[u32; 3]>) {
    let mut vertices = vec![Vec3::NEG_Y];
    for ring in 1..rings {
        let (sin, cos) = (std::f32::consts::PI * ring as f32 / rings as f32).sin_cos();
        vertices.extend((0..sectors).map(|sector| {
            let (s, c) = (std::f32::consts::TAU * sector as f32 / sectors as f32).sin_cos();
            Vec3::new(sin * c, -cos, sin * s)
        }));
    }
    let last = vertices.len() as u32;
    vertices.push(Vec3::Y);
    let at = |ring: u32, sector: u32| 1 + (ring - 1) * sectors + sector % sectors;
    let mut faces = Vec::new();
    for sector in 0..sectors {
        faces.push([0, at(1, sector), at(1, sector + 1)]);
        faces.push([last, at(rings - 1, sector + 1), at(rings - 1, sector)]);
        for ring in 1..rings - 1 {
            let [a, b] = [at(ring, sector), at(ring, sector + 1)];
            let [c, d] = [at(ring + 1, sector), at(ring + 1, sector + 1)];
            faces.extend([[a, c, d], [a, d, b]]);
        }
    }
    (vertices, faces)
}

fn sphere_person(id: u32, centre: Vec3, radius_m: f32, unit: &[Vec3]) -> Person {
    let vertices = unit.iter().map(|v| centre + radius_m * *v).collect();
    person(id, Some(mesh(vertices)), vec![centre])
}

// ---------------------------------------------------------------------------------------------------- counting

fn changed(a: &RgbImage, b: &RgbImage) -> BTreeSet<(u32, u32)> {
    assert_eq!(a.dimensions(), b.dimensions());
    a.enumerate_pixels().filter(|(x, y, p)| b.get_pixel(*x, *y) != *p).map(|(x, y, _)| (x, y)).collect()
}

fn rectangle(x: std::ops::Range<u32>, y: std::ops::Range<u32>) -> BTreeSet<(u32, u32)> {
    y.flat_map(|y| x.clone().map(move |x| (x, y))).collect()
}

/// Equal sets of pixels; says how many differ, and one of them.
#[track_caller]
fn assert_pixels(got: &BTreeSet<(u32, u32)>, want: &BTreeSet<(u32, u32)>, what: &str) {
    let extra: Vec<_> = got.difference(want).collect();
    let missing: Vec<_> = want.difference(got).collect();
    assert!(
        extra.is_empty() && missing.is_empty(),
        "{what}: of {} pixels {} are missing ({:?}), and {} are too many ({:?})",
        want.len(),
        missing.len(),
        missing.first(),
        extra.len(),
        extra.first()
    );
}

fn solid() -> DrawOptions {
    DrawOptions { alpha: 1.0, ..DrawOptions::default() }
}

// ---------------------------------------------------------------------------------------------------- shaders

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

// ---------------------------------------------------------------------------------------------------- the frame

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

// ---------------------------------------------------------------------------------------------------- meshes

#[test]
fn a_rectangle_covers_exactly_the_pixels_it_projects_to() {
    let mut renderer = renderer();
    // Its edges run between pixels, so that 50 x 50 centres are inside. Displacements of less than half a pixel change
    // nothing; at more than half the next pixel is reached.
    for (shift, first) in [(0.0, 100), (0.4, 100), (-0.4, 100), (0.6, 101), (-0.6, 99)] {
        for depth_m in [0.3, 2.0, 40.0] {
            let low = [99.5 + shift, 79.5 + shift];
            let result = result(QUAD.to_vec(), vec![quad_person(0, low, low.map(|v| v + 50.0), depth_m)]);
            let covered = changed(&renderer.overlay(&result, &solid()).unwrap(), &result.frame.rgb);
            let want = rectangle(first..first + 50, first - 20..first + 30);
            assert_pixels(&covered, &want, &format!("shifted by {shift} at {depth_m} m"));
        }
    }
}

#[test]
fn a_sphere_covers_its_silhouette() {
    let (unit, faces) = globe(64, 128);
    let (centre, radius_m) = (Vec3::new(0.0, 0.0, 2.0), 0.5);
    let result = result(faces, vec![sphere_person(3, centre, radius_m, &unit)]);
    let covered = changed(&renderer().overlay(&result, &solid()).unwrap(), &result.frame.rgb);
    // The cone that touches it: a circle of radius f r / sqrt(z^2 - r^2) around the principal point.
    let radius_px = 500.0 * radius_m / (centre.z * centre.z - radius_m * radius_m).sqrt();
    // A globe of this many facets is flatter by 0.15 % of the radius at most; half a pixel for the raster.
    for y in 0..480 {
        for x in 0..640 {
            let d = Vec2::new(x as f32 - 320.0, y as f32 - 240.0).length();
            if (d - radius_px).abs() > 0.7 {
                assert_eq!(covered.contains(&(x, y)), d < radius_px, "at {x}, {y}: {d} of {radius_px}");
            }
        }
    }
}

#[test]
fn a_person_has_the_persons_colour_and_is_lit() {
    let (unit, faces) = globe(32, 64);
    let picture_of = |id| {
        let result = result(faces.clone(), vec![sphere_person(id, Vec3::new(0.0, 0.0, 2.0), 0.5, &unit)]);
        renderer().overlay(&result, &solid()).unwrap()
    };
    for id in 0..7 {
        let picture = picture_of(id);
        let lit = picture.get_pixel(320, 190).0.map(|c| f32::from(c) / 255.0);
        let shade = picture.get_pixel(370, 320).0.map(|c| f32::from(c) / 255.0);
        let distance = |other: &u32| Vec3::from(lit).distance(person_colour(*other).into());
        let nearest = (0..7).min_by(|a, b| distance(a).total_cmp(&distance(b))).unwrap();
        assert_eq!(nearest, id, "{lit:?} is not {:?}", person_colour(id));
        assert!(shade.iter().sum::<f32>() < 0.85 * lit.iter().sum::<f32>(), "light from above: {shade:?}, {lit:?}");
    }
}

#[test]
fn the_nearer_person_covers_the_farther_one() {
    let near = quad_person(1, [199.5, 149.5], [299.5, 249.5], 1.5);
    let far = quad_person(0, [149.5, 99.5], [249.5, 199.5], 1.6);
    let mut renderer = renderer();
    for alpha in [1.0, 0.5] {
        let options = DrawOptions { alpha, ..DrawOptions::default() };
        let mut picture = |people: &[&Person]| {
            renderer.overlay(&result(QUAD.to_vec(), people.iter().map(|p| (*p).clone()).collect()), &options).unwrap()
        };
        let (both, reversed) = (picture(&[&near, &far]), picture(&[&far, &near]));
        assert!(both == reversed, "the order in the list does not matter");
        let (near_alone, far_alone) = (picture(&[&near]), picture(&[&far]));
        for (x, y) in rectangle(200..300, 150..250) {
            assert_eq!(both.get_pixel(x, y), near_alone.get_pixel(x, y), "alpha {alpha}: nothing shines through");
        }
        for (x, y) in rectangle(150..250, 100..200).difference(&rectangle(200..300, 150..250)) {
            assert_eq!(both.get_pixel(*x, *y), far_alone.get_pixel(*x, *y), "alpha {alpha}");
        }
    }
}

#[test]
fn occlusion_follows_depth_within_a_crossing() {
    // Two rectangles that cross along a vertical line in the middle: each is in front on one side.
    let crossing = |id, z_left, z_right| {
        let at = |x: f32, y: f32, z| camera().camera_from_frame(Vec2::new(x, y), z);
        let vertices =
            vec![at(99.5, 99.5, z_left), at(299.5, 99.5, z_right), at(299.5, 199.5, z_right), at(99.5, 199.5, z_left)];
        person(id, Some(mesh(vertices)), Vec::new())
    };
    let (a, b) = (crossing(0, 2.0, 3.0), crossing(1, 3.0, 2.0));
    let mut renderer = renderer();
    let mut picture = |people: Vec<Person>| renderer.overlay(&result(QUAD.to_vec(), people), &solid()).unwrap();
    let (both, a_alone, b_alone) = (picture(vec![a.clone(), b.clone()]), picture(vec![a]), picture(vec![b]));
    // 1 / z is linear over the frame, so they cross in the very middle, between pixels 199 and 200.
    for (x, y) in rectangle(100..300, 100..200) {
        let want = if x < 200 { &a_alone } else { &b_alone };
        assert_eq!(both.get_pixel(x, y), want.get_pixel(x, y), "at {x}, {y}");
    }
}

#[test]
fn a_translucent_mesh_is_one_layer() {
    let (unit, faces) = globe(32, 64);
    let centre = Vec3::new(0.1, 0.0, 2.0);
    let outer: Vec<Vec3> = unit.iter().map(|v| centre + 0.5 * *v).collect();
    let inner = unit.iter().map(|v| centre + 0.3 * *v);
    let with_inner: Vec<Vec3> = outer.iter().copied().chain(inner).collect();
    let n = unit.len() as u32;
    let mut all_faces: Vec<_> = faces.iter().map(|face| face.map(|i| i + n)).collect();
    all_faces.extend(&faces);
    let options = DrawOptions { alpha: 0.4, ..DrawOptions::default() };
    let mut renderer = renderer();
    let plain = renderer.overlay(&result(faces, vec![person(0, Some(mesh(outer)), vec![])]), &options).unwrap();
    let filled =
        renderer.overlay(&result(all_faces, vec![person(0, Some(mesh(with_inner)), vec![])]), &options).unwrap();
    assert!(plain == filled, "neither the inner sphere nor the far side is seen");
}

#[test]
fn unusable_vertices_cost_their_triangles_only() {
    let mut vertices = quad(Vec2::new(99.5, 79.5), Vec2::new(149.5, 129.5), 2.0);
    vertices.extend(quad(Vec2::new(299.5, 79.5), Vec2::new(349.5, 129.5), 2.0));
    let mut faces = QUAD.to_vec();
    faces.extend(QUAD.map(|face| face.map(|i| i + 4)));
    let left = rectangle(100..150, 80..130);
    let both: BTreeSet<_> = left.union(&rectangle(300..350, 80..130)).copied().collect();
    // One renderer for all: buffers of one result must not show in the next.
    let mut renderer = renderer();
    let whole = vertices.clone();
    let mut covered = |vertices: Vec<Vec3>, wireframe| {
        let whole = person(4, Some(mesh(vertices)), Vec::new());
        let result = result(faces.clone(), vec![whole]);
        changed(&renderer.overlay(&result, &DrawOptions { wireframe, ..solid() }).unwrap(), &result.frame.rgb)
    };
    for bad in [Vec3::NAN, Vec3::new(0.0, f32::INFINITY, 1.0), Vec3::splat(3e38)] {
        let mut broken = whole.clone();
        // A corner of both triangles on the right.
        broken[4] = bad;
        assert_pixels(&covered(broken, false), &left, "a corner on the right is unusable");
        assert_pixels(&covered(whole.clone(), false), &both, "whole again");
    }
    let mut broken = whole.clone();
    broken[6] = Vec3::NAN;
    let edges = covered(broken, true);
    assert!(edges.is_superset(&left) && edges.iter().all(|(x, _)| *x < 200), "edges of the left half alone");
    assert_pixels(&covered(whole[..6].to_vec(), false), &left, "vertices are missing");
    assert_pixels(&covered(vec![Vec3::NAN; 8], false), &BTreeSet::new(), "no vertex is a number");
    assert_pixels(&covered(Vec::new(), true), &BTreeSet::new(), "no vertex");
    assert_pixels(&covered(whole.clone(), false), &both, "whole again");
}

#[test]
fn what_is_behind_or_around_the_camera_does_not_fold_over() {
    let mut renderer = renderer();
    let behind: Vec<Vec3> = quad(Vec2::new(99.5, 79.5), Vec2::new(149.5, 129.5), 2.0).iter().map(|v| -*v).collect();
    let behind = result(QUAD.to_vec(), vec![person(0, Some(mesh(behind)), vec![Vec3::NEG_Z, Vec3::X - Vec3::Z])]);
    let picture = renderer.overlay(&behind, &DrawOptions { joints: true, ..solid() }).unwrap();
    assert!(picture == behind.frame.rgb);
    // A floor from behind the camera to far ahead: all below its horizon, nothing above.
    let floor = [[-50.0, 5.0], [50.0, 5.0], [50.0, -5.0], [-50.0, -5.0]].map(|[x, z]| Vec3::new(x, 0.5, z)).to_vec();
    let floor = result(QUAD.to_vec(), vec![person(0, Some(mesh(floor)), vec![Vec3::ZERO, Vec3::Z])]);
    let options = DrawOptions { joints: true, wireframe: true, selected: Some((0, Landmark::Vertex(3))), ..solid() };
    renderer.overlay(&floor, &options).unwrap();
    let covered = changed(&renderer.overlay(&floor, &solid()).unwrap(), &floor.frame.rgb);
    // It ends at z = 5, where y = 240 + 500 * 0.5 / 5 = 290.
    assert_pixels(&covered, &rectangle(0..640, 290..480), "a floor up to its far edge");
}

#[test]
fn an_inside_out_triangle_is_drawn_darker_not_lost() {
    let outside = result(QUAD.to_vec(), vec![quad_person(0, [99.5, 79.5], [149.5, 129.5], 2.0)]);
    let inside = result(QUAD.map(|[a, b, c]| [a, c, b]).to_vec(), outside.people.clone());
    let mut renderer = renderer();
    let (outside, inside) =
        (renderer.overlay(&outside, &solid()).unwrap(), renderer.overlay(&inside, &solid()).unwrap());
    let sum = |picture: &RgbImage| picture.get_pixel(120, 100).0.iter().map(|c| u32::from(*c)).sum::<u32>();
    assert!(sum(&inside) < sum(&outside) && sum(&inside) > 60, "{} and {}", sum(&inside), sum(&outside));
}

#[test]
fn hundreds_of_thousands_of_vertices_are_drawn() {
    let (unit, faces) = globe(400, 800);
    assert!(unit.len() > 300_000);
    let result = result(faces, vec![sphere_person(0, Vec3::new(0.0, 0.0, 2.0), 0.5, &unit)]);
    let picture = renderer().overlay(&result, &DrawOptions { wireframe: true, ..solid() }).unwrap();
    let covered = changed(&picture, &result.frame.rgb).len() as f32;
    let want = std::f32::consts::PI * (500.0_f32 * 0.5).powi(2) / (4.0 - 0.25);
    assert!((covered / want - 1.0).abs() < 0.01, "{covered} pixels of {want}");
}

#[test]
fn spread_is_read_from_dark_to_yellow() {
    let mut unsure = quad_person(0, [99.5, 79.5], [149.5, 129.5], 2.0);
    let mut renderer = renderer();
    let mut colour_at = |spread: f32| {
        unsure.mesh.as_mut().unwrap().spread_lixel = vec![Vec3::new(spread, 0.0, 0.0); 4];
        let result = result(QUAD.to_vec(), vec![unsure.clone()]);
        let options = DrawOptions { colour: MeshColour::Spread, ..solid() };
        renderer.overlay(&result, &options).unwrap().get_pixel(120, 100).0
    };
    let [r, g, b] = colour_at(0.0);
    assert!(b > g && r > g, "violet: {:?}", [r, g, b]);
    let [r, g, b] = colour_at(8.0);
    assert!(r > 180 && g > 180 && b < 100, "yellow: {:?}", [r, g, b]);
    colour_at(f32::NAN);
}

#[test]
fn edges_alone_stay_within_the_surface() {
    let (unit, faces) = globe(12, 16);
    let result = result(faces, vec![sphere_person(0, Vec3::new(0.0, 0.0, 2.0), 0.5, &unit)]);
    let mut renderer = renderer();
    let filled = changed(&renderer.overlay(&result, &solid()).unwrap(), &result.frame.rgb);
    let edges = renderer.overlay(&result, &DrawOptions { mesh: false, wireframe: true, ..solid() }).unwrap();
    let edges = changed(&edges, &result.frame.rgb);
    assert!(edges.len() > filled.len() / 50 && edges.len() < filled.len() / 4, "{} of {}", edges.len(), filled.len());
    // A line is a pixel wide: on the silhouette it may lie a pixel outside.
    let near = |&(x, y): &(u32, u32)| rectangle(x - 1..x + 2, y - 1..y + 2).iter().any(|p| filled.contains(p));
    assert!(edges.iter().all(near));
}

// ---------------------------------------------------------------------------------------------------- strokes

fn at_px(x: f32, y: f32, depth_m: f32) -> Vec3 {
    camera().camera_from_frame(Vec2::new(x, y), depth_m)
}

#[test]
fn a_skeleton_covers_its_joints_and_bones() {
    let joints = vec![at_px(200.0, 100.0, 3.0), at_px(200.0, 200.0, 3.0), at_px(300.0, 200.0, 3.0)];
    let skeleton = result(Vec::new(), vec![person(0, None, joints)]);
    let mut renderer = renderer();
    let covered = changed(&renderer.overlay(&skeleton, &DrawOptions::default()).unwrap(), &skeleton.frame.rgb);
    for p in [(200, 100), (200, 150), (200, 200), (250, 200), (300, 200)] {
        assert!(covered.contains(&p), "{p:?}");
    }
    for p in [(200, 80), (220, 150), (250, 180), (320, 200), (250, 150)] {
        assert!(!covered.contains(&p), "{p:?}");
    }
    let hidden = renderer.overlay(&skeleton, &DrawOptions { mesh: false, ..solid() }).unwrap();
    assert!(hidden == skeleton.frame.rgb, "the skeleton is such a person's body");

    // As an option it is seen through the mesh.
    let joints = skeleton.people[0].joints_camera_m.clone();
    let wall = quad(Vec2::new(99.5, 49.5), Vec2::new(399.5, 299.5), 2.0);
    let wall = result(QUAD.to_vec(), vec![person(0, Some(mesh(wall)), joints)]);
    let without = renderer.overlay(&wall, &solid()).unwrap();
    let with = renderer.overlay(&wall, &DrawOptions { joints: true, ..solid() }).unwrap();
    assert!(changed(&with, &without).contains(&(200, 150)));
}

#[test]
fn joints_that_are_no_numbers_are_left_out() {
    let joints = vec![at_px(200.0, 100.0, 3.0), Vec3::NAN, at_px(300.0, 200.0, 3.0)];
    let mut result = result(Vec::new(), vec![person(0, None, joints)]);
    // A parent that does not exist.
    Arc::get_mut(&mut result).unwrap().skeleton =
        Arc::new(Skeleton { names: vec![String::new(); 3], parents: vec![None, Some(0), Some(77)] });
    let covered = changed(&renderer().overlay(&result, &solid()).unwrap(), &result.frame.rgb);
    assert!(covered.contains(&(200, 100)) && covered.contains(&(300, 200)) && !covered.contains(&(250, 150)));
}

#[test]
fn a_box_is_an_outline_where_it_says() {
    let boxed = result(Vec::new(), vec![person(0, None, Vec::new())]);
    let options = DrawOptions { boxes: true, ..solid() };
    let covered = changed(&renderer().overlay(&boxed, &options).unwrap(), &boxed.frame.rgb);
    // x from 200 to 320, y from 100 to 340; the line is two pixels wide, with a smooth edge of one.
    let outer = rectangle(198..323, 98..343);
    let inner = rectangle(203..318, 103..338);
    assert!(covered.is_subset(&outer) && covered.is_disjoint(&inner));
    assert!((200..=320).all(|x| covered.contains(&(x, 100)) && covered.contains(&(x, 340))));
    assert!((100..=340).all(|y| covered.contains(&(200, y)) && covered.contains(&(320, y))));
}

#[test]
fn the_marker_is_a_ring_around_the_vertex() {
    let options = DrawOptions { selected: Some((5, Landmark::Vertex(2))), ..solid() };
    let plain = result(QUAD.to_vec(), vec![quad_person(5, [100.0, 80.0], [200.0, 180.0], 2.0)]);
    let mut renderer = renderer();
    let without = renderer.overlay(&plain, &solid()).unwrap();
    let marked = changed(&renderer.overlay(&plain, &options).unwrap(), &without);
    assert!(marked.contains(&(200, 180)), "a dot on the vertex");
    assert!(marked.iter().all(|&(x, y)| Vec2::new(x as f32 - 200.0, y as f32 - 180.0).length() < 9.5));
    assert!(marked.contains(&(206, 180)) && marked.contains(&(200, 174)), "a ring");
    // One that is not there.
    for selected in [(5, Landmark::Vertex(99)), (6, Landmark::Vertex(0)), (5, Landmark::Joint(0))] {
        let options = DrawOptions { selected: Some(selected), ..solid() };
        assert!(renderer.overlay(&plain, &options).unwrap() == without, "{selected:?}");
    }
}

// ---------------------------------------------------------------------------------------------------- orbit view

#[test]
fn the_orbit_view_shows_mesh_grid_and_frustum() {
    let (unit, faces) = globe(32, 64);
    let centre = Vec3::new(0.3, 0.2, 3.0);
    let people = vec![sphere_person(1, centre, 0.5, &unit)];
    let grey = RgbImage::from_pixel(640, 480, Rgb([250, 250, 250]));
    let result = result_on(grey, camera(), faces, people);
    let size = [800, 600];
    let mut camera = OrbitCamera::default();
    camera.fit(&result, 800.0 / 600.0);
    let mut renderer = renderer();
    let picture = renderer.orbit(&result, &solid(), size, &camera).unwrap();
    let hidden =
        renderer.orbit(&result, &DrawOptions { hidden: BTreeSet::from([1]), ..solid() }, size, &camera).unwrap();
    let at = |p: Vec3| camera.view_from_camera_px(p, size).unwrap();
    let pixel = |picture: &RgbImage, p: Vec2| picture.get_pixel(p.x as u32, p.y as u32).0.map(i32::from);

    // The sphere: a round patch of its colour about its centre.
    let [r, g, b] = pixel(&picture, at(centre));
    assert!(r > g && g > b, "orange: {:?}", [r, g, b]);
    assert_ne!(pixel(&picture, at(centre)), pixel(&hidden, at(centre)));
    let distance_m = camera.eye_m().distance(centre);
    let px_per_m = at(centre).distance(at(centre + 0.01 * Vec3::Y)) * 100.0;
    let orange = picture.pixels().filter(|p| i32::from(p.0[0]) > i32::from(p.0[2]) + 60).count() as f32;
    let want = std::f32::consts::PI * (0.5 * px_per_m).powi(2);
    assert!((orange / want - 1.0).abs() < 0.15, "{orange} orange pixels of about {want} at {distance_m} m");

    // The grid: lines at whole metres, on the ground just below the sphere, brighter than between them.
    let ground = |x: f32, z: f32| Vec3::new(x, 0.2 + 0.5 + 0.005, z);
    let inside = |p: Vec3| at(p).cmpge(Vec2::splat(5.0)).all() && at(p).x < 795.0 && at(p).y < 595.0;
    let brightness = |p: Vec3| pixel(&picture, at(p)).iter().sum::<i32>();
    let (mut lines, mut brighter) = (0, 0);
    for x in -4..5 {
        for z in 0..8 {
            let (line, between) = (ground(x as f32, z as f32 + 0.45), ground(x as f32 + 0.47, z as f32 + 0.45));
            // The sphere stands in the way of some.
            if inside(line) && inside(between) && line.distance(centre) > 1.2 {
                lines += 1;
                brighter += i32::from(brightness(line) > brightness(between) + 3);
            }
        }
    }
    assert!(lines >= 10 && brighter * 10 >= lines * 8, "{brighter} of {lines} lines");

    // The image plane, dimmed, inside the frustum's lines.
    let [r, g, b] = pixel(&picture, at(Vec3::new(0.0, 0.0, 0.5)));
    assert!(r > 110 && r < 250 && (r - g).abs() < 20 && (g - b).abs() < 30, "{:?}", [r, g, b]);
}

#[test]
fn fit_frames_people_and_camera() {
    let (unit, faces) = globe(16, 16);
    for (x, z) in [(0.0, 1.0), (-3.0, 12.0), (2.0, 0.4)] {
        let centre = Vec3::new(x, 0.0, z);
        let result = result(faces.clone(), vec![sphere_person(0, centre, 0.2, &unit)]);
        for size in [[800, 600], [300, 900]] {
            let mut camera = OrbitCamera { yaw_rad: 0.4, pitch_rad: 0.3, ..OrbitCamera::default() };
            camera.fit(&result, size[0] as f32 / size[1] as f32);
            let vertices = &result.people[0].mesh.as_ref().unwrap().vertices_camera_m;
            for p in vertices.iter().chain([&Vec3::ZERO]) {
                let at = camera.view_from_camera_px(*p, size).unwrap_or_else(|| panic!("{p} is behind {camera:?}"));
                let inside = at.cmpge(Vec2::ZERO).all() && at.x <= size[0] as f32 && at.y <= size[1] as f32;
                assert!(inside, "{p} is at {at} of {size:?}");
            }
        }
    }
    // Nobody, and nonsense.
    let mut camera = OrbitCamera::default();
    camera.fit(&result(Vec::new(), vec![person(0, None, vec![Vec3::NAN])]), f32::NAN);
    assert!(camera.eye_m().is_finite() && camera.distance_m > 0.1);
}

// ---------------------------------------------------------------------------------------------------- picking

#[test]
fn a_click_on_a_vertex_picks_it_and_only_what_is_in_front() {
    let (unit, faces) = globe(16, 24);
    let (near, far) = (Vec3::new(0.0, 0.0, 2.0), Vec3::new(0.1, 0.0, 3.5));
    let people = vec![sphere_person(8, far, 0.5, &unit), sphere_person(9, near, 0.5, &unit)];
    let result = result(faces, people);
    let options = DrawOptions::default();
    let mut camera = OrbitCamera::default();
    camera.fit(&result, 1.0);
    let size = [700, 700];
    let pick_orbit_at =
        |p: Vec3| pick_orbit(&result, &options, &camera, size, camera.view_from_camera_px(p, size).unwrap());
    let pick_overlay_at = |p: Vec3| pick_overlay(&result, &options, result.intrinsics.frame_from_camera(p));

    let mut picked = 0;
    for (i, v) in unit.iter().enumerate() {
        let p = near + 0.5 * *v;
        let want = Some(Pick { person: 9, landmark: Landmark::Vertex(i as u32), position_camera_m: p });
        // Clearly on the side of each eye; facets turn by 15 degrees, a sine of 0.26, along the silhouette.
        let facing = |eye: Vec3| v.dot((eye - p).normalize());
        if facing(Vec3::ZERO) > 0.1 {
            assert_eq!(pick_overlay_at(p), want);
            picked += 1;
        } else if facing(Vec3::ZERO) < -0.3 {
            assert_ne!(pick_overlay_at(p), want);
        }
        if facing(camera.eye_m()) > 0.1 {
            assert_eq!(pick_orbit_at(p), want);
        } else if facing(camera.eye_m()) < -0.3 {
            assert_ne!(pick_orbit_at(p), want);
        }
    }
    assert!(picked > 100);

    let hidden = DrawOptions { hidden: BTreeSet::from([9]), ..DrawOptions::default() };
    let behind = pick_overlay(&result, &hidden, Vec2::new(325.0, 240.0)).unwrap();
    assert_eq!(behind.person, 8, "who is hidden is not in the way");
    for nothing in [Vec2::new(5.0, 5.0), Vec2::NAN, Vec2::splat(-1e30)] {
        assert_eq!(pick_overlay(&result, &options, nothing), None);
    }
}

#[test]
fn what_is_picked_is_what_is_drawn() {
    let (unit, faces) = globe(16, 24);
    let people = vec![
        sphere_person(0, Vec3::new(0.0, 0.0, 2.0), 0.5, &unit),
        sphere_person(1, Vec3::new(0.5, 0.2, 2.4), 0.4, &unit),
    ];
    let result = result(faces, people);
    let covered = changed(&renderer().overlay(&result, &solid()).unwrap(), &result.frame.rgb);
    let mut differ = 0;
    for (x, y) in rectangle(0..640, 0..480).into_iter().filter(|(x, y)| (x + 3 * y) % 7 == 0) {
        let hit = pick_overlay(&result, &solid(), Vec2::new(x as f32, y as f32)).is_some();
        differ += i32::from(hit != covered.contains(&(x, y)));
    }
    // The rasteriser rounds corners to a 256th of a pixel: a pixel of the outline may differ.
    assert!(differ <= 3, "{differ} of 43,885 pixels");
}

#[test]
fn joints_of_skeletons_are_picked() {
    let joints = vec![at_px(200.0, 100.0, 3.0), at_px(200.0, 200.0, 3.0), at_px(202.0, 200.0, 2.0)];
    let result = result(Vec::new(), vec![person(3, None, joints)]);
    let pick = |x, y| pick_overlay(&result, &solid(), Vec2::new(x, y)).map(|pick| (pick.person, pick.landmark));
    assert_eq!(pick(201.0, 99.0), Some((3, Landmark::Joint(0))));
    assert_eq!(pick(200.0, 200.0), Some((3, Landmark::Joint(2))), "the nearer of two");
    assert_eq!(pick(240.0, 150.0), None);
}

// ---------------------------------------------------------------------------------------------------- loss

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

// ---------------------------------------------------------------------------------------------------- to look at

/// Rods with round ends between joints of a standing figure, 1.75 m tall, its soles at y = 0: vertices and faces.
fn figure(wave_rad: f32) -> (Vec<Vec3>, Vec<[u32; 3]>, Vec<Vec3>) {
    let (unit, unit_faces) = globe(16, 24);
    let (mut vertices, mut faces) = (Vec::new(), Vec::new());
    let mut rod = |a: Vec3, b: Vec3, ra: f32, rb: f32| {
        let turn = Quat::from_rotation_arc(Vec3::Y, (b - a).normalize_or(Vec3::Y));
        let base = vertices.len() as u32;
        vertices.extend(unit.iter().map(|v| if v.y > 0.0 { b + turn * *v * rb } else { a + turn * *v * ra }));
        faces.extend(unit_faces.iter().map(|face| face.map(|i| i + base)));
    };
    let p = |x: f32, up: f32, z: f32| Vec3::new(x, -up, z);
    let (pelvis, chest, neck, head) = (p(0.0, 0.95, 0.0), p(0.0, 1.28, 0.01), p(0.0, 1.47, 0.0), p(0.0, 1.62, -0.02));
    rod(pelvis, chest, 0.145, 0.15);
    rod(chest, neck, 0.14, 0.06);
    rod(neck, head, 0.05, 0.05);
    rod(p(0.0, 1.6, -0.02), p(0.0, 1.66, -0.02), 0.085, 0.095);
    let mut joints = vec![pelvis, chest, neck, head];
    for side in [-1.0, 1.0] {
        let (hip, knee, ankle) = (p(0.1 * side, 0.9, 0.0), p(0.12 * side, 0.5, -0.03), p(0.13 * side, 0.08, 0.02));
        rod(hip, knee, 0.085, 0.055);
        rod(knee, ankle, 0.055, 0.04);
        rod(p(0.13 * side, 0.04, 0.03), p(0.15 * side, 0.035, -0.15), 0.04, 0.035);
        let shoulder = p(0.18 * side, 1.42, 0.0);
        let lift = if side > 0.0 { wave_rad } else { 0.25 };
        let elbow = shoulder + 0.29 * Vec3::new(side * lift.sin(), lift.cos(), 0.0);
        let bend = lift * 1.7;
        let wrist = elbow + 0.26 * Vec3::new(side * bend.sin(), bend.cos(), -0.25).normalize();
        rod(chest + Vec3::new(0.0, -0.1, 0.0), shoulder, 0.07, 0.06);
        rod(shoulder, elbow, 0.055, 0.042);
        rod(elbow, wrist, 0.042, 0.03);
        rod(wrist, wrist + (wrist - elbow) * 0.4, 0.035, 0.03);
        joints.extend([hip, knee, ankle, shoulder, elbow, wrist]);
    }
    (vertices, faces, joints)
}

/// A room of people: id, place, turn.
fn crowd(size: [u32; 2], people: &[(u32, Vec3, f32)]) -> Arc<FrameResult> {
    let [w, h] = size;
    let rgb = RgbImage::from_fn(w, h, |x, y| {
        let (u, v) = (x as f32 / w as f32, y as f32 / h as f32);
        if v < 0.62 {
            let panel = if (u * 6.0).fract() < 0.03 { 20.0 } else { 0.0 };
            Rgb([196.0 - 60.0 * u - panel, 190.0 - 50.0 * u - panel, 178.0 - 30.0 * v - panel].map(|c| c as u8))
        } else {
            let depth = 1.0 / (v - 0.55);
            let tile = ((u - 0.5) * depth * 3.0).floor() + (depth * 2.0).floor();
            let c = if tile as i32 % 2 == 0 { 96 } else { 118 };
            Rgb([c, c - 8, c - 16])
        }
    });
    let k = Intrinsics::with_focal(w as f32 * 0.9, w, h);
    let mut faces = Vec::new();
    let people = people.iter().enumerate().map(|(i, &(id, place, turn))| {
        let (vertices, own_faces, joints) = figure(0.7 + 0.5 * i as f32);
        faces = own_faces;
        let set = |p: Vec3| place + Quat::from_rotation_y(turn) * p;
        let mut mesh = mesh(vertices.into_iter().map(set).collect());
        for (spread, v) in mesh.spread_lixel.iter_mut().zip(&mesh.vertices_camera_m) {
            *spread = Vec3::splat(0.4 + 3.0 * (v - place).with_y(0.0).length().powi(2) * 4.0);
        }
        let mut person = person(id, Some(mesh), joints.into_iter().map(set).collect());
        let vertices = &person.mesh.as_ref().unwrap().vertices_camera_m;
        person.rect = RectPx::around(vertices.iter().map(|v| k.frame_from_camera(*v))).unwrap();
        person
    });
    let people: Vec<_> = people.collect();
    let mut result = Arc::unwrap_or_clone(result_on(rgb, k, faces, people));
    let legs = |first: usize| [Some(0), Some(first), Some(first + 1), Some(1), Some(first + 3), Some(first + 4)];
    let parents = [None, Some(0), Some(1), Some(2)].into_iter().chain(legs(4)).chain(legs(10)).collect();
    result.skeleton = Arc::new(Skeleton { names: vec![String::new(); 16], parents });
    Arc::new(result)
}

fn three() -> [(u32, Vec3, f32); 3] {
    [(0, Vec3::new(-0.35, 1.0, 2.9), 0.3), (1, Vec3::new(0.1, 1.0, 3.4), -0.4), (2, Vec3::new(0.9, 1.0, 4.2), 0.9)]
}

#[test]
#[ignore = "writes pictures to look at, and says where"]
fn pictures_to_look_at() {
    let folder = tempfile::Builder::new().prefix("lixelscope-render-").tempdir().unwrap().keep();
    let result = crowd([1280, 720], &three());
    let selected = Some((1, Landmark::Vertex(2_000)));
    let views = [
        ("default", DrawOptions::default()),
        ("solid_boxes", DrawOptions { boxes: true, selected, ..solid() }),
        ("half", DrawOptions { alpha: 0.5, ..DrawOptions::default() }),
        ("joints", DrawOptions { joints: true, alpha: 0.6, ..DrawOptions::default() }),
        ("skeletons", DrawOptions { joints: true, mesh: false, ..DrawOptions::default() }),
        ("wireframe", DrawOptions { wireframe: true, ..DrawOptions::default() }),
        ("edges", DrawOptions { wireframe: true, mesh: false, ..DrawOptions::default() }),
        ("spread", DrawOptions { colour: MeshColour::Spread, ..DrawOptions::default() }),
    ];
    let mut camera = OrbitCamera::default();
    camera.fit(&result, 1.25);
    for samples in [1, 4] {
        let mut renderer = OffscreenRenderer::with_samples(GPU.clone(), samples).unwrap();
        for (name, options) in &views {
            let overlay = renderer.overlay(&result, options).unwrap();
            overlay.save(folder.join(format!("overlay_{name}_{samples}x.png"))).unwrap();
            let orbit = renderer.orbit(&result, options, [1000, 800], &camera).unwrap();
            orbit.save(folder.join(format!("orbit_{name}_{samples}x.png"))).unwrap();
        }
        let mut below = camera;
        below.pitch_rad = -0.2;
        below.yaw_rad = -2.4;
        below.zoom(0.6);
        let picture = renderer.orbit(&result, &solid(), [1000, 800], &below).unwrap();
        picture.save(folder.join(format!("orbit_from_below_{samples}x.png"))).unwrap();
    }
    println!("look at {}", folder.display());
}

/// Time that the process has spent on all processors, where the system says: on a busy machine it tells more than a
/// clock.
fn cpu_ms() -> Option<f32> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // After the name, which may contain spaces: state is field 3; user and system time, in ticks of 10 ms, 14 and 15.
    let fields: Vec<_> = stat.rsplit(')').next()?.split_whitespace().collect();
    Some(10.0 * (fields.get(11)?.parse::<f32>().ok()? + fields.get(12)?.parse::<f32>().ok()?))
}

#[test]
#[ignore = "takes times, and says them"]
fn times_to_read() {
    println!("{}", GPU.describe());
    // 6,890 vertices, as SMPL has: 86 rings of 80, and two poles, less ten.
    let (unit, faces) = globe(83, 84);
    println!("{} vertices, {} faces a mesh", unit.len(), faces.len());
    for samples in [1, 4] {
        let mut renderer = OffscreenRenderer::with_samples(GPU.clone(), samples).unwrap();
        for count in [0_u32, 1, 4] {
            let people = (0..count).map(|i| {
                let centre = Vec3::new(i as f32 * 0.6 - 0.9, 0.0, 2.5);
                sphere_person(i, centre, 0.5, &unit)
            });
            let rgb = noise(1280, 720);
            let k = Intrinsics::with_focal(1000.0, 1280, 720);
            let first = result_on(rgb, k, faces.clone(), people.collect());
            for (name, options) in [("solid", solid()), ("alpha 0.85", DrawOptions::default())] {
                let cpu = cpu_ms();
                let mut ms: Vec<f32> = (0..20)
                    .map(|_| {
                        // Another frame each time, as live.
                        let mut result = (*first).clone();
                        result.frame = Arc::new((*first.frame).clone());
                        let result = Arc::new(result);
                        let start = Instant::now();
                        renderer.overlay(&result, &options).unwrap();
                        start.elapsed().as_secs_f32() * 1e3
                    })
                    .collect();
                ms.sort_by(f32::total_cmp);
                let cpu = cpu.zip(cpu_ms()).map_or(f32::NAN, |(before, after)| (after - before) / 20.0);
                println!(
                    "{samples} samples, {count} meshes, {name}: median {:.1} ms, {cpu:.1} ms of processors, with \
                     upload and read-back",
                    ms[10]
                );
            }
        }
    }
}
