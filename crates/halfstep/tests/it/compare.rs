//! `halfstep compare` as an experiment: nothing is trained twice, nothing is lost, and its exit
//! code is a verdict.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::common::{Place, TINY};
use serde_json::Value;

fn runs(result: &Value) -> &Vec<Value> {
    result["arms"][0]["runs"].as_array().unwrap()
}

fn cached(result: &Value) -> usize {
    runs(result).iter().filter(|r| r["cached"] == true).count()
}

/// The models of a comparison, by name.
fn models(place: &Place, run: &str) -> Vec<(String, Vec<u8>)> {
    let folder = place.path(run).join("checkpoints");
    let mut all: Vec<(String, Vec<u8>)> = std::fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().path())
        .map(|p| (p.file_name().unwrap().to_str().unwrap().to_string(), std::fs::read(p).unwrap()))
        .collect();
    all.sort();
    all
}

fn entries(place: &Place) -> Vec<PathBuf> {
    std::fs::read_dir(place.cache.path().join("runs")).unwrap().map(|e| e.unwrap().path()).collect()
}

#[test]
fn nothing_is_trained_twice_and_what_is_damaged_is_trained_again() {
    let place = Place::new();
    place.write("recipe.toml", TINY);
    let (code, first) = place.compare_json(&["recipe.toml", "--out", "first", "--jobs", "1"]);
    assert_eq!((cached(&first), runs(&first).len()), (0, 6));
    // The same again, with other threads, as the folder was moved, and with a seed more.
    place.write("moved/recipe.toml", TINY.replace("seeds = 2", "seeds = 3"));
    let (_, again) = place.compare_json(&["moved/recipe.toml", "--out", "again", "--threads", "1"]);
    assert_eq!((cached(&again), runs(&again).len()), (6, 9));
    for (a, b) in runs(&first).iter().zip(runs(&again)) {
        for key in ["policy", "seed", "id", "evaluations", "train_loss", "skipped", "spent", "way"] {
            assert_eq!(a[key], b[key], "{key}");
        }
    }
    // Another setting is another run; the name, the margin and the folder are not settings of a
    // run.
    place.write("other.toml", TINY.replace("hidden = [16]", "hidden = [17]"));
    assert_eq!(cached(&place.compare_json(&["other.toml", "--out", "other", "--seeds", "1"]).1), 0);
    place.write(
        "named.toml",
        TINY.replace("\"tiny\"", "\"named\"").replace("seeds = 2", "seeds = 2\nmargin = 0.5"),
    );
    assert_eq!(cached(&place.compare_json(&["named.toml", "--out", "named"]).1), 6);

    // One bit of one model, and one record that is cut short.
    let id = |run: &Value| place.cache.path().join("runs").join(run["id"].as_str().unwrap());
    let (model, record) =
        (id(&runs(&first)[0]).join("model.safetensors"), id(&runs(&first)[1]).join("record.json"));
    let mut bytes = std::fs::read(&model).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&model, bytes).unwrap();
    let whole = std::fs::read(&record).unwrap();
    std::fs::write(&record, &whole[..whole.len() / 2]).unwrap();
    let output = place.run(&["compare", "recipe.toml", "--json", "--out", "repaired"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.matches("is damaged and is trained again").count() == 2, "{said}");
    let repaired: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), cached(&repaired)), (Some(code), 4));
    assert!(models(&place, "repaired") == models(&place, "first"), "other bits");
    assert_eq!(cached(&place.compare_json(&["recipe.toml", "--out", "whole"]).1), 6);

    // The cache can be looked at and emptied.
    let held = place.json(&["cache", "--json"]);
    assert_eq!((&held["finished"], &held["unfinished"]), (&Value::from(12), &Value::from(0)));
    assert!(held["bytes"].as_u64().unwrap() > 10_000);
    assert_eq!(place.json(&["cache", "--clear", "--json"])["removed"], 12);
    assert!(entries(&place).is_empty());
}

