//! The two views: the frame with the meshes on it, and the meshes in 3D. They are textures drawn elsewhere; here they
//! get their places, their mouse, and what is written on top of them.

use egui::emath::GuiRounding as _;
use egui::{
    Align2, Color32, CursorIcon, FontId, Id, PointerButton, Pos2, Rect, Sense, Shape, Stroke, StrokeKind, TextStyle,
    Ui, UiBuilder, pos2, vec2,
};
use glam::Vec2;

use super::{Action, State, View, evidence, theme};
use crate::pipeline::{Command, Phase};
use crate::render::{MeshColour, OverlayFit, Pick, pick_orbit, pick_overlay, spread_colour, spread_scale_lixel};
use crate::result::FrameResult;
use crate::settings::{BoxSource, SourceSpec};
use crate::space::RectPx;

/// Sides shorter than this are slips of the mouse, frame pixels.
const MIN_BOX_PX: f32 = 8.0;

/// How two places lie.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Axis {
    /// Side by side.
    Row,
    /// One above the other.
    Column,
}

/// A place divided in two, with a line between the parts that can be dragged.
pub(super) struct Split {
    axis: Axis,
    whole: Rect,
    /// From the start of the whole to the line.
    first_pt: f32,
    of_second: bool,
}

impl Split {
    const LINE_PT: f32 = 1.0;

    /// The first part gets this share of the whole, as far as the least lengths allow; where there is too little for
    /// both, the first gives way.
    pub(super) fn first(whole: Rect, axis: Axis, share: f32, least_pt: [f32; 2]) -> Self {
        let length = if axis == Axis::Row { whole.width() } else { whole.height() };
        let most = (length - least_pt[1] - Self::LINE_PT).max(0.0);
        let first_pt = (length * share).max(least_pt[0]).min(most);
        Self { axis, whole, first_pt, of_second: false }
    }

    /// As [`Split::first`], but the share is the second part's.
    pub(super) fn second(whole: Rect, axis: Axis, share: f32, least_pt: [f32; 2]) -> Self {
        Self { of_second: true, ..Self::first(whole, axis, 1.0 - share, least_pt) }
    }

    /// The two parts.
    pub(super) fn parts(&self) -> [Rect; 2] {
        let at = self.whole.min + egui::Vec2::splat(self.first_pt);
        match self.axis {
            Axis::Row => [self.whole.with_max_x(at.x), self.whole.with_min_x(at.x + Self::LINE_PT)],
            Axis::Column => [self.whole.with_max_y(at.y), self.whole.with_min_y(at.y + Self::LINE_PT)],
        }
    }

    /// The line. After the parts were filled, so that it lies above them.
    pub(super) fn grip(&self, ui: &Ui, name: &str) -> Grip {
        const GRIP_PT: f32 = 3.0;
        let [a, b] = self.parts();
        let (line, cursor) = match self.axis {
            Axis::Row => (self.whole.with_min_x(a.right()).with_max_x(b.left()), CursorIcon::ResizeHorizontal),
            Axis::Column => (self.whole.with_min_y(a.bottom()).with_max_y(b.top()), CursorIcon::ResizeVertical),
        };
        let response = ui.interact(line.expand(GRIP_PT), Id::unique("split").with(name), Sense::click_and_drag());
        let dragged_to = response.interact_pointer_pos().filter(|_| response.dragged());
        let share = dragged_to.map(|at| {
            let (at, length) = match self.axis {
                Axis::Row => (at.x - self.whole.left(), self.whole.width()),
                Axis::Column => (at.y - self.whole.top(), self.whole.height()),
            };
            let first = (at / length.max(1.0)).clamp(0.05, 0.95);
            if self.of_second { 1.0 - first } else { first }
        });
        let active = response.hovered() || response.dragged();
        ui.painter().rect_filled(line, 0.0, if active { theme::ACCENT } else { theme::LINE });
        Grip { share, reset: response.on_hover_and_drag_cursor(cursor).double_clicked() }
    }
}

