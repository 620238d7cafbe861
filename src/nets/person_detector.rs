//! A light one-stage detector of people: every cell of a grid says whether it lies in the middle of a person, and where
//! that person's box is. Anchor-free as FCOS (Tian et al., ICCV 2019); the score is the overlap that the box is
//! expected to have with the truth (quality focal loss: Li et al., NeurIPS 2020), so that the best of several boxes of
//! one person is the tightest.
//!
//! ```text
//! picture -> conv1 (1/2) -> conv2 (1/4) -> layer1 (1/8) -> layer2 (1/16) -> layer3 (1/32)
//!                                            |                 |                 |
//!                                         lateral1          lateral2             |
//!                                            v                 v                 |
//!                      output <- head <-----(+)<---- up2 -----(+)<---- up3 ------+
//! ```
//!
//! The residual stages are those of [`resnet`](super::resnet), narrow; what is coarse and knows the whole comes back to
//! what is fine by transposed convolutions. Trained by [`train::person_detector`](crate::train::person_detector) under
//! the same names.

#[cfg(feature = "cudnn")]
mod device;

use anyhow::{Context, Result, bail, ensure};
use candle_core::{Device, Result as CandleResult};
use candle_nn::VarBuilder;
use image::RgbImage;

use super::input::Normalisation;
use super::layers::{Activation, BN_EPS, Conv2d, ConvShape, Deconv2d, Features, FoldedNorm, Values};
use super::resnet::Block;
use super::{Lap, on_pool};
use crate::detect::PersonBox;
use crate::detect::letterbox::{Letterbox, MULTIPLE};
use crate::detect::nms::{Corners, nms, order_by_score};
use crate::memory::Buffer;

/// The two convolutions before the residual stages. Fine maps cost most, so little is done there.
pub const STEM: [ConvShape; 2] = [
    ConvShape { input: 3, output: 16, kernel: 3, stride: 2, padding: 1 },
    ConvShape { input: 16, output: 32, kernel: 3, stride: 2, padding: 1 },
];
/// Channels of `layer1` to `layer3`, each of half the sides of the one before.
pub const WIDTHS: [usize; 3] = [64, 96, 128];
/// Residual blocks of `layer1` to `layer3`.
pub const BLOCKS: [usize; 3] = [1, 2, 2];
/// What each cell says: the score's logit, x, y, width, height.
pub const OUTPUTS: usize = 5;
/// Side of a cell, in pixels of the input.
pub const STRIDE: usize = 8;

/// The logit of a cell that says 0: one cell in a hundred belongs to somebody.
pub const SCORE_PRIOR: f32 = -4.595;
/// Width and height that a cell means when it says 0, in pixels of the input: those of a person in the middle
/// distance.
pub const TYPICAL_PX: [f32; 2] = [32.0, 80.0];
/// Logarithms of sizes beyond these say nothing, and are cut off.
pub const LOG_SIZE: [f32; 2] = [-4.0, 3.0];

/// Boxes that are looked at more closely, best first; two hundred cells are in the middle of somebody when the picture
/// is full of people.
const CANDIDATES: usize = 300;

/// How it looks for people.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The longer side of a frame is resized to this, pixels. Time grows with its square; people become larger than
    /// those it has learnt if it is much more.
    pub longest_side: usize,
    /// Boxes up to this score are dropped.
    pub score_threshold: f32,
    /// Overlap from which the worse of two boxes goes.
    pub nms_iou: f32,
    /// At most so many boxes.
    pub max_detections: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { longest_side: 320, score_threshold: 0.05, nms_iou: 0.6, max_detections: 100 }
    }
}

/// How it reads grey levels.
const NORMALISATION: Normalisation = Normalisation { mean: [114.0; 3], deviation: [60.0; 3] };

/// Pictures of one size as the network reads them: `[B, 3, H, W]`, about -2 to 2.
pub fn input(pictures: &[&RgbImage], device: &Device) -> Result<Values> {
    let first = pictures.first().context("there is no picture to look at")?;
    let (width, height) = (first.width() as usize, first.height() as usize);
    ensure!(
        width.is_multiple_of(MULTIPLE) && height.is_multiple_of(MULTIPLE) && width * height > 0,
        "the detector reads pictures whose sides are multiples of {MULTIPLE}, not {width}x{height}"
    );
    ensure!(
        pictures.iter().all(|picture| picture.dimensions() == first.dimensions()),
        "pictures of one batch have one size"
    );
    let mut planes = Buffer::take(pictures.len() * 3 * height * width);
    for (planes, picture) in planes.chunks_exact_mut(3 * height * width).zip(pictures) {
        NORMALISATION.of_bytes(picture, planes);
    }
    Ok(Values::new(planes, (pictures.len(), 3, height, width)).to_device(device)?)
}

