//! SMPL and MANO: a template, blend shapes for shape and pose, and linear blend skinning (SMPL, 2015, eq. 2-10).

use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use glam::{DMat3, DQuat, DVec3, Mat3, Vec3};
use rayon::prelude::*;

use super::arrays::{Array, Arrays};
use super::topology::{Family, JointSource, Topology};
use super::{npz, pickled};
use crate::nets::weights::{BODY_MODEL, WeightFile};

/// Shape components that are used; files can hold up to 300.
const SHAPE_COMPONENTS: usize = 10;

/// Vertices that are posed together: their blend shapes lie side by side, so that each pass over them is one stream.
const BLOCK: usize = 64;

/// No body model comes near it.
const MAX_VERTICES: usize = 1 << 16;

/// The largest distributed file (SMPL 1.1 with 300 shape components) has 250 MB.
const MAX_FILE_BYTES: u64 = 1 << 30;

/// The entries of a body model's file that are read. The last one is our own: vertices that are joints of meshes other
/// than the distributed ones.
const ENTRIES: [&str; 9] =
    ["v_template", "f", "J_regressor", "weights", "shapedirs", "posedirs", "kintree_table", "hands_mean", LANDMARKS];
pub(super) const LANDMARKS: &str = "landmark_vertices";

/// A body model, ready to be posed.
#[derive(Clone, Debug)]
pub struct BodyModel {
    family: Family,
    topology: Arc<Topology>,
    /// Where the joints of the skeleton are in a posed body.
    posed_joints: Vec<JointSource>,
    /// Parents of the pose joints; a parent comes before its children.
    parents: Vec<Option<usize>>,
    /// Mean pose of the hand's joints, added to every pose.
    mean_pose_rad: Vec<DVec3>,
    template_m: Vec<Vec3>,
    /// Blend shapes: `[block][shape components, then pose features][BLOCK * 3]`.
    blend_shapes: Vec<f32>,
    has_pose_shapes: bool,
    /// Pose joints in rest, and what each shape component adds: `[joint]`, `[component][joint]`.
    rest_joints_m: Vec<DVec3>,
    joint_shapes: Vec<Vec<DVec3>>,
    /// (joint, weight) pairs of vertex v at `skin[skin_starts[v]..skin_starts[v + 1]]`; zeros are left out.
    skin: Vec<(u16, f32)>,
    skin_starts: Vec<u32>,
}

/// A body in a pose, in metres.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PosedBody {
    /// Vertices of the mesh.
    pub vertices_m: Vec<Vec3>,
    /// The joints of [`Topology::skeleton`].
    pub joints_m: Vec<Vec3>,
}

/// What an I2L-MeshNet snapshot carries of its body model.
#[derive(Clone, Debug)]
pub struct SnapshotBody {
    /// Faces and joint regressor.
    pub topology: Arc<Topology>,
    /// The whole model, where all of its buffers are there.
    pub model: Option<BodyModel>,
}

impl SnapshotBody {
    /// The body model's buffers (`human_model_layer.th_*`) of a snapshot; `None` where it has no faces or regressor.
    pub fn read(file: &WeightFile) -> Result<Option<Self>> {
        let read = || -> Result<Option<Self>> {
            let mut arrays = Arrays::new();
            for entry in ENTRIES {
                let buffer = if entry == "f" { "faces" } else { entry };
                let name = format!("{BODY_MODEL}th_{buffer}");
                if file.shape(&name).is_some() {
                    let (mut shape, data) = file.values(&name)?;
                    // Buffers are kept as a batch of one.
                    if shape.first() == Some(&1) {
                        shape.remove(0);
                    }
                    arrays.insert(entry.to_owned(), Array { shape, data });
                }
            }
            if !arrays.contains_key("f") || !arrays.contains_key("J_regressor") {
                return Ok(None);
            }
            let whole =
                ["v_template", "weights", "shapedirs", "posedirs"].iter().all(|name| arrays.contains_key(*name));
            if whole {
                let model = BodyModel::from_arrays(&arrays)?;
                return Ok(Some(Self { topology: Arc::clone(&model.topology), model: Some(model) }));
            }
            let (topology, ..) = topology(&arrays)?;
            Ok(Some(Self { topology: Arc::new(topology), model: None }))
        };
        read().with_context(|| format!("the body model's buffers in {}", file.path().display()))
    }
}

