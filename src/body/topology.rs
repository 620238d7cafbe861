//! The part of a body model that does not move: faces, joints, and how joints follow from vertices.

use anyhow::{Result, bail};
use glam::{DVec3, Vec3};

use crate::result::Skeleton;

/// The part of a body model that does not move.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Topology {
    /// Vertices of the mesh.
    pub vertex_count: usize,
    /// Triangles, counter-clockwise seen from outside.
    pub faces: Vec<[u32; 3]>,
    /// The joints that the mesh carries.
    pub skeleton: Skeleton,
    /// Joints from vertices: for each joint, (vertex, weight) pairs whose weights sum to 1.
    pub joint_regressor: Vec<Vec<(u32, f32)>>,
}

impl Topology {
    /// Joints of a mesh, in whatever frame and unit the vertices are. `None` where the mesh has another number of
    /// vertices.
    pub fn joints(&self, vertices: &[Vec3]) -> Option<Vec<Vec3>> {
        let joint = |row: &Vec<(u32, f32)>| {
            let sum = row.iter().map(|&(v, w)| vertices[v as usize].as_dvec3() * f64::from(w)).sum::<DVec3>();
            sum.as_vec3()
        };
        (vertices.len() == self.vertex_count).then(|| self.joint_regressor.iter().map(joint).collect())
    }

    /// Whose joints these are; `None` where the root joint does not tell.
    pub fn family(&self) -> Option<Family> {
        match self.skeleton.names.first()?.to_lowercase().as_str() {
            "pelvis" => Some(Family::Smpl),
            "wrist" => Some(Family::Mano),
            _ => None,
        }
    }
}

/// Which body a model is of; told by the number of joints that its pose has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Family {
    /// SMPL: the whole body, 24 pose joints.
    #[default]
    #[value(name = "body")]
    Smpl,
    /// MANO: one hand, 16 pose joints.
    #[value(name = "hand")]
    Mano,
}

/// Where a joint of the skeleton comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum JointSource {
    /// A joint that the pose turns.
    Pose(usize),
    /// A vertex of the mesh.
    Vertex(usize),
}
use JointSource::{Pose, Vertex};

