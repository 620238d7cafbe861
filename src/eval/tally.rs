//! The papers' metrics over many frames: results beside their truth go in, figures come out.
//!
//! Who counts for what:
//! - errors in millimetres (MPJPE, MPVPE, their PA forms, MRPE, F-scores) and 3DPCK_rel with its AUC: the people who
//!   were found, paired with the true ones by their boxes ([`compare::pairs`]);
//! - 3DPCK_abs: all true people; every joint of one who was missed is wrong;
//! - box AP and AP_root: everybody; one who was missed costs recall, one who is not there costs precision;
//! - people who are hardly visible ([`Truth::is_hardly_visible`]) count for nothing, found or not, as in COCO.
//!
//! Joints are those of [`CommonJoints`], moved so that the root joints coincide; vertices likewise, by the same root.

use anyhow::Result;
use glam::DVec3;
use serde::Serialize;

use super::compare::{self, CommonJoints, mm};
use super::metrics::{self, Alignment};
use super::precision::{Precision, add_boxes};
use super::{aligned, metrics::PCK_THRESHOLD_MM};
use crate::detect::PersonBox;
use crate::result::{FrameResult, Person};
use crate::truth::{TruePerson, Truth};

/// A root joint nearer than this to the true one is right (RootNet's AP_25^root).
const ROOT_THRESHOLD_MM: f64 = 250.0;

/// Thresholds of the F-scores, millimetres.
const F_THRESHOLDS_MM: [f64; 2] = [5.0, 15.0];

/// Sums over frames.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    pictures: u64,
    people: usize,
    ignored: usize,
    matched: usize,
    false_found: usize,
    /// One value for each person who was found and whose joints, or vertices, are known.
    mpjpe: Vec<f64>,
    pa_mpjpe: Vec<f64>,
    mpjpe_14: Vec<f64>,
    pa_mpjpe_14: Vec<f64>,
    mpvpe: Vec<f64>,
    pa_mpvpe: Vec<f64>,
    f_scores: [Vec<f64>; 2],
    /// From the true root to the found one.
    roots: Vec<DVec3>,
    root_depths: Vec<f64>,
    /// Distances of joints.
    relative: Vec<f64>,
    absolute: Vec<f64>,
    root_precision: Precision,
    box_precision: [Precision; 2],
}

/// What the metrics say. Errors in millimetres; 3DPCK and AUC in percent; AP and F-scores in `[0, 1]`. `None` (null in
/// JSON) where nothing could be measured: no mesh, no truth of that kind, nobody found.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Figures {
    /// Frames.
    pub pictures: u64,
    /// True people who count.
    pub people: usize,
    /// Those who were found.
    pub matched: usize,
    /// Those who were not.
    pub missed: usize,
    /// Who was found and is not there.
    pub false_found: usize,
    /// True people who are hardly visible: neither demanded nor counted as false.
    pub ignored: usize,
    /// Mean per joint position error, root joints moved together; mean and median over people.
    pub mpjpe_mm: Option<f64>,
    /// Half of the people are below.
    pub mpjpe_median_mm: Option<f64>,
    /// The same after the best similarity transform (Procrustes).
    pub pa_mpjpe_mm: Option<f64>,
    /// Half of the people are below.
    pub pa_mpjpe_median_mm: Option<f64>,
    /// MPJPE over the 14 joints of the papers' tables.
    pub mpjpe_14_mm: Option<f64>,
    /// PA-MPJPE over the 14 joints of the papers' tables.
    pub pa_mpjpe_14_mm: Option<f64>,
    /// Mean per vertex position error, root joints moved together.
    pub mpvpe_mm: Option<f64>,
    /// Half of the people are below.
    pub mpvpe_median_mm: Option<f64>,
    /// The same after the best similarity transform.
    pub pa_mpvpe_mm: Option<f64>,
    /// Half of the people are below.
    pub pa_mpvpe_median_mm: Option<f64>,
    /// Mean root position error, in the camera's frame.
    pub mrpe_mm: Option<f64>,
    /// Half of the people are below.
    pub mrpe_median_mm: Option<f64>,
    /// Its parts along x, y and z: the means of their absolute values.
    pub mrpe_xyz_mm: Option<[f64; 3]>,
    /// Mean of the roots' errors in depth, as a part of the depth: below 0 people are taken to be too near.
    pub depth_bias_percent: Option<f64>,
    /// Joints within 150 mm, root joints moved together.
    pub pck3d_rel: Option<f64>,
    /// Joints within 150 mm, in the camera's frame; those of missed people are not.
    pub pck3d_abs: Option<f64>,
    /// Area under the curve of 3DPCK_rel, from 0 to 150 mm.
    pub auc_rel: Option<f64>,
    /// Average precision of the root joint within 25 cm.
    pub ap_root_25: Option<f64>,
    /// F-score of the vertices at 5 mm, after the best similarity transform (as FreiHAND's).
    pub f_5mm: Option<f64>,
    /// The same at 15 mm.
    pub f_15mm: Option<f64>,
    /// COCO's average precision of the detector's boxes at IoU 0.5.
    pub box_ap50: Option<f64>,
    /// At IoU 0.75.
    pub box_ap75: Option<f64>,
}

