//! `mma.sync` m16n8kK: products of fragments that lie in the registers of 32 lanes.
//!
//! Layouts are those of the PTX ISA 9.0, section "Warp-level matrix instructions: mma". With
//! g = lane / 4, t = lane mod 4 and e elements to a register, they are all one rule: element j of
//! register q of A is row g + 8·(q mod 2), column e·t + j + 4e·⌊q / 2⌋; of B it is row
//! e·t + j + 4e·q, column g; elements i of C and D have row g + 8·⌊i / 2⌋, column 2t + i mod 2.

use super::Lanes;
use super::dots::{Accumulator, Arithmetic, Dots, Multiplicand, Types};
use crate::capability::{Unit, alignment, emulated};

/// Rows of A, C and D.
pub(crate) const M: usize = 16;
/// Columns of B, C and D.
pub(crate) const N: usize = 8;

/// One `mma.sync.aligned.m16n8kK.row.col`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mma {
    /// The contracted size.
    pub k: usize,
    pub types: Types,
}

impl Mma {
    /// Registers of A in each lane.
    pub fn a_registers(&self) -> usize {
        M * self.k * self.types.a.bits() as usize / (32 * 32)
    }

    /// Registers of B in each lane.
    pub fn b_registers(&self) -> usize {
        N * self.k * self.types.b.bits() as usize / (32 * 32)
    }

    /// Registers of C and of D in each lane.
    pub fn accumulators(&self) -> usize {
        M * N * self.types.accumulator.bits() as usize / (32 * 32)
    }

    /// Multiplications and additions of one instruction.
    pub fn operations(&self) -> u64 {
        2 * (M * N * self.k) as u64
    }

    /// D = A·B + C, where the operands have as many registers as the methods above say; what D
    /// lacks of four registers is zero.
    pub fn run(&self, how: Arithmetic, a: &[Lanes], b: &[Lanes], c: &[Lanes]) -> [Lanes; 4] {
        let (mut rows, mut columns) = (rows(self.types.a, self.k, a), self.columns(b));
        let Multiplicand::Float(format) = self.types.a else {
            let unused = alignment(how.capability, Unit::Warp, crate::formats::Format::F16);
            let dots = Dots::new(self.types, how.summation, unused, self.k, [rows, columns]);
            return self.each(c, dots);
        };
        let mut alignment = alignment(how.capability, Unit::Warp, format);
        if emulated(how.capability, Unit::Warp, format) {
            alignment.products = self.k / 2;
            (rows, columns) = (self.halved(&rows), self.halved(&columns));
        }
        self.each(c, Dots::new(self.types, how.summation, alignment, self.k, [rows, columns]))
    }

    /// Rows in the order in which they are added where a product of bytes is made of two products
    /// of 16 bits.
    fn halved(&self, codes: &[u32]) -> Vec<u32> {
        let half = self.k / 2;
        let from = |i: usize| i % half / 2 * 4 + i % 2 + i / half * 2;
        (0..codes.len()).map(|at| codes[at - at % self.k + from(at % self.k)]).collect()
    }

    /// The codes of B, column by column.
    fn columns(&self, registers: &[Lanes]) -> Vec<u32> {
        let bits = self.types.b.bits();
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

    /// D from C, element by element.
    fn each(&self, c: &[Lanes], mut dots: Dots) -> [Lanes; 4] {
        let mut out = [[0; 32]; 4];
        for lane in 0..32 {
            for i in 0..4 {
                let (row, column) = (lane / 4 + 8 * (i / 2), lane % 4 * 2 + i % 2);
                if self.types.accumulator == Accumulator::F16 {
                    let shift = 16 * (i as u32 % 2);
                    let code = dots.dot(row, column, c[i / 2][lane] >> shift & 0xffff);
                    out[i / 2][lane] |= code << shift;
                } else {
                    out[i][lane] = dots.dot(row, column, c[i][lane]);
                }
            }
        }
        out
    }
}

/// The codes of 16 rows of A, row by row.
pub(super) fn rows(kind: Multiplicand, k: usize, registers: &[Lanes]) -> Vec<u32> {
    let bits = kind.bits();
    let (per, mask) = ((32 / bits) as usize, u32::MAX >> (32 - bits));
    let mut out = vec![0; M * k];
    for (q, register) in registers.iter().enumerate() {
        for (lane, &word) in register.iter().enumerate() {
            let (row, column) = (lane / 4 + 8 * (q % 2), lane % 4 * per + 4 * per * (q / 2));
            for j in 0..per {
                out[row * k + column + j] = word >> (bits * j as u32) & mask;
            }
        }
    }
    out
}
