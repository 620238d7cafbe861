//! The kernels against candle's plain operations, on every instruction set of this machine.
//!
//! Tolerance: sums of up to some hundred products of numbers within +-1 in another order differ by a few units in
//! the last place of the largest intermediate sum, 1e-5 of the greatest output; Winograd's transforms add terms of
//! several times the size of the result, about one decimal digit.

use std::cell::Cell;

use candle_core::{Device, Result, Tensor};

use super::simd::{Kernel, Lanes};
use super::softmax::exp;
use super::tile::{Product, Steps};
use super::{
    Finish, Isa, Map, PackedConv, PackedDeconv, Winograd, WinogradDeconv, channel_means, line_means, max_pool,
    pointwise, volume_marginals,
};

const DIRECT: f32 = 1e-5;
const TRANSFORMED: f32 = 1e-4;

/// A linear congruential generator (Knuth's MMIX constants): the same shapes and values on every machine.
struct Random(Cell<u64>);

impl Random {
    fn bits(&self) -> u64 {
        self.0.set(self.0.get().wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407));
        self.0.get() >> 33
    }
    /// From `low` to `high`, both included.
    fn size(&self, low: usize, high: usize) -> usize {
        low + self.bits() as usize % (high - low + 1)
    }
    fn coin(&self) -> bool {
        self.bits() & 1 == 1
    }
    /// Within +-1.
    fn tensor(&self, shape: &[usize]) -> Result<Tensor> {
        let values: Vec<f32> =
            (0..shape.iter().product()).map(|_| self.bits() as f32 / (1_u64 << 30) as f32 - 1.0).collect();
        Tensor::from_vec(values, shape, &Device::Cpu)
    }
}

fn floats(x: &Tensor) -> Vec<f32> {
    x.flatten_all().and_then(|x| x.to_vec1()).expect("f32 on the CPU")
}

fn map(x: &Tensor) -> Map {
    let shape = x.dims4().expect("four dimensions");
    Map::from_planar(shape.into(), &floats(x))
}

#[track_caller]
fn assert_near(actual: &Map, expected: &Tensor, tolerance: f32, what: &str) {
    assert_eq!(&actual.shape()[..], expected.dims(), "{what}");
    assert_floats_near(&actual.to_planar(), expected, tolerance, what);
    // Later layers read whole blocks.
    let (blocks, plane) = (actual.blocks(), actual.plane());
    for (index, lanes) in actual.data.as_chunks::<16>().0.iter().enumerate() {
        let block = index * 16 / plane % blocks;
        let present = (actual.channels - block * 16).min(16);
        assert!(lanes[present..].iter().all(|x| *x == 0.0), "{what}: channels past the last are not zero");
    }
}

#[track_caller]
fn assert_floats_near(actual: &[f32], expected: &Tensor, tolerance: f32, what: &str) {
    let expected = floats(expected);
    assert_eq!(actual.len(), expected.len(), "{what}");
    let greatest = expected.iter().fold(1.0_f32, |m, x| m.max(x.abs()));
    for (i, (a, e)) in actual.iter().zip(&expected).enumerate() {
        assert!((a - e).abs() <= tolerance * greatest, "{what}: {a} instead of {e} at {i}, greatest {greatest}");
    }
}

struct Case {
    x: Tensor,
    weight: Tensor,
    bias: Option<Tensor>,
    residual: Option<Tensor>,
    relu: bool,
    stride: usize,
    padding: usize,
    expected: Tensor,
    name: String,
}

impl Case {
    fn new(r: &Random, kernel: usize, stride: usize, input: usize) -> Result<Self> {
        let padding = r.size(0, kernel / 2);
        let (batch, output) = (r.size(1, 5), r.size(1, 70));
        let (height, width) = (r.size(kernel, 23), r.size(kernel, 23));
        let x = r.tensor(&[batch, input, height, width])?;
        let weight = r.tensor(&[output, input, kernel, kernel])?;
        let bias = if r.coin() { Some(r.tensor(&[output])?) } else { None };
        let plain = x.conv2d(&weight, padding, stride, 1, 1)?;
        let residual = if r.coin() { Some(r.tensor(plain.dims())?) } else { None };
        let relu = r.coin();
        let mut expected = plain;
        if let Some(bias) = &bias {
            expected = expected.broadcast_add(&bias.reshape((1, output, 1, 1))?)?;
        }
        if let Some(residual) = &residual {
            expected = (expected + residual)?;
        }
        if relu {
            expected = expected.relu()?;
        }
        let name = format!("{:?} * {:?} stride {stride} padding {padding}", x.shape(), weight.shape());
        Ok(Self { x, weight, bias, residual, relu, stride, padding, expected, name })
    }

    fn check(&self, tolerance: f32, isa: Isa, run: impl Fn(&[f32], Option<&[f32]>, Finish) -> Map) {
        let residual = self.residual.as_ref().map(map);
        let finish = Finish { residual: residual.as_ref(), relu: self.relu };
        let bias = self.bias.as_ref().map(floats);
        let y = run(&floats(&self.weight), bias.as_deref(), finish);
        assert_near(&y, &self.expected, tolerance, &format!("{isa:?} {}", self.name));
    }
}

