//! From data to predictions, as a person goes about it.

use crate::common;
use crate::common::{Place, TINY};
use serde_json::Value;

#[test]
fn compare_prints_one_json_object_and_leaves_a_run_directory() {
    let place = Place::new();
    place.write("recipe.toml", TINY);
    let (_, result) = place.compare_json(&["recipe.toml", "--out", "run", "--threads", "2"]);
    assert_eq!(result["run_directory"], "run");
    let rows = result["arms"][0]["rows"].as_array().unwrap();
    let policies: Vec<&str> = rows.iter().map(|r| r["policy"].as_str().unwrap()).collect();
    assert_eq!(policies, ["fp32", "bf16", "fp16"]);
    for row in rows {
        assert_eq!((&row["runs"], &row["finished"]), (&Value::from(2), &Value::from(2)));
        assert!(row["step_ms"].as_f64().unwrap() > 0.0);
        assert!(row["arena_bytes"].as_u64().unwrap() > 0);
        let accuracy = row["accuracy"].as_f64().unwrap();
        assert!((0.0..=1.0).contains(&accuracy));
    }
    assert_eq!(rows[1]["against"]["pairs"], 2);
    let mut there: Vec<String> = place.everything().into_iter().filter(|f| f.starts_with("run/")).collect();
    there.retain(|f| !f.ends_with("checkpoints") && !f.ends_with("logits") && !f.ends_with(".lock"));
    let mut expected: Vec<String> = ["fp32", "bf16", "fp16"]
        .iter()
        .flat_map(|p| {
            let of = |folder| [0, 1].map(|s| format!("run/{folder}/{p}-seed{s}.safetensors"));
            of("checkpoints").into_iter().chain(of("logits"))
        })
        .chain(
            [
                "emissions.csv",
                "metrics.jsonl",
                "plan.json",
                "preprocessing.json",
                "recipe.toml",
                "report.html",
                "report.md",
                "results.json",
                "samples.safetensors",
            ]
            .map(|f| format!("run/{f}")),
        )
        .collect();
    expected.sort();
    assert_eq!(there, expected);
    // Six batches of 32 in 200 samples, two epochs, three precisions, two seeds; and an evaluation
    // per epoch.
    let metrics = std::fs::read_to_string(place.path("run/metrics.jsonl")).unwrap();
    let events: Vec<Value> = metrics.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let count = |kind: &str| events.iter().filter(|e| e["event"] == kind).count();
    assert_eq!((count("step"), count("evaluation")), (6 * 2 * 3 * 2, 2 * 3 * 2));
    let plans: Value = serde_json::from_slice(&std::fs::read(place.path("run/plan.json")).unwrap()).unwrap();
    assert_eq!(plans.as_array().unwrap().len(), 3);
    assert!(plans[1]["precision"]["entries"].as_array().unwrap().iter().any(|e| e["storage"] == "bf16"));
    // The folder is not used twice.
    let stderr = place.fails(3, &["compare", "recipe.toml", "--out", "run"]);
    assert!(stderr.contains("not empty"), "{stderr}");
    // A model of the comparison can be used.
    let eval = place.json(&["eval", "run", "--checkpoint", "fp16-seed1", "--json"]);
    assert_eq!(eval["precision"], "fp16");
    assert_eq!(eval["accuracy"], rows_accuracy(&result, "fp16", 1));
    let stderr = place.fails(2, &["eval", "run", "--checkpoint", "fp61-seed1"]);
    assert!(stderr.contains("did you mean `fp16-seed1`?"), "{stderr}");
}

fn rows_accuracy(result: &Value, policy: &str, seed: u64) -> Value {
    let runs = result["arms"][0]["runs"].as_array().unwrap();
    let run = runs.iter().find(|r| r["policy"] == policy && r["seed"] == seed).unwrap();
    run["evaluations"].as_array().unwrap().last().unwrap()["accuracy"].clone()
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let place = Place::new();
    place.write("recipe.toml", TINY);
    for threads in ["1", "2"] {
        place.ok(&["train", "recipe.toml", "--precision", "fp16", "--threads", threads, "--out", threads]);
    }
    let weights =
        |run: &str| std::fs::read(place.path(&format!("{run}/checkpoints/final.safetensors"))).unwrap();
    assert!(weights("1") == weights("2"), "the same seed gave other bits");
}

