//! What runs in several precisions measured, and what follows.

use std::collections::BTreeMap;

use halfstep_graph::engine_info::Arithmetic;
use halfstep_train::metrics::Outcome;
use serde::Serialize;

use crate::arithmetic::PolicyArithmetic;
use crate::assessment::{Assessment, Protocol};
use crate::cost::{PolicyCost, Rates};
use crate::exact::{Divergence, Excess, clean_runs_needed};
use crate::run::{RunResult, Way, summaries};
use crate::statements::StudyStatement;
use crate::stats::{Paired, Verdict, mean_sd};

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
    /// Names of the classes; none of text.
    pub classes: Vec<String>,
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
    /// Margins and what else was stated beforehand.
    pub protocol: Protocol,
    /// What costs are reckoned from.
    pub rates: Rates,
    /// Test targets whose logits the verdict is of.
    pub targets_measured: usize,
    /// Test targets that there are.
    pub targets: usize,
    /// The engine, such as `cpu avx2, 2 threads`.
    pub engine: String,
    /// The kind of device it computes on, such as `CPU`.
    pub device: String,
    /// The device's name.
    pub processor: String,
    /// How the engine computes the products of each precision, by the precision's name. Comparisons
    /// of earlier versions say nothing of it.
    pub arithmetic: BTreeMap<String, PolicyArithmetic>,
    /// Version of the program.
    pub version: String,
}

/// A precision against the reference.
#[derive(Clone, Debug, Serialize)]
pub struct Candidate {
    /// Its name.
    pub policy: String,
    /// What follows over all. Inconclusive with fewer than two pairs, which say nothing of
    /// training, and while a stated seed has not ended in both: a verdict is of the seeds that were
    /// stated, not of those that came first. Divergence alone can decide where no seed was finished
    /// in both.
    pub verdict: Verdict,
    /// Seeds that were finished in both.
    pub pairs: usize,
    /// Stated seeds that have not ended in both, because the comparison was interrupted.
    pub missing: usize,
    /// Accuracy on all test data over the seeds that both finished; differences are precision −
    /// reference.
    pub accuracy: Option<Paired>,
    /// Every metric, from the logits of the test data.
    pub assessment: Option<Assessment>,
    /// How much oftener its runs diverge than the reference's, of runs that ended; none without
    /// runs of the reference.
    #[serde(skip)]
    pub divergence_excess: Option<Excess>,
}

/// All runs of one precision.
#[derive(Clone, Debug, Serialize)]
pub struct PolicyRow {
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
    /// How its products were computed.
    pub arithmetic: Option<Arithmetic>,
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
    pub against: Option<Paired>,
    /// The difference of the seed that lost most.
    pub worst_seed: Option<f64>,
    /// What its runs cost.
    pub cost: PolicyCost,
    /// Skipped steps of all runs.
    pub skipped: u64,
    /// Loss scale at the end of the last run.
    pub loss_scale: Option<f64>,
}

impl PolicyRow {
    /// Whether its products were emulated: times are then those of the emulation.
    pub(crate) fn is_emulated(&self) -> bool {
        self.arithmetic == Some(Arithmetic::Emulated)
    }
}

/// Runs of one model in several precisions over the same seeds, and what follows.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// What was set up before.
    pub setup: Setup,
    /// How the runs ran whose times stand in the rows: runs taken from a cache may have run another
    /// way.
    pub timed: Way,
    /// One row per precision that has runs, in order.
    pub rows: Vec<PolicyRow>,
    /// Every precision but the reference, in order.
    pub candidates: Vec<Candidate>,
    /// What must be said besides.
    pub notes: Vec<StudyStatement>,
    /// The runs, in the order they were made.
    #[serde(serialize_with = "summaries")]
    pub runs: Vec<RunResult>,
}

