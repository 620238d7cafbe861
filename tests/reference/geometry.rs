//! Cases without a network: boxes and crops, and the way from lixels to metres.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use glam::{Affine2, Mat2, Vec2, Vec3};
use image::RgbImage;

use lixelscope::camera_mesh::{BODY_BOX_M, DepthAxis, HAND_BOX_M, LixelVolume};
use lixelscope::crop::{Augmentation, Crop, process_bbox};
use lixelscope::space::{Intrinsics, RectPx};

use crate::compare::{Expected, Report, Tolerance};

fn rects(numbers: &[f64]) -> Vec<RectPx> {
    numbers.chunks_exact(4).map(|r| RectPx::from([r[0] as f32, r[1] as f32, r[2] as f32, r[3] as f32])).collect()
}

/// Rows of a 2 x 3 matrix.
fn affine(rows: &[f64]) -> Affine2 {
    let r: Vec<f32> = rows.iter().map(|&v| v as f32).collect();
    Affine2::from_mat2_translation(Mat2::from_cols_array(&[r[0], r[3], r[1], r[4]]), Vec2::new(r[2], r[5]))
}

pub fn preprocess(case: &Path) -> Result<Report> {
    /// Corners of the patch, in pixels of the target: f32 affines of coordinates below a thousand.
    const AFFINE: Tolerance = Tolerance::new(1e-3, "px");
    /// OpenCV samples at 1/32 pixel and rounds to bytes; so do we, at the exact place.
    const MEAN: Tolerance = Tolerance::new(0.5, "grey");
    /// Part of the bytes that are off by more than 4.
    const FAR: Tolerance = Tolerance::new(1e-3, "of bytes");

    let mut expected = Expected::read(case)?;
    let mut report = Report::default();
    let image = expected.tensor("image_u8")?;
    let (height, width, _) = image.dims3().context("image_u8")?;
    let image = RgbImage::from_raw(width as u32, height as u32, image.flatten_all()?.to_vec1()?);
    let image = image.context("image_u8 is no RGB image")?;

    let raw = rects(&expected.numbers("raw_boxes")?);
    let valid = expected.numbers("box_valid")?;
    let wanted = rects(&expected.numbers("processed_boxes")?);
    let processed: Vec<_> = raw.iter().map(|&r| process_bbox(r, width as u32, height as u32)).collect();
    ensure!(processed.len() == valid.len() && processed.len() == wanted.len(), "lists of boxes of different lengths");
    let wrong = processed.iter().zip(&valid).filter(|(p, v)| p.is_some() != (**v != 0.0)).count();
    report.check("box_valid", wrong as f64, Tolerance::new(0.0, "wrong"));
    let flat = |rect: &RectPx| <[f32; 4]>::from(*rect).map(f64::from);
    let (actual, expect): (Vec<_>, Vec<_>) =
        processed.iter().zip(&wanted).filter_map(|(p, w)| Some((flat(p.as_ref()?), flat(w)))).unzip();
    report.compare("processed_boxes", actual.as_flattened(), expect.as_flattened(), Tolerance::BOX_PX)?;

    let scales = expected.numbers("case_scale")?;
    let rotations = expected.numbers("case_rotation_deg")?;
    let flips = expected.numbers("case_flip")?;
    let to_crop = expected.numbers("image_to_crop")?;
    let to_image = expected.numbers("crop_to_image")?;
    let patches = expected.tensor("crops_u8")?;
    let size = patches.dim(1)?;
    let (mut worst_affine, mut worst_mean, mut worst_far) = (0.0_f64, 0.0_f64, 0.0_f64);
    for (i, index) in expected.numbers("case_box")?.into_iter().enumerate() {
        let rect = processed.get(index as usize).copied().flatten().context("case_box names no valid box")?;
        let augmentation =
            Augmentation { scale: scales[i], rotation_rad: rotations[i].to_radians(), flip: flips[i] != 0.0 };
        let crop = Crop::augmented(rect, size as u32, augmentation, width as u32);
        // The reference's affines belong to the mirrored image, ours to the frame.
        let mirror = if augmentation.flip {
            Affine2::from_mat2_translation(
                Mat2::from_diagonal(Vec2::new(-1.0, 1.0)),
                Vec2::new(width as f32 - 1.0, 0.0),
            )
        } else {
            Affine2::IDENTITY
        };
        let pairs = [
            (crop.crop_from_frame * mirror, affine(&to_crop[i * 6..][..6])),
            (mirror * crop.frame_from_crop, affine(&to_image[i * 6..][..6])),
        ];
        for (ours, theirs) in pairs {
            for corner in [Vec2::ZERO, Vec2::new(255.0, 0.0), Vec2::new(0.0, 255.0), Vec2::splat(255.0)] {
                let apart = ours.transform_point2(corner).distance(theirs.transform_point2(corner));
                worst_affine = worst_affine.max(f64::from(apart));
            }
        }
        let theirs: Vec<u8> = patches.get(i)?.flatten_all()?.to_vec1()?;
        let ours = crop.patch(&image);
        let off: Vec<u8> = ours.iter().zip(&theirs).map(|(a, b)| a.abs_diff(*b)).collect();
        ensure!(off.len() == theirs.len(), "crops_u8 of another size");
        worst_mean = worst_mean.max(off.iter().map(|&d| f64::from(d)).sum::<f64>() / off.len() as f64);
        worst_far = worst_far.max(off.iter().filter(|&&d| d > 4).count() as f64 / off.len() as f64);
    }
    report.check("affine", worst_affine, AFFINE);
    report.check("crop_mean", worst_mean, MEAN);
    report.check("crop_beyond_4", worst_far, FAR);
    Ok(expected.finish(report))
}

