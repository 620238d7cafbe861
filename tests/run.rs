//! The program as a user calls it: arguments, exit codes, messages, and the files it writes. The networks are small ones
//! with formula weights: what they say means nothing, but every stage runs.

#[path = "support/mod.rs"]
mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use image::{Rgb, RgbImage};
use serde_json::Value;

/// The program, with the small models.
fn lixelscope() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lixelscope"));
    command.env("LIXELSCOPE_MODELS", support::models::folder().expect("the small models"));
    command
}

#[track_caller]
fn expect_code(output: &Output, code: i32) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
    stderr
}

/// A picture with something in it.
fn picture(width: u32, height: u32, shift: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        let stripe = ((x + shift) / 9 + y / 13).is_multiple_of(2);
        if stripe { Rgb([200, (x % 200) as u8, 60]) } else { Rgb([30, 90, (y % 220) as u8]) }
    })
}

fn frames(dir: &Path) -> Vec<Value> {
    let text = fs::read_to_string(dir.join("frames.jsonl")).expect("frames.jsonl");
    text.lines().map(|line| serde_json::from_str(line).expect("a line is an object")).collect()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().expect("a list").iter().map(|v| v.as_f64().expect("a finite number")).collect()
}

#[test]
fn a_picture_becomes_people_meshes_and_an_overlay() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("photo with ünïcode.png");
    picture(320, 240, 0).save(&source).unwrap();
    let out = dir.path().join("made/if/needed");
    let output = lixelscope()
        .args(["run", "--overlay", "--obj", "--box", "40,30,90,180", "--box", "180,50,100,150", "--fov", "60"])
        .arg("--source")
        .arg(&source)
        .arg("--out")
        .arg(&out)
        .output()
        .unwrap();
    expect_code(&output, 0);

    let lines = frames(&out);
    let [frame] = lines.as_slice() else { panic!("one line, not {}", lines.len()) };
    assert_eq!((&frame["frame"], &frame["width"], &frame["height"]), (&0.into(), &320.into(), &240.into()));
    let focal = 160.0 / (30_f64).to_radians().tan();
    assert!((frame["intrinsics"]["fx"].as_f64().unwrap() - focal).abs() < 1e-2);
    assert_eq!(frame["intrinsics"]["cx"], 160.0);
    for stage in ["capture", "detect", "crop", "root_depth", "lixel", "camera_mesh"] {
        assert!(frame["timing_ms"][stage].as_f64().unwrap() >= 0.0, "{stage}");
    }
    let people = frame["people"].as_array().unwrap();
    assert_eq!(people.len(), 2);
    assert_eq!(numbers(&people[0]["box_px"]), [40.0, 30.0, 90.0, 180.0]);
    for person in people {
        let joints = person["joints_camera_m"].as_array().unwrap();
        assert_eq!(joints.len(), 24);
        assert_eq!(person["joint_names"].as_array().unwrap().len(), 24);
        assert_eq!(person["spread"].as_array().unwrap().len(), 24);
        assert_eq!(person["root_source"], "rootnet");
        let depth = numbers(&person["root_camera_m"])[2];
        assert!(joints.iter().all(|joint| (numbers(joint)[2] - depth).abs() <= 1.0), "joints are in the 2 m box");
        assert_eq!(person["pose_rad"].as_array().unwrap().len(), 24);
    }

    let overlay = image::open(out.join("overlay_000000.png")).unwrap().to_rgb8();
    assert_eq!(overlay.dimensions(), (320, 240));
    let changed = overlay.pixels().zip(picture(320, 240, 0).pixels()).filter(|(a, b)| a != b).count();
    assert!(changed > 100, "{changed} pixels of the overlay differ from the frame");

    let obj = fs::read_to_string(out.join("frame_000000_person_1.obj")).unwrap();
    assert!(obj.contains("metre") && obj.contains("x right, y down, z forward"), "{obj:.200}");
    assert_eq!(obj.lines().filter(|line| line.starts_with("v ")).count(), 211);
    assert!(obj.lines().any(|line| line.starts_with("f ")));
    assert!(out.join("frame_000000_person_2.obj").is_file());
}

