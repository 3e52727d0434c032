//! Branches, barriers, and instructions of several lanes.

use super::body::{Body, operand, unknown};
use crate::fault::LoadProblem;
use crate::machine::{Kind, RP};
use crate::op::{Barrier, BarrierMode, Logic, Op, Reduction, Shuffle, ShuffleMode, VoteMode};
use crate::syntax::{Instruction, Operand};

/// Decodes an instruction that other lanes or warps take part in, or that waits.
pub(super) fn decode(body: &mut Body, text: &Instruction) -> Result<(), LoadProblem> {
    let words: Vec<&str> = text.parts.iter().map(String::as_str).collect();
    match words[..] {
        ["bar", "warp", "sync"] => {
            let members = body.names.r32(operand(text, 0)?)?;
            body.emit(Kind::Barrier, Op::WarpBarrier(members));
            Ok(())
        }
        ["barrier", "cluster", ..] => cluster(body, text),
        ["bar" | "barrier", ..] => barrier(body, text),
        ["membar", level] | ["fence", level] | ["fence", "sc" | "acq_rel", level] => fence(body, text, level),
        ["shfl", "sync", mode, "b32"] => shuffle(body, text, mode),
        ["vote", "sync", mode, _] => vote(body, text, mode),
        ["match", mode @ ("any" | "all"), "sync", ty @ ("b32" | "b64")] => {
            matches(body, text, mode == "all", if ty == "b64" { 8 } else { 4 })
        }
        ["redux", "sync", by, ty] => reduce(body, text, by, ty),
        ["activemask", "b32"] => {
            let to = body.names.to32(operand(text, 0)?)?;
            body.emit(Kind::Warp, Op::ActiveMask(to));
            Ok(())
        }
        ["elect", "sync"] => elect(body, text),
        _ => Err(unknown(text, "")),
    }
}

/// A result of 32 bits, and a predicate beside it.
fn pair(body: &mut Body, operand: &Operand) -> Result<(crate::machine::R32, Option<RP>), LoadProblem> {
    match operand {
        Operand::Pair(to, valid) => Ok((body.names.to32(to)?, Some(body.names.result_predicate(valid)?))),
        to => Ok((body.names.to32(to)?, None)),
    }
}

fn cluster(body: &mut Body, text: &Instruction) -> Result<(), LoadProblem> {
    if text.has("arrive") {
        body.emit(Kind::Barrier, Op::Nothing);
        return Ok(());
    }
    let aligned = text.has("aligned");
    let barrier = Barrier { mode: BarrierMode::Sync, number: None, threads: None, aligned, predicate: None };
    body.emit(Kind::Barrier, Op::Barrier(barrier));
    Ok(())
}

fn barrier(body: &mut Body, text: &Instruction) -> Result<(), LoadProblem> {
    let mut words: Vec<&str> = text.modifiers().iter().map(String::as_str).collect();
    words.retain(|word| *word != "cta");
    let aligned = text.stem() == "bar" || words.contains(&"aligned");
    words.retain(|word| *word != "aligned");
    let mut operands = text.operands.iter();
    let mut next = || operands.next().ok_or_else(|| unknown(text, ": an operand is missing"));
    let mode = match words[..] {
        ["sync"] => BarrierMode::Sync,
        ["arrive"] => BarrierMode::Arrive,
        ["red", "popc", "u32"] => BarrierMode::Count(body.names.to32(next()?)?),
        ["red", "and", "pred"] => BarrierMode::Join(Logic::And, body.names.result_predicate(next()?)?),
        ["red", "or", "pred"] => BarrierMode::Join(Logic::Or, body.names.result_predicate(next()?)?),
        _ => return Err(unknown(text, "")),
    };
    let number = Some(body.names.r32(next()?)?);
    let mut rest: Vec<&Operand> = operands.collect();
    let reduces = matches!(mode, BarrierMode::Count(_) | BarrierMode::Join(..));
    let predicate = match rest.pop() {
        Some(last) if reduces => Some(body.names.signed_predicate(last)?),
        None if reduces => return Err(unknown(text, ": its predicate is missing")),
        last => {
            rest.extend(last);
            None
        }
    };
    let threads = rest.first().map(|threads| body.names.r32(threads)).transpose()?;
    if mode == BarrierMode::Arrive && threads.is_none() {
        return Err(unknown(text, ": it needs a number of threads"));
    }
    let barrier = Barrier { mode, number, threads, aligned, predicate };
    body.emit(Kind::Barrier, Op::Barrier(barrier));
    Ok(())
}

