//! A frame becomes the small picture that a one-stage detector reads: resized as a whole, with its proportions, onto
//! a canvas of grey.
//!
//! Places are measured from the pictures' top-left *corners* here, so that a picture of 640 pixels goes from 0 to 640
//! and sizes scale without a remainder; frame pixels (see [`space`](crate::space)) are measured from the centre of
//! the first pixel, half a pixel further.

use glam::Vec2;
use image::RgbImage;
use rayon::prelude::*;

use super::nms::Corners;
use crate::memory::Buffer;
use crate::space::RectPx;

/// What is seen beyond the frame's edges.
pub const GREY: u8 = 114;

/// Sides of the canvas are multiples of this, the coarsest stride of the network.
pub const MULTIPLE: usize = 32;

/// Where a canvas lies on a frame.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Letterbox {
    /// The frame's point at the canvas's top-left corner.
    pub origin_px: Vec2,
    /// Canvas pixels for a frame pixel.
    pub scale: f32,
    /// Width and height of the canvas.
    pub size: [usize; 2],
    /// What is seen is mirrored left to right.
    pub mirrored: bool,
}

impl Letterbox {
    /// The whole frame at the top-left of the smallest canvas that has it; its longer side becomes `longest`.
    pub fn whole(frame_width: u32, frame_height: u32, longest: usize) -> Self {
        let scale = longest as f32 / frame_width.max(frame_height).max(1) as f32;
        // A rounding above a multiple is no reason for another stripe of grey.
        let side = |side: u32| ((side as f32 * scale - 1e-3).ceil().max(1.0) as usize).next_multiple_of(MULTIPLE);
        Self { origin_px: Vec2::ZERO, scale, size: [side(frame_width), side(frame_height)], mirrored: false }
    }

    /// A box on the canvas to one in frame pixels, cut off at the frame's edges; `None` where nothing is left.
    pub fn frame_from_canvas(&self, [x0, y0, x1, y1]: Corners, frame_size: [u32; 2]) -> Option<RectPx> {
        let (x0, x1) = if self.mirrored { (self.size[0] as f32 - x1, self.size[0] as f32 - x0) } else { (x0, x1) };
        let edge = Vec2::from(frame_size.map(|side| side as f32));
        let place = |x, y| (Vec2::new(x, y) / self.scale + self.origin_px).clamp(Vec2::ZERO, edge) - 0.5;
        let rect = RectPx::from_corners(place(x0, y0), place(x1, y1));
        rect.is_valid().then_some(rect)
    }

    /// A box in frame pixels to one on the canvas, cut off at the canvas's edges; `None` where nothing is left.
    pub fn canvas_from_frame(&self, rect: RectPx) -> Option<Corners> {
        let edge = Vec2::from(self.size.map(|side| side as f32));
        let place = |p: Vec2| ((p + 0.5 - self.origin_px) * self.scale).clamp(Vec2::ZERO, edge);
        let (min, max) = (place(rect.min()), place(rect.max()));
        let (x0, x1) = if self.mirrored { (edge.x - max.x, edge.x - min.x) } else { (min.x, max.x) };
        (x1 > x0 && max.y > min.y).then_some([x0, min.y, x1, max.y])
    }

    /// The canvas. Each of its pixels is a mean over the frame's pixels around it, with weights that fall linearly
    /// with the distance, so that little is lost and nothing flickers where a frame is made smaller.
    pub fn picture(&self, frame: &RgbImage) -> RgbImage {
        let [width, height] = self.size;
        let mut canvas = RgbImage::new(width as u32, height as u32);
        self.draw(frame, &mut canvas);
        canvas
    }

