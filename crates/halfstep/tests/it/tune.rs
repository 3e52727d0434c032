//! `tune`, and `train` with the plan it wrote.

use crate::common::Place;

const RECIPE: &str = "[data]\nkind = \"bundled\"\nname = \"digits\"\n[model]\nkind = \"mlp\"\nhidden = [64]\n\
                      [train]\nepochs = 1\nbatch = 32\n";
/// Times are noise at this size.
const QUICK: [&str; 7] = ["--steps", "20", "--seeds", "1", "--max-slowdown", "100000%", "--json"];

#[test]
fn train_takes_the_plan_that_tune_wrote() {
    let place = Place::new();
    place.write("r.toml", RECIPE);
    let asked = ["tune", "r.toml", "--objective", "memory", "--max-loss-increase", "10%"];
    let found = place.json(&[&asked[..], &QUICK].concat());
    assert_eq!(found["plan_file"], "tuned.toml");
    let best = &found["tried"][found["best"].as_u64().unwrap() as usize];
    let trained = place.json(&["train", "r.toml", "--plan", "tuned.toml", "--out", "run", "--json"]);
    assert_eq!(trained["outcome"]["kind"], "finished", "{trained}");
    let plans: serde_json::Value =
        serde_json::from_slice(&std::fs::read(place.path("run/plan.json")).unwrap()).unwrap();
    assert_eq!(plans[0]["precision"]["policy"]["overrides"], best["policy"]["overrides"]);
    // It is not overwritten unasked.
    assert!(place.fails(2, &["tune", "r.toml"]).contains("--force"));
}

#[test]
fn no_plan_is_written_when_none_is_good_enough() {
    let place = Place::new();
    place.write("r.toml", RECIPE);
    // No two precisions end with the same loss to so many digits, unless nothing is low.
    let asked = ["tune", "r.toml", "--objective", "memory", "--max-loss-increase", "0", "-o", "none.toml"];
    let output = place.run(&[&asked[..], &QUICK].concat());
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    if found["best"].is_null() {
        assert_eq!((output.status.code(), &found["plan_file"]), (Some(1), &serde_json::Value::Null));
        assert!(!place.path("none.toml").exists());
    } else {
        let best = &found["tried"][found["best"].as_u64().unwrap() as usize];
        assert!(best["outcome"]["loss_increase"].as_f64().unwrap() <= 0.0, "{best}");
    }
}

#[test]
fn wrong_arguments_are_named() {
    let place = Place::new();
    place.write("r.toml", RECIPE);
    assert!(place.fails(2, &["tune", "r.toml", "--precision", "fp32"]).contains("lowers nothing"));
    assert!(place.fails(2, &["tune", "r.toml", "--max-loss-increase=-1%"]).contains("share such as 1%"));
    place.write("bad.toml", "policy = \"bf16\"\nrule = 1\n");
    assert!(place.fails(2, &["train", "r.toml", "--plan", "bad.toml"]).contains("rule"));
    place.write("other.toml", "policy = \"bf16\"\n[[overrides]]\npattern = \"nowhere\"\nrule = \"f32\"\n");
    assert!(place.fails(2, &["train", "r.toml", "--plan", "other.toml"]).contains("nowhere"));
}
