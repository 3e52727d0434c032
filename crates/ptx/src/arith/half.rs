//! f16 and bf16 arithmetic, one value in a register or two.

use super::exact::{maximum, minimum, sum_to_odd};
use super::shape::{Shape, Words, each1, each2, each3};
use crate::formats::{Conversion, Format, Rounding};
use crate::types::Type;

/// The operations: what each does with exact operands.
#[derive(Clone, Copy, PartialEq)]
enum Operation {
    Add,
    Sub,
    Mul,
    Fma,
    FmaRelu,
    Min,
    Max,
    MinNan,
    MaxNan,
}

/// The function of an opcode on f16 or bf16.
pub(super) fn lookup(stem: &str, mut words: Words) -> Option<Shape> {
    let ty = words.ty()?;
    let rounded = words.take("rn");
    let (nan, relu) = (words.take("NaN"), words.take("relu"));
    if !words.done() || rounded && !matches!(stem, "add" | "sub" | "mul" | "fma") {
        return None;
    }
    let operation = match (stem, nan, relu) {
        ("neg" | "abs", false, false) => return signs(stem, ty),
        ("add", false, false) => Operation::Add,
        ("sub", false, false) => Operation::Sub,
        ("mul", false, false) => Operation::Mul,
        ("fma", false, false) => Operation::Fma,
        ("fma", false, true) => Operation::FmaRelu,
        ("min", false, false) => Operation::Min,
        ("max", false, false) => Operation::Max,
        ("min", true, false) => Operation::MinNan,
        ("max", true, false) => Operation::MaxNan,
        _ => return None,
    };
    select(operation, ty)
}

fn signs(stem: &str, ty: Type) -> Option<Shape> {
    Some(Shape::Unary32(match (stem, ty) {
        ("neg", Type::F16 | Type::Bf16) => each1!(|a| a ^ 0x8000),
        ("neg", Type::F16x2 | Type::Bf16x2) => each1!(|a| a ^ 0x8000_8000),
        ("abs", Type::F16 | Type::Bf16) => each1!(|a| a & 0x7fff),
        ("abs", Type::F16x2 | Type::Bf16x2) => each1!(|a| a & 0x7fff_7fff),
        _ => return None,
    }))
}

/// One result. f16 and bf16 have so few bits that an odd-rounded f64 rounds as the exact value
/// does.
fn one(operation: Operation, format: Format, a: u32, b: u32, c: u32) -> u32 {
    let [a, b, c] = [a, b, c].map(|bits| format.decode(bits & 0xffff));
    let [x, y, z] = [a, b, c].map(f64::from);
    let nan = a.is_nan() || b.is_nan();
    let value = match operation {
        Operation::Add => sum_to_odd(x, y),
        Operation::Sub => sum_to_odd(x, -y),
        Operation::Mul => x * y,
        Operation::Fma | Operation::FmaRelu => sum_to_odd(x * y, z),
        Operation::MinNan | Operation::MaxNan if nan => f64::NAN,
        Operation::Min | Operation::MinNan => minimum(a, b).into(),
        Operation::Max | Operation::MaxNan => maximum(a, b).into(),
    };
    let relu = operation == Operation::FmaRelu;
    format.encode(value, Conversion { rounding: Rounding::NearestEven, satfinite: false, relu })
}

fn two(operation: Operation, format: Format, a: u32, b: u32, c: u32) -> u32 {
    one(operation, format, a, b, c) | one(operation, format, a >> 16, b >> 16, c >> 16) << 16
}

fn select(operation: Operation, ty: Type) -> Option<Shape> {
    macro_rules! shape {
        ($operation:ident, $f:ident, $format:ident) => {
            match Operation::$operation {
                Operation::Fma | Operation::FmaRelu => {
                    Shape::Ternary32(each3!(|a, b, c| $f(Operation::$operation, Format::$format, a, b, c)))
                }
                _ => Shape::Binary32(each2!(|a, b| $f(Operation::$operation, Format::$format, a, b, 0))),
            }
        };
    }
    macro_rules! by_type {
        ($($operation:ident)*) => {
            match (operation, ty) {
                $(
                    (Operation::$operation, Type::F16) => shape!($operation, one, F16),
                    (Operation::$operation, Type::F16x2) => shape!($operation, two, F16),
                    (Operation::$operation, Type::Bf16) => shape!($operation, one, Bf16),
                    (Operation::$operation, Type::Bf16x2) => shape!($operation, two, Bf16),
                )*
                _ => return None,
            }
        };
    }
    Some(by_type!(Add Sub Mul Fma FmaRelu Min Max MinNan MaxNan))
}
