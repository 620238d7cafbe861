//! The networks behind the traits of [`stages`](super::stages): the one place of the pipeline that knows tensors,
//! devices and checkpoints.

use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use candle_core::Device;
use glam::Vec3;
use image::RgbImage;

#[cfg(feature = "cudnn")]
use super::stages::Patches;
use super::stages::{LixelEstimate, LixelEstimator, RootEstimator, RootInCrop};
use crate::body::{BodyModel, Family, SnapshotBody, Topology, standin};
use crate::camera_mesh::DepthAxis;
use crate::capture::Frame;
use crate::crop::Crop;
use crate::detect::{Detector, LightDetector, MaskRcnnDetector, PersonBox, coco};
use crate::lixel::{self, Lixels};
use crate::memory::Buffer;
use crate::models::{self, Weights};
#[cfg(feature = "cudnn")]
use crate::nets::cuda::PatchSource;
use crate::nets::i2l::{self, I2l, I2lOutput, I2lShape};
use crate::nets::layers::Values;
use crate::nets::maskrcnn::{self, MaskRcnn};
use crate::nets::person_detector::{self, PersonDetector};
use crate::nets::posenet3d::{self, JointSet, PoseNet3d};
use crate::nets::rootnet::{self, Root, RootNet};
use crate::nets::weights::{self, LoadOptions, WeightFile};
use crate::nets::{self, NetSizes, Precision};
use crate::result::{BodyParams, EstimatorKind, Heatmaps, Landmark, Skeleton};
use crate::root_depth;
use crate::settings::{Backend, BoxSource, DetectorKind, Settings};
use crate::space::Intrinsics;

/// Which networks are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// All that the settings need.
    All,
    /// The detector alone.
    Detector,
    /// RootNet and the estimator, after the setting changed.
    Estimator,
}

/// The place of a network in the pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Whoever loads.
    Loader,
    /// Finds people.
    Detector,
    /// Finds distances.
    Root,
    /// Finds lixels.
    Estimator,
}

/// One thing that was loaded, or was not.
pub enum Part {
    /// The device, in words.
    Backend(String),
    /// Finds people or hands; for which settings.
    Detector(DetectorKind, Family, Box<dyn Detector>),
    /// Finds distances, for people or for hands.
    Root(EstimatorKind, Box<dyn RootEstimator>),
    /// Finds lixels.
    Estimator {
        /// For which setting.
        kind: EstimatorKind,
        /// The network.
        estimator: Box<dyn LixelEstimator>,
        /// The model that the parameters of the second stage pose, where its file is there.
        body: Option<Arc<BodyModel>>,
    },
    /// A network that cannot be had: why, and what to do.
    Missing(Role, String),
}

/// What the loader tells.
pub enum Progress {
    /// It reads something; `done` goes from 0 to 1.
    Reading {
        /// What it reads.
        what: String,
        /// The part that is read.
        done: f32,
    },
    /// A part is there, or will not be.
    Loaded(Part),
}

/// The device that a setting asks for, and its name in words. The precision matters to NVIDIA GPUs alone.
pub fn device(backend: Backend, precision: Precision) -> Result<(Device, String)> {
    let cpu = || {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        (Device::Cpu, format!("cpu ({threads} threads)"))
    };
    let gpu = |name: &str, made: candle_core::Result<Device>| Ok::<_, candle_core::Error>((made?, format!("{name} 0")));
    match backend {
        Backend::Cpu => Ok(cpu()),
        Backend::Cuda => {
            ensure!(cfg!(feature = "cuda"), "this build has no CUDA: build it with `--features cudnn`");
            nets::open_cuda(0, precision).context("no CUDA device can be used")
        }
        Backend::Metal => {
            ensure!(cfg!(feature = "metal"), "this build has no Metal: build it with `--features metal`");
            gpu("metal", Device::new_metal(0)).context("no Metal device can be used")
        }
        Backend::Auto => {
            for (choice, built) in [(Backend::Cuda, cfg!(feature = "cuda")), (Backend::Metal, cfg!(feature = "metal"))]
            {
                if built {
                    match device(choice, precision) {
                        Ok(found) => return Ok(found),
                        Err(error) => log::warn!("{error:#}; the networks run on the processor"),
                    }
                }
            }
            Ok(cpu())
        }
    }
}

