//! What a session promises besides its steps: evaluation, checkpoints, errors, and the arithmetic
//! of its updates.

use crate::common;
use std::time::{Duration, Instant};

use halfstep_graph::engine::{Engine, EngineError, HostSlice};
use halfstep_graph::precision::{Policy, assign};
use halfstep_graph::{Graph, GraphError, ValueId, fuse, plan};
use halfstep_nn::layers::{BatchNorm, Linear};
use halfstep_nn::{Context, GptSpec, InputSpec, MlpSpec, Model, ModelSpec};
use halfstep_train::optimiser::{Optimiser, Sgd};
use halfstep_train::session::{Session, SessionSpec, TrainError};
use halfstep_train::step::{StepSpec, train_graph};

const FEATURES: InputSpec = InputSpec::Features { width: 5 };
/// Unit roundoff of f32.
const U: f64 = 1.0 / (1u64 << 24) as f64;

fn fp32() -> Policy {
    Policy::named("fp32").unwrap()
}

fn mlp() -> Box<dyn Model> {
    ModelSpec::Mlp(MlpSpec { hidden: vec![7] }).build(&FEATURES, 3).unwrap()
}

fn numbers(count: usize, from: usize) -> Vec<f32> {
    (from..from + count).map(|i| ((i * 29) % 23) as f32 / 8.0 - 1.4).collect()
}

fn targets(count: usize) -> Vec<i32> {
    (0..count).map(|i| (i * i % 3) as i32).collect()
}

fn all_bits(session: &Session<'_>) -> Vec<Vec<u32>> {
    let values = |name: &str| session.download(name).unwrap().f32().to_vec();
    session.slots().iter().map(|s| values(&s.name).into_iter().map(f32::to_bits).collect()).collect()
}

#[test]
fn evaluation_takes_any_number_of_samples() {
    let model = mlp();
    for engine in common::engines() {
        let spec = SessionSpec::new(&fp32(), 4, 3);
        let mut session = Session::new(&*engine, &*model, &FEATURES, &fp32(), &spec).unwrap();
        let before = all_bits(&session);
        let (x, y) = (numbers(9 * 5, 0), targets(9));
        let whole = session.evaluate(HostSlice::F32(&x), &y).unwrap();
        assert_eq!((whole.losses.len(), whole.logits.len()), (9, 27));
        assert_eq!(session.predict(HostSlice::F32(&x)).unwrap(), whole.logits);
        let mean = whole.losses.iter().map(|&l| f64::from(l)).sum::<f64>() / 9.0;
        assert_eq!(whole.loss, mean);
        let best = |row: &[f32]| {
            let top = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            row.iter().position(|&v| v == top).unwrap() as i32
        };
        let expected: Vec<i32> = whole.logits.chunks(3).map(best).collect();
        assert_eq!(whole.predictions, expected);
        assert_eq!(whole.correct, expected.iter().zip(&y).filter(|(a, b)| a == b).count());
        // A sample's result does not depend on the others in its batch.
        for i in 0..9 {
            let one = session.evaluate(HostSlice::F32(&x[i * 5..(i + 1) * 5]), &y[i..i + 1]).unwrap();
            for (a, b) in one.logits.iter().zip(&whole.logits[i * 3..]) {
                // Sums of at most 7 terms may be taken in another order; the terms are below 4.
                assert!(f64::from((a - b).abs()) <= 14.0 * U * 4.0, "{}: {a} and {b}", engine.name());
            }
        }
        assert_eq!(all_bits(&session), before, "evaluation changes nothing");
        assert_eq!(session.progress().attempts, 0);
    }
}

#[test]
fn wrong_batches_are_refused_and_not_counted() {
    let model = mlp();
    for engine in common::engines() {
        let spec = SessionSpec::new(&fp32(), 4, 3);
        let mut session = Session::new(&*engine, &*model, &FEATURES, &fp32(), &spec).unwrap();
        let before = all_bits(&session);
        let (x, y) = (numbers(20, 0), targets(4));
        let short = session.step(HostSlice::F32(&x[..19]), &y, 0.1).unwrap_err();
        assert!(matches!(short, TrainError::Engine(EngineError::Size { .. })), "{short}");
        let few = session.step(HostSlice::F32(&x), &y[..3], 0.1).unwrap_err();
        assert!(matches!(few, TrainError::Engine(EngineError::Size { .. })), "{few}");
        for class in [3, -1] {
            let unknown = session.step(HostSlice::F32(&x), &[0, 1, class, 2], 0.1).unwrap_err();
            assert!(matches!(unknown, TrainError::Engine(EngineError::Index { .. })), "{unknown}");
        }
        for (samples, rows) in [(19, 4), (0, 0), (20, 3)] {
            let odd = session.evaluate(HostSlice::F32(&x[..samples]), &y[..rows]).unwrap_err();
            assert!(matches!(odd, TrainError::Batch { .. }), "{odd}");
        }
        assert_eq!(all_bits(&session), before);
        assert_eq!(session.progress().attempts, 0);
    }
}

