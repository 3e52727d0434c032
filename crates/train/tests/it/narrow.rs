//! Delayed scaling: histories of magnitudes, scales that recover, and what a skipped step leaves.

use crate::common;
use std::num::NonZeroUsize;
use std::path::Path;

use halfstep_cpu::CpuEngine;
use halfstep_cpu::isa::Isa;
use halfstep_float::Overflow;
use halfstep_graph::Unfused;
use halfstep_graph::engine::{Engine, HostSlice};
use halfstep_graph::precision::{GradientRounding, Policy, Reason, Scaling};
use halfstep_nn::{GptSpec, InputSpec, MlpSpec, Model, ModelSpec};
use halfstep_train::probe::{Probe, Weights};
use halfstep_train::recipe::Recipe;
use halfstep_train::scaler::{LossScale, StaticScale};
use halfstep_train::session::{Session, SessionSpec};

const WIDTH: usize = 6;
const BATCH: usize = 4;
const INPUT: InputSpec = InputSpec::Features { width: WIDTH };
const HISTORY: &str = "layers.0.input.amax_history";
const SCALE: &str = "layers.0.input.scale";

fn delayed(steps: usize, overflow: Overflow) -> Policy {
    let mut policy = Policy::named("fp8").unwrap();
    let narrow = policy.narrow.as_mut().unwrap();
    narrow.scaling = Scaling::Delayed { history: steps, margin: 1, overflow };
    policy
}

fn mlp() -> Box<dyn Model> {
    ModelSpec::Mlp(MlpSpec { hidden: vec![8, 8] }).build(&INPUT, 3).unwrap()
}

/// A batch whose largest magnitude is `amax`, a power of two: no format rounds it.
fn step(session: &mut Session<'_>, amax: f32) -> bool {
    let number = |i: usize| ((i * 37) % 17) as f32 / 16.0 * amax;
    let mut x: Vec<f32> = (0..BATCH * WIDTH).map(number).collect();
    x[7] = -amax;
    let y: Vec<i32> = (0..BATCH).map(|i| (i % 3) as i32).collect();
    session.step(HostSlice::F32(&x), &y, 0.001).unwrap().committed
}

fn slot(session: &Session<'_>, name: &str) -> Vec<f32> {
    session.download(name).unwrap().f32().to_vec()
}

/// What the next step will multiply with, after a history whose largest entry is `amax`: 448 / (2¹
/// · amax).
fn scale_for(amax: f32) -> f32 {
    224.0 / amax
}

/// A gradient by the input is taken of a model that no longer learns: there is no history to scale
/// by, and none to keep.
#[test]
fn an_evaluated_model_has_no_history() {
    let (model, engine) = (mlp(), CpuEngine::new(Isa::best(), NonZeroUsize::MIN));
    for name in Policy::NAMES {
        let policy = Policy::named(name).unwrap();
        let spec = SessionSpec::new(&policy, BATCH, 1);
        let session = Session::new(&engine, &*model, &INPUT, &policy, &spec).unwrap();
        let weights = Weights::of(&session).unwrap();
        let mut probe = Probe::new(&engine, &*model, &INPUT, &policy, &weights).unwrap();
        let gradient = probe.input_gradient(&[0.5; WIDTH], &[1.0, 0.0, -1.0]).unwrap();
        assert!(gradient.iter().any(|g| *g != 0.0) && gradient.iter().all(|g| g.is_finite()), "{name}");
    }
}

/// What stands under a layer's name for the sake of a format, codes and scales, is not taken for
/// the layer.
#[test]
fn layers_are_compared_by_what_they_hold() {
    let (model, engine) = (mlp(), CpuEngine::new(Isa::best(), NonZeroUsize::MIN));
    let x: Vec<f32> = (0..BATCH * WIDTH).map(|i| ((i * 37) % 17) as f32 - 8.0).collect();
    let layers = |name: &str| {
        let policy = Policy::named(name).unwrap();
        let session =
            Session::new(&engine, &*model, &INPUT, &policy, &SessionSpec::new(&policy, BATCH, 1)).unwrap();
        let weights = Weights::of(&session).unwrap();
        Probe::new(&engine, &*model, &INPUT, &policy, &weights).unwrap().layers(HostSlice::F32(&x)).unwrap()
    };
    let wide = layers("fp32");
    assert_eq!(wide.len(), 5, "three products and two activations");
    for name in Policy::NAMES {
        for (low, wide) in layers(name).iter().zip(&wide) {
            assert_eq!((&low.name, low.values.len()), (&wide.name, wide.values.len()), "{name}");
            let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
            let (a, b) = (&low.values, &wide.values);
            let cosine = dot(a, b) / (dot(a, a) * dot(b, b)).sqrt();
            // Operands of four bits are wrong by a sixth at most, twice for each of three products.
            assert!(cosine > 0.9, "{name}, {}: {cosine}", low.name);
        }
    }
}

