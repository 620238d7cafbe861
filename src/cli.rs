//! Arguments become validated [`Settings`]; knows no device.
//!
//! Exit codes: 0 done, 2 bad arguments or missing files ([`BadInput`]), 1 anything else.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::Deserialize;

use crate::app::WindowOptions;
use crate::body::Family;
use crate::detect::coco;
use crate::models;
use crate::result::{EstimatorKind, MeshSource};
use crate::settings::{Backend, BoxSource, CameraSetting, DetectorKind, Precision, Settings, SourceSpec, WebcamWish};
use crate::space::{Intrinsics, RectPx};
use crate::synth::{self, Kind};
use crate::train::Stage;

/// The user gave something that cannot be used: exit code 2, and the message says what to do.
#[derive(Debug)]
pub struct BadInput(pub String);

impl fmt::Display for BadInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadInput {}

/// The exit code that an error asks for: 2 for [`BadInput`], for files that are not there, and for files where folders
/// should be or the other way round; else 1.
pub fn exit_code(error: &anyhow::Error) -> u8 {
    use std::io::ErrorKind::{AlreadyExists, IsADirectory, NotADirectory, NotFound};
    let missing = |cause: &(dyn std::error::Error + 'static)| {
        let error = cause.downcast_ref::<std::io::Error>();
        error.is_some_and(|e| matches!(e.kind(), NotFound | NotADirectory | IsADirectory | AlreadyExists))
    };
    if error.downcast_ref::<BadInput>().is_some() || error.chain().any(missing) { 2 } else { 1 }
}

/// See people as 3D meshes in metres, and what the networks saw.
#[derive(Debug, Parser)]
#[command(name = "lixelscope", version, about, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// What to do; without it the window opens.
    #[command(subcommand)]
    pub command: Option<CommandArgs>,
    /// Of the window.
    #[command(flatten)]
    pub window: WindowArgs,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum CommandArgs {
    /// The same pipeline without a window: results go to a folder.
    Run(RunArgs),
    /// Time each network on the chosen backend.
    Bench(BenchArgs),
    /// Look at what is there: models, backends, GPU adapters, cameras, ffmpeg.
    Doctor(DoctorArgs),
    /// Turn a checkpoint into safetensors, which load faster.
    Convert(ConvertArgs),
    /// Write the project's own, licence-free body and hand: in SMPL's npz layout, as OBJ and as GLB.
    Body(BodyArgs),
    /// Write pictures of people or hands that do not exist, with everything that is true of them in COCO's format.
    Synth(SynthArgs),
    /// Measure the whole pipeline where the truth is known, with the papers' metrics.
    Eval(EvalArgs),
    /// Train a network on synthetic people or hands; what is in the folder already goes on.
    Train(TrainArgs),
    /// Repeat the ablations of I2L-MeshNet's paper on synthetic people, at a small scale.
    Ablate(AblateArgs),
}

/// Networks that `train` knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Trainee {
    /// I2L-MeshNet.
    Mesh,
    /// RootNet.
    Root,
    /// I2L-MeshNet's second stage: the mesh's joints to the pose and shape of the body.
    Params,
    /// 3D PoseNet, with MuCo-3DHP's joints.
    Pose,
    /// The light detector.
    Detector,
}

