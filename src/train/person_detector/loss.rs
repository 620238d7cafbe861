//! How wrong the detector is: quality focal loss of the scores (Li et al., NeurIPS 2020, eq. 4) and generalised
//! intersection over union of the boxes (Rezatofighi et al., CVPR 2019), with gradients by candle.

use anyhow::{Result, ensure};
use candle_core::{D, Device, Result as CandleResult, Tensor};
use candle_nn::ops::sigmoid;

use super::targets::Cell;
use crate::nets::person_detector::{LOG_SIZE, OUTPUTS, SCORE_PRIOR, STRIDE, TYPICAL_PX};

/// What the boxes weigh beside the scores, as in the paper.
const BOX_WEIGHT: f64 = 2.0;

/// What the cells of B pictures are to say. N cells each.
pub struct Batch {
    /// `[B, N, 4]`: left, top, right, bottom; anything where nobody is.
    corners: Tensor,
    /// `[B, N]`: 1 in the middle of somebody.
    is_person: Tensor,
    /// `[B, N]`: 0 where anything may be said.
    counts: Tensor,
    /// `[B, N]`: what the box weighs; adds up to the number of people.
    share: Tensor,
    /// Cells in the middle of somebody, at least 1.
    cells: f64,
    /// People, at least 1.
    people: f64,
}

impl Batch {
    /// From the cells of each picture, all of one size.
    pub fn new(pictures: &[Vec<Cell>], device: &Device) -> Result<Self> {
        let (batch, count) = (pictures.len(), pictures.first().map_or(0, Vec::len));
        ensure!(count > 0 && pictures.iter().all(|cells| cells.len() == count), "pictures of one batch have one size");
        let all = || pictures.iter().flatten();
        let corners = all().flat_map(|cell| match *cell {
            Cell::Person { corners, .. } => corners,
            _ => [0.0, 0.0, 1.0, 1.0],
        });
        let share = |cell: &Cell| if let Cell::Person { share, .. } = cell { *share } else { 0.0 };
        let tensor = |values: Vec<f32>| Tensor::from_vec(values, (batch, count), device);
        let shares: Vec<f32> = all().map(share).collect();
        Ok(Self {
            corners: Tensor::from_vec(corners.collect::<Vec<f32>>(), (batch, count, 4), device)?,
            is_person: tensor(shares.iter().map(|share| f32::from(*share > 0.0)).collect())?,
            counts: tensor(all().map(|cell| f32::from(*cell != Cell::Anything)).collect())?,
            cells: shares.iter().filter(|share| **share > 0.0).count().max(1) as f64,
            people: f64::from(shares.iter().sum::<f32>().max(1.0)),
            share: tensor(shares)?,
        })
    }
}

/// The loss of a batch.
pub struct DetectionLoss {
    /// What is to become smaller.
    pub total: Tensor,
    /// The part of the scores, for a cell in the middle of somebody.
    pub score: Tensor,
    /// The part of the boxes, for a person: 0 where they fit, 2 at most.
    pub boxes: Tensor,
    /// Mean overlap of the boxes with the truth, for a person: between 0 and 1.
    pub iou: Tensor,
}

/// `said [B, rows, columns, 5]`, what the network says.
pub fn detection_loss(said: &Tensor, batch: &Batch) -> CandleResult<DetectionLoss> {
    let (b, rows, columns, _) = said.dims4()?;
    let said = said.reshape((b, rows * columns, OUTPUTS))?;
    let [iou, giou] = overlaps(&predicted_corners(&said, [columns, rows])?, &batch.corners)?;
    let per_person = |values: &Tensor| (values * &batch.share)?.sum_all()? / batch.people;
    let boxes = per_person(&(1.0 - giou)?)?;
    let iou = iou.detach();
    let logits = (said.narrow(2, 0, 1)?.squeeze(2)? + f64::from(SCORE_PRIOR))?;
    let quality = (&iou * &batch.is_person)?;
    let score = ((quality_focal(&logits, &quality)? * &batch.counts)?.sum_all()? / batch.cells)?;
    let total = (&score + (&boxes * BOX_WEIGHT)?)?;
    let iou = per_person(&iou)?;
    Ok(DetectionLoss { total, score, boxes, iou })
}

/// `|quality - sigmoid(logit)|^2` times their cross-entropy, element by element.
fn quality_focal(logits: &Tensor, quality: &Tensor) -> CandleResult<Tensor> {
    // ln(1 + e^x) - q x, so that nothing overflows.
    let softplus = (logits.relu()? + (logits.abs()?.neg()?.exp()? + 1.0)?.log()?)?;
    let entropy = (softplus - (logits * quality)?)?;
    (sigmoid(logits)? - quality)?.sqr()? * entropy
}

