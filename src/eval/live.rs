//! Errors of one frame while it is on the screen: found people against the true ones.

use super::compare::{CommonJoints, mm, pairs};
use super::metrics;
use crate::result::FrameResult;

/// Errors of one person, millimetres, over the joints that `eval` compares.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
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
    let Some(common) = CommonJoints::of(&result.skeleton, &truth.topology.skeleton) else { return errors };
    for (found, real) in pairs(&result.people, truth) {
        let (person, real) = (&result.people[found], &truth.people[real]);
        let Some(joints) = common.in_mm(&person.joints_camera_m, &real.joints_camera_m) else { continue };
        let mpjpe = metrics::mpjpe(&joints.found, &joints.real, 0);
        let pa_mpjpe = metrics::pa_mpjpe(&joints.found, &joints.real);
        let root_mm = mm(person.root_camera_m).distance(joints.real[0]);
        errors[found] = mpjpe.and_then(|mpjpe_mm| Ok(Errors { mpjpe_mm, pa_mpjpe_mm: pa_mpjpe?, root_mm })).ok();
    }
    errors
}
