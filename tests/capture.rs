//! Sources of frames: real video files made with ffmpeg, pictures and folders on disk, and what is said when something
//! is broken, missing or strange. The video tests need the ffmpeg program and fail without it.
//!
//! Two further tests need a webcam, and run when asked for:
//! `LIXELSCOPE_TEST_CAMERA=webcam:0 cargo test --release --test capture -- --ignored --nocapture --test-threads 1`.
//! `LIXELSCOPE_TEST_UNPLUG` is a shell command that unplugs the camera for a moment (for the kernel's test camera
//! `vivid`: `v4l2-ctl -d /dev/video0 -c disconnect=1`).

use std::fs;
use std::io::{Cursor, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use image::codecs::jpeg::JpegEncoder;
use image::{DynamicImage, GrayAlphaImage, ImageBuffer, ImageEncoder, ImageFormat, LumaA, Rgb, RgbImage};
use lixelscope::capture::video::VideoSource;
use lixelscope::capture::{self, Frame, FrameSource, Next, PixelFormat};
use lixelscope::settings::{SourceSpec, WebcamWish};
use tempfile::TempDir;

// ---- Helpers ----

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn open(path: &Path) -> anyhow::Result<Box<dyn FrameSource>> {
    capture::open(&SourceSpec::Path(path.to_owned()))
}

fn error_of(path: &Path) -> String {
    match open(path) {
        Ok(source) => panic!("{} was opened as {}", path.display(), source.describe()),
        Err(error) => format!("{error:#}"),
    }
}

struct Drained {
    frames: Vec<Frame>,
    stalls: Vec<String>,
    end: String,
}

/// The frames of a source that breaks off, and why it does.
fn drain_broken(mut source: Box<dyn FrameSource>) -> (Vec<Frame>, String) {
    let mut frames = Vec::new();
    loop {
        match source.next() {
            Ok(Next::Frame(frame)) => frames.push(frame),
            Ok(Next::Stalled(_)) => {}
            Ok(Next::Ended(end)) => panic!("it ended as if it were whole: {end}"),
            Err(error) => return (frames, format!("{error:#}")),
        }
    }
}

/// All that a source gives.
fn drain(mut source: Box<dyn FrameSource>) -> Drained {
    let (mut frames, mut stalls) = (Vec::new(), Vec::new());
    loop {
        match source.next().unwrap() {
            Next::Frame(frame) => frames.push(frame),
            Next::Stalled(words) => stalls.push(words),
            Next::Ended(end) => {
                assert!(matches!(source.next(), Ok(Next::Ended(again)) if again == end), "the end stays the end");
                return Drained { frames, stalls, end };
            }
        }
    }
}

/// Frames that tell their number and their upright position: the left half is grey of the frame's number, the right
/// half red above blue.
fn test_frame(number: usize, width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| match (2 * x < width, 2 * y < height) {
        (true, _) => Rgb([(20 + 4 * number) as u8; 3]),
        (false, true) => Rgb([220, 30, 40]),
        (false, false) => Rgb([30, 60, 210]),
    })
}

/// Encodes test frames at 25 fps.
fn make_video(path: &Path, frames: usize, [width, height]: [u32; 2], options: &[&str]) {
    let size = format!("{width}x{height}");
    let mut ffmpeg = Command::new("ffmpeg")
        .args(["-v", "error", "-y", "-f", "rawvideo", "-pix_fmt", "rgb24", "-framerate", "25", "-s", &size, "-i", "-"])
        .args(options)
        .arg(path)
        .stdin(Stdio::piped())
        .spawn()
        .expect("the video tests need the ffmpeg program: sudo apt install ffmpeg");
    let mut input = ffmpeg.stdin.take().unwrap();
    for number in 0..frames {
        input.write_all(&test_frame(number, width, height)).unwrap();
    }
    drop(input);
    assert!(ffmpeg.wait().unwrap().success(), "ffmpeg could not make {}", path.display());
}

const H264: [&str; 6] = ["-c:v", "libx264", "-pix_fmt", "yuv420p", "-crf", "10"];

/// The middles of the left half and of the two right quarters.
fn probes(picture: &RgbImage) -> [[u8; 3]; 3] {
    let (w, h) = picture.dimensions();
    [(w / 4, h / 2), (3 * w / 4, h / 4), (3 * w / 4, 3 * h / 4)].map(|(x, y)| picture.get_pixel(x, y).0)
}