/// The boxes that cells mean, `[B, N, 5] -> [B, N, 4]`; see [`corners`](crate::nets::person_detector::corners).
fn predicted_corners(said: &Tensor, [columns, rows]: [usize; 2]) -> CandleResult<Tensor> {
    let device = said.device();
    let centre = |count: usize| (Tensor::arange(0.0, count as f32, device)? + 0.5)? * STRIDE as f64;
    let x = centre(columns)?.unsqueeze(0)?.broadcast_as((rows, columns))?;
    let y = centre(rows)?.unsqueeze(1)?.broadcast_as((rows, columns))?;
    let centres = Tensor::stack(&[x, y], 2)?.reshape((1, rows * columns, 2))?;
    let typical = Tensor::from_slice(&TYPICAL_PX, (1, 1, 2), device)?;
    let sides = said.narrow(2, 3, 2)?.clamp(LOG_SIZE[0], LOG_SIZE[1])?.exp()?.broadcast_mul(&typical)?;
    let middle = (said.narrow(2, 1, 2)? * &sides)?.broadcast_add(&centres)?;
    let half = (sides * 0.5)?;
    Tensor::cat(&[(&middle - &half)?, (middle + half)?], 2)
}

/// Intersection over union, and the generalised one, of corresponding boxes: `[B, N, 4] x 2 -> [B, N] x 2`.
fn overlaps(a: &Tensor, b: &Tensor) -> CandleResult<[Tensor; 2]> {
    let (a0, a1) = (a.narrow(2, 0, 2)?, a.narrow(2, 2, 2)?);
    let (b0, b1) = (b.narrow(2, 0, 2)?, b.narrow(2, 2, 2)?);
    // Sides [B, N, 2] to areas [B, N].
    let area = |sides: Tensor| sides.narrow(D::Minus1, 0, 1)?.mul(&sides.narrow(D::Minus1, 1, 1)?)?.squeeze(2);
    let both = area((a1.minimum(&b1)? - a0.maximum(&b0)?)?.relu()?)?;
    let union = ((area((&a1 - &a0)?)? + area((&b1 - &b0)?)?)? - &both)?;
    let around = area((a1.maximum(&b1)? - a0.minimum(&b0)?)?)?;
    let iou = (both / &union)?;
    let giou = (&iou - ((&around - &union)? / &around)?)?;
    Ok([iou, giou])
}

#[cfg(test)]
mod tests {
    use candle_core::Var;

    use super::super::targets::{Target, cells};
    use super::*;
    use crate::detect::nms;
    use crate::nets::person_detector::corners;

    /// Numbers between -1 and 1 that look random.
    fn numbers(count: usize) -> Vec<f32> {
        (0..count).map(|i| ((i * 7919 + 13) % 1009) as f32 / 504.0 - 1.0).collect()
    }

    fn grid() -> (Tensor, Batch) {
        let people = [
            Target { corners: [5.0, 3.0, 30.0, 60.0], counts: true },
            Target { corners: [40.0, 20.0, 70.0, 64.0], counts: true },
            Target { corners: [70.0, 0.0, 90.0, 20.0], counts: false },
        ];
        let batch = Batch::new(&[cells(&people, [12, 8]), cells(&[], [12, 8])], &Device::Cpu).unwrap();
        let said = Tensor::from_vec(numbers(2 * 8 * 12 * 5), (2, 8, 12, 5), &Device::Cpu).unwrap();
        (said, batch)
    }

