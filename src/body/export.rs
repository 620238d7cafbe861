//! The stand-ins as files, so that others can use a body without a licence too: SMPL's npz layout, Wavefront OBJ (the
//! mean shape at rest) and binary glTF (rigged, the shape components as morph targets). All in metres, y up.

use std::fs::{self, File};
use std::io::{BufWriter, Cursor, Seek, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use glam::{DVec3, Vec3};
use serde_json::{Value, json};
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use super::arrays::{Array, Arrays};
use super::standin::{self, StandIn};
use super::topology::Family;

/// Writes the body and the hand, each as `.npz`, `.obj` and `.glb`, into a folder, which is made if need be. Says what it
/// wrote.
pub fn write_all(folder: &Path) -> Result<Vec<PathBuf>> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
    let mut written = Vec::new();
    for stand_in in [standin::body()?, standin::hand()?] {
        for extension in ["npz", "obj", "glb"] {
            let stem = match stand_in.family {
                Family::Smpl => "lixelscope_body",
                Family::Mano => "lixelscope_right_hand",
            };
            let path = folder.join(format!("{stem}.{extension}"));
            let write = || -> Result<()> {
                let mut file = BufWriter::new(File::create(&path)?);
                match extension {
                    "npz" => write_npz(&stand_in, &mut file)?,
                    "obj" => write_obj(&stand_in, &mut file)?,
                    _ => write_glb(&stand_in, &mut file)?,
                }
                Ok(file.flush()?)
            };
            write().with_context(|| format!("cannot write {}", path.display()))?;
            written.push(path);
        }
    }
    Ok(written)
}

/// SMPL's entries as numpy arrays in a zip archive. Pose blend shapes are there for programs that expect them, all 0.
pub fn write_npz(stand_in: &StandIn, file: impl Write + Seek) -> Result<()> {
    let mut arrays: Arrays = stand_in.arrays();
    let joints = stand_in.joints_m();
    let data = joints.iter().flat_map(DVec3::to_array).collect();
    arrays.insert("J".to_owned(), Array { shape: vec![joints.len(), 3], data });
    let mut archive = ZipWriter::new(file);
    for (name, array) in &arrays {
        archive.start_file(format!("{name}.npy"), SimpleFileOptions::default())?;
        let is_index = matches!(name.as_str(), "f" | "kintree_table" | "landmark_vertices");
        archive.write_all(&npy_header(if is_index { "<u4" } else { "<f8" }, &array.shape))?;
        let bytes: Vec<u8> = if is_index {
            array.data.iter().flat_map(|&v| (v as u32).to_le_bytes()).collect()
        } else {
            array.data.iter().flat_map(|v| v.to_le_bytes()).collect()
        };
        archive.write_all(&bytes)?;
    }
    archive.finish()?;
    Ok(())
}

/// The start of a `.npy` file, version 1.0, padded to a multiple of 64 bytes.
fn npy_header(descr: &str, shape: &[usize]) -> Vec<u8> {
    let shape = format!("{shape:?}");
    let shape = shape.trim_matches(['[', ']']);
    let mut text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({shape},), }}");
    let unpadded = 10 + text.len() + 1;
    text.push_str(&" ".repeat(unpadded.next_multiple_of(64) - unpadded));
    text.push('\n');
    let mut header = b"\x93NUMPY\x01\x00".to_vec();
    header.extend((text.len() as u16).to_le_bytes());
    header.extend(text.as_bytes());
    header
}

/// Vertices and triangles of the mean shape at rest.
pub fn write_obj(stand_in: &StandIn, mut file: impl Write) -> Result<()> {
    writeln!(file, "# Lixelscope's stand-in for {}, metres, y up, facing +z", stand_in.family.name())?;
    for p in &stand_in.vertices_m {
        writeln!(file, "v {:.6} {:.6} {:.6}", p.x, p.y, p.z)?;
    }
    for face in &stand_in.faces {
        let [a, b, c] = face.map(|v| v + 1);
        writeln!(file, "f {a} {b} {c}")?;
    }
    Ok(())
}