fn fence(body: &mut Body, text: &Instruction, level: &str) -> Result<(), LoadProblem> {
    let device = match level {
        "cta" => false,
        "cluster" | "gl" | "gpu" | "sys" => true,
        _ => return Err(unknown(text, "")),
    };
    body.emit(Kind::Barrier, Op::Fence { device });
    Ok(())
}

fn shuffle(body: &mut Body, text: &Instruction, mode: &str) -> Result<(), LoadProblem> {
    let mode = match mode {
        "up" => ShuffleMode::Up,
        "down" => ShuffleMode::Down,
        "bfly" => ShuffleMode::Butterfly,
        "idx" => ShuffleMode::Index,
        _ => return Err(unknown(text, "")),
    };
    let from = body.names.r32(operand(text, 1)?)?;
    let lane = body.names.r32(operand(text, 2)?)?;
    let clamp = body.names.r32(operand(text, 3)?)?;
    let members = body.names.r32(operand(text, 4)?)?;
    let (to, valid) = pair(body, operand(text, 0)?)?;
    body.emit(Kind::Warp, Op::Shuffle(Shuffle { mode, to, valid, from, lane, clamp, members }));
    Ok(())
}

fn vote(body: &mut Body, text: &Instruction, mode: &str) -> Result<(), LoadProblem> {
    let by = body.names.signed_predicate(operand(text, 1)?)?;
    let members = body.names.r32(operand(text, 2)?)?;
    let mode = match mode {
        "ballot" => {
            let to = body.names.to32(operand(text, 0)?)?;
            body.emit(Kind::Warp, Op::Ballot { to, by, members });
            return Ok(());
        }
        "all" => VoteMode::All,
        "any" => VoteMode::Any,
        "uni" => VoteMode::Uniform,
        _ => return Err(unknown(text, "")),
    };
    let to = body.names.result_predicate(operand(text, 0)?)?;
    body.emit(Kind::Warp, Op::Vote { mode, to, by, members });
    Ok(())
}

fn matches(body: &mut Body, text: &Instruction, all: bool, bytes: usize) -> Result<(), LoadProblem> {
    let value = body.source_value(operand(text, 1)?, bytes)?;
    let members = body.names.r32(operand(text, 2)?)?;
    let (to, valid) = pair(body, operand(text, 0)?)?;
    body.emit(Kind::Warp, Op::Match { to, valid, value, members, all });
    Ok(())
}

fn reduce(body: &mut Body, text: &Instruction, by: &str, ty: &str) -> Result<(), LoadProblem> {
    let by = match (by, ty) {
        ("add", "u32" | "s32") => Reduction::Add,
        ("min", "u32") => Reduction::MinUnsigned,
        ("max", "u32") => Reduction::MaxUnsigned,
        ("min", "s32") => Reduction::MinSigned,
        ("max", "s32") => Reduction::MaxSigned,
        ("and", "b32") => Reduction::And,
        ("or", "b32") => Reduction::Or,
        ("xor", "b32") => Reduction::Xor,
        _ => return Err(unknown(text, "")),
    };
    let from = body.names.r32(operand(text, 1)?)?;
    let members = body.names.r32(operand(text, 2)?)?;
    let to = body.names.to32(operand(text, 0)?)?;
    body.emit(Kind::Warp, Op::Reduce { by, to, from, members });
    Ok(())
}

fn elect(body: &mut Body, text: &Instruction) -> Result<(), LoadProblem> {
    let members = body.names.r32(operand(text, 1)?)?;
    let (to, elected) = pair(body, operand(text, 0)?)?;
    let elected = elected.ok_or_else(|| unknown(text, ": it needs a predicate"))?;
    body.emit(Kind::Warp, Op::Elect { to, elected, members });
    Ok(())
}
