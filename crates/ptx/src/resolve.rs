//! Names of one kernel: which register, constant or address each stands for.

use std::collections::HashMap;

use crate::fault::{LoadProblem, Space};
use crate::machine::{File, R32, R64, RP};
use crate::memory::SHARED_WINDOW;
use crate::syntax::{Instruction, Number, Operand};
use crate::types::Type;

/// A register with a value that a block or a launch gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Special {
    /// `%tid`, by axis.
    Tid(u8),
    Ntid(u8),
    Ctaid(u8),
    Nctaid(u8),
    LaneId,
    WarpId,
    Nwarpid,
    LanemaskEq,
    LanemaskLe,
    LanemaskLt,
    LanemaskGe,
    LanemaskGt,
    DynamicShared,
    TotalShared,
    /// What is 0 because there is one multiprocessor, and one block in a cluster.
    Zero,
    /// What is 1 for the same reason.
    One,
}

impl Special {
    fn parse(name: &str) -> Option<Special> {
        let axis = |rest: &str| match rest {
            "x" => Some(0),
            "y" => Some(1),
            "z" => Some(2),
            _ => None,
        };
        Some(match name.split_once('.') {
            Some(("%tid", rest)) => Special::Tid(axis(rest)?),
            Some(("%ntid", rest)) => Special::Ntid(axis(rest)?),
            Some(("%ctaid" | "%clusterid", rest)) => Special::Ctaid(axis(rest)?),
            Some(("%nctaid" | "%nclusterid", rest)) => Special::Nctaid(axis(rest)?),
            Some(("%cluster_ctaid", rest)) => axis(rest).map(|_| Special::Zero)?,
            Some(("%cluster_nctaid", rest)) => axis(rest).map(|_| Special::One)?,
            Some(_) => return None,
            None => match name {
                "%laneid" => Special::LaneId,
                "%warpid" => Special::WarpId,
                "%nwarpid" => Special::Nwarpid,
                "%lanemask_eq" => Special::LanemaskEq,
                "%lanemask_le" => Special::LanemaskLe,
                "%lanemask_lt" => Special::LanemaskLt,
                "%lanemask_ge" => Special::LanemaskGe,
                "%lanemask_gt" => Special::LanemaskGt,
                "%dynamic_smem_size" => Special::DynamicShared,
                "%total_smem_size" => Special::TotalShared,
                "%smid" | "%cluster_ctarank" => Special::Zero,
                "%nsmid" | "%cluster_nctarank" => Special::One,
                _ => return None,
            },
        })
    }
}

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Symbol {
    /// A register of a declared type.
    Register { file: File, number: u16, ty: Type },
    /// A variable: in shared memory an offset, else a generic address.
    Variable { space: Space, address: u64 },
}

/// The base of an address.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Base {
    Narrow(R32),
    Wide(R64),
    /// The address of a variable, or a number.
    Fixed,
}

/// An address operand: base plus offset.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Address {
    pub base: Base,
    pub offset: i64,
    /// The space of the variable that the operand names.
    pub names: Option<Space>,
}

/// What the registers of a kernel are, and hold at the start of a block.
#[derive(Clone, Debug, Default)]
pub(crate) struct Frame {
    /// Numbers of registers in the three files.
    pub sizes: [usize; 3],
    pub constants32: Vec<(R32, u32)>,
    pub constants64: Vec<(R64, u64)>,
    /// Predicates that are always true or false.
    pub constant_predicates: Vec<(RP, bool)>,
    pub specials: Vec<(R32, Special)>,
    /// Names as they are declared, for reports.
    pub names: HashMap<(File, u16), String>,
}

/// The names in scope while a kernel is decoded.
pub(crate) struct Resolver {
    pub frame: Frame,
    scopes: Vec<HashMap<String, Symbol>>,
    constants: HashMap<(File, u64), u16>,
    specials: HashMap<Special, R32>,
    /// The opcode that operands are resolved for.
    opcode: String,
    /// Its operands have 16 bits.
    halves: bool,
}

