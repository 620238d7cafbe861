//! The stand-in right hand put together: mesh, skin, joints, shape components.

use anyhow::{Context, Result};
use glam::DVec3;

use super::field::Field;
use super::grid::{self, Grid, RawMesh};
use super::hand_shape::{self, HandJoints, WRIST_STUMP_M};
use super::remesh::remesh;
use super::{StandIn, skin};
use crate::body::Family;

/// Parents of MANO's joints: the wrist, then three each of index, middle, little and ring finger and of the thumb.
pub const PARENTS: [Option<usize>; 16] = {
    let mut parents = [None; 16];
    let mut joint = 1;
    while joint < 16 {
        parents[joint] = Some(if joint % 3 == 1 { 0 } else { joint - 1 });
        joint += 1;
    }
    parents
};

/// What the shape components change when they grow.
pub const SHAPE_NAMES: [&str; 10] = [
    "size",
    "finger length",
    "finger thickness",
    "palm length",
    "palm width",
    "palm thickness",
    "thumb length",
    "thumb thickness",
    "little finger length",
    "wrist thickness",
];

/// Builds the hand: as a left one, as it is drawn, then mirrored.
pub fn build() -> Result<StandIn> {
    let HandJoints { joints, tips } = hand_shape::joints();
    let mesh = left_mesh(&joints);

    let owner: Vec<usize> = mesh.vertices.iter().map(|&p| owner(&joints, &tips, p)).collect();
    let weights = skin::diffuse(&mesh, 16, &owner, 5);
    let influences: Vec<skin::Influences> = weights.iter().map(|w| skin::strongest(w, |j| j)).collect();

    let mut regressor = Vec::with_capacity(16);
    for joint in 0..16 {
        let limb = |j: usize| j == joint || Some(j) == PARENTS[joint] || (joint != 0 && PARENTS[j] == Some(joint));
        let belongs = |v: &u32| influences[*v as usize].iter().any(|&(j, w)| limb(j) && w > 0.3);
        let candidates: Vec<u32> = (0..mesh.vertices.len() as u32).filter(belongs).collect();
        let row = skin::regress(&mesh.vertices, &candidates, joints[joint])
            .with_context(|| format!("the joint {joint} of the stand-in hand lies outside of its finger"))?;
        regressor.push(row);
    }

    let landmarks = tips.map(|tip| {
        let distance = |v: &u32| (mesh.vertices[*v as usize] - tip).length_squared();
        (0..mesh.vertices.len() as u32).min_by(|a, b| distance(a).total_cmp(&distance(b))).unwrap_or(0)
    });
    let right = |p: DVec3| DVec3::new(-p.x, p.y, p.z);
    let shapes = mesh
        .vertices
        .iter()
        .zip(&influences)
        .map(|(&p, influences)| std::array::from_fn(|c| right(displacement(c, p, influences, &joints))))
        .collect();
    Ok(StandIn {
        family: Family::Mano,
        vertices_m: mesh.vertices.iter().map(|&p| right(p) + hand_shape::TEMPLATE_WRIST_M).collect(),
        faces: mesh.faces.iter().map(|&[a, b, c]| [a, c, b]).collect(),
        influences,
        parents: PARENTS.to_vec(),
        regressor,
        shape_names: SHAPE_NAMES,
        shapes,
        landmarks,
        mirrored_vertex: Vec::new(),
    })
}

fn left_mesh(joints: &[DVec3; 16]) -> RawMesh {
    let x = grid::lines(-WRIST_STUMP_M - 0.02, &[(0.21, 0.0055)]);
    let y = grid::lines(-0.05, &[(0.045, 0.0045)]);
    let depth = vec![[-0.075, 0.095]; x.len()];
    let grid = Grid { x, y, z_count: 38, depth };
    let field = Field { parts: hand_shape::parts(DVec3::ZERO, 0.0078, true), ..Field::default() };
    let raw = grid::march(&field, &grid);
    let mesh = remesh(&field, raw, false, 6);

    // Sorted by the joint that vertices belong to, then from the wrist out.
    let HandJoints { tips, .. } = hand_shape::joints();
    let mut order: Vec<usize> = (0..mesh.vertices.len()).collect();
    order.sort_by(|&a, &b| {
        let (p, q) = (mesh.vertices[a], mesh.vertices[b]);
        let of_joint = owner(joints, &tips, p).cmp(&owner(joints, &tips, q));
        of_joint.then(p.x.total_cmp(&q.x)).then(p.y.total_cmp(&q.y)).then(p.z.total_cmp(&q.z))
    });
    let mut new_index = vec![0; order.len()];
    for (new, &old) in order.iter().enumerate() {
        new_index[old] = new as u32;
    }
    let mut faces: Vec<[u32; 3]> = mesh.faces.iter().map(|f| f.map(|v| new_index[v as usize])).collect();
    faces.sort_unstable();
    RawMesh { vertices: order.iter().map(|&v| mesh.vertices[v]).collect(), faces }
}

