//! The light detector to be trained: the network of [`nets::person_detector`](crate::nets::person_detector), what it
//! is to say ([`targets`]), how wrong it is ([`loss`]), pictures ([`pictures`]), and how all this is trained ([`task`]).

pub mod loss;
pub mod pictures;
pub mod targets;
pub mod task;

use candle_core::{Result, Tensor};

use super::layers::{Conv, ConvNorm, Norm, Pass};
use super::params::{ParamsBuilder, Start};
use super::resnet::Block;
use crate::nets::layers::{Activation, ConvShape};
use crate::nets::person_detector::{BLOCKS, HEAD_CONVS, OUTPUTS, STEM, WIDTHS};

/// The network.
pub struct PersonDetector {
    stem: ConvNorm,
    layers: [Vec<Block>; 4],
    up4: (Conv, Norm),
    lateral3: ConvNorm,
    up3: (Conv, Norm),
    lateral2: ConvNorm,
    head: Vec<ConvNorm>,
    output: Conv,
}

impl PersonDetector {
    /// Under the names that the inference network reads.
    pub fn new(b: &mut ParamsBuilder) -> Self {
        let [c1, c2, c3, c4] = WIDTHS;
        let stem = ConvNorm::new(STEM, ["conv1", "bn1"], b);
        let mut layer = |stage: usize, input: usize| {
            let (mut b, width) = (b.pp(format!("layer{}", stage + 1)), WIDTHS[stage]);
            let block = |i| {
                let (input, stride) = if i == 0 { (input, 2) } else { (width, 1) };
                Block::new(input, width, stride, false, &mut b.pp(i))
            };
            (0..BLOCKS[stage]).map(block).collect()
        };
        let layers = [layer(0, STEM.output), layer(1, c1), layer(2, c2), layer(3, c3)];
        let lateral = |width, b: &mut ParamsBuilder| ConvNorm::new(ConvShape::same(width, width, 1), ["0", "1"], b);
        let up = |input, output, b: &mut ParamsBuilder| {
            (Conv::transposed(input, output, &mut b.pp(0)), Norm::new(output, &mut b.pp(1)))
        };
        Self {
            stem,
            layers,
            up4: up(c4, c3, &mut b.pp("up4")),
            lateral3: lateral(c3, &mut b.pp("lateral3")),
            up3: up(c3, c2, &mut b.pp("up3")),
            lateral2: lateral(c2, &mut b.pp("lateral2")),
            head: (0..HEAD_CONVS)
                .map(|i| ConvNorm::new(ConvShape::same(c2, c2, 3), ["0", "1"], &mut b.pp("head").pp(i)))
                .collect(),
            output: Conv::pointwise(c2, OUTPUTS, 4, Start::Normal(0.01), &mut b.pp("output")),
        }
    }

    /// What the cells say of pictures (see [`input`](crate::nets::person_detector::input)): `[B, H/8, W/8, 5]`.
    pub fn forward(&self, pass: &Pass, pictures: &Tensor) -> Result<Tensor> {
        let image = pass.image(pictures)?;
        let stem = self.stem.forward(pass, &image, None, Activation::Relu)?;
        let stage =
            |blocks: &[Block], x: &Tensor| blocks.iter().try_fold(x.clone(), |x, block| block.forward(pass, &x));
        let up = |(conv, norm): &(Conv, Norm), x: &Tensor| {
            norm.forward(pass, &conv.forward(pass, x)?, None, Activation::Relu)
        };
        let [l1, l2, l3, l4] = &self.layers;
        let x2 = stage(l2, &stage(l1, &stem)?)?;
        let x3 = stage(l3, &x2)?;
        let x4 = stage(l4, &x3)?;
        let y3 = self.lateral3.forward(pass, &x3, Some(&up(&self.up4, &x4)?), Activation::Relu)?;
        let y2 = self.lateral2.forward(pass, &x2, Some(&up(&self.up3, &y3)?), Activation::Relu)?;
        let y = self.head.iter().try_fold(y2, |y, conv| conv.forward(pass, &y, None, Activation::Relu))?;
        // [B, 1, H/8, W/8, 16]
        self.output.forward(pass, &y)?.narrow(4, 0, OUTPUTS)?.squeeze(1)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use anyhow::Result;
    use candle_core::{DType, Device};
    use candle_nn::VarBuilder;

    use super::loss::{Batch, detection_loss};
    use super::targets::{Target, cells};
    use super::*;
    use crate::nets::person_detector::{Config, PersonDetector as Inference};
    use crate::train::checkpoint::save_weights;
    use crate::train::optimizer::Adam;
    use crate::train::params::Params;

    #[test]
    fn what_is_trained_is_what_the_inference_network_reads() -> Result<()> {
        let (params, network) = Params::build(5, PersonDetector::new);
        let mut adam = Adam::new(&params);
        let params = Arc::new(params);
        let pass = Pass { params: params.clone(), is_training: true };
        let pictures = Tensor::rand(-2_f32, 2.0, (4, 3, 64, 96), &Device::Cpu)?;
        // In every picture somebody else.
        let people = |i: usize| {
            let x = 8.0 * i as f32;
            vec![Target { corners: [x, 4.0, x + 24.0, 60.0], counts: true }]
        };
        let batch = Batch::new(&(0..4).map(|i| cells(&people(i), [12, 8])).collect::<Vec<_>>())?;
        let mut losses = Vec::new();
        for _ in 0..20 {
            let loss = detection_loss(&network.forward(&pass, &pictures)?, &batch)?;
            params.backward(&loss.total)?;
            adam.step(&params, 3e-3);
            losses.push(loss.total.to_scalar::<f32>()?);
        }
        assert!(losses[19] < 0.6 * losses[0], "{losses:?}");

        let folder = tempfile::tempdir()?;
        let path = folder.path().join("trained.safetensors");
        save_weights(&params, "{}", &path)?;
        let tensors = candle_core::safetensors::load(&path, &Device::Cpu)?;
        let vb = VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu);
        let inference = Inference::load(Config::default(), &vb)?;
        let expected = inference.forward(&pictures)?.permute((0, 2, 3, 1))?; // [B, H/8, W/8, 5]
        let ours = network.forward(&Pass { params, is_training: false }, &pictures)?;
        let deviation = (&ours - &expected)?.abs()?.max_all()?.to_scalar::<f32>()?;
        let spread = (expected.max_all()? - expected.min_all()?)?.to_scalar::<f32>()?;
        // Some twenty layers with a relative error of 1e-6 each.
        assert!(deviation < 1e-4 * spread && spread > 0.5, "{deviation} of {spread}");
        Ok(())
    }
}
