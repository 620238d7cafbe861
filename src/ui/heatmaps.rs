//! The evidence: the x, y and z heatmaps of the chosen vertex or joint, with what the soft-argmax made of them.

use egui::{ComboBox, DragValue, Ui, Vec2};
use egui_plot::{Bar, BarChart, GridMark, Plot, Span, VLine};
use glam::Vec3;

use super::{Action, State, View, theme};
use crate::camera_mesh::{BODY_BOX_M, HAND_BOX_M, LixelVolume};
use crate::result::{EstimatorKind, FrameResult, Heatmaps, Landmark, Person};

const AXIS_NAMES: [&str; 3] = ["x", "y", "z"];
/// A plot's caption.
const CAPTION_PT: f32 = 17.0;
/// The bin numbers below the last plot.
const BINS_PT: f32 = 16.0;
/// Right of the plots: half of the last bin's number, and the scroll bar.
const END_PT: f32 = 8.0;

/// Soft-argmax and spread of one heatmap: the expectation of the bin index, and its standard deviation, both in bins.
/// Of a heatmap that sums to nothing: NaN.
pub fn moments(heatmap: &[f32]) -> (f32, f32) {
    let sum =
        |f: &dyn Fn(f64) -> f64| heatmap.iter().enumerate().map(|(i, &p)| f64::from(p) * f(i as f64)).sum::<f64>();
    let mass = sum(&|_| 1.0);
    let mean = sum(&|i| i) / mass;
    let variance = sum(&|i| (i - mean) * (i - mean)) / mass;
    (mean as f32, variance.max(0.0).sqrt() as f32)
}

pub(super) fn panel(ui: &mut Ui, view: &View, state: &mut State, actions: &mut Vec<Action>) {
    let person = view.result.and_then(|result| Some((result, state.shown_person(result)?)));
    ui.horizontal(|ui| {
        ui.label(theme::heading("heatmaps"));
        if let Some((_, person)) = person {
            ui.label(theme::number(person.label()).color(theme::TEXT));
        }
    });
    let Some((result, person)) = person else {
        ui.add_space(6.0);
        theme::empty_state(ui, "Nobody to look into", "The heatmaps of a person's vertices and joints appear here.");
        return;
    };
    if person.true_index().is_some() {
        ui.add_space(6.0);
        let more = if result.bins > 0 {
            "A network's mesh has: choose a person who was found."
        } else {
            "A network's mesh has: see the note above the frame."
        };
        theme::empty_state(ui, "The truth has no heatmaps", more);
        return;
    }
    picker(ui, result, person, state, actions);
    let Some(landmark) = state.landmark else {
        ui.add_space(10.0);
        let what = if person.mesh.is_some() {
            "Click a mesh to see its heatmaps"
        } else {
            "Click a joint to see its heatmaps"
        };
        theme::empty_state(ui, what, "in either view, or choose a joint above.");
        return;
    };
    let Some(heatmaps) = person.heatmaps.iter().find(|heatmaps| heatmaps.landmark == landmark) else {
        ui.add_space(10.0);
        theme::empty_state(ui, "They come with the next frame", "");
        return;
    };
    position(ui, person, landmark);
    egui::ScrollArea::vertical().id_salt("heatmaps").auto_shrink([false, true]).show(ui, |ui| {
        plots(ui, result, person, heatmaps);
    });
}

