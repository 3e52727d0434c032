//! From the logits of a reference and a candidate, one file per seed, to a verdict.

use std::num::NonZeroUsize;

use serde::Serialize;

use crate::bootstrap::{Examples, Interval, SeedSums, two_level};
use crate::exact::Divergence;
use crate::experiment::{SeedMeasures, measure_seed, same_samples};
use crate::findings;
use crate::logits::{LogitsError, Source};
use crate::measures::GroupRow;
use crate::metric::Metric;
use crate::noninferiority::{Margin, MarginTest, Question, holm, over_all};
use crate::power::seeds_needed;
use crate::reference::ReferenceCheck;
use crate::stats::{Paired, Verdict, mean_sd};

/// Groups with fewer samples are shown and do not gate: their accuracy moves by points with one
/// answer.
pub const LEAST_GROUP: u64 = 30;

/// Chance of passing without a difference that is planned for unless another is stated.
pub const POWER: f64 = 0.8;

/// What was stated before the files were read.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Protocol {
    /// Margins of the metrics that gate.
    pub margins: Vec<(Metric, Margin)>,
    /// Whether those margins were asked for, rather than defaults; such a metric gates even where
    /// it cannot be judged.
    #[serde(skip)]
    pub asked_for: Vec<Metric>,
    /// What is asked of each.
    pub question: Question,
    /// Candidate runs that diverged and left no logits.
    pub diverged: u64,
    /// The greatest accepted chance that a candidate run diverges.
    pub max_divergence: Option<f64>,
    /// Chance of passing without a difference that [`MetricRow::seeds_needed`] plans for.
    pub power: f64,
}

impl Default for Protocol {
    /// The default margins, asking whether the candidate is not worse.
    fn default() -> Protocol {
        Protocol {
            margins: Metric::ALL.iter().filter_map(|&m| Some((m, m.default_margin()?))).collect(),
            asked_for: Vec::new(),
            question: Question::NonInferiority,
            diverged: 0,
            max_divergence: None,
            power: POWER,
        }
    }
}

impl Protocol {
    /// Sets a metric's margin, or takes it out of the verdict.
    pub fn set(&mut self, metric: Metric, margin: Option<Margin>) {
        self.margins.retain(|(m, _)| *m != metric);
        self.asked_for.retain(|m| *m != metric);
        if let Some(margin) = margin {
            self.margins.push((metric, margin));
            self.margins.sort_by_key(|(m, _)| *m);
            self.asked_for.push(metric);
        }
    }

    fn margin(&self, metric: Metric) -> Option<Margin> {
        self.margins.iter().find(|(m, _)| *m == metric).map(|(_, margin)| *margin)
    }
}

/// What the pairs are that a test looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Pairs of runs: the verdict is about training in this precision.
    Seeds,
    /// Examples of one pair of models: the verdict is about these two models.
    Examples,
}

/// A group of samples.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SampleGroup {
    /// Column.
    pub column: String,
    /// Its value.
    pub value: String,
    /// Samples, in the first seed's files.
    pub samples: u64,
}

/// One metric, over all samples or in one group.
#[derive(Clone, Debug, Serialize)]
pub struct MetricRow {
    /// The metric.
    pub metric: Metric,
    /// The group, if it is about one.
    pub group: Option<SampleGroup>,
    /// Mean over seeds of the reference's value.
    pub reference: f64,
    /// Mean over seeds of the candidate's value.
    pub candidate: f64,
    /// Differences, candidate − reference.
    pub paired: Paired,
    /// What the pairs are.
    pub unit: Unit,
    /// Against the margin; none for a metric without one.
    pub test: Option<MarginTest>,
    /// Whether the verdict rests on it.
    pub gates: bool,
    /// P value of failing after Holm's adjustment over all that gates.
    pub p_fail_holm: Option<f64>,
    /// Two-level bootstrap interval of the mean difference, for means over examples.
    pub bootstrap: Option<Interval>,
    /// Seeds after which it would pass with chance [`Protocol::power`] if there were no difference,
    /// from the spread seen.
    pub seeds_needed: Option<usize>,
}

impl MetricRow {
    /// `accuracy`, or `accuracy of region=west`.
    pub fn label(&self) -> String {
        match &self.group {
            Some(g) => format!("accuracy of {}={}", g.column, g.value),
            None => self.metric.name().into(),
        }
    }

