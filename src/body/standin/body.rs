//! The stand-in body put together: half a mesh and its mirror image, skin, joints, shape components.

use anyhow::{Context, Result};
use glam::DVec3;

use super::body_shape::{self, FACE, JOINTS};
use super::grid::{self, Grid, RawMesh};
use super::remesh::remesh;
use super::{StandIn, skin};
use crate::body::Family;

/// SMPL's joint on the other side.
pub const MIRRORED_JOINT: [usize; 24] =
    [0, 2, 1, 3, 5, 4, 6, 8, 7, 9, 11, 10, 12, 14, 13, 15, 17, 16, 19, 18, 21, 20, 23, 22];

/// Parents of SMPL's joints.
pub const PARENTS: [Option<usize>; 24] = {
    const P: [usize; 23] = [0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21];
    let mut parents = [None; 24];
    let mut i = 0;
    while i < 23 {
        parents[i + 1] = Some(P[i]);
        i += 1;
    }
    parents
};

/// What the shape components change when they grow.
pub const SHAPE_NAMES: [&str; 10] = [
    "stature",
    "weight",
    "leg length",
    "shoulder width",
    "hip width",
    "arm length",
    "head size",
    "chest",
    "belly",
    "limb thickness",
];

fn mirror(p: DVec3) -> DVec3 {
    DVec3::new(-p.x, p.y, p.z)
}

/// Joints above the ground, in SMPL's order.
fn joints() -> [DVec3; 24] {
    let mut joints = [DVec3::ZERO; 24];
    for (joint, at) in JOINTS {
        joints[joint] = at.into();
        joints[MIRRORED_JOINT[joint]] = mirror(at.into());
    }
    joints
}

/// Builds the body.
pub fn build() -> Result<StandIn> {
    let joints = joints();
    let (mesh, side) = whole(&half_mesh(), &joints);
    let mirrored_vertex = |v: u32| side.mirrored(v);

    // Diffusion rounds differently on the two sides; the left one is taken for both.
    let owner: Vec<usize> = mesh.vertices.iter().map(|&p| owner(&joints, p)).collect();
    let weights = skin::diffuse(&mesh, 24, &owner, 14);
    let mut influences: Vec<skin::Influences> = Vec::with_capacity(weights.len());
    for (v, weights) in weights.iter().enumerate() {
        let v = v as u32;
        influences.push(if v < side.middle {
            let even: Vec<f64> = (0..24).map(|j| (weights[j] + weights[MIRRORED_JOINT[j]]) * 0.5).collect();
            skin::strongest(&even, |j| MIRRORED_JOINT[j])
        } else if v < side.middle + side.left {
            skin::strongest(weights, |j| j)
        } else {
            influences[mirrored_vertex(v) as usize].map(|(j, w)| (MIRRORED_JOINT[j], w))
        });
    }

    let mut regressor = vec![Vec::new(); 24];
    for (joint, _) in JOINTS {
        // A joint's limb: what it or its parent moves.
        let limb = |j: usize| j == joint || Some(j) == PARENTS[joint] || PARENTS[j] == Some(joint);
        let middle = MIRRORED_JOINT[joint] == joint;
        let belongs = |v: &u32| {
            let on_side = middle || *v < side.middle + side.left;
            on_side && influences[*v as usize].iter().any(|&(j, w)| limb(j) && w > 0.3)
        };
        let candidates: Vec<u32> = (0..mesh.vertices.len() as u32).filter(belongs).collect();
        let row = skin::regress(&mesh.vertices, &candidates, joints[joint])
            .with_context(|| format!("the joint {joint} of the stand-in body lies outside of its limb"))?;
        if middle {
            regressor[joint] = evened(&row, mirrored_vertex);
        } else {
            regressor[MIRRORED_JOINT[joint]] = row.iter().map(|&(v, w)| (mirrored_vertex(v), w)).collect();
            regressor[joint] = row;
        }
    }

    let nearest = |target: DVec3| {
        let distance = |v: &u32| (mesh.vertices[*v as usize] - target).length_squared();
        (0..mesh.vertices.len() as u32).min_by(|a, b| distance(a).total_cmp(&distance(b))).unwrap_or(0)
    };
    let [nose, eye, ear] = FACE.map(|p| nearest(p.into()));

    let shapes = mesh
        .vertices
        .iter()
        .zip(&influences)
        .map(|(&p, influences)| std::array::from_fn(|c| displacement(c, p, influences, &joints)))
        .collect();
    Ok(StandIn {
        family: Family::Smpl,
        vertices_m: mesh.vertices.iter().map(|&p| body_shape::template_from_ground(p)).collect(),
        faces: mesh.faces,
        influences,
        parents: PARENTS.to_vec(),
        regressor,
        shape_names: SHAPE_NAMES,
        shapes,
        landmarks: [nose, eye, mirrored_vertex(eye), ear, mirrored_vertex(ear)],
        mirrored_vertex: (0..side.middle + 2 * side.left).map(mirrored_vertex).collect(),
    })
}

