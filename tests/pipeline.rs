//! The pipeline's threads and order, with networks and sources that the test controls: nothing here depends on
//! weights or on the machine's speed.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use glam::{Vec2, Vec3};
use image::{Rgb, RgbImage};
use lixelscope::body::Family;
use lixelscope::capture::{Frame, FrameSource, Next, SourceKind};
use lixelscope::crop::Crop;
use lixelscope::detect::{Detector, PersonBox};
use lixelscope::pipeline::infer::{Part, Progress, Role, Wanted};
use lixelscope::pipeline::live::{LoadNetworks, OpenSource};
use lixelscope::pipeline::stages::{LixelEstimate, LixelEstimator, Pass, RootEstimator, RootInCrop, Stages};
use lixelscope::pipeline::{Command, Live, Phase};
use lixelscope::result::{EstimatorKind, FrameResult, Heatmaps, Landmark, RootSource, Skeleton};
use lixelscope::settings::{BoxSource, DetectorKind, Settings, SourceSpec};
use lixelscope::space::{Intrinsics, RectPx};

const SIZE: [u32; 2] = [64, 48];

fn frame(index: u64) -> Frame {
    let rgb = RgbImage::from_pixel(SIZE[0], SIZE[1], Rgb([index as u8; 3]));
    Frame { rgb, index, captured_at: Duration::from_millis(index * 10), name: None, truth: None }
}

/// A source that gives what it is told to.
struct Script {
    live: bool,
    kind: SourceKind,
    interval: Option<Duration>,
    next: VecDeque<Result<Next>>,
    asked: Arc<AtomicU64>,
}

impl FrameSource for Script {
    fn describe(&self) -> String {
        "script".into()
    }
    fn is_live(&self) -> bool {
        self.live
    }
    fn kind(&self) -> SourceKind {
        self.kind
    }
    fn frame_interval(&self) -> Option<Duration> {
        self.interval
    }
    fn next(&mut self) -> Result<Next> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        self.next.pop_front().unwrap_or_else(|| Ok(Next::Ended("the script is over".into())))
    }
}

/// Finds one person in the middle of every frame; counts how often it was asked.
#[derive(Clone, Default)]
struct FakeDetector(Arc<AtomicU64>);

impl Detector for FakeDetector {
    fn detect(&mut self, _: &Frame) -> Result<Vec<PersonBox>> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Ok(vec![PersonBox { rect: RectPx::from([16.0, 8.0, 24.0, 30.0]), score: 0.9 }])
    }
}

struct FakeRoot;

impl RootEstimator for FakeRoot {
    fn input_size(&self) -> u32 {
        32
    }
    fn estimate(&mut self, patches: &[RgbImage], crops: &[Crop], _: &Intrinsics) -> Result<Vec<RootInCrop>> {
        assert_eq!(patches.len(), crops.len());
        Ok(crops.iter().map(|_| RootInCrop { crop_px: Vec2::splat(16.0), depth_m: 3.0 }).collect())
    }
}

/// Puts three joints around the middle; slow, failing or panicking on demand.
struct FakeEstimator {
    delay: Duration,
    fail_on_grey: Option<u8>,
    panic_on_grey: Option<u8>,
    joints_lixel: [Vec3; 3],
}

impl Default for FakeEstimator {
    fn default() -> Self {
        let joints_lixel = [Vec3::splat(32.0), Vec3::new(20.0, 40.0, 32.0), Vec3::new(40.0, 20.0, 48.0)];
        Self { delay: Duration::ZERO, fail_on_grey: None, panic_on_grey: None, joints_lixel }
    }
}

