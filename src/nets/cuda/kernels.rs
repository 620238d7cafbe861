//! Each kernel's launch: its grid and its arguments. Knows addresses and sizes, not who holds the memory; whoever can
//! [`Launch`] runs them, a GPU or the tests' processor.
//!
//! Maps are `[batch, height, width, channels]` (channels last), channels filled up with zeros to a multiple of 8.

use candle_core::{Result, bail};

use super::source::Kind;
use crate::nets::Precision;

/// An address on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ptr(pub u64);

impl Ptr {
    /// Nowhere.
    pub const NULL: Self = Self(0);

    /// So many bytes further.
    pub fn offset(self, bytes: usize) -> Self {
        Self(self.0 + bytes as u64)
    }
}

/// An argument of a kernel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Arg {
    /// An address.
    Pointer(Ptr),
    /// `int`
    Int(i32),
    /// `i64`
    Long(i64),
    /// `float`
    Float(f32),
}

impl Arg {
    /// What it is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Pointer(_) => Kind::Pointer,
            Self::Int(_) => Kind::Int,
            Self::Long(_) => Kind::Long,
            Self::Float(_) => Kind::Float,
        }
    }
}

impl From<Ptr> for Arg {
    fn from(x: Ptr) -> Self {
        Self::Pointer(x)
    }
}

impl From<usize> for Arg {
    /// Sides, channels and counts; whoever makes a map has checked that they fit.
    fn from(x: usize) -> Self {
        Self::Int(x as i32)
    }
}

impl From<bool> for Arg {
    fn from(x: bool) -> Self {
        Self::Int(i32::from(x))
    }
}

impl From<f32> for Arg {
    fn from(x: f32) -> Self {
        Self::Float(x)
    }
}

/// A number that may be past 2^31.
pub(super) fn long(x: usize) -> Arg {
    Arg::Long(x as i64)
}

/// Blocks, threads of each, and the memory that those share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    /// x, y, z.
    pub blocks: [u32; 3],
    /// Along x.
    pub threads: u32,
    /// Where the kernel asks for it.
    pub shared_bytes: u32,
}

impl Grid {
    /// A thread for each of `count`.
    pub fn over(count: usize) -> Self {
        const THREADS: u32 = 256;
        Self { blocks: [count.div_ceil(THREADS as usize).max(1) as u32, 1, 1], threads: THREADS, shared_bytes: 0 }
    }

    /// A block of `threads` for each of x, y and z.
    pub fn blocks(blocks: [usize; 3], threads: u32) -> Self {
        Self { blocks: blocks.map(|n| n.max(1) as u32), threads, shared_bytes: 0 }
    }
}

/// Whoever can run a kernel.
pub trait Launch {
    /// The type of activations and weights.
    fn precision(&self) -> Precision;

    /// Runs a kernel after those that were launched before.
    fn launch(&self, kernel: &'static str, grid: Grid, args: &[Arg]) -> Result<()>;
}

/// Sizes of a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MapDims {
    /// Images.
    pub batch: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// Without those that fill up.
    pub channels: usize,
}

impl MapDims {
    /// Channels are stored in multiples of this, which tensor cores ask for.
    pub const CHANNEL_STEP: usize = 8;

    /// From `[batch, channels, height, width]`.
    pub fn new([batch, channels, height, width]: [usize; 4]) -> Self {
        Self { batch, height, width, channels }
    }

    /// Channels that are stored.
    pub fn padded(&self) -> usize {
        self.channels.next_multiple_of(Self::CHANNEL_STEP)
    }

    /// Pixels of all images.
    pub fn pixels(&self) -> usize {
        self.batch * self.height * self.width
    }

    /// Numbers that are stored.
    pub fn elements(&self) -> usize {
        self.pixels() * self.padded()
    }

    /// Quads of 16 bytes that a pixel consists of.
    fn units(&self, precision: Precision) -> usize {
        self.padded() * precision.bytes() / 16
    }
}

/// `x * gain + offset` for red, green and blue.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scaling {
    /// Factors.
    pub gain: [f32; 3],
    /// Added after.
    pub offset: [f32; 3],
}

