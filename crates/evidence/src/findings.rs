//! What an assessment means: what can be relied on, what is wrong, what is still unknown and what
//! would tell.

use crate::assessment::{Assessment, MetricRow, Unit};
use crate::exact::{Excess, clean_runs_needed};
use crate::experiment::{NoiseFloor, SeedMeasures};
use crate::metric::Metric;
use crate::noninferiority::{Claim, Question};
use crate::statements::{Loss, Reason, Subject, VerdictStatement};
use crate::stats::{Looks, Verdict, mean_sd};

/// The sentences, most important first.
pub(crate) fn sentences(a: &Assessment) -> Vec<VerdictStatement> {
    let caveat = a.reference_check.caveat("the baseline");
    let headline = match caveat {
        Some(caveat) => VerdictStatement::Together(vec![first(a), caveat]),
        None => first(a),
    };
    let mut all = vec![headline];
    all.extend(a.reference_check.why_inconclusive("the baseline"));
    let named: Vec<&MetricRow> = a.rows.iter().filter(|r| r.is_named()).collect();
    all.extend(named.iter().filter_map(|r| failure(a, r)));
    all.extend(causes(a, &named));
    let labels: Vec<String> = a
        .rows
        .iter()
        .filter(|r| r.verdict() == Some(Verdict::Fail) && !r.is_named())
        .map(MetricRow::label)
        .collect();
    if !labels.is_empty() {
        all.push(VerdictStatement::BeyondBeforeAdjustment { labels });
    }
    all.extend(unknown(a));
    all.extend(unjudged(a));
    all.extend(divergence(a));
    if a.rows.iter().any(|r| r.unit == Unit::Examples) {
        all.push(VerdictStatement::OnePairOfFiles);
    }
    all
}

fn first(a: &Assessment) -> VerdictStatement {
    let margins = a.rows.iter().filter(|r| r.gates).count();
    let samples = a.seeds.first().map_or(0, |s| s.samples);
    // A run that diverged left nothing to measure: what is said is said of the others.
    let subject = Subject { diverged: a.divergence.diverged, runs: a.divergence.runs };
    let question = a.protocol.question;
    let claim = match a.protocol.claim {
        Claim::Samples if a.seeds.len() > 1 => Claim::Samples,
        _ => Claim::Examples,
    };
    let accuracy = a.rows.iter().find(|r| r.metric == Metric::Accuracy && r.gates).and_then(|r| r.test);
    let accuracy_loses = accuracy.and_then(|t| t.harm_at_most);
    let elsewhere = || Box::new(on_new_examples(a));
    match (a.verdict, claim) {
        (Verdict::Pass, Claim::Examples) => {
            VerdictStatement::AsGoodOnExamples { subject, question, margins, accuracy_loses }
        }
        (Verdict::Pass, Claim::Samples) => VerdictStatement::AsGoodOnSamples {
            subject,
            question,
            margins,
            samples,
            accuracy_loses,
            elsewhere: elsewhere(),
        },
        (Verdict::Fail, _) => VerdictStatement::WorseThanAllowed { subject, question },
        (Verdict::Inconclusive, _) if margins == 0 && a.unjudged.iter().all(|u| !u.gates) => {
            VerdictStatement::NothingJudged
        }
        (Verdict::Inconclusive, Claim::Examples) if a.on_samples == Verdict::Pass => {
            VerdictStatement::AsGoodOnSamplesOnly { subject, question, samples, elsewhere: elsewhere() }
        }
        (Verdict::Inconclusive, _) => VerdictStatement::CannotTell,
    }
}

/// What is known of other examples.
pub(crate) fn on_new_examples(a: &Assessment) -> VerdictStatement {
    let open = a
        .rows
        .iter()
        .filter(|r| r.gates && r.on_examples.is_some_and(|t| t.verdict == Verdict::Inconclusive));
    let needed: Option<Vec<usize>> = open.map(|r| r.examples_needed).collect();
    let most = needed.and_then(|n| n.into_iter().max()).map(|n| n as u64);
    let (now, clusters) = a.seeds.first().map_or((0, false), |s| (s.units, s.units < s.samples));
    match (a.on_examples, most) {
        (Verdict::Pass, _) => VerdictStatement::ElsewhereToo,
        (Verdict::Fail, _) => VerdictStatement::ElsewhereNot,
        (Verdict::Inconclusive, Some(needed)) if needed > now => {
            VerdictStatement::SamplesNeeded { needed, now, clusters }
        }
        (Verdict::Inconclusive, _) => VerdictStatement::ElsewhereOpen,
    }
}

