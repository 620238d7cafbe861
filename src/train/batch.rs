//! Batches of views as tensors, and what is wrong with the joints that a network found in them.

use std::borrow::Cow;
use std::sync::OnceLock;

use anyhow::Result;
use candle_core::{Device, Result as CandleResult, Tensor};
use glam::{DVec3, Vec3};

use super::people::View;
use crate::body::Family;
use crate::eval::metrics;
use crate::nets::input::patches_tensor;
use crate::synth::Kind;

/// A tensor that never changes, on the processor and, once it was wanted there, on a GPU.
pub struct Constant(Tensor, OnceLock<Tensor>);

impl Constant {
    /// From the processor's.
    pub fn new(tensor: Tensor) -> Self {
        Self(tensor, OnceLock::new())
    }

    /// On a device. The first GPU's copy is kept: a training has one.
    pub fn on(&self, device: &Device) -> CandleResult<Tensor> {
        if let Some(there) =
            [Some(&self.0), self.1.get()].into_iter().flatten().find(|t| t.device().same_device(device))
        {
            return Ok(there.clone());
        }
        let there = self.0.to_device(device)?;
        let _ = self.1.set(there.clone()); // There may be another GPU's.
        Ok(there)
    }
}

/// What the networks read, `[B, 3, H, W]`, RGB in `0..=255`.
pub fn patches(batch: &[&View], device: &Device) -> Result<Tensor> {
    let patches: Vec<_> = batch.iter().map(|view| view.patch.clone()).collect();
    patches_tensor(&patches, device)
}

/// Where points are in lixels of so many bins, `[B, N, 3]`, and whether they are in the volume of the heatmaps,
/// `[B, N, 1]`: 1 or 0.
pub fn targets<'a>(
    batch: &[&'a View],
    device: &Device,
    bins: usize,
    points: impl Fn(&'a View) -> Cow<'a, [Vec3]>,
) -> Result<[Tensor; 2]> {
    let (mut targets, mut valid) = (Vec::new(), Vec::new());
    for view in batch {
        for p in view.lixels(&points(view), bins) {
            targets.extend(p.to_array());
            let inside = p.cmpge(Vec3::ZERO).all() && p.cmple(Vec3::splat((bins - 1) as f32)).all();
            valid.push(f32::from(u8::from(inside)));
        }
    }
    let (people, count) = (batch.len(), valid.len() / batch.len());
    let targets = Tensor::from_vec(targets, (people, count, 3), device)?;
    Ok([targets, Tensor::from_vec(valid, (people, count, 1), device)?])
}

/// Metres to the millimetres of the papers' metrics.
pub fn mm(points_m: &[Vec3]) -> Vec<DVec3> {
    points_m.iter().map(|p| p.as_dvec3() * 1000.0).collect()
}

/// Where a kind of scenes has its errors among those of its family.
pub fn place(kind: Kind) -> usize {
    match kind {
        Kind::Scenes | Kind::Hands => 0,
        Kind::Poses => 1,
        Kind::Postures => 2,
    }
}

/// MPJPE and PA-MPJPE of all kinds of scenes, as sums and counts.
pub struct JointErrors(Vec<(&'static str, f64, usize)>);

impl JointErrors {
    /// No errors yet, of the kinds of scenes that there are of people or of hands.
    pub fn of(family: Family) -> Self {
        let names: &[_] = match family {
            Family::Smpl => &[
                "scenes_mpjpe_mm",
                "scenes_pa_mpjpe_mm",
                "poses_mpjpe_mm",
                "poses_pa_mpjpe_mm",
                "postures_mpjpe_mm",
                "postures_pa_mpjpe_mm",
            ],
            Family::Mano => &["hands_mpjpe_mm", "hands_pa_mpjpe_mm"],
        };
        Self(names.iter().map(|name| (*name, 0.0, 0)).collect())
    }

    /// Those of a person, whose joints are moved together at `root`.
    pub fn add(&mut self, kind: Kind, found_mm: &[DVec3], truth_mm: &[DVec3], root: usize) -> Result<()> {
        let errors = [metrics::mpjpe(found_mm, truth_mm, root)?, metrics::pa_mpjpe(found_mm, truth_mm)?];
        for (sum, error) in self.0[2 * place(kind)..].iter_mut().zip(errors) {
            sum.1 += error;
            sum.2 += 1;
        }
        Ok(())
    }

    /// Names, sums and counts.
    pub fn sums(self) -> Vec<(&'static str, f64, usize)> {
        self.0
    }
}
