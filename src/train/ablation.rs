//! `lixelscope ablate`: the paper's ablations (I2L-MeshNet, Tables 1 to 3) on our people, at a small scale: each network
//! learns from the same samples in the same order, and is measured on the same others.

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use indicatif::ProgressBar;
use serde::Serialize;

use super::command::bar_style;
use super::curves::Curves;
use super::i2l::Design;
use super::mesh_task::{MeshTask, Stage};
use super::session::{self, Files, Options, Place};
use crate::body::Family;
use crate::cli::AblateArgs;
use crate::nets::NetSizes;

/// Samples of a step: small, so that few samples are many steps.
const BATCH: usize = 16;
const RATE: f64 = 1e-3;
const RESNET: usize = 18;

/// The paper's design, and what is compared with it: folder, table, what it is.
const RUNS: [(&str, &str, &str, Design); 6] = {
    let paper = Design { conditioned: true, doublings: 3, lixels: true };
    [
        ("paper", "1, 2, 3", "lixels, PoseNet", paper),
        ("direct", "1", "coordinates by a linear layer, PoseNet", Design { lixels: false, ..paper }),
        ("quarter", "2", "lixels, PoseNet", Design { doublings: 1, ..paper }),
        ("half", "2", "lixels, PoseNet", Design { doublings: 2, ..paper }),
        ("double", "2", "lixels, PoseNet", Design { doublings: 4, ..paper }),
        ("unconditioned", "3", "lixels, MeshNet not told PoseNet's joints", Design { conditioned: false, ..paper }),
    ]
};

/// What is written.
#[derive(Debug, Serialize)]
struct Report {
    samples: u64,
    seed: u64,
    input_px: usize,
    resnet: usize,
    width: usize,
    channels: usize,
    batch: usize,
    learning_rate: f64,
    threads: usize,
    runs: Vec<Row>,
}

/// One network. Errors are means over the validation samples, in mm.
#[derive(Debug, Serialize)]
struct Row {
    name: &'static str,
    tables: &'static str,
    what: &'static str,
    bins: usize,
    parameters: usize,
    scenes_mpjpe_mm: f64,
    scenes_pa_mpjpe_mm: f64,
    postures_mpjpe_mm: f64,
    postures_pa_mpjpe_mm: f64,
    poses_mpjpe_mm: f64,
    poses_pa_mpjpe_mm: f64,
}