fn assert_colours(found: &[[u8; 3]], expected: &[[u8; 3]], tolerance: u8, what: &str) {
    for (f, e) in found.iter().flatten().zip(expected.iter().flatten()) {
        assert!(f.abs_diff(*e) <= tolerance, "{what}: {found:?} instead of {expected:?}");
    }
}

/// In the middle of flat areas, 8-bit Y'CbCr costs up to 3 steps and a codec at this quality a few more; frames of the
/// test video are 4 steps apart, which the mean over the three channels still tells.
const CODEC_TOLERANCE: u8 = 6;

// ---- Videos ----

#[test]
fn a_video_gives_its_frames_in_order_with_their_times_and_colours() {
    let folder = folder();
    let path = folder.path().join("walk.mp4");
    make_video(&path, 40, [160, 96], &H264);
    let source = open(&path).unwrap();
    assert_eq!(source.describe(), "walk.mp4, 160x96 at 25 fps");
    assert!(!source.is_live());
    assert_eq!(source.frame_interval(), Some(Duration::from_millis(40)));
    assert_eq!(source.frame_count(), Some(40));
    let drained = drain(source);
    assert_eq!((drained.frames.len(), drained.end.as_str()), (40, "end of the video, 40 frames"));
    assert!(drained.stalls.is_empty(), "{:?}", drained.stalls);
    for (number, frame) in drained.frames.iter().enumerate() {
        assert_eq!(frame.index, number as u64);
        assert!((frame.captured_at.as_secs_f64() - number as f64 * 0.04).abs() < 1e-6, "{:?}", frame.captured_at);
        let (found, expected) = (probes(&frame.rgb), probes(&test_frame(number, 160, 96)));
        assert_colours(&found, &expected, CODEC_TOLERANCE, &format!("frame {number}"));
        let grey = found[0].iter().map(|&v| f32::from(v)).sum::<f32>() / 3.0;
        assert!((grey - (20 + 4 * number) as f32).abs() < 2.0, "frame {number} has grey {grey}");
    }
}

#[test]
fn a_lossless_video_of_odd_size_keeps_every_pixel() {
    let folder = folder();
    let path = folder.path().join("odd.mov");
    make_video(&path, 3, [65, 49], &["-c:v", "png", "-pix_fmt", "rgb24"]);
    let drained = drain(open(&path).unwrap());
    assert_eq!(drained.frames.len(), 3);
    for (number, frame) in drained.frames.iter().enumerate() {
        assert_eq!(frame.rgb, test_frame(number, 65, 49), "frame {number}");
    }
}

#[test]
fn frames_of_varying_rate_keep_their_own_times() {
    let folder = folder();
    let path = folder.path().join("vfr.mkv");
    make_video(&path, 6, [64, 48], &[&H264[..], &["-vf", "setpts=N*N"]].concat());
    let times: Vec<_> =
        drain(open(&path).unwrap()).frames.iter().map(|frame| frame.captured_at.as_secs_f64()).collect();
    assert_eq!(times.len(), 6, "no frame is dropped or repeated for the rate's sake");
    for (number, time) in times.iter().enumerate() {
        assert!((time - (number * number) as f64 * 0.04).abs() < 1e-6, "{times:?}");
    }
}

#[test]
fn a_video_that_is_tagged_as_rotated_is_turned_upright() {
    let folder = folder();
    let path = folder.path().join("phone.mp4");
    make_video(&path, 2, [160, 96], &H264);
    // The track's matrix in the `tkhd` box: (x, y) -> (-y, x), a quarter turn clockwise.
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.windows(4).position(|window| window == b"tkhd").unwrap() + 44;
    let matrix = [0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30];
    bytes[at..at + 36].copy_from_slice(&matrix.map(i32::to_be_bytes).concat());
    fs::write(&path, bytes).unwrap();
    let drained = drain(open(&path).unwrap());
    let turned = &drained.frames[1].rgb;
    assert_eq!(turned.dimensions(), (96, 160));
    // The left half is above now; of the right half, which is below, the upper part is on the right.
    let found = [(48, 40), (72, 120), (24, 120)].map(|(x, y)| turned.get_pixel(x, y).0);
    assert_colours(&found, &probes(&test_frame(1, 160, 96)), CODEC_TOLERANCE, "turned");
}

