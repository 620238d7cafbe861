//! The networks on an NVIDIA GPU, in every precision, kernel by kernel and as graphs, against the same networks on the
//! processor. Needs a GPU: `cargo test --release --features cudnn --test gpu -- --test-threads 1 --nocapture`, or
//! `tests/gpu/all.sh`, which also measures.
//!
//! With `LIXELSCOPE_GPU_REPORT=FILE` the deviations are written there as JSON, in millimetres on the mesh.

mod fast;
mod path;
#[path = "../support/mod.rs"]
mod support;
mod training;

use std::path::Path;

use anyhow::{Context, Result, ensure};
use candle_core::{Device, Tensor};
use fast::{Watch, assert_kernels, assert_steady};
use image::RgbImage;
use lixelscope::crop::Crop;
use lixelscope::detect::PersonBox;
use lixelscope::models;
use lixelscope::nets::cuda::PatchSource;
use lixelscope::nets::i2l::{I2l, I2lShape};
use lixelscope::nets::input::patches_tensor;
use lixelscope::nets::layers::Values;
use lixelscope::nets::maskrcnn::{Config, MaskRcnn, Query};
use lixelscope::nets::person_detector::{self, PersonDetector};
use lixelscope::nets::posenet3d::{self, JointSet, PoseNet3d};
use lixelscope::nets::rootnet::RootNet;
use lixelscope::nets::weights::{self, LoadOptions};
use lixelscope::nets::{NetSizes, Precision, open_cuda};
use lixelscope::space::RectPx;
use serde_json::json;
use support::Manifest;

const ALL: [Precision; 4] = [Precision::F32, Precision::Tf32, Precision::F16, Precision::Bf16];
/// Side of the box around the root, over the bins that span it.
const MM_PER_BIN: f32 = 2000.0 / 64.0;

/// What coordinates may differ by, in bins. f32: the golden cases' 0.01. Factors of 10 bits of fraction are rounded by
/// 2^-11 each, which adds up over 50 layers as their square root to some 3e-3 of a feature; logits of a few units then
/// move an expectation over 64 bins by some hundredths. Factors of 7 bits are eight times coarser.
fn tolerance_bins(precision: Precision) -> f32 {
    match precision {
        Precision::F32 => 0.01,
        Precision::Tf32 | Precision::F16 => 0.25,
        Precision::Bf16 => 2.0,
    }
}

fn manifest(name: &str) -> Result<Manifest> {
    let folder = std::env::var_os("GOLDEN_DIR").map_or_else(support::project_golden_dir, Into::into);
    Manifest::read(&folder.join(format!("{name}.manifest.json")))
}

/// People of noise and stripes.
fn frame() -> RgbImage {
    RgbImage::from_fn(640, 480, |x, y| {
        let noise = (x.wrapping_mul(2_654_435_761) ^ y.wrapping_mul(40_503)) >> 8;
        image::Rgb([(x / 3 + noise % 40) as u8, (y / 2) as u8 ^ (x / 50 * 40) as u8, (noise % 256) as u8])
    })
}

fn crops(count: usize) -> Vec<Crop> {
    let rect = |i: usize| RectPx::from([20.5 + 90.0 * i as f32, -30.0 + 20.0 * i as f32, 300.0, 300.0]);
    (0..count).map(|i| Crop::new(rect(i), 256)).collect()
}

fn patches(count: usize, device: &Device) -> Result<Tensor> {
    let frame = frame();
    patches_tensor(&crops(count).iter().map(|crop| crop.patch(&frame)).collect::<Vec<_>>(), device)
}

/// Mean and greatest distance of points `[B, N, 3]`, in bins.
fn distances(a: &Values, b: &Values) -> Result<[f32; 2]> {
    let (a, b) = (a.to_tensor()?.to_device(&Device::Cpu)?, b.to_tensor()?.to_device(&Device::Cpu)?);
    ensure!(a.dims() == b.dims(), "{:?} and {:?}", a.shape(), b.shape());
    let apart = (a - b)?.sqr()?.sum(2)?.sqrt()?;
    Ok([apart.mean_all()?.to_scalar()?, apart.max_all()?.to_scalar()?])
}

