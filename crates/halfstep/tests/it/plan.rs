//! `halfstep plan` says what a run will hold, and a budget in a recipe is kept or refused.

use crate::common::Place;
use serde_json::Value;

const RECIPE: &str = r#"
name = "small"
[data]
kind = "bundled"
name = "shakespeare"
sequence = 32
limit_train = 64
limit_test = 8
[model]
kind = "gpt"
width = 32
layers = 4
heads = 2
[train]
steps = 2
batch = 8
"#;

fn json(place: &Place, args: &[&str]) -> Value {
    serde_json::from_str(&place.ok(&[args, &["--json", "--threads", "2"]].concat())).unwrap()
}

fn total(plan: &Value, precision: &str) -> u64 {
    let plans = plan["plans"].as_array().unwrap();
    let plan = plans.iter().find(|p| p["precision"] == precision).unwrap();
    plan["total_bytes"].as_u64().unwrap()
}

#[test]
fn a_plan_is_what_a_run_holds_and_a_budget_changes_nothing_else() {
    let place = Place::new();
    place.write("recipe.toml", RECIPE);
    let plan = json(&place, &["plan", "recipe.toml"]);
    for entry in plan["plans"].as_array().unwrap() {
        let step = &entry["step"];
        let purposes = step["purposes"].as_array().unwrap().iter().map(|p| p[1].as_u64().unwrap());
        assert_eq!(Some(purposes.sum()), entry["total_bytes"].as_u64());
        let precision = entry["precision"].as_str().unwrap();
        let run = json(&place, &["train", "recipe.toml", "--precision", precision]);
        assert_eq!(run["arena_bytes"], step["footprint"]["arena"], "{precision}");
        assert_eq!(run["checkpoints"]["snapshot_bytes"], entry["checkpoint_bytes"], "{precision}");
    }
    let (fp32, bf16) = (total(&plan, "fp32"), total(&plan, "bf16"));
    assert!(bf16 < fp32);

    // Between the least and all: something is computed again, and the loss is the same.
    let budget = bf16 - bf16 / 10;
    let lines = RECIPE.to_string() + &format!("memory_budget = {budget}\n");
    place.write("tight.toml", lines);
    let plan = json(&place, &["plan", "tight.toml", "--precision", "bf16"]);
    assert!(total(&plan, "bf16") <= budget);
    assert!(plan["plans"][0]["recomputation"]["extra_work"].as_f64().unwrap() > 0.0);
    let [tight, free] =
        ["tight.toml", "recipe.toml"].map(|r| json(&place, &["train", r, "--precision", "bf16"]));
    assert_eq!(tight["train_loss"], free["train_loss"]);
    assert!(tight["arena_bytes"].as_u64() < free["arena_bytes"].as_u64());
    // The resolved recipe means the same.
    let run = place.path(tight["run_directory"].as_str().unwrap());
    let again = json(&place, &["plan", run.join("recipe.toml").to_str().unwrap(), "--precision", "bf16"]);
    assert_eq!(again["memory_budget"].as_u64(), Some(budget));
}

#[test]
fn a_budget_that_cannot_be_met_names_one_that_can_and_writes_nothing() {
    let place = Place::new();
    place.write("recipe.toml", RECIPE.to_string() + "memory_budget = \"1500 kB\"\n");
    let before = place.everything();
    let stderr = place.fails(2, &["train", "recipe.toml", "--precision", "bf16"]);
    let flat = stderr.replace(['│', '\n'], " ").split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(flat.contains("memory budget of 1500 kB") && flat.contains("batch of at most"), "{flat}");
    let needed = flat.split("and ").nth(1).and_then(|t| t.split(" at least").next()).unwrap();
    assert_eq!(place.everything(), before, "something was written");
    let plan = json(&place, &["plan", "recipe.toml", "--precision", "bf16", "--memory-budget", needed]);
    assert!(total(&plan, "bf16") > 1_500_000);
}

#[test]
fn the_largest_that_fits_fits_and_one_more_does_not() {
    let place = Place::new();
    place.write("recipe.toml", RECIPE);
    let found = json(&place, &["plan", "recipe.toml", "--max", "batch", "--budget", "3 MB"]);
    let row = &found["largest"]["rows"][0]["values"];
    let largest = |precision: &str| {
        let pair = row.as_array().unwrap().iter().find(|v| v[0] == precision).unwrap();
        pair[1].as_u64().unwrap()
    };
    assert!(largest("bf16") > largest("fp32"));
    for precision in ["fp32", "bf16"] {
        let needs = |batch: u64| {
            place.write("n.toml", RECIPE.replace("batch = 8", &format!("batch = {batch}")));
            total(&json(&place, &["plan", "n.toml", "--precision", precision]), precision)
        };
        let n = largest(precision);
        assert!(needs(n) <= 3_000_000 && needs(n + 1) > 3_000_000, "{precision} {n}");
    }
    let found =
        json(&place, &["plan", "recipe.toml", "--max", "model", "--budget", "6 MB", "--precision", "bf16"]);
    let models = found["largest"]["rows"].as_array().unwrap();
    assert!(models[0]["values"][0][1]["heads"].as_u64().unwrap() > 2, "{found}");
    assert!(models[1]["values"][0][1]["layers"].as_u64().unwrap() > 4, "{found}");
}
