//! `lixelscope bench`: the time of each network and of its stages, in the published architectures.
//!
//! Weights do not change how long a network takes, so they are drawn from a fixed seed: the figures need no checkpoint
//! and are the same for everyone. Operations are those of the CPU's kernels (`kernels::multiply_adds`), held against
//! what the same threads reach with everything in registers. At the end the whole of it, with the weights that the
//! program uses (`default_path`); `path` is the same of the published architectures, `published_start` the start with
//! checkpoints of their size.

mod body_model;
mod default_path;
mod memory;
mod networks;
mod outputs;
mod path;
mod published_start;
mod random;

use std::fs;
use std::time::Instant;

use anyhow::{Context, Result};
use candle_core::Device;
use serde::Serialize;

use crate::cli::{self, BadInput, BenchArgs};
use crate::nets;
use crate::nets::meter::{self, Chosen, Floor, KernelTime, Peak, Work};
use crate::pipeline::infer;
use crate::settings::Settings;
use default_path::DefaultPath;
use networks::Run;
use published_start::PublishedStart;

/// Milliseconds of one stage over the runs.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// "i2l_body".
    pub network: &'static str,
    /// Threads of the kernels on the CPU.
    pub threads: usize,
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
    /// convolutions do fewer than their definition. `None` where there are none to count: copies, boxes, a body posed.
    pub gflops: Option<f64>,
    /// The same as a share of what these threads, or this GPU, reach at best.
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
    /// From the first weight to the first result, without the time in which the weights were drawn; with the first of
    /// the numbers of threads.
    pub start_ms: f64,
    /// Most memory that the process held, all batches; `None` where the system does not tell. The system may keep some
    /// of what earlier networks gave back: exact for the first network of a run.
    pub peak_resident_mib: Option<f64>,
    /// Most memory of an NVIDIA GPU that the program held, all batches, weights and all; `None` elsewhere.
    pub peak_gpu_mib: Option<f64>,
}

/// What `--json` writes.
#[derive(Debug, Serialize)]
struct Report {
    version: &'static str,
    backend: String,
    /// Threads of the kernels on the CPU, in the order in which they were timed.
    threads: Vec<usize>,
    /// What the most of these threads, or this GPU, reach at best; `None` on other devices.
    peak: Option<Peak>,
    runs: u32,
    rows: Vec<Row>,
    networks: Vec<Cost>,
    /// The whole of it, for each number of threads, where it was timed.
    default_path: Vec<DefaultPath>,
    /// Where it was asked for.
    published_start: Option<PublishedStart>,
    /// With `--profile`, on an NVIDIA GPU.
    profiles: Vec<Profile>,
    /// How each shape is computed on an NVIDIA GPU.
    ways: Vec<Chosen>,
}

/// Kernels of a network that are printed; `--json` has all.
const PROFILE_LINES: usize = 25;

/// The threads that the kernels on the CPU share their work out to.
struct Threads {
    count: usize,
    /// What they reach at best.
    peak: Option<Peak>,
    /// `None`: those that the program has anyway.
    pool: Option<rayon::ThreadPool>,
}

impl Threads {
    fn new(count: Option<u32>, device: &Device) -> Result<Self> {
        let build = |count: u32| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(count as usize);
            pool.thread_name(|i| format!("kernels-{i}")).build()
        };
        let pool = count.map(build).transpose().context("--threads")?;
        let mut threads = Self { count: 0, peak: None, pool };
        threads.peak = threads.run(|| meter::peak(device))?;
        threads.count = threads.run(rayon::current_num_threads);
        Ok(threads)
    }

    /// Runs `work` among them.
    fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        match &self.pool {
            Some(pool) => pool.install(work),
            None => work(),
        }
    }
}

