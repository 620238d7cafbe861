//! People before the camera: how many, where, and what stands around them.

use std::f32::consts::{PI, TAU};

use anyhow::Result;
use glam::{Vec2, Vec3};

use super::actor::{Actor, Standing};
use super::looks::{Looks, Marks};
use super::posture::Posture;
use super::props::{self, Solid};
use super::random::Random;
use super::raster::Viewpoint;
use super::scene::{Figure, Part, Staging};
use super::{Kind, Studio};
use crate::space::Intrinsics;

/// The nearest and the farthest root joint, metres from the camera.
pub const DISTANCES_M: [f32; 2] = [1.5, 8.0];

/// Sets up a scene of people.
pub fn stage(
    studio: &Studio,
    marks: &Marks,
    kind: Kind,
    size: [u32; 2],
    part: impl Fn(Part) -> Random,
) -> Result<Staging> {
    let (viewpoint, far_m) = camera(kind, size, &mut part(Part::Camera));
    let cast = cast(studio, marks, kind, &viewpoint, far_m, &mut part(Part::Figures))?;
    let back_m = cast.iter().map(|c| c.radius_m - c.actor.place.y).fold(2.5, f32::max);
    let solids = furniture(studio, kind, &viewpoint, &cast, back_m, &mut part(Part::Props))?;
    let figures = cast.into_iter().map(|c| Box::new(c.actor) as Box<dyn Figure>).collect();
    Ok(Staging { viewpoint, figures, solids, back_m })
}

/// A camera, and how far away people may be.
fn camera(kind: Kind, size: [u32; 2], random: &mut Random) -> (Viewpoint, f32) {
    let [width, height] = size.map(|side| side as f32);
    let calm = kind != Kind::Poses;
    // The field of view of the longer side: from a long lens to a wide webcam.
    let fov = if calm { random.between(52.0_f32, 76.0) } else { random.between(36.0, 88.0) };
    let focal_px = width.max(height) * 0.5 / (fov.to_radians() * 0.5).tan();
    let height_m = if calm { random.between(0.9, 1.9) } else { random.between(0.35, 2.7) };
    let far_m = random.between(3.2, DISTANCES_M[1]);
    // Looks at the middle of a person somewhere between.
    let aim_m = random.between(if calm { 2.5 } else { 1.5 }, far_m.max(2.6));
    let tilt = ((height_m - 0.88) / aim_m).atan() + random.normal() * if calm { 0.025 } else { 0.1 };
    let roll = random.normal() * if calm { 0.008 } else { 0.07 };
    let intrinsics = Intrinsics::with_focal(focal_px, size[0], size[1]);
    (Viewpoint::new(size, intrinsics, height_m, tilt, roll), far_m)
}

/// A person and the disc of ground that it needs.
struct Cast {
    actor: Actor,
    radius_m: f32,
    seated: bool,
}

fn shape(random: &mut Random) -> Vec<f32> {
    let mut shape: Vec<f32> = (0..10).map(|_| (random.normal() * 0.9).clamp(-2.2, 2.2)).collect();
    // The first component scales the whole body, which no picture shows: whoever is taller is farther away. So people
    // differ less here, by 4 cm (standard deviation), than adults do, or nobody could tell distances.
    shape[0] *= 0.65;
    shape
}

