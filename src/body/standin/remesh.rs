//! Good triangles on an implicit surface: split long edges, collapse short ones, flip towards six neighbours each,
//! relax along the surface, and again (the isotropic remeshing of Botsch and Kobbelt, with the edge length given by the
//! field).
//!
//! Half a body is meshed on x >= 0 with its border on the plane x = 0. Vertices of the plane stay in it and the mesh
//! is kept such that it can be welded to its mirror image: no inner edge joins two of them.

use glam::DVec3;
use rayon::prelude::*;

use super::field::Field;
use super::grid::RawMesh;

/// Edges are split above and collapsed below these multiples of the wanted length.
const LONGEST: f64 = 4.0 / 3.0;
const SHORTEST: f64 = 4.0 / 5.0;

/// Cosine of the largest angle between a face and the surface at its corners.
const LEAST_ALIGNED: f64 = 0.5;

/// Remeshes `raw` on the surface of `field`. With `border`, the mesh ends in the plane x = 0.
pub fn remesh(field: &Field, raw: RawMesh, border: bool, rounds: usize) -> RawMesh {
    let mut mesh = Editor::new(field, raw, border);
    // The grid's mesh is far too fine in many places: first coarsen it as it is.
    mesh.collapse_short_edges();
    mesh.flip_edges();
    for _ in 0..rounds {
        mesh.split_long_edges();
        mesh.collapse_short_edges();
        mesh.flip_edges();
        mesh.relax(2);
    }
    mesh.flip_thin_triangles();
    mesh.relax(3);
    mesh.flip_thin_triangles();
    mesh.relax(2);
    mesh.inflate();
    mesh.compacted()
}

struct Editor<'a> {
    field: &'a Field,
    at: Vec<DVec3>,
    normal: Vec<DVec3>,
    edge: Vec<f64>,
    in_plane: Vec<bool>,
    faces: Vec<[u32; 3]>,
    alive: Vec<bool>,
    /// Faces around each vertex, in no order.
    around: Vec<Vec<u32>>,
}

impl<'a> Editor<'a> {
    fn new(field: &'a Field, raw: RawMesh, border: bool) -> Self {
        let mut around = vec![Vec::new(); raw.vertices.len()];
        for (i, face) in raw.faces.iter().enumerate() {
            for &v in face {
                around[v as usize].push(i as u32);
            }
        }
        let in_plane = raw.vertices.iter().map(|p| border && p.x == 0.0).collect();
        let edge = raw.vertices.par_iter().map(|&p| field.edge(p)).collect();
        let normal = raw.vertices.par_iter().map(|&p| field.gradient(p).normalize_or_zero()).collect();
        let alive = vec![true; raw.faces.len()];
        Self { field, at: raw.vertices, normal, edge, in_plane, faces: raw.faces, alive, around }
    }

    fn at(&self, v: u32) -> DVec3 {
        self.at[v as usize]
    }

    fn wanted(&self, a: u32, b: u32) -> f64 {
        (self.edge[a as usize] + self.edge[b as usize]) * 0.5
    }

    fn length(&self, a: u32, b: u32) -> f64 {
        (self.at(a) - self.at(b)).length()
    }

    /// Both ends lie in the plane of symmetry.
    fn both_in_plane(&self, a: u32, b: u32) -> bool {
        self.in_plane[a as usize] && self.in_plane[b as usize]
    }

    /// Neighbours, each once.
    fn neighbours(&self, v: u32) -> Vec<u32> {
        let mut out = Vec::with_capacity(8);
        for &f in &self.around[v as usize] {
            for u in self.faces[f as usize] {
                if u != v && !out.contains(&u) {
                    out.push(u);
                }
            }
        }
        out
    }

    fn faces_of_edge(&self, a: u32, b: u32) -> Vec<u32> {
        self.around[a as usize].iter().copied().filter(|&f| self.faces[f as usize].contains(&b)).collect()
    }

    /// Every edge once, in the order of the faces.
    fn edges(&self) -> Vec<[u32; 2]> {
        let mut edges = Vec::with_capacity(self.faces.len() * 3 / 2);
        for (face, _) in self.faces.iter().zip(&self.alive).filter(|(_, alive)| **alive) {
            for i in 0..3 {
                let (a, b) = (face[i], face[(i + 1) % 3]);
                if a < b || (self.both_in_plane(a, b) && self.faces_of_edge(a, b).len() == 1) {
                    edges.push([a, b]);
                }
            }
        }
        edges
    }