#[test]
fn pixels_that_are_not_square_are_made_square() {
    let folder = folder();
    let path = folder.path().join("dv.mp4");
    make_video(&path, 2, [144, 96], &[&H264[..], &["-vf", "setsar=4/3"]].concat());
    assert_eq!(drain(open(&path).unwrap()).frames[0].rgb.dimensions(), (192, 96));
}

#[test]
fn a_video_may_change_its_size() {
    let folder = folder();
    let (small, large) = (folder.path().join("small.mjpeg"), folder.path().join("large.mjpeg"));
    let options = ["-c:v", "mjpeg", "-q:v", "2", "-pix_fmt", "yuvj420p", "-f", "mjpeg"];
    make_video(&small, 4, [64, 48], &options);
    make_video(&large, 3, [112, 80], &options);
    let path = folder.path().join("both.mjpeg");
    fs::write(&path, [fs::read(small).unwrap(), fs::read(large).unwrap()].concat()).unwrap();
    let frames = drain(open(&path).unwrap()).frames;
    let sizes: Vec<_> = frames.iter().map(|frame| frame.rgb.dimensions()).collect();
    assert_eq!(sizes, [[(64, 48); 4].to_vec(), [(112, 80); 3].to_vec()].concat());
    // The pipe is still in step after the change.
    assert_colours(&probes(&frames[6].rgb), &probes(&test_frame(2, 112, 80)), 12, "the last frame");
}

#[test]
fn a_truncated_video_gives_what_is_there_and_says_so() {
    let folder = folder();
    let path = folder.path().join("cut.mp4");
    make_video(&path, 50, [160, 96], &[&H264[..], &["-g", "10", "-movflags", "+faststart"]].concat());
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() * 7 / 10]).unwrap();
    let source = open(&path).unwrap();
    assert_eq!(source.frame_count(), Some(50), "what the index promises");
    let (frames, end) = drain_broken(source);
    assert!((5..50).contains(&frames.len()), "{} frames", frames.len());
    let expected = format!("the video is damaged after frame {} of 50: ffmpeg says: ", frames.len());
    assert!(end.starts_with(&expected) && end.len() > expected.len() + 10, "{end}");
}

#[test]
fn what_is_no_video_is_an_error_that_says_why() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let error = error_of(&at("absent.mp4"));
    assert!(error.contains("absent.mp4") && error.contains("cannot open"), "{error}");

    fs::write(at("empty.mp4"), b"").unwrap();
    assert!(error_of(&at("empty.mp4")).contains("the file is empty"));

    fs::write(at("notes.mp4"), b"these are words, not pictures\n".repeat(20)).unwrap();
    let error = error_of(&at("notes.mp4"));
    assert!(error.contains("notes.mp4") && error.contains("ffmpeg"), "{error}");

    let sound = at("sound.m4a");
    let made = Command::new("ffmpeg")
        .args(["-v", "error", "-f", "lavfi", "-i", "sine=duration=0.2"])
        .arg(&sound)
        .status()
        .expect("the video tests need the ffmpeg program: sudo apt install ffmpeg");
    assert!(made.success());
    assert!(error_of(&sound).contains("no moving pictures"), "{}", error_of(&sound));

    // A recording whose index was never written: the index is at the end.
    let cut = at("cut.mp4");
    make_video(&cut, 20, [64, 48], &H264);
    let bytes = fs::read(&cut).unwrap();
    fs::write(&cut, &bytes[..bytes.len() / 2]).unwrap();
    assert!(error_of(&cut).contains("cut off before its index was written"), "{}", error_of(&cut));
}

#[test]
fn without_ffmpeg_a_video_says_how_to_get_it() {
    let folder = folder();
    let path = folder.path().join("walk.mp4");
    fs::write(&path, b"anything").unwrap();
    let missing = folder.path().join("no-such-ffmpeg");
    let error = VideoSource::open_with(&missing, &path).err().unwrap().to_string();
    assert!(error.contains("sudo apt install ffmpeg") && error.contains("brew install"), "{error}");
    assert!(!capture::ffmpeg_version().unwrap().is_empty());
}

