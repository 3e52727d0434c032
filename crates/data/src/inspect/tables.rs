//! Tables.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::{ColumnKind, ColumnReport, Found, Inspection};
use crate::error::DataError;
use crate::files;
use crate::spec::{CsvFormat, CsvSpec, DataSpec, MissingNumbers};
use crate::table::column::{Looks, MAX_CATEGORIES};
use crate::table::encoder;
use crate::table::read::{self, Cells, is_missing};

/// Names that a target column is likely to have, likeliest first.
const TARGET_NAMES: [&str; 12] = [
    "target",
    "label",
    "class",
    "y",
    "outcome",
    "category",
    "species",
    "income",
    "credit",
    "churn",
    "survived",
    "diagnosis",
];

pub(super) fn inspect(path: &Path) -> Result<Inspection, DataError> {
    let text = files::read_text(path)?;
    let format = format(&text, path)?;
    let cells = read::parse(&text, path, format)?;
    let mut notes = Vec::new();
    let target = target(&cells, &mut notes)?;
    let count = |class: &String| cells.rows.iter().filter(|row| row.cells[target] == *class).count();
    let classes: Vec<(String, usize)> =
        encoder::classes(&cells, target)?.into_iter().map(|class| (class.clone(), count(&class))).collect();
    let mut columns: Vec<ColumnReport> = (0..cells.header.len()).map(|at| report(&cells, at)).collect();
    columns[target].kind = ColumnKind::Target;

    let mut spec = CsvSpec { format, ..CsvSpec::new(path.to_owned(), cells.header[target].clone()) };
    if !format.header {
        notes.push(
            "The first line looks like data, not like names: the columns are called c1, c2 and so on."
                .to_owned(),
        );
    }
    let named = |kind: ColumnKind| {
        columns.iter().filter(|c| c.kind == kind).map(|c| c.name.clone()).collect::<Vec<_>>()
    };
    let (identifiers, constants) = (named(ColumnKind::Identifier), named(ColumnKind::Constant));
    if !identifiers.is_empty() {
        notes.push(format!("Left out, as they only name the rows: {}.", identifiers.join(", ")));
    }
    if !constants.is_empty() {
        notes.push(format!("Left out, as they never change: {}.", constants.join(", ")));
    }
    spec.ignore = [identifiers, constants].concat();
    let gaps = |c: &&ColumnReport| c.missing > 0 && matches!(c.kind, ColumnKind::Numeric { .. });
    let with_gaps: Vec<String> =
        columns.iter().filter(gaps).map(|c| format!("{} ({})", c.name, c.missing)).collect();
    if !with_gaps.is_empty() {
        spec.missing = MissingNumbers::Mean;
        notes.push(format!("Missing numbers become the mean of their column: {}.", with_gaps.join(", ")));
    }
    notes.push("A fifth of the rows is held out for testing, the same share of every class.".to_owned());
    let target = cells.header[target].clone();
    let found = Found::Csv { rows: cells.rows.len(), columns, target, classes };
    Ok(Inspection { path: path.to_owned(), found, spec: DataSpec::Csv(spec), notes })
}

/// The delimiter that cuts the first lines into most cells, all into as many; and whether the first
/// line holds names.
fn format(text: &str, path: &Path) -> Result<CsvFormat, DataError> {
    let sample: String = text.split_inclusive('\n').filter(|line| !line.trim().is_empty()).take(50).collect();
    let mut best: Option<(Cells, char)> = None;
    for delimiter in [',', ';', '\t', '|', ' '] {
        let headless = CsvFormat { delimiter, header: false };
        // A quoted cell may go on past the sample; then only the whole file can tell.
        let parsed = read::parse(&sample, path, headless).or_else(|_| read::parse(text, path, headless));
        if let Ok(cells) = parsed
            && cells.header.len() > best.as_ref().map_or(1, |(cells, _)| cells.header.len())
        {
            best = Some((cells, delimiter));
        }
    }
    if let Some((cells, delimiter)) = best {
        return Ok(CsvFormat { delimiter, header: has_header(&cells) });
    }
    // Say what is wrong with it as the most common kind of table.
    read::parse(text, path, CsvFormat { header: false, ..CsvFormat::default() })?;
    let reason = "a table of one column; a target and something to predict it from are needed";
    Err(DataError::unusable(path, reason))
}

