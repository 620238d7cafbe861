//! Things that stand around: made of boxes, cylinders and balls.

use std::f32::consts::TAU;

use glam::{Quat, Vec2, Vec3};

use super::random::Random;
use super::texture::{Pattern, Texture, any_colour, hsv};

/// A closed surface of one texture, in the world.
#[derive(Clone, Debug)]
pub struct Solid {
    /// Corners, metres.
    pub vertices_m: Vec<Vec3>,
    /// One a corner.
    pub normals: Vec<Vec3>,
    /// Triangles, counter-clockwise seen from outside.
    pub faces: Vec<[u32; 3]>,
    /// What it is painted with.
    pub texture: Texture,
}

impl Solid {
    /// A box of half sizes around a centre.
    pub fn cuboid(centre: Vec3, half: Vec3, turn: Quat, texture: Texture) -> Self {
        let (mut vertices_m, mut normals, mut faces) = (Vec::new(), Vec::new(), Vec::new());
        for axis in 0..3 {
            for sign in [-1.0, 1.0] {
                let mut out = Vec3::ZERO;
                out[axis] = sign;
                let (mut u, mut v) = (Vec3::ZERO, Vec3::ZERO);
                u[(axis + 1) % 3] = sign;
                v[(axis + 2) % 3] = 1.0;
                let first = vertices_m.len() as u32;
                for corner in [-u - v, u - v, u + v, v - u] {
                    vertices_m.push(centre + turn * ((out + corner) * half));
                    normals.push(turn * out);
                }
                faces.extend([[first, first + 1, first + 2], [first, first + 2, first + 3]]);
            }
        }
        Self { vertices_m, normals, faces, texture }
    }

    /// What turns around an axis through `base`: rings of (height, radius), closed at both ends.
    pub fn turned(base: Vec3, turn: Quat, rings: &[[f32; 2]], texture: Texture) -> Self {
        const SPOKES: u32 = 20;
        let (mut vertices_m, mut normals, mut faces) = (Vec::new(), Vec::new(), Vec::new());
        for (i, &[height, radius]) in rings.iter().enumerate() {
            let before = rings[i.saturating_sub(1)];
            let after = rings[(i + 1).min(rings.len() - 1)];
            let slope = Vec2::new(after[0] - before[0], before[1] - after[1]).normalize_or(Vec2::X);
            for spoke in 0..SPOKES {
                let angle = TAU * spoke as f32 / SPOKES as f32;
                let out = Vec3::new(angle.cos(), 0.0, angle.sin());
                vertices_m.push(base + turn * (out * radius + Vec3::Y * height));
                normals.push(turn * (out * slope.x + Vec3::Y * slope.y));
            }
        }
        for ring in 0..rings.len() as u32 - 1 {
            for spoke in 0..SPOKES {
                let [a, b] = [spoke, (spoke + 1) % SPOKES].map(|s| ring * SPOKES + s);
                let [c, d] = [a + SPOKES, b + SPOKES];
                faces.extend([[a, c, b], [b, c, d]]);
            }
        }
        Self { vertices_m, normals, faces, texture }
    }

    /// An upright cylinder on a base.
    pub fn cylinder(base: Vec3, radius: f32, height: f32, texture: Texture) -> Self {
        let rings = [[0.0, 0.0], [0.0, radius], [0.0, radius], [height, radius], [height, radius], [height, 0.0]];
        Self::turned(base, Quat::IDENTITY, &rings, texture)
    }

    /// A ball, wider or narrower than it is high by `width`.
    pub fn ball(centre: Vec3, radius: f32, width: f32, texture: Texture) -> Self {
        let ring = |i: i32| {
            let angle = (i as f32 / 10.0 - 0.5) * std::f32::consts::PI;
            [radius * angle.sin(), radius * width * angle.cos().max(0.0)]
        };
        let rings: Vec<_> = (0..=10).map(ring).collect();
        Self::turned(centre, Quat::IDENTITY, &rings, texture)
    }
}

/// The texture of some thing.
pub fn any_texture(random: &mut Random) -> Texture {
    let colours = [any_colour(random), any_colour(random)];
    let patterns = [
        Pattern::Plain,
        Pattern::Plain,
        Pattern::Clouds,
        Pattern::Boards,
        Pattern::Stripes,
        Pattern::Checks,
        Pattern::Dots,
        Pattern::Lines,
        Pattern::Bricks,
        Pattern::Camouflage,
        Pattern::Plaid,
    ];
    let pattern = random.pick(&patterns);
    let size_m = random.log_between(0.05, 0.4);
    Texture::new(pattern, colours, size_m, random)
}

fn wood(random: &mut Random) -> Texture {
    let dark = hsv(random.between(0.05, 0.1), random.between(0.3, 0.6), random.between(0.25, 0.5));
    Texture::new(Pattern::Boards, [dark, dark * random.between(1.4, 2.2)], random.between(0.08, 0.15), random)
}

