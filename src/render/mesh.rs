//! The people's meshes: smooth normals and colours, computed for each result on the processor's threads, and the
//! passes that draw them.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use anyhow::{Context, Result};
use glam::Vec3;
use rayon::prelude::*;

use super::camera::is_drawable;
use super::colour::{bytes, person_colour, spread_colour};
use super::gpu_types::MeshVertex;
use super::resources::{Depth, GrowingBuffer, Pass, PipelineFactory};
use super::{DrawOptions, MeshColour};
use crate::body::Topology;
use crate::result::{FrameResult, Person, PersonMesh};

pub(super) const WGSL: &str = concat!(include_str!("../../shaders/view.wgsl"), include_str!("../../shaders/mesh.wgsl"));

/// The pipelines that draw meshes.
pub(super) struct MeshPasses {
    /// Depth alone: what is in front, before anything is blended.
    depth: wgpu::RenderPipeline,
    /// The surface where it is in front, blended: one layer, whatever lies behind it.
    blended: wgpu::RenderPipeline,
    /// The opaque surface, in one pass.
    solid: wgpu::RenderPipeline,
    edges: wgpu::RenderPipeline,
}

impl MeshPasses {
    pub fn new(factory: &PipelineFactory) -> Self {
        let module = factory.shader("mesh", WGSL);
        let buffers = [Some(wgpu::VertexBufferLayout {
            array_stride: size_of::<MeshVertex>() as u64,
            step_mode: wgpu::VertexStepMode::Vertex,
            attributes: &MeshVertex::ATTRIBUTES,
        })];
        let pass = |label, vertex, fragment, topology, depth, blend, colour| {
            let pass = Pass { label, vertex, fragment, buffers: &buffers, topology, depth, blend, colour };
            factory.pipeline(&module, &pass)
        };
        let (faces, lines) = (wgpu::PrimitiveTopology::TriangleList, wgpu::PrimitiveTopology::LineList);
        Self {
            depth: pass("mesh depth", "vs_surface", "fs_depth", faces, Depth::TestAndWrite, false, false),
            blended: pass("blended mesh", "vs_surface", "fs_surface", faces, Depth::Equal, true, true),
            solid: pass("solid mesh", "vs_surface", "fs_surface", faces, Depth::TestAndWrite, false, true),
            edges: pass("mesh edges", "vs_edge", "fs_edge", lines, Depth::Test, true, true),
        }
    }
}

/// What one person's mesh takes of the buffers.
struct Draw {
    base_vertex: i32,
    /// Of the face indices.
    faces: Range<u32>,
    /// Of the edge indices; empty when edges are not drawn.
    edges: Range<u32>,
}

/// The meshes of one result on the device.
pub(super) struct Meshes {
    vertices: GrowingBuffer,
    faces: GrowingBuffer,
    edges: GrowingBuffer,
    draws: Vec<Draw>,
    /// Whose faces are at the front of `faces`, and whose edges these are.
    topology: Option<Arc<Topology>>,
    shared_edges: Vec<[u32; 2]>,
    staging: Vec<MeshVertex>,
}

impl Meshes {
    pub fn new() -> Self {
        Self {
            vertices: GrowingBuffer::new("mesh vertices", wgpu::BufferUsages::VERTEX),
            faces: GrowingBuffer::new("mesh faces", wgpu::BufferUsages::INDEX),
            edges: GrowingBuffer::new("mesh edges", wgpu::BufferUsages::INDEX),
            draws: Vec::new(),
            topology: None,
            shared_edges: Vec::new(),
            staging: Vec::new(),
        }
    }

    /// Nobody.
    pub fn clear(&mut self) {
        self.draws.clear();
    }

