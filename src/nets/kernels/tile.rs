//! The one loop that all convolutions, transposed convolutions and matrix products become: a small tile of outputs
//! held in registers, fed by broadcast inputs and packed weights. The second place with `unsafe` code: reads through
//! pointers whose bounds [`Product::run`] has checked, and several threads that write disjoint parts of one slice.
#![allow(unsafe_code)]

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use rayon::prelude::*;

use super::map::for_each_part;
use super::simd::{Isa, Kernel, LANES, Lanes};

/// Most pixels of a tile on any machine.
const MAX_PIXELS: usize = 8;
/// Products that a tile sums before it moves on, so that the weights of one step stay in the nearest cache.
const DEPTH_PER_STEP: usize = 144;
/// Outputs of one work item, in pixels, so that inputs and partial sums stay in the second cache.
const PIXELS_PER_ITEM: usize = 256;

static MULTIPLY_ADDS: AtomicU64 = AtomicU64::new(0);

/// Multiply-adds of single floats since the program started, of all convolutions and matrix products. Those that are
/// done, that is: Winograd's way does fewer than the definition of a convolution.
pub fn multiply_adds() -> u64 {
    MULTIPLY_ADDS.load(Ordering::Relaxed)
}

/// Adds to [`multiply_adds`]; for those outside of this folder that are done otherwise.
pub fn count_multiply_adds(count: usize) {
    MULTIPLY_ADDS.fetch_add(count as u64, Ordering::Relaxed);
}

/// Steps between neighbours of a four-dimensional array whose elements are blocks of 16 floats (outputs) or runs of
/// `depth` floats (inputs); all counted in floats.
#[derive(Clone, Copy, Debug, Default)]
pub struct Steps {
    /// From one batch item to the next.
    pub batch: usize,
    /// From one row of output pixels to the next.
    pub row: usize,
    /// From one output pixel to the next in its row.
    pub col: usize,
    /// From one block of channels to the next.
    pub block: usize,
}

/// `out[b, row, col, block] = activation(start + sum over planes, taps, depth of x * weight)`, where `x` is read at
/// `b * batch + row * row + col * col + plane * block + tap + d` and `start` is the bias, or what `out` held.
#[derive(Clone, Copy, Debug)]
pub struct Product<'a> {
    /// Independent products of the same shape.
    pub batch: usize,
    /// Rows of output pixels.
    pub rows: usize,
    /// Output pixels in a row.
    pub cols: usize,
    /// Blocks of 16 output channels.
    pub blocks: usize,
    /// Where the inputs lie.
    pub x_steps: Steps,
    /// Blocks of input channels.
    pub planes: usize,
    /// Offsets of the kernel's taps in the input.
    pub taps: &'a [usize],
    /// Neighbouring floats that each tap reads.
    pub depth: usize,
    /// Where the outputs lie. No two may overlap.
    pub out_steps: Steps,
    /// Each batch item has weights of its own, see [`pack_groups`].
    pub own_weights: bool,
    /// Add to what `out` holds instead of starting from the bias.
    pub accumulate: bool,
    /// End with max(x, 0).
    pub relu: bool,
}

/// Puts weights into the order in which the tiles read them: groups of [`Lanes::TILE`] blocks, then products, then
/// channels. `weight([plane, tap, d], o)` is the weight of a product for output channel `o`; there are `planes` x `taps`
/// x `depth` products.
pub fn pack_weights(
    isa: Isa,
    blocks: usize,
    [planes, taps, depth]: [usize; 3],
    into: &mut [f32],
    weight: impl Fn([usize; 3], usize) -> f32 + Sync,
) {
    pack_groups(isa, blocks, planes * taps * depth, into, |first, width, packed| {
        // A plane's weights of one channel lie together, as a rule, and those of all channels fit into the nearest cache.
        for (plane, packed) in packed.chunks_exact_mut(taps * depth * width).enumerate() {
            for o in 0..width {
                for (tap, packed) in packed.chunks_exact_mut(depth * width).enumerate() {
                    for (d, row) in packed.chunks_exact_mut(width).enumerate() {
                        row[o] = weight([plane, tap, d], first + o);
                    }
                }
            }
        }
    });
}

