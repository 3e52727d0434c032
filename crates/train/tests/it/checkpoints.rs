//! Checkpoints: a run goes on bit for bit, others can read them, damage is found, and no failing
//! disk loses a run.

use crate::common;
use std::path::Path;
use std::sync::Arc;

use crate::common::faulty_disk::{After, Fault, FaultyDisk};
use crate::common::json_schema::mismatch;
use crate::common::run::{Stop, experiment, log, run, run_well};
use halfstep_graph::engine::Engine;
use halfstep_graph::precision::Policy;
use halfstep_train::checkpoint::precision::SCHEMA;
use halfstep_train::checkpoint::{Latest, MANIFEST, OPTIMISER, PRECISION, STATE};
use halfstep_train::files::Disk;
use halfstep_train::metrics::Outcome;
use halfstep_train::recipe::Recipe;
use halfstep_train::run_dir::{CHECKPOINTS, MODEL, RunDir};

const DIGITS: &str = r#"
[data]
kind = "bundled"
name = "digits"
limit_train = 64
limit_test = 20
[model]
kind = "mlp"
hidden = [8]
[schedule]
kind = "cosine"
[train]
steps = 12
batch = 16
evaluate_every = 4
[checkpoint]
every = 4
keep_last = 2
keep_best = 0
[precision]
loss_scale = { kind = "dynamic", init = 16777216.0, interval = 3 }
"#;

const TEXT: &str = r#"
[data]
kind = "bundled"
name = "shakespeare"
limit_train = 40
limit_test = 4
sequence = 16
[model]
kind = "gpt"
width = 16
layers = 1
heads = 2
dropout = 0.2
[optimiser]
kind = "sgd"
lr = 0.1
momentum = 0.9
[train]
steps = 14
batch = 4
clip = 1.0
evaluate_every = 5
[checkpoint]
every = 3
keep_last = 3
[precision]
loss_scale = { kind = "dynamic", init = 16777216.0, interval = 4 }
"#;

fn cpu() -> Box<dyn Engine> {
    common::engines().pop().unwrap()
}

fn place() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn a_run_goes_on_bit_for_bit() {
    let engine = cpu();
    // With everything a step can do besides.
    let more = "[train]\naccumulate = 2\nema = 0.9\ngroups = [{ pattern = \"blocks\", lr = 0.5 }, { pattern = \"*\", weight_decay = 0.1 }]";
    let more = TEXT.replace("[train]", more);
    for recipe in [DIGITS, TEXT, &more] {
        let experiment = experiment(recipe);
        for policy in Policy::NAMES {
            let folder = place();
            let (straight, pieces) = (folder.path().join("straight"), folder.path().join("pieces"));
            let whole = run_well(&experiment, &*engine, policy, &straight, Stop::Never);
            if policy == "fp16" {
                assert!(whole.skipped > 0, "the loss scale is to overflow, so that its state matters");
            }
            let every = experiment.evaluate_every();
            // Between evaluations, before one that is due, and in one; then again before it.
            for (stop, at) in [
                (Stop::After(1), 1),
                (Stop::After(every), every),
                (Stop::InEvaluation(every), every),
                (Stop::InEvaluation(2 * every), 2 * every),
                (Stop::After(2 * every + 1), 2 * every + 1),
            ] {
                let part = run_well(&experiment, &*engine, policy, &pieces, stop);
                assert_eq!((part.outcome, part.losses.len() as u64), (Outcome::Interrupted, at), "{stop:?}");
            }
            let last = run(&experiment, &*engine, policy, &pieces, Arc::new(Disk), Stop::Never);
            assert_eq!((last.began_at, last.rejected.len()), (2 * every + 1, 0));
            let last = last.result.unwrap();
            assert!(last.bits == whole.bits, "{policy}: other bits");
            assert_eq!((&last.losses, last.skipped), (&whole.losses, whole.skipped), "{policy}");
            assert_eq!(log(&pieces), log(&straight), "{policy}");
            // Once more: there is nothing left to do.
            let again = run_well(&experiment, &*engine, policy, &pieces, Stop::Never);
            assert!(again.bits == whole.bits, "{policy}: other bits");
            assert_eq!(log(&pieces), log(&straight));
        }
    }
}