#[test]
fn without_ffprobe_only_the_count_is_less_certain() {
    let folder = folder();
    let path = folder.path().join("walk.mp4");
    make_video(&path, 10, [64, 48], &H264);
    // An ffmpeg that has no ffprobe beside it.
    let search = std::env::var_os("PATH").unwrap();
    let name = format!("ffmpeg{}", std::env::consts::EXE_SUFFIX);
    let ffmpeg = std::env::split_paths(&search).map(|dir| dir.join(&name)).find(|path| path.is_file()).unwrap();
    let lonely = folder.path().join(&name);
    fs::copy(ffmpeg, &lonely).unwrap();
    let source = VideoSource::open_with(&lonely, &path).unwrap();
    assert_eq!(source.describe(), "walk.mp4, 64x48 at 25 fps");
    assert_eq!(source.frame_count(), Some(10), "0.4 s at 25 fps");
}

#[test]
fn strange_names_are_only_names() {
    let folder = folder();
    let made = folder.path().join("made.mp4");
    make_video(&made, 2, [64, 48], &H264);
    let names = ["with space.mp4", "gänge-走る.mp4", "-i.mp4", "50%d.mp4", "a'b\"c;d.mp4", "pipe:0", "x:y|z.mp4"];
    for name in names.into_iter().filter(|name| !cfg!(windows) || !name.contains([':', '"', '|'])) {
        let path = folder.path().join(name);
        fs::copy(&made, &path).unwrap();
        assert_eq!(drain(open(&path).unwrap()).frames.len(), 2, "{name}");
    }
    // Relative ones, which begin with the name itself. No other test uses the working folder.
    if cfg!(unix) {
        fs::create_dir_all(folder.path().join("http:/host")).unwrap();
        fs::copy(&made, folder.path().join("http:/host/x.mp4")).unwrap();
        std::env::set_current_dir(folder.path()).unwrap();
        for name in ["-i.mp4", "pipe:0", "http://host/x.mp4"] {
            assert_eq!(drain(open(Path::new(name)).unwrap()).frames.len(), 2, "{name}");
        }
    }
}

#[test]
fn a_playlist_does_not_reach_the_network() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let folder = folder();
    let path = folder.path().join("list.m3u8");
    let text = format!("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://{address}/a.ts\n#EXT-X-ENDLIST\n");
    fs::write(&path, text).unwrap();
    let error = error_of(&path);
    assert!(error.contains("list.m3u8"), "{error}");
    assert!(listener.accept().is_err(), "the playlist was followed");
}

#[test]
#[cfg(target_os = "linux")]
fn closing_a_video_ends_its_process() {
    let folder = folder();
    let path = folder.path().join("long-enough-to-fill-the-pipe.mp4");
    make_video(&path, 60, [320, 240], &H264);
    let running = || {
        let processes = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
        let name = path.to_str().unwrap();
        processes
            .filter_map(|process| fs::read(process.path().join("cmdline")).ok())
            .any(|line| String::from_utf8_lossy(&line).contains(name))
    };
    let mut source = open(&path).unwrap();
    assert!(matches!(source.next().unwrap(), Next::Frame(_)));
    assert!(running(), "ffmpeg waits for its reader");
    let dropped = Instant::now();
    drop(source);
    assert!(!running(), "ffmpeg goes on");
    assert!(dropped.elapsed() < Duration::from_secs(5));
}

// ---- Pictures ----

#[test]
fn a_picture_is_told_by_its_bytes() {
    let folder = folder();
    let picture = test_frame(3, 20, 10);
    for (name, format) in [
        ("a.png", ImageFormat::Png),
        ("a.bmp", ImageFormat::Bmp),
        ("a.webp", ImageFormat::WebP),
        ("really-a-png.jpg", ImageFormat::Png),
        ("no-extension", ImageFormat::Png),
        ("really-a-png.mp4", ImageFormat::Png),
    ] {
        let path = folder.path().join(name);
        picture.save_with_format(&path, format).unwrap();
        let source = open(&path).unwrap();
        assert_eq!(source.describe(), format!("{name}, 20x10"));
        assert_eq!((source.frame_count(), source.frame_interval(), source.is_live()), (Some(1), None, false));
        let Drained { frames, end, .. } = drain(source);
        assert_eq!((frames.len(), end.as_str()), (1, "end: it is one picture"));
        assert_eq!(frames[0].rgb, picture, "{name}");
        assert_eq!((frames[0].name.as_deref(), frames[0].index), (Some(name), 0));
    }
    let path = folder.path().join("a.jpg");
    picture.save(&path).unwrap();
    let found = drain(open(&path).unwrap()).frames.remove(0).rgb;
    assert_colours(&probes(&found)[..1], &probes(&picture)[..1], 6, "JPEG");

    let path = folder.path().join("words.png");
    fs::write(&path, b"not a picture").unwrap();
    assert!(error_of(&path).contains("not a PNG, JPEG, WebP or BMP picture"), "{}", error_of(&path));
}

