//! What a column of a table holds, and what becomes of it.

use std::collections::{BTreeMap, BTreeSet};

use super::super::ColumnKind;
use super::looks;
use crate::class_names::shown;
use crate::spec::{CsvFormat, DateOrder};
use crate::table::classes::value_of;
use crate::table::column::MAX_CATEGORIES;
use crate::table::dates;
use crate::table::encoder::kept_by;
use crate::table::looks::{Looks, Numbers, Open};
use crate::table::notation::Notation;
use crate::table::read::Cells;

/// Rows below which two columns may go together by chance.
const FEW_ROWS: usize = 20;

/// What becomes of a column.
pub(super) enum Role {
    /// It is used as it looks.
    Used,
    /// Why it is left out, and what keeps it.
    LeftOut(String),
    /// Why it is taken as categories though it looks like numbers.
    Categories(String),
}

/// What a column holds, and what becomes of it.
pub(super) fn judge(cells: &Cells, at: usize) -> (ColumnKind, Role) {
    let present: Vec<&str> = cells.texts(at).filter(|cell| !cells.is_missing(cell)).collect();
    let different = present.iter().map(|cell| value_of(cell, &cells.format)).collect::<BTreeSet<_>>().len();
    let keep = "to use it, take it out of `ignore`";
    let has_gaps = present.len() < cells.rows.len();
    if present.is_empty() {
        let why = match cells.texts(at).find(|cell| !cell.is_empty()) {
            Some(marker) => format!("every cell of it is missing (empty or `{marker}`)"),
            None => "it is empty".into(),
        };
        return (ColumnKind::Constant, Role::LeftOut(why));
    }
    if different == 1 && !has_gaps {
        let why = format!("every row has `{}`", shown(present[0]));
        return (ColumnKind::Constant, Role::LeftOut(why));
    }
    if let Some(why) = cells.index(at) {
        let why = format!("{why}; {keep} and write `{}`", kept_by(cells, at));
        return (ColumnKind::Identifier, Role::LeftOut(why));
    }
    match looks(cells, at) {
        Looks::Open(open) => {
            let more = if matches!(open, Open::Units(..)) { String::new() } else { format!("; {keep} then") };
            (ColumnKind::Open, Role::LeftOut(open.reason() + &more))
        }
        Looks::Numeric(_) if different == 1 => {
            let why = format!(
                "where it has a value, that is `{}`, so that only its gaps tell rows apart",
                present[0]
            );
            (ColumnKind::Categorical { values: 2 }, Role::Categories(why))
        }
        Looks::Numeric(numbers) => match cells.numbers_rows(at) {
            Some(why) => (ColumnKind::Identifier, Role::LeftOut(format!("{why}; {keep}"))),
            None => (range(&present, &numbers), Role::Used),
        },
        Looks::Categorical if different > MAX_CATEGORIES => {
            let why = almost(&present, &cells.format).unwrap_or_else(|| {
                format!("it has {different} different texts, and at most {MAX_CATEGORIES} are encoded")
            });
            (ColumnKind::Identifier, Role::LeftOut(why))
        }
        Looks::Categorical if different * 2 > present.len() && different > FEW_ROWS => {
            let why = almost(&present, &cells.format).unwrap_or_else(|| {
                let rows = present.len();
                format!("it has {different} different texts in {rows} rows, too many to learn from; {keep}")
            });
            (ColumnKind::Identifier, Role::LeftOut(why))
        }
        Looks::Categorical => {
            let values = different + usize::from(has_gaps);
            let role = almost_numbers(&present, &cells.format).map_or(Role::Used, Role::Categories);
            (ColumnKind::Categorical { values }, role)
        }
    }
}

/// Why a column of many texts is not one of numbers or dates, if it is almost.
fn almost(present: &[&str], format: &CsvFormat) -> Option<String> {
    almost_numbers(present, format).or_else(|| {
        if !present.iter().all(|cell| dates::may_be_date(cell)) {
            return None;
        }
        let unread = |cell: &&&str| Notation::Date { order: DateOrder::YearMonthDay }.read(cell).is_none();
        let example = shown(present.iter().find(unread).unwrap_or(&present[0]));
        Some(format!(
            "`{example}` may be a date or time, but not in a form that is read, or not in that of the others; write \
             2024-02-01 or 2024-02-01 07:05"
        ))
    })
}