#[test]
fn the_precision_manifest_keeps_to_its_schema() {
    let schema: serde_json::Value = serde_json::from_str(SCHEMA).unwrap();
    let engine = cpu();
    let experiment = experiment(DIGITS);
    for policy in Policy::NAMES {
        let folder = place();
        let path = folder.path().join("run");
        let ended = run_well(&experiment, &*engine, policy, &path, Stop::Never);
        let file = path.join(CHECKPOINTS).join("step-000012").join(PRECISION);
        let manifest: serde_json::Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
        assert_eq!(mismatch(&schema, &manifest), None, "{policy}");
        let narrow = Policy::named(policy).unwrap().narrow;
        let compute = narrow.map_or(policy.replace("fp", "f"), |n| n.forward.to_string());
        // Split products read f32, and codes are made from bf16.
        let low = match (narrow, Policy::named(policy).unwrap().split) {
            (Some(_), _) => "bf16",
            (None, Some(_)) => "f32",
            (None, None) => &compute,
        };
        assert_eq!(manifest["policy"]["narrow"].is_object(), narrow.is_some());
        for (what, format) in
            [("storage", low), ("compute", &compute), ("accumulation", "f32"), ("master", "f32")]
        {
            assert_eq!(manifest["formats"][what], format, "{policy} {what}");
        }
        let names: Vec<&str> =
            manifest["tensors"].as_array().unwrap().iter().map(|t| t["name"].as_str().unwrap()).collect();
        assert!(ended.bits.keys().all(|name| names.contains(&name.as_str())));
        let history = manifest["loss_scaling"]["history"].as_array().unwrap();
        // Begins at the first scale; every overflow and every three clean steps change it.
        assert_eq!(history[0]["attempt"], 0);
        assert_eq!(history.len() > 1, policy == "fp16", "{history:?}");
        for (key, wrong) in [("formats", "{}"), ("version", "2"), ("tensors", "[]"), ("values", "[{}]")] {
            let mut broken = manifest.clone();
            broken[key] = serde_json::from_str(wrong).unwrap();
            assert!(mismatch(&schema, &broken).is_some(), "{key} may be {wrong}");
        }
    }
}

#[test]
fn the_policy_keeps_the_last_and_the_best() {
    let engine = cpu();
    // The weights hardly move: whichever evaluation is the best, the policy must agree with the
    // log.
    let recipe = DIGITS
        .replace("keep_best = 0", "keep_best = 1")
        .replace("[schedule]\nkind = \"cosine\"", "[optimiser]\nkind = \"sgd\"\nlr = 1e-9\nmomentum = 0.0");
    let experiment = experiment(&recipe);
    let folder = place();
    let path = folder.path().join("run");
    run_well(&experiment, &*engine, "fp32", &path, Stop::Never);
    let evaluations: Vec<(u64, f64)> = log(&path)
        .iter()
        .filter(|l| l["event"] == "evaluation")
        .map(|l| (l["attempt"].as_u64().unwrap(), l["validation"]["loss"].as_f64().unwrap()))
        .collect();
    assert_eq!(evaluations.iter().map(|e| e.0).collect::<Vec<_>>(), [4, 8, 12]);
    let best = evaluations.iter().min_by(|a, b| a.1.total_cmp(&b.1)).unwrap().0;
    let mut expected: Vec<String> = [8, 12, best].map(|n| format!("step-{n:06}")).to_vec();
    expected.sort();
    expected.dedup();
    assert_eq!(RunDir::open(&path).unwrap().checkpoints(), expected);
}

/// Where nothing is chosen nothing is set aside; where something is, the test samples are the same.
#[test]
fn what_is_chosen_is_chosen_by_samples_that_are_neither_trained_on_nor_reported() {
    let none = experiment(DIGITS);
    assert!(none.data.validation.is_none() && none.recipe.checkpoint.keep_best == Some(0));
    let hashes = |part: &halfstep_data::Part| part.sample_hashes().unwrap();
    for choosing in [
        DIGITS.replace("steps = 12", "steps = 12\npatience = 3"),
        DIGITS.replace("keep_best = 0", "keep_best = 2"),
        DIGITS.replace("steps = 12", "steps = 12\nvalidation_fraction = 0.25"),
    ] {
        let experiment = experiment(&choosing);
        let data = &experiment.data;
        let validation = data.validation.as_ref().unwrap();
        let expected = if choosing.contains("0.25") { 16 } else { 6 };
        assert_eq!((data.train.len(), validation.len()), (64 - expected, expected));
        assert_eq!(hashes(&data.test), hashes(&none.data.test));
        let mut both = [hashes(&data.train), hashes(validation)].concat();
        both.sort_unstable();
        assert_eq!(both, hashes(&none.data.train), "each train sample is in one of the two");
        // What is written down says the same again.
        let again = experiment.recipe.resolved().unwrap();
        let again = Recipe::parse("again.toml", &again, Path::new(".")).unwrap();
        assert_eq!(again.train, experiment.recipe.train);
        assert_eq!(again.checkpoint, experiment.recipe.checkpoint);
    }
    // Of a text the end, and nothing of it in a window of the train text.
    let text = experiment(&TEXT.replace("steps = 14", "steps = 14\npatience = 9"));
    let tokens = |part: &halfstep_data::Part| match part.samples() {
        halfstep_data::Samples::Text(text) => text.tokens().to_vec(),
        _ => panic!("no text"),
    };
    let (train, validation) = (tokens(&text.data.train), tokens(text.data.validation.as_ref().unwrap()));
    assert_eq!([train, validation].concat(), tokens(&experiment(TEXT).data.train));
}

