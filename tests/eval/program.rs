//! The command as a user calls it, with small networks that know nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use lixelscope::body::standin;
use lixelscope::nets::i2l::I2lShape;
use serde_json::Value;

use crate::{STUDIO, support};

/// A models folder whose I2L-MeshNet is for the stand-in body.
fn models(dir: &Path) -> PathBuf {
    let folder = dir.join("models");
    fs::create_dir(&folder).unwrap();
    let small = support::models::folder().unwrap();
    for name in
        ["rootnet.safetensors", "rootnet.json", "maskrcnn_resnet50_fpn.safetensors", "maskrcnn_resnet50_fpn.json"]
    {
        let [from, to] = [small.join(name), folder.join(name)];
        fs::hard_link(&from, &to).or_else(|_| fs::copy(&from, &to).map(drop)).unwrap();
    }
    let topology = STUDIO.body().topology();
    let (joints, vertices) = (topology.skeleton.names.len(), topology.vertex_count);
    support::models::write_i2l(&folder, "i2l_body", I2lShape { joints, vertices, params: None }).unwrap();
    folder
}

fn lixelscope(models: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lixelscope"));
    command.env("LIXELSCOPE_MODELS", models).args(args).output().unwrap()
}

#[track_caller]
fn figures(models: &Path, json: &Path, args: &[&str]) -> (Value, String) {
    let args =
        [&["eval", "--backend", "cpu", "--detector-side", "96", "--json", json.to_str().unwrap()], args].concat();
    let output = lixelscope(models, &args);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut report: Value = serde_json::from_str(&fs::read_to_string(json).unwrap()).unwrap();
    report.as_object_mut().unwrap().remove("elapsed_secs").expect("it says how long it took");
    (report, String::from_utf8(output.stdout).unwrap())
}

#[test]
fn pictures_made_on_the_fly_and_the_same_ones_from_a_folder_have_the_same_figures() {
    let dir = tempfile::tempdir().unwrap();
    let models = models(dir.path());
    let json = dir.path().join("eval.json");
    let order = ["--seed", "8", "--count", "4", "--size", "160x120"];
    let synthetic = [&["--synthetic", "--split", "poses"][..], &order].concat();
    let (report, table) = figures(&models, &json, &synthetic);
    for key in [
        "mpjpe_mm",
        "pa_mpjpe_mm",
        "mpvpe_mm",
        "pa_mpvpe_mm",
        "mrpe_mm",
        "pck3d_rel",
        "pck3d_abs",
        "auc_rel",
        "ap_root_25",
        "f_5mm",
        "f_15mm",
        "box_ap50",
        "box_ap75",
    ] {
        assert!(report[key].is_number(), "{key}: {}", report[key]);
    }
    assert_eq!((&report["count"], &report["seed"], &report["split"]), (&4.into(), &8.into(), &"poses".into()));
    assert_eq!(report["weights"]["i2l_body"], "i2l_body.safetensors");
    assert_eq!(report["weights"]["maskrcnn_resnet50_fpn"], "maskrcnn_resnet50_fpn.safetensors");
    let number = |key: &str| report[key].as_u64().unwrap();
    assert_eq!(number("people"), number("matched") + number("missed"));
    assert!(number("matched") > 0, "something of all those boxes is near somebody");
    for word in ["MPJPE", "PA-MPVPE", "MRPE", "box AP50", "matched", "hardly visible"] {
        assert!(table.contains(word), "{table}");
    }
    assert_eq!(figures(&models, &json, &synthetic).0, report, "one seed, the same figures");

    let people = dir.path().join("people");
    let folder = people.to_str().unwrap();
    let made = lixelscope(&models, &[&["synth", "--kind", "poses", "--out", folder][..], &order].concat());
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let (again, _) = figures(&models, &json, &[folder]);
    for key in ["mpjpe_mm", "pa_mpvpe_mm", "mrpe_mm", "pck3d_abs", "ap_root_25", "f_15mm", "box_ap50", "people"] {
        // Millimetres of text are in single precision.
        let [a, b] = [&again, &report].map(|report| report[key].as_f64().unwrap());
        assert!((a - b).abs() < 1e-3 * b.abs().max(1.0), "{key}: {a} from the folder, {b} on the fly");
    }
    assert_eq!(again["dataset"], folder);
    assert!(again.get("seed").is_none());

    // With the truth given, boxes and depths are perfect, and the mesh is as bad as before.
    let (given, _) = figures(&models, &json, &[folder, "--true-boxes", "--true-roots", "--count", "2"]);
    assert_eq!((&given["box_ap75"], &given["missed"], &given["count"]), (&1.0.into(), &0.into(), &2.into()));
    assert!(given["mrpe_xyz_mm"][2].as_f64().unwrap() < 0.01);
    assert!(given["mpjpe_mm"].as_f64().unwrap() > 10.0);
    assert!(given["weights"].get("maskrcnn_resnet50_fpn").is_none(), "no detector ran");

    // The folder as a source: what is found and what is true.
    let out = dir.path().join("out");
    let run = ["run", "--source", folder, "--out", out.to_str().unwrap(), "--frames", "1", "--detector-side", "96"];
    let output = lixelscope(&models, &run);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let line = fs::read_to_string(out.join("frames.jsonl")).unwrap();
    let frame: Value = serde_json::from_str(line.lines().next().unwrap()).unwrap();
    assert_ne!(frame["intrinsics"]["fx"], 1500.0, "the pictures' own camera");
}

