//! Annotation files become the truth of their pictures.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use glam::Vec3;
use image::RgbImage;
use lixelscope::annotations::Annotations;
use lixelscope::body::Family;
use lixelscope::capture::{self, Frame, Next};
use lixelscope::pipeline::Stages;
use lixelscope::settings::{Settings, SourceSpec};
use lixelscope::synth::dataset::{self, Order, picture_seed};
use lixelscope::synth::{Kind, Studio};
use lixelscope::truth::Truth;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::STUDIO;

/// All frames of a source.
fn frames(path: &Path) -> Vec<Frame> {
    let mut source = capture::open(&SourceSpec::Path(path.to_owned())).unwrap();
    let mut frames = Vec::new();
    loop {
        match source.next().unwrap() {
            Next::Frame(frame) => frames.push(frame),
            Next::Stalled(_) => {}
            Next::Ended(_) => return frames,
        }
    }
}

/// A folder with an annotation file and a picture of 8x6 pixels under each of these names.
fn folder(annotations: &Value, pictures: &[&str]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("annotations.json"), annotations.to_string()).unwrap();
    for name in pictures {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        RgbImage::new(8, 6).save(path).unwrap();
    }
    dir
}

/// The truth of the first picture.
fn first_truth(dir: &Path) -> Truth {
    Annotations::open(&dir.join("annotations.json"), None).unwrap().truth(0, [8, 6]).unwrap()
}

#[test]
fn what_synth_writes_is_what_is_read_back() {
    read_back(&STUDIO, Kind::Poses);
}

#[test]
fn hands_are_read_back_too() {
    read_back(&Studio::of(Family::Mano).unwrap(), Kind::Hands);
}

fn read_back(studio: &Arc<Studio>, kind: Kind) {
    let dir = tempfile::tempdir().unwrap();
    let order = Order { kind, seed: 3, count: 8, size: [96, 72] };
    dataset::write(studio, &order, dir.path(), || {}).unwrap();
    let read = frames(dir.path());
    assert_eq!(read.len(), 8);
    let mut people = 0;
    for (number, frame) in read.iter().enumerate() {
        let made = studio.sample(order.kind, picture_seed(order.seed, number as u64), order.size).unwrap();
        assert_eq!(frame.rgb, made.rgb);
        let truth = frame.truth.as_ref().unwrap();
        assert_eq!((truth.intrinsics, truth.size), (made.truth.intrinsics, made.truth.size));
        assert_eq!(truth.topology, made.truth.topology);
        // People of whom not a pixel is seen are not written, so numbers may differ; whose pixels they are does not.
        let written: Vec<_> = made.truth.people.iter().filter(|person| person.visible_rect.is_some()).collect();
        assert_eq!(truth.people.len(), written.len());
        for (read, made) in truth.people.iter().zip(written) {
            people += 1;
            // Millimetres and back in single precision, at up to 8 m.
            let near =
                |a: &[Vec3], b: &[Vec3]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.distance(*b) < 2e-5);
            assert!(near(&read.joints_camera_m, &made.joints_camera_m));
            assert!(near(&read.vertices_camera_m, &made.vertices_camera_m));
            assert_eq!((&read.params, read.translation_m), (&made.params, made.translation_m));
            assert_eq!(read.visible_share, made.visible_share);
            assert_eq!(read.joint_visible, made.joint_visible);
            let same = |a: [f32; 4], b: [f32; 4]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-3);
            assert!(same(read.visible_rect.unwrap().into(), made.visible_rect.unwrap().into()));
            assert!(same(read.full_rect.into(), made.full_rect.into()));
        }
        let seen = |truth: &Truth| truth.owner.iter().map(|&owner| owner > 0).collect::<Vec<_>>();
        assert_eq!(seen(truth), seen(&made.truth));
        let first = |truth: &Truth| truth.people.iter().position(|person| person.visible_rect.is_some()).unwrap();
        assert_eq!(truth.visible_mask(first(truth)), made.truth.visible_mask(first(&made.truth)));
        assert_eq!(truth.full_mask(0), None, "hidden parts are not written");
    }
    assert!(people >= 8, "{people}");
    // The file itself opens the same pictures.
    assert_eq!(frames(&dir.path().join("annotations.json")).len(), 8);
}

