//! What people look like: skin, hair, faces, clothes. All of it is painted on the body at rest, by place, so that it
//! moves with the skin and has sharp edges at any size.

use anyhow::{Context, Result};
use glam::{Vec2, Vec3};

use super::random::Random;
use super::texture::{Noise, Pattern, Texture, any_colour, hsv, srgb};
use crate::body::Topology;

/// Where the parts of the body are on the mean shape at rest, metres.
#[derive(Clone, Debug)]
pub struct Marks {
    neck: Vec3,
    head: Vec3,
    nose: Vec3,
    left_eye: Vec3,
    shoulder: Vec3,
    elbow_x: f32,
    wrist_x: f32,
    hip_y: f32,
    crotch_y: f32,
    knee_y: f32,
    ankle_y: f32,
    ground_y: f32,
}

impl Marks {
    /// From the joints of the mean shape.
    pub fn new(topology: &Topology, template_m: &[Vec3]) -> Result<Self> {
        let joints = topology.joints(template_m).context("the body has no joints")?;
        let joint = |name: &str| {
            let at = topology.skeleton.names.iter().position(|n| n == name);
            at.map(|at| joints[at]).with_context(|| format!("the body has no {name}"))
        };
        let hip = joint("left_hip")?;
        Ok(Self {
            neck: joint("neck")?,
            head: joint("head")?,
            nose: joint("nose")?,
            left_eye: joint("left_eye")?,
            shoulder: joint("left_shoulder")?,
            elbow_x: joint("left_elbow")?.x,
            wrist_x: joint("left_wrist")?.x,
            hip_y: hip.y,
            crotch_y: hip.y - 0.08,
            knee_y: joint("left_knee")?.y,
            ankle_y: joint("left_ankle")?.y,
            ground_y: template_m.iter().map(|p| p.y).fold(f32::INFINITY, f32::min),
        })
    }
}

/// One person's appearance.
#[derive(Clone, Debug)]
pub struct Looks {
    marks: Marks,
    skin: Vec3,
    lips: Vec3,
    eyes: Vec3,
    hair: Texture,
    /// How low hair grows at the forehead, above the eyes, metres; none where it is high.
    hairline_m: f32,
    /// How far down it hangs behind, from the height of the nose.
    hair_length_m: f32,
    beard: bool,
    hat: Option<Texture>,
    top: Texture,
    bottom: Texture,
    shoes: Vec3,
    socks: Vec3,
    /// How far sleeves go, from the shoulder along x.
    sleeve_x: f32,
    /// How low the top goes.
    top_y: f32,
    /// How low trousers or the skirt go.
    hem_y: f32,
    sock_y: f32,
    shoe_y: f32,
    neckline_m: f32,
    belt: Option<Vec3>,
    gloves: Option<Vec3>,
}

/// Tones of skin from light to dark, after photographs of people, sRGB.
pub const SKIN: [[u8; 3]; 9] = [
    [246, 215, 195],
    [238, 200, 172],
    [226, 182, 150],
    [208, 158, 122],
    [190, 138, 100],
    [163, 112, 78],
    [132, 87, 60],
    [98, 63, 45],
    [70, 46, 36],
];

const HAIR: [[u8; 3]; 10] = [
    [20, 17, 16],
    [34, 25, 21],
    [54, 37, 27],
    [84, 56, 37],
    [116, 80, 50],
    [158, 118, 72],
    [206, 170, 115],
    [138, 62, 33],
    [168, 164, 160],
    [224, 220, 214],
];

/// Something to wear.
pub fn cloth(random: &mut Random) -> Texture {
    let colours = [any_colour(random), any_colour(random)];
    let patterns = [
        Pattern::Plain,
        Pattern::Plain,
        Pattern::Plain,
        Pattern::Plain,
        Pattern::Stripes,
        Pattern::Lines,
        Pattern::Checks,
        Pattern::Plaid,
        Pattern::Dots,
        Pattern::Camouflage,
        Pattern::Clouds,
    ];
    let pattern = random.pick(&patterns);
    let size_m = random.log_between(0.03, 0.14);
    Texture::new(pattern, colours, size_m, random)
}

