//! Synthetic people and hands: the truth is what is drawn, one seed is one scene, and the scenes vary.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use glam::{Quat, Vec2, Vec3};
use lixelscope::body::Family;
use lixelscope::capture::{self, Frame, Next};
use lixelscope::eval::live;
use lixelscope::pipeline::Stages;
use lixelscope::result::{FrameResult, RootSource};
use lixelscope::settings::{Settings, SourceSpec};
use lixelscope::synth::dataset::{self, Order};
use lixelscope::synth::{DISTANCES_M, HAND_DEPTHS_M, Kind, Photo, Scene, Studio};
use lixelscope::truth::{TruePerson, Truth};
use rayon::prelude::*;

static STUDIO: LazyLock<Arc<Studio>> = LazyLock::new(|| Studio::new().unwrap());
static HANDS: LazyLock<Arc<Studio>> = LazyLock::new(|| Studio::of(Family::Mano).unwrap());

/// To be called before a parallel loop: making the studio inside of one would wait for the loop's own threads.
fn studio() -> &'static Arc<Studio> {
    &STUDIO
}

fn studio_of(kind: Kind) -> &'static Arc<Studio> {
    if kind == Kind::Hands { &HANDS } else { &STUDIO }
}

const KINDS: [Kind; 3] = [Kind::Scenes, Kind::Postures, Kind::Poses];
const ALL: [Kind; 4] = [Kind::Scenes, Kind::Postures, Kind::Poses, Kind::Hands];
const SIZE: [u32; 2] = [160, 120];

fn samples(kind: Kind, count: u64) -> Vec<Photo> {
    let studio = studio_of(kind);
    (0..count).into_par_iter().map(|seed| studio.sample(kind, seed, SIZE).unwrap()).collect()
}

fn fingerprint(photo: &Photo) -> u64 {
    let mut hasher = DefaultHasher::new();
    photo.rgb.as_raw().hash(&mut hasher);
    photo.truth.owner.hash(&mut hasher);
    for p in photo.truth.people.iter().flat_map(|person| &person.vertices_camera_m) {
        p.to_array().map(f32::to_bits).hash(&mut hasher);
    }
    hasher.finish()
}

/// How far a point is inside a triangle, in pixels; negative outside.
fn depth_inside(p: Vec2, [a, b, c]: [Vec2; 3]) -> f32 {
    let turn = (b - a).perp_dot(c - a).signum();
    let side = |from: Vec2, to: Vec2| turn * (to - from).normalize_or_zero().perp_dot(p - from);
    side(a, b).min(side(b, c)).min(side(c, a))
}

/// For each pixel how far inside of the person's silhouette it is, by the best of all triangles; from nothing but the
/// vertices and the camera: the slow, plain way.
fn silhouette(truth: &Truth, person: usize) -> Vec<f32> {
    let [width, height] = truth.size;
    let projected: Vec<Vec2> =
        truth.people[person].vertices_camera_m.iter().map(|&p| truth.intrinsics.frame_from_camera(p)).collect();
    let mut inside = vec![f32::NEG_INFINITY; (width * height) as usize];
    for face in &truth.topology.faces {
        let corners = face.map(|v| projected[v as usize]);
        let min = (corners[0].min(corners[1]).min(corners[2]) - 0.1).max(Vec2::ZERO);
        let max = (corners[0].max(corners[1]).max(corners[2]) + 0.1).min(Vec2::new(width as f32, height as f32) - 1.0);
        for y in min.y.ceil() as u32..(max.y.floor() + 1.0).max(0.0) as u32 {
            for x in min.x.ceil() as u32..(max.x.floor() + 1.0).max(0.0) as u32 {
                let best = &mut inside[(y * width + x) as usize];
                *best = best.max(depth_inside(Vec2::new(x as f32, y as f32), corners));
            }
        }
    }
    inside
}

