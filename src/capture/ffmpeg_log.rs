//! What ffmpeg writes to its log while it decodes: of each frame its size and time stamp (from the `showinfo` filter),
//! and its complaints. The pipe with the pixels says neither, and sizes may change in the middle of a video.

use std::io::Read;
use std::sync::mpsc::SyncSender;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ffmpeg_sidecar::event::{FfmpegEvent, LogLevel};
use ffmpeg_sidecar::log_parser::FfmpegLogParser;

/// At most this many complaints are kept; a damaged film can have one a frame.
const MAX_COMPLAINTS: usize = 32;

/// A frame that is about to come through the pipe.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct FrameInfo {
    pub width: u32,
    pub height: u32,
    /// Seconds since the start of the video, where the frame has a time stamp.
    pub time_secs: Option<f64>,
}

/// What ffmpeg has said about the file so far; rate and duration are there before the first frame is announced.
#[derive(Debug, Default)]
pub(super) struct Summary {
    /// Frames a second, as the container has it.
    pub fps: Option<f64>,
    /// Seconds, of the longest stream.
    pub duration_secs: Option<f64>,
    /// Errors, and warnings about damage, without ffmpeg's decoration.
    pub complaints: Vec<String>,
    /// Some of them were errors.
    pub failed: bool,
    /// The file has streams, but none with moving pictures.
    pub no_video: bool,
}

/// Reads the log to its end, keeps what it says, and passes the frames on. Reads on when nobody listens any more: a
/// full pipe would block ffmpeg.
pub(super) fn read_log(log: impl Read, frames: &SyncSender<FrameInfo>, summary: &Mutex<Summary>) {
    let mut parser = FfmpegLogParser::new(log);
    let mut time_base_secs = None;
    let mut failures = 0;
    loop {
        match parser.parse_next_event() {
            Ok(FfmpegEvent::LogEOF) => break,
            Ok(FfmpegEvent::ParsedDuration(event)) => lock(summary).duration_secs = Some(event.duration),
            Ok(FfmpegEvent::Log(_, line)) if line.contains("Parsed_showinfo") => {
                if let Some(base) = fraction(&line, "config in time_base:") {
                    time_base_secs = Some(base);
                    let fps = fraction(&line, "frame_rate:");
                    lock(summary).fps = fps.filter(|fps| (0.01..=1000.0).contains(fps));
                } else if let Some(info) = frame_info(&line, time_base_secs) {
                    let _ = frames.send(info);
                }
            }
            Ok(FfmpegEvent::Log(level, line)) => lock(summary).note(&level, &line),
            Ok(_) => failures = 0,
            // A line that the parser does not understand, or a broken pipe.
            Err(error) => {
                log::debug!("ffmpeg's log: {error:#}");
                failures += 1;
                if failures > 100 {
                    break;
                }
            }
        }
    }
}

/// A panic elsewhere leaves plain values behind: the lock is taken all the same.
pub(super) fn lock(summary: &Mutex<Summary>) -> MutexGuard<'_, Summary> {
    summary.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Summary {
    fn note(&mut self, level: &LogLevel, line: &str) {
        let words = plain(line);
        let damage = words.contains("corrupt") || words.contains("Could not find codec parameters");
        let failed = matches!(level, LogLevel::Error | LogLevel::Fatal);
        self.failed |= failed;
        self.no_video |= failed && words.contains("matches no streams");
        let wanted = failed || (*level == LogLevel::Warning && damage);
        if wanted && self.complaints.len() < MAX_COMPLAINTS {
            self.complaints.push(words);
        }
    }

    /// The most telling complaints, for the user: the first error is usually the cause, the last what came of it.
    pub fn words(&self) -> String {
        match self.complaints.as_slice() {
            [] => "nothing".to_owned(),
            [only] => only.clone(),
            [first, .., last] if first == last => first.clone(),
            [first, .., last] => format!("{first}; {last}"),
        }
    }
}

/// `[h264 @ 0x5d2] [error] Invalid NAL unit size` -> `Invalid NAL unit size`.
fn plain(line: &str) -> String {
    let mut rest = line.trim();
    while let Some(end) = rest.starts_with('[').then(|| rest.find("] ")).flatten() {
        rest = rest[end + 2..].trim_start();
    }
    rest.to_owned()
}

/// `... config in time_base: 1/12800, frame_rate: 25/1`: the fraction after a name.
fn fraction(line: &str, name: &str) -> Option<f64> {
    let (numerator, denominator) = field(line, name)?.trim_end_matches(',').split_once('/')?;
    let value = numerator.parse::<f64>().ok()? / denominator.parse::<f64>().ok()?;
    (value.is_finite() && value > 0.0).then_some(value)
}

