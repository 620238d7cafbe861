//! Any NVRTC that is found at run time, for a test: the kernels' text is compiled for every GPU that it knows, where
//! there is no GPU, no CUDA toolkit and no build for one. Versions know different GPUs: 12 all since sm_50, 13 those
//! since sm_75. `tests/gpu/nvrtc.sh` fetches one.

// A C library, loaded by its name: functions that fill in memory of the size that they told before.
#![allow(unsafe_code)]

use std::ffi::{CString, c_char, c_int, c_void};
use std::fs::DirEntry;
use std::path::{Path, PathBuf};
use std::ptr::null_mut;

use anyhow::{Context, Result, bail, ensure};
use libloading::{Library, Symbol};
use rayon::prelude::*;

use super::source::{Program, options};

/// Names files of the library; one that cannot be loaded is an error.
const VARIABLE: &str = "LIXELSCOPE_NVRTC";
/// Names under which the system may know it.
const NAMES: [&str; 3] = ["libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"];
/// The oldest GPUs that the program is for.
const OLDEST: c_int = 70;

type Handle = *mut c_void;
type Fill<T> = unsafe extern "C" fn(*mut T) -> c_int;
type FillOf<T> = unsafe extern "C" fn(Handle, *mut T) -> c_int;
type Create = unsafe extern "C" fn(
    *mut Handle,
    *const c_char,
    *const c_char,
    c_int,
    *const *const c_char,
    *const *const c_char,
) -> c_int;
type Compile = unsafe extern "C" fn(Handle, c_int, *const *const c_char) -> c_int;

struct Nvrtc {
    name: String,
    library: Library,
    /// What the library itself loads by name; some copies do not say where from.
    _builtins: Vec<Library>,
    /// The user named it.
    is_named: bool,
}

impl Nvrtc {
    fn open(name: PathBuf, is_named: bool) -> Result<Self> {
        let beside = name.parent().and_then(|folder| folder.read_dir().ok()).into_iter().flatten().flatten();
        let is_builtins = |entry: &DirEntry| entry.file_name().to_string_lossy().starts_with("libnvrtc-builtins.so");
        // SAFETY: NVIDIA's libraries; their initialisers ask nothing of the program.
        let load = |path: &Path| unsafe { Library::new(path) };
        let builtins = beside.filter(is_builtins).filter_map(|entry| load(&entry.path()).ok()).collect();
        let library = load(&name).with_context(|| format!("loading {}", name.display()))?;
        Ok(Self { name: name.display().to_string(), library, _builtins: builtins, is_named })
    }

    /// Those that [`VARIABLE`] names, else the first that the system has.
    fn found() -> Result<Vec<Self>> {
        match std::env::var_os(VARIABLE) {
            Some(paths) => std::env::split_paths(&paths).map(|path| Self::open(path, true)).collect(),
            None => Ok(NAMES.iter().find_map(|name| Self::open(name.into(), false).ok()).into_iter().collect()),
        }
    }

