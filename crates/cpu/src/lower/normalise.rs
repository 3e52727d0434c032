//! Rows and windows: norms, softmax, losses, reductions and pooling.

use halfstep_graph::engine::EngineError;
use halfstep_graph::{BatchNormPart, Graph, Node, Op, PoolKind, ReduceKind};

use super::group::{After, Borrowed};
use super::{Lowering, Step};
use crate::memory::Span;
use crate::rows::argmax::ArgMax;
use crate::rows::loss::{CrossEntropy, CrossEntropyBackward, CrossEntropyBackwardInPlace};
use crate::rows::norm::{
    BatchNormApply, BatchNormDx, BatchNormMoment, BatchNormSums, LayerNorm, LayerNormBackward,
    layer_norm_backward_scratch_len,
};
use crate::rows::pool2d::{
    AvgPool, AvgPoolBackward, MaxPool, MaxPoolBackward, PadCount, PoolWindow, pool_backward_scratch_len,
};
use crate::rows::reduce::{Reduce, column_scratch_len, reduce_scratch_len};
use crate::rows::softmax::Softmax;

pub(super) fn reduce_words(graph: &Graph, node: &Node, axes: &[usize]) -> usize {
    reduce_scratch_len(graph.shape(node.inputs[0]), axes)
}

pub(super) fn reduce(
    l: &Lowering<'_>,
    kind: ReduceKind,
    axes: &[usize],
    work: Span,
) -> Result<Step, EngineError> {
    let (x, y, at) = (l.input(0), l.output(0), l.at());
    let (shape, axes) = (l.shape(0).clone(), axes.to_vec());
    Ok(Box::new(move |frame, run| {
        let ([x], [y, work]) = frame.borrow([x], [y, work]);
        Reduce { kind, shape: &shape, axes: &axes, x: x.src(), y: y.dst(), scratch: work.f32() }
            .run(run.machine.isa, &run.machine.pool)
            .map_err(|e| at.row(e))
    }))
}

/// Rows and columns of operand 0.
fn matrix(l: &Lowering<'_>) -> (usize, usize) {
    (l.shape(0).rows(), l.shape(0).last())
}

pub(super) fn argmax(l: &Lowering<'_>) -> Result<Step, EngineError> {
    let (x, y, at) = (l.input(0), l.output(0), l.at());
    let (rows, cols) = matrix(l);
    Ok(Box::new(move |frame, run| {
        let ([x], [y]) = frame.borrow([x], [y]);
        ArgMax { rows, cols, x: x.src(), y: y.i32() }
            .run(run.machine.isa, &run.machine.pool)
            .map_err(|e| at.row(e))
    }))
}

pub(super) fn softmax(l: &Lowering<'_>) -> Result<Step, EngineError> {
    let (x, y, at) = (l.input(0), l.output(0), l.at());
    let (rows, cols) = matrix(l);
    Ok(Box::new(move |frame, run| {
        let ([x], [y]) = frame.borrow([x], [y]);
        Softmax { rows, cols, x: x.src(), y: y.dst() }
            .run(run.machine.isa, &run.machine.pool)
            .map_err(|e| at.row(e))
    }))
}

pub(super) fn layer_norm(l: &Lowering<'_>, eps: f64) -> Result<Step, EngineError> {
    let reads = [l.input(0), l.input(1), l.input(2)];
    let writes = [l.output(0), l.output(1), l.output(2)];
    let (at, (rows, cols)) = (l.at(), matrix(l));
    Ok(Box::new(move |frame, run| {
        let ([x, gamma, beta], [y, mean, rstd]) = frame.borrow(reads, writes);
        LayerNorm {
            rows,
            cols,
            eps: eps as f32,
            x: x.src(),
            gamma: Some(gamma.src()),
            beta: Some(beta.src()),
            y: y.dst(),
            mean: mean.f32(),
            rstd: rstd.f32(),
        }
        .run(run.machine.isa, &run.machine.pool)
        .map_err(|e| at.row(e))
    }))
}

pub(super) fn norm_words(graph: &Graph, node: &Node) -> usize {
    let shape = graph.shape(node.inputs[0]);
    let (rows, cols) = (shape.rows(), shape.last());
    match node.op {
        Op::LayerNormGrad => layer_norm_backward_scratch_len(rows, cols),
        Op::BatchNormPart(BatchNormPart::Mean | BatchNormPart::Variance) => column_scratch_len(rows, cols, 1),
        Op::BatchNormPart(BatchNormPart::Sums) => column_scratch_len(rows, cols, 2),
        _ => 0,
    }
}

