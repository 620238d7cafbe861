//! Matrix products by cuBLASLt, with bias, residual and ReLU in the same kernel. Which of its algorithms is the fastest
//! for a size is found out by running them, once.

// A C library behind handles: created, filled in and destroyed here, each by its own kind of owner.
#![allow(unsafe_code)]

use std::collections::HashMap;
use std::ffi::c_void;
use std::mem::MaybeUninit;
use std::sync::{Arc, Mutex};

use candle_core::cuda_backend::cudarc::cublaslt::{result, sys};
use candle_core::cuda_backend::cudarc::driver::CudaStream;
use candle_core::{Error, Result, bail};

use super::gpu::{Gpu, lock};
use super::kernels::{self, Launch, ProductDims, Ptr};
use crate::nets::Precision;

/// Algorithms that are tried for each size.
const CANDIDATES: usize = 8;
/// Memory that an algorithm may ask for (cuBLAS' own default on sm_90).
pub(super) const WORKSPACE_BYTES: usize = 32 << 20;

/// Where the parts of a product are. Biases are in the type of `d`.
#[derive(Clone, Copy, Debug)]
pub struct Operands {
    /// `[batch, m, k]`
    pub a: Ptr,
    /// `[batch, n, k]`
    pub b: Ptr,
    /// `[n]`, as the plan's `bias` says.
    pub bias: Ptr,
    /// The same in f32.
    pub bias_f32: Ptr,
    /// Added before ReLU, as large as `d`.
    pub residual: Option<Ptr>,
    /// `[batch, m, n]`
    pub d: Ptr,
}

/// A size, and whether a residual is added.
type Key = (ProductDims, bool);

/// The library, and the algorithm for each size that was met.
pub struct Products {
    handle: Handle,
    plans: Mutex<HashMap<Key, Arc<Plan>>>,
}

struct Handle(sys::cublasLtHandle_t);

// SAFETY: cuBLASLt's handle may be used by any thread, by several at a time (its documentation, "Thread safety").
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: created by `create_handle`, destroyed only here.
        let _ = unsafe { result::destroy_handle(self.0) };
    }
}

/// A matrix in memory: column-major for the library, so rows and columns change places.
struct Matrix(sys::cublasLtMatrixLayout_t);

impl Matrix {
    fn new(kind: sys::cudaDataType, rows: usize, columns: usize, batch: usize, stride: usize) -> Result<Self> {
        use sys::cublasLtMatrixLayoutAttribute_t as Attribute;
        let layout =
            result::create_matrix_layout(kind, rows as u64, columns as u64, rows as i64).map_err(Error::wrap)?;
        let matrix = Self(layout);
        let (batch, stride) = (batch as i32, stride as i64);
        // SAFETY: the layout was created above; the attributes are of these types.
        unsafe {
            let attribute = Attribute::CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT;
            result::set_matrix_layout_attribute(layout, attribute, (&raw const batch).cast(), size_of::<i32>())
                .map_err(Error::wrap)?;
            let attribute = Attribute::CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET;
            result::set_matrix_layout_attribute(layout, attribute, (&raw const stride).cast(), size_of::<i64>())
                .map_err(Error::wrap)?;
        }
        Ok(matrix)
    }
}

impl Drop for Matrix {
    fn drop(&mut self) {
        // SAFETY: created by `create_matrix_layout`, destroyed only here.
        let _ = unsafe { result::destroy_matrix_layout(self.0) };
    }
}

struct Operation(sys::cublasLtMatmulDesc_t);

impl Operation {
    fn new(precision: Precision, dims: &ProductDims) -> Result<Self> {
        use sys::cublasLtMatmulDescAttributes_t as Attribute;
        let compute = match precision {
            Precision::Tf32 => sys::cublasComputeType_t::CUBLAS_COMPUTE_32F_FAST_TF32,
            _ => sys::cublasComputeType_t::CUBLAS_COMPUTE_32F,
        };
        let operation = Self(result::create_matmul_desc(compute, sys::cudaDataType::CUDA_R_32F).map_err(Error::wrap)?);
        operation.set(Attribute::CUBLASLT_MATMUL_DESC_TRANSA, 1_i32)?;
        let epilogue = match (dims.bias, dims.relu) {
            (true, true) => sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_RELU_BIAS,
            (true, false) => sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_BIAS,
            (false, true) => sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_RELU,
            (false, false) => sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_DEFAULT,
        };
        operation.set(Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue as u32)?;
        Ok(operation)
    }

