//! The form of the body: joints and surface in the rest pose, drawn in metres above the ground. The left side (+x) is
//! drawn; the right one is its mirror image. Faces +z, arms along x, palms down.
//!
//! Proportions are those of the books for artists: seven and a half heads tall, the crotch near half the height, the
//! arms spanning the height.

use glam::DVec3;

use super::field::{Axis, Field, Fine, Part, Primitive, Station};
use super::hand_shape;

/// Joints of the middle and of the left side above the ground, with SMPL's index. Knees and hips lie off the middle of
/// the limb, towards where it folds, so that the skin there is not crushed.
pub const JOINTS: [(usize, [f64; 3]); 15] = [
    (0, [0.0, 0.940, -0.004]),    // pelvis
    (1, [0.088, 0.872, 0.006]),   // left hip
    (3, [0.0, 1.050, -0.012]),    // lower spine
    (4, [0.100, 0.478, -0.012]),  // left knee
    (6, [0.0, 1.180, -0.014]),    // middle spine
    (7, [0.106, 0.078, -0.030]),  // left ankle
    (9, [0.0, 1.245, -0.012]),    // upper spine
    (10, [0.125, 0.026, 0.092]),  // left ball of the foot
    (12, [0.0, 1.462, -0.024]),   // neck
    (13, [0.068, 1.378, -0.020]), // left collar bone
    (15, [0.0, 1.545, 0.002]),    // head
    (16, [0.172, 1.398, -0.022]), // left shoulder
    (18, [0.432, 1.396, -0.030]), // left elbow
    (20, WRIST),                  // left wrist
    (22, [0.772, 1.392, -0.016]), // left hand
];

/// Left wrist.
pub const WRIST: [f64; 3] = [0.682, 1.396, -0.018];

/// Nose, left eye, left ear: points on the surface.
pub const FACE: [[f64; 3]; 3] = [[0.0, 1.573, 0.122], [0.032, 1.606, 0.094], [0.083, 1.588, -0.004]];

/// The surface of the body.
pub fn field() -> Field {
    let mut parts = vec![torso(), head(), ear(), breast_and_shoulder(), buttock(), leg(), foot(), arm()];
    parts.extend(hand_shape::parts(WRIST.into(), 0.0092, false).into_iter().map(Part::mirrored));
    let fine = |centre: [f64; 3], reach: f64, edge: f64| Fine { centre: centre.into(), reach, edge };
    Field {
        parts,
        fine: vec![
            fine([0.0, 1.570, 0.105], 0.06, 0.0080),    // nose
            fine([0.032, 1.603, 0.088], 0.045, 0.0075), // eye
            fine([0.0, 1.539, 0.094], 0.05, 0.0075),    // mouth
            fine([0.083, 1.590, -0.005], 0.04, 0.012),  // ear
            fine([0.150, 1.330, -0.01], 0.11, 0.024),   // armpit
            fine([0.0, 0.80, 0.0], 0.14, 0.022),        // crotch
            fine([0.432, 1.396, -0.03], 0.09, 0.022),   // elbow
            fine([0.100, 0.478, 0.0], 0.11, 0.026),     // knee
        ],
        ground: Some((0.0, 0.012)),
    }
}

/// A section that is the same on both sides of the middle: `[y, half width, back, front, boxiness]`.
fn middle([y, half, back, front, boxiness]: [f64; 5]) -> Station {
    [y, -half, half, back, front, boxiness]
}

fn torso() -> Part {
    let stations = [
        [0.815, 0.105, -0.080, 0.052, 0.1],
        [0.850, 0.150, -0.098, 0.078, 0.1],
        [0.895, 0.164, -0.104, 0.090, 0.1],
        [0.940, 0.159, -0.100, 0.096, 0.1],
        [0.990, 0.148, -0.088, 0.098, 0.1],
        [1.050, 0.134, -0.080, 0.096, 0.1],
        [1.110, 0.132, -0.083, 0.096, 0.1],
        [1.170, 0.139, -0.095, 0.101, 0.15],
        [1.240, 0.150, -0.108, 0.104, 0.2],
        [1.300, 0.158, -0.114, 0.102, 0.2],
        [1.350, 0.158, -0.112, 0.088, 0.2],
        [1.390, 0.140, -0.102, 0.064, 0.1],
        [1.425, 0.100, -0.088, 0.040, 0.0],
        [1.455, 0.065, -0.076, 0.024, 0.0],
    ]
    .map(middle);
    let neck = [
        [1.400, 0.060, -0.074, 0.030, 0.0],
        [1.440, 0.057, -0.071, 0.031, 0.0],
        [1.480, 0.053, -0.064, 0.040, 0.0],
        [1.520, 0.052, -0.060, 0.045, 0.0],
        [1.560, 0.052, -0.060, 0.045, 0.0],
    ]
    .map(middle);
    Part::new(
        0.02,
        vec![
            Primitive::loft(Axis::Y, &stations, [0.03, 0.02], 0.02, 0.042),
            Primitive::loft(Axis::Y, &neck, [0.02, 0.02], 0.03, 0.028),
            // Groove of the spine.
            Primitive::cone([0.0, 1.02, -0.115], 0.014, [0.0, 1.30, -0.138], 0.014, 0.03, 0.04).carving(),
        ],
    )
}