impl Comparison {
    /// Sums up runs, with what the logits of candidates came to.
    pub fn new(setup: Setup, runs: Vec<RunResult>, mut assessments: Vec<(String, Assessment)>) -> Comparison {
        let timed = common_way(&runs);
        let reference: Vec<&RunResult> = runs.iter().filter(|r| r.record.policy == setup.reference).collect();
        let reference_ms = step_ms(&reference, &timed);
        let of_policy =
            |policy: &String| runs.iter().filter(|r| r.record.policy == *policy).collect::<Vec<_>>();
        let rows: Vec<PolicyRow> = setup
            .policies
            .iter()
            .map(of_policy)
            .filter(|of_policy| !of_policy.is_empty())
            .map(|of_policy| row(&setup, &of_policy, &reference, &timed, reference_ms))
            .collect();
        let candidates = rows
            .iter()
            .filter(|row| row.policy != setup.reference)
            .map(|row| {
                let at = assessments.iter().position(|(policy, _)| *policy == row.policy);
                let assessment = at.map(|at| assessments.swap_remove(at).1);
                let Protocol { max_divergence, looks, .. } = setup.protocol;
                let divergence =
                    Divergence::of(row.diverged as u64, row.divergence.runs, max_divergence, looks);
                let base = rows.iter().find(|r| r.policy == setup.reference);
                let excess = base.map(|base| {
                    let (d, b) = (row.divergence, base.divergence);
                    Excess::of(d.diverged, d.runs, b.diverged, b.runs)
                });
                let diverges_oftener = excess.is_some_and(|e| looks.reject(e.p_fail));
                let ended = |policy: &str, seed: u64| {
                    let is_it = |r: &&RunResult| r.record.policy == policy && r.record.seed == seed;
                    runs.iter().find(is_it).is_some_and(|r| r.record.outcome != Outcome::Interrupted)
                };
                let both = |&&seed: &&u64| ended(&setup.reference, seed) && ended(&row.policy, seed);
                let missing = setup.seeds.len() - setup.seeds.iter().filter(both).count();
                let pairs = row.against.map_or(0, |a| a.pairs);
                let verdict = match (&assessment, divergence.verdict) {
                    (Some(a), _) if pairs > 1 && missing == 0 => a.verdict,
                    (None, Some(Verdict::Fail)) => Verdict::Fail,
                    (None, _) if diverges_oftener => Verdict::Fail,
                    _ => Verdict::Inconclusive,
                };
                Candidate {
                    policy: row.policy.clone(),
                    verdict,
                    pairs,
                    missing,
                    accuracy: row.against,
                    assessment,
                    divergence_excess: excess,
                }
            })
            .collect();
        Comparison { setup, timed, rows, candidates, notes: Vec::new(), runs }
    }

    /// The row of a precision.
    pub fn row(&self, policy: &str) -> Option<&PolicyRow> {
        self.rows.iter().find(|r| r.policy == policy)
    }

    /// What is still needed for a candidate that nothing is yet known of: seeds in all, by the
    /// metric that scatters most, or the clean runs that a limit of divergence takes.
    pub fn seeds_needed(&self, candidate: &Candidate) -> Option<usize> {
        let assessment = candidate.assessment.as_ref()?;
        let open = assessment.rows.iter().filter(|r| r.verdict() == Some(Verdict::Inconclusive));
        let d = &assessment.divergence;
        let clean = d.max_divergence.filter(|_| d.verdict == Some(Verdict::Inconclusive) && d.diverged == 0);
        let clean =
            clean.and_then(|c| clean_runs_needed(c, self.setup.protocol.looks.alpha())).map(|n| n as usize);
        // One that no number of seeds settles on these examples is not settled by more of them.
        let seeds: Option<Vec<usize>> = open.map(|r| r.seeds_needed).collect();
        seeds?.into_iter().chain(clean).max()
    }
}

/// The verdict over several: fail if one fails, pass if all pass. None of none.
pub fn over_all(verdicts: impl IntoIterator<Item = Verdict>) -> Option<Verdict> {
    verdicts.into_iter().reduce(|a, b| match (a, b) {
        (Verdict::Fail, _) | (_, Verdict::Fail) => Verdict::Fail,
        (Verdict::Pass, Verdict::Pass) => Verdict::Pass,
        _ => Verdict::Inconclusive,
    })
}

/// The way that most precisions, and then most runs, have in common.
fn common_way(runs: &[RunResult]) -> Way {
    let mut ways: Vec<&Way> = runs.iter().map(|r| &r.way).collect();
    ways.sort();
    ways.dedup();
    let worth = |way: &&Way| {
        let of_it = || runs.iter().filter(|r| r.way == **way);
        let mut policies: Vec<&str> = of_it().map(|r| r.record.policy.as_str()).collect();
        policies.sort_unstable();
        policies.dedup();
        (policies.len(), of_it().count())
    };
    ways.into_iter().max_by_key(worth).cloned().unwrap_or_default()
}

fn step_ms(runs: &[&RunResult], way: &Way) -> Option<f64> {
    median(runs.iter().filter(|r| r.way == *way).filter_map(|r| r.record.median_ms()))
}

