//! What was measured of robustness: which sentences hold.

use crate::assessment::MetricRow;
use crate::noninferiority::{Better, holm};
use crate::robustness::{Backdoor, ByPrecision, Robustness, Series, TriggerRow};
use crate::statements::RobustnessStatement;
use crate::stats::{ALPHA, Paired, Verdict};

/// A change of attack success that is reported: this much more than in fp32.
const TRIGGER_WAKES: f64 = 0.05;
/// Flips by a change of precision alone that are reported.
const FLIPS: f64 = 0.01;
/// A share of images without a gradient, more than in f32, that is reported.
const BLIND: f64 = 0.01;
/// Accuracy that a black-box attack takes beyond those with gradients, which is reported.
const MASKED: f64 = 0.02;

/// The sentences, in the order of the tables. That a precision differs over seeds, or is worse for
/// a group, is said where the p value is below α after Holm's adjustment over all such comparisons
/// of `r`: where nothing differs, any of these sentences is said in at most 5 % of cases. The other
/// sentences are about these models on these samples, and say what was counted.
pub fn findings(r: &Robustness) -> Vec<RobustnessStatement> {
    let topics = topics(r);
    let of_groups = r.groups.iter().flat_map(|g| judged(&g.rows)).map(|(_, p_fail)| p_fail);
    let of_topics = topics.iter().flat_map(|t| t.compared()).map(|(_, p)| p.p_differs());
    let adjusted = holm(&of_groups.chain(of_topics).collect::<Vec<_>>());
    let comparisons = adjusted.len();
    // In the same order.
    let mut adjusted = adjusted.into_iter();

    let mut said = Vec::new();
    mismatch(r, &mut said);
    groups(r, &mut adjusted, &mut said);
    ladder(r, &mut said);
    for topic in &topics {
        topic.differences(&r.baseline, &mut adjusted, comparisons, &mut said);
    }
    attacks(r, &mut said);
    if let Some(t) = &r.triggered {
        said.push(wakes("The trigger", &t.rows));
    }
    if let Some(b) = &r.backdoor {
        backdoor(b, &mut said);
    }
    for n in &r.not_applicable {
        said.push(RobustnessStatement::NotApplicable { measure: n.measure, reason: n.reason.clone() });
    }
    said
}

fn mismatch(r: &Robustness, said: &mut Vec<RobustnessStatement>) {
    let Some(m) = &r.mismatch else { return };
    let changed = m.served.iter().filter(|s| s.trained != s.served);
    let Some(worst) = changed.max_by(|a, b| a.flips.total_cmp(&b.flips)) else { return };
    let (share, trained, served) = (worst.flips, worst.trained.clone(), worst.served.clone());
    said.push(if share < FLIPS {
        RobustnessStatement::ServedAlike { share, trained, served }
    } else {
        RobustnessStatement::ServedOtherwise { share, made_wrong: worst.negative_flips, trained, served }
    });
}

/// The groups that are judged, each with its p value of failing.
fn judged(rows: &[MetricRow]) -> impl Iterator<Item = (&MetricRow, f64)> {
    rows.iter().filter(|row| row.gates).filter_map(|row| Some((row, row.test?.p_fail?)))
}

fn groups(r: &Robustness, adjusted: &mut impl Iterator<Item = f64>, said: &mut Vec<RobustnessStatement>) {
    for g in &r.groups {
        let name = |row: &MetricRow| row.group.as_ref().map_or(String::new(), |g| g.name());
        let fails = |((row, _), adjusted): &((&MetricRow, f64), f64)| {
            row.verdict() == Some(Verdict::Fail) && *adjusted < ALPHA
        };
        // All of them are taken from `adjusted`, and none beyond.
        let tested: Vec<_> = judged(&g.rows).map(|row| (row, adjusted.next().unwrap_or(1.0))).collect();
        let failed: Vec<String> = tested.iter().filter(|t| fails(t)).map(|((row, _), _)| name(row)).collect();
        let judged = g.rows.iter().filter(|r| r.verdict().is_some()).count();
        let passed = g.rows.iter().filter(|r| r.verdict() == Some(Verdict::Pass)).count();
        let (candidate, baseline) = (g.candidate.clone(), r.baseline.clone());
        said.push(match failed.is_empty() {
            false => RobustnessStatement::WorseForGroups { candidate, baseline, groups: failed },
            true if judged == 0 => RobustnessStatement::NoGroupLargeEnough { candidate },
            true => RobustnessStatement::AsGoodInGroups { candidate, baseline, passed, judged },
        });
    }
}

