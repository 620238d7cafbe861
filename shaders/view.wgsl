// What every shader knows about the picture that is drawn. In front of all others; twin of `gpu_types::View`.
// Camera space: x right, y down, z forward, metres. Target pixels count from the top-left corner.

struct View {
    clip_from_camera: mat4x4<f32>,
    // Where it is seen from.
    eye_camera_m: vec3<f32>,
    // Height of the ground (y points down).
    ground_y_m: f32,
    target_size_px: vec2<f32>,
    // The frame's top-left corner in target pixels, and its size in frame pixels.
    frame_origin_px: vec2<f32>,
    frame_size_px: vec2<f32>,
    target_px_per_frame_px: f32,
    // Target pixels that 1 m covers at 1 m.
    focal_px: f32,
    // Slopes (x / z, y / z) of the frame's top-left and bottom-right corners.
    image_min: vec2<f32>,
    image_max: vec2<f32>,
    // Distance of the frame in the orbit view.
    image_plane_m: f32,
    // Opacity of the meshes.
    opacity: f32,
    // 0: full shading; 1: colours as they are.
    flatness: f32,
    // Samples per side of a target pixel for a frame that is shrunk; 0 where frame and target pixels coincide.
    frame_taps: u32,
    // x and z in the middle of the grid, and where the grid has faded away.
    grid_centre_m: vec2<f32>,
    fog_m: f32,
    near_m: f32,
    // Brightness of mesh edges, relative to the person's colour, and their opacity, relative to the surface's.
    edge_shade: f32,
    edge_opacity: f32,
    // Scalars, not an array or vector: those have other layouts than Rust's.
    pad_0: u32,
    pad_1: u32,
}

@group(0) @binding(0) var<uniform> view: View;

// Colours are handed over and written gamma-encoded; light adds up on linear values. Squares and roots are near enough
// to sRGB's 2.2 for shading, undo each other, and cost a software rasteriser little.
fn linear_from_encoded(colour: vec3<f32>) -> vec3<f32> {
    return colour * colour;
}

fn encoded_from_linear(colour: vec3<f32>) -> vec3<f32> {
    return sqrt(saturate(colour));
}

// A triangle that covers the target.
fn covering_triangle(vertex: u32) -> vec4<f32> {
    return vec4(f32(vertex & 1u) * 4.0 - 1.0, f32(vertex >> 1u) * 4.0 - 1.0, 0.0, 1.0);
}