/// Runs the command.
pub fn run(args: &BenchArgs) -> Result<()> {
    if args.batch.contains(&0) {
        return Err(BadInput("--batch: a batch holds at least one person".into()).into());
    }
    let models = cli::models_folder(args.models.as_deref())?;
    let is_wanted = |name: &str| args.only.is_empty() || args.only.iter().any(|part| name.contains(part.as_str()));
    let wanted: Vec<_> = networks::ALL.iter().filter(|(name, _)| is_wanted(name)).collect();
    let with_path = is_wanted(default_path::NAME);
    // It writes 900 MB, so it must be asked for.
    let with_start = !args.only.is_empty() && is_wanted(published_start::NAME);
    if wanted.is_empty() && !with_path && !with_start {
        let names = networks::ALL.map(|(name, _)| name).join(", ");
        let others = [default_path::NAME, published_start::NAME].join(", ");
        return Err(BadInput(format!("--only: no network has such a name; there are {names}, {others}")).into());
    }
    let (device, backend) = infer::device(args.backend, args.precision)?;
    if let Some(path) = &args.json {
        // Better now than after all the timing.
        fs::File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    }
    if let Some(folder) = &args.outputs {
        fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
    }
    let threads: Vec<Threads> = if args.threads.is_empty() {
        vec![Threads::new(None, &device)?]
    } else {
        args.threads.iter().map(|&count| Threads::new(Some(count), &device)).collect::<Result<_>>()?
    };
    meter::set_graphs(&device, !args.no_graphs);
    let mut out = std::io::stdout().lock();
    let mut say = |line: String| {
        use std::io::Write;
        // A reader that has gone away is no reason to lose the figures of `--json`.
        let _ = writeln!(out, "{line}");
    };
    say(format!("{backend}, {} runs each, milliseconds", args.runs));
    for Threads { count, peak, .. } in &threads {
        let Some(Peak { gflops, gigabytes_per_sec }) = peak else { continue };
        let bandwidth = gigabytes_per_sec.map_or(String::new(), |rate| format!(", {rate:.0} GB/s"));
        let of = if device.is_cpu() { format!(" ({count} threads)") } else { String::new() };
        say(format!("at best {gflops:.0} GFLOP/s{bandwidth}{of}"));
    }
    say(format!(
        "{:15} {:>7} {:>5}  {:20} {:>10} {:>10} {:>10} {:>10} {:>8} {:>10}",
        "network", "threads", "batch", "stage", "best", "median", "p95", "GFLOP/s", "of peak", "floor"
    ));
    let (mut rows, mut networks, mut profiles) = (Vec::new(), Vec::new(), Vec::new());
    for (name, make) in wanted {
        memory::reset_peak();
        meter::reset_memory_peak(&device)?;
        let (started, drawn) = (Instant::now(), random::drawing_secs());
        let run = threads[0].run(|| make(&device)).with_context(|| format!("cannot make {name}"))?;
        let mut start_ms = None;
        for (threads, &batch) in threads.iter().flat_map(|threads| args.batch.iter().map(move |batch| (threads, batch)))
        {
            let measure = |runs| threads.run(|| measure(name, batch, runs, &device, &run));
            measure(1)?; // To warm up.
            start_ms.get_or_insert_with(|| (started.elapsed().as_secs_f64() - (random::drawing_secs() - drawn)) * 1e3);
            if device.is_cuda() {
                measure(2)?; // The graph is recorded and has run.
            }
            for mut row in measure(args.runs)? {
                row.peak_share = share_of_peak(&row, threads.peak);
                row.floor = threads.peak.and_then(|peak| peak.floor(row.work));
                row.fps =
                    (*name == path::NAME && row.stage == TOTAL).then(|| path::FRAMES as f64 * 1e3 / row.median_ms);
                say(line(&row));
                if let Some(fps) = row.fps {
                    say(format!("{name:15} {:>13}  {fps:.1} frames a second, the detector on every fourth", ""));
                }
                rows.push(row);
            }
        }
        if let (Some(folder), Some(&batch)) = (&args.outputs, args.batch.first()) {
            outputs::write(folder, name, threads[0].run(|| run(batch, &mut |_| Ok(())))?)?;
        }
        if args.profile {
            meter::set_graphs(&device, false);
            for &batch in &args.batch {
                let kernels = meter::profile(&device, || run(batch, &mut |_| Ok(())).map(drop))?;
                for KernelTime { name: kernel, count, ms } in kernels.iter().take(PROFILE_LINES) {
                    say(format!("{name:15} {batch:>13}  {ms:>10.4} ms {count:>4} x {kernel}"));
                }
                profiles.push(Profile { network: name, batch, kernels });
            }
            meter::set_graphs(&device, !args.no_graphs);
        }
        let cost = Cost {
            network: name,
            start_ms: start_ms.unwrap_or(f64::NAN),
            peak_resident_mib: memory::peak_mib(),
            peak_gpu_mib: meter::memory_peak(&device)?.map(|bytes| bytes as f64 / f64::from(1 << 20)),
        };
        let resident = memory::in_words(cost.peak_resident_mib);
        let on_gpu =
            cost.peak_gpu_mib.map_or(String::new(), |mib| format!(", at most {mib:.0} MiB of the GPU's memory"));
        say(format!("{name:15} first result after {:.0} ms{resident}{on_gpu}", cost.start_ms));
        networks.push(cost);
        drop(run);
        crate::memory::release_memory();
    }
    let mut path_figures = Vec::new();
    let settings = Settings { backend: args.backend, precision: args.precision, ..Settings::with_models(models) };
    for threads in threads.iter().filter(|_| with_path) {
        let frames = args.runs * settings.detect_every;
        match threads.run(|| default_path::measure(&settings, frames)) {
            Ok((figures, mut path_rows)) => {
                for row in &mut path_rows {
                    row.peak_share = share_of_peak(row, threads.peak);
                    say(line(row));
                }
                rows.extend(path_rows);
                say(figures.to_string());
                path_figures.push(figures);
            }
            // A program without weights of its own.
            Err(error) if args.only.is_empty() => say(format!("{:15} not timed: {error:#}", default_path::NAME)),
            Err(error) => return Err(error),
        }
    }
    let published_start = if with_start {
        crate::memory::release_memory();
        let figures = threads[0].run(|| published_start::measure(&settings))?;
        say(figures.to_string());
        Some(figures)
    } else {
        None
    };
    let counts: Vec<usize> = threads.iter().map(|threads| threads.count).collect();
    scaling(&rows, &counts).into_iter().for_each(&mut say);
    if let Some(path) = &args.json {
        let report = Report {
            version: env!("CARGO_PKG_VERSION"),
            backend,
            peak: threads.iter().max_by_key(|threads| threads.count).and_then(|threads| threads.peak),
            threads: counts,
            runs: args.runs,
            rows,
            networks,
            default_path: path_figures,
            published_start,
            profiles,
            ways: meter::ways(&device),
        };
        let text = serde_json::to_string_pretty(&report)?;
        fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

fn share_of_peak(row: &Row, peak: Option<Peak>) -> Option<f64> {
    row.gflops.zip(peak).map(|(reached, peak)| reached / peak.gflops)
}

/// The stage of a row that is all of them.
const TOTAL: &str = "total";

/// A row of the table.
fn line(row: &Row) -> String {
    let Row { network, threads, batch, stage, best_ms, median_ms, p95_ms, gflops, peak_share, floor, .. } = row;
    let floor = floor.map_or("-".into(), |f| format!("{:.3}", f.operations_ms.max(f.bytes_ms)));
    let gflops = gflops.map_or("-".into(), |g| format!("{g:.1}"));
    let share = peak_share.map_or("-".into(), |s| format!("{:.0} %", s * 100.0));
    format!(
        "{network:15} {threads:>7} {batch:>5}  {stage:20} {best_ms:>10.2} {median_ms:>10.2} {p95_ms:>10.2} {gflops:>10} \
         {share:>8} {floor:>10}"
    )
}

/// A table of the totals: how much faster each number of threads is than the first. Empty where there is only one.
fn scaling(rows: &[Row], counts: &[usize]) -> Vec<String> {
    let Some((&first, [_, ..])) = counts.split_first() else { return Vec::new() };
    let plural = |count: usize| if count == 1 { "" } else { "s" };
    let titles = counts.iter().map(|&count| format!("{:>22}", format!("{count} thread{}", plural(count))));
    let titles: String = titles.collect();
    let mut lines = vec![format!("{:15} {:>5}{titles}", "network", "batch")];
    for row in rows.iter().filter(|row| row.stage == TOTAL && row.threads == first) {
        let median_ms = |count| {
            let is_same = |other: &&Row| {
                (other.network, other.batch, other.stage, other.threads) == (row.network, row.batch, TOTAL, count)
            };
            rows.iter().find(is_same).map(|other| other.median_ms)
        };
        let cell = |&count: &usize| {
            median_ms(count).map_or(format!("{:>22}", "-"), |ms| format!("{ms:>12.2} ({:>5.2} x)", row.median_ms / ms))
        };
        lines.push(format!("{:15} {:>5}{}", row.network, row.batch, counts.iter().map(cell).collect::<String>()));
    }
    lines
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
        let outputs = run(batch, &mut |stage| {
            nets::synchronize(device)?;
            note(stage, last.0, last.1);
            last = (Instant::now(), meter::work(device));
            Ok(())
        })
        .with_context(|| format!("{network}, batch {batch}"))?;
        nets::synchronize(device)?;
        note(TOTAL, first.0, first.1);
        drop(outputs);
    }
    let row = |Stage { name, mut times_ms, work }: Stage| {
        times_ms.sort_by(f64::total_cmp);
        let [best_ms, median_ms, p95_ms] = [0.0, 0.5, 0.95].map(|q| quantile(&times_ms, q));
        let gflops = (work.multiply_adds > 0).then(|| 2.0 * work.multiply_adds as f64 / median_ms / 1e6);
        Row {
            network,
            threads: rayon::current_num_threads(),
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

/// The value that a share `q` of the sorted values does not exceed (nearest rank).
fn quantile(sorted: &[f64], q: f64) -> f64 {
    let rank = (q * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
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
