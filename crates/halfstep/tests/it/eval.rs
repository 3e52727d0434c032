//! Scores by class and by group, and what a reference must show before there is a verdict.

use crate::common::{Place, TINY, with_data};
use serde_json::Value;

/// A table of two classes by `x`, one sample in four of the second, and a column of groups. Every
/// `noise`-th label is of the other class, and with `noise` 1 labels have nothing to do with `x`.
fn table(noise: usize) -> String {
    let mut rows = String::from("x,y,region,kind\n");
    for i in 0..400usize {
        let is_rare = if noise == 1 { i / 3 % 4 == 0 } else { (i % 4 == 0) ^ (i % noise == 1) };
        let x = if i % 4 == 0 { 1.0 } else { -1.0 } + (i * 7 % 11) as f64 / 20.0;
        let (region, kind) =
            (if i % 3 == 0 { "north" } else { "south" }, if is_rare { "rare" } else { "common" });
        rows += &format!("{x},{},{region},{kind}\n", i * 13 % 17);
    }
    rows
}

const DATA: &str = "kind = \"csv\"\npath = \"d.csv\"\ntarget = \"kind\"\ngroups = [\"region\"]";

#[test]
fn eval_has_scores_of_classes_and_groups() {
    let place = Place::new();
    place.write("d.csv", table(10));
    let recipe = with_data(DATA).replace("epochs = 2", "epochs = 20");
    place.write("r.toml", recipe);
    place.ok(&["train", "r.toml", "--out", "run"]);
    let eval = place.json(&["eval", "run", "--json"]);
    let matrix: Vec<Vec<u64>> = serde_json::from_value(eval["confusion_matrix"].clone()).unwrap();
    let samples = eval["test_samples"].as_u64().unwrap();
    assert_eq!(matrix.iter().flatten().sum::<u64>(), samples);
    let number = |key: &str| eval[key].as_f64().unwrap();
    let right = (matrix[0][0] + matrix[1][1]) as f64;
    assert_eq!(number("accuracy"), right / samples as f64);
    let recall = |c: usize| matrix[c][c] as f64 / matrix[c].iter().sum::<u64>() as f64;
    assert!((number("balanced_accuracy") - (recall(0) + recall(1)) / 2.0).abs() < 1e-12);
    assert_eq!(eval["per_class"][1]["support"], matrix[1].iter().sum::<u64>());
    assert_eq!(eval["classes"], serde_json::json!(["common", "rare"]));
    assert!(number("auroc") > 0.8 && number("macro_f1") > 0.6, "{eval}");
    assert_eq!(eval["beside_constant"]["shown_better"], true);
    let regions = eval["by_group"][0]["groups"].as_array().unwrap();
    assert_eq!(regions.iter().map(|g| g["samples"].as_u64().unwrap()).sum::<u64>(), samples);
    assert!(regions[0]["ece"].as_f64().unwrap() >= 0.0);
    let text = place.ok(&["eval", "run"]);
    for part in ["(always `common`:", "balanced accuracy", "Confusion matrix", "By class", "By `region`"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn a_reference_that_learned_nothing_gives_no_verdict() {
    let place = Place::new();
    place.write("d.csv", table(1));
    // Margins that nothing can miss: what is left is the reference.
    let wide = "margin = 0.9\nmargins = { nll = 5.0, ece = \"90pt\", negative-flips = \"off\" }\n";
    place.write("r.toml", with_data(DATA) + wide);
    let (code, result) = place.compare_json(&["r.toml", "--precisions", "fp32,bf16", "--out", "run"]);
    let headline = result["summary"]["headline"].as_str().unwrap();
    assert_eq!((code, &result["verdict"]), (2, &Value::from("inconclusive")), "{headline}");
    assert!(headline.contains("fp32 is not shown better than a constant predictor"), "{headline}");
    let next = result["summary"]["next"][0].as_str().unwrap();
    assert!(next.contains("more seeds do not settle it"), "{next}");
    let report = std::fs::read_to_string(place.path("run/report.html")).unwrap();
    assert!(report.contains("is not shown better than a constant predictor") && report.contains("By class"));
}

#[test]
fn a_loss_that_still_falls_is_in_the_headline() {
    let place = Place::new();
    place.write("r.toml", TINY.replace("epochs = 2", "epochs = 4"));
    let (_, result) = place.compare_json(&["r.toml", "--precisions", "fp32,bf16", "--out", "run"]);
    let headline = result["summary"]["headline"].as_str().unwrap();
    assert!(headline.contains("The train loss of fp32 was still falling when its runs ended"), "{headline}");
}