/// Loads what is wanted, handing over each part as soon as it is there. What cannot be had is told too.
pub fn load(settings: &Settings, wanted: Wanted, tell: &mut (dyn FnMut(Progress) + Send)) {
    let (device, name) = match device(settings.backend, settings.precision) {
        Ok(found) => found,
        Err(error) => return tell(Progress::Loaded(Part::Missing(Role::Loader, format!("{error:#}")))),
    };
    tell(Progress::Loaded(Part::Backend(name)));
    let mut loader = Loader { settings, device, tell };
    let detector = match wanted {
        Wanted::All => settings.boxes == BoxSource::Detector,
        Wanted::Detector => true,
        Wanted::Estimator => false,
    };
    if detector {
        loader.part(Role::Detector, Loader::detector);
    }
    if wanted != Wanted::Detector {
        let kind = settings.estimator;
        loader.part(Role::Root, |loader| loader.root(kind));
        loader.part(Role::Estimator, |loader| match kind {
            EstimatorKind::Body | EstimatorKind::Hand => loader.mesh(kind),
            EstimatorKind::Skeleton => loader.skeleton(),
        });
    }
}

/// Shorter side of the detector's frames on the processor: a quarter of the time of torchvision's 800.
const CPU_DETECTOR_SIDE: u32 = 400;

/// What a checkpoint and the file beside it say of a network's sizes.
fn sizes(file: &WeightFile, config: &models::NetConfig, widths_at: [&str; 2]) -> Result<NetSizes> {
    let sizes = NetSizes::new(config.resnet, config.input, config.heatmap)?;
    Ok(sizes.with_widths_of(|name| file.shape(name).map(<[usize]>::to_vec), widths_at))
}

/// The network that finds people or hands: [`models::Role::Detector`] is Mask R-CNN.
pub fn detector_role(settings: &Settings) -> models::Role {
    let is_there = || models::find(&settings.models, models::Role::Detector).is_some();
    let light = match settings.estimator.family() {
        Family::Smpl => models::Role::LightDetector,
        Family::Mano => models::Role::HandDetector,
    };
    match settings.detector {
        DetectorKind::Light => light,
        // Only Mask R-CNN finds other things than people, but no hands; else it is the light one that is missed if there
        // is none.
        DetectorKind::Auto if settings.detector_label == coco::PERSON => match light {
            models::Role::LightDetector if is_there() => models::Role::Detector,
            _ => light,
        },
        DetectorKind::Auto | DetectorKind::MaskRcnn => models::Role::Detector,
    }
}

struct Loader<'a> {
    settings: &'a Settings,
    device: Device,
    tell: &'a mut (dyn FnMut(Progress) + Send),
}

