//! CSV files as cells, with the line of each row for error messages.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use crate::class_names::normal;
use crate::encoding;
use crate::error::DataError;
use crate::spec::CsvFormat;

/// The cells of a file, trimmed of white space and in Unicode's normal form C.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cells {
    pub(crate) path: PathBuf,
    pub(crate) format: CsvFormat,
    pub(crate) header: Vec<String>,
    /// Columns that have a place in the file but no name; `header` calls them `c1`, `c2` and so on.
    pub(crate) unnamed: BTreeSet<usize>,
    /// The place of each name.
    places: HashMap<String, usize>,
    pub(crate) rows: Vec<TableRow>,
    /// What was done to make a table of the file, one sentence each.
    pub(crate) notes: Vec<String>,
}

/// One row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TableRow {
    /// Where it starts in the file, counted from 1.
    pub(crate) line: u64,
    pub(crate) cells: Vec<String>,
}

/// Where a cell is, for error messages.
#[derive(Clone, Copy)]
pub(crate) struct Cell<'a> {
    pub(crate) cells: &'a Cells,
    pub(crate) row: &'a TableRow,
    pub(crate) column: &'a str,
}

impl Cell<'_> {
    pub(crate) fn wrong(self, problem: String) -> DataError {
        let (path, column) = (self.cells.path.clone(), self.column.to_owned());
        DataError::Cell { path, line: self.row.line, column, problem }
    }
}

/// Reads a file; blank lines are passed over.
pub(crate) fn read(path: &Path, format: &CsvFormat) -> Result<Cells, DataError> {
    parse(&encoding::read_declared(path, format.encoding.as_deref())?, path, format)
}

pub(crate) fn parse(text: &str, path: &Path, format: &CsvFormat) -> Result<Cells, DataError> {
    if let Some(at) = text.find('\0') {
        let line = 1 + text[..at].matches('\n').count();
        let reason =
            format!("line {line} has a character of code 0, as no text has: the file is damaged or no table");
        return Err(DataError::unusable(path, reason));
    }
    let Records { rows, delimiter, quoting } = records(text, path, format.delimiter)?;
    let mut cells = cells(rows, path, &CsvFormat { delimiter, ..format.clone() })?;
    cells.notes.extend(quoting.remark().map(str::to_owned));
    Ok(cells)
}

/// How cells with delimiters and quotes in them are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Quoting {
    /// In `"`, two of which stand for one (RFC 4180).
    Doubled,
    /// In `"`, with `\"` for one of them, as databases write.
    Escaped,
    /// In `'`, as Weka and SQL write.
    Single,
}

impl Quoting {
    fn remark(self) -> Option<&'static str> {
        match self {
            Quoting::Doubled => None,
            Quoting::Escaped => Some("A backslash before a quote is taken to mean the quote itself."),
            Quoting::Single => Some("Cells are taken to be quoted by `'`."),
        }
    }
}

/// The records of a text.
pub(crate) struct Records {
    pub(crate) rows: Vec<TableRow>,
    /// What parts their cells.
    pub(crate) delimiter: char,
    quoting: Quoting,
}

/// The delimiter in a first line `sep=;`, as Excel reads and writes it, and what follows that line.
pub(crate) fn separator_line(text: &str) -> Option<(char, &str)> {
    let (first, rest) = text.split_once('\n')?;
    let line = first.trim_end_matches('\r').trim_matches('"');
    let mark = line.get(4..).filter(|_| line.get(..4).is_some_and(|key| key.eq_ignore_ascii_case("sep=")))?;
    let mut marks = mark.chars();
    marks.next().filter(|mark| mark.is_ascii() && marks.next().is_none()).map(|mark| (mark, rest))
}

