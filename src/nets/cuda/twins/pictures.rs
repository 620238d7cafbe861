//! Frames: patches, and whole frames in a detector's size.

use anyhow::Result;
use candle_core::Device;
use image::RgbImage;

use super::{assert_close, tensor};
use crate::crop::Crop;
use crate::detect::letterbox::{GREY, Letterbox};
use crate::nets::Precision;
use crate::nets::cuda::host::Host;
use crate::nets::cuda::kernels::{MapDims, Scaling};
use crate::nets::cuda::pictures::{self, LetterboxTaps};
use crate::nets::maskrcnn::transform::Batch;
use crate::space::RectPx;

fn frame(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        image::Rgb([x.wrapping_mul(37) as u8, (x ^ (3 * y)) as u8, y.wrapping_mul(x + 11) as u8])
    })
}

#[test]
fn crops_are_those_of_the_processor_to_the_last_grey_level() -> Result<()> {
    let host = Host::new(Precision::F32)?;
    let frame = frame(97, 61);
    let size = 32;
    // Inside, over two edges, outside, much enlarged.
    let rects = [[20.3, 11.1, 40.7, 40.7], [-15.0, 30.0, 60.0, 60.0], [500.0, 0.0, 9.0, 9.0], [40.2, 20.9, 3.3, 3.3]];
    let crops: Vec<Crop> = rects.iter().map(|&rect| Crop::new(RectPx::from(rect), size)).collect();
    let affines: Vec<f32> = crops.iter().flat_map(|crop| crop.frame_from_crop.to_cols_array()).collect();
    let dims = MapDims { batch: crops.len(), height: size as usize, width: size as usize, channels: 3 };
    let y = host.empty_elements(dims.elements());
    let (pixels, affines) = (host.upload(frame.as_raw()), host.upload(&affines));
    pictures::crop(&host, pixels, [97, 61], affines, y, dims, Scaling::NONE)?;
    let ours = host.read_elements(y);
    for (crop, ours) in crops.iter().zip(ours.chunks_exact(ours.len() / crops.len())) {
        let ours: Vec<u8> = ours.chunks_exact(8).flat_map(|p| [p[0], p[1], p[2]].map(|v| v as u8)).collect();
        assert_eq!(ours, crop.patch(&frame).into_raw());
    }
    Ok(())
}

#[test]
fn frames_are_resized_as_on_the_processor() -> Result<()> {
    let host = Host::new(Precision::F32)?;
    let frame = frame(90, 50);
    let batch = Batch::new(&[&frame], 40, 66, &Device::Cpu)?;
    let [height, width] = batch.padded();
    let dims = MapDims { batch: 1, height, width, channels: 3 };
    let y = host.empty_elements(dims.elements());
    let scaling = Batch::scaling();
    pictures::resize(&host, host.upload(frame.as_raw()), [90, 50], batch.sizes[0].resized, y, dims, scaling)?;
    // Products and sums in another order, of numbers up to 3.
    assert_close(&tensor(&host, y, dims)?, &batch.pixels.to_tensor()?, 2e-6, "resized");
    Ok(())
}

#[test]
fn letterboxes_are_those_of_the_processor_to_the_last_grey_level() -> Result<()> {
    let host = Host::new(Precision::F32)?;
    // Made smaller, as it is, larger, a line, upright, and beside the canvas's proportions; one of them mirrored.
    for ([width, height], longest, mirrored) in [
        ([181, 97], 64, false),
        ([64, 32], 64, false),
        ([20, 31], 64, true),
        ([200, 1], 32, false),
        ([75, 133], 96, true),
        ([33, 32], 32, false),
    ] {
        let frame = frame(width, height);
        let canvas = Letterbox { mirrored, ..Letterbox::whole(width, height, longest) };
        let taps = LetterboxTaps::new(&canvas, [width, height]);
        let dims = MapDims { batch: 1, height: canvas.size[1], width: canvas.size[0], channels: 3 };
        let y = host.empty_elements(dims.elements());
        let tables = [host.upload(&taps.places), host.upload(&taps.weights)];
        let pixels = host.upload(frame.as_raw());
        pictures::letterbox(&host, pixels, width as usize, tables, y, dims, Scaling::NONE)?;
        let stored = host.read_elements(y);
        let ours: Vec<u8> = stored.chunks_exact(8).flat_map(|p| [p[0], p[1], p[2]].map(|v| v as u8)).collect();
        let expected = canvas.picture(&frame).into_raw();
        // The same operations in the same order, so nothing is rounded otherwise.
        assert_eq!(ours, expected, "{width}x{height}");
        assert!(stored.chunks_exact(8).all(|p| p[..3].iter().all(|v| v.fract() == 0.0) && p[3..] == [0.0; 5]));
    }
    // Some of them have grey stripes; an empty canvas is grey everywhere.
    let beside = Letterbox { origin_px: glam::Vec2::splat(1000.0), ..Letterbox::whole(64, 64, 64) };
    let taps = LetterboxTaps::new(&beside, [64, 64]);
    assert!(taps.weights.is_empty() && taps.places.len() == 2 * 128 + 2);
    let dims = MapDims { batch: 1, height: 64, width: 64, channels: 3 };
    let y = host.empty_elements(dims.elements());
    let tables = [host.upload(&taps.places), host.upload(&[0.0_f32])];
    let scaling = Scaling { gain: [2.0; 3], offset: [1.0, 2.0, 3.0] };
    pictures::letterbox(&host, host.upload(frame(64, 64).as_raw()), 64, tables, y, dims, scaling)?;
    let grey = 2.0 * f32::from(GREY);
    assert!(host.read_elements(y).chunks_exact(8).all(|p| p[..3] == [grey + 1.0, grey + 2.0, grey + 3.0]));
    Ok(())
}
