//! The kernels' text to machine code, by NVRTC, when a device is opened. `nvrtc.rs` does so for every GPU, in a test.

// NVRTC is a C library; cudarc's safe layer makes PTX, which a driver older than the toolkit refuses. What is called
// here are functions that fill in memory of the size that they told before.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString};

use candle_core::cuda_backend::cudarc::nvrtc::{result, sys};
use candle_core::{Result, bail};

use super::source::{Program, options};

/// Machine code for GPUs of a compute capability, `[9, 0]` for an H200.
pub fn compile(program: Program, [major, minor]: [i32; 2]) -> Result<Vec<u8>> {
    let text = CString::new(program.text()).map_err(candle_core::Error::wrap)?;
    let program = Compiling(result::create_program(&text, Some(c"lixelscope.cu")).map_err(candle_core::Error::wrap)?);
    // SAFETY: the program was created above and lives until the end of this function.
    if let Err(error) = unsafe { result::compile_program(program.0, &options([major, minor])) } {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nets::Precision;

    /// `nvrtc.rs` has all kernels and all GPUs; this is the library that the program itself is linked to.
    #[test]
    fn the_linked_library_compiles() -> Result<()> {
        assert!(!compile(Program::networks(Precision::F16), [9, 0])?.is_empty());
        assert!(compile(Program::networks(Precision::F32), [1, 0]).is_err());
        Ok(())
    }
}
