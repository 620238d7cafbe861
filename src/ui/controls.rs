//! The bar at the top: source, transport, estimator, boxes, camera, drawing. Every control acts at once.

use egui::containers::menu::{MenuButton, MenuConfig};
use egui::{Button, DragValue, PopupCloseBehavior, RichText, Slider, TextEdit, Ui};

use super::icons::{self, Icon};
use super::shortcuts::{self, Hotkey, tip};
use super::{Action, State, View, Webcams, theme};
use crate::pipeline::{Command, Phase};
use crate::render::MeshColour;
use crate::result::{EstimatorKind, MeshSource};
use crate::settings::{BoxSource, CameraSetting, DetectorKind, SourceSpec};
use crate::space::Intrinsics;
use crate::synth::Kind;

pub(super) fn bar(ui: &mut Ui, view: &View, state: &mut State, actions: &mut Vec<Action>) {
    ui.horizontal_wrapped(|ui| {
        source(ui, view, state, actions);
        transport(ui, view, state, actions);
        ui.add_space(theme::GAP);
        estimator(ui, state, actions);
        ui.add_space(theme::GAP);
        boxes(ui, state, actions);
        camera(ui, view, state, actions);
        draw(ui, view, state);
        let text = tip(ui.ctx(), "Save the frame as it is drawn, as PNG", Hotkey::Save);
        if ui.add_enabled(view.result.is_some(), Button::new("Save")).on_hover_text(text).clicked() {
            actions.push(Action::SaveFrame);
        }
        let text = tip(ui.ctx(), "Keys and mouse", Hotkey::Help);
        if ui.add(Button::new("?").min_size(ui.spacing().interact_size)).on_hover_text(text).clicked() {
            state.help ^= true;
        }
    });
}

/// A button that opens a small panel: caption, current value, arrow.
fn menu(ui: &mut Ui, caption: &str, value: &str, tip: &str, content: impl FnOnce(&mut Ui)) {
    let font = egui::TextStyle::Button.resolve(ui.style());
    let mut text = egui::text::LayoutJob::default();
    let format = |color| egui::TextFormat { font_id: font.clone(), color, ..Default::default() };
    text.append(caption, 0.0, format(theme::WEAK));
    if !value.is_empty() {
        text.append(value, 6.0, format(theme::TEXT));
    }
    // The proportional face has no arrow.
    let font_id = egui::FontId::monospace(font.size);
    text.append("▾", 6.0, egui::TextFormat { font_id, color: theme::WEAK, ..Default::default() });
    // The menu stays open while things are chosen in it.
    let config = MenuConfig::new()
        .close_behavior(PopupCloseBehavior::CloseOnClickOutside)
        .style(egui::style::StyleModifier::default());
    let (response, _) = MenuButton::from_button(Button::new(text)).config(config).ui(ui, |ui| {
        ui.spacing_mut().item_spacing.y = 6.0;
        content(ui);
    });
    response.accessible_name(caption).on_hover_text(tip);
}

