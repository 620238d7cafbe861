//! Cases of RootNet and of 3D PoseNet: networks that read crops.

use std::path::Path;

use anyhow::{Context, Result};
use candle_core::{DType, Tensor};

use lixelscope::nets::NetSizes;
use lixelscope::nets::posenet3d::{JointSet, PoseNet3d, joint_count};
use lixelscope::nets::rootnet::RootNet;
use lixelscope::root_depth::{REAL_BOX_M, k_m};
use lixelscope::space::{Intrinsics, RectPx};

use crate::compare::{Expected, Report, Tolerance, numbers, sample};
use crate::support::{self, Manifest};

/// `crop_u8 [N, H, W, 3]` as patches `[N, 3, H, W]`, and the sizes that belong to them.
fn crops(expected: &mut Expected, manifest: &Manifest) -> Result<(Tensor, NetSizes)> {
    let crops = expected.tensor("crop_u8")?;
    let crops = if crops.rank() == 3 { crops.unsqueeze(0)? } else { crops };
    let (_, side, _, _) = crops.dims4().context("crop_u8")?;
    let patches = crops.to_device(&support::device()?)?.permute((0, 3, 1, 2))?.contiguous()?.to_dtype(DType::F32)?;
    Ok((patches, NetSizes::new(manifest.resnet, side, side / 4)?))
}

pub fn rootnet(case: &Path) -> Result<Report> {
    /// Depth in millimetres: 1e-3 of it, as for features.
    const DEPTH: Tolerance = Tolerance::FEATURE;

    let mut expected = Expected::read(case)?;
    let manifest = Manifest::of_case(case, "rootnet")?;
    let (patches, sizes) = crops(&mut expected, &manifest)?;
    let network = RootNet::load(sizes, &manifest.var_builder(patches.device())?)?;
    let output = network.forward(&patches)?;
    let roots = output.roots()?;

    let mut report = Report::default();
    let feature = sample(&output.feature.to_tensor()?, &[16, 1, 1])?;
    expected.compare(&mut report, "feature_sample", &feature, Tolerance::FEATURE)?;
    expected.compare(&mut report, "root_heatmap", &output.heatmap.to_tensor()?, Tolerance::FEATURE)?;

    // The papers' camera; only its focal length matters for k.
    let camera = match expected.get("focal") {
        Some(focal) => {
            let focal = numbers(&focal)?;
            Intrinsics { fx: focal[0] as f32, fy: focal[1] as f32, cx: 0.0, cy: 0.0 }
        }
        None => Intrinsics::normalised(0, 0),
    };
    let k_mm: Vec<f64> = if let Some(boxes) = expected.get("bbox") {
        let rects = numbers(&boxes)?;
        let rects = rects.chunks_exact(4).map(|r| RectPx::from([r[0] as f32, r[1] as f32, r[2] as f32, r[3] as f32]));
        let k_mm: Vec<f64> = rects.map(|rect| 1e3 * f64::from(k_m(&camera, &rect, REAL_BOX_M))).collect();
        if let Some(k_value) = expected.get("k_value") {
            report.compare("k_value", &k_mm, &numbers(&k_value)?, Tolerance::FEATURE)?;
        }
        k_mm
    } else {
        expected.numbers("k_value")?
    };
    if let Some(coord) = expected.get("root_coord") {
        let wanted = numbers(&coord)?;
        let bins = |i: usize| -> Vec<f64> { wanted.chunks_exact(3).map(|c| c[i]).collect() };
        let xs: Vec<f64> = roots.iter().map(|r| f64::from(r.lixel.x)).collect();
        let ys: Vec<f64> = roots.iter().map(|r| f64::from(r.lixel.y)).collect();
        let depths_mm: Vec<f64> = roots.iter().zip(k_mm).map(|(r, k)| f64::from(r.gamma) * k).collect();
        report.compare("root_x", &xs, &bins(0), Tolerance::BINS)?;
        report.compare("root_y", &ys, &bins(1), Tolerance::BINS)?;
        report.compare("root_depth", &depths_mm, &bins(2), DEPTH)?;
    }
    Ok(expected.finish(report))
}

pub fn posenet3d(case: &Path) -> Result<Report> {
    let mut expected = Expected::read(case)?;
    let manifest = Manifest::of_case(case, "posenet3d")?;
    let (patches, sizes) = crops(&mut expected, &manifest)?;
    let joints = joint_count(&sizes, |name| manifest.shape(name).ok().map(<[usize]>::to_vec))?;
    let network = PoseNet3d::load(sizes, joints, &manifest.var_builder(patches.device())?)?;

    let mut report = Report::default();
    let straight = network.forward(&patches)?.coords.to_tensor()?;
    expected.compare(&mut report, "joint_coord", &straight, Tolerance::BINS)?;
    let flipped = network.forward(&patches.flip(&[3])?)?.coords.to_tensor()?;
    expected.compare(&mut report, "joint_coord_flipped_input", &flipped, Tolerance::BINS)?;

    // The release's flip averaging, from the two references' coordinates.
    if let (Some(straight), Some(flipped), Ok(set)) =
        (expected.get("joint_coord"), expected.get("joint_coord_flipped_input"), JointSet::of_count(joints))
    {
        let order = Tensor::new(set.mirrored(), flipped.device())?;
        let swapped = flipped.index_select(&order, flipped.rank() - 2)?;
        let last = sizes.heatmap() as f64 - 1.0;
        let (straight, mut swapped) = (numbers(&straight)?, numbers(&swapped)?);
        swapped.iter_mut().step_by(3).for_each(|x| *x = last - *x);
        let mean: Vec<f64> = straight.iter().zip(&swapped).map(|(a, b)| (a + b) / 2.0).collect();
        let averaged = network.forward_flip_averaged(&patches, set)?.coords.to_tensor()?;
        report.compare("flip_averaged", &numbers(&averaged)?, &mean, Tolerance::BINS)?;
    }
    Ok(expected.finish(report))
}
