//! Where variables lie, and what they hold at first.

use std::collections::{HashMap, HashSet};

use crate::fault::{LoadError, LoadProblem, Space};
use crate::memory::{CONST_WINDOW, GLOBAL_WINDOW};
use crate::resolve::{Resolver, Symbol};
use crate::syntax::{Function, Initial, Number, Operand, Statement, Text, Variable};
use crate::types::Type;

/// Most bytes of the variables of one space: those of CUDA ("Technical Specifications per Compute
/// Capability" in the CUDA C++ Programming Guide) where there are such. A launch checks those of
/// shared memory together with what it adds.
fn limit(space: &str) -> usize {
    match space {
        "const" => 64 << 10,
        "local" => 512 << 10,
        "param" => 32_764,
        _ => 1 << 30,
    }
}

/// The `.const` and `.global` variables of a module.
#[derive(Clone, Debug, Default)]
pub(crate) struct Layout {
    pub constants: Vec<u8>,
    pub globals: Vec<u8>,
    pub symbols: HashMap<String, Symbol>,
}

/// An error at a line.
pub(super) fn at<T>(line: u32, result: Result<T, LoadProblem>) -> Result<T, LoadError> {
    result.map_err(|problem| LoadError { line, problem })
}

/// Size and alignment of a variable; size 0 for `name[]`.
pub(super) fn extent(variable: &Variable) -> Result<(usize, usize), LoadError> {
    let what = || format!("`{}` of type `.{}`", variable.name, variable.ty);
    let declaration =
        || LoadError { line: variable.line, problem: LoadProblem::Declaration { what: what() } };
    let ty = Type::parse(&variable.ty).filter(|ty| ty.bytes() > 0).ok_or_else(declaration)?;
    let elements = variable.elements.unwrap_or(variable.initial.len() as u64) as usize;
    let align = variable.align.map_or(ty.bytes(), |align| align as usize);
    let bytes = ty.bytes().checked_mul(elements).filter(|bytes| *bytes <= limit(&variable.space));
    if !align.is_power_of_two() || align > 1 << 16 {
        return Err(declaration());
    }
    Ok((bytes.ok_or_else(declaration)?, align))
}

/// The next offset for a variable, which `end` is moved behind.
pub(super) fn place(end: &mut usize, variable: &Variable) -> Result<usize, LoadError> {
    let (bytes, align) = extent(variable)?;
    let offset = end.next_multiple_of(align);
    *end = offset + bytes;
    let limit = limit(&variable.space);
    match *end <= limit {
        true => Ok(offset),
        false => {
            at(variable.line, Err(LoadProblem::Limit { what: "bytes of variables of one space", limit }))
        }
    }
}

/// Lays out the variables of a module.
pub(crate) fn layout(module: &Text) -> Result<Layout, LoadError> {
    let mut found = Layout::default();
    let (mut constants, mut globals) = (0, 0);
    let mut places = Vec::new();
    for variable in &module.variables {
        let (space, base, end) = match variable.space.as_str() {
            "const" => (Space::Const, CONST_WINDOW, &mut constants),
            "global" => (Space::Global, GLOBAL_WINDOW, &mut globals),
            _ => continue,
        };
        if variable.external {
            let what = format!("`.extern` variable `{}`: there is no other module", variable.name);
            return at(variable.line, Err(LoadProblem::Declaration { what }));
        }
        let offset = place(end, variable)?;
        let symbol = Symbol::Variable { space, address: base + offset as u64 };
        found.symbols.insert(variable.name.clone(), symbol);
        places.push((variable, space, offset));
    }
    found.constants.resize(constants, 0);
    found.globals.resize(globals, 0);
    for (variable, space, offset) in places {
        let bytes = initial(variable, &found.symbols)?;
        let to = if space == Space::Const { &mut found.constants } else { &mut found.globals };
        to[offset..offset + bytes.len()].copy_from_slice(&bytes);
    }
    Ok(found)
}

/// The bytes of an initialiser.
fn initial(variable: &Variable, symbols: &HashMap<String, Symbol>) -> Result<Vec<u8>, LoadError> {
    let (total, _) = extent(variable)?;
    let size = Type::parse(&variable.ty).map_or(1, Type::bytes);
    let mut bytes = Vec::new();
    for value in &variable.initial {
        let bits = match value {
            Initial::Number(Number::Integer(value)) => *value,
            Initial::Number(Number::Single(bits)) => u64::from(*bits),
            Initial::Number(Number::Double(bits)) if size == 4 => {
                u64::from((f64::from_bits(*bits) as f32).to_bits())
            }
            Initial::Number(Number::Double(bits)) => *bits,
            Initial::Address { name, offset, .. } => match symbols.get(name) {
                Some(Symbol::Variable { space, address }) => {
                    Resolver::generic(*space, *address).wrapping_add_signed(*offset)
                }
                _ => return at(variable.line, Err(LoadProblem::Undeclared { name: name.clone() })),
            },
        };
        bytes.extend(&bits.to_le_bytes()[..size.min(8)]);
    }
    match bytes.len() <= total {
        true => Ok(bytes),
        false => {
            let what = format!("`{}` with more values than elements", variable.name);
            at(variable.line, Err(LoadProblem::Declaration { what }))
        }
    }
}

/// The functions that a kernel calls, itself first.
pub(super) fn reachable<'t>(module: &'t Text, kernel: &'t Function) -> Vec<&'t Function> {
    let mut found = vec![kernel];
    let mut next = 0;
    while next < found.len() {
        let mut names = HashSet::new();
        mentions(&found[next].body, &mut names);
        for function in &module.functions {
            if names.contains(function.name.as_str()) && !found.iter().any(|f| f.name == function.name) {
                found.push(function);
            }
        }
        next += 1;
    }
    found
}

/// The names that operands use.
pub(super) fn mentions<'t>(statements: &'t [Statement], names: &mut HashSet<&'t str>) {
    for statement in statements {
        match statement {
            Statement::Scope(inner) => mentions(inner, names),
            Statement::Instruction(instruction) => {
                instruction.operands.iter().for_each(|operand| mention(operand, names));
            }
            _ => {}
        }
    }
}

fn mention<'t>(operand: &'t Operand, names: &mut HashSet<&'t str>) {
    match operand {
        Operand::Name(name) | Operand::Not(name) | Operand::Sum(name, _) => {
            names.insert(name);
        }
        Operand::Vector(items) | Operand::List(items) => items.iter().for_each(|o| mention(o, names)),
        Operand::Address { base, rest, .. } => {
            mention(base, names);
            rest.iter().for_each(|o| mention(o, names));
        }
        Operand::Pair(a, b) => {
            mention(a, names);
            mention(b, names);
        }
        Operand::Number(_) => {}
    }
}
