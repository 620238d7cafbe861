//! Activations on the device, and the layers that make them.

use std::sync::Arc;

use candle_core::{Device, Result, Tensor, bail};

use super::convolution::Parts;
use super::gpu::{Buffer, Gpu, Kept, Stamp};
use super::kernels::{self, ConvDims, Launch, MapDims, Pool, ProductDims, Ptr, Scaling, Tail};
use super::pack;
use super::products::Operands;

/// `[batch, height, width, channels]` in the precision's type, channels filled up with zeros.
#[derive(Clone)]
pub struct DeviceMap {
    gpu: Arc<Gpu>,
    buffer: Arc<Buffer>,
    /// Sizes.
    pub dims: MapDims,
    /// Where a graph will write again.
    stamp: Option<Stamp>,
}

impl DeviceMap {
    /// Memory for a map; what it holds is arbitrary.
    pub fn new(gpu: &Arc<Gpu>, dims: MapDims) -> Result<Self> {
        if dims.elements() > i32::MAX as usize {
            bail!("a map of {dims:?} is too large for the GPU's kernels");
        }
        let buffer = Arc::new(gpu.take(dims.elements() * gpu.precision().bytes())?);
        Ok(Self { gpu: Arc::clone(gpu), buffer, dims, stamp: None })
    }

    /// From a tensor `[B, C, H, W]` f32.
    pub fn from_tensor(gpu: &Arc<Gpu>, x: &Tensor) -> Result<Self> {
        let (b, c, h, w) = x.dims4()?;
        let map = Self::new(gpu, MapDims::new([b, c, h, w]))?;
        map.fill(x, None)?;
        Ok(map)
    }

    /// Writes a tensor of its size into it.
    pub fn fill(&self, x: &Tensor, scaling: Option<Scaling>) -> Result<()> {
        let MapDims { batch, height, width, channels } = self.dims;
        if x.dims() != [batch, channels, height, width] {
            bail!("a map of {:?} cannot take {:?}", self.dims, x.shape());
        }
        self.gpu.import(x, |x| kernels::planar_to_map(&*self.gpu, x, self.at(), self.dims, scaling))
    }

    /// As a tensor `[B, C, H, W]` f32.
    pub fn to_tensor(&self) -> Result<Tensor> {
        if let Some(stamp) = &self.stamp {
            stamp.check()?;
        }
        let MapDims { batch, height, width, channels } = self.dims;
        let planar = self.gpu.take(batch * channels * height * width * size_of::<f32>())?;
        kernels::map_to_planar(&*self.gpu, self.at(), planar.at(), self.dims)?;
        self.gpu.tensor(planar.at(), (batch, channels, height, width))
    }

    /// Where it is.
    pub fn at(&self) -> Ptr {
        self.buffer.at()
    }

    /// The device.
    pub fn gpu(&self) -> &Arc<Gpu> {
        &self.gpu
    }

    /// The same, which knows when a graph has written over it.
    pub fn stamped(&self, stamp: Stamp) -> Self {
        Self { stamp: Some(stamp), ..self.clone() }
    }

    /// Max-pool.
    pub fn max_pool(&self, pool: Pool) -> Result<Self> {
        let y = Self::new(&self.gpu, pool.out(self.dims))?;
        kernels::max_pool(&*self.gpu, self.at(), y.at(), self.dims, pool)?;
        Ok(y)
    }

    /// Every pixel becomes a square of four.
    pub fn doubled(&self) -> Result<Self> {
        let MapDims { height, width, .. } = self.dims;
        let y = Self::new(&self.gpu, MapDims { height: 2 * height, width: 2 * width, ..self.dims })?;
        kernels::doubled(&*self.gpu, self.at(), y.at(), self.dims)?;
        Ok(y)
    }
}

/// A tensor's f32 on the processor.
pub fn host_floats(x: &Tensor) -> Result<Vec<f32>> {
    x.to_device(&Device::Cpu)?.contiguous()?.flatten_all()?.to_vec1()
}

/// A convolution with what follows it.
pub struct DeviceConv {
    gpu: Arc<Gpu>,
    input: usize,
    output: usize,
    kernel: usize,
    stride: usize,
    padding: usize,
    relu: bool,
    weight: Kept,
    bias: Kept,
    bias_f32: Kept,
}

