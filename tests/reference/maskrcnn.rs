//! Mask R-CNN, stage by stage and end to end.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use candle_core::{DType, Tensor};
use image::RgbImage;
use lixelscope::detect::Detection;
use lixelscope::nets::Precision;
use lixelscope::nets::maskrcnn::{Config, Corners, MaskRcnn, Query, box_head, roi_align::RoiMaps, rpn};

use crate::compare::{Expected, Report, Tolerance, sample};
use crate::support::{Manifest, device, precision};

/// Numbers that are counted, not measured.
const EXACT: Tolerance = Tolerance::new(0.0, "px");
/// Proposals are in resized pixels, before the box head refines them: as accurate as boxes.
const PROPOSAL_PX: Tolerance = Tolerance::new(0.05, "px");
/// Part of the proposals that may be others: two anchors whose scores or whose overlaps differ by less than the
/// features' last digits change places at the limit of a level, and one of them is cut off.
const OTHER_PROPOSALS: Tolerance = Tolerance::new(0.01, "of them differ");
/// Part of the detections that may be others, for the same reason at the end of the list and at the suppression's
/// threshold: one in a hundred.
const OTHER_DETECTIONS: Tolerance = Tolerance::new(0.01, "of them differ");
/// Part of a mask's box whose pixels may differ: probabilities within 1e-4 of one half, and where a box moved by a
/// hundredth of a pixel the line at which its pixels are cut.
const OTHER_PIXELS: Tolerance = Tolerance::new(2e-3, "of the pixels");
/// The label of the detections whose masks the case holds.
const MASK_LABEL: u32 = 4;

/// Runs a case.
pub fn run(path: &Path) -> Result<Report> {
    let mut expected = Expected::read(path)?;
    let mut report = Report::default();
    if cfg!(feature = "cuda") && precision()? != Precision::F32 {
        // What it decides between lies closer together than coarser numbers tell apart; tests/gpu compares what it finds.
        return Ok(expected.finish(report));
    }
    let device = device()?;

    let image = picture(&expected.tensor("image_u8")?)?;
    let sides = expected.numbers("resize_min_max")?;
    ensure!(sides.len() == 2, "resize_min_max holds two sides");
    let config = Config { shorter_side: sides[0] as usize, longest_side: sides[1] as usize, ..Config::default() };
    let net = MaskRcnn::load(config, &Manifest::of_case(path, "maskrcnn")?.var_builder(&device)?)?;

    let mut clock = Clock::start();
    let batch = net.prepare(&[&image])?;
    clock.lap("transform");
    let pyramid = net.backbone.forward(&batch.pixels)?;
    clock.lap("fpn");
    let heads = net.rpn_head.forward(&pyramid)?;
    clock.lap("rpn");
    let proposals = rpn::proposals(&heads, &batch, &net.config)?.pop().context("one picture")?;
    clock.lap("proposals");

    let size = batch.sizes[0];
    for (name, actual) in [("image_size", size.resized), ("resized_shape", batch.padded())] {
        if let Some(tensor) = expected.get(name) {
            report.compare(name, &actual.map(|v| v as f64), &crate::compare::numbers(&tensor)?, EXACT)?;
        }
    }
    for (level, name) in ["0", "1", "2", "3", "pool"].into_iter().enumerate() {
        let map = &pyramid[level].to_tensor()?;
        let steps: &[usize] = if map.dim(3)? > 60 { &[32, 4, 4] } else { &[32, 1, 1] };
        let name = format!("fpn_{name}_sample");
        expected.compare(&mut report, &name, &sample(map, steps)?, Tolerance::FEATURE)?;
        let output = &heads[level];
        let name = format!("objectness_{level}");
        expected.compare(&mut report, &name, &output.objectness.to_tensor()?, Tolerance::FEATURE)?;
        expected.compare(&mut report, &format!("deltas_{level}"), &output.deltas.to_tensor()?, Tolerance::FEATURE)?;
    }
    let expected_proposals = corners(&expected.tensor("proposals")?)?;
    compare_proposals(&mut report, &proposals, &expected_proposals);

    clock.skip();
    let maps = RoiMaps::new(pyramid, &batch.sizes)?;
    let regions = net.regions(&maps, 0, &proposals, box_head::ROI_SIDE)?;
    clock.lap("roi align");
    let output = net.box_head.forward(&regions)?;
    clock.lap("box head");
    let found = box_head::select(&output, &proposals, size.resized, None, &net.config)?;
    clock.lap("select");

    // The heads are given the expected proposals, so that each stage is judged alone.
    if let Some(tensor) = expected.get("roi_pool_sample") {
        let first = expected_proposals.get(..tensor.dim(0)?).context("more RoI features than proposals")?;
        let regions = sample(&net.regions(&maps, 0, first, box_head::ROI_SIDE)?.to_tensor()?, &[32, 1, 1])?;
        let actual = crate::compare::numbers(&regions)?;
        report.compare("roi_pool_sample", &actual, &crate::compare::numbers(&tensor)?, Tolerance::FEATURE)?;
    }
    let count = expected.tensor("class_logits")?.dim(0)?;
    let first = expected_proposals.get(..count).context("more logits than proposals")?;
    let output = net.box_head.forward(&net.regions(&maps, 0, first, box_head::ROI_SIDE)?)?;
    expected.compare(&mut report, "class_logits", &output.logits.to_tensor()?, Tolerance::FEATURE)?;
    expected.compare(&mut report, "box_regression", &output.deltas.to_tensor()?, Tolerance::FEATURE)?;

    let detections = net.detect(&image, Query::default())?;
    ensure!(detections.len() == found.len(), "{} boxes end to end, {} by stages", detections.len(), found.len());
    compare_detections(&mut report, &mut expected, &detections)?;

    if let Some(tensor) = expected.get("masks_of_label_4") {
        let first: Vec<_> = found.iter().filter(|f| f.label == MASK_LABEL).take(tensor.dim(0)?).copied().collect();
        ensure!(first.len() == tensor.dim(0)?, "only {} detections have label {MASK_LABEL}", first.len());
        clock.skip();
        let masks = net.masks(&maps, 0, &first, &size)?;
        clock.lap("masks");
        let (width, height) = image.dimensions();
        let pixels = tensor.flatten_all()?.to_vec1::<u8>()?;
        let mut worst = 0.0f64;
        for ((mask, found), expected) in masks.iter().zip(&first).zip(pixels.chunks((width * height) as usize)) {
            let differs = |i: usize| mask.contains(i as u32 % width, i as u32 / width) != (expected[i] != 0);
            let differing = (0..expected.len()).filter(|&i| differs(i)).count();
            let [x0, y0, x1, y1] = size.original_from_resized(found.corners);
            worst = worst.max(differing as f64 / f64::from((x1 - x0) * (y1 - y0)));
        }
        report.check("masks", worst, OTHER_PIXELS);
    }
    println!("  {}", clock.line());
    Ok(expected.finish(report))
}

