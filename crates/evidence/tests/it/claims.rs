//! Tests of sentences that `docs/claims.md` names: each fails if its sentence were said wrongly.

use std::num::NonZeroU32;

use halfstep_evidence::buckets::{BucketSums, TestSets};
use halfstep_evidence::exact::Excess;
use halfstep_evidence::judge::Measured;
use halfstep_evidence::logits::{InMemory, Source};
use halfstep_evidence::noninferiority::{Asked, Claim, Question};
use halfstep_evidence::statements::VerdictStatement;
use halfstep_evidence::stats::{ALPHA, Looks};
use halfstep_evidence::{Margin, MarginTest, Metric, Protocol, Verdict};
use halfstep_float::{Philox, unit_f64};

use crate::gates::{accuracy_alone, every_tenth, judged, model, said, with_regions};

/// Random numbers of one experiment, in order.
struct Numbers(Philox, u64, u32);

impl Numbers {
    fn new(cell: u64, experiment: u64) -> Numbers {
        Numbers(Philox::new(cell), experiment, 0)
    }

    fn block(&mut self) -> [u32; 4] {
        self.2 += 1;
        self.0.block([self.2, 0, self.1 as u32, 0])
    }

    /// In (0, 1].
    fn uniform(&mut self) -> f64 {
        let [a, b, ..] = self.block();
        1.0 - unit_f64(a, b)
    }

    fn normal(&mut self) -> f64 {
        let [a, b, c, d] = self.block();
        (-2.0 * (1.0 - unit_f64(a, b)).ln()).sqrt() * (std::f64::consts::TAU * unit_f64(c, d)).cos()
    }
}

/// Answers of `seeds` models to `examples`, of which a share `harm` is lost and nothing gained; a
/// share `common` of the losses falls on the same examples in every seed.
fn losing(numbers: &mut Numbers, seeds: usize, examples: usize, harm: f64, common: f64) -> Measured {
    let fixed = harm * common;
    let own = (harm - fixed) / (1.0 - fixed);
    let mut sums = vec![BucketSums::new(examples); seeds];
    // From one loss to the next the gap is geometric.
    let mut hits = |chance: f64, of: &mut dyn FnMut(usize)| {
        let mut next = |from: usize| match chance > 0.0 {
            true => from.saturating_add((numbers.uniform().ln() / (-chance).ln_1p()) as usize),
            false => examples,
        };
        let mut at = next(0);
        while at < examples {
            of(at);
            at = next(at + 1);
        }
    };
    let mut lost = vec![vec![false; examples]; seeds];
    hits(fixed, &mut |i| lost.iter_mut().for_each(|of_seed| of_seed[i] = true));
    lost.iter_mut().for_each(|of_seed| hits(own, &mut |i| of_seed[i] = true));
    for (sums, lost) in sums.iter_mut().zip(&lost) {
        lost.iter().enumerate().for_each(|(i, lost)| sums.push(i, 0.9, if *lost { -1.0 } else { 0.0 }));
    }
    measured(Metric::Accuracy, sums, examples)
}

/// A smooth measure whose mean harm is `harm`: seeds, examples and what is left scatter alike.
fn smooth(numbers: &mut Numbers, seeds: usize, examples: usize, harm: f64) -> Measured {
    let common: Vec<f64> = (0..examples).map(|_| 0.1 * numbers.normal()).collect();
    let sums = (0..seeds).map(|_| {
        let (mut sums, of_seed) = (BucketSums::new(examples), harm + 0.01 * numbers.normal());
        let add = |(i, common): (usize, &f64)| sums.push(i, 1.0, of_seed + common + 0.1 * numbers.normal());
        common.iter().enumerate().for_each(add);
        sums
    });
    measured(Metric::Nll, sums.collect(), examples)
}

