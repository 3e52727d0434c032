//! One model group by group: accuracy, calibration, and how far groups lie apart.

use serde::Serialize;

use super::confusion::ConfusionMatrix;
use super::fairness::{FairnessGaps, gaps};
use super::{GroupColumn, Quality, Sample};

/// Most sums by group and class of one column: 24 MiB.
const MOST_CELLS: usize = 1 << 20;

/// Sums over the samples of one model by the groups of one column.
#[derive(Clone, Debug)]
pub struct ColumnSums {
    column: String,
    values: Vec<String>,
    quality: Vec<Quality>,
    /// None with more than [`MOST_CELLS`] groups times classes.
    answers: Option<Vec<ConfusionMatrix>>,
}

/// What one model does in one group.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GroupMeasures {
    /// The group.
    pub value: String,
    /// Samples.
    pub samples: u64,
    /// Share predicted right.
    pub accuracy: f64,
    /// Expected calibration error, as [`super::QualityValues::ece`]. Of few samples chance alone
    /// makes it large.
    pub ece: f64,
    /// The same without the part that chance alone adds.
    pub ece_debiased: f64,
}

/// What one model does in the groups of one column.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ColumnMeasures {
    /// The column.
    pub column: String,
    /// The groups that have samples.
    pub groups: Vec<GroupMeasures>,
    /// How far the groups lie apart; none where [`super::fairness::gaps`] has none, or with more
    /// than 2^20 groups times classes.
    pub gaps: Option<FairnessGaps>,
}

impl ColumnSums {
    /// Without samples yet.
    pub fn new(column: &GroupColumn, classes: usize) -> ColumnSums {
        let groups = column.values.len();
        let counted = groups.saturating_mul(classes) <= MOST_CELLS;
        ColumnSums {
            column: column.name.clone(),
            values: column.values.clone(),
            quality: vec![Quality::default(); groups],
            answers: counted.then(|| vec![ConfusionMatrix::sums_alone(classes); groups]),
        }
    }

    /// Adds a sample of group `code`; codes that are none are ignored.
    pub fn push(&mut self, code: u32, label: u32, sample: &Sample) {
        if let Some(quality) = self.quality.get_mut(code as usize) {
            quality.push(sample);
        }
        if let Some(answers) = self.answers.as_mut().and_then(|all| all.get_mut(code as usize)) {
            answers.push(label, sample.predicted);
        }
    }

    /// What they come to.
    pub fn measures(&self) -> ColumnMeasures {
        let of = |(value, quality): (&String, &Quality)| {
            let q = quality.values()?;
            Some(GroupMeasures {
                value: value.clone(),
                samples: q.samples,
                accuracy: q.accuracy,
                ece: q.ece,
                ece_debiased: q.ece_debiased,
            })
        };
        ColumnMeasures {
            column: self.column.clone(),
            groups: self.values.iter().zip(&self.quality).filter_map(of).collect(),
            gaps: self.answers.as_ref().and_then(|answers| gaps(&self.values, answers)),
        }
    }
}
