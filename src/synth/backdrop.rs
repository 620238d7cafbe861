//! The place: ground, walls with things on them or a far horizon, and solid things with their shadows. It stands still,
//! so it is drawn once a scene.

use glam::{Vec2, Vec3};
use rayon::prelude::*;

use super::light::Light;
use super::props::{Solid, any_texture};
use super::random::Random;
use super::raster::{Facing, Mask, Viewpoint, triangle, weights};
use super::texture::{Noise, Pattern, Texture, any_colour, hsv};

/// A flat picture on a wall, by its corner and size in metres along the wall and above the ground.
#[derive(Clone, Debug)]
struct Panel {
    min: Vec2,
    max: Vec2,
    texture: Texture,
    frame: Option<(f32, Vec3)>,
}

/// An upright wall: the points p with `normal . p = -distance`.
#[derive(Clone, Debug)]
struct Wall {
    /// Towards the room; along the wall is this turned by a quarter.
    normal: Vec3,
    distance: f32,
    /// None: one sees the sky between the panels.
    texture: Option<Texture>,
    panels: Vec<Panel>,
    skirting: Option<Vec3>,
}

/// What the ground, the walls and the sky look like.
#[derive(Clone, Debug)]
pub struct Place {
    floor: Texture,
    walls: Vec<Wall>,
    zenith: Vec3,
    horizon: Vec3,
}

/// A picture of a place: what people are drawn into.
#[derive(Clone, Debug)]
pub struct Backdrop {
    /// Linear light of each pixel.
    pub colour: Vec<Vec3>,
    /// 1 / metres; 0 for the place itself, which is behind everything.
    pub inverse_depth: Vec<f32>,
    /// The ground is seen, where shadows can fall.
    pub ground: Vec<bool>,
}

impl Place {
    /// A place whose walls are not nearer than `depth_m`; a cluttered one is hard to look through.
    pub fn random(depth_m: f32, cluttered: bool, random: &mut Random) -> Self {
        match random.below(10) {
            0..=4 => Self::room(depth_m, cluttered, random),
            5..=7 => Self::outdoors(depth_m, cluttered, random),
            _ => Self::hall(depth_m, cluttered, random),
        }
    }

    fn room(depth_m: f32, cluttered: bool, random: &mut Random) -> Self {
        let floor = match random.below(4) {
            0 | 1 => {
                let dark = hsv(random.between(0.05, 0.1), random.between(0.2, 0.6), random.between(0.3, 0.65));
                Texture::new(Pattern::Boards, [dark, dark * 1.7], random.between(0.1, 0.2), random)
            }
            2 => {
                let tile = hsv(random.unit(), random.between(0.0, 0.2), random.between(0.5, 0.9));
                Texture::new(Pattern::Bricks, [tile, tile * 0.5], random.between(0.4, 0.8), random)
            }
            _ if cluttered => any_texture(random),
            _ => Self::carpet(random),
        };
        let paint = hsv(random.unit(), random.between(0.02, 0.35), random.between(0.5, 0.95));
        let paper = match random.below(6) {
            0 => Texture::new(Pattern::Stripes, [paint, paint * 0.85], random.between(0.15, 0.5), random),
            1 => Texture::new(Pattern::Bricks, [paint * 0.7, paint], random.between(0.25, 0.4), random),
            2 if cluttered => any_texture(random),
            _ => Texture::plain(paint),
        };
        let half_width = random.between(2.2, 4.5) + depth_m * 0.25;
        let skirting = random.chance(0.7).then(|| Vec3::splat(random.between(0.1, 0.8)));
        let wall = |normal: Vec3, distance: f32, random: &mut Random| {
            let panels = Self::pictures(if cluttered { 14 } else { 5 }, half_width, random);
            Wall { normal, distance, texture: Some(paper.clone()), panels, skirting }
        };
        let walls = vec![
            wall(Vec3::Z, depth_m, random),
            wall(Vec3::X, half_width, random),
            wall(Vec3::NEG_X, half_width, random),
        ];
        Self { floor, walls, zenith: Vec3::splat(0.7), horizon: Vec3::splat(0.7) }
    }

