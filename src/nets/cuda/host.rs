//! The kernels on the processor, for tests: the same text, compiled by the system's C++ compiler behind `host.h`, and
//! the same launches. They run in a process of their own, so a kernel that goes astray ends that one; their memory is a
//! file that both have.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, bail, ensure};
use candle_core::Result as CandleResult;
use half::{bf16, f16};

use super::kernels::{Arg, Grid, Launch, Ptr};
use super::source::{Kind, Program};
use crate::nets::Precision;

/// Bytes of the file; it takes as many as are used.
const MEMORY_BYTES: u64 = 1 << 36;
/// A multiple of the pages of all processors.
const PAGE_BYTES: u64 = 1 << 14;

/// A processor that runs kernels, and its memory.
pub struct Host {
    program: Program,
    file: File,
    memory: Mutex<Memory>,
    process: Mutex<Process>,
    /// Where the file is.
    _folder: tempfile::TempDir,
}

/// Who has which part of the file.
#[derive(Default)]
struct Memory {
    /// Bytes of each buffer, by its address.
    buffers: BTreeMap<u64, u64>,
    /// Parts of so many pages that nobody has any more.
    free: BTreeMap<u64, Vec<u64>>,
    /// What comes after has never been used.
    end: u64,
}

/// The pages that a buffer has: their first byte and how many there are. The buffer ends where they end.
fn pages(at: u64, bytes: u64) -> [u64; 2] {
    let start = at / PAGE_BYTES * PAGE_BYTES;
    [start, (at + bytes).div_ceil(PAGE_BYTES).max(start / PAGE_BYTES + 1) - start / PAGE_BYTES]
}

impl Memory {
    fn take(&mut self, bytes: u64) -> u64 {
        let count = bytes.div_ceil(PAGE_BYTES).max(1);
        let start = self.free.get_mut(&count).and_then(Vec::pop).unwrap_or_else(|| {
            // One between that nobody has: what is past the end of a buffer cannot be touched.
            self.end += (count + 1) * PAGE_BYTES;
            assert!(self.end < MEMORY_BYTES, "a test has used all memory");
            self.end - count * PAGE_BYTES
        });
        let at = start + count * PAGE_BYTES - bytes.max(1).next_multiple_of(16);
        self.buffers.insert(at, bytes);
        at
    }

    fn free(&mut self, at: u64) {
        if let Some(bytes) = self.buffers.remove(&at) {
            let [start, count] = pages(at, bytes);
            self.free.entry(count).or_default().push(start);
        }
    }

    /// The buffer that an address lies in, and its size.
    fn find(&self, at: u64) -> Result<(u64, u64)> {
        let (&start, &bytes) = self.buffers.range(..=at).next_back().context("an address of no buffer")?;
        ensure!(at <= start + bytes, "an address past the end of its buffer");
        Ok((start, bytes))
    }
}

/// The program that runs.
struct Process {
    child: Child,
    requests: ChildStdin,
    answers: ChildStdout,
}

