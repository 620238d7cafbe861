//! The webcams of this machine, through nokhwa: which there are, in which format one is opened, and how its errors
//! are told apart. The only file that knows nokhwa.
//!
//! nokhwa's `decoding` feature is off (see [`super::pixels`] instead), and its ways to pick a format are not used:
//! `Closest` never changes the pixel format and `None` may settle on 320x180 at 1 fps. Here the offered formats are
//! ranked by [`cost`] and requested exactly, one after the other, until the camera accepts one.

use std::panic::catch_unwind;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use anyhow::{Result, anyhow};
use nokhwa::Camera;
use nokhwa::utils::{
    ApiBackend, CameraFormat, CameraIndex, FrameFormat, RequestedFormat, RequestedFormatType, Resolution,
};

use super::pixels::PixelFormat;
use super::webcam::{CameraStream, Driver, Kind, RawFrame, Trouble};
use crate::settings::WebcamWish;

/// One camera, as the system calls it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CameraListing {
    /// The number to open it by: `--source webcam:INDEX`.
    pub index: u32,
    /// "Integrated Camera".
    pub name: String,
    /// Where it is attached, in the system's words.
    pub description: String,
}

/// The cameras that the system knows, by index; empty where there is none. On Linux a camera may have a second entry
/// that gives no pictures (its metadata).
pub fn list_cameras() -> Result<Vec<CameraListing>> {
    // nokhwa unwraps on unusual names in /dev.
    let query = catch_unwind(|| nokhwa::query(ApiBackend::Auto));
    let found = query.map_err(|_| anyhow!("the list of cameras cannot be read"))?;
    let found = found.map_err(|error| anyhow!("the list of cameras cannot be read: {error}"))?;
    let mut cameras: Vec<_> = found
        .iter()
        .filter_map(|camera| {
            let index = camera.index().as_index().ok()?;
            Some(CameraListing { index, name: camera.human_name(), description: camera.description().to_owned() })
        })
        .collect();
    cameras.sort_by_key(|camera| camera.index);
    Ok(cameras)
}

/// A format that a camera offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Offer {
    pixels: PixelFormat,
    width: u32,
    height: u32,
    fps: u32,
}

/// How far an offer is from the wish; 0 is perfect. Sizes and rates count by their ratio: half the width is as far as
/// double. Too few frames a second weigh more than too few pixels (30 fps at 640x480 beats 15 fps at 1280x720, but
/// 25 fps at 1280x720 beats 30 fps at 640x480), a size that the user asked for more than both.
fn cost(offer: &Offer, wish: &WebcamWish) -> f32 {
    let ratio = |value: u32, wanted: u32| (value.max(1) as f32 / wanted.max(1) as f32).ln();
    let [width, height] = wish.size.unwrap_or([1280, 720]);
    let size_weight = if wish.size.is_some() { 5.0 } else { 1.0 };
    let size = ratio(offer.width, width).abs() + ratio(offer.height, height).abs();
    let rate = match ratio(offer.fps, wish.fps.unwrap_or(30)) {
        // nokhwa reports 30000/1001 as 30000, and cannot open it.
        _ if offer.fps == 0 || offer.fps > 1000 => 50.0,
        slower if slower < 0.0 => -3.0 * slower,
        faster => 0.3 * faster,
    };
    let pixels = match offer.pixels {
        PixelFormat::Mjpeg => 0.0,
        PixelFormat::Nv12 => 0.01,
        PixelFormat::Yuyv => 0.02,
        PixelFormat::Rgb | PixelFormat::Bgr => 0.03,
        PixelFormat::Gray => 2.0,
    };
    size_weight * size + rate + pixels
}

/// The offers that a wish allows, best first.
fn ranked(mut offers: Vec<Offer>, wish: &WebcamWish) -> Vec<Offer> {
    offers.retain(|offer| wish.pixels.is_none_or(|pixels| offer.pixels == pixels));
    offers.sort_by(|a, b| cost(a, wish).total_cmp(&cost(b, wish)));
    offers.dedup();
    offers
}

/// What to ask for where a camera does not say what it offers.
fn usual_offers(wish: &WebcamWish) -> Vec<Offer> {
    let sizes = wish.size.into_iter().chain([[1280, 720], [640, 480], [1920, 1080], [320, 240]]);
    let offers = sizes.flat_map(|[width, height]| {
        let rates = wish.fps.into_iter().chain([30, 25, 15]);
        rates.flat_map(move |fps| PixelFormat::ALL.map(|pixels| Offer { pixels, width, height, fps }))
    });
    ranked(offers.collect(), wish)
}

