//! Comparing with expected numbers: how a deviation is measured, and what is allowed.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result, bail};
use candle_core::{DType, Device, Tensor};

use lixelscope::nets::Precision;

use crate::support::{self, Tensors};

/// The largest deviation that is allowed, and its unit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerance {
    limit: f64,
    unit: &'static str,
}

impl Tolerance {
    /// Features: 1e-3 of the largest magnitude in the tensor. Fifty layers of f32 sums in another order differ by
    /// some 1e-5 of it; an elementwise measure would ask small sums of large terms for digits that f32 has lost.
    pub const FEATURE: Self = Self::new(1e-3, "rel");
    /// Coordinates in heatmap bins.
    pub const BINS: Self = Self::new(0.01, "bins");
    /// Boxes, in pixels of the frame.
    pub const BOX_PX: Self = Self::new(0.05, "px");
    /// Scores.
    pub const SCORE: Self = Self::new(1e-3, "");

    /// A limit of the case's own; say why where it is used.
    pub const fn new(limit: f64, unit: &'static str) -> Self {
        Self { limit, unit }
    }

    /// True for a deviation that is divided by the largest magnitude expected.
    fn is_relative(self) -> bool {
        self.unit == "rel"
    }
}

/// How much coarser the numbers are than f32, where an NVIDIA GPU computes with others. A factor with 10 bits of fraction
/// is rounded by 2^-11, which adds up over 50 layers as their square root to some 3.5e-3 of a feature: 20 times the 1e-3
/// leaves room for five times that. 7 bits are eight times coarser.
fn coarseness() -> f64 {
    if !cfg!(feature = "cuda") {
        return 1.0;
    }
    match support::precision() {
        Ok(Precision::Tf32 | Precision::F16) => 20.0,
        Ok(Precision::Bf16) => 160.0,
        _ => 1.0,
    }
}

/// The largest deviation of each stage of a case.
#[derive(Debug, Default)]
pub struct Report {
    stages: Vec<(String, f64, Tolerance)>,
    not_compared: Vec<String>,
}

impl Report {
    /// Notes a stage's largest deviation.
    pub fn check(&mut self, stage: &str, deviation: f64, tolerance: Tolerance) {
        let tolerance = Tolerance { limit: tolerance.limit * coarseness(), ..tolerance };
        self.stages.push((stage.to_owned(), deviation, tolerance));
    }

    /// Compares numbers with the expected ones. Relative tolerances are of the largest magnitude expected.
    pub fn compare(&mut self, stage: &str, actual: &[f64], expected: &[f64], tolerance: Tolerance) -> Result<()> {
        if actual.len() != expected.len() {
            bail!("{stage}: {} numbers where {} are expected", actual.len(), expected.len());
        }
        // `max` would drop a NaN; here it must win.
        let worst = |a: f64, b: f64| if b.is_nan() || b > a { b } else { a };
        let mut deviation = actual.iter().zip(expected).map(|(a, e)| (a - e).abs()).fold(0.0, worst);
        if tolerance.is_relative() {
            let largest = expected.iter().map(|e| e.abs()).fold(0.0, worst);
            deviation /= largest.max(f64::MIN_POSITIVE);
        }
        self.check(stage, deviation, tolerance);
        Ok(())
    }

    /// The line of stages of a case that agrees; the deviating stages as an error otherwise.
    pub fn finish(self) -> Result<String> {
        if self.stages.is_empty() {
            bail!("nothing was compared");
        }
        let say = |(stage, deviation, Tolerance { limit, unit }): &(String, f64, Tolerance)| {
            let space = if unit.is_empty() { "" } else { " " };
            (format!("{stage} {deviation:.1e}{space}{unit}"), *deviation <= *limit, *limit)
        };
        let said: Vec<_> = self.stages.iter().map(say).collect();
        // A NaN is not below any limit.
        let failed: Vec<_> =
            said.iter().filter(|(_, ok, _)| !ok).map(|(text, _, limit)| format!("{text} (allowed {limit})")).collect();
        if !failed.is_empty() {
            bail!("{}", failed.join(", "));
        }
        let mut line = said.into_iter().map(|(text, ..)| text).collect::<Vec<_>>().join(", ");
        if !self.not_compared.is_empty() {
            line.push_str("; not compared: ");
            line.push_str(&self.not_compared.join(", "));
        }
        Ok(line)
    }
}

/// The tensors of a case's file, with a record of which were asked for.
pub struct Expected {
    tensors: Tensors,
    unused: BTreeSet<String>,
}

impl Expected {
    /// Reads a case's safetensors file.
    pub fn read(path: &Path) -> Result<Self> {
        let tensors = candle_core::safetensors::load(path, &Device::Cpu)
            .with_context(|| format!("reading {}", path.display()))?;
        let unused = tensors.keys().cloned().collect();
        Ok(Self { tensors, unused })
    }

    /// A tensor that the case may leave out.
    pub fn get(&mut self, name: &str) -> Option<Tensor> {
        self.unused.remove(name);
        self.tensors.get(name).cloned()
    }

    /// A tensor that the case cannot do without.
    pub fn tensor(&mut self, name: &str) -> Result<Tensor> {
        self.get(name).with_context(|| format!("the case holds no tensor {name}"))
    }

    /// All elements of a tensor, whatever its type, row-major.
    pub fn numbers(&mut self, name: &str) -> Result<Vec<f64>> {
        numbers(&self.tensor(name)?)
    }

    /// The only element of a tensor.
    pub fn number(&mut self, name: &str) -> Result<f64> {
        match self.numbers(name)?[..] {
            [number] => Ok(number),
            ref many => bail!("{name} holds {} numbers where one is expected", many.len()),
        }
    }

    /// Compares a batch `[B, ...]` with the tensor `name`, where the case has it. The case may leave out the first
    /// axis: then it holds the first of the batch.
    pub fn compare(&mut self, report: &mut Report, name: &str, batch: &Tensor, tolerance: Tolerance) -> Result<()> {
        let Some(expected) = self.get(name) else { return Ok(()) };
        let actual = if batch.elem_count() == expected.elem_count() { batch.clone() } else { batch.get(0)? };
        if actual.elem_count() != expected.elem_count() {
            bail!("{name}: {:?} where {:?} is expected", batch.shape(), expected.shape());
        }
        report.compare(name, &numbers(&actual)?, &numbers(&expected)?, tolerance)
    }

    /// Ends the comparison: the report's line will name the tensors of the case that nobody asked for.
    pub fn finish(self, mut report: Report) -> Report {
        report.not_compared.extend(self.unused);
        report
    }
}

/// All elements of a tensor as f64, row-major.
pub fn numbers(tensor: &Tensor) -> Result<Vec<f64>> {
    Ok(tensor.to_device(&Device::Cpu)?.flatten_all()?.to_dtype(DType::F64)?.to_vec1()?)
}

/// Every `step`-th index of the last axes: `sample(t, &[8, 8])` is `t[..., ::8, ::8]`.
pub fn sample(tensor: &Tensor, steps: &[usize]) -> Result<Tensor> {
    let first = tensor.rank().checked_sub(steps.len()).context("more steps than axes")?;
    let mut tensor = tensor.clone();
    for (axis, &step) in (first..).zip(steps) {
        let indices: Vec<u32> = (0..tensor.dim(axis)? as u32).step_by(step).collect();
        let indices = Tensor::new(indices, tensor.device())?;
        tensor = tensor.contiguous()?.index_select(&indices, axis)?;
    }
    Ok(tensor)
}
