//! Training for some steps, to see whether one fails and whether the model learns.

use std::path::Path;

use halfstep_data::{Batch, Sampler as Order};
use halfstep_graph::engine::Engine;

use super::probe::{Learning, Probe};
use crate::callbacks::RunError;
use crate::checkpoint::{Latest, host_slice, load};
use crate::doctor::{Cause, Replayed, diagnose, scale_of, spoilt_state};
use crate::init::initial_tensor;
use crate::recipe::Experiment;
use crate::session::{Session, TrainError};

/// Asked before every step, with what is done and how many steps of it; false ends it early.
pub(super) type Progress<'p> = &'p mut dyn FnMut(&str, u64) -> bool;

/// What a training begins with.
#[derive(Clone, Copy)]
pub(super) struct Beginning<'r> {
    pub engine: &'r dyn Engine,
    pub seed: u64,
    /// The file of its first weights, where they are not drawn.
    pub start: Option<&'r Path>,
    /// The checkpoint that it goes on from.
    pub from: Option<&'r Latest>,
    /// Slots that are drawn anew.
    pub anew: &'r [String],
}

/// A training of some steps.
pub(super) struct Course<'e> {
    /// As its last step found it.
    pub session: Session<'e>,
    batch: Batch,
    /// The number of the last step, or of the next where none failed.
    pub attempt: u64,
    /// Its loss scale.
    pub scale: f64,
    pub failed: bool,
    /// Whether it was asked to end early.
    pub stopped: bool,
    /// What was wrong with the state before the first step.
    pub spoilt: Option<Cause>,
    /// Losses of the batches.
    pub batches: Vec<f32>,
    /// Norm of the last gradients that were finite.
    pub norm: f32,
    /// Learning rates seen, over those of the rest of the run.
    pub share: f64,
    pub learning: Learning,
    /// Losses of the probe before and after.
    pub before: Vec<f64>,
    pub after: Vec<f64>,
}

impl<'e> Course<'e> {
    /// Trains `experiment` in its own precision for so many steps, or until one fails: as
    /// [`Experiment::run`] does, bit for bit.
    pub fn run(
        experiment: &'e Experiment,
        beginning: &Beginning<'e>,
        steps: u64,
        probe: &Probe,
        what: &str,
        progress: Progress<'_>,
    ) -> Result<Course<'e>, RunError> {
        let recipe = &experiment.recipe;
        let mut session = begin(experiment, beginning)?;
        let spoilt = spoilt_state(&session)?;
        let before = probe.losses(&mut session)?;
        let mut order = Order::new(experiment.data.train.len(), recipe.train.batch, beginning.seed)?;
        let mut batch = Batch::new(experiment.info.input, recipe.train.batch);
        let first = session.progress();
        let end = first.attempts.saturating_add(steps).min(experiment.steps);
        let half = first.attempts + (end - first.attempts) / 2;
        let mut middle = (first.committed, before.clone());
        let (mut batches, mut norm) = (Vec::new(), 0.0);
        let (attempt, scale, failed, stopped) = loop {
            let attempt = session.progress().attempts;
            if attempt == half {
                middle = (session.progress().committed, probe.losses(&mut session)?);
            }
            let (draw, indices) = order.batch(attempt);
            experiment.data.train.fill_batch(indices, draw, &mut batch)?;
            let stopped = attempt < end && !progress(what, attempt - first.attempts);
            if attempt >= end || stopped {
                break (attempt, scale_of(&session)?, false, stopped);
            }
            let replayed = Replayed { x: host_slice(&batch.x), y: &batch.labels, attempt };
            let factor = recipe.schedule.factor(session.progress().committed, experiment.steps);
            match session.step(replayed.x, replayed.y, recipe.optimiser.lr() * factor) {
                Ok(report) => {
                    batches.push(report.loss);
                    norm = if report.grad_norm.is_finite() { report.grad_norm } else { norm };
                    let scale = f64::from(report.scale);
                    if session.progress().skips_in_a_row == recipe.doctor.skips
                        && !recovers(&session, &replayed, scale)?
                    {
                        break (attempt, scale, true, false);
                    }
                }
                Err(TrainError::Diverged { scale, .. } | TrainError::Vanished { scale, .. }) => {
                    break (attempt, f64::from(scale), true, false);
                }
                Err(e) => return Err(e.into()),
            }
        };
        let after = probe.losses(&mut session)?;
        let rate = |from: u64, to: u64| {
            (from..to).map(|step| recipe.schedule.factor(step, experiment.steps)).sum::<f64>()
        };
        let all = rate(first.committed, experiment.steps).max(f64::MIN_POSITIVE);
        let share_at = |committed: u64| (rate(first.committed, committed) / all).min(1.0);
        let share = share_at(session.progress().committed);
        let made = session.progress().attempts - first.attempts;
        let learning = probe.judge(made, &before, (share_at(middle.0), &middle.1), (share, &after));
        Ok(Course {
            session,
            batch,
            attempt,
            scale,
            failed,
            stopped,
            spoilt,
            batches,
            norm,
            share,
            learning,
            before,
            after,
        })
    }

    /// The batch of the last step.
    pub fn replayed(&self) -> Replayed<'_> {
        Replayed { x: host_slice(&self.batch.x), y: &self.batch.labels, attempt: self.attempt }
    }
}

/// A session that has taken no step, or as many as the checkpoint.
fn begin<'e>(experiment: &'e Experiment, beginning: &Beginning<'e>) -> Result<Session<'e>, RunError> {
    let Beginning { engine, seed, start, from, anew } = *beginning;
    let mut session = experiment.session(engine, &experiment.recipe.precision.policy, seed)?;
    if let Some(path) = start {
        session.began_with(path);
    }
    match (from, start) {
        (Some(latest), _) => latest.restore(&mut session)?,
        (None, Some(path)) => load(&mut session, path)?,
        (None, None) => {}
    }
    let slots: Vec<_> = session.slots().iter().filter(|s| anew.contains(&s.name)).cloned().collect();
    for slot in slots {
        session.upload(&slot.name, initial_tensor(&slot, seed).as_slice())?;
    }
    Ok(session)
}

/// Whether steps are skipped for a loss scale that goes on falling until it fits.
fn recovers(session: &Session<'_>, batch: &Replayed<'_>, scale: f64) -> Result<bool, TrainError> {
    let scaling = &session.spec().scaling;
    Ok(scaling.can_fall(scale as f32) && diagnose(session, batch, scale)?.recovers(scaling))
}