#[test]
fn a_video_is_searched_and_followed_and_nobody_changes_the_name() {
    let dir = tempfile::tempdir().unwrap();
    let pictures = dir.path().join("pictures");
    fs::create_dir(&pictures).unwrap();
    for i in 0..6 {
        picture(320, 240, i * 2).save(pictures.join(format!("{i}.png"))).unwrap();
    }
    let video = dir.path().join("moving.mp4");
    let made = Command::new("ffmpeg")
        .args(["-loglevel", "error", "-framerate", "10", "-i"])
        .arg(pictures.join("%d.png"))
        .args(["-pix_fmt", "yuv420p"])
        .arg(&video)
        .status()
        .expect("ffmpeg is installed by assets/setup.sh");
    assert!(made.success());
    let out = dir.path().join("out");
    let args = ["run", "--detect-every", "2", "--detector-side", "96", "--max-people", "3", "--min-score", "0.3"];
    let output = lixelscope().args(args).arg("--source").arg(&video).arg("--out").arg(&out).output().unwrap();
    expect_code(&output, 0);
    let lines = frames(&out);
    assert_eq!(lines.len(), 6);
    for (i, line) in lines.iter().enumerate() {
        assert_eq!(line["frame"], i);
        assert_eq!(line["detector_ran"], i % 2 == 0, "frame {i}");
        assert!((line["captured_at_secs"].as_f64().unwrap() - i as f64 * 0.1).abs() < 0.01);
        let people = line["people"].as_array().unwrap();
        assert!((1..=3).contains(&people.len()), "frame {i} has {} people", people.len());
        assert!(people.iter().all(|p| (0.0..=1.0).contains(&p["score"].as_f64().unwrap())));
    }
    let ids = |line: &Value| -> Vec<i64> {
        line["people"].as_array().unwrap().iter().map(|p| p["id"].as_i64().unwrap()).collect()
    };
    let stayed = ids(&lines[0]).iter().filter(|id| ids(&lines[1]).contains(id)).count();
    assert!(stayed > 0, "{:?} {:?}", ids(&lines[0]), ids(&lines[1]));

    let few = dir.path().join("few");
    let mut command = lixelscope();
    command.args(["run", "--frames", "2", "--estimator", "skeleton", "--whole-frame"]);
    expect_code(&command.arg("--source").arg(&video).arg("--out").arg(&few).output().unwrap(), 0);
    let lines = frames(&few);
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0]["people"][0]["joint_names"].as_array().unwrap().len(), 21);
    assert_eq!(lines[0]["people"][0]["id"], lines[1]["people"][0]["id"]);
}