/// Arguments of `train`.
#[derive(Debug, Args)]
pub struct TrainArgs {
    /// The network.
    #[arg(value_enum)]
    pub network: Trainee,
    /// What it is to see: people, or right hands.
    #[arg(long, value_enum, default_value_t)]
    pub of: Family,
    /// Folder of checkpoint.safetensors, weights.safetensors, curves.csv and curves.png.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Samples to see, those before an interruption included.
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(64..))]
    pub samples: u64,
    /// Samples of a step.
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u32).range(2..=4096))]
    pub batch: u32,
    /// Where the network learns: the processor, or an NVIDIA GPU in builds with cuDNN. A training may go on elsewhere than
    /// it began.
    #[arg(long, value_enum, default_value_t)]
    pub backend: Backend,
    /// Numbers that an NVIDIA GPU computes with: f32 or tf32.
    #[arg(long, value_enum, default_value_t)]
    pub precision: Precision,
    /// Threads that learn, on the processor [default: all processors].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
    pub threads: Option<u32>,
    /// Threads that make samples, as far as they are needed [default: half of the processors].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
    pub makers: Option<u32>,
    /// Learning rate; divided by ten after 10/13 and 12/13 of the samples.
    #[arg(long, value_name = "R", default_value_t = 1e-3)]
    pub rate: f64,
    /// What the weights at first and the order of the samples follow from.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Weights to begin with, from another training of the same network, with patches of this or of another size; those
    /// of people help those of hands to begin, too.
    #[arg(long, value_name = "FILE")]
    pub from: Option<PathBuf>,
    /// `params`: weights of the trained first stage, which are written with those of the second.
    #[arg(long, value_name = "FILE", required_if_eq("network", "params"))]
    pub mesh: Option<PathBuf>,
    /// Layers of the ResNet.
    #[arg(long, value_name = "N", default_value_t = 18)]
    pub resnet: usize,
    /// Channels after the ResNet's stem, a multiple of 16.
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = parse_blocks)]
    pub width: u32,
    /// Channels of the heads, a multiple of 16.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = parse_blocks)]
    pub channels: u32,
    /// Side of the patches, pixels; a heatmap has a quarter as many bins.
    #[arg(long, value_name = "PX", default_value_t = 128)]
    pub input: usize,
    /// `mesh`: what of the network learns.
    #[arg(long, value_enum, default_value_t)]
    pub stage: Stage,
    /// `mesh`: MeshNet begins as a copy of PoseNet's trunk, once that has been trained.
    #[arg(long)]
    pub mesh_from_pose: bool,
    /// Also the losses of the mesh's normals and edges.
    #[arg(long)]
    pub surface: bool,
    /// Seconds between checkpoints.
    #[arg(long, value_name = "SECS", default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..))]
    pub checkpoint_every: u64,
}

/// Arguments of `ablate`.
#[derive(Debug, Args)]
pub struct AblateArgs {
    /// Folder of ablation.json, ablation.txt and a folder for each network; what is there goes on.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Samples that each network sees.
    #[arg(long, value_name = "N", default_value_t = 4000, value_parser = clap::value_parser!(u64).range(64..))]
    pub samples: u64,
    /// Threads that learn [default: all processors].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
    pub threads: Option<u32>,
    /// What the weights at first and the order of the samples follow from.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Channels after the ResNet's stem, a multiple of 16.
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = parse_blocks)]
    pub width: u32,
    /// Channels of the heads, a multiple of 16.
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = parse_blocks)]
    pub channels: u32,
    /// Side of the patches, pixels. With 128 the heatmaps have the paper's 8, 16, 32 and 64 bins.
    #[arg(long, value_name = "PX", default_value_t = 128)]
    pub input: usize,
}

