//! Errors of one frame while it is on the screen: found people against the true ones of a frame that was made.

use glam::{DVec3, Vec3};

use super::metrics;
use crate::result::{FrameResult, Person};
use crate::truth::Truth;

/// Boxes that share less are of two people.
const LEAST_IOU: f32 = 0.3;

/// Errors of one person, millimetres, over the joints that both skeletons have.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Errors {
    /// Mean distance of joints, with the root joints moved together.
    pub mpjpe_mm: f64,
    /// Mean distance of joints, after the best similarity transform.
    pub pa_mpjpe_mm: f64,
    /// Distance of the root joints.
    pub root_mm: f64,
}

/// For each person of a result its errors; `None` for one who is not there in truth, and for all where nothing is known.
pub fn errors(result: &FrameResult) -> Vec<Option<Errors>> {
    let mut errors = vec![None; result.people.len()];
    let Some(truth) = &result.frame.truth else { return errors };
    for (found, real) in matches(&result.people, truth) {
        errors[found] = compared(result, &result.people[found], truth, real);
    }
    errors
}

/// Pairs of found and true people, best boxes first, each at most once.
fn matches(people: &[Person], truth: &Truth) -> Vec<(usize, usize)> {
    let mut pairs = Vec::new();
    for (found, person) in people.iter().enumerate().filter(|(_, person)| person.true_index().is_none()) {
        for (real, one) in truth.people.iter().enumerate() {
            let iou = one.visible_rect.map_or(0.0, |rect| rect.iou(&person.rect));
            if iou >= LEAST_IOU {
                pairs.push((iou, found, real));
            }
        }
    }
    pairs.sort_by(|a, b| b.0.total_cmp(&a.0));
    let mut taken: Vec<(usize, usize)> = Vec::new();
    for (_, found, real) in pairs {
        if taken.iter().all(|&(f, r)| f != found && r != real) {
            taken.push((found, real));
        }
    }
    taken
}

fn compared(result: &FrameResult, person: &Person, truth: &Truth, real: usize) -> Option<Errors> {
    let real = &truth.people[real].joints_camera_m;
    let mm = |p: Vec3| p.as_dvec3() * 1000.0;
    let root_mm = mm(person.root_camera_m).distance(mm(*real.first()?));
    // By name, for estimators have other joints; the root is the first of both.
    let names = &truth.topology.skeleton.names;
    let (found, real): (Vec<DVec3>, Vec<DVec3>) = result
        .skeleton
        .names
        .iter()
        .zip(&person.joints_camera_m)
        .filter_map(|(name, &joint)| Some((mm(joint), mm(real[names.iter().position(|n| n == name)?]))))
        .unzip();
    let mpjpe_mm = metrics::mpjpe(&found, &real, 0).ok()?;
    let pa_mpjpe_mm = metrics::pa_mpjpe(&found, &real).ok()?;
    Some(Errors { mpjpe_mm, pa_mpjpe_mm, root_mm })
}
