//! A scene: everything that follows from a seed but the time, and how it is photographed.

use std::f32::consts::{PI, TAU};
use std::sync::Arc;

use anyhow::{Result, ensure};
use glam::{Vec2, Vec3};
use image::RgbImage;
use rayon::prelude::*;

use super::actor::{Actor, Standing};
use super::backdrop::{Backdrop, Place};
use super::lens::Lens;
use super::light::Light;
use super::looks::Looks;
use super::posture::Posture;
use super::props::{self, Solid};
use super::random::Random;
use super::raster::{Facing, Viewpoint, triangle, weights};
use super::{Kind, Studio};
use crate::result::BodyParams;
use crate::space::{Intrinsics, RectPx};
use crate::truth::{TruePerson, Truth};

/// The nearest and the farthest root joint, metres from the camera.
pub const DISTANCES_M: [f32; 2] = [1.5, 8.0];

/// Smallest and largest side of a picture.
pub const SIDES_PX: std::ops::RangeInclusive<u32> = 16..=8192;

/// Parts of a scene, each with its own stream of chance.
#[derive(Clone, Copy)]
enum Part {
    Camera = 1,
    People,
    Place,
    Props,
    Lens,
    Light,
}

/// A scene, ready to be photographed at any time.
pub struct Scene {
    studio: Arc<Studio>,
    seed: u64,
    viewpoint: Viewpoint,
    light: Light,
    lens: Lens,
    backdrop: Backdrop,
    actors: Vec<Actor>,
}

/// A photograph and all that is true of it.
#[derive(Clone, Debug)]
pub struct Photo {
    /// sRGB.
    pub rgb: RgbImage,
    /// The people.
    pub truth: Truth,
}

/// Bits of a pixel's surface that say which face it is; the others say whose.
const FACE_BITS: u32 = 24;

impl Scene {
    /// The scene of a seed, for pictures of this size.
    pub fn new(studio: &Arc<Studio>, kind: Kind, seed: u64, size: [u32; 2]) -> Result<Self> {
        ensure!(size.iter().all(|side| SIDES_PX.contains(side)), "a picture of {} x {} pixels", size[0], size[1]);
        let part = |part: Part| Random::fork(seed ^ ((kind as u64) << 56), part as u64);
        let (viewpoint, far_m) = camera(kind, size, &mut part(Part::Camera));
        let cast = cast(studio, kind, &viewpoint, far_m, &mut part(Part::People))?;
        let back_m = cast.iter().map(|c| c.radius_m - c.actor.place.y).fold(2.5, f32::max);
        let mut random = part(Part::Place);
        let cluttered = kind == Kind::Poses || random.chance(0.3);
        let place = Place::random(back_m + random.between(0.2, 3.0), cluttered, &mut random);
        let light = Light::random(&mut part(Part::Light));
        let solids = furniture(studio, kind, &viewpoint, &cast, back_m, &mut part(Part::Props))?;
        let backdrop = place.draw(&studio.noise, &light, &viewpoint, &solids);
        let lens = Lens::random(kind == Kind::Scenes, size[0], &mut part(Part::Lens));
        let actors = cast.into_iter().map(|c| c.actor).collect();
        Ok(Self { studio: Arc::clone(studio), seed, viewpoint, light, lens, backdrop, actors })
    }

    /// Where every person stands at a time, in the world: y up, the ground at 0.
    pub fn standing(&self, time_secs: f32) -> Result<Vec<Standing>> {
        self.actors.iter().map(|actor| actor.stand(&self.studio.body, time_secs)).collect()
    }

