//! Tables.

mod format;
mod target;

use std::collections::BTreeSet;
use std::path::Path;

use super::{ColumnKind, ColumnReport, Found, Inspection};
use crate::encoding;
use crate::error::DataError;
use crate::files;
use crate::spec::{CsvFormat, CsvSpec, DataSpec, DecimalMark, MissingNumbers, MissingTarget};
use crate::table::classes::{self, value_of};
use crate::table::column::MAX_CATEGORIES;
use crate::table::encoder::kept_by;
use crate::table::looks::{Looks, Numbers};
use crate::table::read::{self, Cells};

/// Looks at a table; `target` is the column to predict, if the person names one. What loading it
/// notes ([`Dataset::notes`](crate::Dataset)) is not noted twice.
///
/// # Errors
/// As those of [`inspect`](super::inspect); there is no column `target`.
pub fn inspect_table(path: &Path, target: Option<&str>) -> Result<Inspection, DataError> {
    let mut notes = Vec::new();
    let (mut cells, format) = open(path, &mut notes)?;
    let target = match target {
        Some(name) => cells.column(name)?,
        None => target::target(&cells, &mut notes)?,
    };
    let mut spec = CsvSpec { format, ..CsvSpec::new(path.to_owned(), cells.header[target].clone()) };
    let gaps: Vec<String> =
        cells.texts(target).filter(|cell| cells.is_missing(cell)).map(str::to_owned).collect();
    if !gaps.is_empty() {
        spec.missing_target = MissingTarget::Drop;
        if let Some(marker) = gaps.iter().find(|gap| !gap.is_empty()) {
            notes.push(format!(
                "`{marker}` in the target `{}` is taken as a missing value; if it is a class, leave it out of \
                 `missing_markers`.",
                spec.target
            ));
        }
        cells.drop_without(target);
    }
    let classes = classes::classes(&cells, target)?;
    let labels = classes::labels(&cells, target, &classes)?;
    let count = |class: usize| labels.iter().filter(|label| **label as usize == class).count();
    let counted: Vec<(String, usize)> = (0..classes.len()).map(|i| (classes[i].clone(), count(i))).collect();

    let mut columns = Vec::new();
    for at in 0..cells.header.len() {
        let (kind, left_out) = if at == target { (ColumnKind::Target, None) } else { kind(&cells, at) };
        if let Some(why) = left_out {
            spec.ignore.push(cells.header[at].clone());
            notes.push(format!("Column `{}` is left out: {why}.", cells.header[at]));
        }
        let gap = gap(&cells, at);
        let missing = cells.texts(at).filter(|cell| cells.is_missing(cell) || gap.as_deref() == Some(cell));
        columns.push(ColumnReport { name: cells.header[at].clone(), missing: missing.count(), kind });
    }
    let gaps = |c: &&ColumnReport| c.missing > 0 && matches!(c.kind, ColumnKind::Numeric { .. });
    let with_gaps: Vec<String> =
        columns.iter().filter(gaps).map(|c| format!("{} ({})", c.name, c.missing)).collect();
    if !with_gaps.is_empty() {
        spec.missing = MissingNumbers::Mean;
        notes.push(format!("Missing numbers become the mean of their column: {}.", with_gaps.join(", ")));
    }
    for (at, column) in columns.iter().enumerate() {
        if matches!(column.kind, ColumnKind::Numeric { .. }) {
            notes.extend(sentinel(&cells, at));
        }
    }
    notes.push("A fifth of the rows is held out for testing, the same share of every class.".to_owned());
    let target = cells.header[target].clone();
    let found = Found::Csv { rows: cells.rows.len(), columns, target, classes: counted };
    Ok(Inspection { path: path.to_owned(), found, spec: DataSpec::Csv(spec), notes })
}

/// How many columns a text has if it looks like a table: every line has as many cells.
pub(super) fn columns_of(text: &str, path: &Path) -> Option<usize> {
    let format = format::format(text, path).ok().filter(|format| format.delimiter != ' ')?;
    let cells = read::parse(text, path, &format).ok()?;
    (cells.rows.len() >= 10).then_some(cells.header.len())
}

