//! The launches of training's kernels: grids and arguments. Sizes are those of memory that was taken, so products of
//! them fit into an `int`.

use candle_core::Result;

use crate::nets::Precision;
use crate::nets::cuda::kernels::{Arg, Grid, Launch, Ptr};
use crate::nets::cuda::source::{PRELUDE, Program};
use crate::nets::layers::BN_EPS;
use crate::train::ops::MOMENTUM;
use crate::train::optimizer::{BETA_1, BETA_2, EPSILON};

/// The kernels of training.
pub const PROGRAM: Program = Program {
    files: &[
        PRELUDE,
        include_str!("layers.cu"),
        include_str!("heatmaps.cu"),
        include_str!("surface.cu"),
        include_str!("optimizer.cu"),
    ],
    precision: Precision::F32,
};

/// Of a block.
const THREADS: usize = 256;
/// Blocks that the squares of a gradient are summed by, at most.
const SQUARE_BLOCKS: usize = 1024;

fn long(x: usize) -> Arg {
    Arg::Long(x as i64)
}

/// A warp for each of `count`.
fn warps(count: usize) -> Grid {
    Grid::over(count * 32)
}

/// A block for each of `count`.
fn blocks(count: usize) -> Grid {
    Grid::blocks([count, 1, 1], THREADS as u32)
}

/// Planes of a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Planes {
    /// Images.
    pub images: usize,
    /// Planes of each.
    pub channels: usize,
    /// Numbers of each plane.
    pub pixels: usize,
}

impl Planes {
    /// Planes of all images.
    pub fn planes(&self) -> usize {
        self.images * self.channels
    }

    /// Numbers.
    pub fn len(&self) -> usize {
        self.planes() * self.pixels
    }
}

/// Where a batch norm's parameters are, `[C]` each.
#[derive(Clone, Copy, Debug)]
pub struct NormParams {
    /// gamma
    pub weight: Ptr,
    /// beta
    pub bias: Ptr,
    /// Followed by the mean of each batch.
    pub running_mean: Ptr,
    /// Followed by the variance.
    pub running_var: Ptr,
}

/// What norms know of `channels` channels takes so many numbers.
pub fn known_len(channels: usize) -> usize {
    4 * channels
}

/// What the norm knows from a batch; the running statistics follow. `moments` is scratch memory, two numbers a plane.
pub fn norm_of_batch(on: &dyn Launch, x: Ptr, params: NormParams, moments: Ptr, known: Ptr, p: Planes) -> Result<()> {
    let planes = p.planes();
    on.launch("plane_moments", warps(planes), &[x.into(), moments.into(), p.pixels.into(), planes.into()])?;
    let NormParams { weight, bias, running_mean, running_var } = params;
    let pointers = [moments, weight, bias, running_mean, running_var, known].map(Arg::from);
    let numbers = [p.images, p.channels, p.pixels].map(Arg::from);
    let args = [&pointers[..], &numbers, &[MOMENTUM.into(), (BN_EPS as f32).into()]].concat();
    on.launch("norm_of_batch", warps(p.channels), &args)
}

/// What the norm knows from its running statistics.
pub fn norm_of_running(on: &dyn Launch, params: NormParams, known: Ptr, channels: usize) -> Result<()> {
    let NormParams { weight, bias, running_mean, running_var } = params;
    let pointers = [weight, bias, running_mean, running_var, known].map(Arg::from);
    let args = [&pointers[..], &[channels.into(), (BN_EPS as f32).into()]].concat();
    on.launch("norm_of_running", Grid::over(channels), &args)
}

/// `y = activation(norm(x) + residual)`
pub fn norm_apply(
    on: &dyn Launch,
    x: Ptr,
    known: Ptr,
    residual: Option<Ptr>,
    y: Ptr,
    relu: bool,
    p: Planes,
) -> Result<()> {
    let args = [
        x.into(),
        known.into(),
        residual.unwrap_or(Ptr::NULL).into(),
        residual.is_some().into(),
        y.into(),
        relu.into(),
        p.channels.into(),
        p.pixels.into(),
        p.len().into(),
    ];
    on.launch("norm_apply", Grid::over(p.len()), &args)
}

