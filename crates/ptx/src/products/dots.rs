//! Types of operands, and the scalar products of rows with columns.

use crate::capability::Capability;
use crate::formats::Format;
use crate::summation::{Adder, Alignment, Factor, Summation};

/// The type of an operand A or B.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Multiplicand {
    Float(Format),
    Signed8,
    Unsigned8,
}

impl Multiplicand {
    /// The type with a name of PTX.
    pub fn parse(name: &str) -> Option<Multiplicand> {
        Some(match name {
            "f16" => Multiplicand::Float(Format::F16),
            "bf16" => Multiplicand::Float(Format::Bf16),
            "tf32" => Multiplicand::Float(Format::Tf32),
            "e4m3" => Multiplicand::Float(Format::E4m3),
            "e5m2" => Multiplicand::Float(Format::E5m2),
            "s8" => Multiplicand::Signed8,
            "u8" => Multiplicand::Unsigned8,
            _ => return None,
        })
    }

    /// Bits of an element in a register.
    pub fn bits(self) -> u32 {
        match self {
            Multiplicand::Float(format) => format.bits(),
            Multiplicand::Signed8 | Multiplicand::Unsigned8 => 8,
        }
    }

    /// Whether it is a floating-point format.
    pub fn float(self) -> bool {
        matches!(self, Multiplicand::Float(_))
    }

    fn integer(self, code: u32) -> i64 {
        if self == Multiplicand::Signed8 { i64::from(code as u8 as i8) } else { i64::from(code as u8) }
    }
}

/// The type of C and D.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Accumulator {
    F32,
    /// Two in a register.
    F16,
    /// An integer of 32 bits that wraps.
    S32,
    /// An integer that stops at its greatest and its smallest value, by `.satfinite`.
    S32Saturated,
}

impl Accumulator {
    /// Bits of an element in a register.
    pub fn bits(self) -> u32 {
        if self == Accumulator::F16 { 16 } else { 32 }
    }

    /// Whether it is an integer.
    pub fn integer(self) -> bool {
        matches!(self, Accumulator::S32 | Accumulator::S32Saturated)
    }
}

/// The types of a product's operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Types {
    pub a: Multiplicand,
    pub b: Multiplicand,
    pub accumulator: Accumulator,
}

/// How sums are added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Arithmetic {
    pub summation: Summation,
    pub capability: Capability,
}

/// Rows of A and columns of B, ready to be multiplied.
pub(crate) enum Dots {
    Floats { adder: Box<Adder>, rows: Vec<Factor>, columns: Vec<Factor>, k: usize },
    Integers { types: Types, rows: Vec<u32>, columns: Vec<u32>, k: usize },
}

impl Dots {
    /// Of codes, row by row of A and column by column of B, `k` in each.
    pub fn new(
        types: Types,
        summation: Summation,
        alignment: Alignment,
        k: usize,
        [rows, columns]: [Vec<u32>; 2],
    ) -> Dots {
        let (Multiplicand::Float(a), Multiplicand::Float(b)) = (types.a, types.b) else {
            return Dots::Integers { types, rows, columns, k };
        };
        let c = if types.accumulator == Accumulator::F16 { Format::F16 } else { Format::F32 };
        let factors = |of: Format, codes: Vec<u32>| codes.iter().map(|&code| Factor::new(of, code)).collect();
        Dots::Floats {
            adder: Box::new(Adder::new(summation, alignment, [a, b, c])),
            rows: factors(a, rows),
            columns: factors(b, columns),
            k,
        }
    }

    /// The code of `row` · `column` + c, where c has the code `c`.
    pub fn dot(&mut self, row: usize, column: usize, c: u32) -> u32 {
        match self {
            Dots::Floats { adder, rows, columns, k } => {
                adder.sum(&rows[row * *k..][..*k], &columns[column * *k..][..*k], c)
            }
            Dots::Integers { types, rows, columns, k } => {
                let pairs = rows[row * *k..][..*k].iter().zip(&columns[column * *k..][..*k]);
                let sum: i64 = pairs.map(|(&x, &y)| types.a.integer(x) * types.b.integer(y)).sum();
                let sum = sum + i64::from(c as i32);
                match types.accumulator {
                    Accumulator::S32Saturated => sum.clamp(i32::MIN.into(), i32::MAX.into()) as u32,
                    _ => sum as u32,
                }
            }
        }
    }
}
