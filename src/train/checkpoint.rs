//! What is trained, in safetensors: the weights alone for the inference networks, or with the optimiser's state, so
//! that training goes on as if it had never stopped. A file is there whole or not at all.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use candle_core::Device;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde::{Deserialize, Serialize};

use super::optimizer::Adam;
use super::params::Params;
use crate::nets::convert::Partial;
use crate::nets::weights::{CONFIG, WeightFile};

/// Adam's means, flat.
const MEAN: &str = "optimizer.mean";
/// Adam's means of squares, flat.
const SQUARE: &str = "optimizer.square";
/// Adam's steps, then the samples that were seen.
const PROGRESS: &str = "optimizer.progress";
/// The [`Terms`], JSON.
const TERMS: &str = "optimizer.terms";

/// What a training that goes on must have in common with the one that was interrupted: else it would be neither.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// What the task says of its network.
    pub network: String,
    /// What the task learns; empty in our first checkpoints.
    #[serde(default)]
    pub learns: String,
    /// Samples of a step.
    pub batch: usize,
    /// What the order of the samples follows from.
    pub seed: u64,
}

impl Terms {
    /// Refuses others, in a sentence that says which.
    fn ensure_same(&self, then: &Self) -> Result<()> {
        let Self { network, learns, batch, seed } = self;
        ensure!(*network == then.network, "the network was {}, and now it is {network}", then.network);
        let is_same = *learns == then.learns || then.learns.is_empty();
        ensure!(is_same, "what it learnt was {}, and now it is {learns}", then.learns);
        ensure!(*batch == then.batch, "a step had {} samples: --batch {}, not {batch}", then.batch, then.batch);
        ensure!(*seed == then.seed, "the samples came from --seed {}, not {seed}", then.seed);
        Ok(())
    }
}

/// Writes the weights, under the names that the inference networks read, and what else these want to know.
pub fn save_weights(params: &Params, config_json: &str, path: &Path) -> Result<()> {
    let values = params.values();
    write(weight_views(params, &values)?, Some(config_json), path)
}

/// Writes weights together with those of other stages, which lie in `others`.
pub fn save_merged(others: &WeightFile, params: &Params, config_json: &str, path: &Path) -> Result<()> {
    let values = params.values();
    let mut views = weight_views(params, &values)?;
    let own: std::collections::HashSet<&str> = params.names().map(|(name, _)| name).collect();
    let other_data = others.names().filter(|name| !own.contains(name)).map(|name| Ok((name, others.data(name)?)));
    let other_data = other_data.collect::<Result<Vec<_>>>()?;
    for (name, data) in &other_data {
        let (Some(dtype), Some(shape)) = (others.dtype(name), others.shape(name)) else { continue };
        views.push((name, TensorView::new(dtype, shape.to_vec(), data)?));
    }
    write(views, Some(config_json), path)
}

/// Writes the weights and all that training needs to go on. `samples` is what it has seen, for the data's order.
pub fn save(params: &Params, adam: &Adam, samples: u64, terms: &Terms, path: &Path) -> Result<()> {
    let values = params.values();
    ensure!(values.iter().all(|value| value.is_finite()), "the weights are no numbers any more; they are not saved");
    let mut views = weight_views(params, &values)?;
    let progress = [adam.steps, samples].map(u64::to_le_bytes);
    for (name, state) in [(MEAN, &adam.mean), (SQUARE, &adam.square)] {
        views.push((name, TensorView::new(Dtype::F32, vec![state.len()], bytemuck::cast_slice(state))?));
    }
    views.push((PROGRESS, TensorView::new(Dtype::U64, vec![2], progress.as_flattened())?));
    let terms = serde_json::to_vec(terms)?;
    views.push((TERMS, TensorView::new(Dtype::U8, vec![terms.len()], &terms)?));
    write(views, None, path)
}

fn weight_views<'a>(params: &'a Params, values: &'a [f32]) -> Result<Vec<(&'a str, TensorView<'a>)>> {
    let mut rest = values;
    let view = |(name, shape): (&'a str, &[usize])| {
        let (tensor, after) = rest.split_at(shape.iter().product());
        rest = after;
        Ok((name, TensorView::new(Dtype::F32, shape.to_vec(), bytemuck::cast_slice(tensor))?))
    };
    params.names().map(view).collect()
}