/// Finds people and places for them: in view, at least 1.5 m away, not in each other.
fn cast(
    studio: &Studio,
    marks: &Marks,
    kind: Kind,
    viewpoint: &Viewpoint,
    far_m: f32,
    random: &mut Random,
) -> Result<Vec<Cast>> {
    let wanted = match random.below(100) {
        0..30 => 1,
        30..60 => 2,
        60..80 => 3,
        80..92 => 4,
        _ => 5,
    };
    let mut cast: Vec<Cast> = Vec::new();
    let mut stills: Vec<Standing> = Vec::new();
    let slope = viewpoint.size[0] as f32 * 0.5 / viewpoint.intrinsics.fx;
    // There is a place for everyone most of the time; else fewer people are there.
    for attempt in 0..60 {
        if cast.len() == wanted || (attempt > 40 && !cast.is_empty()) {
            break;
        }
        let (near_m, edge) = if kind == Kind::Poses { (DISTANCES_M[0], 0.85) } else { (2.0, 0.7) };
        let depth = random.log_between(near_m, far_m);
        let place = Vec2::new(random.between(-edge, edge) * slope * depth, -depth);
        let looks = Looks::random(marks, random);
        let shape = shape(random);
        if kind == Kind::Scenes {
            let seated = random.chance(0.15);
            let walk_m = if seated || random.chance(0.35) { 0.0 } else { random.between(0.3, 0.75) };
            let radius_m = walk_m + if seated { 0.75 } else { 0.8 };
            // Who bends or reaches leaves the feet behind by less than that.
            let sway_m = walk_m + 0.4;
            let clear = cast.iter().all(|c| c.actor.place.distance(place) > c.radius_m + radius_m);
            let [near_m, far_m] = [place.length() - sway_m, place.length() + sway_m];
            if clear && near_m > DISTANCES_M[0] && far_m < DISTANCES_M[1] {
                let actor = Actor::moving(place, walk_m, seated, shape, looks, random);
                cast.push(Cast { actor, radius_m, seated });
            }
        } else {
            let heading = random.between(-PI, PI);
            let mut posed = None;
            for _ in 0..8 {
                let posture = Posture::random(random).limited();
                let actor = Actor::still(place, posture, heading, shape.clone(), looks.clone());
                let standing = actor.stand(&studio.body, 0.0)?;
                if !standing.touches_itself() {
                    posed = Some((actor, standing));
                    break;
                }
            }
            let Some((actor, standing)) = posed else { continue };
            let distance = viewpoint.camera(standing.joints_m[0]).length();
            let within = (DISTANCES_M[0]..=DISTANCES_M[1]).contains(&distance);
            if within && !stills.iter().any(|other| standing.touches(other, 0.03)) {
                stills.push(standing);
                cast.push(Cast { actor, radius_m: 0.85, seated: false });
            }
        }
    }
    Ok(cast)
}

/// Stools for those who sit, things that stand around, and things before people.
fn furniture(
    studio: &Studio,
    kind: Kind,
    viewpoint: &Viewpoint,
    cast: &[Cast],
    back_m: f32,
    random: &mut Random,
) -> Result<Vec<Solid>> {
    let mut solids = Vec::new();
    for c in cast.iter().filter(|c| c.seated) {
        let standing = c.actor.stand(&studio.body, 0.0)?;
        let [pelvis, knees] = [standing.joints_m[0], (standing.joints_m[4] + standing.joints_m[5]) * 0.5];
        // Under the seat, a little back from the knees.
        let back = (pelvis - knees) * 0.15;
        let place = Vec2::new(pelvis.x + back.x, pelvis.z + back.z);
        solids.extend(props::stool(place, (pelvis.y - 0.11).max(0.15), random));
    }
    let clear = |place: Vec2, radius: f32| cast.iter().all(|c| c.actor.place.distance(place) > c.radius_m + radius);
    let slope = viewpoint.size[0] as f32 * 0.5 / viewpoint.intrinsics.fx;
    let things = if kind == Kind::Poses { 4 + random.below(12) } else { random.below(6) };
    for _ in 0..things {
        let depth = random.between(1.8, back_m + 1.5);
        let place = Vec2::new(random.between(-1.2, 1.2) * slope * depth, -depth);
        let radius = random.between(0.25, 0.6);
        if clear(place, radius) {
            solids.extend(props::thing(place, radius, random));
        }
    }
    for c in cast {
        if random.chance(if kind == Kind::Poses { 0.45 } else { 0.15 }) {
            // On the way from the camera to the person.
            let radius = random.between(0.18, 0.45);
            let place = c.actor.place * random.between(0.4, 0.75) + Vec2::X * random.between(-0.4, 0.4);
            if clear(place, radius) && place.length() > 0.9 {
                solids.extend(props::thing(place, radius, random));
            }
        }
        if kind == Kind::Poses && random.chance(0.35) {
            let far = c.actor.place.length();
            let share = random.between(0.3, 0.6);
            let out = Vec2::from_angle(random.between(0.0, TAU)) * random.between(0.0, 0.4);
            let place = c.actor.place * share + Vec2::X * out.x * share;
            let centre = Vec3::new(place.x, viewpoint.eye_m.y * (1.0 - share) + (0.9 + out.y) * share, place.y);
            let radius = random.between(0.06, 0.22) * share * 2.0;
            if far * share > 0.6 && clear(place, radius) {
                solids.push(props::floater(centre, radius, random));
            }
        }
    }
    // A box in a corner keeps nothing from falling: what hangs in the air is clutter, and only wild scenes have it.
    if kind == Kind::Poses {
        for _ in 0..random.below(8) {
            let depth = random.between(back_m, back_m + 2.0);
            let centre = Vec3::new(random.between(-1.0, 1.0) * slope * depth, random.between(0.2, 2.6), -depth);
            solids.push(props::floater(centre, random.between(0.1, 0.5), random));
        }
    }
    Ok(solids)
}
