//! `atom` and `red`: the lanes one after another, the lowest first.

use super::memory::{addresses, number, shared_offset, spaces};
use super::pure::get;
use crate::fault::{Access, Cause, Space};
use crate::formats::{Conversion, Format, Rounding};
use crate::machine::{Block, Trap, Warp, Who, lanes};
use crate::memory::Strength;
use crate::op::{Atomic, AtomicKind, Value};
use crate::types::Type;

/// Executes an atomic operation in the lanes `m`.
pub(super) fn atomic(atomic: &Atomic, warp: &mut Warp, block: &mut Block, m: u32) -> Result<(), Box<Trap>> {
    let at = addresses(&atomic.address, warp, m)?;
    let size = atomic.ty.bytes();
    let total = size * atomic.from.len();
    let from: Vec<_> = atomic.from.iter().map(|value| get(warp, *value, m)).collect::<Result<_, _>>()?;
    let swap = atomic.swap.map(|value| get(warp, value, m)).transpose()?;
    let device = atomic.strength == Strength::Device;
    if atomic.release {
        block.fence(warp.id, device);
    }
    if atomic.ty.float() && atomic.kind == AtomicKind::Add {
        block.counts.unordered_sums += 1;
    }
    block.progress += 1;
    let mut before = vec![[0u64; 32]; from.len()];
    for (space, m) in spaces(atomic.space, &at, m) {
        if space == Space::Global {
            block.counts.bytes_stored += total as u64 * u64::from(m.count_ones());
            block.counts.sectors_stored += super::coalesce::sectors(&at, m, total as u32);
        }
        for lane in lanes(m) {
            let who = Who { warp: warp.id, lane };
            let offset = shared_offset(atomic.space, at[lane]);
            let bytes = place(block, who, space, [at[lane], offset], total, atomic.strength)?;
            for (element, from) in from.iter().enumerate() {
                let bytes = &mut bytes[element * size..(element + 1) * size];
                let old = number(bytes);
                let new = combine(atomic, old, from[lane], swap.map_or(0, |swap| swap[lane]));
                bytes.copy_from_slice(&new.to_le_bytes()[..size]);
                before[element][lane] = old;
            }
            match space {
                Space::Shared => block.meet_shared(who.warp, offset, true),
                _ => block.meet_global(who.warp, at[lane], true, atomic.strength),
            }
        }
    }
    if atomic.acquire {
        block.fence(warp.id, device);
    }
    for (value, before) in atomic.to.iter().flatten().zip(before) {
        match *value {
            Value::Narrow(register) => warp.registers.set32(register, m, &before.map(|b| b as u32)),
            Value::Wide(register) => warp.registers.set64(register, m, &before),
        }
    }
    Ok(())
}

/// The bytes that one lane changes.
fn place<'b>(
    block: &'b mut Block,
    who: Who,
    space: Space,
    [address, offset]: [u64; 2],
    bytes: usize,
    strength: Strength,
) -> Result<&'b mut [u8], Box<Trap>> {
    let access = (Access::Atomic, strength);
    match space {
        Space::Global => {
            let (slot, at) = block.global_touch(who, address, bytes as u32, bytes, access)?;
            Ok(&mut block.memory.bytes(slot).data[at..at + bytes])
        }
        Space::Shared => {
            let at = block.shared_touch(who, offset, bytes as u32, bytes, access)?;
            Ok(&mut block.shared.bytes.data[at..at + bytes])
        }
        _ => {
            let what = format!("an atomic operation on {space}, at {address:#x}");
            Err(Trap::lane(who.lane, Cause::Undefined { what }))
        }
    }
}

/// The value behind an operation.
fn combine(atomic: &Atomic, old: u64, by: u64, swap: u64) -> u64 {
    let ty = atomic.ty;
    match atomic.kind {
        AtomicKind::And => old & by,
        AtomicKind::Or => old | by,
        AtomicKind::Xor => old ^ by,
        AtomicKind::Exchange => by,
        AtomicKind::CompareSwap => {
            let mask = u64::MAX >> (64 - 8 * ty.bytes());
            if old == by & mask { swap } else { old }
        }
        AtomicKind::Inc => {
            if old >= by {
                0
            } else {
                old + 1
            }
        }
        AtomicKind::Dec => {
            if old == 0 || old > by {
                by
            } else {
                old - 1
            }
        }
        AtomicKind::Min if less(ty, by, old) => by,
        AtomicKind::Max if less(ty, old, by) => by,
        AtomicKind::Min | AtomicKind::Max => old,
        AtomicKind::Add => sum(ty, old, by),
    }
}

fn less(ty: Type, a: u64, b: u64) -> bool {
    match ty {
        Type::S32 => (a as i32) < b as i32,
        Type::S64 => (a as i64) < b as i64,
        _ => a < b,
    }
}

fn sum(ty: Type, a: u64, b: u64) -> u64 {
    let halves = |format: Format, count: u32| {
        let half = |at: u32| {
            let [a, b] = [a, b].map(|x| f64::from(format.decode((x >> (16 * at)) as u32 & 0xffff)));
            // Exact for f16; for bf16 an f64 that is rounded to 8 bits as the exact sum would be,
            // but for ties that lie below the last of 53 bits.
            u64::from(format.encode(a + b, Conversion::rounded(Rounding::NearestEven))) << (16 * at)
        };
        (0..count).map(half).sum()
    };
    match ty {
        Type::F32 => {
            let sum = f32::from_bits(a as u32) + f32::from_bits(b as u32);
            u64::from(if sum.is_nan() { 0x7fff_ffff } else { sum.to_bits() })
        }
        Type::F64 => (f64::from_bits(a) + f64::from_bits(b)).to_bits(),
        Type::F16 => halves(Format::F16, 1),
        Type::F16x2 => halves(Format::F16, 2),
        Type::Bf16 => halves(Format::Bf16, 1),
        Type::Bf16x2 => halves(Format::Bf16, 2),
        _ => a.wrapping_add(b),
    }
}
