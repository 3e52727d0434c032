//! Cross-entropy by rows, forward and backward.

use super::grid::tiles;
use super::math::exp_normal;
use super::softmax::row_max_and_sum;
use super::storage::{Dst, Src, TILE};
use super::{Body, Caps, Grid, RowError, SharedDst, SharedSlice, check_len, dispatch};
use crate::isa::Isa;
use crate::pool::Pool;

/// loss = lse − logits\[target\] with lse = log Σ exp(logits), by rows.
#[derive(Debug)]
pub struct CrossEntropy<'a> {
    /// Number of rows.
    pub rows: usize,
    /// Number of classes.
    pub cols: usize,
    /// `[rows, cols]`.
    pub logits: Src<'a>,
    /// `[rows]`, each at least 0 and below `cols`.
    pub targets: &'a [i32],
    /// `[rows]`.
    pub loss: &'a mut [f32],
    /// `[rows]`.
    pub lse: &'a mut [f32],
}

impl CrossEntropy<'_> {
    /// Computes the losses.
    ///
    /// # Errors
    /// If a length differs from what the shape says.
    pub fn run(self, isa: Isa, pool: &Pool) -> Result<(), RowError> {
        let CrossEntropy { rows, cols, logits, targets, .. } = self;
        check_len("logits", rows * cols, logits.len())?;
        check_len("loss", rows, self.loss.len())?;
        check_len("lse", rows, self.lse.len())?;
        check_len("targets", rows, targets.len())?;
        let (loss, lse) = (SharedSlice::new(self.loss), SharedSlice::new(self.lse));
        let grid = Grid::rows(rows, cols, 8 * TILE);
        pool.for_each(grid.chunks(), &|_, chunk| {
            let range = grid.range(chunk);
            // SAFETY: chunks of rows are disjoint.
            let (loss, lse) = unsafe { (loss.part(range.clone()), lse.part(range.clone())) };
            let logits = logits.slice(range.start * cols..range.end * cols);
            dispatch(isa, CrossEntropy { logits, targets: &targets[range], loss, lse, ..self });
        });
        Ok(())
    }
}

/// Of whole rows, as many as there are targets.
impl Body for CrossEntropy<'_> {
    type Output = ();
    #[inline(always)]
    fn run<C: Caps>(self) {
        let cols = self.cols;
        let mut buffer = [0.0; TILE];
        let results = self.loss.iter_mut().zip(self.lse);
        for (row, ((loss, lse), &target)) in results.zip(self.targets).enumerate() {
            let logits = self.logits.slice(row * cols..(row + 1) * cols);
            let (largest, sum) = row_max_and_sum::<C>(&logits, &mut buffer);
            // The difference is taken before the largest is added, so that a certain row keeps its
            // small loss.
            let log_sum = sum.ln();
            *lse = (f64::from(largest) + log_sum) as f32;
            *loss = (f64::from(largest) - f64::from(logits.get(target as usize)) + log_sum) as f32;
        }
    }
}

/// The derivative of [`CrossEntropy`]: dlogits = (exp(logits − lse) − onehot(target))·dloss.
#[derive(Debug)]
pub struct CrossEntropyBackward<'a> {
    /// Number of rows.
    pub rows: usize,
    /// Number of classes.
    pub cols: usize,
    /// `[rows, cols]`; where absent, dlogits holds them and they are overwritten.
    pub logits: Option<Src<'a>>,
    /// `[rows]`, each at least 0 and below `cols`.
    pub targets: &'a [i32],
    /// `[rows]`, from the forward pass.
    pub lse: &'a [f32],
    /// `[rows]`, or one number for all rows.
    pub dloss: Src<'a>,
    /// `[rows, cols]`.
    pub dlogits: Dst<'a>,
}

impl CrossEntropyBackward<'_> {
    /// Computes dlogits.
    ///
    /// # Errors
    /// If a length differs from what the shape says.
    pub fn run(self, isa: Isa, pool: &Pool) -> Result<(), RowError> {
        let CrossEntropyBackward { rows, cols, logits, targets, lse, dloss, dlogits } = self;
        check_len("logits", rows * cols, logits.map_or(rows * cols, |l| l.len()))?;
        check_len("dlogits", rows * cols, dlogits.len())?;
        check_len("lse", rows, lse.len())?;
        check_len("targets", rows, targets.len())?;
        if dloss.len() != 1 {
            check_len("dloss", rows, dloss.len())?;
        }
        let dlogits = SharedDst::new(dlogits);
        let grid = Grid::rows(rows, cols, 8 * TILE);
        pool.for_each(grid.chunks(), &|_, chunk| {
            for row in grid.range(chunk) {
                let elements = row * cols..(row + 1) * cols;
                // SAFETY: each row belongs to one chunk.
                let dlogits = unsafe { dlogits.part(elements.clone()) };
                let logits = logits.map(|l| l.slice(elements));
                let (target, lse) = (targets[row] as usize, lse[row]);
                let scale = dloss.get(if dloss.len() == 1 { 0 } else { row });
                dispatch(isa, BackwardRow { logits, target, lse, scale, dlogits });
            }
        });
        Ok(())
    }
}

struct BackwardRow<'a> {
    logits: Option<Src<'a>>,
    target: usize,
    lse: f32,
    scale: f32,
    dlogits: Dst<'a>,
}

impl Body for BackwardRow<'_> {
    type Output = ();
    #[inline(always)]
    fn run<C: Caps>(mut self) {
        let mut values = [0.0; TILE];
        for tile in tiles(self.dlogits.len(), TILE) {
            let values = &mut values[..tile.len()];
            match &self.logits {
                Some(logits) => logits.load::<C>(tile.start, values),
                None => self.dlogits.as_src().load::<C>(tile.start, values),
            }
            for v in values.iter_mut() {
                *v = exp_normal::<C>(*v - self.lse);
            }
            if let Some(v) = self.target.checked_sub(tile.start).and_then(|i| values.get_mut(i)) {
                *v -= 1.0;
            }
            for v in values.iter_mut() {
                *v *= self.scale;
            }
            self.dlogits.store::<C>(tile.start, values);
        }
    }
}
