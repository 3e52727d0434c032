//! Moving elements without changing them: permuted dimensions, slices, padding and concatenation.
//!
//! The element type only says how many bytes to move, so the instruction set does not matter here.

use super::storage::TILE;
use super::{Grid, RowError, SharedSlice, check_len};
use crate::pool::Pool;

/// Most dimensions of a tensor here.
pub const MAX_RANK: usize = 8;

/// Side of the square blocks in which two dimensions are exchanged.
const BLOCK: usize = 32;

type Sizes = [usize; MAX_RANK];

fn check_rank(rank: usize) -> Result<(), RowError> {
    if rank <= MAX_RANK {
        Ok(())
    } else {
        Err(RowError::Shape { what: "shape", why: "more than eight dimensions" })
    }
}

fn strides(shape: &[usize]) -> Sizes {
    let mut strides = [1; MAX_RANK];
    for d in (1..shape.len()).rev() {
        strides[d - 1] = strides[d] * shape[d];
    }
    strides
}

/// A copy between two strided boxes of the same shape.
#[derive(Clone, Copy)]
struct Boxes {
    rank: usize,
    shape: Sizes,
    from: Sizes,
    to: Sizes,
}

impl Boxes {
    /// Leaves out dimensions of size 1 and merges neighbours that lie next to each other on both
    /// sides.
    fn simplified(shape: &[usize], from: &[usize], to: &[usize]) -> Boxes {
        let mut b = Boxes { rank: 0, shape: [1; MAX_RANK], from: [0; MAX_RANK], to: [0; MAX_RANK] };
        for d in 0..shape.len() {
            if shape[d] == 1 {
                continue;
            }
            let last = b.rank.wrapping_sub(1);
            if b.rank > 0 && b.from[last] == from[d] * shape[d] && b.to[last] == to[d] * shape[d] {
                b.shape[last] *= shape[d];
                (b.from[last], b.to[last]) = (from[d], to[d]);
            } else {
                (b.shape[b.rank], b.from[b.rank], b.to[b.rank]) = (shape[d], from[d], to[d]);
                b.rank += 1;
            }
        }
        if b.rank == 0 {
            (b.rank, b.shape[0], b.from[0], b.to[0]) = (1, 1, 1, 1);
        }
        b
    }

    /// Offsets of the `index`-th combination of the dimensions that `counts` picks.
    fn offsets(&self, mut index: usize, counts: impl Fn(usize) -> bool) -> (usize, usize) {
        let (mut from, mut to) = (0, 0);
        for d in (0..self.rank).rev().filter(|&d| counts(d)) {
            let at = index % self.shape[d];
            index /= self.shape[d];
            from += at * self.from[d];
            to += at * self.to[d];
        }
        (from, to)
    }
}

/// Copies `x[x_start + …]` to `y[y_start + …]` over all combinations of coordinates.
///
/// The places written must be distinct and inside `y`, those read inside `x`: the callers below see
/// to that.
fn copy_boxes<T: Copy + Send + Sync>(
    pool: &Pool,
    b: &Boxes,
    x: &[T],
    x_start: usize,
    y: &mut [T],
    y_start: usize,
) {
    let count: usize = b.shape[..b.rank].iter().product();
    if count == 0 {
        return;
    }
    let y = SharedSlice::new(y);
    let last = b.rank - 1;
    // The dimension along which reading is contiguous; where it is not the last, blocks of both are
    // exchanged.
    let fast = (0..b.rank).rev().find(|&d| b.from[d] == 1).unwrap_or(last);
    if fast == last || b.to[last] != 1 {
        let (run, from_step, to_step) = (b.shape[last], b.from[last], b.to[last]);
        let rows = count / run;
        let grid = Grid::rows(rows, run, 16 * TILE);
        pool.for_each(grid.chunks(), &|_, chunk| {
            for row in grid.range(chunk) {
                let (from, to) = b.offsets(row, |d| d < last);
                let (from, to) = (x_start + from, y_start + to);
                if from_step == 1 && to_step == 1 {
                    // SAFETY: rows write distinct places, and each belongs to one chunk.
                    unsafe { y.part(to..to + run) }.copy_from_slice(&x[from..from + run]);
                } else {
                    for i in 0..run {
                        let at = to + i * to_step;
                        // SAFETY: as above.
                        unsafe { y.put(at, x[from + i * from_step]) };
                    }
                }
            }
        });
        return;
    }
    let (rows, cols) = (b.shape[fast], b.shape[last]);
    let (row_blocks, col_blocks) = (rows.div_ceil(BLOCK), cols.div_ceil(BLOCK));
    let blocks = count / (rows * cols) * row_blocks * col_blocks;
    let grid = Grid::new(blocks, 16);
    pool.for_each(grid.chunks(), &|_, chunk| {
        for block in grid.range(chunk) {
            let (outer, inner) = (block / (row_blocks * col_blocks), block % (row_blocks * col_blocks));
            let (from, to) = b.offsets(outer, |d| d != fast && d != last);
            let (r, c) = (inner / col_blocks * BLOCK, inner % col_blocks * BLOCK);
            let (height, width) = (BLOCK.min(rows - r), BLOCK.min(cols - c));
            let from = x_start + from + r + c * b.from[last];
            let to = y_start + to + r * b.to[fast] + c;
            // Through a small block, so that both sides are read and written in runs: with sizes
            // that are multiples of large powers of two, columns of `x` would push each other out
            // of the cache.
            let mut buffer = [[x[from]; BLOCK]; BLOCK];
            for (j, row) in buffer[..width].iter_mut().enumerate() {
                let at = from + j * b.from[last];
                row[..height].copy_from_slice(&x[at..at + height]);
            }
            for i in 0..height {
                let at = to + i * b.to[fast];
                // SAFETY: blocks write distinct places, and each belongs to one chunk.
                let row = unsafe { y.part(at..at + width) };
                for (y, column) in row.iter_mut().zip(&buffer) {
                    *y = column[i];
                }
            }
        }
    });
}