    /// Moves a point to the surface; one of the plane within the plane.
    fn settle(&self, p: DVec3, in_plane: bool, steps: usize) -> (DVec3, DVec3) {
        let flat = DVec3::new(0.0, 1.0, 1.0);
        let mut p = if in_plane { p * flat } else { p };
        let mut g = DVec3::ZERO;
        for _ in 0..steps {
            g = self.field.gradient(p);
            if in_plane {
                g *= flat;
            }
            let step = g * (self.field.distance(p) / g.length_squared().max(0.25));
            p -= step.clamp_length_max(0.02);
        }
        (p, g.normalize_or_zero())
    }

    fn split_long_edges(&mut self) {
        for _ in 0..4 {
            let long: Vec<_> =
                self.edges().into_iter().filter(|&[a, b]| self.length(a, b) > LONGEST * self.wanted(a, b)).collect();
            if long.is_empty() {
                break;
            }
            for [a, b] in long {
                self.split(a, b);
            }
        }
    }

    fn split(&mut self, a: u32, b: u32) {
        let shared = self.faces_of_edge(a, b);
        let in_plane = shared.len() == 1;
        let (p, normal) = self.settle((self.at(a) + self.at(b)) * 0.5, in_plane, 2);
        let m = self.at.len() as u32;
        self.at.push(p);
        self.normal.push(normal);
        self.edge.push(self.field.edge(p));
        self.in_plane.push(in_plane);
        self.around.push(Vec::new());
        for f in shared {
            let old = self.faces[f as usize];
            let new = self.faces.len() as u32;
            // The old face keeps a, the new one gets b.
            self.faces[f as usize] = old.map(|v| if v == b { m } else { v });
            self.faces.push(old.map(|v| if v == a { m } else { v }));
            self.alive.push(true);
            self.around[b as usize].retain(|&g| g != f);
            self.around[b as usize].push(new);
            self.around[m as usize].extend([f, new]);
            for v in old {
                if v != a && v != b {
                    self.around[v as usize].push(new);
                }
            }
        }
    }

    fn collapse_short_edges(&mut self) {
        for _ in 0..4 {
            let mut short: Vec<_> = self
                .edges()
                .into_iter()
                .map(|[a, b]| (self.length(a, b) / self.wanted(a, b), a, b))
                .filter(|&(ratio, ..)| ratio < SHORTEST)
                .collect();
            short.sort_by(|p, q| p.0.total_cmp(&q.0).then((p.1, p.2).cmp(&(q.1, q.2))));
            let mut done = 0;
            for (_, a, b) in short {
                let fresh = !self.around[a as usize].is_empty()
                    && !self.around[b as usize].is_empty()
                    && self.length(a, b) < SHORTEST * self.wanted(a, b);
                if fresh && self.collapse(a, b) {
                    done += 1;
                }
            }
            if done == 0 {
                break;
            }
        }
    }

