//! The few layers that all networks are made of. Each convolution carries its folded batch norm and its ReLU.
//!
//! Every layer has two ways. The plain one is candle's operations: any device, any type, gradients. The fast one is
//! [`kernels`]: f32 on the CPU where no gradient is wanted. Which one is taken depends on the tensors alone (see
//! [`Features`]), so an input that is a variable, `Var::from_tensor(&x)`, makes a whole network go the plain way.

use std::sync::OnceLock;

use candle_core::{CpuStorage, DType, Result, Storage, Tensor, bail};
use candle_nn::VarBuilder;

use super::kernels::{self, Finish, Isa, Map, PackedConv, PackedDeconv, Winograd, WinogradDeconv};

/// What follows a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// Nothing.
    None,
    /// max(x, 0).
    Relu,
}

impl Activation {
    fn apply(self, x: Tensor) -> Result<Tensor> {
        match self {
            Self::None => Ok(x),
            Self::Relu => x.relu(),
        }
    }
}

/// Batch norm as a scale and a shift for each channel: `y = x * scale + shift`.
pub struct FoldedNorm {
    /// `[C]`
    pub scale: Tensor,
    /// `[C]`
    pub shift: Tensor,
}

impl FoldedNorm {
    /// Reads `weight`, `bias`, `running_mean`, `running_var` of `channels` channels.
    pub fn load(channels: usize, eps: f64, vb: &VarBuilder) -> Result<Self> {
        let (weight, bias) = (vb.get(channels, "weight")?, vb.get(channels, "bias")?);
        let (mean, var) = (vb.get(channels, "running_mean")?, vb.get(channels, "running_var")?);
        let scale = (weight / (var + eps)?.sqrt()?)?;
        let shift = (bias - (mean * &scale)?)?;
        Ok(Self { scale, shift })
    }
}

/// Batch norm's epsilon where nothing else is said.
pub const BN_EPS: f64 = 1e-5;

/// Activations between layers, `[B, C, H, W]`. A chain of layers that passes them on, instead of tensors, keeps them
/// in the layout of the fast kernels.
pub enum Features {
    /// A tensor.
    Plain(Tensor),
    /// In blocks of 16 channels.
    Blocked(Map),
}

/// Whether the fast way is open to these tensors.
fn is_fast(tensors: &[&Tensor]) -> bool {
    tensors.iter().all(|t| t.device().is_cpu() && t.dtype() == DType::F32 && !t.track_op())
}

/// Runs `work` on the floats of a tensor on the CPU.
fn with_floats<T>(x: &Tensor, work: impl FnOnce(&[f32]) -> Result<T>) -> Result<T> {
    let x = x.contiguous()?;
    let (storage, layout) = x.storage_and_layout();
    match (&*storage, layout.contiguous_offsets()) {
        (Storage::Cpu(CpuStorage::F32(data)), Some((start, end))) => work(&data[start..end]),
        _ => bail!("expected f32 on the CPU, got {:?} on {:?}", x.dtype(), x.device().location()),
    }
}

impl Features {
    /// In the layout that the layers like best.
    pub fn new(x: &Tensor) -> Result<Self> {
        if is_fast(&[x]) { Ok(Self::Blocked(to_map(x)?)) } else { Ok(Self::Plain(x.clone())) }
    }

    /// As a tensor.
    pub fn to_tensor(&self) -> Result<Tensor> {
        match self {
            Self::Plain(x) => Ok(x.clone()),
            Self::Blocked(map) => Tensor::from_vec(map.to_planar(), &map.shape()[..], &candle_core::Device::Cpu),
        }
    }

    /// 3x3 max-pool with stride 2 and padding 1 of values that are nowhere negative.
    pub fn max_pool_3x3(&self) -> Result<Self> {
        match self {
            // With nothing below 0, padding with zeros is padding with minus infinity.
            Self::Plain(x) => {
                let x = x.pad_with_zeros(2, 1, 1)?.pad_with_zeros(3, 1, 1)?;
                Ok(Self::Plain(x.max_pool2d_with_stride(3, 2)?))
            }
            Self::Blocked(map) => Ok(Self::Blocked(kernels::max_pool(Isa::detect(), map, 3, 2, 1))),
        }
    }
}

