//! The processor in the place of a GPU, for tests: kernels by [`Host`], convolutions by their definition.

use std::ops::Range;
use std::sync::Arc;

use candle_core::{CpuStorage, Device, Layout, Result, Storage, bail};

use super::kernels::PROGRAM;
use super::machine::{Held, Lent, Machine, Memory, Numbers, Way};
use crate::nets::Precision;
use crate::nets::cuda::host::Host;
use crate::nets::cuda::kernels::{Arg, Grid, Launch, Ptr};
use crate::nets::kernels::ConvDims;

struct HostMachine(Arc<Host>);

/// Gives memory back.
pub struct HostMemory(Arc<Host>, Ptr);

impl Drop for HostMemory {
    fn drop(&mut self) {
        self.0.free(self.1);
    }
}

thread_local! {
    // One for each test: their launches wait for each other.
    static MACHINE: Arc<dyn Machine> =
        Arc::new(HostMachine(Arc::new(Host::running(PROGRAM).expect("a compiler compiles the kernels"))));
}

/// This thread's.
pub fn machine() -> Arc<dyn Machine> {
    MACHINE.with(Arc::clone)
}

impl HostMachine {
    fn memory(&self, at: Ptr, len: usize) -> Memory {
        Memory { at, len, held: Held::Host(HostMemory(Arc::clone(&self.0), at)) }
    }
}

impl Launch for HostMachine {
    fn precision(&self) -> Precision {
        Precision::F32
    }

    fn launch(&self, kernel: &'static str, grid: Grid, args: &[Arg]) -> Result<()> {
        self.0.launch(kernel, grid, args)
    }
}

impl Machine for HostMachine {
    fn name(&self) -> String {
        "the processor in the place of a GPU".to_owned()
    }

    fn device(&self) -> Device {
        Device::Cpu
    }

    fn take(&self, len: usize) -> Result<Memory> {
        Ok(self.memory(self.0.empty(len * size_of::<f32>()), len))
    }

    fn upload(&self, values: &[f32]) -> Result<Memory> {
        Ok(self.memory(self.0.upload(values), values.len()))
    }

    fn download(&self, memory: &Memory) -> Result<Vec<f32>> {
        Ok(self.0.read(memory.at))
    }

    fn copy(&self, memory: &Memory, part: Range<usize>) -> Result<Memory> {
        self.upload(&self.0.read::<f32>(memory.at)[part])
    }

    fn storage(&self, memory: Memory) -> Result<Storage> {
        Ok(Storage::Cpu(CpuStorage::F32(self.download(&memory)?)))
    }

    fn lend(&self, numbers: Numbers, layout: &Layout) -> Result<Lent> {
        let (Numbers::Cpu(CpuStorage::F32(values)), Some((start, end))) = (numbers, layout.contiguous_offsets()) else {
            bail!("expected contiguous f32 on the processor, in {layout:?}");
        };
        let copy = self.upload(&values[start..end])?;
        Ok(Lent { at: copy.at, _copy: Some(copy) })
    }

    fn convolve(&self, way: Way, d: &ConvDims, [a, b]: [Ptr; 2], into: Ptr) -> Result<()> {
        let [rows, columns] = d.output_sides();
        let input = d.batch * d.input * d.height * d.width;
        let output = d.batch * d.output * rows * columns;
        let [len_a, len_b, len] = match way {
            Way::Forward => [input, d.weights(), output],
            Way::Input => [output, d.weights(), input],
            Way::Weights => [input, output, d.weights()],
        };
        let (a, b): (Vec<f32>, Vec<f32>) = (self.0.read_part(a, len_a), self.0.read_part(b, len_b));
        let mut sums = vec![0.0; len];
        for (image, o, i) in triples([d.batch, d.output, d.input]) {
            for (y, ky, _) in triples([rows, d.kernel, 1]) {
                let Some(in_y) = (y * d.stride + ky).checked_sub(d.padding).filter(|&at| at < d.height) else {
                    continue;
                };
                for (x, kx, _) in triples([columns, d.kernel, 1]) {
                    let in_x = (x * d.stride + kx).checked_sub(d.padding).filter(|&at| at < d.width);
                    let Some(in_x) = in_x else { continue };
                    let at_input = ((image * d.input + i) * d.height + in_y) * d.width + in_x;
                    let at_output = ((image * d.output + o) * rows + y) * columns + x;
                    let at_weight = ((o * d.input + i) * d.kernel + ky) * d.kernel + kx;
                    match way {
                        Way::Forward => sums[at_output] += a[at_input] * b[at_weight],
                        Way::Input => sums[at_input] += a[at_output] * b[at_weight],
                        Way::Weights => sums[at_weight] += a[at_input] * b[at_output],
                    }
                }
            }
        }
        self.0.write_part(into, &sums);
        Ok(())
    }
}

fn triples([a, b, c]: [usize; 3]) -> impl Iterator<Item = (usize, usize, usize)> {
    (0..a).flat_map(move |i| (0..b).flat_map(move |j| (0..c).map(move |k| (i, j, k))))
}