pub(super) fn layer_norm_grad(l: &Lowering<'_>, work: Span) -> Result<Step, EngineError> {
    let reads = [0, 1, 2, 3, 4].map(|i| l.input(i));
    let after = After::new(l, &reads, &[l.output(1), l.output(2), work])?;
    let (at, (rows, cols)) = (l.at(), matrix(l));
    Ok(Box::new(move |frame, run| {
        let Borrowed { operands, results: [dx, dgamma, dbeta, work, _], chain } =
            after.borrow(frame, run, &at)?;
        let [x, gamma, mean, rstd, dy] = operands;
        let backward = LayerNormBackward {
            rows,
            cols,
            x: x.src(),
            gamma: Some(gamma.src()),
            mean: mean.f32(),
            rstd: rstd.f32(),
            dy: dy.src(),
            dx: dx.dst(),
            dgamma: Some(dgamma.dst()),
            dbeta: Some(dbeta.dst()),
            scratch: work.f32(),
        };
        let (isa, pool) = (run.machine.isa, &run.machine.pool);
        match &chain {
            None => backward.run(isa, pool),
            Some(chain) => backward.run_into(isa, pool, chain),
        }
        .map_err(|e| at.row(e))
    }))
}

pub(super) fn batch_norm_part(
    l: &Lowering<'_>,
    part: BatchNormPart,
    work: Span,
) -> Result<Step, EngineError> {
    let (at, (rows, cols)) = (l.at(), matrix(l));
    let inputs = |i: usize| l.input(i);
    Ok(match part {
        BatchNormPart::Mean => {
            let (x, to) = (inputs(0), [l.output(0), work]);
            Box::new(move |frame, run| {
                let ([x], [to, work]) = frame.borrow([x], to);
                let (to, scratch) = (to.f32(), work.f32());
                BatchNormMoment { rows, cols, x: x.src(), about: None, to, scratch }
                    .run(run.machine.isa, &run.machine.pool)
                    .map_err(|e| at.row(e))
            })
        }
        BatchNormPart::Variance => {
            let (reads, to) = ([0, 1].map(inputs), [l.output(0), work]);
            Box::new(move |frame, run| {
                let ([x, mean], [to, work]) = frame.borrow(reads, to);
                let (to, scratch) = (to.f32(), work.f32());
                BatchNormMoment { rows, cols, x: x.src(), about: Some(mean.f32()), to, scratch }
                    .run(run.machine.isa, &run.machine.pool)
                    .map_err(|e| at.row(e))
            })
        }
        BatchNormPart::Apply { eps } => {
            let after = After::new(l, &[0, 1, 2, 3, 4].map(inputs), &[l.output(1)])?;
            Box::new(move |frame, run| {
                let Borrowed { operands: [x, gamma, beta, mean, var], results: [y, rstd, ..], chain } =
                    after.borrow(frame, run, &at)?;
                let apply = BatchNormApply {
                    rows,
                    cols,
                    eps: eps as f32,
                    x: x.src(),
                    gamma: Some(gamma.src()),
                    beta: Some(beta.src()),
                    mean: mean.f32(),
                    var: var.f32(),
                    y: y.dst(),
                    rstd: rstd.f32(),
                };
                let (isa, pool) = (run.machine.isa, &run.machine.pool);
                match &chain {
                    None => apply.run(isa, pool),
                    Some(chain) => apply.run_into(isa, pool, chain),
                }
                .map_err(|e| at.row(e))
            })
        }
        BatchNormPart::Sums => {
            let (reads, to) = ([0, 1, 2, 3].map(inputs), [l.output(0), l.output(1), work]);
            Box::new(move |frame, run| {
                let ([x, mean, rstd, dy], [dgamma, dbeta, work]) = frame.borrow(reads, to);
                BatchNormSums {
                    rows,
                    cols,
                    x: x.src(),
                    mean: mean.f32(),
                    rstd: rstd.f32(),
                    dy: dy.src(),
                    dgamma: dgamma.f32(),
                    dbeta: dbeta.f32(),
                    scratch: work.f32(),
                }
                .run(run.machine.isa, &run.machine.pool)
                .map_err(|e| at.row(e))
            })
        }
        BatchNormPart::Dx { rows } => {
            let (reads, to) = ([0, 1, 2, 3, 4, 5, 6].map(inputs), l.output(0));
            Box::new(move |frame, run| {
                let ([x, gamma, mean, rstd, dy, dgamma, dbeta], [dx]) = frame.borrow(reads, [to]);
                BatchNormDx {
                    rows,
                    cols,
                    x: x.src(),
                    gamma: Some(gamma.src()),
                    mean: mean.f32(),
                    rstd: rstd.f32(),
                    dy: dy.src(),
                    dgamma: dgamma.f32(),
                    dbeta: dbeta.f32(),
                    dx: dx.dst(),
                }
                .run(run.machine.isa, &run.machine.pool)
                .map_err(|e| at.row(e))
            })
        }
    })
}

