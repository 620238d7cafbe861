//! What the surface of a mesh should look like: the losses of its faces' normals and edges (I2L-MeshNet, eq. 10 and
//! 11), in one pass over the faces with the gradient written down, where candle's own operations would make some sixty
//! tensors of all faces.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, bail};
use glam::Vec3;
use rayon::prelude::*;

use super::{floats, with_floats};
#[cfg(feature = "cudnn")]
use crate::train::gpu;

/// Added to squared lengths, so that an edge without length has a gradient of 0 and not of 0 times infinity. Far
/// below what f32 tells apart at any length of interest.
const TINY: f32 = 1e-24;
/// A shorter edge, in lixels, has no direction worth learning from: its cosine is taken as if it were so long, which
/// bounds the gradient where a mesh has collapsed.
const SHORTEST: f32 = 1e-3;
/// The edges of a face as pairs of its corners.
const EDGES: [[usize; 2]; 3] = [[0, 1], [0, 2], [1, 2]];

/// The faces of a mesh whose surface is learnt.
#[derive(Clone)]
pub struct Faces {
    faces: Arc<[[u32; 3]]>,
    vertices: usize,
    /// The same on a GPU, once they were wanted there.
    #[cfg(feature = "cudnn")]
    there: Arc<std::sync::OnceLock<Arc<gpu::FacesThere>>>,
}

impl Faces {
    /// Faces of a mesh of so many vertices.
    pub fn new(faces: &[[u32; 3]], vertices: usize) -> Result<Self> {
        if let Some(face) = faces.iter().find(|face| face.iter().any(|&v| v as usize >= vertices)) {
            bail!("a face {face:?} of a mesh of {vertices} vertices");
        }
        if faces.is_empty() {
            bail!("a mesh without faces has no surface");
        }
        Ok(Self {
            faces: faces.into(),
            vertices,
            #[cfg(feature = "cudnn")]
            there: Arc::default(),
        })
    }
}

/// The losses of the face normals (eq. 10) and of the edge lengths (eq. 11), two scalars with gradients. `output` and
/// `target` are `[B, V, 3]` in lixels; `valid [B, V, 1]` is 1 where a vertex has a target and 0 where not.
///
/// The first is the cosine between each edge of the output's faces and the target's face normal, 0 where the faces lie
/// in the same plane; the second is the L1 of the edges' lengths. Both are means over all edges of all faces, those
/// that do not count included, as in the release.
pub fn surface_losses(output: &Tensor, target: &Tensor, valid: &Tensor, faces: &Faces) -> Result<[Tensor; 2]> {
    let (people, vertices, _) = output.dims3()?;
    if vertices != faces.vertices || target.dims() != [people, vertices, 3] || valid.dims() != [people, vertices, 1] {
        bail!(
            "meshes {:?}, targets {:?} and valid {:?} for faces of {} vertices",
            output.dims(),
            target.dims(),
            valid.dims(),
            faces.vertices
        );
    }
    #[cfg(feature = "cudnn")]
    if output.device().is_cuda() {
        let there = if let Some(there) = faces.there.get() {
            there
        } else {
            let there = gpu::FacesThere::new(output.device(), &faces.faces, vertices)?;
            faces.there.get_or_init(|| Arc::new(there))
        };
        let losses = gpu::surface_losses(output, target, valid, Arc::clone(there))?;
        return Ok([losses.get(0)?, losses.get(1)?]);
    }
    let wanted = with_floats([target, valid], |[target, valid]| {
        let people = target.par_chunks_exact(vertices * 3).zip(valid.par_chunks_exact(vertices));
        Ok(people.map(|(target, valid)| Wanted::of(&faces.faces, target, valid)).collect())
    })?;
    let losses = output.contiguous()?.apply_op1(SurfaceLosses { faces: faces.clone(), wanted })?;
    Ok([losses.get(0)?, losses.get(1)?])
}

/// What is wanted of a face.
struct Wanted {
    normal: Vec3,
    lengths: [f32; 3],
    /// 1 where all corners are valid, else 0.
    face_counts: f32,
    /// 1 for each edge whose ends are valid.
    edges_count: [f32; 3],
}

