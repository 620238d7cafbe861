//! I2L-MeshNet's second stage: joints in lixels become the pose and shape of a body model (`param_regressor`).

use anyhow::{Result, bail};
use candle_core::{Device, Result as CandleResult, Tensor};
use candle_nn::VarBuilder;
use glam::{DMat3, DQuat, DVec3, Vec3};

use super::kernels;
use super::layers::{Activation, BN_EPS, FoldedNorm, Linear, Values};
use crate::result::BodyParams;

/// Numbers for each rotation: two columns of its matrix, interleaved.
pub(crate) const ROTATION_NUMBERS: usize = 6;
/// Widths of the hidden layers.
pub(crate) const HIDDEN: [usize; 2] = [1024, 512];

/// Two hidden layers, then pose and shape. On the processor wherever the first stage is: the joints are there, and the
/// way to a GPU and back takes longer than these products.
pub struct ParamRegressor {
    hidden: [Linear; 2],
    pose: Linear,
    shape: Linear,
}

impl ParamRegressor {
    /// Reads `fc.0`, `fc.1`, `fc.3`, `fc.4`, `fc_pose.0` and `fc_shape.0` of `vb`.
    pub fn load(joints: usize, rotations: usize, shape: usize, vb: &VarBuilder) -> CandleResult<Self> {
        let vb = vb.clone().set_device(Device::Cpu);
        let hidden = |input, output, at: usize| -> CandleResult<Linear> {
            let (linear, norm) = (vb.pp("fc").pp(at), vb.pp("fc").pp(at + 1));
            Linear::load(input, output, Some(FoldedNorm::load(output, BN_EPS, &norm)?), Activation::Relu, &linear)
        };
        let last = |output, name| Linear::load(HIDDEN[1], output, None, Activation::None, &vb.pp(name));
        Ok(Self {
            hidden: [hidden(joints * 3, HIDDEN[0], 0)?, hidden(HIDDEN[0], HIDDEN[1], 3)?],
            pose: last(rotations * ROTATION_NUMBERS, "fc_pose.0")?,
            shape: last(shape, "fc_shape.0")?,
        })
    }

    /// Joints in lixels `[B, J, 3]` to the parameters of each person. The release feeds the lixels as they are,
    /// neither centred nor scaled.
    pub fn forward(&self, joints: impl Into<Values>) -> Result<Vec<BodyParams>> {
        let joints = joints.into().to_device(&Device::Cpu)?;
        let &[people, count, 3] = joints.dims() else { bail!("expected joints [B, J, 3], got {:?}", joints.dims()) };
        let [a, b] = &self.hidden;
        let feature = b.forward(a.forward(joints.reshape((people, count * 3))?)?)?;
        let (poses, shapes) = (self.pose.forward(&feature)?, self.shape.forward(&feature)?);
        let [pose_numbers, shape_numbers] = [&poses, &shapes].map(|values| values.dims()[1]);
        let (poses, shapes) = (poses.fetch()?, shapes.fetch()?);
        let people = poses.chunks_exact(pose_numbers).zip(shapes.chunks_exact(shape_numbers));
        let params = people.map(|(pose, shape)| {
            let rotations = pose.as_chunks::<ROTATION_NUMBERS>().0;
            BodyParams { pose_rad: rotations.iter().map(axis_angle_from_6d).collect(), shape: shape.to_vec() }
        });
        Ok(params.collect())
    }
}

/// The joints that a mesh carries, `regressor [J, V]` times `vertices [B, V, 3] -> [B, J, 3]`, in the vertices' unit.
pub fn joints_from_mesh(regressor: &Tensor, vertices: &Tensor) -> Result<Tensor> {
    let (batch, count, _) = vertices.dims3()?;
    let (joints, expected) = regressor.dims2()?;
    if count != expected {
        bail!("the joint regressor is for a mesh of {expected} vertices and the network's mesh has {count}");
    }
    if regressor.device().is_cpu() {
        // candle tells the stop watches of nothing.
        kernels::count_multiply_adds(joints * vertices.elem_count());
    }
    // [V, B 3] in one product.
    let columns = vertices.permute((1, 0, 2))?.contiguous()?.reshape((count, batch * 3))?;
    Ok(regressor.matmul(&columns)?.reshape((joints, batch, 3))?.transpose(0, 1)?.contiguous()?)
}