type JointRow = (&'static str, JointSource, Option<usize>);

/// Name, source, parent. The order of I2L-MeshNet: SMPL's own, then the face.
const SMPL_JOINTS: [JointRow; 29] = [
    ("pelvis", Pose(0), None),
    ("left_hip", Pose(1), Some(0)),
    ("right_hip", Pose(2), Some(0)),
    ("spine1", Pose(3), Some(0)),
    ("left_knee", Pose(4), Some(1)),
    ("right_knee", Pose(5), Some(2)),
    ("spine2", Pose(6), Some(3)),
    ("left_ankle", Pose(7), Some(4)),
    ("right_ankle", Pose(8), Some(5)),
    ("spine3", Pose(9), Some(6)),
    ("left_foot", Pose(10), Some(7)),
    ("right_foot", Pose(11), Some(8)),
    ("neck", Pose(12), Some(9)),
    ("left_collar", Pose(13), Some(9)),
    ("right_collar", Pose(14), Some(9)),
    ("head", Pose(15), Some(12)),
    ("left_shoulder", Pose(16), Some(13)),
    ("right_shoulder", Pose(17), Some(14)),
    ("left_elbow", Pose(18), Some(16)),
    ("right_elbow", Pose(19), Some(17)),
    ("left_wrist", Pose(20), Some(18)),
    ("right_wrist", Pose(21), Some(19)),
    ("left_hand", Pose(22), Some(20)),
    ("right_hand", Pose(23), Some(21)),
    ("nose", Vertex(331), Some(15)),
    ("left_eye", Vertex(2802), Some(24)),
    ("right_eye", Vertex(6262), Some(24)),
    ("left_ear", Vertex(3489), Some(25)),
    ("right_ear", Vertex(3990), Some(26)),
];

/// The order of I2L-MeshNet and of the reference MANO layer: wrist, then each finger from its root to its tip.
const MANO_JOINTS: [JointRow; 21] = [
    ("wrist", Pose(0), None),
    ("thumb1", Pose(13), Some(0)),
    ("thumb2", Pose(14), Some(1)),
    ("thumb3", Pose(15), Some(2)),
    ("thumb_tip", Vertex(745), Some(3)),
    ("index1", Pose(1), Some(0)),
    ("index2", Pose(2), Some(5)),
    ("index3", Pose(3), Some(6)),
    ("index_tip", Vertex(317), Some(7)),
    ("middle1", Pose(4), Some(0)),
    ("middle2", Pose(5), Some(9)),
    ("middle3", Pose(6), Some(10)),
    ("middle_tip", Vertex(445), Some(11)),
    ("ring1", Pose(10), Some(0)),
    ("ring2", Pose(11), Some(13)),
    ("ring3", Pose(12), Some(14)),
    ("ring_tip", Vertex(556), Some(15)),
    ("pinky1", Pose(7), Some(0)),
    ("pinky2", Pose(8), Some(17)),
    ("pinky3", Pose(9), Some(18)),
    ("pinky_tip", Vertex(673), Some(19)),
];

impl Family {
    /// The family whose pose has that many joints.
    pub(super) fn of(pose_joints: usize) -> Result<Self> {
        match pose_joints {
            24 => Ok(Self::Smpl),
            16 => Ok(Self::Mano),
            _ => bail!("a model of {pose_joints} joints is neither SMPL (24) nor MANO (16)"),
        }
    }

    /// Those who have such bodies, in a word.
    pub fn shows(self) -> &'static str {
        match self {
            Self::Smpl => "people",
            Self::Mano => "hands",
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Smpl => "SMPL",
            Self::Mano => "MANO",
        }
    }

    /// Vertices of the distributed models.
    pub fn vertex_count(self) -> usize {
        match self {
            Self::Smpl => 6890,
            Self::Mano => 778,
        }
    }

    /// Parents of the pose joints in the distributed models, for files that do not carry them.
    pub(super) fn pose_parents(self) -> Vec<Option<usize>> {
        let rows = self.rows();
        let mut parents: Vec<(usize, Option<usize>)> = rows
            .iter()
            .filter_map(|&(_, source, parent)| {
                let Pose(joint) = source else { return None };
                // The parent of a pose joint is a pose joint.
                let parent = parent.and_then(|p| if let Pose(joint) = rows[p].1 { Some(joint) } else { None });
                Some((joint, parent))
            })
            .collect();
        parents.sort_unstable();
        parents.into_iter().map(|(_, parent)| parent).collect()
    }

    /// Names of the pose joints, in the order of a pose.
    pub(super) fn pose_joint_names(self) -> Vec<&'static str> {
        let pose_joint = |&(name, source, _): &JointRow| match source {
            Pose(joint) => Some((joint, name)),
            Vertex(_) => None,
        };
        let mut names: Vec<_> = self.rows().iter().filter_map(pose_joint).collect();
        names.sort_unstable();
        names.into_iter().map(|(_, name)| name).collect()
    }

    fn rows(self) -> &'static [JointRow] {
        match self {
            Self::Smpl => &SMPL_JOINTS,
            Self::Mano => &MANO_JOINTS,
        }
    }

    /// Where the reference layer has a joint of a posed mesh: as the regressor does, but for the tip of the middle
    /// finger, which it takes one vertex beside I2L-MeshNet's.
    pub(super) fn posed_source(self, source: JointSource) -> JointSource {
        if (self, source) == (Self::Mano, Vertex(445)) { Vertex(444) } else { source }
    }

    /// The vertices that are joints of the distributed mesh (nose, eyes and ears, left first; or the tips of thumb,
    /// index, middle, ring and little finger). `None` for a mesh with another number of vertices.
    pub(super) fn landmarks(self, vertex_count: usize) -> Option<Vec<usize>> {
        let vertex = |row: &JointRow| if let Vertex(vertex) = row.1 { Some(vertex) } else { None };
        (vertex_count == self.vertex_count()).then(|| self.rows().iter().filter_map(vertex).collect())
    }

    /// The skeleton of a mesh and where its joints come from, given the vertices that are joints; a mesh that has none
    /// goes without face or finger tips.
    pub(crate) fn skeleton(self, landmarks: Option<&[usize]>) -> (Skeleton, Vec<JointSource>) {
        let mut landmarks = landmarks.unwrap_or_default().iter();
        let mut skeleton = Skeleton::default();
        let mut sources = Vec::new();
        let mut kept = Vec::new();
        for (row, &(name, source, parent)) in self.rows().iter().enumerate() {
            let source = match source {
                Vertex(_) => match landmarks.next() {
                    Some(&vertex) => Vertex(vertex),
                    None => continue,
                },
                pose @ Pose(_) => pose,
            };
            kept.push(row);
            skeleton.names.push(name.to_owned());
            skeleton.parents.push(parent.and_then(|parent| kept.iter().position(|&k| k == parent)));
            sources.push(source);
        }
        (skeleton, sources)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pose_parents_are_the_published_ones() {
        let smpl: Vec<_> = Family::Smpl.pose_parents().into_iter().flatten().collect();
        assert_eq!(smpl, [0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21]);
        let mano: Vec<_> = Family::Mano.pose_parents().into_iter().flatten().collect();
        assert_eq!(mano, [0, 1, 2, 0, 4, 5, 0, 7, 8, 0, 10, 11, 0, 13, 14]);
    }

    #[test]
    fn a_mesh_of_another_size_has_no_joints_on_vertices() {
        let (skeleton, sources) = Family::Mano.skeleton(Family::Mano.landmarks(500).as_deref());
        assert_eq!(skeleton.names.len(), 16);
        assert!(sources.iter().all(|s| matches!(s, Pose(_))));
        assert_eq!(skeleton.parents[4], Some(0)); // index1, after the thumb lost its tip
        assert_eq!(Family::Smpl.skeleton(Family::Smpl.landmarks(6890).as_deref()).0.names.len(), 29);
    }
}
