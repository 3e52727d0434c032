//! A trained model as the server has it.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{BufMut, Bytes, BytesMut};
use halfstep::graph::engine::{Engine, HostSlice};
use halfstep::nn::InputSpec;
use halfstep::train::predictor::Predictor;
use halfstep_registry::hold::Hold;
use halfstep_serve::model::{ComputeError, InputError, ModelInfo, Prepared, ServedModel, TensorSpec};
use halfstep_serve::tensor::{Datatype, Tensor, TensorError};

use super::super::failure::Failure;
use super::super::open::Opened;
use super::super::predict::probabilities;
use super::inputs::{self, Inputs, Samples};

/// Bytes of memory for each class of a sample: its logit twice and its probability, and both as
/// numbers of JSON, which have up to 15 characters and a comma.
const PER_OUTPUT: usize = 3 * 4 + 2 * 16;

/// Whether a sample may have other bits beside other samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Batches {
    /// It may, where the policy has scales of whole tensors or the engine does not promise it.
    Fast,
    /// It may not: tensors are scaled by sample, and where the engine does not promise it, samples
    /// are computed one by one.
    Invariant,
}

/// How samples are computed together.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    /// So many at once, at most.
    pub most: NonZeroUsize,
    /// With what effect on each other.
    pub batches: Batches,
}

/// What is said of a model when it is served.
pub struct Facts {
    /// What it takes and gives.
    pub info: ModelInfo,
    /// The precision that it computes in.
    pub precision: String,
    /// What nobody has judged.
    pub warning: Option<String>,
}

/// Whether a signed verdict was looked for that covers the precision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Looked {
    /// There is one, or it is the precision of training.
    Covers,
    /// Nobody looked.
    No,
}

impl Facts {
    /// Of a model that is loaded.
    pub fn of(opened: &Opened, model: &TrainedModel, looked: Looked) -> Facts {
        let (trained, computed) = (&opened.manifest.policy.name, opened.precision());
        let warning = (trained != computed && looked == Looked::No).then(|| {
            format!(
                "the model was trained in {trained} and is served in {computed}; `serve` looked at \
                 no signed verdict of that: judge it \
                 with `halfstep stress` or `halfstep verdict`"
            )
        });
        Facts { info: model.info.clone(), precision: computed.into(), warning }
    }
}

/// A trained model, its weights and the programs for a few batch sizes.
pub struct TrainedModel {
    info: ModelInfo,
    inputs: Inputs,
    predictor: Mutex<Predictor>,
    /// The batch sizes that programs are for, largest first, down to 1.
    sizes: Vec<usize>,
    /// Elements of a sample and of its logits, of which a text has as many as tokens.
    elements: usize,
    rows: usize,
    /// Names of the classes; none of text, whose classes are tokens.
    classes: Vec<String>,
    outputs: usize,
    /// Bytes of memory for a sample, prepared, and its outputs.
    per_sample: usize,
    /// Keeps a registry from removing it.
    _hold: Option<Hold>,
}

impl TrainedModel {
    /// Loads a model and makes all its programs.
    ///
    /// # Errors
    /// The weights are damaged or of another model; not enough memory.
    pub fn load(
        opened: &Opened,
        engine: Arc<dyn Engine>,
        (name, digest): (&str, &str),
        Manner { most, batches }: Manner,
    ) -> Result<TrainedModel, Failure> {
        let mut predictor = opened.predictor(engine)?;
        let one_by_one = batches == Batches::Invariant && !predictor.make_batch_invariant()?;
        let most = if one_by_one { 1 } else { most.get() };
        let sizes: Vec<usize> = (0..=most.ilog2()).rev().map(|power| 1 << power).collect();
        let input = &opened.manifest.input;
        for &size in &sizes {
            let elements = size * input.elements();
            match input {
                InputSpec::Tokens { .. } => predictor.predict(HostSlice::I32(&vec![0; elements]))?,
                _ => predictor.predict(HostSlice::F32(&vec![0.0; elements]))?,
            };
        }
        let inputs = Inputs::new(opened.preprocessing.clone(), input.clone());
        let classes = opened.preprocessing.classes().to_vec();
        let output = |name: &str, datatype, shape: &[Option<usize>]| {
            let shape = [&[None], shape].concat();
            TensorSpec { name: name.into(), datatype, shape }
        };
        let longest = classes.iter().map(String::len).max().unwrap_or(0);
        let per_sample = 4 * input.elements() + PER_OUTPUT * opened.outputs + 3 * (longest + 8);
        let each = [Some(opened.outputs)];
        let info = ModelInfo {
            name: name.into(),
            digest: digest.into(),
            platform: "halfstep".into(),
            inputs: inputs.specs(),
            outputs: vec![
                output("logits", Datatype::Fp32, &each),
                output("probabilities", Datatype::Fp32, &each),
                match classes.is_empty() {
                    true => output("token", Datatype::Int32, &[]),
                    false => output("class", Datatype::Bytes, &[]),
                },
            ],
            memory: predictor.footprint()?.total() as u64,
            max_batch: most,
        };
        Ok(TrainedModel {
            info,
            inputs,
            sizes,
            elements: input.elements(),
            rows: input.rows(1),
            classes,
            outputs: opened.outputs,
            per_sample,
            predictor: Mutex::new(predictor),
            _hold: None,
        })
    }

