//! Rows and windows: norms, softmax, losses, reductions and pooling.

use halfstep_graph::engine::EngineError;
use halfstep_graph::{BatchNormPart, Graph, Node, Op, PoolKind, ReduceKind};

use super::group::{After, Borrowed};
use super::{Lowering, Step};
use crate::memory::Span;
use crate::rows::argmax::ArgMax;
use crate::rows::loss::{CrossEntropy, CrossEntropyBackward};
use crate::rows::norm::{
    BatchNormApply, BatchNormDx, BatchNormMoment, BatchNormSums, LayerNorm, LayerNormBackward,
    layer_norm_backward_scratch_len,
};
use crate::rows::pool2d::{PadCount, Pool2d, Pool2dBackward, PoolWindow, Pooling, pool_backward_scratch_len};
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
    let (shape, axes) = (l.shape(0).clone(), axes.to_vec());
    l.step([l.input(0)], [l.output(0), work], move |isa, pool, [x], [y, work]| {
        Reduce { kind, shape: &shape, axes: &axes, x: x.src(), y: y.dst(), scratch: work.f32() }
            .run(isa, pool)
    })
}

/// Rows and columns of operand 0.
fn matrix(l: &Lowering<'_>) -> (usize, usize) {
    (l.shape(0).rows(), l.shape(0).last())
}

pub(super) fn argmax(l: &Lowering<'_>) -> Result<Step, EngineError> {
    let (rows, cols) = matrix(l);
    l.step([l.input(0)], [l.output(0)], move |isa, pool, [x], [y]| {
        ArgMax { rows, cols, x: x.src(), y: y.i32() }.run(isa, pool)
    })
}

pub(super) fn softmax(l: &Lowering<'_>) -> Result<Step, EngineError> {
    let (rows, cols) = matrix(l);
    l.step([l.input(0)], [l.output(0)], move |isa, pool, [x], [y]| {
        Softmax { rows, cols, x: x.src(), y: y.dst() }.run(isa, pool)
    })
}

pub(super) fn layer_norm(l: &Lowering<'_>, eps: f64) -> Result<Step, EngineError> {
    let (rows, cols) = matrix(l);
    let writes = [0, 1, 2].map(|i| l.output(i));
    l.step(l.inputs(), writes, move |isa, pool, [x, gamma, beta], [y, mean, rstd]| {
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
        .run(isa, pool)
    })
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
    let after = After::new(l, &l.inputs::<5>(), &[l.output(1), l.output(2), work])?;
    let (at, (rows, cols)) = (l.at(), matrix(l));
    Ok(Box::new(move |frame, run| {
        let Borrowed { operands, results: [dx, dgamma, dbeta, work, _], chain } =
            after.borrow(frame, run, &at)?;
        let [x, gamma, mean, rstd, dy] = operands;
        LayerNormBackward {
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
        }
        .run(run.machine.isa, &run.machine.pool, chain.as_ref())
        .map_err(|e| at.error(e))
    }))
}

