//! `ldmatrix`, `stmatrix` and `movmatrix`: 8 × 8 matrices of 16-bit elements between shared memory
//! and the registers of a warp.
//!
//! Layout, by the PTX ISA 9.0, section "Warp-level matrix instructions: ldmatrix": lane l holds
//! elements 2·(l mod 4) and 2·(l mod 4) + 1 of row ⌊l / 4⌋; row r of matrix i lies at the address
//! that lane 8·i + r gives.

use crate::machine::Lanes32;

/// Bytes of one row: 8 elements.
pub(crate) const ROW_BYTES: usize = 16;

/// An 8 × 8 matrix as it lies in memory, by rows.
pub(crate) type Rows = [[u8; ROW_BYTES]; 8];

/// The register that `ldmatrix` fills from a matrix.
pub(crate) fn load(rows: &Rows) -> Lanes32 {
    std::array::from_fn(|lane| {
        let at = lane % 4 * 4;
        let row = &rows[lane / 4];
        u32::from_le_bytes([row[at], row[at + 1], row[at + 2], row[at + 3]])
    })
}

/// The matrix that `stmatrix` writes from a register.
pub(crate) fn store(register: &Lanes32) -> Rows {
    let mut rows = [[0; ROW_BYTES]; 8];
    for (lane, word) in register.iter().enumerate() {
        rows[lane / 4][lane % 4 * 4..][..4].copy_from_slice(&word.to_le_bytes());
    }
    rows
}

/// The register of the transposed matrix: `movmatrix.trans`, and what `.trans` adds to the other
/// two.
pub(crate) fn transposed(register: &Lanes32) -> Lanes32 {
    let element = |row: usize, column: usize| {
        let word = register[row * 4 + column / 2];
        word >> (16 * (column % 2)) & 0xffff
    };
    std::array::from_fn(|lane| {
        let (row, column) = (lane / 4, lane % 4 * 2);
        element(column, row) | element(column + 1, row) << 16
    })
}