#[test]
fn a_scale_follows_the_largest_magnitude_of_its_history() {
    let model = mlp();
    let policy = delayed(3, Overflow::Saturate);
    for engine in common::engines() {
        let spec = SessionSpec::new(&policy, BATCH, 1);
        let mut session = Session::new(&*engine, &*model, &INPUT, &policy, &spec).unwrap();
        assert_eq!((slot(&session, HISTORY), slot(&session, SCALE)), (vec![0.0; 3], vec![1.0]));
        // Nothing but zeros: no scale follows from that.
        assert!(step(&mut session, 0.0));
        assert_eq!((slot(&session, HISTORY), slot(&session, SCALE)), (vec![0.0; 3], vec![1.0]));
        for (amax, history) in [
            (2.0, [2.0, 0.0, 0.0]),
            (0.5, [0.5, 2.0, 0.0]),
            (1.0, [1.0, 0.5, 2.0]),
            // The 2 is forgotten. The next jumps far beyond what the scale was made for: it
            // saturates.
            (0.25, [0.25, 1.0, 0.5]),
            (4096.0, [4096.0, 0.25, 1.0]),
            (0.5, [0.5, 4096.0, 0.25]),
            (0.5, [0.5, 0.5, 4096.0]),
            (0.5, [0.5, 0.5, 0.5]),
        ] {
            assert!(step(&mut session, amax), "{} {amax}", engine.name());
            assert_eq!(slot(&session, HISTORY), history, "{}", engine.name());
            let largest = history.into_iter().fold(0.0, f32::max);
            assert_eq!(slot(&session, SCALE), [scale_for(largest)], "{}", engine.name());
        }
    }
}

#[test]
fn stale_scales_skip_steps_and_recover_where_codes_do_not_saturate() {
    let model = mlp();
    let policy = delayed(4, Overflow::NonFinite);
    for engine in common::engines() {
        let spec = SessionSpec::new(&policy, BATCH, 1);
        let mut session = Session::new(&*engine, &*model, &INPUT, &policy, &spec).unwrap();
        assert!(step(&mut session, 1.0) && step(&mut session, 1.0));
        let weights = slot(&session, "layers.0.weight");
        assert!(!step(&mut session, 1024.0), "{}: codes overflow the range are NaN", engine.name());
        assert_eq!(slot(&session, "layers.0.weight"), weights);
        assert_eq!(slot(&session, HISTORY)[0], 1024.0);
        assert_eq!(slot(&session, SCALE), [scale_for(1024.0)]);
        // What follows is only seen once its own operands are finite: a step for each of two
        // layers, there and back.
        let skips = (0..8).take_while(|_| !step(&mut session, 1024.0)).count();
        assert!(skips < 4, "{}: {skips} more skips", engine.name());
        assert_ne!(slot(&session, "layers.0.weight"), weights);
    }
}

#[test]
fn a_skipped_step_records_what_is_finite_and_hides_no_fault() {
    let model = mlp();
    let policy = delayed(4, Overflow::Saturate);
    for engine in common::engines() {
        let spec = SessionSpec::new(&policy, BATCH, 1);
        let mut session = Session::new(&*engine, &*model, &INPUT, &policy, &spec).unwrap();
        assert!(step(&mut session, 1.0));
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let before: Vec<Vec<f32>> = session.slots().iter().map(|s| slot(&session, &s.name)).collect();
            assert!(!step(&mut session, bad), "{}: saturation hides {bad}", engine.name());
            for (s, before) in session.slots().iter().zip(before) {
                let after = slot(&session, &s.name);
                // Only weights were seen whole.
                let seen = s.name.ends_with(".weight.amax_history") || s.name.ends_with(".weight.scale");
                assert!(after == before || seen, "{} changed {}", bad, s.name);
                assert!(after.iter().all(|x| x.is_finite()), "{}", s.name);
            }
        }
        // The gradients overflow, what the forward pass saw does not.
        let scaling = LossScale::Static(StaticScale { scale: 1e38 });
        let spec = SessionSpec { scaling, ..SessionSpec::new(&policy, BATCH, 1) };
        let mut session = Session::new(&*engine, &*model, &INPUT, &policy, &spec).unwrap();
        assert!(!step(&mut session, 1024.0), "{}", engine.name());
        assert_eq!(slot(&session, HISTORY)[0], 1024.0);
        assert_eq!(slot(&session, SCALE), [scale_for(1024.0)]);
    }
}

fn gpt() -> (Box<dyn Model>, InputSpec) {
    let input = InputSpec::Tokens { length: 16, vocab: 11 };
    let spec = GptSpec { width: 32, layers: 2, heads: 2, dropout: 0.1, ..GptSpec::default() };
    (ModelSpec::Gpt(spec).build(&input, 11).unwrap(), input)
}

fn trained(engine: &dyn Engine, policy: &Policy) -> Vec<Vec<u32>> {
    let (model, input) = gpt();
    let spec = SessionSpec::new(policy, 4, 3);
    let mut session = Session::new(engine, &*model, &input, policy, &spec).unwrap();
    for turn in 0..3 {
        let x: Vec<i32> = (0..64).map(|i| (i * 7 + turn) % 11).collect();
        let y: Vec<i32> = (0..64).map(|i| (i * 3 + turn) % 11).collect();
        assert!(session.step(HostSlice::I32(&x), &y, 0.01).unwrap().committed);
    }
    let bits = |name: &str| slot(&session, name).into_iter().map(f32::to_bits).collect();
    session.slots().iter().map(|s| bits(&s.name)).collect()
}