#[test]
fn the_resolved_recipe_trains_the_same_model() {
    let place = Place::new();
    place.write("recipe.toml", TINY);
    place.ok(&["train", "recipe.toml", "--precision", "bf16", "--seed", "7", "--out", "a"]);
    place.ok(&["train", "a/recipe.toml", "--out", "b"]);
    let weights =
        |run: &str| std::fs::read(place.path(&format!("{run}/checkpoints/final.safetensors"))).unwrap();
    assert!(weights("a") == weights("b"), "a resolved recipe means something else");
}

/// Pictures of a bright square on the left or on the right, with noise.
fn pictures(place: &Place) {
    for (class, offset) in [("left", 2), ("right", 12)] {
        for i in 0..40u32 {
            place.picture(&format!("squares/{class}/{i}.png"), 20, 18, |x, y| {
                let noise = (x * 31 + y * 17 + i * 101).wrapping_mul(2654435761) >> 27;
                let inside = (offset..offset + 6).contains(&x) && (6..12).contains(&y);
                [noise as u8 + if inside { 200 } else { 20 }]
            });
        }
    }
}

#[test]
fn a_folder_of_images_from_new_to_predict() {
    let place = Place::new();
    pictures(&place);
    let said = place.ok(&["new", "squares", "-o", "squares.toml"]);
    assert!(said.contains("80 images") && said.contains("left (40), right (40)"), "{said}");
    place.ok(&["train", "squares.toml", "--out", "run"]);
    let (left, right) = ("squares/left/3.png", "squares/right/3.png");
    let result = place.json(&["predict", "run", left, right, "--json"]);
    let classes: Vec<&str> =
        result["predictions"].as_array().unwrap().iter().map(|p| p["class"].as_str().unwrap()).collect();
    assert_eq!(classes, ["left", "right"]);
    let table = place.ok(&["predict", "run", "squares/left"]);
    assert_eq!(table.lines().count(), 40);
    let stderr = place.fails(2, &["predict", "run", "squares.toml"]);
    assert!(stderr.contains("squares.toml"), "{stderr}");
    let stderr = place.fails(2, &["generate", "run"]);
    assert!(stderr.contains("trained on images"), "{stderr}");
    // A second time, the recipe is not overwritten.
    let before = std::fs::read(place.path("squares.toml")).unwrap();
    let stderr = place.fails(2, &["new", "squares", "-o", "squares.toml"]);
    assert!(stderr.contains("exists already"), "{stderr}");
    assert_eq!(std::fs::read(place.path("squares.toml")).unwrap(), before);
}

#[test]
fn a_table_from_new_to_predict() {
    let place = Place::new();
    let row = |i: usize| {
        let (age, job) = (20 + i * 7 % 40, ["clerk", "cook", "pilot"][i % 3]);
        let outcome = if age > 40 { "yes" } else { "no" };
        format!("{age},{job},{},{outcome}\n", 1000 + i * 37 % 500)
    };
    let table: String = "age,job,pay,outcome\n".to_string() + &(0..300).map(row).collect::<String>();
    place.write("people.csv", &table);
    let said = place.ok(&["new", "people.csv", "-o", "people.toml"]);
    assert!(said.contains("300 rows") && said.contains("Target `outcome`"), "{said}");
    place.ok(&["train", "people.toml", "--out", "run"]);
    place.write("new.csv", "pay,age,job\n1200,25,cook\n1200,58,cook\n");
    let result = place.json(&["predict", "run", "new.csv", "--json"]);
    let classes: Vec<&str> =
        result["predictions"].as_array().unwrap().iter().map(|p| p["class"].as_str().unwrap()).collect();
    assert_eq!(classes, ["no", "yes"]);
    let first = &result["predictions"][0];
    assert_eq!((&first["row"], &first["line"]), (&Value::from(1), &Value::from(2)));
    let sum: f64 = first["top"].as_array().unwrap().iter().map(|t| t["probability"].as_f64().unwrap()).sum();
    assert!((sum - 1.0).abs() < 1e-12, "the probabilities of all classes, summed in f64: {sum}");

    // More than the model needs, and in a folder.
    place.write("more/new.csv", "key,pay,age,job\nx7,1200,25,cook\n\"y,8\",1200,58,cook\n");
    let csv = place.ok(&["predict", "run", "more", "--csv", "--id", "key"]);
    let lines: Vec<&str> = csv.lines().collect();
    assert_eq!(lines[0], "input,line,key,class,probability,probability of no,probability of yes");
    assert!(
        lines[1].starts_with("more/new.csv,2,x7,no,0.") && lines[2].contains(",3,\"y,8\",yes,0."),
        "{csv}"
    );
    let table = place.ok(&["predict", "run", "more/new.csv", "--top", "2", "--id", "key"]);
    let words: Vec<&str> = table.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(
        (words[0], words[1], words[2], words[5]),
        ("more/new.csv:2", "key=x7", "no", "yes"),
        "{table}"
    );
    let stderr = place.fails(2, &["predict", "run", "new.csv", "--id", "kye"]);
    assert!(stderr.contains("no column `kye`"), "{stderr}");
    let stderr = place.fails(2, &["new", "people.csv", "-o", "b.toml", "--target", "jib"]);
    assert!(stderr.contains("did you mean `job`?"), "{stderr}");
    place.ok(&["new", "people.csv", "-o", "b.toml", "--target", "job"]);
    assert!(std::fs::read_to_string(place.path("b.toml")).unwrap().contains("target = \"job\""));
}

