//! From rows of cells to rows of features, the same way in training and in prediction.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::TableSamples;
use super::classes;
use super::column::{ColumnEncoder, Encoding};
use super::groups::Grouping;
use super::looks::{Looks, Marks, Numbers, Open};
use super::notation::Notation;
use super::read::{self, Cell, Cells, TableRow, composed};
use crate::error::DataError;
use crate::spec::{CsvFormat, CsvSpec, DecimalMark};

/// What turns a row of cells into the features the model was trained on; stored with the model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TableEncoder {
    format: CsvFormat,
    /// Columns of the train file, used or not.
    file_columns: usize,
    target: String,
    classes: Vec<String>,
    columns: Vec<ColumnEncoder>,
}

/// A fitted encoder, and what a person should know of the columns.
pub(crate) struct Fitted {
    pub(crate) encoder: TableEncoder,
    pub(crate) notes: Vec<String>,
}

/// The line of a recipe that makes a feature of a column that is left out otherwise.
pub(crate) fn kept_by(cells: &Cells, at: usize) -> String {
    let numeric = cells.texts(at).all(|cell| cells.is_missing(cell) || cell.parse::<f64>().is_ok());
    format!("{} = [\"{}\"]", if numeric { "numeric" } else { "categorical" }, cells.header[at])
}

/// How a column is read as numbers, if it is one of numbers or the recipe says so.
fn numbers(cells: &Cells, at: usize, rows: &[u32], told: bool) -> Result<Option<Numbers>, DataError> {
    let own = rows.iter().map(|&row| cells.rows[row as usize].cells[at].as_str());
    match Looks::of(own, &cells.format) {
        Looks::Numeric(numbers) => Ok(Some(numbers)),
        Looks::Categorical => Ok(told.then(Numbers::default)),
        Looks::Open(open) => {
            Err(DataError::OpenColumn { column: cells.header[at].clone(), reason: open.reason() })
        }
    }
}

/// In a file with decimal commas, points may part thousands: a column in which every point could
/// do so is not taken for decimals in silence.
fn check_marks(cells: &Cells, rows: &[u32], columns: &[ColumnEncoder]) -> Result<(), DataError> {
    let own = |name: &str| {
        let at = cells.column(name)?;
        Ok::<_, DataError>(rows.iter().map(move |&row| cells.rows[row as usize].cells[at].as_str()))
    };
    let has_commas = |column: &ColumnEncoder| {
        matches!(
            &column.encoding,
            Encoding::Numeric { written: Notation::Number { decimal: DecimalMark::Comma, .. }, .. }
        )
    };
    if cells.format.decimal.is_some() || !columns.iter().any(has_commas) {
        return Ok(());
    }
    for column in columns.iter().filter(|c| matches!(c.encoding, Encoding::Numeric { .. }) && !has_commas(c))
    {
        if Looks::marks(own(&column.name)?, &cells.format) == Marks::Open(DecimalMark::Point) {
            let example = own(&column.name)?.find(|cell| cell.contains('.')).unwrap_or_default().to_owned();
            return Err(DataError::OpenColumn {
                column: column.name.clone(),
                reason: Open::Mark(example).reason(),
            });
        }
    }
    Ok(())
}

