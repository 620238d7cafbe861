//! The panels of the window: pure functions of data that return what the user asked for. Knows no wgpu pass and no
//! tensor; the two views are textures that someone else has drawn.
//!
//! [`show`] lays the window out: controls above, notes below them when there are any, the two views, people and
//! heatmaps at the side, the status line below. Lengths are in points (`_pt`) here; textures are in physical pixels.

mod controls;
mod evidence;
mod heatmaps;
mod icons;
mod people;
pub mod shortcuts;
mod status;
pub mod theme;
mod views;

use std::time::Duration;

use egui::{TextureId, Ui};
use glam::Vec2;

use crate::pipeline::{Command, Status};
use crate::render::{DrawOptions, OrbitCamera};
use crate::result::{FrameResult, Landmark, Person};
use crate::settings::{BoxSource, CameraSetting, Settings};
use crate::space::{Intrinsics, RectPx};

pub use heatmaps::moments;

/// The side panel's share of the window's width.
const SIDE_SHARE: f32 = 0.24;

/// What the panels read.
pub struct View<'a> {
    /// The newest result, if any.
    pub result: Option<&'a FrameResult>,
    /// What the pipeline is doing.
    pub status: &'a Status,
    /// What is known about the cameras of this machine.
    pub webcams: &'a Webcams,
    /// The frame with the meshes drawn on it.
    pub frame_texture: TextureId,
    /// The meshes in 3D.
    pub orbit_texture: TextureId,
}

/// The cameras of this machine. Looking for them takes a while, so it happens when the list is opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Webcams {
    /// Nobody has looked.
    #[default]
    Unknown,
    /// Somebody is looking.
    Looking,
    /// Index and name of each.
    Found(Vec<(u32, String)>),
    /// They cannot be listed; says why.
    Failed(String),
}

/// What the user asked for.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Something of the pipeline.
    Send(Command),
    /// List the cameras.
    LookForWebcams,
    /// Write the frame, as it is drawn, to a file.
    SaveFrame,
    /// Throw the graphics device away and make a new one.
    RebuildGraphics,
    /// Full screen, or back.
    ToggleFullscreen,
    /// Close the window.
    Quit,
}

/// What one pass of the panels gave.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Output {
    /// What the user asked for, in order.
    pub actions: Vec<Action>,
    /// Size at which the frame view is shown, physical pixels; zero when it is not.
    pub frame_size_px: [u32; 2],
    /// Size at which the 3D view is shown, physical pixels; zero when it is not.
    pub orbit_size_px: [u32; 2],
}

/// A short message in the status line.
#[derive(Clone, Debug, PartialEq)]
struct Message {
    text: String,
    failed: bool,
    /// When it goes, in the context's time.
    until_secs: f64,
}

/// What the user has chosen in the window and the pipeline does not know, and what the pipeline was asked for.
pub struct State {
    /// The settings as last asked for. The pipeline's own follow when the frame in work is done; controls that waited
    /// for them would feel stuck.
    pub settings: Settings,
    /// The person whose heatmaps are shown; the first one when it is not in the frame.
    pub person: Option<u32>,
    /// The vertex or joint whose heatmaps are shown.
    pub landmark: Option<Landmark>,
    /// How the two views are drawn.
    pub draw: DrawOptions,
    /// Where the 3D view is seen from.
    pub orbit: OrbitCamera,
    /// The x and y heatmaps are drawn along the edges of the crop, on the frame.
    pub heatmaps_on_frame: bool,
    /// The true people of a frame that was made are drawn too. They always are while there is no network.
    pub truth: bool,
    paused: bool,
    /// What the pipeline last said of it.
    was_paused: bool,
    /// The calibration that the program was started with, so that one can come back to it.
    calibrated: Option<CameraSetting>,
    path: String,
    focal_px: f32,
    fov_deg: f32,
    /// The rectangle that is being drawn, in frame pixels.
    drawing: Option<(Vec2, Vec2)>,
    hidden_notes: Vec<String>,
    all_notes: bool,
    help: bool,
    /// The 3D view was fitted to people, or turned by hand: it is left alone from then on.
    orbit_settled: bool,
    /// The source that the 3D view was fitted to.
    source: String,
    orbit_aspect: f32,
    message: Option<Message>,
    side_share: f32,
    /// The frame's share of the place of both views; as the frame's shape wants it, until the line is dragged.
    frame_share: Option<f32>,
    /// The views lie one above the other.
    stacked: bool,
}

