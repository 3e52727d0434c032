//! The run directory of a new run, with everything that is known before its first step.

use std::path::{Path, PathBuf};

use halfstep::graph::engine::Engine;
use halfstep::graph::precision::PrecisionPlan;
use halfstep::graph::{MemoryReport, StateBytes};
use halfstep::train::recipe::{Experiment, folder_name};
use halfstep::train::run_dir::{self, RunDir, RunDirError, RunInfo};
use halfstep::train::run_log::Lines;
use halfstep::train::samples::RunSamples;
use serde::Serialize;

use super::failure::Failure;
use super::{lint, memory, prepare};

/// The command that makes a run directory without a run.
pub const IMPORT: &str = "import";

/// Folder of the run directories for which no path is given.
pub const RUNS: &str = "runs";

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
    begin(experiment, engine, policies, None, || create_run_dir(out, &experiment.recipe.name))
}

/// Makes a run directory of this path, or of the next free number in [`RUNS`] for a recipe of
/// that name.
pub fn create_run_dir(out: Option<&PathBuf>, name: &str) -> Result<RunDir, RunDirError> {
    match out {
        Some(path) => RunDir::create_at(path),
        None => RunDir::create(Path::new(RUNS), &folder_name(name)),
    }
}

/// Writes everything that is known before the first step to the run directory that `make` makes.
pub fn begin(
    experiment: &Experiment,
    engine: &dyn Engine,
    policies: &[String],
    info: Option<RunInfo>,
    make: impl FnOnce() -> Result<RunDir, RunDirError>,
) -> Result<(RunDir, Lines), Failure> {
    prepare::check_supported(experiment, engine, policies)?;
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
    // Nothing is known of what imported weights were trained on.
    if info.as_ref().is_none_or(|info| info.command != IMPORT) {
        RunSamples::of(&experiment.data, dir.path())?.write(&dir)?;
    }
    dir.write_json(run_dir::PREPROCESSING, &experiment.data.preprocessing)?;
    dir.write_json(run_dir::PLAN, &plans)?;
    if let Some(info) = info {
        dir.write_json(run_dir::RUN, &info)?;
    }
    let lines = Lines::create(dir.files(), &dir.file(run_dir::METRICS))?;
    // Last: a directory that has it has everything.
    dir.write(run_dir::RECIPE, resolved.as_bytes())?;
    Ok((dir, lines))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::test_engine::Other;
    use halfstep::train::recipe::Recipe;

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
