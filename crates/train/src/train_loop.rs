//! The loop: batches, steps, evaluations, and what is measured on the way.

use std::time::Instant;

use halfstep_data::{Batch, DataError, Draw, InOrder, Part, Sampler};
use halfstep_graph::engine::Engine;
use halfstep_graph::precision::{Policy, PolicyError};

use crate::checkpoint::{CheckpointError, host_slice};
use crate::metrics::{EvaluationMetrics, Outcome, RunRecord, StepMetrics};
use crate::recipe::{Experiment, Length};
use crate::run_dir::RunDirError;
use crate::scaler::LossScale;
use crate::session::{Session, SessionSpec, TrainError};

/// How often a run is evaluated when its recipe does not say.
const EVALUATIONS: u64 = 12;

/// Why a run could not be carried out. A run that diverged is no such error: its record says so.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The step or the engine failed.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// The data could not be drawn.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A precision that does not exist.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The run directory could not be written.
    #[error(transparent)]
    RunDir(#[from] RunDirError),
    /// A checkpoint could not be written.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
}

/// Whether to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proceed {
    /// Go on.
    Continue,
    /// End after this step, with what was learnt so far.
    Stop,
}

/// Who looks on while a model trains.
pub trait Watch {
    /// After every step.
    ///
    /// Errors: what was measured cannot be kept; the run ends.
    fn step(&mut self, metrics: &StepMetrics) -> Result<Proceed, RunError>;
    /// After every evaluation on the test data; the session is as the evaluation found it.
    ///
    /// Errors: what was measured cannot be kept; the run ends.
    fn evaluation(&mut self, metrics: &EvaluationMetrics, session: &Session<'_>) -> Result<(), RunError>;
}

/// Looks on and keeps nothing.
pub struct Unwatched;

impl Watch for Unwatched {
    fn step(&mut self, _: &StepMetrics) -> Result<Proceed, RunError> {
        Ok(Proceed::Continue)
    }
    fn evaluation(&mut self, _: &EvaluationMetrics, _: &Session<'_>) -> Result<(), RunError> {
        Ok(())
    }
}

/// A run of an experiment in one precision with one seed.
pub struct Run<'a> {
    /// The trained model.
    pub session: Session<'a>,
    /// What was measured.
    pub record: RunRecord,
}

impl Experiment {
    /// The policy of a name with the recipe's overrides, and what a session needs.
    ///
    /// Errors: no policy has that name.
    pub fn session_spec(&self, policy: &str, seed: u64) -> Result<(Policy, SessionSpec), PolicyError> {
        let (policy, scaling): (Policy, LossScale) = self.recipe.precision.resolve(policy)?;
        let spec = SessionSpec {
            optimiser: self.recipe.optimiser.clone(),
            scaling,
            clip: self.recipe.train.clip,
            batch: self.recipe.train.batch,
            seed,
            skip_limit: self.recipe.train.skip_limit,
            memory_budget: self.recipe.train.memory_budget,
        };
        Ok((policy, spec))
    }

