//! Video files, decoded by the ffmpeg program.
//!
//! ffmpeg turns the pictures upright (rotation metadata), makes their pixels square, and writes them as rgb24 to a
//! pipe; its log says of each frame its size and time stamp (`ffmpeg_log.rs`). Every frame of the file is
//! delivered once, whatever its rate. The pipe throttles ffmpeg: two decoded frames wait here, no more.
//!
//! Only local files are opened: the name is given with the `file:` protocol, the only one allowed, so that no name can
//! be taken for an option or an address.

use std::ffi::{OsStr, OsString};
use std::io::{ErrorKind, Read};
use std::path::Path;
use std::process::{ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use ffmpeg_sidecar::child::FfmpegChild;
use ffmpeg_sidecar::command::FfmpegCommand;
use ffmpeg_sidecar::paths::ffmpeg_path;
use ffmpeg_sidecar::version::ffmpeg_version_with_path;
use image::RgbImage;

use super::ffmpeg_log::{FrameInfo, Summary, lock, read_log};
use super::{Frame, FrameSource, MAX_PIXELS, Next};

/// Decoded frames that may wait.
const QUEUE: usize = 2;
/// Announced frames that may wait. ffmpeg announces a frame just before it writes it, so this is never full while the
/// pixels have not come.
const ANNOUNCED: usize = 1024;
/// `next` says so when nothing came for this long.
const PATIENCE: Duration = Duration::from_secs(1);
/// The first frame may take longer: a slow disk, a large index.
const OPENING: Duration = Duration::from_secs(30);

const INSTALL: &str = "video files are read with the ffmpeg program, which was not found. Install it (Debian, Ubuntu: \
                       sudo apt install ffmpeg; macOS: brew install ffmpeg; Windows: winget install ffmpeg) or put it \
                       beside this program";

/// The version of the ffmpeg program that video files are read with.
pub fn ffmpeg_version() -> Result<String> {
    version_of(&ffmpeg_path())
}

fn version_of(ffmpeg: &Path) -> Result<String> {
    ffmpeg_version_with_path(ffmpeg).map_err(|error| match error.downcast_ref::<std::io::Error>() {
        Some(io) if io.kind() == ErrorKind::NotFound => anyhow!(INSTALL),
        _ => error.context(format!("{}: cannot run ffmpeg", ffmpeg.display())),
    })
}

/// A video file. Dropping it ends ffmpeg.
pub struct VideoSource {
    description: String,
    interval: Option<Duration>,
    count: Option<u64>,
    child: FfmpegChild,
    /// Read while opening: it shows that there is a picture.
    first: Option<Frame>,
    frames: Option<Receiver<Frame>>,
    pixels_thread: Option<JoinHandle<Result<()>>>,
    log_thread: Option<JoinHandle<()>>,
    summary: Arc<Mutex<Summary>>,
    delivered: u64,
    silent: Duration,
    ended: Option<String>,
}

impl VideoSource {
    /// Opens a video with the ffmpeg program that is beside this one or in the search path. Waits for its first frame.
    pub fn open(path: &Path) -> Result<Self> {
        Self::open_with(&ffmpeg_path(), path)
    }

    /// Opens a video with a certain ffmpeg program.
    pub fn open_with(ffmpeg: &Path, path: &Path) -> Result<Self> {
        let version = version_of(ffmpeg)?;
        let facts = Facts::of(ffmpeg, path).unwrap_or_default();
        let mut child = command(ffmpeg, path, &version)
            .spawn()
            .with_context(|| format!("{}: cannot run ffmpeg", ffmpeg.display()))?;
        drop(child.take_stdin());
        // Both are piped by `FfmpegCommand`.
        let (stdout, stderr) = child.take_stdout().zip(child.take_stderr()).context("ffmpeg has no output")?;
        let (announce, announced) = sync_channel(ANNOUNCED);
        let (deliver, frames) = sync_channel(QUEUE);
        let interval_secs = facts.fps.map_or(1.0 / 30.0, f64::recip);
        let mut source = Self {
            description: String::new(),
            interval: None,
            count: None,
            child,
            first: None,
            frames: Some(frames),
            pixels_thread: None,
            log_thread: None,
            summary: Arc::default(),
            delivered: 0,
            silent: Duration::ZERO,
            ended: None,
        };
        let summary = Arc::clone(&source.summary);
        source.log_thread = Some(spawn("video-log", move || read_log(stderr, &announce, &summary))?);
        source.pixels_thread =
            Some(spawn("video-frames", move || read_frames(stdout, &announced, &deliver, interval_secs))?);
        let waited = source.frames.as_ref().map(|frames| frames.recv_timeout(OPENING));
        match waited {
            Some(Ok(frame)) => source.first = Some(frame),
            Some(Err(RecvTimeoutError::Timeout)) => {
                bail!("{}: ffmpeg gave no picture within {} s", path.display(), OPENING.as_secs());
            }
            _ => return Err(source.no_picture(path)),
        }
        let fps = {
            let summary = lock(&source.summary);
            let computed = summary.duration_secs.zip(summary.fps).map(|(secs, fps)| (secs * fps).round() as u64);
            source.count = facts.count.or(computed.filter(|&count| count > 0));
            facts.fps.or(summary.fps)
        };
        source.interval = fps.map(|fps| Duration::from_secs_f64(fps.recip()));
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
        let (width, height) = source.first.as_ref().map_or((0, 0), |frame| frame.rgb.dimensions());
        let rate = fps.map_or(String::new(), |fps| format!(" at {} fps", (fps * 100.0).round() / 100.0));
        source.description = format!("{name}, {width}x{height}{rate}");
        Ok(source)
    }

    /// Why there was not a single frame.
    fn no_picture(&mut self, path: &Path) -> anyhow::Error {
        let at = path.display();
        let ended = self.finish();
        if let Err(error) = ended {
            return error.context(format!("{at}: cannot read this video"));
        }
        let summary = lock(&self.summary);
        let words = summary.words();
        if summary.no_video {
            anyhow!("{at}: there are no moving pictures in this file (only sound?)")
        } else if words.contains("moov atom not found") {
            anyhow!(
                "{at}: this is no video that can be read, or a recording that was cut off before its index was written \
                 (ffmpeg says: {words})"
            )
        } else if summary.failed {
            anyhow!("{at}: neither a picture nor a video that ffmpeg can read; it says: {words}")
        } else {
            anyhow!("{at}: this video has no frames")
        }
    }

    /// Waits for the threads and the process. Says how ffmpeg ended; an error where its frames could not be followed.
    fn finish(&mut self) -> Result<ExitStatus> {
        self.frames = None;
        let followed = join(self.pixels_thread.take()).unwrap_or(Ok(()));
        if followed.is_err() {
            let _ = self.child.kill();
        }
        join(self.log_thread.take());
        let status = self.child.as_inner_mut().wait().context("ffmpeg's end is not known")?;
        followed.map(|()| status)
    }

    /// The words of the end. Damage is an error, though ffmpeg ends well on a truncated file.
    fn last_words(&mut self) -> Result<String> {
        let status = self.finish().with_context(|| format!("after frame {}", self.delivered))?;
        let summary = lock(&self.summary);
        let (count, words) = (self.delivered, summary.words());
        let short = self.count.is_none_or(|expected| count < expected);
        let of = self.count.filter(|&expected| expected > count).map_or(String::new(), |n| format!(" of {n}"));
        if status.code().is_none() {
            bail!("ffmpeg was ended from outside after frame {count}{of} ({status})");
        }
        if !status.success() || (summary.failed && short) {
            bail!("the video is damaged after frame {count}{of}: ffmpeg says: {words}");
        }
        Ok(if summary.complaints.is_empty() {
            format!("end of the video, {count} frames")
        } else {
            format!("end of the video, {count} frames, not all of them whole: ffmpeg says: {words}")
        })
    }
}

impl FrameSource for VideoSource {
    fn describe(&self) -> String {
        self.description.clone()
    }

    fn is_live(&self) -> bool {
        false
    }

    fn frame_interval(&self) -> Option<Duration> {
        self.interval
    }

    fn frame_count(&self) -> Option<u64> {
        self.count
    }

    fn next(&mut self) -> Result<Next> {
        if let Some(words) = &self.ended {
            return Ok(Next::Ended(words.clone()));
        }
        let received = match self.first.take() {
            Some(frame) => Ok(frame),
            None => self.frames.as_ref().map_or(Err(RecvTimeoutError::Disconnected), |rx| rx.recv_timeout(PATIENCE)),
        };
        match received {
            Ok(frame) => {
                self.delivered = frame.index + 1;
                self.silent = Duration::ZERO;
                Ok(Next::Frame(frame))
            }
            Err(RecvTimeoutError::Timeout) => {
                self.silent += PATIENCE;
                Ok(Next::Stalled(format!("no frame from ffmpeg for {} s", self.silent.as_secs())))
            }
            Err(RecvTimeoutError::Disconnected) => {
                let words = self.last_words()?;
                self.ended = Some(words.clone());
                Ok(Next::Ended(words))
            }
        }
    }
}

impl Drop for VideoSource {
    fn drop(&mut self) {
        // The receiver goes first, so that no thread waits for it; killing closes the pipes, which ends the threads.
        self.frames = None;
        let _ = self.child.kill();
        let _ = self.finish();
    }
}

fn spawn<T: Send + 'static>(name: &str, work: impl FnOnce() -> T + Send + 'static) -> Result<JoinHandle<T>> {
    std::thread::Builder::new().name(name.to_owned()).spawn(work).with_context(|| format!("cannot start {name}"))
}

