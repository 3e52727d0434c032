//! CSV files as cells, with the line of each row for error messages.

use std::path::{Path, PathBuf};

use crate::error::DataError;
use crate::files;
use crate::spec::CsvFormat;

/// The cells of a file, trimmed of white space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cells {
    pub(crate) path: PathBuf,
    pub(crate) header: Vec<String>,
    pub(crate) rows: Vec<TableRow>,
}

/// One row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TableRow {
    /// Where it starts in the file, counted from 1.
    pub(crate) line: u64,
    pub(crate) cells: Vec<String>,
}

/// Whether a cell says that its value is missing: empty, `?` or `NA`.
pub(crate) fn is_missing(cell: &str) -> bool {
    matches!(cell, "" | "?" | "NA")
}

/// Reads a file; blank lines are passed over.
pub(crate) fn read(path: &Path, format: CsvFormat) -> Result<Cells, DataError> {
    parse(&files::read_text(path)?, path, format)
}

pub(crate) fn parse(text: &str, path: &Path, format: CsvFormat) -> Result<Cells, DataError> {
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(format.delimiter as u8)
        .has_headers(false)
        .flexible(true)
        .trim(csv::Trim::All)
        .from_reader(text.as_bytes());
    let mut rows = Vec::new();
    for record in reader.records() {
        let record = record.map_err(|e| DataError::unusable(path, format!("not valid CSV: {e}")))?;
        let line = record.position().map_or(0, |start| {
            // The parser counts blank lines, and the second half of a CR LF, to the record after
            // them.
            let before =
                text.as_bytes()[start.byte() as usize..].iter().take_while(|b| matches!(b, b'\r' | b'\n'));
            start.line() + before.filter(|&&b| b == b'\n').count() as u64
        });
        // A line of white space only is one empty cell to the parser.
        if record.iter().any(|cell| !cell.is_empty()) || record.len() > 1 {
            rows.push(TableRow { line, cells: record.iter().map(str::to_owned).collect() });
        }
    }
    let empty = || DataError::Empty { what: path.display().to_string(), unit: "data row" };
    let first = rows.first().ok_or_else(empty)?;
    let header = if format.header {
        rows.remove(0).cells
    } else {
        (1..=first.cells.len()).map(|i| format!("c{i}")).collect()
    };
    if rows.is_empty() {
        return Err(empty());
    }
    if let Some(twice) = header.iter().enumerate().find(|(i, name)| header[..*i].contains(name)) {
        return Err(DataError::unusable(path, format!("two columns are called `{}`", twice.1)));
    }
    if let Some(ragged) = rows.iter().find(|row| row.cells.len() != header.len()) {
        return Err(ragged_row(path, ragged.line, header.len(), ragged.cells.len()));
    }
    Ok(Cells { path: path.to_owned(), header, rows })
}

/// A row with more or fewer cells than are expected.
pub(crate) fn ragged_row(path: &Path, line: u64, expected: usize, found: usize) -> DataError {
    let problem = format!("line {line} has {found} cells, expected {expected}");
    DataError::unusable(path, format!("{problem}; check the delimiter and quotes"))
}

impl Cells {
    /// Position of a column.
    pub(crate) fn column(&self, name: &str) -> Result<usize, DataError> {
        self.header.iter().position(|column| column == name).ok_or_else(|| DataError::UnknownColumn {
            path: self.path.clone(),
            column: name.to_owned(),
            columns: self.header.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(content: &str, format: CsvFormat) -> Result<Cells, DataError> {
        parse(content, Path::new("t.csv"), format)
    }

    #[test]
    fn quotes_blank_lines_and_white_space() {
        let cells = text("a, b\n\n 1,\"x, y\"\r\n2 ,z\n", CsvFormat::default()).unwrap();
        assert_eq!(cells.header, ["a", "b"]);
        assert_eq!(cells.rows[0], TableRow { line: 3, cells: vec!["1".into(), "x, y".into()] });
        assert_eq!(cells.rows[1], TableRow { line: 4, cells: vec!["2".into(), "z".into()] });
    }

    #[test]
    fn columns_without_header_are_numbered() {
        let format = CsvFormat { delimiter: ';', header: false };
        let cells = text("1;x\n2;y", format).unwrap();
        assert_eq!((cells.header, cells.rows.len()), (vec!["c1".to_owned(), "c2".to_owned()], 2));
    }

    #[test]
    fn broken_tables_say_where() {
        let error = |content| text(content, CsvFormat::default()).unwrap_err().to_string();
        assert_eq!(
            error("a,b\n1,2\n3\n"),
            "t.csv: line 3 has 1 cells, expected 2; check the delimiter and quotes"
        );
        assert!(error("a,a\n1,2\n").contains("two columns are called `a`"));
        assert_eq!(error("a,b\n"), "t.csv: no samples; expected at least one data row");
        assert_eq!(error(""), "t.csv: no samples; expected at least one data row");
        let cells = text("age,income\n1,2\n", CsvFormat::default()).unwrap();
        let unknown = cells.column("incom").unwrap_err().to_string();
        assert_eq!(
            unknown,
            "t.csv: no column `incom` (did you mean `income`?); the columns are `age`, `income`"
        );
    }
}
