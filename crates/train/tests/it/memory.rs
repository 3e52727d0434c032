//! Memory: what is foretold is what is held; a budget is kept without changing a bit, or refused
//! with what would fit.

use crate::common;
use std::num::NonZeroUsize;

use halfstep_cpu::CpuEngine;
use halfstep_cpu::isa::{Isa, Level};
use halfstep_graph::engine::{Engine, HostSlice};
use halfstep_graph::precision::Policy;
use halfstep_graph::{ByteSize, Purpose};
use halfstep_nn::{CnnSpec, GptSpec, InputSpec, MlpSpec, ModelSpec, Resnet18Spec};
use halfstep_train::memory::{Recompute, largest_batch, needed, step_stages};
use halfstep_train::session::{Session, SessionSpec, TrainError};

struct Case {
    model: ModelSpec,
    input: InputSpec,
    outputs: usize,
}

fn cases() -> Vec<Case> {
    let image = |channels| InputSpec::Image { height: 16, width: 16, channels };
    let gpt = GptSpec { width: 32, layers: 5, heads: 4, dropout: 0.1, ..GptSpec::default() };
    vec![
        Case {
            model: ModelSpec::Mlp(MlpSpec { hidden: vec![32; 9] }),
            input: InputSpec::Features { width: 20 },
            outputs: 10,
        },
        Case {
            model: ModelSpec::Cnn(CnnSpec { channels: vec![8, 16], hidden: 32 }),
            input: image(1),
            outputs: 10,
        },
        Case { model: ModelSpec::Resnet18(Resnet18Spec { width: 8 }), input: image(3), outputs: 10 },
        Case { model: ModelSpec::Gpt(gpt), input: InputSpec::Tokens { length: 24, vocab: 50 }, outputs: 50 },
    ]
}

fn cpu(level: Level, threads: usize) -> Option<Box<dyn Engine>> {
    Some(Box::new(CpuEngine::new(Isa::new(level).ok()?, NonZeroUsize::new(threads)?)))
}

fn spec(policy: &Policy, batch: usize) -> SessionSpec {
    SessionSpec { clip: Some(1.0), ..SessionSpec::new(policy, batch, 3) }
}

/// One step on made-up data; another `turn` has other data.
fn step(session: &mut Session<'_>, outputs: usize, turn: usize) {
    let input = session.input().clone();
    let count = input.value_type(session.spec().batch).shape.count();
    let numbers: Vec<f32> = (0..count).map(|i| ((i * 29 + turn * 7) % 23) as f32 / 8.0 - 1.4).collect();
    let tokens: Vec<i32> = (0..count).map(|i| ((i * 5 + turn * 3) % outputs) as i32).collect();
    let x = match input {
        InputSpec::Tokens { .. } => HostSlice::I32(&tokens),
        _ => HostSlice::F32(&numbers),
    };
    let rows = input.rows(session.spec().batch);
    let y: Vec<i32> = (0..rows).map(|i| ((i * i + turn) % outputs) as i32).collect();
    let report = session.step(x, &y, 0.01).unwrap();
    assert!(report.committed, "{report:?}");
}

fn all_bits(session: &Session<'_>) -> Vec<Vec<u32>> {
    let values = |name: &str| session.download(name).unwrap().f32().to_vec();
    session.slots().iter().map(|s| values(&s.name).into_iter().map(f32::to_bits).collect()).collect()
}

#[test]
fn the_bytes_foretold_are_the_bytes_held() {
    for case in cases() {
        let model = case.model.build(&case.input, case.outputs).unwrap();
        for policy in Policy::NAMES.map(|name| Policy::named(name).unwrap()) {
            for (level, threads) in Level::ALL.into_iter().flat_map(|l| [(l, 1), (l, 2)]) {
                // An engine of its own: its packing buffers are shared by all programs.
                let Some(engine) = cpu(level, threads) else { continue };
                let spec = spec(&policy, 6);
                let mut session = Session::new(&*engine, &*model, &case.input, &policy, &spec).unwrap();
                step(&mut session, case.outputs, 0);
                let plan = session.plan();
                let at = format!("{} {} {}", case.model.kind(), policy.name, engine.name());
                assert_eq!(session.footprint().unwrap(), plan.footprint, "{at}");
                assert_eq!(session.arena_bytes(), plan.footprint.arena, "{at}");
                assert!(plan.footprint.scratch > 0 && plan.footprint.outputs > 0, "{at}");
                // The report's purposes add up to it, and name what is there.
                let report = plan.memory();
                assert_eq!(
                    report.purposes.iter().map(|p| p.1).sum::<usize>(),
                    plan.footprint.total(),
                    "{at}"
                );
                let residents: usize = report.residents.iter().map(|r| r.bytes).sum();
                assert_eq!(residents, plan.live_bytes, "{at}");
                let masters = report.bytes(Purpose::MasterWeights);
                assert_eq!(masters > 0, policy.low.is_some(), "{at}");
            }
        }
    }
}

