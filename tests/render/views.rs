//! Strokes, the orbit view, and picking.

use std::collections::BTreeSet;
use std::sync::Arc;

use glam::{Vec2, Vec3};
use image::{Rgb, RgbImage};
use lixelscope::render::{DrawOptions, OrbitCamera, Pick, pick_orbit, pick_overlay};
use lixelscope::result::{Landmark, Skeleton};

use crate::scenes::*;

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
