//! The update: the gradients' norm and the optimisers, in place where the plan says so.

use halfstep_float::Draws;
use halfstep_graph::engine::EngineError;
use halfstep_graph::{AdamWSpec, Kept, MomentFormat, SgdSpec, StateFormats, WeightFormat};

use super::group::{nothing, words};
use super::{Lowering, Step};
use crate::elements::Dst;
use crate::memory::{Frame, Span, ViewMut};
use crate::rows::kept;
use crate::rows::key::Key;
use crate::rows::optim::{AdamW, Apply, Sgd};
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

/// The most tensors that a parameter and its moments are kept in.
const MOST: usize = 6;

/// Where an update finds what it works on, for `S` scalars before the one that commits.
struct Operands<const S: usize> {
    /// Operands and results of each tensor of state.
    state: Vec<(Span, Span)>,
    /// The results, and nothing behind them.
    results: [Span; MOST],
    grad: Span,
    scalars: [Span; S],
    key: Option<Span>,
    commit: Span,
}

impl<const S: usize> Operands<S> {
    fn of(l: &Lowering<'_>, kept: Kept) -> Operands<S> {
        let tensors = l.node.outputs.len();
        let state: Vec<(Span, Span)> = (0..tensors).map(|i| (l.input(i), l.output(i))).collect();
        let results = std::array::from_fn(|i| state.get(i).map_or(nothing(), |&(_, to)| to));
        let scalars = std::array::from_fn(|i| l.input(tensors + 1 + i));
        let last = l.node.inputs.len() - 1;
        let key = kept.formats.draws().then(|| l.input(last - 1));
        Operands { state, results, grad: l.input(tensors), scalars, key, commit: l.input(last) }
    }

    /// Copies state to where results go, for results that the plan could not put in their slots.
    fn stage(&self, frame: &mut Frame<'_>) {
        for &(from, to) in self.state.iter().filter(|(from, to)| from != to) {
            let ([from], [to]) = frame.borrow([from], [to]);
            to.copy_from(from);
        }
    }

    fn apply(&self, frame: &mut Frame<'_>) -> Apply {
        if frame.scalar(self.commit) != 0.0 { Apply::Yes } else { Apply::No }
    }

    /// What draws are keyed by.
    fn key(&self, frame: &mut Frame<'_>) -> Key {
        self.key.and_then(|key| words(frame.read(key))).unwrap_or_default()
    }
}

/// Parameter and moments of these views of the results.
fn state<'a, const M: usize>(
    kept: Kept,
    Key { seed, attempt, .. }: Key,
    views: [ViewMut<'a>; MOST],
) -> (kept::Kept<'a>, [kept::Kept<'a>; M]) {
    let mut views = views.into_iter();
    let mut next = || views.next().unwrap_or(ViewMut::Float(Dst::F32(&mut [])));
    let draws = |tensor: usize| Draws { seed, attempt, op: kept.draws_of(tensor) };
    let param = match kept.formats.weights {
        WeightFormat::F32 => kept::Kept::F32(next().f32()),
        WeightFormat::Bf16 => kept::Kept::Bf16(next().bf16()),
        WeightFormat::Bf16Stochastic => kept::Kept::Stochastic(next().bf16(), draws(0)),
        WeightFormat::Bf16Kahan => kept::Kept::Compensated(next().bf16(), next().bf16()),
    };
    let moments = std::array::from_fn(|i| match kept.formats.moments {
        MomentFormat::F32 => kept::Kept::F32(next().f32()),
        MomentFormat::Bf16 => kept::Kept::Stochastic(next().bf16(), draws(1 + i)),
        MomentFormat::Int8 => kept::Kept::Blocks(StateFormats::map_of(i), next().codes(), next().f32()),
    });
    (param, moments)
}

pub(super) fn adamw(l: &Lowering<'_>, spec: AdamWSpec) -> Result<Step, EngineError> {
    let (operands, at) = (Operands::<3>::of(l, spec.kept), l.at());
    Ok(Box::new(move |frame, run| {
        operands.stage(frame);
        let [lr, grad_scale, step] = operands.scalars.map(|s| frame.scalar(s));
        let (apply, key) = (operands.apply(frame), operands.key(frame));
        let ([grad], views) = frame.borrow([operands.grad], operands.results);
        let (param, [m, v]) = state(spec.kept, key, views);
        let (lr, step) = (lr.into(), step as u64);
        AdamW { spec, lr, step, param, m, v, grad: grad.src(), grad_scale, apply }
            .run(run.machine.isa, &run.machine.pool)
            .map_err(|e| at.error(e))
    }))
}

pub(super) fn sgd(l: &Lowering<'_>, spec: SgdSpec) -> Result<Step, EngineError> {
    let (operands, at) = (Operands::<2>::of(l, spec.kept), l.at());
    Ok(Box::new(move |frame, run| {
        operands.stage(frame);
        let [lr, grad_scale] = operands.scalars.map(|s| frame.scalar(s));
        let (apply, key) = (operands.apply(frame), operands.key(frame));
        let ([grad], views) = frame.borrow([operands.grad], operands.results);
        let (param, [momentum]) = state(spec.kept, key, views);
        Sgd { spec, lr: lr.into(), param, momentum: Some(momentum), grad: grad.src(), grad_scale, apply }
            .run(run.machine.isa, &run.machine.pool)
            .map_err(|e| at.error(e))
    }))
}