impl Scaling {
    /// Grey levels as they are.
    pub const NONE: Self = Self { gain: [1.0; 3], offset: [0.0; 3] };

    pub(super) fn args(&self) -> [Arg; 6] {
        let ([g0, g1, g2], [o0, o1, o2]) = (self.gain, self.offset);
        [g0, g1, g2, o0, o1, o2].map(Arg::Float)
    }
}

/// `[B, C, H, W]` f32 to a map.
pub fn planar_to_map(on: &impl Launch, x: Ptr, y: Ptr, dims: MapDims, scaling: Option<Scaling>) -> Result<()> {
    let mut args = vec![
        x.into(),
        y.into(),
        dims.channels.into(),
        dims.padded().into(),
        (dims.height * dims.width).into(),
        long(dims.elements()),
        scaling.is_some().into(),
    ];
    args.extend(scaling.unwrap_or(Scaling::NONE).args());
    on.launch("planar_to_map", Grid::over(dims.elements()), &args)
}

/// A map to `[B, C, H, W]` f32.
pub fn map_to_planar(on: &impl Launch, x: Ptr, y: Ptr, dims: MapDims) -> Result<()> {
    let count = dims.pixels() * dims.channels;
    let pixels = dims.height * dims.width;
    let args = [x.into(), y.into(), dims.channels.into(), dims.padded().into(), pixels.into(), long(count)];
    on.launch("map_to_planar", Grid::over(count), &args)
}

/// Shape of a square convolution, with channels that are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConvDims {
    /// What it reads.
    pub input: MapDims,
    /// Channels that it makes.
    pub output: usize,
    /// Side of the kernel.
    pub kernel: usize,
    /// Step between outputs.
    pub stride: usize,
    /// Zeros at each side.
    pub padding: usize,
}

impl ConvDims {
    /// What it makes.
    pub fn out(&self) -> MapDims {
        let side = |x: usize| (x + 2 * self.padding + 1).saturating_sub(self.kernel).div_ceil(self.stride);
        let MapDims { batch, height, width, .. } = self.input;
        MapDims { batch, height: side(height), width: side(width), channels: self.output }
    }

    /// Products that are summed for each number that it makes.
    pub fn depth(&self) -> usize {
        self.kernel * self.kernel * self.input.padded()
    }
}

/// What a convolution reads beside its input, and what follows it.
#[derive(Clone, Copy, Debug)]
pub struct Tail {
    /// f32, one for each stored output channel.
    pub bias: Ptr,
    /// A map of the output's size.
    pub residual: Option<Ptr>,
    /// Last of all.
    pub relu: bool,
}

/// Bias, residual and ReLU in place.
pub fn finish(on: &impl Launch, y: Ptr, dims: MapDims, tail: Tail) -> Result<()> {
    let args = [
        y.into(),
        tail.bias.into(),
        tail.residual.unwrap_or(Ptr::NULL).into(),
        tail.residual.is_some().into(),
        dims.padded().into(),
        tail.relu.into(),
        long(dims.elements()),
    ];
    on.launch("finish", Grid::over(dims.elements()), &args)
}

/// The convolution by its definition; weights `[O, K, K, I]`.
pub fn direct_conv(on: &impl Launch, x: Ptr, weight: Ptr, y: Ptr, conv: ConvDims, tail: Tail) -> Result<()> {
    let out = conv.out();
    let args = [
        x.into(),
        weight.into(),
        tail.bias.into(),
        tail.residual.unwrap_or(Ptr::NULL).into(),
        tail.residual.is_some().into(),
        y.into(),
        conv.input.height.into(),
        conv.input.width.into(),
        conv.input.padded().into(),
        out.height.into(),
        out.width.into(),
        out.padded().into(),
        conv.kernel.into(),
        conv.stride.into(),
        conv.padding.into(),
        tail.relu.into(),
        long(out.elements()),
    ];
    on.launch("direct_conv", Grid::over(out.elements()), &args)
}

