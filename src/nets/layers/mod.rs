//! The few layers that all networks are made of. Each convolution carries its folded batch norm and its ReLU.
//!
//! Every layer has two ways. The plain one is candle's operations: any device, any type, gradients. The fast one is
//! [`kernels`]: f32 on the CPU where no gradient is wanted. Which one a layer goes is decided by its weights when it
//! is loaded: weights for the fast way are packed there and then and the tensor is dropped, so each is in memory once.
//! Weights that are variables (`VarBuilder::from_varmap`) go the plain way. There is a third way for NVIDIA GPUs, which
//! weights on a device of `nets::cuda` go.

mod conv;
mod deconv;
mod linear;
#[cfg(test)]
mod tests;
mod values;

use std::sync::atomic::{AtomicUsize, Ordering};

use candle_core::{CpuStorage, DType, Device, Result, Storage, Tensor, bail};
use candle_nn::VarBuilder;

#[cfg(feature = "cudnn")]
use super::cuda::{DeviceMap, Gpu, kernels::Pool};
use super::kernels::{self, Isa, Map};

pub use conv::{Conv2d, ConvShape};
pub use deconv::{Deconv2d, DeconvStack};
pub use linear::{Linear, Pointwise1d};
pub use values::Values;

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

    /// Weight `[O, ...]` and bias `[O]` of a layer that does what one with these and the norm after it did.
    fn folded_into(self, weight: &Tensor, bias: Option<Tensor>) -> Result<[Tensor; 2]> {
        let mut each_output = vec![1; weight.rank()];
        each_output[0] = weight.dim(0)?;
        let bias = match bias {
            Some(bias) => ((bias * &self.scale)? + self.shift)?,
            None => self.shift,
        };
        Ok([weight.broadcast_mul(&self.scale.reshape(each_output)?)?, bias])
    }
}

/// Batch norm's epsilon where nothing else is said.
pub const BN_EPS: f64 = 1e-5;

static PLAIN_RUNS: AtomicUsize = AtomicUsize::new(0);

/// How many layers, and reductions of heatmaps, went the plain way since the program started. None does on the CPU in
/// f32 without gradients, and a test counts them. (But the volumes of a 3D PoseNet whose bins are no multiple of 16.)
pub fn plain_runs() -> usize {
    PLAIN_RUNS.load(Ordering::Relaxed)
}

pub(crate) fn count_plain_run() {
    PLAIN_RUNS.fetch_add(1, Ordering::Relaxed);
}

/// Activations between layers, `[B, C, H, W]`. A chain of layers that passes them on, instead of tensors, keeps them
/// in the layout of the fast kernels.
pub enum Features {
    /// A tensor.
    Plain(Tensor),
    /// In blocks of 16 channels.
    Blocked(Map),
    /// On an NVIDIA GPU.
    #[cfg(feature = "cudnn")]
    Device(DeviceMap),
}

/// Whether the fast way is open to these tensors.
fn is_fast(tensors: &[&Tensor]) -> bool {
    tensors.iter().all(|t| t.device().is_cpu() && t.dtype() == DType::F32 && !t.track_op())
}

/// The GPU whose way is open to these tensors.
#[cfg(feature = "cudnn")]
fn gpu_of(tensors: &[&Tensor]) -> Option<std::sync::Arc<Gpu>> {
    let fits = |t: &&Tensor| t.device().is_cuda() && t.dtype() == DType::F32 && !t.track_op();
    if tensors.iter().all(fits) { Gpu::of(tensors.first()?.device()) } else { None }
}

/// Runs `work` on the floats of a tensor on the CPU.
fn with_floats<T>(x: &Tensor, work: impl FnOnce(&[f32]) -> Result<T>) -> Result<T> {
    if x.track_op() {
        bail!("a gradient is wanted through weights that were packed for speed: load them as variables");
    }
    let x = x.contiguous()?;
    let (storage, layout) = x.storage_and_layout();
    match (&*storage, layout.contiguous_offsets()) {
        (Storage::Cpu(CpuStorage::F32(data)), Some((start, end))) => work(&data[start..end]),
        _ => bail!("expected f32 on the CPU, got {:?} on {:?}", x.dtype(), x.device().location()),
    }
}

