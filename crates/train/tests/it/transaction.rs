//! A step whose gradients are not finite changes nothing but the loss scaler and the count of
//! attempts.

use crate::common;
use halfstep_graph::engine::{Engine, HostSlice, HostTensor};
use halfstep_graph::precision::Policy;
use halfstep_graph::{Graph, GraphError, SlotKind, ValueId};
use halfstep_nn::layers::{BatchNorm, Dropout, Linear, relu};
use halfstep_nn::{Context, InputSpec, Model};
use halfstep_train::metrics::Cause;
use halfstep_train::optimiser::{Optimiser, Sgd};
use halfstep_train::scaler::{DynamicScale, LossScale, SCALE_SLOT, StaticScale};
use halfstep_train::schedule::{Decay, Schedule};
use halfstep_train::session::{Progress, Session, SessionSpec, TrainError};
use halfstep_train::step_options::StepOptions;

const WIDTH: usize = 6;
const BATCH: usize = 4;
const INPUT: InputSpec = InputSpec::Features { width: WIDTH };

/// A net with every kind of state a step can change.
struct Net {
    dropout: f64,
}

impl Model for Net {
    fn forward(&self, g: &mut Graph, x: ValueId, ctx: &Context) -> Result<ValueId, GraphError> {
        let x = Linear::new("first", WIDTH, 8).forward(g, x)?;
        let x = BatchNorm::new("norm", 8).forward(g, x, ctx)?;
        let x = relu(g, "relu", x)?;
        let x = Dropout::new("drop", self.dropout).forward(g, x, ctx)?;
        Linear::new("last", 8, 3).forward(g, x)
    }
}

const PLAIN: Net = Net { dropout: 0.0 };

fn batch(step: usize) -> (Vec<f32>, Vec<i32>) {
    let number = |i: usize| ((i * 37 + step * 11) % 17) as f32 / 8.0 - 1.0;
    ((0..BATCH * WIDTH).map(number).collect(), (0..BATCH).map(|i| ((i + step) % 3) as i32).collect())
}

fn step(session: &mut Session<'_>, step: usize) -> Result<bool, TrainError> {
    let (x, y) = batch(step);
    Ok(session.step(HostSlice::F32(&x), &y, 0.01)?.committed)
}

fn step_with(session: &mut Session<'_>, value: f32) -> Result<bool, TrainError> {
    let (mut x, y) = batch(0);
    x[5] = value;
    Ok(session.step(HostSlice::F32(&x), &y, 0.01)?.committed)
}

/// Whether a slot of this kind changes only when a step commits. Scales of codes are another's
/// test.
fn commits(kind: SlotKind) -> bool {
    !matches!(kind, SlotKind::Scaler | SlotKind::Scale)
}

/// Bits of every slot that a skipped step must not change.
fn bits(session: &Session<'_>) -> Vec<(String, Vec<u32>)> {
    session
        .slots()
        .iter()
        .filter(|s| commits(s.kind))
        .map(|s| {
            let HostTensor::F32(values) = session.download(&s.name).unwrap() else { panic!("{}", s.name) };
            (s.name.clone(), values.into_iter().map(f32::to_bits).collect())
        })
        .collect()
}

fn scale(session: &Session<'_>) -> f32 {
    session.download(SCALE_SLOT).unwrap().f32()[0]
}

#[test]
fn a_bad_batch_changes_only_the_scaler_and_the_attempts() {
    for (engine, policy) in common::engines().iter().flat_map(|e| Policy::NAMES.map(|name| (e, name))) {
        let policy = Policy::named(policy).unwrap();
        for optimiser in [Optimiser::default(), Optimiser::Sgd(Sgd::default())] {
            let spec = SessionSpec {
                optimiser,
                scaling: LossScale::Dynamic(DynamicScale { init: 1024.0, ..DynamicScale::default() }),
                ..SessionSpec::new(&policy, BATCH, 1)
            };
            let mut session = Session::new(&**engine, &PLAIN, &INPUT, &policy, &spec).unwrap();
            for s in 0..3 {
                let before = bits(&session);
                assert!(step(&mut session, s).unwrap());
                let kinds = session.slots().iter().filter(|s| commits(s.kind)).map(|s| s.kind);
                let all = before.iter().zip(bits(&session)).zip(kinds);
                for ((before, after), kind) in all.filter(|(_, k)| *k != SlotKind::Weight { decay: false }) {
                    assert_ne!(before.1, after.1, "a clean step changes {} ({kind:?})", before.0);
                }
            }
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let (before, old_scale, old) = (bits(&session), scale(&session), session.progress());
                assert!(!step_with(&mut session, bad).unwrap());
                assert_eq!(bits(&session), before, "{} {} {bad}", engine.name(), policy.name);
                assert_eq!(scale(&session), old_scale * 0.5);
                let skips = old.skips_in_a_row + 1;
                assert_eq!(
                    session.progress(),
                    Progress { attempts: old.attempts + 1, skips_in_a_row: skips, ..old }
                );
            }
            assert!(step(&mut session, 3).unwrap());
            assert_eq!(session.progress().skips_in_a_row, 0);
            assert_eq!(session.progress().committed, 4);
        }
    }
}

