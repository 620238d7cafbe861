//! Max-pooling of blocked activations.

use super::Isa;
use super::conv::output_side;
use super::map::{Map, for_each_part};
use super::simd::{Kernel, LANES, Lanes};

/// The greatest of each `kernel` x `kernel` window; pixels outside the image do not count.
pub fn max_pool(isa: Isa, x: &Map, kernel: usize, stride: usize, padding: usize) -> Map {
    assert!(padding < kernel, "a window would lie outside the image");
    let side = |input| output_side(input, kernel, stride, padding);
    let mut out = Map::new([x.batch, x.channels, side(x.height), side(x.width)]);
    let (width, plane) = (out.width, out.plane());
    if plane > 0 {
        for_each_part(&mut out.data, plane, |index, out| {
            isa.run(Pool { x, index, kernel, stride, padding, width, out });
        });
    }
    out
}

/// One block of channels of one image.
struct Pool<'a> {
    x: &'a Map,
    index: usize,
    kernel: usize,
    stride: usize,
    padding: usize,
    width: usize,
    out: &'a mut [f32],
}

impl Kernel for Pool<'_> {
    #[inline(always)]
    fn run<V: Lanes>(self) {
        let Self { x, index, kernel, stride, padding, width, out } = self;
        let plane = x.data[index * x.plane()..][..x.plane()].as_chunks::<LANES>().0;
        // The part of a window that lies inside the image; never empty, because the padding is less than the kernel.
        let window = |at: usize, side: usize| {
            let start = at * stride;
            start.saturating_sub(padding)..(start + kernel - padding).min(side)
        };
        for (row, out) in out.chunks_exact_mut(width * LANES).enumerate() {
            for (col, out) in out.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
                let mut most = V::splat(f32::NEG_INFINITY);
                for y in window(row, x.height) {
                    let cols = window(col, x.width);
                    for pixel in &plane[y * x.width + cols.start..y * x.width + cols.end] {
                        most = most.max(V::load(pixel));
                    }
                }
                most.store(out);
            }
        }
    }
}