/// What one run of I2L-MeshNet launches beside convolutions and products; likewise the others below.
const BODY: [(&str, usize); 9] = [
    ("crop", 1),
    ("max_pool", 1),
    ("join_phases", 6),
    ("line_means", 2),
    ("channel_means", 2),
    ("heatmaps", 2),
    ("gaussians_over_z", 1),
    ("gaussians_over_plane", 1),
    ("map_to_planar", 0),
];
const ROOT: [(&str, usize); 6] =
    [("crop", 1), ("max_pool", 1), ("join_phases", 3), ("dot_channels", 1), ("dot_means", 1), ("plane_heatmap", 1)];
const SKELETON: [(&str, usize); 6] =
    [("crop", 1), ("and_mirrored", 1), ("max_pool", 1), ("join_phases", 3), ("volume_rows", 1), ("volume_heatmaps", 1)];
const MASK_RCNN: [(&str, usize); 11] = [
    ("resize", 1),
    ("max_pool", 2),
    ("doubled", 3),
    ("rank_anchors", 5),
    ("select_anchors", 1),
    ("find_overlaps", 2),
    ("suppress", 2),
    ("merge_lists", 2),
    ("roi_align", 1),
    ("score_regions", 1),
    ("rank_regions", 1),
];
const LIGHT: [(&str, usize); 3] = [("letterbox", 1), ("join_phases", 2), ("map_to_planar", 1)];

#[test]
fn bodies_agree_in_every_precision_and_way() -> Result<()> {
    let manifest = manifest("i2l_body")?;
    let shape = I2lShape::from_shapes(|name| manifest.shape(name).ok().map(<[usize]>::to_vec))?;
    let sizes = NetSizes::default();
    let plain = I2l::load(sizes, shape, &manifest.var_builder(&Device::Cpu)?)?;
    let expected: Vec<_> =
        [1, 4].into_iter().map(|n| plain.forward(&patches(n, &Device::Cpu)?)).collect::<Result<_>>()?;
    let mut report = serde_json::Map::new();
    for precision in ALL {
        let (device, name) = open_cuda(0, precision)?;
        let net = I2l::load(sizes, shape, &manifest.var_builder(&device)?)?;
        let watch = Watch::new(&device, &name);
        let mut worst = [0.0_f32; 2];
        for expected in &expected {
            let people = expected.vertices.people();
            let input = patches(people, &device)?;
            // Kernel by kernel, recorded, replayed, replayed.
            for run in 0..4 {
                let output = net.forward(&input)?;
                let [mean, most] = distances(&output.vertices.coords, &expected.vertices.coords)?;
                let [_, joints] = distances(&output.joints.coords, &expected.joints.coords)?;
                let [_, spread] = distances(&output.vertices.spread, &expected.vertices.spread)?;
                println!(
                    "{name}: {people} people, run {run}: {:.3} mm, at most {:.3}",
                    mean * MM_PER_BIN,
                    most * MM_PER_BIN
                );
                let limit = tolerance_bins(precision);
                ensure!(most < limit && joints < limit && spread < limit, "{name}: {most} {joints} {spread} bins");
                worst = [worst[0].max(mean), worst[1].max(most)];
                // What is fetched first belongs to this run.
                output.features.mesh.to_tensor()?;
            }
            let again = net.forward(&input)?;
            net.forward(&input)?;
            assert!(again.features.pose.to_tensor().is_err(), "features of an earlier replay are not told as new");

            // The same patches, cut out on the device.
            let (frame, crops) = (frame(), crops(people));
            let source = PatchSource { frame: &frame, frame_id: 1_000_000 + people as u64, crops: &crops };
            let cut = net.forward_crops(&source)?.context("the network is on the GPU")?;
            let straight = net.forward(&input)?;
            let [_, most] = distances(&cut.vertices.coords, &straight.vertices.coords)?;
            ensure!(most < tolerance_bins(precision) / 10.0, "{name}: cut out on the device: {most} bins");
            let modes = cut.vertices.mode.context("the pass finds the mode")?.flatten_all()?.to_vec1::<f32>()?;
            let heatmaps = cut.vertices.heatmaps.fetch()?.into_owned();
            let largest = |(row, &mode): (&[f32], &f32)| row.iter().all(|p| *p <= row[mode as usize]);
            ensure!(heatmaps.chunks_exact(sizes.heatmap()).zip(&modes).all(largest), "{name}: modes");
        }
        watch.assert_fast(2, 2 * 8)?;
        let (frame, crops) = (frame(), crops(1));
        let source = PatchSource { frame: &frame, frame_id: 2_000_000, crops: &crops };
        let run = || net.forward_crops(&source).map(drop);
        assert_kernels(&device, &name, &BODY, run)?;
        assert_steady(&device, &name, run)?;
        let [mean, most] = worst.map(|bins| bins * MM_PER_BIN);
        report.insert(precision.name().into(), json!({ "mean_mm": mean, "max_mm": most }));
    }
    if let Some(path) = std::env::var_os("LIXELSCOPE_GPU_REPORT") {
        std::fs::write(path, serde_json::to_string_pretty(&json!({ "i2l_body_formula_weights": report }))?)?;
    }
    Ok(())
}

