//! Batch normalisation: y = (x − mean)·rstd·γ + β with each column's mean and biased variance, and
//! its derivative. With x̂ = (x − mean)·rstd: dβ = Σ dy, dγ = Σ dy·x̂, dx = γ·rstd·(dy − dβ/rows −
//! x̂·dγ/rows).

use super::{check_block, check_columns, repeat, view_or_ones};
use crate::gemm::BlockEpilogue;
use crate::isa::Isa;
use crate::pool::Pool;
use crate::rows::elementwise::{BLOCK, Chain};
use crate::rows::grid::tiles;
use crate::rows::reduce::{ROW_GROUP, column_scratch_len, combine, partial_sums};
use crate::rows::storage::{Dst, Src, TILE, rows_together};
use crate::rows::{
    Body, Caps, Grid, RowError, SharedDst, SharedSlice, check_len, check_scratch, dispatch, fma,
};

/// Means of the columns, or of their squared deviations.
#[derive(Debug)]
pub struct BatchNormMoment<'a> {
    /// Number of rows.
    pub rows: usize,
    /// Number of columns.
    pub cols: usize,
    /// `[rows, cols]`.
    pub x: Src<'a>,
    /// `[cols]`: what deviations are from; absent, the mean of the column itself is taken.
    pub about: Option<&'a [f32]>,
    /// `[cols]`.
    pub to: &'a mut [f32],
    /// [`column_scratch_len`] elements for one sum.
    pub scratch: &'a mut [f32],
}

impl BatchNormMoment<'_> {
    /// Computes the means.
    ///
    /// # Errors
    /// If a length differs from what the shape says.
    pub fn run(self, isa: Isa, pool: &Pool) -> Result<(), RowError> {
        let BatchNormMoment { rows, cols, x, about, to, scratch } = self;
        check_len("x", rows * cols, x.len())?;
        check_len("to", cols, to.len())?;
        check_len("about", cols, about.map_or(cols, <[f32]>::len))?;
        check_scratch(column_scratch_len(rows, cols, 1), scratch.len())?;
        partial_sums(isa, pool, rows, cols, &x, about, scratch);
        let to = [Some(SharedDst::new(Dst::F32(to)))];
        combine(isa, pool, rows, cols, 1, scratch, &to, 1.0 / rows as f64);
        Ok(())
    }
}

fn reciprocal_deviation(var: f32, eps: f32) -> f32 {
    (1.0 / (f64::from(var) + f64::from(eps)).sqrt()) as f32
}

/// y, with given statistics: those of x, or of a larger batch.
#[derive(Debug)]
pub struct BatchNormApply<'a> {
    /// Number of rows.
    pub rows: usize,
    /// Number of columns.
    pub cols: usize,
    /// Added to the variance.
    pub eps: f32,
    /// `[rows, cols]`.
    pub x: Src<'a>,
    /// `[cols]`; 1 where absent.
    pub gamma: Option<Src<'a>>,
    /// `[cols]`; 0 where absent.
    pub beta: Option<Src<'a>>,
    /// `[cols]`.
    pub mean: &'a [f32],
    /// `[cols]`.
    pub var: &'a [f32],
    /// `[rows, cols]`.
    pub y: Dst<'a>,
    /// `[cols]`: 1/√(var + eps).
    pub rstd: &'a mut [f32],
}

