//! wip
pub mod body;
pub mod body_shape;
pub mod field;
pub mod grid;
pub mod hand;
pub mod hand_shape;
pub mod remesh;
pub mod skin;

use glam::DVec3;

/// A stand-in as it is made, before it becomes a body model.
#[derive(Clone, Debug)]
pub struct Parts {
    /// Template, in metres.
    pub vertices_m: Vec<DVec3>,
    /// Triangles, counter-clockwise seen from outside.
    pub faces: Vec<[u32; 3]>,
    /// Skinning weights.
    pub influences: Vec<skin::Influences>,
    /// Parents of the pose joints.
    pub parents: Vec<Option<usize>>,
    /// Pose joints from vertices.
    pub regressor: Vec<Vec<(u32, f64)>>,
    /// Displacement of every vertex for one unit of each shape component, in metres.
    pub shapes: Vec<[DVec3; 10]>,
    /// Vertices that are joints: nose, eyes and ears, or finger tips.
    pub landmarks: [u32; 5],
    /// For each vertex the one on the other side.
    pub mirrored_vertex: Option<Vec<u32>>,
}