#[test]
fn training_goes_on_as_if_the_bad_batch_had_not_been() {
    common::engines().iter().for_each(|engine| goes_on_after_a_bad_batch(&**engine));
}

fn goes_on_after_a_bad_batch(engine: &dyn Engine) {
    let policy = Policy::named("fp32").unwrap();
    let spec = SessionSpec::new(&policy, BATCH, 1);
    let run = |bad_at: Option<usize>| {
        let mut session = Session::new(engine, &PLAIN, &INPUT, &policy, &spec).unwrap();
        for s in 0..5 {
            if bad_at == Some(s) {
                assert!(!step_with(&mut session, f32::NAN).unwrap());
            }
            assert!(step(&mut session, s).unwrap());
        }
        bits(&session)
    };
    assert_eq!(run(None), run(Some(2)));
}

/// In f32 a scale that is a power of two changes no rounding, so neither clipping nor the update
/// may see it.
#[test]
fn clipping_and_update_see_unscaled_gradients() {
    common::engines().iter().for_each(|engine| scale_is_invisible(&**engine));
}

fn scale_is_invisible(engine: &dyn Engine) {
    let policy = Policy::named("fp32").unwrap();
    let run = |scaling: LossScale, clip: Option<f64>| {
        let spec = SessionSpec { scaling, clip, ..SessionSpec::new(&policy, BATCH, 1) };
        let mut session = Session::new(engine, &PLAIN, &INPUT, &policy, &spec).unwrap();
        let mut norms = Vec::new();
        for s in 0..4 {
            let (x, y) = batch(s);
            norms.push(session.step(HostSlice::F32(&x), &y, 0.01).unwrap().grad_norm);
        }
        (bits(&session), norms)
    };
    let fixed = || LossScale::Static(StaticScale { scale: 4096.0 });
    let dynamic = || LossScale::Dynamic(DynamicScale::default());
    for clip in [None, Some(0.1)] {
        let plain = run(LossScale::Off, clip);
        assert!(plain.1.iter().all(|&n| n > 0.1), "clipping at 0.1 must matter: {:?}", plain.1);
        assert_eq!(plain, run(fixed(), clip));
        assert_eq!(plain, run(dynamic(), clip));
    }
    assert_ne!(run(fixed(), None), run(fixed(), Some(0.1)));
}

/// With plain SGD the first step moves weights by lr·min(1, clip/norm)·gradient.
#[test]
fn the_clipped_step_has_the_length_of_the_limit() {
    common::engines().iter().for_each(|engine| clipped_step(&**engine));
}

fn clipped_step(engine: &dyn Engine) {
    let policy = Policy::named("fp32").unwrap();
    let sgd = Sgd { lr: 1.0, momentum: 0.0, ..Sgd::default() };
    let spec = SessionSpec {
        optimiser: Optimiser::Sgd(sgd),
        clip: Some(0.125),
        ..SessionSpec::new(&policy, BATCH, 1)
    };
    let mut session = Session::new(engine, &PLAIN, &INPUT, &policy, &spec).unwrap();
    let weights = |session: &Session<'_>| -> Vec<f64> {
        let weights = session.slots().iter().filter(|s| matches!(s.kind, SlotKind::Weight { .. }));
        weights.flat_map(|s| session.download(&s.name).unwrap().f32().to_vec()).map(f64::from).collect()
    };
    let before = weights(&session);
    let (x, y) = batch(0);
    let norm = f64::from(session.step(HostSlice::F32(&x), &y, 1.0).unwrap().grad_norm);
    let after = weights(&session);
    let length = before.iter().zip(&after).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt();
    let expected = 0.125 * norm / (norm + 1e-6);
    // Each new weight is rounded once, by at most u·|w|; the gradient by three products before
    // that, which is less than 4·u of the length.
    let u = 2f64.powi(-24);
    let slack = u * after.iter().map(|w| w * w).sum::<f64>().sqrt() + 4.0 * u * expected;
    assert!((length - expected).abs() <= slack, "{length} is not {expected} ± {slack:e}");
}

#[test]
fn an_attempt_has_its_own_dropout_draw() {
    common::engines().iter().for_each(|engine| dropout_draws(&**engine));
}

