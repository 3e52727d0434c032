//! A warp: which of its lanes go on, and where.

use super::barrier::open_in_warp;
use super::step::step;
use crate::fault::{Cause, Fault, Place};
use crate::machine::{Block, File, Flow, R32, Trap, Warp, Who, lanes};
use crate::op::{Op, Program};
use crate::tensor;

/// Why a warp stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// It ran as far as it was allowed to.
    Slice,
    /// It waited in vain, for the first time in this place: what it does next may not rely on
    /// what it waited for.
    Yielded,
    /// It waited in vain again.
    Waiting,
    /// None of its lanes can go on.
    Blocked,
}

/// Instructions that a launch may still execute.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    pub left: u64,
    pub limit: u64,
}

/// The lanes of a warp that go on together.
struct Group {
    pc: u32,
    mask: u32,
    /// The nearest place ahead where other lanes are.
    meets: u32,
    alone: bool,
}

/// Of the lanes that can go on, those that are furthest behind; lanes that waited in vain let
/// others go first.
fn choose(warp: &mut Warp) -> Option<Group> {
    let ready = warp.ready();
    if ready == 0 {
        return None;
    }
    if ready & !warp.yielded == 0 {
        warp.yielded = 0;
    }
    let mut group = Group { pc: u32::MAX, mask: 0, meets: u32::MAX, alone: true };
    let first = ready.trailing_zeros() as usize;
    if warp.pc.iter().enumerate().all(|(lane, pc)| ready >> lane & 1 == 0 || *pc == warp.pc[first]) {
        return Some(Group { pc: warp.pc[first], mask: ready, ..group });
    }
    for lane in lanes(ready & !warp.yielded) {
        let pc = warp.pc[lane];
        if pc < group.pc {
            (group.pc, group.mask) = (pc, 1 << lane);
        } else if pc == group.pc {
            group.mask |= 1 << lane;
        }
    }
    for lane in lanes(ready & !group.mask) {
        group.alone = false;
        // Lanes that waited in vain may be in the same place.
        if warp.pc[lane] > group.pc {
            group.meets = group.meets.min(warp.pc[lane]);
        }
    }
    Some(group)
}

/// Runs a warp for at most `slice` instructions.
pub(super) fn run(
    program: &Program,
    warp: &mut Warp,
    block: &mut Block,
    slice: u32,
    budget: &mut Budget,
) -> Result<Stop, Box<Fault>> {
    let mut left = slice;
    loop {
        let Some(mut group) = choose(warp) else { return Ok(Stop::Blocked) };
        let stop = go_on(program, warp, block, &mut group, &mut left, budget);
        let Group { pc, mask, .. } = group;
        save(warp, mask, pc);
        match stop {
            Ok(None) => {}
            Ok(Some(Stop::Yielded)) => {
                warp.yielded |= mask;
                let again = warp.waits_at.replace(pc) == Some(pc);
                return Ok(if again { Stop::Waiting } else { Stop::Yielded });
            }
            Ok(Some(stop)) => return Ok(stop),
            Err((trap, m)) => return Err(fault(program, block, warp.id, m, pc, *trap)),
        }
    }
}

/// Where lanes go on behind a branch or an end.
enum Turn {
    /// All of them here.
    To(u32),
    /// They have parted, and know where each goes on.
    Apart,
    /// The lanes that have ended are gone, the others go on.
    Next,
}

