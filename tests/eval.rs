//! `lixelscope eval`, and the datasets that it reads: truth as a prediction has no error, known errors give known
//! figures, what `synth` writes is what is read back, and files from elsewhere are understood or refused.

#[path = "support/mod.rs"]
mod support;

#[path = "eval/datasets.rs"]
mod datasets;
#[path = "eval/figures.rs"]
mod figures;
#[path = "eval/program.rs"]
mod program;

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use lixelscope::capture::Frame;
use lixelscope::synth::{Kind, Photo, Studio};

static STUDIO: LazyLock<Arc<Studio>> = LazyLock::new(|| Studio::new().expect("the stand-in body is always there"));

const SIZE: [u32; 2] = [160, 120];

/// Pictures of both kinds with their truth.
fn frames(count: u64) -> Vec<Frame> {
    let sample = |seed: u64| {
        let kind = if seed.is_multiple_of(2) { Kind::Scenes } else { Kind::Poses };
        let Photo { rgb, truth } = STUDIO.sample(kind, seed, SIZE).unwrap();
        Frame { rgb, index: seed, captured_at: Duration::ZERO, name: None, truth: Some(Arc::new(truth)) }
    };
    (0..count).map(sample).collect()
}
