//! A folder of synthetic pictures with a JSON file in COCO's format and the papers' extra fields: millimetres in
//! `joint_cam`, as in their annotation files; metres in `smpl_param` and `mano_param`, as in SMPL's and MANO's.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use rayon::prelude::*;
use serde::Serialize;

use super::random::Random;
use super::{Kind, Photo, Studio};
use crate::body::Family;
use crate::space::RectPx;
use crate::truth::{TruePerson, Truth};

/// The file beside the pictures.
pub use crate::annotations::FILE_NAME as ANNOTATIONS;

/// What is to be made.
#[derive(Clone, Copy, Debug)]
pub struct Order {
    /// What is shown.
    pub kind: Kind,
    /// The pictures' own seeds follow from this one.
    pub seed: u64,
    /// How many pictures.
    pub count: u64,
    /// Width and height.
    pub size: [u32; 2],
}

#[derive(Serialize)]
struct Dataset<'a> {
    info: Info,
    images: Vec<ImageEntry>,
    annotations: Vec<Annotation>,
    categories: [Category<'a>; 1],
}

#[derive(Serialize)]
struct Info {
    description: String,
    kind: Kind,
    seed: u64,
}

#[derive(Serialize)]
struct Category<'a> {
    id: u32,
    name: &'static str,
    supercategory: &'static str,
    keypoints: &'a [String],
    /// Pairs of joints, counted from 1.
    skeleton: Vec<[usize; 2]>,
}

#[derive(Serialize)]
struct ImageEntry {
    id: u64,
    file_name: String,
    width: u32,
    height: u32,
    seed: u64,
    cam_param: Camera,
}

#[derive(Serialize)]
struct Camera {
    focal: [f32; 2],
    princpt: [f32; 2],
}

#[derive(Serialize)]
struct Annotation {
    id: u64,
    image_id: u64,
    category_id: u32,
    iscrowd: u32,
    /// Around the visible pixels.
    bbox: [f32; 4],
    /// Around the whole body, beyond the picture and behind things.
    bbox_full: [f32; 4],
    /// Visible pixels.
    area: u32,
    visible_share: f32,
    segmentation: RunLengths,
    /// x, y, and 2 for a visible joint, 1 for a hidden one, 0 for one out of the picture.
    keypoints: Vec<f32>,
    num_keypoints: usize,
    joint_img: Vec<[f32; 3]>,
    joint_cam: Vec<[f32; 3]>,
    joint_valid: Vec<[u8; 1]>,
    root_cam: [f32; 3],
    #[serde(flatten)]
    param: Param,
}

/// Whose parameters these are, says the key.
#[derive(Serialize)]
enum Param {
    #[serde(rename = "smpl_param")]
    Smpl { pose: Vec<f32>, shape: Vec<f32>, trans: [f32; 3], gender: &'static str },
    #[serde(rename = "mano_param")]
    Mano { pose: Vec<f32>, shape: Vec<f32>, trans: [f32; 3], hand_type: &'static str },
}

impl Param {
    fn of(family: Family, person: &TruePerson) -> Self {
        let pose = person.params.pose_rad.iter().flat_map(glam::Vec3::to_array).collect();
        let (shape, trans) = (person.params.shape.clone(), person.translation_m.to_array());
        match family {
            Family::Smpl => Self::Smpl { pose, shape, trans, gender: "neutral" },
            Family::Mano => Self::Mano { pose, shape, trans, hand_type: "right" },
        }
    }
}

/// COCO's uncompressed mask: lengths of runs down the columns, of black and white in turn, black first.
#[derive(Serialize)]
struct RunLengths {
    /// Height and width.
    size: [u32; 2],
    counts: Vec<u32>,
}

impl RunLengths {
    fn of(truth: &Truth, person: usize) -> Self {
        let [width, height] = truth.size;
        let mut counts = vec![0];
        let mut white = false;
        for x in 0..width {
            for y in 0..height {
                if white != (usize::from(truth.owner[(y * width + x) as usize]) == person + 1) {
                    white = !white;
                    counts.push(0);
                }
                if let Some(run) = counts.last_mut() {
                    *run += 1;
                }
            }
        }
        Self { size: [height, width], counts }
    }
}

/// The seed of a picture of a dataset.
pub fn picture_seed(dataset_seed: u64, number: u64) -> u64 {
    Random::fork(dataset_seed, number).bits()
}

/// Writes the pictures as PNG and [`ANNOTATIONS`]; `done` is called after each picture, from any thread. A file is there
/// whole or not at all.
pub fn write(studio: &Arc<Studio>, order: &Order, dir: &Path, done: impl Fn() + Sync) -> Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("cannot make the folder {}", dir.display()))?;
    if dir.join(ANNOTATIONS).is_file() {
        log::warn!("{} holds pictures already: {ANNOTATIONS} will list the new ones alone", dir.display());
    }
    let digits = order.count.saturating_sub(1).to_string().len().max(6);
    let family = order.kind.family();
    let one = |number: u64| -> Result<(ImageEntry, Vec<Annotation>)> {
        let seed = picture_seed(order.seed, number);
        let Photo { rgb, truth } = studio.sample(order.kind, seed, order.size)?;
        let file_name = format!("{number:0digits$}.png");
        whole_file(&dir.join(&file_name), |out| {
            let encoder = image::codecs::png::PngEncoder::new(out);
            Ok(rgb.write_with_encoder(encoder)?)
        })?;
        done();
        let k = truth.intrinsics;
        let cam_param = Camera { focal: [k.fx, k.fy], princpt: [k.cx, k.cy] };
        let [width, height] = truth.size;
        let entry = ImageEntry { id: number, file_name, width, height, seed, cam_param };
        let seen = (0..truth.people.len()).filter_map(|person| annotation(family, &truth, person, number));
        Ok((entry, seen.collect()))
    };
    let made: Vec<_> = (0..order.count).into_par_iter().map(one).collect::<Result<_>>()?;
    let (images, annotations): (Vec<_>, Vec<_>) = made.into_iter().unzip();
    let mut annotations: Vec<Annotation> = annotations.into_iter().flatten().collect();
    for (id, annotation) in annotations.iter_mut().enumerate() {
        annotation.id = id as u64 + 1;
    }
    let joints = &studio.body.topology().skeleton;
    let bones = joints.parents.iter().enumerate().filter_map(|(joint, parent)| Some([(*parent)? + 1, joint + 1]));
    let [name, supercategory] = match family {
        Family::Smpl => ["person"; 2],
        Family::Mano => ["hand", "person"],
    };
    let category = Category { id: 1, name, supercategory, keypoints: &joints.names, skeleton: bones.collect() };
    let description = format!("Lixelscope's synthetic {}", order.kind.shows());
    let info = Info { description, kind: order.kind, seed: order.seed };
    let dataset = Dataset { info, images, annotations, categories: [category] };
    whole_file(&dir.join(ANNOTATIONS), |out| Ok(serde_json::to_writer(out, &dataset)?))
}

