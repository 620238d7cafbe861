//! What people do: postures that follow from time, smooth everywhere, each motion starting and ending at rest.

use std::f32::consts::{PI, TAU};

use super::posture::{Limb, Posture, SIDES, Trunk};
use super::random::Random;

/// Something that people do. All but [`Motion::Walk`] on the spot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the names say it
pub enum Motion {
    Idle,
    Walk,
    Wave,
    Squat,
    ReachUp,
    ReachDown,
    ReachForward,
    Turn,
    Stretch,
    Akimbo,
    Clap,
    Telephone,
    Point,
    LookAround,
    Lunge,
}

/// What one can do on the spot.
pub const ON_THE_SPOT: [Motion; 14] = [
    Motion::Idle,
    Motion::Wave,
    Motion::Squat,
    Motion::ReachUp,
    Motion::ReachDown,
    Motion::ReachForward,
    Motion::Turn,
    Motion::Stretch,
    Motion::Akimbo,
    Motion::Clap,
    Motion::Telephone,
    Motion::Point,
    Motion::LookAround,
    Motion::Lunge,
];

/// What one can do on a chair.
pub const SEATED: [Motion; 8] = [
    Motion::Idle,
    Motion::Wave,
    Motion::ReachUp,
    Motion::ReachForward,
    Motion::Clap,
    Motion::Telephone,
    Motion::Point,
    Motion::LookAround,
];

/// Metres of a double step.
pub const STRIDE_M: f32 = 1.3;

/// From 0 to 1 without a kink.
pub fn smooth(u: f32) -> f32 {
    let u = u.clamp(0.0, 1.0);
    u * u * (3.0 - 2.0 * u)
}

/// How one person does things.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    /// The arm that waves and points.
    side: usize,
    /// How far motions go, about 1.
    reach: f32,
    /// How fast they are, about 1.
    pace: f32,
    phase: f32,
}

impl Manner {
    /// A person's way.
    pub fn new(random: &mut Random) -> Self {
        Self {
            side: random.below(2),
            reach: random.between(0.7, 1.1),
            pace: random.between(0.75, 1.2),
            phase: random.between(0.0, TAU),
        }
    }
}

impl Motion {
    /// Seconds that it is done for.
    pub fn duration_secs(self, random: &mut Random) -> f32 {
        match self {
            Self::Walk => random.between(3.0, 8.0),
            Self::Idle | Self::LookAround => random.between(2.0, 4.0),
            _ => random.between(2.8, 5.0),
        }
    }

    /// Turns to the left in a whole motion, radians.
    pub fn turned_rad(self) -> f32 {
        if self == Self::Turn { TAU } else { 0.0 }
    }

