//! Faults planted in casts to codes of 8 and 4 bits: the doctor names layer, operand, format, scale
//! and cause.

use halfstep_float::Overflow;
use std::num::NonZeroUsize;

use halfstep_cpu::CpuEngine;
use halfstep_cpu::isa::{Isa, Level};
use halfstep_graph::engine::HostSlice;
use halfstep_graph::precision::{Policy, Scaling};
use halfstep_graph::{Graph, GraphError, Phase, ValueId};
use halfstep_nn::layers::Linear;
use halfstep_nn::{Context, InputSpec, MlpSpec, Model, ModelSpec};
use halfstep_train::doctor::{Cause, CodeCast, Diagnosis, Replayed, diagnose};
use halfstep_train::session::{Session, SessionSpec};

const WIDTH: usize = 12;
const BATCH: usize = 8;
const INPUT: InputSpec = InputSpec::Features { width: WIDTH };

/// The largest code of e4m3.
const E4M3: f64 = 448.0;

fn mlp() -> Box<dyn Model> {
    ModelSpec::Mlp(MlpSpec { hidden: vec![16, 16] }).build(&INPUT, 4).unwrap()
}

/// Between the first two layers, everything times 1e5.
struct Boosted;

impl Model for Boosted {
    fn forward(&self, g: &mut Graph, x: ValueId, _: &Context) -> Result<ValueId, GraphError> {
        let x = Linear::new("first", WIDTH, 16).forward(g, x)?;
        let x = g.scoped("boost", |g| g.scale(x, 1e5))?;
        let x = Linear::new("second", 16, 16).forward(g, x)?;
        Linear::new("head", 16, 4).forward(g, x)
    }
}

fn delayed(history: usize, overflow: Overflow) -> Policy {
    let mut policy = Policy::named("fp8").unwrap();
    policy.narrow.as_mut().unwrap().scaling = Scaling::Delayed { history, margin: 0, overflow };
    policy
}

/// Numbers of all magnitudes from a hundredth of `amax` to `amax`, of which one is `amax`.
fn batch(amax: f32) -> Vec<f32> {
    let mut x: Vec<f32> = (0..BATCH * WIDTH).map(|i| (((i * 37) % 101) as f32 / 50.5 - 1.0) * amax).collect();
    x[7] = -amax;
    x
}

fn targets() -> Vec<i32> {
    (0..BATCH as i32).map(|i| i * 5 % 4).collect()
}

/// What the doctor says of a step with `x`, after steps with batches of these largest magnitudes;
/// `done` if that step is to be tried before.
fn diagnosis(model: &dyn Model, policy: &Policy, before: &[f32], x: &[f32], done: bool) -> Diagnosis {
    scaled(model, policy, before, x, done, 1.0)
}

/// The same with the loss of the last step multiplied.
fn scaled(
    model: &dyn Model,
    policy: &Policy,
    before: &[f32],
    x: &[f32],
    done: bool,
    scale: f64,
) -> Diagnosis {
    let engine = CpuEngine::new(Isa::new(Level::Portable).unwrap(), NonZeroUsize::MIN);
    let spec = SessionSpec { skip_limit: 1000, ..SessionSpec::new(policy, BATCH, 3) };
    let mut session = Session::new(&engine, model, &INPUT, policy, &spec).unwrap();
    let y = targets();
    for &amax in before {
        assert!(session.step(HostSlice::F32(&batch(amax)), &y, 1e-3).unwrap().committed);
    }
    let attempt = session.progress().attempts;
    if done {
        assert!(!session.step(HostSlice::F32(x), &y, 1e-3).unwrap().committed);
    }
    let found = diagnose(&session, &Replayed { x: HostSlice::F32(x), y: &y, attempt }, scale).unwrap();
    let json = serde_json::to_string(&found).unwrap();
    assert_eq!(serde_json::from_str::<Diagnosis>(&json).unwrap(), found);
    found
}

fn cast(d: &Diagnosis) -> &CodeCast {
    let finding = d.finding.as_ref().unwrap_or_else(|| panic!("nothing found:\n{d}"));
    let cast = finding.cast.as_ref().unwrap_or_else(|| panic!("not of a cast:\n{d}"));
    let phase = if cast.operand == "gradient" { Phase::Backward } else { Phase::Forward };
    assert_eq!((finding.op.as_str(), finding.phase), ("quantise", phase), "{d}");
    cast
}

fn is_cast(d: &Diagnosis, layer: &str, operand: &str, codes: &str) {
    let cast = cast(d);
    assert_eq!(
        (cast.layer.as_str(), cast.operand.as_str(), cast.codes.as_str()),
        (layer, operand, codes),
        "{d}"
    );
    let keeps = format!("pattern = \"{layer}\", rule = \"bf16\"");
    assert!(d.fixes.last().unwrap().text.contains(&keeps), "{d}");
    assert!(d.sentence().contains(&format!("cast of the {operand} of {layer} to {codes}")), "{d}");
}