    /// Merges the ends of an edge where that harms nothing.
    fn collapse(&mut self, a: u32, b: u32) -> bool {
        // The one that stays is in the plane if any is.
        let (a, b) = if self.in_plane[b as usize] && !self.in_plane[a as usize] { (b, a) } else { (a, b) };
        let shared = self.faces_of_edge(a, b);
        let in_plane = self.in_plane[a as usize];
        let both = self.both_in_plane(a, b);
        if shared.is_empty() || (both && shared.len() != 1) {
            return false;
        }
        let (ring_a, ring_b) = (self.neighbours(a), self.neighbours(b));
        let common = ring_b.iter().filter(|v| ring_a.contains(v)).count();
        let would_join_plane =
            in_plane && !both && ring_b.iter().any(|&v| v != a && self.in_plane[v as usize] && !ring_a.contains(&v));
        if common != shared.len() || would_join_plane {
            return false;
        }
        let (p, normal) = if in_plane && !both {
            (self.at(a), self.normal[a as usize])
        } else {
            self.settle((self.at(a) + self.at(b)) * 0.5, in_plane, 1)
        };
        let edge = self.wanted(a, b);
        let too_long = |&v: &u32| (self.at(v) - p).length() > LONGEST * (edge + self.edge[v as usize]) * 0.5;
        if ring_a.iter().chain(&ring_b).filter(|&&v| v != a && v != b).any(too_long) {
            return false;
        }
        // Every face must look the way the surface does at its corners, or at least no worse than before: this keeps
        // four vertices around the thinnest finger.
        let spoiled = |&f: &u32| {
            let corners = self.faces[f as usize];
            let (mut before, mut after) = (1.0_f64, 1.0_f64);
            let old = unit_normal(corners.map(|v| self.at(v)));
            let new = unit_normal(corners.map(|v| if v == a || v == b { p } else { self.at(v) }));
            for v in corners {
                before = before.min(old.dot(self.normal[v as usize]));
                after = after.min(new.dot(if v == a || v == b { normal } else { self.normal[v as usize] }));
            }
            after < LEAST_ALIGNED && after < before.max(0.2)
        };
        let stays = |f: &&u32| !shared.contains(f);
        if self.around[a as usize].iter().chain(&self.around[b as usize]).filter(stays).any(spoiled) {
            return false;
        }

        for &f in &shared {
            self.alive[f as usize] = false;
            for v in self.faces[f as usize] {
                self.around[v as usize].retain(|&g| g != f);
            }
        }
        for f in std::mem::take(&mut self.around[b as usize]) {
            self.faces[f as usize] = self.faces[f as usize].map(|v| if v == b { a } else { v });
            self.around[a as usize].push(f);
        }
        (self.at[a as usize], self.normal[a as usize], self.edge[a as usize]) = (p, normal, edge);
        true
    }

    /// How far the number of neighbours is from six, as it would be in the welded mesh.
    fn strain(&self, v: u32, change: i32) -> i32 {
        let count = self.around[v as usize].len() as i32 + change;
        let excess = if self.in_plane[v as usize] { 2 * (count - 3) } else { count - 6 };
        excess * excess
    }

    /// Flips edges where the neighbour counts come closer to six.
    fn flip_edges(&mut self) {
        for _ in 0..3 {
            let mut done = 0;
            for [a, b] in self.edges() {
                let Some((c, d)) = self.flippable(a, b) else { continue };
                let before = [a, b, c, d].map(|v| self.strain(v, 0)).iter().sum::<i32>();
                let after = self.strain(a, -1) + self.strain(b, -1) + self.strain(c, 1) + self.strain(d, 1);
                if after < before && self.flip_quality(a, b, c, d).1 > 0.25 {
                    self.flip(a, b, c, d);
                    done += 1;
                }
            }
            if done == 0 {
                break;
            }
        }
    }

    /// Flips edges where the worse of two triangles becomes better.
    fn flip_thin_triangles(&mut self) {
        for _ in 0..3 {
            for [a, b] in self.edges() {
                let Some((c, d)) = self.flippable(a, b) else { continue };
                let (before, after) = self.flip_quality(a, b, c, d);
                if after > before.max(0.0) * 1.05 {
                    self.flip(a, b, c, d);
                }
            }
        }
    }

    /// The corners opposite to an inner edge, when joining them instead keeps a manifold.
    fn flippable(&self, a: u32, b: u32) -> Option<(u32, u32)> {
        let [f, g] = self.faces_of_edge(a, b)[..] else { return None };
        let opposite = |f: u32| self.faces[f as usize].into_iter().find(|&v| v != a && v != b);
        let (mut c, mut d) = (opposite(f)?, opposite(g)?);
        if !has_directed_edge(self.faces[f as usize], a, b) {
            (c, d) = (d, c);
        }
        let enough = |v: u32| self.around[v as usize].len() > 3;
        (enough(a) && enough(b) && !self.both_in_plane(c, d) && self.faces_of_edge(c, d).is_empty()).then_some((c, d))
    }

    /// Quality of the worse triangle before and after a flip; -1 for a fold.
    fn flip_quality(&self, a: u32, b: u32, c: u32, d: u32) -> (f64, f64) {
        let quality = |corners: [u32; 3]| {
            let n = unit_normal(corners.map(|v| self.at(v)));
            let aligned = corners.iter().all(|&v| n.dot(self.normal[v as usize]) > LEAST_ALIGNED);
            if aligned { shape_quality(corners.map(|v| self.at(v))) } else { -1.0 }
        };
        (quality([a, b, c]).min(quality([b, a, d])), quality([a, d, c]).min(quality([d, b, c])))
    }