#[test]
fn names_with_line_ends_make_a_recipe_that_loads() {
    let place = Place::new();
    let rows: String = (0..60).map(|i| format!("{}.5,{}\n", i * 7 % 60, ["a", "b"][i % 2])).collect();
    place.write("odd.csv", format!("\"a = 1\u{1}\",\"what = it\nis\"\n{rows}"));
    place.ok(&["new", "odd.csv", "-o", "odd.toml"]);
    let said = place.ok(&["explain", "odd.toml", "--stage", "precision"]);
    assert!(said.contains("matmul"), "{said}");
}

#[test]
fn a_text_from_new_to_generate() {
    let place = Place::new();
    place.write("song.txt", "the wheels on the bus go round and round\n".repeat(400));
    place.ok(&["new", "song.txt", "-o", "song.toml"]);
    // The recipe as written is for minutes; a short one does here.
    let recipe = std::fs::read_to_string(place.path("song.toml")).unwrap();
    let short = recipe
        .replace("steps = 1000", "steps = 60")
        .replace("warmup = 100", "warmup = 10")
        .replace("width = 128 ", "width = 32 ")
        .replace("layers = 4", "layers = 1");
    assert_ne!(short, recipe);
    place.write("short.toml", short);
    place.ok(&["train", "short.toml", "--out", "run"]);
    let generate = |seed: &str| {
        place.ok(&["generate", "run", "--prompt", "the wheels", "--tokens", "40", "--seed", seed])
    };
    let text = generate("1");
    assert!(text.starts_with("the wheels") && text.len() >= 50, "{text}");
    assert_eq!(text, generate("1"), "the same seed gives the same text");
    assert_ne!(text, generate("2"));
    place.write("same.txt", "the wheels on the bus go round and round\n");
    place.write("other.txt", "QZX 0193 %%&& JJJKKQ 77 !!\n");
    let result = place.json(&["predict", "run", "same.txt", "other.txt", "--json"]);
    let loss = |i: usize| result["predictions"][i]["loss"].as_f64().unwrap();
    assert!(loss(0) < loss(1), "{result}");
    place.write("old.txt", b"gr\xFC\xDFe\n");
    let refused = place.fails(2, &["predict", "run", "old.txt"]).replace('│', " ");
    let refused = refused.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(refused.contains("byte 2 (line 1) is none of it") && !refused.contains("`encoding"), "{refused}");
    let scores = place.ok(&["eval", "run"]);
    assert!(scores.contains("perplexity") && scores.contains("a text has tokens, not classes"), "{scores}");
}

