//! Fifty FP32 steps of tiny models beside PyTorch, from the same weights and batches.
//!
//! Distances are taken from PyTorch's f64 run. For the weights: the L2 norm of the difference after
//! each step, over all weights the loss depends on. For the loss: the absolute difference in each
//! step, but at least 2·u·|loss|, for it ends in at least two roundings (log-sum-exp less logit,
//! and the mean). Both are allowed twice the largest distance PyTorch's own f32 run had up to that
//! step: the largest so far, because a single difference may be zero by accident.

use crate::common;
use crate::common::golden::Golden;
use crate::common::rounding::{U, deviations};
use halfstep_graph::engine::{Engine, HostSlice};
use halfstep_graph::interp::{Rounding, Tensor, evaluate};
use halfstep_graph::precision::Policy;
use halfstep_graph::{Shape, Slot, ValueId};
use halfstep_train::optimiser::{AdamW, Optimiser};
use halfstep_train::scaler::LossScale;
use halfstep_train::session::{Session, SessionSpec};
use halfstep_train::step::{StepSpec, train_graph};

/// How many standard deviations a rounding error may take: 2·exp(−λ²/2) is below 10^-10 for each of
/// the few thousand gradients here, with the error of the measured deviation (9 %) still below
/// 10^-8.
const LAMBDA: f64 = 7.0;

fn spec(golden: &Golden) -> SessionSpec {
    SessionSpec {
        optimiser: Optimiser::AdamW(AdamW { lr: golden.lr, ..AdamW::default() }),
        scaling: LossScale::Off,
        skip_limit: 1,
        ..SessionSpec::new(&Policy::named("fp32").unwrap(), golden.batch, 0)
    }
}

fn session<'a>(golden: &'a Golden, engine: &'a dyn Engine) -> Session<'a> {
    let policy = Policy::named("fp32").unwrap();
    let spec = SessionSpec { expose_gradients: true, ..spec(golden) };
    let made = Session::new(engine, &*golden.model, &golden.input, &policy, &spec);
    let mut session = made.unwrap();
    golden.upload(&mut session);
    session
}

/// Compares the gradients of the first step, before any update, with torch's f64, within bounds
/// derived for f32.
fn first_gradients_within_bounds(golden: &Golden, name: &str, bounds: &[f64], engine: &dyn Engine) {
    let mut session = session(golden, engine);
    let (x, y) = golden.batch_at(0);
    session.step(x, y, golden.lr).unwrap();
    let found: Vec<f64> =
        golden.weights.iter().flat_map(|w| session.gradient(w).unwrap()).map(f64::from).collect();
    assert_eq!(found.len(), golden.gradients64.len());
    let mut worst = 0f64;
    for (i, (found, exact)) in found.iter().zip(&golden.gradients64).enumerate() {
        let error = (found - exact).abs();
        worst = worst.max(error / bounds[i]);
        assert!(
            error <= bounds[i],
            "{name} on {}, gradient {i}: {found:e} is not {exact:e} ± {:e}",
            engine.name(),
            bounds[i]
        );
    }
    eprintln!("{name} on {}: gradients use at most {worst:.2} of their bounds", engine.name());
}

