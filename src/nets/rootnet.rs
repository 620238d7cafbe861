//! RootNet (Moon et al., ICCV 2019): a patch becomes the root joint's place in it and gamma, the correction factor
//! of its distance. `root_depth` turns gamma into metres.

use anyhow::Result;
use candle_core::{Device, Result as CandleResult, Tensor, bail};
use candle_nn::VarBuilder;
use glam::Vec2;

#[cfg(feature = "cudnn")]
use super::cuda::{Buffer as DeviceBuffer, DeviceDot, DeviceMap, Gpu, Graphs, PatchSource, Replays, kernels as device};
#[cfg(feature = "cudnn")]
use super::input::IMAGENET_UNDIVIDED;
use super::input::{Normalisation, PatchBatch};
use super::layers::{Activation, BN_EPS, Conv2d, ConvShape, DeconvStack, Features, Values};
use super::resnet::{Stages, Stem};
use super::{NetSizes, on_pool};
use crate::lixel;
use crate::memory::Buffer;

/// Where [`NetSizes::with_widths_of`] finds the widths.
pub const WIDTHS_AT: [&str; 2] = ["backbone", "root.deconv_layers"];

/// What the network says about the roots of B people, on its device.
pub struct RootOutput {
    /// `[B, D (y), D (x)]`: probability over the bins of the plane.
    pub heatmap: Values,
    /// `[B, 2]`: expected x and y, in bins.
    pub coords: Values,
    /// `[B]`: gamma', which times k is the root's depth.
    pub gamma: Tensor,
    /// The backbone's feature, `[B, C, D/8, D/8]`.
    pub feature: Features,
}

/// One person's root, fetched.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Root {
    /// x and y, in bins.
    pub lixel: Vec2,
    /// Times k it is the depth.
    pub gamma: f32,
}

impl RootOutput {
    /// Fetches the roots.
    pub fn roots(&self) -> CandleResult<Vec<Root>> {
        let table = Tensor::cat(&[&self.coords.to_tensor()?, &self.gamma.unsqueeze(1)?], 1)?; // one transfer
        let rows: Vec<Vec<f32>> = table.to_device(&Device::Cpu)?.to_vec2()?;
        Ok(rows.iter().map(|r| Root { lixel: Vec2::new(r[0], r[1]), gamma: r[2] }).collect())
    }
}

/// The network.
pub struct RootNet {
    sizes: NetSizes,
    device: Device,
    stem: Stem,
    stages: Stages,
    deconv: DeconvStack,
    heads: Heads,
    /// One for each number of people.
    #[cfg(feature = "cudnn")]
    graphs: Option<Graphs<Shape, DeviceMap, OnDevice>>,
}

/// What reads the heatmap off the plane, and gamma off the feature.
enum Heads {
    /// Heatmap, gamma.
    Plain(Box<[Conv2d; 2]>),
    #[cfg(feature = "cudnn")]
    Device { xy: DeviceDot, depth: DeviceDot },
}

/// What a graph is for.
#[cfg(feature = "cudnn")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Shape {
    /// Patches at once.
    people: usize,
}

/// Everything that the network says, in the GPU's memory.
#[cfg(feature = "cudnn")]
struct OnDevice {
    heatmap: DeviceBuffer,
    coords: DeviceBuffer,
    gamma: DeviceBuffer,
    feature: DeviceMap,
}

