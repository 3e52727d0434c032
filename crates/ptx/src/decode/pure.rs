//! Arithmetic, comparisons, conversions and moves.

use super::body::{Body, operand, unknown};
use crate::arith::{Comparison, Shape, Words, comparison, conversion, lookup, permute_mode};
use crate::fault::{LoadProblem, Space};
use crate::machine::Kind;
use crate::memory::SHARED_WINDOW;
use crate::op::{CarrySum, Logic, Op, Pure, SetPredicate, Value};
use crate::syntax::{Instruction, Operand};
use crate::types::Type;

/// The last modifier as a type.
fn type_of(text: &Instruction) -> Option<Type> {
    Type::parse(text.parts.last()?)
}

/// Decodes an instruction that computes something from registers alone.
pub(super) fn decode(body: &mut Body, text: &Instruction) -> Result<(), LoadProblem> {
    match text.stem() {
        "mov" => mov(body, text),
        "setp" => setp(body, text),
        "set" => set(body, text),
        "selp" => selp(body, text),
        "slct" => slct(body, text),
        "and" | "or" | "xor" | "not" if text.has("pred") => logic(body, text),
        "cvt" => cvt(body, text),
        "cvta" => cvta(body, text),
        "isspacep" => isspacep(body, text),
        "addc" | "subc" => carry(body, text),
        "add" | "sub" if text.has("cc") => carry(body, text),
        "prmt" if text.parts.len() == 3 => {
            let f = permute_mode(&text.parts[2]).ok_or_else(|| unknown(text, ""))?;
            apply(body, text, f, Kind::Integer)
        }
        _ => {
            let (f, kind) = lookup(text.stem(), text.modifiers()).ok_or_else(|| unknown(text, ""))?;
            apply(body, text, f, kind)
        }
    }
}

/// Emits a function of registers.
fn apply(body: &mut Body, text: &Instruction, f: Shape, kind: Kind) -> Result<(), LoadProblem> {
    // Whether the result and each operand has 64 bits.
    let (to, from): (bool, &[bool]) = match f {
        Shape::Unary32(_) => (false, &[false]),
        Shape::Unary64(_) => (true, &[true]),
        Shape::Widen(_) => (true, &[false]),
        Shape::Narrow(_) => (false, &[true]),
        Shape::Binary32(_) => (false, &[false, false]),
        Shape::Binary64(_) => (true, &[true, true]),
        Shape::Wide(_) => (true, &[false, false]),
        Shape::Shift64(_) => (true, &[true, false]),
        Shape::Ternary32(_) => (false, &[false, false, false]),
        Shape::Ternary64(_) => (true, &[true, true, true]),
        Shape::WideAdd(_) => (true, &[false, false, true]),
        Shape::Field64(_) => (true, &[true, false, false]),
        Shape::Quaternary32(_) => (false, &[false, false, false, false]),
        Shape::Insert64(_) => (true, &[true, true, false, false]),
    };
    if text.operands.len() != from.len() + 1 {
        return Err(unknown(text, &format!(" with {} operands", text.operands.len())));
    }
    let mut registers = [0; 4];
    for (at, wide) in from.iter().enumerate() {
        let operand = &text.operands[at + 1];
        if at == 1 && matches!(text.stem(), "shl" | "shr") {
            // By how much is shifted has 32 bits, whatever is shifted.
            body.names.operands_of(Type::U32);
        }
        registers[at] = match wide {
            true => body.names.r64(operand)?.0,
            false => body.names.r32(operand)?.0,
        };
    }
    let to = match to {
        true => body.names.to64(&text.operands[0])?.0,
        false => body.names.to32(&text.operands[0])?.0,
    };
    body.emit(kind, Op::Pure(Pure { f, to, from: registers }));
    Ok(())
}

