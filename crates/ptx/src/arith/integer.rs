//! Integer arithmetic.
//!
//! Values of 16 bits lie in registers of 32 with zeros above, and are kept so.

use super::shape::{Shape, Words, each1, each2, each3};
use crate::types::Type;

/// The function of an integer opcode.
pub(super) fn lookup(stem: &str, mut words: Words) -> Option<Shape> {
    let ty = words.ty()?;
    let found = match stem {
        "add" if words.take("sat") && ty == Type::S32 => {
            Shape::Binary32(each2!(|a, b| (a as i32).saturating_add(b as i32) as u32))
        }
        "sub" if words.take("sat") && ty == Type::S32 => {
            Shape::Binary32(each2!(|a, b| (a as i32).saturating_sub(b as i32) as u32))
        }
        "add" | "sub" | "min" | "max" | "div" | "rem" => two(stem, ty)?,
        "abs" | "neg" => one(stem, ty)?,
        "mul" | "mad" | "mul24" | "mad24" => {
            let part = words.first()?;
            if stem.starts_with("mul") { product(stem, part, ty)? } else { product_sum(stem, part, ty)? }
        }
        "sad" => match ty {
            Type::U32 => Shape::Ternary32(each3!(|a, b, c| a.abs_diff(b).wrapping_add(c))),
            Type::S32 => Shape::Ternary32(each3!(|a, b, c| (a as i32).abs_diff(b as i32).wrapping_add(c))),
            _ => return None,
        },
        "dp4a" => dot(ty, words.first()?)?,
        _ => return None,
    };
    words.done().then_some(found)
}

fn one(stem: &str, ty: Type) -> Option<Shape> {
    use Type::*;
    Some(match (stem, ty) {
        ("abs", S16) => Shape::Unary32(each1!(|a| u32::from((a as i16).wrapping_abs() as u16))),
        ("abs", S32) => Shape::Unary32(each1!(|a| (a as i32).wrapping_abs() as u32)),
        ("abs", S64) => Shape::Unary64(each1!(|a| (a as i64).wrapping_abs() as u64)),
        ("neg", S16) => Shape::Unary32(each1!(|a| a.wrapping_neg() & 0xffff)),
        ("neg", S32) => Shape::Unary32(each1!(|a| a.wrapping_neg())),
        ("neg", S64) => Shape::Unary64(each1!(|a| a.wrapping_neg())),
        _ => return None,
    })
}

