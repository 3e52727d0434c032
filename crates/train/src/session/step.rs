//! One training step of a session: what is run, and what its outcome counts for.

use halfstep_graph::engine::{EngineError, HostSlice, output_id};
use halfstep_graph::{Graph, OutputId};
use halfstep_nn::KEY_INPUT;
use serde::{Deserialize, Serialize};

use super::{Cause, Session, TrainError};
use crate::doctor::{self, Replayed};
use crate::scaler::FLUSHED_SLOT;
use crate::step::NORM_LIMIT;

/// What one step did.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepReport {
    /// Mean loss of the batch, before the update.
    pub loss: f32,
    /// Global norm of the unscaled gradients, before clipping.
    pub grad_norm: f32,
    /// Whether the step changed the model; if not, a gradient, a running statistic or a moment was
    /// not finite.
    pub committed: bool,
    /// The loss scale used.
    pub scale: f32,
    /// Of a step that did not commit: where the first number that is not finite was seen.
    pub cause: Option<Cause>,
}

/// Loss above which gradients of nothing but zeros are lost ones. A batch of n rows with this loss
/// has a logit whose gradient is at least 0.01 / n.
const LOSS: f32 = 0.01;

/// The outputs that a step is reported from: of its last program.
pub(super) fn reported(graph: &Graph) -> Result<[OutputId; 4], EngineError> {
    let id = |name| output_id(graph, name);
    Ok([id("loss")?, id("grad_norm")?, id("committed")?, id("scale")?])
}

