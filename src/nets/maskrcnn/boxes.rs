//! Box coding: a box as its difference from another one.

use super::Corners;

/// Differences are divided by these before they are applied: x, y, width, height.
pub type Weights = [f32; 4];

/// Growth of a side that no box exceeds in one step, as a logarithm: ln(1000 / 16).
const MAX_LOG_GROWTH: f32 = 4.135_166_5;

/// Moves and stretches `reference` by `delta` (dx and dy in sides of the reference, dw and dh as logarithms).
pub fn decode(reference: Corners, delta: [f32; 4], weights: Weights) -> Corners {
    let [x0, y0, x1, y1] = reference;
    let (w, h) = (x1 - x0, y1 - y0);
    let (cx, cy) = (x0 + 0.5 * w, y0 + 0.5 * h);
    let dx = delta[0] / weights[0];
    let dy = delta[1] / weights[1];
    let dw = (delta[2] / weights[2]).min(MAX_LOG_GROWTH);
    let dh = (delta[3] / weights[3]).min(MAX_LOG_GROWTH);
    let (cx, cy) = (dx * w + cx, dy * h + cy);
    let (half_w, half_h) = (0.5 * (dw.exp() * w), 0.5 * (dh.exp() * h));
    [cx - half_w, cy - half_h, cx + half_w, cy + half_h]
}

/// The part of a box inside an image of `[height, width]`.
pub fn clip([x0, y0, x1, y1]: Corners, [height, width]: [usize; 2]) -> Corners {
    let (w, h) = (width as f32, height as f32);
    [x0.clamp(0.0, w), y0.clamp(0.0, h), x1.clamp(0.0, w), y1.clamp(0.0, h)]
}

/// Both sides are at least `min_side`; false for NaN.
pub fn is_larger([x0, y0, x1, y1]: Corners, min_side: f32) -> bool {
    x1 - x0 >= min_side && y1 - y0 >= min_side
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decoding_undoes_the_encoding_of_a_box() {
        let weights = [10.0, 10.0, 5.0, 5.0];
        let reference: Corners = [20.0, 40.0, 50.0, 100.0];
        let target: Corners = [10.0, 55.0, 70.0, 85.0];
        let side = |b: Corners| (b[2] - b[0], b[3] - b[1]);
        let ((rw, rh), (tw, th)) = (side(reference), side(target));
        let delta = [
            weights[0] * ((target[0] + tw / 2.0) - (reference[0] + rw / 2.0)) / rw,
            weights[1] * ((target[1] + th / 2.0) - (reference[1] + rh / 2.0)) / rh,
            weights[2] * (tw / rw).ln(),
            weights[3] * (th / rh).ln(),
        ];
        let decoded = decode(reference, delta, weights);
        assert!(decoded.iter().zip(target).all(|(a, b)| (a - b).abs() < 1e-4), "{decoded:?}");
    }

    #[test]
    fn a_zero_delta_is_the_box_itself_and_growth_is_bounded() {
        let b = [1.0, 2.0, 11.0, 22.0];
        assert_eq!(decode(b, [0.0; 4], [1.0; 4]), b);
        let [x0, _, x1, _] = decode(b, [0.0, 0.0, 100.0, 0.0], [1.0; 4]);
        assert!(((x1 - x0) - 625.0).abs() < 0.01, "ten pixels times 1000/16");
    }

    #[test]
    fn clipping_and_sides() {
        assert_eq!(clip([-3.0, 2.0, 400.0, 90.0], [80, 320]), [0.0, 2.0, 320.0, 80.0]);
        assert!(is_larger([0.0, 0.0, 1.0, 1.0], 1.0));
        assert!(!is_larger([0.0, 0.0, f32::NAN, 1.0], 0.0) && !is_larger([2.0, 0.0, 1.0, 1.0], 0.0));
    }
}
