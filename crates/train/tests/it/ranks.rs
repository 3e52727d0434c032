//! Several ranks do what one process does with the whole batch.
//!
//! Ranks are threads here; what they exchange and in which order they add it up is what processes
//! do under MPI.

use crate::common;
use std::num::NonZeroUsize;
use std::sync::Arc;

use crate::common::models::{Case, cases};
use crate::common::run::{Ended, Stop, bits, experiment, run_well};
use halfstep_cpu::CpuEngine;
use halfstep_cpu::isa::Isa;
use halfstep_graph::communicator::Communicator;
use halfstep_graph::engine::HostSlice;
use halfstep_graph::interp::{RankState, Rounding, Tensor, committed, evaluate_on_ranks};
use halfstep_graph::precision::Policy;
use halfstep_graph::{Graph, Init, Op, RESIDUAL, Slot, When};
use halfstep_nn::layers::Linear;
use halfstep_nn::{Context, InputSpec, MlpSpec, Model, ModelSpec};
use halfstep_train::optimiser::{Optimiser, Sgd};
use halfstep_train::recipe::Experiment;
use halfstep_train::scaler::{DynamicScale, LossScale, SCALE_SLOT};
use halfstep_train::session::{Session, SessionSpec, StepReport, TrainError};
use halfstep_train::step::{StepSpec, step_graphs};
use halfstep_train::step_options::{ParameterGroup, Reduce, StepOptions};
use halfstep_train::train_loop::{Keeping, Unwatched};

/// Unit roundoff of f32.
const U: f64 = 1.0 / (1u64 << 24) as f64;
/// Samples of a batch, which 2 and 3 ranks can share, each in two parts.
const BATCH: usize = 12;

/// A number between −1 and 1 for each place.
fn number(i: usize) -> f64 {
    (i as u32).wrapping_mul(2_654_435_761) as f64 / f64::from(1u32 << 31) - 1.0
}

impl Case {
    /// Inputs of samples `share` of the batch.
    fn x(&self, share: std::ops::Range<usize>, step: usize) -> Vec<f64> {
        let n = self.input.elements();
        let of = |i: usize| match self.input {
            InputSpec::Tokens { vocab, .. } => ((i * 31 + step) % 19 % vocab) as f64,
            _ => number(i + 7 * step),
        };
        (share.start * n..share.end * n).map(of).collect()
    }

    fn y(&self, share: std::ops::Range<usize>, step: usize) -> Vec<i32> {
        let n = self.input.rows(1);
        (share.start * n..share.end * n).map(|i| ((i * 7 + step) % 5) as i32).collect()
    }

    fn step(&self, session: &mut Session<'_>, step: usize) -> Result<StepReport, TrainError> {
        let (x, y) = (self.x(session.share(), step), self.y(session.share(), step));
        if matches!(self.input, InputSpec::Tokens { .. }) {
            let x: Vec<i32> = x.into_iter().map(|v| v as i32).collect();
            return session.step(HostSlice::I32(&x), &y, 0.05);
        }
        let x: Vec<f32> = x.into_iter().map(|v| v as f32).collect();
        session.step(HostSlice::F32(&x), &y, 0.05)
    }
}

/// What each of so many ranks makes of it, by rank.
fn on_ranks<T: Send>(size: usize, work: impl Fn(&CpuEngine) -> T + Sync) -> Vec<T> {
    std::thread::scope(|scope| {
        let start = |ranks: Communicator| {
            let work = &work;
            scope.spawn(move || {
                let engine = CpuEngine::new(Isa::best(), NonZeroUsize::MIN);
                work(&engine.with_communicator(Arc::new(ranks)))
            })
        };
        let threads: Vec<_> = Communicator::in_process(size).into_iter().map(start).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    })
}

// ---- the program ----

fn first_values(slot: &Slot) -> Tensor {
    let count = slot.ty.shape.count();
    let salt = slot.name.len() * 1000;
    let data = (0..count).map(|i| match slot.init {
        Init::Constant(value) => value,
        Init::Normal { std } => std * number(salt + i),
        Init::Uniform { bound } => bound * number(salt + i),
    });
    Tensor::new(slot.ty.shape.clone(), data.collect())
}

