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
            vec!["train", "idx.toml"],
            vec!["import", special, "--recipe", "recipe.toml"],
            vec!["import", weights, "--recipe", "recipe.toml", "--map", special],
            vec!["verdict", "--baseline", &npz, "--candidate", &npz],
            vec!["verdict", "--baseline", &safetensors, "--candidate", &safetensors],
        ];
        if special != "folder" {
            // These take folders.
            cases.push(vec!["train", "txt.toml"]);
            cases.push(vec!["predict", "text", special]);
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

#[test]
fn a_table_of_a_quarter_million_columns_is_read_in_a_moment() {
    let place = Place::new();
    let names: Vec<String> = (0..250_000).map(|i| format!("gene_{i}")).collect();
    let row = |r: usize| {
        let cells: Vec<String> = (0..names.len()).map(|i| ((i * 7 + r * 13) % 10).to_string()).collect();
        format!("{},{}\n", cells.join(","), ["a", "b"][r % 2])
    };
    let table = format!("{},kind\n{}", names.join(","), (0..4).map(row).collect::<String>());
    place.write("wide.csv", table);
    // A header alone, and one in which all names are missing.
    place.write("header.csv", format!("{},kind\n1,2\n", names.join(",")));
    place.write("nameless.csv", format!("{}kind\n{}", ",".repeat(250_000), row(0) + &row(1)));
    let data = "kind = \"csv\"\npath = \"wide.csv\"\ntarget = \"kind\"";
    place.write("wide.toml", with_data(data).replace("epochs = 2\nbatch = 32", "steps = 2\nbatch = 2"));
    // Five seconds in a release build; what grows with the square of the columns takes minutes.
    let soon = |args: &[&str], code: Option<i32>| {
        let begun = Instant::now();
        let output = place.run(args);
        assert!(begun.elapsed() < Duration::from_secs(25), "{args:?}: {:?}", begun.elapsed());
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(code.is_none() || output.status.code() == code, "{args:?}: {stderr:.600}");
        assert!(stderr.len() < 20_000, "{args:?}: {} bytes of messages", stderr.len());
    };
    soon(&["train", "wide.toml", "--out", "run"], Some(0));
    soon(&["predict", "run", "wide.csv"], Some(0));
    soon(&["new", "header.csv", "--target", "kind", "-o", "new.toml"], Some(2));
    soon(&["new", "nameless.csv", "--target", "kind", "-o", "nameless.toml"], None);
}
