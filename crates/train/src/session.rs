//! A model in training on one engine: state, programs, and the host's side of a step.

mod error;
mod evaluate;

use std::time::{Duration, Instant};

use halfstep_graph::engine::{Engine, EngineError, HostSlice, HostTensor, Program, State, Target};
use halfstep_graph::precision::{Policy, PrecisionPlan, assign};
use halfstep_graph::{
    BudgetError, ByteSize, Footprint, Graph, Plan, Recomputation, Slot, SlotKind, fuse, plan, recompute,
};
use halfstep_nn::{InputSpec, KEY_INPUT, Model};
use serde::{Deserialize, Serialize};

pub use error::{Cause, TrainError};
use evaluate::Compiled;
pub use evaluate::Evaluation;

use crate::doctor::{self, Replayed};
use crate::init::initial_tensor;
use crate::memory::{StepStages, step_stages};
use crate::optimiser::Optimiser;
use crate::recipe::check_state;
use crate::scaler::{FLUSHED_SLOT, LossScale};
use crate::setting::{SettingError, require};
use crate::step::{AVERAGE, is_lasting, snapshot_bytes};
use crate::step_options::StepOptions;

/// Every form of a program from model to memory plan, for reading.
#[derive(Clone, Debug)]
pub struct Stages {
    /// As built: forward, backward and update.
    pub graph: Graph,
    /// With storage types and casts, and activations computed again where a budget asks for it.
    pub assigned: Graph,
    /// The same as a table with reasons.
    pub precision: PrecisionPlan,
    /// What is computed twice to fit a memory budget, where something is.
    pub recomputation: Option<Recomputation>,
    /// With biases in the products they follow.
    pub fused: Graph,
    /// In groups that run as one step, and with a place for every value.
    pub plan: Plan,
}

/// Runs every pass over `graph`.
pub fn stages(graph: Graph, policy: &Policy, target: &dyn Target) -> Stages {
    let (assigned, precision) = assign(&graph, policy);
    planned(graph, assigned, precision, None, target)
}

/// Runs every pass over `graph`, with activations computed again where its plan would exceed the budget.
///
/// # Errors
/// The budget cannot be met.
pub fn stages_within(
    graph: Graph,
    policy: &Policy,
    target: &dyn Target,
    budget: Option<ByteSize>,
) -> Result<Stages, BudgetError> {
    let (assigned, precision) = assign(&graph, policy);
    let recomputed = match budget {
        Some(budget) => recompute(&assigned, target, budget.0)?,
        None => None,
    };
    let (assigned, recomputation) = match recomputed {
        Some((again, recomputation)) => (again, Some(recomputation)),
        None => (assigned, None),
    };
    Ok(planned(graph, assigned, precision, recomputation, target))
}

fn planned(
    graph: Graph,
    assigned: Graph,
    precision: PrecisionPlan,
    recomputation: Option<Recomputation>,
    target: &dyn Target,
) -> Stages {
    let fused = fuse(&assigned);
    let plan = plan(fused.clone(), target);
    Stages { graph, assigned, precision, recomputation, fused, plan }
}

/// What a session needs besides model and engine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SessionSpec {
    /// How gradients become weights.
    pub optimiser: Optimiser,
    /// How the loss is scaled.
    pub scaling: LossScale,
    /// Largest global norm of the gradients; none leaves them as they are.
    pub clip: Option<f64>,
    /// Samples in a training batch, which all ranks share, and of which [`StepOptions::accumulate`] makes parts.
    pub batch: usize,
    /// Seed of first weights and dropout.
    pub seed: u64,
    /// Skipped steps in a row that a lower loss scale cannot cure, after which the run has diverged.
    pub skip_limit: u32,
    /// Bytes that the engine may hold for the training step; activations are computed again to keep within it.
    pub memory_budget: Option<ByteSize>,
    /// What a step does besides.
    #[serde(default)]
    pub options: StepOptions,
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
        match self.clip {
            Some(clip) => require(clip > 0.0 && clip.is_finite(), "clip", clip, "a number above 0"),
            None => Ok(()),
        }
    }
}

/// What one step did.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepReport {
    /// Mean loss of the batch, before the update.
    pub loss: f32,
    /// Global norm of the unscaled gradients, before clipping.
    pub grad_norm: f32,
    /// Whether the step changed the model; if not, a gradient or a running statistic was not finite.
    pub committed: bool,
    /// The loss scale used.
    pub scale: f32,
    /// Of a step that did not commit: where the first number that is not finite was seen.
    pub cause: Option<Cause>,
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

/// Loss above which gradients of nothing but zeros are lost ones. A batch of n rows with this loss has a logit whose gradient is
/// at least 0.01 / n.
const LOSS: f32 = 0.01;

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
    eval: Vec<Compiled>,
    predict: Vec<Compiled>,
    plan: Plan,
    precision: PrecisionPlan,
    recomputation: Option<Recomputation>,
    progress: Progress,
    scales: Scales,
    compile_time: Duration,
}

