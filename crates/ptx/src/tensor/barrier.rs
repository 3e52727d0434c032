//! `mbarrier`, and the fences that bulk copies need.

use super::operand::{SharedAddress, names_shared, only, operand, unknown};
use crate::fault::{Access, Cause, LoadProblem};
use crate::machine::{Block, Flow, MBARRIER_LIMIT, Mbarrier, R32, R64, RP, Trap, Warp, Who, lanes};
use crate::resolve::Resolver;
use crate::syntax::Instruction;

/// An operation on an mbarrier.
#[derive(Clone, Debug)]
pub(crate) enum BarrierOp {
    Init {
        at: SharedAddress,
        count: R32,
    },
    Invalidate {
        at: SharedAddress,
    },
    Arrive(Arrival),
    /// `mbarrier.expect_tx`, which is no arrival.
    Expect {
        at: SharedAddress,
        bytes: R32,
    },
    /// `mbarrier.complete_tx`
    Complete {
        at: SharedAddress,
        bytes: R32,
    },
    /// `mbarrier.test_wait` and `mbarrier.try_wait`
    Test {
        to: RP,
        at: SharedAddress,
        phase: Phase,
    },
    /// `fence.proxy.async`, `fence.mbarrier_init`
    ProxyFence,
}

/// `mbarrier.arrive` and its kin.
#[derive(Clone, Debug)]
pub(crate) struct Arrival {
    /// Gets the number of the phase, which is all that a state has to tell.
    state: R64,
    at: SharedAddress,
    count: Option<R32>,
    expect: Option<R32>,
    /// Later phases take as many arrivals less.
    drop: bool,
}

/// The phase that is tested.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Phase {
    Parity(R32),
    /// What an arrival returned.
    State(R64),
}

/// Bytes of an mbarrier, and their alignment.
const SIZE: usize = 8;

/// Whether an opcode is decoded here.
pub(super) fn claims(instruction: &Instruction) -> bool {
    let second = instruction.modifiers().first().map_or("", String::as_str);
    match instruction.stem() {
        "mbarrier" => true,
        "fence" => second == "mbarrier_init" || second == "proxy" && instruction.has("async"),
        _ => false,
    }
}

const KNOWN: [&str; 17] = [
    "init",
    "inval",
    "arrive",
    "arrive_drop",
    "expect_tx",
    "complete_tx",
    "test_wait",
    "try_wait",
    "parity",
    "acquire",
    "release",
    "relaxed",
    "cta",
    "cluster",
    "shared",
    "shared::cta",
    "b64",
];

/// The operation of an instruction that `claims` has taken.
pub(super) fn decode(instruction: &Instruction, names: &mut Resolver) -> Result<BarrierOp, LoadProblem> {
    if instruction.stem() == "fence" {
        return Ok(BarrierOp::ProxyFence);
    }
    let known: Vec<&str> = KNOWN.into_iter().chain(["shared::cluster"]).collect();
    only(instruction, &known)?;
    let shared = names_shared(instruction);
    let address = |names: &mut Resolver, at| SharedAddress::new(instruction, names, at, shared);
    let register = |names: &mut Resolver, at| names.r32(operand(instruction, at)?);
    let optional = |names: &mut Resolver, at| instruction.operands.get(at).map(|o| names.r32(o)).transpose();
    let expects = instruction.has("expect_tx");
    Ok(match instruction.modifiers()[0].as_str() {
        "init" => BarrierOp::Init { at: address(names, 0)?, count: register(names, 1)? },
        "inval" => BarrierOp::Invalidate { at: address(names, 0)? },
        kind @ ("arrive" | "arrive_drop") => BarrierOp::Arrive(Arrival {
            state: names.to64(operand(instruction, 0)?)?,
            at: address(names, 1)?,
            count: if expects { None } else { optional(names, 2)? },
            expect: if expects { Some(register(names, 2)?) } else { None },
            drop: kind == "arrive_drop",
        }),
        "expect_tx" => BarrierOp::Expect { at: address(names, 0)?, bytes: register(names, 1)? },
        "complete_tx" => BarrierOp::Complete { at: address(names, 0)?, bytes: register(names, 1)? },
        "test_wait" | "try_wait" => {
            let phase = operand(instruction, 2)?;
            let parity = instruction.has("parity");
            BarrierOp::Test {
                to: names.result_predicate(operand(instruction, 0)?)?,
                at: address(names, 1)?,
                phase: if parity {
                    Phase::Parity(names.r32(phase)?)
                } else {
                    Phase::State(names.r64(phase)?)
                },
            }
        }
        _ => return Err(unknown(instruction, "")),
    })
}

