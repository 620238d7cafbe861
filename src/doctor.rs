//! `lixelscope doctor`: what is there and what is missing, each with what to do about it. Always exits with 0: it
//! reports, it does not judge.

use std::fmt::Display;
use std::io::Write;
use std::panic::catch_unwind;
use std::path::Path;

use anyhow::Result;

use crate::body::Family;
use crate::cli::{self, DoctorArgs};
use crate::models::{self, Entry, Origin, Role, Status};
use crate::pipeline::infer;
use crate::render::Gpu;
use crate::settings::{Backend, Precision};
use crate::{capture, result::EstimatorKind};

/// Runs the command.
pub fn run(args: &DoctorArgs) -> Result<()> {
    let folder = cli::models_folder(args.models.as_deref())?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "lixelscope {}", env!("CARGO_PKG_VERSION"))?;

    let there = if folder.is_dir() { "" } else { "  (not there yet: make it, and put files in)" };
    writeln!(out, "\nmodels in {}{there}", folder.display())?;
    let entries = models::survey(&folder);
    for entry in &entries {
        match &entry.status {
            Status::Found { origin: Origin::File(path), summary } => {
                line(&mut out, "found", entry.role.what(), summary)?;
                detail(&mut out, "", path.display())?;
            }
            Status::Found { origin: Origin::BuiltIn, summary } => {
                line(&mut out, "built in", entry.role.what(), &format!("{}; {summary}", models::BUILT_IN))?;
                detail(&mut out, "your own take their place: ", entry.role.names().join(", "))?;
                detail(&mut out, "get them: ", entry.role.where_to_get())?;
            }
            Status::Missing { names, where_to_get } => {
                line(&mut out, "missing", entry.role.what(), "")?;
                detail(&mut out, "looked for: ", names.join(", "))?;
                detail(&mut out, "get it: ", where_to_get)?;
            }
            Status::Unreadable { path, why } => {
                line(&mut out, "unreadable", entry.role.what(), "")?;
                detail(&mut out, "", path.display())?;
                detail(&mut out, "why: ", why)?;
            }
        }
    }
    writeln!(out, "\nestimators")?;
    for kind in [EstimatorKind::Body, EstimatorKind::Hand, EstimatorKind::Skeleton] {
        let name = format!("--estimator {}", format!("{kind:?}").to_lowercase());
        let Needs { lacks, uses, makes_do } = needs(&folder, &entries, kind);
        if lacks.is_empty() {
            line(&mut out, "ready", &name, &uses.join("; "))?;
        } else {
            line(&mut out, "lacks", &name, &lacks.join(", "))?;
        }
        makes_do.iter().try_for_each(|what| detail(&mut out, "", what))?;
    }

    writeln!(out, "\nbackends of the networks")?;
    for (backend, name) in [(Backend::Cpu, "cpu"), (Backend::Cuda, "cuda"), (Backend::Metal, "metal")] {
        // A driver's library can do anything when it is loaded.
        let found = catch_unwind(|| infer::device(backend, Precision::default()))
            .unwrap_or_else(|_| Err(anyhow::anyhow!("the driver broke down while it was opened")));
        match found {
            Ok((_, words)) => line(&mut out, "works", name, &words)?,
            Err(error) => line(&mut out, "no", name, &format!("{error:#}"))?,
        }
    }

    writeln!(out, "\ngraphics adapters")?;
    match catch_unwind(Gpu::adapters) {
        Ok(adapters) if adapters.is_empty() => {
            line(&mut out, "none", "", "Debian or Ubuntu: apt install libvulkan1 mesa-vulkan-drivers")?;
        }
        Ok(adapters) => adapters.iter().try_for_each(|adapter| line(&mut out, "found", adapter, ""))?,
        Err(_) => line(&mut out, "no", "", "a graphics driver broke down while it was asked")?,
    }

    writeln!(out, "\ncameras")?;
    match capture::list_cameras() {
        Ok(cameras) if cameras.is_empty() => {
            line(&mut out, "none", "", "plug one in, or use --source with a video, a picture or a folder of pictures")?;
        }
        Ok(cameras) => {
            for camera in cameras {
                line(&mut out, "found", &format!("webcam:{}", camera.index), &camera.name)?;
            }
        }
        Err(error) => line(&mut out, "no", "", &format!("{error:#}"))?,
    }

    writeln!(out, "\nvideo files")?;
    match capture::ffmpeg_version() {
        Ok(version) => line(&mut out, "found", "ffmpeg", &version)?,
        Err(error) => line(&mut out, "missing", "ffmpeg", &format!("{error:#}"))?,
    }
    Ok(())
}

/// What an estimator cannot do without, what it works with, and what it makes do without.
#[derive(Default)]
struct Needs {
    lacks: Vec<&'static str>,
    uses: Vec<String>,
    makes_do: Vec<&'static str>,
}

/// As the loader of the pipeline sees it.
fn needs(folder: &Path, entries: &[Entry], kind: EstimatorKind) -> Needs {
    let found = |role| {
        entries.iter().find(|entry| entry.role == role).and_then(|entry| match &entry.status {
            Status::Found { origin, .. } => Some(match origin {
                Origin::BuiltIn => format!("{} (built in)", role.name()),
                Origin::File(_) => format!("{} (yours)", role.name()),
            }),
            _ => None,
        })
    };
    let (network, body, root) = match kind {
        EstimatorKind::Body => (Role::I2lBody, Some(Role::Smpl), Role::RootNet),
        EstimatorKind::Hand => (Role::I2lHand, Some(Role::Mano), Role::RootNetHand),
        EstimatorKind::Skeleton => (Role::PoseNet3d, None, Role::RootNet),
    };
    let mut needs = Needs::default();
    let detector = match kind.family() {
        Family::Smpl => found(Role::Detector).or_else(|| found(Role::LightDetector)),
        Family::Mano => found(Role::HandDetector),
    };
    match detector {
        None => needs.makes_do.push("boxes are yours to give (--box, --whole-frame): there is no detector for it"),
        Some(detector) => needs.uses.push(detector),
    }
    match found(root) {
        None => {
            needs.makes_do.push("distances are guessed from the size of the box: there is no RootNet for it");
        }
        uses => needs.uses.extend(uses),
    }
    match (found(network), body) {
        (None, _) => {
            needs.lacks.push(network.what());
            needs.makes_do.clear();
        }
        (Some(_), Some(body)) if found(body).is_none() && !models::brings_faces(folder, network) => {
            needs.lacks.push(body.what());
        }
        (uses, _) => needs.uses.extend(uses),
    }
    needs
}

fn line(out: &mut impl Write, state: &str, what: &str, more: &str) -> std::io::Result<()> {
    let gap = if what.is_empty() || more.is_empty() { "" } else { ": " };
    writeln!(out, "  {state:10} {what}{gap}{more}")
}

fn detail(out: &mut impl Write, label: &str, text: impl Display) -> std::io::Result<()> {
    writeln!(out, "{:13}{label}{text}", "")
}
