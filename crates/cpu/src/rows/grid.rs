//! How a range is divided into chunks: by its length alone, never by the number of threads.

use std::ops::Range;

/// Chunks enough for any number of cores we expect, few enough for arrays of partial results on the
/// stack.
pub(crate) const MAX_CHUNKS: usize = 256;

/// A division of 0 .. len into at most [`MAX_CHUNKS`] chunks of equal size; the last may be
/// shorter.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Grid {
    len: usize,
    size: usize,
}

impl Grid {
    /// Chunks whose size is a multiple of `unit`.
    pub(crate) fn new(len: usize, unit: usize) -> Grid {
        let unit = unit.max(1);
        let units = len.div_ceil(unit);
        Grid { len, size: units.div_ceil(MAX_CHUNKS).max(1) * unit }
    }

    /// Rows of `cols` elements: chunks of about `elements` elements each, and at least a row.
    pub(crate) fn rows(rows: usize, cols: usize, elements: usize) -> Grid {
        Grid::new(rows, (elements / cols.max(1)).max(1))
    }

    pub(crate) fn chunks(self) -> usize {
        self.len.div_ceil(self.size)
    }

    pub(crate) fn range(self, chunk: usize) -> Range<usize> {
        let start = (chunk * self.size).min(self.len);
        start..(start + self.size).min(self.len)
    }
}

/// 0 .. len in pieces of `size`.
#[inline(always)]
pub(crate) fn tiles(len: usize, size: usize) -> impl Iterator<Item = Range<usize>> {
    (0..len).step_by(size).map(move |start| start..(start + size).min(len))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_cover_the_range_in_order() {
        for len in [0, 1, 7, 255, 256, 257, 1000, 100_003] {
            for unit in [1, 3, 64] {
                let grid = Grid::new(len, unit);
                assert!(grid.chunks() <= MAX_CHUNKS);
                let mut next = 0;
                for chunk in 0..grid.chunks() {
                    let range = grid.range(chunk);
                    assert_eq!(range.start, next);
                    assert!(!range.is_empty());
                    next = range.end;
                }
                assert_eq!(next, len);
            }
        }
    }
}
