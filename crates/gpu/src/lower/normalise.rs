//! Rows and columns: softmax, norms and losses.

use halfstep_graph::engine::EngineError;
use halfstep_graph::{BatchNormPart, DType, Graph, Node, Op};

use super::pointwise::After;
use super::reduce::{self, COLUMN_CHUNK, add_chunks, block_of, chunks_bytes};
use super::{Call, Lowering, MOST_BLOCKS};
use crate::command::{Argument, Kernel};
use crate::kernels::{Source, c_type};
use crate::stored::Stored;

/// A launch with a block for each row.
fn by_rows(l: &Lowering<'_>, kernel: Kernel) -> Call {
    let (rows, columns) = l.matrix();
    Call::new(kernel, [rows, 1, 1], block_of(columns))
}

pub(super) fn argmax(l: &mut Lowering<'_>) -> Result<(), EngineError> {
    let (x, y, columns) = (l.input(0), l.result(0), l.matrix().1);
    let kernel = l.kernel(Source::Rows, &[("TypeX", x.dtype)], "argmax");
    l.launch(by_rows(l, kernel).read(x).write(y).sizes([columns]));
    Ok(())
}

pub(super) fn softmax(l: &mut Lowering<'_>) -> Result<(), EngineError> {
    let (x, y, columns) = (l.input(0), l.result(0), l.matrix().1);
    let kernel = l.kernel(Source::Rows, &[("TypeX", x.dtype), ("TypeY", y.dtype)], "softmax");
    l.launch(by_rows(l, kernel).read(x).write(y).sizes([columns]));
    Ok(())
}

pub(super) fn cross_entropy(l: &mut Lowering<'_>) -> Result<(), EngineError> {
    let (x, target, columns) = (l.input(0), l.input(1), l.matrix().1);
    let kernel = l.kernel(Source::Rows, &[("TypeX", x.dtype)], "cross_entropy");
    let call = by_rows(l, kernel).read(x).read(target).write(l.result(0)).write(l.result(1));
    l.launch(call.sizes([columns]));
    Ok(())
}

pub(super) fn cross_entropy_grad(l: &mut Lowering<'_>) -> Result<(), EngineError> {
    let [x, target, lse, dloss] = [0, 1, 2, 3].map(|i| l.input(i));
    let (dx, columns) = (l.result(0), l.matrix().1);
    let kernel = l.kernel(Source::Rows, &[("TypeX", x.dtype), ("TypeY", dx.dtype)], "cross_entropy_grad");
    let call = Call::each(kernel, dx.count).read(x).read(target).read(lse).read(dloss).write(dx);
    l.launch(call.sizes([dx.count, columns]));
    Ok(())
}

pub(super) fn layer_norm(l: &mut Lowering<'_>, eps: f64) -> Result<(), EngineError> {
    let [x, gamma, beta] = [0, 1, 2].map(|i| l.input(i));
    let (y, columns) = (l.result(0), l.matrix().1);
    let types = [("TypeX", x.dtype), ("TypeY", y.dtype), ("TypeG", gamma.dtype)];
    let kernel = l.kernel(Source::Rows, &types, "layer_norm");
    let call = by_rows(l, kernel).read(x).read(gamma).read(beta).write(y);
    l.launch(call.write(l.result(1)).write(l.result(2)).sizes([columns]).f32(eps as f32));
    Ok(())
}

/// Chunks of rows that partial sums are made of.
fn chunks(rows: usize) -> usize {
    rows.div_ceil(COLUMN_CHUNK)
}

pub(super) fn workspace_bytes(graph: &Graph, node: &Node) -> usize {
    let shape = graph.shape(node.inputs[0]);
    let one = chunks_bytes(chunks(shape.rows()), shape.last());
    match node.op {
        Op::BatchNormPart(BatchNormPart::Mean) => {
            reduce::workspace_bytes(&[shape.rows(), shape.last()], &[0])
        }
        Op::BatchNormPart(BatchNormPart::Variance) => one,
        Op::LayerNormGrad | Op::BatchNormPart(BatchNormPart::Sums) => {
            2 * 4 * chunks(shape.rows()) * shape.last()
        }
        _ => 0,
    }
}

/// Which way the statistics of a norm lie.
#[derive(Clone, Copy, PartialEq)]
enum Statistics {
    OfRows,
    OfColumns,
}