#[test]
fn the_mask_covers_what_projection_says() {
    let mut pixels = 0;
    for kind in ALL {
        for photo in samples(kind, 20) {
            let truth = &photo.truth;
            for who in 0..truth.people.len() {
                let near = truth.people[who].vertices_camera_m.iter().any(|p| p.z < 0.12);
                let expected = silhouette(truth, who);
                let drawn: Vec<bool> = truth.covered.iter().map(|&c| c >> who & 1 == 1).collect();
                // A hundredth of a pixel is what single precision leaves of positions of a few hundred pixels.
                for (at, (inside, drawn)) in expected.iter().zip(&drawn).enumerate() {
                    assert!(near || *drawn || *inside < 0.01, "pixel {at} is missing, {inside} inside");
                    assert!(!drawn || *inside > -0.01, "pixel {at} is drawn, {inside} inside");
                }
                pixels += drawn.iter().filter(|d| **d).count();
                let mask = truth.full_mask(who).unwrap();
                assert_eq!(mask.pixels().filter(|p| p.0[0] == 255).count(), drawn.iter().filter(|d| **d).count());
            }
        }
    }
    assert!(pixels > 20_000, "only {pixels} pixels");
}

#[test]
fn the_nearer_person_is_before_the_other() {
    let mut compared = 0;
    for photo in samples(Kind::Poses, 120) {
        let truth = &photo.truth;
        // Depth of a person at a pixel: the range of its triangles there is bounded by that of the body.
        let range = |who: usize| {
            let depths = truth.people[who].vertices_camera_m.iter().map(|p| p.z);
            depths.fold((f32::INFINITY, 0.0_f32), |(lo, hi), z| (lo.min(z), hi.max(z)))
        };
        for a in 0..truth.people.len() {
            for b in 0..truth.people.len() {
                if a == b || range(a).1 > range(b).0 {
                    continue;
                }
                // All of a is before all of b: where both are, b is never seen.
                for (owner, covered) in truth.owner.iter().zip(&truth.covered) {
                    if covered >> a & 1 == 1 && covered >> b & 1 == 1 {
                        assert_ne!(usize::from(*owner), b + 1);
                        compared += 1;
                    }
                }
            }
        }
        for (owner, covered) in truth.owner.iter().zip(&truth.covered) {
            assert!(*owner == 0 || covered >> (owner - 1) & 1 == 1, "seen where it is not");
        }
    }
    assert!(compared > 500, "only {compared} pixels with two people behind each other");
}

#[test]
fn boxes_joints_and_parameters_agree_with_the_mesh() {
    for kind in ALL {
        let body = studio_of(kind).body();
        for photo in samples(kind, 30) {
            let truth = &photo.truth;
            for (who, person) in truth.people.iter().enumerate() {
                // The parameters make the same mesh, to single precision at 8 m.
                let posed = body.pose(&person.params.pose_rad, &person.params.shape, person.translation_m).unwrap();
                let worst = posed.vertices_m.iter().zip(&person.vertices_camera_m).map(|(a, b)| a.distance(*b));
                assert!(worst.fold(0.0, f32::max) < 2e-5);
                let joints = posed.joints_m.iter().zip(&person.joints_camera_m).map(|(a, b)| a.distance(*b));
                assert!(joints.fold(0.0, f32::max) < 2e-5);
                assert_eq!(person.joints_camera_m.len(), truth.topology.skeleton.names.len());

                let mask = truth.visible_mask(who).unwrap();
                let white = |x: u32, y: u32| mask.get_pixel(x, y).0[0] == 255;
                let count = mask.pixels().filter(|p| p.0[0] == 255).count();
                assert_eq!(person.visible_rect.is_some(), count > 0);
                if let Some(rect) = person.visible_rect {
                    let [left, top] = [rect.x + 0.5, rect.y + 0.5].map(|v| v as u32);
                    let [right, bottom] = [rect.max().x - 0.5, rect.max().y - 0.5].map(|v| v as u32);
                    assert!((top..=bottom).any(|y| white(left, y)) && (top..=bottom).any(|y| white(right, y)));
                    assert!((left..=right).any(|x| white(x, top)) && (left..=right).any(|x| white(x, bottom)));
                    // Pixels reach half a pixel beyond the points that they show.
                    assert!(rect.x + 0.51 >= person.full_rect.x && rect.max().y - 0.51 <= person.full_rect.max().y);
                }
                assert!((0.0..=1.0).contains(&person.visible_share));
                for (joint, visible) in person.joints_camera_m.iter().zip(&person.joint_visible) {
                    assert!(!visible || truth.pixel(*joint).is_some());
                }
            }
        }
    }
}

