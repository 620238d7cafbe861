//! A pose in the words of anatomy: angles of joints in degrees, each within its limits. Any mean of two postures is one
//! too, so motions are blended here.

use std::ops::{Index, IndexMut};

use glam::{Quat, Vec3};

use super::random::Random;

/// Left and right.
pub const SIDES: [usize; 2] = [0, 1];

/// An angle of the trunk. Forward, to the person's left, and turned to the left are positive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the names say it
pub enum Trunk {
    Pitch,
    Roll,
    SpineFlex,
    SpineBend,
    SpineTwist,
    NeckFlex,
    NeckBend,
    NeckTwist,
}

/// An angle of an arm or a leg. Forward, outward and upward are positive; so is the foot pointed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the names say it
pub enum Limb {
    HipFlex,
    HipOut,
    HipTwist,
    Knee,
    Ankle,
    Collar,
    ArmFlex,
    ArmOut,
    ArmTwist,
    Elbow,
    Wrist,
    Fingers,
}

const TRUNK: usize = 8;
const LIMB: usize = 12;
const ANGLES: usize = TRUNK + 2 * LIMB;

/// Smallest and largest angle of each joint, degrees: a healthy adult, without the extremes of gymnasts. The first two
/// are the lean of the whole body.
const TRUNK_LIMITS: [[f32; 2]; TRUNK] = [
    [-40.0, 60.0],
    [-35.0, 35.0],
    [-25.0, 75.0],
    [-30.0, 30.0],
    [-40.0, 40.0],
    [-35.0, 40.0],
    [-30.0, 30.0],
    [-65.0, 65.0],
];
const LIMB_LIMITS: [[f32; 2]; LIMB] = [
    [-25.0, 115.0],
    [-12.0, 45.0],
    [-30.0, 35.0],
    [0.0, 135.0],
    [-28.0, 40.0],
    [-8.0, 25.0],
    [-45.0, 175.0],
    [5.0, 120.0],
    [-90.0, 60.0],
    [0.0, 145.0],
    [-45.0, 45.0],
    [0.0, 50.0],
];

/// Angles of all joints, degrees. [`Posture::default`] stands upright with hanging arms.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Posture([f32; ANGLES]);

impl Default for Posture {
    fn default() -> Self {
        let mut upright = Self([0.0; ANGLES]);
        for side in SIDES {
            upright[(side, Limb::HipOut)] = 3.0;
            upright[(side, Limb::Knee)] = 2.0;
            upright[(side, Limb::ArmOut)] = 13.0;
            upright[(side, Limb::Elbow)] = 12.0;
            upright[(side, Limb::Fingers)] = 12.0;
        }
        upright
    }
}

impl Index<Trunk> for Posture {
    type Output = f32;

    fn index(&self, angle: Trunk) -> &f32 {
        &self.0[angle as usize]
    }
}

impl IndexMut<Trunk> for Posture {
    fn index_mut(&mut self, angle: Trunk) -> &mut f32 {
        &mut self.0[angle as usize]
    }
}

impl Index<(usize, Limb)> for Posture {
    type Output = f32;

    fn index(&self, (side, angle): (usize, Limb)) -> &f32 {
        &self.0[TRUNK + side * LIMB + angle as usize]
    }
}

impl IndexMut<(usize, Limb)> for Posture {
    fn index_mut(&mut self, (side, angle): (usize, Limb)) -> &mut f32 {
        &mut self.0[TRUNK + side * LIMB + angle as usize]
    }
}

fn limits(at: usize) -> [f32; 2] {
    if at < TRUNK { TRUNK_LIMITS[at] } else { LIMB_LIMITS[(at - TRUNK) % LIMB] }
}

