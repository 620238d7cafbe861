//! Sixteen floats at a time, on whatever vector unit the machine has. One of the two places with `unsafe` code
//! of the kernels: intrinsics, and the entry into functions that are compiled for an instruction set.
//!
//! A kernel is written once, generic over [`Lanes`], and [`Isa::run`] compiles it for each instruction set and
//! picks one when it runs.
#![allow(unsafe_code)]

/// Channels in a block, and floats that the kernels take at a time.
pub const LANES: usize = 16;

/// Sixteen floats. Every method is inlined into the function that [`Isa::run`] compiled for an instruction set.
pub trait Lanes: Copy {
    /// Accumulators of one output tile: pixels, and blocks of 16 channels. As many as the registers hold.
    const TILE: (usize, usize);
    /// The same number sixteen times.
    fn splat(x: f32) -> Self;
    /// Sixteen floats from memory.
    fn load(from: &[f32; LANES]) -> Self;
    /// Sixteen floats to memory.
    fn store(self, to: &mut [f32; LANES]);
    /// `self + x`
    fn add(self, x: Self) -> Self;
    /// `self - x`
    fn sub(self, x: Self) -> Self;
    /// `self + x * y`
    fn add_product(self, x: Self, y: Self) -> Self;
    /// The greater of the two, lane by lane.
    fn max(self, x: Self) -> Self;
    /// The nearest whole number n, and 2^n, of numbers within +-126.
    #[inline(always)]
    fn split_power_of_two(self) -> (Self, Self) {
        // Adding 1.5 * 2^23 leaves no room for a fraction, and n in the lowest bits.
        const SHIFT: f32 = 12_582_912.0;
        let shifted = self.add(Self::splat(SHIFT));
        let mut lanes = [0.0; LANES];
        shifted.store(&mut lanes);
        for lane in &mut lanes {
            *lane = f32::from_bits((lane.to_bits() << 23).wrapping_add(1.0_f32.to_bits()));
        }
        (shifted.sub(Self::splat(SHIFT)), Self::load(&lanes))
    }
}

/// A piece of work that runs on any instruction set.
pub trait Kernel {
    /// Does the work. Must be `#[inline(always)]`, so that it is compiled for the instruction set of its caller.
    fn run<V: Lanes>(self);
}

/// An instruction set that the kernels are compiled for and that this machine has.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Isa(Kind);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// x86-64 with AVX-512F.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// x86-64 with AVX2 and FMA.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// Whatever the compiler makes of plain arrays: SSE2, NEON.
    Portable,
}

impl std::fmt::Debug for Isa {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl Isa {
    /// The best one of this machine.
    pub fn detect() -> Self {
        Self::available().next().unwrap_or(Self(Kind::Portable))
    }

    /// All that this machine can run, best first.
    pub fn available() -> impl Iterator<Item = Self> {
        let all = [
            #[cfg(target_arch = "x86_64")]
            (Kind::Avx512, is_x86_feature_detected!("avx512f")),
            #[cfg(target_arch = "x86_64")]
            (Kind::Avx2, is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")),
            (Kind::Portable, true),
        ];
        all.into_iter().filter(|kind| kind.1).map(|kind| Self(kind.0))
    }

    /// Accumulators of one tile, see `Lanes::TILE`.
    pub fn tile(self) -> (usize, usize) {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => x86::Avx512::TILE,
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => x86::Avx2::TILE,
            Kind::Portable => Portable::TILE,
        }
    }

    /// Runs `kernel` compiled for this instruction set.
    #[inline]
    pub fn run(self, kernel: impl Kernel) {
        match self.0 {
            // SAFETY: `available`, the only source of this value, saw the feature on this machine.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => unsafe { x86::run_avx512(kernel) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => unsafe { x86::run_avx2(kernel) },
            Kind::Portable => kernel.run::<Portable>(),
        }
    }
}

/// Plain arrays; the compiler makes vectors of them.
#[derive(Clone, Copy)]
struct Portable([f32; LANES]);

impl Portable {
    #[inline(always)]
    fn zip(mut self, x: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        for (a, b) in self.0.iter_mut().zip(x.0) {
            *a = f(*a, b);
        }
        self
    }
}

impl Lanes for Portable {
    const TILE: (usize, usize) = if cfg!(target_arch = "aarch64") { (4, 1) } else { (2, 1) };
    #[inline(always)]
    fn splat(x: f32) -> Self {
        Self([x; LANES])
    }
    #[inline(always)]
    fn load(from: &[f32; LANES]) -> Self {
        Self(*from)
    }
    #[inline(always)]
    fn store(self, to: &mut [f32; LANES]) {
        *to = self.0;
    }
    #[inline(always)]
    fn add(self, x: Self) -> Self {
        self.zip(x, |a, b| a + b)
    }
    #[inline(always)]
    fn sub(self, x: Self) -> Self {
        self.zip(x, |a, b| a - b)
    }
    #[inline(always)]
    fn add_product(mut self, x: Self, y: Self) -> Self {
        for ((a, b), c) in self.0.iter_mut().zip(x.0).zip(y.0) {
            // A fused multiply-add is a library call where the baseline has no such instruction.
            *a = if cfg!(target_arch = "aarch64") { b.mul_add(c, *a) } else { *a + b * c };
        }
        self
    }
    #[inline(always)]
    fn max(self, x: Self) -> Self {
        self.zip(x, |a, b| if a > b { a } else { b })
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m256, __m512, _mm256_add_ps, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_max_ps, _mm256_set1_ps,
        _mm256_storeu_ps, _mm256_sub_ps, _mm512_add_ps, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_max_ps,
        _mm512_set1_ps, _mm512_storeu_ps, _mm512_sub_ps,
    };

