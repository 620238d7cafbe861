// The panels: egui's triangles. Colours are as the screen wants them (encoded), with their opacity multiplied in.

// Width and height of the window, points.
@group(0) @binding(0) var<uniform> window_pt: vec2<f32>;

@group(1) @binding(0) var panel_texture: texture_2d<f32>;
@group(1) @binding(1) var panel_sampler: sampler;

// The target encodes what it is given: it wants linear light.
override target_encodes = false;

struct Corner {
    @builtin(position) position: vec4<f32>,
    @location(0) uv: vec2<f32>,
    @location(1) colour: vec4<f32>,
}

@vertex
fn vs_panel(@location(0) at_pt: vec2<f32>, @location(1) uv: vec2<f32>, @location(2) colour: vec4<f32>) -> Corner {
    let clip = vec2(-1.0, 1.0) + vec2(2.0, -2.0) * at_pt / window_pt;
    return Corner(vec4(clip, 0.0, 1.0), uv, colour);
}

fn for_target(colour: vec4<f32>) -> vec4<f32> {
    if !target_encodes {
        return colour;
    }
    let high = pow((colour.rgb + 0.055) / 1.055, vec3(2.4));
    return vec4(select(high, colour.rgb / 12.92, colour.rgb <= vec3(0.04045)), colour.a);
}

@fragment
fn fs_plain(in: Corner) -> @location(0) vec4<f32> {
    return for_target(in.colour);
}

@fragment
fn fs_textured(in: Corner) -> @location(0) vec4<f32> {
    return for_target(in.colour * textureSampleLevel(panel_texture, panel_sampler, in.uv, 0.0));
}
