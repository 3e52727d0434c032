//! The part that checks what an engine does with state: it begins with zeros, is copied in and out,
//! belongs to every program that uses it, and stays as it is when a call fails.

use super::network::{download_all, step_inputs, training_step, upload_start};
use super::{compile, numbers};
use crate::engine::{Engine, EngineError, HostSlice};
use crate::graph::{Graph, Init, SlotKind};
use crate::precision::Policy;
use crate::{Shape, ValueType, plan};

/// Checks uploads, downloads, sharing between programs and calls that fail.
///
/// # Panics
/// If a check fails.
pub fn state(engine: &dyn Engine) {
    uploads_come_back(engine);
    programs_share_state(engine);
    bad_calls_change_nothing(engine);
}

/// Slots begin with zeros; an upload changes its own slot alone, in the one state it is for.
fn uploads_come_back(engine: &dyn Engine) {
    let graph = training_step();
    let new = || engine.new_state(&graph.slots).expect("memory for the state");
    let (mut state, other) = (new(), new());
    let mut wanted: Vec<Vec<f32>> = graph.slots.iter().map(|s| vec![0.0; s.ty.shape.count()]).collect();
    assert_eq!(download_all(&state), wanted, "new state is not zero");
    for (i, slot) in graph.slots.iter().enumerate() {
        wanted[i] = numbers(70 + i as u64, &slot.ty.shape);
        state.upload(&slot.name, HostSlice::F32(&wanted[i])).expect("an upload");
        assert_eq!(download_all(&state), wanted, "after the upload of {}", slot.name);
    }
    let zeros = download_all(&other).concat();
    assert!(zeros.iter().all(|&x| x == 0.0), "an upload reached another state");
}

/// A second program over the same slots sees what the first one wrote.
fn programs_share_state(engine: &dyn Engine) {
    let (_, mut state, mut program) = compile(engine, &training_step(), &Policy::fp32());
    upload_start(&mut state);
    let mut g = Graph::new();
    let kind = SlotKind::Weight { decay: true };
    // Two of the slots, in another order.
    let slots = [("b", Shape::from([7])), ("w", [7, 5].into())];
    for (name, shape) in &slots {
        let slot =
            g.add_slot(name, ValueType::f32(shape.clone()), kind, Init::Constant(0.0)).expect("a slot");
        let read = g.read(slot);
        let axes: Vec<usize> = (0..shape.len()).collect();
        let sum = g.sum(read, &axes).expect("a sum");
        g.add_output(name, sum);
    }
    let mut reader = engine.compile(&plan(g, engine.target()), &state).expect("a program");

    let x = numbers(3, &[4, 5].into());
    let inputs = step_inputs(&x);
    for _ in 0..2 {
        program.run(&mut state, &inputs).expect("a step");
        let written = download_all(&state);
        reader.run(&mut state, &[]).expect("a run");
        for (name, _) in &slots {
            let found = reader.read(name).expect("the sum").f32()[0];
            let want: f32 = written[state.position(name).expect("a slot")].iter().sum();
            assert!((found - want).abs() <= 35.0 * 1e-6, "the other program has {found}, the state {want}");
        }
        assert_eq!(download_all(&state), written, "a program that only reads has written");
    }
}

fn bad_calls_change_nothing(engine: &dyn Engine) {
    let step = training_step();
    let (_, mut state, mut program) = compile(engine, &step, &Policy::fp32());
    upload_start(&mut state);
    let before = download_all(&state);
    let x = numbers(3, &[4, 5].into());
    let missing = program.run(&mut state, &step_inputs(&x)[..2]);
    assert!(matches!(missing, Err(EngineError::Unknown { what: "input", .. })), "{missing:?}");
    let short = program.run(&mut state, &step_inputs(&x[1..]));
    assert!(matches!(short, Err(EngineError::Size { found: 19, .. })), "{short:?}");
    let mut inputs = step_inputs(&x);
    inputs[1].1 = HostSlice::I32(&[1, 2, 7, 0]);
    let outside = program.run(&mut state, &inputs);
    assert!(matches!(outside, Err(EngineError::Index { index: 7, count: 7, .. })), "{outside:?}");
    assert!(matches!(program.read("nothing"), Err(EngineError::Unknown { what: "output", .. })));
    assert!(matches!(state.upload("nothing", HostSlice::F32(&[])), Err(EngineError::Unknown { .. })));
    assert!(matches!(state.upload("b", HostSlice::F32(&[1.0])), Err(EngineError::Size { .. })));
    assert!(matches!(state.upload("b", HostSlice::I32(&[1; 7])), Err(EngineError::Size { .. })));
    assert_eq!(download_all(&state), before, "a failed call left a trace");
}