fn to_map(x: &Tensor) -> Result<Map> {
    let (b, c, h, w) = x.dims4()?;
    with_floats(x, |data| Ok(Map::from_planar([b, c, h, w], data)))
}

/// A 2D convolution with everything that follows it folded in.
pub struct Conv2d {
    weight: Tensor,       // [O, I, K, K]
    bias: Option<Tensor>, // [1, O, 1, 1]
    stride: usize,
    padding: usize,
    activation: Activation,
    direct: OnceLock<PackedConv>,
    winograd: OnceLock<Winograd>,
}

/// Shape of a square convolution.
#[derive(Clone, Copy, Debug)]
pub struct ConvShape {
    /// Input channels.
    pub input: usize,
    /// Output channels.
    pub output: usize,
    /// Side of the kernel.
    pub kernel: usize,
    /// Step between outputs.
    pub stride: usize,
    /// Zeros added at each side.
    pub padding: usize,
}

impl ConvShape {
    /// A convolution that keeps the size (odd kernel, stride 1).
    pub fn same(input: usize, output: usize, kernel: usize) -> Self {
        Self { input, output, kernel, stride: 1, padding: kernel / 2 }
    }

    /// The same with a stride.
    #[must_use]
    pub fn strided(self, stride: usize) -> Self {
        Self { stride, ..self }
    }
}

impl Conv2d {
    /// Reads `weight` and, where `with_bias`, `bias`; folds `norm` in.
    pub fn load(
        shape: ConvShape,
        with_bias: bool,
        norm: Option<FoldedNorm>,
        activation: Activation,
        vb: &VarBuilder,
    ) -> Result<Self> {
        let ConvShape { input, output, kernel, stride, padding } = shape;
        let mut weight = vb.get((output, input, kernel, kernel), "weight")?;
        let mut bias = with_bias.then(|| vb.get(output, "bias")).transpose()?;
        if let Some(FoldedNorm { scale, shift }) = norm {
            weight = weight.broadcast_mul(&scale.reshape((output, 1, 1, 1))?)?;
            bias = Some(match bias {
                Some(bias) => ((bias * scale)? + shift)?,
                None => shift,
            });
        }
        let bias = bias.map(|b| b.reshape((1, output, 1, 1))).transpose()?;
        let (direct, winograd) = (OnceLock::new(), OnceLock::new());
        Ok(Self { weight: weight.contiguous()?, bias, stride, padding, activation, direct, winograd })
    }