/// What the backward way of a norm reads.
#[derive(Clone, Copy, Debug)]
pub struct NormBackward {
    /// The norm's input.
    pub x: Ptr,
    /// Its output.
    pub y: Ptr,
    /// The gradient of the output.
    pub grad: Ptr,
    /// What [`norm_of_batch`] knew.
    pub known: Ptr,
    /// gamma, `[C]`
    pub weight: Ptr,
    /// Ended with ReLU.
    pub relu: bool,
}

/// Gradients of a norm: of its input to `dx`, of the residual to `residual`; those of gamma and beta are added to.
/// `sums` is scratch memory, two numbers a plane, and so is `factors`, three a channel.
pub fn norm_gradients(
    on: &dyn Launch,
    backward: NormBackward,
    [weight_gradient, bias_gradient]: [Ptr; 2],
    [sums, factors]: [Ptr; 2],
    dx: Ptr,
    residual: Option<Ptr>,
    p: Planes,
) -> Result<()> {
    let NormBackward { x, y, grad, known, weight, relu } = backward;
    let planes = p.planes();
    let pointers = [x, y, grad, known, sums].map(Arg::from);
    let numbers = [relu.into(), p.channels.into(), p.pixels.into(), planes.into()];
    on.launch("norm_sums", warps(planes), &[&pointers[..], &numbers].concat())?;
    let pointers = [sums, weight, known, weight_gradient, bias_gradient, factors].map(Arg::from);
    let numbers = [p.images, p.channels, p.pixels].map(Arg::from);
    on.launch("norm_factors", warps(p.channels), &[&pointers[..], &numbers].concat())?;
    let pointers = [x, y, grad, factors, dx, residual.unwrap_or(Ptr::NULL)].map(Arg::from);
    let flags = [residual.is_some(), relu].map(Arg::from);
    let numbers = [p.channels, p.pixels, p.len()].map(Arg::from);
    on.launch("norm_gradient", Grid::over(p.len()), &[&pointers[..], &flags, &numbers].concat())
}

/// A pooling of planes.
#[derive(Clone, Copy, Debug)]
pub struct Pooling {
    /// Planes of all images.
    pub planes: usize,
    /// Rows and columns that are read.
    pub sides: [usize; 2],
    /// Rows and columns that are made.
    pub out_sides: [usize; 2],
    /// Kernel, stride, padding.
    pub window: [usize; 3],
}

impl Pooling {
    /// Arguments that both ways end with, for `count` threads.
    fn args(&self, count: usize) -> Vec<Arg> {
        let [height, width] = self.sides;
        let [out_height, out_width] = self.out_sides;
        let [kernel, stride, padding] = self.window;
        [height, width, out_height, out_width, kernel, stride, padding, count].map(Arg::from).to_vec()
    }
}

/// Max-pool.
pub fn plane_pool(on: &dyn Launch, x: Ptr, y: Ptr, pooling: &Pooling) -> Result<()> {
    let count = pooling.planes * pooling.out_sides.iter().product::<usize>();
    let args = [vec![x.into(), y.into()], pooling.args(count)].concat();
    on.launch("plane_pool", Grid::over(count), &args)
}

/// The gradient of its input, from input, output and the gradient of the output.
pub fn plane_pool_gradient(on: &dyn Launch, [x, y, grad]: [Ptr; 3], dx: Ptr, pooling: &Pooling) -> Result<()> {
    let count = pooling.planes * pooling.sides.iter().product::<usize>();
    let args = [[x, y, grad, dx].map(Arg::from).to_vec(), pooling.args(count)].concat();
    on.launch("plane_pool_gradient", Grid::over(count), &args)
}

/// Adds a bias `[C]`, in place.
pub fn add_bias(on: &dyn Launch, y: Ptr, bias: Ptr, p: Planes) -> Result<()> {
    let args = [y.into(), bias.into(), p.channels.into(), p.pixels.into(), p.len().into()];
    on.launch("add_bias", Grid::over(p.len()), &args)
}