impl LixelEstimator for FakeEstimator {
    fn input_size(&self) -> u32 {
        32
    }
    fn bins(&self) -> usize {
        64
    }
    fn skeleton(&self) -> Arc<Skeleton> {
        let names = ["a", "b", "c"].map(String::from).to_vec();
        Arc::new(Skeleton { names, parents: vec![None, Some(0), Some(1)] })
    }
    fn topology(&self) -> Option<Arc<lixelscope::body::Topology>> {
        None
    }
    fn estimate(&mut self, patches: &[RgbImage], landmarks: &[Landmark]) -> Result<Vec<LixelEstimate>> {
        std::thread::sleep(self.delay);
        let grey = patches[0].get_pixel(16, 16).0[0];
        assert!(self.panic_on_grey != Some(grey), "told to panic");
        if self.fail_on_grey == Some(grey) {
            bail!("told to fail");
        }
        let heatmaps = landmarks
            .iter()
            .map(|&landmark| Heatmaps { landmark, xyz: [vec![1.0], vec![1.0], vec![1.0]], mode: [0; 3] })
            .collect();
        let estimate = LixelEstimate {
            joints_lixel: self.joints_lixel.to_vec(),
            joint_spread_lixel: vec![Vec3::ONE; 3],
            heatmaps,
            ..LixelEstimate::default()
        };
        Ok(vec![estimate; patches.len()])
    }
}

fn settings() -> Settings {
    Settings::with_models(std::env::temp_dir())
}

fn stages(detector: &FakeDetector) -> Stages {
    let mut stages = Stages::new(settings());
    stages.detector = Some(Box::new(detector.clone()));
    stages.root = Some(Box::new(FakeRoot));
    stages.estimator = Some(Box::new(FakeEstimator::default()));
    stages
}

fn spec() -> SourceSpec {
    SourceSpec::Path("script".into())
}

/// Sources by the order in which they are opened.
fn opens(scripts: Vec<Script>) -> Arc<OpenSource> {
    let scripts = Mutex::new(VecDeque::from(scripts));
    Arc::new(move |_: &SourceSpec| match scripts.lock().unwrap().pop_front() {
        Some(script) => Ok(Box::new(script) as Box<dyn FrameSource>),
        None => bail!("nothing to open"),
    })
}

fn script(live: bool, frames: impl IntoIterator<Item = u64>) -> (Script, Arc<AtomicU64>) {
    let asked = Arc::new(AtomicU64::new(0));
    let next = frames.into_iter().map(|i| Ok(Next::Frame(frame(i)))).collect();
    (Script { live, kind: SourceKind::Motion, interval: None, next, asked: Arc::clone(&asked) }, asked)
}

fn loads(make: impl Fn() -> FakeEstimator + Send + Sync + 'static) -> Arc<LoadNetworks> {
    Arc::new(move |settings: &Settings, wanted: Wanted, tell: &mut (dyn FnMut(Progress) + Send)| {
        let mut loaded = |part| tell(Progress::Loaded(part));
        if wanted == Wanted::All {
            loaded(Part::Backend("fake".into()));
            loaded(Part::Detector(DetectorKind::Auto, settings.estimator.family(), Box::new(FakeDetector::default())));
        }
        loaded(Part::Root(settings.estimator, Box::new(FakeRoot)));
        loaded(Part::Estimator { kind: settings.estimator, estimator: Box::new(make()), body: None });
    })
}

/// Waits for a condition, at most 20 s (a busy machine), and says what was awaited if it does not come.
fn wait_for<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(started.elapsed() < Duration::from_secs(20), "{what} did not come");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn newest(live: &Live, index: u64) -> Option<Arc<FrameResult>> {
    live.newest().filter(|result| result.frame.index == index)
}

#[test]
fn a_frame_goes_in_and_a_person_comes_out_in_metres() {
    let detector = FakeDetector::default();
    let result = stages(&detector).process(Arc::new(frame(0)), Pass::Next).unwrap();
    let [person] = result.people.as_slice() else { panic!("one person, not {}", result.people.len()) };
    assert_eq!(person.root_source, RootSource::RootNet);
    assert!((person.root_camera_m.z - 3.0).abs() < 1e-6);
    // Lixel 32 of 64 is the middle of the crop and the depth of the root.
    let middle = person.joints_camera_m[0];
    assert!((middle.z - 3.0).abs() < 1e-5);
    let px = result.intrinsics.frame_from_camera(middle);
    assert!((px - person.rect.centre()).length() < 1.5, "{px} is not at the middle of {:?}", person.rect);
    // Lixel 48 is half a metre behind it (the box is 2 m deep).
    assert!((person.joints_camera_m[2].z - 3.5).abs() < 1e-5);
}

