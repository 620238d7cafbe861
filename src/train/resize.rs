//! Weights of a network for patches of another size, to go on from: training small patches first is cheap. Convolutions
//! do not care; what has a row or a channel for each bin of a heatmap is interpolated along the bins. Bin `i` of `D` is
//! where bin `i / D * D'` of `D'` was, as [`camera_mesh`](crate::camera_mesh) reads them.

use std::collections::HashMap;

use anyhow::{Context, Result, ensure};
use candle_core::{DType, Device, Result as CandleResult, Tensor};

use super::params::Params;
use crate::nets::NetSizes;
use crate::nets::layers::BN_EPS;
use crate::nets::weights::WeightFile;

/// Takes the values of `params`, a network of these sizes, from weights of the same network at any size of the patches.
pub fn read_resized(params: &Params, sizes: &NetSizes, file: &WeightFile) -> Result<()> {
    let read = || {
        let mut tensors = HashMap::new();
        for (name, wanted) in params.names() {
            let tensor = file.tensor(name, &Device::Cpu)?.to_dtype(DType::F32)?;
            tensors.insert(name.to_owned(), (tensor, wanted));
        }
        let lines: Vec<String> =
            tensors.keys().filter_map(|name| name.strip_suffix(".0.weight")).map(str::to_owned).collect();
        for line in lines.iter().filter(|name| name.ends_with("conv_z_1")) {
            resize_line(&mut tensors, line, sizes)?;
        }
        if let Some((weight, wanted)) = tensors.get_mut("pose2feat.conv.0.weight") {
            *weight = resize_gaussians(weight, wanted, sizes)?;
        }
        for name in ["head.final_layer.weight", "head.final_layer.bias"] {
            if let Some((tensor, wanted)) = tensors.get_mut(name) {
                // [J * D, ..]
                *tensor = along_bins(tensor, wanted[0] / sizes.heatmap(), wanted)?;
            }
        }
        params.read(|name| Ok(tensors[name].0.clone()))
    };
    read().with_context(|| format!("{} is not of this network, at whatever size of the patches", file.path().display()))
}

/// A tensor of I2L-MeshNet with a row for every vertex.
const VERTICES: &str = "mesh_net.conv_x.0.weight";

/// The weights are of I2L-MeshNet, as `params` are, but of a mesh of other vertices.
pub fn is_of_another_mesh(params: &Params, file: &WeightFile) -> bool {
    let own = params.names().find(|(name, _)| *name == VERTICES).and_then(|(_, shape)| shape.first());
    own.is_some_and(|own| file.shape(VERTICES).is_some_and(|shape| shape.first() != Some(own)))
}

/// Takes from weights what has the same name and shape; the rest stays as it is. From the body to the hand, those are
/// the trunks and whatever else does not count joints or vertices.
pub fn read_alike(params: &Params, file: &WeightFile) -> Result<()> {
    let own = params.tensors()?;
    params.read(|name| {
        let own = own.get(name).with_context(|| format!("no parameter {name}"))?;
        Ok(if file.shape(name) == Some(own.dims()) { file.tensor(name, &Device::Cpu)? } else { own.clone() })
    })
}