#[test]
fn grey_deep_and_transparent_pictures_become_rgb() {
    let folder = folder();
    let path = folder.path().join("a.png");
    let deep = ImageBuffer::from_pixel(4, 3, Rgb([65535_u16, 0x8000, 0x1234]));
    deep.save(&path).unwrap();
    assert_eq!(capture::images::read(&path).unwrap().get_pixel(1, 1).0, [255, 128, 0x12]);
    GrayAlphaImage::from_pixel(4, 3, LumaA([77, 10])).save(&path).unwrap();
    assert_eq!(capture::images::read(&path).unwrap().get_pixel(1, 1).0, [77; 3]);
}

/// Red on the left, blue on the right, and an EXIF block that says how to turn it.
fn jpeg_with_orientation(orientation: u8) -> Vec<u8> {
    let stored = RgbImage::from_fn(32, 16, |x, _| if x < 16 { Rgb([220, 0, 0]) } else { Rgb([0, 0, 220]) });
    // TIFF, little-endian, one directory with one entry: orientation, a short.
    let mut exif = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0".to_vec();
    exif.extend([orientation, 0, 0, 0, 0, 0, 0, 0]);
    let mut bytes = Vec::new();
    let mut encoder = JpegEncoder::new_with_quality(&mut bytes, 95);
    encoder.set_exif_metadata(exif).unwrap();
    encoder.encode_image(&DynamicImage::from(stored)).unwrap();
    bytes
}

#[test]
fn photographs_are_turned_as_exif_says() {
    let folder = folder();
    let path = folder.path().join("photo.jpg");
    // Where red is found after turning.
    for (orientation, size, red) in [
        (1, (32, 16), (4, 8)),
        (2, (32, 16), (28, 8)),
        (3, (32, 16), (28, 8)),
        (6, (16, 32), (8, 4)),
        (8, (16, 32), (8, 28)),
    ] {
        fs::write(&path, jpeg_with_orientation(orientation)).unwrap();
        let upright = capture::images::read(&path).unwrap();
        assert_eq!(upright.dimensions(), size, "orientation {orientation}");
        let pixel = upright.get_pixel(red.0, red.1).0;
        assert!(pixel[0] > 180 && pixel[2] < 60, "orientation {orientation}: {pixel:?}");
    }
}

#[test]
fn broken_and_gigantic_pictures_are_errors() {
    let folder = folder();
    let path = folder.path().join("a.png");
    let mut bytes = Vec::new();
    test_frame(0, 64, 64).write_to(&mut Cursor::new(&mut bytes), ImageFormat::Png).unwrap();
    fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    let error = format!("{:#}", open(&path).unwrap().next().unwrap_err());
    assert!(error.contains("a.png") && error.contains("broken"), "{error}");

    // The same for the other formats, cut at several places: never half a picture without a word.
    let noisy =
        RgbImage::from_fn(200, 150, |x, y| Rgb([(x * y % 251) as u8, (x * 7 % 256) as u8, (y * 13 % 256) as u8]));
    for format in [ImageFormat::Jpeg, ImageFormat::WebP, ImageFormat::Bmp] {
        let mut bytes = Vec::new();
        noisy.write_to(&mut Cursor::new(&mut bytes), format).unwrap();
        for tenths in [1, 3, 5, 7, 9] {
            fs::write(&path, &bytes[..bytes.len() * tenths / 10]).unwrap();
            assert!(capture::images::read(&path).is_err(), "{format:?} cut at {tenths}/10");
        }
    }

    // A header that promises 2.5 gigapixels: refused from the header alone.
    let crc32 = |bytes: &[u8]| {
        !bytes.iter().fold(!0_u32, |crc, &byte| {
            (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 * (crc & 1)))
        })
    };
    for side in [50_000_u32, 1 << 31] {
        let header = [&b"IHDR"[..], &side.to_be_bytes(), &50_000_u32.to_be_bytes(), &[8, 2, 0, 0, 0]].concat();
        let rest = [&crc32(&header).to_be_bytes()[..], &[0, 0, 0, 0], b"IDAT", &[0; 4]].concat();
        fs::write(&path, [&b"\x89PNG\r\n\x1a\n\0\0\0\x0d"[..], &header, &rest].concat()).unwrap();
        let error = error_of(&path);
        assert!(error.contains("a.png"), "{error}");
        assert!(side > 50_000 || error.contains("50000x50000 is too large"), "{error}");
    }
}

