//! From what every pair measured to a verdict: each metric against its margin, of other seeds on
//! these samples and of other seeds on examples like these.

use crate::answers::ChangedAnswers;
use crate::assessment::{Assessment, GroupFlips, MetricRow, Protocol, SampleGroup, Unit, Unjudged};
use crate::buckets::{BucketSums, TestSets};
use crate::crossed::Crossed;
use crate::exact::{Divergence, Excess, clean_runs_needed};
use crate::experiment::SeedMeasures;
use crate::findings;
use crate::measures::{Calibration, ConfusionMatrix, GroupRow};
use crate::metric::Metric;
use crate::noninferiority::{
    Asked, Claim, GateTest, MarginTest, UnitDifferences, holm, over_adjusted, over_all,
};
use crate::power::{Plan, Spread};
use crate::reference::ReferenceCheck;
use crate::stats::{Paired, Verdict, mean_sd};

/// Judges measured pairs.
pub(crate) fn judge(
    seeds: Vec<SeedMeasures>,
    protocol: Protocol,
    by_seed: bool,
    examples: TestSets,
) -> Assessment {
    let (mut rows, mut unjudged) = (Vec::new(), Vec::new());
    for metric in Metric::ALL.into_iter().filter(|m| *m != Metric::GroupAccuracy) {
        match Measured::of(metric, &seeds) {
            Some(measured) => {
                let row = measured.row(&protocol, examples);
                let judged = row.as_ref().is_some_and(|r| r.test.is_some());
                if protocol.margin(metric).is_some() && !judged {
                    unjudged.push(Unjudged {
                        what: metric.name().into(),
                        reason: format!(
                            "how it scatters over examples is not known{}; `claim = \"samples\"` judges it on these samples \
                             alone, over several seeds",
                            match metric {
                                Metric::BalancedAccuracy | Metric::MacroF1 => {
                                    " with more than 1,024 classes, whose answers are not kept by part"
                                }
                                Metric::Auroc => ", because one part of the examples has all of some class",
                                _ => "",
                            }
                        ),
                        gates: true,
                    });
                }
                rows.extend(row);
            }
            None => unjudged.extend(missing(metric, &seeds, &protocol)),
        }
    }
    of_groups(&seeds, &protocol, examples, &mut rows, &mut unjudged);

    let pairs = seeds.len() as u64;
    let divergence =
        Divergence::of(protocol.diverged, pairs + protocol.diverged, protocol.max_divergence, protocol.looks);
    let divergence_excess = Excess::of(
        protocol.diverged,
        pairs + protocol.diverged,
        protocol.baseline_diverged,
        pairs + protocol.baseline_diverged,
    );
    let group_flips = group_flips(&seeds);
    let reference_check = ReferenceCheck::of(&seeds);
    let mut assessment = Assessment {
        verdict: Verdict::Inconclusive,
        on_samples: Verdict::Inconclusive,
        on_examples: Verdict::Inconclusive,
        findings: Vec::new(),
        protocol,
        reference_check,
        paired_by_seed: by_seed,
        examples,
        rows,
        unjudged,
        divergence,
        divergence_excess,
        group_flips,
        seeds,
    };
    judge_together(&mut [&mut assessment]);
    assessment
}

/// Comes to the verdicts of assessments that are read as one answer, such as those of several
/// candidates: each passes by itself, and what fails must do so after Holm's adjustment over all of
/// them.
pub fn judge_together(assessments: &mut [&mut Assessment]) {
    let p: Vec<f64> = assessments.iter().flat_map(|a| a.tests()).map(|t| t.p_fail).collect();
    let mut adjusted = holm(&p).into_iter();
    for a in assessments {
        let tests = a.tests();
        let p: Vec<f64> = adjusted.by_ref().take(tests.len()).collect();
        for (row, p) in a.rows.iter_mut().filter(|r| r.gates).zip(&p) {
            row.p_fail_holm = Some(*p);
            row.fails_after_holm = a.protocol.looks.reject(*p);
        }
        let worth = a.reference_check.is_worth_comparing_with();
        a.verdict = match over_adjusted(&tests, &p, a.protocol.looks) {
            // Of a reference that is not worth comparing with nothing follows, but for what
            // diverges.
            Verdict::Fail if worth || a.diverges() => Verdict::Fail,
            // Nothing passes where nothing was measured.
            Verdict::Pass if worth && a.rows.iter().any(|r| r.gates) => Verdict::Pass,
            _ => Verdict::Inconclusive,
        };
        if worth {
            a.on_samples = over_all(&a.tests_by(|r| r.on_samples), a.protocol.looks);
            a.on_examples = over_all(&a.tests_by(|r| r.on_examples), a.protocol.looks);
        }
        a.findings = findings::sentences(a);
    }
}

