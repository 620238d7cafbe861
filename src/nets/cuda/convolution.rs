//! Convolutions, channels last, with bias, residual and ReLU fused. There are several ways; which of them is the
//! fastest for a shape is found out by running them, once:
//!
//! - as a matrix product by cuBLASLt (kernel 1, or as large as the map);
//! - by cuDNN with everything fused (`cudnnConvolutionBiasActivationForward`), or with a kernel of our own after it;
//! - as a product of gathered taps;
//! - by its definition, where all else fails.

// cuDNN is a C library behind handles: created, filled in and destroyed here.
#![allow(unsafe_code)]

use std::collections::HashMap;
use std::ffi::c_void;
use std::mem::MaybeUninit;
use std::sync::{Arc, Mutex};

use candle_core::cuda_backend::cudarc::cudnn::{result, sys};
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, CudaStream, DevicePtr};
use candle_core::{Error, Result, bail};

use super::gpu::{Gpu, lock};
use super::kernels::{self, ConvDims, Launch, MapDims, ProductDims, Ptr, Tail};
use super::products::{Operands, Products, TRIALS, WORKSPACE_BYTES};
use crate::nets::Precision;

/// Gathered taps take at most this much memory.
const MAX_TAP_BYTES: usize = 256 << 20;

/// cuDNN, cuBLASLt, and what was found out.
pub struct Libraries {
    cudnn: Mutex<Cudnn>,
    /// Matrix products.
    pub products: Products,
    plans: Mutex<HashMap<Key, Arc<Plan>>>,
    /// For both libraries; work follows work on the stream, so one is enough.
    workspace: (CudaSlice<u8>, Ptr),
}

/// A convolution's parts: channels filled up, weights `[O, K, K, I]`.
#[derive(Clone, Copy, Debug)]
pub struct Parts {
    /// The map that is read.
    pub x: Ptr,
    /// In the precision's type.
    pub weight: Ptr,
    /// In the precision's type, `[O]`.
    pub bias: Ptr,
    /// What follows; its bias is f32.
    pub tail: Tail,
    /// The map that is made.
    pub y: Ptr,
}

/// What a plan depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    dims: ConvDims,
    residual: bool,
    relu: bool,
}

/// How a convolution is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Product,
    Fused(sys::cudnnConvolutionFwdAlgo_t),
    ThenFinish(sys::cudnnConvolutionFwdAlgo_t),
    Taps,
    Direct,
}

struct Plan {
    key: Key,
    way: Way,
    /// One of the ways with everything in one kernel could be gone, whichever was the fastest.
    fused: bool,
    /// For cuDNN's ways.
    description: Option<Description>,
}

impl Plan {
    fn name(&self) -> String {
        let ConvDims { input, output, kernel, stride, .. } = self.key.dims;
        let MapDims { batch, height, width, channels } = input;
        let way = match self.way {
            Way::Product => "cublasLt".into(),
            Way::Fused(algorithm) => format!("cuDNN {}, fused", algorithm as u32),
            Way::ThenFinish(algorithm) => format!("cuDNN {}, then finished", algorithm as u32),
            Way::Taps => "taps, cublasLt".into(),
            Way::Direct => "by definition".into(),
        };
        format!("conv {kernel}x{kernel}/{stride} {channels}->{output} of {batch}x{height}x{width} ({way})")
    }
}

struct Cudnn(sys::cudnnHandle_t);

// SAFETY: cuDNN's handle may move between threads; a lock keeps it to one at a time.
unsafe impl Send for Cudnn {}

impl Drop for Cudnn {
    fn drop(&mut self) {
        // SAFETY: created by `create_handle`, destroyed only here.
        let _ = unsafe { result::destroy_handle(self.0) };
    }
}

/// What cuDNN is told about a shape.
struct Description {
    x: sys::cudnnTensorDescriptor_t,
    y: sys::cudnnTensorDescriptor_t,
    bias: sys::cudnnTensorDescriptor_t,
    weight: sys::cudnnFilterDescriptor_t,
    conv: sys::cudnnConvolutionDescriptor_t,
    activation: sys::cudnnActivationDescriptor_t,
}

// SAFETY: descriptions are memory without ties to a thread, and are not changed once they are filled in.
unsafe impl Send for Description {}
// SAFETY: as above.
unsafe impl Sync for Description {}

