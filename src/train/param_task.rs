//! The training of I2L-MeshNet's second stage: the joints that the trained first stage's mesh carries, in lixels, to the
//! pose and shape of the body. The first stage is frozen, and what it says of new pictures, with its errors, is the
//! input. Pictures are dear and joints are cheap, so each picture is used in many variations of its joints.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use candle_core::{Device, Tensor};
use glam::{DVec3, Mat3, Quat, Vec2, Vec3};

use super::batch::{JointErrors, mm};
use super::checkpoint::save_merged;
use super::feed::VALIDATION;
use super::kinematics::Kinematics;
use super::layers::Pass;
use super::params::Params;
use super::people::{Viewer, mirrored_turn};
use super::regressor::ParamRegressor;
use super::task::{Loss, Task};
use crate::body::Family;
use crate::camera_mesh::DepthAxis;
use crate::models::{NetConfig, Role};
use crate::nets::NetSizes;
use crate::nets::i2l::{I2l, I2lShape, ParamShape, WIDTHS_AT};
use crate::nets::param::{joints_from_mesh, regressor_matrix};
use crate::nets::weights::{LoadOptions, WeightFile, load};
use crate::synth::Kind;
use crate::synth::random::Random;

/// Where the second stage lies among the weights.
const PREFIX: &str = "param_regressor";
/// Variations of each picture's joints.
const VARIATIONS: usize = 16;
/// Weights of the losses. Rotations are matrices of numbers up to 1, shapes are standard deviations of which a picture
/// tells little, joints are metres.
const SHAPE_WEIGHT: f64 = 0.1;
const JOINT_WEIGHT: f64 = 5.0;

/// Joints as the first stage sees them, and what is true.
#[derive(Clone, Debug)]
pub struct ParamSample {
    /// From the mesh, in lixels.
    joints: Vec<Vec3>,
    /// Rotation of each joint, axis-angle; the first into the axes of the patch.
    pose_rad: Vec<Vec3>,
    shape: Vec<f32>,
    kind: Kind,
}

/// See the module.
pub struct ParamTask {
    /// The first stage and its file.
    mesh: WeightFile,
    first: I2l,
    /// `[J, V]`
    regressor: Tensor,
    network: ParamRegressor,
    kinematics: Kinematics,
    viewer: Viewer,
}

impl ParamTask {
    /// The task and its network's parameters as they begin, for the body or for the hand. `mesh` are the weights of a
    /// first stage for the stand-in.
    pub fn new(of: Family, mesh: &Path, seed: u64) -> Result<(Self, Params)> {
        let mesh = WeightFile::open(mesh)?;
        let shape_of = |name: &str| mesh.shape(name).map(<[usize]>::to_vec);
        let open = || {
            let config = NetConfig::parse(mesh.config().unwrap_or("{}"), Role::I2lBody)?;
            ensure!(
                config.depth_axis == DepthAxis::LineOfSight,
                "its depths are along the camera's axis, and postures are learnt along the line of sight: train it on"
            );
            let sizes = NetSizes::new(config.resnet, config.input, config.heatmap)?.with_widths_of(shape_of, WIDTHS_AT);
            Ok::<_, anyhow::Error>((sizes, I2lShape { params: None, ..I2lShape::from_shapes(shape_of)? }))
        };
        let (sizes, shape) = open().with_context(|| mesh.path().display().to_string())?;
        let viewer = Viewer::new(of, sizes.input() as u32)?;
        let body = viewer.studio().body();
        let topology = viewer.topology();
        let joints = topology.skeleton.names.len();
        ensure!(
            (shape.joints, shape.vertices) == (joints, topology.vertex_count),
            "{} is for a mesh of {} vertices with {} joints; the people that this is trained on have {} and {joints}",
            mesh.path().display(),
            shape.vertices,
            shape.joints,
            topology.vertex_count
        );
        let (first, _) = load(&mesh, LoadOptions::new(&Device::Cpu), |vb| I2l::load(sizes, shape, &vb))?;
        let regressor = regressor_matrix(&topology.joint_regressor, topology.vertex_count, &Device::Cpu)?;
        let numbers = ParamShape { rotations: body.pose_joint_count(), shape: SHAPE_COMPONENTS };
        let kinematics = Kinematics::of(body, numbers.shape)?;
        let (params, network) = Params::build(seed, |b| ParamRegressor::new(joints, numbers, &mut b.pp(PREFIX)));
        Ok((Self { mesh, first, regressor, network, kinematics, viewer }, params))
    }

