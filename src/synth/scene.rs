//! A scene: everything that follows from a seed but the time, and how it is photographed.

use std::sync::Arc;

use anyhow::{Result, bail, ensure};
use glam::{Vec2, Vec3};
use image::RgbImage;
use rayon::prelude::*;

use super::actor::Standing;
use super::backdrop::{Backdrop, Place};
use super::lens::Lens;
use super::light::Light;
use super::props::Solid;
use super::random::Random;
use super::raster::{Facing, Viewpoint, triangle, weights};
use super::texture::Noise;
use super::{Kind, Marks, Studio, hands, people};
use crate::body::BodyModel;
use crate::result::BodyParams;
use crate::space::RectPx;
use crate::truth::{TruePerson, Truth};

/// Smallest and largest side of a picture.
pub const SIDES_PX: std::ops::RangeInclusive<u32> = 16..=8192;

/// Parts of a scene, each with its own stream of chance.
#[derive(Clone, Copy)]
pub enum Part {
    Camera = 1,
    Figures,
    Place,
    Props,
    Lens,
    Light,
}

/// Someone, or a hand: a body in its own looks, and what it does at any time.
pub trait Figure: Send + Sync {
    /// The shape of the body.
    fn shape(&self) -> &[f32];

    /// Where and how it is at a time, in the world.
    fn stand(&self, body: &BodyModel, time_secs: f32) -> Result<Standing>;

    /// The colour of a place on the body at rest; `footprint_m` is how much of it a pixel sees.
    fn colour(&self, noise: &Noise, rest_m: Vec3, footprint_m: f32) -> Vec3;
}

/// What is before the camera, the place itself excepted.
pub struct Staging {
    pub viewpoint: Viewpoint,
    pub figures: Vec<Box<dyn Figure>>,
    /// What stands around.
    pub solids: Vec<Solid>,
    /// From here on there may be walls.
    pub back_m: f32,
}

/// A scene, ready to be photographed at any time.
pub struct Scene {
    studio: Arc<Studio>,
    seed: u64,
    viewpoint: Viewpoint,
    light: Light,
    lens: Lens,
    backdrop: Backdrop,
    figures: Vec<Box<dyn Figure>>,
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
        let Staging { viewpoint, figures, solids, back_m } = match (&studio.marks, kind) {
            (Marks::Person(marks), Kind::Scenes | Kind::Postures | Kind::Poses) => {
                people::stage(studio, marks, kind, size, part)?
            }
            (Marks::Hand(anatomy), Kind::Hands) => hands::stage(&studio.body, anatomy, size, part)?,
            _ => bail!("a studio of {} has no {kind:?}", studio.body.family().name()),
        };
        let mut random = part(Part::Place);
        let cluttered = kind == Kind::Poses || random.chance(0.3);
        let place = Place::random(back_m + random.between(0.2, 3.0), cluttered, &mut random);
        let light = Light::random(&mut part(Part::Light));
        let backdrop = place.draw(&studio.noise, &light, &viewpoint, &solids);
        let mut random = part(Part::Lens);
        let is_good = matches!(kind, Kind::Scenes | Kind::Postures) || kind == Kind::Hands && random.chance(0.5);
        let lens = Lens::random(is_good, size[0], &mut random);
        Ok(Self { studio: Arc::clone(studio), seed, viewpoint, light, lens, backdrop, figures })
    }

    /// The same place, with its things, but nobody in it.
    #[must_use]
    pub fn without_people(mut self) -> Self {
        self.figures.clear();
        self
    }

    /// Where everybody, or every hand, is at a time, in the world: y up, the ground at 0.
    pub fn standing(&self, time_secs: f32) -> Result<Vec<Standing>> {
        self.figures.iter().map(|figure| figure.stand(&self.studio.body, time_secs)).collect()
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

        for solid in standing.iter().flat_map(|person| &person.solids) {
            picture.add(&self.studio.noise, &self.light, viewpoint, solid);
        }

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
        let Studio { body, noise, .. } = &*self.studio;
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
                let paint = self.figures[who].colour(noise, mix(rest), footprint_m);
                *colour = self.light.on(paint, mix(&normals[who]).normalize_or_zero());
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
        let mut pose_rad = standing.pose_rad.clone();
        pose_rad[0] = standing.root_pose_rad(viewpoint.camera_from_world);
        TruePerson {
            joint_visible: joint_visible.collect(),
            full_rect,
            // From the first pixel's left edge to the last one's right edge.
            visible_rect: (seen > 0).then(|| RectPx::from_corners(min - 0.5, max + 0.5)),
            visible_share: seen as f32 / own.max(1) as f32,
            params: BodyParams { pose_rad, shape: self.figures[who].shape().to_vec() },
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
