//! From the syntax of a kernel to instructions that can run.
//!
//! Functions are put in place of their calls; the parameters of a call are local memory.

mod body;
mod memory;
mod pure;
mod variables;
mod warpwide;

use std::collections::{HashMap, HashSet};

use body::{Body, operand, unknown};
pub(crate) use variables::{Layout, layout};
use variables::{at, extent, mentions, place, reachable};

use crate::fault::{LoadError, LoadProblem, Space};
use crate::machine::Kind;
use crate::memory::{LOCAL_WINDOW, PARAM_WINDOW};
use crate::op::{Op, Program};
use crate::resolve::{Resolver, Symbol};
use crate::syntax::{Function, Instruction, Operand, Statement, Text, Variable};
use crate::tensor;
use crate::types::Type;

/// Most instructions of a kernel.
const INSTRUCTIONS: usize = 1 << 20;
/// Most calls within each other.
const CALLS: usize = 32;
/// The label at the end of a function that is put in place.
const RETURN: &str = "the end of the function";
/// The label behind a call.
const BEHIND: &str = "behind the call";

struct Decoder<'t> {
    module: &'t Text,
    body: Body,
    /// Offsets of the shared variables of bodies, by line and name.
    shared: HashMap<(u32, String), usize>,
    local: usize,
    /// Functions that are being put in place.
    calls: Vec<&'t str>,
    /// Statements so far: a function may make no instruction, and be called without end.
    statements: usize,
}

/// Decodes a kernel of a module.
pub(crate) fn program(module: &Text, kernel: &Function, layout: &Layout) -> Result<Program, LoadError> {
    let mut names = Resolver::new();
    for (name, symbol) in &layout.symbols {
        names.declare(name, *symbol);
    }
    let mut decoder = Decoder {
        module,
        body: Body::new(names),
        shared: HashMap::new(),
        local: 0,
        calls: Vec::new(),
        statements: 0,
    };
    let shared_bytes = decoder.shared_variables(kernel)?;
    let (parameters, parameter_bytes) = decoder.parameters(kernel)?;
    decoder.statements(&kernel.body)?;
    decoder.body.emit(Kind::Branch, Op::Exit);
    decoder.body.link().map_err(|(problem, line)| LoadError { line, problem })?;
    let directive = |name: &str| {
        let numbers = &kernel.directives.iter().find(|(found, _)| found == name)?.1;
        Some([0, 1, 2].map(|axis| numbers.get(axis).copied().unwrap_or(1)))
    };
    let body = decoder.body;
    Ok(Program {
        name: kernel.name.clone(),
        code: body.code,
        sources: body.sources,
        tables: body.tables.into_iter().map(Vec::into_boxed_slice).collect(),
        frame: body.names.frame,
        parameters,
        parameter_bytes,
        shared_bytes: shared_bytes as u32,
        local_bytes: decoder.local as u32,
        granules: body.granules,
        required_threads: directive(".reqntid"),
        most_threads: directive(".maxntid").map(|n| n.iter().fold(1u32, |a, b| a.saturating_mul(*b))),
    })
}

impl<'t> Decoder<'t> {
    /// Places the shared variables that a kernel and what it calls use; what a launch adds comes
    /// last. Returns the bytes in front of that.
    fn shared_variables(&mut self, kernel: &'t Function) -> Result<usize, LoadError> {
        let mut end = 0;
        let mut names = HashSet::new();
        for function in reachable(self.module, kernel) {
            mentions(&function.body, &mut names);
            self.shared_of(&function.body, &mut end)?;
        }
        let used =
            |variable: &&Variable| variable.space == "shared" && names.contains(variable.name.as_str());
        let dynamic = |variable: &Variable| variable.external || variable.elements.is_none();
        for variable in self.module.variables.iter().filter(used).filter(|v| !dynamic(v)) {
            let address = place(&mut end, variable)? as u64;
            self.body.names.declare(&variable.name, Symbol::Variable { space: Space::Shared, address });
        }
        let behind: Vec<&Variable> =
            self.module.variables.iter().filter(used).filter(|v| dynamic(v)).collect();
        for variable in &behind {
            end = end.next_multiple_of(extent(variable)?.1);
        }
        for variable in behind {
            let symbol = Symbol::Variable { space: Space::Shared, address: end as u64 };
            self.body.names.declare(&variable.name, symbol);
        }
        Ok(end)
    }

