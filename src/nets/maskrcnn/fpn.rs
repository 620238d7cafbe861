//! ResNet-50 with a feature pyramid: five maps of 256 channels at strides 4, 8, 16, 32 and 64.

use candle_core::Result;
use candle_nn::VarBuilder;
use rayon::prelude::*;

use crate::nets::kernels::{self, Isa, LANES, Map};
use crate::nets::layers::{Activation, Conv2d, ConvShape, Features, Values};
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
            stem: Stem::load(depth.width(), norm_eps, &body)?,
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
    pub fn forward(&self, pixels: impl Into<Values>) -> Result<Vec<Features>> {
        self.pyramid(&self.stem.run(pixels)?)
    }

    /// The same within a chain of layers.
    #[cfg(feature = "cudnn")]
    pub fn forward_features(&self, pixels: &Features) -> Result<Vec<Features>> {
        self.pyramid(&self.stem.run_features(pixels)?)
    }

    /// From the stem on.
    fn pyramid(&self, early: &Features) -> Result<Vec<Features>> {
        let stages = self.stages.run_all(early)?;
        // Coarsest first: each finer map adds the one above it, enlarged to its size.
        let mut maps = Vec::with_capacity(5);
        let mut above: Option<Features> = None;
        for ((stage, inner), layer) in stages.into_iter().zip(&self.inner).zip(&self.layer).rev() {
            let enlarged = above.map(|above| doubled(&above)).transpose()?;
            let merged = inner.run(&stage, enlarged.as_ref())?;
            // Their memory serves the next maps: the finest have 56 MB each in a frame of 800 px.
            drop((stage, enlarged));
            maps.push(layer.run(&merged, None)?);
            above = Some(merged);
        }
        let pool = every_second(&maps[0])?;
        maps.reverse();
        maps.push(pool);
        Ok(maps)
    }
}

/// Every pixel becomes a square of four. The sides of the input are multiples of 32, so a map is twice as large as the
/// one above it.
fn doubled(x: &Features) -> Result<Features> {
    match x {
        Features::Plain(x) => {
            let (_, _, h, w) = x.dims4()?;
            Ok(Features::Plain(x.upsample_nearest2d(2 * h, 2 * w)?))
        }
        Features::Blocked(x) => {
            let mut out = Map::new([x.batch, x.channels, 2 * x.height, 2 * x.width]);
            let rows = x.data.par_chunks_exact(x.width * LANES);
            out.data.par_chunks_exact_mut(2 * 2 * x.width * LANES).zip(rows).for_each(|(out, row)| {
                let (upper, lower) = out.split_at_mut(2 * row.len());
                for (out, pixel) in upper.chunks_exact_mut(2 * LANES).zip(row.chunks_exact(LANES)) {
                    out[..LANES].copy_from_slice(pixel);
                    out[LANES..].copy_from_slice(pixel);
                }
                lower.copy_from_slice(upper);
            });
            Ok(Features::Blocked(out))
        }
        #[cfg(feature = "cudnn")]
        Features::Device(x) => Ok(Features::Device(x.doubled()?)),
    }
}

/// Every second pixel of every second row: max-pool with kernel 1 and stride 2.
fn every_second(x: &Features) -> Result<Features> {
    match x {
        Features::Plain(x) => Ok(Features::Plain(x.max_pool2d_with_stride(1, 2)?)),
        Features::Blocked(x) => Ok(Features::Blocked(kernels::max_pool(Isa::detect(), x, 1, 2, 0))),
        #[cfg(feature = "cudnn")]
        Features::Device(x) => {
            let pool = crate::nets::cuda::kernels::Pool { kernel: 1, stride: 2, padding: 0 };
            Ok(Features::Device(x.max_pool(pool)?))
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};

    use super::*;

    #[test]
    fn both_layouts_are_resampled_alike() -> Result<()> {
        // 20 channels: one whole block and a part of one.
        let x = Tensor::rand(-1f32, 1.0, (2, 20, 3, 5), &Device::Cpu)?;
        let fast = Features::new(&x)?;
        assert!(matches!(fast, Features::Blocked(_)));
        let plain = Features::Plain(x);
        for resample in [doubled, every_second] {
            let (a, b) = (resample(&fast)?.to_tensor()?, resample(&plain)?.to_tensor()?);
            assert_eq!(a.dims(), b.dims());
            assert_eq!(a.flatten_all()?.to_vec1::<f32>()?, b.flatten_all()?.to_vec1::<f32>()?);
        }
        Ok(())
    }
}
