//! One frame through all stages, on the caller's thread: `detect -> crop -> root_depth -> lixel -> camera_mesh`.

use std::cell::{Cell, OnceCell};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Context, Result};
use glam::{DQuat, Quat, Vec2, Vec3};
use image::RgbImage;

use crate::body::{BodyModel, Family, Topology};
use crate::camera_mesh::{BODY_BOX_M, DepthAxis, HAND_BOX_M, LixelVolume};
use crate::capture::{Frame, SourceKind};
use crate::crop::Crop;
use crate::detect::track::{TrackedPerson, Tracker, TrackerConfig};
use crate::detect::{Detector, PersonBox};
use crate::memory::Buffer;
use crate::models::Weights;
use crate::procrustes::Similarity;
use crate::result::{
    BodyParams, EstimatorKind, FrameResult, Heatmaps, Landmark, MeshSource, Person, PersonMesh, RootSource, Skeleton,
    Stage, StageTimes,
};
use crate::root_depth;
use crate::settings::{BoxSource, CameraSetting, Settings};
use crate::space::{Intrinsics, RectPx};

/// The patches of one frame. They are cut out on the processor when somebody asks for them; a network on a GPU cuts them
/// out there.
pub struct Patches<'a> {
    /// The frame.
    pub frame: &'a RgbImage,
    /// A number that no other frame has, for whoever keeps a copy.
    pub frame_id: u64,
    /// One for each person, of one size.
    pub crops: &'a [Crop],
    images: OnceCell<Vec<RgbImage>>,
    used: Cell<Vec<RgbImage>>,
}

impl<'a> Patches<'a> {
    /// Not cut out yet.
    pub fn new(frame: &'a RgbImage, frame_id: u64, crops: &'a [Crop]) -> Self {
        Self::onto(Vec::new(), frame, frame_id, crops)
    }

    /// The same; they will be cut out onto pictures that have been used before.
    fn onto(used: Vec<RgbImage>, frame: &'a RgbImage, frame_id: u64, crops: &'a [Crop]) -> Self {
        Self { frame, frame_id, crops, images: OnceCell::new(), used: Cell::new(used) }
    }

    /// The pictures, for the next frame.
    fn into_used(self) -> Vec<RgbImage> {
        self.images.into_inner().unwrap_or_else(|| self.used.into_inner())
    }

    /// A number that no frame has had.
    pub fn next_frame_id() -> u64 {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        NEXT.fetch_add(1, Ordering::Relaxed)
    }

    /// Cut out.
    pub fn images(&self) -> &[RgbImage] {
        self.images.get_or_init(|| {
            let mut images = self.used.take();
            images.resize_with(self.crops.len(), RgbImage::default);
            for (image, crop) in images.iter_mut().zip(self.crops) {
                crop.cut(self.frame, image);
            }
            images
        })
    }
}

/// RootNet, as the pipeline sees it.
pub trait RootEstimator: Send {
    /// Side of the patches that it reads.
    fn input_size(&self) -> u32;

    /// Where the root joint is in each patch and how far away, given k for each.
    fn estimate(&mut self, patches: &[RgbImage], crops: &[Crop], intrinsics: &Intrinsics) -> Result<Vec<RootInCrop>>;

    /// The same of patches that need not be cut out yet.
    fn estimate_crops(&mut self, patches: &Patches<'_>, intrinsics: &Intrinsics) -> Result<Vec<RootInCrop>> {
        self.estimate(patches.images(), patches.crops, intrinsics)
    }

    /// The weights that it runs with, where it has any.
    fn weights(&self) -> Option<&Weights> {
        None
    }
}

/// RootNet's answer for one patch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RootInCrop {
    /// The root joint in crop pixels.
    pub crop_px: Vec2,
    /// Its distance along z, metres.
    pub depth_m: f32,
}

/// I2L-MeshNet or 3D PoseNet, as the pipeline sees them.
pub trait LixelEstimator: Send {
    /// Side of the patches that it reads.
    fn input_size(&self) -> u32;

    /// Bins of a heatmap.
    fn bins(&self) -> usize;

    /// The direction of z.
    fn depth_axis(&self) -> DepthAxis {
        DepthAxis::Camera
    }

    /// The joints that come out.
    fn skeleton(&self) -> Arc<Skeleton>;

