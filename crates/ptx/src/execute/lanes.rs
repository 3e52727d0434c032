//! Shuffles, votes, matches and reductions within a warp.

use super::pure::get;
use crate::fault::Cause;
use crate::machine::{R32, RP, Trap, Warp, lanes};
use crate::op::{Reduction, Shuffle, ShuffleMode, Value, VoteMode};

/// The members of an instruction, which all lanes in `m` have to name alike and which all have to
/// be there, those that have ended excepted.
pub(super) fn members(warp: &Warp, register: R32, m: u32) -> Result<u32, Box<Trap>> {
    let masks = warp.registers.get32(register, m)?;
    let first = m.trailing_zeros() as usize;
    let mask = masks[first & 31];
    for lane in lanes(m) {
        if masks[lane] != mask {
            let what = format!("lanes name different members: {mask:#010x} and {:#010x}", masks[lane]);
            return Err(Trap::lane(lane, Cause::Undefined { what }));
        }
        if mask >> lane & 1 == 0 {
            let what = format!("the lane takes part, and is no member of {mask:#010x}");
            return Err(Trap::lane(lane, Cause::Undefined { what }));
        }
    }
    let absent = mask & warp.live & !m;
    if absent != 0 {
        return Err(Trap::warp(Cause::AbsentLanes { mask, absent }));
    }
    Ok(mask)
}

/// `shfl.sync`.
pub(super) fn shuffle(shuffle: &Shuffle, warp: &mut Warp, m: u32) -> Result<(), Box<Trap>> {
    let mask = members(warp, shuffle.members, m)?;
    let r = &warp.registers;
    let (from, by, clamps) =
        (r.get32(shuffle.from, m)?, r.get32(shuffle.lane, m)?, r.get32(shuffle.clamp, m)?);
    let (mut values, mut valid) = ([0; 32], 0);
    for lane in lanes(m) {
        let (segment, clamp) = (clamps[lane] >> 8 & 31, clamps[lane] & 31);
        let own = lane as u32;
        let b = by[lane] & 31;
        let highest = own & segment | clamp & !segment;
        let lowest = own & segment;
        let (source, inside) = match shuffle.mode {
            // For `up`, the clamp is the lowest lane of a segment.
            ShuffleMode::Up => (own.wrapping_sub(b), own as i32 - b as i32 >= highest as i32),
            ShuffleMode::Down => (own + b, own + b <= highest),
            ShuffleMode::Butterfly => (own ^ b, own ^ b <= highest),
            ShuffleMode::Index => (lowest | b & !segment, lowest | b & !segment <= highest),
        };
        let source = if inside { source } else { own };
        if m >> source & 1 == 0 {
            return Err(Trap::lane(lane, Cause::AbsentLanes { mask, absent: 1 << source }));
        }
        values[lane] = from[source as usize];
        valid |= u32::from(inside) << lane;
    }
    warp.registers.set32(shuffle.to, m, &values);
    if let Some(register) = shuffle.valid {
        warp.registers.set_predicate(register, m, valid);
    }
    Ok(())
}

/// The lanes in `m` whose predicate holds.
fn holds(warp: &Warp, (register, negated): (RP, bool), m: u32) -> Result<u32, Box<Trap>> {
    let bits = warp.registers.get_predicate(register, m)?;
    Ok(if negated { !bits & m } else { bits & m })
}

/// `vote.sync`.
pub(super) fn vote(
    mode: VoteMode,
    to: RP,
    by: (RP, bool),
    members: u32,
    warp: &mut Warp,
) -> Result<(), Box<Trap>> {
    let held = holds(warp, by, members)?;
    let answer = match mode {
        VoteMode::All => held == members,
        VoteMode::Any => held != 0,
        VoteMode::Uniform => held == 0 || held == members,
    };
    warp.registers.set_predicate(to, members, if answer { u32::MAX } else { 0 });
    Ok(())
}

/// `vote.sync.ballot`.
pub(super) fn ballot(to: R32, by: (RP, bool), m: u32, warp: &mut Warp) -> Result<(), Box<Trap>> {
    let held = holds(warp, by, m)?;
    warp.registers.set32(to, m, &[held; 32]);
    Ok(())
}

/// `match.sync`.
pub(super) fn matches(
    to: R32,
    valid: Option<RP>,
    value: Value,
    all: bool,
    m: u32,
    warp: &mut Warp,
) -> Result<(), Box<Trap>> {
    let values = get(warp, value, m)?;
    let mut masks = [0; 32];
    for lane in lanes(m) {
        masks[lane] = lanes(m).filter(|l| values[*l] == values[lane]).fold(0, |m, l| m | 1 << l);
    }
    let mut same = 0;
    if all {
        let agreed = lanes(m).all(|lane| masks[lane] == m);
        masks = [if agreed { m } else { 0 }; 32];
        same = if agreed { u32::MAX } else { 0 };
    }
    warp.registers.set32(to, m, &masks);
    if let Some(register) = valid {
        warp.registers.set_predicate(register, m, same);
    }
    Ok(())
}

/// `redux.sync`.
pub(super) fn reduce(by: Reduction, to: R32, from: R32, m: u32, warp: &mut Warp) -> Result<(), Box<Trap>> {
    let values = warp.registers.get32(from, m)?;
    let fold = |a: u32, b: u32| match by {
        Reduction::Add => a.wrapping_add(b),
        Reduction::MinUnsigned => a.min(b),
        Reduction::MaxUnsigned => a.max(b),
        Reduction::MinSigned => (a as i32).min(b as i32) as u32,
        Reduction::MaxSigned => (a as i32).max(b as i32) as u32,
        Reduction::And => a & b,
        Reduction::Or => a | b,
        Reduction::Xor => a ^ b,
    };
    let all = lanes(m).map(|lane| values[lane]).reduce(fold).unwrap_or(0);
    warp.registers.set32(to, m, &[all; 32]);
    Ok(())
}
