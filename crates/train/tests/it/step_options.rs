//! Batches in parts, moving averages, parameter groups: against their definitions, and against one
//! big batch.

use crate::common;
use std::collections::BTreeMap;

use halfstep_graph::engine::{Engine, HostSlice};
use halfstep_graph::interp::{InterpreterEngine, Rounding};
use halfstep_graph::precision::Policy;
use halfstep_graph::{Graph, GraphError, ValueId};
use halfstep_nn::layers::{BatchNorm, Dropout, Linear, relu};
use halfstep_nn::{Context, InputSpec, MlpSpec, Model, ModelSpec};
use halfstep_train::optimiser::{AdamW, Optimiser, Sgd};
use halfstep_train::scaler::{DynamicScale, LossScale, SCALE_SLOT, StaticScale};
use halfstep_train::session::{Session, SessionSpec};
use halfstep_train::step::{ACCUMULATE, AVERAGE};
use halfstep_train::step_options::{ParameterGroup, StepOptions};

const WIDTH: usize = 5;
const BATCH: usize = 12;
const INPUT: InputSpec = InputSpec::Features { width: WIDTH };
/// Unit roundoff of f32.
const U: f64 = 1.0 / (1u64 << 24) as f64;

fn policy(name: &str) -> Policy {
    Policy::named(name).unwrap()
}

fn batch(step: usize) -> (Vec<f32>, Vec<i32>) {
    let number = |i: usize| ((i * 37 + step * 11) % 23) as f32 / 8.0 - 1.4;
    ((0..BATCH * WIDTH).map(number).collect(), (0..BATCH).map(|i| ((i * i + step) % 3) as i32).collect())
}

/// Dropout, so that draws are keyed by samples; no batch norm, whose statistics are those of the
/// part.
struct Dropping;

impl Model for Dropping {
    fn forward(&self, g: &mut Graph, x: ValueId, ctx: &Context) -> Result<ValueId, GraphError> {
        let x = Linear::new("first", WIDTH, 7).forward(g, x)?;
        let x = Dropout::new("drop", 0.3).forward(g, x, ctx)?;
        let x = relu(g, "relu", x)?;
        Linear::new("last", 7, 3).forward(g, x)
    }
}

/// Norm first, so that its statistics are those of the inputs.
struct NormFirst;

impl Model for NormFirst {
    fn forward(&self, g: &mut Graph, x: ValueId, ctx: &Context) -> Result<ValueId, GraphError> {
        let x = BatchNorm::new("norm", WIDTH).forward(g, x, ctx)?;
        Linear::new("last", WIDTH, 3).forward(g, x)
    }
}

fn parts(accumulate: usize) -> StepOptions {
    StepOptions { accumulate, ..StepOptions::default() }
}

type Values = BTreeMap<String, Vec<f32>>;

/// All state but the sums over parts.
fn values(session: &Session<'_>) -> Values {
    let of = |name: &str| session.download(name).unwrap().f32().to_vec();
    session.lasting_slots().map(|s| (s.name.clone(), of(&s.name))).collect()
}

fn bits(session: &Session<'_>) -> BTreeMap<String, Vec<u32>> {
    values(session).into_iter().map(|(n, v)| (n, v.into_iter().map(f32::to_bits).collect())).collect()
}

fn step(session: &mut Session<'_>, s: usize, lr: f64) -> (f32, bool) {
    let (x, y) = batch(s);
    let report = session.step(HostSlice::F32(&x), &y, lr).unwrap();
    (report.loss, report.committed)
}

/// Losses and state after three steps.
fn three(engine: &dyn Engine, model: &dyn Model, policy: &Policy, spec: &SessionSpec) -> (Vec<f32>, Values) {
    let mut session = Session::new(engine, model, &INPUT, policy, spec).unwrap();
    let losses = (0..3).map(|s| step(&mut session, s, 0.1)).map(|(loss, committed)| {
        assert!(committed);
        loss
    });
    (losses.collect(), values(&session))
}