/// Bounds on the f32 rounding error of each gradient of the first step, in the order of the golden
/// file.
fn gradient_bounds(golden: &Golden) -> Vec<f64> {
    let spec = spec(golden);
    let graph = train_graph(&StepSpec {
        model: &*golden.model,
        input: &golden.input,
        batch: golden.batch,
        optimiser: &spec.optimiser,
        scaling: &spec.scaling,
        clip: spec.clip,
        expose_gradients: true,
    })
    .unwrap();
    let mut rest = golden.initial.as_slice();
    let mut first = std::collections::HashMap::new();
    for name in &golden.weights {
        let count = graph.slot(graph.slot_named(name).unwrap()).ty.shape.count();
        let (own, after) = rest.split_at(count);
        first.insert(name.as_str(), own.iter().map(|&v| f64::from(v)).collect::<Vec<f64>>());
        rest = after;
    }
    let slot = |s: &Slot| match first.get(s.name.as_str()) {
        Some(values) => Tensor::new(s.ty.shape.clone(), values.clone()),
        None => Tensor::filled(s.ty.shape.clone(), 0.0),
    };
    let slots: Vec<Tensor> = graph.slots.iter().map(slot).collect();
    let (x, y) = golden.batch_at(0);
    let x = match x {
        HostSlice::F32(x) => x.iter().map(|&v| f64::from(v)).collect(),
        HostSlice::I32(x) => x.iter().map(|&v| f64::from(v)).collect(),
    };
    let x = Tensor::new(golden.input.value_type(golden.batch).shape, x);
    let y = Tensor::new(Shape::from([y.len()]), y.iter().map(|&v| f64::from(v)).collect());
    let key = Tensor::filled(Shape::from([4]), 0.0);
    let lr = Tensor::filled(Shape::scalar(), golden.lr);
    let inputs = [("x", x), ("y", y), ("key", key), ("lr", lr)];
    let values = evaluate(&graph, &slots, &inputs, Rounding::None).unwrap();
    let wanted: Vec<ValueId> =
        golden.weights.iter().map(|w| graph.output(&format!("grad.{w}")).unwrap()).collect();
    let largest = golden.gradients64.iter().fold(0.0, |m: f64, g| m.max(g.abs()));
    // torch's f64 has rounding errors too, of at most a few thousand operations.
    let f64_error = 4096.0 * f64::EPSILON * largest;
    deviations(&graph, &values, &wanted).concat().iter().map(|d| LAMBDA * d + f64_error).collect()
}

/// Runs all steps and compares each.
fn no_farther_than_twice_torch(name: &str, engine: &dyn Engine) {
    let golden = Golden::load(name);
    let mut session = session(&golden, engine);
    let (mut torch_loss, mut torch_weights) = (0f64, 0f64);
    let (mut worst_loss, mut worst_weights) = (0f64, 0f64);
    for step in 0..golden.steps() {
        let (x, y) = golden.batch_at(step);
        let report = session.step(x, y, golden.lr).unwrap();
        let loss = golden.losses64[step];
        torch_loss = torch_loss.max((golden.losses32[step] - loss).abs()).max(2.0 * U * loss);
        torch_weights = torch_weights.max(golden.distance32[step]);
        let loss_distance = (f64::from(report.loss) - loss).abs();
        let weight_distance = golden.distance(&golden.download(&session), step);
        worst_loss = worst_loss.max(loss_distance / torch_loss);
        worst_weights = worst_weights.max(weight_distance / torch_weights);
        assert!(
            loss_distance <= 2.0 * torch_loss,
            "{name} on {}, step {step}: the loss is {loss_distance:e} from f64, torch's f32 {torch_loss:e}",
            engine.name()
        );
        assert!(
            weight_distance <= 2.0 * torch_weights,
            "{name} on {}, step {step}: weights are {weight_distance:e} from f64, torch's f32 {torch_weights:e}",
            engine.name()
        );
    }
    eprintln!(
        "{name} on {}: at most {worst_loss:.2} (loss) and {worst_weights:.2} (weights) of torch's f32 distance",
        engine.name()
    );
}

const MODELS: [&str; 3] = ["mlp", "cnn", "gpt"];

#[test]
fn fifty_steps_stay_as_near_to_f64_as_torch_does() {
    for engine in common::engines() {
        for model in MODELS {
            no_farther_than_twice_torch(model, &*engine);
        }
    }
}

#[test]
fn first_gradients_lie_within_derived_bounds() {
    let norm = |x: &[f64]| x.iter().map(|v| v * v).sum::<f64>().sqrt();
    for model in MODELS {
        let golden = Golden::load(model);
        let bounds = gradient_bounds(&golden);
        // A bound that allows anything shows nothing: all together, these allow less than a
        // thousandth of the gradient.
        let relative = norm(&bounds) / norm(&golden.gradients64);
        assert!(relative < 1e-3, "{model}: the bounds are {relative:e} of the gradients");
        eprintln!("{model}: the bounds are {relative:.1e} of the gradients");
        for engine in common::engines() {
            first_gradients_within_bounds(&golden, model, &bounds, &*engine);
        }
    }
}
