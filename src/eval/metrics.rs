//! The metrics of the papers. Points in millimetres (any one unit will do, but the papers' thresholds are in
//! millimetres), in f64, so that they are not what limits the last digit.

use anyhow::{Result, bail, ensure};
use glam::DVec3;
use rayon::prelude::*;

use crate::procrustes::Similarity;

/// 3DPCK's threshold, millimetres.
pub const PCK_THRESHOLD_MM: f64 = 150.0;

/// The thresholds of 3DPCK's AUC: 0 to 150 mm in steps of 5.
pub fn auc_thresholds_mm() -> Vec<f64> {
    (0..=30).map(|i| f64::from(i) * 5.0).collect()
}

/// Whose position 3DPCK compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alignment {
    /// 3DPCK_abs: as they are, in the camera's frame.
    Absolute,
    /// 3DPCK_rel: with this joint of both moved to the origin.
    Root(usize),
}

/// Mean distance of corresponding points, both with joint `root` moved to the origin (MPJPE, protocol 1).
pub fn mpjpe(predicted: &[DVec3], truth: &[DVec3], root: usize) -> Result<f64> {
    let distances = distances(predicted, truth, Alignment::Root(root))?;
    Ok(mean(&distances))
}

/// Mean distance of corresponding points after the best similarity transform (PA-MPJPE, protocol 2; for meshes
/// PA-MPVPE).
pub fn pa_mpjpe(predicted: &[DVec3], truth: &[DVec3]) -> Result<f64> {
    let distances = distances(&aligned(predicted, truth)?, truth, Alignment::Absolute)?;
    Ok(mean(&distances))
}

/// `predicted`, brought as close to `truth` as a rotation, a scale and a translation can.
pub fn aligned(predicted: &[DVec3], truth: &[DVec3]) -> Result<Vec<DVec3>> {
    check_pair(predicted, truth)?;
    let pairs: Vec<_> = predicted.iter().copied().zip(truth.iter().copied()).collect();
    let similarity = Similarity::between(&pairs);
    Ok(predicted.iter().map(|p| similarity.apply(*p)).collect())
}

/// Distance of the two roots in the camera's frame; its mean over people is the papers' MRPE.
pub fn root_error(predicted: &[DVec3], truth: &[DVec3], root: usize) -> Result<f64> {
    check_pair(predicted, truth)?;
    ensure!(root < truth.len(), "joint {root} of {} is no root", truth.len());
    Ok(predicted[root].distance(truth[root]))
}

/// Distances of corresponding points.
pub fn distances(predicted: &[DVec3], truth: &[DVec3], alignment: Alignment) -> Result<Vec<f64>> {
    check_pair(predicted, truth)?;
    let (predicted_origin, true_origin) = match alignment {
        Alignment::Absolute => (DVec3::ZERO, DVec3::ZERO),
        Alignment::Root(root) => {
            ensure!(root < truth.len(), "joint {root} of {} is no root", truth.len());
            (predicted[root], truth[root])
        }
    };
    // In this order the root's own distance is exactly 0.
    let distance = |(p, t): (&DVec3, &DVec3)| (*p - predicted_origin).distance(*t - true_origin);
    Ok(predicted.iter().zip(truth).map(distance).collect())
}

/// Part of the distances up to and including a threshold, percent (3DPCK).
pub fn pck_percent(distances: &[f64], threshold: f64) -> f64 {
    if distances.is_empty() {
        return 0.0;
    }
    let correct = distances.iter().filter(|&&d| d <= threshold).count();
    100.0 * correct as f64 / distances.len() as f64
}

/// Mean of [`pck_percent`] over thresholds: the area under its curve, percent.
pub fn auc_percent(distances: &[f64], thresholds: &[f64]) -> f64 {
    mean(&thresholds.iter().map(|&t| pck_percent(distances, t)).collect::<Vec<_>>())
}

