//! How the window looks: one palette, one set of distances, one type face. Its digits share one width, and numbers that
//! change stand in cells of fixed width ([`cell`]), so that nothing jitters.

use egui::{Color32, CornerRadius, FontFamily, FontId, Frame, Margin, RichText, Stroke, TextStyle, Vec2};

/// Behind the two views.
pub const BACKGROUND: Color32 = Color32::from_rgb(11, 13, 17);
/// Side panel and bars.
pub const PANEL: Color32 = Color32::from_rgb(20, 24, 30);
/// Buttons and fields at rest.
pub const RAISED: Color32 = Color32::from_rgb(33, 39, 48);
/// Buttons under the pointer.
pub const HOVERED: Color32 = Color32::from_rgb(45, 53, 65);
/// Hairlines.
pub const LINE: Color32 = Color32::from_rgb(42, 49, 60);
/// Text.
pub const TEXT: Color32 = Color32::from_rgb(214, 220, 228);
/// Headings and values that matter.
pub const STRONG: Color32 = Color32::from_rgb(243, 246, 250);
/// Captions, units, hints. Still 4.5:1 on [`PANEL`].
pub const WEAK: Color32 = Color32::from_rgb(139, 150, 165);
/// What is selected.
pub const ACCENT: Color32 = Color32::from_rgb(86, 168, 232);
/// Fill of what is selected.
pub const ACCENT_FILL: Color32 = Color32::from_rgb(30, 72, 108);
/// All is well.
pub const GOOD: Color32 = Color32::from_rgb(102, 192, 132);
/// Something wants attention.
pub const WARN: Color32 = Color32::from_rgb(228, 178, 86);
/// Something failed.
pub const BAD: Color32 = Color32::from_rgb(238, 112, 98);
/// The x, y and z axes.
pub const AXES: [Color32; 3] =
    [Color32::from_rgb(232, 108, 120), Color32::from_rgb(120, 196, 112), Color32::from_rgb(98, 158, 242)];

/// Distance between unrelated things.
pub const GAP: f32 = 12.0;
/// Corner radius of everything that has corners.
pub const RADIUS: CornerRadius = CornerRadius::same(3);

/// Sets fonts, spacing and colours. Once for each context.
pub fn install(ctx: &egui::Context) {
    ctx.set_theme(egui::Theme::Dark);
    ctx.all_styles_mut(style);
    ctx.options_mut(|options| {
        options.zoom_with_keyboard = true;
        options.fallback_theme = egui::Theme::Dark;
    });
}

fn style(style: &mut egui::Style) {
    let proportional = |size| FontId::new(size, FontFamily::Proportional);
    style.text_styles = [
        (TextStyle::Heading, proportional(15.0)),
        (TextStyle::Body, proportional(13.0)),
        (TextStyle::Button, proportional(13.0)),
        (TextStyle::Small, proportional(11.5)),
        (TextStyle::Monospace, FontId::new(12.0, FontFamily::Monospace)),
    ]
    .into();
    style.animation_time = 0.08;
    style.interaction.selectable_labels = false;
    style.interaction.tooltip_delay = 0.35;

    let spacing = &mut style.spacing;
    spacing.item_spacing = Vec2::new(6.0, 5.0);
    spacing.button_padding = Vec2::new(8.0, 2.0);
    spacing.interact_size = Vec2::new(24.0, 22.0);
    spacing.menu_margin = Margin::same(10);
    spacing.window_margin = Margin::same(14);
    spacing.icon_width = 15.0;
    spacing.icon_width_inner = 8.0;
    spacing.slider_width = 130.0;
    spacing.combo_width = 60.0;
    spacing.tooltip_width = 320.0;
    spacing.scroll = egui::style::ScrollStyle::thin();

    let visuals = &mut style.visuals;
    *visuals = egui::Visuals::dark();
    visuals.override_text_color = None;
    visuals.weak_text_color = Some(WEAK);
    visuals.panel_fill = PANEL;
    visuals.window_fill = Color32::from_rgb(26, 31, 39);
    visuals.window_stroke = Stroke::new(1.0, LINE);
    visuals.window_corner_radius = CornerRadius::same(6);
    visuals.menu_corner_radius = CornerRadius::same(5);
    visuals.extreme_bg_color = BACKGROUND;
    visuals.faint_bg_color = Color32::from_rgb(25, 30, 37);
    visuals.code_bg_color = RAISED;
    visuals.hyperlink_color = ACCENT;
    visuals.warn_fg_color = WARN;
    visuals.error_fg_color = BAD;
    visuals.selection.bg_fill = ACCENT_FILL;
    visuals.selection.stroke = Stroke::new(1.0, STRONG);
    visuals.slider_trailing_fill = true;
    visuals.disabled_alpha = 0.4;

    let widgets = &mut visuals.widgets;
    let set = |widget: &mut egui::style::WidgetVisuals, fill, line, text| {
        widget.bg_fill = fill;
        widget.weak_bg_fill = fill;
        widget.bg_stroke = Stroke::new(1.0, line);
        widget.fg_stroke = Stroke::new(1.0, text);
        widget.corner_radius = RADIUS;
        widget.expansion = 0.0;
    };
    set(&mut widgets.noninteractive, PANEL, LINE, TEXT);
    set(&mut widgets.inactive, RAISED, Color32::TRANSPARENT, TEXT);
    // Check marks, radio buttons and rails stand on panels and on menus alike.
    widgets.inactive.bg_fill = Color32::from_rgb(58, 67, 80);
    set(&mut widgets.hovered, HOVERED, Color32::from_rgb(70, 82, 99), STRONG);
    set(&mut widgets.active, ACCENT_FILL, ACCENT, STRONG);
    set(&mut widgets.open, HOVERED, LINE, STRONG);
}

/// The bars at the top and at the bottom.
pub fn bar() -> Frame {
    Frame::new().fill(PANEL).inner_margin(Margin::symmetric(10, 6))
}

/// The panel at the side.
pub fn side() -> Frame {
    Frame::new().fill(PANEL).inner_margin(Margin::symmetric(10, 8))
}

/// A section's heading: small capitals by hand.
pub fn heading(text: &str) -> RichText {
    RichText::new(text.to_uppercase()).size(11.0).color(WEAK).extra_letter_spacing(0.8)
}

/// A number, or a text of numbers.
pub fn number(text: impl Into<String>) -> RichText {
    RichText::new(text).size(12.5)
}

/// A text at the right end of a cell of fixed width.
pub fn cell(ui: &mut egui::Ui, width_pt: f32, text: RichText) -> egui::Response {
    let size = Vec2::new(width_pt, ui.text_style_height(&TextStyle::Body));
    let layout = egui::Layout::right_to_left(egui::Align::Center);
    ui.allocate_ui_with_layout(size, layout, |ui| {
        ui.set_min_width(width_pt);
        ui.label(text)
    })
    .inner
}

/// A caption or a hint.
pub fn hint(text: impl Into<String>) -> RichText {
    RichText::new(text).color(WEAK)
}

/// A text in the middle of an empty place, that says what to do: a line in body size, then one smaller.
pub fn empty_state(ui: &mut egui::Ui, line: &str, more: &str) {
    ui.vertical_centered(|ui| {
        ui.add(egui::Label::new(RichText::new(line).color(TEXT)).wrap());
        if !more.is_empty() {
            ui.add(egui::Label::new(hint(more).text_style(TextStyle::Small)).wrap());
        }
    });
}
