//! Sums, means and maxima over axes, sums of squares, and sums by column.
//!
//! Sums are accumulated in f32 over short runs and in f64 across runs, in an order fixed by the
//! shape.

use std::ops::Range;

use halfstep_graph::ReduceKind;

use super::grid::{MAX_CHUNKS, tiles};
use super::storage::{Dst, Src, TILE, rows_together};
use super::sum::{larger, max_by, sum_by};
use super::{Body, Caps, Grid, RowError, SharedDst, SharedSlice, check_len, check_scratch, dispatch};
use crate::isa::Isa;
use crate::pool::Pool;

/// Rows summed into one partial result of a column sum.
pub(crate) const ROW_GROUP: usize = 32;
/// Most dimensions after neighbours are merged.
const MAX_RANK: usize = 8;

/// Reduces the listed axes of a tensor; they disappear from the result.
#[derive(Debug)]
pub struct Reduce<'a> {
    /// How elements combine. Max is NaN if an element is.
    pub kind: ReduceKind,
    /// Shape of `x`.
    pub shape: &'a [usize],
    /// Axes to reduce, ascending.
    pub axes: &'a [usize],
    /// The operand.
    pub x: Src<'a>,
    /// The result, rounded once.
    pub y: Dst<'a>,
    /// [`reduce_scratch_len`] elements.
    pub scratch: &'a mut [f32],
}

/// A shape as alternating groups of kept and reduced dimensions, sizes of 1 left out. The first
/// dimension stays where it is kept: a batch of one sample is summed in the order of a larger one.
struct Groups {
    rank: usize,
    size: [usize; MAX_RANK],
    reduced: [bool; MAX_RANK],
}

fn groups(shape: &[usize], axes: &[usize]) -> Result<Groups, RowError> {
    let wrong = |why| Err(RowError::Shape { what: "axes", why });
    if axes.iter().any(|&a| a >= shape.len()) {
        return wrong("an axis is not below the number of dimensions");
    }
    let mut g = Groups { rank: 0, size: [1; MAX_RANK], reduced: [false; MAX_RANK] };
    for (i, &size) in shape.iter().enumerate() {
        let reduced = axes.contains(&i);
        if size == 1 && (i > 0 || reduced) {
            continue;
        }
        if g.rank > 0 && g.reduced[g.rank - 1] == reduced {
            g.size[g.rank - 1] *= size;
        } else if g.rank == MAX_RANK {
            return wrong("more than eight alternating groups of dimensions");
        } else {
            (g.size[g.rank], g.reduced[g.rank]) = (size, reduced);
            g.rank += 1;
        }
    }
    Ok(g)
}

/// f32 elements of scratch that a reduction needs.
pub fn reduce_scratch_len(shape: &[usize], axes: &[usize]) -> usize {
    match groups(shape, axes) {
        Ok(Groups { rank: 2, size, reduced: [true, false, ..] }) => column_scratch_len(size[0], size[1], 1),
        _ => 0,
    }
}

impl Reduce<'_> {
    /// Computes the result.
    ///
    /// # Errors
    /// If an axis does not exist, or a length differs from what the shape says.
    pub fn run(self, isa: Isa, pool: &Pool) -> Result<(), RowError> {
        let Reduce { kind, shape, axes, x, y, scratch } = self;
        let g = groups(shape, axes)?;
        let product = |reduced: bool| {
            (0..g.rank).filter(|&d| g.reduced[d] == reduced).map(|d| g.size[d]).product::<usize>()
        };
        let (kept, reduced) = (product(false), product(true));
        check_len("x", kept * reduced, x.len())?;
        check_len("y", kept, y.len())?;
        let scale = if kind == ReduceKind::Mean { 1.0 / reduced as f64 } else { 1.0 };
        match (g.rank, g.reduced) {
            (0 | 1, [true, ..]) if !is_max(kind) => {
                let mut y = SharedDst::new(y);
                let sum = total(isa, pool, &x, Term::Itself) * scale;
                store_one(isa, &mut y, sum as f32);
            }
            (0 | 1, [true, ..]) => {
                let mut y = SharedDst::new(y);
                store_one(isa, &mut y, largest(isa, pool, kind, &x));
            }
            (2, [true, false, ..]) if !is_max(kind) => {
                let (rows, cols) = (g.size[0], g.size[1]);
                check_scratch(column_scratch_len(rows, cols, 1), scratch.len())?;
                partial_sums(isa, pool, rows, cols, &x, None, scratch);
                combine(isa, pool, rows, cols, 1, scratch, &[Some(SharedDst::new(y))], scale);
            }
            (3, [false, true, false, ..]) if !is_max(kind) => {
                let y = SharedDst::new(y);
                let (middle, last) = (g.size[1], g.size[2]);
                let grid = Grid::rows(g.size[0], middle * last, 16 * TILE);
                pool.for_each(grid.chunks(), &|_, chunk| {
                    for at in grid.range(chunk) {
                        // SAFETY: each row of the result belongs to one chunk.
                        let to = unsafe { y.part(at * last..(at + 1) * last) };
                        let x = x.slice(at * middle * last..(at + 1) * middle * last);
                        dispatch(isa, Middle { x, to, scale });
                    }
                });
            }
            _ => {
                // Rows of the last group if it is reduced, else single elements gathered with
                // strides.
                let y = SharedDst::new(y);
                let grid = Grid::rows(kept, reduced, 16 * TILE);
                pool.for_each(grid.chunks(), &|_, chunk| {
                    let range = grid.range(chunk);
                    // SAFETY: chunks are disjoint.
                    let to = unsafe { y.part(range.clone()) };
                    dispatch(isa, General { kind, groups: &g, range, x: &x, to, scale });
                });
            }
        }
        Ok(())
    }
}

