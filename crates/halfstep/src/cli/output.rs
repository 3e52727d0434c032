//! What is printed: text for people, JSON for programs.

use std::path::Path;

use serde::Serialize;
use textwrap::core::display_width;
use textwrap::{Options, WordSeparator, WordSplitter, WrapAlgorithm};

use super::failure::Failure;
use super::stdio;

/// Columns of text that is not for a terminal of a known width.
const COLUMNS: usize = 100;

/// Prints a line to stdout.
pub fn line(text: &str) {
    raw(&format!("{text}\n"));
}

/// Prints text to stdout.
pub fn raw(text: &str) {
    stdio::out(text);
}

/// Prints a line to stderr.
pub fn message(text: &str) {
    stdio::err(&format!("{text}\n"));
}

/// Prints a note to stderr.
pub fn note(text: impl std::fmt::Display) {
    message(&format!("note: {text}"));
}

/// Prints a warning to stderr.
pub fn warning(text: impl std::fmt::Display) {
    message(&format!("warning: {text}"));
}

/// Prints one JSON object to stdout, on one line.
pub fn json<T: Serialize>(value: &T) -> Result<(), Failure> {
    // JSON has its own escapes.
    stdio::out_as_it_is(&(serde_json::to_string(value)? + "\n"));
    Ok(())
}

/// Where a command's messages go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Messages {
    /// To stdout.
    Stdout,
    /// To stderr, because stdout is for one JSON object.
    Stderr,
    /// Nowhere.
    Quiet,
}

impl Messages {
    /// Of a command with or without `--json`.
    pub fn of(json: bool) -> Messages {
        if json { Messages::Stderr } else { Messages::Stdout }
    }

    /// Prints a line.
    pub fn say(self, text: &str) {
        match self {
            Messages::Stdout => line(text),
            Messages::Stderr => message(text),
            Messages::Quiet => {}
        }
    }
}

/// A value as it is written on the command line; of a precision, the policy's name.
pub fn value_name(value: &impl clap::ValueEnum) -> String {
    value.to_possible_value().map_or_else(String::new, |v| v.get_name().to_string())
}

/// An error if a file is there that must not be overwritten.
pub fn may_write(path: &Path, force: bool) -> Result<(), Failure> {
    if force || !path.exists() {
        return Ok(());
    }
    let help = "choose another name with -o, or overwrite it with --force";
    Err(Failure::asked(format!("{} exists already", path.display()), help))
}

/// A heading on stdout.
pub fn bold(text: &str) -> String {
    styled(1, text)
}

/// Text in a style of ANSI, where stdout takes colours.
pub fn styled(style: u8, text: &str) -> String {
    if stdio::colours_on_stdout() { format!("\x1b[{style}m{text}\x1b[0m") } else { text.to_string() }
}

/// Pairs of label and value, aligned.
pub fn fields(pairs: &[(&str, String)]) -> String {
    let width = pairs.iter().map(|(label, _)| label.chars().count()).max().unwrap_or(0);
    let pad = |label: &str| " ".repeat(width - label.chars().count() + 2);
    pairs.iter().map(|(label, value)| format!("{label}{}{}\n", pad(label), in_one_line(value))).collect()
}

/// A text whose line ends, which only names from files have, are escaped.
fn in_one_line(text: &str) -> String {
    text.replace('\r', "\\r").replace('\n', "\\n")
}

/// A path as a shell takes it.
pub fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_alphanumeric() || "-_./:@%+=,".contains(c);
    match !text.is_empty() && text.chars().all(plain) {
        true => text,
        false => format!("'{}'", text.replace('\'', "'\\''")),
    }
}

/// Rows of cells under a heading, the cells of which are parted by ` | `.
pub fn headed(heading: &str, rows: impl IntoIterator<Item = Vec<String>>) -> Vec<Vec<String>> {
    std::iter::once(heading.split(" | ").map(String::from).collect()).chain(rows).collect()
}

/// Rows of cells in aligned columns: the first to the left, numbers to the right.
pub fn columns(rows: &[Vec<String>]) -> String {
    let number = |s: &String| s.starts_with(|c: char| c.is_ascii_digit() || "+-−".contains(c));
    let lines = layout(rows, |c| c > 0 && rows.iter().skip(1).any(|r| r.get(c).is_some_and(number)));
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// A line for each row, in aligned columns, those of which `right` holds to the right. Colours do
/// not count as width.
pub fn layout(rows: &[Vec<String>], right: impl Fn(usize) -> bool) -> Vec<String> {
    let rows: Vec<Vec<String>> = rows.iter().map(|r| r.iter().map(|c| in_one_line(c)).collect()).collect();
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widest =
        |c: usize| rows.iter().filter_map(|r| r.get(c)).map(|cell| display_width(cell)).max().unwrap_or(0);
    let columns: Vec<(usize, bool)> = (0..count).map(|c| (widest(c), right(c))).collect();
    let line = |row: &Vec<String>| {
        let padded = row.iter().zip(&columns).map(|(cell, &(wide, right))| {
            let gap = " ".repeat(wide - display_width(cell));
            if right { format!("{gap}{cell}") } else { format!("{cell}{gap}") }
        });
        padded.collect::<Vec<_>>().join("  ").trim_end().to_string()
    };
    rows.iter().map(line).collect()
}

/// Lines of so many columns, broken at spaces alone.
pub fn wrapped(columns: usize) -> Options<'static> {
    Options::new(columns)
        .wrap_algorithm(WrapAlgorithm::FirstFit)
        .word_separator(WordSeparator::AsciiSpace)
        .word_splitter(WordSplitter::NoHyphenation)
        .break_words(false)
}

/// Columns of stdout: those of its terminal, else [`COLUMNS`].
pub fn width() -> usize {
    if stdio::stdout_is_terminal() { textwrap::termwidth() } else { COLUMNS }
}

/// Sentences as a list, wrapped to [`COLUMNS`].
pub fn bullets<T: ToString>(sentences: &[T]) -> String {
    let options = wrapped(COLUMNS).initial_indent("· ").subsequent_indent("  ");
    sentences
        .iter()
        .map(|sentence| textwrap::fill(&in_one_line(&sentence.to_string()), &options) + "\n")
        .collect()
}
