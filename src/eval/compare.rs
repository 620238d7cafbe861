//! Who is who, and which joint is which: found people beside the true ones of a frame. What the window shows live and
//! what `lixelscope eval` counts is compared here.
//!
//! The joints that are compared are those that both skeletons have by name, without the five points of the face: of a
//! body against a body all 24 of SMPL's, the root among them, as papers that evaluate on SMPL's own joints do. Papers
//! that evaluate on other skeletons take 14: [`LIMBS`].

use glam::{DVec3, Vec3};

use crate::detect::assignment::assign;
use crate::result::{Person, Skeleton};
use crate::truth::Truth;

/// Boxes that share less are of two people.
pub const LEAST_IOU: f32 = 0.3;

/// Points of the skin that I2L-MeshNet adds to SMPL's joints.
const FACE: [&str; 5] = ["nose", "left_eye", "right_eye", "left_ear", "right_ear"];

/// The 14 joints of the papers' tables (Human3.6M's and 3DPW's protocols), under SMPL's names.
pub const LIMBS: [&str; 14] = [
    "left_ankle",
    "left_knee",
    "left_hip",
    "right_ankle",
    "right_knee",
    "right_hip",
    "left_wrist",
    "left_elbow",
    "left_shoulder",
    "right_wrist",
    "right_elbow",
    "right_shoulder",
    "neck",
    "head",
];

/// Pairs of found and true people of a frame by their indices, so that the sum of the boxes' overlaps is largest (the
/// Hungarian method); nobody twice, and no pair of boxes whose IoU is under [`LEAST_IOU`]. People whom the truth has put
/// among the found ones are left out.
pub fn pairs(people: &[Person], truth: &Truth) -> Vec<(usize, usize)> {
    let overlap = |person: &Person, real: usize| {
        let iou = truth.people[real].visible_rect.map_or(0.0, |rect| rect.iou(&person.rect));
        if person.true_index().is_none() && iou >= LEAST_IOU { iou } else { 0.0 }
    };
    let profit: Vec<Vec<f32>> =
        people.iter().map(|person| (0..truth.people.len()).map(|real| overlap(person, real)).collect()).collect();
    assign(&profit).into_iter().enumerate().filter_map(|(found, real)| Some((found, real?))).collect()
}

/// Which joint of one skeleton is which of another.
#[derive(Clone, Debug, PartialEq)]
pub struct CommonJoints {
    /// Indices in the found and in the true skeleton; the roots first.
    pairs: Vec<(usize, usize)>,
    /// Which of the pairs are [`LIMBS`].
    limbs: Vec<usize>,
}

impl CommonJoints {
    /// By name. `None` where the roots are not the same joint: of a hand and a body.
    pub fn of(found: &Skeleton, real: &Skeleton) -> Option<Self> {
        let (found_root, real_root) = (found.root()?, real.root()?);
        let [found, real] = [found, real].map(|skeleton| skeleton.names.iter().map(|n| plain(n)).collect::<Vec<_>>());
        (found.get(found_root)? == real.get(real_root)?).then_some(())?;
        let mut pairs = vec![(found_root, real_root)];
        for (at, name) in found.iter().enumerate() {
            if at != found_root && !FACE.contains(&name.as_str()) {
                pairs.extend(real.iter().position(|other| other == name).map(|other| (at, other)));
            }
        }
        let limbs = pairs.iter().enumerate().filter(|(_, (at, _))| LIMBS.contains(&found[*at].as_str()));
        let limbs = limbs.map(|(pair, _)| pair).collect();
        Some(Self { pairs, limbs })
    }

    /// How many of them are known of a true person.
    pub fn known(&self, real_m: &[Vec3]) -> usize {
        self.pairs.iter().filter(|(_, real)| real_m.get(*real).is_some_and(|joint| joint.is_finite())).count()
    }

    /// The joints of a found and of a true person in millimetres, the roots first. Those whose truth is not known are
    /// left out; `None` where the root is one of them. (A found joint that is no number stays, and spoils the mean.)
    pub fn in_mm(&self, found_m: &[Vec3], real_m: &[Vec3]) -> Option<JointPairs> {
        let mut joints = JointPairs { found: Vec::new(), real: Vec::new(), limbs: Vec::new() };
        for (pair, &(found, real)) in self.pairs.iter().enumerate() {
            let (found, real) = (mm(*found_m.get(found)?), mm(*real_m.get(real)?));
            if real.is_finite() {
                if self.limbs.contains(&pair) {
                    joints.limbs.push(joints.found.len());
                }
                joints.found.push(found);
                joints.real.push(real);
            } else if pair == 0 {
                return None;
            }
        }
        Some(joints)
    }
}

/// Joints of a found person beside those of the true one, millimetres; the roots first.
#[derive(Clone, Debug, PartialEq)]
pub struct JointPairs {
    /// As found.
    pub found: Vec<DVec3>,
    /// As they are.
    pub real: Vec<DVec3>,
    /// Which of them are [`LIMBS`].
    limbs: Vec<usize>,
}

impl JointPairs {
    /// The 14 joints of the papers' tables, behind the root, which is not one of them; `None` where not all are known.
    pub fn limbs(&self) -> Option<[Vec<DVec3>; 2]> {
        let chosen = |of: &[DVec3]| self.limbs.iter().map(|&at| of[at]).collect::<Vec<_>>();
        (self.limbs.len() == LIMBS.len()).then(|| [chosen(&self.found), chosen(&self.real)])
    }
}

/// Metres to millimetres.
pub fn mm(p_m: Vec3) -> DVec3 {
    p_m.as_dvec3() * 1000.0
}

/// One spelling for the joints of all datasets: `L_Hip`, `l_hip` and `left_hip` are one.
fn plain(name: &str) -> String {
    let name = name.to_lowercase();
    let long = |short: &str, side: &str| name.strip_prefix(short).map(|rest| format!("{side}_{rest}"));
    long("l_", "left").or_else(|| long("r_", "right")).unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nets::posenet3d::{HUMAN36M, MUCO};

    #[test]
    fn joints_are_paired_by_name_and_the_root_comes_first() {
        let (muco, human) = (MUCO.skeleton(), HUMAN36M.skeleton());
        let common = CommonJoints::of(&muco, &human).unwrap();
        assert_eq!(common.pairs[0], (14, 0), "the pelvis is MuCo's 15th joint");
        for &(found, real) in &common.pairs {
            assert_eq!(muco.names[found], human.names[real]);
        }
        assert_eq!(common.pairs.len(), 15);
        // No neck in MuCo.
        assert_eq!(common.limbs.len(), 13);
        assert_eq!(plain("R_Wrist"), "right_wrist");
    }

    #[test]
    fn joints_that_are_not_known_are_left_out() {
        let skeleton = HUMAN36M.skeleton();
        let common = CommonJoints::of(&skeleton, &skeleton).unwrap();
        let joints: Vec<Vec3> = (0..18).map(|i| Vec3::splat(i as f32)).collect();
        let mut real = joints.clone();
        assert_eq!(common.in_mm(&joints, &real).unwrap().found.len(), 17, "without the nose");
        assert!(common.in_mm(&joints, &real).unwrap().limbs().is_some());
        real[3] = Vec3::NAN;
        assert_eq!(common.in_mm(&joints, &real).unwrap().real.len(), 16);
        assert!(common.in_mm(&joints, &real).unwrap().limbs().is_none());
        real[0] = Vec3::NAN;
        assert!(common.in_mm(&joints, &real).is_none());
        assert!(common.in_mm(&joints, &[]).is_none());
    }
}
