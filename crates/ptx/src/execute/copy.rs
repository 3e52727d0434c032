//! `cp.async`.

use super::coalesce::sectors;
use super::memory::{addresses, shared_offset};
use crate::fault::{Access, Cause, Space};
use crate::machine::{Block, Piece, Trap, Warp, Who, lanes};
use crate::memory::space_of;
use crate::op::AsyncCopy;

/// Asks for a copy in the lanes `m`. Its bytes of shared memory are in flight until it is waited
/// for, whether they are there already (early) or not (late).
pub(super) fn copy(copy: &AsyncCopy, warp: &mut Warp, block: &mut Block, m: u32) -> Result<(), Box<Trap>> {
    let to = addresses(&copy.to, warp, m)?;
    let from = addresses(&copy.from, warp, m)?;
    let sizes = copy.source.map(|register| warp.registers.get32(register, m).copied()).transpose()?;
    let ignored = match copy.ignore {
        Some((register, negated)) => {
            let bits = warp.registers.get_predicate(register, m)?;
            if negated { !bits } else { bits }
        }
        None => 0,
    };
    let size = usize::from(copy.bytes);
    let begin = block.copies[warp.id].pieces.len();
    let mut reading = 0;
    for lane in lanes(m) {
        let who = Who { warp: warp.id, lane };
        let bytes = sizes.map_or(size, |sizes| sizes[lane] as usize);
        let bytes = if ignored >> lane & 1 == 1 { 0 } else { bytes };
        if bytes > size {
            let what = format!("a copy of {size} bytes reads {bytes}");
            return Err(Trap::lane(lane, Cause::Undefined { what }));
        }
        let mut data = [0; 16];
        if bytes == 0 {
            // PTX does not say that an address of which no byte is read may be any.
            let located = block.memory.locate(from[lane], 1, Access::Read);
            located.map_err(|cause| Trap::lane(lane, cause))?;
        } else {
            reading |= 1 << lane;
            aligned(from[lane], size, lane)?;
            block.global_load(who, from[lane], 1, &mut data[..bytes])?;
            block.counts.bytes_loaded += bytes as u64;
        }
        let offset = shared_offset(copy.to.names, to[lane]);
        let offset = if space_of(offset).0 == Space::Shared { space_of(offset).1 } else { offset };
        let at = block.shared_at(who, offset, copy.bytes.into(), size, Access::Copy)?;
        let group = block.copies[warp.id].committed[lane];
        block.copies[warp.id].pieces.push(Piece { lane, to: at, data, bytes: size, group });
    }
    for piece in &block.copies[warp.id].pieces[begin..] {
        if !block.settings.late {
            block.shared.bytes.store(piece.to, &piece.data[..size]);
        }
        block.shared.in_flight.set(piece.to, size);
    }
    block.shared.copying = true;
    block.counts.sectors_loaded += sectors(&from, reading, copy.bytes.into());
    Ok(())
}

fn aligned(address: u64, size: usize, lane: usize) -> Result<(), Box<Trap>> {
    if address.is_multiple_of(size as u64) {
        return Ok(());
    }
    let (space, access) = (Space::Global, Access::Read);
    let (bytes, align) = (size as u32, size as u32);
    Err(Trap::lane(lane, Cause::Misaligned { space, access, address, bytes, align }))
}

/// `cp.async.commit_group`.
pub(super) fn commit(warp: &Warp, block: &mut Block, m: u32) {
    for lane in lanes(m) {
        block.copies[warp.id].committed[lane] += 1;
    }
}

/// `cp.async.wait_group`: what is waited for is there, and counts as written by the thread that
/// waits.
pub(super) fn wait(warp: &Warp, block: &mut Block, m: u32, pending: u32) -> Result<(), Box<Trap>> {
    if block.copies[warp.id].pieces.is_empty() {
        return Ok(());
    }
    for lane in lanes(m) {
        for piece in block.copies[warp.id].due(lane, pending) {
            block.shared.in_flight.unset(piece.to, piece.bytes);
            let who = Who { warp: warp.id, lane };
            block.shared_store(who, piece.to as u64, 1, &piece.data[..piece.bytes])?;
        }
    }
    if block.copies.iter().all(|copies| copies.pieces.is_empty()) && block.bulk.in_flight.is_empty() {
        block.shared.copying = false;
    }
    Ok(())
}
