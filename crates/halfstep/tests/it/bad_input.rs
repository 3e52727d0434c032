//! Every kind of bad input gives a clear error and leaves nothing half-written.

use crate::common;
use crate::common::{Place, TINY, with_data};

/// Trains by a recipe that must be refused, and checks that nothing was written.
fn refused(place: &Place, recipe: &str, says: &[&str]) -> String {
    place.write("recipe.toml", recipe);
    let before = place.everything();
    let stderr = place.fails(2, &["train", "recipe.toml"]);
    // The report is wrapped: words are looked for, not spaces.
    let flat = stderr.replace(['│', '\n'], " ").split_whitespace().collect::<Vec<_>>().join(" ");
    for words in says {
        assert!(flat.contains(words), "`{words}` is not in: {flat}");
    }
    assert_eq!(place.everything(), before, "something was written");
    stderr
}

fn csv(place: &Place, rows: &str) -> String {
    place.write("table.csv", rows);
    with_data("kind = \"csv\"\npath = \"table.csv\"\ntarget = \"class\"")
}

/// A table of 40 rows with classes a and b; `cell` makes the first column.
fn rows(cell: impl Fn(usize) -> String) -> String {
    let row = |i: usize| format!("{},{},{}\n", cell(i), i % 7, if i.is_multiple_of(2) { "a" } else { "b" });
    "x,y,class\n".to_string() + &(0..40).map(row).collect::<String>()
}

#[test]
fn infinity_in_the_data() {
    let infinite = "not a finite number";
    for (bad, why) in [("inf", infinite), ("-Infinity", infinite), ("1e400", "greater than every f64 number")]
    {
        let place = Place::new();
        let recipe = csv(&place, &rows(|i| if i == 5 { bad.into() } else { format!("{i}.5") }));
        refused(&place, &recipe, &["table.csv", "line 7", "column `x`", bad, why]);
    }
}

#[test]
fn an_empty_data_set() {
    let place = Place::new();
    let recipe = csv(&place, "x,y,class\n");
    refused(&place, &recipe, &["table.csv", "no samples"]);
    let place = Place::new();
    place.write("empty.txt", "");
    let text = with_data("kind = \"text\"\npath = \"empty.txt\"")
        .replace("kind = \"mlp\"\nhidden = [16]", "kind = \"gpt\"");
    refused(&place, &text, &["no samples"]);
}

#[test]
fn a_batch_larger_than_the_data() {
    let place = Place::new();
    let stderr =
        refused(&place, &TINY.replace("batch = 32", "batch = 201"), &["batch of 201", "200 train samples"]);
    assert!(stderr.contains("batch = 201"), "the line is not shown: {stderr}");
}

/// IDX files of `n` images of 4×4 with these labels.
fn idx(place: &Place, labels: &[u8]) {
    let n = labels.len() as u32;
    let mut images = vec![0, 0, 8, 3];
    for size in [n, 4, 4] {
        images.extend(size.to_be_bytes());
    }
    images.extend((0..n * 16).map(|i| (i * 7 % 251) as u8));
    let mut file = vec![0, 0, 8, 1];
    file.extend(n.to_be_bytes());
    file.extend(labels);
    place.write("images.idx", images);
    place.write("labels.idx", file);
}

const IDX: &str = "kind = \"idx\"\nimages = \"images.idx\"\nlabels = \"labels.idx\"";

#[test]
fn a_class_index_out_of_range() {
    let place = Place::new();
    let labels: Vec<u8> = (0..60).map(|i| if i == 17 { 7 } else { i % 3 }).collect();
    idx(&place, &labels);
    let recipe = with_data(&format!("{IDX}\nclasses = [\"a\", \"b\", \"c\"]"));
    refused(&place, &recipe, &["labels.idx", "sample 17", "class index 7", "3 classes"]);
}

#[test]
fn a_truncated_idx_file() {
    let place = Place::new();
    idx(&place, &(0..60).map(|i| i % 3).collect::<Vec<u8>>());
    let bytes = std::fs::read(place.path("images.idx")).unwrap();
    place.write("images.idx", &bytes[..bytes.len() - 100]);
    refused(&place, &with_data(IDX), &["images.idx", "truncated", "976", "876"]);
}