    fn set<T: Copy>(&self, attribute: sys::cublasLtMatmulDescAttributes_t, value: T) -> Result<()> {
        // SAFETY: the description lives as long as its owner; each attribute is set with the type that it has.
        unsafe { result::set_matmul_desc_attribute(self.0, attribute, (&raw const value).cast(), size_of::<T>()) }
            .map_err(Error::wrap)
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        // SAFETY: created by `create_matmul_desc`, destroyed only here.
        let _ = unsafe { result::destroy_matmul_desc(self.0) };
    }
}

/// What the library is told about a size.
struct Description {
    operation: Operation,
    a: Matrix,
    b: Matrix,
    d: Matrix,
}

// SAFETY: descriptions are memory without ties to a thread; a plan hands them out behind a lock.
unsafe impl Send for Description {}

/// How a product is done.
pub struct Plan {
    key: Key,
    description: Mutex<Description>,
    /// `None`: the library has no algorithm, the product is done by its definition.
    algorithm: Option<sys::cublasLtMatmulAlgo_t>,
    /// Of one run, as measured.
    pub(super) ms: f32,
}

impl Plan {
    /// In words, for a profile.
    pub fn name(&self) -> String {
        let ProductDims { batch, m, n, k, .. } = self.key.0;
        let way = if self.algorithm.is_some() { "cublasLt" } else { "by definition" };
        format!("product {batch} x {m} x {n} x {k} ({way})")
    }

    /// Whether the slow way is taken.
    pub fn is_direct(&self) -> bool {
        self.algorithm.is_none()
    }
}

impl Products {
    /// Opens the library.
    pub fn new() -> Result<Self> {
        Ok(Self { handle: Handle(result::create_handle().map_err(Error::wrap)?), plans: Mutex::default() })
    }

    /// All plans so far, as (name, slow).
    pub fn ways(&self) -> Vec<(String, bool)> {
        lock(&self.plans).values().map(|plan| (plan.name(), plan.is_direct())).collect()
    }

    /// Does a product, with the algorithm that is known for its size, or found out now.
    pub fn run(&self, gpu: &Gpu, dims: ProductDims, operands: Operands) -> Result<()> {
        let plan = self.plan(gpu, dims, operands)?;
        self.run_plan(gpu, &plan, operands)
    }

    /// The plan for a size; where it is new, the operands serve for trying.
    pub fn plan(&self, gpu: &Gpu, dims: ProductDims, operands: Operands) -> Result<Arc<Plan>> {
        let key = (dims, operands.residual.is_some());
        if let Some(plan) = lock(&self.plans).get(&key) {
            return Ok(Arc::clone(plan));
        }
        if gpu.is_capturing() {
            bail!("a product of a size that was not met before cannot be part of a graph");
        }
        let mut plan = Self::describe(gpu.precision(), key)?;
        let found = self.candidates(&plan).unwrap_or_else(|error| {
            log::warn!("cuBLASLt has no algorithm for {dims:?} ({error}): it is done by its definition, which is slow");
            Vec::new()
        });
        let mut best: Option<(f32, sys::cublasLtMatmulAlgo_t)> = None;
        for algorithm in found {
            plan.algorithm = Some(algorithm);
            // What an algorithm cannot do it says when it is called.
            let timed = self
                .run_plan(gpu, &plan, operands)
                .and_then(|()| gpu.elapsed_ms(|| (0..TRIALS).try_for_each(|_| self.run_plan(gpu, &plan, operands))));
            if let Ok(ms) = timed
                && best.as_ref().is_none_or(|(least, _)| ms < *least)
            {
                best = Some((ms, algorithm));
            }
        }
        plan.algorithm = best.map(|(_, algorithm)| algorithm);
        plan.ms = match best {
            Some((ms, _)) => ms / TRIALS as f32,
            None => gpu.elapsed_ms(|| self.run_plan(gpu, &plan, operands))?,
        };
        let plan = Arc::new(plan);
        log::debug!("{}: {:.4} ms", plan.name(), plan.ms);
        lock(&self.plans).insert(key, Arc::clone(&plan));
        Ok(plan)
    }

    fn describe(precision: Precision, key: Key) -> Result<Plan> {
        let ProductDims { batch, m, n, k, shared_b, wide, .. } = key.0;
        let elem = match precision {
            Precision::F32 | Precision::Tf32 => sys::cudaDataType::CUDA_R_32F,
            Precision::F16 => sys::cudaDataType::CUDA_R_16F,
            Precision::Bf16 => sys::cudaDataType::CUDA_R_16BF,
        };
        let out = if wide { sys::cudaDataType::CUDA_R_32F } else { elem };
        // d^T [n, m] = b [k, n]^T a^T [k, m], in columns.
        let description = Description {
            operation: Operation::new(precision, &key.0)?,
            a: Matrix::new(elem, k, n, batch, if shared_b { 0 } else { n * k })?,
            b: Matrix::new(elem, k, m, batch, m * k)?,
            d: Matrix::new(out, n, m, batch, m * n)?,
        };
        Ok(Plan { key, description: Mutex::new(description), algorithm: None, ms: f32::NAN })
    }

