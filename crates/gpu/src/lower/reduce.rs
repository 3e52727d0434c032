//! Reductions over any axes, in stages that each reduce neighbouring ones.

use halfstep_graph::engine::EngineError;
use halfstep_graph::{DType, Graph, Node, ReduceKind};

use super::{Call, Lowering, MOST_BLOCKS};
use crate::command::Argument;
use crate::kernels::Source;

/// Blocks that occupy a GPU in a reduction.
const BLOCKS: usize = 128;

/// Threads of a block side by side and below each other, and the most rows of one in a column.
const LANES: usize = 8;
const DOWN: usize = 32;
const MOST_ROWS: usize = 4096;

/// Elements of a row that one block reduces at least, and at most.
const LEAST_OF_ROW: usize = 8192;
const MOST_OF_ROW: usize = 1 << 16;

/// The number of neighbours that a thread takes in one access of 16 bytes, as kernels know it, in
/// rows of so many elements of these types.
pub(super) fn wide(size: usize, types: &[DType]) -> (usize, &'static str) {
    let most = match types.iter().map(|t| t.bytes()).max() {
        Some(1) => (16, "16"),
        Some(2) => (8, "8"),
        _ => (4, "4"),
    };
    if size.is_multiple_of(most.0) { most } else { (1, "1") }
}

/// What is reduced of `[outer, size, inner]` in one launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Axis {
    /// The last, of one element behind each place.
    Rows,
    Columns,
}

/// One launch: `[outer, size, inner]` to `[outer, inner]`, in chunks, which are blocks of their
/// own: the last of them that ends combines their results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stage {
    axis: Axis,
    outer: usize,
    size: usize,
    inner: usize,
    /// Neighbours that a thread has.
    pub wide: &'static str,
    /// Blocks of one chunk.
    across: usize,
    /// Elements of a row, or rows of a column, of a block.
    pub chunk: usize,
}

impl Stage {
    /// A function of the shape and the type alone.
    fn of(outer: usize, size: usize, inner: usize, ty: DType) -> Stage {
        if inner > 1 {
            return Stage::columns([outer, size, inner], &[ty], BLOCKS);
        }
        let each = size.div_ceil((BLOCKS / outer).max(1));
        let chunk = each.next_multiple_of(2048).clamp(LEAST_OF_ROW, MOST_OF_ROW);
        Stage { axis: Axis::Rows, outer, size, inner, wide: wide(size, &[ty]).1, across: outer, chunk }
    }

    /// Of columns, by about so many blocks.
    fn columns([outer, size, inner]: [usize; 3], types: &[DType], blocks: usize) -> Stage {
        let (n, wide) = wide(inner, types);
        let across = inner.div_ceil(LANES * n);
        let each = size.div_ceil((blocks / (outer * across)).max(1));
        let chunk = each.next_multiple_of(DOWN).min(MOST_ROWS);
        Stage { axis: Axis::Columns, outer, size, inner, wide, across, chunk }
    }

    /// Of the columns of a matrix of elements of these types.
    pub fn of_columns((rows, width): (usize, usize), types: &[DType]) -> Stage {
        Stage::columns([1, rows, width], types, BLOCKS)
    }

    /// The same where nothing is reduced, so that twice as many blocks cost nothing.
    pub fn over_columns((rows, width): (usize, usize), types: &[DType]) -> Stage {
        Stage::columns([1, rows, width], types, 2 * BLOCKS)
    }

    fn chunks(&self) -> usize {
        self.size.div_ceil(self.chunk)
    }

    /// Blocks, all of 256 threads but those of short rows.
    pub fn grid(&self) -> [usize; 3] {
        match self.axis {
            Axis::Rows => [self.outer, self.chunks(), 1],
            Axis::Columns => [self.across, self.chunks(), self.outer],
        }
    }

    /// Bytes of so many results of all chunks.
    pub fn part_bytes(&self, results: usize) -> usize {
        if self.chunks() > 1 { 4 * results * self.outer * self.chunks() * self.inner } else { 0 }
    }

    /// Bytes of the counters of blocks that have ended.
    pub fn counter_bytes(&self) -> usize {
        let blocks = if self.axis == Axis::Rows { self.outer } else { self.outer * self.across };
        if self.chunks() > 1 { 4 * blocks } else { 0 }
    }