    #[test]
    fn boxes_are_those_of_inference() -> Result<()> {
        let (said, _) = grid();
        let found: Vec<Vec<f32>> = predicted_corners(&said.reshape((2, 96, 5))?, [12, 8])?.get(1)?.to_vec2()?;
        let said: Vec<Vec<f32>> = said.get(1)?.reshape((96, 5))?.to_vec2()?;
        for (cell, (found, said)) in found.iter().zip(&said).enumerate() {
            let expected = corners([cell % 12, cell / 12], [said[1], said[2], said[3], said[4]]);
            assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-4), "{found:?} {expected:?}");
        }
        Ok(())
    }

    #[test]
    fn overlaps_are_those_of_hand() -> Result<()> {
        let a = Tensor::new(&[[[0_f32, 0.0, 2.0, 2.0], [0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 4.0, 3.0]]], &Device::Cpu)?;
        let b = Tensor::new(&[[[1_f32, 0.0, 3.0, 2.0], [3.0, 0.0, 4.0, 1.0], [1.0, 1.0, 3.0, 3.0]]], &Device::Cpu)?;
        let [iou, giou] = overlaps(&a, &b)?;
        // Half of each: no empty room. Apart: 2 of 4 are empty. Within: as the overlap.
        assert_eq!(iou.to_vec2::<f32>()?, [[2.0 / 6.0, 0.0, 4.0 / 12.0]]);
        assert_eq!(giou.to_vec2::<f32>()?, [[2.0 / 6.0, -0.5, 4.0 / 12.0]]);
        let pair = [[0.0, 0.0, 4.0, 3.0], [1.0, 1.0, 3.0, 3.0]];
        assert_eq!(nms::iou(pair[0], pair[1]), 4.0 / 12.0);
        Ok(())
    }

    #[test]
    fn the_scores_loss_is_the_papers() -> Result<()> {
        let logits = Tensor::new(&[0_f32, 2.0, -3.0, 90.0, -90.0], &Device::Cpu)?;
        let quality = Tensor::new(&[0.5_f32, 0.0, 0.9, 1.0, 1.0], &Device::Cpu)?;
        let found = quality_focal(&logits, &quality)?.to_vec1::<f32>()?;
        let expected = [(0.0_f64, 0.5_f64), (2.0, 0.0), (-3.0, 0.9), (90.0, 1.0), (-90.0, 1.0)].map(|(x, q)| {
            let p = 1.0 / (1.0 + (-x).exp());
            // Where the sigmoid is 0 or 1 in f64, its logarithm is the logit or 0.
            let (log_p, log_not) = (-(-x).exp().ln_1p(), -x.exp().ln_1p());
            -(q - p).powi(2) * (q * log_p + (1.0 - q) * log_not)
        });
        for (found, expected) in found.iter().zip(expected) {
            assert!((f64::from(*found) - expected).abs() < 1e-5 * (1.0 + expected), "{found} {expected}");
        }
        Ok(())
    }

    #[test]
    fn gradients_are_finite_differences() -> Result<()> {
        let (said, batch) = grid();
        let said = Var::from_tensor(&said)?;
        let gradient: Vec<f32> = {
            let grads = detection_loss(&said, &batch)?.total.backward()?;
            grads.get(&said).expect("the loss depends on what is said").flatten_all()?.to_vec1()?
        };
        let values: Vec<f32> = said.flatten_all()?.to_vec1()?;
        // The overlap that the score is to be is no path of the gradient: it is held while scores are checked, and
        // the scores' part is left out while boxes are.
        let loss_at = |at: usize, value: f32| -> Result<f64> {
            let mut values = values.clone();
            values[at] = value;
            let loss = detection_loss(&Tensor::from_vec(values, said.shape(), &Device::Cpu)?, &batch)?;
            let part = if at.is_multiple_of(5) { loss.score } else { (loss.boxes * BOX_WEIGHT)? };
            Ok(f64::from(part.to_scalar::<f32>()?))
        };
        let (mut checked, step) = (0, 2e-3);
        let steep = |at: &usize| gradient[*at].abs() > 0.02 || at.is_multiple_of(17);
        for at in (0..values.len()).filter(steep) {
            let slope = (loss_at(at, values[at] + step)? - loss_at(at, values[at] - step)?) / (2.0 * f64::from(step));
            // Sums of f32 around 5 have errors of 1e-6, a step of 2e-3 makes that 5e-4; corners of the overlap's
            // minima and maxima may lie within a step.
            let error = (f64::from(gradient[at]) - slope).abs();
            assert!(error < 2e-3 + 0.03 * slope.abs(), "{at}: {} for {slope}", gradient[at]);
            checked += usize::from(slope.abs() > 0.02);
        }
        assert!(checked > 12, "{checked} gradients that are not 0");
        Ok(())
    }

    #[test]
    fn the_truth_costs_nothing_and_ignored_people_neither() -> Result<()> {
        let (_, batch) = grid();
        let people = cells(&[Target { corners: [70.0, 0.0, 90.0, 20.0], counts: false }], [12, 8]);
        let at = people.iter().position(|cell| *cell == Cell::Anything).expect("somebody is hardly seen");
        let mut said = vec![0.0; 2 * 96 * 5];
        // Everywhere nobody, and at one cell of the second picture somebody.
        said.iter_mut().step_by(5).for_each(|logit| *logit = -20.0);
        let loss = |said: &[f32], batch: &Batch| -> Result<[f32; 2]> {
            let loss = detection_loss(&Tensor::from_slice(said, (2, 8, 12, 5), &Device::Cpu)?, batch)?;
            Ok([loss.score.to_scalar()?, loss.boxes.to_scalar()?])
        };
        let nobody = Batch::new(&[people.clone(), people], &Device::Cpu)?;
        assert!(loss(&said, &nobody)?[0] < 1e-6);
        said[(96 + at) * 5] = 20.0;
        assert!(loss(&said, &nobody)?[0] < 1e-6, "anything may be said there");
        assert!(loss(&said, &batch)?[0] > 1.0, "nobody is there");
        // The true boxes.
        let first = cells(&[Target { corners: [5.0, 3.0, 30.0, 60.0], counts: true }], [12, 8]);
        for (cell, said) in first.iter().zip(said.chunks_exact_mut(5)) {
            if let Cell::Person { corners: [x0, y0, x1, y1], .. } = *cell {
                let at = first.iter().position(|other| std::ptr::eq(other, cell)).expect("it is one of them");
                let [cx, cy] = crate::nets::person_detector::cell_centre([at % 12, at / 12]);
                let (w, h) = (x1 - x0, y1 - y0);
                let place = [(f32::midpoint(x0, x1) - cx) / w, (f32::midpoint(y0, y1) - cy) / h];
                said.copy_from_slice(&[40.0, place[0], place[1], (w / 32.0).ln(), (h / 80.0).ln()]);
            }
        }
        let one = Batch::new(&[first, cells(&[], [12, 8])], &Device::Cpu)?;
        said[(96 + at) * 5] = -20.0;
        let [score, boxes] = loss(&said, &one)?;
        assert!(score < 1e-6 && boxes < 1e-5, "{score} {boxes}");
        Ok(())
    }
}