    /// The posture `secs` after the start of a motion of `duration` seconds. `walked_m` is how far the person has come.
    pub fn posture(self, secs: f32, duration: f32, walked_m: f32, manner: &Manner) -> Posture {
        let Manner { side, reach, pace, phase } = *manner;
        // There and back again, with some time there.
        let there = smooth(secs / (0.3 * duration)) * smooth((duration - secs) / (0.3 * duration)) * reach.min(1.0);
        let beat = (TAU * pace * secs + phase).sin();
        let mut p = Self::standing(secs, manner);
        let to = |p: &mut Posture, side: usize, limb: Limb, degrees: f32| {
            p[(side, limb)] += (degrees - p[(side, limb)]) * there;
        };
        match self {
            Self::Idle => {}
            Self::Walk => Self::stride(&mut p, TAU * walked_m / STRIDE_M + phase, manner),
            Self::Wave => {
                to(&mut p, side, Limb::ArmOut, 75.0 + 25.0 * reach);
                to(&mut p, side, Limb::ArmTwist, -85.0);
                to(&mut p, side, Limb::Elbow, 65.0 + 28.0 * (TAU * 1.3 * pace * secs).sin());
                to(&mut p, side, Limb::Fingers, 0.0);
                p[Trunk::SpineBend] += 4.0 * there * if side == 0 { -1.0 } else { 1.0 };
            }
            Self::Squat => {
                let down = (0.5 - 0.5 * (TAU * secs / duration * 2.0).cos()) * reach;
                for s in SIDES {
                    p[(s, Limb::HipFlex)] += 95.0 * down;
                    p[(s, Limb::Knee)] += 105.0 * down;
                    p[(s, Limb::Ankle)] -= 23.0 * down;
                    p[(s, Limb::HipOut)] += 12.0 * down;
                    p[(s, Limb::ArmFlex)] += 80.0 * down;
                }
                p[Trunk::Pitch] += 13.0 * down;
                p[Trunk::SpineFlex] += 15.0 * down;
            }
            Self::ReachUp => {
                to(&mut p, side, Limb::ArmFlex, 165.0);
                to(&mut p, side, Limb::Collar, 20.0);
                to(&mut p, side, Limb::Elbow, 15.0 + 10.0 * beat);
                p[Trunk::NeckFlex] -= 22.0 * there;
                p[Trunk::SpineBend] += 8.0 * there * if side == 0 { -1.0 } else { 1.0 };
            }
            Self::ReachDown => {
                for s in SIDES {
                    to(&mut p, s, Limb::ArmFlex, 70.0);
                    to(&mut p, s, Limb::Knee, 25.0);
                    to(&mut p, s, Limb::HipFlex, 75.0);
                    to(&mut p, s, Limb::Ankle, -8.0);
                }
                p[Trunk::Pitch] += 42.0 * there;
                p[Trunk::SpineFlex] += 45.0 * there;
            }
            Self::ReachForward => {
                to(&mut p, side, Limb::ArmFlex, 88.0 + 6.0 * beat);
                to(&mut p, side, Limb::Elbow, 8.0);
                p[Trunk::SpineFlex] += 14.0 * there;
                p[Trunk::SpineTwist] += 18.0 * there * if side == 0 { -1.0 } else { 1.0 };
            }
            Self::Turn => {
                // Small steps on the spot.
                let phase = 2.0 * TAU * smooth(secs / duration);
                for (s, sign) in [(0, 1.0), (1, -1.0)] {
                    let up = (sign * phase.sin()).max(0.0);
                    p[(s, Limb::HipFlex)] += 14.0 * up;
                    p[(s, Limb::Knee)] += 28.0 * up;
                }
            }
            Self::Stretch => {
                for s in SIDES {
                    to(&mut p, s, Limb::ArmOut, 115.0);
                    to(&mut p, s, Limb::ArmFlex, 150.0 - 110.0 * reach.min(1.0));
                    to(&mut p, s, Limb::Collar, 18.0);
                    to(&mut p, s, Limb::Elbow, 20.0 + 15.0 * beat);
                }
                p[Trunk::SpineFlex] -= 12.0 * there;
                p[Trunk::SpineBend] += 12.0 * there * beat;
            }
            Self::Akimbo => {
                for s in SIDES {
                    to(&mut p, s, Limb::ArmOut, 48.0);
                    to(&mut p, s, Limb::ArmTwist, 55.0);
                    to(&mut p, s, Limb::ArmFlex, -12.0);
                    to(&mut p, s, Limb::Elbow, 95.0);
                }
                p[Trunk::SpineTwist] += 9.0 * there * beat;
            }
            Self::Clap => {
                let apart = 0.5 + 0.5 * (TAU * 1.6 * pace * secs).sin();
                for s in SIDES {
                    to(&mut p, s, Limb::ArmFlex, 52.0);
                    to(&mut p, s, Limb::ArmOut, 14.0 + 22.0 * apart);
                    to(&mut p, s, Limb::Elbow, 62.0 - 18.0 * apart);
                    to(&mut p, s, Limb::ArmTwist, 28.0);
                }
            }
            Self::Telephone => {
                to(&mut p, side, Limb::ArmFlex, 38.0);
                to(&mut p, side, Limb::ArmOut, 38.0);
                to(&mut p, side, Limb::ArmTwist, -55.0);
                to(&mut p, side, Limb::Elbow, 138.0);
                p[Trunk::NeckBend] += 9.0 * there * if side == 0 { 1.0 } else { -1.0 };
            }
            Self::Point => {
                to(&mut p, side, Limb::ArmFlex, 55.0);
                to(&mut p, side, Limb::ArmOut, 70.0 + 12.0 * beat);
                to(&mut p, side, Limb::Elbow, 6.0);
                p[Trunk::NeckTwist] += 32.0 * there * if side == 0 { 1.0 } else { -1.0 };
            }
            Self::LookAround => {
                let look = (TAU * secs / duration).sin();
                p[Trunk::NeckTwist] += 48.0 * look * reach;
                p[Trunk::SpineTwist] += 16.0 * look * reach;
            }
            Self::Lunge => {
                let other = 1 - side;
                to(&mut p, side, Limb::HipFlex, 72.0);
                to(&mut p, side, Limb::Knee, 78.0);
                to(&mut p, other, Limb::HipFlex, -22.0);
                to(&mut p, other, Limb::Knee, 30.0);
                to(&mut p, other, Limb::Ankle, 20.0);
                for s in SIDES {
                    to(&mut p, s, Limb::ArmOut, 70.0);
                }
            }
        }
        p.limited()
    }

