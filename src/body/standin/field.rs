//! The implicit surface that the stand-ins are cut from: a signed distance (negative inside) blended from a few kinds
//! of primitives.
//!
//! Every machine must get the very same mesh, or weights trained on one would not fit on another. So the field, and
//! all geometry after it, uses `f64` and only the operations that IEEE 754 rounds exactly: `+ - * /` and `sqrt`. No
//! `sin`, `exp` or `powf`, whose last digit belongs to the platform.

use glam::DVec3;

/// Cross-section of a [`Solid::Loft`] at one place of its axis, as seen in two orthogonal silhouettes.
///
/// `[s, u0, u1, v0, v1, boxiness]`: position along the axis, lower and upper edge along the two other axes (in the
/// order x, y, z), and how far the section goes from an ellipse (0) to a rounded rectangle (1).
pub type Station = [f64; 6];

/// A world axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Axis {
    X,
    Y,
    Z,
}

/// A shape with an approximate signed distance.
#[derive(Clone, Debug)]
pub enum Solid {
    /// The hull of two balls.
    Cone { a: DVec3, b: DVec3, ra: f64, rb: f64 },
    /// An ellipsoid whose half axes lie along x, y, z.
    Ellipsoid { centre: DVec3, radii: DVec3 },
    /// Stations along a world axis, joined by cubics; the ends are rounded by `caps`.
    Loft { axis: Axis, stations: Vec<Station>, tangents: Vec<Station>, caps: [f64; 2] },
}

/// One solid with the way it joins those before it.
#[derive(Clone, Debug)]
pub struct Primitive {
    solid: Solid,
    /// Width of the smooth union, in metres.
    blend: f64,
    /// Edge length that the mesh should have here, in metres.
    edge: f64,
    /// Takes away instead of adding.
    carves: bool,
    bound: Bound,
}

/// A box around something.
#[derive(Clone, Copy, Debug)]
struct Bound {
    lo: DVec3,
    hi: DVec3,
}

impl Bound {
    fn around(points: impl IntoIterator<Item = DVec3>) -> Self {
        let none = Self { lo: DVec3::splat(FAR), hi: DVec3::splat(-FAR) };
        points.into_iter().fold(none, |b, p| Self { lo: b.lo.min(p), hi: b.hi.max(p) })
    }

    /// `p` is farther from the box than `distance`.
    fn is_beyond(&self, p: DVec3, distance: f64) -> bool {
        let outside = (self.lo - p).max(p - self.hi).max(DVec3::ZERO);
        outside.length_squared() > distance.max(0.0) * distance.max(0.0)
    }
}

impl Primitive {
    fn new(solid: Solid, blend: f64, edge: f64) -> Self {
        let bound = solid.bound();
        Self { solid, blend, edge, carves: false, bound }
    }

    /// The hull of two balls.
    pub fn cone(a: [f64; 3], ra: f64, b: [f64; 3], rb: f64, blend: f64, edge: f64) -> Self {
        Self::new(Solid::Cone { a: a.into(), b: b.into(), ra, rb }, blend, edge)
    }

    /// An ellipsoid.
    pub fn ellipsoid(centre: [f64; 3], radii: [f64; 3], blend: f64, edge: f64) -> Self {
        Self::new(Solid::Ellipsoid { centre: centre.into(), radii: radii.into() }, blend, edge)
    }

    /// Cross-sections along an axis; at least two, in rising order.
    pub fn loft(axis: Axis, stations: &[Station], caps: [f64; 2], blend: f64, edge: f64) -> Self {
        let tangents = tangents(stations);
        Self::new(Solid::Loft { axis, stations: stations.to_vec(), tangents, caps }, blend, edge)
    }

    /// The same, taken away.
    pub fn carving(mut self) -> Self {
        self.carves = true;
        self
    }

    fn join(&self, distance: f64, p: DVec3) -> f64 {
        if self.carves {
            // As far outside the carving solid as `p` is inside the body, nothing is taken away.
            if self.bound.is_beyond(p, self.blend - distance) {
                return distance;
            }
            return -smooth_min(-distance, self.solid.distance(p), self.blend);
        }
        if self.bound.is_beyond(p, distance + self.blend) {
            return distance;
        }
        smooth_min(distance, self.solid.distance(p), self.blend)
    }
}

/// Primitives that blend with one another first and with the rest as a whole.
#[derive(Clone, Debug)]
pub struct Part {
    primitives: Vec<Primitive>,
    blend: f64,
    mirrored: bool,
    bound: Bound,
}