#[test]
fn roots_agree_in_every_precision_and_way() -> Result<()> {
    let manifest = manifest("rootnet")?;
    let plain = RootNet::load(NetSizes::default(), &manifest.var_builder(&Device::Cpu)?)?;
    let expected = plain.forward(&patches(3, &Device::Cpu)?)?.roots()?;
    for precision in ALL {
        let (device, name) = open_cuda(0, precision)?;
        let net = RootNet::load(NetSizes::default(), &manifest.var_builder(&device)?)?;
        let watch = Watch::new(&device, &name);
        let input = patches(3, &device)?;
        for run in 0..3 {
            for (root, expected) in net.forward(&input)?.roots()?.iter().zip(&expected) {
                let (apart, gamma) = (root.lixel.distance(expected.lixel), (root.gamma - expected.gamma).abs());
                println!("{name}: run {run}: {apart} bins, gamma {gamma} of {}", expected.gamma);
                let limit = tolerance_bins(precision);
                // Gamma is of order 1 and ends a chain as long as a coordinate's.
                ensure!(
                    apart < limit && gamma < limit * 0.1 * expected.gamma.abs().max(1.0),
                    "{name}: {root:?} {expected:?}"
                );
            }
        }
        watch.assert_fast(1, 3)?;
        let (frame, crops) = (frame(), crops(3));
        let source = PatchSource { frame: &frame, frame_id: 2_000_001, crops: &crops };
        let run = || net.forward_crops(&source).map(drop);
        assert_kernels(&device, &name, &ROOT, run)?;
        assert_steady(&device, &name, run)?;
    }
    Ok(())
}

