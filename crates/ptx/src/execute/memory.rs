//! Loads and stores.

use super::coalesce::{conflicts, sectors};
use crate::fault::{Access, Cause, Space};
use crate::machine::{Block, Lanes64, Trap, Warp, Who, lanes};
use crate::memory::{LOCAL_WINDOW, Strength, space_of};
use crate::op::{Transfer, Value};
use crate::resolve::{Address, Base};

/// The address of each lane in `m`.
#[inline]
pub(super) fn addresses(address: &Address, warp: &Warp, m: u32) -> Result<Lanes64, Box<Trap>> {
    let offset = address.offset as u64;
    Ok(match address.base {
        Base::Narrow(register) => {
            warp.registers.get32(register, m)?.map(|base| u64::from(base).wrapping_add(offset))
        }
        Base::Wide(register) => warp.registers.get64(register, m)?.map(|base| base.wrapping_add(offset)),
        Base::Fixed => [offset; 32],
    })
}

/// The space that the lanes `m` address, and their addresses in it; lanes of a generic access may
/// differ, and are then split.
pub(super) fn spaces(
    space: Option<Space>,
    addresses: &Lanes64,
    m: u32,
) -> impl Iterator<Item = (Space, u32)> {
    let mut left = m;
    std::iter::from_fn(move || {
        let first = lanes(left).next()?;
        let Some(space) = space else {
            let (found, _) = space_of(addresses[first]);
            let same = lanes(left).filter(|lane| space_of(addresses[*lane]).0 == found);
            let same = same.fold(0, |m, lane| m | 1 << lane);
            left &= !same;
            return Some((found, same));
        };
        Some((space, std::mem::take(&mut left)))
    })
}

/// An address of shared memory as an offset: it is generic where the opcode names no space.
pub(super) fn shared_offset(space: Option<Space>, address: u64) -> u64 {
    if space.is_none() { space_of(address).1 } else { address }
}

/// Counts what the lanes `m` of a load or store move in this space.
fn count(access: Access, transfer: &Transfer, block: &mut Block, space: Space, m: u32, at: &Lanes64) {
    let total = u32::from(transfer.bytes) * transfer.values.len() as u32;
    let counts = &mut block.counts;
    match space {
        Space::Global => {
            let (bytes, touched) = match access {
                Access::Read => (&mut counts.bytes_loaded, &mut counts.sectors_loaded),
                _ => (&mut counts.bytes_stored, &mut counts.sectors_stored),
            };
            *bytes += u64::from(total) * u64::from(m.count_ones());
            *touched += sectors(at, m, total);
        }
        Space::Shared => {
            let offsets = at.map(|address| shared_offset(transfer.space, address));
            counts.bank_conflicts += conflicts(&offsets, m, total);
        }
        _ => {}
    }
}

/// `ld`.
pub(super) fn load(transfer: &Transfer, warp: &mut Warp, block: &mut Block, m: u32) -> Result<(), Box<Trap>> {
    let at = addresses(&transfer.address, warp, m)?;
    for (space, m) in spaces(transfer.space, &at, m) {
        count(Access::Read, transfer, block, space, m, &at);
        match transfer.values.len() {
            1 => gather::<1>(transfer, warp, block, space, m, &at)?,
            2 => gather::<2>(transfer, warp, block, space, m, &at)?,
            4 => gather::<4>(transfer, warp, block, space, m, &at)?,
            _ => gather::<8>(transfer, warp, block, space, m, &at)?,
        }
    }
    Ok(())
}

/// Loads up to `N` elements for each lane of `m`.
#[inline]
fn gather<const N: usize>(
    transfer: &Transfer,
    warp: &mut Warp,
    block: &mut Block,
    space: Space,
    m: u32,
    at: &Lanes64,
) -> Result<(), Box<Trap>> {
    let mut elements = [[0u64; 32]; N];
    let size = usize::from(transfer.bytes);
    let total = size * transfer.values.len();
    let whole = if space == Space::Global { whole(transfer, block, m, at, total) } else { None };
    if let Some(data) = whole {
        for (lane, from) in data.chunks_exact(total).enumerate() {
            take(&mut elements, lane, from, size);
        }
    } else {
        for lane in lanes(m) {
            let from = source(transfer, warp, block, Who { warp: warp.id, lane }, space, at[lane], total)?;
            take(&mut elements, lane, from, size);
        }
    }
    for (value, mut elements) in transfer.values.iter().zip(elements) {
        if let Some(register) = transfer.extend {
            let unused = 64 - 8 * size as u32;
            let mask = u64::MAX >> (64 - 8 * usize::from(register).max(size));
            elements = elements.map(|bits| ((bits << unused) as i64 >> unused) as u64 & mask);
        }
        match *value {
            Value::Narrow(register) => {
                warp.registers.set32(register, m, &elements.map(|bits| bits as u32));
            }
            Value::Wide(register) => warp.registers.set64(register, m, &elements),
        }
    }
    Ok(())
}

