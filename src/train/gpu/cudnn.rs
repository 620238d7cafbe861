//! The three ways through a convolution by cuDNN, for planes. Which algorithm takes a shape is what cuDNN advises, one
//! that gives the same numbers every time where there is one, and is found out once.

// cuDNN is a C library behind handles: created, filled in and destroyed here.
#![allow(unsafe_code)]

use std::collections::HashMap;
use std::ffi::c_void;
use std::mem::MaybeUninit;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use candle_core::cuda_backend::cudarc::cudnn::{result, sys};
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, CudaStream, DevicePtr};
use candle_core::{Error, Result, bail};

use super::machine::Way;
use crate::nets::Precision;
use crate::nets::cuda::kernels::Ptr;
use crate::nets::kernels::ConvDims;

/// Memory that an algorithm may ask for.
const MAX_WORKSPACE_BYTES: usize = 1 << 30;
/// Algorithms that are asked for; each way has at most eight.
const ALGORITHMS: usize = 8;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The library, and what was found out.
pub struct Convolutions {
    handle: Mutex<Handle>,
    stream: Arc<CudaStream>,
    precision: Precision,
    plans: Mutex<HashMap<(Way, ConvDims), Arc<Plan>>>,
    /// As much as any algorithm has asked for so far; work follows work on the stream, so one is enough.
    workspace: Mutex<Option<CudaSlice<u8>>>,
}

struct Handle(sys::cudnnHandle_t);

// SAFETY: cuDNN's handle may move between threads; a lock keeps it to one at a time.
unsafe impl Send for Handle {}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: created by `create_handle`, destroyed only here.
        let _ = unsafe { result::destroy_handle(self.0) };
    }
}

#[derive(Clone, Copy, Debug)]
enum Algorithm {
    Forward(sys::cudnnConvolutionFwdAlgo_t),
    Input(sys::cudnnConvolutionBwdDataAlgo_t),
    Weights(sys::cudnnConvolutionBwdFilterAlgo_t),
}

struct Plan {
    description: Description,
    algorithm: Algorithm,
    workspace_bytes: usize,
}

/// What cuDNN is told about a shape.
struct Description {
    input: sys::cudnnTensorDescriptor_t,
    output: sys::cudnnTensorDescriptor_t,
    weight: sys::cudnnFilterDescriptor_t,
    conv: sys::cudnnConvolutionDescriptor_t,
}

// SAFETY: descriptions are memory without ties to a thread, and are not changed once they are filled in.
unsafe impl Send for Description {}
// SAFETY: as above.
unsafe impl Sync for Description {}

impl Description {
    fn new(precision: Precision, d: &ConvDims) -> Result<Self> {
        let description = Self {
            input: result::create_tensor_descriptor().map_err(Error::wrap)?,
            output: result::create_tensor_descriptor().map_err(Error::wrap)?,
            weight: result::create_filter_descriptor().map_err(Error::wrap)?,
            conv: result::create_convolution_descriptor().map_err(Error::wrap)?,
        };
        let math = match precision {
            Precision::F32 => sys::cudnnMathType_t::CUDNN_FMA_MATH,
            // For f32 that is TF32 where the GPU has it.
            _ => sys::cudnnMathType_t::CUDNN_DEFAULT_MATH,
        };
        let (float, planes) = (sys::cudnnDataType_t::CUDNN_DATA_FLOAT, sys::cudnnTensorFormat_t::CUDNN_TENSOR_NCHW);
        let [rows, columns] = d.output_sides();
        let int = |n: usize| n as i32;
        let (p, s) = (int(d.padding), int(d.stride));
        let input = [d.batch, d.input, d.height, d.width].map(int);
        let output = [d.batch, d.output, rows, columns].map(int);
        let weight = [d.output, d.input, d.kernel, d.kernel].map(int);
        let mode = sys::cudnnConvolutionMode_t::CUDNN_CROSS_CORRELATION;
        // SAFETY: all were created above.
        unsafe {
            result::set_tensor4d_descriptor(description.input, planes, float, input).map_err(Error::wrap)?;
            result::set_tensor4d_descriptor(description.output, planes, float, output).map_err(Error::wrap)?;
            result::set_filter4d_descriptor(description.weight, float, planes, weight).map_err(Error::wrap)?;
            result::set_convolution2d_descriptor(description.conv, p, p, s, s, 1, 1, mode, float)
                .map_err(Error::wrap)?;
            result::set_convolution_math_type(description.conv, math).map_err(Error::wrap)?;
        }
        Ok(description)
    }
}