/// A person of a picture; `None` where not one pixel shows it. The id is still to be set.
fn annotation(family: Family, truth: &Truth, person: usize, image_id: u64) -> Option<Annotation> {
    let one = &truth.people[person];
    let bbox = one.visible_rect?;
    // COCO counts from the corner of the first pixel, and we from its centre.
    let corner = |rect: RectPx| [rect.x + 0.5, rect.y + 0.5, rect.w, rect.h];
    let mm = |p: glam::Vec3| (p * 1000.0).to_array();
    let mut keypoints = Vec::new();
    let mut joint_img = Vec::new();
    for (&joint, &visible) in one.joints_camera_m.iter().zip(&one.joint_visible) {
        let px = truth.intrinsics.frame_from_camera(joint);
        let seen = truth.pixel(joint).map_or(0, |_| 1 + u8::from(visible));
        keypoints.extend(if seen > 0 { [px.x, px.y, f32::from(seen)] } else { [0.0; 3] });
        let px = if px.is_finite() { px } else { glam::Vec2::ZERO };
        joint_img.push([px.x, px.y, joint.z * 1000.0]);
    }
    Some(Annotation {
        id: 0,
        image_id,
        category_id: 1,
        iscrowd: 0,
        bbox: corner(bbox),
        bbox_full: corner(one.full_rect),
        area: truth.owner.iter().filter(|&&owner| usize::from(owner) == person + 1).count() as u32,
        visible_share: one.visible_share,
        segmentation: RunLengths::of(truth, person),
        num_keypoints: keypoints.as_chunks::<3>().0.iter().filter(|k| k[2] > 0.0).count(),
        keypoints,
        joint_img,
        joint_cam: one.joints_camera_m.iter().map(|&p| mm(p)).collect(),
        joint_valid: one.joints_camera_m.iter().map(|p| [u8::from(p.z > 0.0)]).collect(),
        root_cam: mm(one.root_camera_m()),
        param: Param::of(family, one),
    })
}

/// Writes beside the place and moves it there when it is whole.
fn whole_file(path: &Path, fill: impl FnOnce(&mut BufWriter<File>) -> Result<()>) -> Result<()> {
    let write = || -> Result<()> {
        let name = path.file_name().context("it has no file name")?.to_string_lossy();
        let partial = path.with_file_name(format!(".{name}.{}.partial", std::process::id()));
        let mut out = BufWriter::new(File::create(&partial)?);
        let filled = fill(&mut out).and_then(|()| Ok(out.flush()?));
        match filled.and_then(|()| Ok(fs::rename(&partial, path)?)) {
            Ok(()) => Ok(()),
            Err(error) => {
                // What is left of it is of no use; where it cannot be removed, the first error is the one to tell.
                let _ = fs::remove_file(&partial);
                Err(error)
            }
        }
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}