/// The same run, judged by other test data, ends at the same step.
#[test]
fn test_data_end_no_run() {
    let engine = cpu();
    let recipe = DIGITS.replace("steps = 12", "steps = 60\npatience = 1");
    let ended = |limit: &str| {
        let experiment = experiment(&recipe.replace("limit_test = 20", limit));
        let folder = place();
        run_well(&experiment, &*engine, "fp32", &folder.path().join("run"), Stop::Never).losses
    };
    assert_eq!(ended("limit_test = 20"), ended("limit_test = 9"));
}

#[test]
fn a_run_that_no_longer_gets_better_ends_and_stays_ended() {
    let engine = cpu();
    // So low a rate that no weight changes: all evaluations are equal.
    let recipe = DIGITS
        .replace("[schedule]\nkind = \"cosine\"", "[optimiser]\nkind = \"sgd\"\nlr = 1e-30\nmomentum = 0.0")
        .replace("steps = 12", "steps = 100\npatience = 3");
    let experiment = experiment(&recipe);
    let folder = place();
    let path = folder.path().join("run");
    let ended = run_well(&experiment, &*engine, "fp32", &path, Stop::Never);
    assert_eq!((ended.outcome, ended.losses.len()), (Outcome::Finished, 16), "the first and three no better");
    let lines = log(&path);
    let part = run(&experiment, &*engine, "fp32", &path, Arc::new(Disk), Stop::Never);
    assert_eq!(part.began_at, 16);
    assert_eq!(part.result.unwrap().losses.len(), 16);
    assert_eq!(log(&path), lines);
}

#[test]
fn averages_are_saved_as_a_model_to_use() {
    let engine = cpu();
    let recipe = DIGITS.replace("[train]", "[train]\nema = 0.5");
    let experiment = experiment(&recipe);
    let folder = place();
    let path = folder.path().join("run");
    let ended = run_well(&experiment, &*engine, "fp32", &path, Stop::Never);
    let file = std::fs::read(RunDir::open(&path).unwrap().checkpoint("step-000012")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&file).unwrap();
    for (name, weight) in ended.bits.iter().filter(|(n, _)| n.starts_with("layers.")) {
        let words = file
            .tensor(name)
            .unwrap()
            .data()
            .chunks_exact(4)
            .map(|b| u32::from_le_bytes(b.try_into().unwrap()));
        let found: Vec<u32> = words.collect();
        assert_eq!(found, ended.bits[&format!("optimiser.average.{name}")]);
        assert_ne!(&found, weight);
    }
}

/// The latest checkpoint of a run in `path`, and the names and faults of those that are damaged.
fn latest(path: &Path) -> (Option<String>, Vec<(String, String)>) {
    let (latest, rejected) = Latest::find(&RunDir::resume(path).unwrap());
    (latest.map(|l| l.name), rejected.into_iter().map(|r| (r.name, r.reason)).collect())
}

#[test]
fn damage_is_found_and_the_checkpoint_before_is_used() {
    let engine = cpu();
    let experiment = experiment(DIGITS);
    let folder = place();
    let path = folder.path().join("run");
    let whole = run_well(&experiment, &*engine, "fp16", &path, Stop::Never);
    let (there, damaged) = latest(&path);
    assert_eq!((there.as_deref(), damaged.len()), (Some("step-000012"), 0));
    let checkpoint = path.join(CHECKPOINTS).join("step-000012");
    for name in [MODEL, OPTIMISER, STATE, PRECISION, MANIFEST] {
        let file = checkpoint.join(name);
        let good = std::fs::read(&file).unwrap();
        let mut flipped = good.clone();
        flipped[good.len() / 2] ^= 0x10;
        // The last byte of a JSON file is a line end, which nobody misses.
        for bad in [flipped, good[..good.len() - 2].to_vec(), Vec::new()] {
            std::fs::write(&file, bad).unwrap();
            let (there, damaged) = latest(&path);
            assert_eq!(there.as_deref(), Some("step-000008"), "{name}");
            assert_eq!(damaged[0].0, "step-000012");
            assert!(damaged[0].1.contains(name) || name == MANIFEST, "{name}: {}", damaged[0].1);
        }
        std::fs::remove_file(&file).unwrap();
        assert_eq!(latest(&path).0.as_deref(), Some("step-000008"), "{name}");
        std::fs::write(&file, &good).unwrap();
        assert_eq!(latest(&path).0.as_deref(), Some("step-000012"), "{name}");
    }
    // The run ends the same from the one before, and replaces the damaged one.
    std::fs::write(checkpoint.join(MODEL), b"rubbish").unwrap();
    let part = run(&experiment, &*engine, "fp16", &path, Arc::new(Disk), Stop::Never);
    assert_eq!((part.began_at, part.rejected.len()), (8, 1));
    assert!(part.result.unwrap().bits == whole.bits);
    assert_eq!(latest(&path).0.as_deref(), Some("step-000012"));
    // A log that was cut or changed does not fit the checkpoints made after the change.
    let metrics = path.join("metrics.jsonl");
    let lines = std::fs::read_to_string(&metrics).unwrap();
    let nine: String = lines.lines().take(10).map(|l| format!("{l}\n")).collect();
    std::fs::write(&metrics, nine).unwrap();
    let (there, damaged) = latest(&path);
    assert_eq!(there.as_deref(), Some("step-000008"));
    assert!(damaged[0].1.contains("metrics.jsonl"), "{}", damaged[0].1);
}

