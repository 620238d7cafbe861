//! Human3.6M as the releases annotate it: `*_data.json` has pictures and boxes, `*_camera.json` the cameras, and
//! `*_joint_3d.json` the joints in the world, which are of all cameras.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use glam::{Mat3, Vec3};
use serde::Deserialize;

use super::format::{self, Dataset, Image, Numbers};

/// A camera of a subject: `camera = R world + t`, millimetres.
#[derive(Deserialize)]
struct Camera {
    #[serde(rename = "R")]
    r: Numbers,
    t: Numbers,
    f: Numbers,
    c: Numbers,
}

/// Joints of an action, a subaction, a frame.
type Joints = HashMap<String, HashMap<String, HashMap<String, Numbers>>>;

/// Shoulders; the middle between them is the thorax, which the releases add as the 18th joint.
const SHOULDERS: [usize; 2] = [11, 14];

/// Adds cameras and joints to pictures that have a camera's number and no camera.
pub fn complete(dataset: &mut Dataset, path: &Path) -> Result<()> {
    if !dataset.images.iter().any(lacks_camera) {
        return Ok(());
    }
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let subject = name.strip_suffix("_data").unwrap_or(&name);
    let beside = |what: &str| path.with_file_name(format!("{subject}_{what}.json"));
    let why = || format!("{}: its pictures have numbers of cameras", path.display());
    let cameras: HashMap<String, Camera> = format::read(&beside("camera")).with_context(why)?;
    let joints: Joints = format::read(&beside("joint_3d")).with_context(why)?;

    let mut camera_from_world = HashMap::new();
    for image in dataset.images.iter_mut().filter(|image| lacks_camera(image)) {
        let name = image.cam_idx.unwrap_or_default().to_string();
        let camera = cameras.get(&name).with_context(|| format!("there is no camera {name}"))?;
        (image.f, image.c) = (Some(camera.f.clone()), Some(camera.c.clone()));
        let r: [f32; 9] = camera.r.exactly().with_context(|| format!("R of camera {name} is no rotation"))?;
        let t: [f32; 3] = camera.t.exactly().with_context(|| format!("t of camera {name} is no place"))?;
        // Its rows are ours.
        let transform = (Mat3::from_cols_array(&r).transpose(), Vec3::from_array(t));
        let in_world = frame_of(image).and_then(|[action, subaction, frame]| {
            joints.get(&action)?.get(&subaction)?.get(&frame) //
        });
        camera_from_world.insert(image.id, (transform, in_world));
    }
    for annotation in &mut dataset.annotations {
        let Some(((rotation, translation), Some(joints))) = camera_from_world.get(&annotation.image_id) else {
            continue;
        };
        let mut joints = joints.points()?;
        ensure!(joints.len() == 17, "{} joints instead of Human3.6M's 17", joints.len());
        joints.push((joints[SHOULDERS[0]] + joints[SHOULDERS[1]]) * 0.5);
        let in_camera = joints.iter().flat_map(|&joint| (*rotation * joint + *translation).to_array());
        annotation.joint_cam = Some(Numbers(in_camera.collect()));
        // Flags are of 17 joints.
        (annotation.keypoints_vis, annotation.joint_valid) = (None, None);
    }
    Ok(())
}

fn lacks_camera(image: &Image) -> bool {
    image.cam_idx.is_some() && image.cam_param.is_none() && image.f.is_none() && image.intrinsic.is_none()
}

fn frame_of(image: &Image) -> Option<[String; 3]> {
    Some([image.action_idx?, image.subaction_idx?, image.frame_idx?].map(|number| number.to_string()))
}
