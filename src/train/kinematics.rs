//! Where pose and shape put the joints, with gradients: forward kinematics of a body model's skeleton (SMPL, 2015, eq. 3
//! and 10), without its skin.

use anyhow::Result;
use candle_core::{D, Device, Result as CandleResult, Tensor};
use glam::Vec3;

use super::batch::Constant;
use crate::body::BodyModel;

/// Added to squared lengths before roots.
const TINY: f64 = 1e-12;

/// A skeleton of J joints, of which the first R turn; those after them are fixed to their parents, as the face's are.
pub struct Kinematics {
    /// Joints of the mean shape at rest, `[1, 3 J]`, metres.
    rest: Constant,
    /// What each shape component adds, `[C, 3 J]`.
    shapes: Constant,
    /// A parent comes before its children; the first joint has none.
    parents: Vec<Option<usize>>,
    rotations: usize,
}

impl Kinematics {
    /// Of a body model with that many shape components.
    pub fn of(body: &BodyModel, components: usize) -> Result<Self> {
        let upright = vec![Vec3::ZERO; body.pose_joint_count()];
        let at_rest = |shape: &[f32]| Ok::<_, anyhow::Error>(body.pose(&upright, shape, Vec3::ZERO)?.joints_m);
        let rest = at_rest(&[])?;
        let mut shapes = Vec::new();
        for component in 0..components {
            let mut shape = vec![0.0; components];
            shape[component] = 1.0;
            // The joints of the rest pose are linear in the shape.
            shapes.extend(at_rest(&shape)?.iter().zip(&rest).flat_map(|(shaped, rest)| (*shaped - *rest).to_array()));
        }
        let numbers = rest.len() * 3;
        let rest: Vec<f32> = rest.iter().flat_map(Vec3::to_array).collect();
        Ok(Self {
            rest: Constant::new(Tensor::from_vec(rest, (1, numbers), &Device::Cpu)?),
            shapes: Constant::new(Tensor::from_vec(shapes, (components, numbers), &Device::Cpu)?),
            parents: body.topology().skeleton.parents.clone(),
            rotations: body.pose_joint_count(),
        })
    }

    /// `rotations [B, R, 3, 3]`, the first into camera axes, and `shape [B, C]` to `[B, J, 3]`: metres from the root.
    pub fn joints(&self, rotations: &Tensor, shape: &Tensor) -> CandleResult<Tensor> {
        let people = shape.dim(0)?;
        let device = shape.device();
        let rest = shape.matmul(&self.shapes.on(device)?)?.broadcast_add(&self.rest.on(device)?)?;
        let rest = rest.reshape((people, self.parents.len(), 3))?;
        let at_rest = |joint: usize| rest.narrow(1, joint, 1)?.squeeze(1); // [B, 3]
        let rotation = |joint: usize| rotations.narrow(1, joint, 1)?.squeeze(1)?.contiguous(); // [B, 3, 3]
        let mut joints: Vec<(Tensor, Tensor)> = Vec::with_capacity(self.parents.len());
        for (joint, parent) in self.parents.iter().enumerate() {
            joints.push(if let Some(parent) = *parent {
                let (orientation, place) = &joints[parent];
                let bone = (at_rest(joint)? - at_rest(parent)?)?.unsqueeze(2)?;
                let place = (place + orientation.matmul(&bone)?.squeeze(2)?)?;
                let turned = joint < self.rotations;
                (if turned { orientation.matmul(&rotation(joint)?)? } else { orientation.clone() }, place)
            } else {
                (rotation(joint)?, at_rest(joint)?.zeros_like()?)
            });
        }
        Tensor::stack(&joints.iter().map(|(_, place)| place).collect::<Vec<_>>(), 1)
    }
}

