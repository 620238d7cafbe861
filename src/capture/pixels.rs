//! Camera buffers to sRGB pictures. Y'CbCr is BT.601 in limited range (Y' 16..=235, Cb and Cr 16..=240 around 128),
//! which is what webcams send unless they say otherwise; the JPEG pictures of MJPEG carry their own full range.

use std::fmt;
use std::io::Cursor;

use anyhow::{Context, Result, anyhow, bail};
use image::codecs::jpeg::JpegDecoder;
use image::{DynamicImage, ImageDecoder, RgbImage};

use super::MAX_PIXELS;

/// How a camera lays out its pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PixelFormat {
    /// A JPEG picture a frame.
    Mjpeg,
    /// Y' Cb Y' Cr: two pixels in four bytes, chroma at half width.
    Yuyv,
    /// A plane of Y', then one of Cb Cr pairs at half width and height.
    Nv12,
    /// Red, green, blue.
    Rgb,
    /// Blue, green, red.
    Bgr,
    /// One byte of grey.
    Gray,
}

impl PixelFormat {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Mjpeg, Self::Nv12, Self::Yuyv, Self::Rgb, Self::Bgr, Self::Gray];

    /// Bytes of a picture without padding; `None` for MJPEG, whose pictures differ.
    fn bytes(self, width: usize, height: usize) -> Option<usize> {
        match self {
            Self::Mjpeg => None,
            Self::Yuyv => Some(width.div_ceil(2) * 4 * height),
            Self::Nv12 => Some(width * height + width.div_ceil(2) * 2 * height.div_ceil(2)),
            Self::Rgb | Self::Bgr => Some(width * height * 3),
            Self::Gray => Some(width * height),
        }
    }
}

impl fmt::Display for PixelFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mjpeg => "MJPEG",
            Self::Yuyv => "YUYV",
            Self::Nv12 => "NV12",
            Self::Rgb => "RGB",
            Self::Bgr => "BGR",
            Self::Gray => "GRAY",
        })
    }
}

/// A camera's buffer as a picture of this size (an MJPEG picture has its own). Bytes after the picture are ignored:
/// drivers hand out whole buffers.
pub fn decode(format: PixelFormat, width: u32, height: u32, data: &[u8]) -> Result<RgbImage> {
    if u64::from(width) * u64::from(height) > MAX_PIXELS {
        bail!("a camera picture of {width}x{height} pixels is too large");
    }
    let (w, h) = (width as usize, height as usize);
    let Some(needed) = format.bytes(w, h) else {
        return decode_jpeg(data);
    };
    let data = data.get(..needed).ok_or_else(|| {
        anyhow!("the camera sent {} bytes, but a {width}x{height} {format} picture has {needed}", data.len())
    })?;
    let rgb = match format {
        PixelFormat::Rgb => data.to_vec(),
        PixelFormat::Bgr => data.chunks_exact(3).flat_map(|p| [p[2], p[1], p[0]]).collect(),
        PixelFormat::Gray => data.iter().flat_map(|&g| [g; 3]).collect(),
        PixelFormat::Yuyv => yuyv(w, data),
        PixelFormat::Nv12 => nv12(w, h, data),
        PixelFormat::Mjpeg => return decode_jpeg(data),
    };
    RgbImage::from_raw(width, height, rgb).context("the picture and its size do not belong together")
}

fn decode_jpeg(data: &[u8]) -> Result<RgbImage> {
    let decoder = JpegDecoder::new(Cursor::new(data)).context("the camera's JPEG picture is broken")?;
    let (width, height) = decoder.dimensions();
    if u64::from(width) * u64::from(height) > MAX_PIXELS {
        bail!("the camera's JPEG picture of {width}x{height} pixels is too large");
    }
    let picture = DynamicImage::from_decoder(decoder).context("the camera's JPEG picture is broken")?;
    Ok(picture.into_rgb8())
}