/// Opens one camera through nokhwa, and opens it again after it went away.
pub(super) struct NokhwaDriver {
    index: u32,
    wish: WebcamWish,
    /// Known once it was opened; a camera that was replugged may come back under another index.
    name: Option<String>,
}

impl NokhwaDriver {
    pub fn new(index: u32, wish: WebcamWish) -> Self {
        Self { index, wish, name: None }
    }

    /// The listing to open now: the same index, or the same name elsewhere.
    fn find(&self) -> Result<CameraListing, Trouble> {
        let cameras = list_cameras().map_err(|error| Trouble::new(Kind::Other, format!("{error:#}")))?;
        let at_index = cameras.iter().find(|camera| camera.index == self.index);
        let by_name = || cameras.iter().find(|camera| Some(&camera.name) == self.name.as_ref());
        let found = at_index.or_else(by_name).cloned();
        found.ok_or_else(|| Trouble::new(Kind::Gone, missing_camera(self.index, &cameras)))
    }
}

impl Driver for NokhwaDriver {
    type Stream = NokhwaStream;

    fn open(&mut self) -> Result<NokhwaStream, Trouble> {
        ask_permission()?;
        let listing = self.find()?;
        let stream = NokhwaStream::open(&listing, &self.wish)?;
        self.name = Some(listing.name);
        Ok(stream)
    }
}

/// An open camera.
pub(super) struct NokhwaStream {
    camera: Camera,
    name: String,
    index: u32,
    offer: Offer,
}

impl NokhwaStream {
    fn open(listing: &CameraListing, wish: &WebcamWish) -> Result<Self, Trouble> {
        let index = listing.index;
        let mut camera = match new_camera(index, RequestedFormatType::None, &PixelFormat::ALL) {
            Ok(camera) => camera,
            Err(trouble) if trouble.kind == Kind::Other => open_unlisted(index, wish).ok_or_else(|| {
                let words = format!(
                    "webcam {index} ({}) offers no picture format that can be read here ({}). It may be the metadata \
                     entry of a camera (try another index: `lixelscope doctor` lists them), or another program has \
                     left it in an unusual format: unplug it and plug it in again",
                    listing.name, trouble.words
                );
                Trouble::new(Kind::Other, words)
            })?,
            Err(trouble) => return Err(trouble),
        };
        let offers = camera.compatible_camera_formats().map_err(|error| Trouble::from_words(&error.to_string()))?;
        let offers: Vec<_> = offers.iter().map(offer_of).collect();
        let ranking = if offers.is_empty() { usual_offers(wish) } else { ranked(offers.clone(), wish) };
        if let (true, Some(pixels)) = (ranking.is_empty(), wish.pixels) {
            let formats = PixelFormat::ALL.into_iter().filter(|&p| offers.iter().any(|offer| offer.pixels == p));
            let found: Vec<_> = formats.map(|pixels| pixels.to_string()).collect();
            let words = format!("webcam {index} ({}) offers no {pixels}, only {}", listing.name, found.join(", "));
            return Err(Trouble::new(Kind::Other, words));
        }
        let mut refusal = String::new();
        for offer in ranking.iter().take(24) {
            let format = [frame_format(offer.pixels)];
            let exactly = RequestedFormatType::Exact(camera_format(offer));
            match camera.set_camera_requset(RequestedFormat::with_formats(exactly, &format)) {
                Ok(_) => {
                    camera.open_stream().map_err(|error| Trouble::from_words(&error.to_string()))?;
                    return Ok(Self { camera, name: listing.name.clone(), index, offer: *offer });
                }
                Err(error) => {
                    log::debug!("webcam {index} refuses {offer:?}: {error}");
                    let trouble = Trouble::from_words(&error.to_string());
                    if trouble.kind != Kind::Other {
                        return Err(trouble);
                    }
                    refusal = trouble.words;
                }
            }
        }
        let words = format!("webcam {index} ({}) accepts none of the formats that it offers: {refusal}", listing.name);
        Err(Trouble::new(Kind::Other, words))
    }
}

impl CameraStream for NokhwaStream {
    fn describe(&self) -> String {
        let Offer { pixels, width, height, fps } = self.offer;
        format!("webcam {} ({}), {width}x{height} {pixels} at {fps} fps", self.index, self.name)
    }

