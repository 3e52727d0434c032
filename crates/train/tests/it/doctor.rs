//! Twenty planted faults, each attributed to the operation and the cause; and models without a
//! fault, in which none is found.

use crate::common;
use std::num::NonZeroUsize;

use halfstep_cpu::CpuEngine;
use halfstep_cpu::isa::{Isa, Level};
use halfstep_graph::engine::{Engine, HostSlice};
use halfstep_graph::precision::Policy;
use halfstep_graph::{DType, Graph, GraphError, Op, Phase, Unary, ValueId};
use halfstep_nn::layers::{Linear, relu};
use halfstep_nn::{CnnSpec, Context, GptSpec, InputSpec, MlpSpec, Model, ModelSpec, Resnet18Spec};
use halfstep_train::doctor::{Cause, Diagnosis, Observed, Replayed, Weights, diagnose};
use halfstep_train::optimiser::{AdamW, Optimiser, Sgd};
use halfstep_train::scaler::{LossScale, StaticScale};
use halfstep_train::session::{Session, SessionSpec};

const BATCH: usize = 8;
const FEATURES: InputSpec = InputSpec::Features { width: 12 };
const IMAGES: InputSpec = InputSpec::Image { height: 8, width: 8, channels: 1 };
const TOKENS: InputSpec = InputSpec::Tokens { length: 8, vocab: 16 };
const CLASSES: usize = 4;

/// A model made of a closure.
struct Made<F>(F);

impl<F: Fn(&mut Graph, ValueId) -> Result<ValueId, GraphError> + Send + Sync> Model for Made<F> {
    fn forward(&self, g: &mut Graph, x: ValueId, _: &Context) -> Result<ValueId, GraphError> {
        (self.0)(g, x)
    }
}

fn made<F>(f: F) -> Box<dyn Model>
where
    F: Fn(&mut Graph, ValueId) -> Result<ValueId, GraphError> + Send + Sync + 'static,
{
    Box::new(Made(f))
}

fn linear(name: &str, inputs: usize, outputs: usize) -> Linear {
    Linear::new(name, inputs, outputs)
}

fn mlp() -> Box<dyn Model> {
    ModelSpec::Mlp(MlpSpec { hidden: vec![16, 16] }).build(&FEATURES, CLASSES).unwrap()
}

fn cnn() -> Box<dyn Model> {
    ModelSpec::Cnn(CnnSpec { channels: vec![4, 8], hidden: 16 }).build(&IMAGES, CLASSES).unwrap()
}

fn resnet() -> Box<dyn Model> {
    ModelSpec::Resnet18(Resnet18Spec { width: 4 }).build(&IMAGES, CLASSES).unwrap()
}

fn gpt() -> Box<dyn Model> {
    let spec = GptSpec { width: 16, layers: 2, heads: 2, ..GptSpec::default() };
    ModelSpec::Gpt(spec).build(&TOKENS, 16).unwrap()
}

/// A model, its data, and what is wrong with them.
struct Case {
    model: Box<dyn Model>,
    input: InputSpec,
    policy: &'static str,
    scaling: Option<LossScale>,
    optimiser: Optimiser,
    /// Steps before, while they commit.
    steps: usize,
    /// Multiplies a slot.
    swell: Option<(&'static str, f32)>,
    /// Changes the batch.
    spoil: fn(&mut [f32]),
}

impl Case {
    fn new(model: Box<dyn Model>, input: InputSpec, policy: &'static str) -> Case {
        let optimiser = Optimiser::default();
        Case { model, input, policy, scaling: None, optimiser, steps: 0, swell: None, spoil: |_| () }
    }

    fn scale(self, scale: f64) -> Case {
        Case { scaling: Some(LossScale::Static(StaticScale { scale })), ..self }
    }

    fn unscaled(self) -> Case {
        Case { scaling: Some(LossScale::Off), ..self }
    }

    fn swollen(self, slot: &'static str, by: f32) -> Case {
        Case { swell: Some((slot, by)), ..self }
    }

    fn spoilt(self, spoil: fn(&mut [f32])) -> Case {
        Case { spoil, ..self }
    }

    fn after(self, steps: usize, optimiser: Optimiser) -> Case {
        Case { steps, optimiser, ..self }
    }

