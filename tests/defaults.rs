//! The program with nothing but itself: an empty models folder, the weights that are built in. How good they are on
//! frames that nobody trained on, and that strange pictures do them no harm.

#[path = "support/mod.rs"]
mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use image::{Rgb, RgbImage};
use lixelscope::capture::{FrameSource, Next, SourceKind};
use lixelscope::eval::live;
use lixelscope::models::{Origin, Role};
use lixelscope::pipeline::stages::Pass;
use lixelscope::pipeline::{Stages, infer};
use lixelscope::result::{EstimatorKind, RootSource};
use lixelscope::settings::Settings;
use lixelscope::synth::{Kind, SyntheticSource};
use serde_json::Value;

/// What the weights in `assets/weights` must reach on the first frames of films that no training has seen. The figures of
/// `lixelscope eval` on a thousand pictures are in `assets/weights/README.md`; these bounds are wide enough for the
/// little that 50 frames say, and tell weights that have learnt from weights that have not.
struct Bounds {
    seeds: &'static [u64],
    frames: usize,
    /// Found, of the true ones of whom at least half is seen.
    least_found: f64,
    /// Found where nobody is, of all who were found.
    most_imagined: f64,
    /// MPJPE, PA-MPJPE and the error of the root joint.
    most_mm: [f64; 3],
}

const OF_PEOPLE: Bounds =
    Bounds { seeds: &[7], frames: 50, least_found: 0.9, most_imagined: 0.1, most_mm: [80.0, 60.0, 300.0] };
/// A film shows one or two hands, so that one of them says little.
const OF_HANDS: Bounds = Bounds {
    seeds: &[1, 2, 3, 4, 5, 6, 7, 8],
    frames: 6,
    least_found: 0.7,
    most_imagined: 0.25,
    most_mm: [75.0, 30.0, 150.0],
};
/// All weights in the repository.
const MOST_BYTES: u64 = 40_000_000;

/// The stages as the program loads them, with this models folder.
fn stages(models: &Path, estimator: EstimatorKind) -> Result<Stages> {
    let settings = Settings { estimator, ..Settings::with_models(models.to_owned()) };
    let mut stages = Stages::new(settings.clone());
    let mut missing = Vec::new();
    infer::load(&settings, infer::Wanted::All, &mut |progress| {
        let infer::Progress::Loaded(part) = progress else { return };
        match part {
            infer::Part::Detector(_, _, detector) => stages.detector = Some(detector),
            infer::Part::Root(_, root) => stages.root = Some(root),
            infer::Part::Estimator { estimator, body, .. } => {
                stages.estimator = Some(estimator);
                stages.body = body;
            }
            infer::Part::Missing(_, why) => missing.push(why),
            infer::Part::Backend(_) => {}
        }
    });
    ensure!(missing.is_empty(), "{}", missing.join("\n"));
    stages.begin(SourceKind::Motion);
    Ok(stages)
}

#[test]
fn people_of_a_film_are_found_and_measured() -> Result<()> {
    films(Kind::Scenes, EstimatorKind::Body, &OF_PEOPLE)
}

#[test]
fn hands_of_a_film_are_found_and_measured() -> Result<()> {
    films(Kind::Hands, EstimatorKind::Hand, &OF_HANDS)
}

