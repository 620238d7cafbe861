//! A device: its stream, its kernels, its memory.
//!
//! Everything runs on one stream, in the order in which it was asked for, so memory that is given back can be taken by
//! the next kernel at once. candle's tensors live on a stream of their own; [`Gpu::tensor`] and [`Gpu::import`] are the
//! two places where numbers cross, and order the streams.
//!
//! One thread at a time has its turn ([`Gpu::turn`]): while a network's work is captured into a graph, whatever else
//! reached the stream would become part of it.

// Copies and the ends of the driver's objects are foreign functions. Addresses come from memory that this module holds.
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::cudarc::driver::{
    CudaContext, CudaEvent, CudaSlice, CudaStream, DevicePtr, DevicePtrMut, PinnedHostSlice, result, sys,
};
use candle_core::op::BackpropOp;
use candle_core::{CudaDevice, CudaStorage, Device, Error, Result, Shape, Storage, Tensor, bail};

use super::convolution::Libraries;
use super::kernels::{Arg, Grid, Launch, Ptr};
use super::loaded::Kernels;
use super::patches::HeldFrame;
use super::source::Program;
use crate::nets::Precision;
use crate::nets::meter::{GraphUse, KernelTime, Work};

/// All devices that were opened. They stay: their memory and their plans serve the next network.
static OPEN: Mutex<Vec<Arc<Gpu>>> = Mutex::new(Vec::new());

/// What does not fail halfway stays whole when a thread panics with the lock.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A GPU at a precision.
pub struct Gpu {
    precision: Precision,
    ordinal: usize,
    /// candle's view of it.
    device: CudaDevice,
    context: Arc<CudaContext>,
    stream: Arc<CudaStream>,
    kernels: Kernels,
    /// Where [`Gpu::take`] takes from.
    pool: Mutex<Arc<Pool>>,
    shared_pool: Arc<Pool>,
    staging: Mutex<Option<Staging>>,
    frame: Mutex<Option<HeldFrame>>,
    turn: Arc<Mutex<()>>,
    capturing: AtomicBool,
    graphs: AtomicBool,
    graph_use: Mutex<GraphUse>,
    profile: Mutex<Option<Vec<Mark>>>,
    work: Mutex<Work>,
    /// cuDNN, cuBLASLt and what was found out about shapes.
    pub(super) libraries: Libraries,
}

/// Page-locked memory that uploads pass through.
struct Staging {
    memory: PinnedHostSlice<u8>,
    /// The last upload is done.
    free: CudaEvent,
}

/// When something began and ended on the device.
struct Mark {
    name: String,
    start: CudaEvent,
    end: CudaEvent,
}

impl Gpu {
    /// The device as networks are loaded on it; opened once for each precision.
    pub fn open(ordinal: usize, precision: Precision) -> Result<Device> {
        let mut open = lock(&OPEN);
        if let Some(gpu) = open.iter().find(|gpu| gpu.ordinal == ordinal && gpu.precision == precision) {
            return Ok(Device::Cuda(gpu.device.clone()));
        }
        let gpu = Arc::new(Self::new(ordinal, precision)?);
        let device = Device::Cuda(gpu.device.clone());
        open.push(gpu);
        Ok(device)
    }

    /// The GPU behind a device that [`Self::open`] made; `None` for every other device, where layers are candle's.
    pub fn of(device: &Device) -> Option<Arc<Self>> {
        let Device::Cuda(device) = device else { return None };
        lock(&OPEN).iter().find(|gpu| gpu.device.id() == device.id()).cloned()
    }

