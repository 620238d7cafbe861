//! A pose of the right hand in the words of anatomy: angles of joints in degrees, each within its limits; the gestures
//! that people make, and anything between them.
//!
//! The hand's axes are MANO's: the fingers along -x, the back of the hand up (+y), the thumb forward (+z). An angle is 0
//! where the hand lies flat with its fingers side by side.

use anyhow::{Result, ensure};
use glam::{Quat, Vec3};

use super::actor::Capsule;
use super::random::Random;
use crate::body::Topology;

/// Thumb, index, middle, ring and little finger: the order of the skeleton.
pub const FINGERS: usize = 5;
/// Joints of a finger from its root to its tip.
pub const BONES: usize = 4;

/// The first pose joint of each finger, in MANO's order.
const POSE_JOINTS: [usize; FINGERS] = [13, 1, 4, 10, 7];

/// Half the thickness of the flesh at each joint of a finger, metres.
const RADII_M: [[f32; BONES]; FINGERS] = [
    [0.015, 0.0124, 0.0108, 0.0092],
    [0.0114, 0.0098, 0.0089, 0.008],
    [0.0116, 0.01, 0.009, 0.0081],
    [0.011, 0.0094, 0.0086, 0.0077],
    [0.01, 0.0086, 0.0078, 0.007],
];
/// The same of the palm.
const PALM_RADIUS_M: f32 = 0.0135;
/// So far flesh gives way.
const SOFT_M: f32 = 0.005;

/// The hand at rest: where its joints are, and about which axes they turn.
#[derive(Clone, Debug)]
pub struct Anatomy {
    /// Metres.
    pub wrist: Vec3,
    /// From the root of each finger to its tip, metres.
    pub fingers: [[Vec3; BONES]; FINGERS],
    /// Towards the nail, of each finger.
    pub dorsal: [Vec3; FINGERS],
    axes: [Axes; FINGERS],
}

/// Of a finger: along it, and about what it bends. Forward, for the thumb, is before the palm.
#[derive(Clone, Copy, Debug, Default)]
struct Axes {
    along: Vec3,
    forward: Vec3,
    bend: Vec3,
}

impl Anatomy {
    /// From the joints of the mean shape.
    pub fn new(topology: &Topology, template_m: &[Vec3]) -> Result<Self> {
        let joints = topology.joints(template_m).unwrap_or_default();
        ensure!(joints.len() == 1 + FINGERS * BONES, "{} joints are not those of a hand", joints.len());
        let fingers = std::array::from_fn(|finger| joints_of(&joints, finger));
        let axes = fingers.map(|finger: [Vec3; BONES]| {
            let along = (finger[1] - finger[0]).normalize_or_zero();
            let forward = Vec3::Y.cross(along).normalize_or_zero();
            Axes { along, forward, bend: forward }
        });
        let mut anatomy = Self { wrist: joints[0], fingers, dorsal: [Vec3::Y; FINGERS], axes };
        // A thumb's nail looks to the side: it bends across the palm.
        let [thumb, ..] = &mut anatomy.axes;
        thumb.bend = (thumb.forward * 0.5 - Vec3::Y * 0.866).normalize_or_zero();
        anatomy.dorsal[0] = thumb.bend.cross(thumb.along).normalize_or_zero() * -1.0;
        Ok(anatomy)
    }
}

/// Those of a finger, of the joints of the skeleton.
fn joints_of(joints: &[Vec3], finger: usize) -> [Vec3; BONES] {
    std::array::from_fn(|joint| joints[1 + finger * BONES + joint])
}

/// Of the thumb: in the plane of the palm away from the fingers, before the palm, about itself towards the fingers, and
/// the bends of its two joints.
type Thumb = [f32; 5];
/// Of a finger: towards the thumb's side, and the bends of its three joints.
type Finger = [f32; 4];

const ANGLES: usize = 5 + 4 * 4;