/// Names are no numbers, not missing and all different. A line of texts over columns of texts is
/// taken as names.
fn has_header(cells: &Cells) -> bool {
    let first = &cells.rows[0].cells;
    let distinct: BTreeSet<&String> = first.iter().collect();
    distinct.len() == first.len()
        && first.iter().all(|cell| !is_missing(cell) && cell.parse::<f64>().is_err())
}

/// By name, else the last column if it can be one, else the first, else any.
fn target(cells: &Cells, notes: &mut Vec<String>) -> Result<usize, DataError> {
    let named =
        TARGET_NAMES.iter().find_map(|name| cells.header.iter().position(|h| h.to_lowercase() == *name));
    if let Some(at) = named.filter(|&at| can_be_target(cells, at)) {
        return Ok(at);
    }
    let last = cells.header.len() - 1;
    let mut order = [last, 0].into_iter().chain(1..last);
    let reason = "no column holds classes (a few different values, at least 2, each in at least 2 rows)";
    let none = || DataError::unusable(&cells.path, reason);
    let guess = order.find(|&at| can_be_target(cells, at)).ok_or_else(none)?;
    let name = &cells.header[guess];
    notes
        .push(format!("The target is a guess: `{name}`. Set another if you want to predict something else."));
    Ok(guess)
}

/// Every class can be split; and a column of numbers with many values is a quantity.
fn can_be_target(cells: &Cells, at: usize) -> bool {
    encoder::classes(cells, at).is_ok_and(|classes| {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        cells.rows.iter().for_each(|row| *counts.entry(row.cells[at].as_str()).or_default() += 1);
        counts.values().all(|&n| n >= 2) && (classes.len() <= 20 || looks(cells, at) == Looks::Categorical)
    })
}

fn looks(cells: &Cells, at: usize) -> Looks {
    Looks::of(cells.rows.iter().map(|row| row.cells[at].as_str()))
}

fn report(cells: &Cells, at: usize) -> ColumnReport {
    let name = cells.header[at].clone();
    let column: Vec<&str> = cells.rows.iter().map(|row| row.cells[at].as_str()).collect();
    let missing = column.iter().filter(|cell| is_missing(cell)).count();
    let distinct = column.iter().collect::<BTreeSet<_>>().len();
    let looks = looks(cells, at);
    let kind = if distinct == 1 {
        ColumnKind::Constant
    } else if is_identifier(&name, &looks, &column, distinct) {
        ColumnKind::Identifier
    } else if looks == Looks::Numeric {
        let values = column.iter().filter_map(|cell| cell.parse::<f64>().ok());
        let (min, max) =
            values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
        ColumnKind::Numeric { min, max }
    } else {
        ColumnKind::Categorical { values: distinct }
    };
    ColumnReport { name, kind, missing }
}

fn is_identifier(name: &str, looks: &Looks, column: &[&str], distinct: usize) -> bool {
    let name = name.to_lowercase();
    match looks {
        // Different in every row and called so, or counting up by one.
        Looks::Numeric if distinct == column.len() && column.len() > 20 => {
            let numbers: Vec<f64> = column.iter().filter_map(|cell| cell.parse().ok()).collect();
            let counts_up =
                numbers.len() == column.len() && numbers.windows(2).all(|pair| pair[1] == pair[0] + 1.0);
            counts_up || name == "id" || name.ends_with("_id") || name.ends_with(" id") || name == "index"
        }
        Looks::Numeric => false,
        Looks::Categorical => (distinct * 2 > column.len() && distinct > 20) || distinct > MAX_CATEGORIES,
    }
}