/// `conv_z_1`, a linear layer to `[channels * D]` and its norm. Interpolated is what they compute together before the
/// ReLU, which the new ones then compute exactly; the new norm has the deviation that its row should have, so that
/// training finds it in order.
fn resize_line(tensors: &mut HashMap<String, (Tensor, &[usize])>, line: &str, sizes: &NetSizes) -> Result<()> {
    const PARTS: [&str; 6] = ["0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var"];
    let names = PARTS.map(|part| format!("{line}.{part}"));
    let part = |i: usize| tensors.get(&names[i]).with_context(|| format!("there is no {}", names[i]));
    let (weight, wanted) = part(0)?.clone();
    if weight.dims() == wanted {
        return Ok(());
    }
    let [bias, gain, shift, mean, variance] =
        [part(1)?, part(2)?, part(3)?, part(4)?, part(5)?].map(|(t, _)| t.clone());
    let rows = weight.dim(0)?;
    ensure!(bias.dims() == [rows], "{} has shape {:?} and not [{rows}]", names[1], bias.dims());
    let matrix = weight.reshape((rows, ()))?;
    let scale = (&gain / (variance + BN_EPS)?.sqrt()?)?;
    let matrix = matrix.broadcast_mul(&scale.reshape((rows, 1))?)?;
    let offset = (((bias - mean)? * scale)? + &shift)?;
    // The variance of what comes in, along a row: that of the row's result is its square times this.
    let incoming = (gain.sqr()? / (matrix.sqr()?.sum(1)? + 1e-12)?)?;

    let channels = sizes.channels();
    let bins = channels * sizes.heatmap();
    let resized = |tensor: &Tensor, dims: &[usize]| along_bins(tensor, channels, dims);
    let matrix = resized(&matrix, &[bins, matrix.dim(1)?])?;
    let variance = (matrix.sqr()?.sum(1)? * resized(&incoming, &[bins])?)?;
    let shift = resized(&shift, &[bins])?;
    let new = [
        matrix.reshape(wanted)?,
        resized(&offset, &[bins])?,
        (&variance + BN_EPS)?.sqrt()?,
        shift.clone(),
        shift,
        variance,
    ];
    for (name, new) in names.iter().zip(new) {
        if let Some((tensor, _)) = tensors.get_mut(name) {
            *tensor = new;
        }
    }
    Ok(())
}

/// `pose2feat`'s convolution, `[width, width + J * D, 3, 3]`. The Gaussians are as wide in bins at every size, so the sum
/// over depth stays what it was.
fn resize_gaussians(weight: &Tensor, wanted: &[usize], sizes: &NetSizes) -> Result<Tensor> {
    let (out, inputs, height, width) = weight.dims4()?;
    let early = sizes.depth().width();
    ensure!(inputs > early && wanted.len() == 4 && wanted[1] > early, "pose2feat reads {inputs} channels");
    let joints = (wanted[1] - early) / sizes.heatmap();
    let gaussians = weight.narrow(1, early, inputs - early)?.contiguous()?.flatten(0, 1)?;
    let gaussians = along_bins(&gaussians, out * joints, &[out * (wanted[1] - early), height, width])?;
    let gaussians = gaussians.reshape((out, wanted[1] - early, height, width))?;
    Ok(Tensor::cat(&[&weight.narrow(1, 0, early)?, &gaussians], 1)?)
}

/// `[groups * D', ..] -> [groups * D, ..]`, of which the latter is wanted.
fn along_bins(tensor: &Tensor, groups: usize, wanted: &[usize]) -> Result<Tensor> {
    let rows = tensor.dim(0)?;
    ensure!(
        groups > 0 && rows.is_multiple_of(groups) && wanted[0].is_multiple_of(groups) && rows > 0,
        "{rows} rows are not bins of {groups} heatmaps"
    );
    let (from, to) = (rows / groups, wanted[0] / groups);
    if from == to {
        return Ok(tensor.clone());
    }
    let values = tensor.reshape((groups, from, ()))?;
    let matrix = interpolation(from, to)?.broadcast_left(groups)?.contiguous()?;
    Ok(matrix.matmul(&values)?.reshape(wanted)?)
}