impl Part {
    /// Primitives joined in their order. `blend` is the width of the smooth union with the parts before, in metres.
    pub fn new(blend: f64, primitives: Vec<Primitive>) -> Self {
        let solid = primitives.iter().filter(|q| !q.carves);
        let bound = Bound::around(solid.flat_map(|q| [q.bound.lo, q.bound.hi]));
        Self { primitives, blend, mirrored: false, bound }
    }

    /// The same on both sides of the plane x = 0.
    pub fn mirrored(mut self) -> Self {
        self.mirrored = true;
        self
    }

    fn join(&self, distance: f64, p: DVec3) -> f64 {
        if self.bound.is_beyond(p, distance + self.blend) {
            return distance;
        }
        smooth_min(distance, self.primitives.iter().fold(FAR, |d, primitive| primitive.join(d, p)), self.blend)
    }
}

/// A distance beyond everything, in metres.
const FAR: f64 = 10.0;

/// A spot where the mesh is finer than its primitives ask for.
#[derive(Clone, Copy, Debug)]
pub struct Fine {
    /// Middle of the spot.
    pub centre: DVec3,
    /// Radius at which the spot has no more effect, in metres.
    pub reach: f64,
    /// Edge length in the middle, in metres.
    pub edge: f64,
}

/// The whole surface.
#[derive(Clone, Debug, Default)]
pub struct Field {
    /// Joined in their order.
    pub parts: Vec<Part>,
    /// Spots of finer mesh.
    pub fine: Vec<Fine>,
    /// Height of the flat ground under the feet, rounded by the second number; nothing is below it.
    pub ground: Option<(f64, f64)>,
}

impl Field {
    /// Signed distance, in metres: exact in sign, about right near the surface, rough far away.
    pub fn distance(&self, p: DVec3) -> f64 {
        let mirror = DVec3::new(-p.x, p.y, p.z);
        let mut d = FAR;
        for part in &self.parts {
            d = part.join(d, p);
            if part.mirrored {
                d = part.join(d, mirror);
            }
        }
        match self.ground {
            Some((height, rounding)) => -smooth_min(-d, p.y - height, rounding),
            None => d,
        }
    }

    /// Direction of steepest ascent, not normalised; points out of the body.
    pub fn gradient(&self, p: DVec3) -> DVec3 {
        // Four samples on the corners of a tetrahedron.
        const H: f64 = 2e-4;
        let corners = [
            DVec3::new(1.0, -1.0, -1.0),
            DVec3::new(-1.0, -1.0, 1.0),
            DVec3::new(-1.0, 1.0, -1.0),
            DVec3::new(1.0, 1.0, 1.0),
        ];
        corners.into_iter().map(|e| e * self.distance(p + e * H)).sum::<DVec3>() / (4.0 * H)
    }

    /// Edge length that the mesh should have at `p`: that of the primitives nearby, and of the fine spots.
    pub fn edge(&self, p: DVec3) -> f64 {
        let (mut sum, mut total) = (0.0, 0.0);
        for primitive in self.parts.iter().flat_map(|part| &part.primitives) {
            if !primitive.carves && !primitive.bound.is_beyond(p, 0.05) {
                let d = primitive.solid.distance(p).max(0.0) + 0.004;
                let weight = 1.0 / (d * d);
                sum += weight * primitive.edge;
                total += weight;
            }
        }
        let mut edge = if total > 0.0 { sum / total } else { 0.04 };
        for fine in &self.fine {
            let t = (p - fine.centre).length() / fine.reach;
            if t < 1.0 {
                let t = t * t * (3.0 - 2.0 * t);
                edge = edge.min(fine.edge + (edge - fine.edge).max(0.0) * t);
            }
        }
        edge
    }
}

/// Union with a fillet of width `k` (quadratic polynomial).
fn smooth_min(a: f64, b: f64, k: f64) -> f64 {
    let h = (k - (a - b).abs()).max(0.0);
    if h > 0.0 { a.min(b) - h * h / (4.0 * k) } else { a.min(b) }
}

/// Finite-difference tangents for cubic interpolation.
fn tangents(stations: &[Station]) -> Vec<Station> {
    let last = stations.len() - 1;
    (0..=last)
        .map(|i| {
            let (a, b) = (&stations[i.saturating_sub(1)], &stations[(i + 1).min(last)]);
            std::array::from_fn(|k| (b[k] - a[k]) / (b[0] - a[0]))
        })
        .collect()
}

