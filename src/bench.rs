//! `lixelscope bench`: the time of each network and of its stages, in the published architectures.
//!
//! Weights do not change how long a network takes, so they are drawn from a fixed seed: the figures need no checkpoint
//! and are the same for everyone. Operations are those of the CPU's kernels (`kernels::multiply_adds`), held against
//! what the same threads reach with everything in registers. At the end the whole of it, with the weights that the
//! program uses (`default_path`); `path` is the same of the published architectures.

mod default_path;
mod path;

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use candle_core::{DType, Device, Result as CandleResult, Shape, Tensor};
use candle_nn::var_builder::SimpleBackend;
use candle_nn::{Init, VarBuilder};
use image::RgbImage;
use serde::Serialize;

use crate::cli::{self, BadInput, BenchArgs};
use crate::nets::i2l::{I2l, I2lShape, ParamShape};
use crate::nets::input::patches_tensor;
use crate::nets::kernels;
use crate::nets::layers::BN_EPS;
use crate::nets::maskrcnn::{self, MaskRcnn};
use crate::nets::meter::{self, Chosen, Floor, KernelTime, Peak, Work};
use crate::nets::person_detector::{self, PersonDetector};
use crate::nets::posenet3d::{self, PoseNet3d};
use crate::nets::resnet::{Depth, Stages, Stem};
use crate::nets::rootnet::RootNet;
use crate::nets::{self, Lap, NetSizes};
use crate::pipeline::infer;
use crate::settings::Settings;
use default_path::DefaultPath;

/// Milliseconds of one stage over the runs.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// "i2l_body".
    pub network: &'static str,
    /// People, or pictures, at once.
    pub batch: usize,
    /// A stage of the network, or "total".
    pub stage: &'static str,
    /// The fastest run: on a busy machine the nearest to what a quiet one takes.
    pub best_ms: f64,
    /// Half of the runs took at most this long.
    pub median_ms: f64,
    /// 95 % of the runs took at most this long.
    pub p95_ms: f64,
    /// Speed of half of the runs at least; a multiply-add counts as two operations. Only those that are done: the fast
    /// convolutions do fewer than their definition. `None` where they are not counted.
    pub gflops: Option<f64>,
    /// The same as a share of the machine's peak.
    pub peak_share: Option<f64>,
    /// The least time that the same work can take on this device; `None` where its bytes are not counted.
    pub floor: Option<Floor>,
    /// Frames a second, of the whole path; a run is four frames.
    pub fps: Option<f64>,
    /// Operations and bytes of one run.
    #[serde(skip)]
    pub work: Work,
}

/// The kernels of one run on a GPU.
#[derive(Clone, Debug, Serialize)]
struct Profile {
    network: &'static str,
    batch: usize,
    kernels: Vec<KernelTime>,
}

/// What a network costs before and beside its runs.
#[derive(Clone, Debug, Serialize)]
pub struct Cost {
    /// "i2l_body".
    pub network: &'static str,
    /// From the first weight to the first result, without the time in which the weights were drawn.
    pub start_ms: f64,
    /// Most memory that the process held, all batches; `None` where the system does not tell. The system may keep some
    /// of what earlier networks gave back: exact for the first network of a run.
    pub peak_resident_mib: Option<f64>,
}

/// What `--json` writes.
#[derive(Debug, Serialize)]
struct Report {
    version: &'static str,
    backend: String,
    /// Threads of the kernels on the CPU.
    threads: usize,
    /// What these threads, or this GPU, reach at best; `None` on other devices.
    peak: Option<Peak>,
    runs: u32,
    rows: Vec<Row>,
    networks: Vec<Cost>,
    /// The whole of it, where it was timed.
    default_path: Option<DefaultPath>,
    /// With `--profile`, on an NVIDIA GPU.
    profiles: Vec<Profile>,
    /// How each shape is computed on an NVIDIA GPU.
    ways: Vec<Chosen>,
}

