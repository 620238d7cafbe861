//! The keys: one table for what they do, for the tooltips and for the list that F1 shows.

use egui::{Key, KeyboardShortcut, Modifiers};

use super::{Action, State, View, theme};
use crate::pipeline::{Command, Phase};
use crate::render::MeshColour;

/// What a key does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hotkey {
    /// Hold, or go on.
    Pause,
    /// One more frame.
    Step,
    /// Open the source again.
    Restart,
    /// Meshes on or off.
    Mesh,
    /// Wireframe on or off.
    Wireframe,
    /// Joints and bones on or off.
    Joints,
    /// Boxes on or off.
    Boxes,
    /// Colour by person or by spread.
    Colour,
    /// Heatmaps along the crop's edges on or off.
    Evidence,
    /// The true people on or off.
    Truth,
    /// The views side by side, or one above the other.
    Stack,
    /// Everything into the 3D view.
    Fit,
    /// Write the drawn frame to a file.
    Save,
    /// Forget the chosen landmark.
    Clear,
    /// Full screen.
    Fullscreen,
    /// A new graphics device.
    Graphics,
    /// The list of keys.
    Help,
    /// Close.
    Quit,
}

const fn key(key: Key) -> KeyboardShortcut {
    KeyboardShortcut::new(Modifiers::NONE, key)
}

/// Every hotkey, its keys (the first is the one that tooltips show) and what it does.
pub const TABLE: [(Hotkey, &[KeyboardShortcut], &str); 18] = [
    (Hotkey::Pause, &[key(Key::Space)], "Pause, or go on"),
    (Hotkey::Step, &[key(Key::ArrowRight), key(Key::Period)], "One frame further (pauses)"),
    (Hotkey::Restart, &[key(Key::R)], "Open the source again"),
    (Hotkey::Mesh, &[key(Key::M)], "Meshes on or off"),
    (Hotkey::Wireframe, &[key(Key::W)], "Wireframe on or off"),
    (Hotkey::Joints, &[key(Key::J)], "Joints on or off"),
    (Hotkey::Boxes, &[key(Key::B)], "Boxes on or off"),
    (Hotkey::Colour, &[key(Key::C)], "Colour by person, or by spread"),
    (Hotkey::Evidence, &[key(Key::X)], "Heatmaps on the frame on or off"),
    (Hotkey::Truth, &[key(Key::G)], "Ground truth on or off, where it is known"),
    (Hotkey::Stack, &[key(Key::V)], "Views side by side, or one above the other"),
    (Hotkey::Fit, &[key(Key::F)], "Fit the 3D view"),
    (Hotkey::Save, &[key(Key::S)], "Save the drawn frame as PNG"),
    (Hotkey::Clear, &[key(Key::Escape)], "Let go of the chosen vertex or joint"),
    (Hotkey::Fullscreen, &[key(Key::F11)], "Full screen, or back"),
    (Hotkey::Graphics, &[key(Key::F5)], "Restart the graphics device"),
    (Hotkey::Help, &[key(Key::F1), key(Key::H)], "This list"),
    (Hotkey::Quit, &[KeyboardShortcut::new(Modifiers::COMMAND, Key::Q)], "Close"),
];

/// A tooltip that ends with the key: "Pause (Space)".
pub fn tip(ctx: &egui::Context, text: &str, hotkey: Hotkey) -> String {
    TABLE
        .iter()
        .find(|(entry, ..)| *entry == hotkey)
        .map_or_else(|| text.to_owned(), |(_, keys, _)| format!("{text}  ({})", ctx.format_shortcut(&keys[0])))
}

/// Carries out the keys that were pressed, unless a text field has them.
pub(super) fn handle(ctx: &egui::Context, view: &View, state: &mut State, actions: &mut Vec<Action>) {
    if ctx.egui_wants_keyboard_input() {
        return;
    }
    for (hotkey, keys, _) in TABLE {
        if hotkey == Hotkey::Clear && egui::Popup::is_any_open(ctx) {
            continue; // Escape closes the menu
        }
        if keys.iter().any(|key| ctx.input_mut(|input| input.consume_shortcut(key))) {
            act(hotkey, view, state, actions);
        }
    }
}

