//! What an assessment means, in plain words: what can be relied on, what is wrong, what is still
//! unknown and what would tell.

use crate::assessment::{Assessment, MetricRow, Unit};
use crate::exact::Excess;
use crate::experiment::{NoiseFloor, SeedMeasures};
use crate::metric::Metric;
use crate::noninferiority::{Claim, Question};
use crate::stats::{Verdict, mean_sd};
use crate::units;

/// The sentences, most important first.
pub(crate) fn sentences(a: &Assessment) -> Vec<String> {
    let mut headline = first(a);
    headline.extend(a.reference_check.caveat("the baseline").map(|said| format!(" {said}")));
    let mut all = vec![headline];
    all.extend(a.reference_check.why_inconclusive("the baseline"));
    let named: Vec<&MetricRow> = a.rows.iter().filter(|r| r.is_named()).collect();
    all.extend(named.iter().map(|r| failure(a, r)));
    all.extend(causes(a, &named));
    let unnamed: Vec<String> = a
        .rows
        .iter()
        .filter(|r| r.verdict() == Some(Verdict::Fail) && !r.is_named())
        .map(MetricRow::label)
        .collect();
    if !unnamed.is_empty() {
        all.push(format!(
            "Beyond its margin, but not after allowing for the number of metrics tested (Holm): {}.",
            unnamed.join(", ")
        ));
    }
    all.extend(unknown(a));
    all.extend(unjudged(a));
    all.extend(divergence(a));
    if a.rows.iter().any(|r| r.unit == Unit::Examples) {
        all.push(
            "One pair of files says something of these two models, not of training in this precision: another seed may \
             do better or worse. Give one pair per seed to learn about that."
                .into(),
        );
    }
    all
}

fn first(a: &Assessment) -> String {
    let gates = a.rows.iter().filter(|r| r.gates).count();
    let margins = if gates == 1 { "its margin".into() } else { format!("all {gates} margins") };
    let samples = units::count(a.seeds.first().map_or(0, |s| s.samples));
    // A run that diverged left nothing to measure: what is said is said of the others.
    let subject = match a.divergence.diverged {
        0 => "the candidate".to_string(),
        n => format!("the candidate, where it did not diverge ({n} of {} runs did),", a.divergence.runs),
    };
    let (is, stays) = match a.protocol.question {
        Question::NonInferiority => ("as good as", ""),
        Question::Equivalence => ("equivalent to", ", either way"),
    };
    let claim = match a.protocol.claim {
        Claim::Samples if a.seeds.len() > 1 => Claim::Samples,
        _ => Claim::Examples,
    };
    match (a.verdict, claim) {
        (Verdict::Pass, _) => {
            let accuracy =
                a.rows.iter().find(|r| r.metric == Metric::Accuracy && r.gates).and_then(|r| r.test);
            let loses = accuracy.and_then(|t| t.harm_at_most).map_or_else(String::new, |most| {
                let most = Metric::Accuracy.show_amount(most.max(0.0));
                format!("; of accuracy it loses {most} at most")
            });
            let place = match claim {
                Claim::Examples => "On examples like these".to_string(),
                Claim::Samples => format!("On these {samples} samples"),
            };
            let elsewhere = match claim {
                Claim::Examples => String::new(),
                Claim::Samples => format!(" {}", on_new_examples(a)),
            };
            format!(
                "{place} {subject} is {is} the baseline: at 95 % confidence it stays within {margins}{stays}{loses}.{elsewhere}"
            )
        }
        (Verdict::Fail, _) => {
            let than = match a.protocol.question {
                Question::NonInferiority => "is worse than the baseline by more than was allowed",
                Question::Equivalence => "differs from the baseline by more than was allowed",
            };
            format!("{} {than}.", capital(&subject))
        }
        (Verdict::Inconclusive, _) if gates == 0 && a.unjudged.iter().all(|u| !u.gates) => {
            "Nothing was judged: no metric has a margin that these files can be held to.".into()
        }
        (Verdict::Inconclusive, Claim::Examples) if a.on_samples == Verdict::Pass => {
            format!(
                "On these {samples} samples {subject} is {is} the baseline. {} That is no pass.",
                on_new_examples(a)
            )
        }
        (Verdict::Inconclusive, _) => {
            "These files cannot tell whether the candidate is as good. That is no pass.".into()
        }
    }
}

