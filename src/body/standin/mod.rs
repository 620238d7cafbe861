//! A body and a hand of our own, for everyone who has no SMPL or MANO: made by this code alone, in their structure, so
//! that whatever handles those handles these.
//!
//! ```text
//! drawing (shape) -> implicit surface (field) -> first mesh (grid) -> good mesh (remesh) -> skin, joints, components
//! ```
//!
//! The frame is SMPL's: metres, x to the person's left, y up, z forward; arms stretched out, palms down; the origin in
//! the chest. The hand is a right one, in MANO's frame: fingers along -x, the back of the hand up, the thumb forward.
//!
//! Every machine makes the same mesh to the bit, since weights of networks are bound to it: see `field`.

mod body;
mod body_shape;
mod field;
mod grid;
mod hand;
mod hand_shape;
mod remesh;
mod skin;

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use glam::DVec3;

use super::BodyModel;
use super::arrays::{Array, Arrays};
use super::model::LANDMARKS;
use super::topology::Family;

/// A stand-in as it is made.
#[derive(Clone, Debug, PartialEq)]
pub struct StandIn {
    /// Body or hand.
    pub family: Family,
    /// Vertices of the mean shape in the rest pose, in metres.
    pub vertices_m: Vec<DVec3>,
    /// Triangles, counter-clockwise seen from outside.
    pub faces: Vec<[u32; 3]>,
    /// Skinning: for each vertex up to four (joint, weight) pairs whose weights sum to 1; unused ones weigh 0.
    pub influences: Vec<[(usize, f64); 4]>,
    /// Parents of the pose joints; a parent comes before its children.
    pub parents: Vec<Option<usize>>,
    /// Pose joints from vertices: for each joint (vertex, weight) pairs; weights are positive and sum to 1.
    pub regressor: Vec<Vec<(u32, f64)>>,
    /// What each shape component changes when it grows.
    pub shape_names: [&'static str; 10],
    /// How far every vertex moves, in metres, for one unit of each shape component: about one standard deviation among
    /// people.
    pub shapes: Vec<[DVec3; 10]>,
    /// Vertices that are joints: nose, left and right eye, left and right ear; or the tips of thumb, index, middle, ring
    /// and little finger.
    pub landmarks: [u32; 5],
    /// For each vertex its image on the other side; empty for the hand.
    pub mirrored_vertex: Vec<u32>,
}

/// The body: 24 joints of SMPL, and the face.
pub fn body() -> Result<StandIn> {
    body::build().context("the stand-in body could not be made")
}

/// The body or the hand, ready to be posed. Made once, which takes a third of a second; everyone shares it.
pub fn model(family: Family) -> Result<Arc<BodyModel>> {
    static MADE: [Mutex<Option<Arc<BodyModel>>>; 2] = [Mutex::new(None), Mutex::new(None)];
    // Poisoned, it holds nothing.
    let mut made = MADE[family as usize].lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(model) = &*made {
        return Ok(Arc::clone(model));
    }
    let stand_in = match family {
        Family::Smpl => body()?,
        Family::Mano => hand()?,
    };
    let model = Arc::new(stand_in.model()?);
    *made = Some(Arc::clone(&model));
    Ok(model)
}

/// The right hand: 16 joints of MANO, and the finger tips.
pub fn hand() -> Result<StandIn> {
    hand::build().context("the stand-in hand could not be made")
}

impl StandIn {
    /// The same as a body model, ready to be posed.
    pub fn model(&self) -> Result<BodyModel> {
        BodyModel::from_arrays(&self.arrays())
    }

    /// Pose joints of the mean shape at rest, in metres.
    pub fn joints_m(&self) -> Vec<DVec3> {
        let joint = |row: &Vec<(u32, f64)>| row.iter().map(|&(v, w)| self.vertices_m[v as usize] * w).sum();
        self.regressor.iter().map(joint).collect()
    }

    /// The entries of SMPL's and MANO's files, dense, with one of our own for the landmarks.
    pub(super) fn arrays(&self) -> Arrays {
        let (vertices, joints) = (self.vertices_m.len(), self.parents.len());
        let mut weights = vec![0.0; vertices * joints];
        for (row, influences) in weights.chunks_exact_mut(joints).zip(&self.influences) {
            for &(joint, weight) in influences {
                row[joint] += weight;
            }
        }
        let mut regressor = vec![0.0; joints * vertices];
        for (row, entries) in regressor.chunks_exact_mut(vertices).zip(&self.regressor) {
            for &(vertex, weight) in entries {
                row[vertex as usize] = weight;
            }
        }
        // [vertex][axis][component]
        let shapes = self.shapes.iter().flat_map(|shapes| (0..3).flat_map(move |axis| shapes.map(|d| d[axis])));
        let parents = self.parents.iter().map(|parent| parent.map_or(f64::from(u32::MAX), |p| p as f64));
        let pose_features = 9 * (joints - 1);
        let mut arrays = Arrays::new();
        let mut put = |name: &str, shape: &[usize], data: Vec<f64>| {
            arrays.insert(name.to_owned(), Array { shape: shape.to_vec(), data });
        };
        put("v_template", &[vertices, 3], self.vertices_m.iter().flat_map(DVec3::to_array).collect());
        put("f", &[self.faces.len(), 3], self.faces.iter().flatten().map(|&v| f64::from(v)).collect());
        put("weights", &[vertices, joints], weights);
        put("J_regressor", &[joints, vertices], regressor);
        put("shapedirs", &[vertices, 3, 10], shapes.collect());
        put("posedirs", &[vertices, 3, pose_features], vec![0.0; vertices * 3 * pose_features]);
        put("kintree_table", &[2, joints], parents.chain((0..joints).map(|j| j as f64)).collect());
        put(LANDMARKS, &[5], self.landmarks.map(f64::from).to_vec());
        if self.family == Family::Mano {
            // A hand at rest is flat, and a pose is axis-angles as they are.
            let angles = 3 * (joints - 1);
            let identity = (0..angles * angles).map(|i| if i / angles == i % angles { 1.0 } else { 0.0 });
            put("hands_mean", &[angles], vec![0.0; angles]);
            put("hands_components", &[angles, angles], identity.collect());
        }
        arrays
    }
}
