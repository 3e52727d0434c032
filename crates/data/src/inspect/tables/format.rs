//! How a table is written: what parts its cells, whether its first line holds names, its mark of
//! decimals.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::error::DataError;
use crate::spec::{CsvFormat, DecimalMark};
use crate::table::looks::{Looks, Marks};
use crate::table::read::{self, Cells, TableRow};

/// Delimiters that stand in cells less often than commas and spaces do.
const STRONG: [char; 3] = ['\t', ';', '|'];

/// The delimiter that cuts the first lines into most cells, all into as many; and whether the first
/// line holds names.
pub(super) fn format(text: &str, path: &Path) -> Result<CsvFormat, DataError> {
    let told = read::separator_line(text).map(|(mark, _)| mark);
    let sample: String = text.split_inclusive('\n').filter(|line| !line.trim().is_empty()).take(50).collect();
    let even = |delimiter| {
        let records = |text| read::records(text, path, delimiter).ok().map(|r| r.rows).filter(|r| is_even(r));
        // A quoted cell may go on past the sample; then only the whole file can tell.
        records(&sample).or_else(|| records(text)).map(|rows| (rows, delimiter))
    };
    let candidates: Vec<(Vec<TableRow>, char)> = match told {
        Some(mark) => even(mark).into_iter().collect(),
        None => [',', ';', '\t', '|', ' '].into_iter().filter_map(even).collect(),
    };
    let cells = |rows: &[TableRow]| rows.iter().map(|row| row.cells.len()).max().unwrap_or(0);
    let most =
        candidates.iter().rev().max_by_key(|(rows, _)| cells(rows)).filter(|(rows, _)| cells(rows) > 1);
    // Decimal commas cut a line of numbers into more cells than its semicolons.
    let strong = candidates.iter().find(|(rows, mark)| {
        STRONG.contains(mark)
            && cells(rows) > 1
            && most.is_some_and(|(_, m)| *m == ',')
            && commas_are_decimals(rows)
    });
    if let Some((rows, delimiter)) = strong.or(most) {
        return Ok(CsvFormat { delimiter: *delimiter, header: has_header(rows), ..CsvFormat::default() });
    }
    // Say what is wrong with it as the most common kind of table.
    read::parse(text, path, &CsvFormat { header: false, ..CsvFormat::default() })?;
    let cut = match told {
        Some(mark) => format!("`{mark}`, which its first line names"),
        None => "commas, semicolons, tabs, `|` or spaces".to_owned(),
    };
    let reason = format!(
        "a table of one column, as its lines are not cut evenly by {cut}; a target and something to predict it from \
         are needed"
    );
    Err(DataError::unusable(path, reason))
}

/// What a file is that is named as a table and is none.
pub(super) fn no_table(bytes: &[u8]) -> Option<&'static str> {
    let text = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes).trim_ascii_start();
    // The first two characters that are no white space.
    let signs: Vec<u8> = text.iter().copied().filter(|b| !b.is_ascii_whitespace()).take(2).collect();
    let begins = |start: &[u8]| text.get(..start.len()).is_some_and(|own| own.eq_ignore_ascii_case(start));
    if begins(b"PK\x03\x04") {
        Some("a ZIP archive or an Excel workbook (XLSX): unpack it, or save the sheet as CSV")
    } else if begins(b"\xD0\xCF\x11\xE0") {
        Some("an old Excel workbook (XLS): save the sheet as CSV")
    } else if begins(b"PAR1") || begins(b"ARROW1") {
        Some("a Parquet or Arrow file: save the table as CSV")
    } else if begins(b"\x1F\x8B") || begins(b"BZh") || begins(b"\xFD7zXZ") || begins(b"\x28\xB5\x2F\xFD") {
        Some("a compressed file: unpack it first")
    } else if begins(b"%PDF") {
        Some("a PDF: save the table as CSV")
    } else if signs.starts_with(b"{\"") || matches!(signs[..], [b'[', b'{' | b'[']) {
        Some("JSON: save the table as CSV")
    } else if begins(b"<!doctype") || begins(b"<html") || begins(b"<?xml") || begins(b"<table") {
        Some("HTML or XML, perhaps the page of a download that failed: save the table as CSV")
    } else if begins(b"@relation") {
        Some("Weka's ARFF: save the table as CSV")
    } else if begins(b"version https://git-lfs") {
        Some("a pointer of Git LFS: fetch the file with `git lfs pull`")
    } else if begins(b"\xFF\xFE\0\0") || begins(b"\0\0\xFE\xFF") {
        Some("text in UTF-32: save it as UTF-8")
    } else {
        None
    }
}

/// Whether all records have as many cells, but for a first one that has one more or less where a
/// program writes no name over the names of rows or ends lines with a delimiter.
fn is_even(rows: &[TableRow]) -> bool {
    let Some((first, rest)) = rows.split_first() else { return false };
    let first = &first.cells;
    let Some(second) = rest.first() else { return true };
    let length = second.cells.len();
    let fitted = first.len() > 1
        && (first.len() + 1 == length
            || (first.len() == length + 1 && first.last().is_some_and(String::is_empty)));
    rest.iter().all(|row| row.cells.len() == length) && (first.len() == length || fitted)
}

