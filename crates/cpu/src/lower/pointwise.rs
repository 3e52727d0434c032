//! Casts and dropout on their own. Other elementwise operations run as [`super::group`] says.

use halfstep_graph::DType;
use halfstep_graph::engine::EngineError;

use super::{Lowering, Step};
use crate::rows::dropout::{DropKey, Dropout};
use crate::rows::storage::{Dst, Src, convert};

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