impl BodyModel {
    /// Reads SMPL or MANO: a pickle as distributed, a plain pickle, or an npz; told by the content.
    pub fn open(path: &Path) -> Result<Self> {
        let read = || {
            let length = fs::metadata(path)?.len();
            ensure!(length <= MAX_FILE_BYTES, "{length} bytes are too many for a body model");
            Self::from_bytes(&fs::read(path)?)
        };
        read().with_context(|| format!("cannot read the body model {}", path.display()))
    }

    /// Reads the content of such a file.
    pub fn from_bytes(file: &[u8]) -> Result<Self> {
        let arrays = match file {
            [] => bail!("it is empty"),
            [b'P', b'K', 3, 4, ..] => npz::read(file, &ENTRIES)?,
            _ => pickled::read(file, &ENTRIES)?,
        };
        Self::from_arrays(&arrays)
    }

    /// From the entries of such a file.
    pub(crate) fn from_arrays(arrays: &Arrays) -> Result<Self> {
        let (topology, family, sources, regressor) = topology(arrays)?;
        let vertices = topology.vertex_count;
        let joints = regressor.shape[0];

        let template = array(arrays, "v_template", [vertices, 3])?;
        let weights = array(arrays, "weights", [vertices, joints])?;
        let shapes = array_of_rank(arrays, "shapedirs")?;
        let &[_, _, components] = shapes.shape.as_slice() else { bail!("shapedirs has shape {:?}", shapes.shape) };
        ensure!(shapes.shape[..2] == [vertices, 3], "shapedirs has shape {:?}", shapes.shape);
        let pose_features = 9 * (joints - 1);
        let poses = array(arrays, "posedirs", [vertices, 3, pose_features])?;
        // Bodies without pose blend shapes, as ours, need no time for them.
        let pose_features = if poses.data.iter().all(|&v| v == 0.0) { 0 } else { pose_features };

        let parents = match arrays.get("kintree_table") {
            Some(table) => parents(table, joints).context("kintree_table")?,
            None => family.pose_parents(),
        };
        let mut mean_pose_rad = vec![DVec3::ZERO; joints];
        if let (Family::Mano, Some(mean)) = (family, arrays.get("hands_mean")) {
            let mean = mean.data.as_chunks::<3>().0;
            ensure!(mean.len() == joints - 1, "hands_mean is of {} joints instead of {}", mean.len(), joints - 1);
            for (pose, &mean) in mean_pose_rad[1..].iter_mut().zip(mean) {
                *pose = DVec3::from_array(mean);
            }
        }

        // Blend shapes, from [vertex][axis][feature] to blocks.
        let features = SHAPE_COMPONENTS + pose_features;
        let blocks = vertices.div_ceil(BLOCK);
        let mut blend_shapes = vec![0.0f32; blocks * features * BLOCK * 3];
        for (block, out) in blend_shapes.chunks_exact_mut(features * BLOCK * 3).enumerate() {
            let first = block * BLOCK * 3;
            for lane in 0..(BLOCK * 3).min(vertices * 3 - first) {
                let row = first + lane;
                for c in 0..SHAPE_COMPONENTS.min(components) {
                    out[c * BLOCK * 3 + lane] = shapes.data[row * components + c] as f32;
                }
                for p in 0..pose_features {
                    out[(SHAPE_COMPONENTS + p) * BLOCK * 3 + lane] = poses.data[row * pose_features + p] as f32;
                }
            }
        }

        // The regressor is linear, so it can go through the template and the shape components once and for all.
        let regress = |vertex: &dyn Fn(usize) -> DVec3| -> Vec<DVec3> {
            let row = |j: usize| &regressor.data[j * vertices..][..vertices];
            let joint = |j| row(j).iter().enumerate().filter(|(_, w)| **w != 0.0).map(|(v, w)| vertex(v) * *w).sum();
            (0..joints).map(joint).collect()
        };
        let rest_joints_m = regress(&|v| DVec3::from_slice(&template.data[v * 3..]));
        let joint_shapes = (0..SHAPE_COMPONENTS.min(components)).map(|c| {
            let at = |v: usize, axis: usize| shapes.data[(v * 3 + axis) * components + c];
            regress(&|v| DVec3::new(at(v, 0), at(v, 1), at(v, 2)))
        });
        let joint_shapes = joint_shapes.collect();

        let mut skin = Vec::new();
        let mut skin_starts = vec![0];
        for row in weights.data.chunks_exact(joints) {
            skin.extend(row.iter().enumerate().filter(|(_, w)| **w != 0.0).map(|(j, &w)| (j as u16, w as f32)));
            skin_starts.push(skin.len() as u32);
        }
        let distributed = !arrays.contains_key(LANDMARKS);
        let posed_source = |source| if distributed { family.posed_source(source) } else { source };
        Ok(Self {
            family,
            topology: Arc::new(topology),
            posed_joints: sources.into_iter().map(posed_source).collect(),
            parents,
            mean_pose_rad,
            template_m: template.data.as_chunks().0.iter().map(|&v| DVec3::from_array(v).as_vec3()).collect(),
            blend_shapes,
            has_pose_shapes: pose_features > 0,
            rest_joints_m,
            joint_shapes,
            skin,
            skin_starts,
        })
    }