/// Smallest and largest angle of each joint, degrees: a healthy adult.
const THUMB_LIMITS: [[f32; 2]; 5] = [[-35.0, 20.0], [-5.0, 50.0], [0.0, 50.0], [-5.0, 55.0], [-10.0, 70.0]];
const FINGER_LIMITS: [[f32; 2]; 4] = [[-18.0, 18.0], [-20.0, 85.0], [0.0, 100.0], [-5.0, 65.0]];

/// Angles of all joints of a hand, degrees.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HandPosture([f32; ANGLES]);

const fn gesture(thumb: Thumb, fingers: [Finger; 4]) -> HandPosture {
    let mut angles = [0.0; ANGLES];
    let mut at = 0;
    while at < ANGLES {
        angles[at] = if at < 5 { thumb[at] } else { fingers[(at - 5) / 4][(at - 5) % 4] };
        at += 1;
    }
    HandPosture(angles)
}

/// A finger that is stretched out, or bent into a fist.
const STRAIGHT: Finger = [0.0, 5.0, 5.0, 3.0];
const BENT: Finger = [0.0, 75.0, 95.0, 45.0];

/// What people do with a hand.
pub const GESTURES: [HandPosture; 13] = [
    RELAXED,
    // Open, and spread.
    gesture([0.0, 5.0, 0.0, 0.0, 0.0], [STRAIGHT; 4]),
    gesture(
        [18.0, 0.0, 0.0, 0.0, -5.0],
        [[14.0, 0.0, 3.0, 2.0], [2.0, 0.0, 3.0, 2.0], [-8.0, 0.0, 3.0, 2.0], [-18.0, 0.0, 3.0, 2.0]],
    ),
    // Fist; thumb up.
    gesture([-19.0, 49.0, 45.0, 32.0, 27.0], [BENT; 4]),
    gesture([15.0, 0.0, 0.0, -5.0, -5.0], [BENT; 4]),
    // Point; two, three and four fingers.
    gesture([-33.0, 30.0, 19.0, 10.0, 13.0], [STRAIGHT, BENT, BENT, BENT]),
    gesture([-35.0, 23.0, 10.0, 34.0, 0.0], [[12.0, 5.0, 5.0, 3.0], [-8.0, 5.0, 5.0, 3.0], BENT, BENT]),
    gesture([-20.0, 40.0, 25.0, 20.0, 25.0], [[10.0, 3.0, 5.0, 3.0], STRAIGHT, [-8.0, 5.0, 5.0, 3.0], BENT]),
    gesture([-28.0, 38.0, 30.0, 25.0, 30.0], [STRAIGHT; 4]),
    // Pinch.
    gesture(
        [-9.0, 35.0, 0.0, 9.0, 0.0],
        [[0.0, 45.0, 50.0, 25.0], [0.0, 35.0, 35.0, 15.0], [0.0, 28.0, 30.0, 12.0], [2.0, 22.0, 25.0, 10.0]],
    ),
    // Claw; a grip around a bottle.
    gesture(
        [5.0, 25.0, 0.0, 10.0, 45.0],
        [[10.0, 5.0, 70.0, 45.0], [2.0, 5.0, 70.0, 45.0], [-6.0, 5.0, 70.0, 45.0], [-14.0, 5.0, 70.0, 45.0]],
    ),
    gesture(
        [0.0, 42.0, 15.0, 15.0, 20.0],
        [[4.0, 38.0, 50.0, 28.0], [0.0, 42.0, 55.0, 30.0], [-2.0, 45.0, 55.0, 30.0], [-4.0, 48.0, 50.0, 30.0]],
    ),
    // Thumb and little finger.
    gesture([16.0, 0.0, 0.0, -5.0, -5.0], [BENT, BENT, BENT, [-12.0, 5.0, 5.0, 3.0]]),
];