fn source(ui: &mut Ui, view: &View, state: &mut State, actions: &mut Vec<Action>) {
    let name = match view.status.source.as_str() {
        "" => "none".to_owned(),
        source => shortened(source, 26),
    };
    menu(ui, "Source", &name, &view.status.source, |ui| {
        ui.set_width(300.0);
        for (kind, name, estimator) in [
            (Kind::Scenes, "Synthetic people", EstimatorKind::Body),
            (Kind::Hands, "Synthetic hands", EstimatorKind::Hand),
        ] {
            let button = ui.add(Button::selectable(false, name));
            if button.on_hover_text("A scene that moves without an end").clicked() {
                state.send(Command::Source(SourceSpec::synthetic(kind)), actions);
                if state.settings.estimator.family() != estimator.family() {
                    state.send(Command::Estimator(estimator), actions);
                }
                ui.close();
            }
        }
        ui.add_space(4.0);
        ui.horizontal(|ui| {
            ui.label(theme::heading("webcam"));
            let looking = *view.webcams == Webcams::Looking;
            if *view.webcams == Webcams::Unknown {
                actions.push(Action::LookForWebcams);
            }
            if ui.add_enabled(!looking, Button::new("Look again").small()).clicked() {
                actions.push(Action::LookForWebcams);
            }
        });
        match view.webcams {
            Webcams::Unknown | Webcams::Looking => {
                ui.label(theme::hint("Looking for cameras…"));
            }
            Webcams::Found(cameras) if cameras.is_empty() => {
                ui.label(theme::hint("No camera was found. Plug one in and look again."));
            }
            Webcams::Found(cameras) => {
                for (index, name) in cameras {
                    let text = shortened(&format!("{index}: {name}"), 44);
                    if ui.add(Button::selectable(false, text)).on_hover_text(name).clicked() {
                        state.send(Command::Source(SourceSpec::Webcam(*index)), actions);
                        ui.close();
                    }
                }
            }
            Webcams::Failed(why) => {
                ui.add(egui::Label::new(RichText::new(why).color(theme::WARN)).wrap());
            }
        }
        ui.add_space(4.0);
        ui.label(theme::heading("picture, folder or video"));
        ui.horizontal(|ui| {
            let edit = TextEdit::singleline(&mut state.path).hint_text("path of a file or folder").desired_width(236.0);
            let response = ui.add(edit).accessible_name("path");
            let entered = response.lost_focus() && ui.input(|input| input.key_pressed(egui::Key::Enter));
            let path = state.path.trim();
            let clicked = ui.add_enabled(!path.is_empty(), Button::new("Open")).clicked();
            if (clicked || entered) && !path.is_empty() {
                match source_from(path) {
                    Ok(source) => {
                        state.send(Command::Source(source), actions);
                        ui.close();
                    }
                    Err(error) => state.say(ui.ctx(), format!("{error:#}"), true),
                }
            }
        });
        ui.label(theme::hint("Or drop one onto the window.").text_style(egui::TextStyle::Small));
    });
}

/// What was typed or pasted: as on the command line, with quotes taken off and `~` being the home folder.
fn source_from(text: &str) -> anyhow::Result<SourceSpec> {
    let text = text.trim_matches(['"', '\'']);
    let home = || directories::UserDirs::new().map(|dirs| dirs.home_dir().to_owned());
    match text.strip_prefix("~/").and_then(|rest| Some(home()?.join(rest))) {
        Some(path) => Ok(SourceSpec::Path(path)),
        None => text.parse(),
    }
}

fn transport(ui: &mut Ui, view: &View, state: &mut State, actions: &mut Vec<Action>) {
    let over = matches!(view.status.phase, Phase::Ended(_) | Phase::Failed(_));
    let (icon, text) = match (over, state.paused) {
        (true, _) => (Icon::Play, "Open the source again"),
        (_, true) => (Icon::Play, "Go on"),
        (_, false) => (Icon::Pause, "Hold at this frame"),
    };
    let open = !view.status.source.is_empty() || matches!(view.status.phase, Phase::Failed(_));
    let mut button = |ui: &mut Ui, enabled, icon, name, text, hotkey| {
        let response = icons::button(ui, enabled, icon, name);
        if response.on_hover_text(tip(ui.ctx(), text, hotkey)).clicked() {
            shortcuts::act(hotkey, view, state, actions);
        }
    };
    button(ui, open, icon, "pause", text, Hotkey::Pause);
    button(ui, open && !over, Icon::Step, "step", "One frame further", Hotkey::Step);
    button(ui, open, Icon::Restart, "restart", "Open the source again", Hotkey::Restart);
}