#[test]
fn recomputation_saves_memory_and_changes_no_bit() {
    for (i, case) in cases().into_iter().enumerate() {
        let model = case.model.build(&case.input, case.outputs).unwrap();
        for policy in Policy::NAMES.map(|name| Policy::named(name).unwrap()) {
            let mut engines = vec![cpu(Isa::best().level(), 2).unwrap()];
            // In f64, rounding where the plan rounds: the same program by other code. Slow, so for
            // one model.
            if i == 3 && policy.name == "fp16" {
                engines.push(Box::new(common::interpreter()));
            }
            for engine in engines {
                // Values of a page or more are worth dropping: an mlp has such only in a larger
                // batch.
                let plain = spec(&policy, if i == 0 { 200 } else { 6 });
                let target = engine.target();
                let least =
                    needed(&*model, &case.input, &policy, &plain, Recompute::Allowed, target).unwrap();
                let most = needed(&*model, &case.input, &policy, &plain, Recompute::Not, target).unwrap();
                let at = format!("{} {} {}", case.model.kind(), policy.name, engine.name());
                eprintln!("{at}: {most} bytes, {least} at least");
                // A small model in codes may be fullest where no activation is alive: nothing to
                // save then.
                if policy.narrow.is_some() && least == most {
                    continue;
                }
                assert!(least < most, "{at}");
                let run = |budget: Option<usize>| {
                    let spec = SessionSpec { memory_budget: budget.map(ByteSize), ..plain.clone() };
                    let mut session = Session::new(&*engine, &*model, &case.input, &policy, &spec).unwrap();
                    (0..2).for_each(|turn| step(&mut session, case.outputs, turn));
                    let held = session.footprint().unwrap().total();
                    let work = session.recomputation().map_or(0.0, |r| r.extra_work);
                    (all_bits(&session), held, work)
                };
                let (bits, _, none) = run(None);
                assert_eq!(none, 0.0);
                let mut before = 0.0;
                for budget in [most, (least + most) / 2, least] {
                    let (again, held, work) = run(Some(budget));
                    assert!(bits == again, "{at}: other bits within {budget} bytes");
                    assert!(held <= budget, "{at}: {held} bytes held, {budget} given");
                    assert!(work >= before && work < 0.5, "{at}: {work} after {before}");
                    before = work;
                }
                assert!(before > 0.0);
            }
        }
    }
}

#[test]
fn a_budget_that_cannot_be_met_is_refused_with_what_would_fit() {
    let case = &cases()[3];
    let model = case.model.build(&case.input, case.outputs).unwrap();
    let engine = cpu(Isa::best().level(), 2).unwrap();
    let policy = Policy::named("bf16").unwrap();
    let with = |budget: usize, batch: usize| SessionSpec {
        memory_budget: Some(ByteSize(budget)),
        ..spec(&policy, batch)
    };
    let new = |spec: &SessionSpec| Session::new(&*engine, &*model, &case.input, &policy, spec).map(|_| ());
    let small =
        needed(&*model, &case.input, &policy, &with(0, 4), Recompute::Allowed, engine.target()).unwrap();
    let Err(error @ TrainError::Budget { cause, batch, .. }) = &new(&with(small, 16)) else {
        panic!("accepted");
    };
    assert_eq!(cause.budget, small);
    assert!(cause.smallest > small && cause.smallest < cause.without && cause.state < small, "{cause:?}");
    let message = error.to_string();
    for part in [ByteSize(cause.smallest).rounded_up(), format!("a batch of at most {}", batch.unwrap())] {
        assert!(message.contains(&part), "{message}");
    }
    // What the message says does fit, and no more would.
    let batch = batch.unwrap();
    assert!((4..16).contains(&batch));
    new(&with(small, batch)).unwrap();
    new(&with(small, batch + 1)).unwrap_err();
    new(&with(cause.smallest, 16)).unwrap();
    new(&with(cause.smallest - 1, 16)).unwrap_err();
}

#[test]
fn low_precision_trains_a_batch_that_fp32_cannot_fit() {
    let case = &cases()[3];
    let model = case.model.build(&case.input, case.outputs).unwrap();
    let engine = cpu(Isa::best().level(), 2).unwrap();
    let [fp32, bf16] = ["fp32", "bf16"].map(|name| Policy::named(name).unwrap());
    let budget = 2 << 20;
    let largest = |policy: &Policy, recompute| {
        let limit = (recompute, ByteSize(budget));
        largest_batch(&*model, &case.input, policy, &spec(policy, 1), limit, engine.target())
            .unwrap()
            .unwrap()
    };
    for recompute in [Recompute::Not, Recompute::Allowed] {
        let (wide, low) = (largest(&fp32, recompute), largest(&bf16, recompute));
        eprintln!("{recompute:?}: a batch of {wide} in fp32, {low} in bf16");
        assert!(low > wide);
        let given = (recompute == Recompute::Allowed).then_some(ByteSize(budget));
        let within = |policy| SessionSpec { memory_budget: given, ..spec(policy, low) };
        let mut session = Session::new(&*engine, &*model, &case.input, &bf16, &within(&bf16)).unwrap();
        step(&mut session, case.outputs, 0);
        assert!(session.footprint().unwrap().total() <= budget);
        // The same batch in fp32 is refused, with or without recomputation allowed.
        let strict = SessionSpec { memory_budget: Some(ByteSize(budget)), ..spec(&fp32, low) };
        let refused = step_stages(&*model, &case.input, &fp32, &strict, engine.target());
        let refused = match recompute {
            Recompute::Allowed => refused.is_err(),
            Recompute::Not => {
                needed(&*model, &case.input, &fp32, &strict, recompute, engine.target()).unwrap() > budget
            }
        };
        assert!(refused);
    }
}