/// With clipping at work and a loss scale, so that unscaling, norm and clipping must each be of the
/// whole batch.
#[test]
fn parts_add_up_to_one_big_batch() {
    let f64_engine = InterpreterEngine { rounding: Rounding::None };
    let mut engines = common::engines();
    engines.insert(0, Box::new(f64_engine));
    for (i, engine) in engines.iter().enumerate() {
        for scaling in [LossScale::Off, LossScale::Static(StaticScale { scale: 1024.0 })] {
            for clip in [None, Some(0.05)] {
                // SGD without decay of signs: AdamW's first steps divide by a gradient's own size.
                let optimiser = Optimiser::Sgd(Sgd { lr: 0.1, momentum: 0.9, ..Sgd::default() });
                let spec = SessionSpec {
                    optimiser,
                    scaling: scaling.clone(),
                    clip,
                    ..SessionSpec::new(&policy("fp32"), BATCH, 3)
                };
                let whole = three(&**engine, &Dropping, &policy("fp32"), &spec);
                for k in [2, 3, 12] {
                    let spec = SessionSpec { options: parts(k), ..spec.clone() };
                    let split = three(&**engine, &Dropping, &policy("fp32"), &spec);
                    // State and losses are kept in f32. Exactly computed, they differ by one
                    // rounding a step, through which the next step sees others. In f32 besides,
                    // gradients are sums of at most n = 12 · 7 terms below 2 in another order, six
                    // roundings more, and three steps add up.
                    let slack = if i == 0 { 8.0 * U } else { 3.0 * (12.0 * 7.0 + 6.0) * U * 2.0 };
                    for (a, b) in whole.0.iter().zip(&split.0) {
                        assert!(
                            f64::from((a - b).abs()) <= slack * 4.0,
                            "loss {a} and {b} in {k} on {}",
                            engine.name()
                        );
                    }
                    for (name, whole) in &whole.1 {
                        for (a, b) in whole.iter().zip(&split.1[name]) {
                            let error = f64::from((a - b).abs());
                            assert!(error <= slack, "{name}: {a} and {b} in {k} parts on {}", engine.name());
                        }
                    }
                }
            }
        }
    }
}

/// Variances are those of the parts: what lies between parts is not seen.
#[test]
fn running_statistics_are_the_mean_over_parts() {
    for engine in common::engines() {
        let spec = SessionSpec { options: parts(3), ..SessionSpec::new(&policy("fp32"), BATCH, 3) };
        let mut session = Session::new(&*engine, &NormFirst, &INPUT, &policy("fp32"), &spec).unwrap();
        let (x, _) = batch(0);
        step(&mut session, 0, 0.1);
        let found = session.download("norm.running_var").unwrap().f32().to_vec();
        let means = session.download("norm.running_mean").unwrap().f32().to_vec();
        for c in 0..WIDTH {
            let column: Vec<f64> = x.iter().skip(c).step_by(WIDTH).map(|&v| f64::from(v)).collect();
            let mean = column.iter().sum::<f64>() / BATCH as f64;
            let of_part = |part: &[f64]| {
                let m = part.iter().sum::<f64>() / part.len() as f64;
                part.iter().map(|x| (x - m).powi(2)).sum::<f64>() / (part.len() - 1) as f64
            };
            let variance = column.chunks(4).map(of_part).sum::<f64>() / 3.0;
            // Numbers below 2.25 and sums of 4 terms, then of 3, and eight operations and
            // constants.
            let slack = (4 + 3 + 8) as f64 * U * 2.25;
            assert!((f64::from(means[c]) - 0.1 * mean).abs() <= slack, "{} is not {}", means[c], 0.1 * mean);
            let expected = 0.9 + 0.1 * variance;
            assert!((f64::from(found[c]) - expected).abs() <= slack, "{} is not {expected}", found[c]);
        }
    }
}

