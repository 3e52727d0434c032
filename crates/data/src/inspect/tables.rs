//! Tables.

mod column;
mod format;
mod target;

use std::collections::BTreeSet;
use std::path::Path;

use column::Role;

use super::{ColumnKind, ColumnReport, Found, Inspection};
use crate::encoding;
use crate::error::DataError;
use crate::files;
use crate::spec::{CsvFormat, CsvSpec, DataSpec, DecimalMark, MissingNumbers, MissingTarget};
use crate::table::classes;
use crate::table::looks::Looks;
use crate::table::read::{self, Cells};

/// Looks at a table; `target` is the column to predict, if the person names one. What loading it
/// notes ([`Dataset::notes`](crate::Dataset)) is not noted twice.
///
/// # Errors
/// As those of [`inspect`](super::inspect); there is no column `target`.
pub fn inspect_table(path: &Path, target: Option<&str>) -> Result<Inspection, DataError> {
    let mut notes = Vec::new();
    let (mut cells, mut format) = open(path, &mut notes)?;
    let target = match target {
        Some(name) => cells.column(name)?,
        None => target::target(&cells, &mut notes)?,
    };
    if let Some(word) = class_among_markers(&cells, target) {
        format.missing_markers.retain(|marker| *marker != word);
        cells.format = format.clone();
        notes.push(format!(
            "`{word}` is taken as a class, because it is as frequent as one: add it to `missing_markers` if it means a \
             missing value."
        ));
    }
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

    let (mut columns, mut left_out) = (Vec::new(), Vec::new());
    for at in 0..cells.header.len() {
        let name = &cells.header[at];
        let (kind, role) =
            if at == target { (ColumnKind::Target, Role::Used) } else { column::judge(&cells, at) };
        match role {
            Role::Used => {}
            Role::LeftOut(why) => {
                spec.ignore.push(name.clone());
                left_out.push(format!("Column `{name}` is left out: {why}."));
            }
            Role::Categories(why) => {
                spec.categorical.push(name.clone());
                notes.push(format!("Column `{name}` is taken as categories: {why}."));
            }
        }
        let gap = gap(&cells, at);
        let missing = cells.texts(at).filter(|cell| cells.is_missing(cell) || gap.as_deref() == Some(cell));
        columns.push(ColumnReport { name: name.clone(), missing: missing.count(), kind });
    }
    if left_out.len() + 1 == columns.len() {
        let reasons = left_out.join(" ");
        let reason = format!("no column is left to predict `{}` from. {reasons}", spec.target);
        return Err(DataError::unusable(path, reason));
    }
    notes.extend(left_out);
    let gaps = |c: &&ColumnReport| c.missing > 0 && matches!(c.kind, ColumnKind::Numeric { .. });
    let with_gaps: Vec<String> =
        columns.iter().filter(gaps).map(|c| format!("{} ({})", c.name, c.missing)).collect();
    if !with_gaps.is_empty() {
        spec.missing = MissingNumbers::Mean;
        notes.push(format!("Missing numbers become the mean of their column: {}.", with_gaps.join(", ")));
    }
    for (at, report) in columns.iter().enumerate() {
        if matches!(report.kind, ColumnKind::Numeric { .. }) {
            notes.extend(column::sentinel(&cells, at));
        }
        if matches!(report.kind, ColumnKind::Numeric { .. } | ColumnKind::Categorical { .. }) {
            notes.extend(column::gives_away(&cells, at, &labels, classes.len()));
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
    if let Some(what) = format::no_table(&bytes) {
        return Err(DataError::unusable(path, format!("it is {what}")));
    }
    let encoding = encoding::needed(&bytes);
    let text = encoding::text(bytes, path, encoding)?;
    let mut format = CsvFormat { encoding: encoding.map(str::to_owned), ..format::format(&text, path)? };
    if let Some(name) = encoding {
        notes.push(format!(
            "The file is not UTF-8; it is read as {name}. If letters come out wrong, set another `encoding`."
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
    if has_signs(&cells) {
        format.missing_markers.retain(|marker| marker != "-");
        notes.push(
            "`-` is taken as a value, as it stands in a column of `+` and `-`: add it to `missing_markers` if it means a \
             missing value."
                .to_owned(),
        );
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

/// Whether a column has the signs of a test's outcome, `+` and `-`.
fn has_signs(cells: &Cells) -> bool {
    const SIGNS: [&str; 5] = ["+", "-", "0", "+/-", "±"];
    (0..cells.header.len()).any(|at| {
        let of = |sign: &str| cells.texts(at).any(|cell| cell == sign);
        cells.texts(at).all(|cell| cell.is_empty() || SIGNS.contains(&cell)) && of("+") && of("-")
    })
}

/// A word among the markers of missing values that comes in the target as often as a class does, at
/// least half as often as the mean of them, and in no column of numbers.
fn class_among_markers(cells: &Cells, target: usize) -> Option<String> {
    const WORDS: [&str; 5] = ["None", "nil", "missing", "Missing", "MISSING"];
    let present = || cells.texts(target).filter(|cell| !cells.is_missing(cell));
    let different = present().collect::<BTreeSet<_>>().len();
    let is_class = |word: &&&str| {
        let own = cells.texts(target).filter(|cell| cell == *word).count();
        own > 1 && own * different * 2 >= present().count()
    };
    let word = WORDS.iter().find(is_class)?;
    let elsewhere = (0..cells.header.len()).filter(|&at| at != target).any(|at| {
        cells.texts(at).any(|cell| cell == *word) && !matches!(looks(cells, at), Looks::Categorical)
    });
    (different > 0 && !elsewhere).then(|| (*word).to_owned())
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
