//! From rows of cells to rows of features, the same way in training and in prediction.

use std::collections::BTreeSet;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::TableSamples;
use super::column::{Cell, ColumnEncoder, Encoding, Looks};
use super::groups::Grouping;
use super::read::{self, Cells, TableRow, is_missing};
use crate::error::DataError;
use crate::spec::{CsvFormat, CsvSpec};

/// Most classes of a target column.
pub(crate) const MAX_CLASSES: usize = 1000;

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

/// The classes of a target column in some rows: in numeric order if all are numbers, else in the
/// order of the names.
pub(crate) fn classes(cells: &Cells, target: usize) -> Result<Vec<String>, DataError> {
    let mut seen = BTreeSet::new();
    for row in &cells.rows {
        let cell = row.cells[target].as_str();
        if is_missing(cell) {
            let place = Cell { cells, row, column: &cells.header[target] };
            return Err(place.missing("every row needs its target; remove the row"));
        }
        seen.insert(cell);
    }
    // With fewer than two rows each, values are quantities or names rather than classes.
    let limit = (cells.rows.len() / 2).clamp(20, MAX_CLASSES);
    if seen.len() > limit {
        return Err(DataError::TooManyClasses {
            column: cells.header[target].clone(),
            found: seen.len(),
            limit,
        });
    }
    if seen.len() < 2 {
        return Err(DataError::TooFewClasses {
            what: format!("{}, column `{}`", cells.path.display(), cells.header[target]),
            found: seen.len(),
            hint: "the classes are the different values of the `target` column",
        });
    }
    let mut classes: Vec<String> = seen.into_iter().map(str::to_owned).collect();
    let numbers: Option<Vec<f64>> =
        classes.iter().map(|c| c.parse().ok().filter(|n: &f64| n.is_finite())).collect();
    if numbers.is_some() {
        let number = |class: &String| class.parse::<f64>().unwrap_or(0.0);
        classes.sort_by(|a, b| number(a).total_cmp(&number(b)).then_with(|| a.cmp(b)));
    }
    Ok(classes)
}

/// The class index of every row.
pub(crate) fn labels(cells: &Cells, target: usize, classes: &[String]) -> Result<Vec<u32>, DataError> {
    let label = |row: &TableRow| {
        let cell = &row.cells[target];
        if is_missing(cell) {
            let place = Cell { cells, row, column: &cells.header[target] };
            return Err(place.missing("every row needs its target; remove the row"));
        }
        let index = classes.iter().position(|class| class == cell);
        index.map(|i| i as u32).ok_or_else(|| DataError::UnseenLabel {
            what: format!("{}, line {}", cells.path.display(), row.line),
            class: cell.clone(),
        })
    };
    cells.rows.iter().map(label).collect()
}

impl TableEncoder {
    /// Decides what each column is and fits its encoder, on the given rows of the train file only.
    pub(crate) fn fit(
        cells: &Cells,
        rows: &[u32],
        classes: Vec<String>,
        spec: &CsvSpec,
    ) -> Result<Self, DataError> {
        for name in
            spec.ignore.iter().chain(&spec.numeric).chain(&spec.categorical).chain(spec.ordinal.keys())
        {
            cells.column(name)?;
        }
        let mut columns = Vec::new();
        for (at, name) in cells.header.iter().enumerate() {
            if *name == spec.target || spec.ignore.contains(name) {
                continue;
            }
            let numeric = || {
                let own = || rows.iter().map(|&row| cells.rows[row as usize].cells[at].as_str());
                let told = spec.numeric.contains(name);
                told || (!spec.categorical.contains(name) && Looks::of(own()) == Looks::Numeric)
            };
            let encoding = match spec.ordinal.get(name) {
                Some(order) => Encoding::ordinal(cells, at, rows, order)?,
                None if numeric() => Encoding::numeric(cells, at, rows, spec.missing)?,
                None => Encoding::one_hot(cells, at, rows)?,
            };
            columns.push(ColumnEncoder { name: name.clone(), encoding });
        }
        if columns.iter().all(|column| column.width() == 0) {
            return Err(DataError::unusable(&cells.path, "no columns but the target and the ignored ones"));
        }
        let (format, file_columns, target) = (spec.format, cells.header.len(), spec.target.clone());
        Ok(TableEncoder { format, file_columns, target, classes, columns })
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

    /// Reads a CSV file to predict from: `[rows, width]`, row-major. Columns are found by name, in
    /// any order; others, the target among them, are not looked at.
    ///
    /// # Errors
    /// A missing file or column, or a cell that cannot be encoded, with its line.
    pub fn rows_from_path(&self, path: &Path) -> Result<Vec<f32>, DataError> {
        let cells = read::read(path, self.format)?;
        let rows: Vec<u32> = (0..cells.rows.len() as u32).collect();
        self.encode(&cells, &rows)
    }

    /// Encodes one record whose cells are in the order of `header`: `[width]`.
    ///
    /// # Errors
    /// As [`rows_from_path`](Self::rows_from_path), with line 1.
    pub fn row_from_record(&self, header: &[&str], record: &[&str]) -> Result<Vec<f32>, DataError> {
        let strings = |cells: &[&str]| cells.iter().map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
        let path = Path::new("record").to_owned();
        if header.len() != record.len() {
            return Err(read::ragged_row(&path, 1, header.len(), record.len()));
        }
        let rows = vec![TableRow { line: 1, cells: strings(record) }];
        self.encode(&Cells { path, header: strings(header), rows }, &[0])
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

#[cfg(test)]
mod tests {
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
        let cells = read::parse(content, Path::new("people.csv"), spec.format)?;
        let classes = classes(&cells, cells.column(&spec.target)?)?;
        TableEncoder::fit(&cells, rows, classes, spec)
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
        let nan = error(&PEOPLE.replace("40", "NaN"), &spec(|_| ()));
        assert_eq!(
            nan,
            "people.csv: line 3, column `age`: `NaN` is not a finite number; correct or remove the row"
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
            let cells = read::parse(text, Path::new("new.csv"), spec.format).unwrap();
            encoder.encode(&cells, &[0])
        };
        assert_eq!(encode("3,?,6,junk").unwrap(), [1.0, 1.0]);
        assert_eq!(encode("3,6,junk").unwrap(), [1.0, 1.0]);
        let error = encode("3,6").unwrap_err().to_string();
        assert_eq!(error, "new.csv: line 1 has 2 cells, expected 4; check the delimiter and quotes");
    }
}