/// A rigged mesh: joints as nodes, skin, and one morph target for each shape component. A viewer that morphs the shape
/// does not move the joints with it.
pub fn write_glb(stand_in: &StandIn, mut file: impl Write) -> Result<()> {
    let mut buffer = Buffer::default();
    let positions: Vec<Vec3> = stand_in.vertices_m.iter().map(|p| p.as_vec3()).collect();
    let position = buffer.vectors(&positions, true);
    let normal = buffer.vectors(&normals(&positions, &stand_in.faces), false);
    let joint_indices = stand_in.influences.iter().flat_map(|i| i.map(|(joint, _)| joint as u8));
    let joint_indices = buffer.accessor(&joint_indices.collect::<Vec<_>>(), U8, "VEC4", positions.len());
    let weights = stand_in.influences.iter().flat_map(|i| i.map(|(_, weight)| weight as f32));
    let weights = buffer.accessor(&weights.collect::<Vec<_>>(), F32, "VEC4", positions.len());
    let faces: Vec<u32> = stand_in.faces.iter().flatten().copied().collect();
    let indices = buffer.accessor(&faces, U32, "SCALAR", faces.len());
    let targets: Vec<Value> = (0..stand_in.shape_names.len())
        .map(|c| {
            let moved: Vec<Vec3> = stand_in.shapes.iter().map(|shapes| shapes[c].as_vec3()).collect();
            json!({ "POSITION": buffer.vectors(&moved, true) })
        })
        .collect();

    // Node 0 is the mesh, node j + 1 is joint j.
    let joints: Vec<Vec3> = stand_in.joints_m().iter().map(|p| p.as_vec3()).collect();
    let inverse_bind: Vec<f32> =
        joints.iter().flat_map(|&p| glam::Mat4::from_translation(-p).to_cols_array()).collect();
    let inverse_bind = buffer.accessor(&inverse_bind, F32, "MAT4", joints.len());
    let mut nodes = vec![json!({ "mesh": 0, "skin": 0 })];
    for (j, name) in stand_in.family.pose_joint_names().into_iter().enumerate() {
        let from = stand_in.parents[j].map_or(Vec3::ZERO, |parent| joints[parent]);
        let children: Vec<usize> =
            (0..joints.len()).filter(|&c| stand_in.parents[c] == Some(j)).map(|c| c + 1).collect();
        let mut node = json!({ "name": name, "translation": (joints[j] - from).to_array() });
        if !children.is_empty() {
            node["children"] = json!(children);
        }
        nodes.push(node);
    }
    let document = json!({
        "asset": { "version": "2.0", "generator": "Lixelscope" },
        "scene": 0,
        "scenes": [{ "nodes": [0, 1] }],
        "nodes": nodes,
        "meshes": [{
            "primitives": [{
                "attributes": { "POSITION": position, "NORMAL": normal, "JOINTS_0": joint_indices, "WEIGHTS_0": weights },
                "indices": indices,
                "targets": targets,
            }],
            "weights": vec![0.0; stand_in.shape_names.len()],
            "extras": { "targetNames": stand_in.shape_names },
        }],
        "skins": [{
            "joints": (1..=joints.len()).collect::<Vec<_>>(),
            "skeleton": 1,
            "inverseBindMatrices": inverse_bind,
        }],
        "buffers": [{ "byteLength": buffer.bytes.len() }],
        "bufferViews": buffer.views,
        "accessors": buffer.accessors,
    });

    let mut text = serde_json::to_vec(&document)?;
    text.resize(text.len().next_multiple_of(4), b' ');
    let length = 12 + 8 + text.len() + 8 + buffer.bytes.len();
    let mut head = Cursor::new(Vec::new());
    for word in [0x4654_6c67, 2, length as u32, text.len() as u32, 0x4e4f_534a] {
        head.write_all(&u32::to_le_bytes(word))?;
    }
    file.write_all(head.get_ref())?;
    file.write_all(&text)?;
    file.write_all(&(buffer.bytes.len() as u32).to_le_bytes())?;
    file.write_all(&0x004e_4942_u32.to_le_bytes())?;
    file.write_all(&buffer.bytes)?;
    Ok(())
}

/// glTF's component types.
const U8: u32 = 5121;
const U32: u32 = 5125;
const F32: u32 = 5126;

/// The binary chunk under construction, with a view and an accessor for each array in it.
#[derive(Default)]
struct Buffer {
    bytes: Vec<u8>,
    views: Vec<Value>,
    accessors: Vec<Value>,
}

impl Buffer {
    /// Appends an array; its index.
    fn accessor<T: bytemuck::NoUninit>(&mut self, data: &[T], component: u32, kind: &str, count: usize) -> usize {
        let data: &[u8] = bytemuck::cast_slice(data);
        self.views.push(json!({ "buffer": 0, "byteOffset": self.bytes.len(), "byteLength": data.len() }));
        self.bytes.extend(data);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        let view = self.views.len() - 1;
        self.accessors.push(json!({ "bufferView": view, "componentType": component, "type": kind, "count": count }));
        self.accessors.len() - 1
    }

    /// Positions carry their bounds.
    fn vectors(&mut self, data: &[Vec3], bounded: bool) -> usize {
        let index = self.accessor(data, F32, "VEC3", data.len());
        if bounded {
            let (lo, hi) = data.iter().fold((Vec3::MAX, Vec3::MIN), |(lo, hi), &p| (lo.min(p), hi.max(p)));
            self.accessors[index]["min"] = json!(lo.to_array());
            self.accessors[index]["max"] = json!(hi.to_array());
        }
        index
    }
}

/// Normals of the vertices: those of the faces around, by area.
fn normals(vertices: &[Vec3], faces: &[[u32; 3]]) -> Vec<Vec3> {
    let mut normals = vec![Vec3::ZERO; vertices.len()];
    for face in faces {
        let [a, b, c] = face.map(|v| vertices[v as usize]);
        for &v in face {
            normals[v as usize] += (b - a).cross(c - a);
        }
    }
    normals.into_iter().map(Vec3::normalize_or_zero).collect()
}