    /// The faces of the mesh that comes out, if one does.
    fn topology(&self) -> Option<Arc<Topology>>;

    /// One estimate a patch, with the heatmaps of the wanted landmarks.
    fn estimate(&mut self, patches: &[RgbImage], landmarks: &[Landmark]) -> Result<Vec<LixelEstimate>>;

    /// The same of patches that need not be cut out yet.
    fn estimate_crops(&mut self, patches: &Patches<'_>, landmarks: &[Landmark]) -> Result<Vec<LixelEstimate>> {
        self.estimate(patches.images(), landmarks)
    }

    /// Whether it has a second stage, which says the parameters of a body model.
    fn has_params(&self) -> bool {
        false
    }

    /// Whether it cuts the patches out itself.
    fn cuts_patches(&self) -> bool {
        false
    }

    /// The weights that it runs with, where it has any.
    fn weights(&self) -> Option<&Weights> {
        None
    }
}

/// What a lixel network says of one patch. All coordinates in lixels.
#[derive(Clone, Debug, Default)]
pub struct LixelEstimate {
    /// One a joint of the skeleton.
    pub joints_lixel: Vec<Vec3>,
    /// Standard deviation of each joint's three heatmaps.
    pub joint_spread_lixel: Vec<Vec3>,
    /// One a vertex; empty for a skeleton.
    pub vertices_lixel: Buffer<Vec3>,
    /// Standard deviation of each vertex' three heatmaps.
    pub vertex_spread_lixel: Buffer<Vec3>,
    /// The second stage. The first rotation turns into the axes of the patch.
    pub params: Option<BodyParams>,
    /// As asked.
    pub heatmaps: Vec<Heatmaps>,
}

/// Boxes to follow from frame to frame.
#[derive(Clone, Copy, Debug, PartialEq)]
struct TrackedBox {
    id: u32,
    person: PersonBox,
}

/// A body that shares less with its box than this is no better guide than the box.
const LEAST_IOU_OF_BODY: f32 = 0.4;

/// How a frame is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// The next frame of the source: people move on.
    Next,
    /// The same frame again, for other landmarks or another network: people keep their boxes.
    Again,
}

/// The stages and what they remember from frame to frame. Networks that are absent leave their stage out: without a
/// detector there are no boxes but the user's, without an estimator no people.
pub struct Stages {
    /// Finds people.
    pub detector: Option<Box<dyn Detector>>,
    /// Finds distances. Without it they are read from the box size alone (gamma = 1).
    pub root: Option<Box<dyn RootEstimator>>,
    /// Finds lixels.
    pub estimator: Option<Box<dyn LixelEstimator>>,
    /// The model that the parameters of the second stage pose.
    pub body: Option<Arc<BodyModel>>,
    /// Whose heatmaps are wanted.
    pub landmarks: Vec<Landmark>,
    settings: Settings,
    kind: SourceKind,
    /// Of the last frame.
    frame_size: Option<(u32, u32)>,
    tracker: Tracker,
    frames_until_detection: u32,
    boxes: Vec<TrackedBox>,
    /// The last frame's patches, and those of a RootNet that reads another size; the next ones are cut out onto them.
    used_patches: [Vec<RgbImage>; 2],
}

impl Stages {
    /// Stages without networks.
    pub fn new(settings: Settings) -> Self {
        Self {
            detector: None,
            root: None,
            estimator: None,
            body: None,
            landmarks: Vec::new(),
            tracker: Tracker::new(TrackerConfig::with_score_threshold(settings.score_threshold)),
            settings,
            kind: SourceKind::Motion,
            frame_size: None,
            frames_until_detection: 0,
            boxes: Vec::new(),
            used_patches: Default::default(),
        }
    }

    /// Whether there is what [`MeshSource::Param`] asks for: a second stage, and the body model that it poses.
    pub fn can_pose(&self) -> bool {
        self.body.is_some() && self.estimator.as_ref().is_some_and(|estimator| estimator.has_params())
    }

    /// The weights of the networks that run, in the order of the stages.
    pub fn weights(&self) -> Vec<Weights> {
        let detector = self.detector.as_ref().filter(|_| self.settings.boxes == BoxSource::Detector);
        let detector = detector.and_then(|detector| detector.weights());
        let root = self.root.as_ref().and_then(|root| root.weights());
        let estimator = self.estimator.as_ref().and_then(|estimator| estimator.weights());
        [detector, root, estimator].into_iter().flatten().cloned().collect()
    }