/// Whether every comma in the cells stands between digits, and there is one.
fn commas_are_decimals(rows: &[TableRow]) -> bool {
    let digit = |c: Option<char>| c.is_some_and(|c| c.is_ascii_digit());
    let between_digits = |cell: &str| {
        let mut commas = cell.match_indices(',');
        commas.all(|(at, _)| digit(cell[..at].chars().next_back()) && digit(cell[at + 1..].chars().next()))
    };
    let with_comma: Vec<&String> =
        rows.iter().flat_map(|row| &row.cells).filter(|cell| cell.contains(',')).collect();
    !with_comma.is_empty() && with_comma.iter().all(|cell| between_digits(cell))
}

/// Whether the first record holds names, by what stands below them: a text over numbers is one;
/// a value that comes again in its column, and a number with decimals, are none. Where nothing is
/// certain, different texts in every cell are taken as names, and so are numbers that count the
/// columns.
fn has_header(rows: &[TableRow]) -> bool {
    let Some((first, rest)) = rows.split_first() else { return false };
    let (first, format) = (&first.cells, CsvFormat::default());
    // R's header has no cell for the names of rows.
    let shift = usize::from(rest.first().is_some_and(|row| {
        row.cells.len() == first.len() + 1 && !row.cells.last().is_some_and(String::is_empty)
    }));
    let (mut names, mut likely, mut data) = (0, 0, 0);
    for (at, cell) in first.iter().enumerate() {
        let below = || rest.iter().filter_map(|row| row.cells.get(at + shift)).map(String::as_str);
        let number = cell.parse::<f64>().ok().filter(|number| number.is_finite());
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        below()
            .filter(|text| !format.is_missing(text))
            .for_each(|text| *counts.entry(text).or_default() += 1);
        let repeats = counts.len() * 2 <= rest.len() && !counts.is_empty();
        match Looks::of(below(), &format) {
            Looks::Numeric(numbers) if number.is_none() && !cell.is_empty() => {
                let is_data = format.is_missing(cell)
                    || numbers.notation.read(cell).is_some()
                    || numbers.gap.as_ref() == Some(cell);
                names += usize::from(!is_data);
            }
            Looks::Numeric(_) if number.is_some_and(|n| n.fract() != 0.0) => data += 1,
            Looks::Numeric(_) => {
                // A whole number over numbers with decimals: a year, or the number of the column.
                let with_decimals =
                    below().filter(|c| c.parse().is_ok_and(|n: f64| n.fract() != 0.0)).count();
                likely += usize::from(number.is_some() && with_decimals * 10 >= rest.len() * 9);
            }
            _ if counts.contains_key(cell.as_str()) => data += 1,
            _ if repeats && !cell.is_empty() => likely += 1,
            _ => {}
        }
    }
    let numbers: Option<Vec<f64>> = first.iter().map(|cell| cell.parse().ok()).collect();
    let only_numbers = numbers.is_some();
    let counting =
        numbers.is_some_and(|n| n.len() > 1 && n[0] <= 1.0 && n.windows(2).all(|p| p[1] == p[0] + 1.0));
    let texts = first.iter().all(|cell| !format.is_missing(cell) && cell.parse::<f64>().is_err());
    let different = first.iter().collect::<BTreeSet<_>>().len() == first.len();
    match (names, data) {
        (0, 0) if likely > 0 => counting || likely == first.len() || !only_numbers,
        (0, 0) => texts && different,
        (names, data) => names > data,
    }
}

/// The mark of decimals, where columns leave it open: the one that other columns decide; else, in a
/// file whose cells are parted by semicolons, a comma, because that is why spreadsheets part them
/// so.
pub(super) fn decimal(cells: &Cells) -> Option<DecimalMark> {
    let marks: Vec<Marks> =
        (0..cells.header.len()).map(|at| Looks::marks(cells.texts(at), &cells.format)).collect();
    let some = |mark: Marks| marks.contains(&mark);
    let (comma, point) = (some(Marks::Decided(DecimalMark::Comma)), some(Marks::Decided(DecimalMark::Point)));
    match (comma, point) {
        (true, true) => None,
        (true, false) => Some(DecimalMark::Comma),
        // Where spreadsheets part cells by semicolons, a point can part thousands: `1.234`.
        _ if !some(Marks::Open(DecimalMark::Comma)) => {
            let open = !point && some(Marks::Open(DecimalMark::Point));
            (open && cells.format.delimiter == ';').then_some(DecimalMark::Point)
        }
        _ if cells.format.delimiter == ';' && !point && !some(Marks::Open(DecimalMark::Point)) => {
            Some(DecimalMark::Comma)
        }
        _ => Some(DecimalMark::Point),
    }
}
