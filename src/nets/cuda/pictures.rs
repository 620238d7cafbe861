//! The launches of the kernels that read frames (`pictures.cu`): patches, and whole frames in a detector's size.

use candle_core::Result;

use super::kernels::{Arg, Grid, Launch, MapDims, Ptr, Scaling, long};
use crate::detect::letterbox::{GREY, Letterbox};

/// Patches out of an RGB frame `[width, height]`; `frame_from_crop` has six f32 for each.
pub fn crop(
    on: &impl Launch,
    frame: Ptr,
    size: [usize; 2],
    frame_from_crop: Ptr,
    y: Ptr,
    dims: MapDims,
    scaling: Scaling,
) -> Result<()> {
    let count = dims.pixels();
    let mut args = vec![
        frame.into(),
        size[0].into(),
        size[1].into(),
        frame_from_crop.into(),
        y.into(),
        dims.width.into(),
        dims.padded().into(),
        long(count),
    ];
    args.extend(scaling.args());
    on.launch("crop", Grid::over(count), &args)
}

/// An RGB frame `[width, height]` resized to the top left `resized` (`[height, width]`) of one image of a map.
pub fn resize(
    on: &impl Launch,
    frame: Ptr,
    size: [usize; 2],
    resized: [usize; 2],
    y: Ptr,
    dims: MapDims,
    scaling: Scaling,
) -> Result<()> {
    let count = dims.height * dims.width;
    let mut args = vec![
        frame.into(),
        size[0].into(),
        size[1].into(),
        y.into(),
        resized[1].into(),
        resized[0].into(),
        dims.width.into(),
        dims.padded().into(),
        long(count),
    ];
    args.extend(scaling.args());
    on.launch("resize", Grid::over(count), &args)
}

/// The frame's pixels that each pixel of a [`Letterbox`]'s canvas is a mean of, as [`letterbox`] reads them.
#[derive(Clone, Debug, PartialEq)]
pub struct LetterboxTaps {
    /// For each column, then for each row: the first pixel, and where its weights begin; at the end where all end.
    pub places: Vec<i32>,
    /// The weights of all.
    pub weights: Vec<f32>,
}

impl LetterboxTaps {
    /// For frames `[width, height]`.
    pub fn new(letterbox: &Letterbox, frame_size: [u32; 2]) -> Self {
        let (mut places, mut weights) = (Vec::new(), Vec::new());
        for (first, span) in letterbox.spans(frame_size) {
            places.extend([first as i32, weights.len() as i32]);
            weights.extend(span);
        }
        places.extend([0, weights.len() as i32]);
        Self { places, weights }
    }
}

/// An RGB frame of this width on a canvas `dims` of one image; `places` and `weights` are those of [`LetterboxTaps`].
pub fn letterbox(
    on: &impl Launch,
    frame: Ptr,
    width: usize,
    [places, weights]: [Ptr; 2],
    y: Ptr,
    dims: MapDims,
    scaling: Scaling,
) -> Result<()> {
    let count = dims.height * dims.width;
    let mut args = vec![
        frame.into(),
        width.into(),
        places.into(),
        weights.into(),
        y.into(),
        dims.width.into(),
        dims.padded().into(),
        Arg::Float(f32::from(GREY)),
        long(count),
    ];
    args.extend(scaling.args());
    on.launch("letterbox", Grid::over(count), &args)
}
