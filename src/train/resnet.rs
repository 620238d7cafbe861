//! The ResNet of [`nets::resnet`](crate::nets::resnet), to be trained; the same names.

use candle_core::{Result, Tensor};

use super::layers::{ConvNorm, Pass};
use super::ops::max_pool;
use super::params::ParamsBuilder;
use crate::nets::layers::{Activation, ConvShape};
use crate::nets::resnet::Depth;

/// `conv1`, `bn1`, ReLU and max-pool.
pub struct Stem(ConvNorm);

impl Stem {
    /// `conv1` and `bn1`.
    pub fn new(width: usize, b: &mut ParamsBuilder) -> Self {
        Self(ConvNorm::new(ConvShape::same(3, width, 7).strided(2), ["conv1", "bn1"], b))
    }

    /// An image `[B, 3, H, W]` (see [`Pass::image`]) to `[B, 4, H/4, W/4, 16]`.
    pub fn forward(&self, pass: &Pass, image: &Tensor) -> Result<Tensor> {
        max_pool(&self.0.forward(pass, image, None, Activation::Relu)?)
    }
}

/// A residual block.
struct Block {
    convs: Vec<ConvNorm>,
    downsample: Option<ConvNorm>,
}

impl Block {
    fn new(input: usize, width: usize, stride: usize, bottleneck: bool, b: &mut ParamsBuilder) -> Self {
        let output = if bottleneck { width * 4 } else { width };
        let shapes = if bottleneck {
            vec![
                ConvShape::same(input, width, 1),
                ConvShape::same(width, width, 3).strided(stride),
                ConvShape::same(width, output, 1),
            ]
        } else {
            vec![ConvShape::same(input, width, 3).strided(stride), ConvShape::same(width, width, 3)]
        };
        let numbered = |(i, shape)| ConvNorm::new(shape, [&format!("conv{i}"), &format!("bn{i}")], b);
        let convs = (1..).zip(shapes).map(numbered).collect();
        let downsample = (stride != 1 || input != output).then(|| {
            let shape = ConvShape::same(input, output, 1).strided(stride);
            ConvNorm::new(shape, ["0", "1"], &mut b.pp("downsample"))
        });
        Self { convs, downsample }
    }

    fn forward(&self, pass: &Pass, x: &Tensor) -> Result<Tensor> {
        let downsampled =
            self.downsample.as_ref().map(|conv| conv.forward(pass, x, None, Activation::None)).transpose()?;
        let shortcut = downsampled.as_ref().unwrap_or(x);
        let mut y = x.clone();
        for (i, conv) in self.convs.iter().enumerate() {
            let residual = (i + 1 == self.convs.len()).then_some(shortcut);
            y = conv.forward(pass, &y, residual, Activation::Relu)?;
        }
        Ok(y)
    }
}

/// The four residual stages.
pub struct Stages(Vec<Block>);

impl Stages {
    /// `layer1` to `layer4`.
    pub fn new(depth: Depth, b: &mut ParamsBuilder) -> Self {
        let mut input = depth.width;
        let mut blocks = Vec::new();
        for (stage, &count) in depth.blocks.iter().enumerate() {
            let mut b = b.pp(format!("layer{}", stage + 1));
            for i in 0..count {
                let stride = if stage > 0 && i == 0 { 2 } else { 1 };
                blocks.push(Block::new(input, depth.width << stage, stride, depth.bottleneck, &mut b.pp(i)));
                input = depth.channels()[stage];
            }
        }
        Self(blocks)
    }

    /// `[B, 4, H/4, W/4, 16] -> [B, C / 16, H/32, W/32, 16]`
    pub fn forward(&self, pass: &Pass, early: &Tensor) -> Result<Tensor> {
        self.0.iter().try_fold(early.clone(), |x, block| block.forward(pass, &x))
    }
}
