//! I2L-MeshNet's training: patches of synthetic people to the heatmaps of their joints and vertices.

use anyhow::Result;
use candle_core::{Device, Tensor};
use glam::{DVec3, Vec3};

use super::i2l::{I2l, LixelOutput};
use super::layers::Pass;
use super::losses::{Faces, coordinate_loss, surface_losses};
use super::ops::heatmap_cross_entropy;
use super::params::Params;
use super::people::{View, Viewer, lixels};
use super::task::{Loss, Task};
use crate::eval::metrics;
use crate::nets::NetSizes;
use crate::nets::input::patches_tensor;
use crate::nets::param::regressor_matrix;
use crate::synth::Kind;

/// Weight of the face normals' loss (lambda of eq. 13).
const NORMAL_WEIGHT: f64 = 0.1;
/// Weight of the heatmaps' cross-entropy beside the L1 of the coordinates.
const HEATMAP_WEIGHT: f64 = 0.25;

/// See the module.
pub struct MeshTask {
    sizes: NetSizes,
    resnet: usize,
    viewer: Viewer,
    network: I2l,
    /// Where the surface's losses (eq. 10 and 11) are wanted; they refine a mesh that is there.
    surface: Option<Faces>,
    /// `[J, V]`
    regressor: Tensor,
}

impl MeshTask {
    /// The task and its network's parameters as they begin.
    pub fn new(resnet: usize, sizes: NetSizes, surface: bool, seed: u64) -> Result<(Self, Params)> {
        let viewer = Viewer::new(sizes.input() as u32)?;
        let topology = viewer.topology();
        let (joints, vertices) = (topology.skeleton.names.len(), topology.vertex_count);
        let (params, network) = Params::build(seed, |b| I2l::new(&sizes, joints, vertices, b));
        let surface = surface.then(|| Faces::new(&topology.faces, vertices)).transpose()?;
        let regressor = regressor_matrix(&topology.joint_regressor, vertices, &Device::Cpu)?;
        Ok((Self { sizes, resnet, viewer, network, surface, regressor }, params))
    }

    fn patches(batch: &[&View]) -> Result<Tensor> {
        let patches: Vec<_> = batch.iter().map(|view| view.patch.clone()).collect();
        patches_tensor(&patches, &Device::Cpu)
    }

    /// Where the points are, and whether they are in the volume of the heatmaps: `[B, N, 3]` and `[B, N, 1]`.
    fn targets(&self, batch: &[&View], points: impl Fn(&View) -> &[Vec3]) -> Result<[Tensor; 2]> {
        let (mut targets, mut valid) = (Vec::new(), Vec::new());
        let (side, bins) = (self.sizes.input() as u32, self.sizes.heatmap());
        for view in batch {
            for p in lixels(points(view), side, bins) {
                targets.extend(p.to_array());
                let inside = p.cmpge(Vec3::ZERO).all() && p.cmple(Vec3::splat((bins - 1) as f32)).all();
                valid.push(f32::from(u8::from(inside)));
            }
        }
        let (people, count) = (batch.len(), valid.len() / batch.len());
        let targets = Tensor::from_vec(targets, (people, count, 3), &Device::Cpu)?;
        Ok([targets, Tensor::from_vec(valid, (people, count, 1), &Device::Cpu)?])
    }

    /// Coordinates of all axes and heatmaps of each.
    fn point_losses(output: &LixelOutput, [target, valid]: &[Tensor; 2]) -> Result<[Tensor; 2]> {
        let is_3d = Tensor::ones(target.dim(0)?, candle_core::DType::F32, &Device::Cpu)?;
        let coords = coordinate_loss(&output.coords, target, valid, &is_3d)?;
        let mut heatmaps = Tensor::new(0.0_f32, &Device::Cpu)?;
        for (axis, logits) in output.blocked_logits().iter().enumerate() {
            let target = target.narrow(2, axis, 1)?.squeeze(2)?;
            heatmaps = (heatmaps + heatmap_cross_entropy(logits, &target)?)?;
        }
        Ok([coords, (heatmaps / 3.0)?])
    }
}

fn number(tensor: &Tensor) -> Result<f32> {
    Ok(tensor.to_scalar()?)
}

