//! Why FP16 needs loss scaling: a model whose gradients are at most 2^-25, half of f16's smallest
//! number, loses them all.

use crate::common;
use halfstep_graph::engine::{Engine, HostSlice};
use halfstep_graph::precision::Policy;
use halfstep_graph::{Graph, GraphError, ValueId};
use halfstep_nn::layers::Linear;
use halfstep_nn::{Context, InputSpec, Model};
use halfstep_train::doctor::{Cause, Replayed, diagnose};
use halfstep_train::optimiser::{Optimiser, Sgd};
use halfstep_train::scaler::{DynamicScale, LIMIT_SLOT, LossScale, SCALE_SLOT};
use halfstep_train::session::{Session, SessionSpec, TrainError};

const WIDTH: usize = 5;
const CLASSES: usize = 3;
const BATCH: usize = 4;
const INPUT: InputSpec = InputSpec::Features { width: WIDTH };
/// 2^-25.
const TINY: f64 = 1.0 / (1 << 25) as f64;

/// logits = 2^-25 · W·x: the gradient by W·x is (softmax − target)·2^-25 / batch.
struct Faint;

impl Model for Faint {
    fn forward(&self, g: &mut Graph, x: ValueId, _: &Context) -> Result<ValueId, GraphError> {
        let y = Linear::new("layer", WIDTH, CLASSES).without_bias().forward(g, x)?;
        g.scoped("faint", |g| g.scale(y, TINY))
    }
}

/// Whole eighths within ±1: exact in f16.
fn samples() -> Vec<f32> {
    (0..BATCH * WIDTH).map(|i| ((i * 7) % 17) as f32 / 8.0 - 1.0).collect()
}

const TARGETS: [i32; BATCH] = [0, 1, 2, 1];

struct Outcome {
    gradient: Vec<f64>,
    moved: f64,
}

fn train(engine: &dyn Engine, policy: &str, scaling: LossScale) -> Outcome {
    let policy = Policy::named(policy).unwrap();
    let spec = SessionSpec {
        optimiser: Optimiser::Sgd(Sgd { momentum: 0.0, ..Sgd::default() }),
        scaling,
        expose_gradients: true,
        ..SessionSpec::new(&policy, BATCH, 1)
    };
    let mut session = Session::new(engine, &Faint, &INPUT, &policy, &spec).unwrap();
    let before = session.download("layer.weight").unwrap();
    let report = session.step(HostSlice::F32(&samples()), &TARGETS, 2f64.powi(20)).unwrap();
    assert!(report.committed);
    let gradient = session.gradient("layer.weight").unwrap().into_iter().map(f64::from).collect();
    let after = session.download("layer.weight").unwrap();
    let moves = before.f32().iter().zip(after.f32()).map(|(a, b)| f64::from((a - b).abs()));
    Outcome { gradient, moved: moves.fold(0.0, f64::max) }
}

/// Per weight: the gradient, and the sum of its terms' magnitudes. The logits are below 2^-23 in
/// magnitude (|W·x| < 4), so the softmax is 1/CLASSES to within 2^-22.
fn exact() -> Vec<(f64, f64)> {
    let x = samples();
    let mut weights = Vec::new();
    for class in 0..CLASSES {
        for feature in 0..WIDTH {
            let term = |n: usize| {
                let hit = if TARGETS[n] == class as i32 { 1.0 } else { 0.0 };
                (1.0 / CLASSES as f64 - hit) * TINY / BATCH as f64 * f64::from(x[n * WIDTH + feature])
            };
            let sum = (0..BATCH).map(term).sum();
            weights.push((sum, (0..BATCH).map(|n| term(n).abs()).sum()));
        }
    }
    weights
}

/// `relative` is the rounding of the gradients that are summed; 2^-20 covers the softmax and the
/// f32 operations after it.
fn assert_near_exact(gradient: &[f64], relative: f64) {
    for (found, (expected, magnitude)) in gradient.iter().zip(exact()) {
        let bound = (relative + 2f64.powi(-20)) * magnitude;
        assert!((found - expected).abs() <= bound, "{found:e} is not {expected:e} ± {bound:e}");
    }
}

#[test]
fn without_scaling_fp16_loses_every_gradient() {
    for engine in common::engines() {
        let full = train(&*engine, "fp32", LossScale::Off);
        assert_near_exact(&full.gradient, 0.0);
        assert!(full.gradient.iter().all(|g| g.abs() <= TINY));
        assert!(full.gradient.iter().filter(|g| **g != 0.0).count() > WIDTH);
        assert!(full.moved > 0.0);

        let lost = train(&*engine, "fp16", LossScale::Off);
        assert!(lost.gradient.iter().all(|&g| g == 0.0), "{}: {:?}", engine.name(), lost.gradient);
        assert_eq!(lost.moved, 0.0);
    }
}