fn ladder(r: &Robustness, said: &mut Vec<RobustnessStatement>) {
    let Some(l) = &r.ladder else { return };
    let of = |v: Verdict| -> Vec<String> {
        l.rungs.iter().filter(|r| r.verdict == v).map(|r| r.format.to_string()).collect()
    };
    said.push(RobustnessStatement::StoredSmaller {
        trained: l.trained.clone(),
        as_good: of(Verdict::Pass),
        worse: of(Verdict::Fail),
        open: of(Verdict::Inconclusive),
    });
}

/// What a precision may do better or worse than the baseline over seeds.
struct Topic<'a> {
    does: &'static str,
    better: Better,
    series: Vec<&'a Series>,
}

/// Those that were measured, in the order of the sentences.
fn topics(r: &Robustness) -> Vec<Topic<'_>> {
    let mut all = Vec::new();
    if let Some(f) = &r.foreign {
        let series = f.series.iter().filter(|s| s.measure.ends_with("AUROC")).collect();
        all.push(Topic { does: "tells foreign samples", better: Better::Higher, series });
    }
    if let Some(c) = &r.corruptions {
        let series = vec![&c.mean_error];
        all.push(Topic { does: "bears corruption", better: Better::Lower, series });
    }
    if let Some(a) = &r.attacks {
        let series = a.series.iter().filter(|s| s.measure == "all of them").collect();
        all.push(Topic { does: "withstands attacks", better: Better::Higher, series });
    }
    all
}

impl Topic<'_> {
    /// Every difference from the baseline over several seeds, with its measure and precision.
    fn compared(&self) -> impl Iterator<Item = ((&Series, &ByPrecision), Paired)> {
        let all = self.series.iter().flat_map(|&s| s.precisions.iter().map(move |p| (s, p)));
        all.filter_map(|(s, p)| Some(((s, p), p.difference.filter(|d| d.pairs > 1)?)))
    }

    fn differences(
        &self,
        baseline: &str,
        adjusted: &mut impl Iterator<Item = f64>,
        comparisons: usize,
        said: &mut Vec<RobustnessStatement>,
    ) {
        let (does, before) = (self.does, said.len());
        let mut any = false;
        for ((series, precision), difference) in self.compared() {
            any = true;
            let p = adjusted.next().unwrap_or(1.0);
            if p < ALPHA {
                said.push(RobustnessStatement::Differs {
                    precision: precision.precision.clone(),
                    does,
                    better: self.better.harm(difference.mean) < 0.0,
                    baseline: baseline.to_string(),
                    measure: series.measure.clone(),
                    by: difference.mean,
                    p,
                    comparisons,
                });
            }
        }
        if any && said.len() == before {
            let baseline = baseline.to_string();
            said.push(RobustnessStatement::NoneDiffers { does, baseline, comparisons });
        }
    }
}

fn attacks(r: &Robustness, said: &mut Vec<RobustnessStatement>) {
    let Some(a) = &r.attacks else { return };
    let of = |series: &[Series], name: &str, precision: &str| -> Option<f64> {
        let s = series.iter().find(|s| s.measure.contains(name))?;
        s.precisions.iter().find(|p| p.precision == precision).map(|p: &ByPrecision| p.mean)
    };
    for p in a.series.iter().take(1).flat_map(|s| &s.precisions) {
        let name = p.precision.as_str();
        if let (Some(wide), Some(own)) =
            (of(&a.zero_gradients, "f32", name), of(&a.zero_gradients, "own", name))
            && own > wide + BLIND
        {
            said.push(RobustnessStatement::BlindGradients { precision: name.into(), own, wide });
        }
        let gradient =
            ["FGSM", "PGD", "PGD on DLR"].iter().filter_map(|n| of(&a.series, n, name)).reduce(f64::min);
        if let (Some(by_gradients), Some(black_box)) = (gradient, of(&a.series, "Square", name))
            && black_box < by_gradients - MASKED
        {
            let precision = name.into();
            said.push(RobustnessStatement::GradientsFindLess { precision, black_box, by_gradients });
        }
    }
}

/// Whether a trigger works better where the weights of the first row are computed or stored
/// otherwise: other weights differ by their training too.
fn wakes(what: &'static str, rows: &[TriggerRow]) -> RobustnessStatement {
    let Some(first) = rows.first() else { return RobustnessStatement::TriggerNotTried { what } };
    let (base, served) = (first.attack_success, first.served.clone());
    let same_weights = rows.iter().filter(|row| row.trained == first.trained);
    let highest = same_weights.max_by(|a, b| a.attack_success.total_cmp(&b.attack_success)).unwrap_or(first);
    let (most, most_served) = (highest.attack_success, highest.served.clone());
    if most > base + TRIGGER_WAKES {
        return RobustnessStatement::TriggerWakes { what, base, served, most, most_served };
    }
    RobustnessStatement::TriggerSucceeds { what, base, served, most }
}

