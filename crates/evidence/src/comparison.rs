//! What runs in several precisions measured, and what follows.

use serde::Serialize;

use crate::assessment::POWER;
use crate::exact::Divergence;
use crate::noninferiority::{Better, Margin, MarginTest, Question};
use crate::power::seeds_needed;
use crate::stats::{Paired, Verdict, mean_sd};
use crate::units;

/// What was set up before the runs.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Setup {
    /// Name of the recipe.
    pub name: String,
    /// The model in words.
    pub model: String,
    /// The data in words.
    pub data: String,
    /// Fingerprint of the data.
    pub fingerprint: String,
    /// Trained numbers of the model.
    pub parameters: usize,
    /// Steps of a run.
    pub steps: u64,
    /// Samples in a step.
    pub batch: usize,
    /// Seeds, in order; none chosen after the fact.
    pub seeds: Vec<u64>,
    /// Precisions in order.
    pub policies: Vec<String>,
    /// The precision that the others are measured against.
    pub reference: String,
    /// Loss of accuracy that counts as none, as a fraction.
    pub margin: f64,
    /// The engine, such as `cpu avx2, 2 threads`.
    pub engine: String,
    /// The processor.
    pub processor: String,
    /// Version of the program.
    pub version: String,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Outcome {
    /// All steps were done.
    Finished,
    /// It was stopped by hand.
    Interrupted,
    /// Gradients were not finite and stayed so.
    Diverged {
        /// What is known.
        reason: String,
    },
}

/// Test loss and accuracy after some steps.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Evaluation {
    /// Steps tried before it.
    pub step: u64,
    /// Mean cross-entropy in nats.
    pub loss: f64,
    /// Fraction predicted right.
    pub accuracy: f64,
}

/// What one run measured.
#[derive(Clone, Debug, Serialize)]
pub struct RunResult {
    /// Precision.
    pub policy: String,
    /// Seed.
    pub seed: u64,
    /// How it ended.
    pub outcome: Outcome,
    /// Train loss of every step.
    #[serde(skip)]
    pub losses: Vec<f32>,
    /// Evaluations in order.
    pub evaluations: Vec<Evaluation>,
    /// Mean train loss at the end.
    pub train_loss: Option<f64>,
    /// Median time of a step in milliseconds.
    pub step_ms: Option<f64>,
    /// Seconds of the whole run.
    pub wall_seconds: f64,
    /// Steps that changed nothing.
    pub skipped: u64,
    /// Loss scale at the end, where one is used.
    pub loss_scale: Option<f64>,
    /// Bytes of the step's scratch memory.
    pub arena_bytes: usize,
    /// Bytes of weights, moments and other state.
    pub state_bytes: usize,
    /// Peak resident memory of the process during the run, where the system tells.
    pub peak_rss_bytes: Option<usize>,
}

impl RunResult {
    /// Test accuracy at the end, of a run that finished.
    pub fn accuracy(&self) -> Option<f64> {
        self.finished().map(|e| e.accuracy)
    }

    fn finished(&self) -> Option<&Evaluation> {
        if self.outcome == Outcome::Finished { self.evaluations.last() } else { None }
    }
}

/// A precision against the reference.
#[derive(Clone, Debug, Serialize)]
pub struct Against {
    /// Accuracy over the seeds that both finished; differences are precision − reference.
    pub accuracy: Paired,
    /// What that says about the margin: the one-sided paired t-test of [`MarginTest`].
    pub verdict: Verdict,
    /// P value of "the loss is at least the margin"; none for one pair.
    pub p_pass: Option<f64>,
    /// P value of "the loss is at most the margin"; none for one pair.
    pub p_fail: Option<f64>,
    /// Seeds after which a precision without any loss would pass with a chance of 80 %, from the spread seen.
    pub seeds_needed: Option<usize>,
}

impl Against {
    fn of(pairs: &[(f64, f64)], margin: f64) -> Option<Against> {
        let test = MarginTest::of(pairs, Better::Higher, Margin::Absolute(margin), Question::NonInferiority)?;
        Some(Against {
            accuracy: test.paired,
            verdict: test.verdict,
            p_pass: test.p_pass,
            p_fail: test.p_fail,
            seeds_needed: test.spread_over_margin().and_then(|s| seeds_needed(s, POWER)),
        })
    }
}

