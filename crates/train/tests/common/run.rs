//! Runs in a run directory, as the program makes them: whole, in pieces, and over failing disks.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use halfstep_graph::engine::{Engine, HostTensor};
use halfstep_train::checkpoint::{CheckpointEvent, Checkpoints, Latest, Rejected, attempts_of};
use halfstep_train::files::{Disk, Files};
use halfstep_train::metrics::{EvaluationMetrics, Event, LogLine, Outcome, StepMetrics};
use halfstep_train::recipe::{Experiment, Recipe};
use halfstep_train::run_dir::{METRICS, PREPROCESSING, RECIPE, RunDir, RunDirError};
use halfstep_train::run_log::{Lines, LogPosition};
use halfstep_train::session::Session;
use halfstep_train::train_loop::{Callbacks, Keeping, Proceed, RunError};

pub fn experiment(recipe: &str) -> Experiment {
    Recipe::parse("test.toml", recipe, Path::new(".")).unwrap().prepare().unwrap()
}

/// When a run is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Never.
    Never,
    /// After so many attempts.
    After(u64),
    /// In the evaluation after so many attempts.
    InEvaluation(u64),
}

/// Keeps the log, and stops.
struct Logged {
    lines: Lines,
    policy: String,
    stop: Stop,
    attempts: u64,
    written: u64,
}

impl Callbacks for Logged {
    fn step(&mut self, metrics: &StepMetrics) -> Result<Proceed, RunError> {
        let event = Event::Step(metrics.clone());
        self.lines.push(&LogLine { time: 0.0, policy: &self.policy, seed: 0, event })?;
        self.attempts = metrics.attempt + 1;
        Ok(if self.stop == Stop::After(self.attempts) { Proceed::Stop } else { Proceed::Continue })
    }

    fn proceed(&self) -> Proceed {
        if self.stop == Stop::InEvaluation(self.attempts) { Proceed::Stop } else { Proceed::Continue }
    }

    fn evaluation(&mut self, metrics: &EvaluationMetrics, _: &Session<'_>) -> Result<(), RunError> {
        self.lines.push(&LogLine {
            time: 0.0,
            policy: &self.policy,
            seed: 0,
            event: Event::Evaluation(metrics.clone()),
        })?;
        Ok(())
    }

    fn checkpoint(&mut self, event: &CheckpointEvent) {
        if let CheckpointEvent::Written { name, .. } = event {
            self.written = attempts_of(name).unwrap();
        }
    }

    fn log_position(&self) -> LogPosition {
        self.lines.position()
    }
}

/// How a part of a run went.
pub struct Part {
    pub result: Result<Ended, RunError>,
    /// Attempts of the last checkpoint that the run was notified of.
    pub written: u64,
    /// Attempts it began at.
    pub began_at: u64,
    /// Checkpoints that were found and could not be used.
    pub rejected: Vec<Rejected>,
}

/// Where a part of a run ended.
pub struct Ended {
    pub outcome: Outcome,
    /// Bits of all lasting slots, by name.
    pub bits: BTreeMap<String, Vec<u32>>,
    pub losses: Vec<u32>,
    pub skipped: u64,
}

/// Begins a run in `path`, or resumes the one that is there.
pub fn run(
    experiment: &Experiment,
    engine: &dyn Engine,
    policy: &str,
    path: &Path,
    files: Arc<dyn Files>,
    stop: Stop,
) -> Part {
    let failed =
        |e: RunDirError| Part { result: Err(e.into()), written: 0, began_at: 0, rejected: Vec::new() };
    let opened = if path.join(RECIPE).exists() {
        RunDir::resume_on(files, path).and_then(|dir| {
            let (latest, rejected) = Latest::find(&dir);
            let position = latest.as_ref().map_or(LogPosition::default(), |l| l.state.log.clone());
            let lines = Lines::resume(dir.files(), &dir.file(METRICS), &position)?;
            Ok((dir, latest, rejected, lines))
        })
    } else {
        let made =
            if path.exists() { RunDir::create_over_on(files, path) } else { RunDir::create_on(files, path) };
        made.and_then(|dir| {
            dir.write(PREPROCESSING, b"{}")?;
            let lines = Lines::create(dir.files(), &dir.file(METRICS))?;
            dir.write(RECIPE, b"as the program would")?;
            Ok((dir, None, Vec::new(), lines))
        })
    };
    let (dir, latest, rejected, lines) = match opened {
        Ok(opened) => opened,
        Err(e) => return failed(e),
    };
    let began_at = latest.as_ref().map_or(0, |l| l.state.progress.attempts);
    let mut checkpoints = Checkpoints::new(&dir, &experiment.recipe.checkpoint, latest.as_ref());
    let mut callbacks = Logged { lines, policy: policy.into(), stop, attempts: began_at, written: 0 };
    let keeping = Keeping { checkpoints: Some(&mut checkpoints), resume: latest.as_ref(), start: None };
    let result = experiment.run_with(engine, policy, 0, &mut callbacks, keeping).map(|run| Ended {
        outcome: run.record.outcome,
        bits: bits(&run.session),
        losses: run.record.losses.iter().map(|l| l.to_bits()).collect(),
        skipped: run.record.skipped,
    });
    Part { result, written: callbacks.written, began_at, rejected }
}

/// [`run`] on the machine's own disk, which must succeed.
pub fn run_well(
    experiment: &Experiment,
    engine: &dyn Engine,
    policy: &str,
    path: &Path,
    stop: Stop,
) -> Ended {
    run(experiment, engine, policy, path, Arc::new(Disk), stop).result.unwrap()
}

pub fn bits(session: &Session<'_>) -> BTreeMap<String, Vec<u32>> {
    let values = |name: &str| match session.download(name).unwrap() {
        HostTensor::F32(values) => values.into_iter().map(f32::to_bits).collect(),
        HostTensor::I32(values) => values.into_iter().map(|v| v as u32).collect(),
    };
    session.lasting_slots().map(|s| (s.name.clone(), values(&s.name))).collect()
}

/// The log less its times.
pub fn log(path: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(path.join(METRICS)).unwrap();
    let line = |line: &str| {
        let mut value: serde_json::Value = serde_json::from_str(line).unwrap();
        value.as_object_mut().unwrap().remove("ms");
        value
    };
    text.lines().map(line).collect()
}