pub(super) fn cross_entropy(l: &Lowering<'_>) -> Result<Step, EngineError> {
    let (reads, writes) = ([l.input(0), l.input(1)], [l.output(0), l.output(1)]);
    let (at, (rows, cols)) = (l.at(), matrix(l));
    Ok(Box::new(move |frame, run| {
        let ([logits, target], [loss, lse]) = frame.borrow(reads, writes);
        let targets = target.i32();
        CrossEntropy { rows, cols, logits: logits.src(), targets, loss: loss.f32(), lse: lse.f32() }
            .run(run.machine.isa, &run.machine.pool)
            .map_err(|e| at.row(e))
    }))
}

pub(super) fn cross_entropy_grad(l: &Lowering<'_>) -> Result<Step, EngineError> {
    let (logits, rest, to) = (l.input(0), [l.input(1), l.input(2), l.input(3)], l.output(0));
    let (at, (rows, cols)) = (l.at(), matrix(l));
    Ok(Box::new(move |frame, run| {
        let machine = run.machine;
        if logits == to {
            let ([target, lse, dloss], [logits]) = frame.borrow(rest, [to]);
            let (targets, lse, dloss) = (target.i32(), lse.f32(), dloss.src());
            return CrossEntropyBackwardInPlace { rows, cols, targets, lse, dloss, logits: logits.dst() }
                .run(machine.isa, &machine.pool)
                .map_err(|e| at.row(e));
        }
        let ([logits, target, lse, dloss], [dlogits]) =
            frame.borrow([logits, rest[0], rest[1], rest[2]], [to]);
        CrossEntropyBackward {
            rows,
            cols,
            logits: logits.src(),
            targets: target.i32(),
            lse: lse.f32(),
            dloss: dloss.src(),
            dlogits: dlogits.dst(),
        }
        .run(machine.isa, &machine.pool)
        .map_err(|e| at.row(e))
    }))
}

fn window(graph: &Graph, node: &Node, size: usize, stride: usize) -> PoolWindow {
    let shape = graph.shape(node.inputs[0]);
    PoolWindow::square([0, 1, 2, 3].map(|i| shape[i]), size, stride)
}

pub(super) fn pool(
    l: &Lowering<'_>,
    kind: PoolKind,
    size: usize,
    stride: usize,
) -> Result<Step, EngineError> {
    let (x, y, at) = (l.input(0), l.output(0), l.at());
    let window = window(l.graph, l.node, size, stride);
    Ok(Box::new(move |frame, run| {
        let machine = run.machine;
        let ([x], [y]) = frame.borrow([x], [y]);
        let (x, y) = (x.src(), y.dst());
        match kind {
            PoolKind::Max => MaxPool { window, x, y }.run(machine.isa, &machine.pool),
            PoolKind::Mean => {
                AvgPool { window, padding: PadCount::Included, x, y }.run(machine.isa, &machine.pool)
            }
        }
        .map_err(|e| at.row(e))
    }))
}

pub(super) fn pool_words(graph: &Graph, node: &Node, size: usize, stride: usize, threads: usize) -> usize {
    pool_backward_scratch_len(threads, &window(graph, node, size, stride))
}

pub(super) fn pool_grad(
    l: &Lowering<'_>,
    kind: PoolKind,
    size: usize,
    stride: usize,
    work: Span,
) -> Result<Step, EngineError> {
    let (reads, writes, at) = ([l.input(0), l.input(1)], [l.output(0), work], l.at());
    let window = window(l.graph, l.node, size, stride);
    Ok(Box::new(move |frame, run| {
        let machine = run.machine;
        let ([x, dy], [dx, work]) = frame.borrow(reads, writes);
        let (x, dy, dx, scratch) = (x.src(), dy.src(), dx.dst(), work.f32());
        match kind {
            PoolKind::Max => MaxPoolBackward { window, x, dy, dx, scratch }.run(machine.isa, &machine.pool),
            PoolKind::Mean => AvgPoolBackward { window, padding: PadCount::Included, dy, dx, scratch }
                .run(machine.isa, &machine.pool),
        }
        .map_err(|e| at.row(e))
    }))
}