fn mov(body: &mut Body, text: &Instruction) -> Result<(), LoadProblem> {
    let ty = type_of(text).ok_or_else(|| unknown(text, ""))?;
    let (to, from) = (operand(text, 0)?, operand(text, 1)?);
    if text.parts.len() != 2 {
        return Err(unknown(text, ""));
    }
    match (to, from) {
        (Operand::Vector(parts), _) => {
            let bits = part(text, ty, parts.len())?;
            let from = body.source_value(from, ty.bytes())?;
            let to = parts.iter().map(|part| body.result_value(part, bits / 8)).collect::<Result<_, _>>()?;
            body.emit(Kind::Integer, Op::Split { from, to, bits: bits as u8 });
        }
        (_, Operand::Vector(parts)) => {
            let bits = part(text, ty, parts.len())?;
            let from =
                parts.iter().map(|part| body.source_value(part, bits / 8)).collect::<Result<_, _>>()?;
            let to = body.result_value(to, ty.bytes())?;
            body.emit(Kind::Integer, Op::Join { to, from, bits: bits as u8 });
        }
        _ if ty == Type::Pred => {
            let from = body.names.predicate(from)?;
            let to = body.names.result_predicate(to)?;
            body.emit(Kind::Integer, Op::MovePredicate(to, from));
        }
        _ if ty.bytes() == 8 => {
            let from = body.names.r64(from)?;
            let to = body.names.to64(to)?;
            body.emit(Kind::Integer, Op::Move64(to, from));
        }
        _ if ty.bytes() <= 4 => {
            let from = body.names.r32(from)?;
            let to = body.names.to32(to)?;
            body.emit(Kind::Integer, Op::Move32(to, from));
        }
        _ => return Err(unknown(text, "")),
    }
    Ok(())
}

/// Bits of each part of a register: of its halves, or of its quarters where those have a byte.
fn part(text: &Instruction, ty: Type, parts: usize) -> Result<usize, LoadProblem> {
    let bits = 8 * ty.bytes();
    match parts {
        2 | 4 if matches!(bits, 16 | 32 | 64) && bits / parts >= 8 => Ok(bits / parts),
        _ => Err(unknown(text, &format!(" with a vector of {parts}"))),
    }
}

/// The comparison and its operands, of `setp` and `set` without their results.
fn test(
    body: &mut Body,
    text: &Instruction,
    words: &mut Words,
    ty: Type,
    operands: [&Operand; 2],
) -> Result<(Comparison, [u16; 2]), LoadProblem> {
    let ftz = words.take("ftz");
    let word = words.first().ok_or_else(|| unknown(text, ""))?;
    let test = comparison(word, ty, ftz).ok_or_else(|| unknown(text, ""))?;
    let [a, b] = operands;
    let operands = match test {
        Comparison::Of32(_) => [body.names.r32(a)?.0, body.names.r32(b)?.0],
        Comparison::Of64(_) => [body.names.r64(a)?.0, body.names.r64(b)?.0],
    };
    Ok((test, operands))
}

/// The predicate that a comparison is joined with.
fn join(
    body: &mut Body,
    text: &Instruction,
    words: &mut Words,
) -> Result<Option<(Logic, crate::machine::RP, bool)>, LoadProblem> {
    for (word, logic) in [("and", Logic::And), ("or", Logic::Or), ("xor", Logic::Xor)] {
        if words.take(word) {
            let (by, negated) = body.names.signed_predicate(operand(text, 3)?)?;
            return Ok(Some((logic, by, negated)));
        }
    }
    Ok(None)
}

fn setp(body: &mut Body, text: &Instruction) -> Result<(), LoadProblem> {
    let mut words = Words::new(text.modifiers());
    let ty = words.ty().ok_or_else(|| unknown(text, ""))?;
    let operands = [operand(text, 1)?, operand(text, 2)?];
    let join = join(body, text, &mut words)?;
    let (test, operands) = test(body, text, &mut words, ty, operands)?;
    let (to, other) = match operand(text, 0)? {
        Operand::Pair(to, other) => {
            (body.names.result_predicate(to)?, Some(body.names.result_predicate(other)?))
        }
        to => (body.names.result_predicate(to)?, None),
    };
    if !words.done() {
        return Err(unknown(text, ""));
    }
    let kind = kind_of(ty);
    body.emit(kind, Op::Compare(SetPredicate { test, operands, join, to, other }));
    Ok(())
}

