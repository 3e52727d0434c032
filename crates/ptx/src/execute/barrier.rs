//! Barriers of a block and of a warp.

use crate::fault::Cause;
use crate::machine::{BARRIERS, Barrier as State, Block, CLUSTER, Trap, Waiting, Wants, Warp, lanes};
use crate::op::{Barrier, BarrierMode, Logic};

/// Lanes arrive at a barrier of the block; unless they only arrive, they wait from now on.
pub(super) fn arrive(
    barrier: &Barrier,
    warp: &mut Warp,
    block: &mut Block,
    m: u32,
    together: u32,
) -> Result<(), Box<Trap>> {
    let first = m.trailing_zeros() as usize;
    let uniform = |values: &[u32; 32]| lanes(m).all(|lane| values[lane] == values[first]);
    let (number, same) = match barrier.number {
        None => (CLUSTER as u32, true),
        Some(register) => {
            let numbers = warp.registers.get32(register, m)?;
            (numbers[first], uniform(numbers) && (numbers[first] as usize) < CLUSTER)
        }
    };
    let misuse = |why: String| Err(Trap::warp(Cause::BarrierMisuse { barrier: number, why }));
    if barrier.aligned && (m != together || m != warp.live) {
        return Err(Trap::warp(Cause::DivergentBarrier { active: m, live: warp.live }));
    }
    if !same {
        return misuse("its number is not the same for all lanes, or above 15".to_string());
    }
    let number = number as usize;
    let threads = match barrier.threads {
        None => None,
        Some(register) => {
            let threads = warp.registers.get32(register, m)?;
            if !uniform(threads) || threads[first] % 32 != 0 || threads[first] == 0 {
                return misuse(format!("{} threads, which is no multiple of 32", threads[first]));
            }
            Some(threads[first])
        }
    };
    let held = match barrier.predicate {
        None => None,
        Some((register, negated)) => {
            let bits = warp.registers.get_predicate(register, m)?;
            Some(m & if negated { !bits } else { bits })
        }
    };
    let knows = block.clocks.release(warp.id);
    let state = &mut block.barriers[number];
    if state.arrived > 0 && state.threads != threads {
        let name = |threads: Option<u32>| threads.map_or("all".to_string(), |threads| threads.to_string());
        return misuse(format!("{} threads here, {} elsewhere", name(threads), name(state.threads)));
    }
    state.threads = threads;
    state.arrived += if barrier.aligned && threads.is_some() { 32 } else { m.count_ones() };
    if threads.is_some_and(|threads| state.arrived > threads) {
        return misuse(format!("{} threads arrive, where it opens for fewer", state.arrived));
    }
    crate::memory::join(&mut state.knows, &knows);
    if let Some(held) = held {
        state.held += held.count_ones();
        state.asked += m.count_ones();
    }
    block.progress += 1;
    let wants = match barrier.mode {
        BarrierMode::Arrive => return Ok(()),
        BarrierMode::Sync => Wants::Nothing,
        BarrierMode::Count(to) => Wants::Count(to),
        BarrierMode::Join(Logic::And, to) => Wants::All(to),
        BarrierMode::Join(_, to) => Wants::Any(to),
    };
    state.waiting.push(Waiting { warp: warp.id, lanes: m, wants });
    warp.at_barrier[number] |= m;
    Ok(())
}

/// Opens the barriers of a block that everyone has reached who takes part.
pub(super) fn open(warps: &mut [Warp], block: &mut Block) {
    for number in 0..BARRIERS {
        let state = &block.barriers[number];
        let all = || warps.iter().all(|warp| warp.live & !warp.at_barrier[number] == 0);
        let opens = match state.threads {
            _ if state.waiting.is_empty() => false,
            Some(threads) => state.arrived >= threads,
            None => all(),
        };
        if !opens {
            continue;
        }
        let State { waiting, held, asked, knows, .. } = std::mem::take(&mut block.barriers[number]);
        block.progress += 1;
        for Waiting { warp, lanes, wants } in waiting {
            let warp = &mut warps[warp];
            warp.at_barrier[number] &= !lanes;
            block.clocks.acquire(warp.id, &knows);
            let bits = |answer: bool| if answer { u32::MAX } else { 0 };
            match wants {
                Wants::Nothing => {}
                Wants::Count(to) => warp.registers.set32(to, lanes, &[held; 32]),
                Wants::All(to) => warp.registers.set_predicate(to, lanes, bits(held == asked)),
                Wants::Any(to) => warp.registers.set_predicate(to, lanes, bits(held > 0)),
            }
        }
    }
}

/// `bar.warp.sync`: the lanes wait until all of their members do that have not ended.
pub(super) fn arrive_in_warp(
    masks: &[u32; 32],
    warp: &mut Warp,
    block: &mut Block,
    m: u32,
) -> Result<(), Box<Trap>> {
    for lane in lanes(m) {
        if masks[lane] >> lane & 1 == 0 {
            let what = format!("the lane takes part, and is no member of {:#010x}", masks[lane]);
            return Err(Trap::lane(lane, Cause::Undefined { what }));
        }
        warp.warp_barrier[lane] = masks[lane];
    }
    warp.at_warp_barrier |= m;
    open_in_warp(warp, block);
    Ok(())
}

/// Lets lanes go on whose members all wait, or have ended.
pub(super) fn open_in_warp(warp: &mut Warp, block: &mut Block) {
    for lane in lanes(warp.at_warp_barrier) {
        let mask = warp.warp_barrier[lane];
        let waiting = lanes(warp.at_warp_barrier)
            .filter(|other| warp.warp_barrier[*other] == mask)
            .fold(0, |m, other| m | 1 << other);
        if mask & warp.live & !waiting == 0 {
            warp.at_warp_barrier &= !waiting;
            block.clocks.sync_lanes(warp.id);
            block.progress += 1;
        }
    }
}
