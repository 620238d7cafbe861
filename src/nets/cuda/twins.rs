//! The kernels, on the processor, against their plain twins: the same text and the same launches as on a GPU.

use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use image::RgbImage;

use super::detector::{self, ProposalPlan, RegionScores, RpnLevel};
use super::host::Host;
use super::kernels::{self, ConvDims, HeatmapsOut, Launch, MapDims, Pool, ProductDims, Ptr, Scaling, Tail};
use crate::crop::Crop;
use crate::lixel::gaussian::SIGMA;
use crate::lixel::{self, Lixels};
use crate::nets::Precision;
use crate::nets::layers::{Features, Values};
use crate::nets::maskrcnn::roi_align::RoiMaps;
use crate::nets::maskrcnn::rpn::{self, LevelOutput};
use crate::nets::maskrcnn::transform::{Batch, ImageSize};
use crate::nets::maskrcnn::{Config, Corners, boxes};
use crate::nets::pose2feat;
use crate::space::RectPx;

const ALL: [Precision; 3] = [Precision::F32, Precision::F16, Precision::Bf16];

/// What rounding to a type changes at most, relative to the number.
fn rounding(precision: Precision) -> f32 {
    match precision {
        Precision::F32 | Precision::Tf32 => 1e-6,
        Precision::F16 => 1.0 / 2048.0,
        Precision::Bf16 => 1.0 / 256.0,
    }
}

/// Numbers that every type holds exactly, so that only the arithmetic is compared.
fn exact(shape: &[usize], scale: f64) -> Tensor {
    let steps = (Tensor::rand(-8_f32, 8.0, shape, &Device::Cpu).unwrap()).round().unwrap();
    (steps * (scale / 8.0)).unwrap()
}

fn floats(x: &Tensor) -> Vec<f32> {
    x.contiguous().unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn dims(x: &Tensor) -> MapDims {
    MapDims::new(<[usize; 4]>::try_from(x.dims()).unwrap())
}

/// A tensor `[B, C, H, W]` as a map.
fn map(host: &Host, x: &Tensor) -> Result<Ptr> {
    let dims = dims(x);
    let y = host.empty_elements(dims.elements());
    kernels::planar_to_map(host, host.upload(&floats(x)), y, dims, None)?;
    Ok(y)
}

/// A map as a tensor `[B, C, H, W]`.
fn tensor(host: &Host, x: Ptr, dims: MapDims) -> Result<Tensor> {
    let shape = (dims.batch, dims.channels, dims.height, dims.width);
    let y = host.empty(shape.0 * shape.1 * shape.2 * shape.3 * 4);
    kernels::map_to_planar(host, x, y, dims)?;
    Ok(Tensor::from_vec(host.read::<f32>(y), shape, &Device::Cpu)?)
}

/// A weight `[O, I, K, K]` as the convolutions read it: `[O, K, K, I]`, channels filled up.
fn weights(host: &Host, weight: &Tensor) -> Result<Ptr> {
    let (o, i, k, _) = weight.dims4()?;
    let padded = |n: usize| n.next_multiple_of(MapDims::CHANNEL_STEP);
    let filled = weight.permute((0, 2, 3, 1))?.pad_with_zeros(3, 0, padded(i) - i)?;
    let filled = filled.pad_with_zeros(0, 0, padded(o) - o)?;
    assert_eq!(filled.dims(), [padded(o), k, k, padded(i)]);
    Ok(host.upload_elements(&floats(&filled)))
}

fn assert_close(ours: &Tensor, plain: &Tensor, tolerance: f32, what: &str) {
    assert_eq!(ours.dims(), plain.dims(), "{what}");
    let apart = (ours - plain).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
    assert!(apart <= tolerance, "{what}: {apart}");
}

#[test]
fn numbers_are_rounded_to_their_type_and_channels_filled_up() -> Result<()> {
    // Large, small, subnormal in f16, and halfway between two neighbours.
    let special = [0.0_f32, -0.0, 1.0, 2049.0, 2051.0, 65504.0, 6e-8, -3.1e-6, 1e-4, 257.0, 259.0];
    let random = floats(&Tensor::randn(0_f32, 3.0, 2 * 11 * 3 * 5 - special.len(), &Device::Cpu)?);
    let values = [&special[..], &random].concat();
    let x = Tensor::from_vec(values, (2, 11, 3, 5), &Device::Cpu)?;
    for precision in ALL {
        let host = Host::new(precision)?;
        let at = map(&host, &x)?;
        let dtype = [DType::F32, DType::F16, DType::BF16][ALL.iter().position(|&p| p == precision).unwrap()];
        let expected = x.to_dtype(dtype)?.to_dtype(DType::F32)?;
        assert_eq!(floats(&tensor(&host, at, dims(&x))?), floats(&expected), "{precision:?}");
        let stored = host.read_elements(at);
        assert!(stored.chunks_exact(16).all(|pixel| pixel[11..].iter().all(|&zero| zero == 0.0)));
    }
    Ok(())
}

fn frame(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        image::Rgb([x.wrapping_mul(37) as u8, (x ^ (3 * y)) as u8, y.wrapping_mul(x + 11) as u8])
    })
}