#[test]
fn with_scaling_fp16_keeps_them() {
    for engine in common::engines() {
        let kept = train(&*engine, "fp16", LossScale::Dynamic(DynamicScale::default()));
        // At a scale of 2^16 they are normal numbers of f16, rounded by at most its unit roundoff.
        assert_near_exact(&kept.gradient, 2f64.powi(-11));
        assert!(kept.moved > 0.0);
    }
}

#[test]
fn bf16_has_the_range_without_scaling() {
    for engine in common::engines() {
        assert_near_exact(&train(&*engine, "bf16", LossScale::Off).gradient, 2f64.powi(-8));
    }
}

fn watched(init: f64, underflow: Option<f64>) -> LossScale {
    LossScale::Dynamic(DynamicScale { init, underflow, probe: 1, interval: 1000, ..DynamicScale::default() })
}

fn slot(session: &Session<'_>, name: &str) -> f32 {
    session.download(name).unwrap().f32()[0]
}

/// Gradients here are at least 2^-25·(1/3)·(1/4), about 2^-28.6, and f16 rounds to zero at 2^-25
/// and below: a scale of 2^4 keeps them all.
#[test]
fn the_scale_rises_while_gradients_are_flushed_to_zero() {
    for engine in common::engines() {
        let policy = Policy::named("fp16").unwrap();
        let run = |underflow| {
            let spec = SessionSpec {
                scaling: watched(1.0, underflow),
                skip_limit: 100,
                ..SessionSpec::new(&policy, BATCH, 1)
            };
            let mut session = Session::new(&*engine, &Faint, &INPUT, &policy, &spec).unwrap();
            let scales: Vec<f32> = (0..12)
                .map(|_| session.step(HostSlice::F32(&samples()), &TARGETS, 0.0).unwrap().scale)
                .collect();
            assert_eq!(slot(&session, SCALE_SLOT), scales[11], "{scales:?}");
            scales
        };
        assert!(run(None).iter().all(|&s| s == 1.0));
        let scales = run(Some(0.01));
        let last = scales[11];
        assert!((8.0..=32.0).contains(&last), "{}: {scales:?}", engine.name());
        assert!(scales.windows(2).all(|w| w[1] == w[0] || w[1] == 2.0 * w[0]), "{scales:?}");
    }
}

/// A scale that overflowed is not taken again because gradients are small: else every second step
/// would be lost.
#[test]
fn underflow_does_not_raise_the_scale_to_one_that_overflowed() {
    let engine = common::interpreter();
    let policy = Policy::named("fp16").unwrap();
    let spec = SessionSpec { scaling: watched(2.0, Some(0.01)), ..SessionSpec::new(&policy, BATCH, 1) };
    let mut session = Session::new(&engine, &Faint, &INPUT, &policy, &spec).unwrap();
    let mut bad = samples();
    bad[0] = f32::INFINITY;
    assert!(!session.step(HostSlice::F32(&bad), &TARGETS, 0.0).unwrap().committed);
    assert_eq!((slot(&session, SCALE_SLOT), slot(&session, LIMIT_SLOT)), (1.0, 2.0));
    for _ in 0..5 {
        assert_eq!(session.step(HostSlice::F32(&samples()), &TARGETS, 0.0).unwrap().scale, 1.0);
    }
}

/// Steps that commit nothing but zeros end the run with what is known, where the loss says there is
/// something to learn.
#[test]
fn a_run_whose_gradients_all_vanish_ends_with_a_diagnosis() {
    for engine in common::engines() {
        let policy = Policy::named("fp16").unwrap();
        let spec =
            SessionSpec { scaling: LossScale::Off, skip_limit: 3, ..SessionSpec::new(&policy, BATCH, 1) };
        let mut session = Session::new(&*engine, &Faint, &INPUT, &policy, &spec).unwrap();
        let mut step = || session.step(HostSlice::F32(&samples()), &TARGETS, 0.1);
        assert!(step().unwrap().committed && step().unwrap().committed);
        let error = step().unwrap_err();
        assert!(matches!(error, TrainError::Vanished { steps: 3, attempt: 3, .. }), "{error}");
        let x = samples();
        let d =
            diagnose(&session, &Replayed { x: HostSlice::F32(&x), y: &TARGETS, attempt: 2 }, 1.0).unwrap();
        // The logits are lost before any gradient is.
        let finding = d.finding.as_ref().unwrap();
        assert_eq!(
            (d.cause.clone(), finding.op.as_str(), finding.name.as_str()),
            (Cause::Underflow, "mul", "faint")
        );
    }
}
