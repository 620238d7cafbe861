//! What lights a scene: a lamp or the sun from one direction, and the sky or the walls from everywhere.

use std::f32::consts::TAU;

use glam::Vec3;

use super::random::Random;
use super::raster::Viewpoint;
use super::texture::hsv;

/// The light of a scene.
#[derive(Clone, Debug)]
pub struct Light {
    /// Towards the sun, in the world; never near the horizon.
    pub towards: Vec3,
    sun: Vec3,
    sky: Vec3,
    bounce: Vec3,
    /// How dark its shadows are, in `[0, 1]`.
    pub shadow: f32,
    /// How far a shadow's edge goes, metres.
    pub softness_m: f32,
}

impl Light {
    /// Any daylight or lamp.
    pub fn random(random: &mut Random) -> Self {
        let azimuth = random.between(0.0, TAU);
        let elevation = random.between(0.55_f32, 1.35);
        let towards = Vec3::new(azimuth.cos() * elevation.cos(), elevation.sin(), azimuth.sin() * elevation.cos());
        // From overcast to hard light; warm sun goes with a cool sky.
        let hardness = random.between(0.25, 0.75);
        let warmth = random.between(-0.5, 1.0);
        let warm = |amount: f32| {
            let hue = if amount > 0.0 { 0.09 } else { 0.6 };
            hsv(hue, amount.abs() * 0.3, 1.0)
        };
        let sun = warm(warmth) * hardness * 1.5;
        let sky = warm(-warmth * 0.6) * (1.05 - hardness * 0.75);
        let bounce = sky * random.between(0.35, 0.75);
        Self { towards, sun, sky, bounce, shadow: 0.2 + hardness * 0.7, softness_m: random.between(0.015, 0.09) }
    }

    /// What a surface of a colour sends back; `normal` in the world.
    pub fn on(&self, colour: Vec3, normal: Vec3) -> Vec3 {
        let ambient = self.bounce.lerp(self.sky, 0.5 + 0.5 * normal.y);
        // A little light goes around edges, as in skin and cloth.
        let lambert = ((normal.dot(self.towards) + 0.15) / 1.15).max(0.0);
        colour * (ambient + self.sun * lambert)
    }

    /// Where a point throws its shadow on the ground, as from [`Viewpoint::projected`].
    pub fn shadow_px(&self, viewpoint: &Viewpoint, p_world_m: Vec3) -> Vec3 {
        let on_ground = p_world_m - self.towards * (p_world_m.y.max(0.0) / self.towards.y);
        viewpoint.projected(viewpoint.camera(on_ground))
    }
}