#[test]
fn cocos_own_annotations_have_boxes_and_pixels_and_nothing_that_they_do_not_say() {
    let dir = folder(
        &json!({
            "images": [{"id": 7, "file_name": "b.png", "width": 8, "height": 6}, {"id": 3, "file_name": "a.png"}],
            "annotations": [
                {"image_id": 7, "category_id": 1, "bbox": [1, 1, 4, 3], "segmentation": [[1, 1, 5, 1, 5, 4, 1, 4]],
                 "keypoints": [1, 2, 2], "num_keypoints": 1, "iscrowd": 0},
                {"image_id": 7, "category_id": 1, "bbox": [6, 0, 90, 2], "iscrowd": 1},
                {"image_id": 7, "category_id": 18, "bbox": [0, 0, 2, 2]},
            ],
            "categories": [{"id": 1, "name": "person", "keypoints": ["nose"]}, {"id": 18, "name": "dog"}],
        }),
        &["a.png", "b.png"],
    );
    let read = frames(dir.path());
    let names: Vec<_> = read.iter().filter_map(|frame| frame.name.as_deref()).collect();
    assert_eq!(names, ["b.png", "a.png"], "in the order of the file");
    let truth = read[0].truth.as_ref().unwrap();
    let [person, crowd] = truth.people.as_slice() else { panic!("{} people", truth.people.len()) };
    assert_eq!(<[f32; 4]>::from(person.visible_rect.unwrap()), [0.5, 0.5, 4.0, 3.0]);
    assert!(person.joints_camera_m.is_empty() && person.vertices_camera_m.is_empty());
    assert!(person.root_camera_m().is_nan() && person.translation_m.is_nan() && person.visible_share.is_nan());
    assert!(!truth.is_hardly_visible(person) && truth.is_hardly_visible(crowd), "nobody minds a crowd");
    assert_eq!(<[f32; 4]>::from(crowd.visible_rect.unwrap()), [5.5, -0.5, 2.0, 2.0], "cut at the picture's edge");
    let mask = truth.visible_mask(0).unwrap();
    assert_eq!(mask.pixels().filter(|p| p.0[0] == 255).count(), 12);
    assert_eq!(truth.intrinsics.fx, 1500.0, "the papers' normalised camera");
    assert!(read[1].truth.as_ref().unwrap().people.is_empty(), "nobody is there, and that is known");
    // Nothing to show beside what was found.
    let stages = Stages::new(Settings::with_models(".".into()));
    let result = stages.without_people(std::sync::Arc::new(read[0].clone()));
    assert!(result.with_truth().is_none());
}

/// 21 joints one beside the other, 3 m away, in a unit; the pelvis is MuCo-3DHP's 15th.
fn joints_of_muco(unit: f32) -> Vec<[f32; 3]> {
    (0..21).map(|joint| [joint as f32 * 0.01 * unit, 0.1 * unit, (3.0 + joint as f32 * 0.001) * unit]).collect()
}

#[test]
fn joints_of_the_papers_datasets_are_read_under_their_names_and_units() {
    for (unit, field) in [(1000.0, "keypoints_cam"), (1.0, "joint_cam")] {
        let flags: Vec<i32> = (0..21).map(|joint| i32::from(joint != 3)).collect();
        let mut annotation = json!({"image_id": 1, "bbox": [0, 0, 4, 4], "keypoints_vis": flags});
        annotation[field] = json!(joints_of_muco(unit));
        let invalid = json!({"image_id": 1, "bbox": [4, 0, 4, 4], "is_valid": 0});
        let dir = folder(
            &json!({
                "images": [{"id": 1, "file_name": "a.png", "f": [500, 510], "c": [4, 3]}],
                "annotations": [annotation, invalid],
            }),
            &["images/a.png"],
        );
        let truth = first_truth(dir.path());
        assert_eq!((truth.intrinsics.fx, truth.intrinsics.cy), (500.0, 3.0));
        let names = &truth.topology.skeleton.names;
        assert_eq!((names[0].as_str(), names.len(), truth.topology.vertex_count), ("Pelvis", 21, 0));
        let person = &truth.people[0];
        assert!(person.root_camera_m().distance(Vec3::new(0.14, 0.1, 3.014)) < 1e-5, "{}", person.root_camera_m());
        let elbow = names.iter().position(|name| name == "R_Elbow").unwrap();
        assert!(person.joints_camera_m[elbow].distance(Vec3::new(0.03, 0.1, 3.003)) < 1e-5);
        assert!(!person.joint_visible[elbow] && person.joint_visible[0]);
        assert!(truth.is_hardly_visible(&truth.people[1]), "the annotations call it invalid");
        // A skeleton without a mesh is shown as one.
        let frame = frames(dir.path()).remove(0);
        let stages = Stages::new(Settings::with_models(".".into()));
        let shown = stages.without_people(std::sync::Arc::new(frame)).with_truth().unwrap();
        assert_eq!((shown.people.len(), shown.skeleton.names.len()), (1, 21));
        assert!(shown.topology.is_none() && shown.people[0].mesh.is_none());
    }
}