#[test]
fn one_seed_is_one_scene_on_any_number_of_threads() {
    for kind in ALL {
        let studio = studio_of(kind);
        let once = studio.sample(kind, 42, SIZE).unwrap();
        let alone = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        let again = alone.install(|| studio.sample(kind, 42, SIZE).unwrap());
        assert_eq!(fingerprint(&once), fingerprint(&again));
    }
    let prints: HashSet<u64> =
        ALL.iter().flat_map(|&kind| samples(kind, 40)).map(|photo| fingerprint(&photo)).collect();
    assert_eq!(prints.len(), 160, "every seed is another scene");
    assert!(studio().sample(Kind::Hands, 42, SIZE).is_err(), "people's studio has no hands");
}

/// Weights are trained on the scenes of seeds and measured on those of others: none may change unnoticed. Coarse enough
/// for machines that round sines otherwise.
#[test]
fn seeds_are_the_scenes_that_they_were() {
    // How many are there, where the first one's root joint is in metres, and the mean of all pixels' values.
    let known = [
        (Kind::Scenes, 7, 1, Vec3::new(1.4522, -0.2211, 4.1440), 102.25),
        (Kind::Scenes, 23, 3, Vec3::new(-0.4142, -0.0292, 2.0462), 135.84),
        (Kind::Postures, 7, 2, Vec3::new(-0.1979, 0.6897, 2.1226), 99.98),
        (Kind::Postures, 23, 2, Vec3::new(0.4215, 0.1166, 3.3056), 131.52),
        (Kind::Poses, 7, 2, Vec3::new(-1.4911, 0.6116, 4.2044), 56.87),
        (Kind::Poses, 23, 2, Vec3::new(0.7567, 0.1267, 3.9108), 95.89),
        (Kind::Hands, 7, 1, Vec3::new(0.1625, 0.1759, 0.7343), 158.77),
        (Kind::Hands, 23, 1, Vec3::new(0.2490, 0.4372, 0.9153), 114.34),
    ];
    let changed = known.into_iter().filter_map(|(kind, seed, count, root_m, mean)| {
        let Photo { rgb, truth } = studio_of(kind).sample(kind, seed, SIZE).unwrap();
        let root = truth.people[0].root_camera_m();
        let values = rgb.as_raw().iter().map(|&value| f64::from(value)).sum::<f64>() / rgb.as_raw().len() as f64;
        let same = truth.people.len() == count && root.distance(root_m) < 1e-3 && (values - mean).abs() < 0.1;
        (!same).then(|| format!("{kind:?} {seed}: {}, {root:.4}, {values:.2}", truth.people.len()))
    });
    let changed: Vec<_> = changed.collect();
    assert!(changed.is_empty(), "{changed:#?}");
}

#[test]
fn a_thousand_seeds_are_of_all_sorts() {
    let studio = studio();
    for kind in KINDS {
        let photos: Vec<Truth> =
            (0..1000_u64).into_par_iter().map(|seed| studio.sample(kind, seed, [64, 48]).unwrap().truth).collect();
        let mut counts = [0; 9];
        let (mut distances, mut heights, mut headings, mut focals) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for truth in &photos {
            counts[truth.people.len()] += 1;
            focals.push(truth.intrinsics.fx / 64.0);
            for person in &truth.people {
                distances.push(person.root_camera_m().length());
                heights.push(person.full_rect.h / 48.0);
                // From which side one looks at the hips.
                let hips = person.joints_camera_m[1] - person.joints_camera_m[2];
                headings.push(hips.z.atan2(hips.x).to_degrees());
            }
        }
        assert_eq!((counts[0], counts[6]), (0, 0), "{kind:?}: {counts:?}");
        assert!(counts[1] > 150 && counts[2] > 150 && counts[3] > 80 && counts[4] > 15 && counts[5] > 5, "{counts:?}");
        assert!(distances.iter().all(|d| (DISTANCES_M[0]..=DISTANCES_M[1]).contains(d)));
        let share = |values: &[f32], low: f32, high: f32| {
            values.iter().filter(|v| (low..high).contains(*v)).count() as f32 / values.len() as f32
        };
        for (low, high) in [(1.5, 3.0), (3.0, 4.5), (4.5, 8.0)] {
            assert!(share(&distances, low, high) > 0.1, "{kind:?}: few people from {low} to {high} m");
        }
        for (low, high) in [(0.2, 0.4), (0.4, 0.7), (0.7, 1.5)] {
            assert!(share(&heights, low, high) > 0.08, "{kind:?}: few people of {low} to {high} of the picture");
        }
        // Everyone is seen from the front, the back and both sides; in scenes mostly from the front.
        for quarter in [-135.0, -45.0, 45.0] {
            let least = if kind == Kind::Scenes { 0.03 } else { 0.18 };
            assert!(share(&headings, quarter, quarter + 90.0) > least, "{kind:?}: few at {quarter}");
        }
        let (least, most) = focals.iter().fold((f32::INFINITY, 0.0_f32), |(lo, hi), &f| (lo.min(f), hi.max(f)));
        assert!(most / least > 1.4, "{kind:?}: focal lengths from {least} to {most} widths");
        let visible: Vec<f32> = photos.iter().flat_map(|t| &t.people).map(|p| p.visible_share).collect();
        assert!(share(&visible, 0.95, 1.1) > 0.4 && share(&visible, 0.0, 0.8) > 0.04, "{kind:?}: occlusion");
    }
}

