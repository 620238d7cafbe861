//! Who is who from frame to frame. A [`Tracker`] gives every person an id that lasts while the person is tracked, keeps
//! it across missed detections, and says where people are on the frames on which no detector runs.
//!
//! On every frame: [`Tracker::predict`]; where the detector ran, [`Tracker::update_from_detections`]; then
//! [`Tracker::people`] are the boxes to crop; and once their bodies are known, [`Tracker::update_from_pose`] with the box
//! around each, which is what keeps boxes on people between detections.
//!
//! On a frame on which the detector saw a person, the box is the detector's, unsmoothed: with a detector on every frame
//! nothing but the ids depends on earlier frames. Pictures that do not belong together need [`Tracker::clear`] between
//! them. Everything is deterministic: the same calls give the same ids.

mod motion;

use super::PersonBox;
use super::assignment::assign;
use crate::space::RectPx;
use motion::{BodyFit, Motion};

/// Sides that no box on a frame exceeds, pixels; a guard for arithmetic.
const MAX_PX: f32 = 1e6;
/// A box and a track are not the same person at or below this generalised IoU: a gap of about one body width.
const MIN_GIOU: f32 = -0.3;
/// Nor when a side differs by more than this factor.
const MAX_SIDE_RATIO: f32 = 2.5;
/// A weak detection must overlap its track by this.
const MIN_WEAK_IOU: f32 = 0.3;
/// A pose whose box overlaps its track less than this is not believed.
const MIN_POSE_IOU: f32 = 0.2;
/// A track without a detection stands behind another one that has one, where they overlap by this.
const OCCLUDED_IOU: f32 = 0.4;
/// Detector rounds after which a track that stays behind another one is taken for a copy of it.
const MAX_HIDDEN_ROUNDS: u32 = 30;

/// When tracks begin and end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TrackerConfig {
    /// A detection of this score that belongs to nobody is a new person, at once.
    pub birth_score: f32,
    /// Weaker detections, down to this score, keep a person who is tracked already.
    pub keep_score: f32,
    /// Detector rounds without a detection during which a person is still shown.
    pub shown_rounds: u32,
    /// Detector rounds without a detection after which a person is forgotten; until then the id comes back with the
    /// person. Rounds in which somebody else stands in front do not count.
    pub forget_rounds: u32,
    /// Two tracks that overlap more than this are one person.
    pub duplicate_iou: f32,
}

impl TrackerConfig {
    /// People are shown from this score, and kept while their detections reach 0.6 of it.
    pub fn with_score_threshold(score: f32) -> Self {
        Self { birth_score: score, keep_score: 0.6 * score, ..Self::default() }
    }
}

impl Default for TrackerConfig {
    fn default() -> Self {
        Self { birth_score: 0.5, keep_score: 0.3, shown_rounds: 1, forget_rounds: 8, duplicate_iou: 0.75 }
    }
}

/// A person who is tracked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TrackedPerson {
    /// Stable while the person is tracked; never given to anybody else.
    pub id: u32,
    /// Tight box, frame pixels.
    pub rect: RectPx,
    /// Score of the last detection, `[0, 1]`.
    pub score: f32,
}

struct Track {
    id: u32,
    motion: Motion,
    fit: BodyFit,
    /// The detector's box in the frame at hand.
    detected: Option<RectPx>,
    score: f32,
    /// Detector rounds since the last detection; 0 for a person who is seen.
    unseen: u32,
    /// Those of them in which nobody else stood in front.
    missed: u32,
}

impl Track {
    fn new(id: u32, seen: &PersonBox) -> Self {
        Self {
            id,
            motion: Motion::new(&seen.rect),
            fit: BodyFit::default(),
            detected: Some(seen.rect),
            score: seen.score.min(1.0),
            unseen: 0,
            missed: 0,
        }
    }

    fn rect(&self) -> RectPx {
        self.detected.unwrap_or_else(|| self.motion.rect())
    }

