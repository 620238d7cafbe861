//! 1D heatmaps over lixels (line pixels) become coordinates, and say how sure they are. Knows no camera and no
//! anatomy.
//!
//! Every joint or vertex has three heatmaps, along x, y and z, each a probability over `D` bins. Its coordinate is
//! the expectation of the bin *index* `0..D` (soft-argmax), its spread the standard deviation, its mode the likeliest
//! bin. Everything stays on the device; [`Lixels::rows`] fetches the heatmaps that are asked for and no others. On the
//! processor it lies in [`memory`](crate::memory) that serves the next frame.

pub mod gaussian;
mod moments;

use anyhow::{Result, bail};
use candle_core::{D, Device, Result as CandleResult, Tensor};
use glam::Vec3;

use crate::memory::Buffer;
use crate::nets::layers::{Values, count_plain_run};

/// Probabilities over the bins, along the last axis: `[..., D] -> [..., D]`.
pub fn softmax(logits: &Tensor) -> CandleResult<Tensor> {
    candle_nn::ops::softmax_last_dim(&logits.contiguous()?)
}

/// Expectation of the bin index (soft-argmax; I2L-MeshNet, eq. 3): `[..., D] -> [...]`, in lixels.
pub fn soft_argmax(heatmaps: &Tensor) -> CandleResult<Tensor> {
    heatmaps.broadcast_mul(&bin_indices(heatmaps)?)?.sum(D::Minus1)
}

/// Standard deviation around `coords`: `[..., D], [...] -> [...]`, in lixels. 0 for a heatmap of one bin, `(D - 1) /
/// sqrt(12)` or so for one that says nothing.
pub fn spread(heatmaps: &Tensor, coords: &Tensor) -> CandleResult<Tensor> {
    let offsets = bin_indices(heatmaps)?.broadcast_sub(&coords.unsqueeze(D::Minus1)?)?;
    (heatmaps * offsets.sqr()?)?.sum(D::Minus1)?.sqrt()
}

/// The likeliest bin: `[..., D] -> [...]`, u32.
pub fn mode(heatmaps: &Tensor) -> CandleResult<Tensor> {
    heatmaps.argmax(D::Minus1)
}

/// `0, 1, .. D - 1` for the last axis.
fn bin_indices(heatmaps: &Tensor) -> CandleResult<Tensor> {
    let bins = heatmaps.dim(D::Minus1)?;
    Tensor::arange(0.0, bins as f32, heatmaps.device())?.to_dtype(heatmaps.dtype())
}

/// What a network says about the joints or the vertices of `B` people, `N` each.
#[derive(Clone, Debug)]
pub struct Lixels {
    /// `[B, N, 3, D]`: probabilities over the bins of x, y and z.
    pub heatmaps: Values,
    /// `[B, N, 3]`: soft-argmax of each heatmap, in lixels.
    pub coords: Values,
    /// `[B, N, 3]`: standard deviation of each heatmap, in lixels.
    pub spread: Values,
    /// `[B, N, 3]`, f32: the likeliest bin of each heatmap, where the pass that made them found it too (on NVIDIA GPUs).
    pub mode: Option<Tensor>,
}

impl Lixels {
    /// From probabilities `[B, N, 3, D]`.
    pub fn new(heatmaps: impl Into<Values>) -> CandleResult<Self> {
        let heatmaps = heatmaps.into();
        if let Some([coords, spread]) = moments::on_cpu(&heatmaps)? {
            return Ok(Self { heatmaps, coords, spread, mode: None });
        }
        count_plain_run();
        let plain = heatmaps.to_tensor()?;
        let coords = soft_argmax(&plain)?;
        let spread = spread(&plain, &coords)?;
        Ok(Self { heatmaps, coords: coords.into(), spread: spread.into(), mode: None })
    }

    /// From the logits of x, y and z, each `[B, N, D]`.
    pub fn from_logits(xyz: &[Values; 3]) -> CandleResult<Self> {
        if let Some([heatmaps, coords, spread]) = moments::from_logits(xyz)? {
            return Ok(Self { heatmaps, coords, spread, mode: None });
        }
        let [x, y, z] = xyz.each_ref().map(Values::to_tensor);
        Self::new(softmax(&Tensor::stack(&[x?, y?, z?], 2)?)?)
    }

    /// People in the batch.
    pub fn people(&self) -> usize {
        self.heatmaps.dims()[0]
    }

    /// Joints or vertices of each person.
    pub fn count(&self) -> usize {
        self.heatmaps.dims()[1]
    }

    /// Bins of each heatmap.
    pub fn bins(&self) -> usize {
        self.heatmaps.dims()[3]
    }

    /// The heatmaps along x, y and z of the chosen joints or vertices of one person, gathered on the device before
    /// they are fetched. In the order of `indices`.
    pub fn rows(&self, person: usize, indices: &[u32]) -> Result<Vec<[Vec<f32>; 3]>> {
        if person >= self.people() {
            bail!("person {person} of a batch of {}", self.people());
        }
        if let Some(index) = indices.iter().find(|&&i| i as usize >= self.count()) {
            bail!("there is no joint or vertex {index}: they are numbered 0 to {}", self.count().saturating_sub(1));
        }
        if indices.is_empty() {
            return Ok(Vec::new());
        }
        let row = 3 * self.bins();
        match &self.heatmaps {
            Values::Reused(floats, _) => {
                let person = &floats[person * self.count() * row..];
                Ok(indices.iter().map(|&i| self.triple(&person[i as usize * row..][..row])).collect())
            }
            Values::Tensor(heatmaps) => {
                let indices = Tensor::new(indices, heatmaps.device())?;
                // [N, 3, D] -> [n, 3, D]
                let rows = heatmaps.get(person)?.index_select(&indices, 0)?.to_device(&Device::Cpu)?;
                Ok(rows.flatten_all()?.to_vec1()?.chunks_exact(row).map(|row| self.triple(row)).collect())
            }
        }
    }

