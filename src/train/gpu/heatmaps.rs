//! Lines, heatmaps and volumes: the twins of [`ops`](crate::train::ops) on planes.

use candle_core::{DType, Result, Shape, Tensor, bail};

use super::kernels::{self, Lines};
use super::machine::{Machine, Memory};
use super::operation::{Operand, Operation, Traced};
use super::planar_dims;
use crate::nets::cuda::kernels::Ptr;

/// `[B, C, D, D, 1] -> [2, B, C, D, 1]`: means over the rows, the line along x, and over the columns, that along y.
pub fn axis_means(x: &Tensor) -> Result<Tensor> {
    Traced(AxisMeans).apply(x)
}

struct AxisMeans;

impl Operation for AxisMeans {
    const NAME: &'static str = "means of rows and of columns";

    fn forward(&self, on: &dyn Machine, inputs: &[Operand]) -> Result<(Memory, Shape)> {
        let [batch, channels, side, width] = planar_dims(inputs[0].dims)?;
        if side != width {
            bail!("planes of {side}x{width} pixels are not square");
        }
        let lines = on.take(2 * batch * channels * side)?;
        kernels::axis_means(on, inputs[0].at, lines.at, batch * channels, side)?;
        Ok((lines, Shape::from((2, batch, channels, side, super::LANES))))
    }

    fn backward(&self, on: &dyn Machine, inputs: &[Operand], _: Operand, grad: Ptr) -> Result<Vec<Option<Memory>>> {
        let [batch, channels, side, _] = planar_dims(inputs[0].dims)?;
        let dx = on.take(batch * channels * side * side)?;
        kernels::axis_means_gradient(on, grad, dx.at, batch * channels, side)?;
        Ok(vec![Some(dx)])
    }
}

/// Points and bins of logits `[B, N, 1, D, 1]`.
fn lines_of(dims: &[usize]) -> Result<[usize; 3]> {
    match planar_dims(dims)? {
        [batch, points, 1, bins] => Ok([batch, points, bins]),
        [.., rows, _] => bail!("a line has one row, not {rows}"),
    }
}

/// Logits `[B, N, 1, D, 1]` to the expected bin, `[B, N]`.
pub fn soft_argmax(logits: &Tensor) -> Result<Tensor> {
    Traced(SoftArgmax).apply(logits)
}

struct SoftArgmax;

impl Operation for SoftArgmax {
    const NAME: &'static str = "soft-argmax";

    fn forward(&self, on: &dyn Machine, inputs: &[Operand]) -> Result<(Memory, Shape)> {
        let [batch, points, bins] = lines_of(inputs[0].dims)?;
        let coords = on.take(batch * points)?;
        kernels::soft_argmax(on, inputs[0].at, coords.at, Lines { count: batch * points, bins })?;
        Ok((coords, Shape::from((batch, points))))
    }

    fn backward(
        &self,
        on: &dyn Machine,
        inputs: &[Operand],
        coords: Operand,
        grad: Ptr,
    ) -> Result<Vec<Option<Memory>>> {
        let [batch, points, bins] = lines_of(inputs[0].dims)?;
        let dx = on.take(batch * points * bins)?;
        let lines = Lines { count: batch * points, bins };
        kernels::soft_argmax_gradient(on, [inputs[0].at, coords.at, grad], dx.at, lines)?;
        Ok(vec![Some(dx)])
    }
}

/// Logits `[B, N, 1, D, 1]` and where each point is, `[B, N]`, to the mean cross-entropy of those that count. Scalar.
pub fn heatmap_cross_entropy(logits: &Tensor, targets: &Tensor) -> Result<Tensor> {
    let [.., bins] = lines_of(logits.dims())?;
    let losses = Traced(LineEntropy).apply2(logits, targets)?;
    // How many count is found out there, too: nothing is waited for.
    let inside = (targets.ge(0.0_f32)? * targets.le((bins - 1) as f32)?)?;
    let counted = inside.to_dtype(DType::F32)?.sum_all()?.maximum(1.0_f32)?;
    losses.sum_all()? / counted
}

struct LineEntropy;

impl Operation for LineEntropy {
    const NAME: &'static str = "cross-entropy of heatmaps";

    fn forward(&self, on: &dyn Machine, inputs: &[Operand]) -> Result<(Memory, Shape)> {
        let [batch, points, bins] = lines_of(inputs[0].dims)?;
        if inputs[1].dims != [batch, points] || bins < 2 {
            bail!("targets {:?} for {batch} times {points} points, {bins} bins", inputs[1].dims);
        }
        let losses = on.take(batch * points)?;
        let lines = Lines { count: batch * points, bins };
        kernels::line_entropy(on, [inputs[0].at, inputs[1].at], losses.at, lines)?;
        Ok((losses, Shape::from((batch, points))))
    }

    fn backward(&self, on: &dyn Machine, inputs: &[Operand], _: Operand, grad: Ptr) -> Result<Vec<Option<Memory>>> {
        let [batch, points, bins] = lines_of(inputs[0].dims)?;
        let dx = on.take(batch * points * bins)?;
        let lines = Lines { count: batch * points, bins };
        kernels::line_entropy_gradient(on, [inputs[0].at, inputs[1].at, grad], dx.at, lines)?;
        Ok(vec![Some(dx), None])
    }
}

/// Logits of volumes, `[B, N D, D (y), D (x), 1]` with the depths of each as its channels, to the expected cell
/// `[B, N, 3]`, x first.
pub fn volume_soft_argmax(logits: &Tensor) -> Result<Tensor> {
    Traced(VolumeSoftArgmax).apply(logits)
}

struct VolumeSoftArgmax;

/// People, volumes of each, cells along a side.
fn volumes_of(dims: &[usize]) -> Result<[usize; 3]> {
    let [batch, channels, height, depth] = planar_dims(dims)?;
    if height != depth || !channels.is_multiple_of(depth) {
        bail!("{channels} planes of {height}x{depth} are no cubes");
    }
    Ok([batch, channels / depth, depth])
}

impl Operation for VolumeSoftArgmax {
    const NAME: &'static str = "soft-argmax of volumes";

    fn forward(&self, on: &dyn Machine, inputs: &[Operand]) -> Result<(Memory, Shape)> {
        let [batch, volumes, depth] = volumes_of(inputs[0].dims)?;
        let coords = on.take(batch * volumes * 3)?;
        kernels::volume_soft_argmax(on, inputs[0].at, coords.at, batch * volumes, depth)?;
        Ok((coords, Shape::from((batch, volumes, 3))))
    }

    fn backward(
        &self,
        on: &dyn Machine,
        inputs: &[Operand],
        coords: Operand,
        grad: Ptr,
    ) -> Result<Vec<Option<Memory>>> {
        let [batch, volumes, depth] = volumes_of(inputs[0].dims)?;
        let dx = on.take(inputs[0].dims.iter().product())?;
        let read = [inputs[0].at, coords.at, grad];
        kernels::volume_soft_argmax_gradient(on, read, dx.at, batch * volumes, depth)?;
        Ok(vec![Some(dx)])
    }
}
