//! What an annotation file may say: COCO's format with the fields that the papers' releases add, under all the names
//! that they have for one thing. Anything else in a file is passed over.

use std::fmt;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use glam::Vec3;
use serde::de::{DeserializeOwned, DeserializeSeed, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::space::Intrinsics;

/// The largest published file (MuCo-3DHP's) has some 2 GB. What is kept of a file takes about as much memory as the file.
const MAX_FILE_BYTES: u64 = 4 << 30;

/// The whole file.
#[derive(Debug, Deserialize)]
pub struct Dataset {
    pub images: Vec<Image>,
    pub annotations: Vec<Annotation>,
    #[serde(default)]
    pub categories: Vec<Category>,
}

/// A picture.
#[derive(Debug, Deserialize)]
pub struct Image {
    pub id: i64,
    pub file_name: String,
    pub width: Option<u32>,
    pub height: Option<u32>,
    /// 3DPW: the folder of the picture.
    pub sequence: Option<String>,
    /// The camera, in pixels of the picture: `cam_param`, MuCo-3DHP's `f` and `c`, or MuPoTS-3D's `intrinsic`.
    pub cam_param: Option<CamParam>,
    pub f: Option<Numbers>,
    pub c: Option<Numbers>,
    pub intrinsic: Option<Numbers>,
    /// Human3.6M, which keeps cameras and joints in files of their own.
    pub cam_idx: Option<i64>,
    pub action_idx: Option<i64>,
    pub subaction_idx: Option<i64>,
    pub frame_idx: Option<i64>,
}

#[derive(Debug, Deserialize)]
pub struct CamParam {
    pub focal: Numbers,
    pub princpt: Numbers,
}

/// A person in a picture.
#[derive(Debug, Deserialize)]
pub struct Annotation {
    pub image_id: i64,
    pub category_id: Option<i64>,
    /// x, y, w, h, from the corner of the first pixel.
    pub bbox: [f32; 4],
    /// Beyond the picture and behind things.
    pub bbox_full: Option<[f32; 4]>,
    #[serde(default)]
    pub iscrowd: u8,
    pub is_valid: Option<u8>,
    pub visible_share: Option<f32>,
    pub segmentation: Option<Segmentation>,
    /// x, y, visibility of each joint.
    pub keypoints: Option<Numbers>,
    pub keypoints_vis: Option<Numbers>,
    /// In the camera's frame, millimetres; metres in 3DPW's files.
    #[serde(alias = "keypoints_cam")]
    pub joint_cam: Option<Numbers>,
    pub joint_valid: Option<Numbers>,
    /// `mano_param` of a hand.
    #[serde(alias = "mano_param")]
    pub smpl_param: Option<SmplParam>,
}

/// Pose and shape of SMPL or MANO: radians, and metres in the camera's frame.
#[derive(Debug, Deserialize)]
pub struct SmplParam {
    pub pose: Numbers,
    pub shape: Numbers,
    pub trans: Option<Numbers>,
}

#[derive(Debug, Deserialize)]
pub struct Category {
    pub id: i64,
    pub name: String,
    #[serde(default)]
    pub keypoints: Vec<String>,
    /// Pairs of joints, counted from 1.
    #[serde(default)]
    pub skeleton: Vec<[i64; 2]>,
}

/// The pixels of a person, in any of COCO's three ways.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum Segmentation {
    /// Lengths of runs down the columns, black first.
    Runs {
        /// Height and width.
        size: [u32; 2],
        counts: Counts,
    },
    /// x and y in turn, for each polygon.
    Polygons(Vec<Vec<f32>>),
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum Counts {
    Plain(Vec<u32>),
    Packed(String),
}

/// Numbers in lists of any depth, one after the other: the releases write joints as `[[x, y, z], ..]` or flat, flags as
/// `[[1], ..]`, `[1, ..]` or `[true, ..]`. A null is NaN.
#[derive(Clone, Debug, Default)]
pub struct Numbers(pub Vec<f32>);

impl Numbers {
    /// As many as are asked for.
    pub fn exactly<const N: usize>(&self) -> Option<[f32; N]> {
        self.0.as_slice().try_into().ok()
    }

    /// In threes.
    pub fn points(&self) -> Result<Vec<Vec3>> {
        let (points, rest) = self.0.as_chunks::<3>();
        ensure!(rest.is_empty(), "{} coordinates are no points in space", self.0.len());
        Ok(points.iter().map(|&p| Vec3::from_array(p)).collect())
    }
}

impl<'de> Deserialize<'de> for Numbers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut numbers = Vec::new();
        Into(&mut numbers).deserialize(deserializer)?;
        Ok(Self(numbers))
    }
}

