//! A block: its warps take turns until all have ended.

use super::barrier::open;
use super::random::Random;
use super::warp::{Budget, Stop, fault, run};
use crate::fault::{Cause, Fault};
use crate::machine::{BARRIERS, Block, Warp, lanes};
use crate::op::Program;
use crate::tensor;

/// How warps take turns.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turns {
    /// Most instructions of a turn.
    pub slice: u32,
    /// Whether order and length of turns are drawn.
    pub shuffled: bool,
}

/// Runs the warps of a block to their ends.
pub(super) fn run_block(
    program: &Program,
    warps: &mut [Warp],
    block: &mut Block,
    turns: Turns,
    random: &mut Random,
    budget: &mut Budget,
) -> Result<(), Box<Fault>> {
    let mut order: Vec<usize> = (0..warps.len()).collect();
    while warps.iter().any(|warp| warp.live != 0) {
        let before = block.progress;
        let mut moved = false;
        if turns.shuffled {
            random.shuffle(&mut order);
        }
        for &at in &order {
            if warps[at].ready() == 0 {
                continue;
            }
            let slice = if turns.shuffled { 1 + random.below(turns.slice) } else { turns.slice };
            let stop = run(program, &mut warps[at], block, slice, budget)?;
            moved |= matches!(stop, Stop::Slice | Stop::Yielded);
            open(warps, block);
        }
        if moved || block.progress != before {
            continue;
        }
        match tensor::deliver(block) {
            Ok(true) => {}
            Ok(false) => return Err(deadlock(program, warps, block)),
            Err(late) => {
                let (copy, trap) = *late;
                return Err(fault(program, block, copy.who.warp, 1 << copy.who.lane, copy.pc, *trap));
            }
        }
    }
    let last = program.code.len() as u32 - 1;
    tensor::end(block).map_err(|trap| fault(program, block, 0, 1, last, *trap))
}

/// What every warp waits for.
#[cold]
fn deadlock(program: &Program, warps: &[Warp], block: &Block) -> Box<Fault> {
    let mut waiting = Vec::new();
    let mut first = None;
    for warp in warps.iter().filter(|warp| warp.live != 0) {
        for number in (0..BARRIERS).filter(|number| warp.at_barrier[*number] != 0) {
            waiting.push(format!("warp {} waits at barrier {number}", warp.id));
        }
        if warp.at_warp_barrier != 0 {
            waiting.push(format!("lanes {:#010x} of warp {} wait for others", warp.at_warp_barrier, warp.id));
        }
        for lane in lanes(warp.ready()).take(1) {
            let pc = warp.pc[lane];
            first.get_or_insert((warp.id, lane, pc));
            let (text, line) = &program.sources[pc as usize];
            waiting.push(format!("warp {} is at line {line}, `{text}`", warp.id));
        }
    }
    waiting.extend(tensor::waiting(block));
    let (warp, lane, pc) = first.unwrap_or_else(|| {
        let warp = warps.iter().find(|warp| warp.live != 0).map_or(0, |warp| warp.id);
        let lane = warps[warp].live.trailing_zeros().min(31) as usize;
        (warp, lane, warps[warp].pc[lane].saturating_sub(1))
    });
    let cause = Cause::Deadlock { waiting: waiting.join("; ") };
    fault(program, block, warp, 1 << lane, pc, *crate::machine::Trap::lane(lane, cause))
}