/// A thing, at most `radius` metres from a place on the ground.
pub fn thing(place: Vec2, radius: f32, random: &mut Random) -> Vec<Solid> {
    let at = |x: f32, y: f32, z: f32| Vec3::new(place.x + x, y, place.y + z);
    let turn = Quat::from_rotation_y(random.between(0.0, TAU));
    match random.below(7) {
        // A table or a bench.
        0 => {
            let (half, height) = (Vec2::new(radius * 0.85, radius * 0.45), random.between(0.4, 0.85));
            let texture = wood(random);
            let mut parts =
                vec![Solid::cuboid(at(0.0, height, 0.0), Vec3::new(half.x, 0.025, half.y), turn, texture.clone())];
            for corner in [[-1.0, -1.0], [1.0, -1.0], [-1.0, 1.0], [1.0, 1.0]] {
                let leg = turn * Vec3::new(corner[0] * half.x * 0.88, height * 0.5, corner[1] * half.y * 0.8);
                let size = Vec3::new(0.025, height * 0.5, 0.025);
                parts.push(Solid::cuboid(at(leg.x, leg.y, leg.z), size, turn, texture.clone()));
            }
            parts
        }
        // A plant.
        1 => {
            let pot = Texture::plain(any_colour(random));
            let (height, wide) = (random.between(0.25, 0.45), radius * 0.45);
            let mut parts = vec![Solid::cylinder(at(0.0, 0.0, 0.0), wide, height, pot)];
            let green = hsv(random.between(0.2, 0.4), random.between(0.4, 0.8), random.between(0.2, 0.55));
            for _ in 0..5 {
                let leaf = Texture::new(Pattern::Clouds, [green * 0.5, green * 1.3], 0.1, random);
                let [x, z] = [0, 1].map(|_| random.between(-0.35, 0.35) * radius);
                let size = random.between(0.25, 0.5) * radius;
                let y = height + random.between(0.3, 2.2) * radius;
                parts.push(Solid::ball(at(x, y, z), size, random.between(0.6, 1.3), leaf));
            }
            parts
        }
        // A lamp.
        2 => {
            let metal = Texture::plain(any_colour(random));
            let height = random.between(1.2, 1.8);
            let shade = Texture::plain(hsv(random.between(0.05, 0.17), random.between(0.0, 0.4), 1.0) * 1.2);
            let cone = [[0.0, 0.18], [0.0, 0.18], [0.28, 0.1], [0.28, 0.0]];
            vec![
                Solid::cylinder(at(0.0, 0.0, 0.0), 0.14_f32.min(radius), 0.03, metal.clone()),
                Solid::cylinder(at(0.0, 0.0, 0.0), 0.018, height, metal),
                Solid::turned(at(0.0, height - 0.05, 0.0), turn, &cone, shade),
            ]
        }
        // A shelf or a cupboard.
        3 => {
            let (half, height) = (Vec2::new(radius * 0.8, radius * 0.35), random.between(0.7, 2.1));
            let body = if random.chance(0.6) { wood(random) } else { any_texture(random) };
            let size = Vec3::new(half.x, height * 0.5, half.y);
            let mut parts = vec![Solid::cuboid(at(0.0, height * 0.5, 0.0), size, turn, body)];
            if random.chance(0.6) {
                let side = random.between(0.06, 0.16);
                let top = height + side;
                parts.push(Solid::ball(at(0.0, top, 0.0), side, random.between(0.6, 1.0), any_texture(random)));
            }
            parts
        }
        // A ball.
        4 => {
            let size = radius * random.between(0.3, 0.8);
            vec![Solid::ball(at(0.0, size, 0.0), size, 1.0, any_texture(random))]
        }
        // A barrel or a pillar.
        5 => {
            let height = random.log_between(0.4, 2.6);
            vec![Solid::cylinder(at(0.0, 0.0, 0.0), radius * random.between(0.25, 0.6), height, any_texture(random))]
        }
        // A pile of boxes.
        _ => {
            let mut parts = Vec::new();
            let (mut top, mut half) = (0.0, radius * 0.65);
            for _ in 0..=random.below(3) {
                let height = random.between(0.12, 0.3);
                let turn = Quat::from_rotation_y(random.between(0.0, TAU));
                let size = Vec3::new(half, height, half * random.between(0.6, 1.0));
                parts.push(Solid::cuboid(at(0.0, top + height, 0.0), size, turn, any_texture(random)));
                top += 2.0 * height;
                half *= 0.8;
            }
            parts
        }
    }
}

/// Something of any form in the air, which nobody can name: it hides and confuses.
pub fn floater(centre: Vec3, radius: f32, random: &mut Random) -> Solid {
    let turn = Quat::from_scaled_axis(Vec3::new(random.normal(), random.normal(), random.normal()));
    if random.chance(0.6) {
        let half = Vec3::new(random.between(0.2, 1.0), random.between(0.1, 0.7), random.between(0.05, 0.4));
        Solid::cuboid(centre, half.normalize() * radius, turn, any_texture(random))
    } else {
        Solid::ball(centre, radius * random.between(0.5, 1.0), random.between(0.5, 1.0), any_texture(random))
    }
}

/// A stool whose seat is at a height.
pub fn stool(place: Vec2, seat_m: f32, random: &mut Random) -> Vec<Solid> {
    let texture = if random.chance(0.6) { wood(random) } else { any_texture(random) };
    let half = random.between(0.15, 0.2);
    let base = Vec3::new(place.x, 0.0, place.y);
    if random.chance(0.5) {
        let height = seat_m * 0.5;
        let turn = Quat::from_rotation_y(random.between(0.0, TAU));
        return vec![Solid::cuboid(base + Vec3::Y * height, Vec3::new(half, height, half), turn, texture)];
    }
    let seat = Solid::cylinder(base + Vec3::Y * (seat_m - 0.05), half, 0.05, texture.clone());
    vec![seat, Solid::cylinder(base, 0.04, seat_m, texture.clone()), Solid::cylinder(base, half, 0.03, texture)]
}
