//! Annotated pictures: a file in COCO's format with the papers' extra fields (`joint_cam`, `cam_param`, `smpl_param`), as
//! `lixelscope synth` writes it and as the releases of RootNet and I2L-MeshNet have it for their datasets, becomes the
//! truth of its pictures.
//!
//! What a file does not say is missing in the truth: joints without `joint_cam`, a mesh without `smpl_param` or without
//! the body that it poses (SMPL from the models folder, or the stand-in; told by the joints), pixels without
//! `segmentation`. Without a camera it is the papers' normalised one. COCO counts pixels from the corner of the first
//! one, the truth from its centre.

mod format;
mod human36m;
mod mask;
mod people;

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use glam::{Vec2, Vec3};

use crate::result::BodyParams;
use crate::space::{Intrinsics, RectPx};
use crate::truth::{TruePerson, Truth};
use format::{Annotation, Dataset};
use people::Joints;

/// The file beside the pictures.
pub const FILE_NAME: &str = "annotations.json";

/// Most people of one picture.
const MAX_PEOPLE: usize = 255;

/// The annotations of a set of pictures.
#[derive(Debug)]
pub struct Annotations {
    pictures: Vec<Picture>,
    /// In the order of their pictures.
    people: Vec<Annotation>,
    joints: Joints,
}

#[derive(Debug)]
struct Picture {
    path: PathBuf,
    /// Width and height, where the file says them.
    size: Option<[u32; 2]>,
    intrinsics: Option<Intrinsics>,
    people: std::ops::Range<usize>,
}

impl Annotations {
    /// Reads an annotation file. `models` is the folder in which SMPL may be.
    pub fn open(path: &Path, models: Option<&Path>) -> Result<Self> {
        let mut dataset: Dataset = format::read(path)?;
        human36m::complete(&mut dataset, path)?;
        Self::of(dataset, path, models).with_context(|| path.display().to_string())
    }

    fn of(dataset: Dataset, path: &Path, models: Option<&Path>) -> Result<Self> {
        let Dataset { images, annotations: mut people, categories } = dataset;
        ensure!(!images.is_empty(), "the file lists no pictures");
        let mut numbers = HashMap::with_capacity(images.len());
        for (number, image) in images.iter().enumerate() {
            ensure!(numbers.insert(image.id, number).is_none(), "two pictures have the id {}", image.id);
        }
        // COCO has 80 categories; what has one only may call it as it likes.
        let is_person = |name: &str| name.eq_ignore_ascii_case("person");
        let category = categories.iter().find(|category| is_person(&category.name) || categories.len() == 1);
        ensure!(category.is_some() || categories.is_empty(), "none of the file's categories is called person");
        let all = people.len();
        people.retain(|one| category.is_none_or(|c| one.category_id.is_none_or(|id| id == c.id)));
        let of_people = people.len();
        people.retain(|one| numbers.contains_key(&one.image_id));
        if people.len() < of_people {
            log::warn!("{} of {all} annotations are of pictures that are not listed", of_people - people.len());
        }
        people.sort_by_key(|one| numbers[&one.image_id]);
        let joints = Joints::of(&people, category, models)?;

        let folder = path.parent().unwrap_or(Path::new("."));
        let place = Place::of(folder, &images)?;
        let mut pictures = Vec::with_capacity(images.len());
        let mut first = 0;
        for (number, image) in images.iter().enumerate() {
            let here = || format!("picture {} ({})", image.id, image.file_name);
            let count = people[first..].iter().take_while(|one| numbers[&one.image_id] == number).count();
            ensure!(count <= MAX_PEOPLE, "{} has {count} people, more than {MAX_PEOPLE}", here());
            pictures.push(Picture {
                path: place.path(folder, image).with_context(here)?,
                size: image.width.zip(image.height).map(|(width, height)| [width, height]),
                intrinsics: image.intrinsics().with_context(here)?,
                people: first..first + count,
            });
            first += count;
        }
        Ok(Self { pictures, people, joints })
    }