#[test]
fn crops_are_those_of_the_processor_to_the_last_grey_level() -> Result<()> {
    let host = Host::new(Precision::F32)?;
    let frame = frame(97, 61);
    let size = 32;
    // Inside, over two edges, outside, much enlarged.
    let rects = [[20.3, 11.1, 40.7, 40.7], [-15.0, 30.0, 60.0, 60.0], [500.0, 0.0, 9.0, 9.0], [40.2, 20.9, 3.3, 3.3]];
    let crops: Vec<Crop> = rects.iter().map(|&rect| Crop::new(RectPx::from(rect), size)).collect();
    let affines: Vec<f32> = crops.iter().flat_map(|crop| crop.frame_from_crop.to_cols_array()).collect();
    let dims = MapDims { batch: crops.len(), height: size as usize, width: size as usize, channels: 3 };
    let y = host.empty_elements(dims.elements());
    let (pixels, affines) = (host.upload(frame.as_raw()), host.upload(&affines));
    kernels::crop(&host, pixels, [97, 61], affines, y, dims, Scaling::NONE)?;
    let ours = host.read_elements(y);
    for (crop, ours) in crops.iter().zip(ours.chunks_exact(ours.len() / crops.len())) {
        let ours: Vec<u8> = ours.chunks_exact(8).flat_map(|p| [p[0], p[1], p[2]].map(|v| v as u8)).collect();
        assert_eq!(ours, crop.patch(&frame).into_raw());
    }
    Ok(())
}

#[test]
fn frames_are_resized_as_on_the_processor() -> Result<()> {
    let host = Host::new(Precision::F32)?;
    let frame = frame(90, 50);
    let batch = Batch::new(&[&frame], 40, 66, &Device::Cpu)?;
    let [height, width] = batch.padded();
    let dims = MapDims { batch: 1, height, width, channels: 3 };
    let y = host.empty_elements(dims.elements());
    let scaling = Batch::scaling();
    kernels::resize(&host, host.upload(frame.as_raw()), [90, 50], batch.sizes[0].resized, y, dims, scaling)?;
    // Products and sums in another order, of numbers up to 3.
    assert_close(&tensor(&host, y, dims)?, &batch.pixels.to_tensor()?, 2e-6, "resized");
    Ok(())
}

/// A convolution's parts.
struct Conv {
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    residual: Option<Tensor>,
    dims: ConvDims,
    relu: bool,
}

impl Conv {
    fn new([b, i, o]: [usize; 3], [h, w]: [usize; 2], [kernel, stride, padding]: [usize; 3], full: bool) -> Self {
        let x = exact(&[b, i, h, w], 1.0);
        let dims = ConvDims { input: dims(&x), output: o, kernel, stride, padding };
        let out = dims.out();
        let residual = full.then(|| exact(&[b, o, out.height, out.width], 2.0));
        Self { x, weight: exact(&[o, i, kernel, kernel], 0.5), bias: exact(&[o], 1.0), residual, dims, relu: full }
    }

    fn plain(&self) -> Result<Tensor> {
        let ConvDims { stride, padding, .. } = self.dims;
        let mut y = self.x.conv2d(&self.weight, padding, stride, 1, 1)?;
        y = y.broadcast_add(&self.bias.reshape((1, (), 1, 1))?)?;
        if let Some(residual) = &self.residual {
            y = (y + residual)?;
        }
        Ok(if self.relu { y.relu()? } else { y })
    }