fn is_max(kind: ReduceKind) -> bool {
    matches!(kind, ReduceKind::Max | ReduceKind::AbsMax)
}

/// Elements whose maximum is that of a kind: themselves or their magnitudes.
#[inline(always)]
fn largest_of(kind: ReduceKind, xs: &[f32]) -> f32 {
    if kind == ReduceKind::AbsMax { max_by(xs, f32::abs) } else { max_by(xs, |x| x) }
}

/// The largest element or magnitude of a whole tensor; NaN if an element is.
fn largest(isa: Isa, pool: &Pool, kind: ReduceKind, x: &Src<'_>) -> f32 {
    struct Largest<'a>(ReduceKind, Src<'a>);
    impl Body for Largest<'_> {
        type Output = f32;
        #[inline(always)]
        fn run<C: Caps>(self) -> f32 {
            let mut buffer = [0.0; TILE];
            let parts = tiles(self.1.len(), TILE);
            parts
                .map(|t| largest_of(self.0, self.1.view::<C>(t, &mut buffer)))
                .fold(f32::NEG_INFINITY, larger)
        }
    }
    let mut partials = [f32::NEG_INFINITY; MAX_CHUNKS];
    let grid = Grid::new(x.len(), 16 * TILE);
    let shared = SharedSlice::new(&mut partials);
    pool.for_each(grid.chunks(), &|_, chunk| {
        let part = dispatch(isa, Largest(kind, x.slice(grid.range(chunk))));
        // SAFETY: each chunk writes its own element.
        unsafe { shared.put(chunk, part) };
    });
    partials[..grid.chunks()].iter().copied().fold(f32::NEG_INFINITY, larger)
}

fn store_one(isa: Isa, y: &mut SharedDst<'_>, value: f32) {
    struct One<'a>(Dst<'a>, f32);
    impl Body for One<'_> {
        type Output = ();
        #[inline(always)]
        fn run<C: Caps>(mut self) {
            self.0.store::<C>(0, &[self.1]);
        }
    }
    // SAFETY: no other part of `y` is in use.
    let to = unsafe { y.part(0..1) };
    dispatch(isa, One(to, value));
}

/// Sums of a matrix's columns, in the order of its rows: the means over pixels of one image.
struct Middle<'a> {
    x: Src<'a>,
    to: Dst<'a>,
    scale: f64,
}

impl Body for Middle<'_> {
    type Output = ();
    #[inline(always)]
    fn run<C: Caps>(mut self) {
        const COLUMNS: usize = 64;
        let last = self.to.len();
        let (mut buffer, mut means) = ([0.0; COLUMNS], [0.0; COLUMNS]);
        for columns in tiles(last, COLUMNS) {
            let mut sums = [0.0f64; COLUMNS];
            for row in 0..self.x.len() / last {
                let at = row * last;
                let xs = self.x.view::<C>(at + columns.start..at + columns.end, &mut buffer);
                for (sum, &x) in sums.iter_mut().zip(xs) {
                    *sum += f64::from(x);
                }
            }
            for (mean, sum) in means.iter_mut().zip(sums) {
                *mean = (sum * self.scale) as f32;
            }
            self.to.store::<C>(columns.start, &means[..columns.len()]);
        }
    }
}

/// Any combination of axes: for each result, runs over the reduced groups with an odometer.
struct General<'a> {
    kind: ReduceKind,
    groups: &'a Groups,
    range: Range<usize>,
    x: &'a Src<'a>,
    to: Dst<'a>,
    scale: f64,
}