fn kind_of(ty: Type) -> Kind {
    match ty {
        Type::F32 => Kind::Single,
        Type::F64 => Kind::Double,
        _ if ty.float() => Kind::Half,
        _ => Kind::Integer,
    }
}

/// `set`: a comparison whose result is a number: all ones, or 1.0 where the result is an f32.
fn set(body: &mut Body, text: &Instruction) -> Result<(), LoadProblem> {
    let mut words = Words::new(text.modifiers());
    let (from, to) = (words.ty(), words.ty());
    let (Some(from), Some(to)) = (from, to) else { return Err(unknown(text, "")) };
    let yes = match to {
        Type::U32 | Type::S32 => u32::MAX,
        Type::F32 => 1f32.to_bits(),
        _ => return Err(unknown(text, "")),
    };
    let operands = [operand(text, 1)?, operand(text, 2)?];
    let join = join(body, text, &mut words)?;
    let (test, operands) = test(body, text, &mut words, from, operands)?;
    if !words.done() {
        return Err(unknown(text, ""));
    }
    let by = body.fresh_predicate()?;
    let kind = kind_of(from);
    body.emit(kind, Op::Compare(SetPredicate { test, operands, join, to: by, other: None }));
    let (yes, no) = (body.names.constant32(yes)?, body.names.constant32(0)?);
    let to = body.names.to32(operand(text, 0)?)?;
    body.emit(kind, Op::Select32 { to, yes, no, by });
    Ok(())
}

fn selp(body: &mut Body, text: &Instruction) -> Result<(), LoadProblem> {
    let ty = type_of(text).ok_or_else(|| unknown(text, ""))?;
    let by = body.names.predicate(operand(text, 3)?)?;
    select(body, text, ty, by)
}

fn select(body: &mut Body, text: &Instruction, ty: Type, by: crate::machine::RP) -> Result<(), LoadProblem> {
    let (to, yes, no) = (operand(text, 0)?, operand(text, 1)?, operand(text, 2)?);
    let op = match ty.bytes() {
        8 => {
            let (yes, no) = (body.names.r64(yes)?, body.names.r64(no)?);
            Op::Select64 { to: body.names.to64(to)?, yes, no, by }
        }
        2 | 4 => {
            let (yes, no) = (body.names.r32(yes)?, body.names.r32(no)?);
            Op::Select32 { to: body.names.to32(to)?, yes, no, by }
        }
        _ => return Err(unknown(text, "")),
    };
    body.emit(Kind::Integer, op);
    Ok(())
}

/// `slct`: the first operand where the third is not negative.
fn slct(body: &mut Body, text: &Instruction) -> Result<(), LoadProblem> {
    let mut words = Words::new(text.modifiers());
    let ftz = words.take("ftz");
    let (by, ty) = (words.ty(), words.ty());
    let (Some(by @ (Type::S32 | Type::F32)), Some(ty), true) = (by, ty, words.done()) else {
        return Err(unknown(text, ""));
    };
    let test = comparison("ge", by, ftz).ok_or_else(|| unknown(text, ""))?;
    let operands = [body.names.r32(operand(text, 3)?)?.0, body.names.constant32(0)?.0];
    let to = body.fresh_predicate()?;
    body.emit(Kind::Integer, Op::Compare(SetPredicate { test, operands, join: None, to, other: None }));
    // Its last type is not that of the operands that are left.
    body.names.operands_of(ty);
    select(body, text, ty, to)
}

