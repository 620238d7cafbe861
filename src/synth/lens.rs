//! From light to a picture: lens, sensor, and what a camera makes of it.

use glam::Vec3;
use image::RgbImage;
use rayon::prelude::*;

use super::random::Random;
use super::texture::hsv;

/// How a camera spoils a picture.
#[derive(Clone, Debug)]
pub struct Lens {
    /// Light to signal, each channel: exposure and white balance.
    gain: Vec3,
    /// Share of the neighbours in a pixel, on each side, and how often.
    blur: f32,
    blurs: usize,
    /// Deviation of the noise, in the picture's values of 0 to 1.
    noise: f32,
    /// How much darker the corners are.
    vignette: f32,
    /// Light that strays everywhere: low contrast.
    haze: f32,
}

/// A tile of normal numbers, and the curve from linear light to the values of a picture.
#[derive(Clone, Debug)]
pub struct Sensor {
    grain: Vec<f32>,
    curve: Vec<f32>,
}

const GRAIN: usize = 1 << 16;
const CURVE: usize = 1 << 12;

impl Sensor {
    /// The one sensor of all cameras.
    pub fn new() -> Self {
        let mut random = Random::new(0x5E45);
        let grain = (0..GRAIN).map(|_| random.normal()).collect();
        let value = |i: usize| {
            let light = i as f32 / CURVE as f32 * 1.6;
            // sRGB's curve, bending softly where it becomes too bright.
            let light = if light > 0.7 { 0.7 + 0.3 * (1.0 - (-(light - 0.7) / 0.3).exp()) } else { light };
            if light <= 0.003_130_8 { 12.92 * light } else { 1.055 * light.powf(1.0 / 2.4) - 0.055 }
        };
        Self { grain, curve: (0..=CURVE).map(value).collect() }
    }

    fn value(&self, light: f32) -> f32 {
        self.curve[((light * (CURVE as f32 / 1.6)).max(0.0) as usize).min(CURVE)]
    }
}

impl Lens {
    /// A camera for pictures of this width: a good one, or any.
    pub fn random(good: bool, width: u32, random: &mut Random) -> Self {
        let spread = if good { 0.12 } else { 0.4 };
        let exposure = (random.normal() * spread).clamp(-0.8, 0.6).exp();
        let tint = hsv(random.unit(), random.unit() * if good { 0.04 } else { 0.16 }, 1.0);
        // Half a pixel of blur is as soft in a small picture as one in a large one.
        let fine = (width as f32 / 640.0).sqrt();
        Self {
            gain: tint * exposure,
            blur: random.between(0.0, if good { 0.12 } else { 0.28 }),
            blurs: if good || random.chance(0.7) { 1 } else { 1 + (3.0 * fine).round() as usize },
            noise: if good { random.between(0.003, 0.012) } else { random.log_between(0.004, 0.06) },
            vignette: random.between(0.0, 0.35),
            haze: if good { 0.0 } else { (random.normal() * 0.03).max(0.0) },
        }
    }

    /// Takes the picture. `shot` is the number of the frame: noise is new in each.
    pub fn develop(&self, sensor: &Sensor, [width, height]: [u32; 2], light: &mut [Vec3], shot: u64) -> RgbImage {
        let columns = width as usize;
        for _ in 0..self.blurs {
            self.soften(columns, light);
        }
        let mut rgb = vec![0_u8; light.len() * 3];
        let half = Vec3::new(width as f32, height as f32, 0.0) * 0.5;
        rgb.par_chunks_mut(columns * 3).zip(light.par_chunks(columns)).enumerate().for_each(|(y, (row, light))| {
            let mut random = Random::fork(shot, y as u64);
            let start = random.below(GRAIN);
            let vertical = ((y as f32 - half.y) / half.y).powi(2);
            for (x, (out, light)) in row.as_chunks_mut::<3>().0.iter_mut().zip(light).enumerate() {
                let from_centre = vertical + ((x as f32 - half.x) / half.x).powi(2);
                let seen = *light * self.gain * (1.0 - self.vignette * 0.5 * from_centre) + self.haze;
                for (channel, out) in out.iter_mut().enumerate() {
                    let grain = sensor.grain[(start + x * 3 + channel) % GRAIN] * self.noise;
                    *out = ((sensor.value(seen[channel]) + grain) * 255.0 + 0.5).clamp(0.0, 255.0) as u8;
                }
            }
        });
        RgbImage::from_raw(width, height, rgb).unwrap_or_default()
    }

    /// A small blur in both directions.
    fn soften(&self, columns: usize, light: &mut [Vec3]) {
        let k = self.blur;
        if k < 0.02 {
            return;
        }
        let mut across = vec![Vec3::ZERO; light.len()];
        across.par_chunks_mut(columns).zip(light.par_chunks(columns)).for_each(|(out, row)| {
            for x in 0..columns {
                let sides = row[x.saturating_sub(1)] + row[(x + 1).min(columns - 1)];
                out[x] = row[x] * (1.0 - 2.0 * k) + sides * k;
            }
        });
        let rows = light.len() / columns;
        light.par_chunks_mut(columns).enumerate().for_each(|(y, out)| {
            let row = |y: usize| &across[y * columns..(y + 1) * columns];
            let (above, here, below) = (row(y.saturating_sub(1)), row(y), row((y + 1).min(rows - 1)));
            for x in 0..columns {
                out[x] = here[x] * (1.0 - 2.0 * k) + (above[x] + below[x]) * k;
            }
        });
    }
}