#[test]
fn convolution_matches_candle() -> Result<()> {
    let r = Random(Cell::new(1));
    for kernel in [1, 2, 3, 7] {
        for stride in [1, 2] {
            for _ in 0..8 {
                let input = r.size(1, 40);
                let case = Case::new(&r, kernel, stride, input)?;
                for isa in Isa::available() {
                    case.check(DIRECT, isa, |weight, bias, finish| {
                        let (output, input, kernel, _) = case.weight.dims4().expect("a kernel");
                        let shape = [output, input, kernel];
                        let conv = PackedConv::new(isa, shape, [case.stride, case.padding], weight, bias);
                        if input <= PackedConv::FEW_CHANNELS {
                            let shape = case.x.dims4().expect("an image").into();
                            conv.run_planes(shape, &floats(&case.x), finish)
                        } else {
                            conv.run(&map(&case.x), finish)
                        }
                    });
                }
            }
        }
    }
    Ok(())
}

#[test]
fn winograd_matches_candle() -> Result<()> {
    let r = Random(Cell::new(2));
    for _ in 0..40 {
        let input = r.size(1, 70);
        let case = Case::new(&r, 3, 1, input)?;
        for isa in Isa::available() {
            case.check(TRANSFORMED, isa, |weight, bias, finish| {
                let (output, input, ..) = case.weight.dims4().expect("a kernel");
                Winograd::new(isa, [output, input], case.padding, weight, bias).run(&map(&case.x), finish)
            });
        }
    }
    Ok(())
}

#[test]
fn winograd_in_several_passes_matches_candle() -> Result<()> {
    // So many tiles that the scratch memory holds only a part of them, over two images.
    let r = Random(Cell::new(3));
    let x = r.tensor(&[2, 32, 190, 101])?;
    let weight = r.tensor(&[64, 32, 3, 3])?;
    let expected = x.conv2d(&weight, 1, 1, 1, 1)?;
    let conv = Winograd::new(Isa::detect(), [64, 32], 1, &floats(&weight), None);
    assert_near(&conv.run(&map(&x), Finish::default()), &expected, TRANSFORMED, "several passes");
    Ok(())
}

#[test]
fn transposed_convolution_matches_candle() -> Result<()> {
    let r = Random(Cell::new(4));
    for _ in 0..20 {
        let (batch, input, output) = (r.size(1, 5), r.size(1, 70), r.size(1, 70));
        let x = r.tensor(&[batch, input, r.size(1, 13), r.size(1, 13)])?;
        let (weight, bias) = (r.tensor(&[input, output, 4, 4])?, r.tensor(&[output])?);
        let expected = x.conv_transpose2d(&weight, 1, 0, 2, 1)?.broadcast_add(&bias.reshape((1, output, 1, 1))?)?;
        for (relu, expected) in [(false, &expected), (true, &expected.relu()?)] {
            for isa in Isa::available() {
                let deconv = PackedDeconv::new(isa, [input, output], &floats(&weight), &floats(&bias));
                let name = format!("{isa:?} {:?} * {:?}", x.shape(), weight.shape());
                assert_near(&deconv.run(&map(&x), relu), expected, DIRECT, &name);
                let deconv = WinogradDeconv::new(isa, [input, output], &floats(&weight), &floats(&bias));
                assert_near(&deconv.run(&map(&x), relu), expected, TRANSFORMED, &format!("{name} by Winograd"));
            }
        }
    }
    Ok(())
}

#[test]
fn pointwise_matches_candle() -> Result<()> {
    let r = Random(Cell::new(5));
    for length in [1, 3, 15, 16, 17, 49, 64, 100] {
        for _ in 0..4 {
            let (batch, input, output) = (r.size(1, 5), r.size(1, 300), r.size(1, 70));
            let x = r.tensor(&[batch, input, length])?;
            let (weight, bias) = (r.tensor(&[output, input])?, r.tensor(&[output])?);
            let y = weight.broadcast_matmul(&x)?.broadcast_add(&bias.reshape((1, output, 1))?)?;
            for (relu, expected) in [(false, &y), (true, &y.relu()?)] {
                for isa in Isa::available() {
                    let (x, w, b) = (floats(&x), floats(&weight), floats(&bias));
                    let y = pointwise(isa, [batch, input, length], &x, &w, &b, relu);
                    let name = format!("{isa:?} [{output}, {input}] * [{batch}, {input}, {length}]");
                    assert_floats_near(&y, expected, DIRECT, &name);
                }
            }
        }
    }
    Ok(())
}

