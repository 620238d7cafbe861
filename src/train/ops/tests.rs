//! The operations against candle's own, whose autograd gives the gradients, on random shapes. Where candle has no
//! gradient (max-pooling) or the operation is ours alone (soft-argmax), against finite differences.
//!
//! Tolerances: sums of some hundred products of numbers within +-1 in another order differ by 1e-5 of the greatest
//! result; Winograd's transforms and the division by a small standard deviation cost a digit more.

use std::sync::Arc;

use candle_core::{D, Device, Result, Tensor, Var};

use super::*;
use crate::nets::layers::BN_EPS;
use crate::train::params::{ParamId, Params, Random, Start};

const TOLERANCE: f32 = 1e-4;

/// From `low` to `high`, both included.
fn size(random: &mut Random, low: usize, high: usize) -> usize {
    (low + (random.uniform() * (high - low + 1) as f64) as usize).min(high)
}

fn tensor(random: &mut Random, shape: &[usize]) -> Result<Tensor> {
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| (2.0 * random.uniform() - 1.0) as f32).collect();
    Tensor::from_vec(values, shape, &Device::Cpu)
}

/// With zeros in the place of missing channels.
fn blocked(x: &Tensor) -> Result<Tensor> {
    let channels = x.dim(1)?;
    to_blocked(&x.pad_with_zeros(1, 0, channels.next_multiple_of(LANES) - channels)?)
}

#[track_caller]
fn assert_near(actual: &Tensor, expected: &Tensor, what: &str) {
    assert_eq!(actual.dims(), expected.dims(), "{what}");
    let floats = |t: &Tensor| -> Vec<f32> { t.flatten_all().and_then(|t| t.to_vec1()).expect("f32 on the CPU") };
    let (actual, expected) = (floats(actual), floats(expected));
    let greatest = expected.iter().fold(1.0_f32, |m, x| m.max(x.abs()));
    for (i, (a, e)) in actual.iter().zip(&expected).enumerate() {
        assert!((a - e).abs() <= TOLERANCE * greatest, "{what}: {a} instead of {e} at {i}, greatest {greatest}");
    }
}

fn gradient_of(params: &Params, id: ParamId) -> Result<Tensor> {
    Tensor::from_slice(&params.gradients()[params.range(id)], params.shape(id), &Device::Cpu)
}

/// A convolution of our own and candle's, with the same random loss.
fn check_conv(op: impl Fn(Arc<Params>) -> ConvOp, params: Params, x: &Tensor, random: &mut Random) -> Result<()> {
    let params = Arc::new(params);
    let op = op(params.clone());
    let what = format!("{:?} {:?} of {:?}, stride {}", op.direction, x.dims(), params.shape(op.weight), op.stride);
    let (var, weight) = (Var::from_tensor(x)?, Var::from_tensor(&params.tensor(op.weight)?)?);
    let is_image = x.dim(1)? <= 8;
    let input = if is_image { var.as_tensor().clone() } else { blocked(&var)? };
    let ours = to_planar(&input.apply_op1(op.clone())?, op.output)?;

    let other = Var::from_tensor(x)?;
    let plain = match op.direction {
        Direction::Conv => other.conv2d(&weight.narrow(1, 0, op.input)?, op.padding, op.stride, 1, 1)?,
        Direction::Transposed => other.conv_transpose2d(&weight, op.padding, 0, op.stride, 1)?,
    };
    let bias = op.bias.map(|bias| Var::from_tensor(&params.tensor(bias)?)).transpose()?;
    let plain = match &bias {
        Some(bias) => plain.broadcast_add(&bias.reshape((1, op.output, 1, 1))?)?,
        None => plain,
    };
    assert_near(&ours, &plain, &what);

    let slope = tensor(random, plain.dims())?;
    let found = params.backward(&(ours * &slope)?.sum_all()?)?;
    let expected = (plain * &slope)?.sum_all()?.backward()?;
    assert_near(
        &gradient_of(&params, op.weight)?,
        expected.get(&weight).expect("weights"),
        &format!("{what}: weights"),
    );
    if let (Some(id), Some(bias)) = (op.bias, &bias) {
        assert_near(&gradient_of(&params, id)?, expected.get(bias).expect("bias"), &format!("{what}: bias"));
    }
    if !is_image {
        let (found, expected) = (found.get(&var).expect("input"), expected.get(&other).expect("input"));
        assert_near(found, expected, &format!("{what}: input"));
    }
    Ok(())
}