    /// `[B, I, H, W] -> [B, O, H', W']`
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        if is_fast(&[x, &self.weight]) {
            return Features::Blocked(self.fast_from_tensor(x, None)?).to_tensor();
        }
        self.activation.apply(self.linear(x)?)
    }

    /// As [`Self::forward`], with `residual` added before the activation.
    pub fn forward_add(&self, x: &Tensor, residual: &Tensor) -> Result<Tensor> {
        if is_fast(&[x, residual, &self.weight]) {
            return Features::Blocked(self.fast_from_tensor(x, Some(&to_map(residual)?))?).to_tensor();
        }
        self.activation.apply((self.linear(x)? + residual)?)
    }

    /// [`Self::forward`], or [`Self::forward_add`] where there is a `residual`, within a chain of layers.
    pub fn run(&self, x: &Features, residual: Option<&Features>) -> Result<Features> {
        let blocked_residual = match residual {
            Some(Features::Blocked(map)) => Some(map),
            _ => None,
        };
        match x {
            Features::Blocked(x) if is_fast(&[&self.weight]) && residual.is_some() == blocked_residual.is_some() => {
                Ok(Features::Blocked(self.fast(x, blocked_residual)?))
            }
            Features::Plain(x) if is_fast(&[x, &self.weight]) && residual.is_none() => {
                Ok(Features::Blocked(self.fast_from_tensor(x, None)?))
            }
            _ => {
                let x = x.to_tensor()?;
                let y = match residual {
                    Some(residual) => self.forward_add(&x, &residual.to_tensor()?),
                    None => self.forward(&x),
                };
                Ok(Features::Plain(y?))
            }
        }
    }

    fn fast_from_tensor(&self, x: &Tensor, residual: Option<&Map>) -> Result<Map> {
        let (b, c, h, w) = x.dims4()?;
        self.check_channels(c)?;
        if c <= PackedConv::FEW_CHANNELS {
            let conv = self.direct()?;
            with_floats(x, |x| Ok(conv.run_planes([b, c, h, w], x, self.finish(residual))))
        } else {
            self.fast(&to_map(x)?, residual)
        }
    }

    fn fast(&self, x: &Map, residual: Option<&Map>) -> Result<Map> {
        self.check_channels(x.channels)?;
        if self.weight.dim(2)? == 3 && self.stride == 1 && worth_transforming(x, self.weight.dim(0)?) {
            Ok(self.winograd()?.run(x, self.finish(residual)))
        } else {
            Ok(self.direct()?.run(x, self.finish(residual)))
        }
    }

    fn check_channels(&self, channels: usize) -> Result<()> {
        let expected = self.weight.dim(1)?;
        if channels == expected { Ok(()) } else { bail!("expected {expected} channels, got {channels}") }
    }

    fn finish<'a>(&self, residual: Option<&'a Map>) -> Finish<'a> {
        Finish { residual, relu: self.activation == Activation::Relu }
    }

    fn direct(&self) -> Result<&PackedConv> {
        get_or_try_init(&self.direct, || {
            let (o, i, k, _) = self.weight.dims4()?;
            let steps = [self.stride, self.padding];
            self.with_weights(|w, b| PackedConv::new(Isa::detect(), [o, i, k], steps, w, b))
        })
    }

    fn winograd(&self) -> Result<&Winograd> {
        get_or_try_init(&self.winograd, || {
            let (o, i, ..) = self.weight.dims4()?;
            self.with_weights(|w, b| Winograd::new(Isa::detect(), [o, i], self.padding, w, b))
        })
    }

    fn with_weights<T>(&self, pack: impl FnOnce(&[f32], Option<&[f32]>) -> T) -> Result<T> {
        with_floats(&self.weight, |weight| match &self.bias {
            Some(bias) => with_floats(bias, |bias| Ok(pack(weight, Some(bias)))),
            None => Ok(pack(weight, None)),
        })
    }

    fn linear(&self, x: &Tensor) -> Result<Tensor> {
        let y = x.conv2d(&self.weight, self.padding, self.stride, 1, 1)?;
        match &self.bias {
            Some(bias) => y.broadcast_add(bias),
            None => Ok(y),
        }
    }
}

/// Whether Winograd's transformed weights, four times as large, cost less to read than the products that they save:
/// not where few pixels share large weights.
fn worth_transforming(x: &Map, output: usize) -> bool {
    let pixels = x.batch * x.height * x.width;
    pixels >= 128 || x.channels * output < 512 * 512
}

/// The packed weights, made when they are first asked for.
fn get_or_try_init<T>(cell: &OnceLock<T>, make: impl FnOnce() -> Result<T>) -> Result<&T> {
    if let Some(value) = cell.get() {
        return Ok(value);
    }
    let value = make()?;
    Ok(cell.get_or_init(|| value))
}

/// Transposed convolution, kernel 4, stride 2, padding 1, without bias, followed by batch norm and ReLU: doubles
/// the sides.
pub struct Deconv2d {
    weight: Tensor, // [I, O, 4, 4]
    bias: Tensor,   // [1, O, 1, 1]
    direct: OnceLock<PackedDeconv>,
    winograd: OnceLock<WinogradDeconv>,
}

impl Deconv2d {
    /// Reads the convolution at `vb` and its norm at `norm_vb`.
    pub fn load(input: usize, output: usize, vb: &VarBuilder, norm_vb: &VarBuilder) -> Result<Self> {
        let FoldedNorm { scale, shift } = FoldedNorm::load(output, BN_EPS, norm_vb)?;
        let weight = vb.get((input, output, 4, 4), "weight")?;
        let weight = weight.broadcast_mul(&scale.reshape((1, output, 1, 1))?)?.contiguous()?;
        Ok(Self { weight, bias: shift.reshape((1, output, 1, 1))?, direct: OnceLock::new(), winograd: OnceLock::new() })
    }

