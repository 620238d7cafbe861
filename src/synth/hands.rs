//! Hands before the camera: a right hand, sometimes two, an arm's length away, as a webcam or somebody's own eyes see
//! them. They go from gesture to gesture while they turn.

use std::f32::consts::{PI, TAU};
use std::sync::Arc;

use anyhow::Result;
use glam::{Mat3, Quat, Vec2, Vec3};

use super::actor::Standing;
use super::gesture::{Anatomy, HandPosture, touches_itself};
use super::motion::smooth;
use super::props::{self, Solid};
use super::random::Random;
use super::raster::Viewpoint;
use super::scene::{Figure, Part, Staging};
use super::skin::{HandLooks, any_skin};
use super::texture::{Noise, Texture, any_colour};
use crate::body::BodyModel;
use crate::space::Intrinsics;

/// The least and the largest depth of a wrist, metres.
pub const DEPTHS_M: [f32; 2] = [0.3, 1.2];

/// The same of the middle of a hand, around which it turns and floats.
const MIDDLES_M: [f32; 2] = [0.39, 1.11];
/// So far it floats, along each axis, metres.
const FLOAT_M: f32 = 0.015;
/// Nothing of a hand is farther from its middle, metres.
const RADIUS_M: f32 = 0.15;

/// Postures of a hand, one after the other, again and again.
const POSTURES: usize = 6;

/// A hand: where, whose, and doing what.
struct Hand {
    anatomy: Arc<Anatomy>,
    /// Its middle, world metres.
    place_m: Vec3,
    shape: Vec<f32>,
    looks: HandLooks,
    postures: [HandPosture; POSTURES],
    /// Seconds from one posture to the next, and how long going there takes.
    pace_secs: f32,
    change_secs: f32,
    /// Turned like this when it does not turn.
    base: Quat,
    turning: Turning,
    /// How its arm bends at the wrist, radians; `None` for a hand without one.
    arm: Option<Vec2>,
    phase: f32,
}

/// How a hand turns.
struct Turning {
    axis: Vec3,
    /// Radians a second, without an end.
    rate: f32,
    /// To and fro: radians, and how often a second.
    swing: f32,
    hertz: f32,
}

impl Hand {
    fn random(body: &BodyModel, anatomy: &Arc<Anatomy>, place_m: Vec3, random: &mut Random) -> Result<Self> {
        let looks = HandLooks::random(anatomy, random);
        let mut shape: Vec<f32> = (0..10).map(|_| (random.normal() * 0.9).clamp(-2.2, 2.2)).collect();
        // The size of a hand cannot be told from its distance; as with people's stature, hands differ less here.
        shape[0] *= 0.65;
        let mut postures = [HandPosture::random(random); POSTURES];
        for posture in &mut postures {
            for _ in 0..8 {
                *posture = HandPosture::random(random);
                let posed = body.pose(&posture.pose_rad(anatomy, Quat::IDENTITY), &shape, Vec3::ZERO)?;
                if !touches_itself(&posed.joints_m) {
                    break;
                }
            }
        }
        let any_axis =
            |random: &mut Random| Vec3::from_array(std::array::from_fn(|_| random.normal())).normalize_or(Vec3::Y);
        let shown = random.chance(0.55);
        let (base, turning) = if shown {
            // Fingers up, the palm to the camera or away from it, turned to and fro.
            let upright = Quat::from_mat3(&Mat3::from_cols(Vec3::NEG_Y, Vec3::NEG_Z, Vec3::X));
            let yaw = if random.chance(0.6) { random.normal() * 0.6 } else { random.between(-PI, PI) };
            let leaning = Quat::from_rotation_z(random.normal() * 0.55) * Quat::from_rotation_x(random.normal() * 0.5);
            let axis = (Vec3::Y + any_axis(random) * 0.4).normalize_or(Vec3::Y);
            let turning =
                Turning { axis, rate: 0.0, swing: random.between(0.3, 1.3), hertz: random.between(0.05, 0.13) };
            (leaning * Quat::from_rotation_y(yaw) * upright, turning)
        } else {
            // Anyhow, and over and over.
            let [x, y, z, w] = std::array::from_fn(|_| random.normal());
            let base = Quat::from_xyzw(x, y, z, w + 1e-6).normalize();
            let rate = random.between(0.2, 0.5) * if random.chance(0.5) { 1.0 } else { -1.0 };
            (base, Turning { axis: any_axis(random), rate, swing: 0.3, hertz: random.between(0.1, 0.25) })
        };
        Ok(Self {
            anatomy: Arc::clone(anatomy),
            place_m,
            shape,
            looks,
            postures,
            pace_secs: random.between(1.6, 2.8),
            change_secs: random.between(0.6, 1.1),
            base,
            turning,
            arm: random.chance(0.8).then(|| Vec2::new(random.normal() * 0.2, random.normal() * 0.1)),
            phase: random.between(0.0, TAU),
        })
    }

