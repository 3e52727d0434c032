//! No gate disappears: what was asked for is judged, or there is no pass and a sentence says why.

use std::num::NonZeroUsize;

use halfstep_evidence::experiment::NoiseFloor;
use halfstep_evidence::logits::{InMemory, Source};
use halfstep_evidence::measures::GroupColumn;
use halfstep_evidence::noninferiority::Claim;
use halfstep_evidence::{Assessment, AssessmentError, Protocol, assess};
use halfstep_evidence::{Margin, Metric, Verdict};

/// Two classes; the model of a seed is sure of its answers, right but for those `wrong` names.
pub fn model(seed: u64, samples: usize, wrong: impl Fn(usize) -> bool) -> InMemory {
    let labels: Vec<u32> = (0..samples as u32).map(|i| i % 2).collect();
    let logits = (0..samples).flat_map(|i| {
        // Confidences differ a little from seed to seed, so that no two files are one.
        let sure = 3.0 + 0.01 * ((i * 31 + seed as usize * 17) % 13) as f32;
        let answer = (i % 2) ^ usize::from(wrong(i));
        [0, 1].map(|k| if k == answer { sure } else { 0.0 })
    });
    InMemory::new(format!("seed {seed}"), 2, logits.collect(), &labels).with_seed(seed)
}

pub fn judged(a: &[InMemory], b: &[InMemory], protocol: Protocol) -> Result<Assessment, AssessmentError> {
    let a: Vec<&dyn Source> = a.iter().map(|f| f as &dyn Source).collect();
    let b: Vec<&dyn Source> = b.iter().map(|f| f as &dyn Source).collect();
    assess(&a, &b, protocol, NonZeroUsize::MIN)
}