impl Assessment {
    /// What the verdict rests on: every row that gates, divergence where it was limited, and what
    /// should have been judged and could not.
    pub fn tests(&self) -> Vec<GateTest> {
        self.tests_by(|r| r.test)
    }

    /// Whether it diverges more often than is allowed, or than the baseline does.
    fn diverges(&self) -> bool {
        self.divergence.verdict == Some(Verdict::Fail)
            || self.protocol.looks.reject(self.divergence_excess.p_fail)
    }

    fn tests_by(&self, test: fn(&MetricRow) -> Option<MarginTest>) -> Vec<GateTest> {
        let open = GateTest { verdict: Verdict::Inconclusive, p_fail: 1.0 };
        let of = |t: MarginTest| GateTest { verdict: t.verdict, p_fail: t.p_fail.unwrap_or(1.0) };
        let rows = self.rows.iter().filter(|r| r.gates).map(|r| test(r).map_or(open, of));
        let d = &self.divergence;
        let divergence = d.verdict.map(|verdict| GateTest { verdict, p_fail: d.p_fail.unwrap_or(1.0) });
        // More divergence than the baseline's can fail a candidate. That none is seen passes
        // nothing: the first sentence then says of which runs it speaks.
        let p_fail = self.divergence_excess.p_fail;
        let oftener = self.protocol.looks.reject(p_fail);
        let verdict = if oftener { Verdict::Fail } else { Verdict::Pass };
        let excess = (d.diverged > 0).then_some(GateTest { verdict, p_fail });
        rows.chain(divergence)
            .chain(excess)
            .chain(self.unjudged.iter().filter(|u| u.gates).map(|_| open))
            .collect()
    }
}

/// Why a metric with a margin was not measured; nothing where none is expected of these files.
fn missing(metric: Metric, seeds: &[SeedMeasures], protocol: &Protocol) -> Option<Unjudged> {
    protocol.margin(metric)?;
    let asked_for = protocol.asked_for.contains(&metric);
    let reason = match seeds.len() {
        1 => {
            "one pair of files has no other seed of the baseline to compare with; give more pairs, or `--floor none` for a \
             candidate made of the baseline's own weights"
        }
        _ => {
            "every seed has its own test samples, so what another seed changes is not known; measure all seeds on the same \
             samples, or take its margin off"
        }
    };
    let gates = asked_for || seeds.len() > 1;
    Some(Unjudged { what: metric.name().into(), reason: reason.into(), gates })
}

/// One metric of all seeds, over all samples or in one group.
#[derive(Clone, Debug)]
pub struct Measured {
    /// The metric.
    pub metric: Metric,
    /// The group, if it is about one.
    pub group: Option<SampleGroup>,
    /// (reference, candidate) of each seed.
    pub pairs: Vec<(f64, f64)>,
    /// Of each seed by bucket of examples; empty where the scatter over examples is not known.
    pub sums: Vec<BucketSums>,
    /// Examples or clusters of all seeds together, which differ from each other by chance.
    pub units: f64,
    /// Whether files name clusters.
    pub clustered: bool,
    /// The share of the units that a changed answer counts among: 1 but where it counts among those
    /// of its class.
    pub counted: f64,
}

