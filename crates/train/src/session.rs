//! A model in training on one engine: state, programs, and the host's side of a step.

mod error;
mod evaluate;
mod step;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use halfstep_graph::engine::{Engine, HostSlice, HostTensor, Program, State};
use halfstep_graph::precision::{Policy, PrecisionPlan};
use halfstep_graph::{ByteSize, Footprint, InputChecks, OutputId, Plan, Recomputation, Slot};
use halfstep_nn::{InputSpec, Model};
use serde::{Deserialize, Serialize};

pub use error::TrainError;
pub use evaluate::Evaluation;
pub(crate) use evaluate::{Programs, Reader, batch_of, compile, compiled};
pub use step::StepReport;
pub(crate) use step::key;

use crate::init::initial_tensor;
use crate::memory::{StepStages, step_stages};
use crate::metrics::Cause;
use crate::optimiser::Optimiser;
use crate::recipe::check_state;
use crate::scaler::LossScale;
use crate::setting::{SettingError, positive_in_f32, require};
use crate::stages::{FOUND, Stages};
use crate::step::{AVERAGE, is_lasting, snapshot_bytes};
use crate::step_options::StepOptions;

/// What a session needs besides model and engine.
#[derive(Clone, Debug, PartialEq)]
pub struct SessionSpec {
    /// How gradients become weights.
    pub optimiser: Optimiser,
    /// How the loss is scaled.
    pub scaling: LossScale,
    /// Largest global norm of the gradients; none leaves them as they are.
    pub clip: Option<f64>,
    /// Samples in a training batch, which all ranks share, and of which [`StepOptions::accumulate`]
    /// makes parts.
    pub batch: usize,
    /// Seed of first weights and dropout.
    pub seed: u64,
    /// Skipped steps in a row that a lower loss scale cannot cure, after which the run has
    /// diverged.
    pub skip_limit: u32,
    /// Bytes that the engine may hold for the training step; activations are computed again to keep
    /// within it.
    pub memory_budget: Option<ByteSize>,
    /// What a step does besides.
    pub options: StepOptions,
    /// Whether the gradients of every step are readable by [`Session::gradient`]: for tests and
    /// diagnosis.
    pub expose_gradients: bool,
}

impl SessionSpec {
    /// AdamW without clipping, loss scaling as the policy needs it, and a skip limit of 8.
    pub fn new(policy: &Policy, batch: usize, seed: u64) -> SessionSpec {
        SessionSpec {
            optimiser: Optimiser::default(),
            scaling: LossScale::for_policy(policy),
            clip: None,
            batch,
            seed,
            skip_limit: 8,
            memory_budget: None,
            options: StepOptions::default(),
            expose_gradients: false,
        }
    }

    /// Whether the settings make sense.
    ///
    /// # Errors
    /// A setting out of range.
    pub fn validate(&self) -> Result<(), SettingError> {
        self.optimiser.validate()?;
        self.scaling.validate()?;
        self.options.validate(self.batch)?;
        require(self.batch > 0, "batch", self.batch, "at least 1")?;
        require(self.skip_limit > 0, "skip_limit", self.skip_limit, "at least 1")?;
        if let Some(clip) = self.clip {
            require(positive_in_f32(clip), "clip", clip, "a number above 1e-45 and below 3.4e38")?;
        }
        self.options.check_rates(self.optimiser.lr())
    }
}

/// Counts of a run, saved with a checkpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Steps tried. Random draws are keyed by it, so a batch that comes again is drawn for anew.
    pub attempts: u64,
    /// Steps that changed the model. Schedules count these.
    pub committed: u64,
    /// Skipped steps since the last that committed.
    pub skips_in_a_row: u32,
    /// Those of them that a lower loss scale could not have cured.
    pub hopeless_skips: u32,
    /// Steps in a row that committed gradients of nothing but zeros though there was a loss.
    #[serde(default)]
    pub zero_steps: u32,
}

