//! Layer normalisation.

use std::mem::MaybeUninit;

use super::{check_block, check_columns, view_or_ones};
use crate::gemm::BlockEpilogue;
use crate::isa::Isa;
use crate::pool::Pool;
use crate::rows::elementwise::{BLOCK, Chain};
use crate::rows::grid::tiles;
use crate::rows::reduce::{ROW_GROUP, column_scratch_len, combine};
use crate::rows::storage::{Dst, Src, TILE};
use crate::rows::sum::{LANES, fold, sum_by};
use crate::rows::{
    Body, Caps, Grid, RowError, SharedDst, SharedSlice, check_len, check_scratch, dispatch, fma,
};

/// y = (x − mean)·rstd·γ + β by rows, with rstd = 1/√(variance + eps).
#[derive(Debug)]
pub struct LayerNorm<'a> {
    /// Number of rows.
    pub rows: usize,
    /// Elements of a row.
    pub cols: usize,
    /// Added to the variance.
    pub eps: f32,
    /// `[rows, cols]`.
    pub x: Src<'a>,
    /// `[cols]`; 1 where absent.
    pub gamma: Option<Src<'a>>,
    /// `[cols]`; 0 where absent.
    pub beta: Option<Src<'a>>,
    /// `[rows, cols]`.
    pub y: Dst<'a>,
    /// `[rows]`.
    pub mean: &'a mut [f32],
    /// `[rows]`.
    pub rstd: &'a mut [f32],
}

impl LayerNorm<'_> {
    /// Computes y, mean and rstd.
    ///
    /// # Errors
    /// If a length differs from what the shape says.
    pub fn run(self, isa: Isa, pool: &Pool) -> Result<(), RowError> {
        let LayerNorm { rows, cols, x, gamma, beta, .. } = self;
        check_len("x", rows * cols, x.len())?;
        check_len("y", rows * cols, self.y.len())?;
        check_len("mean", rows, self.mean.len())?;
        check_len("rstd", rows, self.rstd.len())?;
        check_columns(cols, &[("gamma", gamma.map(|g| g.len())), ("beta", beta.map(|b| b.len()))])?;
        let y = SharedDst::new(self.y);
        let (mean, rstd) = (SharedSlice::new(self.mean), SharedSlice::new(self.rstd));
        let grid = Grid::rows(rows, cols, 8 * TILE);
        pool.for_each(grid.chunks(), &|_, chunk| {
            let range = grid.range(chunk);
            let elements = range.start * cols..range.end * cols;
            // SAFETY: chunks of rows are disjoint.
            let (y, mean, rstd) =
                unsafe { (y.part(elements.clone()), mean.part(range.clone()), rstd.part(range)) };
            dispatch(isa, LayerNorm { x: x.slice(elements), y, mean, rstd, ..self });
        });
        Ok(())
    }
}

/// Of whole rows, as many as there are in mean.
impl Body for LayerNorm<'_> {
    type Output = ();
    #[inline(always)]
    fn run<C: Caps>(mut self) {
        let cols = self.cols;
        let mut buffers = [[0.0; TILE]; 3];
        let [x_buffer, g_buffer, b_buffer] = &mut buffers;
        let mut y_buffer = [0.0; TILE];
        for (row, (mean, rstd)) in self.mean.iter_mut().zip(self.rstd.iter_mut()).enumerate() {
            let at = row * cols;
            let mut sum = 0.0f64;
            for tile in tiles(cols, TILE) {
                let xs = self.x.view::<C>(at + tile.start..at + tile.end, x_buffer);
                sum += f64::from(sum_by(xs, |x| x));
            }
            let m = (sum / cols as f64) as f32;
            let mut sum = 0.0f64;
            for tile in tiles(cols, TILE) {
                let xs = self.x.view::<C>(at + tile.start..at + tile.end, x_buffer);
                sum += f64::from(sum_by(xs, |x| (x - m) * (x - m)));
            }
            let r = (1.0 / (sum / cols as f64 + f64::from(self.eps)).sqrt()) as f32;
            (*mean, *rstd) = (m, r);
            for tile in tiles(cols, TILE) {
                let range = at + tile.start..at + tile.end;
                let xs = self.x.view::<C>(range.clone(), x_buffer);
                let gamma = self.gamma.as_ref().map(|g| g.view::<C>(tile.clone(), g_buffer));
                let beta = self.beta.as_ref().map(|b| b.view::<C>(tile, b_buffer));
                self.y.write::<C>(range, &mut y_buffer, |ys| scale_rows::<C>(xs, m, r, gamma, beta, ys));
            }
        }
    }
}

