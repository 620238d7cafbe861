//! The figures of predictions whose errors are known.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use anyhow::Result;
use glam::{Quat, Vec2, Vec3};
use image::RgbImage;
use lixelscope::body::{Family, Topology, standin};
use lixelscope::camera_mesh::{BODY_BOX_M, DepthAxis};
use lixelscope::capture::Frame;
use lixelscope::crop::Crop;
use lixelscope::detect::PersonBox;
use lixelscope::eval::{Examiner, Figures, Given, Tally, live};
use lixelscope::pipeline::Stages;
use lixelscope::pipeline::stages::{LixelEstimate, LixelEstimator, Pass, RootEstimator, RootInCrop};
use lixelscope::result::{BodyParams, FrameResult, Landmark, MeshSource, Person, PersonMesh, RootSource, Skeleton};
use lixelscope::settings::{BoxSource, Settings};
use lixelscope::space::{Intrinsics, RectPx};
use lixelscope::truth::{TruePerson, Truth};

use crate::{STUDIO, frames};

/// A person found just as the true one is.
fn found(real: &TruePerson, id: usize, score: f32) -> Option<Person> {
    let rect = real.visible_rect?;
    Some(Person {
        id: id as u32,
        score,
        rect,
        crop: Crop::new(rect, 64),
        root_camera_m: real.root_camera_m(),
        root_source: RootSource::RootNet,
        joints_camera_m: real.joints_camera_m.clone(),
        joint_spread_lixel: Vec::new(),
        mesh: Some(PersonMesh { vertices_camera_m: real.vertices_camera_m[..].into(), ..PersonMesh::default() }),
        heatmaps: Vec::new(),
    })
}

/// All of a frame found as they are, the nearest with the best score.
fn perfect(frame: Frame) -> FrameResult {
    let mut result = Stages::new(Settings::with_models(".".into())).without_people(Arc::new(frame));
    let truth = Arc::clone(result.frame.truth.as_ref().unwrap());
    result.skeleton = Arc::new(truth.topology.skeleton.clone());
    result.topology = Some(Arc::clone(&truth.topology));
    let score = |person: &TruePerson| 1.0 / (1.0 + person.root_camera_m().z);
    let people = truth.people.iter().enumerate();
    result.people = people.filter_map(|(id, person)| found(person, id, score(person))).collect();
    result
}

fn truth(result: &FrameResult) -> &Truth {
    result.frame.truth.as_ref().unwrap()
}

fn figures(results: &[FrameResult]) -> Figures {
    let mut tally = Tally::default();
    for result in results {
        let boxes: Vec<_> = result.people.iter().map(|p| PersonBox { rect: p.rect, score: p.score }).collect();
        tally.add(result, &boxes).unwrap();
    }
    tally.figures()
}

/// Moves a found person: root, joints and vertices.
fn map(person: &mut Person, to: impl Fn(Vec3) -> Vec3) {
    person.root_camera_m = to(person.root_camera_m);
    person.joints_camera_m.iter_mut().for_each(|p| *p = to(*p));
    person.mesh.iter_mut().flat_map(|mesh| &mut mesh.vertices_camera_m).for_each(|p| *p = to(*p));
}

#[track_caller]
fn close(actual: Option<f64>, expected: f64, tolerance: f64) {
    let actual = actual.expect("it was measured");
    assert!((actual - expected).abs() <= tolerance, "{actual}, not {expected}");
}