    /// The settings in force.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Other settings. The device and the folder of models matter only to whoever loads the networks.
    pub fn set_settings(&mut self, settings: Settings) {
        if settings.boxes != self.settings.boxes {
            self.forget_people();
        }
        self.tracker.set_config(TrackerConfig::with_score_threshold(settings.score_threshold));
        self.settings = settings;
    }

    /// Starts over with another source.
    pub fn begin(&mut self, kind: SourceKind) {
        self.kind = kind;
        self.frame_size = None;
        self.forget_people();
    }

    /// Nobody is tracked any more, the next frame is searched.
    pub fn forget_people(&mut self) {
        self.tracker.clear();
        self.boxes.clear();
        self.frames_until_detection = 0;
    }

    /// One frame through all stages.
    pub fn process(&mut self, frame: Arc<Frame>, pass: Pass) -> Result<FrameResult> {
        let mut timing = StageTimes::default();
        // Nobody is followed into another picture.
        let size = frame.rgb.dimensions();
        let another = self.frame_size.is_some_and(|last| last != size);
        if pass == Pass::Next && (another || self.kind == SourceKind::Pictures) {
            self.forget_people();
        }
        self.frame_size = Some(size);

        let started = Instant::now();
        let detector_ran = self.find_boxes(&frame, pass).context("the detector failed")?;
        timing.add(Stage::Detect, started.elapsed());

        let mut result = self.without_people(frame);
        result.timing = timing;
        result.detector_ran = detector_ran;
        if self.estimator.is_some() {
            self.estimate(&mut result)?;
            let can_wait = self.kind != SourceKind::Motion;
            if detector_ran && can_wait && self.settings.estimator == EstimatorKind::Body {
                self.look_again(&mut result)?;
            }
        }
        Ok(result)
    }

    /// The frame alone, as it is shown while there is no network, or after one failed.
    pub fn without_people(&self, frame: Arc<Frame>) -> FrameResult {
        let (width, height) = frame.rgb.dimensions();
        // The camera of a frame that was made is known, unless the user says otherwise.
        let intrinsics = match (&frame.truth, self.settings.camera) {
            (Some(truth), CameraSetting::Normalised) => truth.intrinsics,
            (_, camera) => camera.intrinsics(width, height),
        };
        FrameResult {
            intrinsics,
            estimator: self.settings.estimator,
            bins: 0,
            depth_axis: DepthAxis::Camera,
            skeleton: Arc::default(),
            topology: None,
            people: Vec::new(),
            timing: StageTimes::default(),
            detector_ran: false,
            frames_dropped: 0,
            frame,
        }
    }

    /// Brings `self.boxes` to this frame. Says whether the detector ran.
    fn find_boxes(&mut self, frame: &Frame, pass: Pass) -> Result<bool> {
        let (width, height) = frame.rgb.dimensions();
        let given = |id: usize, rect| TrackedBox { id: id as u32 + 1, person: PersonBox { rect, score: 1.0 } };
        match &self.settings.boxes {
            BoxSource::User(rects) => {
                self.boxes = rects.iter().enumerate().map(|(i, rect)| given(i, *rect)).collect();
                Ok(false)
            }
            BoxSource::WholeFrame => {
                self.boxes = vec![given(0, RectPx::from([0.0, 0.0, width as f32, height as f32]))];
                Ok(false)
            }
            BoxSource::Detector => {
                let Some(detector) = &mut self.detector else {
                    self.boxes.clear();
                    return Ok(false);
                };
                let first = self.frames_until_detection == 0;
                if pass == Pass::Again && !first {
                    return Ok(false);
                }
                self.tracker.predict(frame.index);
                if first {
                    self.tracker.update_from_detections(&detector.detect(frame)?);
                    self.frames_until_detection =
                        if self.kind == SourceKind::Motion { self.settings.detect_every.max(1) } else { 1 };
                }
                if pass == Pass::Next {
                    self.frames_until_detection -= 1;
                }
                self.boxes = self
                    .tracker
                    .people()
                    .into_iter()
                    .map(|TrackedPerson { id, rect, score }| TrackedBox { id, person: PersonBox { rect, score } })
                    .take(self.settings.max_people)
                    .collect();
                Ok(first)
            }
        }
    }