    fn function<T>(&self, name: &str) -> Result<Symbol<'_, T>> {
        // SAFETY: the types at the uses of this are those of nvrtc.h, the same since CUDA 11.
        unsafe { self.library.get(name.as_bytes()) }.with_context(|| format!("{name} of {}", self.name))
    }

    /// Compute capabilities of ours that it makes code for.
    fn architectures(&self) -> Result<Vec<[i32; 2]>> {
        let mut count = 0;
        let count_of: Symbol<Fill<c_int>> = self.function("nvrtcGetNumSupportedArchs")?;
        let fill: Symbol<Fill<c_int>> = self.function("nvrtcGetSupportedArchs")?;
        // SAFETY: the second call fills in as many numbers as the first one told.
        let numbers = unsafe {
            ensure!(count_of(&raw mut count) == 0, "nvrtcGetNumSupportedArchs");
            let mut numbers: Vec<c_int> = vec![0; count as usize];
            ensure!(fill(numbers.as_mut_ptr()) == 0, "nvrtcGetSupportedArchs");
            numbers
        };
        Ok(numbers.into_iter().filter(|&n| n >= OLDEST).map(|n| [n / 10, n % 10]).collect())
    }

    fn compile(&self, text: &str, architecture: [i32; 2]) -> Result<Vec<u8>> {
        let create: Symbol<Create> = self.function("nvrtcCreateProgram")?;
        let compile: Symbol<Compile> = self.function("nvrtcCompileProgram")?;
        let destroy: Symbol<Fill<Handle>> = self.function("nvrtcDestroyProgram")?;
        let text = CString::new(text)?;
        let options: Vec<CString> = options(architecture).into_iter().map(CString::new).collect::<Result<_, _>>()?;
        let pointers: Vec<*const c_char> = options.iter().map(|option| option.as_ptr()).collect();
        let mut program: Handle = null_mut();
        // SAFETY: all texts end with a zero and live until the end of this function, as the program does.
        unsafe {
            let name = c"lixelscope.cu".as_ptr();
            let made = create(&raw mut program, text.as_ptr(), name, 0, null_mut(), null_mut());
            ensure!(made == 0, "nvrtcCreateProgram: {made}");
            let compiled = compile(program, pointers.len() as c_int, pointers.as_ptr());
            let [size, fill] = if compiled == 0 {
                ["nvrtcGetCUBINSize", "nvrtcGetCUBIN"]
            } else {
                ["nvrtcGetProgramLogSize", "nvrtcGetProgramLog"]
            };
            let made = self.filled(program, size, fill);
            destroy(&raw mut program);
            if compiled != 0 {
                bail!("NVRTC's error {compiled}: {}", String::from_utf8_lossy(&made?));
            }
            made
        }
    }

    /// What one function fills in, of the size that another tells.
    unsafe fn filled(&self, program: Handle, size: &str, fill: &str) -> Result<Vec<u8>> {
        let mut bytes = 0_usize;
        let told: Symbol<FillOf<usize>> = self.function(size)?;
        let filled: Symbol<FillOf<u8>> = self.function(fill)?;
        // SAFETY: the program lives, says the caller; the memory has the size that was told.
        unsafe {
            ensure!(told(program, &raw mut bytes) == 0, "{size}");
            let mut code = vec![0; bytes];
            ensure!(filled(program, code.as_mut_ptr()) == 0, "{fill}");
            Ok(code)
        }
    }
}

/// Every kernel of these programs compiles for every GPU from sm_70 up that the NVRTC which [`VARIABLE`] names knows; for
/// some where the system has one anyway; where there is none, nothing is said of it.
pub fn assert_compile_everywhere(programs: &[Program]) -> Result<()> {
    let found = Nvrtc::found()?;
    if found.is_empty() {
        println!("left out: no NVRTC is here ({VARIABLE} may name the file of one)");
    }
    for nvrtc in &found {
        let mut architectures = nvrtc.architectures()?;
        ensure!([[8, 0], [9, 0]].iter().all(|a| architectures.contains(a)), "{} knows {architectures:?}", nvrtc.name);
        if !nvrtc.is_named {
            // All of them take a minute, which nobody has asked for.
            architectures.retain(|a| [[7, 0], [7, 5], [9, 0]].contains(a));
        }
        let all: Vec<_> = programs.iter().flat_map(|p| architectures.iter().map(move |a| (*p, *a))).collect();
        all.par_iter().try_for_each(|&(program, [major, minor])| -> Result<()> {
            let code = nvrtc.compile(&program.text(), [major, minor]);
            let code = code.with_context(|| format!("{}, sm_{major}{minor}, {:?}", nvrtc.name, program.precision))?;
            for kernel in program.signatures() {
                // Names stand in the code as they stand in the text.
                let name = kernel.name.as_bytes();
                ensure!(code.windows(name.len()).any(|part| part == name), "sm_{major}{minor}: {}", kernel.name);
            }
            Ok(())
        })?;
        let names: Vec<String> = architectures.iter().map(|[major, minor]| format!("sm_{major}{minor}")).collect();
        println!("{} compiled {} programs for {}", nvrtc.name, programs.len(), names.join(" "));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nets::Precision;

    #[test]
    fn every_kernel_compiles_for_every_gpu() -> Result<()> {
        assert_compile_everywhere(&[Precision::F32, Precision::F16, Precision::Bf16].map(Program::networks))
    }

    #[test]
    fn what_is_wrong_is_not_compiled() -> Result<()> {
        for nvrtc in &Nvrtc::found()? {
            let error = nvrtc.compile("extern \"C\" __global__ void f() { nothing(); }", [9, 0]).unwrap_err();
            ensure!(error.to_string().contains("nothing"), "{error}");
            ensure!(nvrtc.compile(&Program::networks(Precision::F32).text(), [1, 0]).is_err());
        }
        Ok(())
    }
}
