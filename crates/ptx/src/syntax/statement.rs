//! Labels, instructions and their operands.

use super::ast::{Instruction, Operand, Statement};
use super::cursor::Cursor;
use super::lexer::Kind;
use crate::fault::LoadError;

/// Deepest nesting of operands.
const DEPTH: usize = 8;

/// `name:`, or a list of branch targets with that name.
pub(super) fn label(cursor: &mut Cursor) -> Result<Statement, LoadError> {
    let line = cursor.peek().line;
    let name = cursor.word()?.to_string();
    cursor.expect(':')?;
    if !cursor.accept_word(".branchtargets") {
        return Ok(Statement::Label { line, name });
    }
    let mut labels = vec![cursor.word()?.to_string()];
    while cursor.accept(',') {
        labels.push(cursor.word()?.to_string());
    }
    cursor.expect(';')?;
    Ok(Statement::Targets { name, labels })
}

/// An instruction and its semicolon.
pub(super) fn instruction(cursor: &mut Cursor) -> Result<Statement, LoadError> {
    let begin = cursor.peek();
    let guard = match cursor.accept('@') {
        true => {
            let negated = cursor.accept('!');
            Some((cursor.word()?.to_string(), negated))
        }
        false => None,
    };
    let opcode = cursor.word()?;
    let parts = opcode.split('.').map(str::to_string).collect();
    let mut operands = Vec::new();
    while !cursor.at_mark(';') {
        if !operands.is_empty() {
            cursor.expect(',')?;
        }
        operands.push(operand(cursor, 0)?);
    }
    let end = cursor.expect(';')?;
    let source = cursor.text[begin.at..end.at].split_whitespace().collect::<Vec<_>>().join(" ");
    Ok(Statement::Instruction(Instruction { line: begin.line, source, guard, parts, operands }))
}

fn operand(cursor: &mut Cursor, depth: usize) -> Result<Operand, LoadError> {
    let first = single(cursor, depth)?;
    if depth < DEPTH && cursor.accept('|') {
        let second = single(cursor, depth + 1)?;
        return Ok(Operand::Pair(Box::new(first), Box::new(second)));
    }
    Ok(first)
}

fn single(cursor: &mut Cursor, depth: usize) -> Result<Operand, LoadError> {
    if depth > DEPTH {
        return Err(cursor.wrong("operands that are nested less deeply"));
    }
    match cursor.peek().kind {
        Kind::Mark('!') => {
            cursor.take();
            Ok(Operand::Not(cursor.word()?.to_string()))
        }
        Kind::Mark('{') => {
            cursor.take();
            Ok(Operand::Vector(list(cursor, '}', depth)?))
        }
        Kind::Mark('(') => {
            cursor.take();
            Ok(Operand::List(list(cursor, ')', depth)?))
        }
        Kind::Mark('[') => {
            cursor.take();
            address(cursor, depth)
        }
        Kind::Word => {
            let name = cursor.word()?.to_string();
            if cursor.at_mark('+') || cursor.at_mark('-') {
                return Ok(Operand::Sum(name, cursor.integer()? as i64));
            }
            Ok(Operand::Name(name))
        }
        _ => Ok(Operand::Number(cursor.number()?)),
    }
}

fn list(cursor: &mut Cursor, close: char, depth: usize) -> Result<Vec<Operand>, LoadError> {
    let mut items = Vec::new();
    while !cursor.accept(close) {
        if !items.is_empty() {
            cursor.expect(',')?;
        }
        items.push(operand(cursor, depth + 1)?);
    }
    Ok(items)
}

/// What stands behind `[`.
fn address(cursor: &mut Cursor, depth: usize) -> Result<Operand, LoadError> {
    let (base, offset) = match single(cursor, depth + 1)? {
        Operand::Sum(name, offset) => (Operand::Name(name), offset),
        base => (base, 0),
    };
    let mut rest = Vec::new();
    while cursor.accept(',') {
        rest.push(operand(cursor, depth + 1)?);
    }
    cursor.expect(']')?;
    Ok(Operand::Address { base: Box::new(base), offset, rest })
}
