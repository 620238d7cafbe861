//! The files that users own: checkpoints, body models, the models folder. Golden files, and hostile ones.
//!
//! `GOLDEN_DIR` names another folder of golden files; what it lacks is taken from the project's own.

use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use glam::Vec3;
use lixelscope::body::{BodyModel, Family, SnapshotBody};
use lixelscope::models::{self, Origin, Role, Status};
use lixelscope::nets::convert::convert;
use lixelscope::nets::weights::{self, Container, LoadOptions, WeightFile};
use safetensors::Dtype;

#[path = "files/hostile.rs"]
mod hostile;
#[path = "files/make.rs"]
mod make;

fn golden_folders() -> Vec<PathBuf> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    std::env::var_os("GOLDEN_DIR").map(PathBuf::from).into_iter().chain([own]).collect()
}

fn golden(name: &str) -> PathBuf {
    let paths: Vec<_> = golden_folders().into_iter().map(|folder| folder.join(name)).collect();
    paths.iter().find(|path| path.exists()).unwrap_or(&paths[0]).clone()
}

/// Same names, types, elements, bit for bit. The expected file stores scalars as one element of one dimension.
fn assert_same_tensors(file: &WeightFile, expected: &WeightFile) {
    assert!(file.names().eq(expected.names()), "{:?}", file.names().collect::<Vec<_>>());
    for name in expected.names() {
        assert_eq!(file.dtype(name), expected.dtype(name), "{name}");
        let shape = file.shape(name).unwrap();
        let shape = if shape.is_empty() { &[1][..] } else { shape };
        let expected_shape = expected.shape(name).unwrap();
        assert_eq!(shape, if expected_shape.is_empty() { &[1][..] } else { expected_shape }, "{name}");
        assert!(file.data(name).unwrap() == expected.data(name).unwrap(), "{name} has other elements");
    }
}

const CHECKPOINTS: [(&str, Container); 3] = [
    ("checkpoint_zip.pth.tar", Container::TorchZip),
    ("checkpoint_legacy.pth.tar", Container::TorchLegacy),
    ("checkpoint_expected.safetensors", Container::Safetensors),
];

#[test]
fn all_containers_hold_the_expected_tensors() {
    let expected = WeightFile::open(golden("checkpoint_expected.safetensors")).unwrap();
    for (name, container) in CHECKPOINTS {
        let file = WeightFile::open(golden(name)).unwrap();
        assert_eq!(file.container(), container);
        assert_same_tensors(&file, &expected);
        // The same through candle, in the stored type and widened.
        let (half, wide) = (file.tensor("half", &Device::Cpu).unwrap(), file.values("half").unwrap());
        assert_eq!(half.dtype(), DType::F16);
        assert_eq!(half.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap(), wide.1);
    }
}

#[test]
fn a_converted_checkpoint_is_the_same_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let expected = WeightFile::open(golden("checkpoint_expected.safetensors")).unwrap();
    for (name, _) in CHECKPOINTS {
        let output = folder.path().join("out.safetensors");
        let mut progress = Vec::new();
        let converted = convert(&golden(name), &output, false, |done, total| progress.push((done, total))).unwrap();
        assert_eq!(converted.tensors, expected.names().count());
        assert_eq!(converted.bytes, std::fs::metadata(&output).unwrap().len());
        let &(done, total) = progress.last().unwrap();
        assert!(done == total && progress.is_sorted());
        let file = WeightFile::open(&output).unwrap();
        assert_eq!(file.container(), Container::Safetensors);
        assert_same_tensors(&file, &expected);
        // The format's own reader accepts it too.
        safetensors::SafeTensors::deserialize(&std::fs::read(&output).unwrap()).unwrap();
    }
    let files: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(files, ["out.safetensors"], "nothing else is left in the folder");
}

#[test]
fn convert_refuses_to_write_over_its_input_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("in.safetensors");
    std::fs::copy(golden("checkpoint_expected.safetensors"), &input).unwrap();
    let again = folder.path().join(".").join("in.safetensors");
    let error = convert(&input, &again, false, |_, _| {}).unwrap_err();
    assert!(error.to_string().contains("input itself"), "{error:#}");
    assert!(convert(&input, &folder.path().join("none/out.safetensors"), false, |_, _| {}).is_err());
    assert!(convert(&input, &folder.path().join("out.pth"), false, |_, _| {}).is_err());
    let broken = folder.path().join("broken.pth");
    std::fs::write(&broken, b"PK\x03\x04").unwrap();
    assert!(convert(&broken, &folder.path().join("out.safetensors"), false, |_, _| {}).is_err());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    assert_same_tensors(
        &WeightFile::open(&input).unwrap(),
        &WeightFile::open(golden("checkpoint_expected.safetensors")).unwrap(),
    );
}

