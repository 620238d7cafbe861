//! What the user has decided, validated once. Nothing later looks at raw arguments.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::capture::PixelFormat;
use crate::detect::coco;
pub use crate::nets::Precision;
use crate::result::{EstimatorKind, MeshSource};
use crate::space::{Intrinsics, RectPx};
use crate::synth::Kind;

/// Where people's boxes come from.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum BoxSource {
    /// The detector, with tracking between detections.
    #[default]
    Detector,
    /// Boxes the user gave (tight, in frame pixels), the same for every frame.
    User(Vec<RectPx>),
    /// The whole frame is one box.
    WholeFrame,
}

/// Which network finds people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum DetectorKind {
    /// Mask R-CNN where its checkpoint is there, else the light one.
    #[default]
    Auto,
    /// Mask R-CNN: slow, finds everything that COCO names.
    MaskRcnn,
    /// The project's own one-stage network: fast, finds people.
    Light,
}

/// Where the camera's intrinsics come from.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum CameraSetting {
    /// The papers' 1500 px camera with its principal point at the centre.
    #[default]
    Normalised,
    /// Focal length in frame pixels.
    FocalPx(f32),
    /// Horizontal field of view, radians.
    HorizontalFov(f32),
    /// A calibration, made at a frame size; scaled to the frames that come.
    Calibrated {
        /// The calibrated camera.
        intrinsics: Intrinsics,
        /// Width and height that it belongs to.
        size: [u32; 2],
    },
}

impl CameraSetting {
    /// The camera for frames of this size.
    pub fn intrinsics(&self, width: u32, height: u32) -> Intrinsics {
        match *self {
            Self::Normalised => Intrinsics::normalised(width, height),
            Self::FocalPx(focal) => Intrinsics::with_focal(focal, width, height),
            Self::HorizontalFov(fov) => Intrinsics::with_horizontal_fov(fov, width, height),
            Self::Calibrated { intrinsics: k, size: [w, h] } => {
                let (sx, sy) = (width as f32 / w as f32, height as f32 / h as f32);
                Intrinsics { fx: k.fx * sx, fy: k.fy * sy, cx: k.cx * sx, cy: k.cy * sy }
            }
        }
    }
}

/// The device that the networks run on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// The best that this build has and this machine offers.
    #[default]
    Auto,
    /// The processor.
    Cpu,
    /// An NVIDIA GPU (needs a build with `--features cuda`).
    Cuda,
    /// An Apple GPU (needs a build with `--features metal`).
    Metal,
}

/// Where frames come from, as the user said it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceSpec {
    /// Webcam by index.
    Webcam(u32),
    /// A picture, a folder of pictures, or a video file; which of them is told by looking.
    Path(PathBuf),
    /// People or hands that do not exist, from a seed.
    Synthetic(Kind, u64),
}

impl Default for SourceSpec {
    /// People that do not exist: they are there on every machine.
    fn default() -> Self {
        Self::synthetic(Kind::default())
    }
}

impl SourceSpec {
    /// The scene of this kind that is shown when no other is asked for: one in which there is something to see at once.
    pub fn synthetic(kind: Kind) -> Self {
        Self::Synthetic(kind, if kind == Kind::Hands { 8 } else { 23 })
    }

    /// What a synthetic source shows; of others, people are expected.
    pub fn kind(&self) -> Kind {
        if let Self::Synthetic(kind, _) = self { *kind } else { Kind::default() }
    }
}

impl fmt::Display for SourceSpec {
    /// As the user writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Synthetic(kind, seed) if *kind == Kind::default() => write!(f, "synthetic:{seed}"),
            Self::Synthetic(kind, seed) => write!(f, "synthetic:{}:{seed}", kind.name()),
            Self::Webcam(index) => write!(f, "webcam:{index}"),
            Self::Path(path) => write!(f, "{}", path.display()),
        }
    }
}

impl FromStr for SourceSpec {
    type Err = anyhow::Error;