impl Measured {
    fn of(metric: Metric, seeds: &[SeedMeasures]) -> Option<Measured> {
        let sums = |s: &SeedMeasures| match metric {
            Metric::Ece => Some(s.folds.of_calibration(Calibration::ece)),
            Metric::EceDebiased => Some(s.folds.of_calibration(Calibration::ece_debiased)),
            Metric::BalancedAccuracy => s.folds.of_answers(|m| m.balanced_accuracy().0),
            Metric::MacroF1 => s.folds.of_answers(ConfusionMatrix::macro_f1),
            Metric::Auroc => s.auroc_parts.clone(),
            _ => s.sums.get(metric.of_examples()?).cloned(),
        };
        let counted = |s: &SeedMeasures| match metric {
            Metric::BalancedAccuracy | Metric::MacroF1 => s.reference.classes.rarest().unwrap_or(1.0),
            Metric::Auroc => s.reference.auroc.map_or(1.0, |a| a.rarest),
            _ => 1.0,
        };
        // Of a metric whose scatter over examples is not known there are pairs alone.
        Some(Measured {
            metric,
            group: None,
            pairs: seeds.iter().map(|s| metric.values(s)).collect::<Option<_>>()?,
            sums: seeds.iter().map(sums).collect::<Option<_>>().unwrap_or_default(),
            units: seeds.iter().map(|s| s.units as f64).sum(),
            clustered: seeds.iter().any(|s| s.units < s.samples),
            counted: seeds.iter().map(counted).fold(1.0, f64::min),
        })
    }

    fn seeds(&self) -> usize {
        self.pairs.len()
    }

    /// Means over seeds of the reference's and the candidate's value.
    fn means(&self) -> Option<(f64, f64)> {
        let mean =
            |f: fn(&(f64, f64)) -> f64| Some(mean_sd(&self.pairs.iter().map(f).collect::<Vec<_>>())?.0);
        Some((mean(|p| p.0)?, mean(|p| p.1)?))
    }

    /// Of measures that move by whole answers, of `units` independent ones.
    fn answers(&self, units: f64) -> Option<UnitDifferences> {
        self.metric.moves_by_answers().then_some(UnitDifferences { count: units * self.counted })
    }

    /// Of the mean of `sign` · (candidate − reference) − `share` · reference.
    fn crossed(&self, sign: f64, share: f64) -> Option<Crossed> {
        Crossed::of(&self.sums.iter().collect::<Vec<_>>(), sign, share)
    }

    /// Of the mean of candidate − reference.
    fn crossed_difference(&self) -> Option<Crossed> {
        self.crossed(1.0, 0.0)
    }

    /// The test of other seeds on these samples; none without a finite value of every seed.
    pub fn on_samples(&self, asked: Asked) -> Option<MarginTest> {
        MarginTest::of_seeds(&self.pairs, asked, self.answers(self.units))
    }

    /// The test of other seeds on examples like these, or of one pair of models on such examples;
    /// none where there is no spread to judge by.
    pub fn on_examples(&self, asked: Asked, test_sets: TestSets) -> Option<MarginTest> {
        self.by_crossed(asked, test_sets, self.crossed_difference())
    }

    /// The same from the spread of the differences, which is estimated once for a row.
    fn by_crossed(
        &self,
        asked: Asked,
        test_sets: TestSets,
        difference: Option<Crossed>,
    ) -> Option<MarginTest> {
        let (reference, candidate) = self.means()?;
        if let ([sums], true, false) =
            (self.sums.as_slice(), self.metric.is_share_of_answers(), self.clustered)
        {
            let (better_is_more, examples) = (asked.better.harm(1.0) < 0.0, sums.examples() as u64);
            let (gains, losses) =
                if better_is_more { (sums.raised, sums.lowered) } else { (sums.lowered, sums.raised) };
            return MarginTest::of_answers(ChangedAnswers { examples, losses, gains }, asked);
        }
        if self.seeds() > 1 && test_sets == TestSets::OfEachSeed {
            // Other samples for each seed: the scatter of seeds has both in it.
            return self.on_samples(asked);
        }
        let toward_harm = asked.better.harm(1.0);
        MarginTest::of_examples(
            asked.better.harm(candidate - reference),
            reference,
            asked,
            |sign, share| {
                if share == 0.0 { difference } else { self.crossed(sign * toward_harm, share) }
            },
            self.answers(self.units / self.seeds() as f64),
        )
    }

