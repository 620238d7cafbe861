//! Whole networks, one step: on the processor, and with a GPU's kernels and layout on the processor. What is compared
//! went through every operation, forward and backward, through candle's graph and through the parameters' two arrays.

use std::sync::Arc;

use anyhow::Result;
use candle_core::{DType, Device, Tensor};

use super::host;
use super::twins::{assert_floats_near, random};
use crate::nets::NetSizes;
use crate::nets::i2l::ParamShape;
use crate::train::i2l::{I2l, LixelOutput};
use crate::train::layers::Pass;
use crate::train::losses::coordinate_loss;
use crate::train::ops::heatmap_cross_entropy;
use crate::train::params::{Params, ParamsBuilder};
use crate::train::person_detector::PersonDetector;
use crate::train::person_detector::loss::{Batch, detection_loss};
use crate::train::person_detector::targets::{Target, cells};
use crate::train::posenet3d::PoseNet3d;
use crate::train::regressor::ParamRegressor;
use crate::train::rootnet::RootNet;

/// Loss and gradients of a network agree, parameter by parameter.
fn assert_same_step<N>(
    what: &str,
    build: impl FnOnce(&mut ParamsBuilder) -> N,
    loss: impl Fn(&N, &Pass) -> Result<Tensor>,
) -> Result<()> {
    let (params, network) = Params::build(11, build);
    let there = params.replica_on(host::machine())?;
    let [here, there] = [params, there].map(|params| Pass { params: Arc::new(params), is_training: true });
    let mut losses = Vec::new();
    for pass in [&here, &there] {
        let loss = loss(&network, pass)?;
        pass.params.backward(&loss)?;
        losses.push(loss.to_scalar::<f32>()?);
    }
    assert!((losses[1] / losses[0] - 1.0).abs() < 1e-4, "{what}: {losses:?}");
    let (expected, found) = (here.params.gradients().clone(), there.params.resident()?.gradients()?);
    // All gradients are of one order of magnitude but for a few: an error is held against those of its own parameter
    // and a little of all. Errors of some twenty layers' activations move gradients by 1e-3, and where one crosses a
    // ReLU's 0, by more.
    let length = |of: &[f32]| of.iter().map(|g| f64::from(*g) * f64::from(*g)).sum::<f64>().sqrt();
    let (all, mut start) = (length(&expected), 0);
    for (name, shape) in here.params.names() {
        let end = start + shape.iter().product::<usize>();
        let (expected, found) = (&expected[start..end], &found[start..end]);
        let off: Vec<f32> = expected.iter().zip(found).map(|(a, b)| a - b).collect();
        let limit = 0.01 * length(expected) + 1e-4 * all;
        assert!(length(&off) <= limit, "{what}: {name} {} {} {all}", length(&off), length(expected));
        start = end;
    }
    assert_floats_near(&there.params.resident()?.values()?, &here.params.values(), 1e-4, "running statistics");
    Ok(())
}

fn sizes() -> Result<NetSizes> {
    Ok(NetSizes::new(18, 64, 16)?.with_widths(16, 16))
}

fn patches(count: usize) -> Result<Tensor> {
    Ok((random(31, &[count, 3, 64, 64], 127.0) + 128.0)?)
}

#[test]
fn i2l_meshnet_learns_the_same() -> Result<()> {
    let (joints, vertices, people) = (5, 23, 3);
    let targets = [joints, vertices].map(|count| (random(32, &[people, count, 3], 7.0) + 8.0).expect("a sum"));
    let is_3d = Tensor::ones(people, DType::F32, &Device::Cpu)?;
    let loss = |out: &LixelOutput, target: &Tensor| -> Result<Tensor> {
        let valid = target.narrow(2, 0, 1)?.ones_like()?;
        let mut loss = coordinate_loss(&out.coords, target, &valid, &is_3d)?;
        for (axis, logits) in out.blocked_logits().into_iter().flatten().enumerate() {
            loss = (loss + heatmap_cross_entropy(logits, &target.narrow(2, axis, 1)?.squeeze(2)?)?)?;
        }
        assert_eq!(out.logits()?[2].dims(), [people, target.dim(1)?, 16]);
        Ok(loss)
    };
    let sizes = sizes()?;
    assert_same_step(
        "I2L-MeshNet",
        |b| I2l::new(&sizes, joints, vertices, b),
        |network, pass| {
            let out = network.forward(pass, &patches(people)?)?;
            Ok((loss(&out.joints, &targets[0])? + loss(&out.vertices, &targets[1])?)?)
        },
    )
}

#[test]
fn rootnet_learns_the_same() -> Result<()> {
    let sizes = sizes()?;
    assert_same_step(
        "RootNet",
        |b| RootNet::new(&sizes, b),
        |network, pass| {
            let out = network.forward(pass, &patches(3)?)?;
            let coords = (out.coords - (random(33, &[3, 2], 5.0) + 8.0)?)?.abs()?.mean_all()?;
            Ok((coords + (out.gamma - 1.0)?.abs()?.mean_all()?)?)
        },
    )
}

#[test]
fn posenet_learns_the_same() -> Result<()> {
    let sizes = sizes()?;
    assert_same_step(
        "3D PoseNet",
        |b| PoseNet3d::new(&sizes, 2, b),
        |network, pass| {
            let target = (random(34, &[3, 2, 3], 5.0) + 8.0)?;
            Ok((network.forward(pass, &patches(3)?)? - target)?.abs()?.mean_all()?)
        },
    )
}

#[test]
fn the_detector_learns_the_same() -> Result<()> {
    let people = |x: f32| cells(&[Target { corners: [x, 4.0, x + 24.0, 60.0], counts: true }], [12, 8]);
    let batch = Batch::new(&[people(5.0), people(60.0)], &Device::Cpu)?;
    let pictures = random(35, &[2, 3, 64, 96], 2.0);
    assert_same_step("the detector", PersonDetector::new, |network, pass| {
        Ok(detection_loss(&network.forward(pass, &pictures)?, &batch)?.total)
    })
}

#[test]
fn the_second_stage_learns_the_same() -> Result<()> {
    let numbers = ParamShape { rotations: 3, shape: 2 };
    let joints = (random(36, &[6, 7, 3], 15.0) + 16.0)?;
    let target = random(37, &[6, 3, 3, 3], 1.0);
    assert_same_step(
        "the second stage",
        |b| ParamRegressor::new(7, numbers, b),
        |network, pass| {
            let out = network.forward(pass, &joints)?;
            let shape = (out.shape - 1.5)?.abs()?.mean_all()?;
            Ok(((out.rotations - &target)?.abs()?.mean_all()? + shape)?)
        },
    )
}