#[test]
fn settings_are_checked_before_anything_is_made() {
    let model = mlp();
    let engine = common::interpreter();
    let good = SessionSpec::new(&fp32(), 4, 3);
    let field = |spec: SessionSpec| match Session::new(&engine, &*model, &FEATURES, &fp32(), &spec) {
        Err(TrainError::Setting(error)) => error.field,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("accepted"),
    };
    assert_eq!(field(SessionSpec { batch: 0, ..good.clone() }), "batch");
    assert_eq!(field(SessionSpec { clip: Some(0.0), ..good.clone() }), "clip");
    assert_eq!(field(SessionSpec { skip_limit: 0, ..good }), "skip_limit");
}

#[test]
fn a_restored_session_goes_on_bit_for_bit() {
    let input = InputSpec::Tokens { length: 4, vocab: 6 };
    let spec = GptSpec { width: 8, layers: 1, heads: 2, dropout: 0.2, ..GptSpec::default() };
    let model = ModelSpec::Gpt(spec).build(&input, 6).unwrap();
    for (engine, policy) in common::engines().iter().flat_map(|e| Policy::NAMES.map(|p| (e, p))) {
        let policy = Policy::named(policy).unwrap();
        let spec = SessionSpec::new(&policy, 2, 3);
        let new = || Session::new(&**engine, &*model, &input, &policy, &spec).unwrap();
        let tokens = |step: usize| (0..8).map(|i| ((i * 5 + step * 3) % 6) as i32).collect::<Vec<i32>>();
        let step = |session: &mut Session<'_>, s: usize| {
            assert!(session.step(HostSlice::I32(&tokens(s)), &tokens(s + 1), 0.01).unwrap().committed);
        };
        let mut first = new();
        (0..3).for_each(|s| step(&mut first, s));
        let mut second = new();
        assert_ne!(all_bits(&first), all_bits(&second));
        for slot in first.slots().to_vec() {
            second.upload(&slot.name, first.download(&slot.name).unwrap().as_slice()).unwrap();
        }
        second.restore_progress(first.progress());
        (3..5).for_each(|s| step(&mut first, s));
        (3..5).for_each(|s| step(&mut second, s));
        assert_eq!(all_bits(&first), all_bits(&second), "{} {}", engine.name(), policy.name);
    }
}

#[test]
fn first_weights_depend_on_the_seed_alone() {
    let model = mlp();
    let engine = common::interpreter();
    let bits = |seed: u64, batch: usize| {
        let spec = SessionSpec::new(&fp32(), batch, seed);
        all_bits(&Session::new(&engine, &*model, &FEATURES, &fp32(), &spec).unwrap())
    };
    assert_eq!(bits(1, 4), bits(1, 9));
    assert_ne!(bits(1, 4), bits(2, 4));
}

/// Norm first, so that its statistics are those of the batch.
struct NormFirst;

impl Model for NormFirst {
    fn forward(&self, g: &mut Graph, x: ValueId, ctx: &Context) -> Result<ValueId, GraphError> {
        let x = BatchNorm::new("norm", 5).forward(g, x, ctx)?;
        Linear::new("last", 5, 3).forward(g, x)
    }
}

/// torch's rule: momentum 0.1, biased variance to normalise, unbiased variance to remember.
#[test]
fn running_statistics_follow_torch() {
    let n = 8;
    let x = numbers(n * 5, 7);
    for engine in common::engines() {
        let spec = SessionSpec::new(&fp32(), n, 3);
        let mut session = Session::new(&*engine, &NormFirst, &FEATURES, &fp32(), &spec).unwrap();
        session.step(HostSlice::F32(&x), &targets(n), 0.1).unwrap();
        let [mean, var] =
            ["norm.running_mean", "norm.running_var"].map(|s| session.download(s).unwrap().f32().to_vec());
        for c in 0..5 {
            let column: Vec<f64> = x.iter().skip(c).step_by(5).map(|&v| f64::from(v)).collect();
            let m = column.iter().sum::<f64>() / n as f64;
            let v = column.iter().map(|x| (x - m).powi(2)).sum::<f64>() / (n - 1) as f64;
            // |x| ≤ 1.5 and the variance is below 2.25: sums of n terms, then four operations and
            // constants rounded.
            let slack = (n + 8) as f64 * U * 2.25;
            assert!((f64::from(mean[c]) - 0.1 * m).abs() <= slack, "{} is not {}", mean[c], 0.1 * m);
            let expected = 0.9 + 0.1 * v;
            assert!((f64::from(var[c]) - expected).abs() <= slack, "{} is not {expected}", var[c]);
        }
        // In evaluation the running statistics are used: a single sample has a result.
        assert!(session.evaluate(HostSlice::F32(&x[..5]), &[0]).unwrap().loss.is_finite());
    }
}