pub fn said(a: &Assessment) -> String {
    a.findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// Only accuracy gates.
pub fn accuracy_alone() -> Protocol {
    let mut protocol = Protocol::default();
    for metric in [Metric::Nll, Metric::Ece, Metric::NegativeFlips, Metric::GroupAccuracy] {
        protocol.set(metric, None);
    }
    protocol
}

pub fn every_tenth(i: usize) -> bool {
    i % 10 == 3
}

#[test]
fn no_changed_answer_of_a_hundred_is_no_proof() {
    let pair = |samples| {
        let (a, b) = (model(0, samples, every_tenth), model(0, samples, every_tenth));
        judged(&[a], &[b], accuracy_alone()).unwrap()
    };
    let few = pair(100);
    let bound = few.rows[0].test.unwrap().harm_at_most.unwrap();
    assert_eq!(few.verdict, Verdict::Inconclusive);
    assert!((bound - 0.0295).abs() < 0.0001, "1 − 0.05^(1/100), not 0: {bound}");
    assert_eq!((pair(298).verdict, pair(299).verdict), (Verdict::Inconclusive, Verdict::Pass));
}

/// Measures that are no shares of answers move by whole answers all the same: that none changed
/// among few is no proof.
#[test]
fn no_change_among_few_is_no_proof_of_scores_by_class_either() {
    let verdicts = |samples| {
        let mut protocol = accuracy_alone();
        let metrics = [Metric::BalancedAccuracy, Metric::MacroF1, Metric::Auroc, Metric::Ece];
        metrics.into_iter().for_each(|m| protocol.set(m, Some(Margin::Absolute(0.01))));
        let (a, b) = (model(0, samples, every_tenth), model(0, samples, every_tenth));
        let a = judged(&[a], &[b], protocol).unwrap();
        let of = |m: Metric| a.rows.iter().find(|r| r.metric == m).unwrap().test.unwrap();
        metrics.map(|m| (of(m).verdict, (of(m).harm_at_most.unwrap() * 1e4).round()))
    };
    // 1.6449 · √(0.01 · 0.99 / n), in hundredths of a point; of the AUROC n counts one class.
    let [share, of_one_class] = [100.0, 50.0].map(|n: f64| (16449.0 * (0.0099 / n).sqrt()).round());
    let few = [share, share, of_one_class, share].map(|bound| (Verdict::Inconclusive, bound));
    assert_eq!(verdicts(100), few);
    assert_eq!(verdicts(2000).map(|v| v.0), [Verdict::Pass; 4]);
}

#[test]
fn a_margin_that_cannot_be_judged_is_no_pass() {
    // Changed answers of one pair have no other seed to be compared with.
    let mut protocol = accuracy_alone();
    protocol.set(Metric::Flips, Some(Margin::Absolute(0.01)));
    let one =
        judged(&[model(0, 1000, every_tenth)], &[model(0, 1000, every_tenth)], protocol.clone()).unwrap();
    assert_eq!(one.verdict, Verdict::Inconclusive);
    assert!(said(&one).contains("flips: not judged, so there is no pass"), "{}", said(&one));
    // Against nothing they are judged.
    protocol.floor = NoiseFloor::None;
    let one = judged(&[model(0, 1000, every_tenth)], &[model(0, 1000, every_tenth)], protocol).unwrap();
    assert_eq!(one.verdict, Verdict::Pass, "{}", said(&one));

    // Own test samples for every seed: by default too.
    let reordered = |seed: u64| {
        let labels: Vec<u32> = (0..1000).map(|i| (i / (1 + seed as u32)) % 2).collect();
        let logits =
            labels.iter().flat_map(|&l| [0, 1].map(|k| if k == l { 3.0 + seed as f32 } else { 0.0 }));
        InMemory::new(format!("{seed}"), 2, logits.collect(), &labels).with_seed(seed)
    };
    let files: Vec<InMemory> = (0..3).map(reordered).collect();
    let each = judged(&files, &files, Protocol::default()).unwrap();
    assert_eq!(each.verdict, Verdict::Inconclusive);
    assert!(said(&each).contains("negative-flips: not judged"), "{}", said(&each));

    // A margin for groups, and no groups.
    let mut protocol = accuracy_alone();
    protocol.set(Metric::GroupAccuracy, Some(Margin::Absolute(0.03)));
    let none = judged(&[model(0, 1000, every_tenth)], &[model(0, 1000, every_tenth)], protocol).unwrap();
    assert_eq!(none.verdict, Verdict::Inconclusive);
    assert!(said(&none).contains("no group column"), "{}", said(&none));
}

pub fn with_regions(file: InMemory, samples: usize, west: usize) -> InMemory {
    let values: Vec<String> =
        (0..samples).map(|i| if i < west { "west" } else { "east" }.to_string()).collect();
    file.with_group(GroupColumn::new("region", &values))
}

#[test]
fn groups_gate_from_the_size_that_can_pass() {
    let run = |west: usize, named: &[&str]| {
        let file = || with_regions(model(0, 1000, every_tenth), 1000, west);
        let mut protocol = accuracy_alone();
        protocol.margins.push((Metric::GroupAccuracy, Margin::Absolute(0.03)));
        protocol.groups = named.iter().map(ToString::to_string).collect();
        judged(&[file()], &[file()], protocol).unwrap()
    };
    let small = run(98, &[]);
    assert_eq!(small.verdict, Verdict::Pass);
    assert!(said(&small).contains("region=west (98, of 99 needed"), "{}", said(&small));
    assert_eq!(small.rows.iter().filter(|r| r.gates).count(), 2);
    let large = run(99, &[]);
    assert_eq!((large.verdict, large.rows.iter().filter(|r| r.gates).count()), (Verdict::Pass, 3));
    // One that was named is judged or waited for.
    let named = run(98, &["region=west"]);
    assert_eq!(named.verdict, Verdict::Inconclusive);
    let absent = run(500, &["region=north"]);
    assert_eq!(absent.verdict, Verdict::Inconclusive);
    assert!(said(&absent).contains("the files have no such group"), "{}", said(&absent));
}

#[test]
fn files_that_divide_their_samples_differently_are_refused() {
    let plain: Vec<InMemory> = (0..3).map(|s| model(s, 400, every_tenth)).collect();
    let grouped: Vec<InMemory> = plain.iter().map(|f| with_regions(f.clone(), 400, 200)).collect();
    let message = |a: &[InMemory], b: &[InMemory]| judged(a, b, Protocol::default()).unwrap_err().to_string();
    assert!(message(&plain, &grouped).contains("`group_region`"), "{}", message(&plain, &grouped));
    let mixed = [grouped[0].clone(), plain[1].clone(), grouped[2].clone()];
    assert!(message(&mixed, &grouped).contains("do not divide"), "{}", message(&mixed, &grouped));
}

#[test]
fn one_model_is_not_several_seeds() {
    let same: Vec<InMemory> = (0..3).map(|s| model(0, 400, every_tenth).with_seed(s)).collect();
    let other: Vec<InMemory> = (0..3).map(|s| model(s, 400, every_tenth)).collect();
    for (a, b) in [(&same, &other), (&other, &same)] {
        let message = judged(a, b, Protocol::default()).unwrap_err().to_string();
        assert!(message.contains("counted twice"), "{message}");
    }
    // A candidate that equals its baseline is an answer.
    assert!(judged(&other, &other, Protocol::default()).is_ok());
}

#[test]
fn harm_common_to_all_seeds_holds_on_these_samples_and_not_beyond() {
    // Of 2,000 samples 10 are lost in every seed: 0.5 points without any scatter of seeds. On other
    // samples it may be 0.5 + 1.645 · √(0.0099/2000 + 0.005/2000) = 0.95, of which 1 is allowed;
    // with 14 lost it may be 1.18.
    let run = |lost: usize, claim| {
        let base: Vec<InMemory> = (0..5).map(|s| model(s, 2000, every_tenth)).collect();
        let harmed = (0..5)
            .map(|s| model(s + 50, 2000, |i| every_tenth(i) || (i % 10 == 5 && i / 10 < lost)).with_seed(s));
        judged(&base, &harmed.collect::<Vec<_>>(), Protocol { claim, ..accuracy_alone() }).unwrap()
    };
    let few = run(10, Claim::Examples);
    assert_eq!((few.on_samples, few.on_examples), (Verdict::Pass, Verdict::Pass), "{}", said(&few));
    let more = run(14, Claim::Examples);
    assert_eq!((more.verdict, more.on_samples), (Verdict::Inconclusive, Verdict::Pass), "{}", said(&more));
    assert!(
        more.findings[0]
            .to_string()
            .contains("On these 2\u{202f}000 samples the candidate is as good as the baseline")
    );
    assert!(
        more.findings[0].to_string().contains("needs about")
            && more.findings[0].to_string().contains("(now 2\u{202f}000)"),
        "{}",
        said(&more)
    );
    let on_samples = run(14, Claim::Samples);
    assert_eq!(on_samples.verdict, Verdict::Pass);
    assert!(
        on_samples.findings[0].to_string().contains("On these 2\u{202f}000 samples"),
        "{}",
        said(&on_samples)
    );
}

#[test]
fn windows_of_text_are_the_unit() {
    // 3,000 tokens in 30 windows, none changed: 30 windows say nothing of one point, 300 would.
    let clusters =
        |windows: usize| -> Vec<String> { (0..3000).map(|i| (i * windows / 3000).to_string()).collect() };
    let run = |windows: usize| {
        let file = || model(0, 3000, every_tenth).with_clusters(&clusters(windows));
        judged(&[file()], &[file()], accuracy_alone()).unwrap()
    };
    assert_eq!((run(30).verdict, run(300).verdict), (Verdict::Inconclusive, Verdict::Pass));
    assert_eq!(run(30).seeds[0].units, 30);
}

#[test]
fn a_run_that_diverged_is_in_the_first_sentence() {
    let base: Vec<InMemory> = (0..5).map(|s| model(s, 2000, every_tenth)).collect();
    let candidate: Vec<InMemory> = (0..5).map(|s| model(s + 50, 2000, every_tenth).with_seed(s)).collect();
    let run = |diverged| judged(&base, &candidate, Protocol { diverged, ..accuracy_alone() }).unwrap();
    let one = run(1);
    assert_eq!(one.verdict, Verdict::Pass);
    assert!(
        one.findings[0].to_string().contains("where it did not diverge (1 of 6 runs did)"),
        "{}",
        said(&one)
    );
    assert!(said(&one).contains("points higher"), "the bound on the excess: {}", said(&one));
    // Ten of fifteen against none of five: Fisher fails it.
    let many = run(10);
    assert_eq!(many.verdict, Verdict::Fail, "{}", said(&many));
}