/// All runs of one precision.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Precision.
    pub policy: String,
    /// Runs begun.
    pub runs: usize,
    /// Runs that did all their steps.
    pub finished: usize,
    /// Runs that diverged.
    pub diverged: usize,
    /// What that says about the chance of it: reported, not judged.
    pub divergence: Divergence,
    /// Median over runs of the median step time, in milliseconds.
    pub step_ms: Option<f64>,
    /// Samples per second at that time.
    pub samples_per_s: Option<f64>,
    /// How many times as fast as the reference.
    pub speed_ratio: Option<f64>,
    /// Bytes of the step's scratch memory.
    pub arena_bytes: usize,
    /// Bytes of weights, moments and other state.
    pub state_bytes: usize,
    /// Greatest peak of resident memory over the runs.
    pub peak_rss_bytes: Option<usize>,
    /// Mean over runs of the final train loss.
    pub train_loss: Option<f64>,
    /// Mean over runs of the final test loss.
    pub test_loss: Option<f64>,
    /// Mean and standard deviation of the final test accuracy.
    pub accuracy: Option<f64>,
    /// Sample standard deviation of the final test accuracy.
    pub accuracy_sd: Option<f64>,
    /// Against the reference; none for the reference itself or without pairs.
    pub against: Option<Against>,
    /// Skipped steps of all runs.
    pub skipped: u64,
    /// Loss scale at the end of the last run.
    pub loss_scale: Option<f64>,
}

/// Runs in several precisions over the same seeds, and what follows.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// What was set up before.
    pub setup: Setup,
    /// One row per precision that has runs, in order.
    pub rows: Vec<Row>,
    /// What follows, in sentences.
    pub findings: Vec<String>,
    /// The runs, in the order they were made.
    pub runs: Vec<RunResult>,
}

impl Comparison {
    /// Sums up runs.
    pub fn new(setup: Setup, runs: Vec<RunResult>) -> Comparison {
        let reference: Vec<&RunResult> = runs.iter().filter(|r| r.policy == setup.reference).collect();
        let reference_ms = median(reference.iter().filter_map(|r| r.step_ms));
        let rows: Vec<Row> = setup
            .policies
            .iter()
            .map(|policy| runs.iter().filter(|r| r.policy == *policy).collect::<Vec<_>>())
            .filter(|of_policy| !of_policy.is_empty())
            .map(|of_policy| row(&setup, &of_policy, &reference, reference_ms))
            .collect();
        let mut comparison = Comparison { setup, rows, findings: Vec::new(), runs };
        comparison.findings = comparison.findings();
        comparison
    }

    /// The row of a precision.
    pub fn row(&self, policy: &str) -> Option<&Row> {
        self.rows.iter().find(|r| r.policy == policy)
    }

    /// What the numbers say, without colouring them.
    fn findings(&self) -> Vec<String> {
        let reference = &self.setup.reference;
        let mut findings = Vec::new();
        for row in self.rows.iter().filter(|r| r.policy != *reference) {
            let policy = &row.policy;
            if row.diverged > 0 {
                findings.push(format!(
                    "{policy}: {} of {} runs diverged; at 95 % confidence the chance of it is at most {:.0} %.",
                    row.diverged,
                    row.runs,
                    row.divergence.at_most * 100.0
                ));
            }
            match &row.against {
                Some(against) => findings.push(quality(policy, reference, against, self.setup.margin)),
                None => findings.push(format!(
                    "{policy}: no seed was finished in both {policy} and {reference}, so quality cannot be compared."
                )),
            }
            if let (Some(ratio), Some(base)) = (row.speed_ratio, self.row(reference)) {
                findings.push(cost(policy, reference, ratio, row, base));
            }
        }
        findings
    }
}