#[test]
fn one_bad_part_skips_the_whole_step_once() {
    for engine in common::engines() {
        for name in Policy::NAMES {
            let policy = policy(name);
            let spec = SessionSpec {
                scaling: LossScale::Dynamic(DynamicScale { init: 1024.0, ..DynamicScale::default() }),
                options: StepOptions { average: Some(0.9), ..parts(3) },
                ..SessionSpec::new(&policy, BATCH, 1)
            };
            let mut session = Session::new(&*engine, &NormFirst, &INPUT, &policy, &spec).unwrap();
            step(&mut session, 0, 0.01);
            for part in 0..3 {
                let before = bits(&session);
                let scale = session.download(SCALE_SLOT).unwrap().f32()[0];
                let (mut x, y) = batch(1);
                x[part * 4 * WIDTH + 2] = f32::INFINITY;
                assert!(
                    !session.step(HostSlice::F32(&x), &y, 0.01).unwrap().committed,
                    "{name}, part {part}"
                );
                let after = bits(&session);
                // Scales of codes follow what was seen, part by part.
                let observes = |n: &str| n.ends_with(".scale") || n.ends_with(".amax_history");
                let kept = |n: &str| !n.starts_with("scaler.") && !observes(n);
                for (slot, before) in before.iter().filter(|(n, _)| kept(n)) {
                    assert_eq!(&after[slot], before, "{slot} has changed ({name}, part {part})");
                }
                assert_eq!(session.download(SCALE_SLOT).unwrap().f32()[0], scale / 2.0, "lowered once");
            }
            assert!(step(&mut session, 2, 0.01).1, "what was left of the bad parts is not in the next step");
        }
    }
}

#[test]
fn wrong_batches_are_refused_and_not_counted() {
    let engine = common::interpreter();
    // The scales of fp8 are written whether or not a step commits.
    for policy in ["fp32", "fp8"].map(policy) {
        let spec = SessionSpec { options: parts(3), ..SessionSpec::new(&policy, BATCH, 3) };
        let mut session = Session::new(&engine, &Dropping, &INPUT, &policy, &spec).unwrap();
        let before = bits(&session);
        let (x, mut y) = batch(0);
        assert!(session.step(HostSlice::F32(&x[1..]), &y, 0.1).is_err());
        y[BATCH - 1] = 3;
        assert!(session.step(HostSlice::F32(&x), &y, 0.1).is_err(), "a label out of range in the last part");
        assert_eq!((bits(&session), session.progress().attempts), (before, 0));
    }
}

#[test]
fn averages_follow_their_formula_and_are_what_is_evaluated() {
    // Reached in the third step: 1/10, 2/11, then 3/12 is more than it.
    let decay = 0.2;
    for engine in common::engines() {
        let model = ModelSpec::Mlp(MlpSpec { hidden: vec![6] }).build(&INPUT, 3).unwrap();
        let options = StepOptions { average: Some(decay), ..StepOptions::default() };
        let spec = SessionSpec { options, ..SessionSpec::new(&policy("fp32"), BATCH, 3) };
        let mut session = Session::new(&*engine, &*model, &INPUT, &policy("fp32"), &spec).unwrap();
        let weights = ["layers.0.weight", "layers.0.bias", "layers.1.weight", "layers.1.bias"];
        let read = |session: &Session<'_>, name: &str| session.download(name).unwrap().f32().to_vec();
        for w in weights {
            assert_eq!(
                read(&session, &format!("{AVERAGE}{w}")),
                read(&session, w),
                "it begins at the weight"
            );
        }
        for s in 0..3 {
            let before = weights.map(|w| read(&session, &format!("{AVERAGE}{w}")));
            step(&mut session, s, 0.05);
            for (w, before) in weights.iter().zip(before) {
                let (new, after) = (read(&session, w), read(&session, &format!("{AVERAGE}{w}")));
                for ((&a, &w), &found) in before.iter().zip(&new).zip(&after) {
                    let (a, w) = (f64::from(a), f64::from(w));
                    let n = (s + 1) as f64;
                    let decay = f64::min(decay, n / (n + 9.0));
                    let expected = decay * a + (1.0 - decay) * w;
                    // Six roundings, of numbers no larger than these.
                    assert!(
                        (f64::from(found) - expected).abs() <= 6.0 * U * (a.abs() + w.abs()),
                        "{found}, {expected}"
                    );
                }
            }
        }
        let (x, y) = batch(9);
        let evaluated = session.evaluate(HostSlice::F32(&x), &y).unwrap();
        // Another session with the averages as its weights says the same, to the bit.
        let plain = SessionSpec::new(&policy("fp32"), BATCH, 3);
        let mut other = Session::new(&*engine, &*model, &INPUT, &policy("fp32"), &plain).unwrap();
        assert_ne!(other.evaluate(HostSlice::F32(&x), &y).unwrap().logits, evaluated.logits);
        for w in weights {
            other.upload(w, session.download_averaged(w).unwrap().as_slice()).unwrap();
        }
        assert_eq!(other.evaluate(HostSlice::F32(&x), &y).unwrap(), evaluated);
        assert_eq!(session.predict(HostSlice::F32(&x)).unwrap(), evaluated.logits);
    }
}