    fn tail(&self, host: &Host) -> Result<Tail> {
        let out = self.dims.out();
        let bias = self.bias.pad_with_zeros(0, 0, out.padded() - out.channels)?;
        let residual = self.residual.as_ref().map(|r| map(host, r)).transpose()?;
        Ok(Tail { bias: host.upload(&floats(&bias)), residual, relu: self.relu })
    }
}

fn convs() -> [Conv; 5] {
    [
        Conv::new([2, 3, 10], [9, 7], [7, 2, 3], false),
        Conv::new([1, 11, 8], [6, 6], [3, 1, 1], true),
        Conv::new([2, 8, 20], [5, 7], [3, 2, 1], true),
        Conv::new([2, 16, 12], [4, 6], [1, 1, 0], true),
        Conv::new([3, 9, 17], [4, 4], [4, 1, 0], false),
    ]
}

#[test]
fn convolutions_by_their_definition() -> Result<()> {
    for precision in ALL {
        let host = Host::new(precision)?;
        for conv in convs() {
            let (x, weight, tail) = (map(&host, &conv.x)?, weights(&host, &conv.weight)?, conv.tail(&host)?);
            let out = conv.dims.out();
            let y = host.empty_elements(out.elements());
            kernels::direct_conv(&host, x, weight, y, conv.dims, tail)?;
            let plain = conv.plain()?;
            let most = plain.abs()?.max_all()?.to_scalar::<f32>()?;
            let what = format!("{precision:?} {:?}", conv.dims);
            assert_close(&tensor(&host, y, out)?, &plain, most * rounding(precision), &what);
            let filled = host.read_elements(y);
            let (padded, channels) = (out.padded(), out.channels);
            assert!(filled.chunks_exact(padded).all(|p| p[channels..].iter().all(|&zero| zero == 0.0)), "{what}");

            // The same as a product of gathered taps, then what follows.
            let (rows, depth) = (out.pixels(), conv.dims.depth());
            let taps = host.empty_elements(rows * depth);
            kernels::gather_conv_taps(&host, x, taps, conv.dims)?;
            let product = ProductDims {
                batch: 1,
                m: rows,
                n: padded,
                k: depth,
                shared_b: true,
                wide: false,
                bias: false,
                relu: false,
            };
            kernels::direct_product(&host, taps, weight, Ptr::NULL, y, product)?;
            kernels::finish(&host, y, out, tail)?;
            // Rounded once more, before bias and residual.
            assert_close(&tensor(&host, y, out)?, &plain, 2.0 * most * rounding(precision), &what);
        }
    }
    Ok(())
}

#[test]
fn a_transposed_convolution_is_four_small_ones() -> Result<()> {
    let (input, output) = (11, 13);
    let x = exact(&[2, input, 3, 5], 1.0);
    let weight = exact(&[input, output, 4, 4], 0.5);
    let bias = exact(&[output], 1.0);
    let plain = x.conv_transpose2d(&weight, 1, 0, 2, 1)?.broadcast_add(&bias.reshape((1, output, 1, 1))?)?.relu()?;
    let packed = super::pack::deconv_weights(&floats(&weight), [input, output]);
    for precision in ALL {
        let host = Host::new(precision)?;
        let dims = dims(&x);
        let phase = MapDims { channels: output, ..dims };
        let depth = 4 * dims.padded();
        let taps = host.empty_elements(4 * dims.pixels() * depth);
        kernels::gather_phase_taps(&host, map(&host, &x)?, taps, dims)?;
        let product = ProductDims {
            batch: 4,
            m: dims.pixels(),
            n: phase.padded(),
            k: depth,
            shared_b: false,
            wide: false,
            bias: true,
            relu: true,
        };
        let bias = host.upload(&super::pack::filled(&floats(&bias), phase.padded()));
        let phases = host.empty_elements(4 * phase.elements());
        kernels::direct_product(&host, taps, host.upload_elements(&packed), bias, phases, product)?;
        let out = MapDims { height: 2 * dims.height, width: 2 * dims.width, ..phase };
        let y = host.empty_elements(out.elements());
        kernels::join_phases(&host, phases, y, phase)?;
        let most = plain.max_all()?.to_scalar::<f32>()?;
        assert_close(&tensor(&host, y, out)?, &plain, most * rounding(precision), &format!("{precision:?}"));
    }
    Ok(())
}