fn row(
    setup: &Setup,
    runs: &[&RunResult],
    reference: &[&RunResult],
    timed: &Way,
    reference_ms: Option<f64>,
) -> PolicyRow {
    let first = runs[0];
    let mean = |values: Vec<f64>| mean_sd(&values).map(|(mean, _)| mean);
    let finished = || runs.iter().filter_map(|r| Some((r, r.finished()?)));
    let accuracies: Vec<f64> = runs.iter().filter_map(|r| r.accuracy()).collect();
    let pairs: Vec<(f64, f64)> = runs
        .iter()
        .filter_map(|r| {
            let other = reference.iter().find(|o| o.record.seed == r.record.seed)?;
            Some((other.accuracy()?, r.accuracy()?))
        })
        .collect();
    let against = Paired::of(&pairs).filter(|_| first.record.policy != setup.reference);
    let worst_seed = against.and_then(|_| pairs.iter().map(|(r, c)| c - r).reduce(f64::min));
    let diverged = runs.iter().filter(|r| matches!(r.record.outcome, Outcome::Diverged { .. })).count();
    // A run stopped by hand says nothing of divergence.
    let ended = runs.iter().filter(|r| r.record.outcome != Outcome::Interrupted).count();
    let step_ms = step_ms(runs, timed);
    let (accuracy, accuracy_sd) = mean_sd(&accuracies).map_or((None, None), |(mean, sd)| (Some(mean), sd));
    PolicyRow {
        policy: first.record.policy.clone(),
        runs: runs.len(),
        finished: runs.iter().filter(|r| r.record.outcome == Outcome::Finished).count(),
        diverged,
        divergence: Divergence::of(diverged as u64, ended as u64, None, setup.protocol.looks),
        step_ms,
        samples_per_s: step_ms.map(|ms| setup.batch as f64 / ms * 1e3),
        speed_ratio: step_ms.zip(reference_ms).map(|(ms, base)| base / ms),
        arithmetic: setup.arithmetic.get(&first.record.policy).map(|how| how.arithmetic),
        arena_bytes: first.record.arena_bytes,
        state_bytes: first.record.state_bytes.total(),
        peak_rss_bytes: runs.iter().filter_map(|r| r.peak_rss_bytes).max(),
        train_loss: mean(finished().filter_map(|(r, _)| r.record.final_train_loss()).collect()),
        test_loss: mean(finished().map(|(_, e)| e.loss).collect()),
        accuracy,
        accuracy_sd,
        against,
        worst_seed,
        cost: PolicyCost::of(runs, &setup.rates),
        skipped: runs.iter().map(|r| r.record.skipped).sum(),
        loss_scale: runs.last().and_then(|r| r.loss_scale()),
    }
}

/// Time and memory, said as they are: what was gained, and what it costs. Within 5 % counts as
/// equal: about the scatter of step times on a shared machine. Of what is emulated, or measured
/// against it, no speed is claimed.
pub(crate) fn gained(row: &PolicyRow, base: &PolicyRow) -> (Vec<StudyStatement>, Vec<StudyStatement>) {
    let (mut better, mut worse) = (Vec::new(), Vec::new());
    match row.speed_ratio {
        Some(ratio) if ratio > 1.05 && !(row.is_emulated() || base.is_emulated()) => {
            better.push(StudyStatement::Faster { ratio })
        }
        Some(ratio) if ratio < 0.95 => worse.push(StudyStatement::Slower { ratio }),
        _ => {}
    }
    let saved = 1.0 - row.arena_bytes as f64 / base.arena_bytes.max(1) as f64;
    if saved >= 0.05 {
        better.push(StudyStatement::LessMemory { saved });
    } else if saved <= -0.05 {
        worse.push(StudyStatement::MoreMemory { more: -saved });
    }
    (better, worse)
}