#[test]
fn hands_are_of_all_sorts_and_within_reach() {
    let photos: Vec<Truth> = {
        let studio = studio_of(Kind::Hands);
        (0..1000_u64).into_par_iter().map(|seed| studio.sample(Kind::Hands, seed, [64, 48]).unwrap().truth).collect()
    };
    let hands: Vec<_> = photos.iter().flat_map(|truth| &truth.people).collect();
    assert!(photos.iter().all(|truth| (1..=2).contains(&truth.people.len())));
    assert!(hands.len() > 1100, "{} hands", hands.len());
    let share = |counts: &dyn Fn(&TruePerson) -> bool| {
        hands.iter().filter(|hand| counts(hand)).count() as f32 / hands.len() as f32
    };
    let [near, far] = HAND_DEPTHS_M;
    assert_eq!(share(&|hand| (near..=far).contains(&hand.root_camera_m().z)), 1.0);
    for (from, to) in [(0.3, 0.5), (0.5, 0.8), (0.8, 1.2)] {
        assert!(share(&|hand| (from..to).contains(&hand.root_camera_m().z)) > 0.15, "few from {from} to {to} m");
    }
    // Where fingers point to, where the back of the hand looks, and where the thumb is.
    for axis in 0..3 {
        let mut towards = [0; 6];
        for hand in &hands {
            let turned = Quat::from_scaled_axis(hand.params.pose_rad[0]) * Vec3::AXES[axis];
            let along = turned.abs().max_position();
            towards[2 * along + usize::from(turned[along] < 0.0)] += 1;
        }
        assert!(towards.iter().all(|&count| count > 50), "axis {axis}: {towards:?}");
    }
    // Fists and flat hands.
    let length = |hand: &TruePerson| hand.joints_camera_m[12].distance(hand.joints_camera_m[0]);
    assert!(share(&|hand| length(hand) < 0.11) > 0.15 && share(&|hand| length(hand) > 0.17) > 0.15);
    // Sleeves begin on the hand.
    assert!(share(&|hand| hand.visible_share > 0.85) > 0.5 && share(&|hand| hand.visible_share < 0.6) > 0.03);
    assert!(share(&|hand| hand.visible_rect.is_none()) < 0.01);
}

#[test]
fn feet_are_on_the_ground_and_nobody_is_in_anybody() {
    let studio = studio();
    for kind in KINDS {
        let checked: usize = (0..60_u64)
            .into_par_iter()
            .map(|seed| {
                let scene = Scene::new(studio, kind, seed, [32, 24]).unwrap();
                let mut pairs = 0;
                for step in 0..12 {
                    let people = scene.standing(step as f32 * 2.7).unwrap();
                    for (i, person) in people.iter().enumerate() {
                        let lowest = person.vertices_m.iter().map(|p| p.y).fold(f32::INFINITY, f32::min);
                        assert!(lowest.abs() < 1e-5, "{lowest} m above the ground");
                        for other in &people[i + 1..] {
                            assert!(!person.touches(other, 0.0), "{kind:?} {seed} at step {step}");
                            pairs += 1;
                        }
                    }
                }
                pairs
            })
            .sum();
        assert!(checked > 300, "only {checked} pairs");
    }
}