/// `... n:   3 pts:   1536 pts_time:0.12 ... s:320x240 i:P ...`. The printed `pts_time` has six digits only.
fn frame_info(line: &str, time_base_secs: Option<f64>) -> Option<FrameInfo> {
    field(line, " n:")?;
    let (width, height) = field(line, " s:")?.split_once('x')?;
    let pts = field(line, " pts:").and_then(|pts| pts.parse::<i64>().ok());
    Some(FrameInfo {
        width: width.parse().ok()?,
        height: height.parse().ok()?,
        time_secs: pts.zip(time_base_secs).map(|(pts, base)| pts as f64 * base),
    })
}

fn field<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    line.split_once(name)?.1.split_whitespace().next()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use super::*;

    const LOG: &str = "\
[info] Input #0, mov,mp4,m4a,3gp,3g2,mj2, from 'file:cut.mp4':
[info]   Duration: 00:00:02.00, start: 0.000000, bitrate: 57 kb/s
[info]   Stream #0:0[0x1](und): Video: h264 (High) (avc1 / 0x31637661), yuv420p, 320x240, 90 kb/s, 25 fps, 25 tbr
[Parsed_showinfo_3 @ 0x5] [info] config in time_base: 1/12800, frame_rate: 25/1
[Parsed_showinfo_3 @ 0x5] [info] config out time_base: 0/0, frame_rate: 0/0
[Parsed_showinfo_3 @ 0x5] [info] n:   0 pts:      0 pts_time:0       pos:      564 fmt:rgb24 sar:1/1 s:64x48 i:P iskey:1
[Parsed_showinfo_3 @ 0x5] [info]   side data - pan/scan
[Parsed_showinfo_3 @ 0x5] [info] color_range:pc color_space:gbr color_primaries:unknown color_trc:unknown
[mpegts @ 0x6] [warning] Packet corrupt (stream = 0, dts = 162000).
[Parsed_showinfo_3 @ 0x7] [info] config in time_base: 1/90000, frame_rate: 10/1
[Parsed_showinfo_3 @ 0x7] [info] n:   0 pts:324009000 pts_time:3600.1  pos:     2632 fmt:rgb24 sar:1/1 s:96x64 i:P
[Parsed_showinfo_3 @ 0x7] [info] n:   1 pts:NOPTS pts_time:NOPTS pos:  1 fmt:rgb24 sar:1/1 s:96x64 i:P
[h264 @ 0x5] [error] Error splitting the input into NAL units.
[mov,mp4,m4a,3gp,3g2,mj2 @ 0x5] [error] stream 0, offset 0x38da: partial file
";

    #[test]
    fn frames_and_complaints_are_told_from_the_rest() {
        let (frames, infos) = sync_channel(16);
        let summary = Mutex::default();
        read_log(LOG.as_bytes(), &frames, &summary);
        drop(frames);
        let summary = summary.into_inner().unwrap();
        let infos: Vec<_> = infos.iter().map(|info| (info.width, info.height, info.time_secs)).collect();
        assert_eq!(infos.len(), 3);
        assert_eq!((infos[0], infos[2]), ((64, 48, Some(0.0)), (96, 64, None)));
        // Exact but for the rounding of one product; `pts_time` would do, too, but for longer films.
        assert!((infos[1].2.unwrap() - 3600.1).abs() < 1e-9 && infos[1].0 == 96, "{infos:?}");
        assert_eq!((summary.fps, summary.duration_secs), (Some(10.0), Some(2.0)));
        assert!(summary.failed && !summary.no_video);
        assert_eq!(summary.complaints.len(), 3);
        assert_eq!(
            summary.words(),
            "Packet corrupt (stream = 0, dts = 162000).; stream 0, offset 0x38da: partial file"
        );
    }

    #[test]
    fn a_reader_that_is_gone_does_not_stop_the_log() {
        let (frames, infos) = sync_channel(0);
        drop(infos);
        let summary = Mutex::default();
        read_log(LOG.as_bytes(), &frames, &summary);
        assert_eq!(lock(&summary).complaints.len(), 3);
    }

    #[test]
    fn strange_lines_are_no_frames() {
        for line in ["", " n:", " n: 1 s:", " n: 1 s:3x", " n: 1 s:-1x4", " n: 1 s:99999999999x1", "s:1x1", " s:1x1"] {
            assert_eq!(frame_info(line, None), None, "{line}");
        }
        for line in ["rate: 0/0", "rate: 1", "rate: x/y, ", "rate:", "rate: -1/2", "rates"] {
            assert_eq!(fraction(line, "rate:"), None, "{line}");
        }
        assert_eq!(fraction("rate: 30000/1001, x", "rate:"), Some(30_000.0 / 1001.0));
        assert_eq!(plain("[a @ 0x1] [fatal] [x] y]"), "y]");
        assert_eq!(plain("["), "[");
    }
}