    /// Body or hand.
    pub fn family(&self) -> Family {
        self.family
    }

    /// Faces, joints and their regressor.
    pub fn topology(&self) -> &Arc<Topology> {
        &self.topology
    }

    /// Joints of a pose: 24 for SMPL, 16 for MANO.
    pub fn pose_joint_count(&self) -> usize {
        self.parents.len()
    }

    /// Vertices of the mean shape in the rest pose, in metres.
    pub fn template_m(&self) -> &[Vec3] {
        &self.template_m
    }

    /// Linear blend skinning. `pose_rad`: an axis-angle for each pose joint, the first the global orientation; a
    /// hand's mean pose is added to the others. `shape`: up to 10 components are used, missing ones are 0.
    pub fn pose(&self, pose_rad: &[Vec3], shape: &[f32], translation_m: Vec3) -> Result<PosedBody> {
        let joints = self.parents.len();
        ensure!(pose_rad.len() == joints, "a pose of {} joints for a model of {joints}", pose_rad.len());
        let shape = &shape[..shape.len().min(SHAPE_COMPONENTS)];
        let rotations: Vec<DMat3> = pose_rad
            .iter()
            .zip(&self.mean_pose_rad)
            .map(|(pose, mean)| DMat3::from_quat(DQuat::from_scaled_axis(pose.as_dvec3() + *mean)))
            .collect();

        // Blend weights: shape, then the rotations of all joints but the root, less the identity, row by row.
        let mut blend = shape.to_vec();
        blend.resize(SHAPE_COMPONENTS, 0.0);
        let posed_shapes = if self.has_pose_shapes { &rotations[1..] } else { &[] };
        for rotation in posed_shapes {
            let offset = (*rotation - DMat3::IDENTITY).transpose();
            blend.extend(offset.to_cols_array().map(|r| r as f32));
        }

        let rest: Vec<DVec3> = (0..joints)
            .map(|j| {
                let shaped = self.joint_shapes.iter().zip(shape).map(|(joints, &beta)| joints[j] * f64::from(beta));
                self.rest_joints_m[j] + shaped.sum::<DVec3>()
            })
            .collect();

        // Forward kinematics: orientation and place of every joint.
        let mut world: Vec<(DMat3, DVec3)> = Vec::with_capacity(joints);
        for (j, rotation) in rotations.iter().enumerate() {
            world.push(match self.parents[j] {
                Some(parent) => {
                    let (orientation, place) = world[parent];
                    (orientation * *rotation, place + orientation * (rest[j] - rest[parent]))
                }
                None => (*rotation, rest[j]),
            });
        }
        let translation = translation_m.as_dvec3();
        // posed_from_rest of every joint.
        let bones: Vec<(Mat3, Vec3)> = world
            .iter()
            .zip(&rest)
            .map(|(&(orientation, place), &rest)| {
                (orientation.as_mat3(), (place - orientation * rest + translation).as_vec3())
            })
            .collect();

        let mut vertices_m = vec![Vec3::ZERO; self.template_m.len()];
        vertices_m
            .par_chunks_mut(BLOCK)
            .enumerate()
            .for_each(|(block, out)| self.pose_block(block, &blend, &bones, out));
        let joints_m = self
            .posed_joints
            .iter()
            .map(|source| match *source {
                JointSource::Pose(joint) => (world[joint].1 + translation).as_vec3(),
                JointSource::Vertex(vertex) => vertices_m[vertex],
            })
            .collect();
        Ok(PosedBody { vertices_m, joints_m })
    }

