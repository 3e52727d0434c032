//! What the doctor says of learning, beside what the losses are: each test fails if a sentence were
//! said wrongly.

use std::num::NonZeroUsize;
use std::path::Path;

use halfstep_cpu::CpuEngine;
use halfstep_cpu::isa::{Isa, Level};
use halfstep_train::change::changed;
use halfstep_train::doctor::{Cause, Fix, Trial};
use halfstep_train::examination::{Examination, Examined, Learns};
use halfstep_train::recipe::{Experiment, Recipe};

const DIGITS: &str = "kind = \"bundled\"\nname = \"digits\"\nlimit_train = 400\nlimit_test = 50";

fn experiment(data: &str, hidden: &str, optimiser: &str, precision: &str, folder: &Path) -> Experiment {
    let text = format!(
        "[data]\n{data}\n[model]\nkind = \"mlp\"\nhidden = {hidden}\n[optimiser]\n{optimiser}\n\
         [schedule]\nkind = \"constant\"\n[train]\nsteps = 100\nbatch = 32\n[precision]\n{precision}\n"
    );
    parsed(&text, folder)
}

fn parsed(text: &str, folder: &Path) -> Experiment {
    Recipe::parse("recipe.toml", text, folder).unwrap().prepare().unwrap()
}

/// Of digits, with the portable kernels: the same bits on every machine.
fn digits(hidden: &str, optimiser: &str, precision: &str) -> Experiment {
    experiment(DIGITS, hidden, optimiser, precision, Path::new("."))
}

fn examined(experiment: &Experiment) -> Examination {
    let engine = CpuEngine::new(Isa::new(Level::Portable).unwrap(), NonZeroUsize::MIN);
    let policy = experiment.recipe.precision.policy.clone();
    let asked = Examined {
        engine: &engine,
        policy: &policy,
        seed: 0,
        from: None,
        start: None,
        steps: 100,
        thorough: false,
    };
    experiment.examine(&asked, &mut |_, _| true).unwrap()
}

fn with(experiment: &Experiment, fix: &Fix) -> Experiment {
    changed(&experiment.recipe, &fix.changes).unwrap().prepare().unwrap()
}

fn said(found: &Examination) -> String {
    found.diagnosis.to_string()
}

const GOOD: &str = "kind = \"sgd\"\nlr = 0.05";

#[test]
fn what_learns_is_said_to_and_what_does_not_is_not() {
    let bf16 = "policy = \"bf16\"";
    let good = examined(&digits("[32]", GOOD, bf16));
    assert!(good.learning.loss < 0.5 * good.learning.constant, "{:?}", good.learning);
    assert!(said(&good).contains(": the model learns\n") && !good.is_bad(), "{}", said(&good));
    // The loss falls by a thousandth and would be far below the constant predictor's in time.
    let slow = examined(&digits("[32]", "kind = \"sgd\"\nlr = 1e-5", bf16));
    assert!(said(&slow).contains("it is too early to say whether it falls far enough"), "{}", said(&slow));
    // No weight moves.
    let stuck = examined(&digits("[32]", "kind = \"sgd\"\nlr = 1e-12", bf16));
    assert!(said(&stuck).contains(": the model does not learn\n") && stuck.is_bad(), "{}", said(&stuck));
    assert!((stuck.learning.loss - stuck.learning.before).abs() < 1e-3);
}

#[test]
fn a_fix_that_is_said_to_work_does_when_it_is_made() {
    let wrong = digits("[32]", GOOD, "policy = \"fp16\"\nloss_scale = { kind = \"static\", scale = 1e12 }");
    let found = examined(&wrong);
    let [first, second] = &found.diagnosis.fixes[..] else { panic!("{}", said(&found)) };
    let Trial::Worked { loss, constant, .. } = first.trial else { panic!("{}", said(&found)) };
    assert!(loss < constant, "{}", said(&found));
    let right = examined(&with(&wrong, first));
    assert!(!right.is_bad() && right.learning.learns == Learns::Yes, "{}", said(&right));
    let not_tried = "not tried: with the one before it no step failed";
    assert!(second.to_string().contains(not_tried), "{second}");
}

#[test]
fn after_a_few_steps_a_fix_is_finite_and_no_more() {
    let slow = "kind = \"sgd\"\nlr = 1e-6";
    let wrong = digits("[32]", slow, "policy = \"fp16\"\nloss_scale = { kind = \"static\", scale = 1e12 }");
    let found = examined(&wrong);
    let first = &found.diagnosis.fixes[0];
    assert!(matches!(first.trial, Trial::Finite { steps: ..24, .. }), "{}", said(&found));
    assert!(first.to_string().contains("too few to say whether it learns"), "{first}");
    // With it no step fails, and more steps show no learning either.
    assert!(!examined(&with(&wrong, first)).failed);
}