/// A hand that does nothing.
const RELAXED: HandPosture = gesture(
    [-8.0, 18.0, 5.0, 12.0, 12.0],
    [[2.0, 25.0, 30.0, 12.0], [0.0, 32.0, 36.0, 15.0], [-1.0, 38.0, 40.0, 18.0], [-3.0, 42.0, 40.0, 18.0]],
);

fn limits(at: usize) -> [f32; 2] {
    if at < 5 { THUMB_LIMITS[at] } else { FINGER_LIMITS[(at - 5) % 4] }
}

impl HandPosture {
    /// A gesture, something between two, or any posture within the limits.
    pub fn random(random: &mut Random) -> Self {
        let first = random.pick(&GESTURES);
        let mut posture = match random.below(10) {
            0..4 => first,
            4..7 => first.blend(&random.pick(&GESTURES), random.unit()),
            _ => Self::any(random),
        };
        for angle in &mut posture.0 {
            *angle += 5.0 * random.normal();
        }
        posture.limited()
    }

    /// Each finger as it likes.
    fn any(random: &mut Random) -> Self {
        let mut posture = Self(std::array::from_fn(|at| {
            let [low, high] = limits(at);
            random.between(low, high)
        }));
        for finger in posture.0[5..].as_chunks_mut::<4>().0 {
            let [side, root, middle, last] = finger;
            // The joints of a finger bend together more often than not, the last one with the one before it; bent
            // fingers cannot be spread.
            if random.chance(0.7) {
                let bent = random.unit();
                *root = -10.0 + 90.0 * bent + 15.0 * random.normal();
                *middle = 100.0 * bent + 15.0 * random.normal();
            }
            *last = 0.6 * *middle + 10.0 * random.normal();
            *side *= 1.0 - 0.8 * (*root / 80.0).clamp(0.0, 1.0);
        }
        posture.limited()
    }

    /// The mean of two postures, `share` of the other.
    pub fn blend(&self, other: &Self, share: f32) -> Self {
        let mut mean = *self;
        for (a, b) in mean.0.iter_mut().zip(&other.0) {
            *a += (b - *a) * share;
        }
        mean
    }

    /// Every angle within its limits.
    pub fn limited(mut self) -> Self {
        for (at, angle) in self.0.iter_mut().enumerate() {
            let [low, high] = limits(at);
            *angle = angle.clamp(low, high);
        }
        self
    }

    /// The axis-angles of MANO's 16 joints, radians; `orientation` turns the whole.
    pub fn pose_rad(&self, anatomy: &Anatomy, orientation: Quat) -> [Vec3; 16] {
        let about = |axis: Vec3, degrees: f32| Quat::from_axis_angle(axis, degrees.to_radians());
        let mut pose = [orientation; 16];
        for (finger, (axes, &joint)) in anatomy.axes.iter().zip(&POSE_JOINTS).enumerate() {
            let [root, middle, last] = if finger == 0 {
                let [out, forward, twist, middle, last] = std::array::from_fn(|at| self.0[at]);
                let root = about(Vec3::Y, out) * about(axes.forward, forward) * about(axes.along, -twist);
                [root, about(axes.bend, middle), about(axes.bend, last)]
            } else {
                let [side, root, middle, last] = std::array::from_fn(|at| self.0[1 + 4 * finger + at]);
                [about(Vec3::Y, side) * about(axes.bend, root), about(axes.bend, middle), about(axes.bend, last)]
            };
            pose[joint..joint + 3].copy_from_slice(&[root, middle, last]);
        }
        pose.map(Quat::to_scaled_axis)
    }
}

