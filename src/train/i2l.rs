//! I2L-MeshNet to be trained: the network of [`nets::i2l`](crate::nets::i2l), without its second stage, from the
//! patches to the coordinates of joints and vertices. No gradient flows from MeshNet into PoseNet's coordinates.

use anyhow::Result;
use candle_core::{Result as CandleResult, Tensor, bail};

use super::layers::{Conv, DeconvStack, Norm, Pass};
use super::ops::{axis_means, soft_argmax};
use super::params::{ParamId, Params, ParamsBuilder, Start};
use super::resnet::{Stages, Stem};
use crate::nets::NetSizes;
use crate::nets::input::to_unit_range;
use crate::nets::layers::{Activation, ConvShape};
use crate::nets::pose2feat::{convolved_gaussians, gaussian_weights};

/// What an ablation changes of the network. The default changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Design {
    /// MeshNet is told the joints that PoseNet finds (the paper's Table 3). Else PoseNet learns beside it.
    pub conditioned: bool,
    /// Transposed convolutions of each head; each doubles the bins of the heatmaps (Table 2).
    pub doublings: usize,
    /// Coordinates by 1D heatmaps; else by a linear layer on the mean feature (Table 1).
    pub lixels: bool,
}

impl Default for Design {
    fn default() -> Self {
        Self { conditioned: true, doublings: 3, lixels: true }
    }
}

impl Design {
    /// Bins of the heatmaps; without these, parts of the volume's side that coordinates count.
    pub fn bins(self, sizes: &NetSizes) -> usize {
        (sizes.input() / 32) << self.doublings
    }
}

/// Where N points are.
pub struct LixelOutput {
    /// Logits of x, y and z: `[B, N / 16, 1, D, 16]`, N up to whole blocks.
    logits: Option<[Tensor; 3]>,
    /// Soft-argmax of each heatmap, `[B, N, 3]`, in lixels.
    pub coords: Tensor,
}

impl LixelOutput {
    /// The logits of each axis as they come out, `[B, N / 16, 1, D, 16]`, N up to whole blocks; `None` where a
    /// [`Design`] has no heatmaps.
    pub fn blocked_logits(&self) -> Option<&[Tensor; 3]> {
        self.logits.as_ref()
    }

    /// The logits of each axis, `[B, N, D]`: for a loss on the heatmaps themselves.
    pub fn logits(&self) -> CandleResult<[Tensor; 3]> {
        let points = self.coords.dim(1)?;
        let planar = |logits: &Tensor| {
            let (b, blocks, _, bins, lanes) = logits.dims5()?;
            let logits = logits.squeeze(2)?.transpose(2, 3)?.contiguous()?;
            logits.reshape((b, blocks * lanes, bins))?.narrow(1, 0, points)
        };
        let Some([x, y, z]) = &self.logits else { bail!("coordinates without heatmaps") };
        Ok([planar(x)?, planar(y)?, planar(z)?])
    }
}

/// `pose_net`, `mesh_net`.
struct LixelHead {
    deconv: DeconvStack,
    x: Conv,
    y: Conv,
    z_1: (Conv, Norm),
    z_2: Conv,
    points: usize,
    channels: usize,
    bins: usize,
}

impl LixelHead {
    fn new(sizes: &NetSizes, design: Design, points: usize, b: &mut ParamsBuilder) -> Self {
        let (features, channels, bins) = (sizes.features(), sizes.channels(), design.bins(sizes));
        let line = channels * bins;
        let start = Start::he(features);
        Self {
            deconv: DeconvStack::of(design.doublings, features, channels, &mut b.pp("deconv")),
            x: Conv::head(channels, points, 3, &mut b.pp("conv_x.0")),
            y: Conv::head(channels, points, 3, &mut b.pp("conv_y.0")),
            z_1: (
                Conv::pointwise(features, line, 3, start, &mut b.pp("conv_z_1.0")),
                Norm::new(line, &mut b.pp("conv_z_1.1")),
            ),
            z_2: Conv::head(channels, points, 3, &mut b.pp("conv_z_2.0")),
            points,
            channels,
            bins,
        }
    }

    /// Weights and biases whose rows are points.
    fn heads(&self) -> [[ParamId; 2]; 3] {
        [&self.x, &self.y, &self.z_2].map(Conv::weight_and_bias)
    }