    use super::{Kernel, LANES, Lanes};

    #[target_feature(enable = "avx512f")]
    pub(super) fn run_avx512(kernel: impl Kernel) {
        kernel.run::<Avx512>();
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn run_avx2(kernel: impl Kernel) {
        kernel.run::<Avx2>();
    }

    // SAFETY of all blocks below: the types are private to this file and only `run_avx512` and `run_avx2` name them,
    // so the features are there; loads and stores go through references to exactly 16 floats.

    #[derive(Clone, Copy)]
    pub(super) struct Avx512(__m512);

    impl Lanes for Avx512 {
        const TILE: (usize, usize) = (8, 3);
        #[inline(always)]
        fn splat(x: f32) -> Self {
            Self(unsafe { _mm512_set1_ps(x) })
        }
        #[inline(always)]
        fn load(from: &[f32; LANES]) -> Self {
            Self(unsafe { _mm512_loadu_ps(from.as_ptr()) })
        }
        #[inline(always)]
        fn store(self, to: &mut [f32; LANES]) {
            unsafe { _mm512_storeu_ps(to.as_mut_ptr(), self.0) }
        }
        #[inline(always)]
        fn add(self, x: Self) -> Self {
            Self(unsafe { _mm512_add_ps(self.0, x.0) })
        }
        #[inline(always)]
        fn sub(self, x: Self) -> Self {
            Self(unsafe { _mm512_sub_ps(self.0, x.0) })
        }
        #[inline(always)]
        fn add_product(self, x: Self, y: Self) -> Self {
            Self(unsafe { _mm512_fmadd_ps(x.0, y.0, self.0) })
        }
        #[inline(always)]
        fn max(self, x: Self) -> Self {
            Self(unsafe { _mm512_max_ps(self.0, x.0) })
        }
    }

    #[derive(Clone, Copy)]
    pub(super) struct Avx2(__m256, __m256);

    impl Lanes for Avx2 {
        const TILE: (usize, usize) = (6, 1);
        #[inline(always)]
        fn splat(x: f32) -> Self {
            let v = unsafe { _mm256_set1_ps(x) };
            Self(v, v)
        }
        #[inline(always)]
        fn load(from: &[f32; LANES]) -> Self {
            unsafe { Self(_mm256_loadu_ps(from.as_ptr()), _mm256_loadu_ps(from.as_ptr().add(8))) }
        }
        #[inline(always)]
        fn store(self, to: &mut [f32; LANES]) {
            unsafe {
                _mm256_storeu_ps(to.as_mut_ptr(), self.0);
                _mm256_storeu_ps(to.as_mut_ptr().add(8), self.1);
            }
        }
        #[inline(always)]
        fn add(self, x: Self) -> Self {
            unsafe { Self(_mm256_add_ps(self.0, x.0), _mm256_add_ps(self.1, x.1)) }
        }
        #[inline(always)]
        fn sub(self, x: Self) -> Self {
            unsafe { Self(_mm256_sub_ps(self.0, x.0), _mm256_sub_ps(self.1, x.1)) }
        }
        #[inline(always)]
        fn add_product(self, x: Self, y: Self) -> Self {
            unsafe { Self(_mm256_fmadd_ps(x.0, y.0, self.0), _mm256_fmadd_ps(x.1, y.1, self.1)) }
        }
        #[inline(always)]
        fn max(self, x: Self) -> Self {
            unsafe { Self(_mm256_max_ps(self.0, x.0), _mm256_max_ps(self.1, x.1)) }
        }
    }
}
