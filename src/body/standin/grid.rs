//! First mesh of an implicit surface: marching tetrahedra on a grid whose lines lie closer where the body is finer.
//!
//! Each cell is cut into six tetrahedra around its main diagonal, so that the mesh is a manifold whatever the signs
//! are. Its triangles are poor; [`super::remesh`] makes good ones.

use glam::DVec3;
use rayon::prelude::*;

use super::field::Field;

/// Vertices and triangles, counter-clockwise seen from outside.
#[derive(Clone, Debug, Default)]
pub struct RawMesh {
    pub vertices: Vec<DVec3>,
    pub faces: Vec<[u32; 3]>,
}

/// Nodes of a grid on x lines and y lines; along z as many nodes everywhere, spread over a depth that depends on x, so
/// that flat parts far out are cut as finely as they need.
pub struct Grid {
    pub x: Vec<f64>,
    pub y: Vec<f64>,
    pub z_count: usize,
    /// For each x line the first and the last z.
    pub depth: Vec<[f64; 2]>,
}

impl Grid {
    fn count(&self) -> usize {
        self.x.len() * self.y.len() * self.z_count
    }

    fn at(&self, x: usize, y: usize, z: usize) -> DVec3 {
        let [near, far] = self.depth[x];
        DVec3::new(self.x[x], self.y[y], near + (far - near) * (z as f64 / (self.z_count - 1) as f64))
    }
}

/// Positions of grid lines along one axis: from `start` on through `(end, step)` pairs.
pub fn lines(start: f64, runs: &[(f64, f64)]) -> Vec<f64> {
    let mut at = start;
    let mut lines = vec![start];
    for &(end, step) in runs {
        let count = ((end - at) / step).ceil().max(1.0);
        lines.extend((1..=count as usize).map(|i| at + (end - at) * (i as f64 / count)));
        at = end;
    }
    lines
}

/// Marks an edge without a vertex.
const NONE: u32 = u32::MAX;

/// Nodes of a cell are numbered by the bits x, y, z. Each tetrahedron is listed with positive orientation.
const TETRAHEDRA: [[usize; 4]; 6] =
    [[0, 1, 3, 7], [0, 2, 6, 7], [0, 4, 5, 7], [0, 3, 2, 7], [0, 6, 4, 7], [0, 5, 1, 7]];

/// Even orders of a tetrahedron's corners that put one, or two, of them first.
const ONE_FIRST: [[usize; 4]; 4] = [[0, 1, 2, 3], [1, 0, 3, 2], [2, 3, 0, 1], [3, 2, 1, 0]];
const TWO_FIRST: [[usize; 4]; 6] = [[0, 1, 2, 3], [2, 3, 0, 1], [0, 2, 3, 1], [1, 3, 2, 0], [0, 3, 1, 2], [1, 2, 0, 3]];

/// Triangulates the zero of `field` within the grid; open where the surface leaves it.
pub fn march(field: &Field, grid: &Grid) -> RawMesh {
    let [nx, ny, nz] = [grid.x.len(), grid.y.len(), grid.z_count];
    let values = sample(field, grid);
    let node = |x: usize, y: usize, z: usize| (z * ny + y) * nx + x;
    let position = |i: usize| grid.at(i % nx, i / nx % ny, i / (nx * ny));

    let mut mesh = RawMesh::default();
    // A grid edge is known by its lower node and the bits in which its upper node lies beyond.
    let mut on_edge = vec![NONE; values.len() * 7];
    for z in 0..nz - 1 {
        for y in 0..ny - 1 {
            for x in 0..nx - 1 {
                let nodes: [usize; 8] =
                    std::array::from_fn(|bits| node(x + (bits & 1), y + (bits >> 1 & 1), z + (bits >> 2)));
                let inside = nodes.map(|i| values[i] < 0.0);
                if inside.iter().all(|&v| v == inside[0]) {
                    continue;
                }
                let mut cut = |p: usize, q: usize| {
                    let (lo, hi) = if p < q { (p, q) } else { (q, p) };
                    let slot = &mut on_edge[nodes[lo] * 7 + (hi - lo) - 1];
                    if *slot == NONE {
                        let (a, b) = (values[nodes[lo]], values[nodes[hi]]);
                        let (from, to) = (position(nodes[lo]), position(nodes[hi]));
                        *slot = mesh.vertices.len() as u32;
                        mesh.vertices.push(from + (to - from) * (a / (a - b)));
                    }
                    *slot
                };
                for tetrahedron in &TETRAHEDRA {
                    let within = tetrahedron.map(|corner| inside[corner]);
                    let count = within.iter().filter(|&&v| v).count();
                    match count {
                        1 | 3 => {
                            let odd_one = within.iter().position(|&v| v == (count == 1)).unwrap_or(0);
                            let [i, j, k, l] = ONE_FIRST[odd_one].map(|c| tetrahedron[c]);
                            let [a, b, c] = [cut(i, j), cut(i, k), cut(i, l)];
                            mesh.faces.push(if count == 1 { [a, b, c] } else { [a, c, b] });
                        }
                        2 => {
                            let Some(order) = TWO_FIRST.iter().find(|o| within[o[0]] && within[o[1]]) else { continue };
                            let [i, j, k, l] = order.map(|c| tetrahedron[c]);
                            let [a, b, c, d] = [cut(i, k), cut(i, l), cut(j, l), cut(j, k)];
                            mesh.faces.extend([[a, b, c], [a, c, d]]);
                        }
                        _ => {}
                    }
                }
            }
        }
    }
    mesh
}

/// The field at every node. Blocks of nodes that are far from the surface get one value for all.
fn sample(field: &Field, grid: &Grid) -> Vec<f64> {
    const BLOCK: usize = 4;
    let [nx, ny, nz] = [grid.x.len(), grid.y.len(), grid.z_count];
    let mut values = vec![0.0; grid.count()];
    values.par_chunks_mut(nx * ny * BLOCK).enumerate().for_each(|(slab, values)| {
        let z = slab * BLOCK..((slab + 1) * BLOCK).min(nz);
        for y in (0..ny).step_by(BLOCK).map(|y| y..(y + BLOCK).min(ny)) {
            for x in (0..nx).step_by(BLOCK).map(|x| x..(x + BLOCK).min(nx)) {
                let corners = [x.start, x.end - 1].map(|i| {
                    [grid.at(i, y.start, z.start), grid.at(i, y.start, z.end - 1)]
                        .into_iter()
                        .chain([grid.at(i, y.end - 1, z.start), grid.at(i, y.end - 1, z.end - 1)])
                });
                let (lo, hi) = corners
                    .into_iter()
                    .flatten()
                    .fold((DVec3::INFINITY, DVec3::NEG_INFINITY), |(lo, hi), p| (lo.min(p), hi.max(p)));
                let middle = field.distance((lo + hi) * 0.5);
                // Twice the half diagonal: the field is only about a distance.
                let same = middle.abs() > (hi - lo).length();
                for k in z.clone() {
                    for j in y.clone() {
                        for i in x.clone() {
                            values[((k - z.start) * ny + j) * nx + i] =
                                if same { middle } else { field.distance(grid.at(i, j, k)) };
                        }
                    }
                }
            }
        }
    });
    values
}