#[test]
fn convolutions_have_candles_gradients() -> Result<()> {
    let random = &mut Random::new(1);
    // Kernel, stride, padding; image or channels; sides that Winograd takes, and all that random finds.
    let fixed = [([3, 1, 1], 40, [2, 24, 23]), ([7, 2, 3], 3, [2, 26, 24]), ([1, 2, 0], 20, [2, 7, 9])];
    for round in 0..30 {
        let ([kernel, stride, padding], input, [batch, h, w]) = fixed.get(round).copied().unwrap_or_else(|| {
            let kernel = size(random, 1, 5);
            let image = size(random, 0, 4) == 0;
            let channels = if image { size(random, 1, 8) } else { size(random, 9, 50) };
            let (stride, h) = (size(random, 1, 3), kernel + size(random, 0, 9));
            // Candle has the gradient only where both sides leave the same remainder; the slope test has others.
            let sides = [size(random, 1, 3), h, h + stride * size(random, 0, 3)];
            ([kernel, stride, size(random, 0, kernel - 1)], channels, sides)
        });
        let output = size(random, 1, 60);
        let unused = if round % 4 == 3 { 5 } else { 0 };
        let (params, (weight, bias)) = Params::build(round as u64, |b| {
            let weight = b.add("weight", &[output, input + unused, kernel, kernel], Start::Normal(0.3));
            (weight, (round % 2 == 0).then(|| b.add("bias", &[output], Start::Normal(1.0))))
        });
        let op = |params| ConvOp { params, weight, bias, input, output, stride, padding, direction: Direction::Conv };
        let x = tensor(random, &[batch, input, h, w])?;
        check_conv(op, params, &x, random)?;
    }
    Ok(())
}

#[test]
fn transposed_convolutions_have_candles_gradients() -> Result<()> {
    let random = &mut Random::new(2);
    for round in 0..6 {
        // The first is large enough for Winograd.
        let sides = if round == 0 { [2, 23, 24] } else { [size(random, 1, 3), size(random, 1, 9), size(random, 1, 9)] };
        let (input, output) = (size(random, 9, 50), size(random, 9, 50));
        let (params, weight) = Params::build(round, |b| b.add("weight", &[input, output, 4, 4], Start::Normal(0.3)));
        let op = |params| {
            let (stride, padding, direction) = (2, 1, Direction::Transposed);
            ConvOp { params, weight, bias: None, input, output, stride, padding, direction }
        };
        let x = tensor(random, &[sides[0], input, sides[1], sides[2]])?;
        check_conv(op, params, &x, random)?;
    }
    Ok(())
}

