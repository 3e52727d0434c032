//! Tables: rows of floats made from the columns of a CSV file.

pub(crate) mod classes;
pub(crate) mod column;
pub(crate) mod encoder;
pub(crate) mod groups;
pub(crate) mod looks;
pub(crate) mod notation;
pub(crate) mod read;

pub use column::{ColumnEncoder, Encoding};
pub use encoder::{TableEncoder, TableRows};
pub use groups::GroupLabels;
pub use notation::{DateOrder, Notation};

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
    pub(crate) fn row(&self, index: u32) -> &[f32] {
        &self.features[index as usize * self.width..][..self.width]
    }
}