#[test]
fn a_truncated_png() {
    let place = Place::new();
    for class in ["cats", "dogs"] {
        for i in 0..8u8 {
            let pixel = |x: u32, y: u32| [x as u8 * 30, y as u8 * 30, i * 30];
            place.picture(&format!("pets/{class}/{i}.png"), 8, 8, pixel);
        }
    }
    let bad = place.path("pets/dogs/3.png");
    let bytes = std::fs::read(&bad).unwrap();
    std::fs::write(&bad, &bytes[..bytes.len() / 2]).unwrap();
    let recipe = with_data("kind = \"images\"\npath = \"pets\"").replace("batch = 32", "batch = 4");
    refused(&place, &recipe, &["3.png", "truncated"]);
}

#[test]
fn a_missing_file_points_at_its_line() {
    let place = Place::new();
    place.write("table.csv", rows(|i| i.to_string()));
    let recipe = with_data("kind = \"csv\"\npath = \"tabel.csv\"\ntarget = \"class\"");
    let stderr = refused(&place, &recipe, &["no such file", "did you mean `table.csv`?"]);
    assert!(stderr.contains("path = \"tabel.csv\""), "{stderr}");
}

#[test]
fn a_run_directory_that_cannot_be_written() {
    let place = Place::new();
    place.write("recipe.toml", TINY);
    // A file where the folder should be: refused to root too.
    place.write("runs", "a file");
    let before = place.everything();
    let stderr = place.fails(1, &["train", "recipe.toml"]);
    assert!(stderr.contains("runs") && stderr.contains("cannot be written"), "{stderr}");
    assert_eq!(place.everything(), before);
    let stderr = place.fails(3, &["compare", "recipe.toml", "--out", "runs/here"]);
    assert!(stderr.contains("cannot be written"), "{stderr}");
    assert_eq!(place.everything(), before);
}

#[cfg(unix)]
#[test]
fn a_folder_without_permission() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new();
    place.write("recipe.toml", TINY);
    let locked = place.path("locked");
    std::fs::create_dir(&locked).unwrap();
    std::fs::set_permissions(&locked, std::fs::Permissions::from_mode(0o555)).unwrap();
    if std::fs::write(locked.join("probe"), "").is_ok() {
        eprintln!("skipped: this user may write anywhere, so permissions cannot be tested");
        std::fs::remove_file(locked.join("probe")).unwrap();
        return;
    }
    let stderr = place.fails(1, &["train", "recipe.toml", "--out", "locked/run"]);
    assert!(stderr.contains("choose a folder you may write to"), "{stderr}");
}

/// Every file of an interrupted run is whole.
fn whole(place: &Place, run: &str) {
    for name in place.everything().iter().filter(|n| n.starts_with(run)) {
        assert!(!name.contains(".halfstep-"), "a temporary file is left: {name}");
        let path = place.path(name);
        if !path.is_file() {
            continue;
        }
        let bytes = std::fs::read(&path).unwrap();
        if name.ends_with(".json") {
            serde_json::from_slice::<serde_json::Value>(&bytes).unwrap_or_else(|e| panic!("{name}: {e}"));
        } else if name.ends_with(".jsonl") {
            for line in String::from_utf8(bytes).unwrap().lines() {
                serde_json::from_str::<serde_json::Value>(line)
                    .unwrap_or_else(|e| panic!("{name}: {e}: {line}"));
            }
        } else if name.ends_with(".safetensors") {
            safetensors::SafeTensors::deserialize(&bytes).unwrap_or_else(|e| panic!("{name}: {e}"));
        }
    }
}

/// A limit on the size of files stands in for a full disk: writes fail part of the way, for root
/// too.
#[cfg(target_os = "linux")]
#[test]
fn a_disk_that_fills_up() {
    // In blocks of 512 bytes: nothing fits; the plan does not; the metrics fill up on the way.
    let mut stages = std::collections::BTreeSet::new();
    for blocks in [0, 1, 40, 4000] {
        let place = Place::new();
        // Long enough that metrics outgrow every limit but the last.
        place.write("recipe.toml", TINY.replace("epochs = 2", "epochs = 60"));
        let binary = env!("CARGO_BIN_EXE_halfstep");
        let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec {binary} train recipe.toml --out run");
        let output = std::process::Command::new("sh")
            .args(["-c", &script])
            .current_dir(place.folder.path())
            .output()
            .unwrap();
        let text = common::both(&output);
        assert!(!text.contains("panicked"), "{text}");
        whole(&place, "run");
        if blocks == 4000 {
            assert!(output.status.success(), "{text}");
            continue;
        }
        assert_eq!(output.status.code(), Some(1), "{blocks}: {text}");
        assert!(text.contains("cannot be written"), "{blocks}: {text}");
        let stage = ["recipe.toml", "plan.json", "metrics.jsonl", "safetensors"].into_iter().find(|f| {
            let line = text.replace(['│', '\n'], " ").replace("  ", "");
            line.split("cannot be written").next().unwrap_or_default().contains(&format!("run/{f}"))
        });
        stages.insert(format!("{stage:?}"));
    }
    assert!(stages.len() >= 2, "all limits stopped the run at one place: {stages:?}");
}