    /// The photograph at a time.
    pub fn photograph(&self, time_secs: f32) -> Result<Photo> {
        let standing = self.standing(time_secs)?;
        let viewpoint = &self.viewpoint;
        let faces = &self.studio.body.topology().faces;
        let in_camera: Vec<Vec<Vec3>> =
            standing.iter().map(|person| person.vertices_m.iter().map(|&p| viewpoint.camera(p)).collect()).collect();
        let projected: Vec<Vec<Vec3>> =
            in_camera.iter().map(|person| person.iter().map(|&p| viewpoint.projected(p)).collect()).collect();

        let mut picture = self.backdrop.clone();
        picture.shade_ground(&self.light, viewpoint, |mask| {
            for person in &standing {
                let shadow: Vec<_> = person.vertices_m.iter().map(|&p| self.light.shadow_px(viewpoint, p)).collect();
                for face in faces {
                    mask.add(face.map(|v| shadow[v as usize]));
                }
            }
        });

        let mut surface = vec![u32::MAX; picture.colour.len()];
        let mut covered = vec![0_u8; picture.colour.len()];
        for (who, corners) in projected.iter().enumerate() {
            for (which, face) in faces.iter().enumerate() {
                let id = (who as u32) << FACE_BITS | which as u32;
                triangle(viewpoint.size, face.map(|v| corners[v as usize]), Facing::Front, |at, inverse| {
                    covered[at] |= 1 << who;
                    if inverse > picture.inverse_depth[at] {
                        picture.inverse_depth[at] = inverse;
                        surface[at] = id;
                    }
                });
            }
        }

        self.colour(&mut picture, &surface, &standing, &projected);
        let shot = self.seed ^ u64::from(time_secs.to_bits()) << 20;
        let rgb = self.lens.develop(&self.studio.sensor, viewpoint.size, &mut picture.colour, shot);
        let owner = surface.iter().map(|&id| if id == u32::MAX { 0 } else { (id >> FACE_BITS) as u8 + 1 }).collect();
        let mut truth = Truth {
            intrinsics: viewpoint.intrinsics,
            size: viewpoint.size,
            topology: Arc::clone(self.studio.body.topology()),
            people: Vec::new(),
            owner,
            covered,
        };
        let people = standing.iter().zip(in_camera).enumerate();
        truth.people = people
            .map(|(who, (standing, vertices))| {
                self.true_person(who, standing, vertices, &truth, &picture.inverse_depth)
            })
            .collect();
        Ok(Photo { rgb, truth })
    }

    /// Colours the pixels that show people, and smooths their outlines.
    fn colour(&self, picture: &mut Backdrop, surface: &[u32], standing: &[Standing], projected: &[Vec<Vec3>]) {
        let Studio { body, noise, marks, .. } = &*self.studio;
        let faces = &body.topology().faces;
        let rest = body.template_m();
        let normals: Vec<Vec<Vec3>> = standing.iter().map(|person| normals(&person.vertices_m, faces)).collect();
        let width = self.viewpoint.size[0] as usize;
        let Backdrop { colour, inverse_depth, .. } = picture;
        colour.par_chunks_mut(width).zip(surface.par_chunks(width)).enumerate().for_each(|(y, (colours, surface))| {
            for (x, (colour, &id)) in colours.iter_mut().zip(surface).enumerate() {
                if id == u32::MAX {
                    continue;
                }
                let who = (id >> FACE_BITS) as usize;
                let face = faces[(id & ((1 << FACE_BITS) - 1)) as usize].map(|v| v as usize);
                let w = weights(face.map(|v| projected[who][v]), Vec2::new(x as f32, y as f32));
                let mix = |of: &[Vec3]| of[face[0]] * w.x + of[face[1]] * w.y + of[face[2]] * w.z;
                let footprint_m = self.viewpoint.footprint_m(inverse_depth[y * width + x].recip());
                let looks = self.actors[who].looks.at(marks, noise, mix(rest), footprint_m);
                *colour = self.light.on(looks, mix(&normals[who]).normalize_or_zero());
            }
        });
        // A pixel at an outline sees a little of both sides.
        let whose = |at: usize| surface[at] >> FACE_BITS;
        let inner_rows = 1..surface.len() / width - 1;
        let outline = inner_rows.flat_map(|y| y * width + 1..(y + 1) * width - 1).filter_map(|at| {
            let (left, right, above, below) = (at - 1, at + 1, at - width, at + width);
            let me = whose(at);
            let inside = whose(left) == me && whose(right) == me && whose(above) == me && whose(below) == me;
            (!inside).then(|| {
                let cross = colour[left] + colour[right] + colour[above] + colour[below];
                let corners = colour[above - 1] + colour[above + 1] + colour[below - 1] + colour[below + 1];
                (at, colour[at] * 0.25 + cross * 0.125 + corners * 0.0625)
            })
        });
        for (at, smooth) in outline.collect::<Vec<_>>() {
            colour[at] = smooth;
        }
    }