impl Loader<'_> {
    fn part(&mut self, role: Role, load: impl FnOnce(&mut Self) -> Result<Part>) {
        let part = load(self).unwrap_or_else(|error| {
            let consequence = match role {
                Role::Root => " Until then distances are guessed from the size of the box.",
                Role::Detector => " Until then draw the boxes, or take the whole frame.",
                Role::Estimator | Role::Loader => "",
            };
            let text = format!("{error:#}");
            Part::Missing(role, format!("{}.{consequence}", text.trim_end_matches('.')))
        });
        (self.tell)(Progress::Loaded(part));
    }

    /// Builds a network from the checkpoint of a role, telling the progress.
    fn network<T>(
        &mut self,
        file: &WeightFile,
        role: models::Role,
        fallback_name: fn(&str) -> Option<String>,
        build: impl FnOnce(candle_nn::VarBuilder<'_>) -> Result<T>,
    ) -> Result<T> {
        let (what, tell, mut told) = (role.what(), &mut *self.tell, -1);
        // Told by whole percents: the window draws at every one.
        let progress = |done: u64, total: u64| {
            let percent = (done * 100 / total.max(1)) as i64;
            if percent != told {
                told = percent;
                tell(Progress::Reading { what: what.into(), done: percent as f32 / 100.0 });
            }
        };
        let options = LoadOptions { fallback_name, progress: Box::new(progress), ..LoadOptions::new(&self.device) };
        let (network, report) = weights::load(file, options, build)?;
        let unused: Vec<_> =
            report.unused.iter().filter(|name| !i2l::UNREAD.iter().any(|start| name.starts_with(start))).collect();
        if !unused.is_empty() {
            log::warn!("{}: these tensors are not used: {unused:?}", file.path().display());
        }
        Ok(network)
    }

    fn open(&mut self, role: models::Role) -> Result<(WeightFile, models::NetConfig, Weights)> {
        (self.tell)(Progress::Reading { what: role.what().into(), done: 0.0 });
        models::open(&self.settings.models, role)
    }

    fn detector(&mut self) -> Result<Part> {
        match detector_role(self.settings) {
            models::Role::Detector => self.mask_rcnn(),
            light => self.light_detector(light),
        }
    }

    fn light_detector(&mut self, role: models::Role) -> Result<Part> {
        let label = self.settings.detector_label;
        ensure!(
            label == coco::PERSON,
            "the light detector finds people and nothing else; for another class take --detector mask-rcnn"
        );
        let (file, config, weights) = self.open(role)?;
        let mut config = person_detector::Config { longest_side: config.input, ..person_detector::Config::default() };
        if let Some(side) = self.settings.detector_side {
            // Of a frame of 4:3.
            config.longest_side = side as usize * 4 / 3;
        }
        let net = self.network(&file, role, |_| None, |vb| PersonDetector::load(config, &vb))?;
        Ok(self.detector_part(DetectorStage { detector: LightDetector::new(net), weights }))
    }

    fn mask_rcnn(&mut self) -> Result<Part> {
        let role = models::Role::Detector;
        let (file, config, weights) = self.open(role)?;
        let mut config = maskrcnn::Config { layers: config.resnet, ..maskrcnn::Config::default() };
        let side = self.settings.detector_side.or(self.device.is_cpu().then_some(CPU_DETECTOR_SIDE));
        if let Some(side) = side.map(|side| side as usize).filter(|&side| side != config.shorter_side) {
            // Smaller frames show fewer regions worth a look.
            let proposals = config.proposals * side / config.shorter_side;
            config.proposals = proposals.clamp(100, config.proposals);
            config.longest_side = config.longest_side * side / config.shorter_side;
            config.shorter_side = side;
        }
        let net = self.network(&file, role, weights::old_fpn_name, |vb| MaskRcnn::load(config, &vb))?;
        let detector = MaskRcnnDetector::new(net).with_label(self.settings.detector_label);
        Ok(self.detector_part(DetectorStage { detector, weights }))
    }

    fn detector_part(&self, detector: impl Detector + 'static) -> Part {
        Part::Detector(self.settings.detector, self.settings.estimator.family(), Box::new(detector))
    }

    fn root(&mut self, kind: EstimatorKind) -> Result<Part> {
        let role = if kind == EstimatorKind::Hand { models::Role::RootNetHand } else { models::Role::RootNet };
        let (file, config, weights) = self.open(role)?;
        let sizes = sizes(&file, &config, rootnet::WIDTHS_AT)?;
        let net = self.network(&file, role, |_| None, |vb| Ok(RootNet::load(sizes, &vb)?))?;
        let real_box_m = config.real_box.map(|side| (side * config.depth_unit.metres()) as f32);
        Ok(Part::Root(kind, Box::new(RootStage { net, real_box_m, weights })))
    }

    fn mesh(&mut self, kind: EstimatorKind) -> Result<Part> {
        let (role, body_role) = match kind {
            EstimatorKind::Hand => (models::Role::I2lHand, models::Role::Mano),
            _ => (models::Role::I2lBody, models::Role::Smpl),
        };
        let (file, config, weights) = self.open(role)?;
        let sizes = sizes(&file, &config, i2l::WIDTHS_AT)?;
        let shape = I2lShape::from_shapes(|name| file.shape(name).map(<[usize]>::to_vec))
            .with_context(|| file.path().display().to_string())?;
        let (topology, body) = self.body(&file, body_role, shape.vertices)?;
        ensure!(
            topology.vertex_count == shape.vertices,
            "{} is for a mesh of {} vertices, but the body model has {}",
            file.path().display(),
            shape.vertices,
            topology.vertex_count
        );
        let net = self.network(&file, role, |_| None, |vb| Ok(I2l::load(sizes, shape, &vb)?))?;
        let with_params = shape.params.is_some() && topology.skeleton.names.len() == shape.joints;
        let skeleton = Arc::new(topology.skeleton.clone());
        let depth_axis = config.depth_axis;
        let estimator = MeshStage { net, topology, skeleton, depth_axis, with_params, weights };
        Ok(Part::Estimator { kind, estimator: Box::new(estimator), body })
    }

    /// The faces and the joint regressor of a mesh: from the body model's own file, else from the snapshot, else from
    /// the stand-in where the network was trained with it, which its number of vertices tells.
    fn body(
        &mut self,
        file: &WeightFile,
        role: models::Role,
        vertices: usize,
    ) -> Result<(Arc<Topology>, Option<Arc<BodyModel>>)> {
        let with_body = |body: Arc<BodyModel>| (Arc::clone(body.topology()), Some(body));
        if let Some(path) = models::find(&self.settings.models, role) {
            let body = BodyModel::open(&path)?;
            // A user can have SMPL and weights for the stand-in.
            if body.topology().vertex_count == vertices {
                return Ok(with_body(Arc::new(body)));
            }
        }
        if let Some(SnapshotBody { topology, model }) = SnapshotBody::read(file)? {
            return Ok((topology, model.map(Arc::new)));
        }
        let stand_in = standin::model(if role == models::Role::Mano { Family::Mano } else { Family::Smpl })?;
        if stand_in.topology().vertex_count == vertices {
            return Ok(with_body(stand_in));
        }
        if let Some(path) = models::find(&self.settings.models, role) {
            bail!("{} is for a mesh of {vertices} vertices, which {} has not", file.path().display(), path.display());
        }
        let missing = models::require(&self.settings.models, role).err().map(|error| format!("; {error:#}"));
        bail!("{} carries no faces of its mesh{}", file.path().display(), missing.unwrap_or_default())
    }

    fn skeleton(&mut self) -> Result<Part> {
        let role = models::Role::PoseNet3d;
        let (file, config, weights) = self.open(role)?;
        let sizes = sizes(&file, &config, posenet3d::WIDTHS_AT)?;
        let joints = posenet3d::joint_count(&sizes, |name| file.shape(name).map(<[usize]>::to_vec))
            .with_context(|| file.path().display().to_string())?;
        let set = JointSet::of_count(joints)?;
        let net = self.network(&file, role, |_| None, |vb| Ok(PoseNet3d::load(sizes, joints, &vb)?))?;
        let skeleton = Arc::new(set.skeleton());
        let depth_axis = config.depth_axis;
        let estimator = Box::new(SkeletonStage { net, set, skeleton, depth_axis, weights });
        Ok(Part::Estimator { kind: EstimatorKind::Skeleton, estimator, body: None })
    }
}