    fn diagnosis(&self, engine: &dyn Engine) -> Diagnosis {
        let policy = Policy::named(self.policy).unwrap();
        let scaling = self.scaling.clone().unwrap_or_else(|| LossScale::for_policy(&policy));
        let optimiser = self.optimiser.clone();
        let spec =
            SessionSpec { scaling, optimiser, skip_limit: 1000, ..SessionSpec::new(&policy, BATCH, 3) };
        let mut session = Session::new(engine, &*self.model, &self.input, &policy, &spec).unwrap();
        let count = BATCH * self.input.elements();
        let mut x: Vec<f32> = (0..count).map(|i| ((i * 37) % 101) as f32 / 50.0 - 1.0).collect();
        let tokens: Vec<i32> = (0..count).map(|i| (i as i32 * 7) % 16).collect();
        let y: Vec<i32> = (0..self.input.rows(BATCH)).map(|i| (i * 5 % CLASSES) as i32).collect();
        for _ in 0..self.steps {
            let slice = if matches!(self.input, InputSpec::Tokens { .. }) {
                HostSlice::I32(&tokens)
            } else {
                HostSlice::F32(&x)
            };
            if !session.step(slice, &y, self.optimiser.lr()).unwrap().committed {
                break;
            }
        }
        if let Some((slot, by)) = self.swell {
            let values: Vec<f32> = session.download(slot).unwrap().f32().iter().map(|v| v * by).collect();
            session.upload(slot, HostSlice::F32(&values)).unwrap();
        }
        (self.spoil)(&mut x);
        let slice = if matches!(self.input, InputSpec::Tokens { .. }) {
            HostSlice::I32(&tokens)
        } else {
            HostSlice::F32(&x)
        };
        let scale = match session.spec().scaling.clone() {
            LossScale::Off => 1.0,
            LossScale::Static(s) => s.scale,
            LossScale::Dynamic(_) => f64::from(session.download("scaler.scale").unwrap().f32()[0]),
        };
        let attempt = session.progress().attempts;
        diagnose(&session, &Replayed { x: slice, y: &y, attempt }, scale).unwrap()
    }
}

/// x / (|x| + eps) in f16, of which a part is zero.
fn own_norm(g: &mut Graph, x: ValueId) -> Result<ValueId, GraphError> {
    let x = linear("first", 12, 16).forward(g, x)?;
    let x = relu(g, "relu", x)?;
    let x = g.scoped("norm", |g| {
        let low = g.push(Op::Cast { to: DType::F16 }, &[x])?[0];
        let size = g.unary(Unary::Abs, low)?;
        let eps = g.scalar(1e-8);
        let sum = g.add(size, eps)?;
        g.div(low, sum)
    })?;
    linear("last", 16, CLASSES).forward(g, x)
}

/// Attention by hand over eight positions, in which the mask hides all others from the first, and
/// itself.
fn own_mask(g: &mut Graph, x: ValueId) -> Result<ValueId, GraphError> {
    let x = linear("first", 12, 16).forward(g, x)?;
    let scores = g.scoped("scores", |g| g.matmul(x, x, false, true))?;
    let weights = g.scoped("mask", |g| {
        let zero = g.scalar(0.0);
        let seen = g.binary(halfstep_graph::Binary::Greater, scores, zero)?;
        let hidden = g.scalar(-1e9);
        g.select(seen, scores, hidden)
    })?;
    let weights = g.scoped("softmax", |g| g.push(Op::Softmax, &[weights]))?[0];
    let x = g.scoped("mix", |g| g.matmul(weights, x, false, false))?;
    linear("last", 16, CLASSES).forward(g, x)
}

fn boosted(g: &mut Graph, x: ValueId) -> Result<ValueId, GraphError> {
    let x = linear("first", 12, 16).forward(g, x)?;
    let x = g.scoped("boost", |g| g.scale(x, 1e5))?;
    linear("last", 16, CLASSES).forward(g, x)
}

/// Forward values stay small; the gradient of `lift` is 2^28 times what follows it.
fn lifted(g: &mut Graph, x: ValueId) -> Result<ValueId, GraphError> {
    let x = linear("first", 12, 16).forward(g, x)?;
    let x = g.scoped("sink", |g| g.scale(x, 2f64.powi(-20)))?;
    let x = g.scoped("lift", |g| g.scale(x, 2f64.powi(28)))?;
    linear("last", 16, CLASSES).forward(g, x)
}

fn logarithm(g: &mut Graph, x: ValueId) -> Result<ValueId, GraphError> {
    let x = linear("first", 12, 16).forward(g, x)?;
    let x = relu(g, "relu", x)?;
    let x = g.scoped("log", |g| g.unary(Unary::Log, x))?;
    linear("last", 16, CLASSES).forward(g, x)
}

fn exponential(g: &mut Graph, x: ValueId) -> Result<ValueId, GraphError> {
    let x = linear("first", 12, 16).forward(g, x)?;
    let x = g.scoped("steep", |g| g.scale(x, 1000.0))?;
    let x = g.scoped("exp", |g| g.unary(Unary::Exp, x))?;
    linear("last", 16, CLASSES).forward(g, x)
}

fn sgd(lr: f64) -> Optimiser {
    Optimiser::Sgd(Sgd { lr, ..Sgd::default() })
}

fn adamw(lr: f64) -> Optimiser {
    Optimiser::AdamW(AdamW { lr, weight_decay: 0.0, ..AdamW::default() })
}

/// What is planted, the operation and place that must be named, and the kind of cause.
type Planted = (&'static str, Case, &'static str, &'static str, Phase, &'static str);

fn planted() -> Vec<Planted> {
    use Phase::{Backward, Forward};
    vec![
        (
            "mlp: a layer ×1e5 in fp16",
            Case::new(made(boosted), FEATURES, "fp16"),
            "mul",
            "boost",
            Forward,
            "out-of-range",
        ),
        (
            "mlp: weights ×2.5e5 in fp16",
            Case::new(mlp(), FEATURES, "fp16").swollen("layers.1.weight", 2.5e5),
            "matmul",
            "layers.1",
            Forward,
            "out-of-range",
        ),
        (
            "mlp: weights ×1e6 in fp16",
            Case::new(mlp(), FEATURES, "fp16").swollen("layers.1.weight", 1e6),
            "cast",
            "layers.1.weight",
            Forward,
            "out-of-range",
        ),
        (
            "mlp: exploding rate in fp16",
            Case::new(mlp(), FEATURES, "fp16").after(50, sgd(1e4)),
            "matmul",
            "layers.1",
            Forward,
            "exploded-weights",
        ),
        (
            "mlp: NaN in a sample",
            Case::new(mlp(), FEATURES, "fp32").spoilt(|x| x[3 * 12 + 5] = f32::NAN),
            "input",
            "x",
            Forward,
            "bad-input",
        ),
        (
            "mlp: 1e6 in a sample, fp16",
            Case::new(mlp(), FEATURES, "fp16").spoilt(|x| x[2 * 12 + 7] = 1e6),
            "cast",
            "x",
            Forward,
            "bad-input",
        ),
        (
            "mlp: loss scale 2^40",
            Case::new(mlp(), FEATURES, "fp16").scale(2f64.powi(40)),
            "cast",
            "loss",
            Backward,
            "scale-too-high",
        ),
        (
            "mlp: loss scale 2^-20",
            Case::new(mlp(), FEATURES, "fp16").scale(2f64.powi(-20)),
            "matmul",
            "layers.2",
            Backward,
            "scale-too-low",
        ),
        (
            "mlp: log of zero",
            Case::new(made(logarithm), FEATURES, "bf16"),
            "log",
            "log",
            Forward,
            "not-finite-in-f32",
        ),
        (
            "mlp: exp of hundreds",
            Case::new(made(exponential), FEATURES, "bf16"),
            "exp",
            "exp",
            Forward,
            "not-finite-in-f32",
        ),
        (
            "mlp: eps 1e-8 in fp16",
            Case::new(made(own_norm), FEATURES, "fp16"),
            "add",
            "norm",
            Forward,
            "constant",
        ),
        (
            "mlp: a gradient that overflows at scale 1",
            Case::new(made(lifted), FEATURES, "fp16").unscaled(),
            "mul",
            "lift",
            Backward,
            "out-of-range",
        ),
        (
            "cnn: NaN in one image",
            Case::new(cnn(), IMAGES, "bf16").spoilt(|x| x[6 * 64 + 11] = f32::NAN),
            "input",
            "x",
            Forward,
            "bad-input",
        ),
        (
            "cnn: kernels ×3.5e5 in fp16",
            Case::new(cnn(), IMAGES, "fp16").swollen("convs.1.weight", 3.5e5),
            "conv2d",
            "convs.1",
            Forward,
            "out-of-range",
        ),
        (
            "cnn: exploding rate in bf16",
            Case::new(cnn(), IMAGES, "bf16").after(50, sgd(1e6)),
            "matmul",
            "hidden",
            Forward,
            "exploded-weights",
        ),
        (
            "resnet: one image ×1e30",
            Case::new(resnet(), IMAGES, "fp32")
                .spoilt(|x| x[5 * 64..6 * 64].iter_mut().for_each(|v| *v *= 1e30)),
            "batch_norm_variance",
            "stem.1",
            Forward,
            "bad-input",
        ),
        (
            "resnet: a norm's weight ×1e5 in fp16",
            Case::new(resnet(), IMAGES, "fp16").swollen("blocks.0.b2.weight", 1e5),
            "batch_norm",
            "blocks.0.b2",
            Forward,
            "out-of-range",
        ),
        (
            "gpt: a −1e9 mask in fp16",
            Case::new(made(own_mask), FEATURES, "fp16"),
            "select",
            "mask",
            Forward,
            "constant",
        ),
        (
            "gpt: projections ×8e5 in fp16",
            Case::new(gpt(), TOKENS, "fp16").swollen("blocks.0.qkv.weight", 8e5),
            "matmul",
            "blocks.0.qkv",
            Forward,
            "out-of-range",
        ),
        (
            "gpt: exploding rate in fp16",
            Case::new(gpt(), TOKENS, "fp16").after(50, adamw(1e4)),
            "matmul",
            "blocks.0.qkv",
            Forward,
            "exploded-weights",
        ),
    ]
}

/// The instruction set that every processor has, so that an explosion takes the same course on
/// each.
fn portable() -> CpuEngine {
    CpuEngine::new(Isa::new(Level::Portable).unwrap(), NonZeroUsize::new(2).unwrap())
}

fn kind(cause: &Cause) -> String {
    serde_json::to_value(cause).unwrap()["kind"].as_str().unwrap().to_string()
}

#[test]
fn twenty_of_twenty_planted_faults_are_attributed() {
    let engine = portable();
    let cases = planted();
    assert_eq!(cases.len(), 20);
    let mut wrong = Vec::new();
    for (what, case, op, name, phase, cause) in cases {
        let d = case.diagnosis(&engine);
        let found = d.finding.as_ref().map(|f| (f.op.as_str(), f.name.as_str(), f.phase));
        if found != Some((op, name, phase)) || kind(&d.cause) != cause {
            wrong.push(format!("{what}: expected {op} of {name} ({phase:?}), {cause}\n{d}"));
        }
        assert!(!d.fixes.is_empty() && !d.sentence().is_empty(), "{what}");
        match &d.cause {
            Cause::BadInput { sample, .. } => {
                let planted = match what {
                    "mlp: NaN in a sample" => 3,
                    "mlp: 1e6 in a sample, fp16" => 2,
                    "cnn: NaN in one image" => 6,
                    _ => 5,
                };
                assert_eq!(*sample, planted, "{what}");
            }
            // Twice as much would not be finite: it is the largest power of two.
            Cause::ScaleTooHigh { scale, fits } => {
                assert!(*fits >= 1.0 && fits < scale && fits.log2().fract() == 0.0, "{what}: {d}");
                let twice = Case::new(mlp(), FEATURES, "fp16").scale(2.0 * fits).diagnosis(&engine);
                assert_eq!(kind(&twice.cause), "scale-too-high", "{what}: {d}\n{twice}");
                let there = Case::new(mlp(), FEATURES, "fp16").scale(*fits).diagnosis(&engine);
                assert_ne!(kind(&there.cause), "scale-too-high", "{what}: {d}\n{there}");
            }
            Cause::ScaleTooLow { scale, keeps } => assert!(keeps > scale, "{what}: {d}"),
            _ => {}
        }
        let json = serde_json::to_string(&d).unwrap();
        assert_eq!(serde_json::from_str::<Diagnosis>(&json).unwrap(), d, "{what}");
    }
    assert!(wrong.is_empty(), "{} of 20 missed:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn in_a_model_without_a_fault_none_is_found() {
    let engine = portable();
    for policy in Policy::NAMES {
        let models = [(mlp(), FEATURES), (cnn(), IMAGES), (resnet(), IMAGES), (gpt(), TOKENS)];
        for (model, input) in models {
            // A scale that suits fp16; the first that dynamic scaling tries may be too high by
            // design.
            let case = Case::new(model, input.clone(), policy).after(3, adamw(1e-3)).scale(256.0);
            let d = case.diagnosis(&engine);
            assert_eq!(d.cause, Cause::Nothing, "{policy} {input:?}:\n{d}");
        }
    }
}

/// x − x·(1 + 2^-15) of roundings to f16, which has 11 bits: the two are equal for nearly every x,
/// and in f32 their difference is 2^-15·x, far above f16's least number, 2^-24.
fn difference(g: &mut Graph, x: ValueId) -> Result<ValueId, GraphError> {
    let x = linear("first", 12, 16).forward(g, x)?;
    let x = g.scoped("difference", |g| {
        let more = g.scale(x, 1.0 + 2f64.powi(-15))?;
        let low = g.push(Op::Cast { to: DType::F16 }, &[x])?[0];
        let more = g.push(Op::Cast { to: DType::F16 }, &[more])?[0];
        g.sub(low, more)
    })?;
    let x = g.scoped("lift", |g| g.scale(x, 2f64.powi(15)))?;
    linear("last", 16, CLASSES).forward(g, x)
}

#[test]
fn a_difference_of_equal_roundings_is_cancellation_and_no_underflow() {
    let d = Case::new(made(difference), FEATURES, "fp16").scale(1.0).diagnosis(&portable());
    let found = d.finding.as_ref().map(|f| (f.op.as_str(), f.name.as_str()));
    assert_eq!((found, &d.cause), (Some(("sub", "difference")), &Cause::Rounding), "{d}");
    assert!(d.cause.sentence().starts_with("cancellation"), "{d}");
}

/// The cast of an activation is named by what makes it; an override of that does not help, and one
/// of the product that reads it does.
#[test]
fn an_override_names_what_asks_for_the_format() {
    for (case, asks) in [
        (Case::new(mlp(), FEATURES, "fp16").swollen("layers.1.weight", 1e6), "layers.1"),
        (Case::new(made(boosted), FEATURES, "fp16"), "last"),
        (Case::new(gpt(), TOKENS, "fp16").swollen("blocks.0.qkv.weight", 8e5), "blocks.0.qkv"),
    ] {
        let d = case.diagnosis(&portable());
        assert_eq!(d.cause, Cause::OutOfRange, "{d}");
        assert!(d.fixes[0].text.contains(&format!("pattern = \"{asks}\", rule = \"f32\"")), "{d}");
        assert!(d.evidence.iter().any(|e| e.ends_with("in f32, every value is finite")), "{d}");
    }
}

/// What the doctor observes is the step itself, to the bit: the same loss, and the same gradients'
/// norm.
#[test]
fn the_observed_step_is_the_step() {
    for engine in common::engines() {
        for policy in Policy::NAMES {
            let policy = Policy::named(policy).unwrap();
            let scaling = LossScale::Static(StaticScale { scale: 256.0 });
            let spec = SessionSpec { scaling, expose_gradients: true, ..SessionSpec::new(&policy, BATCH, 3) };
            let model = gpt();
            let mut session = Session::new(&*engine, &*model, &TOKENS, &policy, &spec).unwrap();
            let tokens: Vec<i32> = (0..BATCH as i32 * 8).map(|i| (i * 7) % 16).collect();
            let x = HostSlice::I32(&tokens);
            let mut observed = Observed::compile(&session, 256.0).unwrap();
            observed.run(&session, &Weights::Present, &Replayed { x, y: &tokens, attempt: 0 }, 0).unwrap();
            let report = session.step(x, &tokens, 1e-3).unwrap();
            assert_eq!(observed.loss().unwrap().to_bits(), report.loss.to_bits(), "{}", engine.name());
            let gradients: Vec<ValueId> = observed
                .values
                .iter()
                .copied()
                .filter(|&v| observed.graph.value(v).gradient_of.is_some())
                .collect();
            assert!(gradients.len() > 10);
            let named = "blocks.1.up.weight";
            let mine = gradients.iter().find(|&&v| {
                let slot = observed.graph.value(v).gradient_of.unwrap();
                observed.graph.slot(slot).name == named
            });
            let mine: Vec<u32> =
                observed.read(*mine.unwrap()).unwrap().iter().map(|g| (g / 256.0).to_bits()).collect();
            let theirs: Vec<u32> = session.gradient(named).unwrap().iter().map(|g| g.to_bits()).collect();
            assert_eq!(mine, theirs, "{} {}", engine.name(), policy.name);
        }
    }
}
