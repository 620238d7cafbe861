//! The proof that the networks match their references: every case found in the folder named by `GOLDEN_DIR` (default
//! `tests/golden`) is run and compared with the numbers in its file. How those were made: `tests/golden/README.md`.
//!
//! ```text
//! cargo test --release --test reference -- --nocapture
//! ```
//!
//! prints a line for each case with the largest deviation of each stage. To add a kind of case, write a function
//! `fn(&Path) -> Result<Report>` and list it in [`KINDS`].

#[path = "../support/mod.rs"]
mod support;

mod batches;
mod bodies;
mod compare;
mod geometry;
mod i2l;
mod maskrcnn;
mod measures;
mod patches;

use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail};

use compare::Report;

/// Runs one case.
type Run = fn(&Path) -> Result<Report>;

/// A kind of case is told by how its file's name starts.
const KINDS: &[(&str, Run)] = &[
    ("i2l_body", i2l::body),
    ("i2l_hand", i2l::hand),
    ("rootnet", patches::rootnet),
    ("posenet3d", patches::posenet3d),
    ("preprocess", geometry::preprocess),
    ("restore", geometry::restore),
    ("metrics", measures::metrics),
    ("losses", measures::losses),
    ("maskrcnn", maskrcnn::run),
    ("lbs_smpl", bodies::lbs_smpl),
    ("lbs_mano", bodies::lbs_mano),
    ("checkpoint", bodies::checkpoint),
];

/// File endings that a case can have; everything else beside the cases (bodies, manifests) is their input.
const CASE_ENDINGS: [&str; 1] = ["safetensors"];

/// What became of the cases of a folder.
struct Summary {
    passed: Vec<String>,
    failed: Vec<String>,
}

/// The cases of a folder, in the order of their names.
fn find_cases(folder: &Path, kinds: &[(&'static str, Run)]) -> Result<Vec<(PathBuf, Run)>> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("reading the folder {}", folder.display()))?;
    let mut cases = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let stem = path.file_stem().and_then(|s| s.to_str()).unwrap_or_default();
        let ending = path.extension().and_then(|s| s.to_str()).unwrap_or_default();
        let kind = kinds
            .iter()
            .find(|(prefix, _)| stem.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('_')));
        if let (Some(&(_, run)), true) = (kind, CASE_ENDINGS.contains(&ending)) {
            cases.push((path, run));
        }
    }
    cases.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(cases)
}

/// Runs all cases of a folder and says a line for each; a broken one does not keep the others from running.
fn run_folder(folder: &Path, kinds: &[(&'static str, Run)], say: impl Fn(&str)) -> Result<Summary> {
    let cases = find_cases(folder, kinds)?;
    if cases.is_empty() {
        bail!("{} holds no case: a case is a file like i2l_body_noise.safetensors", folder.display());
    }
    let mut summary = Summary { passed: Vec::new(), failed: Vec::new() };
    for (path, run) in cases {
        let name = path.file_stem().and_then(|s| s.to_str()).unwrap_or_default().to_owned();
        let start = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| run(&path)))
            .unwrap_or_else(|panic| Err(anyhow!("panicked: {}", panic_text(panic.as_ref()))))
            .and_then(Report::finish);
        let secs = start.elapsed().as_secs_f64();
        match outcome {
            Ok(stages) => {
                say(&format!("case {name}: ok  {stages} ({secs:.1} s)"));
                summary.passed.push(name);
            }
            Err(error) => {
                say(&format!("case {name}: FAILED  {error:#} ({secs:.1} s)"));
                summary.failed.push(format!("{name}: {error:#}"));
            }
        }
    }
    Ok(summary)
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a message")
}

#[test]
fn every_case_agrees_with_its_reference() {
    let folder = std::env::var_os("GOLDEN_DIR").map_or_else(support::project_golden_dir, PathBuf::from);
    // The test harness may have begun a line.
    println!("\ncases of {}", folder.display());
    let summary = run_folder(&folder, KINDS, |line| println!("{line}")).unwrap_or_else(|error| panic!("{error:#}"));
    println!("{} cases agree, {} do not", summary.passed.len(), summary.failed.len());
    let failures = summary.failed.iter().fold(String::new(), |mut text, failure| {
        let _ = write!(text, "\n  {failure}");
        text
    });
    assert!(summary.failed.is_empty(), "these cases do not agree with their reference:{failures}");
}

#[test]
fn a_folder_without_cases_fails() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("i2l_body.manifest.json"), "{}").expect("writing");
    let kinds: &[(&str, Run)] = &[("i2l_body", |_| bail!("unreachable"))];
    assert!(run_folder(folder.path(), kinds, |_| ()).is_err());
    assert!(run_folder(&folder.path().join("absent"), kinds, |_| ()).is_err());
}

#[test]
fn a_broken_case_fails_by_name_and_the_others_run() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for name in ["a_one", "a_two", "b_three", "c", "abc"] {
        std::fs::write(folder.path().join(format!("{name}.safetensors")), "no tensors").expect("writing");
    }
    let passes: Run = |_| {
        let mut report = Report::default();
        report.check("stage", 0.5, compare::Tolerance::new(1.0, "px"));
        Ok(report)
    };
    let deviates: Run = |_| {
        let mut report = Report::default();
        report.check("stage", 0.5, compare::Tolerance::new(0.1, "px"));
        Ok(report)
    };
    let kinds: &[(&str, Run)] =
        &[("a", passes), ("b", deviates), ("c", |path| bail!("cannot read {}", path.display()))];
    let summary = run_folder(folder.path(), kinds, |_| ()).expect("there are cases");
    assert_eq!(summary.passed, ["a_one", "a_two"]);
    assert_eq!(summary.failed.len(), 2);
    assert!(summary.failed[0].starts_with("b_three: ") && summary.failed[1].starts_with("c: "));
}
