//! The spans of a run: the whole of it, its epochs, evaluations and checkpoints.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use halfstep::train::metrics::{EvaluationMetrics, StepMetrics};
use halfstep::train::run_dir::{RunDir, RunDirError};
use halfstep::train::run_log::Lines;
use halfstep_track::now;
use halfstep_track::span::{Attribute, Span};

/// Where they are kept in the run directory.
pub const SPANS: &str = "spans.jsonl";

/// Writes spans down as they end.
pub struct Spans {
    lines: Lines,
    trace: String,
    root: String,
    began: f64,
    steps_per_epoch: u64,
    /// The epoch under way: its number, when it began, and its own id.
    epoch: Option<(u64, f64, String)>,
    /// When the last step or evaluation ended.
    last: f64,
}

/// Eight bytes that nobody else has, in hexadecimal.
fn id() -> String {
    // Seeded by the system; nothing that is computed depends on it.
    format!("{:016x}", RandomState::new().hash_one(std::process::id()))
}

impl Spans {
    /// Begins, behind those of earlier parts of the run.
    pub fn begin(dir: &RunDir, steps_per_epoch: u64) -> Result<Spans, RunDirError> {
        let path = dir.file(SPANS);
        let lines = if path.exists() {
            Lines::extend(dir.files(), &path)?
        } else {
            Lines::create(dir.files(), &path)?
        };
        let (trace, now) = (id() + &id(), now());
        Ok(Spans { lines, trace, root: id(), began: now, steps_per_epoch, epoch: None, last: now })
    }

    /// After a step.
    pub fn step(&mut self, step: &StepMetrics) -> Result<(), RunDirError> {
        let epoch = step.attempt / self.steps_per_epoch;
        if self.epoch.as_ref().is_none_or(|(number, ..)| *number != epoch) {
            self.end_epoch()?;
            self.epoch = Some((epoch, self.last, id()));
        }
        self.last = now();
        if (step.attempt + 1).is_multiple_of(self.steps_per_epoch) {
            self.end_epoch()?;
        }
        Ok(())
    }

    fn end_epoch(&mut self) -> Result<(), RunDirError> {
        let Some((number, began, id)) = self.epoch.take() else { return Ok(()) };
        let end = self.last;
        self.push("epoch", id, began, end, vec![("epoch".into(), Attribute::Count(number as i64))], None)
    }

    /// After an evaluation, which began when the step before it ended.
    pub fn evaluation(&mut self, e: &EvaluationMetrics) -> Result<(), RunDirError> {
        let began = std::mem::replace(&mut self.last, now());
        let attributes = vec![
            ("step".into(), Attribute::Count(e.attempt as i64)),
            ("loss".into(), Attribute::Number(e.loss)),
            ("accuracy".into(), Attribute::Number(e.accuracy)),
        ];
        self.push("evaluation", id(), began, self.last, attributes, None)
    }

    /// After a checkpoint was written, or could not be.
    pub fn checkpoint(
        &mut self,
        name: &str,
        time: Duration,
        error: Option<String>,
    ) -> Result<(), RunDirError> {
        let (end, attributes) = (now(), vec![("checkpoint".into(), Attribute::Text(name.into()))]);
        self.push("checkpoint", id(), end - time.as_secs_f64(), end, attributes, error)
    }

    /// After the run.
    pub fn run(
        &mut self,
        attributes: Vec<(String, Attribute)>,
        error: Option<String>,
    ) -> Result<(), RunDirError> {
        self.end_epoch()?;
        self.push("run", self.root.clone(), self.began, now(), attributes, error)
    }

    fn push(
        &mut self,
        name: &str,
        id: String,
        begin: f64,
        end: f64,
        attributes: Vec<(String, Attribute)>,
        error: Option<String>,
    ) -> Result<(), RunDirError> {
        let parent = (id != self.root).then(|| self.root.clone());
        let trace = self.trace.clone();
        self.lines.push(&Span { trace, id, parent, name: name.into(), begin, end, attributes, error })
    }
}