/// As [`with_floats`], for a weight and the bias that may go with it.
fn with_weights<T>(
    weight: &Tensor,
    bias: Option<&Tensor>,
    pack: impl FnOnce(&[f32], Option<&[f32]>) -> T,
) -> Result<T> {
    with_floats(weight, |weight| match bias {
        Some(bias) => with_floats(bias, |bias| Ok(pack(weight, Some(bias)))),
        None => Ok(pack(weight, None)),
    })
}

fn check_channels(expected: usize, found: usize) -> Result<()> {
    if found == expected { Ok(()) } else { bail!("expected {expected} channels, got {found}") }
}

impl Features {
    /// In the layout that the layers like best.
    pub fn new(x: impl Into<Values>) -> Result<Self> {
        let x = x.into();
        if !x.is_fast() {
            return Ok(Self::Plain(x.to_tensor()?));
        }
        let &[b, c, h, w] = x.dims() else { bail!("expected [B, C, H, W], got {:?}", x.dims()) };
        x.with_floats(|data| Ok(Self::Blocked(Map::from_planar([b, c, h, w], data))))
    }

    /// As a tensor.
    pub fn to_tensor(&self) -> Result<Tensor> {
        match self {
            Self::Plain(x) => Ok(x.clone()),
            Self::Blocked(map) => Tensor::from_slice(&map.to_planar(), &map.shape()[..], &Device::Cpu),
            #[cfg(feature = "cudnn")]
            Self::Device(map) => map.to_tensor(),
        }
    }

    /// Row-major, `[B, C, H, W]`.
    pub fn to_values(&self) -> Result<Values> {
        match self {
            Self::Blocked(map) => Ok(Values::new(map.to_planar(), &map.shape()[..])),
            #[cfg(feature = "cudnn")]
            Self::Device(map) => Ok(map.to_tensor()?.into()),
            Self::Plain(x) => Ok(x.into()),
        }
    }

    /// On a GPU, where a layer of that GPU reads them.
    #[cfg(feature = "cudnn")]
    pub fn to_device(&self, gpu: &std::sync::Arc<Gpu>) -> Result<DeviceMap> {
        match self {
            Self::Device(map) => Ok(map.clone()),
            Self::Plain(x) => DeviceMap::from_tensor(gpu, x),
            Self::Blocked(_) => bail!("the layer is on a GPU, its input on the processor"),
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
            #[cfg(feature = "cudnn")]
            Self::Device(map) => Ok(Self::Device(map.max_pool(Pool { kernel: 3, stride: 2, padding: 1 })?)),
        }
    }

    /// Means over the rows, `[B, C, W]`, and over the columns, `[B, C, H]`.
    pub fn line_means(&self) -> Result<[Values; 2]> {
        match self {
            Self::Plain(x) => Ok([x.mean(2)?.into(), x.mean(3)?.into()]),
            Self::Blocked(map) => {
                let [over_rows, over_columns] = kernels::line_means(Isa::detect(), map);
                let values = |floats, side| Values::new(floats, (map.batch, map.channels, side));
                Ok([values(over_rows, map.width), values(over_columns, map.height)])
            }
            #[cfg(feature = "cudnn")]
            Self::Device(map) => {
                count_plain_run();
                Self::Plain(map.to_tensor()?).line_means()
            }
        }
    }

    /// Mean of each channel, `[B, C, 1, 1]`.
    pub fn mean(&self) -> Result<Self> {
        match self {
            Self::Plain(x) => Ok(Self::Plain(x.mean_keepdim((2, 3))?)),
            Self::Blocked(map) => Ok(Self::Blocked(kernels::channel_means(Isa::detect(), map))),
            #[cfg(feature = "cudnn")]
            Self::Device(map) => Self::Plain(map.to_tensor()?).mean(),
        }
    }
}

fn to_map(x: &Tensor) -> Result<Map> {
    let (b, c, h, w) = x.dims4()?;
    with_floats(x, |data| Ok(Map::from_planar([b, c, h, w], data)))
}
