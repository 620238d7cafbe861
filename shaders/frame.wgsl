// The frame: behind the overlay, and as the image plane of the orbit view's frustum.

@group(0) @binding(1) var frame_texture: texture_2d<f32>;
@group(0) @binding(2) var frame_sampler: sampler;

// What surrounds a frame that has not the target's aspect.
const SURROUND = vec4(0.055, 0.06, 0.07, 1.0);

// The mean over a footprint (in texture coordinates) around `uv`, by `taps` x `taps` bilinear samples.
fn frame_mean(uv: vec2<f32>, footprint: vec2<f32>, taps: u32) -> vec3<f32> {
    var sum = vec3(0.0);
    for (var y = 0u; y < taps; y++) {
        for (var x = 0u; x < taps; x++) {
            let at = (vec2(f32(x), f32(y)) + 0.5) / f32(taps) - 0.5;
            sum += textureSampleLevel(frame_texture, frame_sampler, uv + at * footprint, 0.0).rgb;
        }
    }
    return sum / f32(taps * taps);
}

@vertex
fn vs_overlay(@builtin(vertex_index) vertex: u32) -> @builtin(position) vec4<f32> {
    return covering_triangle(vertex);
}

@fragment
fn fs_overlay(@builtin(position) position: vec4<f32>) -> @location(0) vec4<f32> {
    let in_frame = position.xy - view.frame_origin_px;
    let p = in_frame / view.target_px_per_frame_px;
    // A target of a rounded size ends up to half a target pixel behind the frame: repeat its last pixels there.
    let rounded = 0.49 / view.target_px_per_frame_px;
    if any(p < vec2(0.0)) || any(p >= view.frame_size_px + rounded) {
        return SURROUND;
    }
    if view.frame_taps == 0u {
        return vec4(textureLoad(frame_texture, vec2<i32>(floor(in_frame)), 0).rgb, 1.0);
    }
    let footprint = 1.0 / (view.target_px_per_frame_px * view.frame_size_px);
    return vec4(frame_mean(p / view.frame_size_px, footprint, view.frame_taps), 1.0);
}

struct ImagePlane {
    @builtin(position) position: vec4<f32>,
    @location(0) uv: vec2<f32>,
}

// A strip of two triangles.
@vertex
fn vs_image_plane(@builtin(vertex_index) vertex: u32) -> ImagePlane {
    let uv = vec2(f32(vertex & 1u), f32(vertex >> 1u));
    let slope = mix(view.image_min, view.image_max, uv);
    return ImagePlane(view.clip_from_camera * vec4(vec3(slope, 1.0) * view.image_plane_m, 1.0), uv);
}

@fragment
fn fs_image_plane(in: ImagePlane) -> @location(0) vec4<f32> {
    let footprint = fwidth(in.uv);
    let texels = max(footprint.x * view.frame_size_px.x, footprint.y * view.frame_size_px.y);
    let taps = u32(clamp(ceil(texels * 0.5), 1.0, 4.0));
    // Dimmed, so that it does not outshine the people.
    return vec4(frame_mean(in.uv, footprint, taps) * 0.8, 0.6);
}
