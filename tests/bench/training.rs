//! One step of training, beside candle's plain operations and, where there is one, another program:
//!
//! ```text
//! cargo bench --bench training                              # ours and candle
//! cargo bench --bench training -- --rounds 20 --no-candle --laps
//! cargo bench --bench training -- --peer "python tests/peers/step.py"   # and PyTorch
//! ```
//!
//! The network is a ResNet-18 trunk and three transposed convolutions to 128 channels of 32x32, on 8 images of
//! 128x128; the loss is L1, the optimiser Adam. All ways take turns, so that noise meets them alike. A peer does a
//! step for each line that it reads, and answers with the seconds it took and the seconds on a processor. The losses of
//! the surface are measured for themselves, on the stand-in body.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use candle_core::{DType, Device, Result as CandleResult, Tensor, Var};
use candle_nn::{AdamW, BatchNorm, Module, ModuleT, Optimizer, VarBuilder, VarMap};
use lixelscope::body::standin;
use lixelscope::nets::resnet::Depth;
use lixelscope::train::layers::{DeconvStack, Pass};
use lixelscope::train::losses::{Faces, surface_losses};
use lixelscope::train::ops::to_blocked;
use lixelscope::train::optimizer::Adam;
use lixelscope::train::params::Params;
use lixelscope::train::resnet::{Stages, Stem};

const BATCH: usize = 8;
const SIDE: usize = 128;
const CHANNELS: usize = 128;

/// Does a step; tells wall and processor seconds.
type Step = Box<dyn FnMut() -> Result<[f64; 2]>>;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let value = |name: &str| arguments.iter().position(|a| a == name).and_then(|i| arguments.get(i + 1));
    let has = |name: &str| arguments.iter().any(|a| a == name);
    let rounds = value("--rounds").map_or(Ok(8), |rounds| rounds.parse())?;
    let image = Tensor::rand(0_f32, 1.0, (BATCH, 3, SIDE, SIDE), &Device::Cpu)?;
    let target = Tensor::rand(0_f32, 1.0, (BATCH, CHANNELS, SIDE / 4, SIDE / 4), &Device::Cpu)?;
    let mut ways: Vec<(&str, Step)> = vec![("ours", ours(image.clone(), &target, has("--laps"))?)];
    if !has("--no-candle") {
        ways.push(("candle", candle(image, target)?));
    }
    if let Some(command) = value("--peer") {
        ways.push(("peer", peer(command)?));
    }
    let mut times = vec![Vec::new(); ways.len()];
    for round in 0..rounds + 2 {
        for ((_, step), times) in ways.iter_mut().zip(&mut times) {
            let time = step()?;
            if round >= 2 {
                times.push(time);
            }
        }
    }
    for ((name, _), times) in ways.iter().zip(times) {
        let median = |which: usize| {
            let mut sorted: Vec<f64> = times.iter().map(|t| t[which]).collect();
            sorted.sort_by(f64::total_cmp);
            (sorted[0], sorted[sorted.len() / 2])
        };
        let ((least, wall), (least_cpu, cpu)) = (median(0), median(1));
        println!(
            "{name:<7} median {:7.1} ms, {:5.1} samples/s, processor {:7.1} ms; least {:7.1} ms, processor {:7.1} ms",
            wall * 1e3,
            BATCH as f64 / wall,
            cpu * 1e3,
            least * 1e3,
            least_cpu * 1e3
        );
    }
    println!("surface losses, forward and backward: {:.2} ms a person", surface_ms(rounds)?);
    Ok(())
}

/// Least milliseconds for a person of the stand-in body.
fn surface_ms(rounds: usize) -> Result<f64> {
    let body = standin::body()?;
    let vertices = body.vertices_m.len();
    let faces = Faces::new(&body.faces, vertices)?;
    let shape = (BATCH, vertices, 3);
    let output = Var::from_tensor(&Tensor::rand(0_f32, 31.0, shape, &Device::Cpu)?)?;
    let target = Tensor::rand(0_f32, 31.0, shape, &Device::Cpu)?;
    let valid = target.narrow(2, 0, 1)?.ones_like()?;
    let mut least = f64::INFINITY;
    for _ in 0..rounds {
        let start = Instant::now();
        let [normal, edge] = surface_losses(&output, &target, &valid, &faces)?;
        ((normal * 0.1)? + edge)?.backward()?;
        least = least.min(start.elapsed().as_secs_f64());
    }
    Ok(least * 1e3 / BATCH as f64)
}

fn timed(mut step: impl FnMut() -> Result<()> + 'static) -> Step {
    Box::new(move || {
        let (start, on_cpu) = (Instant::now(), cpu_secs());
        step()?;
        Ok([start.elapsed().as_secs_f64(), cpu_secs() - on_cpu])
    })
}

