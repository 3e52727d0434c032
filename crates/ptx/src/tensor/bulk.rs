//! `cp.async.bulk` and `cp.async.bulk.tensor`: copies by the hardware's own engine.
//!
//! A copy to shared memory reports to an mbarrier, one to global memory belongs to a bulk group of
//! its thread. What it touches is checked when it is asked for and again when it is carried out: at
//! once, or as late as the program permits, with which [`Settings::late`] is set. See the PTX ISA
//! 9.0, sections "Data Movement and Conversion Instructions: cp.async.bulk" and on.
//!
//! [`Settings::late`]: crate::machine::Settings

use super::barrier::{find, told};
use super::operand::{SharedAddress, generic, names_shared, only, operand, read, unknown, value};
use crate::fault::{Access, Cause, LoadProblem, Space};
use crate::machine::{Block, BulkCopy, BulkPiece, Destination, Flow, Mbarrier, R32, Trap, Warp, Who, lanes};
use crate::resolve::{Address, Resolver};
use crate::syntax::{Instruction, Operand};
use crate::tensor_map::{TENSOR_MAP_BYTES, TensorMap};

/// An operation of this file.
#[derive(Clone, Debug)]
pub(crate) enum BulkOp {
    Load { shared: SharedAddress, source: Source, mbarrier: SharedAddress },
    Store { shared: SharedAddress, target: Source },
    Commit,
    Wait { pending: u32 },
}

/// The side of a copy that lies in global memory.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    Line { address: Address, bytes: R32 },
    Tile { map: Address, coordinates: Vec<R32> },
}

/// Bytes of a piece, and the alignment of lines.
const PIECE: usize = 16;
/// Bytes in which global memory is moved.
const SECTOR: u64 = 32;
/// The alignment of a tile in shared memory.
const TILE_ALIGN: u32 = 128;

/// Whether an opcode is decoded here.
pub(super) fn claims(instruction: &Instruction) -> bool {
    let modifiers: Vec<&str> = instruction.modifiers().iter().map(String::as_str).collect();
    instruction.stem() == "cp" && matches!(modifiers.as_slice(), ["async", "bulk", ..])
}

const KNOWN: [&str; 19] = [
    "async",
    "bulk",
    "tensor",
    "tile",
    "1d",
    "2d",
    "3d",
    "4d",
    "5d",
    "shared::cta",
    "shared::cluster",
    "global",
    "bulk_group",
    "commit_group",
    "wait_group",
    "read",
    "mbarrier::complete_tx::bytes",
    "L2::cache_hint",
    "shared",
];

/// The operation of an instruction that `claims` has taken.
pub(super) fn decode(instruction: &Instruction, names: &mut Resolver) -> Result<BulkOp, LoadProblem> {
    only(instruction, &KNOWN)?;
    if instruction.has("commit_group") {
        return Ok(BulkOp::Commit);
    }
    if instruction.has("wait_group") {
        let pending = names.immediate(operand(instruction, 0)?)?;
        return Ok(BulkOp::Wait { pending: pending as u32 });
    }
    let tensor = instruction.has("tensor");
    let place = |part: &String| part == "global" || part.starts_with("shared");
    match instruction.modifiers().iter().find(|part| place(part)) {
        Some(to) if to == "global" => {
            let (target, from) =
                if tensor { (tile(instruction, names, 0)?, 1) } else { (line(instruction, names, 0, 2)?, 1) };
            let shared = SharedAddress::new(instruction, names, from, names_shared(instruction))?;
            Ok(BulkOp::Store { shared, target })
        }
        Some(_) => {
            let shared = SharedAddress::new(instruction, names, 0, true)?;
            let (source, mbarrier) =
                if tensor { (tile(instruction, names, 1)?, 2) } else { (line(instruction, names, 1, 2)?, 3) };
            let mbarrier = SharedAddress::new(instruction, names, mbarrier, true)?;
            Ok(BulkOp::Load { shared, source, mbarrier })
        }
        None => Err(unknown(instruction, "")),
    }
}

fn line(
    instruction: &Instruction,
    names: &mut Resolver,
    address: usize,
    bytes: usize,
) -> Result<Source, LoadProblem> {
    let address = names.address(operand(instruction, address)?)?;
    Ok(Source::Line { address, bytes: names.r32(operand(instruction, bytes)?)? })
}

/// `[map, {x, y}]`
fn tile(instruction: &Instruction, names: &mut Resolver, at: usize) -> Result<Source, LoadProblem> {
    let tile = operand(instruction, at)?;
    let map = names.address(tile)?;
    let Operand::Address { rest, .. } = tile else { return Err(names.wrong(tile, "a tensor map")) };
    let Some(vector) = rest.first() else { return Err(names.wrong(tile, "coordinates")) };
    let rank = (1..=5).find(|rank| instruction.has(&format!("{rank}d")));
    let elements = names.elements(vector).to_vec();
    if rank != Some(elements.len()) {
        return Err(names.wrong(tile, "as many coordinates as the opcode says"));
    }
    let coordinates: Result<_, _> = elements.iter().map(|element| names.r32(element)).collect();
    Ok(Source::Tile { map, coordinates: coordinates? })
}

