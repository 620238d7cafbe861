//! 3D PoseNet to be trained: the network of [`nets::posenet3d`](crate::nets::posenet3d).

use anyhow::{Result, ensure};
use candle_core::Tensor;

use super::layers::{Conv, DeconvStack, Pass};
use super::ops::volume_soft_argmax;
use super::params::ParamsBuilder;
use super::resnet::{Stages, Stem};
use crate::nets::NetSizes;
use crate::nets::input::imagenet_undivided;
use crate::nets::kernels::LANES;

/// The network.
pub struct PoseNet3d {
    stem: Stem,
    stages: Stages,
    deconv: DeconvStack,
    volume: Conv,
}

impl PoseNet3d {
    /// Under the names of the checkpoints.
    pub fn new(sizes: &NetSizes, joints: usize, b: &mut ParamsBuilder) -> Self {
        let channels = sizes.channels();
        Self {
            stem: Stem::new(sizes.depth().width(), &mut b.pp("backbone")),
            stages: Stages::new(sizes.depth(), &mut b.pp("backbone")),
            deconv: DeconvStack::new(sizes.features(), channels, &mut b.pp("head.deconv_layers")),
            volume: Conv::head(channels, joints * sizes.heatmap(), 4, &mut b.pp("head.final_layer")),
        }
    }

    /// Whether volumes of this size can be trained: their gradient wants whole blocks.
    pub fn check(sizes: &NetSizes) -> Result<()> {
        ensure!(
            sizes.heatmap().is_multiple_of(LANES),
            "3D PoseNet is trained with volumes of a multiple of {LANES} bins: --input a multiple of {}, not {}",
            4 * LANES,
            sizes.input()
        );
        Ok(())
    }

    /// Patches `[B, 3, H, W]`, RGB in `0..=255`, to the joints `[B, J, 3]`, in bins.
    pub fn forward(&self, pass: &Pass, patches: &Tensor) -> Result<Tensor> {
        let image = pass.image(&imagenet_undivided(patches)?)?;
        let feature = self.stages.forward(pass, &self.stem.forward(pass, &image)?)?;
        Ok(volume_soft_argmax(&self.volume.forward(pass, &self.deconv.forward(pass, &feature)?)?)?)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use candle_core::{DType, Device};
    use candle_nn::VarBuilder;

    use super::*;
    use crate::nets::posenet3d::{PoseNet3d as Inference, joint_count};
    use crate::train::checkpoint::save_weights;
    use crate::train::optimizer::Adam;
    use crate::train::params::Params;

    #[test]
    fn what_is_trained_is_what_the_inference_network_reads() -> Result<()> {
        let sizes = NetSizes::new(18, 64, 16)?.with_widths(16, 16);
        let (params, network) = Params::build(6, |b| PoseNet3d::new(&sizes, 3, b));
        let mut adam = Adam::new(&params);
        let params = Arc::new(params);
        let pass = Pass { params: params.clone(), is_training: true };
        let patches = Tensor::rand(0_f32, 255.0, (4, 3, 64, 64), &Device::Cpu)?;
        let target = Tensor::rand(3_f32, 12.0, (4, 3, 3), &Device::Cpu)?;
        let mut losses = Vec::new();
        for _ in 0..15 {
            let loss = (network.forward(&pass, &patches)? - &target)?.abs()?.mean_all()?;
            params.backward(&loss)?;
            adam.step(&params, 8e-3);
            losses.push(loss.to_scalar::<f32>()?);
        }
        assert!(losses[14] < 0.8 * losses[0], "{losses:?}");

        let folder = tempfile::tempdir()?;
        let path = folder.path().join("trained.safetensors");
        save_weights(&params, "{}", &path)?;
        let tensors = candle_core::safetensors::load(&path, &Device::Cpu)?;
        let joints = joint_count(&sizes, |name| tensors.get(name).map(|t| t.dims().to_vec()))?;
        let inference = Inference::load(sizes, joints, &VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu))?;
        let expected = inference.forward(&patches)?.coords.to_tensor()?;
        let ours = network.forward(&Pass { params, is_training: false }, &patches)?;
        // Some twenty-five layers with a relative error of 1e-6 each, on coordinates up to 15.
        let off = (ours - expected)?.abs()?.max_all()?.to_scalar::<f32>()?;
        assert!(off < 2e-3, "{off} bins");
        assert!(PoseNet3d::check(&NetSizes::new(18, 96, 24)?).is_err());
        Ok(())
    }
}