/// How frames become people: shared by the window and `run`.
#[derive(Debug, Args)]
pub struct PipelineArgs {
    /// Folder of checkpoints and body models [default: `LIXELSCOPE_MODELS`, else the platform's data folder].
    #[arg(long, value_name = "DIR")]
    pub models: Option<PathBuf>,
    /// Device of the networks.
    #[arg(long, value_enum, default_value_t)]
    pub backend: Backend,
    /// Numbers that an NVIDIA GPU computes with (builds with cuDNN).
    #[arg(long, value_enum, default_value_t)]
    pub precision: Precision,
    /// Network that turns a person's patch into a body [default: body; of synthetic hands: hand].
    #[arg(long, value_enum)]
    pub estimator: Option<EstimatorKind>,
    /// Mesh that is shown and written: from the lixels, or from the parameter stage.
    #[arg(long, value_enum, default_value_t)]
    pub mesh: MeshSource,
    /// A person's box in frame pixels, instead of the detector; repeat it for more people.
    #[arg(long = "box", value_name = "X,Y,W,H", value_parser = parse_box, allow_hyphen_values = true, conflicts_with_all = ["boxes", "whole_frame"])]
    pub rects: Vec<RectPx>,
    /// A JSON file with boxes: [[x, y, w, h], ...].
    #[arg(long, value_name = "FILE", conflicts_with = "whole_frame")]
    pub boxes: Option<PathBuf>,
    /// The whole frame is one box (a hand close to the camera).
    #[arg(long)]
    pub whole_frame: bool,
    /// The detector runs on every N-th frame of a webcam or video; between, boxes follow the people. Pictures are all
    /// searched.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub detect_every: u32,
    /// Network that finds people: Mask R-CNN where its checkpoint is there (auto), or a certain one.
    #[arg(long, value_enum, default_value_t)]
    pub detector: DetectorKind,
    /// Shorter side of a frame of 4:3 as the detector sees it [default: 800 on a GPU, 400 on the processor; light: 240,
    /// which is a longer side of 320 in every format].
    #[arg(long, value_name = "PX", value_parser = clap::value_parser!(u32).range(64..=2000))]
    pub detector_side: Option<u32>,
    /// What the detector looks for, one of COCO's classes.
    #[arg(long, value_name = "NAME", default_value = "person", value_parser = parse_class)]
    pub class: u32,
    /// Score from which a person appears.
    #[arg(long, value_name = "S", default_value_t = 0.5, value_parser = parse_unit)]
    pub min_score: f32,
    /// At most this many people.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub max_people: u32,
    /// Focal length in pixels of the frame [default: 1500, the papers' normalised camera].
    #[arg(long, value_name = "PX", value_parser = parse_positive, conflicts_with_all = ["fov", "calibration"])]
    pub focal: Option<f32>,
    /// Horizontal field of view in degrees.
    #[arg(long, value_name = "DEG", value_parser = parse_fov, conflicts_with = "calibration")]
    pub fov: Option<f32>,
    /// Picture size to ask of a webcam [default: near 1280x720].
    #[arg(long, value_name = "WxH", value_parser = parse_size)]
    pub webcam_size: Option<[u32; 2]>,
    /// Frames a second to ask of a webcam [default: 30].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub webcam_fps: Option<u32>,
    /// A JSON file with the camera: {"fx": .., "fy": .., "cx": .., "cy": .., "width": .., "height": ..}.
    #[arg(long, value_name = "FILE")]
    pub calibration: Option<PathBuf>,
}

/// Arguments of the window.
#[derive(Debug, Args)]
pub struct WindowArgs {
    /// Where frames come from: synthetic or synthetic:SEED (people that do not exist), synthetic:hands or
    /// synthetic:hands:SEED, webcam or webcam:N, a video, a picture or a folder of pictures [default: synthetic].
    #[arg(long, value_name = "S")]
    pub source: Option<SourceSpec>,
    /// Size of the window in points.
    #[arg(long, value_name = "WxH", value_parser = parse_size)]
    pub window_size: Option<[u32; 2]>,
    /// How frames become people.
    #[command(flatten)]
    pub pipeline: PipelineArgs,
}

/// Arguments of `run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Where frames come from: synthetic or synthetic:SEED (people that do not exist), synthetic:hands or
    /// synthetic:hands:SEED, webcam or webcam:N, a video, a picture or a folder of pictures.
    #[arg(long, value_name = "S")]
    pub source: SourceSpec,
    /// Stop after so many frames.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub frames: Option<u64>,
    /// Folder for the results; made if it is not there.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Write a PNG of every frame with the meshes drawn on it.
    #[arg(long)]
    pub overlay: bool,
    /// Write an OBJ of every person in every frame.
    #[arg(long)]
    pub obj: bool,
    /// How frames become people.
    #[command(flatten)]
    pub pipeline: PipelineArgs,
}