impl Looks {
    /// Anyone.
    pub fn random(marks: &Marks, random: &mut Random) -> Self {
        let skin = srgb(random.pick(&SKIN)) * random.between(0.88, 1.1);
        let hair = if random.chance(0.06) {
            hsv(random.unit(), 0.6, 0.6)
        } else {
            srgb(random.pick(&HAIR)) * random.between(0.8, 1.2)
        };
        let hair = Texture::new(Pattern::Lines, [hair, hair * 0.6], 0.012, random);
        let bald = random.chance(0.07);
        let long = random.chance(0.45);
        let top = cloth(random);
        let legs = random.below(10);
        let bottom = match legs {
            // Blue or black trousers, or any.
            0..=2 => {
                Texture::plain(hsv(random.between(0.58, 0.64), random.between(0.3, 0.65), random.between(0.2, 0.6)))
            }
            3..=4 => Texture::plain(Vec3::splat(random.between(0.01, 0.12))),
            5 => top.clone(),
            _ => cloth(random),
        };
        let long_leg = marks.ankle_y + random.between(-0.01, 0.1);
        let hem_y = match random.below(4) {
            0 => marks.knee_y + random.between(-0.08, 0.16),
            1 if random.chance(0.3) => marks.crotch_y + random.between(-0.06, 0.0),
            _ => long_leg,
        };
        let sleeve_x = match random.below(10) {
            0..=3 => marks.shoulder.x + (marks.elbow_x - marks.shoulder.x) * random.between(0.3, 1.0),
            4 => marks.shoulder.x + 0.01,
            _ => marks.wrist_x - random.between(0.0, 0.05),
        };
        let sock_y = marks.ankle_y + random.between(0.02, 0.2);
        Self {
            marks: marks.clone(),
            skin,
            lips: skin * Vec3::new(0.85, 0.5, 0.52),
            eyes: srgb(random.pick(&[[70, 45, 30], [40, 28, 22], [60, 90, 120], [70, 95, 60]])),
            hair,
            hairline_m: if bald { 0.3 } else { random.between(0.045, 0.075) },
            hair_length_m: if long { random.between(0.06, 0.28) } else { random.between(-0.03, 0.05) },
            beard: !long && random.chance(0.3),
            hat: random.chance(0.1).then(|| cloth(random)),
            top_y: marks.hip_y + random.between(-0.12, 0.1),
            top,
            bottom,
            shoes: if random.chance(0.5) { Vec3::splat(random.between(0.01, 0.8)) } else { any_colour(random) },
            socks: if random.chance(0.7) { Vec3::splat(random.between(0.02, 0.8)) } else { any_colour(random) },
            sleeve_x,
            hem_y,
            sock_y: if random.chance(0.2) { marks.ground_y } else { sock_y },
            shoe_y: marks.ankle_y + random.between(-0.03, 0.05),
            neckline_m: random.between(0.0, 0.11),
            belt: random.chance(0.3).then(|| Vec3::splat(random.between(0.01, 0.1))),
            gloves: random.chance(0.04).then(|| any_colour(random)),
        }
    }

