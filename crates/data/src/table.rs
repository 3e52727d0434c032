//! Tables: rows of floats made from the columns of a CSV file.

pub(crate) mod column;
pub(crate) mod encoder;
pub(crate) mod groups;
pub(crate) mod read;

pub use column::{ColumnEncoder, Encoding};
pub use encoder::TableEncoder;
pub use groups::GroupLabels;

/// N rows of features with a class each.
#[derive(Clone, Debug, PartialEq)]
pub struct TableSamples {
    pub(crate) width: usize,
    pub(crate) features: Vec<f32>,
    pub(crate) labels: Vec<u32>,
    pub(crate) groups: Vec<GroupLabels>,
}

impl TableSamples {
    /// Features of a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// `[N, width]`, row-major, encoded.
    pub fn features(&self) -> &[f32] {
        &self.features
    }

    /// `[N]`, class indices.
    pub fn labels(&self) -> &[u32] {
        &self.labels
    }

    /// The groups of every row, for each column of `[data] groups`.
    pub fn groups(&self) -> &[GroupLabels] {
        &self.groups
    }

    pub(crate) fn row(&self, index: u32) -> &[f32] {
        &self.features[index as usize * self.width..][..self.width]
    }
}
