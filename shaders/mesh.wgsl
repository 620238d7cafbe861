// The people's meshes: depth alone, lit surfaces, and edges. Normals and colours come with the vertices.

struct Surface {
    // Depth is written by one pipeline and compared for equality by another.
    @invariant @builtin(position) position: vec4<f32>,
    @location(0) normal: vec3<f32>,
    // Linear.
    @location(1) colour: vec3<f32>,
}

@vertex
fn vs_surface(
    @location(0) position_camera_m: vec3<f32>,
    @location(1) normal: vec3<f32>,
    @location(2) colour: vec4<f32>,
) -> Surface {
    let position = view.clip_from_camera * vec4(position_camera_m, 1.0);
    return Surface(position, normal, linear_from_encoded(colour.rgb));
}

@fragment
fn fs_depth() -> @location(0) vec4<f32> {
    return vec4(0.0);
}

fn pow2(x: f32) -> f32 {
    return x * x;
}

// Towards the light: above, to the left and behind the real camera.
const KEY = vec3(-0.42, -0.68, -0.6);

@fragment
fn fs_surface(in: Surface, @builtin(front_facing) outside: bool) -> @location(0) vec4<f32> {
    let normal = normalize(in.normal) * select(-1.0, 1.0, outside);
    let sky = mix(vec3(0.20, 0.19, 0.18), vec3(0.44, 0.46, 0.50), 0.5 - 0.5 * normal.y);
    let key = 0.62 * max(dot(normal, KEY), 0.0);
    // A weak light at the eye keeps the far side of the orbit view readable.
    let facing = max(dot(normal, view.to_eye), 0.0);
    // A little off, so that it is never the normal of nothing, which opposite directions would give.
    let half_way = normalize(KEY + 1.01 * view.to_eye);
    let gloss2 = pow2(max(dot(normal, half_way), 0.0));
    let gloss8 = pow2(pow2(gloss2));
    let gloss = 0.04 * gloss8 * gloss8 * gloss8;
    // The inside of an open mesh is darker.
    let inside = select(0.55, 1.0, outside);
    let light = mix(sky + key + 0.16 * facing, vec3(0.78 + 0.22 * facing), view.flatness) * inside;
    return vec4(encoded_from_linear(in.colour * light + gloss * (1.0 - view.flatness)), view.opacity);
}

struct Edge {
    @builtin(position) position: vec4<f32>,
    @location(0) colour: vec3<f32>,
}

@vertex
fn vs_edge(
    @location(0) position_camera_m: vec3<f32>,
    @location(1) normal: vec3<f32>,
    @location(2) colour: vec4<f32>,
) -> Edge {
    var position = view.clip_from_camera * vec4(position_camera_m, 1.0);
    // Two parts in a thousand nearer than its surface (depth is near / w).
    position.z *= 1.002;
    return Edge(position, colour.rgb * view.edge_shade);
}

@fragment
fn fs_edge(in: Edge) -> @location(0) vec4<f32> {
    return vec4(in.colour, view.opacity * view.edge_opacity);
}
