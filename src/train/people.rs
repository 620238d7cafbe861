//! People, or hands, of synthetic photographs as the networks will meet them: patches with the papers' augmentation, and where
//! every joint and vertex is in them.

use std::sync::Arc;

use anyhow::Result;
use glam::{Quat, Vec2, Vec3};
use image::RgbImage;

use crate::body::{Family, Topology, standin};
use crate::camera_mesh::{BODY_BOX_M, DepthAxis, HAND_BOX_M};
use crate::crop::{Augmentation, Crop, process_bbox};
use crate::root_depth::{REAL_BOX_M, REAL_HAND_BOX_M, k_m};
use crate::space::RectPx;
use crate::synth::random::Random;
use crate::synth::{Kind, Photo, Scene, Studio};
use crate::truth::{TruePerson, Truth};

/// Views of one block.
pub const VIEWS: usize = 24;
/// Views of the same photograph of the same person, each augmented in another way.
const VIEWS_OF_A_PERSON: usize = 2;
/// Photographs of a scene whose people move.
const PHOTOS_OF_A_SCENE: usize = 3;
/// Of what people are seen in, and the share of the views. From heavy clutter alone little is learnt at first.
const PEOPLE: [(Kind, f32); 3] = [(Kind::Scenes, 1.0 / 2.0), (Kind::Postures, 1.0 / 3.0), (Kind::Poses, 1.0 / 6.0)];

// The release's augmentation is for data sets that end, and turns and scales about twice as much (25 %, 30 degrees with
// probability 0.6). Here pictures do not end, and cameras, distances and poses vary by themselves.
/// Deviation of the box's scale.
const SCALE: f32 = 0.12;
/// Share of views that are turned, and the deviation.
const ROTATED: f32 = 0.4;
const ROTATION_DEG: f32 = 10.0;
/// Hands come at any angle.
const HAND_ROTATION_DEG: f32 = 60.0;
/// Share of views with things pasted on them.
const OCCLUDED: f32 = 0.2;

/// A person of whom less is seen, or that is smaller, is nobody's task.
const LEAST_SHARE: f32 = 0.4;
const LEAST_SIDE_PX: f32 = 24.0;
/// Nearer to the camera nobody is.
const LEAST_DEPTH_M: f32 = 0.2;
/// The share of the joints that must be in the frame: of what is beyond nothing can be learnt.
const LEAST_JOINTS: f32 = 0.7;

/// A person in a patch. Lixels are those of a heatmap of one bin for each pixel of the patch: the task's bins follow by
/// a division.
#[derive(Clone, Debug)]
pub struct View {
    /// What the network reads.
    pub patch: RgbImage,
    /// Which kind of scene it is from.
    pub kind: Kind,
    /// x and y in pixels of the patch, z in metres behind the root joint along the line of sight; left and right as
    /// they are seen.
    pub joints: Vec<Vec3>,
    /// The same for the vertices.
    pub vertices: Vec<Vec3>,
    /// Depth of the root joint, metres.
    pub root_depth_m: f32,
    /// Its quotient with RootNet's k.
    pub gamma: f32,
    /// Patch pixels times this and the depth in metres are metres, across.
    pub metres_per_px_at_1m: f32,
    /// Where the middle of the patch lies at a depth of 1 m, in metres from the camera's axis, along the patch's axes.
    pub middle_at_1m: Vec2,
    /// Side of the box around the root joint that the heatmaps of z cover, metres.
    pub box_m: f32,
    /// Pose of every joint, axis-angle, and the shape: what the second stage learns. The first turns into the axes of
    /// the patch: its z is the line of sight through its middle.
    pub pose_rad: Vec<Vec3>,
    /// Coefficients.
    pub shape: Vec<f32>,
}

/// Makes [`View`]s.
pub struct Viewer {
    studio: Arc<Studio>,
    /// Side of the patches.
    side: u32,
    /// The other side's joint and vertex; no vertices of a hand, which is another one in a mirror.
    mirrored_joint: Vec<usize>,
    mirrored_vertex: Vec<u32>,
}