/// y = (x − m)·r·γ + β.
#[inline(always)]
fn scale_rows<C: Caps>(
    xs: &[f32],
    m: f32,
    r: f32,
    gamma: Option<&[f32]>,
    beta: Option<&[f32]>,
    ys: &mut [f32],
) {
    match (gamma, beta) {
        (Some(gamma), Some(beta)) => {
            for (((y, &x), &g), &b) in ys.iter_mut().zip(xs).zip(gamma).zip(beta) {
                *y = fma::<C>((x - m) * r, g, b);
            }
        }
        (Some(gamma), None) => {
            for ((y, &x), &g) in ys.iter_mut().zip(xs).zip(gamma) {
                *y = (x - m) * r * g;
            }
        }
        (None, Some(beta)) => {
            for ((y, &x), &b) in ys.iter_mut().zip(xs).zip(beta) {
                *y = fma::<C>(x - m, r, b);
            }
        }
        (None, None) => {
            for (y, &x) in ys.iter_mut().zip(xs) {
                *y = (x - m) * r;
            }
        }
    }
}

/// The derivative of [`LayerNorm`].
///
/// With x̂ = (x − mean)·rstd and g = dy·γ: dx = rstd·(g − mean(g) − x̂·mean(g·x̂)), dγ = Σ dy·x̂,
/// dβ = Σ dy.
#[derive(Debug)]
pub struct LayerNormBackward<'a> {
    /// Number of rows.
    pub rows: usize,
    /// Elements of a row.
    pub cols: usize,
    /// The forward operand, `[rows, cols]`.
    pub x: Src<'a>,
    /// `[cols]`; 1 where absent.
    pub gamma: Option<Src<'a>>,
    /// `[rows]`.
    pub mean: &'a [f32],
    /// `[rows]`.
    pub rstd: &'a [f32],
    /// `[rows, cols]`.
    pub dy: Src<'a>,
    /// `[rows, cols]`.
    pub dx: Dst<'a>,
    /// `[cols]`.
    pub dgamma: Option<Dst<'a>>,
    /// `[cols]`.
    pub dbeta: Option<Dst<'a>>,
    /// [`layer_norm_backward_scratch_len`] elements.
    pub scratch: &'a mut [f32],
}

/// f32 elements of scratch of [`LayerNormBackward`].
pub fn layer_norm_backward_scratch_len(rows: usize, cols: usize) -> usize {
    column_scratch_len(rows, cols, 2)
}

impl LayerNormBackward<'_> {
    /// Computes dx, dγ and dβ. A `chain` is given dx, and `dx` itself is left alone.
    ///
    /// # Errors
    /// If a length differs from what the shape says, or a row is longer than a chain's [`BLOCK`].
    pub fn run(self, isa: Isa, pool: &Pool, chain: Option<&Chain<'_>>) -> Result<(), RowError> {
        let LayerNormBackward { rows, cols, x, gamma, mean, rstd, dy, dx, dgamma, dbeta, scratch } = self;
        check_len("x", rows * cols, x.len())?;
        check_len("dy", rows * cols, dy.len())?;
        check_len("dx", rows * cols, chain.map_or(dx.len(), BlockEpilogue::len))?;
        check_len("mean", rows, mean.len())?;
        check_len("rstd", rows, rstd.len())?;
        check_block(chain, cols)?;
        check_columns(
            cols,
            &[
                ("gamma", gamma.map(|g| g.len())),
                ("dgamma", dgamma.as_ref().map(|g| g.len())),
                ("dbeta", dbeta.as_ref().map(|b| b.len())),
            ],
        )?;
        check_scratch(layer_norm_backward_scratch_len(rows, cols), scratch.len())?;
        let dx = SharedDst::new(dx);
        let partials = SharedSlice::new(scratch);
        let groups = rows.div_ceil(ROW_GROUP);
        let grid = Grid::rows(groups, ROW_GROUP * cols, 8 * TILE);
        pool.for_each(grid.chunks(), &|_, chunk| {
            for group in grid.range(chunk) {
                let range = group * ROW_GROUP..(group * ROW_GROUP + ROW_GROUP).min(rows);
                let elements = range.start * cols..range.end * cols;
                // SAFETY: groups are disjoint, and each belongs to one chunk.
                let (dx, partial) = unsafe {
                    let dx = match chain {
                        None => Dx::Stored(dx.part(elements.clone())),
                        Some(chain) => Dx::Continued(chain, elements.start),
                    };
                    (dx, partials.part(group * 2 * cols..(group + 1) * 2 * cols))
                };
                dispatch(
                    isa,
                    BackwardRows {
                        cols,
                        x: x.slice(elements.clone()),
                        gamma,
                        mean: &mean[range.clone()],
                        rstd: &rstd[range],
                        dy: dy.slice(elements),
                        dx,
                        partial,
                    },
                );
            }
        });
        let results = [dgamma.map(SharedDst::new), dbeta.map(SharedDst::new)];
        combine(isa, pool, rows, cols, 2, scratch, &results, 1.0);
        Ok(())
    }
}

/// Where dx goes.
enum Dx<'a> {
    Stored(Dst<'a>),
    /// To a chain, some rows at a time; the second is the place of the first element in the whole.
    Continued(&'a Chain<'a>, usize),
}