impl Wanted {
    /// Of each face of a person.
    fn of(faces: &[[u32; 3]], target: &[f32], valid: &[f32]) -> Vec<Self> {
        let one = |face: &[u32; 3]| {
            let [a, b, c] = corners(face, target);
            let valid = face.map(|vertex| valid[vertex as usize]);
            let [ab, ac, bc] = EDGES.map(|[from, to]| valid[from] * valid[to]);
            let unit = |v: Vec3| v / length(v);
            Self {
                normal: unit(unit(b - a).cross(unit(c - a))),
                lengths: [length(b - a), length(c - a), length(c - b)],
                face_counts: valid[0] * valid[1] * valid[2],
                edges_count: [ab, ac, bc],
            }
        };
        faces.iter().map(one).collect()
    }
}

fn corners(face: &[u32; 3], vertices: &[f32]) -> [Vec3; 3] {
    face.map(|vertex| Vec3::from_slice(&vertices[vertex as usize * 3..]))
}

fn length(v: Vec3) -> f32 {
    (v.length_squared() + TINY).sqrt()
}

/// 0 at 0, where [`f32::signum`] is 1.
fn sign(x: f32) -> f32 {
    if x == 0.0 { 0.0 } else { x.signum() }
}

/// An edge of the output against what is wanted of it.
struct Edge {
    along: Vec3,
    length: f32,
    cosine: f32,
}

impl Edge {
    fn new(along: Vec3, normal: Vec3) -> Self {
        let length = length(along);
        Self { along, length, cosine: along.dot(normal) / length.max(SHORTEST) }
    }

    /// Gradient of the cosine's size by the edge.
    fn cosine_gradient(&self, normal: Vec3) -> Vec3 {
        let along = if self.length < SHORTEST {
            normal / SHORTEST
        } else {
            (normal - self.along * (self.cosine / self.length)) / self.length
        };
        along * sign(self.cosine)
    }

    /// Gradient of the difference to a length by the edge.
    fn length_gradient(&self, wanted: f32) -> Vec3 {
        self.along * (sign(self.length - wanted) / self.length)
    }
}

struct SurfaceLosses {
    faces: Faces,
    /// For each person, for each face.
    wanted: Vec<Vec<Wanted>>,
}

impl SurfaceLosses {
    /// Part of the mean that each edge is.
    fn share(&self) -> f64 {
        1.0 / (self.wanted.len() * self.faces.faces.len() * EDGES.len()) as f64
    }
}

