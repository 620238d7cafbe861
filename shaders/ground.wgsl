// What the orbit view stands in: a background gradient, and a grid of metre lines that fades into it.

const ZENITH = vec3(0.16, 0.185, 0.22);
const HORIZON = vec3(0.085, 0.095, 0.115);

@vertex
fn vs_backdrop(@builtin(vertex_index) vertex: u32) -> @builtin(position) vec4<f32> {
    return covering_triangle(vertex);
}

@fragment
fn fs_backdrop(@builtin(position) position: vec4<f32>) -> @location(0) vec4<f32> {
    let height = smoothstep(0.0, 1.0, position.y / view.target_size_px.y);
    // Half a grey level of ordered noise hides the gradient's bands.
    let cell = vec2<u32>(position.xy) & vec2(1u);
    let noise = (f32((cell.x ^ cell.y) * 2u + cell.y) / 3.0 - 0.5) / 255.0;
    return vec4(mix(ZENITH, HORIZON, height) + noise, 1.0);
}

struct Ground {
    @builtin(position) position: vec4<f32>,
    // x and z, metres.
    @location(0) at_m: vec2<f32>,
}

// A strip of two triangles, as large as what is not faded away.
@vertex
fn vs_grid(@builtin(vertex_index) vertex: u32) -> Ground {
    let corner = vec2(f32(vertex & 1u), f32(vertex >> 1u)) * 2.0 - 1.0;
    let at_m = view.grid_centre_m + corner * view.fog_m;
    return Ground(view.clip_from_camera * vec4(at_m.x, view.ground_y_m, at_m.y, 1.0), at_m);
}

// Coverage by lines `width_px` wide, `spacing_m` apart, at least one of them through 0.
fn lines(at_m: vec2<f32>, per_px: vec2<f32>, spacing_m: f32, width_px: f32) -> f32 {
    let cell = abs(fract(at_m / spacing_m + 0.5) - 0.5) * spacing_m;
    let near = saturate(0.5 + 0.5 * width_px - cell / per_px);
    // Lines that are too dense to be told apart become an even tone.
    let tone = saturate(per_px * width_px / spacing_m);
    let sharp = saturate(1.5 - 3.0 * per_px / spacing_m);
    let coverage = mix(tone, near, sharp);
    return max(coverage.x, coverage.y);
}

@fragment
fn fs_grid(in: Ground) -> @location(0) vec4<f32> {
    let per_px = max(fwidth(in.at_m), vec2(1e-6));
    let fog = 1.0 - smoothstep(0.15, 1.0, distance(in.at_m, view.grid_centre_m) / view.fog_m);
    let metres = lines(in.at_m, per_px, 1.0, 1.0) * 0.34;
    let fives = lines(in.at_m, per_px, 5.0, 1.5) * 0.30;
    return vec4(vec3(0.62, 0.68, 0.76), saturate(metres + fives) * fog);
}