impl BatchNormApply<'_> {
    /// Computes y and rstd. A `chain` is given y, some rows at a time, and `y` itself is left
    /// alone.
    ///
    /// # Errors
    /// If a length differs from what the shape says, or a row is longer than a chain's [`BLOCK`].
    pub fn run(self, isa: Isa, pool: &Pool, chain: Option<&Chain<'_>>) -> Result<(), RowError> {
        let BatchNormApply { rows, cols, eps, x, gamma, beta, mean, var, y, rstd } = self;
        check_len("x", rows * cols, x.len())?;
        check_len("y", rows * cols, chain.map_or(y.len(), BlockEpilogue::len))?;
        check_len("mean", cols, mean.len())?;
        check_len("var", cols, var.len())?;
        check_len("rstd", cols, rstd.len())?;
        check_columns(cols, &[("gamma", gamma.map(|g| g.len())), ("beta", beta.map(|b| b.len()))])?;
        check_block(chain, cols)?;
        for (r, &v) in rstd.iter_mut().zip(var) {
            *r = reciprocal_deviation(v, eps);
        }
        let (y, rstd) = (SharedDst::new(y), &*rstd);
        let columns = Columns { cols, x, gamma, beta, mean, rstd };
        let grid = Grid::rows(x.len() / cols.max(1), cols, 16 * TILE);
        pool.for_each(grid.chunks(), &|_, chunk| {
            let range = grid.range(chunk);
            let Some(chain) = chain else {
                let elements = range.start * cols..range.end * cols;
                // SAFETY: chunks of rows are disjoint.
                let to = unsafe { y.part(elements.clone()) };
                dispatch(isa, Apply { columns: Columns { x: x.slice(elements), ..columns }, to });
                return;
            };
            let mut block = [0.0; BLOCK];
            let block_rows = BLOCK / cols.max(1);
            for first in range.clone().step_by(block_rows) {
                let elements = first * cols..(first + block_rows).min(range.end) * cols;
                let y = &mut block[..elements.len()];
                let columns = Columns { x: x.slice(elements.clone()), ..columns };
                dispatch(isa, Apply { columns, to: Dst::F32(&mut *y) });
                // SAFETY: blocks of rows are disjoint.
                unsafe { chain.apply(y, 1, elements.len(), &|_| elements.start) };
            }
        });
        Ok(())
    }
}

/// A tensor and what is done to each of its columns.
#[derive(Clone, Copy)]
struct Columns<'a> {
    cols: usize,
    x: Src<'a>,
    gamma: Option<Src<'a>>,
    beta: Option<Src<'a>>,
    mean: &'a [f32],
    rstd: &'a [f32],
}

struct Apply<'a> {
    columns: Columns<'a>,
    to: Dst<'a>,
}

impl Body for Apply<'_> {
    type Output = ();
    #[inline(always)]
    fn run<C: Caps>(mut self) {
        let Columns { cols, x, gamma, beta, mean, rstd } = self.columns;
        let rows = x.len() / cols;
        let mut buffers = [[0.0; TILE]; 3];
        let [x_buffer, vector, y_buffer] = &mut buffers;
        let [mut means, mut factors, mut betas] = [[0.0; TILE]; 3];
        for tile in tiles(cols, TILE) {
            // y = (x − mean)·(rstd·γ) + β.
            let n = tile.len();
            let together = rows_together(cols, tile.len());
            let gamma = view_or_ones::<C>(&gamma, tile.clone(), vector);
            for ((f, &g), &r) in factors.iter_mut().zip(gamma).zip(&rstd[tile.clone()]) {
                *f = g * r;
            }
            match &beta {
                Some(b) => betas[..n].copy_from_slice(b.view::<C>(tile.clone(), vector)),
                None => betas[..n].fill(0.0),
            }
            means[..n].copy_from_slice(&mean[tile.clone()]);
            let [means, factors, betas] =
                [&mut means, &mut factors, &mut betas].map(|values| repeat(values, n, together));
            for row in (0..rows).step_by(together) {
                let last = (row + together).min(rows) - 1;
                let range = row * cols + tile.start..last * cols + tile.end;
                let xs = x.view::<C>(range.clone(), x_buffer);
                self.to.write::<C>(range, y_buffer, |ys| {
                    for ((((y, &x), &m), &f), &b) in ys.iter_mut().zip(xs).zip(means).zip(factors).zip(betas)
                    {
                        *y = fma::<C>(x - m, f, b);
                    }
                });
            }
        }
    }
}