impl RootNet {
    /// Reads a checkpoint's `network`, without the `module.` before its names.
    pub fn load(sizes: NetSizes, vb: &VarBuilder) -> CandleResult<Self> {
        let (backbone, root) = (vb.pp("backbone"), vb.pp("root"));
        let one = |input, name: &str| {
            Conv2d::load(ConvShape::same(input, 1, 1), true, None, Activation::None, &root.pp(name))
        };
        let heads = || -> CandleResult<Heads> {
            #[cfg(feature = "cudnn")]
            if let Some(gpu) = Gpu::of(vb.device()) {
                let dot = |input, name: &str| {
                    let vb = root.pp(name);
                    DeviceDot::new(&gpu, &vb.get((1, input, 1, 1), "weight")?, &vb.get(1, "bias")?)
                };
                let (xy, depth) = (dot(sizes.channels(), "xy_layer")?, dot(sizes.features(), "depth_layer")?);
                return Ok(Heads::Device { xy, depth });
            }
            let (xy, depth) = (one(sizes.channels(), "xy_layer")?, one(sizes.features(), "depth_layer")?);
            Ok(Heads::Plain(Box::new([xy, depth])))
        };
        Ok(Self {
            sizes,
            device: vb.device().clone(),
            stem: Stem::load(sizes.depth().width(), BN_EPS, &backbone)?,
            stages: Stages::load(sizes.depth(), BN_EPS, &backbone)?,
            deconv: DeconvStack::load(
                [sizes.features(), sizes.channels()],
                sizes.heatmap() / 8,
                &root.pp("deconv_layers"),
            )?,
            heads: heads()?,
            #[cfg(feature = "cudnn")]
            graphs: Gpu::of(vb.device()).map(Graphs::new),
        })
    }

    /// Sizes of the patch and of the heatmap.
    pub fn sizes(&self) -> &NetSizes {
        &self.sizes
    }

    /// What the network says of patches.
    pub fn forward<'a>(&self, patches: impl Into<PatchBatch<'a>>) -> Result<RootOutput> {
        let patches = patches.into();
        on_pool(&self.device, || self.forward_on_pool(patches))
    }

    /// Patches cut out of a frame on the GPU that the network is on; `None` where it is on none.
    #[cfg(feature = "cudnn")]
    pub fn forward_crops(&self, source: &PatchSource<'_>) -> Result<Option<RootOutput>> {
        let Some(graphs) = &self.graphs else { return Ok(None) };
        let fill = |gpu: &std::sync::Arc<Gpu>, input: &DeviceMap| source.cut(gpu, input, IMAGENET_UNDIVIDED);
        Ok(Some(self.forward_graph(graphs, source.people(), fill)?))
    }

    #[cfg(feature = "cudnn")]
    fn forward_graph(
        &self,
        graphs: &Graphs<Shape, DeviceMap, OnDevice>,
        people: usize,
        fill: impl FnOnce(&std::sync::Arc<Gpu>, &DeviceMap) -> CandleResult<()>,
    ) -> Result<RootOutput> {
        let (side, bins, gpu) = (self.sizes.input(), self.sizes.heatmap(), graphs.gpu());
        let dims = device::MapDims::new([people, 3, side, side]);
        let body = |patches: &DeviceMap, _: &mut super::Lap<'_>| self.body(gpu, patches);
        let take = |made: &OnDevice, replays: &Replays| {
            Ok(RootOutput {
                heatmap: gpu.tensor(made.heatmap.at(), (people, bins, bins))?.into(),
                coords: gpu.tensor(made.coords.at(), (people, 2))?.into(),
                gamma: gpu.tensor(made.gamma.at(), people)?,
                feature: Features::Device(made.feature.stamped(replays.stamp())),
            })
        };
        let prepare = |gpu: &std::sync::Arc<Gpu>| DeviceMap::new(gpu, dims);
        Ok(graphs.run(Shape { people }, prepare, fill, body, take, &mut |_| Ok(()))?)
    }

    /// From normalised patches to the root and gamma, on the GPU.
    #[cfg(feature = "cudnn")]
    fn body(&self, gpu: &std::sync::Arc<Gpu>, patches: &DeviceMap) -> CandleResult<OnDevice> {
        let Heads::Device { xy, depth } = &self.heads else { candle_core::bail!("the heads are not on the GPU") };
        let (people, bins) = (patches.dims.batch, self.sizes.heatmap());
        let feature = self.stages.run(&self.stem.run_features(&Features::Device(patches.clone()))?)?;
        let plane = self.deconv.run(&feature)?.to_device(gpu)?;
        let logits = xy.of_pixels(&plane)?;
        let feature = feature.to_device(gpu)?;
        let gamma = depth.of_means(&feature)?;
        let (heatmap, coords) = (gpu.take(people * bins * bins * 4)?, gpu.take(people * 2 * 4)?);
        device::plane_heatmap(&**gpu, logits.at(), heatmap.at(), coords.at(), people, bins)?;
        Ok(OnDevice { heatmap, coords, gamma, feature })
    }

    fn forward_on_pool(&self, patches: PatchBatch<'_>) -> Result<RootOutput> {
        let people = self.sizes.check_patches(&patches)?;
        let (xy, depth) = match &self.heads {
            Heads::Plain(heads) => (&heads[0], &heads[1]),
            #[cfg(feature = "cudnn")]
            Heads::Device { .. } => {
                let Some(graphs) = &self.graphs else { anyhow::bail!("the heads are on a GPU, the network is not") };
                let patches = patches.to_tensor(&self.device)?;
                let fill = |_: &std::sync::Arc<Gpu>, input: &DeviceMap| input.fill(&patches, Some(IMAGENET_UNDIVIDED));
                return self.forward_graph(graphs, people, fill);
            }
        };
        let input = patches.normalised(&Normalisation::IMAGENET_UNDIVIDED, &self.device)?;
        let feature = self.stages.run(&self.stem.run(input)?)?;
        let logits = xy.run(&self.deconv.run(&feature)?, None)?.to_values()?; // [B, 1, D, D]
        let bins = self.sizes.heatmap();
        let [heatmap, coords] = plane_heatmap(logits.reshape((people, bins, bins))?)?;
        let gamma = depth.run(&feature.mean()?, None)?.to_tensor()?.flatten_all()?;
        Ok(RootOutput { heatmap, coords, gamma, feature })
    }
}

