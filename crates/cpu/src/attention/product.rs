//! Products of small f32 blocks that lie in the first- and second-level cache.
//!
//! This is the one place where attention multiplies: a matrix unit would be called here.

use std::ops::Range;

use crate::rows::Caps;
use crate::rows::fma;

/// The LHS: element (i, k) is `data[i·row + k·col]`, so that a transposed block is as good as a
/// plain one.
#[derive(Clone, Copy)]
pub(super) struct Left<'a> {
    pub data: &'a [f32],
    pub row: usize,
    pub col: usize,
}

/// Which part of a product is not zero or not wanted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Band {
    /// Everything counts.
    Full,
    /// Only results on or below the diagonal are wanted: (i, j) with j ≤ i.
    LowerResult,
    /// The LHS is zero above the diagonal: only k ≤ i counts.
    LowerLeft,
    /// The LHS is zero below the diagonal: only k ≥ i counts.
    UpperLeft,
}

/// What is done with the results' earlier contents.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Into {
    /// Overwritten.
    Set,
    /// Added to.
    Add,
}

/// C = A·B or C += A·B.
pub(super) struct Product<'a> {
    /// Rows of A and C. Rounded up to a multiple of 8: A and C must have that many.
    pub m: usize,
    /// Columns of B and C. Rounded up to a multiple of 32: B and C must have that many.
    pub n: usize,
    /// Columns of A and rows of B.
    pub k: usize,
    pub a: Left<'a>,
    pub b: &'a [f32],
    /// Distance between rows of B.
    pub b_row: usize,
    pub c: &'a mut [f32],
    /// Distance between rows of C.
    pub c_row: usize,
    pub into: Into,
    pub band: Band,
}

impl Product<'_> {
    #[inline(always)]
    pub(super) fn run<C: Caps>(self) {
        match C::WIDTH {
            16 => self.blocks::<C, 8, 32>(),
            8 => self.blocks::<C, 4, 16>(),
            _ => self.blocks::<C, 4, 8>(),
        }
    }

    #[inline(always)]
    fn blocks<C: Caps, const MR: usize, const NR: usize>(self) {
        let Product { m, n, k, a, b, b_row, c, c_row, into, band } = self;
        if m == 0 || n == 0 || k == 0 {
            return;
        }
        let (m, n) = (m.next_multiple_of(MR), n.next_multiple_of(NR));
        // With these, every index below is inside its slice.
        assert!((m - 1) * a.row + (k - 1) * a.col < a.data.len(), "LHS of a block product");
        assert!((k - 1) * b_row + n <= b.len() && n <= b_row, "RHS of a block product");
        assert!((m - 1) * c_row + n <= c.len() && n <= c_row, "result of a block product");
        for j in (0..n).step_by(NR) {
            for i in (0..m).step_by(MR) {
                let ks: Range<usize> = match band {
                    Band::Full => 0..k,
                    Band::LowerResult if j >= i + MR => continue,
                    Band::LowerResult => 0..k,
                    Band::LowerLeft => 0..k.min(i + MR),
                    Band::UpperLeft => i.min(k)..k,
                };
                // SAFETY: i + MR ≤ m, j + NR ≤ n and ks lies in 0..k; the assertions above cover
                // those bounds.
                unsafe { micro::<C, MR, NR>(ks, a, i, b, b_row, j, c, c_row, into) };
            }
        }
    }
}

/// MR × NR results, held in registers while k runs.
///
/// # Safety
/// Elements (i .. i + MR, ks) of A, (ks, j .. j + NR) of B and (i .. i + MR, j .. j + NR) of C are
/// inside their slices.
#[inline(always)]
#[allow(clippy::too_many_arguments, reason = "three operands and where to start in each")]
unsafe fn micro<C: Caps, const MR: usize, const NR: usize>(
    ks: Range<usize>,
    a: Left<'_>,
    i: usize,
    b: &[f32],
    b_row: usize,
    j: usize,
    c: &mut [f32],
    c_row: usize,
    into: Into,
) {
    let mut sums = [[0.0f32; NR]; MR];
    for k in ks {
        // SAFETY: the caller's promise for B.
        let right: &[f32; NR] = unsafe { &*b.as_ptr().add(k * b_row + j).cast() };
        for (r, sums) in sums.iter_mut().enumerate() {
            // SAFETY: the caller's promise for A.
            let left = unsafe { *a.data.get_unchecked((i + r) * a.row + k * a.col) };
            for (sum, &right) in sums.iter_mut().zip(right) {
                *sum = fma::<C>(left, right, *sum);
            }
        }
    }
    for (r, sums) in sums.iter().enumerate() {
        // SAFETY: the caller's promise for C.
        let to: &mut [f32; NR] = unsafe { &mut *c.as_mut_ptr().add((i + r) * c_row + j).cast() };
        match into {
            Into::Set => *to = *sums,
            Into::Add => {
                for (to, &sum) in to.iter_mut().zip(sums) {
                    *to += sum;
                }
            }
        }
    }
}