fn measured(metric: Metric, sums: Vec<BucketSums>, examples: usize) -> Measured {
    let mean = |values: &[f64]| values.iter().sum::<f64>() / examples as f64;
    let pair = |s: &BucketSums| (mean(&s.references), mean(&s.references) + mean(&s.differences));
    let (pairs, units) = (sums.iter().map(pair).collect(), (sums.len() * examples) as f64);
    Measured { metric, group: None, pairs, sums, units, clustered: false, counted: 1.0 }
}

fn asked(metric: Metric, margin: f64) -> Asked {
    let (better, question) = (metric.better(), Question::NonInferiority);
    Asked { better, margin: Margin::Absolute(margin), question, looks: Looks::ONE }
}

/// How often `of` holds, at most `most` but for five deviations of a binomial share.
fn rarely(experiments: u64, most: f64, of: impl Fn(u64) -> bool) {
    let share = (0..experiments).filter(|&i| of(i)).count() as f64 / experiments as f64;
    let chance = 5.0 * (most * (1.0 - most) / experiments as f64).sqrt();
    assert!(share <= most + chance, "{share}, at most {most} is stated");
}

fn on_examples(m: &Measured, margin: f64) -> MarginTest {
    m.on_examples(asked(m.metric, margin), TestSets::Shared).unwrap()
}

fn on_samples(m: &Measured, margin: f64) -> MarginTest {
    m.on_samples(asked(m.metric, margin)).unwrap()
}

#[test]
fn on_examples_like_these_a_false_pass_is_as_rare_as_stated() {
    for (cell, common) in [(1, 0.0), (2, 0.5), (3, 0.9)] {
        rarely(1000, ALPHA, |i| {
            let m = losing(&mut Numbers::new(cell, i), 5, 500, 0.01, common);
            on_examples(&m, 0.01).verdict == Verdict::Pass
        });
    }
    rarely(1000, ALPHA, |i| {
        on_examples(&smooth(&mut Numbers::new(4, i), 3, 100, 0.02), 0.02).verdict == Verdict::Pass
    });
}

#[test]
fn on_these_samples_a_false_pass_is_as_rare_as_stated() {
    for (cell, seeds, examples) in [(5, 2, 50), (6, 5, 500)] {
        rarely(2000, ALPHA, |i| {
            let m = losing(&mut Numbers::new(cell, i), seeds, examples, 0.03, 0.0);
            on_samples(&m, 0.03).verdict == Verdict::Pass
        });
    }
}

#[test]
fn harm_on_other_examples_is_said_as_rarely_as_stated() {
    for (cell, common) in [(7, 0.0), (8, 0.5), (9, 0.9)] {
        rarely(1000, ALPHA, |i| {
            let m = losing(&mut Numbers::new(cell, i), 5, 500, 0.02, common);
            on_examples(&m, 0.02).verdict == Verdict::Fail
        });
    }
}

#[test]
fn a_bound_of_the_harm_covers_it_as_often_as_it_says() {
    const HARM: f64 = 0.03;
    let draw = |cell, i| smooth(&mut Numbers::new(cell, i), 4, 100, HARM);
    // Given these examples, their own mean is the truth of other seeds on them.
    let of_these = |cell, i| {
        let numbers = &mut Numbers::new(cell, i);
        HARM + (0..100).map(|_| 0.1 * numbers.normal()).sum::<f64>() / 100.0
    };
    rarely(2000, ALPHA, |i| on_examples(&draw(10, i), 1.0).harm_at_least.unwrap() > HARM);
    rarely(2000, ALPHA, |i| on_examples(&draw(11, i), 1.0).harm_at_most.unwrap() < HARM);
    rarely(2000, ALPHA, |i| on_samples(&draw(12, i), 1.0).harm_at_least.unwrap() > of_these(12, i));
    rarely(2000, ALPHA, |i| on_samples(&draw(13, i), 1.0).harm_at_most.unwrap() < of_these(13, i));
}

