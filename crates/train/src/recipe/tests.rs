use std::path::Path;

use halfstep_graph::{MomentFormat, WeightFormat};
use miette::Diagnostic;

use super::*;

const GOOD: &str = r#"
seed = 3
[data]
kind = "bundled"
name = "digits"
[model]
kind = "mlp"
hidden = [16]
[optimiser]
kind = "sgd"
lr = 1
[schedule]
kind = "linear"
warmup = 2
[train]
epochs = 2
batch = 32
clip = 1.0
[checkpoint]
metric = "accuracy"
[precision]
policy = "fp16"
policies = ["fp32", "fp16"]
loss_scale = { kind = "dynamic", init = 1024.0 }
overrides = [{ pattern = "layers.0", rule = "f32" }]
[compare]
seeds = 2
"#;

fn parse(text: &str) -> Result<Recipe, RecipeError> {
    Recipe::parse("test.toml", text, Path::new("."))
}

/// The error of the good recipe with one text in place of another, and the text it points at.
fn mistake(from: &str, to: &str) -> (String, String, Option<String>) {
    let text = GOOD.replacen(from, to, 1);
    assert_ne!(text, GOOD, "`{from}` is not in the recipe");
    let error = parse(&text).and_then(Recipe::prepare).err().unwrap_or_else(|| panic!("`{to}` was accepted"));
    let place = error.span().map_or(String::new(), |span| text[span].to_string());
    (error.to_string(), place, Diagnostic::help(&error).map(|help| help.to_string()))
}

#[test]
fn a_good_recipe_is_read_and_prepared() {
    let recipe = parse(GOOD).unwrap();
    assert_eq!((recipe.name.as_str(), recipe.seed), ("test", 3));
    assert_eq!(recipe.optimiser.lr(), 1.0, "a whole number is a number");
    let (fp16, scaling) = recipe.precision.resolve("fp16").unwrap();
    assert_eq!(fp16.overrides.len(), 1);
    assert!(matches!(&scaling, crate::scaler::LossScale::Dynamic(d) if d.init == 1024.0 && d.growth == 2.0));
    let (fp32, scaling) = recipe.precision.resolve("fp32").unwrap();
    assert!(fp32.overrides.is_empty() && scaling == crate::scaler::LossScale::Off, "fp32 is never scaled");
    let experiment = recipe.prepare().unwrap();
    // 1,797 digits, a fifth held out, batches of 32: 44 whole ones.
    assert_eq!((experiment.steps_per_epoch, experiment.steps), (44, 88));
}

#[test]
fn the_resolved_recipe_means_the_same() {
    let more = "clip = 1.0\naccumulate = 4\nema = 0.99\npatience = 3\n\
        groups = [{ pattern = \"layers.0\", lr = 0.5 }, { pattern = \"layers.1\", weight_decay = 0.1, frozen = true }]";
    let recipe = parse(&GOOD.replace("clip = 1.0", more)).unwrap();
    let resolved = recipe.resolved().unwrap();
    let again = parse(&resolved).unwrap_or_else(|e| panic!("{e}: {resolved}"));
    assert_eq!(again.resolved().unwrap(), resolved);
    assert_eq!((again.data, again.model, again.train), (recipe.data, recipe.model, recipe.train));
    assert_eq!((again.optimiser, again.schedule), (recipe.optimiser, recipe.schedule));
    assert_eq!(again.checkpoint, recipe.checkpoint);
    assert_eq!((again.precision, again.compare), (recipe.precision, recipe.compare));
}

#[test]
fn resolved_paths_are_absolute() {
    let text = GOOD.replace("kind = \"bundled\"\nname = \"digits\"", "kind = \"text\"\npath = \"a.txt\"");
    let resolved = Recipe::parse("t.toml", &text, Path::new("folder")).unwrap().resolved().unwrap();
    let path = std::path::absolute("folder/a.txt").unwrap();
    assert!(resolved.contains(&format!("path = \"{}\"", path.display())), "{resolved}");
}