#[test]
fn people_and_hands_move_smoothly() {
    let mut fastest: f32 = 0.0;
    let mut moved = false;
    for seed in 0..12 {
        let kind = if seed < 8 { Kind::Scenes } else { Kind::Hands };
        let scene = Scene::new(studio_of(kind), kind, seed, [32, 24]).unwrap();
        let roots = |time: f32| -> Vec<Vec<Vec3>> {
            scene.standing(time).unwrap().into_iter().map(|person| person.joints_m).collect()
        };
        let mut before = roots(0.0);
        for frame in 1..500 {
            let now = roots(frame as f32 / 25.0);
            for (a, b) in before.iter().flatten().zip(now.iter().flatten()) {
                fastest = fastest.max(a.distance(*b) * 25.0);
            }
            moved |= before[0][0].distance(now[0][0]) > 0.01;
            before = now;
        }
    }
    // A fast hand makes 6 m/s; a jump from one frame to the next would be tens of them.
    assert!(moved && fastest < 9.0, "{fastest} m/s");
}

#[test]
fn the_source_never_ends_and_frames_carry_their_truth() {
    let mut source = capture::open(&"synthetic:11".parse::<SourceSpec>().unwrap()).unwrap();
    assert!(!source.is_live() && source.frame_count().is_none() && source.describe().contains("seed 11"));
    let fps = 1.0 / source.frame_interval().unwrap().as_secs_f32();
    assert!((25.0..=30.0).contains(&fps));
    for index in 0..3 {
        let Next::Frame(frame) = source.next().unwrap() else { panic!("no frame") };
        let truth = frame.truth.unwrap();
        assert_eq!((frame.index, frame.rgb.dimensions()), (index, (640, 480)));
        assert_eq!(truth.size, [640, 480]);
        assert!(!truth.people.is_empty());
    }
    assert_eq!("synthetic".parse::<SourceSpec>().unwrap(), SourceSpec::default());
    for (text, kind, seed) in [
        ("synthetic:hands", Kind::Hands, 8),
        ("synthetic:hands:3", Kind::Hands, 3),
        ("synthetic:poses:0", Kind::Poses, 0),
    ] {
        let spec: SourceSpec = text.parse().unwrap();
        assert_eq!(spec, SourceSpec::Synthetic(kind, seed));
        assert_eq!(spec.to_string().parse::<SourceSpec>().unwrap(), spec, "{text}");
    }
    let mut source = capture::open(&"synthetic:hands:3".parse::<SourceSpec>().unwrap()).unwrap();
    assert!(source.describe().contains("hands, seed 3"));
    let Next::Frame(frame) = source.next().unwrap() else { panic!("no frame") };
    assert_eq!(frame.truth.unwrap().topology.skeleton.names.len(), 21);
    assert!(["synthetic:feet", "synthetic:hands:x", "synthetic:1:2"].iter().all(|s| s.parse::<SourceSpec>().is_err()));
    let error = "synthetic:x".parse::<SourceSpec>().unwrap_err().to_string();
    assert!(error.contains("synthetic:7"), "{error}");
}

#[test]
fn sizes_that_make_no_sense_are_refused() {
    assert!(studio().sample(Kind::Scenes, 1, [0, 480]).is_err());
    assert!(studio().sample(Kind::Scenes, 1, [100_000, 100_000]).is_err());
    // Upright and square pictures are fine.
    assert!(studio().sample(Kind::Poses, 1, [48, 64]).is_ok());
}