/// `[H, W, 3]` bytes as a picture.
fn picture(tensor: &Tensor) -> Result<RgbImage> {
    let (height, width, _) = tensor.dims3()?;
    let bytes = tensor.flatten_all()?.to_vec1::<u8>()?;
    RgbImage::from_raw(width as u32, height as u32, bytes).context("image_u8 holds height x width x 3 bytes")
}

fn corners(tensor: &Tensor) -> Result<Vec<Corners>> {
    let rows = tensor.to_dtype(DType::F32)?.to_vec2::<f32>()?;
    rows.iter().map(|row| Ok([row[0], row[1], row[2], row[3]])).collect()
}

/// The largest difference of a corner.
fn distance(a: &Corners, b: &Corners) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from((a - b).abs())).fold(0.0, f64::max)
}

/// Compares proposals as a set: their order is that of scores of which many differ by less than the features'
/// accuracy.
fn compare_proposals(report: &mut Report, actual: &[Corners], expected: &[Corners]) {
    let mut free: Vec<&Corners> = actual.iter().collect();
    let (mut worst, mut others) = (0.0f64, actual.len().abs_diff(expected.len()));
    for box_px in expected {
        let nearest = (0..free.len()).map(|i| (distance(free[i], box_px), i)).min_by(|a, b| a.0.total_cmp(&b.0));
        match nearest {
            Some((deviation, i)) if deviation < 1.0 => {
                free.swap_remove(i);
                worst = worst.max(deviation);
            }
            _ => others += 1,
        }
    }
    report.check("proposals", worst, PROPOSAL_PX);
    report.check("other proposals", others as f64 / expected.len().max(1) as f64, OTHER_PROPOSALS);
}

