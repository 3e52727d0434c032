//! Faults as people make them in recipes and weights, each in two models: the doctor or lint names
//! the key or tensor first, and what it offers was tried. And healthy runs, odd ones among them, in
//! which nothing is found.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use halfstep_cpu::CpuEngine;
use halfstep_cpu::isa::{Isa, Level};
use halfstep_graph::engine::HostSlice;
use halfstep_train::change::changed;
use halfstep_train::checkpoint;
use halfstep_train::doctor::{Cause, Trial, Without};
use halfstep_train::examination::{Examination, Examined};
use halfstep_train::lint::Found;
use halfstep_train::recipe::{Experiment, Recipe};

const STEPS: u64 = 100;
const MLP: &str = "kind = \"mlp\"\nhidden = [80]";
const CNN: &str = "kind = \"cnn\"\nchannels = [8, 8]\nhidden = 32";
const RESNET: &str = "kind = \"resnet18\"\nwidth = 4";
const WIDER: &str = "kind = \"resnet18\"\nwidth = 6";
const ADAMW: &str = "kind = \"adamw\"\nlr = 3e-3";
const SGD: &str = "kind = \"sgd\"\nlr = 0.05";

/// The parts of a recipe.
#[derive(Clone)]
struct Parts {
    model: &'static str,
    data: String,
    optimiser: String,
    schedule: String,
    train: String,
    precision: String,
}

impl Parts {
    fn new(model: &'static str, optimiser: &str, policy: &str) -> Parts {
        Parts {
            model,
            data: String::new(),
            optimiser: optimiser.into(),
            schedule: "kind = \"constant\"".into(),
            train: String::new(),
            precision: format!("policy = \"{policy}\""),
        }
    }

    fn recipe(&self) -> String {
        let Parts { model, data, optimiser, schedule, train, precision } = self;
        format!(
            "[data]\nkind = \"bundled\"\nname = \"digits\"\nlimit_train = 400\nlimit_test = 50\n{data}\n[model]\n{model}\n\
             [optimiser]\n{optimiser}\n[schedule]\n{schedule}\n[train]\nsteps = {STEPS}\nbatch = 32\n{train}\n\
             [precision]\n{precision}\n"
        )
    }
}

/// What is changed of the weights that a run begins with.
#[derive(Clone, Copy)]
struct Spoilt {
    slot: &'static str,
    with: fn(f32) -> f32,
}

struct Fault {
    what: &'static str,
    /// What the first sentence begins with.
    named: &'static str,
    right: Parts,
    wrong: Parts,
    spoilt: Option<Spoilt>,
}

fn portable() -> CpuEngine {
    CpuEngine::new(Isa::new(Level::Portable).unwrap(), NonZeroUsize::new(2).unwrap())
}

fn fault(what: &'static str, named: &'static str, right: &Parts, plant: impl Fn(&mut Parts)) -> Fault {
    let mut wrong = right.clone();
    plant(&mut wrong);
    Fault { what, named, right: right.clone(), wrong, spoilt: None }
}

fn weights(
    what: &'static str,
    named: &'static str,
    right: &Parts,
    slot: &'static str,
    with: fn(f32) -> f32,
) -> Fault {
    Fault { what, named, right: right.clone(), wrong: right.clone(), spoilt: Some(Spoilt { slot, with }) }
}

