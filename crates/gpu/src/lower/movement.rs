//! Moving elements: the operand's type is the result's.

use halfstep_graph::DType;
use halfstep_graph::engine::EngineError;

use super::{Call, Lowering, MOST_BLOCKS, structure};
use crate::command::Kernel;
use crate::kernels::Source;

/// The most dimensions of a box that elements are copied in.
const RANK: usize = 6;

/// A kernel that copies elements of the result's size.
///
/// # Errors
/// An operand of another type.
fn moving(l: &mut Lowering<'_>, inputs: usize, entry: &str) -> Result<Kernel, EngineError> {
    let to = l.result(0).dtype;
    if let Some(from) = (0..inputs).map(|i| l.input(i).dtype).find(|&d| d != to) {
        return Err(l.unsupported(format!("moves {from} elements into a {to} tensor; it takes a cast first")));
    }
    Ok(bits(l, to, entry))
}

/// A kernel that copies elements of this type by their bits.
fn bits(l: &mut Lowering<'_>, dtype: DType, entry: &str) -> Kernel {
    l.output.modules.kernel(Source::Move, &[("Element", word(dtype))], entry)
}

/// An integer of the size of an element.
pub(super) fn word(dtype: DType) -> &'static str {
    match dtype.bytes() {
        1 => "u8",
        2 => "u16",
        _ => "u32",
    }
}

pub(super) fn permute(l: &mut Lowering<'_>, perm: &[usize]) -> Result<(), EngineError> {
    let kernel = moving(l, 1, "copy_box")?;
    let (from, to) = (l.shape(0).strides(), l.result_shape());
    // Dimensions of the result and the distances of the operand; neighbours there become one.
    let mut dimensions: Vec<(usize, usize)> = Vec::new();
    for (&size, &p) in to.iter().zip(perm).filter(|(size, _)| **size != 1) {
        match dimensions.last_mut() {
            Some((outer, stride)) if *stride == size * from[p] => {
                (*outer, *stride) = (*outer * size, from[p])
            }
            _ => dimensions.push((size, from[p])),
        }
    }
    if dimensions.len() > RANK {
        return Err(l.unsupported(format!("a permutation of more than {RANK} dimensions")));
    }
    // From the last dimension on; the others have one place.
    let mut members = [[1; RANK], [0; RANK], [0; RANK]];
    let mut behind = 1;
    for (d, &(size, stride)) in dimensions.iter().rev().enumerate() {
        [members[0][RANK - 1 - d], members[1][RANK - 1 - d], members[2][RANK - 1 - d]] =
            [size, stride, behind];
        behind *= size;
    }
    let (x, y) = (l.input(0), l.result(0));
    let call = Call::each(kernel, y.count).read(x).write(y).sizes([y.count]);
    l.launch(call.with(structure(members.as_flattened())));
    Ok(())
}

/// Size of an axis, and elements behind each of its places.
fn along(shape: &[usize], axis: usize) -> (usize, usize) {
    (shape[axis], shape[axis + 1..].iter().product())
}

pub(super) fn slice(l: &mut Lowering<'_>, axis: usize, start: usize) -> Result<(), EngineError> {
    let kernel = moving(l, 1, "copy_part")?;
    let ((size, inner), (kept, _)) = (along(l.shape(0), axis), along(l.result_shape(), axis));
    let (x, y) = (l.input(0), l.result(0));
    let sizes = [y.count, kept, inner, size, start, kept, 0];
    l.launch(Call::each(kernel, y.count).read(x).write(y).sizes(sizes));
    Ok(())
}

pub(super) fn pad(l: &mut Lowering<'_>, axis: usize, before: usize) -> Result<(), EngineError> {
    let kernel = moving(l, 1, "pad")?;
    let ((size, inner), (padded, _)) = (along(l.shape(0), axis), along(l.result_shape(), axis));
    let (x, y) = (l.input(0), l.result(0));
    l.launch(Call::each(kernel, y.count).read(x).write(y).sizes([y.count, inner, size, padded, before]));
    Ok(())
}

pub(super) fn concat(l: &mut Lowering<'_>, axis: usize) -> Result<(), EngineError> {
    let kernel = moving(l, l.node.inputs.len(), "copy_part")?;
    let (whole, inner) = along(l.result_shape(), axis);
    let y = l.result(0);
    let mut first = 0;
    for i in 0..l.node.inputs.len() {
        let (x, size) = (l.input(i), l.shape(i)[axis]);
        let sizes = [x.count, size, inner, size, 0, whole, first];
        l.launch(Call::each(kernel.clone(), x.count).read(x).write(y).sizes(sizes));
        first += size;
    }
    Ok(())
}

pub(super) fn gather(l: &mut Lowering<'_>) -> Result<(), EngineError> {
    let kernel = moving(l, 1, "gather")?;
    let (table, index, y, width) = (l.input(0), l.input(1), l.result(0), l.shape(0)[1]);
    l.launch(Call::each(kernel, y.count).read(table).read(index).write(y).sizes([y.count, width]));
    Ok(())
}

pub(super) fn scatter_add(l: &mut Lowering<'_>) -> Result<(), EngineError> {
    /// Rows of a block, and columns of a warp.
    const ROWS: usize = 4;
    const COLUMNS: usize = 256;
    let (x, index, table) = (l.input(0), l.input(1), l.result(0));
    let (rows, width) = (l.result_shape()[0], l.result_shape()[1]);
    if width.div_ceil(COLUMNS) > MOST_BLOCKS {
        return Err(l.unsupported("rows of this width are too wide for a GPU"));
    }
    let kernel = l.kernel(Source::Scatter, &[("TypeX", x.dtype), ("TypeY", table.dtype)], "scatter_add");
    let grid = [rows.div_ceil(ROWS), width.div_ceil(COLUMNS), 1];
    let call = Call::new(kernel, grid, 32 * ROWS as u32).read(x).read(index).write(table);
    l.launch(call.sizes([index.count, rows, width]));
    Ok(())
}
