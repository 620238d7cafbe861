//! A small models folder with formula weights, for tests of the whole program: every network has a ResNet-18, patches
//! of 64 pixels and heatmaps of 16 bins, so that a person takes milliseconds. What they say means nothing, but it is
//! always the same.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result};
use candle_core::{DType, Device, Result as CandleResult, Shape, Tensor};
use candle_nn::var_builder::SimpleBackend;
use candle_nn::{Init, VarBuilder};

use lixelscope::nets::NetSizes;
use lixelscope::nets::i2l::{I2l, I2lShape, ParamShape};
use lixelscope::nets::maskrcnn::{self, MaskRcnn};
use lixelscope::nets::person_detector::{self, PersonDetector};
use lixelscope::nets::posenet3d::PoseNet3d;
use lixelscope::nets::rootnet::RootNet;

use super::{Tensors, fill, project_golden_dir};

/// Layers of the backbone.
pub const RESNET: usize = 18;
/// Side of the patches, pixels.
pub const INPUT: usize = 64;
/// Bins of the heatmaps.
pub const HEATMAP: usize = 16;

/// The body of `smpl_layout.npz`: too few vertices for the five joints of the face, which are vertices of SMPL.
pub const BODY: I2lShape =
    I2lShape { joints: 24, vertices: 211, params: Some(ParamShape { rotations: 24, shape: 10 }) };
/// The hand of `mano_layout_chumpy_py2.pkl`.
pub const HAND: I2lShape =
    I2lShape { joints: 21, vertices: 778, params: Some(ParamShape { rotations: 16, shape: 10 }) };
/// Joints of the skeleton: MuCo-3DHP's.
pub const SKELETON_JOINTS: usize = 21;

/// The sizes of all networks of the folder.
pub fn sizes() -> NetSizes {
    NetSizes::new(RESNET, INPUT, HEATMAP).expect("these sizes fit together")
}

/// Writes all networks but the detector, with their configurations, and a body and a hand model, under the names
/// that the program looks for. Some 400 MB.
pub fn write_all(folder: &Path) -> Result<()> {
    write_bodies(folder)?;
    write_i2l(folder, "i2l_body", BODY)?;
    write_i2l(folder, "i2l_hand", HAND)?;
    write_rootnet(folder)?;
    write_posenet3d(folder, SKELETON_JOINTS)
}

/// What a body in a frame needs, detector excepted: RootNet, I2L-MeshNet and the body model. Some 200 MB.
pub fn write_body(folder: &Path) -> Result<()> {
    write_bodies(folder)?;
    write_rootnet(folder)?;
    write_i2l(folder, "i2l_body", BODY)
}

/// The random body and hand of the golden files, under the official names.
pub fn write_bodies(folder: &Path) -> Result<()> {
    for (from, to) in [
        ("smpl_layout_chumpy_py2.pkl", "basicModel_neutral_lbs_10_207_0_v1.0.0.pkl"),
        ("mano_layout_chumpy_py2.pkl", "MANO_RIGHT.pkl"),
    ] {
        std::fs::copy(project_golden_dir().join(from), folder.join(to)).with_context(|| format!("copying {from}"))?;
    }
    Ok(())
}

/// `<stem>.safetensors` and `<stem>.json` of an I2L-MeshNet; `i2l_body` and `i2l_hand` are the names that count.
pub fn write_i2l(folder: &Path, stem: &str, shape: I2lShape) -> Result<()> {
    write(folder, stem, |vb| I2l::load(sizes(), shape, vb).map(drop))
}

/// RootNet.
pub fn write_rootnet(folder: &Path) -> Result<()> {
    write(folder, "rootnet", |vb| RootNet::load(sizes(), vb).map(drop))
}

/// 3D PoseNet.
pub fn write_posenet3d(folder: &Path, joints: usize) -> Result<()> {
    write(folder, "posenet3d", |vb| PoseNet3d::load(sizes(), joints, vb).map(drop))
}

fn write(folder: &Path, stem: &str, load: impl Fn(&VarBuilder) -> CandleResult<()>) -> Result<()> {
    let weights = formula_weights(load)?;
    candle_core::safetensors::save(&weights, folder.join(format!("{stem}.safetensors")))?;
    let config = serde_json::json!({ "resnet": RESNET, "input": INPUT, "heatmap": HEATMAP });
    std::fs::write(folder.join(format!("{stem}.json")), config.to_string())?;
    Ok(())
}

/// All tensors that `load` asks for.
pub fn formula_weights(load: impl Fn(&VarBuilder) -> CandleResult<()>) -> Result<Tensors> {
    let recorded = Formula::default();
    load(&VarBuilder::from_backend(Box::new(recorded.clone()), DType::F32, Device::Cpu))?;
    let tensors = recorded.0.lock().expect("loading is over").clone();
    Ok(tensors)
}

