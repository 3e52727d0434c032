//! Every sentence about quality that is made here, with what it rests on: `docs/claims.md` is the
//! table of them. What decides *which* sentence holds (`findings`, `study`, `reference`) returns
//! these, and their text is made nowhere else.

mod command;
mod robustness;
mod study;
#[cfg(test)]
mod study_tests;
mod verdict;

pub use command::{CommandStatement, TriedPlan, change, ratio};
pub use robustness::RobustnessStatement;
pub use study::{Headline, Pairs, StudyStatement, cost_words};
pub use verdict::{Loss, Models, Reason, Subject, VerdictStatement};

/// A sentence inside another: without its end, and beginning small.
fn lower(sentence: &impl ToString) -> String {
    let sentence = sentence.to_string();
    let mut letters = sentence.trim_end_matches('.').chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}

/// A sentence that begins with a capital.
fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// Sentences one after another.
fn in_a_row<T: ToString>(sentences: &[T]) -> String {
    sentences.iter().map(T::to_string).collect::<Vec<_>>().join(" ")
}
