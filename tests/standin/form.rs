//! It has the form of a person, and joints where a person has them.

use glam::{DVec3, Vec3};
use lixelscope::body::standin::StandIn;

use crate::{BODY, BODY_MODEL, HAND, HAND_MODEL, shaped, winding};

fn bounds(points: &[DVec3]) -> (DVec3, DVec3) {
    points.iter().fold((DVec3::INFINITY, DVec3::NEG_INFINITY), |(lo, hi), &p| (lo.min(p), hi.max(p)))
}

/// A joint of the body by its name, at rest.
fn joint(name: &str) -> DVec3 {
    let skeleton = &BODY_MODEL.topology().skeleton;
    let index = skeleton.names.iter().position(|n| n == name).unwrap();
    BODY_MODEL.topology().joints(BODY_MODEL.template_m()).unwrap()[index].as_dvec3()
}

#[test]
fn proportions_are_human() {
    let (lo, hi) = bounds(&BODY.vertices_m);
    let size = hi - lo;
    assert!((size.y - 1.72).abs() < 0.01, "height {}", size.y);
    assert!((size.x / size.y - 1.0).abs() < 0.03, "span {} for a height of {}", size.x, size.y);
    let above_ground = |name: &str| joint(name).y - lo.y;
    // Published proportions by body height: hip 0.53, knee 0.285, ankle 0.039, shoulder 0.82 (Winter).
    for (name, share) in [("left_hip", 0.515), ("left_knee", 0.285), ("left_ankle", 0.042), ("left_shoulder", 0.815)] {
        let found = above_ground(name) / size.y;
        assert!((found - share).abs() < 0.015, "{name} at {found} of the height");
    }
    let length = |a: &str, b: &str| (joint(a) - joint(b)).length() / size.y;
    // Upper arm 0.15 to 0.19, forearm 0.14 to 0.16, thigh and shank about 0.24.
    assert!((0.14..0.19).contains(&length("left_shoulder", "left_elbow")));
    assert!((0.13..0.165).contains(&length("left_elbow", "left_wrist")));
    assert!((0.21..0.26).contains(&length("left_hip", "left_knee")));
    assert!((0.21..0.26).contains(&length("left_knee", "left_ankle")));
    assert!((0.18..0.24).contains(&length("left_shoulder", "right_shoulder")));
}

#[test]
fn axes_are_smpls() {
    // The left hand at +x, the face, the toes and the thumbs towards +z, the origin above the pelvis.
    assert!(joint("left_wrist").x > 0.6 && joint("right_wrist").x < -0.6);
    assert!(joint("left_foot").z > joint("left_ankle").z + 0.08);
    assert!(joint("pelvis").y < -0.15 && joint("pelvis").x.abs() < 1e-6);
    let [nose, left_eye, right_eye, left_ear, right_ear] =
        ["nose", "left_eye", "right_eye", "left_ear", "right_ear"].map(joint);
    let head = BODY.vertices_m.iter().filter(|p| p.y > joint("neck").y + 0.03);
    let foremost = head.fold(DVec3::NEG_INFINITY, |a, &b| if b.z > a.z { b } else { a });
    assert!((nose - foremost).length() < 0.01, "the nose is the foremost point of the head");
    assert!(left_eye.x > 0.02 && right_eye.x < -0.02 && left_eye.y > nose.y);
    assert!(left_ear.x > left_eye.x + 0.03 && right_ear.x < -0.07 && left_ear.z < left_eye.z - 0.05);

    // The right hand's fingers run along -x, its thumb is forward.
    let tip = |i: usize| HAND.vertices_m[HAND.landmarks[i] as usize];
    let wrist = HAND.joints_m()[0];
    let [thumb, index, middle, ring, little] = [0, 1, 2, 3, 4].map(tip);
    assert!((0.17..0.21).contains(&(wrist.x - middle.x)), "from wrist to finger tip {}", wrist.x - middle.x);
    assert!(thumb.z > index.z && index.z > middle.z && middle.z > ring.z && ring.z > little.z);
    assert!([thumb, index, ring, little].iter().all(|tip| tip.x > middle.x));
}

#[test]
fn skeletons_are_those_of_smpl_and_mano() {
    let names = &BODY_MODEL.topology().skeleton.names;
    assert_eq!((names.len(), names[0].as_str(), names[24].as_str()), (29, "pelvis", "nose"));
    let names = &HAND_MODEL.topology().skeleton.names;
    assert_eq!((names.len(), names[0].as_str(), names[4].as_str()), (21, "wrist", "thumb_tip"));
    let parents = |parents: &[Option<usize>]| parents.iter().map(|p| p.map_or(-1, |p| p as i32)).collect::<Vec<_>>();
    assert_eq!(
        parents(&BODY.parents),
        [-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21]
    );
    assert_eq!(parents(&HAND.parents), [-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 0, 10, 11, 0, 13, 14]);
}

#[test]
fn regressors_are_positive_sparse_and_agree_with_the_rest_pose() {
    for (stand_in, model) in [(&*BODY, &*BODY_MODEL), (&*HAND, &*HAND_MODEL)] {
        for row in &stand_in.regressor {
            assert!((row.iter().map(|e| e.1).sum::<f64>() - 1.0).abs() < 1e-9);
            assert!(row.iter().all(|e| e.1 > 0.0) && row.len() < 80);
        }
        let pose = vec![Vec3::ZERO; stand_in.parents.len()];
        let rest = model.pose(&pose, &[], Vec3::ZERO).unwrap();
        let regressed = model.topology().joints(&rest.vertices_m).unwrap();
        for (a, b) in regressed.iter().zip(&rest.joints_m) {
            // Single precision of coordinates around 1 m.
            assert!((*a - *b).length() < 1e-5, "{a} {b}");
        }
    }
}

