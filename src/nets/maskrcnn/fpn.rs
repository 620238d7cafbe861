//! ResNet-50 with a feature pyramid: five maps of 256 channels at strides 4, 8, 16, 32 and 64.

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;

use crate::nets::layers::{Activation, Conv2d, ConvShape};
use crate::nets::resnet::{Depth, Stages, Stem};

/// Channels of every map of the pyramid.
pub const CHANNELS: usize = 256;

/// The network's trunk, `backbone.body` and `backbone.fpn`.
pub struct Backbone {
    stem: Stem,
    stages: Stages,
    inner: Vec<Conv2d>, // 1x1, one for each stage
    layer: Vec<Conv2d>, // 3x3, one for each stage
}

impl Backbone {
    /// Reads `body` and `fpn` of `vb`.
    pub fn load(depth: Depth, norm_eps: f64, vb: &VarBuilder) -> Result<Self> {
        let body = vb.pp("body");
        let fpn = vb.pp("fpn");
        let conv = |shape, name: String| Conv2d::load(shape, true, None, Activation::None, &fpn.pp(name));
        Ok(Self {
            stem: Stem::load(norm_eps, &body)?,
            stages: Stages::load(depth, norm_eps, &body)?,
            inner: (depth.channels().into_iter().enumerate())
                .map(|(i, input)| conv(ConvShape::same(input, CHANNELS, 1), format!("inner_blocks.{i}.0")))
                .collect::<Result<_>>()?,
            layer: (0..4)
                .map(|i| conv(ConvShape::same(CHANNELS, CHANNELS, 3), format!("layer_blocks.{i}.0")))
                .collect::<Result<_>>()?,
        })
    }

    /// `[B, 3, H, W]` -> P2, P3, P4, P5 and the pool level, finest first: `[B, 256, H/4, W/4]` to
    /// `[B, 256, H/64, W/64]` (rounded up).
    pub fn forward(&self, pixels: &Tensor) -> Result<Vec<Tensor>> {
        let stages = self.stages.forward_all(&self.stem.forward(pixels)?)?;
        // Coarsest first: each finer map adds the one above it, enlarged to its size.
        let mut maps = Vec::with_capacity(5);
        let mut above: Option<Tensor> = None;
        for ((stage, inner), layer) in stages.iter().zip(&self.inner).zip(&self.layer).rev() {
            let merged = match above {
                None => inner.forward(stage)?,
                Some(above) => {
                    let (_, _, h, w) = stage.dims4()?;
                    inner.forward_add(stage, &above.upsample_nearest2d(h, w)?)?
                }
            };
            maps.push(layer.forward(&merged)?);
            above = Some(merged);
        }
        // Max-pool with kernel 1 takes every second value.
        let pool = maps[0].max_pool2d_with_stride(1, 2)?;
        maps.reverse();
        maps.push(pool);
        Ok(maps)
    }
}