    /// Joints, `[B, J, 3]`.
    fn inputs(batch: &[&ParamSample], device: &Device) -> Result<Tensor> {
        let numbers: Vec<f32> = batch.iter().flat_map(|s| s.joints.iter().flat_map(Vec3::to_array)).collect();
        Ok(Tensor::from_vec(numbers, (batch.len(), (), 3), device)?)
    }

    /// Rotations, `[B, R, 3, 3]`, and shapes, `[B, C]`.
    fn targets(batch: &[&ParamSample], device: &Device) -> Result<[Tensor; 2]> {
        // Rows first, where glam has columns.
        let rows = |turn: &Vec3| Mat3::from_quat(Quat::from_scaled_axis(*turn)).transpose().to_cols_array();
        let rotations: Vec<f32> = batch.iter().flat_map(|sample| sample.pose_rad.iter().flat_map(rows)).collect();
        let shapes: Vec<f32> = batch.iter().flat_map(|sample| sample.shape.iter().copied()).collect();
        Ok([
            Tensor::from_vec(rotations, (batch.len(), (), 3, 3), device)?,
            Tensor::from_vec(shapes, (batch.len(), ()), device)?,
        ])
    }
}

/// The same person, seen a little otherwise: turned, larger or smaller, elsewhere, perhaps in a mirror, and each joint
/// with an error of its own. `bins` are those of a heatmap.
fn varied(sample: &ParamSample, viewer: &Viewer, bins: f32, random: &mut Random) -> ParamSample {
    let mut sample = sample.clone();
    if viewer.has_mirror_image() && random.chance(0.5) {
        sample.joints.iter_mut().for_each(|joint| joint.x = bins - joint.x);
        sample.joints = viewer.mirrored(&sample.joints);
        sample.pose_rad = viewer.mirrored(&sample.pose_rad).into_iter().map(mirrored_turn).collect();
    }
    let angle = (10.0 * random.normal().clamp(-2.0, 2.0)).to_radians();
    let across = Vec2::from_angle(angle) * (1.0 + 0.1 * random.normal().clamp(-2.0, 2.0));
    let shift = Vec3::new(random.normal(), random.normal(), 0.3 * random.normal()) * (bins / 32.0);
    let noise = random.between(0.0, 0.25) * (bins / 32.0);
    let middle = Vec2::splat(bins / 2.0);
    for joint in &mut sample.joints {
        let turned = middle + across.rotate(joint.truncate() - middle);
        let error = Vec3::new(random.normal(), random.normal(), random.normal()) * noise;
        *joint = turned.extend(joint.z) + shift + error;
    }
    let root = Quat::from_rotation_z(angle) * Quat::from_scaled_axis(sample.pose_rad[0]);
    sample.pose_rad[0] = root.to_scaled_axis();
    sample
}

/// All that body models have.
const SHAPE_COMPONENTS: usize = 10;

impl Task for ParamTask {
    type Sample = ParamSample;