    /// Posture, orientation and place of the middle at a time.
    fn at(&self, time_secs: f32) -> (HandPosture, Quat, Vec3) {
        let time = time_secs + self.phase;
        let (step, secs) = ((time / self.pace_secs).floor(), time.rem_euclid(self.pace_secs));
        let number = |step: f32| step.rem_euclid(POSTURES as f32) as usize % POSTURES;
        let [from, to] = [step - 1.0, step].map(|step| &self.postures[number(step)]);
        let posture = from.blend(to, smooth(secs / self.change_secs));
        let Turning { axis, rate, swing, hertz } = &self.turning;
        let angle = rate * time + swing * (TAU * hertz * time).sin();
        let float = |hertz: f32, shift: f32| FLOAT_M * (TAU * hertz * time + shift * self.phase).sin();
        let drift = Vec3::new(float(0.21, 1.0), float(0.16, 2.0), float(0.13, 3.0));
        (posture, Quat::from_axis_angle(*axis, angle) * self.base, self.place_m + drift)
    }
}

impl Figure for Hand {
    fn shape(&self) -> &[f32] {
        &self.shape
    }

    fn stand(&self, body: &BodyModel, time_secs: f32) -> Result<Standing> {
        let (posture, orientation, middle_m) = self.at(time_secs);
        let pose_rad = posture.pose_rad(&self.anatomy, orientation);
        let posed = body.pose(&pose_rad, &self.shape, Vec3::ZERO)?;
        // Between the wrist and the root of the middle finger.
        let anchor = (posed.joints_m[0] + posed.joints_m[9] * 2.0) / 3.0;
        let shift = middle_m - anchor;
        let moved = |points: &[Vec3]| points.iter().map(|p| *p + shift).collect::<Vec<_>>();
        let joints_m = moved(&posed.joints_m);
        let solids = self.arm.map_or_else(Vec::new, |bent| {
            let towards = Quat::from_rotation_z(bent.x) * Quat::from_rotation_y(bent.y) * Vec3::X;
            self.looks.arm(joints_m[0], orientation * towards, orientation * Vec3::Y)
        });
        Ok(Standing {
            vertices_m: moved(&posed.vertices_m),
            joints_m,
            pose_rad: pose_rad.into(),
            // It turns about its wrist.
            rest_root_m: posed.joints_m[0],
            solids,
        })
    }

    fn colour(&self, noise: &Noise, rest_m: Vec3, footprint_m: f32) -> Vec3 {
        self.looks.at(noise, rest_m, footprint_m)
    }
}

/// Sets up a scene of hands.
pub fn stage(
    body: &BodyModel,
    anatomy: &Arc<Anatomy>,
    size: [u32; 2],
    part: impl Fn(Part) -> Random,
) -> Result<Staging> {
    let viewpoint = camera(size, &mut part(Part::Camera));
    let mut random = part(Part::Figures);
    let wanted = if random.chance(0.18) { 2 } else { 1 };
    let mut hands: Vec<Hand> = Vec::new();
    for _ in 0..20 {
        let place_m = place(&viewpoint, &mut random);
        // Apart, however they turn.
        let apart_m = 2.0 * (RADIUS_M + FLOAT_M);
        if hands.len() < wanted && hands.iter().all(|hand| hand.place_m.distance(place_m) > apart_m) {
            hands.push(Hand::random(body, anatomy, place_m, &mut random)?);
        }
    }
    let back_m = 1.5;
    let solids = furniture(&viewpoint, &hands, back_m, &mut part(Part::Props));
    let figures = hands.into_iter().map(|hand| Box::new(hand) as Box<dyn Figure>).collect();
    Ok(Staging { viewpoint, figures, solids, back_m })
}

