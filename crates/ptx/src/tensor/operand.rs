//! Operands of this module's instructions.

use crate::fault::{Cause, LoadProblem, Space};
use crate::machine::{Block, R32, R64, Trap, Warp, Who};
use crate::memory::{PARAM_WINDOW, space_of};
use crate::resolve::{Address, Base, Resolver};
use crate::syntax::{Instruction, Operand};

/// An opcode with a modifier, or a combination of them, that is not simulated.
pub(super) fn unknown(instruction: &Instruction, because: &str) -> LoadProblem {
    let because = if because.is_empty() { String::new() } else { format!(": {because}") };
    LoadProblem::UnknownOpcode { opcode: instruction.opcode(), because }
}

/// Refuses modifiers that are not among `known`.
pub(super) fn only(instruction: &Instruction, known: &[&str]) -> Result<(), LoadProblem> {
    match instruction.modifiers().iter().find(|part| !known.contains(&part.as_str())) {
        Some(part) => Err(unknown(instruction, &format!("`.{part}` is not"))),
        None => Ok(()),
    }
}

/// The operand at `at`, which the syntax may lack.
pub(super) fn operand(instruction: &Instruction, at: usize) -> Result<&Operand, LoadProblem> {
    let missing = || unknown(instruction, &format!("it has {} operands", instruction.operands.len()));
    instruction.operands.get(at).ok_or_else(missing)
}

/// Whether registers of a vector are read or written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Source,
    Result,
}

/// The registers of a vector, `count` of them.
pub(super) fn registers(
    instruction: &Instruction,
    names: &mut Resolver,
    at: usize,
    count: usize,
    role: Role,
) -> Result<Vec<R32>, LoadProblem> {
    let vector = operand(instruction, at)?;
    let elements = names.elements(vector);
    if elements.len() != count {
        return Err(names.wrong(vector, &format!("{count} registers of 32 bits")));
    }
    let register = |element| if role == Role::Result { names.to32(element) } else { names.r32(element) };
    elements.iter().map(register).collect()
}

/// An address in shared memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SharedAddress {
    address: Address,
    /// The opcode names no space.
    generic: bool,
}

impl SharedAddress {
    /// The operand at `at`; it is an offset if `names_shared`, which says what the opcode does.
    pub fn new(
        instruction: &Instruction,
        names: &mut Resolver,
        at: usize,
        names_shared: bool,
    ) -> Result<SharedAddress, LoadProblem> {
        let address = names.address(operand(instruction, at)?)?;
        let generic = !names_shared && address.names.is_none();
        Ok(SharedAddress { address, generic })
    }

    /// The offset in shared memory that a lane's registers give.
    pub fn offset(&self, warp: &Warp, lane: usize) -> Result<u64, Box<Trap>> {
        let at = value(&self.address, warp, lane)?;
        match space_of(at) {
            _ if !self.generic => Ok(at),
            (Space::Shared, offset) => Ok(offset),
            (space, _) => {
                let what = format!("{at:#x} is an address of {space}, where one of shared memory is needed");
                Err(Trap::lane(lane, Cause::Undefined { what }))
            }
        }
    }
}

/// Whether an opcode says that an address is one of shared memory.
pub(super) fn names_shared(instruction: &Instruction) -> bool {
    ["shared", "shared::cta", "shared::cluster"].iter().any(|space| instruction.has(space))
}

/// The address that a lane's registers give.
pub(super) fn value(address: &Address, warp: &Warp, lane: usize) -> Result<u64, Box<Trap>> {
    let base = match address.base {
        Base::Narrow(register) => u64::from(warp.registers.get32(register, 1 << lane)?[lane]),
        Base::Wide(register) => warp.registers.get64(register, 1 << lane)?[lane],
        Base::Fixed => 0,
    };
    Ok(base.wrapping_add_signed(address.offset))
}

/// Reads bytes at a generic address of global, constant or parameter space.
pub(super) fn read(block: &mut Block, who: Who, at: u64, to: &mut [u8]) -> Result<(), Box<Trap>> {
    let (space, offset) = space_of(at);
    let source = match space {
        Space::Global => return block.global_load(who, at, 1, to),
        Space::Param => block.arguments,
        Space::Const => block.constants,
        _ => &[],
    };
    match source.get(offset as usize..).and_then(|rest| rest.get(..to.len())) {
        Some(bytes) => {
            to.copy_from_slice(bytes);
            Ok(())
        }
        None => {
            let what = format!("{:#x} is no address of {} bytes in {space}", at, to.len());
            Err(Trap::lane(who.lane, Cause::Undefined { what }))
        }
    }
}

/// These instructions are for all lanes of a warp.
pub(super) fn whole_warp(active: u32) -> Result<(), Box<Trap>> {
    match !active {
        0 => Ok(()),
        absent => Err(Trap::warp(Cause::AbsentLanes { mask: u32::MAX, absent })),
    }
}

/// A value of 64 bits that is the same in all lanes.
pub(super) fn uniform(warp: &Warp, register: R64, what: &str) -> Result<u64, Box<Trap>> {
    let values = warp.registers.get64(register, u32::MAX)?;
    match values.iter().all(|value| *value == values[0]) {
        true => Ok(values[0]),
        false => Err(undefined(format!("{what} differs between lanes of the warp"))),
    }
}

/// A fault of the warp that has no kind of its own.
#[cold]
pub(super) fn undefined(what: String) -> Box<Trap> {
    Trap::warp(Cause::Undefined { what })
}

/// The generic address of an operand that has to be one: of a parameter it may be an offset.
pub(super) fn generic(address: &Address, at: u64) -> u64 {
    if address.names == Some(Space::Param) && at < PARAM_WINDOW { at + PARAM_WINDOW } else { at }
}