    /// Standing is not standing still.
    fn standing(secs: f32, manner: &Manner) -> Posture {
        let slow = |hertz: f32, shift: f32| (TAU * hertz * manner.pace * secs + manner.phase * shift).sin();
        let mut p = Posture::default();
        p[Trunk::SpineFlex] += 1.5 + 1.2 * slow(0.27, 1.0);
        p[Trunk::SpineTwist] += 3.0 * slow(0.11, 2.0);
        p[Trunk::NeckTwist] += 9.0 * slow(0.13, 3.0);
        p[Trunk::NeckFlex] += 3.0 + 4.0 * slow(0.17, 5.0);
        p[Trunk::Roll] += 1.2 * slow(0.15, 1.7);
        for (side, sign) in [(0, 1.0), (1, -1.0)] {
            p[(side, Limb::ArmFlex)] += 4.0 * slow(0.19, 1.3) * sign;
            p[(side, Limb::Elbow)] += 5.0 * slow(0.23, 2.3 + sign);
        }
        p
    }

    /// A step of a walk: `phase` goes once around in a double step.
    fn stride(p: &mut Posture, phase: f32, manner: &Manner) {
        for (side, shift) in [(0, 0.0), (1, PI)] {
            let (leg, swing) = ((phase + shift).sin(), (phase + shift + 0.35).cos());
            p[(side, Limb::HipFlex)] += 4.0 + 25.0 * leg * manner.reach;
            p[(side, Limb::Knee)] += 4.0 + 52.0 * swing.max(0.0).powi(2);
            p[(side, Limb::Ankle)] += 8.0 * (phase + shift + 2.6).sin();
            p[(side, Limb::ArmFlex)] -= 21.0 * leg * manner.reach;
            p[(side, Limb::Elbow)] += 12.0 - 9.0 * leg;
        }
        p[Trunk::Pitch] += 2.5;
        p[Trunk::SpineTwist] += 5.0 * phase.sin();
    }

    /// The legs of someone who sits, over whatever the rest does.
    pub fn sit(p: &mut Posture, manner: &Manner) {
        let slant = 6.0 * manner.phase.cos();
        for side in SIDES {
            p[(side, Limb::HipFlex)] = 84.0;
            p[(side, Limb::Knee)] = 82.0 + slant;
            p[(side, Limb::Ankle)] = -slant.min(0.0) - 2.0;
            p[(side, Limb::HipOut)] = 7.0 + 6.0 * manner.reach;
            let hang = 1.0 - smooth((p[(side, Limb::ArmFlex)].abs() + p[(side, Limb::ArmOut)] - 15.0) / 40.0);
            p[(side, Limb::ArmFlex)] += 26.0 * hang;
            p[(side, Limb::Elbow)] += 42.0 * hang;
        }
        p[Trunk::SpineFlex] += 6.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_motion_is_smooth_possible_and_ends_at_rest() {
        let mut random = Random::new(3);
        for motion in ON_THE_SPOT.into_iter().chain([Motion::Walk]) {
            for _ in 0..10 {
                let manner = Manner::new(&mut random);
                let secs = motion.duration_secs(&mut random);
                let at = |t: f32| motion.posture(t, secs, 1.0 * t, &manner);
                let mut before = at(0.0);
                for i in 1..=200 {
                    let now = at(secs * i as f32 / 200.0);
                    assert!(now.is_possible(), "{motion:?}");
                    // No joint turns faster than a fast gesture.
                    let fastest = before.fastest(&now) / (secs / 200.0);
                    assert!(fastest < 900.0, "{motion:?}: {fastest} degrees a second");
                    before = now;
                }
                if motion != Motion::Walk {
                    let standing = Motion::standing(secs, &manner).limited();
                    assert!(at(secs).fastest(&standing) < 1.0, "{motion:?} does not end at rest");
                }
            }
        }
    }
}