    fn frame(&mut self) -> Result<RawFrame, Trouble> {
        let Offer { pixels, width, height, .. } = self.offer;
        match self.camera.frame_raw() {
            Ok(data) => Ok(RawFrame { pixels, width, height, data: data.into_owned() }),
            Err(error) => Err(Trouble::from_words(&error.to_string())),
        }
    }
}

fn new_camera(index: u32, request: RequestedFormatType, pixels: &[PixelFormat]) -> Result<Camera, Trouble> {
    let formats: Vec<_> = pixels.iter().copied().map(frame_format).collect();
    Camera::new(CameraIndex::Index(index), RequestedFormat::with_formats(request, &formats))
        .map_err(|error| Trouble::from_words(&error.to_string()))
}

/// Opens a camera that lists no format, by asking for the usual ones.
fn open_unlisted(index: u32, wish: &WebcamWish) -> Option<Camera> {
    usual_offers(wish)
        .iter()
        .find_map(|offer| new_camera(index, RequestedFormatType::Exact(camera_format(offer)), &[offer.pixels]).ok())
}

/// macOS asks the user before a program may see; elsewhere this says yes at once.
fn ask_permission() -> Result<(), Trouble> {
    if nokhwa::nokhwa_check() {
        return Ok(());
    }
    let (answer, answered) = sync_channel(1);
    nokhwa::nokhwa_initialize(move |granted| {
        let _ = answer.try_send(granted);
    });
    match answered.recv_timeout(Duration::from_mins(2)) {
        Ok(true) => Ok(()),
        _ => Err(Trouble::new(
            Kind::Denied,
            "the system does not let this program use the camera; allow it in System Settings, Privacy & Security, \
             Camera, and start again",
        )),
    }
}

fn missing_camera(index: u32, cameras: &[CameraListing]) -> String {
    if cameras.is_empty() {
        return "no webcam was found; plug one in, or open a picture, a folder of pictures or a video instead \
                (--source PATH)"
            .to_owned();
    }
    let found: Vec<_> = cameras.iter().map(|camera| format!("{} ({})", camera.index, camera.name)).collect();
    format!("there is no webcam {index}; found: {}", found.join(", "))
}

impl Trouble {
    /// nokhwa passes the system's errors on as words; on Linux they end in the number.
    fn from_words(words: &str) -> Self {
        let number = words.split("(os error ").nth(1).and_then(|rest| rest.split(')').next()?.parse().ok());
        let kind = match number {
            // ENOENT, ENXIO, ENODEV
            Some(2 | 6 | 19) if cfg!(target_os = "linux") => Kind::Gone,
            // EBUSY
            Some(16) if cfg!(target_os = "linux") => Kind::Busy,
            // EPERM, EACCES
            Some(1 | 13) if cfg!(target_os = "linux") => {
                let advice = "you may not use this camera; add yourself to its group (sudo usermod -aG video $USER) \
                              and log in again";
                return Self::new(Kind::Denied, format!("{advice} ({words})"));
            }
            _ => Kind::Other,
        };
        Self::new(kind, words)
    }
}

fn offer_of(format: &CameraFormat) -> Offer {
    let pixels = match format.format() {
        FrameFormat::MJPEG => PixelFormat::Mjpeg,
        FrameFormat::YUYV => PixelFormat::Yuyv,
        FrameFormat::NV12 => PixelFormat::Nv12,
        FrameFormat::GRAY => PixelFormat::Gray,
        FrameFormat::RAWRGB => PixelFormat::Rgb,
        FrameFormat::RAWBGR => PixelFormat::Bgr,
    };
    Offer { pixels, width: format.width(), height: format.height(), fps: format.frame_rate() }
}

fn frame_format(pixels: PixelFormat) -> FrameFormat {
    match pixels {
        PixelFormat::Mjpeg => FrameFormat::MJPEG,
        PixelFormat::Yuyv => FrameFormat::YUYV,
        PixelFormat::Nv12 => FrameFormat::NV12,
        PixelFormat::Gray => FrameFormat::GRAY,
        PixelFormat::Rgb => FrameFormat::RAWRGB,
        PixelFormat::Bgr => FrameFormat::RAWBGR,
    }
}