/// Takes the elements of one lane apart.
#[inline(always)]
fn take<const N: usize>(to: &mut [[u64; 32]; N], lane: usize, from: &[u8], size: usize) {
    if size == 4 {
        for (to, from) in to.iter_mut().zip(from.as_chunks().0) {
            to[lane] = u64::from(u32::from_le_bytes(*from));
        }
    } else {
        for (to, from) in to.iter_mut().zip(from.chunks_exact(size)) {
            to[lane] = number(from);
        }
    }
}

/// The bytes of a load of all lanes from consecutive global memory, which is checked once; none if
/// it is another, or has to be looked at lane by lane.
#[inline]
fn whole<'b>(
    transfer: &Transfer,
    block: &'b mut Block,
    m: u32,
    at: &Lanes64,
    total: usize,
) -> Option<&'b [u8]> {
    let place = |lane: usize| at[0].wrapping_add((lane * total) as u64);
    let consecutive = m == u32::MAX
        && transfer.strength == Strength::Weak
        && at[0].is_multiple_of(total as u64)
        && at.iter().enumerate().all(|(lane, address)| *address == place(lane));
    if !consecutive {
        return None;
    }
    let (slot, offset) = block.whole(at[0], 32 * total, Access::Read)?;
    Some(&block.memory.bytes(slot).data[offset..offset + 32 * total])
}

/// The bytes that one lane loads.
#[inline]
fn source<'b>(
    transfer: &Transfer,
    warp: &'b Warp,
    block: &'b mut Block,
    who: Who,
    space: Space,
    address: u64,
    bytes: usize,
) -> Result<&'b [u8], Box<Trap>> {
    let align = bytes as u32;
    let access = (Access::Read, transfer.strength);
    let found = match space {
        Space::Global => {
            let (slot, at) = block.global_touch(who, address, align, bytes, access)?;
            if transfer.strength != Strength::Weak {
                block.meet_global(who.warp, address, false, transfer.strength);
            }
            return Ok(&block.memory.bytes(slot).data[at..at + bytes]);
        }
        Space::Shared => {
            let offset = shared_offset(transfer.space, address);
            let at = block.shared_touch(who, offset, align, bytes, access)?;
            if transfer.strength != Strength::Weak {
                block.meet_shared(who.warp, offset, false);
            }
            return Ok(&block.shared.bytes.data[at..at + bytes]);
        }
        Space::Local => {
            let at = local_at(warp, who, address, bytes, Access::Read)?;
            if block.settings.never_written && !warp.local.written.all(at, bytes) {
                let cause = Cause::NeverWritten { space, address, bytes: align };
                return Err(Trap::lane(who.lane, cause));
            }
            &warp.local.data[at..at + bytes]
        }
        Space::Const => window(block.constants, space, address, bytes, who)?,
        Space::Param => window(block.arguments, space, address, bytes, who)?,
        Space::None => return Err(nowhere(who, address, bytes, Access::Read)),
    };
    check_aligned(space, who, address, bytes, Access::Read)?;
    Ok(found)
}

fn nowhere(who: Who, address: u64, bytes: usize, access: Access) -> Box<Trap> {
    let why = "the address lies in no state space";
    Trap::lane(who.lane, Cause::OutOfBounds { space: Space::None, access, address, bytes: bytes as u32, why })
}

fn check_aligned(
    space: Space,
    who: Who,
    address: u64,
    bytes: usize,
    access: Access,
) -> Result<(), Box<Trap>> {
    if address.is_multiple_of(bytes as u64) {
        return Ok(());
    }
    let (align, bytes) = (bytes as u32, bytes as u32);
    Err(Trap::lane(who.lane, Cause::Misaligned { space, access, address, bytes, align }))
}

/// Bytes of constants or arguments.
fn window(from: &[u8], space: Space, address: u64, bytes: usize, who: Who) -> Result<&[u8], Box<Trap>> {
    let (found, offset) = space_of(address);
    let held = if found == space { from.get(offset as usize..) } else { None };
    held.and_then(|held| held.get(..bytes)).ok_or_else(|| {
        let last = "there is nothing behind the last one";
        let why = if found == space { last } else { "the address lies in another space" };
        let bytes = bytes as u32;
        Trap::lane(who.lane, Cause::OutOfBounds { space, access: Access::Read, address, bytes, why })
    })
}

/// Where a lane's local memory has an address.
fn local_at(warp: &Warp, who: Who, address: u64, bytes: usize, access: Access) -> Result<usize, Box<Trap>> {
    let size = warp.local.data.len() / 32;
    let offset = address.wrapping_sub(LOCAL_WINDOW);
    if offset >= size as u64 || offset + bytes as u64 > size as u64 {
        let why = "the thread has no variable there";
        let (space, bytes) = (Space::Local, bytes as u32);
        return Err(Trap::lane(who.lane, Cause::OutOfBounds { space, access, address, bytes, why }));
    }
    Ok(who.lane * size + offset as usize)
}