fn faults() -> Vec<Fault> {
    let mlp = |policy| Parts::new(MLP, ADAMW, policy);
    let cnn = |policy| Parts::new(CNN, ADAMW, policy);
    let falling = Parts { schedule: "kind = \"cosine\"\nwarmup = 5".into(), ..cnn("bf16") };
    let tiny_eps = |model| Parts::new(model, "kind = \"adamw\"\nlr = 3e-3\neps = 1e-15", "bf16");
    let sgd = |model, policy| Parts::new(model, SGD, policy);
    let optimiser = |text: &'static str| move |p: &mut Parts| p.optimiser = text.into();
    let train = |text: &'static str| move |p: &mut Parts| p.train = text.into();
    let precision = |text: &'static str| move |p: &mut Parts| p.precision = text.into();
    let data = |text: &'static str| move |p: &mut Parts| p.data = text.into();
    let schedule = |text: &'static str| move |p: &mut Parts| p.schedule = text.into();
    vec![
        fault("rate too high", "`lr", &sgd(MLP, "fp16"), optimiser("kind = \"sgd\"\nlr = 1e5")),
        fault("rate too high", "`lr", &cnn("bf16"), optimiser("kind = \"adamw\"\nlr = 30.0")),
        fault("rate too low", "`lr`", &mlp("bf16"), optimiser("kind = \"adamw\"\nlr = 1e-9")),
        fault("rate too low", "`lr`", &sgd(CNN, "fp32"), optimiser("kind = \"sgd\"\nlr = 1e-8")),
        fault(
            "weight decay · lr > 1",
            "`weight_decay",
            &mlp("bf16"),
            optimiser("kind = \"adamw\"\nlr = 3e-3\nweight_decay = 1000.0"),
        ),
        fault(
            "weight decay · lr > 1",
            "`weight_decay",
            &sgd(CNN, "fp32"),
            optimiser("kind = \"sgd\"\nlr = 0.05\nweight_decay = 60.0"),
        ),
        fault("clipped to nothing", "`clip`", &mlp("bf16"), train("clip = 1e-9")),
        fault("clipped to nothing", "`clip`", &sgd(CNN, "bf16"), train("clip = 1e-9")),
        fault(
            "loss scale too high",
            "`loss_scale`",
            &mlp("fp16"),
            precision("policy = \"fp16\"\nloss_scale = { kind = \"static\", scale = 1099511627776.0 }"),
        ),
        fault(
            "loss scale too high",
            "`loss_scale`",
            &cnn("fp16"),
            precision(
                "policy = \"fp16\"\nloss_scale = { kind = \"dynamic\", init = 1e9, floor = 1e9, ceiling = 1e9 }",
            ),
        ),
        fault(
            "loss scale too low",
            "`loss_scale`",
            &mlp("fp16"),
            precision("policy = \"fp16\"\nloss_scale = { kind = \"static\", scale = 1e-6 }"),
        ),
        fault(
            "loss scale too low",
            "`loss_scale`",
            &cnn("fp16"),
            precision("policy = \"fp16\"\nloss_scale = { kind = \"static\", scale = 1e-6 }"),
        ),
        fault("eps swallows", "`eps`", &mlp("bf16"), optimiser("kind = \"adamw\"\nlr = 3e-3\neps = 1e4")),
        fault("eps swallows", "`eps`", &cnn("fp32"), optimiser("kind = \"adamw\"\nlr = 3e-3\neps = 1.0")),
        fault("warm-up to the end", "`warmup`", &mlp("bf16"), schedule("kind = \"constant\"\nwarmup = 100")),
        fault("warm-up to the end", "`warmup`", &falling, schedule("kind = \"cosine\"\nwarmup = 99")),
        fault("average over the run", "`ema`", &mlp("bf16"), train("ema = 0.9999")),
        fault("average over the run", "`ema`", &cnn("bf16"), train("ema = 0.999")),
        fault("units of bytes", "`mean`", &mlp("bf16"), data("mean = [78.0]\nstd = [96.0]")),
        fault("units of bytes", "`std`", &cnn("bf16"), data("mean = [0.0]\nstd = [0.004]")),
        weights("dead layer", "`layers.0.bias`", &mlp("bf16"), "layers.0.bias", |_| -1e3),
        weights("dead layer", "`convs.1.bias`", &cnn("bf16"), "convs.1.bias", |_| -3.0),
        weights(
            "negative variance",
            "`stem.1.running_var`",
            &Parts::new(RESNET, SGD, "bf16"),
            "stem.1.running_var",
            |_| -0.5,
        ),
        weights(
            "negative variance",
            "`blocks.0.b2.running_var`",
            &Parts::new(WIDER, ADAMW, "fp32"),
            "blocks.0.b2.running_var",
            |_| -1e-3,
        ),
        weights("weights of another size", "`layers.1.weight`", &mlp("fp16"), "layers.1.weight", |w| w * 1e6),
        weights("weights of another size", "`hidden.weight`", &cnn("fp16"), "hidden.weight", |w| w * 3e5),
        fault(
            "momentum over the run",
            "`momentum`",
            &sgd(MLP, "bf16"),
            optimiser("kind = \"sgd\"\nlr = 0.05\nmomentum = 0.9999"),
        ),
        fault(
            "momentum over the run",
            "`momentum`",
            &sgd(CNN, "fp32"),
            optimiser("kind = \"sgd\"\nlr = 0.05\nmomentum = 0.99999"),
        ),
        fault(
            "all frozen but biases",
            "`groups`",
            &mlp("bf16"),
            train(
                "groups = [{ pattern = \"layers.*.weight\", frozen = true }, { pattern = \"layers.0.bias\", frozen = true }]",
            ),
        ),
        fault(
            "rate of a group",
            "`groups`",
            &cnn("bf16"),
            train("groups = [{ pattern = \"*\", lr = 1e-8 }]"),
        ),
        fault(
            "nothing is lowered",
            "`policy`",
            &Parts::new("kind = \"mlp\"\nhidden = []", ADAMW, "bf16"),
            precision("policy = \"fp8\""),
        ),
        fault(
            "nothing is lowered",
            "`overrides`",
            &cnn("bf16"),
            precision("policy = \"bf16\"\noverrides = [{ pattern = \"*\", rule = \"f32\" }]"),
        ),
        fault(
            "moments that jump",
            "`moments`",
            &tiny_eps(MLP),
            precision("policy = \"bf16\"\n[precision.bf16]\nmoments = \"int8\""),
        ),
        fault(
            "moments that jump",
            "`moments`",
            &tiny_eps("kind = \"cnn\"\nchannels = [8, 8]\nhidden = 160"),
            precision("policy = \"bf16\"\n[precision.bf16]\nmoments = \"int8\""),
        ),
        fault(
            "margin of a scale",
            "`margin`",
            &mlp("fp8"),
            precision("policy = \"fp8\"\n[precision.fp8]\nmargin = 16"),
        ),
        fault(
            "margin of a scale",
            "`margin`",
            &cnn("fp8-current"),
            precision("policy = \"fp8-current\"\n[precision.fp8-current]\nmargin = 16"),
        ),
    ]
}

