//! A person's box becomes the square patch that the networks read. Does not know which network reads it.
//!
//! Frame pixels and crop pixels both have their origin at the centre of the top-left pixel. The box centre falls on
//! `size / 2`, as in the authors' releases.

use glam::{Affine2, DAffine2, DMat2, DVec2, Vec2};
use image::RgbImage;
use rayon::prelude::*;

use crate::space::RectPx;

/// A square patch of a frame.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Crop {
    /// The processed box: clipped, extended to a square around its centre, times 1.25. Frame pixels.
    pub rect: RectPx,
    /// Side of the patch in crop pixels.
    pub size: u32,
    /// Frame pixels to crop pixels.
    pub crop_from_frame: Affine2,
    /// Crop pixels to frame pixels.
    pub frame_from_crop: Affine2,
}

/// How much of its surroundings a processed box keeps around a tight one.
const CONTEXT: f64 = 1.25;

/// The release's `process_bbox`: clips a tight box to the frame, extends it to a square around its centre and
/// enlarges it by a quarter. `None` for a box that is empty, inverted, not finite, or outside the frame.
///
/// A box of whole pixels (COCO's and a drawn one are) becomes one of whole pixels, fractions cut off, because the
/// release computes those in integers; other boxes keep their fractions.
pub fn process_bbox(tight: RectPx, frame_width: u32, frame_height: u32) -> Option<RectPx> {
    let numbers = <[f32; 4]>::from(tight);
    if !numbers.iter().all(|v| v.is_finite()) {
        return None;
    }
    let whole = numbers.iter().all(|v| v.fract() == 0.0);
    let store = |v: f64| if whole { v.trunc() } else { v };
    // Along one axis: start and length after clipping to the last pixel's centre.
    let clip = |start: f32, length: f32, pixels: u32| {
        let (start, length) = (f64::from(start), f64::from(length));
        let first = start.max(0.0);
        let last = (f64::from(pixels) - 1.0).min(first + (length - 1.0).max(0.0));
        (length > 0.0 && last > first).then_some((first, last - first))
    };
    let (x, w) = clip(tight.x, tight.w, frame_width)?;
    let (y, h) = clip(tight.y, tight.h, frame_height)?;
    let side = store(w.max(h) * CONTEXT);
    let corner = |start: f64, length: f64| store(start + length / 2.0 - side / 2.0);
    Some(RectPx::from([corner(x, w), corner(y, h), side, side].map(|v| v as f32)))
}

/// What training does to a crop.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Augmentation {
    /// The box is this much larger.
    pub scale: f64,
    /// The box is turned by this, clockwise on the screen.
    pub rotation_rad: f64,
    /// The frame is mirrored left to right first.
    pub flip: bool,
}

impl Default for Augmentation {
    fn default() -> Self {
        Self { scale: 1.0, rotation_rad: 0.0, flip: false }
    }
}

impl Crop {
    /// The patch of a tight box; `None` where [`process_bbox`] refuses the box.
    pub fn of_tight_box(tight: RectPx, frame_width: u32, frame_height: u32, size: u32) -> Option<Self> {
        Some(Self::new(process_bbox(tight, frame_width, frame_height)?, size))
    }

    /// The patch of a processed box, straight.
    pub fn new(rect: RectPx, size: u32) -> Self {
        // Without a flip the frame's width does not matter.
        Self::augmented(rect, size, Augmentation::default(), 0)
    }

    /// The patch of a processed box, scaled, turned and mirrored. A flip mirrors the frame, so it needs the frame's
    /// width.
    pub fn augmented(rect: RectPx, size: u32, augmentation: Augmentation, frame_width: u32) -> Self {
        let Augmentation { scale, rotation_rad, flip } = augmentation;
        let mirror = if flip {
            let matrix = DMat2::from_diagonal(DVec2::new(-1.0, 1.0));
            DAffine2::from_mat2_translation(matrix, DVec2::new(f64::from(frame_width) - 1.0, 0.0))
        } else {
            DAffine2::IDENTITY
        };
        let (w, h) = (f64::from(rect.w), f64::from(rect.h));
        let centre = mirror.transform_point2(DVec2::new(f64::from(rect.x) + w / 2.0, f64::from(rect.y) + h / 2.0));
        // Three points fix the map: the centre, and where the box's right and lower edges meet its axes.
        let side = f64::from(size);
        let turned = DMat2::from_angle(rotation_rad) * DMat2::from_diagonal(DVec2::new(w, h) * (scale / side));
        let source_from_crop = DAffine2::from_mat2_translation(turned, centre - turned * DVec2::splat(side / 2.0));
        let frame_from_crop = mirror * source_from_crop; // a mirror undoes itself
        let crop_from_frame = frame_from_crop.inverse();
        Self {
            rect,
            size,
            crop_from_frame: crop_from_frame.as_affine2(),
            frame_from_crop: frame_from_crop.as_affine2(),
        }
    }

    /// Cuts the patch out of its frame: bilinear, black where the frame ends.
    pub fn patch(&self, frame: &RgbImage) -> RgbImage {
        let mut patch = RgbImage::new(self.size, self.size);
        self.cut(frame, &mut patch);
        patch
    }

    /// As [`Self::patch`], into a picture that has been used before, if it has the size.
    pub fn cut(&self, frame: &RgbImage, patch: &mut RgbImage) {
        let size = self.size as usize;
        if patch.dimensions() != (self.size, self.size) {
            *patch = RgbImage::new(self.size, self.size);
        }
        if size == 0 {
            return;
        }
        let source = Source::new(frame);
        let Affine2 { matrix2, translation } = self.frame_from_crop;
        patch.par_chunks_mut(size * 3).with_min_len(16).enumerate().for_each(|(v, row)| {
            let start = translation + matrix2.y_axis * v as f32;
            for (u, pixel) in row.as_chunks_mut::<3>().0.iter_mut().enumerate() {
                *pixel = source.bilinear(start + matrix2.x_axis * u as f32);
            }
        });
    }
}