/// A small real file system that is full.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk() {
    let place = Place::new();
    place.write("recipe.toml", TINY);
    let disk = place.path("disk");
    std::fs::create_dir(&disk).unwrap();
    let mount = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=16k", "tmpfs"])
        .arg(&disk)
        .output();
    if !mount.is_ok_and(|o| o.status.success()) {
        eprintln!(
            "skipped: no small file system can be mounted here; `a_disk_that_fills_up` covers the handling"
        );
        return;
    }
    let output = place.run(&["train", "recipe.toml", "--out", "disk/run"]);
    let check = std::panic::catch_unwind(|| {
        let text = common::both(&output);
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains("free some space"), "{text}");
        whole(&place, "disk/run");
    });
    std::process::Command::new("umount").arg(&disk).status().unwrap();
    check.unwrap();
}

#[test]
fn recipes_may_have_any_name() {
    let place = Place::new();
    let recipe = TINY.replace("name = \"tiny\"\n", "").replace("epochs = 2", "steps = 2");
    for (file, run) in [
        ("my data.toml", "my-data"),
        ("日本.toml", "日本"),
        ("öl.toml", "öl"),
        ("it's.toml", "it-s"),
        ("a(1).toml", "a-1"),
        (".hid.toml", "hid"),
        ("Überblick, 2. Teil.toml", "Überblick--2.-Teil"),
    ] {
        place.write(file, &recipe);
        let said = place.ok(&["train", file]);
        assert!(said.contains(&format!("runs/{run}-1")), "{file}: {said}");
        // The resolved recipe says the same name.
        let again = place.ok(&["train", file, "--resume"]);
        assert!(again.contains(&format!("Resuming runs/{run}-1")), "{file}: {again}");
        place.ok(&["eval", &format!("runs/{run}-1")]);
    }
    let arm = |name: &str| {
        format!("[[ablation]]\nname = \"{name}\"\n[ablation.model]\nkind = \"mlp\"\nhidden = [4]\n")
    };
    place.write("arms.toml", recipe.clone() + &arm("größer als") + &arm("2 × 2"));
    place.compare(&["arms.toml", "--seeds", "1", "--out", "arms"]);
    assert!(place.path("arms/größer-als/report.html").is_file() || place.path("arms/größer-als").is_dir());
    place.write("twice.toml", recipe + &arm("a b") + &arm("a-b"));
    assert!(place.fails(3, &["compare", "twice.toml"]).contains("two arms are named"));
}

#[test]
fn a_cache_that_cannot_be_written_is_done_without() {
    let place = Place::new();
    place.write("recipe.toml", TINY);
    place.write("file", "no folder");
    let (code, expected) = place.compare_json(&["recipe.toml", "--out", "plain"]);
    for (variable, value) in
        [("HALFSTEP_CACHE", "/proc/no/such"), ("HOME", "/proc"), ("XDG_CACHE_HOME", "file")]
    {
        let mut command = place.command(&["compare", "recipe.toml", "--json", "--out", variable]);
        command.env_remove("HALFSTEP_CACHE").env_remove("XDG_CACHE_HOME");
        let value = if value == "file" { place.path(value).display().to_string() } else { value.into() };
        let output = command.env(variable, value).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{variable}: {said}");
        assert_eq!(said.matches("the cache is done without").count(), 1, "{variable}: {said}");
        let result: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(result["verdict"], expected["verdict"]);
        let left = std::fs::read_dir(place.path(variable)).unwrap();
        assert!(left.flatten().all(|e| e.file_name() != ".runs"), "what was made for the moment is removed");
    }
}

/// A cache on a file system that fills up while runs are made.
#[cfg(target_os = "linux")]
#[test]
fn a_cache_that_fills_up_is_done_without() {
    let place = Place::new();
    place.write("recipe.toml", TINY);
    let disk = place.path("disk");
    std::fs::create_dir(&disk).unwrap();
    let mount = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"])
        .arg(&disk)
        .output();
    if !mount.is_ok_and(|o| o.status.success()) {
        eprintln!("skipped: no small file system can be mounted here");
        return;
    }
    let mut command = place.command(&["compare", "recipe.toml", "--out", "run"]);
    let output = command.env("HALFSTEP_CACHE", &disk).output().unwrap();
    std::process::Command::new("umount").arg(&disk).status().unwrap();
    let text = common::both(&output);
    assert!((0..=2).contains(&output.status.code().unwrap()), "{text}");
    assert!(text.contains("disk/runs/") && text.contains("the cache is done without"), "{text}");
    assert!(place.path("run/report.html").is_file());
}

