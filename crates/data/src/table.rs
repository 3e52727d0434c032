//! Tables: rows of floats made from the columns of a CSV file.

pub(crate) mod classes;
pub(crate) mod column;
pub(crate) mod dates;
pub(crate) mod encoder;
pub(crate) mod groups;
pub(crate) mod looks;
pub(crate) mod notation;
pub(crate) mod read;

pub use column::{ColumnEncoder, Encoding};
pub use encoder::{TableEncoder, TableRows};
pub use groups::GroupLabels;
pub use notation::Notation;

/// N rows of features with a class each.
#[derive(Clone, Debug, PartialEq)]
pub struct TableSamples {
    /// Features of a row.
    pub width: usize,
    /// The features, row-major: `[N, width]`.
    pub features: Vec<f32>,
    /// The class index of each row.
    pub labels: Vec<u32>,
    /// Values of the group columns.
    pub groups: Vec<GroupLabels>,
}

impl TableSamples {
    /// The rows at these places, in this order.
    pub(crate) fn select(&self, indices: &[u32]) -> TableSamples {
        let group = |group: &GroupLabels| GroupLabels {
            column: group.column.clone(),
            values: indices.iter().map(|&i| group.values[i as usize].clone()).collect(),
        };
        TableSamples {
            width: self.width,
            features: indices.iter().flat_map(|&i| self.row(i)).copied().collect(),
            labels: indices.iter().map(|&i| self.labels[i as usize]).collect(),
            groups: self.groups.iter().map(group).collect(),
        }
    }

    pub(crate) fn row(&self, index: u32) -> &[f32] {
        &self.features[index as usize * self.width..][..self.width]
    }
}
