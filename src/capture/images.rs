//! Pictures as frames: one file, or a folder in natural order (`img2` before `img10`).
//!
//! PNG, JPEG, WebP and BMP, told by their bytes rather than their names. A picture becomes upright (EXIF orientation)
//! sRGB with 8 bits a channel: grey is spread over the channels, 16 bits are rounded, alpha and colour profiles are
//! dropped, as in the tools that the published networks were trained with. Of an animation, the first picture.
//!
//! A folder's pictures are its files with a picture's name; others, hidden files and folders are passed over. One that
//! cannot be read is stated (`Next::Stalled`), keeps its index, and is counted again at the end; the folder goes on.
//!
//! Annotated pictures are those that their annotation file lists, in its order, each with what is true of it.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits, RgbImage};

use super::{Frame, FrameSource, MAX_PIXELS, Next, SourceKind};
use crate::annotations::Annotations;
use crate::truth::Truth;

/// What a picture's name ends with.
const EXTENSIONS: [&str; 7] = ["png", "jpg", "jpeg", "jpe", "jfif", "webp", "bmp"];

/// Numbered pictures are a film's.
const FILM_INTERVAL: Duration = Duration::from_nanos(1_000_000_000 / 30);
/// Others are looked at one by one.
const SLIDE_INTERVAL: Duration = Duration::from_secs(1);

/// Largest memory that a decoder may take: the largest picture, 16 bits in four channels, and some.
const MAX_DECODER_BYTES: u64 = MAX_PIXELS * 8 + (64 << 20);

/// One picture, or the pictures of a folder.
#[derive(Debug)]
pub struct ImagesSource {
    files: Vec<PathBuf>,
    position: usize,
    description: String,
    interval: Option<Duration>,
    unreadable: Vec<String>,
    annotations: Option<Annotations>,
}

impl ImagesSource {
    /// The pictures that an annotation file lists, one by one: even numbered ones need not be a film.
    pub fn open_annotated(path: &Path, annotations: Annotations) -> Self {
        let files: Vec<PathBuf> = annotations.paths().map(Path::to_owned).collect();
        Self {
            description: format!("{}, {} annotated pictures", file_name(path), files.len()),
            files,
            position: 0,
            interval: Some(SLIDE_INTERVAL),
            unreadable: Vec::new(),
            annotations: Some(annotations),
        }
    }

    /// What is true of a picture, where it is annotated. Annotations that cannot be used are told in the log.
    fn truth(&self, index: usize, rgb: &RgbImage) -> Option<Arc<Truth>> {
        let truth = self.annotations.as_ref()?.truth(index, rgb.dimensions().into());
        let told = |error: &anyhow::Error| {
            log::warn!("{}: its annotations are left out: {error:#}", self.files[index].display());
        };
        truth.inspect_err(told).ok().map(Arc::new)
    }

    /// A source of one frame. The file's header is read here, so that a file that is no picture fails early.
    pub fn open_file(path: &Path) -> Result<Self> {
        let (width, height) = open_decoder(path)?.0.dimensions();
        Ok(Self {
            files: vec![path.to_owned()],
            position: 0,
            description: format!("{}, {width}x{height}", file_name(path)),
            interval: None,
            unreadable: Vec::new(),
            annotations: None,
        })
    }

    /// The pictures of a folder, in natural order.
    pub fn open_folder(folder: &Path) -> Result<Self> {
        let cannot = || format!("{}: cannot read this folder", folder.display());
        let mut files = Vec::new();
        let mut passed_over = 0;
        for entry in std::fs::read_dir(folder).with_context(cannot)? {
            let path = entry.with_context(cannot)?.path();
            if has_picture_name(&path) && path.is_file() {
                files.push(path);
            } else {
                passed_over += 1;
            }
        }
        if files.is_empty() {
            bail!(
                "{}: no picture in this folder ({passed_over} other entries); {} files are read",
                folder.display(),
                EXTENSIONS.join(", ")
            );
        }
        if passed_over > 0 {
            log::info!("{}: {passed_over} entries are no pictures and are passed over", folder.display());
        }
        files.sort_by_cached_key(|path| (natural_key(&file_name(path)), path.clone()));
        let film = files.len() > 1 && {
            let mut series = files.iter().map(|path| text_of(&natural_key(&file_name(path))));
            let first = series.next();
            series.all(|text| Some(text) == first)
        };
        Ok(Self {
            description: format!("{}, {} pictures", file_name(folder), files.len()),
            files,
            position: 0,
            interval: Some(if film { FILM_INTERVAL } else { SLIDE_INTERVAL }),
            unreadable: Vec::new(),
            annotations: None,
        })
    }