    fn block(&self, number: u64) -> Result<Vec<ParamSample>> {
        let views = self.viewer.block(number)?;
        let patches: Vec<_> = views.iter().map(|view| view.patch.clone()).collect();
        let mesh = self.first.forward(&patches[..])?.vertices;
        let joints = joints_from_mesh(&self.regressor, &mesh.coords.to_tensor()?)?.to_vec3::<f32>()?;
        let mut random = Random::fork(number, 0x706F_7365);
        let (mut samples, bins) = (Vec::new(), self.first.sizes().heatmap() as f32);
        for (view, joints) in views.into_iter().zip(joints) {
            let mut shape = view.shape;
            shape.resize(SHAPE_COMPONENTS, 0.0);
            let joints = joints.iter().map(|joint| Vec3::from_slice(joint)).collect();
            let sample = ParamSample { joints, pose_rad: view.pose_rad, shape, kind: view.kind };
            // What is measured is what will be seen.
            let variations = if number >= VALIDATION { 0 } else { VARIATIONS - 1 };
            samples.extend((0..variations).map(|_| varied(&sample, &self.viewer, bins, &mut random)));
            samples.push(sample);
        }
        Ok(samples)
    }

    fn loss(&self, pass: &Pass, batch: &[&ParamSample]) -> Result<Loss> {
        let device = &pass.device();
        let out = self.network.forward(pass, &Self::inputs(batch, device)?)?;
        let [rotations, shape] = Self::targets(batch, device)?;
        let wanted = self.kinematics.joints(&rotations, &shape)?;
        let joints = (self.kinematics.joints(&out.rotations, &out.shape)? - wanted)?.abs()?.mean_all()?;
        let rotations = (out.rotations - rotations)?.abs()?.mean_all()?;
        let shape = (out.shape - shape)?.abs()?.mean_all()?;
        let parts = vec![("rotation", rotations.clone()), ("shape", shape.clone()), ("joint_metres", joints.clone())];
        Ok(Loss { total: ((rotations + (shape * SHAPE_WEIGHT)?)? + (joints * JOINT_WEIGHT)?)?, parts })
    }

    fn errors(&self, pass: &Pass, batch: &[&ParamSample]) -> Result<Vec<(&'static str, f64, usize)>> {
        let device = &pass.device();
        let out = self.network.forward(pass, &Self::inputs(batch, device)?)?;
        let [rotations, shapes] = Self::targets(batch, device)?;
        let joints = |rotations: &Tensor, shapes: &Tensor| -> Result<Vec<Vec<DVec3>>> {
            let people = self.kinematics.joints(rotations, shapes)?.to_vec3::<f32>()?;
            let points = |joints: Vec<Vec<f32>>| joints.iter().map(|joint| Vec3::from_slice(joint)).collect::<Vec<_>>();
            Ok(people.into_iter().map(|joints| mm(&points(joints))).collect())
        };
        let mut errors = JointErrors::of(self.viewer.family());
        let people = joints(&out.rotations, &out.shape)?.into_iter().zip(joints(&rotations, &shapes)?);
        for (sample, (found, truth)) in batch.iter().zip(people) {
            errors.add(sample.kind, &found, &truth, 0)?;
        }
        Ok(errors.sums())
    }

    fn learns(&self) -> String {
        self.viewer.family().name().to_owned()
    }

    fn config_json(&self) -> String {
        self.mesh.config().unwrap_or("{}").to_owned()
    }