/// What a hotkey does, wherever it was asked for.
pub(super) fn act(hotkey: Hotkey, view: &View, state: &mut State, actions: &mut Vec<Action>) {
    match hotkey {
        Hotkey::Pause => match view.status.phase {
            Phase::Ended(_) | Phase::Failed(_) => state.send(Command::Restart, actions),
            _ => state.send(Command::Pause(!state.paused), actions),
        },
        Hotkey::Step => {
            if !state.paused {
                state.send(Command::Pause(true), actions);
            }
            state.send(Command::Step, actions);
        }
        Hotkey::Restart => state.send(Command::Restart, actions),
        Hotkey::Mesh => state.draw.mesh ^= true,
        Hotkey::Wireframe => state.draw.wireframe ^= true,
        Hotkey::Joints => state.draw.joints ^= true,
        Hotkey::Boxes => state.draw.boxes ^= true,
        Hotkey::Colour => {
            state.draw.colour = match state.draw.colour {
                MeshColour::Person => MeshColour::Spread,
                MeshColour::Spread => MeshColour::Person,
            };
        }
        Hotkey::Evidence => state.heatmaps_on_frame ^= true,
        Hotkey::Truth => state.truth ^= true,
        Hotkey::Stack => state.stacked ^= true,
        Hotkey::Fit => state.fit(view.result),
        Hotkey::Save => actions.push(Action::SaveFrame),
        Hotkey::Clear if state.help => state.help = false,
        Hotkey::Clear => state.choose(None, None, actions),
        Hotkey::Fullscreen => actions.push(Action::ToggleFullscreen),
        Hotkey::Graphics => actions.push(Action::RebuildGraphics),
        Hotkey::Help => state.help ^= true,
        Hotkey::Quit => actions.push(Action::Quit),
    }
}

/// The list of keys and of what the mouse does.
pub(super) fn help(ctx: &egui::Context, open: &mut bool) {
    if !*open {
        return;
    }
    let response = egui::Modal::new(egui::Id::unique("help")).show(ctx, |ui| {
        ui.set_max_width(430.0);
        ui.horizontal(|ui| {
            ui.label(egui::RichText::new("Keys and mouse").heading().color(theme::STRONG));
            ui.with_layout(egui::Layout::right_to_left(egui::Align::Center), |ui| ui.button("Close").clicked()).inner
        })
        .inner
            | {
                let height = ui.ctx().content_rect().height() - 130.0;
                egui::ScrollArea::vertical().max_height(height).show(ui, |ui| {
                    let row = |ui: &mut egui::Ui, keys: String, what: &str| {
                        ui.label(theme::number(keys).color(theme::ACCENT));
                        ui.label(what);
                        ui.end_row();
                    };
                    egui::Grid::new("keys").num_columns(2).spacing([24.0, 4.0]).striped(true).show(ui, |ui| {
                        for (_, keys, what) in TABLE {
                            let keys: Vec<_> = keys.iter().map(|key| ui.ctx().format_shortcut(key)).collect();
                            row(ui, keys.join(", "), what);
                        }
                        row(ui, "Ctrl +, -, 0".into(), "Larger, smaller, normal text");
                        row(ui, "click".into(), "Choose the vertex or joint under the pointer");
                        row(ui, "drag, frame".into(), "Draw a box, where boxes are drawn by hand");
                        row(ui, "drag, 3D".into(), "Turn");
                        row(ui, "Shift-drag, 3D".into(), "Move (also the right or middle button)");
                        row(ui, "wheel, 3D".into(), "Nearer, farther");
                        row(ui, "double click, 3D".into(), "Fit");
                        row(ui, "drop a file".into(), "Open it as the source");
                    });
                });
                false
            }
    });
    if response.inner || response.should_close() {
        *open = false;
    }
}
