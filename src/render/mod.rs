//! Results to pixels, with wgpu: the same code draws to a window, to a file and for training.
//!
//! Two pictures of one [`FrameResult`]:
//!
//! * the **overlay**: the frame, byte for byte where nothing covers it, with the people drawn on it through the very
//!   intrinsics that their metres belong to;
//! * the **orbit view**: the same people in camera space (x right, y down, z forward, metres), with a ground grid and
//!   the camera's frustum, seen from anywhere.
//!
//! Conventions. Frame pixels have their integer coordinates at pixel *centres*; target and view pixels, as a mouse
//! reports them, count from the top-left *corner*; [`OverlayFit`] converts. Depth is reversed and has no far plane
//! (`near / z`), so it is as fine at 10 m as at 1 m. Targets are non-sRGB textures: colours are gamma-encoded by the
//! shaders, and blending happens on encoded values, as egui does it.
//!
//! Read [`scene`] first: it names the passes in their order.

use std::collections::BTreeSet;

use crate::result::{FrameResult, Landmark, Person};

mod camera;
mod colour;
mod frame;
mod gpu;
mod gpu_types;
mod ground;
mod mesh;
mod offscreen;
mod pick;
mod picture;
mod resources;
pub mod scene;
mod strokes;

pub use camera::{OrbitCamera, OverlayFit};
pub use colour::{person_colour, spread_colour, spread_scale_lixel};
pub use gpu::{Gpu, is_software};
pub use offscreen::OffscreenRenderer;
pub use pick::{Pick, pick_orbit, pick_overlay};
pub(crate) use resources::GrowingBuffer;
pub use scene::SceneRenderer;

/// What the vertices' colour tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum MeshColour {
    /// Whose they are: [`person_colour`].
    #[default]
    Person,
    /// How unsure the network was: [`spread_colour`] of the length of (x, y, z) spread.
    Spread,
}

/// What is drawn, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct DrawOptions {
    /// Ids of people who are not drawn (and not picked).
    pub hidden: BTreeSet<u32>,
    /// Opacity of the bodies on the frame, 0..=1. The orbit view draws them solid.
    pub alpha: f32,
    /// What the colour tells.
    pub colour: MeshColour,
    /// The filled surfaces (of people without a mesh: their skeletons).
    pub mesh: bool,
    /// The edges of the mesh.
    pub wireframe: bool,
    /// The skeletons, seen through the meshes.
    pub joints: bool,
    /// The people's boxes.
    pub boxes: bool,
    /// A marker on this landmark of this person.
    pub selected: Option<(u32, Landmark)>,
}

impl Default for DrawOptions {
    fn default() -> Self {
        Self {
            hidden: BTreeSet::new(),
            alpha: 0.85,
            colour: MeshColour::Person,
            mesh: true,
            wireframe: false,
            joints: false,
            boxes: false,
            selected: None,
        }
    }
}

impl DrawOptions {
    /// The people who are drawn.
    pub(crate) fn visible<'a>(&'a self, result: &'a FrameResult) -> impl Iterator<Item = &'a Person> {
        result.people.iter().filter(|person| !self.hidden.contains(&person.id))
    }

    /// The skeleton is drawn: asked for, or all that the estimator gives.
    pub(crate) fn shows_skeleton(&self, person: &Person) -> bool {
        self.joints || (self.mesh && person.mesh.is_none())
    }

    /// The surface or its edges are drawn.
    pub(crate) fn shows_mesh(&self) -> bool {
        self.mesh || self.wireframe
    }
}

/// The shader of the window's panels.
pub(crate) const PANELS_WGSL: &str = include_str!("../../shaders/panels.wgsl");

/// Every shader as it is compiled: its name and its WGSL, those of the scene with `shaders/view.wgsl` in front.
pub const SHADERS: [(&str, &str); 5] = [
    ("frame", frame::WGSL),
    ("ground", ground::WGSL),
    ("mesh", mesh::WGSL),
    ("strokes", strokes::WGSL),
    ("panels", PANELS_WGSL),
];