#[test]
fn side_by_side_and_without_a_cache_the_bits_are_the_same() {
    let place = Place::new();
    place.write("recipe.toml", TINY);
    place.compare(&["recipe.toml", "--out", "one", "--jobs", "1", "--threads", "2", "--no-cache"]);
    place.compare(&["recipe.toml", "--out", "three", "--jobs", "3", "--threads", "3", "--no-cache"]);
    assert!(models(&place, "one") == models(&place, "three"), "other bits");
    assert!(!place.cache.path().join("runs").exists(), "nothing is kept");
    assert!(!place.path("one/.runs").exists(), "nothing is left");
    // Logits are as `verdict` reads them, and it comes to the same.
    let results: Value =
        serde_json::from_slice(&std::fs::read(place.path("three/results.json")).unwrap()).unwrap();
    let way = &results["arms"][0]["runs"][0]["way"];
    assert_eq!((&way["threads"], &way["beside"]), (&Value::from(1), &Value::from(2)));
    let logits = |p: &str| [0, 1].map(|s| format!("one/logits/{p}-seed{s}.safetensors"));
    let (a, b) = (logits("fp32"), logits("bf16"));
    let output = place.run(&["verdict", "--baseline", &a[0], &a[1], "--candidate", &b[0], &b[1], "--json"]);
    let verdict: Value = serde_json::from_slice(&output.stdout).unwrap();
    let candidate = &results["arms"][0]["candidates"][0];
    assert_eq!(candidate["policy"], "bf16");
    assert_eq!(candidate["assessment"]["rows"], verdict["rows"]);
    assert_eq!(candidate["verdict"], verdict["verdict"]);
}