/// Loss, norm and state after a step of `graphs` in real numbers, on each rank.
fn exact(
    case: &Case,
    options: &StepOptions,
    scaling: &LossScale,
    ranks: usize,
) -> Vec<Vec<(String, Tensor)>> {
    let optimiser = Optimiser::Sgd(Sgd { weight_decay: 0.01, ..Sgd::default() });
    let batch = BATCH / ranks;
    let spec = StepSpec {
        model: case.model.as_ref(),
        input: &case.input,
        batch,
        optimiser: &optimiser,
        scaling,
        clip: Some(0.5),
        expose_gradients: true,
    };
    let graphs = step_graphs(&spec, options, ranks).unwrap().keep_state(&Policy::fp32());
    let mut state: Vec<Vec<Tensor>> = vec![graphs.train.slots.iter().map(first_values).collect(); ranks];
    let parts = options.accumulate;
    let mut run = |graph: &Graph, part: usize| -> Vec<Vec<(String, Tensor)>> {
        let slot_of = |s: &Slot| graphs.train.slot_named(&s.name).unwrap().0 as usize;
        let tensor = |data: Vec<f64>| Tensor::new([data.len()].into(), data);
        let inputs = |rank: usize| {
            let first = rank * batch + part * batch / parts;
            let share = first..first + batch / parts;
            let y = case.y(share.clone(), 0).into_iter().map(f64::from).collect();
            let key = vec![3.0, 0.0, 5.0, first as f64];
            let scalar = |x| Tensor::filled(halfstep_graph::Shape::scalar(), x);
            vec![
                ("x", tensor(case.x(share, 0))),
                ("y", tensor(y)),
                ("key", tensor(key)),
                ("lr", scalar(0.1)),
                ("first", scalar(if part == 0 { 1.0 } else { 0.0 })),
            ]
        };
        let slots: Vec<Vec<Tensor>> =
            state.iter().map(|s| graph.slots.iter().map(|slot| s[slot_of(slot)].clone()).collect()).collect();
        let inputs: Vec<_> = (0..ranks).map(inputs).collect();
        let all: Vec<RankState<'_>> = slots.iter().zip(&inputs).map(|(s, i)| (&s[..], &i[..])).collect();
        let values = evaluate_on_ranks(graph, &all, Rounding::None).unwrap();
        let mut results = Vec::new();
        for (rank, values) in values.iter().enumerate() {
            let after = committed(graph, &slots[rank], values);
            for (slot, value) in graph.slots.iter().zip(after) {
                state[rank][slot_of(slot)] = value;
            }
            let outputs = graph.outputs.iter().map(|(name, v)| (name.clone(), values[v.0 as usize].clone()));
            let written = graph
                .writes
                .iter()
                .filter(|w| w.when == When::Committed && !graph.slot(w.slot).name.starts_with(RESIDUAL));
            let written =
                written.map(|w| (graph.slot(w.slot).name.clone(), values[w.value.0 as usize].clone()));
            results.push(outputs.chain(written).collect());
        }
        results
    };
    let mut last = Vec::new();
    for part in 0..parts {
        last = run(&graphs.train, part);
    }
    match &graphs.apply {
        Some(apply) => run(apply, 0),
        None => last,
    }
}

/// In real numbers, nothing but the order of sums tells ranks from one process: loss, gradients,
/// their norm, clipping, weights, moments and running statistics agree to f64's rounding, also of a
/// batch in parts and where a loss is scaled.
#[test]
fn in_real_numbers_ranks_are_one_process() {
    let scaled = LossScale::Dynamic(DynamicScale { init: 1024.0, ..DynamicScale::default() });
    for case in cases(2, 0.2) {
        for (accumulate, scaling) in [(1, &LossScale::Off), (1, &scaled), (2, &scaled)] {
            // With batch norm, the parts of a batch have statistics of their own: other parts,
            // others.
            if accumulate > 1 && case.name == "resnet18" {
                continue;
            }
            for reduce in [Reduce::F32, Reduce::Bf16] {
                let options = StepOptions { accumulate, reduce, ..StepOptions::default() };
                let one = exact(&case, &options, scaling, 1).remove(0);
                for ranks in [2, 3] {
                    for (rank, all) in exact(&case, &options, scaling, ranks).into_iter().enumerate() {
                        assert_eq!(all.len(), one.len());
                        for (name, there) in &all {
                            let (_, here) = one.iter().find(|(n, _)| n == name).unwrap();
                            let size = here.data.iter().fold(0.0, |a: f64, b| a.max(b.abs()));
                            // f64 has 2^-53; sums here have less than 2^12 terms, and layers
                            // multiply what they get. In bf16, each rank's part is rounded by at
                            // most 2^-9 of itself; parts are not much larger than the largest
                            // gradient.
                            let tolerance = match reduce {
                                Reduce::F32 => 1e-10 * size + 1e-14,
                                Reduce::Bf16 => 4.0 * ranks as f64 * 2f64.powi(-9) * size,
                            };
                            for (a, b) in there.data.iter().zip(&here.data) {
                                let what = format!("{} {name} on rank {rank} of {ranks}", case.name);
                                assert!((a - b).abs() <= tolerance, "{what}, {reduce:?}: {a} {b} of {size}");
                            }
                        }
                    }
                }
            }
        }
    }
}

