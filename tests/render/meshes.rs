//! Meshes: coverage, colour, occlusion, one layer, broken input.

use std::collections::BTreeSet;

use glam::{Vec2, Vec3};
use image::RgbImage;
use lixelscope::render::{DrawOptions, MeshColour, person_colour};
use lixelscope::result::{Landmark, Person};

use crate::scenes::*;

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
        unsure.mesh.as_mut().unwrap().spread_lixel = vec![Vec3::new(spread, 0.0, 0.0); 4].into();
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
