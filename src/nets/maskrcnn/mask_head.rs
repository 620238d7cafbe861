//! The mask head: which pixels of a box belong to the object.

use anyhow::{Result, ensure};
use candle_core::{Result as CandleResult, Tensor};
use candle_nn::VarBuilder;

use super::fpn::CHANNELS;
use super::rpn::sigmoid;
use super::transform::axis_taps;
use super::{Corners, host};
use crate::detect::Mask;
use crate::nets::layers::{Activation, Conv2d, ConvShape, Features, Values};

/// Side of the maps that the head reads.
pub const ROI_SIDE: usize = 14;
/// Side of the masks that it makes.
pub const MASK_SIDE: usize = 2 * ROI_SIDE;

/// `roi_heads.mask_head` and `roi_heads.mask_predictor`.
pub struct MaskHead {
    convs: Vec<Conv2d>,
    /// The transposed convolution with kernel 2 and stride 2: each pixel becomes a square of four on its own, so it
    /// is a 1x1 convolution to 4 * 256 channels, output pixel first.
    enlarge: Conv2d,
    logits: Tensor,      // [classes, 256]
    logits_bias: Tensor, // [classes]
}

impl MaskHead {
    /// Reads `mask_head` and `mask_predictor` of `vb`.
    pub fn load(classes: usize, vb: &VarBuilder) -> CandleResult<Self> {
        let predictor = vb.pp("mask_predictor");
        let (enlarge, logits) = (predictor.pp("conv5_mask"), predictor.pp("mask_fcn_logits"));
        let shape = ConvShape::same(CHANNELS, CHANNELS, 3);
        // [I, O, 2, 2] -> [2 * 2 * O, I, 1, 1]
        let weight = enlarge.get((CHANNELS, CHANNELS, 2, 2), "weight")?.permute((2, 3, 1, 0))?;
        let weight = weight.reshape((4 * CHANNELS, CHANNELS, 1, 1))?;
        let bias = Tensor::cat(&[&enlarge.get(CHANNELS, "bias")?; 4], 0)?;
        let four = ConvShape::same(CHANNELS, 4 * CHANNELS, 1);
        Ok(Self {
            convs: (0..4)
                .map(|i| Conv2d::load(shape, true, None, Activation::Relu, &vb.pp(format!("mask_head.{i}.0"))))
                .collect::<CandleResult<_>>()?,
            enlarge: Conv2d::new(four, weight, Some(bias), None, Activation::Relu)?,
            logits: logits.get((classes, CHANNELS, 1, 1), "weight")?.flatten_from(1)?,
            logits_bias: logits.get(classes, "bias")?,
        })
    }

    /// `[N, 256, 14, 14]` and the class of each region to N masks of 28 x 28 probabilities.
    pub fn forward(&self, regions: impl Into<Values>, labels: &[u32]) -> Result<Vec<Vec<f32>>> {
        self.forward_features(Features::new(regions)?, labels)
    }

    /// The same within a chain of layers.
    pub fn forward_features(&self, regions: Features, labels: &[u32]) -> Result<Vec<Vec<f32>>> {
        let mut x = regions;
        for conv in &self.convs {
            x = conv.run(&x, None)?;
        }
        let x = self.enlarge.run(&x, None)?.to_tensor()?; // [N, (dy dx C), 14, 14]
        let (n, _, h, w) = x.dims4()?;
        ensure!(n == labels.len() && (h, w) == (ROI_SIDE, ROI_SIDE), "the mask head was given regions of {h}x{w}");
        // Each region needs the map of its own class only: [N, 4, 1, C] * [N, 4, C, 196]
        let labels = Tensor::new(labels, x.device())?;
        let weight = self.logits.index_select(&labels, 0)?.reshape((n, 1, 1, CHANNELS))?;
        let weight = weight.broadcast_as((n, 4, 1, CHANNELS))?.contiguous()?;
        let bias = self.logits_bias.index_select(&labels, 0)?.reshape((n, 1, 1, 1))?;
        let x = weight.matmul(&x.reshape((n, 4, CHANNELS, h * w))?)?.broadcast_add(&bias)?;
        // [N, dy, dx, y, x] -> [N, y, dy, x, dx]
        let x = x.reshape((n, 2, 2, h, w))?.permute((0, 3, 1, 4, 2))?.contiguous()?;
        let values = host(&x)?;
        let masks = values.chunks_exact(MASK_SIDE * MASK_SIDE);
        Ok(masks.map(|mask| mask.iter().map(|&logit| sigmoid(logit)).collect()).collect())
    }
}

