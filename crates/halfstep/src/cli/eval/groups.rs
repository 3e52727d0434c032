//! Accuracy and calibration of each group, and gaps between groups.

use halfstep::evidence::measures::ColumnMeasures;
use halfstep::evidence::measures::by_group::GroupMeasures;
use halfstep::evidence::measures::fairness::LEAST_SAMPLES;
use halfstep::evidence::units;

use super::classes::names;
use crate::cli::output;

/// Groups of a column that are shown: the least accurate.
const SHOWN: usize = 20;

/// The tables of one model; nothing without group columns.
pub fn text(columns: &[ColumnMeasures]) -> String {
    columns.iter().map(of_column).collect()
}

fn of_column(column: &ColumnMeasures) -> String {
    let share = |x: f64| units::percent(x, None);
    let all = column.groups.len();
    let mut groups: Vec<_> = column.groups.iter().collect();
    let mut title = format!("By `{}`", column.column);
    if all > SHOWN {
        groups.sort_by(|a, b| a.accuracy.total_cmp(&b.accuracy));
        groups.truncate(SHOWN);
        title += &format!(", the {SHOWN} of {all} groups with the lowest accuracy");
    }
    let values: Vec<String> = groups.iter().map(|g| g.value.clone()).collect();
    let row = |(g, name): (&&GroupMeasures, String)| {
        vec![name, units::count(g.samples), share(g.accuracy), share(g.ece)]
    };
    let rows = groups.iter().zip(names(&values)).map(row);
    let rows = output::headed("group | samples | accuracy | ECE", rows);
    let lines: String = output::layout(&rows, |c| c > 0).iter().map(|l| format!("  {l}\n")).collect();
    let gaps = column.gaps.as_ref().map_or_else(String::new, |g| {
        let points = |x: f64| format!("{:.2} pt", x * 100.0);
        let odds = g.odds_gap.map_or_else(String::new, |x| format!(", equalised odds {}", points(x)));
        output::bullets(&[format!(
            "Differences between the {} groups of at least {LEAST_SAMPLES} samples: accuracy {} (worst: {}), demographic \
             parity {}{odds}.",
            g.groups,
            points(g.accuracy_gap),
            names(std::slice::from_ref(&g.worst_group)).concat(),
            points(g.parity_gap)
        )])
    });
    format!("\n{}\n{lines}{gaps}", output::bold(&title))
}
