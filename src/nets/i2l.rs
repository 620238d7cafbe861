//! I2L-MeshNet (Moon and Lee, ECCV 2020): a patch becomes the 1D heatmaps of a body's or a hand's joints, then of
//! its mesh vertices. Body and hand differ in their numbers of joints and vertices alone, and the weights tell those.

use anyhow::{Context, Result, bail};
use candle_core::{Device, Result as CandleResult, Tensor};
use candle_nn::VarBuilder;

#[cfg(feature = "cudnn")]
use super::cuda::{DeviceLines, DeviceLixels, DeviceMap, Gpu, Graphs, PatchSource};
#[cfg(feature = "cudnn")]
use super::input::UNIT_RANGE;
use super::input::{Normalisation, PatchBatch};
use super::layers::{Activation, BN_EPS, DeconvStack, Features, FoldedNorm, Pointwise1d, Values};
use super::param::{ParamRegressor, ROTATION_NUMBERS, joints_from_mesh};
use super::pose2feat::Pose2Feat;
use super::resnet::{Stages, Stem};
use super::{Lap, NetSizes, on_pool};
use crate::lixel::Lixels;
use crate::result::BodyParams;

/// Beginnings of names that snapshots carry and that nothing reads: the second ResNet's own stem, which is skipped,
/// and the body model's buffers.
pub const UNREAD: [&str; 3] = ["mesh_backbone.conv1.", "mesh_backbone.bn1.", "human_model_layer."];

/// Where [`NetSizes::with_widths_of`] finds the widths.
pub const WIDTHS_AT: [&str; 2] = ["pose_backbone", "pose_net.deconv"];

/// The numbers that a checkpoint tells by the shapes of its tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct I2lShape {
    /// Joints of PoseNet: 29 for SMPL, 21 for MANO.
    pub joints: usize,
    /// Vertices of MeshNet: 6,890 for SMPL, 778 for MANO.
    pub vertices: usize,
    /// The second stage, absent in snapshots of the first.
    pub params: Option<ParamShape>,
}

/// The numbers of the second stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParamShape {
    /// Joints that rotate: 24 for SMPL, 16 for MANO.
    pub rotations: usize,
    /// Shape coefficients: 10.
    pub shape: usize,
}

impl I2lShape {
    /// Reads them off. `shape_of` tells the shape of a tensor by its name, `None` where there is no such tensor.
    pub fn from_shapes(shape_of: impl Fn(&str) -> Option<Vec<usize>>) -> Result<Self> {
        let rows = |name: &str| shape_of(name).and_then(|shape| shape.first().copied());
        let required = |name| rows(name).with_context(|| format!("no tensor {name}: not I2L-MeshNet weights"));
        let joints = required("pose_net.conv_x.0.weight")?;
        let vertices = required("mesh_net.conv_x.0.weight")?;
        let params = match (rows("param_regressor.fc_pose.0.weight"), rows("param_regressor.fc_shape.0.weight")) {
            (Some(pose), Some(shape)) if pose % ROTATION_NUMBERS == 0 => {
                Some(ParamShape { rotations: pose / ROTATION_NUMBERS, shape })
            }
            (Some(pose), Some(_)) => bail!("param_regressor.fc_pose has {pose} rows, not six for each joint"),
            _ => None,
        };
        if joints == 0 || vertices == 0 {
            bail!("I2L-MeshNet weights for {joints} joints and {vertices} vertices");
        }
        Ok(Self { joints, vertices, params })
    }
}

/// A head of three 1D heatmaps for each of N points (`pose_net`, `mesh_net`).
struct LixelHead {
    deconv: DeconvStack,
    lines: Lines,
    channels: usize,
    bins: usize,
}

/// From the plane and the feature to the heatmaps.
enum Lines {
    Plain {
        x: Pointwise1d,
        y: Pointwise1d,
        z_1: Pointwise1d,
        z_2: Pointwise1d,
    },
    #[cfg(feature = "cudnn")]
    Device(Box<DeviceLines>),
}