#[test]
fn as_many_samples_as_are_said_to_be_needed_pass() {
    let base: Vec<_> = (0..5).map(|s| model(s, 2000, every_tenth)).collect();
    let lost = |s| model(s + 50, 2000, |i| every_tenth(i) || (i % 10 == 5 && i / 10 < 14)).with_seed(s);
    let a = judged(&base, &(0..5).map(lost).collect::<Vec<_>>(), accuracy_alone()).unwrap();
    let VerdictStatement::AsGoodOnSamplesOnly { elsewhere, .. } = &a.findings[0] else {
        panic!("{}", said(&a))
    };
    let VerdictStatement::SamplesNeeded { needed, now: 2000, .. } = **elsewhere else {
        panic!("{elsewhere}")
    };
    // Candidates that do the same to so many examples pass with the chance that is planned, 0.8,
    // and with a tenth of the examples they rarely do. Shares of 400, to five deviations of 0.02.
    let passes = |cell, examples: u64| {
        let one = |i| losing(&mut Numbers::new(cell, i), 5, examples as usize, 0.007, 1.0);
        (0..400).filter(|&i| on_examples(&one(i), 0.01).verdict == Verdict::Pass).count() as f64 / 400.0
    };
    let (enough, few) = (passes(14, needed), passes(15, needed / 10));
    assert!(enough > 0.8 - 0.1 && few < 0.5, "{needed}: {enough}, {few}");
}

#[test]
fn what_more_samples_do_not_settle_has_no_number() {
    // Of so many classes the scatter of macro-F1 over examples is not known.
    let of_many = |seed: u64| {
        let (mut open, classes) = (model(seed, 1000, every_tenth).open().unwrap(), 1025);
        let mut rows = Vec::new();
        open.read(1000, &mut rows).unwrap();
        let wide = rows.chunks_exact(2).flat_map(|row| [row, &[-9.0; 1023]].concat());
        InMemory::new(format!("seed {seed}"), classes, wide.collect(), open.labels())
    };
    let mut protocol = Protocol { claim: Claim::Samples, ..accuracy_alone() };
    protocol.set(Metric::MacroF1, Some(Margin::Absolute(0.05)));
    let base: Vec<_> = (0..3).map(|s| of_many(s).with_seed(s)).collect();
    let same: Vec<_> = (0..3).map(|s| of_many(s + 50).with_seed(s)).collect();
    let a = judged(&base, &same, protocol).unwrap();
    assert_eq!((a.verdict, a.on_examples), (Verdict::Pass, Verdict::Inconclusive), "{}", said(&a));
    assert!(said(&a).contains("Whether it is on new ones is not shown yet."), "{}", said(&a));
}

/// A margin for each measure, most of which are no means over examples.
#[test]
fn every_metric_with_a_margin_is_judged_on_examples_like_these() {
    let mut protocol = Protocol::default();
    for metric in Metric::ALL.into_iter().filter(|m| *m != Metric::GroupAccuracy) {
        protocol.set(metric, Some(Margin::Absolute(0.05)));
    }
    let base: Vec<_> = (0..3).map(|s| model(s, 2000, |i| every_tenth(i + s as usize))).collect();
    let same: Vec<_> =
        (0..3).map(|s| model(s + 50, 2000, |i| every_tenth(i + 1 + s as usize)).with_seed(s)).collect();
    let a = judged(&base, &same, protocol).unwrap();
    assert!(a.unjudged.is_empty(), "{}", said(&a));
    for row in &a.rows {
        let (narrow, wide) = (row.on_samples.unwrap(), row.on_examples.unwrap());
        let [narrow, wide] = [narrow, wide].map(|t| t.harm_at_most.unwrap());
        assert!(wide.is_finite() && wide >= narrow - 1e-12, "{}: {wide}, {narrow}", row.label());
    }
}

#[test]
fn nothing_judged_is_no_pass() {
    let mut protocol = accuracy_alone();
    protocol.set(Metric::Accuracy, None);
    let a = judged(&[model(0, 1000, every_tenth)], &[model(0, 1000, every_tenth)], protocol).unwrap();
    assert_eq!((a.verdict, &a.findings[0]), (Verdict::Inconclusive, &VerdictStatement::NothingJudged));
}

