//! What was measured of robustness, in sentences.

use crate::assessment::MetricRow;
use crate::noninferiority::{Better, holm};
use crate::robustness::{Backdoor, ByPrecision, Robustness, Series, TriggerRow};
use crate::stats::{ALPHA, Paired, Verdict};
use crate::units;

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
pub fn findings(r: &Robustness) -> Vec<String> {
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

/// The groups that are judged, each with its p value of failing.
fn judged(rows: &[MetricRow]) -> impl Iterator<Item = (&MetricRow, f64)> {
    rows.iter().filter(|row| row.gates).filter_map(|row| Some((row, row.test?.p_fail?)))
}

fn groups(r: &Robustness, adjusted: &mut impl Iterator<Item = f64>, said: &mut Vec<String>) {
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
        said.push(match failed.is_empty() {
            false => format!("{} is worse than {} for {}.", g.candidate, r.baseline, failed.join(", ")),
            true if judged == 0 => format!("No group is large enough to judge {} by.", g.candidate),
            true => format!(
                "{} is shown to be as good as {} in {passed} of {judged} groups, and to be worse in none.",
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
        said: &mut Vec<String>,
    ) {
        let (does, before) = (self.does, said.len());
        let over = format!("Holm over {comparisons} comparisons");
        let mut any = false;
        for ((series, precision), difference) in self.compared() {
            any = true;
            let p = adjusted.next().unwrap_or(1.0);
            if p < ALPHA {
                let how = if self.better.harm(difference.mean) < 0.0 { "better" } else { "worse" };
                let points = units::points(difference.mean);
                said.push(format!(
                    "{} {does} {how} than {baseline}: {} {points} (p = {p:.3}, {over}).",
                    precision.precision, series.measure
                ));
            }
        }
        if any && said.len() == before {
            said.push(format!(
                "No precision {does} other than {baseline} beyond the spread over seeds ({over})."
            ));
        }
    }
}

fn attacks(r: &Robustness, said: &mut Vec<String>) {
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

/// Whether a trigger works better where the weights of the first row are computed or stored
/// otherwise: other weights differ by their training too.
fn wakes(what: &str, rows: &[TriggerRow]) -> String {
    let Some(first) = rows.first() else { return format!("{what} was not tried.") };
    let base = first.attack_success;
    let same_weights = rows.iter().filter(|row| row.trained == first.trained);
    let most = same_weights.max_by(|a, b| a.attack_success.total_cmp(&b.attack_success)).unwrap_or(first);
    let share = |x: f64| units::percent(x, None);
    if most.attack_success > base + TRIGGER_WAKES {
        return format!(
            "{what} wakes: it succeeds on {} of the images in {}, and on {} with the same weights in {}.",
            share(base),
            first.served,
            share(most.attack_success),
            most.served
        );
    }
    format!(
        "{what} succeeds on {} of the images in {}, and on at most {} with the same weights in any other precision.",
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
        findings(r).iter().any(|s| s.contains("better than") || s.contains("worse than"))
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
        let said = findings(&r);
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
        assert!(
            wakes("The trigger", &rows).contains("on at most 12.00 %"),
            "{}",
            wakes("The trigger", &rows)
        );
        let rows = [rows[0].clone(), row("fp32", "int4 weights", 0.3)];
        assert!(wakes("The trigger", &rows).contains("wakes"), "{}", wakes("The trigger", &rows));
    }
}
