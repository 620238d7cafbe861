//! I2L-MeshNet's `pose2feat`: a 3x3 convolution over the early feature and the joints' 3D Gaussians, whose depth
//! slices are channels.
//!
//! The Gaussians are separable, so they are never built. With W the weights of one joint's channels,
//!
//! ```text
//! out[o, y, x] = sum_j sum_dx ( sum_dy ( sum_z W[o, j, z, dy, dx] gz[j, z] ) gy[j, y + dy] ) gx[j, x + dx]
//! ```
//!
//! which is three matrix products, innermost first: 25 million multiply-adds for 29 joints of 64 bins instead of
//! 4,300 million, and nothing of the 31 MB volume. On the processor a kernel has the three of them
//! ([`PackedGaussians`]). The tests compare both ways with the plain convolution.

use candle_core::{Result, Tensor, bail};
use candle_nn::VarBuilder;

use super::kernels::{Isa, PackedGaussians};
use super::layers::{Activation, BN_EPS, Conv2d, ConvShape, Features, FoldedNorm, Values};
use crate::lixel::gaussian::{SIGMA, gaussian};

/// Side of the kernel.
const KERNEL: usize = 3;

/// `pose2feat.conv`: convolution, batch norm, ReLU.
pub struct Pose2Feat {
    early: Conv2d,
    joints: JointWeights, // batch norm folded in
}

/// See [`gaussian_weights`].
enum JointWeights {
    Plain(Tensor),
    Packed(PackedGaussians),
    #[cfg(feature = "cudnn")]
    Device {
        gpu: std::sync::Arc<crate::nets::cuda::Gpu>,
        weights: crate::nets::cuda::Kept,
        joints: usize,
        bins: usize,
        channels: usize,
    },
}

impl Pose2Feat {
    /// Reads `conv.0` and `conv.1` of `vb`; `channels` are those of the early feature, and of what comes out.
    pub fn load(channels: usize, joints: usize, bins: usize, vb: &VarBuilder) -> Result<Self> {
        let norm = FoldedNorm::load(channels, BN_EPS, &vb.pp("conv.1"))?;
        let conv = vb.pp("conv.0");
        let weight = conv.get((channels, channels + joints * bins, KERNEL, KERNEL), "weight")?;
        let gaussians = gaussian_weights(&weight, joints, bins)?
            .reshape((joints, bins, channels, KERNEL * KERNEL))?
            .broadcast_mul(&norm.scale.reshape((channels, 1))?)?
            .reshape((joints, bins, channels * KERNEL * KERNEL))?;
        // The early feature's channels are an ordinary convolution.
        let shape = ConvShape::same(channels, channels, KERNEL);
        let (early, bias) = (weight.narrow(1, 0, channels)?, conv.get(channels, "bias")?);
        let early = Conv2d::new(shape, early, Some(bias), Some(norm), Activation::Relu)?;
        #[cfg(feature = "cudnn")]
        if let Some(gpu) = crate::nets::cuda::Gpu::of(gaussians.device())
            && !gaussians.track_op()
        {
            let weights = gpu.keep_floats(&crate::nets::cuda::host_floats(&gaussians)?)?;
            return Ok(Self { early, joints: JointWeights::Device { gpu, weights, joints, bins, channels } });
        }
        let gaussians = Values::from(gaussians);
        let joints = if gaussians.is_fast() {
            let shape = [joints, bins, channels];
            let pack = |w: &[f32]| Ok(PackedGaussians::new(Isa::detect(), shape, SIGMA as f32, w));
            JointWeights::Packed(gaussians.with_floats(pack)?)
        } else {
            JointWeights::Plain(gaussians.to_tensor()?)
        };
        Ok(Self { early, joints })
    }

    /// `early [B, 64, D, D], coords [B, J, 3] -> [B, 64, D, D]`; the coordinates are in lixels. No gradient flows
    /// into them.
    pub fn run(&self, early: &Features, coords: &Values) -> Result<Features> {
        match &self.joints {
            JointWeights::Plain(weights) => {
                let gaussians = convolved_gaussians(weights, &coords.to_tensor()?.detach())?;
                self.early.run(early, Some(&Features::Plain(gaussians)))
            }
            JointWeights::Packed(weights) => {
                let &[_, joints, 3] = coords.dims() else { bail!("expected [B, J, 3], got {:?}", coords.dims()) };
                if joints != weights.joints() {
                    bail!("coordinates of {joints} joints for weights of {}", weights.joints());
                }
                let gaussians = coords.with_floats(|coords| Ok(weights.run(coords)))?;
                self.early.run(early, Some(&Features::Blocked(gaussians)))
            }
            #[cfg(feature = "cudnn")]
            JointWeights::Device { gpu, .. } => {
                gpu.import(&coords.to_tensor()?, |coords| self.run_device(early, coords))
            }
        }
    }