#[test]
fn everything_that_does_not_fit_is_named_at_once() {
    let file = WeightFile::open(golden("checkpoint_legacy.pth.tar")).unwrap();
    let error = weights::load(&file, LoadOptions::new(&Device::Cpu), |vb| {
        vb.get((64, 3, 7, 7), "pose_backbone.conv1.weight")?;
        vb.get(64, "pose_backbone.bn1.weights")?;
        vb.get(65, "pose_backbone.bn1.bias")?;
        vb.get((211, 16, 2), "mesh_net.conv_x.0.weight")?;
        vb.pp("mesh_net").get(29, "conv_y.0.bias")
    });
    let error = format!("{:#}", error.unwrap_err());
    for part in [
        "checkpoint_legacy.pth.tar",
        "4 tensors",
        "pose_backbone.bn1.weights: missing, expected [64]",
        "pose_backbone.bn1.bias: expected [65], found [64]",
        "mesh_net.conv_x.0.weight: expected [211, 16, 2], found [211, 16, 1]",
        "mesh_net.conv_y.0.bias: missing, expected [29]",
        "view.slice",
    ] {
        assert!(error.contains(part), "{part} is not in: {error}");
    }
    assert!(!error.contains("num_batches_tracked") && !error.contains("human_model_layer"), "{error}");
    assert!(!error.contains("pose_backbone.conv1.weight"), "what fits is not listed: {error}");
}

#[test]
fn unused_tensors_are_listed_and_progress_ends_at_the_total() {
    let file = WeightFile::open(golden("checkpoint_zip.pth.tar")).unwrap();
    let mut calls = Vec::new();
    let mut options = LoadOptions::new(&Device::Cpu);
    options.progress = Box::new(|done, total| calls.push((done, total)));
    let (tensors, report) = weights::load(&file, options, |vb| -> anyhow::Result<_> {
        assert!(!vb.contains_tensor("absent"));
        let bn = vb.pp("pose_backbone").pp("bn1");
        Ok([vb.get((3, 6), "double")?, bn.get(64, "weight")?, vb.get((6, 40), "view.transposed")?])
    })
    .unwrap();
    assert!(tensors.iter().all(|t| t.dtype() == DType::F32));
    assert_eq!(report.used, 3);
    assert_eq!(
        report.unused,
        [
            "half",
            "mesh_net.conv_x.0.bias",
            "mesh_net.conv_x.0.weight",
            "pose_backbone.bn1.bias",
            "pose_backbone.bn1.running_mean",
            "pose_backbone.bn1.running_var",
            "pose_backbone.conv1.weight",
            "view.slice"
        ]
    );
    let expected = WeightFile::open(golden("checkpoint_expected.safetensors")).unwrap();
    let transposed = expected.tensor("view.transposed", &Device::Cpu).unwrap();
    assert_eq!(tensors[2].to_vec2::<f32>().unwrap(), transposed.to_vec2::<f32>().unwrap());
    assert!(calls.is_sorted() && calls.last().is_some_and(|(done, total)| done == total), "{calls:?}");
}

#[test]
fn old_and_new_names_of_mask_rcnn_both_load() {
    let folder = tempfile::tempdir().unwrap();
    let new =
        ["backbone.fpn.inner_blocks.0.0.weight", "backbone.fpn.layer_blocks.3.0.bias", "rpn.head.conv.0.0.weight"];
    let old = ["backbone.fpn.inner_blocks.0.weight", "backbone.fpn.layer_blocks.3.bias", "rpn.head.conv.weight"];
    for (name, names) in [("new", new), ("old", old)] {
        let path = folder.path().join(format!("{name}.safetensors"));
        let tensor = |i: usize| Tensor::full(i as f32, 2, &Device::Cpu).unwrap();
        let tensors = names.iter().enumerate().map(|(i, name)| ((*name).to_owned(), tensor(i))).collect();
        candle_core::safetensors::save(&tensors, &path).unwrap();
        let file = WeightFile::open(&path).unwrap();
        let options = LoadOptions { fallback_name: weights::old_fpn_name, ..LoadOptions::new(&Device::Cpu) };
        let (loaded, report) =
            weights::load(&file, options, |vb| new.iter().map(|n| vb.get(2, n)).collect::<Result<Vec<_>, _>>())
                .unwrap();
        assert!(report.unused.is_empty());
        for (i, tensor) in loaded.iter().enumerate() {
            assert_eq!(tensor.to_vec1::<f32>().unwrap(), [i as f32; 2]);
        }
    }
    for untouched in ["backbone.body.layer1.0.conv1.weight", "roi_heads.box_head.fc6.weight", "rpn.head.bbox_pred.bias"]
    {
        assert_eq!(weights::old_fpn_name(untouched), None);
    }
}

