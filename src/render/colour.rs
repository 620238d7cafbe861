//! Colours with a meaning: people, and spread. All sRGB-encoded.

/// Okabe and Ito's colours, told apart with any of the common colour-vision deficiencies, in an order that puts
/// unlike ones next to each other. Black is left out: a shaded mesh must not be black.
const OKABE_ITO: [[u8; 3]; 7] = [
    [0x56, 0xB4, 0xE9], // sky blue
    [0xE6, 0x9F, 0x00], // orange
    [0x00, 0x9E, 0x73], // bluish green
    [0xCC, 0x79, 0xA7], // reddish purple
    [0xD5, 0x5E, 0x00], // vermillion
    [0xF0, 0xE4, 0x42], // yellow
    [0x00, 0x72, 0xB2], // blue
];

/// Ten equidistant samples of viridis, which rises evenly in lightness and is read by the colour-blind.
const VIRIDIS: [[u8; 3]; 10] = [
    [0x44, 0x01, 0x54],
    [0x48, 0x28, 0x78],
    [0x3E, 0x4A, 0x89],
    [0x31, 0x68, 0x8E],
    [0x26, 0x82, 0x8E],
    [0x1F, 0x9E, 0x89],
    [0x35, 0xB7, 0x79],
    [0x6D, 0xCD, 0x59],
    [0xB4, 0xDE, 0x2C],
    [0xFD, 0xE7, 0x25],
];

/// The colour of a person: the same for an id at all times, sRGB in `[0, 1]`. 21 ids are told apart: seven hues, then
/// the same lighter, then darker.
pub fn person_colour(id: u32) -> [f32; 3] {
    let hues = OKABE_ITO.len() as u32;
    let base = OKABE_ITO[(id % hues) as usize].map(|c| f32::from(c) / 255.0);
    match id / hues % 3 {
        0 => base,
        1 => base.map(|c| c + (1.0 - c) * 0.5),
        _ => base.map(|c| c * 0.55),
    }
}

/// The spread (in lixels) at which the colour map ends: an eighth of the bins, 8 for heatmaps of 64. A heatmap that
/// says nothing (equal everywhere) has 18 along each axis; one that knows has less than 2.
pub fn spread_scale_lixel(bins: usize) -> f32 {
    (bins as f32 / 8.0).max(1.0)
}

/// The colour of a spread, the length of a vertex' (x, y, z) standard deviations in lixels: viridis from 0 (dark) to
/// [`spread_scale_lixel`] (yellow) and beyond. What is not a number is drawn grey. sRGB in `[0, 1]`.
pub fn spread_colour(spread_lixel: f32, bins: usize) -> [f32; 3] {
    if !spread_lixel.is_finite() {
        return [0.5; 3];
    }
    let last = VIRIDIS.len() - 1;
    let at = (spread_lixel / spread_scale_lixel(bins)).clamp(0.0, 1.0) * last as f32;
    let low = (at as usize).min(last - 1);
    let t = at - low as f32;
    std::array::from_fn(|c| {
        let (a, b) = (f32::from(VIRIDIS[low][c]), f32::from(VIRIDIS[low + 1][c]));
        (a + (b - a) * t) / 255.0
    })
}

/// To four bytes, red first.
pub(super) fn bytes(rgb: [f32; 3], opacity: f32) -> [u8; 4] {
    let byte = |v: f32| (v.clamp(0.0, 1.0) * 255.0).round() as u8;
    [byte(rgb[0]), byte(rgb[1]), byte(rgb[2]), byte(opacity)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_are_told_apart() {
        let colours: Vec<_> = (0..21).map(|id| bytes(person_colour(id), 1.0)).collect();
        for (i, a) in colours.iter().enumerate() {
            for b in &colours[..i] {
                let apart: u32 = a.iter().zip(b).map(|(&x, &y)| u32::from(x.abs_diff(y))).sum();
                assert!(apart > 40, "{a:?} and {b:?} are {apart} apart");
            }
        }
        assert_eq!(person_colour(3), person_colour(3));
    }

    #[test]
    fn spread_runs_from_dark_to_yellow_and_stops_there() {
        let lightness = |s: f32| spread_colour(s, 64).iter().sum::<f32>();
        let steps: Vec<f32> = (0..=16).map(|i| lightness(i as f32 * 0.5)).collect();
        assert!(steps.windows(2).all(|w| w[1] > w[0]), "{steps:?}");
        assert_eq!(spread_colour(8.0, 64), spread_colour(1e9, 64));
        assert_eq!(spread_colour(f32::NAN, 64), [0.5; 3]);
        assert_eq!(bytes(spread_colour(0.0, 64), 1.0), [0x44, 0x01, 0x54, 255]);
    }
}