fn group(pattern: &str) -> ParameterGroup {
    ParameterGroup { pattern: pattern.into(), lr: 1.0, weight_decay: None, frozen: false }
}

#[test]
fn groups_have_their_own_rate_and_decay_and_frozen_parameters_stay() {
    for engine in common::engines() {
        for optimiser in [Optimiser::default(), Optimiser::Sgd(Sgd::default())] {
            let run = |lr: f64, decay: f64, groups: Vec<ParameterGroup>| {
                let optimiser = match &optimiser {
                    Optimiser::AdamW(o) => Optimiser::AdamW(AdamW { weight_decay: decay, ..o.clone() }),
                    Optimiser::Sgd(o) => Optimiser::Sgd(Sgd { weight_decay: decay, ..o.clone() }),
                };
                let options = StepOptions { groups, ..StepOptions::default() };
                let spec = SessionSpec { optimiser, options, ..SessionSpec::new(&policy("bf16"), BATCH, 3) };
                let mut session = Session::new(&*engine, &Dropping, &INPUT, &policy("bf16"), &spec).unwrap();
                let first = bits(&session);
                step(&mut session, 0, lr);
                (first, bits(&session))
            };
            let (first, plain) = run(0.5, 0.0, vec![]);
            // In the first step all gradients are alike: what a group does is what the whole would
            // do with its constants.
            let (_, half) = run(0.25, 0.0, vec![]);
            let (_, decayed) = run(0.5, 0.125, vec![]);
            let slow = ParameterGroup { lr: 0.5, ..group("last") };
            let (_, grouped) = run(0.5, 0.0, vec![slow]);
            let decaying = ParameterGroup { weight_decay: Some(0.125), ..group("first.weight") };
            let (_, with_decay) = run(0.5, 0.0, vec![decaying]);
            let still = ParameterGroup { frozen: true, ..group("first") };
            let (_, frozen) = run(0.5, 0.0, vec![still]);
            for name in ["first.weight", "first.bias", "last.weight", "last.bias"] {
                assert_ne!(plain[name], half[name]);
                let of_last = name.starts_with("last");
                assert_eq!(grouped[name], if of_last { &half } else { &plain }[name], "{name}");
                let decays = name == "first.weight";
                assert_eq!(with_decay[name], if decays { &decayed } else { &plain }[name], "{name}");
                assert_eq!(frozen[name], if of_last { &plain } else { &first }[name], "{name}");
            }
            assert!(!frozen.keys().any(|slot| slot.starts_with("optimiser.") && slot.contains(".first.")));
        }
    }
}