/// `[to, from]`: each new bin from the two beside its place; past the last bin, from the last.
fn interpolation(from: usize, to: usize) -> CandleResult<Tensor> {
    let mut matrix = vec![0.0_f32; to * from];
    for (i, row) in matrix.chunks_exact_mut(from).enumerate() {
        let place = (i as f32 * from as f32 / to as f32).min((from - 1) as f32);
        let low = (place as usize).min(from.saturating_sub(2));
        row[low] = 1.0 - (place - low as f32);
        if let Some(high) = row.get_mut(low + 1) {
            *high = place - low as f32;
        }
    }
    Tensor::from_vec(matrix, (to, from), &Device::Cpu)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::nets::layers::Activation;
    use crate::synth::random::Random;
    use crate::train::checkpoint::save_weights;
    use crate::train::i2l::I2l;
    use crate::train::layers::{Conv, Norm, Pass};
    use crate::train::ops::{to_blocked, to_planar};
    use crate::train::optimizer::Adam;
    use crate::train::params::{ParamsBuilder, Start};

    fn sizes(input: usize) -> NetSizes {
        NetSizes::new(18, input, input / 4).unwrap().with_widths(16, 16)
    }

    /// Weights of `from` in a file, read into `to`.
    fn hand_over(from: &Params, to: &Params, sizes: &NetSizes) -> Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("weights.safetensors");
        save_weights(from, "{}", &path)?;
        read_resized(to, sizes, &WeightFile::open(&path)?)
    }

    #[test]
    fn a_line_is_interpolated_where_the_network_would_cut_it() -> Result<()> {
        let build = |seed, bins: usize| {
            Params::build(seed, |b: &mut ParamsBuilder| {
                let b = &mut b.pp("mesh_net");
                let conv = Conv::pointwise(16, 16 * bins, 3, Start::he(16), &mut b.pp("conv_z_1.0"));
                (conv, Norm::new(16 * bins, &mut b.pp("conv_z_1.1")))
            })
        };
        let (small, small_line) = build(1, 16);
        // Norms that have seen something; variances are positive.
        let mut random = Random::fork(1, 2);
        small.values_mut()[16 * 16 * 16..].iter_mut().for_each(|value| *value = random.between(0.5, 1.5));
        let (large, large_line) = build(2, 24);
        hand_over(&small, &large, &sizes(96))?;
        let feature = to_blocked(&Tensor::rand(0_f32, 1.0, (2, 16, 1, 1), &Device::Cpu)?)?;
        let line = |params: Params, (conv, norm): (Conv, Norm), bins: usize| -> Result<Vec<Vec<f32>>> {
            let pass = Pass { params: Arc::new(params), is_training: false };
            let line = norm.forward(&pass, &conv.forward(&pass, &feature)?, None, Activation::None)?;
            Ok(to_planar(&line, 16 * bins)?.reshape((2 * 16, bins))?.to_vec2()?)
        };
        let (small, large) = (line(small, small_line, 16)?, line(large, large_line, 24)?);
        for (small, large) in small.iter().zip(&large) {
            // Bin 3 of 24 is bin 2 of 16, bin 4 lies at two thirds of the way to the next, bin 23 past the last.
            for (bin, expected) in [(3, small[2]), (4, small[2] / 3.0 + small[3] * 2.0 / 3.0), (23, small[15])] {
                assert!((large[bin] - expected).abs() < 1e-5 * (1.0 + expected.abs()), "{} {expected}", large[bin]);
            }
        }
        Ok(())
    }

    #[test]
    fn the_gaussians_meet_the_same_weights_in_the_same_depth() -> Result<()> {
        let (width, joints) = (16, 2);
        let build = |seed, bins: usize| {
            let dims = [width, width + joints * bins, 3, 3];
            Params::build(seed, |b| b.add("pose2feat.conv.0.weight", &dims, Start::Normal(1.0)))
        };
        let ((small, id), (large, _)) = (build(1, 16), build(2, 24));
        // Of every output, joint and tap a straight line over the depth.
        let value = |output: usize, joint: usize, depth: f32, tap: usize| {
            (output * 7 + joint * 5 + tap) as f32 + (1 + output + tap) as f32 * depth
        };
        let row = (width + joints * 16) * 9;
        let range = small.range(id);
        for (at, weight) in small.values_mut()[range].iter_mut().enumerate() {
            let (output, input, tap) = (at / row, at % row / 9, at % 9);
            if let Some(channel) = input.checked_sub(width) {
                *weight = value(output, channel / 16, (channel % 16) as f32 / 16.0, tap);
            }
        }
        hand_over(&small, &large, &sizes(96))?;
        let (small, large) = (small.values(), large.values());
        for (at, weight) in large.iter().enumerate() {
            let row = (width + joints * 24) * 9;
            let (output, input, tap) = (at / row, at % row / 9, at % 9);
            let expected = match input.checked_sub(width) {
                // The last bins lie past the last one that there was.
                Some(channel) => value(output, channel / 24, ((channel % 24) as f32 / 24.0).min(15.0 / 16.0), tap),
                None => small[output * (width + joints * 16) * 9 + input * 9 + tap],
            };
            assert!((weight - expected).abs() < 1e-3, "{weight} instead of {expected} at {output} {input} {tap}");
        }
        Ok(())
    }

    #[test]
    fn a_hand_begins_with_the_trunk_of_a_body() -> Result<()> {
        let build = |seed, joints, vertices| Params::build(seed, |b| I2l::new(&sizes(64), joints, vertices, b)).0;
        let (body, hand, before) = (build(1, 3, 40), build(2, 2, 24), build(2, 2, 24));
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("body.safetensors");
        save_weights(&body, "{}", &path)?;
        let file = WeightFile::open(&path)?;
        assert!(is_of_another_mesh(&hand, &file) && !is_of_another_mesh(&body, &file));
        assert!(read_resized(&hand, &sizes(64), &file).is_err());
        read_alike(&hand, &file)?;
        let [body, hand, before] = [&body, &hand, &before].map(Params::tensors);
        let (body, hand, before) = (body?, hand?, before?);
        let values = |tensor: &Tensor| tensor.flatten_all()?.to_vec1::<f32>();
        let mut taken = 0;
        for (name, tensor) in &hand {
            let alike = body[name].dims() == tensor.dims();
            let expected = if alike { &body[name] } else { &before[name] };
            assert_eq!(values(tensor)?, values(expected)?, "{name}");
            let counts = ["conv_x.", "conv_y.", "conv_z_2.", "pose2feat.conv.0.weight"];
            assert_eq!(alike, !counts.iter().any(|part| name.contains(part)), "{name}");
            taken += usize::from(alike);
        }
        assert!(taken > hand.len() / 2);
        Ok(())
    }

    /// Pictures of a bright spot, and where its point is, as parts of the volume; its colour tells the depth.
    fn spots(side: usize, people: usize, random: &mut Random) -> Result<(Tensor, Tensor)> {
        let (mut pixels, mut places) = (Vec::new(), Vec::new());
        for _ in 0..people {
            let [x, y, z] = std::array::from_fn(|_| random.between(0.25, 0.75));
            for channel in 0..3 {
                for i in 0..side * side {
                    let off = |at: usize, place: f32| (at as f32 + 0.5) / side as f32 - place;
                    let (dx, dy) = (off(i % side, x), off(i / side, y));
                    let spot = (-(dx * dx + dy * dy) / 0.01).exp();
                    pixels.push(40.0 + spot * (80.0 + 60.0 * z * (channel as f32 - 1.0)));
                }
            }
            places.extend([x, y, z]);
        }
        let pixels = Tensor::from_vec(pixels, (people, 3, side, side), &Device::Cpu)?;
        Ok((pixels, Tensor::from_vec(places, (people, 1, 3), &Device::Cpu)?))
    }

    #[test]
    fn the_same_picture_in_more_pixels_has_the_same_depth() -> Result<()> {
        let build = |side| Params::build(4, |b| I2l::new(&sizes(side), 2, 16, b));
        let (params, network) = build(64);
        let params = Arc::new(params);
        let mut adam = Adam::new(&params);
        let random = &mut Random::fork(8, 8);
        for step in 0..60 {
            let (pixels, places) = spots(64, 6, random)?;
            let pass = Pass { params: params.clone(), is_training: true };
            let (_, joints) = network.forward_pose(&pass, &pixels)?;
            params.backward(&(joints.coords / 16.0)?.broadcast_sub(&places)?.abs()?.mean_all()?)?;
            adam.step(&params, if step < 40 { 4e-3 } else { 1e-3 });
        }
        let (larger, larger_network) = build(96);
        hand_over(&params, &larger, &sizes(96))?;
        let depths = |network: &I2l, params: Arc<Params>, side: usize| -> Result<Tensor> {
            let (pixels, _) = spots(side, 24, &mut Random::fork(9, 9))?;
            let (_, joints) = network.forward_pose(&Pass { params, is_training: false }, &pixels)?;
            // Of a volume of two metres.
            Ok((joints.coords.narrow(2, 2, 1)? * (2.0 / (side / 4) as f64))?)
        };
        let (small, large) = (depths(&network, params, 64)?, depths(&larger_network, Arc::new(larger), 96)?);
        let mean = |t: CandleResult<Tensor>| -> Result<f32> { Ok(t?.abs()?.mean_all()?.to_scalar()?) };
        let (spread, off) = (mean(small.broadcast_sub(&small.mean_keepdim(0)?))?, mean(&small - &large)?);
        // Small networks see much border, of which there is less in a larger picture. (x and y are the convolutions'
        // affair.) Bins in a wrong order would tell nothing of the depth.
        assert!(spread > 0.1 && off < 0.5 * spread, "{off} m apart, of {spread} m");
        Ok(())
    }
}