#[test]
fn hands_parameters_and_boxes_from_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("hand.png");
    picture(200, 160, 3).save(&source).unwrap();
    let run = |name: &str, args: &[&str]| {
        let out = dir.path().join(name);
        let output = lixelscope().arg("run").args(args).arg("--source").arg(&source).arg("--out").arg(&out).output();
        let stderr = expect_code(&output.unwrap(), 0);
        (frames(&out).remove(0), stderr)
    };
    let (hand, stderr) = run("hand", &["--estimator", "hand", "--whole-frame"]);
    assert_eq!(hand["people"][0]["joint_names"].as_array().unwrap().len(), 21);
    // There is no RootNet for hands in the folder, but a built-in one.
    assert_eq!(hand["people"][0]["root_source"], "rootnet", "{stderr}");
    let broken = dir.path().join("broken");
    fs::create_dir(&broken).unwrap();
    fs::write(broken.join("rootnet_hand.pth.tar"), "not a checkpoint").unwrap();
    let broken = ["--estimator", "hand", "--whole-frame", "--models", broken.to_str().unwrap()];
    let (hand, stderr) = run("broken_root", &broken);
    // The distance is a guess, and both say so.
    assert_eq!(hand["people"][0]["root_source"], "boxsize");
    assert!(stderr.contains("rootnet_hand"), "{stderr}");

    let boxes = dir.path().join("boxes.json");
    fs::write(&boxes, "[[10, 10, 100, 120]]").unwrap();
    let from_file = ["--boxes", boxes.to_str().unwrap()];
    let lixel = run("lixel", &from_file).0;
    let param = run("param", &[&from_file[..], &["--mesh", "param"]].concat()).0;
    let middle = |frame: &Value| {
        let joints = frame["people"][0]["joints_camera_m"].as_array().unwrap().iter().map(numbers);
        joints.fold([0.0; 3], |sum, joint| [0, 1, 2].map(|axis| sum[axis] + joint[axis] / 29.0))
    };
    let (a, b) = (middle(&lixel), middle(&param));
    assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-3), "one is laid onto the other: {a:?} {b:?}");
    assert_ne!(lixel["people"][0]["joints_camera_m"][5], param["people"][0]["joints_camera_m"][5]);

    // The built-in weights for hands have no second stage: nobody is told that there were parameters.
    let nothing = dir.path().join("nothing");
    fs::create_dir(&nothing).unwrap();
    let mut command = lixelscope();
    command.args(["run", "--estimator", "hand", "--mesh", "param", "--whole-frame", "--models"]).arg(&nothing);
    let output = command.arg("--source").arg(&source).arg("--out").arg(dir.path().join("posed")).output().unwrap();
    let stderr = expect_code(&output, 2);
    assert!(stderr.contains("second stage"), "{stderr}");
}