    fn detected(&mut self, seen: &PersonBox) {
        self.motion.correct(&seen.rect, motion::DETECTION);
        self.detected = Some(seen.rect);
        self.score = seen.score.min(1.0);
        self.unseen = 0;
    }

    fn is_seen(&self) -> bool {
        self.unseen == 0
    }
}

/// Gives people ids and follows them.
pub struct Tracker {
    config: TrackerConfig,
    tracks: Vec<Track>,
    next_id: u32,
    frame_index: Option<u64>,
}

impl Tracker {
    /// A tracker that knows nobody.
    pub fn new(config: TrackerConfig) -> Self {
        Self { config, tracks: Vec::new(), next_id: 0, frame_index: None }
    }

    /// Changes when tracks begin and end; who is tracked stays.
    pub fn set_config(&mut self, config: TrackerConfig) {
        self.config = config;
    }

    /// Forgets everybody (another source). Ids go on counting.
    pub fn clear(&mut self) {
        self.tracks.clear();
        self.frame_index = None;
    }

    /// Moves everybody to this frame. The same frame again changes nothing; an earlier one means that the source was
    /// rewound, and everybody is forgotten.
    pub fn predict(&mut self, frame_index: u64) {
        match self.frame_index {
            Some(last) if frame_index < last => self.clear(),
            Some(last) if frame_index > last => {
                let frames = (frame_index - last) as f32;
                for track in &mut self.tracks {
                    track.motion.predict(frames);
                    track.detected = None;
                }
            }
            _ => {}
        }
        self.frame_index = Some(frame_index);
    }

    /// What the detector found in this frame: people are recognised, new ones begin, those who stay away end. Boxes
    /// that are not finite or smaller than a pixel are ignored.
    pub fn update_from_detections(&mut self, detections: &[PersonBox]) {
        let usable: Vec<PersonBox> = detections
            .iter()
            .copied()
            .filter(|d| is_usable(&d.rect) && d.score >= self.config.keep_score.min(self.config.birth_score))
            .collect();
        let (strong, mut weak): (Vec<PersonBox>, Vec<PersonBox>) =
            usable.into_iter().partition(|d| d.score >= self.config.birth_score);

        for track in &mut self.tracks {
            track.unseen += 1;
        }
        // Strong detections choose first; a weak one only confirms somebody who is left, and not where it may be a
        // part of somebody who is seen.
        let mut free: Vec<usize> = (0..self.tracks.len()).collect();
        let strangers = self.associate(&strong, &mut free, affinity);
        let seen = self.seen_rects();
        weak.retain(|d| seen.iter().all(|s| s.iou(&d.rect) <= OCCLUDED_IOU));
        self.associate(&weak, &mut free, |seen, tracked| {
            let iou = seen.iou(tracked);
            if iou >= MIN_WEAK_IOU { iou } else { 0.0 }
        });

        for stranger in strangers {
            // A second box around somebody who is seen is not a second person.
            let copy = self.seen_rects().iter().any(|s| s.iou(&stranger.rect) > self.config.duplicate_iou);
            if !copy {
                self.tracks.push(Track::new(self.next_id, &stranger));
                self.next_id += 1;
            }
        }

        let seen = self.seen_rects();
        let forget_rounds = self.config.forget_rounds;
        self.tracks.retain_mut(|track| {
            let rect = track.rect();
            if track.is_seen() {
                track.missed = 0;
            } else if seen.iter().all(|s| s.iou(&rect) <= OCCLUDED_IOU) {
                track.missed += 1;
            }
            track.missed <= forget_rounds && track.unseen <= forget_rounds.max(MAX_HIDDEN_ROUNDS) && is_usable(&rect)
        });
    }

