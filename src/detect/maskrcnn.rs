//! Mask R-CNN as a detector of one class.

use anyhow::{Context, Result};

use super::{Detection, Detector, PersonBox, coco};
use crate::capture::Frame;
use crate::nets::maskrcnn::{MaskRcnn, Query};

/// Finds objects of one class, people unless told otherwise.
pub struct MaskRcnnDetector {
    net: MaskRcnn,
    label: u32,
}

impl MaskRcnnDetector {
    /// Finds people.
    pub fn new(net: MaskRcnn) -> Self {
        Self { net, label: coco::PERSON }
    }

    /// Finds another class, by its label in [`coco::NAMES`] (see [`coco::label`]).
    #[must_use]
    pub fn with_label(self, label: u32) -> Self {
        Self { label, ..self }
    }

    /// Drops boxes up to this score; the network's own threshold otherwise. A tracker does better with weak boxes than without, so leave it below the
    /// score from which people are shown.
    #[must_use]
    pub fn with_score_threshold(mut self, score_threshold: f32) -> Self {
        self.net.config.score_threshold = score_threshold;
        self
    }

    /// The objects with their labels, best first, and with their masks where asked for.
    pub fn detections(&self, frame: &Frame, masks: bool) -> Result<Vec<Detection>> {
        let query = Query { labels: Some(&[self.label]), masks };
        self.net.detect(&frame.rgb, query).with_context(|| format!("Mask R-CNN failed on frame {}", frame.index))
    }
}

impl Detector for MaskRcnnDetector {
    fn detect(&mut self, frame: &Frame) -> Result<Vec<PersonBox>> {
        let found = self.detections(frame, false)?;
        Ok(found.into_iter().map(|d| PersonBox { rect: d.rect, score: d.score }).collect())
    }
}
