//! An annotated person becomes what is true of it: names and order of the joints, units, and the body whose pose and
//! shape are given.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use glam::Vec3;

use super::format::{Annotation, Category, SmplParam};
use crate::body::{BodyModel, Family, PosedBody, Topology, standin};
use crate::models::{self, Role};
use crate::nets::posenet3d::{HUMAN36M, MUCO};
use crate::result::{BodyParams, Skeleton};

/// A body whose joints are farther than this from the annotated ones, in the mean, is another body: the releases'
/// threshold for fits.
const FITTING_M: f32 = 0.025;

/// Nobody's root joint is nearer to a camera than this in millimetres, or farther away in metres.
const UNIT_THRESHOLD: f32 = 60.0;

/// People who are looked at to tell units and bodies.
const TRIED: usize = 200;

/// How a file's joints are read.
#[derive(Debug)]
pub struct Joints {
    /// Faces and skeleton of all people: those of the body, or the joints alone.
    pub topology: Arc<Topology>,
    /// For each joint of the skeleton its number in the file; the root first. `None` for one that the file has not.
    order: Vec<Option<usize>>,
    /// Joints in the file.
    count: usize,
    metres: f32,
    body: Option<Arc<BodyModel>>,
}

impl Joints {
    /// From a file's people and its category "person".
    pub fn of(people: &[Annotation], category: Option<&Category>, models: Option<&Path>) -> Result<Self> {
        let with_joints =
            || people.iter().filter_map(|one| one.joint_cam.as_ref()).filter(|joints| !joints.0.is_empty());
        let count = with_joints().next().map_or(0, |joints| joints.0.len() / 3);
        let (skeleton, order) = if count > 0 { skeleton(count, category)? } else { (Skeleton::default(), Vec::new()) };
        let mut depths: Vec<f32> = with_joints()
            .filter_map(|joints| joints.0.get(order.first()? * 3 + 2).copied())
            .filter(|depth| depth.is_finite())
            .take(TRIED)
            .collect();
        depths.sort_by(f32::total_cmp);
        let median = depths.get(depths.len() / 2).copied().unwrap_or(f32::INFINITY);
        let metres = if median > UNIT_THRESHOLD { 1e-3 } else { 1.0 };
        let alone = Topology { skeleton, ..Topology::default() };
        let order = order.into_iter().map(Some).collect();
        let mut joints = Self { topology: Arc::new(alone), order, count, metres, body: None };
        joints.find_body(people, models);
        Ok(joints)
    }

    /// SMPL or MANO, or the stand-in, whichever most of the first people have.
    fn find_body(&mut self, people: &[Annotation], models: Option<&Path>) {
        let given: Vec<_> = people.iter().filter(|one| one.smpl_param.is_some()).take(TRIED).collect();
        let (family, role) = match (self.topology.family(), self.count) {
            (_, 0) | (Some(Family::Smpl), SMPL_JOINTS..) => (Family::Smpl, Role::Smpl),
            (Some(Family::Mano), MANO_JOINTS..) => (Family::Mano, Role::Mano),
            _ => return,
        };
        if given.is_empty() {
            return;
        }
        let official = models.and_then(|folder| models::find(folder, role)).and_then(|path| {
            let read = BodyModel::open(&path);
            read.inspect_err(|error| log::warn!("{error:#}")).ok().map(Arc::new)
        });
        let stand_in = || standin::model(family).inspect_err(|error| log::warn!("{error:#}")).ok();
        let fits = |body: &Arc<BodyModel>| {
            let fitting = given.iter().filter(|one| self.posed(one, body).is_some()).count();
            2 * fitting > given.len()
        };
        // Without joints to compare, the parameters are the official model's as they say.
        let stand_in = if self.count > 0 { stand_in().filter(&fits) } else { None };
        let Some(body) = stand_in.or_else(|| official.filter(&fits)) else {
            log::warn!("smpl_param or mano_param poses no body that is at hand: there are no true meshes");
            return;
        };
        let names = &body.topology().skeleton.names;
        // The file's joints under the body's names; the face may be missing.
        self.order = (0..names.len()).map(|at| (at < self.count).then_some(at)).collect();
        self.topology = Arc::clone(body.topology());
        self.body = Some(body);
    }

