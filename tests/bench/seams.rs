//! What lies between the convolutions: from the frame to the input, from the planes to coordinates, from anchors to
//! boxes. Each beside candle's operations, or the definition written down where candle has none.

use candle_core::{Device, Result, Tensor, Var};
use image::RgbImage;
use image::imageops::{FilterType, resize};
use lixelscope::crop::Crop;
use lixelscope::detect::letterbox::Letterbox;
use lixelscope::detect::nms::{Corners, grouped_nms, iou};
use lixelscope::lixel::gaussian::{SIGMA, gaussian_volume};
use lixelscope::lixel::{self, Lixels};
use lixelscope::nets::input::{Normalisation, PatchBatch, patches_tensor};
use lixelscope::nets::kernels::{Isa, PackedGaussians};
use lixelscope::nets::layers::{Features, Values};
use lixelscope::nets::maskrcnn::roi_align::RoiMaps;
use lixelscope::nets::maskrcnn::transform::ImageSize;
use lixelscope::space::RectPx;

use super::{Bench, Work, random};

const CPU: &Device = &Device::Cpu;

pub fn run(bench: &Bench) -> Result<()> {
    from_the_frame(bench)?;
    max_pooling(bench)?;
    heatmaps(bench)?;
    gaussians(bench)?;
    regions(bench)?;
    suppression(bench)
}

fn frame() -> RgbImage {
    RgbImage::from_fn(640, 480, |x, y| image::Rgb([x * 3 + y, x ^ y, y * 5].map(|v| v as u8)))
}

fn from_the_frame(bench: &Bench) -> Result<()> {
    let frame = frame();
    let letterbox = Letterbox::whole(640, 480, 320);
    let [width, height] = letterbox.size;
    let mut canvas = vec![0; 3 * width * height];
    let mut ours = || {
        letterbox.draw(&frame, &mut canvas);
        Ok(())
    };
    // The same weights, of the picture library.
    let mut plain = || {
        std::hint::black_box(resize(&frame, 320, 240, FilterType::Triangle));
        Ok(())
    };
    let bytes = 3 * (640 * 480 + 320 * 240);
    let name = "letterbox 640x480 -> 320x240";
    bench.compare(name, Work::Bytes(bytes), &mut [("fast", &mut ours), ("plain", &mut plain)])?;

    for size in [96, 256] {
        let crop = Crop::new(RectPx::from([100.0, 20.0, 420.0, 420.0]), size);
        let mut patch = RgbImage::default();
        let mut ours = || {
            crop.cut(&frame, &mut patch);
            Ok(())
        };
        let mut plain = || {
            std::hint::black_box(plain_crop(&crop, &frame));
            Ok(())
        };
        let pixels = (size * size) as usize;
        let name = format!("crop of {size}x{size}");
        bench.compare(&name, Work::Bytes(5 * 3 * pixels), &mut [("fast", &mut ours), ("plain", &mut plain)])?;

        let patches = [crop.patch(&frame)];
        let by = Normalisation::IMAGENET_UNDIVIDED;
        let error = |error: anyhow::Error| candle_core::Error::Msg(format!("{error:#}"));
        let mut ours = || PatchBatch::from(&patches[..]).normalised(&by, CPU).map(drop).map_err(error);
        let mut plain = || by.of_tensor(&patches_tensor(&patches, CPU).map_err(error)?).map(drop);
        let name = format!("normalise {size}x{size}");
        bench.compare(&name, Work::Bytes(5 * 3 * pixels), &mut [("fast", &mut ours), ("plain", &mut plain)])?;
    }
    Ok(())
}

/// Bilinear, black where the frame ends, pixel by pixel.
fn plain_crop(crop: &Crop, frame: &RgbImage) -> RgbImage {
    let grey = |x: i64, y: i64, c: usize| {
        let inside = x >= 0 && y >= 0 && x < i64::from(frame.width()) && y < i64::from(frame.height());
        if inside { f32::from(frame.get_pixel(x as u32, y as u32)[c]) } else { 0.0 }
    };
    RgbImage::from_fn(crop.size, crop.size, |u, v| {
        let at = crop.frame_from_crop.transform_point2(glam::Vec2::new(u as f32, v as f32));
        let (x, y, part) = (at.x.floor() as i64, at.y.floor() as i64, at - at.floor());
        image::Rgb([0, 1, 2].map(|c| {
            let row = |y: i64| grey(x, y, c) * (1.0 - part.x) + grey(x + 1, y, c) * part.x;
            (row(y) * (1.0 - part.y) + row(y + 1) * part.y + 0.5) as u8
        }))
    })
}