/// A frame that is sampled between its pixels.
struct Source<'a> {
    pixels: &'a [[u8; 3]],
    width: i32,
    height: i32,
}

impl<'a> Source<'a> {
    fn new(frame: &'a RgbImage) -> Self {
        Self { pixels: frame.as_chunks::<3>().0, width: frame.width() as i32, height: frame.height() as i32 }
    }

    fn bilinear(&self, at: Vec2) -> [u8; 3] {
        /// Weights are whole numbers, 1/2048 fine: 255 of them squared still fit in 32 bits.
        const WHOLE: u32 = 2048;
        const ONE: f32 = WHOLE as f32;

        // Beyond one pixel from the frame everything is black. Within, adding 1 makes truncation a floor.
        if !(at.x > -1.0 && at.y > -1.0 && at.x < self.width as f32 && at.y < self.height as f32) {
            return [0; 3];
        }
        let (x, y) = ((at.x + 1.0) as i32 - 1, (at.y + 1.0) as i32 - 1);
        let (wx, wy) = (((at.x - x as f32) * ONE + 0.5) as u32, ((at.y - y as f32) * ONE + 0.5) as u32);
        let [top_left, top_right, bottom_left, bottom_right] =
            if x >= 0 && y >= 0 && x < self.width - 1 && y < self.height - 1 {
                let top = &self.pixels[(y * self.width + x) as usize..];
                let bottom = &top[self.width as usize..];
                [top[0], top[1], bottom[0], bottom[1]]
            } else {
                [self.or_black(x, y), self.or_black(x + 1, y), self.or_black(x, y + 1), self.or_black(x + 1, y + 1)]
            };
        std::array::from_fn(|c| {
            let mix = |left: u8, right: u8| u32::from(left) * (WHOLE - wx) + u32::from(right) * wx;
            let (top, bottom) = (mix(top_left[c], top_right[c]), mix(bottom_left[c], bottom_right[c]));
            ((top * (WHOLE - wy) + bottom * wy + WHOLE * WHOLE / 2) / (WHOLE * WHOLE)) as u8
        })
    }

    fn or_black(&self, x: i32, y: i32) -> [u8; 3] {
        let inside = x >= 0 && y >= 0 && x < self.width && y < self.height;
        if inside { self.pixels[(y * self.width + x) as usize] } else { [0; 3] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_that_hold_nothing_are_refused() {
        let refused = |rect: [f32; 4]| process_bbox(rect.into(), 320, 240).is_none();
        for rect in [
            [10.0, 10.0, 0.0, 5.0],
            [10.0, 10.0, 5.0, -5.0],
            [-5.0, -5.0, -5.0, -5.0],
            [400.0, 10.0, 20.0, 20.0],
            [f32::NAN, 10.0, 20.0, 20.0],
            [0.0, 10.0, f32::INFINITY, 20.0],
        ] {
            assert!(refused(rect), "{rect:?}");
        }
        assert!(process_bbox(RectPx::from([0.0, 0.0, 10.0, 10.0]), 0, 0).is_none());
    }

    #[test]
    fn the_two_affines_undo_each_other() {
        let rect = RectPx::from([30.0, -20.0, 198.0, 198.0]);
        let augmentation = Augmentation { scale: 1.2, rotation_rad: 0.7, flip: true };
        let crop = Crop::augmented(rect, 256, augmentation, 320);
        for p in [Vec2::ZERO, Vec2::new(100.0, 7.0), Vec2::new(255.0, 255.0)] {
            let there = crop.frame_from_crop.transform_point2(p);
            assert!((crop.crop_from_frame.transform_point2(there) - p).length() < 1e-3);
        }
        // The centre of the box is the centre of the patch, mirrored or not.
        assert!((crop.crop_from_frame.transform_point2(rect.centre()) - Vec2::splat(128.0)).length() < 1e-3);
    }

    #[test]
    fn a_patch_as_large_as_its_box_is_that_part_of_the_frame() {
        let frame = RgbImage::from_fn(40, 30, |x, y| image::Rgb([x as u8, y as u8, 200]));
        let patch = Crop::new(RectPx::from([-4.0, 10.0, 16.0, 16.0]), 16).patch(&frame);
        assert_eq!(patch.get_pixel(4, 0).0, [0, 10, 200]);
        assert_eq!(patch.get_pixel(15, 15).0, [11, 25, 200]);
        assert_eq!(patch.get_pixel(3, 5).0, [0; 3], "black outside the frame");
    }

    #[test]
    fn no_crop_is_too_far_away_or_too_small() {
        let frame = RgbImage::from_pixel(8, 8, image::Rgb([9; 3]));
        for rect in [[1e9, -1e9, 1e9, 1e9], [0.0, 0.0, 0.0, 0.0], [3.0, 3.0, 1e-9, 1e-9]] {
            let _ = Crop::new(rect.into(), 4).patch(&frame);
        }
        assert_eq!(Crop::new([0.0, 0.0, 8.0, 8.0].into(), 0).patch(&frame).dimensions(), (0, 0));
        assert_eq!(Crop::new([0.0, 0.0, 8.0, 8.0].into(), 2).patch(&RgbImage::new(0, 0)).get_pixel(1, 1).0, [0; 3]);
    }
}