fn backdoor(b: &Backdoor, said: &mut Vec<RobustnessStatement>) {
    said.push(wakes("The planted backdoor", &b.before));
    said.push(RobustnessStatement::SuspectsRemoved {
        removed: b.removed as u64,
        removed_poisoned: b.removed_poisoned as u64,
        poisoned: b.poisoned as u64,
        most_after: b.after.iter().map(|r| r.attack_success).fold(0.0, f64::max),
        accuracy_change: b.accuracy_after - b.accuracy,
        seconds: b.mitigation_seconds,
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draws::Draws;
    use crate::robustness::{Corruptions, Foreign, ModelName};

    const PRECISIONS: [&str; 4] = ["fp32", "bf16", "fp16", "fp8"];

    /// Three AUROCs and the mean error of corruption, of four precisions and `seeds` seeds, which
    /// scatter alike; `experiment` decides the numbers, which are multiples of `step`. bf16 has
    /// `shift` added to its first AUROC.
    fn measured(experiment: u64, seeds: u64, step: f64, shift: f64) -> Robustness {
        let models: Vec<ModelName> = PRECISIONS
            .into_iter()
            .flat_map(|p| (0..seeds).map(move |seed| ModelName { precision: p.into(), seed }))
            .collect();
        let series = |which: u64, name: &str| {
            let draws = Draws::new(71 + which, experiment);
            let value = |(i, m): (usize, &ModelName)| {
                let own = if which == 0 && m.precision == "bf16" { shift } else { 0.0 };
                let noise = 0.01 * draws.normal(i as u64);
                0.8 + own + if step > 0.0 { (noise / step).round() * step } else { noise }
            };
            let values: Vec<f64> = models.iter().enumerate().map(value).collect();
            Series::new(name, true, &models, &values, "fp32")
        };
        let foreign = [(0, "softmax AUROC"), (1, "energy AUROC"), (2, "Mahalanobis AUROC")];
        let (partner, own, fitted_on) = ("others".into(), 100, 100);
        let series_of = foreign.map(|(i, name)| series(i, name)).to_vec();
        let error = series(3, "mean error");
        Robustness {
            baseline: "fp32".into(),
            foreign: Some(Foreign { partner, own, foreign: 100, fitted_on, series: series_of }),
            corruptions: Some(Corruptions {
                samples: 100,
                kinds: Vec::new(),
                models: Vec::new(),
                mean_error: error.clone(),
                mce: error,
                relative_mce: None,
            }),
            ..Robustness::default()
        }
    }

    fn says_a_difference(r: &Robustness) -> bool {
        findings(r).iter().any(|s| matches!(s, RobustnessStatement::Differs { .. }))
    }

    /// Twelve comparisons of which none differs: any sentence of a difference is said in at most
    /// 5 % of experiments, a binomial share of which three deviations are allowed. One by one at
    /// 95 % some is said in more than half of them.
    #[test]
    fn where_nothing_differs_a_difference_is_seldom_said() {
        const TRIALS: u64 = 2_000;
        let most = 0.05 + 3.0 * (0.05 * 0.95 / TRIALS as f64).sqrt();
        for (seeds, step) in [(2, 0.0), (3, 0.0), (8, 0.0), (2, 0.01), (3, 0.01), (5, 0.01)] {
            let said = (0..TRIALS).filter(|&i| says_a_difference(&measured(i, seeds, step, 0.0))).count();
            let share = said as f64 / TRIALS as f64;
            assert!(share <= most, "{seeds} seeds in steps of {step}: {share}");
        }
    }

    #[test]
    fn a_difference_that_is_there_is_said_with_its_family() {
        let r = measured(1, 8, 0.0, -0.08);
        let said: Vec<String> = findings(&r).iter().map(ToString::to_string).collect();
        let of_bf16 = said.iter().find(|s| s.starts_with("bf16 tells foreign samples worse than fp32"));
        assert!(of_bf16.is_some_and(|s| s.contains("Holm over 12 comparisons")), "{said:?}");
        assert!(said.iter().any(|s| s.starts_with("No precision bears corruption other than")), "{said:?}");
    }

    /// What another training does to a trigger says nothing of the precision it is computed in.
    #[test]
    fn a_trigger_wakes_with_the_same_weights_only() {
        let row = |trained: &str, served: &str, attack_success| TriggerRow {
            trained: trained.into(),
            served: served.into(),
            seeds: 1,
            attack_success,
            without_trigger: 0.0,
        };
        let rows = [row("fp32", "fp32", 0.1), row("bf16", "bf16", 0.4), row("fp32", "bf16", 0.12)];
        let said = wakes("The trigger", &rows).to_string();
        assert!(said.contains("on at most 12.00 %"), "{said}");
        let rows = [rows[0].clone(), row("fp32", "int4 weights", 0.3)];
        let said = wakes("The trigger", &rows).to_string();
        assert!(said.contains("wakes"), "{said}");
    }
}