fn camera_format(offer: &Offer) -> CameraFormat {
    CameraFormat::new(Resolution::new(offer.width, offer.height), frame_format(offer.pixels), offer.fps)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(pixels: PixelFormat, width: u32, height: u32, fps: u32) -> Offer {
        Offer { pixels, width, height, fps }
    }

    #[test]
    fn a_laptop_camera_opens_in_720p_mjpeg_at_30_fps() {
        use PixelFormat::{Mjpeg, Yuyv};
        let offers = vec![
            offer(Mjpeg, 320, 180, 30),
            offer(Yuyv, 1280, 720, 10),
            offer(Mjpeg, 1920, 1080, 30),
            offer(Mjpeg, 1280, 720, 60),
            offer(Mjpeg, 1280, 720, 30),
            offer(Yuyv, 640, 480, 30),
            offer(Yuyv, 320, 180, 1),
        ];
        let best = |wish: &WebcamWish| ranked(offers.clone(), wish)[0];
        assert_eq!(best(&WebcamWish::default()), offer(Mjpeg, 1280, 720, 30));
        assert_eq!(best(&WebcamWish { fps: Some(60), ..Default::default() }), offer(Mjpeg, 1280, 720, 60));
        assert_eq!(best(&WebcamWish { size: Some([640, 480]), ..Default::default() }), offer(Yuyv, 640, 480, 30));
        assert_eq!(best(&WebcamWish { size: Some([1900, 1000]), ..Default::default() }), offer(Mjpeg, 1920, 1080, 30));
        assert_eq!(best(&WebcamWish { pixels: Some(Yuyv), ..Default::default() }), offer(Yuyv, 640, 480, 30));
        let only_bgr = WebcamWish { pixels: Some(PixelFormat::Bgr), ..Default::default() };
        assert!(ranked(offers.clone(), &only_bgr).is_empty());
    }

    #[test]
    fn rate_weighs_more_than_size_but_not_for_a_few_frames() {
        use PixelFormat::{Gray, Yuyv};
        let wish = WebcamWish::default();
        let better = |a, b| cost(&a, &wish) < cost(&b, &wish);
        assert!(better(offer(Yuyv, 640, 480, 30), offer(Yuyv, 1280, 720, 15)));
        assert!(better(offer(Yuyv, 1280, 720, 25), offer(Yuyv, 640, 480, 30)));
        assert!(better(offer(Yuyv, 640, 480, 15), offer(Yuyv, 320, 180, 1)));
        // A grey (often infrared) picture only where there is no other.
        assert!(better(offer(Yuyv, 640, 480, 30), offer(Gray, 1280, 720, 30)));
        // 30000/1001 fps, which cannot be opened, is tried last; a slow one still before it.
        assert!(better(offer(Yuyv, 320, 180, 1), offer(Yuyv, 1280, 720, 30_000)));
        assert!(better(offer(Yuyv, 320, 180, 1), offer(Yuyv, 1280, 720, 0)));
    }

    #[test]
    fn every_wish_has_offers_to_try_where_a_camera_lists_none() {
        for pixels in PixelFormat::ALL {
            let wish = WebcamWish { size: Some([800, 600]), fps: Some(20), pixels: Some(pixels) };
            assert_eq!(usual_offers(&wish)[0], offer(pixels, 800, 600, 20));
        }
        assert_eq!(usual_offers(&WebcamWish::default())[0], offer(PixelFormat::Mjpeg, 1280, 720, 30));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_systems_errors_are_told_apart() {
        let kind = |words: &str| Trouble::from_words(words).kind;
        assert_eq!(kind("Could not capture frame: No such device (os error 19)"), Kind::Gone);
        assert_eq!(kind("V4L2 Error: No such file or directory (os error 2)"), Kind::Gone);
        assert_eq!(kind("Could not open device stream: Device or resource busy (os error 16)"), Kind::Busy);
        assert_eq!(kind("V4L2 Error: Permission denied (os error 13)"), Kind::Denied);
        assert_eq!(kind("Could not get device property CameraFormat: Failed to Fufill"), Kind::Other);
        assert!(Trouble::from_words("Permission denied (os error 13)").words.contains("usermod"));
    }

    #[test]
    fn a_missing_camera_says_what_to_do() {
        assert!(missing_camera(0, &[]).contains("--source PATH"));
        let listing = CameraListing { index: 2, name: "HD Webcam".to_owned(), description: String::new() };
        assert_eq!(missing_camera(0, &[listing]), "there is no webcam 0; found: 2 (HD Webcam)");
    }
}