    /// `[B, C / 16, D/8, D/8, 16]` to heatmaps of D bins.
    fn forward(&self, pass: &Pass, feature: &Tensor) -> CandleResult<LixelOutput> {
        let lines = axis_means(&self.deconv.forward(pass, feature)?)?; // [2, B, 16, D, 16]
        let x = self.x.forward(pass, &lines.get(0)?.unsqueeze(2)?)?;
        let y = self.y.forward(pass, &lines.get(1)?.unsqueeze(2)?)?;
        let pooled = feature.mean_keepdim((2, 3))?; // [B, C / 16, 1, 1, 16]
        let line = self.z_1.0.forward(pass, &pooled)?; // [B, 256 D / 16, 1, 1, 16]
        let line = self.z_1.1.forward(pass, &line, None, Activation::Relu)?;
        let line = pass.blocks(&line.reshape((line.dim(0)?, self.channels, 1, self.bins))?)?;
        let z = self.z_2.forward(pass, &line)?;
        let coords = [soft_argmax(&x)?, soft_argmax(&y)?, soft_argmax(&z)?];
        let coords = Tensor::stack(&coords, 2)?.narrow(1, 0, self.points)?; // [B, N, 3]
        Ok(LixelOutput { logits: Some([x, y, z]), coords })
    }
}

/// Heatmaps, or the layer that an ablation has in their place.
enum Head {
    Lixels(Box<LixelHead>),
    Direct { linear: Conv, points: usize, bins: usize },
}

impl Head {
    fn new(sizes: &NetSizes, design: Design, points: usize, b: &mut ParamsBuilder) -> Self {
        if design.lixels {
            return Self::Lixels(Box::new(LixelHead::new(sizes, design, points, b)));
        }
        let linear = Conv::head(sizes.features(), points * 3, 2, &mut b.pp("linear"));
        Self::Direct { linear, points, bins: design.bins(sizes) }
    }

    fn forward(&self, pass: &Pass, feature: &Tensor) -> CandleResult<LixelOutput> {
        match self {
            Self::Lixels(head) => head.forward(pass, feature),
            Self::Direct { linear, points, bins } => {
                let out = linear.forward(pass, &feature.mean_keepdim((2, 3))?)?; // [B, 3 N / 16, 1, 1, 16]
                let places = out.flatten_from(1)?.narrow(1, 0, points * 3)?.reshape(((), *points, 3))?;
                // They begin in the middle of the volume, as those of heatmaps do.
                Ok(LixelOutput { logits: None, coords: ((places + 0.5)? * *bins as f64)? })
            }
        }
    }
}

/// `pose2feat`
struct Pose2Feat {
    conv: Conv,
    norm: Norm,
    joints: usize,
    bins: usize,
}

impl Pose2Feat {
    fn new(channels: usize, joints: usize, bins: usize, b: &mut ParamsBuilder) -> Self {
        let shape = ConvShape::same(channels, channels, 3);
        let conv = Conv::with_more_inputs(shape, joints * bins, &mut b.pp("conv.0"));
        Self { conv, norm: Norm::new(channels, &mut b.pp("conv.1")), joints, bins }
    }

    /// `early [B, 4, D, D, 16], coords [B, J, 3] -> [B, 4, D, D, 16]`
    fn forward(&self, pass: &Pass, early: &Tensor, coords: &Tensor) -> CandleResult<Tensor> {
        if self.joints == 0 {
            return self.norm.forward(pass, &self.conv.forward(pass, early)?, None, Activation::Relu);
        }
        let weights = gaussian_weights(&pass.var(self.conv.weight)?, self.joints, self.bins)?;
        let gaussians = convolved_gaussians(&weights, &coords.detach())?;
        let both = (self.conv.forward(pass, early)? + pass.blocks(&gaussians)?)?;
        self.norm.forward(pass, &both, None, Activation::Relu)
    }
}

/// What the network says.
pub struct I2lOutput {
    /// The joints of PoseNet.
    pub joints: LixelOutput,
    /// The mesh.
    pub vertices: LixelOutput,
}

/// The network.
pub struct I2l {
    stem: Stem,
    pose_backbone: Stages,
    pose_net: Head,
    pose2feat: Pose2Feat,
    mesh_backbone: Stages,
    mesh_net: Head,
    /// Bins of the early feature to one of the heatmaps.
    early_per_bin: f64,
}

impl I2l {
    /// Under the names of the checkpoints.
    pub fn new(sizes: &NetSizes, joints: usize, vertices: usize, b: &mut ParamsBuilder) -> Self {
        Self::designed(sizes, Design::default(), joints, vertices, b)
    }