    fn carpet(random: &mut Random) -> Texture {
        let a = hsv(random.unit(), random.between(0.05, 0.4), random.between(0.25, 0.75));
        let b = hsv(random.unit(), random.between(0.05, 0.4), random.between(0.25, 0.75));
        let patterns = [Pattern::Plain, Pattern::Clouds, Pattern::Checks, Pattern::Stripes, Pattern::Camouflage];
        let pattern = random.pick(&patterns);
        Texture::new(pattern, [a, a.lerp(b, 0.4)], random.between(0.3, 1.0), random)
    }

    fn pictures(most: usize, half_width: f32, random: &mut Random) -> Vec<Panel> {
        let picture = |random: &mut Random| {
            let size = Vec2::new(random.log_between(0.25, 1.6), random.log_between(0.25, 1.3));
            let min = Vec2::new(random.between(-half_width, half_width), random.between(0.7, 1.9));
            let (min, size, texture) = match random.below(4) {
                // A window, a door.
                0 => {
                    let day = hsv(0.56, random.between(0.0, 0.3), 1.0) * random.between(0.9, 1.6);
                    (min, size.max(Vec2::splat(0.8)), Texture::plain(day))
                }
                1 => {
                    let colour = any_colour(random);
                    (min.with_y(0.0), Vec2::new(0.9, 2.05), Texture::plain(colour))
                }
                _ => (min, size, any_texture(random)),
            };
            let frame = random.chance(0.8).then(|| (random.between(0.015, 0.06), any_colour(random)));
            Panel { min, max: min + size, texture, frame }
        };
        (0..random.below(most + 1)).map(|_| picture(random)).collect()
    }

    fn outdoors(depth_m: f32, cluttered: bool, random: &mut Random) -> Self {
        let floor = match random.below(4) {
            0 => {
                let green = hsv(random.between(0.18, 0.32), random.between(0.3, 0.7), random.between(0.3, 0.6));
                Texture::new(Pattern::Clouds, [green * 0.7, green * 1.2], random.between(0.3, 1.0), random)
            }
            1 => {
                let sand = hsv(random.between(0.07, 0.13), random.between(0.1, 0.4), random.between(0.5, 0.85));
                Texture::new(Pattern::Clouds, [sand * 0.85, sand * 1.1], random.between(0.4, 1.2), random)
            }
            2 => {
                let stone = Vec3::splat(random.between(0.15, 0.5));
                Texture::new(Pattern::Bricks, [stone, stone * 0.55], random.between(0.3, 0.9), random)
            }
            _ => Texture::plain(Vec3::splat(random.between(0.06, 0.35))),
        };
        let far = depth_m.max(9.0) + random.between(0.0, 18.0);
        let house = |random: &mut Random| {
            let min = Vec2::new(random.between(-1.3, 1.3) * far, 0.0);
            let size = Vec2::new(random.between(0.15, 0.6) * far, random.between(0.12, 0.6) * far);
            let wall = hsv(random.between(0.02, 0.14), random.between(0.0, 0.5), random.between(0.25, 0.85));
            let windows = wall * if random.chance(0.5) { 0.35 } else { 1.5 };
            let patterns = [Pattern::Checks, Pattern::Checks, Pattern::Plain, Pattern::Stripes, Pattern::Bricks];
            let pattern = random.pick(&patterns);
            let texture = Texture::new(pattern, [wall, windows], random.between(0.7, 2.2), random);
            Panel { min, max: min + size, texture, frame: None }
        };
        let tree = |random: &mut Random| {
            let min = Vec2::new(random.between(-1.2, 1.2) * far, 0.0);
            let size = Vec2::new(random.between(0.2, 1.2) * far, random.between(0.04, 0.22) * far);
            let green = hsv(random.between(0.2, 0.4), random.between(0.3, 0.7), random.between(0.15, 0.45));
            let texture = Texture::new(Pattern::Clouds, [green * 0.5, green * 1.3], 0.8, random);
            Panel { min, max: min + size, texture, frame: None }
        };
        // The nearest is the first that is found.
        let mut panels: Vec<_> = (0..=random.below(6)).map(|_| tree(random)).collect();
        panels.extend((0..random.below(if cluttered { 14 } else { 7 })).map(|_| house(random)));
        let walls = vec![Wall { normal: Vec3::Z, distance: far, texture: None, panels, skirting: None }];
        let zenith = hsv(random.between(0.55, 0.62), random.between(0.1, 0.65), random.between(0.6, 1.0));
        Self { floor, walls, zenith, horizon: zenith.lerp(Vec3::splat(0.95), 0.75) }
    }

