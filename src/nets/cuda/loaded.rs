//! A program's kernels on a device, ready to be launched.

// Launches are foreign functions. Addresses come from memory that their callers hold; kinds and number of a kernel's
// arguments are held against its text; the tests run the same launches on the processor, where an address that is out of
// bounds ends the test.
#![allow(unsafe_code)]

use std::collections::HashMap;
use std::sync::Arc;

use candle_core::cuda_backend::cudarc::driver::{CudaContext, CudaFunction, CudaStream, LaunchConfig, PushKernelArg};
use candle_core::cuda_backend::cudarc::nvrtc::Ptx;
use candle_core::{Error, Result, bail};

use super::compile::compile;
use super::kernels::{Arg, Grid, Ptr};
use super::source::{Program, Signature};

/// By their names.
pub struct Kernels(HashMap<String, Kernel>);

struct Kernel {
    function: CudaFunction,
    signature: Signature,
}

impl Kernels {
    /// Compiles a program for a device and takes it there.
    pub fn load(context: &Arc<CudaContext>, program: Program) -> Result<Self> {
        let (major, minor) = context.compute_capability().map_err(Error::wrap)?;
        let module = context.load_module(Ptx::from_binary(compile(program, [major, minor])?)).map_err(Error::wrap)?;
        let mut kernels = HashMap::new();
        for signature in program.signatures() {
            let function = module.load_function(&signature.name).map_err(Error::wrap)?;
            kernels.insert(signature.name.clone(), Kernel { function, signature });
        }
        Ok(Self(kernels))
    }

    /// Runs a kernel after what was asked of the stream before.
    pub fn launch(&self, stream: &Arc<CudaStream>, kernel: &str, grid: Grid, args: &[Arg]) -> Result<()> {
        let Some(Kernel { function, signature }) = self.0.get(kernel) else { bail!("there is no kernel {kernel}") };
        let Signature { threads, parameters, .. } = signature;
        if !args.iter().map(Arg::kind).eq(parameters.iter().copied()) || grid.threads > *threads {
            bail!("{kernel} takes {parameters:?} and blocks of {threads} threads, not {args:?} and {}", grid.threads);
        }
        let mut launch = stream.launch_builder(function);
        for arg in args {
            match arg {
                Arg::Pointer(Ptr(at)) => launch.arg(at),
                Arg::Int(n) => launch.arg(n),
                Arg::Long(n) => launch.arg(n),
                Arg::Float(n) => launch.arg(n),
            };
        }
        let [x, y, z] = grid.blocks;
        let config =
            LaunchConfig { grid_dim: (x, y, z), block_dim: (grid.threads, 1, 1), shared_mem_bytes: grid.shared_bytes };
        // SAFETY: the arguments are of the kinds that the kernel's text names; that the addresses hold as much as the
        // sizes say is the callers' part, which the tests run on the processor.
        unsafe { launch.launch(config) }.map_err(|error| Error::Msg(format!("{kernel}: {error:?}")))?;
        Ok(())
    }
}