/// The cells, and how they are written.
fn open(path: &Path, notes: &mut Vec<String>) -> Result<(Cells, CsvFormat), DataError> {
    let bytes = files::read(path)?;
    let encoding = encoding::needed(&bytes);
    let text = encoding::text(bytes, path, encoding)?;
    let mut format = CsvFormat { encoding: encoding.map(str::to_owned), ..format::format(&text, path)? };
    if let Some(name) = encoding {
        notes.push(format!(
            "The file is not UTF-8; it is read as {name}. If letters with accents come out wrong, set another `encoding`."
        ));
    }
    let mut cells = read::parse(&text, path, &format)?;
    format.delimiter = cells.format.delimiter;
    if !format.header {
        notes.push(
            "The first line looks like data, not like names: the columns are called c1, c2 and so on."
                .to_owned(),
        );
    }
    format.decimal = format::decimal(&cells);
    if let Some(decimal) = format.decimal {
        let (mark, other, example) = match decimal {
            DecimalMark::Comma => (',', '.', "1,234 is read as 1.234"),
            DecimalMark::Point => ('.', ',', "1,234 is read as 1234"),
        };
        notes.push(format!(
            "Decimals are taken to stand behind `{mark}`: {example}; if not so, set `decimal = \"{other}\"`."
        ));
    }
    if is_code(&cells) {
        format.missing_markers.retain(|marker| marker != "NA");
        notes.push(
            "`NA` is taken as a value, like the other codes of two capital letters in its column (Namibia is one): \
             add it to `missing_markers` if it means a missing value."
                .to_owned(),
        );
    }
    cells.format = format.clone();
    Ok((cells, format))
}

/// Whether `NA` stands in a column in which all other texts have two capital letters too, and comes
/// there as often as they do: at least half as often as the mean of them.
fn is_code(cells: &Cells) -> bool {
    (0..cells.header.len()).any(|at| {
        let own = cells.texts(at).filter(|cell| *cell == "NA").count();
        let others: Vec<&str> = cells.texts(at).filter(|cell| *cell != "NA" && !cell.is_empty()).collect();
        let different = others.iter().collect::<BTreeSet<_>>().len();
        let code = |cell: &&str| cell.len() == 2 && cell.bytes().all(|b| b.is_ascii_uppercase());
        own > 0 && different > 1 && others.iter().all(code) && own * different * 2 >= others.len()
    })
}

fn looks(cells: &Cells, at: usize) -> Looks {
    Looks::of(cells.texts(at), &cells.format)
}

fn gap(cells: &Cells, at: usize) -> Option<String> {
    match looks(cells, at) {
        Looks::Numeric(numbers) => numbers.gap,
        _ => None,
    }
}

/// What a column holds; and, if it is left out, why and what keeps it.
fn kind(cells: &Cells, at: usize) -> (ColumnKind, Option<String>) {
    let present: Vec<&str> = cells.texts(at).filter(|cell| !cells.is_missing(cell)).collect();
    let different = present.iter().map(|cell| value_of(cell, &cells.format)).collect::<BTreeSet<_>>().len();
    let keep = "to use it, take it out of `ignore`";
    if present.is_empty() {
        return (ColumnKind::Constant, Some("it is empty".into()));
    }
    if different == 1 && present.len() == cells.rows.len() {
        return (ColumnKind::Constant, Some(format!("every row has `{}`", present[0])));
    }
    if let Some(why) = cells.index(at) {
        let why = format!("{why}; {keep} and write `{}`", kept_by(cells, at));
        return (ColumnKind::Identifier, Some(why));
    }
    match looks(cells, at) {
        Looks::Open(open) => (ColumnKind::Open, Some(open.reason())),
        Looks::Numeric(numbers) => match cells.numbers_rows(at) {
            Some(why) => (ColumnKind::Identifier, Some(format!("{why}; {keep}"))),
            None => (range(&present, &numbers), None),
        },
        Looks::Categorical if different > MAX_CATEGORIES => {
            let why = format!("it has {different} different texts, and at most {MAX_CATEGORIES} are encoded");
            (ColumnKind::Identifier, Some(why))
        }
        Looks::Categorical if different * 2 > present.len() && different > 20 => {
            let rows = present.len();
            let why =
                format!("it has {different} different texts in {rows} rows, too many to learn from; {keep}");
            (ColumnKind::Identifier, Some(why))
        }
        Looks::Categorical => {
            let gaps = usize::from(present.len() < cells.rows.len());
            (ColumnKind::Categorical { values: different + gaps }, None)
        }
    }
}

/// A remark on a number that may stand for a missing value: -99, -999 and so on, several times,
/// where no other number is near.
fn sentinel(cells: &Cells, at: usize) -> Option<String> {
    let numbers: Vec<f64> = cells.texts(at).filter_map(|cell| cell.parse().ok()).collect();
    let least = numbers.iter().copied().fold(0.0, f64::min);
    let count = numbers.iter().filter(|number| **number == least).count();
    let next = numbers.iter().copied().filter(|number| *number != least).fold(f64::INFINITY, f64::min);
    let suspect = [-99.0, -999.0, -9999.0, -99999.0].contains(&least) && count > 1 && next > least / 2.0;
    suspect.then(|| {
        format!(
            "Column `{}` has {least} in {count} rows, far from its other numbers: if it means a missing value, add \
             \"{least}\" to `missing_markers` and write `missing = \"mean\"`.",
            cells.header[at]
        )
    })
}

fn range(present: &[&str], numbers: &Numbers) -> ColumnKind {
    let values = present.iter().filter_map(|cell| numbers.notation.read(cell));
    let (min, max) =
        values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
    ColumnKind::Numeric { min, max }
}