#[test]
fn truth_as_a_prediction_has_no_error() {
    let results: Vec<_> = frames(12).into_iter().map(perfect).collect();
    let f = figures(&results);
    assert!(f.people > 15, "{f:?}");
    assert_eq!((f.pictures, f.matched, f.missed, f.false_found), (12, f.people, 0, 0));
    for zero in [f.mpjpe_mm, f.mpjpe_median_mm, f.mpjpe_14_mm, f.mpvpe_mm, f.mrpe_mm, f.depth_bias_percent] {
        assert_eq!(zero, Some(0.0));
    }
    // The similarity transform that is found is the identity up to the last bits.
    for rounding in [f.pa_mpjpe_mm, f.pa_mpjpe_14_mm, f.pa_mpvpe_mm] {
        close(rounding, 0.0, 1e-9);
    }
    assert_eq!((f.pck3d_rel, f.pck3d_abs, f.auc_rel), (Some(100.0), Some(100.0), Some(100.0)));
    for one in [f.ap_root_25, f.f_5mm, f.f_15mm, f.box_ap50, f.box_ap75] {
        assert_eq!(one, Some(1.0));
    }
}

#[test]
fn people_who_are_too_far_away_have_root_errors_and_no_others() {
    let mut results: Vec<_> = frames(12).into_iter().map(perfect).collect();
    for person in results.iter_mut().flat_map(|result| &mut result.people) {
        map(person, |p| p + Vec3::Z * 0.2);
    }
    let near = figures(&results);
    // Depths of up to 8 m in single precision are 0.001 mm fine.
    close(near.mrpe_mm, 200.0, 0.01);
    close(near.mrpe_xyz_mm.map(|xyz| xyz[0] + xyz[1]), 0.0, 0.01);
    close(near.mpjpe_mm, 0.0, 0.01);
    close(near.mpvpe_mm, 0.0, 0.01);
    assert_eq!((near.pck3d_rel, near.pck3d_abs, near.ap_root_25), (Some(100.0), Some(0.0), Some(1.0)));
    assert!(near.depth_bias_percent.unwrap() > 2.0);
    for person in results.iter_mut().flat_map(|result| &mut result.people) {
        map(person, |p| p + Vec3::Z * 0.1);
    }
    let far = figures(&results);
    close(far.mrpe_median_mm, 300.0, 0.01);
    assert_eq!((far.ap_root_25, far.box_ap50), (Some(0.0), Some(1.0)));
}

#[test]
fn people_who_are_too_large_have_errors_that_alignment_takes_away() {
    let mut results: Vec<_> = frames(12).into_iter().map(perfect).collect();
    // From nothing but the points: a tenth of each distance to the root.
    let (mut joints, mut vertices, mut limbs) = (Vec::new(), Vec::new(), Vec::new());
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    for result in &mut results {
        let names = result.skeleton.names.clone();
        let truth = Arc::clone(result.frame.truth.as_ref().unwrap());
        for person in &mut result.people {
            let real = &truth.people[person.id as usize];
            let root = person.root_camera_m;
            map(person, |p| root + (p - root) * 1.1);
            if truth.is_hardly_visible(real) {
                continue;
            }
            let grown = |p: &Vec3| f64::from((*p - root).length()) * 100.0;
            joints.push(mean(&real.joints_camera_m[..24].iter().map(grown).collect::<Vec<_>>()));
            vertices.push(mean(&real.vertices_camera_m.iter().map(grown).collect::<Vec<_>>()));
            let limb = |name: &&String| {
                let parts = ["ankle", "knee", "hip", "wrist", "elbow", "shoulder", "neck", "head"];
                parts.iter().any(|part| name.ends_with(part))
            };
            let of = |name: &String| grown(&real.joints_camera_m[names.iter().position(|n| n == name).unwrap()]);
            limbs.push(mean(&names.iter().filter(limb).map(of).collect::<Vec<_>>()));
        }
    }
    let f = figures(&results);
    assert_eq!(f.people, joints.len());
    close(f.mpjpe_mm, mean(&joints), 0.01);
    close(f.mpvpe_mm, mean(&vertices), 0.01);
    close(f.mpjpe_14_mm, mean(&limbs), 0.01);
    for aligned in [f.pa_mpjpe_mm, f.pa_mpjpe_14_mm, f.pa_mpvpe_mm] {
        close(aligned, 0.0, 0.01);
    }
    assert_eq!((f.mrpe_mm, f.f_5mm), (Some(0.0), Some(1.0)));
    assert!(f.auc_rel.unwrap() < 100.0 && f.auc_rel.unwrap() > 30.0, "{f:?}");
    // The window says the same of one picture.
    let one = figures(&results[..1]);
    let live: Vec<f64> = live::errors(&results[0]).into_iter().flatten().map(|errors| errors.mpjpe_mm).collect();
    close(one.mpjpe_mm, mean(&live), 1e-9);
}

