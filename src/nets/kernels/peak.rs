//! What the machine could do at best: the measure that kernels are held against.

use std::time::Instant;

use rayon::prelude::*;

use super::Isa;
use super::simd::{Kernel, LANES, Lanes};

/// Independent sums, enough to hide the latency of a multiply-add on any machine.
const CHAINS: usize = 12;
/// Multiply-adds of each chain in one measurement: about a millisecond, so that some fall between interruptions.
const ROUNDS: usize = 300_000;
/// Measurements of which the best counts.
const REPEATS: usize = 60;

/// GFLOP/s (a multiply-add counts as two) of all threads at the same time, with everything in registers. Takes about
/// 50 ms.
pub fn peak_gflops(isa: Isa) -> f64 {
    let flops = (2 * ROUNDS * CHAINS * LANES) as f64;
    let best_secs = |_| {
        let mut result = 0.0;
        let repeats = (0..REPEATS).map(|_| {
            let start = Instant::now();
            isa.run(MultiplyAdds(&mut result));
            start.elapsed().as_secs_f64()
        });
        let best = repeats.fold(f64::INFINITY, f64::min);
        std::hint::black_box(result);
        best
    };
    let threads = rayon::current_num_threads();
    (0..threads).into_par_iter().with_max_len(1).map(best_secs).map(|secs| flops / secs / 1e9).sum()
}

struct MultiplyAdds<'a>(&'a mut f32);

impl Kernel for MultiplyAdds<'_> {
    #[inline(always)]
    fn run<V: Lanes>(self) {
        // Converges to 0.5 from anywhere, so nothing overflows.
        let (x, y) = (V::splat(std::hint::black_box(1e-3)), V::splat(std::hint::black_box(0.5)));
        let mut sums = [V::splat(1.0); CHAINS];
        for _ in 0..ROUNDS {
            for sum in &mut sums {
                *sum = y.add_product(*sum, x);
            }
        }
        let total = sums.into_iter().reduce(V::add).expect("twelve sums");
        let mut lanes = [0.0; LANES];
        total.store(&mut lanes);
        *self.0 = lanes[0];
    }
}
