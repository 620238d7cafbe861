//! The real window, under Xvfb and Mesa's software Vulkan: it opens, shows the right pixels, takes clicks and keys,
//! follows its size, survives the loss of its graphics device, sleeps when there is nothing to do, and closes.
//!
//! Needs Xvfb, xdotool and ImageMagick's `import` (Debian: xvfb xdotool imagemagick). winit wants the main thread, so
//! this test has its own `main`, and starts itself once more for each window, in a role that an environment variable
//! names.

mod handmade;
#[path = "support/mod.rs"]
mod support;

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use image::RgbImage;

type Test = (&'static str, fn() -> Result<()>);

const ROLE: &str = "LIXELSCOPE_WINDOW_ROLE";
const SAVE_DIR: &str = "LIXELSCOPE_WINDOW_SAVE_DIR";
/// Loading Mesa and compiling its shaders takes seconds on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);

fn main() -> ExitCode {
    if let Ok(role) = std::env::var(ROLE) {
        return in_role(&role);
    }
    if !cfg!(target_os = "linux") {
        println!("the window is tested on Linux only");
        return ExitCode::SUCCESS;
    }

    let tests: [Test; 3] = [
        ("a_window_from_opening_to_closing", a_window_from_opening_to_closing),
        ("twice_the_pixels_on_a_dense_screen", twice_the_pixels_on_a_dense_screen),
        ("the_program_shows_a_picture_and_a_mesh", the_program_shows_a_picture_and_a_mesh),
    ];
    // As with the usual harness: names may be given, and cargo passes options.
    let wanted: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let mut failed = 0;
    for (name, test) in tests {
        if !wanted.is_empty() && !wanted.iter().any(|part| name.contains(part)) {
            continue;
        }
        let start = Instant::now();
        match test() {
            Ok(()) => println!("test {name} ... ok ({:.1} s)", start.elapsed().as_secs_f32()),
            Err(error) => {
                println!("test {name} ... FAILED: {error:#}");
                failed += 1;
            }
        }
    }
    ExitCode::from(u8::from(failed > 0))
}

/// What the test's child does: open a window on something made by hand.
fn in_role(role: &str) -> ExitCode {
    use handmade::{HandmadeFeed, status, three_people};
    use lixelscope::app::{WindowOptions, run_with_feed};
    use lixelscope::pipeline::Phase;
    env_logger::Builder::new().filter_level(log::LevelFilter::Warn).init();
    let size_pt = if role == "dense" { [640.0, 400.0] } else { [1280.0, 800.0] };
    let save_dir = std::env::var_os(SAVE_DIR).map_or_else(std::env::temp_dir, Into::into);
    let options = WindowOptions { size_pt, save_dir };
    let start = |waker| HandmadeFeed::new(waker, status(Phase::Running), three_people);
    match run_with_feed(options, start) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

// ------------------------------------------------------------------------------------------------ the tests

fn a_window_from_opening_to_closing() -> Result<()> {
    let display = Display::open()?;
    let saved = tempfile::tempdir()?;
    let mut program = Command::new(std::env::current_exe()?);
    let mut window = Window::open(&display, program.env(ROLE, "people").env(SAVE_DIR, saved.path()))?;

    // It opens: the frame is there in its own colours, beside it the same people in 3D.
    let picture = window.wait_for("the frame", |picture| count(picture, is_wall) > 50_000)?;
    let frame = bounds(&picture, is_wall).context("the frame has a place")?;
    ensure!(frame.x0 < 4 && frame.x1 > 500 && frame.x1 < 900, "the frame view is at the left: {frame:?}");
    let scale = (frame.x1 - frame.x0) as f32 / handmade::FRAME_SIZE[0] as f32;
    let torso = at_torso(&frame, scale);
    let rgb = picture.get_pixel(torso.0, torso.1).0;
    ensure!(is_orange(rgb), "the first person is drawn on the frame, in its colour: {rgb:?} at {torso:?}");
    let in_3d = |picture: &RgbImage| count_in(picture, is_orange, frame.x1 + 4, 960);
    ensure!(in_3d(&picture) > 150, "the first person is drawn in 3D: {} pixels", in_3d(&picture));
    ensure!(count_in(&picture, is_x_bar, 980, 1280) < 20, "no heatmap before a vertex is chosen");

    // A click on the mesh chooses a vertex, and its heatmaps come.
    window.click(torso)?;
    window.wait_for_line("command Landmarks([Vertex(")?;
    window.wait_for("the heatmaps", |picture| count_in(picture, is_x_bar, 980, 1280) > 200)?;

    // Keys: hold, and no meshes.
    window.focus()?;
    window.key("space")?;
    window.wait_for_line("command Pause(true)")?;
    window.key("m")?;
    window.wait_for("a frame without meshes", |picture| !is_orange(picture.get_pixel(torso.0, torso.1).0))?;
    window.key("m")?;
    window.wait_for("the meshes again", |picture| is_orange(picture.get_pixel(torso.0, torso.1).0))?;

    // The drawn frame goes to a file, at its own size.
    window.key("s")?;
    let picture = wait_for_file(saved.path())?;
    ensure!([picture.width(), picture.height()] == handmade::FRAME_SIZE);
    ensure!(count(&picture, is_wall) > 100_000 && count(&picture, is_orange) > 10_000, "the frame and the mesh");

    // Held, with nothing to do, it sleeps.
    display.xdotool(&["mousemove", "300", "60"])?;
    std::thread::sleep(Duration::from_secs(2));
    let before = window.cpu_time()?;
    std::thread::sleep(Duration::from_secs(2));
    let used = window.cpu_time()?.saturating_sub(before);
    ensure!(used < Duration::from_millis(100), "{used:?} of processor time in 2 s of doing nothing");

    // A lost graphics device: another one is opened, and shows the same picture and the same letters.
    let picture = window.picture()?;
    window.key("F5")?;
    window.wait_for_line("the graphics device was lost; opening another")?;
    window.wait_for("the same picture on another device", |again| differing(again, &picture) < 300)?;
    window.key("m")?;
    window.wait_for("that it lives", |picture| !is_orange(picture.get_pixel(torso.0, torso.1).0))?;
    window.key("m")?;

    // Smaller: all of it is inside. Unmapped and mapped: it comes back.
    display.xdotool(&["windowsize", &window.id, "900", "600"])?;
    let picture = window.wait_for("a smaller frame", |picture| {
        bounds(picture, is_wall).is_some_and(|small| small.x1 < frame.x1 - 100 && small.x1 > 300)
    })?;
    let small = bounds(&picture, is_wall).context("the frame has a place")?;
    ensure!(small.x1 < 900 && small.y1 < 600, "{small:?}");
    display.xdotool(&["windowunmap", "--sync", &window.id])?;
    window.wait_for("an empty screen", |picture| count(picture, is_wall) == 0)?;
    display.xdotool(&["windowmap", "--sync", &window.id])?;
    window.wait_for("the window again", |picture| count(picture, is_wall) > 10_000)?;

    window.focus()?;
    window.key("ctrl+q")?;
    window.closes_well()
}

fn twice_the_pixels_on_a_dense_screen() -> Result<()> {
    let display = Display::open()?;
    let mut window = Window::open(
        &display,
        Command::new(std::env::current_exe()?).env(ROLE, "dense").env("WINIT_X11_SCALE_FACTOR", "2"),
    )?;
    let picture = window.wait_for("the frame", |picture| count(picture, is_wall) > 20_000)?;
    let frame = bounds(&picture, is_wall).context("the frame has a place")?;
    let scale = (frame.x1 - frame.x0) as f32 / handmade::FRAME_SIZE[0] as f32;
    // 640 x 400 points are 1280 x 800 pixels, and a click is at the pixel that it is at.
    ensure!(frame.x1 > 400, "{frame:?}");
    let torso = at_torso(&frame, scale);
    ensure!(is_orange(picture.get_pixel(torso.0, torso.1).0));
    window.click(torso)?;
    window.wait_for_line("command Landmarks([Vertex(")?;
    window.focus()?;
    window.key("ctrl+q")?;
    window.closes_well()
}

/// The program itself, on weights made by a formula: what they say means nothing, but it is drawn.
fn the_program_shows_a_picture_and_a_mesh() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let models = folder.path().join("models");
    std::fs::create_dir(&models)?;
    support::models::write_body(&models)?;
    let picture_path = folder.path().join("wall.png");
    RgbImage::from_pixel(640, 480, image::Rgb(handmade::WALL)).save(&picture_path)?;

    let display = Display::open()?;
    let mut program = Command::new(env!("CARGO_BIN_EXE_lixelscope"));
    program.args(["--backend", "cpu", "--box", "220,80,200,320", "--models"]).arg(&models);
    program.arg("--source").arg(&picture_path);
    let mut window = Window::open(&display, &mut program)?;
    let mesh_left = |picture: &RgbImage| count_in(picture, is_orange, 0, 640);
    let picture = window
        .wait_for("a mesh on the picture", |picture| count(picture, is_wall) > 50_000 && mesh_left(picture) > 20)?;
    // A click on it brings the networks' own heatmaps.
    let inside = |x: u32, y: u32| (0..9).all(|i| is_orange(picture.get_pixel(x + i % 3 - 1, y + i / 3 - 1).0));
    let place = (1..639).flat_map(|x| (60..740).map(move |y| (x, y))).find(|&(x, y)| inside(x, y));
    window.click(place.context("the mesh is larger than its edges")?)?;
    window.wait_for("the heatmaps", |picture| count_in(picture, is_x_bar, 980, 1280) > 50)?;
    window.focus()?;
    window.key("m")?;
    window.wait_for("the picture without the mesh", |bare| mesh_left(bare) * 4 < mesh_left(&picture))?;
    window.key("ctrl+q")?;
    window.closes_well()
}

// ------------------------------------------------------------------------------------------------ what is seen

type Rgb = [u8; 3];

fn near(a: Rgb, b: Rgb, by: u8) -> bool {
    a.iter().zip(b).all(|(a, b)| a.abs_diff(b) <= by)
}

/// The upper part of every frame made by hand. Dithering may move a value by one.
fn is_wall(rgb: Rgb) -> bool {
    near(rgb, handmade::WALL, 1)
}

/// The first person has id 1: orange, shaded.
fn is_orange([r, g, b]: Rgb) -> bool {
    r > 110 && b < r / 3 && g > r / 2 && g < r - r / 8
}

/// A bar of the x heatmap.
fn is_x_bar(rgb: Rgb) -> bool {
    near(rgb, [232, 108, 120], 12)
}

fn count(picture: &RgbImage, is: fn(Rgb) -> bool) -> usize {
    count_in(picture, is, 0, picture.width())
}

fn count_in(picture: &RgbImage, is: fn(Rgb) -> bool, x0: u32, x1: u32) -> usize {
    picture.enumerate_pixels().filter(|(x, _, pixel)| (x0..x1).contains(x) && is(pixel.0)).count()
}

fn differing(a: &RgbImage, b: &RgbImage) -> usize {
    a.pixels().zip(b.pixels()).filter(|(a, b)| !near(a.0, b.0, 3)).count()
}

/// First and last column and row, both included.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    x0: u32,
    y0: u32,
    x1: u32,
    y1: u32,
}

