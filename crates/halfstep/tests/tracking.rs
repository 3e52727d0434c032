//! Trackers as a person meets them, and weights that come from elsewhere.

mod common;

use common::{Place, TINY, both};

/// The event files of a run.
fn event_files(place: &Place, run: &str) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(place.path(run)).unwrap().map(|e| e.unwrap().path());
    let mut files: Vec<_> = entries.filter(|p| p.to_string_lossy().contains("tfevents")).collect();
    files.sort();
    files
}

#[test]
fn an_event_file_is_written_unless_it_is_not_wanted() {
    let place = Place::new();
    place.write("recipe.toml", TINY);
    place.ok(&["train", "recipe.toml", "--out", "run"]);
    let [file] = &event_files(&place, "run")[..] else { panic!("one file") };
    let bytes = std::fs::read(file).unwrap();
    // Records follow each other without gaps to the end: version, beginning, two texts, 12 steps, 2
    // evaluations.
    let (mut at, mut records) = (0, 0);
    while at < bytes.len() {
        let length = u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize;
        (at, records) = (at + 16 + length, records + 1);
    }
    let lines = std::fs::read_to_string(place.path("run/metrics.jsonl")).unwrap().lines().count();
    assert_eq!((at, records), (bytes.len(), 4 + lines));
    place.write("none.toml", format!("{TINY}[track]\ntensorboard = false\n"));
    place.ok(&["train", "none.toml", "--out", "none"]);
    assert!(event_files(&place, "none").is_empty());
}

#[test]
fn a_url_that_is_none_is_refused_before_anything_is_written() {
    let place = Place::new();
    place.write("recipe.toml", TINY);
    let stderr = place.fails(2, &["train", "recipe.toml", "--mlflow", "localhost:5000", "--out", "run"]);
    assert!(stderr.contains("http://"), "{stderr}");
    place.write("secret.toml", format!("{TINY}[track]\nmlflow = \"http://me:secret@host\"\n"));
    let stderr = place.fails(2, &["train", "secret.toml", "--out", "run"]);
    assert!(stderr.contains("environment"), "{stderr}");
    assert!(!place.path("run").exists());
}

#[cfg(all(feature = "mlflow", feature = "otel"))]
#[test]
fn trackers_that_are_down_are_named_at_the_end_and_change_nothing() {
    let place = Place::new();
    place.write("recipe.toml", TINY);
    place.ok(&["train", "recipe.toml", "--out", "alone"]);
    // Nobody listens at this port: it is taken and never accepts.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", taken.local_addr().unwrap());
    drop(taken);
    let output = place.run(&["train", "recipe.toml", "--out", "run", "--mlflow", &url, "--otlp", &url]);
    assert_eq!(output.status.code(), Some(0), "{}", both(&output));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("MLflow") && said.contains("OpenTelemetry"), "{said}");
    assert!(said.contains("`halfstep track run` sends them"), "{said}");
    let weights =
        |run: &str| std::fs::read(place.path(&format!("{run}/checkpoints/final.safetensors"))).unwrap();
    assert!(weights("alone") == weights("run"));
    let output = place.run(&["track", "run", "--json"]);
    assert_eq!(output.status.code(), Some(1), "still nobody there: {}", both(&output));
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&said[0]["missing"], &said[0]["complete"]), (&14.into(), &false.into()), "{said}");
    let stderr = place.fails(2, &["track", "alone"]);
    assert!(stderr.contains("has no trackers"), "{stderr}");
}

#[test]
fn a_run_can_begin_with_the_weights_of_another() {
    let place = Place::new();
    place.write("recipe.toml", TINY);
    place.ok(&["train", "recipe.toml", "--precision", "fp32", "--out", "first"]);
    place.ok(&["train", "recipe.toml", "--precision", "bf16", "--from", "first", "--out", "second"]);
    let weights = |file: &str| std::fs::read(place.path(file)).unwrap();
    // All but the header, which says what made it.
    let tensors = |file: &str| {
        let bytes = weights(file);
        let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        bytes[8 + header..].to_vec()
    };
    let start = tensors("second/checkpoints/start.safetensors");
    assert!(start == tensors("first/checkpoints/final.safetensors"), "it begins where the other ended");
    // A file does as well as a run, and gives the same.
    let file = "first/checkpoints/final.safetensors";
    place.ok(&["train", "recipe.toml", "--precision", "bf16", "--from", file, "--out", "third"]);
    let end = "checkpoints/final.safetensors";
    assert!(weights(&format!("second/{end}")) == weights(&format!("third/{end}")));
    // As a run of its own.
    let said = place.ok(&["import", file, "--recipe", "recipe.toml", "--out", "imported"]);
    assert!(said.contains("layers.0.weight → layers.0.weight [16, 64]"), "{said}");
    let accuracy =
        |run: &str| place.json(&["eval", run, "--precision", "fp32", "--json"])["accuracy"].clone();
    assert_eq!(accuracy("imported"), accuracy("first"));
    // What does not fit is listed, and nothing is left behind.
    place.write("wide.toml", TINY.replace("[16]", "[17]"));
    for args in [
        ["import", file, "--recipe", "wide.toml", "--out", "wide"],
        ["train", "wide.toml", "--from", file, "--out", "wide"],
    ] {
        let output = place.run(&args);
        assert_eq!(output.status.code(), Some(2), "{}", both(&output));
        let said = both(&output);
        assert!(said.contains("it is [16, 64], expected [17, 64]"), "{said}");
        assert!(!place.path("wide").exists());
    }
}

#[cfg(feature = "tui")]
#[test]
fn a_dashboard_needs_a_terminal() {
    let place = Place::new();
    place.write("recipe.toml", TINY);
    let stderr = place.fails(2, &["train", "recipe.toml", "--tui", "--out", "run"]);
    assert!(stderr.contains("--tui needs a terminal"), "{stderr}");
    assert!(!place.path("run").exists());
}
