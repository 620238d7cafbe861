//! Mask R-CNN with a ResNet-50-FPN (He et al. 2017; Lin et al. 2017) as torchvision defines it and names its
//! weights: `backbone.body`, `backbone.fpn`, `rpn.head`, `roi_heads`.
//!
//! ```text
//! picture -> transform -> fpn -> rpn -> roi_align -> box_head -> boxes
//!                                           \-------> mask_head -> masks, on demand
//! ```
//!
//! Convolutions and linear layers run on the weights' device. Anchors, suppression and RoIAlign, which are small and
//! full of branches, run on the processor; on an NVIDIA GPU they have kernels of their own (`device`). Inside, boxes are
//! corners in *resized* pixels, those of the network's input; what leaves is in the picture's own pixels.

pub mod box_head;
pub mod boxes;
#[cfg(feature = "cudnn")]
mod device;
pub mod fpn;
pub mod mask_head;
pub mod roi_align;
pub mod rpn;
pub mod transform;

use anyhow::{Context, Result, ensure};
use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use image::RgbImage;

use crate::detect::{Detection, Mask};
use crate::nets::layers::Values;
use crate::nets::resnet::Depth;
use crate::space::RectPx;
use box_head::{BoxHead, ScoredBox};
use fpn::Backbone;
use mask_head::MaskHead;
use roi_align::RoiMaps;
use rpn::RpnHead;
use transform::{Batch, ImageSize};

use super::{Lap, on_pool};
pub use crate::detect::nms::Corners;

/// How the network was trained, and how much work it does. The default is torchvision's for the COCO weights.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Layers of the ResNet.
    pub layers: usize,
    /// Classes, the background included.
    pub classes: usize,
    /// Epsilon of the frozen batch norms: 0 for the published COCO weights.
    pub norm_eps: f64,
    /// The shorter side of a picture is resized to this, pixels. Time grows with its square.
    pub shorter_side: usize,
    /// The longer side does not exceed this, pixels.
    pub longest_side: usize,
    /// Anchors of each level that are looked at.
    pub proposals_per_level: usize,
    /// Proposals that reach the box head. A live program can do with a tenth.
    pub proposals: usize,
    /// Overlap from which one of two proposals goes.
    pub proposal_nms_iou: f32,
    /// Boxes up to this score are dropped.
    pub score_threshold: f32,
    /// Overlap from which one of two boxes of a class goes.
    pub nms_iou: f32,
    /// At most so many boxes, of all wanted classes together.
    pub max_detections: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            layers: 50,
            classes: 91,
            norm_eps: 0.0,
            shorter_side: 800,
            longest_side: 1333,
            proposals_per_level: 1000,
            proposals: 1000,
            proposal_nms_iou: 0.7,
            score_threshold: 0.05,
            nms_iou: 0.5,
            max_detections: 100,
        }
    }
}

/// What is asked of a picture.
#[derive(Clone, Copy, Debug, Default)]
pub struct Query<'a> {
    /// Only these classes; all when `None`.
    pub labels: Option<&'a [u32]>,
    /// Masks too.
    pub masks: bool,
}

/// The network.
pub struct MaskRcnn {
    /// What it was made with; the limits can be changed at any time.
    pub config: Config,
    /// The trunk.
    pub backbone: Backbone,
    /// The head that scores anchors.
    pub rpn_head: RpnHead,
    /// The head that classifies regions.
    pub box_head: BoxHead,
    /// The head that makes masks.
    pub mask_head: MaskHead,
    device: Device,
    #[cfg(feature = "cudnn")]
    on_device: Option<device::OnDevice>,
}

impl MaskRcnn {
    /// Reads the weights from the root of `vb`.
    pub fn load(config: Config, vb: &VarBuilder) -> Result<Self> {
        ensure!(config.shorter_side > 0 && config.longest_side > 0, "the detector's picture sides must be positive");
        let heads = vb.pp("roi_heads");
        Ok(Self {
            backbone: Backbone::load(Depth::new(config.layers)?, config.norm_eps, &vb.pp("backbone"))?,
            rpn_head: RpnHead::load(&vb.pp("rpn.head"))?,
            box_head: BoxHead::load(config.classes, &heads)?,
            mask_head: MaskHead::load(config.classes, &heads)?,
            device: vb.device().clone(),
            #[cfg(feature = "cudnn")]
            on_device: device::OnDevice::new(vb.device()),
            config,
        })
    }