/// An element of memory as a number.
#[inline]
pub(super) fn number(bytes: &[u8]) -> u64 {
    match *bytes {
        [a, b, c, d] => u64::from(u32::from_le_bytes([a, b, c, d])),
        [a, b] => u64::from(u16::from_le_bytes([a, b])),
        [a] => u64::from(a),
        _ => {
            let mut all = [0; 8];
            all[..bytes.len().min(8)].copy_from_slice(&bytes[..bytes.len().min(8)]);
            u64::from_le_bytes(all)
        }
    }
}

/// `st`.
pub(super) fn store(
    transfer: &Transfer,
    warp: &mut Warp,
    block: &mut Block,
    m: u32,
) -> Result<(), Box<Trap>> {
    let at = addresses(&transfer.address, warp, m)?;
    let size = usize::from(transfer.bytes);
    let total = size * transfer.values.len();
    let mut data = [[0u8; 32]; 32];
    for (element, value) in transfer.values.iter().enumerate() {
        let place = element * size..(element + 1) * size;
        match *value {
            Value::Narrow(register) => {
                let values = warp.registers.get32(register, m)?;
                for (data, value) in data.iter_mut().zip(values) {
                    data[place.clone()].copy_from_slice(&value.to_le_bytes()[..size.min(4)]);
                }
            }
            Value::Wide(register) => {
                let values = warp.registers.get64(register, m)?;
                for (data, value) in data.iter_mut().zip(values) {
                    data[place.clone()].copy_from_slice(&value.to_le_bytes()[..size]);
                }
            }
        }
    }
    block.progress += 1;
    for (space, m) in spaces(transfer.space, &at, m) {
        count(Access::Write, transfer, block, space, m, &at);
        let (m, race) = if block.settings.races { distinct(&at, &data, m, total, space) } else { (m, None) };
        for lane in lanes(m) {
            write(transfer, warp, block, Who { warp: warp.id, lane }, space, at[lane], &data[lane][..total])?;
        }
        // Whether the place may be written at all counts first.
        if let Some(race) = race {
            return Err(race);
        }
    }
    Ok(())
}

/// The lanes whose stores count: of those that write one place, the first; and the race of two that
/// write it differently.
fn distinct(
    at: &Lanes64,
    data: &[[u8; 32]; 32],
    m: u32,
    total: usize,
    space: Space,
) -> (u32, Option<Box<Trap>>) {
    let mut last = None;
    let ascending = lanes(m).all(|lane| last.replace(at[lane]).is_none_or(|last| last < at[lane]));
    if ascending || !matches!(space, Space::Global | Space::Shared) {
        return (m, None);
    }
    let mut order: Vec<usize> = lanes(m).collect();
    order.sort_by_key(|lane| at[*lane]);
    let (mut kept, mut race) = (m, None);
    for pair in order.windows(2) {
        let [first, second] = [pair[0], pair[1]];
        if at[first] != at[second] {
            continue;
        }
        if race.is_none() && data[first][..total] != data[second][..total] {
            let address = if space == Space::Shared { at[second] & 0xffff_ffff } else { at[second] };
            let other = format!("the same store by lane {first}, of another value");
            let (access, bytes) = (Access::Write, total as u32);
            race = Some(Trap::lane(second, Cause::Race { space, access, address, bytes, other }));
        }
        kept &= !(1 << second);
    }
    (kept, race)
}

/// Writes the bytes of one lane.
fn write(
    transfer: &Transfer,
    warp: &mut Warp,
    block: &mut Block,
    who: Who,
    space: Space,
    address: u64,
    from: &[u8],
) -> Result<(), Box<Trap>> {
    let align = from.len() as u32;
    let access = (Access::Write, transfer.strength);
    match space {
        Space::Global => {
            let (slot, at) = block.global_touch(who, address, align, from.len(), access)?;
            block.memory.bytes(slot).store(at, from);
            if transfer.strength != Strength::Weak {
                block.meet_global(who.warp, address, true, transfer.strength);
            }
        }
        Space::Shared => {
            let offset = shared_offset(transfer.space, address);
            let at = block.shared_touch(who, offset, align, from.len(), access)?;
            block.shared.bytes.store(at, from);
            if transfer.strength != Strength::Weak {
                block.meet_shared(who.warp, offset, true);
            }
        }
        Space::Local => {
            let at = local_at(warp, who, address, from.len(), Access::Write)?;
            check_aligned(space, who, address, from.len(), Access::Write)?;
            warp.local.store(at, from);
        }
        Space::Const | Space::Param => {
            let why = "it cannot be written";
            let (access, bytes) = (Access::Write, align);
            return Err(Trap::lane(who.lane, Cause::OutOfBounds { space, access, address, bytes, why }));
        }
        Space::None => return Err(nowhere(who, address, from.len(), Access::Write)),
    }
    Ok(())
}