/// Executes an operation for the lanes `active` of a warp.
pub(super) fn execute(
    operation: &BulkOp,
    warp: &mut Warp,
    block: &mut Block,
    active: u32,
) -> Result<Flow, Box<Trap>> {
    for lane in lanes(active) {
        let who = Who { warp: warp.id, lane };
        match operation {
            BulkOp::Load { shared, source, mbarrier } => {
                let at = mbarrier.offset(warp, lane)?;
                let pieces = pieces(shared, source, warp, block, who)?;
                load(block, who, warp.pc[lane], at, pieces)?;
            }
            BulkOp::Store { shared, target } => {
                let pieces = pieces(shared, target, warp, block, who)?;
                store(block, who, warp.pc[lane], pieces)?;
            }
            BulkOp::Commit => block.bulk.commit(who),
            BulkOp::Wait { pending } => {
                for copy in block.bulk.due(who, *pending) {
                    carry_out(block, &copy)?;
                }
            }
        }
    }
    Ok(Flow::Next)
}

/// The pieces of a copy.
fn pieces(
    shared: &SharedAddress,
    other: &Source,
    warp: &Warp,
    block: &mut Block,
    who: Who,
) -> Result<Vec<BulkPiece>, Box<Trap>> {
    let at = shared.offset(warp, who.lane)? as usize;
    match other {
        Source::Line { address, bytes } => {
            let from = value(address, warp, who.lane)?;
            let bytes = warp.registers.get32(*bytes, 1 << who.lane)?[who.lane] as usize;
            if !bytes.is_multiple_of(PIECE) || bytes == 0 {
                let what = format!("a bulk copy of {bytes} bytes, which is no multiple of {PIECE}");
                return Err(Trap::lane(who.lane, Cause::Undefined { what }));
            }
            aligned(Space::Global, from, PIECE as u32, bytes, who)?;
            room(block, at, bytes, who)?;
            let global = |i: usize| Some(from.wrapping_add(i as u64));
            let piece = |i: usize| BulkPiece { shared: at + i, global: global(i), bytes: PIECE };
            Ok((0..bytes).step_by(PIECE).map(piece).collect())
        }
        Source::Tile { map, coordinates } => {
            let from = generic(map, value(map, warp, who.lane)?);
            let mut bytes = [0; TENSOR_MAP_BYTES];
            read(block, who, from, &mut bytes)?;
            let decoded = TensorMap::decode(&bytes).filter(|map| map.sizes.len() == coordinates.len());
            let Some(map) = decoded else {
                let what = format!("{from:#x} holds no tensor map of {} dimensions", coordinates.len());
                return Err(Trap::lane(who.lane, Cause::Undefined { what }));
            };
            aligned(Space::Shared, at as u64, TILE_ALIGN, map.bytes(), who)?;
            room(block, at, map.bytes(), who)?;
            let coordinate = |register: &R32| -> Result<i32, Box<Trap>> {
                Ok(warp.registers.get32(*register, 1 << who.lane)?[who.lane] as i32)
            };
            let coordinates: Result<Vec<i32>, _> = coordinates.iter().map(coordinate).collect();
            Ok(tile_pieces(&map, at, &coordinates?))
        }
    }
}

/// A copy lies in shared memory as a whole; its pieces are not even made if it does not.
fn room(block: &Block, at: usize, bytes: usize, who: Who) -> Result<(), Box<Trap>> {
    let size = block.shared.bytes.data.len();
    if at.checked_add(bytes).is_some_and(|end| end <= size) {
        return Ok(());
    }
    let why = "it runs over the end of the block's memory";
    let (space, access, address) = (Space::Shared, Access::Copy, at as u64);
    let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
    Err(Trap::lane(who.lane, Cause::OutOfBounds { space, access, address, bytes, why }))
}

fn aligned(space: Space, address: u64, align: u32, bytes: usize, who: Who) -> Result<(), Box<Trap>> {
    if address.is_multiple_of(u64::from(align)) {
        return Ok(());
    }
    let cause = Cause::Misaligned { space, access: Access::Copy, address, bytes: bytes as u32, align };
    Err(Trap::lane(who.lane, cause))
}

/// The box of a map as pieces that do not cross a piece of the swizzle or the tensor's edge.
fn tile_pieces(map: &TensorMap, at: usize, coordinates: &[i32]) -> Vec<BulkPiece> {
    let mut pieces = Vec::with_capacity(map.bytes() / PIECE);
    for row in map.rows(coordinates) {
        let (begin, end, address) = match row.inside {
            Some((address, bytes)) => (row.before, row.before + bytes, address),
            None => (row.bytes, row.bytes, 0),
        };
        let mut from = 0;
        while from < row.bytes {
            let edge = [begin, end].into_iter().filter(|&edge| edge > from).min().unwrap_or(row.bytes);
            let stop = (from / PIECE * PIECE + PIECE).min(edge).min(row.bytes);
            let inside = from >= begin && from < end;
            pieces.push(BulkPiece {
                shared: map.swizzle.place(at + row.offset + from),
                global: inside.then(|| address.wrapping_add((from - begin) as u64)),
                bytes: stop - from,
            });
            from = stop;
        }
    }
    pieces
}