/// People that go through a network at once: more need more memory than they save time.
const MAX_BATCH: usize = 8;

/// Runs `one` on batches of at most [`MAX_BATCH`] patches.
fn in_batches<T>(patches: &[RgbImage], mut one: impl FnMut(&[RgbImage]) -> Result<Vec<T>>) -> Result<Vec<T>> {
    let mut all = Vec::with_capacity(patches.len());
    for batch in patches.chunks(MAX_BATCH) {
        all.extend(one(batch)?);
    }
    Ok(all)
}

/// The same for networks that cut the patches out themselves; `None` where they do not.
#[cfg(feature = "cudnn")]
fn in_batches_on_device<T>(
    patches: &Patches<'_>,
    mut one: impl FnMut(&PatchSource<'_>) -> Result<Option<Vec<T>>>,
) -> Result<Option<Vec<T>>> {
    let mut all = Vec::with_capacity(patches.crops.len());
    for crops in patches.crops.chunks(MAX_BATCH) {
        let source = PatchSource { frame: patches.frame, frame_id: patches.frame_id, crops };
        let Some(found) = one(&source)? else { return Ok(None) };
        all.extend(found);
    }
    Ok(Some(all))
}

/// A detector, and where its weights come from.
struct DetectorStage<D> {
    detector: D,
    weights: Weights,
}

impl<D: Detector> Detector for DetectorStage<D> {
    fn detect(&mut self, frame: &Frame) -> Result<Vec<PersonBox>> {
        self.detector.detect(frame)
    }

    fn weights(&self) -> Option<&Weights> {
        Some(&self.weights)
    }
}

struct RootStage {
    net: RootNet,
    /// Width and height of the box around a person in the world.
    real_box_m: [f32; 2],
    weights: Weights,
}

impl RootEstimator for RootStage {
    fn input_size(&self) -> u32 {
        self.net.sizes().input() as u32
    }

    fn estimate(&mut self, patches: &[RgbImage], crops: &[Crop], camera: &Intrinsics) -> Result<Vec<RootInCrop>> {
        let roots = in_batches(patches, |batch| Ok(self.net.forward(batch)?.roots()?))?;
        Ok(self.place(&roots, crops, camera))
    }

    #[cfg(feature = "cudnn")]
    fn estimate_crops(&mut self, patches: &Patches<'_>, camera: &Intrinsics) -> Result<Vec<RootInCrop>> {
        let one = |source: &PatchSource<'_>| match self.net.forward_crops(source)? {
            Some(output) => Ok(Some(output.roots()?)),
            None => Ok(None),
        };
        match in_batches_on_device(patches, one)? {
            Some(roots) => Ok(self.place(&roots, patches.crops, camera)),
            None => self.estimate(patches.images(), patches.crops, camera),
        }
    }

    fn weights(&self) -> Option<&Weights> {
        Some(&self.weights)
    }
}