impl Process {
    /// Runs a kernel.
    fn ask(&mut self, request: &[u8]) -> Result<()> {
        let asked = self.requests.write_all(request).and_then(|()| self.requests.flush());
        let mut answer = [0];
        if asked.is_ok() && self.answers.read_exact(&mut answer).is_ok() {
            return Ok(());
        }
        let mut said = String::new();
        let _ = self.child.stderr.take().map(|mut stderr| stderr.read_to_string(&mut said));
        bail!("{} {said}", self.child.wait()?);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The compiled programs of this run of the tests.
static PROGRAMS: Mutex<Vec<(Program, PathBuf, tempfile::TempDir)>> = Mutex::new(Vec::new());

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn compiled(program: Program) -> Result<PathBuf> {
    let mut programs = lock(&PROGRAMS);
    if let Some((_, path, _)) = programs.iter().find(|(p, ..)| *p == program) {
        return Ok(path.clone());
    }
    let folder = tempfile::tempdir()?;
    let table: Vec<String> = program.signatures().iter().map(|s| format!("    HOST_KERNEL({})", s.name)).collect();
    let table = table.join("\n");
    let text = format!(
        "{}\n{}\nstatic bool table(const std::string& wanted, Request& request) {{\n    bool ran = false;\n{table}\n    \
         return ran;\n}}\nint main(int, char** arguments) {{ return host_main(table, arguments[1]); }}\n",
        include_str!("host.h"),
        program.text()
    );
    let (source, binary) = (folder.path().join("kernels.cpp"), folder.path().join("kernels"));
    std::fs::write(&source, text)?;
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".into());
    // As NVRTC is told: no contraction of products and sums.
    let output = Command::new(&compiler)
        // Without checks of jumps between stacks, which are meant.
        .args([
            "-std=c++17",
            "-O1",
            "-U_FORTIFY_SOURCE",
            "-ffp-contract=off",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-Wno-unused-function",
            "-o",
        ])
        .args([&binary, &source])
        .output()
        .with_context(|| format!("running {compiler}, which this test compiles the kernels with"))?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    programs.push((program, binary.clone(), folder));
    Ok(binary)
}

impl Host {
    /// Compiles the networks' kernels for a type, once for all tests.
    pub fn new(precision: Precision) -> Result<Self> {
        Self::running(Program::networks(precision))
    }

    /// Compiles a program, once for all tests, and starts it.
    pub fn running(program: Program) -> Result<Self> {
        let binary = compiled(program)?;
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("memory");
        let file = File::options().read(true).write(true).create_new(true).open(&path)?;
        file.set_len(MEMORY_BYTES)?;
        let mut child = Command::new(binary)
            .arg(&path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let requests = child.stdin.take().context("its input")?;
        let answers = child.stdout.take().context("its output")?;
        let process = Mutex::new(Process { child, requests, answers });
        Ok(Self { program, file, memory: Mutex::default(), process, _folder: folder })
    }

    fn add(&self, bytes: &[u8]) -> Ptr {
        let at = lock(&self.memory).take(bytes.len() as u64);
        self.file.write_all_at(bytes, at).expect("there is room for a test's numbers");
        Ptr(at)
    }

    /// Takes memory back.
    pub fn free(&self, at: Ptr) {
        lock(&self.memory).free(at.0);
    }

    /// Memory with these numbers.
    pub fn upload<T: bytemuck::NoUninit>(&self, values: &[T]) -> Ptr {
        self.add(bytemuck::cast_slice(values))
    }

    /// Memory with these numbers in the type of activations.
    pub fn upload_elements(&self, values: &[f32]) -> Ptr {
        match self.program.precision {
            Precision::F32 | Precision::Tf32 => self.upload(values),
            Precision::F16 => self.upload(&values.iter().map(|&x| f16::from_f32(x).to_bits()).collect::<Vec<_>>()),
            Precision::Bf16 => self.upload(&values.iter().map(|&x| bf16::from_f32(x).to_bits()).collect::<Vec<_>>()),
        }
    }

    /// Memory for so many bytes that hold nothing sensible yet.
    pub fn empty(&self, bytes: usize) -> Ptr {
        self.add(&vec![0xff; bytes])
    }

    /// Memory for so many activations.
    pub fn empty_elements(&self, count: usize) -> Ptr {
        self.empty(count * self.program.precision.bytes())
    }

    /// What a buffer holds.
    pub fn read<T: bytemuck::Pod>(&self, at: Ptr) -> Vec<T> {
        let bytes = lock(&self.memory).buffers[&at.0];
        self.read_part(at, bytes as usize / size_of::<T>())
    }

    /// So many numbers from an address on.
    pub fn read_part<T: bytemuck::Pod>(&self, at: Ptr, count: usize) -> Vec<T> {
        let mut values = vec![T::zeroed(); count];
        let bytes = bytemuck::cast_slice_mut(&mut values);
        self.file.read_exact_at(bytes, at.0).expect("the file is as large as the memory");
        values
    }

    /// Writes numbers from an address on.
    pub fn write_part<T: bytemuck::NoUninit>(&self, at: Ptr, values: &[T]) {
        self.file.write_all_at(bytemuck::cast_slice(values), at.0).expect("there is room for a test's numbers");
    }

    /// The same of activations.
    pub fn read_elements(&self, at: Ptr) -> Vec<f32> {
        match self.program.precision {
            Precision::F32 | Precision::Tf32 => self.read(at),
            Precision::F16 => self.read::<u16>(at).into_iter().map(|bits| f16::from_bits(bits).to_f32()).collect(),
            Precision::Bf16 => self.read::<u16>(at).into_iter().map(|bits| bf16::from_bits(bits).to_f32()).collect(),
        }
    }

    fn run(&self, kernel: &str, grid: Grid, args: &[Arg]) -> Result<()> {
        check(self.program, kernel, grid, args)?;
        let mut request = Vec::new();
        let mut add = |bytes: &[u8]| request.extend_from_slice(bytes);
        add(&(kernel.len() as u32).to_ne_bytes());
        add(kernel.as_bytes());
        let [x, y, z] = grid.blocks;
        for n in [x, y, z, grid.threads, grid.shared_bytes] {
            add(&n.to_ne_bytes());
        }
        let touched: Vec<[u64; 2]> = {
            let memory = lock(&self.memory);
            let addresses = args.iter().filter_map(|arg| match arg {
                Arg::Pointer(at) if *at != Ptr::NULL => Some(at.0),
                _ => None,
            });
            addresses.map(|at| memory.find(at).map(|(start, bytes)| pages(start, bytes))).collect::<Result<_>>()?
        };
        add(&(touched.len() as u32).to_ne_bytes());
        for [start, count] in touched {
            add(&start.to_ne_bytes());
            add(&(count * PAGE_BYTES).to_ne_bytes());
        }
        add(&(args.len() as u32).to_ne_bytes());
        for arg in args {
            let bytes = match *arg {
                Arg::Pointer(Ptr(at)) => at.to_ne_bytes().to_vec(),
                Arg::Int(n) => n.to_ne_bytes().to_vec(),
                Arg::Long(n) => n.to_ne_bytes().to_vec(),
                Arg::Float(n) => n.to_ne_bytes().to_vec(),
            };
            add(&(bytes.len() as u64).to_ne_bytes());
            add(&bytes);
        }
        lock(&self.process).ask(&request).with_context(|| format!("{kernel}: a thread went astray, or"))
    }
}

/// Holds a launch against the kernel's signature.
fn check(program: Program, kernel: &str, grid: Grid, args: &[Arg]) -> Result<()> {
    let all = program.signatures();
    let signature = all.iter().find(|s| s.name == kernel).with_context(|| format!("no kernel {kernel}"))?;
    ensure!(grid.threads <= signature.threads, "{kernel} is for blocks of {} threads", signature.threads);
    let kinds: Vec<Kind> = args.iter().map(Arg::kind).collect();
    if kinds != signature.parameters {
        bail!("{kernel} takes {:?}, not {kinds:?}", signature.parameters);
    }
    Ok(())
}

impl Launch for Host {
    fn precision(&self) -> Precision {
        self.program.precision
    }

    fn launch(&self, kernel: &'static str, grid: Grid, args: &[Arg]) -> CandleResult<()> {
        self.run(kernel, grid, args).map_err(|error| candle_core::Error::Msg(format!("{error:#}")))
    }
}

#[test]
fn what_lies_past_a_buffer_cannot_be_touched() -> Result<()> {
    use super::kernels::{MapDims, map_to_planar};
    let dims = MapDims { batch: 1, height: 1, width: 1, channels: 8 };
    let host = Host::new(Precision::F32)?;
    let (x, y) = (host.upload(&[1.0_f32; 8]), host.empty(8 * 4));
    map_to_planar(&host, x, y, dims)?;
    assert_eq!(host.read::<f32>(y), [1.0; 8]);
    let error = map_to_planar(&host, x, y, MapDims { height: 2, ..dims }).unwrap_err().to_string();
    assert!(error.contains("map_to_planar: a thread went astray"), "{error}");
    Ok(())
}
