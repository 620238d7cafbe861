//! How many synthetic pictures a second: `cargo bench --bench synth`. With `SHEET=DIR` it also writes sheets of pictures,
//! to look at.

use std::sync::Arc;
use std::time::{Duration, Instant};

use image::{RgbImage, imageops};
use lixelscope::capture::Frame;
use lixelscope::pipeline::Stages;
use lixelscope::render::{DrawOptions, OffscreenRenderer};
use lixelscope::settings::Settings;
use lixelscope::synth::{Kind, Photo, Scene, Studio};
use rayon::prelude::*;

fn time(what: &str, count: u32, mut one: impl FnMut(u32)) {
    one(0);
    let start = Instant::now();
    (0..count).for_each(&mut one);
    let each_ms = start.elapsed().as_secs_f64() * 1e3 / f64::from(count);
    println!("{what:55} {each_ms:8.2} ms  {:8.0}/s", 1e3 / each_ms);
}

/// The first seed from `from` on with two people.
fn two_people(studio: &Arc<Studio>, kind: Kind, from: u64, size: [u32; 2]) -> u64 {
    (from..from + 1000)
        .find(|&seed| Scene::new(studio, kind, seed, size).unwrap().standing(0.0).unwrap().len() == 2)
        .expect("there are many seeds")
}

fn sheet(studio: &Arc<Studio>, kind: Kind, seeds: std::ops::Range<u64>, size: [u32; 2], columns: u32) -> RgbImage {
    let photos: Vec<Photo> = seeds.into_par_iter().map(|seed| studio.sample(kind, seed, size).unwrap()).collect();
    let rows = (photos.len() as u32).div_ceil(columns);
    let mut sheet = RgbImage::new(columns * size[0], rows * size[1]);
    for (i, photo) in photos.iter().enumerate() {
        let (x, y) = (i as u32 % columns * size[0], i as u32 / columns * size[1]);
        imageops::replace(&mut sheet, &photo.rgb, i64::from(x), i64::from(y));
    }
    sheet
}

/// The project's renderer, off screen: the same two people alone, without place, clothes or shadows.
fn with_wgpu(studio: &Arc<Studio>) {
    let Ok(mut renderer) = OffscreenRenderer::new() else { return println!("no graphics device for wgpu") };
    println!("wgpu: {}", renderer.describe());
    let stages = Stages::new(Settings::with_models(".".into()));
    for size in [[640, 480], [256, 256]] {
        let Photo { rgb, truth } =
            studio.sample(Kind::Scenes, two_people(studio, Kind::Scenes, 0, size), size).unwrap();
        let (index, captured_at) = (0, Duration::ZERO);
        let frame = Frame { rgb, index, captured_at, name: None, truth: Some(Arc::new(truth)) };
        let result = stages.without_people(Arc::new(frame)).with_truth().unwrap();
        time(&format!("wgpu {}x{}, two people on a frame", size[0], size[1]), 20, |_| {
            // A new result each time, as in a stream.
            renderer.overlay(&Arc::new(result.clone()), &DrawOptions::default()).unwrap();
        });
    }
}

fn main() {
    let start = Instant::now();
    let studio = Studio::new().unwrap();
    println!("studio: {:.2} s", start.elapsed().as_secs_f32());
    if let Ok(dir) = std::env::var("SHEET") {
        for (kind, name) in [(Kind::Scenes, "scenes"), (Kind::Poses, "poses")] {
            sheet(&studio, kind, 0..40, [320, 240], 5).save(format!("{dir}/{name}.png")).unwrap();
            sheet(&studio, kind, 100..104, [640, 480], 2).save(format!("{dir}/{name}_large.png")).unwrap();
        }
        let scene = Scene::new(&studio, Kind::Scenes, 23, [320, 240]).unwrap();
        let mut film = RgbImage::new(320 * 5, 240 * 4);
        for i in 0..20 {
            let photo = scene.photograph(i as f32 * 0.4).unwrap();
            imageops::replace(&mut film, &photo.rgb, i64::from(i % 5 * 320), i64::from(i / 5 * 240));
        }
        film.save(format!("{dir}/film.png")).unwrap();
    }
    with_wgpu(&studio);
    for size in [[640, 480], [256, 256], [128, 128]] {
        for kind in [Kind::Scenes, Kind::Poses] {
            let seeds: Vec<u64> = (0..20).map(|i| two_people(&studio, kind, i * 50, size)).collect();
            let name = format!("{kind:?} {}x{}, two people", size[0], size[1]);
            time(&format!("{name}, new scene, all threads in one"), 20, |i| {
                studio.sample(kind, seeds[i as usize % 20], size).unwrap();
            });
            let start = Instant::now();
            let count = 100_u32;
            (0..count).into_par_iter().for_each(|i| {
                studio.sample(kind, seeds[i as usize % 20], size).unwrap();
            });
            let each_ms = start.elapsed().as_secs_f64() * 1e3 / f64::from(count);
            println!("{:55} {each_ms:8.2} ms  {:8.0}/s", format!("{name}, new scene each"), 1e3 / each_ms);
            let scene = Scene::new(&studio, kind, seeds[0], size).unwrap();
            time(&format!("{name}, one scene, next frame"), 40, |i| {
                scene.photograph(i as f32 * 0.04).unwrap();
            });
        }
    }
}
