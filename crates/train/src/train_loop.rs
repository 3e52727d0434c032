//! The loop: batches, steps, evaluations, and what is measured on the way.

use std::path::Path;
use std::time::Instant;

use halfstep_data::{Batch, Draw, InOrder, Part};
use halfstep_graph::communicator::Communicator;
use halfstep_graph::engine::Engine;
use halfstep_graph::precision::{Policy, PolicyError};

pub use crate::callbacks::{Callbacks, Proceed, RunError, Unwatched};
use crate::checkpoint::precision::ScaleChange;
use crate::checkpoint::{
    CheckpointError, Checkpoints, DataPosition, Latest, RandomState, RunState, SchedulePosition, host_slice,
    load,
};
use crate::doctor::{Replayed, Sampler, diagnose, scale_of};
use crate::loader::Loader;
use crate::metrics::{EvaluationMetrics, Event, Measured, Outcome, RunRecord, StepMetrics};
use crate::ranks::{BatchSums, gather_in_turns, several, share, together};
use crate::recipe::{Experiment, Length};
use crate::run_log::events;
use crate::scaler::LossScale;
use crate::schedule::Schedule;
use crate::session::{Session, SessionSpec, StepReport, TrainError};

/// How often a run is evaluated when its recipe does not say.
const EVALUATIONS: u64 = 12;

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
    /// # Errors
    /// No policy has that name.
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
            options: self.recipe.train.options.clone(),
            expose_gradients: false,
        };
        Ok((policy, spec))
    }

    /// A model with first weights, compiled for `engine`.
    ///
    /// # Errors
    /// Not enough memory; no such policy.
    pub fn session<'a>(
        &'a self,
        engine: &'a dyn Engine,
        policy: &str,
        seed: u64,
    ) -> Result<Session<'a>, RunError> {
        let (policy, spec) = self.session_spec(policy, seed)?;
        Ok(Session::new(engine, self.model.as_ref(), &self.input, &policy, &spec)?)
    }

    /// Steps between evaluations: as the recipe says, or about a dozen times in a run, at ends of
    /// epochs if it is counted in epochs.
    pub fn evaluate_every(&self) -> u64 {
        match (self.recipe.train.evaluate_every, self.recipe.train.length) {
            (Some(steps), _) => steps,
            (None, Length::Epochs(epochs)) => self.steps_per_epoch * epochs.div_ceil(EVALUATIONS),
            (None, Length::Steps(steps)) => steps.div_ceil(EVALUATIONS),
        }
    }

    /// Trains in one precision with one seed, from the first step to the last, and keeps no
    /// checkpoints.
    ///
    /// The batches depend on the seed and the number of steps tried alone, so that runs of several
    /// precisions with one seed see the same. The time of a step is that of the program; drawing
    /// the batch is not in it.
    ///
    /// # Errors
    /// As [`RunError`] lists. A run that diverges ends with [`Outcome::Diverged`] in its record.
    pub fn run<'a>(
        &'a self,
        engine: &'a dyn Engine,
        policy: &str,
        seed: u64,
        callbacks: &mut dyn Callbacks,
    ) -> Result<Run<'a>, RunError> {
        self.run_with(engine, policy, seed, callbacks, Keeping::default())
    }

    /// [`Experiment::run`] with checkpoints, or from one: then the run goes on bit for bit as if it
    /// had never stopped.
    ///
    /// A run that is stopped ends with a checkpoint of its last step. When this returns, all
    /// checkpoints are written, or the watcher knows of those that could not be.
    ///
    /// On several ranks, all carry out the run together: the state that rank 0 begins with is
    /// everyone's, whoever stops stops all, and all have the same session in the end. Only rank 0
    /// is given checkpoints to keep.
    ///
    /// # Errors
    /// As there; the checkpoint is of another run.
    pub fn run_with<'a>(
        &'a self,
        engine: &'a dyn Engine,
        policy: &str,
        seed: u64,
        callbacks: &mut dyn Callbacks,
        keeping: Keeping<'_>,
    ) -> Result<Run<'a>, RunError> {
        let Keeping { mut checkpoints, resume, start } = keeping;
        let mut session = self.session(engine, policy, seed)?;
        if let Some(path) = start {
            session.began_with(path);
        }
        let mut record = RunRecord {
            policy: policy.to_string(),
            seed,
            last_scale: 1.0,
            batch: self.recipe.train.batch,
            arena_bytes: session.plan().arena_bytes,
            state_bytes: session.plan().state_bytes(),
            ..RunRecord::default()
        };
        let mut history = ScaleHistory::default();
        if let (Some(latest), Some(checkpoints)) = (resume, &checkpoints) {
            self.check_same_run(latest, &record)?;
            latest.restore(&mut session)?;
            for event in events(&checkpoints.log, &latest.state.log)? {
                record.add(&event);
                if let Event::Step(step) = &event {
                    history.push(step.attempt, step.scale);
                }
            }
            record.wall_seconds = latest.state.wall_seconds;
        } else if let Some(path) = start {
            load(&mut session, path)?;
        }
        let ranks = several(engine);
        let mut kept = checkpoints.is_some();
        if let Some(ranks) = ranks {
            let begin = (std::mem::take(&mut record.evaluations), kept);
            (record.evaluations, kept) = share(begin, ranks, &mut session)?;
        }
        let mut running = Running {
            experiment: self,
            engine,
            ranks,
            callbacks,
            started: Instant::now(),
            before: record.wall_seconds,
            history,
            sampler: Sampler::default(),
        };
        record.outcome = running.steps(&mut session, &mut record, checkpoints.as_deref_mut())?;
        // An evaluation of the last state, unless the run goes on later. A model that diverged has
        // the weights of its last good step.
        let goes_on = record.outcome == Outcome::Interrupted && kept;
        if !goes_on && record.evaluations.last().is_none_or(|e| e.attempt != session.progress().attempts) {
            running.evaluate(&mut session, &mut record)?;
        }
        if record.outcome == Outcome::Finished
            && let Some(reason) = running.ends_broken(&session, &record)
        {
            record.outcome = Outcome::Diverged { reason };
        }
        if let Some(checkpoints) = checkpoints {
            for event in checkpoints.settle() {
                running.callbacks.checkpoint(&event);
            }
        }
        record.wall_seconds = running.wall_seconds();
        Ok(Run { session, record })
    }

    /// Samples of an evaluation's batch: as many as a step works through at a time.
    pub fn evaluation_batch(&self) -> usize {
        self.recipe.train.batch / self.recipe.train.options.accumulate.max(1)
    }

    /// Whether so many of the last evaluations as the recipe has patience for were no better than
    /// the best before them.
    fn out_of_patience(&self, evaluations: &[EvaluationMetrics]) -> bool {
        let Some(patience) = self.recipe.train.patience else { return false };
        let by = self.recipe.checkpoint.metric;
        // The first of equally good ones.
        let best = evaluations.iter().enumerate().min_by(|a, b| by.compare(a.1, b.1).then(a.0.cmp(&b.0)));
        best.is_some_and(|(i, _)| (evaluations.len() - 1 - i) as u64 >= patience)
    }

    /// An error unless a checkpoint is of this experiment.
    fn check_same_run(&self, latest: &Latest, record: &RunRecord) -> Result<(), CheckpointError> {
        let state = &latest.state;
        let scheduled = |schedule: &Schedule, total: u64| {
            let text = toml::to_string(schedule).unwrap_or_default();
            let over =
                if schedule.depends_on_length() { format!(" over {total} steps") } else { String::new() };
            format!("`{}`{over}", text.trim_end().replace('\n', ", "))
        };
        let there = scheduled(&state.schedule.schedule, state.schedule.total);
        let facts = [
            ("its precision", state.policy.clone(), record.policy.clone()),
            ("its seed", state.seed.to_string(), record.seed.to_string()),
            ("the fingerprint of its data", state.data.fingerprint.clone(), self.info.fingerprint.clone()),
            ("its schedule", there, scheduled(&self.recipe.schedule, self.steps)),
        ];
        match facts.into_iter().find(|(_, there, here)| there != here) {
            Some((what, there, here)) => {
                Err(latest.of_other_run(format!("{what} was {there}, now it is {here}")))
            }
            None => Ok(()),
        }
    }
}