#[test]
fn the_detector_runs_on_every_nth_frame_and_people_keep_their_id() {
    let detector = FakeDetector::default();
    let mut stages = stages(&detector);
    let ids: Vec<_> = (0..9)
        .map(|i| stages.process(Arc::new(frame(i)), Pass::Next).unwrap().people.first().map(|person| person.id))
        .collect();
    assert_eq!(detector.0.load(Ordering::SeqCst), 3, "frames 0, 4 and 8");
    assert!(ids[0].is_some() && ids.iter().all(|id| *id == ids[0]), "{ids:?}");
}

#[test]
fn nobody_is_followed_into_another_picture() {
    let detector = FakeDetector::default();
    let mut stages = stages(&detector);
    let ids = |stages: &mut Stages, frame: Frame| {
        let result = stages.process(Arc::new(frame), Pass::Next).unwrap();
        result.people.iter().map(|person| person.id).collect::<Vec<_>>()
    };
    stages.begin(SourceKind::Pictures);
    let seen: Vec<_> = (0..3).map(|i| ids(&mut stages, frame(i))).collect();
    assert_eq!(detector.0.load(Ordering::SeqCst), 3, "every picture is searched");
    assert!(seen[0] != seen[1] && seen[1] != seen[2], "{seen:?}");
    // In a film of another size, too, the next frame is searched.
    stages.begin(SourceKind::Motion);
    let before = ids(&mut stages, frame(0));
    let wide = Frame { rgb: RgbImage::new(90, 48), ..frame(1) };
    assert_ne!(ids(&mut stages, wide), before);
    assert_eq!(detector.0.load(Ordering::SeqCst), 5);
}

#[test]
fn in_a_picture_that_can_wait_everybody_is_looked_at_again_in_the_box_of_the_body() {
    let detector = FakeDetector::default();
    let found = |kind: SourceKind, joints_lixel: [Vec3; 3]| {
        let mut stages = stages(&detector);
        stages.estimator = Some(Box::new(FakeEstimator { joints_lixel, ..FakeEstimator::default() }));
        stages.begin(kind);
        let result = stages.process(Arc::new(frame(0)), Pass::Next).unwrap();
        let [person] = result.people.as_slice() else { panic!("one person, not {}", result.people.len()) };
        person.rect
    };
    // From a quarter to three quarters of the patch, whose side is 1.25 times the box's height of 30.
    let body = [Vec3::splat(32.0), Vec3::new(16.0, 16.0, 32.0), Vec3::new(48.0, 48.0, 32.0)];
    let detected = found(SourceKind::Motion, body);
    assert_eq!(detected, RectPx::from([16.0, 8.0, 24.0, 30.0]));
    for kind in [SourceKind::Pictures, SourceKind::Numbered] {
        let rect = found(kind, body);
        assert!((rect.centre() - detected.centre()).length() < 2.0, "{rect:?}");
        assert!((rect.w - 18.75).abs() < 1.0 && (rect.h - 18.75).abs() < 1.0, "{rect:?}");
    }
    // A body that is hardly in the box leaves it alone.
    let speck = [Vec3::splat(32.0), Vec3::splat(31.0), Vec3::splat(33.0)];
    assert_eq!(found(SourceKind::Pictures, speck), detected);
}

#[test]
fn computing_a_frame_again_moves_nobody() {
    let detector = FakeDetector::default();
    let mut stages = stages(&detector);
    let first = stages.process(Arc::new(frame(0)), Pass::Next).unwrap();
    stages.landmarks = vec![Landmark::Joint(1)];
    let again = stages.process(Arc::new(frame(0)), Pass::Again).unwrap();
    assert_eq!(detector.0.load(Ordering::SeqCst), 1);
    assert_eq!((again.people[0].id, again.people[0].rect), (first.people[0].id, first.people[0].rect));
    assert_eq!(again.people[0].heatmaps[0].landmark, Landmark::Joint(1));
}