/// The records of a text, parted by the delimiter given, unless the first line says `sep=`. Where
/// backslashes or single quotes part the cells evenly, they are obeyed.
pub(crate) fn records(text: &str, path: &Path, delimiter: char) -> Result<Records, DataError> {
    let (delimiter, text, before) = match separator_line(text) {
        Some((mark, rest)) => (mark, rest, 1),
        None => (delimiter, text, 0),
    };
    let cut = |quoting| cut(text, path, delimiter, quoting, before);
    let rows = cut(Quoting::Doubled)?;
    let even = |rows: &[TableRow]| {
        let first = rows.first().map_or(0, |row| row.cells.len());
        first > 1 && rows.iter().all(|row| row.cells.len() == first)
    };
    let in_single = |cell: &String| cell.len() > 1 && cell.starts_with('\'') && cell.ends_with('\'');
    let all_single = rows.first().is_some_and(|row| row.cells.iter().all(in_single));
    let other = if text.contains("\\\"") {
        Quoting::Escaped
    } else if all_single || (text.contains('\'') && !even(&rows)) {
        Quoting::Single
    } else {
        Quoting::Doubled
    };
    if other != Quoting::Doubled
        && let Ok(own) = cut(other)
        // Fewer records would mean that a quote was taken to go on over the end of a line.
        && even(&own)
        && (own.len() == rows.len() || !even(&rows))
    {
        return Ok(Records { rows: own, delimiter, quoting: other });
    }
    Ok(Records { rows, delimiter, quoting: Quoting::Doubled })
}

/// As [`records`], below `before` lines that are no part of the table.
fn cut(
    text: &str,
    path: &Path,
    delimiter: char,
    quoting: Quoting,
    before: u64,
) -> Result<Vec<TableRow>, DataError> {
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(delimiter as u8)
        .quote(if quoting == Quoting::Single { b'\'' } else { b'"' })
        .escape((quoting == Quoting::Escaped).then_some(b'\\'))
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
            let blank =
                text.as_bytes()[start.byte() as usize..].iter().take_while(|b| matches!(b, b'\r' | b'\n'));
            before + start.line() + blank.filter(|&&b| b == b'\n').count() as u64
        });
        // A line of white space only is one empty cell to the parser.
        if record.iter().any(|cell| !cell.is_empty()) || record.len() > 1 {
            rows.push(TableRow { line, cells: record.iter().map(composed).collect() });
        }
    }
    Ok(rows)
}

/// A cell in Unicode's normal form C.
pub(crate) fn composed(cell: &str) -> String {
    if cell.is_ascii() { cell.to_owned() } else { normal(cell) }
}

/// A table of records, the first of which may be its header.
pub(crate) fn cells(mut rows: Vec<TableRow>, path: &Path, format: &CsvFormat) -> Result<Cells, DataError> {
    let empty = || DataError::Empty { what: path.display().to_string(), unit: "data row" };
    let first = rows.first().ok_or_else(empty)?;
    let mut notes = Vec::new();
    let mut header = match format.header {
        true => rows.remove(0).cells,
        false => (1..=first.cells.len()).map(|i| format!("c{i}")).collect(),
    };
    if format.header {
        fit_header(&mut header, &rows);
    }
    // Spreadsheets write rows of nothing but delimiters below their data.
    let all = rows.len();
    rows.retain(|row| row.cells.iter().any(|cell| !cell.is_empty()));
    if rows.len() < all {
        notes.push(format!("{}: {} row(s) of empty cells are left out.", path.display(), all - rows.len()));
    }
    if rows.is_empty() {
        return Err(empty());
    }
    if let Some(ragged) = rows.iter().find(|row| row.cells.len() != header.len()) {
        return Err(ragged_row(path, ragged.line, header.len(), ragged.cells.len()));
    }
    while header.last().is_some_and(String::is_empty)
        && rows.iter().all(|row| row.cells.last().is_some_and(String::is_empty))
    {
        header.pop();
        rows.iter_mut().for_each(|row| drop(row.cells.pop()));
        notes.push("The last column has neither a name nor values: it is left out.".to_owned());
    }
    Cells::new(path, format, header, rows, notes)
}

