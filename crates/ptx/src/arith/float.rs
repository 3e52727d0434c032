//! f32 and f64 arithmetic.
//!
//! A NaN that an f32 instruction makes is 0x7fffffff, as on GPUs. Division, reciprocal and
//! square root are correctly rounded, those that PTX calls `.approx` or `.full` as well: their
//! bounds allow it.

use super::exact::{add, divide, double, fused, maximum, minimum, multiply, register, single, square_root};
use super::shape::{Shape, Words, by_flag, by_rounding, each1, each2, each3};
use crate::machine::Kind;
use crate::types::Type;

/// The function of an opcode on f32 or f64.
pub(super) fn lookup(stem: &str, mut words: Words) -> Option<(Shape, Kind)> {
    let ty = words.ty()?;
    let (found, kind) = match ty {
        Type::F32 => (on_single(stem, &mut words)?, Kind::Single),
        Type::F64 => (on_double(stem, &mut words)?, Kind::Double),
        _ => return None,
    };
    words.done().then_some((found, kind))
}

fn saturate(value: f32, on: bool) -> f32 {
    match on {
        false => value,
        // NaN becomes +0.
        true if value > 0.0 => value.min(1.0),
        true => 0.0,
    }
}

fn on_single(stem: &str, words: &mut Words) -> Option<Shape> {
    use Shape::{Binary32, Ternary32, Unary32};
    let (ftz, sat, nan) = (words.take("ftz"), words.take("sat"), words.take("NaN"));
    if nan && !matches!(stem, "min" | "max") || sat && !matches!(stem, "add" | "sub" | "mul" | "fma" | "mad")
    {
        return None;
    }
    if matches!(stem, "div" | "rcp" | "sqrt") && (words.take("approx") || stem == "div" && words.take("full"))
    {
        return Some(division(stem, ftz));
    }
    let rounding = words.rounding();
    Some(match (stem, sat) {
        ("add", false) => by_rounding!(rounding, ftz, |R, Z| Binary32(each2!(|a, b| {
            register(add(single(a, Z), single(b, Z), R), Z)
        }))),
        ("sub", false) => by_rounding!(rounding, ftz, |R, Z| Binary32(each2!(|a, b| {
            register(add(single(a, Z), -single(b, Z), R), Z)
        }))),
        ("mul", false) => by_rounding!(rounding, ftz, |R, Z| Binary32(each2!(|a, b| {
            register(multiply(single(a, Z), single(b, Z), R), Z)
        }))),
        ("fma" | "mad", false) => by_rounding!(rounding, ftz, |R, Z| Ternary32(each3!(|a, b, c| {
            register(fused(single(a, Z), single(b, Z), single(c, Z), R), Z)
        }))),
        ("add", true) => by_rounding!(rounding, ftz, |R, Z| Binary32(each2!(|a, b| {
            register(saturate(add(single(a, Z), single(b, Z), R), true), Z)
        }))),
        ("sub", true) => by_rounding!(rounding, ftz, |R, Z| Binary32(each2!(|a, b| {
            register(saturate(add(single(a, Z), -single(b, Z), R), true), Z)
        }))),
        ("mul", true) => by_rounding!(rounding, ftz, |R, Z| Binary32(each2!(|a, b| {
            register(saturate(multiply(single(a, Z), single(b, Z), R), true), Z)
        }))),
        ("fma" | "mad", true) => by_rounding!(rounding, ftz, |R, Z| Ternary32(each3!(|a, b, c| {
            register(saturate(fused(single(a, Z), single(b, Z), single(c, Z), R), true), Z)
        }))),
        ("div", _) => by_rounding!(rounding, ftz, |R, Z| Binary32(each2!(|a, b| {
            register(divide(single(a, Z), single(b, Z), R), Z)
        }))),
        ("rcp", _) => by_rounding!(rounding, ftz, |R, Z| Unary32(each1!(|a| {
            register(divide(1.0, single(a, Z), R), Z)
        }))),
        ("sqrt", _) => by_rounding!(rounding, ftz, |R, Z| Unary32(each1!(|a| {
            register(square_root(single(a, Z), R), Z)
        }))),
        _ => return without_rounding(stem, words, ftz, nan),
    })
}

fn division(stem: &str, ftz: bool) -> Shape {
    use Shape::{Binary32, Unary32};
    match stem {
        "div" => by_flag!(ftz, |Z| Binary32(each2!(|a, b| register(single(a, Z) / single(b, Z), Z)))),
        "rcp" => by_flag!(ftz, |Z| Unary32(each1!(|a| register(1.0 / single(a, Z), Z)))),
        _ => by_flag!(ftz, |Z| Unary32(each1!(|a| register(single(a, Z).sqrt(), Z)))),
    }
}