/// 400 rows whose class does not depend on the only feature.
fn no_signal(folder: &Path, optimiser: &str) -> Experiment {
    let rows: String = (0..400).map(|i| format!("{},c{}\n", i % 2, i / 2 % 2)).collect();
    std::fs::write(folder.join("flat.csv"), format!("a,class\n{rows}")).unwrap();
    let csv = "kind = \"csv\"\npath = \"flat.csv\"\ntarget = \"class\"";
    experiment(csv, "[32]", optimiser, "policy = \"bf16\"", folder)
}

#[test]
fn what_does_not_learn_without_a_cause_has_losses_in_place_of_one() {
    let folder = tempfile::tempdir().unwrap();
    let found = examined(&no_signal(folder.path(), GOOD));
    let Cause::DoesNotLearn { loss, constant, fp32 } = found.diagnosis.cause else {
        panic!("{}", said(&found))
    };
    assert!(loss >= constant && fp32.unwrap() >= constant, "{}", said(&found));
    assert!(said(&found).contains("the model does not learn, and every value was in range"));
    // Of a model that learns it is not said.
    assert!(!said(&examined(&digits("[32]", GOOD, "policy = \"bf16\""))).contains("does not learn"));
}

#[test]
fn what_does_not_help_is_said_to_be_no_help() {
    let folder = tempfile::tempdir().unwrap();
    let experiment = no_signal(folder.path(), GOOD);
    let found = examined(&experiment);
    let tried: Vec<_> = found.diagnosis.evidence.iter().filter(|e| e.contains("and no help: ")).collect();
    assert!(!tried.is_empty() && !said(&found).contains("it worked"), "{}", said(&found));
    // As is found when it is made.
    let (_, rate) = tried[0].split_once("`lr = ").unwrap();
    let optimiser = format!("kind = \"sgd\"\nlr = {}", rate.split('`').next().unwrap());
    let made = no_signal(folder.path(), &optimiser);
    assert_ne!(examined(&made).learning.learns, Learns::Yes);
}

#[test]
fn exceptions_that_harm_are_named() {
    let overrides = "policy = \"nvfp4\"\noverrides = [{ pattern = \"*\", rule = \"low\" }]";
    let wrong = digits("[32, 32]", "kind = \"sgd\"\nlr = 0.01", overrides);
    let found = examined(&wrong);
    assert!(
        found
            .diagnosis
            .cause
            .sentence()
            .starts_with("`overrides` in [precision]: the model learns less with"),
        "{}",
        said(&found)
    );
    let without = examined(&with(&wrong, &found.diagnosis.fixes[0]));
    assert!(without.learning.loss < found.learning.loss, "{} {}", said(&found), said(&without));
}

#[test]
fn a_precision_that_does_not_train_a_model_is_named() {
    let overrides = "policy = \"nvfp4\"\noverrides = [{ pattern = \"*\", rule = \"low\" }]";
    let found = examined(&digits("[8]", GOOD, overrides));
    let sentence = found.diagnosis.cause.sentence();
    assert!(sentence.contains("nvfp4 does not train this model as f32 does"), "{}", said(&found));
    let wide = examined(&digits("[8]", GOOD, "policy = \"fp32\""));
    assert!(1.1 * wide.learning.loss < found.learning.loss, "{} {}", said(&found), said(&wide));
    // Nor is it said of one that does.
    assert_eq!(examined(&digits("[32]", GOOD, "policy = \"bf16\"")).diagnosis.cause, Cause::Nothing);
}

#[test]
fn parameters_that_do_not_move_are_named() {
    let text = format!(
        "[data]\n{DIGITS}\n[model]\nkind = \"mlp\"\nhidden = [32]\n[optimiser]\n{GOOD}\n[train]\nsteps = 100\n\
         batch = 32\ngroups = [{{ pattern = \"layers\", lr = 1e-9 }}]\n[precision]\npolicy = \"bf16\"\n"
    );
    let wrong = parsed(&text, Path::new("."));
    let found = examined(&wrong);
    let sentence = found.diagnosis.cause.sentence();
    assert!(sentence.contains("what may move is not enough for the model to learn"), "{}", said(&found));
    // With all of them it does.
    assert_eq!(examined(&with(&wrong, &found.diagnosis.fixes[0])).learning.learns, Learns::Yes);
}