fn join<T>(thread: Option<JoinHandle<T>>) -> Option<T> {
    thread.and_then(|thread| thread.join().ok())
}

/// Frames as ffmpeg writes them: announced by the log, their pixels in the pipe. An error says why the pipe cannot be
/// followed any further.
fn read_frames(
    mut pixels: ChildStdout,
    announced: &Receiver<FrameInfo>,
    deliver: &SyncSender<Frame>,
    interval_secs: f64,
) -> Result<()> {
    let mut captured_at = Duration::ZERO;
    for (index, info) in announced.iter().enumerate() {
        let FrameInfo { width, height, time_secs } = info;
        if u64::from(width) * u64::from(height) > MAX_PIXELS {
            bail!("frames of {width}x{height} pixels are too large");
        }
        let mut rgb = vec![0; width as usize * height as usize * 3];
        if let Err(error) = pixels.read_exact(&mut rgb) {
            // ffmpeg ended in the middle of a frame; its exit status and its log say why.
            if error.kind() == ErrorKind::UnexpectedEof {
                return Ok(());
            }
            return Err(error).context("cannot read from ffmpeg");
        }
        let guess = if index == 0 { 0.0 } else { captured_at.as_secs_f64() + interval_secs };
        let time = Duration::try_from_secs_f64(time_secs.unwrap_or(guess)).unwrap_or_default();
        // Time does not run backwards, whatever the file says.
        captured_at = captured_at.max(time);
        let rgb = RgbImage::from_raw(width, height, rgb).context("a frame and its size do not belong together")?;
        let frame = Frame { rgb, index: index as u64, captured_at, name: None, truth: None };
        if deliver.send(frame).is_err() {
            break;
        }
    }
    Ok(())
}