/// The section at `s`, which must lie between the first and the last station.
fn section(stations: &[Station], tangents: &[Station], s: f64) -> Station {
    let i = stations.partition_point(|st| st[0] <= s).clamp(1, stations.len() - 1) - 1;
    let (a, b) = (&stations[i], &stations[i + 1]);
    let length = b[0] - a[0];
    let t = (s - a[0]) / length;
    let (t2, t3) = (t * t, t * t * t);
    let (h00, h10, h01, h11) = (2.0 * t3 - 3.0 * t2 + 1.0, t3 - 2.0 * t2 + t, 3.0 * t2 - 2.0 * t3, t3 - t2);
    std::array::from_fn(|k| h00 * a[k] + h10 * length * tangents[i][k] + h01 * b[k] + h11 * length * tangents[i + 1][k])
}

impl Solid {
    fn bound(&self) -> Bound {
        match self {
            Self::Cone { a, b, ra, rb } => Bound::around([*a - *ra, *a + *ra, *b - *rb, *b + *rb]),
            Self::Ellipsoid { centre, radii } => Bound::around([*centre - *radii, *centre + *radii]),
            Self::Loft { axis, stations, caps, .. } => {
                // Cubics may pass a little beyond their stations.
                const MARGIN: f64 = 0.005;
                Bound::around(stations.iter().flat_map(|&[s, u0, u1, v0, v1, _]| {
                    [
                        axis.point(s - caps[0], u0 - MARGIN, v0 - MARGIN),
                        axis.point(s + caps[1], u1 + MARGIN, v1 + MARGIN),
                    ]
                }))
            }
        }
    }

    fn distance(&self, p: DVec3) -> f64 {
        match self {
            Self::Cone { a, b, ra, rb } => cone_distance(p, *a, *b, *ra, *rb),
            Self::Ellipsoid { centre, radii } => {
                let q = p - *centre;
                let (k0, k1) = ((q / *radii).length(), (q / (*radii * *radii)).length());
                if k1 > 1e-9 { k0 * (k0 - 1.0) / k1 } else { -radii.min_element() }
            }
            Self::Loft { axis, stations, tangents, caps } => {
                let (s, u, v) = axis.split(p);
                let (first, last) = (stations[0][0], stations[stations.len() - 1][0]);
                let inside = s.clamp(first, last);
                let [_, u0, u1, v0, v1, boxiness] = section(stations, tangents, inside);
                let (ru, rv) = ((u1 - u0) * 0.5, (v1 - v0) * 0.5);
                let cap = if s < first { caps[0] } else { caps[1] };
                let q = [(u - (u0 + u1) * 0.5) / ru, (v - (v0 + v1) * 0.5) / rv, (s - inside) / cap];
                let [a, b, c] = q.map(|x| x * x);
                let round = (a + b + c).sqrt();
                if round < 1e-6 {
                    return -ru.min(rv);
                }
                let square = (a * a + b * b + c * c).sqrt().sqrt();
                let k0 = round + (square - round) * boxiness;
                let slope = (a / (ru * ru) + b / (rv * rv) + c / (cap * cap)).sqrt() / round;
                (k0 - 1.0) / slope
            }
        }
    }
}

impl Axis {
    /// Position along the axis, then along the two others in the order x, y, z.
    fn split(self, p: DVec3) -> (f64, f64, f64) {
        match self {
            Self::X => (p.x, p.y, p.z),
            Self::Y => (p.y, p.x, p.z),
            Self::Z => (p.z, p.x, p.y),
        }
    }

    fn point(self, s: f64, u: f64, v: f64) -> DVec3 {
        match self {
            Self::X => DVec3::new(s, u, v),
            Self::Y => DVec3::new(u, s, v),
            Self::Z => DVec3::new(u, v, s),
        }
    }
}

/// Exact distance to the hull of two balls: in the plane of the axis and `p`, the nearest point lies on one of the
/// balls or on their common tangent.
fn cone_distance(p: DVec3, a: DVec3, b: DVec3, ra: f64, rb: f64) -> f64 {
    let axis = b - a;
    let length = axis.length();
    let shrink = ra - rb;
    if length <= shrink.abs() {
        return if ra > rb { (p - a).length() - ra } else { (p - b).length() - rb };
    }
    let direction = axis / length;
    let along = (p - a).dot(direction);
    let away = (p - a - direction * along).length();
    // The tangent leans against the axis by an angle of this sine and cosine.
    let sine = shrink / length;
    let cosine = (1.0 - sine * sine).sqrt();
    let foot = along * cosine - away * sine;
    if foot <= 0.0 {
        (p - a).length() - ra
    } else if foot >= length * cosine {
        (p - b).length() - rb
    } else {
        away * cosine + along * sine - ra
    }
}
