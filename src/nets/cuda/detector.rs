//! The launches of Mask R-CNN's own kernels (`detector.cu`): proposals, regions, scores. Nothing waits for the
//! processor in between: numbers of boxes stay on the device, memory is for the most there can be.

use candle_core::{Result, bail};

use super::kernels::{Arg, Grid, Launch, MapDims, Ptr};

/// Levels of the pyramid that have anchors.
pub const LEVELS: usize = 5;
/// Most candidates of a level: the threads of a block.
pub const MOST: usize = 1024;
/// Words of 64 boxes.
const WORDS: usize = MOST / 64;
/// Bins of a digit of the selection.
const BINS: usize = 2048;
/// Anchors that a level's number of 22 bits can tell.
const MAX_ANCHORS: usize = 1 << 22;
/// Numbers of the table for each level.
const FACTS: usize = 5;

/// One level of the pyramid, as the region proposal network says it.
#[derive(Clone, Copy, Debug)]
pub struct RpnLevel {
    /// A map with the three anchors' logits.
    pub objectness: Ptr,
    /// A map with their corrections, anchor by anchor.
    pub deltas: Ptr,
    /// Of the former.
    pub dims: MapDims,
}

/// What does not change from frame to frame: the sizes, and where the memory is that lies between the kernels.
#[derive(Clone, Copy, Debug)]
pub struct ProposalPlan {
    /// Pictures.
    pub batch: usize,
    /// `[height, width]` of each after resizing, the same for all.
    pub resized: [usize; 2],
    /// Anchors of each level that are looked at, at most [`MOST`].
    pub per_level: usize,
    /// Proposals that are made.
    pub proposals: usize,
    /// Overlap from which one of two goes.
    pub iou: f32,
    /// Boxes with a shorter side go.
    pub min_side: f32,
}

/// The memory between the kernels, in bytes from its beginning.
#[derive(Clone, Copy, Debug)]
struct Scratch {
    keys: usize,
    histograms: usize,
    equals: usize,
    lists: Lists,
    end: usize,
}

impl ProposalPlan {
    fn scratch(&self, anchors: usize) -> Scratch {
        let mut end = 0;
        let mut take = places(&mut end);
        let groups = self.batch * LEVELS;
        Scratch {
            keys: take(self.batch * anchors * 4),
            histograms: take(groups * BINS * 4),
            equals: take(self.batch * anchors * 8),
            lists: Lists::new(groups, take),
            end,
        }
    }

    /// Bytes of memory that [`propose`] needs beside its input and output.
    pub fn scratch_bytes(&self, levels: &[MapDims; LEVELS]) -> usize {
        self.scratch(levels.iter().map(anchors).sum()).end
    }

    /// What the selection is told about the levels; `padded` is the network's input, `[height, width]`.
    pub fn table(levels: &[MapDims; LEVELS], padded: [usize; 2]) -> [i32; LEVELS * FACTS] {
        let mut table = [0; LEVELS * FACTS];
        let mut offset = 0;
        for (facts, level) in table.chunks_exact_mut(FACTS).zip(levels) {
            let strides = [padded[0] / level.height, padded[1] / level.width];
            let numbers = [offset, anchors(level), level.width, strides[0], strides[1]];
            facts.copy_from_slice(&numbers.map(|n| n as i32));
            offset += anchors(level);
        }
        table
    }
}

/// Anchors of a level of one picture.
fn anchors(level: &MapDims) -> usize {
    3 * level.height * level.width
}