/// Makes whatever tensor is asked for, and keeps it.
#[derive(Clone, Default)]
struct Formula(Arc<Mutex<Tensors>>);

/// Offset and scale of a tensor: as in the golden manifests, so that activations keep their size through the layers.
fn offset_and_scale(name: &str, shape: &[usize]) -> (f64, f64) {
    let last = name.rsplit('.').next().unwrap_or_default();
    match (last, shape.len()) {
        ("running_var", _) => (1.0, 0.3),
        ("bias", _) if name.contains("depth_layer") => (1.0, 0.1),
        ("running_mean" | "bias", _) => (0.0, 0.1),
        // The last norm of a residual block is small, so that the sum of blocks does not grow.
        (_, 1) if name.contains(".bn2.") => (0.2, 0.02),
        (_, 1) => (1.0, 0.1),
        _ => {
            let deconv = name.contains("deconv");
            let inputs = if deconv { shape[0] * 4 } else { shape[1..].iter().product() };
            let gain = match name {
                // These two networks read values up to 255 / 0.229.
                "backbone.conv1.weight" => 0.002,
                "root.depth_layer.weight" => 0.1,
                _ if name.contains("conv_x") || name.contains("conv_y") => 4.0,
                _ => 1.0,
            };
            (0.0, (6.0 / inputs as f64).sqrt() * gain)
        }
    }
}

impl SimpleBackend for Formula {
    fn get(&self, shape: Shape, name: &str, _: Init, _: DType, device: &Device) -> CandleResult<Tensor> {
        let (offset, scale) = offset_and_scale(name, shape.dims());
        let tensor = fill(name, offset, scale, shape.dims(), device).map_err(candle_core::Error::msg)?;
        self.0.lock().expect("loading runs on one thread").insert(name.to_owned(), tensor.clone());
        Ok(tensor)
    }

    fn get_unchecked(&self, name: &str, _: DType, _: &Device) -> CandleResult<Tensor> {
        candle_core::bail!("the shape of {name} is not known")
    }

    fn contains_tensor(&self, _: &str) -> bool {
        true
    }
}

/// Mask R-CNN that takes every proposal for a person, of whatever picture: the predictor is its bias alone.
pub fn write_detector(folder: &Path) -> Result<()> {
    const STEM: &str = "maskrcnn_resnet50_fpn";
    let config = maskrcnn::Config { layers: RESNET, ..maskrcnn::Config::default() };
    let mut weights = formula_weights(|vb| {
        MaskRcnn::load(config.clone(), vb).map(drop).map_err(|error| candle_core::Error::Msg(format!("{error:#}")))
    })?;
    let bias: Vec<f32> = (0..config.classes).map(|label| if label == 1 { 8.0 } else { 0.0 }).collect();
    weights.insert("roi_heads.box_predictor.cls_score.bias".into(), Tensor::new(bias, &Device::Cpu)?);
    for name in ["cls_score.weight", "bbox_pred.weight", "bbox_pred.bias"] {
        let name = format!("roi_heads.box_predictor.{name}");
        let zeros = weights[&name].zeros_like()?;
        weights.insert(name, zeros);
    }
    candle_core::safetensors::save(&weights, folder.join(format!("{STEM}.safetensors")))?;
    std::fs::write(folder.join(format!("{STEM}.json")), serde_json::json!({ "resnet": RESNET }).to_string())?;
    Ok(())
}

/// The light detector, which takes every cell of whatever picture for the middle of a person: its last layer is its bias
/// alone.
pub fn write_light_detector(folder: &Path) -> Result<()> {
    let mut weights = formula_weights(|vb| {
        let made = PersonDetector::load(person_detector::Config::default(), vb);
        made.map(drop).map_err(|error| candle_core::Error::Msg(format!("{error:#}")))
    })?;
    let zeros = weights["output.weight"].zeros_like()?;
    weights.insert("output.weight".into(), zeros);
    weights.insert("output.bias".into(), Tensor::new(&[8_f32, 0.0, 0.0, 0.0, 0.0], &Device::Cpu)?);
    candle_core::safetensors::save(&weights, folder.join("person_detector.safetensors"))?;
    Ok(())
}

static MADE: Mutex<()> = Mutex::new(());

/// A folder with all of the above, made once for each build of the tests.
pub fn folder() -> Result<PathBuf> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("small-models-2");
    let _alone = MADE.lock();
    if !folder.is_dir() {
        let part = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
        write_all(part.path())?;
        write_detector(part.path())?;
        // Another test binary may have been faster: its folder is as good.
        if std::fs::rename(part.path(), &folder).is_ok() {
            let _ = part.keep();
        }
    }
    Ok(folder)
}