#[test]
fn what_cannot_be_used_is_told_with_its_exit_code() {
    let dir = tempfile::tempdir().unwrap();
    let photo = dir.path().join("photo.png");
    picture(64, 64, 0).save(&photo).unwrap();
    let text = dir.path().join("notes.txt");
    fs::write(&text, "no video").unwrap();
    let bad_json = dir.path().join("bad.json");
    fs::write(&bad_json, r#"{"fx": "wide"}"#).unwrap();
    let photo = photo.to_str().unwrap();
    let out = dir.path().join("out");
    let out = out.to_str().unwrap();
    let bad = bad_json.to_str().unwrap();
    let empty = dir.path().join("empty");
    fs::create_dir(&empty).unwrap();
    let empty = empty.to_str().unwrap();
    let cases: &[(&[&str], i32, &str)] = &[
        (&["run"], 2, "--source"),
        (&["run", "--source", photo, "--out", out, "--box", "1,2,3"], 2, "x,y,w,h"),
        (&["run", "--source", photo, "--out", out, "--detect-every", "0"], 2, "detect-every"),
        (&["run", "--source", photo, "--out", out, "--fov", "60", "--focal", "900"], 2, "--focal"),
        (&["run", "--source", photo, "--out", out, "--calibration", bad], 2, "fx"),
        (&["run", "--source", photo, "--out", out, "--boxes", bad], 2, "[[x, y, w, h]"),
        (&["run", "--source", photo, "--out", out, "--calibration", "nowhere.json"], 2, "nowhere.json"),
        (&["run", "--source", "nowhere.mp4", "--out", out], 2, "nowhere.mp4"),
        (&["convert", photo, "weights.bin"], 2, ".safetensors"),
        (&["run", "--source", text.to_str().unwrap(), "--out", out, "--whole-frame"], 1, "notes.txt"),
        (&["run", "--source", photo, "--out", out, "--models", "nowhere"], 2, "nowhere"),
        (&["run", "--source", photo, "--out", out, "--models", empty, "--estimator", "skeleton"], 2, "posenet3d"),
        (&["run", "--source", "webcam:77", "--out", out, "--whole-frame"], 1, "webcam"),
        (&["run", "--source", photo, "--out", out, "--backend", "cuda", "--whole-frame"], 2, "--features"),
        (&["run", "--source", photo, "--out", out, "--obj", "--estimator", "skeleton"], 2, "mesh"),
        (&["run", "--source", photo, "--out", photo, "--whole-frame"], 2, "photo.png"),
        (&["train", "root", "--out", out, "--rate", "nan"], 2, "learning rate"),
        (&["train", "root", "--out", out, "--input", "100"], 2, "100"),
        (&["train", "root", "--out", out, "--batch", "3", "--threads", "2"], 2, "batch"),
        (&["bench", "--only", "nothing"], 2, "maskrcnn"),
        (&["bench", "--batch", "0"], 2, "--batch"),
        (&["convert", "nowhere.pth", "out.safetensors"], 2, "nowhere.pth"),
        (&["frobnicate"], 2, "frobnicate"),
    ];
    for (args, code, says) in cases {
        let mut command = lixelscope();
        if cfg!(feature = "cuda") && args.contains(&"cuda") {
            continue;
        }
        let output = command.args(*args).output().unwrap();
        let stderr = expect_code(&output, *code);
        assert!(stderr.contains(says), "{args:?} should name {says:?}: {stderr}");
    }
}

#[test]
fn the_light_detector_serves_where_mask_rcnn_is_missing() {
    let models = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    for name in ["posenet3d.safetensors", "posenet3d.json", "rootnet.safetensors", "rootnet.json"] {
        fs::hard_link(support::models::folder().unwrap().join(name), models.path().join(name)).unwrap();
    }
    let photo = models.path().join("photo.png");
    picture(320, 200, 0).save(&photo).unwrap();
    let run = |more: &[&str], code| {
        let out = models.path().join("out");
        let mut command = lixelscope();
        command.args(["run", "--estimator", "skeleton", "--max-people", "3", "--models"]).arg(models.path()).args(more);
        let output = command.arg("--source").arg(&photo).arg("--out").arg(&out).output().unwrap();
        (expect_code(&output, code), out)
    };
    // The built-in one, until there is one of the user's.
    let (_, out) = run(&[], 0);
    assert_eq!(frames(&out).len(), 1);
    support::models::write_light_detector(models.path()).unwrap();
    for choice in [&[][..], &["--detector", "light"], &["--detector", "light", "--detector-side", "96"]] {
        let (_, out) = run(choice, 0);
        let people = frames(&out).remove(0)["people"].as_array().unwrap().clone();
        assert_eq!(people.len(), 3, "every cell says that there is somebody");
        for person in people {
            // The sigmoid of 8 and the prior.
            assert!((person["score"].as_f64().unwrap() - 0.968).abs() < 1e-3, "{person}");
            let [x, y, w, h] = numbers(&person["box_px"])[..] else { panic!("four numbers") };
            assert!(x >= -0.5 && y >= -0.5 && x + w <= 319.5 && y + h <= 199.5, "{person}");
        }
    }
    let (stderr, _) = run(&["--detector", "mask-rcnn"], 2);
    assert!(stderr.contains("maskrcnn_resnet50_fpn"), "{stderr}");
    let (stderr, _) = run(&["--class", "dog"], 2);
    assert!(stderr.contains("maskrcnn_resnet50_fpn"), "only Mask R-CNN finds dogs: {stderr}");
    let (stderr, _) = run(&["--class", "dog", "--detector", "light"], 2);
    assert!(stderr.contains("--detector mask-rcnn"), "{stderr}");
}

#[test]
fn a_box_outside_the_frame_is_nobody_and_said_to_be() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("photo.png");
    picture(64, 64, 0).save(&source).unwrap();
    let mut command = lixelscope();
    command.args(["run", "--box", "-50,-50,20,20", "--box", "-5,4,30,40"]).arg("--source").arg(&source);
    let output = command.arg("--out").arg(dir.path().join("out")).output().unwrap();
    let stderr = expect_code(&output, 0);
    assert!(stderr.contains("-50,-50,20,20"), "{stderr}");
    assert_eq!(frames(&dir.path().join("out"))[0]["people"].as_array().unwrap().len(), 1);
}