fn estimator(ui: &mut Ui, state: &mut State, actions: &mut Vec<Action>) {
    let mut kind = state.settings.estimator;
    segments(
        ui,
        &mut kind,
        &[
            (EstimatorKind::Body, "Body", "I2L-MeshNet with a body: SMPL's, or the stand-in"),
            (EstimatorKind::Hand, "Hand", "I2L-MeshNet with a right hand: MANO's, or the stand-in"),
            (EstimatorKind::Skeleton, "Skeleton", "3D PoseNet: joints alone"),
        ],
    );
    if kind != state.settings.estimator {
        state.send(Command::Estimator(kind), actions);
    }
    if kind != EstimatorKind::Skeleton {
        let mut mesh = state.settings.mesh_source;
        segments(
            ui,
            &mut mesh,
            &[
                (MeshSource::Lixel, "Lixels", "The mesh of the lixel coordinates, back-projected"),
                (MeshSource::Param, "Parameters", "The body model, posed by the second stage's parameters"),
            ],
        );
        if mesh != state.settings.mesh_source {
            state.send(Command::MeshSource(mesh), actions);
        }
    }
}

/// One of several, side by side.
fn segments<T: PartialEq + Copy>(ui: &mut Ui, value: &mut T, choices: &[(T, &str, &str)]) {
    // A row that wraps does not break what is framed: begin another row where this one is too short.
    let font = egui::TextStyle::Button.resolve(ui.style());
    let width = |text: &str| ui.painter().layout_no_wrap(text.to_owned(), font.clone(), theme::TEXT).size().x;
    let padding = 2.0 * ui.spacing().button_padding.x;
    if choices.iter().map(|(_, text, _)| width(text) + padding).sum::<f32>() > ui.available_size_before_wrap().x {
        ui.end_row();
    }
    egui::Frame::new().fill(theme::BACKGROUND).corner_radius(theme::RADIUS).show(ui, |ui| {
        ui.horizontal(|ui| {
            ui.spacing_mut().item_spacing.x = 0.0;
            for (choice, text, tip) in choices {
                ui.selectable_value(value, *choice, *text).on_hover_text(*tip);
            }
        });
    });
}

fn boxes(ui: &mut Ui, state: &mut State, actions: &mut Vec<Action>) {
    let value = match &state.settings.boxes {
        BoxSource::Detector => "detector".to_owned(),
        BoxSource::User(boxes) => format!("{} drawn", boxes.len()),
        BoxSource::WholeFrame => "whole frame".to_owned(),
    };
    menu(ui, "Boxes", &value, "Where people's boxes come from", |ui| {
        ui.set_width(250.0);
        let before = std::mem::discriminant(&state.settings.boxes);
        let mut wanted = None;
        let mut choice = |ui: &mut Ui, source: BoxSource, text: &str| {
            let selected = before == std::mem::discriminant(&source);
            if ui.radio(selected, text).clicked() && !selected {
                wanted = Some(source);
            }
        };
        choice(ui, BoxSource::Detector, "The detector finds them");
        choice(ui, BoxSource::User(Vec::new()), "I draw them on the frame");
        choice(ui, BoxSource::WholeFrame, "The whole frame is one box");
        ui.separator();
        match &state.settings.boxes {
            BoxSource::Detector => {
                let mut kind = state.settings.detector;
                segments(
                    ui,
                    &mut kind,
                    &[
                        (DetectorKind::Auto, "Auto", "Mask R-CNN where its checkpoint is there, else the light one"),
                        (DetectorKind::MaskRcnn, "Mask R-CNN", "Slow, and at home in photographs of all kinds"),
                        (DetectorKind::Light, "Light", "Fast; trained on synthetic people, or on hands"),
                    ],
                );
                if kind != state.settings.detector {
                    state.send(Command::Detector(kind), actions);
                }
                let mut every = state.settings.detect_every;
                ui.horizontal(|ui| {
                    ui.label("Detect on every");
                    let response = ui.add(DragValue::new(&mut every).range(1..=120).speed(0.1));
                    response.accessible_name("detector stride").on_hover_text(
                        "The detector is slow; between its frames the boxes follow the people. 1: on every frame",
                    );
                    ui.label(if every == 1 { "frame" } else { "frames" });
                });
                if every != state.settings.detect_every {
                    state.send(Command::DetectEvery(every), actions);
                }
            }
            BoxSource::User(drawn) => {
                ui.add(egui::Label::new(theme::hint("Drag a rectangle around each person, on the frame.")).wrap());
                let drawn = drawn.clone();
                ui.horizontal(|ui| {
                    let any = !drawn.is_empty();
                    if ui.add_enabled(any, Button::new("Undo last")).clicked() {
                        wanted = Some(BoxSource::User(drawn[..drawn.len() - 1].to_vec()));
                    }
                    if ui.add_enabled(any, Button::new("Clear")).clicked() {
                        wanted = Some(BoxSource::User(Vec::new()));
                    }
                });
            }
            BoxSource::WholeFrame => {
                ui.add(egui::Label::new(theme::hint("For a hand, or a person, that fills the frame.")).wrap());
            }
        }
        if let Some(source) = wanted {
            state.send(Command::Boxes(source), actions);
        }
    });
}