/// A sum begins where its last gradient is made and is waited for in the update: the rest of the
/// backward pass lies between.
#[test]
fn sums_go_on_beside_the_backward_pass() {
    let input = InputSpec::Features { width: 512 };
    let model = ModelSpec::Mlp(MlpSpec { hidden: vec![1024; 3] }).build(&input, 10).unwrap();
    let (engine, policy) = (CpuEngine::new(Isa::best(), NonZeroUsize::MIN), Policy::named("bf16").unwrap());
    let engine = engine.planning_for(NonZeroUsize::new(4).unwrap());
    let session =
        Session::new(&engine, model.as_ref(), &input, &policy, &SessionSpec::new(&policy, 64, 0)).unwrap();
    let plan = session.plan();
    let roots: Vec<&Op> =
        plan.groups.steps.iter().map(|s| &plan.graph.node(s.root(&plan.graph)).op).collect();
    let starts: Vec<usize> =
        (0..roots.len()).filter(|&i| matches!(roots[i], Op::AllReduceStart { .. })).collect();
    let first_wait = roots.iter().position(|op| matches!(op, Op::AllReduceWait { .. })).unwrap();
    // The loss; the gradients of the last two layers; of the second; of the first.
    assert_eq!(starts.len(), 4, "{roots:?}");
    let between = roots[starts[1]..first_wait].iter().filter(|op| matches!(op, Op::MatMul { .. })).count();
    assert!(between >= 2, "{between} products between the first sum of gradients and the wait for it");
    let bytes: usize =
        4 * plan.graph.weights().map(|w| plan.graph.slot(w).ty.shape.count()).sum::<usize>() + 4;
    let transit = plan.graph.nodes.iter().filter(|n| matches!(n.op, Op::AllReduceStart { .. }));
    let transit: usize = transit.map(|n| plan.graph.value(n.outputs[0]).ty.bytes()).sum();
    assert_eq!(transit, bytes, "every gradient and the loss travel once");
}

// ---- the engine ----

fn spec(policy: &Policy, options: StepOptions) -> SessionSpec {
    let optimiser = Optimiser::Sgd(Sgd { lr: 0.05, ..Sgd::default() });
    SessionSpec { optimiser, options, clip: Some(1.0), ..SessionSpec::new(policy, BATCH, 1) }
}

const STEPS: usize = 3;

/// Reports of some steps, and the bits of all that was computed.
fn train(
    engine: &CpuEngine,
    case: &Case,
    policy: &str,
    options: &StepOptions,
) -> (Vec<StepReport>, Vec<Vec<u32>>) {
    let policy = Policy::named(policy).unwrap();
    let spec = spec(&policy, options.clone());
    let mut session = Session::new(engine, case.model.as_ref(), &case.input, &policy, &spec).unwrap();
    let reports: Vec<StepReport> = (0..STEPS).map(|s| case.step(&mut session, s).unwrap()).collect();
    let numbers = reports.iter().map(|r| vec![r.loss.to_bits(), r.grad_norm.to_bits(), r.scale.to_bits()]);
    let all = numbers.chain(bits(&session).into_values()).collect();
    (reports, all)
}

