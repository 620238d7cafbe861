//! The region proposal network: at every position of every level three anchors, each with a score and a correction;
//! the best of them become proposals.

use anyhow::{Result, bail};
use candle_core::Result as CandleResult;
use candle_nn::VarBuilder;
use rayon::prelude::*;

use super::fpn::CHANNELS;
use super::transform::Batch;
use super::{Config, Corners, boxes};
use crate::detect::nms;
use crate::memory::Buffer;
use crate::nets::layers::{Activation, Conv2d, ConvShape, Features, Values};

/// Side of the anchors of each level, in input pixels.
const ANCHOR_SIDES: [f32; 5] = [32.0, 64.0, 128.0, 256.0, 512.0];
/// Height over width of the anchors at each position.
const ASPECTS: [f32; 3] = [0.5, 1.0, 2.0];
/// Proposals with a shorter side are dropped, in input pixels.
pub(crate) const MIN_SIDE: f32 = 1e-3;

/// The head that is shared by all levels, `rpn.head`.
pub struct RpnHead {
    conv: Conv2d,
    objectness: Conv2d,
    deltas: Conv2d,
}

/// What the head says about one level.
pub struct LevelOutput {
    /// Logit of each anchor, `[B, 3, h, w]`.
    pub objectness: Values,
    /// Correction of each anchor, `[B, 3 * 4, h, w]`.
    pub deltas: Values,
}

impl RpnHead {
    /// Reads `conv.0.0`, `cls_logits` and `bbox_pred` of `vb`.
    pub fn load(vb: &VarBuilder) -> CandleResult<Self> {
        let load = |output, kernel, activation, name| {
            Conv2d::load(ConvShape::same(CHANNELS, output, kernel), true, None, activation, &vb.pp(name))
        };
        Ok(Self {
            conv: load(CHANNELS, 3, Activation::Relu, "conv.0.0")?,
            objectness: load(ASPECTS.len(), 1, Activation::None, "cls_logits")?,
            deltas: load(ASPECTS.len() * 4, 1, Activation::None, "bbox_pred")?,
        })
    }

    /// Objectness and corrections of each map of the pyramid, in its layout.
    #[cfg(feature = "cudnn")]
    pub fn forward_features(&self, pyramid: &[Features]) -> CandleResult<Vec<[Features; 2]>> {
        let level = |map| {
            let x = self.conv.run(map, None)?;
            Ok([self.objectness.run(&x, None)?, self.deltas.run(&x, None)?])
        };
        pyramid.iter().map(level).collect()
    }

    /// One output for each map of the pyramid.
    pub fn forward(&self, pyramid: &[Features]) -> CandleResult<Vec<LevelOutput>> {
        pyramid
            .iter()
            .map(|map| {
                let x = self.conv.run(map, None)?;
                Ok(LevelOutput {
                    objectness: self.objectness.run(&x, None)?.to_values()?,
                    deltas: self.deltas.run(&x, None)?.to_values()?,
                })
            })
            .collect()
    }
}

/// The anchors around a position, one for each aspect; corners are rounded to whole pixels, halves to even.
fn cell_anchors(side: f32) -> [Corners; 3] {
    ASPECTS.map(|aspect| {
        let h_ratio = aspect.sqrt();
        let (w, h) = (side / h_ratio, side * h_ratio);
        [-w / 2.0, -h / 2.0, w / 2.0, h / 2.0].map(f32::round_ties_even)
    })
}

/// The anchors around the origin of each level.
#[cfg(any(test, feature = "cudnn"))]
pub(crate) fn cells() -> [[Corners; 3]; 5] {
    ANCHOR_SIDES.map(cell_anchors)
}

/// The anchors of one level, made when they are asked for.
struct Anchors {
    cell: [Corners; 3],
    /// Input pixels between positions, down and across.
    stride: [usize; 2],
    /// Positions, down and across.
    grid: [usize; 2],
}

impl Anchors {
    fn new(level: usize, grid: [usize; 2], padded: [usize; 2]) -> Self {
        let stride = [padded[0] / grid[0], padded[1] / grid[1]];
        Self { cell: cell_anchors(ANCHOR_SIDES[level]), stride, grid }
    }

    /// Aspect and position of the anchor at this place of an `[3, h, w]` map.
    fn place(&self, index: usize) -> (usize, usize) {
        let positions = self.grid[0] * self.grid[1];
        (index / positions, index % positions)
    }

    /// The anchor at this place of an `[3, h, w]` map.
    fn get(&self, index: usize) -> Corners {
        let (aspect, position) = self.place(index);
        let x = (position % self.grid[1] * self.stride[1]) as f32;
        let y = (position / self.grid[1] * self.stride[0]) as f32;
        let [x0, y0, x1, y1] = self.cell[aspect];
        [x0 + x, y0 + y, x1 + x, y1 + y]
    }
}

/// Proposals of one level before suppression, best first.
struct Candidates {
    boxes: Buffer<Corners>,
    scores: Buffer,
}