#[test]
fn unknown_names_suggest_the_nearest() {
    let (message, place, hint) = mistake("hidden", "hiden");
    assert_eq!((message.as_str(), place.as_str()), ("unknown key `hiden`", "hiden"));
    assert_eq!(hint.as_deref(), Some("did you mean `hidden`?"));
    let (message, place, hint) = mistake("[schedule]", "[scheduel]");
    assert_eq!((message.as_str(), place.as_str()), ("unknown section `scheduel`", "scheduel"));
    assert_eq!(hint.as_deref(), Some("did you mean `schedule`?"));
    let (_, place, hint) = mistake("kind = \"mlp\"", "kind = \"mpl\"");
    assert_eq!((place.as_str(), hint.as_deref()), ("\"mpl\"", Some("did you mean `mlp`?")));
    let (_, place, hint) = mistake("rule = \"f32\"", "rule = \"f23\"");
    assert_eq!((place.as_str(), hint.as_deref()), ("\"f23\"", Some("did you mean `f32`?")));
    let (_, _, hint) = mistake("init = 1024.0", "intt = 1024.0");
    assert_eq!(hint.as_deref(), Some("did you mean `init`?"));
    let (_, _, hint) = mistake("policy = \"fp16\"", "policy = \"fp15\"");
    assert!(hint.is_some());
}

#[test]
fn keys_of_data_are_pointed_at() {
    let (message, place, _) = mistake("name = \"digits\"", "nam = \"digits\"");
    assert_eq!(place, "nam = \"digits\"");
    assert!(message.contains("`nam`: not a key of `kind = \"bundled\"`"), "{message}");
    assert!(message.ends_with("(did you mean `name`?)"), "{message}");
    let (message, place, _) = mistake("name = \"digits\"", "name = \"digits\"\nsequence = 8");
    assert_eq!(place, "sequence = 8");
    assert!(message.contains("not a key of the bundled set \"digits\", which has `name`, "), "{message}");
    let (message, place, _) = mistake("name = \"digits\"", "name = \"digits\"\nflip = \"no\"");
    assert_eq!((place.as_str(), message.contains("expected true or false")), ("\"no\"", true), "{message}");
    let (_, place, hint) = mistake("kind = \"bundled\"", "kind = \"bundle\"");
    assert_eq!((place.as_str(), hint.as_deref()), ("\"bundle\"", Some("did you mean `bundled`?")));
    let foreign = |keys: &str| mistake("[compare]", &format!("[evidence.foreign]\n{keys}\n[compare]"));
    let (_, place, _) = foreign("kind = \"idx\"\npath = \"a\"\nclasses = [\"x\"]");
    assert_eq!(place, "classes = [\"x\"]");
}

#[test]
fn wrong_types_say_what_was_expected() {
    let (message, place, _) = mistake("epochs = 2", "epochs = \"two\"");
    assert_eq!(place, "\"two\"");
    assert!(
        message.contains("text \"two\"") && message.contains("a whole number of at least 0"),
        "{message}"
    );
    let (message, place, _) = mistake("hidden = [16]", "hidden = 16");
    assert_eq!(place, "16");
    assert!(message.contains("expected a list"), "{message}");
    let (message, place, _) = mistake("batch = 32", "batch = -32");
    assert_eq!(place, "-32");
    assert!(message.contains("at least 0"), "{message}");
}

#[test]
fn values_out_of_range_are_pointed_at() {
    for (from, to, place) in [
        ("lr = 1", "lr = -1", "-1"),
        ("init = 1024.0", "init = 0.5", "0.5"),
        ("epochs = 2", "epochs = 0", "0"),
        ("clip = 1.0", "clip = 0.0", "0.0"),
        ("batch = 32", "batch = 0", "0"),
        ("batch = 32", "batch = 5000", "5000"),
        ("warmup = 2", "warmup = 1000", "1000"),
        ("seeds = 2", "seeds = 0", "0"),
        ("clip = 1.0", "accumulate = 5", "5"),
        ("clip = 1.0", "ema = 1.0", "1.0"),
        ("clip = 1.0", "patience = 0", "0"),
        (
            "clip = 1.0",
            "groups = [{ pattern = \"layers.0\", lr = 0.0 }]",
            "[{ pattern = \"layers.0\", lr = 0.0 }]",
        ),
        ("metric = \"accuracy\"", "keep_last = 0", "0"),
        ("metric = \"accuracy\"", "metric = \"speed\"", "\"speed\""),
        ("hidden = [16]", "hidden = [0]", "[0]"),
        ("epochs = 2", "epochs = 2\nsteps = 3", "3"),
        ("[compare]", "[compare]\nmargin = 1.5", "1.5"),
    ] {
        let (message, found, _) = mistake(from, to);
        assert_eq!(found, place, "{to}: {message}");
    }
}