/// Harmonic mean of the part of the predicted points that have a true point nearer than `threshold`, and of the part of
/// the true points that have a predicted one (F-score of two meshes' vertices), in `[0, 1]`, for each threshold.
pub fn f_scores(predicted: &[DVec3], truth: &[DVec3], thresholds: &[f64]) -> Result<Vec<f64>> {
    if predicted.is_empty() || truth.is_empty() {
        bail!("an F-score needs points: {} predicted, {} true", predicted.len(), truth.len());
    }
    let (precision_distances, recall_distances) = (nearest(predicted, truth), nearest(truth, predicted));
    let score = |&threshold: &f64| {
        let within = |d: &[f64]| d.iter().filter(|&&d| d < threshold).count() as f64 / d.len() as f64;
        let (precision, recall) = (within(&precision_distances), within(&recall_distances));
        if precision + recall > 0.0 { 2.0 * precision * recall / (precision + recall) } else { 0.0 }
    };
    Ok(thresholds.iter().map(score).collect())
}

/// For each point of `from` the distance to the nearest of `to`: outwards along x from the point, until x alone is
/// farther than the nearest so far.
fn nearest(from: &[DVec3], to: &[DVec3]) -> Vec<f64> {
    let mut sorted = to.to_vec();
    sorted.sort_by(|a, b| a.x.total_cmp(&b.x));
    let of = |p: &DVec3| {
        let (left, right) = sorted.split_at(sorted.partition_point(|q| q.x < p.x));
        let mut best = f64::INFINITY;
        let mut look = |q: &DVec3| {
            best = best.min(p.distance_squared(*q));
            (q.x - p.x).powi(2) < best
        };
        // Both sides end where `look` says so.
        let _ = right.iter().all(&mut look);
        let _ = left.iter().rev().all(&mut look);
        best.sqrt()
    };
    from.par_iter().map(of).collect()
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

fn check_pair(predicted: &[DVec3], truth: &[DVec3]) -> Result<()> {
    ensure!(predicted.len() == truth.len(), "{} predicted points for {} true ones", predicted.len(), truth.len());
    ensure!(!truth.is_empty(), "there are no points to compare");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shift_is_root_error_and_no_mpjpe() {
        let truth = [DVec3::ZERO, DVec3::new(100.0, 0.0, 0.0), DVec3::new(0.0, 200.0, 50.0)];
        let predicted = truth.map(|p| p + DVec3::new(3.0, 0.0, 4.0));
        assert_eq!(mpjpe(&predicted, &truth, 0).unwrap(), 0.0);
        assert_eq!(root_error(&predicted, &truth, 0).unwrap(), 5.0);
        let absolute = distances(&predicted, &truth, Alignment::Absolute).unwrap();
        assert_eq!((pck_percent(&absolute, 4.9), pck_percent(&absolute, 5.0)), (0.0, 100.0));
        assert!(mpjpe(&predicted[..2], &truth, 0).is_err());
        assert!(mpjpe(&predicted, &truth, 3).is_err());
        assert!(pa_mpjpe(&[], &[]).is_err());
    }

    #[test]
    fn the_nearest_point_is_the_nearest_of_all() {
        let cloud = |count: u32, step: f64| -> Vec<DVec3> {
            let at = |i: u32, k: f64| (f64::from(i) * step * k).sin() * 300.0;
            (0..count).map(|i| DVec3::new(at(i, 1.0), at(i, 1.7), at(i, 2.3))).collect()
        };
        let (from, to) = (cloud(200, 0.7), cloud(150, 1.1));
        let plain = |p: &DVec3| to.iter().map(|q| p.distance(*q)).fold(f64::INFINITY, f64::min);
        for (fast, p) in nearest(&from, &to).iter().zip(&from) {
            assert!((fast - plain(p)).abs() < 1e-9, "{p}");
        }
        assert_eq!(nearest(&[DVec3::NAN], &to), [f64::INFINITY]);
        assert_eq!(nearest(&to[..1], &[DVec3::NAN, to[0]]), [0.0]);
    }

    #[test]
    fn the_f_score_of_half_a_cloud_is_two_thirds() {
        let truth: Vec<DVec3> = (0..10).map(|i| DVec3::X * f64::from(i) * 100.0).collect();
        // All that is predicted is right, and half of what is there is found.
        let scores = f_scores(&truth[..5], &truth, &[5.0, 1e6]).unwrap();
        assert!((scores[0] - 2.0 / 3.0).abs() < 1e-12);
        assert_eq!(scores[1], 1.0);
        assert!(f_scores(&[], &truth, &[5.0]).is_err());
    }
}