    fn row(self, protocol: &Protocol, test_sets: TestSets) -> Option<MetricRow> {
        let (reference, candidate) = self.means()?;
        let one_pair = self.seeds() == 1;
        let asked = protocol.margin(self.metric).map(|margin| Asked {
            better: self.metric.better(),
            margin,
            question: protocol.question,
            looks: protocol.looks,
        });
        let crossed = if asked.is_some() || one_pair { self.crossed_difference() } else { None };
        let on_samples = asked.and_then(|asked| self.on_samples(asked));
        let on_examples = asked.and_then(|asked| self.by_crossed(asked, test_sets, crossed));
        let test = match protocol.claim {
            Claim::Samples if !one_pair => on_samples,
            // One pair of which nothing can be said has a row that says so.
            Claim::Examples if !one_pair => on_examples,
            _ => on_examples.or(on_samples),
        };
        let (paired, unit) = match crossed.filter(|_| one_pair) {
            Some(crossed) => {
                let sd = crossed.error() * self.units.sqrt();
                (Paired::from_moments(self.units as usize, candidate - reference, Some(sd)), Unit::Examples)
            }
            None => (Paired::of(&self.pairs)?, Unit::Seeds),
        };
        // Calibration of one pair is judged where a margin was asked for it.
        let judged = !one_pair || self.metric.of_examples().is_some() || self.group.is_some();
        let gates = test.is_some() && (judged || protocol.asked_for.contains(&self.metric));
        let plan = test
            .filter(|_| !one_pair)
            .map(|test| self.plan(&test, protocol, crossed.filter(|_| test_sets == TestSets::Shared)));
        let open = plan.filter(|_| test.is_some_and(|t| t.verdict == Verdict::Inconclusive));
        let (seeds, examples) = (self.seeds(), self.units / self.seeds() as f64);
        let shared = test_sets == TestSets::Shared;
        Some(MetricRow {
            metric: self.metric,
            reference,
            candidate,
            paired,
            unit,
            gates,
            test,
            on_samples: on_samples.filter(|_| !one_pair),
            on_examples,
            p_fail_holm: None,
            fails_after_holm: false,
            seeds_needed: open.and_then(|plan| plan.seeds_needed(examples, protocol.power)),
            examples_needed: open
                .filter(|_| shared)
                .zip(test)
                .map(|(plan, test)| Plan { harm: test.harm.max(0.0), ..plan })
                .and_then(|plan| plan.examples_needed(seeds, protocol.power)),
            plan,
            group: self.group,
        })
    }

    /// What a plan of more seeds and examples rests on.
    fn plan(&self, test: &MarginTest, protocol: &Protocol, crossed: Option<Crossed>) -> Plan {
        let seeds = self.seeds();
        let examples = self.units / seeds as f64;
        let spread = match (crossed, protocol.claim) {
            (Some(crossed), Claim::Examples) => Spread::of(crossed.components, seeds, examples),
            (Some(crossed), Claim::Samples) => {
                Spread { example: 0.0, ..Spread::of(crossed.components, seeds, examples) }
            }
            (None, _) => {
                let differences: Vec<f64> = self.pairs.iter().map(|(r, c)| c - r).collect();
                Spread::of_seeds(mean_sd(&differences).and_then(|m| m.1).unwrap_or(f64::NAN))
            }
        };
        Plan {
            answers: self.metric.moves_by_answers().then_some(self.counted),
            claim: protocol.claim,
            looks: protocol.looks,
            ..Plan::of(spread, test.margin_mean)
        }
    }
}

