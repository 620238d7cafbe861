//! Training on an NVIDIA GPU against training on the processor: the same batch, the same parameters.
//!
//! With `LIXELSCOPE_TRAINING_REPORT=FILE` what is measured is written there as JSON.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use candle_core::{Device, Tensor};
use lixelscope::body::Family;
use lixelscope::nets::resnet::Depth;
use lixelscope::nets::{NetSizes, Precision};
use lixelscope::train::Stage;
use lixelscope::train::gpu::{Cuda, GpuLearner, Machine};
use lixelscope::train::layers::{DeconvStack, Pass};
use lixelscope::train::mesh_task::MeshTask;
use lixelscope::train::optimizer::Adam;
use lixelscope::train::params::Params;
use lixelscope::train::person_detector::task::DetectorTask;
use lixelscope::train::resnet::{Stages, Stem};
use lixelscope::train::root_task::RootTask;
use lixelscope::train::session::{self, Options, Place};
use lixelscope::train::task::{Loss, Task};
use serde_json::{Value, json};

/// Precisions that train, and by how much the loss may differ, the gradient as a part of its length, and each
/// parameter's as a part of its own and of the whole. f32 is rounded otherwise in some forty layers, and where an
/// activation crosses 0, a part of the gradient goes another way: with two ways on the processor 1e-5 to 4e-4 of the
/// gradient. Factors of 10 bits make as many more cross as their square root says, a hundred times. What is wrong (a
/// stride, a transposition, a forgotten term) is as large as the gradient of its layer.
const PRECISIONS: [(Precision, [f64; 4]); 2] =
    [(Precision::F32, [1e-3, 0.01, 0.1, 0.002]), (Precision::Tf32, [0.01, 0.2, 0.5, 0.03])];

/// Samples of a batch that is compared.
const COMPARED: usize = 24;

fn length(of: &[f32]) -> f64 {
    of.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt()
}

/// Loss and its gradient on the processor or on a machine.
fn gradient<T: Task>(
    task: &T,
    params: &Params,
    batch: &[&T::Sample],
    machine: Option<&Arc<dyn Machine>>,
) -> Result<(f64, Vec<f32>)> {
    let params = match machine {
        Some(machine) => params.replica_on(Arc::clone(machine))?,
        None => params.replica(),
    };
    let pass = Pass { params: Arc::new(params), is_training: true };
    let loss = task.loss(&pass, batch)?;
    pass.params.backward(&loss.total)?;
    let gradients = match machine {
        Some(_) => pass.params.resident()?.gradients()?,
        None => pass.params.gradients().clone(),
    };
    Ok((f64::from(loss.total.to_scalar::<f32>()?), gradients))
}

/// The last layers of heads begin so small that all points are in one place, where losses have kinks: here they are
/// as large as others.
fn wake(params: &Params) {
    let mut values = params.values_mut();
    let mut start = 0;
    for (_, shape) in params.names() {
        let end = start + shape.iter().product::<usize>();
        let weight = &mut values[start..end];
        if shape.len() > 1 && weight.iter().all(|x| x.abs() < 0.02) {
            weight.iter_mut().for_each(|x| *x *= 100.0);
        }
        start = end;
    }
}