fn bounds(picture: &RgbImage, is: fn(Rgb) -> bool) -> Option<Bounds> {
    picture.enumerate_pixels().filter(|(.., pixel)| is(pixel.0)).fold(None, |all: Option<Bounds>, (x, y, _)| {
        let all = all.unwrap_or(Bounds { x0: x, y0: y, x1: x, y1: y });
        Some(Bounds { x0: all.x0.min(x), y0: all.y0.min(y), x1: all.x1.max(x), y1: all.y1.max(y) })
    })
}

/// The screen pixel of the first person's belly.
fn at_torso(frame: &Bounds, scale: f32) -> (u32, u32) {
    let result = handmade::three_people(&[]);
    let px = result.intrinsics.frame_from_camera(result.people[0].root_camera_m + glam::Vec3::new(0.0, -0.2, 0.0));
    (frame.x0 + (px.x * scale) as u32, frame.y0 + (px.y * scale) as u32)
}

/// The only picture of a folder, as soon as it is whole.
fn wait_for_file(folder: &Path) -> Result<RgbImage> {
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        for entry in std::fs::read_dir(folder)? {
            if let Ok(picture) = image::open(entry?.path()) {
                return Ok(picture.to_rgb8());
            }
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    bail!("no picture was saved to {}", folder.display())
}

// ------------------------------------------------------------------------------------------------ display and window

/// An X server whose screen is memory, 1280 x 800.
struct Display {
    server: Child,
    name: String,
}

impl Display {
    fn open() -> Result<Self> {
        let mut server = Command::new("Xvfb")
            // Without -noreset it starts anew whenever its last client has gone, and refuses the next one meanwhile.
            .args(["-displayfd", "1", "-screen", "0", "1280x800x24", "-nolisten", "tcp", "-noreset"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("starting Xvfb (Debian: apt install xvfb xdotool imagemagick)")?;
        let mut number = String::new();
        BufReader::new(server.stdout.take().context("a pipe")?).read_line(&mut number)?;
        ensure!(!number.trim().is_empty(), "Xvfb found no free display");
        Ok(Self { server, name: format!(":{}", number.trim()) })
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        self.dress(&mut command);
        command
    }

    fn dress(&self, command: &mut Command) {
        command.env("DISPLAY", &self.name).env_remove("WAYLAND_DISPLAY").env_remove("WAYLAND_SOCKET");
        if std::env::var_os("XDG_RUNTIME_DIR").is_none() {
            command.env("XDG_RUNTIME_DIR", std::env::temp_dir());
        }
    }

    fn xdotool(&self, args: &[&str]) -> Result<String> {
        let output = self.command("xdotool").args(args).output().context("running xdotool")?;
        ensure!(output.status.success(), "xdotool {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    }
}

impl Drop for Display {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// A running program with a window.
struct Window<'a> {
    display: &'a Display,
    program: Child,
    id: String,
    lines: Receiver<String>,
    said: Vec<String>,
}

impl<'a> Window<'a> {
    fn open(display: &'a Display, program: &mut Command) -> Result<Self> {
        display.dress(program);
        let mut program =
            program.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context("starting the program")?;
        let (sender, lines) = channel();
        let pipes: [Option<Box<dyn Read + Send>>; 2] = [
            program.stdout.take().map(|pipe| Box::new(pipe) as _),
            program.stderr.take().map(|pipe| Box::new(pipe) as _),
        ];
        for pipe in pipes.into_iter().flatten() {
            let sender = sender.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                    let _ = sender.send(line);
                }
            });
        }
        let mut window = Self { display, program, id: String::new(), lines, said: Vec::new() };
        let start = Instant::now();
        while window.id.is_empty() {
            if let Ok(found) = display.xdotool(&["search", "--onlyvisible", "--name", "Lixelscope"]) {
                found.lines().next().unwrap_or_default().clone_into(&mut window.id);
            }
            window.still_runs("a window")?;
            ensure!(start.elapsed() < PATIENCE, "no window came; {}", window.story());
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(window)
    }

    fn still_runs(&mut self, waiting_for: &str) -> Result<()> {
        if let Some(status) = self.program.try_wait()? {
            std::thread::sleep(Duration::from_millis(100));
            bail!("the program ended ({status}) while {waiting_for} was waited for; {}", self.story());
        }
        Ok(())
    }

    /// What the program said so far.
    fn story(&mut self) -> String {
        self.said.extend(self.lines.try_iter());
        format!("it said: {:?}", self.said)
    }

    /// The whole screen; the window lies in its corner.
    fn picture(&self) -> Result<RgbImage> {
        let output = self.display.command("import").args(["-window", "root", "png:-"]).output();
        let output = output.context("taking a picture with ImageMagick's import")?;
        Ok(image::load_from_memory(&output.stdout).context("reading import's picture")?.to_rgb8())
    }

    fn wait_for(&mut self, what: &str, shows: impl Fn(&RgbImage) -> bool) -> Result<RgbImage> {
        let start = Instant::now();
        loop {
            let picture = self.picture()?;
            if shows(&picture) {
                return Ok(picture);
            }
            self.still_runs(what)?;
            if start.elapsed() > PATIENCE {
                let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("window.png");
                picture.save(&path)?;
                bail!("{what} did not come; {} shows what did; {}", path.display(), self.story());
            }
            std::thread::sleep(Duration::from_millis(150));
        }
    }

    fn wait_for_line(&mut self, part: &str) -> Result<()> {
        let start = Instant::now();
        while let Some(left) = PATIENCE.checked_sub(start.elapsed()) {
            match self.lines.recv_timeout(left) {
                Ok(line) => {
                    let found = line.contains(part);
                    self.said.push(line);
                    if found {
                        return Ok(());
                    }
                }
                Err(_) => break,
            }
        }
        bail!("{part:?} was not said; {}", self.story())
    }

    fn click(&self, (x, y): (u32, u32)) -> Result<()> {
        self.display.xdotool(&["mousemove", &x.to_string(), &y.to_string()])?;
        self.display.xdotool(&["click", "1"])?;
        Ok(())
    }

    /// There is no window manager that would do it.
    fn focus(&self) -> Result<()> {
        self.display.xdotool(&["windowfocus", "--sync", &self.id])?;
        Ok(())
    }

    fn key(&self, key: &str) -> Result<()> {
        self.display.xdotool(&["key", key])?;
        Ok(())
    }

    /// Processor time that the program used so far.
    fn cpu_time(&self) -> Result<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.program.id()))?;
        // The second field is a name in brackets; user and system time are the 14th and 15th, in hundredths.
        let after_name = stat.rsplit(')').next().context("a name")?;
        let fields: Vec<&str> = after_name.split_whitespace().collect();
        let ticks = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
        Ok(Duration::from_millis(ticks * 10))
    }

    fn closes_well(mut self) -> Result<()> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.program.try_wait()? {
                std::thread::sleep(Duration::from_millis(100));
                let story = self.story();
                ensure!(status.success(), "the window closed with {status}; {story}");
                ensure!(!story.contains("panicked") && !story.contains("ERROR"), "errors on the way; {story}");
                return Ok(());
            }
            ensure!(start.elapsed() < PATIENCE, "the window did not close; {}", self.story());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Window<'_> {
    fn drop(&mut self) {
        let _ = self.program.kill();
        let _ = self.program.wait();
    }
}