impl TableEncoder {
    /// Decides what each column is and fits its encoder, on the given rows of the train file only.
    pub(crate) fn fit(
        cells: &Cells,
        rows: &[u32],
        classes: Vec<String>,
        spec: &CsvSpec,
    ) -> Result<Fitted, DataError> {
        spec.ordinal.keys().try_for_each(|name| cells.column(name).map(drop))?;
        let (ignored, numeric, categorical) = (
            cells.positions(&spec.ignore)?,
            cells.positions(&spec.numeric)?,
            cells.positions(&spec.categorical)?,
        );
        let (mut columns, mut notes) = (Vec::new(), Vec::new());
        let target = cells.column(&spec.target)?;
        for (at, name) in cells.header.iter().enumerate() {
            if at == target || ignored.contains(&at) {
                continue;
            }
            let told = numeric.contains(&at) || categorical.contains(&at);
            if let Some(why) = cells.index(at).filter(|_| !told) {
                let keep = kept_by(cells, at);
                notes.push(format!("Column `{name}` is left out: {why}; to use it, write `{keep}`."));
                continue;
            }
            let encoding = match spec.ordinal.get(name) {
                Some(order) => Encoding::ordinal(cells, at, rows, order)?,
                None if categorical.contains(&at) => Encoding::one_hot(cells, at, rows)?,
                None => match numbers(cells, at, rows, numeric.contains(&at))? {
                    Some(numbers) => Encoding::numeric(cells, at, rows, numbers, spec.missing)?,
                    None => Encoding::one_hot(cells, at, rows)?,
                },
            };
            let encoder = ColumnEncoder { name: name.clone(), encoding };
            notes.extend(encoder.remarks(cells, at, rows));
            if let Some(why) = cells.numbers_rows(at).filter(|_| !told) {
                notes.push(format!(
                    "Column `{name}` is used, but {why}: where the order of the rows says anything of their classes, \
                     it gives them away; `ignore = [\"{name}\"]` leaves it out."
                ));
            }
            columns.push(encoder);
        }
        check_marks(cells, rows, &columns)?;
        if columns.iter().all(|column| column.width() == 0) {
            return Err(DataError::unusable(&cells.path, "no columns but the target and those left out"));
        }
        let (format, file_columns, target) = (cells.format.clone(), cells.header.len(), spec.target.clone());
        Ok(Fitted { encoder: TableEncoder { format, file_columns, target, classes, columns }, notes })
    }

    /// Features of a row.
    pub fn width(&self) -> usize {
        self.columns.iter().map(ColumnEncoder::width).sum()
    }

    /// A name for each feature: the column's own, or `column=category`.
    pub fn feature_names(&self) -> Vec<String> {
        let names = |column: &ColumnEncoder| match &column.encoding {
            Encoding::Numeric { .. } | Encoding::Ordinal { .. } => vec![column.name.clone()],
            Encoding::OneHot { categories, missing } => {
                let names = categories.iter().map(String::as_str).chain(missing.then_some("(missing)"));
                names.map(|category| format!("{}={category}", column.name)).collect()
            }
        };
        self.columns.iter().flat_map(names).collect()
    }