    /// The pictures' files, in the order of the annotation file.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.pictures.iter().map(|picture| picture.path.as_path())
    }

    /// What is true of a picture, which has this width and height.
    pub fn truth(&self, number: usize, size: [u32; 2]) -> Result<Truth> {
        let picture = self.pictures.get(number).context("the file does not list the picture")?;
        if let Some([width, height]) = picture.size.filter(|annotated| *annotated != size) {
            bail!("the picture has {}x{} pixels, its annotations are for {width}x{height}", size[0], size[1]);
        }
        let mut truth = Truth {
            intrinsics: picture.intrinsics.unwrap_or_else(|| Intrinsics::normalised(size[0], size[1])),
            size,
            topology: Arc::clone(&self.joints.topology),
            people: Vec::with_capacity(picture.people.len()),
            owner: Vec::new(),
            covered: Vec::new(),
        };
        for (index, annotation) in self.people[picture.people.clone()].iter().enumerate() {
            let number = index + 1;
            let person = self.person(annotation, &truth).with_context(|| format!("person {number} of the picture"))?;
            truth.people.push(person);
            if let Some(segmentation) = &annotation.segmentation {
                if truth.owner.is_empty() {
                    truth.owner = vec![0; size[0] as usize * size[1] as usize];
                }
                let painted = mask::paint(segmentation, size, number as u8, &mut truth.owner);
                painted.with_context(|| format!("person {number} of the picture"))?;
            }
        }
        Ok(truth)
    }

    fn person(&self, annotation: &Annotation, truth: &Truth) -> Result<TruePerson> {
        let rect = |bbox: [f32; 4]| -> Result<RectPx> {
            ensure!(bbox.iter().all(|v| v.is_finite()), "its box {bbox:?} is none");
            let [x, y, w, h] = bbox;
            Ok(RectPx { x: x - 0.5, y: y - 0.5, w, h })
        };
        let bbox = rect(annotation.bbox)?;
        let [width, height] = truth.size.map(|side| side as f32);
        let (min, max) = (bbox.min().max(Vec2::splat(-0.5)), bbox.max().min(Vec2::new(width, height) - 0.5));
        let inside = (max.x > min.x && max.y > min.y).then(|| RectPx::from_corners(min, max));

        let mut joints_camera_m = self.joints.joints_camera_m(annotation)?;
        let posed = self.joints.body(annotation);
        let (vertices_camera_m, params, translation_m) = match posed {
            Some((posed, params, translation_m)) => {
                // What the file leaves out, the body knows.
                joints_camera_m.resize(posed.joints_m.len(), Vec3::NAN);
                for (joint, posed) in joints_camera_m.iter_mut().zip(&posed.joints_m) {
                    if !joint.is_finite() {
                        *joint = *posed;
                    }
                }
                (posed.vertices_m, params, translation_m)
            }
            None => (Vec::new(), BodyParams::default(), Vec3::NAN),
        };
        let on_frame = || RectPx::around(vertices_camera_m.iter().map(|&v| truth.intrinsics.frame_from_camera(v)));
        let full_rect = annotation.bbox_full.map(rect).transpose()?.or_else(on_frame).unwrap_or(bbox);
        let counts = annotation.iscrowd == 0 && annotation.is_valid != Some(0);
        Ok(TruePerson {
            joint_visible: self.joints.joint_visible(annotation),
            full_rect,
            visible_rect: inside,
            visible_share: if counts { annotation.visible_share.unwrap_or(f32::NAN) } else { 0.0 },
            params,
            translation_m,
            vertices_camera_m,
            joints_camera_m,
        })
    }
}

/// Where a dataset keeps its pictures, as seen from the folder of the annotation file.
#[derive(Clone, Copy)]
enum Place {
    Beside,
    /// `images/`, of most releases.
    Images,
    /// `../images/`: annotations in a folder of their own.
    OtherImages,
    /// `imageFiles/<sequence>/`, of 3DPW.
    Sequences,
    /// `../imageFiles/<sequence>/`.
    OtherSequences,
}

impl Place {
    const ALL: [Self; 5] = [Self::Beside, Self::Images, Self::OtherImages, Self::Sequences, Self::OtherSequences];

    /// The first one at which one of the first pictures is.
    fn of(folder: &Path, images: &[format::Image]) -> Result<Self> {
        for image in images.iter().take(10) {
            for place in Self::ALL {
                if place.path(folder, image)?.is_file() {
                    return Ok(place);
                }
            }
        }
        Ok(Self::Beside)
    }

    fn path(self, folder: &Path, image: &format::Image) -> Result<PathBuf> {
        let sequence = image.sequence.as_deref().unwrap_or_default();
        // A file from elsewhere does not say which files of this machine are opened.
        let inside =
            |part: &str| Path::new(part).components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
        ensure!(
            inside(&image.file_name) && inside(sequence),
            "the name of a picture must stay below its dataset's folder"
        );
        let base = match self {
            Self::Beside => folder.to_owned(),
            Self::Images => folder.join("images"),
            Self::OtherImages => folder.join("../images"),
            Self::Sequences => folder.join("imageFiles").join(sequence),
            Self::OtherSequences => folder.join("../imageFiles").join(sequence),
        };
        Ok(base.join(&image.file_name))
    }
}