    fn true_person(
        &self,
        who: usize,
        standing: &Standing,
        vertices: Vec<Vec3>,
        truth: &Truth,
        inverse_depth: &[f32],
    ) -> TruePerson {
        let viewpoint = &self.viewpoint;
        let joints: Vec<Vec3> = standing.joints_m.iter().map(|&p| viewpoint.camera(p)).collect();
        let pixels = vertices.iter().map(|&p| viewpoint.intrinsics.frame_from_camera(p));
        let full_rect = RectPx::around(pixels).unwrap_or_default();
        let [mut own, mut seen] = [0_u32; 2];
        let (mut min, mut max) = (Vec2::INFINITY, Vec2::NEG_INFINITY);
        let [width, height] = viewpoint.size;
        let inside = full_rect.clipped(width, height).unwrap_or_default();
        let end = inside.max().ceil();
        for y in inside.y as u32..(end.y as u32 + 1).min(height) {
            for x in inside.x as u32..(end.x as u32 + 1).min(width) {
                let at = (y * width + x) as usize;
                own += u32::from(truth.covered[at] >> who & 1);
                if usize::from(truth.owner[at]) == who + 1 {
                    seen += 1;
                    let px = Vec2::new(x as f32, y as f32);
                    (min, max) = (min.min(px), max.max(px));
                }
            }
        }
        let joint_visible = joints.iter().map(|&joint| {
            truth.pixel(joint).is_some_and(|at| match usize::from(truth.owner[at]) {
                // Beside the body by a rounding; hidden if something is before it.
                0 => inverse_depth[at] <= joint.z.recip(),
                owner => owner == who + 1,
            })
        });
        let root_pose = standing.root_pose_rad(viewpoint.camera_from_world);
        let mut pose_rad = standing.pose_rad.to_vec();
        pose_rad[0] = root_pose;
        TruePerson {
            joint_visible: joint_visible.collect(),
            full_rect,
            // From the first pixel's left edge to the last one's right edge.
            visible_rect: (seen > 0).then(|| RectPx::from_corners(min - 0.5, max + 0.5)),
            visible_share: seen as f32 / own.max(1) as f32,
            params: BodyParams { pose_rad, shape: self.actors[who].shape.clone() },
            translation_m: joints[0] - standing.rest_root_m,
            vertices_camera_m: vertices,
            joints_camera_m: joints,
        }
    }
}

/// Mean of the faces around each vertex, weighted by their areas.
fn normals(vertices: &[Vec3], faces: &[[u32; 3]]) -> Vec<Vec3> {
    let mut normals = vec![Vec3::ZERO; vertices.len()];
    for face in faces {
        let [a, b, c] = face.map(|v| vertices[v as usize]);
        let normal = (b - a).cross(c - a);
        for &v in face {
            normals[v as usize] += normal;
        }
    }
    for normal in &mut normals {
        *normal = normal.normalize_or_zero();
    }
    normals
}

/// A camera, and how far away people may be.
fn camera(kind: Kind, size: [u32; 2], random: &mut Random) -> (Viewpoint, f32) {
    let [width, height] = size.map(|side| side as f32);
    let calm = kind == Kind::Scenes;
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
fn cast(studio: &Studio, kind: Kind, viewpoint: &Viewpoint, far_m: f32, random: &mut Random) -> Result<Vec<Cast>> {
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
        let (near_m, edge) = if kind == Kind::Scenes { (2.0, 0.7) } else { (DISTANCES_M[0], 0.85) };
        let depth = random.log_between(near_m, far_m);
        let place = Vec2::new(random.between(-edge, edge) * slope * depth, -depth);
        let looks = Looks::random(&studio.marks, random);
        let shape = shape(random);
        match kind {
            Kind::Scenes => {
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
            }
            Kind::Poses => {
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