impl Resolver {
    /// No names but those of special registers.
    pub fn new() -> Resolver {
        Resolver {
            frame: Frame::default(),
            scopes: vec![HashMap::new()],
            constants: HashMap::new(),
            specials: HashMap::new(),
            opcode: String::new(),
            halves: false,
        }
    }

    /// Opens a scope; names declared from now on end with it.
    pub fn open(&mut self) {
        self.scopes.push(HashMap::new());
    }

    /// Closes the scope that was opened last.
    pub fn close(&mut self) {
        self.scopes.pop();
    }

    /// Declares a name in the scope that was opened last.
    pub fn declare(&mut self, name: &str, symbol: Symbol) {
        self.scopes.last_mut().expect("a scope is open").insert(name.to_string(), symbol);
    }

    /// Declares a register.
    pub fn declare_register(&mut self, name: &str, ty: Type) -> Result<(), LoadProblem> {
        let Some(file) = ty.file() else {
            return Err(LoadProblem::Declaration { what: format!("a register of type {ty:?}") });
        };
        let number = self.fresh(file)?;
        self.frame.names.insert((file, number), name.to_string());
        self.declare(name, Symbol::Register { file, number, ty });
        Ok(())
    }

    /// What a name stands for, from the innermost scope outwards.
    pub fn find(&self, name: &str) -> Option<Symbol> {
        self.scopes.iter().rev().find_map(|scope| scope.get(name)).copied()
    }

    /// The operands that follow belong to this instruction.
    pub fn begin(&mut self, instruction: &Instruction) {
        self.opcode.clear();
        self.opcode.push_str(instruction.stem());
        for part in instruction.modifiers() {
            self.opcode.push('.');
            self.opcode.push_str(part);
        }
        // The third operand of `mad.wide` has 32 bits; the function cuts the others itself.
        let wide = instruction.stem() == "mad" && instruction.has("wide");
        let ty = instruction.parts.last().and_then(|part| Type::parse(part));
        self.halves = !wide && ty.is_some_and(|ty| ty.bytes() == 2);
    }

    /// The operands that follow have this type.
    pub fn operands_of(&mut self, ty: Type) {
        self.halves = ty.bytes() == 2;
    }

    /// A register that no name stands for.
    pub fn fresh(&mut self, file: File) -> Result<u16, LoadProblem> {
        let size = &mut self.frame.sizes[file as usize];
        let number = u16::try_from(*size)
            .map_err(|_| LoadProblem::Limit { what: "registers of one kind in a kernel", limit: 1 << 16 })?;
        *size += 1;
        Ok(number)
    }

    /// An error about an operand.
    pub fn wrong(&self, operand: &Operand, expected: &str) -> LoadProblem {
        LoadProblem::Operand {
            operand: operand.to_string(),
            opcode: self.opcode.clone(),
            expected: expected.to_string(),
        }
    }

    /// A register of up to 32 bits: a name, an immediate, a special register, or the address of a
    /// variable in shared memory.
    pub fn r32(&mut self, operand: &Operand) -> Result<R32, LoadProblem> {
        match operand {
            Operand::Name(name) => match self.find(name) {
                Some(Symbol::Register { file: File::Bits32, number, .. }) => Ok(R32(number)),
                Some(Symbol::Variable { space: Space::Shared, address }) => self.constant32(address as u32),
                Some(_) => Err(self.wrong(operand, "a register of up to 32 bits")),
                None => self.special(name),
            },
            Operand::Sum(name, offset) => match self.find(name) {
                Some(Symbol::Variable { space: Space::Shared, address }) => {
                    self.constant32(address.wrapping_add_signed(*offset) as u32)
                }
                _ => Err(self.wrong(operand, "a variable in shared memory")),
            },
            Operand::Number(Number::Integer(value)) if self.halves => self.constant32(*value as u32 & 0xffff),
            Operand::Number(Number::Integer(value)) => self.constant32(*value as u32),
            Operand::Number(Number::Single(bits)) => self.constant32(*bits),
            Operand::Number(Number::Double(bits)) => {
                self.constant32((f64::from_bits(*bits) as f32).to_bits())
            }
            _ => Err(self.wrong(operand, "a register of up to 32 bits or a number")),
        }
    }

