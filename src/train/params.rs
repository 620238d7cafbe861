//! The parameters of a network that is trained: one flat array of values and one of gradients, so that an optimiser's
//! step is one pass over them. Each parameter has the name and the shape that it has in a checkpoint, which the
//! inference networks read; running statistics of batch norms lie among them and have no gradient.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};

use anyhow::{Context, Result, bail};
use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Result as CandleResult, Tensor, Var};

#[cfg(any(feature = "cudnn", test))]
use super::gpu::{Machine, Resident};

/// A parameter of a [`Params`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParamId(usize);

impl ParamId {
    /// Its number among all.
    #[cfg(any(feature = "cudnn", test))]
    pub(super) fn index(self) -> usize {
        self.0
    }
}

/// How a parameter begins.
#[derive(Clone, Copy, Debug)]
pub enum Start {
    /// The same number everywhere.
    Constant(f32),
    /// Normal with this standard deviation.
    Normal(f32),
    /// These numbers again and again.
    Repeated(&'static [f32]),
}

impl Start {
    /// For a layer with this fan-in that a ReLU follows (He et al. 2015).
    pub fn he(fan_in: usize) -> Self {
        Self::Normal((2.0 / fan_in as f32).sqrt())
    }
}

#[derive(Clone)]
struct Entry {
    name: String,
    shape: Vec<usize>,
    range: Range<usize>,
}

/// Collects parameters while a network is built. [`Self::pp`] prefixes names as `VarBuilder::pp` does.
pub struct ParamsBuilder<'a> {
    prefix: String,
    made: &'a mut Made,
}

/// What a builder has collected.
pub struct Made {
    entries: Vec<Entry>,
    values: Vec<f32>,
    random: Random,
}

impl ParamsBuilder<'_> {
    /// Names that begin with `name.` after what they begin with already.
    pub fn pp(&mut self, name: impl std::fmt::Display) -> ParamsBuilder<'_> {
        let prefix = if self.prefix.is_empty() { name.to_string() } else { format!("{}.{name}", self.prefix) };
        ParamsBuilder { prefix, made: self.made }
    }

    /// A new parameter.
    pub fn add(&mut self, name: &str, shape: &[usize], start: Start) -> ParamId {
        let Made { entries, values, random } = &mut *self.made;
        let range = values.len()..values.len() + shape.iter().product::<usize>();
        match start {
            Start::Constant(value) => values.resize(range.end, value),
            Start::Normal(deviation) => values.extend(range.clone().map(|_| random.normal() * deviation)),
            Start::Repeated(numbers) => values.extend(numbers.iter().cycle().take(range.len())),
        }
        let name = if self.prefix.is_empty() { name.to_owned() } else { format!("{}.{name}", self.prefix) };
        entries.push(Entry { name, shape: shape.to_vec(), range });
        ParamId(entries.len() - 1)
    }
}

/// See the module.
pub struct Params {
    entries: Vec<Entry>,
    values: RwLock<Vec<f32>>,
    gradients: RwLock<Vec<f32>>,
    /// Parameters that this step's graph holds as candle's variables.
    vars: Mutex<HashMap<usize, Var>>,
    /// Where the values and gradients are instead, of a network that learns on a GPU.
    #[cfg(any(feature = "cudnn", test))]
    resident: Option<Resident>,
}

/// In the names of parameters that follow the batches and have no gradient.
const RUNNING: &str = ".running_";

const UNPOISONED: &str = "nobody panics with the lock";

impl Params {
    /// Builds a network and its parameters; `seed` decides how they begin.
    pub fn build<T>(seed: u64, build: impl FnOnce(&mut ParamsBuilder) -> T) -> (Self, T) {
        let mut made = Made { entries: Vec::new(), values: Vec::new(), random: Random::new(seed) };
        let network = build(&mut ParamsBuilder { prefix: String::new(), made: &mut made });
        let gradients = RwLock::new(vec![0.0; made.values.len()]);
        let params = Self {
            entries: made.entries,
            values: RwLock::new(made.values),
            gradients,
            vars: Mutex::default(),
            #[cfg(any(feature = "cudnn", test))]
            resident: None,
        };
        (params, network)
    }

