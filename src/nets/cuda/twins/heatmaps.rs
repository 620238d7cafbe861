//! Heatmaps, what is read from them, and the joints' Gaussians.

use anyhow::Result;
use candle_core::{Device, Tensor};

use super::{ALL, assert_close, floats, rounding, tensor};
use crate::lixel::gaussian::SIGMA;
use crate::lixel::{self, Lixels};
use crate::nets::Precision;
use crate::nets::cuda::host::Host;
use crate::nets::cuda::kernels::{self, HeatmapsOut, MapDims, Ptr, Volumes};
use crate::nets::{pose2feat, posenet3d};

fn memory(host: &Host, rows: usize, bins: usize) -> HeatmapsOut {
    HeatmapsOut {
        probabilities: host.empty(rows * bins * 4),
        coords: host.empty(rows * 4),
        spread: host.empty(rows * 4),
        mode: host.empty(rows * 4),
    }
}

/// Expectations are sums of up to 256 terms of up to 256, in another order.
fn assert_read(host: &Host, out: &HeatmapsOut, plain: &Lixels, tolerance: f32) -> Result<()> {
    for (at, plain, tolerance, what) in [
        (out.probabilities, &plain.heatmaps, tolerance, "probabilities"),
        (out.coords, &plain.coords, 5e-4, "soft-argmax"),
        (out.spread, &plain.spread, 5e-3, "spread"),
    ] {
        let plain = plain.to_tensor()?;
        assert_close(&Tensor::from_vec(host.read::<f32>(at), plain.shape(), &Device::Cpu)?, &plain, tolerance, what);
    }
    Ok(())
}

#[test]
fn heatmaps_with_all_that_is_read_from_them() -> Result<()> {
    let host = Host::new(Precision::F16)?; // f32 in all of them
    for bins in [64, 16, 13, 256] {
        let (batch, points) = (2, 21);
        let xyz = [1.0, 6.0, 80.0].map(|s| Tensor::randn(0_f32, s, (batch, points, bins), &Device::Cpu).unwrap());
        let plain = Lixels::from_logits(&xyz.each_ref().map(Into::into))?;
        // [B, N, D] -> [3, N, B, D]
        let logits = Tensor::stack(&xyz, 0)?.transpose(1, 2)?;
        let rows = batch * points * 3;
        let out = memory(&host, rows, bins);
        kernels::heatmaps(&host, host.upload(&floats(&logits)), out, [batch, points, bins])?;
        assert_read(&host, &out, &plain, 1e-6)?;
        let modes: Vec<u32> = lixel::mode(&plain.heatmaps.to_tensor()?)?.flatten_all()?.to_vec1()?;
        assert!(host.read::<f32>(out.mode).iter().map(|&bin| bin as u32).eq(modes));
    }
    Ok(())
}

/// Softmax over each volume, `[B, J, D (z), D (y), D (x)]`, and its marginals along x, y and z.
fn plain_marginals(logits: &Tensor) -> Result<Tensor> {
    let (people, joints, bins, _, _) = logits.dims5()?;
    let volume = lixel::softmax(&logits.reshape((people, joints, bins * bins * bins))?)?.reshape(logits.shape())?;
    Ok(Tensor::stack(&[volume.sum((2, 3))?, volume.sum((2, 4))?, volume.sum((3, 4))?], 2)?)
}