/// Calls `pack(first channel, channels, packed)` for each group of blocks; `packed` has room for `products` of each
/// channel. With weights for each batch item these come one after the other: `[batch item][product][channel]`.
pub fn pack_groups(
    isa: Isa,
    blocks: usize,
    products: usize,
    into: &mut [f32],
    pack: impl Fn(usize, usize, &mut [f32]) + Sync + Send,
) {
    assert_eq!(into.len(), blocks * products * LANES, "packed weights of another shape");
    let group = isa.tile().1;
    for_each_part(into, group * products * LANES, |index, packed| {
        pack(index * group * LANES, packed.len() / products, packed);
    });
}

impl Product<'_> {
    /// Products that are summed for each output.
    pub fn products(&self) -> usize {
        self.planes * self.taps.len() * self.depth
    }

    /// Runs it. `weights` come from [`pack_weights`] for the same `isa`; `bias` has 16 floats for each block;
    /// `residual` lies as `out` does and is added before the activation.
    ///
    /// # Panics
    /// Where a slice is too short for the shape, or outputs overlap.
    pub fn run(
        &self,
        isa: Isa,
        x: &[f32],
        weights: &[f32],
        bias: Option<&[f32]>,
        residual: Option<&[f32]>,
        out: &mut [f32],
    ) {
        if [self.batch, self.rows, self.cols, self.blocks].contains(&0) {
            return;
        }
        let last = |s: &Steps, blocks: usize| {
            (self.batch - 1) * s.batch + (self.rows - 1) * s.row + (self.cols - 1) * s.col + (blocks - 1) * s.block
        };
        let furthest_tap = self.taps.iter().max().expect("a kernel has taps");
        assert!(self.planes > 0 && self.depth > 0, "a product sums something");
        assert!(last(&self.x_steps, self.planes) + furthest_tap + self.depth <= x.len(), "input too short");
        assert!(last(&self.out_steps, self.blocks) + LANES <= out.len(), "output too short");
        assert!(self.outputs_are_disjoint(), "outputs overlap");
        let weights_len = self.blocks * LANES * self.products() * if self.own_weights { self.batch } else { 1 };
        assert!(weights_len <= weights.len(), "weights too short");
        assert!(bias.is_none_or(|b| b.len() >= self.blocks * LANES), "bias too short");
        assert!(residual.is_none_or(|r| r.len() >= out.len()), "residual too short");
        let data = Data {
            x: x.as_ptr(),
            weights: weights.as_ptr(),
            bias: bias.map(<[f32]>::as_ptr),
            residual: residual.map(<[f32]>::as_ptr),
            out: out.as_mut_ptr(),
        };

        let group = isa.tile().1;
        let groups = self.blocks.div_ceil(group);
        let strips = self.strips();
        let threads = rayon::current_num_threads();
        // With pixels enough for all threads, an item takes all channels of its pixels; otherwise the channels are
        // shared out as well.
        let split = if self.batch * strips.len() >= 4 * threads { 1 } else { groups };
        let run_item = |item: usize| {
            let (share, rest) = (item / (self.batch * strips.len()), item % (self.batch * strips.len()));
            let (batch, strip) = (rest / strips.len(), rest % strips.len());
            let groups = share * groups / split..(share + 1) * groups / split;
            self.run_item(isa, data, batch, groups, strips.get(strip));
        };
        let items = split * self.batch * strips.len();
        let work = self.products() * self.batch * self.rows * self.cols * self.blocks;
        count_multiply_adds(work * LANES);
        // Waking a thread costs as much as some 10^5 products of 16 channels.
        if work < 60_000 || threads == 1 {
            (0..items).for_each(run_item);
        } else {
            (0..items).into_par_iter().with_max_len(1).for_each(run_item);
        }
    }

    /// Some rows, columns and channel groups of one batch item.
    fn run_item(
        &self,
        isa: Isa,
        data: Data,
        batch: usize,
        groups: Range<usize>,
        (rows, cols): (Range<usize>, Range<usize>),
    ) {
        let (pixels, group) = isa.tile();
        let products_per_plane = self.taps.len() * self.depth;
        let planes_per_step = (DEPTH_PER_STEP / products_per_plane).max(1);
        let tiles = cols.len().div_ceil(pixels);
        for g in groups {
            let first = g * group;
            let blocks = group.min(self.blocks - first);
            for plane in (0..self.planes).step_by(planes_per_step) {
                let planes = planes_per_step.min(self.planes - plane);
                let last = plane + planes == self.planes;
                let group_products = if self.own_weights {
                    first * self.batch + batch * blocks // Those of groups before, then of batch items before.
                } else {
                    first
                } * self.products();
                let weight = (group_products + plane * products_per_plane * blocks) * LANES;
                for row in rows.clone() {
                    for tile in 0..tiles {
                        let part = share(cols.len(), tiles, tile);
                        let (col, steps) = (cols.start + part.start, (&self.x_steps, &self.out_steps));
                        let at =
                            |s: &Steps, block: usize| batch * s.batch + row * s.row + col * s.col + block * s.block;
                        let (x, out) = (at(steps.0, plane), at(steps.1, first));
                        // SAFETY: `Product::run` checked that the furthest of these indices lies inside its slice.
                        let tile = unsafe {
                            Tile {
                                x: data.x.add(x),
                                x_col: self.x_steps.col,
                                x_plane: self.x_steps.block,
                                planes,
                                taps: self.taps,
                                depth: self.depth,
                                weights: data.weights.add(weight),
                                out: data.out.add(out),
                                out_col: self.out_steps.col,
                                out_block: self.out_steps.block,
                                accumulate: self.accumulate || plane > 0,
                                bias: data.bias.map(|b| b.add(first * LANES)),
                                residual: data.residual.filter(|_| last).map(|r| r.add(out)),
                                relu: self.relu && last,
                            }
                        };
                        tile.run(isa, part.len(), blocks);
                    }
                }
            }
        }
    }

    /// Sorted by step, each dimension must leap over all smaller ones.
    fn outputs_are_disjoint(&self) -> bool {
        let s = &self.out_steps;
        let mut sides = [(s.batch, self.batch), (s.row, self.rows), (s.col, self.cols), (s.block, self.blocks)];
        sides.sort_unstable();
        let mut reach = LANES;
        sides.into_iter().filter(|side| side.1 > 1).all(|(step, count)| {
            let fits = step >= reach;
            reach += step * (count - 1);
            fits
        })
    }

    fn strips(&self) -> Strips {
        if self.rows == 1 {
            let count = self.cols.div_ceil(PIXELS_PER_ITEM);
            Strips { rows: 1, cols: self.cols, row_parts: 1, col_parts: count }
        } else {
            let rows_each = (PIXELS_PER_ITEM / self.cols).max(1);
            Strips { rows: self.rows, cols: self.cols, row_parts: self.rows.div_ceil(rows_each), col_parts: 1 }
        }
    }
}

