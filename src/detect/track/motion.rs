//! How a box moves: a Kalman filter for its centre (frame pixels) and the logarithms of its sides. Time is counted in
//! frames.

use glam::Vec2;

use crate::space::RectPx;

/// Frames after which the velocity of a box that nobody sees has faded to 1/e, so that it slows down rather than
/// leave the picture.
const FADE_FRAMES: f32 = 40.0;
/// Uncertainty does not grow further than over so many frames at once.
const MAX_GROWTH_FRAMES: f32 = 30.0;

/// How far a measured box is off, one standard deviation.
#[derive(Clone, Copy, Debug)]
pub struct Noise {
    /// Of the centre, in box sizes.
    pub centre: f32,
    /// Of the sides, as a ratio.
    pub side: f32,
}

/// What a measurement is worth: detector boxes jitter by a few per cent of their size.
pub const DETECTION: Noise = Noise { centre: 0.04, side: 0.05 };
/// The box around a projected body differs from the detector's, in its sides more than in its centre.
pub const POSE: Noise = Noise { centre: 0.06, side: 0.15 };

/// A number, its change per frame, and how well both are known.
#[derive(Clone, Copy, Debug)]
struct Axis {
    value: f32,
    rate: f32,
    var_value: f32,
    covariance: f32,
    var_rate: f32,
}

impl Axis {
    fn new(value: f32, sd_value: f32, sd_rate: f32) -> Self {
        Self { value, rate: 0.0, var_value: sd_value.powi(2), covariance: 0.0, var_rate: sd_rate.powi(2) }
    }

    /// Moves on by `frames`; `sd_rate` is how much the rate may change in one frame.
    fn predict(&mut self, frames: f32, sd_rate: f32) {
        let fade = (-frames / FADE_FRAMES).exp();
        let step = FADE_FRAMES * (1.0 - fade);
        let growth = frames.min(MAX_GROWTH_FRAMES) * sd_rate.powi(2);
        self.value += self.rate * step;
        self.rate *= fade;
        self.var_value += 2.0 * step * self.covariance + step.powi(2) * self.var_rate + growth;
        self.covariance = fade * (self.covariance + step * self.var_rate);
        self.var_rate = fade.powi(2) * self.var_rate + growth;
    }

    fn correct(&mut self, measured: f32, sd: f32) {
        let total = self.var_value + sd.powi(2);
        let (gain, rate_gain) = (self.var_value / total, self.covariance / total);
        let surprise = measured - self.value;
        self.value += gain * surprise;
        self.rate += rate_gain * surprise;
        self.var_rate -= rate_gain * self.covariance;
        self.covariance *= 1.0 - gain;
        self.var_value *= 1.0 - gain;
    }
}

/// A moving box.
#[derive(Clone, Copy, Debug)]
pub struct Motion {
    centre: [Axis; 2],
    log_side: [Axis; 2],
}

impl Motion {
    /// A box that has just been seen; how it moves is not known yet. The rectangle must have positive sides.
    pub fn new(rect: &RectPx) -> Self {
        let size = rect.area().sqrt();
        let centre = |c| Axis::new(c, DETECTION.centre * size, 0.06 * size);
        let log_side = |side: f32| Axis::new(side.ln(), DETECTION.side, 0.01);
        Self {
            centre: [centre(rect.centre().x), centre(rect.centre().y)],
            log_side: [log_side(rect.w), log_side(rect.h)],
        }
    }

    /// Where the box is believed to be.
    pub fn rect(&self) -> RectPx {
        let centre = Vec2::from(self.centre.map(|axis| axis.value));
        let half = Vec2::from(self.log_side.map(|axis| axis.value.exp())) * 0.5;
        RectPx::from_corners(centre - half, centre + half)
    }

    /// Moves on.
    pub fn predict(&mut self, frames: f32) {
        let size = self.rect().area().sqrt();
        self.centre.iter_mut().for_each(|axis| axis.predict(frames, 0.015 * size));
        self.log_side.iter_mut().for_each(|axis| axis.predict(frames, 0.003));
    }

