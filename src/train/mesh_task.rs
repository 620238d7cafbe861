//! I2L-MeshNet's training: patches of synthetic people, or hands, to the heatmaps of their joints and vertices.

use anyhow::Result;
use candle_core::{Device, Tensor};
use glam::Vec3;

use super::batch::{Constant, JointErrors, mm, patches, targets};
use super::i2l::{Design, I2l, LixelOutput};
use super::layers::Pass;
use super::losses::{Faces, coordinate_loss, surface_losses};
use super::ops::heatmap_cross_entropy;
use super::params::Params;
use super::people::{View, Viewer};
use super::task::{Loss, Task};
use crate::body::Family;
use crate::nets::NetSizes;
use crate::nets::param::regressor_matrix;

/// Weight of the face normals' loss (lambda of eq. 13).
const NORMAL_WEIGHT: f64 = 0.1;
/// Weight of the heatmaps' cross-entropy beside the L1 of the coordinates.
const HEATMAP_WEIGHT: f64 = 0.25;

/// What of the network learns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Stage {
    /// PoseNet alone: half of the work. The release's PoseNet is trained before the rest, too.
    Pose,
    /// MeshNet alone, on what PoseNet says.
    Mesh,
    /// Both.
    #[default]
    All,
}

/// See the module.
pub struct MeshTask {
    stage: Stage,
    sizes: NetSizes,
    /// Bins of the heatmaps.
    bins: usize,
    resnet: usize,
    viewer: Viewer,
    network: I2l,
    /// Where the surface's losses (eq. 10 and 11) are wanted; they refine a mesh that is there.
    surface: Option<Faces>,
    /// `[J, V]`
    regressor: Constant,
}

impl MeshTask {
    /// The task and its network's parameters as they begin, for the body or for the hand.
    pub fn new(
        of: Family,
        resnet: usize,
        sizes: NetSizes,
        stage: Stage,
        surface: bool,
        seed: u64,
    ) -> Result<(Self, Params)> {
        Self::designed(of, resnet, sizes, Design::default(), stage, surface, seed)
    }

    /// The same for a network that an ablation has changed.
    pub fn designed(
        of: Family,
        resnet: usize,
        sizes: NetSizes,
        design: Design,
        stage: Stage,
        surface: bool,
        seed: u64,
    ) -> Result<(Self, Params)> {
        let viewer = Viewer::new(of, sizes.input() as u32)?;
        let topology = viewer.topology();
        let (joints, vertices) = (topology.skeleton.names.len(), topology.vertex_count);
        let (params, network) = Params::build(seed, |b| I2l::designed(&sizes, design, joints, vertices, b));
        let surface = surface.then(|| Faces::new(&topology.faces, vertices)).transpose()?;
        let regressor = Constant::new(regressor_matrix(&topology.joint_regressor, vertices, &Device::Cpu)?);
        let bins = design.bins(&sizes);
        Ok((Self { stage, sizes, bins, resnet, viewer, network, surface, regressor }, params))
    }

    /// Lets MeshNet begin where PoseNet has come to.
    pub fn start_mesh_from_pose(&self, params: &Params) {
        let body = self.viewer.studio().body();
        let rest = body.template_m();
        let joints = body.topology().joints(rest).unwrap_or_default();
        let nearest = |v: &Vec3| {
            let distance = |j: &usize| joints[*j].distance(*v);
            (0..joints.len()).min_by(|a, b| distance(a).total_cmp(&distance(b))).unwrap_or(0)
        };
        self.network.start_mesh_from_pose(params, &rest.iter().map(nearest).collect::<Vec<_>>());
    }

    /// Coordinates of all axes and heatmaps of each.
    fn point_losses(output: &LixelOutput, [target, valid]: &[Tensor; 2]) -> Result<[Tensor; 2]> {
        let is_3d = Tensor::ones(target.dim(0)?, candle_core::DType::F32, target.device())?;
        let coords = coordinate_loss(&output.coords, target, valid, &is_3d)?;
        let mut heatmaps = Tensor::new(0.0_f32, target.device())?;
        for (axis, logits) in output.blocked_logits().into_iter().flatten().enumerate() {
            let target = target.narrow(2, axis, 1)?.squeeze(2)?;
            heatmaps = (heatmaps + heatmap_cross_entropy(logits, &target)?)?;
        }
        Ok([coords, (heatmaps / 3.0)?])
    }
}