impl Tally {
    /// Adds a frame: its people, and all boxes that the detector found in it, also those with too low a score for a
    /// person. Errs where the frame has no truth.
    pub fn add(&mut self, result: &FrameResult, boxes: &[PersonBox]) -> Result<()> {
        let Some(truth) = &result.frame.truth else {
            anyhow::bail!("nothing is known to be true of frame {}", result.frame.index)
        };
        self.pictures += 1;
        let ignored: Vec<bool> = truth.people.iter().map(|person| truth.is_hardly_visible(person)).collect();
        let real = truth.people.iter().zip(&ignored);
        let real: Vec<_> = real.filter_map(|(person, &ignored)| Some((person.visible_rect?, ignored))).collect();
        for (precision, least_iou) in self.box_precision.iter_mut().zip([0.5, 0.75]) {
            add_boxes(precision, boxes, &real, least_iou);
        }
        self.add_roots(&result.people, truth, &ignored);

        let common = CommonJoints::of(&result.skeleton, &truth.topology.skeleton);
        let pairs = compare::pairs(&result.people, truth);
        self.false_found += result.people.len() - pairs.len();
        for (real, (person, _)) in truth.people.iter().zip(&ignored).enumerate().filter(|(_, (_, ignored))| !**ignored)
        {
            self.people += 1;
            if let Some(&(found, _)) = pairs.iter().find(|pair| pair.1 == real) {
                self.matched += 1;
                if let Some(common) = &common {
                    self.add_person(&result.people[found], person, common)?;
                }
            } else {
                let demanded = common.as_ref().map_or(0, |common| common.known(&person.joints_camera_m));
                self.absolute.extend(std::iter::repeat_n(f64::INFINITY, demanded));
            }
        }
        self.ignored += ignored.iter().zip(&truth.people).filter(|(i, p)| **i && p.visible_rect.is_some()).count();
        Ok(())
    }

    fn add_person(&mut self, person: &Person, real: &TruePerson, common: &CommonJoints) -> Result<()> {
        let Some(joints) = common.in_mm(&person.joints_camera_m, &real.joints_camera_m) else { return Ok(()) };
        self.mpjpe.push(metrics::mpjpe(&joints.found, &joints.real, 0)?);
        self.pa_mpjpe.push(metrics::pa_mpjpe(&joints.found, &joints.real)?);
        self.relative.extend(metrics::distances(&joints.found, &joints.real, Alignment::Root(0))?);
        self.absolute.extend(metrics::distances(&joints.found, &joints.real, Alignment::Absolute)?);
        let (root, true_root) = (mm(person.root_camera_m), joints.real[0]);
        self.roots.push(root - true_root);
        self.root_depths.push((root.z - true_root.z) / true_root.z);
        let shift = joints.real[0] - joints.found[0];
        if let Some([found, real]) = joints.limbs() {
            let moved: Vec<DVec3> = found.iter().map(|p| *p + shift).collect();
            self.mpjpe_14.push(mean(&metrics::distances(&moved, &real, Alignment::Absolute)?).unwrap_or_default());
            self.pa_mpjpe_14.push(metrics::pa_mpjpe(&found, &real)?);
        }
        let found = person.mesh.as_ref().map_or(&[][..], |mesh| &mesh.vertices_camera_m);
        // Another body's mesh cannot be compared.
        if !found.is_empty() && found.len() == real.vertices_camera_m.len() {
            let found: Vec<DVec3> = found.iter().map(|v| mm(*v)).collect();
            let real: Vec<DVec3> = real.vertices_camera_m.iter().map(|v| mm(*v)).collect();
            let moved: Vec<DVec3> = found.iter().map(|v| *v + shift).collect();
            self.mpvpe.extend(mean(&metrics::distances(&moved, &real, Alignment::Absolute)?));
            let close = aligned(&found, &real)?;
            self.pa_mpvpe.extend(mean(&metrics::distances(&close, &real, Alignment::Absolute)?));
            let scores = metrics::f_scores(&close, &real, &F_THRESHOLDS_MM)?;
            self.f_scores.iter_mut().zip(scores).for_each(|(all, score)| all.push(score));
        }
        Ok(())
    }