/// What was done with the line of a [`Split`].
pub(super) struct Grip {
    /// It was dragged: the new share.
    pub(super) share: Option<f32>,
    /// It was double-clicked: back to the default.
    pub(super) reset: bool,
}

/// As much of the place as the frame can use, and at most two thirds.
pub(super) fn wanted_share(place: Rect, axis: Axis, result: Option<&FrameResult>) -> f32 {
    const MOST: f32 = 0.68;
    let aspect = result.map_or(16.0 / 9.0, |result| {
        let (width, height) = result.frame.rgb.dimensions();
        width as f32 / height.max(1) as f32
    });
    let share = match axis {
        Axis::Row => place.height() * aspect / place.width().max(1.0),
        Axis::Column => place.width() / aspect / place.height().max(1.0),
    };
    share.clamp(0.3, MOST)
}

/// A file that was dropped onto the window becomes the source.
pub(super) fn dropped_file(ctx: &egui::Context, state: &mut State, actions: &mut Vec<Action>) {
    let dropped = ctx.input(|input| input.raw.dropped_files.first().map(|file| file.path().to_owned()));
    if let Some(path) = dropped {
        state.path = path.display().to_string();
        state.send(Command::Source(SourceSpec::Path(path)), actions);
    }
    if ctx.input(|input| !input.raw.hovered_files.is_empty()) {
        let painter = ctx.layer_painter(egui::LayerId::new(egui::Order::Foreground, Id::unique("drop")));
        let rect = ctx.content_rect();
        painter.rect_filled(rect, 0.0, Color32::from_black_alpha(170));
        painter.rect_stroke(rect.shrink(12.0), 8.0, Stroke::new(2.0, theme::ACCENT), StrokeKind::Inside);
        let text = "Drop to open as the source";
        painter.text(rect.center(), Align2::CENTER_CENTER, text, FontId::proportional(20.0), theme::STRONG);
    }
}

/// The frame with the meshes drawn on it. Returns the size at which it is shown, physical pixels.
pub(super) fn frame(ui: &mut Ui, place: Rect, view: &View, state: &mut State, actions: &mut Vec<Action>) -> [u32; 2] {
    ui.painter().rect_filled(place, 0.0, theme::BACKGROUND);
    let Some(result) = view.result else {
        waiting(ui, place, view);
        return [0, 0];
    };
    let per_pt = ui.pixels_per_point();
    let size = [result.frame.rgb.width(), result.frame.rgb.height()];
    let fit = OverlayFit::new(size, pixels(place.size(), per_pt));
    let shown = (Vec2::new(size[0] as f32, size[1] as f32) * fit.scale).round().max(Vec2::ONE);
    let min = place.min.round_to_pixels(per_pt) + vec2(fit.origin.x, fit.origin.y) / per_pt;
    let rect = Rect::from_min_size(min, vec2(shown.x, shown.y) / per_pt);
    let shown = [shown.x as u32, shown.y as u32];
    // The texture holds the frame and nothing around it.
    let fit = OverlayFit::new(size, shown);
    let frame_from_view = |at: Pos2| fit.frame_from_target(Vec2::new(at.x - rect.left(), at.y - rect.top()) * per_pt);
    let view_from_frame = |p: Vec2| {
        let p = fit.target_from_frame(p) / per_pt;
        rect.min + vec2(p.x, p.y)
    };

    let response = ui.interact(rect, Id::unique("frame view"), Sense::click_and_drag());
    response.widget_info(|| egui::WidgetInfo::labeled(egui::Role::Image, true, "frame view"));
    let painter = ui.painter_at(place);
    painter.image(view.frame_texture, rect, Rect::from_min_max(pos2(0.0, 0.0), pos2(1.0, 1.0)), Color32::WHITE);

    if let (true, Some(person)) = (state.heatmaps_on_frame, state.shown_person(result)) {
        let hidden = state.draw.hidden.contains(&person.id);
        let heatmaps = person.heatmaps.iter().find(|heatmaps| Some(heatmaps.landmark) == state.landmark);
        if let Some(heatmaps) = heatmaps.filter(|_| !hidden) {
            evidence::draw(&ui.painter_at(rect), person, heatmaps, view_from_frame);
        }
    }
    if state.draws_boxes() {
        draw_boxes(ui, &response, result, state, actions, frame_from_view, view_from_frame);
    }
    if response.clicked()
        && let Some(at) = response.interact_pointer_pos()
    {
        choose(pick_overlay(result, &state.draw, frame_from_view(at)), state, actions);
    }

    let time = result.frame.captured_at.as_secs_f64();
    let name = result.frame.name.as_deref().map(|name| format!("   {name}")).unwrap_or_default();
    let text = format!("{}   {time:.2} s   {}×{}{name}", result.frame.index, size[0], size[1]);
    caption(ui, place, Align2::LEFT_BOTTOM, &text);
    if let Some(text) = truth_caption(result) {
        caption(ui, place, Align2::LEFT_TOP, text);
    }
    if state.draw.colour == MeshColour::Spread && state.draw.mesh {
        spread_legend(ui, place, result.bins);
    }
    failure(ui, place, view);
    shown
}

