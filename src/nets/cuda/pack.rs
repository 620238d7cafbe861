//! Weights in the order in which the GPU reads them: input channels innermost, both numbers of channels filled up with
//! zeros.

use super::kernels::MapDims;

fn padded(channels: usize) -> usize {
    channels.next_multiple_of(MapDims::CHANNEL_STEP)
}

/// Zeros behind, up to `len`.
pub fn filled(values: &[f32], len: usize) -> Vec<f32> {
    let mut filled = values.to_vec();
    filled.resize(len, 0.0);
    filled
}

/// `[O, I, K, K]` to `[O, K, K, I]`.
pub fn conv_weights(weight: &[f32], [output, input, kernel]: [usize; 3]) -> Vec<f32> {
    let (area, depth) = (kernel * kernel, padded(input));
    let mut packed = vec![0.0; padded(output) * area * depth];
    for (weight, packed) in weight.chunks_exact(input * area).zip(packed.chunks_exact_mut(area * depth)) {
        for (channel, taps) in weight.chunks_exact(area).enumerate() {
            for (tap, &w) in taps.iter().enumerate() {
                packed[tap * depth + channel] = w;
            }
        }
    }
    debug_assert_eq!(weight.len(), output * input * area);
    packed
}

/// `[I, O, 4, 4]` of a transposed convolution with stride 2 and padding 1 to the 2x2 kernels of its four phases,
/// `[4 (py, px), O, 2 (ty), 2 (tx), I]`: output pixel `2 m + p` meets input `m + p - 1 + t` through tap `3 - p - 2 t`.
pub fn deconv_weights(weight: &[f32], [input, output]: [usize; 2]) -> Vec<f32> {
    let (depth, rows) = (padded(input), padded(output));
    let mut packed = vec![0.0; 4 * rows * 4 * depth];
    for (channel, weight) in weight.chunks_exact(output * 16).enumerate() {
        for (o, taps) in weight.chunks_exact(16).enumerate() {
            for phase in 0..4 {
                for tap in 0..4 {
                    let (y, x) = (3 - phase / 2 - 2 * (tap / 2), 3 - phase % 2 - 2 * (tap % 2));
                    packed[((phase * rows + o) * 4 + tap) * depth + channel] = taps[y * 4 + x];
                }
            }
        }
    }
    packed
}