impl Drop for Description {
    fn drop(&mut self) {
        // SAFETY: created in `new`, destroyed only here.
        unsafe {
            let _ = result::destroy_tensor_descriptor(self.input);
            let _ = result::destroy_tensor_descriptor(self.output);
            let _ = result::destroy_filter_descriptor(self.weight);
            let _ = result::destroy_convolution_descriptor(self.conv);
        }
    }
}

impl Convolutions {
    /// Opens cuDNN for work on a stream.
    pub fn new(stream: &Arc<CudaStream>, precision: Precision) -> Result<Self> {
        stream.context().bind_to_thread().map_err(Error::wrap)?;
        let handle = Handle(result::create_handle().map_err(Error::wrap)?);
        // SAFETY: the handle was created above; the stream stays as long as the device.
        unsafe { result::set_stream(handle.0, stream.cu_stream().cast()) }.map_err(Error::wrap)?;
        Ok(Self {
            handle: Mutex::new(handle),
            stream: Arc::clone(stream),
            precision,
            plans: Mutex::default(),
            workspace: Mutex::default(),
        })
    }

    /// Goes one of the ways; see [`Way`].
    pub fn run(&self, way: Way, dims: &ConvDims, from: [Ptr; 2], into: Ptr) -> Result<()> {
        self.stream.context().bind_to_thread().map_err(Error::wrap)?;
        let known = lock(&self.plans).get(&(way, *dims)).cloned();
        if let Some(plan) = known {
            return self.execute(&plan, from, into);
        }
        let mut trouble = None;
        for (algorithm, workspace_bytes) in self.advised(way, dims)? {
            let plan = Plan { description: Description::new(self.precision, dims)?, algorithm, workspace_bytes };
            // What an algorithm cannot do it says when it is called.
            match self.execute(&plan, from, into) {
                Ok(()) => {
                    log::debug!("{way:?} {dims:?}: {algorithm:?}, {workspace_bytes} bytes of workspace");
                    lock(&self.plans).insert((way, *dims), Arc::new(plan));
                    return Ok(());
                }
                Err(error) => trouble = Some(error),
            }
        }
        bail!("cuDNN has no algorithm for {way:?} of {dims:?}: {trouble:?}")
    }

    /// cuDNN's advice, best first, and the workspace that each algorithm wants.
    fn advised(&self, way: Way, dims: &ConvDims) -> Result<Vec<(Algorithm, usize)>> {
        let handle = lock(&self.handle);
        let d = Description::new(self.precision, dims)?;
        let mut count = 0;
        // SAFETY: handle and descriptions live; cuDNN fills in as many results as it tells, at most as many as asked.
        let mut found: Vec<(Algorithm, usize, bool)> = unsafe {
            match way {
                Way::Forward => {
                    let mut found = [MaybeUninit::<sys::cudnnConvolutionFwdAlgoPerf_t>::uninit(); ALGORITHMS];
                    result::get_convolution_forward_algorithm(
                        handle.0,
                        d.input,
                        d.weight,
                        d.conv,
                        d.output,
                        ALGORITHMS as i32,
                        &raw mut count,
                        found.as_mut_ptr().cast(),
                    )
                    .map_err(Error::wrap)?;
                    let found = found.iter().take(count.max(0) as usize).map(|result| result.assume_init());
                    let open = found.filter(|result| result.status.result().is_ok());
                    open.filter_map(|open| {
                        let bytes = result::get_convolution_forward_workspace_size(
                            handle.0, d.input, d.weight, d.conv, d.output, open.algo,
                        );
                        Some((Algorithm::Forward(open.algo), bytes.ok()?, is_repeatable(open.determinism)))
                    })
                    .collect()
                }
                Way::Input => {
                    let mut found = [MaybeUninit::<sys::cudnnConvolutionBwdDataAlgoPerf_t>::uninit(); ALGORITHMS];
                    result::get_convolution_backward_data_algorithm(
                        handle.0,
                        d.weight,
                        d.output,
                        d.conv,
                        d.input,
                        ALGORITHMS as i32,
                        &raw mut count,
                        found.as_mut_ptr().cast(),
                    )
                    .map_err(Error::wrap)?;
                    let found = found.iter().take(count.max(0) as usize).map(|result| result.assume_init());
                    let open = found.filter(|result| result.status.result().is_ok());
                    open.filter_map(|open| {
                        let bytes = result::get_convolution_backward_data_workspace_size(
                            handle.0, d.weight, d.output, d.conv, d.input, open.algo,
                        );
                        Some((Algorithm::Input(open.algo), bytes.ok()?, is_repeatable(open.determinism)))
                    })
                    .collect()
                }
                Way::Weights => {
                    let mut found = [MaybeUninit::<sys::cudnnConvolutionBwdFilterAlgoPerf_t>::uninit(); ALGORITHMS];
                    result::get_convolution_backward_filter_algorithm(
                        handle.0,
                        d.input,
                        d.output,
                        d.conv,
                        d.weight,
                        ALGORITHMS as i32,
                        &raw mut count,
                        found.as_mut_ptr().cast(),
                    )
                    .map_err(Error::wrap)?;
                    let found = found.iter().take(count.max(0) as usize).map(|result| result.assume_init());
                    let open = found.filter(|result| result.status.result().is_ok());
                    open.filter_map(|open| {
                        let bytes = result::get_convolution_backward_filter_workspace_size(
                            handle.0, d.input, d.output, d.conv, d.weight, open.algo,
                        );
                        Some((Algorithm::Weights(open.algo), bytes.ok()?, is_repeatable(open.determinism)))
                    })
                    .collect()
                }
            }
        };
        found.retain(|(_, bytes, _)| *bytes <= MAX_WORKSPACE_BYTES);
        // Stable: among equals cuDNN's order stays.
        found.sort_by_key(|(.., is_repeatable)| !is_repeatable);
        Ok(found.into_iter().map(|(algorithm, bytes, _)| (algorithm, bytes)).collect())
    }