fn ours(image: Tensor, target: &Tensor, laps: bool) -> Result<Step> {
    let target = to_blocked(target)?;
    let depth = Depth::new(18)?;
    let (params, (stem, stages, deconv)) = Params::build(0, |b| {
        let (stem, stages) =
            (Stem::new(depth.width(), &mut b.pp("backbone")), Stages::new(depth, &mut b.pp("backbone")));
        (stem, stages, DeconvStack::new(depth.channels()[3], CHANNELS, &mut b.pp("deconv")))
    });
    let mut adam = Adam::new(&params);
    let pass = Pass { params: Arc::new(params), is_training: true };
    Ok(timed(move || {
        let start = Instant::now();
        let early = stem.forward(&pass, &pass.image(&image)?)?;
        let y = deconv.forward(&pass, &stages.forward(&pass, &early)?)?;
        let loss = (y - &target)?.abs()?.mean_all()?;
        let forward = start.elapsed().as_secs_f64();
        pass.params.backward(&loss)?;
        let backward = start.elapsed().as_secs_f64();
        adam.step(&pass.params, 1e-4);
        if laps {
            let [forward, backward, adam] =
                [forward, backward - forward, start.elapsed().as_secs_f64() - backward].map(|secs| secs * 1e3);
            println!("forward {forward:.1} ms, backward {backward:.1} ms, Adam {adam:.1} ms");
        }
        Ok(())
    }))
}

/// The same network of candle's plain operations; a pooling of 2x2 in the place of 3x3, which has no gradient.
fn candle(image: Tensor, target: Tensor) -> Result<Step> {
    let vars = VarMap::new();
    let network = Plain::new(&VarBuilder::from_varmap(&vars, DType::F32, &Device::Cpu))?;
    let mut adam = AdamW::new_lr(vars.all_vars(), 1e-4)?;
    Ok(timed(move || Ok(adam.backward_step(&(network.forward(&image)? - &target)?.abs()?.mean_all()?)?)))
}

struct PlainConv(candle_nn::Conv2d, BatchNorm);

impl PlainConv {
    fn new([input, output, kernel, stride]: [usize; 4], vb: &VarBuilder) -> CandleResult<Self> {
        let config = candle_nn::Conv2dConfig { padding: kernel / 2, stride, ..Default::default() };
        let conv = candle_nn::conv2d_no_bias(input, output, kernel, config, vb.pp("conv"))?;
        Ok(Self(conv, candle_nn::batch_norm(output, 1e-5, vb.pp("norm"))?))
    }

    fn forward(&self, x: &Tensor) -> CandleResult<Tensor> {
        self.1.forward_t(&self.0.forward(x)?, true)
    }
}

struct Plain {
    stem: PlainConv,
    blocks: Vec<([PlainConv; 2], Option<PlainConv>)>,
    deconv: Vec<(candle_nn::ConvTranspose2d, BatchNorm)>,
}

impl Plain {
    fn new(vb: &VarBuilder) -> CandleResult<Self> {
        let stem = PlainConv::new([3, 64, 7, 2], &vb.pp("stem"))?;
        let (mut blocks, mut input) = (Vec::new(), 64);
        for i in 0..8 {
            let (output, vb) = (64 << (i / 2), vb.pp(i));
            let stride = if output == input { 1 } else { 2 };
            let first = PlainConv::new([input, output, 3, stride], &vb.pp("first"))?;
            let second = PlainConv::new([output, output, 3, 1], &vb.pp("second"))?;
            let shortcut = PlainConv::new([input, output, 1, stride], &vb.pp("shortcut"));
            blocks.push(([first, second], (stride == 2).then_some(shortcut).transpose()?));
            input = output;
        }
        let mut deconv = Vec::new();
        for i in 0..3 {
            let vb = vb.pp(format!("deconv{i}"));
            let config = candle_nn::ConvTranspose2dConfig { padding: 1, stride: 2, ..Default::default() };
            let layer = candle_nn::conv_transpose2d_no_bias(input, CHANNELS, 4, config, vb.pp("conv"))?;
            deconv.push((layer, candle_nn::batch_norm(CHANNELS, 1e-5, vb.pp("norm"))?));
            input = CHANNELS;
        }
        Ok(Self { stem, blocks, deconv })
    }

    fn forward(&self, image: &Tensor) -> CandleResult<Tensor> {
        let mut x = self.stem.forward(image)?.relu()?.max_pool2d(2)?;
        for ([first, second], shortcut) in &self.blocks {
            let y = second.forward(&first.forward(&x)?.relu()?)?;
            let shortcut = shortcut.as_ref().map(|conv| conv.forward(&x)).transpose()?;
            x = (y + shortcut.as_ref().unwrap_or(&x))?.relu()?;
        }
        for (conv, norm) in &self.deconv {
            x = norm.forward_t(&conv.forward(&x)?, true)?.relu()?;
        }
        Ok(x)
    }
}

fn peer(command: &str) -> Result<Step> {
    let mut child = Command::new("sh").args(["-c", command]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut to = child.stdin.take().context("the peer has an input")?;
    let mut from = BufReader::new(child.stdout.take().context("the peer has an output")?);
    Ok(Box::new(move || {
        writeln!(to)?;
        let mut line = String::new();
        from.read_line(&mut line)?;
        let (wall, cpu) = line.trim().split_once(' ').context("a peer answers with two numbers")?;
        Ok([wall.parse()?, cpu.parse()?])
    }))
}

/// Seconds that this process has spent on processors (Linux; else 0).
fn cpu_secs() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(") ").next().unwrap_or_default();
    let ticks: f64 = after_name.split(' ').skip(11).take(2).filter_map(|t| t.parse::<f64>().ok()).sum();
    ticks / 100.0
}