/// The normalisation of [`input`] for the GPU's kernels.
#[cfg(feature = "cudnn")]
const SCALING: super::cuda::kernels::Scaling =
    super::cuda::kernels::Scaling { gain: [1.0 / 60.0; 3], offset: [-114.0 / 60.0; 3] };

/// The middle of a cell, in pixels of the input from its top-left corner.
pub fn cell_centre([column, row]: [usize; 2]) -> [f32; 2] {
    [column, row].map(|at| (at as f32 + 0.5) * STRIDE as f32)
}

/// The box that a cell means: its centre lies x widths and y heights from the cell's, and its sides are the typical
/// ones times the exponentials of what it says.
pub fn corners(cell: [usize; 2], [x, y, width, height]: [f32; 4]) -> Corners {
    let [cx, cy] = cell_centre(cell);
    let side = |said: f32, typical: f32| said.clamp(LOG_SIZE[0], LOG_SIZE[1]).exp() * typical;
    let (w, h) = (side(width, TYPICAL_PX[0]), side(height, TYPICAL_PX[1]));
    [cx + w * (x - 0.5), cy + h * (y - 0.5), cx + w * (x + 0.5), cy + h * (y + 0.5)]
}

/// The network.
pub struct PersonDetector {
    /// What it was made with; it can be changed at any time.
    pub config: Config,
    stem: [Conv2d; 2],
    layers: [Vec<Block>; 3],
    up3: Deconv2d,
    lateral2: Conv2d,
    up2: Deconv2d,
    lateral1: Conv2d,
    head: Conv2d,
    output: Conv2d,
    device: Device,
    #[cfg(feature = "cudnn")]
    on_device: Option<device::OnDevice>,
}

/// A convolution with its norm and ReLU, at these names.
fn conv(shape: ConvShape, [conv, norm]: [&str; 2], vb: &VarBuilder) -> CandleResult<Conv2d> {
    let norm = FoldedNorm::load(shape.output, BN_EPS, &vb.pp(norm))?;
    Conv2d::load(shape, false, Some(norm), Activation::Relu, &vb.pp(conv))
}

impl PersonDetector {
    /// Reads the weights from the root of `vb`.
    pub fn load(config: Config, vb: &VarBuilder) -> Result<Self> {
        ensure!(config.longest_side > 0, "the detector's picture has no sides");
        let [c1, c2, c3] = WIDTHS;
        let layer = |stage: usize, input: usize| {
            let (vb, width) = (vb.pp(format!("layer{}", stage + 1)), WIDTHS[stage]);
            let first = Block::load(input, width, 2, false, BN_EPS, &vb.pp(0));
            let others = (1..BLOCKS[stage]).map(|i| Block::load(width, width, 1, false, BN_EPS, &vb.pp(i)));
            std::iter::once(first).chain(others).collect::<CandleResult<Vec<_>>>()
        };
        // Sides of the maps that the transposed convolutions read, for a picture of 4:3.
        let side = |stride: usize| (config.longest_side / stride) * 7 / 8;
        let lateral = |width, name: &str| conv(ConvShape::same(width, width, 1), ["0", "1"], &vb.pp(name));
        let up =
            |sizes, stride, name: &str| Deconv2d::load(sizes, side(stride), &vb.pp(name).pp(0), &vb.pp(name).pp(1));
        Ok(Self {
            stem: [conv(STEM[0], ["conv1", "bn1"], vb)?, conv(STEM[1], ["conv2", "bn2"], vb)?],
            layers: [layer(0, STEM[1].output)?, layer(1, c1)?, layer(2, c2)?],
            up3: up([c3, c2], 32, "up3")?,
            lateral2: lateral(c2, "lateral2")?,
            up2: up([c2, c1], 16, "up2")?,
            lateral1: lateral(c1, "lateral1")?,
            head: conv(ConvShape::same(c1, c1, 3), ["0", "1"], &vb.pp("head"))?,
            output: Conv2d::load(ConvShape::same(c1, OUTPUTS, 1), true, None, Activation::None, &vb.pp("output"))?,
            device: vb.device().clone(),
            #[cfg(feature = "cudnn")]
            on_device: device::OnDevice::new(vb.device()),
            config,
        })
    }

