//! An assessment as a table for a terminal.

use crate::assessment::{Assessment, GroupFlips, MetricRow, Unit};
use crate::buckets::TestSets;
use crate::experiment::NoiseFloor;
use crate::group_table::{self, GroupLine};
use crate::metric::Metric;
use crate::table::{TableGroup, aligned};
use crate::units;

const NONE: &str = "–";
/// Groups whose flips are shown.
const WORST: usize = 3;
const HEADINGS: [&str; 7] = ["", "baseline", "candidate", "difference", "95 % bound", "margin", "verdict"];

/// The table, aligned, with a line about the files above it; `bold` decorates headings.
pub fn text(a: &Assessment, bold: &dyn Fn(&str) -> String) -> String {
    let mut groups: Vec<TableGroup> = Vec::new();
    let of = |f: &dyn Fn(&MetricRow) -> bool| a.rows.iter().filter(|r| f(r)).map(cells).collect::<Vec<_>>();
    groups.push(("Quality".into(), of(&|r| r.group.is_none() && !r.metric.is_beside_floor())));
    let changed = match a.protocol.floor {
        NoiseFloor::OtherSeed => "Changed answers, beside those that another seed changes",
        NoiseFloor::None => "Changed answers",
    };
    groups.push((changed.into(), of(&|r| r.group.is_none() && r.metric.is_beside_floor())));
    if a.seeds.len() == 1 && a.protocol.floor == NoiseFloor::OtherSeed {
        let v = a.seeds[0].agreement;
        let line = |metric: Metric, value: f64| {
            let mut cells = vec![NONE.to_string(); HEADINGS.len()];
            cells[0] = metric.name().into();
            cells[2] = metric.show(value);
            cells
        };
        groups[1] = (
            "Changed answers".into(),
            vec![
                line(Metric::NegativeFlips, v.negative_flips),
                line(Metric::Flips, v.flips),
                line(Metric::Kl, v.kl),
            ],
        );
    }
    groups.push(("Accuracy by group".into(), of(&|r| r.group.is_some())));
    let of_lines = |lines: Vec<GroupLine>| lines.iter().map(beside).collect::<Vec<_>>();
    groups.push(("Calibration by group (ECE)".into(), of_lines(group_table::calibration(&a.seeds))));
    groups.push(("Gaps between groups".into(), of_lines(group_table::gaps(&a.seeds))));
    let flips: Vec<Vec<String>> = a.group_flips.iter().take(WORST).map(flips).collect();
    groups.push(("Negative flips by group, the worst first".into(), flips));
    groups.retain(|g| !g.1.is_empty());

    let head = HEADINGS.map(String::from);
    format!("{}\n\n{}", files(a), aligned(&head, &groups, bold))
}

/// What the table is about.
fn files(a: &Assessment) -> String {
    let first = &a.seeds[0];
    let pairs = match a.seeds.len() {
        1 => "one pair of files".to_string(),
        n => format!("{n} pairs of files, paired by {}", if a.paired_by_seed { "seed" } else { "order" }),
    };
    let each = match (a.seeds.len(), a.examples) {
        (1, _) => "",
        (_, TestSets::Shared) => ", the same in all",
        (_, TestSets::OfEachSeed) => " in the first, others in each",
    };
    let correlation = a.rows.first().and_then(|r| r.paired.correlation);
    let correlation =
        correlation.map_or_else(String::new, |c| format!("; accuracies of pairs correlate by {c:.2}"));
    format!("{pairs}; {} samples{each}, {} classes{correlation}", units::count(first.samples), first.classes)
}

/// What is shown beside the verdict and does not gate.
fn beside(line: &GroupLine) -> Vec<String> {
    let none = || NONE.to_string();
    line.cells().into_iter().chain([none(), none(), none()]).collect()
}

/// Flips of a group beside its floor; they do not gate.
fn flips(g: &GroupFlips) -> Vec<String> {
    let metric = Metric::NegativeFlips;
    let mut cells = vec![NONE.to_string(); HEADINGS.len()];
    cells[0] = format!("{}={}", g.group.column, g.group.value);
    cells[2] = metric.show(g.negative_flips);
    if let Some(floor) = g.floor {
        cells[1] = metric.show(floor);
        cells[3] = metric.show_difference(g.negative_flips - floor);
    }
    cells
}

pub(crate) fn cells(row: &MetricRow) -> Vec<String> {
    let metric = row.metric;
    let label = match &row.group {
        Some(g) => format!("{}={} (n = {})", g.column, g.value, units::count(g.samples)),
        None => metric.name().into(),
    };
    // Candidate less margin of error, in the direction of harm.
    let worst = match (row.test.and_then(|t| t.harm_at_most), row.paired.sd) {
        (Some(most), _) => metric.show_difference(metric.better().harm(most)),
        (None, Some(_)) => {
            let bound = if metric.better().harm(1.0) > 0.0 { row.paired.upper } else { row.paired.lower };
            bound.map_or(NONE.into(), |b| metric.show_difference(b))
        }
        (None, None) => NONE.into(),
    };
    let margin = row.test.filter(|_| row.gates).map_or(NONE.into(), |t| metric.show_margin(t.margin));
    let verdict = match (row.verdict(), row.unit) {
        (Some(v), _) => v.name().to_string(),
        (None, Unit::Seeds) if row.test.is_some() && row.paired.sd.is_none() => "needs 2 seeds".into(),
        (None, _) if row.test.is_some() => "too few".into(),
        (None, _) => NONE.into(),
    };
    vec![
        label,
        metric.show(row.reference),
        metric.show(row.candidate),
        metric.show_difference(row.paired.mean),
        worst,
        margin,
        verdict,
    ]
}