impl Viewer {
    /// People or hands, in patches of this side. Takes a second.
    pub fn new(of: Family, side: u32) -> Result<Self> {
        let studio = Studio::of(of)?;
        let names = &studio.body().topology().skeleton.names;
        let other = |name: &String| match name.strip_prefix("left_") {
            Some(rest) => format!("right_{rest}"),
            None => name.strip_prefix("right_").map_or(name.clone(), |rest| format!("left_{rest}")),
        };
        let mirrored_joint =
            names.iter().enumerate().map(|(at, name)| names.iter().position(|n| *n == other(name)).unwrap_or(at));
        let mirrored_joint = mirrored_joint.collect();
        let mirrored_vertex = match of {
            Family::Smpl => standin::body()?.mirrored_vertex,
            Family::Mano => Vec::new(),
        };
        Ok(Self { studio, side, mirrored_joint, mirrored_vertex })
    }

    /// People or hands.
    pub fn family(&self) -> Family {
        self.studio.body().family()
    }

    /// In a mirror it is a body as before.
    pub fn has_mirror_image(&self) -> bool {
        !self.mirrored_vertex.is_empty()
    }

    /// The body of all people.
    pub fn topology(&self) -> &Arc<Topology> {
        self.studio.body().topology()
    }

    /// Where the networks' studio is.
    pub fn studio(&self) -> &Arc<Studio> {
        &self.studio
    }

    /// What belongs to the joints of the skeleton, or to the first of them, as it belongs to those of the mirror image.
    pub fn mirrored<T: Copy>(&self, of_joints: &[T]) -> Vec<T> {
        self.mirrored_joint[..of_joints.len()].iter().map(|&joint| of_joints[joint]).collect()
    }

    /// A block of [`VIEWS`] views.
    pub fn block(&self, number: u64) -> Result<Vec<View>> {
        let mut random = Random::fork(number, 0x7065_6F70_6C65);
        let mut views = Vec::with_capacity(VIEWS);
        while views.len() < VIEWS {
            let kind = match self.family() {
                Family::Mano => Kind::Hands,
                Family::Smpl => some_kind(&mut random),
            };
            let size = match random.below(10) {
                0..5 => [320, 240],
                5..8 => [480, 360],
                _ => [640, 480],
            };
            let scene = Scene::new(&self.studio, kind, random.bits(), size)?;
            for _ in 0..photos(kind) {
                let Photo { rgb, truth } = scene.photograph(random.between(0.0, 60.0))?;
                for person in &truth.people {
                    for _ in 0..VIEWS_OF_A_PERSON {
                        views.extend(self.view(&rgb, kind, &truth, person, &mut random));
                    }
                }
            }
        }
        views.truncate(VIEWS);
        Ok(views)
    }

