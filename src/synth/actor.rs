//! A person of a scene: a body, its looks, and what it does at any time.

use std::f32::consts::{PI, TAU};

use anyhow::Result;
use glam::{Mat3, Quat, Vec2, Vec3};

use super::looks::Looks;
use super::motion::{Manner, Motion, ON_THE_SPOT, SEATED, smooth};
use super::posture::{Posture, SIDES};
use super::props::Solid;
use super::random::Random;
use super::scene::Figure;
use super::texture::Noise;
use crate::body::BodyModel;

/// Seconds from one motion to the next.
const CHANGE_SECS: f32 = 0.8;

/// A person: where, who, and doing what.
#[derive(Clone, Debug)]
pub struct Actor {
    /// The middle of the disc of ground that it keeps to, metres; x and z of the world.
    pub place: Vec2,
    /// The shape of the body.
    pub shape: Vec<f32>,
    /// Skin, hair, clothes.
    pub looks: Looks,
    act: Act,
}

#[derive(Clone, Debug)]
enum Act {
    /// One posture, looking one way.
    Still { posture: Posture, heading_rad: f32 },
    /// Motions one after the other, again and again.
    Moving(Script),
}

#[derive(Clone, Debug)]
struct Script {
    manner: Manner,
    steps: Vec<Step>,
    seated: bool,
    /// Of the circle that is walked on; its sign is the direction.
    radius_m: f32,
    speed: f32,
    start_rad: f32,
    /// How far from looking at the camera it stands, radians.
    aside_rad: f32,
    cycle_secs: f32,
    cycle_m: f32,
    shift_secs: f32,
}

#[derive(Clone, Copy, Debug)]
struct Step {
    motion: Motion,
    secs: f32,
    /// Time and distance when it begins, within the cycle.
    starts_at: f32,
    walked_m: f32,
}

/// A body where it stands in the world.
#[derive(Clone, Debug)]
pub struct Standing {
    /// Vertices in world metres (y up, the ground at 0).
    pub vertices_m: Vec<Vec3>,
    /// Joints in world metres.
    pub joints_m: Vec<Vec3>,
    /// Axis-angles of all joints; the first turns into the world.
    pub pose_rad: Vec<Vec3>,
    /// The root joint at rest, which the first axis-angle turns about.
    pub rest_root_m: Vec3,
    /// What moves along and is no part of the body: a hand's arm.
    pub solids: Vec<Solid>,
}

/// Metres that are walked `secs` after the start of a walk, in units of its speed: slow at both ends.
fn walked(secs: f32, duration: f32) -> f32 {
    let ramp = |s: f32| {
        let u = (s / CHANGE_SECS).clamp(0.0, 1.0);
        CHANGE_SECS * (u.powi(3) - 0.5 * u.powi(4))
    };
    let braking = (secs - (duration - CHANGE_SECS)).clamp(0.0, CHANGE_SECS);
    let steady = (secs - CHANGE_SECS).clamp(0.0, duration - 2.0 * CHANGE_SECS);
    ramp(secs) + steady + CHANGE_SECS * 0.5 - ramp(CHANGE_SECS - braking)
}

/// An angle from half a turn to the right to half a turn to the left.
fn wrapped(angle: f32) -> f32 {
    (angle + PI).rem_euclid(TAU) - PI
}

impl Script {
    fn random(radius_m: f32, seated: bool, random: &mut Random) -> Self {
        let manner = Manner::new(random);
        let walks = radius_m > 0.0;
        let speed = random.between(0.75, 1.25);
        let (mut steps, mut starts_at, mut walked_m) = (Vec::new(), 0.0, 0.0);
        let mut add = |motion: Motion, random: &mut Random| {
            let secs = motion.duration_secs(random);
            steps.push(Step { motion, secs, starts_at, walked_m });
            starts_at += secs;
            if motion == Motion::Walk {
                walked_m += speed * walked(secs, secs);
            }
        };
        for _ in 0..5 {
            if walks {
                add(Motion::Walk, random);
            }
            for _ in 0..2 {
                let motion = if seated { random.pick(&SEATED) } else { random.pick(&ON_THE_SPOT) };
                add(motion, random);
            }
        }
        Self {
            manner,
            steps,
            seated,
            radius_m: radius_m * if random.chance(0.5) { 1.0 } else { -1.0 },
            speed,
            start_rad: random.between(0.0, TAU),
            aside_rad: if random.chance(0.85) { random.normal() * 0.55 } else { random.between(-PI, PI) },
            cycle_secs: starts_at,
            cycle_m: walked_m,
            shift_secs: random.between(0.0, starts_at),
        }
    }