    /// A model with first weights, compiled for `engine`.
    ///
    /// Errors: not enough memory; no such policy.
    pub fn session<'a>(
        &'a self,
        engine: &'a dyn Engine,
        policy: &str,
        seed: u64,
    ) -> Result<Session<'a>, RunError> {
        let (policy, spec) = self.session_spec(policy, seed)?;
        Ok(Session::new(engine, self.model.as_ref(), &self.input, &policy, &spec)?)
    }

    /// Steps between evaluations: as the recipe says, or about a dozen times in a run, at ends of epochs if it is counted
    /// in epochs.
    pub fn evaluate_every(&self) -> u64 {
        match (self.recipe.train.evaluate_every, self.recipe.train.length) {
            (Some(steps), _) => steps,
            (None, Length::Epochs(epochs)) => self.steps_per_epoch * epochs.div_ceil(EVALUATIONS),
            (None, Length::Steps(steps)) => steps.div_ceil(EVALUATIONS),
        }
    }

    /// Trains in one precision with one seed.
    ///
    /// The batches depend on the seed and the number of steps tried alone, so that runs of several precisions with one
    /// seed see the same. The time of a step is that of the program; drawing the batch is not in it.
    ///
    /// Errors: as [`RunError`] lists. A run that diverges ends with [`Outcome::Diverged`] in its record.
    pub fn run<'a>(
        &'a self,
        engine: &'a dyn Engine,
        policy: &str,
        seed: u64,
        watch: &mut dyn Watch,
    ) -> Result<Run<'a>, RunError> {
        let session = self.session(engine, policy, seed)?;
        let mut record = RunRecord {
            policy: policy.to_string(),
            seed,
            outcome: Outcome::Finished,
            losses: Vec::new(),
            step_ms: Vec::new(),
            evaluations: Vec::new(),
            skipped: 0,
            last_scale: 1.0,
            batch: self.recipe.train.batch,
            arena_bytes: session.plan().arena_bytes,
            state_bytes: session.plan().state_bytes(),
            wall_seconds: 0.0,
        };
        let mut run = Run { session, record: record.clone() };
        let start = Instant::now();
        record.outcome = self.steps(&mut run.session, &mut record, watch)?;
        // An evaluation of the last state, unless the last step ended with one. A model that diverged has the weights
        // of its last good step.
        if record.evaluations.last().is_none_or(|e| e.attempt != run.session.progress().attempts) {
            evaluate_into(self, &mut run.session, &mut record, watch)?;
        }
        record.wall_seconds = start.elapsed().as_secs_f64();
        run.record = record;
        Ok(run)
    }

    fn steps(
        &self,
        session: &mut Session<'_>,
        record: &mut RunRecord,
        watch: &mut dyn Watch,
    ) -> Result<Outcome, RunError> {
        let settings = &self.recipe.train;
        let mut sampler = Sampler::new(self.data.train.len(), settings.batch, record.seed)?;
        let mut batch = Batch::new(self.info.input, settings.batch);
        let every = self.evaluate_every();
        for attempt in 0..self.steps {
            let (draw, indices) = sampler.batch(attempt);
            self.data.train.fill_batch(indices, draw, &mut batch)?;
            let factor = self.recipe.schedule.factor(session.progress().committed, self.steps);
            let lr = self.recipe.optimiser.lr() * factor;
            let start = Instant::now();
            let report = match session.step(host_slice(&batch.x), &batch.labels, lr) {
                Ok(report) => report,
                Err(e @ TrainError::Diverged { .. }) => {
                    record.skipped = session.progress().attempts - session.progress().committed;
                    return Ok(Outcome::Diverged { reason: e.to_string() });
                }
                Err(e) => return Err(e.into()),
            };
            let ms = start.elapsed().as_secs_f64() * 1e3;
            record.losses.push(report.loss);
            record.step_ms.push(ms as f32);
            record.skipped += u64::from(!report.committed);
            record.last_scale = report.scale;
            let (loss, grad_norm, scale, committed) =
                (report.loss, report.grad_norm, report.scale, report.committed);
            let proceed = watch.step(&StepMetrics { attempt, loss, lr, grad_norm, scale, committed, ms })?;
            if proceed == Proceed::Stop {
                return Ok(Outcome::Interrupted);
            }
            if (attempt + 1).is_multiple_of(every) {
                evaluate_into(self, session, record, watch)?;
            }
        }
        Ok(Outcome::Finished)
    }
}

fn evaluate_into(
    experiment: &Experiment,
    session: &mut Session<'_>,
    record: &mut RunRecord,
    watch: &mut dyn Watch,
) -> Result<(), RunError> {
    let metrics = evaluate(session, &experiment.data.test, experiment.recipe.train.batch)?;
    watch.evaluation(&metrics, session)?;
    record.evaluations.push(metrics);
    Ok(())
}

/// Mean loss and accuracy over all samples of `part`, in batches of `batch`.
///
/// Errors: the engine failed.
pub fn evaluate(session: &mut Session<'_>, part: &Part, batch: usize) -> Result<EvaluationMetrics, RunError> {
    let order = InOrder::new(part.len(), batch)?;
    let mut buffers = Batch::new(part.input(), batch);
    let mut indices = vec![0; batch];
    let (mut loss, mut correct, mut rows) = (0.0, 0, 0);
    for step in 0..order.steps() {
        let counted = order.batch(step, &mut indices)?;
        part.fill_batch(&indices, Draw::AsIs, &mut buffers)?;
        let evaluation = session.evaluate(host_slice(&buffers.x), &buffers.labels)?;
        let n = counted * buffers.labels.len() / batch;
        loss += evaluation.losses[..n].iter().map(|&l| f64::from(l)).sum::<f64>();
        correct += evaluation.predictions[..n].iter().zip(&buffers.labels).filter(|(p, y)| p == y).count();
        rows += n;
    }
    let attempt = session.progress().attempts;
    Ok(EvaluationMetrics { attempt, loss: loss / rows as f64, accuracy: correct as f64 / rows as f64 })
}
