//! One instruction.

use super::{atomic, barrier, copy, lanes, memory, pure};
use crate::fault::Cause;
use crate::machine::{Block, Flow, Trap, Warp};
use crate::memory::Strength;
use crate::op::Op;
use crate::tensor;

/// Executes an instruction that does not change where the warp goes on, in the lanes `m` of those
/// that are `together` in this place.
#[inline]
pub(super) fn step(
    op: &Op,
    warp: &mut Warp,
    block: &mut Block,
    m: u32,
    together: u32,
) -> Result<Flow, Box<Trap>> {
    match op {
        Op::Pure(f) => pure::apply(f, warp, m)?,
        Op::Move32(to, from) => warp.registers.copy32(*to, *from, m),
        Op::Move64(to, from) => warp.registers.copy64(*to, *from, m),
        Op::MovePredicate(to, from) => warp.registers.copy_predicate(*to, *from, m),
        Op::Compare(set) => pure::compare(set, warp, m)?,
        Op::Select32 { to, yes, no, by } => {
            let by = warp.registers.get_predicate(*by, m)?;
            pure::select32(warp, m, *to, [*yes, *no], by)?;
        }
        Op::Select64 { to, yes, no, by } => {
            let by = warp.registers.get_predicate(*by, m)?;
            pure::select64(warp, m, *to, [*yes, *no], by)?;
        }
        Op::Logic { logic, to, a, b } => {
            let r = &mut warp.registers;
            let value = pure::logic(*logic, r.get_predicate(*a, m)?, r.get_predicate(*b, m)?);
            r.set_predicate(*to, m, value);
        }
        Op::Not { to, a } => {
            let value = !warp.registers.get_predicate(*a, m)?;
            warp.registers.set_predicate(*to, m, value);
        }
        Op::Convert { by, to, a, b } => pure::conversion(by, [*to, *a, *b], warp, m)?,
        Op::Split { from, to, bits } => pure::split(*from, to, *bits, warp, m)?,
        Op::Join { to, from, bits } => pure::join(*to, from, *bits, warp, m)?,
        Op::Carry(sum) => pure::carry(sum, warp, m)?,
        Op::InSpace { to, address, space } => {
            let inside = pure::in_space(warp.registers.get64(*address, m)?, *space);
            warp.registers.set_predicate(*to, m, inside);
        }
        Op::Load(transfer) => {
            memory::load(transfer, warp, block, m)?;
            if transfer.ordering {
                block.fence(warp.id, transfer.strength == Strength::Device);
            }
        }
        Op::Store(transfer) => {
            if transfer.ordering {
                block.fence(warp.id, transfer.strength == Strength::Device);
            }
            memory::store(transfer, warp, block, m)?;
        }
        Op::Atomic(operation) => atomic::atomic(operation, warp, block, m)?,
        Op::AsyncCopy(operation) => copy::copy(operation, warp, block, m)?,
        Op::CommitGroup => copy::commit(warp, block, m),
        Op::WaitGroup(pending) => copy::wait(warp, block, m, *pending)?,
        Op::Barrier(operation) => barrier::arrive(operation, warp, block, m, together)?,
        Op::WarpBarrier(members) => {
            let masks = *warp.registers.get32(*members, m)?;
            barrier::arrive_in_warp(&masks, warp, block, m)?;
        }
        Op::Fence { device } => block.fence(warp.id, *device),
        Op::Tensor(operation) => return tensor::execute(operation, warp, block, m),
        Op::Trap => return Err(Trap::warp(Cause::Trap)),
        Op::Nothing | Op::Branch(_) | Op::BranchTable { .. } | Op::Exit => {}
        _ => of_lanes(op, warp, m)?,
    }
    Ok(Flow::Next)
}

/// Executes an instruction in which the lanes of a warp take part together.
fn of_lanes(op: &Op, warp: &mut Warp, m: u32) -> Result<(), Box<Trap>> {
    match *op {
        Op::Shuffle(ref operation) => lanes::shuffle(operation, warp, m),
        Op::Vote { mode, to, by, members } => {
            lanes::members(warp, members, m)?;
            lanes::vote(mode, to, by, m, warp)
        }
        Op::Ballot { to, by, members } => {
            lanes::members(warp, members, m)?;
            lanes::ballot(to, by, m, warp)
        }
        Op::Match { to, valid, value, members, all } => {
            lanes::members(warp, members, m)?;
            lanes::matches(to, valid, value, all, m, warp)
        }
        Op::Reduce { by, to, from, members } => {
            lanes::members(warp, members, m)?;
            lanes::reduce(by, to, from, m, warp)
        }
        Op::ActiveMask(to) => {
            warp.registers.set32(to, m, &[m; 32]);
            Ok(())
        }
        Op::Elect { to, elected, members } => {
            lanes::members(warp, members, m)?;
            warp.registers.set32(to, m, &[m.trailing_zeros(); 32]);
            warp.registers.set_predicate(elected, m, 1 << m.trailing_zeros());
            Ok(())
        }
        _ => Ok(()),
    }
}