fn films(kind: Kind, estimator: EstimatorKind, bounds: &Bounds) -> Result<()> {
    let nothing = tempfile::tempdir()?;
    let (mut wanted, mut found, mut imagined, mut sums) = (0, 0, 0, [0.0; 3]);
    for &seed in bounds.seeds {
        let mut stages = stages(nothing.path(), estimator)?;
        let weights = stages.weights();
        assert_eq!(weights.len(), 3, "{weights:?}");
        assert!(weights.iter().all(|weights| weights.origin == Origin::BuiltIn), "{weights:?}");
        let mut source = SyntheticSource::open(kind, seed)?;
        for _ in 0..bounds.frames {
            let Next::Frame(frame) = source.next()? else { bail!("the film has no end") };
            let truth = frame.truth.clone().context("a frame that was made")?;
            let result = stages.process(Arc::new(frame), Pass::Next)?;
            wanted += truth.people.iter().filter(|person| person.visible_share >= 0.5).count();
            for (person, errors) in result.people.iter().zip(live::errors(&result)) {
                assert_eq!(person.root_source, RootSource::RootNet);
                let Some(errors) = errors else {
                    imagined += 1;
                    continue;
                };
                found += 1;
                for (sum, error) in sums.iter_mut().zip([errors.mpjpe_mm, errors.pa_mpjpe_mm, errors.root_mm]) {
                    *sum += error;
                }
            }
        }
    }
    let means = sums.map(|sum| sum / f64::from(found.max(1)));
    let shares = [f64::from(found) / wanted as f64, f64::from(imagined) / f64::from((found + imagined).max(1))];
    println!("{kind:?}: found and imagined: {shares:.3?}; MPJPE, PA-MPJPE and root: {means:.1?} mm");
    assert!(shares[0] >= bounds.least_found, "found: {shares:?}");
    assert!(shares[1] <= bounds.most_imagined, "imagined: {shares:?}");
    assert!(means.iter().zip(bounds.most_mm).all(|(mean, most)| *mean <= most), "MPJPE, PA-MPJPE, root: {means:?} mm");
    Ok(())
}

#[test]
fn the_weights_are_small_and_say_how_they_are_to_be_read() -> Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/weights");
    let (mut bytes, mut roles) = (0, Vec::new());
    for entry in fs::read_dir(&folder)? {
        let path = entry?.path();
        let Some(role) = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".safetensors")) else {
            continue;
        };
        bytes += fs::metadata(&path)?.len();
        let file = lixelscope::nets::weights::WeightFile::open(&path)?;
        ensure!(file.config().is_some(), "{role} has no configuration in its metadata");
        ensure!(
            file.names().all(|name| !name.starts_with("optimizer.")),
            "{role} has the state of its training with it"
        );
        ensure!(Role::ALL.iter().any(|known| known.stem() == role), "nobody asks for {role}");
        roles.push(role.to_owned());
    }
    for role in ["person_detector", "rootnet", "i2l_body", "hand_detector", "rootnet_hand", "i2l_hand"] {
        ensure!(roles.iter().any(|there| there == role), "{role} is missing");
    }
    ensure!(bytes < MOST_BYTES, "{bytes} bytes of weights");
    Ok(())
}

/// The program without any file of its user.
fn alone(folder: &Path) -> Result<Command> {
    let models = folder.join("no models");
    fs::create_dir_all(&models)?;
    let mut command = Command::new(env!("CARGO_BIN_EXE_lixelscope"));
    command.current_dir(folder).env("LIXELSCOPE_MODELS", models);
    Ok(command)
}

fn run(command: &mut Command, code: i32) -> Result<String> {
    let output = command.output()?;
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.code() == Some(code), "{:?}: {stderr}", output.status);
    ensure!(!stderr.contains("panicked"), "{stderr}");
    Ok(stderr + &String::from_utf8_lossy(&output.stdout))
}