/// Compares the detections. Each expected one is looked for among those with its label and with its score (within the
/// score's tolerance), for detections whose scores tie have no order.
fn compare_detections(report: &mut Report, expected: &mut Expected, actual: &[Detection]) -> Result<()> {
    let boxes = corners(&expected.tensor("boxes")?)?;
    let (labels, scores) = (expected.numbers("labels")?, expected.numbers("scores")?);
    ensure!(boxes.len() == labels.len() && boxes.len() == scores.len(), "a label and a score for each box");
    let mut free: Vec<&Detection> = actual.iter().collect();
    let (mut worst_px, mut worst_score) = (0.0f64, 0.0f64);
    let mut others = actual.len().abs_diff(boxes.len());
    for ((box_px, label), score) in boxes.iter().zip(labels).zip(scores) {
        let deviations = |d: &Detection| {
            let (min, max) = (d.rect.min(), d.rect.max());
            (distance(&[min.x, min.y, max.x, max.y], box_px), (f64::from(d.score) - score).abs())
        };
        let same = (0..free.len()).filter(|&i| f64::from(free[i].label) == label);
        let nearest = same.min_by(|&a, &b| deviations(free[a]).0.total_cmp(&deviations(free[b]).0));
        match nearest.map(|i| (i, deviations(free[i]))) {
            Some((i, (px, score))) if px < 1.0 => {
                free.swap_remove(i);
                worst_px = worst_px.max(px);
                worst_score = worst_score.max(score);
            }
            _ => others += 1,
        }
    }
    report.check("boxes", worst_px, Tolerance::BOX_PX);
    report.check("scores", worst_score, Tolerance::SCORE);
    report.check("other detections", others as f64 / boxes.len().max(1) as f64, OTHER_DETECTIONS);
    let descending = actual.windows(2).all(|pair| pair[0].score >= pair[1].score);
    ensure!(descending, "the detections are not sorted by score");
    Ok(())
}

/// Times of the stages.
struct Clock {
    last: Instant,
    laps: Vec<(&'static str, f64)>,
}

impl Clock {
    fn start() -> Self {
        Self { last: Instant::now(), laps: Vec::new() }
    }

    fn lap(&mut self, stage: &'static str) {
        self.laps.push((stage, self.last.elapsed().as_secs_f64() * 1e3));
        self.last = Instant::now();
    }

    /// What ran since the last lap is of no interest.
    fn skip(&mut self) {
        self.last = Instant::now();
    }

    fn line(&self) -> String {
        self.laps.iter().map(|(stage, ms)| format!("{stage} {ms:.1} ms")).collect::<Vec<_>>().join(", ")
    }
}

/// Pictures of a batch do not mix, and a query for some classes and their masks agrees with one for all.
#[test]
fn each_picture_of_a_batch_is_detected_on_its_own() -> Result<()> {
    let manifest = crate::support::project_golden_dir().join("maskrcnn_resnet50_fpn.manifest.json");
    let config = Config { shorter_side: 64, longest_side: 96, proposals: 50, ..Config::default() };
    let net = MaskRcnn::load(config, &Manifest::read(&manifest)?.var_builder(&device()?)?)?;
    let picture = |seed: u32| {
        RgbImage::from_fn(80, 60, |x, y| image::Rgb([x * seed, y * seed * 3, x * y * seed].map(|v| (v % 256) as u8)))
    };
    let (a, b) = (picture(1), picture(5));
    let batch = net.detect_batch(&[&a, &b], Query::default())?;
    ensure!(batch[0] != batch[1], "two pictures, two results");
    for (picture, together) in [&a, &b].into_iter().zip(&batch) {
        let alone = net.detect(picture, Query::default())?;
        ensure!(!alone.is_empty() && alone.len() == together.len(), "{} and {}", alone.len(), together.len());
        for (a, t) in alone.iter().zip(together) {
            // The same sums, but convolutions may cut a batch into other tiles.
            let px = (a.rect.min() - t.rect.min()).length() + (a.rect.max() - t.rect.max()).length();
            ensure!(a.label == t.label && px < 1e-3 && (a.score - t.score).abs() < 1e-5, "{a:?} and {t:?}");
        }
        let label = alone[0].label;
        let query = Query { labels: Some(&[label]), masks: true };
        let of_label = net.detect(picture, query)?;
        let expected = alone.iter().filter(|d| d.label == label);
        ensure!(of_label.len() >= expected.clone().count(), "no other class takes their places");
        for (d, expected) in of_label.iter().zip(expected) {
            let masked = d.mask.is_some();
            ensure!(masked && (d.rect, d.score) == (expected.rect, expected.score), "{d:?} and {expected:?}");
        }
    }
    Ok(())
}
