//! The whole path at 1920x1080 with the published architectures: frame to vertices in metres, the detector on every
//! fourth frame.

use anyhow::{Context, Result};
use candle_core::Device;
use glam::Vec3;

use super::networks::{Run, no_outputs};
use super::random;
use crate::camera_mesh::{BODY_BOX_M, DepthAxis, LixelVolume};
use crate::crop::Crop;
use crate::lixel;
use crate::nets::NetSizes;
use crate::nets::i2l::{I2l, I2lOutput, I2lShape};
use crate::nets::input::patches_tensor;
use crate::nets::maskrcnn::{self, MaskRcnn};
use crate::nets::rootnet::{Root, RootNet};
use crate::pipeline::stages::Patches;
use crate::root_depth::{REAL_BOX_M, k_m};
use crate::space::{Intrinsics, RectPx};

/// Its name among the networks.
pub(super) const NAME: &str = "path_1080p";

/// Frames of one run, on the first of which the detector looks.
pub const FRAMES: usize = 4;

struct Path {
    detector: MaskRcnn,
    root: RootNet,
    body: I2l,
    device: Device,
}

/// A run is [`FRAMES`] frames; the batch is the number of people. Weights are random, so what the detector finds is not
/// used: the boxes of the people are given.
pub fn whole_path(device: &Device) -> Result<Run> {
    // As the program does it by itself.
    let (shorter_side, longest_side, proposals) = if device.is_cpu() { (400, 666, 500) } else { (800, 1333, 1000) };
    let config = maskrcnn::Config { shorter_side, longest_side, proposals, ..maskrcnn::Config::default() };
    let path = Path {
        detector: MaskRcnn::load(config, &random::weights(device))?,
        root: RootNet::load(NetSizes::default(), &random::weights(device))?,
        body: I2l::load(
            NetSizes::default(),
            I2lShape { joints: 29, vertices: 6890, params: None },
            &random::weights(device),
        )?,
        device: device.clone(),
    };
    let frame = random::picture(1920, 1080);
    let camera = Intrinsics::normalised(1920, 1080);
    Ok(Box::new(move |people, lap| {
        let rect = |i: usize| RectPx::from([60.0 + 450.0 * (i % 4) as f32, 100.0, 420.0, 900.0]);
        let crops: Vec<Crop> = (0..people).filter_map(|i| Crop::of_tight_box(rect(i), 1920, 1080, 256)).collect();
        for number in 0..FRAMES {
            if number == 0 {
                let query = maskrcnn::Query { labels: Some(&[crate::detect::coco::PERSON]), masks: false };
                path.detector.detect(&frame, query)?;
                lap("detector")?;
            }
            let patches = Patches::new(&frame, Patches::next_frame_id(), &crops);
            let roots = path.roots(&patches)?;
            lap("rootnet")?;
            let output = path.vertices(&patches)?;
            let vertices = lixel::points(&output.vertices.coords)?;
            lixel::points(&output.vertices.spread)?;
            lap("i2l")?;
            for ((crop, root), vertices) in crops.iter().zip(&roots).zip(&vertices) {
                let volume = LixelVolume { crop, bins: 64, box_m: BODY_BOX_M, depth_axis: DepthAxis::Camera };
                let root_m = Vec3::Z * root.gamma * k_m(&camera, &crop.rect, REAL_BOX_M);
                std::hint::black_box(volume.camera_from_lixels(vertices, root_m, &camera));
            }
            lap("camera mesh")?;
        }
        Ok(no_outputs())
    }))
}

impl Path {
    fn roots(&self, patches: &Patches<'_>) -> Result<Vec<Root>> {
        #[cfg(feature = "cudnn")]
        if let Some(output) = self.root.forward_crops(&source(patches))? {
            return Ok(output.roots()?);
        }
        Ok(self.root.forward(&patches_tensor(patches.images(), &self.device)?)?.roots()?)
    }

    fn vertices(&self, patches: &Patches<'_>) -> Result<I2lOutput> {
        #[cfg(feature = "cudnn")]
        if let Some(output) = self.body.forward_crops(&source(patches))? {
            return Ok(output);
        }
        self.body.forward(&patches_tensor(patches.images(), &self.device)?).context("I2L-MeshNet")
    }
}

#[cfg(feature = "cudnn")]
fn source<'a>(patches: &Patches<'a>) -> crate::nets::cuda::PatchSource<'a> {
    let Patches { frame, frame_id, crops, .. } = *patches;
    crate::nets::cuda::PatchSource { frame, frame_id, crops }
}