    /// `synthetic`, `synthetic:7`, `synthetic:hands`, `synthetic:hands:7`, `webcam`, `webcam:2`, `2`, `/dev/video2`, or a path (a file that is named like a number: `./2`).
    fn from_str(text: &str) -> Result<Self> {
        let index = |number: &str| {
            number
                .parse()
                .with_context(|| format!("\"{text}\" names no webcam; write webcam, webcam:1, or a file's path"))
        };
        if text.trim().is_empty() {
            bail!("an empty source; write synthetic, webcam, webcam:1, or the path of a picture, a folder or a video");
        }
        if let Some(what) = text.strip_prefix("synthetic").filter(|what| what.is_empty() || what.starts_with(':')) {
            let mut words = what.split(':').skip(1).peekable();
            let kind = words.peek().and_then(|word| Kind::from_str(word, false).ok());
            let seed = if kind.is_some() { words.nth(1) } else { words.next() };
            let kind = kind.unwrap_or_default();
            let source = match seed {
                None => Some(Self::synthetic(kind)),
                Some(seed) => seed.parse().ok().map(|seed| Self::Synthetic(kind, seed)),
            };
            return source.filter(|_| words.next().is_none()).with_context(|| {
                format!(
                    "\"{text}\" names no scene; write synthetic, synthetic:7 with any whole number from 0 on, or \
                     synthetic:hands:7"
                )
            });
        }
        if text == "webcam" {
            return Ok(Self::Webcam(0));
        }
        if let Some(number) = text.strip_prefix("webcam:") {
            return index(number).map(Self::Webcam);
        }
        if text.bytes().all(|b| b.is_ascii_digit()) {
            return index(text).map(Self::Webcam);
        }
        if let Some(number) = text.strip_prefix("/dev/video").and_then(|n| n.parse().ok()) {
            return Ok(Self::Webcam(number));
        }
        let scheme = text.split_once("://").map_or("", |(scheme, _)| scheme);
        if scheme.len() > 1 && scheme.bytes().all(|b| b.is_ascii_alphanumeric()) && !PathBuf::from(text).exists() {
            bail!("\"{text}\": network addresses are not opened; save the video as a file and give its path");
        }
        Ok(Self::Path(PathBuf::from(text)))
    }
}

/// What the user would like of a webcam; the nearest format that it offers is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WebcamWish {
    /// Width and height in pixels; by default near 1280x720.
    pub size: Option<[u32; 2]>,
    /// Frames a second; by default 30.
    pub fps: Option<u32>,
    /// Only this pixel format; by default whichever goes with the best size and rate.
    pub pixels: Option<PixelFormat>,
}

impl WebcamWish {
    /// Reads a size as the user writes it, `1280x720`.
    pub fn parse_size(text: &str) -> Result<[u32; 2]> {
        let sides = text.split_once(['x', 'X']).and_then(|(w, h)| Some([w.parse().ok()?, h.parse().ok()?]));
        match sides {
            Some([w, h]) if (1..=16384).contains(&w) && (1..=16384).contains(&h) => Ok([w, h]),
            _ => bail!("\"{text}\" is no size; write WIDTHxHEIGHT, for example 1280x720"),
        }
    }
}

/// How frames become people.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Folder of checkpoints and body models.
    pub models: PathBuf,
    /// Device of the networks.
    pub backend: Backend,
    /// How exactly an NVIDIA GPU computes.
    pub precision: Precision,
    /// Which network turns a crop into a body.
    pub estimator: EstimatorKind,
    /// Which mesh is shown and written.
    pub mesh_source: MeshSource,
    /// Where boxes come from.
    pub boxes: BoxSource,
    /// The detector runs on every n-th frame, at least 1; between, boxes follow the people.
    pub detect_every: u32,
    /// Which network finds people.
    pub detector: DetectorKind,
    /// The shorter side that the detector resizes frames to, pixels; by default torchvision's 800 on a GPU and 400 on
    /// the processor for Mask R-CNN, and 240 for the light one. Its time grows with the square.
    pub detector_side: Option<u32>,
    /// What the detector looks for: a label of [`crate::detect::coco`].
    pub detector_label: u32,
    /// A person appears from this score on, and stays down to a weaker one.
    pub score_threshold: f32,
    /// At most this many people, best score first.
    pub max_people: usize,
    /// The camera.
    pub camera: CameraSetting,
    /// What is asked of a webcam.
    pub webcam: WebcamWish,
}

impl Settings {
    /// The defaults, with this models folder.
    pub fn with_models(models: PathBuf) -> Self {
        Self {
            models,
            backend: Backend::Auto,
            precision: Precision::default(),
            estimator: EstimatorKind::Body,
            mesh_source: MeshSource::Lixel,
            boxes: BoxSource::Detector,
            detect_every: 4,
            detector: DetectorKind::Auto,
            detector_side: None,
            detector_label: coco::PERSON,
            score_threshold: 0.5,
            max_people: 10,
            camera: CameraSetting::Normalised,
            webcam: WebcamWish::default(),
        }
    }
}
