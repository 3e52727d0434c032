//! Moving elements: the operand's type is the result's.

use halfstep_graph::engine::EngineError;
use halfstep_graph::{Graph, Node};

use super::{Lowering, Step};
use crate::elements::Elements;
use crate::memory::{Span, View, ViewMut, same_type};
use crate::pool::Pool;
use crate::rows::gather::{ScatterAdd, gather_rows, scatter_add_scratch_len};
use crate::rows::{RowError, permute as rows};

fn check(l: &Lowering<'_>, inputs: usize) -> Result<(), EngineError> {
    let to = l.output(0).dtype;
    match (0..inputs).map(|i| l.input(i).dtype).find(|&d| d != to) {
        None => Ok(()),
        Some(from) => Err(EngineError::Unsupported(format!(
            "`{}` moves {from} elements into a {to} tensor; it takes a cast first",
            l.node.op.name()
        ))),
    }
}

/// A step that calls `f(pool, x, y)` on raw elements.
fn moving(
    l: &Lowering<'_>,
    f: impl Fn(&Pool, View<'_>, ViewMut<'_>) -> Result<(), RowError> + Send + 'static,
) -> Result<Step, EngineError> {
    check(l, 1)?;
    l.step([l.input(0)], [l.output(0)], move |_, pool, [x], [y]| f(pool, x, y))
}

pub(super) fn permute(l: &Lowering<'_>, perm: &[usize]) -> Result<Step, EngineError> {
    let (shape, perm) = (l.shape(0).clone(), perm.to_vec());
    moving(l, move |pool, x, y| same_type!(x, y, |x, y| rows::permute(pool, &shape, &perm, x, y)))
}

pub(super) fn slice(l: &Lowering<'_>, axis: usize, start: usize) -> Result<Step, EngineError> {
    let (shape, lens) = (l.shape(0).clone(), l.result_shape().clone());
    let mut starts = vec![0; shape.len()];
    starts[axis] = start;
    moving(l, move |pool, x, y| same_type!(x, y, |x, y| rows::slice(pool, &shape, &starts, &lens, x, y)))
}

pub(super) fn pad(l: &Lowering<'_>, axis: usize, before: usize, after: usize) -> Result<Step, EngineError> {
    let shape = l.shape(0).clone();
    let (mut front, mut back) = (vec![0; shape.len()], vec![0; shape.len()]);
    (front[axis], back[axis]) = (before, after);
    moving(l, move |pool, x, y| {
        same_type!(x, y, |x, y| rows::pad(pool, &shape, &front, &back, Default::default(), x, y))
    })
}

pub(super) fn concat(l: &Lowering<'_>, axis: usize) -> Result<Step, EngineError> {
    check(l, l.node.inputs.len())?;
    let (to, at) = (l.output(0), l.at());
    let to_shape = l.result_shape().clone();
    let mut starts = vec![0; to_shape.len()];
    let mut parts = Vec::new();
    for i in 0..l.node.inputs.len() {
        let shape = l.shape(i).clone();
        let size = shape[axis];
        parts.push((l.input(i), shape, starts.clone()));
        starts[axis] += size;
    }
    Ok(Box::new(move |frame, run| {
        for (from, shape, starts) in &parts {
            let ([x], [y]) = frame.borrow([*from], [to]);
            let pool = &run.machine.pool;
            same_type!(x, y, |x, y| rows::copy_into(pool, shape, x, &to_shape, starts, y))
                .map_err(|e| at.error(e))?;
        }
        Ok(())
    }))
}

pub(super) fn gather(l: &Lowering<'_>) -> Result<Step, EngineError> {
    check(l, 1)?;
    let (height, width) = (l.shape(0)[0], l.shape(0)[1]);
    l.step(l.inputs(), [l.output(0)], move |_, pool, [table, index], [y]| {
        let index = index.i32();
        same_type!(table, y, |table, y| gather_rows(pool, table, height, width, index, y))
    })
}

pub(super) fn scatter_words(graph: &Graph, node: &Node, rows: usize) -> usize {
    scatter_add_scratch_len(rows, graph.shape(node.inputs[1]).count())
}

pub(super) fn scatter_add(l: &Lowering<'_>, work: Span) -> Result<Step, EngineError> {
    let (rows, width) = (l.result_shape()[0], l.result_shape()[1]);
    l.step(l.inputs(), [l.output(0), work], move |isa, pool, [dy, index], [table, work]| {
        ScatterAdd { rows, width, indices: index.i32(), x: dy.src(), y: table.dst(), scratch: work.words() }
            .run(isa, pool)
    })
}
