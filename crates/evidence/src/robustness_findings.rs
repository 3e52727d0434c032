//! What was measured of robustness, in sentences.

use crate::robustness::{Backdoor, ByPrecision, Robustness, Series, TriggerRow};
use crate::stats::Verdict;
use crate::units;

/// A change of attack success that is reported: this much more than in fp32.
const TRIGGER_WAKES: f64 = 0.05;
/// Flips by a change of precision alone that are reported.
const FLIPS: f64 = 0.01;
/// A share of images without a gradient, more than in f32, that is reported.
const BLIND: f64 = 0.01;
/// Accuracy that a black-box attack takes beyond those with gradients, which is reported.
const MASKED: f64 = 0.02;

/// The sentences, in the order of the tables. A difference over seeds is reported when its 95 %
/// bounds lie on one side of zero.
pub fn findings(r: &Robustness) -> Vec<String> {
    let mut said = Vec::new();
    mismatch(r, &mut said);
    groups(r, &mut said);
    ladder(r, &mut said);
    if let Some(f) = &r.foreign {
        let auroc: Vec<&Series> = f.series.iter().filter(|s| s.measure.ends_with("AUROC")).collect();
        differences(&auroc, r, "tells foreign samples", true, &mut said);
    }
    if let Some(c) = &r.corruptions {
        differences(&[&c.mean_error], r, "bears corruption", false, &mut said);
    }
    attacks(r, &mut said);
    if let Some(t) = &r.triggered {
        said.push(wakes("The trigger", &t.rows));
    }
    if let Some(b) = &r.backdoor {
        backdoor(b, &mut said);
    }
    for n in &r.not_applicable {
        said.push(format!("Not applicable: {}, for {}.", n.measure, n.reason));
    }
    said
}

fn mismatch(r: &Robustness, said: &mut Vec<String>) {
    let Some(m) = &r.mismatch else { return };
    let changed = m.served.iter().filter(|s| s.trained != s.served);
    let Some(worst) = changed.max_by(|a, b| a.flips.total_cmp(&b.flips)) else { return };
    let (share, trained, served) = (units::percent(worst.flips, None), &worst.trained, &worst.served);
    said.push(if worst.flips < FLIPS {
        format!("Computing the same weights in another precision changes at most {share} of the answers ({trained} weights in {served}).")
    } else {
        format!(
            "Weights trained in {trained} and computed in {served} change {share} of the answers ({} of them right ones made wrong): \
             serve them in the precision they were judged in.",
            units::percent(worst.negative_flips, None)
        )
    });
}

fn groups(r: &Robustness, said: &mut Vec<String>) {
    for g in &r.groups {
        let name = |row: &crate::assessment::MetricRow| {
            row.group.as_ref().map_or(String::new(), |g| format!("{}={}", g.column, g.value))
        };
        let failed: Vec<String> = g.rows.iter().filter(|r| r.is_named()).map(name).collect();
        let judged = g.rows.iter().filter(|r| r.verdict().is_some()).count();
        let passed = g.rows.iter().filter(|r| r.verdict() == Some(Verdict::Pass)).count();
        said.push(match failed.is_empty() {
            false => format!("{} is worse than {} for {}.", g.candidate, r.baseline, failed.join(", ")),
            true if judged == 0 => format!("No group is large enough to judge {} by.", g.candidate),
            true => format!(
                "{} is shown to be as good as {} in {passed} of {judged} groups, and worse in none.",
                g.candidate, r.baseline
            ),
        });
    }
}

fn ladder(r: &Robustness, said: &mut Vec<String>) {
    let Some(l) = &r.ladder else { return };
    let of =
        |v: Verdict| -> Vec<&str> { l.rungs.iter().filter(|r| r.verdict == v).map(|r| r.format).collect() };
    let (pass, fail, open) = (of(Verdict::Pass), of(Verdict::Fail), of(Verdict::Inconclusive));
    let mut parts = Vec::new();
    for (formats, what) in [(pass, "as good as f32"), (fail, "worse"), (open, "not decided")] {
        if !formats.is_empty() {
            parts.push(format!("{} {what}", formats.join(", ")));
        }
    }
    said.push(format!("Weights of {} stored smaller: {}.", l.trained, parts.join("; ")));
}

