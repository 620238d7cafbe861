//! The networks that are timed, in the published architectures.

use anyhow::Result;
use candle_core::{Device, Tensor};
use glam::Vec3;

use super::{body_model, path, random};
use crate::body::Family;
use crate::detect::Detection;
use crate::lixel;
use crate::nets::i2l::{I2l, I2lShape};
use crate::nets::input::patches_tensor;
use crate::nets::layers::{BN_EPS, Features};
use crate::nets::maskrcnn::{self, MaskRcnn};
use crate::nets::param::{ParamRegressor, joints_from_mesh, regressor_matrix};
use crate::nets::person_detector::{self, PersonDetector};
use crate::nets::posenet3d::{self, PoseNet3d};
use crate::nets::resnet::{Depth, Stages, Stem};
use crate::nets::rootnet::RootNet;
use crate::nets::{self, Lap, NetSizes};

/// A network that can be timed: takes a batch, calls `lap` at the end of each stage.
pub(super) type Run = Box<dyn Fn(usize, &mut Lap<'_>) -> Result<Outputs> + Send + Sync>;

/// What a network gave, by names, for whoever asks: nothing is fetched or converted for a watch.
pub(super) type Outputs = Box<dyn FnOnce() -> Result<Vec<(&'static str, Tensor)>> + Send>;

/// Of networks that nobody compares.
pub(super) fn no_outputs() -> Outputs {
    Box::new(|| Ok(Vec::new()))
}

/// Name of a network, and how to make it.
pub(super) type Network = (&'static str, fn(&Device) -> Result<Run>);

pub(super) const ALL: [Network; 11] = [
    ("resnet50", backbone),
    ("maskrcnn_800", |device| detector(device, 800, 1333)),
    ("maskrcnn_320", |device| detector(device, 320, 533)),
    ("person_detector", light_detector),
    ("rootnet", rootnet),
    ("i2l_body", |device| i2l(device, 29, 6890)),
    ("body_params", |device| second_stage(device, Family::Smpl)),
    ("i2l_hand", |device| i2l(device, 21, 778)),
    ("hand_params", |device| second_stage(device, Family::Mano)),
    ("posenet3d", skeleton),
    (path::NAME, path::whole_path),
];

fn detector(device: &Device, shorter_side: usize, longest_side: usize) -> Result<Run> {
    let config = maskrcnn::Config { shorter_side, longest_side, ..maskrcnn::Config::default() };
    let net = MaskRcnn::load(config, &random::weights(device))?;
    let picture = random::picture(1280, 960);
    Ok(Box::new(move |batch, lap| {
        let pictures = vec![&picture; batch];
        let found = net.detect_batch_watched(&pictures, maskrcnn::Query::default(), lap)?;
        Ok(Box::new(move || objects(found.first().map_or(&[], Vec::as_slice))))
    }))
}

/// Corners, in pixels of the picture, score and class of each object.
fn objects(found: &[Detection]) -> Result<Vec<(&'static str, Tensor)>> {
    let column = |value: fn(&Detection) -> f32| -> Vec<f32> { found.iter().map(value).collect() };
    let corners = found.iter().flat_map(|f| [f.rect.x, f.rect.y, f.rect.x + f.rect.w, f.rect.y + f.rect.h]).collect();
    let tensor = |values: Vec<f32>| Tensor::from_vec(values, found.len(), &Device::Cpu);
    Ok(vec![
        ("boxes", Tensor::from_vec::<_, f32>(corners, (found.len(), 4), &Device::Cpu)?),
        ("scores", tensor(column(|f| f.score))?),
        ("labels", tensor(column(|f| f.label as f32))?),
    ])
}

/// Frames of a webcam's size, one after another, as the program looks at them.
fn light_detector(device: &Device) -> Result<Run> {
    let net = PersonDetector::load(person_detector::Config::default(), &random::weights(device))?;
    let frame = random::picture(640, 480);
    Ok(Box::new(move |batch, lap| {
        for _ in 0..batch {
            net.detect_watched(&frame, lap)?;
        }
        Ok(no_outputs())
    }))
}

/// The part that all networks share.
fn backbone(device: &Device) -> Result<Run> {
    let weights = random::weights(device);
    let (stem, stages) = (Stem::load(64, BN_EPS, &weights)?, Stages::load(Depth::RESNET50, BN_EPS, &weights)?);
    let patches = patches_tensor(&[random::picture(256, 256)], device)?;
    Ok(Box::new(move |batch, lap| {
        let patches = patches.repeat((batch, 1, 1, 1))?;
        let feature = nets::on_pool(patches.device(), || -> Result<Features> {
            let early = stem.run(&patches)?;
            lap("stem")?;
            let feature = stages.run(&early)?;
            lap("stages")?;
            Ok(feature)
        })?;
        Ok(Box::new(move || Ok(vec![("feature", feature.to_tensor()?)])))
    }))
}

fn rootnet(device: &Device) -> Result<Run> {
    let net = RootNet::load(NetSizes::default(), &random::weights(device))?;
    let (device, picture) = (device.clone(), random::picture(256, 256));
    Ok(Box::new(move |batch, lap| {
        let patches = patches_tensor(&vec![picture.clone(); batch], &device)?;
        lap("upload")?;
        let output = net.forward(&patches)?;
        lap("forward")?;
        output.roots()?;
        lap("fetch")?;
        Ok(Box::new(move || Ok(vec![("coords", output.coords.to_tensor()?), ("gamma", output.gamma)])))
    }))
}

/// The first stage: patches to the lixels of joints and vertices.
fn i2l(device: &Device, joints: usize, vertices: usize) -> Result<Run> {
    let shape = I2lShape { joints, vertices, params: None };
    let net = I2l::load(NetSizes::default(), shape, &random::weights(device))?;
    let (device, picture) = (device.clone(), random::picture(256, 256));
    Ok(Box::new(move |batch, lap| {
        let patches = patches_tensor(&vec![picture.clone(); batch], &device)?;
        lap("upload")?;
        let output = net.forward_watched(&patches, lap)?;
        lixel::points(&output.vertices.coords)?;
        lixel::points(&output.vertices.spread)?;
        lap("fetch")?;
        Ok(Box::new(move || {
            Ok(vec![("joints", output.joints.coords.to_tensor()?), ("vertices", output.vertices.coords.to_tensor()?)])
        }))
    }))
}

/// The second stage: a mesh in lixels to the parameters of a body model of SMPL's or MANO's size, and the model posed by
/// them.
fn second_stage(device: &Device, family: Family) -> Result<Run> {
    let model = body_model::random(family)?;
    let topology = model.topology();
    let (joints, vertices) = (topology.skeleton.names.len(), topology.vertex_count);
    let regressor = regressor_matrix(&topology.joint_regressor, vertices, device)?;
    let weights = random::weights(device).pp("param_regressor");
    let net = ParamRegressor::load(joints, model.pose_joint_count(), body_model::SHAPES, &weights)?;
    let mesh: Vec<f32> = random::Noise(3).take(vertices * 3).map(|v| 32.0 + 20.0 * v).collect();
    let mesh = Tensor::from_vec(mesh, (1, vertices, 3), device)?;
    Ok(Box::new(move |batch, lap| {
        let joints = joints_from_mesh(&regressor, &mesh.repeat((batch, 1, 1))?)?;
        lap("joints of the mesh")?;
        let params = net.forward(&joints)?;
        lap("parameters")?;
        for person in &params {
            std::hint::black_box(model.pose(&person.pose_rad, &person.shape, Vec3::ZERO)?);
        }
        lap("posed model")?;
        Ok(no_outputs())
    }))
}

fn skeleton(device: &Device) -> Result<Run> {
    let set = &posenet3d::MUCO;
    let net = PoseNet3d::load(NetSizes::default(), set.skeleton().names.len(), &random::weights(device))?;
    let (device, picture) = (device.clone(), random::picture(256, 256));
    Ok(Box::new(move |batch, lap| {
        let patches = patches_tensor(&vec![picture.clone(); batch], &device)?;
        lap("upload")?;
        let lixels = net.forward_flip_averaged(&patches, set)?;
        lap("forward, flipped too")?;
        lixel::points(&lixels.coords)?;
        lap("fetch")?;
        Ok(Box::new(move || Ok(vec![("joints", lixels.coords.to_tensor()?)])))
    }))
}