    /// Otherwise than the checkpoints, for an ablation.
    pub fn designed(sizes: &NetSizes, design: Design, joints: usize, vertices: usize, b: &mut ParamsBuilder) -> Self {
        let told = if design.conditioned { joints } else { 0 };
        Self {
            stem: Stem::new(sizes.depth().width(), &mut b.pp("pose_backbone")),
            pose_backbone: Stages::new(sizes.depth(), &mut b.pp("pose_backbone")),
            pose_net: Head::new(sizes, design, joints, &mut b.pp("pose_net")),
            pose2feat: Pose2Feat::new(sizes.depth().width(), told, sizes.heatmap(), &mut b.pp("pose2feat")),
            mesh_backbone: Stages::new(sizes.depth(), &mut b.pp("mesh_backbone")),
            mesh_net: Head::new(sizes, design, vertices, &mut b.pp("mesh_net")),
            early_per_bin: sizes.heatmap() as f64 / design.bins(sizes) as f64,
        }
    }

    /// Patches `[B, 3, H, W]`, RGB in `0..=255`.
    pub fn forward(&self, pass: &Pass, patches: &Tensor) -> Result<I2lOutput> {
        let (early, joints) = self.forward_pose(pass, patches)?;
        let vertices = self.forward_mesh(pass, &early, &joints)?;
        Ok(I2lOutput { joints, vertices })
    }

    /// PoseNet alone: the early feature and the joints.
    pub fn forward_pose(&self, pass: &Pass, patches: &Tensor) -> Result<(Tensor, LixelOutput)> {
        let early = self.stem.forward(pass, &pass.image(&to_unit_range(patches)?)?)?;
        let joints = self.pose_net.forward(pass, &self.pose_backbone.forward(pass, &early)?)?;
        Ok((early, joints))
    }

    /// MeshNet, from what [`Self::forward_pose`] gave.
    pub fn forward_mesh(&self, pass: &Pass, early: &Tensor, joints: &LixelOutput) -> Result<LixelOutput> {
        let feature = self.pose2feat.forward(pass, early, &(&joints.coords * self.early_per_bin)?)?;
        self.mesh_net.forward(pass, &self.mesh_backbone.forward(pass, &feature)?).map_err(Into::into)
    }

