//! The fast layers against their plain twins.

use std::collections::HashMap;

use candle_core::{Device, Var};
use candle_nn::VarMap;

use super::*;
use crate::nets::resnet::{Depth, Stages, Stem};

/// What `load` asks for, with random weights that keep the activations' size (He et al. 2015): the fast way, and the
/// plain twin, whose weights are variables.
fn load_both<T>(load: impl Fn(&VarBuilder) -> Result<T>) -> Result<[T; 2]> {
    let map = VarMap::new();
    load(&VarBuilder::from_varmap(&map, DType::F32, &Device::Cpu))?;
    let (mut fast, mut plain) = (HashMap::new(), HashMap::new());
    for (name, var) in map.data().lock().expect("nobody panicked with the lock").iter() {
        let fan_in: usize = var.dims().iter().skip(1).product();
        let random = if var.rank() > 1 {
            Tensor::randn(0_f32, (2.0 / fan_in as f32).sqrt(), var.dims(), &Device::Cpu)?
        } else {
            Tensor::rand(0.4_f32, 0.6, var.dims(), &Device::Cpu)?
        };
        plain.insert(name.clone(), Var::from_tensor(&random)?.into_inner());
        fast.insert(name.clone(), random);
    }
    let load = |tensors| load(&VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu));
    Ok([load(fast)?, load(plain)?])
}

fn deviation(fast: &Tensor, plain: &Tensor) -> Result<f32> {
    assert!(plain.track_op() && !fast.track_op(), "the plain way keeps the graph, the fast one has none");
    let greatest = plain.abs()?.max_all()?.to_scalar::<f32>()?;
    Ok((fast - plain)?.abs()?.max_all()?.to_scalar::<f32>()? / greatest)
}

#[test]
fn residual_networks_agree_both_ways() -> anyhow::Result<()> {
    for layers in [18, 50] {
        let depth = Depth::new(layers)?;
        let load = |vb: &VarBuilder| Ok((Stem::load(64, BN_EPS, vb)?, Stages::load(depth, BN_EPS, vb)?));
        let nets = load_both(load)?;
        for size in [[1, 3, 64, 64], [3, 3, 72, 50]] {
            let image = Tensor::rand(0_f32, 1.0, &size, &Device::Cpu)?;
            let [fast, plain] = &nets;
            let all = |(stem, stages): &(Stem, Stages)| -> Result<Vec<Tensor>> {
                stages.run_all(&stem.run(&image)?)?.iter().map(Features::to_tensor).collect()
            };
            let (all_fast, all_plain) = (all(fast)?, all(plain)?);
            for (fast, plain) in all_fast.iter().zip(&all_plain) {
                // 50 layers, each of which adds a relative error of some 1e-6.
                let deviation = deviation(fast, plain)?;
                assert!(deviation < 1e-4, "ResNet-{layers}: {deviation}");
            }
            let last = fast.1.run(&fast.0.run(&image)?)?.to_tensor()?;
            assert_eq!(last.flatten_all()?.to_vec1::<f32>()?, all_fast[3].flatten_all()?.to_vec1::<f32>()?);
        }
    }
    Ok(())
}

#[test]
fn deconvolutions_and_heads_agree_both_ways() -> Result<()> {
    // Maps so large that the last of the three layers goes by Winograd, the others directly.
    let side = 6;
    let [fast, plain] = load_both(|vb| {
        let norm = FoldedNorm::load(40, BN_EPS, &vb.pp("norm"))?;
        let head = Pointwise1d::load(256, 40, Some(norm), Activation::Relu, &vb.pp("head"))?;
        Ok((DeconvStack::load([96, 256], side, &vb.pp("deconv"))?, head))
    })?;
    let x = Tensor::rand(0_f32, 1.0, (2, 96, side, side - 1), &Device::Cpu)?;
    for axis in [0, 1] {
        let run = |(stack, head): &(DeconvStack, Pointwise1d)| {
            head.forward(&stack.run(&Features::new(&x)?)?.line_means()?[axis])?.to_tensor()
        };
        let deviation = deviation(&run(&fast)?, &run(&plain)?)?;
        assert!(deviation < 1e-5, "{deviation}");
    }
    Ok(())
}

#[test]
fn linear_maps_agree_both_ways() -> Result<()> {
    // One pass, and several with a rest.
    for (input, output, count) in [(20, 5, 3), (1300, 70, 33), (512, 48, 1)] {
        for activation in [Activation::None, Activation::Relu] {
            let [fast, plain] = load_both(|vb| Linear::load(input, output, None, activation, vb))?;
            let x = Tensor::rand(-1_f32, 1.0, (count, input), &Device::Cpu)?;
            let deviation = deviation(&fast.forward(&x)?.to_tensor()?, &plain.forward(&x)?.to_tensor()?)?;
            assert!(deviation < 1e-5, "{input} -> {output}: {deviation}");
        }
    }
    Ok(())
}

#[test]
fn weights_that_are_trained_take_the_plain_way() -> Result<()> {
    let load = |vb: &VarBuilder| {
        let shape = ConvShape::same(16, 16, 3);
        Conv2d::load(shape, true, None, Activation::Relu, vb)
    };
    let map = VarMap::new();
    let conv = load(&VarBuilder::from_varmap(&map, DType::F32, &Device::Cpu))?;
    let x = Tensor::rand(0_f32, 1.0, (1, 16, 8, 8), &Device::Cpu)?;
    let y = conv.run(&Features::new(&x)?, None)?.to_tensor()?;
    assert!(y.sum_all()?.backward()?.get(&map.all_vars()[0]).is_some(), "the gradient reaches the weights");
    Ok(())
}

#[test]
fn wrong_channels_are_an_error() -> Result<()> {
    let [conv, _] = load_both(|vb| Conv2d::load(ConvShape::same(16, 4, 3), true, None, Activation::None, vb))?;
    let x = Tensor::zeros((1, 17, 8, 8), DType::F32, &Device::Cpu)?;
    assert!(conv.forward(&x).unwrap_err().to_string().contains("expected 16 channels, got 17"));
    Ok(())
}

#[test]
fn packed_weights_say_that_they_carry_no_gradient() -> Result<()> {
    let [conv, _] = load_both(|vb| Conv2d::load(ConvShape::same(16, 4, 3), true, None, Activation::None, vb))?;
    let x = Var::zeros((1, 16, 8, 8), DType::F32, &Device::Cpu)?;
    assert!(conv.forward(&x).unwrap_err().to_string().contains("load them as variables"));
    Ok(())
}
