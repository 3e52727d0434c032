//! Instructions that touch registers alone.

use crate::arith::{Comparison, Convert, Shape, convert};
use crate::fault::Space;
use crate::machine::{Lanes64, R32, R64, Trap, Warp, lanes};
use crate::memory::space_of;
use crate::op::{CarrySum, Logic, Pure, SetPredicate, Value};

/// Applies a function of registers in the lanes `m`.
#[inline]
pub(super) fn apply(pure: &Pure, warp: &mut Warp, m: u32) -> Result<(), Box<Trap>> {
    let r = &mut warp.registers;
    macro_rules! call {
        ($f:ident($($file:ident $at:literal),*) -> $set:ident $to:ident) => {{
            let mut to = [0; 32];
            $f($(call!($file $at),)* &mut to);
            r.$set($to(pure.to), m, &to);
        }};
        (narrow $at:literal) => { r.get32(R32(pure.from[$at]), m)? };
        (wide $at:literal) => { r.get64(R64(pure.from[$at]), m)? };
    }
    match pure.f {
        Shape::Unary32(f) => call!(f(narrow 0) -> set32 R32),
        Shape::Unary64(f) => call!(f(wide 0) -> set64 R64),
        Shape::Widen(f) => call!(f(narrow 0) -> set64 R64),
        Shape::Narrow(f) => call!(f(wide 0) -> set32 R32),
        Shape::Binary32(f) => call!(f(narrow 0, narrow 1) -> set32 R32),
        Shape::Binary64(f) => call!(f(wide 0, wide 1) -> set64 R64),
        Shape::Wide(f) => call!(f(narrow 0, narrow 1) -> set64 R64),
        Shape::Shift64(f) => call!(f(wide 0, narrow 1) -> set64 R64),
        Shape::Ternary32(f) => call!(f(narrow 0, narrow 1, narrow 2) -> set32 R32),
        Shape::Ternary64(f) => call!(f(wide 0, wide 1, wide 2) -> set64 R64),
        Shape::WideAdd(f) => call!(f(narrow 0, narrow 1, wide 2) -> set64 R64),
        Shape::Field64(f) => call!(f(wide 0, narrow 1, narrow 2) -> set64 R64),
        Shape::Quaternary32(f) => call!(f(narrow 0, narrow 1, narrow 2, narrow 3) -> set32 R32),
        Shape::Insert64(f) => call!(f(wide 0, wide 1, narrow 2, narrow 3) -> set64 R64),
    }
    Ok(())
}

/// `setp`.
#[inline]
pub(super) fn compare(set: &SetPredicate, warp: &mut Warp, m: u32) -> Result<(), Box<Trap>> {
    let r = &mut warp.registers;
    let [a, b] = set.operands;
    let holds = match set.test {
        Comparison::Of32(f) => f(r.get32(R32(a), m)?, r.get32(R32(b), m)?),
        Comparison::Of64(f) => f(r.get64(R64(a), m)?, r.get64(R64(b), m)?),
    };
    let (mut to, mut other) = (holds, !holds);
    if let Some((how, with, negated)) = set.join {
        let with = r.get_predicate(with, m)?;
        let with = if negated { !with } else { with };
        (to, other) = (logic(how, to, with), logic(how, other, with));
    }
    r.set_predicate(set.to, m, to);
    if let Some(register) = set.other {
        r.set_predicate(register, m, other);
    }
    Ok(())
}

pub(super) fn logic(how: Logic, a: u32, b: u32) -> u32 {
    match how {
        Logic::And => a & b,
        Logic::Or => a | b,
        Logic::Xor => a ^ b,
    }
}

/// The values of a register of either file, widened.
pub(super) fn get(warp: &Warp, value: Value, m: u32) -> Result<Lanes64, Box<Trap>> {
    match value {
        Value::Narrow(register) => Ok(warp.registers.get32(register, m)?.map(u64::from)),
        Value::Wide(register) => Ok(*warp.registers.get64(register, m)?),
    }
}

/// Writes a register of either file.
pub(super) fn set(warp: &mut Warp, value: Value, m: u32, values: &Lanes64) {
    match value {
        Value::Narrow(register) => warp.registers.set32(register, m, &values.map(|v| v as u32)),
        Value::Wide(register) => warp.registers.set64(register, m, values),
    }
}

