//! Rows and columns: softmax, norms and losses.

use halfstep_graph::engine::EngineError;
use halfstep_graph::{BatchNormPart, DType, Graph, Node, Op};

use super::pointwise::After;
use super::reduce::{Stage, block_of, wide};
use super::{Call, Lowering};
use crate::command::{Action, Argument};
use crate::kernels::{Source, c_type};
use crate::stored::Stored;

/// How a block takes a row: threads, neighbours of each in one access, and at how many places those
/// are that stay in registers; at none where there would be too many.
struct Row {
    block: u32,
    macros: [(&'static str, &'static str); 2],
}

impl Row {
    /// Of elements of these types.
    fn of(size: usize, types: &[DType]) -> Row {
        let (n, wide) = wide(size, types);
        let places = size.div_ceil(n);
        let block = places.div_ceil(4).next_multiple_of(32).min(1024);
        let each = *["0", "1", "2", "3", "4"].get(places.div_ceil(block)).unwrap_or(&"0");
        Row { block: block as u32, macros: [("WIDE", wide), ("EACH", each)] }
    }

    /// A launch of a kernel of `rows.cu` with a block for each row of operand 0.
    fn call(&self, l: &mut Lowering<'_>, types: &[(&str, DType)], entry: &str) -> Call {
        let types = types.iter().map(|&(m, t)| (m, c_type(t))).chain(self.macros);
        let kernel = l.output.modules.kernel(Source::Rows, &types.collect::<Vec<_>>(), entry);
        Call::new(kernel, [l.matrix().0, 1, 1], self.block)
    }
}

/// The types of results of the group that have as many elements as operand 0.
fn stored(l: &Lowering<'_>) -> Vec<DType> {
    let results = l.group.writes.iter().map(|&v| l.value(v));
    results.filter(|v| v.count == l.input(0).count).map(|v| v.dtype).collect()
}

pub(super) fn argmax(l: &mut Lowering<'_>) -> Result<(), EngineError> {
    let (x, y, (rows, columns)) = (l.input(0), l.result(0), l.matrix());
    let kernel = l.wide_kernel(Source::Rows, &[("TypeX", x.dtype)], "1", "argmax");
    let call = Call::new(kernel, [rows, 1, 1], block_of(columns)).read(x).write(y);
    l.launch(call.sizes([columns]));
    Ok(())
}

pub(super) fn softmax(l: &mut Lowering<'_>) -> Result<(), EngineError> {
    let (x, y, columns) = (l.input(0), l.result(0), l.matrix().1);
    let row = Row::of(columns, &[x.dtype, y.dtype]);
    let call = row.call(l, &[("TypeX", x.dtype), ("TypeY", y.dtype)], "softmax");
    l.launch(call.read(x).write(y).sizes([columns]));
    Ok(())
}

pub(super) fn cross_entropy(l: &mut Lowering<'_>) -> Result<(), EngineError> {
    let (x, target, columns) = (l.input(0), l.input(1), l.matrix().1);
    let call = Row::of(columns, &[x.dtype]).call(l, &[("TypeX", x.dtype)], "cross_entropy");
    let call = call.read(x).read(target).write(l.result(0)).write(l.result(1));
    l.launch(call.sizes([columns]));
    Ok(())
}

pub(super) fn cross_entropy_grad(l: &mut Lowering<'_>) -> Result<(), EngineError> {
    let [x, target, lse, dloss] = [0, 1, 2, 3].map(|i| l.input(i));
    let (dx, columns) = (l.result(0), l.matrix().1);
    let (n, wide) = wide(columns, &[x.dtype, dx.dtype]);
    let types = [("TypeX", x.dtype), ("TypeY", dx.dtype)];
    let kernel = l.wide_kernel(Source::Rows, &types, wide, "cross_entropy_grad");
    let call = Call::each(kernel, dx.count / n).read(x).read(target).read(lse).read(dloss).write(dx);
    l.launch(call.sizes([dx.count, columns]));
    Ok(())
}

