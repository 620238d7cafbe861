//! Where networks get their weights: from the user's files, and where there is none for a role, from the program itself.
//!
//! [`Role`] says which checkpoints and body models there are, under which names they are looked for in the models
//! folder, and where each is to be had; [`open`] opens a role's weights wherever they are; [`survey`](survey()) looks at
//! all of them.
//!
//! The folder is the platform's data folder (on Linux `~/.local/share/lixelscope/models`) unless `--models` or the
//! environment variable `LIXELSCOPE_MODELS` names another. Files may lie in it or in a folder directly below it.

mod built_in;
mod config;
mod survey;

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Error, Result, anyhow};
use serde::{Serialize, Serializer};

use crate::nets::weights::WeightFile;

pub use config::{DepthUnit, NetConfig};
pub use survey::{Entry, Status, brings_faces, survey};

/// Environment variable that names the models folder.
pub const FOLDER_VARIABLE: &str = "LIXELSCOPE_MODELS";

/// The models folder: the one given, else the environment's, else the platform's. It need not exist.
pub fn folder(given: Option<PathBuf>) -> Result<PathBuf> {
    let from_environment = || std::env::var_os(FOLDER_VARIABLE).filter(|v| !v.is_empty()).map(PathBuf::from);
    let from_platform =
        || directories::ProjectDirs::from("", "", "lixelscope").map(|dirs| dirs.data_dir().join("models"));
    given.or_else(from_environment).or_else(from_platform).with_context(|| {
        format!("this system has no data folder; name the models folder with --models or {FOLDER_VARIABLE}")
    })
}

/// What a file in the models folder is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Mask R-CNN.
    Detector,
    /// The project's own one-stage detector.
    LightDetector,
    /// The same for hands.
    HandDetector,
    /// RootNet for people.
    RootNet,
    /// RootNet for hands.
    RootNetHand,
    /// I2L-MeshNet for the SMPL body.
    I2lBody,
    /// I2L-MeshNet for the MANO hand.
    I2lHand,
    /// 3D PoseNet.
    PoseNet3d,
    /// SMPL.
    Smpl,
    /// MANO, right hand.
    Mano,
}

/// Where a network's weights come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The program itself.
    BuiltIn,
    /// The user.
    File(PathBuf),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BuiltIn => f.write_str("built in"),
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}

impl Serialize for Origin {
    /// As it is shown.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for Role {
    /// The name of its files.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.stem())
    }
}

/// The weights that a network runs with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Weights {
    /// What they are for.
    pub role: Role,
    /// Whose they are.
    pub origin: Origin,
}

/// What the built-in weights are, in words.
pub const BUILT_IN: &str = "trained on synthetic people and hands";

/// Where a role's weights come from; `None` where there are none.
pub fn origin(folder: &Path, role: Role) -> Option<Origin> {
    let built_in = || built_in::bytes(role).map(|_| Origin::BuiltIn);
    find(folder, role).map(Origin::File).or_else(built_in)
}

/// Opens a role's weights and reads what is known of their network: the user's, else those of the program; or an error
/// that says under which names they are looked for and where to get them. A file that cannot be read is not replaced in
/// silence.
pub fn open(folder: &Path, role: Role) -> Result<(WeightFile, NetConfig, Weights)> {
    let built_in = built_in::bytes(role);
    let (file, origin) = match (find(folder, role), built_in) {
        (None, Some(bytes)) => (WeightFile::built_in(&format!("built-in {}", role.stem()), bytes)?, Origin::BuiltIn),
        (None, None) => return Err(missing(folder, role)),
        (Some(path), None) => (WeightFile::open(&path)?, Origin::File(path)),
        (Some(path), Some(_)) => {
            let instead = |error| anyhow!("{error:#}; without that file, the built-in weights are used");
            (WeightFile::open(&path).map_err(instead)?, Origin::File(path))
        }
    };
    let config = NetConfig::of(&file, &origin, role)?;
    Ok((file, config, Weights { role, origin }))
}

/// Checkpoints are looked for in this order: mapped before parsed.
const CHECKPOINT_EXTENSIONS: [&str; 3] = ["safetensors", "pth.tar", "pth"];

const BODY_EXTENSIONS: [&str; 2] = ["npz", "pkl"];

impl Role {
    /// All roles, in the order of the pipeline.
    pub const ALL: [Self; 10] = [
        Self::Detector,
        Self::LightDetector,
        Self::HandDetector,
        Self::RootNet,
        Self::RootNetHand,
        Self::I2lBody,
        Self::I2lHand,
        Self::PoseNet3d,
        Self::Smpl,
        Self::Mano,
    ];