fn camera(ui: &mut Ui, view: &View, state: &mut State, actions: &mut Vec<Action>) {
    // A frame that was made brings its own along.
    let known = view.result.filter(|result| result.frame.truth.is_some()).map(|result| result.intrinsics.fx);
    let value = match state.settings.camera {
        CameraSetting::Normalised => format!("{:.0} px", known.unwrap_or(Intrinsics::NORMALISED_FOCAL_PX)),
        CameraSetting::FocalPx(focal) => format!("{focal:.0} px"),
        CameraSetting::HorizontalFov(fov_rad) => format!("{:.0}°", fov_rad.to_degrees()),
        CameraSetting::Calibrated { .. } => "calibrated".to_owned(),
    };
    menu(ui, "Camera", &value, "The focal length that metres are computed with", |ui| {
        ui.set_width(250.0);
        let now = state.settings.camera;
        let mut wanted = None;
        let is = |camera: &CameraSetting| std::mem::discriminant(camera) == std::mem::discriminant(&now);
        let text = if known.is_some() { "The scene's own" } else { "Unknown: the papers' 1500 px" };
        let normalised = ui.radio(now == CameraSetting::Normalised, text);
        if normalised.on_hover_text("Depths then belong to that camera").clicked() {
            wanted = Some(CameraSetting::Normalised);
        }
        ui.horizontal(|ui| {
            let camera = CameraSetting::FocalPx(state.focal_px);
            let chosen = ui.radio(is(&camera), "Focal length").clicked();
            let drag =
                DragValue::new(&mut state.focal_px).range(50.0..=20_000.0).speed(5.0).suffix(" px").max_decimals(1);
            let response = ui.add(drag).accessible_name("focal length");
            if chosen || committed(&response) {
                wanted = Some(CameraSetting::FocalPx(state.focal_px));
            }
        });
        ui.horizontal(|ui| {
            let camera = CameraSetting::HorizontalFov(state.fov_deg);
            let chosen = ui.radio(is(&camera), "Field of view").clicked();
            let drag = DragValue::new(&mut state.fov_deg).range(5.0..=170.0).speed(0.5).suffix("°").max_decimals(1);
            let response = ui.add(drag).accessible_name("field of view");
            if chosen || committed(&response.on_hover_text("Horizontal")) {
                wanted = Some(CameraSetting::HorizontalFov(state.fov_deg.to_radians()));
            }
        });
        if let Some(camera) = state.calibrated
            && ui.radio(now == camera, "Calibration file").clicked()
        {
            wanted = Some(camera);
        }
        if let Some(camera) = wanted.filter(|camera| *camera != now) {
            state.send(Command::Camera(camera), actions);
        }
    });
}

/// A number was settled: not at every step of a drag, nor at every digit typed.
fn committed(response: &egui::Response) -> bool {
    response.drag_stopped()
        || response.lost_focus()
        || (response.changed() && !response.dragged() && !response.has_focus())
}