    /// The same with coordinates that are on the GPU already, f32.
    #[cfg(feature = "cudnn")]
    pub fn run_device(&self, early: &Features, coords: crate::nets::cuda::kernels::Ptr) -> Result<Features> {
        use crate::nets::cuda::{DeviceMap, kernels};

        let JointWeights::Device { gpu, weights, joints, bins, channels } = &self.joints else {
            candle_core::bail!("the weights are not on the GPU that the coordinates are on")
        };
        let early_map = early.to_device(gpu)?;
        let dims = kernels::MapDims { channels: *channels, ..early_map.dims };
        if (dims.height, dims.width) != (*bins, *bins) {
            candle_core::bail!("an early feature of {} x {} for {bins} bins", dims.width, dims.height);
        }
        let over_z = gpu.take(dims.batch * joints * channels * KERNEL * KERNEL * size_of::<f32>())?;
        let gaussians = DeviceMap::new(gpu, dims)?;
        let memory = [weights.at(), coords, over_z.at(), gaussians.at()];
        kernels::gaussians(&**gpu, memory, *joints, dims, SIGMA as f32)?;
        self.early.run(&Features::Device(early_map), Some(&Features::Device(gaussians)))
    }
}

/// The weights of the Gaussians' channels in the order in which [`convolved_gaussians`] reads them:
/// `[64, 64 + J * D, 3, 3] -> [J, D (z), 64 (o) * 3 (dx) * 3 (dy)]`.
pub(crate) fn gaussian_weights(weight: &Tensor, joints: usize, bins: usize) -> Result<Tensor> {
    let channels = weight.dim(0)?;
    weight
        .narrow(1, channels, joints * bins)?
        .reshape((channels, joints, bins, KERNEL, KERNEL))? // [o, j, z, dy, dx]
        .permute((1, 2, 0, 4, 3))? // [j, z, o, dx, dy]
        .contiguous()?
        .reshape((joints, bins, channels * KERNEL * KERNEL))
}

/// The joints' share of the convolution: `[B, J, 3] -> [B, 64, D, D]`. `weights` come from [`gaussian_weights`].
pub(crate) fn convolved_gaussians(weights: &Tensor, coords: &Tensor) -> Result<Tensor> {
    let (batch, joints, _) = coords.dims3()?;
    let bins = weights.dim(1)?;
    let channels = weights.dim(2)? / (KERNEL * KERNEL);
    let factors = gaussian(coords, bins, SIGMA)?; // [B, J, 3, D]
    let axis = |i: usize| factors.narrow(2, i, 1)?.squeeze(2); // [B, J, D]

    // Over z, a product for each joint: [J, B, D] x [J, D, o dx dy] -> [J, B, o dx dy]
    let over_z = axis(2)?.transpose(0, 1)?.contiguous()?.matmul(weights)?;
    let over_z = over_z.transpose(0, 1)?.reshape((batch, joints, channels * KERNEL, KERNEL))?;

    // Over y: [B, J, (o dx), dy] x [B, J, dy, y] -> [B, J, (o dx), y]
    let over_y = over_z.contiguous()?.matmul(&shifted(&axis(1)?)?)?;
    let over_y = over_y
        .reshape((batch, joints, channels, KERNEL, bins))?
        .permute((0, 2, 4, 1, 3))? // [B, o, y, J, dx]
        .contiguous()?
        .reshape((batch, channels * bins, joints * KERNEL))?;

    // Over x and the joints: [B, (o y), (J dx)] x [B, (J dx), x] -> [B, (o y), x]
    let gaussians_x = shifted(&axis(0)?)?.reshape((batch, joints * KERNEL, bins))?;
    over_y.matmul(&gaussians_x)?.reshape((batch, channels, bins, bins))
}

