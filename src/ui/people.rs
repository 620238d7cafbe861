//! The people of the frame: colour, id, score, depth, on or off. A click chooses whose heatmaps are shown.

use egui::{Align2, FontId, Rect, Role, Sense, Stroke, StrokeKind, TextStyle, Ui, Vec2, WidgetInfo, pos2};

use super::icons::{self, Icon};
use super::{State, View, theme};
use crate::eval::live::{self, Errors};
use crate::render::person_colour;
use crate::result::{MeshSource, Person, RootSource};

const ROW_HEIGHT_PT: f32 = 24.0;
/// A second line, of errors.
const ERRORS_HEIGHT_PT: f32 = 14.0;

pub(super) fn panel(ui: &mut Ui, view: &View, state: &mut State, max_height_pt: f32) {
    let people = view.result.map_or(&[][..], |result| &result.people);
    ui.horizontal(|ui| {
        ui.label(theme::heading("people"));
        if !people.is_empty() {
            ui.label(theme::number(people.len().to_string()).color(theme::TEXT));
        }
    });
    if people.is_empty() {
        ui.add_space(6.0);
        match view.result {
            None if !view.status.source.is_empty() => theme::empty_state(ui, "No frame yet", ""),
            None => theme::empty_state(ui, "No source", "Choose a webcam, a picture or a video under Source."),
            Some(_) if state.draws_boxes() && state.drawn_boxes().is_empty() => {
                theme::empty_state(ui, "No boxes drawn", "Drag a rectangle around each person, on the frame.");
            }
            Some(result) if result.bins == 0 => {
                theme::empty_state(
                    ui,
                    "Nobody has looked",
                    "The network is not loaded; the note above the frame says why.",
                );
            }
            Some(_) => theme::empty_state(ui, "No people in this frame", ""),
        }
        ui.add_space(6.0);
        return;
    }
    let has_params = |person: &Person| person.mesh.as_ref().is_none_or(|mesh| mesh.params.is_some());
    if state.settings.mesh_source == MeshSource::Param && !people.iter().any(has_params) {
        ui.label(theme::hint("Lixel meshes: these weights have no second stage, which would say parameters."));
    }
    let errors = view.result.map(live::errors).unwrap_or_default();
    let shown = view.result.and_then(|result| state.shown_person(result)).map(|person| person.id);
    egui::ScrollArea::vertical().id_salt("people").max_height(max_height_pt).auto_shrink([false, true]).show(
        ui,
        |ui| {
            ui.spacing_mut().item_spacing.y = 1.0;
            for (person, errors) in people.iter().zip(errors) {
                row(ui, person, errors, shown == Some(person.id), state);
            }
        },
    );
}

