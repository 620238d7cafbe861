//! Files made by hand, byte by byte: what no training program would write, and what is too large to ship.

use std::io::{Cursor, Write};

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

/// A tensor named `w` as a checkpoint's pickle describes it. Nothing says that it must make sense.
pub struct Tensor<'a> {
    pub class: &'a str,
    pub shape: Vec<i64>,
    pub strides: Vec<i64>,
    pub offset: i64,
    /// Elements of the storage.
    pub storage: i64,
}

fn text(text: &str) -> Vec<u8> {
    [b"X", &(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat()
}

fn int(int: i64) -> Vec<u8> {
    [b"\x8a\x08", &int.to_le_bytes()[..]].concat()
}

fn tuple(items: impl IntoIterator<Item = Vec<u8>>) -> Vec<u8> {
    [b"(".to_vec(), items.into_iter().flatten().collect(), b"t".to_vec()].concat()
}

impl Tensor<'_> {
    /// The pickle of `{'w': tensor}`.
    fn pickle(&self, legacy: bool) -> Vec<u8> {
        let class = format!("ctorch\n{}Storage\n", self.class).into_bytes();
        let mut id = vec![text("storage"), class, text("0"), text("cpu"), int(self.storage)];
        if legacy {
            id.push(b"N".to_vec());
        }
        let numbers = |numbers: &[i64]| tuple(numbers.iter().map(|&n| int(n)));
        let id = [tuple(id), b"Q".to_vec()].concat();
        let args = tuple([
            id,
            int(self.offset),
            numbers(&self.shape),
            numbers(&self.strides),
            b"\x89".to_vec(),
            b"N".to_vec(),
        ]);
        [b"\x80\x02}".to_vec(), text("w"), b"ctorch._utils\n_rebuild_tensor_v2\n".to_vec(), args, b"Rs.".to_vec()]
            .concat()
    }
}

/// A zip archive of these entries.
pub fn archive(entries: &[(&str, &[u8])], method: CompressionMethod) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(method);
    for (name, content) in entries {
        zip.start_file(*name, options).unwrap();
        zip.write_all(content).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// The tensor in torch's zip container, over this storage.
pub fn zip(tensor: &Tensor, storage: &[u8]) -> Vec<u8> {
    let entries: [(&str, &[u8]); 2] = [("a/data.pkl", &tensor.pickle(false)), ("a/data/0", storage)];
    archive(&entries, CompressionMethod::Stored)
}

/// This object in torch's legacy container.
pub fn legacy_of(object: &[u8], rest: &[u8]) -> Vec<u8> {
    let system = [b"\x80\x02}".to_vec(), text("little_endian"), b"\x88s.".to_vec()].concat();
    let head = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.";
    [head.to_vec(), system, object.to_vec(), rest.to_vec()].concat()
}

/// The tensor in torch's legacy container, over a storage that announces so many elements.
pub fn legacy(tensor: &Tensor, announced: i64, storage: &[u8]) -> Vec<u8> {
    let keys = [b"\x80\x02](".to_vec(), text("0"), b"e.".to_vec()].concat();
    legacy_of(&tensor.pickle(true), &[keys, announced.to_le_bytes().to_vec(), storage.to_vec()].concat())
}

/// A `.npy` entry.
pub fn npy(dtype: &str, shape: &[usize], data: &[u8]) -> Vec<u8> {
    let dims: Vec<_> = shape.iter().map(usize::to_string).collect();
    let header = format!("{{'descr': '{dtype}', 'fortran_order': False, 'shape': ({},), }}\n", dims.join(", "));
    [b"\x93NUMPY\x01\0", &(header.len() as u16).to_le_bytes()[..], header.as_bytes(), data].concat()
}

/// An `.npz` of a body without blend shapes: vertices on a spiral, joint j regressed from three of them, each vertex
/// bound to two joints.
pub fn smpl_npz(vertices: usize, joints: usize) -> Vec<u8> {
    let floats = |values: Vec<f64>| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>();
    let template = (0..vertices * 3).map(|i| {
        let (t, axis) = ((i / 3) as f64 / vertices as f64, i % 3);
        [(40.0 * t).cos() * 0.3, 1.8 * t - 0.9, (40.0 * t).sin() * 0.2][axis]
    });
    let mut regressor = vec![0.0; joints * vertices];
    let mut weights = vec![0.0; vertices * joints];
    for joint in 0..joints {
        for (k, weight) in [0.5, 0.25, 0.25].into_iter().enumerate() {
            regressor[joint * vertices + (joint * 131 + k * 17) % vertices] += weight;
        }
    }
    for vertex in 0..vertices {
        weights[vertex * joints + vertex % joints] += 0.75;
        weights[vertex * joints + (vertex + 1) % joints] += 0.25;
    }
    let tree: Vec<u8> = (0..2 * joints as i64)
        .flat_map(|i| (if i < joints as i64 { i - 1 } else { i - joints as i64 }).to_le_bytes())
        .collect();
    let features = 9 * (joints - 1);
    let entries: [(&str, &[u8]); 7] = [
        ("v_template.npy", &npy("<f8", &[vertices, 3], &floats(template.collect()))),
        ("f.npy", &npy("<u4", &[1, 3], &[0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0])),
        ("J_regressor.npy", &npy("<f8", &[joints, vertices], &floats(regressor))),
        ("weights.npy", &npy("<f8", &[vertices, joints], &floats(weights))),
        ("shapedirs.npy", &npy("<f4", &[vertices, 3, 10], &vec![0; vertices * 30 * 4])),
        ("posedirs.npy", &npy("<f4", &[vertices, 3, features], &vec![0; vertices * 3 * features * 4])),
        ("kintree_table.npy", &npy("<i8", &[2, joints], &tree)),
    ];
    archive(&entries, CompressionMethod::Deflated)
}