impl Body for General<'_> {
    type Output = ();
    #[inline(always)]
    fn run<C: Caps>(mut self) {
        let Groups { rank, size, reduced } = *self.groups;
        let mut stride = [1; MAX_RANK];
        for d in (1..rank).rev() {
            stride[d - 1] = stride[d] * size[d];
        }
        let last_reduced = rank > 0 && reduced[rank - 1];
        let run = if last_reduced { size[rank - 1] } else { 1 };
        let outer_groups = if last_reduced { rank - 1 } else { rank };
        let outer: usize = (0..outer_groups).filter(|&d| reduced[d]).map(|d| size[d]).product();
        let mut buffer = [0.0; TILE];
        for (i, at) in self.range.clone().enumerate() {
            let offset = place(at, rank, &size, &stride, |d| !reduced[d]);
            let (mut sum, mut largest) = (0.0f64, f32::NEG_INFINITY);
            for step in 0..outer {
                let base = offset + place(step, outer_groups, &size, &stride, |d| reduced[d]);
                if run == 1 {
                    let value = self.x.get(base);
                    sum += f64::from(value);
                    largest = larger(largest, largest_of(self.kind, &[value]));
                    continue;
                }
                for tile in tiles(run, TILE) {
                    let xs = self.x.view::<C>(base + tile.start..base + tile.end, &mut buffer);
                    match self.kind {
                        ReduceKind::Max | ReduceKind::AbsMax => {
                            largest = larger(largest, largest_of(self.kind, xs));
                        }
                        ReduceKind::Sum | ReduceKind::Mean => sum += f64::from(sum_by(xs, |x| x)),
                    }
                }
            }
            let value = if is_max(self.kind) { largest } else { (sum * self.scale) as f32 };
            self.to.store::<C>(i, &[value]);
        }
    }
}

/// Offset of the `index`-th combination of the dimensions that `counts` picks.
#[inline(always)]
fn place(
    mut index: usize,
    rank: usize,
    size: &[usize; MAX_RANK],
    stride: &[usize; MAX_RANK],
    counts: impl Fn(usize) -> bool,
) -> usize {
    let mut offset = 0;
    for d in (0..rank).rev().filter(|&d| counts(d)) {
        offset += index % size[d] * stride[d];
        index /= size[d];
    }
    offset
}

/// What is summed over all elements.
#[derive(Clone, Copy, PartialEq)]
enum Term {
    Itself,
    Square,
}

/// Σ x or Σ x² over a whole tensor.
fn total(isa: Isa, pool: &Pool, x: &Src<'_>, term: Term) -> f64 {
    let mut partials = [0.0f64; MAX_CHUNKS];
    let grid = Grid::new(x.len(), 16 * TILE);
    let shared = SharedSlice::new(&mut partials);
    pool.for_each(grid.chunks(), &|_, chunk| {
        let sum = dispatch(isa, Total { x: x.slice(grid.range(chunk)), term });
        // SAFETY: each chunk writes its own element.
        unsafe { shared.put(chunk, sum) };
    });
    partials[..grid.chunks()].iter().sum()
}

struct Total<'a> {
    x: Src<'a>,
    term: Term,
}

impl Body for Total<'_> {
    type Output = f64;
    #[inline(always)]
    fn run<C: Caps>(self) -> f64 {
        let mut buffer = [0.0; TILE];
        let mut sum = 0.0;
        for tile in tiles(self.x.len(), TILE) {
            let xs = self.x.view::<C>(tile, &mut buffer);
            sum += match self.term {
                Term::Itself => f64::from(sum_by(xs, |x| x)),
                Term::Square => squares(xs),
            };
        }
        sum
    }
}

/// Σ x² in f64, where it neither overflows nor underflows.
#[inline(always)]
fn squares(xs: &[f32]) -> f64 {
    const LANES: usize = 16;
    let mut lanes = [0.0f64; LANES];
    let (chunks, rest) = xs.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane += f64::from(x) * f64::from(x);
        }
    }
    for (lane, &x) in lanes.iter_mut().zip(rest) {
        *lane += f64::from(x) * f64::from(x);
    }
    lanes.iter().sum()
}

/// Σx² over one tensor, in f64; not finite if an element is not.
pub fn sum_of_squares(isa: Isa, pool: &Pool, x: Src<'_>) -> f64 {
    total(isa, pool, &x, Term::Square)
}

/// Scratch for column sums of `count` quantities at once.
pub(crate) fn column_scratch_len(rows: usize, cols: usize, count: usize) -> usize {
    rows.div_ceil(ROW_GROUP) * cols * count
}