    /// What it is, for people.
    pub fn what(self) -> &'static str {
        match self {
            Self::Detector => "Mask R-CNN (finds people)",
            Self::LightDetector => "light detector (finds people)",
            Self::HandDetector => "hand detector (finds hands)",
            Self::RootNet => "RootNet (distance of the root joint)",
            Self::RootNetHand => "RootNet for hands",
            Self::I2lBody => "I2L-MeshNet, body",
            Self::I2lHand => "I2L-MeshNet, hand",
            Self::PoseNet3d => "3D PoseNet (skeleton)",
            Self::Smpl => "SMPL body model",
            Self::Mano => "MANO model of the right hand",
        }
    }

    /// Its name alone: "RootNet".
    pub fn name(self) -> &'static str {
        let what = self.what();
        what.split_once(" (").map_or(what, |(name, _)| name)
    }

    /// Stems of the names under which it is looked for, first choice first; for checkpoints, names that go on after
    /// the stem count too (`i2l_body_snapshot_12.pth.tar`).
    pub fn stems(self) -> &'static [&'static str] {
        match self {
            Self::Detector => &["maskrcnn_resnet50_fpn"],
            Self::LightDetector => &["person_detector"],
            Self::HandDetector => &["hand_detector"],
            Self::RootNet => &["rootnet"],
            Self::RootNetHand => &["rootnet_hand"],
            Self::I2lBody => &["i2l_body"],
            Self::I2lHand => &["i2l_hand"],
            Self::PoseNet3d => &["posenet3d"],
            // The neutral one fits everybody; the parameter stage was trained with it.
            Self::Smpl => &[
                "smpl_neutral",
                "basicmodel_neutral_lbs_10_207_0_v1.1.0",
                "basicmodel_neutral_lbs_10_207_0_v1.0.0",
                "smpl_female",
                "basicmodel_f_lbs_10_207_0_v1.1.0",
                "basicmodel_f_lbs_10_207_0_v1.0.0",
                "smpl_male",
                "basicmodel_m_lbs_10_207_0_v1.1.0",
                "basicmodel_m_lbs_10_207_0_v1.0.0",
            ],
            Self::Mano => &["mano_right"],
        }
    }

    /// The shortest name: "i2l_body".
    pub fn stem(self) -> &'static str {
        // Every role has one.
        self.stems()[0]
    }

    /// Whether the file is a body model, not a network's checkpoint.
    pub fn is_body_model(self) -> bool {
        matches!(self, Self::Smpl | Self::Mano)
    }

    /// The names under which it is looked for, in words; upper and lower case are one.
    pub fn names(self) -> Vec<String> {
        let (extensions, rest): (&[&str], _) =
            if self.is_body_model() { (&BODY_EXTENSIONS, "") } else { (&CHECKPOINT_EXTENSIONS, "*") };
        let names = |stem| extensions.iter().map(move |extension| format!("{stem}{rest}.{extension}"));
        self.stems().iter().flat_map(names).collect()
    }

    /// Where its owner gets it, and under which condition.
    pub fn where_to_get(self) -> &'static str {
        match self {
            Self::Detector => {
                "torchvision's model zoo: the COCO weights of maskrcnn_resnet50_fpn (not of its v2), under their own name"
            }
            Self::LightDetector => "this program trains it: lixelscope train detector",
            Self::HandDetector => "this program trains it: lixelscope train detector --of hand",
            Self::RootNet => {
                "the authors' release, https://github.com/mks0601/3DMPPE_ROOTNET_RELEASE: a snapshot_N.pth.tar of the \
                 pre-trained models, renamed to rootnet.pth.tar; for one trained in metres (3DPW) add rootnet.json \
                 with {\"depth_unit\": \"m\"}"
            }
            Self::RootNetHand => {
                "the authors' release, https://github.com/mks0601/3DMPPE_ROOTNET_RELEASE: the snapshot trained on \
                 FreiHAND, renamed to rootnet_hand.pth.tar"
            }
            Self::I2lBody => {
                "the authors' release, https://github.com/mks0601/I2L-MeshNet_RELEASE: a snapshot_N.pth.tar trained \
                 for the body, renamed to i2l_body.pth.tar"
            }
            Self::I2lHand => {
                "the authors' release, https://github.com/mks0601/I2L-MeshNet_RELEASE: a snapshot_N.pth.tar trained \
                 for the hand (FreiHAND), renamed to i2l_hand.pth.tar"
            }
            Self::PoseNet3d => {
                "the authors' release, https://github.com/mks0601/3DMPPE_POSENET_RELEASE: a snapshot_N.pth.tar of the \
                 pre-trained models, renamed to posenet3d.pth.tar"
            }
            Self::Smpl => {
                "https://smpl.is.tue.mpg.de, after registration and under its licence (the neutral model of version \
                 1.0.0 comes with SMPLify, https://smplify.is.tue.mpg.de)"
            }
            Self::Mano => "https://mano.is.tue.mpg.de, after registration and under its licence",
        }
    }
}

