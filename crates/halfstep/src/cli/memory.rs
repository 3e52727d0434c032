//! Whether a run fits in memory, before it begins.

use halfstep::evidence::units;
use halfstep::graph::engine::Engine;
use halfstep::train::recipe::Experiment;
use halfstep::train::session::stages;
use halfstep::train::step::{StepSpec, train_graph};

use super::failure::Failure;
use super::machine::{self, Available};

/// Bytes that a run needs at one time, by what for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Need {
    /// Weights, moments and the rest of the state.
    state: usize,
    /// The arena of the step.
    scratch: usize,
    /// The copy of the state that a checkpoint is written from.
    snapshot: usize,
}

impl Need {
    fn total(self) -> usize {
        self.state + self.scratch + self.snapshot
    }
}

/// What `policy` needs in batches of `batch`, from the plan alone.
fn need(
    experiment: &Experiment,
    engine: &dyn Engine,
    policy: &str,
    batch: usize,
    checkpoints: bool,
) -> Result<Need, Failure> {
    let resolved = experiment.session_spec(policy, experiment.recipe.seed);
    let (policy, spec) = resolved.map_err(|e| Failure::asked(e.to_string(), ""))?;
    let graph = train_graph(&StepSpec {
        model: experiment.model.as_ref(),
        input: &experiment.input,
        batch,
        optimiser: &spec.optimiser,
        scaling: &spec.scaling,
        clip: spec.clip,
        expose_gradients: false,
    });
    let graph = graph.map_err(|e| Failure::failed(format!("the training step cannot be built: {e}")))?;
    let plan = stages(graph, &policy, engine.target()).plan;
    let state = plan.state_bytes().total();
    let snapshot =
        if checkpoints { plan.graph.slots.iter().map(|s| 4 * s.ty.shape.count()).sum() } else { 0 };
    Ok(Need { state, scratch: plan.arena_bytes, snapshot })
}

/// An error if one of the precisions does not fit in the memory that is to be had, with the setting that would make it fit.
/// Where the system does not say how much there is, nothing is refused.
pub fn check(
    experiment: &Experiment,
    engine: &dyn Engine,
    policies: &[String],
    checkpoints: bool,
) -> Result<(), Failure> {
    match machine::available_memory() {
        Some(limit) => check_within(limit, experiment, engine, policies, checkpoints),
        None => Ok(()),
    }
}

fn check_within(
    limit: Available,
    experiment: &Experiment,
    engine: &dyn Engine,
    policies: &[String],
    checkpoints: bool,
) -> Result<(), Failure> {
    let batch = experiment.recipe.train.batch;
    for policy in policies {
        let found = need(experiment, engine, policy, batch, checkpoints)?;
        if found.total() <= limit.bytes {
            continue;
        }
        let copy = match found.snapshot {
            0 => String::new(),
            bytes => format!(", {} for the copy that checkpoints are written from", units::bytes(bytes)),
        };
        let message = format!(
            "this run in {policy} needs {}: {} for weights and optimiser, {} for a step of {batch} samples{copy}; \
             {} {}",
            units::bytes(found.total()),
            units::bytes(found.state),
            units::bytes(found.scratch),
            units::bytes(limit.bytes),
            limit.source.words(),
        );
        let fits = |policy: &str, batch: usize| -> Result<Option<Need>, Failure> {
            let need = need(experiment, engine, policy, batch, checkpoints)?;
            Ok((need.total() <= limit.bytes).then_some(need))
        };
        return Err(Failure::asked(message, advice(experiment, policy, batch, found, limit.bytes, fits)?));
    }
    Ok(())
}

/// What to change in the recipe.
fn advice(
    experiment: &Experiment,
    policy: &str,
    batch: usize,
    found: Need,
    limit: usize,
    fits: impl Fn(&str, usize) -> Result<Option<Need>, Failure>,
) -> Result<String, Failure> {
    if found.state + found.snapshot > limit {
        return Ok("weights and optimiser alone are too large: choose a smaller model".into());
    }
    let mut settings = Vec::new();
    for other in experiment.recipe.precision.policies.iter().filter(|p| *p != policy) {
        if let Some(need) = fits(other, batch)? {
            settings.push(format!("--precision {other} ({})", units::bytes(need.total())));
        }
    }
    let mut smaller = batch / 2;
    while smaller > 0 {
        if let Some(need) = fits(policy, smaller)? {
            settings.push(format!("`batch = {smaller}` in [train] ({})", units::bytes(need.total())));
            break;
        }
        smaller /= 2;
    }
    Ok(match settings.is_empty() {
        true => "even a batch of 1 is too large: choose a smaller model".into(),
        false => format!("it would fit with {}", settings.join(" or ")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::machine::Limit;
    use halfstep::train::recipe::Recipe;

    const RECIPE: &str = "[data]\nkind = \"bundled\"\nname = \"digits\"\nlimit_train = 300\nlimit_test = 10\n\
        [model]\nkind = \"mlp\"\nhidden = [64]\n[train]\nsteps = 1\nbatch = 256\n";

    #[test]
    fn what_does_not_fit_is_refused_with_what_would() {
        let recipe = Recipe::parse("r.toml", RECIPE, std::path::Path::new(".")).unwrap();
        let experiment = recipe.prepare().unwrap();
        let engine = halfstep::engine(None).unwrap();
        let policies = ["fp32".to_string()];
        let need = |policy: &str, batch| need(&experiment, engine.as_ref(), policy, batch, true).unwrap();
        let check = |bytes| {
            let limit = Available { bytes, source: Limit::ControlGroup };
            check_within(limit, &experiment, engine.as_ref(), &policies, true)
        };
        let whole = need("fp32", 256);
        assert_eq!(whole.snapshot, whole.state, "all state is f32");
        assert!(check(whole.total()).is_ok());
        let refused = |bytes| check(bytes).err().expect("refused").to_text();
        let said = refused(whole.total() - 1);
        assert!(said.contains(&units::bytes(whole.total())) && said.contains("container or job"), "{said}");
        assert!(said.contains("`batch = 128` in [train]"), "{said}");
        // What is advised fits.
        let quarter = need("fp32", 64).total();
        assert!(need("bf16", 256).total() > quarter, "{said}");
        let said = refused(quarter);
        assert!(said.contains("`batch = 64`") && !said.contains("--precision"), "{said}");
        let said = refused(whole.state);
        assert!(said.contains("choose a smaller model"), "{said}");
    }
}
