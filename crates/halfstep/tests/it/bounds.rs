//! Files that would never end or never fit are refused at once.

use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::{Place, TINY, with_data};

/// Runs it, which must fail soon, and returns what it said.
fn refused_soon(place: &Place, args: &[&str]) -> String {
    let begun = Instant::now();
    let mut child = place.command(args).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    // A refusal takes a moment; reading without end never ends.
    while child.try_wait().unwrap().is_none() {
        if begun.elapsed() > Duration::from_secs(20) {
            child.kill().unwrap();
            panic!("{args:?} goes on and on");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).replace(['│', '\n'], " ");
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(matches!(output.status.code(), Some(1..=3)) && !text.contains("panicked"), "{args:?}: {text}");
    text
}

#[test]
fn what_is_no_file_is_refused_wherever_a_path_is_taken() {
    let place = Place::new();
    place.write("recipe.toml", TINY);
    place.write(
        "text.toml",
        with_data("kind = \"text\"\npath = \"text.txt\"")
            .replace("\"mlp\"", "\"gpt\"")
            .replace("hidden = [16]", "width = 8\nlayers = 1\nheads = 1"),
    );
    place.write("text.txt", "a text that is long enough for a window or two. ".repeat(200));
    place.ok(&["train", "recipe.toml", "--out", "run"]);
    place.ok(&["train", "text.toml", "--out", "text"]);
    let weights = "run/checkpoints/final.safetensors";
    assert!(Command::new("mkfifo").arg(place.path("pipe")).status().unwrap().success());
    let _socket = UnixListener::bind(place.path("socket")).unwrap();
    std::os::unix::fs::symlink("/dev/zero", place.path("zero")).unwrap();
    std::fs::create_dir(place.path("folder")).unwrap();
    for (special, what) in
        [("pipe", "a pipe"), ("zero", "a device"), ("socket", "a socket"), ("folder", "a folder")]
    {
        // Names with the endings by which files are known.
        for ending in ["npz", "safetensors", "csv", "png"] {
            std::os::unix::fs::symlink(place.path(special), place.path(&format!("{special}.{ending}")))
                .unwrap();
        }
        for (name, data) in [
            ("csv.toml", format!("kind = \"csv\"\npath = \"{special}\"\ntarget = \"x\"")),
            ("txt.toml", format!("kind = \"text\"\npath = \"{special}\"")),
            ("idx.toml", format!("kind = \"idx\"\nimages = \"{special}\"\nlabels = \"{special}\"")),
        ] {
            place.write(name, with_data(&data));
        }
        let (npz, safetensors) = (format!("{special}.npz"), format!("{special}.safetensors"));
        let (csv, png) = (format!("{special}.csv"), format!("{special}.png"));
        let mut cases = vec![
            vec!["train", special],
            vec!["compare", special],
            vec!["lint", special],
            vec!["train", "recipe.toml", "--plan", special],
            vec!["train", "csv.toml"],
            vec!["train", "txt.toml"],
            vec!["train", "idx.toml"],
            vec!["import", special, "--recipe", "recipe.toml"],
            vec!["import", weights, "--recipe", "recipe.toml", "--map", special],
            vec!["verdict", "--baseline", &npz, "--candidate", &npz],
            vec!["verdict", "--baseline", &safetensors, "--candidate", &safetensors],
            vec!["predict", "text", special],
        ];
        if special != "folder" {
            // These take folders.
            cases.push(vec!["train", "recipe.toml", "--from", special]);
            cases.push(vec!["predict", "run", &png]);
            cases.push(vec!["new", &csv, "-o", "new.toml"]);
            cases.push(vec!["new", special, "-o", "new.toml"]);
        }
        for args in cases {
            let text = refused_soon(&place, &args);
            assert!(text.contains(&format!("it is {what}, not a file")), "{args:?}: {text}");
        }
    }
}

#[test]
fn a_model_of_too_many_layers_is_refused() {
    let place = Place::new();
    let begun = Instant::now();
    for model in [
        format!("kind = \"mlp\"\nhidden = [{}]", "8, ".repeat(4097)),
        format!("kind = \"mlp\"\nhidden = [{}]", "8, ".repeat(200_000)),
    ] {
        place.write("deep.toml", TINY.replace("kind = \"mlp\"\nhidden = [16]", &model));
        let text = refused_soon(&place, &["train", "deep.toml"]);
        assert!(text.contains("at most 4096"), "{text:.500}");
    }
    let gpt = "kind = \"gpt\"\nwidth = 8\nheads = 1\nlayers = 5000";
    let recipe = TINY
        .replace("name = \"digits\"", "name = \"shakespeare\"")
        .replace("kind = \"mlp\"\nhidden = [16]", gpt);
    place.write("deep.toml", recipe);
    assert!(refused_soon(&place, &["train", "deep.toml"]).contains("at most 4096"));
    assert!(begun.elapsed() < Duration::from_secs(20));
}