/// `file:` and the path: no name is taken for an option, an address or a pattern.
fn file_argument(path: &Path) -> OsString {
    let mut argument = OsString::from("file:");
    argument.push(path);
    argument
}

fn command(ffmpeg: &Path, path: &Path, version: &str) -> FfmpegCommand {
    // Square pixels: the shorter side of a pixel is stretched, by no more than what real films need.
    let filters = "scale=w='round(iw*max(clip(sar,0.25,4),1))':h='round(ih/min(clip(sar,0.25,4),1))',setsar=1,\
                   format=rgb24,showinfo=checksum=0";
    let mut command = FfmpegCommand::new_with_path(ffmpeg);
    command.args(["-hide_banner", "-nostdin", "-nostats", "-protocol_whitelist", "file"]);
    // The first stream of moving pictures; the capital V leaves out the cover of a song.
    command.arg("-i").arg(file_argument(path)).args(["-map", "0:V:0", "-vf", filters]);
    // Each frame once, and in its own size.
    command.args(if has_fps_mode(version) { ["-fps_mode", "passthrough"] } else { ["-vsync", "0"] });
    command.args(["-autoscale", "0", "-f", "rawvideo", "-pix_fmt", "rgb24", "pipe:1"]);
    command
}

/// `-fps_mode` came with ffmpeg 5.1; `-vsync` goes. Versions that are no release ("N-109542-g1bf1be0") are new.
fn has_fps_mode(version: &str) -> bool {
    let mut numbers = version.trim_start_matches('n').split(['.', '-']).map(str::parse::<u32>);
    !matches!((numbers.next(), numbers.next()), (Some(Ok(major)), Some(Ok(minor))) if (major, minor) < (5, 1))
}