/// The file for a role, if it is there.
pub fn find(folder: &Path, role: Role) -> Option<PathBuf> {
    let mut files: Vec<PathBuf> = files_in(folder);
    for below in folders_in(folder) {
        files.extend(files_in(&below));
    }
    let choice = |path: &Path| rank(&path.file_name()?.to_str()?.to_lowercase(), role);
    files.into_iter().filter_map(|path| Some((choice(&path)?, path))).min().map(|(_, path)| path)
}

/// The file for a role, or an error that says under which names it is looked for and where to get it.
pub fn require(folder: &Path, role: Role) -> Result<PathBuf> {
    find(folder, role).ok_or_else(|| missing(folder, role))
}

fn missing(folder: &Path, role: Role) -> Error {
    let names = role.names().join(", ");
    let [what, get] = [role.what(), role.where_to_get()];
    anyhow!(
        "{what} is missing: none is built in, and there is no {names} in {}. Where to get it: {get}",
        folder.display()
    )
}

/// How good a choice a lower-case file name is for a role, smaller is better; `None` where it is not one.
fn rank(name: &str, role: Role) -> Option<(usize, usize, usize)> {
    let extensions: &[&str] = if role.is_body_model() { &BODY_EXTENSIONS } else { &CHECKPOINT_EXTENSIONS };
    let with_extension = |(i, extension): (usize, &&str)| Some((i, name.strip_suffix(extension)?.strip_suffix('.')?));
    let (extension, name) = extensions.iter().enumerate().find_map(with_extension)?;
    let with_stem = |(i, stem): (usize, &&str)| Some((i, name.strip_prefix(stem)?));
    let (stem, rest) = role.stems().iter().enumerate().find_map(with_stem)?;
    let fits = if role.is_body_model() {
        rest.is_empty()
    } else {
        // Another network with a name that starts in the same way.
        !(role == Role::Detector && rest.starts_with("_v2") || role == Role::RootNet && rest.starts_with("_hand"))
    };
    fits.then_some(if role.is_body_model() { (stem, extension, 0) } else { (extension, rest.len(), stem) })
}

/// Files of a folder, in the order of their names; none where it cannot be read.
fn files_in(folder: &Path) -> Vec<PathBuf> {
    listed(folder).into_iter().filter(|path| path.is_file()).collect()
}

fn folders_in(folder: &Path) -> Vec<PathBuf> {
    listed(folder).into_iter().filter(|path| path.is_dir()).collect()
}

fn listed(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    let mut paths: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_name_wins() {
        let best = |role, names: &[&'static str]| {
            names.iter().filter_map(|n| Some((rank(&n.to_lowercase(), role)?, *n))).min().map(|(_, n)| n)
        };
        let body = ["i2l_body.pth.tar", "i2l_body_snapshot_12.safetensors", "i2l_body.json", "i2l_hand.pth"];
        assert_eq!(best(Role::I2lBody, &body), Some("i2l_body_snapshot_12.safetensors"));
        assert_eq!(best(Role::I2lHand, &body), Some("i2l_hand.pth"));
        assert_eq!(best(Role::RootNet, &body), None);
        let detectors = ["maskrcnn_resnet50_fpn_v2_coco-73cbd019.pth", "maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth"];
        assert_eq!(best(Role::Detector, &detectors), Some("maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth"));
        assert_eq!(best(Role::Detector, &detectors[..1]), None);
        let smpl = ["basicModel_neutral_lbs_10_207_0_v1.0.0.pkl", "SMPL_NEUTRAL.pkl", "SMPL_FEMALE.pkl"];
        assert_eq!(best(Role::Smpl, &smpl), Some("SMPL_NEUTRAL.pkl"));
        assert_eq!(best(Role::Smpl, &smpl[..1]), Some(smpl[0]));
        assert_eq!(best(Role::Mano, &["MANO_LEFT.pkl", "MANO_RIGHT.pkl"]), Some("MANO_RIGHT.pkl"));
    }

    #[test]
    fn what_is_missing_is_said_with_its_names_and_its_source() {
        let folder = tempfile::tempdir().unwrap();
        let error = require(folder.path(), Role::Mano).unwrap_err().to_string();
        assert!(error.contains("mano_right.pkl") && error.contains("mano.is.tue.mpg.de"), "{error}");
        fs::create_dir(folder.path().join("mano_v1_2")).unwrap();
        let path = folder.path().join("mano_v1_2/MANO_RIGHT.pkl");
        fs::write(&path, "").unwrap();
        assert_eq!(require(folder.path(), Role::Mano).unwrap(), path);
    }
}
