//! Logic, shifts and bit fields.

use super::shape::{Shape, Words, each1, each2, each3, each4};
use crate::types::Type;

/// The function of an opcode on bits; predicates are not registers of this kind.
pub(super) fn lookup(stem: &str, mut words: Words) -> Option<Shape> {
    let ty = words.ty()?;
    let found = match stem {
        "and" | "or" | "xor" | "not" | "cnot" => logic(stem, ty)?,
        "shl" | "shr" => shift(stem, ty)?,
        "shf" => funnel(words.first()?, words.first()?, ty)?,
        "lop3" if ty == Type::B32 => Shape::Quaternary32(each4!(|a, b, c, t| lop3(a, b, c, t))),
        "bfe" => field(ty)?,
        "bfi" => match ty {
            Type::B32 => {
                Shape::Quaternary32(each4!(|a, b, p, n| insert(a.into(), b.into(), p, n, 32) as u32))
            }
            Type::B64 => Shape::Insert64(each4!(|a, b, p, n| insert(a, b, p, n, 64))),
            _ => return None,
        },
        "prmt" if ty == Type::B32 || ty == Type::U32 => Shape::Ternary32(each3!(|a, b, s| permute(a, b, s))),
        "popc" | "clz" | "brev" | "bfind" => count(stem, ty, words.take("shiftamt"))?,
        "fns" => Shape::Ternary32(each3!(|mask, base, n| nth_set(mask, base, n as i32))),
        "bmsk" => {
            let clamp = words.take("clamp");
            if !clamp && !words.take("wrap") {
                return None;
            }
            match clamp {
                true => Shape::Binary32(each2!(|a, n| mask_from(a, n.min(32)))),
                false => Shape::Binary32(each2!(|a, n| mask_from(a & 31, n & 31))),
            }
        }
        _ => return None,
    };
    words.done().then_some(found)
}

/// The last word of `prmt.b32.f4e` is the mode.
pub(crate) fn permute_mode(mode: &str) -> Option<Shape> {
    Some(match mode {
        "f4e" => Shape::Ternary32(each3!(|a, b, s| permute(a, b, run(|i| (s & 3) + i)))),
        "b4e" => Shape::Ternary32(each3!(|a, b, s| permute(a, b, run(|i| (s & 3).wrapping_sub(i))))),
        "rc8" => Shape::Ternary32(each3!(|a, b, s| permute(a, b, run(|_| s & 3)))),
        "ecl" => Shape::Ternary32(each3!(|a, b, s| permute(a, b, run(|i| i.max(s & 3))))),
        "ecr" => Shape::Ternary32(each3!(|a, b, s| permute(a, b, run(|i| i.min(s & 3))))),
        "rc16" => Shape::Ternary32(each3!(|a, b, s| permute(a, b, run(|i| (s & 1) * 2 + (i & 1))))),
        _ => return None,
    })
}

/// A selector of `prmt` whose four fields are given by their number.
fn run(field: impl Fn(u32) -> u32) -> u32 {
    (0..4).fold(0, |all, i| all | (field(i) & 7) << (4 * i))
}

fn logic(stem: &str, ty: Type) -> Option<Shape> {
    use Shape::{Binary32, Binary64, Unary32, Unary64};
    use Type::*;
    Some(match (stem, ty) {
        ("and", B16 | B32) => Binary32(each2!(|a, b| a & b)),
        ("and", B64) => Binary64(each2!(|a, b| a & b)),
        ("or", B16 | B32) => Binary32(each2!(|a, b| a | b)),
        ("or", B64) => Binary64(each2!(|a, b| a | b)),
        ("xor", B16 | B32) => Binary32(each2!(|a, b| a ^ b)),
        ("xor", B64) => Binary64(each2!(|a, b| a ^ b)),
        ("not", B16) => Unary32(each1!(|a| !a & 0xffff)),
        ("not", B32) => Unary32(each1!(|a| !a)),
        ("not", B64) => Unary64(each1!(|a| !a)),
        ("cnot", B16 | B32) => Unary32(each1!(|a| u32::from(a == 0))),
        ("cnot", B64) => Unary64(each1!(|a| u64::from(a == 0))),
        _ => return None,
    })
}