impl LixelHead {
    fn load(sizes: &NetSizes, points: usize, vb: &VarBuilder) -> CandleResult<Self> {
        let (bins, channels) = (sizes.heatmap(), sizes.channels());
        let head = |name: &str| Pointwise1d::load(channels, points, None, Activation::None, &vb.pp(name));
        // The largest first, since loading a layer takes its weights twice for a moment: this one has 128 MB of them.
        let norm = FoldedNorm::load(channels * bins, BN_EPS, &vb.pp("conv_z_1.1"))?;
        let (features, vb_z) = (sizes.features(), vb.pp("conv_z_1.0"));
        let z_1 = Pointwise1d::load(features, channels * bins, Some(norm), Activation::Relu, &vb_z)?;
        let deconv = DeconvStack::load([features, channels], bins / 8, &vb.pp("deconv"))?;
        let (x, y, z_2) = (head("conv_x.0")?, head("conv_y.0")?, head("conv_z_2.0")?);
        #[cfg(feature = "cudnn")]
        if let Some(gpu) = Gpu::of(vb.device()) {
            let xyz = [x.weight(), y.weight(), z_2.weight()];
            let (weight, bias) = z_1.parts()?;
            let lines = Lines::Device(Box::new(DeviceLines::new(&gpu, xyz, &weight, &bias, bins)?));
            return Ok(Self { deconv, lines, channels, bins });
        }
        Ok(Self { deconv, lines: Lines::Plain { x, y, z_1, z_2 }, channels, bins })
    }

    /// `[B, C, D/8, D/8]` to heatmaps of D bins.
    fn forward(&self, feature: &Features) -> CandleResult<Lixels> {
        let plane = self.deconv.run(feature)?; // [B, 256, D (y), D (x)]
        let (x, y, z_1, z_2) = match &self.lines {
            Lines::Plain { x, y, z_1, z_2 } => (x, y, z_1, z_2),
            #[cfg(feature = "cudnn")]
            Lines::Device(_) => candle_core::bail!("a head on a GPU is run by `forward_device`"),
        };
        let [over_rows, over_columns] = plane.line_means()?;
        let x = x.forward(over_rows)?; // [B, 256, D] -> [B, N, D]
        let y = y.forward(over_columns)?;
        let pooled = feature.mean()?.to_values()?; // [B, C, 1, 1]
        let (people, channels) = (pooled.dims()[0], pooled.dims()[1]);
        let line = z_1.forward(pooled.reshape((people, channels, 1))?)?; // [B, 256 D, 1]
        let line = line.reshape((people, self.channels, self.bins))?;
        Lixels::from_logits(&[x, y, z_2.forward(line)?])
    }

    /// The same on a GPU.
    #[cfg(feature = "cudnn")]
    fn forward_device(&self, feature: &Features, gpu: &std::sync::Arc<Gpu>) -> CandleResult<DeviceLixels> {
        let Lines::Device(lines) = &self.lines else { candle_core::bail!("the head is not on the GPU") };
        lines.run(&self.deconv.run(feature)?.to_device(gpu)?, &feature.to_device(gpu)?)
    }
}

/// Everything that the network says, on its device.
pub struct I2lOutput {
    /// The joints of PoseNet.
    pub joints: Lixels,
    /// The mesh.
    pub vertices: Lixels,
    /// What lies between.
    pub features: I2lFeatures,
}

/// The features between the stages.
pub struct I2lFeatures {
    /// The patch after the stem, `[B, 64, D, D]`.
    pub early: Features,
    /// PoseNet's backbone, `[B, C, D/8, D/8]`.
    pub pose: Features,
    /// Early feature and joints, `[B, 64, D, D]`.
    pub pose2feat: Features,
    /// MeshNet's backbone, `[B, C, D/8, D/8]`.
    pub mesh: Features,
}

/// The network.
pub struct I2l {
    sizes: NetSizes,
    shape: I2lShape,
    device: Device,
    stem: Stem,
    pose_backbone: Stages,
    pose_net: LixelHead,
    pose2feat: Pose2Feat,
    mesh_backbone: Stages,
    mesh_net: LixelHead,
    param_regressor: Option<ParamRegressor>,
    /// One for each number of people.
    #[cfg(feature = "cudnn")]
    graphs: Option<Graphs<Shape, DeviceMap, OnDevice>>,
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
    joints: DeviceLixels,
    vertices: DeviceLixels,
    features: [DeviceMap; 4],
}

