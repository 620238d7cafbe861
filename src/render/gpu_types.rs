//! What Rust and the shaders share, byte for byte. A test below holds every offset against the WGSL.

use bytemuck::{Pod, Zeroable};

/// Twin of `View` in `shaders/view.wgsl`, where the fields are explained.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
pub(super) struct View {
    pub clip_from_camera: [[f32; 4]; 4],
    pub eye_camera_m: [f32; 3],
    pub ground_y_m: f32,
    pub target_size_px: [f32; 2],
    pub frame_origin_px: [f32; 2],
    pub frame_size_px: [f32; 2],
    pub target_px_per_frame_px: f32,
    pub focal_px: f32,
    pub image_min: [f32; 2],
    pub image_max: [f32; 2],
    pub image_plane_m: f32,
    pub opacity: f32,
    pub flatness: f32,
    pub frame_taps: u32,
    pub grid_centre_m: [f32; 2],
    pub fog_m: f32,
    pub near_m: f32,
    pub edge_shade: f32,
    pub edge_opacity: f32,
    pub pad_0: u32,
    pub pad_1: u32,
}

/// Twin of the inputs of `vs_surface` and `vs_edge` in `shaders/mesh.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
pub(super) struct MeshVertex {
    pub position_camera_m: [f32; 3],
    /// Unit length, outwards.
    pub normal: [f32; 3],
    /// Gamma-encoded.
    pub colour: [u8; 4],
}

impl MeshVertex {
    pub const ATTRIBUTES: [wgpu::VertexAttribute; 3] =
        wgpu::vertex_attr_array![0 => Float32x3, 1 => Float32x3, 2 => Unorm8x4];
}

/// Twin of the inputs of `vs_stroke` in `shaders/strokes.wgsl`; one an instance.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
pub(super) struct Stroke {
    pub a_camera_m: [f32; 3],
    pub radius_m: f32,
    pub b_camera_m: [f32; 3],
    pub radius_px: f32,
    /// Gamma-encoded, and opacity.
    pub colour: [u8; 4],
    /// One of the `STYLE_` constants.
    pub style: u32,
}

impl Stroke {
    pub const ATTRIBUTES: [wgpu::VertexAttribute; 6] = wgpu::vertex_attr_array![
        0 => Float32x3, 1 => Float32, 2 => Float32x3, 3 => Float32, 4 => Unorm8x4, 5 => Uint32
    ];
}

pub(super) const STYLE_FLAT: u32 = 0;
pub(super) const STYLE_ROUND: u32 = 1;
pub(super) const STYLE_RING: u32 = 2;

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use wgpu::naga;

    use super::*;
    use crate::render::SHADERS;

    fn parse(name: &str) -> naga::Module {
        let (_, wgsl) = SHADERS.into_iter().find(|(shader, _)| *shader == name).unwrap();
        naga::front::wgsl::parse_str(wgsl).unwrap_or_else(|error| panic!("{}", error.emit_to_string(wgsl)))
    }

    macro_rules! offsets {
        ($ty:ty; $($field:ident),+ $(,)?) => { vec![$((stringify!($field), offset_of!($ty, $field))),+] };
    }

    #[test]
    fn view_has_the_shaders_layout() {
        let rust = offsets!(View; clip_from_camera, eye_camera_m, ground_y_m, target_size_px, frame_origin_px,
            frame_size_px, target_px_per_frame_px, focal_px, image_min, image_max, image_plane_m, opacity, flatness,
            frame_taps, grid_centre_m, fog_m, near_m, edge_shade, edge_opacity, pad_0, pad_1);
        // The panels are painted over the picture and know nothing of it.
        for (name, _) in SHADERS.into_iter().filter(|(name, _)| *name != "panels") {
            let module = parse(name);
            let view = module.types.iter().find(|(_, ty)| ty.name.as_deref() == Some("View")).unwrap().1;
            let naga::TypeInner::Struct { members, span } = &view.inner else { panic!("View is not a struct") };
            let wgsl: Vec<_> = members.iter().map(|m| (m.name.as_deref().unwrap(), m.offset as usize)).collect();
            assert_eq!(rust, wgsl, "{name}.wgsl");
            assert_eq!(size_of::<View>(), *span as usize, "{name}.wgsl");
        }
    }

    /// Names, locations and widths of the inputs of an entry point.
    fn inputs(shader: &str, entry: &str) -> Vec<(String, u32, u32)> {
        let module = parse(shader);
        let entry = module.entry_points.iter().find(|e| e.name == entry).unwrap();
        let located = entry.function.arguments.iter().filter_map(|argument| {
            let Some(naga::Binding::Location { location, .. }) = argument.binding else { return None };
            let components = match module.types[argument.ty].inner {
                naga::TypeInner::Scalar(_) => 1,
                naga::TypeInner::Vector { size, .. } => size as u32,
                ref other => panic!("{other:?} is no vertex input"),
            };
            Some((argument.name.clone().unwrap(), location, components))
        });
        located.collect()
    }

    fn check(shader: &str, entry: &str, fields: &[(&str, usize)], size: usize, attributes: &[wgpu::VertexAttribute]) {
        let inputs = inputs(shader, entry);
        assert_eq!(inputs.len(), attributes.len(), "{shader}.wgsl {entry}");
        for (((name, location, components), attribute), (field, offset)) in inputs.iter().zip(attributes).zip(fields) {
            assert_eq!((name.as_str(), *location), (*field, attribute.shader_location), "{shader}.wgsl {entry}");
            assert_eq!(attribute.offset as usize, *offset, "{shader}.wgsl {entry}: {field}");
            let bytes_per_component = if attribute.format == wgpu::VertexFormat::Unorm8x4 { 1 } else { 4 };
            assert_eq!(attribute.format.size() as u32, components * bytes_per_component, "{field}");
        }
        let end = attributes.iter().map(|a| a.offset + a.format.size()).max().unwrap();
        assert_eq!(end as usize, size, "{shader}.wgsl {entry}: no padding");
    }

    #[test]
    fn vertices_are_what_the_shaders_read() {
        let fields = offsets!(MeshVertex; position_camera_m, normal, colour);
        for entry in ["vs_surface", "vs_edge"] {
            check("mesh", entry, &fields, size_of::<MeshVertex>(), &MeshVertex::ATTRIBUTES);
        }
        let fields = offsets!(Stroke; a_camera_m, radius_m, b_camera_m, radius_px, colour, style);
        check("strokes", "vs_stroke", &fields, size_of::<Stroke>(), &Stroke::ATTRIBUTES);
    }

    #[test]
    fn styles_have_the_shaders_numbers() {
        let module = parse("strokes");
        for (name, number) in [("STYLE_FLAT", STYLE_FLAT), ("STYLE_ROUND", STYLE_ROUND), ("STYLE_RING", STYLE_RING)] {
            let constant = module.constants.iter().find(|(_, c)| c.name.as_deref() == Some(name)).unwrap().1;
            let value = &module.global_expressions[constant.init];
            assert_eq!(value, &naga::Expression::Literal(naga::Literal::U32(number)), "{name}");
        }
    }
}
