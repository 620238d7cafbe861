//! 3D PoseNet (Moon et al., ICCV 2019; integral regression of Sun et al., ECCV 2018): a patch becomes a 3D heatmap
//! for each joint. Its marginals along x, y and z are the lixel heatmaps that the rest of the program knows; their
//! expectations are the volume's.

#[cfg(feature = "cudnn")]
mod device;

use anyhow::{Context, Result, bail};
use candle_core::{Device, Result as CandleResult, Tensor};
use candle_nn::VarBuilder;

use super::input::{Normalisation, PatchBatch};
use super::kernels;
use super::layers::{Activation, BN_EPS, Conv2d, ConvShape, DeconvStack, Features, Values, count_plain_run};
use super::resnet::{Stages, Stem};
use super::{NetSizes, on_pool};
use crate::lixel::{self, Lixels};
use crate::memory::Buffer;
use crate::result::Skeleton;

/// Where [`NetSizes::with_widths_of`] finds the widths.
pub const WIDTHS_AT: [&str; 2] = ["backbone", "head.deconv_layers"];

/// What its checkpoints expect.
const NORMALISATION: Normalisation = Normalisation::IMAGENET_UNDIVIDED;

/// The joints that a checkpoint was trained for.
#[derive(Debug, PartialEq, Eq)]
pub struct JointSet {
    /// Name and parent of each joint.
    joints: &'static [(&'static str, Option<usize>)],
    /// Joints that change places in a mirror.
    pub flip_pairs: &'static [(usize, usize)],
}

/// MuCo-3DHP's 21 joints.
pub static MUCO: JointSet = JointSet {
    joints: &[
        ("Head_top", Some(16)),
        ("Thorax", Some(15)),
        ("R_Shoulder", Some(1)),
        ("R_Elbow", Some(2)),
        ("R_Wrist", Some(3)),
        ("L_Shoulder", Some(1)),
        ("L_Elbow", Some(5)),
        ("L_Wrist", Some(6)),
        ("R_Hip", Some(14)),
        ("R_Knee", Some(8)),
        ("R_Ankle", Some(9)),
        ("L_Hip", Some(14)),
        ("L_Knee", Some(11)),
        ("L_Ankle", Some(12)),
        ("Pelvis", None),
        ("Spine", Some(14)),
        ("Head", Some(1)),
        ("R_Hand", Some(4)),
        ("L_Hand", Some(7)),
        ("R_Toe", Some(10)),
        ("L_Toe", Some(13)),
    ],
    flip_pairs: &[(2, 5), (3, 6), (4, 7), (8, 11), (9, 12), (10, 13), (17, 18), (19, 20)],
};

/// Human3.6M's 18 joints.
pub static HUMAN36M: JointSet = JointSet {
    joints: &[
        ("Pelvis", None),
        ("R_Hip", Some(0)),
        ("R_Knee", Some(1)),
        ("R_Ankle", Some(2)),
        ("L_Hip", Some(0)),
        ("L_Knee", Some(4)),
        ("L_Ankle", Some(5)),
        ("Torso", Some(0)),
        ("Neck", Some(17)),
        ("Nose", Some(8)),
        ("Head", Some(9)),
        ("L_Shoulder", Some(17)),
        ("L_Elbow", Some(11)),
        ("L_Wrist", Some(12)),
        ("R_Shoulder", Some(17)),
        ("R_Elbow", Some(14)),
        ("R_Wrist", Some(15)),
        ("Thorax", Some(7)),
    ],
    flip_pairs: &[(1, 4), (2, 5), (3, 6), (14, 11), (15, 12), (16, 13)],
};