/// A run that is killed goes on from its checkpoint; those that were finished are not made again;
/// all time is charged.
#[cfg(target_os = "linux")]
#[test]
fn a_killed_comparison_goes_on() {
    let recipe = TINY.replace("epochs = 2", "steps = 6000\nevaluate_every = 2000");
    let recipe = recipe.replace("batch = 32", "batch = 32\n[checkpoint]\nevery = 50");
    let recipe = recipe.replace("seeds = 2", "seeds = 1");
    let args = ["recipe.toml", "--precisions", "fp32,bf16", "--threads", "1"];
    let whole = Place::new();
    whole.write("recipe.toml", &recipe);
    whole.compare(&[&args[..], &["--out", "run"]].concat());

    let place = Place::new();
    place.write("recipe.toml", &recipe);
    let start = |out: &str| {
        let mut command = place.command(&[&["compare"], &args[..], &["--out", out]].concat());
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    let begun = Instant::now();
    let mut child = start("killed");
    // The second run is on its way, with a checkpoint.
    let checkpoint = |p: &Path| std::fs::read_dir(p.join("checkpoints")).is_ok_and(|d| d.count() > 0);
    let there = || {
        let runs = std::fs::read_dir(place.cache.path().join("runs")).into_iter().flatten().flatten();
        let runs: Vec<PathBuf> = runs.map(|e| e.path()).collect();
        runs.len() == 2
            && runs.iter().filter(|p| p.join("record.json").is_file()).count() == 1
            && runs.iter().any(|p| checkpoint(p) && !p.join("record.json").is_file())
    };
    while !there() {
        assert!(begun.elapsed() < Duration::from_secs(120), "not begun after two minutes");
        assert!(child.try_wait().unwrap().is_none(), "ended before it could be killed");
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();

    let (_, result) = place.compare_json(&[&args[..], &["--out", "run"]].concat());
    assert_eq!(cached(&result), 1, "the finished run was kept whole");
    assert!(models(&place, "run") == models(&whole, "run"), "other bits than without the kill");
    let killed = runs(&result).iter().find(|r| r["cached"] == false).unwrap();
    assert_eq!(killed["attempts"], 2);
    assert!(killed["spent"]["wall_seconds"].as_f64().unwrap() > 0.0);
    // Every step once in the log, though some were done twice.
    let log = std::fs::read_to_string(place.path("run/metrics.jsonl")).unwrap();
    assert_eq!(log.matches("\"step\"").count(), 2 * 6000);
}

const ARMS: &str = r#"
[[ablation]]
name = "mlp"
[[ablation]]
name = "cnn"
[ablation.model]
kind = "cnn"
channels = [4, 4]
hidden = 8
[[ablation]]
name = "resnet18"
[ablation.model]
kind = "resnet18"
width = 2
[ablation.train]
steps = 4
batch = 16
[[ablation]]
name = "gpt"
[ablation.data]
kind = "bundled"
name = "shakespeare"
sequence = 16
limit_test = 20
[ablation.model]
kind = "gpt"
width = 16
layers = 1
heads = 2
[ablation.train]
steps = 10
batch = 8
"#;

#[test]
fn an_ablation_compares_every_model_on_its_data() {
    let place = Place::new();
    place.write("recipe.toml", format!("{TINY}{ARMS}"));
    let args = ["recipe.toml", "--precisions", "fp32,bf16", "--out", "run"];
    let (code, result) = place.compare_json(&args);
    let arms = result["arms"].as_array().unwrap();
    let names: Vec<&str> = arms.iter().map(|a| a["setup"]["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["mlp", "cnn", "resnet18", "gpt"]);
    let verdicts: Vec<&str> = arms.iter().map(|a| a["candidates"][0]["verdict"].as_str().unwrap()).collect();
    let over_all = if verdicts.contains(&"fail") {
        1
    } else if verdicts.iter().all(|v| *v == "pass") {
        0
    } else {
        2
    };
    assert_eq!(code, over_all, "{verdicts:?}");
    let report = std::fs::read_to_string(place.path("run/report.html")).unwrap();
    for name in names {
        assert!(report.contains(&format!("{name}: Side by side")), "{name}");
        // Each arm is a run directory of its own, whose models can be used.
        let run = format!("run/{name}");
        let eval = place.json(&["eval", &run, "--checkpoint", "bf16-seed1", "--json"]);
        assert!(eval["accuracy"].as_f64().unwrap() >= 0.0);
    }
    assert!(arms[3]["setup"]["data"].as_str().unwrap().contains("shakespeare"));
}

#[test]
fn the_exit_code_is_the_verdict_and_margins_are_the_recipes() {
    let place = Place::new();
    // Margins that nothing can miss, and a reference that has learned something.
    let wide = "margin = 0.9\nmargins = { nll = 5.0, ece = \"90pt\", negative-flips = \"off\" }";
    let longer = TINY.replace("epochs = 2", "epochs = 20");
    place.write("wide.toml", format!("{longer}{wide}\n"));
    let (code, result) = place.compare_json(&["wide.toml", "--precisions", "fp32,bf16", "--out", "wide"]);
    assert_eq!((code, &result["verdict"]), (0, &Value::from("pass")));
    let rows = result["arms"][0]["candidates"][0]["assessment"]["rows"].as_array().unwrap();
    let gates: Vec<&str> =
        rows.iter().filter(|r| r["gates"] == true).map(|r| r["metric"].as_str().unwrap()).collect();
    assert_eq!(gates, ["accuracy", "nll", "ece"]);
    // A seed more is a second look, where one was stated: it decides nothing. The first again is
    // the same look, and seeds that were not looked at have a look of their own.
    let again = |more: &[&str]| place.compare(&[&["wide.toml", "--precisions", "fp32,bf16"], more].concat());
    let (code, said) = again(&["--seeds", "3", "--out", "again"]);
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("bf16 was judged before with 2 seeds, at 5.0 %"), "{said}");
    assert!(said.contains("gives no verdict") && said.contains("--first-seed 3"), "{said}");
    for (more, out) in [(&[][..], "first"), (&["--first-seed", "2"], "new")] {
        let (code, said) = again(&[more, &["--out", out]].concat()[..]);
        assert_eq!(code, 0, "{said}");
    }
    // Two runs cannot show that at most 5 % diverge.
    place.write("clean.toml", format!("{longer}{wide}\nmax_divergence = 0.05\n"));
    let (code, said) = place.compare(&["clean.toml", "--precisions", "fp32,bf16", "--out", "clean"]);
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("59 clean runs") && said.contains("--seeds 59"), "{said}");
    // A loss scale that always overflows: no run gets anywhere.
    let hopeless = TINY.replace(
        "[compare]",
        "[precision]\nloss_scale = { kind = \"static\", scale = 1e38 }\n[compare]\nmax_divergence = 0.05",
    );
    place.write("hopeless.toml", hopeless.replace("epochs = 2", "epochs = 10"));
    let (code, said) = place.compare(&["hopeless.toml", "--precisions", "fp32,fp16", "--out", "hopeless"]);
    assert_eq!(code, 1, "{said}");
    // One precision has nothing to be compared with.
    assert_eq!(place.compare(&["wide.toml", "--precisions", "fp32", "--out", "alone"]).0, 0);
    // What is wrong has a code of its own.
    for (margin, says) in
        [("acuracy = 0.1", "there is no metric `acuracy`"), ("nll = \"1pt\"", "nll is no share")]
    {
        place.write("bad.toml", format!("{TINY}margins = {{ {margin} }}\n"));
        let stderr = place.fails(3, &["compare", "bad.toml", "--out", "bad"]);
        assert!(stderr.contains(says) && stderr.contains("margins = "), "{stderr}");
        assert!(!place.path("bad").exists(), "nothing is written");
    }
}

#[test]
fn a_plan_trains_nothing_and_learns_from_what_is_there() {
    let place = Place::new();
    place.write("recipe.toml", TINY);
    let plan = |more: &[&str]| {
        let args =
            [&["compare", "recipe.toml", "--plan", "--json", "--precisions", "fp32,bf16"], more].concat();
        place.json(&args)["arms"][0].clone()
    };
    let row = |plan: &Value, metric: &str| {
        let metrics = plan["candidates"][0]["metrics"].as_array().unwrap().clone();
        metrics.into_iter().find(|m| m["metric"] == metric).unwrap()
    };
    // Nothing is known: a spread as large as the margin, which takes 8 seeds. Of accuracy on other
    // examples 100 test samples show less than a point with no number of seeds, and so nothing is
    // planned over all.
    let assumed = plan(&[]);
    assert_eq!((&row(&assumed, "nll")["seeds"], &assumed["cached"]), (&Value::from(8), &Value::from(0)));
    assert_eq!((&row(&assumed, "accuracy")["seeds"], &assumed["needed"]), (&Value::Null, &Value::Null));
    assert_eq!(assumed["test_samples"], 100);
    // On these samples it takes seeds alone; more at twice the spread.
    place.write("recipe.toml", format!("{TINY}claim = \"samples\"\n"));
    let before = place.everything();
    let assumed = plan(&[]);
    let seeds = row(&assumed, "accuracy")["seeds"].as_u64().unwrap();
    assert!(seeds >= 8, "{seeds}");
    assert_eq!(assumed["needed"]["runs"].as_u64(), Some(2 * seeds));
    assert!(assumed["needed"]["core_hours"].as_f64().unwrap() > 0.0);
    assert!(assumed["precisions"][1]["bytes"].as_u64().unwrap() > 0);
    assert!(row(&plan(&["--sd", "2pt"]), "accuracy")["seeds"].as_u64().unwrap() >= 27.max(seeds));
    assert_eq!(place.everything(), before);
    assert!(!place.cache.path().join("runs").exists(), "nothing was trained");

    let (_, made) =
        place.compare_json(&["recipe.toml", "--out", "run", "--precisions", "fp32,bf16", "--seeds", "3"]);
    let sd = &made["arms"][0]["candidates"][0]["accuracy"]["sd"];
    let measured = plan(&[]);
    let accuracy = row(&measured, "accuracy");
    assert_eq!(
        (&accuracy["source"]["kind"], &accuracy["source"]["seeds"]),
        (&Value::from("measured"), &Value::from(3))
    );
    assert_eq!((&accuracy["sd"], &measured["cached"]), (sd, &Value::from(6)));
    assert_eq!(measured["stated"]["runs"], 0, "both seeds are there");
    let stderr = place.fails(3, &["compare", "recipe.toml", "--plan", "--sd", "2%"]);
    assert!(stderr.contains("percentage points"), "{stderr}");
}
