//! The loss scaler's transitions, run in a program, beside torch's GradScaler and beside a scalar
//! statement of the rule.

use crate::common;
use halfstep_graph::engine::HostSlice;
use halfstep_graph::precision::Policy;
use halfstep_nn::{InputSpec, MlpSpec, ModelSpec};
use halfstep_train::optimiser::{Optimiser, Sgd};
use halfstep_train::scaler::{CLEAN_SLOT, DynamicScale, LossScale, SCALE_SLOT, TOLERANCE_SLOT};
use halfstep_train::session::{Session, SessionSpec};

/// Scale, clean count and tolerance after each step of a program in which the listed steps
/// overflow.
fn run(scale: &DynamicScale, overflows: &[bool]) -> Vec<[f64; 3]> {
    let input = InputSpec::Features { width: 2 };
    let model = ModelSpec::Mlp(MlpSpec { hidden: vec![] }).build(&input, 2).unwrap();
    let policy = Policy::named("fp32").unwrap();
    let spec = SessionSpec {
        optimiser: Optimiser::Sgd(Sgd::default()),
        scaling: LossScale::Dynamic(scale.clone()),
        skip_limit: u32::MAX,
        ..SessionSpec::new(&policy, 1, 0)
    };
    let engine = common::interpreter();
    let mut session = Session::new(&engine, &*model, &input, &policy, &spec).unwrap();
    let state = |session: &Session<'_>, slot: &str| f64::from(session.download(slot).unwrap().f32()[0]);
    let mut states = Vec::new();
    for &overflow in overflows {
        let before = state(&session, SCALE_SLOT);
        let x = if overflow { [f32::INFINITY, 1.0] } else { [1.0, 1.0] };
        let report = session.step(HostSlice::F32(&x), &[0], 1e-3).unwrap();
        assert_eq!(report.committed, !overflow);
        assert_eq!(f64::from(report.scale), before, "a step reports the scale it used");
        states.push([SCALE_SLOT, CLEAN_SLOT, TOLERANCE_SLOT].map(|slot| state(&session, slot)));
    }
    states
}

#[test]
fn transitions_are_those_of_torch() {
    let text = std::fs::read_to_string(common::golden::folder().join("scaler.json")).unwrap();
    let golden: serde_json::Value = serde_json::from_str(&text).unwrap();
    let cases = golden["cases"].as_array().unwrap();
    assert!(cases.len() >= 3);
    for case in cases {
        let number = |key: &str| case[key].as_f64().unwrap();
        let list = |key: &str| case[key].as_array().unwrap().iter();
        let scale = DynamicScale {
            init: number("init"),
            growth: number("growth"),
            backoff: number("backoff"),
            interval: number("interval") as u32,
            // torch has no limits and backs off at once.
            hysteresis: 1,
            floor: f64::from(f32::MIN_POSITIVE),
            ceiling: 1e38,
            underflow: None,
            probe: 500,
        };
        let overflows: Vec<bool> = list("overflows").map(|v| v.as_bool().unwrap()).collect();
        assert!(overflows.iter().filter(|&&o| o).count() > 10);
        for (step, state) in run(&scale, &overflows).iter().enumerate() {
            let expected = [&case["scales"][step], &case["clean"][step]].map(|v| v.as_f64().unwrap());
            assert_eq!(state[..2], expected, "step {step} of {scale:?}");
        }
    }
}

/// The rule as documented, in scalars.
fn reference(s: &DynamicScale, overflows: &[bool]) -> Vec<[f64; 3]> {
    let (mut scale, mut clean, mut tolerance) = (s.init, 0, s.hysteresis);
    let mut states = Vec::new();
    for &overflow in overflows {
        if overflow {
            clean = 0;
            tolerance = tolerance.saturating_sub(1);
            if tolerance == 0 {
                scale = (scale * s.backoff).max(s.floor);
            }
        } else {
            tolerance = s.hysteresis;
            clean += 1;
            if clean == s.interval {
                clean = 0;
                scale = (scale * s.growth).min(s.ceiling);
            }
        }
        states.push([scale, f64::from(clean), f64::from(tolerance)]);
    }
    states
}

#[test]
fn hysteresis_floor_and_ceiling_hold() {
    let scale = DynamicScale {
        init: 64.0,
        interval: 2,
        hysteresis: 3,
        floor: 16.0,
        ceiling: 256.0,
        ..DynamicScale::default()
    };
    // Up to the ceiling; two overflows tolerated and a clean step between; then down to the floor
    // and stay.
    let bits = "....... xx. xx. xxxxxxxxxx ... x.x.x .... xxx";
    let overflows: Vec<bool> = bits.chars().filter(|c| *c != ' ').map(|c| c == 'x').collect();
    let states = run(&scale, &overflows);
    assert_eq!(states, reference(&scale, &overflows));
    let scales: Vec<f64> = states.iter().map(|s| s[0]).collect();
    assert!(scales.contains(&256.0) && scales.contains(&16.0));
    assert!(scales.iter().all(|s| (16.0..=256.0).contains(s)));
}
