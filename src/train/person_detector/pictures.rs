//! Pictures for the detector without an end: photographs of synthetic scenes, each seen in several ways, as the
//! detector sees frames ([`letterbox`](crate::detect::letterbox)): whole or a part of it, larger or smaller, mirrored,
//! in other colours, with more noise.
//!
//! A picture follows from its index and the seed alone. A scene costs as much as several steps of training, so that its
//! photograph is used [`VIEWS`] times, far enough apart for no batch to see it twice.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use glam::Vec2;
use image::RgbImage;

use super::targets::Target;
use crate::detect::letterbox::Letterbox;
use crate::space::RectPx;
use crate::synth::random::Random;
use crate::synth::{Kind, Photo, Scene, Studio};
use crate::truth::{TruePerson, Truth};

/// Width and height of the pictures: those of a frame of 4:3 on the detector's canvas.
pub const SIZE_PX: [usize; 2] = [256, 192];
/// How often a photograph is used.
pub const VIEWS: u64 = 4;
/// Photographs that take turns.
pub const TURNS: u64 = 96;

/// One photograph in so many shows nobody.
const EMPTY: f32 = 0.07;
/// Of a person of whom less is seen, in parts of what is in the picture, nothing is said.
pub const LEAST_SHARE: f32 = 0.3;
/// Neither of one who is less wide or high, in pixels of the canvas.
pub const LEAST_SIDE_PX: f32 = 3.0;

/// Sizes of photographs, and how often each is taken. What cameras give, and small ones, which are made fast.
const PHOTO_SIZES: [([u32; 2], f32); 6] = [
    ([640, 480], 0.4),
    ([512, 384], 0.2),
    ([384, 288], 0.15),
    ([640, 360], 0.1),
    ([360, 480], 0.05),
    ([256, 192], 0.1),
];

/// A picture and the people in it.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Of [`SIZE_PX`].
    pub picture: RgbImage,
    /// In its pixels.
    pub people: Vec<Target>,
}

/// A place for a photograph, taken by the first who needs it.
type Slot = Arc<Mutex<Option<Arc<Photo>>>>;

/// See the module. Any number of threads may ask for pictures.
pub struct Pictures {
    studio: Arc<Studio>,
    seed: u64,
    slots: Mutex<BTreeMap<u64, Slot>>,
}

impl Pictures {
    /// The pictures of a seed.
    pub fn new(studio: Arc<Studio>, seed: u64) -> Self {
        Self { studio, seed, slots: Mutex::default() }
    }

    /// The picture of an index.
    pub fn sample(&self, index: u64) -> Result<Sample> {
        let (round, within) = (index / (TURNS * VIEWS), index % (TURNS * VIEWS));
        let photo = self.photo(round * TURNS + within % TURNS)?;
        let mut random = Random::fork(self.seed ^ 0x51DE, index);
        let letterbox = view(photo.rgb.dimensions(), &mut random);
        let mut picture = letterbox.picture(&photo.rgb);
        if random.chance(0.7) {
            recolour(&mut picture, &mut random);
        }
        let one = |(who, person)| target(&photo.truth, who, person, &letterbox);
        let people = photo.truth.people.iter().enumerate().filter_map(one).collect();
        Ok(Sample { picture, people })
    }

    /// The photograph of a number; those of the round before and after are kept at hand.
    fn photo(&self, number: u64) -> Result<Arc<Photo>> {
        let slot = {
            // A map of places is whole at any time, and so is a place.
            let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
            let round = number / TURNS;
            slots.retain(|other, _| (other / TURNS).abs_diff(round) <= 1);
            Arc::clone(slots.entry(number).or_default())
        };
        let mut place = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(photo) = &*place {
            return Ok(Arc::clone(photo));
        }
        let photo = Arc::new(self.take_photo(number)?);
        *place = Some(Arc::clone(&photo));
        Ok(photo)
    }

