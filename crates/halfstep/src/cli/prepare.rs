//! From a recipe's file to an experiment, and the files every run directory has.

use std::path::{Path, PathBuf};

use halfstep::evidence::units;
use halfstep::graph::engine::Engine;
use halfstep::graph::precision::{Policy, PrecisionPlan};
use halfstep::graph::{MemoryReport, StateBytes};
use halfstep::nn::{InputSpec, ModelSpec, parameter_count};
use halfstep::train::recipe::{Experiment, Recipe};
use halfstep::train::run_dir::{self, RunDir, RunInfo};
use halfstep::train::run_log::Lines;
use serde::Serialize;

use super::failure::Failure;
use super::{lint, machine, memory, progress};

/// The recipe that `compare` runs when none is named.
const DEFAULT: &str = include_str!("../../../../recipes/fashion-cnn.toml");

/// Reads the recipe, or the default one.
pub fn recipe(path: Option<&Path>) -> Result<Recipe, Failure> {
    Ok(match path {
        Some(path) => Recipe::read(path)?,
        None => Recipe::parse("fashion-cnn.toml", DEFAULT, Path::new("."))?,
    })
}

/// An error unless there is a precision of that name.
pub fn known_precision(name: &str) -> Result<(), Failure> {
    if Policy::NAMES.contains(&name) {
        return Ok(());
    }
    let near = halfstep::data::nearest(name, Policy::NAMES);
    let help = near.map(|n| format!("did you mean `{n}`? ")).unwrap_or_default();
    let help = format!("{help}There are {}.", Policy::NAMES.join(", "));
    Err(Failure::asked(format!("there is no precision `{name}`"), help))
}

/// An error unless the engine runs these precisions as the recipe has them.
pub fn check_supported(
    experiment: &Experiment,
    engine: &dyn Engine,
    policies: &[String],
) -> Result<(), Failure> {
    for name in policies {
        let resolved = experiment.session_spec(name, experiment.recipe.seed);
        let (policy, _) = resolved.map_err(|e| Failure::asked(e.to_string(), ""))?;
        engine.target().supports(&policy)?;
    }
    Ok(())
}

/// Loads data and builds the model.
pub fn prepare(recipe: Recipe) -> Result<Experiment, Failure> {
    let spinner = progress::spinner("loading data");
    let prepared = recipe.prepare();
    spinner.finish_and_clear();
    let experiment = prepared?;
    // Weights and two moments in f32; what else a step needs is known once it is planned.
    machine::check_memory("training this model", parameters(&experiment)?.saturating_mul(12))?;
    Ok(experiment)
}

/// The model in words.
pub fn describe_model(experiment: &Experiment) -> String {
    describe_spec(&experiment.recipe.model)
}

/// A model of these sizes in words.
pub fn describe_spec(spec: &ModelSpec) -> String {
    let list = |sizes: &[usize]| sizes.iter().map(usize::to_string).collect::<Vec<_>>().join("-");
    match spec {
        ModelSpec::Mlp(m) if m.hidden.is_empty() => "linear model".into(),
        ModelSpec::Mlp(m) if m.hidden.len() > 4 && m.hidden.windows(2).all(|w| w[0] == w[1]) => {
            format!("mlp {} layers × {}", m.hidden.len(), m.hidden[0])
        }
        ModelSpec::Mlp(m) => format!("mlp {}", list(&m.hidden)),
        ModelSpec::Cnn(m) => format!("cnn {}, hidden {}", list(&m.channels), m.hidden),
        ModelSpec::Resnet18(m) => format!("resnet18, width {}", m.width),
        ModelSpec::Gpt(m) => format!("gpt {} layers × {}", m.layers, m.width),
    }
}

/// The form of a sample in words.
fn describe_sample(input: &InputSpec) -> String {
    match *input {
        InputSpec::Features { width } => format!("{width} numbers each"),
        InputSpec::Image { height, width, channels: 1 } => format!("{height}×{width} gray"),
        InputSpec::Image { height, width, .. } => format!("{height}×{width} colour"),
        InputSpec::Tokens { length, vocab } => format!("windows of {length} tokens out of {vocab}"),
    }
}

/// The data in words.
pub fn describe_data(experiment: &Experiment) -> String {
    use halfstep::data::DataSpec;
    let name = match &experiment.recipe.data {
        DataSpec::Bundled(bundled) => bundled.name().to_string(),
        DataSpec::Idx(_) => "IDX images".into(),
        DataSpec::Images(images) => file_name(&images.path),
        DataSpec::Csv(csv) => file_name(&csv.path),
        DataSpec::Text(text) => file_name(&text.path),
    };
    let info = &experiment.info;
    let (train, test) = (units::count(info.train_samples as u64), units::count(info.test_samples as u64));
    format!("{name} ({train} train, {test} test samples; {})", describe_sample(&experiment.input))
}