impl State {
    /// The state at the start, for a pipeline with these settings.
    pub fn new(settings: Settings) -> Self {
        let calibrated = matches!(settings.camera, CameraSetting::Calibrated { .. }).then_some(settings.camera);
        Self {
            person: None,
            landmark: None,
            draw: DrawOptions::default(),
            orbit: OrbitCamera::default(),
            heatmaps_on_frame: true,
            truth: false,
            paused: false,
            was_paused: false,
            calibrated,
            path: String::new(),
            focal_px: match settings.camera {
                CameraSetting::FocalPx(focal) => focal,
                _ => Intrinsics::NORMALISED_FOCAL_PX,
            },
            fov_deg: match settings.camera {
                CameraSetting::HorizontalFov(fov_rad) => fov_rad.to_degrees(),
                _ => 60.0,
            },
            drawing: None,
            hidden_notes: Vec::new(),
            all_notes: false,
            help: false,
            orbit_settled: false,
            source: String::new(),
            orbit_aspect: 1.0,
            message: None,
            side_share: SIDE_SHARE,
            frame_share: None,
            stacked: false,
            settings,
        }
    }

    /// The person whose heatmaps are shown: the chosen one if present, else the first that is not hidden.
    pub fn shown_person<'a>(&self, result: &'a FrameResult) -> Option<&'a Person> {
        let chosen = self.person.and_then(|id| result.people.iter().find(|person| person.id == id));
        chosen.or_else(|| result.people.iter().find(|person| !self.draw.hidden.contains(&person.id)))
    }

    /// Chooses a landmark of a person and asks for its heatmaps.
    pub fn choose(&mut self, person: Option<u32>, landmark: Option<Landmark>, actions: &mut Vec<Action>) {
        self.person = person.or(self.person);
        if self.landmark != landmark {
            self.landmark = landmark;
            actions.push(Action::Send(Command::Landmarks(landmark.into_iter().collect())));
        }
    }

    /// Chooses a joint of the first people who were found, so that there are heatmaps before anyone has asked. True when
    /// that is done, or no longer needed.
    pub fn greet(&mut self, result: &FrameResult, actions: &mut Vec<Action>) -> bool {
        if self.landmark.is_some() {
            return true;
        }
        if result.people.iter().all(|person| person.true_index().is_some()) {
            return false;
        }
        let names = &result.skeleton.names;
        let named = |part: &str| names.iter().position(|name| name.to_lowercase().contains(part));
        // A hand moves most.
        let joint = named("right_wrist").or_else(|| named("wrist")).unwrap_or(0);
        self.choose(None, Some(Landmark::Joint(joint as u32)), actions);
        true
    }

    /// Everything into the 3D view.
    fn fit(&mut self, result: Option<&FrameResult>) {
        if let Some(result) = result {
            self.orbit.fit(result, self.orbit_aspect);
            self.orbit_settled = true;
        }
    }

    /// A message for the status line.
    pub fn say(&mut self, ctx: &egui::Context, text: impl Into<String>, failed: bool) {
        let stay_secs = if failed { 12.0 } else { 5.0 };
        self.message = Some(Message { text: text.into(), failed, until_secs: ctx.time() + stay_secs });
        ctx.request_repaint_after(Duration::from_secs_f64(stay_secs));
    }

    /// Asks the pipeline for something, and remembers what the settings will be.
    fn send(&mut self, command: Command, actions: &mut Vec<Action>) {
        match &command {
            Command::Pause(paused) => self.paused = *paused,
            Command::Estimator(kind) => {
                self.settings.estimator = *kind;
                // Vertex and joint numbers mean another place on another body.
                self.choose(None, None, actions);
            }
            Command::MeshSource(source) => self.settings.mesh_source = *source,
            Command::Boxes(boxes) => self.settings.boxes = boxes.clone(),
            Command::Detector(kind) => self.settings.detector = *kind,
            Command::DetectEvery(n) => self.settings.detect_every = *n,
            Command::Camera(camera) => self.settings.camera = *camera,
            Command::Step | Command::Landmarks(_) | Command::Source(_) | Command::Restart => {}
        }
        actions.push(Action::Send(command));
    }

    /// Follows the pipeline where it changed by itself.
    fn follow(&mut self, status: &Status) {
        if status.source != self.source {
            self.source.clone_from(&status.source);
            self.orbit_settled = false;
        }
        if self.was_paused != status.paused {
            self.was_paused = status.paused;
            self.paused = status.paused;
        }
    }

    /// The rectangles drawn so far; empty unless boxes come from the user.
    fn drawn_boxes(&self) -> &[RectPx] {
        match &self.settings.boxes {
            BoxSource::User(boxes) => boxes,
            _ => &[],
        }
    }

    fn draws_boxes(&self) -> bool {
        matches!(self.settings.boxes, BoxSource::User(_))
    }
}