#[test]
fn boxes_can_come_from_the_user_or_be_the_whole_frame() {
    let detector = FakeDetector::default();
    let mut stages = stages(&detector);
    let rects = vec![RectPx::from([2.0, 2.0, 20.0, 20.0]), RectPx::from([30.0, 10.0, 20.0, 30.0])];
    let with = |boxes| Settings { boxes, ..settings() };
    stages.set_settings(with(BoxSource::User(rects.clone())));
    let result = stages.process(Arc::new(frame(0)), Pass::Next).unwrap();
    assert_eq!(result.people.iter().map(|p| p.rect).collect::<Vec<_>>(), rects);
    stages.set_settings(with(BoxSource::WholeFrame));
    let result = stages.process(Arc::new(frame(1)), Pass::Next).unwrap();
    assert_eq!(result.people[0].rect, RectPx::from([0.0, 0.0, 64.0, 48.0]));
    assert_eq!(detector.0.load(Ordering::SeqCst), 0);
    // A box outside the frame is nobody, not an error.
    stages.set_settings(with(BoxSource::User(vec![RectPx::from([500.0, 500.0, 10.0, 10.0])])));
    assert!(stages.process(Arc::new(frame(2)), Pass::Next).unwrap().people.is_empty());
}

#[test]
fn without_rootnet_the_distance_is_k_and_says_so() {
    let mut stages = stages(&FakeDetector::default());
    stages.root = None;
    let result = stages.process(Arc::new(frame(0)), Pass::Next).unwrap();
    let person = &result.people[0];
    assert_eq!(person.root_source, RootSource::BoxSize);
    // k = sqrt(2 m * 2 m * f^2 / (w * h)) of the processed box
    let k = 2.0 * result.intrinsics.fx / (person.crop.rect.w * person.crop.rect.h).sqrt();
    assert!((person.root_camera_m.z / k - 1.0).abs() < 1e-4, "{} against {k}", person.root_camera_m.z);
}

#[test]
fn pictures_wait_for_the_stages_and_none_is_lost() {
    let (source, _) = script(false, 0..6);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let live = Arc::new(Mutex::new(None::<Live>));
    let wake = {
        let (seen, live) = (Arc::clone(&seen), Arc::clone(&live));
        move || {
            // The very first calls can come before the test has put the pipeline into its place.
            if let Some(result) = live.lock().unwrap().as_ref().and_then(Live::newest) {
                let mut seen = seen.lock().unwrap();
                if seen.last() != Some(&result.frame.index) {
                    seen.push(result.frame.index);
                }
            }
        }
    };
    {
        let mut slot = live.lock().unwrap();
        let slow = || FakeEstimator { delay: Duration::from_millis(5), ..FakeEstimator::default() };
        *slot = Some(Live::start_with(settings(), Some(spec()), wake, opens(vec![source]), loads(slow)));
    }
    wait_for("the end", || {
        let live = live.lock().unwrap();
        matches!(live.as_ref().unwrap().status().phase, Phase::Ended(_)).then_some(())
    });
    assert_eq!(*seen.lock().unwrap(), [0, 1, 2, 3, 4, 5]);
    assert_eq!(live.lock().unwrap().as_ref().unwrap().status().frames_dropped, 0);
}

#[test]
fn pictures_that_are_shown_at_a_pace_wait_for_the_networks_and_none_is_lost() {
    let mut source = script(false, 0..5).0;
    source.kind = SourceKind::Numbered;
    source.interval = Some(Duration::from_millis(1));
    let gate = Arc::new(AtomicU64::new(0));
    let load: Arc<LoadNetworks> = {
        let (gate, then) = (Arc::clone(&gate), loads(FakeEstimator::default));
        Arc::new(move |settings: &Settings, wanted: Wanted, tell: &mut (dyn FnMut(Progress) + Send)| {
            while gate.load(Ordering::SeqCst) == 0 {
                std::thread::sleep(Duration::from_millis(1));
            }
            then(settings, wanted, tell);
        })
    };
    let live = Live::start_with(settings(), Some(spec()), || {}, opens(vec![source]), load);
    wait_for("the first picture, without people", || newest(&live, 0));
    std::thread::sleep(Duration::from_millis(60));
    assert_eq!(live.newest().unwrap().frame.index, 0, "the others wait for the networks");
    gate.store(1, Ordering::SeqCst);
    let last = wait_for("the last picture", || newest(&live, 4));
    assert_eq!((last.people.len(), last.frames_dropped), (1, 0));
}