#[test]
fn every_picture_of_a_folder_is_searched_for_itself() {
    let dir = tempfile::tempdir().unwrap();
    let pictures = dir.path().join("pictures");
    fs::create_dir(&pictures).unwrap();
    for (name, width, height) in [("beach", 200, 150), ("cat", 1, 1), ("dog", 120, 200), ("wide", 900, 20)] {
        picture(width, height, 0).save(pictures.join(format!("{name}.png"))).unwrap();
    }
    let mut command = lixelscope();
    command.args(["run", "--detector-side", "96", "--min-score", "0.3", "--source"]).arg(&pictures);
    expect_code(&command.arg("--out").arg(dir.path().join("out")).output().unwrap(), 0);
    let mut before = Vec::new();
    for line in frames(&dir.path().join("out")) {
        assert_eq!(line["detector_ran"], true, "{line}");
        for person in line["people"].as_array().unwrap() {
            let [x, y, w, h] = numbers(&person["box_px"])[..] else { panic!("a box is four numbers") };
            let (width, height) = (line["width"].as_f64().unwrap(), line["height"].as_f64().unwrap());
            assert!(x >= -1.0 && y >= -1.0 && x + w <= width + 1.0 && y + h <= height + 1.0, "{person}");
            assert!(!before.contains(&person["id"]), "{person} was in an earlier picture");
            before.push(person["id"].clone());
        }
    }
    assert!(!before.is_empty());
}

#[test]
fn a_broken_picture_among_others_is_told_and_the_rest_is_done() {
    let dir = tempfile::tempdir().unwrap();
    let pictures = dir.path().join("pictures");
    fs::create_dir(&pictures).unwrap();
    picture(64, 48, 0).save(pictures.join("1.png")).unwrap();
    fs::write(pictures.join("2.png"), b"\x89PNG\r\n\x1a\n broken").unwrap();
    picture(80, 60, 0).save(pictures.join("10.png")).unwrap();
    let out = dir.path().join("out");
    let mut command = lixelscope();
    command.args(["run", "--whole-frame"]).arg("--source").arg(&pictures).arg("--out").arg(&out);
    let stderr = expect_code(&command.output().unwrap(), 0);
    assert!(stderr.contains("2.png"), "{stderr}");
    let names: Vec<_> = frames(&out).iter().map(|frame| frame["name"].as_str().unwrap().to_owned()).collect();
    assert_eq!(names.len(), 2);
    assert!(names[0].ends_with("1.png") && names[1].ends_with("10.png"), "{names:?}");
}

#[test]
fn doctor_says_what_is_there_what_is_missing_and_what_is_broken() {
    let output = lixelscope().arg("doctor").output().unwrap();
    expect_code(&output, 0);
    let text = String::from_utf8(output.stdout).unwrap();
    for says in ["i2l_body.safetensors", "211 vertices", "graphics adapters", "cameras", "ffmpeg", "works      cpu"] {
        assert!(text.contains(says), "doctor does not say {says:?}:\n{text}");
    }
    assert!(text.contains("ready      --estimator body") && text.contains("ready      --estimator skeleton"), "{text}");
    assert!(text.contains("ready      --estimator hand") && !text.contains("distances are guessed"), "{text}");

    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("rootnet.pth.tar"), "not a checkpoint").unwrap();
    let output = lixelscope().arg("doctor").arg("--models").arg(dir.path()).output().unwrap();
    expect_code(&output, 0);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("unreadable RootNet") && text.contains("why:"), "{text}");
    assert!(text.contains("distances are guessed"), "{text}");
    assert!(text.contains("missing    3D PoseNet") && text.contains("smpl.is.tue.mpg.de"), "{text}");
}