/// `d[b][m][n] = sum_k a[b][m][k] b[b][n][k]`, row-major.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ProductDims {
    /// Products side by side.
    pub batch: usize,
    /// Rows of `a`.
    pub m: usize,
    /// Rows of `b`.
    pub n: usize,
    /// What is summed over.
    pub k: usize,
    /// `b` is one for all.
    pub shared_b: bool,
    /// `d` is f32, whatever the precision.
    pub wide: bool,
    /// A bias for each of `n` (f32 here) is added.
    pub bias: bool,
    /// ReLU after.
    pub relu: bool,
}

/// The product by its definition.
pub fn direct_product(on: &impl Launch, a: Ptr, b: Ptr, bias: Ptr, d: Ptr, dims: ProductDims) -> Result<()> {
    let ProductDims { batch, m, n, k, shared_b, wide, bias: has_bias, relu } = dims;
    let count = batch * m * n;
    let args = [
        a.into(),
        b.into(),
        bias.into(),
        has_bias.into(),
        d.into(),
        d.into(),
        wide.into(),
        n.into(),
        k.into(),
        long(m),
        relu.into(),
        long(if shared_b { 0 } else { n * k }),
        long(count),
    ];
    on.launch("direct_product", Grid::over(count), &args)
}

/// What the taps of a convolution meet: `[pixels of the output, K * K * I]`.
pub fn gather_conv_taps(on: &impl Launch, x: Ptr, y: Ptr, conv: ConvDims) -> Result<()> {
    gather_taps(on, x, y, conv, false)
}

/// What the taps of a transposed convolution's four phases meet: `[4, pixels, 2 * 2 * I]`.
pub fn gather_phase_taps(on: &impl Launch, x: Ptr, y: Ptr, input: MapDims) -> Result<()> {
    gather_taps(on, x, y, ConvDims { input, output: 0, kernel: 2, stride: 1, padding: 0 }, true)
}

fn gather_taps(on: &impl Launch, x: Ptr, y: Ptr, conv: ConvDims, phases: bool) -> Result<()> {
    let input = conv.input;
    let out = if phases { input } else { conv.out() };
    let units = input.units(on.precision());
    let count = out.pixels() * conv.kernel * conv.kernel * units;
    let args = [
        x.into(),
        y.into(),
        input.height.into(),
        input.width.into(),
        out.height.into(),
        out.width.into(),
        conv.kernel.into(),
        conv.stride.into(),
        conv.padding.into(),
        units.into(),
        phases.into(),
        long(count),
    ];
    let mut grid = Grid::over(count);
    grid.blocks[1] = if phases { 4 } else { 1 };
    on.launch("gather_taps", grid, &args)
}

/// The four phases of a transposed convolution put together; `phase` is the size of one of them.
pub fn join_phases(on: &impl Launch, x: Ptr, y: Ptr, phase: MapDims) -> Result<()> {
    let units = phase.units(on.precision());
    let count = 4 * phase.pixels() * units;
    let args = [x.into(), y.into(), phase.height.into(), phase.width.into(), units.into(), long(count)];
    on.launch("join_phases", Grid::over(count), &args)
}

/// Size of a max-pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Side of what is looked at.
    pub kernel: usize,
    /// Step.
    pub stride: usize,
    /// Around the map.
    pub padding: usize,
}

impl Pool {
    /// What it makes.
    pub fn out(self, input: MapDims) -> MapDims {
        let Self { kernel, stride, padding } = self;
        ConvDims { input, output: input.channels, kernel, stride, padding }.out()
    }
}

/// Max-pool.
pub fn max_pool(on: &impl Launch, x: Ptr, y: Ptr, input: MapDims, pool: Pool) -> Result<()> {
    let out = pool.out(input);
    let args = [
        x.into(),
        y.into(),
        input.height.into(),
        input.width.into(),
        out.height.into(),
        out.width.into(),
        out.padded().into(),
        pool.kernel.into(),
        pool.stride.into(),
        pool.padding.into(),
        long(out.elements()),
    ];
    on.launch("max_pool", Grid::over(out.elements()), &args)
}