    /// The same parameters in memory of their own, for another thread.
    pub fn replica(&self) -> Self {
        let (values, gradients) = (self.values().clone(), vec![0.0; self.gradients().len()]);
        Self {
            entries: self.entries.clone(),
            values: RwLock::new(values),
            gradients: RwLock::new(gradients),
            vars: Mutex::default(),
            #[cfg(any(feature = "cudnn", test))]
            resident: None,
        }
    }

    /// The same parameters in the memory of a GPU; on the processor it has none.
    #[cfg(any(feature = "cudnn", test))]
    pub fn replica_on(&self, machine: Arc<dyn Machine>) -> CandleResult<Self> {
        let ranges = self.entries.iter().map(|entry| entry.range.clone());
        let resident = Some(Resident::new(machine, ranges, &self.values())?);
        let [values, gradients] = [RwLock::default(), RwLock::default()];
        Ok(Self { entries: self.entries.clone(), values, gradients, vars: Mutex::default(), resident })
    }

    /// The memory of parameters on a GPU.
    #[cfg(any(feature = "cudnn", test))]
    pub fn resident(&self) -> CandleResult<&Resident> {
        self.resident.as_ref().ok_or_else(|| candle_core::Error::Msg("the parameters are on the processor".to_owned()))
    }

    /// Whether they are on a GPU.
    pub fn are_resident(&self) -> bool {
        #[cfg(any(feature = "cudnn", test))]
        return self.resident.is_some();
        #[cfg(not(any(feature = "cudnn", test)))]
        false
    }

    /// Where tensors are that meet these parameters.
    pub fn device(&self) -> Device {
        #[cfg(any(feature = "cudnn", test))]
        if let Some(resident) = &self.resident {
            return resident.machine().device();
        }
        Device::Cpu
    }

    /// Takes over what replicas have learnt from their parts of a batch: the mean of their gradients is added to
    /// these, and what has none, the running statistics, becomes their mean. Their gradients are 0 then.
    pub fn gather(&self, replicas: &[Arc<Self>]) {
        let share = 1.0 / replicas.len() as f32;
        let mut gradients = self.gradients_mut();
        for replica in replicas {
            for (into, from) in gradients.iter_mut().zip(replica.gradients_mut().iter_mut()) {
                *into += std::mem::take(from) * share;
            }
        }
        let mut values = self.values_mut();
        for entry in self.entries.iter().filter(|entry| entry.name.contains(RUNNING)) {
            let into = &mut values[entry.range.clone()];
            into.fill(0.0);
            for replica in replicas {
                let values = replica.values();
                into.iter_mut().zip(&values[entry.range.clone()]).for_each(|(into, from)| *into += from * share);
            }
        }
    }

