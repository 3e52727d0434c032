//! Sums over ranks: operands are packed into memory of their own, which travels while the program
//! goes on.

use halfstep_graph::DType;
use halfstep_graph::communicator::Payload;
use halfstep_graph::engine::EngineError;

use super::{Lowering, Step};
use crate::memory::Span;
use crate::rows::convert::convert;
use crate::rows::storage::{Dst, Src};

/// Of what the planner and the exchange agree on, which only a bug can break.
fn broken(what: &str) -> EngineError {
    EngineError::Unsupported(format!("a sum over ranks {what}"))
}

pub(super) fn start(l: &Lowering<'_>, over: DType) -> Result<Step, EngineError> {
    let operands: Vec<Span> = (0..l.node.inputs.len()).map(|i| l.input(i)).collect();
    let count: usize = operands.iter().map(|span| span.count).sum();
    let empty = move || Payload::zeros(over, count);
    empty().ok_or_else(|| broken(&format!("in {over}, which does not travel")))?;
    let (flight, at) = (l.node.outputs[0], l.at());
    Ok(Box::new(move |frame, run| {
        let ranks = run.ranks.ok_or_else(|| broken("of an engine without ranks"))?;
        let sum = run.transit.entry(flight).or_default();
        let mut payload = sum.memory.take().or_else(empty).ok_or_else(|| broken("without memory"))?;
        let mut begin = 0;
        for &operand in &operands {
            let here = begin..begin + operand.count;
            begin = here.end;
            let to = match &mut payload {
                Payload::F32(to) => Dst::F32(&mut to[here]),
                Payload::Bf16(to) => Dst::Bf16(&mut to[here]),
            };
            convert(run.machine.isa, &run.machine.pool, frame.read(operand).src(), to)
                .map_err(|e| at.error(e))?;
        }
        sum.under_way = Some(ranks.start_sum(payload));
        Ok(())
    }))
}

pub(super) fn wait(l: &Lowering<'_>, factor: f64) -> Result<Step, EngineError> {
    let results: Vec<Span> = (0..l.node.outputs.len()).map(|i| l.output(i)).collect();
    let (flight, at) = (l.node.inputs[0], l.at());
    Ok(Box::new(move |frame, run| {
        let sum = run.transit.get_mut(&flight).ok_or_else(|| broken("that never began"))?;
        let under_way = sum.under_way.take().ok_or_else(|| broken("that never began"))?;
        let payload = under_way.wait()?;
        let mut begin = 0;
        for &result in &results {
            let here = begin..begin + result.count;
            begin = here.end;
            let from = match &payload {
                Payload::F32(from) => Src::F32(&from[here]),
                Payload::Bf16(from) => Src::Bf16(&from[here]),
            };
            let ([], [to]) = frame.borrow([], [result]);
            let to = to.f32();
            convert(run.machine.isa, &run.machine.pool, from, Dst::F32(&mut *to)).map_err(|e| at.error(e))?;
            if factor != 1.0 {
                to.iter_mut().for_each(|x| *x *= factor as f32);
            }
        }
        sum.memory = Some(payload);
        Ok(())
    }))
}
