//! `lixelscope run`: the pipeline without a window. Every frame of a source that waits is processed; of a webcam, the
//! newest.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};

use crate::body::export;
use crate::capture::{self, Next};
use crate::cli::{BadInput, BodyArgs, ConvertArgs, RunArgs, SynthArgs};
use crate::models::Weights;
use crate::nets::convert::convert as convert_checkpoint;
use crate::pipeline::stages::Pass;
use crate::pipeline::{Stages, infer};
use crate::record::{jsonl::FrameRecord, manifest::Manifest, obj};
use crate::render::{DrawOptions, OffscreenRenderer};
use crate::result::{EstimatorKind, FrameResult, MeshSource, Stage};
use crate::settings::{BoxSource, Settings};
use crate::synth::Studio;
use crate::synth::dataset::{self, Order};

/// A live source that says nothing for so long is given up.
const STALL_LIMIT: Duration = Duration::from_secs(15);

/// Runs the command.
pub fn run(args: &RunArgs) -> Result<()> {
    let settings = args.pipeline.settings(args.source.kind())?;
    if args.obj && settings.estimator == EstimatorKind::Skeleton {
        return Err(BadInput("--obj: the skeleton estimator makes no mesh; use --estimator body or hand".into()).into());
    }
    let mut source = capture::open_with(&args.source, &settings.webcam, Some(&settings.models))?;
    let mut out = Output::create(args)?;
    let mut stages = load_stages(settings)?;
    stages.begin(source.kind());
    let settings = stages.settings();
    let estimator = settings.estimator;
    let manifest = Manifest {
        version: env!("CARGO_PKG_VERSION"),
        source: &source.describe(),
        backend: settings.backend,
        estimator,
        mesh: settings.mesh_source,
        weights: &stages.weights(),
    };
    manifest.write(&args.out)?;

    let expected = match (args.frames, source.frame_count()) {
        (Some(wanted), Some(there)) => Some(wanted.min(there)),
        (wanted, there) => wanted.or(there),
    };
    let bar = progress_bar(expected);
    let mut done = 0_u64;
    let mut last_frame_at = Instant::now();
    while args.frames.is_none_or(|wanted| done < wanted) {
        let asked = Instant::now();
        match source.next()? {
            Next::Frame(frame) => {
                let waited = asked.elapsed();
                let index = frame.index;
                if done == 0
                    && let Some(words) = frame.truth.as_ref().and_then(|truth| truth.is_not_for(estimator))
                {
                    bar.suspend(|| log::warn!("{words}"));
                }
                let mut result =
                    stages.process(Arc::new(frame), Pass::Next).with_context(|| format!("frame {index}"))?;
                result.timing.add(Stage::Capture, waited);
                let result = Arc::new(result);
                if done == 0 {
                    warn_of_lost_boxes(&result, stages.settings());
                }
                out.write(&result).with_context(|| format!("cannot write frame {index}"))?;
                done += 1;
                last_frame_at = Instant::now();
                bar.inc(1);
                bar.set_message(format!("{} people, {:.0} ms", result.people.len(), result.timing.total_ms()));
            }
            Next::Stalled(note) => {
                if last_frame_at.elapsed() > STALL_LIMIT {
                    bail!("{}: {note}; given up after {} s", source.describe(), STALL_LIMIT.as_secs());
                }
                bar.suspend(|| log::warn!("{note}"));
            }
            Next::Ended(why) => {
                bar.suspend(|| log::info!("{why}"));
                break;
            }
        }
    }
    bar.finish_and_clear();
    out.finish()?;
    if done == 0 {
        bail!("{} gave no frame", source.describe());
    }
    log::info!("{done} frames written to {}", args.out.display());
    Ok(())
}

/// A box that the user gave and that holds nothing of the frame is nobody; it should not be missed in silence.
fn warn_of_lost_boxes(result: &FrameResult, settings: &Settings) {
    let BoxSource::User(rects) = &settings.boxes else { return };
    for rect in rects.iter().filter(|rect| result.people.iter().all(|person| person.rect != **rect)) {
        let [x, y, w, h] = (*rect).into();
        log::warn!("the box {x},{y},{w},{h} holds nothing of the frame: nobody comes of it");
    }
}

/// Loads every network that the settings ask for. What is missing is told at once, as exit code 2.
pub(crate) fn load_stages(settings: Settings) -> Result<Stages> {
    let bar = ProgressBar::new(100).with_style(style("{msg:40} {bar:30} {percent}%"));
    let mut stages = Stages::new(settings.clone());
    let mut missing = Vec::new();
    infer::load(&settings, infer::Wanted::All, &mut |progress| match progress {
        infer::Progress::Reading { what, done } => {
            bar.set_message(what);
            bar.set_position((done * 100.0) as u64);
        }
        infer::Progress::Loaded(part) => match part {
            infer::Part::Backend(name) => log::info!("networks run on {name}"),
            infer::Part::Detector(_, _, detector) => stages.detector = Some(detector),
            infer::Part::Root(_, root) => stages.root = Some(root),
            infer::Part::Estimator { estimator, body, .. } => {
                stages.estimator = Some(estimator);
                stages.body = body;
            }
            infer::Part::Missing(infer::Role::Root, note) => log::warn!("{note}"),
            infer::Part::Missing(_, note) => missing.push(note),
        },
    });
    bar.finish_and_clear();
    if !missing.is_empty() {
        return Err(BadInput(missing.join("\n")).into());
    }
    if settings.mesh_source == MeshSource::Param && !stages.can_pose() {
        let words =
            "--mesh param: these weights have no second stage, or its body model is not there; take --mesh lixel";
        return Err(BadInput(words.into()).into());
    }
    for Weights { role, origin } in stages.weights() {
        log::info!("{}: {origin}", role.what());
    }
    Ok(stages)
}