pub(super) fn layer_norm(l: &mut Lowering<'_>, eps: f64) -> Result<(), EngineError> {
    let [x, gamma, beta] = [0, 1, 2].map(|i| l.input(i));
    let (y, columns) = (l.result(0), l.matrix().1);
    let types = [("TypeX", x.dtype), ("TypeY", y.dtype), ("TypeG", gamma.dtype)];
    let call = Row::of(columns, &[x.dtype, y.dtype, gamma.dtype]).call(l, &types, "layer_norm");
    let call = call.read(x).read(gamma).read(beta).write(y).write(l.result(1)).write(l.result(2));
    l.launch(call.sizes([columns]).f32(eps as f32));
    Ok(())
}

/// How the sums that a node takes over rows are made, and how many for each column.
fn sums(graph: &Graph, node: &Node) -> Option<(Stage, usize)> {
    let (shape, x) = (graph.shape(node.inputs[0]), graph.dtype(node.inputs[0]));
    let of = |types: &[DType]| Stage::of_columns((shape.rows(), shape.last()), types);
    match node.op {
        Op::BatchNormPart(BatchNormPart::Mean | BatchNormPart::Variance) => Some((of(&[x]), 2)),
        Op::BatchNormPart(BatchNormPart::Sums) => Some((of(&[x, graph.dtype(node.inputs[3])]), 2)),
        Op::LayerNormGrad => Some((of(&[x, graph.dtype(node.inputs[4])]), 2)),
        _ => None,
    }
}

pub(super) fn workspace_bytes(graph: &Graph, node: &Node) -> usize {
    sums(graph, node).map_or(0, |(stage, results)| stage.part_bytes(results))
}

pub(super) fn kept_bytes(graph: &Graph, node: &Node) -> usize {
    sums(graph, node).map_or(0, |(stage, _)| stage.counter_bytes())
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
    let stage = Stage::of_columns((rows, columns), &[x.dtype, dy.dtype]);
    stage.check(l)?;
    let types = [("TypeX", x.dtype), ("TypeD", dy.dtype)];
    let kernel = l.wide_kernel(Source::Columns, &types, stage.wide, "pair_sums");
    let call = Call::new(kernel, stage.grid(), 256).read(x).read(mean).read(rstd).read(dy);
    let call = stage.parts(l, call.write(to[0]).write(to[1]), 2, (0, 0));
    let by_rows = i32::from(statistics == Statistics::OfRows);
    l.launch(call.sizes([rows, columns, stage.chunk]).with(Argument::I32(by_rows)));
    Ok(())
}

/// The mean of each column of operand 0, or its variance around operand 1.
fn statistics(l: &mut Lowering<'_>, part: BatchNormPart) -> Result<(), EngineError> {
    let ((rows, columns), x, to) = (l.matrix(), l.input(0), l.result(0));
    let stage = Stage::of_columns((rows, columns), &[x.dtype]);
    stage.check(l)?;
    let kernel = l.wide_kernel(Source::Columns, &[("TypeX", x.dtype)], stage.wide, "statistics");
    let call = Call::new(kernel, stage.grid(), 256).read(x);
    let call = match part {
        BatchNormPart::Mean => call.with(Argument::Null).write(to).with(Argument::Null),
        _ if joins_mean(l, &call, to) => return Ok(()),
        _ => call.read(l.input(1)).with(Argument::Null).write(to),
    };
    let call = stage.parts(l, call, 2, (0, 0));
    l.launch(call.sizes([rows, columns, stage.chunk]));
    Ok(())
}

