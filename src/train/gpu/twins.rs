//! Operations on planes, their kernels on the processor, against the processor's own operations on blocks.

use std::sync::Arc;

use candle_core::{Device, Result, Tensor, Var};

use super::host;
use super::kernels::PROGRAM;
use super::resident::ResidentAdam;
use crate::nets::cuda::nvrtc::assert_compile_everywhere;
use crate::nets::cuda::source::assert_nothing_is_overlooked;
use crate::nets::layers::{Activation, ConvShape};
use crate::train::layers::{Conv, DeconvStack, Norm, Pass};
use crate::train::ops::{axis_means, heatmap_cross_entropy, max_pool, soft_argmax, to_planar, volume_soft_argmax};
use crate::train::optimizer::Adam;
use crate::train::params::{Params, ParamsBuilder, Random, Start};

/// Between `-scale` and `scale`.
pub fn random(seed: u64, dims: &[usize], scale: f32) -> Tensor {
    let random = &mut Random::new(seed);
    let values = (0..dims.iter().product()).map(|_| scale * (2.0 * random.uniform() - 1.0) as f32).collect::<Vec<_>>();
    Tensor::from_vec(values, dims, &Device::Cpu).expect("as many numbers as the shape wants")
}

/// `tolerance` of the greatest.
#[track_caller]
pub fn assert_near(actual: &Tensor, expected: &Tensor, tolerance: f32, what: &str) {
    assert_eq!(actual.dims(), expected.dims(), "{what}");
    let floats = |t: &Tensor| -> Vec<f32> { t.flatten_all().and_then(|t| t.to_vec1()).expect("f32 on the CPU") };
    assert_floats_near(&floats(actual), &floats(expected), tolerance, what);
}

#[track_caller]
pub fn assert_floats_near(actual: &[f32], expected: &[f32], tolerance: f32, what: &str) {
    let greatest = expected.iter().fold(0.0_f32, |m, x| m.max(x.abs()));
    assert!(greatest > 0.0, "{what}: nothing but zeros is compared");
    assert_eq!(actual.len(), expected.len(), "{what}");
    for (i, (a, e)) in actual.iter().zip(expected).enumerate() {
        assert!((a - e).abs() <= tolerance * greatest, "{what}: {a} instead of {e} at {i}, greatest {greatest}");
    }
}

/// `[B, C, H, W]` as activations, with zeros in the place of missing channels.
fn blocks(pass: &Pass, x: &Tensor) -> Result<Tensor> {
    let channels = x.dim(1)?;
    pass.blocks(&x.pad_with_zeros(1, 0, channels.next_multiple_of(pass.lanes()) - channels)?)
}

/// What a network says and what it learns.
struct Learnt {
    output: Tensor,
    inputs: Vec<Tensor>,
    gradients: Vec<f32>,
    values: Vec<f32>,
}

/// Gradients of a random loss of what `run` makes of inputs.
fn learn(pass: &Pass, inputs: &[Tensor], run: &dyn Fn(&Pass, &[Tensor]) -> Result<Tensor>) -> Result<Learnt> {
    let vars = inputs.iter().map(Var::from_tensor).collect::<Result<Vec<_>>>()?;
    let tensors: Vec<Tensor> = vars.iter().map(|var| var.as_tensor().clone()).collect();
    let output = run(pass, &tensors)?;
    let found = pass.params.backward(&(&output * random(9, output.dims(), 1.0))?.sum_all()?)?;
    let inputs = vars.iter().filter_map(|var| found.get(var).cloned()).collect();
    let [gradients, values] = match pass.params.resident() {
        Ok(resident) => [resident.gradients()?, resident.values()?],
        Err(_) => [pass.params.gradients().clone(), pass.params.values().clone()],
    };
    Ok(Learnt { output: output.detach(), inputs, gradients, values })
}

