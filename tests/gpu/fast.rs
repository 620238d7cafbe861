//! Whether a network went the fast way, counted: graphs recorded and replayed, kernels launched, memory held, and
//! nothing that went candle's way, by its definition, or without a library that does it.

use anyhow::{Context, Result, ensure};
use candle_core::Device;
use lixelscope::nets::layers::plain_runs;
use lixelscope::nets::meter::{self, GraphUse};

/// Kernels of one run; what is not listed may run as often as it likes.
pub type Kernels = [(&'static str, usize)];

/// Ways that no network goes: convolutions and products by their definition, patches and features that come as tensors
/// of candle's.
const NEVER: [&str; 3] = ["direct_conv", "direct_product", "planar_to_map"];

/// What was counted before.
pub struct Watch {
    device: Device,
    what: String,
    plain: usize,
    graphs: GraphUse,
}

impl Watch {
    /// From now on.
    pub fn new(device: &Device, what: &str) -> Self {
        Self { device: device.clone(), what: what.into(), plain: plain_runs(), graphs: meter::graphs(device) }
    }

    /// There were so many runs with inputs of so many shapes (the first of each goes kernel by kernel), all others were
    /// graphs.
    pub fn assert_fast(&self, shapes: usize, runs: usize) -> Result<()> {
        let what = &self.what;
        let slow: Vec<_> = meter::ways(&self.device).into_iter().filter(|way| way.slow).map(|way| way.name).collect();
        ensure!(slow.is_empty(), "{what}: no library does {slow:?} with what follows");
        let plain = plain_runs() - self.plain;
        ensure!(plain == 0, "{what}: {plain} layers or reductions went candle's way");
        let graphs = meter::graphs(&self.device).since(self.graphs);
        let expected = GraphUse { recorded: shapes, failed: 0, replayed: runs - shapes, eager: shapes };
        ensure!(graphs == expected, "{what}: {graphs:?}, not {expected:?}");
        Ok(())
    }
}

/// One run, kernel by kernel, launches exactly these of the fused kernels, and none that stands for a detour. Its
/// shapes have been met before.
pub fn assert_kernels(device: &Device, what: &str, expected: &Kernels, run: impl FnOnce() -> Result<()>) -> Result<()> {
    meter::set_graphs(device, false);
    let times = meter::profile(device, run);
    meter::set_graphs(device, true);
    let times = times?;
    let count = |name: &str| times.iter().find(|time| time.name == name).map_or(0, |time| time.count);
    let never = NEVER.iter().filter(|name| !expected.iter().any(|(listed, _)| listed == *name));
    for &(name, times) in expected.iter().chain(&never.map(|&name| (name, 0)).collect::<Vec<_>>()) {
        ensure!(count(name) == times, "{what}: {name} ran {} times, not {times}", count(name));
    }
    Ok(())
}

/// Runs of shapes that were met before take no memory from the driver.
pub fn assert_steady(device: &Device, what: &str, mut run: impl FnMut() -> Result<()>) -> Result<()> {
    let held = || meter::held_bytes(device).context("the driver does not tell what it holds");
    (0..2).try_for_each(|_| run())?;
    let before = held()?;
    (0..6).try_for_each(|_| run())?;
    let after = held()?;
    ensure!(after == before, "{what}: the driver held {before} bytes, and {after} six frames later");
    Ok(())
}