fn lines(out: &Path) -> Result<Vec<Value>> {
    fs::read_to_string(out.join("frames.jsonl"))?.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

fn weights_of(out: &Path) -> Result<Vec<[String; 2]>> {
    let run: Value = serde_json::from_str(&fs::read_to_string(out.join("run.json"))?)?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let weights = run["weights"].as_array().context("a list of weights")?;
    Ok(weights.iter().map(|weights| [text(&weights["role"]), text(&weights["origin"])]).collect())
}

#[test]
fn a_run_on_synthetic_people_needs_no_file() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let args = ["run", "--source", "synthetic:7", "--frames", "5", "--out", "out", "--obj"];
    let said = run(alone(folder.path())?.args(args), 0)?;
    ensure!(said.contains("built in") && !said.contains("missing"), "{said}");
    let out = folder.path().join("out");
    let built_in = ["person_detector", "rootnet", "i2l_body"].map(|role| [role.to_owned(), "built in".to_owned()]);
    assert_eq!(weights_of(&out)?, built_in);
    let lines = lines(&out)?;
    assert_eq!(lines.len(), 5);
    let people: Vec<&Value> = lines.iter().filter_map(|line| line["people"].as_array()).flatten().collect();
    ensure!(!people.is_empty(), "nobody was found");
    for person in people {
        assert_eq!(person["root_source"], "rootnet");
        assert_eq!(person["joint_names"].as_array().map(Vec::len), Some(29), "SMPL's 24, and the face");
        let depth_m = person["root_camera_m"][2].as_f64().context("a depth")?;
        ensure!((0.5..15.0).contains(&depth_m), "a person at {depth_m} m");
    }
    let said = run(alone(folder.path())?.arg("doctor"), 0)?;
    for says in
        ["built in   I2L-MeshNet, body", "built in   RootNet", "ready      --estimator body", "synthetic people"]
    {
        ensure!(said.contains(says), "doctor does not say {says:?}:\n{said}");
    }
    Ok(())
}

#[test]
fn a_users_file_takes_the_place_of_what_is_built_in() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut command = alone(folder.path())?;
    let models = folder.path().join("no models");
    // A body of the user's, and the distance from the program.
    support::models::write_bodies(&models)?;
    support::models::write_i2l(&models, "i2l_body_mine", support::models::BODY)?;
    let args = ["run", "--source", "synthetic:7", "--frames", "1", "--out", "out"];
    run(command.args(args), 0)?;
    let out = folder.path().join("out");
    let [detector, root, body] = &weights_of(&out)?[..] else { bail!("three networks") };
    ensure!(detector[1] == "built in" && root[1] == "built in", "{detector:?} {root:?}");
    ensure!(body[0] == "i2l_body" && body[1].ends_with("i2l_body_mine.safetensors"), "{body:?}");

    // A broken file of the user's is an error, not a reason to take another in silence.
    let broken = folder.path().join("no models/i2l_body_mine.safetensors");
    fs::write(&broken, "<!DOCTYPE html>")?;
    let said = run(alone(folder.path())?.args(args), 2)?;
    ensure!(said.contains("i2l_body_mine.safetensors") && said.contains("built-in weights are used"), "{said}");
    Ok(())
}

#[test]
fn stand_in_meshes_of_the_user_need_no_body_model() -> Result<()> {
    // The built-in body as a file of the user's: the faces are the stand-in's, whoever brings the weights.
    let folder = tempfile::tempdir()?;
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/weights/i2l_body.safetensors");
    fs::copy(from, folder.path().join("i2l_body_trained_here.safetensors"))?;
    let stages = stages(folder.path(), EstimatorKind::Body)?;
    let weights = stages.weights();
    ensure!(weights.iter().filter(|weights| weights.origin == Origin::BuiltIn).count() == 2, "{weights:?}");
    let estimator = stages.estimator.as_ref().context("an estimator")?;
    assert_eq!(stages.settings().estimator, EstimatorKind::Body);
    let topology = estimator.topology().context("a mesh")?;
    assert_eq!(topology.vertex_count, lixelscope::body::standin::body()?.vertices_m.len());
    Ok(())
}