impl RootStage {
    /// Roots in pixels of their crops, with their depths.
    fn place(&self, roots: &[Root], crops: &[Crop], camera: &Intrinsics) -> Vec<RootInCrop> {
        let px_per_bin = self.net.sizes().input() as f32 / self.net.sizes().heatmap() as f32;
        let place = |(root, crop): (&Root, &Crop)| RootInCrop {
            crop_px: root.lixel * px_per_bin,
            depth_m: root.gamma * root_depth::k_m(camera, &crop.rect, self.real_box_m),
        };
        roots.iter().zip(crops).map(place).collect()
    }
}

struct MeshStage {
    net: I2l,
    topology: Arc<Topology>,
    /// The topology's, shared with every result.
    skeleton: Arc<Skeleton>,
    depth_axis: DepthAxis,
    /// The network has a second stage, which reads the joints of this topology.
    with_params: bool,
    weights: Weights,
}

impl LixelEstimator for MeshStage {
    fn input_size(&self) -> u32 {
        self.net.sizes().input() as u32
    }

    fn bins(&self) -> usize {
        self.net.sizes().heatmap()
    }

    fn depth_axis(&self) -> DepthAxis {
        self.depth_axis
    }

    fn skeleton(&self) -> Arc<Skeleton> {
        Arc::clone(&self.skeleton)
    }

