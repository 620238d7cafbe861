//! Posed far and shaped far, the skin does not turn inside out, and hardly runs into itself.

use glam::{DVec3, Mat3, Quat, Vec3};
use lixelscope::body::BodyModel;
use lixelscope::body::standin::StandIn;
use rayon::prelude::*;

use crate::{BODY, BODY_MODEL, HAND, HAND_MODEL, winding};

/// Joint and axis-angle in degrees.
type Turns = &'static [(usize, [f32; 3])];

const BODY_POSES: [(&str, Turns); 8] = [
    ("at ease", &[(16, [0., 0., -75.]), (17, [0., 0., 75.]), (18, [0., -15., 0.]), (19, [0., 15., 0.])]),
    ("arms up", &[(13, [0., 0., 20.]), (14, [0., 0., -20.]), (16, [0., 0., 65.]), (17, [0., 0., -65.])]),
    (
        "squat",
        &[
            (1, [-100., 20., 8.]),
            (2, [-100., -20., -8.]),
            (4, [120., 0., 0.]),
            (5, [120., 0., 0.]),
            (7, [-25., 0., 0.]),
            (8, [-25., 0., 0.]),
            (3, [20., 0., 0.]),
            (16, [0., -80., -10.]),
            (17, [0., 80., 10.]),
        ],
    ),
    (
        "sit",
        &[
            (1, [-90., 0., 0.]),
            (2, [-90., 0., 0.]),
            (4, [90., 0., 0.]),
            (5, [90., 0., 0.]),
            (16, [0., -10., -70.]),
            (17, [0., 10., 70.]),
            (18, [0., -80., 0.]),
            (19, [0., 80., 0.]),
        ],
    ),
    (
        "arms crossed",
        &[
            (13, [0., -10., -5.]),
            (14, [0., 10., 5.]),
            (16, [0., -45., -60.]),
            (17, [0., 45., 60.]),
            (18, [0., -110., 10.]),
            (19, [0., 110., -10.]),
        ],
    ),
    (
        "run",
        &[
            (1, [-70., 0., 0.]),
            (4, [100., 0., 0.]),
            (2, [25., 0., 0.]),
            (5, [50., 0., 0.]),
            (8, [25., 0., 0.]),
            (3, [10., 0., 0.]),
            (6, [8., 20., 0.]),
            (16, [30., 0., -70.]),
            (17, [-40., 0., 70.]),
            (18, [0., -90., 0.]),
            (19, [0., 90., 0.]),
        ],
    ),
    (
        "wave",
        &[(16, [0., 0., -70.]), (17, [0., 0., -20.]), (19, [0., 0., -100.]), (12, [0., 20., 0.]), (15, [0., 30., 5.])],
    ),
    (
        "reach down",
        &[
            (3, [30., 0., 0.]),
            (6, [20., 0., 0.]),
            (9, [10., 0., 0.]),
            (16, [0., -70., -20.]),
            (17, [0., 70., 20.]),
            (12, [-20., 0., 0.]),
            (1, [-20., 0., 0.]),
            (2, [-20., 0., 0.]),
        ],
    ),
];

fn pose_of(turns: &[(usize, [f32; 3])], joints: usize) -> Vec<Vec3> {
    let mut pose = vec![Vec3::ZERO; joints];
    for &(joint, degrees) in turns {
        pose[joint] = Vec3::from_array(degrees.map(f32::to_radians));
    }
    pose
}

fn normals(vertices: &[Vec3], faces: &[[u32; 3]]) -> Vec<Vec3> {
    let normal = |face: &[u32; 3]| {
        let [a, b, c] = face.map(|v| vertices[v as usize]);
        (b - a).cross(c - a).normalize_or_zero()
    };
    faces.iter().map(normal).collect()
}

/// Faces that look against where their joints have turned them.
fn flipped_faces(stand_in: &StandIn, model: &BodyModel, pose: &[Vec3], shape: &[f32]) -> usize {
    let posed = model.pose(pose, shape, Vec3::ZERO).unwrap();
    let mut orientation: Vec<Mat3> = Vec::new();
    for (turn, parent) in pose.iter().zip(&stand_in.parents) {
        let turn = Mat3::from_quat(Quat::from_scaled_axis(*turn));
        orientation.push(parent.map_or(turn, |parent| orientation[parent] * turn));
    }
    let rest = normals(model.template_m(), &stand_in.faces);
    let now = normals(&posed.vertices_m, &stand_in.faces);
    let is_flipped = |f: &usize| {
        let influences = stand_in.faces[*f].iter().flat_map(|&v| stand_in.influences[v as usize]);
        let expected: Vec3 = influences.map(|(joint, weight)| orientation[joint] * rest[*f] * weight as f32).sum();
        now[*f].dot(expected) <= 0.0
    };
    (0..stand_in.faces.len()).filter(is_flipped).count()
}

