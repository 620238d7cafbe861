//! Pictures to look at, and times.

use std::sync::Arc;
use std::time::Instant;

use glam::{Quat, Vec3};
use image::{Rgb, RgbImage};
use lixelscope::body::standin;
use lixelscope::render::{DrawOptions, MeshColour, OffscreenRenderer, OrbitCamera};
use lixelscope::result::{FrameResult, Landmark, Skeleton};
use lixelscope::space::{Intrinsics, RectPx};

use crate::scenes::*;

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

/// `cargo test --release --test render turntable -- --ignored` draws the README's picture of the stand-in body and
/// hand, each turned by an eighth from one to the next.
#[test]
#[ignore = "writes a picture of the README"]
fn the_turntable_of_the_readme() {
    const TURNS: usize = 8;
    let bend = |joint: usize, x: f32, y: f32, z: f32| (joint, Vec3::new(x, y, z));
    let walk = [
        bend(1, -0.5, 0.0, 0.0),
        bend(4, 0.25, 0.0, 0.0),
        bend(2, 0.35, 0.0, 0.0),
        bend(5, 0.5, 0.0, 0.0),
        bend(8, 0.3, 0.0, 0.0),
        bend(16, 0.45, 0.0, -1.2),
        bend(17, -0.55, 0.0, 1.2),
        bend(18, 0.0, -0.5, 0.0),
        bend(19, 0.0, 0.6, 0.0),
    ];
    // Fingers up.
    let mut relaxed: Vec<_> = (1..13).map(|joint| bend(joint, 0.0, 0.0, -0.25)).collect();
    relaxed.push(bend(0, 0.0, 0.0, -std::f32::consts::FRAC_PI_2));
    let [body, hand] = [standin::body(), standin::hand()].map(|stand_in| stand_in.unwrap().model().unwrap());
    // Each row: the body, its pose, metres from one to the next, metres to the lower edge.
    let rows = [
        (&body, &[bend(16, 0.0, 0.0, -1.1), bend(17, 0.0, 0.0, 1.1)][..], 1.05, 0.98),
        (&body, &walk[..], 1.05, 0.98),
        (&hand, &relaxed[..], 0.25, 0.125),
    ];
    let mut picture = RgbImage::new(1280, 0);
    for (body, pose, step_m, half_m) in rows {
        let mut pose_rad = vec![Vec3::ZERO; body.pose_joint_count()];
        for &(joint, turn) in pose {
            pose_rad[joint] = turn;
        }
        let posed = body.pose(&pose_rad, &[0.0; 10], Vec3::ZERO).unwrap();
        let (low, high) = posed
            .vertices_m
            .iter()
            .fold((Vec3::INFINITY, Vec3::NEG_INFINITY), |(low, high), &p| (low.min(p), high.max(p)));
        let middle = (low + high) * 0.5;
        let size = [1280, (1280.0 * 2.0 * half_m / (step_m * TURNS as f32)) as u32];
        let distance_m = step_m * TURNS as f32 * 3.0;
        let k = Intrinsics::with_focal(3.0 * size[0] as f32, size[0], size[1]);
        let people = (0..TURNS).map(|i| {
            // From y up to y down, then around the vertical.
            let turn = Quat::from_rotation_y(std::f32::consts::TAU * i as f32 / TURNS as f32)
                * Quat::from_rotation_x(std::f32::consts::PI);
            let place = Vec3::new((i as f32 - (TURNS - 1) as f32 * 0.5) * step_m, 0.0, distance_m);
            let vertices = posed.vertices_m.iter().map(|&p| turn * (p - middle) + place).collect();
            person(4, Some(mesh(vertices)), Vec::new())
        });
        let paper = RgbImage::from_pixel(size[0], size[1], Rgb([236, 236, 232]));
        let result = result_on(paper, k, body.topology().faces.clone(), people.collect());
        let mut renderer = OffscreenRenderer::with_samples(GPU.clone(), 4).unwrap();
        let row = renderer.overlay(&result, &DrawOptions { alpha: 1.0, ..solid() }).unwrap();
        let mut taller = RgbImage::new(1280, picture.height() + row.height());
        image::imageops::replace(&mut taller, &picture, 0, 0);
        image::imageops::replace(&mut taller, &row, 0, i64::from(picture.height()));
        picture = taller;
    }
    picture.save(concat!(env!("CARGO_MANIFEST_DIR"), "/assets/body.png")).unwrap();
}
