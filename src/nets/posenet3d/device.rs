//! 3D PoseNet on an NVIDIA GPU: from the patches to the heatmaps' marginals as one graph for each number of people, with
//! or without their mirrored patches, which are made there.

use std::sync::Arc;

use candle_core::{Device, Result as CandleResult, Tensor, bail};

use super::{JointSet, PoseNet3d};
use crate::lixel::Lixels;
use crate::nets::Lap;
use crate::nets::cuda::kernels::{MapDims, Ptr, Volumes, and_mirrored};
use crate::nets::cuda::{Buffer, DeviceLixels, DeviceMap, Gpu, Graphs, PatchSource};
use crate::nets::input::IMAGENET_UNDIVIDED;
use crate::nets::layers::Features;

/// The graphs of a network.
pub struct OnDevice(Graphs<Shape, Input, DeviceLixels>);

/// What a graph is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Shape {
    /// Patches at once.
    people: usize,
    /// With the mirrored patches, and the joints that change places in them.
    flip_pairs: Option<&'static [(usize, usize)]>,
}

/// What a graph reads.
struct Input {
    patches: DeviceMap,
    /// For each joint the one that takes its place in a mirror, i32.
    mirrored: Option<Buffer>,
}

impl OnDevice {
    /// `None` where the device is not one of `nets::cuda`.
    pub fn new(device: &Device) -> Option<Self> {
        Gpu::of(device).map(|gpu| Self(Graphs::new(gpu)))
    }

    /// From patches `[B, 3, H, W]`; with a joint set averaged with what is said about the mirrored ones.
    pub fn forward(&self, net: &PoseNet3d, patches: &Tensor, set: Option<&JointSet>) -> CandleResult<Lixels> {
        let fill = |_: &Arc<Gpu>, input: &Input| input.patches.fill(patches, Some(IMAGENET_UNDIVIDED));
        self.run(net, patches.dim(0)?, set, fill)
    }

    /// From patches that are cut out of their frame here.
    pub fn forward_crops(&self, net: &PoseNet3d, source: &PatchSource<'_>, set: &JointSet) -> CandleResult<Lixels> {
        let fill = |gpu: &Arc<Gpu>, input: &Input| source.cut(gpu, &input.patches, IMAGENET_UNDIVIDED);
        self.run(net, source.people(), Some(set), fill)
    }

    fn run(
        &self,
        net: &PoseNet3d,
        people: usize,
        set: Option<&JointSet>,
        fill: impl FnOnce(&Arc<Gpu>, &Input) -> CandleResult<()>,
    ) -> CandleResult<Lixels> {
        let side = net.sizes.input();
        let prepare = |gpu: &Arc<Gpu>| {
            let order: Option<Vec<i32>> = set.map(|set| set.mirrored().iter().map(|&joint| joint as i32).collect());
            let upload = |order: &[i32]| {
                let buffer = gpu.take(size_of_val(order))?;
                gpu.write(buffer.at(), bytemuck::cast_slice(order)).map(|()| buffer)
            };
            Ok(Input {
                patches: DeviceMap::new(gpu, MapDims::new([people, 3, side, side]))?,
                mirrored: order.as_deref().map(upload).transpose()?,
            })
        };
        let body = |input: &Input, lap: &mut Lap<'_>| self.body(net, input, lap);
        let shape = Shape { people, flip_pairs: set.map(|set| set.flip_pairs) };
        self.0.run(shape, prepare, fill, body, |made, _| made.to_lixels(), &mut |_| Ok(()))
    }

    /// From normalised patches to the marginals.
    fn body(&self, net: &PoseNet3d, input: &Input, lap: &mut Lap<'_>) -> CandleResult<DeviceLixels> {
        let (gpu, bins) = (self.0.gpu(), net.sizes.heatmap());
        let Some(volume) = net.volume.device() else { bail!("the head is not on the GPU") };
        let MapDims { batch: people, .. } = input.patches.dims;
        let patches = if input.mirrored.is_some() {
            let both = DeviceMap::new(gpu, MapDims { batch: 2 * people, ..input.patches.dims })?;
            and_mirrored(&**gpu, input.patches.at(), both.at(), input.patches.dims)?;
            both
        } else {
            input.patches.clone()
        };
        let feature = net.stages.run(&net.stem.run_features(&Features::Device(patches))?)?;
        lap("backbone")?;
        let plane = net.deconv.run(&feature)?.to_device(gpu)?;
        if (plane.dims.height, plane.dims.width) != (bins, bins) {
            bail!("the head reads planes of {bins} x {bins}, not {:?}", plane.dims);
        }
        lap("deconvolutions")?;
        let logits = volume.run_wide(&plane)?; // [images, D (y), D (x), J D (z)]
        let volumes = Volumes {
            logits: logits.at(),
            bias: volume.bias(),
            stride: volume.padded_output(),
            mirrored: input.mirrored.as_ref().map_or(Ptr::NULL, Buffer::at),
        };
        let lixels = DeviceLixels::of_volumes(gpu, volumes, [people, net.joints, bins])?;
        lap("volumes")?;
        Ok(lixels)
    }
}
