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
            let register = &mut d[if half { i / 2 } else { i }];
            for (lane, word) in register.iter_mut().enumerate() {
                let (row, column) = (lane / 4 + i / 2 % 2 * 8, i / 4 * 8 + lane % 4 * 2 + i % 2);
                *word = if half {
                    let shift = 16 * (i as u32 % 2);
                    let code = dots.dot(row, column, *word >> shift & 0xffff);
                    *word & !(0xffff << shift) | code << shift
                } else {
                    dots.dot(row, column, *word)
                };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::products::dots::Arithmetic;
    use crate::{Capability, Summation};

    fn descriptor(swizzle: Swizzle, leading: usize, stride: usize) -> Descriptor {
        let mode = match swizzle {
            Swizzle::None => 0,
            Swizzle::Bytes128 => 1,
            Swizzle::Bytes64 => 2,
            Swizzle::Bytes32 => 3,
        };
        let field = |bytes: usize| (bytes >> 4) as u64;
        let bits = field(2048) | field(leading) << 16 | field(stride) << 32 | mode << 62;
        Descriptor::parse(bits).unwrap()
    }

    #[test]
    fn core_matrices_without_swizzle_lie_where_the_offsets_say() {
        // 8 rows of 16 bytes; the next ones along K after 128 bytes, the next rows after 512.
        let plain = descriptor(Swizzle::None, 128, 512);
        assert_eq!(plain.offset(Major::K, 0, 0, 2), 2048);
        assert_eq!(plain.offset(Major::K, 3, 5, 2), 2048 + 3 * 16 + 10);
        assert_eq!(plain.offset(Major::K, 3, 8, 2), 2048 + 3 * 16 + 128);
        assert_eq!(plain.offset(Major::K, 17, 9, 2), 2048 + 2 * 512 + 16 + 128 + 2);
        assert_eq!(plain.offset(Major::K, 8, 17, 1), 2048 + 512 + 128 + 1);
        // Across: 8 values of K of 16 bytes each; the next 8 after 128 bytes, the next rows after
        // 512.
        assert_eq!(plain.offset(Major::Outer, 5, 3, 2), 2048 + 3 * 16 + 10);
        assert_eq!(plain.offset(Major::Outer, 12, 11, 2), 2048 + 512 + 8 + 128 + 3 * 16);
    }

    #[test]
    fn swizzled_tiles_lie_as_bulk_copies_put_them() {
        for swizzle in [Swizzle::Bytes32, Swizzle::Bytes64, Swizzle::Bytes128] {
            let span = swizzle.span();
            let k_major = descriptor(swizzle, 16, 8 * span);
            let across = descriptor(swizzle, 64 * span, 8 * span);
            for outer in 0..64 {
                for k in 0..16 {
                    // A row of A or column of B is a row of the tile.
                    let tile = swizzle.place(2048 + outer * span + k * 2);
                    assert_eq!(k_major.offset(Major::K, outer, k, 2), tile);
                    // A value of K is a row of the tile; tiles of `span` bytes follow each other.
                    let per = span / 2;
                    let tile = swizzle.place(2048 + outer / per * 64 * span + k * span + outer % per * 2);
                    assert_eq!(across.offset(Major::Outer, outer, k, 2), tile);
                }
            }
        }
    }

    #[test]
    fn swizzles_are_their_own_inverse_and_spread_columns_over_banks() {
        for swizzle in [Swizzle::Bytes32, Swizzle::Bytes64, Swizzle::Bytes128] {
            assert!((0..4096).all(|at| swizzle.place(swizzle.place(at)) == at));
            assert!((0..4096).all(|at| swizzle.place(at) / swizzle.span() == at / swizzle.span()));
        }
        // The first pieces of eight rows of 128 bytes.
        let pieces: Vec<usize> = (0..8).map(|row| Swizzle::Bytes128.place(row * 128) % 128 / 16).collect();
        assert_eq!(pieces, [0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(Swizzle::Bytes64.place(0x180 + 16), 0x180 + 32);
        assert_eq!(Swizzle::Bytes32.place(0x180), 0x180 + 16);
    }

    #[test]
    fn descriptors_with_a_base_offset_are_refused() {
        assert!(Descriptor::parse(1 << 49).is_err());
    }

    #[test]
    fn a_warp_multiplies_its_rows_with_all_columns() {
        let accumulators = [Accumulator::S32, Accumulator::S32Saturated];
        for (accumulator, negated) in accumulators.into_iter().zip([[false; 2]; 2]) {
            let types = Types { a: Multiplicand::Signed8, b: Multiplicand::Unsigned8, accumulator };
            let mma = GroupMma { n: 24, types, negated };
            let (a, b) =
                (|row: usize, k: usize| (row * 3 + k) as i32 % 11 - 5, |k: usize, c: usize| (k + c) % 7);
            let codes = |outers: usize, code: &dyn Fn(usize, usize) -> u32| -> Vec<u32> {
                (0..outers)
                    .flat_map(|outer| (0..32).map(move |k| (outer, k)))
                    .map(|(o, k)| code(o, k))
                    .collect()
            };
            let rows = codes(16, &|row, k| a(row, k) as u8 as u32);
            let columns = codes(24, &|column, k| b(k, column) as u32);
            let mut d = vec![[7; 32]; mma.accumulators()];
            let how = Arithmetic { summation: Summation::Exact, capability: Capability(90) };
            mma.run(how, rows, columns, &mut d);
            assert_eq!(d.len(), 12);
            for (i, register) in d.iter().enumerate() {
                for (lane, value) in register.iter().enumerate() {
                    let (row, column) =
                        ((lane >> 2) + (i >> 1 & 1) * 8, (i >> 2) * 8 + (lane & 3) * 2 + (i & 1));
                    let sum: i32 = (0..32).map(|k| a(row, k) * b(k, column) as i32).sum();
                    assert_eq!(*value as i32, 7 + sum, "register {i} of lane {lane}");
                }
            }
        }
    }

    #[test]
    fn negated_operands_and_f16_results() {
        let half = Multiplicand::Float(Format::F16);
        let types = Types { a: half, b: half, accumulator: Accumulator::F16 };
        let how = Arithmetic { summation: Summation::Truncated, capability: Capability(90) };
        let run = |negated| {
            let mma = GroupMma { n: 8, types, negated };
            // Sixteen products 1 · 1 added to 2.
            let mut d = vec![[0x4000_4000; 32]; mma.accumulators()];
            mma.run(how, vec![0x3c00; 256], vec![0x3c00; 128], &mut d);
            d
        };
        assert_eq!(run([false; 2]), vec![[0x4c80_4c80; 32]; 2]);
        assert_eq!(run([true; 2]), run([false; 2]));
        assert_eq!(run([false, true]), vec![[0xcb00_cb00; 32]; 2]);
    }
}