/// The sums of dy·x̂ and of dy over rows.
fn pair_sums(
    l: &mut Lowering<'_>,
    [x, mean, rstd, dy]: [Stored; 4],
    statistics: Statistics,
    to: [Stored; 2],
) -> Result<(), EngineError> {
    let (rows, columns) = l.matrix();
    let chunks = chunks(rows);
    if chunks > MOST_BLOCKS {
        return Err(l.unsupported("sums over too many rows for a GPU"));
    }
    let kernel = l.kernel(Source::Columns, &[("TypeX", x.dtype), ("TypeD", dy.dtype)], "pair_sums");
    let count = chunks * columns;
    let parts = match chunks {
        1 => to,
        _ => [0, 4 * count].map(|skip| l.work(skip, count, DType::F32)),
    };
    let call = Call::new(kernel, [columns.div_ceil(32), chunks, 1], 256);
    let call = call.read(x).read(mean).read(rstd).read(dy).write(parts[0]).write(parts[1]);
    let by_rows = i32::from(statistics == Statistics::OfRows);
    l.launch(call.sizes([rows, columns, COLUMN_CHUNK]).with(Argument::I32(by_rows)));
    if chunks > 1 {
        let kernel = l.kernel(Source::Columns, &[], "add_pairs");
        let call = Call::new(kernel, [columns.div_ceil(32), 2, 1], 256).read(parts[0]).read(parts[1]);
        l.launch(call.write(to[0]).write(to[1]).sizes([chunks, columns]));
    }
    Ok(())
}

pub(super) fn layer_norm_grad(l: &mut Lowering<'_>) -> Result<(), EngineError> {
    let [x, gamma, mean, rstd, dy] = [0, 1, 2, 3, 4].map(|i| l.input(i));
    let (after, columns) = (After::of(l)?, l.matrix().1);
    let types = [("TypeX", x.dtype), ("TypeG", gamma.dtype), ("TypeD", dy.dtype)];
    let types = types.map(|(m, t)| (m, c_type(t)));
    let kernel = after.kernel(l, Source::Norms, &types, "layer_norm_grad");
    let call = by_rows(l, kernel).read(x).read(gamma).read(mean).read(rstd).read(dy);
    l.launch(after.given(call).sizes([columns]));
    let to = [l.result(1), l.result(2)];
    if to.iter().any(|to| to.dtype != DType::F32) {
        return Err(l.unsupported("gradients of a norm's factors in fewer bits than f32"));
    }
    pair_sums(l, [x, mean, rstd, dy], Statistics::OfRows, to)
}

pub(super) fn batch_norm_part(l: &mut Lowering<'_>, part: BatchNormPart) -> Result<(), EngineError> {
    let (rows, columns) = l.matrix();
    let x = l.input(0);
    match part {
        BatchNormPart::Mean => reduce::mean_of_rows(l, rows, columns),
        BatchNormPart::Variance => {
            let (mean, to, chunks) = (l.input(1), l.result(0), chunks(rows));
            if chunks > MOST_BLOCKS {
                return Err(l.unsupported("moments of too many rows for a GPU"));
            }
            let kernel = l.kernel(Source::Columns, &[("TypeX", x.dtype)], "moments");
            let parts = if chunks == 1 { to } else { l.work(0, chunks * columns, DType::F32) };
            let divisor = if chunks == 1 { rows as f32 } else { 1.0 };
            let call =
                Call::new(kernel, [columns.div_ceil(32), chunks, 1], 256).read(x).read(mean).write(parts);
            l.launch(call.sizes([rows, columns, COLUMN_CHUNK]).f32(divisor));
            match chunks {
                1 => Ok(()),
                _ => add_chunks(l, 0, (chunks, columns), to, rows as f32),
            }
        }
        BatchNormPart::Apply { eps } => {
            let [gamma, beta, mean, var] = [1, 2, 3, 4].map(|i| l.input(i));
            let (after, rstd) = (After::of(l)?, l.result(1));
            let types = [("TypeX", c_type(x.dtype)), ("TypeG", c_type(gamma.dtype))];
            let kernel = after.kernel(l, Source::Norms, &types, "batch_norm");
            let call = Call::each(kernel, x.count).read(x).read(gamma).read(beta).read(mean).read(var);
            l.launch(after.given(call.write(rstd)).sizes([x.count, columns]).f32(eps as f32));
            Ok(())
        }
        BatchNormPart::Sums => {
            let [mean, rstd, dy] = [1, 2, 3].map(|i| l.input(i));
            let to = [l.result(0), l.result(1)];
            pair_sums(l, [x, mean, rstd, dy], Statistics::OfColumns, to)
        }
        BatchNormPart::Dx { rows } => {
            let [gamma, mean, rstd, dy, dgamma, dbeta] = [1, 2, 3, 4, 5, 6].map(|i| l.input(i));
            let dx = l.result(0);
            let types =
                [("TypeX", x.dtype), ("TypeY", dx.dtype), ("TypeG", gamma.dtype), ("TypeD", dy.dtype)];
            let kernel = l.kernel(Source::Columns, &types, "batch_norm_grad");
            let call = Call::each(kernel, dx.count).read(x).read(gamma).read(mean).read(rstd).read(dy);
            let call = call.read(dgamma).read(dbeta).write(dx);
            l.launch(call.sizes([dx.count, columns]).f32(rows as f32));
            Ok(())
        }
    }
}