#[test]
fn hands_are_measured_with_their_own_networks() {
    let dir = tempfile::tempdir().unwrap();
    let models = models(dir.path());
    let (joints, vertices) = (21, standin::hand().unwrap().vertices_m.len());
    support::models::write_i2l(&models, "i2l_hand", I2lShape { joints, vertices, params: None }).unwrap();
    support::models::write_light_detector(&models).unwrap();
    // The architectures are the same.
    for (from, to) in [
        ("person_detector.safetensors", "hand_detector.safetensors"),
        ("rootnet.safetensors", "rootnet_hand.safetensors"),
        ("rootnet.json", "rootnet_hand.json"),
    ] {
        fs::rename(models.join(from), models.join(to)).unwrap();
    }
    let json = dir.path().join("eval.json");
    let order = ["--synthetic", "--split", "hands", "--seed", "8", "--count", "4", "--size", "160x120"];
    let (found, _) = figures(&models, &json, &order);
    assert_eq!((&found["estimator"], &found["split"]), (&"hand".into(), &"hands".into()));
    let weights: Vec<&String> = found["weights"].as_object().unwrap().keys().collect();
    assert_eq!(weights, ["hand_detector", "i2l_hand", "rootnet_hand"]);
    assert!(found["people"].as_u64().unwrap() >= 4 && found["box_ap50"].is_number());

    let (given, _) = figures(&models, &json, &[&order[..], &["--true-boxes"]].concat());
    assert_eq!((&given["box_ap75"], &given["missed"]), (&1.0.into(), &0.into()));
    for key in ["mpjpe_mm", "pa_mpjpe_mm", "mpvpe_mm", "pa_mpvpe_mm", "mrpe_mm", "f_5mm", "f_15mm"] {
        assert!(given[key].is_number(), "{key}: {}", given[key]);
    }
    // Even a network that knows nothing keeps to the box of 0.3 m.
    assert!(given["mpjpe_mm"].as_f64().unwrap() < 300.0);
    assert!(given["mpjpe_14_mm"].is_null(), "a hand has no limbs");
}

#[test]
fn what_cannot_be_evaluated_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let empty = dir.path().to_str().unwrap();
    for (args, code, words) in [
        (vec!["eval"], 2, "DATASET"),
        (vec!["eval", "--synthetic", empty], 2, "cannot be used with"),
        (vec!["eval", empty, "--seed", "3"], 2, "cannot be used with"),
        (vec!["eval", empty], 2, "annotations.json: cannot open"),
        (vec!["eval", "--synthetic", "--count", "0"], 2, "0"),
        (vec!["eval", "--synthetic", "--size", "5x5"], 2, "16"),
        (vec!["eval", "--synthetic", "--box", "1,2,3,4"], 2, "--true-boxes"),
        (vec!["eval", "--synthetic", "--whole-frame", "--true-boxes"], 2, "not both"),
        (vec!["eval", "--synthetic", "--split", "hands", "--estimator", "body"], 2, "shows hands"),
        (vec!["eval", "--synthetic", "--count", "1", "--estimator", "skeleton"], 2, "is missing"),
        (vec!["eval", "--synthetic", "--json", "/no such folder/a.json"], 2, "cannot write"),
    ] {
        let output = lixelscope(dir.path(), &args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {stderr}");
        assert!(stderr.contains(words) && !stderr.contains("panicked"), "{args:?}: {stderr}");
    }
}
