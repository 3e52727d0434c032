//! Parts of sections that every file of the report makes.

use super::{Block, Section, Table};
use crate::assessment::Assessment;
use crate::comparison::{Candidate, Comparison};

/// A name as part of a link.
pub(super) fn id(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect()
}

pub(super) fn section(id: &str, title: impl Into<String>, blocks: Vec<Block>) -> Section {
    Section { id: id.into(), title: title.into(), blocks }
}

pub(super) fn table(caption: impl Into<String>, head: Vec<String>, rows: Vec<Vec<String>>) -> Block {
    Block::Table(Table { caption: caption.into(), head, rows, words: Vec::new() })
}

pub(super) fn strings<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(String::from).to_vec()
}

pub(super) fn assessed(c: &Comparison) -> impl Iterator<Item = (&Candidate, &Assessment)> {
    c.candidates.iter().filter_map(|x| Some((x, x.assessment.as_ref()?)))
}