#[test]
fn commands_without_a_recipe_name_those_that_are_there() {
    let place = Place::new();
    let said = |command: &str| place.fails(2, &[command]);
    assert!(said("train").contains("halfstep new PATH"));
    place.write("my data.toml", TINY);
    place.write("other.toml", "[package]\n");
    for command in ["train", "lint"] {
        let text = said(command);
        assert!(text.contains("needs a recipe"), "{text}");
        assert!(text.contains(&format!("halfstep {command} 'my data.toml'")), "{text}");
    }
    place.write("b.toml", TINY);
    assert!(said("train").contains("there are 2 in this folder: b.toml, 'my data.toml'"));
}

#[test]
fn a_negative_number_is_the_value_of_its_option() {
    let place = Place::new();
    let stderr = place.fails(2, &["generate", "run", "--temperature", "-1"]);
    assert!(stderr.contains("a temperature of -1 is not possible"), "{stderr}");
    let stderr = place.fails(2, &["train", "recipe.toml", "--seed", "-3"]);
    assert!(stderr.contains("invalid value '-3' for '--seed"), "{stderr}");
    let stderr = place.fails(2, &["train", "recipe.toml", "--max-time", "0s"]);
    assert!(stderr.contains("in `0s` nothing can be done"), "{stderr}");
}

#[test]
fn names_that_do_not_exist() {
    let place = Place::new();
    let stderr = place.fails(3, &["compare", "--precisions", "fp32,bf61"]);
    assert!(
        stderr.contains("there is no precision `bf61`") && stderr.contains("did you mean `bf16`?"),
        "{stderr}"
    );
    let stderr = place.fails(2, &["train", "recipe.tml"]);
    assert!(stderr.contains("no such file"), "{stderr}");
    let mut command = place.command(&["info"]);
    let output = command.env("HALFSTEP_ISA", "sse9").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("expected one of portable"),
        "{}",
        common::both(&output)
    );
    let stderr = place.fails(1, &["predict", ".", "x.png"]);
    assert!(stderr.contains("not a run directory"), "{stderr}");
    let stderr = place.fails(2, &["info", "--threads", "100000"]);
    assert!(stderr.contains("100000 threads are too many"), "{stderr}");
    let stderr = place.fails(2, &["info", "--device", "tpu"]);
    let known = "there is no device `tpu`; there are: auto, cpu, cuda, cuda:N, the UUID of a GPU, and,";
    assert!(stderr.contains(known), "{stderr}");
    let stderr = place.fails(3, &["compare", "--device", "tpu"]);
    assert!(stderr.contains("there is no device `tpu`"), "{stderr}");
    let stderr = place.fails(2, &["bench", "gemm", "--m", "9999999", "--n", "9999999"]);
    assert!(stderr.contains("choose smaller sizes") || stderr.contains("give smaller sizes"), "{stderr}");
    let stderr = place.fails(2, &["bench", "step", "--model", "mlp", "--heads", "3"]);
    assert!(stderr.contains("--heads means nothing for mlp"), "{stderr}");
}

#[test]
fn a_model_larger_than_memory() {
    let place = Place::new();
    let recipe = TINY.replace("hidden = [16]", "hidden = [16000000, 16000000]");
    refused(&place, &recipe, &["training this model needs", "choose smaller sizes"]);
}

#[test]
fn a_run_that_diverges_says_what_is_known() {
    let place = Place::new();
    // The first step throws the weights so far that no product of them is finite.
    let recipe = TINY
        .replace("[train]", "[optimiser]\nkind = \"sgd\"\nlr = 1e30\n[train]")
        .replace("epochs = 2", "epochs = 20");
    place.write("recipe.toml", recipe);
    let stderr = place.fails(1, &["train", "recipe.toml", "--precision", "fp32", "--out", "run"]);
    let flat = stderr.replace(['│', '\n'], " ").split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(flat.contains("the run has diverged") && flat.contains("policy fp32"), "{flat}");
    assert!(flat.contains("lower the learning rate"), "{flat}");
    whole(&place, "run");
    // In a comparison it is a result, not a failure.
    let (code, output) = place.compare(&["recipe.toml", "--seeds", "1", "--out", "compared"]);
    let flat = output.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(code == 2 && flat.contains("how often a run diverges. 1 of 1 did"), "{output}");
}