    /// What the cells say of pictures (see [`input`]): `[B, 5, H/8, W/8]`.
    pub fn forward(&self, pictures: impl Into<Values>) -> Result<Values> {
        let pictures = pictures.into();
        on_pool(&self.device, || Ok(self.forward_on_pool(&pictures)?))
    }

    fn forward_on_pool(&self, pictures: &Values) -> CandleResult<Values> {
        self.after_first(&self.stem[0].run_planes(pictures)?)?.to_values()
    }

    /// What the cells say of pictures on the GPU.
    #[cfg(feature = "cudnn")]
    fn cells(&self, pictures: &Features) -> CandleResult<Features> {
        self.after_first(&self.stem[0].run(pictures, None)?)
    }

    /// All layers but the first.
    fn after_first(&self, x: &Features) -> CandleResult<Features> {
        let x = self.stem[1].run(x, None)?;
        let stage = |blocks: &[Block], x: &Features| {
            let (first, others) = blocks.split_first().expect("every stage has a block");
            others.iter().try_fold(first.run(x)?, |x, block| block.run(&x))
        };
        let [layer1, layer2, layer3] = &self.layers;
        let x1 = stage(layer1, &x)?;
        let x2 = stage(layer2, &x1)?;
        let x3 = stage(layer3, &x2)?;
        let y2 = self.lateral2.run(&x2, Some(&self.up3.run(&x3)?))?;
        let y1 = self.lateral1.run(&x1, Some(&self.up2.run(&y2)?))?;
        let y = self.head.run(&y1, None)?;
        self.output.run(&y, None)
    }

    /// The people in a frame, best first.
    pub fn detect(&self, frame: &RgbImage) -> Result<Vec<PersonBox>> {
        self.detect_watched(frame, &mut |_| Ok(()))
    }

    /// The same; `lap` is told the end of each stage.
    pub fn detect_watched(&self, frame: &RgbImage, lap: &mut Lap<'_>) -> Result<Vec<PersonBox>> {
        let (width, height) = frame.dimensions();
        ensure!(width > 0 && height > 0, "a picture has no pixels ({width}x{height})");
        let letterbox = Letterbox::whole(width, height, self.config.longest_side);
        #[cfg(feature = "cudnn")]
        if let Some(on_device) = &self.on_device {
            let (said, grid) = on_device.forward(self, frame, &letterbox, lap)?;
            let people = self.in_frame(&said, grid, &letterbox, [width, height]);
            lap("boxes")?;
            return Ok(people);
        }
        let said = on_pool(&self.device, || -> Result<_> {
            let picture = self.picture(frame, &letterbox)?;
            lap("transform")?;
            Ok(self.forward_on_pool(&picture)?)
        })?;
        lap("forward")?;
        let &[_, _, rows, columns] = said.dims() else { bail!("cells of another shape: {:?}", said.dims()) };
        let people = self.in_frame(&said.fetch()?, [columns, rows], &letterbox, [width, height]);
        lap("boxes")?;
        Ok(people)
    }

    /// A frame as the network reads it.
    fn picture(&self, frame: &RgbImage, letterbox: &Letterbox) -> Result<Values> {
        if !self.device.is_cpu() {
            return input(&[&letterbox.picture(frame)], &self.device);
        }
        let [width, height] = letterbox.size;
        let mut canvas = Buffer::take(3 * width * height);
        letterbox.draw(frame, &mut canvas);
        let mut planes = Buffer::take(3 * width * height);
        NORMALISATION.of_bytes(&canvas, &mut planes);
        Ok(Values::new(planes, (1, 3, height, width)))
    }

    /// The boxes in the frame, from what the cells of its canvas say.
    fn in_frame(&self, said: &[f32], grid: [usize; 2], letterbox: &Letterbox, frame: [u32; 2]) -> Vec<PersonBox> {
        let people = people(said, grid, &self.config).into_iter();
        let one = |(corners, score)| Some(PersonBox { rect: letterbox.frame_from_canvas(corners, frame)?, score });
        people.filter_map(one).collect()
    }
}

