//! RootNet (Moon et al., ICCV 2019): a patch becomes the root joint's place in it and gamma, the correction factor
//! of its distance. `root_depth` turns gamma into metres.

use anyhow::Result;
use candle_core::{Device, Result as CandleResult, Tensor};
use candle_nn::VarBuilder;
use glam::Vec2;

use super::input::imagenet_undivided;
use super::layers::{Activation, BN_EPS, Conv2d, ConvShape, DeconvStack, Features};
use super::resnet::{Stages, Stem};
use super::{NetSizes, on_pool};
use crate::lixel;

/// Where [`NetSizes::with_widths_of`] finds the widths.
pub const WIDTHS_AT: [&str; 2] = ["backbone", "root.deconv_layers"];

/// What the network says about the roots of B people, on its device.
pub struct RootOutput {
    /// `[B, D (y), D (x)]`: probability over the bins of the plane.
    pub heatmap: Tensor,
    /// `[B, 2]`: expected x and y, in bins.
    pub coords: Tensor,
    /// `[B]`: gamma', which times k is the root's depth.
    pub gamma: Tensor,
    /// The backbone's feature, `[B, C, D/8, D/8]`.
    pub feature: Features,
}

/// One person's root, fetched.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Root {
    /// x and y, in bins.
    pub lixel: Vec2,
    /// Times k it is the depth.
    pub gamma: f32,
}

impl RootOutput {
    /// Fetches the roots.
    pub fn roots(&self) -> CandleResult<Vec<Root>> {
        let table = Tensor::cat(&[&self.coords, &self.gamma.unsqueeze(1)?], 1)?; // one transfer
        let rows: Vec<Vec<f32>> = table.to_device(&Device::Cpu)?.to_vec2()?;
        Ok(rows.iter().map(|r| Root { lixel: Vec2::new(r[0], r[1]), gamma: r[2] }).collect())
    }
}

/// The network.
pub struct RootNet {
    sizes: NetSizes,
    stem: Stem,
    stages: Stages,
    deconv: DeconvStack,
    xy: Conv2d,
    depth: Conv2d,
}

impl RootNet {
    /// Reads a checkpoint's `network`, without the `module.` before its names.
    pub fn load(sizes: NetSizes, vb: &VarBuilder) -> CandleResult<Self> {
        let (backbone, root) = (vb.pp("backbone"), vb.pp("root"));
        let one = |input, name: &str| {
            Conv2d::load(ConvShape::same(input, 1, 1), true, None, Activation::None, &root.pp(name))
        };
        Ok(Self {
            sizes,
            stem: Stem::load(sizes.depth().width(), BN_EPS, &backbone)?,
            stages: Stages::load(sizes.depth(), BN_EPS, &backbone)?,
            deconv: DeconvStack::load(
                [sizes.features(), sizes.channels()],
                sizes.heatmap() / 8,
                &root.pp("deconv_layers"),
            )?,
            xy: one(sizes.channels(), "xy_layer")?,
            depth: one(sizes.features(), "depth_layer")?,
        })
    }

    /// Sizes of the patch and of the heatmap.
    pub fn sizes(&self) -> &NetSizes {
        &self.sizes
    }

    /// Patches `[B, 3, H, W]`, RGB in `0..=255`.
    pub fn forward(&self, patches: &Tensor) -> Result<RootOutput> {
        on_pool(patches.device(), || self.forward_on_pool(patches))
    }

    fn forward_on_pool(&self, patches: &Tensor) -> Result<RootOutput> {
        self.sizes.check_patches(patches)?;
        let feature = self.stages.run(&self.stem.run(&imagenet_undivided(patches)?)?)?;
        let logits = self.xy.run(&self.deconv.run(&feature)?, None)?.to_tensor()?; // [B, 1, D, D]
        let heatmap = lixel::softmax(&logits.flatten_from(1)?)?.reshape(logits.squeeze(1)?.shape())?;
        let x = lixel::soft_argmax(&heatmap.sum(1)?)?;
        let y = lixel::soft_argmax(&heatmap.sum(2)?)?;
        let coords = Tensor::stack(&[x, y], 1)?;
        let pooled = feature.mean()?.unsqueeze(2)?.unsqueeze(3)?; // [B, C, 1, 1]
        let gamma = self.depth.forward(&pooled)?.flatten_all()?;
        Ok(RootOutput { heatmap, coords, gamma, feature })
    }
}
