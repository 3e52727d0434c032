//! The classes of a target column: different values, however they are spelt.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::read::{Cell, Cells, TableRow};
use crate::class_names;
use crate::error::DataError;
use crate::spec::{CsvFormat, DecimalMark};

/// Most classes of a target column.
pub(crate) const MAX_CLASSES: usize = 1000;
/// Most sentences of a kind about the spellings in a column.
const MOST_REMARKS: usize = 5;
/// Digits that every f64 keeps.
const EXACT_DIGITS: usize = 15;

/// What the spellings of one value have in common: numbers of equal value (`1`, `1.0`, `01`) and
/// `True`, `TRUE` and `true` are one.
pub(crate) fn value_of<'a>(cell: &'a str, format: &CsvFormat) -> Cow<'a, str> {
    if cell.eq_ignore_ascii_case("true") || cell.eq_ignore_ascii_case("false") {
        return cell.to_ascii_lowercase().into();
    }
    let point: Cow<str> = match format.decimal {
        Some(DecimalMark::Comma) if !cell.contains('.') => cell.replace(',', ".").into(),
        _ => cell.into(),
    };
    let number = point.parse::<f64>().ok().filter(|number| number.is_finite());
    match number {
        // Long numbers are names whose last digits count.
        Some(_) if point.bytes().filter(u8::is_ascii_digit).count() > EXACT_DIGITS => cell.into(),
        Some(number) => (number + 0.0).to_string().into(),
        None => cell.into(),
    }
}

/// The spellings of each value with their numbers of rows.
fn spellings<'a>(
    texts: impl Iterator<Item = &'a str>,
    format: &CsvFormat,
) -> BTreeMap<Cow<'a, str>, BTreeMap<&'a str, usize>> {
    let mut all: BTreeMap<Cow<str>, BTreeMap<&str, usize>> = BTreeMap::new();
    for text in texts {
        *all.entry(value_of(text, format)).or_default().entry(text).or_default() += 1;
    }
    all
}

/// The spelling that most rows have; of several, the first in the order of texts.
fn commonest<'a>(spellings: &BTreeMap<&'a str, usize>) -> &'a str {
    let best = spellings.iter().max_by(|a, b| a.1.cmp(b.1).then_with(|| b.0.cmp(a.0)));
    best.map_or("", |(text, _)| text)
}

/// Different values, each in its commonest spelling, in the order of the texts.
pub(crate) fn values<'a>(texts: impl Iterator<Item = &'a str>, format: &CsvFormat) -> Vec<String> {
    let mut names: Vec<String> =
        spellings(texts, format).values().map(|spelt| commonest(spelt).to_owned()).collect();
    names.sort();
    names
}

/// The classes of a target column: in numeric order if all are numbers, else in the order of the
/// names.
pub(crate) fn classes(cells: &Cells, target: usize) -> Result<Vec<String>, DataError> {
    if let Some(row) = cells.rows.iter().find(|row| cells.is_missing(&row.cells[target])) {
        return Err(no_target(cells, row, target));
    }
    let mut classes = values(cells.texts(target), &cells.format);
    // With fewer than two rows each, values are quantities or names rather than classes.
    let limit = (cells.rows.len() / 2).clamp(20, MAX_CLASSES);
    if classes.len() > limit {
        return Err(DataError::TooManyClasses {
            column: cells.header[target].clone(),
            found: classes.len(),
            limit,
        });
    }
    if classes.len() < 2 {
        return Err(DataError::TooFewClasses {
            what: format!("{}, column `{}`", cells.path.display(), cells.header[target]),
            found: classes.len(),
            hint: "the classes are the different values of the `target` column",
        });
    }
    let number = |class: &String| value_of(class, &cells.format).parse().ok().filter(|n: &f64| n.is_finite());
    if classes.iter().all(|class| number(class).is_some()) {
        let number = |class: &String| number(class).unwrap_or(0.0);
        classes.sort_by(|a, b| number(a).total_cmp(&number(b)).then_with(|| a.cmp(b)));
    }
    Ok(classes)
}

fn no_target(cells: &Cells, row: &TableRow, target: usize) -> DataError {
    let cell = &row.cells[target];
    let (what, or_class) = match cell.is_empty() {
        true => (String::new(), String::new()),
        false => (
            format!(" (`{cell}`)"),
            format!(
                "; if `{cell}` is a class, give `missing_markers` without it, such as `missing_markers = []`"
            ),
        ),
    };
    let missing = format!(
        "value is missing{what}; every row needs its target: remove the row, or write `missing_target = \"drop\"` to \
         leave such rows out{or_class}"
    );
    Cell { cells, row, column: &cells.header[target] }.wrong(missing)
}

/// The index of each class by its value.
fn places<'c>(cells: &Cells, classes: &'c [String]) -> BTreeMap<Cow<'c, str>, u32> {
    classes.iter().zip(0..).map(|(class, index)| (value_of(class, &cells.format), index)).collect()
}

/// The class index of every row that has one of the classes.
pub(crate) fn known(cells: &Cells, target: usize, classes: &[String]) -> Vec<Option<u32>> {
    let places = places(cells, classes);
    cells.texts(target).map(|cell| places.get(&value_of(cell, &cells.format)).copied()).collect()
}