    /// As [`Self::picture`], into the canvas' bytes.
    pub fn draw(&self, frame: &RgbImage, canvas: &mut [u8]) {
        let [width, height] = self.size;
        assert_eq!(canvas.len(), width * height * 3, "a canvas of another size");
        canvas.fill(GREY);
        let columns = self.taps(self.origin_px.x, width, frame.width());
        let rows = self.taps(self.origin_px.y, height, frame.height());
        let seen = columns.spans.iter().filter(|span| span.count > 0);
        let (first, last) = seen.fold((usize::MAX, 0), |(first, last), span| {
            (first.min(span.first as usize), last.max((span.first + span.count) as usize))
        });
        if first >= last {
            return;
        }
        let (columns, rows) = (columns.view(), rows.view());
        let source = frame.as_raw();
        let row_bytes = frame.width() as usize * 3;
        canvas.par_chunks_mut(width * 3).enumerate().with_min_len(8).for_each_init(
            || Buffer::take((last - first) * 3),
            |line: &mut Buffer, (y, out)| {
                let (top, weights) = rows.of(y);
                if weights.is_empty() {
                    return;
                }
                line.fill(0.0);
                for (y, &weight) in (top..).zip(weights) {
                    let source = &source[y * row_bytes..][first * 3..last * 3];
                    line.iter_mut().zip(source).for_each(|(sum, &value)| *sum += weight * f32::from(value));
                }
                let pixels = line.as_chunks::<3>().0;
                for (x, out) in out.as_chunks_mut::<3>().0.iter_mut().enumerate() {
                    let (left, weights) = columns.of(if self.mirrored { width - 1 - x } else { x });
                    if weights.is_empty() {
                        continue;
                    }
                    let mut sum = [0.5; 3];
                    for (pixel, &weight) in pixels[left - first..].iter().zip(weights) {
                        (0..3).for_each(|c| sum[c] += weight * pixel[c]);
                    }
                    *out = sum.map(|value| value as u8);
                }
            },
        );
    }

    /// For each column, then for each row of the canvas: the first pixel of a frame `[width, height]` that it is a mean
    /// of, and the weights of that one and those after it; none where it is beyond the frame.
    pub fn spans(&self, [width, height]: [u32; 2]) -> Vec<(usize, Vec<f32>)> {
        let columns = self.taps(self.origin_px.x, self.size[0], width);
        let rows = self.taps(self.origin_px.y, self.size[1], height);
        let span = |taps: &Taps, pixel| {
            let view = taps.view();
            let (first, weights) = view.of(pixel);
            (first, weights.to_vec())
        };
        let column = |x| span(&columns, if self.mirrored { self.size[0] - 1 - x } else { x });
        (0..self.size[0]).map(column).chain((0..self.size[1]).map(|y| span(&rows, y))).collect()
    }

    /// For each of `count` canvas pixels along an axis, the frame's pixels around it, and how much they weigh; none
    /// where its centre is beyond the frame.
    fn taps(&self, origin: f32, count: usize, frame_side: u32) -> Taps {
        let reach = self.scale.recip().max(1.0);
        let end = frame_side as f32;
        let most = ((2.0 * reach).ceil() as usize + 2).min(frame_side as usize);
        let mut taps = Taps { spans: Buffer::take(count), weights: Buffer::take(count * most), most };
        for (i, span) in taps.spans.iter_mut().enumerate() {
            *span = Span { first: 0, count: 0 };
            let centre = (i as f32 + 0.5) / self.scale + origin;
            if !(0.0..end).contains(&centre) {
                continue;
            }
            let first = (centre - reach).floor().max(0.0) as usize;
            let last = ((centre + reach).ceil() as usize).min(frame_side as usize);
            let weights = &mut taps.weights[i * most..][..last - first];
            for (at, weight) in (first..).zip(weights.iter_mut()) {
                *weight = (1.0 - (at as f32 + 0.5 - centre).abs() / reach).max(0.0);
            }
            let sum: f32 = weights.iter().sum();
            for weight in weights {
                *weight /= sum;
            }
            *span = Span { first: first as u32, count: (last - first) as u32 };
        }
        taps
    }
}

/// Neighbouring pixels along an axis.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Span {
    first: u32,
    count: u32,
}

/// For each canvas pixel along an axis, the frame's pixels around it and their weights, whose sum is 1.
struct Taps {
    spans: Buffer<Span>,
    weights: Buffer,
    /// Places for weights of each pixel.
    most: usize,
}

impl Taps {
    fn view(&self) -> TapsView<'_> {
        TapsView { spans: &self.spans, weights: &self.weights, most: self.most }
    }
}

/// The same as slices.
struct TapsView<'a> {
    spans: &'a [Span],
    weights: &'a [f32],
    most: usize,
}

