//! `lixelscope eval`: the papers' metrics of the whole pipeline, on synthetic pictures or on a dataset.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde::Serialize;

use super::Figures;
use super::examiner::{Examiner, Given};
use super::pictures::Pictures;
use crate::body::Family;
use crate::capture;
use crate::cli::{BadInput, EvalArgs};
use crate::headless::{load_stages, progress_bar};
use crate::models::{Origin, Weights};
use crate::pipeline::Stages;
use crate::result::{EstimatorKind, MeshSource};
use crate::settings::BoxSource;
use crate::synth::Kind;
use crate::synth::dataset::Order;

/// What `--json` writes.
#[derive(Debug, Serialize)]
struct Report<'a> {
    version: &'static str,
    /// The dataset; `None` for synthetic pictures.
    #[serde(skip_serializing_if = "Option::is_none")]
    dataset: Option<&'a Path>,
    #[serde(flatten)]
    order: Option<SyntheticOrder>,
    /// Pictures that were examined.
    count: u64,
    /// Pictures of which nothing was known.
    without_truth: u64,
    estimator: EstimatorKind,
    mesh: MeshSource,
    true_boxes: bool,
    true_roots: bool,
    /// File of each network that ran, or "built in".
    weights: BTreeMap<&'static str, String>,
    elapsed_secs: f64,
    #[serde(flatten)]
    figures: &'a Figures,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct SyntheticOrder {
    split: Kind,
    seed: u64,
    size: [u32; 2],
}

/// Runs the command.
pub fn run(args: &EvalArgs) -> Result<()> {
    let given = Given { boxes: args.true_boxes, roots: args.true_roots };
    let mut settings = args.pipeline.settings(args.split)?;
    match settings.boxes {
        BoxSource::User(_) => {
            let words = "--box and --boxes are the same in every picture: leave them out, or use --true-boxes";
            return Err(BadInput(words.into()).into());
        }
        BoxSource::WholeFrame if given.boxes => {
            return Err(BadInput("--true-boxes or --whole-frame: not both".into()).into());
        }
        // Nobody needs a detector then.
        _ if given.boxes => settings.boxes = BoxSource::User(Vec::new()),
        _ => {}
    }
    if args.synthetic && settings.estimator.family() != args.split.family() {
        let words = format!("--split {} shows {}: take an estimator of those", args.split.name(), args.split.shows());
        return Err(BadInput(words).into());
    }
    if let Some(path) = &args.json {
        // Better now than after all the work.
        File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let order = Order { kind: args.split, seed: args.seed, count: args.count.unwrap_or(1000), size: args.size };
    let dataset = args.dataset.as_deref();
    let source = dataset.map(|path| capture::open_annotated(path, Some(&settings.models))).transpose()?;
    let (estimator, mesh) = (settings.estimator, settings.mesh_source);
    let stages = load_stages(settings)?;
    let weights = weights(&stages);
    let mut examiner = Examiner::new(stages, given);
    let pictures = match source {
        Some(source) => Pictures::of_source(source, args.count)?,
        None => Pictures::synthetic(order)?,
    };

    let started = Instant::now();
    let bar = progress_bar(pictures.count);
    let mut without_truth = 0;
    for frame in pictures {
        let frame = frame?;
        if let Some(truth) = &frame.truth {
            if let Some(words) = truth.is_not_for(estimator) {
                return Err(BadInput(words).into());
            }
            examiner.examine(frame)?;
        } else {
            without_truth += 1;
        }
        bar.inc(1);
        if bar.position().is_multiple_of(10) {
            bar.set_message(examiner.figures().mpjpe_mm.map_or(String::new(), |mm| format!("MPJPE {mm:.1} mm")));
        }
    }
    bar.finish_and_clear();
    let figures = examiner.figures();
    if figures.pictures == 0 {
        bail!("there is no picture of which something is known");
    }
    if without_truth > 0 {
        log::warn!("{without_truth} pictures were left out: nothing usable is known of them");
    }
    let title = match dataset {
        Some(path) => path.display().to_string(),
        None => format!("synthetic {}, seed {}", args.split.name(), args.seed),
    };
    // A reader that has gone away is no reason to lose the figures of `--json`.
    let _ = std::io::stdout().lock().write_all(table(&title, estimator.family(), &figures).as_bytes());
    if let Some(path) = &args.json {
        let report = Report {
            version: env!("CARGO_PKG_VERSION"),
            dataset,
            order: dataset.is_none().then_some(SyntheticOrder {
                split: order.kind,
                seed: order.seed,
                size: order.size,
            }),
            count: figures.pictures,
            without_truth,
            estimator,
            mesh,
            true_boxes: given.boxes,
            true_roots: given.roots,
            weights,
            elapsed_secs: started.elapsed().as_secs_f64(),
            figures: &figures,
        };
        let text = serde_json::to_string_pretty(&report)? + "\n";
        fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// Whose weights the networks run with: role, and file or "built in".
fn weights(stages: &Stages) -> BTreeMap<&'static str, String> {
    let name = |origin| match origin {
        Origin::File(path) => path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        Origin::BuiltIn => origin.to_string(),
    };
    stages.weights().into_iter().map(|Weights { role, origin }| (role.stem(), name(origin))).collect()
}

/// The figures for whoever reads them.
fn table(title: &str, of: Family, figures: &Figures) -> String {
    let who = of.shows();
    let Figures { pictures, people, matched, missed, false_found, ignored, .. } = figures;
    let mut text = format!(
        "{title}: {pictures} pictures\n{people} {who}: {matched} matched, {missed} missed; {false_found} false, \
         {ignored} hardly visible\n{:14} {:>8} {:>8}\n",
        "", "mean", "median"
    );
    let cell = |value: Option<f64>, digits: usize| value.map_or("-".to_owned(), |v| format!("{v:.digits$}"));
    let mut row = |name: &str, mean, median, digits, unit: &str| {
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{name:14} {:>8} {:>8} {unit}",
            cell(mean, digits),
            if unit == "mm" { cell(median, digits) } else { String::new() }
        );
    };
    let f = figures;
    row("MPJPE", f.mpjpe_mm, f.mpjpe_median_mm, 1, "mm");
    row("PA-MPJPE", f.pa_mpjpe_mm, f.pa_mpjpe_median_mm, 1, "mm");
    row("MPVPE", f.mpvpe_mm, f.mpvpe_median_mm, 1, "mm");
    row("PA-MPVPE", f.pa_mpvpe_mm, f.pa_mpvpe_median_mm, 1, "mm");
    row("MRPE", f.mrpe_mm, f.mrpe_median_mm, 1, "mm");
    row("3DPCK rel", f.pck3d_rel, None, 1, "%");
    row("3DPCK abs", f.pck3d_abs, None, 1, "%");
    row("AUC rel", f.auc_rel, None, 1, "%");
    row("AP root 25 cm", f.ap_root_25, None, 3, "");
    row("F at 5 mm", f.f_5mm, None, 3, "");
    row("F at 15 mm", f.f_15mm, None, 3, "");
    row("box AP50", f.box_ap50, None, 3, "");
    row("box AP75", f.box_ap75, None, 3, "");
    text
}
