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