/// Adds the gradient of a bias to `into`, from that of the output. `sums` is scratch memory, a number a plane.
pub fn bias_gradient(on: &dyn Launch, grad: Ptr, sums: Ptr, into: Ptr, p: Planes) -> Result<()> {
    let planes = p.planes();
    on.launch("plane_sums", warps(planes), &[grad.into(), sums.into(), p.pixels.into(), planes.into()])?;
    let args = [sums.into(), into.into(), p.images.into(), p.channels.into()];
    on.launch("add_channel_sums", warps(p.channels), &args)
}

/// Rows of which a part is used.
#[derive(Clone, Copy, Debug)]
pub struct Rows {
    /// How many.
    pub count: usize,
    /// Numbers of each.
    pub all: usize,
    /// Its first ones that are used.
    pub used: usize,
}

impl Rows {
    /// Used numbers.
    pub fn len(&self) -> usize {
        self.count * self.used
    }

    fn launch(&self, on: &dyn Launch, kernel: &'static str, from: Ptr, to: Ptr) -> Result<()> {
        let args = [from.into(), to.into(), self.all.into(), self.used.into(), self.len().into()];
        on.launch(kernel, Grid::over(self.len()), &args)
    }
}

/// The used part of each row, side by side.
pub fn take_rows(on: &dyn Launch, from: Ptr, to: Ptr, rows: Rows) -> Result<()> {
    rows.launch(on, "take_rows", from, to)
}

/// Adds such parts back to their rows.
pub fn add_rows(on: &dyn Launch, from: Ptr, into: Ptr, rows: Rows) -> Result<()> {
    rows.launch(on, "add_rows", from, into)
}

/// Adds `len` numbers.
pub fn add(on: &dyn Launch, from: Ptr, into: Ptr, len: usize) -> Result<()> {
    add_rows(on, from, into, Rows { count: 1, all: len, used: len })
}

/// Means of rows and columns of planes of `side` x `side`: `[2, planes, side]`.
pub fn axis_means(on: &dyn Launch, x: Ptr, y: Ptr, planes: usize, side: usize) -> Result<()> {
    let count = planes * side;
    on.launch("axis_means", Grid::over(2 * count), &[x.into(), y.into(), side.into(), count.into()])
}

/// The gradient of the planes.
pub fn axis_means_gradient(on: &dyn Launch, grad: Ptr, dx: Ptr, planes: usize, side: usize) -> Result<()> {
    let count = planes * side * side;
    on.launch("axis_means_gradient", Grid::over(count), &[grad.into(), dx.into(), side.into(), count.into()])
}

/// Lines of logits.
#[derive(Clone, Copy, Debug)]
pub struct Lines {
    /// How many.
    pub count: usize,
    /// Logits of each.
    pub bins: usize,
}

impl Lines {
    /// A kernel with a warp for each line, whose arguments begin with `pointers`.
    fn launch(self, on: &dyn Launch, kernel: &'static str, pointers: &[Ptr]) -> Result<()> {
        let pointers = pointers.iter().map(|&at| Arg::from(at));
        let args: Vec<_> = pointers.chain([self.bins.into(), self.count.into()]).collect();
        on.launch(kernel, warps(self.count), &args)
    }
}

/// The expected bin of each line.
pub fn soft_argmax(on: &dyn Launch, logits: Ptr, coords: Ptr, lines: Lines) -> Result<()> {
    lines.launch(on, "soft_argmax", &[logits, coords])
}

/// The gradient of the logits.
pub fn soft_argmax_gradient(on: &dyn Launch, [logits, coords, grad]: [Ptr; 3], dx: Ptr, lines: Lines) -> Result<()> {
    lines.launch(on, "soft_argmax_gradient", &[logits, coords, grad, dx])
}

/// The cross-entropy of each line with its target, in bins; 0 where that lies outside.
pub fn line_entropy(on: &dyn Launch, [logits, targets]: [Ptr; 2], losses: Ptr, lines: Lines) -> Result<()> {
    lines.launch(on, "line_entropy", &[logits, targets, losses])
}

/// The gradient of the logits.
pub fn line_entropy_gradient(on: &dyn Launch, [logits, targets, grad]: [Ptr; 3], dx: Ptr, lines: Lines) -> Result<()> {
    lines.launch(on, "line_entropy_gradient", &[logits, targets, grad, dx])
}

