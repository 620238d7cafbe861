//! Lists the weights in `assets/weights` for `models::built_in`, which builds them into the program. It can be built
//! without some of them, too: before they are trained, or to be small.

use std::ffi::OsStr;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let variable = |name| env::var_os(name).map(PathBuf::from).ok_or(io::ErrorKind::NotFound);
    let folder = variable("CARGO_MANIFEST_DIR")?.join("assets").join("weights");
    println!("cargo::rerun-if-changed={}", folder.display());
    let is_weights = |path: &Path| path.extension().is_some_and(|extension| extension == "safetensors");
    let entries = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    let mut paths: Vec<_> = entries.into_iter().filter(|path| is_weights(path)).collect();
    paths.sort();
    let mut list = String::from("&[");
    for path in paths {
        let text =
            |text: Option<&OsStr>| text.and_then(OsStr::to_str).map(str::to_owned).ok_or(io::ErrorKind::InvalidData);
        let (stem, path) = (text(path.file_stem())?, text(Some(path.as_os_str()))?);
        // Quoted as Rust does it. To a string: it cannot fail.
        let _ = write!(list, "({stem:?}, &Aligned(*include_bytes!({path:?}))),");
    }
    fs::write(variable("OUT_DIR")?.join("weights.rs"), list + "]")
}