#[test]
fn a_folder_is_read_in_natural_order_and_a_broken_picture_is_stated() {
    let folder = folder();
    for (number, size) in [(1, 8), (2, 16), (10, 24)] {
        test_frame(number, size, 8).save(folder.path().join(format!("img{number}.png"))).unwrap();
    }
    fs::write(folder.path().join("img3.png"), b"\x89PNG\r\n\x1a\n broken").unwrap();
    fs::write(folder.path().join("notes.txt"), b"no picture").unwrap();
    fs::write(folder.path().join("._img1.png"), b"what macOS leaves behind").unwrap();
    fs::create_dir(folder.path().join("folder.png")).unwrap();
    let source = open(folder.path()).unwrap();
    assert!(source.describe().ends_with(", 4 pictures"), "{}", source.describe());
    assert_eq!(source.frame_count(), Some(4));
    let interval = source.frame_interval().unwrap();
    assert_eq!((interval.as_secs_f64() * 30.0).round(), 1.0, "numbered pictures are a film");
    let Drained { frames, stalls, end } = drain(source);
    let order: Vec<_> =
        frames.iter().map(|frame| (frame.name.clone().unwrap(), frame.index, frame.rgb.width())).collect();
    let name = |name: &str| name.to_owned();
    assert_eq!(order, [(name("img1.png"), 0, 8), (name("img2.png"), 1, 16), (name("img10.png"), 3, 24)]);
    assert_eq!(frames[2].captured_at, interval * 3);
    assert_eq!(stalls.len(), 1);
    assert!(stalls[0].starts_with("skipped picture 3 of 4: ") && stalls[0].contains("img3.png"), "{stalls:?}");
    assert!(end.starts_with("end of the folder: 3 of 4 pictures read; skipped ") && end.contains("img3.png"), "{end}");
}

#[test]
fn a_folder_without_readable_pictures_is_an_error() {
    let folder = folder();
    assert!(error_of(folder.path()).contains("no picture in this folder"));
    fs::write(folder.path().join("a.txt"), b"words").unwrap();
    assert!(error_of(folder.path()).contains("(1 other entries); png, jpg"), "{}", error_of(folder.path()));
    fs::write(folder.path().join("a.png"), b"words").unwrap();
    let mut source = open(folder.path()).unwrap();
    assert!(matches!(source.next().unwrap(), Next::Stalled(_)));
    assert!(source.next().unwrap_err().to_string().contains("none of the folder's 1 pictures can be read"));
}

// ---- What the user says ----

#[test]
fn sources_are_told_from_words() {
    let parse = |text: &str| text.parse::<SourceSpec>();
    for (text, index) in [("webcam", 0), ("webcam:0", 0), ("webcam:12", 12), ("0", 0), ("3", 3), ("/dev/video2", 2)] {
        assert_eq!(parse(text).unwrap(), SourceSpec::Webcam(index), "{text}");
    }
    for text in ["walk.mp4", "./0", "webcam.mp4", "a folder/ü", "-", "C:\\x.mp4", "/dev/videos", "0x", "webcams"] {
        assert_eq!(parse(text).unwrap(), SourceSpec::Path(PathBuf::from(text)), "{text}");
    }
    for text in ["", "  ", "webcam:", "webcam:x", "webcam:-1", "99999999999", "webcam:1.5"] {
        assert!(parse(text).unwrap_err().to_string().contains("webcam:1"), "{text}");
    }
    for text in ["http://host/x.mp4", "rtsp://camera/stream"] {
        assert!(parse(text).unwrap_err().to_string().contains("network addresses are not opened"), "{text}");
    }
    assert_eq!(WebcamWish::parse_size("640x480").unwrap(), [640, 480]);
    for text in ["", "640", "640x", "x480", "0x480", "640x480x3", "-1x4", "99999x4"] {
        assert!(WebcamWish::parse_size(text).is_err(), "{text}");
    }
}

