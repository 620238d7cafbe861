//! `lixelscope bench`: the time of each network and of its stages, in the published architectures.
//!
//! Weights do not change how long a network takes, so they are drawn from a fixed seed: the figures need no checkpoint
//! and are the same for everyone.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Instant;

use anyhow::{Context, Result};
use candle_core::{DType, Device, Result as CandleResult, Shape, Tensor};
use candle_nn::var_builder::SimpleBackend;
use candle_nn::{Init, VarBuilder};
use image::RgbImage;
use serde::Serialize;

use crate::cli::{BadInput, BenchArgs};
use crate::nets::i2l::{I2l, I2lShape, ParamShape};
use crate::nets::input::patches_tensor;
use crate::nets::maskrcnn::{self, MaskRcnn};
use crate::nets::posenet3d::{self, PoseNet3d};
use crate::nets::rootnet::RootNet;
use crate::nets::{Lap, NetSizes};
use crate::pipeline::infer;

/// Milliseconds of one stage over the runs.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// "i2l_body".
    pub network: &'static str,
    /// People, or pictures, at once.
    pub batch: usize,
    /// A stage of the network, or "total".
    pub stage: &'static str,
    /// Half of the runs took at most this long.
    pub median_ms: f64,
    /// 95 % of the runs took at most this long.
    pub p95_ms: f64,
}

/// What `--json` writes.
#[derive(Debug, Serialize)]
struct Report {
    version: &'static str,
    backend: String,
    runs: u32,
    rows: Vec<Row>,
}

