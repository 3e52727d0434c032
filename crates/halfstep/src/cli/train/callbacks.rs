//! What happens during a training of `train`: its log, its display, its trackers, and when it
//! stops.

use std::time::{Duration, Instant};

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

/// Evaluations, and time, after which their share is worth a word; and that share.
const EVALUATIONS: u64 = 3;
const LONG_ENOUGH: Duration = Duration::from_secs(3);
const LARGE: f64 = 0.5;

/// Which part of a run's time its evaluations take.
pub struct EvaluationTime {
    begun: Instant,
    /// When the step before an evaluation ended.
    step_ended: Instant,
    spent: Duration,
    evaluations: u64,
    is_said: bool,
}

impl EvaluationTime {
    /// From now on.
    pub fn new(now: Instant) -> EvaluationTime {
        EvaluationTime { begun: now, step_ended: now, spent: Duration::ZERO, evaluations: 0, is_said: false }
    }

    /// Counts an evaluation that ends `now`. Returns the share once, when it is known to be large.
    fn ended(&mut self, now: Instant) -> Option<f64> {
        self.spent += now - self.step_ended;
        self.evaluations += 1;
        let whole = now - self.begun;
        let share = self.spent.as_secs_f64() / whole.as_secs_f64();
        if self.is_said || self.evaluations < EVALUATIONS || whole < LONG_ENOUGH || share < LARGE {
            return None;
        }
        self.is_said = true;
        Some(share)
    }
}

/// The callbacks of one run.
pub struct TrainCallbacks<'a, 'd> {
    /// Write the log.
    pub log: LogCallbacks<'a, 'd>,
    /// Sends to trackers.
    pub tracking: Tracking,
    /// Shows what happens.
    pub display: &'a Display,
    /// Which part of the time evaluations take.
    pub evaluation_time: EvaluationTime,
    /// Steps from one evaluation to the next.
    pub evaluate_every: u64,
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
        self.evaluation_time.step_ended = Instant::now();
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
        if let Some(share) = self.evaluation_time.ended(Instant::now()) {
            self.display.warn(&format!(
                "evaluations take {:.0} % of the time: a larger `evaluate_every` in [train] makes fewer of them \
                 (now one every {} steps)",
                share * 100.0,
                self.evaluate_every
            ));
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_share_of_evaluations_is_said_once() {
        let begun = Instant::now();
        let at = |seconds: f64| begun + Duration::from_secs_f64(seconds);
        let mut time = EvaluationTime::new(begun);
        let mut evaluation = |from: f64, to: f64| {
            time.step_ended = at(from);
            time.ended(at(to))
        };
        assert_eq!(evaluation(1.0, 2.0), None, "too early");
        assert_eq!(evaluation(2.1, 3.0), None, "too few");
        let share = evaluation(3.1, 4.0).unwrap();
        // 1 + 0.9 + 0.9 of 4 seconds; seconds are rounded to nanoseconds.
        assert!((share - 0.7).abs() < 1e-8, "{share}");
        assert_eq!(evaluation(4.1, 5.0), None, "said before");
        let mut time = EvaluationTime::new(begun);
        for i in 1..10 {
            time.step_ended = at(f64::from(i) - 0.4);
            assert_eq!(time.ended(at(f64::from(i))), None, "less than half");
        }
    }
}