fn prepared(parts: &Parts) -> Experiment {
    Recipe::parse("recipe.toml", &parts.recipe(), Path::new(".")).unwrap().prepare().unwrap()
}

fn examined(experiment: &Experiment, start: Option<&Path>) -> Examination {
    examined_for(experiment, start, STEPS, true)
}

fn examined_for(experiment: &Experiment, start: Option<&Path>, steps: u64, thorough: bool) -> Examination {
    let engine = portable();
    let policy = experiment.recipe.precision.policy.clone();
    let examined = Examined { engine: &engine, policy: &policy, seed: 0, from: None, start, steps, thorough };
    experiment.examine(&examined, &mut |_, _| true).unwrap()
}

/// A file of first weights in which a slot is spoilt.
fn spoilt(experiment: &Experiment, folder: &Path, spoilt: Spoilt) -> PathBuf {
    let engine = portable();
    let mut session = experiment.session(&engine, "fp32", 0).unwrap();
    let values: Vec<f32> =
        session.download(spoilt.slot).unwrap().f32().iter().map(|&v| (spoilt.with)(v)).collect();
    session.upload(spoilt.slot, HostSlice::F32(&values)).unwrap();
    let path = folder.join("start.safetensors");
    checkpoint::save(&session, &path).unwrap();
    path
}

/// Loss of the training data after the changes that lint advises, if it names the key first.
fn by_lint(fault: &Fault, found: &Examination) -> Option<f64> {
    let first = found.warnings.first()?;
    let text = first.to_string();
    let (_, after) = text.split_once(": `")?;
    if !format!("`{after}").starts_with(fault.named) {
        return None;
    }
    let Found::Setting(setting) = &first.found else { return None };
    let right = changed(&prepared(&fault.wrong).recipe, &setting.changes).unwrap().prepare().unwrap();
    Some(examined(&right, None).learning.loss)
}

