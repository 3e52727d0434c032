//! Trains until a step fails, or for so many steps, and looks at the last one.

use halfstep_data::{Batch, Sampler as Order};
use halfstep_graph::engine::Engine;
use serde::Serialize;

use super::diagnose::diagnose;
use super::diagnosis::{Cause, Diagnosis};
use super::observe::Replayed;
use super::sample::{Sample, in_f32, scale_of};
use crate::checkpoint::{Latest, host_slice};
use crate::recipe::Experiment;
use crate::session::TrainError;
use crate::train_loop::RunError;

/// What an examination found.
#[derive(Serialize)]
pub struct Examination {
    /// What is wrong with the last step, if anything is.
    pub diagnosis: Diagnosis,
    /// The range that every value of that step would take in f32, beside the format it is stored
    /// in.
    pub sample: Sample,
    /// Steps tried before it.
    pub steps: u64,
    /// Whether it failed; if not, so many steps were all it was asked for.
    pub failed: bool,
}

impl Experiment {
    /// Trains as [`Experiment::run`] does, bit for bit, from the first step or a checkpoint, until
    /// as many steps in a row are skipped as the recipe's `[doctor]` says, the run diverges, or
    /// `steps` more are done; then repeats the last step with every value observed. `progress` is
    /// called after each attempt, and ends it early by false.
    ///
    /// # Errors
    /// The data cannot be drawn; the engine fails; the checkpoint does not fit.
    pub fn examine(
        &self,
        engine: &dyn Engine,
        policy: &str,
        seed: u64,
        from: Option<&Latest>,
        steps: u64,
        progress: &mut dyn FnMut(u64) -> bool,
    ) -> Result<Examination, RunError> {
        let mut session = self.session(engine, policy, seed)?;
        if let Some(latest) = from {
            latest.restore(&mut session)?;
        }
        let size = self.recipe.train.batch;
        let mut order = Order::new(self.data.train.len(), size, seed)?;
        let mut batch = Batch::new(self.info.input, size);
        let end = session.progress().attempts.saturating_add(steps).min(self.steps);
        loop {
            let attempt = session.progress().attempts;
            let (draw, indices) = order.batch(attempt);
            self.data.train.fill_batch(indices, draw, &mut batch)?;
            let replayed = Replayed { x: host_slice(&batch.x), y: &batch.labels, attempt };
            let mut at_scale = None;
            if attempt >= end || !progress(attempt) {
                at_scale = Some((scale_of(&session)?, false));
            } else {
                let factor = self.recipe.schedule.factor(session.progress().committed, self.steps);
                let lr = self.recipe.optimiser.lr() * factor;
                match session.step(replayed.x, replayed.y, lr) {
                    Ok(report) => {
                        if session.progress().skips_in_a_row == self.recipe.doctor.skips {
                            at_scale = Some((f64::from(report.scale), true));
                        }
                    }
                    Err(TrainError::Diverged { scale, .. } | TrainError::Vanished { scale, .. }) => {
                        at_scale = Some((f64::from(scale), true));
                    }
                    Err(e) => return Err(e.into()),
                }
            }
            let Some((scale, failed)) = at_scale else { continue };
            let mut diagnosis = diagnose(&session, &replayed, scale)?;
            self.locate(&mut diagnosis)?;
            let sample = in_f32(&session, &replayed, scale)?;
            return Ok(Examination { diagnosis, sample, steps: attempt, failed });
        }
    }

    /// Adds which sample of the training data a bad one is.
    ///
    /// # Errors
    /// A batch larger than the data.
    pub(crate) fn locate(&self, diagnosis: &mut Diagnosis) -> Result<(), RunError> {
        if let Cause::BadInput { sample, .. } = diagnosis.cause {
            let part = &self.data.train;
            let mut order = Order::new(part.len(), self.recipe.train.batch, diagnosis.seed)?;
            let number = order.batch(diagnosis.attempt).1[sample];
            diagnosis
                .evidence
                .push(format!("sample {sample} of the batch is number {number} of the training data"));
        }
        Ok(())
    }
}