/// Joint by name, vertex by index.
fn picker(ui: &mut Ui, result: &FrameResult, person: &Person, state: &mut State, actions: &mut Vec<Action>) {
    let names = &result.skeleton.names;
    let vertices = person.mesh.as_ref().map_or(0, |mesh| mesh.vertices_camera_m.len());
    let mut chosen = state.landmark;
    ui.horizontal_wrapped(|ui| {
        let joint = match state.landmark {
            Some(Landmark::Joint(joint)) => names.get(joint as usize).map_or("joint", String::as_str),
            _ => "joint",
        };
        let width_pt = (ui.available_width() - 100.0).clamp(70.0, 140.0);
        let combo = ComboBox::from_id_salt("joint").selected_text(joint).width(width_pt).height(360.0).truncate();
        let response = combo.show_ui(ui, |ui| {
            for (index, name) in names.iter().enumerate() {
                ui.selectable_value(&mut chosen, Some(Landmark::Joint(index as u32)), name);
            }
        });
        response.response.accessible_name("joint").on_hover_text("Heatmaps of a joint");
        if vertices > 0 {
            let mut vertex = match state.landmark {
                Some(Landmark::Vertex(vertex)) => vertex,
                _ => 0,
            };
            ui.label(theme::hint("vertex"));
            let drag = DragValue::new(&mut vertex).range(0..=vertices as u32 - 1).speed(1.0);
            let response = ui.add(drag).accessible_name("vertex");
            let clicked = response.lost_focus() && !matches!(state.landmark, Some(Landmark::Vertex(_)));
            if response.changed() || clicked {
                chosen = Some(Landmark::Vertex(vertex));
            }
            response.on_hover_text(format!("Heatmaps of a vertex, 0 to {}. Drag, or click and type", vertices - 1));
        }
    });
    if chosen != state.landmark {
        state.choose(Some(person.id), chosen, actions);
    }
}

/// Where the landmark is, in camera metres.
fn position(ui: &mut Ui, person: &Person, landmark: Landmark) {
    let at = match landmark {
        Landmark::Joint(joint) => person.joints_camera_m.get(joint as usize),
        Landmark::Vertex(vertex) => person.mesh.as_ref().and_then(|mesh| mesh.vertices_camera_m.get(vertex as usize)),
    };
    if let Some(p) = at {
        ui.horizontal_wrapped(|ui| {
            ui.spacing_mut().item_spacing.x = 4.0;
            for (axis, value) in [p.x, p.y, p.z].into_iter().enumerate() {
                ui.label(theme::number(AXIS_NAMES[axis]).color(theme::AXES[axis]));
                ui.label(theme::number(format!("{value:+.3}")).color(theme::STRONG));
            }
            ui.label(theme::hint("m").text_style(egui::TextStyle::Small));
        })
        .response
        .on_hover_text("Position in camera space: x right, y down, z away from the camera");
    }
}

fn plots(ui: &mut Ui, result: &FrameResult, person: &Person, heatmaps: &Heatmaps) {
    ui.spacing_mut().interact_size.y = CAPTION_PT; // the least height of a row
    let gaps = 3.0 * (CAPTION_PT + 2.0 * ui.spacing().item_spacing.y) + BINS_PT;
    let height_pt = ((ui.available_height() - gaps) / 3.0).clamp(26.0, 260.0);
    for axis in 0..3 {
        let values = &heatmaps.xyz[axis];
        let (mean, spread) = moments(values);
        let peak = values.iter().copied().fold(0.0, f32::max);
        caption(ui, axis, mean, spread, peak, heatmaps.mode[axis]);
        plot(ui, axis, values, (mean, spread), peak, height_pt, |bin| {
            let p = values.get(bin).copied().unwrap_or_default();
            format!("bin {bin}   p {p:.4}\n{}", place_of(result, person, axis, bin))
        });
    }
}

fn caption(ui: &mut Ui, axis: usize, mean: f32, spread: f32, peak: f32, mode: usize) {
    ui.horizontal(|ui| {
        ui.spacing_mut().item_spacing.x = 5.0;
        ui.label(theme::number(AXIS_NAMES[axis]).color(theme::AXES[axis]).strong());
        let entry = |ui: &mut Ui, name: &str, value: String, tip: &str| {
            let response = ui.label(theme::number(name).color(theme::WEAK)) | ui.label(theme::number(value));
            response.on_hover_text(tip);
        };
        entry(ui, "at", format!("{mean:.2}"), "Soft-argmax: the expected bin");
        entry(ui, "±", format!("{spread:.2}"), "Spread: the standard deviation, in bins");
        entry(ui, "peak", format!("{peak:.2} in {mode}"), "The largest probability, and the likeliest bin");
    });
}

