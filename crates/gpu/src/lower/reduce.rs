//! Reductions over any axes, in stages that each reduce neighbouring ones.

use halfstep_graph::engine::EngineError;
use halfstep_graph::{DType, ReduceKind};

use super::{Call, Lowering, MOST_BLOCKS};
use crate::kernels::Source;
use crate::stored::Stored;

/// Elements of a row, and rows of a column, that one block reduces.
const ROW_CHUNK: usize = 8192;
pub(super) const COLUMN_CHUNK: usize = 256;

/// One launch: `[outer, size, inner]` to `[outer, chunks, inner]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stage {
    outer: usize,
    size: usize,
    inner: usize,
    chunk: usize,
}

impl Stage {
    fn chunks(&self) -> usize {
        self.size.div_ceil(self.chunk)
    }

    fn results(&self) -> usize {
        self.outer * self.chunks() * self.inner
    }
}

/// The stages of a reduction of these axes, a function of the shape alone: the last axes first,
/// each run of neighbours in chunks until there is one.
fn stages(shape: &[usize], axes: &[usize]) -> Vec<Stage> {
    let mut stages = Vec::new();
    let mut inner = 1;
    let mut axis = shape.len();
    while axis > 0 {
        let reduced = axes.contains(&(axis - 1));
        let mut size = 1;
        while axis > 0 && axes.contains(&(axis - 1)) == reduced {
            axis -= 1;
            size *= shape[axis];
        }
        if !reduced {
            inner *= size;
            continue;
        }
        let outer = shape[..axis].iter().product();
        let chunk = if inner == 1 { ROW_CHUNK } else { COLUMN_CHUNK };
        loop {
            let stage = Stage { outer, size, inner, chunk };
            stages.push(stage);
            size = stage.chunks();
            if size == 1 {
                break;
            }
        }
    }
    stages
}

/// Bytes of what all stages but the last make.
pub(super) fn workspace_bytes(shape: &[usize], axes: &[usize]) -> usize {
    let stages = stages(shape, axes);
    let before_last = &stages[..stages.len().saturating_sub(1)];
    before_last.iter().map(|stage| 4 * stage.results()).sum()
}

pub(super) fn reduce(l: &mut Lowering<'_>, kind: ReduceKind, axes: &[usize]) -> Result<(), EngineError> {
    let shape = l.shape(0);
    let count: usize = axes.iter().map(|&a| shape[a]).product();
    let (name, divisor) = match kind {
        ReduceKind::Sum => ("sum", 1.0),
        ReduceKind::Mean => ("sum", count as f32),
        ReduceKind::Max => ("max", 1.0),
        ReduceKind::AbsMax => ("absmax", 1.0),
    };
    let stages = stages(shape, axes);
    run(l, name, &stages, l.input(0), l.result(0), (0, divisor))
}

/// The mean of operand 0 over its rows.
///
/// # Errors
/// There are too many.
pub(super) fn mean_of_rows(l: &mut Lowering<'_>, rows: usize, columns: usize) -> Result<(), EngineError> {
    let stages = stages(&[rows, columns], &[0]);
    run(l, "sum", &stages, l.input(0), l.result(0), (0, rows as f32))
}

/// The launches of these stages, with a workspace that begins `skip` bytes behind the node's and a
/// number by which the result is divided.
fn run(
    l: &mut Lowering<'_>,
    name: &str,
    stages: &[Stage],
    from: Stored,
    to: Stored,
    (mut skip, divisor): (usize, f32),
) -> Result<(), EngineError> {
    let mut x = from;
    for (i, stage) in stages.iter().enumerate() {
        let last = i + 1 == stages.len();
        let y = if last { to } else { l.work(skip, stage.results(), DType::F32) };
        skip += 4 * stage.results();
        let (rows, along) = (stage.inner == 1, stage.chunks());
        if along > MOST_BLOCKS || (!rows && stage.outer > MOST_BLOCKS) {
            return Err(l.unsupported("a reduction of more than 65535 chunks"));
        }
        let entry = format!("{}_{name}", if rows { "rows" } else { "columns" });
        let kernel = l.kernel(Source::Reduce, &[("TypeX", x.dtype), ("TypeY", y.dtype)], &entry);
        let divided = if last { divisor } else { 1.0 };
        let call = if rows {
            let block = block_of(stage.size.min(stage.chunk));
            let call = Call::new(kernel, [stage.outer, along, 1], block).read(x).write(y);
            call.sizes([stage.size, stage.chunk])
        } else {
            let grid = [stage.inner.div_ceil(32), along, stage.outer];
            let call = Call::new(kernel, grid, 256).read(x).write(y);
            call.sizes([stage.size, stage.inner, stage.chunk])
        };
        l.launch(call.f32(divided));
        x = y;
    }
    Ok(())
}

/// Threads of a block that works on a row of so many elements.
pub(super) fn block_of(size: usize) -> u32 {
    match size {
        0..=256 => 32,
        257..=1024 => 128,
        _ => 256,
    }
}

/// Adds partial sums `[chunks, columns]` in the workspace, `skip` bytes behind its start, and
/// divides the sum.
///
/// # Errors
/// There are too many.
pub(super) fn add_chunks(
    l: &mut Lowering<'_>,
    skip: usize,
    (chunks, columns): (usize, usize),
    to: Stored,
    divisor: f32,
) -> Result<(), EngineError> {
    let stages = stages(&[chunks, columns], &[0]);
    let from = l.work(skip, chunks * columns, DType::F32);
    run(l, "sum", &stages, from, to, (skip + from.span.bytes, divisor))
}

/// Bytes that [`add_chunks`] needs, what it adds included.
pub(super) fn chunks_bytes(chunks: usize, columns: usize) -> usize {
    4 * chunks * columns + workspace_bytes(&[chunks, columns], &[0])
}

#[cfg(test)]
mod tests {
    use super::{Stage, stages};

    #[test]
    fn neighbouring_axes_are_reduced_together_and_long_ones_in_chunks() {
        let stage = |outer, size, inner, chunk| Stage { outer, size, inner, chunk };
        assert_eq!(stages(&[3, 5, 7], &[1, 2]), [stage(3, 35, 1, 8192)]);
        assert_eq!(stages(&[3, 5, 7], &[0, 2]), [stage(15, 7, 1, 8192), stage(1, 3, 5, 256)]);
        assert_eq!(stages(&[600, 5], &[0]), [stage(1, 600, 5, 256), stage(1, 3, 5, 256)]);
        assert_eq!(stages(&[2, 10_000], &[1]), [stage(2, 10_000, 1, 8192), stage(2, 2, 1, 8192)]);
    }
}