/// SGD has no count of steps of its own.
#[test]
fn an_average_leaves_its_start_behind_in_a_short_run() {
    for optimiser in [Optimiser::default(), Optimiser::Sgd(Sgd::default())] {
        let engine = common::interpreter();
        let options = StepOptions { average: Some(0.9999), ..StepOptions::default() };
        let spec = SessionSpec { optimiser, options, ..SessionSpec::new(&policy("fp32"), BATCH, 3) };
        let mut session = Session::new(&engine, &Dropping, &INPUT, &policy("fp32"), &spec).unwrap();
        // What the start would be multiplied with in 20 steps: the product of n / (n + 9), which is
        // 20! 9! / 29! = 1e-7.
        let start = session.download("first.weight").unwrap().f32().to_vec();
        let average = format!("{AVERAGE}first.weight");
        session.upload(&average, HostSlice::F32(&vec![1e3; start.len()])).unwrap();
        for s in 0..20 {
            step(&mut session, s, 1e-6);
        }
        let found = session.download(&average).unwrap().f32().to_vec();
        for (found, start) in found.iter().zip(&start) {
            // 20 steps at a rate of 1e-6, each of at most 1 in AdamW and of 10 in SGD's momentum.
            assert!((found - start).abs() < 1e3 * 1.1e-7 + 20.0 * 1e-5 + 1e-5, "{found} is not {start}");
        }
    }
}

#[test]
fn a_frozen_norm_is_the_same_function_in_training_and_evaluation() {
    for engine in common::engines() {
        for k in [1, 3] {
            let still = |pattern: &str| ParameterGroup { frozen: true, ..group(pattern) };
            let run = |groups: Vec<ParameterGroup>| {
                let options = StepOptions { groups, ..parts(k) };
                let spec = SessionSpec { options, ..SessionSpec::new(&policy("fp32"), BATCH, 3) };
                let mut session = Session::new(&*engine, &NormFirst, &INPUT, &policy("fp32"), &spec).unwrap();
                let statistics = ["norm.running_mean", "norm.running_var"];
                session.upload(statistics[0], HostSlice::F32(&[0.25; WIDTH])).unwrap();
                session.upload(statistics[1], HostSlice::F32(&[4.0; WIDTH])).unwrap();
                let (x, y) = batch(0);
                let evaluated = session.evaluate(HostSlice::F32(&x), &y).unwrap().loss;
                let (loss, committed) = step(&mut session, 0, 0.1);
                assert!(committed);
                let after = statistics.map(|s| session.download(s).unwrap().f32().to_vec());
                (evaluated, f64::from(loss), after == [vec![0.25; WIDTH], vec![4.0; WIDTH]])
            };
            let (evaluated, trained, stayed) = run(vec![still("norm")]);
            assert!(stayed, "running statistics of a frozen norm have moved on {}", engine.name());
            // Means of the same twelve losses below 4, in another order.
            assert!((evaluated - trained).abs() < 64.0 * U * 4.0, "{evaluated} is not {trained}");
            let (evaluated, trained, stayed) = run(vec![still("norm.weight")]);
            assert!(!stayed && (evaluated - trained).abs() > 1e-3, "a norm whose bias is trained is trained");
        }
    }
}

#[test]
fn sums_over_parts_are_no_part_of_a_checkpoint() {
    let engine = common::interpreter();
    let spec = SessionSpec { options: parts(2), ..SessionSpec::new(&policy("fp32"), BATCH, 3) };
    let session = Session::new(&engine, &Dropping, &INPUT, &policy("fp32"), &spec).unwrap();
    assert!(session.slots().iter().any(|s| s.name.starts_with(ACCUMULATE)));
    assert!(session.lasting_slots().all(|s| !s.name.starts_with(ACCUMULATE)));
    let plain = SessionSpec { options: parts(1), ..spec.clone() };
    let plain = Session::new(&engine, &Dropping, &INPUT, &policy("fp32"), &plain).unwrap();
    assert_eq!(session.snapshot_bytes(), plain.snapshot_bytes());
}
