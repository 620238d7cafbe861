//! Pictures for the detector: photographs of synthetic scenes, each seen in several ways, as the detector sees frames
//! ([`letterbox`](crate::detect::letterbox)): whole or a part of it, larger or smaller, mirrored, in other colours, with
//! more noise.

use std::sync::Arc;

use anyhow::Result;
use glam::Vec2;
use image::RgbImage;

use super::targets::Target;
use crate::body::Family;
use crate::detect::letterbox::Letterbox;
use crate::space::RectPx;
use crate::synth::random::Random;
use crate::synth::{Kind, Photo, Scene, Studio};
use crate::truth::{LEAST_SEEN_SHARE, TruePerson, Truth};

/// Width and height of the pictures: those of a frame of 4:3 on the detector's canvas.
pub const SIZE_PX: [usize; 2] = [320, 256];
/// Photographs of a block.
const PHOTOS: usize = 2;
/// How often a photograph is seen: it costs as much as several of them.
const VIEWS: usize = 4;

/// One block in so many shows nobody.
const EMPTY: f32 = 0.07;
/// Of a person who is less wide or high, in pixels of the canvas, nothing is said.
const LEAST_SIDE_PX: f32 = 3.0;

/// A picture and the people in it.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Of [`SIZE_PX`].
    pub picture: RgbImage,
    /// In its pixels.
    pub people: Vec<Target>,
    /// Which kind of scene it is from.
    pub kind: Kind,
}

/// The pictures of a number, of people or of hands as the studio has them; the same for the same number.
pub fn block(studio: &Arc<Studio>, number: u64) -> Result<Vec<Sample>> {
    let mut random = Random::fork(number, 0x6465_7465_6374);
    let kind = match studio.body().family() {
        Family::Mano => Kind::Hands,
        Family::Smpl if random.chance(0.5) => Kind::Scenes,
        Family::Smpl => Kind::Poses,
    };
    let mut samples = Vec::with_capacity(PHOTOS * VIEWS);
    for Photo { rgb, truth } in photos(studio, kind, &mut random)? {
        for _ in 0..VIEWS {
            let letterbox = view(rgb.dimensions(), &mut random);
            let mut picture = letterbox.picture(&rgb);
            if random.chance(0.7) {
                recolour(&mut picture, &mut random);
            }
            let one = |(who, person)| target(&truth, who, person, &letterbox);
            samples.push(Sample { picture, people: truth.people.iter().enumerate().filter_map(one).collect(), kind });
        }
    }
    Ok(samples)
}

/// [`PHOTOS`] photographs: of one scene where something moves, else of as many scenes.
fn photos(studio: &Arc<Studio>, kind: Kind, random: &mut Random) -> Result<Vec<Photo>> {
    // What cameras give, and small ones, which are made fast.
    let size = match random.below(20) {
        0..8 => [640, 480],
        8..12 => [512, 384],
        12..15 => [384, 288],
        15..17 => [640, 360],
        17 => [360, 480],
        _ => [256, 192],
    };
    let scenes = if kind == Kind::Poses { PHOTOS } else { 1 };
    let is_empty = random.chance(EMPTY);
    let mut photos = Vec::with_capacity(PHOTOS);
    for _ in 0..scenes {
        let scene = Scene::new(studio, kind, random.bits(), size)?;
        let scene = if is_empty { scene.without_people() } else { scene };
        for _ in 0..PHOTOS / scenes {
            photos.push(scene.photograph(random.between(0.0, 60.0))?);
        }
    }
    Ok(photos)
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
    let range =
        |from: f32, to: f32, side: u32| from.ceil().max(0.0) as u32..((to.floor() + 1.0).max(0.0) as u32).min(side);
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
    let counts = seen as f32 >= LEAST_SEEN_SHARE * own as f32 && (x1 - x0).min(y1 - y0) >= LEAST_SIDE_PX;
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
    fn pictures_follow_from_the_number_of_their_block() -> Result<()> {
        let studio = Studio::new()?;
        let [first, again, other] = [5, 5, 6].map(|number| block(&studio, number));
        let (first, again, other) = (first?, again?, other?);
        assert_eq!([first.len(), other.len()], [PHOTOS * VIEWS; 2]);
        for (a, b) in first.iter().zip(&again) {
            assert!(a.picture == b.picture && a.people == b.people);
        }
        assert!(first[0].picture != first[1].picture && first[0].picture != other[0].picture);
        Ok(())
    }

    #[test]
    fn boxes_are_around_the_pixels_that_show_people() -> Result<()> {
        let studio = Studio::new()?;
        let (mut counted, mut uncounted) = (0, 0);
        for number in 0..24 {
            let mut photo = studio.sample(Kind::Poses, number, [360, 270])?;
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
        let studio = Studio::new()?;
        let mut people = Vec::new();
        for number in 0..40 {
            let photos = photos(&studio, Kind::Scenes, &mut Random::new(number))?;
            people.extend(photos.iter().map(|photo| photo.truth.people.len()));
        }
        let empty = people.iter().filter(|count| **count == 0).count();
        assert!((1..15).contains(&empty) && people.iter().any(|count| *count > 2), "{people:?}");
        Ok(())
    }
}