#[test]
fn another_source_is_shown_although_everything_is_paused() {
    let scripts = vec![script(false, 0..30).0, script(false, 40..50).0];
    let live = Live::start_with(settings(), Some(spec()), || {}, opens(scripts), loads(FakeEstimator::default));
    wait_for("a frame", || live.newest());
    live.send(Command::Pause(true));
    wait_for("the pause", || live.status().paused.then_some(()));
    live.send(Command::Source(spec()));
    wait_for("its first frame", || newest(&live, 40));
    std::thread::sleep(Duration::from_millis(60));
    assert_eq!(live.newest().unwrap().frame.index, 40, "and no other");
}

#[test]
fn a_camera_drops_frames_that_nobody_takes_and_counts_them() {
    let (source, asked) = script(true, 0..200);
    let slow = || FakeEstimator { delay: Duration::from_millis(30), ..FakeEstimator::default() };
    let live = Live::start_with(settings(), Some(spec()), || {}, opens(vec![source]), loads(slow));
    let last = wait_for("the newest frame", || newest(&live, 199));
    assert_eq!(asked.load(Ordering::SeqCst), 201, "all frames were read, and then the end");
    // How many depends on how busy the machine is.
    assert!(last.frames_dropped > 10, "{} dropped", last.frames_dropped);
    let status = wait_for("the end", || Some(live.status()).filter(|s| matches!(s.phase, Phase::Ended(_))));
    assert_eq!(status.backend, "fake");
}

/// Makes frames when it is asked, ten milliseconds apart.
struct Made {
    index: u64,
    count: Arc<AtomicU64>,
    left: u64,
}

impl FrameSource for Made {
    fn describe(&self) -> String {
        "made".into()
    }
    fn is_live(&self) -> bool {
        false
    }
    fn frame_interval(&self) -> Option<Duration> {
        Some(Duration::from_millis(10))
    }
    fn can_skip(&self) -> bool {
        true
    }
    fn skip(&mut self, frames: u64) {
        self.index += frames;
    }
    fn next(&mut self) -> Result<Next> {
        if self.left == 0 {
            return Ok(Next::Ended("enough".into()));
        }
        self.left -= 1;
        self.index += 1;
        self.count.fetch_add(1, Ordering::SeqCst);
        Ok(Next::Frame(frame(self.index - 1)))
    }
}

#[test]
fn frames_that_are_made_are_made_for_someone_and_the_film_goes_on_at_its_speed() {
    const FRAMES: u64 = 8;
    let made = Arc::new(AtomicU64::new(0));
    let source = Mutex::new(Some(Made { index: 0, count: Arc::clone(&made), left: FRAMES }));
    let open: Arc<OpenSource> = Arc::new(move |_: &SourceSpec| match source.lock().unwrap().take() {
        Some(source) => Ok(Box::new(source) as Box<dyn FrameSource>),
        None => bail!("nothing to open"),
    });
    // Each frame takes four times as long as the film has for it.
    let slow = || FakeEstimator { delay: Duration::from_millis(40), ..FakeEstimator::default() };
    let live = Live::start_with(settings(), Some(spec()), || {}, open, loads(slow));
    let mut shown = Vec::new();
    wait_for("the end", || {
        let index = live.newest().map(|result| result.frame.index);
        if shown.last().copied() != index {
            shown.extend(index);
        }
        matches!(live.status().phase, Phase::Ended(_)).then_some(())
    });
    assert_eq!(made.load(Ordering::SeqCst), FRAMES);
    assert_eq!(shown.len() as u64, FRAMES, "every frame that was made was shown: {shown:?}");
    let last = shown[shown.len() - 1];
    assert!(last >= 2 * FRAMES, "the film went on while a frame was looked at: {shown:?}");
    // While the last one was looked at, more were passed over.
    let dropped = live.status().frames_dropped;
    assert!(dropped >= last + 1 - FRAMES, "those that were passed over are counted: {shown:?}, {dropped}");
}