#[test]
fn the_missed_and_the_false_count_where_they_should() {
    let all: Vec<_> = frames(40).into_iter().map(perfect).collect();
    let counts = |result: &FrameResult, person: &Person| {
        !truth(result).is_hardly_visible(&truth(result).people[person.id as usize])
    };
    // Everybody of every second picture is missed.
    let mut half = all.clone();
    half.iter_mut().step_by(2).for_each(|result| result.people.clear());
    let (whole, f) = (figures(&all), figures(&half));
    let here = half.iter().map(|r| r.people.iter().filter(|p| counts(r, p)).count()).sum::<usize>();
    assert_eq!((f.people, f.matched, f.missed, f.false_found), (whole.people, here, whole.people - here, 0));
    let share = here as f64 / whole.people as f64;
    close(f.pck3d_abs, 100.0 * share, 1e-9);
    assert_eq!((f.pck3d_rel, f.mpjpe_mm), (Some(100.0), Some(0.0)), "of those who were found");
    close(f.ap_root_25, share, 1e-9);
    // Recalls of hundredths up to the share that was found.
    close(f.box_ap50, ((100.0 * share).floor() + 1.0) / 101.0, 1e-9);

    // Somebody where nobody is, and before all others in each picture: precision begins with a half.
    let mut wrong = all.clone();
    for result in &mut wrong {
        let Some(mut extra) = result.people.first().cloned() else { continue };
        extra.score = 2.0;
        extra.rect = RectPx::from([-500.0, -500.0, 20.0, 40.0]);
        extra.root_camera_m = Vec3::new(0.0, 0.0, 50.0);
        result.people.push(extra);
    }
    let f = figures(&wrong);
    let extras = wrong.iter().filter(|r| !r.people.is_empty()).count();
    assert_eq!((f.false_found, f.missed), (extras, 0));
    let last = f.people as f64 / (f.people + extras) as f64;
    // The best precision is the last one: all of the right ones come after all of the wrong ones.
    close(f.box_ap50, last, 1e-9);
    assert!(f.ap_root_25.unwrap() < last);

    // With the worst scores they cost nothing.
    wrong.iter_mut().filter_map(|result| result.people.last_mut()).for_each(|extra| extra.score = 0.01);
    let f = figures(&wrong);
    assert_eq!((f.box_ap50, f.ap_root_25, f.false_found), (Some(1.0), Some(1.0), extras));
}

#[test]
fn nobody_minds_those_who_are_hardly_visible() {
    let all: Vec<_> = frames(60).into_iter().map(perfect).collect();
    let with = figures(&all);
    assert!(with.ignored > 3, "{with:?}");
    let mut without = all.clone();
    for result in &mut without {
        let truth = Arc::clone(result.frame.truth.as_ref().unwrap());
        result.people.retain(|person| !truth.is_hardly_visible(&truth.people[person.id as usize]));
    }
    assert_eq!(figures(&without), with, "found or not, they change nothing");
}

/// Says of each patch what is true, from a list made beforehand.
struct Oracle {
    skeleton: Arc<Skeleton>,
    topology: Arc<Topology>,
    depth_axis: DepthAxis,
    answers: Arc<Mutex<VecDeque<LixelEstimate>>>,
}

const PATCH: u32 = 64;
const BINS: usize = 32;

impl LixelEstimator for Oracle {
    fn input_size(&self) -> u32 {
        PATCH
    }

