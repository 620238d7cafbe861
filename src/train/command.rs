//! `lixelscope train`.

use std::time::Duration;

use anyhow::{Context, Error, Result};
use indicatif::{ProgressBar, ProgressStyle};

use super::mesh_task::MeshTask;
use super::param_task::ParamTask;
use super::params::Params;
use super::person_detector::task::DetectorTask;
use super::pose_task::PoseTask;
use super::resize::{is_of_another_mesh, read_alike, read_resized};
use super::root_task::{self, RootTask};
use super::session::{self, Files, Options, Place, Progress};
use super::task::Task;
use crate::body::Family;
use crate::cli::{BadInput, TrainArgs, Trainee};
use crate::nets::NetSizes;
use crate::nets::weights::WeightFile;

/// Trains a network.
pub fn run(args: &TrainArgs) -> Result<()> {
    let sizes = NetSizes::new(args.resnet, args.input, args.input / 4).map_err(refused)?;
    let sizes = sizes.with_widths(args.width as usize, args.channels as usize);
    if !(args.rate.is_finite() && args.rate > 0.0) {
        return Err(BadInput(format!("--rate {} is no learning rate", args.rate)).into());
    }
    if args.from.is_some() && Files::of(&args.out).checkpoint.is_file() {
        log::info!("{} goes on where it was; --from is not read again", args.out.display());
    }
    match args.network {
        Trainee::Mesh => {
            let (task, params) = MeshTask::new(args.of, args.resnet, sizes, args.stage, args.surface, args.seed)?;
            begin(args, &sizes, &params)?;
            if args.mesh_from_pose {
                task.start_mesh_from_pose(&params);
            }
            train(args, (task, params))
        }
        Trainee::Root => {
            let (task, params) = RootTask::new(args.of, args.resnet, sizes, args.seed)?;
            begin(args, &sizes, &params)?;
            train(args, (task, params))
        }
        Trainee::Params => {
            let mesh = args.mesh.as_deref().context("--mesh FILE: the weights of a trained first stage")?;
            let (task, params) = ParamTask::new(args.of, mesh, args.seed)?;
            begin(args, &sizes, &params)?;
            train(args, (task, params))
        }
        Trainee::Pose => {
            if args.of == Family::Mano {
                let words =
                    "3D PoseNet has the joints of a body: leave --of out, or train mesh, root, params or detector";
                return Err(BadInput(words.into()).into());
            }
            let (task, params) = PoseTask::new(args.resnet, sizes, args.seed)?;
            begin(args, &sizes, &params)?;
            train(args, (task, params))
        }
        Trainee::Detector => {
            let (task, params) = DetectorTask::new(args.of, args.seed)?;
            begin(args, &sizes, &params)?;
            train(args, (task, params))
        }
    }
}

/// The arguments ask for what cannot be.
fn refused(error: Error) -> BadInput {
    BadInput(format!("{error:#}"))
}

/// Weights from elsewhere. RootNet's trunk can begin as PoseNet's: both look at the same people.
fn begin(args: &TrainArgs, sizes: &NetSizes, params: &Params) -> Result<()> {
    let Some(path) = &args.from else { return Ok(()) };
    let file = WeightFile::open(path)?;
    if args.network == Trainee::Root && file.shape("pose_backbone.conv1.weight").is_some() {
        return root_task::start_from_pose(params, &file);
    }
    if is_of_another_mesh(params, &file) {
        return read_alike(params, &file);
    }
    read_resized(params, sizes, &file)
}

fn train<T: Task>(args: &TrainArgs, (task, params): (T, Params)) -> Result<()> {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = args.threads.map_or(processors, |threads| threads as usize);
    let options = Options {
        out: args.out.clone(),
        samples: args.samples,
        batch: args.batch as usize,
        place: Place::new(args.backend, args.precision, threads).map_err(refused)?,
        makers: args.makers.map_or((processors / 2).max(1), |makers| makers as usize),
        learning_rate: args.rate,
        seed: args.seed,
        checkpoint_every: Duration::from_secs(args.checkpoint_every),
    };
    options.place.check(options.batch).map_err(refused)?;
    log::info!("{} parameters, {}", params.values().len(), options.place);
    let bar = ProgressBar::new(options.samples).with_style(bar_style());
    session::run(task, params, &options, &mut |progress| {
        bar.set_position(progress.samples);
        if progress.loss.is_empty() {
            // What an earlier run has done tells nothing of this one's speed.
            bar.reset_eta();
            return;
        }
        bar.set_message(summary(progress, &progress.loss));
        if !progress.errors.is_empty() {
            bar.suspend(|| log::info!("{} samples: {}", progress.samples, summary(progress, &progress.errors)));
        }
    })?;
    bar.finish_and_clear();
    Ok(())
}

/// Done, left and said.
pub(super) fn bar_style() -> ProgressStyle {
    let style = ProgressStyle::with_template("{bar:30} {human_pos}/{human_len} samples, {eta} left  {msg}");
    style.unwrap_or_else(|_| ProgressStyle::default_bar())
}

fn summary(progress: &Progress, values: &[(&'static str, f64)]) -> String {
    let values: Vec<String> = values.iter().map(|(name, value)| format!("{name} {value:.3}")).collect();
    format!("{:.0}/s, {}", progress.per_sec, values.join(", "))
}