/// The proposals of each picture, best first, in resized pixels.
pub fn proposals(levels: &[LevelOutput], batch: &Batch, config: &Config) -> Result<Vec<Buffer<Corners>>> {
    let mut outputs = Vec::with_capacity(levels.len());
    for (level, output) in levels.iter().enumerate() {
        let &[_, _, h, w] = output.objectness.dims() else { bail!("the anchors' scores are no maps") };
        let anchors = Anchors::new(level, [h, w], batch.padded());
        outputs.push((anchors, output.objectness.fetch()?, output.deltas.fetch()?));
    }
    let picture = |index: usize| {
        let resized = batch.sizes[index].resized;
        let candidates: Vec<Candidates> = outputs
            .par_iter()
            .map(|(anchors, objectness, deltas)| {
                let count = 3 * anchors.grid[0] * anchors.grid[1];
                let logits = &objectness[index * count..][..count];
                let deltas = &deltas[index * 4 * count..][..4 * count];
                level_candidates(anchors, logits, deltas, resized, config.proposals_per_level)
            })
            .collect();
        best_of_levels(&candidates, config)
    };
    Ok((0..batch.sizes.len()).map(picture).collect())
}

/// The `limit` best anchors of a level, corrected and clipped.
fn level_candidates(
    anchors: &Anchors,
    logits: &[f32],
    deltas: &[f32],
    resized: [usize; 2],
    limit: usize,
) -> Candidates {
    let mut order: Buffer<usize> = (0..logits.len()).collect();
    // Equal logits: by position, then aspect.
    let key = |i: usize| {
        let (aspect, position) = anchors.place(i);
        (position, aspect)
    };
    let better = |&a: &usize, &b: &usize| logits[b].total_cmp(&logits[a]).then_with(|| key(a).cmp(&key(b)));
    if limit < order.len() {
        order.select_nth_unstable_by(limit, better);
        order.truncate(limit);
    }
    order.sort_unstable_by(better);

    let positions = anchors.grid[0] * anchors.grid[1];
    let corrected = |index: usize| {
        let (aspect, position) = anchors.place(index);
        let delta = [0, 1, 2, 3].map(|i| deltas[(aspect * 4 + i) * positions + position]);
        let corrected = boxes::clip(boxes::decode(anchors.get(index), delta, [1.0; 4]), resized);
        let counts = boxes::is_larger(corrected, MIN_SIDE) && !logits[index].is_nan();
        counts.then(|| (corrected, sigmoid(logits[index])))
    };
    let (mut boxes, mut scores) = (Buffer::take(order.len()), Buffer::take(order.len()));
    let mut count = 0;
    for (corners, score) in order.iter().filter_map(|&index| corrected(index)) {
        (boxes[count], scores[count]) = (corners, score);
        count += 1;
    }
    boxes.truncate(count);
    scores.truncate(count);
    Candidates { boxes, scores }
}

/// Suppression within each level, then the best over all of them. Scores are compared after the sigmoid, where large
/// logits can become equal: then the finer level comes first.
fn best_of_levels(levels: &[Candidates], config: &Config) -> Buffer<Corners> {
    let boxes: Buffer<Corners> = levels.iter().flat_map(|l| l.boxes.iter().copied()).collect();
    let scores: Buffer = levels.iter().flat_map(|l| l.scores.iter().copied()).collect();
    let groups: Buffer<usize> =
        levels.iter().enumerate().flat_map(|(level, l)| std::iter::repeat_n(level, l.boxes.len())).collect();
    let kept = nms::grouped_nms(&boxes, &scores, &groups, config.proposal_nms_iou);
    kept.iter().take(config.proposals).map(|&i| boxes[i]).collect()
}

pub(super) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anchors_are_rounded_around_their_position() {
        // sqrt(2) * 16 = 22.6, 16 / sqrt(2) = 11.3
        let expected = [[-23.0, -11.0, 23.0, 11.0], [-16.0, -16.0, 16.0, 16.0], [-11.0, -23.0, 11.0, 23.0]];
        assert_eq!(cell_anchors(32.0), expected);

        let anchors = Anchors::new(0, [8, 10], [32, 40]);
        // Aspect 2, row 3, column 7, stride 4.
        let [x0, y0, x1, y1] = expected[2];
        assert_eq!(anchors.get((2 * 8 + 3) * 10 + 7), [x0 + 28.0, y0 + 12.0, x1 + 28.0, y1 + 12.0]);
    }

    #[test]
    fn the_stride_is_the_padded_side_over_the_grid() {
        // The pool level of an input of 96 has two positions: 96 / 2 = 48, not 64.
        assert_eq!(Anchors::new(4, [2, 1], [96, 32]).stride, [48, 32]);
    }

    #[test]
    fn the_best_anchors_are_corrected_clipped_and_dropped_when_empty() {
        let anchors = Anchors::new(0, [2, 2], [8, 8]);
        // Aspect 1 at position 3 is best, then aspect 0 at position 0; the latter is shifted out of the picture.
        let mut logits = vec![-5.0; 12];
        (logits[7], logits[0]) = (3.0, 2.0);
        let mut deltas = vec![0.0; 48];
        deltas[0] = -10.0; // aspect 0, dx, position 0
        let found = level_candidates(&anchors, &logits, &deltas, [8, 8], 2);
        assert_eq!(found.boxes, [[0.0, 0.0, 8.0, 8.0]]);
        assert_eq!(found.scores, [sigmoid(3.0)]);
    }

    #[test]
    fn saturated_scores_keep_the_order_of_levels() {
        let level =
            |x: f32| Candidates { boxes: vec![[x, 0.0, x + 1.0, 1.0]].into(), scores: vec![sigmoid(40.0 - x)].into() };
        let config = Config { proposals: 2, ..Config::default() };
        assert_eq!(best_of_levels(&[level(2.0), level(1.0), level(0.0)], &config).len(), 2);
        assert_eq!(best_of_levels(&[level(2.0), level(1.0)], &config)[0][0], 2.0);
    }
}