/// One pass of the whole window.
pub fn show(ui: &mut Ui, view: &View, state: &mut State) -> Output {
    let mut actions = Vec::new();
    state.follow(view.status);
    shortcuts::handle(ui.ctx(), view, state, &mut actions);
    views::dropped_file(ui.ctx(), state, &mut actions);

    egui::Panel::top("controls").frame(theme::bar()).resizable(false).show(ui, |ui| {
        controls::bar(ui, view, state, &mut actions);
    });
    egui::Panel::bottom("status").frame(theme::bar()).resizable(false).show(ui, |ui| {
        status::line(ui, view, state);
    });
    status::notes(ui, view, state);

    let mut output = Output::default();
    egui::CentralPanel::no_frame().show(ui, |ui| {
        let side = views::Split::second(ui.max_rect(), views::Axis::Row, state.side_share, [300.0, 210.0]);
        let [main, evidence] = side.parts();
        // Side by side, unless the place is taller than wide.
        let row = !state.stacked && main.width() > main.height();
        let axis = if row { views::Axis::Row } else { views::Axis::Column };
        let share = state.frame_share.unwrap_or_else(|| views::wanted_share(main, axis, view.result));
        let halves = views::Split::first(main, axis, share, [150.0, 120.0]);
        let [frame, orbit] = halves.parts();
        output.frame_size_px = views::frame(ui, frame, view, state, &mut actions);
        output.orbit_size_px = views::orbit(ui, orbit, view, state, &mut actions);
        side_panel(ui, evidence, view, state, &mut actions);
        let grip = halves.grip(ui, "views");
        state.frame_share = if grip.reset { None } else { grip.share.or(state.frame_share) };
        let grip = side.grip(ui, "side");
        state.side_share = if grip.reset { SIDE_SHARE } else { grip.share.unwrap_or(state.side_share) };
    });
    shortcuts::help(ui.ctx(), &mut state.help);
    let shown = view.result.and_then(|result| state.shown_person(result));
    state.draw.selected = shown.map(|person| person.id).zip(state.landmark);
    output.actions = actions;
    output
}

fn side_panel(ui: &mut Ui, rect: egui::Rect, view: &View, state: &mut State, actions: &mut Vec<Action>) {
    let frame = theme::side();
    ui.painter().rect_filled(rect, 0.0, frame.fill);
    let inner = rect - frame.inner_margin;
    ui.scope_builder(egui::UiBuilder::new().max_rect(inner).id_salt("side panel"), |ui| {
        ui.shrink_clip_rect(rect);
        people::panel(ui, view, state, inner.height() * 0.36);
        ui.add_space(4.0);
        ui.separator();
        heatmaps::panel(ui, view, state, actions);
    });
}