/// Asks for a copy to shared memory.
fn load(
    block: &mut Block,
    who: Who,
    pc: u32,
    mbarrier: u64,
    pieces: Vec<BulkPiece>,
) -> Result<(), Box<Trap>> {
    find(block, who, mbarrier)?;
    fenced(block, mbarrier as usize, size_of::<u64>(), who)?;
    for piece in &pieces {
        block.shared_at(who, piece.shared as u64, 1, piece.bytes, Access::Copy)?;
        if let Some(proxy) = &mut block.shared.proxy {
            proxy.copied(piece.shared, piece.bytes);
        }
        block.shared.in_flight.set(piece.shared, piece.bytes);
    }
    block.shared.copying = true;
    let (bytes, sectors) = traffic(&pieces);
    block.counts.bytes_loaded += bytes;
    block.counts.sectors_loaded += sectors;
    let knows = Box::new(block.clocks.release(who.warp));
    let to = Destination::Shared { mbarrier: mbarrier as u32, knows };
    let copy = BulkCopy { who, pc, pieces, to };
    if block.settings.late {
        block.bulk.in_flight.push(copy);
        return Ok(());
    }
    carry_out(block, &copy)
}

/// Bytes and sectors of global memory that a copy moves.
fn traffic(pieces: &[BulkPiece]) -> (u64, u64) {
    let (mut bytes, mut sectors, mut last) = (0, 0, None);
    for (piece, address) in pieces.iter().filter_map(|piece| Some((piece, piece.global?))) {
        bytes += piece.bytes as u64;
        sectors += u64::from(last.replace(address / SECTOR) != Some(address / SECTOR));
    }
    (bytes, sectors)
}

/// Asks for a copy to global memory.
fn store(block: &mut Block, who: Who, pc: u32, pieces: Vec<BulkPiece>) -> Result<(), Box<Trap>> {
    for piece in pieces.iter().filter(|piece| piece.global.is_some()) {
        block.shared_at(who, piece.shared as u64, 1, piece.bytes, Access::Read)?;
        fenced(block, piece.shared, piece.bytes, who)?;
    }
    let (bytes, sectors) = traffic(&pieces);
    block.counts.bytes_stored += bytes;
    block.counts.sectors_stored += sectors;
    let group = block.bulk.open_group(who);
    let copy = BulkCopy { who, pc, pieces, to: Destination::Global { group } };
    if !block.settings.late {
        carry_out(block, &copy)?;
    }
    block.bulk.in_flight.push(copy);
    Ok(())
}

/// What was written in the ordinary way is seen by copies behind a fence only.
pub(super) fn fenced(block: &Block, at: usize, bytes: usize, who: Who) -> Result<(), Box<Trap>> {
    let Some(warp) = block.shared.proxy.as_ref().and_then(|proxy| proxy.unfenced(at, bytes)) else {
        return Ok(());
    };
    let what = format!(
        "shared memory at {at:#x} was written by warp {warp}, which executed no `fence.proxy.async` since"
    );
    Err(Trap::lane(who.lane, Cause::Undefined { what }))
}

/// Carries out a copy; a second time where it was carried out early, to see that nothing has
/// changed what it reads.
pub(super) fn carry_out(block: &mut Block, copy: &BulkCopy) -> Result<(), Box<Trap>> {
    let mut data = [0; PIECE];
    for piece in &copy.pieces {
        let data = &mut data[..piece.bytes];
        match (&copy.to, piece.global) {
            (Destination::Shared { .. }, from) => {
                data.fill(0);
                if let Some(address) = from {
                    block.global_load(copy.who, address, 1, data)?;
                }
                block.shared.bytes.store(piece.shared, data);
                block.shared.in_flight.unset(piece.shared, piece.bytes);
            }
            (Destination::Global { .. }, Some(address)) => {
                block.shared_load(copy.who, piece.shared as u64, 1, data)?;
                block.global_store(copy.who, address, 1, data)?;
            }
            (Destination::Global { .. }, None) => {}
        }
    }
    if let Destination::Shared { mbarrier, knows } = &copy.to {
        let bytes = copy.bytes();
        let gone = || {
            let why = "it is gone, and a copy that reports to it is on its way".to_string();
            Trap::lane(copy.who.lane, Cause::Mbarrier { address: u64::from(*mbarrier), why })
        };
        let result = block.mbarriers.get_mut(mbarrier).ok_or_else(gone)?.complete(bytes, knows);
        told(result, u64::from(*mbarrier), copy.who.lane)?;
        block.progress += 1;
    }
    Ok(())
}

/// The mbarriers whose phase lacks something, in words.
pub(super) fn lacking(block: &Block) -> Vec<String> {
    let open = |mbarrier: &Mbarrier| mbarrier.pending != mbarrier.expected || mbarrier.transactions != 0;
    let all = block.mbarriers.iter();
    all.filter(|(_, mbarrier)| open(mbarrier))
        .map(|(at, mbarrier)| format!("of the mbarrier at {at:#x}, {}", mbarrier.lacks()))
        .collect()
}
