//! Coordinates become Gaussian heatmaps (I2L-MeshNet, eq. 4). A 3D Gaussian is the product of three 1D ones, which
//! are all that the networks need; the volume itself is here to hold them against.

use candle_core::{D, Result, Tensor};

/// Standard deviation of the release's Gaussians, in bins.
pub const SIGMA: f64 = 2.5;

/// `exp(-((i - coord) / sigma)^2 / 2)` for every bin i: `[...] -> [..., D]`.
pub fn gaussian(coords: &Tensor, bins: usize, sigma: f64) -> Result<Tensor> {
    let indices = Tensor::arange(0.0, bins as f32, coords.device())?.to_dtype(coords.dtype())?;
    let offsets = indices.broadcast_sub(&coords.unsqueeze(D::Minus1)?)?;
    ((offsets / sigma)?.sqr()? * -0.5)?.exp()
}

/// The 3D Gaussians around `coords`: `[B, N, 3] -> [B, N, D (z), D (y), D (x)]`. 31 MB a person for 29 joints.
pub fn gaussian_volume(coords: &Tensor, bins: usize, sigma: f64) -> Result<Tensor> {
    let (batch, count, _) = coords.dims3()?;
    let factors = gaussian(coords, bins, sigma)?; // [B, N, 3, D]
    let axis = |i: usize, shape: [usize; 5]| factors.narrow(2, i, 1)?.reshape(&shape);
    let x = axis(0, [batch, count, 1, 1, bins])?;
    let y = axis(1, [batch, count, 1, bins, 1])?;
    let z = axis(2, [batch, count, bins, 1, 1])?;
    z.broadcast_mul(&y.broadcast_mul(&x)?)
}
