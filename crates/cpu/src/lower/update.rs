//! The update: the gradients' norm and the optimisers, in place where the plan says so.

use halfstep_graph::engine::EngineError;
use halfstep_graph::{AdamWSpec, SgdSpec};

use super::{Lowering, Step};
use crate::memory::{Frame, Span};
use crate::rows::optim::{AdamW, AdamWRule, Apply, Nesterov, Sgd, SgdRule};
use crate::rows::reduce::sum_of_squares;

pub(super) fn global_norm(l: &Lowering<'_>) -> Result<Step, EngineError> {
    let tensors: Vec<Span> = (0..l.node.inputs.len()).map(|i| l.input(i)).collect();
    let norm = l.output(0);
    Ok(Box::new(move |frame, run| {
        let mut squares = 0.0;
        for &tensor in &tensors {
            squares += sum_of_squares(run.machine.isa, &run.machine.pool, frame.read(tensor).src());
        }
        let ([], [norm]) = frame.borrow([], [norm]);
        norm.f32()[0] = squares.sqrt() as f32;
        Ok(())
    }))
}

/// Copies state to where the result goes, for results that the plan could not put in their slot.
fn stage(frame: &mut Frame<'_>, from: Span, to: Span) {
    if from != to {
        let ([from], [to]) = frame.borrow([from], [to]);
        to.copy_from(from);
    }
}

fn apply(commit: f32) -> Apply {
    if commit != 0.0 { Apply::Yes } else { Apply::No }
}

pub(super) fn adamw(l: &Lowering<'_>, spec: AdamWSpec) -> Result<Step, EngineError> {
    let state = [0, 1, 2].map(|i| l.input(i));
    let results = [0, 1, 2].map(|i| l.output(i));
    let (grad, scalars, at) = (l.input(3), [4, 5, 6, 7].map(|i| l.input(i)), l.at());
    Ok(Box::new(move |frame, run| {
        state.iter().zip(results).for_each(|(&from, to)| stage(frame, from, to));
        let [lr, grad_scale, step, commit] = scalars.map(|s| frame.scalar(s));
        let ([grad], [param, m, v]) = frame.borrow([grad], results);
        let AdamWSpec { beta1, beta2, eps, weight_decay } = spec;
        AdamW {
            rule: AdamWRule { lr: lr.into(), beta1, beta2, eps, weight_decay, step: step as u64 },
            param: param.f32(),
            m: m.f32(),
            v: v.f32(),
            grad: grad.src(),
            grad_scale,
            apply: apply(commit),
            low: None,
        }
        .run(run.machine.isa, &run.machine.pool)
        .map_err(|e| at.row(e))
    }))
}

pub(super) fn sgd(l: &Lowering<'_>, spec: SgdSpec) -> Result<Step, EngineError> {
    let state = [0, 1].map(|i| l.input(i));
    let results = [0, 1].map(|i| l.output(i));
    let (grad, scalars, at) = (l.input(2), [3, 4, 5].map(|i| l.input(i)), l.at());
    Ok(Box::new(move |frame, run| {
        state.iter().zip(results).for_each(|(&from, to)| stage(frame, from, to));
        let [lr, grad_scale, commit] = scalars.map(|s| frame.scalar(s));
        let ([grad], [param, momentum]) = frame.borrow([grad], results);
        let nesterov = if spec.nesterov { Nesterov::Yes } else { Nesterov::No };
        let SgdSpec { momentum: factor, weight_decay, .. } = spec;
        Sgd {
            rule: SgdRule { lr: lr.into(), momentum: factor, weight_decay, nesterov },
            param: param.f32(),
            momentum: Some(momentum.f32()),
            grad: grad.src(),
            grad_scale,
            apply: apply(commit),
            low: None,
        }
        .run(run.machine.isa, &run.machine.pool)
        .map_err(|e| at.row(e))
    }))
}
