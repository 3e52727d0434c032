//! What a caller learns of a run while it trains, and why a run could not be carried out.

use halfstep_data::DataError;
use halfstep_graph::communicator::CommunicatorError;
use halfstep_graph::precision::PolicyError;

use crate::checkpoint::{CheckpointError, CheckpointEvent};
use crate::doctor::{Diagnosis, Sample};
use crate::metrics::{EvaluationMetrics, StepMetrics};
use crate::recipe::RecipeError;
use crate::run_dir::RunDirError;
use crate::run_log::LogPosition;
use crate::session::{Session, TrainError};

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
    /// A checkpoint could not be used.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A changed recipe does not make a run.
    #[error(transparent)]
    Recipe(#[from] RecipeError),
    /// Ranks could not exchange something.
    #[error(transparent)]
    Communicator(#[from] CommunicatorError),
    /// The thread that draws batches has ended before the run, which only a bug can cause.
    #[error("the thread that draws batches has ended before the run")]
    LoaderEnded,
    /// An evaluation was broken off.
    #[error("the evaluation was broken off")]
    Unfinished,
}

/// Whether to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proceed {
    /// Go on.
    Continue,
    /// End after this step, with what was learnt so far.
    Stop,
}

/// What the training loop notifies its caller through.
pub trait Callbacks {
    /// After every step.
    ///
    /// # Errors
    /// What was measured cannot be kept; the run ends.
    fn step(&mut self, metrics: &StepMetrics) -> Result<Proceed, RunError>;
    /// After every evaluation on the test data; the session is as the evaluation found it.
    ///
    /// # Errors
    /// What was measured cannot be kept; the run ends.
    fn evaluation(&mut self, metrics: &EvaluationMetrics, session: &Session<'_>) -> Result<(), RunError>;
    /// Asked between the batches of an evaluation. One that is broken off is done when the run goes
    /// on.
    fn proceed(&self) -> Proceed {
        Proceed::Continue
    }
    /// When the ranges of a step's values were counted.
    ///
    /// # Errors
    /// They cannot be kept; the run ends.
    fn sampled(&mut self, _: &Sample) -> Result<(), RunError> {
        Ok(())
    }
    /// When a failed step was repeated to find the cause.
    ///
    /// # Errors
    /// It cannot be kept; the run ends.
    fn diagnosed(&mut self, _: &Diagnosis) -> Result<(), RunError> {
        Ok(())
    }
    /// When a checkpoint has been written, or could not be.
    fn checkpoint(&mut self, _: &CheckpointEvent) {}
    /// How far the log of the run has come, of a watcher that keeps one.
    fn log_position(&self) -> LogPosition {
        LogPosition::default()
    }
}

/// Callbacks that do nothing.
pub struct Unwatched;

impl Callbacks for Unwatched {
    fn step(&mut self, _: &StepMetrics) -> Result<Proceed, RunError> {
        Ok(Proceed::Continue)
    }
    fn evaluation(&mut self, _: &EvaluationMetrics, _: &Session<'_>) -> Result<(), RunError> {
        Ok(())
    }
}