    /// What follows for this metric; none if it does not gate.
    pub fn verdict(&self) -> Option<Verdict> {
        self.test.filter(|_| self.gates).map(|t| t.verdict)
    }

    /// Whether it fails even after Holm's adjustment, and so is named as a cause.
    pub fn is_named(&self) -> bool {
        self.verdict() == Some(Verdict::Fail) && self.p_fail_holm.is_some_and(|p| p < crate::stats::ALPHA)
    }
}

/// Flips in one group, over all seeds.
#[derive(Clone, Debug, Serialize)]
pub struct GroupFlips {
    /// The group.
    pub group: SampleGroup,
    /// Mean share of right answers of the reference that the candidate has wrong.
    pub negative_flips: f64,
    /// The same between references of two seeds.
    pub floor: Option<f64>,
}

/// The whole of it.
#[derive(Clone, Debug, Serialize)]
pub struct Assessment {
    /// What follows over all.
    pub verdict: Verdict,
    /// What that means, in sentences.
    pub findings: Vec<String>,
    /// What was stated beforehand.
    pub protocol: Protocol,
    /// Whether the reference is worth comparing with; if not, the verdict is inconclusive.
    pub reference_check: ReferenceCheck,
    /// Whether pairs were made by the seeds that files name, or by order.
    pub paired_by_seed: bool,
    /// Whether all files hold the same samples.
    pub examples: Examples,
    /// One row per metric and group.
    pub rows: Vec<MetricRow>,
    /// Candidate runs that diverged.
    pub divergence: Divergence,
    /// Flips by group; the worst first.
    pub group_flips: Vec<GroupFlips>,
    /// What each pair measured.
    pub seeds: Vec<SeedMeasures>,
}