/// The proposals of each picture, best first: boxes `[batch, proposals, 4]` f32 in resized pixels, zeros past the last,
/// and how many they are, `[batch]` i32. `table` and `cells` (`[LEVELS, 3, 4]` f32, the anchors around the origin) lie
/// on the device.
pub fn propose(
    on: &impl Launch,
    plan: &ProposalPlan,
    levels: &[RpnLevel; LEVELS],
    [table, cells, scratch, boxes, counts]: [Ptr; 5],
) -> Result<()> {
    let per_image: Vec<usize> = levels.iter().map(|level| anchors(&level.dims)).collect();
    let total: usize = per_image.iter().sum();
    if plan.per_level > MOST || total > MAX_ANCHORS {
        bail!("{} candidates of {total} anchors: the kernel takes {MOST} of {MAX_ANCHORS}", plan.per_level);
    }
    let at = plan.scratch(total);
    let place = |offset: usize| scratch.offset(offset);
    let groups = plan.batch * LEVELS;

    let bins = groups * BINS;
    on.launch("clear", Grid::over(bins), &[place(at.histograms).into(), Arg::Long(bins as i64)])?;
    let mut offset = 0;
    for (number, (level, &anchors)) in levels.iter().zip(&per_image).enumerate() {
        let args = [
            level.objectness.into(),
            place(at.keys).into(),
            place(at.histograms).into(),
            number.into(),
            anchors.into(),
            level.dims.padded().into(),
            offset.into(),
            total.into(),
        ];
        on.launch("rank_anchors", Grid::blocks([anchors.div_ceil(2048), plan.batch, 1], 256), &args)?;
        offset += anchors;
    }

    let [height, width] = plan.resized.map(|side| side as f32);
    let mut args = vec![place(at.keys).into(), place(at.histograms).into(), table.into(), cells.into()];
    args.extend(levels.iter().map(|level| Arg::Pointer(level.deltas)));
    let padded = MapDims { channels: 12, ..levels[0].dims }.padded();
    args.extend([
        Arg::from(padded),
        place(at.equals).into(),
        place(at.lists.boxes).into(),
        place(at.lists.scores).into(),
        place(at.lists.counts).into(),
        total.into(),
        plan.per_level.into(),
        MOST.into(),
        height.into(),
        width.into(),
        plan.min_side.into(),
    ]);
    on.launch("select_anchors", Grid::blocks([LEVELS, plan.batch, 1], MOST as u32), &args)?;

    let Scratch { lists, .. } = at;
    suppress(on, scratch, &lists, groups, plan.iou)?;
    let merged = Merged { boxes, counts, scores: Ptr::NULL, lists: Ptr::NULL };
    merge(on, scratch, &lists, [plan.batch, LEVELS, plan.proposals], merged)
}

/// Groups of at most [`MOST`] boxes in memory, best first, and what is left of them: in bytes from its beginning.
#[derive(Clone, Copy, Debug)]
struct Lists {
    boxes: usize,
    scores: usize,
    counts: usize,
    overlaps: usize,
    kept_boxes: usize,
    kept_scores: usize,
    kept_counts: usize,
}

impl Lists {
    fn new(groups: usize, mut take: impl FnMut(usize) -> usize) -> Self {
        Self {
            boxes: take(groups * MOST * 16),
            scores: take(groups * MOST * 4),
            counts: take(groups * 4),
            overlaps: take(groups * MOST * WORDS * 8),
            kept_boxes: take(groups * MOST * 16),
            kept_scores: take(groups * MOST * 4),
            kept_counts: take(groups * 4),
        }
    }
}

/// A place after another, each where memory may begin.
fn places(end: &mut usize) -> impl FnMut(usize) -> usize {
    |bytes| {
        let at = *end;
        *end += bytes.next_multiple_of(256);
        at
    }
}

/// Non-maximum suppression within each group.
fn suppress(on: &impl Launch, scratch: Ptr, lists: &Lists, groups: usize, iou: f32) -> Result<()> {
    let place = |offset: usize| scratch.offset(offset);
    let args = [
        place(lists.boxes).into(),
        place(lists.counts).into(),
        place(lists.overlaps).into(),
        MOST.into(),
        WORDS.into(),
        iou.into(),
    ];
    on.launch("find_overlaps", Grid::blocks([WORDS, WORDS, groups], 64), &args)?;
    let args = [
        place(lists.boxes).into(),
        place(lists.scores).into(),
        place(lists.counts).into(),
        place(lists.overlaps).into(),
        place(lists.kept_boxes).into(),
        place(lists.kept_scores).into(),
        place(lists.kept_counts).into(),
        MOST.into(),
        WORDS.into(),
    ];
    on.launch("suppress", Grid::blocks([groups, 1, 1], MOST as u32), &args)
}

/// Where the best of several lists go.
#[derive(Clone, Copy, Debug)]
pub struct Merged {
    /// f32 `[batch, limit, 4]`.
    pub boxes: Ptr,
    /// i32 `[batch]`.
    pub counts: Ptr,
    /// f32 `[batch, limit]`, or [`Ptr::NULL`].
    pub scores: Ptr,
    /// The list of each, i32 `[batch, limit]`, where scores are wanted.
    pub lists: Ptr,
}

/// The best `limit` of what the suppression has left of a picture's lists.
fn merge(
    on: &impl Launch,
    scratch: Ptr,
    lists: &Lists,
    [batch, count, limit]: [usize; 3],
    merged: Merged,
) -> Result<()> {
    let args = [
        scratch.offset(lists.kept_boxes).into(),
        scratch.offset(lists.kept_scores).into(),
        scratch.offset(lists.kept_counts).into(),
        merged.boxes.into(),
        merged.counts.into(),
        merged.scores.into(),
        merged.lists.into(),
        count.into(),
        MOST.into(),
        limit.into(),
    ];
    let parts = (count * MOST).max(limit).div_ceil(256);
    on.launch("merge_lists", Grid::blocks([parts, batch, 1], 256), &args)
}

