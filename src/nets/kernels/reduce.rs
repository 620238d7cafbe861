//! Sums over blocked activations: means of lines, and the marginals of a softmax over volumes.

use rayon::prelude::*;

use super::Isa;
use super::map::{Map, for_each_part};
use super::simd::{Kernel, LANES, Lanes};
use super::softmax::exp;
use crate::memory::Buffer;

/// Means over the rows, `[batch, channels, width]`, and over the columns, `[batch, channels, height]`.
pub fn line_means(isa: Isa, x: &Map) -> [Buffer; 2] {
    let [batch, channels, height, width] = x.shape();
    let mut over_rows = Buffer::take(batch * channels * width);
    let mut over_columns = Buffer::take(batch * channels * height);
    if over_rows.is_empty() || over_columns.is_empty() {
        return [over_rows, over_columns];
    }
    let mut sums: Buffer = Buffer::take(x.blocks() * width * LANES);
    for (image, (rows, columns)) in
        over_rows.chunks_exact_mut(channels * width).zip(over_columns.chunks_exact_mut(channels * height)).enumerate()
    {
        // The last block may have fewer channels.
        let blocks = rows.par_chunks_mut(LANES * width).zip(columns.par_chunks_mut(LANES * height));
        blocks.zip(sums.par_chunks_mut(LANES * width)).enumerate().for_each(
            |(block, ((over_rows, over_columns), sums))| {
                let plane = &x.data[(image * x.blocks() + block) * x.plane()..][..x.plane()];
                isa.run(LineMeans { plane, width, height, sums, over_rows, over_columns });
            },
        );
    }
    [over_rows, over_columns]
}

struct LineMeans<'a> {
    plane: &'a [f32],
    width: usize,
    height: usize,
    /// Room for a pixel of each column.
    sums: &'a mut [f32],
    over_rows: &'a mut [f32],
    over_columns: &'a mut [f32],
}

impl Kernel for LineMeans<'_> {
    #[inline(always)]
    fn run<V: Lanes>(self) {
        let Self { plane, width, height, sums, over_rows, over_columns } = self;
        let columns = sums.as_chunks_mut::<LANES>().0;
        columns.fill([0.0; LANES]);
        let mut lanes = [0.0; LANES];
        for (y, row) in plane.as_chunks::<LANES>().0.chunks_exact(width).enumerate() {
            let mut sum = V::splat(0.0);
            for (pixel, column) in row.iter().zip(columns.iter_mut()) {
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
            for (out, column) in out.iter_mut().zip(columns.iter()) {
                *out = column[lane] / height as f32;
            }
        }
    }
}

/// Mean of each channel, `[batch, channels, 1, 1]`.
pub fn channel_means(isa: Isa, x: &Map) -> Map {
    let mut out = Map::new([x.batch, x.channels, 1, 1]);
    if x.plane() == 0 {
        out.data.fill(f32::NAN);
        return out;
    }
    for_each_part(&mut out.data, LANES, |at, out| {
        isa.run(ChannelMeans { plane: &x.data[at * x.plane()..][..x.plane()], out: &mut out.as_chunks_mut().0[0] });
    });
    out
}

struct ChannelMeans<'a> {
    plane: &'a [f32],
    out: &'a mut [f32; LANES],
}

impl Kernel for ChannelMeans<'_> {
    #[inline(always)]
    fn run<V: Lanes>(self) {
        let pixels = self.plane.as_chunks::<LANES>().0;
        let sum = pixels.iter().fold(V::splat(0.0), |sum, pixel| sum.add(V::load(pixel)));
        V::splat(0.0).add_product(sum, V::splat(1.0 / pixels.len() as f32)).store(self.out);
    }
}

/// The marginals of a softmax over volumes of `depth` cells a side, `[batch, volumes, depth (z) / 16, depth (y),
/// depth (x), 16]`: what comes out is `[batch, volumes, 3, depth]`, along x, y and z. The depth is a multiple of 16, so
/// that a volume is whole blocks.
pub fn volume_marginals(isa: Isa, volumes: &[f32], depth: usize) -> Buffer {
    assert!(depth > 0 && depth.is_multiple_of(LANES), "a volume is whole blocks");
    assert!(volumes.len().is_multiple_of(depth.pow(3)), "the volumes are cubes");
    let mut out: Buffer = Buffer::take(volumes.len() / depth.pow(3) * 3 * depth);
    let volumes = volumes.par_chunks_exact(depth.pow(3));
    out.par_chunks_exact_mut(3 * depth).zip(volumes).for_each_init(
        || Buffer::take(2 * depth * LANES),
        |sums: &mut Buffer, (out, volume)| isa.run(VolumeMarginals { volume, depth, sums, out }),
    );
    out
}

struct VolumeMarginals<'a> {
    volume: &'a [f32], // [block][y][x][16]
    depth: usize,
    /// Room for a line of pixels along x, and one along y.
    sums: &'a mut [f32],
    out: &'a mut [f32],
}

impl Kernel for VolumeMarginals<'_> {
    #[inline(always)]
    fn run<V: Lanes>(self) {
        let Self { volume, depth, sums, out } = self;
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
        sums.fill(0.0);
        let (columns, rows) = sums.as_chunks_mut::<LANES>().0.split_at_mut(depth);
        for (block, out_z) in pixels.chunks_exact(depth * depth).zip(out_z.chunks_exact_mut(LANES)) {
            let mut over_plane = V::splat(0.0);
            for (row, row_sum) in block.chunks_exact(depth).zip(rows.iter_mut()) {
                let mut sum = V::splat(0.0);
                for (pixel, column) in row.iter().zip(columns.iter_mut()) {
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
        for (out, sums) in [(out_x, &*columns), (out_y, &*rows)] {
            for (out, sums) in out.iter_mut().zip(sums) {
                *out = sums.iter().sum::<f32>() / total;
            }
        }
        for out in out_z {
            *out /= total;
        }
    }
}
