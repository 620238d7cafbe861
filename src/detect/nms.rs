//! Non-maximum suppression: of boxes that overlap too much, the best stays. Pure: slices in, indices out.

use std::cmp::Ordering;

use rayon::prelude::*;

use crate::memory::Buffer;

/// Left, top, right and bottom edge of a box, in the pixels of whichever image it belongs to.
pub type Corners = [f32; 4];

/// Width times height; negative or NaN where the box is not a box.
pub fn area([x0, y0, x1, y1]: Corners) -> f32 {
    (x1 - x0) * (y1 - y0)
}

/// Intersection over union in `[0, 1]`; NaN for two boxes without area, which suppresses nothing.
pub fn iou(a: Corners, b: Corners) -> f32 {
    let w = (a[2].min(b[2]) - a[0].max(b[0])).max(0.0);
    let h = (a[3].min(b[3]) - a[1].max(b[1])).max(0.0);
    let inter = w * h;
    inter / (area(a) + area(b) - inter)
}

/// Indices of `scores`, best first; equal scores keep their order.
pub fn order_by_score(scores: &[f32]) -> Buffer<usize> {
    let mut order: Buffer<usize> = (0..scores.len()).collect();
    order.sort_unstable_by(|&a, &b| better(scores, a, b));
    order
}

fn better(scores: &[f32], a: usize, b: usize) -> Ordering {
    scores[b].total_cmp(&scores[a]).then(a.cmp(&b))
}

/// The boxes that stay, best first: a box goes when it overlaps a better one that stays by *more* than
/// `iou_threshold`.
pub fn nms(boxes: &[Corners], scores: &[f32], iou_threshold: f32) -> Buffer<usize> {
    debug_assert_eq!(boxes.len(), scores.len());
    let mut order = order_by_score(scores);
    let kept = suppress(&mut order, boxes, iou_threshold);
    order.truncate(kept);
    order
}

/// [`nms`] within each group (a class, a pyramid level); boxes of different groups do not see each other. The
/// result is best first over all groups.
pub fn grouped_nms(boxes: &[Corners], scores: &[f32], groups: &[usize], iou_threshold: f32) -> Buffer<usize> {
    debug_assert_eq!(boxes.len(), groups.len());
    let mut order: Buffer<usize> = (0..boxes.len()).collect();
    order.sort_unstable_by(|&a, &b| groups[a].cmp(&groups[b]).then_with(|| better(scores, a, b)));
    order.par_chunk_by_mut(|&a, &b| groups[a] == groups[b]).for_each(|members| {
        let kept = suppress(members, boxes, iou_threshold);
        members[kept..].fill(GONE);
    });
    let mut kept: Buffer<usize> = order.iter().copied().filter(|&i| i != GONE).collect();
    kept.sort_unstable_by(|&a, &b| better(scores, a, b));
    kept
}

/// In the place of a box that went.
const GONE: usize = usize::MAX;

/// Moves the boxes that stay to the front of `order`, which is best first; says how many they are.
fn suppress(order: &mut [usize], boxes: &[Corners], iou_threshold: f32) -> usize {
    let mut kept = 0;
    for at in 0..order.len() {
        let i = order[at];
        if !order[..kept].iter().any(|&k| iou(boxes[k], boxes[i]) > iou_threshold) {
            order[kept] = i;
            kept += 1;
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers in `[0, 1)` from a fixed seed (xorshift).
    fn numbers(seed: u64) -> impl FnMut() -> f32 {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1u64 << 24) as f32
        }
    }

    fn random_boxes(count: usize, seed: u64) -> (Vec<Corners>, Vec<f32>, Vec<usize>) {
        let mut next = numbers(seed);
        let boxes = (0..count)
            .map(|_| {
                let (x, y) = (next() * 50.0, next() * 50.0);
                [x, y, x + next() * 30.0, y + next() * 30.0]
            })
            .collect();
        // Coarse scores, so that ties occur.
        let scores = (0..count).map(|_| (next() * 40.0).floor() / 40.0).collect();
        let groups = (0..count).map(|_| (next() * 3.0) as usize).collect();
        (boxes, scores, groups)
    }

    /// The definition, word by word: repeatedly take the best box that is left, and strike out all others of its
    /// group that overlap it.
    fn naive(boxes: &[Corners], scores: &[f32], groups: &[usize], threshold: f32) -> Vec<usize> {
        let mut left: Vec<usize> = (0..boxes.len()).collect();
        let mut kept = Vec::new();
        while !left.is_empty() {
            let mut best = left[0];
            for &i in &left {
                if scores[i] > scores[best] {
                    best = i;
                }
            }
            kept.push(best);
            left.retain(|&i| i != best && (groups[i] != groups[best] || iou(boxes[i], boxes[best]) <= threshold));
        }
        kept
    }

    #[test]
    fn agrees_with_the_definition_on_random_boxes() {
        for seed in 1..20 {
            let (boxes, scores, groups) = random_boxes(120, seed);
            for threshold in [0.0, 0.3, 0.5, 0.7] {
                let expected = naive(&boxes, &scores, &groups, threshold);
                assert!(expected.len() < 120 || threshold > 0.6, "something is suppressed");
                assert_eq!(grouped_nms(&boxes, &scores, &groups, threshold), expected);
                assert_eq!(nms(&boxes, &scores, threshold), naive(&boxes, &scores, &[0; 120], threshold));
            }
        }
    }

    #[test]
    fn an_overlap_at_the_threshold_stays() {
        let boxes = [[0.0, 0.0, 2.0, 1.0], [0.0, 0.0, 1.0, 1.0]];
        assert_eq!(nms(&boxes, &[0.9, 0.8], 0.5), [0, 1]);
        assert_eq!(nms(&boxes, &[0.8, 0.9], 0.49), [1]);
    }

    #[test]
    fn boxes_without_area_and_nan_do_not_panic() {
        let nan = f32::NAN;
        let boxes = [[1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0], [nan, 0.0, 1.0, 1.0], [0.0, 0.0, 4.0, 4.0]];
        assert_eq!(nms(&boxes, &[0.5, 0.5, nan, 0.9], 0.5).len(), 4);
        assert!(nms(&[], &[], 0.5).is_empty());
        assert!(grouped_nms(&[], &[], &[], 0.5).is_empty());
    }
}