impl Description {
    fn new(precision: Precision, key: &Key) -> Result<Self> {
        let description = Self {
            x: result::create_tensor_descriptor().map_err(Error::wrap)?,
            y: result::create_tensor_descriptor().map_err(Error::wrap)?,
            bias: result::create_tensor_descriptor().map_err(Error::wrap)?,
            weight: result::create_filter_descriptor().map_err(Error::wrap)?,
            conv: result::create_convolution_descriptor().map_err(Error::wrap)?,
            activation: result::create_activation_descriptor().map_err(Error::wrap)?,
        };
        let (kind, math) = match precision {
            Precision::F32 => (sys::cudnnDataType_t::CUDNN_DATA_FLOAT, sys::cudnnMathType_t::CUDNN_FMA_MATH),
            Precision::Tf32 => (sys::cudnnDataType_t::CUDNN_DATA_FLOAT, sys::cudnnMathType_t::CUDNN_DEFAULT_MATH),
            Precision::F16 => (sys::cudnnDataType_t::CUDNN_DATA_HALF, sys::cudnnMathType_t::CUDNN_TENSOR_OP_MATH),
            Precision::Bf16 => (sys::cudnnDataType_t::CUDNN_DATA_BFLOAT16, sys::cudnnMathType_t::CUDNN_TENSOR_OP_MATH),
        };
        let nhwc = sys::cudnnTensorFormat_t::CUDNN_TENSOR_NHWC;
        let int = |n: usize| n as i32;
        let ConvDims { input, kernel, stride, padding, .. } = key.dims;
        let out = key.dims.out();
        let shape = |dims: MapDims| [dims.batch, dims.padded(), dims.height, dims.width].map(int);
        let (k, s, p) = (int(kernel), int(stride), int(padding));
        let activation = if key.relu {
            sys::cudnnActivationMode_t::CUDNN_ACTIVATION_RELU
        } else {
            sys::cudnnActivationMode_t::CUDNN_ACTIVATION_IDENTITY
        };
        // SAFETY: all were created above.
        unsafe {
            let Self { x, y, bias, weight, conv, activation: act } = &description;
            result::set_tensor4d_descriptor(*x, nhwc, kind, shape(input)).map_err(Error::wrap)?;
            result::set_tensor4d_descriptor(*y, nhwc, kind, shape(out)).map_err(Error::wrap)?;
            result::set_tensor4d_descriptor(*bias, nhwc, kind, [1, int(out.padded()), 1, 1]).map_err(Error::wrap)?;
            let filter = [int(out.padded()), int(input.padded()), k, k];
            result::set_filter4d_descriptor(*weight, kind, nhwc, filter).map_err(Error::wrap)?;
            let mode = sys::cudnnConvolutionMode_t::CUDNN_CROSS_CORRELATION;
            let float = sys::cudnnDataType_t::CUDNN_DATA_FLOAT;
            result::set_convolution2d_descriptor(*conv, p, p, s, s, 1, 1, mode, float).map_err(Error::wrap)?;
            result::set_convolution_math_type(*conv, math).map_err(Error::wrap)?;
            let nan = sys::cudnnNanPropagation_t::CUDNN_PROPAGATE_NAN;
            result::set_activation_descriptor(*act, activation, nan, f64::MAX).map_err(Error::wrap)?;
        }
        Ok(description)
    }
}

impl Drop for Description {
    fn drop(&mut self) {
        // SAFETY: created in `new`, destroyed only here.
        unsafe {
            let _ = result::destroy_tensor_descriptor(self.x);
            let _ = result::destroy_tensor_descriptor(self.y);
            let _ = result::destroy_tensor_descriptor(self.bias);
            let _ = result::destroy_filter_descriptor(self.weight);
            let _ = result::destroy_convolution_descriptor(self.conv);
            let _ = sys::cudnnDestroyActivationDescriptor(self.activation);
        }
    }
}

impl Libraries {
    /// Opens them for work on a stream.
    pub fn new(stream: &Arc<CudaStream>) -> Result<Self> {
        stream.context().bind_to_thread().map_err(Error::wrap)?;
        let cudnn = Cudnn(result::create_handle().map_err(Error::wrap)?);
        // SAFETY: the handle was created above; the stream stays as long as the device.
        unsafe { result::set_stream(cudnn.0, stream.cu_stream().cast()) }.map_err(Error::wrap)?;
        // SAFETY: scratch memory, which the libraries write before they read it.
        let workspace = unsafe { stream.alloc::<u8>(WORKSPACE_BYTES) }.map_err(Error::wrap)?;
        let at = Ptr(workspace.device_ptr(stream).0);
        Ok(Self {
            cudnn: Mutex::new(cudnn),
            products: Products::new()?,
            plans: Mutex::default(),
            workspace: (workspace, at),
        })
    }

    /// [`WORKSPACE_BYTES`] of scratch memory.
    pub(super) fn workspace(&self) -> Ptr {
        debug_assert!(self.workspace.0.len() >= WORKSPACE_BYTES);
        self.workspace.1
    }