    /// A bare place of two textures.
    fn hall(depth_m: f32, cluttered: bool, random: &mut Random) -> Self {
        let tone = hsv(random.unit(), random.between(0.0, 0.45), random.between(0.25, 0.95));
        let back = if cluttered { any_texture(random) } else { Texture::plain(tone) };
        let floor =
            if random.chance(0.5) { Texture::plain(tone * random.between(0.6, 1.0)) } else { any_texture(random) };
        let panels = Self::pictures(if cluttered { 20 } else { 1 }, 3.0, random);
        let wall = Wall { normal: Vec3::Z, distance: depth_m, texture: Some(back), panels, skirting: None };
        Self { floor, walls: vec![wall], zenith: tone, horizon: tone }
    }

    /// The light that comes along a ray of one metre's depth, and whether it comes from the ground.
    fn seen(&self, noise: &Noise, light: &Light, eye: Vec3, ray: Vec3, px_per_m: f32) -> (Vec3, bool) {
        let to_ground = if ray.y < -1e-4 { -eye.y / ray.y } else { f32::INFINITY };
        let mut nearest = to_ground;
        let mut hit = None;
        for wall in &self.walls {
            let along = -wall.normal.dot(ray);
            let depth = (wall.distance + wall.normal.dot(eye)) / along;
            if along > 1e-4 && depth > 0.0 && depth < nearest {
                let p = eye + ray * depth;
                let on_wall = Vec2::new(p.dot(Vec3::Y.cross(wall.normal)), p.y);
                if let Some(colour) = wall.at(noise, on_wall, depth / px_per_m) {
                    // Corners are darker.
                    let corner = 1.0 - 0.25 * (1.0 - p.y).max(0.0).powi(3);
                    hit = Some(light.on(colour * corner, wall.normal));
                    nearest = depth;
                }
            }
        }
        if let Some(colour) = hit {
            return (colour, false);
        }
        if to_ground < 80.0 {
            let p = eye + ray * to_ground;
            // Seen at a slant, a pixel covers more.
            let footprint = to_ground / px_per_m * (ray.length() / -ray.y).min(12.0) * 0.6;
            let colour = light.on(self.floor.at(noise, Vec2::new(p.x, p.z), footprint), Vec3::Y);
            let haze = if self.walls.iter().all(|wall| wall.texture.is_none()) { to_ground / 110.0 } else { 0.0 };
            return (colour.lerp(self.horizon, haze), true);
        }
        let up = (ray.y / ray.length()).clamp(0.0, 1.0);
        (self.horizon.lerp(self.zenith, (up * 2.2).min(1.0).sqrt()), false)
    }