    /// Fills in the people of `result`.
    fn estimate(&mut self, result: &mut FrameResult) -> Result<()> {
        let Some(estimator) = &mut self.estimator else { return Ok(()) };
        let (width, height) = result.frame.rgb.dimensions();
        result.bins = estimator.bins();
        result.depth_axis = estimator.depth_axis();
        result.skeleton = estimator.skeleton();
        result.topology = estimator.topology();

        // crop
        let started = Instant::now();
        let size = estimator.input_size();
        // What lies outside the frame is cut off first: the release's clipping would shift such a box into the frame.
        let crop = |tracked: &TrackedBox| {
            let inside = tracked.person.rect.clipped(width, height)?;
            Some((*tracked, Crop::of_tight_box(inside, width, height, size)?))
        };
        let (boxes, crops): (Vec<_>, Vec<_>) = self.boxes.iter().filter_map(crop).unzip();
        if boxes.is_empty() {
            return Ok(());
        }
        let frame = Arc::clone(&result.frame);
        let [used, used_for_root] = &mut self.used_patches;
        let patches = Patches::onto(std::mem::take(used), &frame.rgb, Patches::next_frame_id(), &crops);
        if !estimator.cuts_patches() {
            patches.images();
        }
        result.timing.add(Stage::Crop, started.elapsed());

        // root depth
        let started = Instant::now();
        let (roots, root_source) = if let Some(root) = &mut self.root {
            let roots = root_in_crops(&mut **root, &patches, used_for_root, &result.intrinsics)?;
            (roots, RootSource::RootNet)
        } else {
            let side_m = box_m(self.settings.estimator);
            let from_size = |crop: &Crop| RootInCrop {
                crop_px: Vec2::splat(size as f32 * 0.5),
                depth_m: root_depth::k_m(&result.intrinsics, &crop.rect, [side_m; 2]),
            };
            (crops.iter().map(from_size).collect(), RootSource::BoxSize)
        };
        result.timing.add(Stage::RootDepth, started.elapsed());

        // lixel
        let started = Instant::now();
        let estimates = estimator.estimate_crops(&patches, &self.landmarks).context("the lixel network failed")?;
        *used = patches.into_used();
        result.timing.add(Stage::Lixel, started.elapsed());

        // camera mesh
        let started = Instant::now();
        for (((tracked, crop), root), estimate) in boxes.iter().zip(&crops).zip(&roots).zip(estimates) {
            let person = self.person(tracked, crop, root, root_source, estimate, result)?;
            result.people.push(person);
        }
        if self.settings.boxes == BoxSource::Detector {
            for person in &result.people {
                if let Some(rect) = body_rect(person, result) {
                    self.tracker.update_from_pose(person.id, rect);
                }
            }
        }
        result.timing.add(Stage::CameraMesh, started.elapsed());
        Ok(())
    }

    /// Bodies say better than the detector where they end: it leaves out arms. A picture can wait, and so everybody is
    /// looked at once more, in the box of the body that was found first. Where people move on, the tracker does so from
    /// frame to frame. Hands were the worse for it (MRPE 80 mm before, 90 after).
    fn look_again(&mut self, result: &mut FrameResult) -> Result<()> {
        for tracked in &mut self.boxes {
            let found = result.people.iter().find(|person| person.id == tracked.id);
            let rect = found.and_then(|person| body_rect(person, result));
            if let Some(rect) = rect.filter(|rect| rect.iou(&tracked.person.rect) >= LEAST_IOU_OF_BODY) {
                tracked.person.rect = rect;
            }
        }
        result.people.clear();
        self.estimate(result)
    }