    /// Posture, place and heading at a time.
    fn at(&self, middle: Vec2, time_secs: f32) -> (Posture, Vec2, f32) {
        let time = f64::from(time_secs) + f64::from(self.shift_secs);
        let cycle = (time / f64::from(self.cycle_secs)).floor();
        let now = (time - cycle * f64::from(self.cycle_secs)) as f32;
        let before_m = (cycle * f64::from(self.cycle_m)) as f32;
        let current = self.steps.iter().rposition(|step| step.starts_at <= now).unwrap_or(0);
        let step = self.steps[current];
        let last = self.steps[(current + self.steps.len() - 1) % self.steps.len()];
        let secs = now - step.starts_at;
        let walks = step.motion == Motion::Walk;
        let start_m = before_m + step.walked_m;
        let walked_m = start_m + if walks { self.speed * walked(secs, step.secs) } else { 0.0 };

        let share = smooth(secs / CHANGE_SECS);
        let mut posture = step.motion.posture(secs, step.secs, walked_m, &self.manner);
        if share < 1.0 {
            let before = last.motion.posture(last.secs + secs, last.secs, start_m, &self.manner);
            posture = before.blend(&posture, share);
        }
        if self.seated {
            Motion::sit(&mut posture, &self.manner);
            posture = posture.limited();
        }

        let aside = |motion: Motion| if motion == Motion::Walk { 0.0 } else { self.towards_camera(middle, start_m) };
        let offset = aside(last.motion) + (aside(step.motion) - aside(last.motion)) * share;
        let (place, along) = self.on_circle(middle, walked_m);
        let turned = step.motion.turned_rad() * smooth(secs / step.secs);
        (posture, place, along + offset + turned)
    }

    /// Place and heading on the circle.
    fn on_circle(&self, middle: Vec2, walked_m: f32) -> (Vec2, f32) {
        if self.radius_m == 0.0 {
            return (middle, 0.0);
        }
        let angle = self.start_rad + walked_m / self.radius_m;
        let out = Vec2::from_angle(angle);
        let along = out.perp() * self.radius_m.signum();
        (middle + out * self.radius_m.abs(), along.x.atan2(along.y))
    }

    /// From the heading of the walk to the way it looks when it stands.
    fn towards_camera(&self, middle: Vec2, walked_m: f32) -> f32 {
        let (place, along) = self.on_circle(middle, walked_m);
        let camera = (-place.x).atan2(-place.y);
        wrapped(camera + self.aside_rad - along)
    }
}

impl Actor {
    /// Someone who moves on a disc: walks on a circle of `radius_m`, or stays where it is where that is 0.
    pub fn moving(
        place: Vec2,
        radius_m: f32,
        seated: bool,
        shape: Vec<f32>,
        looks: Looks,
        random: &mut Random,
    ) -> Self {
        Self { place, shape, looks, act: Act::Moving(Script::random(radius_m, seated, random)) }
    }

    /// Someone who does not move.
    pub fn still(place: Vec2, posture: Posture, heading_rad: f32, shape: Vec<f32>, looks: Looks) -> Self {
        Self { place, shape, looks, act: Act::Still { posture, heading_rad } }
    }
}

impl Figure for Actor {
    fn shape(&self) -> &[f32] {
        &self.shape
    }

    /// The lowest point of the body is on the ground.
    fn stand(&self, body: &BodyModel, time_secs: f32) -> Result<Standing> {
        let (posture, place, heading_rad) = match &self.act {
            Act::Still { posture, heading_rad } => (*posture, self.place, *heading_rad),
            Act::Moving(script) => script.at(self.place, time_secs),
        };
        let pose_rad = posture.pose_rad(Quat::from_rotation_y(heading_rad));
        let posed = body.pose(&pose_rad, &self.shape, Vec3::ZERO)?;
        let rest_root_m = posed.joints_m[0];
        // Who bends keeps the feet where they are; who sits keeps the seat.
        let anchor = match &self.act {
            Act::Moving(script) if !script.seated => (posed.joints_m[7] + posed.joints_m[8]) * 0.5,
            _ => posed.joints_m[0],
        };
        let lowest = posed.vertices_m.iter().map(|p| p.y).fold(f32::INFINITY, f32::min);
        let shift = Vec3::new(place.x - anchor.x, -lowest, place.y - anchor.z);
        let moved = |points: Vec<Vec3>| points.into_iter().map(|p| p + shift).collect();
        Ok(Standing {
            vertices_m: moved(posed.vertices_m),
            joints_m: moved(posed.joints_m),
            pose_rad: pose_rad.into(),
            rest_root_m,
            solids: Vec::new(),
        })
    }