    /// Both stages.
    fn save_weights(&self, params: &Params, path: &Path) -> Result<()> {
        save_merged(&self.mesh, params, &self.config_json(), path)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::train::mesh_task::{MeshTask, Stage};
    use crate::train::optimizer::Adam;

    #[test]
    fn both_stages_come_out_in_one_file() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let [first, both] = ["first", "both"].map(|name| folder.path().join(format!("{name}.safetensors")));
        let sizes = NetSizes::new(18, 64, 16)?.with_widths(16, 16);
        let (task, params) = MeshTask::new(Family::Smpl, 18, sizes, Stage::All, false, 1)?;
        task.save_weights(&params, &first)?;
        assert!(ParamTask::new(Family::Smpl, &folder.path().join("none.safetensors"), 1).is_err());

        let (task, params) = ParamTask::new(Family::Smpl, &first, 1)?;
        let samples = task.block(5)?;
        assert_eq!(samples.len(), crate::train::people::VIEWS * VARIATIONS);
        assert_eq!(task.block(VALIDATION)?.len(), crate::train::people::VIEWS);
        let batch: Vec<&ParamSample> = samples.iter().take(32).collect();
        let params = Arc::new(params);
        let pass = Pass { params: params.clone(), is_training: true };
        let mut adam = Adam::new(&params);
        let mut losses = Vec::new();
        for _ in 0..10 {
            let loss = task.loss(&pass, &batch)?;
            params.backward(&loss.total)?;
            adam.step(&params, 1e-3);
            losses.push(loss.total.to_scalar::<f32>()?);
        }
        assert!(losses[9] < 0.9 * losses[0], "{losses:?}");
        let errors = task.errors(&Pass { params: params.clone(), is_training: false }, &batch)?;
        assert_eq!(errors.iter().filter(|error| error.2 > 0).count() % 2, 0);

        task.save_weights(&params, &both)?;
        let (first, both) = (WeightFile::open(&first)?, WeightFile::open(&both)?);
        assert_eq!(first.config(), both.config());
        for name in first.names() {
            assert!(first.data(name)? == both.data(name)?, "{name} is the first stage's");
        }
        let shape = I2lShape::from_shapes(|name| both.shape(name).map(<[usize]>::to_vec))?;
        assert_eq!(shape.params, Some(ParamShape { rotations: 24, shape: SHAPE_COMPONENTS }));
        let (network, _) = load(&both, LoadOptions::new(&Device::Cpu), |vb| I2l::load(sizes, shape, &vb))?;
        let vertices =
            network.forward(&Tensor::zeros((1, 3, 64, 64), candle_core::DType::F32, &Device::Cpu)?)?.vertices;
        let params = network.params(&vertices, &task.regressor)?.context("the second stage is there")?;
        assert_eq!((params[0].pose_rad.len(), params[0].shape.len()), (24, SHAPE_COMPONENTS));
        Ok(())
    }

    #[test]
    fn variations_are_the_same_person_seen_otherwise() -> Result<()> {
        let viewer = Viewer::new(Family::Smpl, 64)?;
        let body = viewer.studio().body();
        // Somebody whose joints are where the pose puts them, seen from far away: a lixel is an eighth of a metre.
        let pose_rad: Vec<Vec3> = (0..24).map(|i| Vec3::new(0.3, 0.1 * i as f32, -0.2 * (i % 5) as f32)).collect();
        let shape = vec![0.0; SHAPE_COMPONENTS];
        let lixels = |pose: &[Vec3]| -> Result<Vec<Vec3>> {
            let joints = body.pose(pose, &shape, Vec3::ZERO)?.joints_m;
            Ok(joints.iter().map(|joint| (*joint - joints[0]) * 8.0 + 8.0).collect())
        };
        let joints = lixels(&pose_rad)?;
        let sample = ParamSample { joints, pose_rad, shape: shape.clone(), kind: Kind::Poses };
        let mut random = Random::fork(2, 2);
        for _ in 0..20 {
            let varied = varied(&sample, &viewer, 16.0, &mut random);
            let posed = lixels(&varied.pose_rad)?;
            // The scale across is not that of depth, and all has moved: bones compare by their direction in the plane.
            for (joint, parent) in [(4, 1), (5, 2), (18, 16), (19, 17), (12, 9)] {
                let bone = |joints: &[Vec3]| (joints[joint] - joints[parent]).truncate();
                let (seen, made) = (bone(&varied.joints), bone(&posed));
                let angle = seen.angle_to(made).abs();
                // A joint's error is up to an eighth of a lixel, and a bone has some three lixels.
                assert!(angle < 0.5 || made.length() < 1.0, "{joint}: {angle}");
            }
        }
        Ok(())
    }
}