/// Arguments of `bench`.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// Device of the networks.
    #[arg(long, value_enum, default_value_t)]
    pub backend: Backend,
    /// Numbers that an NVIDIA GPU computes with (builds with cuDNN).
    #[arg(long, value_enum, default_value_t)]
    pub precision: Precision,
    /// On an NVIDIA GPU kernel by kernel, not as one graph: so the stages can be told apart.
    #[arg(long)]
    pub no_graphs: bool,
    /// On an NVIDIA GPU also print the time of each kernel.
    #[arg(long)]
    pub profile: bool,
    /// Timed runs of each network and batch.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub runs: u32,
    /// Only networks whose name contains this; repeat it for more. `published_start` is timed only where it is named:
    /// it writes checkpoints of the published sizes, 900 MB, into the system's folder for temporary files, and times
    /// the start to the first mesh.
    #[arg(long, value_name = "NAME")]
    pub only: Vec<String>,
    /// Folder of checkpoints, for the default path [default: `LIXELSCOPE_MODELS`, else the platform's data folder].
    #[arg(long, value_name = "DIR")]
    pub models: Option<PathBuf>,
    /// Batch sizes.
    #[arg(long, value_name = "N,..", value_delimiter = ',', default_values_t = [1, 4])]
    pub batch: Vec<usize>,
    /// Threads of the networks on the CPU, and a table of how they scale where there are several numbers; all
    /// processors' where it is not said.
    #[arg(long, value_name = "N,..", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub threads: Vec<u32>,
    /// Also write the figures as JSON.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Also write what each network gave, for the first of the batch sizes, as safetensors: whoever draws the same
    /// weights and pictures (tests/peers) can compare.
    #[arg(long, value_name = "DIR")]
    pub outputs: Option<PathBuf>,
}

/// Arguments of `doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Folder of checkpoints and body models.
    #[arg(long, value_name = "DIR")]
    pub models: Option<PathBuf>,
}

/// Arguments of `convert`.
#[derive(Debug, Args)]
pub struct ConvertArgs {
    /// A checkpoint: safetensors, or either container of `torch.save`.
    pub input: PathBuf,
    /// The safetensors file to write.
    pub output: PathBuf,
    /// Filters and matrices as 16-bit floats: half the bytes.
    #[arg(long = "f16")]
    pub half: bool,
}

/// Arguments of `body`.
#[derive(Debug, Args)]
pub struct BodyArgs {
    /// Folder for the files; made if it is not there.
    #[arg(long, value_name = "DIR")]
    pub export: PathBuf,
}

/// Arguments of `synth`.
#[derive(Debug, Args)]
pub struct SynthArgs {
    /// What all pictures follow from.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// How many pictures.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub count: u64,
    /// Folder for the pictures and annotations.json; made if it is not there.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// What the pictures show.
    #[arg(long, value_enum, default_value_t)]
    pub kind: Kind,
    /// Size of the pictures.
    #[arg(long, value_name = "WxH", default_value = "640x480", value_parser = parse_synthetic_size)]
    pub size: [u32; 2],
}