/// The output pixels cut into work items.
#[derive(Clone, Copy)]
struct Strips {
    rows: usize,
    cols: usize,
    row_parts: usize,
    col_parts: usize,
}

impl Strips {
    fn len(self) -> usize {
        self.row_parts * self.col_parts
    }

    fn get(self, i: usize) -> (Range<usize>, Range<usize>) {
        let (row, col) = (i / self.col_parts, i % self.col_parts);
        (share(self.rows, self.row_parts, row), share(self.cols, self.col_parts, col))
    }
}

/// The `i`th of `parts` nearly equal parts of `0..total`.
fn share(total: usize, parts: usize, i: usize) -> Range<usize> {
    total * i / parts..total * (i + 1) / parts
}

#[derive(Clone, Copy)]
struct Data {
    x: *const f32,
    weights: *const f32,
    bias: Option<*const f32>,
    residual: Option<*const f32>,
    out: *mut f32,
}

// SAFETY: the pointers come from slices that `Product::run` borrows until all threads are done; the inputs are only
// read, and each work item writes outputs of its own (`outputs_are_disjoint`; items do not share an output).
unsafe impl Send for Data {}
// SAFETY: as above.
unsafe impl Sync for Data {}

/// One register tile: up to [`Lanes::TILE`] outputs, summed over a range of planes. Made by [`Product::run_item`]
/// alone, which vouches for all pointers over the extent of the tile.
struct Tile<'a> {
    x: *const f32,
    x_col: usize,
    x_plane: usize,
    planes: usize,
    taps: &'a [usize],
    depth: usize,
    weights: *const f32,
    out: *mut f32,
    out_col: usize,
    out_block: usize,
    accumulate: bool,
    bias: Option<*const f32>,
    residual: Option<*const f32>,
    relu: bool,
}

