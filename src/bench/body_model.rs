//! Body models of the distributed ones' sizes. What they look like is drawn from a seed: SMPL and MANO are their
//! authors' to give, and the numbers do not change how long posing takes.

use anyhow::Result;

use super::random::Noise;
use crate::body::{Array, Arrays, BodyModel, Family};

/// Shape components.
pub(super) const SHAPES: usize = 10;
/// Bones that move each vertex.
const BONES: usize = 4;
/// Vertices that each joint is the mean of.
const VERTICES_OF_A_JOINT: usize = 32;

/// Ready to be posed.
pub(super) fn random(family: Family) -> Result<BodyModel> {
    BodyModel::from_arrays(&arrays(family))
}

/// The entries of such a model's file.
pub(super) fn arrays(family: Family) -> Arrays {
    let (joints, faces) = match family {
        Family::Smpl => (24, 13_776),
        Family::Mano => (16, 1538),
    };
    let vertices = family.vertex_count();
    let mut seed = 0;
    let mut noise = |shape: &[usize], scale: f64| {
        seed += 1;
        let data = Noise(seed).take(shape.iter().product()).map(|v| scale * f64::from(v)).collect();
        Array { shape: shape.to_vec(), data }
    };
    // Rows whose few numbers that are not zero sum to 1.
    let means = |rows: usize, columns: usize, count: usize| {
        let mut data = vec![0.0; rows * columns];
        for (row, data) in data.chunks_exact_mut(columns).enumerate() {
            (0..count).for_each(|i| data[(row * 7 + i * 5) % columns] += 1.0 / count as f64);
        }
        Array { shape: vec![rows, columns], data }
    };
    let faces = Array {
        data: (0..faces).flat_map(|face| [0, 1, 2].map(|corner| ((face + corner) % vertices) as f64)).collect(),
        shape: vec![faces, 3],
    };
    let entries = [
        ("v_template", noise(&[vertices, 3], 1.0)),
        ("shapedirs", noise(&[vertices, 3, SHAPES], 0.01)),
        ("posedirs", noise(&[vertices, 3, 9 * (joints - 1)], 0.01)),
        ("weights", means(vertices, joints, BONES)),
        ("J_regressor", means(joints, vertices, VERTICES_OF_A_JOINT)),
        ("f", faces),
    ];
    entries.map(|(name, array)| (name.to_owned(), array)).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_have_the_distributed_models_sizes() {
        for (family, vertices, pose_joints, joints) in [(Family::Smpl, 6890, 24, 29), (Family::Mano, 778, 16, 21)] {
            let model = random(family).unwrap();
            let topology = model.topology();
            assert_eq!((topology.vertex_count, topology.skeleton.names.len()), (vertices, joints));
            assert_eq!((model.family(), model.pose_joint_count()), (family, pose_joints));
            let row = &topology.joint_regressor[0];
            assert!((row.iter().map(|r| r.1).sum::<f32>() - 1.0).abs() < 1e-5 && row.len() == VERTICES_OF_A_JOINT);
        }
    }
}