#[test]
fn packed_weights_are_what_the_convolutions_read() -> Result<()> {
    let weight = exact(&[10, 3, 5, 5], 1.0);
    let host = Host::new(Precision::F32)?;
    let expected: Vec<f32> = host.read(weights(&host, &weight)?);
    assert_eq!(super::pack::conv_weights(&floats(&weight), [10, 3, 5]), expected);
    Ok(())
}

#[test]
fn maps_are_pooled_and_doubled() -> Result<()> {
    let x = exact(&[2, 11, 7, 6], 1.0).relu()?;
    let plain = Features::Plain(x.clone());
    for precision in ALL {
        let host = Host::new(precision)?;
        let (at, dims) = (map(&host, &x)?, dims(&x));
        let pool = Pool { kernel: 3, stride: 2, padding: 1 };
        let y = host.empty_elements(pool.out(dims).elements());
        kernels::max_pool(&host, at, y, dims, pool)?;
        let pooled = tensor(&host, y, pool.out(dims))?;
        assert_eq!(floats(&pooled), floats(&plain.max_pool_3x3()?.to_tensor()?));

        let twice = MapDims { height: 14, width: 12, ..dims };
        let y = host.empty_elements(twice.elements());
        kernels::doubled(&host, at, y, dims)?;
        assert_eq!(floats(&tensor(&host, y, twice)?), floats(&x.upsample_nearest2d(14, 12)?));
    }
    Ok(())
}

