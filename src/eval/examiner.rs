//! Puts pictures whose people are known through the pipeline's own stages, one by one and without tracking, and counts.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use glam::Vec2;
use image::RgbImage;

use super::compare::LEAST_IOU;
use super::{Figures, Tally};
use crate::capture::{Frame, SourceKind};
use crate::crop::{Crop, process_bbox};
use crate::detect::{Detector, PersonBox};
use crate::pipeline::Stages;
use crate::pipeline::stages::{Pass, RootEstimator, RootInCrop};
use crate::settings::BoxSource;
use crate::space::Intrinsics;
use crate::truth::Truth;

/// What the pipeline is given instead of finding it, to see which network is at fault.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Given {
    /// The true boxes, of everybody of whom a pixel is seen.
    pub boxes: bool,
    /// The true depths of the root joints. Where they lie in the picture is still RootNet's word.
    pub roots: bool,
}

/// The stages, what is known of the picture at hand, and the sums.
pub struct Examiner {
    stages: Stages,
    given: Given,
    notes: Arc<Mutex<Notes>>,
    tally: Tally,
}

/// Of the picture at hand.
#[derive(Default)]
struct Notes {
    truth: Option<Arc<Truth>>,
    /// All that the detector found; `None` where none ran.
    boxes: Option<Vec<PersonBox>>,
}

fn lock(notes: &Mutex<Notes>) -> MutexGuard<'_, Notes> {
    notes.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Examiner {
    /// Takes stages with their networks.
    pub fn new(mut stages: Stages, given: Given) -> Self {
        let notes = Arc::<Mutex<Notes>>::default();
        if let Some(detector) = stages.detector.take() {
            stages.detector = Some(Box::new(Overheard { detector, notes: Arc::clone(&notes) }));
        }
        if given.roots {
            let size = stages.estimator.as_ref().map_or(0, |estimator| estimator.input_size());
            stages.root = Some(Box::new(TrueDepths { root: stages.root.take(), size, notes: Arc::clone(&notes) }));
        }
        stages.begin(SourceKind::Pictures);
        Self { stages, given, notes, tally: Tally::default() }
    }

    /// One picture through all stages. Errs where nothing is known to be true of it.
    pub fn examine(&mut self, frame: Frame) -> Result<()> {
        let (index, truth) = (frame.index, frame.truth.clone());
        let truth = truth.with_context(|| format!("nothing is known to be true of picture {index}"))?;
        if self.given.boxes {
            let rects = truth.people.iter().filter_map(|person| person.visible_rect).collect();
            let mut settings = self.stages.settings().clone();
            settings.boxes = BoxSource::User(rects);
            self.stages.set_settings(settings);
        }
        *lock(&self.notes) = Notes { truth: Some(truth), boxes: None };
        let examined = || -> Result<()> {
            let result = self.stages.process(Arc::new(frame), Pass::Next)?;
            let people = || result.people.iter().map(|p| PersonBox { rect: p.rect, score: p.score }).collect();
            let boxes = lock(&self.notes).boxes.take().unwrap_or_else(people);
            self.tally.add(&result, &boxes)
        };
        examined().with_context(|| format!("picture {index}"))
    }

    /// The figures so far.
    pub fn figures(&self) -> Figures {
        self.tally.figures()
    }
}

/// A detector whose every box is noted: the pipeline takes only those with a good score.
struct Overheard {
    detector: Box<dyn Detector>,
    notes: Arc<Mutex<Notes>>,
}

impl Detector for Overheard {
    fn detect(&mut self, frame: &Frame) -> Result<Vec<PersonBox>> {
        let boxes = self.detector.detect(frame)?;
        lock(&self.notes).boxes = Some(boxes.clone());
        Ok(boxes)
    }
}

/// RootNet, if it is there, with the depth of the true person whose processed box is nearest to the patch's.
struct TrueDepths {
    root: Option<Box<dyn RootEstimator>>,
    /// Side of the patches where there is no RootNet: the estimator's.
    size: u32,
    notes: Arc<Mutex<Notes>>,
}

impl RootEstimator for TrueDepths {
    fn input_size(&self) -> u32 {
        self.root.as_ref().map_or(self.size, |root| root.input_size())
    }

    fn estimate(&mut self, patches: &[RgbImage], crops: &[Crop], camera: &Intrinsics) -> Result<Vec<RootInCrop>> {
        let mut roots = match &mut self.root {
            Some(root) => root.estimate(patches, crops, camera)?,
            // The middle of the patch, and no depth for somebody who is not there.
            None => crops
                .iter()
                .map(|crop| RootInCrop { crop_px: Vec2::splat(crop.size as f32 * 0.5), depth_m: f32::NAN })
                .collect(),
        };
        let notes = lock(&self.notes);
        let Some(truth) = &notes.truth else { return Ok(roots) };
        let [width, height] = truth.size;
        for (root, crop) in roots.iter_mut().zip(crops) {
            let shared = truth.people.iter().filter_map(|person| {
                let rect = process_bbox(person.visible_rect?, width, height)?;
                Some((rect.iou(&crop.rect), person.root_camera_m().z))
            });
            let best = shared.max_by(|a, b| a.0.total_cmp(&b.0)).filter(|(iou, _)| *iou >= LEAST_IOU);
            if let Some((_, depth_m)) = best.filter(|(_, depth_m)| depth_m.is_finite()) {
                root.depth_m = depth_m;
            }
        }
        Ok(roots)
    }
}