impl I2l {
    /// Reads a checkpoint's `network`, without the `module.` before its names.
    pub fn load(sizes: NetSizes, shape: I2lShape, vb: &VarBuilder) -> CandleResult<Self> {
        let backbone = vb.pp("pose_backbone");
        let params = shape.params.map(|ParamShape { rotations, shape: coefficients }| {
            ParamRegressor::load(shape.joints, rotations, coefficients, &vb.pp("param_regressor"))
        });
        Ok(Self {
            sizes,
            shape,
            device: vb.device().clone(),
            stem: Stem::load(sizes.depth().width(), BN_EPS, &backbone)?,
            pose_backbone: Stages::load(sizes.depth(), BN_EPS, &backbone)?,
            pose_net: LixelHead::load(&sizes, shape.joints, &vb.pp("pose_net"))?,
            pose2feat: Pose2Feat::load(sizes.depth().width(), shape.joints, sizes.heatmap(), &vb.pp("pose2feat"))?,
            mesh_backbone: Stages::load(sizes.depth(), BN_EPS, &vb.pp("mesh_backbone"))?,
            mesh_net: LixelHead::load(&sizes, shape.vertices, &vb.pp("mesh_net"))?,
            param_regressor: params.transpose()?,
            #[cfg(feature = "cudnn")]
            graphs: Gpu::of(vb.device()).map(Graphs::new),
        })
    }

    /// Sizes of the patch and of the heatmaps.
    pub fn sizes(&self) -> &NetSizes {
        &self.sizes
    }

    /// Joints, vertices, and what the second stage has.
    pub fn shape(&self) -> &I2lShape {
        &self.shape
    }

