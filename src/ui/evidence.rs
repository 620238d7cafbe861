//! The x and y heatmaps where they belong: along the edges of the crop, on the frame. They meet at the landmark.

use egui::epaint::Mesh;
use egui::{Color32, Painter, Pos2, Shape, Stroke};
use glam::Vec2;

use super::heatmaps::moments;
use super::theme;
use crate::result::{Heatmaps, Person};

/// Height of the highest bar, as a share of the crop.
const HEIGHT: f32 = 0.16;

/// Draws them; `view_from_frame` takes frame pixels to points.
pub(super) fn draw(painter: &Painter, person: &Person, heatmaps: &Heatmaps, view_from_frame: impl Fn(Vec2) -> Pos2) {
    let size = person.crop.size as f32;
    // u runs along the heatmap's axis, v away from the edge, both as shares of the crop.
    let at = |axis: usize, u: f32, v: f32| {
        let crop_px = if axis == 0 { Vec2::new(u, 1.0 - v) } else { Vec2::new(v, u) } * size;
        view_from_frame(person.crop.frame_from_crop.transform_point2(crop_px))
    };
    let corners = [at(0, 0.0, 0.0), at(0, 1.0, 0.0), at(0, 1.0, 1.0), at(0, 0.0, 1.0), at(0, 0.0, 0.0)];
    painter.extend(Shape::dashed_line(&corners, Stroke::new(1.0, Color32::from_white_alpha(60)), 4.0, 4.0));
    for axis in 0..2 {
        let values = &heatmaps.xyz[axis];
        let peak = values.iter().copied().fold(0.0, f32::max);
        if peak <= 0.0 || !peak.is_finite() {
            continue;
        }
        let bins = values.len() as f32;
        let colour = theme::AXES[axis];
        let mut mesh = Mesh::default();
        for (bin, p) in values.iter().enumerate() {
            // Bin indices are the corners of lixels: index 0 lies on the edge of the crop.
            let (from, to) = ((bin as f32 - 0.41) / bins, (bin as f32 + 0.41) / bins);
            let height = HEIGHT * p / peak;
            let first = mesh.vertices.len() as u32;
            mesh.colored_vertex(at(axis, from, 0.0), colour.gamma_multiply(0.9));
            mesh.colored_vertex(at(axis, to, 0.0), colour.gamma_multiply(0.9));
            mesh.colored_vertex(at(axis, to, height), colour.gamma_multiply(0.9));
            mesh.colored_vertex(at(axis, from, height), colour.gamma_multiply(0.9));
            mesh.add_triangle(first, first + 1, first + 2);
            mesh.add_triangle(first, first + 2, first + 3);
        }
        painter.add(Shape::mesh(mesh));
        let (mean, _) = moments(values);
        let line = [at(axis, mean / bins, 0.0), at(axis, mean / bins, 1.0)];
        painter.line_segment(line, Stroke::new(1.0, colour.gamma_multiply(0.55)));
    }
}