fn logic(body: &mut Body, text: &Instruction) -> Result<(), LoadProblem> {
    let a = body.names.predicate(operand(text, 1)?)?;
    let to = body.names.result_predicate(operand(text, 0)?)?;
    let op = match text.stem() {
        "not" => Op::Not { to, a },
        stem => {
            let logic = match stem {
                "and" => Logic::And,
                "or" => Logic::Or,
                _ => Logic::Xor,
            };
            Op::Logic { logic, to, a, b: body.names.predicate(operand(text, 2)?)? }
        }
    };
    body.emit(Kind::Integer, op);
    Ok(())
}

fn cvt(body: &mut Body, text: &Instruction) -> Result<(), LoadProblem> {
    let register = body.type_of(operand(text, 0)?).map_or(4, Type::bytes);
    let by = conversion(text.modifiers(), register).ok_or_else(|| unknown(text, ""))?;
    if let Some(f) = by.shape() {
        return apply(body, text, f, Kind::Convert);
    }
    let a = body.source_value(operand(text, 1)?, by.from.bytes())?;
    let b = if by.pair { body.source_value(operand(text, 2)?, 4)? } else { a };
    let to = body.result_value(operand(text, 0)?, by.to.bytes())?;
    body.emit(Kind::Convert, Op::Convert { by, to, a, b });
    Ok(())
}

/// `cvta`: of the spaces, only shared memory has addresses that are not generic.
fn cvta(body: &mut Body, text: &Instruction) -> Result<(), LoadProblem> {
    let space = text.modifiers().iter().find_map(|part| space_of(part));
    if type_of(text) != Some(Type::U64) || space.is_none() {
        return Err(unknown(text, ""));
    }
    if space != Some(Space::Shared) {
        let from = body.names.r64(operand(text, 1)?)?;
        let to = body.names.to64(operand(text, 0)?)?;
        body.emit(Kind::Integer, Op::Move64(to, from));
        return Ok(());
    }
    let f = match text.has("to") {
        true => Shape::Unary64(|a, to| (0..32).for_each(|l| to[l] = a[l].wrapping_sub(SHARED_WINDOW))),
        false => Shape::Unary64(|a, to| (0..32).for_each(|l| to[l] = a[l].wrapping_add(SHARED_WINDOW))),
    };
    apply(body, text, f, Kind::Integer)
}

/// The state space of a modifier such as `shared::cta`.
pub(super) fn space_of(part: &str) -> Option<Space> {
    Some(match part.split("::").next()? {
        "global" => Space::Global,
        "shared" => Space::Shared,
        "local" => Space::Local,
        "const" => Space::Const,
        "param" => Space::Param,
        _ => return None,
    })
}

fn isspacep(body: &mut Body, text: &Instruction) -> Result<(), LoadProblem> {
    let space = text.modifiers().iter().find_map(|part| space_of(part));
    let space = space.ok_or_else(|| unknown(text, ""))?;
    let address = body.names.r64(operand(text, 1)?)?;
    let to = body.names.result_predicate(operand(text, 0)?)?;
    body.emit(Kind::Integer, Op::InSpace { to, address, space });
    Ok(())
}

fn carry(body: &mut Body, text: &Instruction) -> Result<(), LoadProblem> {
    let ty = type_of(text).filter(|ty| ty.bytes() >= 4 && !ty.float());
    let bytes = ty.ok_or_else(|| unknown(text, ""))?.bytes();
    let a = body.source_value(operand(text, 1)?, bytes)?;
    let b = body.source_value(operand(text, 2)?, bytes)?;
    let to = body.result_value(operand(text, 0)?, bytes)?;
    let stem = text.stem();
    let sum = CarrySum {
        to,
        a,
        b,
        subtract: stem.starts_with("sub"),
        takes: stem.ends_with('c'),
        gives: text.has("cc"),
    };
    let narrow = |value| matches!(value, Value::Narrow(_));
    if narrow(to) != narrow(a) || narrow(to) != narrow(b) {
        return Err(unknown(text, " with operands of two sizes"));
    }
    body.emit(Kind::Integer, Op::Carry(sum));
    Ok(())
}
