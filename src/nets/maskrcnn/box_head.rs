//! The box head: what a region is, and where exactly.

use anyhow::Result;
use candle_core::{Result as CandleResult, Tensor};
use candle_nn::VarBuilder;
use candle_nn::ops::softmax_last_dim;

use super::fpn::CHANNELS;
use super::{Config, Corners, boxes, host};
use crate::detect::nms;
use crate::nets::layers::{Activation, Linear};

/// Side of the maps that the head reads.
pub const ROI_SIDE: usize = 7;
/// Width of its two hidden layers.
const HIDDEN: usize = 1024;
/// Divisors of its corrections.
const WEIGHTS: boxes::Weights = [10.0, 10.0, 5.0, 5.0];
/// Boxes with a shorter side are dropped, in resized pixels.
const MIN_SIDE: f32 = 1e-2;

/// `roi_heads.box_head` and `roi_heads.box_predictor`.
pub struct BoxHead {
    hidden: [Linear; 2],
    logits: Linear,
    deltas: Linear,
}

/// What the head says about N regions.
pub struct BoxOutput {
    /// `[N, classes]`
    pub logits: Tensor,
    /// `[N, classes * 4]`
    pub deltas: Tensor,
}

/// A box of one class, in resized pixels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScoredBox {
    /// Where.
    pub corners: Corners,
    /// Softmax over the classes.
    pub score: f32,
    /// Index of the class; never 0, the background.
    pub label: u32,
}

impl BoxHead {
    /// Reads `box_head` and `box_predictor` of `vb`.
    pub fn load(classes: usize, vb: &VarBuilder) -> CandleResult<Self> {
        let (head, predictor) = (vb.pp("box_head"), vb.pp("box_predictor"));
        let hidden = |input, name: &str| Linear::load(input, HIDDEN, Activation::Relu, &head.pp(name));
        let last = |output, name: &str| Linear::load(HIDDEN, output, Activation::None, &predictor.pp(name));
        Ok(Self {
            hidden: [hidden(CHANNELS * ROI_SIDE * ROI_SIDE, "fc6")?, hidden(HIDDEN, "fc7")?],
            logits: last(classes, "cls_score")?,
            deltas: last(classes * 4, "bbox_pred")?,
        })
    }

    /// `[N, 256, 7, 7]` to classes and corrections.
    pub fn forward(&self, regions: &Tensor) -> CandleResult<BoxOutput> {
        let [a, b] = &self.hidden;
        let x = b.forward(&a.forward(&regions.flatten_from(1)?)?)?;
        Ok(BoxOutput { logits: self.logits.forward(&x)?, deltas: self.deltas.forward(&x)? })
    }
}

/// The objects among the regions of one picture, best first. Only the classes in `labels`, where it says some.
pub fn select(
    output: &BoxOutput,
    proposals: &[Corners],
    resized: [usize; 2],
    labels: Option<&[u32]>,
    config: &Config,
) -> Result<Vec<ScoredBox>> {
    let (_, classes) = output.logits.dims2()?;
    let scores = host(&softmax_last_dim(&output.logits)?)?;
    let deltas = host(&output.deltas)?;
    let wanted: Vec<usize> = match labels {
        Some(labels) => labels.iter().map(|&l| l as usize).filter(|l| (1..classes).contains(l)).collect(),
        None => (1..classes).collect(),
    };
    let mut found = Vec::new();
    for (region, &proposal) in proposals.iter().enumerate() {
        for &label in &wanted {
            let at = region * classes + label;
            if scores[at] > config.score_threshold {
                let delta = [0, 1, 2, 3].map(|i| deltas[at * 4 + i]);
                let corners = boxes::clip(boxes::decode(proposal, delta, WEIGHTS), resized);
                if boxes::is_larger(corners, MIN_SIDE) {
                    found.push(ScoredBox { corners, score: scores[at], label: label as u32 });
                }
            }
        }
    }
    let corners: Vec<Corners> = found.iter().map(|f| f.corners).collect();
    let scores: Vec<f32> = found.iter().map(|f| f.score).collect();
    let groups: Vec<usize> = found.iter().map(|f| f.label as usize).collect();
    let kept = nms::grouped_nms(&corners, &scores, &groups, config.nms_iou);
    Ok(kept.into_iter().take(config.max_detections).map(|i| found[i]).collect())
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    /// Three regions, three classes: the first two overlap and are of class 1, the third is background with a little
    /// of class 2.
    fn output() -> Result<(BoxOutput, Vec<Corners>)> {
        let logits = [[0.0f32, 3.0, 0.0], [0.0, 4.0, 0.0], [2.0, -9.0, 0.5]];
        let deltas = Tensor::zeros((3, 12), candle_core::DType::F32, &Device::Cpu)?;
        let proposals = vec![[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 11.0], [5.0, 5.0, 90.0, 20.0]];
        Ok((BoxOutput { logits: Tensor::new(&logits, &Device::Cpu)?, deltas }, proposals))
    }

    #[test]
    fn the_best_box_of_each_class_stays_and_is_clipped() -> Result<()> {
        let (output, proposals) = output()?;
        let found = select(&output, &proposals, [50, 60], None, &Config::default())?;
        let seen: Vec<(u32, Corners)> = found.iter().map(|f| (f.label, f.corners)).collect();
        assert_eq!(seen, [(1, [0.0, 0.0, 10.0, 11.0]), (2, [5.0, 5.0, 60.0, 20.0])]);
        let sum = 2.0 + 4.0f32.exp();
        assert!((found[0].score - 4.0f32.exp() / sum).abs() < 1e-6);
        Ok(())
    }

    #[test]
    fn other_classes_do_not_count_against_the_wanted_one() -> Result<()> {
        let (output, proposals) = output()?;
        let config = Config { max_detections: 1, ..Config::default() };
        let found = select(&output, &proposals, [50, 60], Some(&[2]), &config)?;
        assert_eq!(found.iter().map(|f| f.label).collect::<Vec<_>>(), [2]);
        assert!(select(&output, &proposals, [50, 60], Some(&[0, 77]), &config)?.is_empty());
        Ok(())
    }
}
