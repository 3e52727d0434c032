//! The search for a precision plan.

use std::num::NonZeroUsize;
use std::path::Path;

use halfstep_cpu::CpuEngine;
use halfstep_cpu::isa::Isa;
use halfstep_graph::engine::Engine;
use halfstep_graph::precision::Rule;
use halfstep_train::memory::step_stages;
use halfstep_train::recipe::{Experiment, PlanFile, Recipe};
use halfstep_train::train_loop::Proceed;
use halfstep_train::tune::{Objective, TuneError, TuneSpec, Tuned, tune};

fn experiment(precision: &str) -> Experiment {
    let text = format!(
        "[data]\nkind = \"bundled\"\nname = \"digits\"\n[model]\nkind = \"mlp\"\nhidden = [96, 48]\n\
         [train]\nepochs = 2\nbatch = 32\n[precision]\n{precision}"
    );
    Recipe::parse("tune", &text, Path::new(".")).unwrap().prepare().unwrap()
}

fn engine() -> CpuEngine {
    CpuEngine::new(Isa::best(), NonZeroUsize::MIN)
}

fn spec(policy: &str) -> TuneSpec {
    TuneSpec {
        policy: policy.into(),
        objective: Objective::Memory,
        max_loss_increase: 0.05,
        // Times are noise at this size.
        max_slowdown: 1e6,
        steps: 40,
        batches: 2,
        seeds: 2,
    }
}

fn search(experiment: &Experiment, spec: TuneSpec) -> Result<Tuned, TuneError> {
    tune(experiment, &engine(), spec, &mut |_| Proceed::Continue)
}

#[test]
fn a_plan_saves_what_it_says_and_keeps_to_the_limit() {
    let experiment = experiment("");
    let engine = engine();
    let tuned = search(&experiment, spec("bf16")).unwrap();
    let names: Vec<&str> = tuned.units.iter().map(|u| u.name.as_str()).collect();
    assert_eq!(names, ["layers.0", "layers.1", "layers.2"]);
    for unit in &tuned.units {
        let s = unit.sensitivity.unwrap();
        // One layer in bf16 turns no gradient round, and does something.
        assert!(s.cosine > 0.99 && s.cosine < 1.0, "{}: {s:?}", unit.name);
        assert!(s.loss > 0.0 && s.update > 0.0 && s.update_to_weight.unwrap() > 0.0, "{}: {s:?}", unit.name);
    }
    let best = &tuned.tried[tuned.best.expect("bf16 trains digits")];
    assert!(best.outcome.bytes < tuned.tried[0].outcome.bytes);
    assert!(best.outcome.loss_increase <= 0.05);
    for tried in &tuned.tried {
        let (policy, session) = experiment.session_spec(&tried.policy.name, 0).unwrap();
        let policy =
            halfstep_graph::precision::Policy { overrides: tried.policy.overrides.clone(), ..policy };
        let model = experiment.model.as_ref();
        let stages = step_stages(model, &experiment.input, &policy, &session, engine.target()).unwrap();
        assert_eq!(tried.outcome.bytes, stages.train.plan.footprint.total(), "{}", tried.name);
    }
}

#[test]
fn a_recipes_own_overrides_are_not_up_for_decision() {
    let experiment = experiment("overrides = [{ pattern = \"layers.1\", rule = \"f32\" }]");
    let tuned = search(&experiment, spec("bf16")).unwrap();
    assert!(tuned.units.iter().all(|u| u.name != "layers.1"));
    for tried in &tuned.tried[1..] {
        assert_eq!(tried.policy.exception("layers.1"), Some(Rule::F32), "{}", tried.name);
    }
}

#[test]
fn what_never_commits_is_never_lowered() {
    // No gradient in f16 survives a scale of 2^100.
    let experiment = experiment("loss_scale = { kind = \"static\", scale = 1.2676506002282294e30 }");
    let tuned = search(&experiment, spec("fp16")).unwrap();
    assert!(tuned.units.iter().all(|u| u.harm.is_none() && !u.lowered), "{:?}", tuned.units);
    assert_eq!(tuned.best, None);
}

#[test]
fn a_plan_slower_than_allowed_is_refused() {
    let tuned = search(&experiment(""), TuneSpec { max_slowdown: -0.999, ..spec("bf16") }).unwrap();
    assert!(tuned.tried.iter().all(|t| !t.within));
    assert_eq!(tuned.best, None);
}

#[test]
fn it_says_why_there_is_nothing_to_search() {
    let error = |e: Result<Tuned, TuneError>| e.map(|_| ()).unwrap_err();
    assert!(matches!(error(search(&experiment(""), spec("fp32"))), TuneError::NothingLow(_)));
    let all = experiment("overrides = [{ pattern = \"*\", rule = \"f32\" }]");
    assert!(matches!(error(search(&all, spec("bf16"))), TuneError::NothingLeft));
    let stopped = tune(&experiment(""), &engine(), spec("bf16"), &mut |_| Proceed::Stop);
    assert!(matches!(error(stopped), TuneError::Stopped));
}

#[test]
fn a_plan_file_is_read_as_it_was_written() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("tuned.toml");
    let tuned = search(&experiment(""), spec("bf16")).unwrap();
    for tried in &tuned.tried {
        let plan = PlanFile::of(&tried.policy);
        std::fs::write(&path, plan.to_toml("two\nlines").unwrap()).unwrap();
        assert_eq!(PlanFile::read(&path).unwrap(), plan);
    }
    let recipe = experiment("policy = \"fp16\"").recipe.with_plan(PlanFile::read(&path).unwrap());
    let last = &tuned.tried[tuned.tried.len() - 1].policy;
    assert_eq!((&recipe.precision.policy, &recipe.precision.overrides), (&last.name, &last.overrides));
    for (text, said) in [
        ("policy = \"bf17\"", "bf17"),
        ("policy = 3", "string"),
        ("policy = \"bf16\"\nrules = []", "rules"),
        ("policy = \"bf16\"\n[[overrides]]\npattern = \"a\"\nrule = \"f64\"", "f64"),
        ("policy = ", "tuned.toml"),
    ] {
        std::fs::write(&path, text).unwrap();
        let message = PlanFile::read(&path).unwrap_err().to_string();
        assert!(message.contains(said), "{text}: {message}");
    }
    assert!(
        PlanFile::read(&place.path().join("tune.toml")).unwrap_err().to_string().contains("no such file")
    );
}
