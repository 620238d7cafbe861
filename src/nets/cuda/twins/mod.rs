//! The kernels, on the processor, against their plain twins: the same text and the same launches as on a GPU.

mod detector;
mod heatmaps;
mod pictures;

use anyhow::Result;
use candle_core::{DType, Device, Tensor};

use super::host::Host;
use super::kernels::{self, ConvDims, Launch, MapDims, Pool, ProductDims, Ptr, Tail};
use crate::nets::Precision;
use crate::nets::layers::Features;

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
    let packed = crate::nets::cuda::pack::deconv_weights(&floats(&weight), [input, output]);
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
        let bias = host.upload(&crate::nets::cuda::pack::filled(&floats(&bias), phase.padded()));
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
    assert_eq!(crate::nets::cuda::pack::conv_weights(&floats(&weight), [10, 3, 5]), expected);
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
fn maps_are_followed_by_their_mirror_images() -> Result<()> {
    let x = exact(&[2, 11, 3, 5], 1.0);
    for precision in ALL {
        let host = Host::new(precision)?;
        let both = MapDims { batch: 4, ..dims(&x) };
        let y = host.empty_elements(both.elements());
        kernels::and_mirrored(&host, map(&host, &x)?, y, dims(&x))?;
        let expected = Tensor::cat(&[&x, &x.flip(&[3])?], 0)?;
        assert_eq!(floats(&tensor(&host, y, both)?), floats(&expected), "{precision:?}");
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
        let w = host.upload(&crate::nets::cuda::pack::filled(&floats(&weight), padded));
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
fn a_launch_that_does_not_fit_its_kernel_is_refused() -> Result<()> {
    let host = Host::new(Precision::F32)?;
    let grid = kernels::Grid { blocks: [1; 3], threads: 32, shared_bytes: 0 };
    let error = host.launch("clear", grid, &[Ptr::NULL.into(), 3_usize.into()]).unwrap_err().to_string();
    assert!(error.contains("clear takes [Pointer, Long], not [Pointer, Int]"), "{error}");
    assert!(host.launch("no_such_kernel", grid, &[]).is_err());
    Ok(())
}