impl JointSet {
    /// The set with this many joints: 21 is MuCo-3DHP, 18 Human3.6M.
    pub fn of_count(joints: usize) -> Result<&'static Self> {
        [&MUCO, &HUMAN36M]
            .into_iter()
            .find(|set| set.joints.len() == joints)
            .with_context(|| format!("a 3D PoseNet has 21 (MuCo-3DHP) or 18 (Human3.6M) joints, not {joints}"))
    }

    /// Names and bones.
    pub fn skeleton(&self) -> Skeleton {
        let (names, parents) = self.joints.iter().map(|&(name, parent)| (name.to_owned(), parent)).unzip();
        Skeleton { names, parents }
    }

    /// The pelvis.
    pub fn root(&self) -> usize {
        self.joints.iter().position(|(_, parent)| parent.is_none()).expect("each set above has a root")
    }

    /// For each joint the one that takes its place in a mirror.
    pub fn mirrored(&self) -> Vec<u32> {
        let mut order: Vec<u32> = (0..self.joints.len() as u32).collect();
        self.flip_pairs.iter().for_each(|&(a, b)| order.swap(a, b));
        order
    }
}

/// Joints of a checkpoint, read off the shape of `head.final_layer.weight` (`[J * D, 256, 1, 1]`).
pub fn joint_count(sizes: &NetSizes, shape_of: impl Fn(&str) -> Option<Vec<usize>>) -> Result<usize> {
    const NAME: &str = "head.final_layer.weight";
    let rows = shape_of(NAME).and_then(|shape| shape.first().copied());
    let rows = rows.with_context(|| format!("no tensor {NAME}: not 3D PoseNet weights"))?;
    let bins = sizes.heatmap();
    if rows == 0 || !rows.is_multiple_of(bins) {
        bail!("{NAME} has {rows} rows, which is no multiple of the heatmap size {bins}");
    }
    Ok(rows / bins)
}

/// The network.
pub struct PoseNet3d {
    sizes: NetSizes,
    joints: usize,
    device: Device,
    stem: Stem,
    stages: Stages,
    deconv: DeconvStack,
    volume: Conv2d,
    #[cfg(feature = "cudnn")]
    on_device: Option<device::OnDevice>,
}

impl PoseNet3d {
    /// Reads a checkpoint's `network`, without the `module.` before its names.
    pub fn load(sizes: NetSizes, joints: usize, vb: &VarBuilder) -> CandleResult<Self> {
        let (backbone, head) = (vb.pp("backbone"), vb.pp("head"));
        let shape = ConvShape::same(sizes.channels(), joints * sizes.heatmap(), 1);
        Ok(Self {
            sizes,
            joints,
            device: vb.device().clone(),
            stem: Stem::load(sizes.depth().width(), BN_EPS, &backbone)?,
            stages: Stages::load(sizes.depth(), BN_EPS, &backbone)?,
            deconv: DeconvStack::load(
                [sizes.features(), sizes.channels()],
                sizes.heatmap() / 8,
                &head.pp("deconv_layers"),
            )?,
            volume: Conv2d::load(shape, true, None, Activation::None, &head.pp("final_layer"))?,
            #[cfg(feature = "cudnn")]
            on_device: device::OnDevice::new(vb.device()),
        })
    }

    /// Sizes of the patch and of the heatmaps.
    pub fn sizes(&self) -> &NetSizes {
        &self.sizes
    }

    /// Joints.
    pub fn joints(&self) -> usize {
        self.joints
    }

    /// Whether [`Self::forward_crops`] does anything.
    #[cfg(feature = "cudnn")]
    pub fn cuts_patches(&self) -> bool {
        self.on_device.is_some()
    }