#[test]
fn a_webcam_that_is_not_there_is_an_error_that_says_what_to_do() {
    let cameras = capture::list_cameras().unwrap();
    let index = cameras.iter().map(|camera| camera.index + 1).max().unwrap_or(0);
    let error = capture::open(&SourceSpec::Webcam(index)).err().unwrap().to_string();
    if cameras.is_empty() {
        assert!(error.contains("no webcam was found; plug one in"), "{error}");
    } else {
        assert!(error.contains("there is no webcam") && error.contains(&cameras[0].name), "{error}");
    }
}

// ---- A real webcam ----

fn test_camera() -> SourceSpec {
    let name = std::env::var("LIXELSCOPE_TEST_CAMERA").unwrap_or_else(|_| "webcam:0".to_owned());
    name.parse().unwrap()
}

fn next_frame(source: &mut dyn FrameSource) -> Frame {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match source.next().unwrap() {
            Next::Frame(frame) => return frame,
            Next::Stalled(words) => println!("  {words}"),
            Next::Ended(words) => panic!("a webcam does not end: {words}"),
        }
        assert!(Instant::now() < deadline, "no frame for 30 s");
    }
}

#[test]
#[ignore = "needs a webcam (see the head of this file)"]
fn a_real_webcam_gives_frames_in_each_of_its_formats() {
    println!("cameras: {:?}", capture::list_cameras().unwrap());
    let mut opened = 0;
    let wishes = PixelFormat::ALL.map(|pixels| WebcamWish { size: Some([640, 360]), pixels: Some(pixels), fps: None });
    for wish in [WebcamWish::default()].into_iter().chain(wishes) {
        let mut source = match capture::open_with(&test_camera(), &wish, None) {
            Ok(source) => source,
            Err(error) => {
                println!("{:?}: {error:#}", wish.pixels);
                continue;
            }
        };
        opened += 1;
        assert!(source.is_live());
        let started = Instant::now();
        let frames: Vec<_> = (0..10).map(|_| next_frame(source.as_mut())).collect();
        let title = source.describe();
        let last = &frames[9];
        let (width, height) = last.rgb.dimensions();
        assert!(title.contains(&format!("{width}x{height}")) || wish.pixels == Some(PixelFormat::Mjpeg), "{title}");
        for pair in frames.windows(2) {
            assert!(pair[0].index < pair[1].index && pair[0].captured_at < pair[1].captured_at);
        }
        let rate = last.index as f64 / last.captured_at.as_secs_f64();
        println!("{title}: {:?} for 10 frames, {rate:.1} frames/s from the camera", started.elapsed());
        let bands: Vec<_> = (0..8).map(|i| last.rgb.get_pixel((2 * i + 1) * width / 16, height * 9 / 10).0).collect();
        println!("  eight colours along the bottom: {bands:?}");
    }
    assert!(opened > 1, "the camera opens neither by default nor in any format");
}

#[test]
#[ignore = "needs a webcam and a command that unplugs it (see the head of this file)"]
fn a_real_webcam_that_is_unplugged_comes_back() {
    let unplug = std::env::var("LIXELSCOPE_TEST_UNPLUG").expect("LIXELSCOPE_TEST_UNPLUG: see the head of this file");
    let mut source = capture::open(&test_camera()).unwrap();
    let before = next_frame(source.as_mut());
    assert!(Command::new("sh").args(["-c", &unplug]).status().unwrap().success());
    let unplugged = Instant::now();
    let words = loop {
        match source.next().unwrap() {
            Next::Frame(_) => assert!(unplugged.elapsed() < Duration::from_secs(20), "the camera was not unplugged"),
            Next::Stalled(words) => break words,
            Next::Ended(words) => panic!("{words}"),
        }
    };
    println!("{:?} after the command: {words}", unplugged.elapsed());
    assert!(words.contains("unplugged"), "{words}");
    let after = next_frame(source.as_mut());
    println!("a frame again {:?} after the command", unplugged.elapsed());
    assert!(after.index > before.index && after.captured_at > before.captured_at);
}
