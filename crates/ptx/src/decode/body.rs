//! The kernel that is being decoded.

use std::collections::HashMap;

use crate::fault::{LoadProblem, Space};
use crate::machine::{File, Kind, RP};
use crate::op::{Instruction, Op, Value};
use crate::resolve::{Resolver, Symbol};
use crate::syntax::{Instruction as Text, Operand};
use crate::types::Type;

/// A scope of labels.
#[derive(Debug, Default)]
struct Labels {
    outer: Option<usize>,
    at: HashMap<String, u32>,
}

/// Where the target of a branch has to be put in.
#[derive(Debug)]
enum Pending {
    Branch(usize),
    Table(usize, usize),
}

/// A body that is being decoded.
pub(super) struct Body {
    pub names: Resolver,
    pub code: Vec<Instruction>,
    pub sources: Vec<(String, u32)>,
    pub tables: Vec<Vec<u32>>,
    /// Lists of branch targets by their names.
    pub targets: HashMap<String, Vec<String>>,
    /// Smallest access to shared and to global memory.
    pub granules: [usize; 2],
    /// The guard of the instruction at hand.
    guard: Option<(RP, bool)>,
    source: (String, u32),
    scopes: Vec<Labels>,
    scope: usize,
    pending: Vec<(Pending, String, usize, u32)>,
}

impl Body {
    /// A body with no code.
    pub fn new(names: Resolver) -> Body {
        Body {
            names,
            code: Vec::new(),
            sources: Vec::new(),
            tables: Vec::new(),
            targets: HashMap::new(),
            granules: [4, 4],
            guard: None,
            source: (String::new(), 0),
            scopes: vec![Labels::default()],
            scope: 0,
            pending: Vec::new(),
        }
    }

    /// Opens a scope of names and labels; with `function`, labels outside of it are not seen.
    /// Returns the scope to go back to.
    pub fn open(&mut self, function: bool) -> usize {
        self.names.open();
        let outer = (!function).then_some(self.scope);
        self.scopes.push(Labels { outer, at: HashMap::new() });
        std::mem::replace(&mut self.scope, self.scopes.len() - 1)
    }

    /// Closes the scope, and goes back to another one.
    pub fn close(&mut self, to: usize) {
        self.names.close();
        self.scope = to;
    }

    /// A label in front of the next instruction.
    pub fn label(&mut self, name: &str) {
        let at = self.code.len() as u32;
        self.scopes[self.scope].at.insert(name.to_string(), at);
    }

    /// The instructions that follow come from this text.
    pub fn begin(&mut self, text: &Text) -> Result<(), LoadProblem> {
        self.names.begin(text);
        self.source = (text.source.clone(), text.line);
        self.guard = match &text.guard {
            Some((name, negated)) => Some((self.names.predicate(&Operand::Name(name.clone()))?, *negated)),
            None => None,
        };
        Ok(())
    }

    /// The text at hand is decoded: what is appended without a text of its own has no guard.
    pub fn end(&mut self) {
        self.guard = None;
    }

    /// Appends an instruction.
    pub fn emit(&mut self, kind: Kind, op: Op) {
        self.code.push(Instruction { op, kind, guard: self.guard });
        self.sources.push(self.source.clone());
    }

    /// Appends a branch to a label that may come later.
    pub fn branch(&mut self, label: &str) {
        self.pending.push((Pending::Branch(self.code.len()), label.into(), self.scope, self.source.1));
        self.emit(Kind::Branch, Op::Branch(0));
    }

    /// Appends a branch for the lanes where the guard of the instruction at hand does not hold.
    pub fn branch_around(&mut self, label: &str) {
        if let Some((by, negated)) = self.guard {
            self.guard = Some((by, !negated));
            self.branch(label);
        }
    }

    /// A table of labels; returns its number.
    pub fn table(&mut self, labels: &[String]) -> u32 {
        let table = self.tables.len();
        self.tables.push(vec![0; labels.len()]);
        for (at, label) in labels.iter().enumerate() {
            let place = Pending::Table(table, at);
            self.pending.push((place, label.clone(), self.scope, self.source.1));
        }
        table as u32
    }

    /// Puts in the targets of branches.
    pub fn link(&mut self) -> Result<(), (LoadProblem, u32)> {
        for (place, label, scope, line) in std::mem::take(&mut self.pending) {
            let mut scope = Some(scope);
            let target = loop {
                let Some(labels) = scope.map(|at| &self.scopes[at]) else {
                    return Err((LoadProblem::Undeclared { name: label }, line));
                };
                match labels.at.get(&label) {
                    Some(target) => break *target,
                    None => scope = labels.outer,
                }
            };
            match place {
                Pending::Branch(at) => self.code[at].op = Op::Branch(target),
                Pending::Table(table, at) => self.tables[table][at] = target,
            }
        }
        Ok(())
    }

    /// The type of a declared register.
    pub fn type_of(&self, operand: &Operand) -> Option<Type> {
        match operand {
            Operand::Name(name) => match self.names.find(name) {
                Some(Symbol::Register { ty, .. }) => Some(ty),
                _ => None,
            },
            _ => None,
        }
    }

    /// Where a value goes: the file is that of the register; `_` has the one of `bytes`.
    pub fn result_value(&mut self, operand: &Operand, bytes: usize) -> Result<Value, LoadProblem> {
        Ok(match self.wide(operand, bytes)? {
            true => Value::Wide(self.names.to64(operand)?),
            false => Value::Narrow(self.names.to32(operand)?),
        })
    }

    /// A value to read: the file is that of the register; a number has the one of `bytes`.
    pub fn source_value(&mut self, operand: &Operand, bytes: usize) -> Result<Value, LoadProblem> {
        Ok(match self.wide(operand, bytes)? {
            true => Value::Wide(self.names.r64(operand)?),
            false => Value::Narrow(self.names.r32(operand)?),
        })
    }

    /// Whether a value lies in a register of 64 bits; a register that is narrower than the value is
    /// refused, as PTX has it.
    fn wide(&self, operand: &Operand, bytes: usize) -> Result<bool, LoadProblem> {
        match self.type_of(operand) {
            Some(ty) if ty.bytes() < bytes => {
                Err(self.names.wrong(operand, &format!("a register of {} bits or more", 8 * bytes)))
            }
            ty => Ok(ty.map_or(bytes == 8, |ty| ty.bytes() == 8)),
        }
    }

    /// A predicate that nothing names.
    pub fn fresh_predicate(&mut self) -> Result<RP, LoadProblem> {
        self.names.fresh(File::Predicate).map(RP)
    }

    /// Notes that memory is accessed in pieces of so many bytes.
    pub fn granule(&mut self, space: Option<Space>, bytes: usize) {
        for (at, of) in [(0, Space::Shared), (1, Space::Global)] {
            if space.is_none_or(|space| space == of) {
                self.granules[at] = self.granules[at].min(bytes);
            }
        }
    }
}

/// The operand at `at`.
pub(super) fn operand(text: &Text, at: usize) -> Result<&Operand, LoadProblem> {
    text.operands
        .get(at)
        .ok_or_else(|| unknown(text, &format!(": it has {} operands, and needs more", text.operands.len())))
}

/// An opcode or modifier that is not simulated.
pub(super) fn unknown(text: &Text, because: &str) -> LoadProblem {
    LoadProblem::UnknownOpcode { opcode: text.opcode(), because: because.to_string() }
}
