//! A few words of JSON that say what a checkpoint's tensors do not: in a file beside it (`i2l_body.json` beside
//! `i2l_body.safetensors`), or in its own metadata, as training writes them. All keys have defaults.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use super::{Origin, Role};
use crate::camera_mesh::DepthAxis;
use crate::nets::weights::WeightFile;

/// Unit of RootNet's depths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum DepthUnit {
    /// Millimetres.
    #[default]
    #[serde(rename = "mm")]
    Millimetres,
    /// Metres.
    #[serde(rename = "m")]
    Metres,
}

impl DepthUnit {
    /// One of it, in metres.
    pub fn metres(self) -> f64 {
        match self {
            Self::Millimetres => 1e-3,
            Self::Metres => 1.0,
        }
    }
}

/// How a network was built and trained.
#[derive(Clone, Debug, PartialEq)]
pub struct NetConfig {
    /// Layers of its ResNet: 18, 34, 50, 101, 152.
    pub resnet: usize,
    /// Side of the square input, pixels.
    pub input: usize,
    /// Bins of a heatmap; a quarter of the input.
    pub heatmap: usize,
    /// RootNet: unit of the depths that it was trained with.
    pub depth_unit: DepthUnit,
    /// RootNet: width and height of the box around a person in the world, in `depth_unit`.
    pub real_box: [f64; 2],
    /// Lixel networks: the direction of z.
    pub depth_axis: DepthAxis,
}

impl Default for NetConfig {
    fn default() -> Self {
        Self {
            resnet: 50,
            input: 256,
            heatmap: 64,
            depth_unit: DepthUnit::Millimetres,
            real_box: [2000.0; 2],
            depth_axis: DepthAxis::Camera,
        }
    }
}

/// The file's keys.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    resnet: Option<usize>,
    input: Option<usize>,
    heatmap: Option<usize>,
    depth_unit: Option<DepthUnit>,
    real_box: Option<[f64; 2]>,
    depth_axis: Option<DepthAxis>,
}

/// Side of the box that RootNet's k is computed with: a person's, or a hand's.
fn real_box_m(role: Role) -> f64 {
    if role == Role::RootNetHand { 0.3 } else { 2.0 }
}

/// A file of a few keys; anything larger is something else.
const MAX_BYTES: u64 = 1 << 16;

impl NetConfig {
    /// The configuration of a checkpoint: that beside the user's file, else its own, else the defaults.
    pub fn of(checkpoint: &WeightFile, origin: &Origin, role: Role) -> Result<Self> {
        if let Origin::File(path) = origin
            && let Some(config) = Self::beside(path, role)?
        {
            return Ok(config);
        }
        let json = checkpoint.config().unwrap_or("{}");
        Self::parse(json, role).with_context(|| format!("the configuration in {}", checkpoint.path().display()))
    }

    /// The configuration beside a checkpoint: the JSON file of the same name, else of the role's (`rootnet.json`).
    fn beside(checkpoint: &Path, role: Role) -> Result<Option<Self>> {
        let name = checkpoint.file_name().and_then(|name| name.to_str()).context("a checkpoint without a name")?;
        let stem = [".safetensors", ".pth.tar", ".pth"].iter().find_map(|extension| name.strip_suffix(extension));
        for stem in stem.iter().chain(role.stems()) {
            let path = checkpoint.with_file_name(format!("{stem}.json"));
            if path.is_file() {
                let read = || -> Result<Self> {
                    ensure!(fs::metadata(&path)?.len() <= MAX_BYTES, "it is too large");
                    Self::parse(&fs::read_to_string(&path)?, role)
                };
                return read().map(Some).with_context(|| format!("the configuration {}", path.display()));
            }
        }
        Ok(None)
    }

