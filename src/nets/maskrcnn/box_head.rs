//! The box head: what a region is, and where exactly.

use anyhow::Result;
use candle_core::{Result as CandleResult, bail};
use candle_nn::VarBuilder;
use rayon::prelude::*;

use super::fpn::CHANNELS;
use super::{Config, Corners, boxes};
use crate::detect::nms;
use crate::memory::Buffer;
use crate::nets::layers::{Activation, Linear, Values};
#[cfg(feature = "cudnn")]
use crate::nets::layers::{Conv2d, ConvShape, Features};

/// Side of the maps that the head reads.
pub const ROI_SIDE: usize = 7;
/// Width of its two hidden layers.
const HIDDEN: usize = 1024;
/// Divisors of its corrections.
const WEIGHTS: boxes::Weights = [10.0, 10.0, 5.0, 5.0];
/// Boxes with a shorter side are dropped, in resized pixels.
pub(in crate::nets) const MIN_SIDE: f32 = 1e-2;

/// `roi_heads.box_head` and `roi_heads.box_predictor`.
pub struct BoxHead {
    first: First,
    second: Linear,
    logits: Linear,
    deltas: Linear,
}

/// The first hidden layer, over all pixels of a region.
enum First {
    Plain(Linear),
    /// A convolution as large as the region: the pixels may lie in any order.
    #[cfg(feature = "cudnn")]
    Device(Conv2d),
}

/// What the head says about N regions on a GPU, f32: rows of `stride` numbers, without the biases.
#[cfg(feature = "cudnn")]
pub struct RawOutput {
    /// `[N, classes]`
    pub logits: crate::nets::cuda::Buffer,
    /// Numbers from row to row.
    pub logit_stride: usize,
    /// To be added to the logits.
    pub logit_bias: crate::nets::cuda::kernels::Ptr,
    /// `[N, classes * 4]`
    pub deltas: crate::nets::cuda::Buffer,
    /// Numbers from row to row.
    pub delta_stride: usize,
    /// To be added to the corrections.
    pub delta_bias: crate::nets::cuda::kernels::Ptr,
}