impl DeviceConv {
    /// From a weight `[O, I, K, K]` and a bias `[O]`.
    pub fn new(
        gpu: &Arc<Gpu>,
        weight: &Tensor,
        bias: Option<&Tensor>,
        [stride, padding]: [usize; 2],
        relu: bool,
    ) -> Result<Self> {
        let (output, input, kernel, _) = weight.dims4()?;
        let packed = pack::conv_weights(&host_floats(weight)?, [output, input, kernel]);
        let bias = bias.map_or_else(|| Ok(Vec::new()), host_floats)?;
        let bias = pack::filled(&bias, output.next_multiple_of(MapDims::CHANNEL_STEP));
        Ok(Self {
            gpu: Arc::clone(gpu),
            input,
            output,
            kernel,
            stride,
            padding,
            relu,
            weight: gpu.keep_elements(&packed)?,
            bias: gpu.keep_elements(&bias)?,
            bias_f32: gpu.keep_floats(&bias)?,
        })
    }

    /// `residual` is added before the activation.
    pub fn run(&self, x: &DeviceMap, residual: Option<&DeviceMap>) -> Result<DeviceMap> {
        let y = DeviceMap::new(&self.gpu, self.dims(x)?.out())?;
        if let Some(residual) = residual
            && residual.dims != y.dims
        {
            bail!("a residual of {:?} where the convolution makes {:?}", residual.dims, y.dims);
        }
        self.run_into(x, residual.map(DeviceMap::at), y.at())?;
        Ok(y)
    }

    /// The same into memory of the caller's.
    pub fn run_into(&self, x: &DeviceMap, residual: Option<Ptr>, y: Ptr) -> Result<()> {
        let tail = Tail { bias: self.bias_f32.at(), residual, relu: self.relu };
        let parts = Parts { x: x.at(), weight: self.weight.at(), bias: self.bias.at(), tail, y };
        let dims = self.dims(x)?;
        self.count(&dims, residual.is_some());
        self.gpu.libraries.convolve(&self.gpu, dims, parts)
    }

    fn count(&self, dims: &ConvDims, residual: bool) {
        let (out, area) = (dims.out(), self.kernel * self.kernel);
        let weights = self.padded_output() * dims.depth();
        let elements = weights + dims.input.elements() + out.elements() * if residual { 2 } else { 1 };
        self.gpu.count(out.pixels() * self.output * area * self.input, elements * self.gpu.precision().bytes());
    }

    fn dims(&self, x: &DeviceMap) -> Result<ConvDims> {
        if x.dims.channels != self.input {
            bail!("expected {} channels, got {}", self.input, x.dims.channels);
        }
        let Self { output, kernel, stride, padding, .. } = *self;
        Ok(ConvDims { input: x.dims, output, kernel, stride, padding })
    }

    /// Linear maps of the rows `[m, I]` in the precision's type to `[m, O filled up]` f32, without the bias.
    pub fn run_wide(&self, x: &DeviceMap) -> Result<Buffer> {
        let dims = self.dims(x)?;
        self.count(&dims, false);
        let out = dims.out();
        let product = ProductDims {
            batch: 1,
            m: out.pixels(),
            n: out.padded(),
            k: dims.depth(),
            shared_b: true,
            wide: true,
            bias: false,
            relu: false,
        };
        let y = self.gpu.take(product.m * product.n * size_of::<f32>())?;
        let operands = Operands {
            a: x.at(),
            b: self.weight.at(),
            bias: Ptr::NULL,
            bias_f32: Ptr::NULL,
            residual: None,
            d: y.at(),
        };
        self.gpu.libraries.products.run(&self.gpu, product, operands)?;
        Ok(y)
    }

    /// The bias, f32, filled up.
    pub fn bias(&self) -> Ptr {
        self.bias_f32.at()
    }

    /// Stored output channels.
    pub fn padded_output(&self) -> usize {
        self.output.next_multiple_of(MapDims::CHANNEL_STEP)
    }
}