/// Lets a group go on until it meets or leaves others, waits, or has used up its turn. A trap comes
/// with the lanes that executed the instruction.
fn go_on(
    program: &Program,
    warp: &mut Warp,
    block: &mut Block,
    group: &mut Group,
    left: &mut u32,
    budget: &mut Budget,
) -> Result<Option<Stop>, (Box<Trap>, u32)> {
    while group.pc < group.meets && group.mask != 0 {
        if budget.left == 0 {
            return Err((Trap::warp(Cause::StepLimit { limit: budget.limit }), group.mask));
        }
        if *left == 0 {
            return Ok(Some(Stop::Slice));
        }
        *left -= 1;
        budget.left -= 1;
        let instruction = &program.code[group.pc as usize];
        block.counts.add(instruction.kind);
        if let Some(watch) = &mut block.watch {
            watch.instruction(warp.id, group.pc as usize);
        }
        let m = match instruction.guard {
            None => group.mask,
            Some((register, negated)) => {
                let bits = warp.registers.get_predicate(register, group.mask);
                let bits = bits.map_err(|trap| (trap, group.mask))?;
                group.mask & if negated { !bits } else { bits }
            }
        };
        if m == 0 {
            group.pc += 1;
            continue;
        }
        let op = &instruction.op;
        if matches!(op, Op::Branch(_) | Op::BranchTable { .. } | Op::Exit) {
            match turn(program, warp, block, group, op, m).map_err(|trap| (trap, m))? {
                Turn::Apart => group.mask = 0,
                Turn::Next => group.pc += 1,
                Turn::To(target) => {
                    // Others may be nearer now.
                    let again = !group.alone && (target <= group.pc || target > group.meets);
                    group.pc = target;
                    if again {
                        return Ok(None);
                    }
                }
            }
            continue;
        }
        if matches!(op, Op::Tensor(_)) {
            save(warp, group.mask, group.pc);
        }
        let flow = step(op, warp, block, m, group.mask).map_err(|trap| (trap, m))?;
        if flow != Flow::Again {
            group.pc += 1;
        }
        if flow != Flow::Next {
            return Ok(Some(Stop::Yielded));
        }
        if matches!(op, Op::Tensor(_)) {
            warp.waits_at = None;
        }
        if matches!(op, Op::Barrier(_) | Op::WarpBarrier(_)) {
            return Ok(None);
        }
    }
    Ok(None)
}

/// Executes a branch or an end in the lanes `m`.
fn turn(
    program: &Program,
    warp: &mut Warp,
    block: &mut Block,
    group: &mut Group,
    op: &Op,
    m: u32,
) -> Result<Turn, Box<Trap>> {
    match op {
        Op::Branch(target) if m == group.mask => Ok(Turn::To(*target)),
        Op::Branch(target) => {
            save(warp, m, *target);
            save(warp, group.mask & !m, group.pc + 1);
            Ok(Turn::Apart)
        }
        Op::BranchTable { index, table } => {
            branch_table(program, warp, *index, *table, m)?;
            save(warp, group.mask & !m, group.pc + 1);
            Ok(Turn::Apart)
        }
        _ => {
            warp.live &= !m;
            group.mask &= !m;
            block.progress += 1;
            open_in_warp(warp, block);
            Ok(Turn::Next)
        }
    }
}

fn save(warp: &mut Warp, mask: u32, pc: u32) {
    if mask == u32::MAX {
        warp.pc = [pc; 32];
    } else {
        lanes(mask).for_each(|lane| warp.pc[lane] = pc);
    }
}

/// `brx.idx`: each lane goes to the target that its index names.
fn branch_table(
    program: &Program,
    warp: &mut Warp,
    index: crate::machine::R32,
    table: u32,
    m: u32,
) -> Result<(), Box<Trap>> {
    let indices = *warp.registers.get32(index, m)?;
    let table = &program.tables[table as usize];
    for lane in lanes(m) {
        let Some(target) = table.get(indices[lane] as usize) else {
            let what = format!("branch {} of a table of {}", indices[lane], table.len());
            return Err(Trap::lane(lane, Cause::Undefined { what }));
        };
        warp.pc[lane] = *target;
    }
    Ok(())
}

/// A fault: a trap with its place.
#[cold]
pub(super) fn fault(
    program: &Program,
    block: &Block,
    warp: usize,
    m: u32,
    pc: u32,
    trap: Trap,
) -> Box<Fault> {
    let first = (m.trailing_zeros() as usize).min(31);
    let (lane, cause) = match trap {
        Trap::Fault { lane, cause } => (lane.unwrap_or(first), cause),
        Trap::Register { file, number, lane } => {
            let unnamed = match file {
                File::Predicate => "a predicate without a name",
                _ => "a register without a name",
            };
            let name = program.frame.names.get(&(file, number)).map_or(unnamed, String::as_str);
            let register = name.to_string();
            if file == File::Bits32 && tensor::writes(block, warp, R32(number)) {
                (lane, Cause::RegisterInFlight { register })
            } else {
                (lane, Cause::RegisterNeverWritten { register })
            }
        }
    };
    let (instruction, line) = program.sources[pc as usize].clone();
    let place = Place {
        kernel: program.name.clone(),
        instruction,
        line,
        block: block.index,
        thread: block.thread(Who { warp, lane }),
    };
    Box::new(Fault { place, cause })
}