    /// RootNet's: in the order of the scores each root belongs to the nearest true one of its picture, and is right where
    /// that is within 25 cm and nobody else's yet.
    fn add_roots(&mut self, people: &[Person], truth: &Truth, ignored: &[bool]) {
        let precision = &mut self.root_precision;
        let known = |person: &TruePerson| person.root_camera_m().is_finite();
        let counted = truth.people.iter().zip(ignored).filter(|(person, ignored)| !**ignored && known(person)).count();
        precision.expect(counted);
        // Where nobody's root is known, nothing can be said against those that were found.
        if !truth.people.iter().any(known) && !truth.people.is_empty() {
            return;
        }
        let mut people: Vec<&Person> = people.iter().filter(|person| person.true_index().is_none()).collect();
        people.sort_by(|a, b| b.score.total_cmp(&a.score));
        let mut taken = vec![false; truth.people.len()];
        for person in people {
            let distance = |real: &TruePerson| mm(person.root_camera_m).distance(mm(real.root_camera_m()));
            let distances = truth.people.iter().map(distance).enumerate().filter(|(_, d)| d.is_finite());
            let nearest = distances.min_by(|a, b| a.1.total_cmp(&b.1));
            let reached = nearest.filter(|(_, distance)| *distance < ROOT_THRESHOLD_MM).map(|(at, _)| at);
            // Nobody minds a root at, or a box around, somebody who is hardly visible.
            let boxed = || {
                truth.people.iter().zip(ignored).any(|(real, ignored)| {
                    *ignored && real.visible_rect.is_some_and(|rect| rect.iou(&person.rect) >= compare::LEAST_IOU)
                })
            };
            match reached {
                Some(at) if !ignored[at] => precision.found(person.score, !std::mem::replace(&mut taken[at], true)),
                Some(_) => {}
                None if boxed() => {}
                None => precision.found(person.score, false),
            }
        }
    }

    /// The figures so far.
    pub fn figures(&self) -> Figures {
        let percent =
            |distances: &[f64]| (!distances.is_empty()).then(|| metrics::pck_percent(distances, PCK_THRESHOLD_MM));
        let lengths: Vec<f64> = self.roots.iter().map(|error| error.length()).collect();
        let axis = |axis: usize| mean(&self.roots.iter().map(|error| error[axis].abs()).collect::<Vec<_>>());
        Figures {
            pictures: self.pictures,
            people: self.people,
            matched: self.matched,
            missed: self.people - self.matched,
            false_found: self.false_found,
            ignored: self.ignored,
            mpjpe_mm: mean(&self.mpjpe),
            mpjpe_median_mm: median(&self.mpjpe),
            pa_mpjpe_mm: mean(&self.pa_mpjpe),
            pa_mpjpe_median_mm: median(&self.pa_mpjpe),
            mpjpe_14_mm: mean(&self.mpjpe_14),
            pa_mpjpe_14_mm: mean(&self.pa_mpjpe_14),
            mpvpe_mm: mean(&self.mpvpe),
            mpvpe_median_mm: median(&self.mpvpe),
            pa_mpvpe_mm: mean(&self.pa_mpvpe),
            pa_mpvpe_median_mm: median(&self.pa_mpvpe),
            mrpe_mm: mean(&lengths),
            mrpe_median_mm: median(&lengths),
            mrpe_xyz_mm: axis(0).zip(axis(1)).zip(axis(2)).map(|((x, y), z)| [x, y, z]),
            depth_bias_percent: mean(&self.root_depths).map(|part| part * 100.0),
            pck3d_rel: percent(&self.relative),
            pck3d_abs: percent(&self.absolute),
            auc_rel: (!self.relative.is_empty())
                .then(|| metrics::auc_percent(&self.relative, &metrics::auc_thresholds_mm())),
            ap_root_25: self.root_precision.area(),
            f_5mm: mean(&self.f_scores[0]),
            f_15mm: mean(&self.f_scores[1]),
            box_ap50: self.box_precision[0].at_101_recalls(),
            box_ap75: self.box_precision[1].at_101_recalls(),
        }
    }
}

fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// The middle value, or the mean of the two in the middle.
fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let upper = *sorted.get(middle)?;
    Some(if sorted.len().is_multiple_of(2) { (sorted[middle - 1] + upper) * 0.5 } else { upper })
}