/// dβ = Σ dy and dγ = Σ dy·x̂.
#[derive(Debug)]
pub struct BatchNormSums<'a> {
    /// Number of rows.
    pub rows: usize,
    /// Number of columns.
    pub cols: usize,
    /// The forward operand, `[rows, cols]`.
    pub x: Src<'a>,
    /// `[cols]`.
    pub mean: &'a [f32],
    /// `[cols]`.
    pub rstd: &'a [f32],
    /// `[rows, cols]`.
    pub dy: Src<'a>,
    /// `[cols]`.
    pub dgamma: &'a mut [f32],
    /// `[cols]`.
    pub dbeta: &'a mut [f32],
    /// [`column_scratch_len`] elements for two sums.
    pub scratch: &'a mut [f32],
}

impl BatchNormSums<'_> {
    /// Computes dγ and dβ.
    ///
    /// # Errors
    /// If a length differs from what the shape says.
    pub fn run(self, isa: Isa, pool: &Pool) -> Result<(), RowError> {
        let BatchNormSums { rows, cols, x, mean, rstd, dy, dgamma, dbeta, scratch } = self;
        check_len("x", rows * cols, x.len())?;
        check_len("dy", rows * cols, dy.len())?;
        for (what, vector) in [("mean", mean), ("rstd", rstd), ("dgamma", &*dgamma), ("dbeta", &*dbeta)] {
            check_len(what, cols, vector.len())?;
        }
        check_scratch(column_scratch_len(rows, cols, 2), scratch.len())?;
        let groups = rows.div_ceil(ROW_GROUP);
        let shared = SharedSlice::new(scratch);
        let grid = Grid::rows(groups, ROW_GROUP * cols, 16 * TILE);
        pool.for_each(grid.chunks(), &|_, chunk| {
            for group in grid.range(chunk) {
                let range = group * ROW_GROUP..(group * ROW_GROUP + ROW_GROUP).min(rows);
                let elements = range.start * cols..range.end * cols;
                // SAFETY: each group belongs to one chunk.
                let partial = unsafe { shared.part(group * 2 * cols..(group + 1) * 2 * cols) };
                let (x, dy) = (x.slice(elements.clone()), dy.slice(elements));
                dispatch(isa, BatchSums { cols, x, dy, mean, rstd, partial });
            }
        });
        let results = [dgamma, dbeta].map(|s| Some(SharedDst::new(Dst::F32(s))));
        combine(isa, pool, rows, cols, 2, scratch, &results, 1.0);
        Ok(())
    }
}

/// dx, from sums over `rows` rows, which may be more than there are here.
#[derive(Debug)]
pub struct BatchNormDx<'a> {
    /// Rows that dγ and dβ were summed over.
    pub rows: usize,
    /// Number of columns.
    pub cols: usize,
    /// The forward operand, `[rows here, cols]`.
    pub x: Src<'a>,
    /// `[cols]`; 1 where absent.
    pub gamma: Option<Src<'a>>,
    /// `[cols]`.
    pub mean: &'a [f32],
    /// `[cols]`.
    pub rstd: &'a [f32],
    /// `[rows here, cols]`.
    pub dy: Src<'a>,
    /// `[cols]`.
    pub dgamma: &'a [f32],
    /// `[cols]`.
    pub dbeta: &'a [f32],
    /// `[rows here, cols]`.
    pub dx: Dst<'a>,
}

impl BatchNormDx<'_> {
    /// Computes dx.
    ///
    /// # Errors
    /// If a length differs from what the shape says.
    pub fn run(self, isa: Isa, pool: &Pool) -> Result<(), RowError> {
        let BatchNormDx { cols, x, gamma, mean, rstd, dy, dgamma, dbeta, .. } = self;
        check_len("dy", x.len(), dy.len())?;
        check_len("dx", x.len(), self.dx.len())?;
        for (what, vector) in [("mean", mean), ("rstd", rstd), ("dgamma", dgamma), ("dbeta", dbeta)] {
            check_len(what, cols, vector.len())?;
        }
        check_columns(cols, &[("gamma", gamma.map(|g| g.len()))])?;
        let dx = SharedDst::new(self.dx);
        let grid = Grid::rows(x.len() / cols.max(1), cols, 16 * TILE);
        pool.for_each(grid.chunks(), &|_, chunk| {
            let range = grid.range(chunk);
            let elements = range.start * cols..range.end * cols;
            // SAFETY: chunks of rows are disjoint.
            let dx = unsafe { dx.part(elements.clone()) };
            let (x, dy) = (x.slice(elements.clone()), dy.slice(elements));
            dispatch(isa, BatchNormDx { x, dy, dx, ..self });
        });
        Ok(())
    }
}