    fn new(ordinal: usize, precision: Precision) -> Result<Self> {
        let Device::Cuda(device) = Device::new_cuda_with_stream(ordinal)? else { bail!("candle gave another device") };
        let context = CudaContext::new(ordinal).map_err(Error::wrap)?;
        // SAFETY: what is made in this context is used on its one stream, except where the streams are ordered by
        // hand. Events that are recorded outside of a capture may not be waited for inside.
        unsafe { context.disable_event_tracking() };
        hold_memory(&context);
        let stream = context.new_stream().map_err(Error::wrap)?;
        let (major, minor) = context.compute_capability().map_err(Error::wrap)?;
        if precision == Precision::Bf16 && major < 8 {
            bail!("bf16 needs a GPU of compute capability 8.0, and this one has {major}.{minor}: take f16");
        }
        let kernels = Kernels::load(&context, Program::networks(precision))?;
        let turn = Arc::new(Mutex::new(()));
        let pool = Pool::new(Arc::clone(&stream), Arc::clone(&turn));
        let libraries = Libraries::new(&stream)?;
        Ok(Self {
            precision,
            ordinal,
            device,
            context,
            stream,
            kernels,
            pool: Mutex::new(Arc::clone(&pool)),
            shared_pool: pool,
            staging: Mutex::new(None),
            frame: Mutex::new(None),
            turn,
            capturing: AtomicBool::new(false),
            graphs: AtomicBool::new(true),
            graph_use: Mutex::default(),
            profile: Mutex::new(None),
            work: Mutex::default(),
            libraries,
        })
    }

    /// What it is called and how it computes.
    pub fn name(&self) -> String {
        let name = self.context.name().unwrap_or_else(|_| "a GPU without a name".into());
        format!("{name}, {}", self.precision.name())
    }

    /// candle's view of it.
    pub fn device(&self) -> Device {
        Device::Cuda(self.device.clone())
    }

    pub(super) fn stream(&self) -> &Arc<CudaStream> {
        &self.stream
    }

    pub(super) fn context(&self) -> &Arc<CudaContext> {
        &self.context
    }