fn head() -> Part {
    let skin = 0.024;
    Part::new(
        0.02,
        vec![
            Primitive::ellipsoid([0.0, 1.630, -0.006], [0.0765, 0.0905, 0.0960], 0.02, 0.027),
            // Face from brow to chin, narrowing.
            Primitive::cone([0.0, 1.600, 0.030], 0.062, [0.0, 1.535, 0.052], 0.038, 0.03, skin),
            Primitive::ellipsoid([0.0, 1.5105, 0.0775], [0.021, 0.017, 0.019], 0.022, skin),
            // Jaw.
            Primitive::cone([0.045, 1.548, 0.008], 0.018, [0.010, 1.512, 0.072], 0.014, 0.022, skin),
            Primitive::cone([-0.045, 1.548, 0.008], 0.018, [-0.010, 1.512, 0.072], 0.014, 0.022, skin),
            // Cheek bones.
            Primitive::ellipsoid([0.044, 1.580, 0.058], [0.020, 0.016, 0.022], 0.02, skin),
            Primitive::ellipsoid([-0.044, 1.580, 0.058], [0.020, 0.016, 0.022], 0.02, skin),
            // Brows.
            Primitive::cone([0.010, 1.618, 0.086], 0.009, [0.046, 1.618, 0.068], 0.009, 0.012, skin),
            Primitive::cone([-0.010, 1.618, 0.086], 0.009, [-0.046, 1.618, 0.068], 0.009, 0.012, skin),
            // Eye sockets and eyes.
            Primitive::ellipsoid([0.031, 1.602, 0.104], [0.016, 0.011, 0.018], 0.012, skin).carving(),
            Primitive::ellipsoid([-0.031, 1.602, 0.104], [0.016, 0.011, 0.018], 0.012, skin).carving(),
            Primitive::ellipsoid([0.031, 1.601, 0.082], [0.0125, 0.0115, 0.0125], 0.004, 0.012),
            Primitive::ellipsoid([-0.031, 1.601, 0.082], [0.0125, 0.0115, 0.0125], 0.004, 0.012),
            // Nose: bridge, tip and wings.
            Primitive::cone([0.0, 1.610, 0.086], 0.008, [0.0, 1.575, 0.107], 0.0100, 0.010, 0.012),
            Primitive::cone([0.0095, 1.569, 0.097], 0.0085, [-0.0095, 1.569, 0.097], 0.0085, 0.010, 0.012),
            // Lips.
            Primitive::ellipsoid([0.0, 1.5455, 0.0850], [0.0245, 0.0070, 0.0130], 0.007, 0.013),
            Primitive::ellipsoid([0.0, 1.5325, 0.0840], [0.0205, 0.0075, 0.0130], 0.003, 0.013),
        ],
    )
}

fn ear() -> Part {
    Part::new(0.012, vec![Primitive::ellipsoid([0.077, 1.590, -0.006], [0.0105, 0.030, 0.018], 0.01, 0.011)]).mirrored()
}

fn breast_and_shoulder() -> Part {
    Part::new(
        0.035,
        vec![
            // Chest muscle.
            Primitive::ellipsoid([0.080, 1.312, 0.060], [0.080, 0.055, 0.037], 0.03, 0.036),
            // From the neck to the shoulder: the slope of the trapezius.
            Primitive::cone([0.030, 1.470, -0.036], 0.030, [0.150, 1.420, -0.030], 0.032, 0.03, 0.034),
            // Shoulder blade.
            Primitive::ellipsoid([0.090, 1.320, -0.080], [0.055, 0.075, 0.034], 0.04, 0.040),
            // Side of the back, down from the armpit.
            Primitive::cone([0.135, 1.320, -0.030], 0.036, [0.112, 1.180, -0.020], 0.030, 0.04, 0.038),
        ],
    )
    .mirrored()
}

fn buttock() -> Part {
    Part::new(0.03, vec![Primitive::ellipsoid([0.074, 0.868, -0.062], [0.078, 0.082, 0.066], 0.03, 0.036)]).mirrored()
}