/// A finger is in another one or in the palm, told by the joints of the skeleton.
pub fn touches_itself(joints_m: &[Vec3]) -> bool {
    let capsule = |finger: usize, bone: usize| {
        let (joints, radii) = (joints_of(joints_m, finger), RADII_M[finger]);
        let (from, mut to) = (joints[bone], joints[bone + 1]);
        if bone == BONES - 2 {
            // The last joint is the tip of the flesh.
            to += (from - to).normalize_or_zero() * radii[BONES - 1];
        }
        Capsule { from, to, radius: (radii[bone] + radii[bone + 1]) * 0.5 }
    };
    let fingers: [[Capsule; BONES - 1]; FINGERS] =
        std::array::from_fn(|finger| std::array::from_fn(|bone| capsule(finger, bone)));
    let palm =
        fingers[1..].iter().map(|finger| Capsule { from: joints_m[0], to: finger[0].from, radius: PALM_RADIUS_M });
    let palm: Vec<Capsule> = palm.collect();
    let into = |a: &Capsule, b: &Capsule| a.distance(b) < -SOFT_M;
    fingers.iter().enumerate().any(|(at, finger)| {
        // The first bones of fingers, and the thumb's first two, are at home beside each other and at the palm.
        let free = if at == 0 { 2 } else { 1 };
        let others = fingers[at + 1..].iter().flatten();
        finger[free..].iter().any(|bone| palm.iter().chain(others.clone()).any(|other| into(bone, other)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::body::{Family, standin};

    /// The joints of a posture of the mean hand.
    fn joints(posture: &HandPosture) -> Vec<Vec3> {
        let body = standin::model(Family::Mano).unwrap();
        let anatomy = Anatomy::new(body.topology(), body.template_m()).unwrap();
        body.pose(&posture.pose_rad(&anatomy, Quat::IDENTITY), &[], Vec3::ZERO).unwrap().joints_m
    }

    #[test]
    fn gestures_are_what_their_names_say_and_possible() {
        let [relaxed, open, spread, fist, thumb_up, point, ..] = GESTURES.map(|gesture| {
            assert_eq!(gesture, gesture.limited());
            let joints = joints(&gesture);
            assert!(!touches_itself(&joints), "{gesture:?}");
            joints
        });
        let tip = |joints: &[Vec3], finger: usize| joints[BONES * (finger + 1)];
        let reach = |joints: &[Vec3], finger: usize| tip(joints, finger).distance(joints[0]);
        for finger in 1..FINGERS {
            // Palms are below: fingers bend down, and a fist is less than half as long as the hand.
            assert!(tip(&relaxed, finger).y < tip(&open, finger).y - 0.02);
            assert!(reach(&fist, finger) < 0.62 * reach(&open, finger), "{}", reach(&fist, finger));
        }
        assert!(tip(&spread, 1).distance(tip(&spread, 4)) > tip(&open, 1).distance(tip(&open, 4)) + 0.03);
        assert!(reach(&point, 1) > 0.95 * reach(&open, 1) && reach(&point, 2) < 0.62 * reach(&open, 2));
        assert!(tip(&thumb_up, 0).distance(tip(&fist, 0)) > 0.04);
        let pinch = joints(&GESTURES[9]);
        // The pads touch, not the ends of the tips.
        assert!(tip(&pinch, 0).distance(tip(&pinch, 1)) < 0.025, "{}", tip(&pinch, 0).distance(tip(&pinch, 1)));
    }

    #[test]
    fn random_postures_are_of_all_sorts_and_many_are_possible() {
        let mut random = Random::new(1);
        let all: Vec<Vec<Vec3>> = (0..300).map(|_| joints(&HandPosture::random(&mut random))).collect();
        let possible = all.iter().filter(|joints| !touches_itself(joints)).count();
        assert!(possible > 150, "{possible} of 300");
        for finger in 0..FINGERS {
            let reaches: Vec<f32> = all.iter().map(|joints| joints[BONES * (finger + 1)].distance(joints[0])).collect();
            let [least, most] = [f32::min, f32::max].map(|f| reaches.iter().copied().reduce(f).unwrap());
            assert!(most > least * if finger == 0 { 1.25 } else { 1.7 }, "finger {finger}: {least} to {most}");
        }
    }
}