    /// The right to give the stream work. Networks hold it for a whole frame, uploads of weights for each tensor.
    pub fn turn(&self) -> MutexGuard<'_, ()> {
        lock(&self.turn)
    }

    /// Waits until everything is done, candle's work too.
    pub fn synchronize(&self) -> Result<()> {
        self.stream.synchronize().map_err(Error::wrap)?;
        self.device.cuda_stream().synchronize().map_err(Error::wrap)
    }

    /// Whether networks may be captured into graphs; they are unless a profile or a comparison wants it otherwise.
    pub fn set_graphs(&self, graphs: bool) {
        self.graphs.store(graphs, Ordering::Relaxed);
    }

    pub(super) fn note_graph(&self, note: impl FnOnce(&mut GraphUse)) {
        note(&mut lock(&self.graph_use));
    }

    /// How networks ran so far.
    pub fn graph_use(&self) -> GraphUse {
        *lock(&self.graph_use)
    }

    /// Bytes that the driver holds for this process, in use or not; `None` where it does not tell.
    pub fn held_bytes(&self) -> Option<u64> {
        let mut bytes = 0_u64;
        let pool = memory_pool(&self.context)?;
        let attribute = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT;
        // SAFETY: the pool is the device's own; the attribute is a number of 64 bits.
        unsafe { result::mem_pool::get_attribute(pool, attribute, (&raw mut bytes).cast()) }.ok()?;
        Some(bytes)
    }

    pub(super) fn graphs(&self) -> bool {
        self.graphs.load(Ordering::Relaxed)
    }

    pub(super) fn set_capturing(&self, capturing: bool) {
        self.capturing.store(capturing, Ordering::Relaxed);
    }

    pub(super) fn is_capturing(&self) -> bool {
        self.capturing.load(Ordering::Relaxed)
    }

    fn not_while_capturing(&self, what: &str) -> Result<()> {
        if self.is_capturing() {
            bail!("{what} cannot be part of a graph");
        }
        Ok(())
    }

    /// Memory of at least so many bytes for what comes next on the stream; what it holds is arbitrary.
    pub fn take(&self, bytes: usize) -> Result<Buffer> {
        self.take_from(Arc::clone(&lock(&self.pool)), bytes)
    }

    /// The same from the pool of all, for what outlives a network's work.
    pub(super) fn take_shared(&self, bytes: usize) -> Result<Buffer> {
        self.take_from(Arc::clone(&self.shared_pool), bytes)
    }

    pub(super) fn held_frame(&self) -> MutexGuard<'_, Option<HeldFrame>> {
        lock(&self.frame)
    }

    fn take_from(&self, pool: Arc<Pool>, bytes: usize) -> Result<Buffer> {
        let piece = if let Some(piece) = pool.take(bytes) {
            piece
        } else {
            self.not_while_capturing("memory that was not there before")?;
            pool.allocations.fetch_add(1, Ordering::Relaxed);
            self.allocate(bytes)?
        };
        Ok(Buffer { piece: Some(piece), pool })
    }

    fn allocate(&self, bytes: usize) -> Result<Piece> {
        // SAFETY: nobody reads the memory before a kernel or a copy has written it.
        let slice = unsafe { self.stream.alloc::<u8>(bytes.max(256).next_multiple_of(256)) };
        let slice = slice.map_err(|error| Error::Msg(format!("no GPU memory for {} MiB: {error:?}", bytes >> 20)))?;
        Ok(Piece::new(slice, &self.stream))
    }

    /// Memory for what stays, filled with these bytes.
    pub fn keep(self: &Arc<Self>, bytes: &[u8]) -> Result<Kept> {
        let _turn = self.turn();
        let piece = self.allocate(bytes.len())?;
        self.write(piece.at, bytes)?;
        Ok(Kept { piece: Some(piece), turn: Arc::clone(&self.turn) })
    }

    /// The same with f32.
    pub fn keep_floats(self: &Arc<Self>, values: &[f32]) -> Result<Kept> {
        self.keep(bytemuck::cast_slice(values))
    }

    /// The same with numbers of the precision's type.
    pub fn keep_elements(self: &Arc<Self>, values: &[f32]) -> Result<Kept> {
        let halves: Vec<u16> = match self.precision {
            Precision::F32 | Precision::Tf32 => return self.keep_floats(values),
            Precision::F16 => values.iter().map(|&x| half::f16::from_f32(x).to_bits()).collect(),
            Precision::Bf16 => values.iter().map(|&x| half::bf16::from_f32(x).to_bits()).collect(),
        };
        self.keep(bytemuck::cast_slice(&halves))
    }

    /// Copies bytes to the device, through page-locked memory: the caller's may go at once.
    pub fn write(&self, to: Ptr, bytes: &[u8]) -> Result<()> {
        self.not_while_capturing("an upload")?;
        let mut staging = lock(&self.staging);
        if staging.as_ref().is_none_or(|staging| staging.memory.len() < bytes.len()) {
            let size = bytes.len().max(1 << 20).next_power_of_two();
            // SAFETY: only bytes that were written below are ever read.
            let memory = unsafe { self.context.alloc_pinned_with_flags::<u8>(size, 0) }.map_err(Error::wrap)?;
            let free = self.context.new_event(None).map_err(Error::wrap)?;
            if let Some(old) = staging.replace(Staging { memory, free }) {
                old.free.synchronize().map_err(Error::wrap)?;
            }
        }
        let Some(Staging { memory, free }) = &mut *staging else { bail!("no memory to upload through") };
        free.synchronize().map_err(Error::wrap)?;
        let memory = &mut memory.as_mut_slice().map_err(Error::wrap)?[..bytes.len()];
        memory.copy_from_slice(bytes);
        // SAFETY: the address is that of memory of at least this size, as the caller took it; the page-locked memory
        // stays until `free` says that the copy is done.
        unsafe { result::memcpy_htod_async(to.0, memory, self.stream.cu_stream()) }.map_err(Error::wrap)?;
        free.record(&self.stream).map_err(Error::wrap)
    }

    /// Fetches numbers, once all that was asked for before is done.
    pub fn read<T: bytemuck::Pod>(&self, from: Ptr, count: usize) -> Result<Vec<T>> {
        self.not_while_capturing("a download")?;
        let mut values = vec![T::zeroed(); count];
        self.context.bind_to_thread().map_err(Error::wrap)?;
        // SAFETY: the address is that of memory of at least this size; the stream is waited for before `values` is
        // looked at.
        unsafe { result::memcpy_dtoh_async(&mut values, from.0, self.stream.cu_stream()) }.map_err(Error::wrap)?;
        self.stream.synchronize().map_err(Error::wrap)?;
        Ok(values)
    }

    /// A copy of f32 on the device as a tensor of candle's.
    pub fn tensor(&self, from: Ptr, shape: impl Into<Shape>) -> Result<Tensor> {
        self.not_while_capturing("a tensor of candle's")?;
        let shape = shape.into();
        let theirs = self.device.cuda_stream();
        // SAFETY: the copy below writes all of it before anybody reads.
        let mut slice = unsafe { self.device.alloc::<f32>(shape.elem_count()) }?;
        theirs.join(&self.stream).map_err(Error::wrap)?;
        {
            let (to, _written) = slice.device_ptr_mut(&theirs);
            let bytes = shape.elem_count() * size_of::<f32>();
            // SAFETY: both are memory of at least this size; `theirs` has waited for what makes it.
            unsafe { result::memcpy_dtod_async(to, from.0, bytes, theirs.cu_stream()) }.map_err(Error::wrap)?;
        }
        // What is overwritten next has been copied by then.
        self.stream.join(&theirs).map_err(Error::wrap)?;
        let storage = Storage::Cuda(CudaStorage::wrap_cuda_slice(slice, self.device.clone()));
        Ok(Tensor::from_storage(storage, shape, BackpropOp::none(), false))
    }

    /// Lets `work` read a tensor's f32.
    pub fn import<T>(&self, x: &Tensor, work: impl FnOnce(Ptr) -> Result<T>) -> Result<T> {
        self.not_while_capturing("a tensor of candle's")?;
        if x.track_op() {
            bail!("a gradient is wanted through weights that were packed for speed: load them as variables");
        }
        let x = x.contiguous()?;
        let (storage, layout) = x.storage_and_layout();
        let Storage::Cuda(storage) = &*storage else { bail!("the network is on a GPU, its input is not") };
        if storage.device().id() != self.device.id() {
            bail!("the network is on another device than its input");
        }
        let theirs = self.device.cuda_stream();
        let slice = storage.as_cuda_slice::<f32>()?;
        let (at, _read) = slice.device_ptr(&theirs);
        self.stream.join(&theirs).map_err(Error::wrap)?;
        let done = work(Ptr(at).offset(layout.start_offset() * size_of::<f32>()))?;
        // The tensor's memory goes to somebody else only after it was read.
        theirs.join(&self.stream).map_err(Error::wrap)?;
        Ok(done)
    }

    /// All work so far.
    pub fn work(&self) -> Work {
        *lock(&self.work)
    }

    /// Notes work that was asked for.
    pub(super) fn count(&self, multiply_adds: usize, bytes: usize) {
        let mut work = lock(&self.work);
        work.multiply_adds += multiply_adds as u64;
        work.bytes += bytes as u64;
    }

    /// Which way every shape goes that was met, and whether it is the slow one.
    pub fn ways(&self) -> Vec<(String, bool)> {
        self.libraries.ways()
    }

    /// Copies on the device.
    pub(super) fn copy(&self, from: Ptr, to: Ptr, bytes: usize) -> Result<()> {
        self.context.bind_to_thread().map_err(Error::wrap)?;
        // SAFETY: both are memory of at least this size, as the caller took it.
        unsafe { result::memcpy_dtod_async(to.0, from.0, bytes, self.stream.cu_stream()) }.map_err(Error::wrap)
    }

    /// Time of work on the device.
    pub(super) fn elapsed_ms(&self, work: impl FnOnce() -> Result<()>) -> Result<f32> {
        let [start, end] = [self.timer()?, self.timer()?];
        start.record(&self.stream).map_err(Error::wrap)?;
        work()?;
        end.record(&self.stream).map_err(Error::wrap)?;
        start.elapsed_ms(&end).map_err(Error::wrap)
    }

    fn timer(&self) -> Result<CudaEvent> {
        self.context.new_event(Some(sys::CUevent_flags::CU_EVENT_DEFAULT)).map_err(Error::wrap)
    }

    /// From now on every piece of work is timed, until [`Self::end_profile`].
    pub fn begin_profile(&self) {
        *lock(&self.profile) = Some(Vec::new());
    }

    /// What took how long since then, the dearest first. Kernels that other streams would overlap are timed one by one.
    pub fn end_profile(&self) -> Result<Vec<KernelTime>> {
        let marks = lock(&self.profile).take().unwrap_or_default();
        let mut times: Vec<KernelTime> = Vec::new();
        for Mark { name, start, end } in marks {
            let ms = f64::from(start.elapsed_ms(&end).map_err(Error::wrap)?);
            match times.iter_mut().find(|time| time.name == name) {
                Some(time) => (time.count, time.ms) = (time.count + 1, time.ms + ms),
                None => times.push(KernelTime { name, count: 1, ms }),
            }
        }
        times.sort_by(|a, b| b.ms.total_cmp(&a.ms));
        Ok(times)
    }

    /// Does work that a profile knows by a name.
    pub(super) fn marked(&self, name: impl FnOnce() -> String, work: impl FnOnce() -> Result<()>) -> Result<()> {
        if lock(&self.profile).is_none() || self.is_capturing() {
            return work();
        }
        let [start, end] = [self.timer()?, self.timer()?];
        start.record(&self.stream).map_err(Error::wrap)?;
        work()?;
        end.record(&self.stream).map_err(Error::wrap)?;
        if let Some(marks) = &mut *lock(&self.profile) {
            marks.push(Mark { name: name(), start, end });
        }
        Ok(())
    }

    /// A pool of its own, for a graph.
    pub(super) fn new_pool(&self) -> Arc<Pool> {
        Pool::new(Arc::clone(&self.stream), Arc::clone(&self.turn))
    }

    /// Gives back the memory of earlier networks that nobody has taken again.
    pub(super) fn release_unused(&self) -> Result<()> {
        let _turn = self.turn();
        self.synchronize()?;
        lock(&self.shared_pool.free).clear();
        Ok(())
    }

    /// Memory is taken from `pool` until the guard goes.
    pub(super) fn taking_from(&self, pool: &Arc<Pool>) -> Taking<'_> {
        let before = std::mem::replace(&mut *lock(&self.pool), Arc::clone(pool));
        Taking { gpu: self, before: Some(before) }
    }
}

