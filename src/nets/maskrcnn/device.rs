//! The detector on an NVIDIA GPU: from the frame's bytes to the objects without the processor in between, as one graph.
//!
//! Numbers of boxes stay on the device, so everything is as large as it can become: [`Config::proposals`] regions go
//! through the box head, those without a box as empty ones.

use std::sync::Arc;

use anyhow::Result;
use candle_core::{Device, Result as CandleResult, bail};
use image::RgbImage;

use super::box_head::{MIN_SIDE, ROI_SIDE, ScoredBox};
use super::transform::{Batch, ImageSize, padded_size, resized_size};
use super::{Config, Corners, MaskRcnn, Query, fpn, mask_head, rpn};
use crate::detect::{Detection, Mask};
use crate::nets::Lap;
use crate::nets::cuda::detector::{
    LEVELS, MOST, Merged, ObjectPlan, ProposalPlan, ROI_LEVELS, RegionScores, RpnLevel, choose_objects, propose,
    roi_align, score_regions,
};
use crate::nets::cuda::kernels::{Launch, MapDims, Ptr};
use crate::nets::cuda::{Buffer, DeviceMap, Gpu, Graphs, pictures};
use crate::nets::layers::{Features, count_plain_run};

/// The graphs of a detector.
pub struct OnDevice(Graphs<Key, Input, Found>);

/// What a graph is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    /// `[width, height]` of the pictures.
    size: [usize; 2],
    pictures: usize,
    labels: Vec<u32>,
    /// `[height, width]` after resizing.
    resized: [usize; 2],
    per_level: usize,
    proposals: usize,
    /// The bits of the overlap from which a proposal goes.
    proposal_iou: u32,
    /// Those of the score that an object is above.
    threshold: u32,
    /// Those of the overlap from which an object goes.
    iou: u32,
    /// Objects of each picture.
    limit: usize,
}

impl Key {
    /// `[height, width]` of the network's input.
    fn padded(&self) -> [usize; 2] {
        self.resized.map(padded_size)
    }

    /// The sizes of the pyramid's maps.
    fn levels(&self) -> [MapDims; LEVELS] {
        let [height, width] = self.padded();
        [4, 8, 16, 32, 64].map(|stride| MapDims {
            batch: self.pictures,
            height: height.div_ceil(stride),
            width: width.div_ceil(stride),
            channels: fpn::CHANNELS,
        })
    }

    fn proposal_plan(&self) -> ProposalPlan {
        ProposalPlan {
            batch: self.pictures,
            resized: self.resized,
            per_level: self.per_level,
            proposals: self.proposals,
            iou: f32::from_bits(self.proposal_iou),
            min_side: rpn::MIN_SIDE,
        }
    }

    fn object_plan(&self) -> ObjectPlan {
        ObjectPlan {
            batch: self.pictures,
            regions: self.proposals,
            labels: self.labels.len(),
            threshold: f32::from_bits(self.threshold),
            min_side: MIN_SIDE,
            iou: f32::from_bits(self.iou),
            limit: self.limit,
        }
    }
}

/// What a graph reads.
struct Input {
    key: Key,
    frames: Vec<Buffer>,
    table: Buffer,
    cells: Buffer,
    labels: Buffer,
}

/// What it makes.
struct Found {
    /// See [`Objects`].
    objects: Buffer,
    pyramid: Vec<DeviceMap>,
}

/// The objects of some pictures in memory, in words of four bytes.
#[derive(Clone, Copy)]
struct Objects {
    pictures: usize,
    /// Of each picture.
    limit: usize,
}

impl Objects {
    /// Boxes `[pictures, limit, 4]` in resized pixels, scores, indices of their labels, numbers of each picture.
    fn words(self) -> usize {
        self.pictures * (6 * self.limit + 1)
    }

    /// Where each of them begins.
    fn places(self, at: Ptr) -> Merged {
        let all = self.pictures * self.limit * size_of::<u32>();
        let [scores, lists, counts] = [4, 5, 6].map(|before| at.offset(before * all));
        Merged { boxes: at, scores, lists, counts }
    }

    /// Those of one picture, best first.
    fn of_picture(self, words: &[u32], index: usize, labels: &[u32]) -> Vec<ScoredBox> {
        let Self { pictures, limit } = self;
        let (boxes, rest) = words.split_at(4 * pictures * limit);
        let (scores, rest) = rest.split_at(pictures * limit);
        let (lists, counts) = rest.split_at(pictures * limit);
        let one = |place: usize| ScoredBox {
            corners: [0, 1, 2, 3].map(|i| f32::from_bits(boxes[place * 4 + i])),
            score: f32::from_bits(scores[place]),
            label: labels[lists[place] as usize],
        };
        (index * limit..).take((counts[index] as usize).min(limit)).map(one).collect()
    }
}

impl OnDevice {
    /// `None` where the device is not one of `nets::cuda`.
    pub fn new(device: &Device) -> Option<Self> {
        Gpu::of(device).map(|gpu| Self(Graphs::new(gpu)))
    }

