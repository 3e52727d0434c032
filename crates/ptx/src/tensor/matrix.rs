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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matrices_are_loaded_stored_and_transposed() {
        let element = |row: usize, column: usize| (row * 8 + column) as u16;
        let rows: Rows =
            std::array::from_fn(|r| std::array::from_fn(|b| element(r, b / 2).to_le_bytes()[b % 2]));
        let register = load(&rows);
        for (lane, word) in register.iter().enumerate() {
            let (row, column) = (lane / 4, lane % 4 * 2);
            assert_eq!(*word, u32::from(element(row, column)) | u32::from(element(row, column + 1)) << 16);
        }
        assert_eq!(store(&register), rows);
        let turned = transposed(&register);
        for (lane, word) in turned.iter().enumerate() {
            let (row, column) = (lane / 4, lane % 4 * 2);
            assert_eq!(*word, u32::from(element(column, row)) | u32::from(element(column + 1, row)) << 16);
        }
        assert_eq!(transposed(&turned), register);
    }
}
