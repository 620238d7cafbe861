//! The losses of I2L-MeshNet (eq. 8 to 11), with gradients by candle. Coordinates `[B, N, 3]` in lixels; each loss is
//! the mean over all of its elements, those that do not count included, as in the release.
//!
//! `valid [B, N, 1]` is 1 where a point has a target and 0 where not.

use candle_core::{Result, Tensor};

/// Added to squared lengths, so that an edge without length has a gradient of 0 and not of 0 times infinity. Far
/// below what f32 tells apart at any length of interest.
const TINY: f64 = 1e-24;

/// L1 of the coordinates (eq. 8 and 9). `is_3d [B]` is 0 for people whose depth is not known: their z does not count.
pub fn coordinate_loss(output: &Tensor, target: &Tensor, valid: &Tensor, is_3d: &Tensor) -> Result<Tensor> {
    let error = (output - target)?.abs()?.broadcast_mul(valid)?;
    let has_depth = is_3d.reshape((is_3d.elem_count(), 1, 1))?;
    let depth = error.narrow(2, 2, 1)?.broadcast_mul(&has_depth)?;
    Tensor::cat(&[error.narrow(2, 0, 2)?, depth], 2)?.mean_all()
}

/// The faces of a mesh as the three columns of their vertices.
pub struct Faces([Tensor; 3]);

impl Faces {
    /// `faces [F, 3]`, integers.
    pub fn new(faces: &Tensor) -> Result<Self> {
        let column = |i| faces.narrow(1, i, 1)?.squeeze(1)?.contiguous();
        Ok(Self([column(0)?, column(1)?, column(2)?]))
    }

    /// A value of the vertices at the corners of every face: `[B, V, C] -> 3 x [B, F, C]`.
    fn corners(&self, values: &Tensor) -> Result<[Tensor; 3]> {
        let [a, b, c] = &self.0;
        let at = |column: &Tensor| values.contiguous()?.index_select(column, 1);
        Ok([at(a)?, at(b)?, at(c)?])
    }
}

/// Cosine between each edge of the output's faces and the target's face normal (eq. 10): 0 where the faces lie in the
/// same plane.
pub fn normal_vector_loss(output: &Tensor, target: &Tensor, valid: &Tensor, faces: &Faces) -> Result<Tensor> {
    let [o0, o1, o2] = faces.corners(output)?;
    let [t0, t1, t2] = faces.corners(target)?;
    let normal = normalized(&cross(&normalized(&(t1 - &t0)?)?, &normalized(&(t2 - &t0)?)?)?)?;
    let [v0, v1, v2] = faces.corners(valid)?;
    let counts = ((v0 * v1)? * v2)?;
    let cosine = |edge: Tensor| (normalized(&edge)? * &normal)?.sum_keepdim(2)?.abs()? * &counts;
    Tensor::cat(&[cosine((&o1 - &o0)?)?, cosine((&o2 - &o0)?)?, cosine((&o2 - &o1)?)?], 1)?.mean_all()
}

/// L1 of the lengths of the faces' edges (eq. 11).
pub fn edge_length_loss(output: &Tensor, target: &Tensor, valid: &Tensor, faces: &Faces) -> Result<Tensor> {
    let output = faces.corners(output)?;
    let target = faces.corners(target)?;
    let valid = faces.corners(valid)?;
    let edge = |a: usize, b: usize| {
        let difference = (length(&(&output[a] - &output[b])?)? - length(&(&target[a] - &target[b])?)?)?;
        difference.abs()? * (&valid[a] * &valid[b])?
    };
    Tensor::cat(&[edge(0, 1)?, edge(0, 2)?, edge(1, 2)?], 1)?.mean_all()
}

/// `[B, F, 3] -> [B, F, 1]`
fn length(v: &Tensor) -> Result<Tensor> {
    (v.sqr()?.sum_keepdim(2)? + TINY)?.sqrt()
}

/// `[B, F, 3] -> [B, F, 3]`
fn normalized(v: &Tensor) -> Result<Tensor> {
    v.broadcast_div(&length(v)?)
}

/// `[B, F, 3] x [B, F, 3] -> [B, F, 3]`
fn cross(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let axis = |v: &Tensor, i: usize| v.narrow(2, i % 3, 1);
    let component = |i: usize| (axis(a, i + 1)? * axis(b, i + 2)?)? - (axis(a, i + 2)? * axis(b, i + 1)?)?;
    Tensor::cat(&[component(0)?, component(1)?, component(2)?], 2)
}