#[test]
fn human36m_keeps_cameras_and_joints_in_files_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("images/s_09")).unwrap();
    fs::create_dir(dir.path().join("annotations")).unwrap();
    RgbImage::new(8, 6).save(dir.path().join("images/s_09/a.png")).unwrap();
    let path = dir.path().join("annotations/Human36M_subject9_data.json");
    let write = |what: &str, value: Value| {
        let name = format!("Human36M_subject9_{what}.json");
        fs::write(dir.path().join("annotations").join(name), value.to_string()).unwrap();
    };
    let image = json!({"id": 1, "file_name": "s_09/a.png", "width": 8, "height": 6, "subject": 9, "action_idx": 2,
        "subaction_idx": 1, "cam_idx": 4, "frame_idx": 25});
    let annotation = json!({"image_id": 1, "bbox": [1, 1, 4, 4], "keypoints_vis": vec![true; 17]});
    write("data", json!({"images": [image], "annotations": [annotation]}));
    let error = format!("{:#}", Annotations::open(&path, None).unwrap_err());
    assert!(error.contains("Human36M_subject9_camera.json: cannot open"), "{error}");

    // A camera that looks along the world's x, whose z is up: right is -y, down is -z.
    let camera =
        json!({"R": [[0, -1, 0], [0, 0, -1], [1, 0, 0]], "t": [10, 1500, 4000], "f": [1145, 1143], "c": [4, 3]});
    write("camera", json!({ "4": camera }));
    let mut joints = vec![[0.0, 0.0, 900.0]; 17];
    (joints[11], joints[14]) = ([0.0, 200.0, 1400.0], [0.0, -180.0, 1420.0]);
    write("joint_3d", json!({"2": {"1": {"25": joints}}}));
    let annotations = Annotations::open(&path, None).unwrap();
    assert!(annotations.paths().next().unwrap().is_file(), "the pictures are in the folder beside");
    let truth = annotations.truth(0, [8, 6]).unwrap();
    let person = &truth.people[0];
    assert!(person.root_camera_m().distance(Vec3::new(0.01, 0.6, 4.0)) < 1e-5, "{}", person.root_camera_m());
    let thorax = truth.topology.skeleton.names.iter().position(|name| name == "Thorax").unwrap();
    assert!(person.joints_camera_m[thorax].distance(Vec3::new(0.0, 0.09, 4.0)) < 1e-5, "between the shoulders");
    assert_eq!((truth.intrinsics.fx, truth.intrinsics.fy), (1145.0, 1143.0));
}

#[test]
fn parameters_of_a_body_that_is_not_at_hand_make_no_mesh() {
    let dir = tempfile::tempdir().unwrap();
    let order = Order { kind: Kind::Scenes, seed: 4, count: 1, size: [96, 72] };
    dataset::write(&STUDIO, &order, dir.path(), || {}).unwrap();
    let path = dir.path().join("annotations.json");
    let mut json: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    // Half a metre beside the joints: those are somebody else's parameters.
    for annotation in json["annotations"].as_array_mut().unwrap() {
        let x = annotation["smpl_param"]["trans"][0].as_f64().unwrap();
        annotation["smpl_param"]["trans"][0] = json!(x + 0.5);
    }
    fs::write(&path, json.to_string()).unwrap();
    let truth = Annotations::open(&path, None).unwrap().truth(0, [96, 72]).unwrap();
    assert!(!truth.people.is_empty());
    for person in &truth.people {
        assert!(person.vertices_camera_m.is_empty() && person.params.pose_rad.is_empty());
        assert!(person.root_camera_m().is_finite(), "the joints are known all the same");
    }
}