/// Both ways to run a network agree, forward and backward.
#[track_caller]
fn assert_twins<N>(
    what: &str,
    build: impl FnOnce(&mut ParamsBuilder) -> N,
    inputs: &[Tensor],
    run: impl Fn(&N, &Pass, &[Tensor]) -> Result<Tensor>,
    tolerance: f32,
) -> Result<()> {
    let (params, network) = Params::build(7, build);
    let there = params.replica_on(host::machine())?;
    let [here, there] = [params, there].map(|params| Pass { params: Arc::new(params), is_training: true });
    let run = |pass: &Pass, inputs: &[Tensor]| run(&network, pass, inputs);
    let (expected, found) = (learn(&here, inputs, &run)?, learn(&there, inputs, &run)?);
    assert_near(&found.output, &expected.output, tolerance, what);
    assert_eq!(found.inputs.len(), expected.inputs.len(), "{what}: gradients of inputs");
    for (found, expected) in found.inputs.iter().zip(&expected.inputs) {
        assert_near(found, expected, tolerance, &format!("{what}: gradient of an input"));
    }
    if !expected.values.is_empty() {
        assert_floats_near(&found.gradients, &expected.gradients, tolerance, &format!("{what}: gradients"));
        assert_floats_near(&found.values, &expected.values, tolerance, &format!("{what}: values"));
    }
    // And the network that does not train.
    let still = |pass: &Pass| run(&Pass { is_training: false, ..pass.clone() }, inputs);
    assert_near(&still(&there)?, &still(&here)?, tolerance, &format!("{what}: evaluation"));
    Ok(())
}

#[test]
fn signatures_of_training_are_read_from_the_text() {
    assert_nothing_is_overlooked(PROGRAM);
}

#[test]
fn every_kernel_compiles_for_every_gpu() -> anyhow::Result<()> {
    assert_compile_everywhere(&[PROGRAM])
}

#[test]
fn convolutions() -> Result<()> {
    // Input, output, kernel, stride, padding; sides.
    let shapes = [
        ([20, 17, 3, 1, 1], [5, 6]),
        ([16, 33, 3, 2, 1], [6, 7]),
        ([24, 16, 1, 2, 0], [5, 5]),
        ([3, 18, 7, 2, 3], [9, 12]),
    ];
    for ([input, output, kernel, stride, padding], [h, w]) in shapes {
        let shape = ConvShape { input, output, kernel, stride, padding };
        let x = random(1, &[2, input, h, w], 1.0);
        let run = |conv: &Conv, pass: &Pass, x: &[Tensor]| {
            let x = if input <= 8 { x[0].clone() } else { blocks(pass, &x[0])? };
            to_planar(&conv.forward(pass, &x)?, output)
        };
        // Winograd's transforms cost the processor a digit.
        assert_twins(&format!("{shape:?}"), |b| Conv::new(shape, b), &[x], run, 1e-4)?;
    }
    let shape = ConvShape::same(16, 19, 3);
    let x = [random(2, &[2, 16, 5, 5], 1.0)];
    let run = |conv: &Conv, pass: &Pass, x: &[Tensor]| to_planar(&conv.forward(pass, &blocks(pass, &x[0])?)?, 19);
    assert_twins("part of the weights", |b| Conv::with_more_inputs(shape, 7, b), &x, run, 1e-4)?;
    let start = Start::Normal(0.3);
    let linear = |b: &mut ParamsBuilder| Conv::biased(16, 19, 2, [start, start], b);
    assert_twins("linear", linear, &x, run, 1e-4)?;
    let run =
        |stack: &DeconvStack, pass: &Pass, x: &[Tensor]| to_planar(&stack.forward(pass, &blocks(pass, &x[0])?)?, 16);
    assert_twins("transposed", |b| DeconvStack::of(2, 16, 16, b), &[random(3, &[2, 16, 3, 4], 1.0)], run, 1e-3)
}

#[test]
fn norms() -> Result<()> {
    for (round, dims) in [[3, 18, 4, 5], [2, 40, 7, 6], [5, 33, 1, 1], [40, 9, 2, 2]].into_iter().enumerate() {
        let channels = dims[1];
        let build = |b: &mut ParamsBuilder| {
            let start = Start::Normal(0.5);
            // A first layer, so that the norm's input is not normal already.
            (
                Conv::biased(channels, channels, 2, [start, start], &mut b.pp("conv")),
                Norm::new(channels, &mut b.pp("norm")),
            )
        };
        let inputs: Vec<_> = (0..=round as u64 % 2).map(|seed| random(seed, &dims, 3.0)).collect();
        let then = if round < 2 { Activation::Relu } else { Activation::None };
        let run = |(conv, norm): &(Conv, Norm), pass: &Pass, x: &[Tensor]| {
            let residual = x.get(1).map(|x| blocks(pass, x)).transpose()?;
            let y = conv.forward(pass, &blocks(pass, &x[0])?)?;
            to_planar(&norm.forward(pass, &y, residual.as_ref(), then)?, channels)
        };
        // A division by a standard deviation, and differences of sums.
        assert_twins(&format!("{dims:?}"), build, &inputs, run, 2e-4)?;
    }
    Ok(())
}