pub fn restore(case: &Path) -> Result<Report> {
    /// 0.1 mm at some 10 m: f32 has seven digits.
    const METRES: Tolerance = Tolerance::new(1e-4, "m");

    let mut expected = Expected::read(case)?;
    let mut report = Report::default();
    let points = |numbers: &[f64]| -> Vec<Vec3> {
        numbers.chunks_exact(3).map(|p| Vec3::new(p[0] as f32, p[1] as f32, p[2] as f32)).collect()
    };
    let lixels = points(&expected.numbers("mesh_lixel")?);
    let root_depth_m = expected.number("root_depth_m")? as f32;
    let (focal, principal) = (expected.numbers("focal")?, expected.numbers("principal")?);
    let camera =
        Intrinsics { fx: focal[0] as f32, fy: focal[1] as f32, cx: principal[0] as f32, cy: principal[1] as f32 };
    let frame_from_crop = affine(&expected.numbers("crop_to_image")?);
    let crop = Crop { rect: RectPx::default(), size: 256, crop_from_frame: frame_from_crop.inverse(), frame_from_crop };
    let body = LixelVolume { crop: &crop, bins: 64, box_m: BODY_BOX_M, depth_axis: DepthAxis::Camera };
    let hand = LixelVolume { box_m: HAND_BOX_M, ..body };

    let flat = |points: &[Vec3]| -> Vec<f64> { points.iter().flat_map(|p| p.to_array().map(f64::from)).collect() };
    let xy = |numbers: &[f64]| -> Vec<f64> { numbers.chunks_exact(3).flat_map(|p| [p[0], p[1]]).collect() };
    let z = |numbers: &[f64]| -> Vec<f64> { numbers.chunks_exact(3).map(|p| p[2]).collect() };

    let wanted = expected.numbers("mesh_image")?;
    let image: Vec<f64> = lixels.iter().flat_map(|&l| body.frame_from_lixel(l).to_array().map(f64::from)).collect();
    report.compare("mesh_image", &image, &xy(&wanted), Tolerance::BOX_PX)?;
    let depths: Vec<f64> = lixels.iter().map(|&l| f64::from(body.depth_from_root_m(l))).collect();
    report.compare("mesh_image_depth", &depths, &z(&wanted), METRES)?;

    let metres = body.camera_from_lixels(&lixels, Vec3::Z * root_depth_m, &camera);
    report.compare("mesh_camera_m", &flat(&metres), &expected.numbers("mesh_camera_m")?, METRES)?;

    if let Ok(wanted) = expected.numbers("hand_depth_m") {
        let depths: Vec<f64> = lixels.iter().map(|&l| f64::from(hand.depth_from_root_m(l))).collect();
        report.compare("hand_depth_m", &depths, &wanted, METRES)?;
    }
    if let Ok(wanted) = expected.numbers("reprojected") {
        let again: Vec<f64> =
            metres.iter().flat_map(|&m| camera.frame_from_camera(m).to_array().map(f64::from)).collect();
        report.compare("reprojected", &again, &xy(&wanted), Tolerance::BOX_PX)?;
        let depths: Vec<f64> = metres.iter().map(|m| f64::from(m.z)).collect();
        report.compare("reprojected_depth", &depths, &z(&wanted), METRES)?;
    }
    Ok(expected.finish(report))
}