#[test]
fn a_checkpoint_of_something_else_is_refused() {
    let engine = cpu();
    let folder = place();
    let path = folder.path().join("run");
    run_well(&experiment(DIGITS), &*engine, "bf16", &path, Stop::After(5));
    for (recipe, policy, says) in [
        (DIGITS.to_string(), "fp16", "its precision was bf16, now it is fp16"),
        (DIGITS.replace("limit_train = 64", "limit_train = 65"), "bf16", "the fingerprint of its data"),
        (DIGITS.replace("steps = 12", "steps = 20"), "bf16", "its schedule"),
        (DIGITS.replace("[8]", "[9]"), "bf16", "does not fit the model"),
    ] {
        let result = run(&experiment(&recipe), &*engine, policy, &path, Arc::new(Disk), Stop::Never).result;
        let e = result.err().expect("refused").to_string();
        assert!(e.contains(says), "{e}");
    }
}

/// Every operation of a run on its files fails once, or is the last; the run that goes on ends with
/// the same bits.
#[test]
fn no_failing_disk_loses_a_run() {
    let engine = cpu();
    let experiment = experiment(DIGITS);
    let policy = "fp16";
    let folder = place();
    let undisturbed = FaultyDisk::new(Fault::None);
    let path = folder.path().join("undisturbed");
    let whole =
        run(&experiment, &*engine, policy, &path, Arc::new(undisturbed.clone()), Stop::Never).result.unwrap();
    let (operations, lines) = (undisturbed.operations(), log(&path));
    assert!(operations > 60, "{operations}");
    let states = [(true, true), (true, false), (false, true), (false, false)];
    let after = states.map(|(contents, names)| After { contents, names });
    let mut faults = vec![Fault::ShortWrites];
    for at in 0..operations {
        faults.extend([Fault::Once(at), Fault::Full(at)]);
        faults.extend(after.map(|after| Fault::Dies(at, after)));
        // Flushes of the whole run, or of its second half, were lies.
        faults.extend(after.map(|after| Fault::DiesAfterLies(0, at, after)));
        faults.extend(after.map(|after| Fault::DiesAfterLies(operations / 2, at, after)));
    }
    let mut damaged = 0;
    for (i, &fault) in faults.iter().enumerate() {
        let path = folder.path().join(i.to_string());
        let disk = FaultyDisk::new(fault);
        let part = run(&experiment, &*engine, policy, &path, Arc::new(disk.clone()), Stop::Never);
        if fault == Fault::ShortWrites {
            assert!(part.result.is_ok_and(|ended| ended.bits == whole.bits));
            continue;
        }
        disk.settle();
        // A good disk, but for flushing nothing: hundreds of runs would wait for it.
        let good = Arc::new(FaultyDisk::new(Fault::None));
        let next = run(&experiment, &*engine, policy, &path, good, Stop::Never);
        let ended = next.result.unwrap_or_else(|e| panic!("{fault:?}: {e}"));
        assert!(ended.bits == whole.bits, "{fault:?}: other bits");
        assert_eq!(log(&path), lines, "{fault:?}");
        if matches!(fault, Fault::DiesAfterLies(..)) {
            damaged += next.rejected.len();
        } else {
            // What was said to be on the disk is there, and nothing is there in part.
            assert!(next.began_at >= part.written, "{fault:?}: {} after {}", next.began_at, part.written);
            assert_eq!(next.rejected, [], "{fault:?}");
        }
        std::fs::remove_dir_all(&path).unwrap();
    }
    assert!(damaged > 0, "no lie did any harm: the test tests nothing");
}