    fn shared_of(&mut self, statements: &[Statement], end: &mut usize) -> Result<(), LoadError> {
        for statement in statements {
            match statement {
                Statement::Scope(inner) => self.shared_of(inner, end)?,
                Statement::Variable(variable) if variable.space == "shared" => {
                    let offset = place(end, variable)?;
                    self.shared.insert((variable.line, variable.name.clone()), offset);
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Places the parameters of a kernel; returns offsets and sizes, and the bytes of all.
    fn parameters(&mut self, kernel: &Function) -> Result<(Vec<(u32, u32)>, u32), LoadError> {
        let mut end = 0;
        let mut places = Vec::new();
        for param in &kernel.params {
            let offset = place(&mut end, param)?;
            let symbol = Symbol::Variable { space: Space::Param, address: PARAM_WINDOW + offset as u64 };
            self.body.names.declare(&param.name, symbol);
            places.push((offset as u32, (end - offset) as u32));
        }
        Ok((places, end as u32))
    }

    fn statements(&mut self, statements: &'t [Statement]) -> Result<(), LoadError> {
        for statement in statements {
            match statement {
                Statement::Registers { line, ty, names } => at(*line, self.registers(ty, names))?,
                Statement::Variable(variable) => self.variable(variable)?,
                Statement::Label { name, .. } => self.body.label(name),
                Statement::Targets { name, labels } => {
                    self.body.targets.insert(name.clone(), labels.clone());
                }
                Statement::Scope(inner) => {
                    let outer = self.body.open(false);
                    self.statements(inner)?;
                    self.body.close(outer);
                }
                Statement::Instruction(text) => {
                    at(text.line, self.body.begin(text))?;
                    match text.stem() {
                        "call" => self.call(text)?,
                        _ => at(text.line, self.instruction(text))?,
                    }
                    self.body.end();
                    self.statements += 1;
                    if self.body.code.len().max(self.statements) > INSTRUCTIONS {
                        let what = "instructions of a kernel";
                        return at(text.line, Err(LoadProblem::Limit { what, limit: INSTRUCTIONS }));
                    }
                }
            }
        }
        Ok(())
    }

    fn registers(&mut self, ty: &str, names: &[(String, Option<u32>)]) -> Result<(), LoadProblem> {
        let what = || LoadProblem::Declaration { what: format!("registers of type `.{ty}`") };
        let ty = Type::parse(ty).ok_or_else(what)?;
        for (name, count) in names {
            match count {
                None => self.body.names.declare_register(name, ty)?,
                Some(count) => {
                    for at in 0..*count {
                        self.body.names.declare_register(&format!("{name}{at}"), ty)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// A variable inside of a body.
    fn variable(&mut self, variable: &Variable) -> Result<(), LoadError> {
        let symbol = match variable.space.as_str() {
            "shared" => {
                let key = (variable.line, variable.name.clone());
                let address = self.shared.get(&key).copied().unwrap_or_default() as u64;
                Symbol::Variable { space: Space::Shared, address }
            }
            "local" | "param" => {
                let address = LOCAL_WINDOW + place(&mut self.local, variable)? as u64;
                Symbol::Variable { space: Space::Local, address }
            }
            space => {
                let what = format!("a variable of `.{space}` inside of a body");
                return at(variable.line, Err(LoadProblem::Declaration { what }));
            }
        };
        self.body.names.declare(&variable.name, symbol);
        Ok(())
    }

    fn instruction(&mut self, text: &Instruction) -> Result<(), LoadProblem> {
        let body = &mut self.body;
        if tensor::claims(text) {
            let operation = tensor::decode(text, &mut body.names)?;
            body.emit(operation.kind(), Op::Tensor(Box::new(operation)));
            return Ok(());
        }
        match text.stem() {
            "ld" | "ldu" | "st" | "atom" | "red" | "cp" => memory::decode(body, text),
            "bar" | "barrier" | "membar" | "fence" | "shfl" | "vote" | "match" | "redux" | "activemask"
            | "elect" => warpwide::decode(body, text),
            "bra" => match operand(text, 0)? {
                Operand::Name(label) => {
                    body.branch(label);
                    Ok(())
                }
                other => Err(body.names.wrong(other, "a label")),
            },
            "brx" => {
                let index = body.names.r32(operand(text, 0)?)?;
                let Operand::Name(list) = operand(text, 1)? else {
                    return Err(unknown(text, ": its second operand is no list of labels"));
                };
                let missing = || LoadProblem::Undeclared { name: list.clone() };
                let labels = body.targets.get(list).cloned().ok_or_else(missing)?;
                let table = body.table(&labels);
                body.emit(Kind::Branch, Op::BranchTable { index, table });
                Ok(())
            }
            "ret" if !self.calls.is_empty() => {
                body.branch(RETURN);
                Ok(())
            }
            "ret" | "exit" => {
                body.emit(Kind::Branch, Op::Exit);
                Ok(())
            }
            "trap" => {
                body.emit(Kind::Branch, Op::Trap);
                Ok(())
            }
            // What changes how soon something happens, but no result.
            "nanosleep" | "griddepcontrol" | "setmaxnreg" | "prefetch" | "prefetchu" | "discard"
            | "applypriority" | "pmevent" => {
                body.emit(Kind::Barrier, Op::Nothing);
                Ok(())
            }
            "createpolicy" => {
                let to = body.names.to64(operand(text, 0)?)?;
                let from = body.names.constant64(0)?;
                body.emit(Kind::Integer, Op::Move64(to, from));
                Ok(())
            }
            _ => pure::decode(body, text),
        }
    }

    /// Puts a function in place of its call.
    fn call(&mut self, text: &'t Instruction) -> Result<(), LoadError> {
        let wrong = |because: &str| LoadError { line: text.line, problem: unknown(text, because) };
        let list = |operand: Option<&'t Operand>| match operand {
            Some(Operand::List(items)) => Some(items.as_slice()),
            _ => None,
        };
        let mut rest = text.operands.as_slice();
        let returns = list(rest.first()).inspect(|_| rest = &rest[1..]).unwrap_or_default();
        let Some(Operand::Name(name)) = rest.first() else {
            return Err(wrong(": its target is not a name"));
        };
        let arguments = list(rest.get(1)).unwrap_or_default();
        let found = self.module.functions.iter().find(|f| !f.entry && f.name == *name);
        let function = found.ok_or_else(|| wrong(&format!(": `{name}` has no body in this module")))?;
        if self.calls.contains(&function.name.as_str()) {
            return Err(wrong(": the function calls itself"));
        }
        if self.calls.len() == CALLS {
            return at(text.line, Err(LoadProblem::Limit { what: "calls within each other", limit: CALLS }));
        }
        if function.params.len() != arguments.len() || function.returns.len() != returns.len() {
            return Err(wrong(&format!(": `{name}` takes other parameters")));
        }
        let mut aliases = Vec::new();
        let formals = function.params.iter().chain(&function.returns);
        for (formal, actual) in formals.zip(arguments.iter().chain(returns)) {
            let symbol = match actual {
                Operand::Name(name) => self.body.names.find(name),
                _ => None,
            };
            aliases.push((&formal.name, symbol.ok_or_else(|| wrong(": an argument is not a variable"))?));
        }
        let around = self.body.open(false);
        self.body.branch_around(BEHIND);
        let outer = self.body.open(true);
        for (name, symbol) in aliases {
            self.body.names.declare(name, symbol);
        }
        self.calls.push(&function.name);
        self.statements(&function.body)?;
        self.calls.pop();
        self.body.label(RETURN);
        self.body.close(outer);
        self.body.label(BEHIND);
        self.body.close(around);
        Ok(())
    }
}