    /// Takes a measured box into account. It must have positive sides.
    pub fn correct(&mut self, rect: &RectPx, noise: Noise) {
        let size = rect.area().sqrt();
        let centre: [f32; 2] = rect.centre().into();
        for (axis, measured) in self.centre.iter_mut().zip(centre) {
            axis.correct(measured, noise.centre * size);
        }
        for (axis, side) in self.log_side.iter_mut().zip([rect.w, rect.h]) {
            axis.correct(side.ln(), noise.side);
        }
    }
}

/// How the detector's box lies around the box of the projected body: the two differ by habit (hair, clothes, the
/// network's own margin), and without this boxes would jump at every detection, or shrink between them.
#[derive(Clone, Copy, Debug, Default)]
pub struct BodyFit {
    /// Centre of the detector's box, in sides of the body's, from the body's centre.
    shift: Vec2,
    /// Logarithm of the detector's sides over the body's.
    log_growth: Vec2,
    known: bool,
}

impl BodyFit {
    /// Part of a new observation that is taken on.
    const RATE: f32 = 0.5;
    /// Larger differences are not a habit but an error: a quarter of a side.
    const MAX: Vec2 = Vec2::splat(0.25);

    /// Both boxes were found in the same frame. They must have positive sides.
    pub fn learn(&mut self, body: &RectPx, detected: &RectPx) {
        let sides = Vec2::new(body.w, body.h);
        let shift = ((detected.centre() - body.centre()) / sides).clamp(-Self::MAX, Self::MAX);
        let growth = Vec2::new((detected.w / body.w).ln(), (detected.h / body.h).ln()).clamp(-Self::MAX, Self::MAX);
        let rate = if self.known { Self::RATE } else { 1.0 };
        self.shift += (shift - self.shift) * rate;
        self.log_growth += (growth - self.log_growth) * rate;
        self.known = true;
    }

    /// The box that the detector would draw around this body.
    pub fn detected_from_body(&self, body: &RectPx) -> RectPx {
        let sides = Vec2::new(body.w, body.h);
        let centre = body.centre() + self.shift * sides;
        let half = sides * self.log_growth.exp() * 0.5;
        RectPx::from_corners(centre - half, centre + half)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_motion_is_learnt_and_continued() {
        let at = |t: f32| RectPx { x: 100.0 + 6.0 * t, y: 50.0 - 2.0 * t, w: 60.0, h: 150.0 };
        let mut motion = Motion::new(&at(0.0));
        for round in 1..8 {
            motion.predict(4.0);
            motion.correct(&at(4.0 * round as f32), DETECTION);
        }
        motion.predict(4.0);
        let error = (motion.rect().centre() - at(32.0).centre()).length();
        assert!(error < 5.0, "{error} px after 25 px of motion");
    }

    #[test]
    fn the_detectors_habit_is_learnt_from_one_frame() {
        let body = RectPx { x: 10.0, y: 20.0, w: 40.0, h: 100.0 };
        let detected = RectPx { x: 6.0, y: 8.0, w: 50.0, h: 118.0 };
        let mut fit = BodyFit::default();
        assert_eq!(fit.detected_from_body(&body), body);
        fit.learn(&body, &detected);
        assert!((fit.detected_from_body(&body).min() - detected.min()).length() < 1e-3);
        // The same, twice as far away and elsewhere.
        let far = fit.detected_from_body(&RectPx { x: 100.0, y: 50.0, w: 20.0, h: 50.0 });
        assert!((far.min() - Vec2::new(98.0, 44.0)).length() < 1e-3 && (far.w - 25.0).abs() < 1e-3, "{far:?}");
    }

    #[test]
    fn unseen_boxes_slow_down_and_keep_their_size() {
        let mut motion = Motion::new(&RectPx { x: 0.0, y: 0.0, w: 50.0, h: 100.0 });
        for t in 1..10 {
            motion.predict(1.0);
            motion.correct(&RectPx { x: 10.0 * t as f32, y: 0.0, w: 50.0, h: 100.0 }, DETECTION);
        }
        motion.predict(100_000.0);
        let rect = motion.rect();
        assert!(rect.is_valid() && rect.x < 90.0 + 10.0 * FADE_FRAMES + 1.0, "{rect:?}");
        assert!((rect.w / 50.0 - 1.0).abs() < 0.2);
    }
}