/// Every group of the first seed with its sums of each; none where a seed has no such group.
fn groups(seeds: &[SeedMeasures]) -> impl Iterator<Item = (SampleGroup, Option<Vec<&GroupRow>>)> {
    let find = |s: &'_ SeedMeasures, column: &str, value: &str| -> Option<(usize, usize)> {
        let table = s.groups.iter().position(|t| t.column == column)?;
        Some((table, s.groups[table].values.iter().position(|v| v == value)?))
    };
    let tables = seeds.first().map(|s| s.groups.as_slice()).unwrap_or_default();
    let names = tables.iter().flat_map(|t| t.values.iter().map(|v| (&t.column, v)));
    names.filter_map(move |(column, value)| {
        let row = |s: &'_ SeedMeasures| find(s, column, value);
        let rows: Option<Vec<&GroupRow>> =
            seeds.iter().map(|s| row(s).map(|(table, row)| &s.groups[table].rows[row])).collect();
        let (table, first) = row(&seeds[0])?;
        let samples = tables[table].rows[first].reference.values()?.samples;
        Some((SampleGroup { column: column.clone(), value: value.clone(), samples }, rows))
    })
}

fn of_groups(
    seeds: &[SeedMeasures],
    protocol: &Protocol,
    test_sets: TestSets,
    rows: &mut Vec<MetricRow>,
    unjudged: &mut Vec<Unjudged>,
) {
    let metric = Metric::GroupAccuracy;
    let margin = protocol.margin(metric).map(|m| m.at(1.0));
    // The fewest without a changed answer that show less than the margin.
    let least = margin.and_then(|m| clean_runs_needed(m, protocol.looks.alpha()));
    let clustered = seeds.iter().any(|s| s.units < s.samples);
    // Clusters beyond the buckets count as one each: no more than there are.
    let units = |row: &GroupRow| match clustered {
        true => row.answers.counts.iter().filter(|c| **c > 0.0).count() as f64,
        false => row.answers.examples(),
    };
    let mut found = Vec::new();
    for (group, of_seeds) in groups(seeds) {
        let name = group.name();
        found.push(name.clone());
        let is_named = protocol.groups.contains(&name);
        let not_judged =
            |reason: String| Unjudged { what: format!("accuracy of {name}"), reason, gates: is_named };
        let Some(of_seeds) = of_seeds else {
            unjudged.extend(margin.map(|_| not_judged("not every seed has samples of it".into())));
            continue;
        };
        let pairs: Option<Vec<(f64, f64)>> = of_seeds
            .iter()
            .map(|r| Some((r.reference.values()?.accuracy, r.candidate.values()?.accuracy)))
            .collect();
        let Some(pairs) = pairs else { continue };
        let measured = Measured {
            metric,
            group: Some(group),
            pairs,
            sums: of_seeds.iter().map(|r| r.answers.clone()).collect(),
            units: of_seeds.iter().map(|r| units(r)).sum(),
            clustered,
            counted: 1.0,
        };
        let each = (measured.units / seeds.len() as f64) as u64;
        let Some(mut row) = measured.row(protocol, test_sets) else { continue };
        if let Some(least) = least.filter(|least| each < *least) {
            row.gates = false;
            unjudged.push(not_judged(format!("{each}, of {least} needed at its margin")));
        }
        rows.push(row);
    }
    let absent = protocol.groups.iter().filter(|name| !found.contains(name));
    unjudged.extend(absent.map(|name| Unjudged {
        what: format!("accuracy of {name}"),
        reason: "the files have no such group".into(),
        gates: true,
    }));
    if protocol.asked_for.contains(&metric) && margin.is_some() && found.is_empty() {
        unjudged.push(Unjudged {
            what: metric.name().into(),
            reason: "the files have no group column; add `group_NAME` to them".into(),
            gates: true,
        });
    }
}

fn group_flips(seeds: &[SeedMeasures]) -> Vec<GroupFlips> {
    let mean = |values: Vec<f64>| mean_sd(&values).map(|m| m.0);
    let mut all: Vec<GroupFlips> = groups(seeds)
        .filter_map(|(group, rows)| {
            let rows = rows?;
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