#[test]
fn batch_norm_has_candles_gradients_and_torchs_running_statistics() -> Result<()> {
    let random = &mut Random::new(3);
    for round in 0..8 {
        let (batch, channels) = (size(random, 2, 4), size(random, 9, 40));
        let (h, w) = (size(random, 1, 9), size(random, 1, 9));
        let (params, [weight, bias, running_mean, running_var]) = Params::build(round, |b| {
            let mut add = |name, start| b.add(name, &[channels], start);
            let affine = [add("weight", Start::Normal(1.0)), add("bias", Start::Normal(1.0))];
            [affine[0], affine[1], add("running_mean", Start::Constant(0.5)), add("running_var", Start::Constant(1.0))]
        });
        let params = Arc::new(params);
        let relu = round % 2 == 0;
        let op = NormOp { params: params.clone(), channels, weight, bias, running_mean, running_var, relu };
        let x = ((tensor(random, &[batch, channels, h, w])? * 3.0)? + 2.0)?;
        let residual = (round % 4 < 2).then(|| tensor(random, &[batch, channels, h, w])).transpose()?;
        let variable = |x: &Tensor| Var::from_tensor(x);

        let (x1, r1) = (variable(&x)?, residual.as_ref().map(variable).transpose()?);
        let blocked_residual = r1.as_ref().map(|r| blocked(r)).transpose()?;
        let ours = to_planar(&batch_norm(op.clone(), &blocked(&x1)?, blocked_residual.as_ref())?, channels)?;

        let (x2, r2) = (variable(&x)?, residual.as_ref().map(variable).transpose()?);
        let (gamma, beta) = (Var::from_tensor(&params.tensor(weight)?)?, Var::from_tensor(&params.tensor(bias)?)?);
        let columns = |x: &Tensor| x.transpose(0, 1)?.contiguous()?.flatten_from(1); // [C, B H W]
        let mean = columns(&x2)?.mean(1)?.reshape((1, channels, 1, 1))?;
        let centred = x2.broadcast_sub(&mean)?;
        let variance = columns(&centred)?.sqr()?.mean(1)?;
        let std = (&variance + BN_EPS)?.sqrt()?.reshape((1, channels, 1, 1))?;
        let each = |p: &Var| p.reshape((1, channels, 1, 1));
        let plain = centred.broadcast_div(&std)?.broadcast_mul(&each(&gamma)?)?.broadcast_add(&each(&beta)?)?;
        let plain = if let Some(r2) = &r2 { (plain + r2.as_tensor())? } else { plain };
        let plain = if relu { plain.relu()? } else { plain };
        assert_near(&ours, &plain, "batch norm");

        let slope = tensor(random, x.dims())?;
        let found = params.backward(&(ours * &slope)?.sum_all()?)?;
        let expected = (plain * &slope)?.sum_all()?.backward()?;
        assert_near(&gradient_of(&params, weight)?, expected.get(&gamma).expect("gamma"), "gamma");
        assert_near(&gradient_of(&params, bias)?, expected.get(&beta).expect("beta"), "beta");
        assert_near(found.get(&x1).expect("x"), expected.get(&x2).expect("x"), "input");
        if let (Some(r1), Some(r2)) = (&r1, &r2) {
            assert_near(found.get(r1).expect("residual"), expected.get(r2).expect("residual"), "residual");
        }

        let count = (batch * h * w) as f64;
        let mean = ((mean.flatten_all()?.detach() * 0.1)? + 0.9 * 0.5)?;
        assert_near(&params.tensor(running_mean)?, &mean, "running mean");
        let variance = ((variance.detach() * (0.1 * count / (count - 1.0)))? + 0.9)?;
        assert_near(&params.tensor(running_var)?, &variance, "running variance");
        let still = running_norm(&op, &blocked(&x)?, None)?;
        let mut folded = x.broadcast_sub(&mean.reshape((1, channels, 1, 1))?)?;
        folded = folded.broadcast_div(&(variance + BN_EPS)?.sqrt()?.reshape((1, channels, 1, 1))?)?;
        folded = folded.broadcast_mul(&each(&gamma)?)?.broadcast_add(&each(&beta)?)?;
        let folded = if relu { folded.relu()? } else { folded };
        assert_near(&to_planar(&still, channels)?, &folded, "evaluation");
    }
    Ok(())
}

/// The derivative of `loss` by each element of `x`, by central differences.
fn differences(x: &Tensor, step: f32, loss: impl Fn(&Tensor) -> Result<f32>) -> Result<Tensor> {
    let values: Vec<f32> = x.flatten_all()?.to_vec1()?;
    let mut slopes = Vec::new();
    for i in 0..values.len() {
        let at = |offset: f32| {
            let mut moved = values.clone();
            moved[i] += offset;
            loss(&Tensor::from_vec(moved, x.dims(), &Device::Cpu)?)
        };
        slopes.push((at(step)? - at(-step)?) / (2.0 * step));
    }
    Tensor::from_vec(slopes, x.dims(), &Device::Cpu)
}