/// First joint of each finger, and where its tip is among the tips.
const FINGERS: [(usize, usize); 5] = [(1, 1), (4, 2), (7, 4), (10, 3), (13, 0)];

/// The joint that moves a point of the skin before weights are smoothed: that of the nearest finger, the palm counting
/// as the bones from the wrist to the knuckles.
fn owner(joints: &[DVec3; 16], tips: &[DVec3; 5], p: DVec3) -> usize {
    let mut nearest = (f64::INFINITY, 0);
    for (first, tip) in FINGERS {
        let chain = [joints[0], joints[first], joints[first + 1], joints[first + 2], tips[tip]];
        for i in 0..4 {
            let (a, b) = (chain[i], chain[i + 1]);
            let t = ((p - a).dot(b - a) / (b - a).length_squared()).clamp(0.0, 1.0);
            let d = (p - (a + (b - a) * t)).length();
            if d < nearest.0 {
                nearest = (d, if i == 0 { 0 } else { first + i - 1 });
            }
        }
    }
    nearest.1
}

/// Metres by which a vertex moves for one unit of a shape component, about one standard deviation among people.
fn displacement(component: usize, p: DVec3, influences: &skin::Influences, joints: &[DVec3; 16]) -> DVec3 {
    let by_bone = |moved: &dyn Fn(usize) -> DVec3| -> DVec3 { influences.iter().map(|&(j, w)| moved(j) * w).sum() };
    let base = |j: usize| if j == 0 { 0 } else { (j - 1) / 3 * 3 + 1 };
    let is_thumb = |j: usize| j >= 13;
    // Growth along the finger from its base.
    let longer = |j: usize| {
        let first = base(j);
        let direction = (joints[first + 2] - joints[first]).normalize();
        direction * (p - joints[first]).dot(direction)
    };
    let thicker = |j: usize| {
        let last = base(j) + 2;
        let (a, b) = if j == last { (joints[j - 1], joints[j]) } else { (joints[j], joints[j + 1]) };
        p - (a + (b - a) * ((p - a).dot(b - a) / (b - a).length_squared()))
    };
    // What the palm does carries the fingers with it.
    let with_palm =
        |moved: &dyn Fn(DVec3) -> DVec3| by_bone(&|j| if j == 0 { moved(p) } else { moved(joints[base(j)]) });
    let from_stump = |q: DVec3| (q.x / 0.09).clamp(0.0, 1.0);
    match component {
        0 => 0.040 * p,
        1 => by_bone(&|j| if j == 0 || is_thumb(j) { DVec3::ZERO } else { 0.040 * longer(j) }),
        2 => by_bone(&|j| if j == 0 || is_thumb(j) { DVec3::ZERO } else { 0.040 * thicker(j) }),
        3 => with_palm(&|q| DVec3::X * (0.030 * q.x)),
        4 => with_palm(&|q| DVec3::Z * (0.030 * q.z * from_stump(q))),
        5 => by_bone(&|j| if j == 0 { DVec3::Y * (0.040 * p.y * from_stump(p)) } else { DVec3::ZERO }),
        6 => by_bone(&|j| if is_thumb(j) { 0.040 * longer(j) } else { DVec3::ZERO }),
        7 => by_bone(&|j| if is_thumb(j) { 0.040 * thicker(j) } else { DVec3::ZERO }),
        8 => by_bone(&|j| if (7..10).contains(&j) { 0.050 * longer(j) } else { DVec3::ZERO }),
        _ => {
            let t = (1.0 - (p.x / 0.06).max(0.0)).max(0.0);
            DVec3::new(0.0, p.y, p.z) * (0.040 * t * t)
        }
    }
}