fn plot(
    ui: &mut Ui,
    axis: usize,
    values: &[f32],
    (mean, spread): (f32, f32),
    peak: f32,
    height_pt: f32,
    describe: impl Fn(usize) -> String,
) {
    let bins = values.len();
    let colour = theme::AXES[axis];
    let last = axis == 2;
    let bar = |(bin, &p): (usize, &f32)| {
        Bar::new(bin as f64, f64::from(p)).width(0.82).fill(colour).stroke(egui::Stroke::NONE)
    };
    let bars = values.iter().enumerate().map(bar).collect();
    // Quarters of the bins, and the last one.
    let step = (bins / 4).max(1) as f64;
    let mark = move |i: u32| GridMark { value: (f64::from(i) * step).min(bins as f64 - 1.0), step_size: step };
    let response = Plot::new(("heatmap", axis))
        .height(height_pt + if last { BINS_PT } else { 0.0 })
        .width(ui.available_width() - END_PT)
        .show_axes([last, false])
        .show_grid([true, false])
        .grid_color(theme::LINE)
        .x_grid_spacer(move |_| (0..=4).map(mark).collect())
        .set_margin_fraction(Vec2::ZERO)
        .show_x(false)
        .show_y(false)
        .show_crosshair(false)
        .allow_zoom(false)
        .allow_drag(false)
        .allow_scroll(false)
        .allow_boxed_zoom(false)
        .allow_double_click_reset(false)
        .label_formatter(|_| None)
        .show(ui, |plot| {
            plot.set_plot_bounds_x(-0.5..=bins as f64 - 0.5);
            plot.set_plot_bounds_y(0.0..=f64::from(peak.max(1e-6)) * 1.08);
            if mean.is_finite() {
                let (mean, spread) = (f64::from(mean), f64::from(spread));
                plot.span(Span::new("", mean - spread..=mean + spread).fill(colour.gamma_multiply(0.16)));
            }
            plot.bar_chart(BarChart::new("", bars).allow_hover(false));
            if mean.is_finite() {
                plot.vline(VLine::new("", f64::from(mean)).color(theme::STRONG).width(1.2).allow_hover(false));
            }
        });
    let hovered = response.response.hover_pos().map(|at| response.transform.value_from_position(at).x.round());
    response
        .response
        .widget_info(|| egui::WidgetInfo::labeled(egui::Role::Image, true, format!("{} heatmap", AXIS_NAMES[axis])));
    if let Some(bin) = hovered.filter(|bin| (0.0..bins as f64).contains(bin)) {
        response.response.on_hover_ui_at_pointer(|ui| {
            ui.label(theme::number(describe(bin as usize)));
        });
    }
}

/// Where a bin lies outside of the network: in the frame, or relative to the root joint's depth.
fn place_of(result: &FrameResult, person: &Person, axis: usize, bin: usize) -> String {
    let box_m = if result.estimator == EstimatorKind::Hand { HAND_BOX_M } else { BODY_BOX_M };
    let (bins, depth_axis) = (result.bins.max(1), result.depth_axis);
    let volume = LixelVolume { crop: &person.crop, bins, box_m, depth_axis };
    let lixel = Vec3::splat(bin as f32);
    match axis {
        0 => format!("frame x {:.1} px", volume.frame_from_lixel(lixel).x),
        1 => format!("frame y {:.1} px", volume.frame_from_lixel(lixel).y),
        _ => {
            let behind_m = volume.depth_from_root_m(lixel);
            let root_m = volume.patch_from_camera(&result.intrinsics) * person.root_camera_m;
            format!("root {behind_m:+.3} m = {:.3} m", root_m.z + behind_m)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::moments;

    #[test]
    fn moments_of_two_equal_bins() {
        let mut heatmap = vec![0.0; 64];
        heatmap[10] = 0.5;
        heatmap[14] = 0.5;
        assert_eq!(moments(&heatmap), (12.0, 2.0));
        assert!(moments(&[0.0; 64]).0.is_nan());
        assert!(moments(&[]).0.is_nan());
    }
}