#[test]
fn pools_and_lines() -> Result<()> {
    let nothing = |_: &mut ParamsBuilder| ();
    // Whole numbers, so that many are equal.
    let x = random(4, &[2, 32, 7, 8], 3.0).round()?;
    let run = |(): &(), pass: &Pass, x: &[Tensor]| to_planar(&max_pool(&blocks(pass, &x[0])?)?, 32);
    assert_twins("max-pool", nothing, &[x], run, 1e-6)?;
    let x = random(5, &[2, 32, 6, 6], 3.0);
    let run = |(): &(), pass: &Pass, x: &[Tensor]| {
        let lines = axis_means(&blocks(pass, &x[0])?)?;
        let planar = |i: usize| to_planar(&lines.get(i)?.unsqueeze(2)?, 32);
        Tensor::stack(&[planar(0)?, planar(1)?], 0)
    };
    assert_twins("axis means", nothing, &[x], run, 1e-5)
}

#[test]
fn heatmaps() -> Result<()> {
    let nothing = |_: &mut ParamsBuilder| ();
    for bins in [16, 13, 40] {
        let logits = random(6, &[3, 16, 1, bins], 6.0);
        let run = |(): &(), pass: &Pass, x: &[Tensor]| soft_argmax(&blocks(pass, &x[0])?);
        // Sums of probabilities times bins.
        assert_twins("soft-argmax", nothing, std::slice::from_ref(&logits), run, 1e-5)?;
        // Some of them outside, one at each end.
        let targets = (random(8, &[3, 16], bins as f32 * 0.6) + bins as f64 / 2.0)?;
        let ends = Tensor::new(&[[0.0_f32], [(bins - 1) as f32], [-0.5]], &Device::Cpu)?;
        let targets = Tensor::cat(&[&targets.narrow(1, 0, 15)?, &ends], 1)?;
        let run =
            |(): &(), pass: &Pass, x: &[Tensor]| heatmap_cross_entropy(&blocks(pass, &x[0])?, &targets)?.reshape(1);
        assert_twins("cross-entropy", nothing, &[logits], run, 1e-5)?;
    }
    let volumes = random(6, &[2, 32, 16, 16], 4.0);
    let run = |(): &(), pass: &Pass, x: &[Tensor]| volume_soft_argmax(&blocks(pass, &x[0])?);
    assert_twins("volumes", nothing, &[volumes], run, 1e-4)
}

#[test]
fn the_optimisers_step() -> Result<()> {
    let build = || {
        Params::build(3, |b| [("a", 70), ("b", 1), ("c", 300)].map(|(name, n)| b.add(name, &[n], Start::Normal(1.0))))
    };
    let (params, ids) = build();
    let mut adam = Adam::new(&params);
    let there = params.replica_on(host::machine())?;
    let there = there.resident()?;
    let mut there_adam = ResidentAdam::new(there, &adam)?;
    for step in 0..4 {
        // Too long at first, short then; the optimiser begins anew from the processor's state halfway.
        let scale = if step < 2 { 3.0 } else { 0.2 };
        for (i, id) in ids.into_iter().enumerate() {
            let gradient = random(20 + 3 * step + i as u64, params.shape(id), scale);
            there.add_gradient(id, &gradient)?;
            params.gradients_mut()[params.range(id)].copy_from_slice(&gradient.to_vec1::<f32>()?);
        }
        let length = params.gradients().iter().map(|g| g * g).sum::<f32>().sqrt();
        let longest = 10.0;
        assert_eq!(length > longest, step < 2, "{length}");
        params.gradients_mut().iter_mut().for_each(|g| *g *= (longest / length).min(1.0));
        adam.step(&params, 1e-2);
        there_adam.step(there, step, 1e-2, f64::from(longest))?;
        let mut fetched = Adam::new(&params);
        there_adam.fetch(there, &mut fetched)?;
        // The sum of the squares is added up in another order.
        for (found, expected) in
            [(&there.values()?, &*params.values()), (&fetched.mean, &adam.mean), (&fetched.square, &adam.square)]
        {
            assert_floats_near(found, expected, 1e-6, "a step");
        }
        assert!(there.gradients()?.iter().all(|g| *g == 0.0), "the next step begins without gradients");
        if step == 1 {
            there_adam = ResidentAdam::new(there, &fetched)?;
        }
    }
    assert!(there_adam.is_sound(there)?);
    let before = there.values()?;
    for trouble in [f32::NAN, 1.0] {
        there.add_gradient(ids[1], &Tensor::new(&[trouble], &Device::Cpu)?)?;
        there_adam.step(there, 4, 1e-2, 10.0)?;
        assert!(!there_adam.is_sound(there)? && there.values()? == before, "nothing changes any more");
    }
    Ok(())
}
