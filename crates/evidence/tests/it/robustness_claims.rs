//! What is said of models under stress is what was counted of them.

use halfstep_evidence::robustness::{
    Attacks, Backdoor, GroupComparison, Mismatch, ModelName, NotApplicable, Robustness, Series, Served,
    TriggerRow,
};
use halfstep_evidence::robustness_findings::findings;
use halfstep_evidence::statements::RobustnessStatement;
use halfstep_evidence::{Margin, Metric};

use crate::gates::{accuracy_alone, every_tenth, judged, model, with_regions};

fn of(change: impl FnOnce(&mut Robustness)) -> Vec<RobustnessStatement> {
    let mut r = Robustness { baseline: "fp32".into(), ..Robustness::default() };
    change(&mut r);
    findings(&r)
}

#[test]
fn weights_in_another_precision_are_said_to_change_what_they_change() {
    let said = |flips: [f64; 2]| {
        let of_served = |(served, flips): (&str, f64)| Served {
            trained: "fp32".into(),
            served: served.into(),
            seeds: 1,
            accuracy: 0.9,
            nll: 0.3,
            flips,
            negative_flips: flips / 2.0,
            kl: 0.0,
        };
        let served: Vec<Served> =
            [("fp32", 1.0), ("bf16", flips[0]), ("fp8", flips[1])].map(of_served).to_vec();
        of(|r| r.mismatch = Some(Mismatch { served, layer_samples: 0, layers: Vec::new() })).remove(0)
    };
    let (trained, served) = ("fp32".to_string(), "fp8".to_string());
    let alike = said([0.002, 0.009]);
    assert_eq!(
        alike,
        RobustnessStatement::ServedAlike { share: 0.009, trained: trained.clone(), served: served.clone() }
    );
    let otherwise = said([0.002, 0.02]);
    assert_eq!(
        otherwise,
        RobustnessStatement::ServedOtherwise { share: 0.02, made_wrong: 0.01, trained, served }
    );
}

#[test]
fn a_group_is_called_worse_or_as_good_by_its_test() {
    // `west` has so many samples, of which so many more are wrong.
    let said = |west: usize, lost: usize| {
        let mut protocol = accuracy_alone();
        protocol.margins.push((Metric::GroupAccuracy, Margin::Absolute(0.03)));
        let lost = |i: usize| every_tenth(i) || (i % 10 == 5 && i / 10 < lost);
        let (a, b) = (model(0, 1000, every_tenth), model(0, 1000, lost));
        let [a, b] = [a, b].map(|file| with_regions(file, 1000, west));
        let rows = judged(&[a], &[b], protocol).unwrap().rows;
        let rows = rows.into_iter().filter(|r| r.group.is_some()).collect();
        let (flips, calibration, gaps) = (Vec::new(), Vec::new(), Vec::new());
        let group = GroupComparison { candidate: "bf16".into(), rows, flips, calibration, gaps };
        of(|r| r.groups.push(group)).remove(0)
    };
    let (candidate, baseline) = ("bf16".to_string(), "fp32".to_string());
    let worse = RobustnessStatement::WorseForGroups {
        candidate: candidate.clone(),
        baseline: baseline.clone(),
        groups: vec!["region=west".into()],
    };
    assert_eq!(said(200, 20), worse);
    // 11 of 200: alone beyond the margin, of two groups no longer (P = 0.04).
    let as_good = |passed, judged| RobustnessStatement::AsGoodInGroups {
        candidate: candidate.clone(),
        baseline: baseline.clone(),
        passed,
        judged,
    };
    assert_eq!(said(200, 11), as_good(1, 2));
    assert_eq!(said(200, 0), as_good(2, 2));
    // Too few to pass, were none of them changed.
    assert_eq!(said(98, 0), as_good(1, 1));
    let none = of(|r| {
        let (rows, flips, calibration, gaps) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let candidate = "bf16".into();
        r.groups.push(GroupComparison { candidate, rows, flips, calibration, gaps });
    });
    assert_eq!(none, [RobustnessStatement::NoGroupLargeEnough { candidate }]);
}

#[test]
fn what_gradients_do_not_show_is_said() {
    let said = |pgd: f64, square: f64, own: f64, wide: f64| {
        let models = [ModelName { precision: "fp32".into(), seed: 0 }];
        let series = |name: &str, value: f64| Series::new(name, true, &models, &[value], "fp32");
        let attacks = Attacks {
            samples: 100,
            epsilon: 0.1,
            steps: 10,
            queries: 100,
            series: vec![series("FGSM", 0.9), series("PGD", pgd), series("Square", square)],
            zero_gradients: vec![series("images, own precision", own), series("images, f32", wide)],
            zero_pixels: Vec::new(),
        };
        of(|r| r.attacks = Some(attacks))
    };
    let precision = "fp32".to_string();
    let blind = RobustnessStatement::BlindGradients { precision: precision.clone(), own: 0.2, wide: 0.1 };
    let less = RobustnessStatement::GradientsFindLess { precision, black_box: 0.5, by_gradients: 0.6 };
    assert_eq!(said(0.6, 0.5, 0.2, 0.1), [blind, less]);
    assert_eq!(said(0.6, 0.59, 0.105, 0.1), []);
}

#[test]
fn a_planted_backdoor_has_its_counts() {
    let row = |attack_success| TriggerRow {
        trained: "fp32".into(),
        served: "fp32".into(),
        seeds: 1,
        attack_success,
        without_trigger: 0.0,
    };
    let planted = Backdoor {
        trigger: "a patch".into(),
        target: "7".into(),
        poisoned: 50,
        train_samples: 1000,
        accuracy: 0.9,
        before: Vec::new(),
        removed: 75,
        removed_poisoned: 48,
        accuracy_after: 0.89,
        after: vec![row(0.02), row(0.05)],
        train_seconds: 1.0,
        mitigation_seconds: 2.0,
    };
    let not_applicable = NotApplicable { measure: "attacks", reason: "tables have no pixels".into() };
    let said: Vec<String> = of(|r| {
        r.backdoor = Some(planted);
        r.not_applicable.push(not_applicable);
    })
    .iter()
    .map(ToString::to_string)
    .collect();
    assert_eq!(said[0], "The planted backdoor was not tried.");
    let removed = "Removing 75 suspects (48 of the 50 poisoned) and training again lowers it to at most 5.00 % and \
                   changes accuracy by −1.00 pt; it costs 2.0 s.";
    assert_eq!(said[1..], [removed, "Not applicable: attacks, for tables have no pixels."]);
}
