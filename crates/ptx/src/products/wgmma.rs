//! `wgmma.mma_async` m64nNkK: what one of the four warps computes, and where operands lie in shared
//! memory.
//!
//! By the PTX ISA 9.0, section "Asynchronous warpgroup level matrix instructions", and the
//! canonical layouts that CUTLASS states in `cute/arch/mma_sm90_desc.hpp`. Warp w of the group has
//! rows 16w and on of A and D; its fragments of A lie as those of `mma` m16n8k16 do; register i of
//! D has row g + 8·(⌊i / 2⌋ mod 2), column 8·⌊i / 4⌋ + 2t + i mod 2, with g = lane / 4 and t = lane
//! mod 4.

use super::Lanes;
use super::dots::{Accumulator, Arithmetic, Dots, Multiplicand, Types};
use super::mma::{M, rows};
use crate::capability::{Unit, alignment};
use crate::formats::Format;
use crate::swizzle::Swizzle;

/// Which index of an operand runs through neighbours in shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Major {
    /// The contracted one.
    K,
    /// That of A's rows or B's columns: operands that the opcode transposes.
    Outer,
}

/// A matrix descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Descriptor {
    /// Offset in shared memory.
    pub start: usize,
    pub leading: usize,
    pub stride: usize,
    pub swizzle: Swizzle,
}

impl Descriptor {
    /// The descriptor with these bits.
    ///
    /// # Errors
    ///
    /// What about it is not simulated.
    pub fn parse(bits: u64) -> Result<Descriptor, String> {
        let field = |at: u32| ((bits >> at & 0x3fff) << 4) as usize;
        let swizzle = match bits >> 62 {
            0 => Swizzle::None,
            1 => Swizzle::Bytes128,
            2 => Swizzle::Bytes64,
            _ => Swizzle::Bytes32,
        };
        let offset = bits >> 49 & 7;
        if offset != 0 {
            return Err(format!(
                "matrix descriptor {bits:#018x}: a base offset of {offset} is not simulated"
            ));
        }
        Ok(Descriptor { start: field(0), leading: field(16), stride: field(32), swizzle })
    }

    /// The offset in shared memory of an element: `outer` is its row of A or column of B.
    pub fn offset(&self, major: Major, outer: usize, k: usize, bytes: usize) -> usize {
        let span = self.swizzle.span();
        let linear = match (major, self.swizzle) {
            (Major::K, Swizzle::None) => {
                let at = k * bytes;
                outer / 8 * self.stride + outer % 8 * 16 + at / 16 * self.leading + at % 16
            }
            (Major::K, _) => outer / 8 * self.stride + outer % 8 * span + k * bytes,
            (Major::Outer, Swizzle::None) => {
                let per = 16 / bytes;
                outer / per * self.stride + outer % per * bytes + k % 8 * 16 + k / 8 * self.leading
            }
            (Major::Outer, _) => {
                let per = span / bytes;
                outer / per * self.leading + outer % per * bytes + k % 8 * span + k / 8 * self.stride
            }
        };
        self.swizzle.place(self.start + linear)
    }
}

/// One `wgmma.mma_async.sync.aligned.m64nNkK`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GroupMma {
    pub n: usize,
    pub types: Types,
    /// A, or B, is multiplied by −1.
    pub negated: [bool; 2],
}

impl GroupMma {
    /// The contracted size: 32 bytes of it.
    pub fn k(&self) -> usize {
        256 / self.types.a.bits() as usize
    }

    /// Registers of D in each lane.
    pub fn accumulators(&self) -> usize {
        M * self.n * self.types.accumulator.bits() as usize / (32 * 32)
    }

    /// Multiplications and additions of one of the four warps.
    pub fn operations(&self) -> u64 {
        2 * (M * self.n * self.k()) as u64
    }

    /// The codes of a warp's rows of A from its registers.
    pub fn rows(&self, registers: &[Lanes]) -> Vec<u32> {
        rows(self.types.a, self.k(), registers)
    }

    /// D = A·B + D for the rows of a warp, with its 16 rows of A and the n columns of B as codes.
    pub fn run(&self, how: Arithmetic, rows: Vec<u32>, columns: Vec<u32>, d: &mut [Lanes]) {
        let format = if let Multiplicand::Float(format) = self.types.a { format } else { Format::F16 };
        let alignment = alignment(how.capability, Unit::WarpGroup, format);
        let signed = |kind: Multiplicand, negated: bool, codes: Vec<u32>| -> Vec<u32> {
            let flip = if negated { 1 << (kind.bits() - 1) } else { 0 };
            codes.into_iter().map(|code| code ^ flip).collect()
        };
        let rows = signed(self.types.a, self.negated[0], rows);
        let columns = signed(self.types.b, self.negated[1], columns);
        let mut dots = Dots::new(self.types, how.summation, alignment, self.k(), [rows, columns]);
        let half = self.types.accumulator == Accumulator::F16;
        for i in 0..self.n / 2 {
            for lane in 0..32 {
                let (row, column) = (lane / 4 + i / 2 % 2 * 8, i / 4 * 8 + lane % 4 * 2 + i % 2);
                if half {
                    let (at, shift) = (i / 2, 16 * (i as u32 % 2));
                    let code = dots.dot(row, column, d[at][lane] >> shift & 0xffff);
                    d[at][lane] = d[at][lane] & !(0xffff << shift) | code << shift;
                } else {
                    d[i][lane] = dots.dot(row, column, d[i][lane]);
                }
            }
        }
    }
}