impl CustomOp1 for SurfaceLosses {
    fn name(&self) -> &'static str {
        "losses of normals and edges"
    }

    fn cpu_fwd(&self, output: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let people = floats(output, layout)?.par_chunks_exact(self.faces.vertices * 3).zip(&self.wanted);
        // Collected first: the order of the sum does not depend on the threads.
        let sums: Vec<[f64; 2]> = people
            .map(|(output, wanted)| {
                let mut sums = [0.0_f64; 2];
                for (face, wanted) in self.faces.faces.iter().zip(wanted) {
                    let corners = corners(face, output);
                    let mut of_face = [0.0; 2];
                    for (i, [from, to]) in EDGES.into_iter().enumerate() {
                        let edge = Edge::new(corners[to] - corners[from], wanted.normal);
                        of_face[0] += edge.cosine.abs() * wanted.face_counts;
                        of_face[1] += (edge.length - wanted.lengths[i]).abs() * wanted.edges_count[i];
                    }
                    sums.iter_mut().zip(of_face).for_each(|(sum, part)| *sum += f64::from(part));
                }
                sums
            })
            .collect();
        let loss = |which: usize| (sums.iter().map(|sums| sums[which]).sum::<f64>() * self.share()) as f32;
        Ok((CpuStorage::F32(vec![loss(0), loss(1)]), Shape::from(2)))
    }

    fn bwd(&self, output: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let grads = grad.to_vec1::<f32>()?;
        let [normal, edge] = [grads[0], grads[1]].map(|grad| grad * self.share() as f32);
        with_floats([output], |[output]| {
            let mut gradient = vec![0.0; output.len()];
            let of_person = self.faces.vertices * 3;
            let people = gradient.par_chunks_exact_mut(of_person).zip(output.par_chunks_exact(of_person));
            people.zip(&self.wanted).for_each(|((gradient, output), wanted)| {
                for (face, wanted) in self.faces.faces.iter().zip(wanted) {
                    let corners = corners(face, output);
                    let mut of_corners = [Vec3::ZERO; 3];
                    for (i, [from, to]) in EDGES.into_iter().enumerate() {
                        let along = Edge::new(corners[to] - corners[from], wanted.normal);
                        let by_edge = along.cosine_gradient(wanted.normal) * (normal * wanted.face_counts)
                            + along.length_gradient(wanted.lengths[i]) * (edge * wanted.edges_count[i]);
                        of_corners[to] += by_edge;
                        of_corners[from] -= by_edge;
                    }
                    for (vertex, add) in face.iter().zip(of_corners) {
                        let at = &mut gradient[*vertex as usize * 3..][..3];
                        at.iter_mut().zip(add.to_array()).for_each(|(to, add)| *to += add);
                    }
                }
            });
            Tensor::from_vec(gradient, (self.wanted.len(), self.faces.vertices, 3), &candle_core::Device::Cpu).map(Some)
        })
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Var};

    use super::*;
    use crate::train::params::Random;

    /// The plain twins in candle's operations, of which candle makes the gradients.
    struct Plain([Tensor; 3]);

    impl Plain {
        fn new(faces: &[[u32; 3]]) -> Result<Self> {
            let faces = Tensor::from_slice(faces.as_flattened(), (faces.len(), 3), &Device::Cpu)?;
            let column = |i| faces.narrow(1, i, 1)?.squeeze(1)?.contiguous();
            Ok(Self([column(0)?, column(1)?, column(2)?]))
        }

        /// `[B, V, C] -> 3 x [B, F, C]`
        fn corners(&self, values: &Tensor) -> Result<[Tensor; 3]> {
            let at = |i: usize| values.contiguous()?.index_select(&self.0[i], 1);
            Ok([at(0)?, at(1)?, at(2)?])
        }

        fn normal_loss(&self, output: &Tensor, target: &Tensor, valid: &Tensor) -> Result<Tensor> {
            let [o0, o1, o2] = self.corners(output)?;
            let [t0, t1, t2] = self.corners(target)?;
            let normal = normalized(&cross(&normalized(&(t1 - &t0)?)?, &normalized(&(t2 - &t0)?)?)?)?;
            let [v0, v1, v2] = self.corners(valid)?;
            let counts = ((v0 * v1)? * v2)?;
            let cosine = |edge: Tensor| (normalized(&edge)? * &normal)?.sum_keepdim(2)?.abs()? * &counts;
            Tensor::cat(&[cosine((&o1 - &o0)?)?, cosine((&o2 - &o0)?)?, cosine((&o2 - &o1)?)?], 1)?.mean_all()
        }

        fn edge_loss(&self, output: &Tensor, target: &Tensor, valid: &Tensor) -> Result<Tensor> {
            let output = self.corners(output)?;
            let target = self.corners(target)?;
            let valid = self.corners(valid)?;
            let edge = |[a, b]: [usize; 2]| {
                let lengths = |of: &[Tensor; 3]| plain_length(&(&of[a] - &of[b])?);
                (lengths(&output)? - lengths(&target)?)?.abs()? * (&valid[a] * &valid[b])?
            };
            Tensor::cat(&[edge(EDGES[0])?, edge(EDGES[1])?, edge(EDGES[2])?], 1)?.mean_all()
        }
    }

    fn plain_length(v: &Tensor) -> Result<Tensor> {
        v.sqr()?.sum_keepdim(2)?.sqrt()
    }

    fn normalized(v: &Tensor) -> Result<Tensor> {
        v.broadcast_div(&plain_length(v)?)
    }

    fn cross(a: &Tensor, b: &Tensor) -> Result<Tensor> {
        let axis = |v: &Tensor, i: usize| v.narrow(2, i % 3, 1);
        let component = |i: usize| (axis(a, i + 1)? * axis(b, i + 2)?)? - (axis(a, i + 2)? * axis(b, i + 1)?)?;
        Tensor::cat(&[component(0)?, component(1)?, component(2)?], 2)
    }

    /// People, vertices and faces, as they come.
    fn made_up(people: usize, vertices: usize, faces: usize) -> Result<([Tensor; 3], Vec<[u32; 3]>)> {
        let random = &mut Random::new(11);
        let mut points = || {
            let values: Vec<f32> = (0..people * vertices * 3).map(|_| 30.0 * random.uniform() as f32).collect();
            Tensor::from_vec(values, (people, vertices, 3), &Device::Cpu)
        };
        let (output, target) = (points()?, points()?);
        let valid: Vec<f32> = (0..people * vertices).map(|_| f32::from(u8::from(random.uniform() < 0.8))).collect();
        let valid = Tensor::from_vec(valid, (people, vertices, 1), &Device::Cpu)?;
        let mut vertex = || (random.uniform() * vertices as f64) as usize % vertices;
        let faces = (0..faces).map(|_| {
            let (a, b) = (vertex(), 1 + vertex() % (vertices / 3));
            [a, (a + b) % vertices, (a + 2 * b) % vertices].map(|v| v as u32)
        });
        Ok(([output, target, valid], faces.collect()))
    }

    #[test]
    fn one_pass_says_what_the_plain_operations_say() -> Result<()> {
        let ([output, target, valid], faces) = made_up(3, 50, 90)?;
        let (plain, faces) = (Plain::new(&faces)?, Faces::new(&faces, 50)?);
        let output = Var::from_tensor(&output)?;
        let ours = surface_losses(&output, &target, &valid, &faces)?;
        let theirs = [plain.normal_loss(&output, &target, &valid)?, plain.edge_loss(&output, &target, &valid)?];
        let number = |t: &Tensor| t.to_scalar::<f32>();
        for (ours, theirs) in ours.iter().zip(&theirs) {
            // Some ten operations on numbers of the same size, and a sum of 810.
            assert!((number(ours)? / number(theirs)? - 1.0).abs() < 1e-5, "{ours} {theirs}");
        }
        // With shares of each, so that neither gradient can stand for the other.
        let gradient = |[normal, edge]: &[Tensor; 2]| {
            let found = ((normal * 0.7)? + (edge * 0.2)?)?.backward()?;
            Ok::<_, candle_core::Error>(found.get(&output).expect("a gradient").clone())
        };
        let (ours, theirs) = (gradient(&ours)?, gradient(&theirs)?);
        let largest = number(&theirs.abs()?.max_all()?)?;
        let off = number(&(ours - theirs)?.abs()?.max_all()?)?;
        assert!(largest > 1e-4 && off < 1e-4 * largest, "{off} of {largest}");
        Ok(())
    }

    #[test]
    fn a_collapsed_mesh_has_a_gradient_that_is_a_number() -> Result<()> {
        let ([output, target, valid], faces) = made_up(1, 12, 20)?;
        let faces = Faces::new(&faces, 12)?;
        for scale in [0.0, 1e-9] {
            let output = Var::from_tensor(&(&output * scale)?)?;
            let [normal, edge] = surface_losses(&output, &target, &valid, &faces)?;
            let found = (normal + edge)?.backward()?;
            let gradient = found.get(&output).expect("a gradient").abs()?.max_all()?.to_scalar::<f32>()?;
            // Each of 60 edges pulls with at most 1 / SHORTEST, as a mean.
            assert!(gradient <= 1.0 / SHORTEST + 1.0, "{gradient}");
        }
        Ok(())
    }

    #[test]
    fn other_meshes_are_refused() -> Result<()> {
        let ([output, target, valid], faces) = made_up(2, 12, 5)?;
        assert!(Faces::new(&faces, 3).is_err());
        assert!(Faces::new(&[], 3).is_err());
        let faces = Faces::new(&faces, 12)?;
        assert!(surface_losses(&output.narrow(1, 0, 11)?, &target, &valid, &faces).is_err());
        assert!(surface_losses(&output, &target.narrow(0, 0, 1)?, &valid, &faces).is_err());
        assert!(surface_losses(&output.to_dtype(DType::F64)?, &target, &valid, &faces).is_err());
        Ok(())
    }
}