fn max_pooling(bench: &Bench) -> Result<()> {
    for (channels, side) in [(64, 128), (64, 400)] {
        let x = random([1, channels, side, side])?;
        let (fast, plain) = (Features::new(&x)?, Features::Plain(x));
        let mut run_fast = || fast.max_pool_3x3().map(drop);
        let mut run_plain = || plain.max_pool_3x3().map(drop);
        let name = format!("max-pool 3x3/2 {channels}, {side}x{side}");
        let bytes = 4 * channels * side * side * 5 / 4;
        bench.compare(&name, Work::Bytes(bytes), &mut [("fast", &mut run_fast), ("plain", &mut run_plain)])?;
    }
    Ok(())
}

fn heatmaps(bench: &Bench) -> Result<()> {
    for (points, bins) in [(6890, 64), (2843, 24), (29, 64)] {
        let logits = || (random([1, 1, points, bins])? * 8.0)?.squeeze(0);
        let tensors = [logits()?, logits()?, logits()?];
        let fast = tensors.each_ref().map(Values::from);
        // Variables go candle's way.
        let [x, y, z] = tensors.each_ref().map(|x| Var::from_tensor(x).map(|x| Values::from(x.into_inner())));
        let plain = [x?, y?, z?];
        let mut run_fast = || Lixels::from_logits(&fast).map(drop);
        let mut run_plain = || Lixels::from_logits(&plain).map(drop);
        let name = format!("soft-argmax, spread {points}x3x{bins}");
        let bytes = 4 * 2 * 3 * points * bins;
        bench.compare(&name, Work::Bytes(bytes), &mut [("fast", &mut run_fast), ("plain", &mut run_plain)])?;

        // The program asks for the modes of the few heatmaps that are shown; this is what all of them would take.
        let heatmaps = lixel::softmax(&Tensor::stack(&tensors, 2)?)?;
        let mut run_plain = || lixel::mode(&heatmaps).map(drop);
        let name = format!("mode {points}x3x{bins}");
        bench.compare(&name, Work::Bytes(bytes / 2), &mut [("plain", &mut run_plain)])?;
    }
    Ok(())
}

/// pose2feat's share of the Gaussians.
fn gaussians(bench: &Bench) -> Result<()> {
    let joints = 29;
    for (channels, bins) in [(64, 64), (32, 24)] {
        // [joints, z, channels, dx, dy]
        let weights = random([joints, bins, channels, 9])?;
        let packed = PackedGaussians::new(
            Isa::detect(),
            [joints, bins, channels],
            SIGMA as f32,
            &weights.flatten_all()?.to_vec1::<f32>()?,
        );
        let coords = (random([1, 1, joints, 3])? * bins as f64)?.squeeze(0)?;
        let floats = coords.flatten_all()?.to_vec1::<f32>()?;
        let kernel = weights.reshape((joints * bins, channels, 3, 3))?.permute((1, 0, 3, 2))?.contiguous()?;
        let mut run_fast = || {
            packed.run(&floats);
            Ok(())
        };
        let mut run_plain = || {
            let volume = gaussian_volume(&coords, bins, SIGMA)?.reshape((1, joints * bins, bins, bins))?;
            volume.conv2d(&kernel, 1, 1, 1, 1).map(drop)
        };
        // The three products.
        let gflop = 2.0 * (joints * channels * (9 * bins + 9 * bins + 3 * bins * bins)) as f64 / 1e9;
        let name = format!("Gaussians {joints} x {bins} -> {channels}, {bins}x{bins}");
        bench.compare(&name, Work::Gflop(gflop), &mut [("fast", &mut run_fast), ("volume", &mut run_plain)])?;
    }
    Ok(())
}

/// Numbers in `[0, 1)` (xorshift).
fn numbers() -> impl FnMut() -> f32 {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1_u64 << 24) as f32
    }
}

fn boxes(count: usize, [width, height]: [f32; 2]) -> Vec<Corners> {
    let mut next = numbers();
    let one = |_| {
        let (x, y, w, h) = (next() * width, next() * height, 8.0 + next() * width * 0.4, 8.0 + next() * height * 0.6);
        [x, y, (x + w).min(width), (y + h).min(height)]
    };
    (0..count).map(one).collect()
}

