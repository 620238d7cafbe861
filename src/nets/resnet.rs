//! ResNet without its classifier, torchvision's layout and names. Depths 18, 34 (basic blocks), 50, 101, 152
//! (bottlenecks with the stride in `conv2`).

use anyhow::{Result, bail};
use candle_core::Result as CandleResult;
use candle_nn::VarBuilder;

use super::layers::{Activation, Conv2d, ConvShape, Features, FoldedNorm, Values};

/// Depth and width of a ResNet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Depth {
    pub(crate) blocks: [usize; 4],
    pub(crate) bottleneck: bool,
    /// Channels after the stem: 64 in torchvision's.
    pub(crate) width: usize,
}

impl Depth {
    /// The published checkpoints' depth.
    pub const RESNET50: Self = Self { blocks: [3, 4, 6, 3], bottleneck: true, width: 64 };

    /// One of 18, 34, 50, 101, 152.
    pub fn new(layers: usize) -> Result<Self> {
        let (blocks, bottleneck) = match layers {
            18 => ([2, 2, 2, 2], false),
            34 => ([3, 4, 6, 3], false),
            50 => ([3, 4, 6, 3], true),
            101 => ([3, 4, 23, 3], true),
            152 => ([3, 8, 36, 3], true),
            _ => bail!("a ResNet has 18, 34, 50, 101 or 152 layers, not {layers}"),
        };
        Ok(Self { blocks, bottleneck, width: Self::RESNET50.width })
    }

    /// The same with other channels after the stem; each stage but the first doubles them.
    pub fn with_width(self, width: usize) -> Self {
        Self { width, ..self }
    }

    /// Channels after the stem.
    pub fn width(self) -> usize {
        self.width
    }

    /// Channels after each of the four stages.
    pub fn channels(self) -> [usize; 4] {
        let expansion = if self.bottleneck { 4 } else { 1 };
        [1, 2, 4, 8].map(|c| c * self.width * expansion)
    }
}

/// `conv1`, `bn1`, ReLU and max-pool: `[B, 3, H, W] -> [B, 64, H/4, W/4]` (64 is the usual width).
pub struct Stem(Conv2d);

impl Stem {
    /// Reads `conv1` and `bn1` of `vb`.
    pub fn load(width: usize, eps: f64, vb: &VarBuilder) -> CandleResult<Self> {
        let norm = FoldedNorm::load(width, eps, &vb.pp("bn1"))?;
        let shape = ConvShape::same(3, width, 7).strided(2);
        Ok(Self(Conv2d::load(shape, false, Some(norm), Activation::Relu, &vb.pp("conv1"))?))
    }

    /// `[B, 3, H, W] -> [B, 64, H/4, W/4]`
    pub fn run(&self, image: impl Into<Values>) -> CandleResult<Features> {
        self.0.run_planes(&image.into())?.max_pool_3x3()
    }

    /// The same within a chain of layers.
    pub fn run_features(&self, image: &Features) -> CandleResult<Features> {
        self.0.run(image, None)?.max_pool_3x3()
    }
}

/// A residual block: its convolutions in order, and the shortcut where the shape changes.
pub(super) struct Block {
    convs: Vec<Conv2d>,
    downsample: Option<Conv2d>,
}

impl Block {
    pub(super) fn load(
        input: usize,
        width: usize,
        stride: usize,
        bottleneck: bool,
        eps: f64,
        vb: &VarBuilder,
    ) -> CandleResult<Self> {
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
        let convs = shapes
            .into_iter()
            .enumerate()
            .map(|(i, shape)| {
                let norm = FoldedNorm::load(shape.output, eps, &vb.pp(format!("bn{}", i + 1)))?;
                Conv2d::load(shape, false, Some(norm), Activation::Relu, &vb.pp(format!("conv{}", i + 1)))
            })
            .collect::<CandleResult<_>>()?;
        let downsample = (stride != 1 || input != output)
            .then(|| {
                let norm = FoldedNorm::load(output, eps, &vb.pp("downsample.1"))?;
                let shape = ConvShape::same(input, output, 1).strided(stride);
                Conv2d::load(shape, false, Some(norm), Activation::None, &vb.pp("downsample.0"))
            })
            .transpose()?;
        Ok(Self { convs, downsample })
    }

    pub(super) fn run(&self, x: &Features) -> CandleResult<Features> {
        let (last, [first, middle @ ..]) = self.convs.split_last().expect("a block has convolutions") else {
            unreachable!("a block has two or three convolutions")
        };
        let mut y = first.run(x, None)?;
        for conv in middle {
            y = conv.run(&y, None)?;
        }
        match &self.downsample {
            Some(conv) => last.run(&y, Some(&conv.run(x, None)?)),
            None => last.run(&y, Some(x)),
        }
    }
}

/// The four residual stages, `layer1` to `layer4`.
pub struct Stages(Vec<Vec<Block>>);

impl Stages {
    /// Reads `layer1` to `layer4` of `vb`.
    pub fn load(depth: Depth, eps: f64, vb: &VarBuilder) -> CandleResult<Self> {
        let mut input = depth.width;
        let mut stages = Vec::with_capacity(4);
        for (stage, &count) in depth.blocks.iter().enumerate() {
            let vb = vb.pp(format!("layer{}", stage + 1));
            let mut blocks = Vec::with_capacity(count);
            for i in 0..count {
                let stride = if stage > 0 && i == 0 { 2 } else { 1 };
                let block = Block::load(input, depth.width << stage, stride, depth.bottleneck, eps, &vb.pp(i))?;
                input = depth.channels()[stage];
                blocks.push(block);
            }
            stages.push(blocks);
        }
        Ok(Self(stages))
    }

    /// `[B, 64, H/4, W/4] -> [B, C, H/32, W/32]`
    pub fn run(&self, early: &Features) -> CandleResult<Features> {
        let mut x: Option<Features> = None;
        for block in self.0.iter().flatten() {
            x = Some(block.run(x.as_ref().unwrap_or(early))?);
        }
        Ok(x.expect("a ResNet has blocks"))
    }

    /// The outputs of all four stages, finest first.
    pub fn run_all(&self, early: &Features) -> CandleResult<Vec<Features>> {
        let mut outputs: Vec<Features> = Vec::with_capacity(4);
        for blocks in &self.0 {
            let mut x: Option<Features> = None;
            for block in blocks {
                x = Some(block.run(x.as_ref().or(outputs.last()).unwrap_or(early))?);
            }
            outputs.extend(x);
        }
        Ok(outputs)
    }
}
