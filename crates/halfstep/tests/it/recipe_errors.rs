//! What typical mistakes in a recipe look like. `UPDATE_SNAPSHOTS=1` writes the texts anew, to be
//! looked at.

use std::path::Path;

use crate::common::{Place, TINY, with_data};

fn check(name: &str, recipe: &str) {
    let place = Place::new();
    place.write("recipe.toml", recipe);
    let found = place.fails(2, &["explain", "recipe.toml"]);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots").join(format!("{name}.txt"));
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &found).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap();
    assert_eq!(found, expected, "{name}: rendered\n{found}");
}

#[test]
fn an_unknown_key() {
    check("unknown_key", &TINY.replace("hidden = [16]", "hiddn = [16]"));
}

#[test]
fn an_unknown_section() {
    check("unknown_section", &TINY.replace("[compare]", "[comparison]"));
}

#[test]
fn a_wrong_type() {
    check("wrong_type", &TINY.replace("epochs = 2", "epochs = \"2\""));
}

#[test]
fn an_impossible_shape() {
    let cnn = "kind = \"cnn\"\nchannels = [8, 16, 32, 64]\nhidden = 16";
    check("impossible_shape", &TINY.replace("kind = \"mlp\"\nhidden = [16]", cnn));
}

#[test]
fn a_missing_file() {
    let data = "kind = \"text\"\npath = \"texts/novel.txt\"";
    check("missing_file", &with_data(data).replace("kind = \"mlp\"\nhidden = [16]", "kind = \"gpt\""));
}

#[test]
fn a_value_out_of_range() {
    check(
        "out_of_range",
        &TINY.replace("[compare]", "[optimiser]\nkind = \"adamw\"\nbeta1 = 1.9\n[compare]"),
    );
}

#[test]
fn the_wrong_model_for_the_data() {
    check("wrong_model", &TINY.replace("kind = \"mlp\"\nhidden = [16]", "kind = \"gpt\""));
}