    /// Gives each detection to the free track that suits it, so that the sum of affinities is largest; returns the
    /// detections that nobody takes.
    fn associate(
        &mut self,
        detections: &[PersonBox],
        free: &mut Vec<usize>,
        affinity: impl Fn(&RectPx, &RectPx) -> f32,
    ) -> Vec<PersonBox> {
        let profit: Vec<Vec<f32>> = detections
            .iter()
            .map(|d| {
                free.iter()
                    .map(|&i| {
                        let track = &self.tracks[i];
                        // Of two, the one who was seen more recently.
                        affinity(&d.rect, &track.rect()) / (1.0 + 0.1 * track.missed as f32)
                    })
                    .collect()
            })
            .collect();
        let columns = assign(&profit);
        let mut strangers = Vec::new();
        for (detection, column) in detections.iter().zip(&columns) {
            match column {
                Some(column) => {
                    self.tracks[free[*column]].detected(detection);
                }
                None => strangers.push(*detection),
            }
        }
        free.retain(|&i| !self.tracks[i].is_seen());
        strangers
    }

    /// The box around the body that was found for this person in this frame. On frames without the detector it moves
    /// the person's box; on the others it teaches how the two kinds of boxes differ. Ignored where it cannot be this person's:
    /// far from the track, or when the person stands unseen behind somebody else, whose body it then is.
    pub fn update_from_pose(&mut self, id: u32, tight: RectPx) {
        let seen = self.seen_rects();
        let Some(track) = self.tracks.iter_mut().find(|track| track.id == id) else { return };
        let rect = track.rect();
        let hidden = !track.is_seen() && seen.iter().any(|s| s.iou(&rect) > OCCLUDED_IOU);
        if !is_usable(&tight) || tight.iou(&rect) < MIN_POSE_IOU || hidden {
            return;
        }
        match &track.detected {
            Some(detected) => track.fit.learn(&tight, detected),
            None => track.motion.correct(&track.fit.detected_from_body(&tight), motion::POSE),
        }
    }

    /// The people to show: those seen in the last detector round first, then by score. Nobody twice: of tracks that
    /// overlap too much only the first is listed.
    pub fn people(&self) -> Vec<TrackedPerson> {
        let mut shown: Vec<&Track> = self.tracks.iter().filter(|t| t.unseen <= self.config.shown_rounds).collect();
        shown.sort_by(|a, b| a.unseen.cmp(&b.unseen).then(b.score.total_cmp(&a.score)).then(a.id.cmp(&b.id)));
        let mut people: Vec<TrackedPerson> = Vec::with_capacity(shown.len());
        for track in shown {
            let rect = track.rect();
            let limit = if track.is_seen() { self.config.duplicate_iou } else { OCCLUDED_IOU };
            if people.iter().all(|p| p.rect.iou(&rect) <= limit) {
                people.push(TrackedPerson { id: track.id, rect, score: track.score });
            }
        }
        people
    }

    /// Boxes of those who were seen in the last detector round.
    fn seen_rects(&self) -> Vec<RectPx> {
        self.tracks.iter().filter(|t| t.is_seen()).map(Track::rect).collect()
    }
}

impl Default for Tracker {
    fn default() -> Self {
        Self::new(TrackerConfig::default())
    }
}

/// Whether arithmetic on this box makes sense.
fn is_usable(rect: &RectPx) -> bool {
    let bounded = [rect.x, rect.y, rect.w, rect.h].iter().all(|v| v.abs() < MAX_PX);
    rect.is_valid() && bounded && rect.w >= 1.0 && rect.h >= 1.0
}

/// How well a detection suits a track, positive where it may be the same person. Overlap alone would lose people who
/// move by more than their width between two detector rounds, so boxes that just miss each other count too: this is
/// the generalised IoU (Rezatofighi et al. 2019), counted from the least that is accepted.
fn affinity(seen: &RectPx, tracked: &RectPx) -> f32 {
    let ratio = |a: f32, b: f32| (a / b).max(b / a);
    if ratio(seen.w, tracked.w).max(ratio(seen.h, tracked.h)) > MAX_SIDE_RATIO {
        return 0.0;
    }
    let hull = RectPx::from_corners(seen.min().min(tracked.min()), seen.max().max(tracked.max())).area();
    let iou = seen.iou(tracked);
    let union = (seen.area() + tracked.area()) / (1.0 + iou);
    (iou - (hull - union) / hull - MIN_GIOU).max(0.0)
}

#[cfg(test)]
mod tests;