    fn person(
        &self,
        tracked: &TrackedBox,
        crop: &Crop,
        root: &RootInCrop,
        root_source: RootSource,
        mut estimate: LixelEstimate,
        result: &FrameResult,
    ) -> Result<Person> {
        let (bins, depth_axis) = (result.bins, result.depth_axis);
        let volume = LixelVolume { crop, bins, box_m: box_m(self.settings.estimator), depth_axis };
        let at_root_depth = |px: Vec2| result.intrinsics.camera_from_frame(px, root.depth_m);
        let root_camera_m = at_root_depth(crop.frame_from_crop.transform_point2(root.crop_px));
        // RootNet says how far away the root joint is; where it is on the picture the lixels say themselves.
        let root_lixel = result.skeleton.root().and_then(|joint| estimate.joints_lixel.get(joint));
        let anchor_m = root_lixel.map_or(root_camera_m, |lixel| at_root_depth(volume.frame_from_lixel(*lixel)));
        let to_camera = |lixels: &[Vec3]| volume.camera_from_lixels(lixels, anchor_m, &result.intrinsics);
        if let Some(turn) = estimate.params.as_mut().and_then(|params| params.pose_rad.first_mut()) {
            // The network says how the root is turned in its patch.
            let camera_from_patch = volume.patch_from_camera(&result.intrinsics).inverse();
            *turn = (camera_from_patch * Quat::from_scaled_axis(*turn)).to_scaled_axis();
        }
        let mut joints_camera_m = to_camera(&estimate.joints_lixel).to_vec();
        let mesh = if estimate.vertices_lixel.is_empty() {
            None
        } else {
            let mut vertices_camera_m = to_camera(&estimate.vertices_lixel);
            if let (MeshSource::Param, Some(params), Some(body)) =
                (self.settings.mesh_source, &mut estimate.params, &self.body)
            {
                let posed = body.pose(&params.pose_rad, &params.shape, Vec3::ZERO).context("the body model failed")?;
                // The parameters say nothing of the place and little of the turn: the posed model is laid onto the joints
                // of the lixels.
                let pairs = posed.joints_m.iter().zip(&joints_camera_m).map(|(p, l)| (p.as_dvec3(), l.as_dvec3()));
                let laid = Similarity::rigid_between(&pairs.collect::<Vec<_>>());
                let place = |p: &Vec3| laid.apply(p.as_dvec3()).as_vec3();
                vertices_camera_m = posed.vertices_m.iter().map(place).collect();
                joints_camera_m = posed.joints_m.iter().map(place).collect();
                if let Some(turn) = params.pose_rad.first_mut() {
                    *turn =
                        (DQuat::from_mat3(&laid.rotation).as_quat() * Quat::from_scaled_axis(*turn)).to_scaled_axis();
                }
            }
            Some(PersonMesh {
                vertices_camera_m,
                vertices_lixel: estimate.vertices_lixel,
                spread_lixel: estimate.vertex_spread_lixel,
                params: estimate.params,
            })
        };
        Ok(Person {
            id: tracked.id,
            score: tracked.person.score,
            rect: tracked.person.rect,
            crop: *crop,
            root_camera_m,
            root_source,
            joints_camera_m,
            joint_spread_lixel: estimate.joint_spread_lixel,
            mesh,
            heatmaps: estimate.heatmaps,
        })
    }
}

/// RootNet on the patches of the lixel network, or on its own where it reads another size; in pixels of the former.
fn root_in_crops(
    root: &mut dyn RootEstimator,
    patches: &Patches<'_>,
    used: &mut Vec<RgbImage>,
    camera: &Intrinsics,
) -> Result<Vec<RootInCrop>> {
    let (size, crops) = (root.input_size(), patches.crops);
    let roots = if crops.iter().all(|crop| crop.size == size) {
        root.estimate_crops(patches, camera)
    } else {
        let own: Vec<_> = crops.iter().map(|crop| Crop::new(crop.rect, size)).collect();
        let own = Patches::onto(std::mem::take(used), patches.frame, patches.frame_id, &own);
        let roots = root.estimate_crops(&own, camera);
        *used = own.into_used();
        roots
    };
    let mut roots = roots.context("RootNet failed")?;
    for (root, crop) in roots.iter_mut().zip(crops) {
        root.crop_px *= crop.size as f32 / size as f32;
    }
    Ok(roots)
}

/// The box of the body that was found, as far as it is on the frame.
fn body_rect(person: &Person, result: &FrameResult) -> Option<RectPx> {
    let (width, height) = result.frame.rgb.dimensions();
    let points = person.joints_camera_m.iter().chain(person.mesh.iter().flat_map(|m| &m.vertices_camera_m));
    RectPx::around(points.map(|p| result.intrinsics.frame_from_camera(*p)))?.clipped(width, height)
}

/// Side of the box around the root that the lixels cover, metres.
fn box_m(kind: EstimatorKind) -> f32 {
    match kind.family() {
        Family::Smpl => BODY_BOX_M,
        Family::Mano => HAND_BOX_M,
    }
}