/// What has a margin and was not judged.
pub(crate) fn unjudged(a: &Assessment) -> Vec<VerdictStatement> {
    let (gating, shown): (Vec<_>, Vec<_>) = a.unjudged.iter().cloned().partition(|u| u.gates);
    let not_judged = gating.into_iter().map(|u| VerdictStatement::NotJudged { what: u.what, why: u.reason });
    let of: Vec<Reason> = shown.into_iter().map(|u| Reason { what: u.what, why: u.reason }).collect();
    let rest = (!of.is_empty()).then_some(VerdictStatement::NotPartOfVerdict { of });
    not_judged.chain(rest).collect()
}

pub(crate) fn failure(a: &Assessment, row: &MetricRow) -> Option<VerdictStatement> {
    let test = row.test.as_ref()?;
    let (label, metric, margin) = (row.label(), row.metric, test.margin_mean);
    if a.protocol.question == Question::Equivalence && test.harm < 0.0 {
        return Some(VerdictStatement::BetterThanAllowed { label, metric, margin });
    }
    Some(VerdictStatement::WorseByAtLeast {
        label,
        metric,
        at_least: test.harm_at_least,
        beyond_seeds: metric.is_beside_floor() && a.protocol.floor == NoiseFloor::OtherSeed,
        margin,
    })
}

/// What lies behind failures, where the measures tell.
pub(crate) fn causes(a: &Assessment, named: &[&MetricRow]) -> Vec<VerdictStatement> {
    let is = |m: Metric| named.iter().any(|r| r.metric == m);
    let accuracy = a.rows.iter().find(|r| r.metric == Metric::Accuracy).and_then(MetricRow::verdict);
    let accuracy_holds = accuracy != Some(Verdict::Fail);
    let mut all = Vec::new();
    if is(Metric::Ece) || is(Metric::EceDebiased) || is(Metric::Nll) {
        all.extend(temperature(a, accuracy == Some(Verdict::Pass)));
    }
    if is(Metric::NegativeFlips) || is(Metric::Flips) {
        let other_seed = mean(a, |s| Some(s.floor?.negative_flips));
        if let (Some(share), Some(floor)) = (mean(a, |s| Some(s.agreement.negative_flips)), other_seed) {
            let other_seed = (a.protocol.floor == NoiseFloor::OtherSeed).then_some(floor);
            all.push(VerdictStatement::RightMadeWrong { share, other_seed, accuracy_holds });
        }
    }
    let groups: Vec<String> = named.iter().filter(|r| r.group.is_some()).map(|r| r.label()).collect();
    let all_groups = a.rows.iter().filter(|r| r.group.is_some() && r.gates).count();
    if !groups.is_empty() && groups.len() < all_groups {
        all.push(VerdictStatement::HarmOnGroups { groups, accuracy_holds });
    }
    all
}

/// Over- or underconfidence that one number repairs is named as such.
fn temperature(a: &Assessment, accuracy_passes: bool) -> Option<VerdictStatement> {
    let of = |f: fn(&SeedMeasures) -> Option<f64>| mean(a, f);
    let reference = of(|s| Some(s.reference.temperature.nll_after))?;
    let before = of(|s| Some(s.candidate.temperature.nll_before))?;
    let after = of(|s| Some(s.candidate.temperature.nll_after))?;
    let (temperature, baseline) = (
        of(|s| Some(s.candidate.temperature.temperature))?,
        of(|s| Some(s.reference.temperature.temperature))?,
    );
    let gap = before - reference;
    let repaired = 1.0 - (after - reference) / gap;
    // Less than half is no repair, and a tenth of a temperature is nothing to name.
    if !(gap > 0.0 && repaired > 0.5 && (temperature / baseline).ln().abs() > 0.1) {
        return None;
    }
    let over = temperature > baseline;
    Some(VerdictStatement::Miscalibrated { over, accuracy_passes, temperature, baseline, repaired })
}

