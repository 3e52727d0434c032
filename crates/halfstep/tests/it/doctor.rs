//! `halfstep doctor` and `halfstep lint` as a person uses them, and the page that lists what they
//! guard against.

use crate::common;
use std::path::Path;

use crate::common::{Place, TINY, both};

fn repository() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

const EXPLODES: &str = "\n[optimiser]\nkind = \"sgd\"\nlr = 5000.0\n[precision]\npolicy = \"fp16\"\n";

#[test]
fn the_doctor_explains_a_recipe_that_does_not_train() {
    let place = Place::new();
    let recipe = repository().join("examples/does-not-train/digits-mlp.toml");
    let output = place.run(&["doctor", recipe.to_str().unwrap(), "--out", "found"]);
    let text = both(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(
        text.contains("cause: `lr = 5000.0` in [optimiser] is too high: the weights have exploded")
            && text.contains("try: `lr = ")
            && text.contains("tried on a copy"),
        "{text}"
    );
    for file in ["doctor.json", "numerics.jsonl", "numerics.html"] {
        assert!(place.path("found").join(file).is_file(), "{file}");
    }
}

#[test]
fn a_run_that_fails_leaves_a_diagnosis_which_doctor_prints_and_repeats() {
    let place = Place::new();
    place.write("recipe.toml", TINY.replace("epochs = 2", "epochs = 20\nskip_limit = 3") + EXPLODES);
    let output = place.run(&["train", "recipe.toml", "--out", "run"]);
    let text = both(&output);
    assert!(!output.status.success() && text.contains("doctor: step"), "{text}");
    let printed = place.run(&["doctor", "run", "--json"]);
    let stored: serde_json::Value = serde_json::from_slice(&printed.stdout).unwrap();
    assert_eq!(stored[0]["cause"]["kind"], "exploded-weights", "{stored}");
    let again = place.run(&["doctor", "run", "--again", "--json"]);
    let again: serde_json::Value = serde_json::from_slice(&again.stdout).unwrap();
    assert_eq!(again["failed"], true);
    // The last checkpoint may lie behind the first diagnosis; the next failure is then the one that
    // ended the run.
    let same =
        |d: &serde_json::Value| ["attempt", "finding", "cause"].iter().all(|k| d[k] == again["diagnosis"][k]);
    assert!(stored.as_array().unwrap().iter().any(same), "{again} is none of {stored}");
}

#[test]
fn a_sampled_run_keeps_its_ranges_and_a_page() {
    let place = Place::new();
    place.write("recipe.toml", format!("{TINY}\n[doctor]\nevery = 4\n"));
    place.ok(&["train", "recipe.toml", "--out", "run"]);
    let text = std::fs::read_to_string(place.path("run/numerics.jsonl")).unwrap();
    let attempts: Vec<u64> = text
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["attempt"].as_u64().unwrap())
        .collect();
    assert!(attempts.len() == 3 && attempts.is_sorted(), "{attempts:?}");
    let page = std::fs::read_to_string(place.path("run/numerics.html")).unwrap();
    assert_eq!(page.matches("<svg").count(), 4);
    assert!(
        page.contains("layers.0") && !page.contains("src=") && !page.contains("href="),
        "it stands by itself"
    );
}

#[test]
fn lint_names_the_line_that_is_to_blame_and_train_warns() {
    let place = Place::new();
    let images = "kind = \"bundled\"\nname = \"digits\"\nlimit_train = 64\nlimit_test = 32";
    let recipe =
        common::with_data(images).replace("kind = \"mlp\"\nhidden = [16]", "kind = \"resnet18\"\nwidth = 4");
    let recipe = recipe.replace("epochs = 2", "steps = 1").replace("batch = 32", "batch = 8")
        + "\n[precision]\npolicy = \"fp16\"\noverrides = [\n  { pattern = \"head\", rule = \"f32\" },\n  { pattern = \"blocks.*.b1\", rule = \"low\" },\n]\n";
    let line = 1 + recipe.lines().position(|l| l.contains("b1")).unwrap();
    place.write("recipe.toml", &recipe);
    let output = place.run(&["lint", "recipe.toml", "--precision", "fp16"]);
    let text = both(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains(&format!("recipe.toml:{line}: fp16: batch_norm of blocks.0.b1")), "{text}");
    assert!(place.ok(&["lint", "recipe.toml", "--precision", "fp32"]).contains("Nothing found"));
    let trained = place.run(&["train", "recipe.toml", "--out", "run"]);
    assert!(
        trained.status.success() && both(&trained).contains("warning: recipe.toml:"),
        "{}",
        both(&trained)
    );
}

/// Every test that docs/precision.md names is in the file it names, and every complaint has its
/// row.
#[test]
fn the_page_of_complaints_names_tests_that_exist() {
    let docs = repository().join("docs");
    let page = std::fs::read_to_string(docs.join("precision.md")).unwrap();
    let mut named = 0;
    for link in page.split("[`").skip(1) {
        let Some((name, rest)) = link.split_once("`](") else { continue };
        let path = rest.split(')').next().unwrap();
        let file = docs.join(path);
        let text = std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        assert!(text.contains(&format!("fn {name}(")), "{path} has no `{name}`");
        named += 1;
    }
    assert!(named > 20, "{named}");
    for complaint in 1..=13 {
        assert!(page.contains(&format!("\n| {complaint} | ")), "complaint {complaint}");
    }
}