    fn end(&self) -> Result<Next> {
        let total = self.files.len();
        if self.interval.is_none() {
            return Ok(Next::Ended("end: it is one picture".to_owned()));
        }
        let mut words = format!("end of the folder: {} of {total} pictures read", total - self.unreadable.len());
        if self.unreadable.len() == total {
            bail!("none of the folder's {total} pictures can be read; the first: {}", self.unreadable[0]);
        }
        if let Some(first) = self.unreadable.first() {
            let others = self.unreadable.len() - 1;
            let _ = write!(words, "; skipped {first}");
            if others > 0 {
                let _ = write!(words, ", and {others} more");
            }
        }
        Ok(Next::Ended(words))
    }
}

impl FrameSource for ImagesSource {
    fn describe(&self) -> String {
        self.description.clone()
    }

    fn is_live(&self) -> bool {
        false
    }

    fn kind(&self) -> SourceKind {
        if self.interval == Some(FILM_INTERVAL) { SourceKind::Numbered } else { SourceKind::Pictures }
    }

    fn frame_interval(&self) -> Option<Duration> {
        self.interval
    }

    fn frame_count(&self) -> Option<u64> {
        Some(self.files.len() as u64)
    }

    fn next(&mut self) -> Result<Next> {
        let Some(path) = self.files.get(self.position) else {
            return self.end();
        };
        let index = self.position;
        self.position += 1;
        match read(path) {
            Ok(rgb) => Ok(Next::Frame(Frame {
                truth: self.truth(index, &rgb),
                rgb,
                index: index as u64,
                captured_at: self.interval.unwrap_or_default() * index as u32,
                name: Some(file_name(path)),
            })),
            Err(error) if self.interval.is_some() => {
                let words = format!("{error:#}");
                log::warn!("skipped picture {} of {}: {words}", index + 1, self.files.len());
                let told = format!("skipped picture {} of {}: {words}", index + 1, self.files.len());
                self.unreadable.push(words);
                Ok(Next::Stalled(told))
            }
            Err(error) => Err(error),
        }
    }
}

/// Reads one picture, upright, as sRGB.
pub fn read(path: &Path) -> Result<RgbImage> {
    let (mut decoder, format) = open_decoder(path)?;
    // A picture whose metadata is broken is still a picture.
    let orientation = decoder.orientation().unwrap_or(image::metadata::Orientation::NoTransforms);
    let mut picture = DynamicImage::from_decoder(decoder).map_err(|error| unreadable(path, error))?;
    // The decoder fills what is missing of a JPEG with grey, and says nothing.
    if format == ImageFormat::Jpeg && !File::open(path).is_ok_and(|file| jpeg_is_whole(BufReader::new(file))) {
        bail!("{}: the picture is broken (the file ends in the middle of it)", path.display());
    }
    picture.apply_orientation(orientation);
    Ok(picture.into_rgb8())
}

/// The format, where the first bytes of a file say that it is a picture that can be read.
pub(super) fn format_of_bytes(start: &[u8]) -> Option<ImageFormat> {
    let known = [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::WebP, ImageFormat::Bmp];
    image::guess_format(start).ok().filter(|format| known.contains(format))
}

/// Whether a file is called like a picture, and is not hidden.
pub(super) fn has_picture_name(path: &Path) -> bool {
    let extension = path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    !file_name(path).starts_with('.') && EXTENSIONS.contains(&extension.as_str())
}

