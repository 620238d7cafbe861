//! What a frame costs beside its arithmetic, counted and not timed: after the first frames the chain of convolutions
//! takes no memory any more, and on the CPU every layer goes the fast way.
//!
//! What is still allocated lies at the seams, where a network's input and results are tensors: the normalised patch,
//! the means that the heads read, the heatmaps with their moments, regions and scores of the detector. The test
//! bounds it. Allocations below [`LARGE`] (shapes, lists of pointers, the thread pool's queues) are not counted as
//! memory, only as a number.

// A global allocator is an unsafe trait; this one counts and passes on.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Result;
use candle_core::{DType, Device, Tensor, Var};
use candle_nn::VarBuilder;
use image::RgbImage;
use lixelscope::nets::NetSizes;
use lixelscope::nets::i2l::{I2l, I2lShape};
use lixelscope::nets::layers::{Activation, BN_EPS, Conv2d, ConvShape, DeconvStack, Features, plain_runs};
use lixelscope::nets::maskrcnn::box_head::{ROI_SIDE, ScoredBox};
use lixelscope::nets::maskrcnn::fpn::CHANNELS;
use lixelscope::nets::maskrcnn::roi_align::RoiMaps;
use lixelscope::nets::maskrcnn::{self, MaskRcnn, Query};
use lixelscope::nets::person_detector::{self, PersonDetector};
use lixelscope::nets::posenet3d::{MUCO, PoseNet3d};
use lixelscope::nets::resnet::{Depth, Stages, Stem};
use lixelscope::nets::rootnet::RootNet;

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

/// Allocations, and bytes of large ones, of a frame once the first ones have settled where everything lies.
fn per_frame(mut frame: impl FnMut() -> Result<()>) -> Result<[usize; 2]> {
    const FRAMES: usize = 4;
    for _ in 0..6 {
        frame()?;
    }
    let before = [&COUNT, &LARGE_BYTES].map(|c| c.load(Ordering::Relaxed));
    for _ in 0..FRAMES {
        frame()?;
    }
    let after = [&COUNT, &LARGE_BYTES].map(|c| c.load(Ordering::Relaxed));
    Ok([0, 1].map(|i| (after[i] - before[i]).div_ceil(FRAMES)))
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
    assert_eq!(plain_runs(), 0, "a layer of a network on the CPU went candle's way");

    // The counter counts.
    let variable = |shape: &[usize]| Ok(Var::zeros(shape, DType::F32, &Device::Cpu)?.into_inner());
    let weight: Result<Tensor> = variable(&[4, 4, 3, 3]);
    let conv = Conv2d::new(ConvShape::same(4, 4, 3), weight?, None, None, Activation::None)?;
    conv.forward(&Tensor::zeros((1, 4, 8, 8), DType::F32, &Device::Cpu)?)?;
    assert_eq!(plain_runs(), 1);
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
        Ok(())
    })?;
    println!("chain: {count} small allocations");
    assert_eq!(bytes, 0, "the chain of convolutions allocates");
    // Jobs of the thread pool; a list of shapes or two.
    assert!(count < 200, "{count} allocations for each frame");
    Ok(())
}

/// The networks that read patches allocate little more than what they return: with the published widths, and with those
/// of the built-in weights.
fn whole_networks() -> Result<()> {
    patch_networks(NetSizes::new(18, 128, 32)?, 6890)?;
    patch_networks(NetSizes::new(18, 96, 24)?.with_widths(32, 128), 2843)
}

