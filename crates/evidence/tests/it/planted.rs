//! Regressions planted into synthetic models, each of which must be named by the measure that is
//! made for it; and a candidate without any, which must pass.
//!
//! A model's logits are those of the best classifier of ten Gaussian classes: x(k) = 3·[k =
//! label] + noise, logits 3·x, which is perfectly calibrated. Of the noise's variance four fifths
//! belong to the example, the same for every model, and one fifth to the seed.

use std::num::NonZeroUsize;

use halfstep_evidence::logits::{InMemory, Source};
use halfstep_evidence::measures::GroupColumn;
use halfstep_evidence::{Assessment, Protocol, assess};
use halfstep_evidence::{Margin, Metric, Verdict};
use halfstep_float::{Philox, unit_f64};

const SAMPLES: usize = 2000;
const CLASSES: usize = 10;
const SEEDS: u64 = 12;
const SIGNAL: f64 = 3.0;

fn label(i: usize) -> usize {
    i * 7 % CLASSES
}

/// Every tenth sample, of all classes alike.
fn minority(i: usize) -> bool {
    i / CLASSES % 10 == 3
}

fn normal(seed: u64, index: usize) -> f64 {
    let [a, b, c, d] = Philox::new(seed).block([index as u32, 0, 0, 0]);
    (-2.0 * (1.0 - unit_f64(a, b)).ln()).sqrt() * (std::f64::consts::TAU * unit_f64(c, d)).cos()
}

/// A model: the seed of its own noise, and what is wrong with it.
#[derive(Clone, Copy)]
struct Model {
    noise: u64,
    scale: f64,
    /// Signal of the minority.
    minority_signal: f64,
    /// The example whose noise sample `i` gets is `i + shift`: another order of the same
    /// difficulties.
    shift: usize,
    /// Share of samples whose answer a worse head turns into the next class.
    broken: f64,
}

fn model(noise: u64) -> Model {
    Model { noise, scale: 1.0, minority_signal: SIGNAL, shift: 0, broken: 0.0 }
}

fn logits(m: Model) -> InMemory {
    let mut all = Vec::with_capacity(SAMPLES * CLASSES);
    for i in 0..SAMPLES {
        let signal = if minority(i) { m.minority_signal } else { SIGNAL };
        let example = (i + m.shift) % SAMPLES;
        let mut row: Vec<f32> = (0..CLASSES)
            .map(|k| {
                // Noise is counted from the label, so that its distribution is the same for all
                // classes.
                let j = (k + CLASSES - label(i)) % CLASSES;
                let noise = 0.8f64.sqrt() * normal(1, example * CLASSES + j)
                    + 0.2f64.sqrt() * normal(m.noise, i * CLASSES + j);
                let x = if j == 0 { signal + noise } else { noise };
                (m.scale * SIGNAL * x) as f32
            })
            .collect();
        if (i as f64 * 0.618_033_988_749).fract() < m.broken {
            row.rotate_right(1);
        }
        all.extend(row);
    }
    let labels: Vec<u32> = (0..SAMPLES).map(|i| label(i) as u32).collect();
    let groups: Vec<String> =
        (0..SAMPLES).map(|i| if minority(i) { "minority" } else { "majority" }.into()).collect();
    InMemory::new(format!("model {}", m.noise), CLASSES, all, &labels)
        .with_group(GroupColumn::new("region", &groups))
}

fn judged(candidate: impl Fn(u64) -> Model, change: impl Fn(&mut Protocol)) -> Assessment {
    let a: Vec<InMemory> = (0..SEEDS).map(|s| logits(model(100 + s))).collect();
    let b: Vec<InMemory> = (0..SEEDS).map(|s| logits(candidate(s))).collect();
    let a: Vec<&dyn Source> = a.iter().map(|s| s as &dyn Source).collect();
    let b: Vec<&dyn Source> = b.iter().map(|s| s as &dyn Source).collect();
    let mut protocol = Protocol::default();
    change(&mut protocol);
    assess(&a, &b, protocol, NonZeroUsize::new(2).unwrap()).unwrap()
}