/// Share of the vertices that are inside of another part of the body: a millimetre before them the mesh winds around.
fn buried_share(stand_in: &StandIn, vertices: &[Vec3]) -> f64 {
    let face_normals = normals(vertices, &stand_in.faces);
    let mut vertex_normals = vec![Vec3::ZERO; vertices.len()];
    for (face, normal) in stand_in.faces.iter().zip(&face_normals) {
        for &v in face {
            vertex_normals[v as usize] += *normal;
        }
    }
    let exact: Vec<DVec3> = vertices.iter().map(|p| p.as_dvec3()).collect();
    let sample: Vec<usize> = (0..vertices.len()).step_by(5).collect();
    let is_buried = |v: &&usize| {
        let before = exact[**v] + vertex_normals[**v].as_dvec3().normalize_or_zero() * 1e-3;
        winding(&exact, &stand_in.faces, before) > 0.5
    };
    sample.par_iter().filter(is_buried).count() as f64 / sample.len() as f64
}

#[test]
fn no_face_flips_in_extreme_poses() {
    for (name, turns) in BODY_POSES {
        assert_eq!(flipped_faces(&BODY, &BODY_MODEL, &pose_of(turns, 24), &[]), 0, "{name}");
    }
}

#[test]
fn no_face_flips_in_extreme_shapes() {
    for component in 0..10 {
        for beta in [-3.0, 3.0] {
            let mut shape = [0.0; 10];
            shape[component] = beta;
            let name = BODY.shape_names[component];
            assert_eq!(flipped_faces(&BODY, &BODY_MODEL, &[Vec3::ZERO; 24], &shape), 0, "{name} {beta}");
            let name = HAND.shape_names[component];
            assert_eq!(flipped_faces(&HAND, &HAND_MODEL, &[Vec3::ZERO; 16], &shape), 0, "{name} {beta}");
        }
    }
    // All at once, with signs from the bits of a counter.
    for signs in 0..64u32 {
        let shape: [f32; 10] = std::array::from_fn(|c| if (signs * 37) >> c & 1 == 1 { 2.0 } else { -2.0 });
        assert_eq!(flipped_faces(&BODY, &BODY_MODEL, &[Vec3::ZERO; 24], &shape), 0, "{shape:?}");
    }
}

#[test]
fn extreme_shapes_can_be_posed() {
    for (name, turns) in BODY_POSES {
        for component in 0..10 {
            for beta in [-3.0, 3.0] {
                let mut shape = [0.0; 10];
                shape[component] = beta;
                let flipped = flipped_faces(&BODY, &BODY_MODEL, &pose_of(turns, 24), &shape);
                // The groin and the hollow of the knee of a heavy body that squats are pressed flat: four in a thousand.
                assert!(flipped <= 22, "{name}, {} {beta}: {flipped} faces", BODY.shape_names[component]);
            }
        }
    }
}

#[test]
fn the_body_hardly_runs_into_itself() {
    assert_eq!(buried_share(&BODY, BODY_MODEL.template_m()), 0.0);
    assert_eq!(buried_share(&HAND, HAND_MODEL.template_m()), 0.0);
    for (name, turns) in BODY_POSES {
        let posed = BODY_MODEL.pose(&pose_of(turns, 24), &[], Vec3::ZERO).unwrap();
        let share = buried_share(&BODY, &posed.vertices_m);
        // Calf against thigh in a squat, wrists that cross.
        assert!(share < 0.03, "{name}: {share} of the vertices are inside");
    }
}

#[test]
fn fingers_close_to_a_fist() {
    let mut fist = vec![Vec3::ZERO; 16];
    for turn in &mut fist[1..13] {
        turn.z = 65f32.to_radians();
    }
    assert_eq!(flipped_faces(&HAND, &HAND_MODEL, &fist, &[]), 0);
    let open = HAND_MODEL.pose(&[Vec3::ZERO; 16], &[], Vec3::ZERO).unwrap();
    let closed = HAND_MODEL.pose(&fist, &[], Vec3::ZERO).unwrap();
    let names = &HAND_MODEL.topology().skeleton.names;
    for finger in ["index_tip", "middle_tip", "ring_tip", "pinky_tip"] {
        let tip = names.iter().position(|name| name == finger).unwrap();
        let to_wrist = |joints: &[Vec3]| (joints[tip] - joints[0]).length();
        assert!(to_wrist(&closed.joints_m) < 0.6 * to_wrist(&open.joints_m), "{finger}");
        // Towards the palm, which looks down.
        assert!(closed.joints_m[tip].y < open.joints_m[tip].y - 0.01, "{finger}");
    }
}