    fn bins(&self) -> usize {
        BINS
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

    fn estimate(&mut self, patches: &[RgbImage], _: &[Landmark]) -> Result<Vec<LixelEstimate>> {
        Ok(self.answers.lock().unwrap().drain(..patches.len()).collect())
    }
}

/// Everybody is in the middle of the patch, so many metres away.
struct At(f32);

impl RootEstimator for At {
    fn input_size(&self) -> u32 {
        PATCH
    }

    fn estimate(&mut self, _: &[RgbImage], crops: &[Crop], _: &Intrinsics) -> Result<Vec<RootInCrop>> {
        Ok(vec![RootInCrop { crop_px: Vec2::splat(PATCH as f32 * 0.5), depth_m: self.0 }; crops.len()])
    }
}

/// What a network would say of a person so that the pipeline finds it just where it is.
fn estimate(person: &TruePerson, crop: &Crop, depth_axis: DepthAxis, camera: &Intrinsics) -> LixelEstimate {
    let middle_px = crop.frame_from_crop.transform_point2(Vec2::splat(PATCH as f32 / 2.0));
    let axis = match depth_axis {
        DepthAxis::Camera => Vec3::Z,
        DepthAxis::LineOfSight => camera.camera_from_frame(middle_px, 1.0).normalize(),
    };
    let lixel = |&p: &Vec3| {
        let crop_px = crop.crop_from_frame.transform_point2(camera.frame_from_camera(p));
        let z = (0.5 + (p - person.root_camera_m()).dot(axis) / BODY_BOX_M) * BINS as f32;
        (crop_px * (BINS as f32 / PATCH as f32)).extend(z)
    };
    let BodyParams { mut pose_rad, shape } = person.params.clone();
    pose_rad[0] = (Quat::from_rotation_arc(axis, Vec3::Z) * Quat::from_scaled_axis(pose_rad[0])).to_scaled_axis();
    LixelEstimate {
        joints_lixel: person.joints_camera_m.iter().map(lixel).collect(),
        vertices_lixel: person.vertices_camera_m.iter().map(lixel).collect(),
        params: Some(BodyParams { pose_rad, shape }),
        ..LixelEstimate::default()
    }
}

#[test]
fn true_boxes_and_true_roots_leave_the_mesh_networks_errors_alone() {
    true_answers(DepthAxis::Camera, MeshSource::Lixel);
}

#[test]
fn depths_along_the_line_of_sight_and_turns_in_the_patch_come_back_to_the_camera() {
    true_answers(DepthAxis::LineOfSight, MeshSource::Lixel);
    true_answers(DepthAxis::LineOfSight, MeshSource::Param);
}

#[test]
fn the_turn_of_a_body_is_said_in_the_axes_of_the_camera() {
    for (mesh_source, wrong_rad) in [(MeshSource::Lixel, 0.0), (MeshSource::Param, 0.3)] {
        let answers = Arc::<Mutex<VecDeque<LixelEstimate>>>::default();
        let mut stages = oracle(DepthAxis::LineOfSight, mesh_source, &answers);
        for frame in frames(5) {
            let truth = frame.truth.clone().unwrap();
            let (person, rect) = truth.people.iter().find_map(|one| Some((one, one.visible_rect?))).unwrap();
            let mut answer = estimate(person, &crop(rect, &truth), DepthAxis::LineOfSight, &truth.intrinsics);
            let turns = &mut answer.params.as_mut().unwrap().pose_rad;
            turns[0] = (Quat::from_rotation_y(wrong_rad) * Quat::from_scaled_axis(turns[0])).to_scaled_axis();
            answers.lock().unwrap().push_back(answer);
            stages.root = Some(Box::new(At(person.root_camera_m().z)));
            stages.set_settings(Settings { boxes: BoxSource::User(vec![rect]), ..stages.settings().clone() });
            let result = stages.process(Arc::new(frame), Pass::Again).unwrap();
            let found = result.people[0].mesh.as_ref().unwrap().params.as_ref().unwrap();
            let [found, real] = [found, &person.params].map(|params| Quat::from_scaled_axis(params.pose_rad[0]));
            assert!(found.angle_between(real) < 2e-3, "{mesh_source:?}: {} rad", found.angle_between(real));
        }
    }
}

/// A network that says what it is told; everybody is 10 m away.
fn oracle(depth_axis: DepthAxis, mesh_source: MeshSource, answers: &Arc<Mutex<VecDeque<LixelEstimate>>>) -> Stages {
    let topology = Arc::clone(STUDIO.body().topology());
    let mut settings = Settings::with_models(".".into());
    settings.boxes = BoxSource::User(Vec::new());
    settings.mesh_source = mesh_source;
    let mut stages = Stages::new(settings);
    stages.root = Some(Box::new(At(10.0)));
    let (skeleton, answers) = (Arc::new(topology.skeleton.clone()), Arc::clone(answers));
    stages.estimator = Some(Box::new(Oracle { skeleton, topology, depth_axis, answers }));
    stages.body = Some(standin::model(Family::Smpl).unwrap());
    stages
}

/// The patch of whoever is seen in this box.
fn crop(rect: RectPx, truth: &Truth) -> Crop {
    let [width, height] = truth.size;
    let crop = rect.clipped(width, height).and_then(|rect| Crop::of_tight_box(rect, width, height, PATCH));
    crop.expect("whoever is seen has a box")
}

/// A network that makes no errors, end to end.
fn true_answers(depth_axis: DepthAxis, mesh_source: MeshSource) {
    let answers = Arc::<Mutex<VecDeque<LixelEstimate>>>::default();
    let [mut blind, mut seeing] = [false, true]
        .map(|roots| Examiner::new(oracle(depth_axis, mesh_source, &answers), Given { boxes: true, roots }));
    let mut depth_errors = Vec::new();
    for frame in frames(10) {
        let truth = frame.truth.clone().unwrap();
        for person in &truth.people {
            let Some(rect) = person.visible_rect else { continue };
            let answer = estimate(person, &crop(rect, &truth), depth_axis, &truth.intrinsics);
            answers.lock().unwrap().push_back(answer);
            if !truth.is_hardly_visible(person) {
                depth_errors.push(f64::from(10.0 - person.root_camera_m().z) * 1000.0);
            }
        }
        let again = answers.lock().unwrap().clone();
        seeing.examine(frame.clone()).unwrap();
        *answers.lock().unwrap() = again;
        blind.examine(frame).unwrap();
    }
    let f = seeing.figures();
    assert_eq!((f.matched, f.missed, f.false_found), (depth_errors.len(), 0, 0));
    // Pixels and lixels in single precision, carried through two affine maps and back over several metres.
    close(f.mpjpe_mm, 0.0, 0.05);
    close(f.mpvpe_mm, 0.0, 0.05);
    close(f.mrpe_xyz_mm.map(|xyz| xyz[2]), 0.0, 0.01);
    assert_eq!((f.pck3d_abs, f.box_ap75, f.f_5mm), (Some(100.0), Some(1.0), Some(1.0)));
    // Without the true depths the same lixels are 10 m away, and larger; a body that is laid onto them is turned.
    let f = blind.figures();
    let mean = depth_errors.iter().sum::<f64>() / depth_errors.len() as f64;
    close(f.mrpe_xyz_mm.map(|xyz| xyz[2]), mean, 0.01);
    assert!(f.mpjpe_mm.unwrap() > 30.0 && f.pck3d_abs.unwrap() < 1.0, "{f:?}");
}

#[test]
fn a_picture_without_truth_is_refused() {
    let mut frame = frames(1).remove(0);
    frame.truth = None;
    let stages = Stages::new(Settings::with_models(".".into()));
    let error = Examiner::new(stages, Given::default()).examine(frame).unwrap_err();
    assert!(format!("{error:#}").contains("nothing is known to be true of picture 0"), "{error:#}");
}
