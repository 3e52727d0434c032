//! Loads, stores, atomic operations and `cp.async`.

use super::body::{Body, operand, unknown};
use super::pure::space_of;
use crate::fault::{LoadProblem, Space};
use crate::machine::Kind;
use crate::memory::Strength;
use crate::op::{AsyncCopy, Atomic, AtomicKind, Op, Transfer, Value};
use crate::syntax::{Instruction, Operand};
use crate::types::Type;

/// What the modifiers of an access say.
#[derive(Default)]
struct Modifiers {
    space: Option<Space>,
    elements: usize,
    ty: Option<Type>,
    strong: bool,
    /// The scope is the block.
    block: bool,
    acquire: bool,
    release: bool,
    kind: Option<AtomicKind>,
}

/// Reads modifiers; those that say how caches are used change no result.
fn modifiers(text: &Instruction) -> Result<Modifiers, LoadProblem> {
    let mut found = Modifiers { elements: 1, ..Modifiers::default() };
    for part in text.modifiers() {
        if part.starts_with("L1::") || part.starts_with("L2::") || part.starts_with("level::") {
            continue;
        }
        if let Some(space) = space_of(part) {
            found.space = Some(space);
            continue;
        }
        match part.as_str() {
            "weak" | "nc" | "ca" | "cg" | "cs" | "lu" | "cv" | "wb" | "wt" | "noftz" => {}
            // A cluster has one block.
            "cta" | "cluster" => found.block = true,
            "gpu" | "sys" => {}
            "volatile" | "relaxed" => found.strong = true,
            "acquire" => (found.strong, found.acquire) = (true, true),
            "release" => (found.strong, found.release) = (true, true),
            "acq_rel" => (found.acquire, found.release) = (true, true),
            "v2" => found.elements = 2,
            "v4" => found.elements = 4,
            "v8" => found.elements = 8,
            word => match (atomic_kind(word), Type::parse(word)) {
                (Some(kind), _) if found.kind.is_none() => found.kind = Some(kind),
                (_, Some(ty)) => found.ty = Some(ty),
                _ => return Err(unknown(text, &format!(": `.{word}` is not known"))),
            },
        }
    }
    Ok(found)
}

impl Modifiers {
    /// How far the access is atomic, if it is.
    fn strength(&self, atomic: bool) -> Strength {
        match (atomic, self.block) {
            (false, _) => Strength::Weak,
            (true, true) => Strength::Block,
            (true, false) => Strength::Device,
        }
    }
}

fn atomic_kind(word: &str) -> Option<AtomicKind> {
    Some(match word {
        "and" => AtomicKind::And,
        "or" => AtomicKind::Or,
        "xor" => AtomicKind::Xor,
        "exch" => AtomicKind::Exchange,
        "cas" => AtomicKind::CompareSwap,
        "add" => AtomicKind::Add,
        "inc" => AtomicKind::Inc,
        "dec" => AtomicKind::Dec,
        "min" => AtomicKind::Min,
        "max" => AtomicKind::Max,
        _ => return None,
    })
}

/// Decodes an instruction that touches memory.
pub(super) fn decode(body: &mut Body, text: &Instruction) -> Result<(), LoadProblem> {
    match text.stem() {
        "ld" | "ldu" => transfer(body, text, 1, 0),
        "st" => transfer(body, text, 0, 1),
        "atom" => atomic(body, text, true),
        "red" => atomic(body, text, false),
        _ => copy(body, text),
    }
}

/// A load (values at operand 0) or a store (values at operand 1).
fn transfer(body: &mut Body, text: &Instruction, at: usize, values: usize) -> Result<(), LoadProblem> {
    let load = values == 0;
    let found = modifiers(text)?;
    let (Some(ty), None) = (found.ty, found.kind) else { return Err(unknown(text, "")) };
    let bytes = ty.bytes();
    if !matches!(bytes, 1 | 2 | 4 | 8) || found.elements * bytes > 32 {
        return Err(unknown(text, ""));
    }
    let address = body.names.address(operand(text, at)?)?;
    // Parameters of a call that is put in place lie in local memory.
    let space = match (found.space, address.names) {
        (Some(Space::Param), Some(Space::Local)) => Some(Space::Local),
        (space, None) => space,
        (None, names) => names,
        (space, _) => space,
    };
    let operands = body.names.elements(operand(text, values)?).to_vec();
    if operands.len() != found.elements {
        return Err(body.names.wrong(operand(text, values)?, "as many registers as elements"));
    }
    let extend = if load && ty.signed() {
        Some(body.type_of(&operands[0]).map_or(bytes, Type::bytes) as u8)
    } else {
        None
    };
    let values = operands
        .iter()
        .map(|one| if load { body.result_value(one, bytes) } else { body.source_value(one, bytes) })
        .collect::<Result<Box<[Value]>, _>>()?;
    body.granule(space, bytes);
    let ordering = found.acquire || found.release;
    let strength = found.strength(found.strong);
    let transfer = Transfer { space, bytes: bytes as u8, extend, values, address, strength, ordering };
    let kind = match (space, load) {
        (Some(Space::Shared), true) => Kind::SharedLoad,
        (Some(Space::Shared), false) => Kind::SharedStore,
        (Some(Space::Local), _) => Kind::Local,
        (Some(Space::Const | Space::Param), _) => Kind::Constant,
        (_, true) => Kind::GlobalLoad,
        (_, false) => Kind::GlobalStore,
    };
    body.emit(kind, if load { Op::Load(transfer) } else { Op::Store(transfer) });
    Ok(())
}

