//! 4 × 4 transposition of 32-bit words, the step that packing across lines is made of.

/// Columns in the staging area of [`super::pack`].
pub(crate) const STAGE: usize = 64;

/// Writes `to[k * width + r] = stage[r][k]` for r < `width`, k < `len`; `width` is even, and `stage` has at least
/// `width` rows rounded up to four.
#[inline(always)]
pub(crate) fn columns_to_rows(stage: &[[u32; STAGE]], len: usize, width: usize, to: &mut [u32]) {
    assert!(stage.len() >= width.next_multiple_of(4) && len <= STAGE && to.len() >= len * width);
    let whole = len / 4 * 4;
    for k in (0..whole).step_by(4) {
        for r in (0..width).step_by(4) {
            let block = transpose4([
                four(&stage[r], k),
                four(&stage[r + 1], k),
                four(&stage[r + 2], k),
                four(&stage[r + 3], k),
            ]);
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
fn four(row: &[u32; STAGE], k: usize) -> [u32; 4] {
    [row[k], row[k + 1], row[k + 2], row[k + 3]]
}

/// The transpose of a 4 × 4 block.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(crate) fn transpose4(rows: [[u32; 4]; 4]) -> [[u32; 4]; 4] {
    use std::arch::x86_64::*;
    // SAFETY: SSE2 is part of x86-64; an array of four words and a vector of them have the same size, and any bits
    // are valid in either.
    unsafe {
        let [a, b, c, d]: [__m128i; 4] = std::mem::transmute(rows);
        let (ab_low, ab_high) = (_mm_unpacklo_epi32(a, b), _mm_unpackhi_epi32(a, b));
        let (cd_low, cd_high) = (_mm_unpacklo_epi32(c, d), _mm_unpackhi_epi32(c, d));
        std::mem::transmute([
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
pub(crate) fn transpose4(rows: [[u32; 4]; 4]) -> [[u32; 4]; 4] {
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