/// One step's loss and gradients, parameter by parameter; and, where no way of the gradient is cut, this is the loss's
/// slope along itself.
fn compare<T: Task>(name: &str, (task, params): (T, Params), is_whole: bool) -> Result<Value> {
    wake(&params);
    let samples: Vec<T::Sample> = {
        let mut samples = task.block(1)?;
        for number in 2.. {
            if samples.len() >= COMPARED {
                break;
            }
            samples.extend(task.block(number)?);
        }
        samples.truncate(COMPARED);
        samples
    };
    let batch: Vec<&T::Sample> = samples.iter().collect();
    let (expected_loss, expected) = gradient(&task, &params, &batch, None)?;
    let all = length(&expected);
    let mut report = serde_json::Map::new();
    for (precision, [of_loss, whole, own, of_all]) in PRECISIONS {
        let machine = Cuda::open(0, precision)?;
        let (loss, found) = gradient(&task, &params, &batch, Some(&machine))?;
        let off: Vec<f32> = found.iter().zip(&expected).map(|(a, b)| a - b).collect();
        let apart = length(&off) / all;
        println!("{name}, {}: loss {loss} {expected_loss}, gradient apart {apart:.2e}", precision.name());
        let (mut start, mut worst) = (0, (0.0, String::new()));
        for (parameter, shape) in params.names() {
            let end = start + shape.iter().product::<usize>();
            let (error, limit) = (length(&off[start..end]), own * length(&expected[start..end]) + of_all * all);
            if error / limit > worst.0 {
                worst = (error / limit, format!("{parameter}: {error} of {}", length(&expected[start..end])));
            }
            start = end;
        }
        println!("{name}, {}: worst of its limit {:.3}: {}", precision.name(), worst.0, worst.1);
        ensure!((loss / expected_loss - 1.0).abs() < of_loss, "{name}: loss {loss} instead of {expected_loss}");
        ensure!(apart < whole && worst.0 < 1.0, "{name}: gradients {apart} apart; {}", worst.1);

        report.insert(precision.name().into(), json!({ "gradient_apart": apart, "loss": loss }));
        // A step that is short enough for the loss to be straight moves fewer digits than TF32 has.
        if !is_whole || precision != Precision::F32 {
            continue;
        }
        // Finite differences, on the GPU alone: along its gradient the loss rises by the gradient's length.
        let step = 0.0003 * expected_loss / length(&found);
        let moved = |by: f64| -> Result<f64> {
            let moved = params.replica();
            let scale = (by / length(&found)) as f32;
            moved.values_mut().iter_mut().zip(&found).for_each(|(value, g)| *value += scale * g);
            Ok(gradient(&task, &moved, &batch, Some(&machine))?.0)
        };
        let slope = (moved(step)? - moved(-step)?) / (2.0 * step) / length(&found);
        println!("{name}, {}: slope {slope:.4} of the gradient's length", precision.name());
        // The loss bends a little within the step, which moves the fourth of its seven digits.
        ensure!((slope - 1.0).abs() < 0.1, "{name}: the loss rises by {slope} of the gradient's length");
        report[precision.name()]["slope"] = slope.into();
    }
    Ok(report.into())
}

/// The compact preset.
fn sizes() -> Result<NetSizes> {
    Ok(NetSizes::new(18, 128, 32)?.with_widths(32, 64))
}

#[test]
fn a_step_is_that_of_the_processor() -> Result<()> {
    let mut report = serde_json::Map::new();
    let mesh = |stage, surface| MeshTask::new(Family::Smpl, 18, sizes()?, stage, surface, 1);
    // PoseNet's joints are no way of the mesh's gradient, nor is the overlap that the detector's score is to be.
    report.insert("mesh".into(), compare("mesh", mesh(Stage::All, true)?, false)?);
    report.insert("joints".into(), compare("joints", mesh(Stage::Pose, false)?, true)?);
    report.insert("root".into(), compare("root", RootTask::new(Family::Smpl, 18, sizes()?, 1)?, true)?);
    report.insert("detector".into(), compare("detector", DetectorTask::new(Family::Smpl, 1)?, false)?);
    note("a_step", report.into())
}

/// Adds to the report.
fn note(key: &str, value: Value) -> Result<()> {
    let Some(path) = std::env::var_os("LIXELSCOPE_TRAINING_REPORT") else { return Ok(()) };
    let text = std::fs::read_to_string(&path).unwrap_or_else(|_| "{}".to_owned());
    let mut report: Value = serde_json::from_str(&text)?;
    report[key] = value;
    Ok(std::fs::write(path, serde_json::to_string_pretty(&report)?)?)
}

#[test]
fn two_hundred_steps_make_the_loss_fall_here_and_there() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let options = |place, steps: u64| Options {
        out: folder.path().to_owned(),
        samples: steps * 64,
        batch: 64,
        place,
        makers: processors.saturating_sub(2).max(1),
        learning_rate: 1e-3,
        seed: 3,
        checkpoint_every: Duration::from_secs(3600),
    };
    let mut told = Vec::new();
    let mut train = |place, steps| -> Result<Vec<session::Progress>> {
        told.clear();
        let (task, params) = MeshTask::new(Family::Smpl, 18, sizes()?, Stage::All, false, 2)?;
        session::run(task, params, &options(place, steps), &mut |progress| told.push(progress.clone()))?;
        Ok(told.clone())
    };
    let on_gpu = train(Place::Gpu(Cuda::open(0, Precision::Tf32)?), 200)?;
    let loss = |progress: &session::Progress| progress.loss.first().map(|(_, loss)| *loss);
    let losses: Vec<f64> = on_gpu.iter().filter_map(loss).collect();
    let per_sec: Vec<f64> = on_gpu.iter().map(|progress| progress.per_sec).collect();
    println!("losses {losses:?}, samples a second {per_sec:?}; {:?}", on_gpu.last().map(|p| &p.errors));
    ensure!(losses.len() == 4 && losses[3] < 0.9 * losses[0], "the loss does not fall: {losses:?}");

    // The processor goes on from there.
    let on_processor = train(Place::Threads(processors.min(16)), 210)?;
    ensure!(on_processor.first().context("it tells where it begins")?.samples == 200 * 64);
    let next = on_processor.iter().find_map(loss).context("steps were done")?;
    ensure!(next < 1.2 * losses[3], "{next} after {losses:?}");
    note("samples_per_sec_with_making", json!(per_sec.last()))
}

