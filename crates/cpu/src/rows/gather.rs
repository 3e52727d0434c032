//! Rows of a table by index, and the sum of rows by index: an embedding and its derivative.

use super::grid::tiles;
use super::storage::{Dst, Src, TILE};
use super::{Body, Caps, Grid, RowError, SharedDst, SharedSlice, check_len, check_scratch, dispatch};
use crate::isa::Isa;
use crate::pool::Pool;

/// Copies row `indices[i]` of `table`, which is `[rows, width]`, to row `i` of `out`. Each index is
/// a row: a program's indices are checked before it runs.
///
/// # Errors
/// If a length differs from what the shape says.
pub fn gather_rows<T: Copy + Send + Sync>(
    pool: &Pool,
    table: &[T],
    rows: usize,
    width: usize,
    indices: &[i32],
    out: &mut [T],
) -> Result<(), RowError> {
    check_len("table", rows * width, table.len())?;
    check_len("out", indices.len() * width, out.len())?;
    let out = SharedSlice::new(out);
    let grid = Grid::rows(indices.len(), width, 16 * TILE);
    pool.for_each(grid.chunks(), &|_, chunk| {
        for i in grid.range(chunk) {
            let row = indices[i] as usize;
            // SAFETY: each row of `out` belongs to one chunk.
            let to = unsafe { out.part(i * width..(i + 1) * width) };
            to.copy_from_slice(&table[row * width..(row + 1) * width]);
        }
    });
    Ok(())
}

/// Row `v` of `y` is the sum of the rows of `x` whose index is `v`, added in f32 in the order of
/// `x`.
#[derive(Debug)]
pub struct ScatterAdd<'a> {
    /// Rows of `y`.
    pub rows: usize,
    /// Elements of a row.
    pub width: usize,
    /// A row of `y` for each row of `x`, each at least 0 and below `rows`.
    pub indices: &'a [i32],
    /// `[indices, width]`.
    pub x: Src<'a>,
    /// `[rows, width]`.
    pub y: Dst<'a>,
    /// [`scatter_add_scratch_len`] elements.
    pub scratch: &'a mut [u32],
}

/// u32 elements of scratch of [`ScatterAdd`].
pub fn scatter_add_scratch_len(rows: usize, indices: usize) -> usize {
    rows + 1 + indices
}

impl ScatterAdd<'_> {
    /// Computes y.
    ///
    /// # Errors
    /// If a length differs from what the shape says.
    pub fn run(self, isa: Isa, pool: &Pool) -> Result<(), RowError> {
        let ScatterAdd { rows, width, indices, x, y, scratch } = self;
        check_len("x", indices.len() * width, x.len())?;
        check_len("y", rows * width, y.len())?;
        check_scratch(scatter_add_scratch_len(rows, indices.len()), scratch.len())?;
        if u32::try_from(indices.len()).is_err() {
            return Err(RowError::Shape { what: "indices", why: "more than 2^32 - 1" });
        }
        // A stable counting sort of the positions by index: `order[begin[v] .. begin[v + 1]]`
        // belong to row v.
        let (begin, order) = scratch.split_at_mut(rows + 1);
        begin.fill(0);
        for &i in indices {
            begin[i as usize] += 1;
        }
        let mut sum = 0;
        for b in begin.iter_mut() {
            (sum, *b) = (sum + *b, sum);
        }
        for (position, &i) in indices.iter().enumerate() {
            let next = &mut begin[i as usize];
            order[*next as usize] = position as u32;
            *next += 1;
        }
        // Each begin has moved to its end, which is the next one's begin.
        let (ends, order) = (&*begin, &*order);
        let y = SharedDst::new(y);
        let grid = Grid::rows(rows, width, 8 * TILE);
        pool.for_each(grid.chunks(), &|_, chunk| {
            for row in grid.range(chunk) {
                let first = if row == 0 { 0 } else { ends[row - 1] as usize };
                let positions = &order[first..ends[row] as usize];
                // SAFETY: each row of `y` belongs to one chunk.
                let mut to = unsafe { y.part(row * width..(row + 1) * width) };
                if positions.is_empty() {
                    to.zero(0..width);
                } else {
                    dispatch(isa, SumRows { width, positions, x: &x, to });
                }
            }
        });
        Ok(())
    }
}

struct SumRows<'a> {
    width: usize,
    positions: &'a [u32],
    x: &'a Src<'a>,
    to: Dst<'a>,
}

impl Body for SumRows<'_> {
    type Output = ();
    #[inline(always)]
    fn run<C: Caps>(mut self) {
        let mut buffers = [[0.0; TILE]; 2];
        let [sums, buffer] = &mut buffers;
        for tile in tiles(self.width, TILE) {
            let sums = &mut sums[..tile.len()];
            sums.fill(0.0);
            for &position in self.positions {
                let at = position as usize * self.width;
                for (sum, &x) in sums.iter_mut().zip(self.x.view::<C>(at + tile.start..at + tile.end, buffer))
                {
                    *sum += x;
                }
            }
            self.to.store::<C>(tile.start, sums);
        }
    }
}