    /// Puts the people who are drawn on the device. On an error nobody is drawn.
    pub fn set(
        &mut self,
        device: &wgpu::Device,
        queue: &wgpu::Queue,
        result: &FrameResult,
        options: &DrawOptions,
    ) -> Result<()> {
        self.draws.clear();
        let Some(topology) = result.topology.as_ref().filter(|_| options.shows_mesh()) else { return Ok(()) };
        let meshes: Vec<(&Person, &PersonMesh)> =
            options.visible(result).filter_map(|person| Some((person, person.mesh.as_ref()?))).collect();
        if meshes.is_empty() || topology.faces.is_empty() {
            return Ok(());
        }

        // [person 0's vertices, person 1's vertices, ...]
        let count: usize = meshes.iter().map(|(_, mesh)| mesh.vertices_camera_m.len()).sum();
        i32::try_from(count).ok().with_context(|| format!("{count} vertices are more than can be drawn"))?;
        self.staging.resize(count, MeshVertex::default());
        let mut rest = self.staging.as_mut_slice();
        let mut jobs = Vec::with_capacity(meshes.len());
        for &(person, mesh) in &meshes {
            let (own, others) = rest.split_at_mut(mesh.vertices_camera_m.len());
            rest = others;
            jobs.push((person, mesh, own));
        }
        jobs.into_par_iter().for_each(|(person, mesh, own)| {
            shade(person, mesh, &topology.faces, options.colour, result.bins, own);
        });
        self.vertices.write(device, queue, bytemuck::cast_slice(&self.staging))?;
        let draws = self.set_indices(device, queue, topology, &meshes, options.wireframe)?;
        self.draws = draws;
        Ok(())
    }

    /// The topology's faces and edges are uploaded once; those of meshes with unusable vertices follow, each time.
    fn set_indices(
        &mut self,
        device: &wgpu::Device,
        queue: &wgpu::Queue,
        topology: &Arc<Topology>,
        meshes: &[(&Person, &PersonMesh)],
        wireframe: bool,
    ) -> Result<Vec<Draw>> {
        let new_topology = self.topology.as_ref().is_none_or(|held| !Arc::ptr_eq(held, topology));
        if new_topology {
            self.topology = None;
            self.shared_edges.clear();
        }
        let new_edges = wireframe && self.shared_edges.is_empty();
        if new_edges {
            self.shared_edges = edges_of(&topology.faces);
        }

        let mut faces = Cow::Borrowed(topology.faces.as_slice());
        let mut edges = Cow::Borrowed(self.shared_edges.as_slice());
        let mut draws = Vec::with_capacity(meshes.len());
        let mut base_vertex = 0;
        for (_, mesh) in meshes {
            let (mut face_range, mut edge_range) = (0..topology.faces.len(), 0..self.shared_edges.len());
            if !is_whole(mesh, topology) {
                let usable: Vec<_> =
                    topology.faces.iter().copied().filter(|face| corners(mesh, face).is_some()).collect();
                face_range = append(&mut faces, &usable);
                if wireframe {
                    edge_range = append(&mut edges, &edges_of(&usable));
                }
            }
            let edges = if wireframe { indices(&edge_range, 2) } else { 0..0 };
            draws.push(Draw { base_vertex, faces: indices(&face_range, 3), edges });
            base_vertex += mesh.vertices_camera_m.len() as i32;
        }
        if new_topology || matches!(faces, Cow::Owned(_)) {
            self.faces.write(device, queue, bytemuck::cast_slice(&faces))?;
        }
        if new_edges || matches!(edges, Cow::Owned(_)) {
            self.edges.write(device, queue, bytemuck::cast_slice(&edges))?;
        }
        self.topology = Some(Arc::clone(topology));
        Ok(draws)
    }

    /// Draws the surfaces (`filled`) and the edges, blended when they are not `opaque`.
    pub fn draw(&self, pass: &mut wgpu::RenderPass<'_>, passes: &MeshPasses, filled: bool, opaque: bool) {
        let (Some(vertices), Some(faces)) = (self.vertices.get(), self.faces.get()) else { return };
        if self.draws.is_empty() {
            return;
        }
        pass.set_vertex_buffer(0, vertices.slice(..));
        pass.set_index_buffer(faces.slice(..), wgpu::IndexFormat::Uint32);
        // Edges alone hide behind their surfaces too.
        let stages: &[&wgpu::RenderPipeline] = match (filled, opaque) {
            (true, true) => &[&passes.solid],
            (true, false) => &[&passes.depth, &passes.blended],
            (false, _) => &[&passes.depth],
        };
        for pipeline in stages {
            pass.set_pipeline(pipeline);
            for draw in &self.draws {
                pass.draw_indexed(draw.faces.clone(), draw.base_vertex, 0..1);
            }
        }
        if let Some(edges) = self.edges.get().filter(|_| self.draws.iter().any(|draw| !draw.edges.is_empty())) {
            pass.set_index_buffer(edges.slice(..), wgpu::IndexFormat::Uint32);
            pass.set_pipeline(&passes.edges);
            for draw in &self.draws {
                pass.draw_indexed(draw.edges.clone(), draw.base_vertex, 0..1);
            }
        }
    }
}