struct BackwardRows<'a> {
    cols: usize,
    x: Src<'a>,
    gamma: Option<Src<'a>>,
    mean: &'a [f32],
    rstd: &'a [f32],
    dy: Src<'a>,
    dx: Dx<'a>,
    partial: &'a mut [f32],
}

impl Body for BackwardRows<'_> {
    type Output = ();
    #[inline(always)]
    fn run<C: Caps>(mut self) {
        let cols = self.cols;
        self.partial.fill(0.0);
        let (dgamma, dbeta) = self.partial.split_at_mut(cols);
        let mut buffers = [[0.0; TILE]; 4];
        let [x_buffer, y_buffer, g_buffer, d_buffer] = &mut buffers;
        let mut block = MaybeUninit::<[f32; BLOCK]>::uninit();
        let (block_rows, rows) = ((BLOCK / cols).max(1), self.mean.len());
        let block: &mut [f32] = match self.dx {
            Dx::Stored(_) => &mut [],
            Dx::Continued(..) => block.write([0.0; BLOCK]),
        };
        for (row, (&m, &r)) in self.mean.iter().zip(self.rstd).enumerate() {
            let at = row * cols;
            let (mut sum_g, mut sum_gx) = (0.0f64, 0.0f64);
            for tile in tiles(cols, TILE) {
                let range = at + tile.start..at + tile.end;
                let xs = self.x.view::<C>(range.clone(), x_buffer);
                let dys = self.dy.view::<C>(range, y_buffer);
                let gammas = view_or_ones::<C>(&self.gamma, tile.clone(), g_buffer);
                let (g, gx) =
                    row_sums::<C>(xs, dys, gammas, m, r, &mut dgamma[tile.clone()], &mut dbeta[tile]);
                sum_g += f64::from(g);
                sum_gx += f64::from(gx);
            }
            let mean_g = (sum_g / cols as f64) as f32;
            let mean_gx = (sum_gx / cols as f64) as f32;
            for tile in tiles(cols, TILE) {
                let range = at + tile.start..at + tile.end;
                let xs = self.x.view::<C>(range.clone(), x_buffer);
                let dys = self.dy.view::<C>(range.clone(), y_buffer);
                let gammas = view_or_ones::<C>(&self.gamma, tile.clone(), g_buffer);
                let fill = |dx: &mut [f32]| {
                    for (((d, &x), &dy), &gamma) in dx.iter_mut().zip(xs).zip(dys).zip(gammas) {
                        let normal = (x - m) * r;
                        *d = r * (fma::<C>(dy, gamma, -mean_g) - normal * mean_gx);
                    }
                };
                match &mut self.dx {
                    Dx::Stored(dx) => dx.write::<C>(range, d_buffer, fill),
                    Dx::Continued(..) => {
                        let start = row % block_rows * cols;
                        fill(&mut block[start + tile.start..start + tile.end]);
                    }
                }
            }
            let done = row % block_rows + 1;
            if let Dx::Continued(chain, first) = self.dx
                && (done == block_rows || row + 1 == rows)
            {
                let start = first + (row + 1 - done) * cols;
                // SAFETY: these rows belong to this group alone.
                unsafe { chain.apply(&block[..done * cols], 1, done * cols, &|_| start) };
            }
        }
    }
}

/// Σ g and Σ g·x̂ of a part of a row; adds dy·x̂ and dy to the column sums.
#[inline(always)]
fn row_sums<C: Caps>(
    xs: &[f32],
    dys: &[f32],
    gammas: &[f32],
    m: f32,
    r: f32,
    dgamma: &mut [f32],
    dbeta: &mut [f32],
) -> (f32, f32) {
    let n = xs.len();
    let (dys, gammas) = (&dys[..n], &gammas[..n]);
    let (dgamma, dbeta) = (&mut dgamma[..n], &mut dbeta[..n]);
    let (mut lanes_g, mut lanes_gx) = ([0.0; LANES], [0.0; LANES]);
    let mut start = 0;
    while start < n {
        let end = (start + LANES).min(n);
        let lane = |i: usize,
                    lanes_g: &mut [f32; LANES],
                    lanes_gx: &mut [f32; LANES],
                    l: usize,
                    dg: &mut f32,
                    db: &mut f32| {
            let normal = (xs[i] - m) * r;
            let g = dys[i] * gammas[i];
            lanes_g[l] += g;
            lanes_gx[l] = fma::<C>(g, normal, lanes_gx[l]);
            *dg = fma::<C>(dys[i], normal, *dg);
            *db += dys[i];
        };
        let columns = dgamma[start..end].iter_mut().zip(&mut dbeta[start..end]);
        for (l, (dg, db)) in columns.enumerate() {
            lane(start + l, &mut lanes_g, &mut lanes_gx, l, dg, db);
        }
        start = end;
    }
    (fold(lanes_g, |a, b| a + b), fold(lanes_gx, |a, b| a + b))
}