    /// The colour of a place on the body at rest.
    pub fn at(&self, noise: &Noise, p: Vec3, footprint_m: f32) -> Vec3 {
        let marks = &self.marks;
        let out = p.x.abs();
        let cloth = |texture: &Texture, p: Vec2| texture.at(noise, p, footprint_m);
        // Around the body, not through it: what is behind is another part of the cloth.
        let around = Vec2::new(p.x + p.z * 0.7 + if p.z < 0.0 { 0.37 } else { 0.0 }, p.y);
        if out > marks.shoulder.x - 0.01 && p.y > marks.shoulder.y - 0.2 {
            return if out < self.sleeve_x {
                cloth(&self.top, Vec2::new(p.y + p.z, p.x))
            } else if out > marks.wrist_x - 0.01 {
                self.gloves.unwrap_or_else(|| self.skin_at(noise, p))
            } else {
                self.skin_at(noise, p)
            };
        }
        // A collar around the neck; the neckline is lower in front, and the chin hangs over it.
        let from_neck = Vec2::new(out, p.z - marks.neck.z - 0.01).length();
        let collar_y = marks.neck.y + 0.055 - if p.z > marks.neck.z { self.neckline_m } else { 0.0 };
        let bare = p.y > collar_y && from_neck < 0.075 + self.neckline_m * 0.35;
        let chin = p.y > marks.neck.y + 0.02 && p.z > marks.neck.z + 0.035 && out < 0.08;
        if p.y > marks.neck.y + 0.1 || bare || chin {
            return self.head_at(noise, p, footprint_m);
        }
        // Long hair lies on the back.
        if p.z < marks.neck.z - 0.01 && p.y > marks.nose.y - self.hair_length_m && out < 0.11 && self.hairline_m < 0.1 {
            return cloth(&self.hair, Vec2::new(p.x, p.z));
        }
        if p.y > self.top_y {
            return cloth(&self.top, around);
        }
        if let Some(belt) = self.belt.filter(|_| p.y > self.top_y - 0.035 && self.top_y > marks.hip_y - 0.03) {
            return belt;
        }
        if p.y > self.hem_y.max(self.shoe_y) {
            return cloth(&self.bottom, around);
        }
        if p.y < self.shoe_y {
            return if p.y < marks.ground_y + 0.018 { self.shoes * 0.25 + 0.02 } else { self.shoes };
        }
        if p.y < self.sock_y { self.socks } else { self.skin_at(noise, p) }
    }

    fn skin_at(&self, noise: &Noise, p: Vec3) -> Vec3 {
        self.skin * (0.93 + 0.14 * noise.at(Vec2::new(p.x + p.z, p.y) * 1.7))
    }

    fn head_at(&self, noise: &Noise, p: Vec3, footprint_m: f32) -> Vec3 {
        let marks = &self.marks;
        let eye = marks.left_eye;
        let out = p.x.abs();
        let above_eyes = p.y - eye.y;
        let hair = || self.hair.at(noise, Vec2::new(p.x, p.z) + p.y * 0.2, footprint_m);
        if let Some(hat) = self.hat.as_ref().filter(|_| above_eyes > 0.05) {
            return hat.at(noise, Vec2::new(p.x + p.z, p.y), footprint_m);
        }
        // The hairline runs from the forehead over the temples behind the ears.
        let behind = (marks.nose.z - 0.035 - p.z) / 0.1;
        let line = self.hairline_m - 0.16 * (behind - 0.25).clamp(0.0, 1.0);
        let low = marks.nose.y - self.hair_length_m;
        let grown = above_eyes > line.max(low - eye.y) || (behind > 0.95 && p.y > low);
        if grown && self.hairline_m < 0.1 {
            return hair();
        }
        let front = p.z > eye.z - 0.035 && p.y > marks.neck.y;
        if front {
            let from_eye = Vec2::new(out - eye.x, above_eyes);
            let round = |p: Vec2, w: f32, h: f32| (p / Vec2::new(w, h)).length_squared() < 1.0;
            if round(from_eye, 0.0055, 0.0055) {
                return self.eyes * 0.6;
            }
            if round(from_eye, 0.0125, 0.006) {
                return Vec3::splat(0.5);
            }
            if round(from_eye - Vec2::new(0.002, 0.021), 0.02, 0.0042) {
                return self.hair.mean() * 0.7;
            }
            let from_mouth = Vec2::new(out, p.y - (marks.nose.y - 0.042));
            if round(from_mouth, 0.026, 0.0075) {
                return self.lips;
            }
            let below = marks.nose.y - 0.02 - p.y;
            if self.beard && below > 0.0 && below < 0.12 && p.z > marks.head.z - 0.01 {
                return hair() * 0.5 + self.skin * 0.15;
            }
        }
        self.skin_at(noise, p)
    }
}
