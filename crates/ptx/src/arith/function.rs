//! The approximate functions.
//!
//! GPUs compute them from tables with the errors that the PTX ISA bounds (2 ulp for `ex2`,
//! 2^-22.9 for `rsqrt`, 2^-22 for `lg2`, 2^-20.5 for `sin` and `cos` in [-π, π], a relative 2^-11
//! for `tanh`). Here each is the exact value rounded to the nearest f32, as far as the f64
//! functions of the standard library are exact: within every bound, but not the bits of a GPU;
//! `tests/it/hardware.rs` has the distances from an H200's.

use super::exact::{register, single};
use super::shape::{Shape, Words, by_flag, each1};
use crate::formats::{Conversion, Format, Rounding};
use crate::types::Type;

/// The function of an opcode.
pub(super) fn lookup(stem: &str, mut words: Words) -> Option<Shape> {
    let ty = words.ty()?;
    if !words.take("approx") {
        return None;
    }
    let ftz = words.take("ftz");
    if !words.done() {
        return None;
    }
    match ty {
        Type::F32 => of_single(stem, ftz),
        Type::F16 | Type::F16x2 | Type::Bf16 | Type::Bf16x2 => of_half(stem, ty),
        _ => None,
    }
}

#[inline(always)]
fn by_double(bits: u32, flush: bool, f: impl Fn(f64) -> f64) -> u32 {
    register(f(single(bits, flush).into()) as f32, flush)
}

fn of_single(stem: &str, ftz: bool) -> Option<Shape> {
    Some(Shape::Unary32(match stem {
        "ex2" => by_flag!(ftz, |Z| each1!(|a| by_double(a, Z, f64::exp2))),
        "lg2" => by_flag!(ftz, |Z| each1!(|a| by_double(a, Z, f64::log2))),
        "rsqrt" => by_flag!(ftz, |Z| each1!(|a| by_double(a, Z, |x| 1.0 / x.sqrt()))),
        "sin" => by_flag!(ftz, |Z| each1!(|a| by_double(a, Z, f64::sin))),
        "cos" => by_flag!(ftz, |Z| each1!(|a| by_double(a, Z, f64::cos))),
        "tanh" if !ftz => each1!(|a| by_double(a, false, f64::tanh)),
        _ => return None,
    }))
}

/// `f` of an f16 or bf16.
fn narrow(bits: u32, format: Format, f: impl Fn(f64) -> f64) -> u32 {
    let value = f(format.decode(bits & 0xffff).into());
    format.encode(value, Conversion::rounded(Rounding::NearestEven))
}

fn halves(bits: u32, format: Format, f: impl Fn(f64) -> f64) -> u32 {
    narrow(bits, format, &f) | narrow(bits >> 16, format, &f) << 16
}

fn of_half(stem: &str, ty: Type) -> Option<Shape> {
    Some(Shape::Unary32(match (stem, ty) {
        ("ex2", Type::F16) => each1!(|a| narrow(a, Format::F16, f64::exp2)),
        ("ex2", Type::F16x2) => each1!(|a| halves(a, Format::F16, f64::exp2)),
        ("ex2", Type::Bf16) => each1!(|a| narrow(a, Format::Bf16, f64::exp2)),
        ("ex2", Type::Bf16x2) => each1!(|a| halves(a, Format::Bf16, f64::exp2)),
        ("tanh", Type::F16) => each1!(|a| narrow(a, Format::F16, f64::tanh)),
        ("tanh", Type::F16x2) => each1!(|a| halves(a, Format::F16, f64::tanh)),
        ("tanh", Type::Bf16) => each1!(|a| narrow(a, Format::Bf16, f64::tanh)),
        ("tanh", Type::Bf16x2) => each1!(|a| halves(a, Format::Bf16, f64::tanh)),
        _ => return None,
    }))
}
