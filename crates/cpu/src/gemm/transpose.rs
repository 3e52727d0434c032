//! 4 × 4 transposition of 32-bit words, the step that packing across lines is made of.

/// Values of 32 bits for which any bits are valid.
///
/// # Safety
/// The type is that.
pub(crate) unsafe trait Word: Copy {}

// SAFETY: 32 bits, all of them valid.
unsafe impl Word for u32 {}
// SAFETY: as above.
unsafe impl Word for f32 {}

/// Columns in the staging area of [`super::pack`].
pub(crate) const STAGE: usize = 64;

/// Writes `to[k * width + r] = stage[r][k]` for r < `width`, k < `len`; `width` is even, and
/// `stage` has at least `width` rows rounded up to four.
#[inline(always)]
pub(crate) fn columns_to_rows<T: Word>(stage: &[[T; STAGE]], len: usize, width: usize, to: &mut [T]) {
    assert!(stage.len() >= width.next_multiple_of(4) && len <= STAGE && to.len() >= len * width);
    let whole = len / 4 * 4;
    for k in (0..whole).step_by(4) {
        for r in (0..width).step_by(4) {
            let rows = &stage[r..r + 4];
            let block =
                transpose4([four(&rows[0], k), four(&rows[1], k), four(&rows[2], k), four(&rows[3], k)]);
            for (j, row) in block.iter().enumerate() {
                let at = (k + j) * width + r;
                if r + 4 <= width {
                    to[at..at + 4].copy_from_slice(row);
                } else {
                    to[at..at + 2].copy_from_slice(&row[..2]);
                }
            }
        }
    }
    for k in whole..len {
        for r in 0..width {
            to[k * width + r] = stage[r][k];
        }
    }
}

#[inline(always)]
fn four<T: Word>(row: &[T; STAGE], k: usize) -> [T; 4] {
    row[k..k + 4].try_into().expect("a range of four")
}

/// The transpose of a 4 × 4 block.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn transpose4<T: Word>(rows: [[T; 4]; 4]) -> [[T; 4]; 4] {
    use std::arch::x86_64::*;
    // SAFETY: SSE2 is part of x86-64; sixteen words of 32 bits and four vectors of them have the
    // same size, and any bits are valid in either.
    unsafe {
        let [a, b, c, d]: [__m128i; 4] = std::mem::transmute_copy(&rows);
        let (ab_low, ab_high) = (_mm_unpacklo_epi32(a, b), _mm_unpackhi_epi32(a, b));
        let (cd_low, cd_high) = (_mm_unpacklo_epi32(c, d), _mm_unpackhi_epi32(c, d));
        std::mem::transmute_copy(&[
            _mm_unpacklo_epi64(ab_low, cd_low),
            _mm_unpackhi_epi64(ab_low, cd_low),
            _mm_unpacklo_epi64(ab_high, cd_high),
            _mm_unpackhi_epi64(ab_high, cd_high),
        ])
    }
}

/// The transpose of a 4 × 4 block.
#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
fn transpose4<T: Word>(rows: [[T; 4]; 4]) -> [[T; 4]; 4] {
    std::array::from_fn(|i| std::array::from_fn(|j| rows[j][i]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transposes() {
        let stage: [[u32; STAGE]; 32] =
            std::array::from_fn(|r| std::array::from_fn(|k| (1000 * r + k) as u32));
        for width in [6, 8, 14, 16, 32] {
            for len in [1, 3, 4, 7, 62, 64] {
                let mut to = vec![9; len * width + 5];
                columns_to_rows(&stage, len, width, &mut to);
                for (i, &got) in to[..len * width].iter().enumerate() {
                    assert_eq!(got as usize, 1000 * (i % width) + i / width);
                }
                assert_eq!(to[len * width..], [9; 5]);
            }
        }
    }
}