// Division by zero has no defined result in PTX, and is no fault; GPUs give all ones.
fn two(stem: &str, ty: Type) -> Option<Shape> {
    use Shape::{Binary32, Binary64};
    use Type::*;
    Some(match (stem, ty) {
        ("add", U16 | S16) => Binary32(each2!(|a, b| a.wrapping_add(b) & 0xffff)),
        ("add", U32 | S32) => Binary32(each2!(|a, b| a.wrapping_add(b))),
        ("add", U64 | S64) => Binary64(each2!(|a, b| a.wrapping_add(b))),
        ("add", U16x2 | S16x2) => Binary32(each2!(|a, b| pair(a, b, u16::wrapping_add))),
        ("sub", U16 | S16) => Binary32(each2!(|a, b| a.wrapping_sub(b) & 0xffff)),
        ("sub", U32 | S32) => Binary32(each2!(|a, b| a.wrapping_sub(b))),
        ("sub", U64 | S64) => Binary64(each2!(|a, b| a.wrapping_sub(b))),
        ("min", U16 | U32) => Binary32(each2!(|a, b| a.min(b))),
        ("min", S16) => Binary32(each2!(|a, b| u32::from((a as i16).min(b as i16) as u16))),
        ("min", S32) => Binary32(each2!(|a, b| (a as i32).min(b as i32) as u32)),
        ("min", U64) => Binary64(each2!(|a, b| a.min(b))),
        ("min", S64) => Binary64(each2!(|a, b| (a as i64).min(b as i64) as u64)),
        ("min", U16x2) => Binary32(each2!(|a, b| pair(a, b, u16::min))),
        ("min", S16x2) => Binary32(each2!(|a, b| pair(a, b, |a, b| (a as i16).min(b as i16) as u16))),
        ("max", U16 | U32) => Binary32(each2!(|a, b| a.max(b))),
        ("max", S16) => Binary32(each2!(|a, b| u32::from((a as i16).max(b as i16) as u16))),
        ("max", S32) => Binary32(each2!(|a, b| (a as i32).max(b as i32) as u32)),
        ("max", U64) => Binary64(each2!(|a, b| a.max(b))),
        ("max", S64) => Binary64(each2!(|a, b| (a as i64).max(b as i64) as u64)),
        ("max", U16x2) => Binary32(each2!(|a, b| pair(a, b, u16::max))),
        ("max", S16x2) => Binary32(each2!(|a, b| pair(a, b, |a, b| (a as i16).max(b as i16) as u16))),
        ("div", U16) => Binary32(each2!(|a, b| a.checked_div(b).unwrap_or(0xffff))),
        ("div", S16) => Binary32(each2!(|a, b| match b as i16 {
            0 => 0xffff,
            b => u32::from((a as i16).wrapping_div(b) as u16),
        })),
        ("div", U32) => Binary32(each2!(|a, b| a.checked_div(b).unwrap_or(u32::MAX))),
        ("div", S32) => Binary32(each2!(|a, b| match b as i32 {
            0 => u32::MAX,
            b => (a as i32).wrapping_div(b) as u32,
        })),
        ("div", U64) => Binary64(each2!(|a, b| a.checked_div(b).unwrap_or(u64::MAX))),
        ("div", S64) => Binary64(each2!(|a, b| match b as i64 {
            0 => u64::MAX,
            b => (a as i64).wrapping_div(b) as u64,
        })),
        ("rem", U16 | U32) => Binary32(each2!(|a, b| a.checked_rem(b).unwrap_or(a))),
        ("rem", S16) => Binary32(each2!(|a, b| match b as i16 {
            0 => a,
            b => u32::from((a as i16).wrapping_rem(b) as u16),
        })),
        ("rem", S32) => Binary32(each2!(|a, b| match b as i32 {
            0 => a,
            b => (a as i32).wrapping_rem(b) as u32,
        })),
        ("rem", U64) => Binary64(each2!(|a, b| a.checked_rem(b).unwrap_or(a))),
        ("rem", S64) => Binary64(each2!(|a, b| match b as i64 {
            0 => a,
            b => (a as i64).wrapping_rem(b) as u64,
        })),
        _ => return None,
    })
}

/// A function of both halves.
fn pair(a: u32, b: u32, f: impl Fn(u16, u16) -> u16) -> u32 {
    let high = f((a >> 16) as u16, (b >> 16) as u16);
    u32::from(f(a as u16, b as u16)) | u32::from(high) << 16
}

fn product(stem: &str, part: &str, ty: Type) -> Option<Shape> {
    use Shape::{Binary32, Binary64, Wide};
    use Type::*;
    Some(match (stem, part, ty) {
        ("mul", "lo", U16 | S16) => Binary32(each2!(|a, b| a.wrapping_mul(b) & 0xffff)),
        ("mul", "lo", U32 | S32) => Binary32(each2!(|a, b| a.wrapping_mul(b))),
        ("mul", "lo", U64 | S64) => Binary64(each2!(|a, b| a.wrapping_mul(b))),
        ("mul", "hi", U16) => Binary32(each2!(|a, b| a.wrapping_mul(b) >> 16)),
        ("mul", "hi", S16) => {
            Binary32(each2!(|a, b| (i32::from(a as i16) * i32::from(b as i16)) as u32 >> 16))
        }
        ("mul", "hi", U32) => Binary32(each2!(|a, b| ((u64::from(a) * u64::from(b)) >> 32) as u32)),
        ("mul", "hi", S32) => Binary32(each2!(|a, b| (wide(a, b) >> 32) as u32)),
        ("mul", "hi", U64) => Binary64(each2!(|a, b| ((u128::from(a) * u128::from(b)) >> 64) as u64)),
        ("mul", "hi", S64) => {
            Binary64(each2!(|a, b| ((i128::from(a as i64) * i128::from(b as i64)) >> 64) as u64))
        }
        ("mul", "wide", U16) => Binary32(each2!(|a, b| a.wrapping_mul(b))),
        ("mul", "wide", S16) => Binary32(each2!(|a, b| (i32::from(a as i16) * i32::from(b as i16)) as u32)),
        ("mul", "wide", U32) => Wide(each2!(|a, b| u64::from(a) * u64::from(b))),
        ("mul", "wide", S32) => Wide(each2!(|a, b| wide(a, b) as u64)),
        ("mul24", "lo", U32) => Binary32(each2!(|a, b| low24(a).wrapping_mul(low24(b)))),
        ("mul24", "lo", S32) => Binary32(each2!(|a, b| low24s(a).wrapping_mul(low24s(b)) as u32)),
        _ => return None,
    })
}