#[test]
fn explain_prints_every_stage() {
    let place = Place::new();
    place.write("recipe.toml", TINY);
    let stage = |name: &str| place.ok(&["explain", "recipe.toml", "--stage", name, "--precision", "bf16"]);
    assert!(stage("graph").contains("matmul") && !stage("graph").contains("adamw"));
    assert!(stage("diff").contains("adamw"));
    assert!(stage("precision").contains("bf16") && stage("precision").contains("exact products"));
    let fused = stage("fused");
    assert!(
        ["group matmul", "bf16[", "bytes read", "saved", "operations"].iter().all(|w| fused.contains(w)),
        "{fused}"
    );
    assert!(stage("plan").contains("arena"));
    let summary = place.ok(&["explain", "recipe.toml"]);
    assert!(["fp32", "bf16", "fp16", "casts"].iter().all(|w| summary.contains(w)), "{summary}");
    assert_eq!(place.everything(), ["recipe.toml"], "explain writes nothing");
}

#[test]
fn bench_prints_the_fields_of_its_peers() {
    let place = Place::new();
    let gpt =
        ["--batch", "2", "--width", "32", "--layers", "1", "--heads", "2", "--seq", "16", "--vocab", "64"];
    for precision in ["fp32", "bf16", "fp16", "bf16x3", "bf16x6"] {
        let mut args = vec!["bench", "step", "--model", "gpt", "--precision", precision, "--threads", "1"];
        args.extend(gpt);
        args.extend(["--seconds", "0.1", "--json"]);
        let result = place.json(&args);
        for field in ["median_ms", "min_ms", "items_per_s"] {
            assert!(result[field].as_f64().unwrap() > 0.0, "{field}: {result}");
        }
        assert!(result["arena_bytes"].as_u64().unwrap() > 0);
        assert!(result["peak_rss_bytes"].is_u64() || !cfg!(target_os = "linux"));
        assert!(result["steps"].as_u64().unwrap() >= 5);
        let args = [
            "bench",
            "gemm",
            "--m",
            "33",
            "--n",
            "17",
            "--k",
            "65",
            "--precision",
            precision,
            "--threads",
            "1",
        ];
        let result = place.json(&[&args[..], &["--seconds", "0.05", "--json"]].concat());
        assert!(result["gflops"].as_f64().unwrap() > 0.0, "{result}");
    }
}

#[test]
fn info_names_what_is_used() {
    let place = Place::new();
    let result = place.json(&["info", "--json"]);
    let sets = result["instruction_sets"].as_array().unwrap();
    let used = sets.iter().find(|s| s["name"] == result["used"]).unwrap();
    assert_eq!(used["available"], true);
    let output = place.command(&["info", "--json"]).env("HALFSTEP_ISA", "portable").output().unwrap();
    let forced: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&forced["used"], &forced["forced"]), (&Value::from("portable"), &Value::from(true)));
    assert_eq!(place.everything(), Vec::<String>::new());
}

/// Ctrl-C ends a run with what was learnt so far.
#[cfg(target_os = "linux")]
#[test]
fn an_interrupted_run_leaves_what_it_learnt() {
    let place = Place::new();
    place.write("recipe.toml", TINY.replace("epochs = 2", "epochs = 1000000\nevaluate_every = 100"));
    let child = place
        .command(&["train", "recipe.toml", "--out", "run"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let log = place.path("run/metrics.jsonl");
    let begun = std::time::Instant::now();
    let evaluated = || std::fs::read_to_string(&log).is_ok_and(|log| log.contains("evaluation"));
    while !evaluated() {
        assert!(begun.elapsed().as_secs() < 120, "no checkpoint after two minutes");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let kill = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(kill.success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", common::both(&output));
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(stdout.contains("run directory") && stdout.contains("halfstep train --resume run"), "{stdout}");
    let eval = place.json(&["eval", "run", "--json"]);
    assert!(eval["accuracy"].as_f64().unwrap() > 0.1, "{eval}");
}

#[test]
fn every_recipe_of_the_project_is_valid() {
    let place = Place::new();
    let recipes = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes");
    let mut seen = 0;
    for entry in std::fs::read_dir(recipes).unwrap() {
        let path = entry.unwrap().path();
        let summary = place.ok(&["explain", path.to_str().unwrap()]);
        let name = path.file_stem().unwrap().to_str().unwrap();
        assert!(summary.contains(name) && summary.contains("parameters"), "{summary}");
        seen += 1;
    }
    assert!(seen >= 5, "{seen} recipes");
}