#[test]
fn a_pause_holds_and_a_step_shows_exactly_one_more() {
    let (source, _) = script(false, 0..50);
    let slow = || FakeEstimator { delay: Duration::from_millis(20), ..FakeEstimator::default() };
    let live = Live::start_with(settings(), Some(spec()), || {}, opens(vec![source]), loads(slow));
    live.send(Command::Pause(true));
    wait_for("the pause", || live.status().paused.then_some(()));
    std::thread::sleep(Duration::from_millis(80));
    let held = live.newest().map_or(0, |result| result.frame.index + 1);
    for step in 0..3 {
        live.send(Command::Step);
        wait_for("the step", || newest(&live, held + step));
        std::thread::sleep(Duration::from_millis(60));
        assert_eq!(live.newest().unwrap().frame.index, held + step, "a step is one frame");
    }
    // While it is held, a landmark is computed on the frame that is shown.
    live.send(Command::Landmarks(vec![Landmark::Joint(2)]));
    let result = wait_for("the heatmaps", || {
        live.newest().filter(|result| result.people.first().is_some_and(|p| !p.heatmaps.is_empty()))
    });
    assert_eq!(result.frame.index, held + 2);
    live.send(Command::Pause(false));
    wait_for("the last frame", || newest(&live, 49));
}

#[test]
fn a_stage_that_fails_or_panics_is_told_and_the_next_frame_goes_on() {
    let (source, _) = script(false, [1, 2, 3, 4]);
    let bad = || FakeEstimator { fail_on_grey: Some(2), panic_on_grey: Some(3), ..FakeEstimator::default() };
    let live = Live::start_with(settings(), Some(spec()), || {}, opens(vec![source]), loads(bad));
    live.send(Command::Pause(true));
    wait_for("the loading", || matches!(live.status().phase, Phase::Paused | Phase::Ended(_)).then_some(()));
    let mut told = Vec::new();
    while live.newest().is_none_or(|result| result.frame.index < 4) {
        let before = live.newest().map(|result| result.frame.index);
        live.send(Command::Step);
        let result = wait_for("a step", || live.newest().filter(|r| Some(r.frame.index) != before));
        wait_for("its status", || {
            let failed = live.status().notes.iter().any(|note| note.contains("told to"));
            (failed == result.people.is_empty()).then_some(())
        });
        told.push((result.frame.index, result.people.len()));
    }
    for (index, people) in told {
        assert_eq!(people, usize::from(index != 2 && index != 3), "frame {index}");
    }
}

#[test]
fn a_source_that_fails_leaves_the_pipeline_alive_for_another() {
    let mut broken = script(false, 0..1).0;
    broken.next.push_back(Err(anyhow::anyhow!("the cable was cut")));
    let (good, _) = script(false, 7..8);
    let live =
        Live::start_with(settings(), Some(spec()), || {}, opens(vec![broken, good]), loads(FakeEstimator::default));
    wait_for("the failure", || match live.status().phase {
        Phase::Failed(why) => why.contains("the cable was cut").then_some(()),
        _ => None,
    });
    live.send(Command::Restart);
    wait_for("the other source", || newest(&live, 7));
    live.send(Command::Source(spec()));
    wait_for("nothing to open", || matches!(live.status().phase, Phase::Failed(_)).then_some(()));
}

/// Waits before its last frame until it is let through.
struct Gated(Script, Arc<AtomicU64>);
impl FrameSource for Gated {
    fn describe(&self) -> String {
        self.0.describe()
    }
    fn is_live(&self) -> bool {
        true
    }
    fn next(&mut self) -> Result<Next> {
        if self.0.next.is_empty() {
            while self.1.load(Ordering::SeqCst) == 0 {
                std::thread::sleep(Duration::from_millis(1));
            }
            if self.1.swap(2, Ordering::SeqCst) == 1 {
                return Ok(Next::Frame(frame(1)));
            }
            std::thread::sleep(Duration::from_millis(20));
            return Ok(Next::Stalled("later".into()));
        }
        self.0.next()
    }
}