    fn take_photo(&self, number: u64) -> Result<Photo> {
        let mut random = Random::fork(self.seed, number);
        let kind = if random.chance(0.5) { Kind::Scenes } else { Kind::Poses };
        let mut left = random.unit();
        let size = PHOTO_SIZES.iter().find(|(_, share)| {
            left -= share;
            left < 0.0
        });
        let (size, _) = size.unwrap_or(&PHOTO_SIZES[0]);
        let (seed, time_secs) = (random.bits(), random.between(0.0, 60.0));
        let scene = Scene::new(&self.studio, kind, seed, *size)?;
        let scene = if random.chance(EMPTY) { scene.without_people() } else { scene };
        scene.photograph(time_secs)
    }
}

/// Which part of a photograph is seen, and how large.
fn view((width, height): (u32, u32), random: &mut Random) -> Letterbox {
    let frame = Vec2::new(width as f32, height as f32);
    let canvas = Vec2::from(SIZE_PX.map(|side| side as f32));
    let mirrored = random.chance(0.5);
    let fit = (canvas / frame).min_element();
    let zoom = if random.chance(0.4) { 1.0 } else { random.log_between(0.75, 1.9) };
    let scale = fit * zoom;
    // Positive where the frame goes on beyond the canvas, negative where there is grey.
    let room = frame - canvas / scale;
    let origin_px = if zoom == 1.0 { Vec2::ZERO } else { room * Vec2::new(random.unit(), random.unit()) };
    Letterbox { origin_px, scale, size: SIZE_PX, mirrored }
}

/// A person as the canvas shows it; `None` where it shows nothing.
fn target(truth: &Truth, who: usize, person: &TruePerson, letterbox: &Letterbox) -> Option<Target> {
    let [width, height] = truth.size;
    let shown = Vec2::from(letterbox.size.map(|side| side as f32)) / letterbox.scale;
    // Rows and columns of the frame whose centres are on the canvas.
    let window = RectPx::from_corners(letterbox.origin_px - 0.5, letterbox.origin_px - 0.5 + shown);
    let (min, max) = (person.full_rect.min().max(window.min()), person.full_rect.max().min(window.max()));
    let range = |from: f32, to: f32, side: u32| from.ceil().max(0.0) as u32..((to.floor() + 1.0).max(0.0) as u32).min(side);
    let [mut own, mut seen] = [0_u32; 2];
    let (mut first, mut last) = (Vec2::INFINITY, Vec2::NEG_INFINITY);
    for y in range(min.y, max.y, height) {
        for x in range(min.x, max.x, width) {
            let at = (y * width + x) as usize;
            own += u32::from(truth.covered[at] >> who & 1);
            if usize::from(truth.owner[at]) == who + 1 {
                seen += 1;
                let px = Vec2::new(x as f32, y as f32);
                (first, last) = (first.min(px), last.max(px));
            }
        }
    }
    if seen == 0 {
        return None;
    }
    let corners = letterbox.canvas_from_frame(RectPx::from_corners(first - 0.5, last + 0.5))?;
    let [x0, y0, x1, y1] = corners;
    let counts = seen as f32 >= LEAST_SHARE * own as f32 && (x1 - x0).min(y1 - y0) >= LEAST_SIDE_PX;
    Some(Target { corners, counts })
}

