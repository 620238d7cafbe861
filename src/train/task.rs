//! What is to be learnt: samples, a network, and what is wrong with what it says.

use std::path::Path;

use anyhow::Result;
use candle_core::Tensor;

use super::checkpoint;
use super::layers::Pass;
use super::params::Params;

/// One network's training. The layers hold the places of their parameters; the numbers come with the [`Pass`].
pub trait Task: Send + Sync + 'static {
    /// What the network is shown, and what is true of it.
    type Sample: Send + Sync + 'static;

    /// A handful of samples that are cheap to make together: those of a scene. The same for the same number, on any
    /// thread; there is no last one.
    fn block(&self, number: u64) -> Result<Vec<Self::Sample>>;

    /// What is wrong with the network's answers, as a mean over the batch, with gradients where the pass trains.
    fn loss(&self, pass: &Pass, batch: &[&Self::Sample]) -> Result<Loss>;

    /// Errors in the units that people read, as (name, sum, count) over the batch, of the network that does not train.
    fn errors(&self, pass: &Pass, batch: &[&Self::Sample]) -> Result<Vec<(&'static str, f64, usize)>>;

    /// What it learns, in words: another task does not go on with its checkpoints.
    fn learns(&self) -> String;

    /// What whoever reads the weights must know besides: the text of the JSON file beside a checkpoint.
    fn config_json(&self) -> String;

    /// Writes the file that the inference networks read.
    fn save_weights(&self, params: &Params, path: &Path) -> Result<()> {
        checkpoint::save_weights(params, &self.config_json(), path)
    }
}

/// A loss and what it is made of.
pub struct Loss {
    /// Scalar.
    pub total: Tensor,
    /// Names and values of its parts, for the curves: scalars.
    pub parts: Vec<(&'static str, Tensor)>,
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::body::Family;
    use crate::nets::NetSizes;
    use crate::train::mesh_task::{MeshTask, Stage};
    use crate::train::optimizer::Adam;
    use crate::train::person_detector::task::DetectorTask;
    use crate::train::pose_task::PoseTask;
    use crate::train::root_task::RootTask;

    fn sizes() -> Result<NetSizes> {
        Ok(NetSizes::new(18, 64, 16)?.with_widths(16, 16))
    }

    /// The loss of each step on the same few samples.
    fn losses<T: Task>((task, params): (T, Params)) -> Result<Vec<f32>> {
        let params = Arc::new(params);
        let pass = Pass { params: params.clone(), is_training: true };
        let mut adam = Adam::new(&params);
        let samples = task.block(0)?;
        let batch: Vec<_> = samples.iter().take(4).collect();
        let step = |_| {
            let loss = task.loss(&pass, &batch)?;
            params.backward(&loss.total)?;
            adam.step(&params, 5e-3);
            Ok(loss.total.to_scalar::<f32>()?)
        };
        (0..16).map(step).collect()
    }

    #[test]
    fn every_network_learns_the_samples_that_it_is_shown() -> Result<()> {
        let all = [
            ("mesh", losses(MeshTask::new(Family::Smpl, 18, sizes()?, Stage::All, true, 3)?)?),
            ("mesh of a hand", losses(MeshTask::new(Family::Mano, 18, sizes()?, Stage::All, false, 3)?)?),
            ("root", losses(RootTask::new(Family::Smpl, 18, sizes()?, 3)?)?),
            ("pose", losses(PoseTask::new(18, sizes()?, 3)?)?),
            ("detector", losses(DetectorTask::new(Family::Smpl, 3)?)?),
        ];
        for (name, losses) in all {
            assert!(losses[15] < 0.9 * losses[0], "{name}: {losses:?}");
        }
        Ok(())
    }

    #[test]
    fn the_mesh_has_all_losses_and_each_stage_its_own_gradients() -> Result<()> {
        // Weights as in the paper; those of the heatmaps are ours.
        let weights = [
            ("pose_lixel", 1.0),
            ("pose_heatmap", 0.25),
            ("mesh_lixel", 1.0),
            ("joint_lixel", 1.0),
            ("mesh_heatmap", 0.25),
            ("normal", 0.1),
            ("edge", 1.0),
        ];
        for (stage, surface, parts, learning) in [
            (Stage::All, true, 0..7, [true, true]),
            (Stage::All, false, 0..5, [true, true]),
            (Stage::Pose, true, 0..2, [true, false]),
            (Stage::Mesh, true, 2..7, [false, true]),
        ] {
            let (task, params) = MeshTask::new(Family::Smpl, 18, sizes()?, stage, surface, 3)?;
            let params = Arc::new(params);
            let samples = task.block(0)?;
            let batch: Vec<_> = samples.iter().take(2).collect();
            let loss = task.loss(&Pass { params: params.clone(), is_training: true }, &batch)?;
            let names: Vec<_> = loss.parts.iter().map(|(name, _)| *name).collect();
            assert_eq!(names, weights[parts.clone()].iter().map(|(name, _)| *name).collect::<Vec<_>>(), "{stage:?}");
            let mut sum = 0.0;
            for ((_, part), (_, weight)) in loss.parts.iter().zip(&weights[parts]) {
                sum += f64::from(part.to_scalar::<f32>()?) * weight;
            }
            let total = f64::from(loss.total.to_scalar::<f32>()?);
            assert!((sum - total).abs() < 1e-4 * total, "{stage:?}: {sum} and {total}");

            params.backward(&loss.total)?;
            let (gradients, mut first) = (params.gradients(), 0);
            let mut has = [false; 2];
            for (name, shape) in params.names() {
                let next = first + shape.iter().product::<usize>();
                let which = usize::from(name.starts_with("mesh_") || name.starts_with("pose2feat"));
                has[which] |= gradients[first..next].iter().any(|g| *g != 0.0);
                first = next;
            }
            assert_eq!(has, learning, "{stage:?}: gradients of PoseNet and of MeshNet");
        }
        Ok(())
    }
}