/// Arguments of `eval`.
#[derive(Debug, Args)]
pub struct EvalArgs {
    /// A folder with annotations.json, as `synth` writes it, or an annotation file in COCO's format.
    #[arg(value_name = "DATASET", required_unless_present = "synthetic", conflicts_with = "synthetic")]
    pub dataset: Option<PathBuf>,
    /// Synthetic pictures, made on the fly.
    #[arg(long)]
    pub synthetic: bool,
    /// What the synthetic pictures follow from.
    #[arg(long, value_name = "N", default_value_t = 0, conflicts_with = "dataset")]
    pub seed: u64,
    /// At most so many pictures [default: 1000 synthetic ones, or the whole dataset].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub count: Option<u64>,
    /// What the synthetic pictures show; of hands, the estimator of hands is taken.
    #[arg(long, value_enum, default_value_t, conflicts_with = "dataset")]
    pub split: Kind,
    /// Size of the synthetic pictures.
    #[arg(long, value_name = "WxH", default_value = "640x480", value_parser = parse_synthetic_size, conflicts_with = "dataset")]
    pub size: [u32; 2],
    /// Take the true boxes instead of the detector's.
    #[arg(long)]
    pub true_boxes: bool,
    /// Take the true depths of the root joints instead of RootNet's.
    #[arg(long)]
    pub true_roots: bool,
    /// Also write the figures as JSON.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// How frames become people.
    #[command(flatten)]
    pub pipeline: PipelineArgs,
}

impl WindowArgs {
    /// The source that the window opens with.
    pub fn source(&self) -> SourceSpec {
        self.source.clone().unwrap_or_default()
    }

    /// How the window starts.
    pub fn options(&self) -> WindowOptions {
        let mut options = WindowOptions::default();
        if let Some(size) = self.window_size {
            options.size_pt = size.map(|side| side as f32);
        }
        options
    }
}

impl PipelineArgs {
    /// Reads the files that the arguments name and checks everything. `shown` is what is expected in the frames.
    pub fn settings(&self, shown: Kind) -> Result<Settings> {
        let mut settings = Settings::with_models(models_folder(self.models.as_deref())?);
        settings.backend = self.backend;
        settings.precision = self.precision;
        settings.estimator = self.estimator.unwrap_or(match shown.family() {
            Family::Smpl => EstimatorKind::Body,
            Family::Mano => EstimatorKind::Hand,
        });
        settings.mesh_source = self.mesh;
        settings.boxes = self.box_source()?;
        settings.detect_every = self.detect_every;
        settings.detector = self.detector;
        settings.detector_side = self.detector_side;
        settings.detector_label = self.class;
        settings.score_threshold = self.min_score;
        settings.max_people = self.max_people as usize;
        settings.camera = self.camera()?;
        settings.webcam = WebcamWish { size: self.webcam_size, fps: self.webcam_fps, pixels: None };
        Ok(settings)
    }

    fn box_source(&self) -> Result<BoxSource> {
        if self.whole_frame {
            return Ok(BoxSource::WholeFrame);
        }
        if let Some(path) = &self.boxes {
            let rects: Vec<RectPx> = read_json(path, "a list of boxes [[x, y, w, h], ...]")?;
            if rects.is_empty() {
                return Err(BadInput(format!("{} holds no box", path.display())).into());
            }
            if let Some(bad) = rects.iter().find(|r| !r.is_valid()) {
                let rect = <[f32; 4]>::from(*bad);
                return Err(BadInput(format!("{}: the box {rect:?} has no area", path.display())).into());
            }
            return Ok(BoxSource::User(rects));
        }
        Ok(if self.rects.is_empty() { BoxSource::Detector } else { BoxSource::User(self.rects.clone()) })
    }

    fn camera(&self) -> Result<CameraSetting> {
        if let Some(focal) = self.focal {
            return Ok(CameraSetting::FocalPx(focal));
        }
        if let Some(fov) = self.fov {
            return Ok(CameraSetting::HorizontalFov(fov.to_radians()));
        }
        match &self.calibration {
            Some(path) => Calibration::read(path),
            None => Ok(CameraSetting::Normalised),
        }
    }
}

/// The file behind `--calibration`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Calibration {
    fx: f32,
    fy: f32,
    cx: f32,
    cy: f32,
    width: u32,
    height: u32,
}

