//! The files that the stand-ins are written to hold what the stand-ins are.

use glam::Vec3;
use lixelscope::body::{BodyModel, export};

use crate::{BODY, BODY_MODEL, HAND, HAND_MODEL};

#[test]
fn all_files_of_both_are_written() {
    let folder = tempfile::tempdir().unwrap();
    let written = export::write_all(&folder.path().join("new")).unwrap();
    assert_eq!(written.len(), 6);
    assert!(written.iter().all(|path| path.metadata().unwrap().len() > 10_000));
    // A file stands where the folder should be.
    let error = export::write_all(&written[0]).unwrap_err();
    assert!(format!("{error:#}").contains("cannot make the folder"), "{error:#}");
}

#[test]
fn npz_reads_back_as_the_same_model() {
    let folder = tempfile::tempdir().unwrap();
    export::write_all(folder.path()).unwrap();
    for (file, model) in [("lixelscope_body.npz", &*BODY_MODEL), ("lixelscope_right_hand.npz", &*HAND_MODEL)] {
        let read = BodyModel::open(&folder.path().join(file)).unwrap();
        assert_eq!(read.topology(), model.topology());
        let pose: Vec<Vec3> = (0..model.pose_joint_count()).map(|j| Vec3::new(0.1, -0.05 * j as f32, 0.2)).collect();
        let shape = [1.0, -1.0, 0.5, 0.0, 2.0, -0.5, 1.5, 0.3, -2.0, 1.0];
        let at = Vec3::new(0.1, 0.2, 3.0);
        assert_eq!(read.pose(&pose, &shape, at).unwrap(), model.pose(&pose, &shape, at).unwrap());
    }
}

#[test]
fn landmarks_that_are_no_vertices_are_refused() {
    let mut broken = HAND.clone();
    broken.landmarks[2] = 70_000;
    let mut file = std::io::Cursor::new(Vec::new());
    export::write_npz(&broken, &mut file).unwrap();
    let error = BodyModel::from_bytes(file.get_ref()).unwrap_err();
    let text = format!("{error:#}");
    assert!(text.contains("landmark_vertices") && text.contains("70000"), "{text}");
}

#[test]
fn obj_lists_every_vertex_and_face() {
    for stand_in in [&*BODY, &*HAND] {
        let mut text = Vec::new();
        export::write_obj(stand_in, &mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        let rows = |kind: &str| text.lines().filter(|line| line.starts_with(kind)).count();
        assert_eq!((rows("v "), rows("f ")), (stand_in.vertices_m.len(), stand_in.faces.len()));
        let largest = text.lines().filter(|line| line.starts_with("f ")).flat_map(|line| line[2..].split(' '));
        assert_eq!(largest.map(|v| v.parse::<usize>().unwrap()).max(), Some(stand_in.vertices_m.len()));
    }
}

#[test]
fn glb_is_well_formed() {
    for stand_in in [&*BODY, &*HAND] {
        let mut bytes = Vec::new();
        export::write_glb(stand_in, &mut bytes).unwrap();
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        assert_eq!(&bytes[..4], b"glTF");
        assert_eq!((word(4), word(8)), (2, bytes.len()));
        let text = word(12);
        assert_eq!((&bytes[16..20], text % 4), (&b"JSON"[..], 0));
        let document: serde_json::Value = serde_json::from_slice(&bytes[20..20 + text]).unwrap();
        let binary = &bytes[20 + text + 8..];
        assert_eq!((word(20 + text), &bytes[24 + text..28 + text]), (binary.len(), &b"BIN\0"[..]));
        assert_eq!(document["buffers"][0]["byteLength"], binary.len());

        // Every accessor's data fills its view, and every view lies within the buffer.
        for accessor in document["accessors"].as_array().unwrap() {
            let view = &document["bufferViews"][accessor["bufferView"].as_u64().unwrap() as usize];
            let [start, length] = ["byteOffset", "byteLength"].map(|key| view[key].as_u64().unwrap() as usize);
            let size = match accessor["componentType"].as_u64().unwrap() {
                5121 => 1,
                5125 | 5126 => 4,
                other => panic!("component type {other}"),
            };
            let width = match accessor["type"].as_str().unwrap() {
                "SCALAR" => 1,
                "VEC3" => 3,
                "VEC4" => 4,
                "MAT4" => 16,
                other => panic!("type {other}"),
            };
            assert_eq!(length, size * width * accessor["count"].as_u64().unwrap() as usize);
            assert!(start % 4 == 0 && start + length <= binary.len());
        }
        // The joints' places add up along the tree to where they are.
        let joints = stand_in.joints_m();
        let nodes = document["nodes"].as_array().unwrap();
        assert_eq!(nodes.len(), joints.len() + 1);
        let offset = |j: usize| {
            let t = nodes[j + 1]["translation"].as_array().unwrap();
            glam::DVec3::from_array(std::array::from_fn(|i| t[i].as_f64().unwrap()))
        };
        for (j, joint) in joints.iter().enumerate() {
            let chain = std::iter::successors(Some(j), |&j| stand_in.parents[j]);
            let place: glam::DVec3 = chain.map(offset).sum();
            assert!((place - *joint).length() < 1e-5);
        }
        let primitive = &document["meshes"][0]["primitives"][0];
        assert_eq!(primitive["targets"].as_array().unwrap().len(), 10);
    }
}
