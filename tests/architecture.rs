//! One crate has no walls but these: each third-party library is used in its own rooms only, and every module of the
//! tree is in the picture at the head of `lib.rs`.

use std::fs;
use std::path::{Path, PathBuf};

/// Library, and the paths below `src/` that may use it.
const WALLS: &[(&str, &[&str])] = &[
    ("nokhwa", &["capture/"]),
    ("ffmpeg_sidecar", &["capture/"]),
    ("candle_core", &["nets/", "lixel/", "train/", "pipeline/infer.rs", "bench.rs", "bench/"]),
    ("candle_nn", &["nets/", "lixel/", "train/", "pipeline/infer.rs", "bench.rs", "bench/"]),
    ("wgpu", &["render/", "app.rs", "app/"]),
    ("winit", &["app.rs", "app/"]),
    ("egui_winit", &["app.rs", "app/"]),
    ("egui", &["ui/", "app.rs", "app/"]),
    ("egui_plot", &["ui/"]),
    ("plotters", &["train/plot.rs"]),
];

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

fn tree() -> Vec<(String, String)> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    sources(&src, &mut found);
    found
        .into_iter()
        .map(|path| {
            let name = path.strip_prefix(&src).unwrap().to_string_lossy().replace('\\', "/");
            (name, fs::read_to_string(&path).unwrap())
        })
        .collect()
}

/// The line without its comment, so that a library may be spoken of anywhere.
fn code(line: &str) -> &str {
    line.split_once("//").map_or(line, |(code, _)| code)
}

fn uses(line: &str, library: &str) -> bool {
    let line = code(line);
    line.match_indices(&format!("{library}::")).any(|(at, _)| {
        // Not the tail of a longer name: `my_egui::` or `crate::egui::`.
        !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':')
    }) || line.trim_start().strip_prefix("use ").is_some_and(|rest| rest.trim_end_matches(';') == library)
}

#[test]
fn libraries_stay_in_their_rooms() {
    let mut offences = Vec::new();
    for (name, text) in tree() {
        for (library, rooms) in WALLS {
            if rooms.iter().any(|room| name.starts_with(room)) {
                continue;
            }
            for (at, line) in text.lines().enumerate().filter(|(_, line)| uses(line, library)) {
                offences.push(format!("src/{name}:{}: {library} does not belong here: {}", at + 1, line.trim()));
            }
        }
    }
    assert!(offences.is_empty(), "{}", offences.join("\n"));
}

#[test]
fn the_wall_is_seen_by_the_test_itself() {
    assert!(uses("use wgpu::Device;", "wgpu"));
    assert!(uses("    let x = wgpu::Device::new();", "wgpu"));
    assert!(uses("use egui;", "egui"));
    assert!(!uses("use egui_wgpu::Renderer;", "wgpu"));
    assert!(!uses("use egui_wgpu::Renderer;", "egui"));
    assert!(!uses("// wgpu::Device", "wgpu"));
}

#[test]
fn every_module_is_in_the_picture_at_the_head_of_the_library() {
    let head = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).unwrap();
    let picture: String = head.lines().filter(|line| line.starts_with("//!")).collect();
    for module in head.lines().filter_map(|line| line.strip_prefix("pub mod ")) {
        let module = module.trim_end_matches(';');
        assert!(
            [format!("[`{module}`]"), format!("[`mod@{module}`]")].iter().any(|link| picture.contains(link)),
            "the head of lib.rs does not say what `{module}` is"
        );
    }
}
