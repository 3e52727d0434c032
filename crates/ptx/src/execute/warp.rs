//! A warp: which of its lanes go on, and where.

use super::barrier::open_in_warp;
use super::step::step;
use crate::fault::{Cause, Fault, Place};
use crate::machine::{Block, File, Flow, Trap, Warp, Who, lanes};
use crate::op::{Op, Program};

/// Why a warp stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// It ran as far as it was allowed to.
    Slice,
    /// It waited in vain.
    Yielded,
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
        let Some(group) = choose(warp) else { return Ok(Stop::Blocked) };
        let Group { mut pc, mut mask, meets, alone } = group;
        loop {
            if pc >= meets || mask == 0 {
                break;
            }
            if left == 0 || budget.left == 0 {
                save(warp, mask, pc);
                if budget.left == 0 {
                    let trap = Trap::warp(Cause::StepLimit { limit: budget.limit });
                    return Err(fault(program, block, warp.id, mask, pc, *trap));
                }
                return Ok(Stop::Slice);
            }
            left -= 1;
            budget.left -= 1;
            let instruction = &program.code[pc as usize];
            block.counts.add(instruction.kind);
            let id = warp.id;
            let failed = |block: &Block, trap: Box<Trap>, m: u32| {
                Err(fault(program, block, id, if m == 0 { mask } else { m }, pc, *trap))
            };
            let m = match instruction.guard {
                None => mask,
                Some((register, negated)) => match warp.registers.get_predicate(register, mask) {
                    Ok(bits) => mask & if negated { !bits } else { bits },
                    Err(trap) => return failed(block, trap, 0),
                },
            };
            if m == 0 {
                pc += 1;
                continue;
            }
            match &instruction.op {
                Op::Branch(target) => {
                    let back = *target <= pc;
                    if m != mask {
                        save(warp, m, *target);
                        save(warp, mask & !m, pc + 1);
                        mask = 0;
                        break;
                    }
                    pc = *target;
                    // Others may be nearer now.
                    if !alone && (back || pc > meets) {
                        break;
                    }
                    continue;
                }
                Op::BranchTable { index, table } => {
                    if let Err(trap) = branch_table(program, warp, *index, *table, m) {
                        return failed(block, trap, m);
                    }
                    save(warp, mask & !m, pc + 1);
                    mask = 0;
                    break;
                }
                Op::Exit => {
                    warp.live &= !m;
                    mask &= !m;
                    block.progress += 1;
                    open_in_warp(warp, block);
                    if mask == 0 {
                        break;
                    }
                    pc += 1;
                    continue;
                }
                Op::Tensor(_) => save(warp, mask, pc),
                _ => {}
            }
            let flow = match step(&instruction.op, warp, block, m, mask) {
                Ok(flow) => flow,
                Err(trap) => return Err(fault(program, block, warp.id, m, pc, *trap)),
            };
            if flow != Flow::Again {
                pc += 1;
            }
            if flow != Flow::Next {
                save(warp, mask, pc);
                warp.yielded |= mask;
                return Ok(Stop::Yielded);
            }
            if matches!(instruction.op, Op::Barrier(_) | Op::WarpBarrier(_)) {
                break;
            }
        }
        save(warp, mask, pc);
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
            (lane, Cause::RegisterNeverWritten { register: name.to_string() })
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
