//! The kernels on the processor, for tests: the same text, compiled by the system's C++ compiler behind `host.h`, and
//! the same launches. Every launch is a process of its own, so a kernel that goes astray ends that one.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, bail, ensure};
use candle_core::Result as CandleResult;
use half::{bf16, f16};

use super::kernels::{Arg, Grid, Launch, Ptr};
use super::source::{Kind, Program};
use crate::nets::Precision;

/// A processor that runs kernels, and its memory.
pub struct Host {
    program: Program,
    binary: PathBuf,
    buffers: Mutex<BTreeMap<u64, Vec<u8>>>,
}

/// The compiled programs of this run of the tests.
static PROGRAMS: Mutex<Vec<(Program, PathBuf, tempfile::TempDir)>> = Mutex::new(Vec::new());

fn compiled(program: Program) -> Result<PathBuf> {
    let mut programs = PROGRAMS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, path, _)) = programs.iter().find(|(p, ..)| *p == program) {
        return Ok(path.clone());
    }
    let folder = tempfile::tempdir()?;
    let table: Vec<String> =
        program.signatures().iter().map(|s| format!("    HOST_KERNEL({})", s.name)).collect();
    let table = table.join("\n");
    let text = format!(
        "{}\n{}\nstatic bool table(const std::string& wanted, Request& request) {{\n    bool ran = false;\n{table}\n    \
         return ran;\n}}\nint main() {{ return host_main(table); }}\n",
        include_str!("host.h"),
        program.text()
    );
    let (source, binary) = (folder.path().join("kernels.cpp"), folder.path().join("kernels"));
    std::fs::write(&source, text)?;
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".into());
    // As NVRTC is told: no contraction of products and sums.
    let output = Command::new(&compiler)
        .args(["-std=c++17", "-O1", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror", "-Wno-unused-function", "-o"])
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

    /// Compiles a program, once for all tests.
    pub fn running(program: Program) -> Result<Self> {
        Ok(Self { program, binary: compiled(program)?, buffers: Mutex::default() })
    }

    fn buffers(&self) -> MutexGuard<'_, BTreeMap<u64, Vec<u8>>> {
        self.buffers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, bytes: Vec<u8>) -> Ptr {
        let mut buffers = self.buffers();
        // Far apart, so that no kernel's mistake can look like another buffer.
        let at = buffers.last_key_value().map_or(0, |(at, _)| *at) + (1 << 40);
        buffers.insert(at, bytes);
        Ptr(at)
    }

    /// Takes memory back.
    pub fn free(&self, at: Ptr) {
        self.buffers().remove(&at.0);
    }

    /// Memory with these numbers.
    pub fn upload<T: bytemuck::NoUninit>(&self, values: &[T]) -> Ptr {
        self.add(bytemuck::cast_slice(values).to_vec())
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
        self.add(vec![0xff; bytes])
    }

    /// Memory for so many activations.
    pub fn empty_elements(&self, count: usize) -> Ptr {
        self.empty(count * self.program.precision.bytes())
    }

    /// What a buffer holds.
    pub fn read<T: bytemuck::Pod>(&self, at: Ptr) -> Vec<T> {
        bytemuck::pod_collect_to_vec(&self.buffers()[&at.0][..])
    }

    /// So many numbers from an address on.
    pub fn read_part<T: bytemuck::Pod>(&self, at: Ptr, count: usize) -> Vec<T> {
        let buffers = self.buffers();
        let (start, buffer) = buffers.range(..=at.0).next_back().expect("an address of a buffer");
        bytemuck::pod_collect_to_vec(&buffer[(at.0 - start) as usize..][..count * size_of::<T>()])
    }

    /// Writes numbers from an address on.
    pub fn write_part<T: bytemuck::NoUninit>(&self, at: Ptr, values: &[T]) {
        let bytes = bytemuck::cast_slice(values);
        let mut buffers = self.buffers();
        let (start, buffer) = buffers.range_mut(..=at.0).next_back().expect("an address of a buffer");
        buffer[(at.0 - start) as usize..][..bytes.len()].copy_from_slice(bytes);
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
        let mut buffers = self.buffers();
        let mut request = Vec::new();
        let mut number = |bytes: &[u8]| request.extend_from_slice(bytes);
        number(&(kernel.len() as u32).to_ne_bytes());
        number(kernel.as_bytes());
        let [x, y, z] = grid.blocks;
        for n in [x, y, z, grid.threads, grid.shared_bytes, args.len() as u32] {
            number(&n.to_ne_bytes());
        }
        // The buffer that an address lies in, and how far inside.
        let find = |buffers: &BTreeMap<u64, Vec<u8>>, at: Ptr| {
            buffers.range(..=at.0).next_back().map(|(&start, _)| (start, (at.0 - start) as usize))
        };
        let mut sent = Vec::new();
        for arg in args {
            let bytes = match *arg {
                Arg::Pointer(Ptr::NULL) => Vec::new(),
                Arg::Pointer(at) => {
                    let (start, offset) = find(&buffers, at).context("an address of no buffer")?;
                    buffers[&start].get(offset..).context("an address past the end of its buffer")?.to_vec()
                }
                Arg::Int(n) => n.to_ne_bytes().to_vec(),
                Arg::Long(n) => n.to_ne_bytes().to_vec(),
                Arg::Float(n) => n.to_ne_bytes().to_vec(),
            };
            number(&(bytes.len() as u64).to_ne_bytes());
            number(&bytes);
            sent.push(bytes);
        }
        let mut child =
            Command::new(&self.binary).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let mut stdin = child.stdin.take().context("its input")?;
        let writer =
            std::thread::Builder::new().name("kernel input".into()).spawn(move || stdin.write_all(&request))?;
        let output = child.wait_with_output()?;
        let _ = writer.join();
        ensure!(output.status.success(), "{kernel}: {} {}", output.status, String::from_utf8_lossy(&output.stderr));
        let mut rest = &output.stdout[..];
        for (arg, before) in args.iter().zip(sent) {
            let (after, more) = rest.split_at(before.len());
            rest = more;
            let Arg::Pointer(at) = *arg else { continue };
            if at == Ptr::NULL || after == before {
                continue; // Two arguments can be of one buffer: only what was written counts.
            }
            let (start, offset) = find(&buffers, at).context("an address of no buffer")?;
            let held = &mut buffers.get_mut(&start).context("a buffer")?[offset..];
            for ((held, &after), before) in held.iter_mut().zip(after).zip(before) {
                if after != before {
                    *held = after;
                }
            }
        }
        Ok(())
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