    /// All values.
    pub fn values(&self) -> RwLockReadGuard<'_, Vec<f32>> {
        self.values.read().expect(UNPOISONED)
    }

    /// All values, to change them.
    pub fn values_mut(&self) -> RwLockWriteGuard<'_, Vec<f32>> {
        self.values.write().expect(UNPOISONED)
    }

    /// The gradient of each value, summed since it was last set to 0.
    pub fn gradients(&self) -> RwLockReadGuard<'_, Vec<f32>> {
        self.gradients.read().expect(UNPOISONED)
    }

    /// The gradients, to change them.
    pub fn gradients_mut(&self) -> RwLockWriteGuard<'_, Vec<f32>> {
        self.gradients.write().expect(UNPOISONED)
    }

    /// Where a parameter lies among the values.
    pub fn range(&self, id: ParamId) -> Range<usize> {
        self.entries[id.0].range.clone()
    }

    /// Its shape.
    pub fn shape(&self, id: ParamId) -> &[usize] {
        &self.entries[id.0].shape
    }

    /// Name and shape of each parameter, in the order of the values.
    pub fn names(&self) -> impl Iterator<Item = (&str, &[usize])> {
        self.entries.iter().map(|e| (&*e.name, &*e.shape))
    }

    /// A copy of a parameter for candle's operations; the same variable until [`Self::backward`].
    pub fn var(&self, id: ParamId) -> CandleResult<Tensor> {
        let mut vars = self.vars.lock().expect(UNPOISONED);
        if let Some(var) = vars.get(&id.0) {
            return Ok(var.as_tensor().clone());
        }
        let var = Var::from_tensor(&self.tensor(id)?)?;
        vars.insert(id.0, var.clone());
        Ok(var.as_tensor().clone())
    }

    /// Copies of all, by their names.
    pub fn tensors(&self) -> CandleResult<HashMap<String, Tensor>> {
        (0..self.entries.len()).map(|i| Ok((self.entries[i].name.clone(), self.tensor(ParamId(i))?))).collect()
    }

    /// A copy of a parameter.
    pub fn tensor(&self, id: ParamId) -> CandleResult<Tensor> {
        #[cfg(any(feature = "cudnn", test))]
        if let Some(resident) = &self.resident {
            return resident.tensor(id, self.shape(id));
        }
        Tensor::from_slice(&self.values()[self.range(id)], self.shape(id), &Device::Cpu)
    }

    /// Adds the gradients of a scalar to [`Self::gradients`]. Our operations do so on the way, what candle's
    /// variables got is collected at the end.
    pub fn backward(&self, loss: &Tensor) -> CandleResult<GradStore> {
        let result = loss.backward();
        let vars = std::mem::take(&mut *self.vars.lock().expect(UNPOISONED));
        let found = result?;
        #[cfg(any(feature = "cudnn", test))]
        if let Some(resident) = &self.resident {
            for (id, var) in vars {
                let Some(gradient) = found.get(&var) else { continue };
                resident.add_gradient(ParamId(id), gradient)?;
            }
            return Ok(found);
        }
        let mut gradients = self.gradients_mut();
        for (id, var) in vars {
            let Some(gradient) = found.get(&var) else { continue };
            let gradient: Vec<f32> = gradient.flatten_all()?.to_vec1()?;
            for (to, from) in gradients[self.entries[id].range.clone()].iter_mut().zip(gradient) {
                *to += from;
            }
        }
        Ok(found)
    }

    /// Copies values between parameters of the same shape: `source` says for a name whose values it takes over, if any.
    pub fn copy_named(&self, source: impl Fn(&str) -> Option<String>) {
        let mut values = self.values_mut();
        for to in &self.entries {
            let Some(name) = source(&to.name) else { continue };
            let from = self.entries.iter().find(|entry| entry.name == name && entry.shape == to.shape);
            if let Some(from) = from {
                values.copy_within(from.range.clone(), to.range.start);
            }
        }
    }

    /// Takes the values from named tensors: each parameter must be there, with its shape and f32.
    pub fn read(&self, tensor: impl Fn(&str) -> Result<Tensor>) -> Result<()> {
        let mut values = Vec::with_capacity(self.values().len());
        for Entry { name, shape, .. } in &self.entries {
            let tensor = tensor(name).with_context(|| format!("reading {name}"))?;
            if tensor.dims() != shape {
                bail!("{name} has shape {:?} where the network wants {shape:?}", tensor.dims());
            }
            values.extend(tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?);
        }
        *self.values_mut() = values;
        Ok(())
    }
}

/// SplitMix64 (Steele et al. 2014): the same numbers on every machine.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Uniform in `(0, 1]`.
    pub(super) fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64 + f64::EPSILON / 2.0
    }

    /// Standard normal (Box and Muller 1958).
    pub(super) fn normal(&mut self) -> f32 {
        let (radius, angle) = ((-2.0 * self.uniform().ln()).sqrt(), std::f64::consts::TAU * self.uniform());
        (radius * angle.cos()) as f32
    }
}