/// Lays a mask of `MASK_SIDE` squared probabilities over its box in a picture of `[height, width]`: grown by one
/// mask pixel of zeros at each side, resized to whole pixels, cut at one half.
pub fn paste(mask: &[f32], corners: Corners, [height, width]: [usize; 2]) -> Mask {
    const PADDED: usize = MASK_SIDE + 2;
    let growth = PADDED as f32 / MASK_SIDE as f32;
    let grown = |low: f32, high: f32| {
        let (half, centre) = ((high - low) * 0.5 * growth, (high + low) * 0.5);
        // Toward zero, both of them.
        ((centre - half) as i64, (centre + half) as i64)
    };
    let [x0, y0, x1, y1] = corners;
    let (x, y) = (grown(x0, x1), grown(y0, y1));
    let visible = |(low, high): (i64, i64), size: usize| (low.max(0), (high + 1).min(size as i64));
    let (columns, rows) = (visible(x, width), visible(y, height));
    if columns.0 >= columns.1 || rows.0 >= rows.1 {
        return Mask::default();
    }
    let taps = |(low, high): (i64, i64), visible: (i64, i64)| {
        let all = axis_taps(PADDED, (high - low + 1).max(1) as usize);
        all[(visible.0 - low) as usize..(visible.1 - low) as usize].to_vec()
    };
    // The border of zeros is not stored.
    let at = |row: usize, column: usize| {
        let inside = (1..=MASK_SIDE).contains(&row) && (1..=MASK_SIDE).contains(&column);
        if inside { mask[(row - 1) * MASK_SIDE + column - 1] } else { 0.0 }
    };
    let columns_taps = taps(x, columns);
    let mut bits = Vec::with_capacity(((columns.1 - columns.0) * (rows.1 - rows.0)) as usize);
    for v in taps(y, rows) {
        bits.extend(columns_taps.iter().map(|u| {
            let line = |row| u.mix(at(row as usize, u.low as usize), at(row as usize, u.high as usize));
            v.mix(line(v.low), line(v.high)) > 0.5
        }));
    }
    Mask {
        x: columns.0 as u32,
        y: rows.0 as u32,
        width: (columns.1 - columns.0) as u32,
        height: (rows.1 - rows.0) as u32,
        bits,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_mask_covers_its_box() {
        let full = vec![1.0; MASK_SIDE * MASK_SIDE];
        let mask = paste(&full, [20.0, 30.0, 76.0, 142.0], [200, 100]);
        // Half of the way into the border of zeros: within a pixel of the box at every side.
        let inside = |x: f32, y: f32, by: f32| x > 20.0 - by && x < 76.0 + by && y > 30.0 - by && y < 142.0 + by;
        for y in 0..200 {
            for x in 0..100 {
                let set = mask.contains(x, y);
                let (cx, cy) = (x as f32 + 0.5, y as f32 + 0.5);
                assert!(set || !inside(cx, cy, -3.0), "{x},{y} belongs to it");
                assert!(!set || inside(cx, cy, 3.0), "{x},{y} does not");
            }
        }
    }

    #[test]
    fn a_half_mask_covers_its_half() {
        let left: Vec<f32> = (0..MASK_SIDE * MASK_SIDE).map(|i| f32::from(u8::from(i % 28 < 14))).collect();
        let mask = paste(&left, [0.0, 0.0, 56.0, 56.0], [64, 64]);
        assert!(mask.contains(20, 30) && !mask.contains(36, 30));
        let count = mask.pixel_count() as f32;
        assert!((count / (28.0 * 56.0) - 1.0).abs() < 0.08, "{count}");
    }

    #[test]
    fn a_mask_is_cut_at_the_frame() {
        let full = vec![1.0; MASK_SIDE * MASK_SIDE];
        let mask = paste(&full, [-50.0, -50.0, 10.0, 10.0], [64, 64]);
        assert_eq!((mask.x, mask.y), (0, 0));
        assert!(mask.contains(5, 5) && !mask.contains(20, 20));
        assert_eq!(paste(&full, [200.0, 0.0, 210.0, 10.0], [64, 64]), Mask::default());
        assert_eq!(paste(&full, [3.0, 3.0, 3.0, 3.0], [64, 64]).bits.len(), 1);
    }
}