fn without_rounding(stem: &str, words: &mut Words, ftz: bool, nan: bool) -> Option<Shape> {
    use Shape::{Binary32, Unary32};
    let signs = words.take("xorsign") && words.take("abs");
    Some(match (stem, nan, signs) {
        ("neg", false, false) => by_flag!(ftz, |Z| Unary32(each1!(|a| single(a, Z).to_bits() ^ 1 << 31))),
        ("abs", false, false) => {
            by_flag!(ftz, |Z| Unary32(each1!(|a| single(a, Z).to_bits() & 0x7fff_ffff)))
        }
        ("copysign", false, false) => Binary32(each2!(|a, b| a & 1 << 31 | b & 0x7fff_ffff)),
        ("min", false, false) => {
            by_flag!(ftz, |Z| Binary32(each2!(|a, b| register(minimum(single(a, Z), single(b, Z)), Z))))
        }
        ("max", false, false) => {
            by_flag!(ftz, |Z| Binary32(each2!(|a, b| register(maximum(single(a, Z), single(b, Z)), Z))))
        }
        ("min", true, false) => by_flag!(ftz, |Z| Binary32(each2!(|a, b| {
            register(with_nan(single(a, Z), single(b, Z), minimum), Z)
        }))),
        ("max", true, false) => by_flag!(ftz, |Z| Binary32(each2!(|a, b| {
            register(with_nan(single(a, Z), single(b, Z), maximum), Z)
        }))),
        ("min", false, true) => by_flag!(ftz, |Z| Binary32(each2!(|a, b| {
            with_sign(minimum(single(a, Z).abs(), single(b, Z).abs()), a ^ b, Z)
        }))),
        ("max", false, true) => by_flag!(ftz, |Z| Binary32(each2!(|a, b| {
            with_sign(maximum(single(a, Z).abs(), single(b, Z).abs()), a ^ b, Z)
        }))),
        _ => return None,
    })
}

/// NaN if one of both is.
#[inline(always)]
fn with_nan(a: f32, b: f32, f: impl Fn(f32, f32) -> f32) -> f32 {
    if a.is_nan() || b.is_nan() { f32::NAN } else { f(a, b) }
}

/// The register of a magnitude with a sign, which NaN has none of.
#[inline(always)]
fn with_sign(magnitude: f32, signs: u32, flush: bool) -> u32 {
    register(magnitude, flush) | if magnitude.is_nan() { 0 } else { signs & 1 << 31 }
}

fn on_double(stem: &str, words: &mut Words) -> Option<Shape> {
    use Shape::{Binary64, Ternary64, Unary64};
    let approximate = words.take("approx") && words.take("ftz");
    if !matches!(words.rounding(), crate::formats::Rounding::NearestEven) {
        return None;
    }
    Some(match (stem, approximate) {
        ("add", false) => Binary64(each2!(|a, b| (double(a) + double(b)).to_bits())),
        ("sub", false) => Binary64(each2!(|a, b| (double(a) - double(b)).to_bits())),
        ("mul", false) => Binary64(each2!(|a, b| (double(a) * double(b)).to_bits())),
        ("div", false) => Binary64(each2!(|a, b| (double(a) / double(b)).to_bits())),
        ("fma" | "mad", false) => {
            Ternary64(each3!(|a, b, c| double(a).mul_add(double(b), double(c)).to_bits()))
        }
        ("rcp", _) => Unary64(each1!(|a| (1.0 / double(a)).to_bits())),
        ("rsqrt", true) => Unary64(each1!(|a| (1.0 / double(a).sqrt()).to_bits())),
        ("sqrt", false) => Unary64(each1!(|a| double(a).sqrt().to_bits())),
        ("neg", false) => Unary64(each1!(|a| a ^ 1 << 63)),
        ("abs", false) => Unary64(each1!(|a| a & !(1 << 63))),
        ("copysign", false) => Binary64(each2!(|a, b| a & 1 << 63 | b & !(1 << 63))),
        ("min", false) => Binary64(each2!(|a, b| smaller(double(a), double(b)).to_bits())),
        ("max", false) => Binary64(each2!(|a, b| (-smaller(-double(a), -double(b))).to_bits())),
        _ => return None,
    })
}

fn smaller(a: f64, b: f64) -> f64 {
    if a.is_nan() || b < a || b == a && b.is_sign_negative() { b } else { a }
}
