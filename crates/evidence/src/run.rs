//! One run: what training measured, how it ran and what it cost.

use halfstep_train::metrics::{EvaluationMetrics, Outcome, RunRecord};
use serde::ser::SerializeStruct;
use serde::{Deserialize, Serialize, Serializer};

/// How a run ran. Results do not depend on it; times do.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Way {
    /// The processor.
    pub processor: String,
    /// Threads of the run.
    pub threads: usize,
    /// Other runs at the same time.
    pub beside: usize,
}

impl Way {
    /// `2 threads`, or `1 thread, 2 runs side by side`.
    pub fn words(&self) -> String {
        let threads = if self.threads == 1 { "1 thread".into() } else { format!("{} threads", self.threads) };
        if self.beside == 0 { threads } else { format!("{threads}, {} runs side by side", self.beside + 1) }
    }
}

/// Predictions without training.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Inference {
    /// Samples predicted.
    pub samples: usize,
    /// Seconds they took.
    pub seconds: f64,
}

/// What was spent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Spent {
    /// Seconds by the clock.
    pub wall_seconds: f64,
    /// Seconds times threads.
    pub core_seconds: f64,
    /// Energy that the processor counted; none where it does not.
    pub joules: Option<f64>,
}

impl Spent {
    /// Both together; energy only where both were counted.
    pub fn plus(self, other: Spent) -> Spent {
        Spent {
            wall_seconds: self.wall_seconds + other.wall_seconds,
            core_seconds: self.core_seconds + other.core_seconds,
            joules: self.joules.zip(other.joules).map(|(a, b)| a + b),
        }
    }
}

/// One run, as a cache keeps it and as a comparison takes it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunResult {
    /// Names what decided the run: recipe, data, program, precision and seed.
    #[serde(skip)]
    pub id: String,
    /// Whether it was made before, and taken from the cache.
    #[serde(skip)]
    pub cached: bool,
    /// What was measured.
    pub record: RunRecord,
    /// Whether the loss was scaled.
    pub scaled: bool,
    /// Peak resident memory of the process during the run, where the system tells.
    pub peak_rss_bytes: Option<usize>,
    /// How it ran, which decides what its times can be compared with.
    pub way: Way,
    /// What it cost, with every attempt that was broken off.
    pub spent: Spent,
    /// Attempts that it took: more than one after an interruption or a kill.
    pub attempts: usize,
    /// The forward passes over the test data after it.
    pub inference: Option<Inference>,
    /// Seconds since 1970 when it ended.
    pub ended: u64,
}

impl RunResult {
    /// Test accuracy at the end, of a run that finished.
    pub fn accuracy(&self) -> Option<f64> {
        self.finished().map(|e| e.accuracy)
    }

    /// The last evaluation, of a run that finished.
    pub fn finished(&self) -> Option<&EvaluationMetrics> {
        self.record.evaluations.last().filter(|_| self.record.outcome == Outcome::Finished)
    }

    /// Loss scale at the end, where one is used.
    pub fn loss_scale(&self) -> Option<f64> {
        self.scaled.then_some(f64::from(self.record.last_scale))
    }
}

/// Writes runs as the JSON of a report has them: sums in place of what each step measured.
pub(crate) fn summaries<S: Serializer>(runs: &[RunResult], to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(runs.iter().map(Summary))
}

struct Summary<'a>(&'a RunResult);

impl Serialize for Summary<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Evaluation {
            step: u64,
            loss: f64,
            accuracy: f64,
        }
        let (run, record) = (self.0, &self.0.record);
        let evaluation =
            |e: &EvaluationMetrics| Evaluation { step: e.attempt, loss: e.loss, accuracy: e.accuracy };
        let evaluations: Vec<Evaluation> = record.evaluations.iter().map(evaluation).collect();
        let mut table = to.serialize_struct("RunResult", 20)?;
        table.serialize_field("policy", &record.policy)?;
        table.serialize_field("seed", &record.seed)?;
        table.serialize_field("id", &run.id)?;
        table.serialize_field("cached", &run.cached)?;
        table.serialize_field("ended", &run.ended)?;
        table.serialize_field("way", &run.way)?;
        table.serialize_field("spent", &run.spent)?;
        table.serialize_field("attempts", &run.attempts)?;
        table.serialize_field("inference", &run.inference)?;
        table.serialize_field("outcome", &record.outcome)?;
        table.serialize_field("evaluations", &evaluations)?;
        table.serialize_field("train_loss", &record.final_train_loss())?;
        table.serialize_field("loss_trend", &record.loss_trend())?;
        table.serialize_field("step_ms", &record.median_ms())?;
        table.serialize_field("wall_seconds", &record.wall_seconds)?;
        table.serialize_field("skipped", &record.skipped)?;
        table.serialize_field("loss_scale", &run.loss_scale())?;
        table.serialize_field("arena_bytes", &record.arena_bytes)?;
        table.serialize_field("state_bytes", &record.state_bytes.total())?;
        table.serialize_field("peak_rss_bytes", &run.peak_rss_bytes)?;
        table.end()
    }
}