/// Checkpoints to make and to begin with.
#[derive(Default)]
pub struct Keeping<'c> {
    /// Where checkpoints go.
    pub checkpoints: Option<&'c mut Checkpoints>,
    /// The checkpoint to begin with; needs `checkpoints`, whose directory has the log.
    pub resume: Option<&'c Latest>,
    /// The weights to begin with, where there is no checkpoint yet, in place of those that are
    /// drawn.
    pub start: Option<&'c Path>,
}

/// Every step whose loss scale was another than the step's before.
#[derive(Default)]
struct ScaleHistory(Vec<ScaleChange>);

impl ScaleHistory {
    fn push(&mut self, attempt: u64, scale: f32) {
        if self.0.last().is_none_or(|last| last.scale != scale) {
            self.0.push(ScaleChange { attempt, scale });
        }
    }
}

/// A run on its way.
struct Running<'r> {
    experiment: &'r Experiment,
    engine: &'r dyn Engine,
    ranks: Option<&'r Communicator>,
    callbacks: &'r mut dyn Callbacks,
    started: Instant,
    /// Seconds that the run had taken before it was resumed.
    before: f64,
    history: ScaleHistory,
    sampler: Sampler,
}

impl Running<'_> {
    fn steps(
        &mut self,
        session: &mut Session<'_>,
        record: &mut RunRecord,
        mut checkpoints: Option<&mut Checkpoints>,
    ) -> Result<Outcome, RunError> {
        let experiment = self.experiment;
        let (every, batch) = (experiment.evaluate_every(), experiment.recipe.train.batch);
        // So that memory for it cannot be missing in the middle of a run.
        session.prepare_evaluation(self.evaluation_samples())?;
        std::thread::scope(|scope| {
            let numbers = session.progress().attempts..experiment.steps;
            let (part, shape) = (&experiment.data.train, experiment.info.input);
            let mut loader =
                Loader::start(scope, part, shape, (batch, session.share()), record.seed, numbers)?;
            loop {
                let attempts = session.progress().attempts;
                let ends = attempts >= experiment.steps;
                // Here and not after the step: a run that was stopped between the two resumes with
                // the evaluation.
                let mut ends = ends;
                let due = attempts > 0 && (attempts.is_multiple_of(every) || ends);
                let evaluated =
                    |record: &RunRecord| record.evaluations.last().is_some_and(|e| e.attempt == attempts);
                if due && !evaluated(record) && self.evaluate(session, record)? == Proceed::Stop {
                    return self.stop(session, record, checkpoints);
                }
                if evaluated(record) && experiment.out_of_patience(&record.evaluations) {
                    record.out_of_patience = experiment.recipe.train.patience;
                    ends = true;
                }
                if let Some(checkpoints) = checkpoints.as_deref_mut() {
                    let evaluation = record.evaluations.last().filter(|e| e.attempt == attempts);
                    if checkpoints.due(attempts, evaluation) || (ends && checkpoints.last() != Some(attempts))
                    {
                        checkpoints.take(session, self.state(session, record), &self.history.0)?;
                    }
                    for event in checkpoints.news() {
                        self.callbacks.checkpoint(&event);
                    }
                }
                if ends {
                    return Ok(Outcome::Finished);
                }
                let proceed = match self.step(session, record, &mut loader)? {
                    Stepped::Done(proceed) => proceed,
                    Stepped::Diverged(reason) => return Ok(Outcome::Diverged { reason }),
                };
                record.data_seconds = loader.waited.as_secs_f64();
                if proceed == Proceed::Stop {
                    return self.stop(session, record, checkpoints);
                }
            }
        })
    }

    fn stop(
        &mut self,
        session: &Session<'_>,
        record: &RunRecord,
        checkpoints: Option<&mut Checkpoints>,
    ) -> Result<Outcome, RunError> {
        if let Some(checkpoints) = checkpoints
            && checkpoints.last() != Some(session.progress().attempts)
        {
            checkpoints.take(session, self.state(session, record), &self.history.0)?;
        }
        Ok(Outcome::Interrupted)
    }

    fn step(
        &mut self,
        session: &mut Session<'_>,
        record: &mut RunRecord,
        loader: &mut Loader,
    ) -> Result<Stepped, RunError> {
        let experiment = self.experiment;
        let attempt = session.progress().attempts;
        // The loader draws as many as there are steps.
        let Some(batch) = loader.next() else { return Err(RunError::LoaderEnded) };
        let batch = batch?;
        let factor = experiment.recipe.schedule.factor(session.progress().committed, experiment.steps);
        let lr = experiment.recipe.optimiser.lr() * factor;
        let replayed = Replayed { x: host_slice(&batch.x), y: &batch.labels, attempt };
        let settings = &experiment.recipe.doctor;
        let samples = settings.every > 0 && experiment.recipe.train.memory_budget.is_none();
        if samples && (attempt + 1).is_multiple_of(settings.every) {
            let sample = self.sampler.sample(session, &replayed, scale_of(session)?)?;
            self.callbacks.sampled(&sample)?;
        }
        let start = Instant::now();
        let ahead = &mut *loader;
        let result = session.step_ahead((replayed.x, replayed.y), lr, move || {
            ahead.peek().map(|next| (host_slice(&next.x), &next.labels[..]))
        });
        let ms = start.elapsed().as_secs_f64() * 1e3;
        // A step that changed nothing can be repeated as it was.
        let failed_at = match &result {
            Ok(r) if !r.committed && session.progress().skips_in_a_row == settings.skips => Some(r.scale),
            Err(TrainError::Diverged { scale, .. } | TrainError::Vanished { scale, .. }) => Some(*scale),
            Ok(_) | Err(_) => None,
        };
        let mut diagnosis = failed_at.map(|scale| diagnose(session, &replayed, f64::from(scale)));
        // A scale that falls by itself is no fault.
        diagnosis = diagnosis
            .filter(|d| !d.as_ref().is_ok_and(|d| result.is_ok() && d.recovers(&session.spec().scaling)));
        if let Some(Ok(diagnosis)) = &mut diagnosis {
            experiment.locate(diagnosis)?;
            self.callbacks.diagnosed(diagnosis)?;
        }
        loader.give_back(batch);
        let report = match result {
            Ok(report) => report,
            Err(e @ (TrainError::Diverged { .. } | TrainError::Vanished { .. })) => {
                record.skipped = session.progress().attempts - session.progress().committed;
                let found = match diagnosis {
                    Some(Ok(diagnosis)) => format!(". The doctor: {}", diagnosis.sentence()),
                    Some(Err(e)) => format!(". The doctor could not repeat the step: {e}"),
                    None => String::new(),
                };
                return Ok(Stepped::Diverged(format!("{e}{found}")));
            }
            Err(e) => return Err(e.into()),
        };
        let StepReport { loss, grad_norm, scale, committed, cause } = report;
        let metrics = StepMetrics { attempt, loss, lr, grad_norm, scale, committed, ms, cause };
        self.history.push(attempt, scale);
        record.add(&Event::Step(metrics.clone()));
        let proceed = self.callbacks.step(&metrics)?;
        Ok(Stepped::Done(together(self.ranks, proceed)?))
    }

    /// Samples that are evaluated at a time on this rank.
    fn evaluation_samples(&self) -> usize {
        self.experiment.evaluation_batch().div_ceil(self.ranks.map_or(1, Communicator::size))
    }

    fn evaluate(&mut self, session: &mut Session<'_>, record: &mut RunRecord) -> Result<Proceed, RunError> {
        let (batch, data) = (self.evaluation_samples(), &self.experiment.data);
        let mut measured = Vec::new();
        for part in [&data.test].into_iter().chain(&data.validation) {
            let proceed = || self.callbacks.proceed();
            let Some(of_part) = evaluate_while(session, part, batch, self.ranks, &proceed)? else {
                return Ok(Proceed::Stop);
            };
            measured.push(of_part);
        }
        let metrics = metrics_of(session, measured[0], measured.get(1).copied());
        self.callbacks.evaluation(&metrics, session)?;
        record.add(&Event::Evaluation(metrics));
        Ok(Proceed::Continue)
    }

    /// What is wrong with a run that has done all its steps, but ends with a loss that is no
    /// number, or in steps that changed nothing and that a lower loss scale could not have cured.
    fn ends_broken(&self, session: &Session<'_>, record: &RunRecord) -> Option<String> {
        let (progress, last) = (session.progress(), record.evaluations.last());
        let committed = progress.committed;
        if let Some(e) = last.filter(|e| !e.loss.is_finite()) {
            return Some(format!(
                "the run has diverged: after its last step the loss on the test data is {} ({committed} of {} steps \
                 committed); lower the learning rate, or clip the gradients",
                e.loss, progress.attempts
            ));
        }
        (progress.hopeless_skips > 0).then(|| {
            format!(
                "the run has diverged: its last {} steps changed nothing, because loss or gradients were not finite \
                 ({committed} of {} steps committed); the weights are those before",
                progress.hopeless_skips, progress.attempts
            )
        })
    }

    fn wall_seconds(&self) -> f64 {
        self.before + self.started.elapsed().as_secs_f64()
    }

    fn state(&self, session: &Session<'_>, record: &RunRecord) -> RunState {
        let (experiment, progress) = (self.experiment, session.progress());
        RunState {
            version: env!("CARGO_PKG_VERSION").into(),
            engine: self.engine.name(),
            policy: record.policy.clone(),
            seed: record.seed,
            progress,
            data: DataPosition {
                fingerprint: experiment.info.fingerprint.clone(),
                epoch: progress.attempts / experiment.steps_per_epoch,
                batch: progress.attempts % experiment.steps_per_epoch,
            },
            random: RandomState {
                generator: "philox4x32-10".into(),
                seed: record.seed,
                attempt: progress.attempts,
            },
            schedule: SchedulePosition {
                schedule: experiment.recipe.schedule.clone(),
                committed: progress.committed,
                total: experiment.steps,
            },
            log: self.callbacks.log_position(),
            evaluation: record.evaluations.last().filter(|e| e.attempt == progress.attempts).cloned(),
            wall_seconds: self.wall_seconds(),
        }
    }
}