#[test]
fn volumes_become_the_marginals_of_their_softmax() -> Result<()> {
    let host = Host::new(Precision::F16)?; // f32 in all of them
    // A joint that is its own mirror image, two that change places.
    let (joints, order) = (3, [0_u32, 2, 1]);
    for (bins, people, scale) in [(16, 2, 1.0), (8, 1, 30.0), (40, 1, 5.0)] {
        for mirrored in [false, true] {
            let images = if mirrored { 2 * people } else { people };
            let logits = Tensor::randn(0_f32, scale, (images, joints, bins, bins, bins), &Device::Cpu)?;
            let bias = Tensor::randn(0_f32, 1.0, joints * bins, &Device::Cpu)?;
            let all = plain_marginals(&logits.broadcast_add(&bias.reshape((1, joints, bins, 1, 1))?)?)?;
            let expected = if mirrored {
                let seen_in_mirror = posenet3d::unflip(&all.narrow(0, people, people)?, &order)?;
                ((all.narrow(0, 0, people)? + seen_in_mirror)? * 0.5)?
            } else {
                all
            };
            let plain = Lixels::new(expected)?;

            // [B, J, z, y, x] -> [B, y, x, (J z)], filled up.
            let stride = joints * bins + 8;
            let rows = logits.permute((0, 3, 4, 1, 2))?.reshape((images, bins, bins, joints * bins))?;
            let order = host.upload(&order.map(|joint| joint as i32));
            let volumes = Volumes {
                logits: host.upload(&floats(&rows.pad_with_zeros(3, 0, 8)?)),
                bias: host.upload(&floats(&bias)),
                stride,
                mirrored: if mirrored { order } else { Ptr::NULL },
            };
            let out = memory(&host, people * joints * 3, bins);
            let between = host.empty(kernels::volume_rows([images, joints, bins]) * 4);
            kernels::volume_heatmaps(&host, volumes, between, out, [people, joints, bins])?;
            // Shares of up to 64,000 exponentials, summed in another order.
            assert_read(&host, &out, &plain, 1e-5)?;
            // Of the probabilities that are told, in which equals are equal.
            let told = Tensor::from_vec(host.read::<f32>(out.probabilities), plain.heatmaps.dims(), &Device::Cpu)?;
            let modes: Vec<u32> = lixel::mode(&told)?.flatten_all()?.to_vec1()?;
            assert!(host.read::<f32>(out.mode).iter().map(|&bin| bin as u32).eq(modes), "{bins} bins");
        }
    }
    let far = Volumes { logits: Ptr::NULL, bias: Ptr::NULL, stride: 264, mirrored: Ptr::NULL };
    assert!(kernels::volume_heatmaps(&host, far, Ptr::NULL, memory(&host, 3, 1), [1, 1, 264]).is_err());
    Ok(())
}

#[test]
fn the_root_is_expected_where_softmax_says() -> Result<()> {
    let host = Host::new(Precision::F32)?;
    let (batch, side) = (2, 24);
    let logits = Tensor::randn(0_f32, 3.0, (batch, side * side), &Device::Cpu)?;
    let (heatmap, coords) = (host.empty(batch * side * side * 4), host.empty(batch * 2 * 4));
    kernels::plane_heatmap(&host, host.upload(&floats(&logits)), heatmap, coords, batch, side)?;
    let plain = lixel::softmax(&logits)?.reshape((batch, side, side))?;
    let ours = Tensor::from_vec(host.read::<f32>(heatmap), (batch, side, side), &Device::Cpu)?;
    assert_close(&ours, &plain, 1e-6, "heatmap");
    let expected = Tensor::stack(&[lixel::soft_argmax(&plain.sum(1)?)?, lixel::soft_argmax(&plain.sum(2)?)?], 1)?;
    let ours = Tensor::from_vec(host.read::<f32>(coords), (batch, 2), &Device::Cpu)?;
    assert_close(&ours, &expected, 1e-4, "coordinates");
    Ok(())
}

#[test]
fn gaussians_never_built_are_convolved() -> Result<()> {
    for (joints, bins, channels) in [(5, 16, 64), (3, 80, 20), (2, 8, 72)] {
        let batch = 2;
        let weights = Tensor::rand(-1_f32, 1.0, (joints, bins, channels * 9), &Device::Cpu)?;
        // Some joints beyond the edge, where the padding cuts the Gaussian.
        let coords = Tensor::rand(-1_f32, bins as f32, (batch, joints, 3), &Device::Cpu)?;
        let plain = pose2feat::convolved_gaussians(&weights, &coords)?;
        let largest = plain.abs()?.max_all()?.to_scalar::<f32>()?;
        for precision in ALL {
            let host = Host::new(precision)?;
            let dims = MapDims { batch, height: bins, width: bins, channels };
            let y = host.empty_elements(dims.elements());
            let over_z = host.empty(batch * joints * channels * 9 * 4);
            let memory = [host.upload(&floats(&weights)), host.upload(&floats(&coords)), over_z, y];
            kernels::gaussians(&host, memory, joints, dims, SIGMA as f32)?;
            // Sums of some hundred terms in another order, then rounded.
            let tolerance = largest * (rounding(precision) + 1e-5);
            assert_close(&tensor(&host, y, dims)?, &plain, tolerance, &format!("{precision:?}, {joints} joints"));
        }
    }
    Ok(())
}
