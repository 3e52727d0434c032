//! What happens during a training of `train`: its log, its display, its trackers, and when it
//! stops.

use std::time::Instant;

use halfstep::train::checkpoint::CheckpointEvent;
use halfstep::train::doctor::{Diagnosis, Sample};
use halfstep::train::metrics::{EvaluationMetrics, StepMetrics};
use halfstep::train::run_log::LogPosition;
use halfstep::train::session::Session;
use halfstep::train::train_loop::{Callbacks, Proceed, RunError};

use super::display::Display;
use crate::cli::interrupt;
use crate::cli::progress::LogCallbacks;
use crate::cli::track::Tracking;

/// The callbacks of one run.
pub struct TrainCallbacks<'a, 'd> {
    /// Write the log.
    pub log: LogCallbacks<'a, 'd>,
    /// Sends to trackers.
    pub tracking: Tracking,
    /// Shows what happens.
    pub display: &'a Display,
    /// When to stop, whatever is done by then.
    pub deadline: Option<Instant>,
    /// Why the last checkpoint could not be written.
    pub checkpoint_error: Option<String>,
}

impl Callbacks for TrainCallbacks<'_, '_> {
    fn step(&mut self, metrics: &StepMetrics) -> Result<Proceed, RunError> {
        self.log.step(metrics)?;
        self.tracking.step(metrics);
        self.tracking.take_warnings().iter().for_each(|warning| self.display.warn(warning));
        self.display.step(metrics);
        Ok(self.proceed())
    }

    fn proceed(&self) -> Proceed {
        let over = self.deadline.is_some_and(|at| Instant::now() >= at);
        if over || interrupt::asked() { Proceed::Stop } else { Proceed::Continue }
    }

    fn evaluation(&mut self, metrics: &EvaluationMetrics, session: &Session<'_>) -> Result<(), RunError> {
        self.log.evaluation(metrics, session)?;
        self.tracking.evaluation(metrics);
        self.display.evaluation(metrics);
        Ok(())
    }

    fn sampled(&mut self, sample: &Sample) -> Result<(), RunError> {
        self.log.sampled(sample)
    }

    fn diagnosed(&mut self, diagnosis: &Diagnosis) -> Result<(), RunError> {
        self.log.diagnosed(diagnosis)
    }

    fn checkpoint(&mut self, event: &CheckpointEvent) {
        self.tracking.checkpoint(event);
        self.display.checkpoint(event);
        self.checkpoint_error = match event {
            CheckpointEvent::Written { .. } => None,
            CheckpointEvent::Failed { error, .. } => Some(error.to_string()),
        };
    }

    fn log_position(&self) -> LogPosition {
        self.log.log_position()
    }
}