fn draw(ui: &mut Ui, view: &View, state: &mut State) {
    menu(ui, "Draw", "", "What is drawn, and how", |ui| {
        ui.set_width(250.0);
        let draw = &mut state.draw;
        let ctx = ui.ctx().clone();
        let check = |ui: &mut Ui, value: &mut bool, text: &str, hotkey: Hotkey| {
            let what = shortcuts::TABLE.iter().find(|(entry, ..)| *entry == hotkey).map_or("", |(.., what)| *what);
            ui.checkbox(value, text).on_hover_text(tip(&ctx, what, hotkey));
        };
        check(ui, &mut draw.mesh, "Meshes", Hotkey::Mesh);
        check(ui, &mut draw.wireframe, "Wireframe", Hotkey::Wireframe);
        check(ui, &mut draw.joints, "Joints", Hotkey::Joints);
        check(ui, &mut draw.boxes, "Boxes", Hotkey::Boxes);
        check(ui, &mut state.heatmaps_on_frame, "Heatmaps on the frame", Hotkey::Evidence);
        if view.result.is_some_and(|result| result.frame.truth.is_some()) {
            check(ui, &mut state.truth, "Ground truth", Hotkey::Truth);
        }
        ui.separator();
        ui.horizontal(|ui| {
            ui.label("Opacity");
            let slider =
                Slider::new(&mut draw.alpha, 0.0..=1.0).custom_formatter(|value, _| format!("{:.0}%", value * 100.0));
            ui.add(slider.custom_parser(|text| Some(text.trim_end_matches('%').trim().parse::<f64>().ok()? / 100.0)))
                .accessible_name("opacity");
        });
        ui.horizontal(|ui| {
            ui.label("Colour by");
            segments(
                ui,
                &mut draw.colour,
                &[
                    (MeshColour::Person, "person", "One colour for each person"),
                    (
                        MeshColour::Spread,
                        "spread",
                        "How wide the heatmaps of each vertex are: how unsure the network is",
                    ),
                ],
            );
        });
        let text = tip(&ctx, "One above the other", Hotkey::Stack);
        ui.checkbox(&mut state.stacked, "Stack the views").on_hover_text(text);
        let fit = ui.add_enabled(view.result.is_some(), Button::new("Fit the 3D view"));
        if fit.on_hover_text(tip(&ctx, "Everything into the 3D view", Hotkey::Fit)).clicked() {
            state.fit(view.result);
        }
    });
}

/// The end of a text matters most in a path, so that is what is kept.
fn shortened(text: &str, most: usize) -> String {
    let length = text.chars().count();
    if length <= most {
        return text.to_owned();
    }
    let head: String = text.chars().take(most / 3).collect();
    let tail: String = text.chars().skip(length - (most - most / 3 - 1)).collect();
    format!("{head}…{tail}")
}

#[cfg(test)]
mod tests {
    use super::{SourceSpec, shortened, source_from};

    #[test]
    fn long_names_keep_both_ends() {
        assert_eq!(shortened("webcam 0", 26), "webcam 0");
        let short = shortened("a very long name of a file that goes on.mp4", 21);
        assert_eq!(short.chars().count(), 21);
        assert!(short.starts_with("a very ") && short.ends_with("goes on.mp4"), "{short}");
        assert_eq!(shortened("ääääääääääääääää", 6).chars().count(), 6);
    }

    #[test]
    fn sources_are_typed_as_on_the_command_line() {
        assert_eq!(source_from("\"a b.png\"").unwrap(), SourceSpec::Path("a b.png".into()));
        assert_eq!(source_from("webcam:2").unwrap(), SourceSpec::Webcam(2));
        assert!(matches!(source_from("~/x").unwrap(), SourceSpec::Path(path) if !path.starts_with("~")));
        assert!(source_from("webcam:x").is_err());
    }
}