/// The pool that memory of the driver's comes from, tensors of candle's too; `None` where it has none.
fn memory_pool(context: &CudaContext) -> Option<sys::CUmemoryPool> {
    if !context.has_async_alloc() {
        return None;
    }
    // SAFETY: the device is that of a context.
    unsafe { result::device::get_default_mem_pool(context.cu_device()) }.ok()
}

/// What is given back stays for the next who asks. By itself the driver takes all that nobody uses back whenever
/// somebody waits for it, and so the tensors in which each frame's results are handed out would be mapped anew for
/// every frame.
fn hold_memory(context: &CudaContext) {
    let Some(pool) = memory_pool(context) else { return };
    let mut most = u64::MAX;
    let attribute = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
    // SAFETY: the pool is the device's own; the attribute is a number of 64 bits.
    if let Err(error) = unsafe { result::mem_pool::set_attribute(pool, attribute, (&raw mut most).cast()) } {
        log::debug!("the driver does not hold memory: {error:?}");
    }
}

impl Launch for Gpu {
    fn precision(&self) -> Precision {
        self.precision
    }

    fn launch(&self, kernel: &'static str, grid: Grid, args: &[Arg]) -> Result<()> {
        self.marked(|| kernel.to_owned(), || self.kernels.launch(&self.stream, kernel, grid, args))
    }
}