#[test]
fn what_does_not_fit_together_is_an_error() {
    let (message, place, hint) = mistake("kind = \"mlp\"\nhidden = [16]", "kind = \"gpt\"");
    assert_eq!(place, "\"gpt\"", "{message}");
    assert!(hint.unwrap().contains("cnn"));
    let (message, _, hint) = mistake("layers.0", "layer.0");
    assert!(message.contains("matches no part of the model"), "{message}");
    assert!(hint.unwrap().contains("layers.0"));
}

#[test]
fn groups_must_leave_something_to_train() {
    let with = |groups: &str| mistake("clip = 1.0", &format!("groups = [{groups}]"));
    let (message, _, hint) = with("{ pattern = \"layers.0.wieght\", frozen = true }");
    assert!(message.contains("matches no parameter") && hint.unwrap().contains("layers.0"), "{message}");
    let (message, _, _) = with("{ pattern = \"*\", frozen = true }");
    assert!(message.contains("every parameter is frozen"), "{message}");
}

#[test]
fn missing_things_are_named() {
    let (message, _, _) = mistake("[model]\nkind = \"mlp\"\nhidden = [16]\n", "");
    assert_eq!(message, "the section [model] is missing");
    let (message, place, _) = mistake("batch = 32\n", "");
    assert_eq!((message.as_str(), place.as_str()), ("the key `batch` is missing", "train"));
    let (message, _, _) = mistake("kind = \"sgd\"\n", "");
    assert_eq!(message, "[optimiser] has no `kind`");
}

#[test]
fn text_that_is_not_toml_is_an_error_at_its_place() {
    let (message, _, _) = mistake("[train]", "[train");
    assert!(message.starts_with("not valid TOML"), "{message}");
}

#[test]
fn a_missing_file_points_at_its_key() {
    let from = "kind = \"bundled\"\nname = \"digits\"";
    let (message, place, _) = mistake(from, "kind = \"text\"\npath = \"no/such/file.txt\"");
    assert!(message.contains("no such file"), "{message}");
    assert_eq!(place, "\"no/such/file.txt\"");
}

const ARMS: &str = r#"
[cost]
rate_per_core_hour = 0.04
[[ablation]]
name = "wide"
[ablation.model]
kind = "mlp"
hidden = [64, 64]
[[ablation]]
name = "text"
[ablation.data]
kind = "bundled"
name = "shakespeare"
[ablation.model]
kind = "gpt"
width = 32
layers = 1
heads = 2
[ablation.train]
steps = 3
batch = 4
"#;

#[test]
fn an_arm_is_the_recipe_with_sections_of_its_own() {
    let recipe = parse(&format!("{GOOD}{ARMS}").replace("overrides =", "#")).unwrap();
    let [wide, text] = recipe.ablation.as_slice() else { panic!("{:?}", recipe.ablation.len()) };
    assert_eq!((wide.name.as_str(), wide.recipe.name.as_str()), ("wide", "wide"));
    assert_eq!((&wide.recipe.data, &wide.recipe.train), (&recipe.data, &recipe.train));
    assert_ne!(wide.recipe.model, recipe.model);
    assert_ne!(text.recipe.data, recipe.data);
    assert_eq!(text.recipe.train.length, super::Length::Steps(3));
    assert_eq!((text.recipe.seed, &text.recipe.compare), (3, &recipe.compare));
    // Written out and read again, it is the same.
    let resolved = recipe.resolved().unwrap();
    let again = parse(&resolved).unwrap_or_else(|e| panic!("{e}: {resolved}"));
    assert_eq!(again.resolved().unwrap(), resolved);
    assert_eq!(again.ablation[1].recipe.model, text.recipe.model);
    assert_eq!(again.cost.rate_per_core_hour, Some(0.04));
}