/// Puts what is read into a list.
struct Into<'a>(&'a mut Vec<f32>);

impl<'de> DeserializeSeed<'de> for Into<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Into<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("numbers")
    }

    fn visit_f64<E>(self, v: f64) -> Result<(), E> {
        self.0.push(v as f32);
        Ok(())
    }

    fn visit_i64<E>(self, v: i64) -> Result<(), E> {
        self.0.push(v as f32);
        Ok(())
    }

    fn visit_u64<E>(self, v: u64) -> Result<(), E> {
        self.0.push(v as f32);
        Ok(())
    }

    fn visit_bool<E>(self, v: bool) -> Result<(), E> {
        self.0.push(f32::from(u8::from(v)));
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.0.push(f32::NAN);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element_seed(Into(&mut *self.0))?.is_some() {}
        Ok(())
    }
}

impl Image {
    /// The camera, where the file says it.
    pub fn intrinsics(&self) -> Result<Option<Intrinsics>> {
        let wrong = "the camera is not two focal lengths and a principal point";
        match (&self.cam_param, &self.f, &self.c, &self.intrinsic) {
            (Some(CamParam { focal, princpt }), ..) | (None, Some(focal), Some(princpt), _) => {
                camera(focal, princpt).context(wrong).map(Some)
            }
            (.., Some(intrinsic)) => {
                let [fx, fy, cx, cy] = intrinsic.exactly().context(wrong)?;
                camera(&Numbers(vec![fx, fy]), &Numbers(vec![cx, cy])).context(wrong).map(Some)
            }
            _ => Ok(None),
        }
    }
}

/// A camera that can be one.
pub fn camera(focal: &Numbers, princpt: &Numbers) -> Option<Intrinsics> {
    let ([fx, fy], [cx, cy]) = (focal.exactly()?, princpt.exactly()?);
    let sound = [fx, fy].iter().all(|f| f.is_finite() && *f > 0.0) && cx.is_finite() && cy.is_finite();
    sound.then_some(Intrinsics { fx, fy, cx, cy })
}

/// Reads a JSON file of this form.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let file = File::open(path).with_context(|| format!("{}: cannot open", path.display()))?;
    let bytes = file.metadata().with_context(|| format!("{}: cannot read", path.display()))?.len();
    ensure!(bytes <= MAX_FILE_BYTES, "{}: {bytes} bytes are too many for an annotation file", path.display());
    serde_json::from_reader(BufReader::with_capacity(1 << 20, file))
        .with_context(|| format!("{}: this is not the form of an annotation file", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_may_lie_in_lists_of_any_depth() {
        let of = |text: &str| serde_json::from_str::<Numbers>(text).map(|numbers| numbers.0);
        assert_eq!(of("[[1, 2.5], [-3, true]]").unwrap(), [1.0, 2.5, -3.0, 1.0]);
        assert_eq!(of("7").unwrap(), [7.0]);
        assert!(of("[null]").unwrap()[0].is_nan());
        assert!(of("[\"1\"]").is_err());
        assert!(of(&"[".repeat(100_000)).is_err(), "depth is limited");
        assert!(Numbers(vec![0.0; 4]).points().is_err());
    }

    #[test]
    fn cameras_come_under_three_names() {
        let image = |camera: &str| -> Result<Option<Intrinsics>> {
            let text = format!(r#"{{"id": 1, "file_name": "a.png", {camera} "width": 4}}"#);
            serde_json::from_str::<Image>(&text)?.intrinsics()
        };
        let expected = Intrinsics { fx: 10.0, fy: 11.0, cx: 5.0, cy: 6.0 };
        for camera in [
            r#""cam_param": {"focal": [10, 11], "princpt": [5, 6]},"#,
            r#""f": [10, 11], "c": [5, 6],"#,
            r#""intrinsic": [10, 11, 5, 6],"#,
        ] {
            assert_eq!(image(camera).unwrap(), Some(expected), "{camera}");
        }
        assert_eq!(image("").unwrap(), None);
        for bad in [r#""f": [0, 11], "c": [5, 6],"#, r#""f": [1], "c": [5, 6],"#, r#""intrinsic": [1, 2, 3],"#] {
            assert!(image(bad).is_err(), "{bad}");
        }
    }
}
