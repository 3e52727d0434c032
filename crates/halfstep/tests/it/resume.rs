//! Runs that end before their end, and go on: killed, stopped, out of time, out of disk, or
//! disturbed by another.

#![cfg(target_os = "linux")]

use std::collections::BTreeMap;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::common::{Place, TINY, both};
use serde_json::Value;

/// Short steps and many checkpoints, so that a kill may come at any moment of either.
const LONG: &str = r#"
name = "long"
[data]
kind = "bundled"
name = "digits"
limit_train = 200
limit_test = 50
[model]
kind = "mlp"
hidden = [16]
[schedule]
kind = "cosine"
[train]
steps = 3000
batch = 32
evaluate_every = 500
[checkpoint]
every = 20
[precision]
policy = "fp16"
loss_scale = { kind = "dynamic", init = 16777216.0, interval = 50 }
"#;

/// What a run must leave, however it came about: the log less its times, and the bits of its model
/// and last checkpoint.
fn left(place: &Place, run: &str) -> (Vec<Value>, BTreeMap<String, Vec<u8>>) {
    let text = std::fs::read_to_string(place.path(&format!("{run}/metrics.jsonl"))).unwrap();
    let line = |line: &str| {
        let mut value: Value = serde_json::from_str(line).unwrap();
        for time in ["ms", "time"] {
            value.as_object_mut().unwrap().remove(time);
        }
        value
    };
    let file = |name: &str| {
        let path = place.path(&format!("{run}/checkpoints/{name}.safetensors"));
        (name.to_string(), std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())))
    };
    let last = std::fs::read_dir(place.path(&format!("{run}/checkpoints"))).unwrap();
    let last = last.map(|e| e.unwrap().file_name().into_string().unwrap()).filter(|n| n.starts_with("step-"));
    let last = last.max().unwrap();
    let files = ["final", &format!("{last}/model"), &format!("{last}/optimiser")].map(file);
    (text.lines().map(line).collect(), BTreeMap::from(files))
}

fn start(place: &Place, args: &[&str]) -> Child {
    place.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn signal(child: &Child, name: &str) {
    let sent = std::process::Command::new("kill").args([name, &child.id().to_string()]).status();
    assert!(sent.unwrap().success());
}

/// Waits until `there` says so.
fn wait_for(what: &str, there: impl Fn() -> bool) {
    let begun = Instant::now();
    while !there() {
        assert!(begun.elapsed().as_secs() < 120, "no {what} after two minutes");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn fifty_kills_change_nothing() {
    let place = Place::new();
    place.write("recipe.toml", LONG);
    let begun = Instant::now();
    place.ok(&["train", "recipe.toml", "--out", "undisturbed"]);
    // Several kills a run, however fast the machine is.
    let span = begun.elapsed().as_secs_f64() / 6.0;
    let expected = left(&place, "undisturbed");
    let (mut kills, mut run, mut begun_late, mut unfinished) = (0, 0, 0, 0);
    // Moments spread from process start over many checkpoints: the fractional parts of multiples of
    // the golden ratio.
    let mut moment: f64 = 0.5;
    let args = |out: &str| ["train", "recipe.toml", "--resume", "--out", out].map(String::from);
    while kills < 50 {
        let out = format!("run-{run}");
        let words = args(&out);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let mut child = start(&place, &words);
        moment = (moment + 0.618_033_988_749_895).fract();
        std::thread::sleep(Duration::from_secs_f64(span * moment));
        child.kill().unwrap();
        let output = child.wait_with_output().unwrap();
        let checkpoints = place.path(&format!("{out}/checkpoints"));
        let names = std::fs::read_dir(&checkpoints).into_iter().flatten().map(|e| e.unwrap().file_name());
        unfinished += usize::from(names.into_iter().any(|n| n.to_string_lossy().starts_with(".halfstep-")));
        if output.status.success() {
            // It had ended already: it must be right, and there is another one to kill.
            assert!(left(&place, &out) == expected, "{out} ended otherwise");
            run += 1;
            continue;
        }
        assert_eq!(output.status.code(), None, "it failed instead of being killed: {}", both(&output));
        assert!(!String::from_utf8_lossy(&output.stderr).contains("warning"), "{}", both(&output));
        begun_late += usize::from(String::from_utf8_lossy(&output.stdout).contains("from its checkpoint"));
        kills += 1;
    }
    place.ok(&args(&format!("run-{run}")).each_ref().map(String::as_str));
    assert!(left(&place, &format!("run-{run}")) == expected, "the run ended otherwise");
    eprintln!(
        "{begun_late} of {kills} killed parts had gone on from a checkpoint, {unfinished} left one unfinished"
    );
    assert!(
        begun_late >= 10 && unfinished >= 1,
        "the moments miss what is to be tested: {begun_late}, {unfinished}"
    );
}

#[test]
fn a_stopped_run_goes_on_as_if_never_stopped() {
    for policy in ["fp32", "bf16", "fp16"] {
        let place = Place::new();
        let recipe = LONG.replace("every = 20", "every = 500").replace("steps = 3000", "steps = 8000");
        place.write("recipe.toml", recipe.replace("fp16", policy));
        place.ok(&["train", "recipe.toml", "--out", "straight"]);
        // By the signal of schedulers.
        let child = start(&place, &["train", "recipe.toml", "--out", "run"]);
        let log = place.path("run/metrics.jsonl");
        wait_for("step", || std::fs::metadata(&log).is_ok_and(|m| m.len() > 10_000));
        signal(&child, "-TERM");
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(130), "{}", both(&output));
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(
            said.contains("Stopped after step") && said.contains("`halfstep train --resume run`"),
            "{said}"
        );
        // By the clock.
        let output = place.run(&["train", "--resume", "run", "--max-time", "0.05s"]);
        assert_eq!(output.status.code(), Some(75), "{}", both(&output));
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.contains("--max-time") && said.contains("`halfstep train --resume run`"), "{said}");
        place.ok(&["eval", "run"]);
        // With another number of threads, to the end.
        let end = place.json(&["train", "--resume", "run", "--threads", "1", "--json"]);
        assert_eq!((&end["steps"], &end["outcome"]["kind"]), (&Value::from(8000), &Value::from("finished")));
        assert!(end["resumed_from"].as_u64().unwrap() > 0);
        assert!(left(&place, "run") == left(&place, "straight"), "{policy}");
        // A run that has ended has nothing left to do.
        place.ok(&["train", "--resume", "run"]);
        assert!(left(&place, "run") == left(&place, "straight"), "{policy}");
    }
}

/// Resident memory of a process in bytes.
fn resident(child: &Child) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{}/status", child.id())).ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()? * 1024)
}

