//! What several test binaries share: formula weights (see `tests/golden/README.md`) and where the golden files are.
//!
//! Use it with `#[path = "../support/mod.rs"] mod support;`.

// Each test binary uses its own part of this.
#![allow(dead_code)]

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use lixelscope::nets::Precision;
use rayon::prelude::*;
use serde::Deserialize;

pub mod models;

/// Tensors by name.
pub type Tensors = HashMap<String, Tensor>;

/// What a network's weights look like: every tensor's name, shape and the two numbers of its formula.
#[derive(Clone, Debug, Deserialize)]
pub struct Manifest {
    /// Joints of the heads, where the network has any.
    pub joints: Option<usize>,
    /// Vertices of the mesh head.
    pub vertices: Option<usize>,
    /// Depth of the backbone; 50 where nothing is said.
    #[serde(default = "resnet50")]
    pub resnet: usize,
    /// The tensors.
    pub tensors: Vec<ManifestTensor>,
}

fn resnet50() -> usize {
    50
}

/// One tensor of a [`Manifest`].
#[derive(Clone, Debug, Deserialize)]
pub struct ManifestTensor {
    pub name: String,
    pub shape: Vec<usize>,
    pub offset: f64,
    pub scale: f64,
}

impl Manifest {
    /// Reads a `*.manifest.json`.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("parsing {}", path.display()))
    }

    /// The manifest of a case: `<stem>.manifest.json`, or the nearest shorter name (cut at underscores), else the
    /// first that starts with `kind`; in the case's own folder, else in the project's golden folder.
    pub fn of_case(case: &Path, kind: &str) -> Result<Self> {
        let stem = case.file_stem().and_then(|s| s.to_str()).context("a case's file name is text")?;
        let own = case.parent().context("a case is in a folder")?.to_path_buf();
        for folder in [own, project_golden_dir()] {
            let mut name = stem;
            loop {
                let path = folder.join(format!("{name}.manifest.json"));
                if path.is_file() {
                    return Self::read(&path);
                }
                match name.rfind('_') {
                    Some(at) if at >= kind.len() => name = &name[..at],
                    _ => break,
                }
            }
            if let Some(path) = manifest_starting_with(kind, &folder) {
                return Self::read(&path);
            }
        }
        Err(anyhow!("no {kind}*.manifest.json beside the case and none in the project's golden folder"))
    }

    /// The shape of a tensor that must be there.
    pub fn shape(&self, name: &str) -> Result<&[usize]> {
        let tensor = self.tensors.iter().find(|t| t.name == name);
        tensor.map(|t| t.shape.as_slice()).ok_or_else(|| anyhow!("the manifest lists no {name}"))
    }

    /// All weights, made by the formula.
    pub fn weights(&self, device: &Device) -> Result<Tensors> {
        let make = |t: &ManifestTensor| Ok((t.name.clone(), fill(&t.name, t.offset, t.scale, &t.shape, device)?));
        self.tensors.iter().map(make).collect()
    }

    /// The weights as the networks read them.
    pub fn var_builder(&self, device: &Device) -> Result<VarBuilder<'static>> {
        Ok(VarBuilder::from_tensors(self.weights(device)?, DType::F32, device))
    }
}

fn manifest_starting_with(kind: &str, folder: &Path) -> Option<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(folder)
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
            name.starts_with(kind) && name.ends_with(".manifest.json")
        })
        .collect();
    found.sort();
    found.into_iter().next()
}

/// The golden files that ship with the project.
pub fn project_golden_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// The precision of the tests on an NVIDIA GPU: what `LIXELSCOPE_PRECISION` says, else exact f32.
pub fn precision() -> Result<Precision> {
    let Ok(name) = std::env::var("LIXELSCOPE_PRECISION") else { return Ok(Precision::F32) };
    let all = [Precision::F32, Precision::Tf32, Precision::F16, Precision::Bf16];
    let found = all.into_iter().find(|precision| precision.name() == name);
    found.with_context(|| format!("LIXELSCOPE_PRECISION is f32, tf32, f16 or bf16, not {name}"))
}

/// Where the networks of the tests run: the GPU in a build that has a GPU backend, else the processor.
pub fn device() -> Result<Device> {
    if cfg!(feature = "cuda") {
        Ok(lixelscope::nets::open_cuda(0, precision()?)?.0)
    } else if cfg!(feature = "metal") {
        Ok(Device::new_metal(0)?)
    } else {
        Ok(Device::Cpu)
    }
}

/// FNV-1a, 64 bits.
fn fnv1a(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Element `i` of the stream of `seed`, in `[-1, 1)`.
fn unit_at(seed: u64, i: u64) -> f64 {
    let mut z = seed.wrapping_add((i + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^= z >> 31;
    (z >> 40) as f64 / f64::from(1 << 24) * 2.0 - 1.0
}

/// The first `count` values of the stream `name`, in `[-1, 1)`.
pub fn unit(name: &str, count: usize) -> Vec<f64> {
    let seed = fnv1a(name);
    (0..count as u64).map(|i| unit_at(seed, i)).collect()
}

/// `f32(offset + scale * unit(name))` in row-major order.
pub fn fill_vec(name: &str, offset: f64, scale: f64, count: usize) -> Vec<f32> {
    const CHUNK: usize = 1 << 16;
    let seed = fnv1a(name);
    let mut values = vec![0.0; count];
    values.par_chunks_mut(CHUNK).enumerate().for_each(|(chunk, values)| {
        let first = (chunk * CHUNK) as u64;
        for (i, value) in (first..).zip(values) {
            *value = (offset + scale * unit_at(seed, i)) as f32;
        }
    });
    values
}

/// [`fill_vec`] as a tensor.
pub fn fill(name: &str, offset: f64, scale: f64, shape: &[usize], device: &Device) -> Result<Tensor> {
    let values = fill_vec(name, offset, scale, shape.iter().product());
    Ok(Tensor::from_vec(values, shape, device)?)
}

/// The joint regressor of the I2L cases, `J x V`: `abs(unit("joint_regressor"))^8`, rows normalised in f64.
pub fn joint_regressor(joints: usize, vertices: usize, device: &Device) -> Result<Tensor> {
    let mut weights: Vec<f64> = unit("joint_regressor", joints * vertices).iter().map(|v| v.abs().powi(8)).collect();
    for row in weights.chunks_mut(vertices) {
        let sum: f64 = row.iter().sum();
        for weight in row {
            *weight /= sum;
        }
    }
    let weights = weights.into_iter().map(|w| w as f32).collect();
    Ok(Tensor::from_vec(weights, (joints, vertices), device)?)
}
