//! What made the results in a folder: `run.json`. Figures can only be compared when one knows whose weights they are of.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::models::Weights;
use crate::result::{EstimatorKind, MeshSource};
use crate::settings::Backend;

/// The content of `run.json`.
#[derive(Debug, Serialize)]
pub struct Manifest<'a> {
    /// Of the program.
    pub version: &'static str,
    /// In words.
    pub source: &'a str,
    /// What was asked for.
    pub backend: Backend,
    /// Which network made bodies.
    pub estimator: EstimatorKind,
    /// Which mesh was written.
    pub mesh: MeshSource,
    /// Every network's weights: a role, and a file or "built in".
    pub weights: &'a [Weights],
}

impl Manifest<'_> {
    /// Writes it into a folder.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let path = folder.join("run.json");
        let text = serde_json::to_string_pretty(self)?;
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    }
}