impl Task for MeshTask {
    type Sample = View;

    fn block(&self, number: u64) -> Result<Vec<View>> {
        self.viewer.block(number)
    }

    fn loss(&self, pass: &Pass, batch: &[&View]) -> Result<Loss> {
        let out = self.network.forward(pass, &Self::patches(batch)?)?;
        let joints = self.targets(batch, |view| &view.joints)?;
        let vertices = self.targets(batch, |view| &view.vertices)?;
        let [joint_coords, joint_heatmaps] = Self::point_losses(&out.joints, &joints)?;
        let [mesh_coords, mesh_heatmaps] = Self::point_losses(&out.vertices, &vertices)?;
        // The joints that the mesh carries.
        let (people, count, _) = out.vertices.coords.dims3()?;
        let columns = out.vertices.coords.transpose(0, 1)?.reshape((count, people * 3))?;
        let carried = self.regressor.matmul(&columns)?.reshape(((), people, 3))?.transpose(0, 1)?;
        let is_3d = Tensor::ones(people, candle_core::DType::F32, &Device::Cpu)?;
        let carried = coordinate_loss(&carried, &joints[0], &joints[1], &is_3d)?;
        let mut parts = vec![
            ("pose_lixel", number(&joint_coords)?),
            ("mesh_lixel", number(&mesh_coords)?),
            ("joint_lixel", number(&carried)?),
            ("pose_heatmap", number(&joint_heatmaps)?),
            ("mesh_heatmap", number(&mesh_heatmaps)?),
        ];
        let coords = ((joint_coords + mesh_coords)? + carried)?;
        let mut total = (coords + ((joint_heatmaps + mesh_heatmaps)? * HEATMAP_WEIGHT)?)?;
        if let Some(faces) = &self.surface {
            let [target, valid] = &vertices;
            let [normal, edge] = surface_losses(&out.vertices.coords, target, valid, faces)?;
            parts.extend([("normal", number(&normal)?), ("edge", number(&edge)?)]);
            total = ((total + (normal * NORMAL_WEIGHT)?)? + edge)?;
        }
        Ok(Loss { total, parts })
    }

    fn errors(&self, pass: &Pass, batch: &[&View]) -> Result<Vec<(&'static str, f64, usize)>> {
        let out = self.network.forward(pass, &Self::patches(batch)?)?;
        let bins = self.sizes.heatmap();
        let coords: Vec<Vec<[f32; 3]>> = out
            .vertices
            .coords
            .to_vec3::<f32>()?
            .into_iter()
            .map(|points| points.into_iter().map(|p| [p[0], p[1], p[2]]).collect())
            .collect();
        let mut sums = [
            ("scenes_mpjpe_mm", 0.0, 0),
            ("scenes_pa_mpjpe_mm", 0.0, 0),
            ("poses_mpjpe_mm", 0.0, 0),
            ("poses_pa_mpjpe_mm", 0.0, 0),
        ];
        for (view, found) in batch.iter().zip(coords) {
            let found: Vec<Vec3> = found.into_iter().map(Vec3::from).collect();
            let mm = |points: &[Vec3]| points.iter().map(|p| p.as_dvec3() * 1000.0).collect::<Vec<DVec3>>();
            let joints = |vertices: Vec<Vec3>| mm(&self.viewer.topology().joints(&vertices).unwrap_or_default());
            let found = joints(view.metres(&found, bins));
            let truth = joints(view.metres(&lixels(&view.vertices, self.sizes.input() as u32, bins), bins));
            let first = if view.kind == Kind::Scenes { 0 } else { 2 };
            sums[first].1 += metrics::mpjpe(&found, &truth, 0)?;
            sums[first + 1].1 += metrics::pa_mpjpe(&found, &truth)?;
            sums[first].2 += 1;
            sums[first + 1].2 += 1;
        }
        Ok(sums.to_vec())
    }

    fn config_json(&self) -> String {
        format!(
            r#"{{"resnet": {}, "input": {}, "heatmap": {}}}"#,
            self.resnet,
            self.sizes.input(),
            self.sizes.heatmap()
        )
    }
}