    /// Which way every shape that was met goes, and whether it is the slow one.
    pub fn ways(&self) -> Vec<(String, bool)> {
        let convolutions = lock(&self.plans).values().map(|plan| (plan.name(), !plan.fused)).collect();
        let mut ways: Vec<_> = [convolutions, self.products.ways()].concat();
        ways.sort();
        ways
    }

    /// A convolution, in the way that is known for its shape, or found out now.
    pub fn convolve(&self, gpu: &Gpu, dims: ConvDims, parts: Parts) -> Result<()> {
        let key = Key { dims, residual: parts.tail.residual.is_some(), relu: parts.tail.relu };
        let known = lock(&self.plans).get(&key).cloned();
        let plan = match known {
            Some(plan) => plan,
            None => self.find(gpu, key, parts)?,
        };
        self.run(gpu, &plan, parts)
    }

    /// Tries all ways.
    fn find(&self, gpu: &Gpu, key: Key, parts: Parts) -> Result<Arc<Plan>> {
        if gpu.is_capturing() {
            bail!("a convolution of a shape that was not met before cannot be part of a graph");
        }
        let description = Description::new(gpu.precision(), &key);
        if let Err(error) = &description {
            log::warn!("cuDNN cannot be told of {key:?}: {error}");
        }
        let mut plan = Plan { key, way: Way::Direct, fused: false, description: description.ok() };
        let mut best: Option<(f32, Way)> = None;
        for way in self.open_ways(gpu, &plan) {
            plan.way = way;
            // The first run finds out what is below (products have algorithms of their own), and whether it can be.
            let timed = self
                .run(gpu, &plan, parts)
                .and_then(|()| gpu.elapsed_ms(|| (0..TRIALS).try_for_each(|_| self.run(gpu, &plan, parts))));
            plan.fused |= timed.is_ok() && !matches!(way, Way::ThenFinish(_));
            match timed {
                Ok(ms) if best.is_none_or(|(least, _)| ms < least) => best = Some((ms, way)),
                Ok(_) => {}
                Err(error) => log::debug!("{}: {error}", plan.name()),
            }
        }
        plan.way = best.map_or(Way::Direct, |(_, way)| way);
        match best {
            Some((ms, _)) => log::debug!("{}: {:.4} ms", plan.name(), ms / TRIALS as f32),
            None => log::warn!("{}: no library does it, which is slow", plan.name()),
        }
        let plan = Arc::new(plan);
        lock(&self.plans).insert(key, Arc::clone(&plan));
        Ok(plan)
    }

    /// Ways worth a trial; the one by definition is not.
    fn open_ways(&self, gpu: &Gpu, plan: &Plan) -> Vec<Way> {
        let dims = plan.key.dims;
        let mut ways = Vec::new();
        if is_product(&dims) {
            ways.push(Way::Product);
        } else if dims.out().pixels() * dims.depth() * gpu.precision().bytes() <= MAX_TAP_BYTES {
            ways.push(Way::Taps);
        }
        for algorithm in self.algorithms(plan).unwrap_or_default() {
            // Without an activation this one alone can be fused (cuDNN's documentation).
            if plan.key.relu
                || algorithm == sys::cudnnConvolutionFwdAlgo_t::CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM
            {
                ways.push(Way::Fused(algorithm));
            }
            ways.push(Way::ThenFinish(algorithm));
        }
        ways
    }

    /// cuDNN's algorithms for a shape, those that need no more than the workspace.
    fn algorithms(&self, plan: &Plan) -> Result<Vec<sys::cudnnConvolutionFwdAlgo_t>> {
        const COUNT: usize = 8;
        let Some(description) = &plan.description else { return Ok(Vec::new()) };
        let cudnn = lock(&self.cudnn);
        let mut found = [MaybeUninit::<sys::cudnnConvolutionFwdAlgoPerf_t>::uninit(); COUNT];
        let mut count = 0;
        // SAFETY: handle and descriptions live; the library fills in as many results as it tells.
        let found = unsafe {
            let Description { x, y, weight, conv, .. } = description;
            result::get_convolution_forward_algorithm(
                cudnn.0,
                *x,
                *weight,
                *conv,
                *y,
                COUNT as i32,
                &raw mut count,
                found.as_mut_ptr().cast(),
            )
            .map_err(Error::wrap)?;
            found.iter().take(count.max(0) as usize).map(|result| result.assume_init()).collect::<Vec<_>>()
        };
        let possible = found.iter().filter(|result| result.status.result().is_ok()).map(|result| result.algo);
        Ok(possible.filter(|&algorithm| workspace_bytes(&cudnn, description, algorithm) <= WORKSPACE_BYTES).collect())
    }

