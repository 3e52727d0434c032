//! Calibration and gaps between groups as lines of a table, for the terminal and the report alike.

use serde::Serialize;

use crate::experiment::SeedMeasures;
use crate::measures::ColumnMeasures;
use crate::measures::by_group::GroupMeasures;
use crate::measures::fairness::{FairnessGaps, LEAST_SAMPLES};
use crate::stats::mean_sd;
use crate::units;

/// One measure of the groups of a column, of reference and candidate: means over seeds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GroupLine {
    /// The column.
    pub column: String,
    /// The group, of a measure of one.
    pub group: Option<String>,
    /// Its samples in the first seed.
    pub samples: Option<u64>,
    /// What is measured.
    pub measure: &'static str,
    /// Of the reference.
    pub reference: f64,
    /// Of the candidate.
    pub candidate: f64,
}

impl GroupLine {
    /// What it is of, both values and their difference in words.
    pub fn cells(&self) -> [String; 4] {
        let label = match (&self.group, self.samples) {
            (Some(group), Some(n)) => format!("{}={group} (n = {})", self.column, units::count(n)),
            _ => format!("{}: {}", self.column, self.measure),
        };
        let share = |x: f64| units::percent(x, None);
        let difference = units::points(self.candidate - self.reference);
        [label, share(self.reference), share(self.candidate), difference]
    }
}

/// Means over seeds of reference and candidate, if all have the value.
fn means(
    seeds: &[SeedMeasures],
    column: &str,
    value: impl Fn(&ColumnMeasures) -> Option<f64>,
) -> Option<(f64, f64)> {
    let of = |columns: &[ColumnMeasures]| value(columns.iter().find(|c| c.column == column)?);
    let mean = |values: Option<Vec<f64>>| mean_sd(&values?).map(|m| m.0);
    let reference = mean(seeds.iter().map(|s| of(&s.reference.by_group)).collect())?;
    Some((reference, mean(seeds.iter().map(|s| of(&s.candidate.by_group)).collect())?))
}

/// Expected calibration error in each group of at least [`LEAST_SAMPLES`] samples in the first
/// seed.
pub fn calibration(seeds: &[SeedMeasures]) -> Vec<GroupLine> {
    let columns = seeds.first().map_or(&[] as &[ColumnMeasures], |s| &s.reference.by_group);
    let groups = columns.iter().flat_map(|c| c.groups.iter().map(move |g| (&c.column, g)));
    let line = |(column, g): (&String, &GroupMeasures)| {
        let ece = |c: &ColumnMeasures| Some(c.groups.iter().find(|x| x.value == g.value)?.ece);
        let (reference, candidate) = means(seeds, column, ece)?;
        let (column, group, samples) = (column.clone(), Some(g.value.clone()), Some(g.samples));
        Some(GroupLine { column, group, samples, measure: "ece", reference, candidate })
    };
    groups.filter(|(_, g)| g.samples >= LEAST_SAMPLES).filter_map(line).collect()
}

/// How far the groups of each column lie apart.
pub fn gaps(seeds: &[SeedMeasures]) -> Vec<GroupLine> {
    type Gap = fn(&FairnessGaps) -> Option<f64>;
    let of: [(&str, Gap); 4] = [
        ("worst accuracy", |g| Some(g.worst_accuracy)),
        ("accuracy, best less worst", |g| Some(g.accuracy_gap)),
        ("demographic parity difference", |g| Some(g.parity_gap)),
        ("equalised odds difference", |g| g.odds_gap),
    ];
    let columns = seeds.first().map_or(&[] as &[ColumnMeasures], |s| &s.reference.by_group);
    let lines = |c: &ColumnMeasures| {
        let line = |(measure, gap): &(&'static str, Gap)| {
            let (reference, candidate) = means(seeds, &c.column, |c| gap(c.gaps.as_ref()?))?;
            let column = c.column.clone();
            Some(GroupLine { column, group: None, samples: None, measure, reference, candidate })
        };
        of.iter().filter_map(line).collect::<Vec<_>>()
    };
    columns.iter().flat_map(lines).collect()
}