    /// One augmented view; `None` of whom too little is seen.
    fn view(
        &self,
        frame: &RgbImage,
        kind: Kind,
        truth: &Truth,
        person: &TruePerson,
        random: &mut Random,
    ) -> Option<View> {
        let seen = person.visible_rect.filter(|rect| rect.w.max(rect.h) >= LEAST_SIDE_PX)?;
        if person.visible_share < LEAST_SHARE || person.root_camera_m().z < LEAST_DEPTH_M {
            return None;
        }
        let [width, height] = truth.size;
        let inside = person.joints_camera_m.iter().filter(|&&joint| truth.pixel(joint).is_some()).count();
        if (inside as f32) < LEAST_JOINTS * person.joints_camera_m.len() as f32 {
            return None;
        }
        let (rotation_deg, box_m, real_box_m) = match self.family() {
            Family::Smpl => (ROTATION_DEG, BODY_BOX_M, REAL_BOX_M),
            Family::Mano => (HAND_ROTATION_DEG, HAND_BOX_M, REAL_HAND_BOX_M),
        };
        let tight = process_bbox(missed_a_little(seen, random), width, height)?;
        let augmentation = Augmentation {
            scale: f64::from(1.0 + SCALE * random.normal().clamp(-1.0, 1.0)),
            rotation_rad: if random.chance(ROTATED) {
                f64::from(rotation_deg * random.normal().clamp(-2.0, 2.0)).to_radians()
            } else {
                0.0
            },
            flip: self.has_mirror_image() && random.chance(0.5),
        };
        let crop = Crop::augmented(tight, self.side, augmentation, width);
        let root = person.root_camera_m();
        let middle_px = crop.frame_from_crop.transform_point2(Vec2::splat(self.side as f32 / 2.0));
        let sight = truth.intrinsics.camera_from_frame(middle_px, 1.0).normalize();
        let place = |p: Vec3| {
            let px = crop.crop_from_frame.transform_point2(truth.intrinsics.frame_from_camera(p));
            px.extend((p - root).dot(sight))
        };
        let mut joints: Vec<Vec3> = person.joints_camera_m.iter().map(|&p| place(p)).collect();
        let mut vertices: Vec<Vec3> = person.vertices_camera_m.iter().map(|&p| place(p)).collect();
        if augmentation.flip {
            joints = self.mirrored(&joints);
            vertices = self.mirrored_vertex.iter().map(|&v| vertices[v as usize]).collect();
        }
        let mut pose_rad = person.params.pose_rad.clone();
        let mut right_px = crop.crop_from_frame.matrix2.x_axis;
        if augmentation.flip {
            pose_rad = self.mirrored(&pose_rad).into_iter().map(mirrored_turn).collect();
            right_px = -right_px;
        }
        // The box that the patch shows is the augmented one.
        let shown = tight.w * augmentation.scale as f32;
        let k = k_m(&truth.intrinsics, &RectPx { w: shown, h: shown, ..tight }, real_box_m);
        let metres_per_px_at_1m = shown / self.side as f32 / truth.intrinsics.fx;
        let axis_px = Vec2::new(truth.intrinsics.cx, truth.intrinsics.cy);
        let middle_at_1m = crop.crop_from_frame.transform_vector2(middle_px - axis_px) * metres_per_px_at_1m;
        if let Some(root) = pose_rad.first_mut() {
            let turn = patch_from_camera(middle_at_1m) * Quat::from_rotation_z(right_px.to_angle());
            *root = (turn * Quat::from_scaled_axis(*root)).to_scaled_axis();
        }
        let mut patch = crop.patch(frame);
        recolour(&mut patch, random);
        if random.chance(OCCLUDED) {
            occlude(&mut patch, random);
        }
        Some(View {
            patch,
            kind,
            joints,
            vertices,
            root_depth_m: root.z,
            gamma: root.z / k,
            metres_per_px_at_1m,
            middle_at_1m,
            box_m,
            pose_rad,
            shape: person.params.shape.clone(),
        })
    }
}

/// Of each place of this kind.
fn photos(kind: Kind) -> usize {
    match kind {
        Kind::Scenes | Kind::Hands => PHOTOS_OF_A_SCENE,
        Kind::Poses | Kind::Postures => 1,
    }
}

/// One of [`PEOPLE`]; the more photographs are taken of its places, the less often.
fn some_kind(random: &mut Random) -> Kind {
    let places = PEOPLE.map(|(kind, share)| (kind, share / photos(kind) as f32));
    let mut at = random.between(0.0, places.iter().map(|(_, share)| share).sum());
    let reached = places.iter().find(|(_, share)| {
        at -= share;
        at < 0.0
    });
    reached.unwrap_or(&places[0]).0
}

/// What all networks of lixels learn here.
fn patch_from_camera(middle_at_1m: Vec2) -> Quat {
    DepthAxis::LineOfSight.patch_from_camera(middle_at_1m)
}

/// A turn (axis times angle) as a mirror shows it that changes left and right.
pub fn mirrored_turn(turn: Vec3) -> Vec3 {
    Vec3::new(turn.x, -turn.y, -turn.z)
}

/// A detector's box is not the true one: each side is a little off, and now and then an arm or the feet are missed.
/// Shares and deviations are those of the built-in detector in scenes.
fn missed_a_little(rect: RectPx, random: &mut Random) -> RectPx {
    let mut off = |side: f32, missed: f32| {
        let deviation = if random.chance(missed) { 0.15 } else { 0.03 };
        side * deviation * random.normal().clamp(-2.5, 2.5)
    };
    let (left, right) = (rect.x + off(rect.w, 0.2), rect.x + rect.w + off(rect.w, 0.2));
    let (top, bottom) = (rect.y + off(rect.h, 0.05), rect.y + rect.h + off(rect.h, 0.05));
    RectPx { x: left, y: top, w: right - left, h: bottom - top }
}