/// The meshes in 3D. Returns the size at which they are shown, physical pixels.
pub(super) fn orbit(ui: &mut Ui, place: Rect, view: &View, state: &mut State, actions: &mut Vec<Action>) -> [u32; 2] {
    let per_pt = ui.pixels_per_point();
    let place = place.round_to_pixels(per_pt);
    let size = pixels(place.size(), per_pt);
    ui.painter().rect_filled(place, 0.0, theme::BACKGROUND);
    let Some(result) = view.result else { return [0, 0] };
    state.orbit_aspect = place.width() / place.height().max(1.0);
    if !state.orbit_settled {
        state.fit(Some(result));
        state.orbit_settled = !result.people.is_empty();
    }
    let response = ui.interact(place, Id::unique("3D view"), Sense::click_and_drag());
    response.widget_info(|| egui::WidgetInfo::labeled(egui::Role::Image, true, "3D view"));
    let full = Rect::from_min_max(pos2(0.0, 0.0), pos2(1.0, 1.0));
    ui.painter_at(place).image(view.orbit_texture, place, full, Color32::WHITE);

    let drag = response.drag_delta();
    let drag = Vec2::new(drag.x, drag.y);
    if drag != Vec2::ZERO {
        let pans = response.dragged_by(PointerButton::Secondary)
            || response.dragged_by(PointerButton::Middle)
            || ui.input(|input| input.modifiers.shift);
        if pans {
            state.orbit.pan(drag, place.height());
        } else {
            state.orbit.orbit(drag, place.height());
        }
        state.orbit_settled = true;
    }
    if response.hovered() {
        let (scroll_pt, pinch) = ui.input(|input| (input.smooth_scroll_delta().y, input.zoom_delta()));
        let factor = (-scroll_pt / 400.0).exp() / pinch;
        if factor != 1.0 {
            state.orbit.zoom(factor);
            state.orbit_settled = true;
        }
    }
    if response.double_clicked() {
        state.fit(view.result);
    } else if response.clicked()
        && let Some(at) = response.interact_pointer_pos()
    {
        let at = (at - place.min) * per_pt;
        let pick = pick_orbit(result, &state.draw, &state.orbit, size, Vec2::new(at.x, at.y));
        choose(pick, state, actions);
    }
    if let Some(text) = truth_caption(result) {
        caption(ui, place, Align2::LEFT_TOP, text);
    }
    if response.hovered() && place.width() > 250.0 {
        caption(ui, place, Align2::LEFT_BOTTOM, "drag: turn   shift-drag: move   wheel: zoom");
    }
    size
}

/// The picked vertex or joint, if any: a click into the void changes nothing.
fn choose(pick: Option<Pick>, state: &mut State, actions: &mut Vec<Action>) {
    if let Some(pick) = pick {
        state.choose(Some(pick.person), Some(pick.landmark), actions);
    }
}

