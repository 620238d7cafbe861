//! The light detector to be trained: the network of [`nets::person_detector`](crate::nets::person_detector), what it
//! is to say ([`targets`]), how wrong it is ([`loss`]), pictures ([`pictures`]), and how all this is trained ([`task`]).

pub mod loss;
pub mod pictures;
pub mod targets;
pub mod task;

use candle_core::{Result, Tensor};

use super::layers::{Conv, ConvNorm, Norm, Pass};
use super::ops::to_planar;
use super::params::{ParamsBuilder, Start};
use super::resnet::Block;
use crate::nets::layers::{Activation, ConvShape};
use crate::nets::person_detector::{BLOCKS, OUTPUTS, STEM, WIDTHS};

/// The network.
pub struct PersonDetector {
    stem: [ConvNorm; 2],
    layers: [Vec<Block>; 3],
    up3: (Conv, Norm),
    lateral2: ConvNorm,
    up2: (Conv, Norm),
    lateral1: ConvNorm,
    head: ConvNorm,
    output: Conv,
}

impl PersonDetector {
    /// Under the names that the inference network reads.
    pub fn new(b: &mut ParamsBuilder) -> Self {
        let [c1, c2, c3] = WIDTHS;
        let stem = [ConvNorm::new(STEM[0], ["conv1", "bn1"], b), ConvNorm::new(STEM[1], ["conv2", "bn2"], b)];
        let mut layer = |stage: usize, input: usize| {
            let (mut b, width) = (b.pp(format!("layer{}", stage + 1)), WIDTHS[stage]);
            let block = |i| {
                let (input, stride) = if i == 0 { (input, 2) } else { (width, 1) };
                Block::new(input, width, stride, false, &mut b.pp(i))
            };
            (0..BLOCKS[stage]).map(block).collect()
        };
        let layers = [layer(0, STEM[1].output), layer(1, c1), layer(2, c2)];
        let mut conv = |shape, name: &str| ConvNorm::new(shape, ["0", "1"], &mut b.pp(name));
        let (lateral1, lateral2) =
            (conv(ConvShape::same(c1, c1, 1), "lateral1"), conv(ConvShape::same(c2, c2, 1), "lateral2"));
        let head = conv(ConvShape::same(c1, c1, 3), "head");
        let mut up = |input, output, name: &str| {
            let mut b = b.pp(name);
            (Conv::transposed(input, output, &mut b.pp(0)), Norm::new(output, &mut b.pp(1)))
        };
        let (up3, up2) = (up(c3, c2, "up3"), up(c2, c1, "up2"));
        let output = Conv::pointwise(c1, OUTPUTS, 4, Start::Normal(0.01), &mut b.pp("output"));
        Self { stem, layers, up3, lateral2, up2, lateral1, head, output }
    }

    /// What the cells say of pictures (see [`input`](crate::nets::person_detector::input)): `[B, H/8, W/8, 5]`.
    pub fn forward(&self, pass: &Pass, pictures: &Tensor) -> Result<Tensor> {
        let relu = |conv: &ConvNorm, x: &Tensor, plus: Option<&Tensor>| conv.forward(pass, x, plus, Activation::Relu);
        let stage =
            |blocks: &[Block], x: &Tensor| blocks.iter().try_fold(x.clone(), |x, block| block.forward(pass, &x));
        let up = |(conv, norm): &(Conv, Norm), x: &Tensor| {
            norm.forward(pass, &conv.forward(pass, x)?, None, Activation::Relu)
        };
        let [conv1, conv2] = &self.stem;
        let x = relu(conv2, &relu(conv1, &pass.image(pictures)?, None)?, None)?;
        let [layer1, layer2, layer3] = &self.layers;
        let x1 = stage(layer1, &x)?;
        let x2 = stage(layer2, &x1)?;
        let x3 = stage(layer3, &x2)?;
        let y2 = relu(&self.lateral2, &x2, Some(&up(&self.up3, &x3)?))?;
        let y1 = relu(&self.lateral1, &x1, Some(&up(&self.up2, &y2)?))?;
        let y = relu(&self.head, &y1, None)?;
        to_planar(&self.output.forward(pass, &y)?, OUTPUTS)?.permute((0, 2, 3, 1))
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
        let batch = Batch::new(&(0..4).map(|i| cells(&people(i), [12, 8])).collect::<Vec<_>>(), &Device::Cpu)?;
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
        let expected = inference.forward(&pictures)?.to_tensor()?.permute((0, 2, 3, 1))?; // [B, H/8, W/8, 5]
        let ours = network.forward(&Pass { params, is_training: false }, &pictures)?;
        let deviation = (&ours - &expected)?.abs()?.max_all()?.to_scalar::<f32>()?;
        let spread = (expected.max_all()? - expected.min_all()?)?.to_scalar::<f32>()?;
        // Some twenty layers with a relative error of 1e-6 each.
        assert!(deviation < 1e-4 * spread && spread > 0.5, "{deviation} of {spread}");
        Ok(())
    }
}
