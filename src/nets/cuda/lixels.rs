//! The end of a head on the device: means along lines, three products, or 3D heatmaps; heatmaps and what is read from
//! them.

use std::sync::Arc;

use candle_core::{Result, Tensor, bail};

use super::gpu::{Buffer, Gpu, Kept};
use super::kernels::{self, HeatmapsOut, Launch, MapDims, ProductDims, Ptr, Volumes};
use super::map::{DeviceConv, DeviceMap, host_floats};
use super::products::Operands;
use crate::lixel::Lixels;

/// The maps from a plane and a pooled feature to the heatmaps of N points.
pub struct DeviceLines {
    gpu: Arc<Gpu>,
    points: usize,
    channels: usize,
    bins: usize,
    /// `[3 (x, y, z), N, C filled up]`. Their biases are the same for all bins of a heatmap, which softmax does not see.
    weights: Kept,
    /// `[F] -> [D, C filled up]`, with ReLU.
    z: DeviceConv,
}

impl DeviceLines {
    /// From the weights of x, y and z, `[N, C]` each, and what makes the z line of the pooled feature: weight
    /// `[C * D, F]` and bias `[C * D]`, channels outermost.
    pub fn new(gpu: &Arc<Gpu>, xyz: [&Tensor; 3], z_weight: &Tensor, z_bias: &Tensor, bins: usize) -> Result<Self> {
        let (points, channels) = xyz[0].dims2()?;
        let padded = channels.next_multiple_of(MapDims::CHANNEL_STEP);
        let mut weights = Vec::with_capacity(3 * points * padded);
        for weight in xyz {
            weights.extend(host_floats(&weight.pad_with_zeros(1, 0, padded - channels)?)?);
        }
        // [C, D, F] -> [D, C, F], so that a bin's channels lie side by side as in the other lines.
        let features = z_weight.dim(1)?;
        let z_weight = z_weight.reshape((channels, bins, features))?.pad_with_zeros(0, 0, padded - channels)?;
        let z_weight = z_weight.transpose(0, 1)?.contiguous()?.reshape((padded * bins, features, 1, 1))?;
        let z_bias = z_bias.reshape((channels, bins))?.pad_with_zeros(0, 0, padded - channels)?;
        let z_bias = z_bias.t()?.contiguous()?.flatten_all()?;
        Ok(Self {
            points,
            channels,
            bins,
            weights: gpu.keep_elements(&weights)?,
            z: DeviceConv::new(gpu, &z_weight, Some(&z_bias), [1, 0], true)?,
            gpu: Arc::clone(gpu),
        })
    }

    /// From the plane `[B, D, D, C]` and the backbone's feature.
    pub fn run(&self, plane: &DeviceMap, feature: &DeviceMap) -> Result<DeviceLixels> {
        let gpu = &*self.gpu;
        let (batch, bins) = (plane.dims.batch, self.bins);
        let expected = MapDims { batch, height: bins, width: bins, channels: self.channels };
        if plane.dims != expected {
            bail!("the head reads planes of {expected:?}, not {:?}", plane.dims);
        }
        // [3, B D, C]
        let depth = plane.dims.padded();
        let line_bytes = batch * bins * depth * gpu.precision().bytes();
        let lines = gpu.take(3 * line_bytes)?;
        kernels::line_means(gpu, plane.at(), lines.at(), plane.dims)?;
        let pooled = DeviceMap::new(&self.gpu, MapDims { height: 1, width: 1, ..feature.dims })?;
        kernels::channel_means(gpu, feature.at(), pooled.at(), feature.dims)?;
        self.z.run_into(&pooled, None, lines.at().offset(2 * line_bytes))?;

        let product = ProductDims {
            batch: 3,
            m: self.points,
            n: batch * bins,
            k: depth,
            shared_b: false,
            wide: true,
            bias: false,
            relu: false,
        };
        let logits = gpu.take(3 * product.m * product.n * size_of::<f32>())?;
        let operands = Operands {
            a: self.weights.at(),
            b: lines.at(),
            bias: Ptr::NULL,
            bias_f32: Ptr::NULL,
            residual: None,
            d: logits.at(),
        };
        let elements = 3 * (self.points * depth + batch * bins * depth);
        let bytes = elements * gpu.precision().bytes() + 3 * product.m * product.n * size_of::<f32>();
        gpu.count(3 * product.m * product.n * self.channels, bytes);
        gpu.libraries.products.run(gpu, product, operands)?;
        DeviceLixels::of_lines(&self.gpu, &logits, [batch, self.points, bins])
    }
}

/// Heatmaps on the device, and what was read from them.
pub struct DeviceLixels {
    gpu: Arc<Gpu>,
    heatmaps: Buffer,
    coords: Buffer,
    spread: Buffer,
    mode: Buffer,
    /// People, points, bins.
    shape: [usize; 3],
}

impl DeviceLixels {
    /// From logits `[3, N, B, D]` f32.
    fn of_lines(gpu: &Arc<Gpu>, logits: &Buffer, shape: [usize; 3]) -> Result<Self> {
        let lixels = Self::take(gpu, shape)?;
        kernels::heatmaps(&**gpu, logits.at(), lixels.out(), shape)?;
        Ok(lixels)
    }

    /// The marginals of 3D heatmaps; `shape` is people, joints, bins of a side.
    pub fn of_volumes(gpu: &Arc<Gpu>, volumes: Volumes, shape: [usize; 3]) -> Result<Self> {
        let lixels = Self::take(gpu, shape)?;
        let [people, joints, bins] = shape;
        let images = if volumes.mirrored == Ptr::NULL { people } else { 2 * people };
        let rows = gpu.take(kernels::volume_rows([images, joints, bins]) * size_of::<f32>())?;
        kernels::volume_heatmaps(&**gpu, volumes, rows.at(), lixels.out(), shape)?;
        Ok(lixels)
    }

    /// Memory for them.
    fn take(gpu: &Arc<Gpu>, shape: [usize; 3]) -> Result<Self> {
        let [batch, points, bins] = shape;
        let bytes = batch * points * 3 * size_of::<f32>();
        let (heatmaps, coords) = (gpu.take(bytes * bins)?, gpu.take(bytes)?);
        let (spread, mode) = (gpu.take(bytes)?, gpu.take(bytes)?);
        Ok(Self { gpu: Arc::clone(gpu), heatmaps, coords, spread, mode, shape })
    }

    fn out(&self) -> HeatmapsOut {
        let Self { heatmaps, coords, spread, mode, .. } = self;
        HeatmapsOut { probabilities: heatmaps.at(), coords: coords.at(), spread: spread.at(), mode: mode.at() }
    }

    /// `[B, N, 3]` f32.
    pub fn coords(&self) -> Ptr {
        self.coords.at()
    }

    /// Copies as tensors.
    pub fn to_lixels(&self) -> Result<Lixels> {
        let [batch, points, bins] = self.shape;
        Ok(Lixels {
            heatmaps: self.gpu.tensor(self.heatmaps.at(), (batch, points, 3, bins))?.into(),
            coords: self.gpu.tensor(self.coords.at(), (batch, points, 3))?.into(),
            spread: self.gpu.tensor(self.spread.at(), (batch, points, 3))?.into(),
            mode: Some(self.gpu.tensor(self.mode.at(), (batch, points, 3))?),
        })
    }
}