/// Dimension `i` of `y` is dimension `perm[i]` of `x`, whose shape is `shape`.
///
/// # Errors
/// If `perm` is not a permutation of the dimensions, or a length differs from what the shape says.
pub fn permute<T: Copy + Send + Sync>(
    pool: &Pool,
    shape: &[usize],
    perm: &[usize],
    x: &[T],
    y: &mut [T],
) -> Result<(), RowError> {
    check_rank(shape.len())?;
    let count = shape.iter().product();
    check_len("x", count, x.len())?;
    check_len("y", count, y.len())?;
    check_len("perm", shape.len(), perm.len())?;
    if (0..perm.len()).any(|d| !perm.contains(&d)) {
        return Err(RowError::Shape { what: "perm", why: "it does not name every dimension once" });
    }
    let rank = shape.len();
    let x_strides = strides(shape);
    let (mut y_shape, mut from) = ([1; MAX_RANK], [0; MAX_RANK]);
    for (i, &p) in perm.iter().enumerate() {
        (y_shape[i], from[i]) = (shape[p], x_strides[p]);
    }
    let to = strides(&y_shape[..rank]);
    let boxes = Boxes::simplified(&y_shape[..rank], &from[..rank], &to[..rank]);
    copy_boxes(pool, &boxes, x, 0, y, 0);
    Ok(())
}

/// Offset of a box of shape `inner` at `starts` in a tensor of shape `outer`, if it lies inside.
fn box_start(outer: &[usize], starts: &[usize], inner: &[usize]) -> Result<usize, RowError> {
    check_rank(outer.len())?;
    check_len("starts", outer.len(), starts.len())?;
    check_len("box", outer.len(), inner.len())?;
    let strides = strides(outer);
    let mut offset = 0;
    for d in 0..outer.len() {
        if starts[d].checked_add(inner[d]).is_none_or(|end| end > outer[d]) {
            return Err(RowError::Shape { what: "box", why: "it reaches beyond the tensor" });
        }
        offset += starts[d] * strides[d];
    }
    Ok(offset)
}

/// Copies the box of size `lens` at `starts` of `x`, whose shape is `shape`, to `y`.
///
/// # Errors
/// If the box is not inside, or a length differs from what the shape says.
pub fn slice<T: Copy + Send + Sync>(
    pool: &Pool,
    shape: &[usize],
    starts: &[usize],
    lens: &[usize],
    x: &[T],
    y: &mut [T],
) -> Result<(), RowError> {
    let start = box_start(shape, starts, lens)?;
    check_len("x", shape.iter().product(), x.len())?;
    check_len("y", lens.iter().product(), y.len())?;
    let rank = shape.len();
    let boxes = Boxes::simplified(lens, &strides(shape)[..rank], &strides(lens)[..rank]);
    copy_boxes(pool, &boxes, x, start, y, 0);
    Ok(())
}

/// Copies `x`, whose shape is `shape`, into the box at `starts` of `y`, whose shape is `y_shape`.
///
/// # Errors
/// If the box is not inside, or a length differs from what the shape says.
pub fn copy_into<T: Copy + Send + Sync>(
    pool: &Pool,
    shape: &[usize],
    x: &[T],
    y_shape: &[usize],
    starts: &[usize],
    y: &mut [T],
) -> Result<(), RowError> {
    let start = box_start(y_shape, starts, shape)?;
    check_len("x", shape.iter().product(), x.len())?;
    check_len("y", y_shape.iter().product(), y.len())?;
    let rank = shape.len();
    let boxes = Boxes::simplified(shape, &strides(shape)[..rank], &strides(y_shape)[..rank]);
    copy_boxes(pool, &boxes, x, 0, y, start);
    Ok(())
}

/// Copies `x`, whose shape is `shape`, to `y` with `before` and `after` elements of `fill` along
/// each dimension.
///
/// # Errors
/// If a length differs from what the shape says.
pub fn pad<T: Copy + Send + Sync>(
    pool: &Pool,
    shape: &[usize],
    before: &[usize],
    after: &[usize],
    fill: T,
    x: &[T],
    y: &mut [T],
) -> Result<(), RowError> {
    check_rank(shape.len())?;
    check_len("before", shape.len(), before.len())?;
    check_len("after", shape.len(), after.len())?;
    let mut y_shape = [1; MAX_RANK];
    for (d, size) in y_shape[..shape.len()].iter_mut().enumerate() {
        *size = before[d] + shape[d] + after[d];
    }
    let y_shape = &y_shape[..shape.len()];
    check_len("y", y_shape.iter().product(), y.len())?;
    {
        let shared = SharedSlice::new(y);
        let grid = Grid::new(y_shape.iter().product(), 64 * TILE);
        pool.for_each(grid.chunks(), &|_, chunk| {
            // SAFETY: chunks are disjoint.
            unsafe { shared.part(grid.range(chunk)) }.fill(fill);
        });
    }
    copy_into(pool, shape, x, y_shape, before, y)
}
