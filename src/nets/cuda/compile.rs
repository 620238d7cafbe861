//! The kernels' text to machine code, by NVRTC: when a device is opened, and in a test on machines without one.

// NVRTC is a C library; cudarc's safe layer makes PTX, which a driver older than the toolkit refuses. What is called
// here are functions that fill in memory of the size that they told before.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString};

use candle_core::cuda_backend::cudarc::nvrtc::{result, sys};
use candle_core::{Result, bail};

use super::source::Program;

/// Machine code for GPUs of a compute capability, `[9, 0]` for an H200.
pub fn compile(program: Program, [major, minor]: [i32; 2]) -> Result<Vec<u8>> {
    let text = CString::new(program.text()).map_err(candle_core::Error::wrap)?;
    let program = Compiling(result::create_program(&text, Some(c"lixelscope.cu")).map_err(candle_core::Error::wrap)?);
    // No contraction of products and sums: the detector decides as the processor does. What may be contracted says so.
    let options = [&format!("--gpu-architecture=sm_{major}{minor}"), "--fmad=false", "--std=c++17"];
    // SAFETY: the program was created above and lives until the end of this function.
    if let Err(error) = unsafe { result::compile_program(program.0, &options) } {
        // SAFETY: as above; the log ends with a zero.
        let log = unsafe { result::get_program_log(program.0) }.unwrap_or_default();
        let log = unsafe { CStr::from_ptr(log.as_ptr()) }.to_string_lossy().into_owned();
        bail!("NVRTC cannot compile the kernels for sm_{major}{minor}: {error:?} {log}");
    }
    let mut size = 0;
    // SAFETY: the program was compiled; the code has the size that was told.
    unsafe {
        sys::nvrtcGetCUBINSize(program.0, &raw mut size).result().map_err(candle_core::Error::wrap)?;
        let mut code = vec![0_u8; size];
        sys::nvrtcGetCUBIN(program.0, code.as_mut_ptr().cast()).result().map_err(candle_core::Error::wrap)?;
        Ok(code)
    }
}

/// Destroyed when it goes.
struct Compiling(sys::nvrtcProgram);

impl Drop for Compiling {
    fn drop(&mut self) {
        // SAFETY: created by `create_program`, destroyed only here. Nothing is to be done where that fails.
        let _ = unsafe { result::destroy_program(self.0) };
    }
}

/// Compute capabilities that this NVRTC makes code for, `[9, 0]` and so on.
pub fn architectures() -> Result<Vec<[i32; 2]>> {
    let mut count = 0;
    // SAFETY: the second call fills in as many numbers as the first one told.
    let numbers = unsafe {
        sys::nvrtcGetNumSupportedArchs(&raw mut count).result().map_err(candle_core::Error::wrap)?;
        let mut numbers = vec![0; count as usize];
        sys::nvrtcGetSupportedArchs(numbers.as_mut_ptr()).result().map_err(candle_core::Error::wrap)?;
        numbers
    };
    Ok(numbers.into_iter().map(|n: i32| [n / 10, n % 10]).collect())
}

/// Every kernel of a program compiles for every GPU that this NVRTC knows among ours.
#[cfg(test)]
pub(crate) fn assert_compiles_everywhere(program: Program) -> Result<()> {
    let known = architectures()?;
    // CUDA 13 no longer knows sm_70.
    let wanted: Vec<_> = [[7, 0], [7, 5], [8, 0], [9, 0]].into_iter().filter(|a| known.contains(a)).collect();
    assert!(wanted.contains(&[8, 0]) && wanted.contains(&[9, 0]), "{known:?}");
    for architecture in wanted {
        let code = compile(program, architecture)?;
        for kernel in program.signatures() {
            // Names stand in the code as they stand in the text.
            let name = kernel.name.as_bytes();
            assert!(code.windows(name.len()).any(|part| part == name), "{}", kernel.name);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nets::Precision;

    #[test]
    fn every_kernel_compiles_for_every_gpu() -> Result<()> {
        for precision in [Precision::F32, Precision::F16, Precision::Bf16] {
            assert_compiles_everywhere(Program::networks(precision))?;
        }
        assert!(compile(Program::networks(Precision::F32), [1, 0]).is_err());
        Ok(())
    }
}