/// What each tap of a 3-wide kernel with zero padding meets: `[B, J, D] -> [B, J, 3, D]`, `[.., d, i] = g[i + d - 1]`.
fn shifted(factors: &Tensor) -> Result<Tensor> {
    let bins = factors.dim(2)?;
    let padded = factors.pad_with_zeros(2, 1, 1)?;
    let taps: Vec<Tensor> = (0..KERNEL).map(|d| padded.narrow(2, d, bins)).collect::<Result<_>>()?;
    Tensor::stack(&taps, 2)?.contiguous()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    const CHANNELS: usize = 48;
    use crate::lixel::gaussian::gaussian_volume;
    use candle_core::{DType, Device, Var};

    /// The plain twin: builds the volume and convolves over all channels.
    fn plain(weights: &HashMap<String, Tensor>, early: &Tensor, coords: &Tensor, bins: usize) -> Result<Tensor> {
        let (batch, joints, _) = coords.dims3()?;
        let volume = gaussian_volume(coords, bins, SIGMA)?.reshape((batch, joints * bins, bins, bins))?;
        let vb = VarBuilder::from_tensors(weights.clone(), DType::F32, &Device::Cpu);
        let norm = FoldedNorm::load(CHANNELS, BN_EPS, &vb.pp("conv.1"))?;
        let shape = ConvShape::same(CHANNELS + joints * bins, CHANNELS, KERNEL);
        let conv = Conv2d::load(shape, true, Some(norm), Activation::Relu, &vb.pp("conv.0"))?;
        conv.forward(&Tensor::cat(&[early, &volume], 1)?)
    }

    #[test]
    fn both_ways_are_the_plain_convolution() {
        for bins in [8, 20] {
            both_ways_with(bins);
        }
    }

    fn both_ways_with(bins: usize) {
        let (batch, joints) = (2, 3);
        let device = Device::Cpu;
        let random = |shape: &[usize]| Tensor::rand(-1.0_f32, 1.0, shape, &device).unwrap();
        let positive = |shape: &[usize]| Tensor::rand(0.5_f32, 1.5, shape, &device).unwrap();
        let weights = HashMap::from(
            [
                ("conv.0.weight", random(&[CHANNELS, CHANNELS + joints * bins, KERNEL, KERNEL])),
                ("conv.0.bias", random(&[CHANNELS])),
                ("conv.1.weight", positive(&[CHANNELS])),
                ("conv.1.bias", random(&[CHANNELS])),
                ("conv.1.running_mean", random(&[CHANNELS])),
                ("conv.1.running_var", positive(&[CHANNELS])),
            ]
            .map(|(name, tensor)| (name.to_owned(), tensor)),
        );
        let early = random(&[batch, CHANNELS, bins, bins]);
        // Some joints at the very edge, where the padding cuts the Gaussian, and beyond it.
        let coords = Tensor::rand(-1.0_f32, bins as f32, (batch, joints, 3), &device).unwrap();
        let vb = VarBuilder::from_tensors(weights.clone(), DType::F32, &device);
        let run = |vb: &VarBuilder| {
            let pose2feat = Pose2Feat::load(CHANNELS, joints, bins, vb).unwrap();
            pose2feat.run(&Features::Plain(early.clone()), &(&coords).into()).unwrap().to_tensor().unwrap()
        };
        // Weights that are variables go candle's way.
        let variables = weights.iter().map(|(name, w)| (name.clone(), Var::from_tensor(w).unwrap().into_inner()));
        let products = run(&VarBuilder::from_tensors(variables.collect(), DType::F32, &device));
        let plain = plain(&weights, &early, &coords, bins).unwrap();
        let largest = plain.max_all().unwrap().to_scalar::<f32>().unwrap();
        for ours in [run(&vb), products] {
            let deviation = (ours - &plain).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
            // Sums of some 800 terms of magnitude up to 1, in another order.
            assert!(deviation < 1e-4 * largest, "{deviation} of {largest}, {bins} bins");
        }
    }

    #[test]
    fn the_kernel_is_the_three_products_on_all_instruction_sets() {
        let (batch, joints, bins, channels) = (3, 4, 21, 37);
        let weights = Tensor::rand(-1.0_f32, 1.0, (joints, bins, channels * KERNEL * KERNEL), &Device::Cpu).unwrap();
        let coords = Tensor::rand(-4.0_f32, bins as f32 + 3.0, (batch, joints, 3), &Device::Cpu).unwrap();
        let floats = |x: &Tensor| x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let expected = floats(&convolved_gaussians(&weights, &coords).unwrap());
        let largest = expected.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
        for isa in Isa::available() {
            let packed = PackedGaussians::new(isa, [joints, bins, channels], SIGMA as f32, &floats(&weights));
            let ours = packed.run(&floats(&coords));
            assert_eq!(ours.shape(), [batch, channels, bins, bins]);
            for (a, b) in ours.to_planar().iter().zip(&expected) {
                // Sums of some 100 terms of magnitude up to 1, in another order.
                assert!((a - b).abs() < 1e-5 * largest.max(1.0), "{isa:?}: {a} instead of {b}");
            }
        }
    }
}
