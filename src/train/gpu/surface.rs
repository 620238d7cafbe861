//! The losses of a mesh's surface: the twin of [`ops::surface_losses`](crate::train::ops::surface_losses).

use std::sync::Arc;

use candle_core::{Device, Result, Shape, Tensor};

use super::kernels::{self, Meshes};
use super::machine::{Machine, Memory, machine_of, with_lent};
use super::operation::{Operand, Operation, Traced};
use crate::nets::cuda::kernels::Ptr;

/// The faces of a mesh on a device.
pub struct FacesThere {
    /// `[F, 3]`
    faces: Memory,
    /// Where the corners of each vertex begin, and the end of the last one's.
    starts: Memory,
    /// `3 * face + corner`, those of the first vertex first.
    corners: Memory,
    count: usize,
}

/// Whole numbers, as memory of floats holds them.
fn upload(on: &dyn Machine, numbers: impl Iterator<Item = usize>) -> Result<Memory> {
    on.upload(&numbers.map(|n| f32::from_bits(n as u32)).collect::<Vec<_>>())
}

impl FacesThere {
    /// Takes them there.
    pub fn new(device: &Device, faces: &[[u32; 3]], vertices: usize) -> Result<Self> {
        let machine = machine_of(device)?;
        let on = &*machine;
        let mut of_vertex = vec![Vec::new(); vertices];
        for (at, vertex) in faces.as_flattened().iter().enumerate() {
            of_vertex[*vertex as usize].push(at);
        }
        let ends = of_vertex.iter().scan(0, |end, corners| {
            *end += corners.len();
            Some(*end)
        });
        Ok(Self {
            starts: upload(on, std::iter::once(0).chain(ends))?,
            corners: upload(on, of_vertex.iter().flatten().copied())?,
            faces: upload(on, faces.as_flattened().iter().map(|vertex| *vertex as usize))?,
            count: faces.len(),
        })
    }
}

/// The losses of the face normals and of the edge lengths, `[2]`: means over all edges of all faces. `output` and
/// `target` are `[B, V, 3]`, `valid [B, V, 1]`.
pub fn surface_losses(output: &Tensor, target: &Tensor, valid: &Tensor, faces: Arc<FacesThere>) -> Result<Tensor> {
    let (people, edges) = (output.dim(0)?, faces.count * 3);
    let (target, valid) = (target.detach(), valid.detach());
    let sums = Traced(SurfaceSums { faces, target, valid }).apply(output)?;
    sums.sum(0)? / (people * edges) as f64
}

struct SurfaceSums {
    faces: Arc<FacesThere>,
    target: Tensor,
    valid: Tensor,
}

impl SurfaceSums {
    fn with_meshes<T>(&self, on: &dyn Machine, output: Operand, work: impl FnOnce(&Meshes) -> Result<T>) -> Result<T> {
        with_lent(on, &[&self.target, &self.valid], |at| {
            let (people, vertices) = (output.dims[0], output.dims[1]);
            let [target, valid] = [at[0], at[1]];
            work(&Meshes { output: output.at, target, valid, faces: self.faces.faces.at, people, vertices })
        })
    }
}

impl Operation for SurfaceSums {
    const NAME: &'static str = "losses of normals and edges";

    fn forward(&self, on: &dyn Machine, inputs: &[Operand]) -> Result<(Memory, Shape)> {
        let people = inputs[0].dims[0];
        let sums = on.take(people * 2)?;
        self.with_meshes(on, inputs[0], |meshes| kernels::surface_sums(on, meshes, sums.at, self.faces.count))?;
        Ok((sums, Shape::from((people, 2))))
    }

    fn backward(&self, on: &dyn Machine, inputs: &[Operand], _: Operand, grad: Ptr) -> Result<Vec<Option<Memory>>> {
        let dx = on.take(inputs[0].dims.iter().product())?;
        let of_vertices = [self.faces.starts.at, self.faces.corners.at];
        self.with_meshes(on, inputs[0], |meshes| kernels::surface_gradient(on, meshes, of_vertices, grad, dx.at))?;
        Ok(vec![Some(dx)])
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Var;

    use super::super::twins::{assert_near, random};
    use super::*;
    use crate::train::ops::{Faces, surface_losses as on_the_processor};

    #[test]
    fn losses_and_gradients_are_those_of_the_processor() -> Result<()> {
        let (people, vertices) = (3, 50);
        let [output, target] = [1, 2].map(|seed| random(seed, &[people, vertices, 3], 15.0));
        let valid = random(3, &[people, vertices, 1], 1.0).ge(-0.6_f32)?.to_dtype(candle_core::DType::F32)?;
        let faces: Vec<[u32; 3]> =
            (0..90).map(|i| [i * 7 % 50, (i * 7 + 1 + i % 5) % 50, (i * 7 + 11 + i % 13) % 50]).collect();
        let there = Arc::new(FacesThere::new(output.device(), &faces, vertices)?);
        let faces = Faces::new(&faces, vertices)?;
        // As they are, and collapsed to a point.
        for output in [output.clone(), (&output * 1e-9)?] {
            let run = |losses: &dyn Fn(&Tensor) -> Result<Tensor>| -> Result<[Tensor; 2]> {
                let output = Var::from_tensor(&output)?;
                let losses = losses(&output)?;
                let weights = Tensor::new(&[0.7_f32, 0.2], output.device())?;
                let found = (&losses * weights)?.sum_all()?.backward()?;
                Ok([losses.detach(), found.get(&output).expect("a gradient").clone()])
            };
            let [losses, gradient] =
                run(&|output: &Tensor| surface_losses(output, &target, &valid, Arc::clone(&there)))?;
            let [expected_losses, expected_gradient] = run(&|output: &Tensor| {
                let [normal, edge] = on_the_processor(output, &target, &valid, &faces)?;
                Tensor::stack(&[normal, edge], 0)
            })?;
            // Sums of 810 in another order.
            assert_near(&losses, &expected_losses, 1e-5, "losses");
            assert_near(&gradient, &expected_gradient, 1e-4, "gradient");
        }
        Ok(())
    }
}