/// The half on x >= 0, above the ground.
fn half_mesh() -> RawMesh {
    let x = grid::lines(0.0, &[(0.19, 0.011), (0.66, 0.022), (0.90, 0.008)]);
    let y = grid::lines(-0.03, &[(0.06, 0.012), (1.34, 0.024), (1.45, 0.007), (1.74, 0.010)]);
    // From the torso's depth to the hand's.
    let depth = x.iter().map(|&x| {
        let t = ((x - 0.15) / 0.35).clamp(0.0, 1.0);
        [-0.16 + 0.07 * t, 0.23 - 0.15 * t]
    });
    let grid = Grid { depth: depth.collect(), x, y, z_count: 34 };
    let field = body_shape::field();
    let raw = grid::march(&field, &grid);
    remesh(&field, raw, true, 6)
}

/// How many vertices lie in the middle and on each side. They come in this order: middle, left, right, the right ones
/// in the order of the left ones.
struct Sides {
    middle: u32,
    left: u32,
}

impl Sides {
    fn mirrored(&self, v: u32) -> u32 {
        if v < self.middle {
            v
        } else if v < self.middle + self.left {
            v + self.left
        } else {
            v - self.left
        }
    }
}

/// Welds the half to its mirror image. Vertices are sorted: by the joint they belong to, then from the top down.
fn whole(half: &RawMesh, joints: &[DVec3; 24]) -> (RawMesh, Sides) {
    let key = |p: DVec3| (p.x > 0.0, owner(joints, p));
    let mut order: Vec<usize> = (0..half.vertices.len()).collect();
    order.sort_by(|&a, &b| {
        let (p, q) = (half.vertices[a], half.vertices[b]);
        key(p).cmp(&key(q)).then(q.y.total_cmp(&p.y)).then(p.x.total_cmp(&q.x)).then(p.z.total_cmp(&q.z))
    });
    let mut new_index = vec![0; order.len()];
    for (new, &old) in order.iter().enumerate() {
        new_index[old] = new as u32;
    }
    let mut vertices: Vec<DVec3> = order.iter().map(|&v| half.vertices[v]).collect();
    let middle = vertices.iter().filter(|p| p.x == 0.0).count() as u32;
    let side = Sides { middle, left: vertices.len() as u32 - middle };
    vertices.extend_from_within(middle as usize..);
    for p in &mut vertices[(middle + side.left) as usize..] {
        *p = mirror(*p);
    }
    let mut faces: Vec<[u32; 3]> = half.faces.iter().map(|f| f.map(|v| new_index[v as usize])).collect();
    faces.sort_unstable();
    let other: Vec<[u32; 3]> = faces.iter().map(|&[a, b, c]| [a, c, b].map(|v| side.mirrored(v))).collect();
    faces.extend(other);
    (RawMesh { vertices, faces }, side)
}

/// The joint that moves a point of the skin before weights are smoothed: limbs are cut by planes through their joints.
fn owner(joints: &[DVec3; 24], p: DVec3) -> usize {
    if p.x < 0.0 {
        return MIRRORED_JOINT[owner(joints, mirror(p))];
    }
    let beyond = |joint: usize, normal: [f64; 3]| (p - joints[joint]).dot(normal.into()) > 0.0;
    let is_arm = p.y > 1.25 && beyond(16, [1.0, 0.25, 0.0]);
    if is_arm {
        return match () {
            () if beyond(22, [0.9, 0.0, -0.3]) => 22,
            () if beyond(20, [1.0, 0.0, 0.0]) => 20,
            () if beyond(18, [1.0, 0.0, 0.0]) => 18,
            () => 16,
        };
    }
    if p.y < 1.0 && beyond(1, [0.42, -0.85, 0.30]) {
        return match () {
            () if p.y < 0.10 && beyond(10, [0.15, 0.0, 1.0]) => 10,
            () if beyond(7, [0.0, -0.85, 0.5]) => 7,
            () if beyond(4, [0.0, -1.0, 0.0]) => 4,
            () => 1,
        };
    }
    match () {
        () if beyond(15, [0.0, 0.84, 0.54]) => 15,
        () if beyond(12, [-0.3, 0.9, 0.42]) => 12,
        () if p.y > 1.29 && beyond(13, [1.0, 0.2, 0.0]) => 13,
        () if beyond(9, [0.0, 1.0, 0.0]) => 9,
        () if beyond(6, [0.0, 1.0, 0.0]) => 6,
        () if beyond(3, [0.0, 1.0, 0.0]) => 3,
        () => 0,
    }
}

/// A row of the regressor, made the same on both sides.
fn evened(row: &[(u32, f64)], mirrored_vertex: impl Fn(u32) -> u32) -> Vec<(u32, f64)> {
    let mut even = std::collections::BTreeMap::new();
    for &(v, w) in row {
        *even.entry(v).or_insert(0.0) += w * 0.5;
        *even.entry(mirrored_vertex(v)).or_insert(0.0) += w * 0.5;
    }
    even.into_iter().collect()
}

