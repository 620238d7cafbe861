//! Meshes as Wavefront OBJ files: metres, camera space (x right, y down, z forward), said in their header.

use std::io::{self, Write};

use glam::Vec3;

/// Writes one mesh. Faces index `vertices_camera_m` from 0; a face that names a vertex that is not there is an error.
pub fn write(out: &mut impl Write, title: &str, vertices_camera_m: &[Vec3], faces: &[[u32; 3]]) -> io::Result<()> {
    writeln!(out, "# {}", title.replace(['\n', '\r'], " "))?;
    writeln!(out, "# unit: metre; camera space: x right, y down, z forward, origin at the optical centre")?;
    for v in vertices_camera_m {
        writeln!(out, "v {} {} {}", v.x, v.y, v.z)?;
    }
    for face in faces {
        if face.iter().any(|&i| i as usize >= vertices_camera_m.len()) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("the face {face:?} has no such vertex")));
        }
        let [a, b, c] = face.map(|i| i + 1);
        writeln!(out, "f {a} {b} {c}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_count_from_one() {
        let mut text = Vec::new();
        let vertices = [Vec3::ZERO, Vec3::X, Vec3::new(0.0, 1.5, 2.0)];
        write(&mut text, "a\nb", &vertices, &[[0, 1, 2]]).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert!(text.starts_with("# a b\n"));
        assert!(text.ends_with("v 0 1.5 2\nf 1 2 3\n"));
        assert!(write(&mut io::sink(), "", &vertices, &[[0, 1, 3]]).is_err());
    }
}