fn patch_networks(sizes: NetSizes, vertices: usize) -> Result<()> {
    let patches = Tensor::zeros((2, 3, sizes.input(), sizes.input()), DType::F32, &Device::Cpu)?;
    let input = bytes_of(&patches);

    let root = RootNet::load(sizes, &zeros())?;
    let [count, bytes] = per_frame(|| {
        let output = root.forward(&patches)?;
        assert!(matches!(output.feature, Features::Blocked(_)));
        Ok(())
    })?;
    println!("rootnet: {count} allocations, {bytes} bytes in large ones; input {input}");
    // The normalised patch is made in two steps; the heads' maps are smaller.
    assert!(bytes <= 3 * input, "rootnet allocates {bytes} bytes");

    let body = I2l::load(sizes, I2lShape { joints: 29, vertices, params: None }, &zeros())?;
    let mut returned = 0;
    let [count, bytes] = per_frame(|| {
        let output = body.forward(&patches)?;
        let features = &output.features;
        for feature in [&features.early, &features.pose, &features.pose2feat, &features.mesh] {
            assert!(matches!(feature, Features::Blocked(_)));
        }
        returned = [&output.joints, &output.vertices]
            .iter()
            .map(|l| bytes_of(&l.heatmaps) + bytes_of(&l.coords) + bytes_of(&l.spread))
            .sum();
        Ok(())
    })?;
    println!("i2l: {count} allocations, {bytes} bytes in large ones; input {input}, returned {returned}");
    // Logits and probabilities; the patch; the Gaussians' factors and their share of the convolution.
    assert!(bytes <= 2 * returned + 16 * input, "I2L-MeshNet allocates {bytes} bytes");

    // Its volumes are read in blocks of 16 bins.
    if sizes.heatmap().is_multiple_of(16) {
        let skeleton = PoseNet3d::load(sizes, 21, &zeros())?;
        let [count, bytes] = per_frame(|| skeleton.forward_flip_averaged(&patches, &MUCO).map(drop))?;
        println!("posenet3d: {count} allocations, {bytes} bytes in large ones; input {input}");
        // The mirrored patches make twice the input, which is put together and normalised in two steps.
        assert!(bytes <= 9 * input, "posenet3d allocates {bytes} bytes");
    }
    Ok(())
}

fn bytes_of(tensor: &Tensor) -> usize {
    tensor.elem_count() * 4
}

/// Mask R-CNN's trunk allocates nothing, the rest less than the regions have, which are in memory that has been used.
fn mask_rcnn() -> Result<()> {
    const REGIONS: usize = 50;
    let config = maskrcnn::Config {
        layers: 18,
        norm_eps: BN_EPS,
        shorter_side: 64,
        proposals: REGIONS,
        ..maskrcnn::Config::default()
    };
    let net = MaskRcnn::load(config, &zeros())?;
    let picture = RgbImage::new(64, 64);
    let query = Query { labels: None, masks: true };
    let batch = net.prepare(&[&picture])?;
    let [count, bytes] = per_frame(|| {
        let pyramid = net.backbone.forward(&batch.pixels)?;
        assert!(pyramid.iter().all(|map| matches!(map, Features::Blocked(_))));
        Ok(())
    })?;
    println!("pyramid: {count} small allocations");
    assert_eq!(bytes, 0, "the pyramid allocates");

    let [count, bytes] = per_frame(|| net.detect(&picture, query).map(drop))?;
    let regions = REGIONS * CHANNELS * ROI_SIDE * ROI_SIDE * 4;
    println!("maskrcnn: {count} allocations, {bytes} bytes in large ones; regions {regions}");
    // The picture; scores and corrections of anchors, hidden layers, classes and boxes.
    assert!(2 * bytes <= regions, "Mask R-CNN allocates {bytes} bytes");

    // Weights of zero find nothing, so the mask head is given something.
    let maps = RoiMaps::new(net.backbone.forward(&batch.pixels)?, &batch.sizes)?;
    let found = ScoredBox { corners: [8.0, 8.0, 40.0, 40.0], score: 1.0, label: 1 };
    assert_eq!(net.masks(&maps, 0, &[found], &batch.sizes[0])?.len(), 1);
    Ok(())
}

/// The light detector allocates the frame in its size, as bytes and as numbers, and what the cells say.
fn light_detector() -> Result<()> {
    let net = PersonDetector::load(person_detector::Config::default(), &zeros())?;
    let frame = RgbImage::new(640, 480);
    let input = 320 * 240 * 3 * 4;
    let [count, bytes] = per_frame(|| net.detect(&frame).map(drop))?;
    println!("person_detector: {count} allocations, {bytes} bytes in large ones; input {input}");
    assert!(bytes <= 2 * input, "the light detector allocates {bytes} bytes");
    Ok(())
}