/// What is wrong with what was found; nothing if the key is named first and what is offered works.
fn judge(fault: &Fault, found: &Examination, loss: f64) -> Result<(), String> {
    let sentence = found.diagnosis.cause.sentence();
    let (named, after) = if found.diagnosis.cause == Cause::Nothing {
        (by_lint(fault, found).is_some(), by_lint(fault, found))
    } else {
        let worked = found.diagnosis.fixes.iter().find_map(|fix| match fix.trial {
            Trial::Worked { loss, .. } => Some(loss),
            _ => None,
        });
        (sentence.starts_with(fault.named), worked)
    };
    if !named {
        return Err(format!("{} is not named first", fault.named));
    }
    let Some(after) = after else { return Err("no fix worked".into()) };
    if after > 1.1 * loss || after >= found.learning.constant {
        return Err(format!("the fix leads to {after}, and the right recipe to {loss}"));
    }
    Ok(())
}

#[test]
fn planted_faults_are_named_and_their_fixes_work() {
    let mut wrong = Vec::new();
    let all = faults();
    assert!(all.len() >= 32);
    for fault in &all {
        let right = examined(&prepared(&fault.right), None);
        assert_eq!(
            right.diagnosis.cause,
            Cause::Nothing,
            "{} without the fault:\n{}",
            fault.what,
            right.diagnosis
        );
        let folder = tempfile::tempdir().unwrap();
        let experiment = prepared(&fault.wrong);
        let start = fault.spoilt.map(|of| spoilt(&experiment, folder.path(), of));
        let found = examined(&experiment, start.as_deref());
        let result = judge(fault, &found, right.learning.loss);
        let warnings: String = found.warnings.iter().map(|w| format!("warning: {w}\n")).collect();
        let report = format!("{}: {result:?}\n{}{warnings}", fault.what, found.diagnosis);
        println!("{report}");
        if result.is_err() {
            wrong.push(report);
        }
    }
    assert!(wrong.len() <= 3, "{} of {} missed:\n{}", wrong.len(), all.len(), wrong.join("\n"));
}

#[test]
fn in_healthy_runs_nothing_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let rows: String = (0..400)
        .map(|i| {
            let rare = i % 20 == 0;
            let a = f64::from((i * 37) % 101) / 50.0 + if rare { 3.0 } else { 0.0 };
            format!("{a},{},{}\n", (i * 53) % 97, if rare { "rare" } else { "common" })
        })
        .collect();
    std::fs::write(folder.path().join("rare.csv"), format!("a,b,class\n{rows}")).unwrap();
    let with = |plant: &dyn Fn(&mut Parts)| {
        let mut parts = Parts::new(MLP, ADAMW, "bf16");
        plant(&mut parts);
        parts.recipe()
    };
    let csv = with(&|_| ()).replace(
        "kind = \"bundled\"\nname = \"digits\"\nlimit_train = 400\nlimit_test = 50",
        "kind = \"csv\"\npath = \"rare.csv\"\ntarget = \"class\"",
    );
    let gpt = with(&|_| ())
        .replace("name = \"digits\"\nlimit_train = 400", "name = \"shakespeare\"\nsequence = 32")
        .replace(MLP, "kind = \"gpt\"\nwidth = 32\nlayers = 1\nheads = 2\ndropout = 0.9");
    let healthy: Vec<(&str, String)> = vec![
        ("few samples", with(&|_| ()).replace("limit_train = 400", "limit_train = 32")),
        ("nearly one class", csv),
        (
            "a large rate that is fine",
            with(&|p| {
                (p.model, p.optimiser) =
                    ("kind = \"mlp\"\nhidden = []", "kind = \"sgd\"\nlr = 1.0\nmomentum = 0.0".into())
            }),
        ),
        (
            "overflow that the scaler recovers from",
            with(&|p| {
                p.precision = "policy = \"fp16\"\nloss_scale = { kind = \"dynamic\", init = 16777216.0, ceiling = 16777216.0 }".into()
            }),
        ),
        ("frozen layers", with(&|p| p.train = "groups = [{ pattern = \"layers.0\", frozen = true }]".into())),
        ("much dropout", gpt),
        ("a long warm-up", with(&|p| p.schedule = "kind = \"linear\"\nwarmup = 80".into())),
        ("a small eps", with(&|p| p.optimiser = "kind = \"adamw\"\nlr = 3e-3\neps = 1e-15".into())),
        (
            "state in fewer bytes",
            with(&|p| {
                p.precision =
                    "policy = \"bf16\"\n[precision.bf16]\nweights = \"bf16-kahan\"\nmoments = \"int8\"".into()
            }),
        ),
        ("a short average", with(&|p| p.train = "ema = 0.9\nclip = 0.1".into())),
        ("eight bits", with(&|p| p.precision = "policy = \"fp8\"".into())),
        ("batch norm", with(&|p| (p.model, p.train) = (RESNET, "accumulate = 2".into()))),
    ];
    assert!(healthy.len() >= 10);
    for (what, recipe) in healthy {
        let experiment = Recipe::parse("recipe.toml", &recipe, folder.path()).unwrap().prepare().unwrap();
        let found = examined(&experiment, None);
        assert!(
            !found.is_bad() && found.warnings.is_empty(),
            "{what}:\n{}{:?}",
            found.diagnosis,
            found.warnings
        );
        println!("{what}: {:?}", found.learning);
    }
}

