//! Which column of a table is to be predicted.

use std::collections::BTreeMap;

use super::looks;
use crate::error::DataError;
use crate::table::classes::{self, value_of};
use crate::table::looks::Looks;
use crate::table::read::Cells;

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
/// Most classes of a column of numbers; with more, they are quantities.
const MOST_NUMBERS: usize = 20;
/// Most columns of which it is said why they are no target.
const SHOWN: usize = 8;

/// By name, else the last column if it can be one, else the first, else any.
pub(super) fn target(cells: &Cells, notes: &mut Vec<String>) -> Result<usize, DataError> {
    let last = cells.header.len() - 1;
    let lower: Vec<String> = cells.header.iter().map(|name| name.to_lowercase()).collect();
    let place = |name: &&str| lower.iter().position(|own| own == name);
    // Beside an `x`, a `y` that is not the last column may be a coordinate.
    let coordinate = place(&"x").and(place(&"y")).filter(|&at| at != last);
    let named: Vec<usize> =
        TARGET_NAMES.iter().filter_map(place).filter(|at| Some(*at) != coordinate).collect();
    for &at in &named {
        match why_no_target(cells, at) {
            None => {
                let others =
                    named.iter().filter(|&&other| other != at && why_no_target(cells, other).is_none());
                notes.extend(others.map(|&other| {
                    let (own, other) = (&cells.header[at], &cells.header[other]);
                    format!(
                        "The target is `{own}`, and `{other}`, which is named as one too, is used to predict it \
                         from; choose with `--target COLUMN`, or write `ignore = [\"{other}\"]`."
                    )
                }));
                return Ok(at);
            }
            Some(why) => notes.push(format!("`{0}` is not taken as the target: {why}.", cells.header[at])),
        }
    }
    let word = |name: &String| {
        let mut words = name.split(|c: char| !c.is_alphanumeric());
        words.any(|word| TARGET_NAMES[..3].contains(&word))
    };
    let with_word = (0..=last).filter(|at| word(&lower[*at]));
    let mut order = with_word.chain([last, 0]).chain(1..last);
    let Some(guess) = order.find(|&at| cells.index(at).is_none() && why_no_target(cells, at).is_none())
    else {
        let why =
            |at: usize| format!("`{}`: {}", cells.header[at], why_no_target(cells, at).unwrap_or_default());
        let mut reasons: Vec<String> = (0..=last).take(SHOWN).map(why).collect();
        if last >= SHOWN {
            reasons.push(format!("and {} more", last + 1 - SHOWN));
        }
        let reason = format!("no column holds classes to predict. {}", reasons.join("; "));
        return Err(DataError::unusable(&cells.path, reason));
    };
    if guess != last
        && !named.contains(&last)
        && let Some(why) = why_no_target(cells, last)
    {
        notes.push(format!("The last column, `{}`, is not taken as the target: {why}.", cells.header[last]));
    }
    let name = &cells.header[guess];
    notes.push(format!("The target is a guess: `{name}`. Choose another with `--target COLUMN`."));
    Ok(guess)
}

/// Why a column cannot be the target: a class cannot be split, or it is no column of classes.
fn why_no_target(cells: &Cells, at: usize) -> Option<String> {
    let present = || cells.texts(at).filter(|cell| !cells.is_missing(cell));
    let mut counts: BTreeMap<_, usize> = BTreeMap::new();
    present().for_each(|cell| *counts.entry(value_of(cell, &cells.format)).or_default() += 1);
    let different = counts.len();
    let is_numeric = matches!(looks(cells, at), Looks::Numeric(_) | Looks::Open(_));
    let rows = present().count();
    let many = different > (rows / 2).clamp(20, classes::MAX_CLASSES);
    if different < 2 {
        let gaps = cells.rows.len() - rows;
        return Some(match (different, gaps) {
            (0, _) => "it is empty".into(),
            (_, 0) => "it has one value only".into(),
            _ => format!(
                "it has one value only, and {gaps} missing cells: if these are a class, write a word into them or \
                 change `missing_markers`"
            ),
        });
    }
    if is_numeric && (many || different > MOST_NUMBERS) {
        return Some(format!(
            "its {different} different numbers are a quantity, and predicting quantities (regression) is not \
             supported; cut it into classes{}",
            if many { "" } else { ", or take its numbers as classes with `--target`" }
        ));
    }
    if many {
        return Some(format!("it has {different} different texts in {rows} rows, too many for classes"));
    }
    let rare = counts.iter().filter(|(_, n)| **n < 2).map(|(class, _)| format!("`{class}`"));
    let rare: Vec<String> = rare.take(3).collect();
    (!rare.is_empty()).then(|| {
        format!(
            "only one row has the class {}, and one to train on and one to test on are needed",
            rare.join(", ")
        )
    })
}
