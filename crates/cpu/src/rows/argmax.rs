//! The position of the largest element of each row.

use super::grid::tiles;
use super::storage::{Src, TILE};
use super::sum::max;
use super::{Body, Caps, Grid, RowError, SharedSlice, check_len, dispatch};
use crate::isa::Isa;
use crate::pool::Pool;

/// Position of the first largest element of each row; NaN counts as largest, as in torch.
#[derive(Debug)]
pub struct ArgMax<'a> {
    /// Number of rows.
    pub rows: usize,
    /// Elements of a row, at least 1.
    pub cols: usize,
    /// `[rows, cols]`.
    pub x: Src<'a>,
    /// `[rows]`.
    pub y: &'a mut [i32],
}

impl ArgMax<'_> {
    /// Computes the positions.
    ///
    /// # Errors
    /// If a length differs from what the shape says, or rows are empty or longer than an i32
    /// counts.
    pub fn run(self, isa: Isa, pool: &Pool) -> Result<(), RowError> {
        let ArgMax { rows, cols, x, .. } = self;
        check_len("x", rows * cols, x.len())?;
        check_len("y", rows, self.y.len())?;
        if i32::try_from(cols).is_err() || cols == 0 {
            return Err(RowError::Shape { what: "cols", why: "rows must have 1 to 2^31 - 1 elements" });
        }
        let y = SharedSlice::new(self.y);
        let grid = Grid::rows(rows, cols, 16 * TILE);
        pool.for_each(grid.chunks(), &|_, chunk| {
            let range = grid.range(chunk);
            // SAFETY: chunks are disjoint.
            let y = unsafe { y.part(range.clone()) };
            dispatch(isa, ArgMax { x: x.slice(range.start * cols..range.end * cols), y, ..self });
        });
        Ok(())
    }
}

/// Of whole rows, as many as there are in y.
impl Body for ArgMax<'_> {
    type Output = ();
    #[inline(always)]
    fn run<C: Caps>(self) {
        let mut buffer = [0.0; TILE];
        for (row, to) in self.y.iter_mut().enumerate() {
            let (mut best, mut position) = (f32::NEG_INFINITY, 0);
            for tile in tiles(self.cols, TILE) {
                let start = row * self.cols + tile.start;
                let xs = self.x.view::<C>(start..start + tile.len(), &mut buffer);
                let largest = max(xs);
                if best.is_nan() || !(largest > best || largest.is_nan()) {
                    continue;
                }
                best = largest;
                let found = xs.iter().position(|&x| x == largest || (largest.is_nan() && x.is_nan()));
                position = tile.start + found.unwrap_or(0);
            }
            *to = position as i32;
        }
    }
}