/// The scales of codes, which a step changes whether or not it commits, as they were before the last one.
#[derive(Default)]
struct Scales {
    /// Steps tried before that one; none before the first.
    attempt: Option<u64>,
    /// Slots and their values.
    values: Vec<(String, f32)>,
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
        Session::with_options(engine, model, input, policy, spec, false)
    }

    /// [`Session::new`], with the gradients of every step readable by [`Session::gradient`]: for tests and diagnosis.
    ///
    /// # Errors
    /// As [`Session::new`].
    pub fn with_gradients(
        engine: &'a dyn Engine,
        model: &'a dyn Model,
        input: &InputSpec,
        policy: &Policy,
        spec: &SessionSpec,
    ) -> Result<Session<'a>, TrainError> {
        Session::with_options(engine, model, input, policy, spec, true)
    }

    fn with_options(
        engine: &'a dyn Engine,
        model: &'a dyn Model,
        input: &InputSpec,
        policy: &Policy,
        spec: &SessionSpec,
        expose_gradients: bool,
    ) -> Result<Session<'a>, TrainError> {
        spec.validate()?;
        check_state(policy)?;
        let start = Instant::now();
        let target = engine.target();
        let StepStages { train, apply } = step_stages(model, input, policy, spec, expose_gradients, target)?;
        let Stages { assigned, mut precision, recomputation, plan, .. } = train;
        if let Some(apply) = &apply {
            precision.entries.extend(apply.precision.entries.iter().cloned());
        }
        let slots = assigned.slots;
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
        let is_scale = |s: &&Slot| s.kind == SlotKind::Scale && s.ty.shape.is_empty();
        let values = slots.iter().filter(is_scale).map(|s| (s.name.clone(), 1.0)).collect();
        Ok(Session {
            engine,
            model,
            input: input.clone(),
            policy: policy.clone(),
            spec: spec.clone(),
            state,
            train,
            apply,
            eval: Vec::new(),
            predict: Vec::new(),
            plan,
            precision,
            recomputation,
            progress: Progress::default(),
            scales: Scales { attempt: None, values },
            compile_time,
        })
    }

    /// Samples of a batch that this rank has, and the place of the first in the whole batch.
    pub fn share(&self) -> std::ops::Range<usize> {
        let size = self.spec.batch / self.engine.target().ranks();
        let first = size * self.engine.communicator().map_or(0, |communicator| communicator.rank());
        first..first + size
    }

    /// One training step on a batch, at this learning rate. On several ranks, all take this step together, each with its
    /// [`Session::share`] of the samples; all get the same report.
    ///
    /// A step whose gradients are not finite is reported as not committed and changes nothing but the loss scaler.
    ///
    /// # Errors
    /// Inputs of the wrong size, or an index out of range, with nothing changed and nothing counted;
    /// [`TrainError::Diverged`] after too many skipped steps that a lower loss scale cannot cure, [`TrainError::Vanished`]
    /// after as many whose gradients are all zero.
    pub fn step(&mut self, x: HostSlice<'_>, y: &[i32], lr: f64) -> Result<StepReport, TrainError> {
        if self.spec.scaling.probes(self.progress.attempts) {
            let batch = Replayed { x, y, attempt: self.progress.attempts };
            let flushed = doctor::flushed(self, &batch, doctor::scale_of(self)?)? as f32;
            self.state.upload(FLUSHED_SLOT, HostSlice::F32(&[flushed]))?;
        }
        for (slot, value) in &mut self.scales.values {
            *value = self.state.download(slot)?.f32()[0];
        }
        self.scales.attempt = Some(self.progress.attempts);
        let mut key = key(self.spec.seed, self.progress.attempts);
        // Random draws are keyed by a sample's place in the whole batch.
        key[3] = key[3].wrapping_add(self.share().start as i32);
        let lr = [lr as f32];
        let (y_of, lr) = (HostSlice::I32(y), ("lr", HostSlice::F32(&lr)));
        if self.apply.is_some() {
            self.accumulate(x, y, key)?;
        }
        let last = match &mut self.apply {
            Some(apply) => {
                apply.run(&mut self.state, &[lr, (KEY_INPUT, HostSlice::I32(&key))])?;
                apply
            }
            None => {
                let inputs = [("x", x), ("y", y_of), (KEY_INPUT, HostSlice::I32(&key)), lr];
                self.train.run(&mut self.state, &inputs)?;
                &mut self.train
            }
        };
        let read = |name: &str| Ok::<f32, EngineError>(last.read(name)?.f32()[0]);
        let mut report = StepReport {
            loss: read("loss")?,
            grad_norm: read("grad_norm")?,
            committed: read("committed")? != 0.0,
            scale: read("scale")?,
            cause: None,
        };
        if !report.committed {
            report.cause = Some(self.cause(&report, x)?);
        }
        self.count(&report)?;
        Ok(report)
    }

    /// Sums up the gradients of the parts of a batch.
    fn accumulate(&mut self, x: HostSlice<'_>, y: &[i32], key: [i32; 4]) -> Result<(), TrainError> {
        let (elements, rows) = (self.input.elements(), self.input.rows(1));
        let batch = self.share().len();
        if (x.len(), y.len()) != (batch * elements, batch * rows) {
            return Err(TrainError::Batch { samples: x.len(), targets: y.len(), elements, rows });
        }
        let parts = self.spec.options.accumulate;
        let size = batch / parts;
        for part in 0..parts {
            let samples = part * size..(part + 1) * size;
            let range = samples.start * elements..samples.end * elements;
            let x = match x {
                HostSlice::F32(x) => HostSlice::F32(&x[range]),
                HostSlice::I32(x) => HostSlice::I32(&x[range]),
            };
            let y = HostSlice::I32(&y[samples.start * rows..samples.end * rows]);
            let mut key = key;
            key[3] = key[3].wrapping_add(samples.start as i32);
            let first = [if part == 0 { 1.0 } else { 0.0 }];
            let inputs =
                [("x", x), ("y", y), (KEY_INPUT, HostSlice::I32(&key)), ("first", HostSlice::F32(&first))];
            self.train.run(&mut self.state, &inputs)?;
        }
        Ok(())
    }

    fn count(&mut self, report: &StepReport) -> Result<(), TrainError> {
        let p = &mut self.progress;
        p.attempts += 1;
        if report.committed {
            p.committed += 1;
            (p.skips_in_a_row, p.hopeless_skips) = (0, 0);
            let lost = report.grad_norm == 0.0 && report.loss > LOSS;
            p.zero_steps = if lost { p.zero_steps + 1 } else { 0 };
            if p.zero_steps < self.spec.skip_limit {
                return Ok(());
            }
            return Err(TrainError::Vanished {
                steps: p.zero_steps,
                policy: self.policy.name.clone(),
                attempt: p.attempts,
                committed: p.committed,
                loss: report.loss,
                scale: report.scale,
            });
        }
        p.skips_in_a_row += 1;
        if !self.spec.scaling.can_fall(report.scale) {
            p.hopeless_skips += 1;
        }
        if p.hopeless_skips < self.spec.skip_limit {
            return Ok(());
        }
        Err(TrainError::Diverged {
            skips: p.skips_in_a_row,
            policy: self.policy.name.clone(),
            attempt: p.attempts,
            committed: p.committed,
            loss: report.loss,
            scale: report.scale,
            cause: report.cause.unwrap_or(Cause::Forward),
        })
    }

    /// Where the first number that is not finite was seen. The weights are those before the step: it did not commit.
    fn cause(&self, report: &StepReport, x: HostSlice<'_>) -> Result<Cause, EngineError> {
        let finite = |values: &[f32]| values.iter().all(|v| v.is_finite());
        if let HostSlice::F32(x) = x
            && !finite(x)
        {
            return Ok(Cause::Data);
        }
        for slot in self.lasting_slots() {
            if !finite(self.state.download(&slot.name)?.f32()) {
                return Ok(Cause::Weights);
            }
        }
        Ok(match (report.loss.is_finite(), report.grad_norm.is_finite()) {
            (false, _) => Cause::Forward,
            (true, false) => Cause::Backward,
            (true, true) => Cause::Statistics,
        })
    }

    /// The gradient of a weight in the last step, unscaled: only of a session made by [`Session::with_gradients`].
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

    /// What `attempt`, the next step or the last, which did not commit, has found in a slot. A step changes the scales of codes
    /// though it does not commit.
    ///
    /// # Errors
    /// No such slot.
    pub(crate) fn download_before(&self, slot: &str, attempt: u64) -> Result<HostTensor, TrainError> {
        let before = self.scales.values.iter().find(|(name, _)| name == slot);
        match before.filter(|_| self.scales.attempt == Some(attempt)) {
            Some((_, scale)) => Ok(HostTensor::F32(vec![*scale])),
            None => self.download(slot),
        }
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
        self.scales.attempt = None;
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

    /// Bytes the engine holds at present for the training step: its state, arena, constants, outputs and scratch.
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
        let others = self.eval.iter().chain(&self.predict).map(|c| c.program.arena_bytes());
        let others = others.chain(self.apply.iter().map(|p| p.arena_bytes()));
        others.fold(self.train.arena_bytes(), usize::max)
    }

    /// From now on, measures each group of the training program's plan in each step.
    pub fn measure(&mut self) {
        self.train.measure();
    }

    /// Time spent since [`Session::measure`] in each group, in the order of the plan's; empty if the engine cannot tell.
    pub fn group_times(&self) -> &[Duration] {
        self.train.times()
    }

    /// Time from model to compiled training program, without that of making its state.
    pub fn compile_time(&self) -> Duration {
        self.compile_time
    }
}

/// The random key of an attempt: seed and attempt, low word first.
pub(crate) fn key(seed: u64, attempt: u64) -> [i32; 4] {
    [seed, seed >> 32, attempt, attempt >> 32].map(|word| word as u32 as i32)
}
