//! From what training measured to what the comparison reads.

use halfstep_evidence as evidence;
use halfstep_train::metrics::{Outcome, RunRecord};

/// A run as the comparison takes it. `scaled` says whether the run used loss scaling; `peak_rss_bytes` is the peak of
/// resident memory while it ran, where the system tells. How it ran and what it cost is left to say.
pub fn run_result(record: RunRecord, scaled: bool, peak_rss_bytes: Option<usize>) -> evidence::RunResult {
    let evaluation = |e: &halfstep_train::metrics::EvaluationMetrics| evidence::Evaluation {
        step: e.attempt,
        loss: e.loss,
        accuracy: e.accuracy,
    };
    evidence::RunResult {
        train_loss: record.final_train_loss(),
        step_ms: record.median_ms(),
        evaluations: record.evaluations.iter().map(evaluation).collect(),
        outcome: match record.outcome {
            Outcome::Finished => evidence::Outcome::Finished,
            Outcome::Interrupted => evidence::Outcome::Interrupted,
            Outcome::Diverged { reason } => evidence::Outcome::Diverged { reason },
        },
        policy: record.policy,
        seed: record.seed,
        id: String::new(),
        cached: false,
        ended: 0,
        way: evidence::Way::default(),
        spent: evidence::Spent { wall_seconds: record.wall_seconds, ..evidence::Spent::default() },
        attempts: 1,
        inference: None,
        losses: record.losses,
        wall_seconds: record.wall_seconds,
        skipped: record.skipped,
        loss_scale: scaled.then_some(f64::from(record.last_scale)),
        arena_bytes: record.arena_bytes,
        state_bytes: record.state_bytes.total(),
        peak_rss_bytes,
    }
}