/// A ResNet-18 with transposed convolutions, as in tests/bench/training.rs and tests/peers/gpu.py.
struct Trunk {
    stem: Stem,
    stages: Stages,
    deconv: DeconvStack,
    image: Tensor,
    target: Tensor,
}

impl Trunk {
    const SIDE: usize = 128;
    const CHANNELS: usize = 128;

    fn new(batch: usize, device: &Device) -> Result<(Self, Params)> {
        let depth = Depth::new(18)?;
        let image = Tensor::rand(0_f32, 1.0, (batch, 3, Self::SIDE, Self::SIDE), device)?;
        let target = Tensor::rand(0_f32, 1.0, (batch, Self::CHANNELS, Self::SIDE / 4, Self::SIDE / 4, 1), device)?;
        let (params, (stem, stages, deconv)) = Params::build(0, |b| {
            let stem = Stem::new(depth.width(), &mut b.pp("backbone"));
            let stages = Stages::new(depth, &mut b.pp("backbone"));
            (stem, stages, DeconvStack::new(depth.channels()[3], Self::CHANNELS, &mut b.pp("deconv")))
        });
        Ok((Self { stem, stages, deconv, image, target }, params))
    }
}

impl Task for Trunk {
    type Sample = ();

    fn block(&self, _: u64) -> Result<Vec<()>> {
        Ok(vec![()])
    }

    fn loss(&self, pass: &Pass, _: &[&()]) -> Result<Loss> {
        let early = self.stem.forward(pass, &pass.image(&self.image)?)?;
        let y = self.deconv.forward(pass, &self.stages.forward(pass, &early)?)?;
        Ok(Loss { total: (y - &self.target)?.abs()?.mean_all()?, parts: Vec::new() })
    }

    fn errors(&self, _: &Pass, _: &[&()]) -> Result<Vec<(&'static str, f64, usize)>> {
        Ok(Vec::new())
    }

    fn learns(&self) -> String {
        "a trunk".to_owned()
    }

    fn config_json(&self) -> String {
        "{}".to_owned()
    }
}

/// Samples a second of whole steps of a batch that is there: networks, gradients, optimiser.
fn samples_per_sec<T: Task>(
    task: &T,
    params: &Params,
    machine: &Arc<dyn Machine>,
    batch: &[T::Sample],
    samples: usize,
) -> Result<f64> {
    let mut adam = Adam::new(params);
    let mut learner = GpuLearner::new(Arc::clone(machine), params, &adam)?;
    let mut steps = |count: usize| -> Result<f64> {
        let start = Instant::now();
        for _ in 0..count {
            learner.step(task, &mut adam, batch, 1e-4, 10.0)?;
        }
        ensure!(learner.take_losses()?.1, "the loss is no number");
        Ok((count * samples) as f64 / start.elapsed().as_secs_f64())
    };
    steps(5)?; // Shapes are met, memory is taken.
    steps(30)
}

#[test]
fn samples_a_second() -> Result<()> {
    let mut rows = Vec::new();
    let (mesh, mesh_params) = MeshTask::new(Family::Smpl, 18, sizes()?, Stage::All, true, 1)?;
    let mut views = Vec::new();
    for number in 0..11 {
        views.extend(mesh.block(number)?);
    }
    for (precision, _) in PRECISIONS {
        let machine = Cuda::open(0, precision)?;
        let mut row = |network: &str, batch: usize, per_sec: f64| {
            println!("{network:12} batch {batch:4} {:5} {per_sec:9.1} samples/s", precision.name());
            rows.push(json!({ "network": network, "batch": batch, "precision": precision.name(), "per_sec": per_sec }));
        };
        for batch in [64, 256] {
            let (trunk, params) = Trunk::new(batch, &machine.device())?;
            // One sample stands for the batch that is there.
            row("resnet18", batch, samples_per_sec(&trunk, &params, &machine, &[()], batch)?);
            row("mesh", batch, samples_per_sec(&mesh, &mesh_params, &machine, &views[..batch], batch)?);
        }
    }
    note("samples_per_sec", rows.into())
}