    /// Names of the classes, in the order of their indices.
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// Names of the columns that features are made of, in the order of the train file.
    pub fn column_names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.columns.iter().map(|column| column.name.as_str())
    }

    /// Encodes rows whose cells are in the order of [`column_names`](Self::column_names):
    /// `[rows, width]`, row-major.
    ///
    /// # Errors
    /// A row of another length, or a cell that cannot be encoded, with the number of its row as its
    /// line.
    pub fn rows_from_cells<S: AsRef<str>>(&self, rows: &[Vec<S>]) -> Result<Vec<f32>, DataError> {
        let path = Path::new("request");
        let mut own = Vec::with_capacity(rows.len());
        for (line, row) in (1..).zip(rows) {
            if row.len() != self.columns.len() {
                return Err(read::ragged_row(path, line, self.columns.len(), row.len()));
            }
            let cells = row.iter().map(|cell| composed(cell.as_ref().trim())).collect();
            own.push(TableRow { line, cells });
        }
        let header = self.column_names().map(str::to_owned).collect();
        let cells = Cells::new(path, &self.format, header, own, Vec::new())?;
        let mut features = Vec::with_capacity(rows.len() * self.width());
        for row in &cells.rows {
            for (cell, column) in row.cells.iter().zip(&self.columns) {
                column.encode(cell, Cell { cells: &cells, row, column: &column.name }, &mut features)?;
            }
        }
        Ok(features)
    }

    /// Reads a CSV file to predict from. Columns are found by name, in any order; others, the
    /// target among them, are not looked at.
    ///
    /// # Errors
    /// A missing file or column, or a cell that cannot be encoded, with its line.
    pub fn read_rows(&self, path: &Path) -> Result<TableRows, DataError> {
        let cells = read::read(path, &self.format)?;
        let rows: Vec<u32> = (0..cells.rows.len() as u32).collect();
        let features = self.encode(&cells, &rows)?;
        // Without a header, a file of fewer columns has no target.
        let has_target = self.format.header || cells.header.len() == self.file_columns;
        let target = cells.column(&self.target).ok().filter(|_| has_target);
        let none = || vec![None; cells.rows.len()];
        let classes = target.map_or_else(none, |target| classes::known(&cells, target, &self.classes));
        Ok(TableRows { features, classes, cells })
    }

    /// The features of a CSV file to predict from: `[rows, width]`, row-major.
    ///
    /// # Errors
    /// As [`read_rows`](Self::read_rows).
    pub fn rows_from_path(&self, path: &Path) -> Result<Vec<f32>, DataError> {
        Ok(self.read_rows(path)?.features)
    }

    /// Encodes one record whose cells are in the order of `header`: `[width]`.
    ///
    /// # Errors
    /// As [`rows_from_path`](Self::rows_from_path), with line 1.
    pub fn row_from_record(&self, header: &[&str], record: &[&str]) -> Result<Vec<f32>, DataError> {
        let strings = |cells: &[&str]| cells.iter().map(|cell| composed(cell.trim())).collect::<Vec<_>>();
        let path = Path::new("record").to_owned();
        if header.len() != record.len() {
            return Err(read::ragged_row(&path, 1, header.len(), record.len()));
        }
        let rows = vec![TableRow { line: 1, cells: strings(record) }];
        self.encode(&Cells::new(&path, &self.format, strings(header), rows, Vec::new())?, &[0])
    }

    pub(crate) fn encode(&self, cells: &Cells, rows: &[u32]) -> Result<Vec<f32>, DataError> {
        let at = self
            .columns
            .iter()
            .map(|column| self.position(cells, &column.name))
            .collect::<Result<Vec<_>, _>>()?;
        let mut features = Vec::with_capacity(rows.len() * self.width());
        for &row in rows {
            let row = &cells.rows[row as usize];
            for (column, &at) in self.columns.iter().zip(&at) {
                let place = Cell { cells, row, column: &column.name };
                column.encode(&row.cells[at], place, &mut features)?;
            }
        }
        Ok(features)
    }

    /// Without a header, columns are found by their place, and a file to predict from may leave the
    /// target out: then the columns after it move up.
    fn position(&self, cells: &Cells, name: &str) -> Result<usize, DataError> {
        let found = cells.header.len();
        if self.format.header || found == self.file_columns {
            return cells.column(name);
        }
        let number = |name: &str| name.strip_prefix('c').and_then(|n| n.parse::<usize>().ok());
        let moved = match (number(name), number(&self.target)) {
            (Some(own), Some(target)) if found + 1 == self.file_columns => {
                own.checked_sub(1 + usize::from(own > target)).filter(|&at| at < found)
            }
            _ => None,
        };
        let line = cells.rows.first().map_or(1, |row| row.line);
        moved.ok_or_else(|| read::ragged_row(&cells.path, line, self.file_columns, found))
    }

    pub(crate) fn samples(
        &self,
        cells: &Cells,
        rows: &[u32],
        labels: &[u32],
        groups: &Grouping,
    ) -> Result<TableSamples, DataError> {
        Ok(TableSamples {
            groups: groups.of(cells, rows)?,
            width: self.width(),
            features: self.encode(cells, rows)?,
            labels: rows.iter().map(|&row| labels[row as usize]).collect(),
        })
    }

    /// Stored numbers that cannot have been fitted.
    pub(crate) fn check(&self) -> Result<(), DataError> {
        if !self.format.delimiter.is_ascii() {
            let reason = format!("delimiter {:?}", self.format.delimiter);
            return Err(DataError::BadPreprocessing { reason });
        }
        self.columns.iter().try_for_each(ColumnEncoder::check)
    }
}