pub(crate) fn mean(a: &Assessment, f: fn(&SeedMeasures) -> Option<f64>) -> Option<f64> {
    let values: Option<Vec<f64>> = a.seeds.iter().map(f).collect();
    mean_sd(&values?).map(|m| m.0)
}

pub(crate) fn unknown(a: &Assessment) -> Vec<VerdictStatement> {
    let looks = a.protocol.looks;
    if looks.are_spent() {
        return vec![VerdictStatement::LooksSpent { stated: looks.number() }];
    }
    let open: Vec<&MetricRow> =
        a.rows.iter().filter(|r| r.verdict() == Some(Verdict::Inconclusive)).collect();
    let of_row = |r: &&MetricRow| {
        let (test, label) = (r.test?, r.label());
        Some(match test.harm_at_most {
            None => VerdictStatement::NoSpread { label },
            Some(at_most) => VerdictStatement::LossNotRuledOut {
                label,
                metric: r.metric,
                mean: r.paired.mean,
                at_most,
                margin: test.margin_mean,
            },
        })
    };
    let mut all: Vec<VerdictStatement> = open.iter().filter_map(of_row).collect();
    let of_seeds = || open.iter().filter(|r| r.unit == Unit::Seeds).map(|r| r.seeds_needed);
    let seeds: Option<Vec<usize>> = of_seeds().collect();
    let (seeds, have) = (seeds.and_then(|all| all.into_iter().max()), a.seeds.len());
    if let Some(needed) = seeds.filter(|n| *n > have) {
        all.push(VerdictStatement::SeedsNeeded {
            needed,
            have,
            power: a.protocol.power,
            all_new: !looks.are_left(),
        });
    } else if of_seeds().any(|needed| needed.is_some_and(|n| n <= have)) {
        all.push(VerdictStatement::SeedsEnough);
    }
    all
}

/// How much a pass may hide; none where no metric passes.
pub(crate) fn at_most(a: &Assessment) -> Option<VerdictStatement> {
    let passed = a.rows.iter().filter(|r| r.verdict() == Some(Verdict::Pass));
    let loss = |r: &MetricRow| Loss {
        label: r.label(),
        metric: r.metric,
        at_most: r.test.and_then(|t| t.harm_at_most),
    };
    let of: Vec<Loss> = passed.map(loss).collect();
    let nothing_beyond = a.verdict == Verdict::Pass;
    (!of.is_empty()).then_some(VerdictStatement::LosesAtMost { nothing_beyond, of })
}

fn divergence(a: &Assessment) -> Vec<VerdictStatement> {
    let (d, excess) = (&a.divergence, a.divergence_excess);
    let (diverged, runs, at_most) = (d.diverged, d.runs, d.at_most);
    let mut all = Vec::new();
    match (d.verdict, d.max_divergence) {
        (Some(verdict), Some(allowed)) => {
            let open = verdict == Verdict::Inconclusive && diverged == 0;
            let clean_runs = clean_runs_needed(allowed, a.protocol.looks.alpha()).filter(|_| open);
            all.push(VerdictStatement::DivergenceJudged {
                verdict,
                diverged,
                runs,
                at_most,
                allowed,
                clean_runs,
            });
        }
        _ if diverged > 0 => all.push(VerdictStatement::DivergenceSeen { diverged, runs, at_most }),
        _ => {}
    }
    if diverged > 0 || excess.baseline_diverged > 0 {
        all.push(oftener(excess, a.protocol.looks));
    }
    all
}

/// Whether the candidate diverges oftener than the baseline, by Fisher's test.
pub(crate) fn oftener(excess: Excess, looks: Looks) -> VerdictStatement {
    if looks.reject(excess.p_fail) {
        VerdictStatement::DivergesOftener { excess }
    } else {
        VerdictStatement::DivergenceNotTold { excess }
    }
}