/// `atom`, which returns what was there, or `red`.
fn atomic(body: &mut Body, text: &Instruction, returns: bool) -> Result<(), LoadProblem> {
    let found = modifiers(text)?;
    let (Some(ty), Some(kind)) = (found.ty, found.kind) else { return Err(unknown(text, "")) };
    if !defined(kind, ty) || found.elements > 1 && ty != Type::F32 {
        return Err(unknown(text, ""));
    }
    let first = usize::from(returns);
    let address = body.names.address(operand(text, first)?)?;
    let bytes = ty.bytes();
    let from = body.names.elements(operand(text, first + 1)?).to_vec();
    let from = from.iter().map(|one| body.source_value(one, bytes)).collect::<Result<Box<[Value]>, _>>()?;
    if from.len() != found.elements {
        return Err(body.names.wrong(operand(text, first + 1)?, "as many registers as elements"));
    }
    let swap = match kind {
        AtomicKind::CompareSwap => Some(body.source_value(operand(text, first + 2)?, bytes)?),
        _ => None,
    };
    let to = match returns {
        true => {
            let to = body.names.elements(operand(text, 0)?).to_vec();
            let to =
                to.iter().map(|one| body.result_value(one, bytes)).collect::<Result<Box<[Value]>, _>>()?;
            Some(to).filter(|to| to.len() == found.elements)
        }
        false => None,
    };
    if to.is_some() != returns {
        return Err(unknown(text, ": it needs as many results as elements"));
    }
    let space = found.space.or(address.names);
    body.granule(space, bytes);
    let (acquire, release) = (found.acquire, found.release);
    let strength = found.strength(true);
    let atomic = Atomic { space, kind, ty, to, address, from, swap, release, acquire, strength };
    body.emit(Kind::Atomic, Op::Atomic(Box::new(atomic)));
    Ok(())
}

fn defined(kind: AtomicKind, ty: Type) -> bool {
    use AtomicKind::*;
    use Type::*;
    match kind {
        And | Or | Xor => matches!(ty, B32 | B64),
        Exchange => matches!(ty, B32 | B64 | U32 | U64 | S32 | F32),
        CompareSwap => matches!(ty, B16 | B32 | B64 | U32 | U64 | S32),
        Inc | Dec => ty == U32,
        Min | Max => matches!(ty, U32 | S32 | U64 | S64),
        Add => matches!(ty, U32 | S32 | U64 | S64 | F32 | F64 | F16 | F16x2 | Bf16 | Bf16x2),
    }
}

/// `cp.async` but those that report to an mbarrier.
fn copy(body: &mut Body, text: &Instruction) -> Result<(), LoadProblem> {
    let words: Vec<&str> = text.modifiers().iter().map(String::as_str).collect();
    match words[..] {
        ["async", "commit_group"] => {
            body.emit(Kind::Copy, Op::CommitGroup);
            return Ok(());
        }
        ["async", "wait_group"] => {
            let pending = body.names.immediate(operand(text, 0)?)?;
            body.emit(Kind::Barrier, Op::WaitGroup(pending.min(u64::from(u32::MAX)) as u32));
            return Ok(());
        }
        // All copies, committed or not, are waited for.
        ["async", "wait_all"] => {
            body.emit(Kind::Copy, Op::CommitGroup);
            body.emit(Kind::Barrier, Op::WaitGroup(0));
            return Ok(());
        }
        ["async", "ca" | "cg", "shared" | "shared::cta", "global", ..] => {}
        _ => return Err(unknown(text, "")),
    }
    let bytes = body.names.immediate(operand(text, 2)?)?;
    if !(matches!(bytes, 4 | 8 | 16) && (bytes == 16 || words[1] == "ca")) {
        return Err(body.names.wrong(operand(text, 2)?, "4, 8 or 16 bytes, and 16 with `.cg`"));
    }
    let (mut source, mut ignore) = (None, None);
    match text.operands.get(3) {
        None => {}
        Some(Operand::Not(_)) => ignore = Some(body.names.signed_predicate(&text.operands[3])?),
        Some(other) if body.type_of(other) == Some(Type::Pred) => {
            ignore = Some(body.names.signed_predicate(other)?);
        }
        // With a hint for the cache, an operand of 64 bits comes last.
        Some(other) if body.type_of(other) == Some(Type::B64) => {}
        Some(other) => source = Some(body.names.r32(other)?),
    }
    let to = body.names.address(operand(text, 0)?)?;
    let from = body.names.address(operand(text, 1)?)?;
    body.granule(None, bytes as usize);
    let copy = AsyncCopy { to, from, bytes: bytes as u8, source, ignore };
    body.emit(Kind::Copy, Op::AsyncCopy(Box::new(copy)));
    Ok(())
}
