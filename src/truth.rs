//! What is known of the people in a frame that was made or annotated, not just captured. Part of the words that
//! everything is said in, as `result` is: a frame can carry it from its source to whoever compares, and nobody between
//! needs to look.
//!
//! Of a synthetic frame everything is known. Annotations know less, and what they do not know is missing and not made
//! up: no vertices, no joints, NaN, no masks, as each field says.

use std::sync::Arc;

use glam::{Vec2, Vec3};
use image::GrayImage;

use crate::body::{Family, Topology};
use crate::crop::Crop;
use crate::result::{BodyParams, EstimatorKind, FrameResult, Person, PersonMesh, RootSource};
use crate::space::{Intrinsics, RectPx};

/// Everything that is true of one frame.
#[derive(Clone, Debug)]
pub struct Truth {
    /// The camera that took it.
    pub intrinsics: Intrinsics,
    /// Width and height of the frame.
    pub size: [u32; 2],
    /// Faces and joints of all people.
    pub topology: Arc<Topology>,
    /// The people: of a synthetic frame at most eight, those outside of the frame too; of an annotated one at most 255.
    pub people: Vec<TruePerson>,
    /// Whom each pixel shows: 0 nobody, else the person's index + 1. Empty where nobody's pixels are known.
    pub owner: Vec<u8>,
    /// Bit i is set where person i is, seen or hidden. Empty where that is not known.
    pub covered: Vec<u8>,
}

/// Everything that is true of one person.
#[derive(Clone, Debug)]
pub struct TruePerson {
    /// The mesh, in camera metres; empty where it is not known.
    pub vertices_camera_m: Vec<Vec3>,
    /// The joints of [`Topology::skeleton`], in camera metres; the root is the first. NaN for one that is not known;
    /// empty where none is.
    pub joints_camera_m: Vec<Vec3>,
    /// For each joint: it is in the frame, and no other person and no thing is before it. (A hand before one's own
    /// chest hides nothing.) Empty where it is not known.
    pub joint_visible: Vec<bool>,
    /// Around the whole mesh; reaches beyond the frame where the person does.
    pub full_rect: RectPx,
    /// Around the pixels that show the person; `None` where none does.
    pub visible_rect: Option<RectPx>,
    /// The part of the person's pixels in the frame that show the person, in `[0, 1]`; NaN where it is not known, and 0
    /// for a crowd and for somebody whom the annotations call invalid.
    pub visible_share: f32,
    /// What poses the body model: the first axis-angle turns into camera axes. Empty where it is not known.
    pub params: BodyParams,
    /// The translation that goes with them, metres; NaN where it is not known.
    pub translation_m: Vec3,
}

impl TruePerson {
    /// The root joint, in camera metres; NaN where it is not known.
    pub fn root_camera_m(&self) -> Vec3 {
        self.joints_camera_m.first().copied().unwrap_or(Vec3::NAN)
    }
}

/// Of whom less than this share is seen, nobody can be asked to say where the rest is.
pub const LEAST_SEEN_SHARE: f32 = 0.3;

impl Truth {
    /// Nobody demands that this person is found, and nobody minds: not a pixel shows it, other people and things hide
    /// more than 0.7 of what the frame has of it, or less than 0.3 of the box around the whole body is in the frame.
    pub fn is_hardly_visible(&self, person: &TruePerson) -> bool {
        let [width, height] = self.size;
        let whole = person.full_rect.area();
        let inside = person.full_rect.clipped(width, height).map_or(0.0, |rect| rect.area());
        person.visible_rect.is_none()
            || person.visible_share < LEAST_SEEN_SHARE
            || (whole > 0.0 && inside < LEAST_SEEN_SHARE * whole)
    }

    /// Why this is nothing to hold an estimator against: it finds people and these are hands, or the other way round.
    pub fn is_not_for(&self, estimator: EstimatorKind) -> Option<String> {
        let family = self.topology.family().filter(|family| *family != estimator.family())?;
        let right = match family {
            Family::Smpl => "body",
            Family::Mano => "hand",
        };
        Some(format!("these are {}: take --estimator {right}", family.shows()))
    }