/// Each channel by a factor of its own, and all by one more.
fn recolour(patch: &mut RgbImage, random: &mut Random) {
    let light = random.between(0.85, 1.15);
    let factors: [u32; 3] = std::array::from_fn(|_| (256.0 * light * random.between(0.8, 1.2)) as u32);
    for pixel in patch.as_chunks_mut::<3>().0 {
        for (channel, factor) in pixel.iter_mut().zip(factors) {
            *channel = ((u32::from(*channel) * factor) >> 8).min(255) as u8;
        }
    }
}

/// Covers parts with things: ellipses and bars of one colour or of noise (synthetic occlusion, after Sarandi et al.
/// 2018, without photographs of things).
fn occlude(patch: &mut RgbImage, random: &mut Random) {
    let side = patch.width() as f32;
    for _ in 0..=random.below(3) {
        let centre = Vec2::new(random.between(0.0, side), random.between(0.0, side));
        let [long, wide] = [random.between(0.05, 0.28) * side, random.between(0.04, 0.16) * side];
        let along = Vec2::from_angle(random.between(0.0, std::f32::consts::PI));
        let round = random.chance(0.5);
        let colour: [u8; 3] = std::array::from_fn(|_| random.below(256) as u8);
        let rough = if random.chance(0.5) { random.between(5.0, 60.0) } else { 0.0 };
        for (x, y, pixel) in patch.enumerate_pixels_mut() {
            let from = Vec2::new(x as f32, y as f32) - centre;
            let (u, v) = (from.dot(along) / long, from.perp_dot(along) / wide);
            if if round { u * u + v * v < 1.0 } else { u.abs().max(v.abs()) < 1.0 } {
                let noise = if rough > 0.0 { random.between(-rough, rough) } else { 0.0 };
                pixel.0 = colour.map(|c| (f32::from(c) + noise) as u8);
            }
        }
    }
}

impl View {
    /// Points of the view, as [`View::joints`] has them, in bins along x, y, z, as the heatmaps of its patch have them.
    pub fn lixels(&self, points: &[Vec3], bins: usize) -> Vec<Vec3> {
        let per_px = bins as f32 / self.patch.width() as f32;
        let z = |metres: f32| (metres / self.box_m + 0.5) * bins as f32;
        points.iter().map(|p| Vec3::new(p.x * per_px, p.y * per_px, z(p.z))).collect()
    }