    /// The objects in a picture, best first.
    pub fn detect(&self, image: &RgbImage, query: Query) -> Result<Vec<Detection>> {
        let mut all = self.detect_batch(&[image], query)?;
        all.pop().context("a batch of one picture has one result")
    }

    /// The objects in each picture, best first.
    pub fn detect_batch(&self, images: &[&RgbImage], query: Query) -> Result<Vec<Vec<Detection>>> {
        self.detect_batch_watched(images, query, &mut |_| Ok(()))
    }

    /// As [`Self::detect_batch`], telling when each stage is done.
    pub fn detect_batch_watched(
        &self,
        images: &[&RgbImage],
        query: Query,
        lap: &mut Lap<'_>,
    ) -> Result<Vec<Vec<Detection>>> {
        on_pool(&self.device, || self.detect_on_pool(images, query, lap))
    }

    fn detect_on_pool(&self, images: &[&RgbImage], query: Query, lap: &mut Lap<'_>) -> Result<Vec<Vec<Detection>>> {
        #[cfg(feature = "cudnn")]
        if let Some(on_device) = &self.on_device
            && let Some(found) = on_device.detect(self, images, query, lap)?
        {
            return Ok(found);
        }
        let batch = self.prepare(images)?;
        lap("resize")?;
        let pyramid = self.backbone.forward(&batch.pixels)?;
        lap("backbone and FPN")?;
        let proposals = rpn::proposals(&self.rpn_head.forward(&pyramid)?, &batch, &self.config)?;
        lap("proposals")?;
        let maps = RoiMaps::new(pyramid, &batch.sizes)?;
        let mut results = Vec::with_capacity(images.len());
        for (index, (size, proposals)) in batch.sizes.iter().zip(&proposals).enumerate() {
            let found = self.boxes(&maps, index, proposals, size, query.labels)?;
            let mut masks = if query.masks { self.masks(&maps, index, &found, size)? } else { Vec::new() }.into_iter();
            results.push(found.iter().map(|f| detection(f, size, masks.next())).collect());
        }
        lap("heads")?;
        Ok(results)
    }

    /// The network's input.
    pub fn prepare(&self, images: &[&RgbImage]) -> Result<Batch> {
        Batch::new(images, self.config.shorter_side, self.config.longest_side, &self.device)
    }

    /// Regions of one picture of a batch as the heads read them, `[N, 256, side, side]`.
    pub fn regions(&self, maps: &RoiMaps, index: usize, regions: &[Corners], side: usize) -> Result<Values> {
        let aligned = Values::new(maps.align(index, regions, side), (regions.len(), fpn::CHANNELS, side, side));
        Ok(aligned.to_device(&self.device)?)
    }

    /// The objects among the proposals of one picture, best first.
    pub fn boxes(
        &self,
        maps: &RoiMaps,
        index: usize,
        proposals: &[Corners],
        size: &ImageSize,
        labels: Option<&[u32]>,
    ) -> Result<Vec<ScoredBox>> {
        if proposals.is_empty() {
            return Ok(Vec::new());
        }
        let output = self.box_head.forward(self.regions(maps, index, proposals, box_head::ROI_SIDE)?)?;
        box_head::select(&output, proposals, size.resized, labels, &self.config)
    }

    /// The pixels of objects that were found in one picture.
    pub fn masks(&self, maps: &RoiMaps, index: usize, found: &[ScoredBox], size: &ImageSize) -> Result<Vec<Mask>> {
        if found.is_empty() {
            return Ok(Vec::new());
        }
        let regions: Vec<Corners> = found.iter().map(|f| f.corners).collect();
        let labels: Vec<u32> = found.iter().map(|f| f.label).collect();
        let masks = self.mask_head.forward(self.regions(maps, index, &regions, mask_head::ROI_SIDE)?, &labels)?;
        let paste = |(mask, &region): (Vec<f32>, &Corners)| {
            mask_head::paste(&mask, size.original_from_resized(region), size.original)
        };
        Ok(masks.into_iter().zip(&regions).map(paste).collect())
    }
}

/// A box in resized pixels as an object in the picture's own.
fn detection(found: &ScoredBox, size: &ImageSize, mask: Option<Mask>) -> Detection {
    let [x0, y0, x1, y1] = size.original_from_resized(found.corners);
    Detection { rect: RectPx { x: x0, y: y0, w: x1 - x0, h: y1 - y0 }, score: found.score, label: found.label, mask }
}

/// The values of a tensor on the processor, row by row.
fn host(x: &Tensor) -> Result<Vec<f32>> {
    Ok(x.flatten_all()?.to_dtype(DType::F32)?.to_vec1()?)
}
