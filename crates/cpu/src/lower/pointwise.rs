//! Element by element: one-operation tile programs, casts and dropout.

use halfstep_graph::engine::EngineError;
use halfstep_graph::{DType, Op};

use super::{Lowering, Step};
use crate::memory::Span;
use crate::program::constant;
use crate::rows::dropout::{DropKey, Dropout};
use crate::rows::elementwise::{Operand, Output, TileOp, TileProgram, Value};
use crate::rows::storage::{Dst, Src, Storage, convert};

/// Operands of the longest chain a node can be.
const MOST: usize = 3;

fn storage(span: Span) -> Result<Storage, EngineError> {
    Storage::of(span.dtype).ok_or_else(|| EngineError::Unsupported("arithmetic on integers".into()))
}

/// A program of one operation. A constant operand becomes part of the program; an operand that lies where the result
/// goes is read from there.
pub(super) fn chain(l: &Lowering<'_>) -> Result<Step, EngineError> {
    let at = l.at();
    let to = l.output(0);
    let shape = l.result_shape();
    let mut operands = Vec::new();
    let mut sources = Vec::new();
    let mut ops = Vec::new();
    for (i, &value) in l.node.inputs.iter().enumerate() {
        let span = l.input(i);
        ops.push(if let Some(x) = constant(l.graph, value) {
            TileOp::Const(x as f32)
        } else if span == to {
            TileOp::Previous(0)
        } else {
            let operand = Operand::broadcast(storage(span)?, l.shape(i), shape).map_err(|e| at.row(e))?;
            operands.push(operand);
            sources.push(span);
            TileOp::Input(operands.len() - 1)
        });
    }
    let last = Value(ops.len() as u16);
    let result = match &l.node.op {
        Op::Unary(f) => TileOp::Unary(*f, Value(0)),
        Op::Binary(f) => TileOp::Binary(*f, Value(0), Value(1)),
        Op::Select => TileOp::Select(Value(0), Value(1), Value(2)),
        Op::Broadcast { .. } => TileOp::Round(storage(to)?, Value(0)),
        other => return Err(EngineError::Unsupported(format!("`{}` is not elementwise", other.name()))),
    };
    ops.push(result);
    let output = Output { storage: storage(to)?, value: last };
    let program = TileProgram::new(operands, ops, vec![output]).map_err(|e| at.row(e))?;
    let filled = |i: usize| sources.get(i).copied();
    let sources: [Option<Span>; MOST] = [filled(0), filled(1), filled(2)];
    Ok(Box::new(move |frame, run| {
        let machine = run.machine;
        // Absent operands borrow nothing: an empty span.
        let reads = sources.map(|s| s.unwrap_or(Span { count: 0, ..to }));
        let (views, [to_view]) = frame.borrow(reads, [to]);
        let count = sources.iter().flatten().count();
        let views = views.map(|v| v.src());
        let result = &mut [to_view.dst()];
        program.run(machine.isa, &machine.pool, to.count, &views[..count], result).map_err(|e| at.row(e))
    }))
}

pub(super) fn cast(l: &Lowering<'_>) -> Result<Step, EngineError> {
    let (from, to, at) = (l.input(0), l.output(0), l.at());
    if from.dtype == DType::I32 || to.dtype == DType::I32 {
        return Err(EngineError::Unsupported("casts from and to integers".into()));
    }
    Ok(Box::new(move |frame, run| {
        let ([from], [to]) = frame.borrow([from], [to]);
        let (from, to): (Src<'_>, Dst<'_>) = (from.src(), to.dst());
        convert(run.machine.isa, &run.machine.pool, from, to).map_err(|e| at.row(e))
    }))
}

pub(super) fn dropout(l: &Lowering<'_>, rate: f64, id: u32) -> Result<Step, EngineError> {
    let (x, key, y, at) = (l.input(0), l.input(1), l.output(0), l.at());
    let samples = l.shape(0).first().copied().unwrap_or(1);
    Ok(Box::new(move |frame, run| {
        let ([x, key], [y]) = frame.borrow([x, key], [y]);
        let &[low, high, attempt, first_sample] = key.i32() else {
            unreachable!("the shape rule wants four words")
        };
        let seed = u64::from(low as u32) | u64::from(high as u32) << 32;
        let x = x.src();
        Dropout {
            rate: rate as f32,
            key: DropKey { seed, op: id, attempt: attempt as u32 },
            samples,
            per_sample: x.len() / samples,
            first_sample: first_sample as u32,
            x,
            y: y.dst(),
        }
        .run(run.machine.isa, &run.machine.pool)
        .map_err(|e| at.row(e))
    }))
}
