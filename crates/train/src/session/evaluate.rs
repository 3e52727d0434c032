//! What a model makes of a batch: programs that only read its state, in training and after it.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use halfstep_graph::engine::{Engine, EngineError, HostSlice, Program, State};
use halfstep_graph::precision::Policy;
use halfstep_graph::{Graph, SlotKind};
use halfstep_nn::{InputSpec, Model};

use super::{Session, TrainError};
use crate::stages::stages;
use crate::step::{AVERAGE, eval_graph, predict_graph};

/// What a model makes of a batch.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation {
    /// Mean loss over rows, summed in f64.
    pub loss: f64,
    /// Loss of each row.
    pub losses: Vec<f32>,
    /// `[rows, classes]`.
    pub logits: Vec<f32>,
    /// The class of the first largest logit of each row.
    pub predictions: Vec<i32>,
    /// Rows whose prediction is the target.
    pub correct: usize,
}

/// Programs by what they compute and the size of the batches that they are for.
pub(crate) type Programs = BTreeMap<(&'static str, usize), Box<dyn Program>>;

/// The program for this purpose and batch size, made by `make` if it is the first of them.
pub(crate) fn compiled<'p>(
    programs: &'p mut Programs,
    purpose: (&'static str, usize),
    make: impl FnOnce() -> Result<Box<dyn Program>, TrainError>,
) -> Result<&'p mut Box<dyn Program>, TrainError> {
    Ok(match programs.entry(purpose) {
        Entry::Occupied(there) => there.into_mut(),
        Entry::Vacant(place) => place.insert(make()?),
    })
}

/// A program for `graph` over this state, through the same passes as the training program.
pub(crate) fn compile(
    engine: &dyn Engine,
    graph: Graph,
    policy: &Policy,
    state: &State,
) -> Result<Box<dyn Program>, EngineError> {
    engine.compile(&stages(graph, policy, engine.target()).plan, state)
}

/// A model with state that is only read, and the programs that were made for it so far.
pub(crate) struct Reader<'r> {
    pub engine: &'r dyn Engine,
    pub model: &'r dyn Model,
    pub input: &'r InputSpec,
    pub policy: &'r Policy,
    pub state: &'r mut State,
    pub programs: &'r mut Programs,
}

impl Reader<'_> {
    /// As [`Session::evaluate`].
    pub fn evaluate(&mut self, x: HostSlice<'_>, y: &[i32]) -> Result<Evaluation, TrainError> {
        let batch = batch_of(self.input, x, Some(y))?;
        let (program, state) = self.evaluation(batch)?;
        program.run(state, &[("x", x), ("y", HostSlice::I32(y))])?;
        let losses = program.read("losses")?.f32().to_vec();
        let logits = program.read("logits")?.f32().to_vec();
        let predictions = program.read("predictions")?.i32().to_vec();
        let loss = losses.iter().map(|&l| f64::from(l)).sum::<f64>() / losses.len() as f64;
        let correct = predictions.iter().zip(y).filter(|(p, y)| p == y).count();
        Ok(Evaluation { loss, losses, logits, predictions, correct })
    }

    /// The program that evaluates so many samples, and the state that it reads.
    fn evaluation(&mut self, samples: usize) -> Result<(&mut Box<dyn Program>, &mut State), TrainError> {
        let program = compiled(self.programs, ("eval", samples), || {
            let graph = averaged(eval_graph(self.model, self.input, samples)?, self.state);
            Ok(compile(self.engine, graph, self.policy, self.state)?)
        })?;
        Ok((program, self.state))
    }

    /// As [`Session::predict`].
    pub fn predict(&mut self, x: HostSlice<'_>) -> Result<Vec<f32>, TrainError> {
        let batch = batch_of(self.input, x, None)?;
        let program = compiled(self.programs, ("predict", batch), || {
            let graph = averaged(predict_graph(self.model, self.input, batch)?, self.state);
            Ok(compile(self.engine, graph, self.policy, self.state)?)
        })?;
        program.run(self.state, &[("x", x)])?;
        Ok(program.read("logits")?.f32().to_vec())
    }
}

impl Session<'_> {
    /// Compiles the program that evaluates batches of so many samples, unless it is there: an
    /// engine that takes memory when it compiles has it from then on.
    ///
    /// # Errors
    /// No samples; not enough memory.
    pub fn prepare_evaluation(&mut self, samples: usize) -> Result<(), TrainError> {
        self.reader().evaluation(samples).map(drop)
    }

    /// Loss and predictions of a batch of any size; nothing changes.
    ///
    /// A program for another size is compiled once and kept.
    ///
    /// # Errors
    /// `x` and `y` do not make up whole samples; an index out of range; not enough memory.
    pub fn evaluate(&mut self, x: HostSlice<'_>, y: &[i32]) -> Result<Evaluation, TrainError> {
        self.reader().evaluate(x, y)
    }

    /// Logits `[rows, classes]` of a batch of any size; nothing changes.
    ///
    /// # Errors
    /// `x` does not make up whole samples; an index out of range; not enough memory.
    pub fn predict(&mut self, x: HostSlice<'_>) -> Result<Vec<f32>, TrainError> {
        self.reader().predict(x)
    }

    fn reader(&mut self) -> Reader<'_> {
        Reader {
            engine: self.engine,
            model: self.model,
            input: &self.input,
            policy: &self.policy,
            state: &mut self.state,
            programs: &mut self.programs,
        }
    }
}

/// Number of samples in `x`, which `y` must agree with.
pub(crate) fn batch_of(input: &InputSpec, x: HostSlice<'_>, y: Option<&[i32]>) -> Result<usize, TrainError> {
    let (elements, rows) = (input.elements(), input.rows(1));
    let batch = x.len() / elements;
    let targets = y.map_or(batch * rows, <[i32]>::len);
    if batch == 0 || batch * elements != x.len() || batch * rows != targets {
        return Err(TrainError::Batch { samples: x.len(), targets, elements, rows });
    }
    Ok(batch)
}

/// A program that only reads, over the moving averages in place of the weights, where they are
/// kept.
fn averaged(mut graph: Graph, state: &State) -> Graph {
    for slot in &mut graph.slots {
        let average = format!("{AVERAGE}{}", slot.name);
        if state.slots().iter().any(|s| s.name == average) {
            slot.name = average;
            // Averages are f32, however weights are kept.
            slot.kind = SlotKind::Moment;
        }
    }
    graph
}
