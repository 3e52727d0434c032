//! PTX text to tokens.

use crate::fault::{LoadError, LoadProblem};

/// A token, with where it stands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Token<'t> {
    pub kind: Kind,
    pub text: &'t str,
    /// Line of the text, from 1.
    pub line: u32,
    /// Offset in the text.
    pub at: usize,
}

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kind {
    /// A name, a directive, or an opcode with its modifiers.
    Word,
    /// What begins with a digit.
    Number,
    /// Text between quotation marks.
    Quoted,
    /// A single character.
    Mark(char),
    /// The end of the text.
    End,
}

/// The tokens of a text, an end last.
pub(super) fn tokens(text: &str) -> Result<Vec<Token<'_>>, LoadError> {
    let mut tokens = Vec::new();
    let (mut at, mut line) = (0, 1);
    while let Some(first) = text[at..].chars().next() {
        let rest = &text[at..];
        let (kind, length) = match first {
            '\n' => {
                line += 1;
                at += 1;
                continue;
            }
            _ if first.is_whitespace() || first == '\0' => {
                at += first.len_utf8();
                continue;
            }
            '/' if rest.starts_with("//") => {
                at += rest.find('\n').unwrap_or(rest.len());
                continue;
            }
            '/' if rest.starts_with("/*") => {
                let length = rest.find("*/").map_or(rest.len(), |end| end + 2);
                line += newlines(&rest[..length]);
                at += length;
                continue;
            }
            '"' => match rest[1..].find('"') {
                Some(end) => (Kind::Quoted, end + 2),
                None => return Err(unterminated(line)),
            },
            '0'..='9' => (Kind::Number, run(rest, |c| c.is_ascii_alphanumeric() || c == '.')),
            _ if begins_word(first) => (Kind::Word, word(rest)),
            _ => (Kind::Mark(first), first.len_utf8()),
        };
        tokens.push(Token { kind, text: &rest[..length], line, at });
        line += newlines(&rest[..length]);
        at += length;
    }
    tokens.push(Token { kind: Kind::End, text: "the end of the text", line, at: text.len() });
    Ok(tokens)
}

fn unterminated(line: u32) -> LoadError {
    let problem = LoadProblem::Syntax {
        expected: "a closing quotation mark".to_string(),
        found: "the end of the text".to_string(),
    };
    LoadError { line, problem }
}

fn newlines(text: &str) -> u32 {
    text.bytes().filter(|byte| *byte == b'\n').count() as u32
}

fn begins_word(c: char) -> bool {
    c.is_ascii_alphabetic() || matches!(c, '.' | '%' | '_' | '$')
}

fn run(text: &str, inside: impl Fn(char) -> bool) -> usize {
    text.find(|c| !inside(c)).unwrap_or(text.len())
}

/// Length of a word: names, joined by `.` and `::`.
fn word(text: &str) -> usize {
    let mut length = 0;
    loop {
        length += run(&text[length..], |c| begins_word(c) || c.is_ascii_digit());
        let rest = &text[length..];
        match rest.strip_prefix("::").and_then(|rest| rest.chars().next()) {
            Some(next) if begins_word(next) || next.is_ascii_digit() => length += 2,
            _ => return length,
        }
    }
}