/// Every pixel becomes a square of four.
pub fn doubled(on: &impl Launch, x: Ptr, y: Ptr, input: MapDims) -> Result<()> {
    let units = input.units(on.precision());
    let count = 4 * input.pixels() * units;
    let args = [x.into(), y.into(), input.height.into(), input.width.into(), units.into(), long(count)];
    on.launch("doubled", Grid::over(count), &args)
}

/// A map, and after it the same mirrored left to right: as many images again.
pub fn and_mirrored(on: &impl Launch, x: Ptr, y: Ptr, input: MapDims) -> Result<()> {
    let units = input.units(on.precision());
    let count = input.pixels() * units;
    let args = [x.into(), y.into(), input.width.into(), units.into(), long(count)];
    on.launch("and_mirrored", Grid::over(count), &args)
}

/// Means of a square map over rows and over columns: `[2, batch, side, padded]`.
pub fn line_means(on: &impl Launch, x: Ptr, y: Ptr, dims: MapDims) -> Result<()> {
    if dims.height != dims.width {
        bail!("means along lines are taken of square maps, not of {} x {}", dims.width, dims.height);
    }
    let count = dims.batch * dims.width * dims.padded();
    let args = [x.into(), y.into(), dims.width.into(), dims.padded().into(), long(count)];
    on.launch("line_means", Grid::over(2 * count), &args)
}

/// Mean of each channel: `[batch, padded]`.
pub fn channel_means(on: &impl Launch, x: Ptr, y: Ptr, dims: MapDims) -> Result<()> {
    let count = dims.batch * dims.padded();
    let pixels = dims.height * dims.width;
    let args = [x.into(), y.into(), pixels.into(), dims.padded().into(), long(count)];
    on.launch("channel_means", Grid::over(count), &args)
}

/// One f32 from the channels of each pixel: `[pixels]`; the weight is f32 `[padded]`.
pub fn dot_channels(on: &impl Launch, x: Ptr, weight: Ptr, bias: f32, y: Ptr, dims: MapDims) -> Result<()> {
    let args = [x.into(), weight.into(), bias.into(), y.into(), dims.padded().into(), long(dims.pixels())];
    on.launch("dot_channels", Grid::over(dims.pixels() * 32), &args)
}

/// One f32 from the means of the channels: `[batch]`.
pub fn dot_means(on: &impl Launch, x: Ptr, weight: Ptr, bias: f32, y: Ptr, dims: MapDims) -> Result<()> {
    let pixels = dims.height * dims.width;
    let args = [x.into(), weight.into(), bias.into(), y.into(), pixels.into(), dims.padded().into()];
    on.launch("dot_means", Grid::blocks([dims.batch, 1, 1], 256), &args)
}

/// Where [`heatmaps`] writes: for `[batch, points, 3]` heatmaps each.
#[derive(Clone, Copy, Debug)]
pub struct HeatmapsOut {
    /// f32 `[.., bins]`.
    pub probabilities: Ptr,
    /// f32, soft-argmax.
    pub coords: Ptr,
    /// f32, standard deviation.
    pub spread: Ptr,
    /// f32, the likeliest bin.
    pub mode: Ptr,
}

/// Most bins of a heatmap.
pub const MAX_BINS: usize = 256;

/// Logits `[3, points, batch, bins]` f32 to heatmaps and what is read from them.
pub fn heatmaps(on: &impl Launch, logits: Ptr, out: HeatmapsOut, [batch, points, bins]: [usize; 3]) -> Result<()> {
    if bins > MAX_BINS {
        bail!("heatmaps of {bins} bins: the kernel reads at most {MAX_BINS}");
    }
    let rows = batch * points * 3;
    let args = [
        logits.into(),
        out.probabilities.into(),
        out.coords.into(),
        out.spread.into(),
        out.mode.into(),
        points.into(),
        batch.into(),
        bins.into(),
        long(rows),
    ];
    on.launch("heatmaps", Grid::over(rows * 32), &args)
}