#[test]
fn joints_stay_inside_of_every_shape() {
    for stand_in in [&*BODY, &*HAND] {
        let mut shapes = vec![[0.0; 10]];
        for component in 0..10 {
            for beta in [-3.0, 3.0] {
                let mut shape = [0.0; 10];
                shape[component] = beta;
                shapes.push(shape);
            }
        }
        for shape in shapes {
            let vertices = shaped(stand_in, &shape);
            for (j, joint) in joints(stand_in, &vertices).into_iter().enumerate() {
                let around = winding(&vertices, &stand_in.faces, joint);
                assert!((around - 1.0).abs() < 1e-3, "joint {j} of shape {shape:?} is outside");
            }
        }
    }
}

fn joints(stand_in: &StandIn, vertices: &[DVec3]) -> Vec<DVec3> {
    let joint = |row: &Vec<(u32, f64)>| row.iter().map(|&(v, w)| vertices[v as usize] * w).sum();
    stand_in.regressor.iter().map(joint).collect()
}

#[test]
fn shape_components_do_what_their_names_say() {
    let measure = |component: &str, of: &dyn Fn(&[DVec3], &[DVec3]) -> f64| {
        let c = BODY.shape_names.iter().position(|name| *name == component).unwrap();
        [-1.0, 1.0].map(|beta| {
            let mut shape = [0.0; 10];
            shape[c] = beta;
            let vertices = shaped(&BODY, &shape);
            of(&vertices, &joints(&BODY, &vertices))
        })
    };
    let height = |v: &[DVec3], _: &[DVec3]| bounds(v).1.y - bounds(v).0.y;
    let [short, tall] = measure("stature", &height);
    assert!((0.10..0.16).contains(&(tall - short)), "two units of stature are {} m", tall - short);
    let volume = |v: &[DVec3], _: &[DVec3]| {
        BODY.faces.iter().map(|f| f.map(|i| v[i as usize])).map(|[a, b, c]| a.dot(b.cross(c)) / 6.0).sum()
    };
    let [thin, heavy] = measure("weight", &volume);
    assert!(heavy / thin > 1.2, "weight changes the volume by {}", heavy / thin);
    let between = |a: usize, b: usize| move |_: &[DVec3], j: &[DVec3]| (j[a] - j[b]).length();
    for (component, a, b, least) in [
        ("leg length", 1, 7, 0.04),
        ("shoulder width", 16, 17, 0.03),
        ("hip width", 1, 2, 0.01),
        ("arm length", 16, 20, 0.03),
    ] {
        let [less, more] = measure(component, &between(a, b));
        assert!(more - less > least, "two units of {component} are {} m", more - less);
    }
    let head = |v: &[DVec3], j: &[DVec3]| bounds(v).1.y - j[15].y;
    let [small, large] = measure("head size", &head);
    assert!(large - small > 0.005);
    for component in ["chest", "belly", "limb thickness"] {
        let [less, more] = measure(component, &volume);
        assert!(more > less * 1.003, "{component}: {less} {more}");
    }
}

#[test]
fn skin_weights_sum_to_one_and_respect_the_gaps_of_the_body() {
    for stand_in in [&*BODY, &*HAND] {
        for influences in &stand_in.influences {
            assert!((influences.iter().map(|i| i.1).sum::<f64>() - 1.0).abs() < 1e-9);
            assert!(influences.iter().all(|i| i.1 >= 0.0 && i.0 < stand_in.parents.len()));
        }
    }
    let moved_by = |v: usize, joints: &[usize]| -> f64 {
        BODY.influences[v].iter().filter(|i| joints.contains(&i.0)).map(|i| i.1).sum()
    };
    let crotch = joint("left_hip").y - 0.09;
    for (v, p) in BODY.vertices_m.iter().enumerate() {
        // No leg hangs on the other one, no flank on the arm, and each hand is its own arm's.
        let other_leg = moved_by(v, if p.x > 0.0 { &[2, 5, 8, 11] } else { &[1, 4, 7, 10] });
        if p.y < crotch && p.x != 0.0 {
            // The skin of the crotch is shared; a hand's breadth below, nothing is.
            assert!(other_leg < if p.y < crotch - 0.12 { 1e-9 } else { 0.35 }, "vertex {v} at {p}: {other_leg}");
        }
        if p.y < joint("left_shoulder").y - 0.2 {
            assert_eq!(moved_by(v, &[16, 17, 18, 19, 20, 21, 22, 23]), 0.0);
        }
        if p.x > 0.8 {
            assert!(moved_by(v, &[20, 22]) > 0.999);
        }
    }
    // The middle of a bone is moved by that bone.
    for (v, p) in BODY.vertices_m.iter().enumerate() {
        for (bone, from, to) in
            [(1, "left_hip", "left_knee"), (4, "left_knee", "left_ankle"), (16, "left_shoulder", "left_elbow")]
        {
            let (a, b) = (joint(from), joint(to));
            let t = (*p - a).dot(b - a) / (b - a).length_squared();
            let near = (*p - (a + (b - a) * t)).length() < 0.12 && p.x > 0.0;
            if near && (0.48..0.52).contains(&t) {
                assert!(moved_by(v, &[bone]) > 0.9, "vertex {v} of bone {bone}");
            }
        }
    }
}