#[test]
fn one_of_many_beyond_its_margin_is_no_fail() {
    // Of 200 samples of one group 11 are lost: P(X ≥ 11) = 0.04 for a chance of 3 %. Four tests are
    // made.
    let protocol = || {
        let mut protocol = accuracy_alone();
        protocol.margins.push((Metric::GroupAccuracy, Margin::Absolute(0.03)));
        protocol
    };
    let half = |file| with_regions(file, 1000, 200);
    let lost = |i: usize| every_tenth(i) || (i < 110 && i % 10 == 5);
    let a = judged(&[half(model(0, 1000, every_tenth))], &[half(model(0, 1000, lost))], protocol()).unwrap();
    let alone = a.rows.iter().find(|r| r.label() == "accuracy of region=west").unwrap();
    assert_eq!((alone.verdict(), a.verdict), (Some(Verdict::Fail), Verdict::Inconclusive), "{}", said(&a));
    assert!(said(&a).contains("(Holm): accuracy of region=west."), "{}", said(&a));
    assert!(!said(&a).contains("worse by at least"), "{}", said(&a));
}

#[test]
fn one_pair_is_judged_by_its_examples_alone() {
    let files = |n| (0..n).map(|s| model(s, 1000, every_tenth)).collect::<Vec<_>>();
    let speaks = |n| {
        let a = judged(&files(n), &files(n), accuracy_alone()).unwrap();
        assert_eq!(a.rows.iter().all(|r| r.on_samples.is_none()), n == 1);
        a.findings.contains(&VerdictStatement::OnePairOfFiles)
    };
    assert!(speaks(1) && !speaks(2));
}

#[test]
fn equal_chances_to_diverge_are_rarely_called_oftener() {
    // Summed over all outcomes of n runs each: Fisher's test is exact.
    for n in [3u64, 5, 10, 30] {
        for chance in [0.05f64, 0.2, 0.5] {
            let p = |k: u64| {
                let ways = (0..k).map(|i| (n - i) as f64 / (i + 1) as f64).product::<f64>();
                ways * chance.powi(k as i32) * (1.0 - chance).powi((n - k) as i32)
            };
            let of = |k, b| if Excess::of(k, n, b, n).p_fail < ALPHA { p(k) * p(b) } else { 0.0 };
            let wrong: f64 = (0..=n).flat_map(|k| (0..=n).map(move |b| of(k, b))).sum();
            assert!(wrong <= ALPHA, "{n} runs, {chance}: {wrong}");
        }
    }
    // And what is five of five is called so.
    assert!(Excess::of(5, 5, 0, 5).p_fail < ALPHA);
}

#[test]
fn over_all_looks_stated_or_not_a_false_pass_is_as_rare_as_one_look_may_be() {
    // Four looks, each with three seeds more; of those that are not stated none may decide.
    let any_passes = |i, stated, decide_beyond: bool| {
        let numbers = &mut Numbers::new(16, i);
        let values: Vec<f64> = (0..12).map(|_| 0.01 + 0.004 * numbers.normal()).collect();
        (0..4u32).any(|before| {
            let pairs: Vec<(f64, f64)> =
                values[..3 * (before as usize + 1)].iter().map(|v| (0.9, 0.9 - v)).collect();
            let looks = Looks::of(NonZeroU32::new(stated).unwrap());
            let looks = if decide_beyond { looks } else { looks.after(before) };
            let asked = Asked { looks, ..asked(Metric::Accuracy, 0.01) };
            MarginTest::of_seeds(&pairs, asked, None).unwrap().verdict == Verdict::Pass
        })
    };
    for stated in 1..=4 {
        rarely(20_000, ALPHA, |i| any_passes(i, stated, false));
    }
    // Were each look beyond the one stated at the same level, they would pass oftener.
    let share = (0..20_000).filter(|&i| any_passes(i, 1, true)).count() as f64 / 20_000.0;
    assert!(share > 0.08, "{share}");
}
