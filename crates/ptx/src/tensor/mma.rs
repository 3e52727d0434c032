//! `mma.sync` m16n8kK: products of fragments that lie in the registers of 32 lanes.
//!
//! Layouts are those of the PTX ISA 9.0, section "Warp-level matrix instructions: mma". With g =
//! lane / 4, t = lane % 4 and e elements to a register, they are all one rule: element j of
//! register q of A is row g + 8·(q mod 2), column e·t + j + 4e·⌊q / 2⌋; of B it is row e·t + j +
//! 4e·q, column g; C and D have column 2t + j, row g + 8·q.

use crate::capability::{Capability, Unit, alignment, emulated};
use crate::formats::Format;
use crate::machine::Lanes32;
use crate::summation::{Adder, Factor, Summation};

/// The type of an operand A or B.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Multiplicand {
    /// A floating-point format.
    Float(Format),
    /// `s8`.
    Signed8,
    /// `u8`.
    Unsigned8,
}

impl Multiplicand {
    /// Bits of an element in a register.
    pub fn bits(self) -> u32 {
        match self {
            Self::Float(format) => format.bits(),
            Self::Signed8 | Self::Unsigned8 => 8,
        }
    }
}

/// The type of C and D.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Accumulator {
    /// `f32`.
    F32,
    /// `f16`, two in a register.
    F16,
    /// `s32` that wraps.
    S32,
    /// `s32` that keeps its greatest or smallest value, by `.satfinite`.
    S32Saturated,
}

impl Accumulator {
    /// Registers that 16 × 8 elements take in each lane.
    pub fn registers(self) -> usize {
        if self == Self::F16 { 2 } else { 4 }
    }
}

/// Rows of A, C and D.
pub(crate) const M: usize = 16;
/// Columns of B, C and D.
pub(crate) const N: usize = 8;

/// One `mma.sync.aligned.m16n8kK.row.col`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mma {
    /// The contracted size.
    pub k: usize,
    /// Type of A's elements.
    pub a: Multiplicand,
    /// Type of B's elements.
    pub b: Multiplicand,
    /// Type of C's and D's elements.
    pub accumulator: Accumulator,
}

impl Mma {
    /// Registers of A in each lane.
    pub fn a_registers(&self) -> usize {
        M * self.k * self.a.bits() as usize / (32 * 32)
    }

    /// Registers of B in each lane.
    pub fn b_registers(&self) -> usize {
        N * self.k * self.b.bits() as usize / (32 * 32)
    }

    /// Multiplications and additions of one instruction.
    pub fn operations(&self) -> u64 {
        2 * (M * N * self.k) as u64
    }

    /// D = A·B + C. The registers are `a_registers`, `b_registers` and `accumulator.registers()`
    /// many; so are those of D, the rest of the four is zero.
    pub fn run(
        &self,
        model: Summation,
        capability: Capability,
        a: &[Lanes32],
        b: &[Lanes32],
        c: &[Lanes32],
    ) -> [Lanes32; 4] {
        let (rows, columns) = (self.rows(a), self.columns(b));
        match (self.a, self.b) {
            (Multiplicand::Float(fa), Multiplicand::Float(fb)) => {
                let format = if self.accumulator == Accumulator::F16 { Format::F16 } else { Format::F32 };
                let mut alignment = alignment(capability, Unit::Warp, fa);
                let halves = emulated(capability, Unit::Warp, fa);
                if halves {
                    alignment.products = self.k / 2;
                }
                let mut adder = Adder::new(model, alignment, [fa, fb, format]);
                let factors = |of: Format, codes: &[u32]| -> Vec<Factor> {
                    let at = |i: usize| if halves { i - i % self.k + self.halved(i % self.k) } else { i };
                    (0..codes.len()).map(|i| Factor::new(of, codes[at(i)])).collect()
                };
                let (rows, columns) = (factors(fa, &rows), factors(fb, &columns));
                self.each(c, |row, column, c| {
                    adder.sum(&rows[row * self.k..][..self.k], &columns[column * self.k..][..self.k], c)
                })
            }
            _ => self.each(c, |row, column, c| {
                let pairs = rows[row * self.k..][..self.k].iter().zip(&columns[column * self.k..][..self.k]);
                let sum: i64 = pairs.map(|(&x, &y)| integer(self.a, x) * integer(self.b, y)).sum();
                let sum = sum + i64::from(c as i32);
                match self.accumulator {
                    Accumulator::S32Saturated => sum.clamp(i32::MIN.into(), i32::MAX.into()) as u32,
                    _ => sum as u32,
                }
            }),
        }
    }

    /// Which contracted element is added in place `i` where a product of bytes is made of two of 16
    /// bits.
    fn halved(&self, i: usize) -> usize {
        let half = self.k / 2;
        i % half / 2 * 4 + i % 2 + i / half * 2
    }

    /// The codes of A, row by row.
    fn rows(&self, registers: &[Lanes32]) -> Vec<u32> {
        let bits = self.a.bits();
        let (per, mask) = ((32 / bits) as usize, u32::MAX >> (32 - bits));
        let mut out = vec![0; M * self.k];
        for (q, register) in registers.iter().enumerate() {
            for (lane, &word) in register.iter().enumerate() {
                let (row, column) = (lane / 4 + 8 * (q % 2), lane % 4 * per + 4 * per * (q / 2));
                for j in 0..per {
                    out[row * self.k + column + j] = word >> (bits * j as u32) & mask;
                }
            }
        }
        out
    }

    /// The codes of B, column by column.
    fn columns(&self, registers: &[Lanes32]) -> Vec<u32> {
        let bits = self.b.bits();
        let (per, mask) = ((32 / bits) as usize, u32::MAX >> (32 - bits));
        let mut out = vec![0; N * self.k];
        for (q, register) in registers.iter().enumerate() {
            for (lane, &word) in register.iter().enumerate() {
                let (column, row) = (lane / 4, lane % 4 * per + 4 * per * q);
                for j in 0..per {
                    out[column * self.k + row + j] = word >> (bits * j as u32) & mask;
                }
            }
        }
        out
    }

    /// D from C, element by element: `element` gets row, column and the code in C.
    fn each(&self, c: &[Lanes32], mut element: impl FnMut(usize, usize, u32) -> u32) -> [Lanes32; 4] {
        let mut out = [[0; 32]; 4];
        for lane in 0..32 {
            for i in 0..4 {
                let (row, column) = (lane / 4 + 8 * (i / 2), lane % 4 * 2 + i % 2);
                if self.accumulator == Accumulator::F16 {
                    let shift = 16 * (i as u32 % 2);
                    let code = element(row, column, c[i / 2][lane] >> shift & 0xffff);
                    out[i / 2][lane] |= code << shift;
                } else {
                    out[i][lane] = element(row, column, c[i][lane]);
                }
            }
        }
        out
    }
}

fn integer(kind: Multiplicand, code: u32) -> i64 {
    if kind == Multiplicand::Signed8 { i64::from(code as u8 as i8) } else { i64::from(code as u8) }
}