    /// The joints of a person, in camera metres, in the order of the skeleton, NaN where they are not known; empty where
    /// none is.
    pub fn joints_camera_m(&self, person: &Annotation) -> Result<Vec<Vec3>> {
        let Some(joints) = person.joint_cam.as_ref().filter(|joints| !joints.0.is_empty()) else {
            return Ok(Vec::new());
        };
        let joints = joints.points()?;
        if joints.len() != self.count {
            bail!("a person of {} joints among others of {}", joints.len(), self.count);
        }
        let valid = |at: usize| person.joint_valid.as_ref().is_none_or(|v| v.0.get(at).is_none_or(|&v| v != 0.0));
        let known = |at: usize| joints[at].is_finite() && joints[at].z > 0.0 && valid(at);
        let joint = |at: &Option<usize>| at.filter(|&at| known(at)).map_or(Vec3::NAN, |at| joints[at] * self.metres);
        Ok(self.order.iter().map(joint).collect())
    }

    /// For each joint whether it is seen; empty where that is not known.
    pub fn joint_visible(&self, person: &Annotation) -> Vec<bool> {
        let seen: Vec<bool> = match (&person.keypoints, &person.keypoints_vis) {
            (Some(keypoints), _) if keypoints.0.len() == 3 * self.count => {
                keypoints.0.as_chunks::<3>().0.iter().map(|k| k[2] >= 2.0).collect()
            }
            (_, Some(flags)) if flags.0.len() == self.count => flags.0.iter().map(|&flag| flag != 0.0).collect(),
            _ => return Vec::new(),
        };
        if seen.is_empty() { seen } else { self.order.iter().map(|at| at.is_some_and(|at| seen[at])).collect() }
    }

    /// The body in a person's pose and shape, with its parameters and its translation; `None` where there is no such
    /// body, or where the joints say that it is another one.
    pub fn body(&self, person: &Annotation) -> Option<(PosedBody, BodyParams, Vec3)> {
        let body = self.body.as_ref()?;
        let posed = self.posed(person, body)?;
        let (params, translation_m) = parameters(person.smpl_param.as_ref()?, body)?;
        Some((posed, params, translation_m))
    }

    fn posed(&self, person: &Annotation, body: &BodyModel) -> Option<PosedBody> {
        let (params, translation_m) = parameters(person.smpl_param.as_ref()?, body)?;
        let posed = body.pose(&params.pose_rad, &params.shape, translation_m).ok()?;
        let Some(joints) = &person.joint_cam else { return Some(posed) };
        let joints = joints.points().ok()?;
        let pairs = joints.iter().zip(&posed.joints_m).take(SMPL_JOINTS); // without SMPL's face
        let distances: Vec<f32> =
            pairs.map(|(a, b)| (*a * self.metres).distance(*b)).filter(|d| d.is_finite()).collect();
        let mean = distances.iter().sum::<f32>() / distances.len().max(1) as f32;
        (mean < FITTING_M).then_some(posed)
    }
}

/// Joints of SMPL's pose.
const SMPL_JOINTS: usize = 24;
/// Joints of a hand, with the tips of its fingers.
const MANO_JOINTS: usize = 21;

fn parameters(param: &SmplParam, body: &BodyModel) -> Option<(BodyParams, Vec3)> {
    let pose_rad = param.pose.points().ok()?;
    let translation = param.trans.as_ref()?.exactly::<3>()?;
    let numbers = param.pose.0.iter().chain(&param.shape.0).chain(&translation);
    let sound = pose_rad.len() == body.pose_joint_count() && numbers.into_iter().all(|v| v.is_finite());
    sound.then(|| (BodyParams { pose_rad, shape: param.shape.0.clone() }, Vec3::from_array(translation)))
}