impl Calibration {
    fn read(path: &Path) -> Result<CameraSetting> {
        let Self { fx, fy, cx, cy, width, height } =
            read_json(path, r#"{"fx": .., "fy": .., "cx": .., "cy": .., "width": .., "height": ..}"#)?;
        let positive = [fx, fy].iter().all(|f| f.is_finite() && *f > 0.0);
        if !positive || !cx.is_finite() || !cy.is_finite() || width == 0 || height == 0 {
            return Err(BadInput(format!("{}: focal lengths and sizes must be positive", path.display())).into());
        }
        Ok(CameraSetting::Calibrated { intrinsics: Intrinsics { fx, fy, cx, cy }, size: [width, height] })
    }
}

/// The models folder: the argument, else the environment, else the platform's data folder.
pub fn models_folder(argument: Option<&Path>) -> Result<PathBuf> {
    match argument {
        Some(dir) if !dir.is_dir() => {
            Err(BadInput(format!("--models {}: there is no such folder", dir.display())).into())
        }
        given => models::folder(given.map(Path::to_path_buf)),
    }
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path, form: &str) -> Result<T> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text)
        .map_err(|error| BadInput(format!("{} is not of the form {form}: {error}", path.display())).into())
}

fn parse_box(text: &str) -> Result<RectPx, String> {
    let numbers: Vec<f32> = text
        .split(',')
        .map(|part| part.trim().parse::<f32>().map_err(|_| format!("\"{part}\" is not a number")))
        .collect::<Result<_, _>>()?;
    let rect = <[f32; 4]>::try_from(numbers).map_err(|_| "a box is four numbers: x,y,w,h".to_owned())?;
    let rect = RectPx::from(rect);
    if rect.is_valid() { Ok(rect) } else { Err("width and height must be positive".to_owned()) }
}

fn parse_class(text: &str) -> Result<u32, String> {
    coco::label(text).map_err(|error| format!("{error:#}"))
}

fn parse_positive(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(value) if value.is_finite() && value > 0.0 => Ok(value),
        _ => Err("a positive number is needed".to_owned()),
    }
}

fn parse_fov(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(value) if value > 0.0 && value < 180.0 => Ok(value),
        _ => Err("an angle between 0 and 180 degrees is needed".to_owned()),
    }
}

fn parse_unit(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(value) if (0.0..=1.0).contains(&value) => Ok(value),
        _ => Err("a number from 0 to 1 is needed".to_owned()),
    }
}

fn parse_blocks(text: &str) -> Result<u32, String> {
    match text.parse::<u32>() {
        Ok(channels) if (16..=1024).contains(&channels) && channels.is_multiple_of(16) => Ok(channels),
        _ => Err("a multiple of 16 from 16 to 1024 is needed".to_owned()),
    }
}

fn parse_size(text: &str) -> Result<[u32; 2], String> {
    WebcamWish::parse_size(text).map_err(|error| format!("{error:#}"))
}

fn parse_synthetic_size(text: &str) -> Result<[u32; 2], String> {
    let size = parse_size(text)?;
    let fits = size.iter().all(|side| synth::SIDES_PX.contains(side));
    fits.then_some(size)
        .ok_or_else(|| format!("sides go from {} to {} pixels", synth::SIDES_PX.start(), synth::SIDES_PX.end()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_box_needs_four_numbers_and_an_area() {
        assert_eq!(parse_box("1, 2,3,4.5").unwrap(), RectPx::from([1.0, 2.0, 3.0, 4.5]));
        for bad in ["", "1,2,3", "1,2,3,4,5", "1,2,3,x", "1,2,0,4", "1,2,3,-1", "nan,0,1,1", "0,0,inf,1"] {
            assert!(parse_box(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn missing_files_and_bad_input_exit_with_2() {
        let missing = std::fs::read("no such file").context("cannot read it").unwrap_err();
        assert_eq!(exit_code(&missing), 2);
        assert_eq!(exit_code(&anyhow::Error::from(BadInput("x".into())).context("y")), 2);
        assert_eq!(exit_code(&anyhow::anyhow!("anything")), 1);
    }
}
