//! What a frame costs beside its arithmetic, counted and not timed: after the first frames no network, nor the whole
//! path from a frame to meshes in metres, takes memory any more, and on the CPU every layer goes the fast way.
//!
//! Results are held until the next ones are there, as the window holds them. Allocations below [`LARGE`] (shapes, lists
//! of people and of pointers, the thread pool's queues) are not counted as memory, only as a number.
//!
//! Not counted here: the frame itself, which comes from the camera's driver or a decoder; Mask R-CNN's lists of more than
//! a hundred objects and their masks; and the body model that the second stage poses where `--mesh param` asks for it,
//! some tens of KB.

// A global allocator is an unsafe trait; this one counts and passes on.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, bail};
use candle_core::{DType, Device, Tensor, Var};
use candle_nn::VarBuilder;
use image::RgbImage;
use lixelscope::capture::{Frame, FrameSource, Next, SourceKind};
use lixelscope::lixel;
use lixelscope::nets::NetSizes;
use lixelscope::nets::i2l::{I2l, I2lShape};
use lixelscope::nets::layers::{Activation, BN_EPS, Conv2d, ConvShape, DeconvStack, Features, plain_runs};
use lixelscope::nets::maskrcnn::box_head::ScoredBox;
use lixelscope::nets::maskrcnn::roi_align::RoiMaps;
use lixelscope::nets::maskrcnn::{self, MaskRcnn, Query};
use lixelscope::nets::person_detector::{self, PersonDetector};
use lixelscope::nets::posenet3d::{MUCO, PoseNet3d};
use lixelscope::nets::resnet::{Depth, Stages, Stem};
use lixelscope::nets::rootnet::RootNet;
use lixelscope::pipeline::stages::Pass;
use lixelscope::pipeline::{self, infer};
use lixelscope::result::{Landmark, RootSource};
use lixelscope::settings::{Backend, Settings};
use lixelscope::synth::{Kind, SyntheticSource};

/// Bytes from which an allocation is memory of a frame; the smallest map between the layers here has 16 KiB.
const LARGE: usize = 4096;

static COUNT: AtomicUsize = AtomicUsize::new(0);
static LARGE_BYTES: AtomicUsize = AtomicUsize::new(0);

struct Counting;

// SAFETY: every call is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.fetch_add(1, Ordering::Relaxed);
        if layout.size() >= LARGE {
            LARGE_BYTES.fetch_add(layout.size(), Ordering::Relaxed);
        }
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise; all memory came from the system.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Frames that are counted together: the detector looks at two of them.
const WINDOW: usize = 8;
/// Windows in which it may take no memory: which piece of memory serves what is settled by the threads' chance too.
const WINDOWS: usize = 4;
/// Frames before the first window.
const WARM_UP: usize = 6;

/// Allocations, and bytes of large ones, of a frame once the first ones have settled where everything lies. What a frame
/// returns is held until the next has returned.
fn per_frame<T>(mut frame: impl FnMut() -> Result<T>) -> Result<[usize; 2]> {
    let mut held = frame()?;
    for _ in 1..WARM_UP {
        held = frame()?;
    }
    let mut least = [usize::MAX; 2];
    for _ in 0..WINDOWS {
        let before = [&COUNT, &LARGE_BYTES].map(|c| c.load(Ordering::Relaxed));
        for _ in 0..WINDOW {
            held = frame()?;
        }
        let after = [&COUNT, &LARGE_BYTES].map(|c| c.load(Ordering::Relaxed));
        least = [0, 1].map(|i| least[i].min((after[i] - before[i]).div_ceil(WINDOW)));
        if least[1] == 0 {
            break;
        }
    }
    drop(held);
    Ok(least)
}

fn zeros() -> VarBuilder<'static> {
    VarBuilder::zeros(DType::F32, &Device::Cpu)
}

