//! One column: numbers or categories, and how its cells become features.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::read::{Cells, TableRow, is_missing};
use crate::error::DataError;
use crate::spec::MissingNumbers;

/// Most categories of a column that are encoded.
pub(crate) const MAX_CATEGORIES: usize = 1000;
/// Share of the cells that must be numbers for the others to be taken as mistakes in a column of
/// numbers.
const NUMERIC_SHARE: f64 = 0.95;

/// How a column becomes features; fitted on the train rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ColumnEncoder {
    /// The column.
    pub name: String,
    /// Its encoding.
    pub encoding: Encoding,
}

/// How cells become features.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Encoding {
    /// One feature: `(value - mean) / std`.
    Numeric {
        /// Mean of the train rows.
        mean: f64,
        /// Population standard deviation of the train rows, or 1 if they are all equal.
        std: f64,
        /// What to do with a missing cell; the mean becomes 0.
        missing: MissingNumbers,
    },
    /// One feature per category, 1 where the cell is that category; a category that was never seen
    /// is all 0.
    OneHot {
        /// In the order of their names.
        categories: Vec<String>,
        /// Whether missing cells were seen: then they have the last feature.
        missing: bool,
    },
    /// One feature: the category's place in the list, standardised. A missing or unlisted cell
    /// becomes 0, the mean.
    Ordinal {
        /// From low to high.
        categories: Vec<String>,
        /// Mean place of the train rows.
        mean: f64,
        /// Population standard deviation of the place, or 1 if they are all equal.
        std: f64,
    },
}

/// What a column looks like by its cells.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Looks {
    Numeric,
    Categorical,
}

impl Looks {
    /// A column is numeric if at least 95 % of its cells that are not missing read as numbers (NaN
    /// and infinities too, to be refused with their place later), and there is one.
    pub(crate) fn of<'a>(cells: impl Iterator<Item = &'a str>) -> Looks {
        let (mut numbers, mut present) = (0usize, 0usize);
        for cell in cells.filter(|cell| !is_missing(cell)) {
            present += 1;
            numbers += usize::from(cell.parse::<f64>().is_ok());
        }
        if present > 0 && numbers as f64 >= NUMERIC_SHARE * present as f64 {
            Looks::Numeric
        } else {
            Looks::Categorical
        }
    }
}

/// Where a cell is, for error messages.
#[derive(Clone, Copy)]
pub(crate) struct Cell<'a> {
    pub(crate) cells: &'a Cells,
    pub(crate) row: &'a TableRow,
    pub(crate) column: &'a str,
}

impl Cell<'_> {
    fn wrong(self, problem: String) -> DataError {
        let (path, column) = (self.cells.path.clone(), self.column.to_owned());
        DataError::Cell { path, line: self.row.line, column, problem }
    }

    pub(crate) fn missing(self, hint: &'static str) -> DataError {
        self.wrong(format!("value is missing; {hint}"))
    }

    fn not_finite(self, value: &str) -> DataError {
        self.wrong(format!("`{value}` is not a finite number; correct or remove the row"))
    }

    fn number(self, cell: &str) -> Result<f64, DataError> {
        match cell.parse::<f64>() {
            Ok(value) if value.is_finite() => Ok(value),
            Ok(_) => Err(self.not_finite(cell)),
            Err(_) => Err(self.wrong(format!(
                "`{cell}` is not a number, and the column is numeric; correct the cell or list the column in \
                 `categorical`"
            ))),
        }
    }
}

const MISSING_NUMBER: &str = "fill it in, remove the row, or set `missing = \"mean\"`";

impl Encoding {
    pub(crate) fn numeric(
        cells: &Cells,
        at: usize,
        rows: &[u32],
        missing: MissingNumbers,
    ) -> Result<Self, DataError> {
        let mut values = Vec::with_capacity(rows.len());
        for place in places(cells, at, rows) {
            let cell = &place.row.cells[at];
            if !is_missing(cell) {
                values.push(place.number(cell)?);
            } else if missing == MissingNumbers::Error {
                return Err(place.missing(MISSING_NUMBER));
            }
        }
        let (mean, std) = mean_and_std(&values);
        if !(mean.is_finite() && std.is_finite()) {
            // Finite numbers whose squares are not: say which is the greatest.
            let size = |place: &Cell<'_>| place.row.cells[at].parse::<f64>().unwrap_or(0.0).abs();
            if let Some(place) = places(cells, at, rows).max_by(|a, b| size(a).total_cmp(&size(b))) {
                return Err(place.not_finite(&place.row.cells[at]));
            }
        }
        Ok(Encoding::Numeric { mean, std, missing })
    }