fn dropout_draws(engine: &dyn Engine) {
    let policy = Policy::named("fp32").unwrap();
    let spec =
        SessionSpec { optimiser: Optimiser::Sgd(Sgd::default()), ..SessionSpec::new(&policy, BATCH, 1) };
    let net = Net { dropout: 0.5 };
    let (x, y) = batch(0);
    let losses = |bad: bool| {
        let mut session = Session::new(engine, &net, &INPUT, &policy, &spec).unwrap();
        if bad {
            assert!(!step_with(&mut session, f32::NAN).unwrap());
        }
        // A learning rate of zero: only the draw differs between steps.
        [0, 1].map(|_| session.step(HostSlice::F32(&x), &y, 0.0).unwrap().loss)
    };
    let (plain, after_bad) = (losses(false), losses(true));
    assert_ne!(plain[0], plain[1]);
    assert_eq!(plain[1], after_bad[0], "the second attempt draws the same, whatever the first was");
}

fn diverged(
    engine: &dyn Engine,
    policy: &str,
    scaling: LossScale,
    spoil: impl Fn(&mut Session<'_>),
    value: f32,
) -> (u32, u64, Cause) {
    let policy = Policy::named(policy).unwrap();
    let spec = SessionSpec { scaling, skip_limit: 3, ..SessionSpec::new(&policy, BATCH, 1) };
    let mut session = Session::new(engine, &PLAIN, &INPUT, &policy, &spec).unwrap();
    assert!(step_with(&mut session, 0.5).is_ok());
    spoil(&mut session);
    for _ in 0..100 {
        match step_with(&mut session, value) {
            Ok(_) => continue,
            Err(TrainError::Diverged { skips, committed, cause, .. }) => return (skips, committed, cause),
            Err(other) => panic!("{other}"),
        }
    }
    panic!("100 bad steps and no end");
}

#[test]
fn a_run_that_cannot_recover_ends_and_names_the_cause() {
    let keep = |_: &mut Session<'_>| ();
    let poison = |s: &mut Session<'_>| s.upload("last.bias", HostSlice::F32(&[f32::NAN; 3])).unwrap();
    let swell = |s: &mut Session<'_>| s.upload("last.weight", HostSlice::F32(&[3e38; 24])).unwrap();
    for engine in common::engines() {
        let engine = &*engine;
        assert_eq!(diverged(engine, "fp32", LossScale::Off, keep, f32::NAN), (3, 1, Cause::Data));
        assert_eq!(diverged(engine, "fp32", LossScale::Off, poison, 0.5), (3, 1, Cause::Weights));
        assert_eq!(diverged(engine, "fp32", LossScale::Off, swell, 0.5), (3, 1, Cause::Forward));
        // 8 → 4 → 2, the floor, and three more.
        let scale = DynamicScale { init: 8.0, floor: 2.0, ..DynamicScale::default() };
        let scaling = LossScale::Dynamic(scale);
        assert_eq!(diverged(engine, "fp16", scaling, keep, f32::NAN), (5, 1, Cause::Data));
    }
}

/// The variance of such a batch is beyond f32, and dividing by its root leaves finite gradients;
/// whether the normalised activations are finite too depends on the kernel, but the step must not
/// commit.
#[test]
fn statistics_beyond_f32_do_not_commit() {
    let keep = |_: &mut Session<'_>| ();
    let exact = common::interpreter();
    assert_eq!(diverged(&exact, "fp32", LossScale::Off, keep, 3e38), (3, 1, Cause::Statistics));
    for engine in common::engines() {
        let (skips, committed, _) = diverged(&*engine, "fp32", LossScale::Off, keep, 3e38);
        assert_eq!((skips, committed), (3, 1));
    }
}

#[test]
fn a_scale_beyond_the_format_is_told_from_a_bad_forward_pass() {
    common::engines().iter().for_each(|engine| scale_too_high(&**engine));
}

fn scale_too_high(engine: &dyn Engine) {
    let policy = Policy::named("fp16").unwrap();
    let scaling = LossScale::Static(StaticScale { scale: 2f64.powi(40) });
    let spec = SessionSpec { scaling, skip_limit: 1, ..SessionSpec::new(&policy, BATCH, 1) };
    let mut session = Session::new(engine, &PLAIN, &INPUT, &policy, &spec).unwrap();
    let error = step(&mut session, 0).unwrap_err();
    assert!(matches!(error, TrainError::Diverged { cause: Cause::Backward, .. }), "{error}");
    let message = error.to_string();
    assert!(message.contains("fp16") && message.contains("loss scaling"), "{message}");
}

/// Every kind of state at once, moving averages and a schedule's warm-up among them, in the loop
/// that runs use: a skipped step moves the data cursor, the attempts and the scaler, and nothing
/// else.
#[test]
fn a_skipped_step_moves_the_cursor_and_the_scaler_alone() {
    let engine = common::interpreter();
    let policy = Policy::named("fp16").unwrap();
    let options = StepOptions { average: Some(0.9), ..StepOptions::default() };
    // 2^30 overflows; down to where it does not takes steps that are skipped.
    let scaling = LossScale::Dynamic(DynamicScale {
        init: 2f64.powi(30),
        ceiling: 2f64.powi(30),
        ..DynamicScale::default()
    });
    let spec = SessionSpec { scaling, options, ..SessionSpec::new(&policy, BATCH, 1) };
    let mut session = Session::new(&engine, &PLAIN, &INPUT, &policy, &spec).unwrap();
    let schedule = Schedule::Linear(Decay { warmup: 100, end: 0.0 });
    let mut skipped = 0;
    for attempt in 0..30 {
        let (before, old, old_scale) = (bits(&session), session.progress(), scale(&session));
        let names: Vec<&str> = before.iter().map(|(name, _)| name.as_str()).collect();
        assert!(
            names.contains(&"optimiser.average.first.weight") && names.contains(&"norm.running_var"),
            "{names:?}"
        );
        let factor = schedule.factor(old.committed, 200);
        let (x, y) = batch(attempt);
        let report = session.step(HostSlice::F32(&x), &y, 0.01 * factor).unwrap();
        let now = session.progress();
        assert_eq!(now.attempts, old.attempts + 1);
        if report.committed {
            assert_eq!((report.cause, now.committed), (None, old.committed + 1));
            assert_ne!(schedule.factor(now.committed, 200), factor, "the schedule moves");
            continue;
        }
        skipped += 1;
        assert_eq!(report.cause, Some(Cause::Backward), "a skip says its cause");
        assert_eq!(bits(&session), before);
        assert_eq!(schedule.factor(now.committed, 200), factor, "the schedule stays");
        assert_eq!(scale(&session), old_scale * 0.5);
    }
    assert!((5..25).contains(&skipped), "{skipped} of 30 skipped");
}

/// bf16 and f32 have no scale to lower: they are not skipped forever, and the report says why.
#[test]
fn divergence_in_f32_and_bf16_is_reported() {
    let swell = |s: &mut Session<'_>| s.upload("last.weight", HostSlice::F32(&[3e38; 24])).unwrap();
    for engine in common::engines() {
        for policy in ["fp32", "bf16"] {
            assert_eq!(diverged(&*engine, policy, LossScale::Off, swell, 0.5), (3, 1, Cause::Forward));
        }
    }
}

/// Logits in proportion to the inputs, so that gradients are as large as those and the loss is
/// finite.
struct Line;

impl Model for Line {
    fn forward(&self, g: &mut Graph, x: ValueId, _: &Context) -> Result<ValueId, GraphError> {
        Linear::new("last", WIDTH, 3).forward(g, x)
    }
}

/// The square of such gradients is beyond f32, and so is what an optimiser keeps of it.
#[test]
fn a_step_whose_moments_would_not_be_finite_does_not_commit() {
    for (engine, name) in common::engines().iter().flat_map(|e| ["fp32", "bf16"].map(|name| (e, name))) {
        let policy = Policy::named(name).unwrap();
        for optimiser in [Optimiser::default(), Optimiser::Sgd(Sgd::default())] {
            for (size, clip, commits) in
                [(2e19, None, false), (1e30, None, false), (1e30, Some(1.0), true), (1e18, None, true)]
            {
                let optimiser = optimiser.clone();
                let spec = SessionSpec { optimiser, clip, ..SessionSpec::new(&policy, BATCH, 1) };
                let mut session = Session::new(&**engine, &Line, &INPUT, &policy, &spec).unwrap();
                assert!(step(&mut session, 0).unwrap());
                let before = bits(&session);
                let (x, y) = batch(1);
                let x: Vec<f32> = x.iter().map(|x| x * size).collect();
                // So low that a step that commits does not spoil the weights.
                let report = session.step(HostSlice::F32(&x), &y, 1e-30).unwrap();
                let what = format!("{size:e} with clip {clip:?} in {name} on {}", engine.name());
                assert!(report.loss.is_finite() && report.grad_norm.is_finite(), "{what}: {report:?}");
                assert_eq!(report.committed, commits, "{what}: {report:?}");
                assert_eq!(report.cause, (!commits).then_some(Cause::Moments), "{what}");
                assert_eq!(bits(&session) == before, !commits, "{what}");
                for (slot, bits) in bits(&session) {
                    assert!(bits.iter().all(|&b| f32::from_bits(b).is_finite()), "{what}: {slot}");
                }
            }
        }
    }
}