fn shift(stem: &str, ty: Type) -> Option<Shape> {
    use Shape::{Binary32, Shift64};
    use Type::*;
    Some(match (stem, ty) {
        ("shl", B16) => Binary32(each2!(|a, n| a.checked_shl(n).unwrap_or(0) & 0xffff)),
        ("shl", B32) => Binary32(each2!(|a, n| if n < 32 { a << (n & 31) } else { 0 })),
        ("shl", B64) => Shift64(each2!(|a, n| if n < 64 { a << (n & 63) } else { 0 })),
        ("shr", B16 | U16 | B32 | U32) => Binary32(each2!(|a, n| if n < 32 { a >> (n & 31) } else { 0 })),
        ("shr", B64 | U64) => Shift64(each2!(|a, n| if n < 64 { a >> (n & 63) } else { 0 })),
        ("shr", S16) => Binary32(each2!(|a, n| u32::from((a as i16 >> n.min(15)) as u16))),
        ("shr", S32) => Binary32(each2!(|a, n| (a as i32 >> n.min(31)) as u32)),
        ("shr", S64) => Shift64(each2!(|a, n| (a as i64 >> n.min(63)) as u64)),
        _ => return None,
    })
}

/// `shf`: the upper or lower half of a shifted pair, `b` above `a`.
fn funnel(direction: &str, mode: &str, ty: Type) -> Option<Shape> {
    if ty != Type::B32 {
        return None;
    }
    Some(Shape::Ternary32(match (direction, mode) {
        ("l", "clamp") => each3!(|a, b, n| (both(a, b) << n.min(32) >> 32) as u32),
        ("l", "wrap") => each3!(|a, b, n| (both(a, b) << (n & 31) >> 32) as u32),
        ("r", "clamp") => each3!(|a, b, n| (both(a, b) >> n.min(32)) as u32),
        ("r", "wrap") => each3!(|a, b, n| (both(a, b) >> (n & 31)) as u32),
        _ => return None,
    }))
}

fn both(a: u32, b: u32) -> u64 {
    u64::from(b) << 32 | u64::from(a)
}

#[inline(always)]
fn lop3(a: u32, b: u32, c: u32, table: u32) -> u32 {
    let mut value = 0;
    for row in 0..8u32 {
        let take = 0u32.wrapping_sub(table >> row & 1);
        let x = if row & 4 != 0 { a } else { !a };
        let y = if row & 2 != 0 { b } else { !b };
        let z = if row & 1 != 0 { c } else { !c };
        value |= x & y & z & take;
    }
    value
}

fn field(ty: Type) -> Option<Shape> {
    use Shape::{Field64, Ternary32};
    Some(match ty {
        Type::U32 => Ternary32(each3!(|a, p, n| extract(a.into(), p, n, 32, false) as u32)),
        Type::S32 => Ternary32(each3!(|a, p, n| extract(a as i32 as i64 as u64, p, n, 32, true) as u32)),
        Type::U64 => Field64(each3!(|a, p, n| extract(a, p, n, 64, false))),
        Type::S64 => Field64(each3!(|a, p, n| extract(a, p, n, 64, true))),
        _ => return None,
    })
}

/// `bfe`: `length` bits of `a` from `position` on; the sign bit of the field, or the highest of `a`
/// that the field reaches, fills what lies above.
fn extract(a: u64, position: u32, length: u32, bits: u32, signed: bool) -> u64 {
    let (position, length) = (position & 0xff, length & 0xff);
    let msb = bits - 1;
    let top = (position + length).saturating_sub(1).min(msb);
    let sign = signed && length > 0 && a >> top & 1 == 1;
    let fill = if sign { u64::MAX } else { 0 };
    let shifted = if position < bits { a >> position } else { 0 };
    let inside = length.min(bits.saturating_sub(position));
    let mask = if inside >= 64 { u64::MAX } else { (1 << inside) - 1 };
    shifted & mask | fill & !mask
}