#[test]
fn ten_thousand_steps_take_no_more_memory_than_two_thousand() {
    let place = Place::new();
    place.write(
        "recipe.toml",
        LONG.replace("steps = 3000", "steps = 100000").replace("every = 20", "every = 200"),
    );
    let mut child = start(&place, &["train", "recipe.toml", "--out", "run"]);
    let log = place.path("run/metrics.jsonl");
    // A line of the log has about 150 bytes; exact counts do not matter here.
    let at = |steps: u64| {
        wait_for("progress", || std::fs::metadata(&log).is_ok_and(|m| m.len() > steps * 150));
        resident(&child).unwrap()
    };
    let (early, late) = (at(2_000), at(10_000));
    child.kill().unwrap();
    child.wait().unwrap();
    // Losses and times that are kept take 8 bytes a step; a vector that grows is there twice for a
    // moment.
    let kept = 8_000 * 8 * 3;
    // And the allocator's slack: a leak of 100 bytes a step would show.
    assert!(late <= early + kept + 512 * 1024, "{early} bytes became {late}");
}

#[test]
fn two_runs_cannot_share_a_directory() {
    let place = Place::new();
    place.write("recipe.toml", LONG.replace("steps = 3000", "steps = 1000000"));
    let mut child = start(&place, &["train", "recipe.toml", "--out", "run"]);
    let checkpoints = place.path("run/checkpoints");
    let is_one =
        |e: std::io::Result<std::fs::DirEntry>| e.unwrap().file_name().to_string_lossy().starts_with("step-");
    wait_for("checkpoint", || std::fs::read_dir(&checkpoints).is_ok_and(|mut d| d.any(is_one)));
    for args in [&["train", "--resume", "run"][..], &["train", "recipe.toml", "--resume", "--out", "run"]] {
        let stderr = place.fails(1, args);
        assert!(stderr.contains("another run is writing to this directory"), "{stderr}");
    }
    place.fails(1, &["train", "recipe.toml", "--out", "run"]);
    child.kill().unwrap();
    child.wait().unwrap();
    // The lock went with the process.
    place.ok(&["eval", "run"]);
    assert_eq!(place.run(&["train", "--resume", "run", "--max-time", "0.1"]).status.code(), Some(75));
}

