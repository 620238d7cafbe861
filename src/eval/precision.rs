//! Average precision: how well what was found, in the order of its scores, covers what is there.

use crate::detect::PersonBox;
use crate::space::RectPx;

/// Detections of a picture that count, best first, as COCO has it.
const MOST_DETECTIONS: usize = 100;

/// What was found and what is there, over all pictures.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Precision {
    /// Score of each detection, and whether it is right.
    verdicts: Vec<(f32, bool)>,
    /// How many there are to be found.
    positives: usize,
}

impl Precision {
    /// Adds what a picture has to be found.
    pub fn expect(&mut self, positives: usize) {
        self.positives += positives;
    }

    /// Adds something that was found. Of equal scores the first that is added comes first.
    pub fn found(&mut self, score: f32, is_right: bool) {
        self.verdicts.push((score, is_right));
    }

    /// Recall and precision after each detection, in the order of their scores.
    fn curve(&self) -> Vec<[f64; 2]> {
        let mut verdicts = self.verdicts.clone();
        verdicts.sort_by(|a, b| b.0.total_cmp(&a.0));
        let mut right = 0;
        let point = |(at, &(_, is_right)): (usize, &(f32, bool))| {
            right += usize::from(is_right);
            [right as f64 / self.positives as f64, right as f64 / (at + 1) as f64]
        };
        verdicts.iter().enumerate().map(point).collect()
    }

    /// COCO's: the mean of the precision at 101 recalls, 0 to 1, where the precision at a recall is the best one that
    /// this or any higher recall has. In `[0, 1]`; `None` where there is nothing to be found.
    pub fn at_101_recalls(&self) -> Option<f64> {
        let mut curve = self.curve();
        let mut best = 0.0_f64;
        for [_, precision] in curve.iter_mut().rev() {
            best = best.max(*precision);
            *precision = best;
        }
        let at = |step: u32| {
            let recall = f64::from(step) / 100.0;
            curve.get(curve.partition_point(|point| point[0] < recall)).map_or(0.0, |point| point[1])
        };
        (self.positives > 0).then(|| (0..=100).map(at).sum::<f64>() / 101.0)
    }

    /// RootNet's: the sum over all detections of the precision times the recall that the detection gains. In `[0, 1]`;
    /// `None` where there is nothing to be found.
    pub fn area(&self) -> Option<f64> {
        let mut before = 0.0;
        let gained = |[recall, precision]: [f64; 2]| {
            let gained = (recall - before) * precision;
            before = recall;
            gained
        };
        // A sum of nothing is -0.
        (self.positives > 0).then(|| self.curve().into_iter().map(gained).sum::<f64>() + 0.0)
    }
}

/// Adds the boxes of one picture, as COCO matches them: best score first, each to the free true box with which its IoU
/// is largest and at least `least_iou`, rather to one that counts than to one of whom nobody minds (`true` beside the
/// rectangle). A detection of the latter is neither right nor wrong.
pub fn add_boxes(precision: &mut Precision, found: &[PersonBox], real: &[(RectPx, bool)], least_iou: f32) {
    let mut found = found.to_vec();
    found.sort_by(|a, b| b.score.total_cmp(&a.score));
    let mut taken = vec![false; real.len()];
    precision.expect(real.iter().filter(|(_, ignored)| !ignored).count());
    for PersonBox { rect, score } in found.into_iter().take(MOST_DETECTIONS) {
        let best = |ignored: bool| {
            let free = real.iter().enumerate().filter(|(at, one)| !taken[*at] && one.1 == ignored);
            let overlaps = free.map(|(at, one)| (at, one.0.iou(&rect))).filter(|(_, iou)| *iou >= least_iou);
            // Of equal ones the last, as COCO's loop leaves it.
            overlaps.max_by(|a, b| a.1.total_cmp(&b.1)).map(|(at, _)| at)
        };
        match best(false).or_else(|| best(true)) {
            Some(at) => {
                taken[at] = true;
                if !real[at].1 {
                    precision.found(score, true);
                }
            }
            None => precision.found(score, false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(verdicts: &[(f32, bool)], positives: usize) -> Precision {
        let mut precision = Precision::default();
        precision.expect(positives);
        for &(score, is_right) in verdicts {
            precision.found(score, is_right);
        }
        precision
    }

    #[test]
    fn known_curves_have_known_areas() {
        let all = of(&[(0.9, true), (0.3, true)], 2);
        assert_eq!((all.at_101_recalls(), all.area()), (Some(1.0), Some(1.0)));
        assert_eq!(of(&[], 0).at_101_recalls(), None);
        assert_eq!(of(&[], 3).area(), Some(0.0));
        // Right, wrong, right, of 4: recalls up to 0.25 at precision 1, up to 0.5 at 2/3, none beyond.
        let some = of(&[(0.5, false), (0.4, true), (0.9, true)], 4);
        let expected = (26.0 + 25.0 * 2.0 / 3.0) / 101.0;
        assert!((some.at_101_recalls().unwrap() - expected).abs() < 1e-12);
        assert!((some.area().unwrap() - (0.25 + 0.25 * 2.0 / 3.0)).abs() < 1e-12);
        // A wrong one before all others costs half of a single positive.
        assert_eq!(of(&[(0.9, false), (0.8, true)], 1).at_101_recalls(), Some(0.5));
    }

    #[test]
    fn of_whom_nobody_minds_is_neither_right_nor_wrong() {
        let rect = |x: f32| RectPx::from([x, 0.0, 10.0, 10.0]);
        let found = |x: f32, score: f32| PersonBox { rect: rect(x), score };
        let real = [(rect(0.0), false), (rect(100.0), true)];
        let verdicts = |found: &[PersonBox], least_iou: f32| {
            let mut precision = Precision::default();
            add_boxes(&mut precision, found, &real, least_iou);
            (precision.verdicts, precision.positives)
        };
        let three = [found(200.0, 0.1), found(100.0, 0.8), found(0.0, 0.7)];
        assert_eq!(verdicts(&three, 0.5), (vec![(0.7, true), (0.1, false)], 1));
        // The second box of the same person is wrong; 8 of 12 columns are shared, an IoU of two thirds.
        let twice = [found(0.0, 0.6), found(2.0, 0.9)];
        assert_eq!(verdicts(&twice, 0.5), (vec![(0.9, true), (0.6, false)], 1));
        assert_eq!(verdicts(&twice, 0.75), (vec![(0.9, false), (0.6, true)], 1));
        // More than a hundred of a picture do not count.
        let many = vec![found(300.0, 0.5); 150];
        assert_eq!(verdicts(&many, 0.5).0.len(), 100);
    }
}