/// Ends [`Gpu::taking_from`].
pub(super) struct Taking<'a> {
    gpu: &'a Gpu,
    before: Option<Arc<Pool>>,
}

impl Drop for Taking<'_> {
    fn drop(&mut self) {
        if let Some(before) = self.before.take() {
            *lock(&self.gpu.pool) = before;
        }
    }
}

/// A piece of memory, and where it is.
struct Piece {
    slice: CudaSlice<u8>,
    at: Ptr,
}

impl Piece {
    fn new(slice: CudaSlice<u8>, stream: &CudaStream) -> Self {
        let at = Ptr(slice.device_ptr(stream).0);
        Self { slice, at }
    }
}

/// Pieces that nobody uses at the moment. A graph has one of its own: what it writes at every replay is nobody else's.
pub(super) struct Pool {
    free: Mutex<Vec<Piece>>,
    /// How often there was no piece.
    pub(super) allocations: AtomicUsize,
    stream: Arc<CudaStream>,
    turn: Arc<Mutex<()>>,
}

impl Pool {
    fn new(stream: Arc<CudaStream>, turn: Arc<Mutex<()>>) -> Arc<Self> {
        Arc::new(Self { free: Mutex::default(), allocations: AtomicUsize::new(0), stream, turn })
    }

    /// The smallest that is large enough.
    fn take(&self, bytes: usize) -> Option<Piece> {
        let mut free = lock(&self.free);
        let fits = (0..free.len()).filter(|&i| free[i].slice.len() >= bytes);
        let best = fits.min_by_key(|&i| (free[i].slice.len(), free[i].at.0))?;
        Some(free.swap_remove(best))
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // Giving memory back is work on the stream too. Whoever has the turn must not be the last to hold a pool.
        let _turn = lock(&self.turn);
        let _ = self.stream.synchronize();
        lock(&self.free).clear();
    }
}

