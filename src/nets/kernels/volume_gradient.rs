//! The gradient of the soft-argmax of a volume.

use super::Isa;
use super::simd::{Kernel, LANES, Lanes};
use super::softmax::exp;

/// Logits of a volume of `depth` cells a side, `[depth (z) / 16, depth (y), depth (x), 16]`, whose expected cell is
/// `mean`, x first. Writes the gradient of the product of `slope` and that mean to `out`: for each cell its probability
/// times `slope` times the way from the mean to the cell.
pub fn volume_gradient(isa: Isa, volume: &[f32], depth: usize, slope: [f32; 3], mean: [f32; 3], out: &mut [f32]) {
    assert!(depth > 0 && depth.is_multiple_of(LANES), "a volume is whole blocks");
    assert!(volume.len() == depth.pow(3) && out.len() == volume.len(), "a volume and its gradient are cubes");
    isa.run(VolumeGradient { volume, depth, slope, mean, out });
}

struct VolumeGradient<'a> {
    volume: &'a [f32], // [block][y][x][16]
    depth: usize,
    slope: [f32; 3],
    mean: [f32; 3],
    out: &'a mut [f32],
}

impl Kernel for VolumeGradient<'_> {
    #[inline(always)]
    fn run<V: Lanes>(self) {
        let Self { volume, depth, slope, mean, out } = self;
        let (cells, out) = (volume.as_chunks::<LANES>().0, out.as_chunks_mut::<LANES>().0);
        let mut lanes = [0.0; LANES];
        let most = cells.iter().fold(V::splat(f32::NEG_INFINITY), |most, cell| most.max(V::load(cell)));
        most.store(&mut lanes);
        let most = V::splat(lanes.into_iter().fold(f32::NEG_INFINITY, f32::max));

        let mut total = V::splat(0.0);
        for (cell, out) in cells.iter().zip(out.iter_mut()) {
            let e = exp(V::load(cell).sub(most));
            total = total.add(e);
            e.store(out);
        }
        total.store(&mut lanes);
        let scale = lanes.iter().sum::<f32>().recip();

        let mut z = [0.0; LANES];
        for (block, planes) in out.chunks_exact_mut(depth * depth).enumerate() {
            (0..LANES).for_each(|lane| z[lane] = slope[2] * ((block * LANES + lane) as f32 - mean[2]) * scale);
            let deep = V::load(&z);
            for (y, row) in planes.chunks_exact_mut(depth).enumerate() {
                let down = slope[1] * (y as f32 - mean[1]);
                for (x, cell) in row.iter_mut().enumerate() {
                    let along = deep.add(V::splat((slope[0] * (x as f32 - mean[0]) + down) * scale));
                    V::splat(0.0).add_product(V::load(cell), along).store(cell);
                }
            }
        }
    }
}