/// Rows may all have one cell more than the header: R writes no name over the names of rows, and
/// others end each line with a delimiter but not the header, or the reverse.
fn fit_header(header: &mut Vec<String>, rows: &[TableRow]) {
    let all = |length: usize| rows.iter().all(|row| row.cells.len() == length);
    if rows.is_empty() {
        return;
    }
    if all(header.len() + 1) {
        let closed = rows.iter().all(|row| row.cells.last().is_some_and(String::is_empty));
        if closed {
            header.push(String::new());
        } else if name_rows(rows) {
            header.insert(0, String::new());
        }
    } else if header.last().is_some_and(String::is_empty) && all(header.len() - 1) {
        header.pop();
    }
}

/// Whether the first cells can be names of rows: no two alike, and all whole numbers or all texts.
/// Else a quote or a delimiter is amiss.
fn name_rows(rows: &[TableRow]) -> bool {
    let first = || rows.iter().filter_map(|row| row.cells.first());
    let whole = first().all(|cell| cell.parse::<u64>().is_ok());
    let texts = first().all(|cell| cell.parse::<f64>().is_err());
    (whole || texts) && first().collect::<BTreeSet<_>>().len() == rows.len()
}

/// A row with more or fewer cells than are expected.
pub(crate) fn ragged_row(path: &Path, line: u64, expected: usize, found: usize) -> DataError {
    let problem = format!("line {line} has {found} cells, expected {expected}");
    // A title or a remark has fewer cells than the rows below it.
    let above =
        if found > expected { ", and that nothing stands above the names of the columns" } else { "" };
    DataError::unusable(path, format!("{problem}; check the delimiter and quotes{above}"))
}

impl Cells {
    /// A table whose rows all have as many cells as the header.
    pub(crate) fn new(
        path: &Path,
        format: &CsvFormat,
        mut header: Vec<String>,
        rows: Vec<TableRow>,
        notes: Vec<String>,
    ) -> Result<Cells, DataError> {
        let mut places: HashMap<String, usize> = HashMap::with_capacity(header.len());
        for (at, name) in header.iter().enumerate().filter(|(_, name)| !name.is_empty()) {
            if let Some(first) = places.insert(name.clone(), at) {
                let places = format!("columns {} and {}", first + 1, at + 1);
                return Err(DataError::unusable(
                    path,
                    format!(
                        "two columns are called `{name}` ({places}): give one another name in the first line"
                    ),
                ));
            }
        }
        let unnamed: BTreeSet<usize> = (0..header.len()).filter(|&at| header[at].is_empty()).collect();
        for &at in &unnamed {
            let mut name = format!("c{}", at + 1);
            while places.contains_key(&name) {
                name.push('_');
            }
            places.insert(name.clone(), at);
            header[at] = name;
        }
        let (path, format) = (path.to_owned(), format.clone());
        Ok(Cells { path, format, header, unnamed, places, rows, notes })
    }

    /// Position of a column. The empty name is that of the first column without one.
    pub(crate) fn column(&self, name: &str) -> Result<usize, DataError> {
        if name.is_empty()
            && let Some(&at) = self.unnamed.first()
        {
            return Ok(at);
        }
        self.places.get(name).copied().ok_or_else(|| DataError::UnknownColumn {
            path: self.path.clone(),
            column: name.to_owned(),
            columns: self.header.clone(),
        })
    }

    /// Positions of columns; an empty name is that of all columns without one, if there are any.
    pub(crate) fn positions(&self, names: &[String]) -> Result<BTreeSet<usize>, DataError> {
        let mut all = BTreeSet::new();
        for name in names {
            match name.as_str() {
                "" => all.extend(&self.unnamed),
                name => drop(all.insert(self.column(name)?)),
            }
        }
        Ok(all)
    }

    pub(crate) fn is_missing(&self, cell: &str) -> bool {
        self.format.is_missing(cell)
    }

    /// The cells of a column.
    pub(crate) fn texts(&self, at: usize) -> impl Iterator<Item = &str> {
        self.rows.iter().map(move |row| row.cells[at].as_str())
    }