/// SGD as torch documents it, in f64, from the session's own gradients.
#[test]
fn sgd_follows_its_formula() {
    let model = mlp();
    for engine in common::engines() {
        for (momentum, nesterov, weight_decay) in [(0.0, false, 0.0), (0.9, false, 0.1), (0.9, true, 0.1)] {
            sgd_on(&*engine, &*model, &Sgd { lr: 0.1, momentum, nesterov, weight_decay });
        }
    }
}

fn sgd_on(engine: &dyn Engine, model: &dyn Model, sgd: &Sgd) {
    let optimiser = Optimiser::Sgd(sgd.clone());
    let spec = SessionSpec { optimiser, expose_gradients: true, ..SessionSpec::new(&fp32(), 4, 3) };
    let mut session = Session::new(engine, model, &FEATURES, &fp32(), &spec).unwrap();
    let lr = f64::from(sgd.lr as f32);
    for (name, decay) in [("layers.0.weight", sgd.weight_decay), ("layers.1.bias", 0.0)] {
        let read = |session: &Session<'_>, slot: &str| session.download(slot).unwrap().f32().to_vec();
        for step in 0..3 {
            let buffer = format!("optimiser.momentum.{name}");
            let (w, b) = (read(&session, name), read(&session, &buffer));
            session.step(HostSlice::F32(&numbers(20, step)), &targets(4), sgd.lr).unwrap();
            let g = session.gradient(name).unwrap();
            let (after, buffer) = (read(&session, name), read(&session, &buffer));
            for i in 0..w.len() {
                let [w, b, g] = [w[i], b[i], g[i]].map(f64::from);
                let d = g + decay * w;
                let m = sgd.momentum * b + d;
                let update = if sgd.nesterov { d + sgd.momentum * m } else { m };
                let expected = w - lr * update;
                // At most eight roundings, of terms no larger than these.
                let size = w.abs() + lr * (update.abs() + g.abs() + decay * w.abs() + 2.0 * b.abs());
                let error = (f64::from(after[i]) - expected).abs();
                assert!(error <= 8.0 * U * size, "{} {name}[{i}]: off by {error:e}", engine.name());
                let size = g.abs() + decay * w.abs() + b.abs();
                assert!((f64::from(buffer[i]) - m).abs() <= 8.0 * U * size, "{name} momentum");
            }
        }
    }
}

/// From model to program; the best of five, for a test machine has other things to do. State is
/// made once: the first touch of its memory is no part of compiling.
#[test]
#[cfg_attr(debug_assertions, ignore = "compile time is measured in release builds")]
fn the_default_gpt_compiles_within_a_tenth_of_a_second() {
    let input = InputSpec::Tokens { length: 256, vocab: 256 };
    let model = ModelSpec::Gpt(GptSpec::default()).build(&input, 256).unwrap();
    let engine = common::engines().pop().unwrap();
    for policy in Policy::NAMES.map(|name| Policy::named(name).unwrap()) {
        let spec = SessionSpec::new(&policy, 8, 0);
        let build = || {
            train_graph(&StepSpec {
                model: &*model,
                input: &input,
                batch: spec.batch,
                optimiser: &spec.optimiser,
                scaling: &spec.scaling,
                clip: Some(1.0),
                expose_gradients: false,
            })
            .unwrap()
        };
        let state = engine.new_state(&assign(&build(), &policy).0.slots).unwrap();
        let compile = || {
            let start = Instant::now();
            let (assigned, _) = assign(&build(), &policy);
            let plan = plan(fuse(&assigned), engine.target());
            let program = engine.compile(&plan, &state).unwrap();
            (start.elapsed(), program.arena_bytes())
        };
        let (best, arena) = (0..5).map(|_| compile()).min().unwrap();
        eprintln!("{} on {}: {best:?}, arena {arena} bytes", policy.name, engine.name());
        assert!(best < Duration::from_millis(100), "{}: {best:?}", policy.name);
    }
}