#[test]
fn skeletons_agree_in_every_precision_and_way() -> Result<()> {
    let manifest = manifest("posenet3d")?;
    let sizes = NetSizes::default();
    let joints = posenet3d::joint_count(&sizes, |name| manifest.shape(name).ok().map(<[usize]>::to_vec))?;
    let set = JointSet::of_count(joints)?;
    let plain = PoseNet3d::load(sizes, joints, &manifest.var_builder(&Device::Cpu)?)?;
    let input = patches(2, &Device::Cpu)?;
    let expected = [plain.forward(&input)?, plain.forward_flip_averaged(&input, set)?];
    for precision in ALL {
        let (device, name) = open_cuda(0, precision)?;
        let net = PoseNet3d::load(sizes, joints, &manifest.var_builder(&device)?)?;
        let watch = Watch::new(&device, &name);
        let input = patches(2, &device)?;
        for run in 0..4 {
            let found = [net.forward(&input)?, net.forward_flip_averaged(&input, set)?];
            for (found, expected) in found.iter().zip(&expected) {
                let [mean, most] = distances(&found.coords, &expected.coords)?;
                let [_, spread] = distances(&found.spread, &expected.spread)?;
                println!("{name}: skeletons, run {run}: {mean} bins, at most {most}");
                let limit = tolerance_bins(precision);
                ensure!(most < limit && spread < limit, "{name}: {most} {spread} bins");
            }
        }
        // The same patches, cut out on the device.
        let (frame, crops) = (frame(), crops(2));
        let source = PatchSource { frame: &frame, frame_id: 2_000_002, crops: &crops };
        let cut = net.forward_crops(&source, set)?.context("the network is on the GPU")?;
        let straight = net.forward_flip_averaged(&input, set)?;
        let [_, most] = distances(&cut.coords, &straight.coords)?;
        ensure!(most < tolerance_bins(precision) / 10.0, "{name}: cut out on the device: {most} bins");
        watch.assert_fast(2, 2 * 4 + 2)?;
        let run = || net.forward_crops(&source, set).map(drop);
        assert_kernels(&device, &name, &SKELETON, run)?;
        assert_steady(&device, &name, run)?;
    }
    Ok(())
}

#[test]
fn the_detector_finds_what_it_finds_on_the_processor() -> Result<()> {
    let manifest = manifest("maskrcnn_resnet50_fpn")?;
    // Few classes pass a high threshold with formula weights; a low one has more to compare.
    let config = Config { shorter_side: 256, longest_side: 512, score_threshold: 0.02, ..Config::default() };
    let plain = MaskRcnn::load(config.clone(), &manifest.var_builder(&Device::Cpu)?)?;
    let picture = frame();
    let query = Query { masks: true, ..Query::default() };
    let expected = plain.detect(&picture, query)?;
    ensure!(!expected.is_empty(), "there is nothing to compare");
    for precision in ALL {
        let (device, name) = open_cuda(0, precision)?;
        let net = MaskRcnn::load(config.clone(), &manifest.var_builder(&device)?)?;
        let watch = Watch::new(&device, &name);
        for run in 0..3 {
            let found = net.detect(&picture, query)?;
            // Boxes of equal class that lie on each other.
            let near = |a: &RectPx, b: &RectPx, px: f32| {
                let (a, b) = (<[f32; 4]>::from(*a), <[f32; 4]>::from(*b));
                a.iter().zip(b).all(|(a, b)| (a - b).abs() < px)
            };
            let px = if precision == Precision::F32 { 0.05 } else { 2.0 };
            let same =
                expected.iter().filter(|e| found.iter().any(|f| f.label == e.label && near(&f.rect, &e.rect, px)));
            let share = same.count() as f32 / expected.len() as f32;
            println!(
                "{name}: run {run}: {} objects, {:.1} % of the processor's {}",
                found.len(),
                share * 100.0,
                expected.len()
            );
            // Formula weights give scores close to each other, so coarser numbers let other boxes win.
            let least = match precision {
                Precision::F32 => 0.98,
                Precision::Tf32 | Precision::F16 => 0.7,
                Precision::Bf16 => 0.2,
            };
            ensure!(share >= least, "{name}: {share} of the objects");
            ensure!(found.iter().all(|f| f.mask.is_some()), "{name}: masks");
        }
        // Several pictures at once are the same as one by one.
        net.detect_batch(&[&picture, &picture], query)?;
        let both = net.detect_batch(&[&picture, &picture], query)?;
        ensure!(both.len() == 2 && both[0].len() == both[1].len(), "{name}: pictures of a batch do not mix");
        watch.assert_fast(2, 3 + 2)?;
        let run = || net.detect(&picture, Query::default()).map(drop);
        run()?;
        assert_kernels(&device, &name, &MASK_RCNN, run)?;
        assert_steady(&device, &name, run)?;
    }
    Ok(())
}

