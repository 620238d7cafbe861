//! Lists the weights in `assets/weights` for `models::built_in`, which builds them into the program. It can be built
//! without some of them, too: before they are trained, or to be small.

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
        let stem = path.file_stem().unwrap_or_default();
        let _ = write!(list, "({stem:?}, &Aligned(*include_bytes!({path:?}))),"); // to a string: cannot fail
    }
    fs::write(variable("OUT_DIR")?.join("weights.rs"), list + "]")
}
