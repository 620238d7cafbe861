// Thick segments between two points of camera space, drawn flat towards the eye with smooth edges: bones and joints,
// boxes, the frustum, markers. Twin of the instances: `gpu_types::Stroke`.

// One colour; shaded like a rounded rod or ball; a ring around its first point.
const STYLE_FLAT = 0u;
const STYLE_ROUND = 1u;
const STYLE_RING = 2u;

struct Rod {
    @builtin(position) position: vec4<f32>,
    // Both ends, target pixels.
    @location(0) @interpolate(flat, either) a_px: vec2<f32>,
    @location(1) @interpolate(flat, either) b_px: vec2<f32>,
    // At either end, pixels.
    @location(2) @interpolate(flat, either) radii_px: vec2<f32>,
    @location(3) @interpolate(flat, either) colour: vec4<f32>,
    @location(4) @interpolate(flat, either) style: u32,
}

fn target_px(clip: vec4<f32>) -> vec2<f32> {
    return (vec2(0.5) + vec2(0.5, -0.5) * clip.xy / clip.w) * view.target_size_px;
}

// A strip of two triangles.
@vertex
fn vs_stroke(
    @builtin(vertex_index) vertex: u32,
    @location(0) a_camera_m: vec3<f32>,
    // The radius is the larger one of a length in the scene and one on the target.
    @location(1) radius_m: f32,
    @location(2) b_camera_m: vec3<f32>,
    @location(3) radius_px: f32,
    @location(4) colour: vec4<f32>,
    @location(5) style: u32,
) -> Rod {
    var a = view.clip_from_camera * vec4(a_camera_m, 1.0);
    var b = view.clip_from_camera * vec4(b_camera_m, 1.0);
    if a.w < view.near_m && b.w < view.near_m {
        // Outside of the clip volume, and without extent.
        return Rod(vec4(2.0, 2.0, 0.5, 1.0), vec2(0.0), vec2(0.0), vec2(0.0), vec4(0.0), 0u);
    }
    // Keep the part in front of the near plane.
    if a.w < view.near_m {
        a = mix(a, b, (view.near_m - a.w) / (b.w - a.w));
    } else if b.w < view.near_m {
        b = mix(b, a, (view.near_m - b.w) / (a.w - b.w));
    }
    let a_px = target_px(a);
    let b_px = target_px(b);
    let radii_px = max(radius_m * view.focal_px / vec2(a.w, b.w), vec2(radius_px));

    let along = b_px - a_px;
    let span = length(along);
    let direction = select(vec2(1.0, 0.0), along / max(span, 1e-6), span > 1e-3);
    let across = vec2(-direction.y, direction.x);
    // A pixel more for the smooth edge.
    let extent = max(radii_px.x, radii_px.y) + 1.0;
    let at_b = (vertex & 1u) == 1u;
    let side = select(-1.0, 1.0, vertex >= 2u);
    let px = select(a_px - direction * extent, b_px + direction * extent, at_b) + across * side * extent;

    let ndc = px / view.target_size_px * vec2(2.0, -2.0) + vec2(-1.0, 1.0);
    // Depth is near / w, which runs linearly over the target: no perspective is needed.
    let depth = select(a.z / a.w, b.z / b.w, at_b);
    return Rod(vec4(ndc, depth, 1.0), a_px, b_px, radii_px, colour, style);
}

@fragment
fn fs_stroke(in: Rod) -> @location(0) vec4<f32> {
    let p = in.position.xy - in.a_px;
    let along = in.b_px - in.a_px;
    let span2 = dot(along, along);
    let at = select(0.0, saturate(dot(p, along) / max(span2, 1e-12)), span2 > 1e-6);
    let offset = p - along * at;
    let d = length(offset);
    let radius = mix(in.radii_px.x, in.radii_px.y, at);
    let coverage = saturate(radius - d + 0.5);
    if coverage <= 0.0 {
        discard;
    }
    if in.style == STYLE_RING {
        // Light in the middle of a dark band: visible on anything.
        let band = radius * 0.5;
        let from_middle = abs(d - (radius - 0.5 * band));
        let core = saturate(band * 0.28 - from_middle + 0.5);
        let ring = saturate(band * 0.5 - from_middle + 0.5);
        return vec4(mix(vec3(0.0), in.colour.rgb, core), ring * in.colour.a);
    }
    var colour = in.colour.rgb;
    if in.style == STYLE_ROUND {
        let slope = offset / max(radius, 1e-3);
        let normal = vec3(slope, sqrt(max(1.0 - dot(slope, slope), 0.0)));
        let light = 0.42 + 0.72 * max(dot(normal, normalize(vec3(-0.45, -0.65, 0.65))), 0.0);
        colour = encoded_from_linear(linear_from_encoded(colour) * light);
    }
    return vec4(colour, in.colour.a * coverage);
}