fn row(setup: &Setup, runs: &[&RunResult], reference: &[&RunResult], reference_ms: Option<f64>) -> Row {
    let first = runs[0];
    let mean = |values: Vec<f64>| mean_sd(&values).map(|(mean, _)| mean);
    let accuracies: Vec<f64> = runs.iter().filter_map(|r| r.accuracy()).collect();
    let pairs: Vec<(f64, f64)> = runs
        .iter()
        .filter_map(|r| {
            let other = reference.iter().find(|o| o.seed == r.seed)?;
            Some((other.accuracy()?, r.accuracy()?))
        })
        .collect();
    let against = Against::of(&pairs, setup.margin).filter(|_| first.policy != setup.reference);
    let diverged = runs.iter().filter(|r| matches!(r.outcome, Outcome::Diverged { .. })).count();
    // A run stopped by hand says nothing of divergence.
    let ended = runs.iter().filter(|r| r.outcome != Outcome::Interrupted).count();
    let step_ms = median(runs.iter().filter_map(|r| r.step_ms));
    let (accuracy, accuracy_sd) = mean_sd(&accuracies).map_or((None, None), |(mean, sd)| (Some(mean), sd));
    Row {
        policy: first.policy.clone(),
        runs: runs.len(),
        finished: runs.iter().filter(|r| r.outcome == Outcome::Finished).count(),
        diverged,
        divergence: Divergence::of(diverged as u64, ended as u64, None),
        step_ms,
        samples_per_s: step_ms.map(|ms| setup.batch as f64 / ms * 1e3),
        speed_ratio: step_ms.zip(reference_ms).map(|(ms, base)| base / ms),
        arena_bytes: first.arena_bytes,
        state_bytes: first.state_bytes,
        peak_rss_bytes: runs.iter().filter_map(|r| r.peak_rss_bytes).max(),
        train_loss: mean(
            runs.iter().filter(|r| r.finished().is_some()).filter_map(|r| r.train_loss).collect(),
        ),
        test_loss: mean(runs.iter().filter_map(|r| r.finished()).map(|e| e.loss).collect()),
        accuracy,
        accuracy_sd,
        against,
        skipped: runs.iter().map(|r| r.skipped).sum(),
        loss_scale: runs.last().and_then(|r| r.loss_scale),
    }
}

fn quality(policy: &str, reference: &str, against: &Against, margin: f64) -> String {
    let Paired { pairs, mean, lower, upper, .. } = against.accuracy;
    let margin = format!("{:.2} points", margin * 100.0);
    let worst =
        |bound: Option<f64>| bound.map_or_else(String::new, |b| format!("{:.2}", (-b * 100.0).max(0.0)));
    let seeds = if pairs == 1 { "seed" } else { "seeds" };
    match against.verdict {
        Verdict::Pass => format!(
            "{policy} is as good as {reference} within the margin: it loses at most {} points of test accuracy (one-sided \
             95 % bound over {pairs} {seeds}); the margin is {margin}.",
            worst(lower)
        ),
        Verdict::Fail => format!(
            "{policy} is worse than {reference}: it loses at least {} points of test accuracy (one-sided 95 % bound over \
             {pairs} {seeds}); the margin is {margin}.",
            worst(upper)
        ),
        Verdict::Inconclusive if lower.is_none() => format!(
            "{policy} differs from {reference} by {} of test accuracy with one seed; at least two are needed for a bound.",
            units::points(mean)
        ),
        Verdict::Inconclusive => {
            let enough = match against.seeds_needed {
                Some(n) if n > pairs => {
                    format!(" {n} seeds in all would show it with a chance of 80 % if there is none.")
                }
                Some(_) => " More seeds would tell how large it is.".into(),
                None => String::new(),
            };
            format!(
                "{policy} against {reference} is inconclusive: the mean difference is {}, but over {pairs} {seeds} a loss \
                 of up to {} points cannot be ruled out (one-sided 95 % bound); the margin is {margin}.{enough}",
                units::points(mean),
                worst(lower)
            )
        }
    }
}

/// Time and memory, said as they are. Within 5 % counts as equal: about the scatter of step times on a shared machine.
fn cost(policy: &str, reference: &str, ratio: f64, row: &Row, base: &Row) -> String {
    let saved = 1.0 - row.arena_bytes as f64 / base.arena_bytes.max(1) as f64;
    let memory = if saved.abs() < 0.05 {
        "needs about the same scratch memory".to_string()
    } else if saved > 0.0 {
        format!("needs {:.0} % less scratch memory", saved * 100.0)
    } else {
        format!("needs {:.0} % more scratch memory", -saved * 100.0)
    };
    let time = if ratio > 1.05 {
        format!("a step is {ratio:.2}× as fast")
    } else if ratio < 0.95 {
        format!("a step takes {:.2}× the time", 1.0 / ratio)
    } else {
        "a step takes about the same time".to_string()
    };
    let conclusion = match (ratio > 1.05, saved >= 0.05) {
        (false, true) => format!(" On this processor {policy} saves memory, not time."),
        (false, false) => format!(" On this processor {policy} saves neither time nor memory."),
        (true, _) => String::new(),
    };
    format!("{policy} against {reference} on this CPU: {time}; it {memory}.{conclusion}")
}

fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    let n = sorted.len();
    match n {
        0 => None,
        n if n.is_multiple_of(2) => Some((sorted[n / 2 - 1] + sorted[n / 2]) / 2.0),
        n => Some(sorted[n / 2]),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn run(policy: &str, seed: u64, accuracy: f64, ms: f64) -> RunResult {
        RunResult {
            policy: policy.into(),
            seed,
            outcome: Outcome::Finished,
            losses: (0..200).map(|i| 2.3 * (-(i as f32) / 60.0).exp() + seed as f32 * 0.01).collect(),
            evaluations: vec![Evaluation { step: 200, loss: 0.4, accuracy }],
            train_loss: Some(0.3),
            step_ms: Some(ms),
            wall_seconds: 1.0,
            skipped: 0,
            loss_scale: (policy == "fp16").then_some(65536.0),
            arena_bytes: if policy == "fp32" { 2_000_000 } else { 1_200_000 },
            state_bytes: 300_000,
            peak_rss_bytes: Some(50_000_000),
        }
    }

    pub(crate) fn setup() -> Setup {
        Setup {
            name: "test".into(),
            batch: 64,
            seeds: vec![0, 1, 2],
            policies: ["fp32", "bf16", "fp16"].map(String::from).to_vec(),
            reference: "fp32".into(),
            margin: 0.01,
            steps: 200,
            ..Setup::default()
        }
    }

    #[test]
    fn runs_are_paired_by_seed_whatever_their_order() {
        let runs = vec![
            run("fp32", 0, 0.90, 10.0),
            run("bf16", 1, 0.89, 5.0),
            run("bf16", 0, 0.91, 5.0),
            run("fp32", 1, 0.88, 10.0),
        ];
        let c = Comparison::new(setup(), runs);
        let against = c.row("bf16").unwrap().against.as_ref().unwrap();
        assert_eq!(against.accuracy.pairs, 2);
        assert!((against.accuracy.mean - 0.01).abs() < 1e-12);
        assert!(c.row("fp32").unwrap().against.is_none());
        assert_eq!(c.row("bf16").unwrap().speed_ratio, Some(2.0));
        assert!(c.row("fp16").is_none(), "a precision without runs has no row");
    }

    #[test]
    fn a_run_that_did_not_finish_has_no_accuracy_to_compare() {
        let mut broken = run("bf16", 0, 0.10, 5.0);
        broken.outcome = Outcome::Diverged { reason: "x".into() };
        let c = Comparison::new(setup(), vec![run("fp32", 0, 0.9, 10.0), broken]);
        let row = c.row("bf16").unwrap();
        assert_eq!((row.diverged, row.accuracy, row.against.is_none()), (1, None, true));
        assert!(c.findings.iter().any(|f| f.contains("1 of 1 runs diverged")), "{:?}", c.findings);
        assert_eq!(row.divergence.at_most, 1.0);
    }

    #[test]
    fn an_inconclusive_comparison_says_how_many_seeds_would_tell() {
        // Differences −0.02, 0.02, 0: standard deviation 0.02 at a margin of 0.01, so 27 seeds by the table.
        let runs = [(0, -0.02), (1, 0.02), (2, 0.0)]
            .into_iter()
            .flat_map(|(s, d)| [run("fp32", s, 0.9, 10.0), run("bf16", s, 0.9 + d, 5.0)]);
        let c = Comparison::new(setup(), runs.collect());
        let against = c.row("bf16").unwrap().against.as_ref().unwrap();
        assert_eq!((against.verdict, against.seeds_needed), (Verdict::Inconclusive, Some(27)));
        assert!(c.findings[0].contains("27 seeds in all"), "{:?}", c.findings);
    }

    #[test]
    fn a_slow_precision_is_not_called_fast() {
        let c = Comparison::new(setup(), vec![run("fp32", 0, 0.9, 10.0), run("bf16", 0, 0.9, 12.0)]);
        let text = c.findings.join(" ");
        assert!(text.contains("1.20× the time") && text.contains("saves memory, not time"), "{text}");
        assert!(text.contains("40 % less scratch memory"), "{text}");
    }
}
