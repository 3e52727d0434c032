//! The part that compares whole training steps with the f64 interpreter.

use super::network::{TARGET, download_all, step_inputs, training_step, upload_start};
use super::{compile, numbers, supported, tensor, tensors_of};
use crate::engine::{Engine, HostSlice, State, output_id};
use crate::graph::{Graph, Init, SlotKind, ValueId, When};
use crate::interp::{Rounding, Tensor, committed, evaluate};
use crate::op::{AdamWSpec, Op, SgdSpec};
use crate::precision::Policy;
use crate::{DType, GraphError, Kept, MomentFormat, Phase, Shape, StateFormats, ValueType, WeightFormat};

/// Trains for some steps with state in every format that the engine supports, and checks what a
/// step that does not commit leaves alone. Returns what the engine does not support.
///
/// # Panics
/// If a slot differs from the interpreter's by more than its bound, or changed when it must not.
#[must_use = "what was left out was not tested"]
pub fn step(engine: &dyn Engine) -> Vec<String> {
    a_training_step_agrees(engine);
    a_step_that_does_not_commit_changes_nothing(engine);
    kept_state_agrees(engine)
}

fn a_training_step_agrees(engine: &dyn Engine) {
    let step = training_step();
    let (graph, mut state, mut program) = compile(engine, &step, &Policy::fp32());
    upload_start(&mut state);
    let x = numbers(3, &[4, 5].into());
    let announced = numbers(4, &[4, 5].into());
    let names = ["loss", "norm"];
    let ids = names.map(|name| output_id(&graph, name).expect("an output"));
    let mut scalars = [0.0; 2];
    let mut slots = tensors_of(&state);
    for turn in 1..=5 {
        let inputs = step_inputs(&x);
        // What was announced is a hint: the step computes with what it is given.
        program.prefetch(&[("x", HostSlice::F32(&announced))]);
        program.run(&mut state, &inputs).expect("a step");
        program.read_scalars(&ids, &mut scalars).expect("loss and norm");
        let read = names.map(|name| program.read(name).expect("an output").f32()[0]);
        assert_eq!(scalars, read, "scalars by id and by name");
        let tensors = [
            ("x", tensor(&[4, 5].into(), &x)),
            ("target", Tensor::new([4].into(), TARGET.iter().map(|&v| v.into()).collect())),
            ("lr", Tensor::filled(Shape::scalar(), f64::from(0.05f32))),
        ];
        let values = evaluate(&graph, &slots, &tensors, Rounding::Stored).expect("the interpreter");
        slots = committed(&graph, &slots, &values);
        for (found, (want, slot)) in tensors_of(&state).iter().zip(slots.iter().zip(&graph.slots)) {
            for (&y, &t) in found.data.iter().zip(&want.data) {
                // An Adam step divides by √v + eps ≥ 1e-3: errors of a few f32 roundings grow at
                // most by 1/eps · lr.
                let allowed = f64::from(turn) * 64.0 * f64::powi(2.0, -24) * (t.abs() + 0.05 / 1e-3);
                assert!((y - t).abs() <= allowed, "{} after {turn} steps: {y} against {t}", slot.name);
            }
        }
    }
}

/// Of a step that is not finite, only what is always written stays.
fn a_step_that_does_not_commit_changes_nothing(engine: &dyn Engine) {
    let (_, mut state, mut program) = compile(engine, &training_step(), &Policy::fp32());
    upload_start(&mut state);
    let good = numbers(3, &[4, 5].into());
    let mut bad = good.clone();
    bad[7] = f32::NAN;
    let mut run = |x: &[f32], state: &mut State| {
        let inputs = step_inputs(x);
        program.run(state, &inputs).expect("a step");
    };
    run(&good, &mut state);
    let before = download_all(&state);
    run(&bad, &mut state);
    let after = download_all(&state);
    for ((slot, before), after) in state.slots().iter().zip(&before).zip(&after) {
        let same = before.iter().map(|x| x.to_bits()).eq(after.iter().map(|x| x.to_bits()));
        assert_eq!(same, slot.name != "attempts", "{} across a skipped step", slot.name);
    }
    assert_eq!(state.download("attempts").expect("attempts").f32(), [2.0]);
    assert_eq!(state.download("steps").expect("steps").f32(), [1.0]);
}