#[test]
fn means_and_products_over_channels() -> Result<()> {
    let x = exact(&[2, 19, 8, 8], 1.0);
    for precision in ALL {
        let host = Host::new(precision)?;
        let (at, dims) = (map(&host, &x)?, dims(&x));
        let (padded, lines) = (dims.padded(), dims.batch * dims.width);
        let tolerance = rounding(precision);
        let y = host.empty_elements(2 * lines * padded);
        kernels::line_means(&host, at, y, dims)?;
        let means = Tensor::from_vec(host.read_elements(y), (2, 2, 8, padded), &Device::Cpu)?.narrow(3, 0, 19)?;
        for (axis, dim) in [(0, 2), (1, 3)] {
            // [B, C, side] -> [B, side, C]
            assert_close(&means.get(axis)?, &x.mean(dim)?.transpose(1, 2)?, tolerance, "line means");
        }
        let y = host.empty_elements(2 * padded);
        kernels::channel_means(&host, at, y, dims)?;
        let means = Tensor::from_vec(host.read_elements(y), (2, padded), &Device::Cpu)?.narrow(1, 0, 19)?;
        let plain = x.mean((2, 3))?;
        assert_close(&means, &plain, tolerance, "channel means");

        let weight = exact(&[19], 1.0);
        let w = host.upload(&super::pack::filled(&floats(&weight), padded));
        let y = host.empty(2 * 64 * 4);
        kernels::dot_channels(&host, at, w, 0.25, y, dims)?;
        let dots = Tensor::from_vec(host.read::<f32>(y), (2, 8, 8), &Device::Cpu)?;
        let expected = (x.broadcast_mul(&weight.reshape((1, 19, 1, 1))?)?.sum(1)? + 0.25)?;
        assert_close(&dots, &expected, 1e-5, "channels");
        let y = host.empty(2 * 4);
        kernels::dot_means(&host, at, w, 0.25, y, dims)?;
        let dots = Tensor::from_vec(host.read::<f32>(y), 2, &Device::Cpu)?;
        assert_close(&dots, &(plain.broadcast_mul(&weight)?.sum(1)? + 0.25)?, 1e-5, "means");
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
        let out = HeatmapsOut {
            probabilities: host.empty(rows * bins * 4),
            coords: host.empty(rows * 4),
            spread: host.empty(rows * 4),
            mode: host.empty(rows * 4),
        };
        kernels::heatmaps(&host, host.upload(&floats(&logits)), out, [batch, points, bins])?;
        let read = |at, shape: &Tensor| Tensor::from_vec(host.read::<f32>(at), shape.shape(), &Device::Cpu);
        let [heatmaps, coords, spread] = [&plain.heatmaps, &plain.coords, &plain.spread].map(Values::to_tensor);
        let (heatmaps, coords, spread) = (heatmaps?, coords?, spread?);
        assert_close(&read(out.probabilities, &heatmaps)?, &heatmaps, 1e-6, "probabilities");
        // Sums of up to 256 terms of up to 256, in another order.
        assert_close(&read(out.coords, &coords)?, &coords, 5e-4, "soft-argmax");
        assert_close(&read(out.spread, &spread)?, &spread, 5e-3, "spread");
        let modes: Vec<u32> = lixel::mode(&heatmaps)?.flatten_all()?.to_vec1()?;
        assert_eq!(host.read::<u32>(out.mode), modes);
    }
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

#[test]
fn a_launch_that_does_not_fit_its_kernel_is_refused() -> Result<()> {
    let host = Host::new(Precision::F32)?;
    let grid = kernels::Grid { blocks: [1; 3], threads: 32, shared_bytes: 0 };
    let error = host.launch("clear", grid, &[Ptr::NULL.into(), 3_usize.into()]).unwrap_err().to_string();
    assert!(error.contains("clear takes [Pointer, Long], not [Pointer, Int]"), "{error}");
    assert!(host.launch("no_such_kernel", grid, &[]).is_err());
    Ok(())
}

/// Maps of the detector's pyramid, for an input of 64 x 96.
const LEVELS: [[usize; 2]; 5] = [[16, 24], [8, 12], [4, 6], [2, 3], [1, 2]];
const PADDED: [usize; 2] = [64, 96];

#[test]
fn proposals_are_those_of_the_processor() -> Result<()> {
    let batch = 2;
    let size = ImageSize { original: [60, 90], resized: [60, 90] };
    let pixels = Tensor::zeros((batch, 3, PADDED[0], PADDED[1]), DType::F32, &Device::Cpu)?;
    let frames = Batch { pixels: pixels.into(), sizes: vec![size; batch] };
    // In coarse steps: equal scores occur in plenty. The first case wants all anchors of the coarse levels, the last
    // one wants part of a crowd of equals.
    for (precision, steps, per_level, proposals) in
        [(Precision::F32, 40.0, 100, 150), (Precision::Bf16, 8.0, 300, 1000), (Precision::F16, 0.4, 50, 40)]
    {
        let host = Host::new(precision)?;
        let config = Config { proposals_per_level: per_level, proposals, ..Config::default() };
        let mut outputs = Vec::new();
        let mut levels = Vec::new();
        for [h, w] in LEVELS {
            let objectness = (Tensor::randn(0_f32, 2.0, (batch, 3, h, w), &Device::Cpu)? * steps)?.round()?;
            let objectness = (objectness / 64.0)?;
            let deltas = exact(&[batch, 12, h, w], 1.0);
            let (objectness_map, deltas_map) = (map(&host, &objectness)?, map(&host, &deltas)?);
            levels.push(RpnLevel { objectness: objectness_map, deltas: deltas_map, dims: dims(&objectness) });
            outputs.push(LevelOutput { objectness: objectness.into(), deltas: deltas.into() });
        }
        let levels = <[RpnLevel; 5]>::try_from(levels).expect("five levels");
        let plan = ProposalPlan {
            batch,
            resized: size.resized,
            per_level,
            proposals,
            iou: config.proposal_nms_iou,
            min_side: rpn::MIN_SIDE,
        };
        let sizes = levels.map(|level| level.dims);
        let (boxes, counts) = (host.empty(batch * proposals * 16), host.empty(batch * 4));
        let memory = [
            host.upload(&ProposalPlan::table(&sizes, PADDED)),
            host.upload(rpn::cells().as_flattened()),
            host.empty(plan.scratch_bytes(&sizes)),
            boxes,
            counts,
        ];
        detector::propose(&host, &plan, &levels, memory)?;
        let plain = rpn::proposals(&outputs, &frames, &config)?;
        let counts: Vec<i32> = host.read(counts);
        let boxes: Vec<f32> = host.read(boxes);
        for (image, expected) in plain.iter().enumerate() {
            assert_eq!(counts[image] as usize, expected.len(), "{precision:?}");
            let ours = boxes[image * proposals * 4..][..proposals * 4].as_chunks::<4>().0;
            for (place, (ours, expected)) in ours.iter().zip(expected).enumerate() {
                // The exponential of another library.
                let near = ours.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-3);
                assert!(near, "{precision:?}, proposal {place}: {ours:?} {expected:?}");
            }
            assert!(ours[expected.len()..].iter().all(|rest| *rest == [0.0; 4]));
        }
        assert!(plain.iter().all(|p| p.len() > 20), "there is something to compare");
    }
    Ok(())
}

