//! Where frames come from. Knows no people.

use std::time::Duration;

use anyhow::Result;
use image::RgbImage;

/// One picture, with its place in its source.
#[derive(Clone, Debug)]
pub struct Frame {
    /// sRGB, 8 bits a channel.
    pub rgb: RgbImage,
    /// Counts up from 0 in its source, frames that were dropped included.
    pub index: u64,
    /// Time since the source was opened (webcam), or the frame's time stamp (video).
    pub captured_at: Duration,
    /// The file it was read from, where it is a file of its own.
    pub name: Option<String>,
}

/// What a source says when asked for its next frame.
#[derive(Debug)]
pub enum Next {
    /// A frame.
    Frame(Frame),
    /// Nothing came for a while; the source may recover. Says what is known.
    Stalled(String),
    /// The source has no more frames. Says why ("end of the video").
    Ended(String),
}

/// A source of frames. Lives on its own thread; `next` may block, but not for longer than a second or so.
pub trait FrameSource: Send {
    /// For a title bar: "webcam 0, 1280x720 at 30 fps".
    fn describe(&self) -> String;

    /// A live source (webcam) goes on whether or not anyone reads it; others wait.
    fn is_live(&self) -> bool;

    /// Time between frames at which the window should play a source that is not live.
    fn frame_interval(&self) -> Option<Duration> {
        None
    }

    /// Number of frames, where it is known beforehand (a progress bar).
    fn frame_count(&self) -> Option<u64> {
        None
    }

    /// The next frame. An error is final for this source.
    fn next(&mut self) -> Result<Next>;
}