/// Trains and measures all; goes on where an earlier run in the same folder stopped.
pub fn run(args: &AblateArgs) -> Result<()> {
    let sizes =
        NetSizes::new(RESNET, args.input, args.input / 4)?.with_widths(args.width as usize, args.channels as usize);
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = args.threads.map_or(processors, |threads| threads as usize).min(BATCH / 2);
    let mut report = Report {
        samples: args.samples,
        seed: args.seed,
        input_px: args.input,
        resnet: RESNET,
        width: args.width as usize,
        channels: args.channels as usize,
        batch: BATCH,
        learning_rate: RATE,
        threads,
        runs: Vec::new(),
    };
    let bar = ProgressBar::new(args.samples * RUNS.len() as u64).with_style(bar_style());
    for (i, (name, tables, what, design)) in RUNS.into_iter().enumerate() {
        let options = Options {
            out: args.out.join(name),
            samples: args.samples,
            batch: BATCH,
            place: Place::Threads(threads),
            makers: threads,
            learning_rate: RATE,
            seed: args.seed,
            checkpoint_every: Duration::from_mins(5),
        };
        let (task, params) = MeshTask::designed(Family::Smpl, RESNET, sizes, design, Stage::All, false, args.seed)?;
        let parameters = params.values().len();
        session::run(task, params, &options, &mut |progress| {
            bar.set_position(i as u64 * args.samples + progress.samples);
            bar.set_message(format!("{name}: {:.0} samples/s", progress.per_sec));
        })?;
        let error = |error: &str| last(&Files::of(&options.out).curves, error);
        report.runs.push(Row {
            name,
            tables,
            what,
            bins: design.bins(&sizes),
            parameters,
            scenes_mpjpe_mm: error("scenes_mpjpe_mm")?,
            scenes_pa_mpjpe_mm: error("scenes_pa_mpjpe_mm")?,
            postures_mpjpe_mm: error("postures_mpjpe_mm")?,
            postures_pa_mpjpe_mm: error("postures_pa_mpjpe_mm")?,
            poses_mpjpe_mm: error("poses_mpjpe_mm")?,
            poses_pa_mpjpe_mm: error("poses_pa_mpjpe_mm")?,
        });
        // After each, so that an interrupted ablation shows what it has.
        let text = table(&report);
        write(&args.out.join("ablation.json"), &serde_json::to_string_pretty(&report)?)?;
        write(&args.out.join("ablation.txt"), &text)?;
    }
    bar.finish_and_clear();
    print!("{}", table(&report));
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// The last value of a name in a table of curves.
fn last(curves: &Path, name: &str) -> Result<f64> {
    let value = Curves::open(curves, u64::MAX - 1)?.last(name);
    value.with_context(|| format!("{} says nothing of {name}", curves.display()))
}

/// As the paper shows it.
fn table(report: &Report) -> String {
    let mut text = format!(
        "I2L-MeshNet's ablations on synthetic people: {} samples each, {} px, ResNet-{} of width {}, seed {}.\n\
         Errors in mm on the same {} samples: MPJPE (PA-MPJPE).\n\n{:<8} {:>4}  {:>16}  {:>16}  {:>16}  {}\n",
        report.samples,
        report.input_px,
        report.resnet,
        report.width,
        report.seed,
        session::VALIDATION_BLOCKS as usize * super::people::VIEWS,
        "Table",
        "bins",
        "scenes",
        "postures",
        "poses",
        "network"
    );
    for row in &report.runs {
        let errors = |plain: f64, aligned: f64| format!("{plain:.1} ({aligned:.1})");
        let scenes = errors(row.scenes_mpjpe_mm, row.scenes_pa_mpjpe_mm);
        let postures = errors(row.postures_mpjpe_mm, row.postures_pa_mpjpe_mm);
        let poses = errors(row.poses_mpjpe_mm, row.poses_pa_mpjpe_mm);
        let (tables, bins, what, millions) = (row.tables, row.bins, row.what, row.parameters as f64 / 1e6);
        // To a string: cannot fail.
        let errors = format!("{scenes:>16}  {postures:>16}  {poses:>16}");
        let _ = writeln!(text, "{tables:<8} {bins:>4}  {errors}  {what}, {millions:.1} M parameters");
    }
    text
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};
    use std::sync::Arc;

    use super::*;
    use crate::train::i2l::I2l;
    use crate::train::layers::Pass;
    use crate::train::optimizer::Adam;
    use crate::train::params::Params;

    #[test]
    fn every_design_learns_and_has_the_bins_that_it_should() -> Result<()> {
        let sizes = NetSizes::new(18, 64, 16)?.with_widths(16, 16);
        let bins: Vec<usize> = RUNS.iter().map(|run| run.3.bins(&sizes)).collect();
        assert_eq!(bins, [16, 16, 4, 8, 32, 16]);
        let paper = Params::build(7, |b| I2l::new(&sizes, 3, 20, b)).0;
        for (name, .., design) in RUNS {
            let (params, network) = Params::build(7, |b| I2l::designed(&sizes, design, 3, 20, b));
            assert_eq!(design == Design::default(), params.names().eq(paper.names()), "{name}");
            let mut adam = Adam::new(&params);
            let params = Arc::new(params);
            let pass = Pass { params: params.clone(), is_training: true };
            let patches = Tensor::rand(0_f32, 255.0, (4, 3, 64, 64), &Device::Cpu)?;
            // As parts of the volume's side, so that all designs have the same task.
            let target = Tensor::rand(0.25_f32, 0.75, (4, 20, 3), &Device::Cpu)?;
            let mut losses = Vec::new();
            for _ in 0..12 {
                let out = network.forward(&pass, &patches)?;
                let places = (out.vertices.coords / design.bins(&sizes) as f64)?;
                let loss = ((places - &target)?.abs()?.mean_all()? + out.joints.coords.sum_all()?.affine(0.0, 0.0)?)?;
                params.backward(&loss)?;
                adam.step(&params, 5e-3);
                losses.push(loss.to_scalar::<f32>()?);
            }
            assert!(losses[11] < 0.9 * losses[0], "{name}: {losses:?}");
        }
        Ok(())
    }
}
