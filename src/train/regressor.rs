//! The parameter regressor to be trained, I2L-MeshNet's second stage: the network of
//! [`nets::param`](crate::nets::param). It has no pictures, so people are a row of pixels to its layers.

use anyhow::Result;
use candle_core::{Result as CandleResult, Tensor};

use super::kinematics::rotations_from_6d;
use super::layers::{Conv, Norm, Pass};
use super::params::{ParamsBuilder, Start};
use crate::nets::i2l::ParamShape;
use crate::nets::layers::Activation;
use crate::nets::param::{HIDDEN, ROTATION_NUMBERS};

/// No turn in Zhou et al.'s six numbers.
static UPRIGHT: [f32; ROTATION_NUMBERS] = [1.0, 0.0, 0.0, 1.0, 0.0, 0.0];

/// What the network says about B people.
pub struct ParamOutput {
    /// Rotation of every joint, `[B, R, 3, 3]`.
    pub rotations: Tensor,
    /// Shape coefficients, `[B, C]`.
    pub shape: Tensor,
}

/// The network.
pub struct ParamRegressor {
    hidden: [(Conv, Norm); 2],
    pose: Conv,
    shape: Conv,
    numbers: ParamShape,
}

impl ParamRegressor {
    /// Under the names of the checkpoints, for a body of so many joints.
    pub fn new(joints: usize, numbers: ParamShape, b: &mut ParamsBuilder) -> Self {
        let mut hidden = |input, output, at: usize| {
            let conv = Conv::pointwise(input, output, 2, Start::he(input), &mut b.pp(format!("fc.{at}")));
            (conv, Norm::new(output, &mut b.pp(format!("fc.{}", at + 1))))
        };
        let hidden = [hidden(joints * 3, HIDDEN[0], 0), hidden(HIDDEN[0], HIDDEN[1], 3)];
        let mut last =
            |output, bias, name| Conv::biased(HIDDEN[1], output, 2, [Start::Normal(0.001), bias], &mut b.pp(name));
        Self {
            hidden,
            // Six small numbers would be any rotation, so they begin as none.
            pose: last(numbers.rotations * ROTATION_NUMBERS, Start::Repeated(&UPRIGHT), "fc_pose.0"),
            shape: last(numbers.shape, Start::Constant(0.0), "fc_shape.0"),
            numbers,
        }
    }

    /// Joints in lixels, `[B, J, 3]`.
    pub fn forward(&self, pass: &Pass, joints: &Tensor) -> Result<ParamOutput> {
        let mut x = in_a_row(&pass.image(&joints.flatten_from(1)?)?, pass.lanes())?;
        for (conv, norm) in &self.hidden {
            x = norm.forward(pass, &conv.forward(pass, &x)?, None, Activation::Relu)?;
        }
        let ParamShape { rotations, shape } = self.numbers;
        let six = out_of_the_row(&self.pose.forward(pass, &x)?, rotations * ROTATION_NUMBERS)?;
        let six = six.reshape(((), rotations, ROTATION_NUMBERS))?;
        let shape = out_of_the_row(&self.shape.forward(pass, &x)?, shape)?;
        Ok(ParamOutput { rotations: rotations_from_6d(&six)?, shape })
    }
}

/// `[B, C] -> [1, C / lanes, 1, B, lanes]`, zeros in the place of missing channels.
fn in_a_row(x: &Tensor, lanes: usize) -> CandleResult<Tensor> {
    let (people, channels) = x.dims2()?;
    let blocks = channels.div_ceil(lanes);
    let x = x.pad_with_zeros(1, 0, blocks * lanes - channels)?.reshape((people, blocks, lanes))?;
    x.transpose(0, 1)?.contiguous()?.reshape((1, blocks, 1, people, lanes))
}

/// `[1, C / lanes, 1, B, lanes] -> [B, C]`
fn out_of_the_row(x: &Tensor, channels: usize) -> CandleResult<Tensor> {
    let (_, blocks, _, people, lanes) = x.dims5()?;
    let x = x.reshape((blocks, people, lanes))?.transpose(0, 1)?.contiguous()?;
    x.reshape((people, blocks * lanes))?.narrow(1, 0, channels)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use candle_core::{DType, Device};
    use candle_nn::VarBuilder;
    use glam::{Mat3, Quat};

    use super::*;
    use crate::nets::param::ParamRegressor as Inference;
    use crate::train::checkpoint::save_weights;
    use crate::train::optimizer::Adam;
    use crate::train::params::Params;

    #[test]
    fn what_is_trained_is_what_the_inference_network_reads() -> Result<()> {
        let numbers = ParamShape { rotations: 3, shape: 2 };
        let (params, network) = Params::build(5, |b| ParamRegressor::new(7, numbers, b));
        let params = Arc::new(params);
        let mut adam = Adam::new(&params);
        let joints = Tensor::rand(0_f32, 31.0, (6, 7, 3), &Device::Cpu)?;
        let target = Tensor::rand(-1_f32, 1.0, (6, 3, 3, 3), &Device::Cpu)?;
        let pass = Pass { params: params.clone(), is_training: true };
        let mut losses = Vec::new();
        for _ in 0..20 {
            let out = network.forward(&pass, &joints)?;
            let loss = ((out.rotations - &target)?.abs()?.mean_all()? + (out.shape - 1.5)?.abs()?.mean_all()?)?;
            params.backward(&loss)?;
            adam.step(&params, 3e-3);
            losses.push(loss.to_scalar::<f32>()?);
        }
        assert!(losses[19] < 0.75 * losses[0], "{losses:?}");

        let folder = tempfile::tempdir()?;
        let path = folder.path().join("trained.safetensors");
        save_weights(&params, "{}", &path)?;
        let tensors = candle_core::safetensors::load(&path, &Device::Cpu)?;
        let inference = Inference::load(7, 3, 2, &VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu))?;
        let ours = network.forward(&Pass { params, is_training: false }, &joints)?;
        let (rotations, shapes) = (ours.rotations.flatten_all()?.to_vec1::<f32>()?, ours.shape.to_vec2::<f32>()?);
        let rotations = rotations.as_chunks::<9>().0.as_chunks::<3>().0;
        for ((found, rotations), shape) in inference.forward(&joints)?.iter().zip(rotations).zip(shapes) {
            for (pose, ours) in found.pose_rad.iter().zip(rotations) {
                // Rows first, where glam wants columns. Three layers with relative errors of 1e-6.
                let off = Mat3::from_quat(Quat::from_scaled_axis(*pose)) - Mat3::from_cols_array(ours).transpose();
                assert!(off.to_cols_array().iter().all(|off| off.abs() < 1e-4), "{off}");
            }
            assert!(found.shape.iter().zip(shape).all(|(a, b)| (a - b).abs() < 1e-4));
        }
        Ok(())
    }
}