/// The user's rectangles, and the one that is being drawn.
fn draw_boxes(
    ui: &Ui,
    response: &egui::Response,
    result: &FrameResult,
    state: &mut State,
    actions: &mut Vec<Action>,
    frame_from_view: impl Fn(Pos2) -> Vec2,
    view_from_frame: impl Fn(Vec2) -> Pos2,
) {
    let (width, height) = result.frame.rgb.dimensions();
    if response.drag_started_by(PointerButton::Primary)
        && let Some(at) = ui.input(|input| input.pointer.press_origin())
    {
        state.drawing = Some((frame_from_view(at), frame_from_view(at)));
    }
    if let (Some((_, end)), Some(at)) = (&mut state.drawing, response.interact_pointer_pos()) {
        *end = frame_from_view(at);
    }
    let place = |rect: &RectPx| Rect::from_min_max(view_from_frame(rect.min()), view_from_frame(rect.max()));
    let painter = ui.painter_at(response.rect);
    let dashes = |rect: Rect, colour: Color32| {
        let path = [rect.left_top(), rect.right_top(), rect.right_bottom(), rect.left_bottom(), rect.left_top()];
        painter.extend(Shape::dashed_line(&path, Stroke::new(1.5, Color32::from_black_alpha(150)), 5.0, 4.0));
        painter.extend(Shape::dashed_line(&path, Stroke::new(1.0, colour), 5.0, 4.0));
    };
    for rect in state.drawn_boxes() {
        dashes(place(rect), theme::STRONG);
    }
    if let Some((start, end)) = state.drawing {
        let drawn = RectPx::from_corners(start, end).clipped(width, height);
        let drawn = drawn.filter(|rect| rect.w >= MIN_BOX_PX && rect.h >= MIN_BOX_PX);
        if let Some(rect) = drawn {
            dashes(place(&rect), theme::ACCENT);
            let text = format!("{:.0}×{:.0}", rect.w, rect.h);
            let font = TextStyle::Small.resolve(ui.style());
            painter.text(place(&rect).min + vec2(4.0, 3.0), Align2::LEFT_TOP, text, font, theme::STRONG);
        }
        if !response.dragged() {
            state.drawing = None;
            if let Some(rect) = drawn {
                let boxes = state.drawn_boxes().iter().copied().chain([rect]).collect();
                state.send(Command::Boxes(BoxSource::User(boxes)), actions);
            }
        }
    }
    response.clone().on_hover_cursor(CursorIcon::Crosshair);
}

/// What the frame view says before there is a frame.
fn waiting(ui: &mut Ui, place: Rect, view: &View) {
    let (line, more) = match &view.status.phase {
        Phase::Loading { .. } | Phase::Running if !view.status.source.is_empty() => ("Waiting for the first frame", ""),
        Phase::Failed(why) => ("The source failed", why.as_str()),
        Phase::Ended(why) if !view.status.source.is_empty() => ("The source ended", why.as_str()),
        _ => ("Nothing to look at yet", "Choose a webcam, a picture or a video under Source, or drop a file here."),
    };
    let middle = Rect::from_center_size(place.center(), vec2((place.width() - 32.0).clamp(0.0, 440.0), 120.0));
    ui.scope_builder(UiBuilder::new().max_rect(middle).id_salt("waiting"), |ui| {
        theme::empty_state(ui, line, more);
        if let Phase::Loading { what, done } = &view.status.phase {
            ui.add_space(8.0);
            ui.vertical_centered(|ui| {
                ui.label(theme::hint(format!("Loading {what}")));
                ui.visuals_mut().extreme_bg_color = theme::LINE;
                let width_pt = ui.available_width().min(220.0);
                let bar = egui::ProgressBar::new(done.clamp(0.0, 1.0)).desired_width(width_pt).desired_height(6.0);
                ui.add(bar.fill(theme::ACCENT));
            });
        }
    });
}

