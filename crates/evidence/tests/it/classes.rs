//! Scores by class against scikit-learn: `scripts/golden_classes.py` says which and how.

use std::num::NonZeroUsize;

use halfstep_evidence::experiment::{NoiseFloor, measure_seed};
use halfstep_evidence::logits::InMemory;
use serde_json::Value;

/// Sums of at most 200 f64 terms of order one: γ(200) = 200 · 2^-53 ≈ 2e-14, and some of them
/// divided once more.
const F64: f64 = 1e-13;

fn near(what: &str, ours: Option<f64>, theirs: &Value) {
    match (ours, theirs.as_f64()) {
        (Some(ours), Some(theirs)) => assert!((ours - theirs).abs() <= F64, "{what}: {ours}, {theirs}"),
        (ours, theirs) => assert_eq!(ours, theirs, "{what}"),
    }
}

#[test]
fn scores_by_class_are_those_of_scikit_learn() {
    let golden: Value = serde_json::from_str(include_str!("../golden/classes.json")).unwrap();
    let sets = golden["sets"].as_array().unwrap();
    assert_eq!(sets.len(), 4);
    for set in sets {
        let numbers = |key: &str| set[key].as_array().unwrap().iter().map(|x| x.as_f64().unwrap());
        let labels: Vec<u32> = numbers("labels").map(|l| l as u32).collect();
        let logits: Vec<f32> = numbers("logits").map(|x| x as f32).collect();
        let classes = set["classes"].as_u64().unwrap() as usize;
        let model = InMemory::new("model", classes, logits, &labels);
        let measured =
            measure_seed(&model, &model, None, NoiseFloor::OtherSeed, NonZeroUsize::MIN).unwrap().reference;
        let scores = &measured.classes;
        near("macro F1", Some(scores.macro_f1), &set["macro_f1"]);
        near("balanced accuracy", Some(scores.balanced_accuracy), &set["balanced_accuracy"]);
        near("AUROC", measured.auroc.map(|a| a.value), &set["auroc"]);
        near("majority", Some(scores.majority_accuracy), &set["majority_accuracy"]);
        near("constant", Some(measured.beside_constant.constant_nll), &set["constant_nll"]);
        let matrix = serde_json::to_value(&scores.confusion_matrix).unwrap();
        assert_eq!(matrix, set["confusion_matrix"]);
        for (c, ours) in scores.per_class.as_ref().unwrap().iter().enumerate() {
            assert_eq!(Some(ours.support), set["support"][c].as_u64());
            near("precision", ours.precision, &set["precision"][c]);
            near("recall", ours.recall, &set["recall"][c]);
            near("F1", ours.f1, &set["f1"][c]);
        }
        // What leaves the program has the names that people know from there.
        let json = serde_json::to_value(&measured).unwrap();
        for key in
            ["confusion_matrix", "per_class", "balanced_accuracy", "macro_f1", "auroc", "majority_accuracy"]
        {
            assert!(!json[key].is_null(), "{key}");
        }
    }
}
