//! No sample that a run was trained on is measured as one it held out, whatever becomes of its
//! data.

use crate::common::{Place, both, with_data};

/// A table whose classes are noise, so that only samples that were trained on are known.
fn table(rows: usize) -> Vec<String> {
    let noise = |i: usize| {
        let x = (i as u32).wrapping_mul(2_654_435_761);
        let x = (x ^ x >> 15).wrapping_mul(2_246_822_519);
        x ^ x >> 13
    };
    let cell = |i: usize, k: usize| f64::from(noise(i * 7 + k) % 1000) / 100.0;
    (0..rows)
        .map(|i| format!("{:.2},{:.2},{}", cell(i, 1), cell(i, 2), ["a", "b"][noise(i) as usize % 2]))
        .collect()
}

fn text(rows: &[String]) -> String {
    format!("x,y,class\n{}\n", rows.join("\n"))
}

fn trained(place: &Place, data: &str) -> String {
    let recipe = with_data(data).replace("batch = 32", "batch = 4");
    place.write("recipe.toml", &recipe);
    place.ok(&["train", "recipe.toml", "--out", "run"]);
    place.ok(&["eval", "run"])
}

/// All that measures refuses, and says why.
fn refused(place: &Place, says: &str) {
    let export = ["export", "run", "--onnx", "m.onnx", "--test-data", "t"];
    let commands: &[&[&str]] = &[&["eval", "run"], &["stress", "run"], &export];
    let commands = &commands[..if cfg!(feature = "onnx") { 3 } else { 2 }];
    for command in commands {
        let said = place.fails(2, command);
        let flat = said.replace(['│', '\n'], " ").split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(flat.contains(says), "`{says}` is not in: {flat}");
    }
    assert!(!place.path("t/test_data_set_0").exists());
}

const CSV: &str = "kind = \"csv\"\npath = \"table.csv\"\ntarget = \"class\"";
const CHANGED: &str = "the data have changed since the run";

#[test]
fn a_table_that_has_grown_or_was_sorted_is_not_split_anew() {
    let place = Place::new();
    let rows = table(80);
    place.write("table.csv", text(&rows));
    let first = trained(&place, CSV);
    let mut grown = rows.clone();
    grown.push("1.00,2.00,a".into());
    let mut sorted = rows.clone();
    sorted.sort();
    let mut shorter = rows.clone();
    shorter.remove(40);
    let mut swapped = rows.clone();
    swapped.swap(3, 70);
    for changed in [grown, sorted, shorter, swapped] {
        place.write("table.csv", text(&changed));
        refused(&place, CHANGED);
    }
    place.write("table.csv", text(&rows));
    assert_eq!(place.ok(&["eval", "run"]), first, "the data are back");
}

#[test]
fn pictures_and_texts_that_were_added_are_noticed() {
    let place = Place::new();
    let picture = |class: &str, i: u8| {
        place.picture(&format!("pets/{class}/{i}.png"), 8, 8, |x, y| {
            [(x * 30 + y) as u8 ^ i.wrapping_mul(37)]
        });
    };
    for i in 0..12 {
        picture("cats", i);
        picture("dogs", 100 + i);
    }
    trained(&place, "kind = \"images\"\npath = \"pets\"");
    // First by name: every index after it moves.
    picture("cats", 200);
    refused(&place, CHANGED);

    let place = Place::new();
    let line = |i: usize| format!("line {i} of {}\n", i * i % 91);
    place.write("text.txt", (0..400).map(line).collect::<String>());
    let recipe = with_data("kind = \"text\"\npath = \"text.txt\"\nsequence = 16")
        .replace("kind = \"mlp\"\nhidden = [16]", "kind = \"gpt\"\nwidth = 16\nlayers = 1\nheads = 2");
    place.write("recipe.toml", recipe);
    place.ok(&["train", "recipe.toml", "--out", "run"]);
    place.ok(&["eval", "run"]);
    place.write("text.txt", (0..440).map(line).collect::<String>());
    assert!(place.fails(2, &["eval", "run"]).contains("have changed"));
}