impl Posture {
    /// Any posture within the limits: most joints not far from rest, some anywhere.
    pub fn random(random: &mut Random) -> Self {
        let rest = Self::default();
        // Some people are calm, some are acrobats.
        let wild = random.between(0.15, 0.7);
        let mut posture = rest;
        for (at, angle) in posture.0.iter_mut().enumerate() {
            let [low, high] = limits(at);
            let anywhere = random.between(low, high);
            let share = if random.chance(wild) { 1.0 } else { random.between(0.0, 0.4) };
            // The whole body leans far only now and then.
            let share = if at < 2 { share * random.unit() } else { share };
            *angle = rest.0[at] + (anywhere - rest.0[at]) * share;
        }
        // Legs of people who stand bend together more often than not.
        if random.chance(0.5) {
            for limb in [Limb::HipFlex, Limb::Knee] {
                let both = posture[(0, limb)];
                posture[(1, limb)] += (both - posture[(1, limb)]) * random.between(0.5, 1.0);
            }
        }
        posture
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

    /// No angle is beyond its limit.
    #[cfg(test)]
    pub fn is_possible(&self) -> bool {
        self.0.iter().enumerate().all(|(at, angle)| (limits(at)[0]..=limits(at)[1]).contains(angle))
    }

    /// The largest difference of an angle, degrees.
    #[cfg(test)]
    pub fn fastest(&self, other: &Self) -> f32 {
        self.0.iter().zip(&other.0).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
    }

    /// The axis-angles of SMPL's 24 joints, radians, in the body's own axes (x left, y up, z forward, arms stretched out
    /// at rest). `heading` turns the whole.
    pub fn pose_rad(&self, heading: Quat) -> [Vec3; 24] {
        let x = |degrees: f32| Quat::from_rotation_x(degrees.to_radians());
        let y = |degrees: f32| Quat::from_rotation_y(degrees.to_radians());
        let z = |degrees: f32| Quat::from_rotation_z(degrees.to_radians());
        let mut pose = [Quat::IDENTITY; 24];
        pose[0] = heading * z(-self[Trunk::Roll]) * x(self[Trunk::Pitch]);
        let third = |angle: Trunk| self[angle] / 3.0;
        for joint in [3, 6, 9] {
            pose[joint] = y(third(Trunk::SpineTwist)) * z(-third(Trunk::SpineBend)) * x(third(Trunk::SpineFlex));
        }
        for joint in [12, 15] {
            let half = |angle: Trunk| self[angle] / 2.0;
            pose[joint] = y(half(Trunk::NeckTwist)) * z(-half(Trunk::NeckBend)) * x(half(Trunk::NeckFlex));
        }
        for side in SIDES {
            let a = |limb: Limb| self[(side, limb)];
            let left = [
                (1, x(-a(Limb::HipFlex)) * z(a(Limb::HipOut)) * y(a(Limb::HipTwist))),
                (4, x(a(Limb::Knee))),
                (7, x(a(Limb::Ankle))),
                (13, z(a(Limb::Collar))),
                (16, x(-a(Limb::ArmFlex)) * z(a(Limb::ArmOut) - 90.0) * x(a(Limb::ArmTwist))),
                (18, y(-a(Limb::Elbow))),
                (20, z(-a(Limb::Wrist))),
                (22, z(-a(Limb::Fingers))),
            ];
            for (joint, turn) in left {
                if side == 0 {
                    pose[joint] = turn;
                } else {
                    // The mirror image in the plane of symmetry.
                    pose[joint + 1] = Quat::from_xyzw(turn.x, -turn.y, -turn.z, turn.w);
                }
            }
        }
        pose.map(Quat::to_scaled_axis)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_postures_and_their_means_are_possible_and_differ() {
        let mut random = Random::new(1);
        let all: Vec<_> = (0..300).map(|_| Posture::random(&mut random)).collect();
        for pair in all.windows(2) {
            assert!(pair[0].is_possible() && pair[0].blend(&pair[1], 0.3).is_possible());
        }
        // Elbows are seen straight and bent, arms down and up.
        for (limb, low, high) in [(Limb::Elbow, 10.0, 120.0), (Limb::ArmFlex, -20.0, 140.0), (Limb::Knee, 5.0, 100.0)] {
            let seen = |wanted: &dyn Fn(f32) -> bool| all.iter().any(|p| wanted(p[(1, limb)]));
            assert!(seen(&|a| a < low) && seen(&|a| a > high), "{limb:?}");
        }
    }

    #[test]
    fn right_is_the_mirror_image_of_left() {
        let mut p = Posture::default();
        for limb in [Limb::HipFlex, Limb::ArmFlex, Limb::ArmTwist, Limb::Elbow] {
            (p[(0, limb)], p[(1, limb)]) = (30.0, 30.0);
        }
        let pose = p.pose_rad(Quat::IDENTITY);
        for left in [1, 4, 7, 13, 16, 18, 20, 22] {
            let (l, r) = (pose[left], pose[left + 1]);
            assert!((r - Vec3::new(l.x, -l.y, -l.z)).length() < 1e-6, "joint {left}");
        }
    }
}