impl TapsView<'_> {
    /// The first pixel and the weights of it and those after it.
    fn of(&self, pixel: usize) -> (usize, &[f32]) {
        let Span { first, count } = self.spans[pixel];
        (first as usize, &self.weights[pixel * self.most..][..count as usize])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_keeps_its_proportions_on_the_smallest_canvas() {
        for (width, height, size, scale) in [
            (640, 480, [256, 192], 0.4),
            (1280, 720, [256, 160], 0.2),
            (480, 640, [192, 256], 0.4),
            (100, 100, [256, 256], 2.56),
            (5000, 3, [256, 32], 0.0512),
        ] {
            let letterbox = Letterbox::whole(width, height, 256);
            assert_eq!((letterbox.size, letterbox.scale), (size, scale), "{width}x{height}");
        }
    }

    #[test]
    fn boxes_go_there_and_back() {
        let rect = RectPx::from([99.5, 49.5, 60.0, 120.0]);
        for mirrored in [false, true] {
            let letterbox =
                Letterbox { mirrored, origin_px: Vec2::new(-20.0, 10.0), ..Letterbox::whole(640, 480, 256) };
            let canvas = letterbox.canvas_from_frame(rect).unwrap();
            let expected = if mirrored { [184.0, 16.0, 208.0, 64.0] } else { [48.0, 16.0, 72.0, 64.0] };
            assert!(canvas.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-4), "{canvas:?}");
            let back = letterbox.frame_from_canvas(canvas, [640, 480]).unwrap();
            assert!((back.min() - rect.min()).length() + (back.max() - rect.max()).length() < 1e-3, "{back:?}");
        }
        let letterbox = Letterbox::whole(640, 480, 256);
        // Cut off at the frame's edge, which lies half a pixel before the first pixel's centre.
        let cut = letterbox.frame_from_canvas([-8.0, -4.0, 4.0, 4.0], [640, 480]).unwrap();
        assert_eq!(<[f32; 4]>::from(cut), [-0.5, -0.5, 10.0, 10.0]);
        assert_eq!(letterbox.frame_from_canvas([-8.0, -4.0, -1.0, 4.0], [640, 480]), None);
        assert_eq!(letterbox.canvas_from_frame(RectPx::from([700.0, 0.0, 10.0, 10.0])), None);
    }

    #[test]
    fn making_smaller_is_a_mean_and_beyond_the_frame_is_grey() {
        // Stripes one pixel wide become their mean, whatever their phase.
        let stripes = RgbImage::from_fn(640, 360, |x, _| image::Rgb([if x % 2 == 0 { 0 } else { 200 }, 50, 255]));
        let letterbox = Letterbox::whole(640, 360, 128);
        let picture = letterbox.picture(&stripes);
        assert_eq!(picture.dimensions(), (128, 96));
        for (x, y, pixel) in picture.enumerate_pixels() {
            if y < 72 && (1..127).contains(&x) {
                // Of ten weights in the shape of a roof, those of even and of odd pixels differ by 4 % at most.
                assert!(pixel[0].abs_diff(100) <= 4 && pixel.0[1..] == [50, 255], "{x} {y} {pixel:?}");
            } else if y >= 72 {
                assert_eq!(pixel.0, [GREY; 3]);
            }
        }
        let mirrored = Letterbox { mirrored: true, ..letterbox };
        let ramp = RgbImage::from_fn(640, 360, |x, y| image::Rgb([(x / 3) as u8, (y / 2) as u8, 0]));
        let (plain, mirrored) = (letterbox.picture(&ramp), mirrored.picture(&ramp));
        assert_eq!(image::imageops::flip_horizontal(&plain), mirrored);
        assert!(plain.get_pixel(10, 5)[0] < plain.get_pixel(90, 5)[0]);
    }

    #[test]
    fn a_picture_of_the_same_size_is_itself_and_small_ones_are_drawn_between() {
        let noise = RgbImage::from_fn(64, 32, |x, y| image::Rgb([(x * 37 + y * 101) as u8, (x * y) as u8, 9]));
        assert_eq!(Letterbox::whole(64, 32, 64).picture(&noise), noise);
        let two = RgbImage::from_fn(2, 1, |x, _| image::Rgb([x as u8 * 64; 3]));
        let picture = Letterbox::whole(2, 1, 32).picture(&two);
        let row: Vec<u8> = (0..32).map(|x| picture.get_pixel(x, 0)[0]).collect();
        assert!(row.is_sorted() && row[..8] == [0; 8] && row[24..] == [64; 8] && row[15] == 30, "{row:?}");
    }

    #[test]
    fn a_canvas_beside_the_frame_is_empty() {
        let letterbox = Letterbox { origin_px: Vec2::splat(1000.0), ..Letterbox::whole(64, 64, 64) };
        let picture = letterbox.picture(&RgbImage::new(64, 64));
        assert!(picture.pixels().all(|pixel| pixel.0 == [GREY; 3]));
    }
}