/// The first step of delayed scaling multiplies with 1: what a layer made a hundred thousand times
/// as large lies overflow 448.
#[test]
fn a_layer_of_1e5_saturates_the_cast_that_follows() {
    let d = diagnosis(&Boosted, &Policy::named("fp8").unwrap(), &[], &batch(1.0), false);
    is_cast(&d, "second", "input", "float8_e4m3fn");
    let cast = cast(&d);
    assert_eq!((cast.scale, cast.room), (Some(1.0), Some(E4M3)));
    // Of numbers spread over ±a with a far above 448, few lie within.
    assert!(cast.saturated > 0.9 && cast.amax > 100.0 * E4M3, "{d}");
    let Cause::StaleScale { scale: 1.0, fits, recorded: None, amax } = d.cause else { panic!("{d}") };
    assert_eq!((fits, amax), (E4M3 / cast.amax, cast.amax));
    assert!(d.fixes[0].text.contains("fp8-current"), "{d}");
}

#[test]
fn a_tensor_that_outgrows_its_scale_is_named_with_the_scale() {
    for (history, overflow, done) in [
        (1024, Overflow::Saturate, false),
        (1024, Overflow::NonFinite, false),
        (1024, Overflow::NonFinite, true),
        (1, Overflow::NonFinite, true),
    ] {
        // A step that is tried and skipped has recorded its magnitude already: its scale is that
        // from before.
        let d = diagnosis(&*mlp(), &delayed(history, overflow), &[1.0; 3], &batch(64.0), done);
        is_cast(&d, "layers.0", "input", "float8_e4m3fn");
        let cast = cast(&d);
        assert_eq!((cast.scale, cast.room, cast.amax), (Some(E4M3), Some(1.0), 64.0), "{d}");
        assert!(cast.saturated > 0.9, "{d}");
        let stale = Cause::StaleScale { scale: E4M3, fits: E4M3 / 64.0, recorded: Some(1.0), amax: 64.0 };
        assert_eq!(d.cause, stale, "{history} {overflow:?} {done}: {d}");
        assert!(d.fixes.iter().any(|f| f.text.contains("`margin = 6` in [precision.fp8]")), "{d}");
    }
}

#[test]
fn a_tensor_that_shrinks_below_its_scale_becomes_zero() {
    let d = diagnosis(&*mlp(), &delayed(1024, Overflow::Saturate), &[1.0; 3], &batch(1e-6), false);
    is_cast(&d, "layers.0", "input", "float8_e4m3fn");
    assert_eq!((cast(&d).saturated, cast(&d).flushed), (0.0, 1.0), "{d}");
    assert!(matches!(d.cause, Cause::StaleScale { recorded: Some(1.0), .. }), "{d}");
    assert!(d.fixes.iter().any(|f| f.text.contains("`history = 16` in [precision.fp8]")), "{d}");
}

/// A loss 2^12 times as large has gradients as large, and the forward pass is as it was. The last
/// layer stays in 16 bits.
#[test]
fn the_cast_of_a_gradient_is_named_with_its_format() {
    let policy = delayed(1024, Overflow::Saturate);
    let d = scaled(&*mlp(), &policy, &[1.0; 3], &batch(1.0), false, 4096.0);
    is_cast(&d, "layers.1", "gradient", "float8_e5m2");
    let Cause::StaleScale { recorded: Some(recorded), amax, .. } = d.cause else { panic!("{d}") };
    // Three steps at a rate of 1e-3 change a gradient by less than a factor of two.
    assert!((2048.0..8192.0).contains(&(amax / recorded)), "{d}");
}

/// The same jump is foreseen by nobody in the first case; in the second, the last steps had jumps
/// as large.
#[test]
fn a_history_that_forgets_its_own_swings_is_too_short() {
    let swings = [1.0, 1.0 / 64.0, 1.0, 1.0 / 64.0];
    let d = diagnosis(&*mlp(), &delayed(4, Overflow::Saturate), &swings, &batch(32.0), false);
    is_cast(&d, "layers.0", "input", "float8_e4m3fn");
    let short = Cause::ShortHistory { steps: 4, recorded: 1.0, least: 1.0 / 64.0, amax: 32.0 };
    assert_eq!(d.cause, short, "{d}");
    assert!(d.fixes[0].text.contains("`history = 1024` in [precision.fp8]"), "{d}");
    let d = diagnosis(&*mlp(), &delayed(4, Overflow::Saturate), &[1.0; 4], &batch(32.0), false);
    assert!(matches!(d.cause, Cause::StaleScale { .. }), "{d}");
}

/// Beside a number of 1 in each block of 32, those of 1e-3 are zero in e2m1: the smallest of its
/// scale is 2^-3.
#[test]
fn magnitudes_that_no_block_scale_holds_are_too_wide() {
    let x: Vec<f32> = (0..BATCH * WIDTH).map(|i| if i % WIDTH == 0 { 1.0 } else { 1e-3 }).collect();
    let d = diagnosis(&*mlp(), &Policy::named("mxfp4").unwrap(), &[], &x, false);
    is_cast(&d, "layers.0", "input", "float4_e2m1fn");
    let cast = cast(&d);
    assert_eq!((cast.scale, cast.flushed), (None, (WIDTH - 1) as f64 / WIDTH as f64), "{d}");
    assert!(matches!(d.cause, Cause::TooWide { largest: 1.0, .. }), "{d}");
    assert!(d.fixes[0].text.contains("mxfp8"), "{d}");
}