    /// What the network says of patches.
    pub fn forward<'a>(&self, patches: impl Into<PatchBatch<'a>>) -> Result<I2lOutput> {
        self.forward_watched(patches, &mut |_| Ok(()))
    }

    /// As [`Self::forward`], telling when each stage is done.
    pub fn forward_watched<'a>(&self, patches: impl Into<PatchBatch<'a>>, lap: &mut Lap<'_>) -> Result<I2lOutput> {
        let patches = patches.into();
        on_pool(&self.device, || self.forward_on_pool(patches, lap))
    }

    /// Whether [`Self::forward_crops`] does anything.
    #[cfg(feature = "cudnn")]
    pub fn cuts_patches(&self) -> bool {
        self.graphs.is_some()
    }

    /// Patches cut out of a frame on the GPU that the network is on; `None` where it is on none.
    #[cfg(feature = "cudnn")]
    pub fn forward_crops(&self, source: &PatchSource<'_>) -> Result<Option<I2lOutput>> {
        let Some(graphs) = &self.graphs else { return Ok(None) };
        let fill = |gpu: &std::sync::Arc<Gpu>, input: &DeviceMap| source.cut(gpu, input, UNIT_RANGE);
        Ok(Some(self.forward_graph(graphs, source.people(), fill, &mut |_| Ok(()))?))
    }

    #[cfg(feature = "cudnn")]
    fn forward_graph(
        &self,
        graphs: &Graphs<Shape, DeviceMap, OnDevice>,
        people: usize,
        fill: impl FnOnce(&std::sync::Arc<Gpu>, &DeviceMap) -> CandleResult<()>,
        lap: &mut Lap<'_>,
    ) -> Result<I2lOutput> {
        let side = self.sizes.input();
        let dims = super::cuda::kernels::MapDims::new([people, 3, side, side]);
        let body = |patches: &DeviceMap, lap: &mut Lap<'_>| self.body(graphs.gpu(), patches, lap);
        let take = |made: &OnDevice, replays: &super::cuda::Replays| {
            let [early, pose, pose2feat, mesh] =
                [0, 1, 2, 3].map(|i| Features::Device(made.features[i].stamped(replays.stamp())));
            let (joints, vertices) = (made.joints.to_lixels()?, made.vertices.to_lixels()?);
            Ok(I2lOutput { joints, vertices, features: I2lFeatures { early, pose, pose2feat, mesh } })
        };
        Ok(graphs.run(Shape { people }, |gpu| DeviceMap::new(gpu, dims), fill, body, take, lap)?)
    }

    /// From normalised patches to the heatmaps, on the GPU.
    #[cfg(feature = "cudnn")]
    fn body(&self, gpu: &std::sync::Arc<Gpu>, patches: &DeviceMap, lap: &mut Lap<'_>) -> CandleResult<OnDevice> {
        let early = self.stem.run_features(&Features::Device(patches.clone()))?;
        let pose = self.pose_backbone.run(&early)?;
        lap("pose backbone")?;
        let joints = self.pose_net.forward_device(&pose, gpu)?;
        lap("pose net")?;
        let pose2feat = self.pose2feat.run_device(&early, joints.coords())?;
        lap("pose2feat")?;
        let mesh = self.mesh_backbone.run(&pose2feat)?;
        lap("mesh backbone")?;
        let vertices = self.mesh_net.forward_device(&mesh, gpu)?;
        lap("mesh net")?;
        let map = |features: &Features| features.to_device(gpu);
        Ok(OnDevice { joints, vertices, features: [map(&early)?, map(&pose)?, map(&pose2feat)?, map(&mesh)?] })
    }

    fn forward_on_pool(&self, patches: PatchBatch<'_>, lap: &mut Lap<'_>) -> Result<I2lOutput> {
        self.sizes.check_patches(&patches)?;
        #[cfg(feature = "cudnn")]
        if let Some(graphs) = &self.graphs {
            let patches = patches.to_tensor(&self.device)?;
            let fill = |_: &std::sync::Arc<Gpu>, input: &DeviceMap| input.fill(&patches, Some(UNIT_RANGE));
            return self.forward_graph(graphs, patches.dim(0)?, fill, lap);
        }
        let early = self.stem.run(patches.normalised(&Normalisation::UNIT_RANGE, &self.device)?)?;
        let pose = self.pose_backbone.run(&early)?;
        lap("pose backbone")?;
        let joints = self.pose_net.forward(&pose)?;
        lap("pose net")?;
        let pose2feat = self.pose2feat.run(&early, &joints.coords)?;
        lap("pose2feat")?;
        let mesh = self.mesh_backbone.run(&pose2feat)?;
        lap("mesh backbone")?;
        let vertices = self.mesh_net.forward(&mesh)?;
        lap("mesh net")?;
        Ok(I2lOutput { joints, vertices, features: I2lFeatures { early, pose, pose2feat, mesh } })
    }

    /// Pose and shape of each person from the mesh, through the body's joint regressor `[J, V]`. `None` where the
    /// snapshot has no second stage.
    pub fn params(&self, vertices: &Lixels, joint_regressor: &Tensor) -> Result<Option<Vec<BodyParams>>> {
        if self.param_regressor.is_none() {
            return Ok(None);
        }
        self.params_of_joints(joints_from_mesh(joint_regressor, &vertices.coords.to_tensor()?)?)
    }

    /// The same from the joints of the mesh, `[B, J, 3]` in lixels.
    pub fn params_of_joints(&self, joints: impl Into<Values>) -> Result<Option<Vec<BodyParams>>> {
        let Some(regressor) = &self.param_regressor else { return Ok(None) };
        let joints = joints.into();
        let found = joints.dims().get(1).copied().unwrap_or(0);
        if found != self.shape.joints {
            bail!("the joint regressor gives {found} joints and the parameter stage reads {}", self.shape.joints);
        }
        Ok(Some(regressor.forward(joints)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_tells_its_joints_and_vertices() {
        let shapes = |with_params: bool| {
            move |name: &str| match name {
                "pose_net.conv_x.0.weight" => Some(vec![29, 256, 1]),
                "mesh_net.conv_x.0.weight" => Some(vec![6890, 256, 1]),
                "param_regressor.fc_pose.0.weight" if with_params => Some(vec![144, 512]),
                "param_regressor.fc_shape.0.weight" if with_params => Some(vec![10, 512]),
                _ => None,
            }
        };
        let params = Some(ParamShape { rotations: 24, shape: 10 });
        assert_eq!(I2lShape::from_shapes(shapes(true)).unwrap(), I2lShape { joints: 29, vertices: 6890, params });
        assert_eq!(I2lShape::from_shapes(shapes(false)).unwrap().params, None);
        assert!(I2lShape::from_shapes(|_| None).unwrap_err().to_string().contains("pose_net.conv_x.0.weight"));
    }
}
