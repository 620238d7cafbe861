//! Mask R-CNN as a detector of one class.

use anyhow::{Context, Result};

use super::{Detection, Detector, PersonBox, coco};
use crate::capture::Frame;
use crate::nets::maskrcnn::{MaskRcnn, Query};

/// Finds objects of one class, people unless told otherwise.
pub struct MaskRcnnDetector {
    net: MaskRcnn,
    label: u32,
    score_threshold: f32,
}

impl MaskRcnnDetector {
    /// Finds people with any score that the network's own threshold lets through.
    pub fn new(net: MaskRcnn) -> Self {
        Self { net, label: coco::PERSON, score_threshold: 0.0 }
    }

    /// Finds another class, by its label in [`coco::NAMES`] (see [`coco::label`]).
    #[must_use]
    pub fn with_label(self, label: u32) -> Self {
        Self { label, ..self }
    }

    /// Drops boxes with a lower score. A tracker does better with weak boxes than without, so leave it below the
    /// score from which people are shown.
    #[must_use]
    pub fn with_score_threshold(self, score_threshold: f32) -> Self {
        Self { score_threshold, ..self }
    }

    /// The objects with their labels, best first, and with their masks where asked for.
    pub fn detections(&self, frame: &Frame, masks: bool) -> Result<Vec<Detection>> {
        let query = Query { labels: Some(&[self.label]), masks };
        let mut found = self
            .net
            .detect(&frame.rgb, query)
            .with_context(|| format!("Mask R-CNN failed on frame {}", frame.index))?;
        found.retain(|d| d.score >= self.score_threshold);
        Ok(found)
    }
}

impl Detector for MaskRcnnDetector {
    fn detect(&mut self, frame: &Frame) -> Result<Vec<PersonBox>> {
        let found = self.detections(frame, false)?;
        Ok(found.into_iter().map(|d| PersonBox { rect: d.rect, score: d.score }).collect())
    }
}
