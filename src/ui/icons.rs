//! The few symbols of the window, drawn: the fonts that are shipped have none of them.

use egui::epaint::PathShape;
use egui::{Button, Color32, Painter, Pos2, Rect, Response, Shape, Stroke, Ui, Vec2, pos2, vec2};

/// A symbol.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Icon {
    Play,
    Pause,
    Step,
    Restart,
    Warning,
    Check,
}

/// A button that shows a symbol and is known by a name.
pub(super) fn button(ui: &mut Ui, enabled: bool, icon: Icon, name: &str) -> Response {
    let response = ui.add_enabled(enabled, Button::new("").min_size(vec2(30.0, ui.spacing().interact_size.y)));
    let colour = ui.style().interact(&response).fg_stroke.color;
    let colour = if enabled { colour } else { ui.visuals().disable(colour) };
    paint(ui.painter(), icon, Rect::from_center_size(response.rect.center(), Vec2::splat(12.0)), colour);
    response.accessible_name(name)
}

/// A symbol in a square.
pub(super) fn paint(painter: &Painter, icon: Icon, square: Rect, colour: Color32) {
    let at = |x: f32, y: f32| pos2(square.left() + x * square.width(), square.top() + y * square.height());
    let filled = |points: Vec<Pos2>| painter.add(Shape::convex_polygon(points, colour, Stroke::NONE));
    let bar = |left, right| {
        painter.rect_filled(Rect::from_min_max(at(left, 0.05), at(right, 0.95)), 1.0, colour);
    };
    match icon {
        Icon::Play => {
            filled(vec![at(0.14, 0.02), at(0.96, 0.5), at(0.14, 0.98)]);
        }
        Icon::Pause => {
            bar(0.12, 0.38);
            bar(0.62, 0.88);
        }
        Icon::Step => {
            filled(vec![at(0.06, 0.05), at(0.68, 0.5), at(0.06, 0.95)]);
            bar(0.72, 0.92);
        }
        Icon::Restart => {
            // Three quarters of a circle, and the head of an arrow at its end.
            let (centre, radius) = (at(0.5, 0.54), 0.40 * square.width());
            let arc = (0..=24).map(|i| {
                let angle = (-60.0 + 300.0 * i as f32 / 24.0).to_radians();
                centre + radius * vec2(angle.cos(), angle.sin())
            });
            painter.add(Shape::Path(PathShape::line(arc.collect(), Stroke::new(1.6, colour))));
            let tip = centre + radius * vec2(0.5, -0.866);
            filled(vec![tip + vec2(-4.2, -2.6), tip + vec2(1.6, -4.0), tip + vec2(0.6, 2.6)]);
        }
        Icon::Warning => {
            let outline = vec![at(0.5, 0.02), at(1.0, 0.94), at(0.0, 0.94)];
            painter.add(Shape::convex_polygon(outline, colour, Stroke::NONE));
            let dark = Color32::from_black_alpha(220);
            painter.line_segment([at(0.5, 0.34), at(0.5, 0.64)], Stroke::new(1.6, dark));
            painter.circle_filled(at(0.5, 0.79), 1.0, dark);
        }
        Icon::Check => {
            painter.add(Shape::line(vec![at(0.08, 0.54), at(0.38, 0.84), at(0.94, 0.18)], Stroke::new(1.6, colour)));
        }
    }
}