impl Task for MeshTask {
    type Sample = View;

    fn block(&self, number: u64) -> Result<Vec<View>> {
        self.viewer.block(number)
    }

    fn loss(&self, pass: &Pass, batch: &[&View]) -> Result<Loss> {
        let device = &pass.device();
        let joints = targets(batch, device, self.bins, |view| (&view.joints).into())?;
        let pose_pass = Pass { is_training: self.stage != Stage::Mesh, ..pass.clone() };
        let (early, found_joints) = self.network.forward_pose(&pose_pass, &patches(batch, device)?)?;
        let (mut total, mut parts) = (Tensor::new(0.0_f32, device)?, Vec::new());
        if self.stage != Stage::Mesh {
            let [coords, heatmaps] = Self::point_losses(&found_joints, &joints)?;
            parts.extend([("pose_lixel", coords.clone()), ("pose_heatmap", heatmaps.clone())]);
            total = (coords + (heatmaps * HEATMAP_WEIGHT)?)?;
        }
        if self.stage == Stage::Pose {
            return Ok(Loss { total, parts });
        }
        // Gradients begin at a variable.
        let early = if self.stage == Stage::Mesh { pass.image(&early)? } else { early };
        let out = self.network.forward_mesh(pass, &early, &found_joints)?;
        let vertices = targets(batch, device, self.bins, |view| (&view.vertices).into())?;
        let [coords, heatmaps] = Self::point_losses(&out, &vertices)?;
        // The joints that the mesh carries.
        let (people, count, _) = out.coords.dims3()?;
        let columns = out.coords.transpose(0, 1)?.reshape((count, people * 3))?;
        let carried = self.regressor.on(device)?.matmul(&columns)?.reshape(((), people, 3))?.transpose(0, 1)?;
        let is_3d = Tensor::ones(people, candle_core::DType::F32, device)?;
        let carried = coordinate_loss(&carried, &joints[0], &joints[1], &is_3d)?;
        parts.extend([
            ("mesh_lixel", coords.clone()),
            ("joint_lixel", carried.clone()),
            ("mesh_heatmap", heatmaps.clone()),
        ]);
        total = (((total + coords)? + carried)? + (heatmaps * HEATMAP_WEIGHT)?)?;
        if let Some(faces) = &self.surface {
            let [target, valid] = &vertices;
            let [normal, edge] = surface_losses(&out.coords, target, valid, faces)?;
            parts.extend([("normal", normal.clone()), ("edge", edge.clone())]);
            total = ((total + (normal * NORMAL_WEIGHT)?)? + edge)?;
        }
        Ok(Loss { total, parts })
    }

    fn errors(&self, pass: &Pass, batch: &[&View]) -> Result<Vec<(&'static str, f64, usize)>> {
        let (early, joints) = self.network.forward_pose(pass, &patches(batch, &pass.device())?)?;
        let is_pose = self.stage == Stage::Pose;
        let out = if is_pose { joints } else { self.network.forward_mesh(pass, &early, &joints)? };
        let mut errors = JointErrors::of(self.viewer.family());
        for (view, found) in batch.iter().zip(out.coords.to_vec3::<f32>()?) {
            let joints_mm = |points: &[Vec3]| {
                let points = view.metres(points, self.bins);
                mm(&if is_pose { points } else { self.viewer.topology().joints(&points).unwrap_or_default() })
            };
            let found: Vec<Vec3> = found.iter().map(|p| Vec3::from_slice(p)).collect();
            let truth = if is_pose { &view.joints } else { &view.vertices };
            let truth = view.lixels(truth, self.bins);
            errors.add(view.kind, &joints_mm(&found), &joints_mm(&truth), 0)?;
        }
        Ok(errors.sums())
    }

    fn learns(&self) -> String {
        let surface = if self.surface.is_some() { ", with the surface's losses" } else { "" };
        format!("{}, stage {:?}{surface}", self.viewer.family().name(), self.stage)
    }

    fn config_json(&self) -> String {
        format!(
            r#"{{"resnet": {}, "input": {}, "heatmap": {}, "depth_axis": "line_of_sight"}}"#,
            self.resnet,
            self.sizes.input(),
            self.sizes.heatmap()
        )
    }
}