/// A transposed convolution with kernel 4, stride 2, padding 1, bias and ReLU: four 2x2 convolutions, whose taps are
/// gathered and multiplied in one batched product.
pub struct DeviceDeconv {
    gpu: Arc<Gpu>,
    input: usize,
    output: usize,
    weight: Kept,
    bias: Kept,
    bias_f32: Kept,
}

impl DeviceDeconv {
    /// From a weight `[I, O, 4, 4]` and a bias `[O]`.
    pub fn new(gpu: &Arc<Gpu>, weight: &Tensor, bias: &Tensor) -> Result<Self> {
        let (input, output, _, _) = weight.dims4()?;
        let packed = pack::deconv_weights(&host_floats(weight)?, [input, output]);
        let bias = pack::filled(&host_floats(bias)?, output.next_multiple_of(MapDims::CHANNEL_STEP));
        Ok(Self {
            gpu: Arc::clone(gpu),
            input,
            output,
            weight: gpu.keep_elements(&packed)?,
            bias: gpu.keep_elements(&bias)?,
            bias_f32: gpu.keep_floats(&bias)?,
        })
    }

    /// Doubles the sides.
    pub fn run(&self, x: &DeviceMap) -> Result<DeviceMap> {
        if x.dims.channels != self.input {
            bail!("expected {} channels, got {}", self.input, x.dims.channels);
        }
        let gpu = &*self.gpu;
        let bytes = gpu.precision().bytes();
        let phase = MapDims { channels: self.output, ..x.dims };
        let depth = 4 * x.dims.padded();
        let taps = gpu.take(4 * phase.pixels() * depth * bytes)?;
        kernels::gather_phase_taps(gpu, x.at(), taps.at(), x.dims)?;
        let phases = gpu.take(4 * phase.elements() * bytes)?;
        let product = ProductDims {
            batch: 4,
            m: phase.pixels(),
            n: phase.padded(),
            k: depth,
            shared_b: false,
            wide: false,
            bias: true,
            relu: true,
        };
        let operands = Operands {
            a: taps.at(),
            b: self.weight.at(),
            bias: self.bias.at(),
            bias_f32: self.bias_f32.at(),
            residual: None,
            d: phases.at(),
        };
        // Gathered taps are our own detour; what has to be read and written is input, weights and output.
        let elements = x.dims.elements() + 4 * phase.padded() * depth + 4 * phase.elements();
        gpu.count(16 * phase.pixels() * self.input * self.output, elements * bytes);
        gpu.libraries.products.run(gpu, product, operands)?;
        let y = DeviceMap::new(&self.gpu, MapDims { height: 2 * phase.height, width: 2 * phase.width, ..phase })?;
        kernels::join_phases(gpu, phases.at(), y.at(), phase)?;
        Ok(y)
    }
}

/// One f32 from the channels of a pixel, without rounding in between.
pub struct DeviceDot {
    weight: Kept,
    bias: f32,
}

impl DeviceDot {
    /// From a weight of one row and a bias of one number.
    pub fn new(gpu: &Arc<Gpu>, weight: &Tensor, bias: &Tensor) -> Result<Self> {
        let values = host_floats(weight)?;
        let padded = values.len().next_multiple_of(MapDims::CHANNEL_STEP);
        let bias = host_floats(bias)?.first().copied().unwrap_or(0.0);
        Ok(Self { weight: gpu.keep_floats(&pack::filled(&values, padded))?, bias })
    }

    /// `[B, H, W]`
    pub fn of_pixels(&self, x: &DeviceMap) -> Result<Buffer> {
        let y = x.gpu.take(x.dims.pixels() * size_of::<f32>())?;
        kernels::dot_channels(&*x.gpu, x.at(), self.weight.at(), self.bias, y.at(), x.dims)?;
        Ok(y)
    }

    /// Of the mean over the pixels, `[B]`.
    pub fn of_means(&self, x: &DeviceMap) -> Result<Buffer> {
        let y = x.gpu.take(x.dims.batch * size_of::<f32>())?;
        kernels::dot_means(&*x.gpu, x.at(), self.weight.at(), self.bias, y.at(), x.dims)?;
        Ok(y)
    }
}
