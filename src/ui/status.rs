//! What the pipeline is doing: the line at the bottom, and the notes below the controls.

use egui::{Align, Layout, ProgressBar, RichText, TextStyle, Ui};

use super::icons::{self, Icon};
use super::{State, View, theme};
use crate::models::{self, Origin, Weights};
use crate::pipeline::{Phase, Status};
use crate::result::{Stage, StageTimes};

/// Names that fit where the line is short; in the order of [`Stage::ALL`].
const SHORT_NAMES: [&str; 6] = ["cap", "det", "crop", "root", "lixel", "mesh"];
const NAMES: [&str; 6] = ["capture", "detect", "crop", "root depth", "lixel", "camera mesh"];

pub(super) fn line(ui: &mut Ui, view: &View, state: &mut State) {
    let wide = ui.available_width() > 1080.0;
    ui.horizontal_wrapped(|ui| {
        ui.spacing_mut().item_spacing = egui::vec2(5.0, 3.0);
        phase(ui, &view.status.phase, state.paused);
        gap(ui);
        if !view.status.backend.is_empty() {
            ui.label(theme::number(&view.status.backend)).on_hover_text("The device that the networks run on");
        }
        weights(ui, view.status);
        gap(ui);
        value(ui, 28.0, &format!("{:.1}", view.status.fps), "fps", "Results a second");
        if let Some(result) = view.result {
            gap(ui);
            stages(ui, &result.timing, result.detector_ran, wide);
        }
        gap(ui);
        let dropped = view.status.frames_dropped;
        value(ui, 14.0, &dropped.to_string(), "dropped", "Frames that were skipped to stay live: the newest wins");
        let notes = view.status.notes.iter().filter(|note| state.hidden_notes.contains(note)).count();
        if notes > 0 {
            gap(ui);
            let text = if notes == 1 { "1 note".to_owned() } else { format!("{notes} notes") };
            let button = egui::Button::new(RichText::new(text).text_style(TextStyle::Small).color(theme::WARN)).small();
            if ui.add(button).on_hover_text("Show them again").clicked() {
                state.hidden_notes.clear();
            }
        }
        message(ui, state);
    });
}

fn gap(ui: &mut Ui) {
    ui.add_space(4.0);
}

/// Whose weights the networks run with.
fn weights(ui: &mut Ui, status: &Status) {
    let is_built_in = |weights: &Weights| weights.origin == Origin::BuiltIn;
    let text = match status.weights.iter().filter(|weights| is_built_in(weights)).count() {
        _ if status.weights.is_empty() => return,
        0 => "own weights",
        some if some == status.weights.len() => "built-in weights",
        _ => "own and built-in weights",
    };
    gap(ui);
    ui.label(theme::hint(text)).on_hover_ui(|ui| {
        egui::Grid::new("weights").num_columns(2).spacing([18.0, 3.0]).show(ui, |ui| {
            for Weights { role, origin } in &status.weights {
                ui.label(theme::hint(role.name()));
                ui.label(origin.to_string());
                ui.end_row();
            }
        });
        if status.weights.iter().any(is_built_in) {
            ui.label(theme::hint(format!("Those that are built in were {} and on nothing else.", models::BUILT_IN)));
        }
        let folder = status.settings.models.display();
        ui.label(theme::hint(format!("Your own weights take their place in {folder}; lixelscope doctor says more.")));
    });
}

/// A number at the right end of its cell, and its unit: one thing, that is never broken over two lines.
fn value(ui: &mut Ui, width_pt: f32, number: &str, unit: &str, tip: &str) -> egui::Response {
    const GAP_PT: f32 = 3.0;
    let galley = |text: RichText| {
        egui::WidgetText::from(text).into_galley(ui, Some(egui::TextWrapMode::Extend), f32::INFINITY, TextStyle::Body)
    };
    let number_galley = galley(theme::number(number).color(theme::STRONG));
    let unit_galley = galley(theme::hint(unit).text_style(TextStyle::Small));
    let right_pt = width_pt.max(number_galley.size().x);
    let size = egui::vec2(right_pt + GAP_PT + unit_galley.size().x, number_galley.size().y);
    let (rect, response) = ui.allocate_exact_size(size, egui::Sense::hover());
    let text = format!("{number} {unit}");
    response.widget_info(|| egui::WidgetInfo::labeled(egui::Role::Label, true, &text));
    // Both stand on one line.
    let unit_y = rect.bottom() - unit_galley.size().y - 0.5;
    ui.painter().galley(
        egui::pos2(rect.left() + right_pt - number_galley.size().x, rect.top()),
        number_galley,
        theme::STRONG,
    );
    ui.painter().galley(egui::pos2(rect.left() + right_pt + GAP_PT, unit_y), unit_galley, theme::WEAK);
    if tip.is_empty() { response } else { response.on_hover_text(tip) }
}