#[test]
fn convert_makes_a_file_that_holds_the_same_and_nothing_half_done() {
    let golden = support::project_golden_dir();
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("out.safetensors");
    for from in ["checkpoint_zip.pth.tar", "checkpoint_legacy.pth.tar"] {
        let output = lixelscope().arg("convert").arg(golden.join(from)).arg(&to).output().unwrap();
        expect_code(&output, 0);
        let made = candle_core::safetensors::load(&to, &candle_core::Device::Cpu).unwrap();
        assert!(made.contains_key("pose_backbone.conv1.weight"), "{:?}", made.keys());
    }
    let before = fs::read(&to).unwrap();
    let torn = dir.path().join("torn.pth.tar");
    let whole = fs::read(golden.join("checkpoint_legacy.pth.tar")).unwrap();
    fs::write(&torn, &whole[..whole.len() / 2]).unwrap();
    let output = lixelscope().arg("convert").arg(&torn).arg(&to).output().unwrap();
    expect_code(&output, 1);
    assert_eq!(fs::read(&to).unwrap(), before, "the old file is left as it was");
}

#[test]
fn bench_prints_a_table_and_writes_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let json = dir.path().join("bench.json");
    let mut command = lixelscope();
    command.args(["bench", "--backend", "cpu", "--only", "rootnet", "--runs", "2", "--batch", "1,2"]);
    command.args(["--threads", "1,2", "--json"]);
    let output = command.arg(&json).output().unwrap();
    expect_code(&output, 0);
    let report: Value = serde_json::from_str(&fs::read_to_string(&json).unwrap()).unwrap();
    let rows = report["rows"].as_array().unwrap();
    let totals: Vec<_> = rows.iter().filter(|row| row["stage"] == "total").collect();
    let timed: Vec<_> =
        totals.iter().map(|row| [&row["threads"], &row["batch"]].map(|v| v.as_u64().unwrap())).collect();
    assert_eq!(timed, [[1, 1], [1, 2], [2, 1], [2, 2]]);
    let text = String::from_utf8(output.stdout).unwrap();
    for row in totals {
        let (median, p95) = (row["median_ms"].as_f64().unwrap(), row["p95_ms"].as_f64().unwrap());
        assert!(median > 0.0 && p95 >= median);
        assert!(text.contains(&format!("{median:.2}")), "{text}");
        let (gflops, share) = (row["gflops"].as_f64().unwrap(), row["peak_share"].as_f64().unwrap());
        // RootNet does some 7 G multiply-adds for a person, with Winograd's savings about half of it.
        let billions = gflops * median / 1e3 / 2.0 / row["batch"].as_f64().unwrap();
        assert!((2.0..8.0).contains(&billions), "{billions} G multiply-adds");
        assert!(share > 0.0 && share < 1.5, "{share} of the peak");
    }
    assert_eq!(report["threads"], serde_json::json!([1, 2]));
    // How they scale: a line for each batch, the first number of threads as the measure.
    let scaling = text.split_once("2 threads\n").map_or("", |(_, rest)| rest);
    assert_eq!(scaling.lines().count(), 2, "{text}");
    assert!(scaling.lines().all(|line| line.starts_with("rootnet") && line.contains("( 1.00 x)")), "{scaling}");
    let cost = &report["networks"][0];
    assert!(cost["network"] == "rootnet" && cost["start_ms"].as_f64().unwrap() > 0.0, "{cost}");
    if cfg!(target_os = "linux") {
        // 34 million weights, of which some are kept transformed.
        let mib = cost["peak_resident_mib"].as_f64().unwrap();
        assert!((100.0..2000.0).contains(&mib), "{mib} MiB");
    }
}