#[test]
fn mistakes_in_arms_are_pointed_at() {
    for (from, to, place, says) in [
        ("hidden = [64, 64]", "hiden = [64]", "hiden", "unknown key"),
        ("hidden = [64, 64]", "hidden = [0]", "[0]", "hidden"),
        ("[ablation.model]\nkind = \"gpt\"", "[ablation.modle]\nkind = \"gpt\"", "modle", "of its own"),
        ("name = \"text\"", "name = \"wide\"", "\"wide\"", "two arms"),
        ("name = \"text\"", "name = \"a/b\"", "\"a/b\"", "cannot name a folder"),
        ("rate_per_core_hour = 0.04", "rate_per_core_hour = -1", "-1", "rate_per_core_hour"),
    ] {
        let text = format!("{GOOD}{ARMS}").replace("overrides =", "#").replacen(from, to, 1);
        let checked = parse(&text)
            .and_then(|r| r.ablation.into_iter().try_for_each(|a| a.recipe.prepare().map(|_| ())));
        let error = checked.err().unwrap_or_else(|| panic!("`{to}` was accepted"));
        let found = error.span().map_or("", |span| &text[span]);
        assert_eq!(found, place, "{to}: {error}");
        assert!(error.to_string().contains(says), "{to}: {error}");
    }
}

const STATES: &str = r#"
[precision.bf16]
moments = "bf16"
[precision.fp8]
history = 16
[[ablation]]
name = "as-it-is"
[[ablation]]
name = "codes"
[ablation.precision.bf16]
moments = "int8"
[[ablation]]
name = "kahan"
[ablation.precision.bf16]
weights = "bf16-kahan"
[ablation.precision.fp16]
moments = "int8"
"#;

/// `compare` sets the same policies side by side in every arm; what a policy keeps its state in is
/// the arm's.
#[test]
fn an_arm_keeps_state_in_formats_of_its_own() {
    let recipe = parse(&format!("{GOOD}{STATES}")).unwrap();
    let state = |arm: usize, policy: &str| {
        let precision = &recipe.ablation[arm].recipe.precision;
        assert_eq!(
            (&precision.policy, &precision.policies),
            (&recipe.precision.policy, &recipe.precision.policies)
        );
        assert_eq!(precision.overrides, recipe.precision.overrides);
        let state = precision.resolve(policy).unwrap().0.state;
        (state.weights, state.moments)
    };
    let f32 = (WeightFormat::F32, MomentFormat::F32);
    for (arm, bf16, fp16) in [
        (0, (WeightFormat::F32, MomentFormat::Bf16), f32),
        (1, (WeightFormat::F32, MomentFormat::Int8), f32),
        // A policy's section of an arm stands whole in place of the recipe's.
        (2, (WeightFormat::Bf16Kahan, MomentFormat::F32), (WeightFormat::F32, MomentFormat::Int8)),
    ] {
        assert_eq!((state(arm, "bf16"), state(arm, "fp16")), (bf16, fp16), "{arm}");
        assert_eq!(recipe.ablation[arm].recipe.precision.of_policies["fp8"].history, Some(16));
    }
    let resolved = recipe.resolved().unwrap();
    let again = parse(&resolved).unwrap_or_else(|e| panic!("{e}: {resolved}"));
    assert_eq!(again.resolved().unwrap(), resolved);
    for (arm, before) in again.ablation.iter().zip(&recipe.ablation) {
        assert_eq!(arm.recipe.precision, before.recipe.precision);
    }
}

#[test]
fn an_arm_has_of_precision_only_what_policies_have() {
    for (from, to, place, says) in [
        ("moments = \"int8\"", "moments = \"int4\"", "\"int4\"", "int4"),
        ("weights = \"bf16-kahan\"", "wieghts = \"bf16\"", "wieghts", "unknown key"),
        (
            "[ablation.precision.fp16]\nmoments = \"int8\"",
            "[ablation.precision.fp16]\nweights = \"bf16\"",
            "\"bf16\"",
            "`weights`",
        ),
        ("[ablation.precision.fp16]", "[ablation.precision.fp17]", "fp17", "of its own"),
        ("[ablation.precision.fp16]\nmoments", "[ablation.precision]\npolicy", "policy", "of its own"),
        ("[ablation.precision.bf16]\nmoments = \"int8\"", "precision = 3", "3", "not a section"),
    ] {
        let text = format!("{GOOD}{STATES}").replacen(from, to, 1);
        assert!(text.contains(to), "{from}");
        let error = parse(&text).err().unwrap_or_else(|| panic!("`{to}` was accepted"));
        let found = error.span().map_or("", |span| &text[span]);
        assert_eq!(found, place, "{to}: {error}");
        assert!(error.to_string().contains(says), "{to}: {error}");
    }
}