/// Names and bones of a file's joints, the root first, and which joint of the file each is: as the file says it, else as
/// the papers' datasets have as many joints.
fn skeleton(count: usize, category: Option<&Category>) -> Result<(Skeleton, Vec<usize>)> {
    let named = category.filter(|category| category.keypoints.len() == count);
    let skeleton = match (named, count) {
        (Some(category), _) => Skeleton { parents: parents(category)?, names: category.keypoints.clone() },
        (None, SMPL_JOINTS) => Family::Smpl.skeleton(None).0,
        (None, 29) => Family::Smpl.skeleton(Some(&[0; 5])).0,
        (None, 18) => HUMAN36M.skeleton(),
        (None, 21) => MUCO.skeleton(),
        // MuPoTS-3D has no hands and toes.
        (None, 17) => {
            let Skeleton { names, parents } = MUCO.skeleton();
            Skeleton { names: names[..17].to_vec(), parents: parents[..17].to_vec() }
        }
        _ => bail!("people of {count} joints: name them in the category's keypoints, in the order of joint_cam"),
    };
    let root = skeleton.root().context("the skeleton has no root")?;
    let mut order: Vec<usize> = (0..count).collect();
    order.remove(root);
    order.insert(0, root);
    let place = |joint: usize| order.iter().position(|&o| o == joint);
    let names = order.iter().map(|&joint| skeleton.names[joint].clone()).collect();
    let parents = order.iter().map(|&joint| skeleton.parents[joint].and_then(place)).collect();
    Ok((Skeleton { names, parents }, order))
}

/// Parents from bones, which have no direction: away from the joint that is called root, pelvis, hip or wrist, else
/// from the first one.
fn parents(category: &Category) -> Result<Vec<Option<usize>>> {
    let count = category.keypoints.len();
    let is_root = |name: &String| ["pelvis", "root", "hip", "wrist"].contains(&name.to_lowercase().as_str());
    let root = category.keypoints.iter().position(is_root).unwrap_or(0);
    let joint = |number: i64| usize::try_from(number - 1).ok().filter(|&joint| joint < count);
    let mut bones = Vec::new();
    for &[a, b] in &category.skeleton {
        let bone = joint(a).zip(joint(b));
        bones.push(bone.with_context(|| format!("a bone from joint {a} to {b} of {count} (counted from 1)"))?);
    }
    let mut parents = vec![None; count];
    let mut reached = vec![root];
    let mut next = 0;
    while let Some(&from) = reached.get(next) {
        next += 1;
        for &(a, b) in &bones {
            let to = if a == from { b } else { a };
            if (a == from || b == from) && !reached.contains(&to) {
                parents[to] = Some(from);
                reached.push(to);
            }
        }
    }
    // What no bone reaches hangs on the root.
    for (joint, parent) in parents.iter_mut().enumerate() {
        if joint != root && parent.is_none() {
            *parent = Some(root);
        }
    }
    Ok(parents)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skeletons_are_told_by_names_or_by_their_count_and_begin_with_the_root() {
        let (muco, order) = skeleton(21, None).unwrap();
        assert_eq!((muco.names[0].as_str(), order[0], order[1]), ("Pelvis", 14, 0));
        assert_eq!(muco.parents[0], None);
        assert!(muco.parents[1..].iter().all(Option::is_some));
        assert_eq!(skeleton(29, None).unwrap().0.names.len(), 29);
        assert_eq!(skeleton(17, None).unwrap().0.names.len(), 17);
        assert!(skeleton(5, None).is_err());
        let names = ["a", "Hip", "b", "c"].map(String::from).to_vec();
        let category = Category { id: 1, name: "person".into(), keypoints: names, skeleton: vec![[1, 3], [2, 1]] };
        let (chain, order) = skeleton(4, Some(&category)).unwrap();
        assert_eq!(order, [1, 0, 2, 3]);
        assert_eq!(chain.parents, [None, Some(0), Some(1), Some(0)]);
        let broken = Category { skeleton: vec![[1, 5]], ..category };
        assert!(skeleton(4, Some(&broken)).is_err());
    }
}