#[test]
fn max_pooling_sends_gradients_to_the_greatest() -> Result<()> {
    let random = &mut Random::new(4);
    // All different by 0.25 or more, so that small steps change no winner and the loss is linear: exact but for
    // rounding. Powers of two and small integers: no rounding either.
    let mut values: Vec<f32> = (0..16 * 5 * 6).map(|i| (i * 7 % (16 * 5 * 6)) as f32 / 4.0).collect();
    values.reverse();
    let x = Tensor::from_vec(values, (1, 16, 5, 6), &Device::Cpu)?;
    let slope = (tensor(random, &[1, 16, 3, 3])? * 8.0)?.round()?;
    let loss = |x: &Tensor| (to_planar(&max_pool(&blocked(x)?)?, 16)? * &slope)?.sum_all();
    let var = Var::from_tensor(&x)?;
    let found = loss(&var)?.backward()?;
    let expected = differences(&x, 0.0625, |x| loss(x)?.to_scalar::<f32>())?;
    assert_near(found.get(&var).expect("input"), &expected, "max-pool");
    // Among equals, the first.
    let var = Var::from_tensor(&Tensor::ones((1, 16, 4, 4), candle_core::DType::F32, &Device::Cpu)?)?;
    let found = max_pool(&blocked(&var)?)?.sum_all()?.backward()?;
    let first: Vec<f32> = found.get(&var).expect("input").get(0)?.get(0)?.flatten_all()?.to_vec1()?;
    assert_eq!(first, [1., 1., 0., 0., 1., 1., 0., 0., 0., 0., 0., 0., 0., 0., 0., 0.]);
    Ok(())
}

#[test]
fn lines_and_soft_argmax_have_candles_gradients() -> Result<()> {
    let random = &mut Random::new(5);
    let x = (tensor(random, &[2, 32, 7, 7])? * 4.0)?;
    let slope = tensor(random, &[2, 2, 32])?;
    let (x1, x2) = (Var::from_tensor(&x)?, Var::from_tensor(&x)?);
    let lines = axis_means(&blocked(&x1)?)?;
    let ours: Vec<_> = (0..2).map(|i| soft_argmax(&lines.get(i)?.unsqueeze(2)?)).collect::<Result<_>>()?;
    let ours = Tensor::stack(&ours, 0)?;
    let plain = |line: Tensor| {
        let bins = Tensor::arange(0_f32, 7.0, &Device::Cpu)?;
        candle_nn::ops::softmax(&line, D::Minus1)?.broadcast_mul(&bins)?.sum(D::Minus1)
    };
    let plain = Tensor::stack(&[plain(x2.mean(2)?)?, plain(x2.mean(3)?)?], 0)?;
    assert_near(&ours, &plain, "lixels");
    let found = (ours * &slope)?.sum_all()?.backward()?;
    let expected = (plain * &slope)?.sum_all()?.backward()?;
    assert_near(found.get(&x1).expect("x"), expected.get(&x2).expect("x"), "gradient of lixels");
    Ok(())
}

#[test]
fn a_convolutions_gradient_is_its_slope() -> Result<()> {
    // The same as candle's, and both what a small step says: the loss is linear in the input, so a large step has
    // only rounding errors.
    let random = &mut Random::new(6);
    let (params, weight) = Params::build(6, |b| b.add("weight", &[17, 18, 3, 3], Start::Normal(0.3)));
    let params = Arc::new(params);
    let (input, output, stride, padding, direction) = (18, 17, 2, 1, Direction::Conv);
    let op = ConvOp { params: params.clone(), weight, bias: None, input, output, stride, padding, direction };
    let (x, slope) = (tensor(random, &[1, 18, 4, 5])?, tensor(random, &[1, 17, 2, 3])?);
    let loss = |x: &Tensor| (to_planar(&blocked(x)?.apply_op1(op.clone())?, 17)? * &slope)?.sum_all();
    let var = Var::from_tensor(&x)?;
    let found = params.backward(&loss(&var)?)?;
    let expected = differences(&x, 1.0, |x| loss(x)?.to_scalar::<f32>())?;
    assert_near(found.get(&var).expect("input"), &expected, "input");
    Ok(())
}