/// Losses and norms of 2 and 3 ranks are those of one process to rounding, in every precision; all
/// ranks have the same bits.
///
/// Tolerances: without batch norm and low formats, a rank's part of the loss is what one process
/// makes of the same rows: only sums are taken in another order, of at most 84 rows and 3 ranks
/// (γ_87), and then of their gradients; steps of at most 0.05·‖g‖ ≤ 0.05 carry that on. So 96·2^-24
/// bounds the relative difference of losses and of norms.
///
/// With batch norm in f32 the same, times variances as small as 2^-10 of the squares.
///
/// In a low format with unit roundoff u, two f32 sums that differ by γ_87 of themselves lie on both
/// sides of a border between two codes with a probability of γ_87/u, and then their codes differ by
/// 2u. That is 2·√(γ_87·u) in the root mean square: 0.08·u in bf16, 0.21·u in f16. The deepest
/// model, ResNet-18, rounds in 20 layers, forwards and backwards: √40 times as much reaches a
/// gradient, at most 1.4·u, and a norm or a loss, which are means of many, not more. The bound is
/// six times that, 8·u, because batch norm magnifies what it divides by a small deviation.
#[test]
fn ranks_agree_with_one_process_in_every_precision() {
    for case in cases(2, 0.2) {
        for policy in ["fp32", "bf16", "fp16"] {
            for accumulate in [1, 2] {
                if accumulate > 1 && case.name == "resnet18" {
                    continue;
                }
                let options = StepOptions { accumulate, ..StepOptions::default() };
                let alone = CpuEngine::new(Isa::best(), NonZeroUsize::MIN);
                let (one, _) = train(&alone, &case, policy, &options);
                let low = match policy {
                    "bf16" => 2f64.powi(-8),
                    "fp16" => 2f64.powi(-11),
                    _ if case.name == "resnet18" => 1024.0 * U,
                    _ => 12.0 * U,
                };
                for size in [2, 3] {
                    let all = on_ranks(size, |engine| train(engine, &case, policy, &options));
                    for (rank, (reports, state)) in all.iter().enumerate() {
                        let what = format!("{} {policy}, rank {rank} of {size}", case.name);
                        assert!(state == &all[0].1, "{what}: other bits than rank 0");
                        for (here, there) in one.iter().zip(reports) {
                            assert_eq!(
                                (here.committed, here.scale),
                                (there.committed, there.scale),
                                "{what}"
                            );
                            if !here.committed {
                                continue;
                            }
                            let apart =
                                |a: f32, b: f32| f64::from((a - b).abs()) / f64::from(a.abs().max(b.abs()));
                            let (loss, norm) =
                                (apart(here.loss, there.loss), apart(here.grad_norm, there.grad_norm));
                            assert!(loss <= 8.0 * low, "{what}: losses {here:?} {there:?}, {loss:e}");
                            assert!(norm <= 8.0 * low, "{what}: norms {here:?} {there:?}, {norm:e}");
                        }
                    }
                }
            }
        }
    }
}

/// One rank is no rank: the program, and so its bits, are those without.
#[test]
fn one_rank_is_one_process() {
    for case in cases(2, 0.2) {
        for policy in ["fp32", "fp16"] {
            for reduce in [Reduce::F32, Reduce::Bf16] {
                let options = StepOptions { reduce, ..StepOptions::default() };
                let alone = train(&CpuEngine::new(Isa::best(), NonZeroUsize::MIN), &case, policy, &options);
                let one = on_ranks(1, |engine| train(engine, &case, policy, &options)).remove(0);
                assert!(one.1 == alone.1, "{} {policy}", case.name);
            }
        }
    }
}

