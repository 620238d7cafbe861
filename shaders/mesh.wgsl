// The people's meshes: depth alone, lit surfaces, and edges. Normals and colours come with the vertices.

struct Surface {
    // Depth is written by one pipeline and compared for equality by another.
    @invariant @builtin(position) position: vec4<f32>,
    @location(0) normal: vec3<f32>,
    // Linear.
    @location(1) colour: vec3<f32>,
    // Cosine between normal and eye; highlight. They change slowly: once a vertex is enough.
    @location(2) facing_gloss: vec2<f32>,
}

// Towards the light: above, to the left and behind the real camera.
const KEY = vec3(-0.42, -0.68, -0.6);

@vertex
fn vs_surface(
    @location(0) position_camera_m: vec3<f32>,
    @location(1) normal: vec3<f32>,
    @location(2) colour: vec4<f32>,
) -> Surface {
    let position = view.clip_from_camera * vec4(position_camera_m, 1.0);
    let to_eye = normalize(view.eye_camera_m - position_camera_m);
    let facing = dot(normal, to_eye);
    // The normal lies between light and eye: cos(n, k + e) = n (k + e) / |k + e|, |k + e|^2 = 2 + 2 k e.
    let half_way = (dot(normal, KEY) + facing) / sqrt(max(2.0 + 2.0 * dot(KEY, to_eye), 1e-4));
    let gloss = 0.05 * pow(max(half_way, 0.0), 24.0);
    return Surface(position, normal, linear_from_encoded(colour.rgb), vec2(facing, gloss));
}

@fragment
fn fs_depth() -> @location(0) vec4<f32> {
    return vec4(0.0);
}

@fragment
fn fs_surface(in: Surface, @builtin(front_facing) outside: bool) -> @location(0) vec4<f32> {
    let facing = in.facing_gloss.x;
    // The inside of an open mesh is darker. Close to a silhouette, where rounding may let the far side win by a pixel,
    // the smooth normal decides.
    let inside = !outside && facing < -0.25;
    let normal = normalize(in.normal) * select(1.0, -1.0, inside);
    let sky = mix(vec3(0.20, 0.19, 0.18), vec3(0.44, 0.46, 0.50), 0.5 - 0.5 * normal.y);
    let key = 0.62 * max(dot(normal, KEY), 0.0);
    // A weak light at the eye keeps the far side of the orbit view readable.
    let shaded = sky + key + 0.16 * abs(facing);
    let flat_light = vec3(0.78 + 0.22 * abs(facing));
    let light = mix(shaded, flat_light, view.flatness) * select(1.0, 0.55, inside);
    let gloss = in.facing_gloss.y * (1.0 - view.flatness);
    return vec4(encoded_from_linear(in.colour * light + gloss), view.opacity);
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