    /// Why a column is an index that a program wrote beside the data, if it is one: it has no name
    /// (or the one that pandas gives it then), and its cells only number or name the rows.
    pub(crate) fn index(&self, at: usize) -> Option<&'static str> {
        let nameless = self.unnamed.contains(&at) || self.header[at].starts_with("Unnamed: ");
        let different: BTreeSet<&str> = self.texts(at).collect();
        if !nameless || different.len() < self.rows.len() || self.rows.len() < 2 {
            return None;
        }
        let whole = |cell: &str| cell.parse::<u64>().is_ok();
        match (self.texts(at).all(whole), self.texts(at).all(|cell| cell.parse::<f64>().is_err())) {
            (true, _) => Some("it has no name and another whole number in every row: the number of the row"),
            (_, true) => Some("it has no name and another text in every row: the name of the row"),
            _ => None,
        }
    }

    /// Why a column with a name says nothing but which row it is, if it does: its numbers go up by
    /// one from row to row, or are different in every row and called so.
    pub(crate) fn numbers_rows(&self, at: usize) -> Option<&'static str> {
        const NAMES: [&str; 4] = ["id", "index", "level_0", "rownames"];
        let numbers: Vec<f64> = self.texts(at).map(|cell| cell.parse().ok()).collect::<Option<_>>()?;
        if numbers.len() <= 20 {
            return None;
        }
        if numbers.windows(2).all(|pair| pair[1] == pair[0] + 1.0) {
            return Some("it counts the rows");
        }
        let different: BTreeSet<&str> = self.texts(at).collect();
        let (least, greatest) =
            numbers.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, g), n| (l.min(*n), g.max(*n)));
        let whole = numbers.iter().all(|number| number.fract() == 0.0);
        if whole && different.len() == numbers.len() && greatest - least == (numbers.len() - 1) as f64 {
            return Some("it numbers the rows, in another order");
        }
        let own = &self.header[at];
        let name = own.to_lowercase();
        let named = NAMES.contains(&name.as_str())
            || ["_id", " id", "-id", ".id"].iter().any(|end| name.ends_with(end))
            || ["Id", "ID"]
                .iter()
                .any(|end| own.strip_suffix(end).is_some_and(|rest| rest.ends_with(char::is_lowercase)));
        (named && different.len() == numbers.len())
            .then_some("it has another number in every row and is called as identifiers are")
    }

    /// Takes out the rows without a target; says how many there were, and where the first.
    pub(crate) fn drop_without(&mut self, target: usize) {
        let gone: Vec<(u64, String)> = self
            .rows
            .iter()
            .filter(|row| self.format.is_missing(&row.cells[target]))
            .map(|row| (row.line, row.cells[target].clone()))
            .collect();
        let Some((line, cell)) = gone.first() else { return };
        let what = if cell.is_empty() { "empty".to_owned() } else { format!("`{cell}`") };
        self.notes.push(format!(
            "{}: {} of {} rows are left out because their target `{}` is missing, the first in line {line} ({what}).",
            self.path.display(),
            gone.len(),
            self.rows.len(),
            self.header[target]
        ));
        let format = &self.format;
        self.rows.retain(|row| !format.is_missing(&row.cells[target]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(content: &str, format: CsvFormat) -> Result<Cells, DataError> {
        parse(content, Path::new("t.csv"), &format)
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
        let format = CsvFormat { delimiter: ';', header: false, ..CsvFormat::default() };
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
        assert!(error("a,b,a\n1,2,3\n").contains("two columns are called `a` (columns 1 and 3)"));
        assert_eq!(error("a,b\n"), "t.csv: no samples; expected at least one data row");
        assert_eq!(error(""), "t.csv: no samples; expected at least one data row");
        let cells = text("age,income\n1,2\n", CsvFormat::default()).unwrap();
        let unknown = cells.column("incom").unwrap_err().to_string();
        assert_eq!(
            unknown,
            "t.csv: no column `incom` (did you mean `income`?); the columns are `age`, `income`"
        );
    }

    fn read(content: &str) -> Cells {
        text(content, CsvFormat::default()).unwrap()
    }

    #[test]
    fn quotes_of_databases_and_of_weka() {
        let cells = read("x,note,kind\n1,\"say \\\"hi\\\", you\",a\n2,\"C:\\dir\",b\n");
        assert_eq!(cells.rows[0].cells, ["1", "say \"hi\", you", "a"]);
        assert!(cells.notes[0].contains("backslash"), "{:?}", cells.notes);
        // A cell that ends in a backslash is none of these.
        let path = read("x,kind\n\"C:\\dir\\\",a\n\"D:\\\",b\n");
        assert_eq!((path.rows[0].cells[0].as_str(), path.notes.len()), ("C:\\dir\\", 0));
        for single in ["'x','a kind'\n'1','a, b'\n'2','it''s'\n", "x,a kind\n1,'a, b'\n2,'it''s'\n"] {
            let cells = read(single);
            assert_eq!(
                (cells.header.join("|"), cells.rows[0].cells[1].as_str()),
                ("x|a kind".into(), "a, b")
            );
            assert_eq!(cells.rows[1].cells[1], "it's");
        }
        assert_eq!(read("x,kind\n'1,a\n2,it's\n").rows[0].cells, ["'1", "a"]);
        // One cell more in each row is no index where it cannot name the rows.
        let shifted = text("x,kind\n1.5,a,b\n1.5,c,b\n", CsvFormat::default()).unwrap_err().to_string();
        assert!(shifted.contains("line 2 has 3 cells, expected 2"), "{shifted}");
    }

    #[test]
    fn zeros_are_no_text() {
        let error = text("x,kind\n1,a\n\0\0\n", CsvFormat::default()).unwrap_err().to_string();
        assert!(error.contains("line 3 has a character of code 0"), "{error}");
    }

    #[test]
    fn lines_are_those_of_the_file() {
        let lines = |content: &str| read(content).rows.iter().map(|row| row.line).collect::<Vec<_>>();
        assert_eq!(lines("a,b\n1,\"x\ny\"\n2,z\n"), [2, 4]);
        assert_eq!(lines("a,b\r\n\r\n1,x\r\n2,z\r\n"), [3, 4]);
        assert_eq!(lines("sep=,\na,b\n1,x\n"), [3]);
        assert_eq!(lines("SEP=,\na,b\n1,x\n"), [3]);
    }

    #[test]
    fn a_separator_line_is_obeyed() {
        let cells = text("sep=;\r\na;b\r\n1,5;x\r\n", CsvFormat::default()).unwrap();
        assert_eq!((cells.header, cells.format.delimiter), (vec!["a".to_owned(), "b".to_owned()], ';'));
        assert_eq!(cells.rows[0].cells, ["1,5", "x"]);
    }

    #[test]
    fn headers_one_cell_short_or_long_are_fitted() {
        let r = read("x,kind\n1,0.5,a\n2,0.7,b\n");
        assert_eq!((r.header.join(" "), r.unnamed.first()), ("c1 x kind".to_owned(), Some(&0)));
        assert_eq!(r.column("").unwrap(), 0);
        assert!(r.index(0).unwrap().contains("whole number"));
        for closed in [
            "x,kind\n1,a,\n2,b,\n",
            "x,kind,\n1,a,\n2,b,\n",
            "x,kind,\n1,a\n2,b\n",
            "x,kind,,\n1,a,,\n,,,\n2,b,,\n",
        ] {
            let cells = read(closed);
            assert_eq!((cells.header.join(" "), cells.rows.len()), ("x kind".to_owned(), 2), "{closed}");
        }
    }

    #[test]
    fn an_index_has_no_name_and_no_cell_twice() {
        let index = |content: &str| read(content).index(0).is_some();
        assert!(index(",x\n5,1\n2,1\n9,1\n"), "rows of a shuffled table");
        assert!(index("Unnamed: 0,x\n0,1\n1,1\n"));
        assert!(index(",x\nMazda,1\nFiat,1\n"));
        assert!(!index(",x\n7,1\n7,1\n"));
        assert!(!index(",x\n0.5,1\n0.7,1\n"));
        assert!(!index("year,x\n2001,1\n2002,1\n"));
    }
}
