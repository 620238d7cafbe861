//! Files that users own: linear blend skinning of body models, and checkpoints in both containers of `torch.save`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use glam::Vec3;
use lixelscope::body::BodyModel;
use lixelscope::nets::weights::WeightFile;

use super::compare::{Expected, Report, Tolerance};
use super::support;

/// Files of the case's folder, else of the project's, whose names start and end so.
fn files_beside(case: &Path, start: &str, end: &str) -> Result<Vec<PathBuf>> {
    let own = case.parent().context("a case is in a folder")?.to_path_buf();
    for folder in [own, support::project_golden_dir()] {
        let entries = std::fs::read_dir(&folder).with_context(|| format!("reading the folder {}", folder.display()))?;
        let mut found: Vec<_> = entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| {
                let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                name.starts_with(start) && name.ends_with(end)
            })
            .collect();
        if !found.is_empty() {
            found.sort();
            return Ok(found);
        }
    }
    anyhow::bail!("no {start}*{end} beside the case and none in the project's golden folder")
}

/// SMPL: the same poses with every layout of the body's file.
pub fn lbs_smpl(case: &Path) -> Result<Report> {
    let mut files = files_beside(case, "smpl_layout", ".pkl")?;
    files.extend(files_beside(case, "smpl_layout", ".npz").unwrap_or_default());
    lbs(case, &files, "m", 1.0)
}

/// MANO: the reference layer answers in millimetres.
pub fn lbs_mano(case: &Path) -> Result<Report> {
    lbs(case, &files_beside(case, "mano_layout", ".pkl")?, "mm", 1e-3)
}

fn lbs(case: &Path, bodies: &[PathBuf], unit: &str, unit_m: f64) -> Result<Report> {
    // f32 against f64: sums of 217 blend shapes and a few joints leave about 1e-6 of a body of a metre.
    const TOLERANCE: Tolerance = Tolerance::new(1e-5, "m");
    let mut report = Report::default();
    for body in bodies {
        let name = body.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        let model = BodyModel::open(body)?;
        let mut expected = Expected::read(case)?;
        let poses = points(&expected.numbers("pose")?, model.pose_joint_count());
        let translations = points(&expected.numbers("trans")?, 1);
        let shapes = expected.numbers("betas")?;
        let vertices = expected.numbers(&format!("vertices_{unit}"))?;
        let joints = expected.numbers(&format!("joints_{unit}"))?;
        ensure!(!poses.is_empty() && shapes.len() % poses.len() == 0, "{name}: poses and shapes do not pair");
        let (mut all_vertices, mut all_joints) = (Vec::new(), Vec::new());
        for ((pose, shape), translation) in
            poses.iter().zip(shapes.chunks(shapes.len() / poses.len())).zip(translations)
        {
            let shape: Vec<f32> = shape.iter().map(|&s| s as f32).collect();
            let posed = model.pose(pose, &shape, translation[0])?;
            all_vertices.extend(posed.vertices_m.iter().flat_map(|v| v.to_array().map(f64::from)));
            all_joints.extend(posed.joints_m.iter().flat_map(|v| v.to_array().map(f64::from)));
        }
        let metres = |values: &[f64]| values.iter().map(|v| v * unit_m).collect::<Vec<_>>();
        report.compare(&format!("{name} vertices"), &all_vertices, &metres(&vertices), TOLERANCE)?;
        report.compare(&format!("{name} joints"), &all_joints, &metres(&joints), TOLERANCE)?;
    }
    Ok(report)
}

fn points(values: &[f64], count: usize) -> Vec<Vec<Vec3>> {
    let points: Vec<Vec3> = values.chunks_exact(3).map(|p| Vec3::new(p[0] as f32, p[1] as f32, p[2] as f32)).collect();
    points.chunks(count.max(1)).map(<[Vec3]>::to_vec).collect()
}

/// Every checkpoint beside the case holds exactly its tensors.
pub fn checkpoint(case: &Path) -> Result<Report> {
    let expected = WeightFile::open(case)?;
    let mut report = Report::default();
    for path in files_beside(case, "checkpoint", ".pth.tar")? {
        let file = WeightFile::open(&path)?;
        let stem = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        let names: Vec<_> = expected.names().collect();
        ensure!(file.names().eq(names.iter().copied()), "{stem} has other names");
        let mut wrong = 0;
        for name in names {
            let count = |shape: Option<&[usize]>| shape.map(|s| s.iter().product::<usize>());
            let same = file.dtype(name) == expected.dtype(name)
                && count(file.shape(name)) == count(expected.shape(name))
                && file.data(name)? == expected.data(name)?;
            wrong += usize::from(!same);
        }
        report.check(&stem, wrong as f64, Tolerance::new(0.0, "tensors differ"));
    }
    Ok(report)
}
