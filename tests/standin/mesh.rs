//! Watertight, well shaped, symmetric, and the same on every machine.

use std::collections::HashMap;
use std::time::Instant;

use glam::DVec3;
use lixelscope::body::standin::{self, StandIn};

use crate::{BODY, HAND};

fn both() -> [(&'static str, &'static StandIn); 2] {
    [("body", &BODY), ("hand", &HAND)]
}

#[test]
fn every_edge_joins_two_faces_that_run_along_it_in_opposite_directions() {
    for (name, stand_in) in both() {
        let mut edges: HashMap<[u32; 2], u32> = HashMap::new();
        for &[a, b, c] in &stand_in.faces {
            for edge in [[a, b], [b, c], [c, a]] {
                *edges.entry(edge).or_default() += 1;
            }
        }
        for ([a, b], count) in &edges {
            assert_eq!((*count, edges.get(&[*b, *a])), (1, Some(&1)), "{name}: edge {a}-{b}");
        }
        let used: std::collections::BTreeSet<u32> = stand_in.faces.iter().flatten().copied().collect();
        assert_eq!(used.len(), stand_in.vertices_m.len(), "{name}: vertices without a face");
        // One closed surface without handles.
        let euler = used.len() as i64 - edges.len() as i64 / 2 + stand_in.faces.len() as i64;
        assert_eq!(euler, 2, "{name}");
        // A vertex whose faces do not form a single fan would be two vertices in one place.
        let mut next: Vec<HashMap<u32, u32>> = vec![HashMap::new(); used.len()];
        for &[a, b, c] in &stand_in.faces {
            for [v, from, to] in [[a, b, c], [b, c, a], [c, a, b]] {
                next[v as usize].insert(from, to);
            }
        }
        for (v, next) in next.iter().enumerate() {
            let start = *next.keys().next().unwrap();
            let fan = std::iter::successors(Some(next[&start]), |u| next.get(u).copied()).position(|u| u == start);
            assert_eq!(fan.map(|n| n + 1), Some(next.len()), "{name}: vertex {v} has two fans");
        }
    }
}

#[test]
fn faces_look_outward_and_enclose_a_human_volume() {
    let litres = |stand_in: &StandIn| {
        let volume = |face: &[u32; 3]| {
            let [a, b, c] = face.map(|v| stand_in.vertices_m[v as usize]);
            a.dot(b.cross(c)) / 6.0
        };
        stand_in.faces.iter().map(volume).sum::<f64>() * 1000.0
    };
    // A person of 1.72 m weighs 55 to 80 kg and has nearly the density of water; a hand without its arm 0.3 to 0.5 kg.
    assert!((55.0..80.0).contains(&litres(&BODY)), "{} litres", litres(&BODY));
    assert!((0.3..0.6).contains(&litres(&HAND)), "{} litres", litres(&HAND));
}

#[test]
fn triangles_are_near_equilateral() {
    for (name, stand_in) in both() {
        let quality = |face: &[u32; 3]| {
            let [a, b, c] = face.map(|v| stand_in.vertices_m[v as usize]);
            let area = (b - a).cross(c - a).length() / 2.0;
            4.0 * 3f64.sqrt() * area / ((b - a).length_squared() + (c - b).length_squared() + (a - c).length_squared())
        };
        let mut qualities: Vec<f64> = stand_in.faces.iter().map(quality).collect();
        qualities.sort_by(f64::total_cmp);
        // 1 is equilateral; 0.5 has an angle of about 17 degrees.
        let (worst, hundredth, median) =
            (qualities[0], qualities[qualities.len() / 100], qualities[qualities.len() / 2]);
        assert!(worst > 0.5 && hundredth > 0.78 && median > 0.97, "{name}: {worst} {hundredth} {median}");
    }
}