enum Stepped {
    Done(Proceed),
    Diverged(String),
}

/// Mean loss and accuracy over all samples of `part`, in batches of `batch`.
///
/// # Errors
/// The engine failed.
pub fn evaluate(session: &mut Session<'_>, part: &Part, batch: usize) -> Result<EvaluationMetrics, RunError> {
    let measured = evaluate_while(session, part, batch, None, &|| Proceed::Continue)?;
    // It is never told to stop.
    Ok(metrics_of(session, measured.ok_or(RunError::Unfinished)?, None))
}

fn metrics_of(session: &Session<'_>, test: Measured, validation: Option<Measured>) -> EvaluationMetrics {
    let Measured { loss, accuracy } = test;
    EvaluationMetrics { attempt: session.progress().attempts, loss, accuracy, validation }
}

/// [`evaluate`], broken off between two batches when `proceed` says so: then there is no result.
/// Ranks take turns at the batches.
fn evaluate_while(
    session: &mut Session<'_>,
    part: &Part,
    batch: usize,
    ranks: Option<&Communicator>,
    proceed: &dyn Fn() -> Proceed,
) -> Result<Option<Measured>, RunError> {
    let order = InOrder::new(part.len(), batch)?;
    let mut buffers = Batch::new(part.input(), batch);
    let mut indices = vec![0; batch];
    let (rank, size) = ranks.map_or((0, 1), |r| (r.rank(), r.size()));
    let mut sums = Vec::new();
    for turn in (0..order.steps()).step_by(size) {
        if together(ranks, proceed())? == Proceed::Stop {
            return Ok(None);
        }
        if turn + rank >= order.steps() {
            continue;
        }
        let counted = order.batch(turn + rank, &mut indices)?;
        part.fill_batch(&indices, Draw::AsIs, &mut buffers)?;
        let evaluation = session.evaluate(host_slice(&buffers.x), &buffers.labels)?;
        let n = counted * buffers.labels.len() / batch;
        let loss = evaluation.losses[..n].iter().map(|&l| f64::from(l)).sum::<f64>();
        let hits = evaluation.predictions[..n].iter().zip(&buffers.labels).filter(|(p, y)| p == y).count();
        sums.push(BatchSums { loss, correct: hits as u64, rows: n as u64 });
    }
    if let Some(ranks) = ranks {
        sums = gather_in_turns(ranks, &sums)?;
    }
    let (mut loss, mut correct, mut rows) = (0.0, 0, 0);
    for sum in sums {
        loss += sum.loss;
        correct += sum.correct;
        rows += sum.rows;
    }
    Ok(Some(Measured { loss: loss / rows as f64, accuracy: correct as f64 / rows as f64 }))
}