#[test]
fn every_type_of_element_is_read() {
    let folder = tempfile::tempdir().unwrap();
    // Two elements of each, 1 and -1 (or the largest where there is no sign).
    let cases: [(&str, Dtype, &[u8], [f64; 2]); 6] = [
        ("BFloat16", Dtype::BF16, &[0x80, 0x3f, 0x80, 0xbf], [1.0, -1.0]),
        ("Int", Dtype::I32, &[1, 0, 0, 0, 255, 255, 255, 255], [1.0, -1.0]),
        ("Short", Dtype::I16, &[1, 0, 255, 255], [1.0, -1.0]),
        ("Char", Dtype::I8, &[1, 255], [1.0, -1.0]),
        ("Byte", Dtype::U8, &[1, 255], [1.0, 255.0]),
        ("Bool", Dtype::BOOL, &[1, 0], [1.0, 0.0]),
    ];
    for (class, dtype, bytes, values) in cases {
        let tensor = make::Tensor { class, shape: vec![2], strides: vec![1], offset: 0, storage: 2 };
        for (name, content) in [("zip", make::zip(&tensor, bytes)), ("legacy", make::legacy(&tensor, 2, bytes))] {
            let path = folder.path().join(format!("{class}_{name}.pth"));
            std::fs::write(&path, content).unwrap();
            let file = WeightFile::open(&path).unwrap();
            assert_eq!(file.dtype("w"), Some(dtype));
            assert_eq!(file.values("w").unwrap(), (vec![2], values.to_vec()), "{class} {name}");
        }
    }
}

fn largest_distance(a: &[Vec3], b: &[Vec3]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| a.distance(*b)).fold(0.0, f32::max)
}

#[test]
fn three_layouts_hold_one_body() {
    let [chumpy, plain, npz] = ["smpl_layout_chumpy_py2.pkl", "smpl_layout_plain_py3.pkl", "smpl_layout.npz"]
        .map(|name| BodyModel::open(&golden(name)).unwrap());
    let pose: Vec<Vec3> = (0..24).map(|j| Vec3::new(0.1, -0.05, 0.02) * j as f32).collect();
    let posed = chumpy.pose(&pose, &[1.0, -2.0, 0.5], Vec3::X).unwrap();
    for other in [plain, npz] {
        assert_eq!(chumpy.topology(), other.topology());
        assert_eq!(posed, other.pose(&pose, &[1.0, -2.0, 0.5], Vec3::X).unwrap());
    }
    let topology = chumpy.topology();
    assert_eq!((topology.vertex_count, topology.faces.len(), topology.joint_regressor.len()), (211, 412, 24));
    assert!(chumpy.pose(&pose[..23], &[], Vec3::ZERO).is_err());
}

#[test]
fn a_snapshot_supplies_faces_and_regressor() {
    let file = WeightFile::open(golden("checkpoint_legacy.pth.tar")).unwrap();
    let body = SnapshotBody::read(&file).unwrap().unwrap();
    assert!(body.model.is_none(), "it has no blend shapes");
    assert_eq!(body.topology.vertex_count, 211);
    assert_eq!(body.topology.faces.len(), 412);
    assert_eq!(body.topology.skeleton.names.len(), 24);
    let (_, faces) = file.values("human_model_layer.th_faces").unwrap();
    assert!(body.topology.faces.as_flattened().iter().zip(&faces).all(|(&a, &b)| f64::from(a) == b));
    let golden_body = WeightFile::open(golden("lbs_smpl.safetensors")).unwrap();
    assert!(SnapshotBody::read(&golden_body).unwrap().is_none());
}

/// A body of SMPL's real size: its face joints are vertices, and a rest pose is its template.
#[test]
fn a_whole_smpl_body_has_its_face() {
    let model = BodyModel::from_bytes(&make::smpl_npz(6890, 24)).unwrap();
    assert_eq!(model.family(), Family::Smpl);
    let topology = model.topology();
    assert_eq!(topology.skeleton.names.len(), 29);
    assert_eq!(topology.skeleton.names[24..], ["nose", "left_eye", "right_eye", "left_ear", "right_ear"]);
    assert_eq!(topology.joint_regressor[24], [(331, 1.0)]);
    let rest = model.pose(&[Vec3::ZERO; 24], &[], Vec3::ZERO).unwrap();
    assert_eq!(rest.vertices_m, model.template_m());
    assert_eq!(rest.joints_m[28], model.template_m()[3990]);
    assert!(largest_distance(&topology.joints(&rest.vertices_m).unwrap(), &rest.joints_m) < 1e-5);
    assert!(topology.joints(&rest.vertices_m[1..]).is_none());
    // Turning the whole body turns every vertex about the root.
    let quarter = std::f32::consts::FRAC_PI_2;
    let mut pose = [Vec3::ZERO; 24];
    pose[0] = Vec3::Y * quarter;
    let turned = model.pose(&pose, &[], Vec3::ZERO).unwrap();
    let root = rest.joints_m[0];
    let by_hand: Vec<_> =
        rest.vertices_m.iter().map(|&v| root + glam::Quat::from_rotation_y(quarter) * (v - root)).collect();
    assert!(largest_distance(&turned.vertices_m, &by_hand) < 1e-5);
}