fn yuyv(width: usize, data: &[u8]) -> Vec<u8> {
    if width == 0 {
        return Vec::new();
    }
    let mut rgb = Vec::with_capacity(data.len() / 2 * 3);
    for row in data.chunks_exact(width.div_ceil(2) * 4) {
        for (i, pair) in row.chunks_exact(4).enumerate() {
            rgb.extend(rgb_from_ycbcr(pair[0], pair[1], pair[3]));
            if 2 * i + 1 < width {
                rgb.extend(rgb_from_ycbcr(pair[2], pair[1], pair[3]));
            }
        }
    }
    rgb
}

fn nv12(width: usize, height: usize, data: &[u8]) -> Vec<u8> {
    let (luma, chroma) = data.split_at(width * height);
    let chroma_row_bytes = width.div_ceil(2) * 2;
    let mut rgb = Vec::with_capacity(luma.len() * 3);
    for y in 0..height {
        let chroma_row = &chroma[y / 2 * chroma_row_bytes..][..chroma_row_bytes];
        for (x, &l) in luma[y * width..][..width].iter().enumerate() {
            let pair = x / 2 * 2;
            rgb.extend(rgb_from_ycbcr(l, chroma_row[pair], chroma_row[pair + 1]));
        }
    }
    rgb
}

/// BT.601, limited range, in 8-bit fixed point: within 1 of the exact value.
fn rgb_from_ycbcr(luma: u8, cb: u8, cr: u8) -> [u8; 3] {
    let y = 298 * (i32::from(luma) - 16) + 128;
    let (cb, cr) = (i32::from(cb) - 128, i32::from(cr) - 128);
    [y + 409 * cr, y - 100 * cb - 208 * cr, y + 516 * cb].map(|v| (v >> 8).clamp(0, 255) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Y'CbCr of 8-bit colours, computed in floating point from the definition of BT.601.
    fn ycbcr(rgb: [u8; 3]) -> [u8; 3] {
        let [r, g, b] = rgb.map(|v| f64::from(v) / 255.0);
        let y = 0.299 * r + 0.587 * g + 0.114 * b;
        let (cb, cr) = ((b - y) / 1.772, (r - y) / 1.402);
        [16.0 + 219.0 * y, 128.0 + 224.0 * cb, 128.0 + 224.0 * cr].map(|v| v.round() as u8)
    }

    /// Rounding to 8-bit Y'CbCr and back loses at most 2 steps (a step of Cb is 2 steps of blue); one more for the
    /// fixed point.
    fn assert_near(found: [u8; 3], expected: [u8; 3]) {
        let worst = found.iter().zip(expected).map(|(a, b)| a.abs_diff(b)).max();
        assert!(worst <= Some(3), "{found:?} is not {expected:?}");
    }

    const COLOURS: [[u8; 3]; 9] = [
        [0, 0, 0],
        [255, 255, 255],
        [255, 0, 0],
        [0, 255, 0],
        [0, 0, 255],
        [255, 255, 0],
        [191, 0, 191],
        [90, 140, 200],
        [128, 128, 128],
    ];

    #[test]
    fn published_ycbcr_values_give_their_colours() {
        // The 100% primaries of BT.601 in limited range, from the recommendation.
        assert_near(rgb_from_ycbcr(16, 128, 128), [0, 0, 0]);
        assert_near(rgb_from_ycbcr(235, 128, 128), [255, 255, 255]);
        assert_near(rgb_from_ycbcr(81, 90, 240), [255, 0, 0]);
        assert_near(rgb_from_ycbcr(145, 54, 34), [0, 255, 0]);
        assert_near(rgb_from_ycbcr(41, 240, 110), [0, 0, 255]);
        // Outside of the range: clamped, not wrapped.
        assert_eq!(rgb_from_ycbcr(0, 128, 128), [0, 0, 0]);
        assert_eq!(rgb_from_ycbcr(255, 128, 128), [255, 255, 255]);
    }

    #[test]
    fn yuyv_keeps_colours_and_places_even_at_odd_widths() {
        for rgb in COLOURS {
            let [y, cb, cr] = ycbcr(rgb);
            // 3x2: two pairs a row, the last pixel of which is padding.
            let row = [y, cb, y, cr, y, cb, 7, cr];
            let picture = decode(PixelFormat::Yuyv, 3, 2, &[row, row].concat()).unwrap();
            assert_eq!(picture.dimensions(), (3, 2));
            picture.pixels().for_each(|p| assert_near(p.0, rgb));
        }
        let picture = decode(PixelFormat::Yuyv, 2, 1, &[16, 128, 235, 128]).unwrap();
        assert_eq!((picture.get_pixel(0, 0).0, picture.get_pixel(1, 0).0), ([0; 3], [255; 3]));
    }

    #[test]
    fn nv12_keeps_colours_and_places() {
        // 4x2, red on the left, blue on the right; bytes after the picture are ignored.
        let (red, blue) = (ycbcr([255, 0, 0]), ycbcr([0, 0, 255]));
        let luma = [red[0], red[0], blue[0], blue[0]];
        let data = [&luma[..], &luma, &[red[1], red[2], blue[1], blue[2]], &[9; 5]].concat();
        let picture = decode(PixelFormat::Nv12, 4, 2, &data).unwrap();
        for (x, _, pixel) in picture.enumerate_pixels() {
            assert_near(pixel.0, if x < 2 { [255, 0, 0] } else { [0, 0, 255] });
        }
        // Odd sizes round the chroma plane up.
        let [y, cb, cr] = ycbcr([90, 140, 200]);
        let data = [vec![y; 9], [cb, cr].repeat(4)].concat();
        decode(PixelFormat::Nv12, 3, 3, &data).unwrap().pixels().for_each(|p| assert_near(p.0, [90, 140, 200]));
    }

    #[test]
    fn packed_formats_are_reordered() {
        let data = [1, 2, 3, 4, 5, 6];
        assert_eq!(decode(PixelFormat::Rgb, 2, 1, &data).unwrap().as_raw(), &[1, 2, 3, 4, 5, 6]);
        assert_eq!(decode(PixelFormat::Bgr, 2, 1, &data).unwrap().as_raw(), &[3, 2, 1, 6, 5, 4]);
        assert_eq!(decode(PixelFormat::Gray, 2, 1, &data).unwrap().as_raw(), &[1, 1, 1, 2, 2, 2]);
    }

    #[test]
    fn mjpeg_has_its_own_size_and_ignores_what_follows() {
        let mut data = Vec::new();
        let grey = RgbImage::from_pixel(32, 16, image::Rgb([90, 140, 200]));
        grey.write_to(&mut Cursor::new(&mut data), image::ImageFormat::Jpeg).unwrap();
        let jpeg_bytes = data.len();
        data.extend([0xff, 0xd8, 1, 2, 3]);
        let picture = decode(PixelFormat::Mjpeg, 640, 480, &data).unwrap();
        assert_eq!(picture.dimensions(), (32, 16));
        assert_near(picture.get_pixel(16, 8).0, [90, 140, 200]);
        assert!(decode(PixelFormat::Mjpeg, 32, 16, &data[..jpeg_bytes / 8]).is_err());
        assert!(decode(PixelFormat::Mjpeg, 32, 16, &[]).is_err());
    }

    #[test]
    fn short_buffers_are_errors_that_name_both_sizes() {
        for format in PixelFormat::ALL.into_iter().filter(|&f| f != PixelFormat::Mjpeg) {
            let needed = format.bytes(6, 4).unwrap();
            assert!(decode(format, 6, 4, &vec![50; needed]).is_ok(), "{format}");
            let error = decode(format, 6, 4, &vec![50; needed - 1]).unwrap_err().to_string();
            assert!(error.contains(&needed.to_string()) && error.contains("6x4"), "{error}");
        }
        assert!(decode(PixelFormat::Rgb, 1 << 31, 1 << 31, &[]).is_err());
    }
}