/// Appends and says where.
fn append<T: Copy>(all: &mut Cow<'_, [T]>, more: &[T]) -> Range<usize> {
    let start = all.len();
    all.to_mut().extend_from_slice(more);
    start..start + more.len()
}

/// A range of faces or edges as a range of their indices.
fn indices(range: &Range<usize>, per_item: usize) -> Range<u32> {
    (range.start * per_item) as u32..(range.end * per_item) as u32
}

/// The three corners of a face, if they exist and can be drawn.
fn corners(mesh: &PersonMesh, face: &[u32; 3]) -> Option<[Vec3; 3]> {
    let corner = |i: u32| mesh.vertices_camera_m.get(i as usize).copied().filter(|v| is_drawable(*v));
    Some([corner(face[0])?, corner(face[1])?, corner(face[2])?])
}

/// All faces can be drawn. Vertices in the topology's number are the usual case, and cheap to tell.
fn is_whole(mesh: &PersonMesh, topology: &Topology) -> bool {
    let drawable = mesh.vertices_camera_m.iter().all(|v| is_drawable(*v));
    drawable && topology.faces.iter().flatten().all(|&i| (i as usize) < mesh.vertices_camera_m.len())
}

/// The edges of the faces, each once.
fn edges_of(faces: &[[u32; 3]]) -> Vec<[u32; 2]> {
    let sides = |&[a, b, c]: &[u32; 3]| [[a, b], [b, c], [c, a]];
    let mut edges: Vec<_> = faces.iter().flat_map(sides).map(|[a, b]| [a.min(b), a.max(b)]).collect();
    edges.par_sort_unstable();
    edges.dedup();
    edges
}

/// Fills in one person's vertices: normals weighted by the areas of the faces around, and colours.
fn shade(
    person: &Person,
    mesh: &PersonMesh,
    faces: &[[u32; 3]],
    colour: MeshColour,
    bins: usize,
    out: &mut [MeshVertex],
) {
    let own = bytes(person_colour(person.id), 1.0);
    for (i, (to, position)) in out.iter_mut().zip(&mesh.vertices_camera_m).enumerate() {
        let colour = match colour {
            MeshColour::Person => own,
            MeshColour::Spread => {
                let spread = mesh.spread_lixel.get(i).map_or(f32::NAN, |s| s.length());
                bytes(spread_colour(spread, bins), 1.0)
            }
        };
        // No face uses a vertex that cannot be drawn.
        let position = if is_drawable(*position) { *position } else { Vec3::ZERO };
        *to = MeshVertex { position_camera_m: position.to_array(), normal: [0.0; 3], colour };
    }
    for face in faces {
        let Some([a, b, c]) = corners(mesh, face) else { continue };
        // Its length is twice the area.
        let normal = (b - a).cross(c - a);
        for &i in face {
            let to = &mut out[i as usize].normal;
            *to = (Vec3::from_array(*to) + normal).to_array();
        }
    }
    for vertex in out {
        vertex.normal = Vec3::from_array(vertex.normal).normalize_or(Vec3::NEG_Z).to_array();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges_are_listed_once() {
        assert_eq!(edges_of(&[[0, 1, 2], [2, 1, 3]]), [[0, 1], [0, 2], [1, 2], [1, 3], [2, 3]]);
    }

    #[test]
    fn faces_with_unusable_corners_are_left_out() {
        let vertices_camera_m = vec![Vec3::ZERO, Vec3::X, Vec3::NAN, Vec3::splat(1e30)].into();
        let mesh = PersonMesh { vertices_camera_m, ..PersonMesh::default() };
        assert!(corners(&mesh, &[0, 1, 0]).is_some());
        for face in [[0, 1, 2], [3, 0, 1], [0, 1, 4], [0, u32::MAX, 1]] {
            assert!(corners(&mesh, &face).is_none(), "{face:?}");
        }
        let topology = Topology { faces: vec![[0, 1, 0]], ..Topology::default() };
        assert!(!is_whole(&mesh, &topology), "a vertex is not a number");
    }
}