#[test]
fn regions_are_aligned_as_on_the_processor() -> Result<()> {
    let size = ImageSize { original: PADDED, resized: PADDED };
    let channels = 21;
    let pyramid: Vec<Tensor> = LEVELS[..4].iter().map(|&[h, w]| exact(&[2, channels, h, w], 1.0)).collect();
    let plain = RoiMaps::new(pyramid.iter().cloned().map(Features::Plain).collect(), &[size, size])?;
    let regions: Vec<Corners> = vec![
        [3.0, 5.0, 30.0, 25.0],
        [-20.0, -30.0, 12.0, 9.0],
        [80.0, 50.0, 130.0, 120.0],
        [0.0, 0.0, 0.0, 0.0],
        [10.5, 11.5, 10.7, 60.0],
        [-200.0, -200.0, 30.0, 40.0],
        [-200.0, -200.0, 700.0, 700.0],
        [f32::NAN, 0.0, 5.0, 5.0],
    ];
    for precision in ALL {
        let host = Host::new(precision)?;
        let mut levels = Vec::new();
        for level in &pyramid {
            levels.push((map(&host, level)?, dims(level)));
        }
        let levels = <[(Ptr, MapDims); 4]>::try_from(levels).expect("four levels");
        let both = [&regions[..], &regions[..]].concat();
        for side in [7, 14] {
            let out = MapDims { batch: both.len(), height: side, width: side, channels };
            let y = host.empty_elements(out.elements());
            let at = host.upload(both.as_flattened());
            detector::roi_align(&host, &levels, 0.25, at, y, [both.len(), regions.len(), side])?;
            let ours = tensor(&host, y, out)?;
            for image in 0..2 {
                let expected = plain.align(image, &regions, side);
                let shape = (regions.len(), channels, side, side);
                let expected = Tensor::from_slice(&expected, shape, &Device::Cpu)?;
                let ours = ours.narrow(0, image * regions.len(), regions.len())?;
                assert_close(&ours, &expected, rounding(precision) + 1e-5, &format!("{precision:?} {side}"));
            }
        }
    }
    Ok(())
}

#[test]
fn regions_are_scored_by_softmax_and_their_boxes_corrected() -> Result<()> {
    let host = Host::new(Precision::F32)?;
    let (regions, classes) = (40, 7);
    let random = |shape: &[usize]| Tensor::randn(0_f32, 1.0, shape, &Device::Cpu);
    let (logits, logit_bias) = (random(&[regions, classes])?, random(&[classes])?);
    let (deltas, delta_bias) = (random(&[regions, classes * 4])?, random(&[classes * 4])?);
    let boxes: Vec<Corners> = (0..regions).map(|i| [i as f32, 3.0, i as f32 + 20.0, 3.0 + 2.0 * i as f32]).collect();
    let labels = [3_i32, 1];
    let pad = |x: &Tensor, n| floats(&x.pad_with_zeros(1, 0, n).unwrap());
    let from = RegionScores {
        logits: host.upload(&pad(&logits, 1)),
        logit_bias: host.upload(&floats(&logit_bias)),
        deltas: host.upload(&pad(&deltas, 4)),
        delta_bias: host.upload(&floats(&delta_bias)),
        regions: host.upload(boxes.as_flattened()),
        labels: host.upload(&labels),
        classes,
        logit_stride: classes + 1,
        delta_stride: classes * 4 + 4,
        label_count: labels.len(),
    };
    let y = host.empty(regions * labels.len() * 5 * 4);
    detector::score_regions(&host, from, y, regions, [50, 60])?;
    let ours: Vec<f32> = host.read(y);
    let scores = lixel::softmax(&logits.broadcast_add(&logit_bias)?)?.to_vec2::<f32>()?;
    let deltas = deltas.broadcast_add(&delta_bias)?.to_vec2::<f32>()?;
    for (i, row) in ours.as_chunks::<5>().0.iter().enumerate() {
        let (region, label) = (i / labels.len(), labels[i % labels.len()] as usize);
        let delta = [0, 1, 2, 3].map(|k| deltas[region][label * 4 + k]);
        let expected = boxes::clip(boxes::decode(boxes[region], delta, [10.0, 10.0, 5.0, 5.0]), [50, 60]);
        assert!((row[4] - scores[region][label]).abs() < 1e-6, "region {region}");
        assert!(row.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-4), "region {region}: {row:?} {expected:?}");
    }
    Ok(())
}