#[test]
fn a_damaged_checkpoint_is_named_and_the_one_before_is_used() {
    let place = Place::new();
    place.write("recipe.toml", format!("{TINY}[checkpoint]\nevery = 4\n"));
    place.ok(&["train", "recipe.toml", "--out", "run"]);
    let expected = left(&place, "run");
    let file = place.path("run/checkpoints/step-000012/optimiser.safetensors");
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let output = place.run(&["train", "--resume", "run"]);
    assert!(output.status.success(), "{}", both(&output));
    let said = both(&output);
    assert!(said.contains("step-000012 cannot be used: `optimiser.safetensors` has changed"), "{said}");
    assert!(said.contains("from its checkpoint step-000008"), "{said}");
    assert!(left(&place, "run") == expected);
    // The weights of a checkpoint are verified before they are used, too.
    let file = place.path("run/checkpoints/step-000008/model.safetensors");
    let mut bytes = std::fs::read(&file).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 0x80;
    std::fs::write(&file, bytes).unwrap();
    let stderr = place.fails(1, &["eval", "run", "--checkpoint", "step-000008"]);
    assert!(stderr.contains("damaged") && stderr.contains("choose another checkpoint"), "{stderr}");
    place.ok(&["eval", "run", "--checkpoint", "step-000012"]);
}

#[test]
fn what_cannot_be_resumed_is_refused() {
    let place = Place::new();
    place.write("recipe.toml", TINY);
    place.ok(&["train", "recipe.toml", "--out", "run"]);
    let before = left(&place, "run");
    place.write("other.toml", TINY.replace("epochs = 2", "epochs = 1"));
    let stderr = place.fails(2, &["train", "other.toml", "--resume", "run"]);
    assert!(stderr.contains("`epochs = 2` is now `epochs = 1`") && stderr.contains("--from"), "{stderr}");
    let stderr = place.fails(2, &["train", "--resume", "run", "--precision", "fp32"]);
    assert!(stderr.contains("another recipe"), "{stderr}");
    let stderr = place.fails(2, &["train", "--resume", "nowhere"]);
    assert!(stderr.contains("no such run"), "{stderr}");
    let stderr = place.fails(2, &["train", "--resume"]);
    assert!(stderr.contains("--resume names no run"), "{stderr}");
    let stderr = place.fails(2, &["train", "recipe.toml", "--max-time", "soon"]);
    assert!(stderr.contains("write 90s"), "{stderr}");
    place.ok(&["compare", "recipe.toml", "--precisions", "fp32", "--seeds", "1", "--out", "compared"]);
    let stderr = place.fails(2, &["train", "--resume", "compared"]);
    assert!(stderr.contains("not a run of `halfstep train`"), "{stderr}");
    assert!(left(&place, "run") == before);
    // Without a run to resume, one is begun; the next time that one is resumed.
    place.ok(&["train", "recipe.toml", "--resume"]);
    place.ok(&["train", "recipe.toml", "--resume"]);
    let runs =
        place.everything().into_iter().filter(|n| n.starts_with("runs/tiny-") && n.ends_with("recipe.toml"));
    assert_eq!(runs.collect::<Vec<_>>(), ["runs/tiny-1/recipe.toml"]);
}

/// A limit on the size of files stands in for a disk that is full for large files only: the log
/// goes on, checkpoints fail.
#[test]
fn training_outlives_a_checkpoint_that_cannot_be_written() {
    let place = Place::new();
    place.write(
        "recipe.toml",
        TINY.replace("[16]", "[1024]").replace("batch = 32", "batch = 32\nevaluate_every = 4"),
    );
    let script = |blocks: u32, args: &str| {
        let binary = env!("CARGO_BIN_EXE_halfstep");
        let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec {binary} train {args}");
        std::process::Command::new("sh")
            .args(["-c", &script])
            .current_dir(place.folder.path())
            .output()
            .unwrap()
    };
    // 300 kB of weights do not fit in 200 blocks of 512 bytes.
    let output = script(200, "recipe.toml --out run");
    let said = both(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("warning") && said.contains("training goes on") && !said.contains("panicked"),
        "{said}"
    );
    let log = std::fs::read_to_string(place.path("run/metrics.jsonl")).unwrap();
    assert_eq!(log.lines().filter(|l| l.contains("\"step\"")).count(), 12, "all steps were done");
    let files = place.everything();
    assert!(!files.iter().any(|f| f.contains(".halfstep-") || f.contains("step-0")), "{files:?}");
    // With room, the same run is done from the start.
    assert!(script(1_000_000, "--resume run").status.success());
    place.ok(&["train", "recipe.toml", "--out", "straight"]);
    assert!(left(&place, "run") == left(&place, "straight"));
}

