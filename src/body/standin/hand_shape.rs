//! The form of the hand: joints and surface, as a left hand with its wrist joint at the origin, the fingers along +x,
//! the back of the hand up (+y) and the thumb forward (+z); metres. The right hand is its mirror image.

use glam::DVec3;

use super::field::{Axis, Part, Primitive};

/// Joints and fingertips, in MANO's order: wrist; three each of index, middle, little and ring finger and of the thumb;
/// then the tips of thumb, index, middle, ring and little finger.
pub struct HandJoints {
    pub joints: [DVec3; 16],
    pub tips: [DVec3; 5],
}

/// One finger: base, knuckles and tip, with the radius of the flesh at each.
struct Finger {
    points: [[f64; 3]; 4],
    radii: [f64; 4],
}

/// Index, middle, little, ring, thumb: the order of MANO's joints.
const FINGERS: [Finger; 5] = [
    Finger {
        points: [
            [0.0900, 0.0010, 0.0255],
            [0.1310, -0.0030, 0.0312],
            [0.1555, -0.0080, 0.0340],
            [0.1740, -0.0130, 0.0355],
        ],
        radii: [0.0114, 0.0098, 0.0089, 0.0080],
    },
    Finger {
        points: [
            [0.0930, 0.0025, 0.0035],
            [0.1385, -0.0010, 0.0048],
            [0.1665, -0.0062, 0.0055],
            [0.1860, -0.0118, 0.0058],
        ],
        radii: [0.0116, 0.0100, 0.0090, 0.0081],
    },
    Finger {
        points: [
            [0.0780, -0.0030, -0.0360],
            [0.1090, -0.0066, -0.0455],
            [0.1275, -0.0105, -0.0508],
            [0.1440, -0.0145, -0.0548],
        ],
        radii: [0.0100, 0.0086, 0.0078, 0.0070],
    },
    Finger {
        points: [
            [0.0865, 0.0005, -0.0175],
            [0.1285, -0.0030, -0.0225],
            [0.1550, -0.0080, -0.0252],
            [0.1735, -0.0130, -0.0268],
        ],
        radii: [0.0110, 0.0094, 0.0086, 0.0077],
    },
    Finger {
        points: [
            [0.0230, -0.0080, 0.0240],
            [0.0570, -0.0130, 0.0520],
            [0.0830, -0.0155, 0.0660],
            [0.1060, -0.0175, 0.0745],
        ],
        radii: [0.0150, 0.0124, 0.0108, 0.0092],
    },
];

/// The joints of the hand.
pub fn joints() -> HandJoints {
    let mut joints = [DVec3::ZERO; 16];
    for (i, finger) in FINGERS.iter().enumerate() {
        for k in 0..3 {
            joints[1 + 3 * i + k] = finger.points[k].into();
        }
    }
    let tip = |i: usize| {
        let finger = &FINGERS[i];
        let (last, end) = (DVec3::from(finger.points[2]), DVec3::from(finger.points[3]));
        end + (end - last).normalize() * finger.radii[3]
    };
    HandJoints { joints, tips: [tip(4), tip(0), tip(1), tip(3), tip(2)] }
}

/// How far the arm goes on behind the wrist of a hand of its own.
pub const WRIST_STUMP_M: f64 = 0.045;

/// Where the right hand's wrist is in its template: as in MANO's, the origin is in the palm.
pub const TEMPLATE_WRIST_M: DVec3 = DVec3::new(0.095, 0.006, 0.006);

/// The surface, with the wrist joint at `wrist`. `edge` is the length of the fingers' edges, in metres. A hand of its
/// own ends in a rounded stump.
pub fn parts(wrist: DVec3, edge: f64, with_stump: bool) -> Vec<Part> {
    let at = |[x, y, z]: [f64; 3]| [wrist.x + x, wrist.y + y, wrist.z + z];
    let palm_edge = edge * 1.5;
    let stations = [
        [-0.020, -0.0190, 0.0190, -0.0270, 0.0270, 0.15],
        [0.000, -0.0180, 0.0180, -0.0280, 0.0275, 0.20],
        [0.025, -0.0185, 0.0170, -0.0330, 0.0290, 0.25],
        [0.055, -0.0170, 0.0160, -0.0400, 0.0330, 0.30],
        [0.080, -0.0130, 0.0145, -0.0430, 0.0370, 0.30],
        [0.095, -0.0110, 0.0120, -0.0420, 0.0360, 0.25],
    ];
    let stations = stations.map(|[s, u0, u1, v0, v1, boxiness]| {
        [s + wrist.x, u0 + wrist.y, u1 + wrist.y, v0 + wrist.z, v1 + wrist.z, boxiness]
    });
    let mut palm = vec![
        Primitive::loft(Axis::X, &stations, [0.02, 0.012], 0.01, palm_edge),
        // Heel of the thumb and of the little finger.
        Primitive::cone(at([0.018, -0.012, 0.018]), 0.016, at([0.055, -0.014, 0.042]), 0.0125, 0.012, palm_edge),
        Primitive::cone(at([0.020, -0.011, -0.022]), 0.012, at([0.062, -0.009, -0.031]), 0.010, 0.012, palm_edge),
    ];
    // Hollow of the palm.
    palm.push(Primitive::ellipsoid(at([0.060, -0.030, 0.000]), [0.030, 0.016, 0.018], 0.012, palm_edge).carving());
    if with_stump {
        let arm = [
            [-WRIST_STUMP_M, -0.0215, 0.0215, -0.0290, 0.0300, 0.1],
            [-0.020, -0.0190, 0.0190, -0.0280, 0.0280, 0.1],
            [0.000, -0.0180, 0.0180, -0.0270, 0.0270, 0.1],
        ];
        palm.push(Primitive::loft(Axis::X, &arm, [0.008, 0.01], 0.006, palm_edge));
    }
    let mut parts = vec![Part::new(0.022, palm)];
    for finger in &FINGERS {
        let bones = (0..3).map(|k| {
            Primitive::cone(
                at(finger.points[k]),
                finger.radii[k],
                at(finger.points[k + 1]),
                finger.radii[k + 1],
                0.003,
                edge,
            )
        });
        parts.push(Part::new(0.010, bones.collect()));
    }
    parts
}