fn product_sum(stem: &str, part: &str, ty: Type) -> Option<Shape> {
    use Shape::{Ternary32, Ternary64, WideAdd};
    use Type::*;
    Some(match (stem, part, ty) {
        ("mad", "lo", U16 | S16) => Ternary32(each3!(|a, b, c| a.wrapping_mul(b).wrapping_add(c) & 0xffff)),
        ("mad", "lo", U32 | S32) => Ternary32(each3!(|a, b, c| a.wrapping_mul(b).wrapping_add(c))),
        ("mad", "lo", U64 | S64) => Ternary64(each3!(|a, b, c| a.wrapping_mul(b).wrapping_add(c))),
        ("mad", "hi", U32) => {
            Ternary32(each3!(|a, b, c| (((u64::from(a) * u64::from(b)) >> 32) as u32).wrapping_add(c)))
        }
        ("mad", "hi", S32) => Ternary32(each3!(|a, b, c| ((wide(a, b) >> 32) as u32).wrapping_add(c))),
        ("mad", "wide", U16) => Ternary32(each3!(|a, b, c| ((a & 0xffff) * (b & 0xffff)).wrapping_add(c))),
        ("mad", "wide", S16) => Ternary32(each3!(|a, b, c| {
            ((i32::from(a as i16) * i32::from(b as i16)) as u32).wrapping_add(c)
        })),
        ("mad", "wide", U32) => WideAdd(each3!(|a, b, c| (u64::from(a) * u64::from(b)).wrapping_add(c))),
        ("mad", "wide", S32) => WideAdd(each3!(|a, b, c| (wide(a, b) as u64).wrapping_add(c))),
        ("mad24", "lo", U32) => Ternary32(each3!(|a, b, c| low24(a).wrapping_mul(low24(b)).wrapping_add(c))),
        ("mad24", "lo", S32) => {
            Ternary32(each3!(|a, b, c| (low24s(a).wrapping_mul(low24s(b)) as u32).wrapping_add(c)))
        }
        _ => return None,
    })
}

fn wide(a: u32, b: u32) -> i64 {
    i64::from(a as i32) * i64::from(b as i32)
}

fn low24(a: u32) -> u32 {
    a & 0xff_ffff
}

fn low24s(a: u32) -> i32 {
    (a << 8) as i32 >> 8
}

/// `dp4a.atype.btype`: products of four bytes, added to a third operand.
fn dot(b: Type, a: &str) -> Option<Shape> {
    Some(match (Type::parse(a)?, b) {
        (Type::U32, Type::U32) => Shape::Ternary32(each3!(|a, b, c| bytes(a, b, c, false, false))),
        (Type::U32, Type::S32) => Shape::Ternary32(each3!(|a, b, c| bytes(a, b, c, false, true))),
        (Type::S32, Type::U32) => Shape::Ternary32(each3!(|a, b, c| bytes(a, b, c, true, false))),
        (Type::S32, Type::S32) => Shape::Ternary32(each3!(|a, b, c| bytes(a, b, c, true, true))),
        _ => return None,
    })
}

fn bytes(a: u32, b: u32, c: u32, signed_a: bool, signed_b: bool) -> u32 {
    let byte = |x: u32, at: u32, signed: bool| {
        let byte = (x >> (8 * at)) as u8;
        if signed { i32::from(byte as i8) } else { i32::from(byte) }
    };
    let sum: i32 = (0..4).map(|at| byte(a, at, signed_a) * byte(b, at, signed_b)).sum();
    c.wrapping_add(sum as u32)
}
