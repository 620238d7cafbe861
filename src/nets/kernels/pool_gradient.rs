//! The gradient of max-pooling of blocked activations.

use rayon::prelude::*;

use super::simd::LANES;

/// Gradient of the input `x` of [`super::max_pool`], `[.., height, width, 16]`, from that of its output, `grad`. It
/// goes to the first of a window's greatest values. `sides` are the input's rows and columns, then the output's.
pub fn max_pool_gradient(
    x: &[f32],
    out: &[f32],
    grad: &[f32],
    [height, width, out_height, out_width]: [usize; 4],
    [kernel, stride, padding]: [usize; 3],
) -> Vec<f32> {
    let (plane, out_plane) = (height * width * LANES, out_height * out_width * LANES);
    assert!(x.len() / plane == out.len() / out_plane && out.len() == grad.len(), "planes that do not belong together");
    let mut to = vec![0.0; x.len()];
    to.par_chunks_exact_mut(plane).enumerate().for_each(|(index, to)| {
        let x = x[index * plane..][..plane].as_chunks::<LANES>().0;
        let [out, grad] = [out, grad].map(|of| of[index * out_plane..][..out_plane].as_chunks::<LANES>().0);
        let to = to.as_chunks_mut::<LANES>().0;
        let window =
            |at: usize, side: usize| (at * stride).saturating_sub(padding)..(at * stride + kernel - padding).min(side);
        for (at, (out, grad)) in out.iter().zip(grad).enumerate() {
            let mut left = *grad;
            for y in window(at / out_width, height) {
                for pixel in window(at % out_width, width).map(|col| y * width + col) {
                    for l in 0..LANES {
                        // What is given away leaves nothing for later ones.
                        let given = if x[pixel][l] == out[l] { left[l] } else { 0.0 };
                        to[pixel][l] += given;
                        left[l] -= given;
                    }
                }
            }
        }
    });
    to
}