/// Adds every [`ROW_GROUP`] rows, or their squared distances from the means in `about`, into one
/// row of `partials`, which is `[groups, cols]`.
pub(crate) fn partial_sums(
    isa: Isa,
    pool: &Pool,
    rows: usize,
    cols: usize,
    x: &Src<'_>,
    about: Option<&[f32]>,
    partials: &mut [f32],
) {
    let row_groups = rows.div_ceil(ROW_GROUP);
    let col_tiles = cols.div_ceil(TILE);
    let shared = SharedSlice::new(partials);
    // Several groups to a chunk where they are small.
    let grid = Grid::rows(row_groups, ROW_GROUP * cols.min(TILE), 16 * TILE);
    pool.for_each(grid.chunks() * col_tiles, &|_, chunk| {
        let columns = (chunk % col_tiles * TILE)..(chunk % col_tiles * TILE + TILE).min(cols);
        for group in grid.range(chunk / col_tiles) {
            let at = group * cols;
            // SAFETY: each (group, column tile) belongs to one chunk.
            let to = unsafe { shared.part(at + columns.start..at + columns.end) };
            let rows = group * ROW_GROUP..(group * ROW_GROUP + ROW_GROUP).min(rows);
            dispatch(isa, Partial { rows, cols, columns: columns.clone(), x, about, to });
        }
    });
}

struct Partial<'a> {
    rows: Range<usize>,
    cols: usize,
    columns: Range<usize>,
    x: &'a Src<'a>,
    about: Option<&'a [f32]>,
    to: &'a mut [f32],
}

impl Body for Partial<'_> {
    type Output = ();
    #[inline(always)]
    fn run<C: Caps>(self) {
        let Partial { rows, cols, columns, x, about, to } = self;
        to.fill(0.0);
        let mut buffer = [0.0; TILE];
        let together = rows_together(cols, columns.len());
        for row in rows.clone().step_by(together) {
            let last = (row + together).min(rows.end) - 1;
            let xs = x.view::<C>(row * cols + columns.start..last * cols + columns.end, &mut buffer);
            for xs in xs.chunks_exact(columns.len()) {
                match about {
                    None => {
                        for (to, &x) in to.iter_mut().zip(xs) {
                            *to += x;
                        }
                    }
                    Some(mean) => {
                        for ((to, &x), &mean) in to.iter_mut().zip(xs).zip(&mean[columns.clone()]) {
                            let d = x - mean;
                            *to = super::body::fma::<C>(d, d, *to);
                        }
                    }
                }
            }
        }
    }
}

/// Adds the partial rows of `count` quantities in f64, in order, multiplies with `scale` and stores
/// those that have a result. `partials` is `[groups, count, cols]`.
#[allow(clippy::too_many_arguments, reason = "the shape of the partial sums, and where they go")]
pub(crate) fn combine(
    isa: Isa,
    pool: &Pool,
    rows: usize,
    cols: usize,
    count: usize,
    partials: &[f32],
    results: &[Option<SharedDst<'_>>],
    scale: f64,
) {
    const COLUMNS: usize = 64;
    let groups = rows.div_ceil(ROW_GROUP);
    let grid = Grid::new(cols, COLUMNS);
    pool.for_each(grid.chunks() * count, &|_, chunk| {
        let quantity = chunk % count;
        let Some(Some(result)) = results.get(quantity) else { return };
        for tile in tiles(grid.range(chunk / count).len(), COLUMNS) {
            let first = grid.range(chunk / count).start;
            let columns = first + tile.start..first + tile.end;
            // SAFETY: each (quantity, range of columns) belongs to one chunk.
            let to = unsafe { result.part(columns.clone()) };
            dispatch(
                isa,
                Combine {
                    groups,
                    stride: count * cols,
                    start: quantity * cols + columns.start,
                    partials,
                    to,
                    scale,
                },
            );
        }
    });
}

struct Combine<'a> {
    groups: usize,
    stride: usize,
    start: usize,
    partials: &'a [f32],
    to: Dst<'a>,
    scale: f64,
}

impl Body for Combine<'_> {
    type Output = ();
    #[inline(always)]
    fn run<C: Caps>(mut self) {
        let len = self.to.len();
        let mut sums = [0.0f64; 64];
        let sums = &mut sums[..len];
        for group in 0..self.groups {
            let at = group * self.stride + self.start;
            for (sum, &x) in sums.iter_mut().zip(&self.partials[at..at + len]) {
                *sum += f64::from(x);
            }
        }
        let mut values = [0.0f32; 64];
        for (value, &sum) in values.iter_mut().zip(&*sums) {
            *value = (sum * self.scale) as f32;
        }
        self.to.store::<C>(0, &values[..len]);
    }
}
