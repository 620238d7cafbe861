//! RootNet's training: patches of synthetic people, or hands, to their root joints.

use std::collections::HashMap;

use anyhow::{Context, Result};
use candle_core::{Device, Tensor};

use super::batch::{patches, place};
use super::layers::Pass;
use super::params::Params;
use super::people::{View, Viewer};
use super::rootnet::RootNet;
use super::task::{Loss, Task};
use crate::body::Family;
use crate::nets::NetSizes;
use crate::nets::input::IMAGENET_STD;
use crate::nets::weights::WeightFile;

/// Lets RootNet's trunk and deconvolutions begin as those of a trained PoseNet of the same sizes.
pub fn start_from_pose(params: &Params, pose: &WeightFile) -> Result<()> {
    let own: HashMap<String, Tensor> = params.tensors()?;
    params.read(|name| {
        let source = name.strip_prefix("backbone.").map(|rest| format!("pose_backbone.{rest}"));
        let head = || name.strip_prefix("root.deconv_layers.").map(|rest| format!("pose_net.deconv.{rest}"));
        let Some(source) = source.or_else(head) else {
            return own.get(name).cloned().with_context(|| format!("no parameter {name}"));
        };
        let tensor = pose.tensor(&source, &Device::Cpu)?;
        // PoseNet reads 0..1, RootNet deviations of 0..255: the first convolution undoes it, but for the means, which
        // its norm takes care of.
        if name == "backbone.conv1.weight" {
            let scale = Tensor::from_slice(&IMAGENET_STD.map(|s| s / 255.0), (1, 3, 1, 1), &Device::Cpu)?;
            return Ok(tensor.broadcast_mul(&scale)?);
        }
        Ok(tensor)
    })
}

/// Gamma is about 1 and is wanted to a few hundredths, x and y are wanted to a few tenths of a bin: the same matters as
/// much.
const GAMMA_WEIGHT: f64 = 10.0;

/// See the module.
pub struct RootTask {
    sizes: NetSizes,
    resnet: usize,
    viewer: Viewer,
    network: RootNet,
}

impl RootTask {
    /// The task and its network's parameters as they begin, for people or for hands.
    pub fn new(of: Family, resnet: usize, sizes: NetSizes, seed: u64) -> Result<(Self, Params)> {
        let viewer = Viewer::new(of, sizes.input() as u32)?;
        let (params, network) = Params::build(seed, |b| RootNet::new(&sizes, b));
        Ok((Self { sizes, resnet, viewer, network }, params))
    }

    /// Root joints in bins, `[B, 2]`, and gamma, `[B]`.
    fn targets(&self, batch: &[&View], device: &Device) -> Result<[Tensor; 2]> {
        let per_px = self.sizes.heatmap() as f32 / self.sizes.input() as f32;
        let roots: Vec<f32> = batch.iter().flat_map(|view| (view.joints[0] * per_px).truncate().to_array()).collect();
        let gammas: Vec<f32> = batch.iter().map(|view| view.gamma).collect();
        let people = batch.len();
        Ok([Tensor::from_vec(roots, (people, 2), device)?, Tensor::from_vec(gammas, people, device)?])
    }
}

impl Task for RootTask {
    type Sample = View;

    fn block(&self, number: u64) -> Result<Vec<View>> {
        self.viewer.block(number)
    }

    fn loss(&self, pass: &Pass, batch: &[&View]) -> Result<Loss> {
        let device = &pass.device();
        let out = self.network.forward(pass, &patches(batch, device)?)?;
        let [roots, gammas] = self.targets(batch, device)?;
        let coords = (out.coords - roots)?.abs()?.mean_all()?;
        let gamma = (out.gamma - gammas)?.abs()?.mean_all()?;
        let parts = vec![("root_lixel", coords.clone()), ("gamma", gamma.clone())];
        Ok(Loss { total: (coords + (gamma * GAMMA_WEIGHT)?)?, parts })
    }

    fn errors(&self, pass: &Pass, batch: &[&View]) -> Result<Vec<(&'static str, f64, usize)>> {
        let out = self.network.forward(pass, &patches(batch, &pass.device())?)?;
        let (coords, gammas) = (out.coords.to_vec2::<f32>()?, out.gamma.to_vec1::<f32>()?);
        let names: &[_] = match self.viewer.family() {
            Family::Smpl => &["depth_percent", "scenes_mrpe_mm", "poses_mrpe_mm", "postures_mrpe_mm"],
            Family::Mano => &["depth_percent", "hands_mrpe_mm"],
        };
        let mut sums: Vec<_> = names.iter().map(|name| (*name, 0.0, 0)).collect();
        let px_per_bin = self.sizes.input() as f32 / self.sizes.heatmap() as f32;
        for ((view, xy), gamma) in batch.iter().zip(coords).zip(gammas) {
            let depth_m = view.root_depth_m * gamma / view.gamma;
            let root = view.joints[0];
            // In the middle of the frame: there the error of x and y is the patch's alone.
            let across = |bin: f32, px: f32| (bin * px_per_bin - px) * view.metres_per_px_at_1m * depth_m;
            let (x, y, z) = (across(xy[0], root.x), across(xy[1], root.y), depth_m - view.root_depth_m);
            let sum = &mut sums[1 + place(view.kind)];
            sum.1 += f64::from((x * x + y * y + z * z).sqrt() * 1000.0);
            sum.2 += 1;
            sums[0].1 += f64::from((gamma / view.gamma - 1.0).abs() * 100.0);
            sums[0].2 += 1;
        }
        Ok(sums)
    }

    fn learns(&self) -> String {
        self.viewer.family().name().to_owned()
    }

    fn config_json(&self) -> String {
        format!(
            r#"{{"resnet": {}, "input": {}, "heatmap": {}, "depth_unit": "m"}}"#,
            self.resnet,
            self.sizes.input(),
            self.sizes.heatmap()
        )
    }
}
