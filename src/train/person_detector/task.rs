//! The light detector's training.

use std::sync::Arc;

use anyhow::Result;
use candle_core::{Device, Tensor};
use image::RgbImage;

use super::PersonDetector;
use super::loss::{Batch, detection_loss};
use super::pictures::{self, SIZE_PX, Sample};
use super::targets::cells;
use crate::body::Family;
use crate::detect::nms::iou;
use crate::nets::input::patches_tensor;
use crate::nets::person_detector::{Config, STRIDE, input, people};
use crate::synth::{Kind, Studio};
use crate::train::layers::Pass;
use crate::train::params::Params;
use crate::train::task::{Loss, Task};

/// The score from which a box is shown.
const SHOWN: f32 = 0.5;

/// See the module.
pub struct DetectorTask {
    studio: Arc<Studio>,
    network: PersonDetector,
}

impl DetectorTask {
    /// The task and its network's parameters as they begin, for people or for hands. Takes a second.
    pub fn new(of: Family, seed: u64) -> Result<(Self, Params)> {
        let (params, network) = Params::build(seed, PersonDetector::new);
        Ok((Self { studio: Studio::of(of)?, network }, params))
    }

    /// What the cells say of the pictures, `[B, rows, columns, 5]`.
    fn forward(&self, pass: &Pass, batch: &[&Sample]) -> Result<Tensor> {
        let pictures: Vec<_> = batch.iter().map(|sample| &sample.picture).collect();
        let device = pass.device();
        let pictures =
            if device.is_cpu() { input(&pictures, &device)?.to_tensor()? } else { input_by_bytes(&pictures, &device)? };
        Ok(self.network.forward(pass, &pictures)?)
    }
}

/// The twin of [`input`] whose pictures cross to the device as bytes.
fn input_by_bytes(pictures: &[&RgbImage], device: &Device) -> Result<Tensor> {
    let pictures: Vec<RgbImage> = pictures.iter().map(|&picture| picture.clone()).collect();
    Ok(((patches_tensor(&pictures, device)? - 114.0)? / 60.0)?)
}

impl Task for DetectorTask {
    type Sample = Sample;

    fn block(&self, number: u64) -> Result<Vec<Sample>> {
        pictures::block(&self.studio, number)
    }

    fn loss(&self, pass: &Pass, batch: &[&Sample]) -> Result<Loss> {
        let grid = SIZE_PX.map(|side| side / STRIDE);
        let targets: Vec<_> = batch.iter().map(|sample| cells(&sample.people, grid)).collect();
        let loss = detection_loss(&self.forward(pass, batch)?, &Batch::new(&targets, &pass.device())?)?;
        Ok(Loss { total: loss.total, parts: vec![("score", loss.score), ("boxes", loss.boxes), ("iou", loss.iou)] })
    }

    /// People who are found, with an overlap of a half and of three quarters, and boxes that are right, in percent; of
    /// the boxes that would be shown.
    fn errors(&self, pass: &Pass, batch: &[&Sample]) -> Result<Vec<(&'static str, f64, usize)>> {
        let said = self.forward(pass, batch)?.permute((0, 3, 1, 2))?; // [B, 5, rows, columns]
        let (_, _, rows, columns) = said.dims4()?;
        let config = Config { score_threshold: SHOWN, ..Config::default() };
        let [mut moving, mut poses, mut tight, mut right] = [(0.0, 0); 4];
        for (sample, said) in batch.iter().zip(said.contiguous()?.flatten_from(1)?.to_vec2()?) {
            let found = people(&said, [columns, rows], &config);
            let overlap = |person: &super::targets::Target| {
                found.iter().map(|(corners, _)| iou(*corners, person.corners)).fold(0.0, f32::max)
            };
            let all = if sample.kind == Kind::Poses { &mut poses } else { &mut moving };
            for person in sample.people.iter().filter(|person| person.counts) {
                let overlap = overlap(person);
                for (sum, least) in [(&mut *all, 0.5), (&mut tight, 0.75)] {
                    *sum = (sum.0 + f64::from(u8::from(overlap >= least)), sum.1 + 1);
                }
            }
            for (corners, _) in &found {
                // Somebody who hardly can be seen is no mistake.
                let is_right = sample.people.iter().any(|person| iou(*corners, person.corners) >= 0.5);
                right = (right.0 + f64::from(u8::from(is_right)), right.1 + 1);
            }
        }
        let mut named = match self.studio.body().family() {
            Family::Smpl => vec![("scenes_found_percent", moving), ("poses_found_percent", poses)],
            Family::Mano => vec![("hands_found_percent", moving)],
        };
        named.extend([("tightly_found_percent", tight), ("right_percent", right)]);
        Ok(named.into_iter().map(|(name, (sum, count))| (name, sum * 100.0, count)).collect())
    }

    fn learns(&self) -> String {
        self.studio.body().family().name().to_owned()
    }

    fn config_json(&self) -> String {
        format!(r#"{{"input": {}}}"#, SIZE_PX[0])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_the_same_by_bytes() -> Result<()> {
        let picture = |seed: u32| RgbImage::from_fn(64, 32, |x, y| image::Rgb([x as u8 * 3, (y + seed) as u8, 7]));
        let pictures = [&picture(1), &picture(90)];
        let expected = input(&pictures, &Device::Cpu)?.to_tensor()?;
        let off = (input_by_bytes(&pictures, &Device::Cpu)? - &expected)?.abs()?.max_all()?.to_scalar::<f32>()?;
        // A division against a product with the reciprocal, of numbers up to 2.
        assert!(off < 1e-6, "{off}");
        Ok(())
    }
}
