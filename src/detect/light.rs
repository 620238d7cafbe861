//! The project's own one-stage network as a detector of people.

use anyhow::{Context, Result};

use super::{Detector, PersonBox};
use crate::capture::Frame;
use crate::nets::person_detector::PersonDetector;

/// Finds people, and nothing else.
pub struct LightDetector(PersonDetector);

impl LightDetector {
    /// Finds people with this network.
    pub fn new(net: PersonDetector) -> Self {
        Self(net)
    }
}

impl Detector for LightDetector {
    fn detect(&mut self, frame: &Frame) -> Result<Vec<PersonBox>> {
        self.0.detect(&frame.rgb).with_context(|| format!("the light detector failed on frame {}", frame.index))
    }
}