    /// Metres of points in lixels, as `camera_mesh` would place them with the true depth of the root joint; from the
    /// camera on, in the axes of the patch.
    pub fn metres(&self, lixels: &[Vec3], bins: usize) -> Vec<Vec3> {
        let side = self.patch.width() as f32;
        let turn = patch_from_camera(self.middle_at_1m);
        let ray = |px: Vec2| turn * ((px - side / 2.0) * self.metres_per_px_at_1m + self.middle_at_1m).extend(1.0);
        let root_m = self.root_depth_m * ray(self.joints[0].truncate()).z;
        let metres = |l: &Vec3| {
            let ray = ray(l.truncate() * (side / bins as f32));
            ray * ((root_m + (l.z / bins as f32 - 0.5) * self.box_m) / ray.z)
        };
        lixels.iter().map(metres).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_says_where_its_person_or_hand_is() -> Result<()> {
        // Thigh and shin of an adult; the first bones of the fingers.
        let limbs = [(1, 4), (4, 7), (2, 5), (5, 8)];
        let fingers = [(5, 6), (9, 10), (13, 14), (17, 18)];
        for (family, bones, lengths_m, most_px) in
            [(Family::Smpl, limbs, 0.25..0.65, 3.0), (Family::Mano, fingers, 0.02..0.07, 3.0)]
        {
            let viewer = Viewer::new(family, 128)?;
            let block = viewer.block(3)?;
            assert_eq!(block.len(), VIEWS);
            assert_eq!(block[5].patch, viewer.block(3)?[5].patch, "the same again");
            for view in &block {
                // The mesh's own joints are the joints, mirrored or not.
                let regressed = viewer.topology().joints(&view.vertices).unwrap();
                let off = regressed.iter().zip(&view.joints).map(|(a, b)| (*a - *b).length()).fold(0.0, f32::max);
                // Perspective is not linear: a pixel or three within a body. The skin of a bent finger is drawn in at its
                // joint, by some millimetres; here they are pixels.
                assert!(off < most_px, "{family:?}: {off} px");
                // The visible part is in the middle of the patch: some joints must be in it.
                let inside = |p: &&Vec3| p.x > 0.0 && p.y > 0.0 && p.x < 128.0 && p.y < 128.0;
                assert!(view.joints.iter().filter(inside).count() > 5);
                let truth = view.metres(&view.lixels(&view.joints, 32), 32);
                for (from, to) in bones {
                    let bone = (truth[from] - truth[to]).length();
                    assert!(lengths_m.contains(&bone), "{bone} m");
                }
                assert!((0.3..2.0).contains(&view.gamma), "{}", view.gamma);
            }
        }
        // Left is left in mirrored views too: seen from the front or from behind, the thumb side does not change; what
        // can be told is that hips stay left and right of the spine as the shoulders do.
        let block = Viewer::new(Family::Smpl, 128)?.block(3)?;
        let turned = |view: &View| {
            let across = |l: usize, r: usize| (view.joints[l] - view.joints[r]).truncate().normalize_or_zero();
            across(1, 2).dot(across(16, 17)) > -0.5
        };
        assert!(block.iter().filter(|view| turned(view)).count() > VIEWS * 3 / 4);
        Ok(())
    }

    #[test]
    fn views_of_each_kind_have_their_share() -> Result<()> {
        let viewer = Viewer::new(Family::Smpl, 64)?;
        let views: Vec<View> = (0..40).map(|number| viewer.block(number)).collect::<Result<Vec<_>>>()?.concat();
        for (kind, share) in PEOPLE {
            let found = views.iter().filter(|view| view.kind == kind).count() as f32 / views.len() as f32;
            assert!((found / share - 1.0).abs() < 0.3, "{kind:?}: {found} instead of {share}");
        }
        Ok(())
    }

    #[test]
    fn patches_change_their_colours_and_are_covered_in_part() {
        let mut random = Random::new(4);
        let grey = RgbImage::from_pixel(64, 64, image::Rgb([128; 3]));
        let (mut colours, mut covered) = (std::collections::HashSet::new(), Vec::new());
        for _ in 0..40 {
            let mut patch = grey.clone();
            recolour(&mut patch, &mut random);
            let colour = patch.get_pixel(0, 0).0;
            assert!(patch.pixels().all(|pixel| pixel.0 == colour), "all pixels alike");
            assert!(colour.iter().all(|c| (86..=177).contains(c)), "{colour:?}");
            colours.insert(colour);
            let mut patch = grey.clone();
            occlude(&mut patch, &mut random);
            let other = patch.pixels().zip(grey.pixels()).filter(|(a, b)| a != b).count();
            covered.push(other as f32 / (64.0 * 64.0));
        }
        assert!(colours.len() > 30 && colours.iter().any(|[r, _, b]| r.abs_diff(*b) > 15), "{colours:?}");
        let mean = covered.iter().sum::<f32>() / covered.len() as f32;
        assert!((0.03..0.4).contains(&mean) && covered.iter().all(|share| *share < 0.9), "{covered:?}");
    }

    #[test]
    fn the_pose_of_a_view_makes_its_person_or_hand() -> Result<()> {
        for family in [Family::Smpl, Family::Mano] {
            let viewer = Viewer::new(family, 64)?;
            let mut means = Vec::new();
            for view in viewer.block(4)? {
                let posed = viewer.studio().body().pose(&view.pose_rad, &view.shape, Vec3::ZERO)?.joints_m;
                let seen = view.metres(&view.lixels(&view.joints, 64), 64);
                let off = |joint: usize| (posed[joint] - posed[0]).distance(seen[joint] - seen[0]) / view.box_m;
                means.push((0..posed.len()).map(off).sum::<f32>() / posed.len() as f32);
            }
            // A wrong mirror or turn moves limbs by a quarter of the box.
            assert!(means.iter().all(|mean| *mean < 0.002), "{family:?}: {means:?}");
        }
        Ok(())
    }
}