    /// The objects in each picture; `None` for what does not fit the kernels (pictures of several sizes, very many
    /// candidates), which goes step by step.
    pub fn detect(
        &self,
        net: &MaskRcnn,
        images: &[&RgbImage],
        query: Query<'_>,
        lap: &mut Lap<'_>,
    ) -> Result<Option<Vec<Vec<Detection>>>> {
        let Config { classes, shorter_side, longest_side, proposals_per_level, proposals, max_detections, .. } =
            net.config;
        let Some(first) = images.first() else { return Ok(None) };
        let same = images.iter().all(|image| image.dimensions() == first.dimensions());
        let original = [first.height() as usize, first.width() as usize];
        if !same || original.contains(&0) || proposals_per_level > MOST || proposals > MOST || proposals == 0 {
            count_plain_run();
            return Ok(None);
        }
        let labels: Vec<u32> = match query.labels {
            Some(labels) => labels.iter().copied().filter(|&l| l >= 1 && (l as usize) < classes).collect(),
            None => (1..classes as u32).collect(),
        };
        if labels.is_empty() || max_detections == 0 {
            return Ok(Some(vec![Vec::new(); images.len()]));
        }
        let resized = resized_size(original, shorter_side, longest_side);
        let size = ImageSize { original, resized };
        let key = Key {
            size: [original[1], original[0]],
            pictures: images.len(),
            labels: labels.clone(),
            resized,
            per_level: proposals_per_level,
            proposals,
            proposal_iou: net.config.proposal_nms_iou.to_bits(),
            threshold: net.config.score_threshold.to_bits(),
            iou: net.config.nms_iou.to_bits(),
            limit: max_detections.min(proposals * labels.len()),
        };
        let fill = |gpu: &Arc<Gpu>, input: &Input| {
            images.iter().zip(&input.frames).try_for_each(|(image, frame)| gpu.write(frame.at(), image.as_raw()))
        };
        let take = |found: &Found, _: &_| {
            let gpu = self.0.gpu();
            let objects = Objects { pictures: images.len(), limit: key.limit };
            let words: Vec<u32> = gpu.read(found.objects.at(), objects.words())?;
            let mut all = Vec::with_capacity(images.len());
            for index in 0..images.len() {
                let boxes = objects.of_picture(&words, index, &labels);
                let masks = if query.masks { self.masks(net, found, index, &boxes, &size)? } else { Vec::new() };
                let mut masks = masks.into_iter();
                all.push(boxes.iter().map(|b| super::detection(b, &size, masks.next())).collect());
            }
            Ok(all)
        };
        let prepare = |gpu: &Arc<Gpu>| Input::new(gpu, &key);
        let body = |input: &Input, lap: &mut Lap<'_>| self.body(net, input, lap);
        Ok(Some(self.0.run(key.clone(), prepare, fill, body, take, lap)?))
    }

    /// From the frames' bytes to the objects.
    fn body(&self, net: &MaskRcnn, input: &Input, lap: &mut Lap<'_>) -> CandleResult<Found> {
        let gpu = self.0.gpu();
        let key = &input.key;
        let [height, width] = key.padded();
        let pixels = DeviceMap::new(gpu, MapDims { batch: key.pictures, height, width, channels: 3 })?;
        let picture_bytes = height * width * pixels.dims.padded() * gpu.precision().bytes();
        for (index, frame) in input.frames.iter().enumerate() {
            let at = pixels.at().offset(index * picture_bytes);
            pictures::resize(&**gpu, frame.at(), key.size, key.resized, at, pixels.dims, Batch::scaling())?;
        }
        lap("resize")?;
        let pyramid = net.backbone.forward_features(&Features::Device(pixels))?;
        let outputs = net.rpn_head.forward_features(&pyramid)?;
        lap("backbone, FPN, RPN")?;

        let maps = pyramid.iter().map(|features| features.to_device(gpu)).collect::<CandleResult<Vec<_>>>()?;
        if !maps.iter().map(|map| map.dims).eq(key.levels()) {
            bail!("the pyramid has other sizes than expected");
        }
        // Held until the kernels that read them are on the stream.
        let mut held = Vec::with_capacity(LEVELS);
        for [objectness, deltas] in &outputs {
            held.push([objectness.to_device(gpu)?, deltas.to_device(gpu)?]);
        }
        let level = |[objectness, deltas]: &[DeviceMap; 2]| RpnLevel {
            objectness: objectness.at(),
            deltas: deltas.at(),
            dims: objectness.dims,
        };
        let levels: Vec<RpnLevel> = held.iter().map(level).collect();
        let Ok(levels) = <[RpnLevel; LEVELS]>::try_from(levels) else { bail!("a pyramid has {LEVELS} levels") };
        let plan = key.proposal_plan();
        let regions = key.pictures * key.proposals;
        let scratch = gpu.take(plan.scratch_bytes(&key.levels()))?;
        let (boxes, counts) = (gpu.take(regions * 16)?, gpu.take(key.pictures * 4)?);
        let memory = [input.table.at(), input.cells.at(), scratch.at(), boxes.at(), counts.at()];
        propose(&**gpu, &plan, &levels, memory)?;
        drop((held, outputs, scratch));
        lap("proposals")?;

        let aligned = DeviceMap::new(
            gpu,
            MapDims { batch: regions, height: ROI_SIDE, width: ROI_SIDE, channels: fpn::CHANNELS },
        )?;
        let read = [0, 1, 2, 3].map(|i| (maps[i].at(), maps[i].dims));
        let finest = finest_scale(&read, key.resized);
        roi_align(&**gpu, &read, finest, boxes.at(), aligned.at(), [regions, key.proposals, ROI_SIDE])?;
        let raw = net.box_head.forward_device(aligned)?;
        let label_count = key.labels.len();
        let scores = gpu.take(regions * label_count * 5 * 4)?;
        let from = RegionScores {
            logits: raw.logits.at(),
            logit_bias: raw.logit_bias,
            deltas: raw.deltas.at(),
            delta_bias: raw.delta_bias,
            regions: boxes.at(),
            labels: input.labels.at(),
            classes: net.config.classes,
            logit_stride: raw.logit_stride,
            delta_stride: raw.delta_stride,
            label_count,
        };
        score_regions(&**gpu, from, scores.at(), regions, key.resized)?;
        let plan = key.object_plan();
        let layout = Objects { pictures: key.pictures, limit: key.limit };
        let objects = gpu.take(layout.words() * size_of::<u32>())?;
        let scratch = gpu.take(plan.scratch_bytes())?;
        choose_objects(&**gpu, &plan, [scores.at(), counts.at(), scratch.at()], layout.places(objects.at()))?;
        lap("heads")?;
        Ok(Found { objects, pyramid: maps })
    }

