//! RootNet to be trained: the network of [`nets::rootnet`](crate::nets::rootnet).

use anyhow::Result;
use candle_core::{D, Tensor};

use super::layers::{Conv, DeconvStack, Pass};
use super::params::ParamsBuilder;
use super::resnet::{Stages, Stem};
use crate::lixel::soft_argmax;
use crate::nets::NetSizes;
use crate::nets::input::imagenet_undivided;

/// What the network says about the roots of B people.
pub struct RootOutput {
    /// `[B, 2]`: expected x and y, in bins.
    pub coords: Tensor,
    /// `[B]`: gamma', which times k is the root's depth.
    pub gamma: Tensor,
}

/// The network.
pub struct RootNet {
    stem: Stem,
    stages: Stages,
    deconv: DeconvStack,
    xy: Conv,
    depth: Conv,
}

impl RootNet {
    /// Under the names of the checkpoints.
    pub fn new(sizes: &NetSizes, b: &mut ParamsBuilder) -> Self {
        let channels = sizes.channels();
        Self {
            stem: Stem::new(sizes.depth().width(), &mut b.pp("backbone")),
            stages: Stages::new(sizes.depth(), &mut b.pp("backbone")),
            deconv: DeconvStack::new(sizes.features(), channels, &mut b.pp("root.deconv_layers")),
            xy: Conv::head(channels, 1, 4, &mut b.pp("root.xy_layer")),
            depth: Conv::head(sizes.features(), 1, 4, &mut b.pp("root.depth_layer")),
        }
    }

    /// Patches `[B, 3, H, W]`, RGB in `0..=255`.
    pub fn forward(&self, pass: &Pass, patches: &Tensor) -> Result<RootOutput> {
        let image = pass.image(&imagenet_undivided(patches)?)?;
        let feature = self.stages.forward(pass, &self.stem.forward(pass, &image)?)?;
        let logits = self.xy.forward(pass, &self.deconv.forward(pass, &feature)?)?; // [B, 1, D, D, 16]
        let logits = logits.narrow(4, 0, 1)?.squeeze(4)?.squeeze(1)?;
        let heatmap = candle_nn::ops::softmax(&logits.flatten_from(1)?, D::Minus1)?.reshape(logits.shape())?;
        let coords = Tensor::stack(&[soft_argmax(&heatmap.sum(1)?)?, soft_argmax(&heatmap.sum(2)?)?], 1)?;
        let gamma = self.depth.forward(pass, &feature.mean_keepdim((2, 3))?)?; // [B, 1, 1, 1, 16]
        Ok(RootOutput { coords, gamma: gamma.narrow(4, 0, 1)?.flatten_all()? })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use candle_core::{DType, Device};
    use candle_nn::VarBuilder;

    use super::*;
    use crate::nets::rootnet::RootNet as Inference;
    use crate::train::checkpoint::save_weights;
    use crate::train::optimizer::Adam;
    use crate::train::params::Params;

    #[test]
    fn what_is_trained_is_what_the_inference_network_reads() -> Result<()> {
        let sizes = NetSizes::new(18, 64, 16)?.with_widths(16, 16);
        let (params, network) = Params::build(3, |b| RootNet::new(&sizes, b));
        let mut adam = Adam::new(&params);
        let params = Arc::new(params);
        let pass = Pass { params: params.clone(), is_training: true };
        let patches = Tensor::rand(0_f32, 255.0, (4, 3, 64, 64), &Device::Cpu)?;
        let target = Tensor::rand(3_f32, 12.0, (4, 2), &Device::Cpu)?;
        let gamma = Tensor::rand(0.8_f32, 1.2, 4, &Device::Cpu)?;
        let mut losses = Vec::new();
        for _ in 0..15 {
            let out = network.forward(&pass, &patches)?;
            let loss = ((out.coords - &target)?.abs()?.mean_all()? + (out.gamma - &gamma)?.abs()?.mean_all()?)?;
            params.backward(&loss)?;
            adam.step(&params, 2e-3);
            losses.push(loss.to_scalar::<f32>()?);
        }
        assert!(losses[14] < 0.75 * losses[0], "{losses:?}");

        let folder = tempfile::tempdir()?;
        let path = folder.path().join("trained.safetensors");
        save_weights(&params, "{}", &path)?;
        let tensors = candle_core::safetensors::load(&path, &Device::Cpu)?;
        let inference = Inference::load(sizes, &VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu))?;
        let expected = inference.forward(&patches)?;
        let ours = network.forward(&Pass { params, is_training: false }, &patches)?;
        let deviation = |a: &Tensor, b: &Tensor| (a - b)?.abs()?.max_all()?.to_scalar::<f32>();
        // Some twenty-five layers with a relative error of 1e-6 each, on numbers up to 15 and about 1.
        let (coords, gamma) =
            (deviation(&ours.coords, &expected.coords.to_tensor()?)?, deviation(&ours.gamma, &expected.gamma)?);
        assert!(coords < 2e-3 && gamma < 2e-4, "{coords} bins, {gamma}");
        Ok(())
    }
}