    /// Lets MeshNet begin where PoseNet has come to: its trunk as a copy of PoseNet's, each vertex as the joint of
    /// `nearest_joint`, and the early feature let through.
    pub fn start_mesh_from_pose(&self, params: &Params, nearest_joint: &[usize]) {
        params.copy_named(|name| {
            let trunk = name.strip_prefix("mesh_backbone.").map(|rest| format!("pose_backbone.{rest}"));
            let head = || name.strip_prefix("mesh_net.").map(|rest| format!("pose_net.{rest}"));
            trunk.or_else(head)
        });
        let (Head::Lixels(mesh), Head::Lixels(pose)) = (&self.mesh_net, &self.pose_net) else { return };
        let mut values = params.values_mut();
        for (mesh, pose) in mesh.heads().into_iter().zip(pose.heads()) {
            for (to, from) in mesh.into_iter().zip(pose) {
                let (to, from) = (params.range(to), params.range(from));
                let row = to.len() / nearest_joint.len();
                for (vertex, &joint) in nearest_joint.iter().enumerate() {
                    let from = from.start + joint * row..from.start + (joint + 1) * row;
                    values.copy_within(from, to.start + vertex * row);
                }
            }
        }
        // The middle tap of the early feature's channels.
        let weight = self.pose2feat.conv.weight;
        let (range, shape) = (params.range(weight), params.shape(weight).to_vec());
        let row = shape[1] * 9;
        for channel in 0..shape[0] {
            let own = range.start + channel * row;
            values[own..own + shape[0] * 9].fill(0.0);
            values[own + channel * 9 + 4] = 1.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use candle_core::{DType, Device};
    use candle_nn::VarBuilder;

    use super::*;
    use crate::lixel::softmax;
    use crate::nets::i2l::{I2l as Inference, I2lShape};
    use crate::train::checkpoint::save_weights;
    use crate::train::losses::coordinate_loss;
    use crate::train::optimizer::Adam;

    fn deviation(a: &Tensor, b: &Tensor) -> CandleResult<f32> {
        (a - b)?.abs()?.max_all()?.to_scalar()
    }

    #[test]
    fn what_is_trained_is_what_the_inference_network_reads() -> Result<()> {
        let (sizes, joints, vertices, people) = (NetSizes::new(18, 64, 16)?.with_widths(16, 16), 5, 37, 4);
        let (params, network) = Params::build(1, |b| I2l::new(&sizes, joints, vertices, b));
        let mut adam = Adam::new(&params);
        let params = Arc::new(params);
        let pass = Pass { params: params.clone(), is_training: true };
        let patches = Tensor::rand(0_f32, 255.0, (people, 3, 64, 64), &Device::Cpu)?;
        let target = |count| Tensor::rand(4_f32, 11.0, (people, count, 3), &Device::Cpu);
        let targets = [target(joints)?, target(vertices)?];
        let mut losses = Vec::new();
        for _ in 0..15 {
            let out = network.forward(&pass, &patches)?;
            let is_3d = Tensor::ones(people, DType::F32, &Device::Cpu)?;
            let loss = |out: &LixelOutput, target: &Tensor| {
                coordinate_loss(&out.coords, target, &out.coords.narrow(2, 0, 1)?.ones_like()?, &is_3d)
            };
            let loss = (loss(&out.joints, &targets[0])? + loss(&out.vertices, &targets[1])?)?;
            params.backward(&loss)?;
            adam.step(&params, 5e-3);
            losses.push(loss.to_scalar::<f32>()?);
        }
        // At first every coordinate is the middle bin, on average a quarter of the targets' range of 7 away.
        assert!(losses[14] < 0.75 * losses[0], "{losses:?}");

        let folder = tempfile::tempdir()?;
        let path = folder.path().join("trained.safetensors");
        save_weights(&params, "{}", &path)?;
        let tensors = candle_core::safetensors::load(&path, &Device::Cpu)?;
        let shape = I2lShape::from_shapes(|name| tensors.get(name).map(|t| t.dims().to_vec()))?;
        assert_eq!(shape, I2lShape { joints, vertices, params: None });
        let inference = Inference::load(sizes, shape, &VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu))?;
        let expected = inference.forward(&patches)?;
        let ours = network.forward(&Pass { params, is_training: false }, &patches)?;
        for (ours, expected) in [(&ours.joints, &expected.joints), (&ours.vertices, &expected.vertices)] {
            // Some forty layers with a relative error of 1e-6 each, on coordinates up to 15.
            let coords = deviation(&ours.coords, &expected.coords.to_tensor()?)?;
            assert!(coords < 2e-3, "{coords} lixels");
            let heatmaps = softmax(&Tensor::stack(&ours.logits()?, 2)?)?;
            let heatmaps = deviation(&heatmaps, &expected.heatmaps.to_tensor()?)?;
            assert!(heatmaps < 1e-3, "{heatmaps}");
        }
        // They are not the same for everybody, so the comparison says something.
        let vertices = expected.vertices.coords.to_tensor()?;
        let [first, second] = [0, 1].map(|i| vertices.get(i));
        assert!(deviation(&first?, &second?)? > 0.1);
        Ok(())
    }

    #[test]
    fn the_mesh_has_no_gradient_through_the_gaussians() -> Result<()> {
        let sizes = NetSizes::new(18, 64, 16)?.with_widths(16, 16);
        let (params, network) = Params::build(2, |b| I2l::new(&sizes, 5, 20, b));
        let pass = Pass { params: Arc::new(params), is_training: true };
        let patches = Tensor::rand(0_f32, 255.0, (2, 3, 64, 64), &Device::Cpu)?;
        let out = network.forward(&pass, &patches)?;
        pass.params.backward(&out.vertices.coords.sqr()?.sum_all()?)?;
        let mut start = 0;
        for (name, shape) in pass.params.names() {
            let end = start + shape.iter().product::<usize>();
            let touched = pass.params.gradients()[start..end].iter().any(|g| *g != 0.0);
            let through = ["pose2feat.", "mesh_", "pose_backbone.conv1.", "pose_backbone.bn1."];
            let expected = through.iter().any(|part| name.starts_with(part)) && !name.contains("running");
            // A bias before a batch norm changes nothing; what is left of its gradient is rounding.
            if !(name.ends_with("conv_z_1.0.bias") || name == "pose2feat.conv.0.bias") {
                assert_eq!(touched, expected, "{name}");
            }
            start = end;
        }
        Ok(())
    }
}