    pub(crate) fn one_hot(cells: &Cells, at: usize, rows: &[u32]) -> Result<Self, DataError> {
        let own = rows.iter().map(|&row| cells.rows[row as usize].cells[at].as_str());
        let (gaps, seen): (BTreeSet<&str>, BTreeSet<&str>) = own.partition(|cell| is_missing(cell));
        if seen.len() > MAX_CATEGORIES {
            let (column, found) = (cells.header[at].clone(), seen.len());
            return Err(DataError::TooManyCategories { column, found, limit: MAX_CATEGORIES });
        }
        let categories = seen.into_iter().map(str::to_owned).collect();
        Ok(Encoding::OneHot { categories, missing: !gaps.is_empty() })
    }

    pub(crate) fn ordinal(
        cells: &Cells,
        at: usize,
        rows: &[u32],
        order: &[String],
    ) -> Result<Self, DataError> {
        let mut ranks = Vec::with_capacity(rows.len());
        for place in places(cells, at, rows) {
            let cell = &place.row.cells[at];
            match order.iter().position(|category| category == cell) {
                Some(rank) => ranks.push(rank as f64),
                None if is_missing(cell) => {}
                None => return Err(place.wrong(format!("`{cell}` is not in the column's `ordinal` list"))),
            }
        }
        let (mean, std) = mean_and_std(&ranks);
        Ok(Encoding::Ordinal { categories: order.to_vec(), mean, std })
    }
}

impl ColumnEncoder {
    /// Features that the column becomes.
    pub fn width(&self) -> usize {
        match &self.encoding {
            Encoding::Numeric { .. } | Encoding::Ordinal { .. } => 1,
            Encoding::OneHot { categories, missing } => categories.len() + usize::from(*missing),
        }
    }

    /// Appends the features of a cell.
    pub(crate) fn encode(&self, cell: &str, place: Cell<'_>, out: &mut Vec<f32>) -> Result<(), DataError> {
        match &self.encoding {
            Encoding::Numeric { missing: MissingNumbers::Mean, .. } if is_missing(cell) => out.push(0.0),
            Encoding::Numeric { .. } if is_missing(cell) => return Err(place.missing(MISSING_NUMBER)),
            Encoding::Numeric { mean, std, .. } => {
                let feature = ((place.number(cell)? - mean) / std) as f32;
                if !feature.is_finite() {
                    return Err(place.not_finite(cell));
                }
                out.push(feature);
            }
            Encoding::OneHot { categories, missing } => {
                let start = out.len();
                out.resize(start + self.width(), 0.0);
                let hot = match is_missing(cell) {
                    true => missing.then_some(categories.len()),
                    false => categories.binary_search_by(|category| category.as_str().cmp(cell)).ok(),
                };
                if let Some(hot) = hot {
                    out[start + hot] = 1.0;
                }
            }
            Encoding::Ordinal { categories, mean, std } => {
                let rank = categories.iter().position(|category| category == cell);
                out.push(rank.map_or(0.0, |rank| ((rank as f64 - mean) / std) as f32));
            }
        }
        Ok(())
    }

    /// Stored numbers that cannot have been fitted.
    pub(crate) fn check(&self) -> Result<(), DataError> {
        let sound = match &self.encoding {
            Encoding::Numeric { mean, std, .. } | Encoding::Ordinal { mean, std, .. } => {
                mean.is_finite() && std.is_finite() && *std > 0.0
            }
            Encoding::OneHot { categories, .. } => categories.is_sorted(),
        };
        let reason = || format!("encoder of column `{}`", self.name);
        if sound { Ok(()) } else { Err(DataError::BadPreprocessing { reason: reason() }) }
    }
}

fn places<'a>(cells: &'a Cells, at: usize, rows: &'a [u32]) -> impl Iterator<Item = Cell<'a>> {
    rows.iter().map(move |&row| Cell { cells, row: &cells.rows[row as usize], column: &cells.header[at] })
}

/// Mean and population standard deviation in two passes; (0, 1) of nothing, and 1 for values that
/// are all equal.
fn mean_and_std(values: &[f64]) -> (f64, f64) {
    let Some(&first) = values.first() else { return (0.0, 1.0) };
    if values.iter().all(|&v| v == first) {
        return (first, 1.0);
    }
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let std = (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n).sqrt();
    // Values so close that their squared distances underflow count as equal.
    (mean, if std == 0.0 { 1.0 } else { std })
}
