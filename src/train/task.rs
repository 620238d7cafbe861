//! What is to be learnt: samples, a network, and what is wrong with what it says.

use std::path::Path;

use anyhow::Result;
use candle_core::Tensor;

use super::checkpoint;
use super::layers::Pass;
use super::params::Params;

/// One network's training. The layers hold the places of their parameters; the numbers come with the [`Pass`].
pub trait Task: Send + Sync + 'static {
    /// What the network is shown, and what is true of it.
    type Sample: Send + Sync + 'static;

    /// A handful of samples that are cheap to make together: those of a scene. The same for the same number, on any
    /// thread; there is no last one.
    fn block(&self, number: u64) -> Result<Vec<Self::Sample>>;

    /// What is wrong with the network's answers, as a mean over the batch, with gradients where the pass trains.
    fn loss(&self, pass: &Pass, batch: &[&Self::Sample]) -> Result<Loss>;

    /// Errors in the units that people read, as (name, sum, count) over the batch, of the network that does not train.
    fn errors(&self, pass: &Pass, batch: &[&Self::Sample]) -> Result<Vec<(&'static str, f64, usize)>>;

    /// What whoever reads the weights must know besides: the text of the JSON file beside a checkpoint.
    fn config_json(&self) -> String;

    /// Writes the file that the inference networks read.
    fn save_weights(&self, params: &Params, path: &Path) -> Result<()> {
        checkpoint::save_weights(params, &self.config_json(), path)
    }
}

/// A loss and what it is made of.
pub struct Loss {
    /// Scalar.
    pub total: Tensor,
    /// Names and values of its parts, for the curves: scalars.
    pub parts: Vec<(&'static str, Tensor)>,
}
