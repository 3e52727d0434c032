//! The small network that the parts [`super::step`] and [`super::state`] train.

use super::numbers;
use crate::engine::{HostSlice, State};
use crate::graph::{Graph, Init, SlotKind, When};
use crate::op::{AdamWSpec, Op, SgdSpec, Unary};
use crate::{GraphError, Kept, Phase, Shape, ValueType, differentiate};

/// A small network with both optimisers and a commit predicate.
pub(super) fn training_step() -> Graph {
    let build = || -> Result<Graph, GraphError> {
        let mut g = Graph::new();
        let kind = SlotKind::Weight { decay: true };
        let init = Init::Constant(0.0);
        let w = g.add_slot("w", ValueType::f32([7, 5].into()), kind, init)?;
        let b = g.add_slot("b", ValueType::f32([7].into()), kind, init)?;
        let moments: Vec<_> = ["w.m", "w.v"]
            .iter()
            .map(|n| g.add_slot(n, ValueType::f32([7, 5].into()), SlotKind::Moment, init))
            .collect::<Result<_, _>>()?;
        let momentum = g.add_slot("b.momentum", ValueType::f32([7].into()), SlotKind::Moment, init)?;
        let attempts = g.add_slot("attempts", ValueType::f32(Shape::scalar()), SlotKind::Counter, init)?;
        let steps = g.add_slot("steps", ValueType::f32(Shape::scalar()), SlotKind::Counter, init)?;
        let x = g.input("x", ValueType::f32([4, 5].into()));
        let target = g.input("target", ValueType::i32([4].into()));
        let lr = g.input("lr", ValueType::f32(Shape::scalar()));
        let (rw, rb) = (g.read(w), g.read(b));
        let product = g.matmul(x, rw, false, true)?;
        let logits = g.add(product, rb)?;
        let losses = g.cross_entropy(logits, target)?;
        let loss = g.mean(losses, &[0])?;
        let scale = g.scalar(8.0);
        let gradients = differentiate(&mut g, loss, scale, &[w, b])?;
        g.in_phase(Phase::Update, |g| {
            let norm = g.global_norm(&gradients)?;
            let commit = g.unary(Unary::IsFinite, norm)?;
            let unscale = g.scalar(0.125);
            let one = g.scalar(1.0);
            let (old_attempts, old_steps) = (g.read(attempts), g.read(steps));
            let attempt = g.add(old_attempts, one)?;
            let step = g.add(old_steps, one)?;
            let kept = Kept::default();
            let adamw = Op::AdamW(AdamWSpec { beta1: 0.9, beta2: 0.99, eps: 1e-3, weight_decay: 0.1, kept });
            let (m, v) = (g.read(moments[0]), g.read(moments[1]));
            let new = g.push(adamw, &[rw, m, v, gradients[0], lr, unscale, step, commit])?;
            for (&slot, &value) in [w, moments[0], moments[1]].iter().zip(&new) {
                g.write(slot, value, When::Committed);
            }
            let sgd = Op::Sgd(SgdSpec { momentum: 0.9, weight_decay: 0.0, nesterov: false, kept });
            let buffer = g.read(momentum);
            let new = g.push(sgd, &[rb, buffer, gradients[1], lr, unscale, commit])?;
            g.write(b, new[0], When::Committed);
            g.write(momentum, new[1], When::Committed);
            g.write(attempts, attempt, When::Always);
            g.write(steps, step, When::Committed);
            g.commit = Some(commit);
            g.add_output("loss", loss);
            g.add_output("norm", norm);
            Ok(())
        })?;
        Ok(g)
    };
    build().unwrap_or_else(|e| panic!("the training step: {e}"))
}

pub(super) const TARGET: [i32; 4] = [1, 6, 0, 3];

/// The inputs of [`training_step`].
pub(super) fn step_inputs(x: &[f32]) -> [(&str, HostSlice<'_>); 3] {
    [("x", HostSlice::F32(x)), ("target", HostSlice::I32(&TARGET)), ("lr", HostSlice::F32(&[0.05]))]
}

pub(super) fn upload_start(state: &mut State) {
    for (i, name) in ["w", "b"].into_iter().enumerate() {
        let slot = state.position(name).expect("a slot");
        let values = numbers(40 + i as u64, &state.slots()[slot].ty.shape.clone());
        state.upload(name, HostSlice::F32(&values)).expect("an upload");
    }
}

pub(super) fn download_all(state: &State) -> Vec<Vec<f32>> {
    let names: Vec<String> = state.slots().iter().map(|s| s.name.clone()).collect();
    names.iter().map(|n| state.download(n).expect("a download").f32().to_vec()).collect()
}