/// The logits of 3D heatmaps.
#[derive(Clone, Copy, Debug)]
pub struct Volumes {
    /// f32 `[images, bins (y), bins (x), stride]`, of which each joint has `bins` (z) side by side.
    pub logits: Ptr,
    /// f32 `[joints * bins]`, not yet added.
    pub bias: Ptr,
    /// Numbers from pixel to pixel.
    pub stride: usize,
    /// i32 `[joints]`: with it the second half of the images shows the people mirrored, where this joint takes the
    /// place of each, and the mean of both is told. [`Ptr::NULL`] where all images are people.
    pub mirrored: Ptr,
}

/// f32 that [`volume_heatmaps`] needs between its two passes.
pub fn volume_rows([images, joints, bins]: [usize; 3]) -> usize {
    images * joints * bins * (2 + 2 * bins)
}

/// The marginals of each joint's softmax over its volume, and what is read from them; `rows` is memory for
/// [`volume_rows`].
pub fn volume_heatmaps(
    on: &impl Launch,
    volumes: Volumes,
    rows: Ptr,
    out: HeatmapsOut,
    [people, joints, bins]: [usize; 3],
) -> Result<()> {
    if bins > MAX_BINS {
        bail!("volumes of {bins} bins a side: the kernel reads at most {MAX_BINS}");
    }
    let images = if volumes.mirrored == Ptr::NULL { people } else { 2 * people };
    let args = [volumes.logits.into(), volumes.bias.into(), rows.into(), bins.into(), volumes.stride.into()];
    on.launch("volume_rows", Grid::blocks([bins, joints, images], 256), &args)?;
    let args = [
        rows.into(),
        volumes.mirrored.into(),
        out.probabilities.into(),
        out.coords.into(),
        out.spread.into(),
        out.mode.into(),
        bins.into(),
    ];
    on.launch("volume_heatmaps", Grid::blocks([3, joints, people], 256), &args)
}

/// Logits `[batch, side, side]` f32 to a softmax over each plane and the expected x and y, `[batch, 2]`.
pub fn plane_heatmap(
    on: &impl Launch,
    logits: Ptr,
    heatmap: Ptr,
    coords: Ptr,
    batch: usize,
    side: usize,
) -> Result<()> {
    let args = [logits.into(), heatmap.into(), coords.into(), side.into()];
    on.launch("plane_heatmap", Grid::blocks([batch, 1, 1], 256), &args)
}

/// The joints' share of pose2feat's convolution. Weights f32 `[joints, bins, channels * 3 * 3]` (see
/// `gaussian_weights`), coordinates `[batch, joints, 3]`; `over_z` is memory for `[batch, joints, channels * 3 * 3]` f32.
/// Makes a map of `dims`, as high and as wide as there are bins.
pub fn gaussians(
    on: &impl Launch,
    [weights, coords, over_z, y]: [Ptr; 4],
    joints: usize,
    dims: MapDims,
    sigma: f32,
) -> Result<()> {
    let MapDims { batch, height: bins, channels, .. } = dims;
    if bins > MAX_BINS {
        bail!("Gaussians of {bins} bins: the kernel makes at most {MAX_BINS}");
    }
    let shared_bytes = (joints * (3 * 64 + 66) * size_of::<f32>()) as u32;
    // What every GPU gives without being asked.
    if shared_bytes > 48 * 1024 {
        bail!("pose2feat of {joints} joints: the kernel has memory for 47");
    }
    let columns = channels * 9;
    let args = [weights.into(), coords.into(), over_z.into(), joints.into(), bins.into(), columns.into(), sigma.into()];
    on.launch("gaussians_over_z", Grid::blocks([joints, batch, 1], 192), &args)?;
    let (padded, parts) = (dims.padded(), bins.div_ceil(64));
    let args = [
        over_z.into(),
        coords.into(),
        y.into(),
        joints.into(),
        bins.into(),
        channels.into(),
        padded.into(),
        sigma.into(),
    ];
    let grid = Grid { shared_bytes, ..Grid::blocks([bins, batch, parts * padded.div_ceil(64)], 256) };
    on.launch("gaussians_over_plane", grid, &args)
}