#[test]
fn a_stalled_camera_is_a_note_until_the_next_frame() {
    let (mut source, _) = script(true, 0..1);
    source.next.push_back(Ok(Next::Stalled("no frame for 1 s".into())));
    let gate = Arc::new(AtomicU64::new(0));
    let gated = Mutex::new(Some(Gated(source, Arc::clone(&gate))));
    let open: Arc<OpenSource> = Arc::new(move |_: &SourceSpec| match gated.lock().unwrap().take() {
        Some(source) => Ok(Box::new(source) as Box<dyn FrameSource>),
        None => bail!("once only"),
    });
    let live = Live::start_with(settings(), Some(spec()), || {}, open, loads(FakeEstimator::default));
    let stalled = |live: &Live| live.status().notes.iter().any(|note| note.contains("no frame for 1 s"));
    wait_for("the note", || stalled(&live).then_some(()));
    gate.store(1, Ordering::SeqCst);
    wait_for("the next frame", || newest(&live, 1));
    wait_for("the note to go", || (!stalled(&live)).then_some(()));
}

#[test]
fn a_missing_model_is_a_note_and_frames_are_shown_all_the_same() {
    let (source, _) = script(false, 0..2);
    let load: Arc<LoadNetworks> = Arc::new(|_: &Settings, _: Wanted, tell: &mut (dyn FnMut(Progress) + Send)| {
        tell(Progress::Loaded(Part::Missing(Role::Estimator, "get it there".into())));
    });
    let live = Live::start_with(settings(), Some(spec()), || {}, opens(vec![source]), load);
    let result = wait_for("the last frame", || newest(&live, 1));
    assert!(result.people.is_empty());
    wait_for("the note", || live.status().notes.contains(&"get it there".to_owned()).then_some(()));
    live.send(Command::Estimator(EstimatorKind::Hand));
    wait_for("the setting", || (live.status().settings.estimator == EstimatorKind::Hand).then_some(()));
}

#[test]
fn another_detector_takes_the_place_of_the_first_when_it_is_there() {
    let other = FakeDetector::default();
    let load: Arc<LoadNetworks> = {
        let (first, other) = (loads(FakeEstimator::default), other.clone());
        Arc::new(move |settings: &Settings, wanted: Wanted, tell: &mut (dyn FnMut(Progress) + Send)| {
            if wanted == Wanted::Detector {
                // The one of an earlier choice comes late.
                let late = FakeDetector(Arc::new(AtomicU64::new(1_000_000)));
                tell(Progress::Loaded(Part::Detector(settings.detector, Family::Smpl, Box::new(other.clone()))));
                tell(Progress::Loaded(Part::Detector(DetectorKind::MaskRcnn, Family::Smpl, Box::new(late))));
            } else {
                first(settings, wanted, tell);
            }
        })
    };
    let (source, _) = script(false, 0..4_000);
    let source = Script { interval: Some(Duration::from_millis(5)), ..source };
    let settings = Settings { detect_every: 1, ..settings() };
    let live = Live::start_with(settings, Some(spec()), || {}, opens(vec![source]), load);
    wait_for("a person", || live.newest().filter(|result| !result.people.is_empty()));
    assert_eq!(other.0.load(Ordering::SeqCst), 0);
    live.send(Command::Detector(DetectorKind::Light));
    wait_for("the setting", || (live.status().settings.detector == DetectorKind::Light).then_some(()));
    wait_for("the other detector", || (other.0.load(Ordering::SeqCst) > 5).then_some(()));
}

#[test]
fn a_loader_that_panics_is_told() {
    let (source, _) = script(false, 0..1);
    let load: Arc<LoadNetworks> =
        Arc::new(|_: &Settings, _: Wanted, _: &mut (dyn FnMut(Progress) + Send)| panic!("boom"));
    let live = Live::start_with(settings(), Some(spec()), || {}, opens(vec![source]), load);
    wait_for("the note", || live.status().notes.iter().any(|note| note.contains("boom")).then_some(()));
    wait_for("the frame", || newest(&live, 0));
}