/// What is known of other examples, in a sentence.
pub(crate) fn on_new_examples(a: &Assessment) -> String {
    let open = a
        .rows
        .iter()
        .filter(|r| r.gates && r.on_examples.is_some_and(|t| t.verdict == Verdict::Inconclusive));
    let needed: Option<Vec<usize>> = open.map(|r| r.examples_needed).collect();
    let most = needed.map(|n| n.into_iter().max());
    let (units_now, named) = a
        .seeds
        .first()
        .map_or((0, "samples"), |s| (s.units, if s.units < s.samples { "clusters" } else { "samples" }));
    match (a.on_examples, most) {
        (Verdict::Pass, _) => "On other samples like these it is too.".into(),
        (Verdict::Fail, _) => "On other samples like these it is not.".into(),
        (Verdict::Inconclusive, Some(Some(n))) if n as u64 > units_now => format!(
            "Whether it is on new ones is not shown yet: that needs about {} {named} (now {}), if the difference stays \
             what it is.",
            units::count(n as u64),
            units::count(units_now)
        ),
        (Verdict::Inconclusive, _) => "Whether it is on new ones is not shown yet.".into(),
    }
}

/// What has a margin and was not judged, in sentences.
pub(crate) fn unjudged(a: &Assessment) -> Vec<String> {
    /// Groups that are named one by one.
    const NAMED: usize = 8;
    let (gating, shown): (Vec<_>, Vec<_>) = a.unjudged.iter().partition(|u| u.gates);
    let mut all: Vec<String> = gating
        .iter()
        .map(|u| format!("{}: not judged, so there is no pass: {}.", u.what, u.reason))
        .collect();
    if !shown.is_empty() {
        let list: Vec<String> =
            shown.iter().take(NAMED).map(|u| format!("{} ({})", u.what, u.reason)).collect();
        let more = shown.len().saturating_sub(NAMED);
        let more = if more > 0 { format!("; and {more} more") } else { String::new() };
        all.push(format!("Not judged, and not part of the verdict: {}{more}.", list.join("; ")));
    }
    all
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

pub(crate) fn failure(a: &Assessment, row: &MetricRow) -> String {
    let Some(test) = &row.test else { return String::new() };
    let metric = row.metric;
    let least = test.harm_at_least.map_or_else(String::new, |h| metric.show_amount(h.abs()));
    let margin = metric.show_amount(test.margin_mean);
    let other_seed = a.protocol.floor == NoiseFloor::OtherSeed;
    let beyond_floor =
        if metric.is_beside_floor() && other_seed { " beyond what another seed does" } else { "" };
    if a.protocol.question == Question::Equivalence && test.harm < 0.0 {
        return format!("{}: better by more than its margin of {margin}, which was not wanted.", row.label());
    }
    format!("{}: worse by at least {least}{beyond_floor} (95 % bound); the margin is {margin}.", row.label())
}

/// What lies behind failures, where the measures tell.
pub(crate) fn causes(a: &Assessment, named: &[&MetricRow]) -> Vec<String> {
    let is = |m: Metric| named.iter().any(|r| r.metric == m);
    let accuracy = a.rows.iter().find(|r| r.metric == Metric::Accuracy);
    let accuracy_holds = accuracy.is_some_and(|r| r.verdict() != Some(Verdict::Fail));
    let mut all = Vec::new();
    if is(Metric::Ece) || is(Metric::EceDebiased) || is(Metric::Nll) {
        all.extend(temperature(a, accuracy_holds));
    }
    if is(Metric::NegativeFlips) || is(Metric::Flips) {
        let share = |f: fn(&SeedMeasures) -> Option<f64>| mean(a, f).map(|x| Metric::Flips.show(x));
        if let (Some(negative), Some(floor)) =
            (share(|s| Some(s.agreement.negative_flips)), share(|s| Some(s.floor?.negative_flips)))
        {
            let same = if accuracy_holds { "Accuracy alone would not show it: " } else { "" };
            let beside = match a.protocol.floor {
                NoiseFloor::OtherSeed => format!("; between two seeds of the baseline it is {floor}"),
                NoiseFloor::None => String::new(),
            };
            all.push(format!(
                "{same}{negative} of the answers that the baseline has right the candidate has wrong{beside} (shares of all \
                 samples)."
            ));
        }
    }
    let groups: Vec<String> = named.iter().filter(|r| r.group.is_some()).map(|r| r.label()).collect();
    let all_groups = a.rows.iter().filter(|r| r.group.is_some() && r.gates).count();
    if !groups.is_empty() && groups.len() < all_groups {
        let over_all = if accuracy_holds { ", which the mean over all samples hides" } else { "" };
        all.push(format!("The harm is not spread evenly: it falls on {}{over_all}.", groups.join(" and ")));
    }
    all
}

/// Over- or underconfidence that one number repairs is named as such.
fn temperature(a: &Assessment, accuracy_holds: bool) -> Option<String> {
    let of = |f: fn(&SeedMeasures) -> Option<f64>| mean(a, f);
    let reference = of(|s| Some(s.reference.temperature.nll_after))?;
    let before = of(|s| Some(s.candidate.temperature.nll_before))?;
    let after = of(|s| Some(s.candidate.temperature.nll_after))?;
    let (t, base) = (
        of(|s| Some(s.candidate.temperature.temperature))?,
        of(|s| Some(s.reference.temperature.temperature))?,
    );
    let gap = before - reference;
    let repaired = 1.0 - (after - reference) / gap;
    // Less than half is no repair, and a tenth of a temperature is nothing to name.
    if !(gap > 0.0 && repaired > 0.5 && (t / base).ln().abs() > 0.1) {
        return None;
    }
    let way = if t > base { "overconfident" } else { "underconfident" };
    let but = if accuracy_holds { ", not less able" } else { "" };
    Some(format!(
        "It is {way}{but}: dividing its logits by one temperature, {t:.2} ({base:.2} for the baseline), takes away {:.0} % \
         of its excess loss.",
        (repaired * 100.0).min(100.0)
    ))
}

pub(crate) fn mean(a: &Assessment, f: fn(&SeedMeasures) -> Option<f64>) -> Option<f64> {
    let values: Option<Vec<f64>> = a.seeds.iter().map(f).collect();
    mean_sd(&values?).map(|m| m.0)
}

pub(crate) fn unknown(a: &Assessment) -> Vec<String> {
    let open: Vec<&MetricRow> =
        a.rows.iter().filter(|r| r.verdict() == Some(Verdict::Inconclusive)).collect();
    let mut all: Vec<String> = open
        .iter()
        .map(|r| {
            let Some(test) = &r.test else { return String::new() };
            let margin = r.metric.show_amount(test.margin_mean);
            match test.harm_at_most {
                None => format!("{}: one pair of runs has no spread to judge by; two or more are needed.", r.label()),
                Some(most) => format!(
                    "{}: inconclusive. It differs by {} on average, and a loss of up to {} cannot be ruled out; the \
                     margin is {margin}.",
                    r.label(),
                    r.metric.show_difference(r.paired.mean),
                    r.metric.show_amount(most)
                ),
            }
        })
        .collect();
    let seeds: Option<Vec<usize>> =
        open.iter().filter(|r| r.unit == Unit::Seeds).map(|r| r.seeds_needed).collect();
    let (seeds, have) = (seeds.and_then(|all| all.into_iter().max()), a.seeds.len());
    if let Some(n) = seeds.filter(|n| *n > have) {
        all.push(format!(
            "If there is no difference, {n} seeds in all would show it with a chance of {:.0} % for the most scattered of \
             these metrics; there are {have}.",
            a.protocol.power * 100.0
        ));
    } else if open.iter().any(|r| r.unit == Unit::Seeds && r.seeds_needed.is_some_and(|n| n <= have)) {
        all.push(
            "By their scatter these seeds would be enough if there were no difference; more would tell how large it is."
                .into(),
        );
    }
    all
}

fn divergence(a: &Assessment) -> Vec<String> {
    let (d, excess) = (&a.divergence, &a.divergence_excess);
    let most = format!("{:.1} %", d.at_most * 100.0);
    let seen = format!("{} of {} candidate runs diverged", d.diverged, d.runs);
    let mut all = Vec::new();
    match (d.verdict, d.max_divergence) {
        (Some(verdict), Some(max)) => {
            let enough = match (verdict, crate::exact::clean_runs_needed(max, crate::stats::ALPHA)) {
                (Verdict::Inconclusive, Some(n)) if d.diverged == 0 => {
                    format!(" {n} clean runs would be enough.")
                }
                _ => String::new(),
            };
            all.push(format!(
                "Divergence: {}. {seen}: at 95 % confidence the chance is at most {most}, {:.1} % is allowed.{enough}",
                verdict.name(),
                max * 100.0
            ));
        }
        _ if d.diverged > 0 => all.push(format!("{seen}; at 95 % confidence the chance is at most {most}.")),
        _ => {}
    }
    if d.diverged > 0 || excess.baseline_diverged > 0 {
        all.push(excess_words(excess, a.protocol.looks.alpha()));
    }
    all
}

/// How much oftener the candidate may diverge than the baseline.
pub(crate) fn excess_words(excess: &Excess, alpha: f64) -> String {
    let baseline = format!("Of the baseline {} of {} did", excess.baseline_diverged, excess.baseline_runs);
    let shown = if excess.p_fail < alpha {
        "the candidate diverges oftener, which chance alone does not explain"
    } else {
        "whether the candidate diverges oftener these runs do not show"
    };
    format!(
        "{baseline}: {shown} (Fisher's exact test, p = {:.3}); at 95 % confidence its chance is at most {:.1} points higher.",
        excess.p_fail,
        excess.at_most * 100.0
    )
}