#[test]
fn a_dataset_is_cocos_and_opens_as_a_source() {
    let dir = tempfile::tempdir().unwrap();
    let order = Order { kind: Kind::Poses, seed: 5, count: 6, size: [96, 72] };
    let done = AtomicU64::new(0);
    dataset::write(studio(), &order, dir.path(), || {
        done.fetch_add(1, Ordering::Relaxed);
    })
    .unwrap();
    assert_eq!(done.into_inner(), 6);
    let text = std::fs::read_to_string(dir.path().join(dataset::ANNOTATIONS)).unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let images = json["images"].as_array().unwrap();
    let annotations = json["annotations"].as_array().unwrap();
    assert_eq!(images.len(), 6);
    assert!(annotations.len() >= 6);
    for annotation in annotations {
        let image = images.iter().find(|image| image["id"] == annotation["image_id"]).unwrap();
        let number = |value: &serde_json::Value| value.as_f64().unwrap();
        let [focal, princpt] = ["focal", "princpt"].map(|key| &image["cam_param"][key]);
        let joints = annotation["joint_cam"].as_array().unwrap();
        assert_eq!(joints.len(), json["categories"][0]["keypoints"].as_array().unwrap().len());
        for (joint, key) in joints.iter().zip(annotation["keypoints"].as_array().unwrap().chunks(3)) {
            if number(&key[2]) > 0.0 {
                // Millimetres in the camera's frame project onto the pixels.
                for axis in 0..2 {
                    let px = number(&joint[axis]) / number(&joint[2]) * number(&focal[axis]) + number(&princpt[axis]);
                    assert!((px - number(&key[axis])).abs() < 1e-3);
                }
            }
        }
        let runs = annotation["segmentation"]["counts"].as_array().unwrap();
        assert_eq!(runs.iter().map(number).sum::<f64>(), 96.0 * 72.0);
        let white: f64 = runs.iter().skip(1).step_by(2).map(number).sum();
        assert_eq!(white, number(&annotation["area"]));
        let smpl = &annotation["smpl_param"];
        assert_eq!(smpl["pose"].as_array().unwrap().len(), 72);
        assert_eq!(smpl["shape"].as_array().unwrap().len(), 10);
    }
    // Nothing but the pictures and the JSON is left, and the folder is a source.
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 7);
    let mut source = capture::open(&SourceSpec::Path(dir.path().to_owned())).unwrap();
    assert_eq!(source.frame_count(), Some(6));
    let Next::Frame(frame) = source.next().unwrap() else { panic!("no frame") };
    assert_eq!(frame.rgb.dimensions(), (96, 72));
    assert_eq!(frame.truth.unwrap().size, [96, 72], "what is true of it is read back, see tests/eval.rs");
}

/// A frame that no network has looked at.
fn bare_result(seed: u64) -> FrameResult {
    let Photo { rgb, truth } = studio().sample(Kind::Scenes, seed, [320, 240]).unwrap();
    let (captured_at, truth) = (Duration::ZERO, Some(Arc::new(truth)));
    let frame = Frame { rgb, index: 0, captured_at, name: None, truth };
    Stages::new(Settings::with_models(".".into())).without_people(Arc::new(frame))
}

#[test]
fn without_networks_the_true_people_are_shown_and_with_them_they_are_added() {
    let bare = (0..100).map(bare_result).find(|result| result.with_truth().unwrap().people.len() > 1).unwrap();
    let truth = bare.frame.truth.clone().unwrap();
    assert!(bare.is_bare());
    assert_eq!(bare.intrinsics, truth.intrinsics, "the camera of a frame that was made is known");
    let shown = bare.with_truth().unwrap();
    assert!(!shown.is_bare());
    let seen = truth.people.iter().filter(|person| person.visible_rect.is_some()).count();
    assert_eq!(shown.people.len(), seen);
    assert!(shown.people.iter().all(|person| person.true_index().is_some()));
    assert_eq!(live::errors(&shown), vec![None; seen], "the truth has no errors");

    // Found people: the true ones, moved 30 mm away from the camera and grown by a tenth.
    let mut found = shown.clone();
    for (id, person) in found.people.iter_mut().enumerate() {
        person.id = id as u32;
        person.root_source = RootSource::RootNet;
        let root = person.root_camera_m;
        person.root_camera_m += Vec3::Z * 0.03;
        for joint in &mut person.joints_camera_m {
            *joint = root + Vec3::Z * 0.03 + (*joint - root) * 1.1;
        }
    }
    found.people.reverse();
    let errors = live::errors(&found);
    assert_eq!(errors.len(), seen);
    for (errors, person) in errors.iter().zip(&found.people) {
        let errors = errors.unwrap();
        let root = person.joints_camera_m[0];
        // SMPL's joints, without the face.
        let sizes = person.joints_camera_m[..24].iter().map(|joint| f64::from((*joint - root).length()));
        let grown_mm = sizes.sum::<f64>() / 24.0 * 1000.0 * (0.1 / 1.1);
        assert!((errors.root_mm - 30.0).abs() < 0.01, "{errors:?}");
        assert!((errors.mpjpe_mm - grown_mm).abs() < 0.01, "{errors:?}, grown by {grown_mm}");
        assert!(errors.pa_mpjpe_mm < 0.01, "{errors:?}");
    }
    let both = found.with_truth().unwrap();
    assert_eq!(both.people.len(), 2 * seen);
    assert_eq!(live::errors(&both).iter().flatten().count(), seen);
    // Somebody where nobody is has no errors.
    found.people[0].rect.x += 5000.0;
    assert_eq!(live::errors(&found)[0], None);
}