    /// Memory of at least so many bytes; nowhere where none is wanted.
    fn workspace(&self, bytes: usize) -> Result<Ptr> {
        if bytes == 0 {
            return Ok(Ptr::NULL);
        }
        let mut workspace = lock(&self.workspace);
        if workspace.as_ref().is_none_or(|workspace| workspace.len() < bytes) {
            // What was there goes once the work that was asked for is done.
            *workspace = None;
            // SAFETY: scratch memory, which cuDNN writes before it reads it.
            *workspace = Some(unsafe { self.stream.alloc::<u8>(bytes) }.map_err(Error::wrap)?);
        }
        Ok(workspace.as_ref().map_or(Ptr::NULL, |workspace| Ptr(workspace.device_ptr(&self.stream).0)))
    }

    fn execute(&self, plan: &Plan, [a, b]: [Ptr; 2], into: Ptr) -> Result<()> {
        let workspace = pointer(self.workspace(plan.workspace_bytes)?);
        let handle = lock(&self.handle);
        let (d, bytes) = (&plan.description, plan.workspace_bytes);
        let (one, zero) = (1_f32, 0_f32);
        let (one, zero): (*const c_void, *const c_void) = ((&raw const one).cast(), (&raw const zero).cast());
        let (a, b, into) = (pointer(a), pointer(b), pointer(into));
        // SAFETY: the descriptions say how much is read and written from the addresses on, which is what the caller took
        // for this shape; the workspace has what the algorithm asked for.
        let done = unsafe {
            match plan.algorithm {
                Algorithm::Forward(algorithm) => result::convolution_forward(
                    handle.0, one, d.input, a, d.weight, b, d.conv, algorithm, workspace, bytes, zero, d.output, into,
                ),
                Algorithm::Input(algorithm) => result::convolution_backward_data(
                    handle.0, one, d.weight, b, d.output, a, d.conv, algorithm, workspace, bytes, zero, d.input, into,
                ),
                Algorithm::Weights(algorithm) => result::convolution_backward_filter(
                    handle.0, one, d.input, a, d.output, b, d.conv, algorithm, workspace, bytes, zero, d.weight, into,
                ),
            }
        };
        done.map_err(Error::wrap)
    }
}

fn pointer(at: Ptr) -> *mut c_void {
    at.0 as *mut c_void
}

fn is_repeatable(determinism: sys::cudnnDeterminism_t) -> bool {
    determinism == sys::cudnnDeterminism_t::CUDNN_DETERMINISTIC
}