#[test]
fn max_pool_matches_candle() -> Result<()> {
    let r = Random(Cell::new(6));
    for _ in 0..10 {
        let x = r.tensor(&[r.size(1, 3), r.size(1, 40), r.size(2, 20), r.size(2, 20)])?;
        // candle has no padding: something below all values takes its place.
        let low = (x.pad_with_zeros(2, 1, 1)?.pad_with_zeros(3, 1, 1)? - 9.0)?;
        let inside = x.ones_like()?.pad_with_zeros(2, 1, 1)?.pad_with_zeros(3, 1, 1)?;
        let padded = (low + (inside * 9.0)?)?;
        let expected = padded.max_pool2d_with_stride(3, 2)?;
        for isa in Isa::available() {
            // Adding and taking away 9 rounds at 1e-6.
            assert_floats_near(&max_pool(isa, &map(&x), 3, 2, 1).to_planar(), &expected, DIRECT, "max pool");
        }
    }
    Ok(())
}

#[test]
fn layouts_are_inverse() -> Result<()> {
    let r = Random(Cell::new(7));
    for _ in 0..20 {
        let x = r.tensor(&[r.size(1, 3), r.size(1, 70), r.size(1, 40), r.size(1, 40)])?;
        assert_near(&map(&x), &x, 0.0, "there and back");
        let padded = x.pad_with_zeros(2, 2, 2)?.pad_with_zeros(3, 2, 2)?;
        assert_near(&map(&x).padded(2), &padded, 0.0, "padded");
    }
    Ok(())
}

fn product(out_steps: Steps) -> Product<'static> {
    let x_steps = Steps { batch: 0, row: 0, col: 1, block: 0 };
    let (planes, depth) = (1, 1);
    Product {
        batch: 1,
        rows: 2,
        cols: 4,
        blocks: 1,
        x_steps,
        planes,
        taps: &[0],
        depth,
        out_steps,
        own_weights: false,
        accumulate: false,
        relu: false,
    }
}

#[test]
#[should_panic(expected = "outputs overlap")]
fn overlapping_outputs_are_refused() {
    let overlapping = Steps { batch: 0, row: 32, col: 16, block: 0 };
    product(overlapping).run(Isa::detect(), &[0.0; 4], &[0.0; 16], None, None, &mut [0.0; 256]);
}

#[test]
#[should_panic(expected = "output too short")]
fn short_outputs_are_refused() {
    let steps = Steps { batch: 0, row: 64, col: 16, block: 0 };
    product(steps).run(Isa::detect(), &[0.0; 4], &[0.0; 16], None, None, &mut [0.0; 127]);
}

#[test]
fn exponentials_are_within_two_units_in_the_last_place() {
    struct All<'a>(&'a [f32], &'a mut [f32]);
    impl Kernel for All<'_> {
        #[inline(always)]
        fn run<V: Lanes>(self) {
            for (x, y) in self.0.as_chunks().0.iter().zip(self.1.as_chunks_mut().0) {
                exp(V::load(x)).store(y);
            }
        }
    }
    let x: Vec<f32> = (0..16_000).map(|i| -87.0 * (i as f32 / 15_999.0).powi(2)).collect();
    for isa in Isa::available() {
        let mut y = vec![0.0; x.len()];
        isa.run(All(&x, &mut y));
        for (x, y) in x.iter().zip(y) {
            let exact = f64::from(*x).exp();
            let apart = (f64::from(y) - exact).abs() / exact;
            assert!(apart < 2.0 * f64::from(f32::EPSILON), "{isa:?}: exp({x}) = {y}, off by {apart:e}");
        }
    }
}

#[test]
fn means_of_lines_agree_with_candle() -> Result<()> {
    let random = Random(Cell::new(11));
    for shape in [[1, 16, 5, 7], [2, 37, 3, 1], [3, 5, 1, 20]] {
        let x = random.tensor(&shape)?;
        for isa in Isa::available() {
            let [over_rows, over_columns] = line_means(isa, &map(&x));
            assert_floats_near(&over_rows, &x.mean(2)?, DIRECT, "over rows");
            assert_floats_near(&over_columns, &x.mean(3)?, DIRECT, "over columns");
            let expected = x.mean_keepdim((2, 3))?;
            assert_near(&channel_means(isa, &map(&x)), &expected, DIRECT, "over both");
        }
    }
    Ok(())
}

#[test]
fn marginals_of_volumes_agree_with_candle() -> Result<()> {
    let random = Random(Cell::new(12));
    for (batch, volumes, depth) in [(1, 1, 16), (2, 3, 32)] {
        let x = (random.tensor(&[batch, volumes * depth, depth, depth])? * 9.0)?;
        let flat = x.reshape((batch, volumes, depth * depth * depth))?;
        let p = candle_nn::ops::softmax_last_dim(&flat)?.reshape((batch, volumes, depth, depth, depth))?;
        let marginals = [p.sum((2, 3))?, p.sum((2, 4))?, p.sum((3, 4))?];
        let expected = Tensor::stack(&marginals, 2)?;
        for isa in Isa::available() {
            // Probabilities: sums of up to 32^2 positive numbers of at most 1.
            assert_floats_near(&volume_marginals(isa, &map(&x).data, depth), &expected, 1e-6, "marginals");
        }
    }
    Ok(())
}