/// With a constant rate, twelve steps and then twelve more are the first 24 steps of a longer run.
#[test]
fn a_finished_run_is_trained_longer_where_the_schedule_allows_it() {
    let place = Place::new();
    let warm = TINY.replace("[train]", "[schedule]\nkind = \"constant\"\nwarmup = 5\n[train]\nema = 0.9");
    place.write("short.toml", &warm);
    // The name of a recipe is that of its file, and decides nothing of a run.
    let longer = warm.replace("epochs = 2", "epochs = 4").replace("name = \"tiny\"\n", "");
    place.write("longer.toml", &longer);
    place.ok(&["train", "short.toml", "--out", "run"]);
    place.ok(&["train", "longer.toml", "--resume", "--out", "run"]);
    place.ok(&["train", "longer.toml", "--out", "straight"]);
    let model =
        |run: &str| std::fs::read(place.path(&format!("{run}/checkpoints/final.safetensors"))).unwrap();
    assert!(model("run") == model("straight"), "the longer run is another");
    // From then on it is the longer run.
    place.ok(&["train", "--resume", "run"]);
    assert!(model("run") == model("straight"));
    let stderr = place.fails(2, &["train", "short.toml", "--resume", "run"]);
    assert!(stderr.contains("`epochs = 4` is now `epochs = 2`"), "{stderr}");

    // In place, without a path: the latest run of the recipe goes on.
    place.ok(&["train", "short.toml"]);
    place.write("short.toml", warm.replace("epochs = 2", "epochs = 3"));
    place.ok(&["train", "short.toml", "--resume"]);
    assert!(!place.path("runs/tiny-2").exists());

    let cosine = |epochs: &str| warm.replace("constant", "cosine").replace("epochs = 2", epochs);
    place.write("cosine.toml", cosine("epochs = 2"));
    place.ok(&["train", "cosine.toml", "--out", "falls"]);
    place.write("cosine.toml", cosine("epochs = 4"));
    let stderr = place.fails(2, &["train", "cosine.toml", "--resume", "falls"]);
    let flat = stderr.replace(['│', '\n'], " ").split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(flat.contains("\"cosine\"") && flat.contains("`halfstep train RECIPE --from falls`"), "{flat}");
    place.ok(&["train", "cosine.toml", "--from", "falls", "--out", "anew"]);
}

#[test]
fn a_flipped_bit_of_the_final_model_is_refused_wherever_it_is() {
    let place = Place::new();
    place.write("recipe.toml", TINY);
    place.ok(&["train", "recipe.toml", "--out", "run"]);
    let file = place.path("run/checkpoints/final.safetensors");
    let bytes = std::fs::read(&file).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let seal = bytes.windows(6).position(|w| w == b"sha256").unwrap();
    let weight = |from_end: usize| bytes.len() - from_end;
    for (at, bit) in [
        (0, 0),
        (9, 3),
        (seal, 1),
        (seal + 20, 0),
        (header + 7, 1),
        (header + 8, 0),
        (weight(1), 7),
        (weight(400), 2),
    ] {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << bit;
        std::fs::write(&file, flipped).unwrap();
        for command in [&["eval", "run"][..], &["train", "recipe.toml", "--from", "run", "--out", "next"]] {
            let output = place.run(command);
            let code = output.status.code().unwrap();
            assert!(code == 1 || code == 2, "bit {bit} of byte {at}: {}", both(&output));
            let said = both(&output).replace(['│', '\n', ' '], "");
            assert!(said.contains("final.safetensors"), "bit {bit} of byte {at}: {said}");
            assert!(!place.path("next/recipe.toml").exists());
        }
    }
    std::fs::write(&file, bytes).unwrap();
    place.ok(&["eval", "run"]);
}

#[test]
fn a_run_that_ends_in_what_is_no_number_does_not_end_well() {
    let place = Place::new();
    for (name, rate) in [("huge", "1e38"), ("large", "1e30")] {
        let rate = format!("[optimiser]\nkind = \"sgd\"\nlr = {rate}\n[precision]\npolicy = \"fp32\"\n");
        place.write("recipe.toml", TINY.replace("epochs = 2", "steps = 6") + &rate);
        let stderr = place.fails(1, &["train", "recipe.toml", "--out", name]);
        assert!(stderr.contains("the run has diverged"), "{stderr}");
    }
    for wrong in ["lr = 1e39", "lr = 1e-50", "lr = 1e38\nweight_decay = 1e39"] {
        place.write("recipe.toml", TINY.to_string() + "[optimiser]\nkind = \"sgd\"\n" + wrong + "\n");
        let stderr = place.fails(2, &["train", "recipe.toml", "--out", "none"]);
        assert!(stderr.contains("3.4e38") && !place.path("none").exists(), "{stderr}");
    }
}

#[test]
fn a_warm_up_longer_than_the_run_says_what_to_change() {
    let place = Place::new();
    let recipe = TINY.replace("[train]", "[schedule]\nkind = \"cosine\"\nwarmup = 100\n[train]");
    place.write("recipe.toml", recipe.replace("epochs = 2", "steps = 40"));
    let stderr = place.fails(2, &["train", "recipe.toml"]);
    assert!(
        stderr.contains("the run has 40 steps: lower `warmup`") && stderr.contains("`steps`"),
        "{stderr}"
    );
}