/// A webcam on a desk, or a camera on somebody's head.
fn camera(size: [u32; 2], random: &mut Random) -> Viewpoint {
    let fov = random.between(42.0_f32, 82.0);
    let focal_px = size[0].max(size[1]) as f32 * 0.5 / (fov.to_radians() * 0.5).tan();
    let tilt = (random.normal() * 0.25).clamp(-0.5, 0.6);
    let intrinsics = Intrinsics::with_focal(focal_px, size[0], size[1]);
    Viewpoint::new(size, intrinsics, random.between(1.0, 1.7), tilt, random.normal() * 0.08)
}

/// Where the middle of a hand can be, in the world: most of the hand is in the picture.
fn place(viewpoint: &Viewpoint, random: &mut Random) -> Vec3 {
    let depth = random.log_between(MIDDLES_M[0], MIDDLES_M[1]);
    let Intrinsics { fx, fy, .. } = viewpoint.intrinsics;
    let mut across = |side_px: u32, focal_px: f32| {
        let edge_m = side_px as f32 * 0.5 / focal_px * depth - 0.09;
        random.between(-1.0, 1.0) * edge_m.max(0.01)
    };
    let [width, height] = viewpoint.size;
    viewpoint.world(Vec3::new(across(width, fx), across(height, fy), depth))
}

/// A table, things that stand around, things in the air behind hands and before them. Some of it has the colours of
/// skin, as faces and arms do.
fn furniture(viewpoint: &Viewpoint, hands: &[Hand], back_m: f32, random: &mut Random) -> Vec<Solid> {
    let mut solids = Vec::new();
    let slope = viewpoint.size[0] as f32 * 0.5 / viewpoint.intrinsics.fx;
    for _ in 0..random.below(7) {
        let depth = random.between(1.6, back_m + 2.0);
        let place = Vec2::new(random.between(-1.2, 1.2) * slope * depth, -depth);
        solids.extend(props::thing(place, random.between(0.2, 0.5), random));
    }
    if random.chance(0.35) {
        let lowest = hands.iter().map(|hand| hand.place_m.y).fold(viewpoint.eye_m.y, f32::min);
        let half = Vec3::new(random.between(0.4, 1.0), 0.015, random.between(0.2, 0.5));
        let centre = Vec3::new(random.between(-0.3, 0.3), lowest - RADIUS_M - random.between(0.03, 0.3), -0.4 - half.z);
        solids.push(Solid::cuboid(centre, half, Quat::IDENTITY, props::any_texture(random)));
    }
    for _ in 0..random.below(9) {
        let depth = random.log_between(1.35, back_m + 2.0);
        let across = Vec2::new(random.between(-1.1, 1.1), random.between(-0.9, 0.9)) * slope * depth;
        let centre = viewpoint.world(across.extend(depth));
        let radius = random.between(0.05, 0.22);
        let mut solid = props::floater(centre, radius, random);
        if random.chance(0.4) {
            solid.texture = Texture::plain(any_skin(random));
        }
        solids.push(solid);
    }
    for hand in hands {
        if random.chance(0.25) {
            let share = random.between(0.4, 0.6);
            let aside = Vec2::from_angle(random.between(0.0, TAU)) * random.between(0.0, 0.07);
            let way = viewpoint.camera(hand.place_m) + aside.extend(0.0);
            let mut solid =
                props::floater(viewpoint.world(way * share), random.between(0.01, 0.045) * share * 1.5, random);
            solid.texture = Texture::plain(any_colour(random));
            solids.push(solid);
        }
    }
    solids
}