    /// `[B, I, H, W] -> [B, O, 2H, 2W]`
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.run(&Features::new(x)?)?.to_tensor()
    }

    /// [`Self::forward`] within a chain of layers.
    pub fn run(&self, x: &Features) -> Result<Features> {
        match x {
            Features::Blocked(x) if is_fast(&[&self.weight]) => {
                let (input, output, ..) = self.weight.dims4()?;
                if x.channels != input {
                    bail!("expected {input} channels, got {}", x.channels);
                }
                let shape = [input, output];
                // As `worth_transforming`, with 100 instead of 16 transformed weights.
                Ok(Features::Blocked(if x.batch * x.height * x.width >= 512 {
                    let pack = || self.with_weights(|w, b| WinogradDeconv::new(Isa::detect(), shape, w, b));
                    get_or_try_init(&self.winograd, pack)?.run(x, true)
                } else {
                    let pack = || self.with_weights(|w, b| PackedDeconv::new(Isa::detect(), shape, w, b));
                    get_or_try_init(&self.direct, pack)?.run(x, true)
                }))
            }
            x => Ok(Features::Plain(self.plain(&x.to_tensor()?)?)),
        }
    }

    fn with_weights<T>(&self, pack: impl FnOnce(&[f32], &[f32]) -> T) -> Result<T> {
        with_floats(&self.weight, |weight| with_floats(&self.bias, |bias| Ok(pack(weight, bias))))
    }

    fn plain(&self, x: &Tensor) -> Result<Tensor> {
        x.conv_transpose2d(&self.weight, 1, 0, 2, 1)?.broadcast_add(&self.bias)?.relu()
    }
}

/// The three transposed convolutions that all heads share (`make_deconv`): `[B, 2048, h, w] -> [B, 256, 8h, 8w]`.
pub struct DeconvStack([Deconv2d; 3]);

impl DeconvStack {
    /// Channels that come out.
    pub const CHANNELS: usize = 256;

    /// Reads layers 0, 1, 3, 4, 6 and 7 of `vb`.
    pub fn load(input: usize, vb: &VarBuilder) -> Result<Self> {
        let layer = |input, at: usize| Deconv2d::load(input, Self::CHANNELS, &vb.pp(at), &vb.pp(at + 1));
        Ok(Self([layer(input, 0)?, layer(Self::CHANNELS, 3)?, layer(Self::CHANNELS, 6)?]))
    }

    /// `[B, C, h, w] -> [B, 256, 8h, 8w]`
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let [a, b, c] = &self.0;
        c.run(&b.run(&a.run(&Features::new(x)?)?)?)?.to_tensor()
    }
}

/// A 1D convolution with kernel 1: the same linear map at every position.
pub struct Pointwise1d {
    weight: Tensor, // [O, I]
    bias: Tensor,   // [1, O, 1]
    activation: Activation,
}

impl Pointwise1d {
    /// Reads `weight` (`[O, I, 1]`) and `bias`; folds `norm` in.
    pub fn load(
        input: usize,
        output: usize,
        norm: Option<FoldedNorm>,
        activation: Activation,
        vb: &VarBuilder,
    ) -> Result<Self> {
        let mut weight = vb.get((output, input, 1), "weight")?.squeeze(2)?;
        let mut bias = vb.get(output, "bias")?;
        if let Some(FoldedNorm { scale, shift }) = norm {
            weight = weight.broadcast_mul(&scale.reshape((output, 1))?)?;
            bias = ((bias * scale)? + shift)?;
        }
        Ok(Self { weight: weight.contiguous()?, bias: bias.reshape((1, output, 1))?, activation })
    }