/// An update of a large weight by each optimiser, whose state `policy` says how to keep.
fn update_alone(optimiser: &Op, moments: usize) -> Graph {
    let build = || -> Result<Graph, GraphError> {
        let mut g = Graph::new();
        let ty = ValueType::f32([65, 64].into());
        let zero = Init::Constant(0.0);
        let mut slots = vec![g.add_slot("w", ty.clone(), SlotKind::Weight { decay: true }, zero)?];
        for i in 0..moments {
            slots.push(g.add_slot(&format!("moment{i}"), ty.clone(), SlotKind::Moment, zero)?);
        }
        let gradient = g.input("gradient", ty);
        let scalar = |g: &mut Graph, name: &str| g.input(name, ValueType::f32(Shape::scalar()));
        let (lr, commit) = (scalar(&mut g, "lr"), scalar(&mut g, "commit"));
        let (one, step) = (g.scalar(0.5), g.scalar(3.0));
        let mut operands: Vec<ValueId> = slots.iter().map(|&slot| g.read(slot)).collect();
        operands.extend([gradient, lr, one]);
        operands.extend((moments == 2).then_some(step));
        operands.push(commit);
        let results = g.in_phase(Phase::Update, |g| g.push(optimiser.clone(), &operands))?;
        for (&slot, &value) in slots.iter().zip(&results) {
            g.write(slot, value, When::Committed);
        }
        g.commit = Some(commit);
        g.add_output("committed", commit);
        Ok(g)
    };
    build().unwrap_or_else(|e| panic!("an update: {e}"))
}

/// Updates with state in every format that the engine supports; returns the formats that it does
/// not support.
fn kept_state_agrees(engine: &dyn Engine) -> Vec<String> {
    use MomentFormat as M;
    use WeightFormat as W;
    let kept = Kept::default();
    let adamw = Op::AdamW(AdamWSpec { beta1: 0.9, beta2: 0.99, eps: 1e-3, weight_decay: 0.1, kept });
    let sgd = Op::Sgd(SgdSpec { momentum: 0.9, weight_decay: 0.1, nesterov: true, kept });
    let mut left_out = Vec::new();
    for (weights, moments) in
        [(W::Bf16, M::F32), (W::Bf16Stochastic, M::Bf16), (W::Bf16Kahan, M::Int8), (W::F32, M::Int8)]
    {
        let mut policy = Policy::named("bf16").expect("bf16");
        policy.state = StateFormats { weights, moments };
        if !supported(engine, &policy, &mut left_out) {
            continue;
        }
        updates_agree(engine, &policy, &adamw, 2);
        updates_agree(engine, &policy, &sgd, 1);
    }
    left_out
}

/// State is what the interpreter makes of it, but for neighbours where f32 and f64 lie on two sides
/// of where rounding changes; and a step that does not commit leaves every bit.
fn updates_agree(engine: &dyn Engine, policy: &Policy, optimiser: &Op, moments: usize) {
    let (graph, mut state, mut program) = compile(engine, &update_alone(optimiser, moments), policy);
    let shape: Shape = [65, 64].into();
    state.upload("w", HostSlice::F32(&numbers(50, &shape))).expect("an upload");
    for turn in 0..4 {
        let gradient = numbers(60 + turn, &shape);
        let commit = if turn == 2 { 0.0 } else { 1.0 };
        let key = [17, -3, turn as i32, 9];
        let inputs = [
            ("gradient", HostSlice::F32(&gradient)),
            ("lr", HostSlice::F32(&[0.05])),
            ("commit", HostSlice::F32(&[commit])),
            ("key", HostSlice::I32(&key)),
        ];
        let before = tensors_of(&state);
        program.run(&mut state, &inputs).expect("a step");
        let tensors = [
            ("gradient", tensor(&shape, &gradient)),
            ("lr", Tensor::filled(Shape::scalar(), f64::from(0.05f32))),
            ("commit", Tensor::filled(Shape::scalar(), commit.into())),
            ("key", Tensor::new([4].into(), key.iter().map(|&k| k.into()).collect())),
        ];
        let values = evaluate(&graph, &before, &tensors, Rounding::Stored).expect("the interpreter");
        let wanted = committed(&graph, &before, &values);
        let at = format!("{} with {} on {}, turn {turn}", optimiser.name(), policy.state, engine.name());
        let after = tensors_of(&state);
        if commit == 0.0 {
            assert_eq!(after, before, "{at}");
        }
        for ((slot, found), wanted) in graph.slots.iter().zip(&after).zip(&wanted) {
            let mut others = 0;
            for (&y, &t) in found.data.iter().zip(&wanted.data) {
                // An f32 step errs by a few roundings, grown by 1/eps · lr at most; a neighbour is
                // an ulp away, and a compensation as far as its weight jumps, which is at most 2 in
                // size.
                let sums = 64.0 * f64::powi(2.0, -24) * (t.abs() + 0.05 / 1e-3);
                let ulp = f64::powi(2.0, -7);
                let allowed = match (slot.kind, slot.ty.dtype) {
                    (_, DType::U8) => 1.0,
                    (SlotKind::Compensation, _) => 2.0 * ulp,
                    (_, DType::Bf16) => sums + ulp * t.abs(),
                    _ => sums,
                };
                assert!((y - t).abs() <= allowed, "{} of {at}: {y} against {t}", slot.name);
                others += usize::from((y - t).abs() > sums);
            }
            // How often a rounding may go the other way: the error of a step over the distance of
            // neighbours, which is below 1 in 100 for numbers of this size; a compensation has it
            // twice.
            assert!(others * 50 <= found.data.len(), "{} of {at}: {others} differ", slot.name);
        }
    }
}