/// One test, because the counters are the whole program's.
#[test]
fn the_steady_state_takes_no_memory_and_no_plain_layer() -> Result<()> {
    chain()?;
    whole_networks()?;
    mask_rcnn()?;
    light_detector()?;
    default_path()?;
    assert_eq!(plain_runs(), 0, "a layer of a network on the CPU went candle's way");

    // The counter counts.
    let variable = |shape: &[usize]| Ok(Var::zeros(shape, DType::F32, &Device::Cpu)?.into_inner());
    let weight: Result<Tensor> = variable(&[4, 4, 3, 3]);
    let conv = Conv2d::new(ConvShape::same(4, 4, 3), weight?, None, None, Activation::None)?;
    conv.forward(&Tensor::zeros((1, 4, 8, 8), DType::F32, &Device::Cpu)?)?;
    assert_eq!(plain_runs(), 1);
    let [_, bytes] = per_frame(|| Ok(vec![1_u8; LARGE]))?;
    assert_eq!(bytes, LARGE);
    Ok(())
}

/// Stem, residual stages and transposed convolutions.
fn chain() -> Result<()> {
    let stem = Stem::load(64, BN_EPS, &zeros().pp("stem"))?;
    let stages = Stages::load(Depth::new(50)?, BN_EPS, &zeros())?;
    let stack = DeconvStack::load([2048, 256], 4, &zeros())?;
    let image = Tensor::zeros((2, 3, 128, 128), DType::F32, &Device::Cpu)?;
    let [count, bytes] = per_frame(|| {
        let y = stack.run(&stages.run(&stem.run(&image)?)?)?;
        assert!(matches!(y, Features::Blocked(_)));
        Ok(y)
    })?;
    println!("chain: {count} small allocations");
    assert_eq!(bytes, 0, "the chain of convolutions allocates");
    // Jobs of the thread pool; a list of shapes or two.
    assert!(count < 200, "{count} allocations for each frame");
    Ok(())
}

/// The networks that read patches: with the published widths, and with those of the built-in weights.
fn whole_networks() -> Result<()> {
    patch_networks(NetSizes::new(18, 128, 32)?, 6890)?;
    patch_networks(NetSizes::new(18, 96, 24)?.with_widths(32, 128), 2843)
}

fn patch_networks(sizes: NetSizes, vertices: usize) -> Result<()> {
    let side = sizes.input() as u32;
    let patches = [RgbImage::new(side, side), RgbImage::new(side, side)];

    let root = RootNet::load(sizes, &zeros())?;
    let [count, bytes] = per_frame(|| {
        let output = root.forward(&patches[..])?;
        assert!(matches!(output.feature, Features::Blocked(_)));
        output.roots()?;
        Ok(output)
    })?;
    println!("rootnet: {count} small allocations");
    assert_eq!(bytes, 0, "RootNet allocates");

    let body = I2l::load(sizes, I2lShape { joints: 29, vertices, params: None }, &zeros())?;
    let [count, bytes] = per_frame(|| {
        let output = body.forward(&patches[..])?;
        let features = &output.features;
        for feature in [&features.early, &features.pose, &features.pose2feat, &features.mesh] {
            assert!(matches!(feature, Features::Blocked(_)));
        }
        let fetched = [lixel::points(&output.vertices.coords)?, lixel::points(&output.vertices.spread)?];
        Ok((output, fetched))
    })?;
    println!("i2l: {count} small allocations");
    assert_eq!(bytes, 0, "I2L-MeshNet allocates");

    // Its volumes are read in blocks of 16 bins.
    if sizes.heatmap().is_multiple_of(16) {
        let skeleton = PoseNet3d::load(sizes, 21, &zeros())?;
        let [count, bytes] = per_frame(|| skeleton.forward_flip_averaged(&patches[..], &MUCO))?;
        println!("posenet3d: {count} small allocations");
        assert_eq!(bytes, 0, "3D PoseNet allocates");
    }
    Ok(())
}