/// What the head says about N regions.
pub struct BoxOutput {
    /// `[N, classes]`
    pub logits: Values,
    /// `[N, classes * 4]`
    pub deltas: Values,
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
        let hidden = |input, name: &str| Linear::load(input, HIDDEN, None, Activation::Relu, &head.pp(name));
        let last = |output, name: &str| Linear::load(HIDDEN, output, None, Activation::None, &predictor.pp(name));
        let first = || -> CandleResult<First> {
            let inputs = CHANNELS * ROI_SIDE * ROI_SIDE;
            #[cfg(feature = "cudnn")]
            if crate::nets::cuda::Gpu::of(vb.device()).is_some() {
                let vb = head.pp("fc6");
                let weight = vb.get((HIDDEN, inputs), "weight")?.reshape((HIDDEN, CHANNELS, ROI_SIDE, ROI_SIDE))?;
                let shape = ConvShape { input: CHANNELS, output: HIDDEN, kernel: ROI_SIDE, stride: 1, padding: 0 };
                let conv = Conv2d::new(shape, weight, Some(vb.get(HIDDEN, "bias")?), None, Activation::Relu)?;
                return Ok(First::Device(conv));
            }
            Ok(First::Plain(hidden(inputs, "fc6")?))
        };
        Ok(Self {
            first: first()?,
            second: hidden(HIDDEN, "fc7")?,
            logits: last(classes, "cls_score")?,
            deltas: last(classes * 4, "bbox_pred")?,
        })
    }

    /// `[N, 256, 7, 7]` to classes and corrections.
    pub fn forward(&self, regions: impl Into<Values>) -> CandleResult<BoxOutput> {
        let regions = regions.into();
        let x = match &self.first {
            First::Plain(linear) => {
                let [count, numbers @ ..] = regions.dims() else { bail!("the box head was given no regions") };
                let rows = (*count, numbers.iter().product::<usize>());
                linear.forward(regions.reshape(rows)?)?
            }
            #[cfg(feature = "cudnn")]
            First::Device(conv) => conv.forward(&regions.to_tensor()?)?.flatten_from(1)?.into(),
        };
        let x = self.second.forward(x)?;
        Ok(BoxOutput { logits: self.logits.forward(&x)?, deltas: self.deltas.forward(&x)? })
    }

    /// Maps `[N, 7, 7, 256]` on a GPU to what is said about them, on that GPU.
    #[cfg(feature = "cudnn")]
    pub fn forward_device(&self, regions: crate::nets::cuda::DeviceMap) -> CandleResult<RawOutput> {
        let (First::Device(first), Some(second), Some(logits), Some(deltas)) =
            (&self.first, self.second.device(), self.logits.device(), self.deltas.device())
        else {
            candle_core::bail!("the box head is not on the GPU")
        };
        let gpu = std::sync::Arc::clone(regions.gpu());
        let x = first.run(&Features::Device(regions), None)?.to_device(&gpu)?;
        let x = second.run(&x, None)?;
        Ok(RawOutput {
            logits: logits.run_wide(&x)?,
            logit_stride: logits.padded_output(),
            logit_bias: logits.bias(),
            deltas: deltas.run_wide(&x)?,
            delta_stride: deltas.padded_output(),
            delta_bias: deltas.bias(),
        })
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
    let &[_, classes] = output.logits.dims() else { anyhow::bail!("the classes' scores are no table") };
    let scores = softmax_rows(&output.logits.fetch()?, classes);
    let deltas = output.deltas.fetch()?;
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
                found.extend(candidate(corners, scores[at], label as u32, config));
            }
        }
    }
    Ok(suppress(found, config))
}

/// Softmax of each row.
fn softmax_rows(logits: &[f32], classes: usize) -> Buffer {
    let mut scores = Buffer::from(logits);
    scores.par_chunks_mut(classes).with_min_len(16).for_each(|row| {
        let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        for x in &mut *row {
            *x = (*x - most).exp();
        }
        let sum: f32 = row.iter().sum();
        for x in row {
            *x /= sum;
        }
    });
    scores
}

/// A box of one class where it is worth a look.
pub(in crate::nets) fn candidate(corners: Corners, score: f32, label: u32, config: &Config) -> Option<ScoredBox> {
    let counts = score > config.score_threshold && boxes::is_larger(corners, MIN_SIDE);
    counts.then_some(ScoredBox { corners, score, label })
}

/// The best boxes of each class, best first.
pub(in crate::nets) fn suppress(found: Vec<ScoredBox>, config: &Config) -> Vec<ScoredBox> {
    let corners: Buffer<Corners> = found.iter().map(|f| f.corners).collect();
    let scores: Buffer = found.iter().map(|f| f.score).collect();
    let groups: Buffer<usize> = found.iter().map(|f| f.label as usize).collect();
    let kept = nms::grouped_nms(&corners, &scores, &groups, config.nms_iou);
    kept.iter().take(config.max_detections).map(|&i| found[i]).collect()
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};

    use super::*;

    /// Three regions, three classes: the first two overlap and are of class 1, the third is background with a little
    /// of class 2.
    fn output() -> Result<(BoxOutput, Vec<Corners>)> {
        let logits = [[0.0f32, 3.0, 0.0], [0.0, 4.0, 0.0], [2.0, -9.0, 0.5]];
        let deltas = Tensor::zeros((3, 12), candle_core::DType::F32, &Device::Cpu)?;
        let proposals = vec![[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 11.0], [5.0, 5.0, 90.0, 20.0]];
        Ok((BoxOutput { logits: Tensor::new(&logits, &Device::Cpu)?.into(), deltas: deltas.into() }, proposals))
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
