//! What commands say of a model's quality is what the model is.

use crate::common::{Place, TINY, both, with_data};

/// Nothing moves at this rate.
const STUCK: &str = "\n[optimiser]\nkind = \"sgd\"\nlr = 1e-12\n";

#[test]
fn eval_says_of_a_model_that_learned_nothing_that_it_is_not_shown_better() {
    let place = Place::new();
    let said = |name: &str, recipe: &str| {
        place.write("recipe.toml", recipe);
        place.ok(&["train", "recipe.toml", "--out", name]);
        place.ok(&["eval", name]).split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let sentence = "This model is not shown better than a constant predictor";
    // The class does not depend on the only feature.
    let rows: String = (0..400).map(|i| format!("{},c{}\n", i % 2, i / 2 % 2)).collect();
    place.write("flat.csv", format!("a,class\n{rows}"));
    let flat = with_data("kind = \"csv\"\npath = \"flat.csv\"\ntarget = \"class\"");
    let nothing = said("nothing", &flat);
    assert!(nothing.contains(sentence), "{nothing}");
    let learned = said("learned", &TINY.replace("epochs = 2", "epochs = 20"));
    assert!(!learned.contains(sentence), "{learned}");
}

#[test]
fn the_doctors_first_line_is_what_the_losses_show() {
    let place = Place::new();
    let line = |steps: &str, recipe: &str| {
        place.write("recipe.toml", recipe);
        let output = place.run(&["doctor", "recipe.toml", "--steps", steps]);
        let text = both(&output);
        (output.status.code(), text.lines().next().unwrap_or_default().to_string())
    };
    let constant = "\n[schedule]\nkind = \"constant\"\n";
    let longer = TINY.replace("epochs = 2", "steps = 100") + constant;
    let learns = line("100", &longer);
    assert_eq!(learns, (Some(0), "No step failed up to step 100, and the model learns.".into()));
    let slow = format!("{longer}[optimiser]\nkind = \"sgd\"\nlr = 1e-4\n");
    let begins = line("20", &slow);
    let early = "No step failed up to step 20; it is too early to say whether the model learns.";
    assert_eq!(begins, (Some(0), early.into()));
    let stuck = line("100", &format!("{longer}{STUCK}"));
    assert_eq!(stuck, (Some(1), "No step failed up to step 100, but something is wrong.".into()));
}
