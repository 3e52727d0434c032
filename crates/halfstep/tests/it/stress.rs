//! Trained models under stress, from the command line.

use crate::common::Place;
use serde_json::Value;

/// Clothes of 28×28 pixels, few and in few steps.
const CLOTHES: &str = r#"
name = "clothes"
[data]
kind = "bundled"
name = "fashion-mnist"
limit_train = 1000
limit_test = 200
[model]
kind = "mlp"
hidden = [32]
[optimiser]
kind = "adamw"
lr = 2e-3
[train]
epochs = 3
batch = 50
[precision]
policies = ["fp32", "bf16"]
[compare]
seeds = 2
[evidence]
measures = ["mismatch", "trigger"]
samples = 20
steps = 3
queries = 10
"#;

fn precisions(series: &Value) -> Vec<&str> {
    series["precisions"].as_array().unwrap().iter().map(|p| p["precision"].as_str().unwrap()).collect()
}

#[test]
fn everything_is_measured_of_images() {
    let place = Place::new();
    place.write("recipe.toml", CLOTHES);
    place.compare(&["recipe.toml", "--out", "run"]);
    // `compare` measures what its recipe asks for.
    let read =
        |name: &str| -> Value { serde_json::from_slice(&std::fs::read(place.path(name)).unwrap()).unwrap() };
    let cheap = read("run/robustness.json");
    assert!(cheap["mismatch"].is_object() && cheap["triggered"].is_object() && cheap["attacks"].is_null());

    let r = place.json(&["stress", "run", "--json"]);
    assert_eq!(r, read("run/robustness.json"));
    assert_eq!(r["baseline"], "fp32");
    assert_eq!(r["models"].as_array().unwrap().len(), 4);

    let served = r["mismatch"]["served"].as_array().unwrap();
    assert_eq!(served.len(), 4, "two precisions in two");
    for s in served {
        let same = s["trained"] == s["served"];
        assert_eq!(s["flips"] == 0.0 && s["kl"] == 0.0, same, "{s}");
    }
    // bf16 has a unit roundoff of 2^-8: rounded operands and results, three times over.
    for layers in r["mismatch"]["layers"].as_array().unwrap() {
        let names: Vec<&str> =
            layers["layers"].as_array().unwrap().iter().map(|l| l["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["layers.0", "layers.0.relu", "layers.1"]);
        for layer in layers["layers"].as_array().unwrap() {
            let relative = layer["relative_l2"].as_f64().unwrap();
            assert!(relative > 0.0 && relative < 9.0 / 256.0, "{layer}");
            assert!(layer["cosine"].as_f64().unwrap() > 0.999);
        }
    }
    let rungs = r["ladder"]["rungs"].as_array().unwrap();
    let formats: Vec<&str> = rungs.iter().map(|r| r["format"].as_str().unwrap()).collect();
    assert_eq!(formats, ["bf16", "fp16", "fp8", "mxfp8", "int8", "mxfp4", "int4"]);
    let flips = |i: usize| rungs[i]["flips"].as_f64().unwrap();
    assert!(flips(6) > flips(1), "4 bits change more answers than 16");
    assert!(["pass", "inconclusive", "fail"].contains(&rungs[0]["verdict"].as_str().unwrap()));

    for series in r["foreign"]["series"].as_array().unwrap() {
        assert_eq!(precisions(series), ["fp32", "bf16"]);
    }
    let mce = &r["corruptions"]["mce"]["precisions"];
    assert_eq!(mce[0]["values"], serde_json::json!([1.0, 1.0]), "the baseline's own");
    let attacks = r["attacks"]["series"].as_array().unwrap();
    let left = |name: &str| {
        let s = attacks.iter().find(|s| s["measure"] == name).unwrap();
        s["precisions"][0]["mean"].as_f64().unwrap()
    };
    assert!(
        left("none") >= left("FGSM")
            && left("FGSM") >= left("all of them")
            && left("PGD") >= left("all of them")
    );
    assert!(left("PGD") < left("none"));
    let groups = r["groups"].as_array().unwrap();
    assert_eq!((groups.len(), &groups[0]["candidate"]), (1, &Value::from("bf16")));
    assert_eq!(groups[0]["rows"].as_array().unwrap().len(), 10, "a row per class");
    assert!(r["not_applicable"].as_array().unwrap().is_empty());

    // Other runs, tables, and mistakes.
    for (precision, run) in [("fp32", "a"), ("bf16", "b")] {
        place.ok(&["train", "recipe.toml", "--precision", precision, "--out", run]);
    }
    let text = place.ok(&["stress", "a", "b", "--measures", "ladder,groups", "--out", "here.json"]);
    assert!(
        text.contains("Weights of fp32 stored smaller")
            && text.contains("Accuracy by group, bf16 against fp32")
    );
    assert!(place.path("here.json").is_file() && !place.path("a/robustness.json").is_file());
    let said = place.fails(2, &["stress", "a", "a"]);
    assert!(said.contains("two models are fp32 with seed 0"), "{said}");
    let said = place.fails(2, &["stress", "a", "--measures", "ladders"]);
    assert!(said.contains("did you mean `ladder`?"), "{said}");
    let said = place.fails(2, &["stress", "a", "--baseline", "bf16"]);
    assert!(said.contains("no model was trained in `bf16`"), "{said}");
    let said = place.fails(2, &["stress", "a", "--epsilon", "2"]);
    assert!(said.contains("epsilon"), "{said}");
}

#[test]
fn a_planted_backdoor_is_seen_in_every_precision_and_removed() {
    let place = Place::new();
    let recipe =
        CLOTHES.replace("limit_train = 1000", "limit_train = 3000").replace("epochs = 3", "epochs = 8");
    place.write("recipe.toml", recipe.replace("[evidence]", "[evidence]\npoisoned = 0.02"));
    place.ok(&["train", "recipe.toml", "--precision", "fp32", "--out", "run"]);
    let r = place.json(&["stress", "run", "--measures", "backdoor", "--json"]);
    let b = &r["backdoor"];
    let success = |rows: &Value| -> Vec<f64> {
        rows.as_array().unwrap().iter().map(|r| r["attack_success"].as_f64().unwrap()).collect()
    };
    let (before, after) = (success(&b["before"]), success(&b["after"]));
    // fp32, bf16, and seven formats of weights.
    assert_eq!((before.len(), after.len()), (9, 9));
    assert!(before.iter().all(|&s| s > 0.5), "{before:?}");
    assert_eq!(b["poisoned"], 60);
    // What chance would find: as many of the poisoned as of all.
    let share = |part: &str, of: f64| b[part].as_f64().unwrap() / of;
    assert!(share("removed_poisoned", 60.0) > share("removed", 3000.0), "{b}");
    assert!(after.iter().zip(&before).all(|(a, b)| a < b), "{before:?} {after:?}");
    assert!(b["mitigation_seconds"].as_f64().unwrap() > 0.0);
}

#[test]
fn a_table_has_groups_and_a_text_has_precisions() {
    let place = Place::new();
    place.write(
        "adult.toml",
        r#"
[data]
kind = "bundled"
name = "adult"
ignore = ["fnlwgt", "education"]
groups = ["sex", "race", "age"]
limit_train = 4000
limit_test = 2000
[model]
kind = "mlp"
hidden = [16]
[train]
epochs = 2
batch = 100
[precision]
policies = ["fp32", "bf16"]
[compare]
seeds = 3
"#,
    );
    place.compare(&["adult.toml", "--out", "adult"]);
    let r = place.json(&["stress", "adult", "--json", "--measures", "groups,ladder,attacks,foreign"]);
    let rows = r["groups"][0]["rows"].as_array().unwrap();
    let names: Vec<String> = rows
        .iter()
        .map(|r| {
            format!("{}={}", r["group"]["column"].as_str().unwrap(), r["group"]["value"].as_str().unwrap())
        })
        .collect();
    for name in ["sex=Female", "sex=Male", "race=Black", "class=>50K"] {
        assert!(names.iter().any(|n| n == name), "{names:?}");
    }
    assert_eq!(names.iter().filter(|n| n.starts_with("age=")).count(), 4, "{names:?}");
    let samples: u64 = rows
        .iter()
        .filter(|r| r["group"]["column"] == "sex")
        .map(|r| r["group"]["samples"].as_u64().unwrap())
        .sum();
    assert_eq!(samples, 2000);
    assert!(!r["groups"][0]["flips"].as_array().unwrap().is_empty());
    let absent: Vec<&str> =
        r["not_applicable"].as_array().unwrap().iter().map(|n| n["measure"].as_str().unwrap()).collect();
    assert_eq!(absent, ["foreign", "attacks"]);

    place.write("play.txt", "To be, or not to be, that is the question: ".repeat(60));
    place.write(
        "text.toml",
        r#"
[data]
kind = "text"
path = "play.txt"
sequence = 16
[model]
kind = "gpt"
width = 16
layers = 1
heads = 2
[train]
steps = 5
batch = 4
[precision]
policy = "bf16"
"#,
    );
    place.ok(&["train", "text.toml", "--out", "text"]);
    let r = place.json(&["stress", "text", "--json"]);
    let names: Vec<&str> = r["mismatch"]["layers"][0]["layers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|l| l["name"].as_str().unwrap())
        .collect();
    for name in ["tok", "blocks.0.attention", "blocks.0.add2", "ln", "head"] {
        assert!(names.contains(&name), "{names:?}");
    }
    assert_eq!(r["ladder"]["trained"], "bf16", "the only precision there is");
    // The test part has 2,640 / 10 bytes at most, in windows of 16: those are judged, not tokens.
    let windows = r["ladder"]["rungs"][0]["rows"][0][0]["paired"]["pairs"].as_u64().unwrap();
    assert!((2..=264 / 16).contains(&windows), "{windows}");
    assert_eq!(r["not_applicable"].as_array().unwrap().len(), 5);
}