pub(super) fn batch_norm_part(
    l: &Lowering<'_>,
    part: BatchNormPart,
    work: Span,
) -> Result<Step, EngineError> {
    let (rows, cols) = matrix(l);
    match part {
        BatchNormPart::Mean => l.step(l.inputs(), [l.output(0), work], move |isa, pool, [x], [to, work]| {
            let (to, scratch) = (to.f32(), work.f32());
            BatchNormMoment { rows, cols, x: x.src(), about: None, to, scratch }.run(isa, pool)
        }),
        BatchNormPart::Variance => {
            l.step(l.inputs(), [l.output(0), work], move |isa, pool, [x, mean], [to, work]| {
                let (to, scratch) = (to.f32(), work.f32());
                BatchNormMoment { rows, cols, x: x.src(), about: Some(mean.f32()), to, scratch }
                    .run(isa, pool)
            })
        }
        BatchNormPart::Apply { eps } => {
            let (after, at) = (After::new(l, &l.inputs::<5>(), &[l.output(1)])?, l.at());
            Ok(Box::new(move |frame, run| {
                let Borrowed { operands: [x, gamma, beta, mean, var], results: [y, rstd, ..], chain } =
                    after.borrow(frame, run, &at)?;
                BatchNormApply {
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
                }
                .run(run.machine.isa, &run.machine.pool, chain.as_ref())
                .map_err(|e| at.error(e))
            }))
        }
        BatchNormPart::Sums => {
            let writes = [l.output(0), l.output(1), work];
            l.step(l.inputs(), writes, move |isa, pool, [x, mean, rstd, dy], [dgamma, dbeta, work]| {
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
                .run(isa, pool)
            })
        }
        BatchNormPart::Dx { rows } => l.step(l.inputs(), [l.output(0)], move |isa, pool, reads, [dx]| {
            let [x, gamma, mean, rstd, dy, dgamma, dbeta] = reads;
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
            .run(isa, pool)
        }),
    }
}

pub(super) fn cross_entropy(l: &Lowering<'_>) -> Result<Step, EngineError> {
    let (rows, cols) = matrix(l);
    l.step(l.inputs(), [l.output(0), l.output(1)], move |isa, pool, [logits, target], [loss, lse]| {
        let (logits, targets) = (logits.src(), target.i32());
        CrossEntropy { rows, cols, logits, targets, loss: loss.f32(), lse: lse.f32() }.run(isa, pool)
    })
}

pub(super) fn cross_entropy_grad(l: &Lowering<'_>) -> Result<Step, EngineError> {
    let (reads, to) = (l.inputs::<4>(), l.output(0));
    let [logits, rest @ ..] = reads;
    let (rows, cols) = matrix(l);
    if logits == to {
        return l.step(rest, [to], move |isa, pool, [target, lse, dloss], [to]| {
            let (targets, lse, dloss) = (target.i32(), lse.f32(), dloss.src());
            let (logits, dlogits) = (None, to.dst());
            CrossEntropyBackward { rows, cols, logits, targets, lse, dloss, dlogits }.run(isa, pool)
        });
    }
    l.step(reads, [to], move |isa, pool, [logits, target, lse, dloss], [to]| {
        let (targets, lse, dloss) = (target.i32(), lse.f32(), dloss.src());
        let (logits, dlogits) = (Some(logits.src()), to.dst());
        CrossEntropyBackward { rows, cols, logits, targets, lse, dloss, dlogits }.run(isa, pool)
    })
}

fn window(graph: &Graph, node: &Node, size: usize, stride: usize) -> PoolWindow {
    let shape = graph.shape(node.inputs[0]);
    PoolWindow::square([0, 1, 2, 3].map(|i| shape[i]), size, stride)
}

fn pooling(kind: PoolKind) -> Pooling {
    match kind {
        PoolKind::Max => Pooling::Max,
        PoolKind::Mean => Pooling::Mean(PadCount::Included),
    }
}

pub(super) fn pool(
    l: &Lowering<'_>,
    kind: PoolKind,
    size: usize,
    stride: usize,
) -> Result<Step, EngineError> {
    let (window, pooling) = (window(l.graph, l.node, size, stride), pooling(kind));
    l.step([l.input(0)], [l.output(0)], move |isa, pool, [x], [y]| {
        Pool2d { window, pooling, x: x.src(), y: y.dst() }.run(isa, pool)
    })
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
    let (window, pooling) = (window(l.graph, l.node, size, stride), pooling(kind));
    l.step(l.inputs(), [l.output(0), work], move |isa, pool, [x, dy], [dx, work]| {
        let (x, dy, dx, scratch) = (x.src(), dy.src(), dx.dst(), work.f32());
        Pool2dBackward { window, pooling, x, dy, dx, scratch }.run(isa, pool)
    })
}
