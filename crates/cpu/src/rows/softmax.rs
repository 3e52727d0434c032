//! Softmax over the last dimension.

use super::grid::tiles;
use super::math::exp_normal;
use super::storage::{Dst, Src, TILE};
use super::sum::{max, sum_by};
use super::{Body, Caps, Grid, RowError, SharedDst, check_len, dispatch};
use crate::isa::Isa;
use crate::pool::Pool;

/// y = exp(x − max x) / Σ exp(x − max x) by rows. Where x is more than 87 below the maximum, y
/// is 0.
#[derive(Debug)]
pub struct Softmax<'a> {
    /// Number of rows.
    pub rows: usize,
    /// Elements of a row.
    pub cols: usize,
    /// `[rows, cols]`.
    pub x: Src<'a>,
    /// `[rows, cols]`.
    pub y: Dst<'a>,
}

impl Softmax<'_> {
    /// Computes y.
    ///
    /// # Errors
    /// If a length differs from what the shape says.
    pub fn run(self, isa: Isa, pool: &Pool) -> Result<(), RowError> {
        let Softmax { rows, cols, x, .. } = self;
        check_len("x", rows * cols, x.len())?;
        check_len("y", rows * cols, self.y.len())?;
        let y = SharedDst::new(self.y);
        let grid = Grid::rows(rows, cols, 8 * TILE);
        pool.for_each(grid.chunks(), &|_, chunk| {
            let range = grid.range(chunk);
            let elements = range.start * cols..range.end * cols;
            // SAFETY: chunks of rows are disjoint.
            let y = unsafe { y.part(elements.clone()) };
            dispatch(isa, Softmax { x: x.slice(elements), y, ..self });
        });
        Ok(())
    }
}

/// Of whole rows, as many as there are in x.
impl Body for Softmax<'_> {
    type Output = ();
    #[inline(always)]
    fn run<C: Caps>(mut self) {
        let cols = self.cols;
        let mut buffers = [[0.0; TILE]; 2];
        let [x_buffer, y_buffer] = &mut buffers;
        for row in 0..self.x.len().checked_div(cols).unwrap_or(0) {
            let at = row * cols;
            let (largest, sum) = row_max_and_sum::<C>(&self.x.slice(at..at + cols), x_buffer);
            let scale = (1.0 / sum) as f32;
            for tile in tiles(cols, TILE) {
                let range = at + tile.start..at + tile.end;
                let xs = self.x.view::<C>(range.clone(), x_buffer);
                self.y.write::<C>(range, y_buffer, |ys| {
                    for (y, &x) in ys.iter_mut().zip(xs) {
                        *y = exp_normal::<C>(x - largest) * scale;
                    }
                });
            }
        }
    }
}

/// The largest element of a row and Σ exp(x − largest).
///
/// NaN if an element is NaN or +∞, or all are −∞.
#[inline(always)]
pub(crate) fn row_max_and_sum<C: Caps>(x: &Src<'_>, buffer: &mut [f32; TILE]) -> (f32, f64) {
    let mut largest = f32::NEG_INFINITY;
    for tile in tiles(x.len(), TILE) {
        largest = super::sum::larger(largest, max(x.view::<C>(tile, buffer)));
    }
    let mut sum = 0.0f64;
    let mut powers = [0.0; TILE];
    for tile in tiles(x.len(), TILE) {
        let powers = &mut powers[..tile.len()];
        for (p, &x) in powers.iter_mut().zip(x.view::<C>(tile, buffer)) {
            *p = exp_normal::<C>(x - largest);
        }
        sum += f64::from(sum_by(powers, |p| p));
    }
    (largest, sum)
}