fn named(a: &Assessment) -> Vec<String> {
    a.rows.iter().filter(|r| r.is_named()).map(|r| r.label()).collect()
}

fn verdict(a: &Assessment, metric: Metric) -> Verdict {
    a.rows.iter().find(|r| r.metric == metric && r.group.is_none()).unwrap().verdict().unwrap()
}

/// A candidate that differs by its seed's noise alone.
fn sound(seed: u64) -> Model {
    model(200 + seed)
}

#[test]
fn no_regression_passes() {
    let a = judged(sound, |_| ());
    assert_eq!(a.verdict, Verdict::Pass, "{:#?}", a.findings);
    assert!(named(&a).is_empty());
    // Every metric and both groups gate.
    assert_eq!(a.rows.iter().filter(|r| r.gates).count(), 4 + 2);
    // Of other samples too less is known than of these.
    let row = &a.rows[0];
    let bound = |test: Option<halfstep_evidence::MarginTest>| test.unwrap().harm_at_most.unwrap();
    assert!(bound(row.on_examples) > bound(row.on_samples));
}

#[test]
fn a_worse_head_on_two_per_cent_is_a_loss_of_accuracy() {
    let a = judged(
        |s| Model { broken: 0.02, ..model(100 + s) },
        |p| p.set(Metric::Accuracy, Some(Margin::Absolute(0.005))),
    );
    assert_eq!(a.verdict, Verdict::Fail);
    assert!(named(&a).contains(&"accuracy".to_string()), "{:#?}", a.findings);
    // Its other answers are those of the baseline: fewer change than with another seed.
    assert_eq!(verdict(&a, Metric::NegativeFlips), Verdict::Pass);
}

#[test]
fn a_wrong_temperature_is_miscalibration_and_nothing_else() {
    for (scale, word) in [(2.0, "overconfident"), (0.5, "underconfident")] {
        let a = judged(|s| Model { scale, ..sound(s) }, |_| ());
        assert_eq!(a.verdict, Verdict::Fail);
        assert_eq!(named(&a), ["nll", "ece"], "{:#?}", a.findings);
        assert_eq!(verdict(&a, Metric::Accuracy), Verdict::Pass);
        assert_eq!(verdict(&a, Metric::NegativeFlips), Verdict::Pass);
        let said = a.findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        assert!(said.contains(word) && said.contains("not less able"), "{said}");
        // Multiplying all logits by a number multiplies the best temperature by it.
        let t = &a.seeds[0];
        let ratio = t.candidate.temperature.temperature / t.reference.temperature.temperature;
        assert!((ratio / scale - 1.0).abs() < 0.1, "{ratio}");
    }
}

#[test]
fn harm_to_one_group_is_found_there() {
    // Calibrated for its weaker signal it is not, but one sample in ten hardly moves the means.
    let a = judged(|s| Model { minority_signal: 2.5, ..sound(s) }, |_| ());
    assert_eq!(a.verdict, Verdict::Fail);
    assert_eq!(named(&a), ["accuracy of region=minority"], "{:#?}", a.findings);
    let said = a.findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    assert!(said.contains("not spread evenly"), "{said}");
    assert_eq!(a.group_flips[0].group.value, "minority");
    assert!(a.group_flips[0].negative_flips > a.group_flips[0].floor.unwrap());
}

#[test]
fn equal_accuracy_with_other_answers_is_found_by_flips() {
    let a = judged(|s| Model { shift: CLASSES, ..sound(s) }, |_| ());
    assert_eq!(a.verdict, Verdict::Fail);
    assert_eq!(named(&a), ["negative-flips"], "{:#?}", a.findings);
    // On these samples accuracy is equal; that so many answers change leaves open what it is on
    // others.
    let accuracy = a.rows.iter().find(|r| r.metric == Metric::Accuracy).unwrap();
    assert_eq!(accuracy.on_samples.unwrap().verdict, Verdict::Pass);
    let said = a.findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    assert!(said.contains("Accuracy alone would not show it"), "{said}");
}