impl Session<'_> {
    /// One training step on a batch, at this learning rate. On several ranks, all take this step
    /// together, each with its [`Session::share`] of the samples; all get the same report.
    ///
    /// A step whose gradients are not finite is reported as not committed and changes nothing but
    /// the loss scaler.
    ///
    /// # Errors
    /// Inputs of the wrong size, or an index out of range, with nothing changed and nothing
    /// counted; [`TrainError::Diverged`] after too many skipped steps that a lower loss scale
    /// cannot cure, [`TrainError::Vanished`] after as many whose gradients are all zero.
    pub fn step(&mut self, x: HostSlice<'_>, y: &[i32], lr: f64) -> Result<StepReport, TrainError> {
        self.step_ahead((x, y), lr, || None)
    }

    /// [`Session::step`] on samples and their targets, where those of the step after it are known:
    /// `next` is asked for them while this step may still be under way, so that an engine with
    /// memory of its own can copy them there meanwhile.
    ///
    /// # Errors
    /// As [`Session::step`].
    pub fn step_ahead<'n>(
        &mut self,
        batch: (HostSlice<'_>, &[i32]),
        lr: f64,
        next: impl FnOnce() -> Option<(HostSlice<'n>, &'n [i32])>,
    ) -> Result<StepReport, TrainError> {
        let (x, y) = batch;
        let attempt = self.progress.attempts;
        if self.apply.is_some() {
            self.check_parts(batch)?;
        }
        if self.spec.scaling.probes(attempt) {
            let batch = Replayed { x, y, attempt };
            let flushed = doctor::flushed(self, &batch, doctor::scale_of(self)?)? as f32;
            self.state.upload(FLUSHED_SLOT, HostSlice::F32(&[flushed]))?;
        }
        let mut key = key(self.spec.seed, attempt);
        // Random draws are keyed by a sample's place in the whole batch.
        key[3] = key[3].wrapping_add(self.share().start as i32);
        let lr = [lr as f32];
        let (key_of, lr) = ((KEY_INPUT, HostSlice::I32(&key)), ("lr", HostSlice::F32(&lr)));
        self.last_run = None;
        if self.apply.is_some() {
            self.accumulate(batch, key)?;
        }
        match &mut self.apply {
            Some(apply) => apply.run(&mut self.state, &[lr, key_of])?,
            None => self.train.run(&mut self.state, &[("x", x), ("y", HostSlice::I32(y)), key_of, lr])?,
        }
        self.last_run = Some(attempt);
        if let Some(next) = next() {
            self.prefetch(next, 0);
        }
        let mut scalars = [0.0; 4];
        let last = self.apply.as_mut().unwrap_or(&mut self.train);
        last.read_scalars(&self.reported, &mut scalars)?;
        let [loss, grad_norm, committed, scale] = scalars;
        let mut report = StepReport { loss, grad_norm, committed: committed != 0.0, scale, cause: None };
        if !report.committed {
            report.cause = Some(self.cause(&report, x)?);
        }
        self.count(&report)?;
        Ok(report)
    }

    /// Sums up the gradients of the parts of a batch.
    fn accumulate(&mut self, batch: (HostSlice<'_>, &[i32]), key: [i32; 4]) -> Result<(), TrainError> {
        let parts = self.spec.options.accumulate;
        for number in 0..parts {
            let (x, y) = self.part(batch, number)?;
            let mut key = key;
            key[3] = key[3].wrapping_add((number * self.part_samples()) as i32);
            let first = [if number == 0 { 1.0 } else { 0.0 }];
            let (key, first) = ((KEY_INPUT, HostSlice::I32(&key)), ("first", HostSlice::F32(&first)));
            self.train.run(&mut self.state, &[("x", x), ("y", HostSlice::I32(y)), key, first])?;
            if number + 1 < parts {
                self.prefetch(batch, number + 1);
            }
        }
        Ok(())
    }

    /// Announces a part of a batch to the program that will run it.
    fn prefetch(&mut self, batch: (HostSlice<'_>, &[i32]), number: usize) {
        // What has a wrong size is refused by its own step.
        if let Ok((x, y)) = self.part(batch, number) {
            self.train.prefetch(&[("x", x), ("y", HostSlice::I32(y))]);
        }
    }

    /// Checks all parts of a batch before the first is run.
    fn check_parts(&self, batch: (HostSlice<'_>, &[i32])) -> Result<(), TrainError> {
        for number in 0..self.spec.options.accumulate {
            let (x, y) = self.part(batch, number)?;
            self.checks.check_indices(&[("x", x), ("y", HostSlice::I32(y))])?;
        }
        Ok(())
    }

    /// Samples that the training program works through at a time.
    pub(crate) fn part_samples(&self) -> usize {
        self.share().len() / self.spec.options.accumulate
    }

    /// A part of this rank's batch: the whole of it where it is not worked through in parts.
    ///
    /// # Errors
    /// A batch of another size.
    pub(crate) fn part<'b>(
        &self,
        (x, y): (HostSlice<'b>, &'b [i32]),
        number: usize,
    ) -> Result<(HostSlice<'b>, &'b [i32]), TrainError> {
        let (elements, rows) = (self.input.elements(), self.input.rows(1));
        let batch = self.share().len();
        if (x.len(), y.len()) != (batch * elements, batch * rows) {
            return Err(TrainError::Batch { samples: x.len(), targets: y.len(), elements, rows });
        }
        let samples = number * self.part_samples()..(number + 1) * self.part_samples();
        let range = samples.start * elements..samples.end * elements;
        let x = match x {
            HostSlice::F32(x) => HostSlice::F32(&x[range]),
            HostSlice::I32(x) => HostSlice::I32(&x[range]),
        };
        Ok((x, &y[samples.start * rows..samples.end * rows]))
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

    /// Where the first number that is not finite was seen. The weights are those before the step:
    /// it did not commit.
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
        let clipped = f64::from(report.grad_norm).min(self.spec.clip.unwrap_or(f64::INFINITY));
        Ok(match (report.loss.is_finite(), report.grad_norm.is_finite()) {
            (false, _) => Cause::Forward,
            (true, false) => Cause::Backward,
            (true, true) if clipped > NORM_LIMIT => Cause::Moments,
            (true, true) => Cause::Statistics,
        })
    }
}

/// The random key of an attempt: seed and attempt, low word first.
pub(crate) fn key(seed: u64, attempt: u64) -> [i32; 4] {
    [seed, seed >> 32, attempt, attempt >> 32].map(|word| word as u32 as i32)
}