/// Differences from the baseline whose bounds lie on one side of zero.
fn differences(
    series: &[&Series],
    r: &Robustness,
    does: &str,
    higher_is_better: bool,
    said: &mut Vec<String>,
) {
    let mut any = false;
    for s in series {
        for p in &s.precisions {
            let Some(d) = p.difference else { continue };
            let sure = d.lower.is_some_and(|l| l > 0.0) || d.upper.is_some_and(|u| u < 0.0);
            if sure {
                any = true;
                let better = (d.mean > 0.0) == higher_is_better;
                let how = if better { "better" } else { "worse" };
                let points = units::points(d.mean);
                said.push(format!(
                    "{} {does} {how} than {}: {} {points}.",
                    p.precision, r.baseline, s.measure
                ));
            }
        }
    }
    let compared =
        series.iter().flat_map(|s| &s.precisions).any(|p| p.difference.is_some_and(|d| d.pairs > 1));
    if !any && compared {
        said.push(format!("No precision {does} other than {} beyond the spread over seeds.", r.baseline));
    }
}

fn attacks(r: &Robustness, said: &mut Vec<String>) {
    let Some(a) = &r.attacks else { return };
    let all: Vec<&Series> = a.series.iter().filter(|s| s.measure == "all of them").collect();
    differences(&all, r, "withstands attacks", true, said);
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
            said.push(format!(
                "In {name} itself {} of the images have no gradient, in f32 {}: an attack in {name} would report robustness that is \
                 not there.",
                units::percent(own, None),
                units::percent(wide, None)
            ));
        }
        let gradient =
            ["FGSM", "PGD", "PGD on DLR"].iter().filter_map(|n| of(&a.series, n, name)).reduce(f64::min);
        if let (Some(gradient), Some(black)) = (gradient, of(&a.series, "Square", name))
            && black < gradient - MASKED
        {
            said.push(format!(
                "The black-box attack on {name} leaves {}, those with gradients {}: its gradients are masked.",
                units::percent(black, None),
                units::percent(gradient, None)
            ));
        }
    }
}

/// Whether a trigger works better in some precision than in the first row's.
fn wakes(what: &str, rows: &[TriggerRow]) -> String {
    let Some(first) = rows.first() else { return format!("{what} was not tried.") };
    let base = first.attack_success;
    let most = rows.iter().max_by(|a, b| a.attack_success.total_cmp(&b.attack_success)).unwrap_or(first);
    let share = |x: f64| units::percent(x, None);
    if most.attack_success > base + TRIGGER_WAKES {
        return format!(
            "{what} wakes: it succeeds on {} of the images in {} and on {} in {}.",
            share(most.attack_success),
            most.served,
            share(base),
            first.served
        );
    }
    format!(
        "{what} succeeds on {} of the images in {}, and on at most {} in any precision.",
        share(base),
        first.served,
        share(most.attack_success)
    )
}

fn backdoor(b: &Backdoor, said: &mut Vec<String>) {
    said.push(wakes("The planted backdoor", &b.before));
    let most = |rows: &[TriggerRow]| rows.iter().map(|r| r.attack_success).fold(0.0, f64::max);
    said.push(format!(
        "Removing {} suspects ({} of the {} poisoned) and training again lowers it to at most {} and changes accuracy by {}; it \
         costs {}.",
        units::count(b.removed as u64),
        units::count(b.removed_poisoned as u64),
        units::count(b.poisoned as u64),
        units::percent(most(&b.after), None),
        units::points(b.accuracy_after - b.accuracy),
        units::seconds(b.mitigation_seconds)
    ));
}