fn leg() -> Part {
    // Height, inner and outer edge, back and front.
    let stations = [
        [0.060, 0.070, 0.142, -0.068, 0.010, 0.1],
        [0.100, 0.071, 0.137, -0.066, 0.012, 0.0],
        [0.150, 0.068, 0.141, -0.068, 0.020, 0.0],
        [0.220, 0.061, 0.149, -0.080, 0.030, 0.0],
        [0.300, 0.052, 0.157, -0.093, 0.040, 0.0],
        [0.360, 0.049, 0.158, -0.092, 0.045, 0.0],
        [0.420, 0.051, 0.153, -0.076, 0.050, 0.05],
        [0.478, 0.049, 0.154, -0.060, 0.061, 0.1],
        [0.530, 0.043, 0.158, -0.062, 0.066, 0.05],
        [0.600, 0.032, 0.168, -0.072, 0.077, 0.0],
        [0.680, 0.020, 0.176, -0.083, 0.085, 0.0],
        [0.760, 0.011, 0.178, -0.091, 0.088, 0.0],
        [0.830, 0.012, 0.174, -0.088, 0.082, 0.0],
    ];
    Part::new(
        0.03,
        vec![
            Primitive::loft(Axis::Y, &stations, [0.02, 0.06], 0.02, 0.036),
            // Knee cap.
            Primitive::ellipsoid([0.102, 0.485, 0.044], [0.030, 0.034, 0.022], 0.03, 0.030),
            // Inner calf.
            Primitive::ellipsoid([0.086, 0.335, -0.050], [0.036, 0.085, 0.040], 0.03, 0.034),
        ],
    )
    .mirrored()
}

fn foot() -> Part {
    // Depth, inner and outer edge, sole and instep.
    let stations = [
        [-0.072, 0.080, 0.136, -0.006, 0.056, 0.3],
        [-0.030, 0.074, 0.142, -0.006, 0.088, 0.2],
        [0.010, 0.076, 0.148, -0.006, 0.086, 0.2],
        [0.050, 0.077, 0.160, -0.006, 0.064, 0.3],
        [0.090, 0.076, 0.172, -0.006, 0.045, 0.4],
        [0.120, 0.078, 0.176, -0.006, 0.034, 0.5],
        [0.145, 0.082, 0.172, -0.006, 0.028, 0.5],
    ];
    let toe = |x: f64, z: f64, r: f64| {
        Primitive::cone([x, r - 0.002, 0.120], r * 1.05, [x + (x - 0.11) * 0.1, r - 0.002, z], r, 0.010, 0.015)
    };
    Part::new(
        0.03,
        vec![
            Primitive::loft(Axis::Z, &stations, [0.022, 0.018], 0.01, 0.026),
            toe(0.0950, 0.172, 0.0165),
            toe(0.1265, 0.168, 0.0135),
            toe(0.1480, 0.158, 0.0125),
            toe(0.1650, 0.145, 0.0115),
            // Ankle bones.
            Primitive::ellipsoid([0.106, 0.082, -0.032], [0.039, 0.018, 0.018], 0.012, 0.026),
        ],
    )
    .mirrored()
}

fn arm() -> Part {
    // From the shoulder out: lower and upper edge, back and front.
    let stations = [
        [0.150, 1.330, 1.456, -0.080, 0.036, 0.0],
        [0.190, 1.334, 1.459, -0.080, 0.036, 0.0],
        [0.230, 1.339, 1.453, -0.076, 0.033, 0.0],
        [0.280, 1.345, 1.443, -0.073, 0.024, 0.0],
        [0.330, 1.350, 1.437, -0.070, 0.018, 0.0],
        [0.390, 1.355, 1.434, -0.070, 0.011, 0.0],
        [0.432, 1.357, 1.433, -0.070, 0.010, 0.05],
        [0.470, 1.355, 1.437, -0.069, 0.016, 0.0],
        [0.520, 1.357, 1.436, -0.066, 0.019, 0.0],
        [0.580, 1.364, 1.430, -0.058, 0.017, 0.0],
        [0.640, 1.374, 1.420, -0.050, 0.012, 0.1],
        [0.682, 1.377, 1.415, -0.046, 0.010, 0.1],
    ];
    Part::new(0.045, vec![Primitive::loft(Axis::X, &stations, [0.04, 0.015], 0.03, 0.031)]).mirrored()
}

/// A point of the drawing in the frame of the template: SMPL's origin is in the chest, not at the root joint.
pub fn template_from_ground(p: DVec3) -> DVec3 {
    p - DVec3::new(0.0, 1.17, 0.0)
}
