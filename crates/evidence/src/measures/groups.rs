//! The same measures by subgroup: a mean over all can hide harm to a few (arXiv 2010.03058).

use super::{Agreement, Quality, Sample};
use crate::buckets::{BucketSums, GROUP_BUCKETS, bucket};

/// A column that divides samples into groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupColumn {
    /// Its name.
    pub name: String,
    /// The group of each sample, as an index of `values`.
    pub codes: Vec<u32>,
    /// The names of the groups, sorted.
    pub values: Vec<String>,
}

impl GroupColumn {
    /// A column from one value per sample. Numbers are sorted as numbers where all are.
    pub fn new(name: impl Into<String>, of_samples: &[String]) -> GroupColumn {
        let mut values: Vec<String> = of_samples.to_vec();
        values.sort();
        values.dedup();
        if values.iter().all(|v| v.parse::<i64>().is_ok()) {
            values.sort_by_key(|v| v.parse::<i64>().unwrap_or(0));
        }
        let index: std::collections::HashMap<&str, u32> =
            values.iter().enumerate().map(|(i, v)| (v.as_str(), i as u32)).collect();
        let codes = of_samples.iter().map(|v| index[v.as_str()]).collect();
        GroupColumn { name: name.into(), codes, values }
    }
}

/// Sums of one group.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GroupRow {
    /// The reference.
    pub reference: Quality,
    /// The candidate.
    pub candidate: Quality,
    /// Reference and candidate, sample by sample.
    pub agreement: Agreement,
    /// Reference and the reference of another seed.
    pub floor: Agreement,
    /// Right answers by bucket of examples.
    pub answers: BucketSums,
}

/// Sums by group of one column.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupTable {
    /// The column's name.
    pub column: String,
    /// The names of the groups.
    pub values: Vec<String>,
    /// One row per group.
    pub rows: Vec<GroupRow>,
}

impl GroupTable {
    /// An empty table for a column.
    pub fn new(column: &GroupColumn) -> GroupTable {
        let rows = vec![GroupRow::default(); column.values.len()];
        GroupTable { column: column.name.clone(), values: column.values.clone(), rows }
    }

    /// Adds a sample of group `code`, or of the cluster, number `unit`; codes that are none are
    /// ignored.
    pub fn push(
        &mut self,
        code: u32,
        unit: u64,
        reference: &Sample,
        candidate: &Sample,
        kl: f64,
        floor: Option<(&Sample, f64)>,
    ) {
        if let Some(row) = self.rows.get_mut(code as usize) {
            row.reference.push(reference);
            row.candidate.push(candidate);
            row.agreement.push(reference, candidate, kl);
            if row.answers.counts.is_empty() {
                row.answers = BucketSums::new(GROUP_BUCKETS);
            }
            let [a, b] = [reference, candidate].map(|s| f64::from(u8::from(s.correct())));
            row.answers.push(bucket(unit, u64::MAX, GROUP_BUCKETS), a, b - a);
            if let Some((other, kl)) = floor {
                row.floor.push(reference, other, kl);
            }
        }
    }
}