/// The runs' mean seed effect: sample standard deviation over seeds, of finished runs.
pub(crate) fn seed_sd(runs: &[RunResult], policy: &str) -> Option<f64> {
    let values: Vec<f64> =
        runs.iter().filter(|r| r.record.policy == policy).filter_map(|r| r.accuracy()).collect();
    mean_sd(&values).and_then(|(_, sd)| sd)
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
    use halfstep_graph::StateBytes;
    use halfstep_train::metrics::{EvaluationMetrics, RunRecord};

    use super::*;
    use crate::run::{Inference, Spent};

    pub(crate) fn run(policy: &str, seed: u64, accuracy: f64, ms: f64) -> RunResult {
        let losses = (0..200).map(|i| 2.3 * (-(i as f32) / 60.0).exp() + seed as f32 * 0.01);
        RunResult {
            id: format!("{policy}-{seed}"),
            cached: false,
            record: RunRecord {
                policy: policy.into(),
                seed,
                outcome: Outcome::Finished,
                losses: losses.collect(),
                step_ms: vec![ms as f32],
                evaluations: vec![EvaluationMetrics { attempt: 200, loss: 0.4, accuracy, validation: None }],
                skipped: 0,
                last_scale: 65536.0,
                batch: 64,
                arena_bytes: if policy == "fp32" { 2_000_000 } else { 1_200_000 },
                state_bytes: StateBytes { weights: 300_000, ..StateBytes::default() },
                wall_seconds: 1.0,
                out_of_patience: None,
                data_seconds: 0.0,
            },
            scaled: policy == "fp16",
            peak_rss_bytes: Some(50_000_000),
            way: Way { processor: "test".into(), threads: 2, beside: 0 },
            spent: Spent { wall_seconds: 1.0, core_seconds: 2.0, joules: None },
            attempts: 1,
            inference: Some(Inference { samples: 1000, seconds: 0.5 }),
            ended: 1_700_000_000,
        }
    }

    pub(crate) fn setup() -> Setup {
        Setup {
            name: "test".into(),
            batch: 64,
            seeds: vec![0, 1, 2],
            policies: ["fp32", "bf16", "fp16"].map(String::from).to_vec(),
            reference: "fp32".into(),
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
        let c = Comparison::new(setup(), runs, Vec::new());
        let against = c.row("bf16").unwrap().against.unwrap();
        assert_eq!(against.pairs, 2);
        assert!((against.mean - 0.01).abs() < 1e-12);
        assert!(c.row("fp32").unwrap().against.is_none());
        assert_eq!(c.row("bf16").unwrap().speed_ratio, Some(2.0));
        assert!(c.row("fp16").is_none(), "a precision without runs has no row");
        assert_eq!(c.candidates.len(), 1);
    }

    #[test]
    fn a_run_that_did_not_finish_has_no_accuracy_to_compare() {
        let mut broken = run("bf16", 0, 0.10, 5.0);
        broken.record.outcome = Outcome::Diverged { reason: "x".into() };
        let mut setup = setup();
        let c = Comparison::new(setup.clone(), vec![run("fp32", 0, 0.9, 10.0), broken.clone()], Vec::new());
        let row = c.row("bf16").unwrap();
        assert_eq!((row.diverged, row.accuracy, row.against), (1, None, None));
        assert_eq!((row.divergence.at_most, c.candidates[0].verdict), (1.0, Verdict::Inconclusive));
        // Where a limit was stated, divergence alone can fail: two of two are more than 5 %.
        setup.protocol.max_divergence = Some(0.05);
        let runs = vec![run("fp32", 0, 0.9, 10.0), broken.clone(), broken];
        assert_eq!(Comparison::new(setup, runs, Vec::new()).candidates[0].verdict, Verdict::Fail);
    }

    #[test]
    fn a_seed_that_was_stated_and_not_run_leaves_the_verdict_open() {
        let study = crate::study::tests::study(10);
        let c = &study.arms[0];
        assert_eq!((c.candidates[0].verdict, c.candidates[0].missing), (Verdict::Pass, 0));
        let again = |seeds: Vec<u64>, runs: Vec<RunResult>| {
            let setup = Setup { seeds, ..c.setup.clone() };
            let assessment = c.candidates[0].assessment.clone().unwrap();
            Comparison::new(setup, runs, vec![("bf16".into(), assessment)]).candidates[0].clone()
        };
        let interrupted = again(vec![0, 1, 2, 3], c.runs.clone());
        assert_eq!((interrupted.verdict, interrupted.missing), (Verdict::Inconclusive, 1));
        // One pair says nothing of training.
        let one: Vec<RunResult> = c.runs.iter().filter(|r| r.record.seed == 0).cloned().collect();
        assert_eq!(again(vec![0], one).verdict, Verdict::Inconclusive);
    }

    #[test]
    fn times_of_runs_that_ran_another_way_are_not_compared() {
        let mut old = run("fp32", 0, 0.9, 30.0);
        old.way = Way { processor: "test".into(), threads: 1, beside: 1 };
        let runs = vec![old, run("fp32", 1, 0.9, 10.0), run("bf16", 0, 0.9, 5.0), run("bf16", 1, 0.9, 5.0)];
        let c = Comparison::new(setup(), runs, Vec::new());
        assert_eq!(c.timed.threads, 2);
        assert_eq!(c.row("bf16").unwrap().speed_ratio, Some(2.0));
    }

    #[test]
    fn a_slow_precision_is_not_called_fast() {
        let runs = vec![run("fp32", 0, 0.9, 10.0), run("bf16", 0, 0.9, 12.0)];
        let c = Comparison::new(setup(), runs, Vec::new());
        let (better, worse) = gained(&c.rows[1], &c.rows[0]);
        let said = |all: Vec<StudyStatement>| all.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(said(worse), ["a step takes 1.20× the time"]);
        assert_eq!(said(better), ["a step needs 40 % less scratch memory"]);
    }

    #[test]
    fn one_failure_fails_and_all_must_pass() {
        use Verdict::{Fail, Inconclusive, Pass};
        assert_eq!(over_all([Pass, Inconclusive, Fail]), Some(Fail));
        assert_eq!(over_all([Pass, Inconclusive]), Some(Inconclusive));
        assert_eq!((over_all([Pass, Pass]), over_all([])), (Some(Pass), None));
    }
}