/// Rows to predict from.
pub struct TableRows {
    /// `[rows, width]`, row-major.
    pub features: Vec<f32>,
    /// `[rows]`: the class of each, where the file says it.
    pub classes: Vec<Option<u32>>,
    cells: Cells,
}

impl TableRows {
    /// The line of the file in which each row starts, counted from 1.
    pub fn lines(&self) -> impl Iterator<Item = u64> {
        self.cells.rows.iter().map(|row| row.line)
    }

    /// The cells of a column, used by the model or not.
    ///
    /// # Errors
    /// The file has no such column.
    pub fn column(&self, name: &str) -> Result<Vec<&str>, DataError> {
        let at = self.cells.column(name)?;
        Ok(self.cells.texts(at).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::super::classes::classes;
    use super::*;
    use crate::spec::MissingNumbers;

    const PEOPLE: &str =
        "age,job,size,id,label\n20,cook,small,a,yes\n40,?,large,b,no\n?,baker,small,c,yes\n60,cook,,d,no\n";

    fn spec(change: impl FnOnce(&mut CsvSpec)) -> CsvSpec {
        let mut spec = CsvSpec::new("people.csv".into(), "label".into());
        spec.ignore = vec!["id".into()];
        spec.missing = MissingNumbers::Mean;
        change(&mut spec);
        spec
    }

    fn fit(content: &str, rows: &[u32], spec: &CsvSpec) -> Result<TableEncoder, DataError> {
        let cells = read::parse(content, Path::new("people.csv"), &spec.format)?;
        let classes = classes(&cells, cells.column(&spec.target)?)?;
        Ok(TableEncoder::fit(&cells, rows, classes, spec)?.encoder)
    }

    #[test]
    fn columns_become_features() {
        let order = ["small", "medium", "large"].map(str::to_owned).to_vec();
        let spec = spec(|t| t.ordinal = [("size".to_owned(), order)].into());
        let encoder = fit(PEOPLE, &[0, 1, 2, 3], &spec).unwrap();
        assert_eq!(encoder.feature_names(), ["age", "job=baker", "job=cook", "job=(missing)", "size"]);
        assert_eq!(encoder.classes(), ["no", "yes"]);
        let header = ["size", "job", "age"];
        let row = |cells: [&str; 3]| encoder.row_from_record(&header, &cells).unwrap();
        // Ages 20, 40, 60: mean 40, population variance 800/3. Sizes 0, 2, 0: mean 2/3, variance
        // 8/9.
        let (age, low, high) = (20.0 / (800.0f64 / 3.0).sqrt(), -(0.5f64.sqrt()), 2.0f64.sqrt());
        assert_eq!(row(["large", "cook", "60"]), [age as f32, 0.0, 1.0, 0.0, high as f32]);
        assert_eq!(encoder.column_names().collect::<Vec<_>>(), ["age", "job", "size"]);
        let rows = [vec!["60", "cook", "large"], vec!["NA", "?", "small"]];
        let both = [row(["large", "cook", "60"]), row(["small", "?", "NA"])].concat();
        assert_eq!(encoder.rows_from_cells(&rows).unwrap(), both);
        let short = encoder.rows_from_cells(&[vec!["60"]]).unwrap_err().to_string();
        assert!(short.contains("line 1 has 1 cells, expected 3"), "{short}");
        assert_eq!(row(["small", "?", "NA"]), [0.0, 0.0, 0.0, 1.0, low as f32]);
        assert_eq!(row(["?", "never seen", "40"]), [0.0; 5]);
    }

    #[test]
    fn encodings_are_fitted_on_the_train_rows_only() {
        let encoder = fit(PEOPLE, &[0, 1], &spec(|_| ())).unwrap();
        assert_eq!(encoder.feature_names(), ["age", "job=cook", "job=(missing)", "size=large", "size=small"]);
        let age = encoder.row_from_record(&["age", "job", "size"], &["60", "baker", "tiny"]).unwrap();
        assert_eq!(age, [3.0, 0.0, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn bad_cells_are_named_with_line_and_column() {
        let error =
            |content: &str, spec: &CsvSpec| fit(content, &[0, 1, 2, 3], spec).unwrap_err().to_string();
        assert!(
            fit(&PEOPLE.replace("40", "NaN"), &[0, 1, 2, 3], &spec(|_| ())).is_ok(),
            "NaN is a missing value"
        );
        assert!(error(&PEOPLE.replace("40", "-inf"), &spec(|_| ())).contains("`-inf` is not a finite"));
        assert!(
            error(&PEOPLE.replace("40", "1e308"), &spec(|_| ())).contains("line 3, column `age`: `1e308`")
        );
        let strict = error(PEOPLE, &spec(|t| t.missing = MissingNumbers::Error));
        assert!(
            strict.contains("line 4, column `age`: value is missing")
                && strict.contains("missing = \"mean\""),
            "{strict}"
        );
        let told = error(&PEOPLE.replace("40", "forty"), &spec(|t| t.numeric = vec!["age".into()]));
        assert!(told.contains("line 3, column `age`: `forty` is not a number"), "{told}");
        let unknown = error(PEOPLE, &spec(|t| t.categorical = vec!["jop".into()]));
        assert!(unknown.contains("no column `jop` (did you mean `job`?)"), "{unknown}");
        let order = vec!["small".to_owned(), "medium".to_owned()];
        let unlisted = error(PEOPLE, &spec(|t| t.ordinal = [("size".to_owned(), order)].into()));
        assert!(unlisted.contains("line 3, column `size`: `large`"), "{unlisted}");
        let target = error(&PEOPLE.replace("d,no", "d,"), &spec(|_| ()));
        assert!(target.contains("line 5, column `label`: value is missing"), "{target}");
        let one = error(&PEOPLE.replace("no", "yes"), &spec(|_| ()));
        assert!(one.contains("1 class(es) found"), "{one}");
    }

    #[test]
    fn one_wrong_cell_among_many_numbers_is_a_mistake_not_a_category() {
        let mut content = String::from("x,label\n");
        (0..100).for_each(|i| content += &format!("{i},{}\n", i % 2));
        let content = content.replace("\n57,", "\n5,7,").replace("\n5,7,", "\n5O,");
        let rows: Vec<u32> = (0..100).collect();
        let error = fit(&content, &rows, &spec(|t| t.ignore.clear())).unwrap_err().to_string();
        assert!(error.contains("line 59, column `x`: `5O` is not a number"), "{error}");
    }

    #[test]
    fn numeric_classes_are_in_numeric_order() {
        let content = "x,label\n1,10\n2,9\n3,10\n";
        let encoder = fit(content, &[0, 1, 2], &spec(|t| t.ignore.clear())).unwrap();
        assert_eq!(encoder.classes(), ["9", "10"]);
    }

    #[test]
    fn a_headerless_file_to_predict_from_may_lack_the_target() {
        let spec = spec(|t| {
            (t.format.header, t.target, t.ignore) = (false, "c2".into(), vec!["c4".into()]);
        });
        let encoder = fit("1,a,5,x\n3,b,5,x\n", &[0, 1], &spec).unwrap();
        let encode = |text| {
            let cells = read::parse(text, Path::new("new.csv"), &spec.format).unwrap();
            encoder.encode(&cells, &[0])
        };
        assert_eq!(encode("3,?,6,junk").unwrap(), [1.0, 1.0]);
        assert_eq!(encode("3,6,junk").unwrap(), [1.0, 1.0]);
        let error = encode("3,6").unwrap_err().to_string();
        assert_eq!(error, "new.csv: line 1 has 2 cells, expected 4; check the delimiter and quotes");
    }
}