    /// The pixels of objects that were found in one picture.
    fn masks(
        &self,
        net: &MaskRcnn,
        found: &Found,
        index: usize,
        boxes: &[ScoredBox],
        size: &ImageSize,
    ) -> CandleResult<Vec<Mask>> {
        const SIDE: usize = mask_head::ROI_SIDE;
        if boxes.is_empty() {
            return Ok(Vec::new());
        }
        let gpu = self.0.gpu();
        // Few numbers of regions, so that few shapes have to be tried; those past the last are empty.
        let count = boxes.len().next_power_of_two();
        let mut corners: Vec<Corners> = boxes.iter().map(|b| b.corners).collect();
        corners.resize(count, [0.0; 4]);
        let mut labels: Vec<u32> = boxes.iter().map(|b| b.label).collect();
        labels.resize(count, 1);
        let regions = gpu.take(count * 16)?;
        gpu.write(regions.at(), bytemuck::cast_slice(&corners))?;
        let bytes = gpu.precision().bytes();
        let read = [0, 1, 2, 3].map(|i| {
            let (map, dims) = (&found.pyramid[i], found.pyramid[i].dims);
            (map.at().offset(index * dims.elements() / dims.batch * bytes), MapDims { batch: 1, ..dims })
        });
        let aligned =
            DeviceMap::new(gpu, MapDims { batch: count, height: SIDE, width: SIDE, channels: fpn::CHANNELS })?;
        let finest = finest_scale(&read, size.resized);
        roi_align(&**gpu, &read, finest, regions.at(), aligned.at(), [count, count, SIDE])?;
        let masks = net.mask_head.forward_features(Features::Device(aligned), &labels);
        let masks = masks.map_err(|error| candle_core::Error::Msg(format!("{error:#}")))?;
        let paste = |(mask, found): (Vec<f32>, &ScoredBox)| {
            mask_head::paste(&mask, size.original_from_resized(found.corners), size.original)
        };
        Ok(masks.into_iter().zip(boxes).map(paste).collect())
    }
}

impl Input {
    fn new(gpu: &Arc<Gpu>, key: &Key) -> CandleResult<Self> {
        let [width, height] = key.size;
        let frames = (0..key.pictures).map(|_| gpu.take(width * height * 3)).collect::<CandleResult<_>>()?;
        let written = |bytes: &[u8]| {
            let buffer = gpu.take(bytes.len())?;
            gpu.write(buffer.at(), bytes).map(|()| buffer)
        };
        let table = ProposalPlan::table(&key.levels(), key.padded());
        let labels: Vec<i32> = key.labels.iter().map(|&label| label as i32).collect();
        Ok(Self {
            frames,
            table: written(bytemuck::cast_slice(&table))?,
            cells: written(bytemuck::cast_slice(&rpn::cells()))?,
            labels: written(bytemuck::cast_slice(&labels))?,
            key: key.clone(),
        })
    }
}

/// Map pixels of the finest level for each resized pixel: a power of two, as torchvision guesses it.
fn finest_scale(levels: &[(Ptr, MapDims); ROI_LEVELS], resized: [usize; 2]) -> f32 {
    (levels[0].1.height as f32 / resized[0] as f32).log2().round().exp2()
}