/// `cvt`, the rarer ones.
pub(super) fn conversion(
    by: &Convert,
    [to, a, b]: [Value; 3],
    warp: &mut Warp,
    m: u32,
) -> Result<(), Box<Trap>> {
    let (a, b) = (get(warp, a, m)?, get(warp, b, m)?);
    let mut values = [0; 32];
    for lane in lanes(m) {
        values[lane] = convert(by, a[lane], b[lane]);
    }
    set(warp, to, m, &values);
    Ok(())
}

/// `mov` from a register to its parts.
pub(super) fn split(from: Value, to: &[Value], bits: u8, warp: &mut Warp, m: u32) -> Result<(), Box<Trap>> {
    let from = get(warp, from, m)?;
    let mask = u64::MAX >> (64 - u32::from(bits));
    for (at, part) in to.iter().enumerate() {
        let shift = at as u32 * u32::from(bits);
        set(warp, *part, m, &from.map(|v| v >> shift & mask));
    }
    Ok(())
}

/// `mov` from parts to a register.
pub(super) fn join(to: Value, from: &[Value], bits: u8, warp: &mut Warp, m: u32) -> Result<(), Box<Trap>> {
    let mask = u64::MAX >> (64 - u32::from(bits));
    let mut all = [0; 32];
    for (at, part) in from.iter().enumerate() {
        let part = get(warp, *part, m)?;
        for (all, part) in all.iter_mut().zip(part) {
            *all |= (part & mask) << (at as u32 * u32::from(bits));
        }
    }
    set(warp, to, m, &all);
    Ok(())
}

/// `add.cc` and its kin.
pub(super) fn carry(sum: &CarrySum, warp: &mut Warp, m: u32) -> Result<(), Box<Trap>> {
    let (a, b) = (get(warp, sum.a, m)?, get(warp, sum.b, m)?);
    let bits = if matches!(sum.to, Value::Wide(_)) { 64 } else { 32 };
    let (mut values, mut carries) = ([0; 32], warp.carry);
    for lane in lanes(m) {
        let taken = u128::from(sum.takes && warp.carry >> lane & 1 == 1);
        let (a, b) = (u128::from(a[lane]), u128::from(b[lane]));
        let total = if sum.subtract { a.wrapping_sub(b).wrapping_sub(taken) } else { a + b + taken };
        values[lane] = (total & ((1 << bits) - 1)) as u64;
        let out = (total >> bits & 1) as u32;
        carries = carries & !(1 << lane) | out << lane;
    }
    if sum.gives {
        warp.carry = carries;
    }
    set(warp, sum.to, m, &values);
    Ok(())
}

/// `selp` of a register of 32 bits; the operand that is not chosen may be unwritten.
#[inline]
pub(super) fn select32(
    warp: &mut Warp,
    m: u32,
    to: R32,
    [yes, no]: [R32; 2],
    by: u32,
) -> Result<(), Box<Trap>> {
    let r = &mut warp.registers;
    let (a, b) = (r.get32(yes, m & by)?, r.get32(no, m & !by)?);
    let mut values = [0; 32];
    for lane in 0..32 {
        values[lane] = if by >> lane & 1 == 1 { a[lane] } else { b[lane] };
    }
    r.set32(to, m, &values);
    Ok(())
}

/// As [`select32`], of 64 bits.
#[inline]
pub(super) fn select64(
    warp: &mut Warp,
    m: u32,
    to: R64,
    [yes, no]: [R64; 2],
    by: u32,
) -> Result<(), Box<Trap>> {
    let r = &mut warp.registers;
    let (a, b) = (r.get64(yes, m & by)?, r.get64(no, m & !by)?);
    let mut values = [0; 32];
    for lane in 0..32 {
        values[lane] = if by >> lane & 1 == 1 { a[lane] } else { b[lane] };
    }
    r.set64(to, m, &values);
    Ok(())
}

/// The lanes whose address lies in a space.
pub(super) fn in_space(addresses: &Lanes64, space: Space) -> u32 {
    lanes(u32::MAX).filter(|lane| space_of(addresses[*lane]).0 == space).fold(0, |m, lane| m | 1 << lane)
}
