//! Cases of I2L-MeshNet, body and hand.

use std::path::Path;

use anyhow::{Result, ensure};
use candle_core::Tensor;
use glam::{DQuat, DVec3};

use lixelscope::lixel::Lixels;
use lixelscope::lixel::gaussian::{SIGMA, gaussian_volume};
use lixelscope::nets::NetSizes;
use lixelscope::nets::i2l::{I2l, I2lShape};
use lixelscope::nets::param::joints_from_mesh;

use crate::compare::{Expected, Report, Tolerance, numbers, sample};
use crate::support::{self, Manifest};

pub fn body(case: &Path) -> Result<Report> {
    run(case, "i2l_body")
}

pub fn hand(case: &Path) -> Result<Report> {
    run(case, "i2l_hand")
}

fn run(case: &Path, kind: &str) -> Result<Report> {
    let mut expected = Expected::read(case)?;
    let manifest = Manifest::of_case(case, kind)?;
    let device = support::device()?;
    let shape = I2lShape::from_shapes(|name| manifest.shape(name).ok().map(<[usize]>::to_vec))?;
    let bins = manifest.shape("pose_net.conv_z_1.0.weight")?[0] / 256;
    let sizes = NetSizes::new(manifest.resnet, bins * 4, bins)?;
    let network = I2l::load(sizes, shape, &manifest.var_builder(&device)?)?;

    // The cases' inputs are in [0, 1], the network's patches in 0..=255.
    let input = match expected.get("input") {
        Some(input) => input.to_device(&device)?,
        None => support::fill("input", 0.5, 0.5, &[1, 3, sizes.input(), sizes.input()], &device)?,
    };
    let input = if input.rank() == 3 { input.unsqueeze(0)? } else { input };
    let output = network.forward(&(input * 255.0)?)?;

    let mut report = Report::default();
    let features = &output.features;
    let gaussians = gaussian_volume(&output.joints.coords.to_tensor()?, bins, SIGMA)?;
    for (name, tensor, steps) in [
        ("early_feature_sample", &features.early.to_tensor()?, &[8, 8, 8][..]),
        ("pose_feature_sample", &features.pose.to_tensor()?, &[16, 1, 1]),
        ("gaussian_heatmap_sample", &gaussians, &[8, 8, 8]),
        ("pose2feat_sample", &features.pose2feat.to_tensor()?, &[8, 8, 8]),
        ("mesh_feature_sample", &features.mesh.to_tensor()?, &[16, 1, 1]),
    ] {
        expected.compare(&mut report, name, &sample(tensor, steps)?, Tolerance::FEATURE)?;
    }
    for (i, axis) in ["x", "y", "z"].into_iter().enumerate() {
        let heatmaps = output.joints.heatmaps.to_tensor()?.narrow(2, i, 1)?.squeeze(2)?;
        expected.compare(&mut report, &format!("joint_heatmap_{axis}"), &heatmaps, Tolerance::FEATURE)?;
    }
    expected.compare(&mut report, "joint_coord", &output.joints.coords.to_tensor()?, Tolerance::BINS)?;
    expected.compare(&mut report, "mesh_coord", &output.vertices.coords.to_tensor()?, Tolerance::BINS)?;
    vertex_heatmaps(&mut expected, &mut report, &output.vertices)?;

    let regressor = support::joint_regressor(shape.joints, shape.vertices, &device)?;
    let from_mesh = joints_from_mesh(&regressor, &output.vertices.coords.to_tensor()?)?;
    expected.compare(&mut report, "joint_coord_from_mesh", &from_mesh, Tolerance::BINS)?;
    params(&mut expected, &mut report, &network, &output.vertices, &regressor)?;
    spreads(&mut report, &output.vertices)?;
    Ok(expected.finish(report))
}

/// The heatmaps of chosen vertices, fetched as the program fetches them.
fn vertex_heatmaps(expected: &mut Expected, report: &mut Report, vertices: &Lixels) -> Result<()> {
    let Some(indices) = expected.get("vertex_index") else { return Ok(()) };
    let indices: Vec<u32> = numbers(&indices)?.iter().map(|&i| i as u32).collect();
    let people: Vec<_> = (0..vertices.people()).map(|p| vertices.rows(p, &indices)).collect::<Result<_>>()?;
    for (i, axis) in ["x", "y", "z"].into_iter().enumerate() {
        let flat: Vec<f32> = people.iter().flatten().flat_map(|row| row[i].iter().copied()).collect();
        let heatmaps =
            Tensor::from_vec(flat, (people.len(), indices.len(), vertices.bins()), &candle_core::Device::Cpu)?;
        expected.compare(report, &format!("vertex_heatmap_{axis}"), &heatmaps, Tolerance::FEATURE)?;
    }
    Ok(())
}

/// Pose as the angle between the rotations (an axis-angle near pi has two names), shape as it is.
fn params(
    expected: &mut Expected,
    report: &mut Report,
    network: &I2l,
    vertices: &Lixels,
    regressor: &Tensor,
) -> Result<()> {
    /// Radians: the angles are of order 1, so this is the features' 1e-3.
    const POSE: Tolerance = Tolerance::new(1e-3, "rad");

    let Some(people) = network.params(vertices, regressor)? else { return Ok(()) };
    if let Some(pose) = expected.get("pose_param") {
        let poses: Vec<DVec3> = people.iter().flat_map(|p| p.pose_rad.iter().map(|r| r.as_dvec3())).collect();
        let pose = numbers(&pose)?;
        let wanted: Vec<DVec3> = pose.chunks_exact(3).map(DVec3::from_slice).collect();
        ensure!(wanted.len() <= poses.len() && poses.len().is_multiple_of(wanted.len()), "pose_param of another size");
        let angle = |a: &DVec3, b: &DVec3| {
            let apart = DQuat::from_scaled_axis(*a).inverse() * DQuat::from_scaled_axis(*b);
            2.0 * apart.xyz().length().atan2(apart.w.abs())
        };
        let angles: Vec<f64> = poses.iter().zip(&wanted).map(|(a, b)| angle(a, b)).collect();
        report.compare("pose_param", &angles, &vec![0.0; angles.len()], POSE)?;
    }
    if let Some(shape) = expected.get("shape_param") {
        let wanted = numbers(&shape)?;
        let mut shapes: Vec<f64> = people.iter().flat_map(|p| p.shape.iter().map(|&s| f64::from(s))).collect();
        ensure!(shapes.len().is_multiple_of(wanted.len().max(1)), "shape_param of another size");
        shapes.truncate(wanted.len());
        report.compare("shape_param", &shapes, &wanted, Tolerance::FEATURE)?;
    }
    Ok(())
}

/// The references do not know the spread; it is held against its definition, in f64.
fn spreads(report: &mut Report, vertices: &Lixels) -> Result<()> {
    let bins = vertices.bins();
    let heatmaps = numbers(&vertices.heatmaps.to_tensor()?)?;
    let plain = |heatmap: &[f64]| {
        let moment = |f: &dyn Fn(f64) -> f64| heatmap.iter().enumerate().map(|(i, p)| p * f(i as f64)).sum::<f64>();
        let mean = moment(&|i| i);
        moment(&|i| (i - mean) * (i - mean)).sqrt()
    };
    let wanted: Vec<f64> = heatmaps.chunks_exact(bins).map(plain).collect();
    report.compare("spread", &numbers(&vertices.spread.to_tensor()?)?, &wanted, Tolerance::BINS)
}