    fn topology(&self) -> Option<Arc<Topology>> {
        Some(Arc::clone(&self.topology))
    }

    fn estimate(&mut self, patches: &[RgbImage], landmarks: &[Landmark]) -> Result<Vec<LixelEstimate>> {
        in_batches(patches, |batch| self.estimates(&self.net.forward(batch)?, landmarks))
    }

    #[cfg(feature = "cudnn")]
    fn estimate_crops(&mut self, patches: &Patches<'_>, landmarks: &[Landmark]) -> Result<Vec<LixelEstimate>> {
        let one = |source: &PatchSource<'_>| match self.net.forward_crops(source)? {
            Some(output) => self.estimates(&output, landmarks).map(Some),
            None => Ok(None),
        };
        match in_batches_on_device(patches, one)? {
            Some(estimates) => Ok(estimates),
            None => self.estimate(patches.images(), landmarks),
        }
    }

    fn has_params(&self) -> bool {
        self.with_params
    }

    #[cfg(feature = "cudnn")]
    fn cuts_patches(&self) -> bool {
        self.net.cuts_patches()
    }

    fn weights(&self) -> Option<&Weights> {
        Some(&self.weights)
    }
}

impl MeshStage {
    /// What the network says, fetched.
    fn estimates(&self, output: &I2lOutput, landmarks: &[Landmark]) -> Result<Vec<LixelEstimate>> {
        let vertices = lixel::points(&output.vertices.coords)?;
        let vertex_spread = lixel::points(&output.vertices.spread)?;
        let joint_spread = lixel::points(&output.joints.spread)?;
        let joints = vertices.iter().map(|vertices| self.topology.joints(vertices).context("the mesh has no joints"));
        let joints: Vec<Vec<Vec3>> = joints.collect::<Result<_>>()?;
        let mut params = self.params(&joints)?.into_iter();
        let mut estimates = Vec::with_capacity(vertices.len());
        let people = vertices.into_iter().zip(vertex_spread).zip(joints).enumerate();
        for (at, ((vertices_lixel, vertex_spread_lixel), joints_lixel)) in people {
            // A skeleton of another size than the network's joints has no heatmaps of its own.
            let joint_spread_lixel =
                if joint_spread[at].len() == joints_lixel.len() { joint_spread[at].to_vec() } else { Vec::new() };
            estimates.push(LixelEstimate {
                joints_lixel,
                joint_spread_lixel,
                vertices_lixel,
                vertex_spread_lixel,
                params: params.next(),
                heatmaps: chosen(landmarks, at, Some(&output.vertices), &output.joints)?,
            });
        }
        Ok(estimates)
    }

    /// Pose and shape of each person from the joints of their meshes, where the network tells them.
    fn params(&self, joints: &[Vec<Vec3>]) -> Result<Vec<BodyParams>> {
        if !self.with_params || joints.is_empty() {
            return Ok(Vec::new());
        }
        let numbers: Buffer = joints.iter().flatten().flat_map(Vec3::to_array).collect();
        let joints = Values::new(numbers, (joints.len(), joints[0].len(), 3));
        Ok(self.net.params_of_joints(joints)?.unwrap_or_default())
    }
}

struct SkeletonStage {
    net: PoseNet3d,
    set: &'static JointSet,
    skeleton: Arc<Skeleton>,
    depth_axis: DepthAxis,
    weights: Weights,
}

impl LixelEstimator for SkeletonStage {
    fn input_size(&self) -> u32 {
        self.net.sizes().input() as u32
    }

    fn bins(&self) -> usize {
        self.net.sizes().heatmap()
    }

    fn depth_axis(&self) -> DepthAxis {
        self.depth_axis
    }

    fn skeleton(&self) -> Arc<Skeleton> {
        Arc::clone(&self.skeleton)
    }

    fn topology(&self) -> Option<Arc<Topology>> {
        None
    }