/// Levels that regions are read from.
pub const ROI_LEVELS: usize = 4;

/// Regions `[batch * per_image, 4]` as the heads read them: a map of `side` x `side` for each.
pub fn roi_align(
    on: &impl Launch,
    levels: &[(Ptr, MapDims); ROI_LEVELS],
    finest_scale: f32,
    regions: Ptr,
    y: Ptr,
    [count, per_image, side]: [usize; 3],
) -> Result<()> {
    let mut args: Vec<Arg> = levels.iter().map(|&(map, _)| map.into()).collect();
    args.extend(levels.iter().map(|(_, dims)| Arg::from(dims.height)));
    args.extend(levels.iter().map(|(_, dims)| Arg::from(dims.width)));
    let padded = levels[0].1.padded();
    args.extend([Arg::from(finest_scale), regions.into(), y.into(), per_image.into(), side.into(), padded.into()]);
    on.launch("roi_align", Grid::blocks([count * side * side, 1, 1], 256), &args)
}

/// What [`score_regions`] reads: f32, biases not yet added.
#[derive(Clone, Copy, Debug)]
pub struct RegionScores {
    /// `[regions, classes]`
    pub logits: Ptr,
    /// `[classes]`
    pub logit_bias: Ptr,
    /// `[regions, classes * 4]`
    pub deltas: Ptr,
    /// `[classes * 4]`
    pub delta_bias: Ptr,
    /// `[regions, 4]`
    pub regions: Ptr,
    /// i32
    pub labels: Ptr,
    /// Classes, the background included.
    pub classes: usize,
    /// Numbers from one region's logits to the next one's.
    pub logit_stride: usize,
    /// The same for the corrections.
    pub delta_stride: usize,
    /// Labels that are wanted.
    pub label_count: usize,
}

/// The box and the score of each wanted label for each region: `[regions, labels, 5]`.
pub fn score_regions(on: &impl Launch, from: RegionScores, y: Ptr, count: usize, resized: [usize; 2]) -> Result<()> {
    let [height, width] = resized.map(|side| side as f32);
    let args = [
        from.logits.into(),
        from.logit_bias.into(),
        from.deltas.into(),
        from.delta_bias.into(),
        from.regions.into(),
        from.labels.into(),
        y.into(),
        from.classes.into(),
        from.logit_stride.into(),
        from.delta_stride.into(),
        from.label_count.into(),
        height.into(),
        width.into(),
        Arg::Long(count as i64),
    ];
    on.launch("score_regions", Grid::over(count * 32), &args)
}

/// How objects are chosen among scored regions.
#[derive(Clone, Copy, Debug)]
pub struct ObjectPlan {
    /// Pictures.
    pub batch: usize,
    /// Of each picture, at most [`MOST`].
    pub regions: usize,
    /// Labels that are wanted.
    pub labels: usize,
    /// Scores up to this one are none.
    pub threshold: f32,
    /// Boxes with a shorter side go.
    pub min_side: f32,
    /// Overlap from which one of two of a label goes.
    pub iou: f32,
    /// Objects that are told at most.
    pub limit: usize,
}

impl ObjectPlan {
    fn scratch(&self) -> (Lists, usize) {
        let mut end = 0;
        let lists = Lists::new(self.batch * self.labels, places(&mut end));
        (lists, end)
    }

    /// Bytes of memory that [`choose_objects`] needs beside its input and output.
    pub fn scratch_bytes(&self) -> usize {
        self.scratch().1
    }
}

/// The best boxes of each label of what [`score_regions`] wrote, best first; `counts` tells how many regions of each
/// picture there are, i32.
pub fn choose_objects(
    on: &impl Launch,
    plan: &ObjectPlan,
    [found, counts, scratch]: [Ptr; 3],
    objects: Merged,
) -> Result<()> {
    if plan.regions > MOST {
        bail!("objects among {} regions of a picture: the kernel takes {MOST}", plan.regions);
    }
    let (lists, _) = plan.scratch();
    let args = [
        found.into(),
        counts.into(),
        scratch.offset(lists.boxes).into(),
        scratch.offset(lists.scores).into(),
        scratch.offset(lists.counts).into(),
        plan.regions.into(),
        MOST.into(),
        plan.threshold.into(),
        plan.min_side.into(),
    ];
    on.launch("rank_regions", Grid::blocks([plan.labels, plan.batch, 1], MOST as u32), &args)?;
    suppress(on, scratch, &lists, plan.batch * plan.labels, plan.iou)?;
    merge(on, scratch, &lists, [plan.batch, plan.labels, plan.limit], objects)
}