/// A network that can be timed: takes a batch, calls `lap` at the end of each stage.
type Run = Box<dyn Fn(usize, &mut Lap<'_>) -> Result<()>>;

/// Name of a network, and how to make it.
type Network = (&'static str, fn(&Device) -> Result<Run>);

const NETWORKS: [Network; 6] = [
    ("maskrcnn_800", |device| detector(device, 800, 1333)),
    ("maskrcnn_320", |device| detector(device, 320, 533)),
    ("rootnet", rootnet),
    ("i2l_body", |device| i2l(device, 29, 6890, 24)),
    ("i2l_hand", |device| i2l(device, 21, 778, 16)),
    ("posenet3d", skeleton),
];

/// Runs the command.
pub fn run(args: &BenchArgs) -> Result<()> {
    if args.batch.contains(&0) {
        return Err(BadInput("--batch: a batch holds at least one person".into()).into());
    }
    let wanted: Vec<_> = NETWORKS
        .iter()
        .filter(|(name, _)| args.only.is_empty() || args.only.iter().any(|part| name.contains(part.as_str())))
        .collect();
    if wanted.is_empty() {
        let names = NETWORKS.map(|(name, _)| name).join(", ");
        return Err(BadInput(format!("--only: no network has such a name; there are {names}")).into());
    }
    let (device, backend) = infer::device(args.backend)?;
    if let Some(path) = &args.json {
        // Better now than after all the timing.
        fs::File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let mut out = std::io::stdout().lock();
    let mut say = |line: String| {
        use std::io::Write;
        // A reader that has gone away is no reason to lose the figures of `--json`.
        let _ = writeln!(out, "{line}");
    };
    say(format!("{backend}, {} runs each, milliseconds", args.runs));
    say(format!("{:14} {:>5}  {:20} {:>10} {:>10}", "network", "batch", "stage", "median", "p95"));
    let mut rows = Vec::new();
    for (name, make) in wanted {
        let run = make(&device).with_context(|| format!("cannot make {name}"))?;
        for &batch in &args.batch {
            for row in measure(name, batch, args.runs, &device, &run)? {
                let Row { network, batch, stage, median_ms, p95_ms } = &row;
                say(format!("{network:14} {batch:>5}  {stage:20} {median_ms:>10.2} {p95_ms:>10.2}"));
                rows.push(row);
            }
        }
    }
    if let Some(path) = &args.json {
        let report = Report { version: env!("CARGO_PKG_VERSION"), backend, runs: args.runs, rows };
        let text = serde_json::to_string_pretty(&report)?;
        fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// Times one network: one run to warm up, then `runs` that count.
fn measure(network: &'static str, batch: usize, runs: u32, device: &Device, run: &Run) -> Result<Vec<Row>> {
    let mut stages: Vec<(&'static str, Vec<f64>)> = Vec::new();
    for counted in (0..=runs).map(|i| i > 0) {
        device.synchronize()?;
        let started = Instant::now();
        let mut last = started;
        let mut note = |stage, ms: f64| {
            if !counted {
                return;
            }
            match stages.iter_mut().find(|(name, _)| *name == stage) {
                Some((_, times)) => times.push(ms),
                None => stages.push((stage, vec![ms])),
            }
        };
        run(batch, &mut |stage| {
            device.synchronize()?;
            note(stage, last.elapsed().as_secs_f64() * 1e3);
            last = Instant::now();
            Ok(())
        })
        .with_context(|| format!("{network}, batch {batch}"))?;
        device.synchronize()?;
        note("total", started.elapsed().as_secs_f64() * 1e3);
    }
    let row = |(stage, mut times): (&'static str, Vec<f64>)| {
        times.sort_by(f64::total_cmp);
        Row { network, batch, stage, median_ms: quantile(&times, 0.5), p95_ms: quantile(&times, 0.95) }
    };
    Ok(stages.into_iter().map(row).collect())
}

/// The value that a share `q` of the sorted values does not exceed (nearest rank).
fn quantile(sorted: &[f64], q: f64) -> f64 {
    let rank = (q * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

fn detector(device: &Device, shorter_side: usize, longest_side: usize) -> Result<Run> {
    let config = maskrcnn::Config { shorter_side, longest_side, ..maskrcnn::Config::default() };
    let net = MaskRcnn::load(config, &random_weights(device))?;
    let picture = noise(1280, 960);
    Ok(Box::new(move |batch, lap| {
        let pictures = vec![&picture; batch];
        net.detect_batch_watched(&pictures, maskrcnn::Query::default(), lap)?;
        Ok(())
    }))
}

fn rootnet(device: &Device) -> Result<Run> {
    let net = RootNet::load(NetSizes::default(), &random_weights(device))?;
    let device = device.clone();
    Ok(Box::new(move |batch, lap| {
        let patches = patches_tensor(&vec![noise(256, 256); batch], &device)?;
        lap("upload")?;
        let output = net.forward(&patches)?;
        lap("forward")?;
        output.roots()?;
        Ok(lap("fetch")?)
    }))
}

fn i2l(device: &Device, joints: usize, vertices: usize, rotations: usize) -> Result<Run> {
    let shape = I2lShape { joints, vertices, params: Some(ParamShape { rotations, shape: 10 }) };
    let net = I2l::load(NetSizes::default(), shape, &random_weights(device))?;
    let device = device.clone();
    Ok(Box::new(move |batch, lap| {
        let patches = patches_tensor(&vec![noise(256, 256); batch], &device)?;
        lap("upload")?;
        let output = net.forward_watched(&patches, lap)?;
        crate::lixel::points(&output.vertices.coords)?;
        crate::lixel::points(&output.vertices.spread)?;
        Ok(lap("fetch")?)
    }))
}

fn skeleton(device: &Device) -> Result<Run> {
    let set = &posenet3d::MUCO;
    let net = PoseNet3d::load(NetSizes::default(), set.skeleton().names.len(), &random_weights(device))?;
    let device = device.clone();
    Ok(Box::new(move |batch, lap| {
        let patches = patches_tensor(&vec![noise(256, 256); batch], &device)?;
        lap("upload")?;
        let lixels = net.forward_flip_averaged(&patches, set)?;
        lap("forward, flipped too")?;
        crate::lixel::points(&lixels.coords)?;
        Ok(lap("fetch")?)
    }))
}

/// The next numbers of a small generator (SplitMix64), in [-1, 1).
struct Noise(u64);

impl Iterator for Noise {
    type Item = f32;
    fn next(&mut self) -> Option<f32> {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        Some(((z ^ (z >> 31)) >> 40) as f32 / (1 << 23) as f32 - 1.0)
    }
}

fn noise(width: u32, height: u32) -> RgbImage {
    let mut numbers = Noise(7);
    let mut value = || (numbers.next().unwrap_or(0.0) * 127.0 + 128.0) as u8;
    RgbImage::from_fn(width, height, |_, _| image::Rgb([value(), value(), value()]))
}

/// Weights of the right size for any name: convolutions that keep the variance, batch norms that do nothing.
struct RandomWeights;

fn random_weights(device: &Device) -> VarBuilder<'static> {
    VarBuilder::from_backend(Box::new(RandomWeights), DType::F32, device.clone())
}

impl SimpleBackend for RandomWeights {
    fn get(&self, shape: Shape, name: &str, _: Init, dtype: DType, device: &Device) -> CandleResult<Tensor> {
        let is_scale = shape.rank() == 1 && !name.ends_with("bias") && !name.ends_with("mean");
        let (offset, scale) = if is_scale {
            (1.0, 0.0)
        } else {
            let fan_in: usize = shape.dims().iter().skip(1).product();
            (0.0, (3.0 / fan_in.max(1) as f32).sqrt())
        };
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        let values: Vec<f32> = Noise(hasher.finish()).take(shape.elem_count()).map(|v| offset + scale * v).collect();
        Tensor::from_vec(values, shape, device)?.to_dtype(dtype)
    }

    fn get_unchecked(&self, name: &str, _: DType, _: &Device) -> CandleResult<Tensor> {
        candle_core::bail!("the shape of {name} is not known")
    }

    fn contains_tensor(&self, _: &str) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_occurred() {
        let sorted: Vec<f64> = (1..=20).map(f64::from).collect();
        assert_eq!(quantile(&sorted, 0.5), 10.0);
        assert_eq!(quantile(&sorted, 0.95), 19.0);
        assert_eq!(quantile(&[3.0], 0.95), 3.0);
        assert!(quantile(&[], 0.5).is_nan());
    }
}
