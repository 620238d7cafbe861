//! What is trained, in safetensors: the weights alone for the inference networks, or with the optimiser's state, so
//! that training goes on as if it had never stopped. A file is there whole or not at all.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use candle_core::Device;
use safetensors::Dtype;
use safetensors::tensor::TensorView;

use super::optimizer::Adam;
use super::params::Params;
use crate::nets::convert::Partial;
use crate::nets::weights::WeightFile;

/// Adam's means, flat.
const MEAN: &str = "optimizer.mean";
/// Adam's means of squares, flat.
const SQUARE: &str = "optimizer.square";
/// Adam's steps, then the samples that were seen.
const PROGRESS: &str = "optimizer.progress";

/// Key of the file's metadata under which stands what the tensors do not say, in the words of the JSON file beside a
/// checkpoint.
pub const CONFIG: &str = "lixelscope";

/// Writes the weights, under the names that the inference networks read, and what else these want to know.
pub fn save_weights(params: &Params, config_json: &str, path: &Path) -> Result<()> {
    let values = params.values();
    write(weight_views(params, &values)?, Some(config_json), path)
}

/// Writes the weights and all that training needs to go on. `samples` is what it has seen, for the data's order.
pub fn save(params: &Params, adam: &Adam, samples: u64, path: &Path) -> Result<()> {
    let values = params.values();
    let mut views = weight_views(params, &values)?;
    let progress = [adam.steps, samples].map(u64::to_le_bytes);
    for (name, state) in [(MEAN, &adam.mean), (SQUARE, &adam.square)] {
        views.push((name, TensorView::new(Dtype::F32, vec![state.len()], bytemuck::cast_slice(state))?));
    }
    views.push((PROGRESS, TensorView::new(Dtype::U64, vec![2], progress.as_flattened())?));
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
        safetensors::serialize_to_file(views, Some(metadata), partial.path())?;
        std::fs::File::open(partial.path())?.sync_all()?;
        partial.finish(path)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

/// Reads what [`save`] wrote: the weights into `params`; gives the optimiser and the samples that were seen.
pub fn resume(params: &Params, path: &Path) -> Result<(Adam, u64)> {
    let file = WeightFile::open(path)?;
    let read = || {
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
    read().with_context(|| format!("{} is no checkpoint of this training", path.display()))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use candle_core::Tensor;

    use super::*;
    use crate::nets::NetSizes;
    use crate::train::i2l::I2l;
    use crate::train::layers::Pass;

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
        let sizes = NetSizes::new(18, 64, 16)?;
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("checkpoint.safetensors");
        let build = |seed| {
            let (params, network) = Params::build(seed, |b| I2l::new(&sizes, 4, 20, b));
            (Arc::new(params), network)
        };

        let ((params, network), mut samples) = (build(1), 0);
        let mut adam = Adam::new(&params);
        train(&network, &params, &mut adam, &mut samples, 2)?;
        save(&params, &adam, samples, &path)?;
        train(&network, &params, &mut adam, &mut samples, 2)?;

        let (again, network) = build(2);
        let (mut resumed, mut resumed_samples) = resume(&again, &path)?;
        assert_eq!((resumed.steps(), resumed_samples), (2, 4));
        train(&network, &again, &mut resumed, &mut resumed_samples, 2)?;
        let bits = |params: &Params| params.values().iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert!(bits(&params) == bits(&again), "other weights");
        assert!(adam == resumed, "another optimiser");
        assert_eq!(std::fs::read_dir(folder.path())?.count(), 1, "nothing else is left behind");
        Ok(())
    }

    #[test]
    fn another_networks_checkpoint_is_refused_and_changes_nothing() -> Result<()> {
        use crate::train::params::Start;
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("checkpoint.safetensors");
        let (small, _) = Params::build(1, |b| b.add("a", &[3], Start::Normal(1.0)));
        save(&small, &Adam::new(&small), 0, &path)?;
        let (other, _) = Params::build(2, |b| b.add("a", &[4], Start::Normal(1.0)));
        let (named, _) = Params::build(2, |b| b.add("b", &[3], Start::Normal(1.0)));
        for params in [other, named] {
            let before = params.values().clone();
            let error = format!("{:#}", resume(&params, &path).unwrap_err());
            assert!(error.contains("checkpoint.safetensors is no checkpoint of this training"), "{error}");
            assert_eq!(*params.values(), before);
        }
        // Weights alone do not say where training was.
        save_weights(&small, "{}", &path)?;
        assert!(resume(&small, &path).is_err());
        Ok(())
    }
}