/// Boxes on the canvas and their scores, best first, from what the cells say, `[5, rows, columns]`.
pub fn people(said: &[f32], [columns, rows]: [usize; 2], config: &Config) -> Vec<(Corners, f32)> {
    let cells = columns * rows;
    let score = |logit: f32| 1.0 / (1.0 + (-(logit + SCORE_PRIOR)).exp());
    // Not above the threshold is also what is not a number.
    let is_found = |(_, score): &(usize, f32)| *score > config.score_threshold;
    let scores = || said[..cells].iter().map(|logit| score(*logit)).enumerate().filter(is_found);
    let found: Buffer<usize> = scores().map(|(cell, _)| cell).collect();
    let scores: Buffer = scores().map(|(_, score)| score).collect();
    let mut order = order_by_score(&scores);
    order.truncate(CANDIDATES);
    let scores: Buffer = order.iter().map(|&i| scores[i]).collect();
    let boxes: Buffer<Corners> = order
        .iter()
        .map(|&i| {
            let cell = found[i];
            corners([cell % columns, cell / columns], [1, 2, 3, 4].map(|number| said[number * cells + cell]))
        })
        .collect();
    let kept = nms(&boxes, &scores, config.nms_iou);
    kept.iter().take(config.max_detections).map(|&i| (boxes[i], scores[i])).collect()
}

#[cfg(test)]
mod tests {
    use candle_core::DType;

    use super::*;

    #[test]
    fn a_cell_that_says_nothing_means_a_typical_person_around_itself() {
        assert_eq!(corners([4, 10], [0.0; 4]), [20.0, 44.0, 52.0, 124.0]);
        // Half a width to the right, twice as high.
        let moved = corners([4, 10], [0.5, 0.0, 0.0, 2_f32.ln()]);
        assert!(moved.iter().zip([36.0, 4.0, 68.0, 164.0]).all(|(a, b)| (a - b).abs() < 1e-4), "{moved:?}");
        // What is absurd stays finite.
        assert!(corners([0, 0], [0.0, 0.0, 1e9, f32::INFINITY]).iter().all(|edge| edge.is_finite()));
    }

    #[test]
    fn one_person_is_one_box_and_neighbours_stay() {
        let (columns, rows) = (32, 24);
        let cells = columns * rows;
        let mut said = vec![0.0; OUTPUTS * cells];
        let mut say = |[column, row]: [usize; 2], logit: f32| said[row * columns + column] = logit;
        say([10, 10], 8.0);
        say([11, 10], 6.0);
        say([16, 10], 7.0);
        say([3, 3], f32::NAN);
        // An eighth of the width to the left: back to 4 pixels beside the first.
        said[cells + 10 * columns + 11] = -0.125;
        let people = people(&said, [columns, rows], &Config::default());
        let middles: Vec<f32> = people.iter().map(|(c, _)| f32::midpoint(c[0], c[2])).collect();
        assert_eq!(middles, [84.0, 132.0], "{people:?}");
        assert!(people[0].1 > people[1].1 && people[1].1 > 0.9);
    }

    #[test]
    fn any_frame_has_boxes_within_itself() -> Result<()> {
        // Without weights every cell says that there may be somebody.
        let vb = VarBuilder::zeros(DType::F32, &Device::Cpu);
        let config = Config { score_threshold: 0.0, ..Config::default() };
        let network = PersonDetector::load(config, &vb)?;
        for (width, height) in [(640, 480), (480, 640), (333, 77), (1, 1), (2000, 5)] {
            let frame = RgbImage::from_fn(width, height, |x, y| image::Rgb([(x * 7) as u8, (y * 5) as u8, 99]));
            let people = network.detect(&frame)?;
            assert!(!people.is_empty() && people.len() <= 100, "{width}x{height}: {}", people.len());
            assert!(people.is_sorted_by(|a, b| a.score >= b.score));
            for PersonBox { rect, .. } in people {
                let inside = rect.x >= -0.5 && rect.y >= -0.5;
                let inside = inside && rect.max().x <= width as f32 - 0.5 && rect.max().y <= height as f32 - 0.5;
                assert!(inside && rect.is_valid(), "{rect:?} in {width}x{height}");
            }
        }
        assert!(network.detect(&RgbImage::new(0, 5)).is_err());
        Ok(())
    }

    #[test]
    fn pictures_that_do_not_fit_are_refused() {
        let device = Device::Cpu;
        assert!(input(&[], &device).is_err());
        assert!(input(&[&RgbImage::new(256, 100)], &device).is_err());
        assert!(input(&[&RgbImage::new(64, 64), &RgbImage::new(64, 32)], &device).is_err());
        let values = input(&[&RgbImage::from_pixel(32, 32, image::Rgb([114, 174, 54]))], &device).unwrap();
        let means = values.to_tensor().unwrap().mean((2, 3)).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(means, [[0.0, 1.0, -1.0]]);
    }
}