fn file_name(path: &Path) -> String {
    path.file_name().map_or_else(|| path.display().to_string(), |n| n.to_string_lossy().into_owned())
}

/// Recipe, data and model, as the first lines about an experiment.
pub fn about(experiment: &Experiment) -> Result<Vec<(&'static str, String)>, Failure> {
    let parameters = units::count(parameters(experiment)? as u64);
    Ok(vec![
        ("recipe", experiment.recipe.name.clone()),
        ("data", describe_data(experiment)),
        ("model", format!("{}, {parameters} parameters", describe_model(experiment))),
    ])
}

/// Trained numbers of the model.
pub fn parameters(experiment: &Experiment) -> Result<usize, Failure> {
    parameter_count(experiment.model.as_ref(), &experiment.input)
        .map_err(|e| Failure::failed(format!("the model cannot be built: {e}")))
}

/// `plan.json` of one precision.
#[derive(Serialize)]
struct PlanFile {
    policy: String,
    engine: String,
    arena_bytes: usize,
    live_bytes: usize,
    state_bytes: StateBytes,
    /// Everything the engine holds for a step, by region and purpose.
    memory: MemoryReport,
    /// Work added by computing activations again, as a share; 0 without a memory budget.
    recomputed_work: f64,
    /// Of the copy that a checkpoint is written from; none where no checkpoints are kept.
    snapshot_bytes: usize,
    compile_ms: f64,
    precision: PrecisionPlan,
}

/// Makes the run directory with everything that is known before the first step.
pub fn run_dir(
    experiment: &Experiment,
    engine: &dyn Engine,
    policies: &[String],
    out: Option<&PathBuf>,
) -> Result<(RunDir, Lines), Failure> {
    begin(experiment, engine, policies, None, || {
        Ok(match out {
            Some(path) => RunDir::create_at(path)?,
            None => RunDir::create(Path::new("runs"), &experiment.recipe.name)?,
        })
    })
}

/// Writes everything that is known before the first step to the run directory that `make` makes.
pub fn begin(
    experiment: &Experiment,
    engine: &dyn Engine,
    policies: &[String],
    info: Option<RunInfo>,
    make: impl FnOnce() -> Result<RunDir, Failure>,
) -> Result<(RunDir, Lines), Failure> {
    check_supported(experiment, engine, policies)?;
    memory::check(experiment, engine, policies, info.is_some())?;
    lint::warn(experiment, policies)?;
    // Compiled first: nothing is written for a recipe that does not compile.
    let mut plans = Vec::new();
    for policy in policies {
        let session = experiment.session(engine, policy, experiment.recipe.seed)?;
        plans.push(PlanFile {
            policy: policy.clone(),
            engine: engine.name(),
            arena_bytes: session.plan().arena_bytes,
            live_bytes: session.plan().live_bytes,
            state_bytes: session.plan().state_bytes(),
            memory: session.plan().memory(),
            recomputed_work: session.recomputation().map_or(0.0, |r| r.extra_work),
            snapshot_bytes: if info.is_some() { session.snapshot_bytes() } else { 0 },
            compile_ms: session.compile_time().as_secs_f64() * 1e3,
            precision: session.precision().clone(),
        });
    }
    let resolved = experiment.recipe.resolved()?;
    let dir = make()?;
    dir.write_json(run_dir::PREPROCESSING, &experiment.data.preprocessing)?;
    dir.write_json(run_dir::PLAN, &plans)?;
    if let Some(info) = info {
        dir.write_json(run_dir::RUN, &info)?;
    }
    let lines = Lines::create_on(dir.files(), &dir.file(run_dir::METRICS))?;
    // Last: a directory that has it has everything.
    dir.write(run_dir::RECIPE, resolved.as_bytes())?;
    Ok((dir, lines))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::test_engine::Other;

    const RECIPE: &str = "[data]\nkind = \"bundled\"\nname = \"digits\"\nlimit_train = 300\nlimit_test = 10\n\
        [model]\nkind = \"mlp\"\nhidden = [8]\n[train]\nsteps = 1\nbatch = 8\n";

    #[test]
    fn a_precision_that_the_engine_lacks_is_refused_before_anything_is_written() {
        let experiment = Recipe::parse("r.toml", RECIPE, Path::new(".")).unwrap().prepare().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("run");
        let begin = |policies: &[&str]| {
            let policies: Vec<String> = policies.iter().map(|p| p.to_string()).collect();
            run_dir(&experiment, &Other::new(), &policies, Some(&out))
        };
        let Err(refused) = begin(&["fp32", "bf16"]) else { panic!("bf16 was taken") };
        let said = refused.to_text();
        assert!(said.contains("`bf16` does not run on other: it stores no bf16"), "{said}");
        assert!(said.contains("another precision"), "{said}");
        assert!(!out.exists());
        assert!(begin(&["fp32"]).is_ok() && out.is_dir());
    }
}