    /// What the library thinks fastest, best first.
    fn candidates(&self, plan: &Plan) -> Result<Vec<sys::cublasLtMatmulAlgo_t>> {
        let preference = result::create_matmul_pref().map_err(Error::wrap)?;
        let description = lock(&plan.description);
        let mut found = [MaybeUninit::<sys::cublasLtMatmulHeuristicResult_t>::uninit(); CANDIDATES];
        let (mut count, bytes) = (0, WORKSPACE_BYTES);
        // SAFETY: all descriptions live; the library fills in as many results as it tells, at most as many as asked.
        let status = unsafe {
            result::set_matmul_pref_attribute(
                preference,
                sys::cublasLtMatmulPreferenceAttributes_t::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                (&raw const bytes).cast(),
                size_of::<usize>(),
            )
            .and_then(|()| {
                sys::cublasLtMatmulAlgoGetHeuristic(
                    self.handle.0,
                    description.operation.0,
                    description.a.0,
                    description.b.0,
                    description.d.0,
                    description.d.0,
                    preference,
                    CANDIDATES as i32,
                    found.as_mut_ptr().cast(),
                    &raw mut count,
                )
                .result()
            })
        };
        // SAFETY: created above, destroyed once.
        let _ = unsafe { result::destroy_matmul_pref(preference) };
        status.map_err(Error::wrap)?;
        // SAFETY: the first `count` were filled in.
        let found = found.iter().take(count.max(0) as usize).map(|result| unsafe { result.assume_init() });
        Ok(found.filter(|result| result.state.result().is_ok()).map(|result| result.algo).collect())
    }

    /// Does a product as planned.
    pub fn run_plan(&self, gpu: &Gpu, plan: &Plan, operands: Operands) -> Result<()> {
        let Some(algorithm) = &plan.algorithm else { return direct(gpu, plan.key.0, operands) };
        gpu.marked(|| plan.name(), || self.call(gpu.stream(), gpu.libraries.workspace(), plan, algorithm, operands))
    }

    fn call(
        &self,
        stream: &CudaStream,
        workspace: Ptr,
        plan: &Plan,
        algorithm: &sys::cublasLtMatmulAlgo_t,
        operands: Operands,
    ) -> Result<()> {
        use sys::cublasLtMatmulDescAttributes_t as Attribute;
        stream.context().bind_to_thread().map_err(Error::wrap)?;
        let description = lock(&plan.description);
        if plan.key.0.bias {
            description.operation.set(Attribute::CUBLASLT_MATMUL_DESC_BIAS_POINTER, operands.bias.0)?;
        }
        let (alpha, beta) = (1_f32, if operands.residual.is_some() { 1_f32 } else { 0.0 });
        let c = operands.residual.unwrap_or(operands.d);
        let pointer = |at: Ptr| at.0 as *mut c_void;
        // SAFETY: the descriptions say how much memory is read and written from the operands' addresses on, which is
        // what the caller took for a product of this size; the workspace has as many bytes as the candidates were
        // asked to need at most.
        unsafe {
            result::matmul(
                self.handle.0,
                description.operation.0,
                (&raw const alpha).cast(),
                (&raw const beta).cast(),
                pointer(operands.b),
                description.a.0,
                pointer(operands.a),
                description.b.0,
                pointer(c),
                description.d.0,
                pointer(operands.d),
                description.d.0,
                algorithm,
                pointer(workspace),
                WORKSPACE_BYTES,
                stream.cu_stream().cast(),
            )
        }
        .map_err(Error::wrap)
    }
}

/// Runs of which each candidate's time is taken.
pub(super) const TRIALS: usize = 3;

/// By its definition.
fn direct(gpu: &Gpu, dims: ProductDims, operands: Operands) -> Result<()> {
    match operands.residual {
        None => kernels::direct_product(gpu, operands.a, operands.b, operands.bias_f32, operands.d, dims),
        // No layer adds a residual where the convolution's own direct way could not be taken instead.
        Some(_) => bail!("a product with a residual has no way but cuBLASLt's"),
    }
}