/// FNV-1a over the bits of all that a network's output is bound to.
fn fingerprint(stand_in: &StandIn) -> u64 {
    let vertices = stand_in.vertices_m.iter().flat_map(|p| p.to_array().map(f64::to_bits));
    let faces = stand_in.faces.iter().flatten().map(|&v| u64::from(v));
    let regressor = stand_in.regressor.iter().flatten().flat_map(|&(v, w)| [u64::from(v), w.to_bits()]);
    let skin = stand_in.influences.iter().flatten().flat_map(|&(j, w)| [j as u64, w.to_bits()]);
    let shapes = stand_in.shapes.iter().flatten().flat_map(|d| d.to_array().map(f64::to_bits));
    let words = vertices.chain(faces).chain(regressor).chain(skin).chain(shapes);
    words
        .flat_map(u64::to_le_bytes)
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Trained weights say where vertex number so-and-so is, so the meshes must be the same to the bit on every machine and in
/// every version. Whoever changes these numbers must train anew.
#[test]
fn the_meshes_are_those_that_weights_are_trained_for() {
    assert_eq!((BODY.vertices_m.len(), BODY.faces.len()), (2843, 5682));
    assert_eq!((HAND.vertices_m.len(), HAND.faces.len()), (699, 1394));
    let fingerprints = [fingerprint(&BODY), fingerprint(&HAND)];
    assert_eq!(fingerprints, [0x9550_6177_34c9_5084, 0x97f8_c08b_8d50_fc77], "{fingerprints:#018x?}");
}

#[test]
fn made_twice_they_are_equal_and_soon_there() {
    let mut fastest = f64::INFINITY;
    for _ in 0..3 {
        let start = Instant::now();
        let again = (standin::body().unwrap(), standin::hand().unwrap());
        fastest = fastest.min(start.elapsed().as_secs_f64());
        assert!(again == (BODY.clone(), HAND.clone()));
    }
    // About 0.4 s for both on two idle cores; the bound leaves room for machines that are busy with other tests.
    assert!(fastest < 3.0, "{fastest} s");
}

/// SMPL's joint on the other side.
const MIRRORED_JOINT: [usize; 24] =
    [0, 2, 1, 3, 5, 4, 6, 8, 7, 9, 11, 10, 12, 14, 13, 15, 17, 16, 19, 18, 21, 20, 23, 22];

#[test]
fn the_right_side_of_the_body_mirrors_the_left() {
    let other = &BODY.mirrored_vertex;
    let mirror = |p: DVec3| DVec3::new(-p.x, p.y, p.z);
    let mut middle = 0;
    for (v, &m) in other.iter().enumerate() {
        assert_eq!(other[m as usize], v as u32);
        middle += u32::from(m == v as u32);
        assert!((BODY.vertices_m[m as usize] - mirror(BODY.vertices_m[v])).length() < 1e-6);
        for c in 0..10 {
            let (here, there) = (BODY.shapes[v][c], BODY.shapes[m as usize][c]);
            assert!((there - mirror(here)).length() < 1e-6, "{}", BODY.shape_names[c]);
        }
    }
    // There is a middle, and it is a small part.
    assert!((50..200).contains(&middle), "{middle}");
    let faces: std::collections::HashSet<[u32; 3]> = BODY.faces.iter().copied().map(rotated).collect();
    for &[a, b, c] in &BODY.faces {
        let image = [a, c, b].map(|v| other[v as usize]);
        assert!(faces.contains(&rotated(image)), "the face {a} {b} {c} has no image");
    }
    // The joints' weights too: left and right joints follow one another, except for those of the middle.
    for (v, &m) in other.iter().enumerate() {
        let weight =
            |v: usize, joint: usize| -> f64 { BODY.influences[v].iter().filter(|i| i.0 == joint).map(|i| i.1).sum() };
        for (joint, &image) in MIRRORED_JOINT.iter().enumerate() {
            assert!((weight(v, joint) - weight(m as usize, image)).abs() < 1e-6, "vertex {v}, joint {joint}");
        }
    }
}

/// The same face, starting with its smallest vertex.
fn rotated([a, b, c]: [u32; 3]) -> [u32; 3] {
    match a.min(b).min(c) {
        m if m == a => [a, b, c],
        m if m == b => [b, c, a],
        _ => [c, a, b],
    }
}
