//! Output that cannot be written: the work goes on, the exit code stays true, nothing panics.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Output, Stdio};

use crate::common::{Place, TINY, both};

/// A device that takes nothing.
fn full() -> Stdio {
    Stdio::from(File::options().write(true).open("/dev/full").unwrap())
}

/// Runs it with a stdout that its reader closes at once.
fn closed(command: &mut Command) -> Output {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    child.wait_with_output().unwrap()
}

fn onto_full(command: &mut Command) -> Output {
    command.stdout(full()).stderr(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Four pairs of files of 600 samples in two classes; the candidate named `bad` answers every third
/// sample wrong.
fn logits(place: &Place) {
    let write = |name: &str, seed: u64, wrong: usize| {
        let n = 600usize;
        let mut x: Vec<u8> = Vec::new();
        for i in 0..n {
            let is_wrong = wrong > 0 && (i + seed as usize).is_multiple_of(wrong);
            let answer = if is_wrong { 1 - i % 2 } else { i % 2 };
            // Seeds differ in how sure they are: equal files are refused.
            let sure = 3.0 + 0.01 * ((i * 31 + seed as usize * 17) % 13) as f32;
            x.extend((0..2).flat_map(|k| (if k == answer { sure } else { 0.0 }).to_le_bytes()));
        }
        let labels: Vec<u8> = (0..n).flat_map(|i| ((i % 2) as i64).to_le_bytes()).collect();
        use safetensors::{Dtype, tensor::TensorView};
        let tensors = [
            ("logits", TensorView::new(Dtype::F32, vec![n, 2], &x).unwrap()),
            ("labels", TensorView::new(Dtype::I64, vec![n], &labels).unwrap()),
        ];
        let metadata = std::collections::HashMap::from([("seed".to_string(), seed.to_string())]);
        place.write(
            &format!("{name}{seed}.safetensors"),
            safetensors::serialize(tensors, Some(metadata)).unwrap(),
        );
    };
    for seed in 0..4 {
        write("good", seed, 0);
        write("same", seed, 0);
        write("bad", seed, 3);
    }
}

fn verdict(place: &Place, candidate: &str, more: &[&str]) -> Command {
    let files = |name: &str| (0..4).map(|i| format!("{name}{i}.safetensors")).collect::<Vec<_>>();
    let mut command = place.command(&["verdict", "--baseline"]);
    command.args(files("good")).arg("--candidate").args(files(candidate)).args(more);
    command
}

#[test]
fn a_verdict_that_cannot_be_printed_never_passes() {
    let place = Place::new();
    logits(&place);
    for more in [&[][..], &["--json"]] {
        let plain = verdict(&place, "bad", more).output().unwrap();
        assert_eq!(plain.status.code(), Some(1), "{}", both(&plain));
        let output = onto_full(&mut verdict(&place, "bad", more));
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        assert_eq!(said(&output).matches("stdout cannot be written").count(), 1, "{}", said(&output));
        let output = closed(&mut verdict(&place, "bad", more));
        assert_eq!((output.status.code(), said(&output).as_str()), (Some(1), ""), "quiet, and still a fail");
        // What needs no judging is not passed where nobody can read it.
        let plain = verdict(&place, "same", more).output().unwrap();
        let code = plain.status.code().unwrap();
        assert!(code == 0 || code == 2, "{}", both(&plain));
        let output = onto_full(&mut verdict(&place, "same", more));
        assert_eq!(output.status.code(), Some(if code == 0 { 3 } else { code }));
        let output = closed(&mut verdict(&place, "same", more));
        assert_eq!((output.status.code(), said(&output).as_str()), (Some(code), ""));
    }
}

#[test]
fn other_commands_say_and_tell_by_their_code() {
    let place = Place::new();
    place.write("recipe.toml", TINY);
    for args in [
        &["--help"][..],
        &["--version"],
        &["train", "--help"],
        &["info"],
        &["info", "--json"],
        &["numbers", "0.1"],
        &["cache"],
        &["explain", "recipe.toml"],
        &["plan", "recipe.toml"],
    ] {
        let output = onto_full(&mut place.command(args));
        assert_eq!(output.status.code(), Some(1), "{args:?}: {}", said(&output));
        assert!(said(&output).contains("stdout cannot be written"), "{args:?}: {}", said(&output));
        let output = closed(&mut place.command(args));
        assert_eq!((output.status.code(), said(&output).as_str()), (Some(0), ""), "{args:?}");
    }
    let output = onto_full(&mut place.command(&["verdict", "--help"]));
    assert_eq!(output.status.code(), Some(3), "1 would be a verdict");
}

/// Trains with `change`d output; the run must be whole.
fn trains_to_its_end(change: impl FnOnce(&mut Command) -> Child) -> Output {
    let place = Place::new();
    place.write("recipe.toml", TINY.replace("epochs = 2", "steps = 60\nevaluate_every = 10"));
    let child = change(place.command(&["train", "recipe.toml", "--out", "run"]).stderr(Stdio::piped()));
    let output = child.wait_with_output().unwrap();
    let log = std::fs::read_to_string(place.path("run/metrics.jsonl")).unwrap();
    assert_eq!(log.lines().filter(|line| line.contains("grad_norm")).count(), 60, "{}", said(&output));
    assert!(place.path("run/checkpoints/final.safetensors").is_file());
    output
}

#[test]
fn training_goes_on_when_nobody_reads() {
    let output = trains_to_its_end(|command| {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut first = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
        assert!(first.contains("mlp 16"), "what is trained is said first: {first}");
        child
    });
    assert_eq!((output.status.code(), said(&output).as_str()), (Some(0), ""));
    let output = trains_to_its_end(|command| command.stdout(full()).spawn().unwrap());
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("No space left"), "{}", said(&output));
    let output = trains_to_its_end(|command| command.stdout(full()).stderr(full()).spawn().unwrap());
    assert_eq!(output.status.code(), Some(1), "not even that can be said");
}

#[test]
fn what_cannot_be_written_to_stderr_ends_nothing() {
    let place = Place::new();
    let diverges = TINY
        .replace("[train]", "[optimiser]\nkind = \"sgd\"\nlr = 1e30\n[train]")
        .replace("epochs = 2", "steps = 40");
    place.write("diverges.toml", diverges);
    let mute =
        |args: &[&str]| place.command(args).stdout(Stdio::null()).stderr(full()).status().unwrap().code();
    // The doctor speaks in mid-run, and the end is an error.
    let code = mute(&["train", "diverges.toml", "--precision", "fp32", "--out", "run"]);
    assert_eq!(code, Some(1));
    assert!(place.path("run/doctor.json").is_file(), "the run went on behind the message");
    assert_eq!(mute(&["verdict", "--baseline", "none.npz", "--candidate", "none.npz"]), Some(3));
    assert_eq!(mute(&["train", "none.toml"]), Some(2));
    assert_eq!(mute(&["train", "--nonsense"]), Some(2));
    assert_eq!(mute(&["lint", "diverges.toml"]), mute(&["lint", "diverges.toml", "--json"]));
}

#[test]
fn a_comparison_that_nobody_reads_is_whole() {
    let place = Place::new();
    place.write("recipe.toml", TINY);
    let (code, _) = place.compare(&["recipe.toml", "--out", "read"]);
    for (out, run) in [("full", onto_full as fn(&mut Command) -> Output), ("closed", closed)] {
        let output = run(&mut place.command(&["compare", "recipe.toml", "--no-cache", "--out", out]));
        let lost = out == "full" && code == 0;
        assert_eq!(output.status.code(), Some(if lost { 3 } else { code }), "{out}: {}", said(&output));
        for file in ["report.html", "results.json", "metrics.jsonl"] {
            assert!(place.path(&format!("{out}/{file}")).is_file(), "{out}/{file}");
        }
    }
}

#[test]
fn names_from_files_do_not_control_the_terminal() {
    let place = Place::new();
    let row =
        |i: usize| format!("{},{}\n", i % 5, if i.is_multiple_of(2) { "\"a\x1b[2J\nPASS\"" } else { "b" });
    place.write("table.csv", "x,class\n".to_string() + &(0..40).map(row).collect::<String>());
    let data = "kind = \"csv\"\npath = \"table.csv\"\ntarget = \"class\"";
    place.write("recipe.toml", crate::common::with_data(data));
    place.ok(&["train", "recipe.toml", "--out", "run"]);
    let row = |name: &str| format!("{name}\n1\n2\n");
    place.write("new.csv", row("x"));
    let predicted = place.run(&["predict", "run", "new.csv"]);
    let text = both(&predicted);
    assert!(predicted.status.success() && !text.contains('\x1b'), "{text:?}");
    place.write("other.csv", row("\"x\x1b[2J\nPASS\""));
    let text = both(&place.run(&["predict", "run", "other.csv"]));
    assert!(!text.contains('\x1b') && text.contains("\\u{1b}[2J\\nPASS"), "{text:?}");
}

#[test]
fn a_message_that_quotes_a_huge_value_is_cut() {
    let place = Place::new();
    let huge = "x".repeat(400_000);
    place.write("recipe.toml", TINY.replace("\"tiny\"", &format!("\"{huge}/\"")));
    let recipe = place.fails(2, &["train", "recipe.toml"]);
    let columns: Vec<String> = (0..50_000).map(|i| format!("column{i}")).collect();
    place.write("wide.csv", format!("{}\n{}\n", columns.join(","), vec!["1"; 50_000].join(",")));
    let data = "kind = \"csv\"\npath = \"wide.csv\"\ntarget = \"class\"";
    place.write("wide.toml", crate::common::with_data(data));
    let table = place.fails(2, &["train", "wide.toml"]);
    let precision = place.fails(2, &["train", "wide.toml", "--precision", &huge[..100_000]]);
    for text in [recipe, table, precision] {
        assert!(text.len() < 20_000 && text.contains("more"), "{} bytes: {:.400}", text.len(), text);
    }
}