/// Mask R-CNN with boxes; what it finds is a list.
fn mask_rcnn() -> Result<()> {
    let config = maskrcnn::Config {
        layers: 18,
        norm_eps: BN_EPS,
        shorter_side: 64,
        proposals: 50,
        ..maskrcnn::Config::default()
    };
    let net = MaskRcnn::load(config, &zeros())?;
    let picture = RgbImage::new(64, 64);
    let query = Query { labels: None, masks: true };
    let batch = net.prepare(&[&picture])?;
    let [count, bytes] = per_frame(|| {
        let pyramid = net.backbone.forward(&batch.pixels)?;
        assert!(pyramid.iter().all(|map| matches!(map, Features::Blocked(_))));
        Ok(pyramid)
    })?;
    println!("pyramid: {count} small allocations");
    assert_eq!(bytes, 0, "the pyramid allocates");

    let [count, bytes] = per_frame(|| net.detect(&picture, query))?;
    println!("maskrcnn: {count} small allocations");
    assert_eq!(bytes, 0, "Mask R-CNN allocates");

    // Weights of zero find nothing, so the mask head is given something.
    let maps = RoiMaps::new(net.backbone.forward(&batch.pixels)?, &batch.sizes)?;
    let found = ScoredBox { corners: [8.0, 8.0, 40.0, 40.0], score: 1.0, label: 1 };
    assert_eq!(net.masks(&maps, 0, &[found], &batch.sizes[0])?.len(), 1);
    Ok(())
}

/// The light detector, with a threshold below which all cells are, and one above.
fn light_detector() -> Result<()> {
    for score_threshold in [0.05, 0.001] {
        let config = person_detector::Config { score_threshold, ..person_detector::Config::default() };
        let net = PersonDetector::load(config, &zeros())?;
        let frame = RgbImage::new(640, 480);
        let [count, bytes] = per_frame(|| {
            let found = net.detect(&frame)?;
            assert_eq!(found.is_empty(), score_threshold > 0.01);
            Ok(found)
        })?;
        println!("person_detector: {count} small allocations");
        assert_eq!(bytes, 0, "the light detector allocates");
    }
    Ok(())
}

/// A frame as the program takes it with nothing but itself: the detector on every fourth, tracking, distance, mesh in
/// metres, and the heatmaps of a vertex.
fn default_path() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let settings = Settings { backend: Backend::Cpu, max_people: 1, ..Settings::with_models(folder.path().to_owned()) };
    assert_eq!(settings.detect_every, 4);
    let mut stages = pipeline::Stages::new(settings.clone());
    infer::load(&settings, infer::Wanted::All, &mut |progress| match progress {
        infer::Progress::Loaded(infer::Part::Detector(_, _, detector)) => stages.detector = Some(detector),
        infer::Progress::Loaded(infer::Part::Root(_, root)) => stages.root = Some(root),
        infer::Progress::Loaded(infer::Part::Estimator { estimator, body, .. }) => {
            (stages.estimator, stages.body) = (Some(estimator), body);
        }
        _ => {}
    });
    assert_eq!(stages.weights().len(), 3);
    stages.begin(SourceKind::Motion);
    stages.landmarks = vec![Landmark::Vertex(7)];

    // Made before anything is counted.
    let mut frames = film()?.into_iter();
    let (mut shown, mut detections) = (0, 0);
    let [count, bytes] = per_frame(|| {
        let result = stages.process(frames.next().context("the film is too short")?, Pass::Next)?;
        for person in &result.people {
            shown += 1;
            assert!(person.mesh.is_some() && person.root_source == RootSource::RootNet && person.heatmaps.len() == 1);
        }
        detections += usize::from(result.detector_ran);
        Ok(result)
    })?;
    println!("a frame of the default path: {count} small allocations; {shown} people, {detections} detections");
    assert!(shown >= WARM_UP + WINDOW - 1 && detections >= 3, "{shown} people, {detections} detections");
    assert_eq!(bytes, 0, "the default path allocates");
    assert!(count < 400, "{count} allocations for each frame");
    Ok(())
}

/// The first film of one person, as long as it may take.
fn film() -> Result<Vec<Arc<Frame>>> {
    for seed in 0.. {
        let mut source = SyntheticSource::open(Kind::Scenes, seed)?;
        let mut next = || match source.next()? {
            Next::Frame(frame) => Ok(Arc::new(frame)),
            Next::Stalled(why) | Next::Ended(why) => bail!("the synthetic source: {why}"),
        };
        let first = next()?;
        if first.truth.as_ref().is_some_and(|truth| truth.people.len() == 1) {
            return std::iter::once(Ok(first)).chain((1..WARM_UP + WINDOWS * WINDOW).map(|_| next())).collect();
        }
    }
    bail!("no film of a single person")
}