/// Executes an operation for the lanes `active` of a warp.
pub(super) fn execute(
    operation: &BarrierOp,
    warp: &mut Warp,
    block: &mut Block,
    active: u32,
) -> Result<Flow, Box<Trap>> {
    match operation {
        BarrierOp::Init { at, count } => {
            for lane in lanes(active) {
                init(block, Who { warp: warp.id, lane }, at.offset(warp, lane)?, value(warp, *count, lane)?)?;
            }
        }
        BarrierOp::Invalidate { at } => {
            for lane in lanes(active) {
                let at = at.offset(warp, lane)?;
                find(block, Who { warp: warp.id, lane }, at)?;
                block.mbarriers.remove(&(at as u32));
            }
        }
        BarrierOp::Arrive(arrival) => arrive(arrival, warp, block, active)?,
        BarrierOp::Expect { at, bytes } => {
            for lane in lanes(active) {
                let (at, bytes) = (at.offset(warp, lane)?, value(warp, *bytes, lane)?);
                let result = find(block, Who { warp: warp.id, lane }, at)?.expect(bytes);
                told(result, at, lane)?;
            }
        }
        BarrierOp::Complete { at, bytes } => {
            let knows = block.clocks.release(warp.id);
            for lane in lanes(active) {
                let (at, bytes) = (at.offset(warp, lane)?, value(warp, *bytes, lane)?);
                let result = find(block, Who { warp: warp.id, lane }, at)?.complete(bytes, &knows);
                told(result, at, lane)?;
            }
            block.progress += 1;
        }
        BarrierOp::Test { to, at, phase } => return test(*to, at, *phase, warp, block, active),
        BarrierOp::ProxyFence => {
            if let Some(proxy) = &mut block.shared.proxy {
                proxy.fence(warp.id);
            }
        }
    }
    Ok(Flow::Next)
}

fn value(warp: &Warp, register: R32, lane: usize) -> Result<u32, Box<Trap>> {
    Ok(warp.registers.get32(register, 1 << lane)?[lane])
}

/// The fault that an mbarrier's answer is.
pub(super) fn told(result: Result<(), String>, at: u64, lane: usize) -> Result<(), Box<Trap>> {
    result.map_err(|why| Trap::lane(lane, Cause::Mbarrier { address: at, why }))
}

fn init(block: &mut Block, who: Who, at: u64, count: u32) -> Result<(), Box<Trap>> {
    let wrong = |why: String| Err(Trap::lane(who.lane, Cause::Mbarrier { address: at, why }));
    block.shared_store(who, at, SIZE as u32, &[0; SIZE])?;
    if count == 0 || count > MBARRIER_LIMIT {
        return wrong(format!("phases of {count} arrivals; 1 to {MBARRIER_LIMIT} are possible"));
    }
    if block.mbarriers.insert(at as u32, Mbarrier::new(count)).is_some() {
        return wrong("it is initialised for the second time, without `mbarrier.inval`".to_string());
    }
    Ok(())
}

/// The mbarrier at an offset, after the checks of an access to it.
pub(super) fn find<'b>(block: &'b mut Block, who: Who, at: u64) -> Result<&'b mut Mbarrier, Box<Trap>> {
    if !block.mbarriers.contains_key(&(at as u32)) {
        let why = "no `mbarrier.init` made one here".to_string();
        return Err(Trap::lane(who.lane, Cause::Mbarrier { address: at, why }));
    }
    block.shared_at(who, at, SIZE as u32, SIZE, Access::Atomic)?;
    Ok(block.mbarriers.get_mut(&(at as u32)).expect("found above"))
}

fn arrive(arrival: &Arrival, warp: &mut Warp, block: &mut Block, active: u32) -> Result<(), Box<Trap>> {
    let mut states = [0; 32];
    let knows = block.clocks.release(warp.id);
    for lane in lanes(active) {
        let at = arrival.at.offset(warp, lane)?;
        let count = arrival.count.map_or(Ok(1), |count| value(warp, count, lane))?;
        let expect = arrival.expect.map_or(Ok(0), |bytes| value(warp, bytes, lane))?;
        let mbarrier = find(block, Who { warp: warp.id, lane }, at)?;
        states[lane] = u64::from(mbarrier.phase);
        let result = mbarrier.expect(expect).and_then(|()| {
            if arrival.drop {
                mbarrier.arrive_and_drop(count, &knows)
            } else {
                mbarrier.arrive(count, &knows)
            }
        });
        told(result, at, lane)?;
    }
    warp.registers.set64(arrival.state, active, &states);
    block.progress += 1;
    Ok(())
}

fn test(
    to: RP,
    at: &SharedAddress,
    phase: Phase,
    warp: &mut Warp,
    block: &mut Block,
    active: u32,
) -> Result<Flow, Box<Trap>> {
    let mut ended = 0;
    for lane in lanes(active) {
        let at = at.offset(warp, lane)?;
        let mbarrier = find(block, Who { warp: warp.id, lane }, at)?;
        let over = match phase {
            Phase::Parity(parity) => mbarrier.ended(value(warp, parity, lane)?),
            Phase::State(state) => u64::from(mbarrier.phase) != warp.registers.get64(state, 1 << lane)?[lane],
        };
        if over {
            let arrived = mbarrier.arrived;
            block.clocks.acquire(warp.id, &arrived);
            ended |= 1 << lane;
        }
    }
    warp.registers.set_predicate(to, active, ended);
    Ok(if ended == active { Flow::Next } else { Flow::Yield })
}