    /// Gives a call room for so many results of all chunks, and counters, which begin behind those
    /// of the node's stages before.
    pub fn parts(&self, l: &Lowering<'_>, call: Call, results: usize, (skip, kept): (usize, usize)) -> Call {
        if self.chunks() == 1 {
            return call.with(Argument::Null).with(Argument::Null);
        }
        let parts = l.work(skip, self.part_bytes(results) / 4, DType::F32);
        call.changes(parts).changes(l.counters(kept, self.counter_bytes() / 4))
    }

    /// Whether a GPU has so many blocks.
    ///
    /// # Errors
    /// It has not.
    pub fn check(&self, l: &Lowering<'_>) -> Result<(), EngineError> {
        match self.grid()[1].max(self.grid()[2]) > MOST_BLOCKS {
            true => Err(l.unsupported(format!("a reduction of more than {MOST_BLOCKS} chunks"))),
            false => Ok(()),
        }
    }
}

/// The stages of a reduction of these axes: the last axes first, each run of neighbours at once.
fn stages(shape: &[usize], axes: &[usize], mut ty: DType) -> Vec<Stage> {
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
        if reduced {
            stages.push(Stage::of(shape[..axis].iter().product(), size, inner, ty));
            ty = DType::F32;
        } else {
            inner *= size;
        }
    }
    stages
}

/// Bytes of what all stages but the last make, and of the results of chunks.
pub(super) fn workspace_bytes(graph: &Graph, node: &Node, axes: &[usize]) -> usize {
    let x = node.inputs[0];
    let stages = stages(graph.shape(x), axes, graph.dtype(x));
    let results = stages.iter().rev().skip(1).map(|stage| 4 * stage.outer * stage.inner);
    results.sum::<usize>() + stages.iter().map(|stage| stage.part_bytes(1)).sum::<usize>()
}

/// Bytes of the counters of all stages.
pub(super) fn kept_bytes(graph: &Graph, node: &Node, axes: &[usize]) -> usize {
    let x = node.inputs[0];
    stages(graph.shape(x), axes, graph.dtype(x)).iter().map(Stage::counter_bytes).sum()
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
    let mut x = l.input(0);
    let stages = stages(shape, axes, x.dtype);
    let (mut skip, mut kept) = (0, 0);
    for (i, stage) in stages.iter().enumerate() {
        stage.check(l)?;
        let last = i + 1 == stages.len();
        let y = if last { l.result(0) } else { l.work(skip, stage.outer * stage.inner, DType::F32) };
        skip += if last { 0 } else { y.span.bytes };
        let rows = stage.axis == Axis::Rows;
        let entry = format!("{}_{name}", if rows { "rows" } else { "columns" });
        let kernel =
            l.wide_kernel(Source::Reduce, &[("TypeX", x.dtype), ("TypeY", y.dtype)], stage.wide, &entry);
        let block = if rows { block_of(stage.size) } else { 256 };
        let call = Call::new(kernel, stage.grid(), block).read(x).write(y);
        let call = stage.parts(l, call, 1, (skip, kept)).sizes([stage.size]);
        let call = if rows { call } else { call.sizes([stage.inner]) };
        l.launch(call.sizes([stage.chunk]).f32(if last { divisor } else { 1.0 }));
        (skip, kept) = (skip + stage.part_bytes(1), kept + stage.counter_bytes());
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

#[cfg(test)]
mod tests {
    use halfstep_graph::DType;

    use super::{Axis, Stage, stages};

    #[test]
    fn neighbouring_axes_are_reduced_together_and_long_ones_in_chunks() {
        let stage = |axis, [outer, size, inner]: [usize; 3], wide, across, chunk| Stage {
            axis,
            outer,
            size,
            inner,
            wide,
            across,
            chunk,
        };
        let of = |shape: &[usize], axes: &[usize]| stages(shape, axes, DType::Bf16);
        assert_eq!(of(&[3, 5, 7], &[1, 2]), [stage(Axis::Rows, [3, 35, 1], "1", 3, 8192)]);
        let both =
            [stage(Axis::Rows, [15, 7, 1], "1", 15, 8192), stage(Axis::Columns, [1, 3, 5], "1", 1, 32)];
        assert_eq!(of(&[3, 5, 7], &[0, 2]), both);
        assert_eq!(of(&[65_536, 64], &[0]), [stage(Axis::Columns, [1, 65_536, 64], "8", 1, 512)]);
        assert_eq!(of(&[1 << 20], &[0]), [stage(Axis::Rows, [1, 1 << 20, 1], "8", 1, 8192)]);
    }
}
