//! The losses of I2L-MeshNet: of the coordinates (eq. 8 and 9) by candle's operations, and those of the surface (eq.
//! 10 and 11), which have an operation of their own. Coordinates `[B, N, 3]` in lixels; each loss is the mean over all
//! of its elements, those that do not count included, as in the release.
//!
//! `valid [B, N, 1]` is 1 where a point has a target and 0 where not.

use candle_core::{Result, Tensor};

pub use super::ops::{Faces, surface_losses};

/// L1 of the coordinates (eq. 8 and 9). `is_3d [B]` is 0 for people whose depth is not known: their z does not count.
pub fn coordinate_loss(output: &Tensor, target: &Tensor, valid: &Tensor, is_3d: &Tensor) -> Result<Tensor> {
    let error = (output - target)?.abs()?.broadcast_mul(valid)?;
    let has_depth = is_3d.reshape((is_3d.elem_count(), 1, 1))?;
    let depth = error.narrow(2, 2, 1)?.broadcast_mul(&has_depth)?;
    Tensor::cat(&[error.narrow(2, 0, 2)?, depth], 2)?.mean_all()
}