struct BatchSums<'a> {
    cols: usize,
    x: Src<'a>,
    dy: Src<'a>,
    mean: &'a [f32],
    rstd: &'a [f32],
    partial: &'a mut [f32],
}

impl Body for BatchSums<'_> {
    type Output = ();
    #[inline(always)]
    fn run<C: Caps>(self) {
        let cols = self.cols;
        self.partial.fill(0.0);
        let (dgamma, dbeta) = self.partial.split_at_mut(cols);
        let mut buffers = [[0.0; TILE]; 2];
        let [x_buffer, y_buffer] = &mut buffers;
        for tile in tiles(cols, TILE) {
            let (mean, rstd) = (&self.mean[tile.clone()], &self.rstd[tile.clone()]);
            let (dgamma, dbeta) = (&mut dgamma[tile.clone()], &mut dbeta[tile.clone()]);
            let (rows, together) = (self.x.len() / cols, rows_together(cols, tile.len()));
            for row in (0..rows).step_by(together) {
                let last = (row + together).min(rows) - 1;
                let range = row * cols + tile.start..last * cols + tile.end;
                let xs = self.x.view::<C>(range.clone(), x_buffer);
                let dys = self.dy.view::<C>(range, y_buffer);
                for (xs, dys) in xs.chunks_exact(tile.len()).zip(dys.chunks_exact(tile.len())) {
                    let sums = dgamma.iter_mut().zip(dbeta.iter_mut());
                    for (((((dg, db), &x), &dy), &m), &r) in sums.zip(xs).zip(dys).zip(mean).zip(rstd) {
                        *dg = fma::<C>(dy, (x - m) * r, *dg);
                        *db += dy;
                    }
                }
            }
        }
    }
}

/// Of whole rows, as many as there are in x.
impl Body for BatchNormDx<'_> {
    type Output = ();
    #[inline(always)]
    fn run<C: Caps>(mut self) {
        let cols = self.cols;
        let scale = 1.0 / self.rows as f32;
        let mut buffers = [[0.0; TILE]; 4];
        let [x_buffer, y_buffer, g_buffer, d_buffer] = &mut buffers;
        let rows = self.x.len() / cols;
        let [mut a, mut b, mut c, mut means] = [[0.0; TILE]; 4];
        for tile in tiles(cols, TILE) {
            // dx = a·dy − b·(x − mean) − c, each factor a column's.
            let gammas = view_or_ones::<C>(&self.gamma, tile.clone(), g_buffer);
            for (i, &gamma) in gammas.iter().enumerate() {
                let (r, column) = (self.rstd[tile.start + i], tile.start + i);
                a[i] = gamma * r;
                b[i] = a[i] * r * (self.dgamma[column] * scale);
                c[i] = a[i] * (self.dbeta[column] * scale);
            }
            means[..tile.len()].copy_from_slice(&self.mean[tile.clone()]);
            let together = rows_together(cols, tile.len());
            let [a, b, c, means] =
                [&mut a, &mut b, &mut c, &mut means].map(|values| repeat(values, tile.len(), together));
            for row in (0..rows).step_by(together) {
                let last = (row + together).min(rows) - 1;
                let range = row * cols + tile.start..last * cols + tile.end;
                let n = range.len();
                let xs = self.x.view::<C>(range.clone(), x_buffer);
                let dys = self.dy.view::<C>(range.clone(), y_buffer);
                self.dx.write::<C>(range, d_buffer, |dx| {
                    let (xs, dys, dx) = (&xs[..n], &dys[..n], &mut dx[..n]);
                    let (a, b, c, means) = (&a[..n], &b[..n], &c[..n], &means[..n]);
                    for i in 0..n {
                        dx[i] = fma::<C>(a[i], dys[i], -fma::<C>(b[i], xs[i] - means[i], c[i]));
                    }
                });
            }
        }
    }
}