/// A decoder that has read the header, and whose picture is not too large.
fn open_decoder(path: &Path) -> Result<(impl ImageDecoder, ImageFormat)> {
    let file = File::open(path).with_context(|| format!("{}: cannot open", path.display()))?;
    if file.metadata().is_ok_and(|metadata| metadata.len() == 0) {
        bail!("{}: the file is empty", path.display());
    }
    let mut reader = ImageReader::new(BufReader::new(file))
        .with_guessed_format()
        .with_context(|| format!("{}: cannot read", path.display()))?;
    let Some(format) = reader.format() else {
        bail!("{}: not a PNG, JPEG, WebP or BMP picture, whatever its name says", path.display());
    };
    let mut limits = Limits::default();
    limits.max_alloc = Some(MAX_DECODER_BYTES);
    reader.limits(limits);
    let decoder = reader.into_decoder().map_err(|error| unreadable(path, error))?;
    let (width, height) = decoder.dimensions();
    if u64::from(width) * u64::from(height) > MAX_PIXELS {
        bail!(
            "{}: {width}x{height} is too large a picture, at most {} megapixels are read; make it smaller",
            path.display(),
            MAX_PIXELS / 1_000_000
        );
    }
    Ok((decoder, format))
}

/// Whether a JPEG file goes on to its end marker. Segments are skipped by their length (a thumbnail in one has an end
/// marker of its own); in the coded pixels, 0xff is a marker unless 0x00 or a restart follows.
fn jpeg_is_whole(file: impl BufRead) -> bool {
    let mut bytes = file.bytes().map_while(Result::ok);
    loop {
        if !bytes.any(|byte| byte == 0xff) {
            return false;
        }
        let Some(marker) = bytes.by_ref().find(|&byte| byte != 0xff) else { return false };
        match marker {
            0xd9 => return true,
            // Start of image, restarts, a byte of the coded pixels: no length follows.
            0x00 | 0x01 | 0xd0..=0xd8 => {}
            _ => {
                let (Some(high), Some(low)) = (bytes.next(), bytes.next()) else { return false };
                let rest = usize::from(u16::from_be_bytes([high, low])).saturating_sub(2);
                if rest > 0 && bytes.nth(rest - 1).is_none() {
                    return false;
                }
            }
        }
    }
}

fn unreadable(path: &Path, error: ImageError) -> anyhow::Error {
    let at = path.display();
    match error {
        ImageError::Unsupported(_) => anyhow!("{at}: only PNG, JPEG, WebP and BMP pictures are read ({error})"),
        ImageError::Limits(_) => anyhow!("{at}: the picture needs too much memory ({error}); make it smaller"),
        error => anyhow!("{at}: the picture is broken ({error})"),
    }
}

fn file_name(path: &Path) -> String {
    // The path of the working folder, `.`, has no last part.
    path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
}

/// A name cut into text and numbers. Numbers compare by value: fewer digits (without leading zeros) is less.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Number { digits: usize, text: String },
    Text(String),
}

fn natural_key(name: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut rest = name;
    while let Some(first) = rest.chars().next() {
        let is_number = first.is_ascii_digit();
        let end = rest.find(|c: char| c.is_ascii_digit() != is_number).unwrap_or(rest.len());
        let (part, after) = rest.split_at(end);
        parts.push(if is_number {
            let text = part.trim_start_matches('0').to_owned();
            Part::Number { digits: text.len(), text }
        } else {
            Part::Text(part.to_lowercase())
        });
        rest = after;
    }
    parts
}

/// A name without its numbers: what the pictures of one film share.
fn text_of(key: &[Part]) -> String {
    key.iter().map(|part| if let Part::Text(text) = part { text.as_str() } else { "#" }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_sort_as_people_count() {
        let sorted = ["1.png", "2.png", "010.png", "img2.png", "IMG3.png", "img10.png", "img010b.png", "z.png"];
        let mut names = sorted;
        names.reverse();
        names.sort_by_cached_key(|name| natural_key(name));
        assert_eq!(names, sorted);
        // Longer than any integer type.
        assert!(natural_key("a99999999999999999999999999") < natural_key("a100000000000000000000000000"));
        assert_eq!(natural_key("a007"), natural_key("a7"));
    }

    #[test]
    fn picture_names() {
        let is = |name: &str| has_picture_name(Path::new(name));
        assert!(is("a.png") && is("B.JPG") && is("c.d.WebP"));
        assert!(!is("a.txt") && !is("png") && !is("._a.png") && !is(".png") && !is("a.mp4"));
    }
}