fn phase(ui: &mut Ui, phase: &Phase, paused: bool) {
    let (colour, text, more) = match phase {
        Phase::Loading { what, done } => {
            ui.label(RichText::new("Loading").color(theme::ACCENT));
            ui.add(egui::Label::new(what).truncate());
            let bar = ProgressBar::new(done.clamp(0.0, 1.0)).desired_width(90.0).desired_height(8.0);
            ui.add(bar.fill(theme::ACCENT));
            ui.label(theme::number(format!("{:3.0}%", done.clamp(0.0, 1.0) * 100.0)));
            return;
        }
        Phase::Running if paused => (theme::WARN, "Pausing", None),
        Phase::Running => (theme::GOOD, "Running", None),
        Phase::Paused => (theme::WARN, "Paused", None),
        Phase::Ended(why) => (theme::WEAK, "Ended", Some(why)),
        Phase::Failed(why) => (theme::BAD, "Failed", Some(why)),
    };
    let (dot, _) = ui.allocate_exact_size(egui::Vec2::splat(8.0), egui::Sense::hover());
    ui.painter().circle_filled(dot.center(), 4.0, colour);
    ui.label(RichText::new(text).color(theme::STRONG));
    if let Some(why) = more.filter(|why| !why.is_empty()) {
        let width_pt = ui.available_width().min(260.0);
        let label = egui::Label::new(theme::hint(why)).truncate();
        ui.scope(|ui| {
            ui.set_max_width(width_pt);
            ui.add(label).on_hover_text(why);
        });
    }
}

fn stages(ui: &mut Ui, timing: &StageTimes, detector_ran: bool, wide: bool) {
    let names = if wide { NAMES } else { SHORT_NAMES };
    let table = |ui: &mut Ui| {
        egui::Grid::new("stages").num_columns(2).spacing([18.0, 3.0]).show(ui, |ui| {
            for (stage, name) in Stage::ALL.into_iter().zip(NAMES) {
                ui.label(theme::hint(name));
                ui.label(theme::number(format!("{:8.2} ms", timing.ms(stage))));
                ui.end_row();
            }
            ui.label("all but capture");
            ui.label(theme::number(format!("{:8.2} ms", timing.total_ms())));
            ui.end_row();
        });
        if !detector_ran {
            ui.label(theme::hint("The detector did not run on this frame; boxes follow the people."));
        }
    };
    let ms = |ms: f32| if ms < 99.95 { format!("{ms:.1}") } else { format!("{ms:.0}") };
    let mut all: Option<egui::Response> = None;
    for (stage, name) in Stage::ALL.into_iter().zip(names) {
        let response = value(ui, 30.0, &ms(timing.ms(stage)), name, "");
        all = Some(match all {
            Some(all) => all | response,
            None => response,
        });
    }
    let total = value(ui, 30.0, &ms(timing.total_ms()), "ms in all", "");
    all.map_or_else(|| total.clone(), |all| all | total.clone()).on_hover_ui(table);
}

fn message(ui: &mut Ui, state: &mut State) {
    let now = ui.ctx().time();
    if state.message.as_ref().is_some_and(|message| now >= message.until_secs) {
        state.message = None;
    }
    if let Some(message) = &state.message {
        gap(ui);
        let colour = if message.failed { theme::BAD } else { theme::ACCENT };
        ui.add(egui::Label::new(RichText::new(&message.text).color(colour)).truncate()).on_hover_text(&message.text);
    }
}

/// Passing conditions, worst first: a strip that can be put away.
pub(super) fn notes(ui: &mut Ui, view: &View, state: &mut State) {
    state.hidden_notes.retain(|hidden| view.status.notes.contains(hidden));
    let notes: Vec<_> = view.status.notes.iter().filter(|note| !state.hidden_notes.contains(note)).collect();
    if notes.is_empty() {
        return;
    }
    let frame = theme::bar().fill(egui::Color32::from_rgb(42, 35, 22));
    egui::Panel::top("notes").frame(frame).resizable(false).show(ui, |ui| {
        ui.horizontal_top(|ui| {
            let (square, _) = ui.allocate_exact_size(egui::Vec2::splat(16.0), egui::Sense::hover());
            icons::paint(ui.painter(), Icon::Warning, square.shrink(1.0), theme::WARN);
            ui.with_layout(Layout::right_to_left(Align::Min), |ui| {
                if ui.small_button("Hide").on_hover_text("Put the notes away; the status line keeps count").clicked() {
                    state.hidden_notes.extend(notes.iter().map(|note| (*note).clone()));
                }
                if notes.len() > 1 {
                    let text = if state.all_notes { "Less".to_owned() } else { format!("{} more", notes.len() - 1) };
                    if ui.small_button(text).clicked() {
                        state.all_notes ^= true;
                    }
                }
                ui.with_layout(Layout::top_down(Align::Min), |ui| {
                    // Some notes are long: a checkpoint that does not fit names every tensor.
                    let height = (ui.ctx().content_rect().height() * 0.25).max(40.0);
                    let area = egui::ScrollArea::vertical().id_salt("notes").max_height(height);
                    // In this row the panel would otherwise keep the height of one line.
                    area.min_scrolled_height(height).show(ui, |ui| {
                        for note in notes.iter().take(if state.all_notes { notes.len() } else { 1 }) {
                            ui.add(egui::Label::new(note.as_str()).wrap());
                        }
                    });
                });
            });
        });
    });
}
