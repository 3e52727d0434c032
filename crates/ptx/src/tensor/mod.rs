//! Opcodes of Tensor Cores and of bulk copies.

mod op;

use crate::fault::LoadProblem;
use crate::machine::{Block, Flow, Trap, Warp};
use crate::resolve::Resolver;
use crate::syntax::Instruction;

pub(crate) use op::TensorOp;

/// Whether an opcode is decoded here.
pub(crate) fn claims(_instruction: &Instruction) -> bool {
    false
}

/// The operation of an instruction that `claims` has taken.
pub(crate) fn decode(instruction: &Instruction, _names: &mut Resolver) -> Result<TensorOp, LoadProblem> {
    Err(LoadProblem::UnknownOpcode { opcode: instruction.opcode(), because: String::new() })
}

/// Executes an operation for the lanes `active` of a warp.
pub(crate) fn execute(
    operation: &TensorOp,
    _warp: &mut Warp,
    _block: &mut Block,
    _active: u32,
) -> Result<Flow, Box<Trap>> {
    match *operation {}
}
