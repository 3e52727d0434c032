//! What is printed: text for people, JSON for programs.

use std::io::{IsTerminal, Write};

use serde::Serialize;

use super::failure::Failure;

/// Prints a line to stdout. A reader that has gone away, as `head` does, ends the program quietly.
pub fn line(text: &str) {
    raw(&format!("{text}\n"));
}

/// Prints text to stdout as it is.
pub fn raw(text: &str) {
    let mut out = std::io::stdout().lock();
    if out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err() {
        std::process::exit(0);
    }
}

/// Prints one JSON object to stdout, on one line.
pub fn json<T: Serialize>(value: &T) -> Result<(), Failure> {
    line(&serde_json::to_string(value)?);
    Ok(())
}

fn wanted(terminal: bool) -> bool {
    let set = |name: &str| std::env::var_os(name).is_some_and(|v| !v.is_empty());
    terminal && !set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|t| t != "dumb")
}

/// Whether stderr takes colours: a terminal, unless `NO_COLOR` is set.
pub fn colour_on_stderr() -> bool {
    wanted(std::io::stderr().is_terminal())
}

/// Whether stdout takes colours.
pub fn colour_on_stdout() -> bool {
    wanted(std::io::stdout().is_terminal())
}

/// A heading on stdout.
pub fn bold(text: &str) -> String {
    if colour_on_stdout() { format!("\x1b[1m{text}\x1b[0m") } else { text.to_string() }
}

/// Pairs of label and value, aligned.
pub fn fields(pairs: &[(&str, String)]) -> String {
    let width = pairs.iter().map(|(label, _)| label.chars().count()).max().unwrap_or(0);
    let pad = |label: &str| " ".repeat(width - label.chars().count() + 2);
    pairs.iter().map(|(label, value)| format!("{label}{}{value}\n", pad(label))).collect()
}

/// Rows of cells in aligned columns: the first to the left, numbers to the right.
pub fn columns(rows: &[Vec<String>]) -> String {
    let chars = |s: &String| s.chars().count();
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |c: usize| rows.iter().filter_map(|r| r.get(c)).map(chars).max().unwrap_or(0);
    let widths: Vec<usize> = (0..count).map(width).collect();
    let number = |s: &String| s.starts_with(|c: char| c.is_ascii_digit() || "+-−".contains(c));
    let right: Vec<bool> =
        (0..count).map(|c| rows.iter().skip(1).any(|r| r.get(c).is_some_and(number))).collect();
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (c, cell) in row.iter().enumerate() {
            let gap = " ".repeat(widths[c] - chars(cell));
            line += &if c > 0 && right[c] { format!("{gap}{cell}  ") } else { format!("{cell}{gap}  ") };
        }
        out += line.trim_end();
        out.push('\n');
    }
    out
}

/// Sentences as a list, wrapped to 100 columns.
pub fn bullets(sentences: &[String]) -> String {
    let mut out = String::new();
    for sentence in sentences {
        let mut line = String::from("·");
        for word in sentence.split(' ') {
            if line.chars().count() + 1 + word.chars().count() > 100 {
                out += &format!("{line}\n");
                line = " ".into();
            }
            line += &format!(" {word}");
        }
        out += &format!("{line}\n");
    }
    out
}
