//! What the orbit view stands in: the background, and the grid on the ground.

use super::resources::{Depth, Pass, PipelineFactory};
use super::{DrawOptions, camera::is_drawable};
use crate::result::FrameResult;

pub(super) const WGSL: &str =
    concat!(include_str!("../../shaders/view.wgsl"), include_str!("../../shaders/ground.wgsl"));

/// Height of the ground below a camera that sees nobody, metres.
pub(super) const CAMERA_HEIGHT_M: f32 = 1.5;

/// The grid lies this much below the lowest sole, so that the two do not fight for pixels.
const GAP_M: f32 = 0.005;

/// The pipelines that draw the surroundings.
pub(super) struct GroundPasses {
    /// The gradient.
    pub backdrop: wgpu::RenderPipeline,
    /// Metre lines.
    pub grid: wgpu::RenderPipeline,
}

impl GroundPasses {
    pub fn new(factory: &PipelineFactory) -> Self {
        let module = factory.shader("ground", WGSL);
        let pass = |label, vertex, fragment, topology, depth, blend| {
            let pass = Pass { label, vertex, fragment, buffers: &[], topology, depth, blend, colour: true };
            factory.pipeline(&module, &pass)
        };
        let (list, strip) = (wgpu::PrimitiveTopology::TriangleList, wgpu::PrimitiveTopology::TriangleStrip);
        Self {
            backdrop: pass("backdrop", "vs_backdrop", "fs_backdrop", list, Depth::Ignore, false),
            grid: pass("grid", "vs_grid", "fs_grid", strip, Depth::Test, true),
        }
    }
}

/// Height (camera y, pointing down) of the ground: just below the lowest point of the people who are drawn; 1.5 m
/// below the camera when nobody is.
pub(super) fn ground_y_m(result: &FrameResult, options: &DrawOptions) -> f32 {
    let points = options.visible(result).flat_map(|person| {
        let vertices = person.mesh.iter().flat_map(|mesh| &mesh.vertices_camera_m);
        vertices.chain(&person.joints_camera_m)
    });
    let lowest = points.filter(|p| is_drawable(**p)).map(|p| p.y).reduce(f32::max);
    lowest.map_or(CAMERA_HEIGHT_M, |y| y + GAP_M)
}