/// A network that can be timed: takes a batch, calls `lap` at the end of each stage.
type Run = Box<dyn Fn(usize, &mut Lap<'_>) -> Result<()>>;

/// Name of a network, and how to make it.
type Network = (&'static str, fn(&Device) -> Result<Run>);

const NETWORKS: [Network; 9] = [
    ("resnet50", backbone),
    ("maskrcnn_800", |device| detector(device, 800, 1333)),
    ("maskrcnn_320", |device| detector(device, 320, 533)),
    ("person_detector", light_detector),
    ("rootnet", rootnet),
    ("i2l_body", |device| i2l(device, 29, 6890, 24)),
    ("i2l_hand", |device| i2l(device, 21, 778, 16)),
    ("posenet3d", skeleton),
    ("path_1080p", path::whole_path),
];

/// Kernels of a network that are printed; `--json` has all.
const PROFILE_LINES: usize = 25;

/// Runs the command.
pub fn run(args: &BenchArgs) -> Result<()> {
    if args.batch.contains(&0) {
        return Err(BadInput("--batch: a batch holds at least one person".into()).into());
    }
    let models = cli::models_folder(args.models.as_deref())?;
    let is_wanted = |name: &str| args.only.is_empty() || args.only.iter().any(|part| name.contains(part.as_str()));
    let wanted: Vec<_> = NETWORKS.iter().filter(|(name, _)| is_wanted(name)).collect();
    let with_path = is_wanted(default_path::NAME);
    if wanted.is_empty() && !with_path {
        let names = NETWORKS.map(|(name, _)| name).join(", ") + ", " + default_path::NAME;
        return Err(BadInput(format!("--only: no network has such a name; there are {names}")).into());
    }
    if let Some(threads) = args.threads {
        // The first to ask decides, and nobody has asked before.
        rayon::ThreadPoolBuilder::new().num_threads(threads as usize).build_global().context("--threads")?;
    }
    let (device, backend) = infer::device(args.backend, args.precision)?;
    if let Some(path) = &args.json {
        // Better now than after all the timing.
        fs::File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let peak = meter::peak(&device)?;
    meter::set_graphs(&device, !args.no_graphs);
    let mut out = std::io::stdout().lock();
    let mut say = |line: String| {
        use std::io::Write;
        // A reader that has gone away is no reason to lose the figures of `--json`.
        let _ = writeln!(out, "{line}");
    };
    say(format!("{backend}, {} runs each, milliseconds", args.runs));
    if let Some(Peak { gflops, gigabytes_per_sec }) = peak {
        let bandwidth = gigabytes_per_sec.map_or(String::new(), |rate| format!(", {rate:.0} GB/s"));
        say(format!("at best {gflops:.0} GFLOP/s{bandwidth}"));
    }
    say(format!(
        "{:15} {:>5}  {:20} {:>10} {:>10} {:>10} {:>10} {:>8} {:>10}",
        "network", "batch", "stage", "best", "median", "p95", "GFLOP/s", "of peak", "floor"
    ));
    let (mut rows, mut networks, mut profiles) = (Vec::new(), Vec::new(), Vec::new());
    for (name, make) in wanted {
        reset_peak_resident();
        let (started, drawn) = (Instant::now(), drawing_secs());
        let run = make(&device).with_context(|| format!("cannot make {name}"))?;
        let mut start_ms = None;
        for &batch in &args.batch {
            measure(name, batch, 1, &device, &run)?; // To warm up.
            start_ms.get_or_insert_with(|| (started.elapsed().as_secs_f64() - (drawing_secs() - drawn)) * 1e3);
            if device.is_cuda() {
                measure(name, batch, 2, &device, &run)?; // The graph is recorded and has run.
            }
            for mut row in measure(name, batch, args.runs, &device, &run)? {
                row.peak_share = row.gflops.zip(peak).map(|(reached, peak)| reached / peak.gflops);
                row.floor = peak.and_then(|peak| peak.floor(row.work));
                row.fps =
                    (*name == "path_1080p" && row.stage == "total").then(|| path::FRAMES as f64 * 1e3 / row.median_ms);
                say(line(&row));
                if let Some(fps) = row.fps {
                    say(format!("{name:15} {batch:>5}  {fps:.1} frames a second, the detector on every fourth"));
                }
                rows.push(row);
            }
        }
        if args.profile {
            meter::set_graphs(&device, false);
            for &batch in &args.batch {
                let kernels = meter::profile(&device, || run(batch, &mut |_| Ok(())))?;
                for KernelTime { name: kernel, count, ms } in kernels.iter().take(PROFILE_LINES) {
                    say(format!("{name:15} {batch:>5}  {ms:>10.4} ms {count:>4} x {kernel}"));
                }
                profiles.push(Profile { network: name, batch, kernels });
            }
            meter::set_graphs(&device, !args.no_graphs);
        }
        let cost = Cost { network: name, start_ms: start_ms.unwrap_or(f64::NAN), peak_resident_mib: peak_resident() };
        let memory = cost.peak_resident_mib.map_or(String::new(), |mib| format!(", at most {mib:.0} MiB resident"));
        say(format!("{name:15} first result after {:.0} ms{memory}", cost.start_ms));
        networks.push(cost);
        drop(run);
        kernels::release_memory();
    }
    let mut path_figures = None;
    if with_path {
        match default_path::measure(
            args.backend,
            &models,
            args.runs * Settings::with_models(models.clone()).detect_every,
        ) {
            Ok((figures, path_rows)) => {
                for row in &path_rows {
                    say(line(row));
                }
                rows.extend(path_rows);
                say(figures.to_string());
                path_figures = Some(figures);
            }
            // A program without weights of its own.
            Err(error) if args.only.is_empty() => say(format!("{:15} not timed: {error:#}", default_path::NAME)),
            Err(error) => return Err(error),
        }
    }
    if let Some(path) = &args.json {
        let default_path = path_figures;
        let (version, threads) = (env!("CARGO_PKG_VERSION"), rayon::current_num_threads());
        let ways = meter::ways(&device);
        let report =
            Report { version, backend, threads, peak, runs: args.runs, rows, networks, default_path, profiles, ways };
        let text = serde_json::to_string_pretty(&report)?;
        fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// A row of the table.
fn line(row: &Row) -> String {
    let Row { network, batch, stage, best_ms, median_ms, p95_ms, gflops, peak_share, floor, .. } = row;
    let floor = floor.map_or("-".into(), |f| format!("{:.3}", f.operations_ms.max(f.bytes_ms)));
    let gflops = gflops.map_or("-".into(), |g| format!("{g:.1}"));
    let share = peak_share.map_or("-".into(), |s| format!("{:.0} %", s * 100.0));
    format!(
        "{network:15} {batch:>5}  {stage:20} {best_ms:>10.2} {median_ms:>10.2} {p95_ms:>10.2} {gflops:>10} {share:>8} {floor:>10}"
    )
}

/// What was noted of one stage.
struct Stage {
    name: &'static str,
    times_ms: Vec<f64>,
    work: Work,
}

/// Times one network.
fn measure(network: &'static str, batch: usize, runs: u32, device: &Device, run: &Run) -> Result<Vec<Row>> {
    let mut stages: Vec<Stage> = Vec::new();
    for _ in 0..runs {
        nets::synchronize(device)?;
        let mut note = |name, started: Instant, counted: Work| {
            let (ms, work) = (started.elapsed().as_secs_f64() * 1e3, meter::work(device).since(counted));
            if let Some(stage) = stages.iter_mut().find(|stage| stage.name == name) {
                stage.times_ms.push(ms);
            } else {
                stages.push(Stage { name, times_ms: vec![ms], work });
            }
        };
        let first = (Instant::now(), meter::work(device));
        let mut last = first;
        run(batch, &mut |stage| {
            nets::synchronize(device)?;
            note(stage, last.0, last.1);
            last = (Instant::now(), meter::work(device));
            Ok(())
        })
        .with_context(|| format!("{network}, batch {batch}"))?;
        nets::synchronize(device)?;
        note("total", first.0, first.1);
    }
    let row = |Stage { name, mut times_ms, work }: Stage| {
        times_ms.sort_by(f64::total_cmp);
        let [best_ms, median_ms, p95_ms] = [0.0, 0.5, 0.95].map(|q| quantile(&times_ms, q));
        let gflops = (work.multiply_adds > 0).then(|| 2.0 * work.multiply_adds as f64 / median_ms / 1e6);
        Row {
            network,
            batch,
            stage: name,
            best_ms,
            median_ms,
            p95_ms,
            gflops,
            peak_share: None,
            floor: None,
            fps: None,
            work,
        }
    };
    Ok(stages.into_iter().map(row).collect())
}

/// Forgets the most memory that was held so far. Linux; elsewhere nothing happens and [`peak_resident`] is `None`.
fn reset_peak_resident() {
    // Where it may not be written the figure stays that of the whole process.
    let _ = fs::write("/proc/self/clear_refs", "5");
}

/// The most memory that was held since then, MiB.
fn peak_resident() -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1024.0)
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

/// Frames of a webcam's size, one after another, as the program looks at them.
fn light_detector(device: &Device) -> Result<Run> {
    let net = PersonDetector::load(person_detector::Config::default(), &random_weights(device))?;
    let frame = noise(640, 480);
    Ok(Box::new(move |batch, lap| {
        for _ in 0..batch {
            net.detect_watched(&frame, lap)?;
        }
        Ok(())
    }))
}

/// The part that all networks share.
fn backbone(device: &Device) -> Result<Run> {
    let weights = random_weights(device);
    let (stem, stages) = (Stem::load(64, BN_EPS, &weights)?, Stages::load(Depth::RESNET50, BN_EPS, &weights)?);
    let patches = patches_tensor(&[noise(256, 256)], device)?;
    Ok(Box::new(move |batch, lap| {
        let patches = patches.repeat((batch, 1, 1, 1))?;
        nets::on_pool(patches.device(), || -> Result<()> {
            let early = stem.run(&patches)?;
            lap("stem")?;
            stages.run(&early)?;
            Ok(lap("stages")?)
        })
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

static DRAWING_NANOS: AtomicU64 = AtomicU64::new(0);

/// Time spent drawing weights since the program started.
fn drawing_secs() -> f64 {
    Duration::from_nanos(DRAWING_NANOS.load(Ordering::Relaxed)).as_secs_f64()
}

fn random_weights(device: &Device) -> VarBuilder<'static> {
    VarBuilder::from_backend(Box::new(RandomWeights), DType::F32, device.clone())
}

impl SimpleBackend for RandomWeights {
    fn get(&self, shape: Shape, name: &str, _: Init, dtype: DType, device: &Device) -> CandleResult<Tensor> {
        let started = Instant::now();
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
        DRAWING_NANOS.fetch_add(started.elapsed().as_nanos() as u64, Ordering::Relaxed);
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
        assert_eq!(quantile(&sorted, 0.0), 1.0);
        assert_eq!(quantile(&[3.0], 0.95), 3.0);
        assert!(quantile(&[], 0.5).is_nan());
    }
}
