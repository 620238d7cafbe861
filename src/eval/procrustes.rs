//! The similarity transform (rotation, scale, translation) that brings points closest to others, in the sense of
//! least squares: Procrustes alignment, after Kabsch and Umeyama.

use anyhow::Result;
use glam::{DMat3, DVec3};

use super::metrics::check_pair;

/// `predicted`, brought as close to `truth` as a rotation, a scale and a translation can.
pub fn aligned(predicted: &[DVec3], truth: &[DVec3]) -> Result<Vec<DVec3>> {
    check_pair(predicted, truth)?;
    let mean = |points: &[DVec3]| points.iter().sum::<DVec3>() / points.len() as f64;
    let (centre_p, centre_t) = (mean(predicted), mean(truth));
    let mut covariance = DMat3::ZERO; // sum of t p^T
    let mut variance = 0.0;
    for (p, t) in predicted.iter().zip(truth) {
        let (p, t) = (*p - centre_p, *t - centre_t);
        covariance += DMat3::from_cols(t * p.x, t * p.y, t * p.z);
        variance += p.length_squared();
    }
    let Svd { u, sigma, v } = Svd::of(covariance);
    // A rotation, not a reflection: where the best orthogonal matrix mirrors, its weakest direction is turned back.
    let sign = if (u * v.transpose()).determinant() < 0.0 { -1.0 } else { 1.0 };
    let rotation = u * DMat3::from_diagonal(DVec3::new(1.0, 1.0, sign)) * v.transpose();
    let scale = if variance > 0.0 { (sigma.x + sigma.y + sign * sigma.z) / variance } else { 1.0 };
    Ok(predicted.iter().map(|p| centre_t + rotation * (*p - centre_p) * scale).collect())
}

/// `m = u diag(sigma) v^T` with orthogonal u and v; the singular values fall.
struct Svd {
    u: DMat3,
    sigma: DVec3,
    v: DMat3,
}

impl Svd {
    /// One-sided Jacobi: rotations from the right make the columns orthogonal; their lengths are the singular values.
    fn of(m: DMat3) -> Self {
        /// Each sweep squares the remaining error; five are enough for f64, a dozen are safe.
        const SWEEPS: usize = 12;
        let mut a = [m.x_axis, m.y_axis, m.z_axis];
        let mut v = [DVec3::X, DVec3::Y, DVec3::Z];
        for _ in 0..SWEEPS {
            for (p, q) in [(0, 1), (0, 2), (1, 2)] {
                let off = a[p].dot(a[q]);
                if off.abs() <= f64::EPSILON * a[p].length() * a[q].length() {
                    continue;
                }
                let zeta = (a[q].length_squared() - a[p].length_squared()) / (2.0 * off);
                let tangent = zeta.signum() / (zeta.abs() + zeta.hypot(1.0));
                let cosine = 1.0 / tangent.hypot(1.0);
                let sine = cosine * tangent;
                for columns in [&mut a, &mut v] {
                    let (x, y) = (columns[p], columns[q]);
                    columns[p] = x * cosine - y * sine;
                    columns[q] = x * sine + y * cosine;
                }
            }
        }
        let mut order = [0, 1, 2];
        order.sort_by(|&i, &j| a[j].length_squared().total_cmp(&a[i].length_squared()));
        let [a, v] = [a, v].map(|columns| order.map(|i| columns[i]));
        let sigma = DVec3::from_array(a.map(DVec3::length));
        // A direction without length (flat or straight point sets) is any that is orthogonal to the others.
        let tiny = sigma.x * 1e-14;
        let u0 = a[0].normalize_or(DVec3::X);
        let u1 = if sigma.y > tiny { a[1] / sigma.y } else { u0.any_orthonormal_vector() };
        let u2 = if sigma.z > tiny { a[2] / sigma.z } else { u0.cross(u1) };
        let [v0, v1, v2] = v;
        Self { u: DMat3::from_cols(u0, u1, u2), sigma, v: DMat3::from_cols(v0, v1, v2) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use glam::DQuat;

    fn moved(points: &[DVec3]) -> Vec<DVec3> {
        let rotation = DQuat::from_scaled_axis(DVec3::new(0.4, 2.0, -1.1));
        points.iter().map(|p| rotation * *p * 1.7 + DVec3::new(5.0, -3.0, 900.0)).collect()
    }

    #[test]
    fn a_similarity_is_undone_for_solid_flat_straight_and_single_points() {
        let solid = [[0.0, 0.0, 0.0], [1.0, 0.1, 0.0], [0.0, 2.0, 0.3], [0.2, 0.0, 3.0]].map(DVec3::from_array);
        let flat = solid.map(|p| p.with_z(0.0));
        let straight = solid.map(|p| DVec3::new(1.0, 2.0, 3.0) * p.x);
        for points in [&solid[..], &flat, &straight, &solid[..1], &[DVec3::ONE; 3]] {
            let truth = moved(points);
            for (a, t) in aligned(points, &truth).unwrap().iter().zip(&truth) {
                assert!((a - t).length() < 1e-9, "{a} {t}");
            }
        }
    }

    #[test]
    fn a_mirror_image_is_not_matched_by_mirroring() {
        let truth = [[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 3.0]].map(DVec3::from_array);
        let mirrored = truth.map(|p| p * DVec3::new(-1.0, 1.0, 1.0));
        let aligned = aligned(&mirrored, &truth).unwrap();
        assert!(aligned.iter().zip(&truth).any(|(a, t)| (a - t).length() > 0.1));
    }

    #[test]
    fn the_parts_of_the_decomposition_make_the_matrix() {
        for m in [
            DMat3::from_cols_array(&[1.0, 2.0, 3.0, -4.0, 5.0, 6.0, 7.0, 8.0, -10.0]),
            DMat3::from_cols_array(&[1.0, 2.0, 3.0, 2.0, 4.0, 6.0, 0.0, 0.0, 1e-3]),
            DMat3::from_diagonal(DVec3::new(1e-9, 1e9, -1.0)),
            DMat3::ZERO,
        ] {
            let Svd { u, sigma, v } = Svd::of(m);
            let again = u * DMat3::from_diagonal(sigma) * v.transpose();
            let largest = sigma.x.max(1.0);
            assert!((again - m).to_cols_array().iter().all(|d| d.abs() < 1e-14 * largest * 10.0), "{m}");
            assert!((u * u.transpose() - DMat3::IDENTITY).to_cols_array().iter().all(|d| d.abs() < 1e-9));
            assert!(sigma.x >= sigma.y && sigma.y >= sigma.z && sigma.z >= 0.0);
        }
    }
}