    /// Reads and checks the text of such a file.
    pub fn parse(json: &str, role: Role) -> Result<Self> {
        let keys: Keys = serde_json::from_str(json).context("not the JSON of a configuration")?;
        if !matches!(role, Role::RootNet | Role::RootNetHand) && (keys.depth_unit.is_some() || keys.real_box.is_some())
        {
            bail!("depth_unit and real_box are RootNet's keys, not those of {}", role.what());
        }
        if !matches!(role, Role::I2lBody | Role::I2lHand | Role::PoseNet3d) && keys.depth_axis.is_some() {
            bail!("depth_axis is a key of networks of lixels, not of {}", role.what());
        }
        let resnet = keys.resnet.unwrap_or(50);
        ensure!([18, 34, 50, 101, 152].contains(&resnet), "resnet must be 18, 34, 50, 101 or 152, not {resnet}");
        let input = keys.input.or(keys.heatmap.map(|bins| bins.saturating_mul(4))).unwrap_or(256);
        ensure!(
            (64..=1024).contains(&input) && input.is_multiple_of(32),
            "input must be a multiple of 32 from 64 to 1024 pixels, not {input}"
        );
        let heatmap = keys.heatmap.unwrap_or(input / 4);
        ensure!(heatmap * 4 == input, "heatmap must be a quarter of input ({}), not {heatmap}", input / 4);
        let depth_unit = keys.depth_unit.unwrap_or_default();
        let real_box = keys.real_box.unwrap_or([real_box_m(role) / depth_unit.metres(); 2]);
        ensure!(
            real_box.iter().all(|&side| (0.01..=100.0).contains(&(side * depth_unit.metres()))),
            "real_box {real_box:?} is not the size of a person's box in depth_unit"
        );
        Ok(Self { resnet, input, heatmap, depth_unit, real_box, depth_axis: keys.depth_axis.unwrap_or_default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nets::weights::CONFIG;
    use safetensors::tensor::TensorView;

    #[test]
    fn defaults_where_keys_are_absent() {
        assert_eq!(NetConfig::parse("{}", Role::I2lBody).unwrap(), NetConfig::default());
        let metres = NetConfig::parse(r#"{"depth_unit": "m", "resnet": 101}"#, Role::RootNet).unwrap();
        assert_eq!((metres.real_box, metres.resnet), ([2.0, 2.0], 101));
        let small = NetConfig::parse(r#"{"input": 128}"#, Role::I2lHand).unwrap();
        assert_eq!(small.heatmap, 32);
        let seen = NetConfig::parse(r#"{"depth_axis": "line_of_sight"}"#, Role::I2lBody).unwrap();
        assert_eq!(seen, NetConfig { depth_axis: DepthAxis::LineOfSight, ..NetConfig::default() });
    }

    #[test]
    fn a_mistake_is_named() {
        for (json, role, expected) in [
            (r#"{"rezzo": 1}"#, Role::I2lBody, "rezzo"),
            (r#"{"resnet": 51}"#, Role::I2lBody, "51"),
            (r#"{"input": 250}"#, Role::I2lBody, "multiple of 32"),
            (r#"{"heatmap": 32, "input": 256}"#, Role::I2lBody, "quarter"),
            (r#"{"heatmap": 9223372036854775807}"#, Role::I2lBody, "multiple of 32"),
            (r#"{"depth_unit": "m"}"#, Role::I2lBody, "RootNet"),
            (r#"{"depth_unit": "cm"}"#, Role::RootNet, "cm"),
            (r#"{"real_box": [2, 2]}"#, Role::RootNet, "real_box"),
            (r#"{"depth_axis": "camera"}"#, Role::RootNet, "lixels"),
            (r#"{"depth_axis": "sideways"}"#, Role::I2lBody, "sideways"),
            ("resnet: 50", Role::RootNet, "JSON"),
        ] {
            let error = format!("{:#}", NetConfig::parse(json, role).unwrap_err());
            assert!(error.contains(expected), "{json}: {error}");
        }
    }

    #[test]
    fn the_file_beside_a_checkpoint_is_believed_before_the_checkpoint() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let checkpoint = folder.path().join("i2l_body_snapshot_12.safetensors");
        let write = |config: Option<&str>| {
            let metadata = config.map(|json| std::collections::HashMap::from([(CONFIG.to_owned(), json.to_owned())]));
            let tensor = TensorView::new(safetensors::Dtype::F32, vec![1], &[0; 4])?;
            Ok::<_, anyhow::Error>(safetensors::serialize_to_file([("a", tensor)], metadata, &checkpoint)?)
        };
        let config = || {
            let origin = Origin::File(checkpoint.clone());
            NetConfig::of(&WeightFile::open(&checkpoint)?, &origin, Role::I2lBody)
        };
        write(None)?;
        assert_eq!(config()?, NetConfig::default());
        write(Some(r#"{"resnet": 18, "input": 96}"#))?;
        assert_eq!((config()?.resnet, config()?.heatmap), (18, 24));
        fs::write(folder.path().join("i2l_body.json"), r#"{"resnet": 34}"#)?;
        assert_eq!((config()?.resnet, config()?.heatmap), (34, 64));
        fs::write(folder.path().join("i2l_body_snapshot_12.json"), r#"{"resnet": 101}"#)?;
        assert_eq!(config()?.resnet, 101);

        for name in ["i2l_body.json", "i2l_body_snapshot_12.json"] {
            fs::remove_file(folder.path().join(name))?;
        }
        write(Some(r#"{"resnet": 19}"#))?;
        let error = format!("{:#}", config().unwrap_err());
        assert!(error.contains("19") && error.contains("i2l_body_snapshot_12.safetensors"), "{error}");
        Ok(())
    }
}
