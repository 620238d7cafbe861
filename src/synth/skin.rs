//! What hands look like: skin, its creases, nails; a ring, a glove, a sleeve. Painted on the hand at rest, by place.

use std::sync::Arc;

use glam::{Mat3, Quat, Vec2, Vec3};

use super::gesture::{Anatomy, BONES, FINGERS};
use super::looks::{SKIN, cloth};
use super::props::Solid;
use super::random::Random;
use super::texture::{Noise, Texture, any_colour, hsv, srgb};

/// One hand's appearance.
#[derive(Clone, Debug)]
pub struct HandLooks {
    anatomy: Arc<Anatomy>,
    skin: Vec3,
    palm: Vec3,
    nails: Vec3,
    /// How dark creases are.
    creases: f32,
    glove: Option<Texture>,
    /// Finger and colour.
    ring: Option<(usize, Vec3)>,
    /// A watch: where it begins and ends behind the wrist, metres.
    watch: Option<([f32; 2], Vec3)>,
    /// Where it begins, metres behind the wrist, and its colour; a bare arm has none.
    sleeve: Option<(f32, Texture)>,
}

/// The colour of some skin, in linear light.
pub fn any_skin(random: &mut Random) -> Vec3 {
    srgb(random.pick(&SKIN)) * random.between(0.88, 1.1)
}

impl HandLooks {
    /// Anyone's.
    pub fn random(anatomy: &Arc<Anatomy>, random: &mut Random) -> Self {
        let skin = any_skin(random);
        // Dark skin is light inside of the hand.
        let pale = srgb([238, 196, 172]);
        let palm = skin.lerp(pale * skin.max_element().max(0.3), random.between(0.25, 0.6));
        let nails = if random.chance(0.15) { any_colour(random) } else { skin.lerp(srgb([246, 205, 195]), 0.5) };
        let metal = hsv(random.between(0.1, 0.16), random.between(0.0, 0.6), random.between(0.5, 0.95));
        let band = random.between(0.008, 0.02);
        Self {
            anatomy: Arc::clone(anatomy),
            skin,
            palm,
            nails,
            creases: random.between(0.05, 0.35),
            glove: random.chance(0.05).then(|| cloth(random)),
            ring: random.chance(0.12).then(|| (1 + random.below(4), metal)),
            watch: random.chance(0.12).then(|| ([band, band + random.between(0.008, 0.022)], any_colour(random))),
            sleeve: random.chance(0.55).then(|| (random.between(-0.005, 0.12), Texture::plain(any_colour(random)))),
        }
    }

    /// The arm behind the hand, which is no part of it: bare, and from its hem on in its sleeve. `towards` the elbow,
    /// `back` is where the back of the hand looks.
    pub fn arm(&self, wrist_m: Vec3, towards: Vec3, back: Vec3) -> Vec<Solid> {
        // Thinner than it is wide, as the wrist is.
        const FLAT: f32 = 0.75;
        let across = back.cross(towards).normalize_or_zero();
        let turn = Quat::from_mat3(&Mat3::from_cols(towards.cross(across), towards, across));
        let limb = |rings: &[[f32; 2]], texture: &Texture| {
            let mut limb = Solid::turned(Vec3::ZERO, Quat::IDENTITY, rings, texture.clone());
            for (p, normal) in limb.vertices_m.iter_mut().zip(&mut limb.normals) {
                *p = wrist_m + turn * (*p * Vec3::new(FLAT, 1.0, 1.0));
                *normal = turn * (*normal * Vec3::new(1.0 / FLAT, 1.0, 1.0)).normalize_or_zero();
            }
            limb
        };
        let width = |along: f32| 0.026 + 0.06 * along;
        let mut solids = vec![limb(
            &[[0.0, 0.0], [0.0, width(0.0)], [0.06, width(0.06)], [0.27, width(0.27)], [0.27, 0.0]],
            &Texture::plain(self.skin),
        )];
        if let Some((hem, cloth)) = &self.sleeve {
            let loose = |along: f32| width(along) + 0.007;
            let hem = hem.max(0.0);
            solids.push(limb(&[[hem, width(hem) * 0.9], [hem, loose(hem)], [0.28, loose(0.28)], [0.28, 0.0]], cloth));
        }
        solids
    }

    /// The colour of a place on the hand at rest.
    pub fn at(&self, noise: &Noise, p: Vec3, footprint_m: f32) -> Vec3 {
        let on_cloth = |texture: &Texture| texture.at(noise, Vec2::new(p.x, p.z + 0.7 * p.y), footprint_m);
        let behind_wrist = p.x - self.anatomy.wrist.x;
        if let Some((_, sleeve)) = self.sleeve.as_ref().filter(|(begin, _)| behind_wrist > *begin) {
            return on_cloth(sleeve);
        }
        if let Some(glove) = &self.glove {
            return on_cloth(glove);
        }
        if let Some((_, colour)) = self.watch.filter(|([begin, end], _)| (*begin..*end).contains(&behind_wrist)) {
            return colour;
        }
        let uneven = 0.93 + 0.14 * noise.at(Vec2::new(p.x + p.z, p.y + p.z) * 3.0);
        let Some(place) = self.place(p) else {
            let inside = ((self.anatomy.wrist.y - p.y) / 0.008).clamp(0.0, 1.0);
            let inside = inside * (1.0 - behind_wrist / 0.015).clamp(0.0, 1.0);
            return self.skin.lerp(self.palm, inside) * uneven;
        };
        let Place { finger, bone, share, length_m, out } = place;
        let dorsal = self.anatomy.dorsal[finger].dot(out.normalize_or_zero());
        if bone == BONES - 2 && (0.45..0.92).contains(&share) && dorsal > 0.72 {
            return self.nails;
        }
        let is_worn = |worn: usize| (worn, bone) == (finger, 0) && (0.55..0.67).contains(&share);
        if let Some((_, metal)) = self.ring.filter(|(worn, _)| is_worn(*worn)) {
            return metal;
        }
        let from_joint_m = (share * length_m).min(if bone < BONES - 2 { (1.0 - share) * length_m } else { 1.0 });
        let crease = if bone == 0 && share < 0.5 { 1.0 } else { (from_joint_m / 0.0016).clamp(0.0, 1.0) };
        let inside = (0.2 - dorsal * 1.5).clamp(0.0, 1.0);
        self.skin.lerp(self.palm, inside) * uneven * (1.0 - self.creases * (1.0 - crease))
    }

    /// The bone of a finger that a place is at; `None` for the palm.
    fn place(&self, p: Vec3) -> Option<Place> {
        let mut nearest = (0.016_f32.powi(2), None);
        for finger in 0..FINGERS {
            for bone in 0..BONES - 1 {
                let [from, to] = [0, 1].map(|end| self.anatomy.fingers[finger][bone + end]);
                let along = to - from;
                let share = ((p - from).dot(along) / along.length_squared()).clamp(0.0, 1.0);
                let out = p - (from + along * share);
                // What is nearest to the root of a finger is the palm.
                if out.length_squared() < nearest.0 && (bone > 0 || share > 0.0) {
                    nearest =
                        (out.length_squared(), Some(Place { finger, bone, share, length_m: along.length(), out }));
                }
            }
        }
        nearest.1
    }
}

/// A place on a finger: how far along which bone, and where from the bone, metres.
struct Place {
    finger: usize,
    bone: usize,
    share: f32,
    length_m: f32,
    out: Vec3,
}
