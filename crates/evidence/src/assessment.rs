//! What a verdict is made of: what was stated before, what each metric says, what follows.

use serde::Serialize;

use crate::buckets::TestSets;
use crate::exact::{Divergence, Excess};
use crate::experiment::{NoiseFloor, SeedMeasures};
use crate::metric::Metric;
use crate::noninferiority::{Claim, Margin, MarginTest, Question};
use crate::power::Plan;
use crate::reference::ReferenceCheck;
use crate::statements::VerdictStatement;
use crate::stats::{Looks, Paired, Verdict};

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
    /// Of whom the verdict speaks.
    pub claim: Claim,
    /// Looks over which α is divided.
    pub looks: Looks,
    /// What changed answers are measured against.
    pub floor: NoiseFloor,
    /// Groups that were named, as `column=value`: each is judged, or the verdict is inconclusive.
    pub groups: Vec<String>,
    /// Candidate runs that diverged and left no logits.
    pub diverged: u64,
    /// Baseline runs that diverged and left no logits.
    pub baseline_diverged: u64,
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
            claim: Claim::default(),
            looks: Looks::ONE,
            floor: NoiseFloor::default(),
            groups: Vec::new(),
            diverged: 0,
            baseline_diverged: 0,
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

    /// The margin of a metric, if it gates.
    pub fn margin(&self, metric: Metric) -> Option<Margin> {
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

impl SampleGroup {
    /// `column=value`.
    pub fn name(&self) -> String {
        format!("{}={}", self.column, self.value)
    }
}

/// What has a margin and could not be judged by it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unjudged {
    /// `flips`, or `accuracy of region=west`.
    pub what: String,
    /// Why.
    pub reason: String,
    /// Whether the verdict waits for it: it was asked for, or belongs to what gates.
    pub gates: bool,
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
    /// Against the margin, by the claim that was stated; of one pair of models, on examples like
    /// these. None for a metric without a margin.
    pub test: Option<MarginTest>,
    /// The same test of other seeds on these samples.
    pub on_samples: Option<MarginTest>,
    /// The same test of other seeds on examples like these.
    pub on_examples: Option<MarginTest>,
    /// Whether the verdict rests on it.
    pub gates: bool,
    /// P value of failing after Holm's adjustment over all that gates.
    pub p_fail_holm: Option<f64>,
    /// Whether that lies below the level.
    #[serde(skip)]
    pub fails_after_holm: bool,
    /// Seeds after which it would pass with chance [`Protocol::power`] if there were no difference,
    /// on as many examples, from the spread seen.
    pub seeds_needed: Option<usize>,
    /// Examples (clusters, where the files name them) after which it would after as many seeds, if
    /// the harm stays what was seen.
    pub examples_needed: Option<usize>,
    /// What a plan of more of both rests on; none for one pair.
    #[serde(skip)]
    pub plan: Option<Plan>,
}

impl MetricRow {
    /// `accuracy`, or `accuracy of region=west`.
    pub fn label(&self) -> String {
        match &self.group {
            Some(g) => format!("accuracy of {}", g.name()),
            None => self.metric.name().into(),
        }
    }

    /// What follows for this metric; none if it does not gate.
    pub fn verdict(&self) -> Option<Verdict> {
        self.test.filter(|_| self.gates).map(|t| t.verdict)
    }

    /// Whether it fails even after Holm's adjustment, and so is named as a cause.
    pub fn is_named(&self) -> bool {
        self.verdict() == Some(Verdict::Fail) && self.fails_after_holm
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
    /// What follows over all, by the claim that was stated.
    pub verdict: Verdict,
    /// What follows of other seeds on these samples.
    pub on_samples: Verdict,
    /// What follows of other seeds on examples like these.
    pub on_examples: Verdict,
    /// What that means, in sentences.
    pub findings: Vec<VerdictStatement>,
    /// What was stated beforehand.
    pub protocol: Protocol,
    /// Whether the reference is worth comparing with; if not, the verdict is inconclusive.
    pub reference_check: ReferenceCheck,
    /// Whether pairs were made by the seeds that files name, or by order.
    pub paired_by_seed: bool,
    /// Whether all files hold the same samples.
    pub examples: TestSets,
    /// One row per metric and group.
    pub rows: Vec<MetricRow>,
    /// What has a margin and could not be judged.
    pub unjudged: Vec<Unjudged>,
    /// Candidate runs that diverged.
    pub divergence: Divergence,
    /// How much oftener they do than the baseline's.
    pub divergence_excess: Excess,
    /// Flips by group; the worst first.
    pub group_flips: Vec<GroupFlips>,
    /// What each pair measured.
    pub seeds: Vec<SeedMeasures>,
}