/// Zhou et al.'s six numbers of each rotation, `[.., 6]`, to matrices `[.., 3, 3]`: a 3 x 2 matrix by rows, whose columns
/// Gram-Schmidt turns into the first two of the rotation (twin of
/// [`nets::param`](crate::nets::param)).
pub fn rotations_from_6d(six: &Tensor) -> CandleResult<Tensor> {
    let mut dims = six.dims().to_vec();
    dims.pop();
    dims.extend([3, 2]);
    let columns = six.reshape(dims)?;
    let column = |i: usize| columns.narrow(D::Minus1, i, 1)?.squeeze(D::Minus1);
    let unit = |v: Tensor| v.broadcast_div(&(v.sqr()?.sum_keepdim(D::Minus1)? + TINY)?.sqrt()?);
    let first = unit(column(0)?)?;
    let second = column(1)?;
    let along = (&first * &second)?.sum_keepdim(D::Minus1)?;
    let second = unit((second - first.broadcast_mul(&along)?)?)?;
    let third = cross(&first, &second)?;
    Tensor::stack(&[first, second, third], D::Minus1)
}

/// `[.., 3] x [.., 3] -> [.., 3]`
fn cross(a: &Tensor, b: &Tensor) -> CandleResult<Tensor> {
    let axis = |v: &Tensor, i: usize| v.narrow(D::Minus1, i % 3, 1);
    let component = |i: usize| (axis(a, i + 1)? * axis(b, i + 2)?)? - (axis(a, i + 2)? * axis(b, i + 1)?)?;
    Tensor::cat(&[component(0)?, component(1)?, component(2)?], D::Minus1)
}

#[cfg(test)]
mod tests {
    use candle_core::Var;
    use glam::{Mat3, Quat};

    use super::*;
    use crate::body::standin;
    use crate::synth::random::Random;

    #[test]
    fn joints_are_where_the_body_model_puts_them() -> Result<()> {
        let body = standin::body()?.model()?;
        let kinematics = Kinematics::of(&body, 10)?;
        let random = &mut Random::fork(3, 3);
        let (mut six, mut shapes, mut expected) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..2 {
            let axis = |random: &mut Random| Vec3::from_array(std::array::from_fn(|_| random.normal() * 0.5));
            let pose: Vec<Vec3> = (0..body.pose_joint_count()).map(|_| axis(random)).collect();
            let shape: Vec<f32> = (0..10).map(|_| random.normal()).collect();
            for pose in &pose {
                let m = Mat3::from_quat(Quat::from_scaled_axis(*pose));
                // Of other lengths and not at right angles: that is what Gram-Schmidt is for.
                let (a, b) = (m.x_axis * 1.7, m.y_axis * 0.4 + m.x_axis * 0.2);
                six.extend([a.x, b.x, a.y, b.y, a.z, b.z]);
            }
            let joints = body.pose(&pose, &shape, Vec3::ZERO)?.joints_m;
            expected.extend(joints.iter().map(|joint| *joint - joints[0]));
            shapes.extend(shape);
        }
        let six = Var::from_vec(six, (2, body.pose_joint_count(), 6), &Device::Cpu)?;
        let shapes = Var::from_vec(shapes, (2, 10), &Device::Cpu)?;
        let joints = kinematics.joints(&rotations_from_6d(&six)?, &shapes)?;
        let found: Vec<f32> = joints.flatten_all()?.to_vec1()?;
        // The face's joints are vertices, and the skin moves them a little with the neck.
        for (i, (found, expected)) in found.chunks_exact(3).map(Vec3::from_slice).zip(&expected).enumerate() {
            let tolerance = if i % 29 < 24 { 1e-5 } else { 0.02 };
            assert!(found.distance(*expected) < tolerance, "joint {}: {found} instead of {expected}", i % 29);
        }
        let gradients = joints.sum_all()?.backward()?;
        for var in [&six, &shapes] {
            let gradient = gradients.get(var).expect("a gradient").abs()?.max_all()?.to_scalar::<f32>()?;
            assert!(gradient.is_finite() && gradient > 0.0, "{gradient}");
        }
        Ok(())
    }
}
