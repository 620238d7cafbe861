//! Body models: SMPL, MANO. Topology, joint regressors, skinning. Knows no images.

use crate::result::Skeleton;

/// The part of a body model that does not move.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Topology {
    /// Vertices of the mesh.
    pub vertex_count: usize,
    /// Triangles, counter-clockwise seen from outside.
    pub faces: Vec<[u32; 3]>,
    /// The joints that the mesh carries.
    pub skeleton: Skeleton,
    /// Joints from vertices: for each joint, (vertex, weight) pairs whose weights sum to 1.
    pub joint_regressor: Vec<Vec<(u32, f32)>>,
}
