//! What was measured of robustness as tables, laid out once for terminal and report.

use serde::Serialize;

use crate::measures::corruption::SEVERITIES;
use crate::robustness::{Robustness, Series, TriggerRow, distinct};
use crate::units;

/// A table with a title and a line that says what it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TableSection {
    /// Title.
    pub title: String,
    /// What the numbers are.
    pub note: String,
    /// Headings.
    pub header: Vec<String>,
    /// Cells of each row, as many as headings.
    pub rows: Vec<Vec<String>>,
}

/// Layers that are shown of each precision: those farthest from fp32.
const LAYERS: usize = 5;
/// Groups whose flips are shown.
const WORST: usize = 3;
const NONE: &str = "–";

/// Every table of what was measured.
pub fn sections(r: &Robustness) -> Vec<TableSection> {
    let mut all = Vec::new();
    mismatch(r, &mut all);
    groups(r, &mut all);
    ladder(r, &mut all);
    if let Some(f) = &r.foreign {
        let note = format!(
            "{} own test samples against {} of {}. AUROC: the chance that a foreign sample scores above an own one; 50 % is \
             guessing. FPR: own samples flagged where 95 % of the foreign ones are.",
            units::count(f.own as u64),
            units::count(f.foreign as u64),
            f.partner
        );
        all.push(by_precision("Telling foreign samples", note, &f.series));
    }
    corruptions(r, &mut all);
    if let Some(a) = &r.attacks {
        let note = format!(
            "{} images, pixels in 0 to 1 changed by at most {}; gradients in f32; {} steps of PGD, {} queries of Square.",
            units::count(a.samples as u64),
            a.epsilon,
            a.steps,
            a.queries
        );
        all.push(by_precision("Accuracy left under attack", note, &a.series));
        let note = "where a gradient is zero an attack that uses it is blind: much more in the model's own precision than \
                    in f32 would be robustness in appearance only"
            .to_string();
        let series: Vec<Series> = a.zero_gradients.iter().chain(&a.zero_pixels).cloned().collect();
        all.push(by_precision("Zero gradients", note, &series));
    }
    if let Some(t) = &r.triggered {
        let note = format!(
            "{} test images of other classes with {}; how many are taken for \"{}\"",
            units::count(t.samples as u64),
            t.trigger,
            t.target
        );
        all.push(triggers("Trigger inputs", note, &t.rows));
    }
    if let Some(b) = &r.backdoor {
        let note = format!(
            "{} of {} train images given {} and the class \"{}\"; accuracy on clean images {}",
            units::count(b.poisoned as u64),
            units::count(b.train_samples as u64),
            b.trigger,
            b.target,
            percent(b.accuracy)
        );
        all.push(triggers("A planted backdoor", note, &b.before));
        let note = format!(
            "{} suspects removed by their spectral signatures, {} of them poisoned, and trained again: {} more ({} to train \
             once); accuracy on clean images {}",
            units::count(b.removed as u64),
            units::count(b.removed_poisoned as u64),
            units::seconds(b.mitigation_seconds),
            units::seconds(b.train_seconds),
            percent(b.accuracy_after)
        );
        all.push(triggers("The backdoor after mitigation", note, &b.after));
    }
    all
}

fn percent(x: f64) -> String {
    units::percent(x, None)
}

fn strings(cells: &[&str]) -> Vec<String> {
    cells.iter().map(|c| c.to_string()).collect()
}

/// One row per measure, one column per precision, and the differences.
fn by_precision(title: &str, note: String, series: &[Series]) -> TableSection {
    let mut header = vec![String::new()];
    let all = series.iter().flat_map(|s| &s.precisions);
    let names = distinct(all.map(|p| p.precision.as_str()));
    header.extend(names.iter().map(|n| n.to_string()));
    header.extend(names.iter().skip(1).map(|n| format!("{n} less {}", names[0])));
    let row = |s: &Series| {
        let of = |name: &str| s.precisions.iter().find(|p| p.precision == name);
        let show = |x: f64, sd| if s.share { units::percent(x, sd) } else { format!("{x:.3}") };
        let mut cells = vec![s.measure.clone()];
        cells.extend(names.iter().map(|n| of(n).map_or(NONE.into(), |p| show(p.mean, p.sd))));
        cells.extend(names.iter().skip(1).map(|n| {
            let Some(d) = of(n).and_then(|p| p.difference) else { return NONE.into() };
            let part = |x: f64| if s.share { units::points(x) } else { format!("{x:+.3}") };
            match (d.lower, d.upper) {
                (Some(low), Some(high)) => format!("{} [{}, {}]", part(d.mean), part(low), part(high)),
                _ => part(d.mean),
            }
        }));
        cells
    };
    TableSection { title: title.into(), note, header, rows: series.iter().map(row).collect() }
}