/// A bar hides itself where stderr is no terminal.
fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// A bar, or a spinner where nobody knows how many frames there will be.
pub(crate) fn progress_bar(expected: Option<u64>) -> ProgressBar {
    match expected {
        Some(n) => ProgressBar::new(n).with_style(style("{bar:40} {pos}/{len} frames, {per_sec}, {eta} left  {msg}")),
        None => ProgressBar::new_spinner().with_style(style("{spinner} {pos} frames, {per_sec}  {msg}")),
    }
}

/// The folder that the results go to.
struct Output<'a> {
    dir: &'a Path,
    lines: BufWriter<File>,
    overlay: Option<(OffscreenRenderer, DrawOptions)>,
    obj: bool,
}

impl<'a> Output<'a> {
    fn create(args: &'a RunArgs) -> Result<Self> {
        let dir = args.out.as_path();
        fs::create_dir_all(dir).with_context(|| format!("cannot make the folder {}", dir.display()))?;
        let path = dir.join("frames.jsonl");
        if path.is_file() {
            log::warn!("{} holds an earlier run: files of the same names are replaced, others stay", dir.display());
        }
        let lines = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        let overlay = args
            .overlay
            .then(|| Ok::<_, anyhow::Error>((OffscreenRenderer::new()?, DrawOptions::default())))
            .transpose()
            .context("--overlay needs a GPU or a software Vulkan (Debian: apt install mesa-vulkan-drivers)")?;
        Ok(Self { dir, lines: BufWriter::new(lines), overlay, obj: args.obj })
    }

    fn write(&mut self, result: &Arc<FrameResult>) -> Result<()> {
        serde_json::to_writer(&mut self.lines, &FrameRecord::new(result))?;
        self.lines.write_all(b"\n")?;
        // A run that is stopped has written whole lines.
        self.lines.flush()?;
        let index = result.frame.index;
        if let Some((renderer, options)) = &mut self.overlay {
            let path = self.dir.join(format!("overlay_{index:06}.png"));
            renderer.overlay(result, options)?.save(&path).with_context(|| path.display().to_string())?;
        }
        if self.obj {
            for person in &result.people {
                let (Some(mesh), Some(topology)) = (&person.mesh, &result.topology) else { continue };
                let path = self.dir.join(format!("frame_{index:06}_person_{}.obj", person.id));
                let title = format!("lixelscope: frame {index}, person {}", person.id);
                let file = File::create(&path).with_context(|| path.display().to_string())?;
                let mut file = BufWriter::new(file);
                obj::write(&mut file, &title, &mesh.vertices_camera_m, &topology.faces)?;
                file.flush()?;
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Result<()> {
        self.lines.flush().context("cannot write frames.jsonl")
    }
}

/// `lixelscope body`: writes the stand-in body and hand.
pub fn export_bodies(args: &BodyArgs) -> Result<()> {
    for path in export::write_all(&args.export)? {
        log::info!("{}", path.display());
    }
    Ok(())
}

/// `lixelscope synth`: pictures of people or hands that do not exist.
pub fn synth(args: &SynthArgs) -> Result<()> {
    let order = Order { kind: args.kind, seed: args.seed, count: args.count, size: args.size };
    let bar = progress_bar(Some(order.count));
    dataset::write(&Studio::of(order.kind.family())?, &order, &args.out, || bar.inc(1))?;
    bar.finish_and_clear();
    log::info!("{} pictures and {} written to {}", order.count, dataset::ANNOTATIONS, args.out.display());
    Ok(())
}

/// `lixelscope convert`: any checkpoint becomes safetensors, which are mapped instead of parsed at start.
pub fn convert(args: &ConvertArgs) -> Result<()> {
    let bar = ProgressBar::new(0).with_style(style("{bar:40} {bytes}/{total_bytes}"));
    if args.output.extension().is_none_or(|extension| extension != "safetensors") {
        return Err(BadInput(format!("{}: the output must end in .safetensors", args.output.display())).into());
    }
    let converted = convert_checkpoint(&args.input, &args.output, args.half, |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    })?;
    bar.finish_and_clear();
    let mib = converted.bytes as f64 / f64::from(1 << 20);
    let halved = if args.half { format!(" ({} of 16-bit floats)", converted.halved) } else { String::new() };
    log::info!("{} tensors{halved}, {mib:.1} MiB, written to {}", converted.tensors, args.output.display());
    Ok(())
}