    /// A register of 64 bits: a name, an immediate or the address of a variable.
    pub fn r64(&mut self, operand: &Operand) -> Result<R64, LoadProblem> {
        match operand {
            Operand::Name(name) => match self.find(name) {
                Some(Symbol::Register { file: File::Bits64, number, .. }) => Ok(R64(number)),
                Some(Symbol::Variable { address, .. }) => self.constant64(address),
                Some(_) => Err(self.wrong(operand, "a register of 64 bits")),
                None => Err(LoadProblem::Undeclared { name: name.clone() }),
            },
            Operand::Sum(name, offset) => match self.find(name) {
                Some(Symbol::Variable { address, .. }) => {
                    self.constant64(address.wrapping_add_signed(*offset))
                }
                _ => Err(self.wrong(operand, "a variable")),
            },
            Operand::Number(Number::Integer(value)) => self.constant64(*value),
            Operand::Number(Number::Double(bits)) => self.constant64(*bits),
            Operand::Number(Number::Single(bits)) => {
                self.constant64(f64::from(f32::from_bits(*bits)).to_bits())
            }
            _ => Err(self.wrong(operand, "a register of 64 bits or a number")),
        }
    }

    /// A predicate: a name, or a number that is 0 or not.
    pub fn predicate(&mut self, operand: &Operand) -> Result<RP, LoadProblem> {
        match operand {
            Operand::Name(name) => match self.find(name) {
                Some(Symbol::Register { file: File::Predicate, number, .. }) => Ok(RP(number)),
                Some(_) => Err(self.wrong(operand, "a predicate")),
                None => Err(LoadProblem::Undeclared { name: name.clone() }),
            },
            Operand::Number(Number::Integer(value)) => self.constant_predicate(*value != 0),
            _ => Err(self.wrong(operand, "a predicate")),
        }
    }

    /// A predicate that may be negated: the register, and whether it is.
    pub fn signed_predicate(&mut self, operand: &Operand) -> Result<(RP, bool), LoadProblem> {
        match operand {
            Operand::Not(name) => Ok((self.predicate(&Operand::Name(name.clone()))?, true)),
            _ => Ok((self.predicate(operand)?, false)),
        }
    }

    /// Where a result of up to 32 bits goes; `_` is a register that nothing reads.
    pub fn to32(&mut self, operand: &Operand) -> Result<R32, LoadProblem> {
        match operand {
            Operand::Name(name) if name == "_" => self.fresh(File::Bits32).map(R32),
            Operand::Name(name) if self.find(name).is_some() => match self.r32(operand)? {
                register if matches!(self.find(name), Some(Symbol::Register { .. })) => Ok(register),
                _ => Err(self.wrong(operand, "a register that can be written")),
            },
            _ => Err(self.wrong(operand, "a declared register of up to 32 bits")),
        }
    }

    /// Where a result of 64 bits goes; `_` is a register that nothing reads.
    pub fn to64(&mut self, operand: &Operand) -> Result<R64, LoadProblem> {
        match operand {
            Operand::Name(name) if name == "_" => self.fresh(File::Bits64).map(R64),
            Operand::Name(name) => match self.find(name) {
                Some(Symbol::Register { file: File::Bits64, number, .. }) => Ok(R64(number)),
                _ => Err(self.wrong(operand, "a declared register of 64 bits")),
            },
            _ => Err(self.wrong(operand, "a declared register of 64 bits")),
        }
    }

    /// Where a predicate goes; `_` is a predicate that nothing reads.
    pub fn result_predicate(&mut self, operand: &Operand) -> Result<RP, LoadProblem> {
        match operand {
            Operand::Name(name) if name == "_" => self.fresh(File::Predicate).map(RP),
            Operand::Name(_) => self.predicate(operand),
            _ => Err(self.wrong(operand, "a declared predicate")),
        }
    }

