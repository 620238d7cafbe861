//! The light detector on an NVIDIA GPU: from the frame's bytes to what the cells say, as one graph for each size of the
//! frames. The few cells that say "somebody" become boxes on the processor.

use std::sync::Arc;

use candle_core::{Device, Result as CandleResult, bail};
use image::RgbImage;

use super::{OUTPUTS, PersonDetector, SCALING};
use crate::detect::letterbox::Letterbox;
use crate::nets::Lap;
use crate::nets::cuda::kernels::{MapDims, map_to_planar};
use crate::nets::cuda::pictures::{LetterboxTaps, letterbox};
use crate::nets::cuda::{Buffer, DeviceMap, Gpu, Graphs};
use crate::nets::layers::Features;

/// The graphs of a detector.
pub struct OnDevice(Graphs<Shape, Input, Said>);

/// What a graph is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Shape {
    /// `[width, height]` of the frame.
    frame: [u32; 2],
    /// The longer side of the canvas.
    longest_side: usize,
}

/// What a graph reads.
struct Input {
    frame: Buffer,
    /// See [`LetterboxTaps`].
    places: Buffer,
    weights: Buffer,
}

/// What it makes.
struct Said {
    /// `[5, rows, columns]` f32.
    cells: Buffer,
    /// Columns, rows.
    grid: [usize; 2],
}

impl OnDevice {
    /// `None` where the device is not one of `nets::cuda`.
    pub fn new(device: &Device) -> Option<Self> {
        Gpu::of(device).map(|gpu| Self(Graphs::new(gpu)))
    }

    /// What the cells say of a frame, `[5, rows, columns]`, fetched, and the columns and rows.
    pub fn forward(
        &self,
        net: &PersonDetector,
        frame: &RgbImage,
        canvas: &Letterbox,
        lap: &mut Lap<'_>,
    ) -> CandleResult<(Vec<f32>, [usize; 2])> {
        let shape = Shape { frame: frame.dimensions().into(), longest_side: net.config.longest_side };
        let prepare = |gpu: &Arc<Gpu>| {
            let written = |bytes: &[u8]| {
                let buffer = gpu.take(bytes.len())?;
                gpu.write(buffer.at(), bytes).map(|()| buffer)
            };
            let LetterboxTaps { places, weights } = LetterboxTaps::new(canvas, shape.frame);
            Ok(Input {
                frame: gpu.take(frame.as_raw().len())?,
                places: written(bytemuck::cast_slice(&places))?,
                weights: written(bytemuck::cast_slice(&weights))?,
            })
        };
        let fill = |gpu: &Arc<Gpu>, input: &Input| gpu.write(input.frame.at(), frame.as_raw());
        let body = |input: &Input, lap: &mut Lap<'_>| self.body(net, input, shape.frame, canvas.size, lap);
        let take = |said: &Said, _: &_| {
            let [columns, rows] = said.grid;
            Ok((self.0.gpu().read(said.cells.at(), OUTPUTS * rows * columns)?, said.grid))
        };
        self.0.run(shape, prepare, fill, body, take, lap)
    }

    /// From the frame's bytes to what the cells say.
    fn body(
        &self,
        net: &PersonDetector,
        input: &Input,
        frame: [u32; 2],
        [width, height]: [usize; 2],
        lap: &mut Lap<'_>,
    ) -> CandleResult<Said> {
        let gpu = self.0.gpu();
        let picture = DeviceMap::new(gpu, MapDims { batch: 1, height, width, channels: 3 })?;
        let taps = [input.places.at(), input.weights.at()];
        letterbox(&**gpu, input.frame.at(), frame[0] as usize, taps, picture.at(), picture.dims, SCALING)?;
        lap("transform")?;
        let said = net.cells(&Features::Device(picture))?.to_device(gpu)?;
        let MapDims { height: rows, width: columns, channels, .. } = said.dims;
        if channels != OUTPUTS {
            bail!("a cell says {channels} numbers, not {OUTPUTS}");
        }
        let cells = gpu.take(OUTPUTS * rows * columns * size_of::<f32>())?;
        map_to_planar(&**gpu, said.at(), cells.at(), said.dims)?;
        lap("forward")?;
        Ok(Said { cells, grid: [columns, rows] })
    }
}