fn row(ui: &mut Ui, person: &Person, errors: Option<Errors>, selected: bool, state: &mut State) {
    let id = person.id;
    let truth = person.true_index().map(|index| index + 1);
    let height_pt = ROW_HEIGHT_PT + if errors.is_some() { ERRORS_HEIGHT_PT } else { 0.0 };
    let (whole, response) = ui.allocate_exact_size(Vec2::new(ui.available_width(), height_pt), Sense::click());
    let rect = whole.with_max_y(whole.top() + ROW_HEIGHT_PT);
    let name = || match truth {
        Some(number) => format!("true person {number}, {:.2} m", person.root_camera_m.z),
        None => format!("person {id}, {:.0}%, {:.2} m", person.score * 100.0, person.root_camera_m.z),
    };
    response.widget_info(|| WidgetInfo::selected(Role::ListBoxOption, true, selected, name()));
    let hidden = state.draw.hidden.contains(&id);
    let painter = ui.painter();
    if selected || response.hovered() {
        let fill = if selected { theme::ACCENT_FILL.gamma_multiply(0.55) } else { theme::RAISED };
        painter.rect_filled(whole, theme::RADIUS, fill);
    }

    let [r, g, b] = person_colour(id).map(|channel| (channel.clamp(0.0, 1.0) * 255.0).round() as u8);
    let colour = egui::Color32::from_rgb(r, g, b);
    let fade = |colour: egui::Color32| if hidden { colour.gamma_multiply(0.45) } else { colour };
    let swatch = Rect::from_center_size(pos2(rect.left() + 14.0, rect.center().y), Vec2::splat(12.0));
    if hidden {
        painter.rect_stroke(swatch, theme::RADIUS, Stroke::new(1.5, fade(colour)), StrokeKind::Inside);
    } else {
        painter.rect_filled(swatch, theme::RADIUS, colour);
    }

    let number = FontId { size: 12.5, ..TextStyle::Body.resolve(ui.style()) };
    let small = TextStyle::Small.resolve(ui.style());
    let middle = rect.center().y;
    painter.text(
        pos2(rect.left() + 28.0, middle),
        Align2::LEFT_CENTER,
        person.label(),
        number.clone(),
        fade(theme::STRONG),
    );
    // Right to left: switch, depth, score; the columns keep their places at every width.
    let depth_right = rect.right() - 30.0;
    let unit = painter.text(pos2(depth_right, middle), Align2::RIGHT_CENTER, "m", small.clone(), fade(theme::WEAK));
    let guessed = person.root_source == RootSource::BoxSize;
    let depth = format!("{}{:.2}", if guessed { "~" } else { "" }, person.root_camera_m.z);
    let colour = fade(if guessed { theme::WARN } else { theme::STRONG });
    painter.text(pos2(unit.left() - 3.0, middle), Align2::RIGHT_CENTER, depth, number.clone(), colour);
    let score_right = depth_right - 68.0;
    if truth.is_none() && score_right > rect.left() + 62.0 {
        let score = format!("{:.0}%", person.score * 100.0);
        painter.text(pos2(score_right, middle), Align2::RIGHT_CENTER, score, number, fade(theme::TEXT));
        let bar = Rect::from_min_max(pos2(rect.left() + 62.0, middle - 2.0), pos2(score_right - 38.0, middle + 2.0));
        if bar.width() > 16.0 {
            painter.rect_filled(bar, 2.0, theme::LINE);
            let done = bar.width() * person.score.clamp(0.0, 1.0);
            painter.rect_filled(bar.with_max_x(bar.left() + done), 2.0, fade(theme::WEAK));
        }
    }

    if let Some(Errors { mpjpe_mm, pa_mpjpe_mm, root_mm }) = errors {
        let all = format!("MPJPE {mpjpe_mm:.0}   PA {pa_mpjpe_mm:.0}   root {root_mm:.0} mm");
        let some = format!("MPJPE {mpjpe_mm:.0}   root {root_mm:.0} mm");
        let at = pos2(rect.left() + 28.0, rect.bottom() - 3.0);
        let layout = |text| painter.layout_no_wrap(text, TextStyle::Small.resolve(ui.style()), fade(theme::TEXT));
        // Where the panel is narrow, what matters most.
        let galley = Some(layout(all)).filter(|all| at.x + all.size().x < rect.right() - 4.0);
        painter.galley(at, galley.unwrap_or_else(|| layout(some)), theme::TEXT);
    }

    let switch = Rect::from_center_size(pos2(rect.right() - 13.0, middle), Vec2::splat(16.0));
    let toggle = ui.interact(switch.expand(3.0), response.id.with("draw"), Sense::click());
    toggle.widget_info(|| WidgetInfo::selected(Role::CheckBox, true, !hidden, format!("draw person {id}")));
    let line = if toggle.hovered() { theme::STRONG } else { theme::LINE };
    painter.rect(switch, theme::RADIUS, theme::BACKGROUND, Stroke::new(1.0, line), StrokeKind::Inside);
    if !hidden {
        icons::paint(painter, Icon::Check, switch.shrink(3.5), theme::STRONG);
    }
    if toggle.on_hover_text("Draw this person, or not").clicked() && !state.draw.hidden.remove(&id) {
        state.draw.hidden.insert(id);
    }
    if response.clicked() {
        state.person = Some(id);
    }
    response.on_hover_ui(|ui| details(ui, person));
}

fn details(ui: &mut Ui, person: &Person) {
    let root = person.root_camera_m;
    let rect = person.rect;
    let rows = [
        ("score", format!("{:.3}", person.score)),
        ("root x, y, z", format!("{:+.3} {:+.3} {:.3} m", root.x, root.y, root.z)),
        ("distance", format!("{:.3} m", root.length())),
        ("box x, y, w, h", format!("{:.0} {:.0} {:.0} {:.0} px", rect.x, rect.y, rect.w, rect.h)),
    ];
    let spread = person.mesh.as_ref().map_or(&person.joint_spread_lixel[..], |mesh| &mesh.spread_lixel);
    egui::Grid::new("details").num_columns(2).spacing([14.0, 3.0]).show(ui, |ui| {
        for (what, value) in rows {
            ui.label(theme::hint(what));
            ui.label(theme::number(value));
            ui.end_row();
        }
        let source = match person.root_source {
            RootSource::RootNet => "RootNet",
            RootSource::BoxSize => "the size of the box: a rough guess, RootNet is missing",
            RootSource::Truth => "the truth: this person was not found, but is there",
        };
        ui.label(theme::hint("depth from"));
        ui.label(source);
        ui.end_row();
        if !spread.is_empty() {
            let mean = spread.iter().sum::<glam::Vec3>() / spread.len() as f32;
            ui.label(theme::hint("mean spread"));
            ui.label(theme::number(format!("{:.2} {:.2} {:.2} lixels", mean.x, mean.y, mean.z)));
            ui.end_row();
        }
    });
}