    fn flip(&mut self, a: u32, b: u32, c: u32, d: u32) {
        let [f, g] = self.faces_of_edge(a, b)[..] else { return };
        // f keeps a, g keeps b.
        self.faces[f as usize] = [a, d, c];
        self.faces[g as usize] = [d, b, c];
        self.around[a as usize].retain(|&x| x != g);
        self.around[b as usize].retain(|&x| x != f);
        for v in [c, d] {
            let around = &mut self.around[v as usize];
            around.retain(|&x| x != f && x != g);
            around.extend([f, g]);
        }
    }

    /// Moves vertices along the surface to the middle of their neighbours, and back onto the surface.
    fn relax(&mut self, times: usize) {
        for _ in 0..times {
            let moved: Vec<_> = (0..self.at.len() as u32)
                .into_par_iter()
                .map(|v| {
                    let (p, normal) = (self.at(v), self.normal[v as usize]);
                    if self.around[v as usize].is_empty() {
                        return (p, normal);
                    }
                    let (mut sum, mut total) = (DVec3::ZERO, 0.0);
                    for &f in &self.around[v as usize] {
                        let corners = self.faces[f as usize];
                        let q = corners.map(|u| self.at(u));
                        // Areas in units of the wanted area, so that a change of density does not pull.
                        let edge = corners.iter().map(|&u| self.edge[u as usize]).sum::<f64>() / 3.0;
                        let weight = area_vector(q).length() / (edge * edge);
                        sum += (q[0] + q[1] + q[2]) * (weight / 3.0);
                        total += weight;
                    }
                    let pull = if total > 0.0 { sum / total - p } else { DVec3::ZERO };
                    let pull = pull - normal * normal.dot(pull);
                    self.settle(p + pull, self.in_plane[v as usize], 1)
                })
                .collect();
            (self.at, self.normal) = moved.into_iter().unzip();
        }
        self.edge = self.at.par_iter().map(|&p| self.field.edge(p)).collect();
    }

    /// Flat triangles cut corners: moves vertices out by the depth at which the faces around them run inside, so that
    /// thin parts keep their thickness.
    fn inflate(&mut self) {
        let depth: Vec<f64> = self
            .faces
            .par_iter()
            .map(|face| self.field.distance(face.iter().map(|&v| self.at(v)).sum::<DVec3>() / 3.0))
            .collect();
        for v in 0..self.at.len() {
            let around = &self.around[v];
            if !around.is_empty() {
                let mean = around.iter().map(|&f| depth[f as usize]).sum::<f64>() / around.len() as f64;
                // Little at most, lest finger tips become spikes.
                let most = 0.12 * self.edge[v];
                self.at[v] -= self.normal[v] * (0.7 * mean).clamp(-most, most);
            }
        }
    }

    fn compacted(self) -> RawMesh {
        let mut new_index = vec![0; self.at.len()];
        let mut vertices = Vec::new();
        for (v, around) in self.around.iter().enumerate() {
            if !around.is_empty() {
                new_index[v] = vertices.len() as u32;
                vertices.push(self.at[v]);
            }
        }
        let faces = self.faces.iter().zip(&self.alive).filter(|(_, alive)| **alive);
        RawMesh { vertices, faces: faces.map(|(f, _)| f.map(|v| new_index[v as usize])).collect() }
    }
}

fn has_directed_edge(face: [u32; 3], a: u32, b: u32) -> bool {
    (0..3).any(|i| face[i] == a && face[(i + 1) % 3] == b)
}

/// The face's normal times twice its area.
pub fn area_vector([a, b, c]: [DVec3; 3]) -> DVec3 {
    (b - a).cross(c - a)
}

fn unit_normal(corners: [DVec3; 3]) -> DVec3 {
    area_vector(corners).normalize_or_zero()
}

/// 1 for an equilateral triangle, 0 for one without area: 4 sqrt(3) area / sum of squared sides.
pub fn shape_quality([a, b, c]: [DVec3; 3]) -> f64 {
    let sides = (b - a).length_squared() + (c - b).length_squared() + (a - c).length_squared();
    if sides > 0.0 { 2.0 * 3.0_f64.sqrt() * area_vector([a, b, c]).length() / sides } else { 0.0 }
}
