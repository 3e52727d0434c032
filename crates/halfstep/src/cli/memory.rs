//! Whether a run fits in memory, before it begins.

use halfstep::evidence::units;
use halfstep::graph::engine::{Engine, Target};
use halfstep::graph::engine_info::FreeMemory;
use halfstep::graph::precision::Policy;
use halfstep::graph::{ByteSize, Footprint};
use halfstep::train::memory::{StepStages, step_stages};
use halfstep::train::recipe::Experiment;
use halfstep::train::session::TrainError;
use halfstep::train::stages::stages;
use halfstep::train::step::{eval_graph, snapshot_bytes};

use super::failure::Failure;
use super::gpus;

/// Bytes that a run needs at one time, by what for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Need {
    /// Weights, moments and the rest of the state.
    state: usize,
    /// The arena of the step, and what the engine holds besides.
    scratch: usize,
    /// The copy of the state that a checkpoint is written from; none where it is not in the same
    /// memory.
    snapshot: usize,
    /// What an evaluation adds, where memory is taken in advance.
    evaluation: usize,
}

impl Need {
    fn total(self) -> usize {
        self.state + self.scratch + self.snapshot + self.evaluation
    }
}

/// What `policy` needs for a batch in so many parts, from the plan alone, within the recipe's
/// memory budget or another.
fn need(
    experiment: &Experiment,
    engine: &dyn Engine,
    policy: &str,
    parts: usize,
    checkpoints: bool,
    budget: Option<ByteSize>,
) -> Result<Need, Failure> {
    let (policy, mut spec) = experiment.session_spec(policy, experiment.recipe.seed)?;
    spec.options.accumulate = parts;
    spec.memory_budget = budget.or(spec.memory_budget);
    let (model, input) = (experiment.model.as_ref(), &experiment.input);
    let StepStages { train, apply } = step_stages(model, input, &policy, &spec, engine.target())?;
    let plan = train.plan;
    let held = apply.map_or(plan.footprint, |update| plan.footprint.together(update.plan.footprint));
    let (state, scratch) = (held.state, held.total() - held.state);
    if gpus::is_gpu(engine) {
        let batch = experiment.recipe.train.batch / parts.max(1);
        let evaluation = evaluation_bytes(experiment, batch, &policy, held, engine.target())?;
        return Ok(Need { state, scratch, snapshot: 0, evaluation });
    }
    let snapshot = if checkpoints { snapshot_bytes(&plan.graph.slots) } else { 0 };
    // Programs run one after another in one arena.
    Ok(Need { state, scratch, snapshot, evaluation: 0 })
}

/// What a program that evaluates so many samples adds to what is held.
pub fn evaluation_bytes(
    experiment: &Experiment,
    batch: usize,
    policy: &Policy,
    held: Footprint,
    target: &dyn Target,
) -> Result<usize, Failure> {
    let model = experiment.model.as_ref();
    let graph = eval_graph(model, &experiment.input, batch);
    let evaluation = stages(graph.map_err(TrainError::from)?, policy, target).plan.footprint;
    // It reads a part of the state.
    let state = held.state;
    Ok(held.together(Footprint { state, ..evaluation }).total() - held.total())
}

/// An error if one of the precisions does not fit in the memory that is free, with the setting that
/// would make it fit. Where the engine does not say how much that is, nothing is refused.
pub fn check(
    experiment: &Experiment,
    engine: &dyn Engine,
    policies: &[String],
    checkpoints: bool,
) -> Result<(), Failure> {
    let Some(free) = engine.free_memory() else { return Ok(()) };
    check_within(&free, experiment, engine, policies, checkpoints)
}

/// Bytes that a run in `policy` needs at one time.
pub fn total(experiment: &Experiment, engine: &dyn Engine, policy: &str) -> Result<usize, Failure> {
    let parts = experiment.recipe.train.options.accumulate;
    Ok(need(experiment, engine, policy, parts, true, None)?.total())
}