    fn colour(&self, noise: &Noise, rest_m: Vec3, footprint_m: f32) -> Vec3 {
        self.looks.at(noise, rest_m, footprint_m)
    }
}

impl Standing {
    /// The first axis-angle in camera axes instead of the world's.
    pub fn root_pose_rad(&self, camera_from_world: Mat3) -> Vec3 {
        let turn = Quat::from_mat3(&(camera_from_world * Mat3::from_quat(Quat::from_scaled_axis(self.pose_rad[0]))));
        turn.normalize().to_scaled_axis()
    }

    /// Bodies of this one and another are in each other, told by their limbs as capsules; `gap_m` more is kept.
    pub fn touches(&self, other: &Self, gap_m: f32) -> bool {
        let far = self.joints_m[0].distance(other.joints_m[0]) > 2.4;
        !far && capsules(&self.joints_m).iter().any(|a| capsules(&other.joints_m).iter().any(|b| a.distance(b) < gap_m))
    }

    /// An arm is in the trunk, a leg or the other arm, or the legs are in each other.
    pub fn touches_itself(&self) -> bool {
        let capsule =
            |from: usize, to: usize, radius: f32| Capsule { from: self.joints_m[from], to: self.joints_m[to], radius };
        let arms = SIDES.map(|s| {
            // Beyond the hand there are fingers.
            let (wrist, hand) = (self.joints_m[20 + s], self.joints_m[22 + s]);
            Capsule { from: self.joints_m[18 + s], to: wrist + (hand - wrist) * 1.9, radius: 0.04 }
        });
        let trunk = [capsule(0, 6, 0.12), capsule(6, 12, 0.11), capsule(12, 15, 0.07), capsule(15, 24, 0.09)];
        let thighs = SIDES.map(|s| capsule(1 + s, 4 + s, 0.07));
        let shins = SIDES.map(|s| capsule(4 + s, 7 + s, 0.05));
        let into = |a: &Capsule, others: &[Capsule]| others.iter().any(|b| a.distance(b) < 0.0);
        arms.iter().any(|arm| into(arm, &trunk) || into(arm, &thighs) || into(arm, &shins))
            || into(&arms[0], &arms[1..])
            || into(&thighs[0], &shins[1..])
            || into(&shins[0], &shins[1..])
            || into(&thighs[1], &shins[..1])
    }
}

/// A limb: all that is within `radius` of a line.
#[derive(Clone, Copy, Debug)]
pub struct Capsule {
    pub from: Vec3,
    pub to: Vec3,
    pub radius: f32,
}

impl Capsule {
    /// Between two surfaces, metres; negative where they are in each other.
    pub fn distance(&self, other: &Self) -> f32 {
        // The nearest points of two segments (Ericson, Real-Time Collision Detection, 5.1.9).
        let (d1, d2, r) = (self.to - self.from, other.to - other.from, self.from - other.from);
        let (a, e, f) = (d1.length_squared().max(1e-9), d2.length_squared().max(1e-9), d2.dot(r));
        let (b, c) = (d1.dot(d2), d1.dot(r));
        let apart = a * e - b * b;
        let s = if apart > 1e-9 { ((b * f - c * e) / apart).clamp(0.0, 1.0) } else { 0.0 };
        let t = ((b * s + f) / e).clamp(0.0, 1.0);
        let s = ((b * t - c) / a).clamp(0.0, 1.0);
        (r + d1 * s - d2 * t).length() - self.radius - other.radius
    }
}

/// The bones of a body: (joint, joint, radius), SMPL's numbers.
const BONES: [(usize, usize, f32); 16] = [
    (0, 9, 0.16),
    (9, 12, 0.13),
    (12, 15, 0.09),
    (15, 24, 0.11),
    (1, 4, 0.1),
    (2, 5, 0.1),
    (4, 7, 0.07),
    (5, 8, 0.07),
    (7, 10, 0.07),
    (8, 11, 0.07),
    (16, 18, 0.07),
    (17, 19, 0.07),
    (18, 20, 0.06),
    (19, 21, 0.06),
    (20, 22, 0.1),
    (21, 23, 0.1),
];

fn capsules(joints: &[Vec3]) -> [Capsule; 16] {
    BONES.map(|(from, to, radius)| Capsule { from: joints[from], to: joints[to], radius })
}
