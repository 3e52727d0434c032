//! PTX text to a syntax tree.

mod ast;
mod cursor;
mod lexer;
mod parser;
mod statement;

pub(crate) use ast::{Function, Initial, Instruction, Number, Operand, Statement, Text, Variable};
pub(crate) use parser::parse;
