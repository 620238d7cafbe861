//! The start of somebody who has put the official weights into the models folder: checkpoints of the published sizes,
//! with the body model's buffers that the snapshots carry, are written and then read as the program reads them. What is
//! in them is drawn from a seed.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use candle_core::{DType, Device, Result as CandleResult, Shape, Tensor};
use candle_nn::var_builder::SimpleBackend;
use candle_nn::{Init, VarBuilder};
use safetensors::{Dtype, View, serialize_to_file};
use serde::Serialize;

use super::{body_model, default_path, memory, random};
use crate::body::{Array, Family};
use crate::capture::Frame;
use crate::models::Role;
use crate::nets::NetSizes;
use crate::nets::i2l::{I2l, I2lShape, ParamShape};
use crate::nets::maskrcnn::{self, MaskRcnn};
use crate::nets::rootnet::RootNet;
use crate::nets::weights::BODY_MODEL;
use crate::pipeline::stages::Pass;
use crate::settings::{BoxSource, Settings};
use crate::space::RectPx;

/// Its name among the networks.
pub(super) const NAME: &str = "published_start";

/// Figures of the start.
#[derive(Clone, Debug, Serialize)]
pub struct PublishedStart {
    /// Of the checkpoints: Mask R-CNN, RootNet, I2L-MeshNet. They have just been written, so the system has them in its
    /// cache.
    pub file_mib: f64,
    /// From nothing to the first mesh: loading, one frame searched, one person.
    pub first_mesh_ms: f64,
    /// Of this, the loading.
    pub loading_ms: f64,
    /// Most memory that the process held, with the pages of the one checkpoint that is mapped at a time; `None` where
    /// the system does not tell.
    pub peak_resident_mib: Option<f64>,
    /// Threads of the kernels on the CPU.
    pub threads: usize,
}

impl fmt::Display for PublishedStart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file_mib, first_mesh_ms, loading_ms, peak_resident_mib, .. } = self;
        write!(f, "{NAME:15} checkpoints of {file_mib:.0} MiB: first mesh after {first_mesh_ms:.0} ms")?;
        write!(f, ", {loading_ms:.0} ms of which is loading{}", memory::in_words(*peak_resident_mib))
    }
}

/// Writes the checkpoints into a folder of their own, which goes at the end, and times the start on the device of these
/// settings.
pub(super) fn measure(settings: &Settings) -> Result<PublishedStart> {
    let folder = Folder::new()?;
    let bytes = write(&folder.0).with_context(|| format!("cannot write checkpoints to {}", folder.0.display()))?;
    let rgb = random::picture(640, 480);
    let frame = Arc::new(Frame { rgb, index: 0, captured_at: Duration::ZERO, name: None, truth: None });

    memory::reset_peak();
    let started = Instant::now();
    let settings = Settings { models: folder.0.clone(), ..settings.clone() };
    let mut stages = default_path::load(&settings)?;
    let loading_ms = started.elapsed().as_secs_f64() * 1e3;
    // What the detector finds with such weights is nobody; the person's box is given.
    stages.detector.as_mut().context("no detector")?.detect(&frame)?;
    let boxes = BoxSource::User(vec![RectPx { x: 200.0, y: 60.0, w: 200.0, h: 380.0 }]);
    stages.set_settings(Settings { boxes, ..settings });
    let result = stages.process(frame, Pass::Next)?;
    let first_mesh_ms = started.elapsed().as_secs_f64() * 1e3;
    ensure!(result.people.iter().any(|person| person.mesh.is_some()), "there is no mesh");
    Ok(PublishedStart {
        file_mib: bytes as f64 / f64::from(1 << 20),
        first_mesh_ms,
        loading_ms,
        peak_resident_mib: memory::peak_mib(),
        threads: rayon::current_num_threads(),
    })
}

/// A folder that goes with its value.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("lixelscope-start-{}", std::process::id()));
        fs::create_dir(&path).with_context(|| format!("cannot make the folder {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            log::warn!("{} is left behind: {error}", self.0.display());
        }
    }
}