    fn pose_block(&self, block: usize, blend: &[f32], bones: &[(Mat3, Vec3)], out: &mut [Vec3]) {
        const LANES: usize = BLOCK * 3;
        let shapes = &self.blend_shapes[block * blend.len() * LANES..][..blend.len() * LANES];
        let mut offsets = [0.0f32; LANES];
        for (&weight, shape) in blend.iter().zip(shapes.as_chunks::<LANES>().0) {
            if weight != 0.0 {
                for (offset, direction) in offsets.iter_mut().zip(shape) {
                    *offset += weight * direction;
                }
            }
        }
        for (i, (out, offset)) in out.iter_mut().zip(offsets.as_chunks::<3>().0).enumerate() {
            let vertex = block * BLOCK + i;
            let rest = self.template_m[vertex] + Vec3::from_array(*offset);
            let skin = self.skin_starts[vertex] as usize..self.skin_starts[vertex + 1] as usize;
            *out = self.skin[skin].iter().fold(Vec3::ZERO, |sum, &(joint, weight)| {
                let (rotation, translation) = bones[usize::from(joint)];
                sum + (rotation * rest + translation) * weight
            });
        }
    }
}

/// Faces, skeleton and joint regressor, with the dense regressor of the pose joints.
fn topology(arrays: &Arrays) -> Result<(Topology, Family, Vec<JointSource>, &Array)> {
    let regressor = array_of_rank(arrays, "J_regressor")?;
    let &[joints, vertex_count] = regressor.shape.as_slice() else {
        bail!("J_regressor has shape {:?}", regressor.shape)
    };
    let family = Family::of(joints)?;
    ensure!((1..=MAX_VERTICES).contains(&vertex_count), "a mesh of {vertex_count} vertices");
    let faces = array_of_rank(arrays, "f")?;
    ensure!(faces.shape.get(1..) == Some(&[3]), "the faces have shape {:?}", faces.shape);
    let faces = faces.indices(vertex_count).context("the faces")?;
    let landmarks = match arrays.get(LANDMARKS) {
        Some(own) => {
            ensure!(own.data.len() == 5, "{LANDMARKS} are {} instead of 5", own.data.len());
            Some(own.indices(vertex_count).context(LANDMARKS)?)
        }
        None => family.landmarks(vertex_count),
    };
    let (skeleton, sources) = family.skeleton(landmarks.as_deref());
    let row = |source: &JointSource| match *source {
        JointSource::Pose(joint) => {
            let row = regressor.data[joint * vertex_count..][..vertex_count].iter().enumerate();
            row.filter(|(_, w)| **w != 0.0).map(|(v, &w)| (v as u32, w as f32)).collect()
        }
        JointSource::Vertex(vertex) => vec![(vertex as u32, 1.0)],
    };
    let joint_regressor = sources.iter().map(row).collect();
    let faces = faces.as_chunks().0.iter().map(|face: &[usize; 3]| face.map(|v| v as u32)).collect();
    Ok((Topology { vertex_count, faces, skeleton, joint_regressor }, family, sources, regressor))
}

/// An array that must be there and finite.
fn array_of_rank<'a>(arrays: &'a Arrays, name: &str) -> Result<&'a Array> {
    let array = arrays.get(name).with_context(|| format!("it has no {name}; is it a SMPL or MANO model?"))?;
    ensure!(array.data.iter().all(|v| v.is_finite()), "{name} has values that are not finite");
    Ok(array)
}

fn array<'a, const N: usize>(arrays: &'a Arrays, name: &str, shape: [usize; N]) -> Result<&'a Array> {
    let array = array_of_rank(arrays, name)?;
    ensure!(array.shape == shape, "{name} has shape {:?} instead of {shape:?}", array.shape);
    Ok(array)
}

/// Parents from the two rows of a kinematic tree: parents' ids (4294967295 or -1 for none) and the joints' own.
fn parents(table: &Array, joints: usize) -> Result<Vec<Option<usize>>> {
    ensure!(table.shape == [2, joints], "it has shape {:?}", table.shape);
    let (parent_ids, ids) = table.data.split_at(joints);
    let parents: Vec<_> = parent_ids.iter().map(|parent| ids.iter().position(|id| id == parent)).collect();
    for (joint, (parent, &id)) in parents.iter().zip(parent_ids).enumerate() {
        let none = id < 0.0 || id >= f64::from(u32::MAX);
        ensure!(parent.map_or(none, |parent| parent < joint), "joint {joint} has the parent {id}");
    }
    ensure!(parents.iter().filter(|parent| parent.is_none()).count() == 1, "there must be one root");
    Ok(parents)
}
