//! The similarity transform (rotation, scale, translation) that brings points closest to others, in the sense of
//! least squares: Procrustes alignment, after Kabsch and Umeyama.

use glam::{DMat3, DVec3};

/// `p -> translation + scale * rotation * p`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Similarity {
    /// Never a reflection.
    pub rotation: DMat3,
    /// 1 where the transform is rigid.
    pub scale: f64,
    /// In the unit of the points.
    pub translation: DVec3,
}

impl Similarity {
    /// Brings the first of each pair as close to the second as a similarity can.
    pub fn between(pairs: &[(DVec3, DVec3)]) -> Self {
        Self::fit(pairs, None)
    }

    /// The same with nothing made larger or smaller.
    pub fn rigid_between(pairs: &[(DVec3, DVec3)]) -> Self {
        Self::fit(pairs, Some(1.0))
    }

    fn fit(pairs: &[(DVec3, DVec3)], scale: Option<f64>) -> Self {
        let share = 1.0 / pairs.len().max(1) as f64;
        let (sum_p, sum_t) = pairs.iter().fold((DVec3::ZERO, DVec3::ZERO), |(a, b), (p, t)| (a + *p, b + *t));
        let (centre_p, centre_t) = (sum_p * share, sum_t * share);
        let mut covariance = DMat3::ZERO; // sum of t p^T
        let mut variance = 0.0;
        for (p, t) in pairs {
            let (p, t) = (*p - centre_p, *t - centre_t);
            covariance += DMat3::from_cols(t * p.x, t * p.y, t * p.z);
            variance += p.length_squared();
        }
        let Svd { u, sigma, v } = Svd::of(covariance);
        // A rotation, not a reflection: where the best orthogonal matrix mirrors, its weakest direction is turned back.
        let sign = if (u * v.transpose()).determinant() < 0.0 { -1.0 } else { 1.0 };
        let rotation = u * DMat3::from_diagonal(DVec3::new(1.0, 1.0, sign)) * v.transpose();
        let best = if variance > 0.0 { (sigma.x + sigma.y + sign * sigma.z) / variance } else { 1.0 };
        let scale = scale.unwrap_or(best);
        Self { rotation, scale, translation: centre_t - rotation * centre_p * scale }
    }

    /// Where a point comes to lie.
    pub fn apply(&self, p: DVec3) -> DVec3 {
        self.translation + self.rotation * p * self.scale
    }
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
            let pairs: Vec<_> = points.iter().copied().zip(moved(points)).collect();
            let similarity = Similarity::between(&pairs);
            for (p, t) in &pairs {
                assert!((similarity.apply(*p) - t).length() < 1e-9, "{p} {t}");
            }
            // Rigidly, whoever is larger stays so.
            let rigid = Similarity::rigid_between(&pairs);
            let [a, b] = [0, points.len() - 1].map(|at| rigid.apply(points[at]));
            assert!(((a - b).length() - (points[0] - points[points.len() - 1]).length()).abs() < 1e-9);
        }
    }

    #[test]
    fn a_mirror_image_is_not_matched_by_mirroring() {
        let truth = [[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 3.0]].map(DVec3::from_array);
        let pairs = truth.map(|p| (p * DVec3::new(-1.0, 1.0, 1.0), p));
        let similarity = Similarity::between(&pairs);
        assert!(pairs.iter().any(|(p, t)| (similarity.apply(*p) - t).length() > 0.1));
        assert_eq!(Similarity::between(&[]).apply(DVec3::ONE), DVec3::ONE, "of nothing, nothing");
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