/// Metres by which a vertex moves for one unit of a shape component, about one standard deviation among people.
fn displacement(component: usize, p: DVec3, influences: &skin::Influences, joints: &[DVec3; 24]) -> DVec3 {
    // Parts move as their bones say; the skinning weights join them.
    let by_bone = |moved: &dyn Fn(usize) -> DVec3| -> DVec3 { influences.iter().map(|&(j, w)| moved(j) * w).sum() };
    // Away from the middle, on the side of a joint.
    let out = |j: usize| if joints[j].x < 0.0 { -1.0 } else { 1.0 };
    let hip = |j: usize| joints[1].x * out(j);
    let shoulder = |j: usize| joints[16].x * out(j);
    let from_axis = |j: usize, thickness: f64| thickness * radial(j, p, joints);
    match component {
        0 => 0.038 * (p - joints[0]),
        1 => {
            let girth = by_bone(&|j| {
                let thickness = match j {
                    0 | 3 => 0.080,
                    6 | 9 => 0.062,
                    1 | 2 => 0.070,
                    4 | 5 | 16 | 17 => 0.045,
                    13 | 14 | 18 | 19 => 0.030,
                    12 => 0.040,
                    _ => 0.010,
                };
                from_axis(j, thickness)
            });
            girth + DVec3::Z * (0.010 * bump(p, [0.0, 1.06, 0.10], [0.16, 0.20, 0.12]))
        }
        2 => by_bone(&|j| match j {
            1 | 2 | 4 | 5 => DVec3::Y * (0.035 * (p.y - joints[1].y)),
            7 | 8 | 10 | 11 => DVec3::Y * (0.035 * (joints[7].y - joints[1].y)),
            _ => DVec3::ZERO,
        }),
        3 => by_bone(&|j| match j {
            16..=23 => DVec3::X * (0.011 * out(j)),
            13 | 14 => DVec3::X * (0.011 * p.x / joints[16].x),
            9 => DVec3::X * (0.045 * p.x),
            6 => DVec3::X * (0.025 * p.x),
            _ => DVec3::ZERO,
        }),
        4 => by_bone(&|j| match j {
            0 => DVec3::X * (0.050 * p.x),
            1 | 2 => DVec3::X * (0.050 * hip(j) + 0.030 * (p.x - hip(j))),
            4 | 5 | 7 | 8 | 10 | 11 => DVec3::X * (0.050 * hip(j)),
            3 => DVec3::X * (0.020 * p.x),
            _ => DVec3::ZERO,
        }),
        5 => by_bone(&|j| match j {
            16..=19 => DVec3::X * (0.035 * (p.x - shoulder(j))),
            20..=23 => {
                let wrist = joints[20].x * out(j);
                DVec3::X * (0.035 * (wrist - shoulder(j)) + 0.015 * (p.x - wrist))
            }
            _ => DVec3::ZERO,
        }),
        6 => by_bone(&|j| if j == 15 { 0.025 * (p - joints[15]) } else { DVec3::ZERO }),
        7 => {
            let forward = bump(p.with_x(p.x.abs()), [0.080, 1.295, 0.100], [0.085, 0.100, 0.090]);
            let all_round = by_bone(&|j| if j == 9 || j == 6 { from_axis(j, 0.015) } else { DVec3::ZERO });
            DVec3::Z * (0.008 * forward) + all_round
        }
        8 => {
            DVec3::Z * (0.011 * bump(p, [0.0, 1.065, 0.10], [0.17, 0.17, 0.13]))
                + by_bone(&|j| if j == 3 { from_axis(j, 0.015) } else { DVec3::ZERO })
        }
        _ => by_bone(&|j| match j {
            1 | 2 | 4 | 5 => from_axis(j, 0.035),
            16..=19 => from_axis(j, 0.045),
            13 | 14 => from_axis(j, 0.015),
            _ => DVec3::ZERO,
        }),
    }
}

/// From the axis of a joint's bone to `p`. The bones of the torso are upright and those of the arms level.
fn radial(joint: usize, p: DVec3, joints: &[DVec3; 24]) -> DVec3 {
    let child = (0..24).find(|&c| PARENTS[c] == Some(joint) && (joint != 0 || c == 3) && (joint != 9 || c == 12));
    let a = joints[joint];
    let b = child.map_or(a, |c| joints[c]);
    let axis = b - a;
    let t = if axis == DVec3::ZERO { 0.0 } else { (p - a).dot(axis) / axis.length_squared() };
    p - (a + axis * t)
}

/// A smooth bump: 1 in the centre, 0 from the radii on.
fn bump(p: DVec3, centre: [f64; 3], radii: [f64; 3]) -> f64 {
    let t = 1.0 - ((p - DVec3::from(centre)) / DVec3::from(radii)).length_squared();
    if t > 0.0 { t * t } else { 0.0 }
}