#[test]
fn a_fix_of_few_steps_stands_beside_the_run_without_it() {
    let parts = Parts::new(MLP, "kind = \"adamw\"\nlr = 1e-9", "bf16");
    let found = examined_for(&prepared(&parts), None, 6, false);
    assert!(found.diagnosis.cause.sentence().starts_with("`lr`"), "{}", found.diagnosis);
    let fix = &found.diagnosis.fixes[0];
    match &fix.trial {
        Trial::Worked { steps, loss, constant } => assert!(*steps <= 12 && loss < constant, "{fix}"),
        Trial::Finite { steps, without: Without::Higher { loss, with, steps: seen }, .. } => {
            assert!(*steps <= 12 && *seen == 6 && with < loss, "{fix}");
            assert!(fix.to_string().contains("without the fix by more than three standard errors"), "{fix}");
        }
        other => panic!("{other:?}\n{}", found.diagnosis),
    }
    // A loss scale at which every step fails.
    let parts = Parts {
        precision: "policy = \"fp16\"\nloss_scale = { kind = \"static\", scale = 1099511627776.0 }".into(),
        ..Parts::new(MLP, "kind = \"adamw\"\nlr = 1e-4", "fp16")
    };
    let found = examined_for(&prepared(&parts), None, 6, false);
    let fix = &found.diagnosis.fixes[0];
    let fails = matches!(fix.trial, Trial::Finite { without: Without::Failed { .. }, .. });
    assert!(fails || matches!(fix.trial, Trial::Worked { .. }), "{}", found.diagnosis);
}

#[test]
fn labels_without_sense_are_no_fault_of_the_precision() {
    let folder = tempfile::tempdir().unwrap();
    // Remainders of a multiplier that the features say nothing of.
    let rows: String = (0u64..800)
        .map(|i| format!("{},{},{}\n", (i * 37) % 101, (i * 53) % 97, ((i * 2_654_435_761) >> 16) % 2))
        .collect();
    std::fs::write(folder.path().join("noise.csv"), format!("a,b,class\n{rows}")).unwrap();
    for policy in ["bf16", "fp16", "fp8", "bf16\"\n[precision.bf16]\nmoments = \"int8"] {
        let recipe = Parts::new(MLP, ADAMW, policy).recipe().replace(
            "kind = \"bundled\"\nname = \"digits\"\nlimit_train = 400\nlimit_test = 50",
            "kind = \"csv\"\npath = \"noise.csv\"\ntarget = \"class\"",
        );
        let experiment = Recipe::parse("recipe.toml", &recipe, folder.path()).unwrap().prepare().unwrap();
        for thorough in [false, true] {
            let found = examined_for(&experiment, None, STEPS, thorough);
            let blames_precision = match &found.diagnosis.cause {
                Cause::Setting { section, .. } => section.starts_with("precision"),
                Cause::Nothing | Cause::DoesNotLearn { .. } => false,
                _ => true,
            };
            assert!(!blames_precision, "{policy} {thorough}:\n{}", found.diagnosis);
        }
    }
}