/// `bfi`: `b` with `length` bits of `a` put in from `position` on.
fn insert(a: u64, b: u64, position: u32, length: u32, bits: u32) -> u64 {
    let (position, length) = (position & 0xff, length & 0xff);
    if position >= bits || length == 0 {
        return b;
    }
    let ones = if length >= 64 { u64::MAX } else { (1 << length) - 1 };
    let mask = ones << position;
    b & !mask | a << position & mask
}

/// `prmt`: each byte of the result is one of the eight of `a` and `b`, or its sign.
#[inline(always)]
fn permute(a: u32, b: u32, selector: u32) -> u32 {
    let all = both(a, b);
    let mut value = 0;
    for at in 0..4 {
        let select = selector >> (4 * at);
        let byte = (all >> (8 * (select & 7))) as u8;
        let sign = (byte as i8 >> 7) as u8;
        value |= u32::from(if select & 8 != 0 { sign } else { byte }) << (8 * at);
    }
    value
}

fn count(stem: &str, ty: Type, shift_amount: bool) -> Option<Shape> {
    use Shape::{Narrow, Unary32, Unary64};
    use Type::*;
    Some(match (stem, ty) {
        ("popc", B32) => Unary32(each1!(|a| a.count_ones())),
        ("popc", B64) => Narrow(each1!(|a| a.count_ones())),
        ("clz", B32) => Unary32(each1!(|a| a.leading_zeros())),
        ("clz", B64) => Narrow(each1!(|a| a.leading_zeros())),
        ("brev", B32) => Unary32(each1!(|a| a.reverse_bits())),
        ("brev", B64) => Unary64(each1!(|a| a.reverse_bits())),
        ("bfind", U32) if shift_amount => Unary32(each1!(|a| highest(a.into(), 31, true))),
        ("bfind", U32) => Unary32(each1!(|a| highest(a.into(), 31, false))),
        ("bfind", S32) if shift_amount => Unary32(each1!(|a| highest(significant(a).into(), 31, true))),
        ("bfind", S32) => Unary32(each1!(|a| highest(significant(a).into(), 31, false))),
        ("bfind", U64) if shift_amount => Narrow(each1!(|a| highest(a, 63, true))),
        ("bfind", U64) => Narrow(each1!(|a| highest(a, 63, false))),
        _ => return None,
    })
}

/// The bits of a signed number that differ from its sign.
fn significant(a: u32) -> u32 {
    if (a as i32) < 0 { !a } else { a }
}

fn highest(a: u64, msb: u32, shift_amount: bool) -> u32 {
    match a {
        0 => u32::MAX,
        _ if shift_amount => msb - (63 - a.leading_zeros()),
        _ => 63 - a.leading_zeros(),
    }
}

/// `fns`: position of the n-th set bit, upwards from `base` for n > 0, downwards for n < 0.
fn nth_set(mask: u32, base: u32, n: i32) -> u32 {
    let base = base & 31;
    if n == 0 {
        return if mask >> base & 1 == 1 { base } else { u32::MAX };
    }
    let mut left = n.unsigned_abs();
    let mut at = base as i32;
    while (0..32).contains(&at) {
        if mask >> at & 1 == 1 {
            left -= 1;
            if left == 0 {
                return at as u32;
            }
        }
        at += n.signum();
    }
    u32::MAX
}

/// `bmsk`: `n` ones from bit `a` on.
fn mask_from(a: u32, n: u32) -> u32 {
    if a >= 32 { 0 } else { (((1u64 << n) - 1) << a) as u32 }
}