fn check_within(
    free: &FreeMemory,
    experiment: &Experiment,
    engine: &dyn Engine,
    policies: &[String],
    checkpoints: bool,
) -> Result<(), Failure> {
    let (batch, parts) = (experiment.recipe.train.batch, experiment.recipe.train.options.accumulate);
    for policy in policies {
        let found = need(experiment, engine, policy, parts, checkpoints, None)?;
        if found.total() <= free.bytes {
            continue;
        }
        let copy = match found.snapshot {
            0 => String::new(),
            bytes => format!(", {} for the copy that checkpoints are written from", units::bytes(bytes)),
        };
        let evaluation = match found.evaluation {
            0 => String::new(),
            bytes => format!(", {} more for evaluations", units::bytes(bytes)),
        };
        let message = format!(
            "this run in {policy} needs {}: {} for weights and optimiser, {} for a step of {} samples{copy}{evaluation}; \
             {} {}",
            units::bytes(found.total()),
            units::bytes(found.state),
            units::bytes(found.scratch),
            batch / parts,
            units::bytes(free.bytes),
            free.limit,
        );
        // What does not even keep within its budget does not fit.
        let fits = |policy: &str, parts: usize, budget: Option<ByteSize>| {
            let need = need(experiment, engine, policy, parts, checkpoints, budget).ok();
            need.filter(|need| need.total() <= free.bytes)
        };
        return Err(Failure::asked(message, advice(experiment, policy, found, free.bytes, fits)));
    }
    Ok(())
}

/// What to change: the precision; or the number of parts that a batch is worked through in, or what
/// is computed again, which leave what is trained as it is.
fn advice(
    experiment: &Experiment,
    policy: &str,
    found: Need,
    limit: usize,
    fits: impl Fn(&str, usize, Option<ByteSize>) -> Option<Need>,
) -> String {
    let fixed = found.state + found.snapshot + found.evaluation;
    if fixed > limit {
        return "weights and optimiser alone are too large: choose a smaller model".into();
    }
    let (batch, parts) = (experiment.recipe.train.batch, experiment.recipe.train.options.accumulate);
    let mut settings = Vec::new();
    for other in experiment.recipe.precision.policies.iter().filter(|p| *p != policy) {
        if let Some(need) = fits(other, parts, None) {
            settings.push(format!("--precision {other} ({})", units::bytes(need.total())));
        }
    }
    let mut more = (parts + 1..=batch).filter(|&more| batch.is_multiple_of(more));
    if let Some((more, need)) = more.find_map(|more| Some((more, fits(policy, more, None)?))) {
        settings.push(format!("`accumulate = {more}` in [train] ({})", units::bytes(need.total())));
    }
    let kilobytes = (limit - found.snapshot - found.evaluation) / 1000;
    if let Some(need) = fits(policy, parts, Some(ByteSize(kilobytes * 1000))) {
        let setting = format!("`memory_budget = \"{kilobytes} kB\"` in [train]");
        settings.push(format!("{setting} ({}, some of it computed twice)", units::bytes(need.total())));
    }
    match settings.is_empty() {
        true => "even single samples are too large: choose a smaller model".into(),
        false => format!("it would fit with {}", settings.join(" or ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use halfstep::EngineRequest;
    use halfstep::train::recipe::Recipe;

    const RECIPE: &str = "[data]\nkind = \"bundled\"\nname = \"digits\"\nlimit_train = 300\nlimit_test = 10\n\
        [model]\nkind = \"mlp\"\nhidden = [64]\n[train]\nsteps = 1\nbatch = 256\n";

    #[test]
    fn what_does_not_fit_is_refused_with_what_would() {
        let recipe = Recipe::parse("r.toml", RECIPE, std::path::Path::new(".")).unwrap();
        let experiment = recipe.prepare().unwrap();
        let engine = halfstep::engine(EngineRequest::default()).unwrap();
        let policies = ["fp32".to_string()];
        let need =
            |policy: &str, parts| need(&experiment, engine.as_ref(), policy, parts, true, None).unwrap();
        let check = |bytes| {
            let free = FreeMemory { bytes, limit: "are left of what the container or job may use".into() };
            check_within(&free, &experiment, engine.as_ref(), &policies, true)
        };
        let whole = need("fp32", 1);
        // All state is f32: four weights, two moments of each and a counter, each slot at a
        // multiple of 64 bytes.
        assert!((whole.snapshot..whole.snapshot + 13 * 64).contains(&whole.state), "{whole:?}");
        assert!(check(whole.total()).is_ok());
        let refused = |bytes| check(bytes).expect_err("refused").to_text();
        let said = refused(whole.total() - 1);
        assert!(said.contains(&units::bytes(whole.total())) && said.contains("container or job"), "{said}");
        assert!(said.contains("it would fit with") && said.contains("`accumulate = 2` in [train]"), "{said}");
        // What is advised fits, and one part fewer does not.
        let eighth = need("fp32", 8).total();
        assert!(need("fp32", 4).total() > eighth && need("bf16", 1).total() > eighth);
        let said = refused(eighth);
        assert!(said.contains("`accumulate = 8`") && !said.contains("--precision"), "{said}");
        let said = refused(whole.state);
        assert!(said.contains("choose a smaller model"), "{said}");
    }
}