/// Memory from a pool, to which it returns.
pub struct Buffer {
    piece: Option<Piece>,
    pool: Arc<Pool>,
}

impl Buffer {
    /// Where it is.
    pub fn at(&self) -> Ptr {
        self.piece.as_ref().map_or(Ptr::NULL, |piece| piece.at)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Some(piece) = self.piece.take() {
            lock(&self.pool.free).push(piece);
        }
    }
}

/// Memory that stays: weights.
pub struct Kept {
    piece: Option<Piece>,
    turn: Arc<Mutex<()>>,
}

impl Kept {
    /// Where it is.
    pub fn at(&self) -> Ptr {
        self.piece.as_ref().map_or(Ptr::NULL, |piece| piece.at)
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let _turn = lock(&self.turn);
        drop(self.piece.take());
    }
}

/// Counts a graph's replays, so that what an earlier one left is not taken for the newest.
#[derive(Clone, Default)]
pub struct Replays(Arc<AtomicU64>);

impl Replays {
    /// One more.
    pub(super) fn next(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// The newest one.
    pub fn stamp(&self) -> Stamp {
        Stamp { replays: self.clone(), at: self.0.load(Ordering::Relaxed) }
    }
}

/// The replay that something belongs to.
#[derive(Clone)]
pub struct Stamp {
    replays: Replays,
    at: u64,
}

impl Stamp {
    /// An error once there was a later one.
    pub(super) fn check(&self) -> Result<()> {
        if self.replays.0.load(Ordering::Relaxed) == self.at {
            return Ok(());
        }
        bail!("these features are gone: the network has run again since, into the same memory")
    }
}
