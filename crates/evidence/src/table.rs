//! The comparison as lines of text cells, laid out once for every form of output.

use crate::arithmetic;
use crate::comparison::{Candidate, Comparison, PolicyRow};
use crate::metric::Metric;
use crate::stats::Verdict;
use crate::units;

/// Lines under a title; each has a label and as many cells as there are columns.
pub type TableGroup = (String, Vec<Vec<String>>);

const NONE: &str = "–";

fn line(c: &Comparison, label: &str, cell: &dyn Fn(&PolicyRow) -> Option<String>) -> Vec<String> {
    let cells = c.rows.iter().map(|r| cell(r).unwrap_or_else(|| NONE.into()));
    std::iter::once(label.to_string()).chain(cells).collect()
}

/// How many times as fast as the reference; what is emulated, or measured against it, is named so.
pub(crate) fn speed(c: &Comparison, row: &PolicyRow) -> Option<String> {
    let emulated = row.is_emulated() || c.row(&c.setup.reference).is_some_and(PolicyRow::is_emulated);
    let note = if emulated { ", emulated" } else { "" };
    row.speed_ratio.map(|x| format!("{x:.2}×{note}"))
}

/// The lines of the table, one cell per precision.
pub fn lines(c: &Comparison) -> Vec<TableGroup> {
    let line = |label: &str, cell: &dyn Fn(&PolicyRow) -> Option<String>| line(c, label, cell);
    let runs = c.rows.iter().map(|r| r.runs).max().unwrap_or(0);
    let seeds = if runs == 1 { "1 seed".into() } else { format!("{runs} seeds") };
    let reference = &c.setup.reference;
    let not_reference = |r: &PolicyRow| (r.policy != *reference).then_some(());
    let mut quality = vec![
        line("train loss", &|r| r.train_loss.map(|l| format!("{l:.4}"))),
        line("test loss", &|r| r.test_loss.map(|l| format!("{l:.4}"))),
        line("test accuracy", &|r| r.accuracy.map(|a| units::percent(a, r.accuracy_sd))),
        line(&format!("against {reference}"), &|r| r.against.map(|a| units::points(a.mean))),
        line("95 % bound, these samples", &|r| {
            Some(r.against?.lower.map_or_else(|| "needs 2 seeds".into(), units::points))
        }),
        line("worst seed", &|r| r.worst_seed.map(units::points)),
    ];
    quality.extend(by_class(c));
    if c.rows.iter().any(|r| r.finished < r.runs) {
        quality.insert(0, line("runs finished", &|r| Some(format!("{} of {}", r.finished, r.runs))));
    }
    let mut speeds = vec![
        line("step", &|r| r.step_ms.map(units::milliseconds)),
        line("samples/s", &|r| r.samples_per_s.map(|s| units::count(s.round() as u64))),
        line(&format!("against {reference}"), &|r| {
            not_reference(r)?;
            speed(c, r)
        }),
    ];
    if c.rows.iter().any(|r| r.arithmetic.is_some()) {
        speeds.insert(0, line("products", &|r| r.arithmetic.map(|a| arithmetic::name(a).into())));
    }
    let memory = vec![
        line("step's scratch", &|r| Some(units::bytes(r.arena_bytes))),
        line("weights and optimiser", &|r| Some(units::bytes(r.state_bytes))),
        line("peak resident", &|r| r.peak_rss_bytes.map(units::bytes)),
    ];
    let scaling = vec![
        line("skipped steps", &|r| Some(units::count(r.skipped))),
        line("final scale", &|r| r.loss_scale.map(units::scale)),
    ];
    let mut groups = vec![
        (format!("Speed ({}, {})", c.setup.device, c.timed.words()), speeds),
        ("Memory".into(), memory),
        (format!("Quality ({seeds})"), quality),
    ];
    // Without anything to judge, as of one precision alone, there is no verdict.
    if !c.candidates.is_empty() {
        groups.push(("Verdict".into(), verdicts(c)));
    }
    groups.push(("Loss scaling".into(), scaling));
    groups
}

