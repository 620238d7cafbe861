//! 3D PoseNet's training: patches of synthetic people to MuCo-3DHP's 21 joints.
//!
//! The stand-in has SMPL's joints, so it says where most of MuCo's are: shoulders, elbows, wrists, hands, hips, knees,
//! ankles and the pelvis are the same; the toes are the balls of the feet, the thorax is the neck, the spine is the
//! middle one of the back, and the head is the joint on which it turns. The top of the head is the highest vertex.

use anyhow::{Context, Result};
use candle_core::Tensor;
use glam::Vec3;

use super::batch::{JointErrors, mm, patches, targets};
use super::layers::Pass;
use super::losses::coordinate_loss;
use super::params::Params;
use super::people::{View, Viewer};
use super::posenet3d::PoseNet3d;
use super::task::{Loss, Task};
use crate::body::Family;
use crate::nets::NetSizes;
use crate::nets::posenet3d::{JointSet, MUCO};

/// See the module.
pub struct PoseTask {
    sizes: NetSizes,
    resnet: usize,
    viewer: Viewer,
    network: PoseNet3d,
    sources: Vec<Source>,
}

/// Where a joint of the set is on the stand-in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Joint(usize),
    Vertex(usize),
}

/// For each joint of a set.
fn sources(set: &JointSet, joints: &[String], rest: &[Vec3]) -> Result<Vec<Source>> {
    let source = |name: &String| {
        let own = match name.as_str() {
            "Head_top" => {
                let highest = (0..rest.len()).max_by(|&a, &b| rest[a].y.total_cmp(&rest[b].y));
                return highest.map(Source::Vertex).context("the body has no vertices");
            }
            "Thorax" => "neck".to_owned(),
            "Spine" => "spine2".to_owned(),
            "R_Toe" => "right_foot".to_owned(),
            "L_Toe" => "left_foot".to_owned(),
            _ => match (name.strip_prefix("R_"), name.strip_prefix("L_")) {
                (Some(rest), _) => format!("right_{}", rest.to_lowercase()),
                (_, Some(rest)) => format!("left_{}", rest.to_lowercase()),
                _ => name.to_lowercase(),
            },
        };
        let found = joints.iter().position(|joint| *joint == own);
        found.map(Source::Joint).with_context(|| format!("the stand-in has no joint for {name}"))
    };
    set.skeleton().names.iter().map(source).collect()
}

impl PoseTask {
    /// The task and its network's parameters as they begin.
    pub fn new(resnet: usize, sizes: NetSizes, seed: u64) -> Result<(Self, Params)> {
        PoseNet3d::check(&sizes)?;
        let viewer = Viewer::new(Family::Smpl, sizes.input() as u32)?;
        let sources = sources(&MUCO, &viewer.topology().skeleton.names, viewer.studio().body().template_m())?;
        let (params, network) = Params::build(seed, |b| PoseNet3d::new(&sizes, sources.len(), b));
        Ok((Self { sizes, resnet, viewer, network, sources }, params))
    }

    /// The set's joints in a view, as [`View`] has its own.
    fn joints(&self, view: &View) -> Vec<Vec3> {
        let place = |source: &Source| match *source {
            Source::Joint(joint) => view.joints[joint],
            Source::Vertex(vertex) => view.vertices[vertex],
        };
        self.sources.iter().map(place).collect()
    }
}

impl Task for PoseTask {
    type Sample = View;

    fn block(&self, number: u64) -> Result<Vec<View>> {
        self.viewer.block(number)
    }

    fn loss(&self, pass: &Pass, batch: &[&View]) -> Result<Loss> {
        let device = &pass.device();
        let coords = self.network.forward(pass, &patches(batch, device)?)?;
        let [target, valid] = targets(batch, device, self.sizes.heatmap(), |view| self.joints(view).into())?;
        let is_3d = Tensor::ones(batch.len(), candle_core::DType::F32, device)?;
        let total = coordinate_loss(&coords, &target, &valid, &is_3d)?;
        Ok(Loss { parts: vec![("pose_lixel", total.clone())], total })
    }

    fn errors(&self, pass: &Pass, batch: &[&View]) -> Result<Vec<(&'static str, f64, usize)>> {
        let coords = self.network.forward(pass, &patches(batch, &pass.device())?)?.to_vec3::<f32>()?;
        let (mut errors, bins) = (JointErrors::of(Family::Smpl), self.sizes.heatmap());
        for (view, found) in batch.iter().zip(coords) {
            let found: Vec<Vec3> = found.iter().map(|p| Vec3::from_slice(p)).collect();
            let truth = view.lixels(&self.joints(view), bins);
            errors.add(view.kind, &mm(&view.metres(&found, bins)), &mm(&view.metres(&truth, bins)), MUCO.root())?;
        }
        Ok(errors.sums())
    }

    fn learns(&self) -> String {
        "SMPL".to_owned()
    }

    fn config_json(&self) -> String {
        let (resnet, input, heatmap) = (self.resnet, self.sizes.input(), self.sizes.heatmap());
        format!(r#"{{"resnet": {resnet}, "input": {input}, "heatmap": {heatmap}, "depth_axis": "line_of_sight"}}"#)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::body::standin;

    #[test]
    fn every_joint_of_the_set_is_somewhere_on_the_body() -> Result<()> {
        let body = standin::body()?.model()?;
        let (names, rest) = (&body.topology().skeleton.names, body.template_m());
        let sources = sources(&MUCO, names, rest)?;
        let joints = body.topology().joints(rest).context("a mesh has joints")?;
        let place = |name: &str| {
            let at = MUCO.skeleton().names.iter().position(|n| n == name).expect("it is in the set");
            match sources[at] {
                Source::Joint(joint) => joints[joint],
                Source::Vertex(vertex) => rest[vertex],
            }
        };
        // From the toes to the crown, y up; the person's left is x.
        let column =
            ["L_Toe", "L_Ankle", "L_Knee", "L_Hip", "Pelvis", "Spine", "Thorax", "Head", "Head_top"].map(place);
        assert!(column.is_sorted_by(|a, b| a.y < b.y), "{column:?}");
        for (left, right) in [("L_Hand", "R_Hand"), ("L_Elbow", "R_Elbow"), ("L_Hip", "R_Hip"), ("L_Toe", "R_Toe")] {
            assert!(place(left).x > 0.02 && place(right).x < -0.02, "{left} {right}");
        }
        let all: std::collections::HashSet<_> = sources.iter().map(|source| format!("{source:?}")).collect();
        assert_eq!(all.len(), 21, "each its own");
        Ok(())
    }
}
