//! One frame as one JSON object: the lines of `frames.jsonl`.
//!
//! Pixels are frame pixels, metres camera space (x right, y down, z forward). `spread` has one `[x, y, z]` a joint, in
//! lixels: the standard deviation of that joint's heatmaps. A number that is not finite is written as `null`.

use std::collections::BTreeMap;

use glam::Vec3;
use serde::Serialize;

use crate::eval::live::{self, Errors};
use crate::result::{EstimatorKind, FrameResult, Person, RootSource, Stage};
use crate::space::Intrinsics;

/// One line of `frames.jsonl`.
#[derive(Debug, Serialize)]
pub struct FrameRecord<'a> {
    /// Index in the source.
    pub frame: u64,
    /// Time since the source was opened, or the frame's time stamp.
    pub captured_at_secs: f64,
    /// File that the frame was read from, where it has one of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<&'a str>,
    /// Frame width, pixels.
    pub width: u32,
    /// Frame height, pixels.
    pub height: u32,
    /// The camera that the metres belong to.
    pub intrinsics: Intrinsics,
    /// Which network ran.
    pub estimator: EstimatorKind,
    /// The detector ran on this frame.
    pub detector_ran: bool,
    /// Milliseconds per stage.
    pub timing_ms: BTreeMap<&'static str, f32>,
    /// People who are there in truth, seen or hidden, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub true_people: Option<usize>,
    /// The people.
    pub people: Vec<PersonRecord<'a>>,
}

/// One person in a [`FrameRecord`].
#[derive(Debug, Serialize)]
pub struct PersonRecord<'a> {
    /// Stable while the person is tracked.
    pub id: u32,
    /// The detector's score.
    pub score: f32,
    /// x, y, w, h.
    pub box_px: [f32; 4],
    /// The root joint.
    pub root_camera_m: [f32; 3],
    /// Where its distance comes from.
    pub root_source: RootSource,
    /// The joints.
    pub joints_camera_m: Vec<[f32; 3]>,
    /// Their names.
    pub joint_names: &'a [String],
    /// Their spread, in lixels.
    pub spread: Vec<[f32; 3]>,
    /// How far off this is, of somebody who is there in truth, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub errors: Option<Errors>,
    /// Axis-angle of the body model's joints, radians, where the parameter stage ran.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pose_rad: Option<Vec<[f32; 3]>>,
    /// Shape coefficients of the body model, likewise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shape: Option<&'a [f32]>,
}

fn arrays(points: &[Vec3]) -> Vec<[f32; 3]> {
    points.iter().map(Vec3::to_array).collect()
}

impl<'a> FrameRecord<'a> {
    /// What is written of a result.
    pub fn new(result: &'a FrameResult) -> Self {
        let (width, height) = result.frame.rgb.dimensions();
        Self {
            frame: result.frame.index,
            captured_at_secs: result.frame.captured_at.as_secs_f64(),
            name: result.frame.name.as_deref(),
            width,
            height,
            intrinsics: result.intrinsics,
            estimator: result.estimator,
            detector_ran: result.detector_ran,
            timing_ms: Stage::ALL.iter().map(|&stage| (stage.name(), result.timing.ms(stage))).collect(),
            true_people: result.frame.truth.as_ref().map(|truth| truth.people.len()),
            people: (result.people.iter().zip(live::errors(result)))
                .map(|(person, errors)| PersonRecord::new(person, errors, &result.skeleton.names))
                .collect(),
        }
    }
}

impl<'a> PersonRecord<'a> {
    fn new(person: &'a Person, errors: Option<Errors>, joint_names: &'a [String]) -> Self {
        let params = person.mesh.as_ref().and_then(|mesh| mesh.params.as_ref());
        Self {
            id: person.id,
            score: person.score,
            box_px: person.rect.into(),
            root_camera_m: person.root_camera_m.to_array(),
            root_source: person.root_source,
            joints_camera_m: arrays(&person.joints_camera_m),
            joint_names,
            spread: arrays(&person.joint_spread_lixel),
            errors,
            pose_rad: params.map(|params| arrays(&params.pose_rad)),
            shape: params.map(|params| params.shape.as_slice()),
        }
    }
}