    /// White where the pixels show a person; `None` where nobody's pixels are known.
    pub fn visible_mask(&self, person: usize) -> Option<GrayImage> {
        self.mask(&self.owner, |owner| usize::from(owner) == person + 1)
    }

    /// White where a person is, seen or hidden; `None` where it is not known.
    pub fn full_mask(&self, person: usize) -> Option<GrayImage> {
        self.mask(&self.covered, |covered| person < 8 && covered >> person & 1 == 1)
    }

    fn mask(&self, pixels: &[u8], white: impl Fn(u8) -> bool) -> Option<GrayImage> {
        let [width, height] = self.size;
        GrayImage::from_raw(width, height, pixels.iter().map(|&pixel| 255 * u8::from(white(pixel))).collect())
    }

    /// The pixel that a point in camera metres falls on, as an index of [`Truth::owner`].
    pub fn pixel(&self, p_camera_m: Vec3) -> Option<usize> {
        let p: Vec2 = self.intrinsics.frame_from_camera(p_camera_m).round();
        let [width, height] = self.size.map(|side| side as f32);
        (p.x >= 0.0 && p.y >= 0.0 && p.x < width && p.y < height).then(|| p.y as usize * width as usize + p.x as usize)
    }
}

/// Ids of true people in a result begin here: those of found people do not come so far.
const FIRST_ID: u32 = 1_000_000;

/// Side of the patch of a true person, which no network reads.
const CROP_PX: u32 = 256;

impl Person {
    /// It was not found, but is there; its number in [`Truth::people`].
    pub fn true_index(&self) -> Option<usize> {
        (self.root_source == RootSource::Truth).then(|| self.id.saturating_sub(FIRST_ID) as usize)
    }

    /// The short name that is shown: `#3`, or `true 1`.
    pub fn label(&self) -> String {
        self.true_index().map_or_else(|| format!("#{}", self.id), |index| format!("true {}", index + 1))
    }
}

impl FrameResult {
    /// No network has looked at the frame.
    pub fn is_bare(&self) -> bool {
        self.skeleton.names.is_empty() && self.people.is_empty()
    }

    /// The same with the true people whom the frame shows, after those that were found; without the found ones where
    /// they are of another mesh, since a result has one. `None` where nobody's joints are known.
    pub fn with_truth(&self) -> Option<Self> {
        let truth = self.frame.truth.as_ref().filter(|truth| !truth.topology.skeleton.names.is_empty())?;
        let same_mesh = self.topology.as_ref().is_some_and(|topology| {
            topology.vertex_count == truth.topology.vertex_count && topology.skeleton == truth.topology.skeleton
        });
        let mut both = if same_mesh {
            self.clone()
        } else {
            Self {
                people: Vec::new(),
                intrinsics: truth.intrinsics,
                // Joints alone are of no mesh.
                topology: (truth.topology.vertex_count > 0).then(|| Arc::clone(&truth.topology)),
                skeleton: Arc::new(truth.topology.skeleton.clone()),
                ..self.clone()
            }
        };
        let [width, height] = truth.size;
        let known = truth.people.iter().enumerate().filter(|(_, person)| person.root_camera_m().is_finite());
        let seen = known.filter_map(|(index, person)| {
            let rect = person.visible_rect?;
            Some(Person {
                id: FIRST_ID + index as u32,
                score: 1.0,
                rect,
                crop: Crop::of_tight_box(rect, width, height, CROP_PX)?,
                root_camera_m: person.root_camera_m(),
                root_source: RootSource::Truth,
                joints_camera_m: person.joints_camera_m.clone(),
                joint_spread_lixel: Vec::new(),
                mesh: (!person.vertices_camera_m.is_empty()).then(|| PersonMesh {
                    vertices_camera_m: person.vertices_camera_m[..].into(),
                    params: Some(person.params.clone()),
                    ..PersonMesh::default()
                }),
                heatmaps: Vec::new(),
            })
        });
        both.people.extend(seen);
        Some(both)
    }
}