/// Softmax over planes of logits `[B, D (y), D (x)]`, and the expected x and y, `[B, 2]`.
fn plane_heatmap(logits: Values) -> CandleResult<[Values; 2]> {
    if !logits.is_fast() {
        let logits = logits.to_tensor()?;
        let heatmap = lixel::softmax(&logits.flatten_from(1)?)?.reshape(logits.shape())?;
        let x = lixel::soft_argmax(&heatmap.sum(1)?)?;
        let y = lixel::soft_argmax(&heatmap.sum(2)?)?;
        return Ok([heatmap.into(), Tensor::stack(&[x, y], 1)?.into()]);
    }
    let &[people, rows, columns] = logits.dims() else { bail!("expected [B, D, D], got {:?}", logits.dims()) };
    let (mut heatmap, mut coords) = (Buffer::take(people * rows * columns), Buffer::take(people * 2));
    logits.with_floats(|logits| {
        let planes = logits.chunks_exact(rows * columns).zip(heatmap.chunks_exact_mut(rows * columns));
        for ((logits, heatmap), coords) in planes.zip(coords.as_chunks_mut::<2>().0) {
            let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            heatmap.iter_mut().zip(logits).for_each(|(p, logit)| *p = (logit - most).exp());
            let total: f32 = heatmap.chunks_exact(columns).map(|row| row.iter().sum::<f32>()).sum();
            *coords = [0.0; 2];
            for (y, row) in heatmap.chunks_exact_mut(columns).enumerate() {
                for p in &mut *row {
                    *p /= total;
                }
                coords[0] += row.iter().enumerate().map(|(x, p)| x as f32 * p).sum::<f32>();
                coords[1] += y as f32 * row.iter().sum::<f32>();
            }
        }
        Ok(())
    })?;
    Ok([Values::new(heatmap, (people, rows, columns)), Values::new(coords, (people, 2))])
}

#[cfg(test)]
mod tests {
    use candle_core::Var;

    use super::*;

    #[test]
    fn planes_are_read_alike_both_ways() -> Result<()> {
        let logits = (Tensor::rand(-1_f32, 1.0, (3, 9, 9), &Device::Cpu)? * 6.0)?;
        let fast = plane_heatmap((&logits).into())?;
        assert!(matches!(fast[0], Values::Reused(..)));
        let plain = plane_heatmap(Var::from_tensor(&logits)?.into_inner().into())?;
        // Probabilities, and sums of 81 of them times up to 8, in another order.
        for ((fast, plain), tolerance) in fast.iter().zip(plain).zip([1e-6, 1e-5]) {
            assert_eq!(fast.dims(), plain.dims());
            assert!(fast.fetch()?.iter().zip(plain.fetch()?.iter()).all(|(a, b)| (a - b).abs() < tolerance));
        }
        Ok(())
    }
}