    fn run(&self, gpu: &Gpu, plan: &Plan, parts: Parts) -> Result<()> {
        let dims = plan.key.dims;
        let out = dims.out();
        let operands = |a: Ptr| Operands {
            a,
            b: parts.weight,
            bias: parts.bias,
            bias_f32: parts.tail.bias,
            residual: parts.tail.residual,
            d: parts.y,
        };
        let product = ProductDims {
            batch: 1,
            m: out.pixels(),
            n: out.padded(),
            k: dims.depth(),
            shared_b: true,
            wide: false,
            bias: true,
            relu: plan.key.relu,
        };
        match plan.way {
            Way::Product => self.products.run(gpu, product, operands(parts.x)),
            Way::Taps => {
                let taps = gpu.take(out.pixels() * dims.depth() * gpu.precision().bytes())?;
                kernels::gather_conv_taps(gpu, parts.x, taps.at(), dims)?;
                self.products.run(gpu, product, operands(taps.at()))
            }
            Way::Fused(algorithm) => gpu.marked(|| plan.name(), || self.fused(gpu, plan, algorithm, parts)),
            Way::ThenFinish(algorithm) => {
                gpu.marked(|| plan.name(), || self.plain(gpu, plan, algorithm, parts))?;
                kernels::finish(gpu, parts.y, out, parts.tail)
            }
            Way::Direct => kernels::direct_conv(gpu, parts.x, parts.weight, parts.y, dims, parts.tail),
        }
    }

    fn fused(&self, gpu: &Gpu, plan: &Plan, algorithm: sys::cudnnConvolutionFwdAlgo_t, parts: Parts) -> Result<()> {
        let Some(description) = &plan.description else { bail!("cuDNN does not know this shape") };
        gpu.context().bind_to_thread().map_err(Error::wrap)?;
        let cudnn = lock(&self.cudnn);
        let (one, zero) = (1_f32, 0_f32);
        let residual = parts.tail.residual;
        let alpha2 = if residual.is_some() { &one } else { &zero };
        // SAFETY: the descriptions say how much is read and written from the addresses on, which is what the caller
        // took for this shape; the workspace has what the algorithm asked for, see `algorithms`.
        unsafe {
            result::convolution_bias_activation_forward(
                cudnn.0,
                (&raw const one).cast(),
                description.x,
                pointer(parts.x),
                description.weight,
                pointer(parts.weight),
                description.conv,
                algorithm,
                pointer(self.workspace()),
                WORKSPACE_BYTES,
                std::ptr::from_ref(alpha2).cast(),
                description.y,
                pointer(residual.unwrap_or(parts.y)),
                description.bias,
                pointer(parts.bias),
                description.activation,
                description.y,
                pointer(parts.y),
            )
        }
        .map_err(Error::wrap)
    }

    fn plain(&self, gpu: &Gpu, plan: &Plan, algorithm: sys::cudnnConvolutionFwdAlgo_t, parts: Parts) -> Result<()> {
        let Some(description) = &plan.description else { bail!("cuDNN does not know this shape") };
        gpu.context().bind_to_thread().map_err(Error::wrap)?;
        let cudnn = lock(&self.cudnn);
        let (one, zero) = (1_f32, 0_f32);
        // SAFETY: as in `fused`.
        unsafe {
            result::convolution_forward(
                cudnn.0,
                (&raw const one).cast(),
                description.x,
                pointer(parts.x),
                description.weight,
                pointer(parts.weight),
                description.conv,
                algorithm,
                pointer(self.workspace()),
                WORKSPACE_BYTES,
                (&raw const zero).cast(),
                description.y,
                pointer(parts.y),
            )
        }
        .map_err(Error::wrap)
    }
}

fn pointer(at: Ptr) -> *mut c_void {
    at.0 as *mut c_void
}

/// More than there is where the library does not say.
fn workspace_bytes(cudnn: &Cudnn, description: &Description, algorithm: sys::cudnnConvolutionFwdAlgo_t) -> usize {
    let Description { x, y, weight, conv, .. } = description;
    // SAFETY: handle and descriptions live.
    unsafe { result::get_convolution_forward_workspace_size(cudnn.0, *x, *weight, *conv, *y, algorithm) }
        .unwrap_or(usize::MAX)
}

/// Whether each output pixel reads what lies side by side in memory: kernel 1, or one as large as the map.
fn is_product(dims: &ConvDims) -> bool {
    let ConvDims { input, kernel, stride, padding, .. } = *dims;
    padding == 0 && (kernel == 1 && stride == 1 || (input.height, input.width) == (kernel, kernel))
}