#[test]
fn a_hand_has_its_finger_tips_and_its_regressor_in_the_networks_order() {
    let model = BodyModel::open(&golden("mano_layout_chumpy_py2.pkl")).unwrap();
    let topology = model.topology();
    assert_eq!((model.family(), model.pose_joint_count()), (Family::Mano, 16));
    assert_eq!(topology.skeleton.names.len(), 21);
    let tips: Vec<_> = [4, 8, 12, 16, 20].map(|joint| topology.joint_regressor[joint].as_slice()).into();
    assert_eq!(tips, [745, 317, 445, 556, 673].map(|vertex| [(vertex, 1.0)]));
    // Every joint but the wrist hangs on one that comes before it.
    assert!(topology.skeleton.parents.iter().enumerate().skip(1).all(|(j, parent)| parent.is_some_and(|p| p < j)));
}

#[test]
fn the_survey_tells_found_from_missing_from_unreadable() {
    let folder = tempfile::tempdir().unwrap();
    let put = |from: &str, to: &str| std::fs::copy(golden(from), folder.path().join(to)).unwrap();
    put("smpl_layout_chumpy_py2.pkl", "basicModel_neutral_lbs_10_207_0_v1.0.0.pkl");
    put("checkpoint_legacy.pth.tar", "posenet3d.pth.tar");
    put("checkpoint_legacy.pth.tar", "rootnet_snapshot_18.pth.tar");
    std::fs::write(folder.path().join("i2l_hand.pth.tar"), "<!DOCTYPE html>").unwrap();
    std::fs::create_dir(folder.path().join("mano")).unwrap();
    put("mano_layout_chumpy_py2.pkl", "mano/MANO_RIGHT.pkl");
    let mut tensors = std::collections::HashMap::new();
    for (name, shape) in [("pose_net.conv_x.0.weight", (29, 2048, 1)), ("mesh_net.conv_x.0.weight", (6890, 16, 1))] {
        tensors.insert(name.to_owned(), Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap());
    }
    candle_core::safetensors::save(&tensors, folder.path().join("i2l_body.safetensors")).unwrap();

    let entries = models::survey(folder.path());
    let status = |role| &entries.iter().find(|entry| entry.role == role).unwrap().status;
    let found = |role| match status(role) {
        Status::Found { summary, .. } => summary.as_str(),
        other => panic!("{other:?}"),
    };
    assert_eq!(found(Role::Smpl), "24 joints, 211 vertices, 412 faces");
    assert!(found(Role::Mano).starts_with("21 joints, 778 vertices"));
    assert_eq!(found(Role::I2lBody), "2 tensors, 0.2 M parameters, 29 joints, 6,890 vertices, ResNet-50");
    let unreadable = |role| match status(role) {
        Status::Unreadable { why, .. } => why.as_str(),
        other => panic!("{other:?}"),
    };
    assert!(unreadable(Role::RootNet).contains("root.depth_layer.weight"));
    assert!(unreadable(Role::PoseNet3d).contains("head.final_layer.weight"));
    assert!(unreadable(Role::I2lHand).contains("<!DOCTYPE"));
    assert!(matches!(status(Role::Detector), Status::Missing { names, .. } if !names.is_empty()));
    // A body under the name of a hand, and every role's checkpoint is known to the survey.
    let wrong = tempfile::tempdir().unwrap();
    std::fs::copy(golden("smpl_layout_plain_py3.pkl"), wrong.path().join("MANO_RIGHT.pkl")).unwrap();
    for role in Role::ALL.into_iter().filter(|role| !role.is_body_model()) {
        let name = format!("{}.pth.tar", role.stems()[0]);
        std::fs::copy(golden("checkpoint_legacy.pth.tar"), wrong.path().join(name)).unwrap();
    }
    for entry in models::survey(wrong.path()).iter().filter(|entry| entry.role != Role::Smpl) {
        let Status::Unreadable { why, .. } = &entry.status else { panic!("{entry:?}") };
        assert!(why.contains(if entry.role == Role::Mano { "SMPL" } else { "it has no " }), "{why}");
    }
    // Without files there is what the program brings, and nothing else.
    let nowhere = models::survey(&folder.path().join("nowhere"));
    let built_in = |status: &Status| matches!(status, Status::Found { origin: Origin::BuiltIn, .. });
    assert!(nowhere.iter().all(|entry| matches!(entry.status, Status::Missing { .. }) || built_in(&entry.status)));
}