#[test]
fn the_binary_alone_is_enough() {
    let dir = tempfile::tempdir().unwrap();
    let alone: PathBuf = dir.path().join("elsewhere");
    fs::copy(env!("CARGO_BIN_EXE_lixelscope"), &alone).unwrap();
    picture(96, 96, 0).save(dir.path().join("photo.png")).unwrap();
    let output = Command::new(&alone)
        .current_dir(dir.path())
        .env("LIXELSCOPE_MODELS", support::models::folder().unwrap())
        .args(["run", "--source", "photo.png", "--out", "out", "--overlay", "--whole-frame"])
        .output()
        .unwrap();
    expect_code(&output, 0);
    assert!(dir.path().join("out/overlay_000000.png").is_file());
}

/// The program with nothing but what is built in.
fn with_built_in_weights(empty: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lixelscope"));
    command.env("LIXELSCOPE_MODELS", empty);
    command
}

#[test]
fn how_far_off_people_are_is_written_where_the_truth_is_known() {
    let dir = tempfile::tempdir().unwrap();
    let run = |source: &str, out: &str| {
        let mut command = with_built_in_weights(dir.path());
        command.current_dir(dir.path()).args(["run", "--frames", "1", "--source", source, "--out", out]);
        expect_code(&command.output().unwrap(), 0);
        frames(&dir.path().join(out)).remove(0)
    };
    let frame = run("synthetic:7", "people");
    assert_eq!(frame["true_people"], 1);
    let errors = &frame["people"][0]["errors"];
    for (name, most) in [("mpjpe_mm", 200.0), ("pa_mpjpe_mm", 120.0), ("root_mm", 900.0)] {
        let error = errors[name].as_f64().unwrap_or_else(|| panic!("{name}: {frame}"));
        assert!(error > 1.0 && error < most, "{name}: {error}");
    }
    picture(96, 96, 0).save(dir.path().join("photo.png")).unwrap();
    let frame = run("photo.png", "photo");
    assert!(frame.get("true_people").is_none() && !frame.to_string().contains("errors"), "{frame}");

    // Hands are not held against people.
    let synth = ["synth", "--kind", "hands", "--count", "1", "--out", "hands"];
    expect_code(&with_built_in_weights(dir.path()).current_dir(dir.path()).args(synth).output().unwrap(), 0);
    let eval = || {
        let mut command = with_built_in_weights(dir.path());
        command.current_dir(dir.path()).args(["eval", "hands"]);
        command
    };
    let told = expect_code(&eval().output().unwrap(), 2);
    assert!(told.contains("--estimator hand"), "{told}");
    expect_code(&eval().args(["--estimator", "hand"]).output().unwrap(), 0);
}

#[test]
fn a_network_is_trained_and_another_does_not_go_on_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let train = |args: &[&str]| {
        let mut command = with_built_in_weights(dir.path());
        let small = ["--input", "64", "--width", "16", "--batch", "4", "--threads", "1", "--out", "root"];
        command.current_dir(dir.path()).args(["train", "root"]).args(small).args(args);
        command.output().unwrap()
    };
    expect_code(&train(&["--samples", "64"]), 0);
    let file = |name: &str| dir.path().join("root").join(name);
    let curves = fs::read_to_string(file("curves.csv")).unwrap();
    assert!(curves.contains("64,scenes_mrpe_mm,") && curves.contains("64,gamma,"), "{curves}");
    assert!(image::open(file("curves.png")).is_ok());
    let weights = fs::read(file("weights.safetensors")).unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = |name| fs::metadata(file(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode("weights.safetensors"), mode("curves.csv"), "as readable as other files");
    }
    let told = expect_code(&train(&["--samples", "128", "--of", "hand"]), 1);
    assert!(told.contains("what it learnt was SMPL, and now it is MANO"), "{told}");
    assert!(fs::read(file("weights.safetensors")).unwrap() == weights, "nothing is lost");
    // Done already.
    expect_code(&train(&["--samples", "64"]), 0);
    assert!(fs::read(file("weights.safetensors")).unwrap() == weights);
}
