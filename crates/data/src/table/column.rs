//! One column: numbers or categories, and how its cells become features.

use serde::{Deserialize, Serialize};

use super::classes::{self, value_of, values};
use super::looks::Numbers;
use super::notation::Notation;
use super::read::{Cell, Cells};
use crate::error::DataError;
use crate::spec::MissingNumbers;

/// Most categories of a column that are encoded.
pub(crate) const MAX_CATEGORIES: usize = 1000;

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
        /// How its numbers are written.
        #[serde(default, skip_serializing_if = "Notation::is_plain")]
        written: Notation,
        /// A text that counts as missing in this column.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        gap: Option<String>,
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

impl Cell<'_> {
    fn missing(self, cell: &str) -> DataError {
        let what = if cell.is_empty() { String::new() } else { format!(" (`{cell}`)") };
        self.wrong(format!("value is missing{what}; {MISSING_NUMBER}"))
    }

    fn number(self, cell: &str, written: &Notation) -> Result<f64, DataError> {
        match written.read(cell) {
            Some(value) if value.is_finite() => Ok(value),
            Some(_) if cell.contains(|c: char| c.is_ascii_digit()) => {
                Err(self
                    .wrong(format!("`{cell}` is greater than every f64 number; correct or remove the row")))
            }
            Some(_) => Err(self.wrong(format!("`{cell}` is not a finite number; correct or remove the row"))),
            None => Err(self.wrong(format!(
                "`{cell}` is not a number as the others of this column are; correct the cell, name it in \
                 `missing_markers` if it means a missing value, or list the column in `categorical`"
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
        Numbers { notation: written, gap }: Numbers,
        missing: MissingNumbers,
    ) -> Result<Self, DataError> {
        let mut values = Vec::with_capacity(rows.len());
        for place in places(cells, at, rows) {
            let cell = &place.row.cells[at];
            if !cells.is_missing(cell) && gap.as_ref() != Some(cell) {
                values.push(place.number(cell, &written)?);
            } else if missing == MissingNumbers::Error {
                return Err(place.missing(cell));
            }
        }
        let (mean, std) = mean_and_std(&values);
        if !(mean.is_finite() && std.is_finite()) {
            // Finite numbers whose squares are not: say which is the greatest.
            let size = |place: &Cell<'_>| written.read(&place.row.cells[at]).unwrap_or(0.0).abs();
            if let Some(place) = places(cells, at, rows).max_by(|a, b| size(a).total_cmp(&size(b))) {
                return Err(place.wrong(format!(
                    "`{}` is so great that the column has no finite standard deviation; correct or remove the row",
                    place.row.cells[at]
                )));
            }
        }
        Ok(Encoding::Numeric { mean, std, missing, written, gap })
    }

    pub(crate) fn one_hot(cells: &Cells, at: usize, rows: &[u32]) -> Result<Self, DataError> {
        let own = || rows.iter().map(|&row| cells.rows[row as usize].cells[at].as_str());
        let categories = values(own().filter(|cell| !cells.is_missing(cell)), &cells.format);
        if categories.len() > MAX_CATEGORIES {
            let (column, found) = (cells.header[at].clone(), categories.len());
            return Err(DataError::TooManyCategories { column, found, limit: MAX_CATEGORIES });
        }
        Ok(Encoding::OneHot { categories, missing: own().any(|cell| cells.is_missing(cell)) })
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
            match place_in(order, cell, cells) {
                Some(rank) => ranks.push(rank as f64),
                None if cells.is_missing(cell) => {}
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
        let is_missing = place.cells.is_missing(cell);
        match &self.encoding {
            Encoding::Numeric { mean, std, missing, written, gap } => {
                if is_missing || gap.as_deref() == Some(cell) {
                    return match missing {
                        MissingNumbers::Mean => {
                            out.push(0.0);
                            Ok(())
                        }
                        MissingNumbers::Error => Err(place.missing(cell)),
                    };
                }
                let feature = ((place.number(cell, written)? - mean) / std) as f32;
                if !feature.is_finite() {
                    return Err(place.wrong(format!(
                        "`{cell}` is too far from the column's train values (mean {mean:.4}, standard deviation \
                         {std:.4}) to be a feature in f32; correct or remove the row"
                    )));
                }
                out.push(feature);
            }
            Encoding::OneHot { categories, missing } => {
                let start = out.len();
                out.resize(start + self.width(), 0.0);
                let hot = match is_missing {
                    true => missing.then_some(categories.len()),
                    false => categories
                        .binary_search_by(|category| category.as_str().cmp(cell))
                        .ok()
                        .or_else(|| place_in(categories, cell, place.cells)),
                };
                if let Some(hot) = hot {
                    out[start + hot] = 1.0;
                }
            }
            Encoding::Ordinal { categories, mean, std } => {
                let rank = place_in(categories, cell, place.cells);
                out.push(rank.map_or(0.0, |rank| ((rank as f64 - mean) / std) as f32));
            }
        }
        Ok(())
    }

    /// What a person should know of how the column is read: notation, gaps.
    pub(crate) fn remarks(&self, cells: &Cells, at: usize, rows: &[u32]) -> Vec<String> {
        let Encoding::Numeric { missing, written, gap, .. } = &self.encoding else {
            return classes::remarks(cells, at, &format!("The categories of `{}`:", self.name));
        };
        let mut notes = Vec::new();
        let own = || places(cells, at, rows).map(|place| place.row.cells[at].as_str());
        let marked = |cell: &&str| cell.contains([',', '.']) && written.read(cell).is_some();
        let example = own().find(marked).or_else(|| own().find(|cell| written.read(cell).is_some()));
        if let Some(remark) = example.and_then(|example| written.remark(example)) {
            notes.push(format!("Column `{}` {remark}.", self.name));
        }
        let digits = |cell: &&str| !cell.is_empty() && cell.bytes().all(|b| b.is_ascii_digit());
        let code = |cell: &&str| digits(cell) && cell.len() > 1 && cell.starts_with('0');
        if let Some(code) = own().find(code).filter(|_| written.is_plain())
            && own().all(|cell| digits(&cell) || cells.is_missing(cell))
        {
            notes.push(format!(
                "Column `{0}` is read as numbers, `{code}` as {1}: if its cells are codes, `categorical = [\"{0}\"]` \
                 takes them as texts.",
                self.name,
                code.trim_start_matches('0').parse::<u64>().unwrap_or(0)
            ));
        }
        let only = own().find(|cell| !cells.is_missing(cell));
        if let Some(only) = only.filter(|only| own().all(|cell| cell == *only || cells.is_missing(cell)))
            && own().any(|cell| cells.is_missing(cell))
        {
            notes.push(format!(
                "Column `{0}` says nothing: where it has a value, that is `{only}`, and a missing one becomes the mean; \
                 `categorical = [\"{0}\"]` tells its gaps apart.",
                self.name
            ));
        }
        if let Some(gap) = gap.as_ref().filter(|_| *missing == MissingNumbers::Mean) {
            let count = own().filter(|cell| cell == gap).count();
            notes.push(format!(
                "Column `{0}` is numeric but for `{gap}` in {count} rows, which counts as missing; \
                 `categorical = [\"{0}\"]` makes texts of all.",
                self.name
            ));
        }
        notes
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

/// The category that a cell holds, however it is spelt.
fn place_in(categories: &[String], cell: &str, cells: &Cells) -> Option<usize> {
    let value = value_of(cell, &cells.format);
    categories.iter().position(|category| value_of(category, &cells.format) == value)
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