fn write(views: Vec<(&str, TensorView)>, config_json: Option<&str>, path: &Path) -> Result<()> {
    let write = || {
        let partial = Partial::beside(path)?;
        let config = config_json.map(|json| (CONFIG.to_owned(), json.to_owned()));
        let metadata: HashMap<_, _> = config.into_iter().chain([("format".to_owned(), "pt".to_owned())]).collect();
        // Who may read new files is the user's to say; the library's are for their owner alone.
        let usual = std::fs::File::create(partial.path())?.metadata()?.permissions();
        safetensors::serialize_to_file(views, Some(metadata), partial.path())?;
        std::fs::set_permissions(partial.path(), usual)?;
        std::fs::File::open(partial.path())?.sync_all()?;
        partial.finish(path)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

/// Reads what [`save`] wrote: the weights into `params`; gives the optimiser and the samples that were seen. A file
/// without terms is one of our first ones, and is believed to be the right one.
pub fn resume(params: &Params, terms: &Terms, path: &Path) -> Result<(Adam, u64)> {
    let file = WeightFile::open(path)?;
    let read = || {
        if file.shape(TERMS).is_some() {
            let then = serde_json::from_slice(&file.data(TERMS)?).with_context(|| format!("reading {TERMS}"))?;
            terms.ensure_same(&then)?;
        }
        let state = |name| {
            let data = file.data(name)?;
            ensure!(file.dtype(name) == Some(Dtype::F32), "{name} is not f32");
            ensure!(data.len() == params.values().len() * 4, "{name} belongs to another network");
            Ok(data.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect())
        };
        let (mean, square) = (state(MEAN)?, state(SQUARE)?);
        let progress = file.data(PROGRESS)?;
        let [steps, samples] = *progress.as_chunks().0 else { bail!("{PROGRESS} is not two numbers") };
        params.read(|name| file.tensor(name, &Device::Cpu))?;
        Ok((Adam { mean, square, steps: u64::from_le_bytes(steps) }, u64::from_le_bytes(samples)))
    };
    read().with_context(|| {
        format!("{} is no checkpoint of this training; go on with that one, or train in another folder", path.display())
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use candle_core::Tensor;

    use super::*;
    use crate::nets::NetSizes;
    use crate::train::i2l::I2l;
    use crate::train::layers::Pass;

    fn terms() -> Terms {
        Terms { network: "{}".to_owned(), learns: "people".to_owned(), batch: 2, seed: 7 }
    }

    /// Some steps on made-up data whose order the count of samples decides.
    fn train(network: &I2l, params: &Arc<Params>, adam: &mut Adam, samples: &mut u64, steps: usize) -> Result<()> {
        let pass = Pass { params: params.clone(), is_training: true };
        for _ in 0..steps {
            let pixels = (0..2 * 3 * 64 * 64).map(|i| ((i * 7919 + *samples as usize * 31) % 256) as f32).collect();
            let out = network.forward(&pass, &Tensor::from_vec::<_, f32>(pixels, (2, 3, 64, 64), &Device::Cpu)?)?;
            let loss = ((out.vertices.coords - 5.0)?.abs()?.mean_all()? + out.joints.coords.mean_all()?)?;
            params.backward(&loss)?;
            adam.step(params, 1e-3);
            *samples += 2;
        }
        Ok(())
    }

    #[test]
    fn training_that_was_interrupted_ends_with_the_same_bits() -> Result<()> {
        let sizes = NetSizes::new(18, 64, 16)?.with_widths(16, 16);
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("checkpoint.safetensors");
        let build = |seed| {
            let (params, network) = Params::build(seed, |b| I2l::new(&sizes, 4, 20, b));
            (Arc::new(params), network)
        };

        let ((params, network), mut samples) = (build(1), 0);
        let mut adam = Adam::new(&params);
        train(&network, &params, &mut adam, &mut samples, 2)?;
        save(&params, &adam, samples, &terms(), &path)?;
        train(&network, &params, &mut adam, &mut samples, 2)?;

        let (again, network) = build(2);
        let (mut resumed, mut resumed_samples) = resume(&again, &terms(), &path)?;
        assert_eq!((resumed.steps(), resumed_samples), (2, 4));
        train(&network, &again, &mut resumed, &mut resumed_samples, 2)?;
        let bits = |params: &Params| params.values().iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert!(bits(&params) == bits(&again), "other weights");
        assert!(adam == resumed, "another optimiser");
        assert_eq!(std::fs::read_dir(folder.path())?.count(), 1, "nothing else is left behind");
        Ok(())
    }

    #[test]
    fn weights_that_are_no_numbers_do_not_take_the_place_of_good_ones() -> Result<()> {
        use crate::train::params::Start;
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("checkpoint.safetensors");
        let (params, _) = Params::build(1, |b| b.add("a", &[3], Start::Normal(1.0)));
        let adam = Adam::new(&params);
        save(&params, &adam, 5, &terms(), &path)?;
        params.values_mut()[1] = f32::NAN;
        assert!(save(&params, &adam, 6, &terms(), &path).is_err());
        assert_eq!(resume(&params, &terms(), &path)?.1, 5);
        Ok(())
    }

    #[test]
    fn another_networks_checkpoint_is_refused_and_changes_nothing() -> Result<()> {
        use crate::train::params::Start;
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("checkpoint.safetensors");
        let (small, _) = Params::build(1, |b| b.add("a", &[3], Start::Normal(1.0)));
        save(&small, &Adam::new(&small), 0, &terms(), &path)?;
        let (other, _) = Params::build(2, |b| b.add("a", &[4], Start::Normal(1.0)));
        let (named, _) = Params::build(2, |b| b.add("b", &[3], Start::Normal(1.0)));
        for params in [other, named] {
            let before = params.values().clone();
            let error = format!("{:#}", resume(&params, &terms(), &path).unwrap_err());
            assert!(error.contains("checkpoint.safetensors is no checkpoint of this training"), "{error}");
            assert_eq!(*params.values(), before);
        }
        // The same network, and other samples.
        save(&small, &Adam::new(&small), 0, &terms(), &path)?;
        for (other, expected) in [
            (Terms { batch: 4, ..terms() }, "--batch 2, not 4"),
            (Terms { seed: 8, ..terms() }, "--seed 7, not 8"),
            (Terms { learns: "hands".to_owned(), ..terms() }, "what it learnt was people, and now it is hands"),
            (Terms { network: "[]".to_owned(), ..terms() }, "the network was {}, and now it is []"),
        ] {
            let error = format!("{:#}", resume(&small, &other, &path).unwrap_err());
            assert!(error.contains(expected) && error.contains("train in another folder"), "{error}");
        }
        assert!(resume(&small, &terms(), &path).is_ok());
        // Weights alone do not say where training was.
        save_weights(&small, "{}", &path)?;
        assert!(resume(&small, &terms(), &path).is_err());
        Ok(())
    }
}