/// A source that failed, said over its last frame.
fn failure(ui: &mut Ui, place: Rect, view: &View) {
    let Phase::Failed(why) = &view.status.phase else { return };
    let text = format!("{why}  ·  R opens it again; Source opens another");
    let width = (place.width() - 40.0).max(60.0);
    let font = TextStyle::Body.resolve(ui.style());
    let galley = ui.painter().layout(text, font, theme::STRONG, width);
    let rect = Rect::from_center_size(place.center_top() + vec2(0.0, galley.size().y * 0.5 + 16.0), galley.size());
    let painter = ui.painter_at(place);
    painter.rect_filled(rect.expand2(vec2(10.0, 6.0)), theme::RADIUS, Color32::from_black_alpha(205));
    painter.rect_stroke(rect.expand2(vec2(10.0, 6.0)), theme::RADIUS, Stroke::new(1.0, theme::BAD), StrokeKind::Inside);
    painter.galley(rect.min, galley, theme::STRONG);
}

/// Small numbers in a corner of a view.
/// What is drawn that no network has found.
fn truth_caption(result: &FrameResult) -> Option<&'static str> {
    let truths = result.people.iter().filter(|person| person.true_index().is_some()).count();
    match truths {
        0 => None,
        _ if truths == result.people.len() => Some("ground truth"),
        _ => Some("found, and ground truth"),
    }
}

fn caption(ui: &Ui, place: Rect, corner: Align2, text: &str) {
    let font = TextStyle::Small.resolve(ui.style());
    let painter = ui.painter_at(place);
    let galley = painter.layout_no_wrap(text.to_owned(), font, theme::TEXT);
    if galley.size().x + 20.0 > place.width() {
        return;
    }
    let rect = corner.align_size_within_rect(galley.size() + vec2(10.0, 5.0), place.shrink(5.0));
    painter.rect_filled(rect, theme::RADIUS, Color32::from_black_alpha(150));
    painter.galley(rect.min + vec2(5.0, 2.5), galley, theme::TEXT);
}

/// The colour map of the spread.
fn spread_legend(ui: &Ui, place: Rect, bins: usize) {
    const SIZE_PT: egui::Vec2 = vec2(120.0, 8.0);
    let font = TextStyle::Small.resolve(ui.style());
    let painter = ui.painter_at(place);
    let scale = spread_scale_lixel(bins);
    let back = Align2::RIGHT_BOTTOM.align_size_within_rect(SIZE_PT + vec2(16.0, 26.0), place.shrink(5.0));
    if back.width() * 2.6 > place.width() {
        return;
    }
    painter.rect_filled(back, theme::RADIUS, Color32::from_black_alpha(150));
    let bar = Rect::from_min_size(back.min + vec2(8.0, 7.0), SIZE_PT);
    let steps = 40;
    for step in 0..steps {
        let share = |step: usize| step as f32 / steps as f32;
        let [r, g, b] = spread_colour(scale * (share(step) + 0.5 / steps as f32), bins).map(|c| (c * 255.0) as u8);
        let left = bar.left() + bar.width() * share(step);
        let right = bar.left() + bar.width() * share(step + 1);
        painter.rect_filled(bar.with_min_x(left).with_max_x(right), 0.0, Color32::from_rgb(r, g, b));
    }
    let below = bar.bottom() + 2.0;
    painter.text(pos2(bar.left(), below), Align2::LEFT_TOP, "0", font.clone(), theme::TEXT);
    painter.text(pos2(bar.center().x, below), Align2::CENTER_TOP, "spread, lixels", font.clone(), theme::TEXT);
    painter.text(pos2(bar.right(), below), Align2::RIGHT_TOP, format!("{scale:.0}+"), font, theme::TEXT);
}

fn pixels(size_pt: egui::Vec2, per_pt: f32) -> [u32; 2] {
    [size_pt.x, size_pt.y].map(|length| (length * per_pt).round().max(0.0) as u32)
}