/// The class index of every row.
pub(crate) fn labels(cells: &Cells, target: usize, classes: &[String]) -> Result<Vec<u32>, DataError> {
    let places = places(cells, classes);
    let label = |row: &TableRow| {
        let cell = &row.cells[target];
        if cells.is_missing(cell) {
            return Err(no_target(cells, row, target));
        }
        places.get(&value_of(cell, &cells.format)).copied().ok_or_else(|| DataError::UnseenLabel {
            what: format!("{}, line {}", cells.path.display(), row.line),
            class: cell.clone(),
        })
    };
    cells.rows.iter().map(label).collect()
}

/// What a person should know of the spellings of a column's values; `what` they are begins
/// sentences. There are at most [`MOST_REMARKS`] of a kind.
pub(crate) fn remarks(cells: &Cells, column: usize, what: &str) -> Vec<String> {
    let quoted = |texts: &[&str]| texts.iter().map(|t| format!("`{t}`")).collect::<Vec<_>>().join(", ");
    let mut notes = Vec::new();
    let all = spellings(cells.texts(column).filter(|cell| !cells.is_missing(cell)), &cells.format);
    for spelt in all.values().filter(|spelt| spelt.len() > 1).take(MOST_REMARKS) {
        let texts: Vec<&str> = spelt.keys().copied().collect();
        notes.push(format!(
            "`{}`: {} are one value, called `{}`.",
            cells.header[column],
            quoted(&texts),
            commonest(spelt)
        ));
    }
    let names: Vec<&str> = all.values().map(commonest).collect();
    if names.len() > 2 && names.iter().all(|name| is_yes_or_no(name)) {
        notes.push(format!(
            "`{}`: {} may be yes and no in several spellings, but are {} values; write each in one way if so.",
            cells.header[column],
            quoted(&names),
            names.len()
        ));
    } else {
        notes.extend(class_names::remarks(what, names).into_iter().take(MOST_REMARKS));
    }
    notes
}

/// Whether a cell is yes or no as people and programs write it.
fn is_yes_or_no(cell: &str) -> bool {
    const WORDS: [&str; 24] = [
        "yes", "no", "y", "n", "true", "false", "t", "f", "1", "0", "1.0", "0.0", "on", "off", "ja", "nein",
        "oui", "non", "si", "wahr", "falsch", "vrai", "faux", "j",
    ];
    WORDS.contains(&cell.to_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::read;
    use super::*;

    fn table(labels: &[&str]) -> Cells {
        let text = labels.iter().fold("kind,x\n".to_owned(), |text, label| text + label + ",1\n");
        read::parse(&text, Path::new("t.csv"), &CsvFormat::default()).unwrap()
    }

    #[test]
    fn spellings_of_one_value_are_one_class() {
        let cells = table(&["1", "1.0", "01", "2", "1.0", "1e0", " 2 ", "+2"]);
        assert_eq!(classes(&cells, 0).unwrap(), ["1.0", "2"]);
        assert_eq!(labels(&cells, 0, &["1".into(), "2".into()]).unwrap(), [0, 0, 0, 1, 0, 0, 1, 1]);
        assert!(
            remarks(&cells, 0, "The classes")[0]
                .contains("`01`, `1`, `1.0`, `1e0` are one value, called `1.0`")
        );
        assert_eq!(
            classes(&table(&["True", "false", "true", "FALSE", "true"]), 0).unwrap(),
            ["FALSE", "true"]
        );
        assert_eq!(classes(&table(&["cafe\u{301}", "bar", "caf\u{e9}"]), 0).unwrap(), ["bar", "caf\u{e9}"]);
        let long = ["12345678901234567", "12345678901234568"];
        assert_eq!(classes(&table(&long), 0).unwrap(), long);
        assert_eq!(classes(&table(&["-0", "0", "1"]), 0).unwrap().len(), 2);
    }

    #[test]
    fn several_spellings_of_yes_and_no_are_noted() {
        let notes = |labels: &[&str]| remarks(&table(labels), 0, "The classes").join(" ");
        assert!(notes(&["True", "1", "False", "0"]).contains("may be yes and no in several spellings"));
        assert!(notes(&["yes", "Yes", "Y", "no"]).contains("but are 4 values"));
        assert!(notes(&["yes", "no"]).is_empty() && notes(&["yes", "no", "maybe"]).is_empty());
    }

    #[test]
    fn differences_of_case_are_noted() {
        let cells = table(&["Rosa", "rosa", "tulip", "tulip"]);
        assert_eq!(classes(&cells, 0).unwrap(), ["Rosa", "rosa", "tulip"]);
        let notes = remarks(&cells, 0, "The classes");
        assert!(notes.len() == 1 && notes[0].contains("`Rosa`, `rosa` differ only in case"), "{notes:?}");
    }

    #[test]
    fn a_marker_is_no_class_unless_the_recipe_says_so() {
        let mut cells = table(&["a", "NA", "b", "", "a"]);
        let error = classes(&cells, 0).unwrap_err().to_string();
        assert!(error.contains("line 3, column `kind`: value is missing (`NA`)"), "{error}");
        assert!(
            error.contains("`missing_target = \"drop\"`") && error.contains("`missing_markers = []`"),
            "{error}"
        );
        cells.drop_without(0);
        assert_eq!(classes(&cells, 0).unwrap(), ["a", "b"]);
        assert!(
            cells.notes[0].contains("2 of 5 rows") && cells.notes[0].contains("line 3 (`NA`)"),
            "{:?}",
            cells.notes
        );
        let namibia = CsvFormat { missing_markers: vec![], ..CsvFormat::default() };
        let cells = read::parse("kind,x\nNA,1\nZA,2\n", Path::new("t.csv"), &namibia).unwrap();
        assert_eq!(classes(&cells, 0).unwrap(), ["NA", "ZA"]);
    }
}