/// Lets the launch that takes the mean of operand 0, which operand 1 is, take the variance too: it
/// has the same bits in a launch of its own. Says whether there is one that can.
fn joins_mean(l: &mut Lowering<'_>, call: &Call, var: Stored) -> bool {
    let mean = Argument::Pointer(l.input(1).span);
    let joined = Action::Launch(call.clone().also_write(var).0);
    for before in l.output.commands.iter_mut().rev() {
        if let Action::Launch(launch) = &mut before.action
            && launch.kernel == call.0.kernel
            && let [x, Argument::Null, of, to @ Argument::Null, ..] = &mut launch.arguments[..]
            && (&*x, &*of) == (&call.0.arguments[0], &mean)
            && launch.reads.iter().chain(&launch.writes).all(|span| !span.overlaps(&var.span))
        {
            *to = Argument::Pointer(var.span);
            launch.writes.push(var.span);
            return true;
        }
        if before.action.conflicts(&joined) {
            return false;
        }
    }
    false
}

pub(super) fn layer_norm_grad(l: &mut Lowering<'_>) -> Result<(), EngineError> {
    let [x, gamma, mean, rstd, dy] = [0, 1, 2, 3, 4].map(|i| l.input(i));
    let (rows, columns) = l.matrix();
    let row = Row::of(columns, &[&stored(l)[..], &[x.dtype, gamma.dtype, dy.dtype]].concat());
    let after = After::wide(l, row.macros[0].1)?;
    let types = [("TypeX", x.dtype), ("TypeG", gamma.dtype), ("TypeD", dy.dtype)];
    let types = types.map(|(m, t)| (m, c_type(t)));
    let kernel = after.kernel(l, Source::Norms, &[&types[..], &row.macros].concat(), "layer_norm_grad");
    let call = Call::new(kernel, [rows, 1, 1], row.block).read(x).read(gamma).read(mean).read(rstd);
    l.launch(after.given(call.read(dy)).sizes([columns]));
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
        BatchNormPart::Mean | BatchNormPart::Variance => statistics(l, part),
        BatchNormPart::Apply { eps } => {
            let [gamma, beta, mean, var] = [1, 2, 3, 4].map(|i| l.input(i));
            let stage = Stage::over_columns((rows, columns), &[&stored(l)[..], &[x.dtype]].concat());
            stage.check(l)?;
            let (after, rstd) = (After::wide(l, stage.wide)?, l.result(1));
            let types = [("TypeX", c_type(x.dtype)), ("TypeG", c_type(gamma.dtype)), ("WIDE", stage.wide)];
            let kernel = after.kernel(l, Source::Norms, &types, "batch_norm");
            let call = Call::new(kernel, stage.grid(), 256).read(x).read(gamma).read(beta).read(mean);
            let call = after.given(call.read(var).write(rstd)).sizes([rows, columns, stage.chunk]);
            l.launch(call.f32(eps as f32));
            Ok(())
        }
        BatchNormPart::Sums => {
            let [mean, rstd, dy] = [1, 2, 3].map(|i| l.input(i));
            let to = [l.result(0), l.result(1)];
            pair_sums(l, [x, mean, rstd, dy], Statistics::OfColumns, to)
        }
        BatchNormPart::Dx { rows } => {
            let [gamma, mean, rstd, dy, dgamma, dbeta] = [1, 2, 3, 4, 5, 6].map(|i| l.input(i));
            let (dx, here) = (l.result(0), l.matrix().0);
            let stage = Stage::over_columns((here, columns), &[x.dtype, dy.dtype, dx.dtype]);
            stage.check(l)?;
            let types =
                [("TypeX", x.dtype), ("TypeY", dx.dtype), ("TypeG", gamma.dtype), ("TypeD", dy.dtype)];
            let kernel = l.wide_kernel(Source::Columns, &types, stage.wide, "batch_norm_grad");
            let call = Call::new(kernel, stage.grid(), 256).read(x).read(gamma).read(mean).read(rstd);
            let call = call.read(dy).read(dgamma).read(dbeta).write(dx);
            l.launch(call.sizes([here, columns, stage.chunk]).f32(rows as f32));
            Ok(())
        }
    }
}