/// What ffprobe tells beforehand; it comes with ffmpeg, but not always.
#[derive(Debug, Default)]
struct Facts {
    count: Option<u64>,
    fps: Option<f64>,
}

impl Facts {
    fn of(ffmpeg: &Path, path: &Path) -> Option<Self> {
        let ffprobe = ffmpeg.with_file_name(format!("ffprobe{}", std::env::consts::EXE_SUFFIX));
        let output = Command::new(ffprobe)
            .args(["-v", "error", "-protocol_whitelist", "file", "-select_streams", "V:0", "-show_entries"])
            .args(["stream=nb_frames,avg_frame_rate,duration:format=duration", "-of", "json"])
            .args([OsStr::new("-i"), &file_argument(path)])
            .stdin(Stdio::null())
            .output()
            .map_err(|error| log::debug!("no ffprobe: {error}"))
            .ok()?;
        Self::from_json(&output.stdout)
    }

    fn from_json(json: &[u8]) -> Option<Self> {
        let facts: serde_json::Value = serde_json::from_slice(json).ok()?;
        let stream = &facts["streams"][0];
        let fps = stream["avg_frame_rate"].as_str().and_then(|rate| {
            let (numerator, denominator) = rate.split_once('/')?;
            Some(numerator.parse::<f64>().ok()? / denominator.parse::<f64>().ok()?)
        });
        let fps = fps.filter(|fps| (0.01..=1000.0).contains(fps));
        let number = |value: &serde_json::Value| value.as_str().and_then(|text| text.parse::<f64>().ok());
        let stored = number(&stream["nb_frames"]).filter(|&count| count >= 1.0);
        let duration = number(&stream["duration"]).or_else(|| number(&facts["format"]["duration"]));
        let computed = duration.zip(fps).map(|(duration_secs, fps)| (duration_secs * fps).round());
        let count = stored.or(computed).filter(|count| (1.0..1e9).contains(count)).map(|count| count as u64);
        Some(Self { count, fps })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_versions_get_the_old_option() {
        for (version, new) in [
            ("4.4.2-0ubuntu0.22.04.1", false),
            ("5.0.1", false),
            ("5.1.9-0+deb12u1", true),
            ("5.1", true),
            ("n7.1", true),
            ("8.0", true),
            ("N-109542-g1bf1be0", true),
            ("2023-01-18-git-ba36e6ed52-full_build-www.gyan.dev", true),
            ("", true),
        ] {
            assert_eq!(has_fps_mode(version), new, "{version}");
        }
    }

    #[test]
    fn facts_are_stored_or_computed_or_unknown() {
        let facts = |json: &str| Facts::from_json(json.as_bytes()).map(|facts| (facts.count, facts.fps));
        let mp4 = r#"{"streams": [{"avg_frame_rate": "25/1", "duration": "2.0", "nb_frames": "49"}]}"#;
        assert_eq!(facts(mp4), Some((Some(49), Some(25.0))));
        let mkv = r#"{"streams": [{"avg_frame_rate": "25/1"}], "format": {"duration": "2.0"}}"#;
        assert_eq!(facts(mkv), Some((Some(50), Some(25.0))));
        let odd = r#"{"streams": [{"avg_frame_rate": "0/0", "duration": "N/A", "nb_frames": "-4"}]}"#;
        assert_eq!(facts(odd), Some((None, None)));
        assert_eq!(facts("{}"), Some((None, None)));
        assert_eq!(facts(""), None);
    }
}