    /// The same, which its registry may not remove while it is loaded, where that can be said.
    pub fn holding(self, hold: Option<Hold>) -> TrainedModel {
        TrainedModel { _hold: hold, ..self }
    }

    /// The logits of all samples, each in a program of one of the sizes.
    fn logits(&self, samples: &Samples) -> Result<Vec<f32>, ComputeError> {
        let mut predictor = self.predictor.lock().unwrap_or_else(PoisonError::into_inner);
        let count = match samples {
            Samples::Numbers(values) => values.len() / self.elements,
            Samples::Tokens { last, .. } => last.len(),
        };
        let (mut logits, mut done) = (Vec::with_capacity(count * self.outputs), 0);
        while done < count {
            let fits = |&&size: &&usize| size <= count - done;
            let size = self.sizes.iter().find(fits).copied().unwrap_or(1);
            let own = done * self.elements..(done + size) * self.elements;
            let failed = |e: halfstep::train::session::TrainError| ComputeError(e.to_string());
            match samples {
                Samples::Numbers(values) => {
                    logits.extend(predictor.predict(HostSlice::F32(&values[own])).map_err(failed)?);
                }
                Samples::Tokens { windows, last } => {
                    let all = predictor.predict(HostSlice::I32(&windows[own])).map_err(failed)?;
                    for (text, &last) in all.chunks(self.rows * self.outputs).zip(&last[done..]) {
                        logits.extend_from_slice(&text[last * self.outputs..][..self.outputs]);
                    }
                }
            }
            done += size;
        }
        Ok(logits)
    }

    /// The outputs of one request.
    fn answer(&self, logits: &[f32]) -> Result<Vec<Tensor>, TensorError> {
        let count = logits.len() / self.outputs;
        let numbers = |name: &str, values: &mut dyn Iterator<Item = f32>| {
            let mut bytes = BytesMut::with_capacity(4 * logits.len());
            values.for_each(|value| bytes.put_f32_le(value));
            Tensor::new(name, Datatype::Fp32, vec![count, self.outputs], bytes.freeze())
        };
        let rows = || logits.chunks(self.outputs);
        let mut shares = rows().flat_map(probabilities).map(|p| p as f32);
        let best = rows().map(|row| (0..row.len()).fold(0, |b, i| if row[i] > row[b] { i } else { b }));
        let mut likeliest = BytesMut::new();
        for best in best {
            match self.classes.get(best) {
                Some(class) => {
                    likeliest.put_u32_le(class.len() as u32);
                    likeliest.put_slice(class.as_bytes());
                }
                None => likeliest.put_i32_le(best as i32),
            }
        }
        let (name, datatype) = match self.classes.is_empty() {
            true => ("token", Datatype::Int32),
            false => ("class", Datatype::Bytes),
        };
        Ok(vec![
            numbers("logits", &mut logits.iter().copied())?,
            numbers("probabilities", &mut shares)?,
            Tensor::new(name, datatype, vec![count], Bytes::from(likeliest))?,
        ])
    }
}

impl ServedModel for TrainedModel {
    type Samples = Samples;

    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn memory(&self, inputs: &[Tensor]) -> usize {
        let count = inputs.iter().filter_map(|tensor| tensor.shape().first()).max().copied().unwrap_or(0);
        let preparing = inputs.iter().map(inputs::memory).fold(0, usize::saturating_add);
        count.saturating_mul(self.per_sample).saturating_add(preparing)
    }

    fn prepare(&self, inputs: &[Tensor]) -> Result<Prepared<Samples>, InputError> {
        self.inputs.prepare(inputs)
    }

    fn compute(&self, requests: Vec<Prepared<Samples>>) -> Result<Vec<Vec<Tensor>>, ComputeError> {
        let counts: Vec<usize> = requests.iter().map(|request| request.count).collect();
        let together = requests.into_iter().map(|r| r.samples).reduce(|all, next| match (all, next) {
            (Samples::Numbers(mut all), Samples::Numbers(next)) => {
                all.extend(next);
                Samples::Numbers(all)
            }
            (Samples::Tokens { mut windows, mut last }, Samples::Tokens { windows: more, last: ends }) => {
                windows.extend(more);
                last.extend(ends);
                Samples::Tokens { windows, last }
            }
            // One model prepares samples of one kind.
            (all, _) => all,
        });
        let Some(samples) = together else { return Ok(Vec::new()) };
        let mut logits = &self.logits(&samples)?[..];
        let mut answers = Vec::with_capacity(counts.len());
        for count in counts {
            let own = logits.split_off(..count * self.outputs);
            let own = own.ok_or_else(|| ComputeError("a batch has fewer logits than samples".into()))?;
            answers.push(self.answer(own).map_err(|e| ComputeError(e.to_string()))?);
        }
        Ok(answers)
    }
}