#[test]
fn a_folder_whose_annotations_are_of_another_kind_is_a_folder_of_pictures() {
    let dir = folder(&json!({"shapes": [], "version": "5.0"}), &["a.png", "b.png"]);
    let read = frames(dir.path());
    assert_eq!(read.len(), 2);
    assert!(read.iter().all(|frame| frame.truth.is_none()));
    assert!(capture::open_annotated(dir.path(), None).is_err(), "who asks for annotations is told");
}

#[test]
fn hostile_annotation_files_are_refused_in_words() {
    let picture = json!({"id": 1, "file_name": "a.png"});
    let person = json!({"image_id": 1, "bbox": [0, 0, 4, 4]});
    let with = |base: &Value, key: &str, value: Value| {
        let mut changed = base.clone();
        changed[key] = value;
        changed
    };
    let file = |images: Vec<Value>, annotations: Vec<Value>| json!({"images": images, "annotations": annotations});
    let of_people = |people: Vec<Value>| file(vec![picture.clone()], people);
    let one = |key: &str, value: Value| of_people(vec![with(&person, key, value)]);
    let cases: Vec<(Value, &str)> = vec![
        (json!([]), "not the form of an annotation file"),
        (json!({"images": []}), "missing field `annotations`"),
        (file(vec![], vec![]), "lists no pictures"),
        (file(vec![picture.clone(), picture.clone()], vec![]), "two pictures have the id 1"),
        (file(vec![with(&picture, "file_name", json!("../../etc/passwd"))], vec![]), "below its dataset's folder"),
        (file(vec![with(&picture, "file_name", json!("/etc/passwd"))], vec![]), "below its dataset's folder"),
        (file(vec![with(&picture, "f", json!([1, 2, 3]))], vec![]), ""),
        (file(vec![with(&picture, "intrinsic", json!([1e300, 1, 1, 1]))], vec![]), "focal lengths"),
        (file(vec![with(&picture, "intrinsic", json!([-5, 5, 1, 1]))], vec![]), "focal lengths"),
        (file(vec![with(&picture, "width", json!(-1))], vec![]), "invalid value"),
        (one("bbox", json!([0, 0, 4])), "invalid length 3"),
        (one("bbox", json!([0, null, 4, 4])), "invalid type: null"),
        (one("joint_cam", json!([vec![1; 63], vec![1; 2]])), "65 coordinates are no points"),
        (one("joint_cam", json!(vec![[0, 0, 3000]; 5])), "people of 5 joints"),
        (of_people(vec![person.clone(); 256]), "256 people"),
        (one("segmentation", json!({"size": [6, 8], "counts": [4_000_000_000_u32, 4_000_000_000_u32]})), "runs are"),
        (one("segmentation", json!({"size": [60000, 60000], "counts": [1]})), "a mask of [60000, 60000]"),
        (one("segmentation", json!({"size": [6, 8], "counts": "~~~~"})), "damaged"),
        (one("segmentation", json!([[0, 0, 1]])), "polygon"),
        (
            of_people(vec![
                with(&person, "joint_cam", json!(vec![[0, 0, 3000]; 21])),
                with(&person, "joint_cam", json!(vec![[0, 0, 3000]; 20])),
            ]),
            "a person of 20 joints among others of 21",
        ),
        (file(vec![with(&with(&picture, "width", json!(9)), "height", json!(6))], vec![]), "annotations are for 9x6"),
    ];
    for (json, words) in cases {
        let text = json.to_string();
        let dir = folder(&json, &["a.png"]);
        let path = dir.path().join("annotations.json");
        let read = Annotations::open(&path, None).and_then(|annotations| annotations.truth(0, [8, 6]));
        let Err(error) = read else {
            assert!(words.is_empty(), "{text:.200} was read");
            continue;
        };
        let error = format!("{error:#}");
        assert!(error.contains(words), "{text:.200}: {error}");
    }
    // A file that ends in the middle, and one that is none.
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("annotations.json");
    for bytes in [&b"{\"images\": [{\"id\": 1"[..], b"", b"\x00\xff\xfe", &b"[".repeat(1 << 20)] {
        fs::write(&path, bytes).unwrap();
        assert!(Annotations::open(&path, None).is_err());
    }
}
