//! PTX text to a syntax tree.

mod ast;

pub(crate) use ast::{Function, Initial, Instruction, Number, Operand, Statement, Text, Variable};
