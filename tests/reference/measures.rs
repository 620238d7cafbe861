//! Cases of the metrics and of the losses.

use std::path::Path;

use anyhow::{Context, Result, anyhow};
use candle_core::{DType, Tensor, Var};
use glam::DVec3;

use lixelscope::eval::aligned;
use lixelscope::eval::metrics::{
    Alignment, PCK_THRESHOLD_MM, auc_percent, auc_thresholds_mm, distances, f_scores, mpjpe, pa_mpjpe, pck_percent,
    root_error,
};
use lixelscope::train::losses::{Faces, coordinate_loss, surface_losses};

use crate::compare::{Expected, Report, Tolerance};

fn points(numbers: &[f64]) -> Vec<DVec3> {
    numbers.chunks_exact(3).map(DVec3::from_slice).collect()
}

fn flat(points: &[DVec3]) -> Vec<f64> {
    points.iter().flat_map(DVec3::to_array).collect()
}

/// A number for one person, from the predicted and the true points.
type Metric = fn(&[DVec3], &[DVec3]) -> Result<f64>;

pub fn metrics(case: &Path) -> Result<Report> {
    /// Both sides are f64; an SVD by another method agrees to some 1e-10.
    const MM: Tolerance = Tolerance::new(1e-6, "mm");
    const PERCENT: Tolerance = Tolerance::new(1e-9, "%");
    /// The joint that the cases' poses hang on.
    const ROOT: usize = 0;

    let mut expected = Expected::read(case)?;
    let mut report = Report::default();
    let joints = expected.tensor("gt_mm")?.dim(1)?;
    let (truth, predicted) = (points(&expected.numbers("gt_mm")?), points(&expected.numbers("pred_mm")?));
    let people: Vec<_> = predicted.chunks(joints).zip(truth.chunks(joints)).collect();
    let of_each: [(&str, Metric); 3] = [
        ("mpjpe_mm", |p, t| mpjpe(p, t, ROOT)),
        ("pa_mpjpe_mm", pa_mpjpe),
        ("root_error_mm", |p, t| root_error(p, t, ROOT)),
    ];
    for (name, metric) in of_each {
        let actual: Vec<f64> = people.iter().map(|(p, t)| metric(p, t)).collect::<Result<_>>()?;
        report.compare(name, &actual, &expected.numbers(name)?, MM)?;
    }
    let after: Vec<Vec<DVec3>> = people.iter().map(|(p, t)| aligned(p, t)).collect::<Result<_>>()?;
    report.compare("aligned", &flat(&after.concat()), &expected.numbers("aligned_pred_mm")?, MM)?;

    let all = |alignment: Alignment| -> Result<Vec<f64>> {
        let each: Vec<_> = people.iter().map(|(p, t)| distances(p, t, alignment)).collect::<Result<_>>()?;
        Ok(each.concat())
    };
    let (relative, absolute) = (all(Alignment::Root(ROOT))?, all(Alignment::Absolute)?);
    let thresholds = expected.numbers("auc_thresholds_mm")?;
    report.compare("auc_thresholds", &auc_thresholds_mm(), &thresholds, MM)?;
    for (name, actual) in [
        ("pck_rel_150_percent", pck_percent(&relative, PCK_THRESHOLD_MM)),
        ("pck_abs_150_percent", pck_percent(&absolute, PCK_THRESHOLD_MM)),
        ("auc_rel_percent", auc_percent(&relative, &thresholds)),
    ] {
        report.compare(name, &[actual], &expected.numbers(name)?, PERCENT)?;
    }

    let cloud = |expected: &mut Expected, name: &str| Ok::<_, anyhow::Error>(points(&expected.numbers(name)?));
    let scores =
        f_scores(&cloud(&mut expected, "fscore_pred_mm")?, &cloud(&mut expected, "fscore_gt_mm")?, &[5.0, 15.0])?;
    report.compare("fscore_5_15", &scores, &expected.numbers("fscore_5_15")?, Tolerance::new(1e-9, ""))?;
    Ok(expected.finish(report))
}

pub fn losses(case: &Path) -> Result<Report> {
    /// A few dozen f32 operations: far below the features' 1e-3.
    const LOSS: Tolerance = Tolerance::new(1e-5, "rel");

    let mut expected = Expected::read(case)?;
    let mut report = Report::default();
    let output = Var::from_tensor(&expected.tensor("output")?)?;
    let target = expected.tensor("target")?;
    let valid = expected.tensor("valid")?;
    let is_3d = expected.tensor("is_3d")?;
    let faces = expected.tensor("faces")?.to_dtype(DType::U32)?.to_vec2::<u32>()?;
    let faces =
        faces.into_iter().map(|face| <[u32; 3]>::try_from(face).map_err(|_| anyhow!("a face is three vertices")));
    let faces = Faces::new(&faces.collect::<Result<Vec<_>>>()?, target.dim(1)?)?;
    let mut check = |name: &str, loss: Tensor| -> Result<()> {
        let gradients = loss.backward()?;
        let gradient = gradients.get(&output).context("the loss does not depend on the output")?;
        expected.compare(&mut report, &format!("{name}_loss"), &loss.unsqueeze(0)?, LOSS)?;
        expected.compare(&mut report, &format!("{name}_grad"), gradient, LOSS)
    };
    check("coord", coordinate_loss(&output, &target, &valid, &is_3d)?)?;
    let [normal, edge] = surface_losses(&output, &target, &valid, &faces)?;
    check("normal", normal)?;
    check("edge", edge)?;
    Ok(expected.finish(report))
}