    fn estimate(&mut self, patches: &[RgbImage], landmarks: &[Landmark]) -> Result<Vec<LixelEstimate>> {
        in_batches(patches, |batch| skeletons(&self.net.forward_flip_averaged(batch, self.set)?, landmarks))
    }

    #[cfg(feature = "cudnn")]
    fn estimate_crops(&mut self, patches: &Patches<'_>, landmarks: &[Landmark]) -> Result<Vec<LixelEstimate>> {
        let one = |source: &PatchSource<'_>| match self.net.forward_crops(source, self.set)? {
            Some(joints) => skeletons(&joints, landmarks).map(Some),
            None => Ok(None),
        };
        match in_batches_on_device(patches, one)? {
            Some(estimates) => Ok(estimates),
            None => self.estimate(patches.images(), landmarks),
        }
    }

    #[cfg(feature = "cudnn")]
    fn cuts_patches(&self) -> bool {
        self.net.cuts_patches()
    }

    fn weights(&self) -> Option<&Weights> {
        Some(&self.weights)
    }
}

/// What a 3D PoseNet says, fetched.
fn skeletons(joints: &Lixels, landmarks: &[Landmark]) -> Result<Vec<LixelEstimate>> {
    let coords = lixel::points(&joints.coords)?;
    let spread = lixel::points(&joints.spread)?;
    let mut estimates = Vec::with_capacity(coords.len());
    for (at, (joints_lixel, joint_spread_lixel)) in coords.into_iter().zip(spread).enumerate() {
        let heatmaps = chosen(landmarks, at, None, joints)?;
        estimates.push(LixelEstimate {
            joints_lixel: joints_lixel.to_vec(),
            joint_spread_lixel: joint_spread_lixel.to_vec(),
            heatmaps,
            ..LixelEstimate::default()
        });
    }
    Ok(estimates)
}

/// The heatmaps of the wanted landmarks of one person, fetched from the device. Landmarks that the network does not
/// have (the choice was made for another one) are left out.
fn chosen(landmarks: &[Landmark], person: usize, vertices: Option<&Lixels>, joints: &Lixels) -> Result<Vec<Heatmaps>> {
    let mut heatmaps = Vec::with_capacity(landmarks.len());
    for &landmark in landmarks {
        let (lixels, index) = match (landmark, vertices) {
            (Landmark::Joint(index), _) => (joints, index),
            (Landmark::Vertex(index), Some(vertices)) => (vertices, index),
            (Landmark::Vertex(_), None) => continue,
        };
        if (index as usize) < lixels.count() {
            for xyz in lixels.rows(person, &[index])? {
                let mode = lixels.mode_of(person, index, &xyz)?;
                heatmaps.push(Heatmaps { landmark, xyz, mode });
            }
        }
    }
    Ok(heatmaps)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mask_rcnn_is_preferred_where_it_is_and_only_it_finds_dogs_but_no_hands() {
        let folder = tempfile::tempdir().unwrap();
        let role = |detector, label: &str| {
            let settings = Settings {
                detector,
                detector_label: coco::label(label).unwrap(),
                ..Settings::with_models(folder.path().to_owned())
            };
            detector_role(&settings)
        };
        assert_eq!(role(DetectorKind::Auto, "person"), models::Role::LightDetector);
        assert_eq!(role(DetectorKind::Auto, "dog"), models::Role::Detector);
        std::fs::write(folder.path().join("maskrcnn_resnet50_fpn.pth"), "").unwrap();
        assert_eq!(role(DetectorKind::Auto, "person"), models::Role::Detector);
        assert_eq!(role(DetectorKind::Light, "person"), models::Role::LightDetector);
        assert_eq!(role(DetectorKind::MaskRcnn, "person"), models::Role::Detector);
        let hands = Settings { estimator: EstimatorKind::Hand, ..Settings::with_models(folder.path().to_owned()) };
        assert_eq!(detector_role(&hands), models::Role::HandDetector, "Mask R-CNN knows no hands");
    }
}
