//! Sums over blocked activations: means of lines, and the marginals of a softmax over volumes.

use rayon::prelude::*;

use super::Isa;
use super::map::Map;
use super::simd::{Kernel, LANES, Lanes};
use super::softmax::exp;

/// Means over the rows, `[batch, channels, width]`, and over the columns, `[batch, channels, height]`.
pub fn line_means(isa: Isa, x: &Map) -> [Vec<f32>; 2] {
    let [batch, channels, height, width] = x.shape();
    let mut over_rows = vec![0.0; batch * channels * width];
    let mut over_columns = vec![0.0; batch * channels * height];
    if over_rows.is_empty() || over_columns.is_empty() {
        return [over_rows, over_columns];
    }
    for (image, (rows, columns)) in
        over_rows.chunks_exact_mut(channels * width).zip(over_columns.chunks_exact_mut(channels * height)).enumerate()
    {
        // The last block may have fewer channels.
        let blocks = rows.par_chunks_mut(LANES * width).zip(columns.par_chunks_mut(LANES * height));
        blocks.enumerate().for_each(|(block, (over_rows, over_columns))| {
            let plane = &x.data[(image * x.blocks() + block) * x.plane()..][..x.plane()];
            isa.run(LineMeans { plane, width, height, over_rows, over_columns });
        });
    }
    [over_rows, over_columns]
}

struct LineMeans<'a> {
    plane: &'a [f32],
    width: usize,
    height: usize,
    over_rows: &'a mut [f32],
    over_columns: &'a mut [f32],
}

impl Kernel for LineMeans<'_> {
    #[inline(always)]
    fn run<V: Lanes>(self) {
        let Self { plane, width, height, over_rows, over_columns } = self;
        let mut columns = vec![[0.0; LANES]; width];
        let mut lanes = [0.0; LANES];
        for (y, row) in plane.as_chunks::<LANES>().0.chunks_exact(width).enumerate() {
            let mut sum = V::splat(0.0);
            for (pixel, column) in row.iter().zip(&mut columns) {
                let pixel = V::load(pixel);
                sum = sum.add(pixel);
                V::load(column).add(pixel).store(column);
            }
            sum.store(&mut lanes);
            for (out, sum) in over_columns.chunks_exact_mut(height).zip(&lanes) {
                out[y] = sum / width as f32;
            }
        }
        for (lane, out) in over_rows.chunks_exact_mut(width).enumerate() {
            for (out, column) in out.iter_mut().zip(&columns) {
                *out = column[lane] / height as f32;
            }
        }
    }
}

/// The marginals of a softmax over volumes of `depth` cells a side, `[batch, volumes, depth (z) / 16, depth (y),
/// depth (x), 16]`: what comes out is `[batch, volumes, 3, depth]`, along x, y and z. The depth is a multiple of 16, so
/// that a volume is whole blocks.
pub fn volume_marginals(isa: Isa, volumes: &[f32], depth: usize) -> Vec<f32> {
    assert!(depth > 0 && depth.is_multiple_of(LANES), "a volume is whole blocks");
    assert!(volumes.len().is_multiple_of(depth.pow(3)), "the volumes are cubes");
    let mut out = vec![0.0; volumes.len() / depth.pow(3) * 3 * depth];
    let volumes = volumes.par_chunks_exact(depth.pow(3));
    out.par_chunks_exact_mut(3 * depth).zip(volumes).for_each(|(out, volume)| {
        isa.run(VolumeMarginals { volume, depth, out });
    });
    out
}

struct VolumeMarginals<'a> {
    volume: &'a [f32], // [block][y][x][16]
    depth: usize,
    out: &'a mut [f32],
}

impl Kernel for VolumeMarginals<'_> {
    #[inline(always)]
    fn run<V: Lanes>(self) {
        let Self { volume, depth, out } = self;
        let pixels = volume.as_chunks::<LANES>().0;
        let mut most = V::splat(f32::NEG_INFINITY);
        for pixel in pixels {
            most = most.max(V::load(pixel));
        }
        let mut lanes = [0.0; LANES];
        most.store(&mut lanes);
        let most = V::splat(lanes.into_iter().fold(f32::NEG_INFINITY, f32::max));

        let (out_x, rest) = out.split_at_mut(depth);
        let (out_y, out_z) = rest.split_at_mut(depth);
        let mut columns = vec![[0.0; LANES]; depth];
        let mut rows = vec![[0.0; LANES]; depth];
        for (block, out_z) in pixels.chunks_exact(depth * depth).zip(out_z.chunks_exact_mut(LANES)) {
            let mut over_plane = V::splat(0.0);
            for (row, row_sum) in block.chunks_exact(depth).zip(&mut rows) {
                let mut sum = V::splat(0.0);
                for (pixel, column) in row.iter().zip(&mut columns) {
                    let p = exp(V::load(pixel).sub(most));
                    sum = sum.add(p);
                    V::load(column).add(p).store(column);
                }
                V::load(row_sum).add(sum).store(row_sum);
                over_plane = over_plane.add(sum);
            }
            over_plane.store(&mut lanes);
            out_z.copy_from_slice(&lanes);
        }
        let total: f32 = out_z.iter().sum();
        for (out, sums) in [(out_x, &columns), (out_y, &rows)] {
            for (out, sums) in out.iter_mut().zip(sums) {
                *out = sums.iter().sum::<f32>() / total;
            }
        }
        for out in out_z {
            *out /= total;
        }
    }
}