    /// Patches to the marginals of each joint's volume.
    pub fn forward<'a>(&self, patches: impl Into<PatchBatch<'a>>) -> Result<Lixels> {
        let patches = patches.into();
        self.sizes.check_patches(&patches)?;
        #[cfg(feature = "cudnn")]
        if let Some(on_device) = &self.on_device {
            return Ok(on_device.forward(self, &patches.to_tensor(&self.device)?, None)?);
        }
        let input = patches.normalised(&NORMALISATION, &self.device)?;
        Ok(Lixels::new(self.marginals(&input)?)?)
    }

    /// As [`Self::forward`], averaged with what the network says about the mirrored patches, as the release does at
    /// test time. The mean of the two distributions has the mean of the two coordinates, and its spread tells their
    /// disagreement too.
    pub fn forward_flip_averaged<'a>(&self, patches: impl Into<PatchBatch<'a>>, set: &JointSet) -> Result<Lixels> {
        let patches = patches.into();
        let people = self.sizes.check_patches(&patches)?;
        self.check_joints(set)?;
        #[cfg(feature = "cudnn")]
        if let Some(on_device) = &self.on_device {
            return Ok(on_device.forward(self, &patches.to_tensor(&self.device)?, Some(set))?);
        }
        let order = set.mirrored();
        let both = self.marginals(&with_mirrored(patches.normalised(&NORMALISATION, &self.device)?)?)?;
        if !both.is_fast() {
            let both = both.to_tensor()?;
            let flipped = unflip(&both.narrow(0, people, people)?, &order)?;
            return Ok(Lixels::new(((both.narrow(0, 0, people)? + flipped)? * 0.5)?)?);
        }
        let bins = self.sizes.heatmap();
        let mut mean: Buffer = Buffer::take(people * self.joints * 3 * bins);
        both.with_floats(|both| {
            let (straight, mirrored) = both.split_at(mean.len());
            for (at, (mean, straight)) in mean.chunks_exact_mut(bins).zip(straight.chunks_exact(bins)).enumerate() {
                let (person, joint, axis) = (at / (3 * self.joints), at / 3 % self.joints, at % 3);
                let other = (person * self.joints + order[joint] as usize) * 3 + axis;
                let mirrored = &mirrored[other * bins..][..bins];
                for (bin, (mean, straight)) in mean.iter_mut().zip(straight).enumerate() {
                    let mirrored = if axis == 0 { mirrored[bins - 1 - bin] } else { mirrored[bin] };
                    *mean = (straight + mirrored) * 0.5;
                }
            }
            Ok(())
        })?;
        Ok(Lixels::new(Values::new(mean, (people, self.joints, 3, bins)))?)
    }

    /// As [`Self::forward_flip_averaged`], of patches cut out of a frame on the GPU that the network is on; `None` where
    /// it is on none.
    #[cfg(feature = "cudnn")]
    pub fn forward_crops(&self, source: &super::cuda::PatchSource<'_>, set: &JointSet) -> Result<Option<Lixels>> {
        let Some(on_device) = &self.on_device else { return Ok(None) };
        self.check_joints(set)?;
        Ok(Some(on_device.forward_crops(self, source, set)?))
    }

    fn check_joints(&self, set: &JointSet) -> Result<()> {
        if set.joints.len() != self.joints {
            bail!("the network has {} joints and the joint set {}", self.joints, set.joints.len());
        }
        Ok(())
    }

    /// Normalised patches `[B, 3, H, W] -> [B, J, 3, D]`
    fn marginals(&self, patches: &Values) -> CandleResult<Values> {
        on_pool(&self.device, || self.marginals_on_pool(patches))
    }

    fn marginals_on_pool(&self, patches: &Values) -> CandleResult<Values> {
        let (people, joints, bins) = (patches.dims()[0], self.joints, self.sizes.heatmap());
        let feature = self.stages.run(&self.stem.run(patches)?)?;
        let logits = self.volume.run(&self.deconv.run(&feature)?, None)?; // [B, J D, D, D]
        if let Features::Blocked(map) = &logits
            && bins.is_multiple_of(kernels::LANES)
        {
            let marginals = kernels::volume_marginals(kernels::Isa::detect(), &map.data, bins);
            return Ok(Values::new(marginals, (people, joints, 3, bins)));
        }
        count_plain_run();
        let volume = lixel::softmax(&logits.to_tensor()?.reshape((people, joints, bins * bins * bins))?)?;
        let volume = volume.reshape((people * joints, bins, bins * bins))?;
        let z = volume.sum(2)?.reshape((people, joints, bins))?;
        // A sum over the first axis, as a product: the volume is read once, in its order.
        let ones = Tensor::ones((people * joints, 1, bins), volume.dtype(), volume.device())?;
        let plane = ones.matmul(&volume)?.reshape((people, joints, bins, bins))?; // [B, J, D (y), D (x)]
        Ok(Tensor::stack(&[plane.sum(2)?, plane.sum(3)?, z], 2)?.into())
    }
}

