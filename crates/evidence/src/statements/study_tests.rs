//! Studies whose sentences follow from what was measured.

use std::num::NonZeroUsize;

use halfstep_graph::engine_info::Arithmetic;

use crate::arithmetic::PolicyArithmetic;
use crate::assess::assess;
use crate::assessment::Protocol;
use crate::comparison::tests::{run, setup};
use crate::comparison::{Comparison, Setup};
use crate::logits::{InMemory, Source};
use crate::noninferiority::Claim;
use crate::report::Report;
use crate::run::RunResult;
use crate::stats::Verdict;
use crate::study::tests::study;
use crate::study::{Study, Summary};
use halfstep_train::metrics::Outcome;

use super::StudyStatement;

fn of(setup: Setup, runs: Vec<RunResult>) -> Summary {
    let c = Comparison::new(setup, runs, Vec::new());
    Study::new("test".into(), "halfstep compare test.toml".into(), vec![c]).summary
}

/// The study of a comparison that was changed.
fn again(change: impl FnOnce(&mut Comparison)) -> Summary {
    let mut c = study(10).arms.remove(0);
    change(&mut c);
    Study::new("test".into(), "halfstep compare test.toml".into(), vec![c]).summary
}

fn texts(all: &[StudyStatement]) -> String {
    all.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

#[track_caller]
fn says(all: &[StudyStatement], text: &str) {
    assert!(texts(all).contains(text), "{text}: {}", texts(all));
}

#[track_caller]
fn says_not(all: &[StudyStatement], text: &str) {
    assert!(!texts(all).contains(text), "{text}: {}", texts(all));
}

/// Two runs of a precision, as fast and as large as is said beside fp32, of 10 ms and 2 MB.
fn measured(ms: f64, arena: usize) -> Summary {
    let candidate = |seed| RunResult {
        record: halfstep_train::metrics::RunRecord {
            arena_bytes: arena,
            ..run("bf16", seed, 0.9, ms).record
        },
        ..run("bf16", seed, 0.9, ms)
    };
    let fp32 = |seed| run("fp32", seed, 0.9, 10.0);
    of(setup(), vec![fp32(0), candidate(0), fp32(1), candidate(1)])
}

#[test]
fn what_costs_more_is_named_as_lost() {
    let more = measured(10.0, 2_200_000);
    says(&more.lost, "a step needs 10 % more scratch memory.");
    says_not(&more.gained, "less scratch memory");
    says_not(&measured(10.0, 2_080_000).lost, "more scratch memory");
    says(&measured(12.0, 2_000_000).lost, "a step takes 1.20× the time.");
}

#[test]
fn nothing_gained_is_said_within_five_per_cent_only() {
    let none = "a step is no faster and needs no less memory, by 5 % or more";
    says(&measured(9.6, 1_920_000).gained, none);
    says_not(&measured(9.4, 2_000_000).gained, none);
    says_not(&measured(10.0, 1_880_000).gained, none);
    // Times of runs that ran another way say nothing.
    let apart = |seed| {
        let mut r = run("bf16", seed, 0.9, 1.0);
        (r.way.threads, r.record.arena_bytes) = (1, 2_000_000);
        r
    };
    let fp32 = |seed| run("fp32", seed, 0.9, 10.0);
    let s = of(setup(), vec![fp32(0), fp32(1), fp32(2), apart(0), apart(1)]);
    says(&s.gained, "no less memory; times were not measured alike");
}

/// Runs in fp32 and bf16 of 10 ms and `ms`, of which the engine emulates what `emulated` names.
fn emulating(emulated: &str, ms: f64, arena: usize) -> Study {
    let candidate = |seed| {
        let mut r = run("bf16", seed, 0.9, ms);
        r.record.arena_bytes = arena;
        r
    };
    let fp32 = |seed| run("fp32", seed, 0.9, 10.0);
    let of = |policy: &str| match policy == emulated {
        true => PolicyArithmetic { arithmetic: Arithmetic::Emulated, runs_on: "emulated: codes".into() },
        false => PolicyArithmetic { arithmetic: Arithmetic::Native, runs_on: "f32".into() },
    };
    let arithmetic = ["fp32", "bf16"].map(|policy| (policy.to_string(), of(policy))).into();
    let runs = vec![fp32(0), candidate(0), fp32(1), candidate(1)];
    let c = Comparison::new(Setup { arithmetic, ..setup() }, runs, Vec::new());
    Study::new("test".into(), "halfstep compare test.toml".into(), vec![c])
}

#[test]
fn no_speed_is_claimed_of_what_is_emulated() {
    let claims = |emulated: &str, ms: f64, arena: usize| emulating(emulated, ms, arena).summary;
    let none = "bf16: no less memory; no speed is claimed of products that are emulated.";
    for emulated in ["bf16", "fp32"] {
        let s = claims(emulated, 5.0, 2_000_000);
        says(&s.gained, none);
        says_not(&s.gained, "as fast");
        says(
            &s.unknown,
            &format!(
                "{emulated}: how fast a step is on a device that has instructions for it. Here its products are emulated: \
                 codes."
            ),
        );
    }
    let s = claims("bf16", 5.0, 1_000_000);
    says(&s.gained, "bf16: a step needs 50 % less scratch memory.");
    says_not(&s.gained, "as fast");
    // What is slower is slower here all the same.
    says(&claims("bf16", 20.0, 2_000_000).lost, "a step takes 2.00× the time.");
    let native = claims("none", 5.0, 2_000_000);
    says(&native.gained, "a step is 2.00× as fast");
    says_not(&native.unknown, "instructions for it");
}

#[test]
fn every_form_of_the_report_says_how_products_are_computed() {
    let emulated = emulating("bf16", 5.0, 2_000_000);
    let text = crate::table::text(&emulated.arms[0], &|s| s.to_string());
    let line = |label: &str| {
        let line = text.lines().find(|line| line.trim_start().starts_with(label)).unwrap();
        line.split_whitespace().skip(1).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(line("products"), "native emulated", "{text}");
    assert!(text.contains("2.00×, emulated"), "{text}");
    let page = Report::of(&emulated, Vec::new()).html().unwrap();
    assert!(page.contains("How products are computed") && page.contains("emulated: codes"));
    let json = serde_json::to_value(&emulated).unwrap();
    let arm = &json["arms"][0];
    assert_eq!(arm["setup"]["arithmetic"]["bf16"]["runs_on"], "emulated: codes");
    let kinds = ["fp32", "bf16"].map(|policy| arm["setup"]["arithmetic"][policy]["arithmetic"].clone());
    assert_eq!(kinds, ["native", "emulated"]);
    assert_eq!(arm["rows"][1]["arithmetic"], "emulated");
    // An engine of which nothing is known: nothing is said.
    let unknown = crate::table::text(&study(10).arms[0], &|s| s.to_string());
    assert!(!unknown.contains("products"), "{unknown}");
}

#[test]
fn one_precision_is_compared_with_nothing() {
    let s = of(setup(), vec![run("fp32", 0, 0.9, 10.0)]);
    assert_eq!(s.headline, StudyStatement::OnePrecision);
    assert_ne!(of(setup(), vec![run("fp32", 0, 0.9, 10.0), run("bf16", 0, 0.9, 5.0)]).headline, s.headline);
}

#[test]
fn one_pair_of_runs_shows_no_loss_and_says_so() {
    let setup = Setup { seeds: vec![0], ..setup() };
    let s = of(setup, vec![run("fp32", 0, 0.9, 10.0), run("bf16", 0, 0.1, 5.0)]);
    says(&s.lost, "bf16: nothing that these runs can show.");
    says(&s.next, "take at least two seeds");
    assert!(s.headline.to_string().contains("these runs cannot tell"), "{}", s.headline);
    // Where something passes, it says what.
    says_not(&study(10).summary.lost, "nothing that these runs can show");
    says_not(&study(10).summary.next, "take at least two seeds");
}

#[test]
fn a_reference_that_diverges_is_to_be_repaired_first() {
    let advice = "the reference itself diverges";
    let diverge = |policy: &'static str| {
        again(|c| {
            let mut runs = std::mem::take(&mut c.runs);
            let lost = runs.iter_mut().find(|r| r.record.policy == policy).unwrap();
            lost.record.outcome = Outcome::Diverged { reason: "NaN".into() };
            let assessment = c.candidates[0].assessment.clone().unwrap();
            *c = Comparison::new(c.setup.clone(), runs, vec![("bf16".into(), assessment)]);
        })
    };
    says(&diverge("fp32").next, advice);
    says_not(&diverge("bf16").next, advice);
}

#[test]
fn an_interrupted_study_asks_for_the_rest() {
    let s = again(|c| (c.candidates[0].missing, c.candidates[0].verdict) = (1, Verdict::Inconclusive));
    says(&s.next, "`halfstep compare test.toml` goes on from here");
    says_not(&study(10).summary.next, "goes on from here");
}

#[test]
fn seeds_do_not_settle_what_a_worthless_reference_leaves_open() {
    let advice = "Train until fp32 has learned something";
    let learned_nothing = again(|c| {
        let x = &mut c.candidates[0];
        x.verdict = Verdict::Inconclusive;
        x.assessment.as_mut().unwrap().reference_check.not_shown_better.push("seed 0".into());
    });
    says(&learned_nothing.next, advice);
    assert!(learned_nothing.headline.to_string().contains("fp32 is not shown better than a constant"));
    says_not(&again(|c| c.candidates[0].verdict = Verdict::Inconclusive).next, advice);
}

#[test]
fn without_a_plan_no_number_is_named() {
    // Open, and neither seeds nor samples are known that would settle it.
    let s = again(|c| {
        let x = &mut c.candidates[0];
        x.verdict = Verdict::Inconclusive;
        for row in &mut x.assessment.as_mut().unwrap().rows {
            row.test.iter_mut().for_each(|t| t.verdict = Verdict::Inconclusive);
            (row.seeds_needed, row.examples_needed) = (None, None);
        }
    });
    assert_eq!(texts(&s.next), "bf16: more seeds would tell how large the difference is.");
    let s = again(|c| {
        let x = &mut c.candidates[0];
        x.verdict = Verdict::Inconclusive;
        for row in &mut x.assessment.as_mut().unwrap().rows {
            row.test.iter_mut().for_each(|t| t.verdict = Verdict::Inconclusive);
            (row.seeds_needed, row.examples_needed) = (None, Some(5000));
        }
    });
    says(&s.next, "takes about 5\u{202f}000 of them");
}

/// A study whose candidate has so many of 400 answers wrong besides, the same in all seeds.
fn common_harm(claim: Claim, lost: usize) -> Summary {
    let seeds = [0, 1, 2];
    let model = |seed: u64, lost: usize| {
        let labels: Vec<u32> = (0..400).map(|i| i % 2).collect();
        let values = (0..400usize).flat_map(|i| {
            let is_wrong = i.is_multiple_of(10) || (i % 10 == 3 && i / 10 < lost);
            let answer = (i % 2) ^ usize::from(is_wrong);
            [0, 1].map(|k| if k == answer { 2.0 + 0.01 * (seed + 5 * lost as u64) as f32 } else { 0.0f32 })
        });
        InMemory::new(format!("{seed}"), 2, values.collect(), &labels).with_seed(seed)
    };
    let assessed = |claim| {
        let (base, candidate) = (seeds.map(|s| model(s, 0)), seeds.map(|s| model(s, lost)));
        let a: Vec<&dyn Source> = base.iter().map(|m| m as &dyn Source).collect();
        let b: Vec<&dyn Source> = candidate.iter().map(|m| m as &dyn Source).collect();
        let mut protocol = Protocol { claim, ..Protocol::default() };
        protocol.margins.retain(|(m, _)| *m == crate::metric::Metric::Accuracy);
        assess(&a, &b, protocol, NonZeroUsize::MIN).unwrap()
    };
    let runs = seeds.into_iter().flat_map(|s| [run("fp32", s, 0.88, 10.0), run("bf16", s, 0.87, 5.0)]);
    let mut setup = setup();
    setup.protocol.claim = claim;
    let c = Comparison::new(setup, runs.collect(), vec![("bf16".into(), assessed(claim))]);
    Study::new("test".into(), String::new(), vec![c]).summary
}

#[test]
fn a_study_says_of_which_samples_it_speaks() {
    let on_samples = common_harm(Claim::Samples, 1).headline.to_string();
    assert!(
        on_samples.starts_with("On these 400 samples bf16 is as good as fp32 within every"),
        "{on_samples}"
    );
    assert!(on_samples.contains("; whether it is on new ones is not shown yet"), "{on_samples}");
    let asked_of_examples = common_harm(Claim::Examples, 1).headline.to_string();
    assert!(
        asked_of_examples.starts_with("On these 400 samples bf16 is as good as fp32; "),
        "{asked_of_examples}"
    );
    assert!(!asked_of_examples.contains("within every margin"), "{asked_of_examples}");
    // Harm that these samples show as well.
    let harm = common_harm(Claim::Examples, 20).headline.to_string();
    assert!(harm.starts_with("bf16 is worse than fp32"), "{harm}");
}

#[test]
fn seeds_with_their_own_samples_are_named() {
    let of = |test_sets| again(|c| c.candidates[0].assessment.as_mut().unwrap().examples = test_sets).unknown;
    says(&of(crate::buckets::TestSets::OfEachSeed), "seeds were tested on different samples");
    says_not(&of(crate::buckets::TestSets::Shared), "seeds were tested on different samples");
}