impl Tile<'_> {
    fn run(&self, isa: Isa, pixels: usize, blocks: usize) {
        macro_rules! sizes {
            ($blocks:literal: $($pixels:literal)*) => {
                match pixels {
                    $($pixels => isa.run(SizedTile::<$pixels, $blocks>(self)),)*
                    _ => unreachable!("a tile has at most {MAX_PIXELS} pixels"),
                }
            };
        }
        match blocks {
            1 => sizes!(1: 1 2 3 4 5 6 7 8),
            2 => sizes!(2: 1 2 3 4 5 6 7 8),
            3 => sizes!(3: 1 2 3 4 5 6 7 8),
            _ => unreachable!("a tile has at most 3 blocks"),
        }
    }
}

/// A tile whose size is known when it is compiled, so that its sums live in registers.
struct SizedTile<'a, const PIXELS: usize, const BLOCKS: usize>(&'a Tile<'a>);

impl<const PIXELS: usize, const BLOCKS: usize> Kernel for SizedTile<'_, PIXELS, BLOCKS> {
    #[inline(always)]
    fn run<V: Lanes>(self) {
        const { assert!(V::TILE.0 <= MAX_PIXELS && V::TILE.1 <= 3) };
        // Sizes that this instruction set never asks for compile to nothing.
        if PIXELS <= V::TILE.0 && BLOCKS <= V::TILE.1 {
            // The usual distances between pixels as constants: no registers for addresses.
            match self.0.x_col {
                16 => self.sum::<V>(16),
                32 => self.sum::<V>(32),
                step => self.sum::<V>(step),
            }
        } else {
            unreachable!("tiles are cut to the size of the registers");
        }
    }
}

impl<const PIXELS: usize, const BLOCKS: usize> SizedTile<'_, PIXELS, BLOCKS> {
    #[inline(always)]
    fn sum<V: Lanes>(&self, x_col: usize) {
        let t = self.0;
        // SAFETY: see `Tile`; 16 floats are a `[f32; 16]`, which asks for no more than a float's alignment.
        unsafe {
            let mut sums = [[V::splat(0.0); BLOCKS]; PIXELS];
            for (pixel, row) in sums.iter_mut().enumerate() {
                for (block, sum) in row.iter_mut().enumerate() {
                    if t.accumulate {
                        *sum = load(t.out.add(pixel * t.out_col + block * t.out_block));
                    } else if let Some(bias) = t.bias {
                        *sum = load(bias.add(block * LANES));
                    }
                }
            }
            let mut weights = t.weights;
            for plane in 0..t.planes {
                for &tap in t.taps {
                    let x = t.x.add(plane * t.x_plane + tap);
                    for d in 0..t.depth {
                        let mut w = [V::splat(0.0); BLOCKS];
                        for (block, w) in w.iter_mut().enumerate() {
                            *w = load(weights.add(block * LANES));
                        }
                        for (pixel, row) in sums.iter_mut().enumerate() {
                            let x = V::splat(*x.add(pixel * x_col + d));
                            for (sum, &w) in row.iter_mut().zip(&w) {
                                *sum = sum.add_product(x, w);
                            }
                        }
                        weights = weights.add(BLOCKS * LANES);
                    }
                }
            }
            for (pixel, row) in sums.into_iter().enumerate() {
                for (block, mut sum) in row.into_iter().enumerate() {
                    let at = pixel * t.out_col + block * t.out_block;
                    if let Some(residual) = t.residual {
                        sum = sum.add(load(residual.add(at)));
                    }
                    if t.relu {
                        sum = sum.max(V::splat(0.0));
                    }
                    sum.store(&mut *t.out.add(at).cast::<[f32; LANES]>());
                }
            }
        }
    }
}

/// # Safety
/// 16 floats can be read at `from`.
#[inline(always)]
unsafe fn load<V: Lanes>(from: *const f32) -> V {
    // SAFETY: the caller's promise.
    V::load(unsafe { &*from.cast::<[f32; LANES]>() })
}