    /// `[B, I, L] -> [B, O, L]`
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        if is_fast(&[x, &self.weight]) {
            return self.fast(x);
        }
        let y = self.weight.broadcast_matmul(&x.contiguous()?)?.broadcast_add(&self.bias)?;
        self.activation.apply(y)
    }

    fn fast(&self, x: &Tensor) -> Result<Tensor> {
        let (b, i, l) = x.dims3()?;
        let (output, input) = self.weight.dims2()?;
        if i != input {
            bail!("expected {input} channels, got {i}");
        }
        let relu = self.activation == Activation::Relu;
        let y = with_floats(x, |x| {
            with_floats(&self.weight, |weight| {
                with_floats(&self.bias, |bias| Ok(kernels::pointwise(Isa::detect(), [b, i, l], x, weight, bias, relu)))
            })
        })?;
        Tensor::from_vec(y, (b, output, l), x.device())
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};
    use candle_nn::VarMap;

    use super::super::resnet::{Depth, Stages, Stem};
    use super::*;

    /// What `load` asks for, with random weights that keep the activations' size (He et al. 2015).
    fn load_random<T>(load: impl Fn(&VarBuilder) -> Result<T>) -> Result<T> {
        let map = VarMap::new();
        load(&VarBuilder::from_varmap(&map, DType::F32, &Device::Cpu))?;
        let mut tensors = std::collections::HashMap::new();
        for (name, var) in map.data().lock().expect("nobody panicked with the lock").iter() {
            let fan_in: usize = var.dims().iter().skip(1).product();
            let random = if var.rank() > 1 {
                Tensor::randn(0_f32, (2.0 / fan_in as f32).sqrt(), var.dims(), &Device::Cpu)?
            } else {
                Tensor::rand(0.4_f32, 0.6, var.dims(), &Device::Cpu)?
            };
            tensors.insert(name.clone(), random);
        }
        load(&VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu))
    }

    /// The plain way: a network whose input is a variable.
    fn plain(x: &Tensor) -> Result<Tensor> {
        Ok(Var::from_tensor(x)?.as_tensor().clone())
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
            let load = |vb: &VarBuilder| Ok((Stem::load(BN_EPS, vb)?, Stages::load(depth, BN_EPS, vb)?));
            let (stem, stages) = load_random(load)?;
            for size in [[1, 3, 64, 64], [3, 3, 72, 50]] {
                let image = Tensor::rand(0_f32, 1.0, &size, &Device::Cpu)?;
                let all = |image: &Tensor| stages.forward_all(&stem.forward(image)?);
                let (fast, plain) = (all(&image)?, all(&plain(&image)?)?);
                for (fast, plain) in fast.iter().zip(&plain) {
                    // 50 layers, each of which adds a relative error of some 1e-6.
                    let deviation = deviation(fast, plain)?;
                    assert!(deviation < 1e-4, "ResNet-{layers}: {deviation}");
                }
                let last = stages.forward(&stem.forward(&image)?)?;
                assert_eq!(last.flatten_all()?.to_vec1::<f32>()?, fast[3].flatten_all()?.to_vec1::<f32>()?);
            }
        }
        Ok(())
    }

    #[test]
    fn deconvolutions_and_heads_agree_both_ways() -> Result<()> {
        let load = |vb: &VarBuilder| {
            let norm = FoldedNorm::load(40, BN_EPS, &vb.pp("norm"))?;
            let head = Pointwise1d::load(256, 40, Some(norm), Activation::Relu, &vb.pp("head"))?;
            Ok((DeconvStack::load(96, &vb.pp("deconv"))?, head))
        };
        let (stack, head) = load_random(load)?;
        // So many pixels that the last of the three layers goes by Winograd, the others directly.
        let x = Tensor::rand(0_f32, 1.0, (6, 96, 3, 2), &Device::Cpu)?;
        let all = |x: &Tensor| head.forward(&stack.forward(x)?.mean(2)?);
        let deviation = deviation(&all(&x)?, &all(&plain(&x)?)?)?;
        assert!(deviation < 1e-5, "{deviation}");
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
        let conv = load_random(|vb| Conv2d::load(ConvShape::same(16, 4, 3), true, None, Activation::None, vb))?;
        let x = Tensor::zeros((1, 17, 8, 8), DType::F32, &Device::Cpu)?;
        assert!(conv.forward(&x).unwrap_err().to_string().contains("expected 16 channels, got 17"));
        Ok(())
    }
}
