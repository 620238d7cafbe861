//! The stand-in body and hand: their meshes, their form, how they move, and the files that they are written to.

#[path = "standin/files.rs"]
mod files;
#[path = "standin/form.rs"]
mod form;
#[path = "standin/mesh.rs"]
mod mesh;
#[path = "standin/motion.rs"]
mod motion;

use std::sync::LazyLock;

use glam::DVec3;
use lixelscope::body::BodyModel;
use lixelscope::body::standin::{self, StandIn};

static BODY: LazyLock<StandIn> = LazyLock::new(|| standin::body().unwrap());
static HAND: LazyLock<StandIn> = LazyLock::new(|| standin::hand().unwrap());
static BODY_MODEL: LazyLock<BodyModel> = LazyLock::new(|| BODY.model().unwrap());
static HAND_MODEL: LazyLock<BodyModel> = LazyLock::new(|| HAND.model().unwrap());

/// How often a closed mesh winds around a point: 1 inside, 0 outside (van Oosterom and Strackee's solid angles).
fn winding(vertices: &[DVec3], faces: &[[u32; 3]], p: DVec3) -> f64 {
    let angle = |face: &[u32; 3]| {
        let [a, b, c] = face.map(|v| vertices[v as usize] - p);
        let [la, lb, lc] = [a, b, c].map(DVec3::length);
        let bottom = la * lb * lc + a.dot(b) * lc + b.dot(c) * la + c.dot(a) * lb;
        2.0 * a.dot(b.cross(c)).atan2(bottom)
    };
    faces.iter().map(angle).sum::<f64>() / (4.0 * std::f64::consts::PI)
}

/// Vertices with a shape, unposed.
fn shaped(stand_in: &StandIn, shape: &[f64]) -> Vec<DVec3> {
    let moved = |v: usize| shape.iter().zip(&stand_in.shapes[v]).map(|(beta, d)| *d * *beta).sum::<DVec3>();
    (0..stand_in.vertices_m.len()).map(|v| stand_in.vertices_m[v] + moved(v)).collect()
}
