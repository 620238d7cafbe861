//! A batch of people says what the people say alone, in every network; and the small models of `support` can be
//! written and read.

use anyhow::Result;
use candle_core::{Device, Tensor};
use candle_nn::VarBuilder;

use lixelscope::lixel::Lixels;
use lixelscope::nets::i2l::{I2l, I2lShape};
use lixelscope::nets::posenet3d::{MUCO, PoseNet3d};
use lixelscope::nets::rootnet::RootNet;

use crate::compare::numbers;
use crate::support::{self, models};

const PEOPLE: usize = 3;

fn patches() -> Result<Tensor> {
    support::fill("patches", 127.5, 127.5, &[PEOPLE, 3, models::INPUT, models::INPUT], &support::device()?)
}

fn weights(load: impl Fn(&VarBuilder) -> candle_core::Result<()>) -> Result<VarBuilder<'static>> {
    let device = support::device()?;
    let tensors = models::formula_weights(load)?;
    let tensors = tensors.into_iter().map(|(name, tensor)| Ok((name, tensor.to_device(&device)?)));
    Ok(VarBuilder::from_tensors(tensors.collect::<Result<_>>()?, candle_core::DType::F32, &device))
}

/// Compares the batch with each person alone; `answers` gives what is compared.
fn assert_batch_is_people<const N: usize>(answers: impl Fn(&Tensor) -> Result<[Tensor; N]>) -> Result<()> {
    let patches = patches()?;
    let batch = answers(&patches)?;
    let mut differs = false;
    for person in 0..PEOPLE {
        for (all, alone) in batch.iter().zip(answers(&patches.narrow(0, person, 1)?)?) {
            let (all, alone) = (numbers(&all.get(person)?)?, numbers(&alone)?);
            let apart = all.iter().zip(&alone).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            // Other sizes of matrices are summed in another order: a few f32 digits of values up to 16.
            assert!(apart < 1e-3 && all.len() == alone.len(), "person {person} is {apart} off");
            let first = numbers(&batch[0].get(0)?)?;
            differs |= person > 0 && numbers(&batch[0].get(person)?)? != first;
        }
    }
    assert!(differs, "the people are all alike, so the test says nothing");
    Ok(())
}

fn told(lixels: &Lixels) -> Result<[Tensor; 2]> {
    Ok([lixels.coords.to_tensor()?, lixels.spread.to_tensor()?])
}

#[test]
fn people_of_a_batch_do_not_mix() -> Result<()> {
    let sizes = models::sizes();

    let shape = I2lShape { vertices: 50, ..models::BODY };
    let network = I2l::load(sizes, shape, &weights(|vb| I2l::load(sizes, shape, vb).map(drop))?)?;
    let regressor = support::joint_regressor(shape.joints, shape.vertices, &support::device()?)?;
    assert_batch_is_people(|patches| {
        let output = network.forward(patches)?;
        let params = network.params(&output.vertices, &regressor)?.expect("the weights have a second stage");
        let shapes: Vec<f32> = params.iter().flat_map(|p| p.shape.clone()).collect();
        let shapes = Tensor::from_vec(shapes, (params.len(), 10), &Device::Cpu)?;
        let ([a, b], [c, d]) = (told(&output.vertices)?, told(&output.joints)?);
        Ok([a, b, c, d, shapes])
    })?;
    assert!(network.forward(&patches()?.narrow(2, 0, 32)?).is_err(), "patches of another size are refused");

    let network = RootNet::load(sizes, &weights(|vb| RootNet::load(sizes, vb).map(drop))?)?;
    assert_batch_is_people(|patches| {
        let output = network.forward(patches)?;
        Ok([output.coords.to_tensor()?, output.gamma])
    })?;

    let joints = models::SKELETON_JOINTS;
    let network = PoseNet3d::load(sizes, joints, &weights(|vb| PoseNet3d::load(sizes, joints, vb).map(drop))?)?;
    assert_batch_is_people(|patches| told(&network.forward(patches)?))?;
    assert_batch_is_people(|patches| told(&network.forward_flip_averaged(patches, &MUCO)?))
}

#[test]
fn small_models_are_written_as_they_are_read() -> Result<()> {
    let folder = tempfile::tempdir()?;
    models::write_rootnet(folder.path())?;
    let tensors = candle_core::safetensors::load(folder.path().join("rootnet.safetensors"), &Device::Cpu)?;
    let network =
        RootNet::load(models::sizes(), &VarBuilder::from_tensors(tensors, candle_core::DType::F32, &Device::Cpu))?;
    let roots = network.forward(&patches()?.to_device(&Device::Cpu)?)?.roots()?;
    for root in roots {
        let bins = 0.0..models::HEATMAP as f32;
        assert!(bins.contains(&root.lixel.x) && bins.contains(&root.lixel.y), "{root:?}");
        assert!((0.5..2.0).contains(&root.gamma), "{root:?}");
    }
    Ok(())
}