fn regions(bench: &Bench) -> Result<()> {
    const SIDE: usize = 7;
    let size = ImageSize { original: [800, 1088], resized: [800, 1088] };
    let pyramid = [4, 8, 16, 32].map(|stride| random([1, 256, 800 / stride, 1088 / stride]));
    let [p2, p3, p4, p5] = pyramid;
    let pyramid = [p2?, p3?, p4?, p5?];
    let features = pyramid.iter().map(Features::new).collect::<Result<Vec<_>>>()?;
    let maps = RoiMaps::new(features, &[size]).map_err(|error| candle_core::Error::Msg(format!("{error:#}")))?;
    let planes: Vec<Vec<f32>> = pyramid.iter().map(|x| x.flatten_all()?.to_vec1()).collect::<Result<_>>()?;
    for count in [100, 1000] {
        let regions = boxes(count, [1088.0, 800.0]);
        let mut run_fast = || {
            maps.align(0, &regions, SIDE);
            Ok(())
        };
        let mut run_plain = || {
            for &region in &regions {
                std::hint::black_box(plain_roi_align(&planes, region, SIDE));
            }
            Ok(())
        };
        let name = format!("RoIAlign {count} x 256, 7x7");
        let bytes = 4 * count * 256 * SIDE * SIDE * (16 + 1);
        bench.compare(&name, Work::Bytes(bytes), &mut [("fast", &mut run_fast), ("plain", &mut run_plain)])?;
    }
    Ok(())
}

/// torchvision's text: each bin is the mean of 2 x 2 samples, each between four pixels, channel by channel.
fn plain_roi_align(planes: &[Vec<f32>], region: Corners, side: usize) -> Vec<f32> {
    let area = (region[2] - region[0]) * (region[3] - region[1]);
    let level = (2.0 + (area.sqrt() / 224.0).log2() + 1e-6).floor().clamp(0.0, 3.0) as usize;
    let stride = 4 << level;
    let (height, width) = (800 / stride, 1088 / stride);
    let [x0, y0, x1, y1] = region.map(|v| v / stride as f32);
    let (w, h) = ((x1 - x0).max(1.0) / side as f32, (y1 - y0).max(1.0) / side as f32);
    let mut out = Vec::with_capacity(256 * side * side);
    for plane in planes[level].chunks_exact(height * width) {
        for bin in 0..side * side {
            let mut sum = 0.0;
            for sample in 0..4 {
                let at = |start: f32, length: f32, bin: usize, sample: usize, size: usize| {
                    let at = start + bin as f32 * length + (sample as f32 + 0.5) * length / 2.0;
                    let low = (at.max(0.0) as usize).min(size - 1);
                    (low, (low + 1).min(size - 1), (at.max(0.0) - low as f32).min(1.0))
                };
                let (u0, u1, u) = at(x0, w, bin % side, sample % 2, width);
                let (v0, v1, v) = at(y0, h, bin / side, sample / 2, height);
                let row = |y: usize| plane[y * width + u0] * (1.0 - u) + plane[y * width + u1] * u;
                sum += row(v0) * (1.0 - v) + row(v1) * v;
            }
            out.push(sum / 4.0);
        }
    }
    out
}

fn suppression(bench: &Bench) -> Result<()> {
    let boxes = boxes(5000, [1088.0, 800.0]);
    let mut next = numbers();
    let scores: Vec<f32> = boxes.iter().map(|_| next()).collect();
    let groups: Vec<usize> = (0..boxes.len()).map(|i| i / 1000).collect();
    let mut run_fast = || {
        grouped_nms(&boxes, &scores, &groups, 0.7);
        Ok(())
    };
    let mut run_plain = || {
        std::hint::black_box(plain_nms(&boxes, &scores, &groups, 0.7));
        Ok(())
    };
    let bytes = boxes.len() * (16 + 4 + 8);
    let name = "NMS of 5 x 1000";
    bench.compare(name, Work::Bytes(bytes), &mut [("fast", &mut run_fast), ("plain", &mut run_plain)])
}

/// The definition, word by word: takes the best box that is left and strikes out all others of its group that overlap it.
fn plain_nms(boxes: &[Corners], scores: &[f32], groups: &[usize], threshold: f32) -> Vec<usize> {
    let mut left: Vec<usize> = (0..boxes.len()).collect();
    let mut kept = Vec::new();
    while let Some(best) = left.iter().copied().reduce(|a, b| if scores[b] > scores[a] { b } else { a }) {
        kept.push(best);
        left.retain(|&i| i != best && (groups[i] != groups[best] || iou(boxes[i], boxes[best]) <= threshold));
    }
    kept
}