/// Built-in weights on pictures of people: formula weights see nobody.
#[test]
fn the_light_detector_finds_the_same_people() -> Result<()> {
    let nowhere = Path::new("no folder of models");
    let load = |device: &Device| -> Result<PersonDetector> {
        let (file, config, _) = models::open(nowhere, models::Role::LightDetector)?;
        let config = person_detector::Config { longest_side: config.input, ..person_detector::Config::default() };
        Ok(weights::load(&file, LoadOptions::new(device), |vb| PersonDetector::load(config, &vb))?.0)
    };
    let mut frames = path::frames(3)?;
    // Another size, of other proportions.
    frames.push(image::imageops::crop_imm(&frames[0], 0, 100, 640, 333).to_image());
    let plain = load(&Device::Cpu)?;
    let expected: Vec<_> = frames.iter().map(|frame| plain.detect(frame)).collect::<Result<_>>()?;
    ensure!(expected.iter().flatten().any(|person| person.score > 0.5), "there is nobody to compare");
    for precision in ALL {
        let (device, name) = open_cuda(0, precision)?;
        let net = load(&device)?;
        let watch = Watch::new(&device, &name);
        for run in 0..3 {
            for (frame, expected) in frames.iter().zip(&expected) {
                let found = net.detect(frame)?;
                // Letterboxed alike; after that roundings move a corner of a frame of 640 pixels by less than a cell of
                // 16 and a score by some hundredths, and with them who is above the threshold.
                let (px, score) = match precision {
                    Precision::F32 => (0.1, 0.001),
                    Precision::Tf32 | Precision::F16 => (2.0, 0.02),
                    Precision::Bf16 => (10.0, 0.15),
                };
                let same = |a: &PersonBox, b: &PersonBox| {
                    let (x, y) = (<[f32; 4]>::from(a.rect), <[f32; 4]>::from(b.rect));
                    x.iter().zip(y).all(|(x, y)| (x - y).abs() < px) && (a.score - b.score).abs() < score
                };
                for sure in expected.iter().filter(|person| person.score > 0.3) {
                    ensure!(found.iter().any(|f| same(f, sure)), "{name}, run {run}: {sure:?} is not in {found:?}");
                }
            }
        }
        watch.assert_fast(2, 3 * frames.len())?;
        let run = || net.detect(&frames[0]).map(drop);
        assert_kernels(&device, &name, &LIGHT, run)?;
        assert_steady(&device, &name, run)?;
    }
    Ok(())
}

#[test]
fn a_network_that_is_loaded_while_another_runs_disturbs_it_not() -> Result<()> {
    let manifest = manifest("rootnet")?;
    let (device, _) = open_cuda(0, Precision::Tf32)?;
    let net = RootNet::load(NetSizes::default(), &manifest.var_builder(&device)?)?;
    let watch = Watch::new(&device, "while another is loaded");
    let expected = net.forward(&patches(2, &device)?)?.roots()?;
    let loader = std::thread::Builder::new().name("loader".into()).spawn({
        let device = device.clone();
        move || -> Result<()> {
            for _ in 0..2 {
                RootNet::load(NetSizes::default(), &manifest.var_builder(&device)?)?;
            }
            Ok(())
        }
    })?;
    // New numbers of people are recorded meanwhile.
    let mut runs = 0;
    while !loader.is_finished() {
        let people = 1 + runs % 6;
        let roots = net.forward(&patches(people, &device)?)?.roots()?;
        let apart = roots.iter().zip(&expected).map(|(a, b)| a.lixel.distance(b.lixel)).fold(0.0, f32::max);
        ensure!(apart < 0.25, "run {runs}: {apart} bins");
        runs += 1;
    }
    loader.join().ok().context("the loader panicked")??;
    // Every number of people twice at least.
    for people in (1..=6).cycle().take(12) {
        net.forward(&patches(people, &device)?)?;
    }
    watch.assert_fast(6, 1 + runs + 12)
}