/// `[B, 3, H, W]`, and after them the same mirrored left to right: `[2 B, 3, H, W]`.
fn with_mirrored(patches: Values) -> CandleResult<Values> {
    let &[people, channels, height, width] = patches.dims() else {
        candle_core::bail!("expected [B, 3, H, W], got {:?}", patches.dims())
    };
    if !patches.is_fast() {
        let patches = patches.to_tensor()?;
        return Ok(Tensor::cat(&[&patches, &patches.flip(&[3])?], 0)?.into());
    }
    patches.with_floats(|patches| {
        let mut both: Buffer = Buffer::take(2 * patches.len());
        let (straight, mirrored) = both.split_at_mut(patches.len());
        straight.copy_from_slice(patches);
        for (row, mirrored) in patches.chunks_exact(width).zip(mirrored.chunks_exact_mut(width)) {
            mirrored.iter_mut().zip(row.iter().rev()).for_each(|(to, from)| *to = *from);
        }
        Ok(Values::new(both, (2 * people, channels, height, width)))
    })
}

/// Heatmaps of a mirrored patch as heatmaps of the patch: x runs the other way, left and right change places.
pub(in crate::nets) fn unflip(heatmaps: &Tensor, order: &[u32]) -> CandleResult<Tensor> {
    let order = Tensor::new(order, heatmaps.device())?;
    let heatmaps = heatmaps.contiguous()?.index_select(&order, 1)?;
    let x = heatmaps.narrow(2, 0, 1)?.contiguous()?.flip(&[3])?;
    Tensor::cat(&[x, heatmaps.narrow(2, 1, 2)?], 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn joint_sets_are_trees_and_mirror_left_and_right() {
        for set in [&MUCO, &HUMAN36M] {
            let skeleton = set.skeleton();
            assert_eq!(skeleton.names[set.root()], "Pelvis");
            for start in 0..skeleton.names.len() {
                let steps = std::iter::successors(Some(start), |&i| skeleton.parents[i]).take(99).count();
                assert!(steps < 10, "{} is in a ring", skeleton.names[start]);
            }
            for (joint, &other) in set.mirrored().iter().enumerate() {
                let swapped = match skeleton.names[joint].split_once('_') {
                    Some(("L", rest)) => format!("R_{rest}"),
                    Some(("R", rest)) => format!("L_{rest}"),
                    _ => skeleton.names[joint].clone(),
                };
                assert_eq!(skeleton.names[other as usize], swapped);
            }
        }
        assert!(JointSet::of_count(17).is_err());
    }

    #[test]
    fn unflipping_moves_x_to_the_other_end_and_swaps_sides() {
        let heatmaps = Tensor::rand(0.0_f32, 1.0, (1, 3, 3, 4), &Device::Cpu).unwrap();
        let heatmaps = lixel::softmax(&heatmaps).unwrap();
        let coords = lixel::soft_argmax(&heatmaps).unwrap().to_vec3::<f32>().unwrap();
        let back = lixel::soft_argmax(&unflip(&heatmaps, &[0, 2, 1]).unwrap()).unwrap().to_vec3::<f32>().unwrap();
        assert!((back[0][1][0] - (3.0 - coords[0][2][0])).abs() < 1e-6);
        assert_eq!(back[0][1][1..], coords[0][2][1..]);
        assert!((back[0][0][0] - (3.0 - coords[0][0][0])).abs() < 1e-6);
    }
}