fn mismatch(r: &Robustness, all: &mut Vec<TableSection>) {
    let Some(m) = &r.mismatch else { return };
    let rows = m.served.iter().map(|s| {
        vec![
            s.trained.clone(),
            s.served.clone(),
            percent(s.accuracy),
            format!("{:.4}", s.nll),
            percent(s.flips),
            percent(s.negative_flips),
            format!("{:.2e}", s.kl),
        ]
    });
    all.push(TableSection {
        title: "The same weights in other precisions".into(),
        note:
            "flips, negative flips and KL are against the precision of training: what the change alone does"
                .into(),
        header: strings(&["trained in", "computed in", "accuracy", "nll", "flips", "negative flips", "KL"]),
        rows: rows.collect(),
    });
    let rows = m.layers.iter().flat_map(|l| {
        let mut layers: Vec<_> = l.layers.iter().collect();
        layers.sort_by(|a, b| b.divergence.relative_l2.total_cmp(&a.divergence.relative_l2));
        layers.into_iter().take(LAYERS).map(|layer| {
            let d = layer.divergence;
            let (relative, angle) = (format!("{:.2e}", d.relative_l2), format!("{:.6}", d.cosine));
            vec![l.trained.clone(), l.served.clone(), layer.name.clone(), relative, angle]
        })
    });
    all.push(TableSection {
        title: "Layers farthest from fp32".into(),
        note: format!("of {} samples; all layers are in robustness.json", m.layer_samples),
        header: strings(&["trained in", "computed in", "layer", "relative L2", "cosine"]),
        rows: rows.collect(),
    });
}

fn groups(r: &Robustness, all: &mut Vec<TableSection>) {
    for g in &r.groups {
        let rows = g.rows.iter().filter_map(|row| {
            let group = row.group.as_ref()?;
            Some(vec![
                format!("{}={}", group.column, group.value),
                units::count(group.samples),
                percent(row.reference),
                percent(row.candidate),
                units::points(row.paired.mean),
                row.verdict().map_or(NONE.into(), |v| v.name().into()),
            ])
        });
        all.push(TableSection {
            title: format!("Accuracy by group, {} against {}", g.candidate, r.baseline),
            note: "groups below 30 samples are shown and not judged".into(),
            header: strings(&["group", "samples", &r.baseline, &g.candidate, "difference", "verdict"]),
            rows: rows.collect(),
        });
        for (title, note, lines) in [
            (
                "Calibration by group",
                "expected calibration error in groups of 30 samples or more",
                &g.calibration,
            ),
            (
                "Gaps between groups",
                "of groups of 30 samples or more; parity: how often a class is answered; odds: how often it is found, or \
                 others are taken for it",
                &g.gaps,
            ),
        ] {
            if !lines.is_empty() {
                all.push(TableSection {
                    title: format!("{title}, {} against {}", g.candidate, r.baseline),
                    note: note.into(),
                    header: strings(&["group", &r.baseline, &g.candidate, "difference"]),
                    rows: lines.iter().map(|line| line.cells().to_vec()).collect(),
                });
            }
        }
        let rows = g.flips.iter().take(WORST).map(|f| {
            vec![
                format!("{}={}", f.group.column, f.group.value),
                percent(f.negative_flips),
                f.floor.map_or(NONE.into(), percent),
            ]
        });
        all.push(TableSection {
            title: format!("Negative flips by group, the worst first, {}", g.candidate),
            note: "right answers of the baseline that the candidate has wrong, beside those of another seed"
                .into(),
            header: strings(&["group", "negative flips", "another seed"]),
            rows: rows.collect(),
        });
    }
}

fn ladder(r: &Robustness, all: &mut Vec<TableSection>) {
    let Some(l) = &r.ladder else { return };
    let rows = l.rungs.iter().map(|rung| {
        vec![
            rung.format.into(),
            format!("{:.2}", rung.bits),
            percent(rung.accuracy),
            units::points(rung.accuracy - rung.reference),
            percent(rung.flips),
            rung.verdict.name().into(),
            rung.how.into(),
        ]
    });
    all.push(TableSection {
        title: format!("Weights of {} stored smaller", l.trained),
        note: format!(
            "{} model(s), computed in fp32; matrices and kernels are stored, biases and norms stay f32; verdict against f32 \
             weights",
            l.seeds
        ),
        header: strings(&["format", "bits", "accuracy", "difference", "flips", "verdict", "how"]),
        rows: rows.collect(),
    });
}

fn corruptions(r: &Robustness, all: &mut Vec<TableSection>) {
    let Some(c) = &r.corruptions else { return };
    let mut rows = Vec::new();
    for p in &c.mean_error.precisions {
        let of: Vec<_> = c.models.iter().filter(|m| m.model.precision == p.precision).collect();
        for (k, kind) in c.kinds.iter().enumerate() {
            let mean = |s: usize| of.iter().map(|m| m.errors[k][s]).sum::<f64>() / of.len() as f64;
            let mut cells = vec![p.precision.clone(), kind.name.into()];
            cells.extend((0..SEVERITIES).map(|s| percent(mean(s))));
            rows.push(cells);
        }
    }
    let mut header = strings(&["", "corruption"]);
    header.extend((1..=SEVERITIES).map(|s| format!("severity {s}")));
    all.push(TableSection {
        title: "Errors under corruption".into(),
        note: format!("{} test images; parameters are in robustness.json", units::count(c.samples as u64)),
        header,
        rows,
    });
    let mut series = vec![c.mean_error.clone(), c.mce.clone()];
    series.extend(c.relative_mce.clone());
    let note = "mCE: errors as a multiple of the baseline's, mean over corruptions; 1 is the baseline".into();
    all.push(by_precision("Mean corruption error", note, &series));
}

fn triggers(title: &str, note: String, rows: &[TriggerRow]) -> TableSection {
    let row = |t: &TriggerRow| {
        vec![t.trained.clone(), t.served.clone(), percent(t.attack_success), percent(t.without_trigger)]
    };
    TableSection {
        title: title.into(),
        note,
        header: strings(&["trained in", "computed in", "attack success", "without trigger"]),
        rows: rows.iter().map(row).collect(),
    }
}