/// Writes all three; how many bytes they have.
fn write(folder: &Path) -> Result<u64> {
    let params = Some(ParamShape { rotations: 24, shape: body_model::SHAPES });
    let body = I2lShape { joints: 29, vertices: Family::Smpl.vertex_count(), params };
    let mut detector = tensors_of(|vb| MaskRcnn::load(maskrcnn::Config::default(), vb).map(drop))?;
    let mut root = tensors_of(|vb| Ok(RootNet::load(NetSizes::default(), vb).map(drop)?))?;
    let mut mesh = tensors_of(|vb| Ok(I2l::load(NetSizes::default(), body, vb).map(drop)?))?;
    mesh.extend(body_model::arrays(Family::Smpl).into_iter().map(|(entry, array)| {
        let buffer = if entry == "f" { "faces" } else { &entry };
        (format!("{BODY_MODEL}th_{buffer}"), Stored::buffer(&entry, &array))
    }));
    let mut bytes = 0;
    for (role, tensors) in [(Role::Detector, &mut detector), (Role::RootNet, &mut root), (Role::I2lBody, &mut mesh)] {
        let path = folder.join(role.stem()).with_extension("safetensors");
        serialize_to_file(std::mem::take(tensors), None, &path)?;
        bytes += fs::metadata(&path)?.len();
    }
    Ok(bytes)
}

/// A tensor on its way into a file.
struct Stored {
    dtype: Dtype,
    shape: Vec<usize>,
    values: Values,
}

enum Values {
    /// Drawn when the file is written: a weight of this name.
    Drawn(String),
    Given(Vec<u8>),
}

impl Stored {
    /// One of the body model's, in the type that the layer keeps it in.
    fn buffer(entry: &str, array: &Array) -> Self {
        let (dtype, bytes) = if entry == "f" {
            (Dtype::I64, array.data.iter().flat_map(|&v| (v as i64).to_le_bytes()).collect())
        } else {
            (Dtype::F32, array.data.iter().flat_map(|&v| (v as f32).to_le_bytes()).collect())
        };
        Self { dtype, shape: array.shape.clone(), values: Values::Given(bytes) }
    }
}

impl View for Stored {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        match &self.values {
            Values::Given(bytes) => Cow::Borrowed(bytes),
            Values::Drawn(name) => random::weight(name, &self.shape).iter().flat_map(|v| v.to_le_bytes()).collect(),
        }
    }

    fn data_len(&self) -> usize {
        self.shape.iter().product::<usize>() * self.dtype.bitsize() / 8
    }
}

/// All tensors that a network asks for.
fn tensors_of(load: impl FnOnce(&VarBuilder) -> Result<()>) -> Result<HashMap<String, Stored>> {
    let asked = Asked::default();
    load(&VarBuilder::from_backend(Box::new(asked.clone()), DType::F32, Device::Cpu))?;
    let mut asked = asked.0.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(std::mem::take(&mut *asked))
}

/// Notes names and shapes, and gives zeros.
#[derive(Clone, Default)]
struct Asked(Arc<Mutex<HashMap<String, Stored>>>);

impl SimpleBackend for Asked {
    fn get(&self, shape: Shape, name: &str, _: Init, dtype: DType, device: &Device) -> CandleResult<Tensor> {
        let stored = Stored { dtype: Dtype::F32, shape: shape.dims().to_vec(), values: Values::Drawn(name.to_owned()) };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), stored);
        Tensor::zeros(shape, dtype, device)
    }

    fn get_unchecked(&self, name: &str, _: DType, _: &Device) -> CandleResult<Tensor> {
        candle_core::bail!("the shape of {name} is not known")
    }

    fn contains_tensor(&self, _: &str) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nets::layers::{Activation, Linear};
    use crate::nets::weights::WeightFile;

    #[test]
    fn what_a_network_asks_for_is_in_its_file() {
        let load = |vb: &VarBuilder| Ok(Linear::load(5, 3, None, Activation::None, &vb.pp("fc")).map(drop)?);
        let mut tensors = tensors_of(load).unwrap();
        let faces = Array { shape: vec![1, 3], data: vec![2.0, 0.0, 1.0] };
        tensors.insert("faces".to_owned(), Stored::buffer("f", &faces));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("some.safetensors");
        serialize_to_file(tensors, None, &path).unwrap();
        let file = WeightFile::open(&path).unwrap();
        assert_eq!(file.names().collect::<Vec<_>>(), ["faces", "fc.bias", "fc.weight"]);
        let (shape, values) = file.values("fc.weight").unwrap();
        let drawn = random::weight("fc.weight", &[3, 5]);
        assert!(shape == [3, 5] && values.iter().zip(drawn).all(|(value, drawn)| *value == f64::from(drawn)));
        assert_eq!(file.values("faces").unwrap(), (faces.shape, faces.data));
        assert_eq!(file.dtype("faces"), Some(Dtype::I64));
    }
}
