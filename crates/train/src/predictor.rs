//! A trained model that is only used: its weights and running statistics in an engine's memory, and
//! no training step.

use std::path::Path;
use std::sync::Arc;

use halfstep_graph::engine::{Engine, HostSlice, HostTensor, State};
use halfstep_graph::precision::Policy;
use halfstep_graph::{Footprint, Slot};
use halfstep_nn::{InputSpec, Model};

use crate::checkpoint::{self, CheckpointError};
use crate::recipe::check_state;
use crate::session::{Evaluation, Programs, Reader, TrainError};
use crate::step::predict_graph;

/// A model with the weights of a checkpoint, in one precision. Its programs are those by which a
/// [`Session`](crate::session::Session) evaluates, so that the same weights give the same bits.
///
/// A program for another batch size is compiled once and kept.
pub struct Predictor {
    engine: Arc<dyn Engine>,
    model: Arc<dyn Model>,
    input: InputSpec,
    policy: Policy,
    state: State,
    programs: Programs,
}

impl Predictor {
    /// The model with the weights of the file at `path`.
    ///
    /// # Errors
    /// The engine does not run the policy, or the policy keeps weights as it cannot; the model does
    /// not take this input; the file is damaged or of another model; not enough memory.
    pub fn open(
        engine: Arc<dyn Engine>,
        model: Arc<dyn Model>,
        input: &InputSpec,
        policy: &Policy,
        path: &Path,
    ) -> Result<Predictor, CheckpointError> {
        let mut state = empty(engine.as_ref(), model.as_ref(), input, policy)?;
        let slots = state.slots().to_vec();
        checkpoint::put(&mut state, &checkpoint::model_values(&slots, path)?)?;
        let (input, policy) = (input.clone(), policy.clone());
        Ok(Predictor { engine, model, input, policy, state, programs: Programs::new() })
    }

    /// Loss and predictions of a batch of any size.
    ///
    /// # Errors
    /// `x` and `y` do not make up whole samples; an index out of range; not enough memory.
    pub fn evaluate(&mut self, x: HostSlice<'_>, y: &[i32]) -> Result<Evaluation, TrainError> {
        self.reader().evaluate(x, y)
    }

    /// Logits `[rows, classes]` of a batch of any size.
    ///
    /// # Errors
    /// `x` does not make up whole samples; an index out of range; not enough memory.
    pub fn predict(&mut self, x: HostSlice<'_>) -> Result<Vec<f32>, TrainError> {
        self.reader().predict(x)
    }

    /// The weights and running statistics.
    pub fn slots(&self) -> &[Slot] {
        self.state.slots()
    }

    /// A slot's values.
    ///
    /// # Errors
    /// No such slot.
    pub fn download(&self, slot: &str) -> Result<HostTensor, TrainError> {
        Ok(self.state.download(slot)?)
    }

    /// The form of a sample.
    pub fn input(&self) -> &InputSpec {
        &self.input
    }

    /// The precision policy.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Bytes held at present: state and arena, which all its programs share, constants and outputs
    /// of each, and the engine's scratch. Before the first program is made, the values of the slots
    /// alone.
    ///
    /// # Errors
    /// None of its own state.
    pub fn footprint(&self) -> Result<Footprint, TrainError> {
        let state = self.slots().iter().map(|slot| slot.ty.bytes()).sum();
        let none = Footprint { state, ..Footprint::default() };
        self.programs
            .values()
            .try_fold(none, |all, program| Ok(all.together(program.footprint(&self.state)?)))
    }

    /// From now on gives a sample, to the bit, the logits that it has in a batch of one, in a batch
    /// of any size, beside any others; says whether it does. Scales of whole tensors are then of
    /// each sample.
    ///
    /// Where the engine does not promise it, nothing changes. A batch of one sample has no others.
    ///
    /// # Errors
    /// None of a model that it was opened with.
    pub fn make_batch_invariant(&mut self) -> Result<bool, TrainError> {
        let graph = predict_graph(self.model.as_ref(), &self.input, 1)?;
        let invariant = self.engine.target().is_batch_invariant(&graph);
        if invariant {
            self.policy = self.policy.clone().scaling_by_sample();
            self.programs.clear();
        }
        Ok(invariant)
    }

    fn reader(&mut self) -> Reader<'_> {
        Reader {
            engine: self.engine.as_ref(),
            model: self.model.as_ref(),
            input: &self.input,
            policy: &self.policy,
            state: &mut self.state,
            programs: &mut self.programs,
        }
    }
}

/// State for all that a prediction reads.
fn empty(
    engine: &dyn Engine,
    model: &dyn Model,
    input: &InputSpec,
    policy: &Policy,
) -> Result<State, TrainError> {
    check_state(policy)?;
    engine.target().supports(policy)?;
    let slots = predict_graph(model, input, 1)?.slots;
    Ok(engine.new_state(&slots)?)
}
