//! An NVIDIA GPU: kernels on the stream of candle's own device, so that candle's operations and ours follow one another
//! in the order in which they were asked for, and memory of one is that of the other.

// Addresses come from memory that is held here or was lent by tensors that live; what a kernel does with them is tested
// on the processor.
#![allow(unsafe_code)]

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::cuda_backend::cudarc::driver::{CudaSlice, CudaStream, DevicePtr};
use candle_core::{CudaDevice, CudaStorage, Device, Error, Layout, Result, Storage, bail};

use super::cudnn::Convolutions;
use super::kernels::PROGRAM;
use super::machine::{Held, Lent, Machine, Memory, Numbers, Way};
use crate::nets::Precision;
use crate::nets::cuda::kernels::{Arg, Grid, Launch, Ptr};
use crate::nets::cuda::loaded::Kernels;
use crate::nets::kernels::ConvDims;

/// What libraries like addresses to be multiples of, bytes.
const ALIGNMENT: u64 = 16;

/// All that were opened. They stay.
static OPEN: Mutex<Vec<Arc<Cuda>>> = Mutex::new(Vec::new());

/// See the module.
pub struct Cuda {
    precision: Precision,
    device: CudaDevice,
    stream: Arc<CudaStream>,
    kernels: Kernels,
    convolutions: Convolutions,
}

impl Cuda {
    /// A GPU that trains in f32, with factors rounded or not.
    pub fn open(ordinal: usize, precision: Precision) -> Result<Arc<dyn Machine>> {
        if !matches!(precision, Precision::F32 | Precision::Tf32) {
            bail!("training computes in f32 or tf32, not in {}", precision.name());
        }
        let Device::Cuda(device) = Device::new_cuda_with_stream(ordinal)? else { bail!("candle gave another device") };
        // SAFETY: everything that is made on this device is used on its one stream alone.
        unsafe { device.disable_event_tracking() };
        let stream = device.cuda_stream();
        let kernels = Kernels::load(stream.context(), PROGRAM)?;
        let convolutions = Convolutions::new(&stream, precision)?;
        let cuda = Arc::new(Self { precision, device, stream, kernels, convolutions });
        OPEN.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&cuda));
        Ok(cuda)
    }

    /// The one behind a device of candle's.
    pub(super) fn of(device: &CudaDevice) -> Result<Arc<dyn Machine>> {
        let open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        match open.iter().find(|cuda| cuda.device.id() == device.id()) {
            Some(cuda) => Ok(Arc::clone(cuda) as Arc<dyn Machine>),
            None => bail!("this CUDA device was not opened for training"),
        }
    }

    /// A copy of a part.
    fn part(&self, slice: &CudaSlice<f32>, part: Range<usize>) -> Result<Memory> {
        Ok(self.memory(self.stream.clone_dtod(&slice.slice(part)).map_err(Error::wrap)?))
    }

    fn memory(&self, slice: CudaSlice<f32>) -> Memory {
        let at = Ptr(slice.device_ptr(&self.stream).0);
        Memory { at, len: slice.len(), held: Held::Cuda(slice) }
    }
}

impl Launch for Cuda {
    fn precision(&self) -> Precision {
        self.precision
    }

    fn launch(&self, kernel: &'static str, grid: Grid, args: &[Arg]) -> Result<()> {
        self.kernels.launch(&self.stream, kernel, grid, args)
    }
}

impl Machine for Cuda {
    fn name(&self) -> String {
        let name = self.stream.context().name().unwrap_or_else(|_| "a GPU without a name".into());
        format!("{name}, {}", self.precision.name())
    }

    fn device(&self) -> Device {
        Device::Cuda(self.device.clone())
    }

    fn take(&self, len: usize) -> Result<Memory> {
        if len > i32::MAX as usize {
            bail!("a map of {len} numbers is too large for the GPU's kernels: a smaller --batch helps");
        }
        // SAFETY: nobody reads the memory before a kernel has written it.
        let slice = unsafe { self.device.alloc::<f32>(len.max(1)) };
        let slice = slice.map_err(|error| {
            Error::Msg(format!("no GPU memory for {} MiB, a smaller --batch helps: {error}", (len * 4) >> 20))
        })?;
        Ok(Memory { len, ..self.memory(slice) })
    }

    fn upload(&self, values: &[f32]) -> Result<Memory> {
        Ok(self.memory(self.device.clone_htod(values)?))
    }

    fn download(&self, memory: &Memory) -> Result<Vec<f32>> {
        self.device.clone_dtoh(memory.held.cuda()?)
    }

    fn copy(&self, memory: &Memory, part: Range<usize>) -> Result<Memory> {
        self.part(memory.held.cuda()?, part)
    }

    fn storage(&self, memory: Memory) -> Result<Storage> {
        Ok(Storage::Cuda(CudaStorage::wrap_cuda_slice(memory.held.into_cuda()?, self.device.clone())))
    }

    fn lend(&self, numbers: Numbers, layout: &Layout) -> Result<Lent> {
        let (Numbers::Cuda(storage), Some((start, end))) = (numbers, layout.contiguous_offsets()) else {
            bail!("expected contiguous numbers on the GPU, in {layout:?}");
        };
        let slice = storage.as_cuda_slice::<f32>()?;
        let at = slice.device_ptr(&self.stream).0 + (start * size_of::<f32>()) as u64;
        if at.is_multiple_of(ALIGNMENT) {
            return Ok(Lent { at: Ptr(at), _copy: None });
        }
        // Part of a tensor that begins anywhere.
        let copy = self.part(slice, start..end)?;
        Ok(Lent { at: copy.at, _copy: Some(copy) })
    }

    fn convolve(&self, way: Way, dims: &ConvDims, from: [Ptr; 2], into: Ptr) -> Result<()> {
        self.convolutions.run(way, dims, from, into)
    }
}