/// A number that is not finite among the samples of one rank: no rank changes anything but the loss
/// scale, on all the same.
#[test]
fn what_one_rank_cannot_do_all_skip() {
    let cases = cases(2, 0.2);
    for (case, reduce) in [(&cases[0], Reduce::F32), (&cases[0], Reduce::Bf16), (&cases[2], Reduce::F32)] {
        let policy = Policy::named("fp16").unwrap();
        for size in [2, 3] {
            let all = on_ranks(size, |engine| {
                let options = StepOptions { reduce, ..StepOptions::default() };
                let spec = spec(&policy, options);
                let mut session =
                    Session::new(engine, case.model.as_ref(), &case.input, &policy, &spec).unwrap();
                assert!(case.step(&mut session, 0).unwrap().committed);
                let left = |session: &Session<'_>| -> Vec<Vec<u32>> {
                    let slots = session.slots().iter().filter(|s| s.name.starts_with(RESIDUAL));
                    let values = |s: &Slot| {
                        session.download(&s.name).unwrap().f32().iter().map(|x| x.to_bits()).collect()
                    };
                    slots.map(values).collect()
                };
                let (before, residuals) = (bits(&session), left(&session));
                let (mut x, y) = (case.x(session.share(), 1), case.y(session.share(), 1));
                if session.share().start > 0 {
                    x[3] = f64::INFINITY;
                }
                let x: Vec<f32> = x.into_iter().map(|v| v as f32).collect();
                let report = session.step(HostSlice::F32(&x), &y, 0.05).unwrap();
                assert!(!report.committed);
                let after = bits(&session);
                assert_eq!(left(&session), residuals, "what rounding left is of steps that committed");
                assert_ne!(before[SCALE_SLOT], after[SCALE_SLOT]);
                let same =
                    |(name, bits): (&String, &Vec<u32>)| name.starts_with("scaler.") || after[name] == *bits;
                assert!(before.iter().all(same));
                let report = case.step(&mut session, 2).unwrap();
                assert!(report.committed);
                (report, bits(&session))
            });
            assert!(all.iter().all(|a| *a == all[0]), "ranks differ");
        }
    }
}

#[test]
fn a_batch_that_cannot_be_shared_is_refused() {
    let case = &cases(2, 0.2)[0];
    let policy = Policy::named("fp32").unwrap();
    let errors = on_ranks(5, |engine| {
        let spec = spec(&policy, StepOptions { accumulate: 2, ..StepOptions::default() });
        Session::new(engine, case.model.as_ref(), &case.input, &policy, &spec).err().unwrap().to_string()
    });
    assert_eq!(
        errors[4],
        "a batch of 12 samples cannot be shared by 5 ranks, each in 2 equal parts: `batch` must be a multiple of 10"
    );
}

// ---- bf16 with error feedback ----

/// Two numbers of one feature: two logits, no bias to speak of.
struct Scale;

impl Model for Scale {
    fn forward(
        &self,
        g: &mut Graph,
        x: halfstep_graph::ValueId,
        _: &Context,
    ) -> Result<halfstep_graph::ValueId, halfstep_graph::GraphError> {
        Linear::new("only", 1, 2).forward(g, x)
    }
}

/// Each rank has a large sample that pulls the weight its own way, and a small one on which all
/// agree. The large pulls cancel; in bf16, rounding to the spacing of the large ones loses what
/// remains: the gradient is zero and the weight stays. With error feedback, what was lost is sent
/// once it adds up, and the weight comes to where f32 brings it.
#[test]
fn error_feedback_finds_what_rounding_to_bf16_loses() {
    let policy = Policy::named("fp32").unwrap();
    let input = InputSpec::Features { width: 1 };
    // Where the logits' difference w·x of weights (w, −w)/2 ends.
    let end = |reduce: Reduce, forget: bool| {
        let ends = on_ranks(2, |engine| {
            let optimiser = Optimiser::Sgd(Sgd { momentum: 0.0, ..Sgd::default() });
            let frozen =
                ParameterGroup { pattern: "only.bias".into(), lr: 1.0, weight_decay: None, frozen: true };
            let options = StepOptions { reduce, groups: vec![frozen], ..StepOptions::default() };
            // Gradients that cancel to zero are the point here, and no reason to end.
            let skip_limit = u32::MAX;
            let spec = SessionSpec { optimiser, options, skip_limit, ..SessionSpec::new(&policy, 4, 0) };
            let mut session = Session::new(engine, &Scale, &input, &policy, &spec).unwrap();
            for slot in ["only.weight", "only.bias"] {
                session.upload(slot, HostSlice::F32(&[0.0; 2])).unwrap();
            }
            let label = i32::from(session.share().start > 0);
            for _ in 0..800 {
                session.step(HostSlice::F32(&[64.0, 1.0 / 16.0]), &[label, 0], 2e-5).unwrap();
                if forget {
                    session.upload(&format!("{RESIDUAL}only.weight"), HostSlice::F32(&[0.0; 2])).unwrap();
                }
            }
            let w = session.download("only.weight").unwrap();
            w.f32()[0] - w.f32()[1]
        });
        assert_eq!(ends[0].to_bits(), ends[1].to_bits());
        ends[0]
    };
    let exact = end(Reduce::F32, false);
    // Where 64·(2σ(64 d) − 1) = 1/16: d = 2/16/64² to first order.
    assert!((exact - 3.05e-5).abs() < 1e-6, "{exact}");
    assert_eq!(end(Reduce::Bf16, true), 0.0, "without feedback it never moves");
    let fed = end(Reduce::Bf16, false);
    // One message is worth at most a spacing of bf16 at 8, which is 1/16, times the learning rate:
    // from two ranks, for two weights.
    assert!((fed - exact).abs() <= 4.0 * 2e-5 / 16.0, "{fed} {exact}");
}

