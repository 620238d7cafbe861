//! The whole path with the built-in weights on a GPU: who cuts out what, counted.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use image::RgbImage;
use lixelscope::capture::{Frame, FrameSource, Next, SourceKind};
use lixelscope::nets::{Precision, open_cuda};
use lixelscope::pipeline::stages::Pass;
use lixelscope::pipeline::{Stages, infer};
use lixelscope::settings::{Backend, Settings};
use lixelscope::synth::{Kind, SyntheticSource};

use crate::fast::{Watch, assert_kernels};

/// The first frame of each film with somebody in it.
pub fn frames(count: usize) -> Result<Vec<RgbImage>> {
    let mut frames = Vec::new();
    for seed in 0..100 {
        if frames.len() < count {
            frames.extend(first(seed)?.filter(|frame| people(frame) > 0).map(|frame| frame.rgb));
        }
    }
    ensure!(frames.len() == count, "the films show nobody");
    Ok(frames)
}

fn first(seed: u64) -> Result<Option<Frame>> {
    match SyntheticSource::open(Kind::Scenes, seed)?.next()? {
        Next::Frame(frame) => Ok(Some(frame)),
        _ => Ok(None),
    }
}

fn people(frame: &Frame) -> usize {
    frame.truth.as_ref().map_or(0, |truth| truth.people.len())
}

#[test]
fn from_the_frame_to_the_vertices_nothing_goes_by_the_processor() -> Result<()> {
    // What `infer::load` opens.
    let (device, _) = open_cuda(0, Precision::F32)?;
    let settings = Settings {
        backend: Backend::Cuda,
        precision: Precision::F32,
        max_people: 1,
        detect_every: 1,
        ..Settings::with_models(PathBuf::from("no folder of models"))
    };
    let mut stages = Stages::new(settings.clone());
    let mut missing = None;
    infer::load(&settings, infer::Wanted::All, &mut |progress| match progress {
        infer::Progress::Loaded(infer::Part::Detector(_, _, detector)) => stages.detector = Some(detector),
        infer::Progress::Loaded(infer::Part::Root(_, root)) => stages.root = Some(root),
        infer::Progress::Loaded(infer::Part::Estimator { estimator, .. }) => stages.estimator = Some(estimator),
        infer::Progress::Loaded(infer::Part::Missing(_, why)) => missing = Some(why),
        infer::Progress::Loaded(infer::Part::Backend(_)) | infer::Progress::Reading { .. } => {}
    });
    if let Some(why) = missing {
        bail!("{why}");
    }
    stages.begin(SourceKind::Motion);
    let frame = (0..100).find_map(|seed| first(seed).transpose().filter(|f| !matches!(f, Ok(f) if people(f) != 1)));
    let frame = Arc::new(frame.context("no film shows one person")??);
    let watch = Watch::new(&device, "the path");
    let mut run = || -> Result<()> {
        let result = stages.process(Arc::clone(&frame), Pass::Next)?;
        ensure!(result.people.len() == 1 && result.detector_ran, "{} people", result.people.len());
        Ok(())
    };
    (0..4).try_for_each(|_| run())?;
    // Detector, RootNet and I2L-MeshNet.
    watch.assert_fast(3, 3 * 4)?;
    // RootNet and I2L-MeshNet cut the person out of the frame's copy on the device; no patch comes as a tensor.
    let expected = [("letterbox", 1), ("crop", 2), ("plane_heatmap", 1), ("heatmaps", 2), ("gaussians_over_plane", 1)];
    assert_kernels(&device, "the path", &expected, run)
}