/// What keeps a column from being one of numbers, if at least half of its cells are some.
fn almost_numbers(present: &[&str], format: &CsvFormat) -> Option<String> {
    let plain = Notation::number(format.decimal.unwrap_or_default(), format.decimal.is_some(), "", "");
    let others: Vec<&str> = present.iter().copied().filter(|cell| plain.read(cell).is_none()).collect();
    let numbers = present.len() - others.len();
    if others.is_empty() || numbers * 2 < present.len() {
        return None;
    }
    let different: BTreeSet<&str> = others.iter().copied().collect();
    let shown: Vec<String> = different.iter().take(3).map(|text| format!("`{}`", shown(text))).collect();
    Some(format!(
        "{numbers} of its {} cells are numbers, but {} are not ({}{}): correct them, or add them to \
         `missing_markers` if they mean missing values",
        present.len(),
        others.len(),
        shown.join(", "),
        if different.len() > shown.len() { " …" } else { "" }
    ))
}

/// A remark on a number that may stand for a missing value: the least or the greatest, several
/// times, far from the others.
pub(super) fn sentinel(cells: &Cells, at: usize) -> Option<String> {
    let Looks::Numeric(Numbers { notation, .. }) = looks(cells, at) else { return None };
    let read = |cell: &str| notation.read(cell).filter(|number| number.is_finite());
    let mut numbers: Vec<(f64, &str)> = cells
        .texts(at)
        .filter(|cell| !cells.is_missing(cell))
        .filter_map(|cell| read(cell).map(|number| (number, cell)))
        .collect();
    numbers.sort_by(|a, b| a.0.total_cmp(&b.0));
    let ends = [numbers.first(), numbers.last()];
    let (number, cell) = ends.into_iter().flatten().copied().find(|end| suspect(&numbers, end.0))?;
    let count = numbers.iter().filter(|(other, _)| *other == number).count();
    let short = cell.parse::<f64>().ok().filter(|number| number.abs() < 1e15);
    let cell = short.map_or_else(|| cell.to_owned(), |number| number.to_string());
    Some(format!(
        "Column `{}` has {cell} in {count} rows, far from its other numbers: if it means a missing value, add \
         \"{cell}\" to `missing_markers` and write `missing = \"mean\"`.",
        cells.header[at]
    ))
}

/// Whether the least or greatest of sorted numbers looks like no measurement: it comes several
/// times, and lies as far from the next as the others from each other, if it is written in nines or
/// is a limit of integers, else ten times as far.
fn suspect(numbers: &[(f64, &str)], end: f64) -> bool {
    const LIMITS: [f64; 4] = [32_767.0, -32_768.0, 2_147_483_647.0, -2_147_483_648.0];
    let others: Vec<f64> =
        numbers.iter().map(|(number, _)| *number).filter(|number| *number != end).collect();
    let (Some(&least), Some(&greatest)) = (others.first(), others.last()) else { return false };
    let (range, gap) = (greatest - least, (end - greatest).max(least - end));
    let nines = {
        let digits = end.abs().to_string();
        digits.bytes().all(|b| b == b'9') && (digits.len() > 1 || least >= 0.0)
    };
    // A negative one among numbers that are not is no measurement even where these are wide apart.
    let negative = end < 0.0 && (least >= 0.0 || (least > end / 2.0 && end <= -99.0));
    let several = numbers.len() - others.len() > 1;
    let far = if nines && negative {
        true
    } else if nines || LIMITS.contains(&end) {
        gap > range
    } else {
        gap > 10.0 * range
    };
    several && range > 0.0 && far
}

/// A remark on a column that stands for the target: each of its values with one class only, and
/// each class with one of them.
pub(super) fn gives_away(cells: &Cells, at: usize, labels: &[u32], classes: usize) -> Option<String> {
    let mut classes_of = BTreeMap::new();
    for (cell, label) in cells.texts(at).zip(labels) {
        let value = value_of(cell, &cells.format);
        if *classes_of.entry(value).or_insert(label) != label || classes_of.len() > classes {
            return None;
        }
    }
    (classes_of.len() == classes && cells.rows.len() >= FEW_ROWS).then(|| {
        format!(
            "Column `{0}` alone gives the class of every row: if it is the target under another name, write \
             `ignore = [\"{0}\"]`.",
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
