//! Opcodes of Tensor Cores and of bulk copies.

mod barrier;
mod bulk;
mod group;
mod matrix;
mod op;
mod operand;
mod warp;

use crate::fault::{Cause, LoadProblem};
use crate::machine::{Block, BulkCopy, Flow, R32, Trap, Warp};
use crate::resolve::Resolver;
use crate::syntax::Instruction;

pub(crate) use op::TensorOp;

/// Whether an opcode is decoded here.
pub(crate) fn claims(instruction: &Instruction) -> bool {
    [warp::claims, barrier::claims, bulk::claims, group::claims].iter().any(|claims| claims(instruction))
}

/// The operation of an instruction that `claims` has taken.
pub(crate) fn decode(instruction: &Instruction, names: &mut Resolver) -> Result<TensorOp, LoadProblem> {
    if barrier::claims(instruction) {
        return barrier::decode(instruction, names).map(TensorOp::Barrier);
    }
    if bulk::claims(instruction) {
        return bulk::decode(instruction, names).map(TensorOp::Bulk);
    }
    if group::claims(instruction) {
        return group::decode(instruction, names).map(TensorOp::Group);
    }
    warp::decode(instruction, names).map(TensorOp::Warp)
}

/// Executes an operation for the lanes `active` of a warp.
pub(crate) fn execute(
    operation: &TensorOp,
    warp: &mut Warp,
    block: &mut Block,
    active: u32,
) -> Result<Flow, Box<Trap>> {
    match operation {
        TensorOp::Warp(operation) => warp::execute(operation, warp, block, active),
        TensorOp::Barrier(operation) => barrier::execute(operation, warp, block, active),
        TensorOp::Bulk(operation) => bulk::execute(operation, warp, block, active),
        TensorOp::Group(operation) => group::execute(operation, warp, block, active),
    }
}

/// Lets one bulk copy to shared memory arrive, for when every warp waits; none if there is none.
///
/// A fault belongs to the instruction that asked for the copy, which is returned with it.
pub(crate) fn deliver(block: &mut Block) -> Result<bool, Box<(BulkCopy, Box<Trap>)>> {
    let Some(copy) = block.bulk.next() else { return Ok(false) };
    match bulk::carry_out(block, &copy) {
        Ok(()) => Ok(true),
        Err(trap) => Err(Box::new((copy, trap))),
    }
}

/// Whether a product in flight writes a register of a warp.
pub(crate) fn writes(block: &Block, warp: usize, register: R32) -> bool {
    let products = block.products.get(warp).map_or(&[][..], |products| &products.in_flight);
    products.iter().any(|product| product.d.contains(&register))
}

/// What the mbarriers of a block wait for, in words, for the report of a deadlock.
pub(crate) fn waiting(block: &Block) -> Vec<String> {
    bulk::lacking(block)
}

/// Whether a block may end: nothing that it asked for is on its way.
pub(crate) fn end(block: &Block) -> Result<(), Box<Trap>> {
    let ends = |what: &str| Err(operand::undefined(format!("the block ends while {what} is on its way")));
    if !block.bulk.in_flight.is_empty() {
        return ends("a bulk copy");
    }
    if block.products.iter().any(|products| !products.in_flight.is_empty()) {
        return ends("a wgmma product");
    }
    let asked = |warp: usize| block.products.get(warp).map_or(0, |products| products.issued);
    let mut groups = block.agreed.iter().enumerate();
    if groups.any(|(group, agreed)| (group * 4..group * 4 + 4).any(|warp| asked(warp) != agreed.len())) {
        let what = "a wgmma product was not asked for by all four warps of its group".to_string();
        return Err(Trap::warp(Cause::Undefined { what }));
    }
    Ok(())
}