/// A figure as on a traffic sign: no person, but meant as one.
fn sign_figure(size: [u32; 2]) -> RgbImage {
    let [width, height] = size.map(|side| side as f32);
    // Capsules in units of the height, from the middle of the picture: two ends and a radius.
    let limbs: [([f32; 2], [f32; 2], f32); 10] = [
        ([0.0, -0.34], [0.0, -0.34], 0.055),
        ([0.0, -0.22], [0.0, 0.02], 0.065),
        ([-0.05, -0.23], [-0.13, -0.12], 0.024),
        ([-0.13, -0.12], [-0.19, 0.0], 0.022),
        ([0.05, -0.23], [0.13, -0.14], 0.024),
        ([0.13, -0.14], [0.21, -0.06], 0.022),
        ([-0.03, 0.03], [-0.07, 0.2], 0.034),
        ([-0.07, 0.2], [-0.14, 0.38], 0.03),
        ([0.03, 0.03], [0.09, 0.19], 0.034),
        ([0.09, 0.19], [0.1, 0.38], 0.03),
    ];
    RgbImage::from_fn(size[0], size[1], |x, y| {
        let p = [(x as f32 - width / 2.0) / height, (y as f32 - height / 2.0) / height];
        let inside = limbs.iter().any(|&(a, b, radius)| {
            let (ab, ap) = ([b[0] - a[0], b[1] - a[1]], [p[0] - a[0], p[1] - a[1]]);
            let along = (ap[0] * ab[0] + ap[1] * ab[1]) / (ab[0] * ab[0] + ab[1] * ab[1]).max(1e-9);
            let along = along.clamp(0.0, 1.0);
            (ap[0] - along * ab[0]).hypot(ap[1] - along * ab[1]) < radius
        });
        if inside { Rgb([24, 52, 110]) } else { Rgb([236, 238, 240]) }
    })
}

#[test]
fn strange_pictures_do_no_harm() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let pictures = folder.path().join("pictures");
    fs::create_dir(&pictures)?;
    let noise = |x: u32, y: u32| x.wrapping_mul(2_654_435_761).wrapping_add(y.wrapping_mul(40_503) ^ (x * y)) >> 13;
    let made: [(&str, RgbImage); 7] = [
        ("black", RgbImage::new(640, 480)),
        ("white", RgbImage::from_pixel(333, 777, Rgb([255; 3]))),
        ("noise", RgbImage::from_fn(500, 400, |x, y| Rgb([0, 8, 16].map(|shift| (noise(x, y) >> shift) as u8)))),
        ("dot", RgbImage::from_pixel(1, 1, Rgb([200, 100, 0]))),
        ("strip", RgbImage::from_fn(3000, 6, |x, _| Rgb([(x % 256) as u8, 90, 90]))),
        ("large", RgbImage::from_fn(3000, 2000, |x, y| Rgb([(x / 40 * 13 + y / 40 * 31) as u8; 3]))),
        ("sign", sign_figure([640, 480])),
    ];
    for (name, picture) in &made {
        picture.save(pictures.join(format!("{name}.png")))?;
    }
    let out = |name: &str| -> PathBuf { folder.path().join(name) };
    // As found, and with everyone taken for a person.
    for (name, extra) in [("found", &["--min-score", "0.05"][..]), ("whole", &["--whole-frame"])] {
        let mut command = alone(folder.path())?;
        command.args(["run", "--source", "pictures", "--out", name, "--overlay"]).args(extra);
        run(&mut command, 0)?;
        let lines = lines(&out(name))?;
        assert_eq!(lines.len(), made.len());
        for line in lines {
            // A number that is not finite would be null.
            let people = line["people"].to_string();
            ensure!(!people.contains("null"), "{}: {people}", line["name"]);
        }
    }
    let overlay = out("found").join(format!("overlay_{:06}.png", 4));
    ensure!(overlay.is_file(), "{} is there", overlay.display());
    Ok(())
}

/// `cargo test --release --test defaults -- --ignored` draws the README's picture of what happens outside of their
/// world: the sign, and what is made of it.
#[test]
#[ignore = "writes a picture of the README"]
fn the_picture_of_the_readme() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let sign = sign_figure([480, 480]);
    sign.save(folder.path().join("sign.png"))?;
    let args = ["run", "--source", "sign.png", "--min-score", "0.05", "--max-people", "1", "--out", "out", "--overlay"];
    run(alone(folder.path())?.args(args), 0)?;
    let seen = image::open(folder.path().join("out/overlay_000000.png"))?.to_rgb8();
    let mut both = RgbImage::new(960, 480);
    image::imageops::replace(&mut both, &sign, 0, 0);
    image::imageops::replace(&mut both, &seen, 480, 0);
    both.save(Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/outside.png"))?;
    Ok(())
}