#[test]
fn bits_depend_neither_on_threads_nor_on_groups() {
    let names = Policy::NAMES.into_iter().map(|name| Policy::named(name).unwrap());
    for mut policy in names.filter(|p| p.narrow.is_some()) {
        let mut all = Vec::new();
        for rounding in [GradientRounding::Nearest, GradientRounding::Stochastic] {
            policy.narrow.as_mut().unwrap().rounding = rounding;
            let engine = |n| CpuEngine::new(Isa::best(), NonZeroUsize::new(n).unwrap());
            let one = trained(&engine(1), &policy);
            assert!(one == trained(&engine(3), &policy), "{} on three threads", policy.name);
            assert!(one == trained(&Unfused(&engine(2)), &policy), "{} apart", policy.name);
            all.push(one);
        }
        assert!(all[0] != all[1], "{}: rounding of gradients matters", policy.name);
    }
}

/// In eight bits, what the backward pass reads of the forward pass takes a byte an element, and the
/// plan says so.
#[test]
fn the_plan_shows_codes_and_why_the_rest_is_not() {
    let (model, input) = gpt();
    let engine = CpuEngine::new(Isa::best(), NonZeroUsize::new(1).unwrap());
    let held = |name: &str| {
        let policy = Policy::named(name).unwrap();
        let spec = SessionSpec::new(&policy, 64, 3);
        let session = Session::new(&engine, &*model, &input, &policy, &spec).unwrap();
        (session.plan().footprint.arena, session.precision().clone())
    };
    let ((bf16, _), (fp8, precision)) = (held("bf16"), held("fp8"));
    assert!(fp8 < bf16, "{fp8} bytes against {bf16}");
    let of = |name: &str, reason| {
        precision.entries.iter().filter(|e| e.name == name && e.reason == reason).count()
    };
    for linear in ["blocks.0.qkv", "blocks.1.down"] {
        for role in ["input", "weight", "gradient"] {
            assert_eq!(of(&format!("{linear}.{role}"), Reason::Quantised), 1, "{linear}.{role}");
        }
        assert_eq!((of(linear, Reason::Rescaled), of(linear, Reason::WeightGradient)), (2, 1), "{linear}");
    }
    assert_eq!(of("head", Reason::HeadStays), 2);
    assert_eq!(of("blocks.0.attention", Reason::AttentionStays), 2);
    assert!(precision.entries.iter().all(|e| e.reason != Reason::Quantised || e.storage.bytes() == 1));
}

fn recipe(precision: &str) -> Result<Recipe, String> {
    let rest = "[data]\nkind = \"bundled\"\nname = \"digits\"\n[model]\nkind = \"mlp\"\nhidden = [8]\n\
                [train]\nsteps = 1\nbatch = 4\n";
    Recipe::parse("test.toml", &format!("{rest}{precision}"), Path::new(".")).map_err(|e| e.to_string())
}

#[test]
fn settings_are_read_written_and_checked() {
    let text = "[precision]\npolicy = \"fp8\"\noverrides = [{ pattern = \"layers.0\", rule = \"bf16\" }]\n\
                [precision.fp8]\nhistory = 16\nmargin = 2\noverflow = \"non-finite\"\nrounding = \"stochastic\"\n\
                [precision.mxfp4]\nscale = \"even\"\n";
    let read = recipe(text).unwrap();
    let (policy, _) = read.precision.resolve("fp8").unwrap();
    let narrow = policy.narrow.unwrap();
    assert_eq!(narrow.scaling, Scaling::Delayed { history: 16, margin: 2, overflow: Overflow::NonFinite });
    assert_eq!(narrow.rounding, GradientRounding::Stochastic);
    assert_eq!(policy.overrides.len(), 1);
    let again = Recipe::parse("again.toml", &read.resolved().unwrap(), Path::new(".")).unwrap();
    assert_eq!(again.precision, read.precision);
    for (wrong, says) in [
        ("[precision.fp8]\nhistory = 0", "`history` of [precision.fp8] is 0"),
        ("[precision.fp8]\nmargin = 17", "`margin` of [precision.fp8] is 17"),
        ("[precision.mxfp8]\nhistory = 4", "not a setting of this precision"),
        ("[precision.fp8]\nhistroy = 4", "unknown key `histroy`"),
        ("[precision.fp8]\nrounding = \"up\"", "\"up\" is not possible here"),
        ("[precision.fp9]\nhistory = 4", "unknown key `fp9`"),
        ("[precision]\nfp8 = 3", "`fp8` is not a section"),
    ] {
        let e = recipe(wrong).unwrap_err();
        assert!(e.contains(says), "{wrong}: {e}");
    }
}