/// The expected cell of each of `volumes` cubes of logits, x first.
pub fn volume_soft_argmax(on: &dyn Launch, logits: Ptr, coords: Ptr, volumes: usize, depth: usize) -> Result<()> {
    on.launch("volume_soft_argmax", blocks(volumes), &[logits.into(), coords.into(), depth.into()])
}

/// The gradient of the logits.
pub fn volume_soft_argmax_gradient(
    on: &dyn Launch,
    [logits, coords, grad]: [Ptr; 3],
    dx: Ptr,
    volumes: usize,
    depth: usize,
) -> Result<()> {
    let args = [logits.into(), coords.into(), grad.into(), dx.into(), depth.into()];
    on.launch("volume_soft_argmax_gradient", blocks(volumes), &args)
}

/// Meshes, what is wanted of them, and their faces.
#[derive(Clone, Copy, Debug)]
pub struct Meshes {
    /// `[people, vertices, 3]`
    pub output: Ptr,
    /// `[people, vertices, 3]`
    pub target: Ptr,
    /// `[people, vertices]`
    pub valid: Ptr,
    /// `[face_count, 3]`, `int`
    pub faces: Ptr,
    /// How many.
    pub people: usize,
    /// Of each.
    pub vertices: usize,
}

impl Meshes {
    fn pointers(&self) -> [Arg; 4] {
        [self.output, self.target, self.valid, self.faces].map(Arg::from)
    }
}

/// Sums of each person's losses of normals and edges, `[people, 2]`.
pub fn surface_sums(on: &dyn Launch, meshes: &Meshes, sums: Ptr, face_count: usize) -> Result<()> {
    let rest = [sums.into(), meshes.vertices.into(), face_count.into()];
    on.launch("surface_sums", blocks(meshes.people), &[&meshes.pointers()[..], &rest].concat())
}

/// The gradient of the output; the corners of each vertex are `corners[starts[v]..starts[v + 1]]`, `int`.
pub fn surface_gradient(
    on: &dyn Launch,
    meshes: &Meshes,
    [starts, corners]: [Ptr; 2],
    grad: Ptr,
    dx: Ptr,
) -> Result<()> {
    let count = meshes.people * meshes.vertices;
    let rest = [starts.into(), corners.into(), grad.into(), dx.into(), meshes.vertices.into(), count.into()];
    on.launch("surface_gradient", Grid::over(count), &[&meshes.pointers()[..], &rest].concat())
}

/// Numbers of the scratch memory that [`shorten_gradient`] wants for a gradient.
pub fn square_parts(len: usize) -> usize {
    len.div_ceil(THREADS).clamp(1, SQUARE_BLOCKS)
}

/// Finds the factor that makes a gradient no longer than `longest`, and whether it is a number at all, for [`adam`].
pub fn shorten_gradient(
    on: &dyn Launch,
    gradient: Ptr,
    parts: Ptr,
    state: Ptr,
    len: usize,
    longest: f32,
) -> Result<()> {
    let count = square_parts(len);
    on.launch("gradient_squares", blocks(count), &[gradient.into(), parts.into(), long(len)])?;
    on.launch("shorten_gradient", blocks(1), &[parts.into(), state.into(), count.into(), longest.into()])
}

/// Where Adam's numbers are.
#[derive(Clone, Copy, Debug)]
pub struct AdamAt {
    /// Parameters.
    pub values: Ptr,
    /// Their gradients.
    pub gradients: Ptr,
    /// Mean of the gradients.
    pub mean: Ptr,
    /// Mean of their squares.
    pub square: Ptr,
    /// What [`shorten_gradient`] found.
    pub state: Ptr,
}

/// One step of Adam; the gradients are 0 then. The rates are those of
/// [`step_rates`](crate::train::optimizer::step_rates).
pub fn adam(on: &dyn Launch, at: AdamAt, [rate, square_factor]: [f32; 2], len: usize) -> Result<()> {
    let AdamAt { values, gradients, mean, square, state } = at;
    let pointers = [values, gradients, mean, square, state].map(Arg::from);
    let numbers = [rate, square_factor, 1.0 - BETA_1, 1.0 - BETA_2, EPSILON].map(Arg::from);
    on.launch("adam", Grid::over(len), &[&pointers[..], &numbers, &[long(len)]].concat())
}
