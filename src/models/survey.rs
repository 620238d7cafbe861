//! What weights and body models there are: each opened, and what it holds in a few words.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use super::{Origin, Role, open, origin};
use crate::body::{BodyModel, Family, SnapshotBody, standin};
use crate::nets::person_detector::OUTPUTS;
use crate::nets::weights::Container;

/// One role of the models folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What the file is for.
    pub role: Role,
    /// How it stands.
    pub status: Status,
}

/// How a role stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// It is there, and can be read.
    Found {
        /// Where.
        origin: Origin,
        /// "1,142 tensors, 142 M parameters, 29 joints, 6,890 vertices".
        summary: String,
    },
    /// There is none.
    Missing {
        /// The names under which it is looked for.
        names: Vec<String>,
        /// Where to get it.
        where_to_get: &'static str,
    },
    /// It is there, but cannot be used.
    Unreadable {
        /// Where.
        path: PathBuf,
        /// Why.
        why: String,
    },
}

/// Looks for every role's weights. Checkpoints are opened without their tensors' data; body models are read.
pub fn survey(folder: &Path) -> Vec<Entry> {
    let entry = |role: Role| {
        let status = match origin(folder, role) {
            None => Status::Missing { names: role.names(), where_to_get: role.where_to_get() },
            Some(origin) => {
                let summary = match &origin {
                    Origin::File(path) if role.is_body_model() => body_model(path, role),
                    _ => checkpoint(folder, role),
                };
                match (summary, origin) {
                    (Ok(summary), origin) => Status::Found { origin, summary },
                    (Err(error), Origin::File(path)) => Status::Unreadable { path, why: format!("{error:#}") },
                    (Err(error), Origin::BuiltIn) => {
                        Status::Unreadable { path: "built in".into(), why: format!("{error:#}") }
                    }
                }
            }
        };
        Entry { role, status }
    };
    Role::ALL.map(entry).into()
}

/// Whether the faces of a role's mesh need no body model: the snapshot brings them along, or it is the stand-in's mesh.
pub fn brings_faces(folder: &Path, role: Role) -> bool {
    let brings = || {
        let (file, ..) = open(folder, role)?;
        let vertices = file.shape(VERTICES).and_then(|shape| shape.first().copied());
        let stand_in = standin::model(if role == Role::I2lHand { Family::Mano } else { Family::Smpl })?;
        let is_stand_in = vertices == Some(stand_in.topology().vertex_count);
        Ok::<_, anyhow::Error>(is_stand_in || SnapshotBody::read(&file)?.is_some())
    };
    brings().unwrap_or(false)
}

/// The tensor of I2L-MeshNet that has a row for every vertex.
const VERTICES: &str = "mesh_net.conv_x.0.weight";

fn body_model(path: &Path, role: Role) -> Result<String> {
    let model = BodyModel::open(path)?;
    let expected = if role == Role::Mano { Family::Mano } else { Family::Smpl };
    ensure!(model.family() == expected, "it is {}, not {}", model.family().name(), expected.name());
    let topology = model.topology();
    Ok(format!(
        "{} joints, {} vertices, {} faces",
        grouped(topology.skeleton.names.len()),
        grouped(topology.vertex_count),
        grouped(topology.faces.len())
    ))
}

fn checkpoint(folder: &Path, role: Role) -> Result<String> {
    let (file, config, _) = open(folder, role)?;
    // The tensor that tells the network from the others; its first dimension counts something.
    let outputs = |name: &str| -> Result<usize> {
        let shape = file.shape(name).with_context(|| format!("it is not {}: it has no {name}", role.what()))?;
        shape.first().copied().with_context(|| format!("{name} has no dimensions"))
    };
    let holds = match role {
        Role::Detector => format!("{} classes", grouped(outputs("roi_heads.box_predictor.cls_score.weight")?)),
        Role::LightDetector | Role::HandDetector => {
            let numbers = outputs("output.weight")?;
            file.shape("lateral1.0.weight").with_context(|| format!("it is not {}", role.what()))?;
            ensure!(numbers == OUTPUTS, "its cells say {numbers} numbers, not {OUTPUTS}");
            "one class".into()
        }
        Role::RootNet | Role::RootNetHand => {
            outputs("root.depth_layer.weight")?;
            let unit = config.depth_unit.metres();
            format!("box of {} x {} m", config.real_box[0] * unit, config.real_box[1] * unit)
        }
        Role::I2lBody | Role::I2lHand => {
            let joints = outputs("pose_net.conv_x.0.weight")?;
            let vertices = outputs(VERTICES)?;
            let other = if role == Role::I2lBody { Family::Mano } else { Family::Smpl };
            ensure!(vertices != other.vertex_count(), "its {vertices} vertices are those of {}", other.name());
            let stage = if file.shape("param_regressor.fc_pose.0.weight").is_some() { ", parameter stage" } else { "" };
            format!("{} joints, {} vertices{stage}", grouped(joints), grouped(vertices))
        }
        Role::PoseNet3d => {
            let channels = outputs("head.final_layer.weight")?;
            ensure!(
                channels.is_multiple_of(config.heatmap),
                "{channels} channels are no multiple of the {} bins of its heatmaps",
                config.heatmap
            );
            format!("{} joints", grouped(channels / config.heatmap))
        }
        _ => bail!("{} has no checkpoint", role.what()),
    };
    let container = match file.container() {
        Container::Safetensors => "",
        Container::TorchZip | Container::TorchLegacy => "; starts faster when converted (lixelscope convert)",
    };
    let (tensors, parameters) = (grouped(file.names().count()), millions(file.parameter_count()));
    let trunk = match role {
        Role::LightDetector | Role::HandDetector => String::new(),
        _ => format!(", ResNet-{}", config.resnet),
    };
    Ok(format!("{tensors} tensors, {parameters} parameters, {holds}{trunk}{container}"))
}

/// `1142` as `1,142`.
fn grouped(n: usize) -> String {
    if n < 1000 { n.to_string() } else { format!("{},{:03}", grouped(n / 1000), n % 1000) }
}

fn millions(n: usize) -> String {
    if n < 10_000_000 {
        format!("{:.1} M", n as f64 / 1e6)
    } else {
        format!("{} M", grouped((n + 500_000) / 1_000_000))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        assert_eq!([grouped(7), grouped(1142), grouped(1_002_003)], ["7", "1,142", "1,002,003"]);
        assert_eq!([millions(142_300_000), millions(1_230_000)], ["142 M", "1.2 M"]);
    }
}