/// A joint regressor as a matrix `[J, V]`, from its (vertex, weight) pairs.
pub fn regressor_matrix(rows: &[Vec<(u32, f32)>], vertices: usize, device: &Device) -> Result<Tensor> {
    let mut matrix = vec![0.0_f32; rows.len() * vertices];
    for (joint, row) in rows.iter().enumerate() {
        for &(vertex, weight) in row {
            let Some(cell) = matrix[joint * vertices..][..vertices].get_mut(vertex as usize) else {
                bail!("the joint regressor names vertex {vertex} of a mesh of {vertices} vertices");
            };
            *cell += weight;
        }
    }
    Ok(Tensor::from_vec(matrix, (rows.len(), vertices), device)?)
}

/// Zhou et al.'s continuous 6D rotation to axis times angle, radians, angle in `[0, pi]`. The six numbers are a 3 x 2
/// matrix by rows; Gram-Schmidt makes its columns the first two of the rotation.
fn axis_angle_from_6d(v: &[f32; ROTATION_NUMBERS]) -> Vec3 {
    let v = v.map(f64::from);
    let (a1, a2) = (DVec3::new(v[0], v[2], v[4]), DVec3::new(v[1], v[3], v[5]));
    let b1 = a1.normalize_or(DVec3::X);
    let b2 = (a2 - b1 * b1.dot(a2)).normalize_or(b1.any_orthonormal_vector());
    let rotation = DQuat::from_mat3(&DMat3::from_cols(b1, b2, b1.cross(b2)));
    // Of the two quaternions of a rotation, the one with the smaller angle.
    let rotation = if rotation.w < 0.0 { -rotation } else { rotation };
    let axis = rotation.xyz();
    let sine = axis.length();
    let angle = 2.0 * sine.atan2(rotation.w);
    // For small angles, angle / sine tends to 2.
    (axis * if sine > 1e-12 { angle / sine } else { 2.0 }).as_vec3()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn six_numbers_become_the_rotation_they_span() {
        // The identity, scaled: Gram-Schmidt takes lengths and the skew away.
        assert!(axis_angle_from_6d(&[3.0, 0.5, 0.0, 2.0, 0.0, 0.0]).length() < 1e-7);
        for axis_angle in [Vec3::new(0.3, -0.2, 0.9), Vec3::new(0.0, 3.1, 0.0), Vec3::new(1e-5, 0.0, 0.0)] {
            let m = glam::Mat3::from_quat(glam::Quat::from_scaled_axis(axis_angle));
            let (c1, c2) = (m.x_axis, m.y_axis);
            let back = axis_angle_from_6d(&[c1.x, c2.x, c1.y, c2.y, c1.z, c2.z]);
            assert!((back - axis_angle).length() < 1e-5, "{back} {axis_angle}");
        }
        assert!(axis_angle_from_6d(&[0.0; 6]).is_finite());
    }

    #[test]
    fn a_regressor_of_single_vertices_picks_them() {
        let device = Device::Cpu;
        let vertices = Tensor::arange(0.0_f32, 24.0, &device).unwrap().reshape((2, 4, 3)).unwrap();
        let regressor = regressor_matrix(&[vec![(3, 1.0)], vec![(0, 0.5), (1, 0.5)]], 4, &device).unwrap();
        let joints = joints_from_mesh(&regressor, &vertices).unwrap().to_vec3::<f32>().unwrap();
        assert_eq!(joints, [[[9.0, 10.0, 11.0], [1.5, 2.5, 3.5]], [[21.0, 22.0, 23.0], [13.5, 14.5, 15.5]]]);
        assert!(regressor_matrix(&[vec![(4, 1.0)]], 4, &device).is_err());
        assert!(joints_from_mesh(&regressor, &vertices.narrow(1, 0, 3).unwrap()).is_err());
    }
}