/// Another light, other colours, less of them, and grain.
fn recolour(picture: &mut RgbImage, random: &mut Random) {
    let (contrast, brightness) = ((random.normal() * 0.2).exp(), random.normal() * 18.0);
    let curves: [Vec<f32>; 3] = std::array::from_fn(|_| {
        let (gain, gamma) = ((random.normal() * 0.08).exp(), (random.normal() * 0.12).exp());
        let curve = |value: u32| {
            let value = (value as f32 / 255.0).powf(gamma) * 255.0 * gain;
            (value - 114.0) * contrast + 114.0 + brightness
        };
        (0..256).map(curve).collect()
    });
    let colour = if random.chance(0.1) { 0.0 } else { 1.0 + random.normal() * 0.2 };
    let grain = if random.chance(0.5) { random.between(0.0, 10.0) } else { 0.0 };
    for pixel in picture.as_chunks_mut::<3>().0 {
        let value: [f32; 3] = std::array::from_fn(|c| curves[c][usize::from(pixel[c])]);
        let grey = (value[0] + value[1] + value[2]) / 3.0;
        // Two draws of each channel: the sum is nearly normal.
        let bits = random.bits().to_le_bytes();
        *pixel = std::array::from_fn(|c| {
            let noise = (f32::from(bits[2 * c]) + f32::from(bits[2 * c + 1]) - 255.0) / 104.0;
            (grey + (value[c] - grey) * colour + noise * grain + 0.5).clamp(0.0, 255.0) as u8
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_follows_from_its_index() -> Result<()> {
        let studio = Studio::new()?;
        let here = Pictures::new(Arc::clone(&studio), 3);
        let there = Pictures::new(Arc::clone(&studio), 3);
        // Whatever was asked for before.
        let far = there.sample(5 * TURNS * VIEWS)?;
        for index in [7, 7 + TURNS, 0] {
            let (a, b) = (here.sample(index)?, there.sample(index)?);
            assert!(a.picture == b.picture && a.people == b.people, "{index}");
            assert!(a.picture != far.picture);
        }
        assert!(here.sample(7)?.picture != here.sample(7 + TURNS)?.picture, "another view of the same photograph");
        assert!(Arc::ptr_eq(&here.photo(7)?, &here.photo(7)?), "a photograph is taken once");
        assert!(here.sample(1)?.picture != Pictures::new(studio, 4).sample(1)?.picture);
        Ok(())
    }

    #[test]
    fn boxes_are_around_the_pixels_that_show_people() -> Result<()> {
        let pictures = Pictures::new(Studio::new()?, 11);
        let (mut counted, mut uncounted) = (0, 0);
        for number in 0..24 {
            let mut photo = Photo::clone(&*pictures.photo(number)?);
            let letterbox = view(photo.rgb.dimensions(), &mut Random::new(number));
            for (who, person) in photo.truth.people.iter().enumerate() {
                let found = target(&photo.truth, who, person, &letterbox);
                // Painted white on black, the person is where the box is on the canvas.
                for (pixel, owner) in photo.rgb.pixels_mut().zip(&photo.truth.owner) {
                    pixel.0 = [if usize::from(*owner) == who + 1 { 255 } else { 0 }; 3];
                }
                let canvas = letterbox.picture(&photo.rgb);
                let is_grey_beyond = |x: u32, y: u32| {
                    let x = if letterbox.mirrored { SIZE_PX[0] as u32 - 1 - x } else { x };
                    let place = Vec2::new(x as f32 + 0.5, y as f32 + 0.5) / letterbox.scale + letterbox.origin_px;
                    let [width, height] = photo.truth.size.map(|side| side as f32);
                    !(0.0..width).contains(&place.x) || !(0.0..height).contains(&place.y)
                };
                let white = canvas.enumerate_pixels().filter(|(x, y, pixel)| pixel[0] > 16 && !is_grey_beyond(*x, *y));
                let around = RectPx::around(white.map(|(x, y, _)| Vec2::new(x as f32, y as f32)));
                let Some(Target { corners: [x0, y0, x1, y1], counts }) = found else {
                    assert_eq!(around, None);
                    continue;
                };
                counted += usize::from(counts);
                uncounted += usize::from(!counts);
                if let Some(around) = around {
                    let [ax0, ay0] = around.min().to_array();
                    let [ax1, ay1] = (around.max() + 1.0).to_array();
                    // Half a pixel of rounding and one into which resizing spreads, on each side.
                    for (edge, white) in [(x0, ax0), (y0, ay0), (x1, ax1), (y1, ay1)] {
                        assert!((edge - white).abs() < 2.0, "{found:?} {around:?}");
                    }
                }
            }
        }
        assert!(counted > 20 && uncounted > 0, "{counted} {uncounted}");
        Ok(())
    }

    #[test]
    fn some_pictures_show_nobody() -> Result<()> {
        let pictures = Pictures::new(Studio::new()?, 2);
        let mut people = Vec::new();
        for number in 0..60 {
            people.push(pictures.take_photo(number)?.truth.people.len());
        }
        let empty = people.iter().filter(|count| **count == 0).count();
        assert!((1..15).contains(&empty) && people.iter().any(|count| *count > 2), "{people:?}");
        Ok(())
    }
}