    /// Draws the place and what stands in it.
    pub fn draw(&self, noise: &Noise, light: &Light, viewpoint: &Viewpoint, solids: &[Solid]) -> Backdrop {
        let [width, height] = viewpoint.size.map(|side| side as usize);
        let mut colour = vec![Vec3::ZERO; width * height];
        let mut ground = vec![false; width * height];
        let rows = colour.par_chunks_mut(width).zip(ground.par_chunks_mut(width));
        rows.enumerate().for_each(|(y, (colours, grounds))| {
            for (x, (colour, ground)) in colours.iter_mut().zip(grounds).enumerate() {
                let ray = viewpoint.ray(Vec2::new(x as f32, y as f32));
                (*colour, *ground) = self.seen(noise, light, viewpoint.eye_m, ray, viewpoint.intrinsics.fx);
            }
        });
        let mut backdrop = Backdrop { colour, inverse_depth: vec![0.0; width * height], ground };
        backdrop.shade_ground(light, viewpoint, |mask| {
            for solid in solids {
                let shadow: Vec<_> = solid.vertices_m.iter().map(|&p| light.shadow_px(viewpoint, p)).collect();
                for face in &solid.faces {
                    mask.add(face.map(|v| shadow[v as usize]));
                }
            }
        });
        for solid in solids {
            backdrop.add(noise, light, viewpoint, solid);
        }
        backdrop
    }
}

impl Wall {
    /// The colour of a place on the wall; `None` where there is nothing.
    fn at(&self, noise: &Noise, p: Vec2, footprint_m: f32) -> Option<Vec3> {
        for panel in &self.panels {
            if p.cmpge(panel.min).all() && p.cmplt(panel.max).all() {
                let edge = (p - panel.min).min(panel.max - p).min_element();
                return Some(match panel.frame {
                    Some((width, colour)) if edge < width => colour,
                    _ => panel.texture.at(noise, p - panel.min, footprint_m),
                });
            }
        }
        if let Some(colour) = self.skirting.filter(|_| p.y < 0.08) {
            return Some(colour);
        }
        self.texture.as_ref().map(|texture| texture.at(noise, p, footprint_m))
    }
}

impl Backdrop {
    /// Darkens the ground where `fill` says that the light does not come.
    pub fn shade_ground(&mut self, light: &Light, viewpoint: &Viewpoint, fill: impl FnOnce(&mut Mask)) {
        let mut mask = Mask::new(viewpoint.size);
        fill(&mut mask);
        let metre_px = viewpoint.intrinsics.fx / 3.5;
        mask.soften(((light.softness_m * metre_px).round() as usize).max(1));
        for (at, covered) in mask.iter() {
            if self.ground[at] {
                self.colour[at] *= 1.0 - light.shadow * covered;
            }
        }
    }

    /// Puts a thing before what is there.
    pub fn add(&mut self, noise: &Noise, light: &Light, viewpoint: &Viewpoint, solid: &Solid) {
        let width = viewpoint.size[0] as usize;
        let projected: Vec<_> = solid.vertices_m.iter().map(|&p| viewpoint.projected(viewpoint.camera(p))).collect();
        for face in &solid.faces {
            let corners = face.map(|v| projected[v as usize]);
            let normals = face.map(|v| solid.normals[v as usize]);
            let Self { colour, inverse_depth, ground } = self;
            triangle(viewpoint.size, corners, Facing::Front, |at, inverse| {
                if inverse <= inverse_depth[at] {
                    return;
                }
                let px = Vec2::new((at % width) as f32, (at / width) as f32);
                let w = weights(corners, px);
                let normal = (normals[0] * w.x + normals[1] * w.y + normals[2] * w.z).normalize_or_zero();
                let p = viewpoint.eye_m + viewpoint.ray(px) / inverse;
                let side = normal.abs();
                // The texture is laid on from the side that it is seen best from.
                let flat = if side.y > side.x.max(side.z) {
                    Vec2::new(p.x, p.z)
                } else {
                    Vec2::new(if side.x > side.z { p.z } else { p.x }, p.y)
                };
                let depth = inverse.recip();
                colour[at] = light.on(solid.texture.at(noise, flat, viewpoint.footprint_m(depth)), normal);
                inverse_depth[at] = inverse;
                ground[at] = false;
            });
        }
    }
}