/// What accuracy alone does not show, from the logits of seeds that both finished; nothing of text,
/// whose classes are tokens.
fn by_class(c: &Comparison) -> Vec<Vec<String>> {
    let assessed = |policy: &str| {
        let of = |x: &&Candidate| x.policy == policy || policy == c.setup.reference;
        c.candidates.iter().filter(of).find_map(|x| x.assessment.as_ref())
    };
    if c.setup.classes.is_empty() || c.candidates.iter().all(|x| x.assessment.is_none()) {
        return Vec::new();
    }
    let of = |metric: Metric| {
        line(c, metric.name(), &|r| {
            let row = assessed(&r.policy)?.rows.iter().find(|x| x.metric == metric && x.group.is_none())?;
            let value = if r.policy == c.setup.reference { row.reference } else { row.candidate };
            Some(metric.show(value))
        })
    };
    let majority = line(c, "always the majority class", &|r| {
        let first = assessed(&r.policy)?.seeds.first()?;
        Some(Metric::Accuracy.show(first.reference.classes.majority_accuracy))
    });
    vec![majority, of(Metric::BalancedAccuracy), of(Metric::MacroF1), of(Metric::Auroc)]
}

/// Metric by metric, and over all.
fn verdicts(c: &Comparison) -> Vec<Vec<String>> {
    let verdict = |label: String, of: &dyn Fn(&Candidate) -> Option<Verdict>| {
        line(c, &label, &|r| {
            let candidate = c.candidates.iter().find(|x| x.policy == r.policy)?;
            // The examples of one pair say nothing of training.
            if candidate.pairs == 1 {
                Some("needs 2 seeds".into())
            } else {
                of(candidate).map(|v| v.name().into())
            }
        })
    };
    let mut verdicts = Vec::new();
    for (metric, margin) in &c.setup.protocol.margins {
        // Groups have a table of their own.
        let gates =
            |x: &Candidate| x.assessment.iter().flat_map(|a| &a.rows).any(|r| r.metric == *metric && r.gates);
        if *metric != Metric::GroupAccuracy && c.candidates.iter().any(gates) {
            let margin = metric.show_margin(*margin);
            verdicts.push(verdict(format!("{}, margin {margin}", metric.name()), &|x| {
                x.assessment.as_ref()?.rows.iter().find(|r| r.metric == *metric)?.verdict()
            }));
        }
    }
    if let Some(most) = c.setup.protocol.max_divergence {
        let label = format!("diverges in at most {:.1} %", most * 100.0);
        verdicts.push(verdict(label, &|x| x.assessment.as_ref()?.divergence.verdict));
    }
    verdicts.push(verdict("over all".into(), &|x| Some(x.verdict)));
    verdicts
}

/// The table for a terminal, aligned; `bold` decorates headings.
pub fn text(c: &Comparison, bold: &dyn Fn(&str) -> String) -> String {
    let head: Vec<String> =
        std::iter::once(String::new()).chain(c.rows.iter().map(|r| r.policy.clone())).collect();
    aligned(&head, &lines(c), bold)
}

/// Groups of lines under one head: labels to the left, cells to the right.
pub(crate) fn aligned(head: &[String], groups: &[TableGroup], bold: &dyn Fn(&str) -> String) -> String {
    let width = |s: &str| s.chars().count();
    let all = || groups.iter().flat_map(|g| &g.1).map(Vec::as_slice).chain([head]);
    let widths: Vec<usize> =
        (0..head.len()).map(|i| all().map(|cells| width(&cells[i])).max().unwrap_or(0)).collect();
    let line = |cells: &[String]| {
        let mut out = format!("  {}{}", cells[0], " ".repeat(widths[0] - width(&cells[0])));
        for (cell, w) in cells.iter().zip(&widths).skip(1) {
            out += &format!("   {}{cell}", " ".repeat(w - width(cell)));
        }
        out.trim_end().to_string()
    };
    // Padded first: decoration has no width.
    let mut out = format!("{}\n", bold(&line(head)));
    for (title, rows) in groups {
        out += &format!("{}\n", bold(title));
        rows.iter().for_each(|row| out += &format!("{}\n", line(row)));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comparison::tests::{run, setup};

    #[test]
    fn columns_line_up() {
        let runs = [("fp32", 0.9, 10.0), ("bf16", 0.895, 5.0), ("fp16", 0.901, 20.0)]
            .into_iter()
            .flat_map(|(p, a, ms)| (0..3).map(move |s| run(p, s, a + 0.001 * s as f64, ms)))
            .collect();
        let text = text(&Comparison::new(setup(), runs, Vec::new()), &|s| s.to_string());
        let ends: Vec<usize> =
            text.lines().filter(|l| l.starts_with("  ")).map(|l| l.chars().count()).collect();
        assert!(ends.windows(2).all(|w| w[0] == w[1]), "{text}");
        assert!(text.contains("2.00×") && text.contains("−0.50 pt") && text.contains("2^16"), "{text}");
    }
}
