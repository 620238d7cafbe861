//! Where frames come from: a webcam, a video file, a picture or a folder of pictures, or people that do
//! not exist. Knows no people: a source that does may send along what is true of a frame, for others to look at.
//!
//! Every source is one [`FrameSource`]. What can happen to a source while it runs (it ends, it stalls, it is
//! unplugged, a file of it is broken) is a stated condition of [`Next`], in words for the user; an error is only what
//! ends a source for good. Frames of one source may differ in size.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use image::RgbImage;

use crate::annotations::{self, Annotations};
use crate::settings::{SourceSpec, WebcamWish};
use crate::synth::SyntheticSource;
use crate::truth::Truth;

mod camera;
mod ffmpeg_log;
pub mod images;
pub mod pixels;
pub mod video;
pub mod webcam;

pub use camera::{CameraListing, list_cameras};
pub use pixels::PixelFormat;
pub use video::ffmpeg_version;

/// Pictures with more pixels than this are refused before memory is taken for them.
pub const MAX_PIXELS: u64 = 100_000_000;

/// One picture, with its place in its source.
#[derive(Clone, Debug)]
pub struct Frame {
    /// sRGB, 8 bits a channel.
    pub rgb: RgbImage,
    /// Counts up from 0 in its source, frames that were dropped or could not be read included.
    pub index: u64,
    /// Time since the source was opened (webcam), or the frame's time stamp (video, folder).
    pub captured_at: Duration,
    /// The file it was read from, where it is a file of its own.
    pub name: Option<String>,
    /// What is true of it, where it was made and not captured, or annotated.
    pub truth: Option<Arc<Truth>>,
}

/// What a source says when asked for its next frame.
#[derive(Debug)]
pub enum Next {
    /// A frame.
    Frame(Frame),
    /// No frame this time, and why: nothing came for a while, the camera was unplugged, one picture of a folder could
    /// not be read. The source goes on: ask again.
    Stalled(String),
    /// The source has no more frames. Says why ("end of the video"), and what was lost on the way.
    Ended(String),
}

/// How the frames of a source hang together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceKind {
    /// A webcam or a video: people move on from frame to frame, and a frame that comes too late may be dropped.
    Motion,
    /// Numbered pictures, which may be a film's or not: people keep their ids, but every picture is searched and none
    /// is dropped.
    Numbered,
    /// Pictures that have nothing to do with each other.
    Pictures,
}

/// A source of frames. Lives on its own thread; `next` may block, but not for longer than a second or so.
pub trait FrameSource: Send {
    /// For a title bar: "webcam 0, 1280x720 at 30 fps".
    fn describe(&self) -> String;

    /// A live source (webcam) goes on whether or not anyone reads it; others wait.
    fn is_live(&self) -> bool;

    /// How its frames hang together.
    fn kind(&self) -> SourceKind {
        SourceKind::Motion
    }

    /// Time between frames at which the window should play a source that is not live.
    fn frame_interval(&self) -> Option<Duration> {
        None
    }

    /// Number of frames, where it is known beforehand (a progress bar). It may be off by a few where a video's
    /// container does not store it and it was computed from the duration.
    fn frame_count(&self) -> Option<u64> {
        None
    }

    /// Its frames are made when they are asked for, so that those that nobody would look at need not be: [`Self::skip`]
    /// passes over them.
    fn can_skip(&self) -> bool {
        false
    }

    /// Passes over so many frames; their indices are used up. Does nothing unless [`Self::can_skip`].
    fn skip(&mut self, frames: u64) {
        let _ = frames;
    }

    /// The next frame. An error is final for this source.
    fn next(&mut self) -> Result<Next>;
}

/// Opens a source, a webcam in the format that suits best. May block for some seconds (a slow camera, a slow disk).
pub fn open(spec: &SourceSpec) -> Result<Box<dyn FrameSource>> {
    open_with(spec, &WebcamWish::default(), None)
}

/// Opens a source, a webcam as close to the wish as it can. `models` is the folder of body models, which annotated
/// pictures may need.
pub fn open_with(spec: &SourceSpec, wish: &WebcamWish, models: Option<&Path>) -> Result<Box<dyn FrameSource>> {
    match spec {
        SourceSpec::Webcam(index) => Ok(Box::new(webcam::WebcamSource::open(*index, wish)?)),
        SourceSpec::Path(path) => open_path(path, models),
        SourceSpec::Synthetic(kind, seed) => Ok(Box::new(SyntheticSource::open(*kind, *seed)?)),
    }
}

/// Opens the pictures of an annotation file, or of a folder with [`annotations::FILE_NAME`], with what is true of them.
pub fn open_annotated(path: &Path, models: Option<&Path>) -> Result<Box<dyn FrameSource>> {
    let file = if path.is_dir() { path.join(annotations::FILE_NAME) } else { path.to_owned() };
    Ok(Box::new(images::ImagesSource::open_annotated(&file, Annotations::open(&file, models)?)))
}

fn open_path(path: &Path, models: Option<&Path>) -> Result<Box<dyn FrameSource>> {
    let metadata =
        path.metadata().with_context(|| format!("{}: cannot open this picture, folder or video", path.display()))?;
    if metadata.is_dir() {
        if path.join(annotations::FILE_NAME).is_file() {
            match open_annotated(path, models) {
                Ok(source) => return Ok(source),
                Err(error) => log::warn!("{error:#}; the folder's pictures are shown without annotations"),
            }
        }
        return Ok(Box::new(images::ImagesSource::open_folder(path)?));
    }
    if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json")) {
        return open_annotated(path, models);
    }
    if !metadata.is_file() {
        bail!("{}: neither a file nor a folder; give a picture, a folder of pictures or a video", path.display());
    }
    if metadata.len() == 0 {
        bail!("{}: the file is empty", path.display());
    }
    if is_picture(path)? {
        Ok(Box::new(images::ImagesSource::open_file(path)?))
    } else {
        Ok(Box::new(video::VideoSource::open(path)?))
    }
}

/// Told by the first bytes; the name decides where these say nothing, and where they are those of a JPEG but a film of
/// JPEGs follows.
fn is_picture(path: &Path) -> Result<bool> {
    if path.extension().is_some_and(|e| e.eq_ignore_ascii_case("mjpeg") || e.eq_ignore_ascii_case("mjpg")) {
        return Ok(false);
    }
    let mut start = Vec::with_capacity(16);
    let file = std::fs::File::open(path).with_context(|| format!("{}: cannot open", path.display()))?;
    file.take(16).read_to_end(&mut start).with_context(|| format!("{}: cannot read", path.display()))?;
    Ok(images::format_of_bytes(&start).is_some() || images::has_picture_name(path))
}