#[test]
fn test_data_of_their_own_may_change_but_hold_nothing_that_was_trained_on() {
    let place = Place::new();
    let rows = table(120);
    place.write("table.csv", text(&rows[..60]));
    // The first row is in both from the beginning.
    let own = [&rows[..1], &rows[60..100]].concat();
    place.write("test.csv", text(&own));
    trained(&place, &format!("{CSV}\ntest_path = \"test.csv\""));
    place.write("test.csv", text(&[&own[..], &rows[100..]].concat()));
    let output = place.run(&["eval", "run"]);
    assert!(output.status.success(), "{}", both(&output));
    assert!(both(&output).contains("61 samples are measured, none of which"), "{}", both(&output));
    place.write("test.csv", text(&[&own[..], &rows[20..23]].concat()));
    refused(&place, "its model was trained on 3 of their 44 samples");
}

#[test]
fn a_run_of_an_older_version_is_measured_with_a_word_of_caution() {
    let place = Place::new();
    place.write("table.csv", text(&table(80)));
    trained(&place, CSV);
    std::fs::remove_file(place.path("run/samples.safetensors")).unwrap();
    let output = place.run(&["eval", "run"]);
    assert!(output.status.success(), "{}", both(&output));
    assert!(
        both(&output).contains("whether test samples are among them cannot be checked"),
        "{}",
        both(&output)
    );
    place.ok(&["train", "recipe.toml", "--resume", "run"]);
}

/// Every model of `stress` is asked, not only the first.
#[test]
fn what_one_run_held_out_another_may_have_been_trained_on() {
    let place = Place::new();
    place.write("table.csv", text(&table(80)));
    trained(&place, CSV);
    let other = with_data(&format!("{CSV}\nsplit_seed = 1")).replace("batch = 32", "batch = 4");
    place.write("other.toml", other + "[precision]\npolicy = \"fp32\"\n");
    place.ok(&["train", "other.toml", "--out", "other"]);
    let said = place.fails(2, &["stress", "run", "other"]);
    assert!(said.contains("other") && said.contains("have changed"), "{said}");
}

#[test]
fn a_run_that_was_moved_with_its_data_finds_them() {
    let place = Place::new();
    place.write("project/table.csv", text(&table(80)));
    let recipe = with_data(CSV).replace("batch = 32", "batch = 4");
    place.write("project/recipe.toml", recipe);
    place.ok(&["train", "project/recipe.toml", "--out", "project/runs/one"]);
    let first = place.ok(&["eval", "project/runs/one"]);
    std::fs::rename(place.path("project"), place.path("elsewhere")).unwrap();
    assert_eq!(place.ok(&["eval", "elsewhere/runs/one"]), first);
    assert!(place.ok(&["train", "--resume", "elsewhere/runs/one"]).contains("elsewhere"));
    // Another table at the place where it is found is another table.
    place.write("elsewhere/table.csv", text(&table(90)));
    assert!(place.fails(2, &["eval", "elsewhere/runs/one"]).contains("have changed"));
}

#[test]
fn predictions_of_samples_that_were_trained_on_are_counted_apart() {
    let place = Place::new();
    let rows = table(120);
    place.write("table.csv", text(&rows[..80]));
    trained(&place, CSV);
    // All 80 rows of the run, 16 of which it held out, and 40 new ones.
    place.write("all.csv", text(&rows));
    let output = place.run(&["predict", "run", "all.csv"]);
    let said = both(&output);
    assert!(said.contains("trained on 64 of these 120 samples"), "{said}");
    assert!(said.contains("right of new samples") && said.contains("of 56)"), "{said}");
    assert!(said.contains("right of samples it was trained on") && said.contains("of 64)"), "{said}");
    let json = place.json(&["predict", "run", "all.csv", "--json"]);
    assert_eq!(json["known"]["new"]["samples"], 56);
    assert_eq!(json["known"]["trained_on"]["samples"], 64);
    // Other columns in another order are the same samples; without the target there is no figure.
    let turned = |row: &String| {
        let cells: Vec<&str> = row.split(',').collect();
        format!("{},new,{}", cells[1], cells[0])
    };
    let turned: String = rows[80..].iter().map(|row| turned(row) + "\n").collect();
    place.write("unknown.csv", format!("y,note,x\n{turned}"));
    let output = place.run(&["predict", "run", "unknown.csv"]);
    assert!(output.status.success() && !both(&output).contains("right"), "{}", both(&output));
    place.write("new.csv", text(&rows[80..]));
    let output = place.run(&["predict", "run", "new.csv"]);
    assert!(both(&output).contains("of 40)") && !both(&output).contains("warning"), "{}", both(&output));
}