    /// The three heatmaps of a point.
    fn triple(&self, row: &[f32]) -> [Vec<f32>; 3] {
        [0, 1, 2].map(|axis| row[axis * self.bins()..][..self.bins()].to_vec())
    }

    /// The likeliest bins along x, y and z of a joint or vertex whose heatmaps were fetched by [`Self::rows`].
    pub fn mode_of(&self, person: usize, index: u32, rows: &[Vec<f32>; 3]) -> CandleResult<[usize; 3]> {
        let Some(mode) = &self.mode else { return Ok(rows.each_ref().map(|row| likeliest(row))) };
        let index = Tensor::new(&[index], mode.device())?;
        let bins: Vec<f32> = mode.get(person)?.index_select(&index, 0)?.flatten_all()?.to_vec1()?;
        Ok([0, 1, 2].map(|axis| bins[axis] as usize))
    }
}

/// Likeliest bin of one heatmap.
fn likeliest(heatmap: &[f32]) -> usize {
    let best = heatmap.iter().enumerate().reduce(|best, next| if next.1 > best.1 { next } else { best });
    best.map_or(0, |(bin, _)| bin)
}

/// Fetches points: `[B, N, 3]`, one list for each person.
pub fn points(values: &Values) -> CandleResult<Vec<Buffer<Vec3>>> {
    let &[people, count, 3] = values.dims() else {
        candle_core::bail!("expected points [B, N, 3], got {:?}", values.dims())
    };
    let floats = values.fetch()?;
    let of = |person: usize| bytemuck::cast_slice(&floats[person * count * 3..][..count * 3]).into();
    Ok((0..people).map(of).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heatmaps(rows: &[[f32; 4]; 3]) -> Tensor {
        Tensor::new(rows, &Device::Cpu).unwrap().unsqueeze(0).unwrap().unsqueeze(0).unwrap()
    }

    #[test]
    fn one_bin_has_no_spread_and_two_have_the_distance_to_their_middle() {
        let lixels =
            Lixels::new(heatmaps(&[[0.0, 0.0, 0.0, 1.0], [0.5, 0.0, 0.0, 0.5], [0.25, 0.25, 0.25, 0.25]])).unwrap();
        assert_eq!(points(&lixels.coords).unwrap(), [[Vec3::new(3.0, 1.5, 1.5)]]);
        let spread = points(&lixels.spread).unwrap()[0][0];
        assert_eq!((spread.x, spread.y), (0.0, 1.5));
        assert!((spread.z - 1.25_f32.sqrt()).abs() < 1e-6);
        assert_eq!(
            mode(&lixels.heatmaps.to_tensor().unwrap()).unwrap().flatten_all().unwrap().to_vec1::<u32>().unwrap()[0],
            3
        );
    }

    #[test]
    fn softmax_sums_to_one_however_large_the_logits() {
        let logits = heatmaps(&[[900.0, 900.0, -900.0, -900.0], [0.0, 1.0, 2.0, 3.0], [-1e30, 0.0, 0.0, 0.0]]);
        let sums: Vec<f32> = softmax(&logits).unwrap().sum(3).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        assert!(sums.iter().all(|s| (s - 1.0).abs() < 1e-6), "{sums:?}");
    }

    #[test]
    fn rows_come_in_the_order_asked_for_and_a_wrong_index_is_named() {
        let x = Tensor::arange(0.0_f32, 5.0, &Device::Cpu).unwrap().reshape((1, 5, 1)).unwrap();
        let x = x.broadcast_as((1, 5, 2)).unwrap().contiguous().unwrap();
        let lixels = Lixels::new(Tensor::stack(&[&x, &x, &x], 2).unwrap()).unwrap();
        let rows = lixels.rows(0, &[4, 1]).unwrap();
        assert_eq!((rows[0][2][1], rows[1][0][0]), (4.0, 1.0));
        assert!(lixels.rows(0, &[5]).unwrap_err().to_string().contains("vertex 5"));
        assert!(lixels.rows(1, &[0]).is_err());
        assert!(lixels.rows(0, &[]).unwrap().is_empty());
    }

    #[test]
    fn the_mode_is_the_first_of_the_largest_whoever_found_it() {
        let plain = Lixels::new(heatmaps(&[[0.1, 0.4, 0.1, 0.4], [1.0, 0.0, 0.0, 0.0], [0.0, 0.2, 0.3, 0.5]])).unwrap();
        let rows = plain.rows(0, &[0]).unwrap();
        assert_eq!(plain.mode_of(0, 0, &rows[0]).unwrap(), [1, 0, 3]);
        let told = mode(&plain.heatmaps.to_tensor().unwrap()).unwrap().to_dtype(candle_core::DType::F32).unwrap();
        let with_mode = Lixels { mode: Some(told), ..plain };
        assert_eq!(with_mode.mode_of(0, 0, &rows[0]).unwrap(), [1, 0, 3]);
    }
}
