//! What hangs on a mesh besides its form: skinning weights and joint regressors.

use glam::{DMat3, DVec3};

use super::grid::RawMesh;

/// Joints that move a vertex, at most four, with weights that sum to 1; unused ones weigh 0.
pub type Influences = [(usize, f64); 4];

/// Neighbours of every vertex, in the order of the faces.
pub fn neighbours(mesh: &RawMesh) -> Vec<Vec<u32>> {
    let mut neighbours = vec![Vec::with_capacity(8); mesh.vertices.len()];
    for face in &mesh.faces {
        for i in 0..3 {
            for other in [face[(i + 1) % 3], face[(i + 2) % 3]] {
                let of: &mut Vec<u32> = &mut neighbours[face[i] as usize];
                if !of.contains(&other) {
                    of.push(other);
                }
            }
        }
    }
    neighbours
}

/// Smooth weights: every vertex starts with the joint that `owner` names, then weights diffuse along the mesh. So an arm
/// never pulls at the flank beside it, nor one leg at the other. One step spreads by half an edge length.
pub fn diffuse(mesh: &RawMesh, joints: usize, owner: &[usize], steps: usize) -> Vec<Vec<f64>> {
    let neighbours = neighbours(mesh);
    let mut weights: Vec<Vec<f64>> =
        owner.iter().map(|&j| (0..joints).map(|k| if k == j { 1.0 } else { 0.0 }).collect()).collect();
    for _ in 0..steps {
        let next = neighbours.iter().zip(&weights).map(|(around, own)| {
            let share = 0.5 / around.len() as f64;
            let mut sum: Vec<f64> = own.iter().map(|w| w * 0.5).collect();
            for &v in around {
                for (sum, w) in sum.iter_mut().zip(&weights[v as usize]) {
                    *sum += w * share;
                }
            }
            sum
        });
        weights = next.collect();
    }
    weights
}

/// The largest weights, four at most, made to sum to 1. `partner` names the joint that must be there if a joint is: for a
/// vertex in the middle the one on the other side, else the joint itself.
pub fn strongest(weights: &[f64], partner: impl Fn(usize) -> usize) -> Influences {
    // Less than this nobody sees.
    const LEAST: f64 = 0.004;
    let mut order: Vec<usize> = (0..weights.len()).filter(|&j| weights[j] > LEAST && j <= partner(j)).collect();
    order.sort_by(|&a, &b| weights[b].total_cmp(&weights[a]).then(a.cmp(&b)));
    let mut kept: Vec<usize> = Vec::with_capacity(4);
    for joint in order {
        let both = if partner(joint) == joint { 1 } else { 2 };
        if kept.len() + both <= 4 {
            kept.extend([joint, partner(joint)].into_iter().take(both));
        }
    }
    let total: f64 = kept.iter().map(|&j| weights[j]).sum();
    std::array::from_fn(|i| kept.get(i).map_or((0, 0.0), |&j| (j, weights[j] / total)))
}

/// Weights of nearby vertices that have `joint` as their mean: positive, sum 1. `candidates` are those of the limb.
///
/// Starts from a kernel that falls off with the distance, and tilts it by linear factors until its mean is the joint.
/// `None` where the joint lies outside the limb.
pub fn regress(vertices: &[DVec3], candidates: &[u32], joint: DVec3) -> Option<Vec<(u32, f64)>> {
    let offset = |v: u32| vertices[v as usize] - joint;
    let mut reach = candidates.iter().map(|&v| offset(v).length()).fold(f64::INFINITY, f64::min);
    for _ in 0..12 {
        reach *= 1.25;
        let kernel = candidates.iter().filter_map(|&v| {
            let t = 1.0 - offset(v).length_squared() / (reach * reach);
            (t > 0.0).then_some((v, t * t))
        });
        let kernel: Vec<(u32, f64)> = kernel.collect();
        if kernel.len() >= 8
            && let Some(row) = tilted(kernel, offset)
        {
            return Some(row);
        }
    }
    None
}

/// Multiplies weights by positive factors, linear in the offset, until the mean offset is 0.
fn tilted(mut weights: Vec<(u32, f64)>, offset: impl Fn(u32) -> DVec3) -> Option<Vec<(u32, f64)>> {
    for _ in 0..60 {
        let total: f64 = weights.iter().map(|w| w.1).sum();
        let mut mean = DVec3::ZERO;
        let mut spread = DMat3::ZERO;
        for (v, w) in &mut weights {
            *w /= total;
            let x = offset(*v);
            mean += x * *w;
            spread += DMat3::from_cols(x * x.x, x * x.y, x * x.z) * *w;
        }
        if mean.length() < 1e-13 {
            return Some(weights);
        }
        let size = spread.x_axis.x + spread.y_axis.y + spread.z_axis.z;
        if spread.determinant() < 1e-6 * size * size * size {
            return None;
        }
        // sum w (1 + g.x) x = 0
        let g = -(spread.inverse() * mean);
        for (v, w) in &mut weights {
            *w *= (1.0 + g.dot(offset(*v))).clamp(0.3, 3.0);
        }
    }
    None
}