/// Why there is no assessment.
#[derive(Debug, thiserror::Error)]
pub enum AssessmentError {
    /// A file is bad.
    #[error(transparent)]
    Logits(#[from] LogitsError),
    /// Files do not pair.
    #[error("{0}")]
    Pairing(String),
}

/// Measures all pairs and judges them.
///
/// Every baseline file is read twice: with its candidate, and as the other seed of the one before
/// it.
///
/// # Errors
/// If files do not pair, or one cannot be read.
pub fn assess(
    references: &[&dyn Source],
    candidates: &[&dyn Source],
    protocol: Protocol,
    threads: NonZeroUsize,
) -> Result<Assessment, AssessmentError> {
    let Pairing { order, by_seed, examples } = pair(references, candidates)?;
    let mut seeds = Vec::with_capacity(order.len());
    for (i, &(r, c)) in order.iter().enumerate() {
        // Around a ring, so that each reference is the other of one: two differences share at most
        // one run.
        let other = (order.len() > 1).then(|| references[order[(i + 1) % order.len()].0]);
        seeds.push(measure_seed(references[r], candidates[c], other, threads)?);
    }
    Ok(judge(seeds, protocol, by_seed, examples))
}

struct Pairing {
    order: Vec<(usize, usize)>,
    by_seed: bool,
    examples: Examples,
}

fn pair(references: &[&dyn Source], candidates: &[&dyn Source]) -> Result<Pairing, AssessmentError> {
    let fail = |message: String| Err(AssessmentError::Pairing(message));
    if references.is_empty() || references.len() != candidates.len() {
        return fail(format!(
            "{} baseline files and {} candidate files do not pair; give one of each per seed",
            references.len(),
            candidates.len()
        ));
    }
    // Opening reads the headers and labels only.
    let first = references[0].open()?;
    let mut examples = Examples::Shared;
    let mut seeds_of = |sources: &[&dyn Source]| -> Result<Vec<Option<u64>>, AssessmentError> {
        let mut seeds = Vec::new();
        for source in sources {
            let open = source.open()?;
            if open.classes() != first.classes() {
                let (name, n) = (open.name(), open.classes());
                return Err(AssessmentError::Pairing(format!(
                    "{name} has {n} classes, {} has {}",
                    first.name(),
                    first.classes()
                )));
            }
            if same_samples(&first, &open).is_err() {
                examples = Examples::OfEachSeed;
            }
            seeds.push(open.seed());
        }
        Ok(seeds)
    };
    let (a, b) = (seeds_of(references)?, seeds_of(candidates)?);
    let known: usize = a.iter().chain(&b).flatten().count();
    if known == 0 {
        return Ok(Pairing { order: (0..a.len()).map(|i| (i, i)).collect(), by_seed: false, examples });
    }
    if known < a.len() + b.len() {
        return fail("some files name their seed and some do not; name it in all or in none".into());
    }
    let mut order = Vec::new();
    for (i, seed) in a.iter().enumerate() {
        let of = |side: &[Option<u64>]| side.iter().filter(|s| *s == seed).count();
        if of(&a) != 1 {
            return fail(format!("two baseline files name seed {}", seed.unwrap_or(0)));
        }
        match b.iter().position(|s| s == seed) {
            Some(j) if of(&b) == 1 => order.push((i, j)),
            _ => {
                return fail(format!(
                    "{} has seed {}; there must be one candidate file of that seed",
                    references[i].name(),
                    seed.unwrap_or(0)
                ));
            }
        }
    }
    Ok(Pairing { order, by_seed: true, examples })
}

/// Judges measured pairs.
pub fn judge(seeds: Vec<SeedMeasures>, protocol: Protocol, by_seed: bool, examples: Examples) -> Assessment {
    let sums: Vec<SeedSums> = seeds.iter().map(|s| s.sums.clone()).collect();
    let intervals = two_level(&sums, examples, 0);
    let mut rows: Vec<MetricRow> = Metric::ALL
        .into_iter()
        .filter_map(|metric| {
            let interval = metric.of_examples().and_then(|at| intervals.get(at).copied());
            row(metric, &seeds, &protocol, interval)
        })
        .collect();
    rows.extend(group_rows(&seeds, &protocol));

    let divergence =
        Divergence::of(protocol.diverged, seeds.len() as u64 + protocol.diverged, protocol.max_divergence);
    let mut tests: Vec<(Verdict, Option<f64>)> =
        rows.iter().filter_map(|r| Some((r.verdict()?, r.test?.p_fail))).collect();
    tests.extend(divergence.verdict.map(|v| (v, divergence.p_fail)));
    let p: Vec<f64> = tests.iter().map(|t| t.1.unwrap_or(1.0)).collect();
    for (row, p) in rows.iter_mut().filter(|r| r.gates).zip(holm(&p)) {
        row.p_fail_holm = Some(p);
    }
    let group_flips = group_flips(&seeds);
    let reference_check = ReferenceCheck::of(&seeds);
    // That the candidate diverges says something whatever the reference is.
    let may_judge = reference_check.is_worth_comparing_with() || divergence.verdict == Some(Verdict::Fail);
    let mut assessment = Assessment {
        verdict: if may_judge { over_all(&tests) } else { Verdict::Inconclusive },
        findings: Vec::new(),
        protocol,
        reference_check,
        paired_by_seed: by_seed,
        examples,
        rows,
        divergence,
        group_flips,
        seeds,
    };
    assessment.findings = findings::sentences(&assessment);
    assessment
}

fn row(
    metric: Metric,
    seeds: &[SeedMeasures],
    protocol: &Protocol,
    bootstrap: Option<Interval>,
) -> Option<MetricRow> {
    let pairs: Option<Vec<(f64, f64)>> = seeds.iter().map(|s| metric.values(s)).collect();
    let pairs = pairs?;
    let moments = |s: &SeedMeasures| {
        let (n, mean, sd) = s.examples.get(metric.of_examples()?)?.values();
        Some(Paired::from_moments(n, mean, sd))
    };
    // One pair of models: its examples are what can be counted.
    let of_examples = if seeds.len() == 1 { moments(&seeds[0]) } else { None };
    finish(metric, None, &pairs, of_examples, protocol, bootstrap)
}

/// A row from (reference, candidate) of each seed, or from the examples of the only one.
fn finish(
    metric: Metric,
    group: Option<SampleGroup>,
    pairs: &[(f64, f64)],
    of_examples: Option<Paired>,
    protocol: &Protocol,
    bootstrap: Option<Interval>,
) -> Option<MetricRow> {
    let mean = |f: fn(&(f64, f64)) -> f64| mean_sd(&pairs.iter().map(f).collect::<Vec<_>>()).map(|m| m.0);
    let (reference, candidate) = (mean(|p| p.0)?, mean(|p| p.1)?);
    let (better, question) = (metric.better(), protocol.question);
    let (paired, unit) = match of_examples {
        Some(paired) => (paired, Unit::Examples),
        None => (Paired::of(pairs)?, Unit::Seeds),
    };
    let test = protocol.margin(metric).and_then(|margin| match unit {
        Unit::Examples => MarginTest::of_examples(paired, reference, better, margin, question),
        Unit::Seeds => MarginTest::of(pairs, better, margin, question),
    });
    // With one pair of models, measures that are no means over examples cannot be judged: unless
    // asked for they are shown.
    let can_judge = unit == Unit::Examples || pairs.len() > 1 || protocol.asked_for.contains(&metric);
    let large = group.as_ref().is_none_or(|g| g.samples >= LEAST_GROUP);
    let spread = test.and_then(|t| t.spread_over_margin()).filter(|_| unit == Unit::Seeds);
    Some(MetricRow {
        metric,
        reference,
        candidate,
        paired,
        unit,
        gates: test.is_some() && can_judge && large,
        test,
        p_fail_holm: None,
        bootstrap,
        seeds_needed: spread.and_then(|s| seeds_needed(s, protocol.power)),
        group,
    })
}

/// Every group that all seeds have, with its sums of each.
fn groups(seeds: &[SeedMeasures]) -> impl Iterator<Item = (SampleGroup, Vec<&GroupRow>)> {
    let tables = seeds.first().map(|s| s.groups.as_slice()).unwrap_or_default();
    tables.iter().flat_map(|t| t.values.iter().map(|v| (&t.column, v))).filter_map(|(column, value)| {
        let of_seeds = seeds.iter().map(|s| {
            let table = s.groups.iter().find(|t| t.column == *column)?;
            table.rows.get(table.values.iter().position(|v| v == value)?)
        });
        let rows: Vec<&GroupRow> = of_seeds.collect::<Option<_>>()?;
        let samples = rows[0].reference.values()?.samples;
        Some((SampleGroup { column: column.clone(), value: value.clone(), samples }, rows))
    })
}

fn group_rows(seeds: &[SeedMeasures], protocol: &Protocol) -> Vec<MetricRow> {
    groups(seeds)
        .filter_map(|(group, rows)| {
            let pairs: Option<Vec<(f64, f64)>> = rows
                .iter()
                .map(|r| Some((r.reference.values()?.accuracy, r.candidate.values()?.accuracy)))
                .collect();
            let of_examples = if let [only] = rows.as_slice() {
                // Differences of single answers are −1, 0 or 1: their moments follow from the
                // flips.
                let a = only.agreement.values()?;
                let n = a.samples as f64;
                let mean = a.positive_flips - a.negative_flips;
                let square = a.positive_flips + a.negative_flips - mean * mean;
                let sd = (a.samples > 1).then(|| (square.max(0.0) * n / (n - 1.0)).sqrt());
                Some(Paired::from_moments(a.samples as usize, mean, sd))
            } else {
                None
            };
            finish(Metric::GroupAccuracy, Some(group), &pairs?, of_examples, protocol, None)
        })
        .collect()
}

fn group_flips(seeds: &[SeedMeasures]) -> Vec<GroupFlips> {
    let mean = |values: Vec<f64>| mean_sd(&values).map(|m| m.0);
    let mut all: Vec<GroupFlips> = groups(seeds)
        .filter_map(|(group, rows)| {
            let negative =
                |f: fn(&GroupRow) -> Option<f64>| rows.iter().map(|r| f(r)).collect::<Option<Vec<f64>>>();
            Some(GroupFlips {
                group,
                negative_flips: mean(negative(|r| Some(r.agreement.values()?.negative_flips))?)?,
                floor: negative(|r| Some(r.floor.values()?.negative_flips)).and_then(mean),
            })
        })
        .collect();
    let beyond = |g: &GroupFlips| g.negative_flips - g.floor.unwrap_or(0.0);
    all.sort_by(|a, b| beyond(b).total_cmp(&beyond(a)));
    all
}
