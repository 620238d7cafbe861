//! `lixelscope train`.

use std::time::Duration;

use anyhow::{Result, ensure};
use indicatif::{ProgressBar, ProgressStyle};

use super::mesh_task::MeshTask;
use super::params::Params;
use super::resize::read_resized;
use super::root_task::RootTask;
use super::session::{self, Options, Progress};
use super::task::Task;
use crate::cli::{TrainArgs, Trainee};
use crate::nets::NetSizes;
use crate::nets::weights::WeightFile;

/// Trains a network.
pub fn run(args: &TrainArgs) -> Result<()> {
    let sizes = NetSizes::new(args.resnet, args.input, args.input / 4)?
        .with_widths(args.width as usize, args.channels as usize);
    match args.network {
        Trainee::Mesh => train(args, &sizes, MeshTask::new(args.resnet, sizes, args.surface, args.seed)?),
        Trainee::Root => train(args, &sizes, RootTask::new(args.resnet, sizes, args.seed)?),
    }
}

fn train<T: Task>(args: &TrainArgs, sizes: &NetSizes, (task, params): (T, Params)) -> Result<()> {
    if let Some(path) = &args.from {
        read_resized(&params, sizes, &WeightFile::open(path)?)?;
    }
    ensure!(args.rate.is_finite() && args.rate > 0.0, "--rate {} is no learning rate", args.rate);
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = args.threads.map_or(processors, |threads| threads as usize);
    let options = Options {
        out: args.out.clone(),
        samples: args.samples,
        batch: args.batch as usize,
        threads,
        makers: args.makers as usize,
        learning_rate: args.rate,
        seed: args.seed,
        checkpoint_every: Duration::from_secs(args.checkpoint_every),
    };
    log::info!("{} parameters, {threads} threads", params.values().len());
    let style = ProgressStyle::with_template("{bar:30} {human_pos}/{human_len} samples, {eta} left  {msg}");
    let bar = ProgressBar::new(options.samples).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
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

fn summary(progress: &Progress, values: &[(&'static str, f64)]) -> String {
    let values: Vec<String> = values.iter().map(|(name, value)| format!("{name} {value:.3}")).collect();
    format!("{:.0}/s, {}", progress.per_sec, values.join(", "))
}
