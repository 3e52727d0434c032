//! A place in the tokens of a module.

use super::ast::Number;
use super::lexer::{Kind, Token};
use crate::fault::{LoadError, LoadProblem};

/// The tokens, and the one that comes next.
pub(super) struct Cursor<'t> {
    pub text: &'t str,
    tokens: Vec<Token<'t>>,
    next: usize,
}

impl<'t> Cursor<'t> {
    /// At the first of `tokens`, which end with [`Kind::End`].
    pub fn new(text: &'t str, tokens: Vec<Token<'t>>) -> Cursor<'t> {
        Cursor { text, tokens, next: 0 }
    }

    /// The next token.
    pub fn peek(&self) -> Token<'t> {
        self.peek_at(0)
    }

    /// The token `ahead` of the next one.
    pub fn peek_at(&self, ahead: usize) -> Token<'t> {
        self.tokens[(self.next + ahead).min(self.tokens.len() - 1)]
    }

    /// Takes the next token; the end stays.
    pub fn take(&mut self) -> Token<'t> {
        let token = self.peek();
        self.next = (self.next + 1).min(self.tokens.len() - 1);
        token
    }

    /// Whether the next token is this mark.
    pub fn at_mark(&self, mark: char) -> bool {
        self.peek().kind == Kind::Mark(mark)
    }

    /// Takes this mark if it comes next.
    pub fn accept(&mut self, mark: char) -> bool {
        let found = self.at_mark(mark);
        if found {
            self.take();
        }
        found
    }

    /// Takes this word if it comes next.
    pub fn accept_word(&mut self, word: &str) -> bool {
        let token = self.peek();
        let found = token.kind == Kind::Word && token.text == word;
        if found {
            self.take();
        }
        found
    }

    /// Takes this mark.
    pub fn expect(&mut self, mark: char) -> Result<Token<'t>, LoadError> {
        if self.at_mark(mark) { Ok(self.take()) } else { Err(self.wrong(&format!("`{mark}`"))) }
    }

    /// Takes a word.
    pub fn word(&mut self) -> Result<&'t str, LoadError> {
        match self.peek().kind {
            Kind::Word => Ok(self.take().text),
            _ => Err(self.wrong("a name")),
        }
    }

    /// Takes an integer that may have a sign.
    pub fn integer(&mut self) -> Result<u64, LoadError> {
        let line = self.peek().line;
        match self.number()? {
            Number::Integer(value) => Ok(value),
            _ => Err(LoadError { line, problem: syntax("an integer", "a fraction") }),
        }
    }

    /// Takes an integer of 32 bits without a sign.
    pub fn small(&mut self) -> Result<u32, LoadError> {
        let token = self.peek();
        u32::try_from(self.integer()?)
            .map_err(|_| LoadError { line: token.line, problem: syntax("an integer below 2^32", token.text) })
    }

    /// Takes a number that may have signs.
    pub fn number(&mut self) -> Result<Number, LoadError> {
        let mut negative = false;
        while self.at_mark('-') || self.at_mark('+') {
            negative ^= self.take().text == "-";
        }
        let token = self.peek();
        if token.kind != Kind::Number {
            return Err(self.wrong("a number"));
        }
        self.take();
        let value = parse(token.text)
            .ok_or_else(|| LoadError { line: token.line, problem: syntax("a number", token.text) })?;
        Ok(if negative { negate(value) } else { value })
    }

    /// An error at the next token.
    pub fn wrong(&self, expected: &str) -> LoadError {
        let token = self.peek();
        LoadError { line: token.line, problem: syntax(expected, token.text) }
    }

    /// Skips what stands in the line of the token that was taken last.
    pub fn skip_line(&mut self, line: u32) {
        while self.peek().kind != Kind::End && self.peek().line == line {
            self.take();
        }
    }

    /// Skips up to a semicolon, and that.
    pub fn skip_statement(&mut self) {
        while self.peek().kind != Kind::End && !self.accept(';') {
            self.take();
        }
    }

    /// Skips up to a mark, and that.
    pub fn skip_to(&mut self, mark: char) -> Result<(), LoadError> {
        while !self.accept(mark) {
            if self.take().kind == Kind::End {
                return Err(self.wrong(&format!("`{mark}`")));
            }
        }
        Ok(())
    }

    /// Skips `{ … }`.
    pub fn skip_block(&mut self) -> Result<(), LoadError> {
        self.expect('{')?;
        let mut depth = 1;
        while depth > 0 {
            match self.take().kind {
                Kind::Mark('{') => depth += 1,
                Kind::Mark('}') => depth -= 1,
                Kind::End => return Err(self.wrong("`}`")),
                _ => {}
            }
        }
        Ok(())
    }
}

fn syntax(expected: &str, found: &str) -> LoadProblem {
    LoadProblem::Syntax { expected: expected.to_string(), found: found.to_string() }
}

fn negate(value: Number) -> Number {
    match value {
        Number::Integer(value) => Number::Integer(value.wrapping_neg()),
        Number::Single(bits) => Number::Single(bits ^ 1 << 31),
        Number::Double(bits) => Number::Double(bits ^ 1 << 63),
    }
}

/// A number as PTX writes it.
fn parse(text: &str) -> Option<Number> {
    let hex = |digits: &str| u64::from_str_radix(digits, 16).ok();
    if let Some(digits) = text.strip_prefix("0f").or_else(|| text.strip_prefix("0F")) {
        return u32::from_str_radix(digits, 16).ok().map(Number::Single);
    }
    if let Some(digits) = text.strip_prefix("0d").or_else(|| text.strip_prefix("0D")) {
        return hex(digits).map(Number::Double);
    }
    let integer = text.trim_end_matches('U').trim_end_matches('u');
    if let Some(digits) = integer.strip_prefix("0x").or_else(|| integer.strip_prefix("0X")) {
        return hex(digits).map(Number::Integer);
    }
    if let Some(digits) = integer.strip_prefix("0b").or_else(|| integer.strip_prefix("0B")) {
        return u64::from_str_radix(digits, 2).ok().map(Number::Integer);
    }
    if integer.len() > 1 && integer.starts_with('0') && integer.bytes().all(|b| b.is_ascii_digit()) {
        return u64::from_str_radix(integer, 8).ok().map(Number::Integer);
    }
    match integer.parse() {
        Ok(value) => Some(Number::Integer(value)),
        Err(_) if integer.bytes().all(|b| b.is_ascii_digit()) => None,
        Err(_) => text.parse::<f64>().ok().map(|value| Number::Double(value.to_bits())),
    }
}