/// A model in training: its state in an engine's memory and the programs over it.
pub struct Session<'a> {
    engine: &'a dyn Engine,
    model: &'a dyn Model,
    input: InputSpec,
    policy: Policy,
    spec: SessionSpec,
    state: State,
    train: Box<dyn Program>,
    /// The end of a step whose batch is worked through in parts.
    apply: Option<Box<dyn Program>>,
    /// Those that only read the state.
    programs: Programs,
    plan: Plan,
    precision: PrecisionPlan,
    recomputation: Option<Recomputation>,
    progress: Progress,
    /// Loss, norm of the gradients, whether the step committed, and loss scale: outputs of the
    /// step's last program.
    reported: [OutputId; 4],
    checks: InputChecks,
    /// The attempt whose outputs the training program has; none before the first.
    last_run: Option<u64>,
    /// The file of the weights that the run began with; none where they were drawn.
    start: Option<PathBuf>,
    compile_time: Duration,
}

impl<'a> Session<'a> {
    /// Builds and compiles the training step, and draws first weights.
    ///
    /// # Errors
    /// A setting out of range; a model that does not take this input; not enough memory.
    pub fn new(
        engine: &'a dyn Engine,
        model: &'a dyn Model,
        input: &InputSpec,
        policy: &Policy,
        spec: &SessionSpec,
    ) -> Result<Session<'a>, TrainError> {
        spec.validate()?;
        check_state(policy)?;
        let start = Instant::now();
        let target = engine.target();
        let StepStages { train, apply } = step_stages(model, input, policy, spec, target)?;
        let Stages { assigned, mut precision, recomputation, plan, .. } = train;
        if let Some(apply) = &apply {
            precision.entries.extend(apply.precision.entries.iter().cloned());
        }
        let slots = assigned.slots;
        let reported = step::reported(apply.as_ref().map_or(&plan.graph, |apply| &apply.plan.graph))?;
        let checks = InputChecks::of(&plan.graph, target)?;
        let passes = start.elapsed();
        let mut state = engine.new_state(&slots)?;
        let start = Instant::now();
        let train = engine.compile(&plan, &state)?;
        let apply = apply.map(|stages| engine.compile(&stages.plan, &state)).transpose()?;
        let compile_time = passes + start.elapsed();
        for slot in &slots {
            let values = initial_tensor(slot, spec.seed);
            state.upload(&slot.name, values.as_slice())?;
        }
        Ok(Session {
            engine,
            model,
            input: input.clone(),
            policy: policy.clone(),
            spec: spec.clone(),
            state,
            train,
            apply,
            programs: Programs::new(),
            plan,
            precision,
            recomputation,
            progress: Progress::default(),
            reported,
            checks,
            last_run: None,
            start: None,
            compile_time,
        })
    }

    /// Samples of a batch that this rank has, and the place of the first in the whole batch.
    pub fn share(&self) -> std::ops::Range<usize> {
        let size = self.spec.batch / self.engine.target().ranks();
        let first = size * self.engine.communicator().map_or(0, |communicator| communicator.rank());
        first..first + size
    }

    /// The gradient of a weight in the last step, unscaled: only of a session whose spec
    /// exposes gradients.
    ///
    /// # Errors
    /// No such weight, or gradients are not readable.
    pub fn gradient(&self, slot: &str) -> Result<Vec<f32>, TrainError> {
        let last = self.apply.as_ref().unwrap_or(&self.train);
        let scale = last.read("scale")?.f32()[0] * self.spec.options.accumulate as f32;
        let scaled = last.read(&format!("grad.{slot}"))?;
        Ok(scaled.f32().iter().map(|g| g / scale).collect())
    }

    /// A weight as it is to be used: its moving average where one is kept.
    ///
    /// # Errors
    /// No such slot.
    pub fn download_averaged(&self, weight: &str) -> Result<HostTensor, TrainError> {
        let average = format!("{AVERAGE}{weight}");
        Ok(self.state.download(&average).or_else(|_| self.state.download(weight))?)
    }

    /// All state: weights, moments, statistics, scaler, counters.
    pub fn slots(&self) -> &[Slot] {
        self.state.slots()
    }

    /// The state that outlives a step, which is the same on every rank.
    pub fn lasting_slots(&self) -> impl Iterator<Item = &Slot> {
        self.state.slots().iter().filter(|s| is_lasting(s))
    }

    /// Bytes of a copy of all lasting state, in which every element takes four.
    pub fn snapshot_bytes(&self) -> usize {
        snapshot_bytes(self.state.slots())
    }

    /// A slot's values.
    ///
    /// # Errors
    /// No such slot.
    pub fn download(&self, slot: &str) -> Result<HostTensor, TrainError> {
        Ok(self.state.download(slot)?)
    }

    /// What `attempt`, the next step or the last, which did not commit, has found in a slot. A step
    /// changes the scales of codes though it does not commit.
    ///
    /// # Errors
    /// No such slot.
    pub(crate) fn download_before(&self, slot: &str, attempt: u64) -> Result<HostTensor, TrainError> {
        let found = format!("{FOUND}{slot}");
        if self.last_run == Some(attempt) && self.plan.graph.output(&found).is_some() {
            return Ok(self.train.read(&found)?);
        }
        self.download(slot)
    }

    /// Replaces a slot's values.
    ///
    /// # Errors
    /// No such slot; a wrong number of values.
    pub fn upload(&mut self, slot: &str, values: HostSlice<'_>) -> Result<(), TrainError> {
        Ok(self.state.upload(slot, values)?)
    }

    /// Counts of the run so far.
    pub fn progress(&self) -> Progress {
        self.progress
    }

    /// Goes on from the counts of a checkpoint.
    pub fn restore_progress(&mut self, progress: Progress) {
        self.progress = progress;
        self.last_run = None;
    }

    /// Notes that the run began with the weights of this file, and not with drawn ones: what
    /// training made of the weights is measured from them.
    pub(crate) fn began_with(&mut self, file: &Path) {
        self.start = Some(file.to_path_buf());
    }

    /// The file of the weights that the run began with; none where they were drawn.
    pub(crate) fn start(&self) -> Option<&Path> {
        self.start.as_deref()
    }

    /// All its state, to be filled.
    pub(crate) fn state_mut(&mut self) -> &mut State {
        &mut self.state
    }

    /// What it computes with.
    pub(crate) fn engine(&self) -> &'a dyn Engine {
        self.engine
    }

    /// What it trains.
    pub(crate) fn model(&self) -> &'a dyn Model {
        self.model
    }

    /// The settings.
    pub fn spec(&self) -> &SessionSpec {
        &self.spec
    }

    /// The form of a sample.
    pub fn input(&self) -> &InputSpec {
        &self.input
    }

    /// The precision policy.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Storage and compute type of every value of the training step, with reasons.
    pub fn precision(&self) -> &PrecisionPlan {
        &self.precision
    }

    /// What is computed twice to stay within the memory budget, where something is.
    pub fn recomputation(&self) -> Option<&Recomputation> {
        self.recomputation.as_ref()
    }

    /// Bytes the engine holds at present for the training step: its state, arena, constants,
    /// outputs and scratch.
    ///
    /// # Errors
    /// None of a session's own state.
    pub fn footprint(&self) -> Result<Footprint, TrainError> {
        Ok(self.train.footprint(&self.state)?)
    }

    /// The training step with the place of every value.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Bytes of scratch memory of the largest program compiled so far.
    pub fn arena_bytes(&self) -> usize {
        let others = self.programs.values().map(|p| p.arena_bytes());
        let others = others.chain(self.apply.iter().map(|p| p.arena_bytes()));
        others.fold(self.train.arena_bytes(), usize::max)
    }

    /// From now on, measures each group of the training program's plan in each step.
    pub fn measure(&mut self) {
        self.train.measure();
    }

    /// Time spent since [`Session::measure`] in each group, in the order of the plan's; empty if
    /// the engine cannot tell.
    pub fn group_times(&self) -> &[Duration] {
        self.train.times()
    }

    /// Time from model to compiled training program, without that of making its state.
    pub fn compile_time(&self) -> Duration {
        self.compile_time
    }
}