// ---- runs ----

const RECIPE: &str = r#"
    seed = 3
    [data]
    kind = "bundled"
    name = "digits"
    limit_train = 600
    [model]
    kind = "mlp"
    hidden = [24]
    [optimiser]
    kind = "sgd"
    lr = 0.05
    [train]
    steps = 24
    batch = 12
    evaluate_every = 6
    [checkpoint]
    every = 3
"#;

/// The run on so many ranks, of which the first keeps its files in `path`: what each ends with.
fn run(experiment: &Experiment, size: usize, path: &std::path::Path, stop: Stop) -> Vec<Ended> {
    on_ranks(size, |engine| {
        if halfstep_graph::engine::Engine::communicator(engine).unwrap().rank() == 0 {
            return run_well(experiment, engine, "fp16", path, stop);
        }
        let run = experiment.run_with(engine, "fp16", 0, &mut Unwatched, Keeping::default()).unwrap();
        Ended {
            outcome: run.record.outcome,
            bits: bits(&run.session),
            losses: run.record.losses.iter().map(|l| l.to_bits()).collect(),
            skipped: run.record.skipped,
        }
    })
}

/// Checkpoints know nothing of ranks: a run of two is resumed by one or three as it would have gone
/// on, to rounding, and with two bit for bit; all ranks stop when one does and end with the same
/// bits. Evaluations agree with those of one process.
#[test]
fn a_run_goes_on_with_another_number_of_ranks() {
    let experiment = experiment(RECIPE);
    let place = tempfile::tempdir().unwrap();
    let through = |name: &str, first: usize, then: usize| {
        let path = place.path().join(name);
        if first != then {
            for part in run(&experiment, first, &path, Stop::After(10)) {
                assert_eq!(part.outcome, halfstep_train::metrics::Outcome::Interrupted);
            }
        }
        let ends = run(&experiment, then, &path, Stop::Never);
        for end in &ends[1..] {
            assert_eq!(end.bits, ends[0].bits);
        }
        let evaluations: Vec<f64> = common::run::log(&path)
            .iter()
            .filter(|l| l["event"] == "evaluation")
            .map(|l| l["loss"].as_f64().unwrap())
            .collect();
        assert_eq!(evaluations.len(), 4);
        (ends.into_iter().next().unwrap().bits, evaluations)
    };
    let (one, losses) = through("one", 1, 1);
    let whole = through("two", 2, 2);
    for (name, first, then) in [("2 to 1", 2, 1), ("1 to 2", 1, 2), ("2 to 3", 2, 3), ("two again", 2, 2)] {
        let (bits, evaluations) = through(name, first, then);
        for (slot, values) in &one {
            let number = |bits: &u32| f64::from(f32::from_bits(*bits));
            let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|v| v * v).sum::<f64>().sqrt();
            let size = norm(&mut values.iter().map(number));
            let apart = norm(&mut values.iter().zip(&bits[slot]).map(|(a, b)| number(a) - number(b)));
            // A rounding to f16 that falls the other way, in each of 24 steps.
            assert!(apart <= 24.0 * 2f64.powi(-11) * size, "{name} {slot}: {apart} of {size}");
        }
        for (a, b) in losses.iter().zip(&evaluations) {
            assert!((a - b).abs() <= 24.0 * 2f64.powi(-11) * a, "{name}: {a} {b}");
        }
    }
    let path = place.path().join("in two pieces");
    run(&experiment, 2, &path, Stop::After(10));
    let pieces = run(&experiment, 2, &path, Stop::Never);
    assert_eq!(pieces[1].bits, whole.0, "with as many ranks, bit for bit");
}