    /// The operands of a vector, or the one operand that is none.
    pub fn elements<'a>(&self, operand: &'a Operand) -> &'a [Operand] {
        match operand {
            Operand::Vector(elements) => elements,
            one => std::slice::from_ref(one),
        }
    }

    /// A number that has to stand in the text.
    pub fn immediate(&self, operand: &Operand) -> Result<u64, LoadProblem> {
        match operand {
            Operand::Number(Number::Integer(value)) => Ok(*value),
            _ => Err(self.wrong(operand, "an integer in the text")),
        }
    }

    /// An address in brackets.
    pub fn address(&mut self, operand: &Operand) -> Result<Address, LoadProblem> {
        let Operand::Address { base, offset, .. } = operand else {
            return Err(self.wrong(operand, "an address in brackets"));
        };
        let fixed = |address: u64, names| Address {
            base: Base::Fixed,
            offset: address.wrapping_add_signed(*offset) as i64,
            names,
        };
        match &**base {
            Operand::Number(Number::Integer(value)) => Ok(fixed(*value, None)),
            Operand::Name(name) => match self.find(name) {
                Some(Symbol::Register { file: File::Bits32, number, .. }) => {
                    Ok(Address { base: Base::Narrow(R32(number)), offset: *offset, names: None })
                }
                Some(Symbol::Register { file: File::Bits64, number, .. }) => {
                    Ok(Address { base: Base::Wide(R64(number)), offset: *offset, names: None })
                }
                Some(Symbol::Variable { space, address }) => Ok(fixed(address, Some(space))),
                Some(_) => Err(self.wrong(operand, "an address in a register or of a variable")),
                None => Err(LoadProblem::Undeclared { name: name.clone() }),
            },
            _ => Err(self.wrong(operand, "an address in a register or of a variable")),
        }
    }

    /// The generic address of a variable.
    pub fn generic(space: Space, address: u64) -> u64 {
        if space == Space::Shared { address + SHARED_WINDOW } else { address }
    }

    /// A register that holds a number in every lane.
    pub fn constant32(&mut self, value: u32) -> Result<R32, LoadProblem> {
        if let Some(&number) = self.constants.get(&(File::Bits32, u64::from(value))) {
            return Ok(R32(number));
        }
        let register = R32(self.fresh(File::Bits32)?);
        self.constants.insert((File::Bits32, u64::from(value)), register.0);
        self.frame.constants32.push((register, value));
        Ok(register)
    }

    /// As [`Resolver::constant32`].
    pub fn constant64(&mut self, value: u64) -> Result<R64, LoadProblem> {
        if let Some(&number) = self.constants.get(&(File::Bits64, value)) {
            return Ok(R64(number));
        }
        let register = R64(self.fresh(File::Bits64)?);
        self.constants.insert((File::Bits64, value), register.0);
        self.frame.constants64.push((register, value));
        Ok(register)
    }

    /// A predicate that is the same in every lane.
    pub fn constant_predicate(&mut self, value: bool) -> Result<RP, LoadProblem> {
        if let Some(&number) = self.constants.get(&(File::Predicate, u64::from(value))) {
            return Ok(RP(number));
        }
        let register = RP(self.fresh(File::Predicate)?);
        self.constants.insert((File::Predicate, u64::from(value)), register.0);
        self.frame.constant_predicates.push((register, value));
        Ok(register)
    }

    fn special(&mut self, name: &str) -> Result<R32, LoadProblem> {
        let special =
            Special::parse(name).ok_or_else(|| LoadProblem::Undeclared { name: name.to_string() })?;
        if let Some(&register) = self.specials.get(&special) {
            return Ok(register);
        }
        let register = R32(self.fresh(File::Bits32)?);
        self.specials.insert(special, register);
        self.frame.specials.push((register, special));
        Ok(register)
    }
}
